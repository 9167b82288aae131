"""What commands add to the summary of a job of GitHub Actions, as Markdown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from layerbuild.console import counted, readable_size
from layerbuild.github import markdown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from layerbuild.checks import Finding
    from layerbuild.errors import LayerbuildError
    from layerbuild.pipeline import Failed, Job, Made
    from layerbuild.report import Report

_BAR = 10
# More of them nobody reads; the log and --json have all.
_ROWS = 200
_ITEMS = 20
_LONGEST = 1000
_MARKS = {"error": "❌", "warning": "⚠️", "note": "📝"}


def made_summary(made: Sequence[Made], failed: Sequence[Failed], limit: int) -> str:
    """The layers that `make` has made, and why others could not be made; `limit` is Lambda's, in unzipped bytes."""
    rows = [
        [
            markdown(one.manifest.data["recipe"]),
            f"`{one.manifest.data['target']}`",
            size_bar(one.manifest.data["unzipped"], limit),
            readable_size(one.manifest.data["unzipped"]),
            readable_size(one.manifest.data["zipped"]),
            str(len(one.manifest.data["distributions"])),
            one.manifest.data["smoke"]["status"],
            "up to date" if one.status == "up-to-date" else f"{one.seconds:.2f} s",
        ]
        for one in made
    ]
    columns = ("layer", "target", "of Lambda's limit", "unzipped", "zipped", "packages", "imports", "time")
    count = counted(len(made), "layer") if not failed else f"{len(made)} of {len(made) + len(failed)} layers"
    parts = [f"### layerbuild make: {count}", _table(columns, rows, "zipped unzipped packages time")]
    if failed:
        parts.append(f"❌ **{counted(len(failed), 'layer')} could not be made**")
        parts += _failures(failed)
    return _joined([*parts, _findings([(one.job.name, finding) for one in made for finding in one.findings])])


def reports_summary(reports: Sequence[Report]) -> str:
    """What checks have found, layer by layer."""
    rows = [
        [
            markdown(_short(one.subject)),
            "" if one.zipped is None else readable_size(one.zipped),
            readable_size(one.unzipped),
            ", ".join(f"{_MARKS[name]} {counted(count, name)}" for name in _MARKS if (count := one.count(name)))
            or "✅ none",
        ]
        for one in reports
    ]
    parts = ["### layerbuild check", _table(("layer", "zipped", "unzipped", "findings"), rows, "zipped unzipped")]
    found = [(one, finding) for one in reports for finding in one.findings if finding.accepted is None]
    return _joined([*parts, _findings([(_short(one.subject), finding) for one, finding in found])])


def _findings(found: Iterable[tuple[str, Finding]]) -> str:
    """What was found, as a list: the worst first; what is the same for several layers once."""
    about: dict[Finding, list[str]] = {}
    for name, finding in found:
        about.setdefault(replace(finding, targets=()), []).append(name)
    rows = sorted(about.items(), key=lambda row: list(_MARKS).index(row[0].severity))
    lines = [
        f"- {_MARKS[one.severity]} `{one.code}` {markdown(f'{_few(names)}: {_sentence(one)}')}"
        for one, names in rows[:_ROWS]
    ]
    return "\n".join([*lines, *_more(len(rows) - _ROWS)])


def _short(subject: str) -> str:
    """A layer as people call it: an archive without its folder and ending."""
    return PurePath(subject).stem if subject.endswith(".zip") else subject


def _few(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _sentence(finding: Finding) -> str:
    return f"{finding.place}: {finding.message}{finding.whose}" if finding.path else finding.message + finding.whose


def locked_summary(rows: Sequence[Mapping[str, Any]], failed: Sequence[Failed]) -> str:
    """The locks that `lock` has written, and those that it could not."""
    table = [[markdown(row["recipe"]), f"`{row['target']}`"] for row in rows if row["changed"]]
    parts = [f"### layerbuild lock: {len(table)} of {len(rows)} written", _table(("recipe", "target"), table)]
    return _joined([*parts, *_failures(failed)])


def fits_summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """Which locks no longer fit, and why."""
    misfits = [row for row in rows if not row["fits"]]
    table = [[markdown(row["recipe"]), f"`{row['target']}`", markdown("; ".join(row["problems"]))] for row in misfits]
    title = f"### layerbuild lock --check: {len(rows) - len(misfits)} of {len(rows)} fit"
    return _joined([title, _table(("recipe", "target", "what does not fit"), table)])


def published_summary(rows: Sequence[Mapping[str, Any]], account: str, *, planned: bool) -> str:
    """What `publish` has done, or would do: its steps, as JSON has them."""
    with_arns = any(row.get("arn") for row in rows)
    table = [
        [
            markdown(row["layer"]),
            row["region"],
            "" if row["version"] is None else str(row["version"]),
            _outcome(row, planned=planned),
            *([f"`{row['arn']}`" if row.get("arn") else ""] if with_arns else []),
        ]
        for row in rows
    ]
    columns = ("layer", "region", "version", "planned" if planned else "outcome", *(["ARN"] if with_arns else []))
    problems = [
        f"- ❌ {markdown(row['layer'])} in {row['region']}: {markdown(_cut(told))}"
        for row in rows
        if (told := _kept_back(row))
    ]
    return _joined(
        [
            f"### layerbuild publish{' --plan' if planned else ''}: account {account}",
            _table(columns, table, "version"),
            "\n".join([*problems[:_ITEMS], *_more(len(problems) - _ITEMS)]),
        ]
    )


_DONE = {"create": "published", "share": "shared", "record": "recorded", "skip": "up to date"}


def _outcome(row: Mapping[str, Any], *, planned: bool) -> str:
    if planned or row["action"] not in _DONE:
        return str(row["action"])
    done = row["action"] == "skip" or row["status"] == "done"
    return _DONE[row["action"]] if done else f"{row['action']}: {row['status']}"


def _kept_back(row: Mapping[str, Any]) -> str:
    """Why a step was not done, or could not be; empty where it was."""
    if row.get("error"):
        return f"{row['error']['what']} [{row['error']['code']}]"
    return "; ".join(row["reasons"]) if row["action"] == "blocked" else ""


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


def _failures(failed: Sequence[Failed]) -> list[str]:
    """What kept layers or locks from being made."""
    return [*(_problem(one.error, one.job) for one in failed[:_ITEMS]), *_more(len(failed) - _ITEMS)]


def _problem(error: LayerbuildError, job: Job | None = None) -> str:
    """An error as an item of a list, with its causes below it; of a layer that the error does not name, which."""
    named = job is None or (job.recipe.name in error.what and job.label in error.what)
    head = error.what if named or job is None else f"{job.recipe.name} for {job.label}: {error.what}"
    lines = [f"- ❌ {markdown(_cut(head))} `{error.code}`"]
    lines += [f"  - {markdown(_cut(cause.strip()))}" for cause in error.causes[:_ITEMS]]
    lines += [f"  - hint: {markdown(_cut(error.hint))}"] if error.hint else []
    return "\n".join(lines)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _more(count: int) -> list[str]:
    return [f"and {count:,} more, which the log has"] if count > 0 else []


def _joined(parts: Iterable[str]) -> str:
    return "\n\n".join(part.strip("\n") for part in parts if part.strip())
