"""Commands about recipes: ``recipes`` and ``new``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from layerbuild.cli.options import cache_options, open_cache
from layerbuild.errors import UsageError

if TYPE_CHECKING:
    from layerbuild.console import Console
    from layerbuild.index import Index


@click.command("recipes")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document.")
@click.pass_obj
def recipes_command(console: Console, /, *, as_json: bool) -> int:
    """List the recipes: those in ./recipes and those that came with layerbuild.

    \b
    layerbuild recipes
    layerbuild recipes --json
    """
    from layerbuild.recipe import load_recipe, recipe_folders

    project = Path.cwd()
    found = [load_recipe(name, project) for name in recipe_folders(project)]
    if as_json:
        rows = [
            {
                "name": recipe.name,
                "summary": recipe.summary,
                "homepage": recipe.homepage,
                "licence": recipe.licence,
                "requirements": list(recipe.requirements),
                "targets": [str(target) for target in recipe.targets],
                "shipped": recipe.shipped,
                "folder": str(recipe.folder),
            }
            for recipe in found
        ]
        console.document({"recipes": rows})
        return 0
    table = [[recipe.name, "shipped" if recipe.shipped else "own", recipe.summary] for recipe in found]
    console.table(("recipe", "from", "summary"), table)
    return 0


@click.command("new")
@click.argument("name")
@click.option("--force", is_flag=True, help="Replace a recipe that is there.")
@cache_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document.")
@click.pass_obj
def new_command(console: Console, /, *, name: str, force: bool, as_json: bool) -> int:
    """Write a commented recipe for the package NAME into ./recipes, after looking it up in the index.

    \b
    layerbuild new httpx
    layerbuild make httpx
    """
    from layerbuild.cache import write_text
    from layerbuild.index import Index

    path = recipe_path(name)
    if path.exists() and not force:
        raise UsageError("recipe-exists", f"{path} is there already", hint="--force replaces it")
    write_text(path, recipe_text(console, Index(), name))
    if as_json:
        console.document({"recipe": name, "path": str(path)})
    else:
        console.result(f"wrote {path}; next: layerbuild make {name}")
    return 0


def recipe_path(name: str) -> Path:
    """Where the project's recipe of that name is.

    Raises:
        UsageError: no layer can have that name.
    """
    from layerbuild.recipe import RECIPE_FILE, check_name

    if problem := check_name(name):
        raise UsageError("bad-layer-name", problem)
    return Path("recipes") / name / RECIPE_FILE


def recipe_text(console: Console, index: Index, name: str) -> str:
    """A commented recipe for a package, after looking it up.

    Raises:
        UsageError: no index has it.
    """
    from layerbuild.builders.host import HostBuilder
    from layerbuild.recipe import parse_recipe
    from layerbuild.scaffold import new_recipe_text
    from layerbuild.target import default_targets

    if not index.files(name):
        raise UsageError(
            "unknown-package",
            f"no index has a package {name!r}",
            hint="check its name, and the index that `pip config list` shows",
        )
    builder = HostBuilder(open_cache(console), index, console)
    newest = max(default_targets(), key=lambda target: (target.arch == "x86_64", target.runtime.version))
    with console.progress():
        wheel = builder.newest_wheel(name, newest)
    text = new_recipe_text(name, wheel)
    parse_recipe(text, folder=recipe_path(name).parent)
    return text
