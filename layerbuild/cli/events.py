"""The command ``events``: sample events, as AWS services send them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from layerbuild.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from click.shell_completion import CompletionItem

    from layerbuild.console import Console

# Most events have them: the table leaves them out.
_COMMON = ("region", "account")


def complete_event(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of events that begin as the user began."""
    from click.shell_completion import CompletionItem

    from layerbuild.sandbox.events import event_kinds

    return [CompletionItem(kind.name) for kind in event_kinds() if kind.name.startswith(incomplete)]


def parameter_values(settings: Iterable[str]) -> dict[str, str]:
    """The values that a repeated ``--set NAME=VALUE`` gives; the last counts.

    Raises:
        UsageError: one of them is not NAME=VALUE.
    """
    values = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not name or not equals:
            raise UsageError("bad-parameter", f"--set {setting!r} is not NAME=VALUE", hint="such as --set key=a.png")
        values[name] = value
    return values


@click.command("events")
@click.argument("name", required=False, shell_complete=complete_event)
@click.option(
    "--set", "settings", metavar="NAME=VALUE", multiple=True, help="Set a parameter of the event. Repeatable."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document.")
@click.pass_obj
def events_command(console: Console, /, *, name: str | None, settings: tuple[str, ...], as_json: bool) -> int:
    """List sample events to try a handler with, or print the event NAME as an AWS service sends it.

    \b
    layerbuild events
    layerbuild events s3-put --set bucket=photos --set key="holiday 1.jpg"
    layerbuild events sqs --set body="$(cat order.json)" > event.json
    """
    from layerbuild.sandbox.events import event_kinds, sample_event

    values = parameter_values(settings)
    if name is not None:
        console.document(sample_event(name, values))
        return 0
    if values:
        raise UsageError("usage", "--set needs the NAME of an event", hint="`layerbuild events` lists them")
    if as_json:
        rows = [
            {
                "name": kind.name,
                "summary": kind.summary,
                "source": kind.source,
                "parameters": [
                    {
                        "name": parameter.name,
                        "kind": parameter.kind,
                        "default": parameter.default,
                        "description": parameter.description,
                    }
                    for parameter in kind.parameters
                ],
            }
            for kind in event_kinds()
        ]
        console.document({"events": rows})
        return 0
    table = [
        [
            kind.name,
            ", ".join(parameter.name for parameter in kind.parameters if parameter.name not in _COMMON),
            kind.summary,
        ]
        for kind in event_kinds()
    ]
    console.table(("event", "parameters", "what it tells"), table)
    console.result("besides region and account, where there are any; --json says what each is")
    return 0
