"""`layerbuild make` as a user types it, against a real index on loopback."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

from tests.conftest import Ran
from tests.index_server import IndexServer
from tests.wheels import make_wheel


def write_recipe(project: Path, name: str = "demo", extra: str = "", requirements: str = '"demo"') -> Path:
    """Writes a recipe into the project."""
    folder = project / "recipes" / name
    folder.mkdir(parents=True)
    path = folder / "recipe.toml"
    path.write_text(f'name = "{name}"\nrequirements = [{requirements}]\n{extra}')
    return path


def test_a_recipe_becomes_a_layer(
    project: Path, cli: Callable[..., Ran], index_server: IndexServer, wheelhouse: Path
) -> None:
    make_wheel(wheelhouse, "demo", "1.0", {"demo/__init__.py": "x = 1\n"})
    write_recipe(project)

    ran = cli("make", "demo", "--target", "python3.12-arm64", "--json")

    assert ran.code == 0, ran.err
    (layer,) = ran.json["layers"]
    assert layer["status"] == "built"
    with zipfile.ZipFile(project / layer["path"]) as archive:
        assert archive.testzip() is None
        site = "python/lib/python3.12/site-packages"
        assert archive.read(f"{site}/demo/__init__.py") == b"x = 1\n"
        assert archive.namelist() == sorted(archive.namelist())
    assert (project / "recipes/demo/locks/python3.12-arm64.txt").is_file()
    assert "locked demo for python3.12-arm64" in ran.err

    again = cli("make", "demo", "--target", "python3.12-arm64", "--json")
    assert again.json["layers"][0]["status"] == "up-to-date"


def test_a_budget_that_shrinks_holds_for_a_layer_that_is_up_to_date(
    project: Path, cli: Callable[..., Ran], index_server: IndexServer, wheelhouse: Path
) -> None:
    make_wheel(wheelhouse, "demo", "1.0", {"demo.py": "x" * 2000})
    recipe = write_recipe(project)
    assert cli("make", "demo", "--target", "python3.12-arm64").code == 0
    recipe.write_text(recipe.read_text() + 'size-budget = "1 kB"\n')
    ran = cli("make", "demo", "--target", "python3.12-arm64")
    assert ran.code == 1
    assert "[size-budget]" in ran.err
