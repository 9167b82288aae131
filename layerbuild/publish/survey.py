"""What AWS has of the layers that are to be published: asked of all regions side by side, one listing per layer."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from layerbuild.errors import LayerbuildError
from layerbuild.process import Interrupted, interrupted, stop_if_interrupted
from layerbuild.publish.plan import Seen, Step, matching, plan_layer
from layerbuild.publish.registry import Registry
from layerbuild.publish.storage import Bucket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from layerbuild.catalogue import Catalogue, Version
    from layerbuild.publish.aws import Account
    from layerbuild.publish.plan import Listed, Wishes
    from layerbuild.publish.release import Release

Work = TypeVar("Work")

# Of each region: enough to keep its pace where an answer takes a quarter of a second.
_WORKERS = 4


def in_regions(
    work: Mapping[str, Sequence[Work]], do: Callable[[Work], object], waiting: Callable[[], object] | None = None
) -> None:
    """Does work for several regions side by side, so that one that is slow holds up no other.

    Args:
        work: the pieces of each region, in the order in which they are begun.
        do: does one; called in threads.
        waiting: called when the user interrupts, whereupon what has begun is finished. Without it, it is given up.

    Raises:
        KeyboardInterrupt: the user interrupted it; what had not begun is not done.
    """
    interrupted.clear()
    pools = [ThreadPoolExecutor(_WORKERS, thread_name_prefix=region) for region in work]
    try:
        futures = [
            pool.submit(do, piece) for pool, pieces in zip(pools, work.values(), strict=True) for piece in pieces
        ]
        wait(futures)
    except KeyboardInterrupt:
        interrupted.set()
        for pool in pools:
            pool.shutdown(wait=False, cancel_futures=True)
        if waiting:
            waiting()
            for pool in pools:
                pool.shutdown()
        raise
    for pool in pools:
        pool.shutdown()
    problems = [error for future in futures if (error := future.exception()) and not isinstance(error, Interrupted)]
    if problems:
        raise problems[0]


def survey(
    account: Account,
    releases: Sequence[Release],
    regions: Sequence[str],
    catalogue: Catalogue,
    wishes: Wishes,
    *,
    grants: bool,
) -> list[Step]:
    """Asks AWS what there is, and plans.

    Args:
        account: whose layers they are.
        releases: what is to be there.
        regions: where.
        catalogue: what was published before.
        wishes: the settings.
        grants: whether to read who may use the versions that are there.

    Returns:
        The steps, by region and layer.

    Raises:
        MachineError: there are no credentials. A region that cannot be asked has steps that failed.
    """
    number = account.identity[1]
    rows = catalogue.by_layer()
    lock = threading.Lock()
    found: dict[tuple[str, str], list[Step]] = {}

    def look(piece: tuple[str, Release]) -> None:
        region, release = piece
        known = rows.get((number, region, release.name), [])
        seen = Seen() if release.problems else _seen(account, region, release, known, wishes, grants=grants)
        steps = plan_layer(release, number, region, seen, known, wishes)
        with lock:
            found[region, release.name] = steps

    in_regions({region: [(region, release) for release in releases] for region in regions}, look)
    steps = [step for region in regions for release in releases for step in found[region, release.name]]
    return _with_buckets(account, steps)


def _seen(
    account: Account, region: str, release: Release, rows: Iterable[Version], wishes: Wishes, *, grants: bool
) -> Seen:
    current = next((row for row in rows if row.current), None)
    try:
        registry = Registry(account.region(region))
        versions: list[Listed] = []
        complete = False
        for page, last in registry.versions(release.name):
            stop_if_interrupted()
            versions += page
            complete = last
            if not wishes.force and matching(release, page, current):
                break
        there = None if wishes.force else matching(release, versions, current)
        seen = Seen(versions=tuple(versions), complete=complete)
        if there is None:
            return seen
        if current is None or there.version != current.version or current.digest != release.digest:
            return replace(seen, known=registry.known(release.name, there.version))
        if grants or set(wishes.grants) != set(current.shared):
            return replace(seen, grants=registry.grants(release.name, there.version))
    except LayerbuildError as error:
        return Seen(error=error)
    return seen


def _with_buckets(account: Account, steps: list[Step]) -> list[Step]:
    """The steps; those that need a bucket which cannot be used are blocked."""
    problems: dict[tuple[str, str], LayerbuildError | None] = {}
    found = []
    for step in steps:
        if step.action == "create" and step.bucket:
            place = (step.region, step.bucket)
            if place not in problems:
                try:
                    Bucket(account.region(step.region), step.bucket).check()
                    problems[place] = None
                except LayerbuildError as error:
                    problems[place] = error
            problem = problems[place]
            if problem:
                step = replace(step, action="blocked", reasons=(problem.what,), error=problem)  # noqa: PLW2901
        found.append(step)
    return found
