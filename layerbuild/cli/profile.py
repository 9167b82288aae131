"""``layerbuild profile``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from layerbuild.cli.options import cache_options, make_sandboxes, open_cache, sandbox_options
from layerbuild.console import readable_size
from layerbuild.errors import UsageError

if TYPE_CHECKING:
    from layerbuild.console import Console

_HEAVIEST = 10


@click.command("profile")
@click.argument("layers", metavar="LAYER...", nargs=-1, required=True)
@click.option(
    "--import", "imports", metavar="MODULE", multiple=True, help="Instead of the recipes' imports. Repeatable."
)
@click.option(
    "--runs", type=click.IntRange(1, 1000), default=5, show_default=True, help="Fresh processes for each time."
)
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Also write a page, in one file.")
@cache_options
@sandbox_options
@click.pass_obj
def profile_command(
    console: Console,
    /,
    *,
    layers: tuple[str, ...],
    imports: tuple[str, ...],
    runs: int,
    html: Path | None,
    target: tuple[str, ...],
    backend: str,
    base_image: str | None,
    out: Path,
    as_json: bool,
) -> int:
    """Say what a cold start spends on imports, with the layers' bytecode and without, and where their bytes are.

    LAYER is as for `layerbuild stack`. Times are medians of fresh processes; the machine's file cache is warm.

    \b
    layerbuild profile pillow boto3 --target python3.13-x86_64
    layerbuild profile dist/web-python3.12-x86_64.zip --import fastapi --runs 20
    layerbuild profile numpy --html numpy.html
    """
    from layerbuild.cache import write_text
    from layerbuild.cli.invoke import chosen_stack
    from layerbuild.cli.stack import expanded, stacks_of
    from layerbuild.sandbox.choose import BACKENDS
    from layerbuild.sandbox.profile import profile

    console.as_json = as_json
    cache = open_cache(console)
    sandboxes = make_sandboxes(cache, backend, base_image, BACKENDS)
    layers, function, target = expanded(console, layers, None, target)
    stacked = {one: ready for ready in stacks_of(layers, function, target, out, cache) for one in ready.targets}
    stack, sandbox = chosen_stack({one: ready.stack for one, ready in stacked.items()}, sandboxes)
    recipes = [subject.recipe for subject in stacked[stack.target].subjects]
    names = imports or tuple(dict.fromkeys(name for recipe in recipes if recipe for name in recipe.imports))
    if not names:
        raise UsageError("usage", "the layers' recipes name no imports", hint="say them: --import PIL.Image")
    console.note(f"importing on {stack.target}, CPython {sandbox.interpreter}, in the {sandbox.name} backend")
    found = profile(sandbox, stack, names, runs, [recipe.size_budget if recipe else None for recipe in recipes])
    if html:
        from layerbuild.sandbox.page import profile_page

        write_text(html, profile_page(found))
        console.note(f"made {html}")
    if as_json:
        console.document(found)
    else:
        _show(console, found)
    return 0


def _show(console: Console, found: dict[str, Any]) -> None:
    rows = [
        [one["name"], _ms(one["seconds"]), _ms(one["without_bytecode"]), _gain(one), str(len(one["modules"]))]
        for one in found["imports"]
    ]
    numbers = ("time", "no bytecode", "gain", "modules")
    console.table(("import", "time", "no bytecode", "gain", "modules"), rows, numbers=numbers)
    console.result("")
    sizes = {row["package"]: sum(row["types"].values()) for row in found["sizes"]}
    rows = [
        [
            one["package"],
            _ms(one["seconds"]),
            _ms(one["without_bytecode"]),
            _gain(one),
            str(one["modules"]),
            readable_size(sizes[one["package"]]) if one["package"] in sizes else "",
        ]
        for one in found["packages"]
    ]
    columns = ("package, of all imports", "time", "no bytecode", "gain", "modules", "size")
    console.table(columns, rows, numbers=(*numbers, "size"))
    console.result("")
    heaviest: dict[str, dict[str, Any]] = {}
    for one in found["imports"]:
        for module in one["modules"]:
            if module["self"] > heaviest.get(module["name"], {"self": -1})["self"]:
                heaviest[module["name"]] = module
    ordered = sorted(heaviest.values(), key=lambda module: -module["self"])[:_HEAVIEST]
    rows = [[one["name"], one["package"] or "", _ms(one["self"]), _ms(one["cumulative"])] for one in ordered]
    console.table(
        ("heaviest module", "package", "itself", "with its imports"), rows, numbers=("itself", "with its imports")
    )


def _ms(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1000:.1f} ms"


def _gain(row: dict[str, Any]) -> str:
    """How many times faster it is with bytecode."""
    bare = row["without_bytecode"]
    return f"{bare / row['seconds']:.1f}x" if bare and row["seconds"] else ""
