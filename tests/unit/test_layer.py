"""Where the files of wheels go in a layer, and which of them stay out."""

from __future__ import annotations

import csv
import itertools
import json
import os
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from layerbuild.archive import write_archive
from layerbuild.errors import BuildError
from layerbuild.layer import Layer, LayerFile, Place, compose
from layerbuild.recipe import Prune
from layerbuild.wheel import Wheel, read_facts, wheel_from_facts
from tests.unit.test_wheel import INFO, record_of
from tests.wheels import make_wheel, record_digest, sha256_of

PLACE = Place.versioned((3, 12))
EPOCH = 315_532_800  # 1980-01-01
SITE = "python/lib/python3.12/site-packages"


def load(path: Path) -> Wheel:
    """A wheel's facts, by way of the JSON that the cache keeps."""
    facts = json.loads(json.dumps(read_facts(path, path.name)))
    return wheel_from_facts(facts, sha256=sha256_of(path), filename=path.name, path=path)


def any_wheel(folder: Path, files: Mapping[str, bytes], **more: Any) -> Path:
    """A wheel whose paths may need quotes in RECORD."""
    with zipfile.ZipFile(make_wheel(folder, files=files, record="", **more)) as plain:
        contents = {name: plain.read(name) for name in plain.namelist() if name != f"{INFO}/RECORD"}
    return make_wheel(folder, files=files, record=record_of(contents), **more)


def lay_out(
    *paths: Path, sets: Sequence[str] = (), patterns: Sequence[str] = (), scripts: bool = False, place: Place = PLACE
) -> Layer:
    prune = Prune(sets=tuple(sets), patterns=tuple(patterns))
    return compose([load(path) for path in paths], place, prune=prune, scripts=scripts)


def content(file: LayerFile) -> bytes:
    if isinstance(file.source, bytes):
        return file.source
    raw = file.source.path.read_bytes()[file.offset :][: file.compressed]
    return zlib.decompress(raw, -15) if file.method else raw


def contents(layer: Layer) -> dict[str, bytes]:
    return {file.path: content(file) for file in layer.files}


def modes(layer: Layer) -> dict[str, int]:
    return {file.path: file.mode for file in layer.files}


def package_files(layer: Layer, site: str = SITE) -> list[str]:
    """What is in site-packages beside dist-info folders."""
    paths = [file.path.removeprefix(f"{site}/") for file in layer.files]
    return [path for path in paths if ".dist-info/" not in path]


def record(layer: Layer, site: str = SITE, info: str = INFO) -> dict[str, tuple[str, str]]:
    text = contents(layer)[f"{site}/{info}/RECORD"].decode()
    rows = list(csv.reader(text.split("\n")[:-1]))
    assert len({path for path, _, _ in rows}) == len(rows)
    return {path: (digest, size) for path, digest, size in rows}


def refusal(*paths: Path, **more: Any) -> BuildError:
    with pytest.raises(BuildError) as caught:
        lay_out(*paths, **more)
    return caught.value


DATA = "demo-1.0.data"
SPREAD = {
    "demo.py": "top\n",
    f"{DATA}/purelib/pure.py": "pure\n",
    f"{DATA}/platlib/plat.so": "plat\n",
    f"{DATA}/data/share/demo.txt": "data\n",
    f"{DATA}/headers/demo.h": "header\n",
    f"{DATA}/scripts/tool": "#!python\nprint(1)\n",
}


@pytest.mark.parametrize(("place", "site"), [(PLACE, SITE), (Place.shared(), "python")])
def test_each_part_of_a_wheel_has_its_place(tmp_path: Path, place: Place, site: str) -> None:
    files = {path.replace(DATA, "My_Demo-1.0.data"): text for path, text in SPREAD.items()}
    layer = lay_out(make_wheel(tmp_path, "My_Demo", files=files), place=place)

    info = f"{site}/My_Demo-1.0.dist-info"
    made = contents(layer)
    # Headers have none: nothing is compiled on Lambda.
    assert {path: text for path, text in made.items() if not path.startswith(info)} == {
        f"{site}/demo.py": b"top\n",
        f"{site}/pure.py": b"pure\n",
        f"{site}/plat.so": b"plat\n",
        "python/share/demo.txt": b"data\n",
    }
    assert {path for path in made if path.startswith(info)} == {
        f"{info}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "INSTALLER")
    }
    assert made[f"{info}/INSTALLER"] == b"layerbuild\n"
    assert list(made) == sorted(made)
    assert layer.unzipped == sum(map(len, made.values()))


@pytest.mark.parametrize("category", ["etc", "bin"])
def test_a_data_folder_that_no_install_scheme_has_is_refused(tmp_path: Path, category: str) -> None:
    error = refusal(make_wheel(tmp_path, files={f"{DATA}/{category}/x": ""}))
    assert error.code == "wheel-invalid"
    assert repr(category) in error.causes[0]


@pytest.mark.parametrize("category", ["purelib", "platlib", "data", "scripts"])
def test_a_file_where_the_data_folder_has_folders_is_refused(tmp_path: Path, category: str) -> None:
    assert refusal(make_wheel(tmp_path, files={f"{DATA}/{category}": ""}), scripts=True).code == "wheel-invalid"


@pytest.mark.parametrize(
    "path", [f"{DATA}/purelib/{INFO}/RECORD", f"{DATA}/data/lib/python3.12/site-packages/{INFO}/INSTALLER"]
)
def test_no_way_round_gives_a_layer_the_same_path_twice(tmp_path: Path, path: str) -> None:
    wheel = make_wheel(tmp_path, files={"demo.py": "", path: "forged\n"})
    try:
        layer = lay_out(wheel)
    except BuildError:
        return
    paths = [file.path for file in layer.files]
    assert len(set(paths)) == len(paths)
    assert b"forged\n" not in contents(layer).values()


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_scripts_run_with_the_interpreter_of_the_runtime(tmp_path: Path, compression: int) -> None:
    files = {
        f"{DATA}/scripts/tool": b"#!python\nprint(1)\n",
        f"{DATA}/scripts/window": b"#!pythonw\r\nprint(2)\n",
        f"{DATA}/scripts/shell": b"#!/bin/sh\necho\n",
        f"{DATA}/scripts/binary": b"\x7fELF\0\xff",
    }
    layer = lay_out(make_wheel(tmp_path, files=files, compression=compression), scripts=True)

    bin_files = {path: text for path, text in contents(layer).items() if path.startswith("bin/")}
    assert bin_files == {
        "bin/tool": b"#!/var/lang/bin/python3.12\nprint(1)\n",
        "bin/window": b"#!/var/lang/bin/python3.12\nprint(2)\n",
        "bin/shell": b"#!/bin/sh\necho\n",
        "bin/binary": b"\x7fELF\0\xff",
    }
    assert {modes(layer)[path] for path in bin_files} == {0o755}
    assert {f"../../../../{path}" for path in bin_files} <= record(layer).keys()


def test_scripts_of_a_shared_layer_run_with_any_python(tmp_path: Path) -> None:
    layer = lay_out(make_wheel(tmp_path, files=SPREAD), scripts=True, place=Place.shared())
    assert contents(layer)["bin/tool"] == b"#!/var/lang/bin/python3\nprint(1)\n"
    assert "../bin/tool" in record(layer, "python")


@pytest.mark.parametrize("place", [PLACE, Place.shared()], ids=["versioned", "shared"])
def test_entry_points_become_programs_that_run(tmp_path: Path, place: Place) -> None:
    wheel = make_wheel(
        tmp_path,
        files={"demo/__init__.py": "class App:\n    @staticmethod\n    def run(): return 'from the layer'\n"},
        entry_points="[console_scripts]\ndemo = demo:App.run\n",
    )
    write_archive(lay_out(wheel, scripts=True, place=place).files, tmp_path / "layer.zip", epoch=EPOCH)
    opt = tmp_path / "opt"
    with zipfile.ZipFile(tmp_path / "layer.zip") as archive:
        archive.extractall(opt)
        mode = archive.getinfo("bin/demo").external_attr >> 16
    program = opt / "bin/demo"
    text = program.read_text()
    assert text.startswith(f"#!{place.interpreter}\n")
    program.write_text(text.replace(place.interpreter, sys.executable).replace("/opt/", f"{opt}/"))
    program.chmod(mode)

    ran = subprocess.run([program], capture_output=True, text=True, cwd=tmp_path)

    # As sys.exit does with a string.
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, "", "from the layer\n")


def test_entry_points_make_nothing_unless_asked_for(tmp_path: Path) -> None:
    layer = lay_out(make_wheel(tmp_path, entry_points="[console_scripts]\ndemo = demo:main\n"))
    assert not [path for path in contents(layer) if path.startswith("bin/")]


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "..", "."])
def test_an_entry_point_that_would_leave_bin_is_refused(tmp_path: Path, name: str) -> None:
    wheel = make_wheel(tmp_path, entry_points=f"[console_scripts]\n{name} = demo:main\n")
    assert refusal(wheel, scripts=True).code == "wheel-invalid"


@pytest.mark.parametrize("function", ["demo", "demo:", ":main", "demo:main()", "demo:a\n b"])
def test_an_entry_point_that_names_no_function_is_refused(tmp_path: Path, function: str) -> None:
    wheel = make_wheel(tmp_path, entry_points=f"[console_scripts]\ndemo = {function}\n")
    assert refusal(wheel, scripts=True).code == "wheel-invalid"


@pytest.mark.parametrize("scripts", [False, True])
@pytest.mark.parametrize("place", [PLACE, Place.shared()], ids=["versioned", "shared"])
def test_record_lists_exactly_what_the_layer_has_of_the_wheel(tmp_path: Path, scripts: bool, place: Place) -> None:
    files = {**SPREAD, 'a, "b".py': "quoted\n", "größe.py": "", f"{INFO}/RECORD.jws": "{}", f"{INFO}/INSTALLER": "x"}
    wheel = any_wheel(
        tmp_path,
        {path: text.encode() for path, text in files.items()},
        entry_points="[console_scripts]\ndemo = demo:main\n",
    )
    layer = lay_out(wheel, scripts=scripts, place=place)

    own = f"{INFO}/RECORD"
    rows = record(layer, place.site)
    assert rows.pop(own) == ("", "")
    assert {os.path.normpath(f"{place.site}/{path}"): row for path, row in rows.items()} == {
        path: (record_digest(text), str(len(text)))
        for path, text in contents(layer).items()
        if path != f"{place.site}/{own}"
    }
    assert 'a, "b".py' in rows
    assert not any("RECORD.jws" in path for path in contents(layer))


def test_record_lists_no_file_of_another_wheel(tmp_path: Path) -> None:
    layer = lay_out(make_wheel(tmp_path), make_wheel(tmp_path, "other"))
    assert "other.py" not in record(layer)
    assert "demo.py" not in record(layer, info="other-1.0.dist-info")


def test_two_wheels_may_carry_the_same_file(tmp_path: Path) -> None:
    shared = {"space/__init__.py": "# namespace\n"}
    wheels = [make_wheel(tmp_path, name, files={**shared, f"space/{name}.py": ""}) for name in ("demo", "other")]
    layer = lay_out(*wheels)
    assert package_files(layer) == ["space/__init__.py", "space/demo.py", "space/other.py"]


def test_a_file_that_two_wheels_carry_belongs_to_the_same_of_them_in_any_order(tmp_path: Path) -> None:
    shared = {"space/__init__.py": "# namespace\n"}
    one, other = (make_wheel(tmp_path, name, files=shared) for name in ("demo", "other"))
    assert contents(lay_out(one, other)) == contents(lay_out(other, one))


def test_the_order_of_wheels_does_not_matter(tmp_path: Path) -> None:
    wheels = [make_wheel(tmp_path, name) for name in ("demo", "other", "third")]
    archives = set()
    for order in itertools.permutations(wheels):
        layer = lay_out(*order)
        archives.add(
            (layer.content_digest, write_archive(layer.files, tmp_path / "layer.zip", epoch=EPOCH).code_sha256)
        )
    assert len(archives) == 1


@pytest.mark.parametrize(
    ("one", "other", "path"),
    [
        ({"common.py": "1\n"}, {"common.py": "2\n"}, f"{SITE}/common.py"),
        ({"common.py": "1\n"}, {"other-1.0.data/purelib/common.py": "2\n"}, f"{SITE}/common.py"),
        ({"common": "1\n"}, {"common/a.py": "1\n"}, f"{SITE}/common"),
        ({"common/deep/a.py": "1\n"}, {"common": "1\n"}, f"{SITE}/common"),
        ({f"{DATA}/data/lib": "1\n"}, {"a.py": "1\n"}, "python/lib"),
    ],
    ids=["content", "from-data", "file-then-folder", "folder-then-file", "site-itself"],
)
def test_wheels_that_claim_one_path_are_refused(
    tmp_path: Path, one: dict[str, str], other: dict[str, str], path: str
) -> None:
    error = refusal(make_wheel(tmp_path, files=one), make_wheel(tmp_path, "other", files=other))
    assert error.code == "path-collision"
    assert path in error.what
    # The last case collides with every file of either wheel.
    assert "demo-1.0-py3-none-any.whl" in error.causes
    assert "other-1.0-py3-none-any.whl" in error.causes or path == "python/lib"


def test_the_same_bytes_with_another_mode_collide(tmp_path: Path) -> None:
    one = make_wheel(tmp_path, files={"tool": ""})
    other = make_wheel(tmp_path, "other", files={"tool": ""}, executable=["tool"])
    assert refusal(one, other).code == "path-collision"


PRUNABLE = dict.fromkeys(
    (
        "demo/__init__.py",
        "demo/data.json",
        "demo/demo.pyi",
        "demo/include/demo.h",
        "demo/tests/test_demo.py",
        "demo/tests/data/keep.json",
        f"{DATA}/data/share/demo.json",
        f"{INFO}/data.json",
        f"{INFO}/licenses/LICENSE.md",
    ),
    "",
)


@pytest.mark.parametrize(
    ("sets", "patterns", "gone"),
    [
        ((), (), set()),
        (("tests",), (), {"demo/tests/test_demo.py", "demo/tests/data/keep.json"}),
        (("stubs", "headers"), (), {"demo/demo.pyi", "demo/include/demo.h"}),
        (("tests",), ("!demo/tests/data/",), {"demo/tests/test_demo.py"}),
        (("tests",), ("!keep.json",), {"demo/tests/test_demo.py"}),
        ((), ("demo/data.json",), {"demo/data.json"}),
        ((), ("/data.json",), set()),
        ((), ("*.json", "!keep.json"), {"demo/data.json", "python/share/demo.json"}),
        ((), ("!keep.json", "*.json"), {"demo/data.json", "demo/tests/data/keep.json", "python/share/demo.json"}),
        ((), ("share/",), {"python/share/demo.json"}),
        ((), ("demo/**/test_*.py",), {"demo/tests/test_demo.py"}),
        (("docs",), ("licenses/", "*.md"), set()),
        ((), ("demo-*.dist-info/licenses/",), {f"{INFO}/licenses/LICENSE.md"}),
        ((), ("*.dist-info/*.json",), {f"{INFO}/data.json"}),
        ((), ("*.dist-info/**", "!*.dist-info/METADATA", "!*.dist-info/licenses/**"), {f"{INFO}/data.json"}),
    ],
)
def test_pruning_leaves_out_what_patterns_match(
    tmp_path: Path, sets: Sequence[str], patterns: Sequence[str], gone: set[str]
) -> None:
    wheel = make_wheel(tmp_path, files=PRUNABLE)
    whole = contents(lay_out(wheel))
    if any(pattern == "*.dist-info/**" for pattern in patterns):
        gone = {*gone, f"{INFO}/WHEEL"}

    layer = lay_out(wheel, sets=sets, patterns=patterns)

    pruned = whole.keys() - contents(layer).keys()
    assert {path.removeprefix(f"{SITE}/") for path in pruned} == gone
    own = f"{SITE}/{INFO}/RECORD"
    assert {os.path.normpath(f"{SITE}/{path}") for path in record(layer)} == contents(layer).keys() | {own}


def test_everything_but_dist_info_can_be_pruned(tmp_path: Path) -> None:
    layer = lay_out(make_wheel(tmp_path, files=PRUNABLE), patterns=["*"])
    assert {path.removeprefix(f"{SITE}/").split("/")[0] for path in contents(layer)} == {INFO}


def test_scripts_can_be_pruned(tmp_path: Path) -> None:
    layer = lay_out(make_wheel(tmp_path, files=SPREAD), patterns=["bin/tool"], scripts=True)
    assert "bin/tool" not in contents(layer)
    assert layer.idle_patterns == ()


@pytest.mark.parametrize(
    ("patterns", "idle"),
    [
        (["demo/data.json"], ()),
        (["*.json", "*.json"], ()),
        (["*.rst", "*.json"], ("*.rst",)),
        (["*.rst", "*.rst"], ("*.rst", "*.rst")),
        (["*.json", "!keep.json"], ()),
        (["*.json", "!lost.json"], ("!lost.json",)),
        (["demo-*.dist-info/licenses/"], ()),
        (["demo-*.dist-info/sboms/"], ("demo-*.dist-info/sboms/",)),
        (["LICENSE.md"], ("LICENSE.md",)),
        (["demo-*.dist-info/licenses/", "*.rst", "*.json"], ("*.rst",)),
    ],
)
def test_patterns_that_match_nothing_are_told(tmp_path: Path, patterns: list[str], idle: tuple[str, ...]) -> None:
    assert lay_out(make_wheel(tmp_path, files=PRUNABLE), patterns=patterns).idle_patterns == idle


def test_the_content_digest_does_not_depend_on_compression(tmp_path: Path) -> None:
    files = {"demo.py": "x = 1\n" * 100}
    layers = [
        lay_out(make_wheel(tmp_path / str(compression), files=files, compression=compression))
        for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    ]
    assert layers[0].files != layers[1].files
    assert layers[0].content_digest == layers[1].content_digest
    assert layers[0].content_digest.startswith("sha256:")


def test_the_content_digest_depends_on_path_mode_and_content(tmp_path: Path) -> None:
    layer = lay_out(make_wheel(tmp_path))
    first, *rest = layer.files
    changed = [first._replace(path="elsewhere"), first._replace(mode=0o755), first._replace(sha256="A" * 43)]
    layers = [layer, *(Layer(files=(file, *rest), wheels=layer.wheels) for file in changed)]
    assert len({each.content_digest for each in layers}) == 4
