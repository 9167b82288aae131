"""``layerbuild action``: what ``action.yml`` calls."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from layerbuild.console import Console


@click.group("action", hidden=True)
def action_command() -> None:
    """Do what the inputs of the GitHub Actions step say, which are in the environment as INPUT_COMMAND and so on.

    \b
    layerbuild action prepare    which interpreters it wants, and what it caches
    layerbuild action run        the command itself
    """


@action_command.command("prepare")
@click.pass_obj
def prepare_command(console: Console, /) -> int:
    """Set the outputs pythons, cache-folder, cache-key and cache-prefix of the step.

    \b
    INPUT_COMMAND=make INPUT_RECIPES=pillow layerbuild action prepare
    """
    from layerbuild.cache import default_cache_folder
    from layerbuild.cli.action_inputs import cache_names, inputs_of, layers_of, pythons

    inputs = inputs_of(os.environ)
    layers = layers_of(inputs, Path.cwd())
    names = {
        "pythons": "\n".join(pythons(inputs, layers)),
        "cache-folder": str(default_cache_folder()) if inputs.get("cache") == "github" else "",
        **cache_names(inputs, layers, Path.cwd(), os.environ),
    }
    for name, value in names.items():
        console.output_value(name, value)
        console.note(f"{name}: {' '.join(value.split())}")
    return 0


@action_command.command("run")
@click.pass_obj
def run_command(console: Console, /) -> int:
    """Run the command line that the inputs stand for.

    \b
    INPUT_COMMAND=make INPUT_RECIPES='pillow boto3' layerbuild action run
    """
    import shlex

    from layerbuild.cli import run
    from layerbuild.cli.action_inputs import command_lines, inputs_of

    code = 0
    for arguments in command_lines(inputs_of(os.environ), os.environ):
        console.note(f"$ layerbuild {shlex.join(arguments)}")
        code = max(code, run(arguments))
    return code
