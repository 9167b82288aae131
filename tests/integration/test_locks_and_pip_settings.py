"""Locks are right for their target, and pip's settings hold for every way to a package."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from layerbuild.target import MACHINES, select_targets
from tests.index_server import IndexServer
from tests.integration.test_faults import ARCH, BOTH_RESOLVERS, FOREIGN_ARCH, HOST, OTHER, Lab, make_sdist
from tests.integration.test_faults import lab as lab
from tests.wheels import make_wheel, sha256_of

Setting = Callable[..., None]


def lock_path(lab: Lab, target: str = OTHER) -> Path:
    return lab.project / "recipes/demo/locks" / f"{target}.txt"


def pins(lab: Lab, target: str = OTHER) -> dict[str, str]:
    """What a lock pins."""
    return dict(re.findall(r"^([\w.-]+)==([\w.]+)", lock_path(lab, target).read_text(), re.MULTILINE))


def hashes(lab: Lab, target: str = OTHER) -> set[str]:
    return set(re.findall(r"--hash=sha256:([0-9a-f]{64})", lock_path(lab, target).read_text()))


def lock(lab: Lab, target: str = OTHER, *arguments: str) -> dict[str, str]:
    """Locks the recipe and returns the pins."""
    ran = lab.cli("lock", "demo", "--target", target, *arguments)
    assert ran.code == 0, ran.err
    return pins(lab, target)


def require(lab: Lab, *requirements: str, extra: str = "") -> None:
    """Lets the recipe require other things."""
    wanted = ", ".join(f"'{text}'" for text in requirements)
    (lab.project / "recipes/demo/recipe.toml").write_text(f'name = "demo"\nrequirements = [{wanted}]\n{extra}')


# The target decides


@pytest.mark.parametrize("target", sorted({"python3.9-x86_64", "python3.12-x86_64", "python3.12-arm64", HOST, OTHER}))
def test_markers_are_those_of_the_target(lab: Lab, target: str) -> None:
    markers = {
        "backport": 'python_version<"3.10"',
        "modern": 'python_full_version>="3.10.0"',
        "winonly": 'sys_platform=="win32"',
        "linuxonly": 'sys_platform=="linux"',
        "armonly": 'platform_machine=="aarch64"',
        "intelonly": 'platform_machine=="x86_64"',
        "pypyonly": 'implementation_name=="pypy"',
    }
    make_wheel(lab.wheelhouse, "demo", requires=[f"{name}; {marker}" for name, marker in markers.items()])
    for name in markers:
        make_wheel(lab.wheelhouse, name)
    runtime, arch = target.split("-")
    expected = {"demo", "linuxonly", "armonly" if arch == "arm64" else "intelonly"}
    expected.add("backport" if runtime == "python3.9" else "modern")

    assert set(lock(lab, target)) == expected


@pytest.mark.parametrize("arch", [ARCH, FOREIGN_ARCH])
@pytest.mark.parametrize("python", sorted({"python3.11", "python3.12", "python3.13", HOST.split("-")[0]}))
def test_the_glibc_of_the_target_decides_which_version_is_newest(lab: Lab, python: str, arch: str) -> None:
    target = f"{python}-{arch}"
    machine = MACHINES[arch]
    make_wheel(lab.wheelhouse, "demo", "1.0", tag=f"py3-none-manylinux_2_17_{machine}")
    make_wheel(lab.wheelhouse, "demo", "2.0", tag=f"py3-none-manylinux_2_28_{machine}")
    make_wheel(lab.wheelhouse, "demo", "3.0", tag=f"py3-none-manylinux_2_39_{machine}")
    (chosen,) = select_targets([target])

    assert lock(lab, target) == {"demo": "2.0" if chosen.runtime.glibc >= (2, 28) else "1.0"}

    ran = lab.cli("make", "demo", "--target", target, "--locked")
    assert ran.code == 0, ran.err


@BOTH_RESOLVERS
def test_a_wheel_for_another_python_or_machine_is_not_chosen(lab: Lab, target: str) -> None:
    make_wheel(lab.wheelhouse, "demo", "1.0")
    make_wheel(lab.wheelhouse, "demo", "2.0", tag="cp38-cp38-manylinux2014_x86_64")
    make_wheel(lab.wheelhouse, "demo", "3.0", tag="py3-none-win_amd64")
    make_wheel(lab.wheelhouse, "demo", "4.0", tag="py3-none-musllinux_1_1_x86_64")
    make_wheel(lab.wheelhouse, "demo", "5.0", tag="py3-none-manylinux2014_ppc64le")

    assert lock(lab, target) == {"demo": "1.0"}


@BOTH_RESOLVERS
def test_a_newest_version_without_a_wheel_is_passed_over_and_never_run(lab: Lab, target: str) -> None:
    marker = lab.project / "it-ran"
    make_wheel(lab.wheelhouse, requires=["helper"])
    make_wheel(lab.wheelhouse, "helper")
    for name in ("demo", "helper"):
        make_sdist(lab.wheelhouse, name, "2.0", f"open({str(marker)!r}, 'w')")

    assert lock(lab, target) == {"demo": "1.0", "helper": "1.0"}

    assert not marker.exists()


@BOTH_RESOLVERS
@pytest.mark.parametrize("said", [True, False], ids=["hashes on the page", "no hashes on the page"])
def test_every_file_of_a_version_is_in_its_lock(lab: Lab, target: str, said: bool) -> None:
    lab.server.hashes = said
    tags = ("py3-none-any", "cp312-cp312-win_amd64", "cp313-cp313-macosx_11_0_arm64")
    files = [make_wheel(lab.wheelhouse, tag=tag) for tag in tags]
    files.append(make_wheel(lab.wheelhouse, build="1"))
    files.append(make_sdist(lab.wheelhouse, "demo", "1.0"))
    make_wheel(lab.wheelhouse, version="0.9")
    make_wheel(lab.wheelhouse, "demo-extras")

    lock(lab, target)

    assert hashes(lab, target) == {sha256_of(path) for path in files}
    lab.works(target, ("--locked",))


@BOTH_RESOLVERS
def test_the_header_says_what_was_locked_and_by_which_resolver(lab: Lab, target: str) -> None:
    make_wheel(lab.wheelhouse)
    require(lab, "demo>=1", extra='constraints = ["other<3"]\n')
    lock(lab, target)
    resolver = "pip-tools" if target == HOST else "uv"

    assert lock_path(lab, target).read_text().splitlines()[:4] == [
        f"# demo for {target}, locked by layerbuild with {resolver} {version(resolver)}.",
        "# To update: layerbuild lock demo --upgrade",
        "# requires: demo>=1",
        "# constrained: other<3",
    ]


# pip's settings


@pytest.fixture
def second(tmp_path: Path) -> Iterator[IndexServer]:
    """A second index, which has a newer `demo` and a package of its own."""
    make_wheel(tmp_path / "second", "demo", "2.0", requires=["only-there"])
    make_wheel(tmp_path / "second", "only-there")
    server = IndexServer(tmp_path / "second")
    yield server
    server.stop()


@pytest.fixture(params=["variables", "pip.conf"])
def setting(request: pytest.FixtureRequest, lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Setting:
    """A function that configures pip, in one way or the other, and in no other."""

    def configure(**values: str) -> None:
        monkeypatch.delenv("PIP_INDEX_URL", raising=False)
        if request.param == "variables":
            for name, value in values.items():
                monkeypatch.setenv(f"PIP_{name.upper()}", value)
            return
        # pip's own form of a list: a line each.
        lines = [f"{name.replace('_', '-')} = " + "\n    ".join(text.split()) for name, text in values.items()]
        path = tmp_path / "pip.conf"
        path.write_text("\n".join(["[global]", *lines, ""]))
        monkeypatch.setenv("PIP_CONFIG_FILE", str(path))

    return configure


@BOTH_RESOLVERS
def test_index_url_holds(lab: Lab, target: str, setting: Setting, second: IndexServer) -> None:
    make_wheel(lab.wheelhouse)
    setting(index_url=second.url)

    lab.works(target)

    assert pins(lab, target) == {"demo": "2.0", "only-there": "1.0"}
    assert lab.server.requests == []


@BOTH_RESOLVERS
def test_extra_index_url_holds_and_the_best_version_wins(
    lab: Lab, target: str, setting: Setting, second: IndexServer
) -> None:
    old = make_wheel(lab.wheelhouse)
    setting(index_url=lab.server.url, extra_index_url=second.url)

    lab.works(target)

    assert pins(lab, target) == {"demo": "2.0", "only-there": "1.0"}
    require(lab, "demo<2")
    assert lock(lab, target) == {"demo": "1.0"}
    assert hashes(lab, target) == {sha256_of(old)}


@BOTH_RESOLVERS
def test_a_version_that_two_indexes_have_is_locked_with_the_files_of_both(
    lab: Lab, target: str, setting: Setting, second: IndexServer
) -> None:
    one = make_wheel(lab.wheelhouse, "only-there", files={"only_there.py": "OTHER = 1\n"})
    make_sdist(lab.wheelhouse, "only-there", "1.0")
    require(lab, "only-there")
    setting(index_url=lab.server.url, extra_index_url=second.url)

    lock(lab, target)

    files = [one, second.folder / one.name, lab.wheelhouse / "only-there-1.0.tar.gz"]
    assert hashes(lab, target) == {sha256_of(path) for path in files}


@BOTH_RESOLVERS
@pytest.mark.parametrize("place", ["absolute", "relative", "url"])
def test_find_links_holds(lab: Lab, target: str, setting: Setting, second: IndexServer, place: str) -> None:
    make_wheel(lab.wheelhouse)
    folder = lab.project / "vendor"
    second.folder.rename(folder)
    where = {"absolute": str(folder), "relative": "vendor", "url": folder.as_uri()}[place]
    setting(index_url=lab.server.url, find_links=where)

    assert "only_there.py" in lab.works(target)

    assert pins(lab, target) == {"demo": "2.0", "only-there": "1.0"}


@BOTH_RESOLVERS
def test_two_find_links_do_without_an_index(lab: Lab, target: str, setting: Setting, second: IndexServer) -> None:
    make_wheel(lab.wheelhouse, version="3.0", requires=["only-there"])
    setting(no_index="true", find_links=f"{lab.wheelhouse} {second.folder}")

    lab.works(target)

    assert pins(lab, target) == {"demo": "3.0", "only-there": "1.0"}
    assert lab.server.requests == second.requests == []


@BOTH_RESOLVERS
@pytest.mark.parametrize("password", ["secret", "p@ss/w:rd%"])
def test_credentials_in_the_url_serve_lock_and_download_and_stay_out_of_the_lock(
    lab: Lab, target: str, setting: Setting, password: str
) -> None:
    lab.server.password = f"user:{password}"
    lab.server.hashes = False
    make_wheel(lab.wheelhouse, requires=["more"])
    make_wheel(lab.wheelhouse, "more")
    quoted = password.replace("%", "%25").replace("@", "%40").replace("/", "%2F").replace(":", "%3A")
    setting(index_url=lab.server.url.replace("://", f"://user:{quoted}@"))

    lab.works(target)

    text = lock_path(lab, target).read_text()
    assert pins(lab, target) == {"demo": "1.0", "more": "1.0"}
    assert password not in text
    assert quoted not in text
    assert "127.0.0.1" not in text


@BOTH_RESOLVERS
def test_credentials_in_netrc_serve_lock_and_download(
    lab: Lab, target: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lab.server.password = "user:secret"
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login user password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    make_wheel(lab.wheelhouse)

    lab.works(target)


@BOTH_RESOLVERS
def test_missing_credentials_are_told(lab: Lab, target: str) -> None:
    lab.server.password = "user:secret"
    make_wheel(lab.wheelhouse)

    lab.fails(4, "401", "pip config list", target=target)

    lab.server.password = None
    lab.works(target)


# Pins over time


@pytest.fixture
def locked(lab: Lab, request: pytest.FixtureRequest) -> Lab:
    """A project locked at the only versions there were, before newer ones came out; for the test's own target."""
    target = request.node.callspec.params.get("target", OTHER)
    require(lab, "demo", "left", "right")
    for name in ("demo", "left", "right"):
        make_wheel(lab.wheelhouse, name, requires=["common"])
    make_wheel(lab.wheelhouse, "common")
    assert set(lock(lab, target).values()) == {"1.0"}
    for name in ("demo", "left", "right", "common"):
        make_wheel(lab.wheelhouse, name, "2.0", requires=["common"] if name != "common" else [])
    return lab


@BOTH_RESOLVERS
@pytest.mark.parametrize(
    ("arguments", "moved"),
    [
        ((), ()),
        (("--upgrade", "left"), ("left",)),
        (("--upgrade", "common"), ("common",)),
        (("--upgrade", "left", "--upgrade", "right"), ("left", "right")),
        (("--upgrade",), ("demo", "left", "right", "common")),
    ],
    ids=str,
)
def test_pins_move_only_when_asked(
    locked: Lab, target: str, arguments: tuple[str, ...], moved: tuple[str, ...]
) -> None:
    before = lock_path(locked, target).stat().st_mtime_ns
    text = lock_path(locked, target).read_text()

    now = lock(locked, target, *arguments)

    assert {name for name, pinned in now.items() if pinned == "2.0"} == set(moved)
    assert len(now) == 4
    if not moved:
        assert lock_path(locked, target).stat().st_mtime_ns == before
        assert lock_path(locked, target).read_text() == text


@BOTH_RESOLVERS
def test_a_lock_that_would_say_the_same_is_not_touched(locked: Lab, target: str) -> None:
    lock(locked, target, "--upgrade")
    path = lock_path(locked, target)
    path.write_text(path.read_text() + "# a remark\n")
    os.utime(path, (1_000_000_000, 1_000_000_000))

    lock(locked, target, "--upgrade")

    assert path.stat().st_mtime == 1_000_000_000
    assert path.read_text().endswith("# a remark\n")


@BOTH_RESOLVERS
def test_make_locks_again_what_no_longer_fits_and_keeps_the_other_pins(locked: Lab, target: str) -> None:
    require(locked, "demo", "left>=2", "right")
    refused = locked.cli("make", "demo", "--target", target, "--locked")
    assert refused.code == 3
    assert "lock-misfit" in refused.err
    assert "left" in refused.err
    assert pins(locked, target)["left"] == "1.0"

    ran = locked.cli("make", "demo", "--target", target)

    assert ran.code == 0, ran.err
    assert f"locked demo for {target}" in ran.err
    assert pins(locked, target) == {"demo": "1.0", "left": "2.0", "right": "1.0", "common": "1.0"}
    assert locked.cli("make", "demo", "--target", target, "--locked").code == 0


def test_a_missing_lock_is_refused_by_locked(lab: Lab) -> None:
    make_wheel(lab.wheelhouse)

    lab.fails(3, "lock-missing", "layerbuild lock demo", arguments=("--locked",))

    assert not lock_path(lab).exists()
    assert lab.server.requests == []


def _rewrite(old: str, new: str) -> Callable[[Lab], object]:
    def change(lab: Lab) -> None:
        path = lock_path(lab)
        text = path.read_text()
        assert re.search(old, text)
        path.write_text(re.sub(old, new, text, count=1))

    return change


_MISFITS: dict[str, tuple[Callable[[Lab], object], str]] = {
    "no lock": (lambda lab: lock_path(lab).unlink(), "there is no lock"),
    "another requirement": (lambda lab: require(lab, "demo", "left", "right", "more"), "more"),
    "one requirement less": (lambda lab: require(lab, "demo", "left"), "no longer says right"),
    "another version": (lambda lab: require(lab, "demo", "left>=2", "right"), "left"),
    "a constraint": (
        lambda lab: require(lab, "demo", "left", "right", extra='constraints = ["common>=2"]\n'),
        "common",
    ),
    "a pin taken out": (_rewrite(r"left==(.*\n)+?(?=\S)", ""), "left is not in the lock"),
    "a pin changed": (_rewrite(r"demo==1\.0", "demo==0.5"), "demo is locked at 0.5"),
    "a pin without hashes": (_rewrite(r"demo==1\.0( \\\n +--hash=\S+)+", "demo==1.0"), "demo"),
    "a range": (_rewrite(r"demo==1\.0", "demo>=1.0"), "not pinned"),
    "pinned twice": (_rewrite(r"\Z", f"demo==2.0 --hash=sha256:{'0' * 64}\n"), "pinned twice"),
    "no text": (lambda lab: lock_path(lab).write_bytes(b"\xff\xfe\x00"), ""),
}


@pytest.mark.parametrize(("change", "reason"), _MISFITS.values(), ids=_MISFITS.keys())
def test_check_and_locked_find_what_does_not_fit(locked: Lab, change: Callable[[Lab], object], reason: str) -> None:
    require(locked, "demo>=1", "left", "right")
    lock(locked)
    assert locked.cli("lock", "demo", "--target", OTHER, "--check").code == 0
    change(locked)
    before = lock_path(locked).read_bytes() if lock_path(locked).exists() else None
    locked.server.requests.clear()

    checked = locked.cli("lock", "demo", "--target", OTHER, "--check")
    as_json = locked.cli("lock", "demo", "--target", OTHER, "--check", "--json")
    refused = locked.cli("make", "demo", "--target", OTHER, "--locked")

    assert checked.code == as_json.code == 1
    assert OTHER in checked.out
    assert reason in checked.out
    (row,) = as_json.json["locks"]
    assert row["fits"] is False
    assert refused.code == 3, refused.err
    assert "Traceback" not in refused.err
    assert (lock_path(locked).read_bytes() if lock_path(locked).exists() else None) == before
    assert locked.server.requests == []


# Requirements files


@BOTH_RESOLVERS
def test_constraints_of_a_requirements_file_hold(lab: Lab, target: str) -> None:
    for number in ("1.0", "2.0", "3.0"):
        make_wheel(lab.wheelhouse, "demo", number, requires=["common"])
        make_wheel(lab.wheelhouse, "common", number)
        make_wheel(lab.wheelhouse, "unneeded", number)
    (lab.project / "sub").mkdir()
    (lab.project / "sub/needs.txt").write_text("-r more.txt\n--constraint=limits.txt\n")
    (lab.project / "sub/more.txt").write_text("demo  # of all\n")
    (lab.project / "sub/limits.txt").write_text("common<3\nunneeded==1.0\ndemo!=3.0\n")

    ran = lab.cli("make", "-r", "sub/needs.txt", "--name", "web", "--target", target)

    assert ran.code == 0, ran.err
    text = (lab.project / "locks/web" / f"{target}.txt").read_text()
    assert re.findall(r"^([\w.-]+==[\w.]+)", text, re.MULTILINE) == ["common==2.0", "demo==2.0"]
    (lab.project / "sub/limits.txt").write_text("common<2\n")
    assert lab.cli("make", "-r", "sub/needs.txt", "--name", "web", "--target", target, "--locked").code == 3


def test_a_requirements_file_with_hashes_is_the_lock(lab: Lab) -> None:
    make_wheel(lab.wheelhouse, version="2.0")
    old = make_wheel(lab.wheelhouse, requires=["left-out"])
    (lab.project / "needs.txt").write_text(f"demo==1.0 \\\n    --hash=sha256:{sha256_of(old)}\n")

    make = ("make", "-r", "needs.txt", "--name", "web", "--target", OTHER, "--locked", "--json")
    assert lab.cli(*make).json["failed"][0]["code"] == "checks-failed"
    ran = lab.cli(*make, "--ignore", "contents-requirement")

    assert ran.code == 0, ran.err
    assert [row["wheel"] for row in ran.json["layers"][0]["manifest"]["distributions"]] == [old.name]
    assert not (lab.project / "locks").exists()


# What else could reach a lock


@BOTH_RESOLVERS
def test_settings_of_uv_and_of_pip_about_versions_change_no_lock(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    for number in ("1.0", "2.0", "3.0rc1"):
        make_wheel(lab.wheelhouse, "demo", number)
    settings = lab.project / "uv" / "uv.toml"
    settings.parent.mkdir()
    settings.write_text('[pip]\nemit-index-url = true\nresolution = "lowest"\n')
    monkeypatch.setenv("XDG_CONFIG_HOME", str(lab.project))
    monkeypatch.setenv("UV_RESOLUTION", "lowest")
    monkeypatch.setenv("PIP_PRE", "1")

    assert lock(lab, target) == {"demo": "2.0"}
    assert "http" not in lock_path(lab, target).read_text()


@pytest.mark.parametrize("arch", [ARCH, FOREIGN_ARCH])
def test_markers_see_the_patch_version_of_the_target(lab: Lab, arch: str) -> None:
    target = f"{HOST.rsplit('-', 1)[0]}-{arch}"
    (chosen,) = select_targets([target])
    make_wheel(lab.wheelhouse, "exact")
    make_wheel(lab.wheelhouse, "other")
    make_wheel(
        lab.wheelhouse,
        "demo",
        requires=[
            f'exact; python_full_version == "{chosen.runtime.python}"',
            f'other; python_full_version != "{chosen.runtime.python}"',
        ],
    )

    assert lock(lab, target) == {"demo": "1.0", "exact": "1.0"}


@BOTH_RESOLVERS
def test_a_pin_is_kept_although_another_index_has_only_a_foreign_wheel_of_it(
    lab: Lab, second: IndexServer, setting: Setting, target: str
) -> None:
    for number in ("1.0", "2.0"):
        make_wheel(lab.wheelhouse, "ext", number, tag="py3-none-manylinux_2_17_" + MACHINES[target.split("-")[1]])
        make_wheel(lab.wheelhouse, "app", number, requires=["ext"])
    require(lab, "app")
    make_wheel(second.folder, "ext", "2.0", tag="cp38-cp38-win32")
    setting(index_url=lab.server.url, extra_index_url=second.url)
    assert lock(lab, target)["ext"] == "2.0"

    assert lock(lab, target, "--upgrade", "app")["ext"] == "2.0"


@BOTH_RESOLVERS
def test_a_pin_that_is_in_the_way_of_a_new_requirement_gives_way(lab: Lab, target: str) -> None:
    make_wheel(lab.wheelhouse, "app", "1.0", requires=["part<2"])
    make_wheel(lab.wheelhouse, "app", "2.0", requires=["part>=2"])
    for number in ("1.0", "2.0"):
        make_wheel(lab.wheelhouse, "part", number)
    require(lab, "app")
    assert lock(lab, target) == {"app": "2.0", "part": "2.0"}

    require(lab, "app", "part<2")

    assert lock(lab, target) == {"app": "1.0", "part": "1.0"}


@BOTH_RESOLVERS
@pytest.mark.parametrize("damage", [b"<<<<<<< HEAD\n", b"\xff\n"])
def test_a_damaged_lock_is_made_anew_by_lock(lab: Lab, target: str, damage: bytes) -> None:
    make_wheel(lab.wheelhouse)
    lock(lab, target)
    path = lock_path(lab, target)
    good = path.read_bytes()
    path.write_bytes(damage + good)
    assert "layerbuild lock" in lab.cli("make", "demo", "--target", target, "--locked").err

    lock(lab, target)

    assert path.read_bytes() == good


@pytest.mark.parametrize("turned", [False, True])
def test_the_order_of_indexes_does_not_choose_between_equal_wheels(
    lab: Lab, second: IndexServer, setting: Setting, turned: bool
) -> None:
    make_wheel(lab.wheelhouse, "tie", "1.0", {"a.py": ""})
    make_wheel(second.folder, "tie", "1.0", {"b.py": ""}, tag="py2.py3-none-any")
    require(lab, "tie")
    urls = [lab.server.url, second.url]
    setting(index_url=urls[turned], extra_index_url=urls[not turned])
    ran = lab.cli("make", "demo", "--target", OTHER, "--json")
    (layer,) = ran.json["layers"]
    assert layer["manifest"]["distributions"][0]["wheel"] == "tie-1.0-py2.py3-none-any.whl"
