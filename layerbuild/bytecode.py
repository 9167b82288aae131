"""Bytecode: modules compiled ahead of time, as Lambda's read-only /opt lets no interpreter keep what it compiles.

Each .pyc carries an unchecked hash (PEP 552), so that it is valid whatever the dates of files are. It names its
source as it lies on Lambda, so that tracebacks read as they do there. Compiling runs no code of the modules.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
import tempfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from layerbuild.cache import scratch_file
from layerbuild.layer import MOST_FILES, UNZIPPED_LIMIT, LayerFile, SourceFile, with_derived
from layerbuild.process import run
from layerbuild.wheel import record_digest
from layerbuild.zips import DEFLATED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from layerbuild.cache import Cache
    from layerbuild.interpreters import Interpreter
    from layerbuild.layer import Layer

# Raised whenever the same inputs would give other bytes, or others would be chosen.
BYTECODE_FORMAT = 3
_LEVEL = 10
# What the imports' bytecode may always add to the zip.
_LEAST_GROWTH = 3_000_000
_HEADERS = 76
_HEADER = struct.Struct("<4I")
COMPILER = Path(__file__).with_name("bytecode_compiler.py")
COMPILER_FLAGS = ("-s", "-S", "-W", "ignore")


class Compiler(Protocol):
    """A CPython that compiles. `version` is what it says of itself, with the minor version in front."""

    @property
    def version(self) -> str: ...

    def compiled(self, members: Sequence[LayerFile]) -> list[bytes]:
        """The .pyc of each module, of one wheel; empty for those that cannot be compiled."""
        ...


class _Row(NamedTuple):
    """One .pyc: the path of its source in the layer, and where it lies in the file of all."""

    source: str
    crc: int
    compressed: int
    size: int
    offset: int
    sha256: str
    header: list[int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Compilation:
    """What was compiled into a layer.

    Attributes:
        mode: ``imports`` or ``all``.
        compiler: the full version of the CPython that compiled.
        files, unzipped: how many modules, and the bytes of their .pyc.
        left_out: how many modules were left out for want of room.
    """

    mode: str
    compiler: str
    files: int
    unzipped: int
    left_out: int

    def as_json(self) -> dict[str, Any]:
        """What a manifest says of it."""
        return {name: getattr(self, name) for name in self.__slots__}


def add_bytecode(
    layer: Layer,
    mode: str,
    loaded: Sequence[str],
    compiler: Compiler,
    cache: Cache,
    *,
    budget: int | None = None,
    growth: float = 12,
) -> tuple[Layer, Compilation]:
    """A layer with bytecode of its modules.

    Args:
        layer: without.
        mode: ``imports`` compiles what is in `loaded`, ``all`` everything.
        loaded: paths of modules in the layer, most useful first: they come first where there is not room for all.
        compiler: of the layer's runtime.
        cache: keeps what is compiled, by wheel.
        budget: greatest unzipped size of the layer in bytes, if it has one of its own.
        growth: percent by which ``imports`` may make the zip larger; 3 MB are always allowed.

    Returns:
        The layer, and what was compiled. What Python cannot compile is left out without a word, as an installer does.
    """
    modules = {
        file.path: file for file in layer.files if file.path.endswith(".py") and file.path.startswith("python/")
    }
    wanted = list(dict.fromkeys(path for path in loaded if path in modules))
    if mode == "all":
        wanted += [path for path in modules if path not in set(wanted)]
    rows = _compile([modules[path] for path in wanted], compiler, cache)
    room = _Room(layer, mode, budget, growth)
    made: dict[str, LayerFile] = {}
    files = {file.path: file for file in layer.files}
    left_out = 0
    for path in wanted:
        if path not in rows:
            continue
        row, source = rows[path]
        place = _place(path, compiler)
        if place.rpartition("/")[0] in files:  # a wheel's file of that name
            continue
        if not room.take(row, place, files.get(place)):
            left_out += 1
            continue
        made[place] = LayerFile(
            path=place, mode=0o644, method=DEFLATED, crc=row.crc, compressed=row.compressed, size=row.size,
            sha256=row.sha256, source=source, offset=row.offset, owner=modules[path].owner,
            facts={"pyc": [row.header[0] & 0xFFFF, *row.header[1:]]}, derived=True,
        )  # fmt: skip
    told = Compilation(
        mode=mode,
        compiler=compiler.version,
        files=len(made),
        unzipped=sum(file.size for file in made.values()),
        left_out=left_out,
    )
    return with_derived(layer, made.values()), told


class _Room:
    """How much bytecode a layer can still take."""

    def __init__(self, layer: Layer, mode: str, budget: int | None, growth: float) -> None:
        self._files = MOST_FILES - len(layer.files)
        self._unzipped = min(UNZIPPED_LIMIT - 1, budget or UNZIPPED_LIMIT) - layer.unzipped
        zipped = sum(file.compressed for file in layer.files)
        self._zipped = max(_LEAST_GROWTH, int(growth / 100 * zipped)) if mode == "imports" else UNZIPPED_LIMIT

    def take(self, row: _Row, place: str, replaced: LayerFile | None) -> bool:
        """Whether there is room for one more; if so, it is taken."""
        # RECORD will have a line for it, and the zip two headers.
        unzipped = row.size + len(place) + 4 - (replaced.size if replaced else 0)
        zipped = row.compressed + 3 * len(place) + _HEADERS
        if unzipped > self._unzipped or zipped > self._zipped or self._files < 1:
            return False
        self._unzipped -= unzipped
        self._zipped -= zipped
        self._files -= 1
        return True


def _place(path: str, compiler: Compiler) -> str:
    """Where the interpreter looks for a module's bytecode (PEP 3147)."""
    folder, _, name = path.rpartition("/")
    major, minor = re.findall(r"\d+", compiler.version)[:2]
    return f"{folder}/__pycache__/{name.removesuffix('.py')}.cpython-{major}{minor}.pyc"


def _compile(files: Iterable[LayerFile], compiler: Compiler, cache: Cache) -> Mapping[str, tuple[_Row, SourceFile]]:
    """The bytecode of modules, by their paths, without those that cannot be compiled."""
    by_wheel: dict[str, list[LayerFile]] = {}
    for file in files:
        if not isinstance(file.source, bytes):
            by_wheel.setdefault(file.source.sha256, []).append(file)
    found: dict[str, tuple[_Row, SourceFile]] = {}
    missing = []
    for sha256, members in by_wheel.items():
        key = _key(sha256, members, compiler)
        rows = _kept(key, cache)
        if rows is None:
            missing.append((key, members))
        else:
            found |= rows
    # The interpreters are processes of their own: threads only wait for them.
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        pieces = [(key, part) for key, members in missing for part in _parts(members)]
        results = list(pool.map(lambda piece: _run(piece[1], compiler), pieces))
    for key, members in missing:
        done = {
            path: data for (of, _), result in zip(pieces, results, strict=True) if of == key for path, data in result
        }
        found |= _keep(key, [(file.path, done[file.path]) for file in members if done.get(file.path)], cache)
    return found


def _key(sha256: str, members: Sequence[LayerFile], compiler: Compiler) -> str:
    parts = [BYTECODE_FORMAT, sha256, compiler.version, sorted(file.path for file in members)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


_PART = 64


def _parts(members: Sequence[LayerFile]) -> list[Sequence[LayerFile]]:
    """Members in portions for one process each."""
    size = _PART if hasattr(os, "fork") else 1
    return [members[start : start + size] for start in range(0, len(members), size)]


def _run(members: Sequence[LayerFile], compiler: Compiler) -> list[tuple[str, bytes]]:
    """Each module's path and its .pyc, which is empty where it cannot be compiled."""
    return [(file.path, pyc) for file, pyc in zip(members, compiler.compiled(members), strict=True)]


class LocalCompiler:
    """A CPython of this machine that compiles; it runs no code of what it compiles."""

    def __init__(self, interpreter: Interpreter) -> None:
        self._path = interpreter.path
        self.version = interpreter.version

    def compiled(self, members: Sequence[LayerFile]) -> list[bytes]:
        """See `Compiler`."""
        source = members[0].source
        assert not isinstance(source, bytes)  # noqa: S101 - the caller sorted those out
        with tempfile.TemporaryDirectory(prefix="layerbuild-") as name:
            out = Path(name, "out")
            request = {
                "archive": str(source.path),
                "files": [[file.offset, file.compressed, file.method, f"/opt/{file.path}"] for file in members],
                "out": str(out),
            }
            Path(name, "request").write_text(json.dumps(request), "utf-8")
            env: dict[str, str | None] = {name: None for name in os.environ if name.startswith("PYTHON")}
            env |= {"PYTHONHASHSEED": "0", "PYTHONIOENCODING": None, "PYTHONUTF8": None}
            command: list[str | Path] = [self._path, *COMPILER_FLAGS, COMPILER, Path(name, "request")]
            done = run(command, env=env, cwd=Path(name))
            if done.returncode:
                raise OSError(f"{self._path} cannot compile: {done.stderr.strip()[-300:]}")
            return divided(out.read_bytes(), json.loads(done.stdout))


def divided(data: bytes, sizes: Sequence[int]) -> list[bytes]:
    """Bytes in pieces of these sizes."""
    ends = list(accumulate(sizes))
    return [data[end - size : end] for size, end in zip(sizes, ends, strict=True)]


def _keep(key: str, pycs: Sequence[tuple[str, bytes]], cache: Cache) -> dict[str, tuple[_Row, SourceFile]]:
    """Keeps compiled modules, and returns where each lies."""
    from deflate import deflate_compress

    packed = bytearray()
    rows = []
    for path, data in pycs:
        # Not zlib, whose output is another with each version of it.
        small = deflate_compress(data, _LEVEL)
        digest = record_digest(hashlib.sha256(data).digest())
        header = list(_HEADER.unpack_from(data))
        rows.append(_Row(path, zlib.crc32(data), len(small), len(data), len(packed), digest, header))
        packed += small
    sha256 = hashlib.sha256(packed).hexdigest()
    place = cache.bytecode_path(sha256)
    with scratch_file(place.parent, place.name) as temporary:
        temporary.write_bytes(packed)
        cache.adopt(temporary, place)
    cache.keep_record("bytecode", key, {"sha256": sha256, "rows": rows})
    source = SourceFile(path=place, sha256=sha256)
    return {row.source: (row, source) for row in rows}


def _kept(key: str, cache: Cache) -> dict[str, tuple[_Row, SourceFile]] | None:
    """What was compiled earlier, if it is still whole."""
    record = cache.record("bytecode", key)
    if record is None or not cache.holds(cache.bytecode_path(record["sha256"]), record["sha256"]):
        return None
    source = SourceFile(path=cache.bytecode_path(record["sha256"]), sha256=record["sha256"])
    return {row[0]: (_Row(*row), source) for row in record["rows"]}
