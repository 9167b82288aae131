"""``layerbuild prune``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from layerbuild.cli.aws import (
    aws_options,
    catalogue_option,
    chosen_regions,
    chosen_versions,
    make_account,
    only_region_option,
    read_catalogue,
)
from layerbuild.cli.options import recipes_argument, target_option
from layerbuild.errors import LayerbuildError, PublishError

if TYPE_CHECKING:
    from pathlib import Path

    from layerbuild.console import Console
    from layerbuild.publish.prune import Verdict


@click.command("prune")
@recipes_argument
@target_option
@only_region_option
@click.option(
    "--keep", metavar="N", type=click.IntRange(min=1), default=3, show_default=True,
    help="Versions of each layer and region that stay, the newest.",
)  # fmt: skip
@click.option(
    "--min-age", metavar="DAYS", type=click.IntRange(min=0), default=30, show_default=True,
    help="Younger versions stay.",
)  # fmt: skip
@click.option("--yes", "-y", is_flag=True, help="Delete them; without it, they are only listed.")
@catalogue_option
@aws_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document.")
@click.pass_obj
def prune_command(
    console: Console,
    /,
    *,
    recipes: tuple[str, ...],
    target: tuple[str, ...],
    regions: tuple[str, ...],
    keep: int,
    min_age: int,
    yes: bool,
    catalogue_path: Path,
    as_json: bool,
    **aws: Any,
) -> int:
    """Delete old versions of layers that no function uses any more.

    The newest stay, and the ones that recipes stand for, and all that any version of any function in the account and
    region has; functions of other accounts cannot be seen. A function that has a deleted version goes on working,
    but cannot be changed before it gets another.

    \b
    layerbuild prune                          say what would go
    layerbuild prune --keep 2 --min-age 90 --yes
    layerbuild prune pillow --region eu-west-1 --yes
    """
    from datetime import UTC, datetime, timedelta

    from layerbuild.cache import Cache, default_cache_folder
    from layerbuild.catalogue import one_at_a_time
    from layerbuild.publish.prune import Pruner
    from layerbuild.publish.survey import in_regions

    console.as_json = as_json
    account = make_account(aws)
    locks = Cache(default_cache_folder()).root / "locks"
    now = datetime.now(UTC)
    with one_at_a_time(catalogue_path, locks, lambda: console.note("another process is publishing: waiting for it")):
        catalogue = read_catalogue(catalogue_path)
        number = account.identity[1]
        rows = chosen_versions(catalogue, recipes, target, (), [number], every=True)
        where = chosen_regions(account, regions) if regions else sorted({row.region for row in rows})
        names = {region: sorted({row.name for row in rows if row.region == region}) for region in where}
        pruner = Pruner(account, catalogue, keep=keep, min_age=timedelta(days=min_age))
        found: dict[str, list[Verdict]] = {}
        failed: dict[str, LayerbuildError] = {}

        def look(region: str) -> None:
            try:
                found[region] = pruner.plan(region, names[region], now)
            except LayerbuildError as error:
                failed[region] = error

        in_regions({region: [region] for region in where if names[region]}, look)
        verdicts = [verdict for region in where for verdict in found.get(region, ())]
        going = [verdict for verdict in verdicts if verdict.reason is None]
        try:
            if yes and going:
                work: dict[str, list[Verdict]] = {}
                for verdict in going:
                    work.setdefault(verdict.region, []).append(verdict)
                in_regions(work, pruner.delete, lambda: console.warn("finishing what is under way"))
        finally:
            _show(console, number, verdicts, failed)
    return _ended(console, going, failed, applied=yes)


def _show(console: Console, account: str, verdicts: list[Verdict], failed: dict[str, LayerbuildError]) -> None:
    if console.as_json:
        regions = [{"region": region, **error.as_json()} for region, error in sorted(failed.items())]
        console.document({"account": account, "versions": [one.as_json() for one in verdicts], "failed": regions})
        return
    from layerbuild.publish.prune import NEWEST

    rows = [
        [one.name, one.region, str(one.version.version), one.version.published[:10], _told(one)]
        for one in verdicts
        if one.reason != NEWEST
    ]
    if rows:
        console.table(("layer", "region", "version", "published", ""), rows, numbers=("version",))


def _told(verdict: Verdict) -> str:
    if verdict.reason:
        return f"stays: {verdict.reason}"
    return {"planned": "goes", "deleted": "deleted", "failed": "could not be deleted"}[verdict.status]


def _ended(console: Console, going: list[Verdict], failed: dict[str, LayerbuildError], *, applied: bool) -> int:
    problems = [f"{region}: {error.what}" for region, error in sorted(failed.items())]
    problems += [f"{one.name} {one.version.version} in {one.region}: {one.error.what}" for one in going if one.error]
    if going and not applied:
        console.note(f"{len(going)} would be deleted: --yes does it")
    elif not going and not problems:
        console.note("nothing is to be deleted")
    if not problems:
        return 0
    hint = "run the same command again when that is mended"
    error = PublishError("prune-incomplete", "not all could be looked at, or deleted", causes=problems, hint=hint)
    console.error(error)
    return error.exit_code
