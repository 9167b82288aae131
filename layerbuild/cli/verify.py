"""``layerbuild verify``."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from layerbuild.cli.aws import aws_options, catalogue_option, make_account, name_option
from layerbuild.cli.options import (
    complete_recipe,
    complete_target,
    container_options,
    make_builders,
    make_prover,
)
from layerbuild.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from layerbuild.cache import Cache
    from layerbuild.catalogue import Version
    from layerbuild.console import Console
    from layerbuild.pipeline import Made
    from layerbuild.publish.download import Published
    from layerbuild.publish.verify import Difference

_SHOWN = 20


@click.command("verify")
@click.argument("arn")
@click.option("--recipe", shell_complete=complete_recipe, help="What it was made of; else by its name.")
@click.option("--target", metavar="TARGET", shell_complete=complete_target, help="What it is for; else by its name.")
@name_option
@click.option(
    "--backend", type=click.Choice(["auto", "namespace", "container"]), default="auto", show_default=True,
    help="What imports run in. auto: namespaces of this machine, or a container whose image is there.",
)  # fmt: skip
@container_options
@catalogue_option
@aws_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document.")
@click.pass_obj
def verify_command(
    console: Console,
    /,
    *,
    arn: str,
    recipe: str | None,
    target: str | None,
    name_template: str,
    backend: str,
    catalogue_path: Path,
    profile: str | None,
    endpoint_url: str | None,
    timeout: float,
    as_json: bool,
    **container: Any,
) -> int:
    """Prove that a published layer version is what a recipe and its lock give: make it again, and compare.

    Whoever publishes layers for others commits recipes and locks; who uses them checks what is in them. Where bytes
    differ, it says which files do, and why. Exit code 1 then.

    \b
    layerbuild verify arn:aws:lambda:eu-west-1:123456789012:layer:pillow:3
    layerbuild verify "$(layerbuild arn pillow --target python3.13-arm64)" --json
    layerbuild verify "$ARN" --recipe pillow --target python3.12-arm64
    """
    from layerbuild.cache import Cache, default_cache_folder
    from layerbuild.cli.summary import verified_summary
    from layerbuild.publish.download import download
    from layerbuild.publish.verify import compare
    from layerbuild.tree import read_tree

    console.as_json = as_json
    account = make_account({"profile": profile, "endpoint_url": endpoint_url, "timeout": timeout})
    cache = Cache(default_cache_folder())  # no shared one: a proof rests on nothing that others can write to
    console.note(f"downloading {arn}")
    published = download(arn, cache, account)
    row = _recorded(catalogue_path, arn)
    if recipe is None or target is None:
        found = (row.recipe, row.target) if row else _origin(arn, name_template, published)
        recipe, target = recipe or found[0], target or found[1]
    there = read_tree(published.path, arn, cache)
    with tempfile.TemporaryDirectory(prefix="layerbuild-") as folder:
        made = _rebuilt(console, cache, recipe, target, Path(folder), backend, container)
        here = read_tree(made.path, str(made.path), cache)
        differences = [] if there.digest == here.digest else compare(there, here)
        same = there.digest == here.digest
    document = {
        "arn": arn,
        "verified": same,
        "recipe": recipe,
        "target": target,
        "code_sha256": {"published": _base64(there.digest), "rebuilt": _base64(here.digest)},
        "mark": _mark_holds(published, made),
        "differences": [one.as_json() for one in differences],
    }
    console.summary(lambda: verified_summary(document))
    console.output_value("changed", "false")
    if console.step and not same:
        text = (
            f"{arn} is not what the recipe {recipe} and its lock for {target} give: {len(differences)} files differ"
        )
        console.annotate([console.step.annotation("error", text, title="layerbuild verify")])
    if as_json:
        console.document(document)
    else:
        _show(console, document, differences)
    return 0 if same else 1


def _base64(digest: str) -> str:
    import base64

    return base64.b64encode(bytes.fromhex(digest)).decode()


def _mark_holds(published: Published, made: Made) -> bool | None:
    """Whether the content that the version claims in its description was made here, too; None without a claim."""
    from layerbuild.publish.release import mark, marked

    claim = marked(published.description)
    return None if claim is None else claim == mark(made.manifest.data["content_digest"])


def _recorded(path: Path, arn: str) -> Version | None:
    from layerbuild.catalogue import Catalogue

    return next((row for row in Catalogue(path).versions() if row.arn == arn), None)


def _origin(arn: str, template: str, published: Published) -> tuple[str, str]:
    from layerbuild.publish.download import parsed_arn
    from layerbuild.publish.verify import origin
    from layerbuild.recipe import recipe_folders
    from layerbuild.target import ARCHITECTURES

    recipes = recipe_folders(Path.cwd())
    architectures = published.architectures or ARCHITECTURES
    return origin(parsed_arn(arn)["name"], template, recipes, published.runtimes, architectures)


def _rebuilt(
    console: Console, cache: Cache, recipe: str, target: str, out: Path, backend: str, container: dict[str, Any]
) -> Made:
    from layerbuild import pipeline
    from layerbuild.index import Index
    from layerbuild.recipe import load_recipe

    loaded = load_recipe(recipe, Path.cwd())
    jobs = pipeline.jobs_of([loaded], [] if target == pipeline.SHARED_LABEL else [target])
    if len(jobs) != 1 or jobs[0].label != target:
        raise UsageError(
            "unknown-target", f"the recipe {recipe} gives no layer for {target}", hint="--target names one"
        )
    index = Index()
    builders = make_builders(console, cache, index, **container)
    prover = make_prover(console, cache, "auto", backend, container["base_image"])
    options = pipeline.Options(
        project=Path.cwd(), out=out, cache=cache, locked=True, base_image=container["base_image"], prover=prover
    )
    with console.progress():
        (outcome,) = pipeline.make(jobs, options, builders, index, console)
    if isinstance(outcome, pipeline.Failed):
        raise outcome.error
    return outcome


def _show(console: Console, document: dict[str, Any], differences: Sequence[Difference]) -> None:
    hashes = document["code_sha256"]
    of = f"the recipe {document['recipe']} and its lock for {document['target']}"
    if document["verified"]:
        console.result(console.styled("verified", "green") + f": {document['arn']}")
        console.paragraph(f"is, byte for byte, what {of} give", indent=2)
        console.paragraph(f"CodeSha256 {hashes['published']}", indent=2)
        if document["mark"] is False:
            console.paragraph("but its description is marked with another content", indent=2)
        return
    console.result(console.styled("differs", "red") + f": {document['arn']}")
    console.paragraph(f"is not what {of} give", indent=2)
    console.paragraph(f"CodeSha256 {hashes['published']} published", indent=2)
    console.paragraph(f"CodeSha256 {hashes['rebuilt']} rebuilt", indent=2)
    if not differences:
        text = "all files are the same: they are packed otherwise, by another layerbuild or with another date"
        console.paragraph(text, indent=2)
    whys: dict[str, list[Difference]] = {}
    for one in differences:
        whys.setdefault(one.why, []).append(one)
    for why, found in whys.items():
        console.paragraph(f"{why} ({len(found)} {'file' if len(found) == 1 else 'files'})", indent=2)
        for one in found[:_SHOWN]:
            only = {"published": " (published only)", "rebuilt": " (rebuilt only)"}.get(one.kind, "")
            console.paragraph(f"{one.path}{only}", indent=4)
        if len(found) > _SHOWN:
            console.paragraph(f"and {len(found) - _SHOWN:,} more, which --json lists", indent=4)
    if differences and all(one.path.endswith((".pyc", ".dist-info/RECORD")) for one in differences):
        console.paragraph("all but bytecode is the same", indent=2)
