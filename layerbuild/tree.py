"""What lies under /opt, of any layer: ours, a stranger's zip, a folder. Read whole, never unpacked to disk."""

from __future__ import annotations

import contextlib
import hashlib
import os
import posixpath
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from layerbuild.content import Content
from layerbuild.errors import UsageError
from layerbuild.lock import normal_name
from layerbuild.process import interrupted, stop_if_interrupted
from layerbuild.wheel import normal_version, record_digest
from layerbuild.zips import LARGEST, Problem, ZipContents, ZipError, ZipReader, link_target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from layerbuild.cache import Cache
    from layerbuild.layer import Layer
    from layerbuild.zips import ZipMember

# Part of the key under which trees are cached: to be raised whenever what is read changes.
TREE_FORMAT = 2

_MAX_HOPS = 40
_DEEPEST = 200
_CHUNK = 1 << 20
_WORKERS = 4
_INFO = re.compile(r"(?:(?P<site>.+)/)?(?P<info>[^/]+\.(?:dist|egg)-info)/(?:METADATA|PKG-INFO)")


class Entry(NamedTuple):
    """One file, folder or symbolic link.

    Attributes:
        path: below /opt, with forward slashes.
        kind: ``file``, ``folder`` or ``symlink``.
        mode: permission bits, or None where a zip does not say them.
        size: in bytes.
        sha256: of the content, in RECORD's form; empty where it could not be read.
        facts: what `layerbuild.content` says of it, or ``{"target": …}`` of a link.
    """

    path: str
    kind: str
    mode: int | None
    size: int
    sha256: str
    facts: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Distribution:
    """One installed distribution.

    Attributes:
        name, version: as its metadata say, not normalised.
        requires: Requires-Dist lines.
        site: the folder that it is installed in, below /opt.
        info: its dist-info folder, below /opt.
        recorded: the paths below /opt that its RECORD lists, whether they are there or not; None without a RECORD.
    """

    name: str
    version: str
    requires: tuple[str, ...]
    site: str
    info: str
    recorded: frozenset[str] | None

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def normal_name(self) -> str:
        """The name as it is compared (PEP 503)."""
        return normal_name(self.name)

    @property
    def normal_version(self) -> str:
        """The version as it is compared (PEP 440)."""
        return normal_version(self.version)


@dataclass(frozen=True, kw_only=True)
class Tree:
    """A layer's files.

    Attributes:
        name: what the user calls it.
        entries: by path, sorted.
        distributions: what is installed in it, sorted by place.
        problems: what is wrong with the zip or the folder itself.
        zipped: bytes of the zip, or None for a folder.
        digest: sha256 of the zip, where it was needed; else empty.
        read: gives the content of a file by its path.
    """

    name: str
    entries: dict[str, Entry]
    distributions: tuple[Distribution, ...]
    problems: tuple[Problem, ...] = ()
    zipped: int | None = None
    digest: str = ""
    read: Callable[[str], bytes] = field(repr=False, default=lambda _path: b"")

    @cached_property
    def unzipped(self) -> int:
        """Bytes once extracted: the sum of all files."""
        return sum(entry.size for entry in self.entries.values())

    @cached_property
    def owners(self) -> dict[str, Distribution]:
        """The distribution of each path that a RECORD lists or that lies in a dist-info folder."""
        found: dict[str, Distribution] = {}
        for distribution in self.distributions:
            for path in distribution.recorded or ():
                found.setdefault(path, distribution)
        return found

    def owner(self, path: str) -> Distribution | None:
        """The distribution that a path belongs to, if that is known."""
        if owner := self.owners.get(path):
            return owner
        folder = path
        while folder := folder.rpartition("/")[0]:
            if folder in self._infos:
                return self._infos[folder]
        return None

    @cached_property
    def _infos(self) -> dict[str, Distribution]:
        return {distribution.info: distribution for distribution in self.distributions}

    @cached_property
    def children(self) -> dict[str, dict[str, bool]]:
        """What each folder holds: its name to whether that is a folder. A link counts as what it leads to."""
        found: dict[str, dict[str, bool]] = {}
        links = [path for path, entry in self.entries.items() if entry.kind == "symlink"]
        for entry in self.entries.values():
            path, is_folder = entry.path, entry.kind == "folder"
            if entry.kind == "symlink":
                path, is_folder = path.rpartition("/")[0], True
            while path:
                folder, _, name = path.rpartition("/")
                names = found.setdefault(folder, {})
                if name in names:
                    break
                names[name] = is_folder
                path, is_folder = folder, True
        for path in links:
            found.setdefault(path.rpartition("/")[0], {})
        for path in links:
            real = self._resolved(path, found)
            if real is not None:
                folder, _, name = path.rpartition("/")
                found[folder][name] = real == "" or real in found or self._is_folder(real)
        return found

    def _is_folder(self, path: str) -> bool:
        return path in self.entries and self.entries[path].kind == "folder"

    def real_path(self, path: str) -> str | None:
        """Where `path` leads once links are followed; None where that is nothing in the layer."""
        return self._resolved(path, self.children)

    def _resolved(self, path: str, children: dict[str, dict[str, bool]]) -> str | None:
        parts, done = path.split("/"), ""
        hops = 0
        while parts:
            part = parts.pop(0)
            if part in ("", "."):
                continue
            if part == "..":
                if not done:
                    return None
                done = done.rpartition("/")[0]
                continue
            here = f"{done}/{part}" if done else part
            entry = self.entries.get(here)
            if entry and entry.kind == "symlink":
                hops += 1
                target = entry.facts.get("target") or ""
                if (
                    not target
                    or hops > _MAX_HOPS
                    or (target.startswith("/") and not f"{target}/".startswith("/opt/"))
                ):
                    return None
                if target.startswith("/"):
                    done, target = "", target.removeprefix("/opt")
                parts = [*target.split("/"), *parts]
                continue
            if entry is None and part not in children.get(done, {}):
                return None
            done = here
        return done


def tree_of_layer(layer: Layer, name: str) -> Tree:
    """The tree of a layer of ours, whether or not it has been written."""
    entries = {}
    recorded: dict[str, set[str]] = {wheel.sha256: set() for wheel in layer.wheels}
    for file in layer.files:
        entries[file.path] = Entry(file.path, "file", file.mode, file.size, file.sha256, file.facts)
        recorded[file.owner.sha256].add(file.path)
    distributions = [
        Distribution(
            name=wheel.name,
            version=wheel.version,
            requires=wheel.requires,
            site=layer.site,
            info=f"{layer.site}/{wheel.dist_info}",
            recorded=frozenset(recorded[wheel.sha256]),
        )
        for wheel in layer.wheels
        if f"{layer.site}/{wheel.dist_info}/METADATA" in entries
    ]
    return Tree(name=name, entries=entries, distributions=tuple(distributions), read=layer.read)


def read_tree(path: Path, name: str, cache: Cache | None = None) -> Tree:
    """The tree of a zip file (see `read_zip`) or of a folder laid out as /opt.

    Raises:
        UsageError: there is nothing, or something that is neither.
    """
    if path.is_dir():
        return read_folder(path, name)
    if not path.is_file():
        what = "is neither a file nor a folder" if path.exists() or path.is_symlink() else "does not exist"
        raise UsageError("layer-not-found", f"{path} {what}", hint="name a zip, a folder, a recipe or an ARN")
    return read_zip(path, name, cache)


def read_zip(path: Path, name: str, cache: Cache | None = None) -> Tree:
    """The tree of a zip from anywhere. What is wrong with it stands in its `problems`; nothing is raised for that."""
    digest = ""
    if cache:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    key = f"{digest}-{TREE_FORMAT}"
    kept = cache.record("trees", key) if cache else None
    if kept is None:
        entries, problems = _unpack(path)
        kept = {"entries": entries, "problems": problems, "zipped": path.stat().st_size}
        if cache:
            with contextlib.suppress(OSError):  # a full disk must not keep anyone from checking
                cache.keep_record("trees", key, kept)
    return _tree(
        name,
        [Entry(*row) for row in kept["entries"]],
        [Problem(*row) for row in kept["problems"]],
        zipped=kept["zipped"],
        digest=digest,
        read=ZipContents(path),
    )


def _tree(name: str, entries: Iterable[Entry], problems: Sequence[Problem], **given: Any) -> Tree:
    by_path = {entry.path: entry for entry in sorted(entries, key=lambda entry: entry.path)}
    found = tuple(_distributions(by_path))
    return Tree(name=name, entries=by_path, distributions=found, problems=tuple(problems), **given)


def _distributions(entries: dict[str, Entry]) -> Iterator[Distribution]:
    for path, entry in entries.items():
        if "distribution" not in entry.facts or not (match := _INFO.fullmatch(path)):
            continue
        site, told = match["site"] or "", entry.facts["distribution"]
        info = f"{site}/{match['info']}" if site else match["info"]
        record = entries.get(f"{info}/RECORD")
        rows = record.facts.get("record") if record else None
        stem = match["info"].removesuffix(".dist-info").removesuffix(".egg-info")
        yield Distribution(
            # A METADATA that says nothing: the folder's name does (Recording installed projects).
            name=told["name"] or stem.partition("-")[0],
            version=told["version"] or stem.partition("-")[2] or "0",
            requires=tuple(told["requires"]),
            site=site,
            info=info,
            recorded=None if rows is None else frozenset(_recorded(site, rows)),
        )


def _recorded(site: str, rows: Iterable[str]) -> Iterator[str]:
    prefix = f"{site}/" if site else ""
    for row in rows:
        if row.startswith("/"):
            continue
        path = posixpath.normpath(prefix + row) if "." in row[:2] or "//" in row or "/." in row else prefix + row
        if not path.startswith(("../", "/")):
            yield path


def _unpack(path: Path) -> tuple[list[Entry], list[Problem]]:
    """All members of a zip, several at a time."""
    with path.open("rb") as file:
        reader = ZipReader(file, limit=LARGEST)
        entries, problems = [], list(reader.problems)
        # The largest first, in turns: each thread gets about as much.
        members = sorted(reader.members, key=lambda member: -member.compressed)
        with ThreadPoolExecutor(_WORKERS) as pool:
            shares = [pool.submit(_unpack_some, path, reader, members[nth::_WORKERS]) for nth in range(_WORKERS)]
            try:
                for share in shares:
                    found, wrong = share.result()
                    entries += found
                    problems += wrong
            except BaseException:
                interrupted.set()  # the others are not waited for to the end
                raise
    return entries, sorted(problems, key=lambda problem: (problem.path or "", problem.kind))


def _unpack_some(path: Path, reader: ZipReader, members: Sequence[ZipMember]) -> tuple[list[Entry], list[Problem]]:
    entries, problems = [], []
    with path.open("rb") as file:
        for member in members:
            stop_if_interrupted()
            digest, content, kept = hashlib.sha256(), Content(member.path), b""
            sha256, facts = "", dict[str, Any]()
            try:
                for chunk in reader.content(member, file):
                    digest.update(chunk)
                    if member.kind == "symlink":
                        kept = (kept + chunk)[:_CHUNK]
                    else:
                        content.feed(chunk)
                sha256 = record_digest(digest.digest())
                facts = {"target": link_target(kept)} if member.kind == "symlink" else content.facts()
            except ZipError as error:
                problems.append(Problem("checksum", member.path, str(error)))
            mode = stat.S_IMODE(member.mode) if member.mode else None
            entries.append(Entry(member.path, member.kind, mode, member.size, sha256, facts))
    return entries, problems


def read_folder(path: Path, name: str) -> Tree:
    """The tree of a folder laid out as /opt. Links are not followed. What cannot be read raises OSError."""
    entries: list[Entry] = []
    problems: list[Problem] = []
    left = [""]
    while left:
        prefix = left.pop()
        with os.scandir(path / prefix) as found:
            for one in found:
                stop_if_interrupted()
                if prefix.count("/") > _DEEPEST:
                    problems.append(Problem("path", prefix, f"{prefix!r} is nested too deep"))
                    break
                if entry := _entry(one, prefix, problems):
                    entries.append(entry)
                    if entry.kind == "folder":
                        left.append(f"{entry.path}/")
    problems.sort(key=lambda problem: (problem.path or "", problem.kind))
    return _tree(name, entries, problems, read=lambda inner: (path / inner).read_bytes())


def _entry(one: os.DirEntry[str], prefix: str, problems: list[Problem]) -> Entry | None:
    """What a folder's member is; None, and a problem, where a layer cannot hold it."""
    path = prefix + one.name
    if any("\udc80" <= character <= "\udcff" or ord(character) < 32 for character in one.name):
        problems.append(Problem("path", ascii(path), f"the path {path!a} is not a plain relative path"))
        return None
    status = one.stat(follow_symlinks=False)
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISDIR(status.st_mode):
        return Entry(path, "folder", mode, 0, "", {})
    if stat.S_ISLNK(status.st_mode):
        target = os.readlink(one.path)  # noqa: PTH115 - as os.scandir names it
        facts = {"target": link_target(os.fsencode(target))}
        return Entry(path, "symlink", mode, status.st_size, "", facts)
    if stat.S_ISREG(status.st_mode):
        return _file(one.path, path, mode)
    problems.append(Problem("special", path, f"{path!r} is a device, a pipe or a socket"))
    return None


def _file(place: str, path: str, mode: int) -> Entry:
    digest, content, size = hashlib.sha256(), Content(path), 0
    with open(place, "rb") as file:  # noqa: PTH123 - as os.scandir names it
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            content.feed(chunk)
            size += len(chunk)
    return Entry(path, "file", mode, size, record_digest(digest.digest()), content.facts())
