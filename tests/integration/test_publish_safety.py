"""Whatever ends `layerbuild publish`, whatever it is given: nothing is published twice, forgotten or given away."""

from __future__ import annotations

import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from layerbuild.archive import Manifest, _document_digest
from layerbuild.catalogue import Version
from layerbuild.publish.release import release_of
from tests.aws_server import ACCOUNT, Answer, AwsServer, LayerVersion, Request
from tests.conftest import Ran
from tests.integration.test_publish_faults import HOME, REGIONS, agree, held, mark_of, no_bug, rows, words
from tests.publishing import TARGET, made_layer, pretend_to_have_credentials
from tests.running import PROGRAM, wait_until

LAYERS = ("one", "two", "three")

# Ends itself while it writes the catalogue for the n-th time: before the file is in its place, or right after.
DEADLY = """\
import itertools, os, signal, sys
import layerbuild.catalogue
from layerbuild.__main__ import main

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def write(path, text):
    last = next(count) == number
    if last and moment == "before":
        os.fsync = die
    whole(path, text)
    if last:
        die()

number, moment = int(sys.argv.pop(1)), sys.argv.pop(1)
count, whole = itertools.count(1), layerbuild.catalogue.write_text
layerbuild.catalogue.write_text = write
main()
"""


class Place:
    """A project folder and an AWS of its own, and the processes that publish from one to the other."""

    def __init__(self, folder: Path, cache: Path, server: AwsServer | None = None) -> None:
        self.folder, self.cache = folder, cache
        self.server = server or AwsServer()
        self.started: list[subprocess.Popen[str]] = []

    def start(
        self, *more: str, program: Sequence[str] = ("-c", PROGRAM), regions: Sequence[str] = REGIONS, **how: Any
    ) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *program, "publish", *words(self.server, regions), "--public", *more],
            cwd=self.folder,
            env={**os.environ, "LAYERBUILD_CACHE_DIR": str(self.cache)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **how,
        )
        self.started.append(process)
        return process

    def run(self, *more: str, code: int = 0, **how: Any) -> Ran:
        return ended(self.start(*more, **how), code)

    def rerun(self, names: Sequence[str] = LAYERS, regions: Sequence[str] = REGIONS) -> None:
        """One run puts all right; the one after it has nothing to do."""
        self.run(regions=regions)
        expected = {(region, f"{name}-python313-x86_64"): [1] for region in regions for name in names}
        assert held(self.server) == expected
        agree(self.server, self.folder)
        self.nothing_to_do(regions=regions)

    def nothing_to_do(self, *more: str, regions: Sequence[str] = REGIONS) -> None:
        before, seen = (self.folder / "catalogue.json").read_bytes(), len(self.server.requests)
        self.run(*more, regions=regions)
        made = {call.operation for call in self.server.requests[seen:]}
        assert made == {"GetCallerIdentity", "ListLayerVersions"}
        assert (self.folder / "catalogue.json").read_bytes() == before

    def stop(self) -> None:
        for process in self.started:
            process.kill()
            process.communicate()
        self.server.stop()


def ended(process: subprocess.Popen[str], code: int = 0, seconds: float = 60) -> Ran:
    """What it printed; it has to end in time."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        pytest.fail(f"it has not ended after {seconds} seconds: {process.communicate()}")
    ran = Ran(process.returncode, out, err)
    assert ran.code == code, ran
    no_bug(ran)
    return ran


def read_until(process: subprocess.Popen[str], text: str) -> None:
    assert process.stderr
    for line in process.stderr:
        if text in line:
            return
    pytest.fail(f"it ended without {text!r}")


Make = Callable[..., Place]


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three layers, made once."""
    folder = tmp_path_factory.mktemp("layers")
    for name in LAYERS:
        made_layer(folder, name)
    return folder / "dist"


@pytest.fixture
def make(dist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Makes places, each with the three layers."""
    pretend_to_have_credentials(monkeypatch)
    numbers, places = itertools.count(), []

    def call(server: AwsServer | None = None, cache: Path | None = None) -> Place:
        folder = tmp_path / f"place{next(numbers)}"
        shutil.copytree(dist, folder / "dist")
        places.append(Place(folder, cache or tmp_path / "cache", server))
        return places[-1]

    yield call
    for place in places:
        place.stop()


@pytest.fixture
def place(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """One place, which is the current folder."""
    found = make()
    monkeypatch.chdir(found.folder)
    monkeypatch.setenv("LAYERBUILD_CACHE_DIR", str(found.cache))
    return found


Call = Callable[..., Ran]


@pytest.fixture
def call(cli: Callable[..., Ran], place: Place) -> Call:
    """Publishes in this process, to one region."""

    def run(*more: str, code: int = 0, regions: Sequence[str] = (HOME,), public: bool = True) -> Ran:
        ran = cli("publish", *words(place.server, regions), *(["--public"] if public else []), *more)
        no_bug(ran)
        assert ran.code == code, ran
        return ran

    return run


def sampled(points: list[Any], most: int) -> list[Any]:
    """At most that many of them, evenly."""
    return [points[index * len(points) // most] for index in range(most)] if len(points) > most else points


def each(work: Callable[..., object], points: list[tuple[int, str]]) -> None:
    """Does it for all, some at once; most of the time they wait for their pace."""
    with ThreadPoolExecutor(4) as pool:
        futures = {point: pool.submit(work, *point) for point in points}
    assert {point: error for point, future in futures.items() if (error := future.exception())} == {}


def killed_at(place: Place, number: int, moment: str) -> None:
    """Kills the first run at its n-th request, before that reaches the server or before its answer does."""
    count, lock = itertools.count(1), threading.Lock()

    def kill(_: Request) -> None:
        with lock:
            if next(count) == number:
                place.started[0].kill()
                raise ConnectionError

    getattr(place.server, moment)("*", kill)
    place.run(code=-signal.SIGKILL)


def test_a_run_that_is_killed_at_any_request_is_finished_by_the_next(make: Make) -> None:
    whole = make()
    whole.run()
    points = [(n, moment) for n in range(1, len(whole.server.requests) + 1) for moment in ("before", "after")]
    assert len(points) == 2 * (1 + len(LAYERS) * len(REGIONS) * 5)
    work = {point: make() for point in sampled(points, 28)}

    def check(number: int, moment: str) -> None:
        killed_at(work[number, moment], number, moment)
        work[number, moment].rerun()

    each(check, list(work))


def test_a_run_that_is_killed_while_it_records_is_finished_by_the_next(make: Make) -> None:
    points = [(n, moment) for n in range(1, 2 * len(LAYERS) * len(REGIONS) + 1) for moment in ("before", "after")]
    work = {point: make() for point in sampled(points, 10)}

    def check(number: int, moment: str) -> None:
        place = work[number, moment]
        process = place.start(program=["-c", DEADLY, str(number), moment])
        process.communicate(timeout=60)
        # One writing may serve several threads, so that there may be less than there are things to record.
        assert process.returncode == -signal.SIGKILL or (process.returncode == 0 and number > len(LAYERS))
        place.rerun()

    each(check, list(work))


def interrupt_at(place: Place, operation: str, number: int, wait: float = 0.2) -> None:
    """Sends Ctrl-C to the first run at its n-th request of an operation, each of which takes a while."""
    count, lock = itertools.count(1), threading.Lock()

    def interrupt(_: Request) -> None:
        with lock:
            mine = next(count) == number
        if mine:
            time.sleep(wait)
            place.started[0].send_signal(signal.SIGINT)
        time.sleep(0.1)

    place.server.before(operation, interrupt)


@pytest.mark.parametrize(
    ("operation", "number"),
    [
        ("ListLayerVersions", 5),
        ("PublishLayerVersion", 1),
        ("PublishLayerVersion", 9),
        ("AddLayerVersionPermission", 4),
        ("ListLayerVersions", 14),
    ],
)
def test_ctrl_c_finishes_and_records_what_is_under_way(make: Make, operation: str, number: int) -> None:
    place = make()
    interrupt_at(place, operation, number)
    ran = ended(place.start(), 130, 15)
    assert "run the same command to go on" in ran.err
    begun = bool(place.server.calls("PublishLayerVersion"))
    assert ("finishing what is under way" in ran.err) == begun
    assert begun or not (place.folder / "catalogue.json").exists()
    if begun:
        agree(place.server, place.folder)
    place.rerun()


def test_ctrl_c_leaves_out_what_has_not_begun(make: Make) -> None:
    place = make()
    for number in range(6):
        made_layer(place.folder, f"more{number}")
    interrupt_at(place, "PublishLayerVersion", 1)
    ran = ended(place.start(regions=REGIONS[:1]), 130, 10)
    assert 0 < len(place.server.calls("PublishLayerVersion")) < 9
    assert "not done" in ran.out
    agree(place.server, place.folder)
    place.rerun([*LAYERS, *(f"more{number}" for number in range(6))], REGIONS[:1])


def test_ctrl_c_while_work_is_handed_out_finishes_what_has_begun(make: Make) -> None:
    place = make()
    slow = "import time, concurrent.futures as c; pool = c.ThreadPoolExecutor; submit = pool.submit; "
    slow += "pool.submit = lambda *work: (submit(*work), time.sleep(0.1))[0]; "
    interrupt_at(place, "PublishLayerVersion", 1, 0)
    assert "finishing what is under way" in ended(place.start(program=["-c", slow + PROGRAM]), 130, 15).err
    agree(place.server, place.folder)


def test_a_second_ctrl_c_ends_it_at_once(make: Make) -> None:
    place = make()
    begun = threading.Event()
    place.server.fault("PublishLayerVersion", hang=30, lose_answer=True, times=9)
    place.server.after("PublishLayerVersion", lambda _: begun.set())
    process = place.start()
    assert begun.wait(20)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    read_until(process, "finishing what is under way")
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    ended(process, 130, 3)
    place.rerun()


def test_ctrl_c_ends_the_wait_that_aws_asked_for(make: Make) -> None:
    place = make()
    place.server.fault("PublishLayerVersion", times=3, status=429, headers={"Retry-After": "40"})
    process = place.start(f"dist/one-{TARGET}.zip")
    wait_until(lambda: len(place.server.calls("PublishLayerVersion")) == 3)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    ended(process, 130, 5)
    assert held(place.server) == {}
    place.rerun()


def test_a_second_process_with_the_same_catalogue_waits_for_the_first(make: Make) -> None:
    place = make()
    second_waits = threading.Event()
    place.server.before("PublishLayerVersion", lambda _: second_waits.wait(20))
    first = place.start()
    wait_until(lambda: place.server.calls("PublishLayerVersion"))
    second = place.start()
    read_until(second, "another process is publishing")
    assert len(place.server.calls("GetCallerIdentity")) == 1
    second_waits.set()
    for process in (first, second):
        ended(process)
    assert len(place.server.calls("PublishLayerVersion")) == len(LAYERS) * len(REGIONS)
    place.rerun()


def test_ctrl_c_ends_the_wait_for_another_process_and_leaves_that_one_alone(make: Make) -> None:
    place = make()
    second_is_gone = threading.Event()
    place.server.before("PublishLayerVersion", lambda _: second_is_gone.wait(20))
    first = place.start()
    wait_until(lambda: place.server.calls("PublishLayerVersion"))
    second = place.start()
    read_until(second, "another process is publishing")
    second.send_signal(signal.SIGINT)
    ended(second, 130, 3)
    second_is_gone.set()
    ended(first)
    place.rerun()


def test_what_two_machines_publish_at_the_same_moment_is_told_and_left_alone_afterwards(
    make: Make, tmp_path: Path
) -> None:
    one = make()
    other = make(one.server, tmp_path / "other-cache")
    server, meeting = one.server, threading.Barrier(2 * len(LAYERS) * len(REGIONS))
    server.before("PublishLayerVersion", lambda _: meeting.wait(30))
    ran = [ended(process) for process in [one.start(), other.start()]]
    assert {len(numbers) for numbers in held(server).values()} == {2}
    told = [f"{name}-python313-x86_64 in {region}" for name in LAYERS for region in REGIONS]
    text = ran[0].err + ran[1].err
    assert [line for line in told if f"{line}: version " not in text] == []
    assert text.count("published it at the same time") >= len(told)
    current = [{(row["region"], row["name"]): row["version"] for row in rows(place.folder)} for place in (one, other)]
    assert all(current[0][key] != current[1][key] for key in current[0])
    for place in (one, other):
        agree(server, place.folder, every=False)
        place.nothing_to_do()


def test_a_machine_that_lists_later_records_what_another_has_published(make: Make, tmp_path: Path) -> None:
    one = make()
    other = make(one.server, tmp_path / "other-cache")
    one.run()
    ran = other.run()
    assert "record 9" in ran.out
    assert {tuple(numbers) for numbers in held(one.server).values()} == {(1,)}
    for place in (one, other):
        agree(one.server, place.folder)
        place.nothing_to_do()


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))


def test_a_full_disk_is_told_and_the_next_run_records_what_was_published(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make()
    place.run("--plan")  # what the checks find is in the cache now: only the catalogue is to be written
    assert not (place.folder / "catalogue.json").exists()
    with monkeypatch.context() as uncovered:
        uncovered.delenv("COVERAGE_PROCESS_CONFIG", raising=False)  # what it writes would be over the limit, too
        ran = place.run(code=5, preexec_fn=limited)
    assert "catalogue.json" in ran.err
    assert rows(place.folder) == []
    assert list(place.folder.rglob("*.part")) == []
    place.rerun()


@pytest.mark.parametrize("where", ["file/catalogue.json", "/proc/catalogue.json"])
def test_without_a_catalogue_that_can_be_written_nothing_is_published(make: Make, where: str) -> None:
    place = make()
    (place.folder / "file").write_text("")
    assert where in place.run("--catalogue", where, code=4).err
    assert place.server.calls("PublishLayerVersion") == []


# --- a catalogue that is damaged

DAMAGED: dict[str, str | bytes] = {
    "merge conflict": '{\n<<<<<<< HEAD\n  "format": 1,\n=======\n  "format": 1,\n>>>>>>> other\n',
    "empty": "",
    "cut off": '{"format": 1, "contents": {',
    "not UTF-8": b"\xff\xfe{}",
    "a list": "[]",
    "no format": '{"versions": []}',
    "newer": '{"format": 2, "contents": {}, "versions": []}',
    "older": '{"format": 0, "contents": {}, "versions": []}',
    "format of another type": '{"format": true, "contents": {}, "versions": []}',
    "no contents": '{"format": 1, "versions": []}',
    "contents of another type": '{"format": 1, "contents": [], "versions": []}',
    "versions of another type": '{"format": 1, "contents": {}, "versions": 3}',
    "a version without fields": '{"format": 1, "contents": {}, "versions": [{"account": "1"}]}',
    "deep": "[" * 100_000,
}


@pytest.mark.parametrize("how", DAMAGED)
def test_a_damaged_catalogue_is_told_and_left_as_it_is(place: Place, call: Call, how: str) -> None:
    path, text = place.folder / "catalogue.json", DAMAGED[how]
    data = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(data)
    ran = call(code=2)
    assert "catalogue-invalid" in ran.err
    assert "hint: " in ran.err
    assert (place.server.calls("PublishLayerVersion"), path.read_bytes()) == ([], data)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", "1"),
        ("version", 1.0),
        ("size", None),
        ("shared", "public"),
        ("current", 1),
        ("digest", "sha256:0"),
    ],
)
def test_a_wrong_value_in_the_catalogue_is_named(place: Place, call: Call, field: str, value: object) -> None:
    call()
    path = place.folder / "catalogue.json"
    data = json.loads(path.read_text())
    data["versions"][0][field] = value
    path.write_text(json.dumps(data))
    ran = call(code=2)
    assert "catalogue-invalid" in ran.err
    assert {tuple(numbers) for numbers in held(place.server).values()} == {(1,)}


# --- what is not sent


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--layer-name", "x" * 133 + "{recipe}-{arch}"], "cannot name a layer"),
        (["--layer-name", "{recipe}-3.13"], "cannot name a layer"),
        (["--layer-name", ""], "cannot name a layer"),
        (["--layer-name", "{recpie}"], "did you mean recipe?"),
        (["--layer-name", "{recipe"], "cannot be read"),
        (["--layer-name", "{recipe!r}"], "has no field"),
        (["--layer-name", "{recipe:>200}"], "has no field"),
        (["--layer-name", "all-{arch}"], "two layers would have the same name"),
        (["--description", "{wheels}"], "has no field {wheels}"),
        (["--region", "eu_west_1"], "'eu_west_1' is not a region"),
        (["--region", "eu-west-1 "], "is not a region"),
        (["--region", "https://example.com/?eu-west-1"], "is not a region"),
        (["--account", "12345678901"], "is not an AWS account"),
        (["--account", "*"], "is not an AWS account"),
        (["--organization", "o-SHORT"], "is not an AWS organisation"),
        (["--bucket", "Layers-{region}"], "cannot name a bucket"),
        (["--bucket", "{acount}"], "did you mean account?"),
        (["--bucket", "x" * 64], "cannot name a bucket"),
        (["--tag", "team"], "is not a tag"),
        (["--tag", "aws:team=x"], "is not a tag"),
        (["--tag", "team=" + "x" * 257], "is not a tag"),
        (["--ignore", "no-such-rule"], "no-such-rule"),
        (["--target", "python2.7-*"], "python2.7-*"),
        (["no-such-recipe"], "no-such-recipe"),
        (["--out", "nowhere"], "there are no layers to publish in nowhere"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_sent(
    place: Place, call: Call, arguments: list[str], told: str
) -> None:
    assert told in call(*arguments, code=2).err
    assert place.server.requests == []


def rewritten(path: Path, **changed: Any) -> None:
    """Changes a manifest, which stays a valid one."""
    data = {**json.loads(path.read_text()), **changed}
    Manifest(data={**data, "digest": _document_digest(data)}).write(path)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"unzipped": 262_144_000}, "262,144,000 bytes unzipped"),
        ({"runtimes": [f"python3.{minor}" for minor in range(8, 24)]}, "16 runtimes"),
        ({}, "contents-stdlib"),
    ],
    ids=["too large", "too many runtimes", "findings"],
)
def test_what_lambda_or_check_would_refuse_is_blocked_and_the_others_are_published(
    place: Place, call: Call, changed: dict[str, Any], told: str
) -> None:
    if changed:
        rewritten(place.folder / f"dist/two-{TARGET}.json", **changed)
    else:
        made_layer(place.folder, "two", files={"statistics.py": ""})
    ran = call("--layer-name", "{recipe}", code=5)
    assert told in ran.out + ran.err
    assert held(place.server) == {(HOME, "one"): [1], (HOME, "three"): [1]}


def test_a_zip_without_a_manifest_of_its_own_is_left_out_or_refused(place: Place, call: Call) -> None:
    path = place.folder / f"dist/two-{TARGET}.zip"
    path.write_bytes(path.read_bytes() + b"more")
    assert "has no manifest of its own" in call().err
    assert sorted(name for _, name in held(place.server)) == ["one-python313-x86_64", "three-python313-x86_64"]
    seen = len(place.server.requests)
    assert "manifest-missing" in call(str(path), code=2).err
    assert len(place.server.requests) == seen


def test_a_zip_that_changes_after_it_was_checked_is_taken_back(place: Place, call: Call) -> None:
    path, other = (place.folder / f"dist/{name}-{TARGET}.zip" for name in ("two", "one"))
    place.server.before("ListLayerVersions", lambda _: path.write_bytes(other.read_bytes()))
    ran = call(code=5)
    assert "is something else" in ran.err
    assert sorted(name for _, name in held(place.server)) == ["one-python313-x86_64", "three-python313-x86_64"]
    agree(place.server, place.folder)


def test_descriptions_and_licences_are_cut_to_what_lambda_takes(place: Place, call: Call) -> None:
    packages = {f"a-package-with-a-long-name-{number}": f"{number}.0" for number in range(40)}
    made_layer(place.folder, "one", packages=packages)
    path = place.folder / f"dist/two-{TARGET}.json"
    (package,) = json.loads(path.read_text())["distributions"]
    rewritten(path, distributions=[{**package, "licence": f"The licence number {number}"} for number in range(40)])
    call("--layer-name", "{recipe}")
    one, two = (place.server.layers[HOME][name][1].facts for name in ("one", "two"))
    mark = mark_of(place.folder, "one")
    assert one["Description"].startswith("a-package-with-a-long-name-0 0.0, ")
    assert one["Description"].endswith(f" more {mark}")
    assert 200 < len(one["Description"]) <= 256
    assert len(two["LicenseInfo"]) == 512
    call("--layer-name", "other-{recipe}", "--description", "ü" * 300)
    description = place.server.layers[HOME]["other-one"][1].facts["Description"]
    assert (len(description), description.endswith(f"ü {mark}")) == (256, True)
    assert "skip 3" in call("--layer-name", "other-{recipe}").out


# --- secrets

KEY, SECRET, TOKEN = "AKIAPLANTEDPLANTED01", "planted/secret+of/nobody", "planted//token+of/nobody=="
NEVER = (
    KEY,
    SECRET,
    TOKEN,
    quote(TOKEN),
    quote(TOKEN, safe=""),
    "X-Amz-Signature",
    "X-Amz-Security-Token",
    "Signature=",
)
SIGNED = f"""The request signature we calculated does not match the signature you provided.

The Canonical String for this request should have been
'GET\n/2018-10-31/layers\nhost:127.0.0.1\nx-amz-security-token:{TOKEN}\n'

The String-to-Sign should have been
'AWS4-HMAC-SHA256\n{KEY}/20261101/eu-west-1/lambda/aws4_request'"""
ECHOES = {
    "plain": f"the key {KEY}, the secret {SECRET}, the token {TOKEN}",
    "canonical string": SIGNED,
    "query": f"GET /?X-Amz-Credential={KEY}&X-Amz-Security-Token={quote(TOKEN, safe='')}&X-Amz-Signature=0123",
    "token of a query": f"the token {quote(TOKEN, safe='')}",
    "header": f"Authorization=AWS4-HMAC-SHA256 Credential={KEY}/20261101/eu-west-1/lambda, Signature=0123456789abc",
}


@pytest.fixture
def planted(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """Runs commands with credentials that are looked for afterwards, in all that they print and leave behind."""
    secrets = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": TOKEN}
    (tmp_path / "temporary").mkdir()
    for name, value in {
        **secrets,
        "TMPDIR": str(tmp_path / "temporary"),
        "AWS_ENDPOINT_URL": place.server.url,
    }.items():
        monkeypatch.setenv(name, value)

    def call(*arguments: str) -> Ran:
        done = subprocess.run(
            [sys.executable, "-m", "layerbuild", *arguments], cwd=place.folder, capture_output=True, text=True
        )
        left = {str(path): path.read_bytes().decode("latin-1") for path in tmp_path.rglob("*") if path.is_file()}
        for where, text in {"stdout": done.stdout, "stderr": done.stderr, **left}.items():
            assert [word for word in NEVER if word in text] == [], (where, text)
        return Ran(done.returncode, done.stdout, done.stderr)

    return call


@pytest.mark.parametrize("echo", ECHOES)
def test_what_errors_of_aws_tell_of_credentials_is_not_passed_on(
    place: Place, planted: Callable[..., Ran], echo: str
) -> None:
    refusals = {
        "ListLayerVersions": ("us-east-1", "SignatureDoesNotMatch"),
        "PublishLayerVersion": ("us-west-2", "InvalidParameterValueException"),
        "AddLayerVersionPermission": (HOME, "AccessDeniedException"),
    }
    for operation, (region, code) in refusals.items():
        place.server.fault(operation, region=region, status=403, error=code, message=ECHOES[echo], times=99)
    where = [word for region in REGIONS for word in ("--region", region)]
    assert planted("--debug", "publish", *where, "--public", "--json").code == 5
    place.server.fault("GetCallerIdentity", status=403, error="SignatureDoesNotMatch", message=ECHOES[echo])
    assert planted("--debug", "publish", *where).code != 0


def test_the_address_of_a_download_is_not_told(place: Place, planted: Callable[..., Ran]) -> None:
    assert planted("--debug", "publish", "--region", HOME, "--public").code == 0
    arn = rows(place.folder)[0]["arn"]
    faults: list[dict[str, Any]] = [{"status": 403}, {"status": 500}, {"cut": 0}, {"lose_answer": True}]
    for fault in faults:
        place.server.fault("Download", message=ECHOES["canonical string"], times=2, **fault)
        for command in (["--debug", "check", arn], ["--debug", "verify", arn]):
            assert planted(*command).code != 0
    assert len(place.server.calls("Download")) == 8


def test_a_download_that_is_something_else_is_told_without_its_address(
    place: Place, planted: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert planted("publish", "--region", HOME).code == 0
    arn = rows(place.folder)[0]["arn"]
    for version in place.server.layers[HOME].values():
        version[1].content += b"more"
    content = Answer(200, b"less", {"Connection": "close", "Bad header": "x\r\nno colon at all"})
    monkeypatch.setattr(place.server, "Download", lambda _: content)
    for command in (["--debug", "check", arn], ["verify", arn], ["check", arn, "--json"]):
        assert "is not arn:" in str(planted(*command))


# --- many


def test_a_plan_of_1800_versions_that_are_all_there_takes_less_than_20_seconds(place: Place) -> None:
    regions = [
        f"{word}-{way}-{number}" for word in ("aa", "bb", "cc") for way in ("east", "west") for number in range(5)
    ]
    names = [*LAYERS, *(f"demo{number}" for number in range(57))]
    versions, contents = [], {}
    for name in names:
        path = place.folder / f"dist/{name}-{TARGET}.zip"
        if name not in LAYERS:
            made_layer(place.folder, name)
        manifest = json.loads(path.with_suffix(".json").read_text())
        release = release_of(manifest, path, name="{recipe}", description="{packages}")
        for region in regions:
            arn = f"arn:aws:lambda:{region}:{ACCOUNT}:layer:{name}:1"
            told = {"LayerVersionArn": arn, "Version": 1, "Description": release.description, "CreatedDate": ""}
            place.server.layers[region][name][1] = LayerVersion(told, b"")
            row = Version(
                account=ACCOUNT, region=region, name=name, version=1, recipe=name, target=TARGET, arn=arn,
                digest=release.digest, code_sha256=release.code_sha256, size=release.size, published="",
            )  # fmt: skip
            versions.append(asdict(row))
            contents[row.content_key] = asdict(release.content)
    document = {"format": 1, "contents": contents, "versions": versions}
    (place.folder / "catalogue.json").write_text(json.dumps(document))
    place.server.delay = 0.02
    began = time.monotonic()
    ran = place.run("--plan", "--no-public", "--layer-name", "{recipe}", regions=regions)
    assert time.monotonic() - began < 20
    assert "skip 1,800" in ran.out
    assert len(place.server.calls("ListLayerVersions")) == 1800
    # Below the 15 of Lambda by intent; where the machine is busy, threads that wake up late send a little closer.
    rates = sorted(place.server.rate(region) for region in regions)
    assert rates[len(rates) // 2] <= 15
    assert rates[-1] <= 17
