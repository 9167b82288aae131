"""``layerbuild diff``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from layerbuild.cli.options import cache_options, complete_target, open_cache
from layerbuild.console import Console, readable_size
from layerbuild.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from layerbuild.cache import Cache
    from layerbuild.diff import Difference, Side
    from layerbuild.target import Target

_KINDS = (".zip", ".json", ".txt")
_STYLES = {"added": "green", "removed": "red", "changed": "yellow", "rebuilt": "yellow", "same": "dim"}


@click.command("diff")
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@click.option(
    "--target", metavar="TARGET", shell_complete=complete_target,
    help="Of locks whose names do not say it.",
)  # fmt: skip
@click.option(
    "--format", "form", type=click.Choice(["text", "markdown", "json"]), default="text", show_default=True,
    help="markdown is for pull requests.",
)  # fmt: skip
@click.option("--exit-code", is_flag=True, help="Exit 1 when they differ.")
@cache_options
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.pass_obj
def diff_command(
    console: Console, /, *, old: Path, new: Path, target: str | None, form: str, exit_code: bool, as_json: bool
) -> int:
    """Say what changed between two layers: packages, sizes, findings.

    OLD and NEW are archives, manifests or locks, or folders of them, where those of the same name are compared.

    \b
    layerbuild diff old/web-python3.13-arm64.zip dist/web-python3.13-arm64.zip
    layerbuild diff before/ dist/ --format markdown >> "$GITHUB_STEP_SUMMARY"
    layerbuild diff old.txt new.txt --target python3.13-arm64
    """
    from layerbuild.diff import as_json as document
    from layerbuild.diff import as_markdown, compare

    console.as_json = as_json or form == "json"
    cache = open_cache(console)
    differences = [
        compare(name, *(_side(path, target, cache) if path else None for path in pair))
        for name, pair in _pairs(old, new).items()
    ]
    if console.as_json:
        console.document(document(differences))
    elif form == "markdown":
        console.text(as_markdown(differences, readable_size).removesuffix("\n"))
    else:
        _show(console, differences)
    return int(exit_code and any(one.status != "same" for one in differences))


def _pairs(old: Path, new: Path) -> dict[str, tuple[Path | None, Path | None]]:
    """What is compared with what, by name."""
    for path in (old, new):
        if not path.exists():
            raise UsageError(
                "layer-not-found", f"there is no {path}", hint="name archives, manifests, locks or folders"
            )
    if old.is_dir() != new.is_dir():
        what = f"{old} and {new} are not of one kind: a folder is compared with a folder"
        raise UsageError("usage", what)
    if not old.is_dir():
        return {new.stem if old.name == new.name else f"{old.name} → {new.name}": (old, new)}
    found = [_files(folder) for folder in (old, new)]
    names = sorted(found[0].keys() | found[1].keys())
    if not names:
        raise UsageError("layer-not-found", f"there is no archive, manifest or lock in {old} and {new}")
    return {name: (found[0].get(name), found[1].get(name)) for name in names}


def _files(folder: Path) -> dict[str, Path]:
    """The layers in a folder by their names: of an archive and its manifest the archive."""
    found: dict[str, Path] = {}
    for suffix in reversed(_KINDS):
        for path in sorted(folder.rglob(f"*{suffix}")):
            found[path.relative_to(folder).with_suffix("").as_posix()] = path
    return found


def _side(path: Path, target: str | None, cache: Cache) -> Side:
    """One side, by the kind of its file."""
    if path.suffix == ".zip" or path.is_dir():
        return _archive(path, cache)
    return _manifest(path) if path.suffix == ".json" else _lock(path, target)


def _archive(path: Path, cache: Cache) -> Side:
    from layerbuild.cli.check import check_subject, subjects
    from layerbuild.diff import Side

    (subject,) = subjects(str(path), path.parent, cache)
    report = check_subject(subject, (), cache, {"select": (), "ignore": ()}, None)
    return Side(
        packages={one.normal_name: one.version for one in subject.tree.distributions},
        zipped=report.zipped,
        unzipped=report.unzipped,
        findings=report.findings,
        digest=subject.tree.digest,
    )


def _manifest(path: Path) -> Side:
    from layerbuild.archive import Manifest
    from layerbuild.diff import Side
    from layerbuild.lock import normal_name

    manifest = Manifest.read(path)
    if manifest is None:
        raise UsageError("manifest-invalid", f"{path} is not the manifest of a layer, or was damaged")
    data = manifest.data
    return Side(
        packages={normal_name(one["name"]): one["version"] for one in data["distributions"]},
        zipped=data["zipped"],
        unzipped=data["unzipped"],
        digest=data["code_sha256"],
    )


def _lock(path: Path, target: str | None) -> Side:
    from layerbuild.diff import Side
    from layerbuild.lock import read_lock

    lock = read_lock(path, _target_of(path, target))
    return Side(packages={pin.name: pin.version for pin in lock.pins}, digest=lock.digest)


def _target_of(path: Path, target: str | None) -> Target:
    from layerbuild.target import all_targets, select_targets

    if target:
        return select_targets([target])[0]
    known = {str(one): one for one in all_targets()}
    if path.stem in known:
        return known[path.stem]
    what = f"{path} does not say by its name what it is for"
    raise UsageError("usage", what, hint="--target python3.13-arm64")


def _show(console: Console, differences: Sequence[Difference]) -> None:
    from layerbuild.diff import sizes

    for one in differences:
        if one.status == "same" and len(differences) > 1:
            continue
        head = f"{one.name}  {one.status}"
        console.paragraph(head, indent=0, styles={one.status: _STYLES[one.status]})
        lines = [f"{name} {old} → {new}" for name, old, new in one.changed]
        lines += [f"+ {name} {version}" for name, version in one.added]
        lines += [f"- {name} {version}" for name, version in one.removed]
        for field in ("zipped", "unzipped"):
            if text := sizes(one, field, readable_size):
                lines.append(f"{field}: {text}")
        lines += [f"new {severity}: {text} [{code}]" for severity, code, text in one.new_findings]
        lines += [f"gone {severity}: {text} [{code}]" for severity, code, text in one.gone_findings]
        for line in lines:
            console.paragraph(line, indent=2)
    same = sum(one.status == "same" for one in differences)
    if same and len(differences) > 1:
        console.result(f"{same} of {len(differences)} are the same")
