"""Archives: the zip that Lambda is given, and the manifest beside it.

The zip is written once, front to back. Members of wheels go in as the compressed bytes that they already are.
It depends on the layer and the date alone: sorted names, fixed modes, no zip64, no extra fields.
Format: APPNOTE.TXT 6.3.10, sections 4.3.7, 4.3.12, 4.3.16.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
import struct
import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from layerbuild import __version__
from layerbuild.cache import whole_file, write_text
from layerbuild.errors import BuildError, UsageError
from layerbuild.layer import MOST_FILES

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from layerbuild.layer import Layer, Source

MANIFEST_VERSION = 1

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_MADE_BY_UNIX = 3 << 8 | 20
_NEEDS_DEFLATE = 20
_UTF8 = 0x800
_LARGEST_MANIFEST = 16 * 1024**2
_BUFFER = 1 << 20
_EARLIEST = 315_532_800  # 1980-01-01, where the zip format's dates begin
_SITE = re.compile(r"python(/lib/python3\.\d+/site-packages)?")
_LATEST = 4_354_819_198  # 2107-12-31, where they end


def source_date() -> int:
    """The date of every file, in seconds since 1970: ``SOURCE_DATE_EPOCH``, else 1980-01-01, the zip format's first.

    Raises:
        UsageError: the variable is not a number.
    """
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return _EARLIEST
    if not text.isascii() or not text.isdigit() or len(text) > 20:
        raise UsageError(
            "bad-source-date",
            f"SOURCE_DATE_EPOCH is {text!r}, not a number of seconds since 1970",
            hint="unset it",
        )
    return min(max(int(text), _EARLIEST), _LATEST)


def _dos_date(epoch: int) -> tuple[int, int]:
    """(time, date) as the zip format has them: two-second steps from 1980, without a time zone."""
    moment = time.gmtime(epoch)
    date = (moment.tm_year - 1980) << 9 | moment.tm_mon << 5 | moment.tm_mday
    return moment.tm_hour << 11 | moment.tm_min << 5 | moment.tm_sec // 2, date


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """A zip file: its sha256 in base64, as Lambda's CodeSha256, and its size in bytes."""

    code_sha256: str
    size: int


class Packed(Protocol):
    """A member to be written, as `layerbuild.layer.LayerFile` describes its fields; a link's `mode` says so."""

    @property
    def path(self) -> str: ...
    @property
    def mode(self) -> int: ...
    @property
    def method(self) -> int: ...
    @property
    def crc(self) -> int: ...
    @property
    def compressed(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def source(self) -> Source | bytes: ...
    @property
    def offset(self) -> int: ...


def write_archive(files: Iterable[Packed], path: Path, *, epoch: int) -> Written:
    """Writes a layer's zip; it appears at `path` whole or not at all.

    Args:
        files: what goes in, already sorted by path.
        path: the zip file.
        epoch: the date of every member, as `source_date` gives it.

    Raises:
        BuildError: there are more files than a zip without zip64 can list.
    """
    files = tuple(files)
    if len(files) > MOST_FILES:
        what = f"{path.name} would have {len(files):,} files; a plain zip holds {MOST_FILES:,}"
        raise BuildError("too-many-files", what, hint="prune it")
    with whole_file(path) as output:
        return _Writer(output, *_dos_date(epoch)).write(files)


class _Writer:
    def __init__(self, output: BinaryIO, dos_time: int, dos_date: int) -> None:
        self.output = output
        self.time = dos_time
        self.date = dos_date
        self.hash = hashlib.sha256()
        self.position = 0
        self.buffer = bytearray()
        self.central: list[bytes] = []

    def write(self, files: Iterable[Packed]) -> Written:
        with contextlib.ExitStack() as stack:
            opened: dict[str, BinaryIO] = {}
            for file in files:
                self._header(file)
                if isinstance(file.source, bytes):
                    self._add(file.source)
                    continue
                wheel = opened.get(file.source.sha256)
                if wheel is None:
                    wheel = opened[file.source.sha256] = stack.enter_context(file.source.path.open("rb", buffering=0))
                self._copy(wheel, file.offset, file.compressed)
        start = self.position + len(self.buffer)
        directory = b"".join(self.central)
        self._add(directory)
        count = len(self.central)
        self._add(_END.pack(b"PK\x05\x06", 0, 0, count, count, len(directory), start, 0))
        self._flush()
        return Written(code_sha256=base64.b64encode(self.hash.digest()).decode(), size=self.position)

    def _header(self, file: Packed) -> None:
        name = file.path.encode()
        common = (
            *(_UTF8 if len(name) != len(file.path) else 0, file.method, self.time, self.date),
            *(file.crc, file.compressed, file.size, len(name), 0),
        )
        offset = self.position + len(self.buffer)
        self._add(_LOCAL.pack(b"PK\x03\x04", _NEEDS_DEFLATE, *common) + name)
        attributes = (0o100000 | file.mode) << 16
        self.central.append(
            _CENTRAL.pack(b"PK\x01\x02", _MADE_BY_UNIX, _NEEDS_DEFLATE, *common, 0, 0, 0, attributes, offset) + name
        )

    def _copy(self, wheel: BinaryIO, offset: int, size: int) -> None:
        wheel.seek(offset)
        while size:
            data = wheel.read(min(size, _BUFFER))
            if not data:
                raise OSError(f"{wheel.name} ended while it was being read")
            size -= len(data)
            self._add(data)

    def _add(self, data: bytes) -> None:
        self.buffer += data
        if len(self.buffer) >= _BUFFER:
            self._flush()

    def _flush(self) -> None:
        self.hash.update(self.buffer)
        self.output.write(self.buffer)
        self.position += len(self.buffer)
        self.buffer.clear()


def distribution_sizes(layer: Layer) -> dict[str, tuple[int, int]]:
    """(unzipped, zipped) bytes of each distribution, by its name."""
    sizes: dict[str, list[int]] = {wheel.name: [0, 0] for wheel in layer.wheels}
    for file in layer.files:
        row = sizes[file.owner.name]
        row[0] += file.size
        row[1] += file.compressed
    return {name: (row[0], row[1]) for name, row in sizes.items()}


def archive_sizes(path: Path) -> dict[str, dict[str, tuple[int, int]]]:
    """Where the bytes of an archive are, by the RECORDs in it.

    Returns:
        Distribution to folder at the top of site-packages (or of the layer) to (unzipped, zipped) bytes, the
        largest distribution first.
    """
    import csv
    import io
    import posixpath
    import zipfile

    with zipfile.ZipFile(path) as archive:
        infos = {info.filename: info for info in archive.infolist()}
        sizes: dict[str, dict[str, tuple[int, int]]] = {}
        for name in list(infos):
            site, _, info_folder = posixpath.dirname(name).rpartition("/")
            # Other RECORDs are of what a package has vendored: files of that package.
            if not name.endswith(".dist-info/RECORD") or not _SITE.fullmatch(site):
                continue
            folders = sizes.setdefault(info_folder.removesuffix(".dist-info").replace("-", " ", 1), {})
            for row in csv.reader(io.StringIO(archive.read(name).decode(), newline="")):
                info = infos.pop(posixpath.normpath(f"{site}/{row[0]}"), None)
                if info is None:  # counted with another distribution that brings it too
                    continue
                folder = row[0].split("/")[0] if not row[0].startswith("..") else info.filename.split("/")[0]
                unzipped, zipped = folders.get(folder, (0, 0))
                folders[folder] = (unzipped + info.file_size, zipped + info.compress_size)
    return dict(sorted(sizes.items(), key=lambda item: -sum(size for size, _ in item[1].values())))


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What is in an archive and what it was made from. Its JSON form is described by ``manifest.schema.json``."""

    data: dict[str, Any]

    @cached_property
    def inputs(self) -> str:
        """The digest of everything that the archive was made from."""
        return str(self.data["inputs_digest"])

    def describes(self, path: Path) -> bool:
        """Whether the archive at `path` is, byte for byte, the one that this describes."""
        try:
            size = path.stat().st_size
            if size != self.data["zipped"]:
                return False
            with path.open("rb") as file:
                return self.is_of(hashlib.file_digest(file, "sha256").digest(), size)
        except OSError:
            return False

    def is_of(self, sha256: bytes, size: int | None) -> bool:
        """Whether it describes the archive with this hash and this many bytes."""
        return bool(size == self.data["zipped"] and base64.b64encode(sha256).decode() == self.data["code_sha256"])

    def write(self, path: Path) -> None:
        """Writes the manifest whole."""
        write_text(path, json.dumps(self.data, indent=2, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, path: Path) -> Manifest | None:
        """The manifest at `path`; None where there is none, or it is damaged or of another version."""
        try:
            if not path.is_file() or path.stat().st_size > _LARGEST_MANIFEST:
                return None
            data = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError):
            return None
        if not isinstance(data, dict) or data.get("version") != MANIFEST_VERSION:
            return None
        return cls(data=data) if data.get("digest") == _document_digest(data) else None

    @classmethod
    def of(cls, layer: Layer, written: Written, **given: Any) -> Manifest:
        """The manifest of a layer just written; `given` holds recipe, target and the digests of lock and inputs."""
        sizes = distribution_sizes(layer)
        distributions = [
            {
                "name": wheel.name,
                "version": wheel.version,
                "licence": wheel.licence,
                "wheel": wheel.filename,
                "sha256": wheel.sha256,
                **({"source_sha256": wheel.source} if wheel.source else {}),
                "unzipped": sizes[wheel.name][0],
                "zipped": sizes[wheel.name][1],
            }
            for wheel in layer.wheels
        ]
        return cls.about(
            written,
            **given,
            content_digest=layer.content_digest,
            unzipped=layer.unzipped,
            files=len(layer.files),
            distributions=distributions,
        )

    @classmethod
    def about(cls, written: Written, **given: Any) -> Manifest:
        """The manifest of an archive just written; `given` is all that the archive itself does not say."""
        data = {
            "version": MANIFEST_VERSION,
            **given,
            "layerbuild": __version__,
            "code_sha256": written.code_sha256,
            "zipped": written.size,
        }
        return cls(data={**data, "digest": _document_digest(data)})


def _document_digest(data: dict[str, Any]) -> str:
    """The digest of a manifest without its own line ``digest``: tells one that was damaged."""
    rest = {key: value for key, value in data.items() if key != "digest"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return "sha256:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
