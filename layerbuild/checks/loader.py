"""Which file the dynamic loader would take for a needed library on Lambda, worked out over virtual files.

The order is ld.so's (man 8 ld.so): what is loaded already, DT_RPATH of the file and of those that loaded it unless it
has DT_RUNPATH, LD_LIBRARY_PATH, DT_RUNPATH, the system's folders. Lambda's LD_LIBRARY_PATH names the system's folders
first and /opt/lib last.
"""

from __future__ import annotations

import posixpath
import re
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from layerbuild.libraries import system_libraries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from layerbuild.libraries import Library
    from layerbuild.target import Target

# The folders of LD_LIBRARY_PATH that hold layers' and functions' files; those before are the runtime's own.
_OWN_FOLDERS = ("/var/task", "/var/task/lib", "/opt/lib")
_ORIGIN = re.compile(r"\$(?:\{ORIGIN\}|ORIGIN(?![A-Z0-9_]))")
_UP = re.compile(r"/\.\.(?=/)")
# Python's process has them before it loads anything from a layer.
_ALWAYS_LOADED = ("libc.so.6", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1")
_BITS = 64
_LIB = re.compile(r"\$(?:\{LIB\}|LIB(?![A-Z0-9_]))")


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


class Loader:
    """Resolves libraries among some files.

    Args:
        files: absolute path to ELF facts, of every ELF file, those of other machines included.
        real_path: follows links; None where a path leads to nothing.
        target: whose own libraries there are.
    """

    def __init__(
        self, files: Mapping[str, dict[str, Any]], real_path: Callable[[str], str | None], target: Target
    ) -> None:
        self._files = files
        self._follow = real_path
        self._system = system_libraries(target)
        self._machine = target.machine
        self._runpaths: dict[str, list[str]] = {}
        self._by_name: dict[str, str] = {}
        for path, elf in sorted(files.items()):
            if is_library(elf, self._machine):
                for name in {elf.get("soname", ""), posixpath.basename(path)} - {""}:
                    self._by_name.setdefault(name, path)

    def needs(self) -> Iterator[Need]:
        """Every needed library of every file, once.

        A library is looked at from what loads it, as it inherits that one's RPATH and what is loaded already; one
        that nothing in the layer loads is looked at by itself.
        """
        told: dict[tuple[str, str], Need] = {}
        fitting = [path for path, elf in self._files.items() if is_library(elf, self._machine)]
        wanted = {posixpath.basename(name) for path in fitting for name in self._files[path].get("needed", ())}
        named = {path: {self._files[path].get("soname", ""), posixpath.basename(path)} for path in fitting}
        done: set[str] = set()
        for path in fitting:
            if not named[path] & wanted:
                done |= self._load(path, told)
        for path in [path for path in fitting if path not in done]:
            self._load(path, told)
        yield from told.values()

    def _load(self, root: str, told: dict[tuple[str, str], Need]) -> set[str]:
        """Loads `root` and what it needs, breadth first as ld.so does; returns the files loaded."""
        names = {
            **dict.fromkeys(_ALWAYS_LOADED, "runtime"),
            root: root,
            self._files[root].get("soname") or root: root,
        }
        # Each file, the path by which it was opened ($ORIGIN is that one's folder), and the RPATHs of those that led
        # to it with the path of each, the nearest first.
        queue: deque[tuple[str, str, tuple[tuple[str, str], ...]]] = deque([(root, root, ())])
        done = {root}
        while queue:
            path, opened, inherited = queue.popleft()
            elf = self._files[path]
            # A RUNPATH beside it makes a file's RPATH void, for those that it loads, too.
            own = () if "runpath" in elf else tuple((folder, opened) for folder in elf.get("rpath", ()))
            chain = (*own, *inherited)
            for needed in elf.get("needed", ()):
                name = _expanded(needed, opened)
                place = names.get(name) or self._search(name, path, opened, () if "runpath" in elf else chain)
                found = place if place in (None, "runtime") else self._real_path(place)
                best = told.get((path, needed))
                if best is None or best.found is None:
                    told[path, needed] = self._need(path, needed, found)
                if place is None or found is None:
                    continue
                names.setdefault(name, found)
                if found in self._files and found not in done:
                    done.add(found)
                    if soname := self._files[found].get("soname"):
                        names.setdefault(soname, found)
                    queue.append((found, place, chain))
        return done

    def _real_path(self, place: str) -> str | None:
        # Out of the layer and back into it: above it, names are what they are.
        climbs = any(
            not f"{posixpath.normpath(place[: match.end()])}/".startswith("/opt/") for match in _UP.finditer(place)
        )
        return self._follow(posixpath.normpath(place) if climbs else place)

    def _need(self, path: str, name: str, found: str | None) -> Need:
        if found:
            return Need(path=path, name=name, found=found, known=self._system.get(name))
        return Need(path=path, name=name, found=None, known=self._system.get(name), elsewhere=self._by_name.get(name))

    def _search(self, name: str, path: str, opened: str, chain: tuple[tuple[str, str], ...]) -> str | None:
        """The path that the loader opens for a name, ``runtime``, or None when it finds none or gives up."""
        if "/" in name:
            return name if self._try(name) is True else None
        for folder, owner in chain:
            place = f"{_expanded(folder, owner) or '.'}/{name}"
            if (result := self._try(place)) is not None:
                return place if result else None
        known = self._system.get(name)
        if known and known.present and known.sure:
            return "runtime"
        for folder in (*_OWN_FOLDERS, *self._runpath(path, opened)):
            place = f"{folder}/{name}"
            if (result := self._try(place)) is not None:
                return place if result else None
        return None

    def _try(self, place: str) -> bool | None:
        """Whether the file at `place` is loaded: True, False when the search ends with an error, None to go on."""
        real = self._real_path(place)
        if real is None:
            return None
        elf = self._files.get(real)
        if elf and "broken" not in elf and elf["machine"] != self._machine:
            return None  # the one thing that the loader passes over
        return bool(elf and is_library(elf, self._machine))

    def _runpath(self, path: str, opened: str) -> list[str]:
        if opened not in self._runpaths:
            folders = dict.fromkeys(self._files[path].get("runpath", ()))
            self._runpaths[opened] = [_expanded(folder, opened) or "." for folder in folders]
        return self._runpaths[opened]


def is_library(elf: dict[str, Any], machine: str) -> bool:
    """Whether the loader of a machine loads such a file."""
    return (
        elf.get("type") in ("shared", "executable")
        and elf["machine"] == machine
        and elf["bits"] == _BITS
        and "system" not in elf
    )


def _expanded(text: str, opened: str) -> str:
    """A folder or a name with the loader's variables filled in, for a file opened by a path."""
    origin = posixpath.dirname(opened)
    return _LIB.sub("lib64", _ORIGIN.sub(lambda _: origin, text))
