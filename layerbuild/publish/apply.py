"""Does what a plan says. Each outcome is in the catalogue before the next step of its layer begins."""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from layerbuild.catalogue import Version
from layerbuild.errors import BuildError, LayerbuildError, machine_error
from layerbuild.process import stop_if_interrupted
from layerbuild.publish.plan import CHANGES
from layerbuild.publish.registry import Answer, Registry
from layerbuild.publish.release import mark, marked
from layerbuild.publish.sharing import spoken, without
from layerbuild.publish.storage import Bucket
from layerbuild.publish.survey import in_regions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from layerbuild.catalogue import Catalogue
    from layerbuild.publish.aws import Account
    from layerbuild.publish.plan import Listed, Step
    from layerbuild.publish.sharing import Sharing


class Reporter(Protocol):
    """What publishing tells the one who waits. Called from several threads."""

    def note(self, text: str) -> None:
        """Something worth knowing."""
        ...

    def warn(self, text: str) -> None:
        """Something that may be wrong."""
        ...

    def transfer(self, filename: str, verb: str) -> AbstractContextManager[Callable[[int, int | None], object]]:
        """A file that is on its way; the function is told bytes that went, and of how many."""
        ...


@dataclass(kw_only=True)
class Outcome:
    """What became of a step: ``done``, ``failed`` or ``not done``.

    `doubles` are versions with the same content that someone else made at the same time.
    """

    step: Step
    status: str = "not done"
    version: Version | None = None
    error: LayerbuildError | None = None
    doubles: tuple[int, ...] = ()
    seconds: float = field(default=0.0, compare=False)

    def as_json(self) -> dict[str, Any]:
        """The outcome as it appears in ``--json`` output."""
        return {
            **self.step.as_json(),
            "status": self.status,
            "version": self.version.version if self.version else self.step.as_json()["version"],
            "arn": self.version.arn if self.version else self.step.version.arn if self.step.version else None,
            "published_twice": list(self.doubles),
            "error": self.error.as_json() if self.error else None,
        }


class Publisher:
    """Carries out steps.

    Args:
        account: whose layers they are.
        catalogue: where outcomes are recorded.
        reporter: is told what happens.
        keep_objects: whether archives stay in their bucket.
        tags: of these archives.
    """

    def __init__(
        self,
        account: Account,
        catalogue: Catalogue,
        reporter: Reporter,
        *,
        keep_objects: bool = False,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        self.account = account
        self.catalogue = catalogue
        self.reporter = reporter
        self.keep_objects = keep_objects
        self.tags = tags or {}

    def apply(self, steps: Sequence[Step], outcomes: list[Outcome]) -> None:
        """Carries out the steps that change something, regions side by side. One that fails stops no other.

        Args:
            steps: of a plan.
            outcomes: gets one for each of them, at once; they are filled in as work goes on.

        Raises:
            OSError: the catalogue cannot be written.
            KeyboardInterrupt: the user interrupted it; what was under way has been finished and recorded.
        """
        outcomes += [Outcome(step=step) for step in steps if step.action in CHANGES]
        if outcomes:
            self.catalogue.save()  # what cannot be recorded is not to be done
        for step in steps:
            if step.gone:
                self.catalogue.forget(step.account, step.region, step.release.name, step.gone)
        # What concerns one layer is done one after the other.
        layers: dict[tuple[str, str], list[Outcome]] = {}
        for outcome in outcomes:
            layers.setdefault((outcome.step.region, outcome.step.release.name), []).append(outcome)
        work: dict[str, list[list[Outcome]]] = {}
        for (region, _), found in layers.items():
            work.setdefault(region, []).append(found)

        def waiting() -> None:
            self.reporter.warn("finishing what is under way; press Ctrl-C again to stop at once")

        in_regions(work, self._do_all, waiting)

    def _do_all(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            stop_if_interrupted()
            self._do(outcome)

    def _do(self, outcome: Outcome) -> None:
        started = time.monotonic()
        try:
            match outcome.step.action:
                case "create":
                    self._create(outcome)
                case "record":
                    self._record(outcome)
                case "share":
                    self._share(outcome, self._row(outcome.step))
            outcome.status = "done"
        except LayerbuildError as error:
            outcome.status, outcome.error = "failed", error
        except OSError as error:
            outcome.status, outcome.error = "failed", machine_error(error)
        outcome.seconds = time.monotonic() - started
        self._tell(outcome)

    def _tell(self, outcome: Outcome) -> None:
        step, place = outcome.step, f"{outcome.step.release.name} in {outcome.step.region}"
        if outcome.error:
            causes = "; ".join(outcome.error.causes[:1])
            self.reporter.warn(f"{place}: {outcome.error.what}{f' ({causes})' if causes else ''}")
        elif step.action == "create" and outcome.version:
            self.reporter.note(f"published version {outcome.version.version} of {place} in {outcome.seconds:.2f} s")
        elif outcome.version:
            verb = {"record": "recorded", "share": "changed the sharing of"}[step.action]
            self.reporter.note(f"{verb} version {outcome.version.version} of {place}")
        for number in outcome.doubles:
            self.reporter.warn(
                f"{place}: version {number} has the same content: something else published it at the same time; "
                "`layerbuild prune` removes what no function uses"
            )

    def _create(self, outcome: Outcome) -> None:
        step, release = outcome.step, outcome.step.release
        registry = Registry(self.account.region(step.region))
        source: dict[str, str] = {}
        bucket = Bucket(registry.region, step.bucket) if step.bucket else None
        if bucket:
            source = self._sent(bucket, step)
        try:
            answer = registry.publish(release, source, lambda: self._made_since(registry, step))
        finally:
            if bucket and not self.keep_objects:
                self._take_back(bucket, source)
        if answer.code_sha256 != release.code_sha256:
            if not answer.found:
                raise self._not_ours(registry, step, answer)
            # Made by someone else at the same time: the same content, in other bytes.
            which = f"version {answer.listed.version} of {release.name} in {step.region}"
            self.reporter.warn(f"{which} has this content already, in other bytes; `layerbuild verify` says in what")
        row = self._version(step, answer)
        self.catalogue.record(row, release.content)
        self._share(outcome, row)
        twins = [
            one.version
            for one in next(registry.versions(release.name))[0]
            if marked(one.description) == mark(release.digest) and one.version not in (*step.listed, row.version)
        ]
        outcome.doubles = tuple(twins)

    def _not_ours(self, registry: Registry, step: Step, answer: Answer) -> BuildError:
        """Deletes a version that carries our mark and is something else: the next run would take it for ours."""
        release, number = step.release, answer.listed.version
        causes = [f"CodeSha256 {answer.code_sha256}, not {release.code_sha256}"]
        try:
            registry.delete(release.name, number)
            hint = "it was deleted again; run the same command again"
        except LayerbuildError as error:
            causes.append(f"it could not be deleted: {error.what}")
            hint = f"delete version {number} by hand before you publish again"
        what = f"what Lambda in {step.region} has made of {release.archive} is something else"
        return BuildError("hash-mismatch", what, causes=causes, hint=hint)

    def _sent(self, bucket: Bucket, step: Step) -> dict[str, str]:
        release = step.release
        digest = base64.b64decode(release.code_sha256).hex()
        with self.reporter.transfer(f"{release.archive.name} to {step.region}", "sending") as moved:
            key = f"layerbuild/{release.name}/{digest}.zip"
            return bucket.send(release.archive, key, self.tags, lambda count: moved(count, release.size))

    def _take_back(self, bucket: Bucket, source: Mapping[str, str]) -> None:
        try:
            bucket.take_back(source)
        except LayerbuildError as error:
            self.reporter.warn(f"{source['S3Key']} stays in {bucket.name}: {error.what}")

    def _made_since(self, registry: Registry, step: Step) -> Listed | None:
        """The version of a request whose answer was lost; None if it has made none."""
        page, _ = next(registry.versions(step.release.name))
        found = [one for one in page if marked(one.description) == mark(step.release.digest)]
        new = [one for one in found if one.version not in step.listed]
        return max(new, key=lambda one: one.version, default=None)

    def _record(self, outcome: Outcome) -> None:
        step = outcome.step
        if step.version is None or step.known is None:
            raise BuildError("version-gone", f"a version of {step.release.name} in {step.region} was just deleted")
        answer = Answer(listed=step.version, code_sha256=step.known.code_sha256, size=step.known.size)
        row = replace(self._version(step, answer), shared=without(step.shared, step.sharing.add))
        self.catalogue.record(row, step.release.content)
        self._share(outcome, row)

    def _version(self, step: Step, answer: Answer) -> Version:
        return Version(
            account=step.account,
            region=step.region,
            name=step.release.name,
            version=answer.listed.version,
            recipe=step.release.content.recipe,
            target=step.release.content.target,
            arn=answer.listed.arn,
            digest=step.release.digest,
            code_sha256=answer.code_sha256,
            size=answer.size,
            published=answer.listed.published,
        )

    def _row(self, step: Step) -> Version:
        number = step.version.version if step.version else 0
        rows = self.catalogue.of_layer(step.account, step.region, step.release.name)
        return next(row for row in rows if row.version == number)

    def _share(self, outcome: Outcome, row: Version) -> None:
        """Changes who may use a version, reads it back, and records what is so."""
        step, sharing = outcome.step, outcome.step.sharing
        outcome.version = row
        registry = Registry(self.account.region(row.region))
        if sharing.add or sharing.remove:
            for grant in sharing.add:
                registry.share(row.name, row.version, grant)
            for statement, grant in registry.grants(row.name, row.version).items() if sharing.remove else ():
                if grant in sharing.remove:
                    registry.unshare(row.name, row.version, statement)
            self._confirm(row, sharing, set(registry.grants(row.name, row.version).values()))
        outcome.version = self.catalogue.shared(row, step.shared)

    def _confirm(self, row: Version, sharing: Sharing, actual: set[str]) -> None:
        """Raises BuildError where a policy is not what was asked for."""
        missing, left = set(sharing.add) - actual, set(sharing.remove) & actual
        if missing or left:
            causes = [f"it is not shared with {spoken(one)}" for one in sorted(missing)]
            causes += [f"it is still shared with {spoken(one)}" for one in sorted(left)]
            raise BuildError("sharing-failed", f"the policy of {row.arn} is not what was asked for", causes=causes)


def unfinished(steps: Iterable[Step], outcomes: Iterable[Outcome]) -> list[str]:
    """A line for each thing that is not as the settings ask for."""
    lines = [
        f"{step.release.name} in {step.region}: {step.reasons[0] if step.reasons else step.action}"
        for step in steps
        if step.action in ("blocked", "failed")
    ]
    for outcome in outcomes:
        if outcome.status != "done":
            why = outcome.error.what if outcome.error else "not begun"
            lines.append(f"{outcome.step.release.name} in {outcome.step.region}: {why}")
    return lines


def advice(steps: Iterable[Step], outcomes: Iterable[Outcome]) -> list[str]:
    """What to do about what went wrong, each once."""
    errors = [*(step.error for step in steps), *(outcome.error for outcome in outcomes)]
    return list(dict.fromkeys(error.hint for error in errors if error and error.hint))
