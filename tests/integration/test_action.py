"""The action as a user's workflow runs it: what it makes, what it says where, and what the next step gets."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from layerbuild import __version__
from layerbuild.console import readable_size
from tests.actions import KNOWN_INPUTS, ActionRun, Runner, read_action
from tests.aws_server import ZIP_LIMIT
from tests.conftest import Ran
from tests.elf_files import library
from tests.integration.test_faults import FOREIGN_ARCH
from tests.integration.test_verify import World, changed, resolved, world  # noqa: F401 - some are fixtures
from tests.jobs import ACTION, Job, job_fixture  # noqa: F401 - a fixture
from tests.publishing import (  # noqa: F401 - some are fixtures
    HOME,
    Shop,
    fake_credentials,
    moto_fixture,
    shop_fixture,
)
from tests.running import PROGRAM
from tests.trees import write_zip
from tests.wheels import make_wheel
from tests.workflow_commands import Annotation

# Nothing here runs code for it, so that no test waits for a sandbox.
TARGET = f"python3.13-{FOREIGN_ARCH}"
FOREIGN = "aarch64" if FOREIGN_ARCH == "arm64" else "x86_64"
OTHER = f"python3.12-{FOREIGN_ARCH}"


def layers_of(ran: ActionRun) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(ran.outputs["layers"])
    return found


def rows_of(summary: str) -> list[list[str]]:
    """The cells of every table in a summary, but for the lines between head and body."""
    rows = [line.strip().strip("|").split(" | ") for line in summary.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows if not re.fullmatch(r"[-:| ]+", "|".join(row))]


def errors_of(ran: ActionRun) -> list[Annotation]:
    return [one for one in ran.annotations if one.level == "error"]


# make


def test_make_tells_of_its_layers_in_outputs_summary_and_log(job: Job) -> None:
    job.locked("demo", targets=[TARGET, OTHER], files={"demo.py": "x = 1\n" * 100_000})

    ran = job.action(recipes="demo")

    assert ran.code == 0, ran.text
    assert ran.outputs["changed"] == "true"
    assert (ran.outputs["arns"], ran.outputs["catalogue"]) == ("[]", "")
    layers = layers_of(ran)
    assert {(one["recipe"], one["target"], one["status"]) for one in layers} == {
        ("demo", TARGET, "built"),
        ("demo", OTHER, "built"),
    }
    for one in layers:
        archive = job.project / one["path"]
        assert archive.stat().st_size == one["zipped"] < one["unzipped"]
        assert one["code_sha256"]
        assert [(package["name"], package["version"]) for package in one["distributions"]] == [("demo", "1.0")]
    rows = rows_of(ran.summary)
    assert {len(row) for row in rows} == {len(rows[0])}
    (row,) = [row for row in rows if f"`{TARGET}`" in row]
    sizes = {readable_size(one[kind]) for one in layers for kind in ("zipped", "unzipped") if one["target"] == TARGET}
    assert {"demo", *sizes} <= set(row)
    assert re.search(r"`[█▏▎▍▌▋▊▉]*░+`", " ".join(row))
    assert ran.annotations == []
    step = ran.step("run")
    assert step.log.groups
    # What is in the end is not folded away.
    assert "unzipped" in step.text.split("::endgroup::")[-1]

    again = job.action(recipes="demo")
    assert again.outputs["changed"] == "false"
    assert {one["status"] for one in layers_of(again)} == {"up-to-date"}
    assert [one["code_sha256"] for one in layers_of(again)] == [one["code_sha256"] for one in layers]


def test_without_recipes_all_are_made_and_locked(job: Job) -> None:
    for name in "one", "two":
        make_wheel(job.wheelhouse, name)
        job.recipe(name, targets=[TARGET])

    ran = job.action(command="lock")
    assert ran.code == 0, ran.text
    assert ran.outputs["changed"] == "true"
    assert (job.project / f"recipes/two/locks/{TARGET}.txt").is_file()
    assert {row[0] for row in rows_of(ran.summary)} >= {"one", "two"}

    assert job.action(command="lock").outputs["changed"] == "false"
    ran = job.action(command="lock", args="--check")
    assert (ran.code, ran.outputs["changed"]) == (0, "false")
    ran = job.action(args="--locked")
    assert ran.code == 0, ran.text
    assert {one["recipe"] for one in layers_of(ran)} == {"one", "two"}


def test_layers_that_fail_side_by_side_tell_it_one_after_the_other(job: Job) -> None:
    for number in range(8):
        job.locked(f"good{number}", targets=[TARGET, OTHER])
        job.recipe(f"bad{number}", targets=[TARGET, OTHER])

    ran = job.action(args="--builder host --jobs 16")

    assert ran.code == 3
    assert len(layers_of(ran)) == len(errors_of(ran)) == 16
    assert {one.file for one in errors_of(ran)} == {f"recipes/bad{number}/recipe.toml" for number in range(8)}


def test_targets_and_words_of_recipes_choose(job: Job) -> None:
    job.locked("one", targets=[TARGET, OTHER])
    job.locked("two", targets=[TARGET, OTHER])

    ran = job.action(recipes=f" one@{TARGET}\n  two ", targets="python3.13-*\n", builder="host")

    assert ran.code == 0, ran.text
    assert {(one["recipe"], one["target"]) for one in layers_of(ran)} == {("one", TARGET), ("two", TARGET)}


def test_a_requirements_file_in_another_folder(job: Job) -> None:
    make_wheel(job.wheelhouse, "demo")
    folder = job.project / "my layers"
    folder.mkdir()
    (folder / "needs.txt").write_text("# comment\n\ndemo\n")

    ran = job.action(requirements="needs.txt", name="web", targets=TARGET, working_directory="my layers")

    assert ran.code == 0, ran.text
    (layer,) = layers_of(ran)
    assert (layer["recipe"], layer["target"]) == ("web", TARGET)
    assert (folder / layer["path"]).is_file()


def test_a_requirement_without_a_wheel_is_shown_at_its_line_and_the_others_are_made(job: Job) -> None:
    job.locked("good", targets=[TARGET])
    make_wheel(job.wheelhouse, "first")
    make_wheel(job.wheelhouse, "second", tag="cp313-cp313-win_amd64")
    job.recipe("bad", targets=[TARGET], requirements=["first", "second>=1"])

    ran = job.action(args="--builder host")

    assert ran.code == 3
    assert ran.step("run").code == 3
    assert [(one["recipe"], one["status"]) for one in layers_of(ran)] == [("good", "built")]
    assert ran.outputs["changed"] == "true"
    (error,) = errors_of(ran)
    assert (error.file, error.line) == ("recipes/bad/recipe.toml", 5)
    assert "no-wheel" in error.title
    assert "second" in error.message
    assert "win_amd64" in error.message
    assert "could not be made" in ran.summary
    assert "second" in ran.summary
    assert "good" in ran.summary


def test_a_requirement_of_a_file_without_a_wheel_is_shown_at_its_line(job: Job) -> None:
    make_wheel(job.wheelhouse, "first")
    make_wheel(job.wheelhouse, "second", tag="cp313-cp313-win_amd64")
    (job.project / "inner").mkdir()
    (job.project / "inner/needs.txt").write_text("# first\nfirst\n\nsecond>=1  # comment\n")

    ran = job.action(requirements="needs.txt", name="web", targets=TARGET, builder="host", working_directory="inner")

    assert ran.code == 3
    (error,) = errors_of(ran)
    # Files are named from the top of the checkout, wherever the step runs.
    assert (error.file, error.line) == ("inner/needs.txt", 4)
    assert layers_of(ran) == []
    assert ran.outputs["changed"] == "false"


def test_each_faulty_key_of_a_recipe_is_shown_at_its_line(job: Job) -> None:
    job.recipe("demo", targets=[TARGET], more='sumary = "x"\n\nlayouts = "x"\n')

    ran = job.action(recipes="demo")

    assert ran.code == 2
    assert {(one.file, one.line) for one in errors_of(ran)} == {
        ("recipes/demo/recipe.toml", 6),
        ("recipes/demo/recipe.toml", 8),
    }
    assert len(errors_of(ran)) == 2
    by_line = {one.line: one.message for one in errors_of(ran)}
    assert "sumary" in by_line[6]
    assert "layouts" in by_line[8]
    assert "sumary" in ran.summary
    assert "layouts" in ran.summary


@pytest.mark.parametrize(
    ("text", "line"), [('name = "demo"\n\nrequirements = ["demo"\nx = 1\n', 4), ('name = "demo"\nname = "demo"\n', 2)]
)
def test_what_is_no_toml_is_shown_at_its_line(job: Job, text: str, line: int) -> None:
    job.recipe("demo", targets=[TARGET]).write_text(text)

    ran = job.action(recipes="demo")

    assert ran.code == 2
    (error,) = errors_of(ran)
    assert (error.file, error.line) == ("recipes/demo/recipe.toml", line)


def test_lines_of_a_requirements_file_that_are_wrong_are_all_shown(job: Job) -> None:
    (job.project / "needs.txt").write_text("demo\n-e .\nother @ https://example.invalid/x.whl\n")

    ran = job.action(requirements="needs.txt", name="web", targets=TARGET)

    assert ran.code == 2
    assert {(one.file, one.line) for one in errors_of(ran)} == {("needs.txt", 2), ("needs.txt", 3)}


def test_settings_that_are_wrong_fail_the_step_and_are_shown(job: Job) -> None:
    job.locked("demo", targets=[TARGET])
    (job.project / "layerbuild.toml").write_text("[make]\nlockd = true\n")

    ran = job.action(recipes="demo")

    assert ran.code == 2
    (error,) = errors_of(ran)
    assert error.file == "layerbuild.toml"
    assert "lockd" in ran.summary


def test_what_a_check_finds_while_making_is_in_the_summary(job: Job) -> None:
    native = library(needed=["libGL.so.1"], machine=FOREIGN)
    job.locked("demo", targets=[TARGET], files={"demo.py": "", "demo_native.so": native})

    ran = job.action(recipes="demo")

    assert ran.code == 1
    (error,) = errors_of(ran)
    assert (error.file, error.line) == ("recipes/demo/recipe.toml", 4)
    assert "libGL.so.1" in error.message
    assert "libGL.so.1" in ran.summary.replace("\\", "")
    assert "binary-library-absent" in ran.summary


# check, publish, verify


def test_check_shows_findings_and_fails_for_errors(job: Job, tmp_path: Path) -> None:
    job.locked("demo", targets=[TARGET])
    assert job.action(recipes="demo").code == 0
    ran = job.action(command="check")
    assert (ran.code, ran.outputs["changed"], ran.annotations) == (0, "false", [])
    assert f"demo-{TARGET}" in ran.summary.replace("\\", "")

    native = library(needed=["libGL.so.1"], machine=FOREIGN)
    write_zip(job.project / "strange.zip", {"python/strange.so": native})
    ran = job.action(command="check", recipes="demo strange.zip", targets=TARGET, args="--ignore contents")

    assert ran.code == 1
    assert [one.title for one in errors_of(ran)] == ["layerbuild binary-library-absent"]
    assert "libGL.so.1" in errors_of(ran)[0].message
    assert "binary-library-absent" in ran.summary
    assert len({len(row) for row in rows_of(ran.summary)}) == 1


def test_recipes_that_are_not_asked_for_are_no_obstacle(job: Job) -> None:
    """An archive from elsewhere is checked by itself, whatever the project's recipes are for, and whether they can
    be read; as it is without the action.
    """
    write_zip(job.project / "strange.zip", {"python/strange.py": ""})
    job.locked("demo", targets=[TARGET])
    command = "check strange.zip --target python3.9-x86_64 --ignore contents"
    assert job.script(f"layerbuild {command}").code == 0
    ran = job.action(command="check", recipes="strange.zip", targets="python3.9-x86_64", args="--ignore contents")
    assert ran.code == 0, ran.text

    job.recipe("demo", targets=[TARGET], more="sumary = 1\n")
    assert job.script(f"layerbuild {command}").code == 0
    ran = job.action(command="check", recipes="strange.zip", targets="python3.9-x86_64", args="--ignore contents")
    assert ran.code == 0, ran.text


def test_publish_tells_arns_once_and_then_that_nothing_has_changed(
    job: Job, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "one", "two":
        job.recipe(name, targets=["python3.13-x86_64"])
        shop.make(name)
    where = ["eu-central-1", "us-east-1"]

    ran = job.action(command="publish", recipes="one two", regions=" ".join(where), args="--public --yes")

    assert ran.code == 0, ran.text
    assert ran.outputs["changed"] == "true"
    arns = json.loads(ran.outputs["arns"])
    assert {tuple(sorted(one)) for one in arns} == {("arn", "layer", "recipe", "region", "target", "version")}
    assert {(one["recipe"], one["region"], one["version"]) for one in arns} == {
        (name, region, 1) for name in ("one", "two") for region in where
    }
    assert {one["arn"] for one in arns} == {row["arn"] for row in shop.catalogue["versions"]}
    assert (job.project / ran.outputs["catalogue"]).name == "catalogue.json"
    assert all(one["arn"] in ran.summary for one in arns)
    assert len({len(row) for row in rows_of(ran.summary)}) == 1
    assert ran.used("actions/setup-python")[1:] == []

    again = job.action(command="publish", regions=" ".join(where), args="--public")
    assert again.outputs["changed"] == "false"
    assert json.loads(again.outputs["arns"]) == arns

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    shop.make("one", packages={"one": "2.0"})
    ran = job.action(command="publish", recipes="one", regions=where[0], args="--timeout 1")
    assert ran.code in (4, 5)
    assert ran.outputs["changed"] == "false"
    assert errors_of(ran)
    assert "❌" in ran.summary


def test_what_is_published_is_told_though_other_layers_are_not(job: Job, shop: Shop) -> None:
    shop.make("small")
    shop.make("large", size=ZIP_LIMIT)

    ran = job.action(command="publish", regions=HOME)

    assert ran.code == 5
    assert [one["recipe"] for one in json.loads(ran.outputs["arns"])] == ["small"]
    assert ran.outputs["changed"] == "true"
    assert json.loads(ran.outputs["arns"])[0]["arn"] in ran.summary
    assert "no bucket is named" in ran.summary
    (error,) = errors_of(ran)
    assert "large" in error.message or "1 of 2" in error.message


def test_a_plan_publishes_nothing_and_says_so(job: Job, shop: Shop) -> None:
    shop.make("one")
    ran = job.action(command="publish", regions=HOME, args="--plan")
    assert ran.code == 0, ran.text
    assert (ran.outputs["changed"], ran.outputs["arns"], ran.outputs["catalogue"]) == ("false", "[]", "")
    assert "create" in ran.summary
    assert shop.held() == {}


def test_verify_says_what_differs(job: Job, world: World) -> None:
    content = world.make()
    same = world.put(content)
    other = world.put(changed(content, {"python/more.py": b"x = 1\n"}))

    ran = job.action(command="verify", recipes=same)
    assert ran.code == 0, ran.text
    assert same in ran.summary
    assert ran.outputs["changed"] == "false"

    ran = job.action(command="verify", recipes=f"{same} {other}")
    assert ran.code == 1
    assert "more.py" in ran.summary.replace("\\", "")
    assert same in ran.summary
    assert other in ran.summary
    assert errors_of(ran), "a version that is not what its recipe gives is told as an annotation, too"


# What the other steps get


def test_prepare_asks_for_the_interpreters_of_the_targets_that_are_made(job: Job) -> None:
    job.locked("one", targets=[TARGET, OTHER])
    job.locked("two", targets=[f"python3.11-{FOREIGN_ARCH}", TARGET])

    job.runner.replaced = {**job.runner.replaced, "run": "true"}

    def wanted(**inputs: str) -> list[str]:
        ran = job.action(**inputs)
        assert ran.code == 0, ran.text
        own, *others = ran.used("actions/setup-python")
        assert re.fullmatch(r"3\.\d+", own["python-version"])
        return others[0]["python-version"].split("\n") if others else []

    assert wanted() == ["3.11", "3.12", "3.13"]
    assert wanted(recipes="one") == ["3.12", "3.13"]
    assert wanted(recipes=f"one@{TARGET}") == ["3.13"]
    assert wanted(targets="python3.11-*") == ["3.11"]
    assert wanted(command="check") == []


def test_the_key_of_the_cache_changes_with_a_lock_and_with_nothing_else(job: Job) -> None:
    path = job.locked("demo", targets=[TARGET])
    job.runner.replaced = {**job.runner.replaced, "run": "true"}

    def cache(**inputs: str) -> dict[str, str]:
        (found,) = job.action(recipes="demo", **inputs).used("actions/cache")
        assert not found.keys() - set(KNOWN_INPUTS["actions/cache"].split())
        assert found["key"].startswith(found["restore-keys"])
        return dict(found)

    first = cache()
    assert first["path"] == str(job.project.parent / "cache")
    (job.project / "README.md").write_text("x")
    path.write_text(path.read_text() + 'summary = "x"\n')
    assert cache() == first
    lock = path.parent / f"locks/{TARGET}.txt"
    make_wheel(job.wheelhouse, "demo", build="1")
    lock.write_text(lock.read_text().rstrip() + " --hash=sha256:" + "0" * 64 + "\n")
    second = cache()
    assert second["key"] != first["key"]
    assert second["restore-keys"] == first["restore-keys"]


def test_a_lock_that_is_damaged_is_no_obstacle_to_locking(job: Job) -> None:
    path = job.locked("demo", targets=[TARGET])
    lock = path.parent / f"locks/{TARGET}.txt"
    lock.write_text("demo\n")
    assert job.script("layerbuild lock demo").code == 0
    lock.write_text("demo\n")

    ran = job.action(command="lock", recipes="demo")

    assert ran.code == 0, ran.text
    assert "demo==1.0" in lock.read_text()
    assert ran.outputs["changed"] == "true"


def test_without_a_cache_nothing_is_cached(job: Job) -> None:
    job.locked("demo", targets=[TARGET])
    ran = job.action(recipes="demo", cache="off")
    assert ran.code == 0, ran.text
    assert ran.used("actions/cache") == []


def test_a_cache_in_s3_is_filled_by_pushes_and_only_read_by_pull_requests(
    job: Job, shop: Shop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", HOME)
    s3 = shop.moto.client("s3", HOME)
    s3.create_bucket(Bucket="shared", CreateBucketConfiguration={"LocationConstraint": HOME})

    def kept() -> set[str]:
        return {one["Key"] for one in s3.list_objects_v2(Bucket="shared").get("Contents", [])}

    def run(recipe: str, event: str) -> None:
        monkeypatch.setenv("LAYERBUILD_CACHE_DIR", str(tmp_path / f"cache-of-{recipe}-{event}"))
        job.index.requests.clear()
        job.runner.github = {"event_name": event}
        ran = job.action(recipes=recipe, cache="s3://shared/layers", args="--force")
        assert ran.code == 0, ran.text
        assert ran.used("actions/cache") == []

    for name in "one", "two":
        job.locked(name, targets=[TARGET])
    run("one", "push")
    first = kept()
    assert first
    assert all(key.startswith("layers/") for key in first)
    run("one", "pull_request")
    assert job.index.requests == [], "what one job has fetched, others have"
    run("two", "pull_request")
    assert job.index.requests
    assert kept() == first
    run("two", "push")
    assert kept() > first
    s3.close()


# layerbuild without the action


def test_a_step_of_a_job_has_outputs_and_a_summary_without_the_action(job: Job) -> None:
    job.locked("demo", targets=[TARGET])
    ran = job.script("layerbuild make demo && layerbuild check demo")
    assert ran.code == 0, ran.text
    assert [one["recipe"] for one in json.loads(ran.outputs["layers"])] == ["demo"]
    assert "layerbuild make" in ran.summary
    assert "layerbuild check" in ran.summary
    assert ran.log.groups

    ran = job.script("layerbuild make demoo", {})
    assert ran.code == 2
    assert [one.title for one in ran.log.errors] == ["layerbuild unknown-recipe"]
    assert "demoo" in ran.summary


def test_json_on_stdout_stays_json_in_a_job(job: Job) -> None:
    job.locked("demo", targets=[TARGET])
    ran = job.script('layerbuild make demo --json > "$RUNNER_TEMP/made.json"')
    assert ran.code == 0, ran.text
    (layer,) = json.loads((job.runner.temp / "made.json").read_text())["layers"]
    assert layer["status"] == "built"


def test_a_job_that_is_cancelled_says_so_and_folds_nothing_more(job: Job) -> None:
    job.locked("quick", targets=[TARGET])
    make_wheel(job.wheelhouse, "demo")
    job.recipe("demo", targets=[TARGET])
    job.index.faults = {"/simple/demo/": "hang"}
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(PROGRAM)} make quick demo --jobs 1"
    ran = job.script(f"timeout -s INT 8 {command}")
    assert ran.code == 124
    assert ran.log.groups, ran.text
    assert any("interrupted" in one.message for one in ran.log.annotations)


@pytest.mark.parametrize("name", ["GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"])
def test_a_runner_that_gives_no_file_is_no_obstacle(job: Job, name: str) -> None:
    job.locked("demo", targets=[TARGET])
    ran = job.script(f"unset {name}; layerbuild make demo")
    assert ran.code == 0, ran.text
    assert (ran.summary == "") is (name == "GITHUB_STEP_SUMMARY")


@pytest.mark.parametrize("actions", [None, "", "false"])
def test_outside_of_a_job_there_is_no_workflow_command_and_no_file_is_written(
    job: Job, cli: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, actions: str | None
) -> None:
    job.locked("demo", targets=[TARGET])
    job.recipe("bad", targets=[TARGET], more="sumary = 1\n")
    files = {name: tmp_path / name for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "GITHUB_ENV", "GITHUB_PATH")}
    for name, path in files.items():
        monkeypatch.setenv(name, str(path))
    if actions is not None:
        monkeypatch.setenv("GITHUB_ACTIONS", actions)
    for words, code in [(["make", "demo"], 0), (["make", "bad"], 2), (["check", "demo"], 0), (["make", "--x"], 2)]:
        ran = cli(*words)
        assert ran.code == code, ran.err
        assert not re.search(r"^\s*::", ran.out + ran.err, re.MULTILINE)
    assert [path for path in files.values() if path.exists()] == []


# The action itself


def test_inputs_reach_scripts_by_variables_only_and_everything_is_pinned() -> None:
    manifest = read_action(ACTION)
    text = ACTION.read_text()
    for line in text.splitlines():
        if "uses:" in line:
            assert re.search(r"@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line), line
    for step in manifest["runs"]["steps"]:
        assert "${{" not in step.get("run", "")
    asked = {
        "command", "recipes", "targets", "requirements", "name", "builder", "regions", "args", "version",
        "working-directory", "cache",
    }  # fmt: skip
    assert manifest["inputs"].keys() == asked
    used = set(re.findall(r"inputs\.([\w-]+)", text))
    assert used == asked, "an input that nothing reads"


@pytest.mark.network
def test_layerbuild_is_installed_from_the_checkout(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what it needs itself from the index that pip is configured to use."""
    wheelhouse, temp = tmp_path / "links", tmp_path / "temp"
    temp.mkdir()
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheelhouse))
    found = Job(runner=Runner(workspace=project, temp=temp), project=project, wheelhouse=wheelhouse)
    found.locked("demo", targets=[TARGET])

    ran = found.action(recipes="demo", args="--locked")

    assert ran.code == 0, ran.text
    assert [one["layerbuild"] for one in layers_of(ran)] == [__version__]
    at = temp / "layerbuild/bin/python"
    where = subprocess.run([at, "-c", "import layerbuild as l; print(l.__file__)"], capture_output=True, text=True)
    assert where.stdout.startswith(str(temp)), "it is installed, not merely found"


def test_layerbuild_is_installed_from_the_index(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    job.runner.replaced = {}
    monkeypatch.delenv("PYTHONPATH")
    program = {"layerbuild.py": "import sys\ndef main():\n    print('called with', sys.argv[1:])\n"}
    starts = "[console_scripts]\nlayerbuild = layerbuild:main\n"
    make_wheel(job.wheelhouse, "layerbuild", "0.0.1", program, entry_points=starts)

    ran = job.action(recipes="demo", version="0.0.1")

    assert ran.code == 0, ran.text
    assert ran.step("run").text.startswith("called with ['action', 'run']")
    assert "/files/layerbuild-0.0.1-py3-none-any.whl" in job.index.requests
    job.index.requests.clear()
    again = job.action(recipes="demo", version="0.0.1")
    assert again.step("run").text == ran.step("run").text
    assert job.index.requests == [], "steps of one job install it once"
