"""What one file is, by its bytes: ELF facts, a bytecode header, a ``#!`` line, a distribution's metadata.

Bytes come in chunks, as they are unpacked; nothing is unpacked to disk but large ELF files, to one that has no name.
"""

from __future__ import annotations

import csv
import io
import struct
import tempfile
from typing import IO, Any

from layerbuild.elf import MAGIC, read_elf

# Files whose text says what a distribution is: read whole, if they are not absurd.
_METADATA = (".dist-info/METADATA", ".egg-info/PKG-INFO")
_RECORD = ".dist-info/RECORD"
_LARGEST_TEXT = 8 * 1024**2
_LARGEST_HEAD = 4096
_MOST_REQUIREMENTS = 2000
_MOST_LINES, _LONGEST_LINE = 20, 200
_LARGEST_IN_MEMORY = 24 * 1024**2
_PYC_HEADER = struct.Struct("<4I")

_FOREIGN = {
    b"MZ": "Windows",
    b"\xcf\xfa\xed\xfe": "macOS",
    b"\xce\xfa\xed\xfe": "macOS",
    b"\xca\xfe\xba\xbe": "macOS",
}


class Content:
    """Gathers what is worth knowing of one file while its bytes pass by.

    Args:
        path: decides what a text is taken for.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._head = b""
        self._size = 0
        self._text = path.endswith((*_METADATA, _RECORD, ".pth"))
        self._whole: IO[bytes] | None = io.BytesIO() if self._text else None

    def feed(self, chunk: bytes) -> None:
        """The next bytes."""
        before = self._head
        if len(before) < _LARGEST_HEAD:
            self._head += chunk[: _LARGEST_HEAD - len(before)]
        if len(before) < len(MAGIC) <= len(self._head) and self._head.startswith(MAGIC) and not self._text:
            self._whole = tempfile.SpooledTemporaryFile(_LARGEST_IN_MEMORY)  # noqa: SIM115 - closed in facts()
            self._whole.write(before)
        self._size += len(chunk)
        if self._whole is not None and not (self._text and self._size > _LARGEST_TEXT):
            self._whole.write(chunk)

    def facts(self) -> dict[str, Any]:
        """What was found, as JSON can hold it; empty for a file that is nothing special.

        Returns:
            One of ``elf`` (see `layerbuild.elf.read_elf`), ``pyc`` ([magic, flags, mtime or hash, source size or
            rest of the hash]), ``foreign`` (the system that a compiled file is for), ``pth`` (the first of its
            lines), ``shebang`` (the first line), ``distribution``, ``record`` (a list of paths).
        """
        if self._whole is None:
            return self._small()
        with self._whole as whole:
            whole.seek(0)
            if not self._text:
                return {"elf": read_elf(whole)}
            text = whole.read().decode("utf-8", "replace") if self._size <= _LARGEST_TEXT else ""
        if self._path.endswith(".pth"):
            lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
            return {"pth": [line[:_LONGEST_LINE] for line in lines[:_MOST_LINES]]}
        return {"record": _record(text)} if self._path.endswith(_RECORD) else {"distribution": _distribution(text)}

    def _small(self) -> dict[str, Any]:
        head = self._head
        if head.startswith(b"#!"):
            return {"shebang": head.partition(b"\n")[0].decode("utf-8", "replace")}
        if self._path.endswith(".pyc"):
            if len(head) < _PYC_HEADER.size:
                return {"pyc": [0, 0, 0, 0]}
            magic, *rest = _PYC_HEADER.unpack_from(head)
            # The magic number proper is followed by \r\n, which tells a file that was sent as text.
            return {"pyc": [magic & 0xFFFF if magic >> 16 == 0x0A0D else 0, *rest]}
        if self._path.endswith((".so", ".pyd", ".dll", ".dylib")):
            for magic_bytes, system in _FOREIGN.items():
                if head.startswith(magic_bytes):
                    return {"foreign": system}
        return {}


def _record(text: str) -> list[str]:
    """The paths of a RECORD (Recording installed projects); unreadable lines are left out."""
    try:
        return [row[0] for row in csv.reader(io.StringIO(text, newline="")) if row and row[0]]
    except csv.Error:
        return []


def _distribution(text: str) -> dict[str, Any]:
    """``name``, ``version`` and ``requires`` (Requires-Dist lines) of a METADATA or PKG-INFO file."""
    from packaging.metadata import parse_email

    raw, _ = parse_email(text)
    requires = raw.get("requires_dist", [])[:_MOST_REQUIREMENTS]
    return {"name": raw.get("name", ""), "version": raw.get("version", ""), "requires": requires}
