"""``layerbuild run``."""

from __future__ import annotations

import json
import math
import os
import platform
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from layerbuild.cli.events import complete_event, parameter_values
from layerbuild.cli.options import cache_options, make_sandboxes, open_cache, sandbox_options
from layerbuild.errors import MachineError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from layerbuild.cache import Cache
    from layerbuild.console import Console
    from layerbuild.sandbox import Sandbox
    from layerbuild.sandbox.choose import Sandboxes
    from layerbuild.stack import Stack
    from layerbuild.target import Target

# Lambda's own rule (API: Environment, Variables).
_VARIABLE = re.compile("[a-zA-Z][a-zA-Z0-9_]+")
_MACHINES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}


@click.command("run")
@click.option(
    "--layer", "layers", metavar="LAYER", multiple=True,
    help="A layer as for `stack`, or the one name of a stack in the settings. Repeatable, in order.",
)  # fmt: skip
@click.option("--function", type=click.Path(path_type=Path), help="The function's folder or zip, for /var/task.")
@click.option("--name", help="The function's name, if not that of its folder or zip.")
@click.option("--handler", required=True, metavar="MODULE.FUNCTION", help="What to call, such as app.handler.")
@click.option(
    "--event", "events", metavar="FILE|NAME", multiple=True, shell_complete=complete_event,
    help="A JSON file or text, - for standard input, or a sample of `layerbuild events`. Repeatable: warm starts.",
)  # fmt: skip
@click.option(
    "--set", "settings", metavar="NAME=VALUE", multiple=True, help="Set a parameter of samples. Repeatable."
)
@click.option(
    "--env", "variables", metavar="NAME[=VALUE]", multiple=True,
    help="An environment variable of the function; without a value, this shell's. Repeatable.",
)  # fmt: skip
@click.option("--memory", metavar="MB", type=click.IntRange(128, 10240), default=128, show_default=True)
@click.option("--timeout", metavar="S", type=click.FloatRange(0.1, 900), default=3, show_default=True)
@click.option(
    "--tmp", metavar="MB", type=click.IntRange(512, 10240), default=512, show_default=True, help="Size of /tmp."
)
@click.option(
    "--region", default="us-east-1", show_default=True, help="The region that the function thinks it is in."
)
@click.option("--repeat", metavar="N", type=click.IntRange(1, 10_000), default=1, help="Send the events N times.")
@click.option(
    "--network", type=click.Choice(["bridge", "host", "none"]), default="bridge", show_default=True,
    help="host: a container reaches this machine's loopback, as the other backends always do.",
)  # fmt: skip
@cache_options
@sandbox_options
@click.pass_obj
def run_command(
    console: Console,
    /,
    *,
    layers: tuple[str, ...],
    function: Path | None,
    name: str | None,
    handler: str,
    events: tuple[str, ...],
    settings: tuple[str, ...],
    variables: tuple[str, ...],
    memory: int,
    timeout: float,
    tmp: int,
    region: str,
    repeat: int,
    target: tuple[str, ...],
    backend: str,
    base_image: str | None,
    network: str,
    out: Path,
    as_json: bool,
) -> int:
    """Run a handler as Lambda would: the layers at /opt, the function at /var/task, Lambda's own runtime client.

    The answer goes to standard output, the log to standard error. The function sees no variable of this shell but
    those of --env. Exit code 1 says that the function failed.

    \b
    layerbuild run --layer pillow --function src --handler app.handler
    layerbuild run --function app.zip --handler app.handler \\
        --target python3.13-x86_64 --event event.json --repeat 3
    layerbuild run --layer boto3 --function src --handler app.handler \\
        --event s3-put --set bucket=photos --env AWS_PROFILE --timeout 30
    """
    from layerbuild.builders.host import HostBuilder
    from layerbuild.cli.stack import expanded
    from layerbuild.index import Index
    from layerbuild.sandbox import MIB, Limits
    from layerbuild.sandbox.choose import BACKENDS
    from layerbuild.sandbox.invoke import Function, Invocation, client_files, invoke, stack_files

    console.as_json = as_json
    cache = open_cache(console)
    sandboxes = make_sandboxes(cache, backend, base_image, BACKENDS)
    texts = [_event(one, parameter_values(settings)) for one in events or ("{}",)] * repeat
    if not math.isfinite(timeout):
        raise UsageError("usage", "--timeout is a number of seconds")
    limits = Limits(seconds=timeout, memory=memory * MIB, tmp=tmp * MIB)
    layers, function, target = expanded(console, layers, function, target)
    if function is None:
        raise UsageError("usage", "run needs a --function", hint="a folder or a zip, such as --function src")
    given = Function(
        name=name or function.resolve().stem,
        handler=handler,
        variables=_variables(variables),
        region=region,
        limits=limits,
    )
    stack, sandbox = _place(layers, function, target, out, cache, sandboxes)
    if errors := sum(1 for one in stack.findings() if one.severity == "error" and one.accepted is None):
        console.warn(f"the stack has {errors} {'error' if errors == 1 else 'errors'}, which `layerbuild stack` tells")
    console.note(f"running on {stack.target}, CPython {sandbox.interpreter}, in the {sandbox.name} backend")
    if sandbox.name == "process":
        for difference in sandbox.differences:
            console.warn(difference)
    with console.progress():
        content = [*stack_files(stack), *client_files(HostBuilder(cache, Index(), console), stack.target)]
    ended: list[Invocation] = []
    for said in invoke(sandbox, stack.target, content, given, texts, network=network):
        if isinstance(said, Invocation):
            ended.append(said)
            if not as_json:
                console.result(said.payload)
        else:
            console.note(said)
    if as_json:
        console.document(
            {
                "target": str(stack.target),
                "backend": sandbox.name,
                "interpreter": sandbox.interpreter,
                "differences": list(sandbox.differences),
                "invocations": [one.as_json() for one in ended],
            }
        )
    return 1 if any(one.error for one in ended) else 0


def _event(name: str, values: Mapping[str, str]) -> str:
    """An event as JSON text."""
    from layerbuild.sandbox.invoke import LARGEST_EVENT

    try:
        text = _event_text(name, values)
        # Lambda refuses what is no JSON before the function sees it: InvalidRequestContentException.
        json.loads(text, parse_constant=_no_constant)
        size = len(text.encode())
    except (ValueError, RecursionError) as error:
        raise UsageError("bad-event", f"the event {name[:80]} is not JSON", causes=[str(error)]) from None
    if size > LARGEST_EVENT:
        raise UsageError(
            "bad-event", f"the event {name[:80]} has more than {LARGEST_EVENT:,} bytes, which Lambda takes"
        )
    return text


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _event_text(name: str, values: Mapping[str, str]) -> str:
    from layerbuild.sandbox.events import sample_event

    path = Path(name)
    if name == "-":
        text = sys.stdin.read()
    elif name.lstrip().startswith(("{", "[")):
        text = name
    elif path.suffix == ".json" or path.is_file():
        if not path.is_file():
            raise UsageError("bad-event", f"there is no file {name}", hint="`layerbuild events` lists samples")
        text = path.read_text("utf-8")
    else:
        text = json.dumps(sample_event(name, values))
    return text


def _variables(settings: Sequence[str]) -> dict[str, str]:
    """The environment variables that a repeated ``--env`` gives."""
    from layerbuild.sandbox.invoke import RESERVED

    found = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals and name not in os.environ:
            raise UsageError("usage", f"--env {name}: this shell has no such variable", hint=f"--env {name}=VALUE")
        found[name] = value if equals else os.environ[name]
        if not _VARIABLE.fullmatch(name) and name not in RESERVED:
            hint = "letters, digits and _, beginning with a letter, two at least"
            raise UsageError("usage", f"--env {setting}: Lambda takes no variable of that name", hint=hint)
    return found


def _place(
    layers: Sequence[str], function: Path, patterns: Sequence[str], out: Path, cache: Cache, sandboxes: Sandboxes
) -> tuple[Stack, Sandbox]:
    """The stack to run, and where: of several targets, the newest that this machine runs without emulation."""
    from layerbuild.cli.stack import stacks_of
    from layerbuild.stack import Stack
    from layerbuild.target import default_targets, select_targets
    from layerbuild.tree import read_tree

    if not function.exists():
        raise UsageError("layer-not-found", f"{function} does not exist", hint="--function takes a zip or a folder")
    if layers:
        found = {
            target: one.stack for one in stacks_of(layers, function, patterns, out, cache) for target in one.targets
        }
    else:
        task = read_tree(function, str(function), cache)
        targets = select_targets(patterns) if patterns else default_targets()
        found = {target: Stack(layers=(), target=target, function=task) for target in targets}
    return chosen_stack(found, sandboxes)


def chosen_stack(stacks: Mapping[Target, Stack], sandboxes: Sandboxes) -> tuple[Stack, Sandbox]:
    """One of several targets' stacks, and where to run it: the newest that this machine runs without emulation.

    Raises:
        MachineError: nothing here runs code for any of them.
    """
    own = _MACHINES.get(platform.machine().lower(), "")
    problem: MachineError | None = None
    for target in sorted(stacks, key=lambda one: (one.arch == own, one.runtime.version), reverse=True):
        try:
            return _of_target(stacks[target], target), sandboxes.find(target)
        except MachineError as error:
            problem = problem or error
    raise problem or UsageError("usage", "there is no target to run on", hint="say it: --target python3.13-arm64")


def _of_target(stack: Stack, target: Target) -> Stack:
    from dataclasses import replace

    return stack if stack.target == target else replace(stack, target=target)
