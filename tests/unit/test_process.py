"""Subprocesses: their output is kept, secrets are not shown, and an interrupt ends them."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import pytest

from layerbuild.process import Interrupted, interrupted, redact, run, stop_if_interrupted


def test_a_command_gives_its_output_and_code(tmp_path: Path) -> None:
    code = "import os, sys; print(os.environ['GIVEN'], os.getcwd()); print('böse', file=sys.stderr); sys.exit(7)"
    done = run([sys.executable, "-X", "utf8", "-c", code], env={"GIVEN": "x"}, cwd=tmp_path)
    assert done.returncode == 7
    assert done.stdout == f"x {tmp_path}\n"
    assert done.stderr == "böse\n"


def test_a_command_has_no_standard_input_and_any_bytes_may_come_out() -> None:
    code = "import sys; assert sys.stdin.read() == ''; sys.stdout.buffer.write(b'a\\xffb' + b'x' * 300_000)"
    done = run([sys.executable, "-c", code])
    assert done.returncode == 0, done.stderr
    assert done.stdout == "a\ufffdb" + "x" * 300_000


def test_a_program_that_does_not_exist_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        run([tmp_path / "no-such-program"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://user:secret@host/simple", "http://****@host/simple"),
        ("https://token@host/", "https://****@host/"),
        ("see https://a:secret@x/ and https://b:secret@y/", "see https://****@x/ and https://****@y/"),
        ("'http://u:secret@h:80/'", "'http://****@h:80/'"),
        ("git+ssh://u:secret@h/x", "git+ssh://****@h/x"),
        ("http://user:se@secret@host/", "http://****@host/"),
        ("http://host/path@1.0", "http://host/path@1.0"),
        ("mail me@example.org", "mail me@example.org"),
        ("http://host/a user@b", "http://host/a user@b"),
    ],
)
def test_urls_are_shown_without_their_credentials(text: str, expected: str) -> None:
    assert redact(text) == expected


def test_an_interrupt_ends_a_sleeping_command_soon(tmp_path: Path) -> None:
    mark = tmp_path / "still-alive"
    code = f"import time, pathlib; time.sleep(4); pathlib.Path({str(mark)!r}).touch()"
    threading.Timer(0.3, interrupted.set).start()
    started = time.monotonic()
    with pytest.raises(Interrupted):
        run([sys.executable, "-c", code])
    assert time.monotonic() - started < 3
    time.sleep(4)
    assert not mark.exists()


def test_nothing_is_started_after_an_interrupt(tmp_path: Path) -> None:
    interrupted.set()
    with pytest.raises(Interrupted):
        run([sys.executable, "-c", f"open({str(tmp_path / 'x')!r}, 'w')"])
    assert not (tmp_path / "x").exists()


def test_work_goes_on_unless_interrupted() -> None:
    stop_if_interrupted()
    interrupted.set()
    with pytest.raises(Interrupted):
        stop_if_interrupted()
