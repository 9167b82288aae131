"""Ctrl-C, kill -9 and several runs at once: nothing half-written, and the next run is right."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.index_server import IndexServer
from tests.integration.test_faults import BOTH_RESOLVERS, HOST, OTHER, contents
from tests.integration.test_make import write_recipe
from tests.wheels import make_wheel, sha256_of

NAMES = ("one", "two", "three")
PROMPT = 5.0
TARGETS = ("python3.12-arm64", "python3.12-x86_64", "python3.13-arm64")

# Python itself takes a while to start, on a busy machine a long while: moments count from the command's beginning.
# A test run in the background ignores Ctrl-C, and so would what it starts.
PROGRAM = """\
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
import layerbuild.cli
from layerbuild.__main__ import main
run = layerbuild.cli.run
def announced(arguments):
    print("ready", flush=True)
    return run(arguments)
layerbuild.cli.run = announced
main()
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(project: Path) -> Iterator[Start]:
    """Starts `layerbuild make demo` as the leader of a process group; ends what is left of it afterwards."""
    started = []

    def call(*arguments: str, cache: Path | None = None) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "make", "demo", *arguments],
            env={**os.environ, **({"LAYERBUILD_CACHE_DIR": str(cache)} if cache else {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        assert process.stdout
        assert process.stdout.readline() == "ready\n", process.communicate()
        return process

    yield call
    for process in started:
        # What a killed program started may outlive it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture
def slow(project: Path, wheelhouse: Path, index_server: IndexServer) -> IndexServer:
    """An index that takes about a second for each of three wheels of two megabytes."""
    noise = random.Random(7)
    for name in NAMES:
        make_wheel(wheelhouse, name, files={f"{name}/data.bin": noise.randbytes(2_000_000), f"{name}/a.py": "x\n"})
    write_recipe(project, requirements=", ".join(f'"{name}"' for name in NAMES))
    index_server.chunk_delay = 0.03
    return index_server


def pin_all(project: Path, wheelhouse: Path) -> None:
    """Writes the locks, so that no resolver runs."""
    locks = project / "recipes/demo/locks"
    locks.mkdir()
    lines = [f"{name}==1.0 --hash=sha256:{sha256_of(wheelhouse / f'{name}-1.0-py3-none-any.whl')}" for name in NAMES]
    for target in TARGETS:
        (locks / f"{target}.txt").write_text("\n".join(lines) + "\n")


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    """Waits for the end and returns what was printed."""
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, (out, err)
    return out + err


def clean_build(start: Start, server: IndexServer, tmp_path: Path, *arguments: str) -> dict[str, bytes]:
    """What an uninterrupted run writes."""
    delay, server.chunk_delay = server.chunk_delay, 0
    finish(start(*arguments, "--out", str(tmp_path / "clean"), cache=tmp_path / "clean-cache"))
    server.chunk_delay = delay
    return contents(tmp_path / "clean")


def leftovers(*roots: Path) -> list[Path]:
    return [path for root in roots for path in root.rglob("*.part")]


def check_whole(dist: Path, cache: Path) -> None:
    """No file under its final name is anything but complete."""
    for path in dist.glob("*.zip"):
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
    for path in dist.glob("*.json"):
        json.loads(path.read_bytes())
    for path in cache.rglob("*.whl"):
        assert sha256_of(path) == path.stem


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def interrupt(process: subprocess.Popen[str], *, group: bool) -> tuple[int, str]:
    """Sends SIGINT, as Ctrl-C does to the whole group or `kill` to one; sees that it ends promptly."""
    sent = time.monotonic()
    if group:
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert time.monotonic() - sent < PROMPT
    assert "Traceback" not in err
    # A shell says 130 as well of a program that the signal itself ended, as it may when Python is all but gone.
    code = 130 if process.returncode == -signal.SIGINT else process.returncode
    return code, out + err


@pytest.mark.parametrize("group", [True, False], ids=["group", "program"])
@pytest.mark.parametrize("moment", [0.0, 0.3, 0.7, 1.1, 1.5])
def test_ctrl_c_while_downloading_leaves_nothing_behind(
    project: Path, tmp_path: Path, wheelhouse: Path, slow: IndexServer, start: Start, moment: float, group: bool
) -> None:
    pin_all(project, wheelhouse)
    dist, cache = project / "dist", tmp_path / "cache"
    before = contents(project)

    process = start("--target", TARGETS[0])
    time.sleep(moment)
    code, text = interrupt(process, group=group)

    made = dist / f"demo-{TARGETS[0]}.json"
    assert code == 130 or (code == 0 and made.exists()), text
    assert leftovers(dist, cache) == []
    check_whole(dist, cache)
    assert made.exists() or "interrupted" in text
    new = contents(project).keys() - before.keys()
    assert new <= {f"dist/{made.name}", f"dist/{made.stem}.zip"}
    slow.chunk_delay = 0
    finish(start("--target", TARGETS[0], "--target", TARGETS[2]))
    assert contents(dist) == clean_build(start, slow, tmp_path, "--target", TARGETS[0], "--target", TARGETS[2])


@BOTH_RESOLVERS
@pytest.mark.parametrize("group", [True, False], ids=["group", "program"])
@pytest.mark.parametrize("place", ["/simple/one/", "/files/two-1.0-py3-none-any.whl"])
def test_ctrl_c_while_resolving_leaves_nothing_behind(
    project: Path, tmp_path: Path, slow: IndexServer, start: Start, target: str, group: bool, place: str
) -> None:
    process = start("--target", target)
    wait_until(lambda: place in slow.requests)
    before = contents(project)
    code, text = interrupt(process, group=group)

    assert code == 130, text
    assert contents(project) == before
    assert leftovers(project, tmp_path / "cache") == []


def test_ctrl_c_is_obeyed_at_every_moment_of_a_run(project: Path, slow: IndexServer, start: Start) -> None:
    slow.chunk_delay = 0
    finish(start("--target", OTHER))
    process = start("--target", OTHER, "--force")
    started = time.monotonic()
    finish(process)
    whole = time.monotonic() - started

    codes = []
    for part in range(15):
        process = start("--target", OTHER, "--force")
        time.sleep(whole * part / 12)
        code, text = interrupt(process, group=False)
        assert code in (0, 130), (part, text)
        codes.append(code)
    assert codes[0] == 130


@pytest.mark.parametrize("module", ["layerbuild.cli", "click", "layerbuild.cli.make", "layerbuild.pipeline"])
def test_ctrl_c_while_modules_are_imported_gives_no_traceback(project: Path, slow: IndexServer, module: str) -> None:
    program = f"""\
import os, signal, sys

class Interrupter:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

# Whoever runs the tests in the background may have had it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Interrupter())
from layerbuild.__main__ import main
main()
"""
    command = [sys.executable, "-c", program, "make", "demo", "--target", OTHER]
    done = subprocess.run(command, capture_output=True, text=True)

    assert "Traceback" not in done.stderr
    assert done.returncode in (130, -signal.SIGINT), done.stderr
    assert not (project / "dist").exists()


@pytest.mark.parametrize("place", ["/simple/one/", "/files/one-1.0-py3-none-any.whl"])
@pytest.mark.parametrize("target", [HOST, OTHER, "locked"])
def test_ctrl_c_ends_the_wait_for_an_index_that_hangs(
    project: Path,
    tmp_path: Path,
    wheelhouse: Path,
    slow: IndexServer,
    start: Start,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    target: str,
) -> None:
    monkeypatch.setenv("PIP_TIMEOUT", "60")
    slow.faults[place] = "hang"
    if target == "locked":
        pin_all(project, wheelhouse)
        target = TARGETS[0]

    process = start("--target", target)
    wait_until(lambda: place in slow.requests)
    time.sleep(0.1)
    code, text = interrupt(process, group=False)

    assert code == 130, text
    assert leftovers(project, tmp_path / "cache") == []
    slow.faults.clear()
    slow.chunk_delay = 0
    finish(start("--target", target))


def test_kill_at_any_moment_leaves_only_whole_files(
    project: Path, tmp_path: Path, wheelhouse: Path, slow: IndexServer, start: Start
) -> None:
    pin_all(project, wheelhouse)
    dist, cache = project / "dist", tmp_path / "cache"
    arguments = [word for target in TARGETS for word in ("--target", target)]
    moments = random.Random(42)
    killed = 0
    for turn in range(16):
        if turn % 4 == 3:
            # Back to the start, so that all moments of a run are hit again and again.
            for path in [*cache.rglob("*.whl")][:2]:
                path.unlink()
        process = start(*arguments, "--force")
        time.sleep(moments.uniform(0, 1.3))
        process.kill()
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
        check_whole(dist, cache)
    assert killed >= 4

    slow.chunk_delay = 0
    finish(start(*arguments))

    right = clean_build(start, slow, tmp_path, *arguments)
    assert {name: data for name, data in contents(dist).items() if not name.endswith(".part")} == right


@BOTH_RESOLVERS
@pytest.mark.parametrize("count", [2, 4])
def test_several_runs_at_once_share_cache_dist_and_locks(
    project: Path, tmp_path: Path, slow: IndexServer, start: Start, target: str, count: int
) -> None:
    slow.chunk_delay = 0.005
    for text in [finish(process) for process in [start("--target", target) for _ in range(count)]]:
        assert "error" not in text

    assert leftovers(project, tmp_path / "cache") == []
    check_whole(project / "dist", tmp_path / "cache")
    assert contents(project / "dist") == clean_build(start, slow, tmp_path, "--target", target)
    assert [path.name for path in (project / "recipes/demo/locks").iterdir()] == [f"{target}.txt"]


def test_a_run_while_another_was_killed_does_not_wait_for_it(
    project: Path, wheelhouse: Path, slow: IndexServer, start: Start
) -> None:
    pin_all(project, wheelhouse)
    one = start("--target", TARGETS[0])
    wait_until(lambda: any(path.startswith("/files/") for path in slow.requests))
    one.kill()
    slow.chunk_delay = 0

    started = time.monotonic()
    finish(start("--target", TARGETS[0]))

    assert time.monotonic() - started < PROMPT
