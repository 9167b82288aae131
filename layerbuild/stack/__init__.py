"""Several layers in order, and the function: the merged /opt, what wins in it, and what breaks.

Layers are extracted into /opt in their order, and for one path the last wins. Imports follow sys.path instead:
/var/task, then ``python/lib/pythonX.Y/site-packages``, then ``python/``, whatever layer these come from.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from layerbuild import modules
from layerbuild.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from layerbuild.checks import Finding
    from layerbuild.target import Target
    from layerbuild.tree import Distribution, Entry

LAYER_LIMIT = 5
FUNCTION_ROOT, LAYER_ROOT = "/var/task", "/opt"


class Carried(NamedTuple):
    """A path that more than one layer carries: the layers in order, and whether all have the same bytes."""

    path: str
    layers: tuple[int, ...]
    identical: bool

    @property
    def winner(self) -> int:
        """The layer whose file is there in the end."""
        return self.layers[-1]


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundModule:
    """What Lambda imports for a name.

    Attributes:
        kind: ``module``, ``package`` or ``namespace``.
        path: the file that runs, absolute; None for a namespace package.
        layer: the layer that this file comes from, counted from 0; None for the function or without a file.
        locations: a package's folders, absolute, in order.
    """

    kind: str
    path: str | None
    layer: int | None
    locations: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Installed:
    """A distribution in a stack: in which layer (None: the function), and in which folder of sys.path."""

    distribution: Distribution
    layer: int | None
    site: str

    @property
    def name(self) -> str:
        """The distribution's normalised name."""
        return self.distribution.normal_name

    @property
    def version(self) -> str:
        """The distribution's version, as it is compared."""
        return self.distribution.normal_version


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Layers in order, the function's package if there is one, and the target that they run on.

    `identities` says which layers are versions of one: equal strings are; None where that is unknown.
    """

    layers: tuple[Tree, ...]
    target: Target
    function: Tree | None = None
    identities: tuple[str | None, ...] = ()

    @cached_property
    def search_path(self) -> tuple[str, ...]:
        """Where modules are looked for, absolute, in order."""
        return modules.search_path(self.target.runtime)

    @cached_property
    def winners(self) -> dict[str, int]:
        """The layer that each path of the merged /opt comes from."""
        found: dict[str, int] = {}
        for number, tree in enumerate(self.layers):
            found |= dict.fromkeys(tree.entries, number)
        for path, _, _ in self.kind_conflicts:
            # Undocumented; only to go on: the last layer's is there, and what it displaces is not.
            entry = self.layers[found[path]].entries[path] if path in found else None
            below = [inner for inner in found if inner.startswith(f"{path}/")]
            last_below = max((found[inner] for inner in below), default=-1)
            if entry and entry.kind != "folder" and found[path] > last_below:
                for inner in below:
                    del found[inner]
            elif entry and entry.kind != "folder":
                del found[path]
        return dict(sorted(found.items()))

    @cached_property
    def merged(self) -> Tree:
        """The merged /opt."""
        entries = {path: self.layers[number].entries[path] for path, number in self.winners.items()}
        installed = [
            distribution
            for number, tree in enumerate(self.layers)
            for distribution in tree.distributions
            if self.info_layer(distribution.info) == number
        ]
        return Tree(
            name="/opt",
            entries=entries,
            distributions=tuple(installed),
            read=lambda path: self.layers[self.winners[path]].read(path),
        )

    def info_layer(self, info: str) -> int | None:
        """The layer whose metadata is there in the end."""
        for name in ("METADATA", "PKG-INFO"):
            if f"{info}/{name}" in self.winners:
                return self.winners[f"{info}/{name}"]
        return None

    @cached_property
    def carried(self) -> list[Carried]:
        """The files that more than one layer carries."""
        layers: dict[str, list[int]] = {}
        for number, tree in enumerate(self.layers):
            for path, entry in tree.entries.items():
                if entry.kind != "folder":
                    layers.setdefault(path, []).append(number)
        found = []
        for path, numbers in sorted(layers.items()):
            if len(numbers) > 1:
                entries = [self.layers[number].entries[path] for number in numbers]
                identical = all(same(entry, entries[0]) for entry in entries)
                found.append(Carried(path, tuple(numbers), identical))
        return found

    @cached_property
    def kind_conflicts(self) -> list[tuple[str, int, int]]:
        """(path, layer, layer) where one has a file or link and the other something else of that name."""
        kinds: dict[str, dict[int, str]] = {}
        for number, tree in enumerate(self.layers):
            for path, entry in tree.entries.items():
                kinds.setdefault(path, {})[number] = entry.kind
            for folder in _folders(tree):
                kinds.setdefault(folder, {})[number] = "folder"
        return [
            (path, first, other)
            for path, by_layer in sorted(kinds.items())
            if len(set(by_layer.values())) > 1
            for first, other in [_differing(by_layer)]
        ]

    def names(self, folder: str) -> Mapping[str, bool]:
        """What a folder of the merged file system holds (see `layerbuild.modules.Folders`)."""
        real = self.real_path(folder)
        if real is None:
            return {}
        tree = self.merged if real.startswith(LAYER_ROOT) else self.function
        return tree.children.get(real.split("/", 2 if tree is self.merged else 3)[-1], {}) if tree else {}

    def real_path(self, path: str) -> str | None:
        """Where an absolute path leads once links are followed; None where that is nothing in the stack."""
        for root, tree in ((LAYER_ROOT, self.merged), (FUNCTION_ROOT, self.function)):
            if tree and (path == root or path.startswith(f"{root}/")):
                real = tree.real_path(path[len(root) + 1 :])
                return None if real is None else f"{root}/{real}"
        return None

    def layer_of(self, path: str) -> int | None:
        """The layer that an absolute path's file comes from; None for the function's."""
        if not path.startswith(f"{LAYER_ROOT}/"):
            return None
        real = self.merged.real_path(path[len(LAYER_ROOT) + 1 :])
        return self.winners.get(real or "")

    def find_module(self, name: str) -> FoundModule | None:
        """What ``import name`` gets from the function or the layers; None when neither has it.

        Lines of .pth files are not followed; ``contents-pth`` tells of them.
        """
        top = name.partition(".")[0]
        if top in modules.unshadowable(self.target.runtime):
            return None
        found = modules.find(top, self.search_path, self, self.endings)
        if found and found.kind == "namespace" and top in self._runtime_modules:
            return None  # a regular module wins over a namespace package, wherever it is on the path
        if found and top != name:
            found = modules.find(name, self.search_path, self, self.endings)
        if found is None:
            return None
        layer = self.layer_of(found.path) if found.path else None
        return FoundModule(kind=found.kind, path=found.path, layer=layer, locations=found.locations)

    @cached_property
    def _runtime_modules(self) -> frozenset[str]:
        """Top-level modules that the runtime itself has."""
        runtime = self.target.runtime
        return modules.standard_library(runtime) | modules.bundled(runtime).keys()

    @cached_property
    def endings(self) -> tuple[str, ...]:
        """What the names of modules end with on the target."""
        return modules.suffixes(self.target)

    def candidates(self, name: str, path: Sequence[str]) -> list[modules.Module]:
        """Everything along `path` that could be imported as `name`, the one that is imported first."""
        found = modules.candidates(name, path, self, self.endings)
        # A namespace package gives way to whatever else there is, even later on the path.
        return sorted(found, key=lambda module: module.kind == "namespace")

    @cached_property
    def installed(self) -> list[Installed]:
        """Every distribution of the function and of each layer, in the order in which importlib.metadata looks.

        Of several in one folder the last layer's comes first, as its files have replaced the others'.
        """
        function = self.function.distributions if self.function else ()
        found = [Installed(distribution=one, layer=None, site=FUNCTION_ROOT) for one in function if one.site == ""]
        for folder in self.search_path[1:]:
            site = folder.removeprefix(f"{LAYER_ROOT}/")
            for number in reversed(range(len(self.layers))):
                found += [
                    Installed(distribution=one, layer=number, site=folder)
                    for one in self.layers[number].distributions
                    if one.site == site
                ]
        return found

    @cached_property
    def unzipped(self) -> int:
        """Bytes of all layers and the function, unzipped, as Lambda counts them: before files replace each other."""
        return sum(tree.unzipped for tree in self.layers) + (self.function.unzipped if self.function else 0)

    def layer_name(self, number: int | None) -> str:
        """A layer as the user named it; with its place where two are named alike."""
        if number is None:
            return "the function"
        name = self.layers[number].name
        alike = [tree.name for tree in self.layers].count(name) > 1
        return f"{name} (layer {number + 1})" if alike else name

    def findings(self) -> list[Finding]:
        """Everything that is wrong with the stack, the worst first."""
        from layerbuild.stack.rules import check_stack

        return check_stack(self)

    def reordered(self, order: Sequence[int]) -> Stack:
        """The same layers in another order."""
        return Stack(
            layers=tuple(self.layers[number] for number in order),
            target=self.target,
            function=self.function,
            identities=tuple(self.identities[number] for number in order) if self.identities else (),
        )


def same(one: Entry, other: Entry) -> bool:
    """Whether two files have the same bytes, or two links the same target."""
    if one.kind == "symlink":
        return one.facts == other.facts
    return (one.kind, one.sha256) == (other.kind, other.sha256) and bool(one.sha256)


def _folders(tree: Tree) -> Iterator[str]:
    """All folders of a tree, also those that no entry names; a link to a folder is none."""
    links = {path for path, entry in tree.entries.items() if entry.kind == "symlink"}
    return (folder for folder in tree.children if folder and folder not in links)


def _differing(by_layer: dict[int, str]) -> tuple[int, int]:
    first = min(by_layer)
    return first, next(number for number in sorted(by_layer) if by_layer[number] != by_layer[first])
