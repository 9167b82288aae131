"""The runner that tests of the action stand on: it refuses what GitHub's refuses, and reads what GitHub's reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.actions import ActionError, Runner, read_action
from tests.expressions import ExpressionError, Scope, Strict
from tests.workflow_commands import Annotation, CommandError, command_in, output_lines, read_log, read_values

SETUP = "actions/setup-python@" + "0" * 40
HEAD = "name: demo\ndescription: Shows it.\n"


def value(text: str, **contexts: Any) -> Any:
    return Scope(contexts=contexts).evaluate(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("'it''s'", "it's"),
        ("'A' == 'a'", True),
        ("1 == '1'", True),
        ("true == 1", True),
        ("null == ''", True),
        ("'' || 'other'", "other"),
        ("'one' && 'two'", "two"),
        ("!'' && !(1 > 2)", True),
        ("false || true && false", False),
        ("inputs.first-name", "x"),
        ("inputs['first-name']", "x"),
        ("steps.a.outputs.absent", None),
        ("fromJSON('[1, 2]')[1]", 2),
        ("toJSON(inputs.none)", "null"),
        ("format('{0}-{1} {{}}', 'a', 2)", "a-2 {}"),
        ("contains('layers', 'YER') && startsWith('ab', 'a') && endsWith('ab', 'b')", True),
        ("join(fromJSON('[1, 2]'), '+')", "1+2"),
        ("success()", True),
        ("failure() || always()", True),
        ("0x10 <= 16", True),
    ],
)
def test_values_of_expressions(text: str, expected: Any) -> None:
    contexts = {"inputs": {"first-name": "x", "none": None}, "steps": Strict(a={"outputs": {}})}
    assert value(text, **contexts) == expected


@pytest.mark.parametrize(
    "text",
    ["", "inputs.", "inputs.absent", "secrets.token", "shout('x')", "1 +", "(1", "'open", "1 2", "'a'.b", "inputs[1"],
)
def test_expressions_that_are_wrong_or_unknown_fail(text: str) -> None:
    with pytest.raises(ExpressionError):
        value(text, inputs=Strict())


def test_holes_are_filled_once() -> None:
    scope = Scope(contexts={"inputs": {"a": "${{ inputs.b }}", "b": "secret"}})
    assert scope.fill("<${{ inputs.a }}|${{ '}}' }}>") == "<${{ inputs.b }}|}}>"
    assert [scope.fill(one) for one in (True, 3.13, None)] == ["true", "3.13", ""]
    with pytest.raises(ExpressionError):
        scope.fill("${{ inputs.b")


def test_conditions_ask_for_the_status_unless_they_do_themselves() -> None:
    for failed in False, True:
        scope = Scope(contexts={"inputs": {"a": "x"}}, failed=failed)
        assert scope.condition("inputs.a == 'x'") is not failed
        assert scope.condition("${{ always() && inputs.a == 'x' }}") is True
        assert scope.condition("inputs.a != 'always()'") is not failed
    with pytest.raises(ExpressionError):
        scope.condition("${{ inputs.a }} == 'x'")


def test_hash_files_depends_on_content_and_is_empty_without_files(tmp_path: Path) -> None:
    scope = Scope(contexts={}, workspace=tmp_path)
    assert scope.evaluate("hashFiles('**/*.txt')") == ""
    (tmp_path / "a.txt").write_text("a")
    before = scope.evaluate("hashFiles('**/*.txt')")
    (tmp_path / "a.txt").write_text("b")
    assert before != scope.evaluate("hashFiles('**/*.txt')") != ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=b=c\n\nb=\n", [("a", "b=c"), ("b", "")]),
        ("a<<END\none\n\ntwo\nEND\n", [("a", "one\n\ntwo")]),
        ("a<<END\nEND\nb=1", [("a", ""), ("b", "1")]),
        ("a<<END\r\none\r\nEND\r\n", [("a", "one\r")]),
        ("a<<END\nb=<<x\nEND", [("a", "b=<<x")]),
        ("a=b<<c\n", [("a", "b<<c")]),
    ],
)
def test_values_are_read_from_files(text: str, expected: list[tuple[str, str]]) -> None:
    assert read_values(text) == expected


@pytest.mark.parametrize(
    "text", ["word\n", "=x\n", "<<END\nEND\n", "a<<\n\n", "a<<END\none\n", "a<<END\none\nEND \n", "a b=1\n"]
)
def test_files_that_the_runner_refuses(text: str) -> None:
    with pytest.raises(CommandError):
        read_values(text)


@pytest.mark.parametrize(
    "line",
    [
        "::error::x",
        " \t\u00a0\u3000::error::x",
        "::ERROR title=a::x",
        "::stop-commands::x",
        "::add-mask::",
        "text ##[error]x",
        "##[set-env name=A;x]b",
        "::unknown::##[warning]x",
    ],
)
def test_lines_that_are_commands(line: str) -> None:
    assert command_in(line)


@pytest.mark.parametrize(
    "line", ["x ::error::x", "::error", ":: error::x", "::unknown::x", "# #[error]x", "##[error", "[::error::x"]
)
def test_lines_that_are_none(line: str) -> None:
    assert command_in(line) is None


def test_a_log_is_read_as_the_runner_reads_it() -> None:
    output = "one\n::group::first%0Agroup\r\ninside\r::endgroup::\n::error file=a%2Cb,line=3,title=t::x%0Ay%250A\n"
    log = read_log(output_lines(output))
    assert log.groups == ["first\ngroup"]
    assert log.errors == [Annotation(level="error", message="x\ny%0A", file="a,b", line=3, title="t")]
    assert log.lines == ["one", "inside", ""]


@pytest.mark.parametrize(
    "lines",
    [
        ["::group::a"],
        ["::endgroup::"],
        ["::group::a", "::group::b", "::endgroup::"],
        ["::group::", "::endgroup::"],
        ["::add-mask::x"],
        ["::debug::x"],
        ["##[error]x"],
        ["::error line=2::x"],
        ["::error file=a,line=0::x"],
        ["::error file=a,row=1::x"],
        ["::error::"],
    ],
)
def test_logs_that_fail_a_test(lines: list[str]) -> None:
    with pytest.raises(CommandError):
        read_log(lines)


def write_action(folder: Path, text: str) -> Path:
    path = folder / "action/action.yml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(HEAD + text)
    return path


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    for name in ("workspace", "temp"):
        (tmp_path / name).mkdir()
    return Runner(workspace=tmp_path / "workspace", temp=tmp_path / "temp")


def test_steps_run_one_after_the_other_and_hand_on_what_they_write(tmp_path: Path, runner: Runner) -> None:
    (runner.workspace / "inner").mkdir()
    path = write_action(
        tmp_path,
        f"""
inputs:
  word: {{description: A word., default: it is}}
outputs:
  said: {{description: What was said., value: "${{{{ steps.speak.outputs.said }}}}!"}}
runs:
  using: composite
  steps:
    - uses: {SETUP}
      id: python
      with: {{python-version: "3.13", update-environment: false}}
    - run: |
        echo "A=1" >> "$GITHUB_ENV"
        printf '#!/bin/sh\\necho tool' > "$RUNNER_TEMP/tool"; chmod +x "$RUNNER_TEMP/tool"
        echo "$RUNNER_TEMP" >> "$GITHUB_PATH"
      shell: bash
    - id: speak
      shell: bash
      working-directory: inner
      env: {{WORD: "${{{{ inputs.word }}}}"}}
      run: |
        echo "said=$WORD $A $(tool) $(basename "$PWD") $CI" >> "$GITHUB_OUTPUT"
        echo "# A title" >> "$GITHUB_STEP_SUMMARY"
        echo "::warning::look out" >&2
    - if: steps.python.outputs.python-version == '2.7'
      shell: bash
      run: exit 1
""",
    )
    ran = runner.action(path, {"word": "$(touch pwned); it"})
    assert ran.code == 0, ran.text
    assert ran.outputs == {"said": "$(touch pwned); it 1 tool inner true!"}
    assert ran.used("actions/setup-python") == [{"python-version": "3.13", "update-environment": "false"}]
    assert ran.summary == "# A title\n"
    assert [one.message for one in ran.annotations] == ["look out"]
    assert len(ran.steps) == 3
    assert list(runner.workspace.rglob("pwned")) == []


def test_what_fails_ends_the_action_but_for_steps_that_run_always(tmp_path: Path, runner: Runner) -> None:
    path = write_action(
        tmp_path,
        """
outputs:
  last: {description: The last., value: "${{ steps.forgiven.conclusion }} ${{ steps.skipped.outcome }}"}
runs:
  using: composite
  steps:
    - {id: forgiven, run: exit 3, shell: bash, continue-on-error: true}
    - {run: "false | true; echo unreached", shell: bash}
    - {id: skipped, run: echo unreached, shell: bash}
    - {if: always(), run: echo reached, shell: bash}
""",
    )
    ran = runner.action(path)
    assert [step.code for step in ran.steps] == [3, 1, 0]
    assert "unreached" not in ran.text
    assert ran.outputs == {"last": "success skipped"}


@pytest.mark.parametrize(
    "text",
    [
        "runs: {using: node24, main: index.js}",
        "runs: {using: composite, steps: [{run: ls}]}",
        "runs: {using: composite, steps: [{run: ls, shell: bash, timeout: 1}]}",
        "runs: {using: composite, steps: [{id: 1x, run: ls, shell: bash}]}",
        "runs: {using: composite, steps: []}\noutputs: {a: {value: x}}",
        "runs: {using: composite, steps: []}\ninputs: {a: {default: x}}",
    ],
)
def test_an_action_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ActionError):
        read_action(write_action(tmp_path, text))


@pytest.mark.parametrize(
    "step",
    [
        "{uses: actions/setup-python@v7, with: {python-version: '3.13'}}",
        f"{{uses: {SETUP}, with: {{python: '3.13'}}}}",
        f"{{uses: {SETUP}}}",
        '{run: "echo ${{ github.action_path }}", shell: bash}',
    ],
)
def test_a_step_that_cannot_be_trusted_is_refused(tmp_path: Path, runner: Runner, step: str) -> None:
    path = write_action(tmp_path, f"runs:\n  using: composite\n  steps:\n    - {step}\n")
    with pytest.raises(ActionError):
        runner.action(path)
