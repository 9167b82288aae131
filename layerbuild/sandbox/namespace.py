"""The sandbox of Linux: a root of its own in namespaces, with the machine's libraries and a CPython of the target."""

from __future__ import annotations

import json
import platform
import sys
import tempfile
from functools import cache
from importlib.resources import as_file, files
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerbuild.errors import MachineError
from layerbuild.process import Streaming
from layerbuild.sandbox import Limits, driver_command, guest_files, reports, tar_chunks

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from layerbuild.interpreters import Interpreter
    from layerbuild.sandbox import SandboxFile

_NO_NAMESPACES = 125
_PROBE = ("/bin/true",)


class Namespace:
    """Runs functions in namespaces of this machine. As another user where it is root's, else in a user namespace.

    Args:
        interpreter: of the target, for this machine.
    """

    name = "namespace"
    differences = (
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
        # A network of its own has the port that Lambda has.
        python = f"/var/lang/bin/{self._interpreter.path.name}"
        port = 9001 if network == "none" else 0
        spec = {**spec, "alone": True, "attached": False, "root": "", "python": python, "port": port}
        everything = chain(content, guest_files(spec))
        yield from reports(
            _enter(self._interpreter.prefix, driver_command(python), everything, limits, network=network)
        )


def _enter(
    prefix: Path, command: Sequence[str], content: Iterable[SandboxFile], limits: Limits, *, network: str
) -> Iterator[bytes]:
    with tempfile.TemporaryDirectory(prefix="layerbuild-") as mountpoint:
        given = {
            "prefix": str(prefix),
            "mountpoint": mountpoint,
            "network": network != "none",
            "tmp": limits.tmp,
            "command": list(command),
            "environment": {"LD_LIBRARY_PATH": "/var/lang/lib", "LC_ALL": "C.UTF-8"},
        }
        with (
            as_file(files("layerbuild").joinpath("sandbox", "guest", "enter.py")) as program,
            Streaming([sys.executable, "-I", "-B", program, json.dumps(given)], tar_chunks(content), env={}) as done,
        ):
            yield from done.lines()
        if done.returncode:
            raise MachineError(
                "sandbox-failed",
                "the namespaces of a sandbox cannot be made"
                if done.returncode == _NO_NAMESPACES
                else "the sandbox broke off",
                causes=[done.stderr.splitlines()[-1] if done.stderr else f"exit code {done.returncode}"],
                hint="--backend container or process is another way",
            )


@cache
def obstacle() -> str:
    """Why this machine makes no namespaces; empty where it does."""
    if platform.system() != "Linux":
        return f"{platform.system()} has no namespaces"
    try:
        # Any folder will do for a prefix: nothing of it is run.
        for _ in _enter(Path("/usr"), _PROBE, (), Limits(), network="host"):
            pass
    except (MachineError, OSError) as error:
        return error.causes[0] if isinstance(error, MachineError) else str(error)
    return ""
