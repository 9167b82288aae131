"""The one gateway for subprocesses: keeps their output, ends them when the user interrupts."""

from __future__ import annotations

import os
import re
import subprocess
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_URL_PASSWORD = re.compile(r"(\w://)[^/\s]+@")
_POLL_SECONDS = 0.2

# Set when the user interrupts: whatever runs in another thread looks at it and ends soon.
interrupted = threading.Event()


class Interrupted(Exception):  # noqa: N818 - not an error
    """Work in a thread broke off because the user interrupted the program."""


def stop_if_interrupted() -> None:
    """Raises `Interrupted` when the user has interrupted the program."""
    if interrupted.is_set():
        raise Interrupted


def redact(text: str) -> str:
    """`text` without the user names and passwords of its URLs."""
    return _URL_PASSWORD.sub(r"\1****@", text)


@dataclass(frozen=True, kw_only=True, slots=True)
class Completed:
    """How a subprocess ended, and what it printed."""

    returncode: int
    stdout: str
    stderr: str


def run(
    command: Sequence[str | Path], *, env: Mapping[str, str | None] | None = None, cwd: Path | None = None
) -> Completed:
    """Runs a command to its end, without standard input.

    Args:
        command: program and arguments; no shell is involved.
        env: variables to set beside this process's own; None takes one away.
        cwd: folder to run in.

    Raises:
        Interrupted: the user interrupted the program; the command has been ended.
        OSError: the program cannot be started.
    """
    stop_if_interrupted()
    # What it prints is read as UTF-8, whatever the locale.
    variables = {**os.environ, "PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8", **(env or {})}
    process = subprocess.Popen(
        [str(word) for word in command],
        env={name: value for name, value in variables.items() if value is not None},
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    try:
        while True:
            try:
                stdout, stderr = process.communicate(timeout=_POLL_SECONDS)
                break
            except subprocess.TimeoutExpired:
                stop_if_interrupted()
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    return Completed(returncode=process.returncode, stdout=stdout, stderr=stderr)
