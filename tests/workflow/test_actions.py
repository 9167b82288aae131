"""The action, our workflows and those that `layerbuild init` writes: valid, pinned, with the least rights."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from ruamel.yaml import YAML

from layerbuild.cli import layerbuild
from layerbuild.scaffold import project_files

ROOT = Path(__file__).parents[2]
ACTION = ROOT / "action.yml"
DOCUMENT = ROOT / "docs" / "github-actions.md"
OURS = {path.name: path.read_text("utf-8") for path in sorted((ROOT / ".github/workflows").glob("*.yml"))}
COMMIT = "0123456789abcdef0123456789abcdef01234567"
WRITTEN = {
    f"{label}/{Path(path).name}": text
    for label, uses in (("tag", "octo-org/layerbuild@v1"), ("commit", f"octo-org/layerbuild@{COMMIT}"))
    for path, text in project_files(uses).items()
    if path.endswith(".yml")
}
WORKFLOWS = OURS | WRITTEN
BIN = Path(sys.executable).parent

# Which job of which workflow may do what. What is not here may do nothing.
READ = {"contents": "read"}
MAY = {
    "ci.yml": {"lint": READ, "workflows": READ, "tests": READ, "full": READ, "wheel": READ},
    "layers.yml": {
        "matrix": READ,
        "make": READ,
        "publish": {"contents": "read", "id-token": "write"},
        "record": {"contents": "write"},
    },
    "update-locks.yml": {"update": READ, "propose": {"contents": "write", "pull-requests": "write"}},
    "release.yml": {
        "build": READ,
        "attest": {"contents": "read", "id-token": "write", "attestations": "write"},
        "upload": {"id-token": "write"},
        "announce": {"contents": "write"},
    },
}


def parsed(text: str) -> Any:
    return YAML(typ="safe").load(text)


def jobs_of(text: str) -> dict[str, Any]:
    jobs: dict[str, Any] = parsed(text)["jobs"]
    return jobs


def steps_of(text: str) -> Iterator[dict[str, Any]]:
    for job in jobs_of(text).values():
        yield from job["steps"]


def action() -> Any:
    return parsed(ACTION.read_text("utf-8"))


def ran(*command: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program(command[0]), *map(str, command[1:])], cwd=cwd, capture_output=True, text=True)


def program(name: str | Path) -> str:
    """A program that came with the tests' requirements."""
    found = shutil.which(name, path=str(BIN)) or shutil.which(name)
    assert found, f"{name} is not installed: pip install -e '.[test]'"
    return str(found)


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """This repository's action and workflows, and folders in which `layerbuild init` has written some."""
    folder = tmp_path_factory.mktemp("repositories")
    for name, text in ({f"ours/{name}": text for name, text in OURS.items()} | WRITTEN).items():
        path = folder / Path(name).parent / ".github" / "workflows" / Path(name).name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    shutil.copy(ROOT / ".github" / "zizmor.yml", folder / "ours" / ".github")
    shutil.copy(ACTION, folder / "ours")
    return [folder / name for name in ("ours", "tag", "commit")]


def test_every_workflow_is_here_and_in_the_table_of_rights() -> None:
    assert set(OURS) == set(MAY)
    assert {name.partition("/")[2] for name in WRITTEN} == {"layers.yml", "update-locks.yml"}


def test_workflows_fit_their_schema(repositories: list[Path]) -> None:
    paths = [path for one in repositories for path in sorted(one.glob(".github/workflows/*.yml"))]
    assert len(paths) == len(WORKFLOWS)
    done = ran("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *paths)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_action_fits_its_schema() -> None:
    done = ran("check-jsonschema", "--builtin-schema", "vendor.github-actions", ACTION)
    assert done.returncode == 0, done.stdout + done.stderr


def test_zizmor_finds_nothing_unsafe(repositories: list[Path]) -> None:
    for folder in repositories:
        done = ran("zizmor", "--offline", "--no-progress", "--persona=auditor", ".", cwd=folder)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "No findings to report" in done.stdout


def test_zizmor_would_find_something(tmp_path: Path) -> None:
    path = tmp_path / ".github" / "workflows" / "layers.yml"
    path.parent.mkdir(parents=True)
    path.write_text(OURS["layers.yml"].replace("persist-credentials: false", "persist-credentials: true"))
    assert ran("zizmor", "--offline", "--no-progress", "--persona=auditor", ".", cwd=tmp_path).returncode != 0


def test_an_ignore_says_why() -> None:
    texts = WORKFLOWS | {"action.yml": ACTION.read_text("utf-8")}
    for name, text in texts.items():
        for line in text.splitlines():
            if "zizmor: ignore" in line:
                assert re.search(r"# zizmor: ignore\[[a-z-]+\] \w+ \w+", line), f"{name}: {line}"
    assert "zizmor: ignore" not in "".join(OURS.values())
    assert "zizmor: ignore" not in WRITTEN["commit/layers.yml"]


@pytest.mark.parametrize("name", WORKFLOWS)
def test_actions_are_pinned_by_commit_with_their_version(name: str) -> None:
    lines = re.findall(r"^ *(?:- )?uses: (.*)$", WORKFLOWS[name], re.MULTILINE)
    assert len(lines) == sum("uses" in step for step in steps_of(WORKFLOWS[name]))
    for line in lines:
        own = line == "./" if name in OURS else line.startswith("octo-org/layerbuild@")
        assert own or re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line


def test_one_version_of_an_action_is_used_everywhere() -> None:
    documents = [path.read_text("utf-8") for path in (ROOT / "README.md", DOCUMENT)]
    texts = [*WORKFLOWS.values(), *documents, ACTION.read_text("utf-8")]
    pins: dict[str, set[str]] = {}
    for one, pin in re.findall(r"uses: ([\w-]+/[\w-]+)@(.*)", "\n".join(texts)):
        if one not in ("OWNER/layerbuild", "octo-org/layerbuild"):
            pins.setdefault(one, set()).add(pin)
    assert len(pins) == 8
    assert {one: found for one, found in pins.items() if len(found) > 1} == {}


@pytest.mark.parametrize("name", WORKFLOWS)
def test_jobs_may_do_what_the_table_says_and_no_more(name: str) -> None:
    assert parsed(WORKFLOWS[name])["permissions"] == {}
    jobs = jobs_of(WORKFLOWS[name])
    assert {job: what.get("permissions") for job, what in jobs.items()} == MAY[name.rpartition("/")[2]]


@pytest.mark.parametrize("name", WORKFLOWS)
def test_checkouts_keep_no_credentials_and_jobs_end(name: str) -> None:
    assert "concurrency" in parsed(WORKFLOWS[name])
    for job in jobs_of(WORKFLOWS[name]).values():
        assert 0 < job["timeout-minutes"] <= 300
    for step in steps_of(WORKFLOWS[name]):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize("name", WORKFLOWS)
def test_text_from_outside_reaches_no_script(name: str) -> None:
    assert [step["run"] for step in steps_of(WORKFLOWS[name]) if "${{" in step.get("run", "")] == []


def test_text_from_outside_reaches_no_script_of_the_action() -> None:
    assert [step["run"] for step in action()["runs"]["steps"] if "${{" in step.get("run", "")] == []


@pytest.mark.parametrize("name", WORKFLOWS)
def test_nothing_of_a_pull_request_runs_with_secrets(name: str) -> None:
    text = WORKFLOWS[name]
    assert "secrets." not in text
    assert "pull_request_target" not in parsed(text)["on"]
    assert "workflow_run" not in parsed(text)["on"]


def test_only_main_is_published_and_only_where_a_role_is_named() -> None:
    jobs = jobs_of(OURS["layers.yml"])
    with_credentials = [name for name, job in jobs.items() if "configure-aws-credentials" in str(job)]
    assert with_credentials == ["publish"]
    assert jobs["publish"]["environment"] == "aws"
    assert jobs["publish"]["concurrency"] == {"group": "publish-layers", "cancel-in-progress": False}
    for condition in ("github.ref == 'refs/heads/main'", "vars.AWS_ROLE_ARN != ''", "!= 'pull_request'"):
        assert condition in jobs["publish"]["if"]


@pytest.mark.parametrize("name", ["layers.yml", "update-locks.yml"])
def test_our_workflows_are_those_that_init_writes(name: str) -> None:
    assert OURS[name] == project_files("./")[f".github/workflows/{name}"]


@pytest.mark.parametrize("name", [*OURS, "action.yml"])
def test_scripts_are_good_shell(name: str) -> None:
    steps = steps_of(OURS[name]) if name in OURS else action()["runs"]["steps"]
    found = [(step.get("name", step["run"]), step["run"]) for step in steps if "run" in step]
    assert found
    for title, script in found:
        syntax = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True)
        assert syntax.returncode == 0, f"{title}: {syntax.stderr}"
        command = [program("shellcheck"), "--shell=bash", "-"]
        as_run = f"set -eo pipefail\n{script}"
        done = subprocess.run(command, input=as_run, capture_output=True, text=True)
        assert done.returncode == 0, f"{title}: {done.stdout}"


def table(heading: str) -> dict[str, list[str]]:
    """The rows of the table below a heading of the document: first cell, without backticks, to the others."""
    section = DOCUMENT.read_text("utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([^`]+)` \|(.*)\|$", section, re.MULTILINE)
    return {first: [cell.strip() for cell in rest.split("|")] for first, rest in rows}


def test_inputs_and_outputs_are_documented_and_no_others() -> None:
    found = action()
    inputs = table("Inputs")
    assert list(inputs) == list(found["inputs"])
    for name, given in found["inputs"].items():
        default = str(given.get("default", ""))
        assert inputs[name][0] == (f"`{default}`" if default else ""), name
    assert list(table("Outputs")) == list(found["outputs"])


def test_the_smallest_workflow_of_the_readme_is_valid_and_pinned(tmp_path: Path) -> None:
    section = (ROOT / "README.md").read_text("utf-8").split("## In GitHub Actions\n")[1].split("\n## ")[0]
    (text,) = re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)
    check_example(text, tmp_path)


def test_the_workflows_of_the_document_are_valid(tmp_path: Path) -> None:
    texts = re.findall(r"```yaml\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)
    whole = [text for text in texts if re.search(r"^jobs:$", text, re.MULTILINE)]
    assert whole
    for text in whole:
        check_example(text, tmp_path)
    for text in texts:
        parsed(text)


def check_example(text: str, folder: Path) -> None:
    """Holds an example to the schema, and what it gives the action to the action's inputs."""
    path = folder / "example.yml"
    path.write_text(text, "utf-8")
    done = ran("check-jsonschema", "--builtin-schema", "vendor.github-workflows", path)
    assert done.returncode == 0, done.stdout + done.stderr
    for step in steps_of(text):
        if step.get("uses", "").startswith("OWNER/layerbuild@"):
            assert step.get("with", {}).keys() <= action()["inputs"].keys()


def test_the_commands_of_the_document_exist() -> None:
    lines = re.findall(r"^\$ (.*)$", DOCUMENT.read_text("utf-8"), re.MULTILINE)
    commands = [part for line in lines for part in line.split(" && ") if part.startswith("layerbuild ")]
    assert len(commands) >= 6
    for words in (shlex.split(command.partition(" > ")[0]) for command in commands):
        command = layerbuild.get_command(click.Context(layerbuild), words[1])
        assert command is not None, words
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words[2:] if word.startswith("-")} <= known, words


def test_the_trust_policy_of_the_document_is_for_the_job_that_publishes() -> None:
    (text,) = re.findall(r"```json\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)
    (statement,) = json.loads(text)["Statement"]
    (subject,) = [value for key, value in statement["Condition"]["StringEquals"].items() if key.endswith(":sub")]
    environment = jobs_of(OURS["layers.yml"])["publish"]["environment"]
    assert subject == f"repo:octo-org/layers:environment:{environment}"


def test_the_variables_of_the_workflows_are_documented_and_no_others() -> None:
    named = set(re.findall(r"vars\.([A-Z_]+)", "".join(WORKFLOWS.values())))
    assert set(re.findall(r"^\| `([A-Z_]+)` \|", DOCUMENT.read_text("utf-8"), re.MULTILINE)) == named


@pytest.mark.parametrize("name", WORKFLOWS)
def test_workflows_give_the_action_what_it_takes(name: str) -> None:
    inputs = action()["inputs"].keys()
    own = [step for step in steps_of(WORKFLOWS[name]) if re.match(r"\./$|octo-org/", step.get("uses", ""))]
    assert own or name in ("ci.yml", "release.yml")
    for step in own:
        assert step["with"].keys() <= inputs
