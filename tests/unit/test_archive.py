"""The zip that Lambda is given, as other programs read it, and the manifest beside it."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import struct
import subprocess
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import layerbuild
from layerbuild.archive import (
    MANIFEST_VERSION,
    Manifest,
    Written,
    archive_sizes,
    distribution_sizes,
    source_date,
    write_archive,
)
from layerbuild.errors import BuildError, UsageError
from layerbuild.layer import Layer
from tests.unit.test_layer import EPOCH, SITE, any_wheel, contents, lay_out
from tests.wheels import make_wheel, sha256_of

SCHEMA = Path(layerbuild.__file__).parent / "schemas/manifest.schema.json"

_parts = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="/\\:", min_codepoint=32), min_size=1, max_size=8
).filter(lambda part: part not in (".", "..") and not part.endswith((".dist-info", ".data")))
_paths = st.lists(_parts, min_size=1, max_size=3).map("/".join)


def _is_tree(paths: dict[str, Any]) -> bool:
    """Whether no path is a folder of another."""
    return not any(one.startswith(f"{other}/") for one in paths for other in paths)


trees = st.dictionaries(_paths, st.tuples(st.binary(max_size=300), st.booleans()), max_size=8).filter(_is_tree)


def write(layer: Layer, folder: Path, *, epoch: int = EPOCH) -> Path:
    path = folder / "layer.zip"
    write_archive(layer.files, path, epoch=epoch)
    return path


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(tree=trees, compression=st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
def test_any_tree_comes_out_of_the_zip_as_it_went_in(
    tree: dict[str, tuple[bytes, bool]], compression: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("tree")
    executable = [path for path, (_, program) in tree.items() if program]
    files = {path: data for path, (data, _) in tree.items()}
    layer = lay_out(any_wheel(folder, files, executable=executable, compression=compression))

    path = write(layer, folder)

    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        infos = archive.infolist()
        found = {info.filename: archive.read(info) for info in infos}
    assert {f"{SITE}/{name}": data for name, data in files.items()}.items() <= found.items()
    assert found == contents(layer)
    assert [info.filename for info in infos] == sorted(found, key=str.encode)
    for info in infos:
        program = info.filename.removeprefix(f"{SITE}/") in executable
        assert info.external_attr >> 16 == (0o100755 if program else 0o100644)
        assert info.date_time == (1980, 1, 1, 0, 0, 0)
        assert (info.extra, info.comment, info.create_system, info.extract_version) == (b"", b"", 3, 20)
        assert bool(info.flag_bits & 0x800) is not info.filename.isascii()
    _check_structure(path, infos)
    sizes = [size for folders in archive_sizes(path).values() for size in folders.values()]
    assert sum(unzipped for unzipped, _ in sizes) == layer.unzipped
    assert sum(zipped for _, zipped in sizes) == sum(info.compress_size for info in infos)


def _check_structure(path: Path, infos: list[zipfile.ZipInfo]) -> None:
    """Members, directory and end record follow each other without a gap, hence without zip64 records."""
    data = path.read_bytes()
    position = 0
    for info in infos:
        assert info.header_offset == position
        name_size, extra_size = struct.unpack_from("<2H", data, position + 26)
        assert extra_size == 0
        position += 30 + name_size + info.compress_size
    directory = sum(46 + len(info.filename.encode()) for info in infos)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, len(infos), len(infos), directory, position, 0)
    assert data[position + directory :] == end


@pytest.mark.skipif(shutil.which("unzip") is None, reason="needs Info-ZIP's unzip")
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(tree=trees)
def test_unzip_finds_nothing_wrong_with_any_archive(
    tree: dict[str, tuple[bytes, bool]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("tree")
    path = write(lay_out(any_wheel(folder, {name: data for name, (data, _) in tree.items()})), folder)
    ran = subprocess.run(["unzip", "-tq", path], capture_output=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.skipif(shutil.which("unzip") is None, reason="needs Info-ZIP's unzip")
def test_unzip_extracts_what_went_in(tmp_path: Path) -> None:
    layer = lay_out(
        make_wheel(tmp_path, files={"demo/run.sh": "x\n" * 999, "demo/a.py": ""}, executable=["demo/run.sh"])
    )
    ran = subprocess.run(["unzip", "-q", write(layer, tmp_path), "-d", tmp_path / "opt"], capture_output=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", b"")
    files = [path for path in (tmp_path / "opt").rglob("*") if path.is_file()]
    assert {path.relative_to(tmp_path / "opt").as_posix(): path.read_bytes() for path in files} == contents(layer)
    assert {path.name for path in files if path.stat().st_mode & 0o111} == {"run.sh"}


def test_an_archive_larger_than_any_buffer_is_whole(tmp_path: Path) -> None:
    files = {f"{number}.bin": bytes([number]) * 1_500_000 for number in range(3)}
    wheels = [
        make_wheel(tmp_path, files=files, compression=zipfile.ZIP_STORED),
        make_wheel(tmp_path, "other", files={"other.bin": b"other" * 500_000}),
    ]
    layer = lay_out(*wheels)
    path = write(layer, tmp_path)
    with zipfile.ZipFile(path) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == contents(layer)
        _check_structure(path, archive.infolist())


def test_what_was_written_is_told_as_lambda_tells_it(tmp_path: Path) -> None:
    path = tmp_path / "layer.zip"
    written = write_archive(lay_out(make_wheel(tmp_path)).files, path, epoch=EPOCH)
    assert written.code_sha256 == base64.b64encode(hashlib.sha256(path.read_bytes()).digest()).decode()
    assert written.size == path.stat().st_size


def test_the_same_layer_makes_the_same_archive(tmp_path: Path) -> None:
    layers = [lay_out(make_wheel(tmp_path / name)) for name in ("one", "other")]
    one, other = (write_archive(layer.files, tmp_path / "layer.zip", epoch=EPOCH) for layer in layers)
    assert one == other


def test_a_wheel_cut_short_meanwhile_leaves_no_archive(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path)
    layer = lay_out(wheel)
    wheel.write_bytes(wheel.read_bytes()[:20])
    with pytest.raises(OSError, match="ended while it was being read"):
        write(layer, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("text", "epoch", "date"),
    [
        (None, EPOCH, (1980, 1, 1, 0, 0, 0)),
        ("", EPOCH, (1980, 1, 1, 0, 0, 0)),
        ("0", EPOCH, (1980, 1, 1, 0, 0, 0)),
        ("315532799", EPOCH, (1980, 1, 1, 0, 0, 0)),
        ("1700000001", 1700000001, (2023, 11, 14, 22, 13, 20)),
        ("4354819199", 4354819198, (2107, 12, 31, 23, 59, 58)),
        ("99999999999999", 4354819198, (2107, 12, 31, 23, 59, 58)),
    ],
)
def test_source_date_epoch_dates_every_member(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, epoch: int, date: tuple[int, ...]
) -> None:
    if text is not None:
        monkeypatch.setenv("SOURCE_DATE_EPOCH", text)
    assert source_date() == epoch
    with zipfile.ZipFile(write(lay_out(make_wheel(tmp_path)), tmp_path, epoch=source_date())) as archive:
        assert {info.date_time for info in archive.infolist()} == {date}


@pytest.mark.parametrize("text", ["-1", "1.5", "yesterday", " 1", "²", "१"])
def test_a_source_date_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", text)
    with pytest.raises(UsageError) as caught:
        source_date()
    assert caught.value.code == "bad-source-date"
    assert repr(text) in caught.value.what


@pytest.fixture
def far_away(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose time zone is half a day ahead."""
    if not hasattr(time, "tzset"):
        pytest.skip("the time zone cannot be set here")
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Far-12:45")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("far_away")
def test_the_time_zone_does_not_matter(tmp_path: Path) -> None:
    with zipfile.ZipFile(write(lay_out(make_wheel(tmp_path)), tmp_path, epoch=1700000000)) as archive:
        assert archive.infolist()[0].date_time == (2023, 11, 14, 22, 13, 20)


def test_a_layer_with_more_files_than_a_plain_zip_can_list_is_refused(tmp_path: Path) -> None:
    (file, *_) = lay_out(make_wheel(tmp_path)).files
    many = (file,) * 65_535
    write_archive(many[1:], tmp_path / "demo.zip", epoch=EPOCH)
    with pytest.raises(BuildError) as caught:
        write_archive(many, tmp_path / "larger.zip", epoch=EPOCH)
    assert not (tmp_path / "larger.zip").exists()
    assert caught.value.code == "too-many-files"
    assert "65,535 files" in caught.value.what


def test_sizes_are_told_by_distribution_and_folder(tmp_path: Path) -> None:
    layer = lay_out(
        make_wheel(
            tmp_path,
            files={"demo/a.py": "x" * 10, "demo/b.py": "x" * 20, "one.py": "x", "demo-1.0.data/data/share/d": "xyz"},
            entry_points="[console_scripts]\ndemo = demo:main\n",
        ),
        make_wheel(tmp_path, "big-one", files={"big_one/a.py": "x" * 9000}),
        scripts=True,
    )

    sizes = archive_sizes(write(layer, tmp_path))

    assert list(sizes) == ["big_one 1.0", "demo 1.0"]
    assert {folder: size for folder, (size, _) in sizes["demo 1.0"].items() if "demo-1.0" not in folder} == {
        "demo": 30,
        "one.py": 1,
        "python": 3,
        "bin": len(contents(layer)["bin/demo"]),
    }
    assert sizes["big_one 1.0"]["big_one"][0] == 9000
    assert sizes["big_one 1.0"]["big_one"][1] < 100
    totals = {name.split()[0]: sum(size for size, _ in folders.values()) for name, folders in sizes.items()}
    assert totals == {name.replace("-", "_"): size for name, (size, _) in distribution_sizes(layer).items()}


@pytest.mark.parametrize(
    "path",
    [
        "demo/_vendor/other-2.0.dist-info/RECORD",
        "demo/line\u2028end.py",
        "demo/next\x85line.py",
        'demo/"quoted", twice.py',
    ],
)
def test_sizes_add_up_to_the_archive(tmp_path: Path, path: str) -> None:
    # As setuptools has it: a distribution within another, whose RECORD lists files that are not there.
    files = {path: b"other/__init__.py,sha256=x,1\n", "demo/a.py": b"x"}
    if path.endswith("RECORD"):
        files[path.replace("RECORD", "INSTALLER")] = b"pip\n"
    layer = lay_out(any_wheel(tmp_path, files))
    sizes = archive_sizes(write(layer, tmp_path))
    assert list(sizes) == ["demo 1.0"]
    assert sum(size for size, _ in sizes["demo 1.0"].values()) == layer.unzipped


GIVEN = {
    "recipe": "demo",
    "target": "python3.12-x86_64",
    "runtimes": ["python3.12"],
    "architectures": ["x86_64"],
    "archive": "demo-python312-x86_64.zip",
    "lock_digest": "sha256:" + "0" * 64,
    "inputs_digest": "sha256:" + "1" * 64,
}


def manifest_of(folder: Path) -> Manifest:
    layer = lay_out(
        make_wheel(folder, metadata="License-Expression: MIT\n"), make_wheel(folder, "größe", version="2.0")
    )
    return Manifest.of(layer, write_archive(layer.files, folder / "layer.zip", epoch=EPOCH), **GIVEN)


def test_a_manifest_says_what_is_in_the_archive(tmp_path: Path) -> None:
    data = manifest_of(tmp_path).data
    assert GIVEN.items() <= data.items()
    with zipfile.ZipFile(tmp_path / "layer.zip") as archive:
        infos = archive.infolist()
    rows = data["distributions"]
    assert data["files"] == len(infos)
    assert data["unzipped"] == sum(info.file_size for info in infos) == sum(row["unzipped"] for row in rows)
    assert data["zipped"] == (tmp_path / "layer.zip").stat().st_size
    assert sum(row["zipped"] for row in rows) == sum(info.compress_size for info in infos)
    assert data["content_digest"].startswith("sha256:")
    assert [(row["name"], row["version"], row["licence"]) for row in rows] == [
        ("demo", "1.0", "MIT"),
        ("größe", "2.0", ""),
    ]
    assert [row["sha256"] for row in rows] == [sha256_of(tmp_path / row["wheel"]) for row in rows]


def test_a_manifest_follows_its_schema(tmp_path: Path) -> None:
    if not SCHEMA.exists():
        pytest.skip("manifest.schema.json is not there yet")
    import jsonschema

    schema = json.loads(SCHEMA.read_text("utf-8"))
    jsonschema.validators.validator_for(schema).check_schema(schema)
    data = manifest_of(tmp_path).data
    jsonschema.validate(data, schema)
    for key in data:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({name: value for name, value in data.items() if name != key}, schema)


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path)
    manifest.write(tmp_path / "layer.json")
    read = Manifest.read(tmp_path / "layer.json")
    assert read == manifest
    assert read is not None
    assert read.inputs == GIVEN["inputs_digest"]
    assert "größe" in (tmp_path / "layer.json").read_text("utf-8")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "1",
        "{}",
        "\udcff",
        json.dumps({"version": MANIFEST_VERSION, "inputs_digest": "a", "code_sha256": "b", "zipped": 1}),
    ],
)
def test_what_is_no_manifest_is_not_read_as_one(tmp_path: Path, text: str) -> None:
    path = tmp_path / "layer.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert Manifest.read(path) is None


@pytest.mark.parametrize(
    "change", [("zipped", "ripped"), ("größe", "grösse"), ('"version": 1', '"version": 2'), ("}", "")]
)
def test_a_damaged_manifest_is_not_read(tmp_path: Path, change: tuple[str, str]) -> None:
    path = tmp_path / "layer.json"
    manifest_of(tmp_path).write(path)
    text = path.read_text("utf-8")
    assert change[0] in text
    assert Manifest.read(path)
    path.write_text(text.replace(*change), "utf-8")
    assert Manifest.read(path) is None


def test_a_manifest_that_is_missing_is_none(tmp_path: Path) -> None:
    assert Manifest.read(tmp_path / "layer.json") is None


def test_a_manifest_describes_its_archive_and_no_other(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path)
    path = tmp_path / "layer.zip"
    data = path.read_bytes()
    assert manifest.describes(path)
    assert not manifest.describes(tmp_path / "missing.zip")
    path.write_bytes(data[:-1])
    assert not manifest.describes(path)
    path.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
    assert not manifest.describes(path)


def test_a_manifest_needs_no_more_of_the_archive_than_its_hash_and_size(tmp_path: Path) -> None:
    written = Written(code_sha256=base64.b64encode(hashlib.sha256(b"zip").digest()).decode(), size=3)
    manifest = Manifest.of(Layer(files=(), wheels=()), written, **GIVEN)
    (tmp_path / "layer.zip").write_bytes(b"zip")
    assert manifest.describes(tmp_path / "layer.zip")
