"""The cache: nothing half written, nothing damaged believed, any number of processes at once."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from layerbuild.cache import (
    CACHE_VARIABLE,
    Cache,
    Usage,
    default_cache_folder,
    remove_leftovers,
    scratch_file,
    whole_file,
    write_text,
)
from tests.wheels import make_wheel, sha256_of

DAY = 86_400
posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX")


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def holds(cache: Cache, sha256: str) -> bool:
    return cache.holds(cache.wheel_path(sha256), sha256)


def adopt(cache: Cache, source: Path) -> str:
    """Puts a wheel into the cache as a download does."""
    sha256 = sha256_of(source)
    with cache.new_wheel() as path:
        path.write_bytes(source.read_bytes())
        cache.adopt(path, cache.wheel_path(sha256))
    return sha256


def age(path: Path, seconds: float) -> None:
    moment = time.time() - seconds
    os.utime(path, (moment, moment))


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.bin"
    with whole_file(path) as file:
        file.write(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    assert files_in(tmp_path) == ["file.bin"]


def test_a_file_that_fails_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")

    def fail() -> None:
        with whole_file(path) as file:
            file.write(b"new")
            file.flush()
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        fail()
    assert path.read_bytes() == b"old"
    assert files_in(tmp_path) == ["file.bin"]


def test_text_is_written_as_utf_8_with_plain_line_ends(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "größe\n")
    assert (tmp_path / "a.txt").read_bytes() == b"gr\xc3\xb6\xc3\x9fe\n"


@pytest.fixture
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    old = os.umask(request.param)
    yield request.param
    os.umask(old)


@posix
@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077, 0o002], indirect=True, ids=oct)
def test_a_file_has_the_permissions_that_the_user_wants(tmp_path: Path, umask: int) -> None:
    write_text(tmp_path / "a.txt", "")
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o666 & ~umask


@posix
def test_a_killed_process_leaves_the_old_file_and_a_scratch_file(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    program = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom layerbuild.cache import whole_file\n"
        "with whole_file(Path(sys.argv[1])) as file:\n"
        "    file.write(b'new')\n    file.flush()\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", program, path]).returncode < 0
    assert path.read_bytes() == b"old"
    assert len(files_in(tmp_path)) == 2

    remove_leftovers(tmp_path)
    assert len(files_in(tmp_path)) == 2, "another process may be writing it"
    remove_leftovers(tmp_path, now=time.time() + 3601)
    assert files_in(tmp_path) == ["file.bin"]


def test_only_old_scratch_files_are_leftovers(tmp_path: Path) -> None:
    with scratch_file(tmp_path, "fresh") as fresh, scratch_file(tmp_path, "stale") as stale:
        age(stale, 3700)
        (tmp_path / "layer.zip").touch()
        (tmp_path / "mine.part").touch()
        for name in ("layer.zip", "mine.part"):
            age(tmp_path / name, 3700)
        remove_leftovers(tmp_path)
        assert files_in(tmp_path) == sorted(["layer.zip", "mine.part", fresh.name])


def test_a_scratch_file_is_of_no_one_else_and_goes_away(tmp_path: Path) -> None:
    with scratch_file(tmp_path, "same") as one, scratch_file(tmp_path, "same") as other:
        assert one != other
    assert files_in(tmp_path) == []


def test_the_cache_is_where_the_variable_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(CACHE_VARIABLE, "mine")
    assert default_cache_folder() == tmp_path / "mine"


@pytest.mark.skipif(sys.platform != "linux", reason="each platform has another")
def test_the_cache_is_else_where_the_platform_keeps_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_folder() == tmp_path / "layerbuild"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache_folder() == tmp_path / ".cache/layerbuild"


@pytest.mark.parametrize("value", [{"a": [1, "größe", None]}, [], "", 0, False])
def test_a_record_is_read_as_it_was_kept(cache: Cache, value: object) -> None:
    cache.keep_record("facts", "abc-1", value)
    assert cache.record("facts", "abc-1") == value
    cache.keep_record("facts", "abc-1", "another")
    assert cache.record("facts", "abc-1") == "another"


def test_a_record_that_was_never_kept_is_none(cache: Cache) -> None:
    cache.keep_record("facts", "abc-1", 1)
    assert cache.record("facts", "abc-2") is None
    assert cache.record("pins", "abc-1") is None


def test_no_damage_to_a_record_goes_unnoticed(cache: Cache) -> None:
    cache.keep_record("facts", "abc-1", {"a": 1})
    (path,) = (path for path in cache.root.rglob("*") if path.is_file())
    data = path.read_bytes()
    for position in range(len(data)):
        path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        assert cache.record("facts", "abc-1") is None
        path.write_bytes(data[:position])
        assert cache.record("facts", "abc-1") is None
    path.write_bytes(data)
    assert cache.record("facts", "abc-1") == {"a": 1}


def test_a_wheel_is_held_once_adopted(cache: Cache, tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path)
    assert not holds(cache, sha256_of(wheel))
    sha256 = adopt(cache, wheel)
    assert holds(cache, sha256)
    assert cache.wheel_path(sha256).read_bytes() == wheel.read_bytes()
    assert files_in(cache.root) == [f"{sha256}.whl"]


def test_a_download_that_fails_leaves_nothing(cache: Cache) -> None:
    def fail() -> None:
        with cache.new_wheel() as path:
            path.write_bytes(b"half")
            raise RuntimeError("offline")

    with pytest.raises(RuntimeError, match="offline"):
        fail()
    assert files_in(cache.root) == []


@pytest.mark.parametrize("data", [b"", b"something else"])
def test_a_damaged_wheel_is_removed(cache: Cache, tmp_path: Path, data: bytes) -> None:
    sha256 = adopt(cache, make_wheel(tmp_path))
    cache.wheel_path(sha256).write_bytes(data)
    assert not holds(cache, sha256)
    assert files_in(cache.root) == []


def test_what_was_not_used_for_long_is_pruned(cache: Cache, tmp_path: Path) -> None:
    old, used = adopt(cache, make_wheel(tmp_path, "old")), adopt(cache, make_wheel(tmp_path, "used"))
    cache.keep_record("facts", "used", 1)
    cache.keep_record("facts", "worn", 1)
    for path in cache.root.rglob("*.*"):
        age(path, 31 * DAY)
    size = cache.wheel_path(old).stat().st_size + (cache.root / "facts/wo/worn.json").stat().st_size
    # Use keeps them.
    assert holds(cache, used)
    assert cache.record("facts", "used") == 1

    removed = cache.prune(unused_days=30)

    assert removed == Usage(kind="removed", files=2, size=size)
    assert files_in(cache.root) == sorted([f"{used}.whl", "used.json"])
    assert cache.prune(unused_days=30).files == 0


def test_everything_can_be_pruned_but_a_running_download(cache: Cache, tmp_path: Path) -> None:
    adopt(cache, make_wheel(tmp_path))
    cache.keep_record("facts", "a", 1)
    with cache.new_wheel() as running, cache.new_wheel() as abandoned:
        age(abandoned, 3700)
        assert cache.prune(unused_days=0).files == 3
        assert files_in(cache.root) == [running.name]
        assert cache.prune(unused_days=0, now=time.time() + 3700).files == 1


def test_pruning_a_cache_that_is_not_there_removes_nothing(cache: Cache) -> None:
    assert cache.prune(unused_days=0) == Usage(kind="removed", files=0, size=0)
    assert cache.usage() == []


def test_usage_counts_files_and_bytes_of_each_kind(cache: Cache, tmp_path: Path) -> None:
    wheels = [make_wheel(tmp_path, name) for name in ("demo", "other")]
    for wheel in wheels:
        adopt(cache, wheel)
    cache.keep_record("facts", "abc", 1)
    facts, whole = cache.usage()
    assert facts == Usage(kind="facts", files=1, size=len("1") + 65)
    assert whole == Usage(kind="wheels", files=2, size=sum(wheel.stat().st_size for wheel in wheels))


WRITER = """
import sys
from pathlib import Path
from layerbuild.cache import Cache
cache = Cache(Path(sys.argv[1]))
for turn in range(25):
    cache.keep_record("facts", "same", [sys.argv[2]] * 2000)
"""


def test_processes_that_write_one_record_at_once_leave_it_whole(cache: Cache) -> None:
    cache.keep_record("facts", "same", ["0"] * 2000)
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, cache.root, str(number)]) for number in range(1, 5)]
    while any(writer.poll() is None for writer in writers):
        values = cache.record("facts", "same")
        assert len(values) == 2000
        assert len(set(values)) == 1
    assert [writer.returncode for writer in writers] == [0] * 4
    assert cache.record("facts", "same")[0] in ("1", "2", "3", "4")
    assert files_in(cache.root) == ["same.json"]


def test_threads_that_use_one_record_and_wheel_at_once_agree(cache: Cache, tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path)

    def use(number: int) -> bool:
        cache.keep_record("facts", "same", [number] * 500)
        values = cache.record("facts", "same")
        return len(values) == 500 and len(set(values)) == 1 and holds(cache, adopt(cache, wheel))

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(use, range(100)))
    assert files_in(cache.root) == sorted(["same.json", f"{sha256_of(wheel)}.whl"])


def test_pruning_leaves_alone_what_is_not_the_caches(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.keep_record("facts", "a" * 64, {"b": 1})
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_bytes(b"meow")
    assert [row.kind for row in cache.usage()] == ["facts"]
    assert cache.prune(unused_days=0).files == 1
    assert (tmp_path / "notes.txt").exists()
    assert (tmp_path / "photos" / "cat.png").exists()
