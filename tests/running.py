"""For tests of `layerbuild run`: functions that are written, run in a process of their own, and leave nothing."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from layerbuild.sandbox.namespace import obstacle
from tests.conftest import Ran
from tests.containers import tagged_base
from tests.engine import docker, require_engine
from tests.interpreters import find_python

MIB = 1 << 20
# A test run in the background ignores Ctrl-C, and so would what it starts.
PROGRAM = "import signal; signal.signal(2, signal.default_int_handler); from layerbuild.__main__ import main; main()"
ARCH = "arm64" if platform.machine() in ("arm64", "aarch64") else "x86_64"
TARGET = f"python3.13-{ARCH}"
# The kinds of sandbox that are isolated: root's namespaces, any other user's, a container, which needs an engine.
ISOLATED = ("namespace", "user", pytest.param("container", marks=pytest.mark.docker))
# Starts a program as a user without any capability, who can read what root can.
AS_USER = ("unshare", "--user", "--map-user=1000", "--map-group=1000")

# What every handler of these tests can say of its sandbox, so that a test knows what may not outlive it.
MARKS = """
import os
def marks():
    return {"pid": os.getpid(), "ns": os.readlink("/proc/self/ns/pid"), "started": STARTED}
STARTED = os.stat("/proc/self").st_mtime_ns
"""


def wait_until(condition: Callable[[], object], seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.05)


def processes_with(variable: str) -> dict[int, str]:
    """Processes of this machine that have a setting in their environment, and the namespace of each."""
    return {pid: space for pid, space, environ in _processes() if variable.encode() in environ}


def processes_in(space: str) -> list[int]:
    """Processes of this machine that are in a namespace of process ids."""
    return [pid for pid, one, _ in _processes() if one == space]


def _processes() -> Iterator[tuple[int, str, bytes]]:
    for place in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if place.name.isdigit():
                yield int(place.name), str((place / "ns/pid").readlink()), (place / "environ").read_bytes()


def belongings() -> set[str]:
    """Containers and volumes that the engine has, but for pip's downloads, which builds leave for the next ones."""
    listed = docker("ps", "--all", "--quiet", "--no-trunc", "--filter", "label=layerbuild")
    volumes = docker("volume", "ls", "--quiet").split()
    kept = docker("volume", "ls", "--quiet", "--filter", "label=layerbuild=downloads").split()
    return {one.decode() for one in (*listed.split(), *volumes) if one not in kept}


def no_traceback(text: str) -> None:
    """None of layerbuild's own: those of functions come by way of the client, which indents them."""
    assert not re.search(r"^  File .*layerbuild/(?!guest)|internal-error", text, re.MULTILINE), text


@dataclass
class Runs:
    """Runs functions with one backend, each in a folder of its own.

    Attributes:
        folder: for whatever a test needs; the function is in ``fn``.
        environment: of layerbuild, beside this process's.
        options: that every run has.
        before: what starts layerbuild, if that is not this process.
    """

    folder: Path
    backend: str
    environment: dict[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    before: tuple[str, ...] = ()

    @property
    def mark(self) -> str:
        """A setting that all processes of these functions have."""
        return f"LBTEST={self.folder.name}-{os.getpid()}"

    @property
    def temporary(self) -> Path:
        """Where layerbuild and nothing else puts temporary files."""
        return self.folder / "temporary"

    def write(self, files: Mapping[str, str | bytes], folder: str = "fn") -> Path:
        """Writes a function's or a layer's folder and returns it."""
        for name, content in files.items():
            path = self.folder / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return self.folder / folder

    def command(self, *arguments: str | Path, target: str = TARGET) -> list[str]:
        words = [
            *self.before,
            sys.executable,
            "-m",
            "layerbuild",
            "run",
            "--function",
            self.folder / "fn",
            "--backend",
            self.backend,
        ]
        words += ["--target", target, "--env", self.mark, *self.options, *arguments]
        return list(map(str, words))

    def started_until(self, line: str, *arguments: str | Path) -> subprocess.Popen[str]:
        """A run, started, and read until its log has a line."""
        process = subprocess.Popen(
            [*self.before, sys.executable, "-c", PROGRAM, *self.command(*arguments)[len(self.before) + 3 :]],
            env=self.variables(),
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stderr
        while (said := process.stderr.readline()) != f"{line}\n":
            assert said, "it ended too early"
        return process

    def variables(self) -> dict[str, str]:
        self.temporary.mkdir(exist_ok=True)
        return {**os.environ, "TMPDIR": str(self.temporary), **self.environment}

    def run(self, *arguments: str | Path, target: str = TARGET, seconds: float = 120) -> Ran:
        """Runs it to its end, which must come in time, and sees that nothing is left of it."""
        done = subprocess.run(
            self.command(*arguments, target=target),
            env=self.variables(),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
        )
        self.nothing_runs()
        assert list(self.temporary.iterdir()) == []
        return Ran(done.returncode, done.stdout.decode("utf-8"), done.stderr.decode("utf-8"))

    def json(self, *arguments: str | Path, code: int = 0, target: str = TARGET) -> Any:
        """What ``--json`` says of a run; no constant is in it that JSON does not have."""
        ran = self.run("--json", *arguments, target=target)
        assert ran.code == code, ran
        no_traceback(ran.err)
        return json.loads(ran.out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))

    def nothing_runs(self) -> None:
        wait_until(lambda: not processes_with(self.mark), 10)


@pytest.fixture(scope="session")
def run_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that keeps the runtime's client from one test to the next."""
    return tmp_path_factory.mktemp("run") / "cache"


def isolated(backend: str, folder: Path, cache: Path, version: str = "3.13") -> Runs:
    """Runs in namespaces or in containers; skips the test where they cannot be."""
    options: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    if backend in ("namespace", "user"):
        find_python(version)
        if reason := obstacle():
            pytest.skip(reason)
        if backend == "user":
            backend, before = "namespace", AS_USER
            if os.geteuid() or subprocess.run([*before, "true"], capture_output=True).returncode:
                pytest.skip("only root can be another user here, or this is one already")
    elif backend == "container":
        require_engine()
        options = ("--base-image", tagged_base(f"python{version}-{ARCH}"))
    else:
        find_python(version)
    return Runs(folder, backend, {"LAYERBUILD_CACHE_DIR": str(cache)}, options, before)
