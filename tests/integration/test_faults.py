"""What goes wrong outside: a clear error, nothing half-written, and a cache that stays good."""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import platform
import subprocess
import sys
import tarfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from layerbuild.errors import BuildError
from layerbuild.wheel import read_facts
from tests.conftest import Ran
from tests.index_server import IndexServer
from tests.integration.test_make import write_recipe
from tests.wheels import make_wheel, record_digest, sha256_of

ARCH = "x86_64" if platform.machine() == "x86_64" else "arm64"
FOREIGN_ARCH = "arm64" if ARCH == "x86_64" else "x86_64"
# pip-tools resolves for the one, uv for the other.
HOST = "python{}.{}-{}".format(*sys.version_info[:2], ARCH)
OTHER = f"python3.13-{FOREIGN_ARCH}"
BOTH_RESOLVERS = pytest.mark.parametrize("target", [HOST, OTHER], ids=["pip-tools", "uv"])
MACHINE = {HOST: platform.machine(), OTHER: "aarch64" if FOREIGN_ARCH == "arm64" else "x86_64"}
DEMO = "demo-1.0-py3-none-any.whl"


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@dataclass
class Lab:
    """A project with its cache and index, and what must hold whenever something fails in it."""

    project: Path
    wheelhouse: Path
    server: IndexServer
    cli: Callable[..., Ran]

    @property
    def dist(self) -> Path:
        return self.project / "dist"

    @property
    def cache(self) -> Path:
        return self.project.parent / "cache"

    def pin(self, *wheels: Path, target: str = OTHER, recipe: str = "demo") -> None:
        """Writes the lock of a recipe by hand."""
        lines = []
        for wheel in wheels:
            name, version = wheel.name.split("-")[:2]
            lines.append(f"{name}=={version} --hash=sha256:{sha256_of(wheel)}\n")
        path = self.project / "recipes" / recipe / "locks" / f"{target}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(lines))

    def fails(self, code: int, *words: str, target: str = OTHER, arguments: tuple[str | Path, ...] = ()) -> Ran:
        """Makes the layer and sees it refused for a reason in which all `words` occur."""
        before = contents(self.dist)
        ran = self.cli("make", "demo", "--target", target, *arguments)
        self.refused(ran, code, *words)
        assert contents(self.dist) == before
        return ran

    def refused(self, ran: Ran, code: int, *words: str) -> None:
        assert ran.code == code, (ran.out, ran.err)
        assert ran.err.startswith("error: ") or "\nerror: " in ran.err
        assert "Traceback" not in ran.err
        for word in words:
            assert word in ran.err
        assert [path for root in (self.dist, self.cache) for path in root.rglob("*.part")] == []

    def works(self, target: str = OTHER, arguments: tuple[str | Path, ...] = ()) -> dict[str, bytes]:
        """Makes the layer by the same command and returns what is in it, below site-packages."""
        ran = self.cli("make", "demo", "--target", target, *arguments)
        assert ran.code == 0, ran.err
        return self.layer(target)

    def layer(self, target: str = OTHER) -> dict[str, bytes]:
        with zipfile.ZipFile(self.dist / f"demo-{target}.zip") as archive:
            assert archive.testzip() is None
            return {name.split("/site-packages/")[-1]: archive.read(name) for name in archive.namelist()}


@pytest.fixture
def lab(project: Path, wheelhouse: Path, index_server: IndexServer, cli: Callable[..., Ran]) -> Lab:
    """A project with a recipe for `demo`; its index is still empty."""
    write_recipe(project)
    return Lab(project, wheelhouse, index_server, cli)


def make_sdist(folder: Path, name: str, version: str, setup: str = "") -> Path:
    """Writes a source archive whose setup.py does what `setup` says."""
    path = folder / f"{name}-{version}.tar.gz"
    files = {"PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"}
    files["setup.py"] = f"{setup}\nfrom setuptools import setup\nsetup(name={name!r}, version={version!r})\n"
    with tarfile.open(path, "w:gz") as archive:
        for member, text in files.items():
            info = tarfile.TarInfo(f"{name}-{version}/{member}")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    return path


def program(*arguments: str | Path) -> Ran:
    """Runs a command line in a process of its own."""
    command = [sys.executable, "-m", "layerbuild", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    return Ran(done.returncode, done.stdout, done.stderr)


# Recipes and requirements


def test_an_unknown_recipe_names_the_nearest(lab: Lab) -> None:
    ran = lab.cli("make", "demoo")

    lab.refused(ran, 2, "'demoo'", "did you mean demo", "unknown-recipe")
    assert not lab.dist.exists()


def test_a_toml_error_names_file_and_line(lab: Lab) -> None:
    recipe = lab.project / "recipes/demo/recipe.toml"
    good = recipe.read_text()
    recipe.write_text(good + 'summary = "never closed\n')

    lab.fails(2, "recipe.toml is not TOML", "line 3")

    recipe.write_text(good)
    make_wheel(lab.wheelhouse)
    lab.works()


@BOTH_RESOLVERS
def test_a_conflict_names_both_packages_in_few_lines(lab: Lab, target: str) -> None:
    (lab.project / "recipes/demo/recipe.toml").write_text('name = "demo"\nrequirements = ["left", "right"]\n')
    make_wheel(lab.wheelhouse, "left", requires=["common<2"])
    make_wheel(lab.wheelhouse, "right", requires=["common>=2"])
    make_wheel(lab.wheelhouse, "common", "1.0")
    make_wheel(lab.wheelhouse, "common", "2.0")

    ran = lab.fails(3, "left", "right", "common", "no-solution", target=target)

    assert len(ran.err.splitlines()) <= 15, ran.err
    make_wheel(lab.wheelhouse, "left", "1.1", requires=["common>=2"])
    assert "left-1.1.dist-info/METADATA" in lab.works(target)


_UNFIT = [
    ("cp311-cp311-macosx_11_0_arm64", "for macosx_11_0_arm64"),
    ("cp313-cp313-win_amd64", "for win_amd64"),
    ("py3-none-manylinux_2_39_{machine}", "needs glibc 2.39"),
    ("cp38-cp38-manylinux2014_{machine}", "for cp38-cp38"),
    ("py3-none-musllinux_1_2_{machine}", "musl"),
]


@BOTH_RESOLVERS
@pytest.mark.parametrize("tags", [[0], [1], [2], [3], [4], [0, 1, 2, 3, 4]])
def test_no_wheel_for_the_target_names_each_wheel_and_why(lab: Lab, target: str, tags: list[int]) -> None:
    expected = []
    for number in tags:
        tag, reason = _UNFIT[number]
        wheel = make_wheel(lab.wheelhouse, tag=tag.format(machine=MACHINE[target]))
        expected.append((wheel.name, reason))

    ran = lab.fails(3, "no-wheel", "older version", target=target)

    for name, reason in expected:
        (line,) = [line for line in ran.err.splitlines() if line.strip().startswith(name)]
        assert reason in line
    if len(tags) > 1:
        make_wheel(lab.wheelhouse)
        lab.works(target)


@BOTH_RESOLVERS
def test_source_alone_is_refused_and_never_run(lab: Lab, target: str) -> None:
    marker = lab.project / "it-ran"
    make_sdist(lab.wheelhouse, "demo", "1.0", f"open({str(marker)!r}, 'w')")

    lab.fails(3, "only source", "built from source", target=target)

    assert not marker.exists()


@BOTH_RESOLVERS
@pytest.mark.parametrize("requires", ["ext", "ext>=1"])
def test_a_dependency_without_a_wheel_is_named_as_well(lab: Lab, target: str, requires: str) -> None:
    make_wheel(lab.wheelhouse, requires=[requires])
    wheel = make_wheel(lab.wheelhouse, "ext", tag="cp311-cp311-macosx_11_0_arm64")

    lab.fails(3, wheel.name, "no-wheel", "older version", target=target)


@BOTH_RESOLVERS
def test_an_unknown_package_is_named(lab: Lab, target: str) -> None:
    lab.fails(3, "no index has a package for demo", "unknown-package", target=target)

    make_wheel(lab.wheelhouse)
    lab.works(target)


def test_one_failing_target_does_not_stop_the_others(lab: Lab) -> None:
    good = ["python3.12-x86_64", "python3.13-x86_64"]
    make_wheel(lab.wheelhouse, tag="py3-none-manylinux2014_x86_64")

    ran = lab.cli("make", "demo", "--target", "python3.12-*", "--target", "python3.13-x86_64", "--json")

    lab.refused(ran, 3, "no wheel for python3.12-arm64")
    assert [layer["manifest"]["target"] for layer in ran.json["layers"]] == good
    assert [failed["target"] for failed in ran.json["failed"]] == ["python3.12-arm64"]
    assert sorted(contents(lab.dist)) == sorted(f"demo-{name}.{kind}" for name in good for kind in ("json", "zip"))


# The index


def stall(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_TIMEOUT", "1")
    monkeypatch.setenv("PIP_RETRIES", "0")


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        ("garbage", 3, "is not the file that was locked"),
        ("truncate", 4, "broke off after"),
        ("hang", 4, "cannot reach 127.0.0.1"),
        ("500", 4, "500"),
        ("403", 4, "403"),
        ("404", 4, "404"),
    ],
)
def test_a_download_that_goes_wrong_leaves_the_old_layer(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, fault: str, code: int, words: str
) -> None:
    stall(lab, monkeypatch)
    lab.pin(make_wheel(lab.wheelhouse))
    lab.works()
    newer = make_wheel(lab.wheelhouse, version="2.0")
    lab.pin(newer)
    lab.server.faults[newer.name] = fault

    started = time.monotonic()
    lab.fails(code, words)

    assert time.monotonic() - started < 8
    assert "demo-1.0.dist-info/METADATA" in lab.layer()
    lab.server.faults.clear()
    assert "demo-2.0.dist-info/METADATA" in lab.works()
    gc.collect()  # a connection left open is told now, in this test


@pytest.mark.parametrize("fault", ["truncate*1", "truncate*2", "garbage*1"])
def test_a_download_that_arrives_damaged_is_tried_again(lab: Lab, fault: str) -> None:
    lab.pin(make_wheel(lab.wheelhouse))
    lab.server.faults[DEMO] = fault

    assert lab.works()["demo.py"] == b"VERSION = 1\n"

    assert lab.server.requests.count(f"/files/{DEMO}") == int(fault[-1]) + 1


@BOTH_RESOLVERS
@pytest.mark.parametrize("fault", ["500", "503", "hang"])
def test_an_index_that_does_not_answer_the_resolver_ends_it_soon(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, target: str, fault: str
) -> None:
    stall(lab, monkeypatch)
    make_wheel(lab.wheelhouse)
    lab.server.faults["/simple/demo/"] = fault

    started = time.monotonic()
    lab.fails(4, "index", target=target)

    assert time.monotonic() - started < 20
    assert not (lab.project / "recipes/demo/locks").exists()
    lab.server.faults.clear()
    lab.works(target)


# pip takes up a download that broke off and then notices by its length (4) or by its hash (3).
@BOTH_RESOLVERS
@pytest.mark.parametrize(
    ("fault", "codes"), [("truncate", (3, 4)), ("hang", (4,)), ("500", (4,)), ("garbage", (3, 4))]
)
def test_a_wheel_that_the_resolver_cannot_read_is_no_contradiction(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, target: str, fault: str, codes: tuple[int, ...]
) -> None:
    stall(lab, monkeypatch)
    make_wheel(lab.wheelhouse)
    lab.server.faults[DEMO] = fault

    ran = lab.cli("make", "demo", "--target", target)

    assert ran.code in codes, ran.err
    lab.refused(ran, ran.code, "demo")
    assert "contradict each other" not in ran.err
    lab.server.faults.clear()
    lab.works(target)


@BOTH_RESOLVERS
def test_an_index_that_is_down_is_named(lab: Lab, monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    make_wheel(lab.wheelhouse)
    lab.server.stop()

    lab.fails(4, "index-unreachable", "pip config list", f"127.0.0.1:{lab.server.port}", target=target)

    again = IndexServer(lab.wheelhouse)
    monkeypatch.setenv("PIP_INDEX_URL", again.url)
    try:
        lab.works(target)
    finally:
        again.stop()


def test_an_index_that_is_down_is_not_missed_when_all_is_in_the_cache(lab: Lab) -> None:
    lab.pin(make_wheel(lab.wheelhouse))
    lab.works()
    lab.server.stop()

    lab.works(arguments=("--force",))


def test_a_password_is_told_to_the_index_alone(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "hunter2-secret"
    lab.server.password = f"user:{secret}"
    stall(lab, monkeypatch)
    monkeypatch.setenv("PIP_INDEX_URL", lab.server.url.replace("://", f"://user:{secret}@"))
    make_wheel(lab.wheelhouse)
    ran = []
    for target in (HOST, OTHER):
        lab.server.faults = {}
        ran.append(lab.cli("make", "demo", "--target", target, "--json"))
        assert ran[-1].code == 0, ran[-1].err
        make_wheel(lab.wheelhouse, "new")
        for path, fault in {f"/files/{DEMO}": "truncate", "/simple/new/": "hang", "/simple/demo/": "500"}.items():
            lab.server.faults = {path: fault}
            monkeypatch.setenv("LAYERBUILD_CACHE_DIR", str(lab.cache / f"{target}-{fault}"))
            (lab.project / "needs.txt").write_text("new\ndemo\n")
            ran.append(lab.cli("make", "-r", "needs.txt", "--name", "web", "--target", target, "--json"))
            assert ran[-1].code in (3, 4), ran[-1].err
    monkeypatch.setenv("PIP_INDEX_URL", lab.server.url.replace("://", f"://user:{secret}x@"))
    lab.server.faults = {}
    for target in (HOST, OTHER):
        ran.append(lab.cli("--debug", "make", "-r", "needs.txt", "--name", "web", "--target", target))
        assert ran[-1].code in (3, 4), ran[-1].err
    lab.server.stop()
    ran.append(lab.cli("make", "-r", "needs.txt", "--name", "web", "--target", OTHER))

    for one in ran:
        assert secret not in one.out + one.err
    for root in (lab.project, lab.cache):
        for name, data in contents(root).items():
            assert secret.encode() not in data, name


# Wheels


def tampered(folder: Path, member: str, content: bytes = b"evil\n", mode: int = 0o100644) -> Path:
    """A wheel with one more member, which its RECORD lists as it should."""
    path = make_wheel(folder)
    with zipfile.ZipFile(path) as archive:
        kept = [(info, archive.read(info)) for info in archive.infolist()]
    row = f"{member},{record_digest(content)},{len(content)}\n".encode()
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore", UserWarning)
        extra = zipfile.ZipInfo(member)
        extra.external_attr = mode << 16
        archive.writestr(extra, content)
        for info, data in kept:
            archive.writestr(info, row + data if info.filename.endswith("RECORD") else data)
    return path


def cut(folder: Path) -> Path:
    path = make_wheel(folder)
    path.write_bytes(path.read_bytes()[:-40])
    return path


def no_zip(folder: Path) -> Path:
    path = folder / DEMO
    path.write_text("<html>please log in</html>")
    return path


def bad_checksum(folder: Path) -> Path:
    """A stored member with one bit flipped: its CRC in the zip no longer holds."""
    path = make_wheel(folder, compression=zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"VERSION = 1\n", b"VERSION = 2\n"))
    return path


def wrong_record(folder: Path) -> Path:
    digest = record_digest(b"something else")
    return make_wheel(folder, record=f"demo.py,{digest},12\ndemo-1.0.dist-info/RECORD,,\n")


def record_with_more(folder: Path) -> Path:
    path = make_wheel(folder)
    with zipfile.ZipFile(path) as archive:
        right = archive.read("demo-1.0.dist-info/RECORD").decode()
    return make_wheel(folder, record=right + f"gone.py,{record_digest(b'')},0\n")


_BAD_WHEELS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "no zip": (no_zip, "not a whole zip"),
    "cut": (cut, "not a whole zip"),
    "a flipped bit": (bad_checksum, "checksum"),
    "parent": (lambda folder: tampered(folder, "../evil.py"), "leads out of the layer"),
    "hidden parent": (lambda folder: tampered(folder, "demo/../../evil.py"), "leads out of the layer"),
    "absolute": (lambda folder: tampered(folder, "/tmp/evil.py"), "leads out of the layer"),
    "drive": (lambda folder: tampered(folder, "C:/evil.py"), "leads out of the layer"),
    "backslash": (lambda folder: tampered(folder, "demo\\..\\evil.py"), "has backslashes"),
    "duplicate": (lambda folder: tampered(folder, "demo.py"), "is in it twice"),
    "symlink": (lambda folder: tampered(folder, "evil.py", b"/etc/passwd", 0o120777), "symbolic link"),
    "RECORD with another hash": (wrong_record, "not the file that its RECORD describes"),
    "RECORD with less": (lambda folder: make_wheel(folder, record="demo-1.0.dist-info/RECORD,,\n"), "no hash for"),
    "RECORD with more": (record_with_more, "'gone.py', which is not in it"),
}


@pytest.mark.parametrize(("make_bad", "reason"), _BAD_WHEELS.values(), ids=_BAD_WHEELS.keys())
def test_a_bad_wheel_is_refused_and_not_kept(lab: Lab, make_bad: Callable[[Path], Path], reason: str) -> None:
    lab.pin(make_bad(lab.wheelhouse))

    lab.fails(3, f"{DEMO} cannot be used", reason, "wheel-invalid")

    assert list(lab.cache.rglob("*.whl")) == []
    assert list(lab.project.parent.rglob("evil*")) == []
    lab.pin(make_wheel(lab.wheelhouse))
    assert lab.works()["demo.py"] == b"VERSION = 1\n"


@pytest.mark.parametrize("damage", ["flip", "cut"])
def test_no_damage_to_a_wheel_surprises_its_reader(tmp_path: Path, damage: str) -> None:
    path = make_wheel(tmp_path, files={"dämo.py": "x = 1\n"}, entry_points="[console_scripts]\ndemo = demo:main\n")
    good = path.read_bytes()
    refused = 0
    for place in range(len(good)):
        bad = bytearray(good) if damage == "flip" else bytearray(good[:place])
        if damage == "flip":
            bad[place] ^= 0xFF
        path.write_bytes(bad)
        with contextlib.suppress(BuildError):
            read_facts(path, path.name)
            continue
        refused += 1
    assert refused > len(good) // 2


# The disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True)
    except FileNotFoundError:
        pytest.skip("there is no mount")
    if done.returncode:
        pytest.skip("mounting is not permitted")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def remount(folder: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", str(folder)], check=True)


def place_on(
    lab: Lab, folder: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[tuple[str | Path, ...], Path]:
    """Puts dist, cache or locks into a folder; returns arguments for that and the folder of archives."""
    if what == "dist":
        return ("--out", folder / "dist"), folder / "dist"
    if what == "cache":
        monkeypatch.setenv("LAYERBUILD_CACHE_DIR", str(folder / "cache"))
    else:
        (lab.project / "recipes/demo/locks").symlink_to(folder)
    return (), lab.dist


@pytest.mark.parametrize("what", ["dist", "cache", "locks"])
def test_a_full_disk_is_told_and_nothing_half_written(
    lab: Lab, small_disk: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    wheel = make_wheel(lab.wheelhouse, files={"demo.bin": os.urandom(2_000_000)})
    arguments, out = place_on(lab, small_disk, what, monkeypatch)
    if what == "locks":
        (small_disk / "filler").write_bytes(bytes(1 << 20))
    else:
        lab.pin(wheel)
    before = contents(small_disk)

    lab.refused(program("make", "demo", "--target", OTHER, *arguments), 4, "disk-full")

    # What interpreters said of themselves is whole, and was kept before.
    left = {name: data for name, data in contents(small_disk).items() if "interpreters/" not in name}
    assert left == before
    assert not contents(out)
    remount(small_disk, "size=16m")
    ran = program("make", "demo", "--target", OTHER, *arguments)
    assert ran.code == 0, ran.err
    assert zipfile.ZipFile(out / f"demo-{OTHER}.zip").testzip() is None


@pytest.mark.parametrize("what", ["dist", "cache", "locks"])
def test_a_read_only_folder_is_told(lab: Lab, small_disk: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    wheel = make_wheel(lab.wheelhouse)
    arguments, out = place_on(lab, small_disk, what, monkeypatch)
    if what != "locks":
        lab.pin(wheel)
    remount(small_disk, "ro")

    ran = program("make", "demo", "--target", OTHER, *arguments)

    lab.refused(ran, 4, "not-permitted", "locks" if what == "locks" else str(small_disk), "--out")
    assert not contents(out)
    remount(small_disk, "rw")
    ran = program("make", "demo", "--target", OTHER, *arguments)
    assert ran.code == 0, ran.err


def test_a_warm_cache_may_be_read_only(lab: Lab, small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAYERBUILD_CACHE_DIR", str(small_disk))
    lab.pin(make_wheel(lab.wheelhouse))
    lab.works()
    remount(small_disk, "ro")

    lab.works(arguments=("--force",))


def test_a_file_where_the_folder_of_archives_should_be_is_told(lab: Lab) -> None:
    lab.pin(make_wheel(lab.wheelhouse))
    lab.dist.write_text("not a folder")

    ran = program("make", "demo", "--target", OTHER)

    assert ran.code in (2, 4)
    assert "dist" in ran.err
    assert "Traceback" not in ran.err
    assert lab.dist.read_text() == "not a folder"


# Damage


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


_DAMAGES: dict[str, Callable[[Path], object]] = {
    "flip": flip,
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
    "garble": lambda path: path.write_bytes(os.urandom(path.stat().st_size)),
    "other text": lambda path: path.write_text('{"filename": "evil", "sha256": "00"}'),
    "delete": lambda path: path.unlink(),
}


def lasting(cache: Path) -> dict[str, bytes]:
    """What a cache holds that is the same whenever it was filled: all but how long layers took."""
    return {name: data for name, data in contents(cache).items() if not name.startswith("durations/")}


@pytest.mark.parametrize("damage", _DAMAGES.values(), ids=_DAMAGES.keys())
@pytest.mark.parametrize("kind", ["wheels", "facts", "choices"])
def test_a_damaged_cache_heals_itself(lab: Lab, kind: str, damage: Callable[[Path], object]) -> None:
    lab.pin(make_wheel(lab.wheelhouse), make_wheel(lab.wheelhouse, "more"))
    lab.works()
    right = contents(lab.dist)
    cached = lasting(lab.cache)
    files = [path for path in (lab.cache / kind).rglob("*") if path.is_file()]
    assert len(files) == 2

    for path in files:
        damage(path)
    lab.works(arguments=("--force",))

    assert contents(lab.dist) == right
    assert lasting(lab.cache) == cached


def test_any_part_of_the_cache_may_be_deleted(lab: Lab) -> None:
    lab.pin(make_wheel(lab.wheelhouse), make_wheel(lab.wheelhouse, "more"))
    lab.works()
    right = contents(lab.dist)
    cached = lasting(lab.cache)

    for path in sorted(lab.cache.rglob("*"), reverse=True):
        if path.is_file():
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()
        if len(path.relative_to(lab.cache).parts) < 3:
            lab.works(arguments=("--force",))
            assert contents(lab.dist) == right
    assert lasting(lab.cache) == cached


@pytest.mark.parametrize("damage", _DAMAGES.values(), ids=_DAMAGES.keys())
@pytest.mark.parametrize("suffix", ["zip", "json"])
def test_a_damaged_layer_is_made_again(lab: Lab, suffix: str, damage: Callable[[Path], object]) -> None:
    lab.pin(make_wheel(lab.wheelhouse))
    lab.works()
    right = contents(lab.dist)

    damage(lab.dist / f"demo-{OTHER}.{suffix}")
    lab.works()

    assert contents(lab.dist) == right


@pytest.mark.parametrize(
    "change",
    [
        {"code_sha256": "other"},
        {"zipped": 1},
        {"zipped": None},
        {"inputs_digest": "sha256:0"},
        {"version": 0},
        {"recipe": ...},
        {"unzipped": ...},
        {"distributions": ...},
        {"unzipped": 1},
        {"distributions": []},
    ],
    ids=str,
)
def test_a_manifest_that_tells_other_than_it_should_is_made_again(lab: Lab, change: dict[str, object]) -> None:
    lab.pin(make_wheel(lab.wheelhouse))
    lab.works()
    right = contents(lab.dist)
    path = lab.dist / f"demo-{OTHER}.json"
    told = json.loads(path.read_text()) | change

    path.write_text(json.dumps({key: value for key, value in told.items() if value is not ...}, indent=2) + "\n")
    lab.works()

    assert contents(lab.dist) == right
