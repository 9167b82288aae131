"""One wheel: what is in it, checked once against its own RECORD, and kept as facts under the wheel's sha256."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
import stat
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from layerbuild.errors import BuildError
from layerbuild.index import parse_filename
from layerbuild.lock import normal_name
from layerbuild.process import stop_if_interrupted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Part of the key under which facts are cached: to be raised whenever they change.
FACTS_FORMAT = 2

STORED, DEFLATED = 0, 8
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_CHUNK = 1 << 18

# An extra field that gives a member another name, which some readers believe and others do not.
_UNICODE_PATH = 0x7075

# No layer may reach 262,144,000 bytes; what a recipe prunes away may be larger, but not without end.
_MAX_UNPACKED = 4 * 1024**3
# RECORD is not in itself; signatures of it cannot be either (binary distribution format, "Signed wheel files").
_UNRECORDED = ("RECORD", "RECORD.jws", "RECORD.p7s")


class Member(NamedTuple):
    """One file of a wheel, as it lies in the zip.

    `mode` is 0o644 or 0o755; `offset` is where its compressed bytes begin; `sha256` is in RECORD's form
    (urlsafe base64 without padding) and is that of the content.
    """

    path: str
    mode: int
    method: int
    crc: int
    compressed: int
    size: int
    offset: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Wheel:
    """The facts of one wheel file.

    Attributes:
        filename: its name on the index; facts do not depend on it.
        name, version: as in METADATA, not normalised.
        licence: SPDX expression, or what METADATA says instead.
        pure: whether it says that it has no compiled parts.
        dist_info, data: the two folders that the format gives a meaning.
        scripts: console and GUI entry points, name to ``module:function``.
    """

    sha256: str
    filename: str
    path: Path
    name: str
    version: str
    licence: str
    summary: str
    homepage: str
    pure: bool
    dist_info: str
    data: str
    scripts: tuple[tuple[str, str], ...]
    members: tuple[Member, ...]

    def __str__(self) -> str:
        return self.filename


def facts_key(sha256: str) -> str:
    """The key of a wheel's facts in the cache."""
    return f"{sha256}-{FACTS_FORMAT}"


def wheel_from_facts(facts: dict[str, Any], *, sha256: str, filename: str, path: Path) -> Wheel:
    """A `Wheel` out of what `read_facts` returned, perhaps long ago."""
    return Wheel(
        sha256=sha256,
        filename=filename,
        path=path,
        members=tuple(map(Member._make, facts["members"])),
        scripts=tuple((name, function) for name, function in facts["scripts"]),
        **{
            key: facts[key]
            for key in ("name", "version", "licence", "summary", "homepage", "pure", "dist_info", "data")
        },
    )


def read_facts(path: Path, filename: str) -> dict[str, Any]:
    """Reads a wheel from anywhere, believing nothing: every byte is inflated, bounded, and hashed.

    Args:
        path: the file.
        filename: what to call it in errors, and where its name and version are expected from.

    Returns:
        The facts, as JSON can hold them.

    Raises:
        BuildError: it is not a whole and honest wheel, or one that layers cannot hold.
    """
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            return _Inspector(filename, file, archive).facts()
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        struct.error,
        NotImplementedError,
        ValueError,
    ) as error:
        raise _bad(filename, f"it is not a whole zip file: {error}") from None


def _bad(filename: str, reason: str) -> BuildError:
    return BuildError(
        "wheel-invalid",
        f"{filename} cannot be used",
        causes=[reason],
        hint="the file on the index is damaged or unsafe: tell its maintainers, or pin another version",
    )


class _Inspector:
    """Reads one wheel. Kept together as every step can fail with the wheel's name."""

    def __init__(self, filename: str, file: BinaryIO, archive: zipfile.ZipFile) -> None:
        self.filename = filename
        self.file = file
        self.infos = [info for info in archive.infolist() if not info.is_dir()]
        self.texts: dict[str, bytes] = {}

    def facts(self) -> dict[str, Any]:
        # zipfile cuts names at a NUL and, on Windows, turns backslashes.
        self._check_names([info.orig_filename for info in self.infos])
        for info in self.infos:
            if info.filename != info.orig_filename or _UNICODE_PATH in _extra_fields(info.extra):
                raise _bad(self.filename, f"the zip contradicts itself about {info.orig_filename!r}")
        dist_info = self._dist_info()
        data = dist_info.removesuffix(".dist-info") + ".data"
        for top in {info.filename.split("/")[0] for info in self.infos}:
            if top.endswith(".data") and top != data:
                raise _bad(self.filename, f"its data folder is {top!r}, not {data!r}")
        if sum(info.file_size for info in self.infos) > _MAX_UNPACKED:
            raise _bad(self.filename, f"it unpacks to more than {_MAX_UNPACKED:,} bytes")
        members = [self._member(info, keep=info.filename.startswith(f"{dist_info}/")) for info in self.infos]
        self._check_record(members, dist_info)
        return {
            **self._metadata(dist_info),
            "dist_info": dist_info,
            "data": data,
            "members": members,
        }

    def _check_names(self, names: list[str]) -> None:
        for name in names:
            if name.startswith("/") or "\\" in name or ":" in name.split("/")[0] or ".." in name.split("/"):
                raise _bad(self.filename, f"the path {name!r} leads out of the layer")
            if str(PurePosixPath(name)) != name or any(ord(character) < 32 for character in name):
                raise _bad(self.filename, f"the path {name!r} is not a plain relative path")
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise _bad(self.filename, f"the path {twice!r} is in it twice")

    def _dist_info(self) -> str:
        found = {top for info in self.infos if (top := info.filename.split("/")[0]).endswith(".dist-info")}
        if len(found) != 1:
            raise _bad(self.filename, f"a wheel has one dist-info folder, this has {len(found)}")
        return found.pop()

    def _member(self, info: zipfile.ZipInfo, *, keep: bool) -> Member:
        mode = info.external_attr >> 16
        if stat.S_ISLNK(mode):
            raise _bad(self.filename, f"{info.filename!r} is a symbolic link, which wheels cannot carry")
        if info.flag_bits & 0x1:
            raise _bad(self.filename, f"{info.filename!r} is encrypted")
        if info.compress_type not in (STORED, DEFLATED):
            raise _bad(self.filename, f"{info.filename!r} is compressed by a method that Lambda may not read")
        offset = self._data_offset(info)
        digest = hashlib.sha256()
        crc = size = 0
        kept = []
        for chunk in _inflate(self.file, offset, info.compress_size, info.compress_type, info.file_size):
            stop_if_interrupted()
            digest.update(chunk)
            crc = zlib.crc32(chunk, crc)
            size += len(chunk)
            if keep:
                kept.append(chunk)
        if size != info.file_size or crc != info.CRC:
            raise _bad(self.filename, f"{info.filename!r} does not have the size and checksum that the zip says")
        if keep:
            self.texts[info.filename] = b"".join(kept)
        return Member(
            path=info.filename,
            # As pip: any executable bit makes a program, everything else is a plain file.
            mode=0o755 if stat.S_ISREG(mode) and mode & 0o111 else 0o644,
            method=info.compress_type,
            crc=crc,
            compressed=info.compress_size,
            size=size,
            offset=offset,
            sha256=_record_digest(digest.digest()),
        )

    def _data_offset(self, info: zipfile.ZipInfo) -> int:
        """Where a member's bytes begin, by its local header, which must tell the same story as the directory."""
        if info.header_offset < 0:
            raise _bad(self.filename, f"the zip contradicts itself about {info.filename!r}")
        self.file.seek(info.header_offset)
        signature, _, flags, method, *_, name_size, extra_size = _LOCAL_HEADER.unpack(
            self.file.read(_LOCAL_HEADER.size)
        )
        name = self.file.read(name_size).decode("utf-8" if flags & 0x800 else "cp437")
        if signature != b"PK\x03\x04" or method != info.compress_type or name != info.orig_filename:
            raise _bad(self.filename, f"the zip contradicts itself about {info.filename!r}")
        return int(info.header_offset + _LOCAL_HEADER.size + name_size + extra_size)

    def _check_record(self, members: list[Member], dist_info: str) -> None:
        text = self._text(f"{dist_info}/RECORD")
        try:
            rows = {row[0]: row[1] for row in csv.reader(io.StringIO(text)) if len(row) >= 2}
        except csv.Error as error:
            raise _bad(self.filename, f"its RECORD is not CSV: {error}") from None
        unrecorded = {f"{dist_info}/{name}" for name in _UNRECORDED}
        for member in members:
            if member.path in unrecorded:
                continue
            recorded = rows.pop(member.path, None)
            if not recorded:
                raise _bad(self.filename, f"its RECORD has no hash for {member.path!r}")
            algorithm, _, expected = recorded.partition("=")
            actual = member.sha256 if algorithm == "sha256" else self._other_digest(member, algorithm)
            if actual != expected.rstrip("="):
                raise _bad(self.filename, f"{member.path!r} is not the file that its RECORD describes")
        missing = [path for path in rows if path not in unrecorded and not path.endswith("/")]
        if missing:
            raise _bad(self.filename, f"its RECORD lists {missing[0]!r}, which is not in it")

    def _other_digest(self, member: Member, algorithm: str) -> str:
        if algorithm not in ("sha384", "sha512"):
            raise _bad(self.filename, f"its RECORD uses {algorithm}, which is not safe (PEP 427 asks for sha256)")
        digest = hashlib.new(algorithm)
        for chunk in _inflate(self.file, member.offset, member.compressed, member.method, member.size):
            digest.update(chunk)
        return _record_digest(digest.digest())

    def _text(self, path: str) -> str:
        if path not in self.texts:
            raise _bad(self.filename, f"it has no {path}")
        return self.texts[path].decode("utf-8", "replace")

    def _metadata(self, dist_info: str) -> dict[str, Any]:
        from packaging.metadata import parse_email

        raw, _ = parse_email(self.texts.get(f"{dist_info}/METADATA", b""))
        if "name" not in raw or "version" not in raw:
            raise _bad(self.filename, f"{dist_info}/METADATA has no name or version")
        named = parse_filename(self.filename)
        if named and (named.name, str(named.version)) != (normal_name(raw["name"]), _normal_version(raw["version"])):
            raise _bad(self.filename, f"its METADATA says {raw['name']} {raw['version']}")
        wheel = self._text(f"{dist_info}/WHEEL")
        if not re.search(r"^Wheel-Version: 1\.", wheel, re.MULTILINE):
            raise _bad(self.filename, "its Wheel-Version is not 1.x, the only one there is")
        purity = [
            line.partition(":")[2].strip() for line in wheel.splitlines() if line.startswith("Root-Is-Purelib:")
        ]
        links = raw.get("project_urls", {})
        homepage = raw.get("home_page") or next(
            (
                url
                for label in ("homepage", "home", "source", "repository")
                for key, url in links.items()
                if key.lower() == label
            ),
            next(iter(links.values()), ""),
        )
        return {
            "name": raw["name"],
            "version": raw["version"],
            "licence": _licence(raw),
            "summary": raw.get("summary", ""),
            "homepage": homepage,
            "pure": purity == ["true"],
            "scripts": self._scripts(dist_info),
        }

    def _scripts(self, dist_info: str) -> list[tuple[str, str]]:
        import configparser

        parser = configparser.ConfigParser(delimiters=("=",), interpolation=None, default_section="\0")
        parser.optionxform = str  # type: ignore[assignment, method-assign]
        try:
            parser.read_string(self.texts.get(f"{dist_info}/entry_points.txt", b"").decode("utf-8"))
        except (configparser.Error, UnicodeDecodeError) as error:
            raise _bad(self.filename, f"its entry_points.txt cannot be read: {error}") from None
        sections = [section for section in ("console_scripts", "gui_scripts") if parser.has_section(section)]
        return sorted(
            (name, value.split("[")[0].strip()) for section in sections for name, value in parser.items(section)
        )


def _normal_version(text: str) -> str:
    from packaging.version import InvalidVersion, Version

    try:
        return str(Version(text))
    except InvalidVersion:
        return text


def _extra_fields(extra: bytes) -> Iterator[int]:
    """The header IDs of a member's extra fields (APPNOTE.TXT 4.5.1)."""
    while len(extra) >= 4:
        field, size = struct.unpack_from("<HH", extra)
        yield field
        extra = extra[4 + size :]


def _record_digest(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _inflate(file: BinaryIO, offset: int, compressed: int, method: int, size: int) -> Iterator[bytes]:
    """The content of a member, never more than one chunk beyond the size it claims."""
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


def _licence(raw: Any) -> str:
    """A distribution's licence: PEP 639's expression, else the old free text if short, else classifiers."""
    text: str = raw.get("license_expression") or raw.get("license") or ""
    if text and "\n" not in text and len(text) <= 80:
        return text
    classifiers = [
        line.rsplit(" :: ", 1)[-1] for line in raw.get("classifiers", []) if line.startswith("License :: ")
    ]
    return ", ".join(classifiers)
