"""The catalogue: nothing that was recorded is lost, whatever ends, and whoever writes at the same time."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import layerbuild
from layerbuild import catalogue as module
from layerbuild.catalogue import Catalogue, Content, Version, one_at_a_time
from layerbuild.errors import UsageError
from layerbuild.process import Interrupted, interrupted
from tests.aws_server import AwsServer
from tests.conftest import Ran
from tests.publishing import made_layer, pretend_to_have_credentials

SCHEMA = json.loads((Path(layerbuild.__file__).parent / "schemas/catalogue.schema.json").read_text("utf-8"))
ROOT = Path(__file__).parents[2]
ACCOUNT = "123456789012"
posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX")


def version(number: int = 1, name: str = "demo", region: str = "eu-west-1", **given: Any) -> Version:
    """A row; `digest` is any text."""
    account = given.get("account", ACCOUNT)
    text = f"{name} {number}"
    values: dict[str, Any] = {
        "account": account,
        "recipe": name,
        "target": "python3.13-arm64",
        "arn": f"arn:aws:lambda:{region}:{account}:layer:{name}:{number}",
        "code_sha256": "A" * 43 + "=",
        "size": 1234,
        "published": "2026-11-01T10:00:00.000+0000",
        **given,
        "digest": "sha256:" + hashlib.sha256(given.get("digest", text).encode()).hexdigest(),
    }
    return Version(name=name, version=number, region=region, **values)


def content(row: Version, **given: Any) -> Content:
    values: dict[str, Any] = {
        "recipe": row.recipe,
        "target": row.target,
        "packages": ("größe 1.0", "other 2.0"),
        "licence": "MIT",
        "runtimes": ("python3.13",),
        "architectures": ("arm64",),
        "unzipped": 5678,
        "layerbuild": "1.0",
        **given,
    }
    return Content(**values)


def record(catalogue: Catalogue, *rows: Version) -> None:
    for row in rows:
        catalogue.record(row, content(row))


def document(rows: Iterable[Version]) -> dict[str, Any]:
    """A file's content, as if these rows had been recorded."""
    rows = list(rows)
    contents = {row.content_key: asdict(content(row)) for row in rows}
    return {"format": 1, "contents": contents, "versions": [asdict(row) for row in rows]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "catalogue.json"


# Reading and writing


def test_a_catalogue_need_not_exist(path: Path) -> None:
    catalogue = Catalogue(path)
    assert catalogue.versions() == []
    assert catalogue.by_layer() == {}
    assert catalogue.content(version()) is None
    assert not path.exists()


def test_what_is_recorded_is_in_the_file_at_once(path: Path) -> None:
    row = version(7, shared=("account:111111111111", "public"))
    Catalogue(path).record(row, content(row))
    again = Catalogue(path)
    assert again.versions() == again.of_layer(*row.place) == [row]
    assert again.content(row) == content(row)
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_a_current_version_takes_the_place_of_the_former_of_its_layer_only(path: Path) -> None:
    catalogue = Catalogue(path)
    others = [version(1, "other"), version(1, region="us-east-1"), version(1, account="999999999999")]
    record(catalogue, version(1), *others, version(2))
    record(catalogue, version(3, current=False))
    for one in (catalogue, Catalogue(path)):
        assert [(row.version, row.current) for row in one.of_layer(ACCOUNT, "eu-west-1", "demo")] == [
            (3, False), (2, True), (1, False)
        ]  # fmt: skip
        assert {row.place for row in one.versions(current=True)} == {row.place for row in [version(2), *others]}
    record(catalogue, replace(version(1), shared=("public",)))
    assert [row.version for row in Catalogue(path).versions(current=True) if row.place == version().place] == [1]


def test_a_layer_that_is_called_otherwise_now_takes_the_place_of_the_former(path: Path) -> None:
    catalogue = Catalogue(path)
    others = [
        version(1, "x"),
        version(1, "y", recipe="demo", target="any"),
        version(1, "z", "us-east-1", recipe="demo"),
    ]
    record(catalogue, version(4), *others, version(1, "renamed", recipe="demo"))
    assert [row.name for row in Catalogue(path).versions(current=True)] == ["y", "renamed", "z", "x"]


def test_one_content_of_two_targets_is_told_of_each(path: Path) -> None:
    rows = [
        version(1, "a", recipe="demo", digest="same"),
        version(1, "b", recipe="demo", target="any", digest="same"),
    ]
    record(Catalogue(path), *rows)
    found = Catalogue(path)
    assert [one.target for row in rows if (one := found.content(row))] == ["python3.13-arm64", "any"]


def test_with_whom_a_version_is_shared_is_written_down_alone(path: Path) -> None:
    catalogue = Catalogue(path)
    record(catalogue, version(1), version(2))
    stale = version(1)
    changed_row = catalogue.shared(stale, ["public", "account:111111111111"])
    assert (changed_row.shared, changed_row.current) == (("account:111111111111", "public"), False)
    assert Catalogue(path).of_layer(*stale.place) == [version(2), changed_row], "the current one stays that"
    before = path.read_bytes()
    assert catalogue.shared(version(9), ["public"]).shared == ("public",)
    assert path.read_bytes() == before, "what was forgotten meanwhile does not come back"


def test_versions_are_sorted_and_grouped(path: Path) -> None:
    rows = [version(n, name, region) for name in ("b", "a") for region in ("us-east-1", "eu-west-1") for n in (10, 9)]
    catalogue = Catalogue(path)
    record(catalogue, *rows)
    assert [(row.recipe, row.region, row.version) for row in catalogue.versions()] == sorted(
        (row.recipe, row.region, row.version) for row in rows
    )
    groups = catalogue.by_layer()
    assert {place: [row.version for row in found] for place, found in groups.items()} == {
        row.place: [9, 10] for row in rows
    }


def test_the_same_rows_give_the_same_bytes_in_any_order_a_line_each(path: Path) -> None:
    rows = [version(n, name) for name in ("b", "a") for n in (10, 9, 1)]
    texts = set()
    for order in (rows, rows[::-1], rows[2:] + rows[:2]):
        path.unlink(missing_ok=True)
        record(Catalogue(path), *(replace(row, current=False) for row in order))
        texts.add(path.read_bytes())
    (text,) = texts
    lines = text.decode("ascii").splitlines()
    assert [line.count('"arn"') for line in lines if '"arn"' in line] == [1] * 6
    assert [json.loads(line.rstrip(","))["version"] for line in lines if '"arn"' in line] == [1, 9, 10, 1, 9, 10]


def test_what_is_forgotten_is_gone_with_what_only_it_had(path: Path) -> None:
    catalogue = Catalogue(path)
    record(catalogue, version(1), version(2, digest="same"), version(3, digest="same"))
    catalogue.forget(*version().place, [1, 2, 99])
    assert [row.version for row in Catalogue(path).versions()] == [3]
    assert Catalogue(path).content(version(1)) is None
    assert Catalogue(path).content(version(3, digest="same")) is not None
    catalogue.forget(*version().place, [3])
    assert Catalogue(path).versions() == []
    jsonschema.validate(json.loads(path.read_text()), SCHEMA)


def test_to_forget_what_is_not_there_writes_nothing(path: Path) -> None:
    catalogue = Catalogue(path)
    catalogue.forget(*version().place, [1])
    assert not path.exists()
    record(catalogue, version(1))
    path.unlink()
    catalogue.forget(ACCOUNT, "eu-west-1", "other", [1])
    assert not path.exists()


PLACES = st.tuples(st.integers(1, 4), st.sampled_from(["a", "b"]), st.sampled_from(["eu-west-1", "us-east-1"]))
TEXTS = st.text(max_size=5)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.booleans(), PLACES, st.booleans(), st.integers(0, 2), TEXTS), max_size=12))
def test_any_history_reads_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, history: Sequence[tuple[bool, Any, bool, int, str]]
) -> None:
    path = tmp_path_factory.mktemp("history") / "catalogue.json"
    catalogue, model = Catalogue(path), dict[tuple[Any, ...], Version]()
    for forget, key, current, digest, text in history:
        row = version(*key, current=current, digest=str(digest), published=text)
        if forget:
            catalogue.forget(*row.place, [row.version])
            model.pop((row.place, row.version), None)
            continue
        catalogue.record(row, content(row, licence=text))
        if current:
            model = {k: replace(v, current=v.current and k[0] != row.place) for k, v in model.items()}
        model[row.place, row.version] = row
    for one in (catalogue, Catalogue(path)):
        assert sorted(one.versions(), key=str) == sorted(model.values(), key=str)
        assert all(one.content(row) for row in model.values())


# Damaged files

GOOD = document([version(1), version(2)])


def without(*keys: str | int) -> dict[str, Any]:
    found = json.loads(json.dumps(GOOD))
    place = found
    for key in keys[:-1]:
        place = place[key]
    del place[keys[-1]]
    return dict(found)


def changed(value: Any, *keys: str | int) -> dict[str, Any]:
    found = json.loads(json.dumps(GOOD))
    place = found
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    return dict(found)


KEY = next(iter(GOOD["contents"]))
DAMAGED: dict[str, bytes | dict[str, Any]] = {
    "empty": b"",
    "cut": json.dumps(GOOD).encode()[:-40],
    "a conflict of a merge": b"<<<<<<< HEAD\n" + json.dumps(GOOD).encode(),
    "not UTF-8": b'{"format": 1, "contents": {}, "versions": ["\xff"]}',
    "a list": b"[]",
    "a number": b"1",
    "nothing": b"{}",
    "nested": b"[" * 100_000,
    "a number of many digits": b'{"format": ' + b"9" * 5000 + b"}",
    "format is text": changed("1", "format"),
    "no versions": without("versions"),
    "no contents": without("contents"),
    "contents are a list": changed([], "contents"),
    "versions are a table": changed({"a": 1}, "versions"),
    "versions are text": changed("abc", "versions"),
    "a row is text": changed("text", "versions", 0),
    "a row is null": changed(None, "versions", 0),
    "a content is a list": changed([1], "contents", KEY),
    "a content is missing": without("contents", KEY),
    "a number is true": changed(True, "versions", 0, "version"),
    "a number is a fraction": changed(1.0, "versions", 0, "version"),
    "a number is text": changed("1", "versions", 0, "version"),
    "current is 1": changed(1, "versions", 0, "current"),
    "shared is text": changed("public", "versions", 0, "shared"),
    "shared holds a number": changed([1], "versions", 0, "shared"),
    "packages is null": changed(None, "contents", KEY, "packages"),
    **{f"no {key} of a version": without("versions", 1, key) for key in GOOD["versions"][0]},
    **{f"no {key} of a content": without("contents", KEY, key) for key in GOOD["contents"][KEY]},
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_file_is_told_and_left_alone(path: Path, case: str) -> None:
    damaged = DAMAGED[case]
    data = damaged if isinstance(damaged, bytes) else json.dumps(damaged).encode()
    path.write_bytes(data)
    with pytest.raises(UsageError) as caught:
        Catalogue(path)
    assert caught.value.code == "catalogue-invalid"
    assert str(path) in caught.value.what
    assert path.read_bytes() == data


def test_a_file_of_a_newer_layerbuild_is_told_as_such(path: Path) -> None:
    path.write_text(json.dumps({"format": 2, "rows": []}))
    with pytest.raises(UsageError, match="was written by a newer layerbuild"):
        Catalogue(path)


@settings(max_examples=150)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=3), lambda child: st.lists(
    child, max_size=3) | st.dictionaries(st.sampled_from(["format", "contents", "versions", "account"]), child)
))  # fmt: skip
def test_no_json_at_all_makes_it_fail_otherwise(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(value))
    with suppress(UsageError):
        Catalogue(path)


def test_unknown_members_are_passed_over(path: Path) -> None:
    path.write_text(json.dumps(changed("x", "versions", 0, "new") | {"more": 1}))
    assert len(Catalogue(path).versions()) == 2


def test_two_current_versions_as_a_merge_leaves_them_are_settled_by_the_next_record(path: Path) -> None:
    path.write_text(json.dumps(document([version(1), version(2)])))
    catalogue = Catalogue(path)
    assert len(catalogue.versions(current=True)) == 2
    record(catalogue, version(2))
    assert [row.version for row in Catalogue(path).versions(current=True)] == [2]


@posix
def test_a_file_that_cannot_be_written_stays_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(Catalogue(path), version(1))
    before = path.read_bytes()
    catalogue = Catalogue(path)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(module, "write_text", fail)
    with pytest.raises(OSError, match="No space"):
        record(catalogue, version(2))
    assert path.read_bytes() == before
    monkeypatch.undo()
    record(catalogue, version(3))
    assert [row.version for row in Catalogue(path).versions()] == [1, 2, 3], "what failed is written with the next"


# Its schema


def test_the_schema_is_one_and_holds_for_what_is_written(path: Path) -> None:
    jsonschema.validators.validator_for(SCHEMA).check_schema(SCHEMA)
    shared = ("account:111111111111", "organization:o-a1b2c3d4e5", "public")
    record(Catalogue(path), version(1), version(2, shared=shared), version(1, "other"))
    data = json.loads(path.read_text())
    jsonschema.validate(data, SCHEMA)
    assert list(data) == SCHEMA["required"]
    assert list(data["versions"][0]) == SCHEMA["$defs"]["version"]["required"]
    assert list(data["contents"][KEY]) == SCHEMA["$defs"]["content"]["required"]


@pytest.mark.parametrize(
    "wrong",
    [
        *(without("versions", 0, key) for key in GOOD["versions"][0]),
        *(without("contents", KEY, key) for key in GOOD["contents"][KEY]),
        *(without(key) for key in GOOD),
        changed(2, "format"),
        changed(GOOD["contents"][KEY], "contents", "md5:00"),
        changed("x", "versions", 0, "more"),
        changed("12345", "versions", 0, "account"),
        changed("a.b", "versions", 0, "name"),
        changed(0, "versions", 0, "version"),
        changed("arn:aws:lambda:eu-west-1:123456789012:layer:demo", "versions", 0, "arn"),
        changed("deadbeef", "versions", 0, "code_sha256"),
        changed(["everyone"], "versions", 0, "shared"),
        changed(GOOD["versions"][1], "versions", 0),
    ],
)
def test_the_schema_refuses_what_is_not_a_catalogue(wrong: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, SCHEMA)


def test_what_publish_writes_follows_the_schema(
    project: Path, cli: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_to_have_credentials(monkeypatch)
    server = AwsServer()
    try:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        made_layer(project, "demo", licence="")
        made_layer(project, "both", "any", packages={"one": "1.0", "two": "2.0"})
        ran = cli("publish", "--region", "eu-west-1", "--region", "us-east-1", "--public")
        assert ran.code == 0, ran.err
    finally:
        server.stop()
    data = json.loads((project / "catalogue.json").read_text())
    jsonschema.validate(data, SCHEMA)
    assert (len(data["versions"]), len(data["contents"])) == (4, 2)


# Many at once


def test_threads_that_record_at_once_lose_nothing(path: Path) -> None:
    catalogue = Catalogue(path)
    rows = [version(n, f"layer{m}", f"eu-west-{r}") for n in range(1, 4) for m in range(8) for r in range(1, 9)]
    with ThreadPoolExecutor(32) as pool:
        reads = [pool.submit(lambda: len(catalogue.versions()) + len(Catalogue(path).versions())) for _ in range(20)]
        for done in [pool.submit(record, catalogue, row) for row in rows] + reads:
            done.result()
    found = Catalogue(path)
    assert {(row.place, row.version) for row in found.versions()} == {(row.place, row.version) for row in rows}
    current = [row.place for row in found.versions(current=True)]
    assert sorted(current) == sorted({row.place for row in rows}), "each layer has one"


PROCESS = """
import sys
from pathlib import Path
from layerbuild.catalogue import Catalogue, one_at_a_time
from tests.unit.test_catalogue import record, version
path, locks, name = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
for number in range(1, 16):
    with one_at_a_time(path, locks, lambda: None):
        record(Catalogue(path), version(number, name))
"""


def start(program: str, *arguments: str | Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", program, *map(str, arguments)], cwd=ROOT)


def test_processes_that_take_turns_lose_nothing(path: Path) -> None:
    running = [start(PROCESS, path, path.parent / "locks", f"layer{n}") for n in range(5)]
    assert [process.wait(60) for process in running] == [0] * 5
    found = Catalogue(path)
    assert len(found.versions()) == 75
    assert {(row.name, row.version) for row in found.versions(current=True)} == {(f"layer{n}", 15) for n in range(5)}


ENDLESS = """
import itertools, sys
from pathlib import Path
from layerbuild.catalogue import Catalogue, one_at_a_time
from tests.unit.test_catalogue import record, version
path, locks = Path(sys.argv[1]), Path(sys.argv[2])
with one_at_a_time(path, locks, lambda: None):
    catalogue = Catalogue(path)
    first = max((row.version for row in catalogue.versions()), default=0) + 1
    for number in itertools.count(first):
        record(catalogue, version(number))
        print(number, flush=True)
"""


@posix
def test_a_process_that_is_killed_leaves_a_whole_file_with_all_that_it_said(path: Path) -> None:
    said = 0
    for turn in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", ENDLESS, path, path.parent / "locks"], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        process.stdout.readline()
        ends = time.monotonic() + 0.2 + 0.037 * turn
        while time.monotonic() < ends:
            json.loads(path.read_bytes())  # whole at every moment
        process.send_signal(signal.SIGKILL)
        lines = process.stdout.read().split()
        assert process.wait() == -signal.SIGKILL
        process.stdout.close()
        said = int(lines[-1]) if lines else said
        numbers = [row.version for row in Catalogue(path).versions()]
        assert numbers in (list(range(1, said + 1)), list(range(1, said + 2))), "it may not have come to saying so"
    with one_at_a_time(path, path.parent / "locks", lambda: pytest.fail("the lock died with its process")):
        record(Catalogue(path), version(said + 2))


def second(first: Path, other: Path, locks: Path) -> tuple[bool, bool]:
    """Whether someone who wants `other` has to wait while `first` is held, and gets it afterwards."""
    told, entered = threading.Event(), threading.Event()

    def want() -> None:
        with one_at_a_time(other, locks, told.set):
            entered.set()

    thread = threading.Thread(target=want)
    with one_at_a_time(first, locks, lambda: None):
        thread.start()
        entered.wait(0.7)
        waited = told.is_set() and not entered.is_set()
    thread.join(5)
    return waited, entered.is_set()


def test_the_second_waits_and_says_so_and_then_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    locks = tmp_path / "new/locks"
    assert second(tmp_path / "a.json", tmp_path / "a.json", locks) == (True, True)
    assert second(tmp_path / "a.json", Path("a.json"), locks) == (True, True)
    assert second(tmp_path / "a.json", tmp_path / "b.json", locks) == (False, True)


@posix
@pytest.mark.parametrize("name", ["work/../a.json", "link/a.json"])
def test_one_file_by_two_names_is_one(tmp_path: Path, name: str) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    record(Catalogue(tmp_path / name), version(1))
    assert (tmp_path / "a.json").exists()
    assert second(tmp_path / "a.json", tmp_path / name, tmp_path / "locks") == (True, True)


def test_waiting_ends_when_the_user_interrupts(path: Path) -> None:
    locks, ended = path.parent / "locks", list[str]()

    def want() -> None:
        try:
            with one_at_a_time(path, locks, interrupted.set):
                ended.append("entered")
        except Interrupted:
            ended.append("interrupted")

    with one_at_a_time(path, locks, lambda: None):
        thread = threading.Thread(target=want)
        thread.start()
        thread.join(5)
    assert ended == ["interrupted"]


# Large ones


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 recipes for 12 targets in 20 regions, five versions of each: 24,000."""
    path = tmp_path_factory.mktemp("large") / "catalogue.json"
    rows = (
        version(n, f"recipe{m // 12}-{m % 12}", f"eu-west-{r // 10}{r % 10}", current=n == 5, digest=f"{m} {n}")
        for m in range(240)
        for r in range(20)
        for n in range(1, 6)
    )
    path.write_text(json.dumps(document(rows)))
    return path


def test_a_catalogue_of_24_000_versions_can_be_used(large: Path) -> None:
    began = time.process_time()
    catalogue = Catalogue(large)
    read = time.process_time() - began
    assert len(catalogue.versions()) == 24_000
    assert len(catalogue.by_layer()) == 4800
    record(catalogue, version(6, "recipe0-0", "eu-west-00"))  # the first writes every line anew
    began = time.process_time()
    for number in range(7, 12):
        record(catalogue, version(number, "recipe0-0", "eu-west-00"))
    written = (time.process_time() - began) / 5
    assert len(Catalogue(large).versions()) == 24_006
    assert (read < 5, written < 1.5) == (True, True), (read, written)


def test_threads_that_record_at_once_share_a_write(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes = []

    def slow(place: Path, text: str) -> None:
        writes.append(place)
        time.sleep(0.02)
        place.write_text(text)

    monkeypatch.setattr(module, "write_text", slow)
    catalogue = Catalogue(path)
    with ThreadPoolExecutor(40) as pool:
        list(pool.map(lambda n: record(catalogue, version(1, f"layer{n}")), range(40)))
    assert len(Catalogue(path).versions()) == 40
    assert len(writes) <= 20
