"""What commands add to the summary of a job of GitHub Actions, as Markdown."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from layerbuild.console import readable_size
from layerbuild.github import markdown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from layerbuild.checks import Finding
    from layerbuild.errors import LayerbuildError
    from layerbuild.pipeline import Failed, Made
    from layerbuild.report import Report

_BAR = 10
# More of them nobody reads; the log and --json have all.
_ROWS = 200
_ITEMS = 20
_MARKS = {"error": "❌", "warning": "⚠️", "note": "📝"}


def made_summary(made: Sequence[Made], failed: Sequence[Failed], limit: int) -> str:
    """The layers that `make` has made, and why others could not be made; `limit` is Lambda's, in unzipped bytes."""
    rows = [
        [
            markdown(one.manifest.data["recipe"]),
            f"`{one.manifest.data['target']}`",
            readable_size(one.manifest.data["zipped"]),
            readable_size(one.manifest.data["unzipped"]),
            size_bar(one.manifest.data["unzipped"], limit),
            str(len(one.manifest.data["distributions"])),
            one.manifest.data["smoke"]["status"],
            "up to date" if one.status == "up-to-date" else f"{one.seconds:.2f} s",
        ]
        for one in made
    ]
    columns = ("layer", "target", "zipped", "unzipped", "of Lambda's limit", "packages", "imports", "time")
    parts = [
        f"### layerbuild make: {_counted(len(made), 'layer')}",
        _table(columns, rows, "zipped unzipped packages time"),
    ]
    if failed:
        parts.append(f"❌ **{_counted(len(failed), 'layer')} could not be made**")
        parts += [_problem(one.error, f"{one.job.recipe.name} for {one.job.label}") for one in failed[:_ITEMS]]
        parts += _more(len(failed) - _ITEMS)
    return _joined([*parts, _findings([(one.job.name, finding) for one in made for finding in one.findings])])


def reports_summary(reports: Sequence[Report]) -> str:
    """What checks have found, layer by layer."""
    rows = [
        [
            markdown(one.subject),
            "" if one.zipped is None else readable_size(one.zipped),
            readable_size(one.unzipped),
            ", ".join(f"{_MARKS[name]} {_counted(count, name)}" for name in _MARKS if (count := one.count(name)))
            or "✅ none",
        ]
        for one in reports
    ]
    parts = ["### layerbuild check", _table(("layer", "zipped", "unzipped", "findings"), rows, "zipped unzipped")]
    found = [(one, finding) for one in reports for finding in one.findings if finding.accepted is None]
    return _joined([*parts, _findings([(one.subject, finding) for one, finding in found])])


def _findings(found: Iterable[tuple[str, Finding]]) -> str:
    """What was found, as a list: the worst first; what is the same for several layers once."""
    about: dict[Finding, list[str]] = {}
    for name, finding in found:
        about.setdefault(replace(finding, targets=()), []).append(name)
    rows = sorted(about.items(), key=lambda row: list(_MARKS).index(row[0].severity))
    lines = [
        f"- {_MARKS[one.severity]} {markdown(f'{_few(names)}: {_sentence(one)}')} `{one.code}`" for one, names in rows
    ]
    return "\n".join([*lines[:_ROWS], *_more(len(lines) - _ROWS)])


def _few(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _sentence(finding: Finding) -> str:
    return f"{finding.place}: {finding.message}{finding.whose}" if finding.path else finding.message + finding.whose


def locked_summary(rows: Sequence[Mapping[str, Any]], failed: Sequence[Failed]) -> str:
    """The locks that `lock` has written, and those that it could not."""
    table = [[markdown(row["recipe"]), f"`{row['target']}`"] for row in rows if row["changed"]]
    parts = [f"### layerbuild lock: {len(table)} of {len(rows)} written", _table(("recipe", "target"), table)]
    parts += [_problem(one.error, f"{one.job.recipe.name} for {one.job.label}") for one in failed[:_ITEMS]]
    return _joined([*parts, *_more(len(failed) - _ITEMS)])


def fits_summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """Which locks no longer fit, and why."""
    misfits = [row for row in rows if not row["fits"]]
    table = [[markdown(row["recipe"]), f"`{row['target']}`", markdown("; ".join(row["problems"]))] for row in misfits]
    title = f"### layerbuild lock --check: {len(rows) - len(misfits)} of {len(rows)} fit"
    return _joined([title, _table(("recipe", "target", "what does not fit"), table)])


def published_summary(rows: Sequence[Mapping[str, Any]], account: str, *, planned: bool) -> str:
    """What `publish` has done, or would do: its steps, as JSON has them."""
    table = [
        [
            markdown(row["layer"]),
            row["region"],
            "" if row["version"] is None else str(row["version"]),
            row["action"] if planned or row["action"] == "skip" else f"{row['action']}: {row['status']}",
            f"`{row['arn']}`" if row.get("arn") else "",
        ]
        for row in rows
    ]
    title = f"### layerbuild publish{' --plan' if planned else ''}: account {account}"
    problems = [
        f"- ❌ {markdown(row['layer'])} in {row['region']}: {markdown(row['error']['what'])} `{row['error']['code']}`"
        for row in rows
        if row.get("error")
    ]
    parts = [title, _table(("layer", "region", "version", "outcome", "ARN"), table, "version")]
    if problems:
        parts.append("\n".join([*problems[:_ITEMS], *_more(len(problems) - _ITEMS)]))
    return _joined(parts)


def verified_summary(document: Mapping[str, Any]) -> str:
    """Whether a published version is what its recipe gives; the document of ``verify --json``."""
    of = f"`{document['arn']}` and {markdown(document['recipe'])} for `{document['target']}`"
    if document["verified"]:
        return _joined(["### layerbuild verify", f"✅ the same bytes: {of}"])
    found = document["differences"]
    table = [[markdown(one["path"]), one["kind"], markdown(one["why"])] for one in found]
    parts = ["### layerbuild verify", f"❌ not the same: {of}", _table(("file", "differs", "why"), table)]
    return _joined(parts)


def failed_summary(error: LayerbuildError, command: str) -> str:
    """That a command could not do anything."""
    return _joined([f"### {command}", _problem(error)])


def size_bar(size: int, limit: int) -> str:
    """How much of a limit a size takes, such as ``█▋░░░░░░░░ 17%``."""
    eighths = min(_BAR * 8, round(_BAR * 8 * size / limit))
    full, rest = divmod(eighths, 8)
    bar = "█" * full + ("▏▎▍▌▋▊▉"[rest - 1] if rest else "")
    return f"`{bar}{'░' * (_BAR - len(bar))}` {size / limit:.0%}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], numbers: str = "") -> str:
    """A table of cells that are Markdown already; nothing without rows. `numbers` names columns to align right."""
    if not rows:
        return ""
    lines = [list(columns), ["--:" if name in numbers.split() else "---" for name in columns], *rows[:_ROWS]]
    return "\n".join([*(f"| {' | '.join(cells)} |" for cells in lines), *("", *_more(len(rows) - _ROWS))])


def _problem(error: LayerbuildError, about: str = "") -> str:
    """An error as an item of a list, with its causes below it."""
    head = f"{about}: {error.what}" if about else error.what
    lines = [
        f"- ❌ {markdown(head)} `{error.code}`",
        *(f"  - {markdown(cause.strip())}" for cause in error.causes[:_ITEMS]),
    ]
    lines += [f"  - hint: {markdown(error.hint)}"] if error.hint else []
    return "\n".join(lines)


def _more(count: int) -> list[str]:
    return [f"and {count:,} more, which the log has"] if count > 0 else []


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _joined(parts: Iterable[str]) -> str:
    return "\n\n".join(part.strip("\n") for part in parts if part.strip())
