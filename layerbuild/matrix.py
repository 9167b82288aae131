"""Which layers have to be built, dealt out to jobs of about the same length."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

from layerbuild.errors import BuildError, UsageError
from layerbuild.process import run

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

# https://docs.github.com/en/actions/reference/limits: a matrix makes at most 256 jobs of a workflow's run.
MOST_JOBS = 256
# GitHub's own machines: https://docs.github.com/en/actions/reference/runners/github-hosted-runners
RUNNERS = {"x86_64": "ubuntu-24.04", "arm64": "ubuntu-24.04-arm"}
_UNKNOWN_SECONDS = 20.0
# What changes every layer, whatever its recipe says.
_FOR_ALL = ("layerbuild.toml", "pyproject.toml")


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """One layer to build: recipe, target or ``any``, the architecture to build it on, and how long it takes."""

    recipe: str
    label: str
    arch: str
    seconds: float | None = None

    def __str__(self) -> str:
        return f"{self.recipe}@{self.label}"


@dataclass(kw_only=True, slots=True)
class Shard:
    """What one machine builds."""

    arch: str
    pieces: list[Piece] = field(default_factory=list)
    seconds: float = 0.0


def shards(pieces: Sequence[Piece], *, most: int = MOST_JOBS, length: float) -> list[Shard]:
    """Deals pieces out, the longest first, each to the shard that has the least so far.

    That is at most a third longer than the best way (R. L. Graham, Bounds on Multiprocessing Timing Anomalies, 1969),
    and much less with many short pieces.

    Args:
        pieces: what is to be built; how long one takes is guessed from the others where that is not known.
        most: shards at the most, of all architectures together.
        length: seconds that a shard should take.

    Raises:
        UsageError: there are more architectures than shards.
    """
    known = [piece.seconds for piece in pieces if piece.seconds is not None]
    guess = median(known) if known else _UNKNOWN_SECONDS
    groups: dict[str, list[tuple[float, str, Piece]]] = {}
    for piece in pieces:
        seconds = guess if piece.seconds is None else piece.seconds
        groups.setdefault(piece.arch, []).append((seconds, str(piece), piece))
    if len(groups) > most:
        raise UsageError("usage", f"{len(groups)} architectures need as many jobs", hint="raise --jobs")
    totals = {arch: sum(row[0] for row in rows) for arch, rows in groups.items()}
    counts = _counts({arch: len(rows) for arch, rows in groups.items()}, totals, most, length)
    found: list[Shard] = []
    for arch in sorted(groups):
        made = [Shard(arch=arch) for _ in range(counts[arch])]
        heap = [(0.0, 0, number) for number in range(len(made))]
        for seconds, _, piece in sorted(groups[arch], key=lambda row: (-row[0], row[1])):
            taken, count, number = heapq.heappop(heap)
            made[number].pieces.append(piece)
            made[number].seconds = taken + seconds
            heapq.heappush(heap, (taken + seconds, count + 1, number))
        found += made
    return found


def _counts(pieces: Mapping[str, int], totals: Mapping[str, float], most: int, length: float) -> dict[str, int]:
    """How many shards each architecture gets: as many as it takes, or its part of `most` where these are too many."""
    wanted = {arch: min(pieces[arch], max(1, math.ceil(total / length))) for arch, total in totals.items()}
    if sum(wanted.values()) <= most:
        return wanted
    counts = dict.fromkeys(totals, 1)
    # One after the other goes to whom each shard would take longest.
    while sum(counts.values()) < most:
        open_ones = [arch for arch in sorted(counts) if counts[arch] < wanted[arch]]
        neediest = max(open_ones, key=lambda arch: totals[arch] / counts[arch])
        counts[neediest] += 1
    return counts


def document(found: Sequence[Shard]) -> dict[str, Any]:
    """The shards as ``strategy.matrix`` takes them."""
    numbers: dict[str, int] = {}
    totals = {shard.arch: sum(other.arch == shard.arch for other in found) for shard in found}
    rows = []
    for shard in found:
        numbers[shard.arch] = number = numbers.get(shard.arch, 0) + 1
        rows.append(
            {
                "name": f"{shard.arch} {number}/{totals[shard.arch]}",
                "runner": RUNNERS[shard.arch],
                "arch": shard.arch,
                "layers": " ".join(sorted(map(str, shard.pieces))),
                "count": len(shard.pieces),
                "seconds": round(shard.seconds),
            }
        )
    return {"include": rows}


def changed_recipes(project: Path, revision: str, folders: Mapping[str, Path]) -> set[str]:
    """The recipes in the project that have changed since it branched off from a revision, committed or not.

    Args:
        project: a folder of a git repository.
        revision: a branch, tag or commit.
        folders: name of each recipe to its folder; those outside the repository have not changed.

    Raises:
        BuildError: git cannot say.
    """
    if revision.startswith("-"):
        raise BuildError("git-failed", f"{revision!r} is not a revision")
    base = _git(project, "merge-base", revision, "HEAD").strip()
    top = _git(project, "rev-parse", "--show-toplevel").strip()
    listed = _git(project, "diff", "--name-only", "--no-renames", "-z", base)
    listed += _git(project, "ls-files", "--others", "--exclude-standard", "--full-name", "-z")
    paths = [f"{top}/{path}" for path in listed.split("\0") if path]
    if any(path == str(project.resolve() / name) for path in paths for name in _FOR_ALL):
        return set(folders)
    return {name for name, folder in folders.items() if _any_below(folder.resolve(), paths)}


def _any_below(folder: Path, paths: Iterable[str]) -> bool:
    return any(path.startswith(f"{folder}/") for path in paths)


def _git(project: Path, *arguments: str) -> str:
    try:
        done = run(["git", "-C", project, *arguments])
    except OSError as error:
        raise BuildError("git-failed", "there is no git here", causes=[str(error)]) from None
    if done.returncode:
        hint = "a shallow clone lacks earlier commits: fetch-depth: 0 with actions/checkout"
        causes = done.stderr.strip().splitlines()[-3:]
        raise BuildError("git-failed", f"git {arguments[0]} does not say what has changed", causes=causes, hint=hint)
    return done.stdout
