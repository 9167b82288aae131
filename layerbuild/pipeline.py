"""From recipes to archives: lock, wheels, layer, archive. Composes the stages; each does its own work elsewhere."""

from __future__ import annotations

import hashlib
import json
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from layerbuild import __version__
from layerbuild.archive import MANIFEST_VERSION, Manifest, source_date, write_archive
from layerbuild.cache import remove_leftovers
from layerbuild.checks import accept, check_layer, known_findings, refuse_errors, select
from layerbuild.errors import BuildError, LayerbuildError, UsageError, machine_error
from layerbuild.layer import Layer, Place, compose
from layerbuild.locking import ensure_lock, update_lock
from layerbuild.process import interrupted
from layerbuild.target import ARCHITECTURES, default_targets, select_targets
from layerbuild.tree import tree_of_layer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from layerbuild.builders import Builder, Builders
    from layerbuild.bytecode import Compilation
    from layerbuild.cache import Cache
    from layerbuild.checks import Finding
    from layerbuild.index import Index
    from layerbuild.lock import Lock
    from layerbuild.proof import Prover, Smoke
    from layerbuild.recipe import Recipe
    from layerbuild.target import Target

Outcome = TypeVar("Outcome")

SHARED_LABEL = "any"
_GRACE_SECONDS = 2.0


class Reporter(Protocol):
    """What the pipeline tells the one who waits. Called from several threads."""

    def note(self, text: str) -> None:
        """Something worth knowing."""
        ...

    def warn(self, text: str) -> None:
        """Something that may be wrong."""
        ...

    def download(self, filename: str) -> AbstractContextManager[Callable[[int, int | None], object]]:
        """See `layerbuild.builders.Progress`."""
        ...


@dataclass(frozen=True, kw_only=True)
class Job:
    """One layer to make. `label` is the target's name, or ``any`` for a layer that serves all of `targets`."""

    recipe: Recipe
    targets: tuple[Target, ...]
    label: str

    @property
    def name(self) -> str:
        """The archive's name without its suffix."""
        return f"{self.recipe.name}-{self.label}"

    @property
    def shared(self) -> bool:
        """Whether one archive is to serve several runtimes."""
        return self.label == SHARED_LABEL


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to make layers: `project` holds recipes and locks, `out` gets the archives, `cache` keeps findings.

    `ignore` has the rules, or families of them, that are not applied; `base_image` is the base of build images;
    `prover` imports and compiles; `bytecode` is the mode instead of a recipe's own.
    """

    project: Path
    out: Path
    prover: Prover
    bytecode: str | None = None
    base_image: str | None = None
    locked: bool = False
    force: bool = False
    jobs: int = 4
    ignore: tuple[str, ...] = ()
    cache: Cache | None = None


@dataclass(frozen=True, kw_only=True)
class Made:
    """A finished layer. `status` is ``built`` or ``up-to-date``; `findings` are what its checks warn of."""

    job: Job
    path: Path
    manifest: Manifest
    status: str
    seconds: float
    findings: tuple[Finding, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The layer as it appears in ``--json`` output."""
        return {
            "status": self.status,
            "path": str(self.path),
            "seconds": round(self.seconds, 3),
            "manifest": self.manifest.data,
        }


@dataclass(frozen=True, kw_only=True)
class Failed:
    """A layer, or a lock, that could not be made."""

    job: Job
    error: LayerbuildError

    def as_json(self) -> dict[str, Any]:
        """The failure as it appears in ``--json`` output."""
        return {"recipe": self.job.recipe.name, "target": self.job.label, **self.error.as_json()}


def jobs_of(
    recipes: Sequence[Recipe], patterns: Sequence[str], own: Mapping[str, Sequence[str]] | None = None
) -> list[Job]:
    """What to make: each recipe for its own targets, or for those that `patterns` choose.

    A pattern chooses among a recipe's own targets first. Where it matches none of them and the recipe does not
    restrict its targets, it reaches the deprecated ones too. Of several recipes, those that no pattern fits are
    left out. `own` has the patterns of single recipes, by their names, instead.

    Raises:
        UsageError: nothing is left to make.
    """
    jobs = []
    problem: UsageError | None = None
    for recipe in recipes:
        try:
            targets = _chosen(recipe, (own or {}).get(recipe.name, patterns))
        except UsageError as error:
            problem = error
            continue
        if recipe.layout == "shared":
            jobs.append(Job(recipe=recipe, targets=recipe.targets, label=SHARED_LABEL))
        else:
            jobs += [Job(recipe=recipe, targets=(target,), label=str(target)) for target in targets]
    if not jobs and problem:
        raise problem
    return jobs


def _chosen(recipe: Recipe, patterns: Sequence[str]) -> tuple[Target, ...]:
    if not patterns or (recipe.layout == "shared" and SHARED_LABEL in patterns):
        return recipe.targets
    try:
        return select_targets(patterns, recipe.targets)
    except UsageError:
        select_targets(patterns)
        if recipe.targets == default_targets():
            return select_targets(patterns)
        raise UsageError(
            "unknown-target",
            f"the recipe {recipe.name} is not for {', '.join(patterns)}",
            causes=[f"its targets: {', '.join(map(str, recipe.targets))}"],
        ) from None


def deprecation_warnings(jobs: Iterable[Job]) -> list[str]:
    """A sentence for each runtime among the jobs that AWS has deprecated."""
    found = {target.runtime.name: target.runtime for job in jobs for target in job.targets}
    return [
        f"{name} was deprecated by AWS on {runtime.deprecation}: functions on it get no security patches"
        for name, runtime in found.items()
        if runtime.past_deprecation
    ]


def make(
    jobs: Sequence[Job], options: Options, builders: Builders, index: Index, reporter: Reporter
) -> Iterator[Made | Failed]:
    """Makes layers, several at a time; yields each as it is finished, in no fixed order.

    One that fails stops no other.
    """
    epoch = source_date()
    remove_leftovers(options.out)

    def work(job: Job) -> Made:
        return _make_one(job, options, builders, index, reporter, epoch)

    yield from _side_by_side(jobs, work, options.jobs)


def _side_by_side(jobs: Sequence[Job], work: Callable[[Job], Outcome], workers: int) -> Iterator[Outcome | Failed]:
    """The outcome of `work` for each job, as it comes; on an interrupt, threads are told and waited for briefly."""
    interrupted.clear()
    pool = ThreadPoolExecutor(max_workers=workers)
    futures = {pool.submit(work, job): job for job in jobs}
    try:
        for future in as_completed(futures):
            try:
                yield future.result()
            except LayerbuildError as error:
                yield Failed(job=futures[future], error=error)
            except OSError as error:
                yield Failed(job=futures[future], error=machine_error(error))
    except BaseException:
        interrupted.set()
        pool.shutdown(wait=False, cancel_futures=True)
        # Threads see the event at their next chunk and remove what they were writing.
        deadline = time.monotonic() + _GRACE_SECONDS
        while time.monotonic() < deadline and not all(future.done() for future in futures):
            time.sleep(0.01)
        raise
    pool.shutdown()


def _make_one(job: Job, options: Options, builders: Builders, index: Index, reporter: Reporter, epoch: int) -> Made:
    started = time.monotonic()
    recipe = job.recipe
    builder = builders.of(recipe)
    locks = [
        ensure_lock(recipe, target, options.project, index, reporter.note, builder=builder, locked=options.locked)
        for target in job.targets
    ]
    lock = _one_lock(job, locks)
    inputs = _inputs_digest(job, lock, epoch, options)
    path = options.out / f"{job.name}.zip"
    beside = path.with_suffix(".json")
    manifest = None if options.force else Manifest.read(beside)
    if manifest and manifest.inputs == inputs and manifest.describes(path):
        return Made(job=job, path=path, manifest=manifest, status="up-to-date", seconds=time.monotonic() - started)
    layer = compose_job(job, lock, builder)
    for pattern in layer.idle_patterns:
        reporter.warn(f"{job.name}: the prune pattern {pattern!r} matches nothing")
    findings = check_job(job, layer, options, reporter)
    smoke, layer, compiled = _prove(job, layer, options, builders, index, reporter)
    written = write_archive(layer.files, path, epoch=epoch)
    manifest = Manifest.of(
        layer,
        written,
        recipe=recipe.name,
        target=job.label,
        runtimes=sorted({target.runtime.name for target in job.targets}, key=lambda name: int(name.split(".")[1])),
        architectures=[arch for arch in ARCHITECTURES if any(target.arch == arch for target in job.targets)],
        archive=path.name,
        lock_digest=lock.digest,
        inputs_digest=inputs,
        smoke=smoke.as_json(),
        bytecode=compiled.as_json() if compiled else None,
    )
    manifest.write(beside)
    seconds = time.monotonic() - started
    if options.cache:
        options.cache.keep_seconds(job.name, seconds)
    return Made(job=job, path=path, manifest=manifest, status="built", seconds=seconds, findings=findings)


def _prove(
    job: Job, layer: Layer, options: Options, builders: Builders, index: Index, reporter: Reporter
) -> tuple[Smoke, Layer, Compilation | None]:
    """Imports the layer's modules on each of its runtimes, and adds the bytecode that is wanted."""
    recipe, prover = job.recipe, options.prover
    passed = [prover.smoke(recipe, target, layer, job.name) for target in job.targets]
    smoke = next((one for one in passed if one.status != "passed"), passed[0])
    wanted = replace(recipe.bytecode, mode=options.bytecode or recipe.bytecode.mode)
    if job.shared and wanted.mode != "off":
        reporter.note(f"{job.name} gets no bytecode: that is for one Python, and a shared layer serves several")
    if job.shared or wanted.mode == "off":
        return smoke, layer, None

    def loaded() -> Smoke:
        """Which modules are loaded is the same on both architectures, as near as matters."""
        twins = [one for one in recipe.targets if one.runtime == job.targets[0].runtime and one != job.targets[0]]
        if smoke.status != "not run" or wanted.mode == "all" or not twins:
            return smoke
        twin = Job(recipe=recipe, targets=(twins[0],), label=str(twins[0]))
        builder = builders.of(recipe)
        try:
            lock = ensure_lock(recipe, twins[0], options.project, index, reporter.note, builder=builder, locked=True)
            return prover.smoke(recipe, twins[0], compose_job(twin, lock, builder), twin.name)
        except LayerbuildError as error:  # the twin's own make will tell more
            return replace(smoke, reason=f"{smoke.reason}; {twins[0]}: {error.what}")

    layer, compiled = prover.compiled(layer, wanted, job.targets[0], loaded, job.name, recipe.size_budget)
    if compiled and compiled.left_out:
        reporter.note(f"{job.name}: there is no room for the bytecode of {compiled.left_out} modules")
    return smoke, layer, compiled


def compose_job(job: Job, lock: Lock, builder: Builder) -> Layer:
    """The layer of a job, not written anywhere.

    Raises:
        BuildError: a wheel cannot be had, or the wheels do not go together.
    """
    recipe = job.recipe
    wheels = builder.wheels(lock, job.targets[0], pure=job.shared, name=recipe.name, build=recipe.build)
    place = Place.shared() if job.shared else Place.versioned(job.targets[0].runtime.version)
    return compose(wheels, place, prune=recipe.prune, scripts=recipe.scripts)


def check_job(job: Job, layer: Layer, options: Options, reporter: Reporter) -> tuple[Finding, ...]:
    """Checks a layer before anything of it is written; tells how many warnings there are, and returns them.

    Raises:
        CheckError: there are errors that its recipe does not accept.
    """
    budget = job.recipe.size_budget

    def work() -> list[Finding]:
        return check_layer(tree_of_layer(layer, job.name), job.targets, budget=budget)

    key = f"{layer.content_digest} {' '.join(map(str, job.targets))} {budget}"
    found = accept(known_findings(key, options.cache, work), job.recipe.accept)
    found = select(found, (), options.ignore)
    refuse_errors(found, job.name)
    warnings = [one for one in found if one.severity == "warning" and one.accepted is None]
    # An accept may be for another target: `check` knows of all.
    warnings = [one for one in warnings if one.code != "accept-unused"]
    if codes := [one.code for one in warnings]:
        told = f"{len(codes)} {'warning' if len(codes) == 1 else 'warnings'} ({', '.join(dict.fromkeys(codes))})"
        reporter.note(f"{job.name}: {told}; `layerbuild check {job.recipe.name}` says more")
    return tuple(warnings)


@dataclass(frozen=True, kw_only=True)
class Locked:
    """A lock that is now right. `changed` says whether its file was written."""

    job: Job
    path: Path
    changed: bool

    def as_json(self) -> dict[str, Any]:
        """The lock as it appears in ``--json`` output."""
        return {
            "recipe": self.job.recipe.name,
            "target": self.job.label,
            "path": str(self.path),
            "changed": self.changed,
        }


def lock_all(
    jobs: Sequence[Job], project: Path, builders: Builders, index: Index, *, upgrade: Sequence[str] | None = None
) -> Iterator[Locked | Failed]:
    """Locks every target of every job; yields each as it is finished, in no fixed order.

    Two at a time, as a resolver keeps a core busy.
    """
    single = [Job(recipe=job.recipe, targets=(target,), label=str(target)) for job in jobs for target in job.targets]

    def work(job: Job) -> Locked:
        builder = builders.of(job.recipe)
        path, changed = update_lock(job.recipe, job.targets[0], project, index, builder=builder, upgrade=upgrade)
        return Locked(job=job, path=path, changed=changed)

    yield from _side_by_side(single, work, 2)


def _one_lock(job: Job, locks: Sequence[Lock]) -> Lock:
    """The lock of a job: a shared layer needs every runtime's to say the same."""
    first = locks[0]
    for target, lock in zip(job.targets, locks, strict=True):
        if lock.pins != first.pins:
            differing = sorted(
                {str(pin) for pin in (*lock.pins, *first.pins) if pin not in lock.pins or pin not in first.pins}
            )
            raise BuildError(
                "locks-differ",
                f"{job.recipe.name} cannot be one layer for all runtimes: its locks differ",
                causes=[f"{job.targets[0]} and {target} differ in {', '.join(differing)}"],
                hint='set layout = "versioned", or restrict its targets',
            )
    return first


def _inputs_digest(job: Job, lock: Lock, epoch: int, options: Options) -> str:
    """The digest of all that decides an archive's bytes, and whether it is written at all."""
    recipe = job.recipe
    parts = [__version__, MANIFEST_VERSION, recipe.name, job.label, [str(target) for target in job.targets]]
    parts += [lock.digest, recipe.layout, recipe.scripts, recipe.prune.sets, recipe.prune.patterns, epoch]
    # What decides whether it may be written.
    parts += [recipe.size_budget, [[one.code, one.package] for one in recipe.accept], sorted(options.ignore)]
    # What is built, and in what; what is imported, and compiled by what.
    parts += [asdict(recipe.build), options.base_image, options.bytecode]
    parts += options.prover.inputs(recipe, job.targets)
    return "sha256:" + hashlib.sha256(json.dumps(parts).encode()).hexdigest()
