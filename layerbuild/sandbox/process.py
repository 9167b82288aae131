"""The sandbox of any system: a plain process, and a folder that stands for the root. It says what that cannot be."""

from __future__ import annotations

import os
import tempfile
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerbuild.errors import MachineError
from layerbuild.process import Streaming
from layerbuild.sandbox import Limits, driver_command, guest_files, reports

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from layerbuild.interpreters import Interpreter
    from layerbuild.sandbox import SandboxFile

_PLACES = ("/opt", "/var/task", "/var/runtime", "/var/lang")
# Of what a system needs to start a program at all.
_SYSTEM_VARIABLES = ("SYSTEMROOT", "TEMP", "TMP")


class ProcessSandbox:
    """Runs functions as plain processes of this user.

    Args:
        interpreter: of the target's minor version.
    """

    name = "process"
    differences = (
        "/opt, /var/task and /var/runtime are folders elsewhere, and can be written to",
        "the function has this user's rights, and sees this machine's files and network",
        "the size of /tmp and the number of processes are not limited",
        "system libraries are this machine's: what Lambda lacks may be there",
        "the runtime's own boto3 is not there",
    )

    def __init__(self, interpreter: Interpreter) -> None:
        self._interpreter = interpreter
        self.interpreter = interpreter.version

    def run(
        self, content: Iterable[SandboxFile], spec: Mapping[str, Any], limits: Limits, *, network: str
    ) -> Iterator[dict[str, Any]]:
        """See `layerbuild.sandbox.Sandbox`."""
        with tempfile.TemporaryDirectory(prefix="layerbuild-") as name:
            root = Path(name).resolve()
            environment = {key: _below(value, root) for key, value in spec["environment"].items()}
            environment |= {"LAYERBUILD_ROOT": str(root), **_system()}
            python = str(self._interpreter.path)
            here = {
                "alone": False,
                "attached": False,
                "root": str(root),
                "python": python,
                "port": 0,
                "environment": environment,
            }
            if spec.get("script"):
                here["script"] = f"{root}{spec['script']}"
            for folder in (*_PLACES, "/tmp"):  # noqa: S108 - below the root
                Path(f"{root}{folder}").mkdir(parents=True, exist_ok=True)
            for file in chain(content, guest_files({**spec, **here})):
                _write(file, root)
            with Streaming(driver_command(python, str(root)), (), env=_system()) as done:
                yield from reports(done.lines())
            if done.returncode:
                causes = done.stderr.splitlines()[-3:] or [f"exit code {done.returncode}"]
                raise MachineError("sandbox-failed", "the sandbox broke off", causes=causes)


def _below(value: str, root: Path) -> str:
    """Paths of Lambda as they are below a root."""
    parts = value.split(":")
    if not any(part.startswith(_PLACES) for part in parts):
        return value
    return os.pathsep.join(f"{root}{part}" if part.startswith(_PLACES) else part for part in parts)


def _system() -> dict[str, str]:
    return {name: os.environ[name] for name in _SYSTEM_VARIABLES if name in os.environ and os.name == "nt"}


def _write(file: SandboxFile, root: Path) -> None:
    """Writes a file below the root; links, which could lead out of it, are left out unless they stay within /opt."""
    path = root / file.path
    folder = path.parent.resolve()
    if not folder.is_relative_to(root):
        raise MachineError("sandbox-failed", f"{file.path} leads out of its layer")
    folder.mkdir(parents=True, exist_ok=True)
    if file.content is None:
        target = f"{root}{file.target}" if file.target.startswith("/") else file.target
        path.symlink_to(target)
        return
    if path.is_symlink():
        raise MachineError("sandbox-failed", f"{file.path} is both a file and a link")
    path.write_bytes(file.content())
    path.chmod(file.mode)
