"""Which file the dynamic loader would take for a needed library on Lambda, worked out over virtual files.

The order is ld.so's (man 8 ld.so): what is loaded already, DT_RPATH of the file and of those that loaded it unless it
has DT_RUNPATH, LD_LIBRARY_PATH, DT_RUNPATH, the system's folders. Lambda's LD_LIBRARY_PATH names the system's folders
first and /opt/lib last.
"""

from __future__ import annotations

import posixpath
import re
import tomllib
from collections import deque
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from layerbuild.target import Target

# The folders of LD_LIBRARY_PATH that hold layers' and functions' files; those before are the runtime's own.
_OWN_FOLDERS = ("/var/task", "/var/task/lib", "/opt/lib")
_ORIGIN = re.compile(r"\$(?:ORIGIN|\{ORIGIN\})")
# Python itself reads no number of thousands of digits.
_MANY_DIGITS, _ENDLESS = 10, 10**10
_LIB = re.compile(r"\$(?:LIB|\{LIB\})")


@dataclass(frozen=True, kw_only=True, slots=True)
class Library:
    """What is known of a system library: whether Lambda has it, how sure that is, where from, and what to do."""

    present: bool
    certainty: str
    source: str
    fix: str = ""

    @property
    def sure(self) -> bool:
        """Whether someone saw it, rather than concluded it."""
        return self.certainty != "inferred"


@dataclass(frozen=True, kw_only=True, slots=True)
class Need:
    """A library that a file needs, and where the loader finds it.

    `found` is a file's path, ``runtime`` for one of the runtime's own, or None; `elsewhere` is then a file of that
    name in a place where the loader does not look.
    """

    path: str
    name: str
    found: str | None
    known: Library | None = None
    elsewhere: str | None = None


@cache
def _data() -> dict[str, Any]:
    return tomllib.loads(files("layerbuild").joinpath("libraries.toml").read_text("utf-8"))


@cache
def system_libraries(target: Target) -> dict[str, Library]:
    """What is known of system libraries on a target, by the names that binaries ask for."""
    known: dict[str, Library] = {}
    for row in _data()["library"]:
        here = target.runtime.os in row.get("on", ()) or target.runtime.name in row.get("runtimes", ())
        if here and target.arch in row.get("arch", (target.arch,)):
            facts = {key: row[key] for key in ("present", "certainty", "source", "fix") if key in row}
            known |= dict.fromkeys(row["names"], Library(**facts))
    return known


def symbol_limits(target: Target) -> dict[str, tuple[int, ...]]:
    """The newest symbol version of each family (``GLIBC``, ``GLIBCXX`` …) that a target's own libraries define."""
    row = _data()["symbols"][target.runtime.os]
    texts = {"GLIBCXX": row["GLIBCXX"], "CXXABI": row["CXXABI"], "GCC": row["GCC"][target.arch]}
    return {"GLIBC": target.runtime.glibc, **{family: version_of(text) for family, text in texts.items()}}


def version_of(text: str) -> tuple[int, ...]:
    """``3.4.29`` as numbers, for comparing."""
    return tuple(int(part) if len(part) < _MANY_DIGITS else _ENDLESS for part in text.split("."))


class Loader:
    """Resolves libraries among some files.

    Args:
        files: absolute path to ELF facts, of every ELF file.
        real_path: follows links; None where a path leads to nothing.
        target: whose own libraries there are.
    """

    def __init__(
        self, files: Mapping[str, dict[str, Any]], real_path: Callable[[str], str | None], target: Target
    ) -> None:
        self._files = files
        self._real_path = real_path
        self._system = system_libraries(target)
        self._machine = target.machine
        self._runpaths: dict[str, list[str]] = {}
        self._by_name: dict[str, str] = {}
        for path, elf in sorted(files.items()):
            for name in {elf.get("soname", ""), posixpath.basename(path)} - {""}:
                self._by_name.setdefault(name, path)

    def needs(self) -> Iterator[Need]:
        """Every needed library of every file, once.

        A library is looked at from what loads it, as it inherits that one's RPATH and what is loaded already; one
        that nothing in the layer loads is looked at by itself.
        """
        told: dict[tuple[str, str], Need] = {}
        wanted = {name for elf in self._files.values() for name in elf.get("needed", ())}
        names = {path: {elf.get("soname", ""), posixpath.basename(path)} for path, elf in self._files.items()}
        roots = [path for path in self._files if not names[path] & wanted]
        done: set[str] = set()
        for path in roots:
            done |= self._load(path, told)
        for path in self._files:
            if path not in done:
                done |= self._load(path, told)
        yield from told.values()

    def _load(self, root: str, told: dict[tuple[str, str], Need]) -> set[str]:
        """Loads `root` and what it needs, breadth first as ld.so does; returns the files loaded."""
        loaded = {self._files[root].get("soname") or root: root}
        # Each with the RPATHs of those that led to it, the nearest first.
        queue: deque[tuple[str, tuple[tuple[str, str], ...]]] = deque([(root, ())])
        done = {root}
        while queue:
            path, inherited = queue.popleft()
            elf = self._files[path]
            own = tuple((folder, path) for folder in elf.get("rpath", ()))
            chain = () if "runpath" in elf else (*own, *inherited)
            for name in elf.get("needed", ()):
                found = loaded.get(name) or self._search(name, path, chain)
                best = told.get((path, name))
                if best is None or best.found is None:
                    told[path, name] = self._need(path, name, found)
                if found and found not in done and found in self._files:
                    done.add(found)
                    loaded[name] = loaded[self._files[found].get("soname") or name] = found
                    queue.append((found, (*own, *inherited)))
        return done

    def _need(self, path: str, name: str, found: str | None) -> Need:
        if found:
            return Need(path=path, name=name, found=found, known=self._system.get(name))
        return Need(path=path, name=name, found=None, known=self._system.get(name), elsewhere=self._by_name.get(name))

    def _search(self, name: str, path: str, chain: tuple[tuple[str, str], ...]) -> str | None:
        if "/" in name:
            return self._usable(name)
        for folder, owner in chain:
            if found := self._usable(f"{self._expanded(folder, owner)}/{name}"):
                return found
        known = self._system.get(name)
        if known and known.present and known.sure:
            return "runtime"
        for folder in (*_OWN_FOLDERS, *self._runpath(path)):
            if found := self._usable(f"{folder}/{name}"):
                return found
        return None

    def _runpath(self, path: str) -> list[str]:
        if path not in self._runpaths:
            folders = dict.fromkeys(self._files[path].get("runpath", ()))
            self._runpaths[path] = [self._expanded(folder, path) for folder in folders]
        return self._runpaths[path]

    def _usable(self, place: str) -> str | None:
        """The file at `place`; the loader passes over one of another machine."""
        real = self._real_path(posixpath.normpath(place))
        if real is None or real not in self._files:
            return None
        return real if self._files[real].get("machine") == self._machine else None

    def _expanded(self, folder: str, owner: str) -> str:
        origin = posixpath.dirname(owner)
        return _LIB.sub("lib64", _ORIGIN.sub(lambda _: origin, folder)) or "."
