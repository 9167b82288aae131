"""What changed between two layers: packages, sizes, findings; for people, for pull requests, for programs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from layerbuild.github import markdown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from layerbuild.checks import Finding


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """One of two layers that are compared.

    Attributes:
        packages: normalised name to version.
        zipped, unzipped: bytes; None where that is not known, as of a lock.
        findings: what checks found; None where nothing was checked.
        digest: the same for the same content; None where that is not known.
    """

    packages: Mapping[str, str]
    zipped: int | None = None
    unzipped: int | None = None
    findings: tuple[Finding, ...] | None = None
    digest: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """What changed about one layer; a side is None where there is none.

    Findings are told as (severity, code, message): those that only one side has.
    """

    name: str
    old: Side | None
    new: Side | None
    added: tuple[tuple[str, str], ...]
    removed: tuple[tuple[str, str], ...]
    changed: tuple[tuple[str, str, str], ...]
    new_findings: tuple[tuple[str, str, str], ...]
    gone_findings: tuple[tuple[str, str, str], ...]

    @property
    def status(self) -> str:
        """``added``, ``removed``, ``same``, ``changed``, or ``rebuilt``: the same packages, in other files."""
        if self.old is None or self.new is None:
            return "removed" if self.new is None else "added"
        if self.added or self.removed or self.changed:
            return "changed"
        sizes = (self.old.zipped, self.old.unzipped) == (self.new.zipped, self.new.unzipped)
        findings = self.new_findings or self.gone_findings
        return "same" if self.old.digest == self.new.digest and sizes and not findings else "rebuilt"

    def as_json(self) -> dict[str, Any]:
        """The difference as it appears in ``--json`` output."""

        def told(findings: Iterable[tuple[str, str, str]]) -> list[dict[str, str]]:
            return [dict(zip(("severity", "code", "message"), one, strict=True)) for one in findings]

        return {
            "name": self.name,
            "status": self.status,
            "added": [{"package": name, "version": version} for name, version in self.added],
            "removed": [{"package": name, "version": version} for name, version in self.removed],
            "changed": [{"package": name, "old": old, "new": new} for name, old, new in self.changed],
            "zipped": [self.old.zipped if self.old else None, self.new.zipped if self.new else None],
            "unzipped": [self.old.unzipped if self.old else None, self.new.unzipped if self.new else None],
            "new_findings": told(self.new_findings),
            "gone_findings": told(self.gone_findings),
        }


def compare(name: str, old: Side | None, new: Side | None) -> Difference:
    """What changed from `old` to `new`, either of which may not be."""
    before, after = (old.packages if old else {}), (new.packages if new else {})
    checked = old is not None and new is not None and old.findings is not None and new.findings is not None
    were = _findings(old) if checked and old else {}
    are = _findings(new) if checked and new else {}
    return Difference(
        name=name,
        old=old,
        new=new,
        added=tuple((one, after[one]) for one in sorted(after.keys() - before.keys())),
        removed=tuple((one, before[one]) for one in sorted(before.keys() - after.keys())),
        changed=tuple(
            (one, before[one], after[one])
            for one in sorted(before.keys() & after.keys())
            if before[one] != after[one]
        ),
        new_findings=tuple(are[key] for key in are if key not in were),
        gone_findings=tuple(were[key] for key in were if key not in are),
    )


def _findings(side: Side) -> dict[tuple[str, str, str], tuple[str, str, str]]:
    """Findings that nobody has accepted; a version in a path or message makes no other finding of it."""
    found = {}
    for one in side.findings or ():
        if one.accepted is None:
            path = re.sub(r"[0-9]+(\.[0-9]+)+", "N", one.path or "")
            message = re.sub(r"[0-9][0-9.,]*", "N", one.message)
            place = f"{one.place}: " if one.path else ""
            found[one.code, path, message] = (one.severity, one.code, f"{place}{one.message}")
    return found


def as_json(differences: Sequence[Difference]) -> dict[str, Any]:
    """All differences as one document."""
    return {"layers": [one.as_json() for one in differences]}


def as_markdown(differences: Sequence[Difference], size: Any) -> str:
    """A section for a pull request: a table of layers, then what changed about each; `size` makes bytes readable."""
    telling = [one for one in differences if one.status != "same"]
    lines = [_summary(differences), ""]
    if telling:
        lines += ["| layer | packages | zipped | unzipped |", "|---|---|---|---|"]
        lines += [
            f"| {markdown(one.name)} | {markdown(_packages_in_short(one))} | {sizes(one, 'zipped', size)} | "
            f"{sizes(one, 'unzipped', size)} |"
            for one in telling
        ]
        lines.append("")
    for one in telling:
        found = [*((("new"), *finding) for finding in one.new_findings), *(("gone", *f) for f in one.gone_findings)]
        if found:
            lines += [f"**{markdown(one.name)}**", ""]
            lines += [f"- {which} {severity} `{code}`: {markdown(text)}" for which, severity, code, text in found]
            lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _summary(differences: Sequence[Difference]) -> str:
    count = {
        status: sum(one.status == status for one in differences)
        for status in ("added", "removed", "changed", "rebuilt", "same")
    }
    told = [f"{number} {status}" for status, number in count.items() if number]
    return f"{len(differences)} layers: {', '.join(told)}" if told else "no layers"


def _packages_in_short(one: Difference) -> str:
    told = [f"{name} {old} → {new}" for name, old, new in one.changed]
    if one.old is None or one.new is None:
        return f"{one.status}: {', '.join(' '.join(row) for row in (one.added or one.removed))}"
    told += [f"+ {name} {version}" for name, version in one.added]
    told += [f"− {name} {version}" for name, version in one.removed]  # noqa: RUF001 - a minus sign
    return ", ".join(told) or one.status


def sizes(one: Difference, field: str, size: Any) -> str:
    """How a size changed, such as ``7.1 MB → 7.3 MB (+2.8%)``; empty where it is not known."""
    old = getattr(one.old, field) if one.old else None
    new = getattr(one.new, field) if one.new else None
    if old is None or new is None:
        return " → ".join(size(value) for value in (old, new) if value is not None)
    if old == new:
        return str(size(new))
    change = f" ({(new - old) / old:+.1%})" if old else ""
    return f"{size(old)} → {size(new)}{change}"
