"""``layerbuild list``, ``arn`` and ``export``: what the catalogue says, for people, scripts and other tools."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from layerbuild.cli.aws import (
    aws_options,
    catalogue_option,
    chosen_versions,
    make_account,
    only_region_option,
    read_catalogue,
    tags_of,
)
from layerbuild.cli.options import complete_recipe, complete_target, recipes_argument, target_option
from layerbuild.console import Console, readable_size
from layerbuild.errors import LayerbuildError, PublishError, UsageError

if TYPE_CHECKING:
    from layerbuild.catalogue import Catalogue, Version
    from layerbuild.publish.aws import Account

# As PutParameter takes names, with room for the rest.
_PREFIX = re.compile(r"(/[a-zA-Z0-9_.-]+){1,10}")
_FILES = ("json", "csv", "sam", "cloudformation", "cdk", "terraform")

_account_option = click.option("--account", "accounts", metavar="ID", multiple=True, help="Only this AWS account's.")


@click.command("list")
@recipes_argument
@target_option
@only_region_option
@_account_option
@click.option("--all-versions", is_flag=True, help="Older versions, too.")
@catalogue_option
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document.")
@click.pass_obj
def list_command(
    console: Console,
    /,
    *,
    recipes: tuple[str, ...],
    target: tuple[str, ...],
    regions: tuple[str, ...],
    accounts: tuple[str, ...],
    all_versions: bool,
    catalogue_path: Path,
    as_json: bool,
) -> int:
    """Say what is published where, by the catalogue.

    \b
    layerbuild list
    layerbuild list pillow --region eu-west-1
    layerbuild list --all-versions --json
    """
    console.as_json = as_json
    catalogue = read_catalogue(catalogue_path)
    rows = chosen_versions(catalogue, recipes, target, regions, accounts, every=all_versions)
    if as_json:
        versions = [
            {**asdict(row), "content": asdict(content)} for row in rows if (content := catalogue.content(row))
        ]
        console.document({"versions": versions})
        return 0
    groups: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        groups.setdefault(_told(catalogue, row), []).append(row.region)
    columns = ("layer", "version", "size", "shared with", "packages", "regions")
    lines = [[*told, ", ".join(where)] for told, where in groups.items()]
    console.table(columns, lines, numbers=("version", "size"))
    return 0


def _told(catalogue: Catalogue, row: Version) -> tuple[str, ...]:
    """What the list says of a version, which may be the same in several regions."""
    content = catalogue.content(row)
    packages = content.packages if content else ()
    more = f" +{len(packages) - 1}" if len(packages) > 1 else ""
    shared = ", ".join(grant.rpartition(":")[2] for grant in row.shared) or "-"
    number = f"{row.version}{'' if row.current else ' (old)'}"
    return row.name, number, readable_size(row.size), shared, f"{packages[0] if packages else ''}{more}"


@click.command("arn")
@click.argument("recipe", shell_complete=complete_recipe)
@click.option("--target", metavar="TARGET", shell_complete=complete_target, help="Of this target.")
@click.option("--region", metavar="REGION", help="Of this region; else the AWS configuration's.")
@click.option("--account", metavar="ID", help="Of this AWS account.")
@catalogue_option
@click.pass_obj
def arn_command(
    console: Console,
    /,
    *,
    recipe: str,
    target: str | None,
    region: str | None,
    account: str | None,
    catalogue_path: Path,
) -> int:
    """Print the ARN of a recipe's current version, alone on a line.

    \b
    layerbuild arn pillow --target python3.13-arm64 --region eu-west-1
    aws lambda update-function-configuration --function-name thumbs \\
      --layers "$(layerbuild arn pillow --target python3.13-arm64)"
    """
    from layerbuild.publish.aws import Account

    region = region or Account().configured_region
    catalogue = read_catalogue(catalogue_path)
    accounts = [account] if account else []
    rows = chosen_versions(catalogue, [recipe], [target] if target else [], [region] if region else [], accounts)
    if len(rows) == 1:
        console.result(rows[0].arn)
        return 0
    if not rows:
        place = " ".join(filter(None, (target and f"for {target}", region and f"in {region}")))
        raise UsageError(
            "not-published", f"{recipe} is not published {place}".rstrip(), hint=f"layerbuild list {recipe}"
        )
    what = f"{len(rows)} layers of {recipe} fit"
    causes = [f"{row.target} in {row.region} of {row.account}" for row in rows[:10]]
    raise UsageError("usage", what, causes=causes, hint="say which: --target, --region, --account")


@click.command("export")
@recipes_argument
@target_option
@only_region_option
@_account_option
@click.option(
    "--format", "form", type=click.Choice([*_FILES, "ssm"]), default="json", show_default=True,
    help="ssm writes parameters to AWS, the others print a file.",
)  # fmt: skip
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="File to write, instead of printing it."
)
@click.option("--prefix", default="/layerbuild", show_default=True, help="What names of parameters begin with.")
@click.option("--tag", "tags", metavar="KEY=VALUE", multiple=True, help="Tag of parameters. Repeatable.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask before writing parameters.")
@catalogue_option
@aws_options
@click.pass_obj
def export_command(
    console: Console,
    /,
    *,
    recipes: tuple[str, ...],
    target: tuple[str, ...],
    regions: tuple[str, ...],
    accounts: tuple[str, ...],
    form: str,
    output: Path | None,
    prefix: str,
    tags: tuple[str, ...],
    yes: bool,
    catalogue_path: Path,
    **aws: Any,
) -> int:
    """Hand what is published to other tools: the current version of each layer.

    \b
    layerbuild export --format csv
    layerbuild export pillow --format sam -o template.yaml
    layerbuild export --format terraform -o layers.tf.json
    layerbuild export --format ssm --yes
    """
    catalogue = read_catalogue(catalogue_path)
    rows = chosen_versions(catalogue, recipes, target, regions, accounts)
    if form == "ssm":
        return _write_parameters(console, catalogue, rows, prefix, tags_of(tags), make_account(aws), yes=yes)
    from layerbuild.cache import write_text
    from layerbuild.catalogue.export import FORMATS

    text = FORMATS[form]([(row, content) for row in rows if (content := catalogue.content(row))])
    if output is None:
        console.text(text.removesuffix("\n"))
        return 0
    write_text(output, text)
    console.note(f"made {output}")
    return 0


def _write_parameters(
    console: Console,
    catalogue: Catalogue,
    rows: list[Version],
    prefix: str,
    tags: dict[str, str],
    account: Account,
    *,
    yes: bool,
) -> int:
    """Writes the ARN of each layer into a parameter of its region, where it is not there yet."""
    from layerbuild.catalogue.export import parameter_name
    from layerbuild.publish.storage import Parameters
    from layerbuild.publish.survey import in_regions

    if not _PREFIX.fullmatch(prefix) or prefix.lower().startswith(("/aws", "/ssm")):
        hint = "such as /layerbuild or /shared/layers; AWS keeps /aws and /ssm for itself"
        raise UsageError("bad-parameter", f"{prefix!r} cannot begin the names of parameters", hint=hint)
    number = account.identity[1]
    names = {(row.region, parameter_name(row, prefix)): row for row in rows if row.account == number}
    wanted: dict[str, list[str]] = {}
    for region, name in names:
        wanted.setdefault(region, []).append(name)
    present: dict[str, dict[str, str]] = {}
    problems: list[str] = []
    written: list[str] = []

    def look(region: str) -> None:
        try:
            present[region] = Parameters(account.region(region)).values(wanted[region])
        except LayerbuildError as error:
            problems.append(f"{region}: {error.what}")

    def write(key: tuple[str, str]) -> None:
        region, name = key
        row, content = names[key], catalogue.content(names[key])
        description = f"{', '.join(content.packages) if content else row.recipe} for {row.target}"[:1024]
        try:
            new = name not in present[region]
            Parameters(account.region(region)).put(name, row.arn, description, tags, new=new)
        except LayerbuildError as error:
            problems.append(f"{name} in {region}: {error.what}")
            return
        written.append(name)
        console.note(f"wrote {name} in {region}")

    in_regions({region: [region] for region in wanted}, look)
    changes = {
        region: [(region, name) for name in found if present[region].get(name) != names[region, name].arn]
        for region, found in wanted.items()
        if region in present
    }
    for region, name in (key for keys in changes.values() for key in keys):
        before = present[region].get(name)
        console.result(f"{name} in {region}: {names[region, name].arn}{f', was {before}' if before else ''}")
    count = sum(map(len, changes.values()))
    if count and not yes and not console.confirm(f"Write {count} parameters in account {number}?"):
        console.note("nothing was changed")
        return 0
    in_regions(changes, write, lambda: console.warn("finishing what is under way"))
    right = sum(len(found) for region, found in wanted.items() if region in present) - count
    console.note(f"{len(written)} parameters written, {right} were right")
    if not problems:
        return 0
    error = PublishError("export-incomplete", "not all parameters were written", causes=sorted(problems))
    console.error(error)
    return error.exit_code
