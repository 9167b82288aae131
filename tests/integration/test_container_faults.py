"""Builds that misbehave get nothing and are stopped; an engine that fails leaves nothing half-made behind."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import pty
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import textwrap
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import pytest
from filelock import FileLock

from layerbuild.build_settings import BuildSettings
from layerbuild.builders.engine import Engine as DockerEngine
from layerbuild.builders.image import Images
from layerbuild.builders.streams import tar_of
from layerbuild.target import select_targets
from tests.conftest import Ran
from tests.containers import tagged_base, write_recipe, write_sdist
from tests.engine import SHARED, Engine, docker, require_engine
from tests.index_server import IndexServer
from tests.integration.test_faults import contents, remount, small_disk  # noqa: F401 - a fixture
from tests.integration.test_interrupts import PROGRAM
from tests.wheels import sha256_of

pytestmark = [pytest.mark.docker, pytest.mark.engines, pytest.mark.network]

TARGET = "python3.13-x86_64"

# A build backend inside the source package: no index is needed to build with it.
PYPROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
HELPERS = '''\
import base64, ctypes, glob, hashlib, json, os, pathlib, signal, socket, stat, subprocess, sys, time, zipfile

OUT = pathlib.Path("/build/out")

def info_files(name, version="1.0", tag="py3-none-any"):
    """The dist-info of a wheel, without its RECORD."""
    base, pure = f"{name}-{version}.dist-info", str(tag.endswith("any")).lower()
    return {
        f"{base}/METADATA": f"Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n".encode(),
        f"{base}/WHEEL": f"Wheel-Version: 1.0\\nRoot-Is-Purelib: {pure}\\nTag: {tag}\\n".encode(),
    }

def write_wheel(folder, name, files, version="1.0", record=None, tag="py3-none-any"):
    """Writes a wheel and returns its file name."""
    files = {**files, **info_files(name, version, tag)}
    def digest(data):
        return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    if record is None:
        record = "".join(f"{path},sha256={digest(data)},{len(data)}\\n" for path, data in files.items())
        record += f"{name}-{version}.dist-info/RECORD,,\\n"
    filename = f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(pathlib.Path(folder, filename), "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in files.items():
            archive.writestr(path, data)
        archive.writestr(f"{name}-{version}.dist-info/RECORD", record)
    return filename

def say(text):
    """Prints past pip, which keeps for itself what a build prints."""
    data = text.encode() if isinstance(text, str) else text
    with open(f"/proc/{os.getppid()}/fd/1", "wb", buffering=0) as pipe:
        while data:
            data = data[pipe.write(data):]
'''
BACKEND = """\
from helpers import *

NAME = {name!r}

def during_metadata():
    pass
{metadata}

def during_build(files):
    pass
{build}

def prepare_metadata_for_build_wheel(folder, config_settings=None):
    during_metadata()
    for path, data in info_files(NAME).items():
        place = pathlib.Path(folder, path)
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(data)
    return f"{{NAME}}-1.0.dist-info"

def build_wheel(folder, config_settings=None, metadata_directory=None):
    files = {{f"{{NAME}}.py": b"X = 1\\n"}}
    tag = during_build(files) or "py3-none-any"
    return write_wheel(folder, NAME, files, tag=tag)
"""
# What the interpreter runs that looks at the result of the build, and which the build can have its code run in, as
# both are one user. It comes when that has ended: what is in the folder now is what comes out.
AFTERWARDS = """\
import atexit, shutil, sys
sys.path.insert(0, "/build/limits")

def afterwards():
    if sys.argv[0].endswith("auditwheel") or "auditwheel" in sys.argv[:1]:
        from helpers import {names}
        NAME = {name!r}
{code}

atexit.register(afterwards)
"""


def indented(code: str, depth: int = 1) -> str:
    return textwrap.indent(textwrap.dedent(code).strip("\n"), "    " * depth)


def hostile_sdist(
    folder: Path, name: str, build: str = "", *, metadata: str = "", afterwards: str = "", size: int = 0
) -> Path:
    """A source package.

    Args:
        build: what its backend does, before it builds as it should; it has ``files``, the content of its wheel, and
            may return the wheel's tag.
        metadata: what it does when asked for its metadata.
        afterwards: what it does when its wheel lies in ``OUT``.
        size: bytes of something that is in it besides.
    """
    if afterwards:
        text = AFTERWARDS.format(names="*", name=name, code=indented(afterwards, 2)).replace(
            "        from helpers import *\n", "        globals().update(vars(__import__('helpers')))\n"
        )
        build = (
            f"for place, text in (('sitecustomize.py', {text!r}), ('helpers.py', open('helpers.py').read())):\n"
            f"    pathlib.Path('/build/limits', place).write_text(text)\n" + textwrap.dedent(build)
        )
    backend = BACKEND.format(name=name, metadata=indented(metadata), build=indented(build))
    files: dict[str, str | bytes] = {"backend.py": backend, "helpers.py": HELPERS}
    files["noise.bin"] = random.Random(1).randbytes(size)
    return write_sdist(folder, name, pyproject=PYPROJECT, files=files)


def containers(*filters: str) -> set[str]:
    """Ids of the builds' containers that the engine has, running or not."""
    chosen = [word for text in ("label=layerbuild", *filters) for word in ("--filter", text)]
    return set(docker("ps", "--all", "--quiet", "--no-trunc", *chosen).decode().split())


def program(*arguments: str | Path, seconds: float = 120, before: Sequence[str] = ()) -> Ran:
    """Runs a command line in a process of its own, which must end in time."""
    command = [*before, sys.executable, "-m", "layerbuild", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    return Ran(done.returncode, done.stdout, done.stderr)


def wait_until(condition: Callable[[], object], seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.05)


def no_traceback(text: str) -> None:
    """None of layerbuild's own; what builds print is shown indented."""
    assert not re.search(r"^Traceback|internal-error", text, re.MULTILINE), text


@dataclass
class Yard:
    """A project with a made-up source package, and what must hold whatever that does."""

    project: Path
    name: str
    base: str
    known: frozenset[Path] = frozenset()

    def wheels(self) -> frozenset[Path]:
        """The wheels in the cache."""
        return frozenset(path for path in (self.cache / "wheels").rglob("*") if path.is_file())

    @property
    def sources(self) -> Path:
        return self.project.parent / "sources"

    @property
    def cache(self) -> Path:
        return self.project.parent / "cache"

    @property
    def layer(self) -> Path:
        return self.project / "dist" / f"demo-{TARGET}.zip"

    @property
    def lock(self) -> Path:
        return self.project / "recipes/demo/locks" / f"{TARGET}.txt"

    @property
    def arguments(self) -> tuple[str, ...]:
        return ("make", "demo", "--base-image", self.base)

    def offer(self, build: str = "", *, locked: bool = True, **others: Any) -> None:
        """Offers the package, which a recipe asks for. See `hostile_sdist`."""
        path = hostile_sdist(self.sources, self.name, build, **others)
        write_recipe(self.project, f'name = "demo"\nrequirements = ["{self.name}"]\ntargets = ["{TARGET}"]\n')
        if locked:
            self.pin(path)

    def pin(self, *paths: Path) -> None:
        """Writes the lock by hand, so that nothing of the packages is run to make it."""
        self.lock.parent.mkdir(parents=True, exist_ok=True)
        names = [path.name.removesuffix("-1.0.tar.gz") for path in paths]
        lines = [f"{name}==1.0 --hash=sha256:{sha256_of(path)}\n" for name, path in zip(names, paths, strict=True)]
        self.lock.write_text("".join(lines))

    def volume(self, name: str | None = None) -> str:
        return f"layerbuild-{TARGET}-{(name or self.name).replace('_', '-')}"

    def make(self, *options: str) -> Ran:
        """Makes the layer; no container is left."""
        ran = program(*self.arguments, *options)
        self.nothing_runs()
        return ran

    def nothing_runs(self, seconds: float = 0) -> None:
        """No container is left that has the package's volume."""
        wait_until(lambda: not containers(f"volume={self.volume()}"), seconds)

    def works(self, *options: str) -> dict[str, bytes]:
        """Makes the layer and returns what is in it, below site-packages."""
        ran = self.make(*options)
        assert ran.code == 0, ran.err
        return self.content()

    def content(self) -> dict[str, bytes]:
        with zipfile.ZipFile(self.layer) as archive:
            assert archive.testzip() is None
            return {name.split("/site-packages/")[-1]: archive.read(name) for name in archive.namelist()}

    def fails(self, *words: str, code: int = 3, options: tuple[str, ...] = ()) -> Ran:
        """Makes the layer and sees it refused for a reason in which all `words` occur."""
        ran = self.make(*options)
        self.refused(ran, *words, code=code)
        return ran

    def refused(self, ran: Ran, *words: str, code: int = 3) -> None:
        """A clear error, and nothing in project and cache but the source."""
        assert ran.code == code, (ran.out, ran.err)
        assert ran.err.startswith("error: ") or "\nerror: " in ran.err
        no_traceback(ran.err)
        for word in words:
            assert word in ran.err
        assert "no index has" not in ran.err, "the build image is not there any more"
        self.nothing_half_made()

    def nothing_half_made(self) -> None:
        assert list(self.project.parent.rglob("*.part")) == []
        assert self.wheels() == self.known
        assert not self.layer.exists()


@pytest.fixture(autouse=True)
def _engine() -> None:
    require_engine()


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A value for --base-image whose build image the engine has, so that no test needs an index."""
    require_engine()
    base = tagged_base(TARGET)
    make_first(tmp_path_factory.mktemp("first"), base)
    return base


def make_first(folder: Path, base: str) -> str:
    """Makes a layer, and so the build image of a base, which takes an index. Returns the tag of that."""
    path = hostile_sdist(folder / "sources", "lbtest_first")
    write_recipe(folder, f'name = "demo"\nrequirements = ["lbtest_first"]\ntargets = ["{TARGET}"]\n')
    yard = Yard(folder, "lbtest_first", base)
    yard.pin(path)
    links = f"{os.environ.get('PIP_FIND_LINKS', '')} {folder / 'sources'}"
    env = {**os.environ, "PIP_FIND_LINKS": links, "LAYERBUILD_CACHE_DIR": str(folder / "cache")}
    command = [sys.executable, "-m", "layerbuild", *yard.arguments]
    with FileLock(SHARED / "layerbuild-test-faults.lock"):
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return built_image(base)


def built_image(base: str) -> str:
    """The tag of the build image of a base."""
    (target,) = select_targets([TARGET])
    images = Images(DockerEngine(), cast("Any", None), cast("Any", None), cast("Any", None), base)
    return images.image(target, BuildSettings()).tag


def use_folder_alone(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Lets pip, uv and layerbuild know of nothing but a folder of sources."""
    for name in list(os.environ):
        if name.startswith(("PIP_", "UV_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))


@pytest.fixture
def yard(
    request: pytest.FixtureRequest,
    base: str,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Yard]:
    """A project of its own, whose package no other test has."""
    name = f"lbtest_{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:10]}"
    yard = Yard(project, name, base)
    use_folder_alone(monkeypatch, yard.sources)
    yield yard
    subprocess.run(["docker", "volume", "rm", "--force", yard.volume()], capture_output=True)


# Credentials


SEARCH = r"""
found = {"environment": dict(os.environ), "processes": {}, "files": {}}
for place in glob.glob("/proc/[0-9]*/*"):
    if place.endswith(("/environ", "/cmdline")):
        try:
            found["processes"][place] = pathlib.Path(place).read_bytes().decode("latin-1")
        except OSError as error:
            found["processes"][place] = str(error)
places = "/root /home /run /var/run /var/task /tmp /mnt /media /srv /opt /etc /build".split()
places += [os.path.expanduser("~"), "/proc/self/mountinfo", "/usr/local/layerbuild/ca.pem", "/.dockerenv"]
for place in places:
    for folder, _, names in [*os.walk(place), ("", [], [place])]:
        for path in [os.path.join(folder, name) for name in names]:
            try:
                if stat.S_ISREG(os.stat(path).st_mode):
                    found["files"][path] = pathlib.Path(path).read_bytes().decode("latin-1")
            except OSError:
                pass
found["sockets"] = [path for path in ("/var/run/docker.sock", "/run/docker.sock") if os.path.exists(path)]
files["seen.json"] = json.dumps(found).encode()
"""
SECRET = "lbfake-hunter2"


def hide_secrets(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts made-up credentials to where people have theirs."""
    files = {
        ".aws/credentials": f"[default]\naws_access_key_id = AKIA{SECRET}\naws_secret_access_key = {SECRET}\n",
        ".netrc": f"machine 127.0.0.1 login user password {SECRET}\n",
        ".docker/config.json": json.dumps(
            {
                "auths": {"127.0.0.1:1": {"auth": base64.b64encode(f"user:{SECRET}".encode()).decode()}},
                "proxies": {"default": {"httpProxy": f"http://user:{SECRET}@127.0.0.1:1", "noProxy": "*"}},
                "HttpHeaders": {"X-Secret": SECRET},
            }
        ),
        ".ssh/id_ed25519": SECRET,
        ".pypirc": f"[pypi]\npassword = {SECRET}\n",
        ".config/pip/pip.conf": f"[global]\nclient-cert = /{SECRET}.pem\n",
    }
    for name, text in files.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text)
    monkeypatch.setenv("HOME", str(home))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "GITHUB_TOKEN", "TWINE_PASSWORD"):
        monkeypatch.setenv(name, f"{name}-{SECRET}")
    monkeypatch.setenv("SSH_AUTH_SOCK", f"/{SECRET}/agent")
    monkeypatch.setenv("PIP_CLIENT_CERT", f"/{SECRET}.pem")


# What every build is told, as docs/containers.md has it: fixed values, and pip's settings.
DOCUMENTED = {
    "HOME": "/build",
    "TMPDIR": "/build/tmp",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "PYTHONHASHSEED": "0",
    "SOURCE_DATE_EPOCH": "315532800",
    "PIP_BUILD_CONSTRAINT": "/build/build-constraints.txt",
    "PIP_CACHE_DIR": "/build/.cache/pip",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_NO_INPUT": "1",
    "PIP_PROGRESS_BAR": "off",
    "PIP_FIND_LINKS": "/build/sources",
    "PIP_NO_INDEX": "1",
}


# What pip sets for what it builds, or changes.
OF_PIP = {"PATH", "PYTHONPATH", "PYTHONNOUSERSITE", "PIP_BUILD_TRACKER", "CFLAGS", "CXXFLAGS"}


def test_a_build_finds_no_credentials(yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hide_secrets(tmp_path / "home", monkeypatch)
    before = contents(tmp_path / "home")
    yard.offer(SEARCH)

    ran = yard.make()
    assert ran.code == 0, ran.err

    seen = json.loads(yard.content()["seen.json"])
    assert len(seen["processes"]) >= 4
    assert "/etc/passwd" in seen["files"]
    assert SECRET not in json.dumps(seen)
    assert seen["sockets"] == []
    assert SECRET not in ran.out + ran.err
    for name, data in {**contents(yard.project), **contents(yard.cache)}.items():
        assert SECRET.encode() not in data, name
    assert contents(tmp_path / "home") == before


def test_the_environment_of_a_build_is_what_the_docs_say(yard: Yard) -> None:
    yard.offer("files['seen.json'] = json.dumps(dict(os.environ)).encode()")
    of_image = json.loads(docker("inspect", "--format", "{{json .Config.Env}}", built_image(yard.base)))

    seen = json.loads(yard.works()["seen.json"])

    assert {name: seen.get(name) for name in DOCUMENTED} == DOCUMENTED
    others = {f"{name}={value}" for name, value in seen.items() if name not in {*DOCUMENTED, *OF_PIP, "HOSTNAME"}}
    assert {text for text in others - set(of_image) if not text.startswith("_PYPROJECT_HOOKS_")} == set()


def test_an_image_is_built_without_credentials(alone: Alone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone.yard.offer()
    alone.yard.base = changed(alone.base, "env > /usr/lib/lbtest-seen")
    hide_secrets(tmp_path / "home", monkeypatch)

    ran = alone.yard.make()

    assert ran.code == 0, ran.err
    image = built_image(alone.yard.base)
    seen = docker("run", "--rm", "--entrypoint=cat", image, "/usr/lib/lbtest-seen").decode()
    assert "PATH=" in seen
    for text in (seen, docker("history", "--no-trunc", image).decode(), docker("inspect", image).decode(), ran.err):
        assert SECRET not in text


@pytest.mark.parametrize("network", ["host", "none"])
def test_the_password_of_an_index_is_kept_nowhere(
    yard: Yard, index_server: IndexServer, monkeypatch: pytest.MonkeyPatch, network: str
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX", raising=False)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    index_server.folder = yard.sources
    index_server.password = f"user:{SECRET}"
    monkeypatch.setenv("PIP_INDEX_URL", index_server.url.replace("://", f"://user:{SECRET}@"))
    yard.offer("files['seen.json'] = json.dumps(os.environ.get('PIP_INDEX_URL', '')).encode()")

    ran = yard.make("--build-network", network)

    assert ran.code == 0, ran.err
    # A build may read it, as the docs say, unless it has no use for it.
    seen = json.loads(yard.content()["seen.json"])
    assert (SECRET in seen) is (network == "host")
    assert SECRET not in ran.out + ran.err
    if network == "host":
        assert f"passed into containers: PIP_INDEX_URL=http://****@127.0.0.1:{index_server.port}" in ran.err
    yard.offer("raise SystemExit(os.environ['PIP_INDEX_URL'])" if network == "host" else "raise SystemExit(1)")
    ran = yard.make("--build-network", network, "--json")
    assert (ran.code, SECRET in ran.out + ran.err) == (3, False)
    image = built_image(yard.base)
    assert SECRET.encode() not in docker("history", "--no-trunc", image) + docker("inspect", image)


# Rights


LOOK = r"""
def attempt(work):
    try:
        work()
    except OSError as error:
        return error.strerror
    return "done"

def call(name, *arguments):
    if ctypes.CDLL(None, use_errno=True)[name](*arguments):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

def append(path):
    with open(path, "ab") as file:
        file.write(b"lbtest\n")

places = [
    "/lbtest", "/usr/lbtest", "/usr/bin/lbtest", "/usr/local/layerbuild/inside.py", "/usr/local/layerbuild/lbtest",
    "/usr/local/layerbuild/venv/bin/lbtest", "/usr/local/layerbuild/venv/lib/python3.13/site-packages/lbtest.pth",
    "/etc/passwd", "/etc/ld.so.preload", "/var/lang/lib/python3.13/lbtest.py", "/var/lang/bin/python3.13",
    "/root/lbtest", "/opt/lbtest", "/sys/fs/cgroup/lbtest", "/sys/kernel/mm/ksm/run", "/proc/sys/kernel/hostname",
    "/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/1/oom_score_adj", "/dev/lbtest", "/etc/hosts",
]
status = pathlib.Path("/proc/self/status").read_text()
group = next(iter(glob.glob("/sys/fs/cgroup/pids/pids.max") + glob.glob("/sys/fs/cgroup/pids.max")), None)
files["seen.json"] = json.dumps({
    "ids": [os.getresuid(), os.getresgid(), os.getgroups()],
    "status": dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line),
    "processes": pathlib.Path(group).read_text().strip() if group else "unknown",
    "written": {path: attempt(lambda: append(path)) for path in places},
    "set user": attempt(lambda: os.setuid(0)),
    "mount": attempt(lambda: call("mount", b"tmpfs", b"/build/tmp", b"tmpfs", 0, None)),
    "unshare user": attempt(lambda: call("unshare", 0x10000000)),
    "unshare mounts": attempt(lambda: call("unshare", 0x00020000)),
    "device": attempt(lambda: os.mknod("/build/tmp/sda", stat.S_IFBLK | 0o600, os.makedev(8, 0))),
    "trace": attempt(lambda: call("ptrace", 16, 1, 0, 0)),
    "owner": attempt(lambda: os.chown("/etc/passwd", 10001, 10001)),
    "raw socket": attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)),
    "host name": attempt(lambda: call("sethostname", b"lbtest", 6)),
    "devices": sorted(os.listdir("/dev")),
    "setuid": [os.path.join(folder, name) for folder, _, names in os.walk("/") for name in names
               if not folder.startswith(("/proc", "/sys")) and os.path.isfile(os.path.join(folder, name))
               and os.stat(os.path.join(folder, name)).st_mode & stat.S_ISUID][:3],
    "interfaces": sorted(line.split(":")[0].strip() for line in open("/proc/net/dev") if ":" in line),
    "routes": len(open("/proc/net/route").readlines()) - 1,
    "volumes": os.listdir("/build/.cache/pip/http-v2"),
}).encode()
"""


@pytest.mark.parametrize("network", ["bridge", "host", "none"])
def test_a_build_has_no_rights(yard: Yard, network: str) -> None:
    yard.offer(LOOK)

    seen = json.loads(yard.works("--build-network", network)["seen.json"])

    user = 10001
    assert seen["ids"][:2] == [[user] * 3, [user] * 3]
    assert set(seen["ids"][2]) <= {user}
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(seen["status"][name], 16) == 0, name
    assert (seen["status"]["NoNewPrivs"], seen["status"]["Seccomp"]) == ("1", "2")
    assert seen["processes"] in ("1024", "unknown")
    assert {path for path, said in seen["written"].items() if said == "done"} <= {"/proc/1/oom_score_adj"}
    for what in ("set user", "mount", "unshare user", "unshare mounts", "device", "owner", "raw socket", "host name"):
        assert seen[what] != "done", what
    assert not [name for name in seen["devices"] if name.startswith(("sd", "vd", "nvme", "loop", "kmsg", "mem"))]
    if network == "none":
        assert (seen["interfaces"], seen["routes"]) == (["lo"], 0)


# What comes out


# Each is done where the build's own wheel lies already: what it does to that, and what is said of it.
RESULTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "another project's wheel": (
        "(OUT / OWN).unlink(); write_wheel(OUT, 'lbtest_other', {})",
        ("gave", "lbtest_other-1.0", "build-result"),
    ),
    "another project's wheel beside": (
        "write_wheel(OUT, 'lbtest_other', {'lbtest_other.py': b''})",
        ("gave", "lbtest_other-1.0", "build-result"),
    ),
    "another version": (
        "(OUT / OWN).unlink(); write_wheel(OUT, NAME, {}, version='1.1')",
        ("build-result",),
    ),
    "a wheel under a false name": (
        "(OUT / OWN).unlink(); made = write_wheel(OUT, 'lbtest_other', {}); (OUT / made).rename(OUT / OWN)",
        ("METADATA says lbtest_other", "wheel-invalid"),
    ),
    "nothing": ("(OUT / OWN).unlink()", ("gave nothing", "build-result")),
    "no folder": ("shutil.rmtree(OUT)", ("gave nothing", "build-result")),
    "a file as folder": ("shutil.rmtree(OUT); OUT.write_bytes(b'PK')", ("build-result",)),
    "a link as folder": ("shutil.rmtree(OUT); OUT.symlink_to('/etc')", ("build-result",)),
    "a symbolic link": (
        "(OUT / OWN).unlink(); (OUT / OWN).symlink_to('/etc/passwd')",
        ("gave nothing", "build-result"),
    ),
    "a link to itself": (
        "(OUT / OWN).unlink(); (OUT / OWN).symlink_to(OWN)",
        ("gave nothing", "build-result"),
    ),
    "a folder": (
        "(OUT / OWN).unlink(); (OUT / OWN).mkdir(); write_wheel(OUT / OWN, NAME, {})",
        ("gave nothing", "build-result"),
    ),
    "a pipe": ("(OUT / OWN).unlink(); os.mkfifo(OUT / OWN)", ("gave nothing", "build-result")),
    "a socket": (
        "(OUT / OWN).unlink(); socket.socket(socket.AF_UNIX).bind(str(OUT / OWN))",
        ("gave nothing", "build-result"),
    ),
    "no wheel's name": ("(OUT / 'passwd').write_bytes(b'root')", ("'passwd', which is not a wheel", "build-result")),
    "a path in its name": (
        "(OUT / '..\\\\..\\\\lbtest-1.0-py3-none-any.whl').write_bytes(b'PK')",
        ("build-result",),
    ),
    "a line end in its name": (
        "(OUT / 'a\\n\\x1b[2J\\x07-1.0-py3-none-any.whl').write_bytes(b'PK')",
        ("'a\\n\\x1b[2J\\x07-1.0-py3-none-any.whl', which is not a wheel", "build-result"),
    ),
    "no UTF-8 in its name": (
        "(OUT / b'\\xff\\xfe-1.0-py3-none-any.whl'.decode('utf-8', 'surrogateescape')).write_bytes(b'PK')",
        ("which is not a wheel", "build-result"),
    ),
    "an empty file": ("(OUT / OWN).write_bytes(b'')", ("not a whole zip", "wheel-invalid")),
    "half a wheel": ("os.truncate(OUT / OWN, 300)", ("not a whole zip", "wheel-invalid")),
    "a RECORD of other content": (
        "write_wheel(OUT, NAME, {'x.py': b'1'}, record='x.py,sha256=' + 'A' * 43 + ',1\\n')",
        ("its RECORD", "wheel-invalid"),
    ),
    "a RECORD without it": ("write_wheel(OUT, NAME, {'x.py': b'1'}, record='')", ("no hash for", "wheel-invalid")),
    "a path that leads out": (
        "write_wheel(OUT, NAME, {'../../../evil.py': b'1'})",
        ("leads out of the layer", "wheel-invalid"),
    ),
    "an absolute path": ("write_wheel(OUT, NAME, {'/tmp/evil.py': b'1'})", ("leads out", "wheel-invalid")),
    "a bomb": (
        "write_wheel(OUT, NAME, {f'zeros{place}': bytes(100_000_000) for place in range(3)})",
        ("it unpacks to", "wheel-invalid"),
    ),
}


@pytest.mark.parametrize(("code", "words"), RESULTS.values(), ids=RESULTS.keys())
def test_a_result_that_is_no_honest_wheel_is_refused(yard: Yard, code: str, words: tuple[str, ...]) -> None:
    yard.offer(afterwards=f"OWN = f'{{NAME}}-1.0-py3-none-any.whl'\n{code}")

    ran = yard.fails(*words)

    assert "\x1b" not in ran.err
    assert list(yard.project.parent.rglob("evil*")) == []


def test_the_next_honest_source_is_built(yard: Yard) -> None:
    yard.offer(afterwards="os.truncate(OUT / f'{NAME}-1.0-py3-none-any.whl', 300)")
    yard.fails("not a whole zip", "wheel-invalid")

    yard.offer()

    assert yard.works()[f"{yard.name}.py"] == b"X = 1\n"


def test_one_package_cannot_tamper_with_another(yard: Yard) -> None:
    other = f"{yard.name}z"
    tamper = f"""
        wheels = [OUT, pathlib.Path("/build/built"), *map(pathlib.Path, glob.glob("/build/.cache/pip/http-v2"))]
        for folder in wheels:
            folder.mkdir(exist_ok=True)
            write_wheel(folder, {other!r}, {{"{other}.py": b"EVIL = 1\\n"}})
        pathlib.Path("/build/.cache/pip/http-v2/lbtest-evil").write_bytes(b"evil")
        for path in [*pathlib.Path("/build/sources").glob("*"), pathlib.Path("/build/requirements.txt")]:
            path.write_bytes(b"evil")
    """
    seen = """
        places = [place for root in ("/build", "/tmp", "/var/tmp", "/dev/shm") for place in os.walk(root)]
        names = [os.path.join(place[0], name) for place in places for name in place[2]]
        files["seen.json"] = json.dumps(names).encode()
    """
    yard.offer(tamper)
    paths = [hostile_sdist(yard.sources, yard.name, tamper), hostile_sdist(yard.sources, other, seen)]
    names = ", ".join(f'"{name}"' for name in (yard.name, other))
    write_recipe(yard.project, f'name = "demo"\nrequirements = [{names}]\ntargets = ["{TARGET}"]\n')
    yard.pin(paths[1])
    write_recipe(yard.project, f'name = "demo"\nrequirements = ["{other}"]\ntargets = ["{TARGET}"]\n')
    alone = yard.works("--force")
    for path in yard.cache.rglob("builds/*/*.json"):
        path.unlink()

    write_recipe(yard.project, f'name = "demo"\nrequirements = [{names}]\ntargets = ["{TARGET}"]\n')
    yard.pin(*paths)
    ran = yard.make("--force")

    assert ran.code in (0, 3), ran.err
    content = yard.content()
    assert content[f"{other}.py"] == alone[f"{other}.py"] == b"X = 1\n"
    assert content["seen.json"] == alone["seen.json"]
    subprocess.run(["docker", "volume", "rm", "--force", yard.volume(other)], capture_output=True)


# Time, memory and output


LIMITS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "sleeps for ever, deaf": (
        """
        for number in range(1, 65):
            try:
                signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError):
                pass
        while True:
            time.sleep(1)
        """,
        ("--build-timeout", "0.08"),
        ("the build was ended after 0.08 minutes", "build-timeout"),
    ),
    "forks without end": (
        """
        while True:
            try:
                if not os.fork():
                    os.setsid()
            except OSError:
                time.sleep(0.01)
        """,
        ("--build-timeout", "0.08"),
        ("the build was ended after 0.08 minutes", "build-timeout"),
    ),
    "eats memory": (
        """
        eaten = []
        while True:
            eaten.append(b"x" * 20_000_000)
        """,
        ("--build-memory", "0.5"),
        ("more than 0.5 GiB of memory", "--build-memory", "build-out-of-memory"),
    ),
    "eats memory by files": (
        """
        with open("/dev/shm/x", "wb") as file:
            while True:
                file.write(b"x" * 20_000_000)
        """,
        ("--build-memory", "0.5"),
        ("No space left on device", "build-failed"),
    ),
    "ends what waits for it": (
        "os.kill(os.getppid(), signal.SIGKILL)",
        (),
        (),
    ),
    "ends all": (
        "os.kill(-1, signal.SIGKILL)",
        (),
        (),
    ),
}


@pytest.mark.parametrize(("code", "options", "words"), LIMITS.values(), ids=LIMITS.keys())
def test_a_build_that_takes_too_much_is_ended(
    yard: Yard, code: str, options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    yard.offer(code)
    started = time.monotonic()

    yard.fails(*words, options=options)

    assert time.monotonic() - started < 30


def test_what_a_build_leaves_running_ends_with_it(yard: Yard) -> None:
    yard.offer(
        """
        quiet = dict(stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        stubborn = "trap '' TERM HUP INT; while :; do sleep 1; done"
        subprocess.Popen(["sh", "-c", stubborn], start_new_session=True, **quiet)
        """
    )

    assert yard.works()[f"{yard.name}.py"] == b"X = 1\n"


def measured(*arguments: str, out: Path, seconds: float = 120) -> tuple[int, int]:
    """Runs a command line, its output written to a file; its exit code, and the bytes of memory that it needed."""
    command = [sys.executable, "-m", "layerbuild", *arguments]
    with out.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
    killer = threading.Timer(seconds, process.kill)
    killer.start()
    try:
        _, status, usage = os.wait4(process.pid, 0)
    finally:
        killer.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage.ru_maxrss * 1024


# A line of theirs is what memory and searches are measured by.
FLOODS = {
    "lines": "say((b'x' * 999 + b'\\n') * 150)",
    "long lines": "say((b'y' * 149_999) + b'\\n')",
    "no line": "say(b'z' * 150_000)",
    "words that are looked for": "say(b'pg_config' * 16_000)",
    "packages that are asked for": "say(b\"package 'a' required by \" * 6_000)",
    "names that are asked for": "say(b'a.' * 70_000)",
}


@pytest.mark.parametrize("when", ["build", "metadata"])
@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS.keys())
def test_output_in_masses_fills_no_memory_and_takes_no_time(
    yard: Yard, tmp_path: Path, flood: str, when: str
) -> None:
    code = f"for _ in range(700): {flood}\nos._exit(1)"
    yard.offer(**{when: code}, locked=when == "build")
    started = time.monotonic()

    exit_code, memory = measured(*yard.arguments, out=tmp_path / "printed")

    assert (time.monotonic() - started < 30, exit_code) == (True, 3), (tmp_path / "printed").read_bytes()[-1000:]
    assert memory < 300_000_000
    assert (tmp_path / "printed").stat().st_size < 200_000_000
    yard.nothing_runs()
    yard.nothing_half_made()


HOSTILE_TEXT = (
    "\x1b]0;title\x07 \x1b[2J\x1b[1;1H \x1b[31mred \x9b31m \x07 \x08\x08 \r over \u202egnirts \u2028 [/] [/red] "
    "[bold] [link=http://127.0.0.1:9/]x[/link] https://user:hunter2-secret@127.0.0.1:9/simple "
    "http://hunter2-secret@127.0.0.1:9/ git+https://user:hunter2-secret@127.0.0.1:9/x.git"
)
# Besides those of a terminal's own that a progress bar needs: colours, and where to write.
HARMLESS = re.compile(r"\x1b\[(?:\d+(?:;\d+)*)?[mAK]|\x1b\[\?25[hl]|\r|\n")


def check_harmless(text: str) -> None:
    assert "hunter2" not in text
    assert "****@127.0.0.1:9" in text
    rest = HARMLESS.sub("", text)
    assert not [character for character in rest if not character.isprintable()], rest


@pytest.mark.parametrize("when", ["build", "metadata"])
@pytest.mark.parametrize("options", [(), ("--json",), ("--debug",)], ids=["text", "json", "debug"])
def test_hostile_output_is_harmless_where_it_is_shown(yard: Yard, when: str, options: tuple[str, ...]) -> None:
    code = f"print({HOSTILE_TEXT!r})\nraise SystemExit({HOSTILE_TEXT!r})"
    yard.offer(**{when: code}, locked=when == "build")

    ran = yard.make(*options) if "--debug" not in options else program("--debug", *yard.arguments)

    assert ran.code == 3, ran.err
    assert "build-failed" in ran.err
    check_harmless(ran.err)
    assert "hunter2" not in ran.out
    assert not [character for character in ran.out if not character.isprintable() and character != "\n"]
    for name, data in {**contents(yard.cache), **contents(yard.project / "dist")}.items():
        assert b"hunter2-secret" not in data or name.startswith("sources/"), name
    yard.nothing_half_made()


@pytest.mark.parametrize("when", ["build", "metadata"])
def test_hostile_output_is_harmless_on_a_terminal(yard: Yard, when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    code = f"""
        for line in {HOSTILE_TEXT.split(" ")!r}:
            say(line + "\\n")
            time.sleep(0.1)
        print({HOSTILE_TEXT!r})
        raise SystemExit({HOSTILE_TEXT!r})
    """
    yard.offer(**{when: code}, locked=when == "build")
    monkeypatch.setenv("TERM", "xterm-256color")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "layerbuild", *yard.arguments]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)

    seen = bytearray()
    with contextlib.suppress(OSError):  # which is how a terminal ends
        while chunk := os.read(ours, 1 << 16):
            seen += chunk
    os.close(ours)

    assert process.wait(60) == 3, seen.decode()
    assert b"build-failed" in seen
    no_traceback(HARMLESS.sub("\n", seen.decode()))
    check_harmless(seen.decode())


# What a lock is made from


# Written over and over by a process that outlives the question for metadata, so that it stands where pip-compile's
# result is looked for.
LOCKS = {
    "an option": "write('--index-url http://127.0.0.1:9/simple\\n{name}==1.0\\n')",
    "a URL": "write('{name} @ http://127.0.0.1:9/evil-1.0-py3-none-any.whl\\n')",
    "a folder of this machine": "write('-e /etc\\n{name}==1.0\\n')",
    "another file": "write('-r /etc/passwd\\n{name}==1.0\\n')",
    "an unknown package": "write('{name}==1.0\\nlbtest-unknown==1.0\\n')",
    "nothing": "write('')",
    "no UTF-8": "write(b'\\xff\\xfe==1.0\\n')",
    "a link": "os.symlink('/etc/passwd', 'new'); os.replace('new', place)",
    "a folder": "os.path.exists(place) and not os.path.isdir(place) and os.unlink(place)"
    "; os.makedirs(place, exist_ok=True)",
    "a file without end": "open('new', 'w').close(); os.truncate('new', 1 << 40); os.replace('new', place)",
}
FOREVER = """\
place = "/build/out/requirements.txt"
def write(data):
    with open("new", "wb") as file:
        file.write(data if isinstance(data, bytes) else data.encode())
    os.replace("new", place)
if not os.fork():
    os.setsid()
    for number in range(100):
        try:
            os.close(number)
        except OSError:
            pass
    os.chdir("/build/tmp")
    while True:
        try:
            {code}
        except OSError:
            pass
        time.sleep(0.001)
"""


@pytest.mark.parametrize("code", LOCKS.values(), ids=LOCKS.keys())
def test_a_lock_is_not_what_a_package_makes_of_it(yard: Yard, tmp_path: Path, code: str) -> None:
    yard.offer(metadata=FOREVER.format(code=code.format(name=yard.name)), locked=False)
    started = time.monotonic()
    command = ("lock", "demo", "--base-image", yard.base, "--build-timeout", "0.2")

    ended, memory = measured(*command, out=tmp_path / "printed", seconds=60)

    said = (tmp_path / "printed").read_text()
    assert ended == 3, said
    assert "Using links" in said
    assert (time.monotonic() - started < 30, memory < 300_000_000) == (True, True)
    no_traceback(said)
    assert not yard.lock.exists()
    yard.nothing_half_made()


def test_packages_that_are_locked_leave_nothing_to_each_other(yard: Yard) -> None:
    leave = "pathlib.Path('/build/.cache/pip/http-v2/lbtest-evil').write_bytes(b'evil')"
    yard.offer(metadata=leave, locked=False)
    assert program("lock", "demo", "--base-image", yard.base).code == 0

    see = "print(os.listdir('/build/.cache/pip/http-v2')); raise SystemExit(1)"
    yard.offer(metadata=see, locked=False)
    yard.lock.unlink()
    ran = program("lock", "demo", "--base-image", yard.base)

    assert ran.code == 3
    assert "Preparing metadata" in ran.err
    assert "lbtest-evil" not in ran.err


# An engine of its own


# Stands in for the package manager of a base image: no network is needed, and no compiler comes of it.
APT = """\
#!/bin/sh
echo "lbtest apt $*"
case "$*" in *install*)
{code}
;; esac
"""


def changed(image: str, code: str) -> str:
    """The tag of an image whose package manager runs a line of shell where it is to install something."""
    tag = f"lbtest-quick:{hashlib.sha256((image + code).encode()).hexdigest()[:12]}"
    script = APT.format(code=code).encode()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        entry = tarfile.TarInfo("apt-get")
        entry.size, entry.mode = len(script), 0o755
        archive.addfile(entry, io.BytesIO(script))
    container = docker("create", image).decode().strip()
    docker("cp", "-", f"{container}:/usr/local/bin", sent=out.getvalue())
    docker("commit", container, tag)
    docker("rm", container)
    return tag


def without(image: str, *paths: str) -> str:
    """The tag of an image that lacks files."""
    tag = f"lbtest-quick:{hashlib.sha256(repr((image, paths)).encode()).hexdigest()[:12]}"
    container = docker("create", "--entrypoint=rm", "--user=0", image, "-r", *paths).decode().strip()
    docker("start", "--attach", container)
    docker("commit", "--change=ENTRYPOINT []", container, tag)
    docker("rm", container)
    return tag


@dataclass(frozen=True)
class Saved:
    """A base whose build image is made without a network: both in an archive, and a cache of the tools in there."""

    base: str
    archive: Path
    cache: Path


@pytest.fixture(scope="session")
def saved(base: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Saved]:
    """Made anew for each session, and gone after it."""
    folder = tmp_path_factory.mktemp("saved")
    quick = changed(base.format(python="3.13", arch="x86_64"), f"true {os.getpid()}")
    built = make_first(folder, quick)
    try:
        docker("save", "--output", folder / "images.tar", quick, built)
        yield Saved(quick, folder / "images.tar", folder / "cache")
    finally:
        docker("rmi", built, quick)
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def own_engine(saved: Saved, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine that nobody else uses, with the images of `saved`."""
    if os.geteuid():
        pytest.skip("an engine of its own needs root")
    engine = Engine(tmp_path_factory.mktemp("e"), size="4g")
    try:
        engine.start()
        docker("--host", engine.socket, "load", "--input", saved.archive)
        yield engine
    finally:
        engine.stop()


@pytest.fixture
def alone(yard: Yard, saved: Saved, own_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Alone]:
    """A project whose builds run in an engine of its own."""
    own_engine.start()
    monkeypatch.setenv("DOCKER_HOST", own_engine.socket)
    shutil.copytree(saved.cache, yard.cache)
    yard.base, yard.known = saved.base, yard.wheels()
    alone = Alone(yard, own_engine, saved.base)
    yield alone
    alone.end()


@dataclass
class Alone:
    """A project and an engine of its own: all that is in it can be counted."""

    yard: Yard
    engine: Engine
    base: str
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.before = self.images()

    def images(self) -> set[str]:
        return set(docker("images", "--all", "--quiet", "--no-trunc").decode().split())

    def containers(self) -> set[str]:
        return set(docker("ps", "--all", "--quiet", "--no-trunc").decode().split())

    @property
    def printed(self) -> str:
        return (self.yard.project.parent / "printed").read_text("utf-8", "replace")

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        """Starts to make the layer; what it prints goes to a file."""
        command = [sys.executable, "-c", PROGRAM, *self.yard.arguments, *options]
        with (self.yard.project.parent / "printed").open("wb") as file:
            process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
        self.processes.append(process)
        return process

    def wait_for(self, text: str) -> None:
        """Waits until a text is printed."""
        process = self.processes[-1]
        wait_until(lambda: text in self.printed or process.poll() is not None, 60)
        assert text in self.printed
        assert process.poll() is None, self.printed

    def ends(self, codes: tuple[int, ...], *words: str, seconds: float = 30) -> None:
        """Sees the process end by itself with a clear error, and nothing half-made."""
        ended = self.processes[-1].wait(seconds)
        assert ended in codes, self.printed
        no_traceback(self.printed)
        for word in words:
            assert word in self.printed
        self.yard.nothing_half_made()

    def nothing_left(self, *, images: bool = True, running: bool = False) -> None:
        """No container is left, and no image more than there was; an engine that was killed may keep one that ended.

        Args:
            images: whether there may be none that steps of a build left, which is how engines go on later.
            running: look for running containers alone.
        """
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not self.containers(), 15)
        left = docker("ps", *(() if running else ("--all",)), "--no-trunc").decode().splitlines()[1:]
        assert left == []
        assert not images or self.images() <= self.before

    def works(self) -> None:
        """The next run is right, and leaves nothing."""
        before = self.containers()
        self.yard.base = self.base
        self.yard.offer()
        assert self.yard.works()[f"{self.yard.name}.py"] == b"X = 1\n"
        assert self.containers() <= before

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        self.engine.start()
        if left := self.containers():
            docker("rm", "--force", *left)


BUILDING = "say('lbtest is building\\n'); time.sleep(600)"
INSTALLING = "while :; do echo lbtest is installing; sleep 0.2; done"


def begin(alone: Alone, stage: str) -> None:
    """Starts to make a layer, and returns in the middle of a stage that does not end by itself."""
    if stage == "image":
        alone.yard.offer()
        alone.yard.base = changed(alone.base, f"{INSTALLING} # {alone.yard.name}")
        alone.before = alone.images()
        alone.start()
        alone.wait_for("lbtest is installing")
    elif stage == "package":
        alone.yard.offer(BUILDING)
        alone.start()
        alone.wait_for("lbtest is building")
    else:
        alone.yard.offer(afterwards="os.truncate(OUT / f'{NAME}-1.0-py3-none-any.whl', 1_900_000_000)")
        alone.start()
        wait_until(lambda: any(path.stat().st_size > 1 << 20 for path in alone.yard.cache.rglob("wheels/*.part")), 60)


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
@pytest.mark.parametrize("stage", ["image", "package", "copy"])
def test_an_engine_that_ends_is_told(alone: Alone, stage: str, end: signal.Signals) -> None:
    begin(alone, stage)

    alone.engine._end(end)

    # An engine that is stopped ends in order what it does: it says of a step that it failed, and of a copy nothing.
    codes = (4,) if end == signal.SIGKILL or stage == "package" else (3, 4)
    alone.ends(codes, *(["engine-lost"] if codes == (4,) else []))
    alone.engine.start()
    alone.nothing_left(images=stage != "image", running=stage == "image")
    alone.works()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
@pytest.mark.parametrize("stage", ["image", "package", "copy"])
def test_a_run_that_is_ended_leaves_no_container(alone: Alone, stage: str, number: signal.Signals) -> None:
    begin(alone, stage)

    started = time.monotonic()
    os.killpg(alone.processes[-1].pid, number)
    code = alone.processes[-1].wait(20)

    assert code == (130 if number == signal.SIGINT else -number), alone.printed
    assert time.monotonic() - started < 5
    no_traceback(alone.printed)
    if number == signal.SIGINT:
        assert "interrupted" in alone.printed
        alone.yard.nothing_half_made()
    alone.nothing_left(images=stage != "image" or number == signal.SIGINT)
    alone.works()


def test_an_engine_that_hangs_is_not_waited_for_without_end(alone: Alone) -> None:
    alone.yard.offer(BUILDING)
    alone.start("--build-timeout", "0.1")
    alone.wait_for("lbtest is building")
    assert alone.engine._process
    os.kill(alone.engine._process.pid, signal.SIGSTOP)

    try:
        alone.ends((3, 4), seconds=90)
    finally:
        os.kill(alone.engine._process.pid, signal.SIGCONT)
    alone.nothing_left()
    alone.works()


@pytest.mark.parametrize(
    ("code", "words"),
    {
        "itself": ("os.truncate(OUT / OWN, 1 << 40)", ("has more than 2,147,483,648 bytes", "build-result")),
        "beside": ("more = OUT / 'more'; more.mkdir(); (more / 'x').touch(); os.truncate(more / 'x', 1 << 43)", ()),
        "hidden": ("os.truncate(OUT / '.keep', 1 << 43)", ()),
    }.values(),
    ids=["itself", "beside", "hidden"],
)
def test_a_result_without_end_is_not_waited_for(alone: Alone, code: str, words: tuple[str, ...]) -> None:
    alone.yard.offer(afterwards=f"OWN = f'{{NAME}}-1.0-py3-none-any.whl'\n{code}")
    started = time.monotonic()

    ran = program(*alone.yard.arguments, "--build-timeout", "0.3", seconds=60)

    assert time.monotonic() - started < 40
    alone.yard.refused(ran, *words)
    alone.nothing_left()


def test_a_run_that_stands_still_hinders_no_other(alone: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(alone, "copy")
    process = alone.processes[-1]
    os.killpg(process.pid, signal.SIGSTOP)
    monkeypatch.setenv("LAYERBUILD_CACHE_DIR", str(alone.yard.project.parent / "other"))

    alone.yard.offer()
    ran = program(*alone.yard.arguments, seconds=30)

    assert ran.code == 0, ran.err
    os.killpg(process.pid, signal.SIGCONT)
    assert process.wait(60) == 3, alone.printed
    alone.nothing_left()


def leave(alone: Alone, megabytes: int) -> None:
    """Leaves so much space on the engine's disk."""
    place = alone.engine.data_root
    remount(place, f"size={-(-shutil.disk_usage(place).used // 2**20) + max(megabytes, 1)}m")
    if not megabytes:
        with contextlib.suppress(OSError), (place / "filler").open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass


BIG = 200_000_000
FULL: dict[str, tuple[int, str, str, int]] = {
    # what is left in MB, what the package manager does, what the build does, bytes in the source archive
    "where the package manager installs": (40, f"head -c {BIG} /dev/zero > /usr/lib/lbtest || exit 100", "", 0),
    "where the tools are installed": (20, "true", "", 0),
    "where a package is put": (4, "", "", 6_000_000),
    "where a package is built": (40, "", f"pathlib.Path('big').write_bytes(bytes({BIG}))", 0),
    "where there is nothing left": (0, "", "", 0),
}


@pytest.mark.parametrize(("megabytes", "install", "build", "size"), FULL.values(), ids=FULL.keys())
def test_an_engine_whose_disk_is_full_is_told(
    alone: Alone, megabytes: int, install: str, build: str, size: int
) -> None:
    alone.yard.offer(build, size=size)
    if install:
        alone.yard.base = changed(alone.base, f"{install} # {alone.yard.name}")
        alone.before = alone.images()
    leave(alone, megabytes)

    try:
        alone.start()
        if build:  # it may as well be something else that is full, such as /dev/shm
            alone.ends((3,), "build-failed", "No space left on device", "docker system df")
        else:
            alone.ends((4,), "engine-disk-full")
        alone.nothing_left()
    finally:
        remount(alone.engine.data_root, "size=4g")
        (alone.engine.data_root / "filler").unlink(missing_ok=True)
    alone.works()


def test_a_full_disk_where_the_wheel_is_to_go_is_told(
    alone: Alone,
    small_disk: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LAYERBUILD_CACHE_DIR", str(small_disk))
    alone.yard.offer("files['noise.bin'] = os.urandom(30_000_000)")
    started = time.monotonic()

    alone.yard.fails("disk-full", str(small_disk), code=4)

    assert time.monotonic() - started < 20
    assert [path for path in small_disk.rglob("*") if path.suffix in (".part", ".whl")] == []
    alone.nothing_left()
    remount(small_disk, "size=64m")
    assert len(alone.yard.works()["noise.bin"]) == 30_000_000


def test_two_runs_at_once_make_the_same(alone: Alone) -> None:
    alone.yard.offer("files['seen.json'] = json.dumps(sorted(os.environ)).encode()")
    alone.yard.base = changed(alone.base, f"true {alone.yard.name}")
    outs = [alone.yard.project / name for name in ("one", "two")]
    processes = [alone.start("--out", str(out)) for out in outs]

    assert [process.wait(120) for process in processes] == [0, 0], alone.printed

    alone.nothing_left(images=False)
    one, two = map(contents, outs)
    assert one == two
    assert len(one) == 2
    assert [*alone.yard.project.parent.rglob("*.part")] == []


# Images


def test_an_image_that_cannot_be_pulled_is_told(yard: Yard) -> None:
    yard.offer()
    yard.base = "127.0.0.1:1/x:y"

    yard.fails("the image 127.0.0.1:1/x:y cannot be pulled for amd64", "image-unavailable", "--base-image", code=4)


class Registry(BaseHTTPRequestHandler):
    """A registry that knows no image, or lets none see any."""

    status, code = 404, "MANIFEST_UNKNOWN"

    def do_GET(self) -> None:
        body = b"{}"
        if self.path.rstrip("/") != "/v2":
            body = json.dumps({"errors": [{"code": self.code, "message": "lbtest says no"}]}).encode()
        self.send_response(200 if self.path.rstrip("/") == "/v2" else self.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


class Closed(Registry):
    status, code = 403, "DENIED"


@pytest.mark.parametrize("handler", [Registry, Closed])
def test_an_image_that_a_registry_does_not_have_or_give_is_told(yard: Yard, handler: type[Registry]) -> None:
    yard.offer()
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yard.base = f"127.0.0.1:{server.server_address[1]}/lbtest/none:1"
        try:
            yard.fails(f"the image {yard.base} cannot be pulled for amd64", "image-unavailable", code=4)
        finally:
            server.shutdown()
            thread.join()


def test_a_name_that_no_image_can_have_is_told(yard: Yard) -> None:
    yard.offer()
    yard.base = "Not A Name"

    yard.fails("Not A Name", code=4)


HEADERS, PYTHON = "/var/lang/include", "/var/lang/bin/python3.13"
MANAGERS = ("/usr/local/bin/apt-get", "/usr/bin/apt-get", "/usr/bin/apt")
POOR: dict[str, tuple[tuple[str, ...], str]] = {
    "headers": ((HEADERS,), "Python.h"),
    "Python": ((PYTHON,), "python3.13: not found"),
    "a package manager": (MANAGERS, "layerbuild: this base image has neither apt-get nor dnf nor yum"),
    "a shell": (("/bin/sh",), "/bin/sh"),
}


@pytest.mark.parametrize(("lacking", "words"), POOR.values(), ids=POOR.keys())
def test_a_base_that_lacks_what_builds_need_is_told(alone: Alone, lacking: tuple[str, ...], words: str) -> None:
    alone.yard.offer()
    alone.yard.base = without(alone.base, *lacking)
    alone.before = alone.images()

    alone.yard.fails("image-failed", words, "--base-image")

    alone.nothing_left()


def test_system_packages_that_do_not_exist_are_told(alone: Alone) -> None:
    alone.yard.offer()
    recipe = alone.yard.project / "recipes/demo/recipe.toml"
    recipe.write_text(recipe.read_text() + 'system-packages = { apt = ["lbtest-none"] }\n')
    code = "case $* in *lbtest-none*) echo E: Unable to locate package lbtest-none >&2; exit 100; esac"
    alone.yard.base = changed(alone.base, code)
    alone.before = alone.images()

    alone.yard.fails("image-failed", "E: Unable to locate package lbtest-none", "system-packages")

    alone.nothing_left()
    recipe.write_text(recipe.read_text().replace("apt = [", "dnf = ["))
    alone.yard.fails("system-packages has no names for apt", "image-failed")


# A program for a machine that no engine of ours can be, so that it cannot be emulated either: VAX's.
HEADER = (2, 75, 1, 0x80000054, 52, 0, 0, 52, 32, 1, 0, 0, 0)
FOREIGN = b"\x7fELF\x01\x02\x01" + bytes(9) + struct.pack(">HHIIIIIHHHHHH", *HEADER)


def test_an_architecture_that_the_engine_cannot_run_is_told(alone: Alone) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name in ("bin/cat", "bin/sh"):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(FOREIGN), 0o755
            archive.addfile(entry, io.BytesIO(FOREIGN))
    layer = out.getvalue()
    config = {
        "architecture": "arm64",
        "os": "linux",
        "config": {"Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": ["lbtest-foreign:1"], "Layers": ["layer.tar"]}]
    files = {"config.json": json.dumps(config), "manifest.json": json.dumps(manifest)}
    docker("load", sent=tar_of({"layer.tar": layer, **{name: data.encode() for name, data in files.items()}}))
    alone.before = alone.images()
    target = "python3.13-arm64"
    alone.yard.offer()
    write_recipe(alone.yard.project, f'name = "demo"\nrequirements = ["{alone.yard.name}"]\ntargets = ["{target}"]\n')
    alone.yard.lock.rename(alone.yard.lock.with_name(f"{target}.txt"))
    alone.yard.base = "lbtest-foreign:1"

    alone.yard.fails("cannot run programs for this architecture", "no-emulation", "qemu-user-static", code=4)
    alone.yard.base = alone.base
    alone.yard.fails("image-unavailable", "arm64", code=4)

    alone.nothing_left()


# No engine


def test_an_engine_that_is_not_there_is_told(yard: Yard, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    yard.offer()
    path = tmp_path / "sock"
    with socket.socket(socket.AF_UNIX) as closed:
        closed.bind(str(path))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        hosts = [
            "unix:///nonexistent/sock",
            f"unix://{path}",
            f"tcp://127.0.0.1:{taken.getsockname()[1]}",
            "nonsense://x",
        ]
        for host in hosts:
            monkeypatch.setenv("DOCKER_HOST", host)
            ran = program(*yard.arguments, "--builder", "container")
            yard.refused(ran, "there is no Docker engine", "no-engine", "set DOCKER_HOST", code=4)
    ran = program(*yard.arguments)
    yard.refused(ran, "it could be built from source, but there is no Docker engine", "no-wheel")


def test_an_engine_that_may_not_be_used_is_told(yard: Yard, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    yard.offer()
    path = tmp_path / "sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    # Root may do all, unless this right is taken from it.
    limited = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        path.chmod(0)
        ran = program(*yard.arguments, "--builder", "container", before=limited)

    yard.refused(ran, "you may not use the Docker engine's socket", "engine-not-permitted", "usermod", code=4)


# Podman


@pytest.fixture
def podman(base: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A base image with a compiler in an engine that is Podman's; it is the one that ``DOCKER_HOST`` names."""
    if shutil.which("podman") is None:
        pytest.skip("there is no podman here; Debian has it in podman")
    if os.geteuid():
        pytest.skip("an engine of its own needs root")
    with_compiler = built_image(base)
    variables = json.loads(docker("inspect", "--format", "{{json .Config.Env}}", with_compiler))
    folder = tmp_path_factory.mktemp("p")
    changed_image = changed(with_compiler, "true")
    container = docker("create", changed_image).decode().strip()
    docker("export", "--output", folder / "root.tar", container)
    docker("rm", container)
    docker("rmi", changed_image)
    # Podman's own defaults are more than a machine may have to give, and bring a bridge with rules of a firewall.
    (folder / "containers.conf").write_text(
        '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\nnetns = "host"\n'
    )
    host = f"unix://{folder}/sock"
    places = ("--root", str(folder / "root"), "--runroot", str(folder / "run"))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["podman", *places, "system", "service", "--time=0", host],
            env={**os.environ, "CONTAINERS_CONF": str(folder / "containers.conf")},
            cwd=folder,
            stdout=log,
            stderr=log,
        )
    try:
        wait_until(lambda: (folder / "sock").exists() or process.poll() is not None)
        assert process.poll() is None, (folder / "log").read_text()
        monkeypatch.setenv("DOCKER_HOST", host)
        changes = [word for text in variables for word in ("--change", f"ENV {text}")]
        docker("import", *changes, folder / "root.tar", "localhost/lbtest-podman:1")
        yield "localhost/lbtest-podman:1"
    finally:
        process.terminate()
        process.wait()
        mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        for place in reversed([place for place in mounts if place.startswith(f"{folder}/")]):
            subprocess.run(["umount", "--lazy", place], check=True)
        shutil.rmtree(folder)


EXTENSION = """\
#include <Python.h>
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "NAME", 0, -1, 0};
PyMODINIT_FUNC PyInit_NAME(void) { return PyModule_Create(&module); }
"""
COMPILE = f"""
import sysconfig
pathlib.Path("x.c").write_text({EXTENSION!r}.replace("NAME", NAME))
headers, suffix = sysconfig.get_path("include"), sysconfig.get_config_var("EXT_SUFFIX")
subprocess.run(["gcc", "-shared", "-fPIC", "-I", headers, "-o", "x.so", "x.c"], check=True)
files[NAME + suffix] = pathlib.Path("x.so").read_bytes()
return "cp313-cp313-linux_x86_64"
"""


def test_podman_serves_as_well(yard: Yard, podman: str, saved: Saved) -> None:
    shutil.copytree(saved.cache, yard.cache)
    yard.base, yard.known = podman, yard.wheels()
    options = ("--build-network", "none")
    yard.offer(COMPILE)

    content = yard.works(*options)

    assert content[f"{yard.name}.cpython-313-x86_64-linux-gnu.so"].startswith(b"\x7fELF")
    assert docker("ps", "--all", "--quiet") == b""
    yard.layer.unlink()
    for path in yard.wheels() - yard.known:
        path.unlink()
    for code, more, word in (
        ("while True: time.sleep(1)", ("--build-timeout", "0.08"), "build-timeout"),
        ("eaten = []\nwhile True: eaten.append(b'x' * 20_000_000)", ("--build-memory", "0.5"), "build-out-of-memory"),
        ("raise SystemExit('no')", (), "build-failed"),
    ):
        yard.offer(code)
        yard.fails(word, options=(*options, *more))
        assert docker("ps", "--all", "--quiet") == b""
    yard.offer(BUILDING)
    for number in (signal.SIGINT, signal.SIGKILL):
        alone = Alone(yard, cast("Any", None), podman)
        process = alone.start(*options)
        alone.wait_for("lbtest is building")
        os.killpg(process.pid, number)
        assert process.wait(20) == (130 if number == signal.SIGINT else -number)
        wait_until(lambda: docker("ps", "--all", "--quiet") == b"", 15)
    yard.base = "127.0.0.1:1/x:y"
    yard.fails("image-unavailable", code=4)
