"""The scripts of the workflows, run as on GitHub's machines: real repositories, a real index, a `gh` of our own.

A step that calls the action is what the action's last step does: `layerbuild action run` with the step's inputs.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.index_server import IndexServer
from tests.publishing import Moto, fake_credentials  # noqa: F401 - a fixture
from tests.wheels import make_wheel

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="GitHub's machines that run these are Linux")

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
COMPARE = "Compare with the layers as they were"
PROPOSE = "Open a pull request, or renew the one that is open"
ONE_TARGET = 'targets = ["python3.13-x86_64"]\n'
# Says what it was asked, and that the pull requests which FAKE_OPEN names are open.
GH = """#!/usr/bin/env bash
printf '%s\\n' "$*" >> "$FAKE_LOG"
if [ "$1 $2" = "pr list" ]; then printf '%s' "$FAKE_OPEN"; fi
"""


@dataclass
class Machine:
    """A machine with a checkout; `steps` of one job share its files."""

    checkout: Path
    folder: Path

    def __post_init__(self) -> None:
        (self.folder / "temp").mkdir(parents=True)
        (self.folder / "bin").mkdir()
        (self.folder / "bin" / "gh").write_text(GH)
        (self.folder / "bin" / "gh").chmod(0o755)

    @property
    def temp(self) -> Path:
        return self.folder / "temp"

    @property
    def summary(self) -> str:
        return self._text("summary")

    @property
    def asked(self) -> list[str]:
        """What `gh` was asked."""
        return self._text("gh.log").splitlines()

    @property
    def outputs(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self._text("output").splitlines() if "=" in line)

    def _text(self, name: str) -> str:
        path = self.folder / name
        return path.read_text() if path.exists() else ""

    def run(self, workflow: str, step: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Runs the script of a step."""
        script = step_of(workflow, step)["run"]
        return self._call(["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script], more)

    def action(self, workflow: str, step: str, **inputs: str) -> subprocess.CompletedProcess[str]:
        """Does what a step has the action do; `inputs` are those that are expressions there."""
        given = step_of(workflow, step)["with"] | inputs
        assert not any("${{" in value for value in given.values())
        more = {f"INPUT_{name.upper()}": value for name, value in given.items()}
        # Of its outputs none is this job's.
        more |= {"GITHUB_OUTPUT": os.devnull, "GITHUB_STEP_SUMMARY": os.devnull}
        return self._call([str(BIN / "layerbuild"), "action", "run"], more)

    def _call(self, command: list[str], more: dict[str, str]) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "PATH": os.pathsep.join([str(self.folder / "bin"), str(BIN), os.environ["PATH"]]),
            "GITHUB_ACTIONS": "true",
            "GITHUB_EVENT_NAME": "push",
            "GITHUB_REF_NAME": "main",
            "GITHUB_WORKSPACE": str(self.checkout),
            "GITHUB_OUTPUT": str(self.folder / "output"),
            "GITHUB_STEP_SUMMARY": str(self.folder / "summary"),
            "RUNNER_TEMP": str(self.temp),
            "FAKE_LOG": str(self.folder / "gh.log"),
            "FAKE_OPEN": "",
            **more,
        }
        return subprocess.run(command, cwd=self.checkout, env=environment, capture_output=True, text=True)

    def layerbuild(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs what a person runs at home."""
        command = [sys.executable, "-m", "layerbuild", *arguments]
        return subprocess.run(command, cwd=self.checkout, capture_output=True, text=True)


def step_of(workflow: str, name: str) -> dict[str, Any]:
    jobs = YAML(typ="safe").load((ROOT / ".github" / "workflows" / workflow).read_text("utf-8"))["jobs"]
    (step,) = [step for job in jobs.values() for step in job["steps"] if step.get("name") == name]
    return dict(step)


def git(folder: Path, *arguments: str) -> str:
    names = ["-c", "user.name=Some One", "-c", "user.email=one@example.invalid"]
    done = subprocess.run(["git", *names, *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def commit(folder: Path, message: str = "more") -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", message)


def ok(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def write_recipe(folder: Path, name: str, more: str = ONE_TARGET) -> None:
    (folder / "recipes" / name).mkdir(parents=True, exist_ok=True)
    text = f'name = "{name}"\nrequirements = ["{name}"]\n{more}'
    (folder / "recipes" / name / "recipe.toml").write_text(text)


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """The repository as GitHub has it."""
    git(tmp_path, "init", "--quiet", "--bare", "--initial-branch=main", "origin.git")
    return tmp_path / "origin.git"


@pytest.fixture
def here(project: Path, origin: Path, wheelhouse: Path, index_server: IndexServer, tmp_path: Path) -> Machine:
    """A clone whose main has a recipe for demo 1.0, locked, and what `layerbuild init` writes."""
    git(project, "init", "--quiet", "--initial-branch=main")
    git(project, "remote", "add", "origin", str(origin))
    make_wheel(wheelhouse, "demo", "1.0")
    machine = Machine(project, tmp_path / "here")
    ok(machine.layerbuild("init"))
    write_recipe(project, "demo")
    ok(machine.layerbuild("lock", "--all"))
    commit(project)
    git(project, "push", "--quiet", "--set-upstream", "origin", "main")
    return machine


def clone(origin: Path, folder: Path) -> Machine:
    git(origin, "clone", "--quiet", str(origin), str(folder))
    return Machine(folder, folder.with_name(f"{folder.name}-machine"))


def merged(machine: Machine) -> None:
    """What a pull request is checked out as: its branch, merged into main."""
    git(machine.checkout, "switch", "--quiet", "--create", "branch")
    commit(machine.checkout, "what the pull request changes")
    git(machine.checkout, "switch", "--quiet", "main")
    git(machine.checkout, "commit", "--quiet", "--allow-empty", "--message", "meanwhile on main")
    git(machine.checkout, "merge", "--quiet", "--no-ff", "--no-edit", "branch")


def include(machine: Machine) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(machine.outputs["matrix"])["include"]
    return rows


def test_main_makes_everything_and_a_pull_request_what_it_changes(here: Machine, wheelhouse: Path) -> None:
    ok(here.action("layers.yml", "Locks fit their recipes"))
    ok(here.run("layers.yml", "Deal out layers"))
    assert [row["layers"] for row in include(here)] == ["demo@python3.13-x86_64"]
    make_wheel(wheelhouse, "other")
    write_recipe(here.checkout, "other")
    merged(here)
    ok(here.run("layers.yml", "Deal out layers", GITHUB_EVENT_NAME="pull_request"))
    assert [row["layers"] for row in include(here)] == ["other@python3.13-x86_64"]
    ok(here.run("layers.yml", "Deal out layers"))
    assert include(here)[0]["layers"].split() == ["demo@python3.13-x86_64", "other@python3.13-x86_64"]


@pytest.mark.parametrize("event", ["pull_request", "push"])
def test_where_there_is_nothing_to_make_no_machine_is_started(here: Machine, event: str) -> None:
    workflow = (ROOT / ".github" / "workflows" / "layers.yml").read_text()
    (here.checkout / "README.md").write_text("documentation only")
    if event == "push":
        git(here.checkout, "rm", "--quiet", "-r", "recipes")
    merged(here)
    ok(here.run("layers.yml", "Deal out layers", GITHUB_EVENT_NAME=event))
    assert f"if: needs.matrix.outputs.matrix != '{here.outputs['matrix']}'" in workflow


def test_a_change_of_a_layer_is_told_with_its_sizes(here: Machine, wheelhouse: Path) -> None:
    make_wheel(wheelhouse, "demo", "2.0", files={"demo.py": "A = 1\n" * 5000, "demo_data.bin": os.urandom(40_000)})
    ok(here.layerbuild("lock", "demo", "--upgrade"))
    make_wheel(wheelhouse, "fresh")
    write_recipe(here.checkout, "fresh")
    ok(here.layerbuild("lock", "fresh"))
    merged(here)
    layers = "demo@python3.13-x86_64 fresh@python3.13-x86_64"
    ok(here.action("layers.yml", "Make", recipes=layers))
    # A recipe that is new is not tried, be there a shipped one of its name.
    assert "could not be made" not in ok(here.run("layers.yml", COMPARE, LAYERS=layers))
    assert here.summary.startswith("2 layers: 1 added, 1 changed")
    assert "demo 1.0 → 2.0" in here.summary.replace("\\", "")
    assert "fresh 1.0" in here.summary.replace("\\", "")
    assert "→ 7" in here.summary  # 30 kB of source and 40 kB of data
    assert "layerbuild make" not in here.summary  # the layer as it was is nothing to tell of
    assert here.outputs == {}


def test_a_layer_that_could_not_be_made_before_is_told_as_new(here: Machine, wheelhouse: Path) -> None:
    for path in here.checkout.glob("recipes/demo/locks/*"):
        path.unlink()
    commit(here.checkout)
    ok(here.layerbuild("lock", "demo"))
    merged(here)
    ok(here.action("layers.yml", "Make", recipes="demo@python3.13-x86_64"))
    done = here.run("layers.yml", COMPARE, LAYERS="demo@python3.13-x86_64")
    assert "demo@python3.13-x86_64 could not be made as it was" in ok(done)
    assert "1 added" in here.summary


def test_newer_versions_are_proposed_with_what_they_change(
    here: Machine, origin: Path, wheelhouse: Path, tmp_path: Path
) -> None:
    make_wheel(wheelhouse, "demo", "1.1", requires=["more"])
    make_wheel(wheelhouse, "more", "3.0")
    write_recipe(here.checkout, "still", ONE_TARGET)
    make_wheel(wheelhouse, "still")
    ok(here.layerbuild("lock", "still"))
    commit(here.checkout)
    git(here.checkout, "push", "--quiet")
    ok(here.action("update-locks.yml", "Take the newest versions"))
    ok(here.run("update-locks.yml", "Compare"))
    assert here.outputs == {"changed": "true"}
    text = (here.temp / "proposal" / "text.md").read_text().replace("\\", "")
    locks, layers = text.split("## Layers")
    for part in (locks, layers):
        assert "demo 1.0 → 1.1, + more 3.0" in part
        assert "still" not in part
    assert "kB" in layers
    assert "cannot be made" not in text
    assert here.summary == (here.temp / "proposal" / "text.md").read_text()

    # Another machine, which has a clone and what was uploaded.
    there = clone(origin, tmp_path / "there")
    (there.temp / "proposal").symlink_to(here.temp / "proposal")
    ok(there.run("update-locks.yml", PROPOSE, BRANCH="layerbuild/update-locks"))
    changed = git(origin, "diff", "--name-only", "main", "layerbuild/update-locks").split()
    assert changed == ["recipes/demo/locks/python3.13-x86_64.txt"]
    assert "demo==1.1" in git(origin, "show", f"layerbuild/update-locks:{changed[0]}")
    assert [line.split(" --")[0] for line in there.asked] == ["auth setup-git", "pr list", "pr create"]
    assert f"--base main --title Update locks --body-file {there.temp}/proposal/text.md" in there.asked[-1]

    # A week later it is still open: the one branch is written anew.
    later = clone(origin, tmp_path / "later")
    (later.temp / "proposal").symlink_to(here.temp / "proposal")
    ok(later.run("update-locks.yml", PROPOSE, BRANCH="layerbuild/update-locks", FAKE_OPEN="7"))
    assert later.asked[-1].startswith("pr edit layerbuild/update-locks --title")
    assert git(origin, "rev-list", "--count", "main..layerbuild/update-locks").strip() == "1"


def test_where_no_version_is_newer_nothing_is_proposed(here: Machine) -> None:
    ok(here.action("update-locks.yml", "Take the newest versions"))
    assert "nothing has changed" in ok(here.run("update-locks.yml", "Compare"))
    assert here.outputs == {}
    assert not (here.temp / "proposal").exists()


def test_where_there_are_no_recipes_nothing_is_proposed(here: Machine) -> None:
    git(here.checkout, "rm", "--quiet", "-r", "recipes")
    commit(here.checkout)
    assert "nothing has changed" in ok(here.run("update-locks.yml", "Compare"))


def test_a_lock_that_is_new_is_proposed_too(here: Machine, origin: Path, wheelhouse: Path, tmp_path: Path) -> None:
    write_recipe(here.checkout, "demo", 'targets = ["python3.13-*"]\n')
    commit(here.checkout, "one more target, not locked")
    git(here.checkout, "push", "--quiet")
    ok(here.action("update-locks.yml", "Take the newest versions"))
    ok(here.run("update-locks.yml", "Compare"))
    there = clone(origin, tmp_path / "there")
    (there.temp / "proposal").symlink_to(here.temp / "proposal")
    ok(there.run("update-locks.yml", PROPOSE, BRANCH="layerbuild/update-locks"))
    changed = git(origin, "diff", "--name-only", "main", "layerbuild/update-locks").split()
    assert changed == ["recipes/demo/locks/python3.13-arm64.txt"]


def test_a_version_that_makes_no_layer_is_proposed_with_the_reason(here: Machine, wheelhouse: Path) -> None:
    write_recipe(here.checkout, "demo", f'{ONE_TARGET}size-budget = "20 kB"\n')
    commit(here.checkout)
    make_wheel(wheelhouse, "demo", "2.0", files={"demo.py": "", "demo_data.bin": os.urandom(40_000)})
    ok(here.action("update-locks.yml", "Take the newest versions"))
    ok(here.run("update-locks.yml", "Compare"))
    assert here.outputs == {"changed": "true"}
    text = (here.temp / "proposal" / "text.md").read_text()
    assert "demo 1.0 → 2.0" in text.replace("\\", "")
    (reason,) = [line for line in text.split("## What cannot be made")[1].splitlines() if "error: " in line]
    assert reason.startswith("    error: ")  # as code: what packages call themselves is no Markdown


def test_a_proposal_is_never_longer_than_github_takes(here: Machine) -> None:
    names = [f"a{number}-{'x' * 90}" for number in range(700)]
    lock = next(here.checkout.glob("recipes/demo/locks/*.txt"))
    pins = "".join(f"{name}==1.0 \\\n    --hash=sha256:{number:064x}\n" for number, name in enumerate(names))
    lock.write_text(lock.read_text() + pins)
    ok(here.run("update-locks.yml", "Compare"))
    text = (here.temp / "proposal" / "text.md").read_bytes()
    assert 50_000 < len(text) <= 60_000
    assert text.decode("utf-8")


@pytest.fixture
def moto(tmp_path: Path) -> Iterator[Moto]:
    (tmp_path / "moto").mkdir()
    server = Moto(tmp_path / "moto")
    yield server
    server.stop()


def test_what_main_publishes_is_recorded_in_the_repository(
    here: Machine, origin: Path, tmp_path: Path, moto: Moto, fake_credentials: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto.direct)
    ok(here.action("layers.yml", "Make", recipes="demo@python3.13-x86_64"))
    ok(here.action("layers.yml", "Publish", regions="eu-west-1 us-east-1"))
    there = clone(origin, tmp_path / "there")
    shutil.copy(here.checkout / "catalogue.json", there.checkout)
    ok(there.run("layers.yml", "Commit the catalogue if it has changed"))
    assert there.asked == ["auth setup-git"]

    # The next push changes nothing, and so records nothing.
    again = clone(origin, tmp_path / "again")
    shutil.copytree(here.checkout / "dist", again.checkout / "dist")
    assert "skip 2" in ok(again.action("layers.yml", "Publish", regions="eu-west-1 us-east-1"))
    assert "the catalogue is as it was" in ok(again.run("layers.yml", "Commit the catalogue if it has changed"))
    arn = ok(again.layerbuild("arn", "demo", "--target", "python3.13-x86_64", "--region", "us-east-1"))
    assert arn.strip().endswith(":layer:demo-python313-x86_64:1")


@pytest.mark.parametrize("state", ["new", "changed", "same", "absent"])
def test_the_catalogue_is_committed_where_it_has_changed(
    here: Machine, origin: Path, tmp_path: Path, state: str
) -> None:
    path = here.checkout / "catalogue.json"
    if state in ("changed", "same"):
        path.write_text('{"versions": []}\n')
        commit(here.checkout)
        git(here.checkout, "push", "--quiet")
    before = git(origin, "rev-parse", "main")
    there = clone(origin, tmp_path / "there")
    if state in ("new", "changed"):
        (there.checkout / "catalogue.json").write_text('{"versions": ["one"]}\n')
    ok(there.run("layers.yml", "Commit the catalogue if it has changed"))
    after = git(origin, "rev-parse", "main")
    assert (after != before) == (state in ("new", "changed"))
    if after != before:
        assert git(origin, "diff", "--name-only", "main^", "main").split() == ["catalogue.json"]
        assert "one" in git(origin, "show", "main:catalogue.json")


@pytest.mark.parametrize(
    ("tag", "changelog", "complaint"),
    [
        ("v0.1.0", "# Changelog\n\n## 0.1.0 (2026-01-01)\n\n- The first.\n\n## 0.0.9\n\n- Before.\n", ""),
        ("v0.2.0", "## 0.1.0\n\n- The first.\n", "the version is 0.1.0, the tag is v0.2.0"),
        ("v0.1.0", "## 0.1.0\n\n## 0.0.9\n\n- Before.\n", "there is nothing about 0.1.0"),
        ("v0.1.0", "## 0.1.01\n\n- Another.\n", "there is nothing about 0.1.0"),
    ],
)
def test_only_the_version_that_the_tag_says_is_released(
    tmp_path: Path, tag: str, changelog: str, complaint: str
) -> None:
    folder = tmp_path / "checkout"
    (folder / "layerbuild").mkdir(parents=True)
    (folder / "layerbuild" / "__init__.py").write_text('__version__ = "0.1.0"\n')
    (folder / "CHANGELOG.md").write_text(changelog)
    machine = Machine(folder, tmp_path / "machine")
    done = machine.run("release.yml", "The tag is the version, and the changelog has it", GITHUB_REF_NAME=tag)
    assert (done.returncode != 0) == bool(complaint)
    assert complaint in done.stdout
    if not complaint:
        assert (folder / "release" / "notes.md").read_text().strip() == "- The first."


def test_v1_follows_releases_and_no_previews(tmp_path: Path, origin: Path) -> None:
    machine = clone(origin, tmp_path / "there")
    git(machine.checkout, "switch", "--quiet", "--create", "main")
    for number, tag in enumerate(["v0.1.0", "v0.2.0rc1", "v0.2.0"]):
        (machine.checkout / "file").write_text(tag)
        commit(machine.checkout, tag)
        ok(machine.run("release.yml", "Move v1", GITHUB_REF_NAME=tag))
        moved = git(origin, "show", "refs/tags/v1:file")
        assert moved == ("v0.1.0" if number == 1 else tag)
