"""Jobs of GitHub Actions for tests: a project in a runner's workspace, secrets that must not leak, and the action."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.actions import ActionRun, Runner, StepRun
from tests.index_server import IndexServer
from tests.publishing import pretend_to_have_credentials
from tests.wheels import make_wheel, sha256_of

ACTION = Path(__file__).parents[1] / "action.yml"
OUTPUTS = {"layers", "arns", "catalogue", "changed"}
PREPARED = {"pythons", "cache-folder", "cache-key", "cache-prefix"}
PASSWORD = "hunter2-of-the-index"
SECRETS = (PASSWORD, "not-a-secret-but-an-example", "AKIAIOSFODNN7EXAMPLE")

# In place of the step that installs layerbuild: the one under test, by the interpreter of the tests.
_INSTALL = f"""mkdir -p "$RUNNER_TEMP/layerbuild/bin"
cat > "$RUNNER_TEMP/layerbuild/bin/layerbuild" <<'END'
#!/bin/sh
exec {shlex.quote(sys.executable)} -m layerbuild "$@"
END
chmod +x "$RUNNER_TEMP/layerbuild/bin/layerbuild"
echo "$RUNNER_TEMP/layerbuild/bin" >> "$GITHUB_PATH"
"""
QUICKLY = {"Install layerbuild": _INSTALL}


@dataclass
class Job:
    """A job whose workspace is the project, with an index that wants a password, and credentials of nobody.

    `index` is an `IndexServer`; None where pip uses the one that it is configured for here.
    """

    runner: Runner
    project: Path
    wheelhouse: Path
    index: Any = None

    def action(self, **inputs: str) -> ActionRun:
        """Runs the action; see `sound` for what must hold however it ends."""
        given = {name.replace("_", "-"): value for name, value in inputs.items()}
        ran = self.runner.action(ACTION, given)
        for step in ran.steps:
            self.sound(step)
            # Nobody but layerbuild has set an output; verify does so for each version.
            assert len(step.outputs) == len(step.values) or given.get("command") == "verify"
            if not step.uses:
                assert step.outputs.keys() <= (PREPARED if step.id == "prepare" else OUTPUTS), step
        assert ran.outputs.keys() == OUTPUTS
        assert ran.outputs["changed"] in ("true", "false")
        return ran

    def script(self, script: str, env: Mapping[str, str] | None = None) -> StepRun:
        """Runs a step ``run: script`` of a job that has installed layerbuild."""
        self.runner.script(_INSTALL)
        ran = self.runner.script(script, env=env)
        self.sound(ran)
        return ran

    def sound(self, step: StepRun) -> None:
        """What must hold of each step: it has told no secret, and has run nothing of what it was given."""
        told = "\n".join([step.text, step.summary, *step.outputs.values(), *step.given.values()])
        for secret in SECRETS:
            assert secret not in told
        # A traceback may be that of a package; these are our own.
        assert "internal-error" not in told
        assert "layerbuild/__main__.py" not in told
        assert list(self.project.parent.rglob("*pwned*")) == []

    def recipe(
        self, name: str, *, targets: Sequence[str], requirements: Sequence[str] | None = None, more: str = ""
    ) -> Path:
        """Writes a recipe for targets, each requirement on a line of its own; the first line is that of the name."""
        path = self.project / "recipes" / name / "recipe.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        wanted = "".join(f'  "{one}",\n' for one in requirements or [name])
        named = ", ".join(f'"{one}"' for one in targets)
        path.write_text(f'name = "{name}"\ntargets = [{named}]\nrequirements = [\n{wanted}]\n{more}')
        return path

    def locked(
        self, name: str, *, targets: Sequence[str], more: str = "", files: Mapping[str, str | bytes] | None = None
    ) -> Path:
        """Writes a recipe for one package of the same name, with its locks and the package's wheel."""
        path = self.recipe(name, targets=targets, more=more)
        wheel = make_wheel(self.wheelhouse, name, files=files)
        (path.parent / "locks").mkdir(exist_ok=True)
        for target in targets:
            text = f"{name}==1.0 --hash=sha256:{sha256_of(wheel)}\n"
            (path.parent / "locks" / f"{target}.txt").write_text(text)
        return path


@pytest.fixture(name="job")
def job_fixture(
    project: Path, tmp_path: Path, wheelhouse: Path, index_server: IndexServer, monkeypatch: pytest.MonkeyPatch
) -> Job:
    """A job without recipes."""
    pretend_to_have_credentials(monkeypatch)
    index_server.password = f"user:{PASSWORD}"
    monkeypatch.setenv("PIP_INDEX_URL", index_server.url.replace("://", f"://user:{PASSWORD}@"))
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(ACTION.parent), os.environ.get("PYTHONPATH", "")]).rstrip(":")
    )
    temp = tmp_path / "runner-temp"
    temp.mkdir()
    return Job(
        runner=Runner(workspace=project, temp=temp, replaced=QUICKLY),
        project=project,
        wheelhouse=wheelhouse,
        index=index_server,
    )
