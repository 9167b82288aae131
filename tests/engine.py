"""A real Docker engine for tests, and images for it that stand in for those of AWS; no registry is asked.

``python -m tests.engine start FOLDER`` prints the ``DOCKER_HOST`` of an engine that answers, and starts one below the
folder if there is none yet. ``python -m tests.engine stop FOLDER`` ends that again.

The images are made of Debian packages. `base_image` is to build layers in, as ``public.ecr.aws/lambda/python`` is:
it has a package manager and Python's headers, but no compiler. `runtime_image` is a `tests.lambda_root`: it has what
Lambda has, and no more. Processes share all by the engine, and by the folder ``LAMBDA_ROOTS`` or one in the cache.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import platformdirs
import pytest
from filelock import FileLock

from layerbuild.target import Target
from tests import debian, lambda_root
from tests.debian import ARCHITECTURES, require_debian, run
from tests.interpreters import find_python
from tests.lambda_root import _ENVIRONMENT, _FACTS, shared_root

SHARED = Path(os.environ.get("LAMBDA_ROOTS") or platformdirs.user_cache_path("layerbuild-tests"))
_SUITE, _SUITE_PYTHON, _MIRROR = "bookworm", (3, 11), "http://deb.debian.org/debian"
_DEBIAN_PYTHON = ("ca-certificates", "python3", "libpython3-dev")
# What CPython's own extension modules need, beside what Debian itself needs.
_LIBRARIES = "ca-certificates libffi8 libgdbm6 libncursesw6 libnsl2 libreadline8 libsqlite3-0 libssl3".split()
_LEFT_OUT = [f"--exclude=./{at}/*" for at in "dev proc sys var/cache/apt var/lib/apt/lists usr/share/locale".split()]
_PYTHON_LEFT_OUT = ("__pycache__", "test", "tests", "idle*", "tkinter", "turtledemo", "_tkinter.*", "*.a")

# What AWS's images say of themselves (https://github.com/aws/aws-lambda-base-images, each runtime's Dockerfile).
_BASE_CONFIG = {
    "Env": [
        *("LANG=en_US.UTF-8", "TZ=:/etc/localtime", "LAMBDA_TASK_ROOT=/var/task", "LAMBDA_RUNTIME_DIR=/var/runtime"),
        *(f"{name}={_ENVIRONMENT[name]}" for name in ("PATH", "LD_LIBRARY_PATH")),
    ],
    "WorkingDir": "/var/task",
    "Entrypoint": ["/lambda-entrypoint.sh"],
}

# Where Lambda looks for modules in layers, with their .pth files.
_SEARCH_LAYERS = """
import pathlib, site, sys
sys.path[:0] = layers = ["/opt/python/lib/{python}/site-packages", "/opt/python"]
for path in [path for folder in layers for path in sorted(pathlib.Path(folder).glob("*.pth"))]:
    site.addpackage(str(path.parent), path.name, None)
"""


def docker(*words: str | Path, sent: bytes = b"") -> bytes:
    """What the client prints, of the engine that the environment names; it must succeed."""
    done = subprocess.run(["docker", *map(str, words)], input=sent, capture_output=True)
    assert done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace")
    return done.stdout


def _refusal(*options: str) -> str:
    """Why no engine answers, by the client's options; empty if one does."""
    command = ["docker", *options, "info", "--format", "{{.ServerVersion}}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except FileNotFoundError:
        return "there is no docker client here"
    except subprocess.TimeoutExpired:
        return "the Docker engine does not answer"
    return "" if done.returncode == 0 and done.stdout.strip() else done.stderr.strip() or "no Docker engine answers"


def require_engine() -> None:
    """Skips the test where there is no engine, or where images cannot be made for it."""
    if refusal := _refusal():
        pytest.skip(f"{refusal} (python -m tests.engine start FOLDER starts an engine)")
    require_debian()
    for tool in ("debootstrap", "unzip"):
        if shutil.which(tool) is None:
            pytest.skip(f"there is no {tool} here")


class Engine:
    """An engine with all that it has below `folder`, which should have a short path for the sockets; it needs root.

    A `private` one leaves the networks and firewall rules of the machine and of other engines alone. Its containers
    reach the machine over a bridge, and what is beyond only by the host's network. With `size`, such as ``64m``, its
    data are on a tmpfs of that size. `socket` is what ``DOCKER_HOST`` has to be.
    """

    def __init__(self, folder: Path, *, private: bool = True, size: str = "") -> None:
        self._folder, self._private, self._size = folder.resolve(), private, size
        self._exec, self._pidfile = self._folder / "exec", self._folder / "pid"
        self._bridge = f"lb-{hashlib.sha256(os.fsencode(self._folder)).hexdigest()[:8]}"
        self._process: subprocess.Popen[bytes] | None = None
        self.data_root, self.log = self._folder / "data", self._folder / "log"
        self.socket = f"unix://{self._folder}/docker.sock"

    def start(self) -> None:
        """Starts the engine unless it runs, and waits until it answers. Raises RuntimeError with the reason."""
        if not _refusal("--host", self.socket):
            return
        for tool in ("docker", "dockerd"):
            if shutil.which(tool) is None:
                raise RuntimeError(f"there is no {tool} here; Debian has it in docker.io")
        self.data_root.mkdir(parents=True, exist_ok=True)
        if self._size and not self.data_root.is_mount():
            run("mount", "-t", "tmpfs", "-o", f"size={self._size}", "tmpfs", self.data_root)
        if not Path("/sys/fs/cgroup").is_mount():
            run("mount", "-t", "cgroup2", "cgroup2", "/sys/fs/cgroup")
        places = ("--data-root", self.data_root, "--exec-root", self._exec, "--pidfile", self._pidfile)
        command = ["dockerd", *map(str, places), "--host", self.socket]
        if self._private:  # Not --bridge=none: that deletes the bridge of another engine.
            command += [f"--bridge={self._bridge}", "--iptables=false", "--ip-masq=false", "--ip-forward=false"]
            if not Path("/sys/class/net", self._bridge).exists():
                run("ip", "link", "add", self._bridge, "type", "bridge")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        until = time.monotonic() + 30
        while _refusal("--host", self.socket):
            if self._process.poll() is not None or time.monotonic() > until:
                self.stop()
                raise RuntimeError(f"dockerd does not start:\n{self.log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.1)

    def kill(self) -> None:
        """Ends the engine as a crash does: the containers live on."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ends the engine with all that an earlier `kill` left, and takes its mounts and its bridge away."""
        self._end(signal.SIGTERM)
        self._signal(signal.SIGKILL, self._processes())
        places = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        for place in reversed([place for place in places if place.startswith(f"{self._folder}/")]):
            run("umount", "--lazy", place)
        if Path("/sys/class/net", self._bridge).exists():
            run("ip", "link", "delete", self._bridge)

    def _end(self, number: int) -> None:
        pid = int(self._pidfile.read_text()) if self._pidfile.exists() else 0
        self._signal(number, self._processes() & {pid, self._process.pid if self._process else 0})
        if self._process is not None:
            self._process.wait()
        # The kernel ends containerd together with a killed engine. Where nobody reaps it, the next engine would wait.
        for path in (self._pidfile, self._exec / "containerd/containerd.pid"):
            path.unlink(missing_ok=True)

    def _signal(self, number: int, pids: set[int]) -> None:
        """Sends a signal and waits until the processes have ended."""
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        until = time.monotonic() + 40
        while pids & self._processes():
            if time.monotonic() > until:
                raise RuntimeError(f"processes do not end: {sorted(pids)}")
            time.sleep(0.1)

    def _processes(self) -> set[int]:
        """The engine, its containerd, a shim for each container, and what runs in the containers."""
        containers, found = [path.name for path in self._exec.glob("containerd/daemon/*/moby/*")], set()
        for place in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # It may have ended; as a zombie it has no words left.
                words, group = (place / "cmdline").read_bytes(), (place / "cgroup").read_text()
                if words and (os.fsencode(self._exec) in words or any(name in group for name in containers)):
                    found.add(int(place.name))
        return found


def base_image(target: Target) -> str:
    """The tag of an image to build layers for a target in.

    Its Python is this machine's, moved to ``/var/lang``, or Debian's where it has the version, as users' images may.
    """
    if target.runtime.version == _SUITE_PYTHON:
        return _image("base", target, {}, lambda archive: shutil.copy(_rootfs(target.arch, _DEBIAN_PYTHON), archive))
    if target.arch == "arm64":
        pytest.skip("of Debian's release, only its own Python is there for arm64")
    python = find_python("{}.{}".format(*target.runtime.version))

    def make(archive: Path) -> None:
        shutil.copy(_rootfs(target.arch, _LIBRARIES), archive)
        _move_python(python, archive.parent)
        run("tar", "-rf", archive, "-C", archive.parent, "var/lang")

    return _image("base", target, _BASE_CONFIG, make, f"{python} {python.stat().st_mtime_ns}")


def runtime_image(target: Target) -> str:
    """The tag of an image that has what Lambda has, to use layers in."""

    def make(archive: Path) -> None:
        source = ("-f", archive, "-C", shared_root(SHARED, target).folder)
        run("tar", "-c", *source, "--exclude=./tmp", ".")
        run("tar", "-r", *source, "--mode=1777", "./tmp")

    config = {"Env": [f"{name}={value}" for name, value in _ENVIRONMENT.items()]}
    sources = (Path(lambda_root.__file__), Path(debian.__file__), _FACTS)
    return _image("runtime", target, config, make, "".join(path.read_text("utf-8") for path in sources))


def _image(kind: str, target: Target, config: object, make: Callable[[Path], object], inputs: str = "") -> str:
    """Makes an image whose one layer is the archive that `make` makes, unless the engine has the image."""
    if target.arch == "arm64":
        _enable_arm64()
    text = Path(__file__).read_text("utf-8") + inputs
    tag = f"layerbuild-test-{kind}:{target}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    SHARED.mkdir(parents=True, exist_ok=True)
    with FileLock(SHARED / f"{tag.replace(':', '-')}.lock"), tempfile.TemporaryDirectory(dir=SHARED) as work:
        if not docker("images", "--quiet", tag):
            make(Path(work, "root.tar"))
            with Path(work, "root.tar").open("rb") as file:
                layers = [f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"]
            # Not `docker import`: that of older engines knows no architecture but the machine's.
            machine = {"architecture": ARCHITECTURES[target.arch], "os": "linux"}
            image = {**machine, "config": config, "rootfs": {"type": "layers", "diff_ids": layers}}
            manifest = [{"Config": "config.json", "RepoTags": [tag], "Layers": ["root.tar"]}]
            Path(work, "config.json").write_text(json.dumps(image))
            Path(work, "manifest.json").write_text(json.dumps(manifest))
            run("tar", "-cf", f"{work}/image.tar", "-C", work, "manifest.json", "config.json", "root.tar")
            docker("load", "--input", f"{work}/image.tar")
    return tag


def _enable_arm64() -> None:
    """Lets the kernel run programs for arm64 by qemu."""
    place = "/proc/sys/fs/binfmt_misc"
    mount = f"test -e {place}/register || mount -t binfmt_misc binfmt_misc {place}"
    try:
        run("sh", "-ec", f"{mount}; test -e {place}/qemu-aarch64 || update-binfmts --enable qemu-aarch64")
    except AssertionError as error:
        pytest.skip(f"programs for arm64 do not run here without qemu-user-static and binfmt-support: {error}")


def _rootfs(arch: str, packages: Sequence[str]) -> Path:
    """The archive of a small Debian with some packages."""
    name = ARCHITECTURES[arch]
    words = [f"--arch={name}", "--variant=minbase", f"--include={','.join(packages)}", _SUITE]
    digest = hashlib.sha256(repr((words, _MIRROR, _LEFT_OUT)).encode()).hexdigest()[:12]
    place = SHARED / f"{_SUITE}-{name}-{digest}.tar"
    with FileLock(f"{place}.lock"):
        if not place.exists():
            with tempfile.TemporaryDirectory(dir=SHARED) as work:
                # What debootstrap mounts is gone with it, however it ends.
                command = ["unshare", "--mount", "debootstrap", *words, f"{work}/root", _MIRROR]
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode != 0:
                    pytest.skip(f"Debian cannot be had here: {(done.stdout + done.stderr)[-300:]}")
                run("tar", "-cf", f"{work}/root.tar", "-C", f"{work}/root", *_LEFT_OUT, ".")
                Path(work, "root.tar").rename(place)
    return place


def _move_python(python: Path, root: Path) -> None:
    """Copies an interpreter to ``/var/lang`` below a folder; what names its old place then names the new one.

    Its binaries are left as they are: they find all they need from where they are, and by ``LD_LIBRARY_PATH``.
    """
    prefix = run(python, "-c", "import sys; print(sys.base_prefix)").strip()
    if prefix == "/usr":
        pytest.skip(f"the interpreter cannot be moved: {python}")

    def ignored(folder: str, names: list[str]) -> set[str]:
        if Path(folder).name == "site-packages":
            return {name for name in names if not name.startswith("pip")}
        return set(shutil.ignore_patterns(*_PYTHON_LEFT_OUT)(folder, names))

    for name in ("bin", "include", "lib"):
        shutil.copytree(f"{prefix}/{name}", root / "var/lang" / name, symlinks=True, ignore=ignored)
    for path in (root / "var/lang").rglob("*"):
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        if prefix.encode() in content and not content.startswith(b"\x7fELF"):
            path.write_bytes(content.replace(prefix.encode(), b"/var/lang"))
    run(python, "-m", "compileall", "-q", "-j0", "-s", root, "-p", "/", root / "var/lang/lib")


def run_in_runtime(target: Target, layer_zip: Path, code: str) -> str:
    """What Python code prints where a layer is at ``/opt``, and where nothing is but what Lambda has."""
    python = target.runtime.name
    command = [f"/var/lang/bin/{python}", "-B", "-S", "-c", _SEARCH_LAYERS.format(python=python) + code]
    return run_program(target, layer_zip, command).decode()


def run_program(target: Target, layer_zip: Path, command: Sequence[str], stdin: bytes = b"") -> bytes:
    """What a program prints where a layer is at ``/opt``; as on Lambda, it is not run as root."""
    options = (f"--platform=linux/{ARCHITECTURES[target.arch]}", "--interactive", "--network=none", "--user=993:990")
    container = docker("create", *options, runtime_image(target), *command).decode().strip()
    try:
        with tempfile.TemporaryDirectory() as folder:
            run("unzip", "-q", layer_zip, "-d", f"{folder}/opt")
            docker("cp", f"{folder}/opt/.", f"{container}:/opt")
        return docker("start", "--attach", "--interactive", container, sent=stdin)
    finally:
        docker("rm", "--force", container)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.engine", description=__doc__)
    parser.add_argument("action", choices=["start", "stop"])
    parser.add_argument("folder", type=Path)
    words = parser.parse_args()
    engine, host = Engine(words.folder, private=False), "{{.Endpoints.docker.Host}}"
    try:
        if words.action == "stop":
            engine.stop()
        elif not _refusal():
            print(docker("context", "inspect", "--format", host).decode().strip())  # noqa: T201
        else:
            engine.start()
            print(engine.socket)  # noqa: T201
    except (AssertionError, RuntimeError) as error:
        sys.exit(f"No Docker engine can be had: {error}")


if __name__ == "__main__":
    main()
