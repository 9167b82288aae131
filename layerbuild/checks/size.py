"""Rules about a layer's bytes and about the zip itself."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from layerbuild.checks import Finding
from layerbuild.layer import UNZIPPED_LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from layerbuild.tree import Tree

# A zip in the request itself must be smaller (413 RequestEntityTooLargeException).
INLINE_LIMIT = 52_428_800
_LARGEST = 10
_ROOT = "/opt"
_MAX_LINKS = 40  # as the kernel follows (path_resolution(7))


def largest(tree: Tree) -> list[tuple[str, int]]:
    """The ten largest distributions, or what lies at the top of the layer without one: (name, unzipped bytes)."""
    sizes: dict[str, int] = {}
    for path, entry in tree.entries.items():
        if entry.size:
            owner = tree.owner(path)
            name = str(owner) if owner else _place(path)
            sizes[name] = sizes.get(name, 0) + entry.size
    return sorted(sizes.items(), key=lambda item: (-item[1], item[0]))[:_LARGEST]


def _place(path: str) -> str:
    """Where a file lies that belongs to no distribution: below site-packages if it does."""
    for prefix in ("site-packages/", "python/"):
        if prefix in path:
            return path.partition(prefix)[2].split("/")[0]
    return path.split("/")[0]


def check(tree: Tree, budget: int | None) -> Iterator[Finding]:
    """The ``size`` rules."""
    if not tree.problems and all(entry.kind == "folder" for entry in tree.entries.values()):
        yield Finding(code="size-empty", message="there is no file in it")
    if tree.unzipped >= UNZIPPED_LIMIT:
        rows = ", ".join(f"{name} {size / 1_000_000:.1f} MB" for name, size in largest(tree))
        text = f"it has {tree.unzipped:,} bytes unzipped; Lambda refuses {UNZIPPED_LIMIT:,} and more; largest: {rows}"
        yield Finding(code="size-unzipped", message=text)
    if budget is not None and tree.unzipped > budget:
        text = f"it has {tree.unzipped:,} bytes unzipped; its recipe allows {budget:,}"
        yield Finding(code="size-budget", message=text)
    if tree.zipped is not None and tree.zipped >= INLINE_LIMIT:
        text = f"the zip has {tree.zipped:,} bytes; inline, Lambda takes less than {INLINE_LIMIT:,}"
        yield Finding(code="size-zipped", message=text)


def check_zip(tree: Tree) -> Iterator[Finding]:
    """The ``zip`` rules: what reading it found, and what its paths and links would do elsewhere."""
    for problem in tree.problems:
        yield Finding(code=f"zip-{problem.kind}", path=problem.path, message=problem.text)
    lower: dict[str, str] = {}
    for path, entry in tree.entries.items():
        if entry.kind != "folder":
            other = lower.setdefault(path.lower(), path)
            if other != path:
                yield Finding(code="zip-case", path=path, message=f"{path} and {other} differ in case alone")
        if entry.kind == "symlink" and tree.real_path(path) is None:
            yield _link(tree, path, entry.facts.get("target"))


def _link(tree: Tree, path: str, target: str | None) -> Finding:
    """What is wrong with a link that leads to nothing in the layer."""
    if target is None:
        return Finding(code="zip-symlink", path=path, message="its target is no path")
    seen = {path}
    inner = _led_to(path, target)
    if inner is None:
        why = "is outside /opt" if target.startswith("/") else "climbs out of /opt"
        return Finding(code="zip-symlink", path=path, message=f"it leads to {target}, which {why}")
    while inner and inner not in seen and len(seen) < _MAX_LINKS:
        seen.add(inner)
        further = tree.entries[inner].facts.get("target") if inner in tree.entries else None
        inner = _led_to(inner, further) if further else None
    if inner in seen:
        return Finding(code="zip-symlink", path=path, message=f"it leads to {target}, and so back to itself")
    text = f"it leads to {target}, which is not in the layer"
    return Finding(code="zip-symlink", severity="warning", path=path, message=text)


def _led_to(path: str, target: str) -> str | None:
    """The path below /opt that a link names; None where that is outside."""
    place = posixpath.normpath(posixpath.join(_ROOT, posixpath.dirname(path), target))
    return place.removeprefix(f"{_ROOT}/") if f"{place}/".startswith(f"{_ROOT}/") else None
