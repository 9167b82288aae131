"""The one gateway for subprocesses: keeps their output, ends them when the user interrupts."""

from __future__ import annotations

import os
import re
import subprocess
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Self, cast

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
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


_LONGEST_LINE = 16 * 1024 * 1024
_LONGEST_COMPLAINT = 4096
_GRACE_SECONDS = 2


class Streaming:
    """A subprocess that is sent bytes and answers in lines, read as they come; it is ended with the block.

    Args:
        command: program and arguments; no shell is involved.
        sent: what it gets on standard input.
        env: all of its environment.

    Attributes:
        returncode, stderr: how it ended, and the end of what it complained of; known once `lines` are at their end.

    Raises:
        OSError: the program cannot be started.
    """

    def __init__(self, command: Sequence[str | Path], sent: Iterable[bytes], *, env: Mapping[str, str]) -> None:
        stop_if_interrupted()
        self.returncode = 0
        self.stderr = ""
        self._sent = sent
        self._complaints = bytearray()
        self._process = subprocess.Popen(
            [str(word) for word in command],
            env=dict(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Ctrl-C is for this program to deal with.
            start_new_session=True,
        )
        works = (self._send, self._listen, self._watch)
        self._threads = [threading.Thread(target=work, daemon=True) for work in works]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        for thread in self._threads:
            thread.join()
        for pipe in (self._process.stdout, self._process.stderr):
            cast("IO[bytes]", pipe).close()

    def lines(self) -> Iterator[bytes]:
        """What it prints. Raises `Interrupted` when the user interrupts the program."""
        stdout = cast("IO[bytes]", self._process.stdout)
        while line := stdout.readline(_LONGEST_LINE):
            yield line
        self.returncode = self._process.wait()
        self._threads[1].join()
        self.stderr = self._complaints.decode("utf-8", "replace").strip()
        stop_if_interrupted()

    def _send(self) -> None:
        # It may end before it has read all.
        with suppress(OSError), cast("IO[bytes]", self._process.stdin) as pipe:
            for chunk in self._sent:
                pipe.write(chunk)

    def _listen(self) -> None:
        while said := cast("IO[bytes]", self._process.stderr).read1(_LONGEST_COMPLAINT):  # type: ignore[attr-defined]
            self._complaints = (self._complaints + said)[-_LONGEST_COMPLAINT:]

    def _watch(self) -> None:
        while self._process.poll() is None:
            if interrupted.wait(_POLL_SECONDS):
                self._end()

    def _end(self) -> None:
        """Ends it; it may need a moment to end what it has started."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
