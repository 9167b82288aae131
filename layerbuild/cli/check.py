"""``layerbuild check``."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from layerbuild.cli.options import ISOLATED, cache_options, complete_rule, complete_target, make_sandboxes, open_cache
from layerbuild.console import Console, readable_size
from layerbuild.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from layerbuild.cache import Cache
    from layerbuild.checks import Finding
    from layerbuild.publish.download import Published
    from layerbuild.recipe import Recipe
    from layerbuild.report import Report
    from layerbuild.sandbox.choose import Sandboxes
    from layerbuild.target import Target
    from layerbuild.tree import Tree

FORMATS = ("text", "json", "sarif", "github")
_STYLES = {"error": "red", "warning": "yellow", "note": "dim"}
_SHOWN = 12


def finding_options(function: Any) -> Any:
    """The options of all commands that print findings."""
    for decorate in (
        click.option("--json", "as_json", is_flag=True, help="The same as --format json."),
        click.option(
            "--format",
            "form",
            type=click.Choice(FORMATS),
            default="text",
            show_default=True,
            help="sarif is for code scanning, github for annotations in a workflow.",
        ),
        click.option("--strict", is_flag=True, help="Exit 1 on warnings, too."),
        click.option(
            "--ignore",
            metavar="CODE",
            multiple=True,
            shell_complete=complete_rule,
            help="Leave out a rule, or a family such as `contents`. Repeatable.",
        ),
        click.option(
            "--select",
            metavar="CODE",
            multiple=True,
            shell_complete=complete_rule,
            help="Only this rule or family. Repeatable.",
        ),
    ):
        function = decorate(function)
    return function


@click.command("check")
@click.argument("layers", metavar="[LAYER]...", nargs=-1)
@click.option(
    "--target", metavar="PATTERN", multiple=True, shell_complete=complete_target,
    help="What a layer is for, if it does not say so itself. Repeatable.",
)  # fmt: skip
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), default=Path("dist"), show_default=True,
    help="Where the archives of recipes are.",
)  # fmt: skip
@click.option("--import", "imports", is_flag=True, help="Import what the recipes name, too, as a function would.")
@click.option(
    "--backend", type=click.Choice(["auto", "namespace", "container"]), default="auto", show_default=True,
    help="What imports run in. auto: namespaces of this machine, or a container whose image is there.",
)  # fmt: skip
@click.option(
    "--base-image", metavar="IMAGE", help="Image of containers instead of AWS's; {python} and {arch} are filled in."
)
@cache_options
@finding_options
@click.option("--list-rules", is_flag=True, help="Print every rule with its cause and its fix.")
@click.pass_obj
def check_command(
    console: Console,
    /,
    *,
    layers: tuple[str, ...],
    target: tuple[str, ...],
    out: Path,
    imports: bool,
    backend: str,
    base_image: str | None,
    list_rules: bool,
    **shown: Any,
) -> int:
    """Say whether layers would load on Lambda: zips, folders laid out as /opt, recipes, ARNs.

    Without LAYER: every archive in dist/ and every stack of the settings.

    \b
    layerbuild check pillow                          the archives made of a recipe
    layerbuild check layer.zip --target python3.12-x86_64
    layerbuild check build/opt/ --strict --ignore contents-no-dist-info
    layerbuild check arn:aws:lambda:eu-west-1:123456789012:layer:pillow:7
    layerbuild check pillow --import --target 'python3.13-*'
    layerbuild check --format sarif > layerbuild.sarif

    Exit code 1 when there are errors, with --strict also when there are warnings.
    """
    prepare(console, shown)
    if list_rules:
        return _list_rules(console)
    cache = open_cache(console)
    given = list(layers) or [str(path) for path in sorted(out.glob("*.zip"))]
    stacks = [] if layers else sorted(console.stacks)
    if not given and not stacks:
        raise UsageError(
            "usage", f"there is nothing to check in {out}", hint="name a zip, a folder, a recipe or an ARN"
        )
    found = [
        subject
        for name in given
        for subject in subjects(name, out, cache)
        if not (target and subject.manifest and not subject.targets(target))
    ]
    if given and not found:
        raise UsageError("unknown-target", f"no archive is for {', '.join(target)}", hint="leave --target out")
    sandboxes = make_sandboxes(cache, backend, base_image, ISOLATED) if imports else None
    reports = _without_idle([check_subject(subject, target, cache, shown, sandboxes) for subject in found], found)
    if stacks:
        from layerbuild.cli.stack import named_stack

        for name in stacks:
            reports += named_stack(console, name, target, out, cache, shown)
    return show(console, reports, shown)


class Subject:
    """A layer as the command line named it: its files, its place, and what is known of it besides.

    `uri` names it in reports that are about files.
    """

    def __init__(
        self,
        tree: Tree,
        path: Path,
        recipe: Recipe | None = None,
        arn: str = "",
        published: Published | None = None,
    ) -> None:
        self.tree = tree
        self.path = path
        self.recipe = recipe
        self.arn = arn
        self.published = published

    @property
    def uri(self) -> str:
        """Its file; an ARN stands for itself."""
        return self.arn or self.path.as_posix()

    @property
    def identity(self) -> str | None:
        """What versions of one layer have in common; None where that is unknown."""
        if self.arn:
            return self.arn.rpartition(":")[0]
        return str(self.manifest["recipe"]) if self.manifest else str(self.path.resolve())

    @cached_property
    def manifest(self) -> dict[str, Any] | None:
        """What stands beside the archive, if that is of these very bytes."""
        from layerbuild.archive import Manifest

        manifest = Manifest.read(self.path.with_suffix(".json")) if self.path.suffix == ".zip" else None
        digest = bytes.fromhex(self.tree.digest)
        return manifest.data if manifest and manifest.is_of(digest, self.tree.zipped) else None

    def targets(self, patterns: Sequence[str]) -> tuple[Target, ...]:
        """What the layer is for, by its manifest, what the user says, or its content.

        Of a layer with a manifest `patterns` choose, perhaps nothing.
        """
        from layerbuild.checks import inferred_targets
        from layerbuild.target import ARCHITECTURES, select_targets, targets_named

        if data := self.manifest:
            told = targets_named(data["runtimes"], data["architectures"])
            return tuple(target for target in told if not patterns or target in select_targets(patterns))
        if patterns:
            return select_targets(patterns)
        found = inferred_targets(self.tree)
        if not found and self.published:
            # Without architectures it is for all that its content allows.
            return targets_named(self.published.runtimes, self.published.architectures or ARCHITECTURES)
        return found


def subjects(name: str, out: Path, cache: Cache) -> Iterator[Subject]:
    """The layers that a word of the command line stands for.

    Raises:
        UsageError: it stands for none.
    """
    from layerbuild.recipe import load_recipe, recipe_folders
    from layerbuild.target import all_targets
    from layerbuild.tree import read_tree

    if name.startswith("arn:"):
        from layerbuild.publish.download import download

        published = download(name, cache)
        yield Subject(read_tree(published.path, name, cache), published.path, arn=name, published=published)
        return
    path = Path(name)
    looks_like_a_path = path.suffix == ".zip" or os.sep in name or path.exists()
    if not looks_like_a_path and name in recipe_folders(Path.cwd()):
        recipe = load_recipe(name, Path.cwd())
        archives = [out / f"{name}-any.zip", *(out / f"{name}-{target}.zip" for target in all_targets())]
        found = [path for path in archives if path.is_file()]
        if not found:
            what = f"{out} has no archive of the recipe {name}"
            raise UsageError("layer-not-found", what, hint=f"layerbuild make {name}")
        yield from (Subject(read_tree(path, str(path), cache), path, recipe) for path in found)
        return
    if not name:
        raise UsageError("usage", "a layer has no empty name", hint="name a zip, a folder, a recipe or an ARN")
    inside = sorted(path.glob("*.zip")) if path.is_dir() and not (path / "python").exists() else []
    for one in inside or [path]:
        subject = Subject(read_tree(one, str(one) if inside else name, cache), one)
        made_of = subject.manifest["recipe"] if subject.manifest else None
        if made_of in recipe_folders(Path.cwd()):
            subject.recipe = load_recipe(made_of, Path.cwd())
        yield subject


def check_subject(
    subject: Subject, patterns: Sequence[str], cache: Cache, shown: dict[str, Any], sandboxes: Sandboxes | None
) -> Report:
    """What the checks say of a layer; `shown` has the rules to ``select`` and to ``ignore``."""
    from layerbuild import checks
    from layerbuild.checks.size import largest
    from layerbuild.report import Report

    targets = subject.targets(patterns)
    recipe = subject.recipe
    budget = recipe.size_budget if recipe else None
    key = f"{subject.tree.digest} {' '.join(map(str, targets))} {budget}"
    found = checks.known_findings(
        key, cache if subject.tree.digest else None, lambda: checks.check_layer(subject.tree, targets, budget=budget)
    )
    if sandboxes:
        from layerbuild.proof import import_findings
        from layerbuild.sandbox.invoke import tree_files

        found = [*found, *import_findings(lambda: tree_files(subject.tree, "opt"), recipe, targets, sandboxes)]
    if recipe:
        found = checks.accept(found, recipe.accept)
    return Report(
        subject=subject.tree.name,
        kind="layer",
        uri=subject.uri,
        targets=tuple(map(str, targets)),
        findings=tuple(checks.select(found, shown["select"], shown["ignore"])),
        zipped=subject.tree.zipped,
        unzipped=subject.tree.unzipped,
        largest=tuple(largest(subject.tree)),
        source=recipe.source if recipe else None,
    )


def _without_idle(reports: Sequence[Report], checked: Sequence[Subject]) -> list[Report]:
    """The reports without ``accept-unused`` where the accept is of use to another archive of the recipe."""
    used = {
        (subject.recipe.name, finding.code)
        for report, subject in zip(reports, checked, strict=True)
        for finding in report.findings
        if subject.recipe and finding.accepted is not None
    }
    kept = []
    for report, subject in zip(reports, checked, strict=True):
        name = subject.recipe.name if subject.recipe else ""
        idle = [one for one in report.findings if one.code == "accept-unused" and (name, one.about) in used]
        kept.append(replace(report, findings=tuple(one for one in report.findings if one not in idle)))
    return kept


def prepare(console: Console, shown: dict[str, Any]) -> None:
    """Settles how findings are shown; refuses rules that do not exist."""
    from layerbuild.checks import check_selectors

    if shown.pop("as_json"):
        shown["form"] = "json"
    console.as_json = shown["form"] == "json"
    check_selectors([*shown["select"], *shown["ignore"]])


def show(console: Console, reports: Sequence[Report], shown: dict[str, Any]) -> int:
    """Prints reports in the form that was asked for; returns the exit code."""
    from layerbuild import report
    from layerbuild.cli.summary import reports_summary

    match shown["form"]:
        case "json":
            console.document(report.as_json(reports))
        case "sarif":
            console.document(report.as_sarif(reports))
        case "github":
            console.commands(report.as_github(reports, console.step))
        case _:
            for one in reports:
                show_report(console, one)
            if console.step:
                telling = [one for one in reports if one.count("error") or one.count("warning")]
                console.annotate(report.as_github(telling, console.step))
    console.summary(lambda: reports_summary(reports))
    console.output_value("changed", "false")
    return int(report.failed(reports, strict=shown["strict"]))


def show_report(console: Console, report: Report) -> None:
    """A report for people: what was found, grouped by rule, each with what to do."""
    zipped = f"{readable_size(report.zipped)} zipped, " if report.zipped is not None else ""
    targets = ", ".join(report.targets) if len(report.targets) <= 2 else f"{len(report.targets)} targets"
    for_targets = f", for {targets}" if targets else ""
    sizes = f"  {zipped}{readable_size(report.unzipped)} unzipped{for_targets}"
    console.paragraph(report.subject + sizes, indent=0, styles={report.subject: "bold"})
    if report.largest and not console.quiet:
        rows = ", ".join(f"{name} {readable_size(size)}" for name, size in report.largest)
        console.paragraph(f"largest: {rows}", indent=2)
    groups: dict[tuple[str, str, str | None], list[Finding]] = {}
    for finding in report.findings:
        groups.setdefault((finding.severity, finding.code, finding.accepted), []).append(finding)
    for (severity, code, accepted), found in groups.items():
        _show_group(console, severity, code, accepted, found)
    told = [f"{count} {name}{'' if count == 1 else 's'}" for name in _STYLES if (count := report.count(name))]
    console.result("  " + (", ".join(told) if told else console.styled("no findings", "green")))


def _show_group(console: Console, severity: str, code: str, accepted: str | None, found: list[Finding]) -> None:
    from layerbuild.checks import rules

    head, style = (f"{severity}:", _STYLES[severity]) if accepted is None else ("accepted:", "dim")
    styles = {head: style, f"[{code}]": "dim"}
    console.paragraph(f"{head} {rules()[code].summary} [{code}]", indent=2, styles=styles)
    if accepted is not None:
        console.paragraph(f"because {accepted}", indent=4)
        return
    for finding in found[:_SHOWN]:
        where = f"{finding.place}: " if finding.path else ""
        only = f" [{', '.join(finding.targets)}]" if finding.targets else ""
        console.paragraph(f"{where}{finding.message}{finding.whose}{only}", indent=4)
    if len(found) > _SHOWN:
        console.paragraph(f"and {len(found) - _SHOWN:,} more, which --json lists", indent=4)
    for fix in dict.fromkeys(finding.fix for finding in found):
        console.paragraph(f"fix: {fix}", indent=4)


def _list_rules(console: Console) -> int:
    from layerbuild.checks import rules

    if console.as_json:
        keys = ("code", "severity", "summary", "cause", "fix")
        console.document({"rules": [{key: getattr(rule, key) for key in keys} for rule in rules().values()]})
        return 0
    for rule in rules().values():
        console.result(
            console.styled(rule.code, "bold") + f"  {console.styled(rule.severity, _STYLES[rule.severity])}"
        )
        for text in (rule.summary, rule.cause, f"fix: {rule.fix}"):
            console.paragraph(text, indent=2)
    return 0
