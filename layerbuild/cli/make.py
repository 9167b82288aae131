"""``layerbuild make``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from layerbuild.cli.options import (
    cache_options,
    chosen_recipes,
    complete_rule,
    container_options,
    make_builders,
    make_prover,
    open_cache,
    recipe_options,
)
from layerbuild.console import Console, readable_size
from layerbuild.github import LARGEST_OUTPUT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from layerbuild.pipeline import Failed, Made

_COLUMNS = ("layer", "target", "zipped", "unzipped", "limit", "pkgs", "imports", "time")
_NUMBERS = ("zipped", "unzipped", "limit", "pkgs", "time")


@click.command("make")
@recipe_options
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), default=Path("dist"), show_default=True,
    help="Folder for the archives.",
)  # fmt: skip
@click.option("--locked", is_flag=True, help="Fail rather than make or change a lock; for CI.")
@click.option("--force", is_flag=True, help="Make layers again that are up to date.")
@click.option(
    "--ignore", metavar="CODE", multiple=True, shell_complete=complete_rule,
    help="Do not apply a rule of the checks, or a family such as `contents`. Repeatable.",
)  # fmt: skip
@click.option("--explain-size", is_flag=True, help="Show where the bytes of each layer are.")
@click.option(
    "--smoke", type=click.Choice(["auto", "require", "off"]), default="auto", show_default=True,
    help="Import what the recipe names as a function would. auto: where something here can run it.",
)  # fmt: skip
@click.option(
    "--bytecode", type=click.Choice(["imports", "all", "off"]),
    help="Compile what the imports load, or all, instead of what the recipe says.",
)  # fmt: skip
@click.option(
    "--backend", type=click.Choice(["auto", "namespace", "container"]), default="auto", show_default=True,
    help="What imports run in. auto: namespaces of this machine, or a container whose image is there.",
)  # fmt: skip
@click.option("--jobs", type=click.IntRange(1, 64), default=4, show_default=True, help="Layers to make side by side.")
@cache_options
@container_options
@click.pass_obj
def make_command(
    console: Console,
    /,
    *,
    recipes: tuple[str, ...],
    all_recipes: bool,
    requirements: Path | None,
    name: str | None,
    target: tuple[str, ...],
    as_json: bool,
    out: Path,
    locked: bool,
    force: bool,
    ignore: tuple[str, ...],
    jobs: int,
    smoke: str,
    bytecode: str | None,
    backend: str,
    explain_size: bool,
    **container: Any,
) -> int:
    """Make layers: one zip per recipe and target, and a manifest beside it.

    \b
    layerbuild make pillow
    layerbuild make pillow boto3 --target 'python3.13-*'
    layerbuild make pillow@python3.13-arm64 'numpy@*-x86_64'
    layerbuild make -r requirements.txt --name web --target python3.12-x86_64
    layerbuild make --all --locked --json > layers.json
    layerbuild make pillow --builder container --target 'python3.13-*'
    """
    from layerbuild import pipeline
    from layerbuild.github import lines_at_fault
    from layerbuild.index import Index

    console.as_json = as_json
    if ignore:
        from layerbuild.checks import check_selectors

        check_selectors(ignore)
    chosen, own = chosen_recipes(recipes, all_recipes=all_recipes, requirements=requirements, name=name)
    layers = pipeline.jobs_of(chosen, target, own)
    for warning in pipeline.deprecation_warnings(layers):
        console.warn(warning)
    index = Index()
    cache = open_cache(console)
    builders = make_builders(console, cache, index, **container)
    options = pipeline.Options(
        project=Path.cwd(), out=out, cache=cache, locked=locked, force=force, jobs=jobs, ignore=ignore,
        base_image=container["base_image"], bytecode=bytecode,
        prover=make_prover(console, cache, smoke, backend, container["base_image"]),
    )  # fmt: skip
    made: list[Made] = []
    failed: list[Failed] = []
    with console.progress():
        for outcome in pipeline.make(layers, options, builders, index, console):
            if isinstance(outcome, pipeline.Made):
                made.append(outcome)
                console.note(f"{_VERBS[outcome.status]} {outcome.path} in {outcome.seconds:.2f} s")
            else:
                failed.append(outcome)
                console.error(outcome.error, lines_at_fault(outcome.job.recipe, outcome.error))
    order = {job.name: place for place, job in enumerate(layers)}
    made.sort(key=lambda outcome: order[outcome.job.name])
    if as_json:
        document = {"layers": [one.as_json() for one in made], "failed": [one.as_json() for one in failed]}
        console.document(document)
    else:
        _show(console, made)
        if explain_size:
            for one in made:
                _explain_size(console, one)
    if console.step:
        _tell_job(console, made, failed)
    if failed:
        console.note(f"{len(failed)} of {len(layers)} layers could not be made")
    return max((one.error.exit_code for one in failed), default=0)


def _tell_job(console: Console, made: Sequence[Made], failed: Sequence[Failed]) -> None:
    """Outputs and the summary of the job that this is."""
    from layerbuild.cli.summary import made_summary
    from layerbuild.layer import UNZIPPED_LIMIT

    console.summary(lambda: made_summary(made, failed, UNZIPPED_LIMIT))
    console.output_value("layers", _layers_value(console, made))
    console.output_value("changed", str(any(one.status == "built" for one in made)).lower())


def _layers_value(console: Console, made: Sequence[Made]) -> str:
    """The output ``layers``: manifests, each with its path and status, as JSON on one line."""
    rows = [{**one.manifest.data, "path": str(one.path), "status": one.status} for one in made]
    value = json.dumps(rows, separators=(",", ":"))
    if len(value) <= LARGEST_OUTPUT:
        return value
    console.warn("the output layers is too large for GitHub: it leaves out what the layers consist of")
    return json.dumps([{**row, "distributions": []} for row in rows], separators=(",", ":"))


_SMOKE = {"passed": "passed", "not run": "not run", "none": "-"}
_VERBS = {"built": "made", "up-to-date": "up to date:"}


def _show(console: Console, made: Sequence[Made]) -> None:
    """The closing table; the archives' paths where there is room for them."""
    from layerbuild.layer import UNZIPPED_LIMIT

    if not made:
        return
    rows = [
        [
            one.manifest.data["recipe"],
            one.manifest.data["target"],
            readable_size(one.manifest.data["zipped"]),
            readable_size(one.manifest.data["unzipped"]),
            f"{one.manifest.data['unzipped'] / UNZIPPED_LIMIT:.1%}",
            str(len(one.manifest.data["distributions"])),
            _SMOKE[one.manifest.data["smoke"]["status"]],
            f"{one.seconds:.2f} s",
        ]
        for one in made
    ]
    paths = [str(one.path) for one in made]
    if console.width() >= 85 + max(map(len, paths)):
        rows = [[*row, path] for row, path in zip(rows, paths, strict=True)]
        console.table((*_COLUMNS, "path"), rows, numbers=_NUMBERS)
        return
    console.table(_COLUMNS, rows, numbers=_NUMBERS)
    console.result(f"paths: {made[0].path.parent}/<layer>-<target>.zip")


def _explain_size(console: Console, made: Made) -> None:
    """A layer's distributions, largest first, each with its largest folders."""
    from layerbuild.archive import archive_sizes

    console.result("")
    console.result(f"{made.path}")
    rows = []
    for owner, folders in archive_sizes(made.path).items():
        total = [sum(size[place] for size in folders.values()) for place in (0, 1)]
        rows.append([owner, readable_size(total[0]), readable_size(total[1])])
        largest = sorted(folders.items(), key=lambda item: -item[1][0])[:5]
        worth_telling = [item for item in largest if item[1][0] > 50_000]
        rows += [[f"  {name}", readable_size(size), readable_size(zipped)] for name, (size, zipped) in worth_telling]
    console.table(("package", "unzipped", "zipped"), rows, numbers=("unzipped", "zipped"))
