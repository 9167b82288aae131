"""The command line: parses, calls the library, renders. One module per group of commands."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from layerbuild import __version__
from layerbuild.console import Console
from layerbuild.errors import InternalError, LayerbuildError, SourceLine, UsageError, machine_error, nearest
from layerbuild.process import redact

if TYPE_CHECKING:
    from collections.abc import Sequence

# Commands about what is published, and the settings of `publish` that hold for them as well.
_ABOUT_PUBLISHED = ("verify", "list", "export", "prune", "iam-policy", "arn")
_COMMON = ("layer-name", "bucket", "catalogue", "profile", "endpoint-url", "timeout", "tag")

# Command to the module that holds it, which is imported when it is called or its help is shown, and what it does.
_COMMANDS = {
    "make": ("make", "Make layers: a zip and a manifest per recipe and target."),
    "lock": ("lock", "Lock every package's version and hashes, per target."),
    "check": ("check", "Say whether layers would load on Lambda."),
    "stack": ("stack", "Say what several layers on one function do to each other."),
    "diff": ("diff", "Say what changed between two layers, locks or folders."),
    "matrix": ("matrix", "Deal out what is to be built to many machines."),
    "recipes": ("recipes", "List recipes: yours, and those that came with layerbuild."),
    "new": ("recipes", "Write a recipe for a package."),
    "init": ("init", "Begin a repository of recipes, with workflows for GitHub."),
    "run": ("invoke", "Run a handler as Lambda would, with layers at /opt."),
    "profile": ("profile", "Say what imports cost a cold start."),
    "events": ("events", "List or print sample events to try a handler with."),
    "publish": ("publish", "Publish layers, region by region, once for each content."),
    "verify": ("verify", "Prove that a published layer is what its recipe gives."),
    "list": ("published", "List what is published where."),
    "arn": ("published", "Print the ARN of a recipe's current version."),
    "export": ("published", "Write what is published for SAM, CDK, Terraform and others."),
    "prune": ("prune", "Delete old versions that no function uses any more."),
    "iam-policy": ("iam_policy", "Print the least IAM policy for what is configured."),
    "runtimes": ("machine", "List Lambda's Python runtimes and what they accept."),
    "cache": ("machine", "Show where the cache is and what it holds."),
    "completion": ("machine", "Print the script that completes commands in a shell."),
}
# What action.yml calls is no command for people.
_MODULES = {name: module for name, (module, _) in _COMMANDS.items()} | {"action": "action"}


class Commands(click.Group):
    """The group of all commands; each is imported when needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order in which a user meets them."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, if there is one."""
        if cmd_name not in _MODULES:
            return None
        name = f"{cmd_name.replace('-', '_')}_command"
        command: click.Command = getattr(importlib.import_module(f"layerbuild.cli.{_MODULES[cmd_name]}"), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, what) for name, (_, what) in _COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click, but names the commands nearest to one that does not exist."""
        if args and args[0] not in _MODULES and not args[0].startswith("-") and not ctx.resilient_parsing:
            raise UsageError(
                "unknown-command", f"there is no command {args[0]!r}", causes=[nearest(args[0], _COMMANDS)]
            )
        return super().resolve_command(ctx, args)


@click.command(
    cls=Commands,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "auto_envvar_prefix": "LAYERBUILD",
        "max_content_width": 100,
    },
    epilog="Settings: [make], [lock] … tables in layerbuild.toml, or [tool.layerbuild.make] in pyproject.toml, "
    "give options their defaults; so do variables such as LAYERBUILD_MAKE_OUT.",
)
@click.version_option(__version__, prog_name="layerbuild")
@click.option("--quiet", "-q", is_flag=True, help="Print results, warnings and errors only.")
@click.option("--debug", is_flag=True, help="Show a traceback with an error.")
@click.pass_context
def layerbuild(ctx: click.Context, *, quiet: bool, debug: bool) -> None:
    """Build AWS Lambda layers for Python: locked, reproducible, right for their runtime.

    \b
    layerbuild make pillow              make a layer from a recipe
    layerbuild make -r reqs.txt --name web
    layerbuild lock --all --upgrade     take newer versions into the locks
    layerbuild check pillow             say whether it would load on Lambda
    layerbuild stack pillow boto3       say what layers do to each other
    layerbuild run --layer pillow --function src --handler app.handler
    layerbuild profile pillow           say what its imports cost a cold start
    layerbuild publish --plan           say what would be published where
    layerbuild COMMAND --help           says more, with examples
    """
    ctx.meta["layerbuild.debug"] = debug
    console = ctx.ensure_object(Console)
    console.quiet = quiet
    ctx.default_map, console.stacks = _settings(Path.cwd())


def _settings(project: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Defaults of options, and the stacks, from the project's settings file.

    Raises:
        UsageError: it is not TOML, or names a command or option that does not exist.
    """
    own, shared = project / "layerbuild.toml", project / "pyproject.toml"
    path = own if own.is_file() else shared
    if not path.is_file():
        return {}, {}
    try:
        return _settings_of(path)
    except UsageError as error:
        error.lines = (SourceLine(path=path),)
        raise


def _settings_of(path: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    import tomllib

    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UsageError("settings-invalid", f"{path} is not TOML", causes=[str(error)]) from None
    if path.name == "pyproject.toml":
        tool = data.get("tool", {})
        data = tool.get("layerbuild", {}) if isinstance(tool, dict) else {}
    if not isinstance(data, dict):
        raise UsageError("settings-invalid", f"{path}: tool.layerbuild is not a table")
    stacks = data.pop("stacks", {})
    if not isinstance(stacks, dict):
        raise UsageError("settings-invalid", f"{path}: stacks is not a table")
    for name, table in stacks.items():
        _check_stack(path, name, table)
    found = {command: _command_settings(path, command, table) for command, table in data.items()}
    for command in _ABOUT_PUBLISHED if "publish" in data else ():
        keys = (*_COMMON, *(("region",) if command != "arn" else ()))
        common = {key: data["publish"][key] for key in keys if key in data["publish"] and key in _parameters(command)}
        found[command] = _command_settings(path, command, common) | found.get(command, {})
    return found, stacks


_STACK_KEYS: dict[str, type] = {"layers": list, "target": list, "function": str}


def _check_stack(path: Path, name: str, table: Any) -> None:
    """Refuses a stack of the settings that is not ``layers = […]``, with ``function`` and ``target`` besides."""
    if not isinstance(table, dict) or not table.get("layers"):
        what = f'{path}: stacks.{name} needs layers = ["…", "…"]'
        raise UsageError(
            "settings-invalid", what, hint="layers are named in the order in which a function lists them"
        )
    for key, value in table.items():
        kind = _STACK_KEYS.get(key)
        if kind is None:
            raise UsageError(
                "settings-invalid", f"{path}: stacks.{name} has no key {key!r}", causes=[nearest(key, _STACK_KEYS)]
            )
        strings = isinstance(value, list) and all(isinstance(item, str) for item in value)
        if not (isinstance(value, str) if kind is str else strings):
            wanted = "a list of strings" if kind is list else "a string"
            raise UsageError("settings-invalid", f"{path}: stacks.{name}.{key} must be {wanted}, not {value!r}")


def _command_settings(path: Path, command: str, table: Any) -> dict[str, Any]:
    if command not in _COMMANDS or not isinstance(table, dict):
        known = nearest(command, _COMMANDS)
        raise UsageError("settings-invalid", f"{path}: there is no command {command!r}", causes=[known])
    parameters = _parameters(command)
    for key, value in table.items():
        if key not in parameters:
            raise UsageError(
                "settings-invalid",
                f"{path}: {command} has no option {key!r}",
                causes=[nearest(key, parameters)],
            )
        _check_setting(f"{path}: {command}.{key}", parameters[key], value)
    # As words of a command line, which every option can read.
    return {
        str(parameters[key].name): value if isinstance(value, bool) else _as_words(value)
        for key, value in table.items()
    }


def _parameters(command: str) -> dict[str, click.Parameter]:
    """The options of a command by their names without dashes."""
    return {
        option.removeprefix("--"): parameter
        for parameter in layerbuild.get_command(click.Context(layerbuild), command).params  # type: ignore[union-attr]
        for option in parameter.opts
        if option.startswith("--")
    }


def _check_setting(name: str, parameter: click.Parameter, value: Any) -> None:
    several = isinstance(parameter, click.Option) and parameter.multiple
    numbers = (click.types.IntParamType, click.types.FloatParamType)
    kinds = (int, float) if isinstance(parameter.type, numbers) else (str, bool)
    if several is not isinstance(value, list) or not all(
        isinstance(item, kinds) for item in (value if several else [value])
    ):
        wanted = "a list of strings" if several else "a number" if kinds[0] is int else "a string"
        if isinstance(parameter.type, click.types.BoolParamType):
            wanted = "true or false"
        raise UsageError("settings-invalid", f"{name} must be {wanted}, not {value!r}")


def _as_words(value: Any) -> str | list[str]:
    return [str(item) for item in value] if isinstance(value, list) else str(value)


def run(arguments: Sequence[str]) -> int:
    """Runs one command line.

    Returns:
        The exit code: 0 fine, 1 findings, 2 usage or recipe, 3 lock or build, 4 environment,
        5 publish incomplete, 70 a bug, 130 interrupted.
    """
    debug = "--debug" in arguments or bool(os.environ.get("LAYERBUILD_DEBUG"))
    # A command may learn of it in another way, such as from the settings.
    console = Console(as_json="--json" in arguments)
    try:
        code = layerbuild.main(list(arguments), prog_name="layerbuild", standalone_mode=False, obj=console)
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        told: LayerbuildError = UsageError("usage", error.format_message())
        if console.step:
            console.error(told)
        else:
            error.show(sys.stderr)
        return _ended(console, told, arguments)
    except (KeyboardInterrupt, click.Abort):
        return console.interrupted()
    except BrokenPipeError:
        # The reader of our output has gone: so do we, without Python complaining when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except Exception as error:
        if debug:
            console.traceback(error)
        told = _told(error)
        console.error(told)
        return _ended(console, told, arguments)


def _ended(console: Console, error: LayerbuildError, arguments: Sequence[str]) -> int:
    """What an error that ends a command leaves behind; returns the exit code."""
    if console.as_json:
        console.document({"error": error.as_json()})
    if console.step:
        from layerbuild.cli.summary import failed_summary

        command = next((word for word in arguments if not word.startswith("-")), "")
        console.summary(lambda: failed_summary(error, f"layerbuild {command}".rstrip()))
    return error.exit_code


def _told(error: Exception) -> LayerbuildError:
    """The error as a user is told of it."""
    if isinstance(error, LayerbuildError):
        return error
    if isinstance(error, OSError):
        return machine_error(error)
    return InternalError(
        "internal-error",
        "something went wrong that layerbuild does not expect",
        causes=[redact(f"{type(error).__name__}: {error}")],
        hint="this is a bug: please report it with what the same command says with `layerbuild --debug`",
    )
