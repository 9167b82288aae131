"""``layerbuild lock``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from layerbuild.cli.options import (
    cache_options,
    chosen_recipes,
    container_options,
    make_builders,
    open_cache,
    recipe_options,
)

if TYPE_CHECKING:
    from layerbuild.builders import Builders
    from layerbuild.console import Console
    from layerbuild.index import Index
    from layerbuild.pipeline import Job

_EVERYTHING = "*"


@click.command("lock")
@recipe_options
@click.option(
    "--upgrade", "-U", metavar="[PACKAGE]", is_flag=False, flag_value=_EVERYTHING, multiple=True,
    help="Take the newest versions: of all packages, or of PACKAGE. Repeatable; put it last.",
)  # fmt: skip
@click.option("--check", is_flag=True, help="Change nothing; exit 1 when a lock is missing or no longer fits.")
@cache_options
@container_options
@click.pass_obj
def lock_command(
    console: Console,
    /,
    *,
    recipes: tuple[str, ...],
    all_recipes: bool,
    requirements: Path | None,
    name: str | None,
    target: tuple[str, ...],
    as_json: bool,
    upgrade: tuple[str, ...],
    check: bool,
    **container: Any,
) -> int:
    """Lock recipes: the version and hashes of every package, for each target.

    Pins that are there are kept where they fit. A recipe's locks lie beside it; those of shipped recipes
    and requirements files go into ./locks.

    \b
    layerbuild lock pillow
    layerbuild lock --all --check
    layerbuild lock pandas --target python3.13-arm64 --upgrade numpy
    layerbuild lock --all --upgrade
    layerbuild lock pillow --builder container
    """
    from layerbuild.index import Index
    from layerbuild.pipeline import deprecation_warnings, jobs_of

    console.as_json = as_json
    chosen, own = chosen_recipes(recipes, all_recipes=all_recipes, requirements=requirements, name=name)
    jobs = jobs_of(chosen, target, own)
    for warning in deprecation_warnings(jobs):
        console.warn(warning)
    if check:
        return _check(console, jobs)
    kept = None if not upgrade else () if _EVERYTHING in upgrade else upgrade
    index = Index()
    builders = make_builders(console, open_cache(console), index, **container)
    with console.progress():
        return _update(console, jobs, builders, index, kept)


def _check(console: Console, jobs: list[Job]) -> int:
    """Reports the locks that are missing or no longer fit."""
    from layerbuild.cli.summary import fits_summary
    from layerbuild.errors import BuildError
    from layerbuild.lock import find_lock, lock_misfits

    rows: list[dict[str, Any]] = []
    for job in jobs:
        for one in job.targets:
            try:
                found = find_lock(job.recipe, one, Path.cwd())
                problems = lock_misfits(found[0], job.recipe, one) if found else ["there is no lock"]
            except BuildError as error:
                problems = list(error.causes)
            rows.append({"recipe": job.recipe.name, "target": str(one), "fits": not problems, "problems": problems})
    misfits = [row for row in rows if not row["fits"]]
    console.summary(lambda: fits_summary(rows))
    console.output_value("changed", "false")
    if console.as_json:
        console.document({"locks": rows})
    else:
        for row in misfits:
            console.result(f"{row['recipe']} {row['target']}: {'; '.join(row['problems'])}")
        console.result(f"{len(rows) - len(misfits)} of {len(rows)} locks fit their recipes")
    return 1 if misfits else 0


def _update(
    console: Console, jobs: list[Job], builders: Builders, index: Index, upgrade: tuple[str, ...] | None
) -> int:
    """Writes the locks, two at a time: resolvers keep a core busy each."""
    from layerbuild.cli.summary import locked_summary
    from layerbuild.errors import shown_path
    from layerbuild.github import lines_at_fault
    from layerbuild.pipeline import Failed, lock_all

    rows: list[dict[str, Any]] = []
    failed: list[Failed] = []
    for outcome in lock_all(jobs, Path.cwd(), builders, index, upgrade=upgrade):
        if isinstance(outcome, Failed):
            failed.append(outcome)
            console.error(outcome.error, lines_at_fault(outcome.job.recipe, outcome.error))
            continue
        rows.append(outcome.as_json())
        console.note(f"{'locked' if outcome.changed else 'unchanged:'} {shown_path(outcome.path)}")
    rows.sort(key=lambda row: (row["recipe"], row["target"]))
    console.summary(lambda: locked_summary(rows, failed))
    console.output_value("changed", str(any(row["changed"] for row in rows)).lower())
    if console.as_json:
        console.document({"locks": rows, "failed": [one.as_json() for one in failed]})
    else:
        changed = sum(row["changed"] for row in rows)
        console.result(f"{changed} locks written, {len(rows) - changed} unchanged, {len(failed)} failed")
    return max((one.error.exit_code for one in failed), default=0)
