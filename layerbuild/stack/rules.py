"""Rules over a stack: what several layers, and the function, do to each other."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from layerbuild import modules
from layerbuild.checks import Finding, binary, contents, in_order, size, some
from layerbuild.checks.requirements import unmet
from layerbuild.layer import UNZIPPED_LIMIT
from layerbuild.stack import FUNCTION_ROOT, LAYER_LIMIT, LAYER_ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from layerbuild.modules import Module
    from layerbuild.stack import Carried, Installed, Stack

_OF_THE_FILE = ("binary-machine", "binary-abi", "binary-musl", "binary-unreadable")
_OF_THE_LAYER = (
    *("contents-misplaced", "contents-other-python", "contents-stdlib"),
    *("contents-mode", "contents-not-executable", "contents-stray-extension", "contents-crlf"),
)


def check_stack(stack: Stack) -> list[Finding]:
    """Everything that is wrong with a stack, the worst first."""
    return in_order([*_archives(stack), *_limits(stack), *_contents(stack), *order_findings(stack)])


def order_findings(stack: Stack) -> list[Finding]:
    """Those that another order of the layers could change; what a search for the best order compares."""
    return in_order(
        [
            *_paths(stack),
            *_distributions(stack),
            *_shadows(stack),
            *_requirements(stack),
            *_libraries(stack),
            *_bytecode(stack),
        ]
    )


def _archives(stack: Stack) -> Iterator[Finding]:
    """What is wrong with the zips themselves: nobody knows what of them would be there to merge."""
    trees = [(stack.layer_name(number), tree) for number, tree in enumerate(stack.layers)]
    for name, tree in [*trees, *([("the function", stack.function)] if stack.function else [])]:
        for finding in size.check_zip(tree):
            completed = finding.code == "zip-symlink" and stack.merged.real_path(finding.path or "") is not None
            if finding.code != "zip-case" and not completed:
                yield replace(finding, message=f"{name}: {finding.message}")


def _limits(stack: Stack) -> Iterator[Finding]:
    count = len(stack.layers)
    if count > LAYER_LIMIT:
        yield Finding(code="stack-too-many", message=f"there are {count} layers; a function takes {LAYER_LIMIT}")
    if stack.unzipped >= UNZIPPED_LIMIT:
        parts = [(stack.layer_name(number), tree.unzipped) for number, tree in enumerate(stack.layers)]
        parts += [("the function", stack.function.unzipped)] if stack.function else []
        rows = ", ".join(f"{name} {size / 1_000_000:.1f} MB" for name, size in sorted(parts, key=lambda row: -row[1]))
        text = f"{stack.unzipped:,} bytes in all, and Lambda refuses {UNZIPPED_LIMIT:,} and more: {rows}"
        yield Finding(code="stack-size", message=text)
    seen: dict[str, int] = {}
    for number, identity in enumerate(stack.identities):
        if identity is None:
            continue
        other = seen.setdefault(identity, number)
        if other != number:
            text = f"layers {other + 1} and {number + 1} are both {identity}"
            yield Finding(code="stack-two-versions", message=text)


def _paths(stack: Stack) -> Iterator[Finding]:
    for path, one, other in stack.kind_conflicts:
        kinds = [_kind(stack, number, path) for number in (one, other)]
        text = f"{path} is a {kinds[0]} in {stack.layer_name(one)} and a {kinds[1]} in {stack.layer_name(other)}"
        yield Finding(code="stack-kind", path=path, message=text)
    identical: dict[tuple[int, ...], list[Carried]] = {}
    different: dict[tuple[tuple[int, ...], str], list[Carried]] = {}
    for carried in stack.carried:
        if carried.identical:
            identical.setdefault(carried.layers, []).append(carried)
        else:
            owner = stack.layers[carried.winner].owner(carried.path)
            different.setdefault((carried.layers, str(owner) if owner else ""), []).append(carried)
    for layers, found in identical.items():
        wasted = sum(stack.layers[one.winner].entries[one.path].size for one in found) * (len(layers) - 1)
        owners = [stack.layers[layers[-1]].owner(one.path) for one in found]
        whose = some(str(owner) for owner in owners if owner)
        names = " and ".join(stack.layer_name(number) for number in layers)
        text = f"{names} carry the same {len(found):,} files, {wasted:,} bytes more than once"
        yield Finding(code="stack-identical", path=found[0].path, message=text + (f": {whose}" if whose else ""))
    for (layers, package), found in different.items():
        losers = " and ".join(stack.layer_name(number) for number in layers[:-1])
        files = found[0].path if len(found) == 1 else f"{len(found):,} files, such as {found[0].path}"
        text = f"{stack.layer_name(layers[-1])} replaces {files} of {losers}"
        yield Finding(code="stack-conflict", path=found[0].path, package=package or None, message=text)


def _kind(stack: Stack, number: int, path: str) -> str:
    entry = stack.layers[number].entries.get(path)
    return entry.kind if entry else "folder"


def _distributions(stack: Stack) -> Iterator[Finding]:
    by_name: dict[str, list[Installed]] = {}
    for one in stack.installed:
        by_name.setdefault(one.name, []).append(one)
    for copies in by_name.values():
        if len({one.version for one in copies}) < 2:
            continue
        sites = {one.site for one in copies}
        for site in sorted(sites):
            yield from _two_infos(stack, [one for one in copies if one.site == site])
        yield from _torn(stack, copies)


def _two_infos(stack: Stack, copies: Sequence[Installed]) -> Iterator[Finding]:
    infos = {one.distribution.info: one for one in copies}
    left = [one for info, one in sorted(infos.items()) if one.layer is None or stack.info_layer(info) is not None]
    if len({one.version for one in left}) > 1:
        told = " and ".join(f"{one.version} of {stack.layer_name(one.layer)}" for one in left)
        text = f"after merging, {left[0].site} holds {left[0].distribution.name} {told}"
        yield Finding(code="stack-two-dist-infos", path=_info(left[0]), package=left[0].name, message=text)


def _info(one: Installed) -> str:
    """Where a distribution's metadata is: below /opt, or in the function, absolute."""
    info = one.distribution.info
    return f"{FUNCTION_ROOT}/{info}" if one.layer is None else info


def _torn(stack: Stack, copies: Sequence[Installed]) -> Iterator[Finding]:
    """Whether files of two versions are in use together."""
    living = {place: _living(stack, one, copies) for place, one in enumerate(copies)}
    versions: dict[str, tuple[Installed, str]] = {}
    for place, paths in living.items():
        if paths:
            versions.setdefault(copies[place].version, (copies[place], min(paths)))
    told_by = copies[0]  # whose metadata importlib.metadata finds
    if len(versions) == 1 and told_by.version not in versions:
        versions[told_by.version] = (told_by, f"{told_by.distribution.info}/METADATA")
    if len(versions) > 1:
        told = "; ".join(
            f"{path} is of {one.version} from {stack.layer_name(one.layer)}" for one, path in versions.values()
        )
        first = next(iter(versions.values()))[0]
        text = f"{first.distribution.name} is torn: {told}"
        yield Finding(code="stack-torn", path=_info(told_by), package=first.distribution.name, message=text)


def _living(stack: Stack, one: Installed, copies: Sequence[Installed]) -> set[str]:
    """The files of a distribution that are in use, and that no other version has with the same bytes.

    In one folder every file that is left counts; across folders only modules that are imported.
    """
    distribution = one.distribution
    alone = len({copy.site for copy in copies}) == 1
    found = set()
    for path in distribution.recorded or ():
        if path.startswith(f"{distribution.info}/") or path.endswith(".pyc"):
            continue
        if one.layer is not None and not _left_of(stack, one.layer, path):
            continue
        if any(_has_same(stack, other, one, path) for other in copies if other.version != one.version):
            continue
        root = FUNCTION_ROOT if one.layer is None else LAYER_ROOT
        if alone or _is_imported(stack, f"{root}/{path}", one.site):
            found.add(path)
    return found


def _left_of(stack: Stack, layer: int, path: str) -> bool:
    """Whether the file of that layer is there after merging, or one with the same bytes."""
    winner = stack.winners.get(path)
    mine = stack.layers[layer].entries.get(path)
    return winner is not None and mine is not None and stack.layers[winner].entries[path].sha256 == mine.sha256


def _has_same(stack: Stack, other: Installed, one: Installed, path: str) -> bool:
    if other.layer is None or one.layer is None or other.site != one.site:
        return False
    theirs, mine = (stack.layers[layer].entries.get(path) for layer in (other.layer, one.layer))
    return theirs is not None and mine is not None and theirs.sha256 == mine.sha256


def _is_imported(stack: Stack, path: str, site: str) -> bool:
    """Whether the file is what its module's name imports."""
    relative = path.removeprefix(f"{site}/")
    ending = next((ending for ending in stack.endings if relative.endswith(ending)), None)
    if ending is None or relative == path:
        return False
    name = relative.removesuffix(ending).replace("/", ".").removesuffix(".__init__")
    found = stack.find_module(name)
    return found is not None and found.path == path


def _shadows(stack: Stack) -> Iterator[Finding]:
    yield from _shadows_along(stack, "", stack.search_path, set())
    runtime = stack.target.runtime
    bundled = modules.bundled(runtime)
    fixed = modules.unshadowable(runtime)
    own = set(modules.module_names(stack.names(FUNCTION_ROOT), stack.endings))
    for name in sorted(own & ((modules.standard_library(runtime) - fixed) | bundled.keys())):
        found = stack.find_module(name)
        if found and found.path and found.layer is None:
            whose = "the runtime's" if name in bundled else "the standard library's"
            yield Finding(code="stack-shadow", path=found.path, message=f"it hides {whose} {name}")


def _shadows_along(stack: Stack, prefix: str, path: Sequence[str], seen: set[tuple[str, ...]]) -> Iterator[Finding]:
    """The modules that another copy hides, in packages that several layers share, too.

    `seen` keeps links from leading round in circles.
    """
    real = tuple(filter(None, map(stack.real_path, path)))
    if real in seen:
        return
    seen.add(real)
    places: dict[str, int] = {}
    for folder in path:
        for name in set(modules.module_names(stack.names(folder), stack.endings)):
            places[name] = places.get(name, 0) + 1
    for name in sorted(places):
        found = stack.candidates(name, path)
        if len(found) < 2:
            continue
        first = found[0]
        if first.kind == "namespace":
            places_of_it = [place for one in found for place in one.locations]
            yield from _shadows_along(stack, f"{prefix}{name}.", places_of_it, seen)
            continue
        for hidden in found[1:]:
            if finding := _shadow(stack, prefix + name, first, hidden):
                yield finding


def _shadow(stack: Stack, name: str, first: Module, hidden: Module) -> Finding | None:
    winner, loser = stack.layer_of(first.path or ""), _layer_of(stack, hidden)
    if winner == loser and (winner is None or _site(stack, first) == _site(stack, hidden)):
        return None  # within the function, or within one folder of one layer: its author's choice
    what = hidden.path or f"the folder {hidden.locations[0]}"
    text = (
        f"import {name} takes this, from {stack.layer_name(winner)}, and not {what}, from {stack.layer_name(loser)}"
    )
    return Finding(code="stack-shadow", path=first.path, message=text)


def _layer_of(stack: Stack, module: Module) -> int | None:
    """The layer of a module's file, or of some file in a namespace folder."""
    if module.path:
        return stack.layer_of(module.path)
    prefix = f"{module.locations[0]}/"
    return next((n for path, n in stack.winners.items() if f"{LAYER_ROOT}/{path}".startswith(prefix)), None)


def _site(stack: Stack, module: Module) -> str:
    place = module.path or module.locations[0]
    return next((site for site in stack.search_path if place.startswith(f"{site}/")), "")


def _requirements(stack: Stack) -> Iterator[Finding]:
    """Requirements of what would be imported, and what is met only by another layer."""
    bundled = set(modules.bundled(stack.target.runtime).values())
    layers = {id(one.distribution): one.layer for one in stack.installed}
    infos = {id(one.distribution): _info(one) for one in stack.installed}
    broken = set()
    for one in unmet([installed.distribution for installed in stack.installed], stack.target):
        broken.add((id(one.owner), one.text))
        owner = f"{one.owner} of {stack.layer_name(layers[id(one.owner)])}"
        if one.there is None and one.name in bundled:
            text = f"{owner} needs {one.text}, which the runtime brings in a version that changes"
            yield Finding(
                code="contents-requirement-runtime", path=infos[id(one.owner)], package=str(one.owner), message=text
            )
            continue
        if one.there is None:
            text = f"{owner} needs {one.text}, which no layer has"
        else:
            there = stack.layer_name(layers[id(one.there)])
            text = f"{owner} needs {one.text}; {one.there.version} of {there} is imported"
        yield Finding(code="stack-requirement", path=infos[id(one.owner)], package=str(one.owner), message=text)
    for number, tree in enumerate(stack.layers):
        mine = [one.distribution for one in stack.installed if one.layer == number]
        helped = {
            (one.name, one.owner.info): one
            for one in unmet(mine, stack.target)
            if (id(one.owner), one.text) not in broken and one.name not in bundled
        }
        for (name, _), one in sorted(helped.items()):
            giver = next((other for other in stack.installed if other.name == name), None)
            if giver:
                text = f"{one.owner} of {tree.name} needs {one.text}, which {stack.layer_name(giver.layer)} brings"
                yield Finding(
                    code="stack-needs-layer", path=infos[id(one.owner)], package=str(one.owner), message=text
                )


def _libraries(stack: Stack) -> Iterator[Finding]:
    """Compiled files in the merged view; what of it only another layer's library makes work."""
    together = list(binary.check(stack.merged, stack.target))
    missing = {(one.path, one.message) for one in together}
    yield from together
    if stack.function:
        yield from _function_libraries(stack)
    for number, tree in enumerate(stack.layers):
        for one in binary.check(tree, stack.target):
            helped = one.code.startswith("binary-library-") and (one.path, one.message) not in missing
            if helped and stack.winners.get(one.path or "") == number:
                text = f"{one.message}; alone, {stack.layer_name(number)} would not load it"
                yield Finding(code="stack-needs-layer", path=one.path, package=one.package, message=text)


def _function_libraries(stack: Stack) -> Iterator[Finding]:
    """The function's compiled files; what they need may lie in a layer."""
    assert stack.function  # noqa: S101 - asked for by the caller
    trees = ((FUNCTION_ROOT, stack.function), (LAYER_ROOT, stack.merged))
    compiled = {
        f"{root}/{path}": entry.facts["elf"]
        for root, tree in trees
        for path, entry in tree.entries.items()
        if "elf" in entry.facts
    }
    alone = [one for one in binary.check(stack.function, stack.target) if one.code in _OF_THE_FILE]
    needs = binary.loader_findings(stack.function, compiled, stack.real_path, stack.target, FUNCTION_ROOT)
    for one in (*alone, *needs):
        yield replace(one, path=f"{FUNCTION_ROOT}/{one.path}")


def _contents(stack: Stack) -> Iterator[Finding]:
    """What keeps a layer from being of any use, whatever the others are."""
    for number, tree in enumerate(stack.layers):
        for one in (*contents.check(tree), *contents.check_for_target(tree, stack.target)):
            if (
                one.code in _OF_THE_LAYER
                and one.severity == "error"
                and stack.winners.get(one.path or "", number) == number
            ):
                yield replace(one, message=f"{one.message} ({stack.layer_name(number)})")


def _bytecode(stack: Stack) -> Iterator[Finding]:
    """Bytecode whose source another layer has replaced: Python may run the one that is no longer there."""
    mixed = {
        path
        for path in stack.winners
        if path.endswith(".pyc") and _source_layer(stack, path) not in (None, stack.winners[path])
    }
    if mixed:
        yield from contents.bytecode(stack.merged, stack.target, mixed)


def _source_layer(stack: Stack, path: str) -> int | None:
    """The layer that the source of a cached bytecode file comes from."""
    folder, _, name = path.rpartition("/__pycache__/")
    return stack.winners.get(f"{folder}/{name.partition('.')[0]}.py") if name else None
