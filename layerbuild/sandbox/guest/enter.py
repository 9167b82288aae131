"""Builds a root of its own in new namespaces, fills it, and becomes a program in it. Run by layerbuild's own Python.

Its argument is a JSON object; a tar archive comes on standard input and is unpacked in the new root:

    prefix      where a CPython is installed; it lies at /var/lang in there
    network     whether programs in there reach the machine's network
    tmp         bytes of /tmp, the only place that can be written to
    command     what to become, as a user without rights; it is process 1 in there, and when it ends, all ends
    environment of the command
    mountpoint  an empty folder; it is covered in here alone

Of the machine, only its system libraries and programs are there, read-only. Without root, a user namespace gives the
rights that are needed. Exit codes: 125 where the namespaces cannot be made, with the reason on standard error.
"""

import ctypes
import fcntl
import glob
import json
import os
import signal
import socket
import struct
import sys
import tarfile
from contextlib import suppress

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
SIOCSIFFLAGS, IFF_UP = 0x8914, 1

# Lambda's own (observed: id in a function).
USER, GROUP, NAME = 993, 990, "sbx_user1051"
NO_NAMESPACES = 125

SYSTEM = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "nix", "gnu")
SETTINGS = (
    *("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "resolv.conf", "hosts", "host.conf", "nsswitch.conf", "localtime"),
    *("ssl", "pki", "ca-certificates", "crypto-policies", "services", "protocols", "mime.types", "alternatives"),
)
DEVICES = ("null", "zero", "full", "random", "urandom")

libc = ctypes.CDLL(None, use_errno=True)


def checked(result, what):
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source, place, kind=None, flags=0, options=None):
    words = [text.encode() if text is not None else None for text in (source, place, kind, options)]
    checked(libc.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3]), f"mount {place}")


def bind(source, place):
    """Shows a file or folder of the machine at another place, read-only."""
    mount(source, place, None, MS_BIND | MS_REC)
    kept = 0
    # In a user namespace, what the mount forbids already has to stay forbidden.
    status = os.statvfs(place).f_flag
    for flag, said in (
        (MS_NOSUID, os.ST_NOSUID),
        (MS_NODEV, os.ST_NODEV),
        (8, os.ST_NOEXEC),
        (1024, 1024),
        (2048, 2048),
    ):
        kept |= flag if status & said else 0
    mount(None, place, None, MS_REMOUNT | MS_BIND | MS_RDONLY | kept)


def new_namespaces(*, network):
    user, group = os.geteuid(), os.getegid()
    flags = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | (0 if network else CLONE_NEWNET)
    checked(libc.unshare(flags | (CLONE_NEWUSER if user else 0)), "unshare")
    if user:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{USER} {user} 1"), ("gid_map", f"{GROUP} {group} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    if not network:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))


def make_root(root, prefix, tmp):
    """A file system with nothing of the machine but what programs need to run."""
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    mount("tmpfs", root, "tmpfs", MS_NODEV | MS_NOSUID, "mode=0755")
    for name in SYSTEM:
        place = f"/{name}"
        if os.path.islink(place):
            os.symlink(os.readlink(place), root + place)
        elif os.path.isdir(place):
            os.mkdir(root + place)
            bind(place, root + place)
    for name in (
        "dev",
        "etc",
        "opt",
        "proc",
        "tmp",
        "var",
        "var/lang",
        "var/task",
        "var/runtime",
        "var/tmp",
        "layerbuild",
    ):
        os.mkdir(f"{root}/{name}")
    bind(prefix, f"{root}/var/lang")
    for place in glob.glob(f"{root}/var/lang/lib/python*/*-packages"):
        # What somebody has installed for this interpreter is not on Lambda.
        mount("tmpfs", place, "tmpfs", MS_RDONLY | MS_NODEV | MS_NOSUID)
    for folder, names in (("etc", SETTINGS), ("dev", DEVICES)):
        for name in names:
            # Names of settings are often links; what they lead to need not be there.
            source, place = os.path.realpath(f"/{folder}/{name}"), f"{root}/{folder}/{name}"
            if os.path.isdir(source):
                os.mkdir(place)
            elif os.path.exists(source):
                open(place, "w").close()
            else:
                continue
            if folder == "dev":
                mount(source, place, None, MS_BIND)
            else:
                bind(source, place)
    for name, target in (("fd", "self/fd"), ("stdin", "self/fd/0"), ("stdout", "self/fd/1"), ("stderr", "self/fd/2")):
        os.symlink(f"/proc/{target}", f"{root}/dev/{name}")
    with open(f"{root}/etc/passwd", "w") as file:
        file.write(f"root:x:0:0:root:/root:/bin/sh\n{NAME}:x:{USER}:{GROUP}::/home/{NAME}:/sbin/nologin\n")
    with open(f"{root}/etc/group", "w") as file:
        file.write(f"root:x:0:\n{NAME}:x:{GROUP}:\n")
    mount("tmpfs", f"{root}/tmp", "tmpfs", MS_NODEV | MS_NOSUID, f"mode=1777,size={tmp}")


def enter_root(root):
    """Makes a folder the root, and lets go of the machine's."""
    os.mkdir(f"{root}/.old")
    checked(libc.syscall(PIVOT_ROOT[os.uname().machine], root.encode(), f"{root}/.old".encode()), "pivot_root")
    os.chdir("/")
    mount("proc", "/proc", "proc", MS_NODEV | MS_NOSUID | 8)
    checked(libc.umount2(b"/.old", MNT_DETACH), "umount")
    os.rmdir("/.old")


def mode_for_user(mode):
    """The mode of a file that is root's, where it has to be the user's: that may do no more than others may."""
    others = mode & 0o007
    return mode & 0o7077 | others << 6 if mode >> 6 & 0o005 & ~others else mode


def unpack(stream):
    """Unpacks what comes, links included: a link that leads astray leads to somewhere in this root."""
    folders = set()
    # A user namespace of one user has no other to whom files could belong.
    allowed = mode_for_user if os.getuid() == USER else int
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            path = "/" + member.name
            folder = path if member.isdir() else path.rpartition("/")[0]
            if folder not in folders:
                os.makedirs(folder, exist_ok=True)
                folders.add(folder)
            if member.issym():
                os.symlink(member.linkname, path)
            elif member.isreg():
                source = archive.extractfile(member)
                with open(path, "wb") as file:
                    while data := source.read(1 << 20):
                        file.write(data)
                os.chmod(path, allowed(member.mode))
            elif member.isdir():
                os.chmod(path, allowed(member.mode))


def become(given):
    """In the new namespaces, as process 1: never returns."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    try:
        make_root(given["mountpoint"], given["prefix"], given["tmp"])
        enter_root(given["mountpoint"])
    except OSError as error:
        print(error, file=sys.stderr)
        os._exit(NO_NAMESPACES)
    os.umask(0o022)
    unpack(sys.stdin.buffer)
    mount(None, "/", None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NODEV | MS_NOSUID)
    with suppress(OSError):
        socket.sethostname("169.254.0.1")
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.getuid() != USER:
        os.setgroups([])
        os.setresgid(GROUP, GROUP, GROUP)
        os.setresuid(USER, USER, USER)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # a change of users takes it away
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    os.execve(given["command"][0], given["command"], given["environment"])


def main():
    given = json.loads(sys.argv[1])
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    try:
        new_namespaces(network=given["network"])
    except OSError as error:
        print(error, file=sys.stderr)
        sys.exit(NO_NAMESPACES)
    child = os.fork()
    if not child:
        become(given)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


main()
