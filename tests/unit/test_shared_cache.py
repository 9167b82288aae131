"""The shared cache, as a folder and in a bucket: what one machine keeps, others have, and no damage is believed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from layerbuild.builders import ContainerOptions
from layerbuild.builders.container import ContainerBuilder
from layerbuild.builders.host import HostBuilder
from layerbuild.cache import Cache
from layerbuild.console import Console
from layerbuild.errors import MachineError, UsageError
from layerbuild.index import Index
from layerbuild.process import Interrupted, interrupted
from layerbuild.publish.aws import Account
from layerbuild.publish.s3_cache import S3Store
from layerbuild.shared_cache import FolderStore, Location, Shared, Store, parse_location
from layerbuild.wheel import Wheel
from tests.aws_server import AwsServer
from tests.publishing import pretend_to_have_credentials
from tests.unit.test_cache import adopt, holds
from tests.wheels import make_wheel, sha256_of

BUCKET, PREFIX = "shared-cache", "team/layerbuild"
posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX")


@dataclass
class Place:
    """A shared cache, and machines that use it."""

    folder: Path
    store: Callable[..., Store]
    server: AwsServer | None = None
    warnings: list[str] = field(default_factory=list)
    parts: list[Shared] = field(default_factory=list)

    def machine(self, name: str, *, read_only: bool = False) -> Cache:
        """The cache of one machine."""
        store = self.store(read_only=read_only)
        self.parts.append(Shared(store, "S", self.warnings.append, read_only=read_only))
        return Cache(self.folder / name, self.parts[-1])

    def files(self) -> dict[str, bytes]:
        """What is shared, by key."""
        if self.server:
            start = f"{PREFIX}/"
            assert all(key.startswith(start) for _, key in self.server.objects)
            return {key.removeprefix(start): data for (_, key), data in self.server.objects.items()}
        root = self.folder / "shared"
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}

    def write(self, key: str, data: bytes) -> None:
        """Puts something else in the place of what is shared."""
        if self.server:
            self.server.objects[BUCKET, f"{PREFIX}/{key}"] = data
            return
        path = self.folder / "shared" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsServer]:
    pretend_to_have_credentials(monkeypatch)
    started = AwsServer()
    started.buckets[BUCKET] = "eu-west-1"
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", started.url)
    yield started
    started.stop()


@pytest.fixture
def bucket(tmp_path: Path, server: AwsServer) -> Place:
    account = Account(timeout=20)  # of all machines, as making boto's clients takes long
    return Place(tmp_path, lambda read_only: S3Store(Location(bucket=BUCKET, prefix=PREFIX), account), server)


@pytest.fixture
def folder(tmp_path: Path) -> Place:
    return Place(tmp_path, lambda read_only: FolderStore(tmp_path / "shared", read_only=read_only))


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest) -> Place:
    found: Place = request.getfixturevalue(request.param)
    return found


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def record_bytes(value: object) -> bytes:
    body = json.dumps(value, separators=(",", ":")).encode()
    return hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def key_of_wheel(sha256: str) -> str:
    return f"wheels/{sha256[:2]}/{sha256}.whl"


# --- what it is for


def test_what_one_machine_keeps_another_has_and_asks_for_once(place: Place, tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path)
    a, b = place.machine("a"), place.machine("b")
    assert not holds(a, sha256_of(wheel))
    assert a.record("facts", "abc-1") is None
    sha256 = adopt(a, wheel)
    a.keep_record("facts", "abc-1", {"größe": [1, None]})

    assert holds(b, sha256)
    assert b.wheel_path(sha256).read_bytes() == wheel.read_bytes()
    assert b.record("facts", "abc-1") == {"größe": [1, None]}
    assert (place.parts[0].kept, place.parts[1].taken, place.parts[1].kept) == (2, 2, 0)

    alone = Cache(b.root)
    assert holds(alone, sha256)
    assert alone.record("facts", "abc-1") == {"größe": [1, None]}
    if place.server:
        seen = len(place.server.requests)
        assert holds(b, sha256)
        assert b.record("facts", "abc-1")
        assert len(place.server.requests) == seen
    assert place.warnings == []


def test_a_shared_folder_is_laid_out_as_a_cache(folder: Place, tmp_path: Path) -> None:
    sha256 = adopt(folder.machine("a"), make_wheel(tmp_path))
    assert holds(Cache(tmp_path / "shared"), sha256)
    assert files_in(tmp_path / "shared") == [f"{sha256}.whl"]


def test_a_shared_folder_that_is_the_caches_own_does_no_harm(tmp_path: Path) -> None:
    shared = Shared(FolderStore(tmp_path / "a"), "S", pytest.fail)
    cache = Cache(tmp_path / "a", shared)
    cache.keep_record("facts", "abc", 1)
    assert cache.record("facts", "abc") == 1
    cache.keep_record("facts", "abc", 2)
    assert cache.record("facts", "abc") == 2
    sha256 = adopt(cache, make_wheel(tmp_path))
    assert holds(cache, sha256)


def test_what_is_of_this_machine_or_not_for_everyone_is_not_shared(place: Place, tmp_path: Path) -> None:
    a = place.machine("a")
    a.keep_record("interpreters", "abc", {"version": "3.13.0"})
    zipped = tmp_path / "layer.zip"
    zipped.write_bytes(b"layer")
    a.adopt(zipped, a.layer_path(hashlib.sha256(b"layer").hexdigest()))
    assert place.machine("b").record("interpreters", "abc") is None
    assert place.files() == {}


def test_how_long_a_layer_took_is_what_was_measured_last(place: Place) -> None:
    a, b = place.machine("a"), place.machine("b")
    a.keep_seconds("demo", 1.5)
    assert place.files() == {}, "all of it was here: that says nothing to others, and nobody waits for it"
    for cache, seconds in ((a, 20.0), (b, 30.0)):
        cache.record("facts", "something")
        cache.keep_seconds("demo", seconds)
    assert place.machine("c").seconds("demo") == 30.0


# --- damage


DAMAGES: list[Callable[[bytes], bytes]] = [
    lambda data: b"",
    lambda data: data[: len(data) // 2],
    lambda data: data[:-1],
    lambda data: data + b"x",
    lambda data: bytes([data[0] ^ 1]) + data[1:],
]


@pytest.mark.parametrize("damage", DAMAGES, ids=["empty", "half", "cut", "longer", "flipped"])
def test_what_is_damaged_is_not_used_and_heals(
    place: Place, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    wheel = make_wheel(tmp_path)
    a = place.machine("a")
    sha256 = adopt(a, wheel)
    a.keep_record("facts", "abc-1", {"a": 1})
    whole = place.files()
    for key, data in whole.items():
        place.write(key, damage(data))

    b = place.machine("b")
    assert not holds(b, sha256)
    assert b.record("facts", "abc-1") is None
    assert files_in(b.root) == []
    (told,) = place.warnings
    assert "damaged" in told

    adopt(b, wheel)
    b.keep_record("facts", "abc-1", {"a": 1})
    assert place.files() == whole
    assert holds(place.machine("c"), sha256)


def test_another_wheels_bytes_are_not_believed(place: Place, tmp_path: Path) -> None:
    good, evil = make_wheel(tmp_path, "good"), make_wheel(tmp_path, "evil")
    place.write(key_of_wheel(sha256_of(good)), evil.read_bytes())
    a = place.machine("a")
    assert not holds(a, sha256_of(good))
    assert files_in(a.root) == []


def test_a_read_only_machine_leaves_damage_as_it_is(place: Place, tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path)
    place.write(key_of_wheel(sha256_of(wheel)), b"damaged")
    b = place.machine("b", read_only=True)
    assert not holds(b, sha256_of(wheel))
    adopt(b, wheel)
    assert place.files() == {key_of_wheel(sha256_of(wheel)): b"damaged"}


@pytest.mark.parametrize("body", [b"not json", b'{"a":', b"[" * 100_000])
def test_a_record_that_is_whole_and_no_json_is_none(place: Place, body: bytes) -> None:
    place.write("facts/ab/abc.json", hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
    assert place.machine("a").record("facts", "abc") is None


@pytest.mark.parametrize("name", ["../mine", "../../mine", "", "A" * 64])
def test_a_hash_out_of_a_record_leads_nowhere_else(place: Place, tmp_path: Path, name: str) -> None:
    mine = tmp_path / "mine"
    mine.write_text("mine")
    a = place.machine("a")
    (a.root / "sources").mkdir(parents=True)
    assert not a.holds(a.source_path(name), name)
    assert mine.read_text() == "mine"


# --- several machines


def test_what_is_there_is_not_replaced_by_who_comes_second(place: Place) -> None:
    a, b = place.machine("a"), place.machine("b")
    a.keep_record("facts", "abc", "first")
    b.keep_record("facts", "abc", "second")
    assert place.files() == {"facts/ab/abc.json": record_bytes("first")}
    assert (place.parts[0].kept, place.parts[1].kept) == (1, 0)


def test_who_finds_a_record_wanting_replaces_it(place: Place) -> None:
    a, b = place.machine("a"), place.machine("b")
    a.keep_record("builds", "abc", "wheel that has expired")
    assert b.record("builds", "abc")
    b.keep_record("builds", "abc", "wheel that was built again")
    assert place.machine("c").record("builds", "abc") == "wheel that was built again"


def builder(cache: Cache) -> ContainerBuilder:
    index = Index()
    host = HostBuilder(cache, index, Console(quiet=True))
    return ContainerBuilder(
        host, cache, index, Console(quiet=True), ContainerOptions(), lambda *_: pytest.fail("nothing is built")
    )


def test_machines_that_build_the_same_at_once_take_what_the_first_built(place: Place, tmp_path: Path) -> None:
    """Builds are not the same byte for byte; layers made of them are to be."""
    key = "ab" * 32
    a, b = place.machine("a"), place.machine("b")

    def build(cache: Cache, text: str) -> Wheel:
        path = make_wheel(tmp_path / text, files={"demo.py": text})
        with cache.new_wheel() as scratch:
            scratch.write_bytes(path.read_bytes())
            return builder(cache)._host.adopt(scratch, sha256_of(path), path.name)

    def second() -> list[Wheel]:
        (first,) = builder(a)._once(key, lambda: [build(a, "first")])
        kept.append(first)
        return [build(b, "second")]

    kept: list[Wheel] = []
    (got,) = builder(b)._once(key, second)
    assert got.sha256 == kept[0].sha256
    (again,) = builder(Cache(b.root))._once(key, lambda: pytest.fail("it is there"))
    assert again.sha256 == kept[0].sha256

    # What the first built has expired: what is built next is what all have.
    store = {name: data for name, data in place.files().items() if not name.startswith("wheels/")}
    wheels = place.files().keys() - store.keys()
    for name in wheels:
        if place.server:
            del place.server.objects[BUCKET, f"{PREFIX}/{name}"]
        else:
            (tmp_path / "shared" / name).unlink()
    c, d = place.machine("c"), place.machine("d")
    (built,) = builder(c)._once(key, lambda: [build(c, "third")])
    (taken,) = builder(d)._once(key, lambda: pytest.fail("it is shared"))
    assert taken.sha256 == built.sha256 != got.sha256


WRITER = """
import random, sys
from pathlib import Path
from layerbuild.cache import Cache
from layerbuild.shared_cache import FolderStore, Shared
shared = Shared(FolderStore(Path(sys.argv[1])), "S", print)
cache = Cache(Path(sys.argv[2]), shared)
print("ready", flush=True)
while True:
    number = random.randrange(20)
    cache.record("facts", f"{number}")
    cache.keep_record("facts", f"{number}", [number] * 20_000)
"""


@posix
def test_writers_that_are_killed_leave_nothing_half(folder: Place, tmp_path: Path) -> None:
    for turn in range(4):
        command = [sys.executable, "-c", WRITER, str(tmp_path / "shared"), str(tmp_path / f"local{turn}")]
        writers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        for writer in writers:
            assert writer.stdout
            assert writer.stdout.readline() == "ready\n"
        time.sleep(random.uniform(0.05, 0.15))
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
            assert writer.communicate()[0] == "", "nothing was found damaged"
    found = {key: data for key, data in folder.files().items() if not Path(key).name.startswith(".")}
    assert found
    for key, data in found.items():
        assert data == record_bytes([int(Path(key).stem)] * 20_000)
    reader = folder.machine("reader")
    assert all(reader.record("facts", Path(key).stem) for key in found)
    assert folder.warnings == []


def test_threads_that_keep_and_fetch_one_thing_at_once_agree(place: Place, tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path)
    caches = [place.machine(f"m{number}") for number in range(4)]

    def use(number: int) -> bool:
        cache = caches[number % 4]
        cache.keep_record("facts", "same", [1] * 500)
        return cache.record("facts", "same") == [1] * 500 and holds(cache, adopt(cache, wheel))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(use, range(40)))
    assert sorted(place.files()) == sorted(["facts/sa/same.json", key_of_wheel(sha256_of(wheel))])
    assert place.files()[key_of_wheel(sha256_of(wheel))] == wheel.read_bytes()
    assert place.warnings == []


def test_a_file_system_without_links_serves_as_well(
    folder: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_path: Path, _target: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    a, b = folder.machine("a"), folder.machine("b")
    a.keep_record("facts", "abc", 1)
    b.keep_record("facts", "abc", 2)
    assert folder.files() == {"facts/ab/abc.json": record_bytes(1)}
    assert folder.warnings == []


# --- read-only


def test_read_only_writes_nothing(place: Place, tmp_path: Path) -> None:
    a = place.machine("a")
    sha256 = adopt(a, make_wheel(tmp_path))
    a.keep_record("facts", "abc", 1)
    before = place.files(), [path.stat().st_mtime_ns for path in sorted(tmp_path.glob("shared/**/*"))]

    b = place.machine("b", read_only=True)
    assert holds(b, sha256)
    assert b.record("facts", "abc") == 1
    b.keep_record("facts", "abc", 2)
    b.keep_record("facts", "other", 2)
    assert b.keep_first("builds", "other", 3) == 3
    b.keep_seconds("demo", 1)
    adopt(b, make_wheel(tmp_path, "other"))

    assert (place.files(), [path.stat().st_mtime_ns for path in sorted(tmp_path.glob("shared/**/*"))]) == before
    assert place.parts[1].kept == 0


def test_use_keeps_a_shared_file_from_being_pruned(folder: Place, tmp_path: Path) -> None:
    a = folder.machine("a")
    a.keep_record("facts", "abc", 1)
    path = tmp_path / "shared/facts/ab/abc.json"
    os.utime(path, (0, 0))
    assert folder.machine("b").record("facts", "abc") == 1
    assert Cache(tmp_path / "shared").prune(unused_days=30).files == 0


# --- when it fails


def use(cache: Cache, folder: Path) -> None:
    """What a build does: asks, makes it, keeps it; it must not notice."""
    wheel = make_wheel(folder)
    for _ in range(3):
        assert not holds(cache, sha256_of(wheel))
        sha256 = adopt(cache, wheel)
        assert holds(cache, sha256)
        assert cache.record("facts", "abc") in (None, 1)
        cache.keep_record("facts", "abc", 1)
        assert cache.record("facts", "abc") == 1
        cache.wheel_path(sha256).unlink()


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ({"error": "AccessDenied", "status": 403}, "s3:GetObject in s3://shared-cache/team/layerbuild, or s3:List"),
        ({"error": "ExpiredToken", "status": 400}, "have expired"),
        ({"error": "InvalidAccessKeyId", "status": 403}, "does not know these credentials"),
        ({"error": "InternalError", "status": 500}, "an error of its own"),
        ({"error": "SlowDown", "status": 503}, "refuses more requests"),
        ({"cut": 0}, "does not answer"),
    ],
    ids=["denied", "expired", "unknown", "failing", "throttled", "cut"],
)  # fmt: skip
def test_a_bucket_that_cannot_be_read_is_left_alone(
    bucket: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: dict[str, object], told: str
) -> None:
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0)
    assert bucket.server
    bucket.server.fault("*", times=1000, **fault)
    use(bucket.machine("a"), tmp_path)
    (warning,) = bucket.warnings
    assert told in warning
    assert warning.startswith("the shared cache S is left alone from here on: ")
    assert len(bucket.server.requests) <= 4, "it is asked for one thing"


def test_a_bucket_that_may_not_be_written_is_read(bucket: Place, tmp_path: Path) -> None:
    assert bucket.server
    bucket.machine("a").keep_record("facts", "other", 1)
    bucket.server.fault("PutObject", error="AccessDenied", times=1000)
    b = bucket.machine("b")
    use(b, tmp_path)
    assert b.record("facts", "other") == 1
    (warning,) = bucket.warnings
    assert (
        "is only read from here on: AWS does not allow s3:PutObject in s3://shared-cache/team/layerbuild" in warning
    )
    assert "docs/caching.md" in warning
    assert len(bucket.server.calls("PutObject")) == 2


def test_a_bucket_that_does_not_exist_is_told(bucket: Place, tmp_path: Path) -> None:
    assert bucket.server
    bucket.server.buckets.clear()
    use(bucket.machine("a"), tmp_path)
    (warning,) = bucket.warnings
    assert "there is no bucket shared-cache; make it first" in warning


def test_a_bucket_in_another_region_is_found(bucket: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "ap-southeast-2")
    sha256 = adopt(bucket.machine("a"), make_wheel(tmp_path))
    assert holds(bucket.machine("b"), sha256)
    assert bucket.warnings == []


def test_without_credentials_the_build_goes_on(
    bucket: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    use(bucket.machine("a"), tmp_path)
    (warning,) = bucket.warnings
    assert "there are no AWS credentials that can be used" in warning


@pytest.mark.parametrize("address", ["http://127.0.0.1:{port}", "no address"])
def test_an_endpoint_that_is_none_is_told(
    bucket: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", address.format(port=unused.getsockname()[1]))
        use(bucket.machine("a"), tmp_path)
    (warning,) = bucket.warnings
    assert "AWS_ENDPOINT_URL" in warning


def test_what_breaks_off_is_asked_for_again(bucket: Place, tmp_path: Path) -> None:
    sha256 = adopt(bucket.machine("a"), make_wheel(tmp_path))
    assert bucket.server
    bucket.server.fault("GetObject", short=20)
    assert holds(bucket.machine("b"), sha256)
    assert bucket.warnings == []
    bucket.server.fault("GetObject", short=20, times=2)
    c = bucket.machine("c")
    assert not holds(c, sha256)
    assert files_in(c.root) == []
    assert len(bucket.warnings) == 1


def test_what_s3_itself_finds_damaged_heals(bucket: Place, tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path)
    sha256 = adopt(bucket.machine("a"), wheel)
    assert bucket.server
    place = BUCKET, f"{PREFIX}/{key_of_wheel(sha256)}"
    bucket.server.objects[place] = b"damaged"
    bucket.server.object_headers[place] = {"x-amz-checksum-crc32": "AAAAAA=="}
    b = bucket.machine("b")
    assert not holds(b, sha256)
    adopt(b, wheel)
    assert bucket.server.objects[place] == wheel.read_bytes()
    (told,) = bucket.warnings
    assert "damaged" in told


def test_an_upload_whose_answer_is_lost_is_there_once(bucket: Place, tmp_path: Path) -> None:
    assert bucket.server
    bucket.server.fault("PutObject", lose_answer=True)
    sha256 = adopt(bucket.machine("a"), make_wheel(tmp_path))
    assert holds(bucket.machine("b"), sha256)
    assert bucket.warnings == []


def test_an_upload_that_breaks_off_leaves_nothing(
    bucket: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0)
    assert bucket.server
    bucket.server.fault("PutObject", cut=100, times=1000)
    a = bucket.machine("a")
    sha256 = adopt(a, make_wheel(tmp_path))
    assert holds(a, sha256)
    assert bucket.files() == {}
    assert len(bucket.warnings) == 1


SECRETS = (
    "AKIAIOSFODNN7EXAMPLE",
    "not-a-secret-but-an-example",
    "FwoGZXIvYXdzEExampleToken==",
    "FwoGZXIvYXdzEExampleToken%3D%3D",
)


def test_no_secret_is_told(bucket: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "FwoGZXIvYXdzEExampleToken==")
    assert bucket.server
    for message in (
        *SECRETS,
        f"look at https://s3/x?a=b&X-Amz-Security-Token={SECRETS[3]}",
        "at https://me:pw@host/",
    ):
        bucket.server.fault("*", error="InvalidRequest", message=f"what of {message}")
        use(bucket.machine(hashlib.sha256(message.encode()).hexdigest()), tmp_path)
    told = " ".join(bucket.warnings)
    assert len(bucket.warnings) == 6
    assert "what of" in told
    assert not [secret for secret in (*SECRETS, "pw@") if secret in told]


def test_a_folder_that_cannot_be_written_is_read(folder: Place, tmp_path: Path) -> None:
    folder.machine("a").keep_record("facts", "other", 1)
    (tmp_path / "shared" / "wheels").write_text("in the way")
    b = folder.machine("b")
    assert b.record("facts", "other") == 1
    (tmp_path / "shared" / "wheels").unlink()
    (tmp_path / "shared" / "trees").write_text("in the way")
    b.keep_record("trees", "abc", 1)
    (warning,) = folder.warnings
    assert warning.startswith("the shared cache S is only read from here on: ")
    b.keep_record("findings", "abc", 1)
    assert sorted(folder.files()) == ["facts/ot/other.json", "trees"]


def test_a_folder_that_cannot_be_read_is_left_alone(tmp_path: Path) -> None:
    class Stale:
        def fetch(self, key: str, path: Path) -> bool:
            raise OSError(errno.ESTALE, "Stale file handle", "/mnt/shared")

        def keep(self, key: str, path: Path, *, replace: bool) -> bool:
            pytest.fail("it is left alone")

    warnings: list[str] = []
    use(Cache(tmp_path / "a", Shared(Stale(), "S", warnings.append)), tmp_path)
    assert warnings == [
        "the shared cache S is left alone from here on: the operating system refused: /mnt/shared; Stale file handle"
    ]


@posix
def test_a_local_cache_that_cannot_be_written_is_read(place: Place, tmp_path: Path) -> None:
    place.machine("a").keep_record("trees", "abc", 1)
    (tmp_path / "b").write_text("no folder")
    assert place.machine("b").record("trees", "abc") is None


def test_threads_that_meet_a_failure_at_once_tell_of_it_once(tmp_path: Path) -> None:
    together = threading.Barrier(8)

    class Failing:
        def fetch(self, key: str, path: Path) -> bool:
            together.wait(10)
            raise OSError(errno.EIO, "Input/output error", "/mnt/shared")

        def keep(self, key: str, path: Path, *, replace: bool) -> bool:
            pytest.fail("it is left alone")

    warnings: list[str] = []
    shared = Shared(Failing(), "S", warnings.append)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda number: shared.fetch(f"facts/a/{number}", tmp_path / str(number)), range(8)))
    assert found == [False] * 8
    assert len(warnings) == 1


# --- when the user interrupts


def test_an_interrupt_ends_an_upload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not taken for a connection that broke off, which boto would make again."""
    pretend_to_have_credentials(monkeypatch)
    connections: list[socket.socket] = []
    waits: list[int] = []

    def wait(_backoff: object, attempt: int) -> float:
        waits.append(attempt)
        return 0

    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", wait)

    def receive() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            connections.append(connection)
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            received = 0
            while data := connection.recv(1 << 16):
                received += len(data)
                if received > 1 << 20:
                    interrupted.set()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=receive)
        thread.start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{listening.getsockname()[1]}")
        large = tmp_path / "large"
        with large.open("wb") as file:
            file.truncate(64 << 20)
        with pytest.raises(Interrupted):
            S3Store(Location(bucket=BUCKET)).keep("wheels/ab/abc.whl", large, replace=False)
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(10)
    assert (len(connections), waits) == (1, [])
    connections[0].close()


def test_an_interrupt_ends_the_hashing_before_an_upload(bucket: Place, tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(8 << 30)
    store = bucket.store(read_only=False)
    timer = threading.Timer(0.3, interrupted.set)
    timer.start()
    started = time.monotonic()
    with pytest.raises(Interrupted):
        store.keep("wheels/ab/abc.whl", large, replace=False)
    assert time.monotonic() - started < 2
    assert bucket.files() == {}


def test_after_an_interrupt_nothing_is_begun(place: Place, tmp_path: Path) -> None:
    a = place.machine("a")
    interrupted.set()
    with pytest.raises(Interrupted):
        a.record("facts", "abc")
    with pytest.raises(Interrupted):
        a.keep_record("facts", "abc", 1)
    assert place.files() == {}


# --- how it is named


@pytest.mark.parametrize(
    ("text", "bucket_name", "prefix", "shown"),
    [
        ("s3://build-cache", "build-cache", "", "s3://build-cache"),
        ("s3://build-cache/", "build-cache", "", "s3://build-cache"),
        ("s3://b.c-1/layerbuild/main/", "b.c-1", "layerbuild/main", "s3://b.c-1/layerbuild/main"),
    ],
)
def test_a_bucket_and_a_prefix(text: str, bucket_name: str, prefix: str, shown: str) -> None:
    found = parse_location(text)
    assert (found.bucket, found.prefix, str(found), found.folder) == (bucket_name, prefix, shown, None)


def test_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_location("some/where") == Location(folder=tmp_path / "some/where")
    assert str(parse_location(str(tmp_path))) == str(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "s3://",
            "s3:///prefix",
            "s3:/build-cache",
            "s3:build-cache",
            "s3://Build_Cache",
            "s3://ab",
            "s3://1.2.3.4/x",
        ),
        *("S3://build-cache", "https://build-cache.s3.amazonaws.com/x", "file:///mnt/cache", "s3://b..c/x"),
        *("s3://build-cache/a b", "s3://build-cache/../x", "s3://build-cache/a//b", "s3://build-cache/x?versionId=1"),
        *("s3://build-cache/" + "x" * 900, "s3://build-cache/grün"),
    ],
)
def test_what_is_no_cache_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_location(text)
    assert (caught.value.code, caught.value.exit_code) == ("bad-cache", 2)


def test_a_file_is_no_shared_cache(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file"):
        parse_location(str(tmp_path / "file"))


def test_a_refusal_tells_no_secret_of_a_url() -> None:
    for text in (
        "https://me:hunter2@host/x",
        "https://host/x?X-Amz-Signature=hunter2",
        "s3://me:hunter2@b/x#hunter2",
    ):
        with pytest.raises(UsageError) as caught:
            parse_location(text)
        assert "hunter2" not in str(caught.value.as_json())


def test_credentials_are_asked_for_only_when_something_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Account, "client", lambda *_, **__: pytest.fail("nothing was needed"))
    shared = Shared(S3Store(Location(bucket=BUCKET)), "S", pytest.fail)
    local = Cache(tmp_path / "a")
    sha256 = adopt(local, make_wheel(tmp_path))
    local.keep_record("facts", "abc", 1)
    warm = Cache(tmp_path / "a", shared)
    assert holds(warm, sha256)
    assert warm.record("facts", "abc") == 1
    warm.keep_seconds("demo", 1)
    assert not shared.used


def test_an_error_of_ours_is_told_with_its_hint(tmp_path: Path) -> None:
    class Refusing:
        def fetch(self, key: str, path: Path) -> bool:
            raise MachineError("aws-refused", "no", causes=["because"], hint="do this")

        def keep(self, key: str, path: Path, *, replace: bool) -> bool:
            pytest.fail("it is left alone")

    warnings: list[str] = []
    use(Cache(tmp_path / "a", Shared(Refusing(), "S", warnings.append)), tmp_path)
    assert warnings == ["the shared cache S is left alone from here on: no; because; do this"]
