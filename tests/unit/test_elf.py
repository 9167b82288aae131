"""What is read off real ELF files, and off files that only look like ones."""

from __future__ import annotations

import io
import json
import struct
import time
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layerbuild import elf as elf_module
from layerbuild.content import Content
from layerbuild.elf import read_elf
from layerbuild.tree import read_zip
from tests import elf_files
from tests.elf_files import compiled, library, program


def facts(data: bytes) -> dict[str, Any]:
    """By way of JSON, as caches keep them."""
    read = read_elf(io.BytesIO(data))
    assert json.loads(json.dumps(read)) == read
    return read


def facts_of(path: str, *chunks: bytes) -> dict[str, Any]:
    content = Content(path)
    for chunk in chunks:
        content.feed(chunk)
    return content.facts()


def rich() -> bytes:
    """A library with something of everything."""
    return library(
        "libdemo.so.1",
        needed=("libone.so", "/opt/two.so"),
        needs={"libc.so.6": ("GLIBC_2.17", "GLIBC_2.4"), "libstdc++.so.6": ("GLIBCXX_3.4.21",)},
        defines=("DEMO_1.0", "DEMO_2.0"),
        rpath="$ORIGIN:/opt/lib",
        runpath="$ORIGIN/../demo.libs",
    )


RICH: dict[str, Any] = {
    "machine": "x86_64",
    "bits": 64,
    "type": "shared",
    "soname": "libdemo.so.1",
    "needed": ["libone.so", "/opt/two.so", "libc.so.6", "libstdc++.so.6"],
    "versions": {"libc.so.6": ["GLIBC_2.17", "GLIBC_2.4"], "libstdc++.so.6": ["GLIBCXX_3.4.21"]},
    "defines": ["DEMO_1.0", "DEMO_2.0", "libdemo.so.1"],
    "rpath": ["$ORIGIN", "/opt/lib"],
    "runpath": ["$ORIGIN/../demo.libs"],
}


def test_all_that_the_loader_asks_is_read() -> None:
    assert facts(rich()) == RICH


def test_section_headers_are_not_needed() -> None:
    """The loader reads program headers alone."""
    assert facts(elf_files.without_sections(rich())) == RICH


def test_section_headers_are_not_believed() -> None:
    data = bytearray(rich())
    data[0x28:0x30] = struct.pack("<Q", 1 << 40)  # e_shoff
    assert facts(bytes(data)) == RICH


def test_weak_needs_are_left_out() -> None:
    found = facts(elf_files.with_weak_needs(rich()))
    assert not [name for names in found.get("versions", {}).values() for name in names]
    assert found["needed"] == RICH["needed"]


def test_one_library_needed_by_two_entries_keeps_the_versions_of_both() -> None:
    """Two Verneed entries of one file are all right for the loader."""
    data = library(needs={"libaa.so": ("V_1",), "libab.so": ("V_2",)})
    found = facts(data.replace(b"\0libab.so\0", b"\0libaa.so\0"))
    assert found["versions"] == {"libaa.so": ["V_1", "V_2"]}


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (compiled, {"type": "object"}),
        (library, {"type": "shared"}),
        (lambda: elf_files.with_type(library(), 4), {"type": "core"}),
        (lambda: elf_files.with_type(library(), 0xFE00), {"type": "65024"}),
        (lambda: program(pie=False), {"type": "executable", "interpreter": "/lib64/ld-linux-x86-64.so.2"}),
        (lambda: program(interpreter="/lib/ld-musl-x86_64.so.1"), {"interpreter": "/lib/ld-musl-x86_64.so.1"}),
        (lambda: library(machine="aarch64"), {"machine": "aarch64", "bits": 64}),
        (lambda: elf_files.with_machine(library(), 0xFEED), {"machine": "65261"}),
        (elf_files.of_32_bits, {"machine": "i386", "bits": 32}),
        (lambda: elf_files.of_32_bits("x86_64"), {"machine": "x86_64", "bits": 32}),
        (elf_files.with_executable_stack, {"executable_stack": True}),
        (elf_files.with_text_relocations, {"text_relocations": True}),
        (lambda: library(runpath="/opt/a:/opt/b"), {"runpath": ["/opt/a", "/opt/b"]}),
        (lambda: library(needed=("größe.so",)), {"needed": ["größe.so"]}),
    ],
)
def test_what_a_file_is_and_asks_for(make: Any, expected: dict[str, Any]) -> None:
    found = facts(make())
    assert {key: found.get(key) for key in expected} == expected
    assert "broken" not in found


def test_text_relocations_are_told_by_either_sign() -> None:
    data = elf_files.with_text_relocations()
    assert facts(elf_files.with_dynamic_tag(data, 22, 0x6FFFF000))["text_relocations"]  # DT_TEXTREL
    assert facts(elf_files.with_dynamic_tag(data, 30, 0x6FFFF000))["text_relocations"]  # DT_FLAGS
    neither = elf_files.with_dynamic_tag(elf_files.with_dynamic_tag(data, 22, 0x6FFFF000), 30, 0x6FFFF001)
    assert "text_relocations" not in facts(neither)


def test_flags_without_text_relocations_are_none() -> None:
    found = facts(library(flags=["-Wl,-z,now"]))
    assert "text_relocations" not in found


@pytest.mark.parametrize("what", [library, compiled, program])
def test_nothing_that_is_not_there_is_told(what: Any) -> None:
    assert not facts(what()).keys() & {
        "executable_stack",
        "text_relocations",
        "versions",
        "defines",
        "rpath",
        "runpath",
    }


@pytest.mark.parametrize("size", [4, 5, 16, 20, 63, 64, 100, 400, 600])
def test_a_file_that_was_cut_off_is_broken(size: int) -> None:
    assert list(facts(rich()[:size])) == ["broken"]


def test_a_name_that_is_no_text_breaks_nothing() -> None:
    data = rich().replace(b"libone.so\0", b"lib\xff\xfe\x1b.so\0")
    found = facts(data)
    assert "broken" in found or len(found["needed"]) == len(RICH["needed"])


def test_only_so_much_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    data = rich()
    monkeypatch.setattr(elf_module, "_MAX_READS", 20)
    assert "more reading than a real one" in facts(data)["broken"]
    monkeypatch.setattr(elf_module, "_MAX_READS", 100_000)
    monkeypatch.setattr(elf_module, "_MAX_BYTES", 100)
    assert "more reading than a real one" in facts(data)["broken"]


# Any file: never an exception, never a long time.

POOL = ("rich", "plain", "program", "object", "bits32", "textrel")


def pool(name: str) -> bytes:
    make: dict[str, Any] = {
        "rich": rich,
        "plain": library,
        "program": program,
        "object": compiled,
        "bits32": elf_files.of_32_bits,
        "textrel": elf_files.with_text_relocations,
    }
    return bytes(make[name]())


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from(POOL),
    flips=st.lists(
        st.tuples(
            st.integers(0, 1023) | st.integers(0, 1 << 14),
            st.sampled_from((0, 1, 0x7F, 0x80, 0xFF)) | st.integers(0, 255),
        ),
        min_size=1,
        max_size=12,
    ),
    cut=st.none() | st.integers(4, 1 << 14),
)
def test_damaged_files_never_raise_nor_take_long(name: str, flips: list[tuple[int, int]], cut: int | None) -> None:
    data = bytearray(pool(name))
    for place, value in flips:
        data[place % len(data)] = value
    began = time.process_time()
    found = facts(b"\x7fELF" + bytes(data[4:cut]))
    assert time.process_time() - began < 2
    assert "broken" in found or {"machine", "bits", "type"} <= found.keys()


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=300))
def test_what_only_begins_as_an_elf_file_never_raises(rest: bytes) -> None:
    facts(b"\x7fELF" + rest)


def structures(data: bytes, tag: int) -> int:
    """The place of a dynamic tag's value."""
    for place in range(0, len(data) - 16, 8):
        if struct.unpack_from("<q", data, place)[0] == tag and struct.unpack_from("<Q", data, place + 8)[0] < len(
            data
        ):
            return place + 8
    raise AssertionError(tag)


@pytest.mark.parametrize("tag", [0x6FFFFFFE, 0x6FFFFFFC, 5], ids=["verneed", "verdef", "strtab"])
@pytest.mark.parametrize("address", [0, 1, 1 << 40, (1 << 64) - 1])
def test_addresses_that_lead_nowhere_take_no_time(tag: int, address: int) -> None:
    data = bytearray(rich())
    struct.pack_into("<Q", data, structures(bytes(data), tag), address)
    began = time.process_time()
    facts(bytes(data))
    assert time.process_time() - began < 2


def padded() -> tuple[bytearray, int]:
    """A library with room to write to, and the place of that, which is its address, too."""
    source = 'const char room[1 << 16] = "ROOM FOR MORE";'
    data = library("libdemo.so.1", needs={"libc.so.6": ("GLIBC_2.17",)}, defines=("DEMO_1",), source=source)
    marker = b"ROOM FOR MORE"
    if marker not in data:
        pytest.skip("this gcc leaves out what nobody uses")
    return bytearray(data), data.index(marker)


@pytest.mark.parametrize(
    ("tag", "entry"),
    [
        (0x6FFFFFFE, struct.pack("<HHIII", 1, 1, 1, 0, 16)),  # Verneed, and its Vernaux is itself
        (0x6FFFFFFC, struct.pack("<HHHHIII", 1, 0, 1, 1, 0, 0, 20)),  # Verdef, likewise
    ],
    ids=["verneed", "verdef"],
)
def test_chains_without_an_end_take_no_time(tag: int, entry: bytes) -> None:
    data, room = padded()
    entries = entry * ((1 << 16) // len(entry))
    data[room : room + len(entries)] = entries
    struct.pack_into("<Q", data, structures(bytes(data), tag), room)
    began = time.process_time()
    assert facts(bytes(data))
    assert time.process_time() - began < 2


def test_a_dynamic_section_without_an_end_takes_no_time() -> None:
    data, room = padded()
    data[room : room + (1 << 16)] = struct.pack("<qQ", 0x6FFFF000, 0) * (1 << 12)
    start, size, count = struct.unpack_from("<Q", data, 32)[0], *struct.unpack_from("<HH", data, 54)
    for place in range(start, start + size * count, size):
        if struct.unpack_from("<I", data, place)[0] == 2:  # PT_DYNAMIC
            struct.pack_into("<Q", data, place + 8, room)
    found = facts(bytes(data))
    assert "needed" not in found


# One file in a layer.

NOTHING: dict[str, Any] = {"name": "", "version": "", "requires": []}


def test_an_elf_file_is_known_whatever_its_name() -> None:
    assert facts_of("lib/data.bin", rich())["elf"] == RICH
    assert facts_of("x.pyc", rich())["elf"] == RICH


@pytest.mark.parametrize("size", [1, 3, 4, 1000])
def test_chunks_do_not_matter(size: int) -> None:
    data = rich()
    assert facts_of("x.so", *(data[at : at + size] for at in range(0, len(data), size)))["elf"] == RICH


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_chunks_of_other_files_do_not_matter(size: int) -> None:
    for path, data in {
        "x.pyc": b"\xf3\r\r\n" + bytes(12) + b"code" * 2000,
        "bin/x": b"#!/bin/sh\n" + b"echo\n" * 2000,
        "x.pth": b"import x\n",
        "x.so": b"\xcf\xfa\xed\xfe" + bytes(100),
        "python/x-1.dist-info/METADATA": b"Metadata-Version: 2.1\nName: x\nVersion: 1\n",
    }.items():
        chunks = [data[at : at + size] for at in range(0, len(data), size)]
        assert facts_of(path, *chunks) == facts_of(path, data) != {}


def test_an_elf_file_whose_first_bytes_come_late_in_a_zip_is_seen(tmp_path: Path) -> None:
    """A deflate stream may begin with a megabyte of empty blocks, and a block of one byte."""
    data = rich()
    first = b"\x00\x01\x00\xfe\xff" + data[:1]
    empty = b"\x00\x00\x00\xff\xff" * (1024 * 1024 // 5)
    rest = zlib.compressobj(9, zlib.DEFLATED, -15)
    stream = first + empty + b"\x00\x00\x00\xff\xff" * 2 + rest.compress(data[1:]) + rest.flush()
    path = tmp_path / "layer.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("python/x.so", stream)
    raw = bytearray(path.read_bytes())
    central = raw.rindex(b"PK\x01\x02")
    for at, method, crc in ((0, 8, 14), (central, 10, 16)):
        struct.pack_into("<H", raw, at + method, 8)
        struct.pack_into("<III", raw, at + crc, zlib.crc32(data), len(stream), len(data))
    path.write_bytes(raw)
    tree = read_zip(path, "layer")
    assert not [problem for problem in tree.problems if problem.kind != "bomb"]
    assert tree.entries["python/x.so"].facts.get("elf") == RICH


@pytest.mark.parametrize(
    ("path", "data", "expected"),
    [
        ("x.py", b"print(1)\n", {}),
        ("x.py", b"", {}),
        ("bin/x", b"#!/bin/sh\necho\n", {"shebang": "#!/bin/sh"}),
        ("bin/x", b"#!/bin/sh\r\necho\n", {"shebang": "#!/bin/sh\r"}),
        ("x.pyc", b"\xcb\r\r\n" + struct.pack("<3I", 1, 2, 3), {"pyc": [3531, 1, 2, 3]}),
        ("x.pyc", b"\xcb\r\n\n" + bytes(12), {"pyc": [0, 0, 0, 0]}),
        ("x.pyc", b"\xcb\r\r\n", {"pyc": [0, 0, 0, 0]}),
        ("x.pyc", b"", {"pyc": [0, 0, 0, 0]}),
        ("x.pth", b"# note\n\nimport x\n./lib\n", {"pth": ["import x", "./lib"]}),
        ("x.so", b"MZ\x90\0", {"foreign": "Windows"}),
        ("x.dylib", b"\xce\xfa\xed\xfe", {"foreign": "macOS"}),
        ("x.dll", b"MZ", {"foreign": "Windows"}),
        ("x.pyd", b"MZ", {"foreign": "Windows"}),
        ("x.exe", b"MZ", {}),
        ("x.so", b"\xca\xfe\xba\xbe", {"foreign": "macOS"}),
        ("x.so", b"INPUT(libx.so.1)\n", {}),
        (
            "a/x-1.dist-info/METADATA",
            b"Metadata-Version: 2.1\nName: X\nVersion: 1\nRequires-Dist: y>=1\n\nText\n",
            {"distribution": {"name": "X", "version": "1", "requires": ["y>=1"]}},
        ),
        ("x.egg-info/PKG-INFO", b"\xff", {"distribution": NOTHING}),
        ("x-1.dist-info/RECORD", b'x.py,,\n\n"a,b.py",,\n,,\n', {"record": ["x.py", "a,b.py"]}),
        ("x-1.dist-info/RECORD", b"x" * 140_000, {"record": []}),
        ("x-1.dist-info/RECORD", b"x,,\n" * (2 * 1024**2 + 1), {"record": []}),
        ("x-1.dist-info/METADATA", b"x" * (8 * 1024**2 + 1), {"distribution": NOTHING}),
    ],
)
def test_what_other_files_are_by_their_bytes(path: str, data: bytes, expected: dict[str, Any]) -> None:
    assert facts_of(path, data) == expected


def test_an_empty_file_is_nothing() -> None:
    assert facts_of("x-1.data/x.so") == {}
