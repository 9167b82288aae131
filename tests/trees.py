"""Layers for tests, written as a table: path to content, or to what else lies there.

The same table becomes a `Tree` without any file, a zip, or a folder. Content goes the way of real layers: its facts
are read from its bytes.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import posixpath
import stat
import struct
import subprocess
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from layerbuild.content import Content
from layerbuild.tree import Entry, Tree, _tree
from layerbuild.wheel import record_digest
from layerbuild.zips import Problem, link_target
from tests import wheels
from tests.interpreters import find_python


@dataclass(frozen=True)
class File:
    """A file that is not just content with mode 0644. `mode` None: not said; `size`: a claimed one."""

    content: str | bytes = b""
    mode: int | None = 0o644
    size: int | None = None


@dataclass(frozen=True)
class Link:
    """A symbolic link."""

    target: str
    mode: int = 0o777


@dataclass(frozen=True)
class Folder:
    """A folder that is listed itself; those that only hold something need not be."""

    mode: int | None = 0o755


Spec = str | bytes | File | Link | Folder
Table = Mapping[str, Spec]


def _file(spec: str | bytes | File) -> tuple[bytes, File]:
    file = spec if isinstance(spec, File) else File(spec)
    return (file.content.encode() if isinstance(file.content, str) else file.content), file


def tree(table: Table, *, name: str = "layer", problems: Sequence[Problem] = (), zipped: int | None = None) -> Tree:
    """The tree of a table, as if it had been read from a zip or a folder."""
    entries, contents = [], {}
    for path, spec in table.items():
        if isinstance(spec, Folder):
            entries.append(Entry(path, "folder", spec.mode, 0, "", {}))
        elif isinstance(spec, Link):
            target = spec.target.encode()
            entries.append(Entry(path, "symlink", spec.mode, len(target), "", {"target": link_target(target)}))
        else:
            data, file = _file(spec)
            content = Content(path)
            content.feed(data)
            size = len(data) if file.size is None else file.size
            digest = record_digest(hashlib.sha256(data).digest())
            entries.append(Entry(path, "file", file.mode, size, digest, content.facts()))
            contents[path] = data
    return _tree(name, entries, problems, zipped=zipped, read=contents.__getitem__)


def write_zip(path: Path, table: Table, *, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    """A zip of a table, with modes as Info-ZIP writes them; a `mode` of None leaves them out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for inner, spec in table.items():
            if isinstance(spec, Folder):
                info, data, kind, mode = zipfile.ZipInfo(f"{inner}/"), b"", stat.S_IFDIR, spec.mode
            elif isinstance(spec, Link):
                info, data, kind, mode = zipfile.ZipInfo(inner), spec.target.encode(), stat.S_IFLNK, spec.mode
            else:
                data, file = _file(spec)
                info, kind, mode = zipfile.ZipInfo(inner), stat.S_IFREG, file.mode
            info.create_system = 3
            info.compress_type = compression
            info.external_attr = 0 if mode is None else (kind | mode) << 16
            archive.writestr(info, data)
    return path


def write_folder(path: Path, table: Table) -> Path:
    """A folder laid out as /opt."""
    path.mkdir(parents=True, exist_ok=True)
    modes: dict[Path, int] = {}
    for inner, spec in table.items():
        place = path / inner
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(spec, Folder):
            place.mkdir(exist_ok=True)
            modes[place] = 0o755 if spec.mode is None else spec.mode
        elif isinstance(spec, Link):
            place.symlink_to(spec.target)
        else:
            data, file = _file(spec)
            place.write_bytes(data)
            modes[place] = 0o644 if file.mode is None else file.mode
    for place, mode in modes.items():
        place.chmod(mode)
    return path


def dist(
    name: str = "demo",
    version: str = "1.0",
    *,
    requires: Sequence[str] = (),
    files: Table | None = None,
    site: str = "python",
    metadata: str = "",
    record: bool = True,
    installed: bool = True,
) -> dict[str, Spec]:
    """The table of one installed distribution.

    Args:
        files: path below `site` to content; by default one module named after the distribution.
        metadata: further lines of METADATA.
        record: whether it has a RECORD.
        installed: whether the files that RECORD lists are there.
    """
    stem = name.replace("-", "_").replace(".", "_")
    given: Table = {f"{stem}.py": "VERSION = 1\n"} if files is None else files
    info = f"{stem}-{version}.dist-info"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {text}" for text in requires]
    own: dict[str, Spec] = {f"{info}/METADATA": "\n".join(lines) + f"\n{metadata}"}
    rows = []
    for path, spec in {**given, **own}.items():
        if isinstance(spec, Link):
            rows.append([path, "", ""])
        elif not isinstance(spec, Folder):
            data = _file(spec)[0]
            rows.append([path, wheels.record_digest(data), str(len(data))])
    if record:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([*rows, [f"{info}/RECORD", "", ""]])
        own[f"{info}/RECORD"] = text.getvalue()
    found = {**(given if installed else {}), **own}
    return {posixpath.normpath(f"{site}/{path}"): spec for path, spec in found.items()}


_ELF_TYPES = {"object": 1, "executable": 2, "shared": 3}
_PT_GNU_STACK, _READ_WRITE = 0x6474E551, 6
_ELF_MACHINES = {"x86_64": 62, "aarch64": 183}


def elf(kind: str = "executable", machine: str = "x86_64") -> bytes:
    """The smallest ELF file: a header, and a segment that says that the stack need not be executable."""
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    sizes = (64, 0, 0, 64, 56, 1, 64, 0, 0)
    header = struct.pack("<2HL3QL6H", _ELF_TYPES[kind], _ELF_MACHINES[machine], 1, 0, *sizes)
    return ident + header + struct.pack("<2L6Q", _PT_GNU_STACK, _READ_WRITE, 0, 0, 0, 0, 0, 16)


@cache
def bytecode(version: str, mode: str, source: str) -> bytes:
    """The pyc file that a real interpreter makes of `source`; the test is skipped where there is none.

    Args:
        version: such as ``3.12``.
        mode: ``timestamp``, ``checked-hash`` or ``unchecked-hash``.
    """
    program = (
        "import py_compile, sys, tempfile, pathlib\n"
        "with tempfile.TemporaryDirectory() as folder:\n"
        "    path = pathlib.Path(folder, 'demo.py')\n"
        "    path.write_bytes(sys.argv[2].encode())\n"
        "    mode = py_compile.PycInvalidationMode[sys.argv[1].replace('-', '_').upper()]\n"
        "    made = py_compile.compile(str(path), cfile=f'{folder}/demo.pyc', doraise=True, invalidation_mode=mode)\n"
        "    sys.stdout.buffer.write(pathlib.Path(made).read_bytes())\n"
    )
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "SOURCE_DATE_EPOCH"))}
    done = subprocess.run(
        [find_python(version), "-c", program, mode, source], capture_output=True, check=True, env=clean
    )
    return done.stdout


def told(findings: Sequence[Any]) -> list[tuple[str, str, str | None]]:
    """Code, severity and path of each finding."""
    return [(one.code, one.severity, one.path) for one in findings]
