"""Runs a composite action as the runner of GitHub Actions does: shell steps for real, other actions only on paper.

Steps with ``uses:`` are noted, with the inputs that they would get; `KNOWN_INPUTS` has what these actions take.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from ruamel.yaml import YAML

from tests.expressions import Scope, Strict
from tests.workflow_commands import Annotation, Log, output_lines, read_log, read_summary, read_values

# Names of inputs by the action.yml of setup-python 7.0.0 and cache 5.0.5.
KNOWN_INPUTS = {
    "actions/setup-python": "python-version python-version-file cache architecture check-latest token "
    "cache-dependency-path update-environment allow-prereleases freethreaded pip-version",
    "actions/cache": "path key restore-keys upload-chunk-size enableCrossOsArchive fail-on-cache-miss lookup-only",
}
_REQUIRED = {"actions/cache": {"path", "key"}, "actions/setup-python": {"python-version"}}
_PINNED = re.compile(r"([\w.-]+/[\w.-]+)(?:/[\w./-]+)?@([0-9a-f]{40})")
_STEP_KEYS = set("name id if run shell env working-directory uses with continue-on-error".split())
_SHELLS = {"bash": ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail"]}
_COMMAND_FILES = ("GITHUB_OUTPUT", "GITHUB_ENV", "GITHUB_PATH", "GITHUB_STATE", "GITHUB_STEP_SUMMARY")
_STEP_SECONDS = 120


class ActionError(AssertionError):
    """An action that the runner would refuse."""


@dataclass(frozen=True, kw_only=True)
class StepRun:
    """How a step went. `uses` and `given` are those of an action that was only noted; `code` is then None.

    `values` has what was written to ``$GITHUB_OUTPUT``, in order; `text` is the whole output, as it came.
    """

    name: str
    id: str = ""
    uses: str = ""
    given: Mapping[str, str] = field(default_factory=dict)
    code: int | None = None
    text: str = ""
    log: Log = field(default_factory=Log)
    values: tuple[tuple[str, str], ...] = ()
    summary: str = ""

    @property
    def outputs(self) -> dict[str, str]:
        """The step's outputs."""
        return dict(self.values)


@dataclass(frozen=True, kw_only=True)
class ActionRun:
    """How an action went: its steps, but for those that were passed over, and its outputs."""

    steps: tuple[StepRun, ...]
    outputs: Mapping[str, str]

    @property
    def code(self) -> int:
        """The exit code of the step that failed; 0 when none did."""
        return next((step.code for step in self.steps if step.code), 0)

    def step(self, name: str) -> StepRun:
        """The step of that id or name."""
        (found,) = [step for step in self.steps if name in (step.id, step.name)]
        return found

    def used(self, action: str) -> list[Mapping[str, str]]:
        """The inputs of each use of another action."""
        return [step.given for step in self.steps if step.uses == action]

    @property
    def text(self) -> str:
        """The output of all steps."""
        return "\n".join(step.text for step in self.steps)

    @property
    def summary(self) -> str:
        """The summaries of all steps, as GitHub shows them one after the other."""
        return "\n".join(step.summary for step in self.steps if step.summary)

    @property
    def annotations(self) -> list[Annotation]:
        """The annotations of all steps."""
        return [one for step in self.steps for one in step.log.annotations]


@dataclass(kw_only=True)
class Runner:
    """A runner: a workspace with the project, a folder for what is temporary, and variables.

    Attributes:
        replaced: scripts to run instead of those of steps, by the step's id or name.
        github: what of the context ``github`` differs from a push.
    """

    workspace: Path
    temp: Path
    replaced: Mapping[str, str] = field(default_factory=dict)
    github: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._env: dict[str, str] = {}
        # Not the environment of the tests, which has a layerbuild.
        own = Path(sys.executable).parent
        self._paths = [one for one in os.environ["PATH"].split(os.pathsep) if Path(one) != own]
        self._count = 0

    def _outputs_of(self, action: str, given: Mapping[str, str]) -> dict[str, str]:
        """What another action would say: setup-python has found the Python of the tests, the cache is empty."""
        if action != "actions/setup-python":
            return {"cache-hit": "false"}
        folder = self.temp / "python"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "python"
        path.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
        path.chmod(0o755)
        if given.get("update-environment") != "false":
            self._paths.insert(0, str(folder))
        return {"python-path": str(path), "python-version": given["python-version"].split()[-1]}

    def action(self, path: Path, inputs: Mapping[str, str] | None = None) -> ActionRun:
        """Runs the composite action whose action.yml is at `path`.

        Raises:
            ActionError, ExpressionError, CommandError: the runner would refuse something, or be misled.
        """
        manifest = read_action(path)
        given = self._inputs(manifest, inputs or {})
        contexts = self._contexts(path.parent)
        contexts["inputs"] = Strict(given)
        contexts["steps"] = Strict()
        done: list[StepRun] = []
        failed = False
        for step in manifest["runs"]["steps"]:
            contexts["env"] = {**os.environ, **self._env}
            scope = Scope(contexts=contexts, failed=failed, workspace=self.workspace)
            ran = None
            if scope.condition(step.get("if", "success()")):
                ran = self._step(step, scope)
                done.append(ran)
            forgiven = scope.fill(step.get("continue-on-error", False)) == "true"
            failed = failed or bool(ran and ran.code and not forgiven)
            if "id" in step:
                contexts["steps"][step["id"]] = _outcome(ran, forgiven=forgiven)
        scope = Scope(contexts=contexts, failed=failed, workspace=self.workspace)
        outputs = {name: scope.fill(one["value"]) for name, one in manifest.get("outputs", {}).items()}
        return ActionRun(steps=tuple(done), outputs=outputs)

    def script(self, script: str, *, env: Mapping[str, str] | None = None) -> StepRun:
        """Runs a step of a job that is ``run: script``."""
        return self._run(script, {"name": "run", "shell": "bash"}, dict(env or {}), self.workspace)

    def _contexts(self, action: Path) -> dict[str, Any]:
        github = {
            "action_path": str(action),
            "workspace": str(self.workspace),
            "event_name": "push",
            "action": "self",
        }
        github |= {"token": "not-a-token", "repository": "example/layers", "ref": "refs/heads/main", **self.github}
        runner = {
            "temp": str(self.temp),
            "os": "Linux",
            "arch": "X64",
            "name": "runner",
            "environment": "self-hosted",
        }
        return {"github": Strict(github), "runner": Strict(runner)}

    def _inputs(self, manifest: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, str]:
        declared = manifest.get("inputs", {})
        if strange := given.keys() - declared.keys():
            raise ActionError(f"no inputs of the action: {', '.join(strange)}")
        scope = Scope(contexts=self._contexts(self.workspace))
        defaults = {name: scope.fill(one.get("default")) for name, one in declared.items()}
        return {**defaults, **given}

    def _step(self, step: Mapping[str, Any], scope: Scope) -> StepRun:
        name = step.get("name", step.get("uses", "run"))
        if "uses" in step:
            action = _PINNED.fullmatch(step["uses"])
            if not action:
                raise ActionError(f"not pinned by a commit: {step['uses']}")
            given = {key: scope.fill(value) for key, value in step.get("with", {}).items()}
            known = set(KNOWN_INPUTS[action[1]].split())
            missing = {key for key in _REQUIRED[action[1]] if not given.get(key)}
            if given.keys() - known or missing:
                raise ActionError(f"{action[1]} does not take {given}, or misses {missing}")
            said = tuple(self._outputs_of(action[1], given).items())
            return StepRun(name=name, id=step.get("id", ""), uses=action[1], given=given, values=said)
        if "${{" in step["run"]:
            raise ActionError(f"an expression becomes part of a script: {step['run']!r}")
        env = {key: scope.fill(value) for key, value in step.get("env", {}).items()}
        script = self.replaced.get(step.get("id", name), self.replaced.get(name, step["run"]))
        folder = self.workspace / scope.fill(step.get("working-directory", ""))
        contexts = scope.contexts["github"]
        return self._run(script, step, {**env, "GITHUB_ACTION_PATH": contexts["action_path"]}, folder)

    def _run(self, script: str, step: Mapping[str, Any], env: Mapping[str, str], folder: Path) -> StepRun:
        self._count += 1
        files = {name: self.temp / f"{name.lower()}_{self._count}" for name in _COMMAND_FILES}
        for path in files.values():
            path.write_bytes(b"")
        written = self.temp / f"script_{self._count}.sh"
        written.write_text(script, "utf-8")
        variables = {**os.environ, **self._variables(), **self._env, **env}
        variables |= {name: str(path) for name, path in files.items()}
        variables["PATH"] = os.pathsep.join(self._paths)
        code, lines = _execute([*_SHELLS[step["shell"]], str(written)], folder, variables)
        self._env |= read_values(files["GITHUB_ENV"].read_bytes().decode())
        for line in filter(None, output_lines(files["GITHUB_PATH"].read_bytes().decode())):
            self._paths.insert(0, line)
        return StepRun(
            name=step.get("name", "run"),
            id=step.get("id", ""),
            code=code,
            text="\n".join(lines),
            log=read_log(lines),
            values=tuple(read_values(files["GITHUB_OUTPUT"].read_bytes().decode())),
            summary=read_summary(files["GITHUB_STEP_SUMMARY"].read_bytes()),
        )

    def _variables(self) -> dict[str, str]:
        """What the runner sets for each step."""
        return {
            "CI": "true",
            "GITHUB_ACTIONS": "true",
            "GITHUB_WORKSPACE": str(self.workspace),
            "GITHUB_EVENT_NAME": self.github.get("event_name", "push"),
            "GITHUB_REPOSITORY": "example/layers",
            "GITHUB_SERVER_URL": "https://github.com",
            "GITHUB_SHA": "0" * 40,
            "GITHUB_RUN_ID": "1",
            "RUNNER_TEMP": str(self.temp),
            "RUNNER_OS": "Linux",
            "RUNNER_ARCH": "X64",
            "RUNNER_ENVIRONMENT": "self-hosted",
        }


def _outcome(ran: StepRun | None, *, forgiven: bool) -> dict[str, Any]:
    """A step in the context ``steps``."""
    if ran is None:
        return {"outputs": {}, "outcome": "skipped", "conclusion": "skipped"}
    how = "failure" if ran.code else "success"
    return {"outputs": ran.outputs, "outcome": how, "conclusion": "success" if forgiven else how}


def _execute(command: list[str], folder: Path, variables: Mapping[str, str]) -> tuple[int, list[str]]:
    """Exit code and lines of a program; as for the runner, its two outputs are pipes of their own."""
    lines: list[str] = []
    if not os.path.isdir(folder):  # noqa: PTH112 - whose name may be longer than a path's
        return 1, ["An error occurred trying to start process: no such working directory"]
    with subprocess.Popen(
        command, cwd=folder, env=variables, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:

        def read(stream: IO[bytes]) -> None:
            for line in stream:
                lines.extend(output_lines(line.decode("utf-8", "replace").removesuffix("\n").removesuffix("\r")))

        readers = [
            threading.Thread(target=read, args=[stream]) for stream in (process.stdout, process.stderr) if stream
        ]
        for reader in readers:
            reader.start()
        try:
            code = process.wait(_STEP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        finally:
            for reader in readers:
                reader.join()
    return code, lines


def read_action(path: Path) -> dict[str, Any]:
    """A composite action's action.yml.

    Raises:
        ActionError: it is none that the runner would take.
    """
    manifest: dict[str, Any] = YAML(typ="safe").load(path.read_text("utf-8"))
    for problem in _problems(manifest):
        raise ActionError(f"{path.name}: {problem}")
    return manifest


def _problems(manifest: Mapping[str, Any]) -> Iterator[str]:
    if strange := manifest.keys() - {"name", "description", "author", "inputs", "outputs", "runs", "branding"}:
        yield f"unknown keys {strange}"
    if not manifest.get("name") or not manifest.get("description"):
        yield "it has no name or no description"
    for name, one in manifest.get("inputs", {}).items():
        if one.keys() - {"description", "required", "default", "deprecationMessage"} or not one.get("description"):
            yield f"input {name} is not well described: {one}"
        if not isinstance(one.get("default", ""), str):
            yield f"the default of {name} is no string"
    for name, one in manifest.get("outputs", {}).items():
        if one.keys() != {"description", "value"}:
            yield f"output {name} is not well described: {one}"
    runs = manifest.get("runs", {})
    if runs.get("using") != "composite" or runs.keys() != {"using", "steps"}:
        yield "it is not composite"
        return
    yield from _problems_of_steps(runs["steps"])


def _problems_of_steps(steps: list[dict[str, Any]]) -> Iterator[str]:
    ids = [step["id"] for step in steps if "id" in step]
    if len(set(ids)) < len(ids) or not all(re.fullmatch(r"[A-Za-z_][\w-]*", one) for one in ids):
        yield f"ids that occur twice, or are none: {ids}"
    for step in steps:
        if strange := step.keys() - _STEP_KEYS:
            yield f"unknown keys of a step {strange}"
        if ("run" in step) is ("uses" in step):
            yield f"either run or uses: {step}"
        if "run" in step and step.get("shell") not in _SHELLS:
            yield f"a step without a known shell: {step}"
