"""What the build of a source archive asks for, read off archives of every kind, good and damaged."""

from __future__ import annotations

import base64
import io
import random
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layerbuild.builders.source import build_requirements
from layerbuild.errors import BuildError

PYPROJECT = '[build-system]\nrequires = ["setuptools>=61", "cython<4; python_version < \'3.13\'"]\n'
REQUIRED = ("setuptools>=61", "cython<4; python_version < '3.13'")
LEGACY = ("setuptools", "wheel")
KINDS = ("tar.gz", "zip", "tar.bz2", "tar.xz", "tar", "tgz")
LARGEST = 1 << 20

Files = Mapping[str, str | bytes]
Make = Callable[..., Path]


def entry(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, linkname: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.size, made.linkname = kind, len(content), linkname
    return made


@pytest.fixture
def archive(tmp_path: Path) -> Make:
    """Writes a source archive of some kind, in a tar behind some entries without content."""

    def make(files: Files, kind: str = "tar.gz", before: tuple[tarfile.TarInfo, ...] = ()) -> Path:
        path = tmp_path / f"demo-1.0.{kind}"
        contents = {name: text.encode() if isinstance(text, str) else text for name, text in files.items()}
        if kind == "zip":
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
                for name, content in contents.items():
                    zipped.writestr(name, content)
            return path
        mode = {"tar": "w", "tgz": "w:gz"}.get(kind, f"w:{kind[4:]}")
        with tarfile.open(path, mode) as packed:  # type: ignore[call-overload]
            for info in before:
                packed.addfile(info)
            for name, content in contents.items():
                packed.addfile(entry(name, content), io.BytesIO(content))
        return path

    return make


def required(path: Path) -> tuple[str, ...]:
    return build_requirements(path, path.name)


def refused(path: Path) -> str:
    """Why an archive cannot be read."""
    with pytest.raises(BuildError) as caught:
        required(path)
    assert (caught.value.code, caught.value.exit_code) == ("source-invalid", 3)
    assert caught.value.what == f"{path.name} cannot be read"
    (cause,) = caught.value.causes
    return cause


@pytest.mark.parametrize("kind", KINDS)
def test_build_requirements_are_those_of_the_pyproject(kind: str, archive: Make) -> None:
    files = {"demo-1.0/README": "x", "demo-1.0/pyproject.toml": PYPROJECT, "demo-1.0/setup.py": "raise SystemExit"}
    assert required(archive(files, kind)) == REQUIRED


@pytest.mark.parametrize("kind", KINDS)
def test_a_source_without_a_pyproject_is_built_by_setuptools(kind: str, archive: Make) -> None:
    assert required(archive({"demo-1.0/setup.py": "import setuptools"}, kind)) == LEGACY


@pytest.mark.parametrize(
    "text", ["", "[project]\nname = 'demo'\n", "[build-system]\nbuild-backend = 'x'\n", "[tool.x]\n"]
)
@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
def test_a_pyproject_that_names_no_requirements_changes_nothing(kind: str, text: str, archive: Make) -> None:
    assert required(archive({"demo-1.0/pyproject.toml": text}, kind)) == LEGACY


def test_no_requirements_are_none(archive: Make) -> None:
    assert required(archive({"demo-1.0/pyproject.toml": "[build-system]\nrequires = []\n"})) == ()


@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
def test_a_pyproject_that_lies_deeper_is_another_packages(kind: str, archive: Make) -> None:
    files = {
        "demo-1.0/vendored/pyproject.toml": PYPROJECT,
        "demo-1.0/tests/data/pyproject.toml": "not [ toml",
        "demo-1.0/not-pyproject.toml": "not [ toml",
        "demo-1.0/pyproject.toml.orig": "not [ toml",
        "demo-1.0/pyproject.toml/x": "not [ toml",
    }
    assert required(archive(files, kind)) == LEGACY
    assert required(archive({**files, "demo-1.0/pyproject.toml": PYPROJECT}, kind)) == REQUIRED


@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
def test_names_may_begin_with_a_dot(kind: str, archive: Make) -> None:
    assert required(archive({"./demo-1.0/pyproject.toml": PYPROJECT}, kind)) == REQUIRED


@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
@pytest.mark.parametrize(
    "text",
    [
        *(
            "[build-system\n",
            "requires = [",
            "[build-system]\nrequires = ['a'\n",
            "a = 1\na = 2\n",
            "\x00",
            f"a = {'9' * 5000}",
        ),
        *("build-system = 'x'", "build-system = ['x']", "[[build-system]]\nrequires = ['a']\n"),
    ],
    ids=ascii,
)
def test_a_broken_pyproject_is_told(kind: str, text: str, archive: Make) -> None:
    assert refused(archive({"demo-1.0/pyproject.toml": text}, kind))


@pytest.mark.parametrize("value", ["3", "true", "[1]", "['a', 2]", "[['a']]", "2020-01-01", "1.5", "[{ a = 'b' }]"])
def test_requirements_that_are_no_list_of_strings_are_told(value: str, archive: Make) -> None:
    refused(archive({"demo-1.0/pyproject.toml": f"[build-system]\nrequires = {value}\n"}))


@pytest.mark.parametrize("value", ["'setuptools'", "{ setuptools = '61' }"])
def test_requirements_that_can_be_gone_through_but_are_no_list_are_told(value: str, archive: Make) -> None:
    refused(archive({"demo-1.0/pyproject.toml": f"[build-system]\nrequires = {value}\n"}))


def test_a_pyproject_that_is_nested_too_deeply_is_told(archive: Make) -> None:
    refused(archive({"demo-1.0/pyproject.toml": f"a = {'[' * 5000}{']' * 5000}\n"}))


@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
def test_a_pyproject_that_is_not_utf8_is_told(kind: str, archive: Make) -> None:
    path = archive({"demo-1.0/pyproject.toml": b"[build-system]\nrequires = ['\xfc']\n"}, kind)
    assert "utf-8" in refused(path)
    assert required(archive({"demo-1.0/pyproject.toml": "# \u00fc\n" + PYPROJECT}, kind)) == REQUIRED


@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
def test_a_pyproject_that_is_too_large_is_told(kind: str, archive: Make) -> None:
    fits = PYPROJECT + "#" * (LARGEST - len(PYPROJECT))
    assert required(archive({"demo-1.0/pyproject.toml": fits}, kind)) == REQUIRED
    assert refused(archive({"demo-1.0/pyproject.toml": f"{fits}#"}, kind)) == "its pyproject.toml is too large"
    assert refused(archive({"demo-1.0/pyproject.toml": "#" * 50_000_000}, kind)) == "its pyproject.toml is too large"


# What is no plain file.


@pytest.mark.parametrize(
    ("kind", "linkname"),
    [
        (tarfile.SYMTYPE, "../../../etc/passwd"),
        (tarfile.SYMTYPE, "other.toml"),
        (tarfile.LNKTYPE, "demo-1.0/other.toml"),
        (tarfile.LNKTYPE, "/etc/passwd"),
        (tarfile.CHRTYPE, ""),
        (tarfile.BLKTYPE, ""),
        (tarfile.FIFOTYPE, ""),
        (tarfile.DIRTYPE, ""),
    ],
)
def test_links_and_devices_are_not_read(kind: bytes, linkname: str, archive: Make) -> None:
    hostile = entry("demo-1.0/pyproject.toml", kind=kind, linkname=linkname)
    assert required(archive({"demo-1.0/other.toml": PYPROJECT}, before=(hostile,))) == LEGACY
    assert required(archive({"demo-1.0/pyproject.toml": PYPROJECT}, before=(hostile,))) == REQUIRED


def test_nothing_is_unpacked(archive: Make, tmp_path: Path) -> None:
    outside = {"../outside": "x", "/tmp/../outside": "x", "demo-1.0/../../outside": "x"}
    path = archive({**outside, "demo-1.0/pyproject.toml": PYPROJECT})
    before = sorted(tmp_path.parent.rglob("*"))
    assert required(path) == REQUIRED
    assert sorted(tmp_path.parent.rglob("*")) == before


# Damaged archives.


@pytest.mark.parametrize("name", ["demo-1.0.tar.gz", "demo-1.0.zip"])
@pytest.mark.parametrize(
    "content", [b"", b"x", b"\x1f\x8b", b"PK\x03\x04", b"<html>no such file</html>", bytes(10_000)]
)
def test_what_is_no_archive_is_told(name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    if content == bytes(10_000) and path.suffix == ".gz":
        assert required(path) == LEGACY  # to tar, an archive that has ended
    else:
        refused(path)


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    refused(tmp_path / "demo-1.0.tar.gz")
    refused(tmp_path / "demo-1.0.zip")


def test_an_archive_of_another_kind_than_its_name_says_is_told(archive: Make, tmp_path: Path) -> None:
    files = {"demo-1.0/pyproject.toml": PYPROJECT}
    for kind, name in (("zip", "other.tar.gz"), ("tar.gz", "other.zip")):
        refused(archive(files, kind).rename(tmp_path / name))


LONG = PYPROJECT + "".join(
    f"# {base64.b64encode(random.Random(number).randbytes(60)).decode()}\n" for number in range(2000)
)


@pytest.mark.parametrize("kind", [*KINDS[:-2], "tgz"])
def test_an_archive_that_is_cut_off_is_told(kind: str, archive: Make) -> None:
    path = archive({"demo-1.0/pyproject.toml": LONG}, kind)
    whole = path.read_bytes()
    for part in (0.02, 0.3, 0.6, 0.9):
        path.write_bytes(whole[: int(len(whole) * part)])
        refused(path)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255), kind=st.sampled_from(["tar", "tar.bz2"]))
def test_a_damaged_archive_is_read_or_told(place: float, flip: int, kind: str, archive: Make) -> None:
    damage_and_read(archive({"demo-1.0/README": "x" * 2000, "demo-1.0/pyproject.toml": LONG}, kind), place, flip)


@pytest.mark.parametrize("kind", ["tar.gz", "tar.xz", "zip"])
def test_a_damaged_archive_of_any_kind_is_read_or_told(kind: str, archive: Make) -> None:
    numbers = random.Random(0)
    for _ in range(300):
        path = archive({"demo-1.0/README": "x" * 2000, "demo-1.0/pyproject.toml": LONG}, kind)
        damage_and_read(path, numbers.random(), numbers.randint(1, 255))


def damage_and_read(path: Path, place: float, flip: int) -> None:
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= flip
    path.write_bytes(data)
    try:
        assert all(isinstance(line, str) for line in required(path))
        return
    except BuildError as raised:
        error = raised
    assert error.code == "source-invalid"


@pytest.mark.parametrize("damage", ["encrypted", "unknown method"])
def test_a_zip_that_cannot_be_unpacked_is_told(damage: str, archive: Make) -> None:
    path = archive({"demo-1.0/pyproject.toml": PYPROJECT}, "zip")
    data = bytearray(path.read_bytes())
    local, central = (
        6 if damage == "encrypted" else 8,
        data.index(b"PK\x01\x02") + (8 if damage == "encrypted" else 10),
    )
    for at in (local, central):
        data[at] = 1 if damage == "encrypted" else 99
    path.write_bytes(data)
    refused(path)
