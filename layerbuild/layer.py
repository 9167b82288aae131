"""Layers: what will lie under /opt, as a map of path to file. Nothing here touches the disk."""

from __future__ import annotations

import hashlib
import posixpath
import re
import zlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from layerbuild.errors import BuildError
from layerbuild.lock import normal_name
from layerbuild.recipe import prune_sets
from layerbuild.wheel import record_digest
from layerbuild.zips import STORED, inflate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from layerbuild.recipe import Prune
    from layerbuild.wheel import Member, Wheel

# The function and all its layers must be smaller than this, unzipped (AWS Lambda quotas).
UNZIPPED_LIMIT = 262_144_000
# A zip without zip64 lists no more.
MOST_FILES = 0xFFFE
INSTALLER = "layerbuild"

# Entry points specification: names of programs as it recommends them, and what they call.
_SCRIPT_NAME = re.compile(r"\w[\w.-]*")
_NO_FACTS: dict[str, Any] = {}
_FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


class Source(Protocol):
    """A file that holds members' compressed bytes; `sha256` (hex) tells it from others."""

    @property
    def path(self) -> Path: ...
    @property
    def sha256(self) -> str: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFile:
    """A `Source` that is nothing besides."""

    path: Path
    sha256: str


class LayerFile(NamedTuple):
    """One file of a layer.

    Attributes:
        path: below /opt, with forward slashes.
        mode: 0o644 or 0o755.
        method, crc, compressed, size: as in the zip format; sizes in bytes.
        sha256: of the content, in RECORD's form.
        source: the file that holds the compressed bytes, mostly a wheel, or the bytes themselves.
        offset: where they begin in it.
        owner: the wheel whose RECORD lists the file.
        facts: what `layerbuild.content` says of it.
        derived: whether it was made out of another file of the layer: its bytes are no part of what the layer is.
    """

    path: str
    mode: int
    method: int
    crc: int
    compressed: int
    size: int
    sha256: str
    source: Source | bytes
    offset: int
    owner: Wheel
    facts: dict[str, Any] = {}
    derived: bool = False

    def content(self) -> bytes:
        """The file's bytes."""
        if isinstance(self.source, bytes):
            return self.source
        with self.source.path.open("rb") as file:
            return b"".join(inflate(file, self.offset, self.compressed, self.method, self.size))


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where packages go under /opt, and which Python scripts there name."""

    site: str = "python"
    interpreter: str

    @classmethod
    def versioned(cls, version: tuple[int, int]) -> Place:
        """For one runtime: ``python/lib/pythonX.Y/site-packages``."""
        python = "python{}.{}".format(*version)
        return cls(site=f"python/lib/{python}/site-packages", interpreter=f"/var/lang/bin/{python}")

    @classmethod
    def shared(cls) -> Place:
        """For all runtimes: ``python/``, which every one of them searches."""
        return cls(site="python", interpreter="/var/lang/bin/python3")


@dataclass(frozen=True, kw_only=True)
class Layer:
    """All files of a layer, sorted by path, the wheels that they came from, and the folder they are installed in."""

    files: tuple[LayerFile, ...]
    wheels: tuple[Wheel, ...]
    site: str = "python"
    idle_patterns: tuple[str, ...] = ()

    @cached_property
    def unzipped(self) -> int:
        """Bytes once extracted, as Lambda counts them: the sum of all files."""
        return sum(file.size for file in self.files)

    def read(self, path: str) -> bytes:
        """The content of the file at `path`."""
        return next(file for file in self.files if file.path == path).content()

    @cached_property
    def content_digest(self) -> str:
        """``sha256:…`` over every path, mode and content: the same however the zip was compressed.

        Of bytecode, only that it is there counts: another patch version of the compiler may write it otherwise.
        """
        contents = ((file, "derived" if file.derived else file.sha256) for file in self.files)
        lines = "".join(f"{file.path}\0{file.mode:o}\0{content}\n" for file, content in contents)
        return "sha256:" + hashlib.sha256(lines.encode()).hexdigest()


def compose(wheels: Sequence[Wheel], place: Place, *, prune: Prune, scripts: bool = False) -> Layer:
    """Lays out wheels as an installer would, without unpacking them.

    Args:
        wheels: what goes in.
        place: where.
        prune: what to leave out.
        scripts: whether to make ``bin/`` from scripts and entry points.

    Raises:
        BuildError: two wheels claim one path with different content, or one needs a folder where another
            has a file.
    """
    wheels = sorted(wheels, key=lambda wheel: normal_name(wheel.name))
    files: dict[str, LayerFile] = {}
    again: list[LayerFile] = []
    for wheel in wheels:
        for file in _placed(wheel, place, scripts=scripts):
            other = files.setdefault(file.path, file)
            if other is file:
                continue
            if (other.sha256, other.mode) != (file.sha256, file.mode):
                raise _collision(file.path, other.owner, wheel)
            again.append(file)
    _refuse_files_as_folders(files)
    kept, idle = _pruned(files.values(), place, prune)
    left = {file.path for file in kept}
    made = _records([*kept, *(file for file in again if file.path in left)], wheels, place)
    for file in made:
        if file.path in files:
            raise _unusable(file.owner, f"{files[file.path].owner.filename} brings a {file.path} of its own")
    # Code point order, which is also the order of the names' UTF-8 bytes.
    complete = sorted([*kept, *made], key=lambda file: file.path)
    return Layer(files=tuple(complete), wheels=tuple(wheels), site=place.site, idle_patterns=idle)


def _unusable(wheel: Wheel, reason: str) -> BuildError:
    return BuildError("wheel-invalid", f"{wheel.filename} cannot be used", causes=[reason])


def _placed(wheel: Wheel, place: Place, *, scripts: bool) -> Iterator[LayerFile]:
    """The files of one wheel at their places, but for what is made anew (RECORD, INSTALLER).

    Headers have no place: nothing is compiled on Lambda.
    """
    info, data = f"{wheel.dist_info}/", f"{wheel.data}/"
    remade = {info + name for name in ("RECORD", "RECORD.jws", "RECORD.p7s", "INSTALLER")}
    prefix, notes = f"{place.site}/", wheel.notes
    for member in wheel.members:
        path, mode, method, crc, compressed, size, offset, sha256 = member
        if path in remade:
            continue
        if path.startswith(data):
            category, _, rest = path[len(data) :].partition("/")
            if not rest:
                raise _unusable(wheel, f"{path} is a file where its format has a folder")
            if category == "scripts" and scripts:
                yield _script(wheel, member, f"bin/{rest}", place)
            if category in ("scripts", "headers"):
                continue
            path = _data_path(wheel, category, rest, place)
        else:
            path = prefix + path
        facts = notes.get(member.path, _NO_FACTS)
        yield LayerFile(path, mode, method, crc, compressed, size, sha256, wheel, offset, wheel, facts)
    if scripts:
        yield from _entry_points(wheel, place)


def _entry_points(wheel: Wheel, place: Place) -> Iterator[LayerFile]:
    """A program for each console and GUI entry point of a wheel."""
    for name, function in wheel.scripts:
        if not _SCRIPT_NAME.fullmatch(name) or not _FUNCTION.fullmatch(function):
            raise _unusable(wheel, f"its entry point {name!r} = {function!r} names no program")
        yield made_file(f"bin/{name}", _entry_point(function, place), wheel, mode=0o755)


def _data_path(wheel: Wheel, category: str, rest: str, place: Place) -> str:
    """Where a file of the wheel's data folder goes (the keys of an install scheme)."""
    match category:
        case "purelib" | "platlib":
            return f"{place.site}/{rest}"
        case "data":
            return f"python/{rest}"
        case "opt":  # no installer's: of the wheels that the container builder makes of an image's files
            return rest
    raise _unusable(wheel, f"its data folder has {category!r}, which is no place of an install scheme")


def _script(wheel: Wheel, member: Member, path: str, place: Place) -> LayerFile:
    """A script of a wheel: programs as they are, Python scripts with the runtime's interpreter."""
    program = LayerFile(
        path, 0o755, *member[2:6], member.sha256, wheel, member.offset, wheel, wheel.notes.get(member.path, _NO_FACTS)
    )
    content = program.content()
    if content.startswith(b"#!python"):
        rest = content.partition(b"\n")[2]
        return made_file(path, f"#!{place.interpreter}\n".encode() + rest, wheel, mode=0o755)
    return program


def _entry_point(function: str, place: Place) -> bytes:
    """A program that calls an entry point. A child process does not search /opt by itself, so it says where."""
    module, _, attribute = function.partition(":")
    name = attribute.split(".")[0]
    return (
        f"#!{place.interpreter}\n"
        "import sys\n"
        f"sys.path[1:1] = ['/opt/{place.site}']\n"
        f"from {module} import {name}\n"
        f"sys.exit({attribute}())\n"
    ).encode()


def made_file(path: str, content: bytes, owner: Wheel, *, mode: int = 0o644) -> LayerFile:
    """A file whose bytes are made here. Stored, as what deflate makes of them differs between zlib versions."""
    digest = record_digest(hashlib.sha256(content).digest())
    facts = {"shebang": content.partition(b"\n")[0].decode()} if content.startswith(b"#!") else _NO_FACTS
    crc, size = zlib.crc32(content), len(content)
    return LayerFile(path, mode, STORED, crc, size, size, digest, content, 0, owner, facts)


def _collision(path: str, one: Wheel, other: Wheel) -> BuildError:
    return BuildError(
        "path-collision",
        f"two wheels carry {path} with different content",
        causes=[one.filename, other.filename],
        hint="drop one of them; where only unneeded files collide, prune cannot help: put them into two layers",
    )


def _refuse_files_as_folders(files: dict[str, LayerFile]) -> None:
    folders: dict[str, LayerFile] = {}
    for path, file in files.items():
        folder = path.rpartition("/")[0]
        while folder and folder not in folders:
            folders[folder] = file
            folder = folder.rpartition("/")[0]
    for path in sorted(folders.keys() & files.keys()):
        raise _collision(path, files[path].owner, folders[path].owner)


def _pruned(files: Iterable[LayerFile], place: Place, prune: Prune) -> tuple[list[LayerFile], tuple[str, ...]]:
    """What is left after pruning, and those of the recipe's patterns that matched nothing."""
    if not prune.sets and not prune.patterns:
        return list(files), ()
    from pathspec import GitIgnoreSpec

    everything = GitIgnoreSpec.from_lines(
        [*(line for name in prune.sets for line in prune_sets()[name]), *prune.patterns]
    )
    # A dist-info folder is what importlib.metadata lives on: only a pattern that names it reaches in.
    naming = GitIgnoreSpec.from_lines([line for line in prune.patterns if ".dist-info" in line])
    prefix = f"{place.site}/"
    kept, paths = [], []
    for file in files:
        path = file.path.removeprefix(prefix)
        in_dist_info = path.startswith(f"{file.owner.dist_info}/")
        if not (naming if in_dist_info else everything).match_file(path):
            kept.append(file)
        paths.append((path, in_dist_info))
    idle = []
    for line in prune.patterns:
        if not line.strip() or line.startswith("#"):
            continue
        spec = GitIgnoreSpec.from_lines([line.removeprefix("!")])
        if not any(spec.match_file(path) for path, within in paths if ".dist-info" in line or not within):
            idle.append(line)
    return kept, tuple(idle)


def _records(files: Sequence[LayerFile], wheels: Sequence[Wheel], place: Place) -> list[LayerFile]:
    """INSTALLER and RECORD of every wheel, for what of it is in the layer."""
    installer = f"{INSTALLER}\n".encode()
    prefix = f"{place.site}/"
    rows: dict[str, list[str]] = {wheel.sha256: [] for wheel in wheels}
    for file in files:
        path = file.path
        relative = path[len(prefix) :] if path.startswith(prefix) else posixpath.relpath(path, place.site)
        rows[file.owner.sha256].append(_row(relative, file.sha256, file.size))
    made = []
    left = {file.path for file in files}
    for wheel in wheels:
        if f"{prefix}{wheel.dist_info}/METADATA" not in left:
            continue  # pruned by name: without it the distribution is not installed
        info = made_file(f"{prefix}{wheel.dist_info}/INSTALLER", installer, wheel)
        lines = rows[wheel.sha256]
        lines.append(_row(f"{wheel.dist_info}/INSTALLER", info.sha256, info.size))
        lines.append(f"{wheel.dist_info}/RECORD,,\n")
        made += [info, made_file(f"{prefix}{wheel.dist_info}/RECORD", "".join(sorted(lines)).encode(), wheel)]
    return made


def _row(path: str, sha256: str, size: int) -> str:
    return f"{_quoted(path)},sha256={sha256},{size}\n"


def _quoted(path: str) -> str:
    return '"' + path.replace('"', '""') + '"' if "," in path or '"' in path else path


def with_derived(layer: Layer, derived: Iterable[LayerFile]) -> Layer:
    """A layer with files made out of its others; RECORD lists them without hash and size, as it does bytecode."""
    files = {file.path: file for file in layer.files}
    rows: dict[str, list[str]] = {}
    for file in derived:
        files[file.path] = file
        record = f"{layer.site}/{file.owner.dist_info}/RECORD"
        rows.setdefault(record, []).append(f"{_quoted(posixpath.relpath(file.path, layer.site))},,\n")
    for path, new in rows.items():
        if path in files:
            kept = files[path].content().decode().splitlines(keepends=True)
            taken = {row.partition(",")[0] for row in new}
            lines = [line for line in kept if line.partition(",")[0] not in taken]
            files[path] = made_file(path, "".join(sorted([*lines, *new])).encode(), files[path].owner)
    return replace(layer, files=tuple(sorted(files.values(), key=lambda file: file.path)))
