"""Makes real ELF files with gcc, and changes in them what gcc would not do.

Nothing is linked against the C library: a file needs exactly what a test names. Everything is made once per process.
"""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

MACHINES = {"x86_64": 62, "aarch64": 183, "i386": 3, "riscv": 243}
DT_RPATH = 15
_DT_AUXILIARY = 0x7FFFFFFD
_PT_GNU_STACK = 0x6474E551
_VER_FLG_WEAK = 2
_COMPILE = ("-O1", "-fno-asynchronous-unwind-tables", "-fno-stack-protector", "-fcf-protection=none")
_NOTE = '.section .note.GNU-stack,"",%progbits\n'


def require_gcc() -> None:
    """Skips the test where there is no compiler."""
    if shutil.which("gcc") is None:
        pytest.skip("there is no gcc here")


def gcc(*arguments: str | Path, folder: Path | None = None, source: str = "") -> None:
    """Runs gcc, which must succeed."""
    require_gcc()
    done = subprocess.run(
        ["gcc", *map(str, arguments)], cwd=folder, input=source, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, f"{arguments}\n{source}\n{done.stderr}"


@cache
def compiled(source: str = "", flags: tuple[str, ...] = ("-fPIC",), language: str = "c") -> bytes:
    """An object file."""
    options = _COMPILE if _knows_cf_protection() else _COMPILE[:-1]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "it.o")
        gcc("-c", "-x", language, *options, *flags, "-o", path, "-", source=source or "int nothing;\n")
        return path.read_bytes()


@cache
def _knows_cf_protection() -> bool:
    """gcc has the option for x86 alone."""
    require_gcc()
    done = subprocess.run(["gcc", "-dumpmachine"], capture_output=True, text=True, check=True)
    return done.stdout.startswith(("x86_64", "i686"))


def library(
    soname: str = "",
    *,
    needed: Sequence[str] = (),
    needs: Mapping[str, Sequence[str]] | None = None,
    defines: Sequence[str] = (),
    rpath: str | None = None,
    runpath: str | None = None,
    flags: Sequence[str] = (),
    machine: str = "x86_64",
    source: str = "",
    compile_flags: Sequence[str] = ("-fPIC",),
) -> bytes:
    """A shared library.

    Args:
        soname: its DT_SONAME; empty for none.
        needed: its DT_NEEDED, word by word, slashes and all.
        needs: library to the symbol versions needed of it; it is in DT_NEEDED, too.
        defines: symbol versions that it defines.
        rpath: its DT_RPATH.
        runpath: its DT_RUNPATH.
        flags: further ones for linking.
        machine: the one its header names, whatever its code is.
        source: C.
        compile_flags: for the source.
    """
    made = _library(
        soname,
        tuple(needed),
        tuple((name, tuple(versions)) for name, versions in (needs or {}).items()),
        tuple(defines),
        rpath,
        runpath,
        tuple(flags),
        source,
        tuple(compile_flags),
    )
    return with_machine(made, machine) if machine else made


@cache
def _library(
    soname: str,
    needed: tuple[str, ...],
    needs: tuple[tuple[str, tuple[str, ...]], ...],
    defines: tuple[str, ...],
    rpath: str | None,
    runpath: str | None,
    flags: tuple[str, ...],
    source: str,
    compile_flags: tuple[str, ...],
) -> bytes:
    versioned = dict(needs)
    names = tuple(dict.fromkeys((*needed, *versioned)))
    used = [symbol for name in versioned for symbol in _symbols(name, versioned[name])]
    code = [f"void {symbol}(void);" for symbol in used]
    if used:
        code.append(f"void use(void) {{ {' '.join(f'{symbol}();' for symbol in used)} }}")
    code += [f"void {symbol}(void) {{}}" for symbol in _symbols("own", defines)]
    link = ["-shared", "-nostdlib", "-z", "lazy", *flags]
    both = rpath is not None and runpath is not None
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        (here / "it.o").write_bytes(compiled("\n".join([*code, source]), compile_flags))
        for number, name in enumerate(names):
            (here / f"stub{number}.so").write_bytes(_stub(name, versioned.get(name, ())))
        if soname:
            link += _linker("-soname", soname)
        if defines:
            (here / "versions").write_text(_script("own", defines))
            link += _linker("--version-script", "versions")
        if both:
            # Today's linkers write one of both; old ones wrote both.
            link += _linker("--enable-new-dtags", "-rpath", runpath or "", "-f", rpath or "")
        elif runpath is not None:
            link += _linker("--enable-new-dtags", "-rpath", runpath)
        elif rpath is not None:
            link += _linker("--disable-new-dtags", "-rpath", rpath)
        stubs = [f"stub{number}.so" for number in range(len(names))]
        link += _linker("--no-as-needed", "--allow-shlib-undefined")
        gcc(*link, "-o", "made.so", "it.o", *stubs, folder=here)
        made = (here / "made.so").read_bytes()
    return with_dynamic_tag(made, _DT_AUXILIARY, DT_RPATH) if both else made


@cache
def _stub(name: str, versions: tuple[str, ...]) -> bytes:
    """What a library is linked against so that it needs `name` and some symbol versions of it."""
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        code = "\n".join(f"void {symbol}(void) {{}}" for symbol in _symbols(name, versions))
        (here / "it.o").write_bytes(compiled(code))
        link = ["-shared", "-nostdlib", *_linker("-soname", name)]
        if versions:
            (here / "versions").write_text(_script(name, versions))
            link += _linker("--version-script", "versions")
        gcc(*link, "-o", "stub.so", "it.o", folder=here)
        return (here / "stub.so").read_bytes()


def _linker(*words: str) -> list[str]:
    return [part for word in words for part in ("-Xlinker", word)]


def _symbols(name: str, versions: Sequence[str]) -> list[str]:
    plain = "".join(character if character.isalnum() else "_" for character in name)
    return [f"{plain}_{number}" for number in range(len(versions))]


def _script(name: str, versions: Sequence[str]) -> str:
    pairs = zip(versions, _symbols(name, versions), strict=True)
    return "\n".join(f"{version} {{ global: {symbol}; }};" for version, symbol in pairs)


@cache
def program(*, interpreter: str = "/lib64/ld-linux-x86-64.so.2", pie: bool = True, machine: str = "x86_64") -> bytes:
    """A program that asks for a dynamic loader."""
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        (here / "it.o").write_bytes(compiled("void _start(void) {}"))
        (here / "libstub.so").write_bytes(_stub("libc.so.6", ()))
        kind = "-pie" if pie else "-no-pie"
        more = _linker("--dynamic-linker", interpreter, "--no-as-needed")
        gcc(kind, "-nostdlib", *more, "-o", "made", "it.o", "libstub.so", folder=here)
        return with_machine((here / "made").read_bytes(), machine)


def with_text_relocations() -> bytes:
    """A library whose code holds addresses; gcc -shared without -fPIC."""
    source = "int somewhere; int *where(void) { return &somewhere; }"
    flags = ["-fno-pic"]
    if _knows_cf_protection():
        flags.append("-mcmodel=large")
    return library(source=source, compile_flags=flags, flags=_linker("-z", "notext"))


def with_executable_stack() -> bytes:
    """A library linked with -z execstack."""
    return library(flags=_linker("-z", "execstack"))


@cache
def of_assembler(*, note: bool) -> bytes:
    """A library of nothing but assembler code, with or without the note that it needs no executable stack."""
    source = ".data\n.globl datum\ndatum: .byte 1\n" + (_NOTE if note else "")
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        (here / "it.o").write_bytes(compiled(source, (), "assembler"))
        gcc("-shared", "-nostdlib", "-o", "made.so", "it.o", folder=here)
        return (here / "made.so").read_bytes()


@cache
def of_32_bits(machine: str = "i386") -> bytes:
    """A library of 32 bits; the test is skipped where gcc makes none."""
    require_gcc()
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            ["gcc", "-m32", "-shared", "-nostdlib", "-fPIC", "-x", "c", "-o", "made.so", "-"],
            cwd=folder,
            input="int nothing;\n",
            capture_output=True,
            text=True,
        )
        if done.returncode:
            pytest.skip("this gcc makes no files of 32 bits")
        return with_machine(Path(folder, "made.so").read_bytes(), machine)


def with_machine(data: bytes, machine: str | int) -> bytes:
    """The file with another machine in its header."""
    number = MACHINES[machine] if isinstance(machine, str) else machine
    return data[:18] + struct.pack("<H", number) + data[20:]


def with_type(data: bytes, number: int) -> bytes:
    """The file with another e_type: 1 object, 2 executable, 3 shared, 4 core."""
    return data[:16] + struct.pack("<H", number) + data[18:]


def without_sections(data: bytes) -> bytes:
    """The file without its section header table, as ``sstrip`` leaves it; the loader does not look at that."""
    end = max(segment["p_offset"] + segment["p_filesz"] for segment in _parsed(data).iter_segments())
    changed = bytearray(data[:end])
    changed[0x28:0x30] = bytes(8)  # e_shoff
    changed[0x3A:0x40] = bytes(6)  # e_shentsize, e_shnum, e_shstrndx
    return bytes(changed)


def with_weak_needs(data: bytes) -> bytes:
    """The file with all its needed symbol versions marked as weak."""
    changed = bytearray(data)
    section: Any = _parsed(data).get_section_by_name(".gnu.version_r")
    place = section["sh_offset"]
    for _ in range(section["sh_info"]):
        count, _, first, following = struct.unpack_from("<HIII", data, place + 2)
        at = place + first
        for _ in range(count):
            struct.pack_into("<H", changed, at + 4, _VER_FLG_WEAK)
            at += struct.unpack_from("<I", data, at + 12)[0]
        place += following
    return bytes(changed)


def with_dynamic_tag(data: bytes, old: int, new: int) -> bytes:
    """The file with one tag of its dynamic section turned into another."""
    changed = bytearray(data)
    section: Any = _parsed(data).get_section_by_name(".dynamic")
    for place in range(section["sh_offset"], section["sh_offset"] + section["sh_size"], 16):
        if struct.unpack_from("<q", data, place)[0] == old:
            struct.pack_into("<q", changed, place, new)
            return bytes(changed)
    raise ValueError(f"there is no tag {old:#x}")


def without_stack_segment(data: bytes) -> bytes:
    """The file with its PT_GNU_STACK made a PT_NULL."""
    changed = bytearray(data)
    elf = _parsed(data)
    for number, segment in enumerate(elf.iter_segments()):
        if segment["p_type"] == "PT_GNU_STACK":
            place = elf["e_phoff"] + number * elf["e_phentsize"]
            assert struct.unpack_from("<I", data, place)[0] == _PT_GNU_STACK
            struct.pack_into("<I", changed, place, 0)
    return bytes(changed)


def _parsed(data: bytes) -> ELFFile:
    return ELFFile(io.BytesIO(data))
