"""Which versions of a layer can go: all but the newest, those that something uses, and those that are young."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from layerbuild.errors import LayerbuildError
from layerbuild.process import stop_if_interrupted
from layerbuild.publish.registry import Registry
from layerbuild.publish.release import marked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from layerbuild.catalogue import Catalogue, Version
    from layerbuild.publish.aws import Account
    from layerbuild.publish.plan import Listed

NEWEST = "one of the newest"


@dataclass(kw_only=True, slots=True)
class Verdict:
    """What is to become of a version: it is kept for `reason`, or goes, where there is none.

    `status` is ``planned`` until it is ``deleted`` or ``failed``.
    """

    region: str
    name: str
    version: Listed
    reason: str | None
    status: str = "planned"
    error: LayerbuildError | None = None

    def as_json(self) -> dict[str, Any]:
        """The verdict as it appears in ``--json`` output."""
        return {
            "layer": self.name,
            "region": self.region,
            "version": self.version.version,
            "arn": self.version.arn,
            "published": self.version.published,
            "kept_because": self.reason,
            "status": "kept" if self.reason else self.status,
            "error": self.error.as_json() if self.error else None,
        }


def judge(
    versions: Sequence[Listed],
    rows: Sequence[Version],
    used: Mapping[str, Sequence[str]],
    *,
    keep: int,
    min_age: timedelta,
    now: datetime,
) -> list[tuple[Listed, str | None]]:
    """For each version of a layer, why it is kept; None where it can go.

    Args:
        versions: all that there are.
        rows: what the catalogue says of them.
        used: the ARN of each version that functions use, and these.
        keep: how many of the newest stay.
        min_age: younger ones stay.
        now: with a time zone.
    """
    numbers = {row.version: row for row in rows}
    newest = sorted((one.version for one in versions), reverse=True)[:keep]
    found = []
    for one in sorted(versions, key=lambda one: -one.version):
        reason: str | None = None
        row = numbers.get(one.version)
        if one.version in newest:
            reason = NEWEST
        elif row and row.current:
            reason = "the recipe stands for it now"
        elif functions := used.get(one.arn):
            more = f" and {len(functions) - 1} more" if len(functions) > 1 else ""
            reason = f"used by {functions[0]}{more}"
        elif row is None and marked(one.description) is None:
            reason = "not published by layerbuild"
        elif (age := _age(one.published, now)) is None:
            reason = "its age is unknown"
        elif age < min_age:
            reason = f"younger than {min_age.days} days"
        found.append((one, reason))
    return found


def _age(published: str, now: datetime) -> timedelta | None:
    try:
        return now - datetime.fromisoformat(published)
    except (ValueError, TypeError):
        return None


class Pruner:
    """Deletes versions in one account.

    Args:
        account: whose layers they are.
        catalogue: what was published; deleted versions are struck out.
        keep: how many of the newest versions of a layer stay.
        min_age: younger versions stay.
    """

    def __init__(self, account: Account, catalogue: Catalogue, *, keep: int, min_age: timedelta) -> None:
        self.account = account
        self.catalogue = catalogue
        self.keep = keep
        self.min_age = min_age

    def plan(self, region: str, names: Sequence[str], now: datetime) -> list[Verdict]:
        """What is to become of the versions of some layers in a region."""
        registry = Registry(self.account.region(region))
        number = self.account.identity[1]
        verdicts: list[Verdict] = []
        listed = {}
        for name in names:
            listed[name] = [one for page, _ in registry.versions(name) for one in page]
            stop_if_interrupted()
        used = registry.layers_in_use() if any(len(found) > self.keep for found in listed.values()) else {}
        for name, versions in listed.items():
            rows = self.catalogue.of_layer(number, region, name)
            judged = judge(versions, rows, used, keep=self.keep, min_age=self.min_age, now=now)
            verdicts += [Verdict(region=region, name=name, version=one, reason=why) for one, why in judged]
        return verdicts

    def delete(self, verdict: Verdict) -> None:
        """Deletes a version and strikes it out, or says in the verdict why it could not."""
        stop_if_interrupted()
        try:
            Registry(self.account.region(verdict.region)).delete(verdict.name, verdict.version.version)
        except LayerbuildError as error:
            verdict.status, verdict.error = "failed", error
            return
        self.catalogue.forget(self.account.identity[1], verdict.region, verdict.name, [verdict.version.version])
        verdict.status = "deleted"
