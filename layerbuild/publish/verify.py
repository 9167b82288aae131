"""Whether what is published is what a recipe and its lock give: byte for byte, or else in what it differs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from layerbuild.errors import UsageError
from layerbuild.publish.release import filled, name_fields
from layerbuild.target import targets_named

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from layerbuild.tree import Entry, Tree

ANY = "any"


class Difference(NamedTuple):
    """A file that is not the same: ``published`` or ``rebuilt`` only, or its ``content`` or ``mode``; and why."""

    path: str
    kind: str
    package: str | None
    why: str

    def as_json(self) -> dict[str, Any]:
        """The difference as it appears in ``--json`` output."""
        return self._asdict()


def origin(
    layer: str, template: str, recipes: Iterable[str], runtimes: Sequence[str], architectures: Sequence[str]
) -> tuple[str, str]:
    """The recipe and the target that a layer's name stands for.

    Args:
        layer: its name.
        template: by which it was named.
        recipes: the names that there are.
        runtimes: what it says that it is for; `architectures`, too.

    Raises:
        UsageError: none or several of the recipes give that name.
    """
    targets = targets_named(runtimes, architectures)
    labels = [(ANY, ANY, ANY), *((str(one), *name_fields([one.runtime.name], [one.arch])) for one in targets)]
    found = [
        (recipe, label)
        for recipe in recipes
        for label, python, arch in labels
        if filled(template, {"recipe": recipe, "python": python, "arch": arch}, "name") == layer
    ]
    if len(found) == 1:
        return found[0]
    several = [f"{recipe} for {label}" for recipe, label in found]
    what = f"{'several recipes' if several else 'no recipe here'} would be called {layer}"
    raise UsageError("recipe-unknown", what, causes=several, hint="say which: --recipe NAME --target TARGET")


def compare(published: Tree, rebuilt: Tree) -> list[Difference]:
    """What differs between two layers, by path; first what is wrong with the published zip itself."""
    found = [
        Difference(one.path or "the zip itself", "published", None, f"what Lambda may not take: {one.text}")
        for one in published.problems
    ]
    for path in sorted(published.entries.keys() | rebuilt.entries.keys()):
        one, other = published.entries.get(path), rebuilt.entries.get(path)
        if one is None or other is None or _identity(one) != _identity(other):
            found.append(_difference(path, one, other, published, rebuilt))
        elif one.mode != other.mode:
            why = f"{_octal(one.mode)} published, {_octal(other.mode)} rebuilt"
            found.append(Difference(path, "mode", _package(path, published), why))
    return found


def _identity(entry: Entry) -> tuple[str, int, str, Any]:
    return entry.kind, entry.size, entry.sha256, entry.facts.get("target")


def _difference(path: str, one: Entry | None, other: Entry | None, published: Tree, rebuilt: Tree) -> Difference:
    kind = "content" if one and other else "published" if one else "rebuilt"
    package = _package(path, published) or _package(path, rebuilt)
    versions = [
        next((str(dist.version) for dist in tree.distributions if dist.normal_name == package), None)
        for tree in (published, rebuilt)
    ]
    if path.endswith(".pyc"):
        why = "bytecode: another CPython compiled it, or other modules were compiled"
    elif package is None:
        why = "no package lists it"
    elif versions[0] != versions[1]:
        there, here = (version or "none" for version in versions)
        why = f"{package} {there} published, {here} rebuilt"
    elif path.endswith(".dist-info/RECORD"):
        why = "it lists other files"
    else:
        why = f"the same version of {package}, another file: it was changed, or left out"
    return Difference(path, kind, package, why)


def _package(path: str, tree: Tree) -> str | None:
    owner = tree.owner(path) if path in tree.entries else None
    return owner.normal_name if owner else None


def _octal(mode: int | None) -> str:
    return "no mode" if mode is None else f"{mode:04o}"
