"""`layerbuild matrix`: every layer in exactly one job, jobs of about the same length; `make recipe@target`."""

from __future__ import annotations

import json
import random
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerbuild.cache import Cache
from layerbuild.matrix import MOST_JOBS, Piece, document, shards
from layerbuild.pipeline import Failed, Job, Made
from layerbuild.target import default_targets
from tests.conftest import Ran

Cli = Callable[..., Ran]
TARGETS = [str(target) for target in default_targets()]


def make_recipes(project: Path, *names: str, more: str = "") -> None:
    for name in names:
        folder = project / "recipes" / name
        folder.mkdir(parents=True)
        (folder / "recipe.toml").write_text(f'name = "{name}"\nrequirements = ["{name}"]\n{more}')


def git(project: Path, *arguments: str) -> None:
    names = ["-c", "user.name=Some One", "-c", "user.email=one@example.invalid"]
    subprocess.run(["git", *names, *arguments], cwd=project, check=True, capture_output=True)


def pieces_of(found: dict[str, Any]) -> list[str]:
    return [piece for row in found["include"] for piece in row["layers"].split()]


@pytest.mark.parametrize("kind", ["unknown", "even", "uneven"])
def test_300_recipes_for_8_targets_are_256_jobs_of_the_same_length(kind: str) -> None:
    rand = random.Random(1)
    kinds: dict[str, Callable[[], float | None]] = {
        "unknown": lambda: None,
        "even": lambda: 30.0,
        "uneven": lambda: rand.lognormvariate(3, 1),
    }
    seconds = kinds[kind]
    targets = TARGETS[-8:]
    pieces = [
        Piece(recipe=f"recipe{number}", label=target, arch=target.rpartition("-")[2], seconds=seconds())
        for number in range(300)
        for target in targets
    ]
    found = shards(pieces, length=60)
    assert len(found) <= MOST_JOBS
    assert Counter(str(piece) for shard in found for piece in shard.pieces) == Counter(map(str, pieces))
    assert all(piece.arch == shard.arch for shard in found for piece in shard.pieces)
    mean = sum(shard.seconds for shard in found) / len(found)
    # A single layer that takes longer than a shard should is not to be helped.
    longest = max((piece.seconds or 0 for piece in pieces), default=0)
    assert max(shard.seconds for shard in found) <= max(1.2 * mean, longest)
    assert min(shard.seconds for shard in found) >= 0.8 * mean


@given(
    st.lists(st.tuples(st.sampled_from(["x86_64", "arm64"]), st.none() | st.floats(0, 1e4)), max_size=60),
    st.integers(2, 256),
    st.floats(0.1, 1e5),
)
def test_every_layer_is_in_one_job_whatever_is_known(
    rows: list[tuple[str, float | None]], most: int, length: float
) -> None:
    pieces = [Piece(recipe=f"r{n}", label="any", arch=arch, seconds=time) for n, (arch, time) in enumerate(rows)]
    found = shards(pieces, most=most, length=length)
    assert len(found) <= most
    assert all(shard.pieces for shard in found)
    assert sorted(pieces_of(document(found))) == sorted(map(str, pieces))


def test_the_line_is_json_that_a_workflow_takes(project: Path, cli: Cli) -> None:
    make_recipes(project, "one", "two", more='targets = ["python3.13-*"]\n')
    ran = cli("matrix")
    assert ran.out.count("\n") == 1
    found = json.loads(ran.out)
    assert sorted(pieces_of(found)) == sorted(
        f"{name}@python3.13-{arch}" for name in ("one", "two") for arch in ("x86_64", "arm64")
    )
    assert {(row["arch"], row["runner"]) for row in found["include"]} == {
        ("x86_64", "ubuntu-24.04"), ("arm64", "ubuntu-24.04-arm"),
    }  # fmt: skip


def test_times_of_the_last_time_decide(project: Path, cli: Cli, tmp_path: Path) -> None:
    make_recipes(project, "slow", "quick", "other", more='targets = ["python3.13-x86_64"]\n')
    cache = Cache(tmp_path / "cache")
    for name, seconds in (("slow", 100.0), ("quick", 1.0), ("other", 2.0)):
        cache.keep_seconds(f"{name}-python3.13-x86_64", seconds)
    rows = cli("matrix", "--jobs", "2", "--minutes", "1").json["include"]
    assert sorted(row["layers"] for row in rows) == [
        "other@python3.13-x86_64 quick@python3.13-x86_64", "slow@python3.13-x86_64",
    ]  # fmt: skip
    assert len(cli("matrix", "--minutes", "10").json["include"]) == 1


def test_only_what_has_changed_is_built(project: Path, cli: Cli) -> None:
    make_recipes(project, "one", "two", "three", more='targets = ["python3.13-x86_64"]\n')
    (project / "readme.md").write_text("x")
    git(project, "init", "-b", "main")
    git(project, "add", "-A")
    git(project, "commit", "-m", "first")
    git(project, "checkout", "-b", "work")
    assert cli("matrix", "--changed-since", "main").json == {"include": []}
    (project / "readme.md").write_text("y")
    (project / "recipes/one/recipe.toml").write_text('name = "one"\nrequirements = ["one>1"]\n')
    git(project, "commit", "-am", "second")
    assert {piece.partition("@")[0] for piece in pieces_of(cli("matrix", "--changed-since", "main").json)} == {"one"}
    (project / "recipes/two/locks").mkdir()
    (project / "recipes/two/locks/python3.13-x86_64.txt").write_text("two==1\n")
    found = pieces_of(cli("matrix", "--changed-since", "main").json)
    assert {piece.partition("@")[0] for piece in found} == {"one", "two"}
    (project / "layerbuild.toml").write_text("[make]\njobs = 2\n")
    found = pieces_of(cli("matrix", "--changed-since", "main").json)
    assert {piece.partition("@")[0] for piece in found} == {"one", "two", "three"}


@pytest.mark.parametrize("revision", ["nowhere", "--output=x", ""])
def test_a_revision_that_is_none_is_told(project: Path, cli: Cli, revision: str) -> None:
    make_recipes(project, "one")
    git(project, "init")
    ran = cli("matrix", "--changed-since", revision)
    assert (ran.code, "[git-failed]" in ran.err) == (3, True)
    assert not (project / "x").exists()


def test_a_shared_layer_is_one_piece(project: Path, cli: Cli) -> None:
    make_recipes(project, "one", more='layout = "shared"\n')
    assert pieces_of(cli("matrix").json) == ["one@any"]


@pytest.mark.parametrize(
    ("words", "labels"),
    [
        (["one@python3.13-arm64"], ["one-python3.13-arm64"]),
        (
            ["one@python3.13-*", "two"],
            ["one-python3.13-arm64", "one-python3.13-x86_64", *(f"two-{t}" for t in TARGETS)],
        ),
        (["one@python3.13-arm64", "one"], [f"one-{target}" for target in TARGETS]),
        (["one@python3.13-arm64", "one@python3.12-arm64"], ["one-python3.12-arm64", "one-python3.13-arm64"]),
    ],
)
def test_a_recipe_at_a_target_is_made_for_that(
    project: Path, cli: Cli, words: list[str], labels: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_recipes(project, "one", "two")
    seen: list[str] = []

    def make(jobs: Sequence[Job], *_: object) -> Iterator[Made | Failed]:
        seen.extend(job.name for job in jobs)
        return iter(())

    monkeypatch.setattr("layerbuild.pipeline.make", make)
    assert cli("make", *words).code == 0
    assert sorted(seen) == sorted(labels)


def test_a_target_that_is_none_is_told(project: Path, cli: Cli) -> None:
    make_recipes(project, "one")
    assert cli("make", "one@python9").code == 2
    assert cli("make", "none@python3.13-arm64").code == 2
