"""The documentation says what the program does: its tables are complete, its commands run, its output is real."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import jsonschema
import pytest

from layerbuild.build_settings import BUILD_KEYS
from layerbuild.cli import Commands, layerbuild
from layerbuild.recipe import parse_recipe, prune_sets
from tests.conftest import Ran
from tests.publishing import Moto, fake_credentials  # noqa: F401 - a fixture

ROOT = Path(__file__).parents[2]
SOURCES = "\n".join(path.read_text() for path in sorted((ROOT / "layerbuild").rglob("*.py")))
README = (ROOT / "README.md").read_text()


def error_codes() -> dict[str, set[int]]:
    exits = {"CheckError": 1, "UsageError": 2, "BuildError": 3, "NoWheelError": 3, "MachineError": 4}
    exits |= {"PublishError": 5, "InternalError": 70}
    found: dict[str, set[int]] = {}
    for kind, first, second in re.findall(
        rf'({"|".join(exits)})\(\s*"([a-z-]+)"(?: if \w+ else "([a-z-]+)")?',
        SOURCES,
    ):
        for code in filter(None, (first, second)):
            found.setdefault(code, set()).add(exits[kind])
    return found


def test_every_error_is_documented_with_its_exit_code_and_no_other() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| ([\d or]+) \|", (ROOT / "docs/errors.md").read_text(), re.MULTILINE)
    documented = {code: set(map(int, exits.split(" or "))) for code, exits in rows}
    assert documented == error_codes()
    assert [code for code, _ in rows] == sorted(documented)


def test_every_key_of_a_recipe_is_documented() -> None:
    keys = set(re.findall(r"^\| `([a-z.-]+)` \|", (ROOT / "docs/recipes.md").read_text(), re.MULTILINE))
    (listed,) = re.findall(r"^_KEYS = \((.*?)\)", SOURCES, re.MULTILINE | re.DOTALL)
    expected = set(re.findall(r'"([a-z-]+)"', listed)) - {"prune"} | {"prune.sets", "prune.patterns", *BUILD_KEYS}
    assert keys == expected


def test_every_prune_set_is_documented() -> None:
    (row,) = re.findall(r"`prune.sets`.*", (ROOT / "docs/recipes.md").read_text())
    assert re.findall(r": (.*?) \|", row)[0] == ", ".join(f"`{name}`" for name in prune_sets())


def test_every_command_with_json_is_documented() -> None:
    text = (ROOT / "docs/json.md").read_text()
    assert isinstance(layerbuild, Commands)
    context = click.Context(layerbuild)
    commands = {name: layerbuild.get_command(context, name) for name in layerbuild.list_commands(context)}
    with_json = [
        name
        for name, command in commands.items()
        if command and any(option.name == "as_json" for option in command.params)
    ]
    assert {"make", "lock", "recipes"} <= set(with_json)
    for name in with_json:
        assert f"| `{name}` |" in text


def test_the_recipes_of_the_documentation_are_valid(tmp_path: Path) -> None:
    texts = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    assert texts
    for text in texts:
        (name,) = re.findall(r'name = "(.*?)"', text)
        parse_recipe(text, folder=tmp_path / name)


def test_links_between_documents_lead_somewhere() -> None:
    for path in [ROOT / "README.md", ROOT / "bench" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for link in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
            assert (path.parent / link).exists(), f"{path.name}: {link}"


def test_ci_runs_the_test_command_of_the_readme() -> None:
    commands = re.findall(r"^\$ (pip install -e .*|pytest .*)$", README, re.MULTILINE)
    assert len(commands) == 2
    script = (ROOT / ".ci" / "run").read_text()
    for part in " && ".join(commands).split(" && "):
        assert part.replace("pip install", "python -m pip install --quiet") in script or part in script


@pytest.mark.parametrize(
    "command",
    [
        *(None, "make", "lock", "check", "stack", "run", "profile", "events", "recipes", "new", "runtimes", "cache"),
        *("publish", "verify", "list", "arn", "export", "prune", "iam-policy", "diff", "matrix", "init"),
        "completion",
    ],
)
def test_help_has_an_example_and_fits(command: str | None, cli: Callable[..., Ran]) -> None:
    ran = cli(*([command] if command else []), "--help")
    assert ran.code == 0
    assert re.search(r"^  (eval \"\$\()?layerbuild ", ran.out, re.MULTILINE)
    assert max(map(len, ran.out.splitlines())) <= 100


def console_blocks() -> list[tuple[str, str]]:
    """(command, output) of every `$ layerbuild` in the README's tour, in order."""
    (tour,) = re.findall(r"^## A short tour$(.*?)^## ", README, re.MULTILINE | re.DOTALL)
    pairs = []
    for block in re.findall(r"```console\n(.*?)```", tour, re.DOTALL):
        for command, output in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE):
            pairs.append((command, output))
    return pairs


def normalised(output: str) -> list[str]:
    """Output without what differs from run to run: times, and the order in which parallel work ends."""
    lines = [re.sub(r" +\d+\.\d\d s\b", " N s", line) for line in output.splitlines()]
    lines = [re.sub(r" +time$", " time", line) for line in lines]
    # Of what Lambda logs: ids, times and memory.
    lines = [
        re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\d+(\.\d+)? ms|Used: \d+", "N", line) for line in lines
    ]
    lines = [re.sub(r"CPython 3\.\d+\.\d+", "CPython 3", line) for line in lines]
    in_parallel = ("downloading ", "made ", "up to date: ", "published ")
    return sorted(line for line in lines if line.startswith(in_parallel)) + [
        line for line in lines if not line.startswith(in_parallel)
    ]


@pytest.fixture
def moto(tmp_path: Path) -> Iterator[Moto]:
    server = Moto(tmp_path)
    yield server
    server.stop()


@pytest.mark.network
def test_the_tour_of_the_readme_is_real(tmp_path: Path, moto: Moto, fake_credentials: None) -> None:
    env = {**os.environ, "COLUMNS": "80", "LAYERBUILD_CACHE_DIR": str(tmp_path / "cache")}
    env["AWS_ENDPOINT_URL"] = moto.direct
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    blocks = console_blocks()
    assert len(blocks) >= 8
    (tmp_path / "tour").mkdir()
    for command, expected in blocks:
        done = subprocess.run(
            command,
            shell=True,
            cwd=tmp_path / "tour",
            env=env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert (done.returncode == 0) == ("error: " not in expected), done.stdout
        if expected:
            assert normalised(done.stdout) == normalised(expected), command


@pytest.mark.network
def test_a_manifest_fits_its_schema_and_an_installed_wheel_makes_pillow(tmp_path: Path) -> None:
    """Builds the distribution that ships, installs it elsewhere, and uses it in an empty folder."""

    def run(*command: str | Path, cwd: Path = tmp_path) -> str:
        env = {**os.environ, "LAYERBUILD_CACHE_DIR": str(tmp_path / "cache")}
        done = subprocess.run(list(map(str, command)), cwd=cwd, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(sys.executable, "-m", "venv", "venv")
    python = tmp_path / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", ROOT)
    (tmp_path / "empty").mkdir()
    program = tmp_path / "venv" / "bin" / "layerbuild"
    out = run(program, "make", "pillow", "--locked", "--json", cwd=tmp_path / "empty")
    layers = json.loads(out)["layers"]
    assert len(layers) == 8
    schema = json.loads((ROOT / "layerbuild/schemas/manifest.schema.json").read_text())
    for layer in layers:
        beside = json.loads((tmp_path / "empty" / layer["path"]).with_suffix(".json").read_text())
        assert beside == layer["manifest"]
        jsonschema.validate(beside, schema)
    assert "pillow" in run(program, "recipes", cwd=tmp_path / "empty")
