"""Options that the commands share which talk to AWS or read the catalogue, and what they stand for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from layerbuild.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from layerbuild.catalogue import Catalogue, Version
    from layerbuild.publish.aws import Account


# What S3 and SSM both take.
_TAG_KEY = re.compile(r"[\w .:/=+@-]{1,128}")
_TAG_VALUE = re.compile(r"[\w .:/=+@-]{0,256}")


def _all_of(*decorators: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for one in reversed(decorators):
            function = one(function)
        return function

    return decorate


aws_options = _all_of(
    click.option("--profile", metavar="NAME", help="Profile of the AWS configuration."),
    click.option("--endpoint-url", metavar="URL", help="A server that stands in for AWS."),
    click.option(
        "--timeout", metavar="SECONDS", type=click.FloatRange(min=0.1), default=60, show_default=True,
        help="Time to wait for an answer of AWS.",
    ),
)  # fmt: skip

region_option = click.option(
    "--region", "regions", metavar="REGION", multiple=True,
    help="Where; `all` for every region that the account may use. Repeatable. Else the AWS configuration's.",
)  # fmt: skip

only_region_option = click.option(
    "--region", "regions", metavar="REGION", multiple=True,
    help="Only there, instead of wherever the catalogue has layers. Repeatable.",
)  # fmt: skip

catalogue_option = click.option(
    "--catalogue", "catalogue_path", type=click.Path(path_type=Path, dir_okay=False), default=Path("catalogue.json"),
    show_default=True, help="The file that says what is published.",
)  # fmt: skip

name_option = click.option(
    "--layer-name", "name_template", metavar="TEMPLATE", default="{recipe}-{python}-{arch}", show_default=True,
    help="What layers are called.",
)  # fmt: skip


def make_account(options: dict[str, Any]) -> Account:
    """AWS by `aws_options`, which are taken out of `options`."""
    from layerbuild.publish.aws import Account

    return Account(options.pop("profile"), options.pop("endpoint_url"), options.pop("timeout"))


def chosen_regions(account: Account, regions: Sequence[str]) -> list[str]:
    """The regions that the command line asks for.

    Raises:
        UsageError: it asks for none, or one of them is no region's name.
    """
    if "all" in regions:
        return account.enabled_regions()
    named = list(dict.fromkeys(regions))
    if not named and account.configured_region:
        named = [account.configured_region]
    if not named:
        hint = 'region = ["eu-west-1"] in [publish] of layerbuild.toml, or --region eu-west-1'
        raise UsageError("no-region", "no region is named", hint=hint)
    for name in named:
        account.region(name)
    return named


def tags_of(pairs: Sequence[str]) -> dict[str, str]:
    """``KEY=VALUE`` words as a table.

    Raises:
        UsageError: one is none, or is longer than AWS allows.
    """
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        wrong = not equals or not _TAG_KEY.fullmatch(key) or not _TAG_VALUE.fullmatch(value)
        if wrong or key.lower().startswith("aws:"):
            hint = "such as team=images; up to 128 and 256 letters, digits, spaces and any of + - = . _ : / @"
            raise UsageError("bad-parameter", f"{pair!r} is not a tag", hint=hint)
        found[key] = value
    return found


def read_catalogue(path: Path) -> Catalogue:
    """The catalogue that a command reads.

    Raises:
        UsageError: there is none.
    """
    from layerbuild.catalogue import Catalogue

    if not path.is_file():
        hint = "`layerbuild publish` writes it; --catalogue names another"
        raise UsageError("catalogue-missing", f"there is no {path}: nothing was published from here", hint=hint)
    return Catalogue(path)


def chosen_versions(
    catalogue: Catalogue,
    recipes: Sequence[str],
    patterns: Sequence[str],
    regions: Sequence[str],
    accounts: Sequence[str] = (),
    *,
    every: bool = False,
) -> list[Version]:
    """The versions of a catalogue that the command line asks for: the current ones, or `every` one.

    Raises:
        UsageError: a recipe is not in the catalogue, or a pattern fits no target.
    """
    from layerbuild.errors import nearest
    from layerbuild.target import select_targets

    rows = catalogue.versions(current=not every)
    known = {row.recipe for row in rows}
    for name in recipes:
        if name not in known:
            what = f"{catalogue.path} has no layer of the recipe {name}"
            raise UsageError("not-published", what, causes=[nearest(name, known)] if known else [])
    targets = {str(target) for target in select_targets(patterns)} if patterns else set()
    return [
        row
        for row in rows
        if (not recipes or row.recipe in recipes)
        and (not patterns or row.target in targets or row.target == "any")
        and (not regions or "all" in regions or row.region in regions)
        and (not accounts or row.account in accounts)
    ]
