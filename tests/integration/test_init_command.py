"""`layerbuild init`: a folder becomes a repository of recipes, and nothing that was there is lost."""

from __future__ import annotations

import importlib.resources
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Ran
from tests.index_server import IndexServer
from tests.wheels import make_wheel

Cli = Callable[..., Ran]
ROOT = Path(__file__).parents[2]
PLAIN = {"layerbuild.toml", ".gitignore"}
WORKFLOWS = {".github/workflows/layers.yml", ".github/workflows/update-locks.yml"}


def files_in(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def statuses(ran: Ran) -> dict[str, str]:
    return {row["path"]: row["status"] for row in ran.json["files"]}


def test_an_empty_folder_gets_settings_a_gitignore_and_on_request_workflows(project: Path, cli: Cli) -> None:
    ran = cli("init")
    assert ran.code == 0, ran.err
    assert set(files_in(project)) == PLAIN
    assert "written layerbuild.toml" in ran.out
    assert "layerbuild new NAME" in ran.out
    again = cli("init", "--github", "--json")
    assert statuses(again) == dict.fromkeys(PLAIN, "kept") | dict.fromkeys(WORKFLOWS, "written")
    assert set(files_in(project)) == PLAIN | WORKFLOWS


def test_dist_is_ignored_by_git_and_what_is_to_be_committed_is_not(project: Path, cli: Cli) -> None:
    cli("init")
    subprocess.run(["git", "init", "--quiet"], check=True)
    paths = ["dist/a.zip", "recipes/a/recipe.toml", "recipes/a/locks/python3.13-arm64.txt", "catalogue.json"]
    done = subprocess.run(["git", "check-ignore", *paths], capture_output=True, text=True)
    assert done.stdout.split() == ["dist/a.zip"]


def test_recipes_are_those_that_new_writes(
    project: Path, cli: Cli, wheelhouse: Path, index_server: IndexServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_wheel(wheelhouse, "demo", metadata="Summary: Shows things\n")
    make_wheel(wheelhouse, "other")
    ran = cli("init", "demo", "other", "demo", "--json")
    assert ran.code == 0, ran.err
    wanted = {"recipes/demo/recipe.toml", "recipes/other/recipe.toml"}
    assert statuses(ran) == dict.fromkeys(PLAIN | wanted, "written")
    elsewhere = project.parent / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert cli("new", "demo").code == 0
    assert files_in(elsewhere)["recipes/demo/recipe.toml"] == files_in(project)["recipes/demo/recipe.toml"]


def test_what_is_there_stays_unless_it_is_to_be_replaced(
    project: Path, cli: Cli, wheelhouse: Path, index_server: IndexServer
) -> None:
    make_wheel(wheelhouse, "demo")
    mine = dict.fromkeys({*PLAIN, *WORKFLOWS, "recipes/demo/recipe.toml"}, "# mine\n")
    for path, text in mine.items():
        (project / path).parent.mkdir(parents=True, exist_ok=True)
        (project / path).write_text(text)
    ran = cli("init", "--github", "demo", "--json")
    assert ran.code == 0
    assert statuses(ran) == dict.fromkeys(mine, "kept")
    assert files_in(project) == mine
    assert index_server.requests == []
    assert "dist/" in ran.err
    assert "OWNER" not in ran.err  # nothing was written that says it
    forced = cli("init", "--github", "demo", "--force", "--json")
    assert statuses(forced) == dict.fromkeys(mine, "replaced")
    assert all(text != "# mine\n" for text in files_in(project).values())


def test_a_link_that_leads_nowhere_is_something_that_is_there(project: Path, cli: Cli) -> None:
    (project / "layerbuild.toml").symlink_to("of-another-branch")
    assert statuses(cli("init", "--json"))["layerbuild.toml"] == "kept"
    assert (project / "layerbuild.toml").is_symlink()


def test_nothing_is_written_when_a_package_does_not_exist(
    project: Path, cli: Cli, wheelhouse: Path, index_server: IndexServer
) -> None:
    make_wheel(wheelhouse, "demo")
    ran = cli("init", "--github", "demo", "dmeo")
    assert ran.code == 2
    assert "[unknown-package]" in ran.err
    assert files_in(project) == {}


@pytest.mark.parametrize("name", ["../up", "a/b", "", "a.b", "-x"])
def test_nothing_is_written_for_a_name_that_no_layer_can_have(project: Path, cli: Cli, name: str) -> None:
    ran = cli("init", "--", name)
    assert ran.code == 2
    assert "[bad-layer-name]" in ran.err
    assert files_in(project.parent) == {}


def test_a_file_in_the_way_of_a_folder_is_told(project: Path, cli: Cli) -> None:
    (project / ".github").write_text("not a folder")
    ran = cli("init", "--github")
    assert ran.code == 4
    assert ".github" in ran.err
    assert "internal-error" not in ran.err
    assert files_in(project)[".github"] == "not a folder"


def test_settings_in_pyproject_are_not_hidden(project: Path, cli: Cli) -> None:
    (project / "pyproject.toml").write_text('[project]\nname = "x"\n[tool.layerbuild.make]\njobs = 2\n')
    ran = cli("init", "--json")
    assert ran.code == 0
    assert set(statuses(ran)) == {".gitignore"}
    assert "pyproject.toml" in ran.err
    (project / "pyproject.toml").write_text('[project]\nname = "x"\n')
    assert statuses(cli("init", "--json"))["layerbuild.toml"] == "written"


def test_the_examples_of_the_settings_are_settings(project: Path, cli: Cli) -> None:
    cli("init")
    path = project / "layerbuild.toml"
    text = path.read_text()
    assert {key: table for key, table in tomllib.loads(text).items() if table} == {}
    # A line of an example is TOML, one of an explanation is none.
    told = re.sub(r"^# (?=[a-z-]+ = |\[)", "", text, flags=re.MULTILINE)
    path.write_text(told)
    data = tomllib.loads(told)
    assert {"jobs", "smoke"} <= data["make"].keys()
    assert {"region", "layer-name", "bucket", "account", "organization", "public"} == data["publish"].keys()
    assert data["prune"] == {"keep": 3}
    assert data["stacks"]["web"]["layers"] == ["pillow", "boto3"]
    ran = cli("runtimes")
    assert ran.code == 0, ran.err


@pytest.mark.parametrize(
    ("uses", "pinned"),
    [
        ("octo-org/layerbuild@v1", False),
        ("octo-org/layerbuild@0123456789abcdef0123456789abcdef01234567", True),
        ("octo/mono/tools/layerbuild@main", False),
        ("./", True),
    ],
)
def test_workflows_call_the_action_by_its_name(project: Path, cli: Cli, uses: str, pinned: bool) -> None:
    ran = cli("init", "--github", "--uses", uses)
    assert ran.code == 0
    assert "OWNER" not in ran.err
    for path in WORKFLOWS:
        text = (project / path).read_text()
        assert len(re.findall(rf"uses: {re.escape(uses)}( #|$)", text, re.MULTILINE)) >= 1
        assert ("zizmor: ignore[unpinned-uses]" in text) == (not pinned)
        assert "@USES@" not in text


def test_an_owner_who_is_not_said_is_to_be_put_in(project: Path, cli: Cli) -> None:
    ran = cli("init", "--github")
    assert "warning: put the action's owner in place of OWNER" in ran.err
    assert "uses: OWNER/layerbuild@v1 #" in (project / ".github/workflows/layers.yml").read_text()


@pytest.mark.parametrize(
    "uses", ["layerbuild", "octo/layerbuild", "octo/layerbuild@", "a/b@v1 # x", "a/b@v1\n", "a/b@${{ x }}", "ä/b@v1"]
)
def test_what_names_no_action_is_refused(project: Path, cli: Cli, uses: str) -> None:
    ran = cli("init", "--github", "--uses", uses)
    assert ran.code == 2
    assert "names no action" in ran.err
    assert files_in(project) == {}


def test_a_name_of_the_action_without_workflows_is_refused(project: Path, cli: Cli) -> None:
    ran = cli("init", "--uses", "octo/layerbuild@v1")
    assert ran.code == 2
    assert "--uses goes with --github" in ran.err


def test_templates_are_data_of_the_package() -> None:
    templates = importlib.resources.files("layerbuild") / "templates"
    assert {one.name for one in templates.iterdir()} == {
        *("gitignore", "layerbuild.toml", "layers.yml", "update-locks.yml")
    }


@pytest.mark.network  # the build backend is fetched
def test_the_wheel_has_the_templates(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for name in ("gitignore", "layerbuild.toml", "layers.yml", "update-locks.yml"):
        assert f"layerbuild/templates/{name}" in names
