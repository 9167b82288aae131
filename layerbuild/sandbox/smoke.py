"""Smoke imports: a layer's modules imported, and its recipe's ``smoke.py`` run, as in a function on Lambda."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from layerbuild.recipe import SMOKE_SCRIPT
from layerbuild.sandbox import MIB, Limits, SandboxFile, environment

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from layerbuild.layer import Layer
    from layerbuild.sandbox import Sandbox
    from layerbuild.target import Target

# Of all imports together: an emulated interpreter takes minutes for what takes seconds otherwise.
LIMITS = Limits(seconds=300, memory=10240 * MIB)
_MOST_LINES = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class Imported:
    """What came of importing.

    Attributes:
        items: name, seconds and error (empty for none) of each import and of ``smoke.py``, up to the first error.
        loaded: modules whose source was loaded, as paths below /opt, in that order.
        output: the end of what was printed.
        problem: what ended it before it was through; empty if nothing did.
    """

    items: tuple[tuple[str, float, str], ...]
    loaded: tuple[str, ...]
    output: tuple[str, ...]
    problem: str

    @property
    def failed(self) -> str:
        """What failed, or an empty text."""
        return next((name for name, _, error in self.items if error), "") or (self.problem and "it")

    def causes(self) -> list[str]:
        """What is worth telling of a failure, a line each."""
        errors = [line for _, _, error in self.items for line in error.rstrip().splitlines()]
        return [*self.output, *errors, *([self.problem] if self.problem else [])][-_MOST_LINES:]


def layer_files(layer: Layer) -> Iterator[SandboxFile]:
    """The files of a layer at /opt."""
    for file in layer.files:
        yield SandboxFile(f"opt/{file.path}", file.mode, file.size, file.content)


def import_spec(target: Target, function: str, **more: Any) -> dict[str, Any]:
    """What a driver is told that is to import modules, as a function of this name."""
    return {
        "timeout": LIMITS.seconds,
        "memory": LIMITS.memory,
        "environment": environment(target, function=function, handler="", memory=LIMITS.memory, region="us-east-1"),
        **more,
    }


def run_imports(
    sandbox: Sandbox,
    target: Target,
    content: Iterable[SandboxFile],
    imports: Sequence[str],
    script: bytes | None,
) -> Imported:
    """Imports modules in a fresh process, without a network.

    Args:
        sandbox: where.
        target: whose environment.
        content: what lies at /opt.
        imports: names of modules.
        script: a program to run after them, or None.

    Raises:
        MachineError: the sandbox cannot be made.
    """
    path = f"/var/task/{SMOKE_SCRIPT}" if script is not None else ""
    spec = import_spec(target, "smoke", kind="import", imports=list(imports), script=path, watch=True)

    def everything() -> Iterator[SandboxFile]:
        yield from content
        if script is not None:
            yield SandboxFile(f"var/task/{SMOKE_SCRIPT}", 0o644, len(script), lambda: script)

    output = ""
    ended: dict[str, Any] = {"imported": "", "ended": "", "code": None}
    for said in sandbox.run(everything(), spec, LIMITS, network="none"):
        if "imported" in said:
            ended = said
        elif "log" in said:
            output = (output + str(said["log"]))[-20_000:]
    return _imported(ended, output)


def _imported(ended: dict[str, Any], output: str) -> Imported:
    items, loaded, problem = read_report(ended)
    return Imported(
        items=items,
        loaded=tuple(path.removeprefix("/opt/") for path in loaded if path.startswith("/opt/")),
        output=tuple(line for line in output.splitlines() if line.strip())[-_MOST_LINES:],
        problem=problem,
    )


def read_report(ended: dict[str, Any]) -> tuple[tuple[tuple[str, float, str], ...], tuple[str, ...], str]:
    """What a process that imported reports, which code of a layer may have written: items, loaded, problem.

    The fields are those of `Imported`; `ended` is what the driver says of the process.
    """
    try:
        report = json.loads(ended["imported"])
        items = tuple((str(name), float(seconds), str(error)) for name, seconds, error in report["items"])
        if not all(math.isfinite(seconds) for _, seconds, _ in items):
            raise ValueError("not a time")
        return items, tuple(str(path) for path in report["loaded"]), ""
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        problem = {
            "time": f"it was ended after {LIMITS.seconds:.0f} seconds",
            "memory": "it was ended, as it took too much memory",
        }.get(str(ended["ended"]), f"it ended without a word (exit code {ended['code']})")
        return (), (), problem
