"""What checks found, in the forms that programs read: JSON, SARIF 2.1.0, GitHub's annotations."""

from __future__ import annotations

import hashlib
import posixpath
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from layerbuild import __version__
from layerbuild.checks import rules
from layerbuild.github import Step, annotation, requirement_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from layerbuild.checks import Finding

_SARIF_LEVELS = {"error": "error", "warning": "warning", "note": "note"}
_GITHUB_COMMANDS = {"error": "error", "warning": "warning", "note": "notice"}


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was found out about one layer or one stack.

    Attributes:
        subject: what the user calls it.
        kind: ``layer`` or ``stack``.
        uri: the file that it is about, as a relative path, for programs that show findings in files.
        source: the recipe of the layer, where that is the user's.
        targets: what it was checked for.
        findings: the worst first.
        zipped, unzipped: bytes; zipped is None for a folder or a stack.
        largest: (name, unzipped bytes) of the largest distributions.
        more: what else belongs into its JSON document.
    """

    subject: str
    kind: str
    uri: str
    targets: tuple[str, ...]
    findings: tuple[Finding, ...]
    zipped: int | None
    unzipped: int
    largest: tuple[tuple[str, int], ...] = ()
    source: Path | None = None
    more: dict[str, Any] | None = None

    def count(self, severity: str) -> int:
        """How many findings of a severity there are that nobody has accepted."""
        return sum(one.severity == severity and one.accepted is None for one in self.findings)

    def as_json(self) -> dict[str, Any]:
        """The report as it appears in ``--json`` output."""
        return {
            self.kind: self.subject,
            "targets": list(self.targets),
            "zipped": self.zipped,
            "unzipped": self.unzipped,
            "largest": [{"package": name, "unzipped": size} for name, size in self.largest],
            **(self.more or {}),
            "findings": [finding.as_json() for finding in self.findings],
        }


def failed(reports: Iterable[Report], *, strict: bool) -> bool:
    """Whether there are errors, or, when strict, warnings."""
    return any(one.count("error") or (strict and one.count("warning")) for one in reports)


def as_json(reports: Sequence[Report]) -> dict[str, Any]:
    """All reports as one document."""
    totals = {f"{severity}s": sum(one.count(severity) for one in reports) for severity in _SARIF_LEVELS}
    return {
        "layers": [one.as_json() for one in reports if one.kind == "layer"],
        "stacks": [one.as_json() for one in reports if one.kind == "stack"],
        **totals,
    }


def as_sarif(reports: Sequence[Report]) -> dict[str, Any]:
    """All reports as a SARIF 2.1.0 log (OASIS standard), as code scanning takes it.

    The place of a finding is the archive; the path in it is a logical location.
    """
    known = rules()
    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "layerbuild",
                        "version": __version__,
                        "rules": [
                            {
                                "id": rule.code,
                                "shortDescription": {"text": rule.summary},
                                "fullDescription": {"text": f"{rule.summary} {rule.cause}"},
                                "help": {"text": f"{rule.cause} What to do: {rule.fix}."},
                                "defaultConfiguration": {"level": _SARIF_LEVELS[rule.severity]},
                            }
                            for rule in known.values()
                        ],
                    }
                },
                "columnKind": "unicodeCodePoints",
                "results": _sarif_results(reports, list(known)),
            }
        ],
    }


def _sarif_results(reports: Sequence[Report], codes: Sequence[str]) -> list[dict[str, Any]]:
    results = [_sarif_result(one, finding, codes) for one in reports for finding in one.findings]
    if any("suppressions" in result for result in results):
        # All results of a run say it, or none (3.27.23).
        results = [{"suppressions": [], **result} for result in results]
    return results


def _sarif_result(report: Report, finding: Finding, codes: Sequence[str]) -> dict[str, Any]:
    from urllib.parse import quote

    location: dict[str, Any] = {
        # Code scanning wants a line; an archive has none.
        "physicalLocation": {"artifactLocation": {"uri": quote(report.uri)}, "region": {"startLine": 1}}
    }
    if finding.path:
        location["logicalLocations"] = [{"fullyQualifiedName": posixpath.join("/opt", finding.path)}]
    result: dict[str, Any] = {
        "ruleId": finding.code,
        "ruleIndex": codes.index(finding.code),
        "level": _SARIF_LEVELS[finding.severity],
        "message": {"text": _sentence(report, finding)},
        "locations": [location],
        # The same finding in the next run, for whoever compares them.
        "partialFingerprints": {"layerbuild/v1": _fingerprint(report, finding)},
    }
    if finding.accepted is not None:
        result["suppressions"] = [{"kind": "inSource", "justification": finding.accepted}]
    return result


def _fingerprint(report: Report, finding: Finding) -> str:
    parts = (finding.code, report.subject, finding.path or "", finding.message)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _sentence(report: Report, finding: Finding) -> str:
    where = f"{finding.path}: " if finding.path else ""
    return f"{report.subject}: {where}{finding.message}{finding.whose}. {finding.fix[:1].upper()}{finding.fix[1:]}."


def as_github(reports: Iterable[Report], step: Step | None = None) -> Iterator[str]:
    """A workflow command for each finding that nobody has accepted, which GitHub shows as an annotation.

    It is shown at the line of the recipe that asks for the finding's package, or else for the archive.

    Args:
        reports: what was found.
        step: the step of a job, whose workspace files are named from.
    """
    line_of = cache(requirement_line)
    for report in reports:
        for finding in report.findings:
            if finding.accepted is None:
                severity, title = _GITHUB_COMMANDS[finding.severity], f"layerbuild {finding.code}"
                text = _sentence(report, finding)
                if step and report.source:
                    line = line_of(report.source, finding.package or "")
                    yield step.annotation(severity, text, title=title, line=line)
                else:
                    yield annotation(severity, text, title=title, place=(report.uri, 0))
