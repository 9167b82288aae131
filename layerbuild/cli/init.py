"""``layerbuild init``."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from layerbuild.errors import UsageError
from layerbuild.scaffold import DEFAULT_USES

if TYPE_CHECKING:
    from layerbuild.console import Console


@click.command("init")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--github", is_flag=True, help="Also workflows for GitHub Actions.")
@click.option(
    "--uses", metavar="ACTION", default=DEFAULT_USES, show_default=True,
    help="With --github: what workflows say for the action. A commit's hash after the @ cannot be moved.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Replace files that are there, settings and recipes, too.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document.")
@click.pass_obj
def init_command(
    console: Console, /, *, names: tuple[str, ...], github: bool, uses: str, force: bool, as_json: bool
) -> int:
    """Make this folder a repository of recipes: settings, a .gitignore, a recipe for each package NAME.

    Files that are there are left as they are; --force replaces them, settings and recipes, too.

    \b
    layerbuild init httpx pydantic
    layerbuild init --github --uses octo-org/layerbuild@v1 httpx
    layerbuild init --github --uses ./          in the action's own repository
    """
    from layerbuild.cli.recipes import recipe_path, recipe_text
    from layerbuild.index import Index
    from layerbuild.scaffold import project_files

    console.as_json = as_json
    _check_uses(uses, github=github)
    texts = project_files(uses if github else None)
    if _settings_are_in_pyproject():
        del texts["layerbuild.toml"]
        console.note("pyproject.toml has settings, which a layerbuild.toml would hide: none is written")
    # All packages are looked up before anything is written.
    index = Index()
    for name in dict.fromkeys(names):
        path = recipe_path(name)
        texts[path.as_posix()] = "" if os.path.lexists(path) and not force else recipe_text(console, index, name)
    status = {place: _write(Path(place), text, force=force) for place, text in texts.items()}
    if status[".gitignore"] == "kept":
        console.note(".gitignore is as it was: dist/ belongs into it")
    if uses.startswith("OWNER/") and any(place.endswith(".yml") and status[place] != "kept" for place in texts):
        console.warn("put the action's owner in place of OWNER in .github/workflows, or give --uses")
    if as_json:
        console.document({"files": [{"path": place, "status": status[place]} for place in texts]})
        return 0
    for place in texts:
        console.result(f"{status[place]} {place}")
    console.result(f"next: {'layerbuild lock --all' if names else 'layerbuild new NAME'}")
    return 0


def _check_uses(uses: str, *, github: bool) -> None:
    """Refuses what is no action's name, and a name without workflows to put it into."""
    from layerbuild.scaffold import names_action

    given = click.get_current_context().get_parameter_source("uses")
    if not github and given is click.core.ParameterSource.COMMANDLINE:
        raise UsageError("usage", "--uses goes with --github", hint="without workflows nothing names the action")
    if not names_action(uses):
        hint = "owner/layerbuild@v1, a commit after the @, or ./ in the action's own repository"
        raise UsageError("usage", f"--uses: {uses!r} names no action", hint=hint)


def _write(path: Path, text: str, *, force: bool) -> str:
    """Writes a file unless there is one; says what became of it. A link that leads nowhere is something, too."""
    from layerbuild.cache import write_text

    there = os.path.lexists(path)
    if there and not force:
        return "kept"
    write_text(path, text)
    return "replaced" if there else "written"


def _settings_are_in_pyproject() -> bool:
    path = Path("pyproject.toml")
    if Path("layerbuild.toml").is_file() or not path.is_file():
        return False
    # It was read already, as any command reads its settings.
    return "layerbuild" in tomllib.loads(path.read_text("utf-8")).get("tool", {})
