"""The rules about compiled files, each on a layer that breaks it and on one that just does not."""

from __future__ import annotations

import tomllib
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from posixpath import normpath
from typing import Any

import pytest

from layerbuild.checks import Finding, binary, check_layer, in_order
from layerbuild.checks.binary import extension_of
from layerbuild.checks.loader import Loader
from layerbuild.libraries import symbol_limits, system_libraries, version_of
from layerbuild.target import Target, all_targets, select_targets
from layerbuild.tree import Tree, read_folder, read_zip, tree_of_layer
from tests import elf_files
from tests.conftest import Ran
from tests.elf_files import compiled, library, program
from tests.index_server import IndexServer
from tests.unit.test_layer import lay_out
from tests.wheels import make_wheel

# Path below /opt to content, or to a symbolic link's target.
Files = Mapping[str, bytes | str]
Cli = Callable[..., Ran]

SITE = "python/lib/python3.12/site-packages"
EXT = "python/demo/ext.so"
LIBS = "python/demo.libs"
MACH_O = b"\xcf\xfa\xed\xfe" + bytes(100)
MAKEFILE = b"/* GNU ld script */\nINPUT(libdemo.so.1)\n"
AL2, AL2_ARM = "python3.11-x86_64", "python3.11-arm64"
AL2023, AL2023_ARM = "python3.12-x86_64", "python3.12-arm64"


def target_named(name: str) -> Target:
    (target,) = select_targets([name])
    return target


def write_folder(folder: Path, layer: Files) -> Path:
    folder.mkdir()
    for path, content in layer.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            place.symlink_to(content)
        else:
            place.write_bytes(content)
    return folder


def write_zip(path: Path, layer: Files) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in layer.items():
            info = zipfile.ZipInfo(member)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (0o120777 if isinstance(content, str) else 0o100644) << 16
            archive.writestr(info, content)
    return path


def findings_in(tree: Tree, target: str = AL2023) -> list[Finding]:
    return in_order(binary.check(tree, target_named(target)))


def findings(folder: Path, layer: Files, target: str = AL2023) -> list[Finding]:
    """What the rules find, which is the same in a folder and in a zip."""
    number = len(list(folder.iterdir()))
    found = findings_in(read_folder(write_folder(folder / f"opt{number}", layer), "test"), target)
    assert findings_in(read_zip(write_zip(folder / f"{number}.zip", layer), "test"), target) == found
    return found


def codes(found: list[Finding]) -> list[str]:
    return [one.code for one in found]


@dataclass(frozen=True)
class Pair:
    """A rule, with a layer that breaks it and one that just does not.

    Attributes:
        says: what the finding's message has in it.
        target, path, severity, fix: what is expected of the finding, where it is not the usual.
    """

    code: str
    what: str
    bad: Callable[[], Files]
    good: Callable[[], Files]
    says: tuple[str, ...] = ()
    target: str = AL2023
    path: str = EXT
    severity: str = ""
    fix: str = ""


def one(**more: object) -> Callable[[], Files]:
    """A layer of one extension module."""
    return lambda: {EXT: library(**more)}  # type: ignore[arg-type]


def needs(name: str, version: str, machine: str = "x86_64") -> Callable[[], Files]:
    return one(needs={name: (version,)}, machine=machine)


def limits(code: str, target: str, name: str, good: str, bad: str, *, machine: str = "x86_64", has: str = "") -> Pair:
    """A symbol version that the runtime just has, and one that it just has not."""
    return Pair(
        code,
        f"{bad} on {target}",
        needs(name, bad, machine),
        needs(name, good, machine),
        says=(bad, name, f"with {has or good.rpartition('_')[2]}", target.rpartition("-")[0]),
        target=target,
    )


def bundled(**search: str) -> Files:
    """A module that brings a libstdc++ newer than any runtime's, and asks for it."""
    return {
        EXT: library(needs={"libstdc++.so.6": ("GLIBCXX_3.4.99",)}, **search),
        f"{LIBS}/libstdc++.so.6": library("libstdc++.so.6", defines=("GLIBCXX_3.4.98", "GLIBCXX_3.4.99")),
    }


def with_library(**changed: object) -> Callable[[], Files]:
    """A module that needs two symbol versions of a library beside it."""
    given: dict[str, object] = {"soname": "libdemo.so.1", "defines": ("DEMO_1.0", "DEMO_1.1"), **changed}
    return lambda: {
        EXT: library(needs={"libdemo.so.1": ("DEMO_1.0", "DEMO_1.1")}, runpath="$ORIGIN/../demo.libs"),
        f"{LIBS}/libdemo.so.1": library(**given),  # type: ignore[arg-type]
    }


def beside(place: str, **search: str) -> Callable[[], Files]:
    """A module that needs a library, and the library somewhere."""
    return lambda: {
        EXT: library(needed=("libdemo.so.1",), **search),  # type: ignore[arg-type]
        place: library("libdemo.so.1"),
    }


def module(*names: str) -> Callable[[], Files]:
    return lambda: {f"python/{name}": library() for name in names}


X86 = "x86_64-linux-gnu.so"
PAIRS = [
    # Machines.
    Pair(
        "binary-machine", "x86_64 on arm64", one(), one(machine="aarch64"), ("x86_64", "aarch64"), target=AL2023_ARM
    ),
    Pair("binary-machine", "aarch64 on x86_64", one(machine="aarch64"), one(), ("aarch64", "x86_64")),
    Pair(
        "binary-machine", "riscv on arm64", one(machine="riscv"), one(machine="aarch64"), ("riscv",), target=AL2_ARM
    ),
    Pair("binary-machine", "32 bits", lambda: {EXT: elf_files.of_32_bits()}, one(), ("i386 with 32 bits",)),
    Pair("binary-machine", "x32", lambda: {EXT: elf_files.of_32_bits("x86_64")}, one(), ("x86_64 with 32 bits",)),
    Pair(
        "binary-machine",
        "unknown machine",
        lambda: {EXT: elf_files.with_machine(library(), 0xFEED)},
        one(),
        ("it is for 65261; python3.12-x86_64 has x86_64",),
    ),
    Pair(
        "binary-machine",
        "a program",
        lambda: {"bin/tool": program(machine="aarch64")},
        lambda: {"bin/tool": program()},
        path="bin/tool",
    ),
    Pair(
        "binary-machine",
        "a name of no meaning",
        lambda: {"python/demo/data": library(machine="aarch64")},
        lambda: {"python/demo/data": library()},
        path="python/demo/data",
    ),
    Pair("binary-machine", "macOS", lambda: {EXT: MACH_O}, lambda: {"python/x.dylib": MACH_O}, ("macOS",)),
    Pair(
        "binary-machine", "fat macOS", lambda: {EXT: b"\xca\xfe\xba\xbe\0\0\0\2"}, lambda: {EXT: MAKEFILE}, ("macOS",)
    ),
    Pair(
        "binary-machine",
        "Windows",
        lambda: {EXT: b"MZ\x90\0" + bytes(100)},
        lambda: {"python/x.pyd": b"MZ\x90\0", "python/x.dll": b"MZ\x90\0", "python/x.exe": b"MZ\x90\0"},
        ("Windows",),
    ),
    Pair(
        "binary-machine",
        "shared, not an object file or an archive",
        lambda: {EXT: library(machine="aarch64")},
        lambda: {
            "python/x.o": elf_files.with_machine(compiled(), "aarch64"),
            "python/y.so": elf_files.with_machine(compiled(), "aarch64"),
            "python/core": elf_files.with_type(library(machine="aarch64"), 4),
            "python/x.a": b"!<arch>\n" + compiled(),
        },
    ),
    Pair(
        "binary-machine",
        "another operating system, by its OS ABI",
        lambda: {EXT: library()[:7] + b"\x09" + library()[8:]},  # FreeBSD
        lambda: {EXT: library()[:7] + b"\x03" + library()[8:]},  # GNU
    ),
    # musl.
    Pair(
        "binary-musl",
        "needed",
        one(needed=("libc.musl-x86_64.so.1",)),
        one(needed=("libc.so.6",)),
        ("it needs libc.musl-x86_64.so.1",),
    ),
    Pair(
        "binary-musl",
        "on arm64",
        one(needed=("libz.so.1", "libc.musl-aarch64.so.1"), machine="aarch64"),
        one(needed=("libz.so.1", "libc.so.6"), machine="aarch64"),
        ("libc.musl-aarch64.so.1",),
        target=AL2_ARM,
    ),
    Pair(
        "binary-musl",
        "its name",
        module("demo.cpython-312-x86_64-linux-musl.so"),
        module(f"demo.cpython-312-{X86}"),
        ("its name says x86_64-linux-musl",),
        path="python/demo.cpython-312-x86_64-linux-musl.so",
    ),
    Pair(
        "binary-musl",
        "interpreter",
        lambda: {"bin/tool": program(interpreter="/lib/ld-musl-x86_64.so.1")},
        lambda: {"bin/tool": program()},
        ("it needs /lib/ld-musl-x86_64.so.1",),
        path="bin/tool",
    ),
    # glibc.
    limits("binary-glibc", AL2, "libc.so.6", "GLIBC_2.26", "GLIBC_2.27"),
    limits("binary-glibc", AL2, "libc.so.6", "GLIBC_2.4", "GLIBC_2.34", has="2.26"),
    limits("binary-glibc", AL2_ARM, "libm.so.6", "GLIBC_2.26", "GLIBC_2.27", machine="aarch64"),
    limits("binary-glibc", AL2023, "libc.so.6", "GLIBC_2.34", "GLIBC_2.35"),
    limits("binary-glibc", AL2023, "libc.so.6", "GLIBC_2.3.4", "GLIBC_2.100", has="2.34"),
    limits("binary-glibc", AL2023, "libpthread.so.0", "GLIBC_2.2.5", "GLIBC_3", has="2.34"),
    limits("binary-glibc", AL2023_ARM, "libm.so.6", "GLIBC_2.34", "GLIBC_2.38", machine="aarch64"),
    limits(
        "binary-glibc", "python3.14-arm64", "libm.so.6", "GLIBC_2.17", "GLIBC_2.35", machine="aarch64", has="2.34"
    ),
    limits("binary-glibc", "python3.9-x86_64", "libc.so.6", "GLIBC_2.26", "GLIBC_2.28"),
    Pair(
        "binary-glibc",
        "packed relocations",
        needs("libc.so.6", "GLIBC_ABI_DT_RELR"),
        needs("libc.so.6", "GLIBC_PRIVATE"),
        ("GLIBC_2.36",),
    ),
    Pair(
        "binary-glibc",
        "weak needs do not count",
        needs("libc.so.6", "GLIBC_2.99"),
        lambda: {EXT: elf_files.with_weak_needs(library(needs={"libc.so.6": ("GLIBC_2.99",)}))},
    ),
    Pair(
        "binary-glibc",
        "without section headers",
        lambda: {EXT: elf_files.without_sections(library(needs={"libc.so.6": ("GLIBC_2.99",)}))},
        lambda: {EXT: elf_files.without_sections(library(needs={"libc.so.6": ("GLIBC_2.17",)}))},
        ("GLIBC_2.99",),
    ),
    Pair(
        "binary-glibc",
        "the newest of several",
        one(needs={"libc.so.6": ("GLIBC_2.35", "GLIBC_2.9", "GLIBC_2.100", "GLIBC_2.36")}),
        one(needs={"libc.so.6": ("GLIBC_2.34", "GLIBC_2.9", "GLIBC_2.2.5")}),
        ("GLIBC_2.100",),
    ),
    # libstdc++ and libgcc.
    limits("binary-libstdcxx", AL2, "libstdc++.so.6", "GLIBCXX_3.4.24", "GLIBCXX_3.4.25"),
    limits("binary-libstdcxx", AL2, "libstdc++.so.6", "CXXABI_1.3.11", "CXXABI_1.3.12"),
    limits("binary-libstdcxx", AL2, "libgcc_s.so.1", "GCC_7.0.0", "GCC_9.0.0"),
    limits("binary-libstdcxx", AL2_ARM, "libstdc++.so.6", "GLIBCXX_3.4.24", "GLIBCXX_3.4.29", machine="aarch64"),
    limits("binary-libstdcxx", AL2_ARM, "libgcc_s.so.1", "GCC_7.0.0", "GCC_11.0", machine="aarch64"),
    limits("binary-libstdcxx", AL2023, "libstdc++.so.6", "GLIBCXX_3.4.33", "GLIBCXX_3.4.34"),
    limits("binary-libstdcxx", AL2023, "libstdc++.so.6", "GLIBCXX_3.4.9", "GLIBCXX_3.4.100", has="3.4.33"),
    limits("binary-libstdcxx", AL2023, "libstdc++.so.6", "CXXABI_1.3.15", "CXXABI_1.3.16"),
    limits("binary-libstdcxx", AL2023, "libgcc_s.so.1", "GCC_14.0.0", "GCC_99.0.0"),
    limits("binary-libstdcxx", AL2023_ARM, "libgcc_s.so.1", "GCC_14.0.0", "GCC_15.0.0", machine="aarch64"),
    limits("binary-libstdcxx", AL2023_ARM, "libstdc++.so.6", "CXXABI_1.3.15", "CXXABI_1.3.99", machine="aarch64"),
    Pair(
        "binary-libstdcxx",
        "versions of another kind do not count",
        needs("libstdc++.so.6", "GLIBCXX_3.4.99"),
        one(needs={"libstdc++.so.6": ("CXXABI_TM_1", "CXXABI_FLOAT128", "GLIBCXX_LDBL_3.4")}),
    ),
    Pair(
        "binary-libstdcxx",
        "the bundled one counts with RPATH alone",
        lambda: bundled(runpath="$ORIGIN/../demo.libs"),
        lambda: bundled(rpath="$ORIGIN/../demo.libs"),
        ("GLIBCXX_3.4.99", "with 3.4.33"),
    ),
    Pair(
        "binary-libstdcxx",
        "the one in lib/ comes after the system's",
        lambda: {
            EXT: library(needs={"libstdc++.so.6": ("GLIBCXX_3.4.99",)}),
            "lib/libstdc++.so.6": library("libstdc++.so.6", defines=("GLIBCXX_3.4.99",)),
        },
        lambda: bundled(rpath="/opt/python/demo.libs"),
    ),
    Pair(
        "binary-libstdcxx",
        "the bundled one by an inherited RPATH",
        lambda: {
            **bundled(runpath="$ORIGIN/../demo.libs"),
            EXT: library(needed=("libdemo.so.1",), runpath="$ORIGIN/../demo.libs"),
            f"{LIBS}/libdemo.so.1": library("libdemo.so.1", needs={"libstdc++.so.6": ("GLIBCXX_3.4.99",)}),
        },
        lambda: {
            **bundled(),
            EXT: library(needed=("libdemo.so.1",), rpath="$ORIGIN/../demo.libs"),
            f"{LIBS}/libdemo.so.1": library("libdemo.so.1", needs={"libstdc++.so.6": ("GLIBCXX_3.4.99",)}),
        },
        path=f"{LIBS}/libdemo.so.1",
    ),
    Pair(
        "binary-libstdcxx",
        "the system's is loaded already",
        lambda: {
            **bundled(),
            EXT: library(needed=("libstdc++.so.6", "libdemo.so.1"), runpath="$ORIGIN/../demo.libs"),
            f"{LIBS}/libdemo.so.1": library(needs={"libstdc++.so.6": ("GLIBCXX_3.4.99",)}, rpath="$ORIGIN"),
        },
        lambda: {
            **bundled(),
            EXT: library(needed=("libdemo.so.1", "libstdc++.so.6"), rpath="$ORIGIN/../demo.libs"),
            f"{LIBS}/libdemo.so.1": library(needs={"libstdc++.so.6": ("GLIBCXX_3.4.99",)}, rpath="$ORIGIN"),
        },
        path=f"{LIBS}/libdemo.so.1",
    ),
    # Symbol versions of libraries in the layer.
    Pair(
        "binary-symbol-version",
        "not defined",
        with_library(defines=("DEMO_1.0",)),
        with_library(),
        ("it needs DEMO_1.1 of libdemo.so.1", f"/opt/{LIBS}/libdemo.so.1"),
    ),
    Pair(
        "binary-symbol-version",
        "a library without any versions is only warned of",
        with_library(defines=("OTHER",)),
        with_library(defines=()),
        ("DEMO_1.0, DEMO_1.1",),
    ),
    Pair(
        "binary-symbol-version",
        "weak",
        with_library(defines=("DEMO_1.0",)),
        lambda: {
            **with_library(defines=("DEMO_1.0",))(),
            EXT: elf_files.with_weak_needs(
                library(needs={"libdemo.so.1": ("DEMO_1.0", "DEMO_1.1")}, runpath="$ORIGIN/../demo.libs")
            ),
        },
    ),
    Pair(
        "binary-symbol-version",
        "a bundled libstdc++ that is too old",
        lambda: {
            **bundled(rpath="$ORIGIN/../demo.libs"),
            f"{LIBS}/libstdc++.so.6": library("libstdc++.so.6", defines=("GLIBCXX_3.4.98",)),
        },
        lambda: bundled(rpath="$ORIGIN/../demo.libs"),
        ("GLIBCXX_3.4.99",),
    ),
    Pair(
        "binary-symbol-version",
        "without section headers",
        lambda: {path: elf_files.without_sections(data) for path, data in bytes_of(with_library(defines=("A",)))},
        lambda: {path: elf_files.without_sections(data) for path, data in bytes_of(with_library())},
    ),
    # Libraries.
    Pair(
        "binary-library-absent",
        "OpenGL",
        one(needed=("libGL.so.1",)),
        lambda: {EXT: library(needed=("libGL.so.1",)), "lib/libGL.so.1": library()},
        ("it needs libGL.so.1, which python3.12 does not have",),
        fix="opencv-python-headless",
    ),
    Pair(
        "binary-library-absent",
        "expat on Amazon Linux 2023",
        one(needed=("libexpat.so.1",)),
        one(needed=("libz.so.1",)),
        fix="put libexpat.so.1 into the layer's lib folder",
    ),
    Pair(
        "binary-library-absent",
        "Debian's name of bzip2",
        one(needed=("libbz2.so.1.0",)),
        one(needed=("libbz2.so.1",)),
        target=AL2,
        fix="Debian or Ubuntu",
    ),
    Pair(
        "binary-library-absent",
        "libcrypt on arm64",
        one(needed=("libcrypt.so.1",), machine="aarch64"),
        one(needed=("libcrypt.so.2",), machine="aarch64"),
        target=AL2023_ARM,
        fix="carries libcrypt",
    ),
    Pair(
        "binary-library-absent",
        "libffi",
        one(needed=("libffi.so.7",)),
        one(needed=("libffi.so.8",)),
        fix="carries libffi",
    ),
    Pair(
        "binary-library-absent",
        "a runpath that does not lead to it",
        lambda: {EXT: library(needed=("libGL.so.1",), runpath="$ORIGIN/../demo.libs")},
        lambda: {
            EXT: library(needed=("libGL.so.1",), runpath="$ORIGIN/libs"),
            "python/demo/libs/libGL.so.1": library(),
        },
    ),
    Pair(
        "binary-library-absent",
        "a program",
        lambda: {"bin/tool": library(needed=("libX11.so.6",))},
        lambda: {"bin/tool": program()},
        path="bin/tool",
        fix="headless",
    ),
    Pair(
        "binary-library-unknown",
        "of which nothing is known",
        one(needed=("libwhatever.so.9",)),
        lambda: {EXT: library(needed=("libwhatever.so.9",)), "lib/libwhatever.so.9": library()},
        ("it needs libwhatever.so.9; whether python3.12 has it is unknown",),
    ),
    Pair(
        "binary-library-unknown",
        "inferred",
        one(needed=("libssl.so.3",)),
        one(needed=("libsqlite3.so.0",)),
        ("it needs libssl.so.3; python3.12 probably has it, which nobody has confirmed",),
    ),
    Pair(
        "binary-library-unknown",
        "inferred, and brought",
        one(needed=("libexpat.so.1",)),
        lambda: {EXT: library(needed=("libexpat.so.1",)), "lib/libexpat.so.1": library()},
        ("python3.11 probably has it",),
        target=AL2,
    ),
    Pair(
        "binary-library-unknown",
        "another Python's own",
        one(needed=("libpython3.11.so.1.0",)),
        one(needed=("libpython3.12.so.1.0",)),
    ),
    Pair(
        "binary-library-unknown",
        "only there for another machine",
        lambda: {EXT: library(needed=("libdemo.so.1",)), "lib/libdemo.so.1": b"INPUT(x)"},
        lambda: {EXT: library(needed=("libdemo.so.1",)), "lib/libdemo.so.1": library()},
    ),
    Pair(
        "binary-library-unreachable",
        "no path",
        beside(f"{LIBS}/libdemo.so.1"),
        beside(f"{LIBS}/libdemo.so.1", runpath="$ORIGIN/../demo.libs"),
        ("it needs libdemo.so.1", f"at /opt/{LIBS}/libdemo.so.1", "does not look"),
    ),
    Pair(
        "binary-library-unreachable",
        "lib/ and python/lib/",
        beside("python/lib/libdemo.so.1"),
        beside("lib/libdemo.so.1"),
    ),
    Pair(
        "binary-library-unreachable",
        "a folder too high",
        beside(f"{LIBS}/libdemo.so.1", rpath="$ORIGIN/../../demo.libs"),
        beside(f"{LIBS}/libdemo.so.1", rpath="$ORIGIN/../demo.libs"),
    ),
    Pair(
        "binary-library-unreachable",
        "known by its soname alone",
        beside("lib/libother.so"),
        lambda: {**beside("lib/libother.so")(), "lib/libdemo.so.1": "libother.so"},
        ("at /opt/lib/libother.so",),
    ),
    Pair(
        "binary-library-unreachable",
        "an inherited path",
        lambda: {
            EXT: library(needed=("liba.so",), runpath="$ORIGIN"),
            "python/demo/liba.so": library("liba.so", needed=("libdemo.so.1",)),
            "python/demo/libdemo.so.1": library(),
        },
        lambda: {
            EXT: library(needed=("liba.so",), rpath="$ORIGIN"),
            "python/demo/liba.so": library("liba.so", needed=("libdemo.so.1",)),
            "python/demo/libdemo.so.1": library(),
        },
        path="python/demo/liba.so",
    ),
    # Pythons.
    Pair(
        "binary-abi",
        "another Python",
        module(f"demo.cpython-311-{X86}"),
        module(f"demo.cpython-312-{X86}"),
        ("CPython 3.11", "python3.12"),
        path=f"python/demo.cpython-311-{X86}",
        severity="error",
    ),
    Pair(
        "binary-abi",
        "one digit",
        module(f"demo.cpython-310-{X86}"),
        module(f"demo.cpython-39-{X86}"),
        ("CPython 3.10", "python3.9"),
        path=f"python/demo.cpython-310-{X86}",
        target="python3.9-x86_64",
        severity="error",
    ),
    Pair(
        "binary-abi",
        "free-threaded",
        module(f"demo.cpython-313t-{X86}"),
        module(f"demo.cpython-313-{X86}"),
        ("CPython 3.13t",),
        path=f"python/demo.cpython-313t-{X86}",
        target="python3.13-x86_64",
        severity="error",
    ),
    Pair(
        "binary-abi",
        "a debug build",
        module(f"demo.cpython-312d-{X86}"),
        module("demo.abi3.so"),
        path=f"python/demo.cpython-312d-{X86}",
        severity="error",
    ),
    *[
        Pair(
            "binary-abi",
            f"the right one beside: {right}",
            module(f"demo.cpython-311-{X86}", right),
            module(right),
            path=f"python/demo.cpython-311-{X86}",
            severity="warning",
        )
        for right in (f"demo.cpython-312-{X86}", "demo.abi3.so", "demo.so")
    ],
    *[
        Pair(
            "binary-abi",
            f"another one beside: {other}",
            module(f"demo.cpython-311-{X86}", other),
            module(other),
            path=f"python/demo.cpython-311-{X86}",
            severity="error",
        )
        for other in (
            f"demo2.cpython-312-{X86}",
            f"other/demo.cpython-312-{X86}",
            "demo.pypy310-pp73-x86_64-linux-gnu.so",
        )
    ],
    # What the kernel or a newer loader minds.
    Pair(
        "binary-executable-stack",
        "linked so",
        lambda: {EXT: elf_files.with_executable_stack()},
        one(),
        ("PT_GNU_STACK",),
    ),
    Pair(
        "binary-executable-stack",
        "assembler without a note",
        lambda: {EXT: elf_files.of_assembler(note=False)},
        lambda: {EXT: elf_files.of_assembler(note=True)},
    ),
    Pair(
        "binary-executable-stack",
        "no segment that says otherwise",
        lambda: {EXT: elf_files.without_stack_segment(library())},
        one(),
    ),
    Pair(
        "binary-text-relocations",
        "not -fPIC",
        lambda: {EXT: elf_files.with_text_relocations()},
        one(source="int somewhere; int *where(void) { return &somewhere; }"),
        ("DT_TEXTREL",),
    ),
    # Damaged files.
    *[
        Pair(
            "binary-unreadable",
            f"cut off after {size}",
            lambda size=size: {EXT: library(needed=("libz.so.1",))[:size]},  # type: ignore[misc]
            one(needed=("libz.so.1",)),
            ("it cannot be read: ",),
        )
        for size in (4, 5, 20, 64, 300)
    ],
    Pair(
        "binary-unreadable",
        "a text that begins so",
        lambda: {"python/notes.txt": b"\x7fELF is how they begin\n"},
        lambda: {"python/notes.txt": b"ELF is how they begin\n"},
        path="python/notes.txt",
    ),
]


def bytes_of(make: Callable[[], Files]) -> list[tuple[str, bytes]]:
    return [(path, data) for path, data in make().items() if isinstance(data, bytes)]


BY_NAME = {f"{pair.code}: {pair.what}": pair for pair in PAIRS}
assert len(BY_NAME) == len(PAIRS)


@pytest.mark.parametrize("name", BY_NAME)
def test_a_layer_that_breaks_a_rule_is_told(tmp_path: Path, name: str) -> None:
    pair = BY_NAME[name]
    found = findings(tmp_path, pair.bad(), pair.target)
    assert codes(found) == [pair.code], found
    (finding,) = found
    assert finding.path == pair.path
    assert all(text in finding.message for text in pair.says), finding.message
    assert pair.fix in finding.fix
    assert finding.severity == (pair.severity or finding.severity)
    assert finding.package is None


@pytest.mark.parametrize("name", BY_NAME)
def test_a_layer_that_just_does_not_break_it_is_not(tmp_path: Path, name: str) -> None:
    pair = BY_NAME[name]
    assert findings(tmp_path, pair.good(), pair.target) == []


def test_every_rule_is_met_both_ways() -> None:
    rules = tomllib.loads(files("layerbuild.checks").joinpath("rules.toml").read_text("utf-8"))
    assert {pair.code for pair in PAIRS} == {code for code in rules if code.startswith("binary-")}
    for pair in PAIRS:
        assert pair.bad is not pair.good


def test_a_file_for_another_machine_is_told_once(tmp_path: Path) -> None:
    """What else is wrong with it does not matter."""
    data = library(
        needs={"libc.so.6": ("GLIBC_2.99",)}, needed=("libGL.so.1", "libc.musl-x86_64.so.1"), machine="aarch64"
    )
    assert codes(findings(tmp_path, {f"python/demo.cpython-39-{X86}": data})) == ["binary-machine"]


def test_a_file_for_musl_is_told_once(tmp_path: Path) -> None:
    data = library(needed=("libGL.so.1", "libc.musl-x86_64.so.1"))
    assert codes(findings(tmp_path, {f"python/demo.cpython-39-{X86}": data})) == ["binary-musl"]


def test_a_file_can_have_several_findings(tmp_path: Path) -> None:
    data = library(
        needs={"libc.so.6": ("GLIBC_2.99",), "libstdc++.so.6": ("GLIBCXX_3.4.99", "CXXABI_1.3.99")},
        needed=("libGL.so.1", "libwhat.so"),
        flags=["-Wl,-z,execstack"],
    )
    found = findings(tmp_path, {f"python/demo.cpython-39-{X86}": data})
    assert sorted(codes(found)) == [
        "binary-abi",
        "binary-executable-stack",
        "binary-glibc",
        "binary-library-absent",
        "binary-library-unknown",
        "binary-libstdcxx",
        "binary-libstdcxx",
    ]


def test_a_library_for_another_machine_is_not_found(tmp_path: Path) -> None:
    layer = {EXT: library(needed=("libdemo.so.1",)), "lib/libdemo.so.1": library(machine="aarch64")}
    assert sorted(codes(findings(tmp_path, layer))) == ["binary-library-unknown", "binary-machine"]


def test_a_library_that_is_cut_off_is_not_found(tmp_path: Path) -> None:
    layer = {EXT: library(needed=("libdemo.so.1",)), "lib/libdemo.so.1": library()[:100]}
    assert sorted(codes(findings(tmp_path, layer))) == ["binary-library-unknown", "binary-unreadable"]


def test_a_link_is_told_of_as_what_it_leads_to(tmp_path: Path) -> None:
    layer: Files = {"lib/libdemo.so.1.2": library(needed=("libGL.so.1",)), "lib/libdemo.so.1": "libdemo.so.1.2"}
    (finding,) = findings(tmp_path, layer)
    assert finding.path == "lib/libdemo.so.1.2"


@pytest.mark.parametrize("version", ["GLIBC_" + "9" * 5000, "GLIBCXX_3.4." + "9" * 5000, "GCC_" + "9." * 3000 + "9"])
def test_absurd_versions_stop_nothing(tmp_path: Path, version: str) -> None:
    """Python refuses to make numbers of so many digits."""
    findings(tmp_path, needs("libc.so.6", version)())


def test_versions_with_digits_of_other_scripts_stop_nothing(tmp_path: Path) -> None:
    findings(
        tmp_path,
        {EXT: library(needs={"libc.so.6": ("GLIBC_2.17",)}).replace(b"GLIBC_2.17", "GLIBC_٩٩".encode())},
    )


def test_glibc_itself_in_the_layer_is_never_found(tmp_path: Path) -> None:
    """Python has loaded the runtime's own long before."""
    layer = {
        EXT: library(needs={"libc.so.6": ("GLIBC_2.99",)}, rpath="$ORIGIN/../demo.libs"),
        f"{LIBS}/libc.so.6": library("libc.so.6", defines=("GLIBC_2.99",)),
    }
    assert codes(findings(tmp_path, layer)) == ["binary-glibc"]


def test_two_targets_have_findings_of_their_own(tmp_path: Path) -> None:
    tree = read_folder(write_folder(tmp_path / "opt", needs("libc.so.6", "GLIBC_2.28")()), "test")
    found = check_layer(tree, [target_named(AL2), target_named(AL2023)])
    (finding,) = (finding for finding in found if finding.code == "binary-glibc")
    assert finding.targets == (AL2,)
    found = check_layer(tree, [target_named(AL2), target_named("python3.10-x86_64")])
    assert sorted(finding.targets for finding in found if finding.code == "binary-glibc") == [
        ("python3.10-x86_64",),
        (AL2,),
    ]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (f"a/demo.cpython-312-{X86}", ("a/demo", "3.12", "x86_64-linux-gnu")),
        ("demo.cpython-39-aarch64-linux-gnu.so", ("demo", "3.9", "aarch64-linux-gnu")),
        (f"demo.cpython-313td-{X86}", ("demo", "3.13td", "x86_64-linux-gnu")),
        ("demo.v1.cpython-37m-x86_64-linux-gnu.so", ("demo.v1", "3.7m", "x86_64-linux-gnu")),
        ("demo.cpython-312-darwin.so", ("demo", "3.12", "darwin")),
        ("demo.abi3.so", None),
        ("demo.so", None),
        ("demo.cpython-312.so", None),
        (f"demo.cpython-312-{X86}.1", None),
        ("demo.cpython-312.pyc", None),
        (f".cpython-312-{X86}", None),
    ],
)
def test_what_a_name_says_of_an_extension_module(path: str, expected: tuple[str, str, str] | None) -> None:
    assert extension_of(path) == expected


# The facts that the rules are held against.


def test_every_target_has_its_facts() -> None:
    for target in all_targets():
        known = system_libraries(target)
        assert known["libc.so.6"].present
        assert known["libc.so.6"].sure
        assert all(one.fix for one in known.values() if not one.present), target
        assert all(one.source for one in known.values())
        assert known[f"lib{target.runtime.name}.so.1.0"].present
        assert known["libmvec.so.1"].present == (target.arch == "x86_64")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (AL2, {"GLIBC": (2, 26), "GLIBCXX": (3, 4, 24), "CXXABI": (1, 3, 11), "GCC": (7, 0, 0)}),
        (AL2023_ARM, {"GLIBC": (2, 34), "GLIBCXX": (3, 4, 33), "CXXABI": (1, 3, 15), "GCC": (14, 0, 0)}),
    ],
)
def test_the_newest_symbol_versions(name: str, expected: dict[str, tuple[int, ...]]) -> None:
    assert symbol_limits(target_named(name)) == expected


def test_versions_are_compared_as_numbers() -> None:
    assert version_of("3.4.9") < version_of("3.4.29") < version_of("3.5")


FITS = {"machine": "x86_64", "bits": 64, "type": "shared"}


def _look_up(there: dict[str, str], path: str) -> str | None:
    return there.get(normpath(path))


def test_lib_is_the_folder_that_amazon_linux_has() -> None:
    """$LIB in a search path is lib64 there, whatever it is on the machine that checks."""
    data = {"needed": ["liba.so"], "runpath": ["$ORIGIN/../$LIB", "/opt/${LIB}/x"], **FITS}
    for place in ("/opt/lib64/liba.so", "/opt/lib64/x/liba.so"):
        layer: dict[str, dict[str, Any]] = {"/opt/bin/ext.so": data, place: FITS}
        there = {str(path): str(path) for path in layer}
        (need,) = Loader(layer, partial(_look_up, there), target_named(AL2023)).needs()
        assert need.found == place


# Real wheels, in layers of ours.

WHEELS: list[tuple[str, Callable[[], Files], Callable[[], Files]]] = [
    ("binary-glibc", needs("libc.so.6", "GLIBC_2.99"), needs("libc.so.6", "GLIBC_2.17")),
    ("binary-machine", one(machine="aarch64"), one()),
    ("binary-library-absent", one(needed=("libGL.so.1",)), one(needed=("libz.so.1",))),
    ("binary-abi", module(f"demo/ext.cpython-311-{X86}"), module(f"demo/ext.cpython-312-{X86}")),
    ("binary-libstdcxx", bundled, lambda: bundled(rpath="$ORIGIN/../demo.libs")),
]


def wheel_of(folder: Path, layer: Files, version: str = "1.0") -> Path:
    contents = {path.removeprefix("python/"): data for path, data in layer.items() if isinstance(data, bytes)}
    made = {"demo/__init__.py": b"", **contents}
    return make_wheel(folder, "demo", version, made, tag="cp312-cp312-manylinux_2_17_x86_64")


@pytest.mark.parametrize(("code", "bad", "good"), WHEELS, ids=[code for code, _, _ in WHEELS])
def test_a_finding_in_a_wheel_names_the_distribution(
    tmp_path: Path, code: str, bad: Callable[[], Files], good: Callable[[], Files]
) -> None:
    tree = tree_of_layer(lay_out(wheel_of(tmp_path, bad())), "demo")
    (finding,) = findings_in(tree)
    assert (finding.code, finding.package) == (code, "demo 1.0")
    assert finding.path is not None
    assert finding.path.startswith(f"{SITE}/demo/ext.")
    assert findings_in(tree_of_layer(lay_out(wheel_of(tmp_path, good())), "demo")) == []


@pytest.mark.parametrize(("code", "bad", "good"), WHEELS, ids=[code for code, _, _ in WHEELS])
def test_make_refuses_a_wheel_that_would_not_load(
    project: Path,
    cli: Cli,
    wheelhouse: Path,
    index_server: IndexServer,
    code: str,
    bad: Callable[[], Files],
    good: Callable[[], Files],
) -> None:
    recipe = project / "recipes/demo/recipe.toml"
    recipe.parent.mkdir(parents=True)
    recipe.write_text('name = "demo"\nrequirements = ["demo==1.0"]\n')
    wheel_of(wheelhouse, bad())
    wheel_of(wheelhouse, good(), "2.0")

    ran = cli("make", "demo", "--target", AL2023)
    assert ran.code == 1
    assert f"[{code}]" in ran.err
    assert not list(project.glob("dist/*.zip"))

    recipe.write_text('name = "demo"\nrequirements = ["demo==2.0"]\n')
    ran = cli("make", "demo", "--target", AL2023, "--json")
    assert ran.code == 0, ran.err
    (layer,) = ran.json["layers"]
    checked = cli("check", project / layer["path"], "--select", "binary")
    assert checked.code == 0, checked.out
    assert "binary-" not in checked.out


# Files for another machine that nothing loads.


@pytest.mark.parametrize(
    ("layer", "severity"),
    [
        (lambda: {"python/demo/linux-x86_64/helper": program(machine="x86_64")}, "warning"),
        (lambda: {"python/demo/helper": program(machine="x86_64")}, "warning"),
        (lambda: {"python/demo/attach_linux_amd64.so": library(machine="x86_64")}, "warning"),
        (lambda: {"python/demo/attach.so": library(machine="x86_64")}, "error"),
        (lambda: {"bin/linux-tool": program(machine="x86_64")}, "error"),
        (lambda: {f"python/demo/ext.cpython-312-{X86}": library(machine="x86_64")}, "error"),
        (
            lambda: {
                f"python/demo/ext.cpython-312-{X86}": library(machine="x86_64"),
                "python/demo/ext.cpython-312-aarch64-linux-gnu.so": library(machine="aarch64"),
            },
            "warning",
        ),
    ],
)
def test_what_is_chosen_by_name_at_run_time_may_be_for_another_machine(
    layer: Callable[[], Files], severity: str, tmp_path: Path
) -> None:
    (found,) = findings(tmp_path, layer(), AL2023_ARM)
    assert (found.code, found.severity) == ("binary-machine", severity)


def test_another_pythons_folder_does_not_count_beside_the_right_one(tmp_path: Path) -> None:
    name = "python/lib/python3.{0}/site-packages/demo/ext.cpython-3{0}-" + X86
    both = {name.format(12): library(), name.format(13): library()}
    assert findings(tmp_path, both) == []
    assert codes(findings(tmp_path, {name.format(13): library()})) == ["binary-abi"]
