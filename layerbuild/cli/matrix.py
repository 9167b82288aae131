"""``layerbuild matrix``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from layerbuild.cli.options import cache_options, chosen_recipes, open_cache, recipes_argument, target_option
from layerbuild.errors import UsageError

if TYPE_CHECKING:
    from layerbuild.console import Console


@click.command("matrix")
@recipes_argument
@target_option
@click.option("--changed-since", metavar="REVISION", help="Only recipes that have changed since a branch or commit.")
@click.option(
    "--jobs",
    type=click.IntRange(1, 256),
    default=256,
    show_default=True,
    help="Machines at the most, as GitHub has it.",
)
@click.option(
    "--minutes", type=click.FloatRange(min=0.1), default=5, show_default=True,
    help="What a machine should be busy for, where the times are known.",
)  # fmt: skip
@click.option(
    "--json", "as_json", is_flag=True, help="Indented; without it, on one line, as $GITHUB_OUTPUT takes it."
)
@cache_options
@click.pass_obj
def matrix_command(
    console: Console,
    /,
    *,
    recipes: tuple[str, ...],
    target: tuple[str, ...],
    changed_since: str | None,
    jobs: int,
    minutes: float,
    as_json: bool,
) -> int:
    """Deal out what is to be built to machines, as JSON for strategy.matrix of GitHub Actions.

    Without RECIPE: all. How long each layer took the last time is in the cache. A job runs on `runner`, and makes its
    part with `layerbuild make $LAYERS`, where its environment has `layers` as LAYERS.

    \b
    layerbuild matrix --changed-since origin/main
    echo "matrix=$(layerbuild matrix)" >> "$GITHUB_OUTPUT"
    layerbuild matrix pillow numpy --jobs 8 --json
    """
    from layerbuild.matrix import Piece, changed_recipes, document, shards
    from layerbuild.pipeline import jobs_of
    from layerbuild.recipe import recipe_folders

    console.as_json = as_json
    cache = open_cache(console)
    chosen, own = chosen_recipes(recipes, all_recipes=not recipes, requirements=None, name=None)
    if changed_since is not None:
        folders = {name: folder for name, (folder, shipped) in recipe_folders(Path.cwd()).items() if not shipped}
        changed = changed_recipes(Path.cwd(), changed_since, folders)
        chosen = [recipe for recipe in chosen if recipe.name in changed]
        console.note(f"{len(chosen)} recipes have changed since {changed_since}")
    try:
        layers = jobs_of(chosen, target, own)
    except UsageError:
        if not changed_since:
            raise
        layers = []
    pieces = [
        Piece(
            recipe=job.recipe.name,
            label=job.label,
            arch=job.targets[0].arch,
            seconds=cache.seconds(job.name),
        )
        for job in layers
    ]
    found = document(shards(pieces, most=jobs, length=minutes * 60))
    if as_json:
        console.document(found)
    else:
        console.text(json.dumps(found, separators=(",", ":")))
    return 0
