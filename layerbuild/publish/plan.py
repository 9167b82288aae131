"""What is to be done so that AWS has what is built: worked out from what is there, without asking anyone.

Lambda numbers the versions of a layer and knows nothing of what is in them. A version's description ends with the
first digits of its content digest, so that one listing says whether a content is there already.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from layerbuild.publish.release import bucket_name, mark, marked
from layerbuild.publish.sharing import PUBLIC, Sharing, compare, spoken, statement_id, without

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from layerbuild.catalogue import Version
    from layerbuild.errors import LayerbuildError
    from layerbuild.publish.release import Release

ACTIONS = ("create", "record", "share", "skip", "blocked", "failed")
# Those that change something.
CHANGES = ("create", "record", "share")


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """A layer version as a listing tells it; `published` is when, as Lambda writes it."""

    version: int
    arn: str
    description: str
    published: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """A version whose hash was asked for; `grants` are those of its policy, by the id of their statement."""

    code_sha256: str
    size: int
    grants: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What AWS said of one layer in one region.

    Attributes:
        versions: the newest first; not all of them where the content was found among the first.
        complete: whether these are all.
        known: of the version with the content, where the catalogue does not know that.
        grants: of the catalogue's current version, where they were asked for.
        error: why nothing is known.
    """

    versions: tuple[Listed, ...] = ()
    complete: bool = True
    known: Known | None = None
    grants: Mapping[str, str] | None = None
    error: LayerbuildError | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Wishes:
    """What the settings say of all layers.

    `grants` are as `layerbuild.publish.sharing` has them, `bucket` is a template; `force` publishes what is there
    already, and `fix` puts right what others have changed about grants.
    """

    grants: tuple[str, ...] = ()
    bucket: str | None = None
    force: bool = False
    fix: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """What is to be done about one layer in one region: one of `ACTIONS`, and why.

    Attributes:
        version: the one that is there; `known` is what was asked about it besides.
        sharing: what changes about its grants; `shared` is what the catalogue says of them afterwards.
        bucket: where the archive goes first, if it is too large for a request.
        gone: versions of the catalogue that are no more.
        listed: the versions that there were when this was planned.
    """

    release: Release
    account: str
    region: str
    action: str
    version: Listed | None = None
    known: Known | None = None
    sharing: Sharing = field(default_factory=Sharing)
    shared: tuple[str, ...] = ()
    bucket: str | None = None
    reasons: tuple[str, ...] = ()
    gone: tuple[int, ...] = ()
    listed: tuple[int, ...] = ()
    error: LayerbuildError | None = None

    def as_json(self) -> dict[str, Any]:
        """The step as it appears in ``--json`` output."""
        return {
            "layer": self.release.name,
            "recipe": self.release.content.recipe,
            "target": self.release.content.target,
            "account": self.account,
            "region": self.region,
            "action": self.action,
            "version": self.version.version if self.version else None,
            "bucket": self.bucket,
            "share_with": list(self.sharing.add),
            "unshare": list(self.sharing.remove),
            "drift": list(self.sharing.drift),
            "reasons": list(self.reasons),
            "error": self.error.as_json() if self.error else None,
        }


def matching(release: Release, versions: Iterable[Listed], current: Version | None) -> Listed | None:
    """The version that has the release's content: the catalogue's, or the newest."""
    found = [one for one in versions if marked(one.description) == mark(release.digest)]
    numbers = {one.version: one for one in found}
    if current and current.version in numbers:
        return numbers[current.version]
    return max(found, key=lambda one: one.version, default=None)


def plan_layer(
    release: Release, account: str, region: str, seen: Seen, rows: Sequence[Version], wishes: Wishes
) -> list[Step]:
    """What to do about one layer in one region.

    Args:
        release: what was built.
        account: the twelve digits.
        region: its name.
        seen: what AWS says of the layer there.
        rows: what the catalogue says of it.
        wishes: the settings.

    Returns:
        First the step for the release itself, then one for each older version that is shared with whom the
        settings do not name any more.
    """

    def step(action: str, **given: Any) -> Step:
        return Step(release=release, account=account, region=region, action=action, **given)

    if release.problems:
        return [step("blocked", reasons=release.problems)]
    if seen.error:
        return [step("failed", error=seen.error, reasons=(seen.error.what,))]
    current = next((row for row in rows if row.current), None)
    listed = tuple(one.version for one in seen.versions)
    gone = tuple(row.version for row in rows if row.version not in listed) if seen.complete else ()
    found = None if wishes.force else matching(release, seen.versions, current)
    # Whatever takes the place of a version, it is not to be shared with whom the settings do not name any more.
    former = [row for row in rows if row.version not in gone and not (found and row.version == found.version)]
    older = [
        step("share", version=_as_listed(row), sharing=Sharing(remove=less), shared=without(row.shared, less))
        for row in former
        if (less := without(row.shared, wishes.grants))
    ]
    common = {"gone": gone, "listed": listed, "shared": wishes.grants}
    if found is None:
        bucket = None
        if not release.inline:
            if wishes.bucket is None:
                why = f"its zip has {release.size:,} bytes: it has to go through S3, and no bucket is named"
                return [step("blocked", reasons=(why, "name one: --bucket 'layers-{account}-{region}'"))]
            bucket = bucket_name(wishes.bucket, account, region)
        reasons = (_why_new(release, seen, current, gone, force=wishes.force),)
        return [step("create", sharing=Sharing(add=wishes.grants), bucket=bucket, reasons=reasons, **common), *older]
    if current is None or found.version != current.version or current.digest != release.digest:
        return [
            step("record", version=found, known=seen.known, **_recorded(release, seen, found, wishes), **common),
            *older,
        ]
    sharing = compare(wishes.grants, current.shared, seen.grants, fix=wishes.fix)
    changed = sharing.add or sharing.remove or set(current.shared) != set(wishes.grants)
    return [step("share" if changed else "skip", version=found, sharing=sharing, **common), *older]


def _recorded(release: Release, seen: Seen, found: Listed, wishes: Wishes) -> dict[str, Any]:
    """What to do about a version with the content that the catalogue does not have as the current one."""
    reasons = [f"version {found.version} has this content already"]
    grants = seen.known.grants if seen.known else {}
    ours = [grant for name, grant in grants.items() if name == statement_id(grant)]
    if seen.known and seen.known.code_sha256 != release.code_sha256:
        reasons.append("its bytes differ from the archive here; `layerbuild verify` says in what")
    return {"sharing": compare(wishes.grants, ours, grants, fix=wishes.fix), "reasons": tuple(reasons)}


def _why_new(release: Release, seen: Seen, current: Version | None, gone: Sequence[int], *, force: bool) -> str:
    if force:
        return "asked for by --force"
    if current and current.version in gone and current.digest == release.digest:
        return f"version {current.version} of the catalogue is gone"
    if not seen.versions:
        return "there is no such layer yet" if not current else "there is no version of it any more"
    return "its content is new"


def _as_listed(row: Version) -> Listed:
    return Listed(version=row.version, arn=row.arn, description="", published=row.published)


def counts(steps: Iterable[Step]) -> dict[str, int]:
    """How many steps there are of each action."""
    found = Counter(step.action for step in steps)
    return {action: found[action] for action in ACTIONS}


def made_public(steps: Iterable[Step]) -> list[Step]:
    """The steps that let everyone use a version."""
    return [step for step in steps if PUBLIC in step.sharing.add]


def changes_of(step: Step) -> list[str]:
    """What a step changes about who may use a version, and what others have changed, as a plan tells it."""
    told = [f"share with {spoken(grant)}" for grant in step.sharing.add]
    told += [f"stop sharing with {spoken(grant)}" for grant in step.sharing.remove]
    return [*told, *step.sharing.drift]
