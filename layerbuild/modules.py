"""Which file Lambda's Python would import, worked out over virtual folders.

The search is importlib's own (`importlib.machinery.PathFinder` and `FileFinder`): in each folder of the path first a
package, then extension modules, source, bytecode; a folder without ``__init__`` is a namespace package, unless
something better comes later on the path.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from layerbuild.target import Runtime, Target


class Folders(Protocol):
    """A view of some folders."""

    def names(self, folder: str) -> Mapping[str, bool]:
        """What a folder holds: its name to whether that is itself a folder; empty where there is no such folder."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Module:
    """What a name imports.

    Attributes:
        kind: ``module``, ``package`` or ``namespace``.
        path: the file that runs, or None for a namespace package.
        locations: a package's folders, in the order in which its own modules are looked for.
    """

    kind: str
    path: str | None
    locations: tuple[str, ...] = ()


def site_folder(runtime: Runtime) -> str:
    """Where a versioned layer has its packages, below /opt."""
    return "python/lib/python{}.{}/site-packages".format(*runtime.version)


def search_path(runtime: Runtime) -> tuple[str, ...]:
    """Where Lambda looks before the runtime's own folders, in that order (its bootstrap sets sys.path so)."""
    return "/var/task", f"/opt/{site_folder(runtime)}", "/opt/python"


def extension_suffixes(target: Target) -> tuple[str, ...]:
    """What the names of extension modules end with on a target, in the order in which they are tried."""
    version = target.runtime.version
    return f".cpython-{version[0]}{version[1]}-{target.machine}-linux-gnu.so", ".abi3.so", ".so"


def suffixes(target: Target) -> tuple[str, ...]:
    """What the names of all modules end with, in the order in which they are tried."""
    return *extension_suffixes(target), ".py", ".pyc"


def find(name: str, path: Sequence[str], folders: Folders, endings: Sequence[str]) -> Module | None:
    """What ``import name`` finds along `path`; dotted names go through their packages.

    Args:
        name: an absolute module name.
        path: folders, as in sys.path.
        folders: what they hold.
        endings: as `suffixes` gives them.
    """
    found: Module | None = None
    for part in name.split("."):
        found = _find_one(part, found.locations if found else path, folders, endings)
        if found is None:
            return None
    return found


def _find_one(name: str, path: Sequence[str], folders: Folders, endings: Sequence[str]) -> Module | None:
    portions: list[str] = []
    for module in candidates(name, path, folders, endings):
        if module.kind != "namespace":
            return module
        portions += module.locations
    return Module(kind="namespace", path=None, locations=tuple(portions)) if portions else None


def candidates(name: str, path: Sequence[str], folders: Folders, endings: Sequence[str]) -> Iterator[Module]:
    """Everything along `path` that has the name, as it is met; the folders of a namespace package one by one."""
    for folder in path:
        names = folders.names(folder)
        location = f"{folder}/{name}"
        inner = folders.names(location) if names.get(name) else {}
        packages = [ending for ending in endings if inner.get(f"__init__{ending}") is False]
        for ending in packages:
            yield Module(kind="package", path=f"{location}/__init__{ending}", locations=(location,))
        for ending in endings:
            if names.get(name + ending) is False:
                yield Module(kind="module", path=location + ending)
        if names.get(name) and not packages:
            yield Module(kind="namespace", path=None, locations=(location,))


def module_names(names: Mapping[str, bool], endings: Sequence[str]) -> Iterator[str]:
    """The importable names in one folder: of its modules, and of all its folders that can be packages."""
    for name, is_folder in names.items():
        ending = "" if is_folder else next((ending for ending in endings if name.endswith(ending)), None)
        if ending is None:
            continue
        stem = name.removesuffix(ending) if ending else name
        if stem.isidentifier() and stem != "__init__" and stem != "__pycache__":
            yield stem


@cache
def _data() -> dict[str, Any]:
    return tomllib.loads(files("layerbuild").joinpath("stdlib.toml").read_text("utf-8"))


def standard_library(runtime: Runtime) -> frozenset[str]:
    """The top-level modules of a runtime's standard library."""
    return _of_version(_data(), runtime)


def unshadowable(runtime: Runtime) -> frozenset[str]:
    """Those of them that Python has loaded before it looks into any layer, or that are built in."""
    return _of_version(_data()["unshadowable"], runtime)


def bundled(runtime: Runtime) -> dict[str, str]:
    """Top-level modules that a runtime brings besides the standard library, and the distribution of each."""
    data = _data()["runtime"]
    found: dict[str, str] = dict(data["modules"])
    for since, gone in data["removed"].items():
        found |= gone if runtime.version < _version(since) else {}
    return found


def _of_version(data: dict[str, Any], runtime: Runtime) -> frozenset[str]:
    names = set(data["common"])
    for since, added in data["added"].items():
        names |= set(added) if _version(since) <= runtime.version else set()
    for since, gone in data["removed"].items():
        names |= set(gone) if runtime.version < _version(since) else set()
    return frozenset(names)


def _version(text: str) -> tuple[int, int]:
    major, minor = text.split(".")
    return int(major), int(minor)
