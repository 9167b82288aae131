"""Archives and folders that are broken, that lie, or that mean harm: `check` and `stack` say so, soon and small.

Every input is made here, byte by byte. The real program gets it as a process of its own, whose time and memory are
measured, and whose folders are compared before and after.
"""

from __future__ import annotations

import base64
import contextlib
import csv
import functools
import hashlib
import io
import itertools
import json
import os
import random
import shutil
import stat
import struct
import subprocess
import sys
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

TARGET = "python3.12-x86_64"
SECONDS = 10.0  # of CPU, which a busy machine does not change
HANGS = 30  # seconds after which the program is ended
PEAK = 300_000_000
OUTPUT = 50_000_000
KNOWN_ENDS = (0, 1, 2, 3, 4)
TOGETHER = 20

# What a hostile text would like to pass off as a line of the program's own, and what it must not have read.
FORGED = "error: forged"
SECRET = "canary-that-nobody-reads"
CLEAN = "clean"


# Zip files (APPNOTE.TXT 4.3.7, 4.3.9, 4.3.12, 4.3.14 to 4.3.16)


class Record:
    """A fixed part of a zip or ELF file: its fields, by name."""

    def __init__(self, layout: str, names: str) -> None:
        self._struct = struct.Struct(layout)
        self._names = names.split()

    def pack(self, values: Mapping[str, Any]) -> bytes:
        return self._struct.pack(*(values[name] for name in self._names))


LOCAL = Record(
    "<4s5H3L2H", "signature needed flags method time date crc compressed size name_size extra_size"
)  # fmt: skip
CENTRAL = Record(
    "<4s6H3L5H2L",
    "signature made_by needed flags method time date crc compressed size name_size extra_size comment_size disk "
    "internal attributes offset",
)
END = Record("<4s4H2LH", "signature disk start_disk here total size offset comment_size")
END64 = Record("<4sQ2H2L4Q", "signature record made_by needed disk start_disk here total size offset")
LOCATOR = Record("<4sLQL", "signature disk offset disks")

STORED, DEFLATED = 0, 8
ENCRYPTED, DESCRIPTOR, UTF8 = 0x1, 0x8, 0x800
FILE, LINK, FOLDER = 0o100644, 0o120777, 0o040755
HUGE = 0xFFFF_FFFE


def deflate(content: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(content) + packer.flush()


@dataclass(frozen=True)
class Member:
    """A file in an archive, true unless told otherwise.

    Args:
        raw: the compressed bytes, where they are not those of the content.
        both: fields of both headers that are to have other values; `local` and `central` are for one of them.
            ``name``, ``extra`` and ``comment`` are fields, too.
        after: what follows the data.
    """

    name: bytes
    content: bytes = b""
    mode: int = FILE
    method: int = DEFLATED
    raw: bytes | None = None
    both: Mapping[str, Any] = field(default_factory=dict)
    local: Mapping[str, Any] = field(default_factory=dict)
    central: Mapping[str, Any] = field(default_factory=dict)
    after: bytes = b""

    @functools.cached_property
    def packed(self) -> bytes:
        if self.raw is not None:
            return self.raw
        return self.content if self.method == STORED else deflate(self.content)

    def _header(self, record: Record, values: Mapping[str, Any]) -> bytes:
        true = {
            "needed": 20,
            "made_by": 3 << 8 | 20,
            "flags": 0 if self.name.isascii() else UTF8,
            "method": self.method,
            "time": 0,
            "date": 0x21,
            "crc": zlib.crc32(self.content),
            "compressed": len(self.packed),
            "size": len(self.content),
            "disk": 0,
            "internal": 0,
            "attributes": self.mode << 16,
            "name": self.name,
            "extra": b"",
            "comment": b"",
            **self.both,
            **values,
        }
        sizes = {f"{part}_size": len(true[part]) for part in ("name", "extra", "comment")}
        return record.pack({**sizes, **true}) + bytes(true["name"]) + bytes(true["extra"])

    def local_header(self) -> bytes:
        return self._header(LOCAL, {"signature": b"PK\x03\x04", **self.local})

    def central_header(self, offset: int) -> bytes:
        header = self._header(CENTRAL, {"signature": b"PK\x01\x02", "offset": offset, **self.central})
        return header + bytes(self.central.get("comment", b""))


def directory_end(start: int, size: int, count: int, /, **changed: Any) -> bytes:
    """The end record, with any field changed."""
    values = {
        "signature": b"PK\x05\x06",
        "disk": 0,
        "start_disk": 0,
        "here": count & 0xFFFF,
        "total": count & 0xFFFF,
        "size": size,
        "offset": start,
        "comment": b"",
        **changed,
    }
    return END.pack({"comment_size": len(values["comment"]), **values}) + bytes(values["comment"])


def directory_end_64(start: int, size: int, count: int, /, **changed: Any) -> bytes:
    """A zip64 end record and the locator that points at it, which is told apart by ``locator_`` before a field."""
    values = {
        "signature": b"PK\x06\x06",
        "record": 44,
        "made_by": 45,
        "needed": 45,
        "disk": 0,
        "start_disk": 0,
        "here": count,
        "total": count,
        "size": size,
        "offset": start,
        **changed,
    }
    locator = {"signature": b"PK\x06\x07", "disk": 0, "offset": start + size, "disks": 1}
    locator |= {name.removeprefix("locator_"): value for name, value in changed.items() if name[:8] == "locator_"}
    return END64.pack(values) + LOCATOR.pack(locator)


def build(
    *members: Member,
    gap: bytes = b"",
    end64: Mapping[str, Any] | None = None,
    tail: bytes = b"",
    end: Mapping[str, Any] | None = None,
) -> bytes:
    """An archive of these members.

    Args:
        gap: what stands between the last member and the directory.
        end64: a zip64 end record is to be there, too, with these fields changed.
        tail: what stands behind the end record.
        end: fields of the end record that are to have other values.
    """
    data, directory = bytearray(), bytearray()
    for member in members:
        directory += member.central_header(len(data))
        data += member.local_header() + member.packed + member.after
    data += gap
    place = (len(data), len(directory), len(members))
    data += directory
    if end64 is not None:
        data += directory_end_64(*place, **end64)
    return bytes(data) + directory_end(*place, **(end or {})) + tail


ALL_IN_64 = {"here": 0xFFFF, "total": 0xFFFF, "size": 0xFFFF_FFFF, "offset": 0xFFFF_FFFF}


# A good layer, of which something is then spoiled

INFO = "python/demo-1.0.dist-info"
METADATA = b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n"
WHEEL = b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
SOURCE = b"VERSION = '1.0'\n" * 40
LIBRARY = "demo/fast.cpython-312-x86_64-linux-gnu.so"


def record_of(files: Mapping[str, bytes]) -> bytes:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    for path, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
        rows.writerow([path, f"sha256={digest}", len(content)])
    return text.getvalue().encode()


# A content, or what makes one that is too large to be kept.
Lazy = bytes | Callable[[], bytes]


def made(content: Lazy) -> bytes:
    return content() if callable(content) else content


def lazily(build_of: Callable[[Lazy], bytes], content: Lazy) -> Lazy:
    """What is built of a content: at once, or later where the content is made later."""
    return functools.partial(build_of, content) if callable(content) else build_of(content)


def long(unit: bytes, times: int, *, head: bytes = b"", tail: bytes = b"") -> Lazy:
    return lambda: head + unit * times + tail


def demo(
    files: Mapping[str, Lazy] | None = None, *, metadata: Lazy = METADATA, record: Lazy | None = None
) -> tuple[Member, ...]:
    """The members of a good layer: a package with these files more in site-packages."""
    contents = {
        "demo/__init__.py": SOURCE,
        "demo-1.0.dist-info/METADATA": made(metadata),
        "demo-1.0.dist-info/WHEEL": WHEEL,
        **{path: made(content) for path, content in (files or {}).items()},
    }
    listed = record_of(contents) + b"demo-1.0.dist-info/RECORD,,\n"
    contents["demo-1.0.dist-info/RECORD"] = listed if record is None else made(record)
    return tuple(Member(f"python/{path}".encode(), content) for path, content in contents.items())


GOOD = build(*demo())
START = GOOD.index(b"PK\x01\x02")


def first(**changed: Any) -> tuple[Member, ...]:
    """The members of a good layer, the first of which is changed."""
    member, *others = demo()
    return (replace(member, **changed), *others)


# ELF files: one segment that maps the file as it is, a dynamic section, one part of any content, strings, sections.

ELF = Record(
    "<16sHHLQQQLHHHHHH", "ident type machine version entry phoff shoff flags size phsize phnum shsize shnum shstrndx"
)
PROGRAM = Record("<LLQQQQQQ", "type flags offset vaddr paddr filesz memsz align")
SECTION = Record("<LLQQQQLLQQ", "name type flags addr offset size link info align entsize")
DYNAMIC, ANY = 0x100, 0x400
NEEDED, HASH, STRTAB, SYMTAB, STRSZ, SONAME, RUNPATH = 1, 4, 5, 6, 10, 14, 29
GNU_HASH, VERDEF, VERDEFNUM, VERNEED, VERNEEDNUM = 0x6FFFFEF5, 0x6FFFFFFC, 0x6FFFFFFD, 0x6FFFFFFE, 0x6FFFFFFF


def elf(
    dynamic: Sequence[tuple[int, int]] = (),
    *,
    strings: bytes = b"",
    part: bytes = b"",
    part_type: int = 1,
    info: int = 0,
    segment: Mapping[str, int] | None = None,
    **header: Any,
) -> bytes:
    """A shared library for x86_64.

    Args:
        dynamic: entries of the dynamic section before those that are always there; one of the same tag wins.
        strings: the string table after its first NUL.
        part: any bytes, which are at offset and address `ANY`; `part_type` and `info` are their section's.
        segment: fields of the dynamic section's program header that are to have other values.
        header: fields of the file's header that are to have other values.
    """
    strings = b"\0" + strings
    at = ANY + len(part)
    tags = {tag for tag, _ in dynamic}
    entries = [*dynamic, *((tag, value) for tag, value in ((STRTAB, at), (STRSZ, len(strings))) if tag not in tags)]
    table = b"".join(struct.pack("<QQ", *entry) for entry in [*entries, (0, 0)])
    assert len(table) <= ANY - DYNAMIC
    sections = at + len(strings)
    sections += -sections % 8
    whole = sections + 4 * 64
    values = {
        "ident": b"\x7fELF\x02\x01\x01" + bytes(9),
        "type": 3,
        "machine": 62,
        "version": 1,
        "entry": 0,
        "phoff": 64,
        "shoff": sections,
        "flags": 0,
        "size": 64,
        "phsize": 56,
        "phnum": 2,
        "shsize": 64,
        "shnum": 4,
        "shstrndx": 0,
    }
    load = {
        "type": 1,
        "flags": 6,
        "offset": 0,
        "vaddr": 0,
        "paddr": 0,
        "filesz": whole,
        "memsz": whole,
        "align": 4096,
    }
    place = {"offset": DYNAMIC, "vaddr": DYNAMIC, "paddr": DYNAMIC, "filesz": len(table), "memsz": len(table)}
    data = ELF.pack({**values, **header}) + PROGRAM.pack(load)
    data += PROGRAM.pack({**load, "type": 2, "align": 8, **place, **(segment or {})})
    data = data.ljust(DYNAMIC, b"\0") + table
    data = data.ljust(ANY, b"\0") + part + strings
    data = data.ljust(sections, b"\0") + bytes(64)
    for kind, offset, size, entry_size, count in (
        (3, at, len(strings), 0, 0),
        (6, DYNAMIC, len(table), 16, 0),
        (part_type, ANY, len(part), 0, info),
    ):
        common = {"name": 0, "type": kind, "flags": 2, "addr": offset, "offset": offset, "size": size}
        data += SECTION.pack({**common, "link": 1, "info": count, "align": 1, "entsize": entry_size})
    return data


def library(content: bytes) -> bytes:
    """A layer whose package has this as an extension module."""
    return build(*demo({LIBRARY: content}))


# The table of cases


@dataclass(frozen=True)
class Case:
    """A hostile input.

    Args:
        make: writes it, given the path.
        codes: one of these is to be among the findings; `CLEAN` forbids errors; empty: no verdict is obvious.
        fatal: whether the program has to end with another code than 0.
        folder: whether it is a folder.
        small: whether it is checked in one run with others, to save time; if that fails, on its own.
    """

    name: str
    make: Callable[[Path], object]
    codes: tuple[str, ...]
    fatal: bool
    folder: bool
    small: bool


CASES: dict[str, Case] = {}


def add(
    name: str,
    make: Callable[[Path], object],
    codes: str = "",
    *,
    fatal: bool | None = None,
    folder: bool = False,
    small: bool = False,
) -> None:
    assert name not in CASES
    told = tuple(codes.split())
    if fatal is None:
        fatal = bool(told) and told != (CLEAN,)
    CASES[name] = Case(name, make, told, fatal, folder, small)


def hostile(
    codes: str = "", *, fatal: bool | None = None, folder: bool = False
) -> Callable[[Callable[[Path], object]], Callable[[Path], object]]:
    """Adds what a function writes to the table, under the function's name."""

    def register(make: Callable[[Path], object]) -> Callable[[Path], object]:
        add(make.__name__.replace("_", "-"), make, codes, fatal=fatal, folder=folder)
        return make

    return register


def add_bytes(name: str, data: Lazy, codes: str = "", *, fatal: bool | None = None) -> None:
    add(name, lambda path: path.write_bytes(made(data)), codes, fatal=fatal, small=not callable(data))


def beside(path: Path) -> bytes:
    """A folder beside the program's, in which nothing may change."""
    return os.fsencode(path.parents[1] / "canary")


# Good ones, without which the others would prove nothing

add_bytes("good", GOOD, CLEAN)
add_bytes("good-with-library", lambda: library(elf([(NEEDED, 1)], strings=b"libc.so.6\0")), CLEAN)
add_bytes("good-with-link", build(*demo(), Member(b"python/link.py", b"demo/__init__.py", LINK, STORED)), CLEAN)
add_bytes("good-with-folders", build(Member(b"python/", mode=FOLDER, method=STORED), *demo()), CLEAN)


@hostile(CLEAN)
def good_from_a_stream(path: Path) -> None:
    """Python writes data descriptors where it cannot seek."""

    class Pipe:
        def __init__(self) -> None:
            self.data = bytearray()

        def write(self, data: bytes) -> int:
            self.data += data
            return len(data)

        def flush(self) -> None:
            pass

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:  # type: ignore[call-overload]
        for member in demo():
            info = zipfile.ZipInfo(member.name.decode(), (2020, 1, 1, 0, 0, 0))
            info.external_attr = FILE << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, member.content)
    assert pipe.data.count(b"PK\x07\x08") == len(demo())
    path.write_bytes(pipe.data)


@hostile(CLEAN)
def good_from_info_zip(path: Path) -> None:
    if shutil.which("zip") is None:
        pytest.skip("there is no zip here")
    folder = path.parent / "tree"
    with zipfile.ZipFile(io.BytesIO(GOOD)) as archive:
        archive.extractall(folder)
    for child in folder.rglob("*"):
        child.chmod(0o755 if child.is_dir() else 0o644)
    path.write_bytes(
        subprocess.run(["zip", "-qr", "-", "python"], cwd=folder, check=True, capture_output=True).stdout
    )
    shutil.rmtree(folder)


# The file as a whole

add_bytes("empty-file", b"", "zip-broken")
add_bytes("text", b"This is not a zip.\n" * 100, "zip-broken")
add_bytes("signature-only", b"PK\x03\x04" + bytes(100), "zip-broken")
add_bytes("end-record-only", directory_end(0, 0, 0), "zip-broken size-empty")
add_bytes("noise", random.Random(1).randbytes(100_000), "zip-broken")
add_bytes("end-signatures-only", b"PK\x05\x06" * 50_000, "zip-broken")
for _name, _size in {
    "signature": 3,
    "header": 20,
    "name": 35,
    "data": 60,
    "directory-start": START,
    "directory-header": START + 20,
    "directory-name": START + 50,
    "directory": len(GOOD) - 60,
    "end-record-start": len(GOOD) - 22,
    "end-record": len(GOOD) - 10,
    "last-byte": len(GOOD) - 1,
}.items():
    add_bytes(f"cut-in-{_name}", GOOD[:_size], "zip-broken")
add_bytes("first-half-missing", GOOD[START // 2 :], "zip-broken")
FALSE_ENDS: dict[str, Mapping[str, Any]] = {
    "offset-before": {"offset": START - 1},
    "offset-behind": {"offset": START + 1},
    "offset-zero": {"offset": 0},
    "offset-at-the-end-record": {"offset": len(GOOD) - 22},
    "offset-out-of-file": {"offset": len(GOOD) + 1},
    "offset-huge": {"offset": HUGE},
    "size-smaller": {"size": len(GOOD) - 22 - START - 1},
    "size-larger": {"size": len(GOOD) - 22 - START + 1},
    "size-zero": {"size": 0},
    "size-huge": {"size": HUGE},
    "count-smaller": {"here": 1, "total": 1},
    "count-larger": {"here": 9, "total": 9},
    "count-zero": {"here": 0, "total": 0},
    "counts-differ": {"here": 1},
    "disk": {"disk": 1, "start_disk": 1},
    "start-disk": {"start_disk": 7},
    "comment-longer-than-file": {"comment_size": 60_000},
}
for _name, _changed in FALSE_ENDS.items():
    add_bytes(f"end-record-{_name}", build(*demo(), end=_changed), "zip-broken zip-zip64 zip-prefix")
add_bytes("end-record-counts-65535-of-none", directory_end(0, 0, 0xFFFF), "zip-broken zip-zip64 size-empty")
add_bytes(
    "two-end-records", build(*demo(), end={"comment": directory_end(0, 0, 0)}), "zip-broken zip-prefix size-empty"
)
add_bytes(
    "archive-in-comment", build(*demo(), end={"comment": build(Member(b"python/evil.py"))}), "zip-broken zip-prefix"
)
add_bytes("comment", build(*demo(), end={"comment": b"\x1b[2J" + FORGED.encode() * 1000}))
add_bytes("garbage-before", b"#!/bin/sh\nexit 1\n" + GOOD)
add_bytes("archive-before", build(Member(b"python/evil.py")) + GOOD)
add_bytes("garbage-between", build(*demo(), gap=bytes(1000)))
add_bytes("garbage-after", build(*demo(), tail=b"\nmore\n" * 100))
add_bytes("comment-shorter-than-told", build(*demo(), end={"comment": b"short", "comment_size": 4}))


@hostile("zip-broken")
def sparse_file(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1_000_000_000)


# Headers

for _name, _offset in {"itself": START, "the-second-member": len(demo()[0].local_header()) + 3, "huge": HUGE}.items():
    add_bytes(f"entry-points-at-{_name}", build(*first(central={"offset": _offset})), "zip-broken zip-zip64")
add_bytes(
    "entries-share-a-header", build(*demo(), Member(b"python/two.py", central={"offset": 0})), "zip-broken zip-bomb"
)
add_bytes("entry-name-longer-than-directory", build(*first(central={"name_size": 0xFFFF})), "zip-broken zip-path")
add_bytes("entry-extra-longer-than-directory", build(*first(central={"extra_size": 0xFFFF})), "zip-broken")
add_bytes("entry-comment-longer-than-directory", build(*first(central={"comment_size": 0xFFFF})), "zip-broken")
add_bytes("entry-signature", build(*first(central={"signature": b"PK\x01\x03"})), "zip-broken")
add_bytes("entry-on-another-disk", build(*first(central={"disk": 3})), "zip-broken zip-zip64")
add_bytes("local-signature", build(*first(local={"signature": b"PK\x03\x05"})), "zip-broken")
add_bytes("local-name-size", build(*first(local={"name_size": 0xFFFF})), "zip-broken")
add_bytes("local-extra-size", build(*first(local={"extra_size": 0xFFFF})), "zip-broken zip-checksum")
FALSE_LOCAL_HEADERS: dict[str, Mapping[str, Any]] = {
    "name": {"name": b"python/demo/__evil__.py"},
    "size": {"size": 1},
    "compressed": {"compressed": 1},
    "method": {"method": STORED},
    "crc": {"crc": 1},
    "flags": {"flags": ENCRYPTED},
}
for _name, _changed in FALSE_LOCAL_HEADERS.items():
    add_bytes(f"local-{_name}-differs", build(*first(local=_changed)), "zip-broken zip-checksum zip-encrypted")
add_bytes("needs-version-63", build(*first(both={"needed": 63})))
add_bytes("needs-version-65535", build(*first(both={"needed": 0xFFFF})))
add_bytes("dates-that-are-none", build(*first(both={"time": 0xFFFF, "date": 0})))
add_bytes("extra-fields-cut", build(*first(both={"extra": b"\x75\x70\xff\xff\x01"})))
add_bytes("encrypted", build(*first(both={"flags": ENCRYPTED})), "zip-encrypted")
add_bytes("strongly-encrypted", build(*first(both={"flags": 0x41})), "zip-encrypted")
add_bytes("directory-encrypted", build(*first(both={"flags": 0x2041})), "zip-encrypted")
for _method in (1, 6, 9, 12, 14, 93, 95, 97, 98, 0xFFFF):
    add_bytes(f"method-{_method}", build(*first(both={"method": _method})), "zip-method")
add_bytes("method-99", build(*first(both={"method": 99})), "zip-method zip-encrypted")
add_bytes("patched-data", build(*first(both={"flags": 0x20})))

# Zip64, which Lambda is not known to read

ZIP64 = {"needed": 45, "compressed": 0xFFFF_FFFF, "size": 0xFFFF_FFFF}


def field64(*values: int, field_id: int = 1, size: int | None = None) -> bytes:
    body = struct.pack(f"<{len(values)}Q", *values)
    return struct.pack("<HH", field_id, len(body) if size is None else size) + body


add_bytes("zip64-end-record", build(*demo(), end64={}, end=ALL_IN_64), "zip-zip64")
add_bytes("zip64-end-record-not-needed", build(*demo(), end64={}), "zip-zip64")
FALSE_ZIP64: dict[str, Mapping[str, Any]] = {
    "count-huge": {"here": 2**64 - 1, "total": 2**64 - 1},
    "count-of-billions": {"here": 2**32, "total": 2**32},
    "size-huge": {"size": 2**63},
    "offset-huge": {"offset": 2**64 - 1},
    "record-huge": {"record": 2**64 - 1},
    "signature-wrong": {"signature": b"PK\x06\x05"},
    "located-out-of-file": {"locator_offset": 2**40},
    "located-at-negative": {"locator_offset": 2**64 - 56},
    "located-on-another-disk": {"locator_disk": 5, "locator_disks": 9},
}
for _name, _changed in FALSE_ZIP64.items():
    add_bytes(f"zip64-{_name}", build(*demo(), end64=_changed, end=ALL_IN_64), "zip-zip64 zip-broken zip-bomb")
add_bytes("zip64-without-end-record", build(*demo(), end=ALL_IN_64), "zip-zip64 zip-broken zip-bomb")
_true64 = field64(len(SOURCE), len(deflate(SOURCE)))
add_bytes("zip64-field", build(*first(both={**ZIP64, "extra": _true64})), "zip-zip64")
add_bytes("zip64-field-not-needed", build(*first(central={"extra": _true64})), "zip-zip64")
add_bytes(
    "zip64-field-absurd",
    build(*first(both={**ZIP64, "extra": field64(2**63, 2**63)})),
    "zip-zip64 zip-broken zip-bomb",
)
add_bytes(
    "zip64-field-all-ones",
    build(*first(both={**ZIP64, "extra": field64(2**64 - 1, 2**64 - 1)})),
    "zip-zip64 zip-broken zip-bomb",
)
add_bytes("zip64-field-cut", build(*first(both={**ZIP64, "extra": field64(1)})), "zip-zip64 zip-broken zip-bomb")
add_bytes(
    "zip64-field-size-lies",
    build(*first(both={**ZIP64, "extra": field64(1, 1, size=0xFFFF)})),
    "zip-zip64 zip-broken zip-bomb",
)
add_bytes(
    "zip64-offset-negative",
    build(*first(central={"offset": 0xFFFF_FFFF, "extra": field64(2**64 - 64)})),
    "zip-zip64 zip-broken zip-bomb",
)
add_bytes("zip64-field-missing", build(*first(both=ZIP64)), "zip-zip64 zip-broken zip-bomb")

# Data descriptors

UNTOLD = {"flags": DESCRIPTOR, "crc": 0, "compressed": 0, "size": 0}


def descriptor(*values: int, signature: bytes = b"PK\x07\x08", layout: str = "<3L") -> tuple[Member, ...]:
    after = signature + struct.pack(layout, *values) if values else b""
    return first(local=UNTOLD, central={"flags": DESCRIPTOR}, after=after)


_told = (zlib.crc32(SOURCE), len(deflate(SOURCE)), len(SOURCE))
add_bytes("descriptor", build(*descriptor(*_told)), CLEAN)
add_bytes("descriptor-without-signature", build(*descriptor(*_told, signature=b"")), CLEAN)
add_bytes("descriptor-with-64-bits", build(*descriptor(*_told, layout="<LQQ")))
add_bytes("descriptor-with-wrong-crc", build(*descriptor(1, *_told[1:])))
add_bytes("descriptor-with-wrong-sizes", build(*descriptor(_told[0], 1, 1)))
add_bytes("descriptor-missing", build(*descriptor()))

# Contents


def zeros(head: bytes, megabytes: int) -> tuple[bytes, int, int]:
    """(deflated, size, checksum) of a content that begins with `head` and goes on with zeros, quickly made."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    raw = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    block = bytes(1_000_000)
    repeated = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    crc = zlib.crc32(head)
    for _ in range(megabytes):
        crc = zlib.crc32(block, crc)
    return raw + repeated * megabytes + packer.flush(), len(head) + megabytes * len(block), crc


def swollen(name: str, megabytes: int, head: bytes = b"", **changed: Any) -> Member:
    raw, size, crc = zeros(head, megabytes)
    return Member(name.encode(), raw=raw, both={"size": size, "crc": crc, **changed})


def overlapping(count: int, kernel: int, method: int = STORED) -> bytes:
    """Fifield's bomb: each member's data is, quoted, the next one's header and data, so that all share one kernel."""
    content = bytes(kernel)
    members = [Member(b"python/%05d.bin" % count, content)]
    for number in reversed(range(count)):
        header, data = members[-1].local_header(), members[-1].packed
        content = header + content
        quoted = struct.pack("<BHH", 0, len(header), 0xFFFF ^ len(header)) + header + data
        told = {"size": len(content), "crc": zlib.crc32(content)}
        members.append(Member(b"python/%05d.bin" % number, raw=quoted, both=told))
    members.reverse()
    offsets = itertools.accumulate((len(member.local_header()) + 5 for member in members[:-1]), initial=0)
    data = members[0].local_header() + members[0].packed
    directory = b"".join(member.central_header(offset) for member, offset in zip(members, offsets, strict=True))
    return data + directory + directory_end(len(data), len(directory), len(members))


add_bytes("bomb-of-1-gb", lambda: build(*demo(), swollen("python/data.bin", 1000)), "zip-bomb size-unzipped")
add_bytes(
    "bomb-that-tells-10-bytes",
    lambda: build(*demo(), swollen("python/data.bin", 1000, size=10)),
    "zip-broken zip-checksum zip-bomb",
)
add_bytes(
    "bomb-of-many-members",
    lambda: build(*(swollen(f"python/{n}.bin", 5) for n in range(200))),
    "zip-bomb size-unzipped",
)
add_bytes("bomb-that-overlaps", lambda: overlapping(400, 2_000_000), "zip-bomb zip-broken")
add_bytes("bomb-that-overlaps-below-the-limit", lambda: overlapping(50, 100_000), "zip-bomb zip-broken")
FALSE_SIZES: dict[str, Mapping[str, Any]] = {
    "size-4-gb": {"size": HUGE},
    "size-larger": {"size": len(SOURCE) + 1},
    "size-smaller": {"size": len(SOURCE) - 1},
    "size-zero": {"size": 0},
    "compressed-smaller": {"compressed": 5},
    "compressed-zero": {"compressed": 0},
    "compressed-into-the-next": {"compressed": len(deflate(SOURCE)) + 10},
    "compressed-out-of-file": {"compressed": len(GOOD)},
    "compressed-4-gb": {"compressed": HUGE},
    "crc": {"crc": 0xDEADBEEF},
}
for _name, _changed in FALSE_SIZES.items():
    add_bytes(f"false-{_name}", build(*first(both=_changed)), "zip-broken zip-checksum zip-bomb")
FALSE_STORED_SIZES: dict[str, Mapping[str, Any]] = {
    "size-larger": {"size": len(SOURCE) + 1},
    "size-smaller": {"size": len(SOURCE) - 1},
    "compressed-smaller": {"compressed": len(SOURCE) - 1},
    "size-and-compressed": {"size": 20_000, "compressed": 20_000},
    "crc": {"crc": 0},
}
for _name, _changed in FALSE_STORED_SIZES.items():
    add_bytes(
        f"stored-with-false-{_name}", build(*first(method=STORED, both=_changed)), "zip-broken zip-checksum zip-bomb"
    )
for _name, _raw in {
    "noise": random.Random(2).randbytes(500),
    "ones": b"\xff" * 100,
    "cut": deflate(SOURCE)[:-3],
    "empty": b"",
    "never-ends": b"\x00\x00\x00\xff\xff" * 200_000,
    "more-behind": deflate(SOURCE) + b"more",
    "zlib-header": zlib.compress(SOURCE),
    "distance-too-far": b"\x03\x02\x00",
}.items():
    add_bytes(f"deflate-{_name}", build(*first(raw=_raw)), "zip-broken zip-checksum")
add_bytes("two-bytes-for-nothing", build(Member(b"python/a", raw=deflate(b"")), *demo()), CLEAN)


# Many members


def many(count: int, name: Callable[[int], bytes], **parts: Any) -> bytes:
    return build(*(Member(name(n), method=STORED) for n in range(count)), **parts)


add_bytes(
    "members-70000-with-zip64", lambda: many(70_000, b"python/%d".__mod__, end64={}, end=ALL_IN_64), "zip-zip64"
)
add_bytes("members-70000-without-zip64", lambda: many(70_000, b"python/%d".__mod__), "zip-broken zip-zip64 zip-bomb")
add_bytes("members-60000", lambda: many(60_000, b"python/demo/%d.py".__mod__), CLEAN)
add_bytes("members-60000-with-bad-names", lambda: many(60_000, b"../%d".__mod__), "zip-path")
add_bytes("members-60000-with-one-name", lambda: many(60_000, lambda _: b"python/a"), "zip-duplicate")


@hostile("zip-broken zip-zip64 zip-duplicate zip-bomb")
def directory_of_40_mb(path: Path) -> None:
    entry = Member(b"123456", method=STORED).central_header(0)
    entries = b"".join(entry[:-6] + b"%06d" % number for number in range(770_000))
    local = Member(b"000000", method=STORED).local_header()
    path.write_bytes(local + entries + directory_end(len(local), len(entries), 770_000))


@hostile("zip-broken zip-zip64 zip-bomb")
def directory_of_40_mb_with_long_extras(path: Path) -> None:
    members = (Member(b"python/%d" % n, method=STORED, central={"extra": bytes(60_000)}) for n in range(650))
    path.write_bytes(build(*members, end={"total": 3, "here": 3}))


# Names

LONG = 60_000
for _name, _path in {
    "parent": b"../canary/evil.py",
    "parent-inside": b"python/a/../../../canary/evil.py",
    "parent-that-stays": b"python/a/../b.py",
    "parent-at-the-end": b"python/..",
    "root": b"/",
    "two-slashes-first": b"//etc/evil",
    "backslash": b"python\\evil.py",
    "backslash-parent": b"..\\..\\evil.py",
    "drive": b"C:/evil.py",
    "drive-without-slash": b"C:evil.py",
    "share": b"\\\\host\\share\\evil.py",
    "nul": b"python/evil.py\0.txt",
    "newline": b"python/a\n" + FORGED.encode() + b".py",
    "carriage-return": b"python/a\r" + FORGED.encode() + b".py",
    "escape": b"python/\x1b[2J\x1b[31m\x07evil.py",
    "delete": b"python/a\x7f\x08\x08\x08b.py",
    "empty": b"",
    "dot": b".",
    "dot-first": b"./python/a.py",
    "dot-inside": b"python/./a.py",
    "two-slashes": b"python//a.py",
    "long-part": b"python/" + b"a" * 300 + b".py",
    "long": b"python/" + b"a" * LONG,
    "deep": b"a/" * (LONG // 2) + b"b",
}.items():
    add_bytes(f"name-{_name}", build(*demo(), Member(_path, b"x = 1\n")), "zip-path zip-broken zip-bomb")
add_bytes("name-c1-control", build(*demo(), Member("python/\x9b31mevil.py".encode(), b"x = 1\n")))
add_bytes("name-bidi", build(*demo(), Member("python/\u202eyp.live".encode(), b"x = 1\n")))
add_bytes("name-not-utf-8-as-told", build(*demo(), Member(b"python/\xff\xfe.py", b"x = 1\n")), "zip-path zip-broken")
add_bytes("name-surrogate", build(*demo(), Member(b"python/\xed\xa0\x80.py", b"x = 1\n")), "zip-path zip-broken")
add_bytes("name-not-utf-8", build(*demo(), Member(b"python/\xff\xfe.py", b"x = 1\n", both={"flags": 0})))
add_bytes("name-of-markup", build(*demo(), Member(b"python/[bold red]{0}%s%n::error::<script>.py", b"x = 1\n")))
add_bytes(
    "name-of-workflow-command", build(*demo(), Member(b"../a\n::stop-commands::x%0A,file=b", b"x = 1\n")), "zip-path"
)
add_bytes(
    "names-differ-in-case",
    build(*demo(), Member(b"python/Data.py", b"x = 1\n"), Member(b"python/data.py", b"x = 2\n")),
    "zip-case",
    fatal=False,
)
add_bytes(
    "names-differ-in-normal-form",
    build(*demo(), Member("python/\u00e9.py".encode(), b"x = 1\n"), Member("python/e\u0301.py".encode(), b"x = 2\n")),
)
add_bytes("name-twice", build(*demo(), Member(b"python/demo/__init__.py", b"x = 2\n")), "zip-duplicate")
add_bytes("name-twice-with-one-content", build(*demo(), Member(b"python/demo/__init__.py", SOURCE)), "zip-duplicate")
add_bytes(
    "name-twice-by-dot", build(*demo(), Member(b"python/demo/./__init__.py", b"x = 2\n")), "zip-path zip-duplicate"
)
for _name, _twins in {
    "file-then-folder": (Member(b"python/a", b"x"), Member(b"python/a/b.py", b"x")),
    "folder-then-file": (Member(b"python/a/b.py", b"x"), Member(b"python/a", b"x")),
    "folder-entry-and-file": (Member(b"python/a/", mode=FOLDER), Member(b"python/a", b"x")),
    "python-is-a-file": (Member(b"python", b"x"),),
}.items():
    add_bytes(_name, build(*demo(), *_twins), "zip-duplicate zip-path zip-broken")
add_bytes("folder-with-content", build(*demo(), Member(b"python/a/", b"x = 1\n", FOLDER)))
add_bytes("folder-by-name-file-by-mode", build(*demo(), Member(b"python/a/", mode=FILE)))
add_bytes("file-by-name-folder-by-mode", build(*demo(), Member(b"python/a", b"x", FOLDER)))
add_bytes("folders-1000-deep", build(*demo(), Member(b"python/" + b"a/" * 1000 + b"b.py", b"x = 1\n")))
add_bytes("many-deep-names", lambda: many(1000, lambda n: b"python/%d/" % n + b"a/" * 1900 + b"b"))


@hostile("zip-path")
def name_absolute(path: Path) -> None:
    path.write_bytes(build(*demo(), Member(beside(path) + b"/evil.py", b"x = 1\n")))


@hostile("zip-path zip-broken")
def name_other_in_unicode_field(path: Path) -> None:
    """Info-ZIP's field, which Python believes from 3.12 on."""
    name = b"python/plain.py"
    body = struct.pack("<BL", 1, zlib.crc32(name)) + b"../../canary/evil.py"
    extra = struct.pack("<HH", 0x7075, len(body)) + body
    path.write_bytes(build(*demo(), Member(name, b"x = 1\n", both={"extra": extra})))


# Links, devices and modes


def link(name: str, to: bytes) -> Member:
    return Member(name.encode(), to, LINK, STORED)


for _name, _links in {
    "absolute": (link("python/a.py", b"/etc/passwd"),),
    "parent": (link("python/a.py", b"../../etc/passwd"),),
    "parent-through-folder": (link("python/a.py", b"demo/../../../etc/passwd"),),
    "file-below": (link("python/a", b"../.."), Member(b"python/a/evil.py", b"x")),
    "file-below-inside": (link("python/a", b"demo"), Member(b"python/a/evil.py", b"x")),
    "below-link": (link("python/a", b"/tmp"), link("python/a/b", b"..")),
    "nul": (link("python/a.py", b"demo\0/../../etc"),),
    "empty": (link("python/a.py", b""),),
    "long": (link("python/a.py", b"a/" * 50_000),),
}.items():
    add_bytes(f"link-{_name}", build(*demo(), *_links), "zip-symlink zip-path zip-duplicate")
for _name, _links in {
    "to-itself": (link("python/a.py", b"a.py"),),
    "loop": (link("python/a.py", b"b.py"), link("python/b.py", b"a.py")),
}.items():
    add_bytes(f"link-{_name}", build(*demo(), *_links), "zip-symlink", fatal=False)
add_bytes("link-dangling", build(*demo(), link("python/a.py", b"nothing.py")), "zip-symlink", fatal=False)
add_bytes("link-within-opt", build(*demo(), link("python/a.py", b"/opt/python/demo/__init__.py")))
add_bytes("link-to-parent-folder", build(*demo(), link("python/demo/loop", b"..")))
add_bytes("link-not-utf-8", build(*demo(), link("python/a.py", b"\xff\xfe")))
add_bytes("link-escape", build(*demo(), link("python/a.py", b"../../\x1b[2J\n" + FORGED.encode())), "zip-symlink")
add_bytes("link-instead-of-python", build(link("python", b"lib"), Member(b"lib/demo.py", b"x = 1\n")))
add_bytes("link-instead-of-metadata", build(*demo(), link("python/two-1.0.dist-info", b"demo-1.0.dist-info")))
add_bytes(
    "links-that-double",
    build(
        *demo(), link("python/l0", b"."), *(link(f"python/l{n}", f"l{n - 1}/l{n - 1}".encode()) for n in range(1, 64))
    ),
)
add_bytes(
    "links-in-a-long-chain",
    lambda: build(*demo(), *(link(f"python/l{n}", f"l{n + 1}".encode()) for n in range(5000))),
    "zip-symlink",
    fatal=False,
)
add_bytes(
    "link-of-240-mb",
    lambda: build(*demo(), replace(swollen("python/a.py", 240), mode=LINK)),
    "zip-symlink size-unzipped zip-bomb",
)

for _name, _mode in {
    "fifo": 0o010644,
    "character-device": 0o020666,
    "block-device": 0o060644,
    "socket": 0o140644,
    "whiteout": 0o160644,
    "type-of-all-bits": 0o170644,
}.items():
    add_bytes(f"special-{_name}", build(*demo(), Member(b"python/special", b"", _mode)), "zip-special")
for _name, _mode in {"setuid": 0o104755, "setgid": 0o102755, "sticky": 0o101755}.items():
    add_bytes(f"mode-{_name}", build(*demo(), Member(b"bin/tool", b"#!/bin/sh\n", _mode)))
for _name, _mode in {"none": 0o100000, "owner-only": 0o100600}.items():
    add_bytes(
        f"mode-{_name}", build(*demo(), Member(b"python/x.py", b"x = 1\n", _mode)), "contents-mode", fatal=False
    )
add_bytes("mode-of-a-folder", build(*demo(), Member(b"python/x/", mode=0o040000)), "contents-mode", fatal=False)
add_bytes("mode-not-told", build(*demo(), Member(b"python/x.py", b"x = 1\n", 0)))
add_bytes(
    "made-by-dos", build(*demo(), Member(b"python/x.py", b"x = 1\n", central={"made_by": 20, "attributes": 0x20}))
)


# Libraries

DIGITS = b"9" * 5000  # more than Python makes a number of
HOSTILE_NEEDED = (
    b"/etc/evil",
    b"../../../../../etc/passwd",
    b"\x1b[2J\x07lib\xff\xfe.so.1\n",
    b"libc.so.6\n" + FORGED.encode(),
    "lib\u202e\x9b31m.so".encode(),
    b"::stop-commands::x",
    b"",
)
HOSTILE_STRINGS = b"".join(name.ljust(100, b"\0") for name in HOSTILE_NEEDED)

for _name, _content in {
    "magic-only": b"\x7fELF",
    "header-cut": elf()[:40],
    "program-headers-cut": elf()[:100],
    "unknown-class": elf(ident=b"\x7fELF\x07\x01\x01" + bytes(9)),
    "program-headers-out-of-file": elf(phoff=2**63),
    "dynamic-out-of-file": elf(segment={"offset": 2**40}),
}.items():
    add_bytes(f"elf-{_name}", library(_content), "binary-unreadable", fatal=False)
for _name, _content in {
    "dynamic-larger-than-file": elf(segment={"filesz": 2**40}),
    "strings-out-of-file": elf([(NEEDED, 1), (STRTAB, 2**40)], strings=b"libc.so.6\0"),
    "string-out-of-table": elf([(NEEDED, 2**40)], strings=b"libc.so.6\0"),
    "string-without-end": elf([(NEEDED, 1), (STRSZ, 5)], strings=b"libc.so.6\0"),
    "program-headers-65535": elf(phnum=0xFFFF),
    "program-header-size-zero": elf(phsize=0, phnum=0xFFFE),
    "sections-out-of-file": elf(shoff=2**62, shnum=0xFFFF),
    "section-size-zero": elf(shsize=0, shnum=0xFFFE),
    "section-names-out-of-file": elf(shstrndx=0xFFFE),
    "empty-dynamic": elf(segment={"filesz": 0}),
    "symbols-out-of-file": elf([(SYMTAB, 2**50), (HASH, ANY)], part=struct.pack("<LL", 1, 2**32 - 1)),
    "gnu-hash-absurd": elf([(SYMTAB, ANY), (GNU_HASH, ANY)], part=struct.pack("<LLLL", 2**32 - 1, 1, 2**32 - 1, 6)),
    "file-type-core": elf(type=4),
    "library-that-needs-itself": elf([(SONAME, 1), (NEEDED, 1)], strings=b"fast.cpython-312-x86_64-linux-gnu.so\0"),
    "hostile-needed": elf([(NEEDED, 1 + 100 * n) for n in range(len(HOSTILE_NEEDED))], strings=HOSTILE_STRINGS),
    "hostile-runpath": elf(
        [(NEEDED, 1), (RUNPATH, 11)], strings=b"libx.so.1\0$ORIGIN/../../../..:/proc/self/root:\x1b[2J::\0"
    ),
}.items():
    add_bytes(f"elf-{_name}", library(_content))
add_bytes("elf-of-arm64", library(elf(machine=183)), "binary-machine", fatal=False)
add_bytes("elf-of-sparc", library(elf(machine=43)), "binary-machine", fatal=False)
add_bytes(
    "elf-told-to-be-big-endian",
    library(elf(ident=b"\x7fELF\x02\x02\x01" + bytes(9))),
    "binary-unreadable",
    fatal=False,
)
add_bytes(
    "elf-told-to-be-of-32-bits",
    library(elf(ident=b"\x7fELF\x01\x01\x01" + bytes(9))),
    "binary-machine",
    fatal=False,
)


def versions(
    *, count: int, records: bytes, tag: int = VERNEED, version: bytes = b"GLIBC_2.34", **header: Any
) -> bytes:
    """A library that asks for (or, by `VERDEF`, has) versions of symbols."""
    entries = [(NEEDED, 1), (tag, ANY), (tag + 1, count)]
    strings = b"libc.so.6\0" + version + b"\0"
    kind = 0x6FFFFFFE if tag == VERNEED else 0x6FFFFFFD
    return library(elf(entries, strings=strings, part=records, part_type=kind, info=count & 0xFFFF_FFFF, **header))


def need(count: int, aux: int, following: int) -> bytes:
    return struct.pack("<HHLLL", 1, count, 1, aux, following)


def needed_version(name: int, following: int) -> bytes:
    return struct.pack("<LHHLL", 0, 0, 2, name, following)


add_bytes("verneed", versions(count=1, records=need(1, 16, 0) + needed_version(11, 0)), CLEAN)
add_bytes("verneed-without-next", versions(count=2**32 - 1, records=need(0xFFFF, 16, 0) + needed_version(11, 0)))
add_bytes("verneed-of-65535-aux", versions(count=1, records=need(0xFFFF, 16, 0) + needed_version(11, 0)))
add_bytes("verneed-that-overlaps", lambda: versions(count=100_000, records=need(0xFFFF, 16, 16) * 60_000))
add_bytes("verneed-by-single-bytes", lambda: versions(count=2**20, records=need(0xFFFF, 1, 1) * 60_000))
add_bytes(
    "verneed-next-out-of-file", versions(count=2, records=need(1, 16, 2**32 - 1) + needed_version(11, 2**32 - 1))
)
add_bytes("verneed-aux-out-of-file", versions(count=1, records=need(1, 2**32 - 1, 0)))
add_bytes("verneed-name-out-of-table", versions(count=1, records=need(1, 16, 0) + needed_version(2**32 - 1, 0)))
add_bytes("verneed-out-of-file", library(elf([(VERNEED, 2**62), (VERNEEDNUM, 1)])))
ONE = need(1, 16, 0) + needed_version(11, 0)
add_bytes("verneed-of-5000-digits", versions(count=1, records=ONE, version=b"GLIBC_2." + DIGITS), "binary-glibc")
add_bytes("verneed-of-no-number", versions(count=1, records=ONE, version=b"GLIBC_2.x\x1b[2J.\xff"))
add_bytes("verneed-of-a-newer-glibc", versions(count=1, records=ONE, version=b"GLIBC_2.99"), "binary-glibc")
# The loader reads segments: sections may be missing, or say what they like.
add_bytes(
    "verneed-without-sections",
    versions(count=1, records=ONE, version=b"GLIBC_2.99", shoff=0, shnum=0),
    "binary-glibc",
)
add_bytes(
    "verdef-that-overlaps",
    lambda: versions(tag=VERDEF, count=100_000, records=struct.pack("<4H3L", 1, 0, 2, 0xFFFF, 0, 20, 20) * 60_000),
)
add_bytes("elf-needs-5-mb", lambda: library(elf([(NEEDED, 1)], strings=b"x" * 5_000_000)))


@hostile()
def elf_needs_one_long_name_100000_times(path: Path) -> None:
    part = struct.pack("<QQ", NEEDED, 1) * 100_000 + struct.pack(
        "<QQQQQQ", STRTAB, ANY + 1_600_048, STRSZ, 100_002, 0, 0
    )
    place = {"offset": ANY, "vaddr": ANY, "filesz": len(part), "memsz": len(part)}
    path.write_bytes(library(elf(part=part, strings=b"x" * 100_000 + b"\0", segment=place)))


@hostile()
def elf_needs_2000_in_100000_folders(path: Path) -> None:
    names = b"".join(b"lib%04d.so\0" % number for number in range(2000))
    folders = b":".join(b"$ORIGIN/%d" % number for number in range(100_000)) + b"\0"
    entries = [(NEEDED, 1 + 11 * number) for number in range(2000)] + [(RUNPATH, 1 + len(names))]
    table = b"".join(struct.pack("<QQ", *entry) for entry in entries)
    table += struct.pack("<QQQQQQ", STRTAB, ANY + len(table) + 48, STRSZ, 1 + len(names + folders), 0, 0)
    place = {"offset": ANY, "vaddr": ANY, "filesz": len(table), "memsz": len(table)}
    path.write_bytes(library(elf(part=table, strings=names + folders, segment=place)))


def sparse_library(megabytes: int, *, at_its_end: bool) -> bytes:
    size = megabytes * 1_000_000
    place = {"offset": size - 9000, "vaddr": size - 9000, "filesz": 9000}
    far: dict[str, Any] = {"segment": place, "shoff": size - 2_000_000, "shnum": 0xFF00} if at_its_end else {}
    head = elf([(NEEDED, 1)], strings=b"libc.so.6\0", **far)
    return build(*demo(), swollen(f"python/{LIBRARY}", megabytes, head))


# What unpacks to absurdly much may be refused unseen; what is just small enough is looked into.
add_bytes("elf-of-200-mb-of-zeros", lambda: sparse_library(200, at_its_end=False))
add_bytes("elf-of-95-mb-of-zeros", lambda: sparse_library(95, at_its_end=False))
add_bytes("elf-of-95-mb-with-all-at-its-end", lambda: sparse_library(95, at_its_end=True))
add_bytes("elf-24-mb-four-times", lambda: build(*(swollen(f"python/{n}.so", 23, elf()) for n in range(4))))


@hostile("binary-unreadable", fatal=False)
def elf_mutants(path: Path) -> None:
    """A library of which one field after the other is spoiled."""
    part = need(1, 16, 0) + needed_version(11, 0)
    good = elf(
        [(NEEDED, 1), (VERNEED, ANY), (VERNEEDNUM, 1)],
        strings=b"libc.so.6\0GLIBC_2.34\0",
        part=part,
        part_type=0x6FFFFFFE,
        info=1,
    )
    spoiled = {
        good[:place] + value + good[place + len(value) :]
        for place in range(0, len(good) - 3, 4)
        if any(good[place : place + 4]) or place < DYNAMIC
        for value in (bytes(4), b"\xff" * 4, b"\xff\xff\xff\x7f", b"\1", b"\xff\xff")
    }
    members = (Member(b"python/demo/%04d.so" % number, content) for number, content in enumerate(sorted(spoiled)))
    path.write_bytes(build(*demo(), *members))


@hostile()
def elf_chain_of_2000(path: Path) -> None:
    contents = (
        (n, elf([(SONAME, 1), (NEEDED, 17)], strings=b"libn%08d.so\0libn%08d.so\0" % (n, n + 1))) for n in range(2000)
    )
    path.write_bytes(build(*demo(), *(Member(b"lib/libn%08d.so" % n, content, 0o100755) for n, content in contents)))


@hostile()
def elf_circle(path: Path) -> None:
    one = elf([(SONAME, 1), (NEEDED, 11)], strings=b"liba.so.1\0libb.so.1\0")
    two = elf([(SONAME, 1), (NEEDED, 11)], strings=b"libb.so.1\0liba.so.1\0")
    path.write_bytes(build(*demo(), Member(b"lib/liba.so.1", one), Member(b"lib/libb.so.1", two)))


# What packages say about themselves

for _name, _metadata in {
    "empty": b"",
    "not-utf-8": METADATA + b"Summary: \xff\xfe\x80\n",
    "without-name": b"Metadata-Version: 2.1\nVersion: 1.0\n",
    "without-version": b"Metadata-Version: 2.1\nName: demo\n",
    "of-another-name": METADATA.replace(b"demo", b"other"),
    "invalid-name": METADATA.replace(b"demo", b"../../\x1b[2Jdemo"),
    "name-with-escape": METADATA.replace(b"demo", b"de\x1b[31mmo\x9b\x07"),
    "name-folded": METADATA.replace(b"demo", b"demo\n " + FORGED.encode()),
    "long-name": long(b"d", 1_000_000, head=b"Metadata-Version: 2.1\nName: ", tail=b"\nVersion: 1.0\n"),
    "invalid-version": METADATA.replace(b"1.0", b"not a version \x1b[2J"),
    "version-of-5000-digits": METADATA.replace(b"1.0", DIGITS),
    "invalid-requirement": METADATA
    + b"Requires-Dist: !!! ;;; [[[\nRequires-Dist:\nRequires-Dist: a @ file:///etc/passwd\n",
    "requirement-with-escape": METADATA + b"Requires-Dist: \x1b[2J\x1b]0;title\x07\n",
    "nested-marker": METADATA + b"Requires-Dist: a; " + b"(" * 20_000 + b"os_name == 'x'" + b")" * 20_000 + b"\n",
    "long-marker": METADATA + b"Requires-Dist: a; os_name == 'x'" + b" or os_name == 'y'" * 20_000 + b"\n",
    "digits-in-marker": METADATA + b"Requires-Dist: a>=" + DIGITS + b"; python_version < '" + DIGITS + b"'\n",
    "many-specifiers": METADATA + b"Requires-Dist: demo" + b",".join(b"!=%d" % n for n in range(20_000)) + b"\n",
    "digits-in-requires-python": METADATA + b"Requires-Python: >=" + DIGITS + b", garbage\n",
    "many-headers": long(b"X: y\n", 500_000, head=METADATA),
    "one-long-line": long(b"x", 7_000_000, head=METADATA + b"Summary: "),
    "nul": METADATA + b"Summary: a\0b\n\0\0\0",
}.items():
    add_bytes(f"metadata-{_name}", lazily(lambda metadata: build(*demo(metadata=metadata)), _metadata))


@hostile()
def dist_infos_3000_and_files_40000(path: Path) -> None:
    infos = (Member(b"python/p%d-1.dist-info/METADATA" % n, b"Name: p%d\nVersion: 1\n" % n) for n in range(3000))
    path.write_bytes(build(*infos, *(Member(b"python/data/%d" % n, b"x", method=STORED) for n in range(40_000))))


@hostile()
def metadata_with_100000_requirements(path: Path) -> None:
    lines = b"".join(b"Requires-Dist: package-%d>=1.0; python_version >= '3.8'\n" % n for n in range(100_000))
    path.write_bytes(build(*demo(metadata=METADATA + lines)))


def swollen_info(name: str, head: bytes) -> bytes:
    members = [member for member in demo() if not member.name.endswith(name.encode())]
    return build(*members, swollen(f"{INFO}/{name}", 95, head))


add_bytes("metadata-of-95-mb", lambda: swollen_info("METADATA", METADATA))
add_bytes("record-of-95-mb", lambda: swollen_info("RECORD", b"demo/__init__.py,,\n"))
add_bytes("wheel-of-95-mb", lambda: swollen_info("WHEEL", WHEEL))


for _name, _record in {
    "empty": b"",
    "out-of-tree": b"../../../../etc/passwd,,\n/etc/shadow,sha256=x,1\n..\\..\\a,,\n,,\n",
    "quote-unclosed": b'"demo/__init__.py,sha256=x,1\n' * 1000,
    "not-utf-8": b"demo/\xff\xfe.py,,\n",
    "nul": b"demo/\0.py,,\n",
    "escape": b"demo/\x1b[2J.py,sha256=\x1b[31m,\x07\n",
    "false-sizes": b"demo/__init__.py,sha256=AAAA,-1\ndemo/__init__.py,," + DIGITS + b"\ndemo/__init__.py,,x\n",
    "unknown-hash": b"demo/__init__.py,md5=x,1\ndemo/__init__.py,shake_256=,\ndemo/__init__.py,=,\n",
    "columns": b"demo/__init__.py\n" + b"," * 50_000 + b"\n",
    "one-line-of-10-mb": long(b"x", 10_000_000, head=b"demo/", tail=b".py,,\n"),
    "one-line-of-7-mb": long(b"x", 7_000_000, head=b"demo/", tail=b".py,,\n"),
    "many-lines": long(b"demo/__init__.py,,\n", 200_000),
    "carriage-returns": b"demo/__init__.py,,\r" * 1000,
}.items():
    add_bytes(f"record-{_name}", lazily(lambda record: build(*demo(record=record)), _record))

# Files of a package

CACHED = "demo/__pycache__/__init__.cpython-312.pyc"
PACKAGES: dict[str, Mapping[str, Lazy]] = {
    "bytecode-empty": {CACHED: b""},
    "bytecode-short": {CACHED: b"\xcb\r\r"},
    "bytecode-header-cut": {CACHED: b"\xcb\r\r\n" + bytes(11)},
    "bytecode-of-another-python": {CACHED: b"\x00\x00\r\n" + bytes(12) + b"N"},
    "bytecode-flags": {CACHED: b"\xcb\r\r\n\xff\xff\xff\xff" + bytes(8)},
    "bytecode-nested": {CACHED: b"\xcb\r\r\n\x01" + bytes(11) + b"\xa9\x01" * 100_000},
    "bytecode-name": {"demo/__pycache__/a.cpython-" + "9" * 200 + ".opt-9.pyc": b"", "demo/__pycache__/.pyc": b""},
    "pth-that-runs": {"evil.pth": b"import os; os.mkdir('ran-it')\n/etc\n../..\n\x1b[2J\n"},
    "pth-of-noise": {"evil.pth": random.Random(3).randbytes(10_000) + b"\0\xff"},
    "pth-of-one-long-line": {"evil.pth": long(b"x", 3_000_000, head=b"import ")},
    "source-nested": {"demo/a.py": b"(" * 100_000 + b")" * 100_000},
    "source-nested-less": {"demo/a.py": b"import a\n" + b"x = " + b"-" * 5000 + b"1\n" + b"(" * 150 + b")" * 150},
    "source-of-one-name": {"demo/a.py": long(b"x", 3_000_000)},
    "source-with-nul": {"demo/a.py": b"import os\0\n"},
    "source-with-false-encoding": {"demo/a.py": b"# -*- coding: no-such-\x1b[2J -*-\nimport os\n\xff"},
    "source-digits": {"demo/a.py": b"x = " + DIGITS + b"\n"},
    "source-imports-escapes": {
        "demo/a.py": "import \u00e9vil\nfrom .. import *\nfrom .......... import a\n".encode()
    },
    "entry-points": {
        "demo-1.0.dist-info/entry_points.txt": b"[console_scripts]\n[console_scripts]\n\xff = ../../x:\x1b\n"
    },
    "top-level": {"demo-1.0.dist-info/top_level.txt": b"../../etc\n\x1b[2J\n\0\n/\n" + b"x" * 100_000},
    "direct-url": {"demo-1.0.dist-info/direct_url.json": b"[" * 200_000},
    "wheel-file": {
        "demo-1.0.dist-info/WHEEL": b"Tag: " + b"-".join([b".".join([b"a"] * 300)] * 3) + b"\nTag: \xff\n"
    },
    "library-name": {
        "demo/a.cpython-" + "9" * 200 + "-x86_64-linux-gnu.so": elf(),
        "demo/.so": elf(),
        ".so.so.": b"",
    },
    "two-dist-infos": {
        "demo-1.0.dist-info/x/METADATA": METADATA,
        ".dist-info/METADATA": b"",
        "-.dist-info/METADATA": b"",
    },
    "dist-info-version": {"demo-" + "9" * 200 + ".dist-info/METADATA": METADATA},
    "dist-info-escape": {"de\x1b[2Jmo-2.dist-info/METADATA": METADATA},
}
for _name, _files in PACKAGES.items():
    _build = functools.partial(lambda files: build(*demo(files)), _files)
    add_bytes(_name, _build if any(map(callable, _files.values())) else _build())
for _name, _member in {
    "tool-with-hostile-interpreter": Member(b"bin/tool", b"#!/usr/bin/\x1b[2J\x07env \xff\r\n", 0o100755),
    "tool-of-two-bytes": Member(b"bin/tool", b"#!", 0o100755),
    "bootstrap-of-noise": Member(b"bootstrap", random.Random(4).randbytes(1000)),
    "extension-of-nothing": Member(b"extensions/evil\xc2\x9b", b"", 0o100755),
    "python-of-a-silly-version": Member(b"python/lib/python3.999999999999/site-packages/a.py", b"x = 1\n"),
    "python-of-200-digits": Member(b"python/lib/python3." + b"9" * 200 + b"/site-packages/a.py", b"x = 1\n"),
    "python-of-strange-digits": Member("python/lib/python3.\u0661\u00b2/site-packages/a.py".encode(), b"x = 1\n"),
    "python-without-version": Member(b"python/lib/python3./site-packages/a.py", b"x = 1\n"),
}.items():
    add_bytes(_name, build(*demo(), _member))
add_bytes(
    "tool-of-5-mb-without-newline",
    lambda: build(*demo(), Member(b"bin/tool", b"#!" + b"x" * 5_000_000, 0o100755)),
)


# What lies beside the archive


def with_manifest(manifest: Lazy) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.write_bytes(GOOD)
        path.with_suffix(".json").write_bytes(made(manifest))

    return make


LIES = {
    "version": 1,
    "recipe": "../../\x1b[2J",
    "target": TARGET,
    "runtimes": ["python3.99"],
    "archive": "/etc/passwd",
    "code_sha256": "A" * 43 + "=",
    "zipped": -1,
    "unzipped": 10**30,
    "distributions": [{"name": "demo", "version": None}, None, 3],
    "digest": "sha256:" + "0" * 64,
}
add("manifest-that-lies", with_manifest(json.dumps(LIES).encode()))
add("manifest-nested", with_manifest(long(b"[", 500_000)))
add("manifest-nested-in-digest", with_manifest(b'{"version": 1, "digest": ' + b'{"a":' * 900 + b"1" + b"}" * 901))
add("manifest-of-digits", with_manifest(b'{"version": ' + DIGITS + b"}"))
add("manifest-empty", with_manifest(b""))


@hostile()
def manifest_is_a_fifo(path: Path) -> None:
    path.write_bytes(GOOD)
    os.mkfifo(path.with_suffix(".json"))


# Files that are no archives at all


@hostile("zip-broken layer-not-found", fatal=True)
def input_is_a_fifo(path: Path) -> None:
    os.mkfifo(path)


@hostile("zip-broken layer-not-found", fatal=True)
def input_is_a_socket(path: Path) -> None:
    os.mknod(path, stat.S_IFSOCK | 0o644)


@hostile("zip-broken layer-not-found", fatal=True)
def input_of_zeros_without_end(path: Path) -> None:
    path.symlink_to("/dev/zero")


@hostile("zip-broken layer-not-found", fatal=True)
def input_that_links_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


# Folders


def good_folder(path: Path) -> Path:
    for member in demo():
        file = path / member.name.decode()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(member.content)
        file.chmod(0o644)
    return path / "python"


@hostile(CLEAN, folder=True)
def folder_good(path: Path) -> None:
    good_folder(path)


@hostile("size-empty", folder=True)
def folder_empty(path: Path) -> None:
    path.mkdir()


@hostile("zip-symlink", fatal=False, folder=True)
def folder_with_link_loops(path: Path) -> None:
    python = good_folder(path)
    (python / "loop").symlink_to("loop")
    (python / "one").symlink_to("two")
    (python / "two").symlink_to("one")


@hostile(folder=True)
def folder_with_link_to_parent(path: Path) -> None:
    (good_folder(path) / "demo/up").symlink_to("..")


@hostile("zip-symlink", folder=True)
def folder_with_links_out(path: Path) -> None:
    python = good_folder(path)
    (python / "root").symlink_to("/")
    (python / "secret.py").symlink_to(path.parents[1] / "canary/secret.py")
    (python / "secret-1.0.dist-info").symlink_to("../../../canary/secret-1.0.dist-info")
    (path / "bin").symlink_to("/proc/self")


@hostile("zip-special", folder=True)
def folder_with_fifo(path: Path) -> None:
    os.mkfifo(good_folder(path) / "demo/pipe.py")


@hostile("zip-special", folder=True)
def folder_with_fifo_as_metadata(path: Path) -> None:
    info = good_folder(path) / "demo-1.0.dist-info"
    (info / "METADATA").unlink()
    os.mkfifo(info / "METADATA")


@hostile("zip-special", folder=True)
def folder_with_socket(path: Path) -> None:
    os.mknod(good_folder(path) / "demo/socket.so", stat.S_IFSOCK | 0o644)


@hostile("contents-mode not-permitted", fatal=False, folder=True)
def folder_with_unreadable_file(path: Path) -> None:
    (good_folder(path) / "demo/__init__.py").chmod(0)


@hostile("contents-mode not-permitted", fatal=False, folder=True)
def folder_with_unreadable_folder(path: Path) -> None:
    (good_folder(path) / "demo").chmod(0)


@hostile("zip-path", folder=True)
def folder_with_control_characters(path: Path) -> None:
    python = good_folder(path)
    (python / f"a\n{FORGED}").write_text("x = 1\n")
    (python / "b\x1b[2J\x07\x7f.py").write_text("x = 1\n")
    (python / "c\\d.py").write_text("x = 1\n")


@hostile("zip-path zip-broken", folder=True)
def folder_with_undecodable_names(path: Path) -> None:
    python = good_folder(path)
    try:
        Path(os.fsdecode(os.fsencode(python) + b"/\xff\xfe.py")).write_text("x = 1\n")
        Path(os.fsdecode(os.fsencode(python) + b"/\xed\xa0\x80")).mkdir()
        (python / "link.py").symlink_to(os.fsdecode(b"\xff"))
    except OSError:
        pytest.skip("this file system knows no such names")


@hostile(folder=True)
def folder_deeper_than_a_path(path: Path) -> None:
    python = good_folder(path)
    here = os.open(python, os.O_RDONLY)
    for _ in range(40):
        os.mkdir("d" * 200, dir_fd=here)
        inner = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)


@hostile(folder=True)
def folder_1500_deep(path: Path) -> None:
    here = good_folder(path)
    for _ in range(1500):
        here /= "d"
        here.mkdir()


@hostile("size-unzipped", folder=True)
def folder_with_sparse_file(path: Path) -> None:
    with (good_folder(path) / "data.bin").open("wb") as file:
        file.truncate(1_000_000_000)


@hostile("size-unzipped", folder=True)
def folder_with_sparse_library_and_metadata(path: Path) -> None:
    python = good_folder(path)
    for name in (LIBRARY, "demo-1.0.dist-info/METADATA", "demo-1.0.dist-info/RECORD", "demo/big.py", "big.pth"):
        with (python / name).open("ab") as file:
            if name == LIBRARY:
                file.write(elf([(NEEDED, 1)], strings=b"libc.so.6\0"))
            file.truncate(400_000_000)


# The program as a process

# Beside the process that is measured stands a small one that starts it: the peak of a process begins with that of
# the one that it came from, which here would be all of pytest. Data beyond 4 GB is refused, for the machine's sake.
MEASURE = """\
import json, os, resource, signal, sys
resource.setrlimit(resource.RLIMIT_DATA, (4 << 30, 4 << 30))
pid = os.posix_spawn(sys.argv[3], sys.argv[3:], os.environ)
signal.signal(signal.SIGALRM, lambda *_: os.kill(pid, signal.SIGKILL))
signal.alarm(int(sys.argv[2]))
_, status, used = os.wait4(pid, 0)
unit = 1 if sys.platform == "darwin" else 1024
with open(sys.argv[1], "w") as file:
    json.dump([os.waitstatus_to_exitcode(status), used.ru_maxrss * unit, used.ru_utime + used.ru_stime], file)
"""


@dataclass(frozen=True)
class Ended:
    """How the program ended, what it printed, and what it took."""

    code: int
    peak: int
    seconds: float
    out: str
    err: str


@dataclass(frozen=True)
class Room:
    """Folders of one run: what is checked lies in `input`, and everything but the cache must stay as it was."""

    root: Path

    def make(self, case: Case, place: str = "input") -> Path:
        path = self.root / place / ("hostile" if case.folder else "hostile.zip")
        path.parent.mkdir(exist_ok=True)
        case.make(path)
        return path

    def good(self) -> Path:
        path = self.root / "input" / "good.zip"
        path.write_bytes(GOOD)
        return path

    def tree(self) -> dict[bytes, tuple[int, int, int]]:
        """Mode, size and time of all there is, but for the cache. In TMPDIR, files may have come and gone."""
        found = {}
        folders = [os.fsencode(self.root)]
        while folders:
            # A path may be too long to be told, and a folder closed.
            with contextlib.suppress(OSError), os.scandir(folders.pop()) as children:
                for child in children:
                    state = child.stat(follow_symlinks=False)
                    found[child.path] = (
                        state.st_mode,
                        state.st_size,
                        0 if child.name == b"tmp" else state.st_mtime_ns,
                    )
                    if stat.S_ISDIR(state.st_mode) and child.name != b"cache":
                        folders.append(child.path)
        for name in ("cache", "used.json"):
            found.pop(os.fsencode(self.root / name), None)
        return found

    def run(self, *arguments: str | bytes | Path) -> Ended:
        used = self.root / "used.json"
        environment = {
            **os.environ,
            "LAYERBUILD_CACHE_DIR": str(self.root / "cache"),
            "HOME": str(self.root / "home"),
            "TMPDIR": str(self.root / "tmp"),
            "LC_ALL": "C.UTF-8",
        }
        environment.pop("COVERAGE_PROCESS_CONFIG", None)  # what is measured is the program, not what watches it
        before = self.tree()
        done = subprocess.run(
            [sys.executable, "-ISc", MEASURE, used, str(HANGS), sys.executable, "-m", "layerbuild", *arguments],
            cwd=self.root / "work",
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )
        assert sorted({path for path, _ in self.tree().items() ^ before.items()}) == []
        code, peak, seconds = json.loads(used.read_bytes())
        ended = Ended(code, peak, seconds, done.stdout.decode(), done.stderr.decode())
        check_end(ended)
        return ended


def furnished(root: Path) -> Room:
    for name in ("input", "work", "canary", "home", "tmp", "cache"):
        (root / name).mkdir()
    (root / "canary/secret.py").write_text(f"import {SECRET.replace('-', '_')}  # {SECRET}\n")
    info = root / "canary/secret-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {SECRET}\nVersion: 1.0\n")
    return Room(root)


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    yield furnished(tmp_path)
    # Folders that nobody may enter, or that are deeper than Python can follow.
    subprocess.run(["chmod", "-R", "u+rwx", tmp_path / "input"])
    subprocess.run(["rm", "-rf", tmp_path / "input"], check=True)


Findings = list[dict[str, Any]]


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Case], Findings | None]:
    """The findings of a case that was checked in one run with others; None where that run did not end well."""
    small = [case for case in CASES.values() if case.small]
    known: dict[str, Findings | None] = {}

    def call(case: Case) -> Findings | None:
        if case.name not in known:
            start = small.index(case) // TOGETHER * TOGETHER
            batch = small[start : start + TOGETHER]
            known.update(dict.fromkeys((one.name for one in batch), None))
            room = furnished(tmp_path_factory.mktemp("together"))
            paths = {str(room.make(one, f"in-{one.name}")): one.name for one in batch}
            with contextlib.suppress(AssertionError):
                ended = room.run("check", *paths, "--target", TARGET, "--json")
                findings(ended)
                if ended.code in (0, 1):
                    known.update({paths[one["layer"]]: one["findings"] for one in json.loads(ended.out)["layers"]})
        return known[case.name]

    return call


BIDI = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def raw_controls(text: str) -> set[str]:
    return {repr(sign) for sign in set(text) if sign != "\n" and (unicodedata.category(sign) == "Cc" or sign in BIDI)}


def check_end(ended: Ended) -> None:
    """What holds of every run, whatever it was given."""
    told = (
        f"exit {ended.code}, {ended.seconds:.1f} s, {ended.peak / 1e6:.0f} MB\n{ended.out[:2000]}\n{ended.err[:2000]}"
    )
    assert ended.code in KNOWN_ENDS, told
    assert "Traceback" not in ended.err, told
    assert "internal-error" not in ended.out + ended.err, told
    assert ended.seconds < SECONDS, told
    assert ended.peak < PEAK, told
    assert len(ended.out) + len(ended.err) < OUTPUT, told
    assert raw_controls(ended.out + ended.err) == set(), told
    assert SECRET not in ended.out + ended.err, told
    assert not any(line.startswith((FORGED, "::stop-commands")) for line in (ended.out + ended.err).split("\n")), told
    if ended.code > 1:
        assert "error: " in ended.err, told


def findings(ended: Ended) -> Findings:
    """All findings of a JSON document, or its one error as if it were one."""
    document = json.loads(ended.out)
    if "error" in document:
        assert document["error"]["exit_code"] == ended.code
        return [{"severity": "error", **document["error"]}]
    found = [one for part in (*document["layers"], *document["stacks"]) for one in part["findings"]]
    errors = [one for one in found if one["severity"] == "error" and not one.get("accepted")]
    assert document["errors"] == len(errors)
    assert ended.code == (1 if errors else 0)
    return found


def check_verdict(case: Case, found: Sequence[Mapping[str, Any]]) -> None:
    codes = sorted({one["code"] for one in found})
    errors = sorted({one["code"] for one in found if one["severity"] == "error"})
    if case.codes == (CLEAN,):
        assert errors == []
        assert not [code for code in codes if code.startswith(("zip-", "binary-unreadable"))], codes
    elif case.codes:
        assert set(case.codes) & set(errors if case.fatal else codes), f"{case.codes} is not in {codes}"


def given(names: Sequence[str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", [CASES[name] for name in names], ids=names)


@given(list(CASES))
def test_check_tells_what_is_wrong_soon_and_small(
    case: Case,
    room: Room,
    together: Callable[[Case], Findings | None],
    record_property: Callable[[str, object], None],
) -> None:
    found = together(case) if case.small else None
    if found is None:
        ended = room.run("check", room.make(case), "--target", TARGET, "--json")
        record_property("seconds", ended.seconds)
        record_property("peak", ended.peak)
        found = findings(ended)
    check_verdict(case, found)


TOLD = """
good text cut-in-data name-newline name-escape name-c1-control name-bidi name-nul name-carriage-return link-escape
name-of-markup elf-hostile-needed elf-hostile-runpath metadata-name-with-escape metadata-invalid-name
metadata-name-folded metadata-requirement-with-escape metadata-invalid-version record-escape dist-info-escape
tool-with-hostile-interpreter extension-of-nothing pth-that-runs members-60000-with-bad-names
folder-with-control-characters folder-with-undecodable-names elf-needs-one-long-name-100000-times
""".split()


@given(TOLD)
def test_text_for_people_has_no_control_characters(case: Case, room: Room) -> None:
    ended = room.run("check", room.make(case), "--target", TARGET)
    assert ended.out
    if case.codes == (CLEAN,):
        assert ended.code == 0
    elif case.fatal:
        assert ended.code != 0


@pytest.mark.parametrize("form", ["github", "sarif"])
@given(["name-newline", "name-escape", "name-of-workflow-command", "folder-with-undecodable-names", "text"])
def test_other_formats_have_no_control_characters(case: Case, form: str, room: Room) -> None:
    ended = room.run("check", room.make(case), "--target", TARGET, "--format", form)
    assert ended.code in (1, 2, 3, 4)
    if form == "sarif":
        json.loads(ended.out)


UNTARGETED = """
good good-with-library elf-of-arm64 elf-mutants library-name python-of-a-silly-version python-of-200-digits
python-of-strange-digits python-without-version manifest-that-lies manifest-nested manifest-nested-in-digest
manifest-of-digits manifest-is-a-fifo folder-with-fifo folder-with-undecodable-names
""".split()


@given(UNTARGETED)
def test_what_a_layer_says_of_its_target_is_not_believed(case: Case, room: Room) -> None:
    findings(room.run("check", room.make(case), "--json"))


STACKED = """
empty-file text cut-in-directory encrypted bomb-that-overlaps false-crc name-parent name-escape file-then-folder
link-loop special-fifo elf-dynamic-out-of-file metadata-version-of-5000-digits metadata-nested-marker
record-out-of-tree python-of-a-silly-version manifest-is-a-fifo folder-with-fifo folder-with-links-out
folder-with-control-characters links-that-double members-60000 members-60000-with-bad-names many-deep-names
""".split()


@given(STACKED)
def test_a_stack_with_one_that_is_hostile_ends_as_well(case: Case, room: Room) -> None:
    ended = room.run("stack", room.good(), room.make(case), "--target", TARGET, "--json")
    assert isinstance(json.loads(ended.out), dict)
    if case.fatal:
        assert ended.code != 0


@given("text encrypted bomb-that-overlaps name-parent special-fifo input-is-a-fifo folder-with-fifo".split())
def test_a_hostile_function_is_refused(case: Case, room: Room) -> None:
    ended = room.run("stack", room.good(), "--function", room.make(case), "--target", TARGET, "--json")
    assert isinstance(json.loads(ended.out), dict)
    assert ended.code != 0


MERGED = """
text cut-in-directory encrypted false-crc false-size-4-gb name-parent name-newline name-dot name-twice link-absolute
link-file-below special-fifo file-then-folder folder-with-links-out
""".split()


@given(MERGED)
def test_nothing_is_merged_with_a_hostile_layer(case: Case, room: Room) -> None:
    ended = room.run("stack", room.good(), room.make(case), "--target", TARGET, "--merge", "merged.zip", "--json")
    assert ended.code != 0


@pytest.mark.parametrize("exists", [False, True], ids=["absent", "present"])
@pytest.mark.parametrize(
    "name", [b"a\n" + FORGED.encode(), b"\x1b[2J\x07", b"\xff\xfe", b"--help\x9b", b"[red]{0}%s"]
)
def test_a_hostile_name_of_the_layer_itself(name: bytes, exists: bool, room: Room) -> None:
    path = os.fsencode(room.root / "input") + b"/" + name + b".zip"
    if exists:
        Path(os.fsdecode(path)).write_bytes(GOOD)
    for options in ([], ["--json"]):
        ended = room.run("check", path, "--target", TARGET, *options)
        assert (ended.code == 0) is exists
        assert not options or isinstance(json.loads(ended.out), dict)


MUTANTS = build(
    Member(b"python/stored.py", b"x = 1\n", method=STORED),
    Member("python/gr\u00f6\u00dfe.py".encode(), b"y = 2\n" * 20),
    link("python/link.py", b"stored.py"),
    *descriptor(*_told),
)


def read_content(path: Path) -> set[tuple[str, str]] | None:
    """The paths and hashes in an archive; None when it is found to be spoiled."""
    from layerbuild.tree import read_zip

    tree = read_zip(path, path.name)
    return None if tree.problems else {(entry.path, entry.sha256) for entry in tree.entries.values()}


def test_an_archive_cut_anywhere_is_never_taken_for_whole(tmp_path: Path) -> None:
    path = tmp_path / "cut.zip"
    for size in range(len(MUTANTS)):
        path.write_bytes(MUTANTS[:size])
        assert read_content(path) is None, size


@pytest.mark.parametrize("mask", [0x01, 0x08, 0x80, 0xFF])
def test_no_flipped_bit_changes_the_content_unnoticed(tmp_path: Path, mask: int) -> None:
    path = tmp_path / "flipped.zip"
    path.write_bytes(MUTANTS)
    contents = read_content(path)
    assert contents
    noticed = 0
    for position in range(len(MUTANTS)):
        flipped = bytearray(MUTANTS)
        flipped[position] ^= mask
        path.write_bytes(flipped)
        found = read_content(path)
        assert found in (None, contents), f"byte {position}"
        noticed += found is None
    assert noticed > len(MUTANTS) // 2
