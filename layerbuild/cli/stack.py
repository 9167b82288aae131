"""``layerbuild stack``."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from layerbuild.cli.check import Subject, finding_options, prepare, show, subjects
from layerbuild.cli.options import cache_options, complete_target, open_cache
from layerbuild.console import Console, readable_size
from layerbuild.errors import UsageError, nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from layerbuild.cache import Cache
    from layerbuild.checks import Finding
    from layerbuild.report import Report
    from layerbuild.stack import Stack
    from layerbuild.stack.order import Orders
    from layerbuild.target import Target


@click.command("stack")
@click.argument("layers", metavar="LAYER...", nargs=-1, required=True)
@click.option("--function", type=click.Path(path_type=Path), help="The function's zip or folder, for /var/task.")
@click.option(
    "--target",
    metavar="PATTERN",
    multiple=True,
    shell_complete=complete_target,
    help="What the function runs on, if the layers do not say. Repeatable.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("dist"),
    show_default=True,
    help="Where the archives of recipes are.",
)
@click.option(
    "--explain", metavar="PATH|MODULE", multiple=True, help="Say which layer serves it, and why. Repeatable."
)
@click.option(
    "--suggest-order", is_flag=True, help="Try every order that differs; name those with the fewest errors."
)
@click.option(
    "--merge",
    metavar="OUT.zip",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write one layer that holds what the stack does, if it has no errors.",
)
@cache_options
@finding_options
@click.pass_obj
def stack_command(
    console: Console,
    /,
    *,
    layers: tuple[str, ...],
    function: Path | None,
    target: tuple[str, ...],
    out: Path,
    explain: tuple[str, ...],
    suggest_order: bool,
    merge: Path | None,
    **shown: Any,
) -> int:
    """Say what several layers, in this order, do to each other and to the function.

    LAYER is a zip, a folder laid out as /opt, a recipe, an ARN, or the one name of a stack in the settings.

    \b
    layerbuild stack pillow boto3 --target python3.13-arm64
    layerbuild stack a.zip b.zip c.zip --function app.zip
    layerbuild stack a.zip b.zip --explain PIL.Image --explain python/six.py
    layerbuild stack a.zip b.zip c.zip --suggest-order
    layerbuild stack a.zip b.zip c.zip d.zip e.zip f.zip --merge all.zip
    """
    prepare(console, shown)
    cache = open_cache(console)
    layers, function, target = expanded(console, layers, function, target)
    stacks = stacks_of(layers, function, target, out, cache)
    if merge:
        _check_merge(merge, stacks)
    reports = []
    for one in stacks:
        report = one.report(" + ".join(layers), shown)
        if explain:
            report = replace(report, more={**(report.more or {}), "explained": _explained(one.stack, explain)})
        if suggest_order:
            report = replace(report, more={**(report.more or {}), "orders": _orders(one.stack)})
        reports.append(report)
    if merge:
        _merge(console, stacks[0], merge, shown)
    code = show(console, reports, shown)
    if shown["form"] == "text":
        for report in reports:
            _show_more(console, report)
    return code if shown["strict"] or not merge else 0


_COUNTS = ("errors", "warnings")
# What is an error in one layer and only a warning, or nothing, among several.
_MERGED = ("contents-two-versions",)


class Stacked:
    """A stack, the subjects it is made of, and every target that it was asked for."""

    def __init__(self, stack: Stack, subjects: Sequence[Subject], targets: Sequence[Target], error: str) -> None:
        self.stack = stack
        self.subjects = subjects
        self.targets = targets
        self.error = error

    @cached_property
    def findings(self) -> list[Finding]:
        """What holds for all targets, and what for some only."""
        from layerbuild.checks import Finding, in_order, over_targets

        def work(target: Target) -> list[Finding]:
            return (self.stack if target == self.stack.target else replace(self.stack, target=target)).findings()

        found = over_targets(self.targets, work)
        found += [Finding(code="stack-targets", message=self.error)] if self.error else []
        return in_order(self._accepted(finding) for finding in found)

    def _accepted(self, finding: Finding) -> Finding:
        """The finding, accepted where the recipe of the layer that its file comes from does so."""
        from layerbuild.checks import accept

        number = self.stack.winners.get(finding.path or "")
        recipe = self.subjects[number].recipe if number is not None else None
        if recipe is None or finding.code.startswith("stack-"):
            return finding
        return next(one for one in accept([finding], recipe.accept) if one.code == finding.code)

    def report(self, name: str, shown: dict[str, Any]) -> Report:
        """The report of the whole stack."""
        from layerbuild.checks import select
        from layerbuild.report import Report

        paths = [
            {
                "path": one.path,
                "layers": [self.stack.layer_name(number) for number in one.layers],
                "winner": self.stack.layer_name(one.winner),
                "identical": one.identical,
            }
            for one in self.stack.carried
        ]
        return Report(
            subject=name,
            kind="stack",
            uri=self.subjects[-1].uri,
            targets=tuple(map(str, self.targets)),
            findings=tuple(select(self.findings, shown["select"], shown["ignore"])),
            zipped=None,
            unzipped=self.stack.unzipped,
            more={
                "layers": [tree.name for tree in self.stack.layers],
                "function": self.stack.function.name if self.stack.function else None,
                "paths": paths,
            },
        )


def stacks_of(
    names: Sequence[str], function: Path | None, patterns: Sequence[str], out: Path, cache: Cache
) -> list[Stacked]:
    """The stacks that the command line asks for: one, or one per target where recipes have an archive for each."""
    from layerbuild.target import all_targets, select_targets
    from layerbuild.tree import read_tree

    found = [list(subjects(name, out, cache)) for name in names]
    if function and not function.exists():
        raise UsageError("layer-not-found", f"{function} does not exist", hint="--function takes a zip or a folder")
    task = read_tree(function, str(function), cache) if function else None
    wanted = select_targets(patterns) if patterns else None
    declared = {id(one): set(one.targets(())) for row in found for one in row}
    known = [{target for one in row for target in declared[id(one)]} for row in found]
    told = [targets for targets in known if targets]
    if wanted is None:
        if not told:
            what = "none of the layers says what it is for"
            raise UsageError("usage", what, hint="say it, such as --target python3.13-arm64")
        common = set.intersection(*told)
        wanted = tuple(target for target in all_targets() if target in common)
    if not wanted:  # nothing suits all of them: go on with what the first says
        wanted = tuple(target for target in all_targets() if target in told[0])[:1]
    chosen: dict[tuple[int, ...], list[Target]] = {}
    for target in wanted:
        places = tuple(_place_for(row, target, declared) for row in found)
        chosen.setdefault(places, []).append(target)
    result = []
    for places, targets in chosen.items():
        layers = [row[place] for row, place in zip(found, places, strict=True)]
        error = _misfits(layers, targets, declared)
        result.append(Stacked(_stack(layers, task, targets[0]), layers, targets, error))
    return result


def _place_for(row: Sequence[Subject], target: Target, declared: dict[int, set[Target]]) -> int:
    """Which archive of a recipe to take for a target: the one for it, else the first."""
    return next((place for place, one in enumerate(row) if target in declared[id(one)]), 0)


def _misfits(layers: Sequence[Subject], targets: Sequence[Target], declared: dict[int, set[Target]]) -> str:
    """A sentence that names the layers that are for other targets; empty where all fit."""
    wrong = [
        f"{one.tree.name} is for {', '.join(sorted(map(str, declared[id(one)])))}"
        for one in layers
        if declared[id(one)] and not declared[id(one)] >= set(targets)
    ]
    return f"on {targets[0]}: {'; '.join(wrong)}" if wrong else ""


def _stack(layers: Sequence[Subject], function: Any, target: Target) -> Stack:
    from layerbuild.stack import Stack

    return Stack(
        layers=tuple(one.tree for one in layers),
        target=target,
        function=function,
        identities=tuple(one.identity for one in layers),
    )


def expanded(
    console: Console, layers: tuple[str, ...], function: Path | None, target: tuple[str, ...]
) -> tuple[tuple[str, ...], Path | None, tuple[str, ...]]:
    """Layers, function and targets, where the one word for the layers may name a stack of the settings."""
    if len(layers) != 1 or not console.stacks or _is_layer(layers[0]):
        return layers, function, target
    wanted = _settings(console, layers[0])
    own = Path(wanted["function"]) if "function" in wanted else None
    return tuple(wanted["layers"]), function or own, target or tuple(wanted.get("target", ()))


def _is_layer(name: str) -> bool:
    """Whether one word of the command line names a layer, rather than a stack of the settings."""
    from layerbuild.recipe import recipe_folders

    path = Path(name)
    return name.startswith("arn:") or path.suffix == ".zip" or path.exists() or name in recipe_folders(Path.cwd())


def _settings(console: Console, name: str) -> dict[str, Any]:
    if name not in console.stacks:
        what = f"the settings have no stack {name!r}"
        raise UsageError("unknown-stack", what, causes=[nearest(name, console.stacks)])
    return console.stacks[name]


def named_stack(
    console: Console, name: str, patterns: Sequence[str], out: Path, cache: Cache, shown: dict[str, Any]
) -> list[Report]:
    """The reports of a stack that the project's settings name; one for each set of archives."""
    wanted = _settings(console, name)
    function = Path(wanted["function"]) if "function" in wanted else None
    patterns = patterns or wanted.get("target", ())
    return [one.report(name, shown) for one in stacks_of(wanted["layers"], function, patterns, out, cache)]


def _explained(stack: Stack, asked: Sequence[str]) -> list[dict[str, Any]]:
    from layerbuild.stack.explain import explain

    found = []
    for one in asked:
        answer = explain(stack, one)
        if answer is None:
            what = f"neither the layers nor the function have {one!r}"
            raise UsageError("not-in-stack", what, hint="name a path below /opt, or a module such as PIL.Image")
        found.append(answer)
    return found


def _orders(stack: Stack) -> dict[str, Any]:
    from layerbuild.stack.order import best_orders

    found: Orders = best_orders(stack)
    return {
        "possible": found.possible,
        "tried": found.tried,
        "errors": found.errors,
        "warnings": found.warnings,
        "best": [[stack.layer_name(number) for number in order] for order in found.best],
        "always": [finding.as_json() for finding in found.always],
    }


def _show_more(console: Console, report: Report) -> None:
    """What --explain and --suggest-order found, for people."""
    more = report.more or {}
    for answer in more.get("explained", ()):
        served = answer["served_by"] or "no single layer"
        console.result("")
        console.result(console.styled(answer["asked"], "bold") + f"  {answer['path'] or answer['kind']}")
        console.paragraph(f"served by {served}: {answer['why']}", indent=2)
        for row in answer["carried_by"]:
            size = f", {readable_size(row['size'])}" if row["size"] is not None else ""
            console.paragraph(f"{row['path']} in {row['layer']}{size}", indent=4)
    if orders := more.get("orders"):
        console.result("")
        if orders["tried"] == 1:
            console.paragraph("no two layers collide: every order is the same", indent=2)
            return
        console.paragraph(
            f"{orders['tried']} of {orders['possible']} orders differ; all of them were tried", indent=2
        )
        told = ", ".join(
            f"{orders[name]} {name.removesuffix('s') if orders[name] == 1 else name}" for name in _COUNTS
        )
        for best in orders["best"][:5]:
            console.paragraph(f"{told}: {' '.join(best)}", indent=2)
        if orders["errors"]:
            console.paragraph("no order is clean; these remain in every one:", indent=2)
            for finding in orders["always"]:
                console.paragraph(f"{finding['message']} [{finding['code']}]", indent=4)


def _check_merge(path: Path, stacks: Sequence[Stacked]) -> None:
    from layerbuild.recipe import check_name

    if len(stacks) != 1:
        raise UsageError("usage", "--merge makes one layer", hint="choose one set of archives with --target")
    problem = f"{path} must end with .zip" if path.suffix != ".zip" else check_name(path.stem.replace(".", "-"))
    if any(path.resolve() == one.path.resolve() for one in stacks[0].subjects):
        problem = f"{path} is one of the layers to be merged"
    if problem:
        raise UsageError("bad-layer-name", problem)


def _merge(console: Console, stacked: Stacked, path: Path, shown: dict[str, Any]) -> None:
    from layerbuild.archive import source_date
    from layerbuild.checks import check_layer, refuse_errors, select
    from layerbuild.stack.merge import merge

    # What merging mends is no reason against it.
    found = [one for one in stacked.findings if one.code not in ("stack-too-many", "stack-size")]
    refuse_errors(select(found, (), shown["ignore"]), path.name)
    refuse_errors(
        [one for one in check_layer(stacked.stack.merged, stacked.targets) if one.code in _MERGED],
        path.name,
    )
    places = [one.path for one in stacked.subjects]
    manifest = merge(stacked.stack, places, stacked.targets, path, epoch=source_date())
    sizes = f"{readable_size(manifest.data['zipped'])} zipped, {readable_size(manifest.data['unzipped'])} unzipped"
    console.note(f"made {path}: {sizes}")
