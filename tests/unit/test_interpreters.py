"""Which CPythons are found on a machine: made-up trees of pyenv, runners and uv, and broken programs."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from layerbuild import process
from layerbuild.cache import Cache
from layerbuild.interpreters import Interpreter, find_interpreter
from layerbuild.process import Completed
from layerbuild.target import Runtime, runtimes

# Not the one that runs the tests: that is always the first.
VERSION = (3, 12) if sys.version_info[:2] != (3, 12) else (3, 13)
TEXT = "{}.{}".format(*VERSION)
NAME = f"python{TEXT}"

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the programs are scripts of a shell")


def runtime(version: tuple[int, int] = VERSION) -> Runtime:
    (found,) = [one for one in runtimes() if one.version == version]
    return found


@dataclass
class Machine:
    """Folders in which programs are looked for, all below one, and those that were started."""

    root: Path
    cache: Cache
    started: list[Path] = field(default_factory=list)

    @property
    def path(self) -> Path:
        return self.root / "bin"

    def program(self, place: str, release: str = f"{TEXT}.5", **facts: Any) -> Path:
        """A program that says of itself what a CPython of a release would, but for some facts."""
        file = self.root / place
        said = {
            "path": str(file), "prefix": str(file.parents[1]), "version": release, "machine": "x86_64",
            "kind": "cpython", "magic": runtime().bytecode_magic, "free_threaded": False, **facts,
        }  # fmt: skip
        return self.script(place, f"echo {shlex.quote(json.dumps(said))}")

    def script(self, place: str, text: str) -> Path:
        file = self.root / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)
        return file

    def find(self, version: tuple[int, int] = VERSION) -> Interpreter | None:
        return find_interpreter(runtime(version), self.cache)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine on which nothing is installed."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    monkeypatch.setenv("UV_PYTHON_INSTALL_DIR", str(tmp_path / "uv"))
    for name in ("PYENV_ROOT", "RUNNER_TOOL_CACHE"):
        monkeypatch.delenv(name, raising=False)
    made = Machine(tmp_path, Cache(tmp_path / "cache"))
    original = process.run

    def noted(command: Any, **more: Any) -> Completed:
        made.started.append(Path(command[0]))
        return original(command, **more)

    monkeypatch.setattr("layerbuild.interpreters.run", noted)
    return made


def test_there_may_be_none(machine: Machine) -> None:
    assert machine.find() is None


def test_the_running_one_comes_first(machine: Machine) -> None:
    found = machine.find((sys.version_info[0], sys.version_info[1]))

    assert found is not None
    assert found.version == sys.version.split()[0].rstrip("+")
    assert found.path == Path(os.path.realpath(sys.executable))
    assert found.prefix == Path(sys.base_prefix)


def test_it_says_what_it_is(machine: Machine) -> None:
    path = machine.program(f"bin/{NAME}", machine="aarch64")

    assert machine.find() == Interpreter(path=path, version=f"{TEXT}.5", prefix=machine.root, machine="aarch64")


def test_the_order_of_places(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNNER_TOOL_CACHE", str(machine.root / "tools"))
    places = [
        f"bin/{NAME}",
        f".pyenv/versions/{TEXT}.1/bin/{NAME}",
        f"tools/Python/{TEXT}.9/x64/bin/{NAME}",
    ]
    for place in places:
        machine.program(place)
    for place in places:
        found = machine.find()
        assert found is not None
        assert found.path == machine.root / place
        (machine.root / place).unlink()
    assert machine.find() is None


def test_of_pyenv_the_newest_release_is_taken(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYENV_ROOT", str(machine.root / "py env"))
    for release in (2, 10, 9):
        machine.program(f"py env/versions/{TEXT}.{release}/bin/{NAME}", f"{TEXT}.{release}")
    (machine.root / f"py env/versions/{TEXT}.11").mkdir()
    (machine.root / f"py env/versions/{TEXT}.12").write_text("")

    found = machine.find()

    assert found is not None
    assert found.version == f"{TEXT}.10"
    assert len(machine.started) == 1


def test_shims_are_not_asked(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.script(f".pyenv/shims/{NAME}", "exit 1")
    machine.program(f".pyenv/versions/{TEXT}.3/bin/{NAME}", f"{TEXT}.3")
    monkeypatch.setenv("PATH", f"{machine.root}/.pyenv/shims:{machine.path}")

    found = machine.find()

    assert found is not None
    assert machine.started == [found.path]


@pytest.mark.parametrize(
    "facts",
    [
        {"kind": "pypy"},
        {"magic": 1},
        {"version": "3.1.0"},
        {"version": f"{TEXT}1.0"},
    ],
)
def test_what_is_another_is_passed_over(facts: dict[str, Any], machine: Machine) -> None:
    machine.program(f"bin/{NAME}", **facts)
    right = machine.program(f".pyenv/versions/{TEXT}.1/bin/{NAME}", f"{TEXT}.1")

    found = machine.find()

    assert found is not None
    assert found.path == right


BROKEN = {
    "fails": "exit 1",
    "silent": ":",
    "talks": "echo hello",
    "half": "echo '{\"kind\":'",
    "killed": "kill -9 $$",
    "nothing": "echo null",
    "list": "echo '[]'",
    "text": "echo '\"x\"'",
    "empty": "echo '{}'",
    "other": 'echo \'{"kind": 1, "version": 2, "magic": 3}\'',
    "no text": "printf '\\377\\000'",
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_passed_over(name: str, machine: Machine) -> None:
    machine.script(f"bin/{NAME}", BROKEN[name])
    right = machine.program(f".pyenv/versions/{TEXT}.1/bin/{NAME}", f"{TEXT}.1")

    for _ in range(2):
        found = machine.find()
        assert found is not None
        assert found.path == right


def test_what_cannot_be_started_is_passed_over(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    (machine.root / "one" / NAME).mkdir(parents=True)
    (machine.root / "two").mkdir()
    (machine.root / "two" / NAME).write_text("not a program")
    (machine.root / "three").mkdir()
    (machine.root / "three" / NAME).symlink_to("nowhere")
    (machine.root / "four").mkdir()
    (machine.root / "four" / NAME).symlink_to(NAME)
    machine.script(f"five/{NAME}", "").write_bytes(b"\x7fELF\x02\x01\x01")
    right = machine.program(f"six/{NAME}")
    folders = [str(machine.root / name) for name in ("one", "two", "three", "four", "five", "none", "six")]
    monkeypatch.setenv("PATH", os.pathsep.join(folders))

    found = machine.find()

    assert found is not None
    assert found.path == right


@pytest.mark.parametrize("entry", ["x" * 5000, "", ".", "/dev/null", "~"])
def test_an_odd_entry_of_the_search_path_is_passed_over(
    entry: str, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = machine.program(f"bin/{NAME}")
    monkeypatch.chdir(machine.root)
    monkeypatch.setenv("PATH", f"{entry}{os.pathsep}{machine.path}")

    found = machine.find()

    assert found is not None
    assert found.path == right


def test_a_folder_that_may_not_be_read_is_passed_over(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    right = machine.program(f"bin/{NAME}")
    original = Path.stat

    def refused(self: Path, **more: Any) -> os.stat_result:
        if "closed" in self.parts:
            raise PermissionError(13, "Permission denied", str(self))
        return original(self, **more)

    monkeypatch.setattr(Path, "stat", refused)
    monkeypatch.setenv("PATH", f"{machine.root}/closed{os.pathsep}{machine.path}")

    found = machine.find()

    assert found is not None
    assert found.path == right


def test_one_without_a_global_lock_is_passed_over(machine: Machine) -> None:
    """It has the magic number of the others, and loads none of their extension modules."""
    pretend = f"""
import importlib.util, platform, sys, sysconfig
sysconfig.get_config_vars()["Py_GIL_DISABLED"] = 1
sys.abiflags, sys._is_gil_enabled = "t", lambda: False
importlib.util.MAGIC_NUMBER = ({runtime().bytecode_magic}).to_bytes(2, "little") + bytes([13, 10])
platform.python_version = lambda: "{TEXT}.0"
exec(sys.argv[-1])
"""
    python = shlex.quote(sys.executable)
    place = machine.script(f"bin/{NAME}", f'for last; do :; done\nexec {python} -c {shlex.quote(pretend)} "$last"')
    said = subprocess.check_output([place, "-c", "import platform; print(platform.python_version())"], text=True)
    assert said.strip() == f"{TEXT}.0"

    assert machine.find() is None


def test_what_one_said_is_kept(machine: Machine) -> None:
    path = machine.program(f"bin/{NAME}")
    first = machine.find()

    assert machine.find() == first
    assert machine.started == [path]

    machine.program(f"bin/{NAME}", f"{TEXT}.66")
    os.utime(path, (1, 1))
    second = machine.find()
    assert second is not None
    assert second.version == f"{TEXT}.66"
    assert machine.started == [path, path]


def test_what_the_user_has_set_changes_no_answer(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    (machine.root / "json.py").write_text("1 / 0\n")
    monkeypatch.setenv("PYTHONPATH", str(machine.root))
    monkeypatch.setenv("PYTHONHOME", str(machine.root))
    monkeypatch.setenv("PYTHONIOENCODING", "utf-16")
    here = machine.find((sys.version_info[0], sys.version_info[1]))

    assert here is not None
    assert here.prefix == Path(sys.base_prefix)


def test_a_module_in_the_current_folder_changes_no_answer(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -c` looks into the current folder before all others."""
    (machine.root / "json.py").write_text("1 / 0\n")
    (machine.root / "platform.py").write_text("1 / 0\n")
    monkeypatch.chdir(machine.root)

    assert machine.find((sys.version_info[0], sys.version_info[1])) is not None


# uv


def uv_says(monkeypatch: pytest.MonkeyPatch, answer: Completed) -> list[list[str]]:
    """What uv is asked, which gives one answer to all."""
    asked: list[list[str]] = []
    original = process.run

    def run(command: Any, **more: Any) -> Completed:
        if Path(command[0]).stem != "uv":
            return original(command, **more)
        asked.append([str(word) for word in command])
        return answer

    monkeypatch.setattr("layerbuild.interpreters.run", run)
    return asked


def test_uv_is_asked_last(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    place = machine.program(f"uv/cpython/bin/{NAME}")
    asked = uv_says(monkeypatch, Completed(returncode=0, stdout=f"{place}\n", stderr=""))

    found = machine.find()
    assert found is not None
    assert found.path == place
    assert "--no-python-downloads" in asked[0]

    machine.program(f"bin/{NAME}")
    assert machine.find() != found
    assert len(asked) == 1


@pytest.mark.parametrize(
    "answer",
    [
        Completed(returncode=2, stdout="", stderr="error: No interpreter found"),
        Completed(returncode=0, stdout="\n", stderr=""),
        Completed(returncode=0, stdout="/nonexistent/python\n", stderr=""),
        Completed(returncode=1, stdout="/bin/true\n", stderr=""),
    ],
)
def test_uv_may_know_of_none(answer: Completed, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    uv_says(monkeypatch, answer)

    assert machine.find() is None


def test_the_real_uv_is_understood(find_real: Callable[[], Path], machine: Machine) -> None:
    real = find_real()
    release = subprocess.check_output([real, "-V"], text=True).split()[1]
    folder = machine.root / "uv" / f"cpython-{release}-linux-{platform.machine()}-gnu" / "bin"
    folder.mkdir(parents=True)
    (folder / NAME).symlink_to(real)

    found = machine.find()

    assert found is not None
    assert found.version == release


@pytest.fixture
def find_real() -> Callable[[], Path]:
    """A real CPython of the version; asked for before the machine hides it."""
    from tests.interpreters import _find, find_python

    _find(TEXT)
    return lambda: find_python(TEXT)
