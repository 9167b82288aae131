"""``layerbuild publish``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from layerbuild.cli.aws import (
    aws_options,
    catalogue_option,
    chosen_regions,
    make_account,
    name_option,
    region_option,
    tags_of,
)
from layerbuild.cli.options import cache_options, complete_rule, open_cache, recipes_argument, target_option
from layerbuild.console import Console, counted, readable_size
from layerbuild.errors import PublishError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from layerbuild.cache import Cache
    from layerbuild.cli.check import Subject
    from layerbuild.publish.apply import Outcome
    from layerbuild.publish.plan import Step
    from layerbuild.publish.release import Release

_SHOWN = 20
_OF_ARNS = ("layer", "recipe", "target", "region", "version", "arn")
_STYLES = {"create": "green", "share": "yellow", "record": "yellow", "blocked": "red", "failed": "red", "skip": "dim"}


@click.command("publish")
@recipes_argument
@target_option
@region_option
@click.option("--plan", "plan_only", is_flag=True, help="Say what would be done, and what others have changed.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option(
    "--public/--no-public", default=False, help="Let everyone with an AWS account use the versions, and read them."
)
@click.option("--account", "accounts", metavar="ID", multiple=True, help="Let an AWS account use them. Repeatable.")
@click.option("--organization", metavar="ID", help="Let an AWS organisation's accounts use them.")
@click.option("--fix-permissions", is_flag=True, help="Also put right what others have changed about that.")
@name_option
@click.option(
    "--description", metavar="TEMPLATE", default="{packages}", show_default=True,
    help="What versions say of themselves, before the mark of their content.",
)  # fmt: skip
@click.option(
    "--bucket", metavar="TEMPLATE", help="Where zips go that are too large for a request: layers-{account}-{region}."
)
@click.option("--keep-objects", is_flag=True, help="Leave these zips in the bucket.")
@click.option("--tag", "tags", metavar="KEY=VALUE", multiple=True, help="Tag of these zips. Repeatable.")
@click.option("--force", is_flag=True, help="Publish what is there already, too, as new versions.")
@click.option(
    "--ignore", metavar="CODE", multiple=True, shell_complete=complete_rule,
    help="Do not apply a rule of the checks, or a family such as `contents`. Repeatable.",
)  # fmt: skip
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), default=Path("dist"), show_default=True,
    help="Where the archives are.",
)  # fmt: skip
@catalogue_option
@aws_options
@cache_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document.")
@click.pass_obj
def publish_command(
    console: Console,
    /,
    *,
    recipes: tuple[str, ...],
    target: tuple[str, ...],
    regions: tuple[str, ...],
    plan_only: bool,
    yes: bool,
    public: bool,
    accounts: tuple[str, ...],
    organization: str | None,
    fix_permissions: bool,
    name_template: str,
    description: str,
    bucket: str | None,
    keep_objects: bool,
    tags: tuple[str, ...],
    force: bool,
    ignore: tuple[str, ...],
    out: Path,
    catalogue_path: Path,
    as_json: bool,
    **aws: Any,
) -> int:
    """Publish what `make` has made, as layer versions: once for each content, region by region.

    What is there already is skipped; each outcome is in catalogue.json at once. What fails in one region is done
    by the next run. Without RECIPE: every layer in dist/.

    \b
    layerbuild publish --plan                     say what would be done
    layerbuild publish pillow --region eu-west-1 --region us-east-1
    layerbuild publish --region all --public --yes
    layerbuild publish --bucket 'layers-{account}-{region}' --account 123456789012

    Settings in layerbuild.toml, for the other commands about published layers, too:

    \b
    [publish]
    region = ["eu-west-1", "us-east-1"]
    bucket = "layers-{account}-{region}"
    public = true

    Exit code 5 when something is missing in the end.
    """
    from layerbuild.catalogue import Catalogue, one_at_a_time
    from layerbuild.cli.summary import published_summary
    from layerbuild.publish.apply import Publisher, advice, unfinished
    from layerbuild.publish.plan import CHANGES, Wishes
    from layerbuild.publish.release import bucket_name
    from layerbuild.publish.sharing import wanted_grants
    from layerbuild.publish.survey import survey

    console.as_json = as_json
    grants = wanted_grants(public=public, accounts=accounts, organization=organization)
    if bucket:
        bucket_name(bucket, "123456789012", "eu-west-1")
    tag_table = tags_of(tags)
    cache = open_cache(console)
    releases = _releases(console, recipes, target, out, cache, ignore, name_template, description)
    account = make_account(aws)
    where = chosen_regions(account, regions)
    wishes = Wishes(grants=grants, bucket=bucket, force=force, fix=fix_permissions)

    def waiting() -> None:
        console.note(f"another process is publishing by {catalogue_path}: waiting for it")

    outcomes: list[Outcome] = []
    with one_at_a_time(catalogue_path, cache.root / "locks", waiting):
        catalogue = Catalogue(catalogue_path)
        console.note(f"asking {counted(len(where), 'region')} about {counted(len(releases), 'layer')}")
        steps = survey(account, releases, where, catalogue, wishes, grants=plan_only or fix_permissions)
        if not as_json:
            _show_plan(console, steps, account.identity[1])
        if plan_only:
            rows = [step.as_json() for step in steps]
            if as_json:
                console.document(_document(account.identity[1], rows, steps))
            console.summary(lambda: published_summary(rows, account.identity[1], planned=True))
            return _ended(console, unfinished(steps, ()), len(steps), advice(steps, ()), planned=True)
        if as_json and not yes and console.asks:
            raise UsageError("usage", "with --json, nobody can be asked", hint="add --yes, or look at --plan first")
        to_do = [step for step in steps if step.action in CHANGES]
        if to_do and not yes and not console.confirm(f"Do this in account {account.identity[1]}?"):
            console.note("nothing was changed")
            return 0
        publisher = Publisher(account, catalogue, console, keep_objects=keep_objects, tags=tag_table)
        try:
            with console.progress():
                publisher.apply(steps, outcomes)
        finally:
            done = {id(outcome.step): outcome for outcome in outcomes}
            rows = [done[id(step)].as_json() if id(step) in done else _undone(step) for step in steps]
            if console.step:
                _tell_job(console, rows, account.identity[1], catalogue_path)
            if as_json:
                console.document(_document(account.identity[1], rows, steps))
            else:
                _show_outcomes(console, outcomes)
    return _ended(console, unfinished(steps, outcomes), len(steps), advice(steps, outcomes))


def _tell_job(console: Console, rows: list[dict[str, Any]], account: str, catalogue: Path) -> None:
    """Outputs and the summary of the job that this is."""
    from layerbuild.cli.summary import published_summary

    console.summary(lambda: published_summary(rows, account, planned=False))
    arns = [{key: row[key] for key in _OF_ARNS} for row in rows if row["arn"]]
    console.output_value("arns", json.dumps(arns, separators=(",", ":")))
    console.output_value("catalogue", str(catalogue) if catalogue.is_file() else "")
    changed = any(row["status"] == "done" and row["action"] != "skip" for row in rows)
    console.output_value("changed", str(changed).lower())


def _undone(step: Step) -> dict[str, Any]:
    arn = step.version.arn if step.version else None
    status = "done" if step.action == "skip" else "not done"
    return {**step.as_json(), "status": status, "arn": arn, "published_twice": []}


def _document(account: str, rows: list[dict[str, Any]], steps: Sequence[Step]) -> dict[str, Any]:
    from layerbuild.publish.plan import counts

    return {"account": account, "summary": counts(steps), "steps": rows}


def _ended(console: Console, missing: list[str], count: int, advice: list[str], *, planned: bool = False) -> int:
    if not missing:
        return 0
    more = [f"and {len(missing) - _SHOWN} more"] if len(missing) > _SHOWN else []
    hint = "; ".join([*advice, "when that is mended, the same command does only what is missing"])
    what = f"{len(missing)} of {count} {'cannot be' if planned else 'were not'} published"
    error = PublishError("publish-incomplete", what, causes=[*missing[:_SHOWN], *more], hint=hint)
    console.error(error)
    return error.exit_code


def _releases(
    console: Console,
    recipes: Sequence[str],
    patterns: Sequence[str],
    out: Path,
    cache: Cache,
    ignore: Sequence[str],
    name: str,
    description: str,
) -> list[Release]:
    """What is to be published, each checked.

    Raises:
        UsageError: there is nothing, or two layers would have one name.
    """
    from layerbuild.checks import check_selectors
    from layerbuild.cli.check import check_subject, subjects
    from layerbuild.publish.release import release_of, same_names

    check_selectors(ignore)
    words = list(recipes) or [str(path) for path in sorted(out.glob("*.zip"))]
    found: list[Release] = []
    for subject in (subject for word in dict.fromkeys(words) for subject in subjects(word, out, cache)):
        if subject.manifest is None:
            text = f"{subject.path} has no manifest of its own beside it"
            if subject.recipe or recipes:
                raise UsageError("manifest-missing", text, hint="make it again: layerbuild make --force")
            console.warn(f"{text}: it is left out")
            continue
        if patterns and not subject.targets(patterns):
            continue
        if subject.recipe and (stale := _stale(subject)):
            console.warn(f"{subject.path} is not of {stale}: `layerbuild make {subject.recipe.name}` makes it anew")
        report = check_subject(subject, (), cache, {"select": (), "ignore": ignore}, None)
        errors = [one for one in report.findings if one.severity == "error" and one.accepted is None]
        problems = []
        if errors:
            codes = ", ".join(dict.fromkeys(one.code for one in errors))
            problems = [f"checks found errors in it ({codes}); `layerbuild check {subject.path}` says more"]
        found.append(
            release_of(subject.manifest, subject.path, name=name, description=description, problems=problems)
        )
    if not found:
        hint = "make them first: layerbuild make pillow"
        raise UsageError("layer-not-found", f"there are no layers to publish in {out}", hint=hint)
    if twins := same_names(found):
        hint = "let --layer-name tell them apart: {recipe}, {python} and {arch}"
        raise UsageError("bad-layer-name", "two layers would have the same name", causes=twins, hint=hint)
    return found


def _stale(subject: Subject) -> str | None:
    """The lock that an archive should have been made from and was not, if it has one lock of its own."""
    from layerbuild.errors import shown_path
    from layerbuild.lock import find_lock

    targets = subject.targets(())
    if subject.recipe is None or subject.manifest is None or not targets:
        return None
    found = find_lock(subject.recipe, targets[0], Path.cwd())
    if found is None or found[0].digest == subject.manifest["lock_digest"]:
        return None
    return f"the lock {shown_path(found[1])}" if found[1] else "its requirements file"


def _told_of(step: Step) -> tuple[str, ...]:
    from layerbuild.publish.plan import changes_of

    return (*step.reasons, *(step.error.causes if step.error else ()), *changes_of(step))


def _show_plan(console: Console, steps: Sequence[Step], account: str) -> None:
    """The plan: what is to be done for the same reason in the same regions stands together."""
    from layerbuild.publish.plan import ACTIONS, counts, made_public

    regions: dict[tuple[str, str, str, tuple[str, ...]], list[str]] = {}
    for step in steps:
        told = _told_of(step)
        if step.action != "skip" or told:
            name = step.release.name + (f" {step.version.version}" if step.version else "")
            regions.setdefault((step.action, name, readable_size(step.release.size), told), []).append(step.region)
    groups: dict[tuple[str, tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for (action, name, size, told), where in regions.items():
        line = f"{name} ({size})" if action == "create" else name
        groups.setdefault((action, tuple(where), told), []).append(line)
    for (action, places, told), lines in groups.items():
        console.paragraph(f"{action} in {', '.join(places)}", indent=0, styles={action: _STYLES[action]})
        for text in told:
            console.paragraph(f"- {text}", indent=2)
        for line in lines:
            console.result(f"    {line}")
    found = counts(steps)
    told_counts = ", ".join(f"{name} {found[name]:,}" for name in ACTIONS if found[name])
    console.result(f"plan for account {account}: {told_counts}")
    if public := made_public(steps):
        text = f"{counted(len(public), 'version')} will be public: everyone with an AWS account can use and read them"
        console.paragraph(text, indent=0, styles={"public": "yellow"})


def _show_outcomes(console: Console, outcomes: Sequence[Outcome]) -> None:
    rows = [
        [one.step.release.name, one.step.region, str(one.version.version) if one.version else "", one.status]
        for one in outcomes
    ]
    if not rows:
        return
    arns = [one.version.arn if one.version else "" for one in outcomes]
    columns = ["layer", "region", "version", "outcome"]
    console.result("")
    if console.width() >= 40 + max(len(row[0]) for row in rows) + max(map(len, arns)):
        rows, columns = [[*row, arn] for row, arn in zip(rows, arns, strict=True)], [*columns, "arn"]
    console.table(columns, rows, numbers=("version",))
