"""What goes into and comes out of an engine, as bytes: archives, and output line by line."""

from __future__ import annotations

import io
import re
import tarfile
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from layerbuild.process import redact, stop_if_interrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

BUILD_USER = 10001  # as Dockerfile.build makes it
_TAIL = 40
_LONGEST_LINE = 4096
_EPOCH = 315532800  # 1980-01-01, the first day that a zip can name


def tar_of(files: Mapping[str, bytes]) -> bytes:
    """A tar archive of files, path to content, that belong to the build user."""
    out = io.BytesIO()
    folders: dict[str, None] = {}
    for path in files:
        parents = PurePosixPath(path).parts[:-1]
        folders |= dict.fromkeys("/".join(parents[: depth + 1]) for depth in range(len(parents)))
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content, mode, kind in (
            *((folder, b"", 0o755, tarfile.DIRTYPE) for folder in folders),
            *((path, content, 0o644, tarfile.REGTYPE) for path, content in sorted(files.items())),
        ):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode, entry.size, entry.mtime = kind, mode, len(content), _EPOCH
            entry.uid = entry.gid = BUILD_USER
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


_CUT_URL = re.compile(r"\b\w+://[^/\s]*$")
_COLOURS = re.compile(r"\x1b\[[0-9;]*[a-zA-Z]")


class ByteStream(io.RawIOBase):
    """Pieces of bytes as a file to read from; `check` is called before each read, and may raise."""

    def __init__(self, chunks: Iterable[bytes], check: Callable[[], object] = stop_if_interrupted) -> None:
        self._chunks = iter(chunks)
        self._check = check
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._check()
        while not self._rest:
            try:
                self._rest = next(self._chunks)
            except StopIteration:
                return 0
        piece, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(piece)] = piece
        return len(piece)


class Tail:
    """Gives output on line by line, and remembers its end."""

    def __init__(self, log: Callable[[str], object]) -> None:
        self._log = log
        self._rest = b""
        self._lines: list[str] = []

    def add(self, chunk: bytes) -> None:
        *whole, rest = chunk.split(b"\n")
        for line in whole:
            self._line((self._rest + line)[: 2 * _LONGEST_LINE])
            self._rest = b""
        # A build that prints without end is not kept without end.
        self._rest = (self._rest + rest)[: 2 * _LONGEST_LINE]

    def end(self) -> None:
        self._line(self._rest)
        self._rest = b""

    def _line(self, line: bytes) -> None:
        text = redact(_COLOURS.sub("", line.decode("utf-8", "replace")))
        if len(text) > _LONGEST_LINE:
            # A credential whose end is not there any more would not be known for one.
            text = _CUT_URL.sub("", text[:_LONGEST_LINE])
        text = text.rstrip()
        if text:
            self._log(text)
            self._lines = [*self._lines[-_TAIL:], text]

    def lines(self) -> list[str]:
        return self._lines[-_TAIL:]
