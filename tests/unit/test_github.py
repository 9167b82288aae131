"""What a job of GitHub Actions is told: nothing that comes from elsewhere can speak to its runner."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerbuild.cli.action_inputs import command_lines, inputs_of
from layerbuild.cli.summary import size_bar
from layerbuild.errors import BuildError, SourceLine, UsageError
from layerbuild.github import (
    LARGEST_SUMMARY,
    Step,
    annotation,
    current_step,
    harmless,
    lines_at_fault,
    markdown,
    requirement_line,
)
from layerbuild.recipe import parse_recipe, recipe_of_requirements
from layerbuild.requirements import read_requirements_file

# Any text, and text that is likely to do harm.
TEXT = st.text() | st.text(alphabet=":#[]% \t\r\nerowadm<=_\u2028\x1b", max_size=40)


def is_command(line: str) -> bool:
    """Whether the runner takes a line of a log for a command: it trims white space, and knows an older form."""
    return line.strip().startswith("::") or "##[" in line


@given(TEXT)
def test_text_from_elsewhere_is_no_command(text: str) -> None:
    for line in re.split(r"\r\n|\r|\n", text):
        assert not is_command(harmless(line))


@pytest.mark.parametrize("line", ["", "a::b", "# [x]", "  indented", "it says: ::error::"])
def test_text_that_is_no_command_stays_as_it_is(line: str) -> None:
    assert harmless(line) == line


@given(TEXT, TEXT, TEXT)
def test_an_annotation_is_one_command_and_says_what_it_was_given(message: str, title: str, file: str) -> None:
    told = annotation("error", message, title=title, place=(file, 3))
    assert "\n" not in told
    assert "\r" not in told
    match = re.fullmatch(r"::error file=([^:,]*),line=3,title=([^:,]*)::(.*)", told)
    assert match, told

    def read(text: str, codes: dict[str, str]) -> str:
        for code, character in codes.items():
            text = text.replace(code, character)
        return text.replace("%25", "%")

    def shown(text: str) -> str:
        return "".join(
            one if one.isprintable() or one in "\r\n" else one.encode("unicode_escape").decode() for one in text
        )

    lines = {"%0D": "\r", "%0A": "\n"}
    assert read(match[3], lines) == shown(message)
    assert read(match[2], {**lines, "%3A": ":", "%2C": ","}) == shown(title)
    assert read(match[1], {**lines, "%3A": ":", "%2C": ","}) == shown(file)


def outputs_in(text: str) -> dict[str, str]:
    """The outputs in a file as the runner reads them."""
    found, lines = {}, text.split("\n")
    while lines and (line := lines.pop(0)):
        name, _, delimiter = line.partition("<<")
        value = []
        while (line := lines.pop(0)) != delimiter:
            value.append(line)
        found[name] = "\n".join(value)
    return found


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])) | st.text("<=name0layerbuild_\n"), max_size=3))
def test_an_output_sets_itself_and_no_other(tmp_path_factory: pytest.TempPathFactory, values: list[str]) -> None:
    path = tmp_path_factory.mktemp("outputs") / "output"
    step = Step(workspace=path.parent, output=path)
    for number, value in enumerate(values):
        step.set_output(f"name{number}", value)
    path.touch()
    assert outputs_in(path.read_bytes().decode()) == {f"name{number}": value for number, value in enumerate(values)}


def test_a_step_without_files_takes_what_it_is_told(tmp_path: Path) -> None:
    step = Step(workspace=tmp_path)
    step.set_output("name", "value")
    assert step.add_summary("text")
    assert list(tmp_path.iterdir()) == []


def test_a_summary_that_github_would_not_show_is_not_written(tmp_path: Path) -> None:
    step = Step(workspace=tmp_path, summary=tmp_path / "summary")
    assert step.add_summary("x" * (LARGEST_SUMMARY - 10))
    assert not step.add_summary("y" * 20)
    assert step.add_summary("z")
    assert (tmp_path / "summary").read_text().endswith("x\n\nz\n\n")


def test_a_step_is_only_where_github_says_so(tmp_path: Path) -> None:
    assert current_step({"GITHUB_OUTPUT": "x"}) is None
    assert current_step({"GITHUB_ACTIONS": "false"}) is None
    step = current_step({"GITHUB_ACTIONS": "true", "GITHUB_WORKSPACE": str(tmp_path), "GITHUB_OUTPUT": "x"})
    assert step == Step(workspace=tmp_path, output=Path("x"))


def test_files_are_named_from_the_workspace_and_others_not_at_all(tmp_path: Path) -> None:
    step = Step(workspace=tmp_path)
    inside = SourceLine(path=tmp_path / "a" / "recipe.toml", number=4)
    assert step.annotation("error", "m", title="t", line=inside) == "::error file=a/recipe.toml,line=4,title=t::m"
    outside = SourceLine(path=tmp_path.parent / "recipe.toml")
    assert step.annotation("error", "m", title="t", line=outside) == "::error title=t::m"


RECIPE = """\
name = "demo"
summary = "wants pillow"
requirements = ["boto3>=1.40",  # and numpy
  'Zope.Interface',
  "pillow[extra]; python_version > '3'",
]
imports = ["numpy"]
"""


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("boto3==1.41 has no wheel", 3),
        ("zope_interface 5.0 is not what it says", 4),
        ("Pillow 13.0.0", 5),
        ("pillow needs boto3", 5),  # the first that is named
        ("numpy has no wheel", 3),  # a comment asks for nothing: where requirements begin
        ("boto3-stubs has no wheel", 3),
        ("", 3),
    ],
)
def test_the_line_is_that_of_the_package_that_is_named(tmp_path: Path, text: str, line: int) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE)
    assert requirement_line(path, text) == SourceLine(path=path, number=line)


@pytest.mark.parametrize(
    ("text", "line"), [("six==1 has no wheel", 2), ("a-b: c", 4), ("other", 1), ("requirements.txt of six", 2)]
)
def test_the_line_of_a_requirements_file(tmp_path: Path, text: str, line: int) -> None:
    path = tmp_path / "reqs.txt"
    path.write_text("# six\nsix\n\nA_b>1 \\\n  --hash=sha256:00\n")
    assert requirement_line(path, text).number == line


@pytest.mark.parametrize("content", [None, b"\xff", b"", b"nothing here"])
def test_a_file_that_says_nothing_has_a_first_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "recipe.toml"
    if content is not None:
        path.write_bytes(content)
    assert requirement_line(path, "six").number == 1


def test_an_error_with_lines_of_its_own_keeps_them(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    folder.mkdir()
    (folder / "recipe.toml").write_text(RECIPE)
    recipe = parse_recipe(RECIPE, folder=folder)
    assert lines_at_fault(recipe, BuildError("x", "pillow is bad"))[0].number == 5
    own = (SourceLine(path=tmp_path / "other", number=9),)
    assert lines_at_fault(recipe, BuildError("x", "pillow is bad", lines=own)) == own
    assert lines_at_fault(parse_recipe(RECIPE, folder=folder, shipped=True), BuildError("x", "pillow is bad")) == ()


def test_a_recipe_with_faults_says_the_line_of_each(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    with pytest.raises(UsageError) as caught:
        parse_recipe('name = "demo"\nrequirement = []\nrequirements = ["a b"]\n', folder=folder)
    assert [(line.path, line.number) for line in caught.value.lines] == [
        (folder / "recipe.toml", 2),
        (folder / "recipe.toml", 3),
    ]
    with pytest.raises(UsageError) as caught:
        parse_recipe('name = "demo"\nrequirements = [\n', folder=folder)
    assert caught.value.lines[0].path == folder / "recipe.toml"
    with pytest.raises(UsageError) as caught:
        parse_recipe('name = "demo"\nrequirements = = 1\n', folder=folder)
    assert caught.value.lines[0].number == 2


def test_requirements_with_faults_say_the_file_and_line_of_each(tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("ok\n-e .\n")
    (tmp_path / "reqs.txt").write_text("-r more.txt\n\na b\n")
    with pytest.raises(UsageError) as caught:
        read_requirements_file(tmp_path / "reqs.txt")
    assert [(line.path.name, line.number) for line in caught.value.lines] == [("more.txt", 2), ("reqs.txt", 3)]
    (tmp_path / "reqs.txt").write_text("# none\n")
    with pytest.raises(UsageError) as caught:
        recipe_of_requirements(tmp_path / "reqs.txt", "web")
    assert caught.value.lines == (SourceLine(path=tmp_path / "reqs.txt"),)


@pytest.mark.parametrize(
    ("size", "shown"),
    [(0, "`░░░░░░░░░░` 0%"), (50, "`█████░░░░░` 50%"), (22, "`██▎░░░░░░░` 22%"), (100, "`██████████` 100%")],
)
def test_a_bar_is_as_long_as_its_size(size: int, shown: str) -> None:
    assert size_bar(size, 100) == shown


def test_a_bar_over_the_limit_is_full() -> None:
    assert size_bar(300, 100) == "`██████████` 300%"


def test_names_are_nothing_but_text_in_markdown() -> None:
    assert markdown("<b>|x|\n[a](http://b) `c` **d**") == (r"\<b\>\|x\| \[a\]\(http\://b\) \`c\` \*\*d\*\*")


# --- inputs of the step


def lines_of(event: str = "push", **inputs: str) -> list[list[str]]:
    given = {f"INPUT_{name.upper()}": value for name, value in inputs.items()}
    return command_lines(inputs_of(given), {"GITHUB_EVENT_NAME": event})


@pytest.mark.parametrize(
    ("inputs", "line"),
    [
        ({}, "make --all"),
        ({"recipes": " a\n b@python3.13-arm64 "}, "make -- a b@python3.13-arm64"),
        ({"targets": "x\ty"}, "make --target=x --target=y --all"),
        ({"requirements": "r.txt", "name": "web"}, "make --requirements=r.txt --name=web"),
        ({"command": "lock", "builder": "container"}, "lock --builder=container --all"),
        ({"command": "lock", "args": "--upgrade"}, "lock --all --upgrade"),
        ({"command": "check"}, "check"),
        ({"command": "check", "recipes": "a.zip"}, "check -- a.zip"),
        ({"command": "publish", "regions": "eu-west-1 us-east-1"}, "publish --region=eu-west-1 --region=us-east-1"),
        ({"recipes": "--force"}, "make -- --force"),
        ({"targets": "--force"}, "make --target=--force --all"),
        ({"cache": "off"}, "make --all"),
        ({"cache": "s3://b/p"}, "make --cache=s3://b/p --all"),
    ],
)
def test_inputs_stand_for_a_command_line(inputs: dict[str, str], line: str) -> None:
    assert lines_of(**inputs) == [line.split()]


def test_args_are_split_as_a_shell_would_and_expanded_as_it_would_not() -> None:
    assert lines_of(args="--name 'a b' \"$(x)\" `y`") == [["make", "--all", "--name", "a b", "$(x)", "`y`"]]


def test_a_proof_rests_on_no_cache_that_others_write_to() -> None:
    assert lines_of(command="verify", recipes="arn:1", cache="s3://b/p") == [["verify", "--", "arn:1"]]


def test_each_arn_is_verified() -> None:
    assert lines_of(command="verify", recipes="arn:1 arn:2") == [["verify", "--", "arn:1"], ["verify", "--", "arn:2"]]


@pytest.mark.parametrize("event", ["pull_request", "pull_request_target"])
def test_a_pull_request_only_reads_a_shared_cache(event: str) -> None:
    assert "--cache-read-only" in lines_of(event, cache="s3://b/p")[0]
    assert "--cache-read-only" not in lines_of(event)[0]


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        ({"command": "rm -rf"}, "command"),
        ({"command": "check", "builder": "host"}, "check takes no input builder"),
        ({"command": "publish", "requirements": "r.txt"}, "publish takes no input requirements"),
        ({"regions": "eu-west-1"}, "it goes with publish"),
        ({"builder": "moon"}, "builder"),
        ({"cache": "ftp://x"}, "cache"),
        ({"command": "verify"}, "ARN"),
        ({"args": "'open"}, "args"),
    ],
)
def test_inputs_that_stand_for_nothing_are_refused(inputs: dict[str, str], told: str) -> None:
    with pytest.raises(UsageError) as caught:
        lines_of(**inputs)
    assert caught.value.code == "bad-input"
    assert told in " ".join((caught.value.what, *caught.value.causes))


def test_manifests_that_github_would_refuse_are_cut_and_that_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    from types import SimpleNamespace

    from layerbuild.cli.make import _layers_value
    from layerbuild.console import Console

    packages = [{"name": "demo", "version": "1.0"}] * 40_000
    made = SimpleNamespace(
        manifest=SimpleNamespace(data={"recipe": "demo", "distributions": packages}), path="dist/x", status="built"
    )
    (row,) = json.loads(_layers_value(Console(), [made]))  # type: ignore[list-item]
    assert row == {"recipe": "demo", "distributions": [], "path": "dist/x", "status": "built"}
    assert "too large for GitHub" in capsys.readouterr().err
