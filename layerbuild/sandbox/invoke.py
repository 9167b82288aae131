"""Invocations: a real handler, run by Lambda's own runtime client, with layers at /opt."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from layerbuild.errors import MachineError, UsageError
from layerbuild.layer import Place, compose
from layerbuild.lock import parse_lock
from layerbuild.recipe import Prune
from layerbuild.sandbox import MIB, Limits, SandboxFile, environment
from layerbuild.sandbox.events import partition

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from layerbuild.builders.host import HostBuilder
    from layerbuild.sandbox import Sandbox
    from layerbuild.stack import Stack
    from layerbuild.target import Target
    from layerbuild.tree import Tree

# AWS Lambda quotas: an invocation's payload, and what a function may be given. /tmp and memory are in MB.
LARGEST_EVENT = 6 * MIB
LONGEST_SECONDS = 900
MEMORY, TMP = (128, 10240), (512, 10240)
ACCOUNT = "123456789012"

# What a function cannot set (AWS documentation, "Using environment variables"); credentials it can have from --env.
RESERVED = (
    *("_HANDLER", "_X_AMZN_TRACE_ID", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_EXECUTION_ENV", "LAMBDA_TASK_ROOT"),
    *("LAMBDA_RUNTIME_DIR", "AWS_LAMBDA_RUNTIME_API", "AWS_LAMBDA_INITIALIZATION_TYPE", "AWS_LAMBDA_METADATA_API"),
    *(f"AWS_LAMBDA_FUNCTION_{name}" for name in ("NAME", "MEMORY_SIZE", "VERSION")),
    *(f"AWS_LAMBDA_LOG_{name}_NAME" for name in ("GROUP", "STREAM")),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Function:
    """A function: its name, handler, own environment variables and region; what it may use."""

    name: str
    handler: str
    variables: Mapping[str, str] = field(default_factory=dict)
    region: str = "us-east-1"
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        taken = sorted(set(self.variables) & set(RESERVED))
        if taken:
            raise UsageError("reserved-variable", f"Lambda lets no function set {', '.join(taken)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Invocation:
    """How an invocation ended, as Lambda reports it.

    Attributes:
        payload: the answer, as text; JSON unless the handler's own serializer made it.
        error: ``Unhandled`` where the function failed, else None (X-Amz-Function-Error).
        error_type: such as ``Runtime.ImportModuleError``; None where there is none.
        request: its id.
        log: what Lambda would log, whole lines.
        milliseconds, init_milliseconds: how long it took, and the init phase before it, if there was one.
        memory: the most that it used, in MB.
    """

    payload: str
    error: str | None
    error_type: str | None
    request: str
    log: tuple[str, ...]
    milliseconds: float
    init_milliseconds: float | None
    memory: int

    def as_json(self) -> dict[str, Any]:
        """The invocation as it appears in ``--json`` output."""
        return {
            "status_code": 200,
            "function_error": self.error,
            "error_type": self.error_type,
            "payload": _json_value(self.payload),
            "request_id": self.request,
            "duration_ms": self.milliseconds,
            "init_duration_ms": self.init_milliseconds,
            "memory_mb": self.memory,
            "log": list(self.log),
        }


def _json_value(text: str) -> Any:
    """A payload as JSON; as text where it is none, or one that not every reader takes (NaN, absurd depth)."""
    try:
        value = json.loads(text)
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        return text
    return value


def client_files(host: HostBuilder, target: Target) -> Iterator[SandboxFile]:
    """Lambda's runtime client at /var/runtime: verified wheels of the index, for the target.

    Raises:
        BuildError: there is none for the target.
    """
    text = files("layerbuild").joinpath("sandbox", "client.txt").read_text("utf-8")
    wheels = host.wheels(parse_lock(text, target, "client.txt"), target)
    place = Place(site="var/runtime", interpreter=f"/var/lang/bin/{target.runtime.name}")
    for file in compose(wheels, place, prune=Prune()).files:
        yield SandboxFile(file.path, file.mode, file.size, file.content)


def tree_files(tree: Tree, root: str, paths: Iterable[str] | None = None) -> Iterator[SandboxFile]:
    """The files and links of a tree below a root, such as ``opt``; or those at `paths` only."""
    for path in tree.entries if paths is None else paths:
        entry = tree.entries[path]
        mode = 0o644 if entry.mode is None else entry.mode
        if entry.kind == "symlink":
            yield SandboxFile(f"{root}/{path}", mode, 0, None, str(entry.facts.get("target", "")))
        elif entry.kind == "file":
            yield SandboxFile(f"{root}/{path}", mode, entry.size, lambda path=path: tree.read(path))  # type: ignore[misc]


def stack_files(stack: Stack) -> Iterator[SandboxFile]:
    """What lies at /opt and /var/task: of each path that several layers carry, the last layer's."""
    for path, number in stack.winners.items():
        yield from tree_files(stack.layers[number], "opt", [path])
    if stack.function:
        yield from tree_files(stack.function, "var/task")


def invoke(
    sandbox: Sandbox,
    target: Target,
    content: Iterable[SandboxFile],
    function: Function,
    events: Sequence[str],
    *,
    network: str,
) -> Iterator[str | Invocation]:
    """Invokes a function once for each event, in one process as long as that lives.

    Args:
        sandbox: where.
        target: the function's runtime and architecture.
        content: what lies at /opt, /var/task and /var/runtime.
        function: what to run.
        events: JSON texts.
        network: see `Sandbox.run`.

    Yields:
        Lines of the log as they come, and after each invocation how it ended.

    Raises:
        MachineError: the sandbox cannot be made, or broke off.
    """
    limits = function.limits
    surroundings = environment(
        target,
        function=function.name,
        handler=function.handler,
        memory=limits.memory,
        region=function.region,
    )
    spec = {
        "kind": "invoke",
        "events": list(events),
        "ids": [str(uuid.uuid4()) for _ in events],
        "timeout": limits.seconds,
        "memory": limits.memory,
        "version": "$LATEST",
        "arn": f"arn:{partition(function.region)}:lambda:{function.region}:{ACCOUNT}:function:{function.name}",
        "environment": {**surroundings, **function.variables},
    }
    lines, done = _Lines(), 0
    for said in sandbox.run(content, spec, limits, network=network):
        if "result" in said:
            yield from lines.end()
            done += 1
            yield _invocation(said, lines.taken())
        elif "report" in said:
            yield from lines.end()
            yield from lines.add(f"{said['report']}\n")
        else:
            yield from lines.add(str(said.get("log", said)))
    if done != len(events):
        raise MachineError("sandbox-failed", "the sandbox broke off", causes=lines.taken()[-5:])


def _invocation(said: dict[str, Any], log: tuple[str, ...]) -> Invocation:
    """What a driver says of an invocation; what it cannot have said comes from the function."""
    init, error, error_type = said.get("init"), said.get("error"), said.get("error_type")
    try:
        return Invocation(
            payload=str(said["result"]),
            error=None if error is None else str(error),
            error_type=None if error_type is None else str(error_type),
            request=str(said["id"]),
            log=log,
            milliseconds=float(said["duration"]),
            init_milliseconds=None if init is None else float(init),
            memory=int(said["memory"]),
        )
    except (KeyError, TypeError, ValueError):
        raise MachineError("sandbox-failed", "the sandbox was tampered with", causes=[str(said)[:200]]) from None


class _Lines:
    """Text that comes in pieces, as lines; they are kept until they are taken."""

    def __init__(self) -> None:
        self._rest = ""
        self._kept: list[str] = []

    def add(self, text: str) -> Iterator[str]:
        # The client ends lines within a message by carriage returns; a last one may be half of a line's end.
        text = self._rest + text
        held = "\r" if text.endswith("\r") else ""
        text = text.removesuffix("\r").replace("\r\n", "\n").replace("\r", "\n")
        *whole, self._rest = text.split("\n")
        self._rest += held
        self._kept += whole
        yield from whole

    def end(self) -> Iterator[str]:
        if self._rest:
            yield from self.add("\n")

    def taken(self) -> tuple[str, ...]:
        kept, self._kept = tuple(self._kept), []
        return kept
