"""Zip files from elsewhere, read without believing them. What is wrong is told; what is left can be used.

Format: APPNOTE.TXT 6.3.10, sections 4.3.7 (local header), 4.3.12 (directory), 4.3.16 (end record).
"""

from __future__ import annotations

import os
import stat
import struct
import zipfile
import zlib
from functools import cached_property
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STORED, DEFLATED = 0, 8
# Of all members of a layer, unpacked: four times what Lambda takes, enough to say how much too large one is.
LARGEST = 1024**3

_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_END = struct.Struct("<4s4H2LH")
_LOCATOR64 = b"PK\x06\x07"
_ENTRY, _ENTRY_SIZE = b"PK\x01\x02", 46
_CHUNK = 1 << 18
_ENCRYPTED, _DESCRIPTOR, _UTF8 = 0x1, 0x8, 0x800
# Extra fields: sizes beyond 32 bits; another name, which some readers believe and others do not.
_ZIP64, _UNICODE_PATH = 0x0001, 0x7075

# No real layer comes near: names of 65,535 files have 8 MB.
_MAX_DIRECTORY = 24 * 1024**2
_MAX_RATIO = 200
_RATIO_MATTERS = 100_000_000
_LONGEST_LINK = 4096
# Of a name in a folder and of a path, in bytes (Linux: NAME_MAX, PATH_MAX).
_LONGEST_PART, _LONGEST_PATH = 255, 4096
_MAX_NESTING = 100_000_000
_MANY = 0xFFFFFFFF


class Problem(NamedTuple):
    """What is wrong with a zip: a short kind such as ``path``, the member it concerns, a sentence."""

    kind: str
    path: str | None
    text: str


class ZipError(Exception):
    """A member's bytes are not what the zip says of them."""


class ZipMember(NamedTuple):
    """A member as the directory describes it.

    `kind` is ``file``, ``folder`` or ``symlink``; `mode` is Unix's, with the file's type, or 0 where the zip does
    not say it; `offset` is where the compressed bytes begin.
    """

    path: str
    kind: str
    mode: int
    method: int
    crc: int
    compressed: int
    size: int
    offset: int


class ZipReader:
    """The members of a zip file that can be read, and all that is wrong with it.

    Args:
        file: the zip, opened for reading; kept open by the caller for as long as content is read.
        limit: greatest sum of unpacked bytes.

    Attributes:
        members: readable ones, in the directory's order.
        problems: in the order found. After one of kind ``broken``, ``bomb`` or ``zip64`` that concerns no one
            member, there are no members. ``prefix`` alone is harmless: bytes before the zip, as of a program.
    """

    def __init__(self, file: BinaryIO, *, limit: int) -> None:
        self._file = file
        self.members: list[ZipMember] = []
        self.problems: list[Problem] = []
        try:
            if not self._end_is_sound():
                return
            # zipfile keeps the file's position to itself; closing it leaves the file open.
            with zipfile.ZipFile(file) as archive:
                infos = archive.infolist()
            self._read(infos, limit)
        except (zipfile.BadZipFile, EOFError, struct.error, NotImplementedError, ValueError, OverflowError) as error:
            self._whole("broken", f"it is not a whole zip file: {error}")

    def _whole(self, kind: str, text: str) -> None:
        """A problem of the file as a whole: nothing in it can be trusted."""
        self.members = []
        self.problems.append(Problem(kind, None, text))

    def _end_is_sound(self) -> bool:
        """Looks at the end record before zipfile reads as much as that asks for."""
        size = self._file.seek(0, os.SEEK_END)
        tail_start = max(0, size - (1 << 16) - _END.size)
        self._file.seek(tail_start)
        tail = self._file.read(size - tail_start)
        place = tail.rfind(b"PK\x05\x06")
        if place < 0 or len(tail) - place < _END.size:
            self._whole("broken", "it is not a whole zip file: it has no end record")
            return False
        if _LOCATOR64 in tail[max(0, place - 20) : place]:
            self._whole("zip64", "it uses zip64, of which nobody knows whether Lambda reads it")
            return False
        _, disk, start_disk, here, count, length, start, comment = _END.unpack_from(tail, place)
        end = tail_start + place
        prefix = end - length - start
        if disk or start_disk or here != count or prefix < 0 or end + _END.size + comment != size:
            self._whole("broken", "it is not a whole zip file: its end record contradicts the file")
            return False
        if prefix:
            self.problems.append(Problem("prefix", None, f"it begins with {prefix:,} bytes that are not of the zip"))
        if length > _MAX_DIRECTORY:
            self._whole("bomb", f"its directory has {length:,} bytes, more than any layer needs")
            return False
        self._file.seek(end - length)
        if not _is_directory(self._file.read(length), count):
            self._whole("broken", "it is not a whole zip file: its directory is not what the end record says")
            return False
        return True

    def _read(self, infos: list[zipfile.ZipInfo], limit: int) -> None:
        unpacked = sum(info.file_size for info in infos)
        packed = sum(info.compress_size for info in infos)
        if unpacked > limit:
            self._whole("bomb", f"it unpacks to more than {limit:,} bytes")
            return
        if unpacked > _RATIO_MATTERS and unpacked > packed * _MAX_RATIO:
            self._whole("bomb", f"it unpacks to {unpacked:,} bytes out of {packed:,}")
            return
        # What lists folders keeps each name once for every folder above it.
        if sum(len(info.orig_filename) * info.orig_filename.count("/") for info in infos) > _MAX_NESTING:
            self._whole("bomb", "its names are nested deeper than those of any layer")
            return
        seen: set[str] = set()
        for info in infos:
            problem = self._named_badly(info) or self._unreadable(info)
            name = info.orig_filename.rstrip("/")
            if not problem and name in seen:
                problem = Problem("duplicate", name, f"the path {name!r} is in it twice")
            place = problem or self._located(info)
            if isinstance(place, Problem):
                self.problems.append(place)
                continue
            seen.add(name)
            self.members.append(_member(info, place))
        self._check_overlaps()
        self._check_folders()

    def _named_badly(self, info: zipfile.ZipInfo) -> Problem | None:
        # zipfile cuts names at a NUL and, on Windows, turns backslashes.
        name = info.orig_filename
        plain = name.removesuffix("/")
        if "\\" in name:
            return Problem("path", name, f"the path {name!r} has backslashes, as some programs on Windows write them")
        if name.startswith("/") or ":" in name.split("/")[0] or ".." in name.split("/"):
            return Problem("path", name, f"the path {name!r} leads out of the layer")
        parts = plain.split("/")
        plainly = all(part not in ("", ".") and len(part.encode()) <= _LONGEST_PART for part in parts)
        if not plainly or len(plain.encode()) > _LONGEST_PATH or any(ord(character) < 32 for character in name):
            return Problem("path", name, f"the path {name!r} is not a plain relative path")
        fields = set(_extra_fields(info.extra))
        if info.filename != name or _UNICODE_PATH in fields:
            return Problem("path", name, _contradicts(info))
        return _zip64(info) if _ZIP64 in fields else None

    def _unreadable(self, info: zipfile.ZipInfo) -> Problem | None:
        name = info.orig_filename
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
            return Problem("special", name, f"{name!r} is a device, a pipe or a socket")
        if info.flag_bits & _ENCRYPTED:
            return Problem("encrypted", name, f"{name!r} is encrypted")
        if info.compress_type not in (STORED, DEFLATED):
            return Problem("method", name, f"{name!r} is compressed by a method that Lambda may not read")
        return None

    def _located(self, info: zipfile.ZipInfo) -> int | Problem:
        """Where a member's bytes begin, or why its local header does not say so."""
        contradiction = Problem("broken", info.orig_filename.rstrip("/"), _contradicts(info))
        if info.header_offset < 0:
            return contradiction
        self._file.seek(info.header_offset)
        signature, _, flags, method, _, _, crc, compressed, size, name_size, extra_size = _LOCAL_HEADER.unpack(
            self._file.read(_LOCAL_HEADER.size)
        )
        if (compressed, size) == (_MANY, _MANY):  # as of one that was written before its size was known
            return _zip64(info)
        name = self._file.read(name_size).decode("utf-8" if flags & _UTF8 else "cp437")
        # A descriptor behind the bytes says what a writer did not know before them.
        told = (crc, compressed, size) == (info.CRC, info.compress_size, info.file_size) or flags & _DESCRIPTOR
        same = (signature, method, name) == (b"PK\x03\x04", info.compress_type, info.orig_filename)
        if not same or not told or flags & _ENCRYPTED:
            return contradiction
        return int(info.header_offset + _LOCAL_HEADER.size + name_size + extra_size)

    def _check_overlaps(self) -> None:
        """Refuses members that share bytes, as those of the densest bombs do."""
        end = 0
        for member in sorted(self.members, key=lambda member: member.offset):
            if member.offset < end:
                self._whole("bomb", f"{member.path!r} shares its bytes with another member")
                return
            end = member.offset + member.compressed

    def _check_folders(self) -> None:
        """Drops members that lie below a file or a link."""
        leaves = {member.path: member.kind for member in self.members if member.kind != "folder"}
        kept = []
        for member in self.members:
            above = next((path for path in _parents(member.path) if path in leaves), None)
            if above is None:
                kept.append(member)
                continue
            text = f"{member.path!r} lies below {above!r}, which is a {leaves[above]}"
            self.problems.append(Problem("path", member.path, text))
        self.members = kept

    def content(self, member: ZipMember, file: BinaryIO | None = None) -> Iterator[bytes]:
        """The content of a member in chunks, checked as it comes.

        Args:
            member: one of `members`.
            file: another handle of the same zip, for a thread of its own.

        Raises:
            ZipError: it is not as long as the zip says, its checksum is wrong, or it does not inflate.
        """
        size = crc = 0
        try:
            source = file or self._file
            for chunk in inflate(source, member.offset, member.compressed, member.method, member.size):
                size += len(chunk)
                crc = zlib.crc32(chunk, crc)
                yield chunk
        except (zlib.error, EOFError, zipfile.BadZipFile) as error:
            raise ZipError(f"{member.path!r} cannot be unpacked: {error}") from None
        if size != member.size or crc != member.crc:
            raise ZipError(f"{member.path!r} does not have the size and checksum that the zip says")


def _contradicts(info: zipfile.ZipInfo) -> str:
    return f"the zip contradicts itself about {info.orig_filename!r}"


def _zip64(info: zipfile.ZipInfo) -> Problem:
    name = info.orig_filename
    return Problem("zip64", name, f"{name!r} uses zip64, of which nobody knows whether Lambda reads it")


def _is_directory(data: bytes, count: int) -> bool:
    """Whether this is a directory of that many entries, all on the one disk, and nothing else."""
    position = entries = 0
    while position < len(data):
        if data[position : position + 4] != _ENTRY or len(data) - position < _ENTRY_SIZE:
            return False
        name, extra, comment, disk = struct.unpack_from("<4H", data, position + 28)
        if disk:
            return False
        position += _ENTRY_SIZE + name + extra + comment
        entries += 1
    return position == len(data) and entries == count


def _member(info: zipfile.ZipInfo, offset: int) -> ZipMember:
    mode = info.external_attr >> 16
    folder = info.orig_filename.endswith("/") or stat.S_ISDIR(mode)
    return ZipMember(
        path=info.orig_filename.removesuffix("/"),
        kind="folder" if folder else "symlink" if stat.S_ISLNK(mode) else "file",
        mode=mode,
        method=info.compress_type,
        crc=info.CRC,
        compressed=info.compress_size,
        size=info.file_size,
        offset=offset,
    )


def zip_members(path: Path) -> list[ZipMember]:
    """The readable members of a layer's zip, without reading their content."""
    with path.open("rb") as file:
        return ZipReader(file, limit=LARGEST).members


class ZipContents:
    """Gives the content of a layer's members by path; the zip's directory is read once, when first needed."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @cached_property
    def _members(self) -> dict[str, ZipMember]:
        return {member.path: member for member in zip_members(self._path)}

    def __call__(self, path: str) -> bytes:
        member = self._members[path]
        with self._path.open("rb") as file:
            return b"".join(inflate(file, member.offset, member.compressed, member.method, member.size))


def link_target(content: bytes) -> str | None:
    """Where a symbolic link leads; None where that is no path."""
    if not content or len(content) > _LONGEST_LINK or b"\0" in content:
        return None
    return content.decode("utf-8", "backslashreplace")


def _parents(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path


def _extra_fields(extra: bytes) -> Iterator[int]:
    """The header IDs of a member's extra fields (APPNOTE.TXT 4.5.1)."""
    while len(extra) >= 4:
        field, size = struct.unpack_from("<HH", extra)
        yield field
        extra = extra[4 + size :]


def inflate(file: BinaryIO, offset: int, compressed: int, method: int, size: int) -> Iterator[bytes]:
    """The content of a member, never more than one chunk beyond the size it claims.

    Raises:
        zlib.error, EOFError, zipfile.BadZipFile: the bytes are damaged, too few or too many.
    """
    file.seek(offset)
    inflater = zlib.decompressobj(-15) if method == DEFLATED else None
    left, produced = compressed, 0
    while left:
        data = file.read(min(left, _CHUNK))
        if not data:
            raise EOFError("the file ends too early")
        left -= len(data)
        while data:
            chunk = inflater.decompress(data, _CHUNK) if inflater else data
            data = inflater.unconsumed_tail if inflater else b""
            produced += len(chunk)
            if produced > size:
                raise zipfile.BadZipFile("a member is larger than the zip says")
            yield chunk
    while inflater and not inflater.eof and (chunk := inflater.decompress(b"", _CHUNK)):
        produced += len(chunk)
        yield chunk
    if inflater and not inflater.eof:
        raise EOFError("a member's compressed data ends too early")
    if inflater and inflater.unused_data:
        raise zipfile.BadZipFile("a member has more compressed data than content")
