"""What the inputs of the GitHub Actions step stand for: command lines, interpreters, what is cached."""

from __future__ import annotations

import hashlib
import shlex
from typing import TYPE_CHECKING

from layerbuild import __version__
from layerbuild.errors import BuildError, UsageError, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from layerbuild.pipeline import Job

# The commands, and the inputs that each takes beside `recipes`, `args`, and those that every step has.
COMMANDS = {
    "make": ("targets", "requirements", "name", "builder"),
    "check": ("targets",),
    "publish": ("targets", "regions"),
    "lock": ("targets", "requirements", "name", "builder"),
    "verify": ("builder",),
}
_INPUTS = ("command", "recipes", "targets", "requirements", "name", "builder", "regions", "args", "cache")
_BUILDERS = ("auto", "host", "container")
_SEVERAL = {"targets": "--target", "regions": "--region"}
_ONE = {"requirements": "--requirements", "name": "--name", "builder": "--builder"}
# Those that run code of layers, or compile it.
_RUN_CODE = ("make", "lock", "verify")


def inputs_of(environment: Mapping[str, str]) -> dict[str, str]:
    """The inputs that are not empty, by their names.

    Args:
        environment: has each as ``INPUT_COMMAND`` and so on.

    Raises:
        UsageError: one is not as it should be, or does not go with the command.
    """
    found = {name: environment.get(f"INPUT_{name.upper()}", "").strip() for name in _INPUTS}
    inputs = {name: value for name, value in found.items() if value}
    command = inputs.setdefault("command", "make")
    if command not in COMMANDS:
        raise UsageError("bad-input", f"command: there is no {command!r} here", causes=[nearest(command, COMMANDS)])
    for name in (*_ONE, *_SEVERAL):
        if name in inputs and name not in COMMANDS[command]:
            known = ", ".join(other for other, takes in COMMANDS.items() if name in takes)
            raise UsageError("bad-input", f"{command} takes no input {name}", causes=[f"it goes with {known}"])
    if inputs.get("builder", "auto") not in _BUILDERS:
        raise UsageError("bad-input", f"builder cannot be {inputs['builder']!r}", causes=[nearest("", _BUILDERS)])
    cache = inputs.setdefault("cache", "github")
    if cache not in ("github", "off") and not cache.startswith("s3://"):
        raise UsageError(
            "bad-input", f"cache cannot be {cache!r}", causes=["it is github, off, or s3://BUCKET/PREFIX"]
        )
    if command == "verify" and not inputs.get("recipes"):
        raise UsageError("bad-input", "verify needs the ARNs of layer versions", hint="recipes: arn:aws:lambda:…")
    return inputs


def command_lines(inputs: Mapping[str, str], environment: Mapping[str, str]) -> list[list[str]]:
    """The command lines that inputs stand for, one after the other: no input can become an option but ``args``.

    Args:
        inputs: of `inputs_of`.
        environment: says whether this is for a pull request, which fills no cache that others share.

    Raises:
        UsageError: ``args`` has a quote that nothing closes.
    """
    command, words = inputs["command"], inputs.get("recipes", "").split()
    options = [f"{option}={inputs[name]}" for name, option in _ONE.items() if name in inputs]
    for name, option in _SEVERAL.items():
        options += [f"{option}={word}" for word in inputs.get(name, "").split()]
    if inputs["cache"].startswith("s3://") and command != "verify":  # a proof rests on nothing that others can write
        options.append(f"--cache={inputs['cache']}")
        if environment.get("GITHUB_EVENT_NAME", "").startswith(("pull_request", "merge_group")):
            options.append("--cache-read-only")
    if command in ("make", "lock") and not words and "requirements" not in inputs:
        options.append("--all")
    try:
        options += shlex.split(inputs.get("args", ""))
    except ValueError as error:
        raise UsageError("bad-input", "args cannot be split into words", causes=[str(error)]) from None
    if command == "verify":
        return [[command, *options, "--", word] for word in words]
    return [[command, *options, *(["--", *words] if words else [])]]


def pythons(inputs: Mapping[str, str], jobs: Sequence[Job]) -> list[str]:
    """The CPythons that import and compile these layers, such as ``3.13``, the oldest first; none if nothing does."""
    command, options = inputs["command"], inputs.get("args", "")
    if command not in _RUN_CODE and not (command == "check" and "--import" in options):
        return []
    if (command == "lock" and "--check" in options) or ("--smoke off" in options and "--bytecode off" in options):
        return []
    versions = {target.runtime.version for job in jobs for target in job.targets}
    return ["{}.{}".format(*version) for version in sorted(versions)]


def cache_names(
    inputs: Mapping[str, str], jobs: Sequence[Job], project: Path, environment: Mapping[str, str]
) -> dict[str, str]:
    """The key that a cache of GitHub's is kept under, which changes with the locks, and the prefix of older ones."""
    from layerbuild.lock import find_lock

    digest = hashlib.sha256(inputs["command"].encode())
    for job in jobs:
        for target in job.targets:
            try:
                found = find_lock(job.recipe, target, project)
            except BuildError:  # the command itself says what is wrong with it, or mends it
                found = None
            digest.update(f"{job.recipe.name} {target} {found[0].digest if found else ''}\n".encode())
    machine = "-".join(environment.get(name, "any") for name in ("RUNNER_OS", "RUNNER_ARCH"))
    prefix = f"layerbuild-{__version__}-{machine}-"
    return {"cache-key": prefix + digest.hexdigest()[:20], "cache-prefix": prefix}


def layers_of(inputs: Mapping[str, str], project: Path) -> list[Job]:
    """The layers that the inputs are about: of commands that name no recipes, all that there are.

    Empty where they cannot be told: what is wrong is for the command itself to say, if that minds.
    """
    from layerbuild.cli.options import chosen_recipes
    from layerbuild.pipeline import jobs_of

    makes = inputs["command"] in ("make", "lock")
    words = inputs.get("recipes", "").split() if makes else []
    requirements = inputs.get("requirements")
    try:
        chosen, own = chosen_recipes(
            words,
            all_recipes=not words and requirements is None,
            requirements=project / requirements if requirements else None,
            name=inputs.get("name"),
        )
        return jobs_of(chosen, inputs.get("targets", "").split(), own)
    except UsageError:
        return []
