"""Root folders whose shared libraries are those that Lambda has, and no more, for real imports in a chroot.

They are put together out of Debian packages, without a bootstrap: an interpreter at ``/var/lang``, and in ``/lib64``
the libraries that ``libraries.toml`` says are present, as far as Debian has them under the same name (`lacking` says
which it has not). Debian's Python needs libraries beside those, such as OpenSSL. They come along under names that
nobody else asks for, so that a package which needs one of them does not find it.

Debian's glibc and libstdc++ are newer than Lambda's (glibc 2.36 in bookworm, 2.41 in trixie). The symbol versions
that Lambda's do not have are renamed, too, so that a file which asks for one is refused as it is on Lambda.

arm64 runs by qemu's user mode, named on the command line: that needs neither binfmt_misc nor a mount.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from layerbuild.target import Target, select_targets
from tests.debian import ARCHITECTURES, Debian

_FACTS = Path(__file__).parents[1] / "layerbuild" / "libraries.toml"
_LOADERS = {"x86_64": "lib64/ld-linux-x86-64.so.2", "arm64": "lib/ld-linux-aarch64.so.1"}
_EMULATOR = "qemu-aarch64"
_FOLDERS = ("lib64", "lib", "tmp", "opt", "var/task", "var/runtime", "var/lang/bin", "var/lang/lib")

_PYTHON = ("{0}-minimal", "lib{0}", "lib{0}-minimal", "lib{0}-stdlib")
_LIBRARIES = (
    *("libc6", "libgcc-s1", "libstdc++6", "zlib1g", "libcrypt1"),
    *("libbz2-1.0", "libexpat1", "libffi8", "liblzma5", "libsqlite3-0", "libuuid1"),
)
_OPENSSL = {"bookworm": ("libssl3",), "trixie": ("libssl3t64", "libzstd1")}
_EMULATORS = {"bookworm": ("qemu-user-static", "qemu-aarch64-static"), "trixie": ("qemu-user", "qemu-aarch64")}

# What Lambda sets in the environment of its images; `/opt/lib` comes last.
_ENVIRONMENT = {
    "PATH": "/var/lang/bin:/usr/local/bin:/usr/bin/:/bin:/opt/bin",
    "LD_LIBRARY_PATH": "/var/lang/lib:/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:"
    "/var/task:/var/task/lib:/opt/lib",
    "PYTHONPATH": "/var/runtime",
    "LANG": "en_US.UTF-8",
    "TZ": ":UTC",
}


@dataclass(frozen=True, kw_only=True)
class LambdaRoot:
    """A folder to run a target's Python in, as root by chroot."""

    folder: Path
    target: Target

    @property
    def lacking(self) -> set[str]:
        """Libraries that Lambda has and this root has not: what fails for one of them proves nothing."""
        names, _ = _facts(self.target)
        return {name for name in names if not any((self.folder / place / name).exists() for place in _FOLDERS)}

    @property
    def emulator(self) -> list[str]:
        """What a command line inside starts with."""
        return [f"/{_EMULATOR}"] if self.target.arch == "arm64" else []

    @property
    def loader(self) -> list[str]:
        """A command line inside that runs the dynamic loader."""
        return [*self.emulator, f"/{_LOADERS[self.target.arch]}"]

    def copy(self, folder: Path) -> LambdaRoot:
        """The same root again at `folder`, of hard links, to put files into."""
        shutil.copytree(self.folder, folder, symlinks=True, copy_function=os.link)
        return LambdaRoot(folder=folder, target=self.target)

    def python(self, *arguments: str, sent: str = "") -> str:
        """What the interpreter prints, run inside without its site module, in the environment that Lambda sets."""
        chroot = shutil.which("chroot")
        assert chroot is not None
        command = [chroot, str(self.folder), *self.emulator, f"/var/lang/bin/{self.target.runtime.name}", "-B", "-S"]
        done = subprocess.run(
            [*command, *arguments], env=_ENVIRONMENT, cwd="/", input=sent, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def shared_debian(folder: Path, target: Target) -> Debian:
    """The packages for a target, below a folder that processes share."""
    return Debian(folder / f"debian-{target.runtime.name}", target.runtime.version)


def shared_root(folder: Path, target: Target) -> LambdaRoot:
    """The root of a target below a folder that processes share: made by whichever comes first."""
    digest = hashlib.sha256(Path(__file__).read_bytes() + _FACTS.read_bytes()).hexdigest()[:12]
    place = folder / f"{target}-{digest}"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{place}.lock"):
        if not place.exists():
            with tempfile.TemporaryDirectory(dir=folder) as work:
                made = make_root(Path(work) / "root", shared_debian(folder, target), target)
                _add_bytecode(made, folder)
                made.folder.rename(place)
    return LambdaRoot(folder=place, target=target)


def _add_bytecode(root: LambdaRoot, shared: Path) -> None:
    """Compiles the standard library, which an emulator takes seconds for; it is the same for each architecture."""
    if root.target.arch == "x86_64":
        root.python("-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "/var/lang/lib")
        return
    (twin,) = select_targets([f"{root.target.runtime.name}-x86_64"])
    compiled = shared_root(shared, twin).folder
    for path in (compiled / "var/lang/lib").rglob("*.pyc"):
        place = root.folder / path.relative_to(compiled)
        place.parent.mkdir(exist_ok=True)
        shutil.copy(path, place)


def make_root(folder: Path, debian: Debian, target: Target) -> LambdaRoot:
    """Makes the root for a target at `folder`."""
    present, versions = _facts(target)
    python, arch = target.runtime.name, target.arch
    work = folder.with_suffix(".work")
    names = [*(name.format(python) for name in _PYTHON), *_LIBRARIES, *_OPENSSL[debian.suite]]
    debian.unpack([f"{name}:{ARCHITECTURES[arch]}" for name in names], work)

    for name in _FOLDERS:
        (folder / name).mkdir(parents=True)
    shutil.copy(work / "usr/bin" / python, folder / "var/lang/bin")
    shutil.copytree(work / "usr/lib" / python, folder / "var/lang/lib" / python, symlinks=True)
    loader = folder / _LOADERS[arch]
    shutil.copy(next(work.glob(f"**/*-linux-gnu/{loader.name}")), loader)
    hidden = set()
    for path in work.glob("**/*-linux-gnu/lib*.so.*"):
        # A library is known by the name in its DT_SONAME; the packages have it under others, too.
        strings = _strings(path.read_bytes()) if path.is_file() else set()
        if path.name in strings:
            shutil.copy(path, folder / "lib64" / (path.name if path.name in present else _hide(path.name)))
            hidden |= {text for text in strings if _is_newer(text, versions)} | ({path.name} - present)
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            _hide_inside(path, hidden)
    if arch == "arm64":
        package, program = _EMULATORS[debian.suite]
        debian.unpack([f"{package}:amd64"], work)
        shutil.copy(work / "usr/bin" / program, folder / _EMULATOR)
    shutil.rmtree(work)
    return LambdaRoot(folder=folder, target=target)


def _facts(target: Target) -> tuple[set[str], Mapping[str, str]]:
    """The libraries that a target has, and the newest version of each kind of symbol."""
    facts = tomllib.loads(_FACTS.read_text(encoding="utf-8"))
    present = {
        name
        for library in facts["library"]
        if library["present"]
        and target.runtime.os in library.get("on", [target.runtime.os])
        and target.runtime.name in library.get("runtimes", [target.runtime.name])
        and target.arch in library.get("arch", [target.arch])
        for name in library["names"]
    }
    symbols = facts["symbols"][target.runtime.os]
    glibc = "{}.{}".format(*target.runtime.glibc)
    return present, {**symbols, "GCC": symbols["GCC"][target.arch], "GLIBC": glibc}


def _strings(content: bytes) -> set[str]:
    """The names of libraries and of symbol versions in an ELF file's string tables."""
    pattern = rb"(?<=\0)(?:lib[\w.+-]+\.so[\w.]*|(?:GLIBC|GLIBCXX|CXXABI|GCC)_[\d.]+)(?=\0)"
    return {text.decode() for text in re.findall(pattern, content)}


def _is_newer(text: str, versions: Mapping[str, str]) -> bool:
    kind, _, version = text.partition("_")
    return kind in versions and _numbers(version) > _numbers(versions[kind])


def _numbers(version: str) -> list[int]:
    return [int(number) for number in version.split(".")]


def _hide(name: str) -> str:
    """Another name, just as long, so that it fits where the name stood: ``xibssl.so.3``, ``xLIBC_2.27``."""
    return "x" + name[1:]


def _hide_inside(path: Path, hidden: Collection[str]) -> None:
    """Renames libraries and symbol versions in an ELF file.

    All that says a name (``DT_NEEDED``, ``DT_SONAME``, versions needed and defined) points to one string. The name in
    ``DT_SONAME`` has to go, too: the loader takes any library in the process by it, wherever that came from.
    """
    content = path.read_bytes()
    if content.startswith(b"\x7fELF"):
        for name in _strings(content).intersection(hidden):
            content = content.replace(b"\0%b\0" % name.encode(), b"\0%b\0" % _hide(name).encode())
        path.write_bytes(content)
