"""The best order of layers, why a path or module is what it is, and one layer made out of several."""

from __future__ import annotations

import json
import os
import random
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
import zipimport
from collections.abc import Callable, Iterable, Sequence
from importlib.util import module_from_spec
from itertools import permutations
from math import factorial
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from layerbuild.archive import source_date
from layerbuild.checks import Finding, check_layer
from layerbuild.errors import CheckError, UsageError
from layerbuild.stack import Stack
from layerbuild.stack.explain import explain
from layerbuild.stack.merge import merge
from layerbuild.stack.order import best_orders
from layerbuild.stack.rules import order_findings
from layerbuild.target import select_targets
from layerbuild.tree import Tree, read_folder, read_tree, read_zip
from tests.conftest import Ran
from tests.unit.test_stack_rules import (
    ARCH,
    SITE,
    TARGET,
    Files,
    Layers,
    Link,
    dist,
    layers,
    message,
    sized,
    stack_of,
    write_folder,
    write_zip,
)

__all__ = ["layers"]  # a fixture

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "layerbuild/schemas/manifest.schema.json").read_text())
EPOCH = 315_532_800  # 1980-01-01


# The best order.


def over(layers: Layers, version: str, *names: str) -> Tree:
    """Version `version` of foo, in a dist-info folder that all versions share."""
    return layers(dist("foo", version, {f"{name}.py": version for name in names}, info="foo.dist-info"))


def test_the_clean_order_is_found(layers: Layers) -> None:
    large, small = over(layers, "2.0", "foo", "bar"), over(layers, "1.0", "foo")
    stack = stack_of(large, small)
    assert [one.code for one in order_findings(stack) if one.severity == "error"] == ["stack-torn"]
    orders = best_orders(stack)
    assert (orders.best, orders.errors, orders.tried, orders.possible) == (((1, 0),), 0, 2, 2)
    assert orders.always == ()
    assert not [one for one in stack.reordered(orders.best[0]).findings() if one.severity == "error"]


def test_the_given_order_comes_first_among_equals(layers: Layers) -> None:
    stack = stack_of(*(layers({"bin/x": text}) for text in ("1", "2", "3")))
    orders = best_orders(stack)
    assert orders.best[0] == (0, 1, 2)
    assert len(orders.best) == orders.tried == 6


def test_fewer_warnings_decide_among_orders_without_errors(layers: Layers) -> None:
    # The link that wins decides whether there is a module foo that hides another layer's.
    shared = {"python/foo.py": "", "lib/x": ""}
    leading = layers({**shared, f"{SITE}/foo.py": Link("../../../../lib/x"), f"{SITE}/a.py": ""})
    dangling = layers({f"{SITE}/foo.py": Link("absent"), f"{SITE}/b.py": ""})
    stack = stack_of(dangling, leading)
    counts = {order: counted(order_findings(stack.reordered(order))) for order in permutations(range(2))}
    assert {errors for errors, _ in counts.values()} == {0}
    assert counts[0, 1] > counts[1, 0]
    orders = best_orders(stack)
    assert (orders.errors, orders.warnings, orders.best) == (*counts[1, 0], ((1, 0),))


def test_layers_that_do_not_collide_stay_where_they_are(layers: Layers) -> None:
    trees = [layers({f"python/m{number}.py": "", "bin/same": "same"}) for number in range(5)]
    orders = best_orders(stack_of(*trees))
    assert (orders.tried, orders.possible, orders.best) == (1, 120, ((0, 1, 2, 3, 4),))
    assert (orders.errors, orders.warnings) == (0, 0)


def test_groups_that_collide_are_tried_by_themselves(layers: Layers) -> None:
    trees = [
        over(layers, "2.0", "foo", "bar"),
        layers(dist("app", "2.0", {"app.py": "2", "more.py": "2"}, info="app.dist-info")),
        layers({"python/alone.py": ""}),
        over(layers, "1.0", "foo"),
        layers(dist("app", "1.0", {"app.py": "1"}, info="app.dist-info")),
    ]
    orders = best_orders(stack_of(*trees))
    assert (orders.tried, orders.possible) == (4, 120)
    assert orders.best == ((3, 4, 2, 0, 1),)
    assert orders.errors == 0


def test_collisions_in_a_chain_make_one_group(layers: Layers) -> None:
    trees = (
        layers({"a": "1"}),
        layers({"b": "1", "c": "1"}),
        layers({"a": "2", "b": "2"}),
        layers({"c": "1", "d": ""}),
    )
    assert best_orders(stack_of(*trees)).tried == 6


def test_a_file_and_a_folder_collide(layers: Layers) -> None:
    orders = best_orders(stack_of(layers({"a": ""}), layers({"a/b": ""})))
    assert (orders.tried, orders.errors) == (2, 1)
    assert [one.code for one in orders.always] == ["stack-kind"]


def test_two_versions_that_share_no_path_collide(layers: Layers) -> None:
    one, other = layers(dist("foo", "1.0", {"a.py": ""})), layers(dist("foo", "2.0", {"b.py": ""}))
    orders = best_orders(stack_of(one, other))
    assert orders.tried == 2
    assert {finding.code for finding in orders.always} >= {"stack-two-dist-infos"}


def test_what_no_order_mends_is_named(layers: Layers) -> None:
    one = layers(dist("foo", "1.0", {"foo.py": "1", "old.py": "1"}))
    other = layers(dist("foo", "2.0", {"foo.py": "2", "new.py": "2"}))
    stack = stack_of(one, other)
    for order in permutations(range(2)):
        found = {one.code for one in order_findings(stack.reordered(order)) if one.severity == "error"}
        assert found == {"stack-torn", "stack-two-dist-infos"}
    orders = best_orders(stack)
    assert orders.errors == 2
    assert {finding.code for finding in orders.always} == {"stack-torn", "stack-two-dist-infos"}


def test_metadata_of_one_version_under_two_names_collides(layers: Layers) -> None:
    # importlib.metadata finds that of the last layer, as far as layerbuild says: the order decides what is required.
    needy = layers(dist("foo", "1.0", requires=["absent"], info="Foo-1.0.dist-info"))
    content = layers(dist("foo", "1.0", info="foo-1.0.dist-info"))
    counts = [
        sum(one.severity == "error" for one in order_findings(stack_of(*trees)))
        for trees in ((needy, content), (content, needy))
    ]
    for trees in ((needy, content), (content, needy)):
        assert best_orders(stack_of(*trees)).errors == min(counts)


def test_too_many_orders_are_refused(layers: Layers) -> None:
    stack = stack_of(*(layers({"bin/x": f"{number}"}) for number in range(8)))
    with pytest.raises(UsageError) as caught:
        best_orders(stack)
    assert caught.value.code == "too-many-orders"
    assert caught.value.what == "8 layers collide with each other, which makes 40,320 orders"


def test_several_small_groups_can_be_too_many_as_well(layers: Layers) -> None:
    trees = [layers({f"bin/{number // 4}": f"{number}"}) for number in range(12)]
    with pytest.raises(UsageError, match="13,824 orders"):
        best_orders(stack_of(*trees))


@st.composite
def small_stacks(draw: st.DrawFn) -> tuple[bool, list[list[dict[str, Any]]]]:
    """For each layer the distributions in it: versions, files and places that collide easily."""
    name = st.sampled_from(["foo", "bar"])
    one = st.fixed_dictionaries(
        {
            "name": name,
            "version": st.sampled_from(["1.0", "2.0"]),
            "site": st.sampled_from([SITE, SITE, "python"]),
            "modules": st.lists(st.sampled_from(["a", "b", "ns/c"]), unique=True, max_size=3),
            "content": st.sampled_from(["", "own"]),
            "requires": st.lists(st.sampled_from(["foo>=2", "bar<2", "baz"]), max_size=1),
            "stray": st.sampled_from([{}, {}, {"bin/x": "1"}, {"bin/x": "2"}, {"bin/x/y": ""}]),
        }
    )
    # One distribution of a name in each layer: two are that layer's own fault.
    row = st.lists(one, min_size=1, max_size=2, unique_by=lambda row: str(row["name"]))
    return draw(st.booleans()), draw(st.lists(row, min_size=2, max_size=4))


def build(layers: Layers, rows: Sequence[Sequence[dict[str, Any]]], *, one_info: bool) -> Stack:
    trees = []
    for row in rows:
        parts: list[Files] = []
        for one in row:
            text = f"{one['name']} {one['version']}" if one["content"] else "same"
            files = {f"{one['name']}_{path}.py": text for path in one["modules"]}
            info = f"{one['name']}.dist-info" if one_info else ""
            parts += [
                dist(one["name"], one["version"], files, site=one["site"], requires=one["requires"], info=info),
                one["stray"],
            ]
        trees.append(layers(*parts))
    return stack_of(*trees)


def counted(found: Sequence[Finding]) -> tuple[int, int]:
    errors, warnings = (sum(one.severity == name for one in found) for name in ("error", "warning"))
    return errors, warnings


# A failure is not made smaller, which takes minutes here: the stacks are small.
@settings(max_examples=60, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(small_stacks())
def test_the_best_orders_are_those_that_trying_all_finds(drawn: tuple[bool, list[list[dict[str, Any]]]]) -> None:
    one_info, rows = drawn
    with tempfile.TemporaryDirectory() as folder:
        stack = build(Layers(Path(folder)), rows, one_info=one_info)
        everything = {
            order: order_findings(stack.reordered(order)) for order in permutations(range(len(stack.layers)))
        }
        orders = best_orders(stack)
    fewest = min(counted(found) for found in everything.values())
    assert (orders.errors, orders.warnings) == fewest
    assert orders.best
    assert all(counted(everything[order]) == fewest for order in orders.best)
    assert len(set(orders.best)) == len(orders.best) <= orders.tried
    assert orders.possible == len(everything) == factorial(len(stack.layers))
    # The proof: every error that is in all orders is named, and none that is not, in whichever version.
    assert everywhere(exactly, everything.values()) <= {exactly(one) for one in orders.always}
    assert {roughly(one) for one in orders.always} <= everywhere(roughly, everything.values())


def exactly(one: Finding) -> tuple[str, str | None]:
    return one.code, one.package or one.path


def roughly(one: Finding) -> tuple[str, str | None]:
    return one.code, one.package.partition(" ")[0] if one.package else one.path


def everywhere(
    key: Callable[[Finding], tuple[str, str | None]], orders: Iterable[Sequence[Finding]]
) -> set[tuple[str, str | None]]:
    """The errors that all orders have."""
    return set.intersection(*({key(one) for one in found if one.severity == "error"} for found in orders))


def test_reordering_keeps_what_is_known_of_each_layer(layers: Layers) -> None:
    stack = Stack(layers=(layers({"a": ""}), layers({"b": ""})), target=TARGET, identities=("one", None))
    turned = stack.reordered((1, 0))
    assert [tree.name for tree in turned.layers] == ["b.zip", "a.zip"]
    assert turned.identities == (None, "one")
    assert stack_of(*stack.layers).reordered((1, 0)).identities == ()


# Why.


def explained(stack: Stack, asked: str) -> dict[str, Any]:
    answer = explain(stack, asked)
    assert answer is not None
    assert set(answer) == {"asked", "kind", "path", "served_by", "carried_by", "why"}
    for row in answer["carried_by"]:
        assert set(row) == {"layer", "path", "size", "sha256"}
    assert answer["asked"] == asked
    return answer


def carriers(answer: dict[str, Any]) -> list[tuple[str, str]]:
    return [(row["layer"], row["path"]) for row in answer["carried_by"]]


@pytest.mark.parametrize("asked", ["/opt/bin/x", "bin/x", "bin/x/"])
def test_a_path_is_served_by_the_last_layer(asked: str, layers: Layers) -> None:
    stack = stack_of(layers({"bin/x": "1"}), layers({"bin/x": "22"}), layers({"bin/y": ""}))
    answer = explained(stack, asked)
    assert (answer["kind"], answer["path"], answer["served_by"]) == ("path", "/opt/bin/x", "b.zip")
    assert answer["why"] == "of the layers that carry it, it is the last in order"
    assert carriers(answer) == [("a.zip", "/opt/bin/x"), ("b.zip", "/opt/bin/x")]
    assert [row["size"] for row in answer["carried_by"]] == [1, 2]


def test_a_path_that_one_layer_has_or_several_have_alike(layers: Layers) -> None:
    stack = stack_of(layers({"bin/x": "1", "bin/own": ""}), layers({"bin/x": "1"}))
    assert explained(stack, "bin/own")["why"] == "no other layer carries it"
    alike = explained(stack, "bin/x")
    assert (alike["why"], alike["served_by"]) == ("the last of 2 layers with the same bytes", "b.zip")


def test_links_that_lead_elsewhere_are_not_the_same_bytes(tmp_path: Path) -> None:
    trees = [
        read_folder(write_folder(tmp_path / name, {"lib/x.so": Link(target)}), name)
        for name, target in (("one", "x1"), ("other", "x2"))
    ]
    assert explained(stack_of(*trees), "lib/x.so")["why"] == "of the layers that carry it, it is the last in order"


def test_a_path_that_is_a_folder_elsewhere_is_served_by_nobody(layers: Layers) -> None:
    answer = explained(stack_of(layers({"a": ""}), layers({"a/b": ""})), "a")
    assert answer["served_by"] is None
    assert "undocumented" in answer["why"]


def test_a_path_of_the_function(layers: Layers) -> None:
    stack = stack_of(layers({"python/a.py": ""}), function=layers({"app.py": "", "sub/x.txt": ""}))
    answer = explained(stack, "/var/task/sub/x.txt")
    assert (answer["served_by"], answer["path"], answer["carried_by"]) == ("the function", "/var/task/sub/x.txt", [])
    assert explain(stack, "/var/task/absent") is None
    assert explain(stack_of(layers({"python/a.py": ""})), "/var/task/app.py") is None


def test_a_path_of_the_function_need_not_be_absolute(layers: Layers) -> None:
    stack = stack_of(layers({"python/a.py": ""}), function=layers({"sub/x.txt": ""}))
    assert explained(stack, "sub/x.txt")["served_by"] == "the function"


def test_a_module_of_one_layer(layers: Layers) -> None:
    answer = explained(stack_of(layers({"python/foo.py": "1"}), layers({"python/bar.py": ""})), "foo")
    assert (answer["kind"], answer["path"], answer["served_by"]) == ("module", "/opt/python/foo.py", "a.zip")
    assert answer["why"] == "nothing else has that name"
    assert carriers(answer) == [("a.zip", "/opt/python/foo.py")]


def test_a_submodule_and_its_package(layers: Layers) -> None:
    stack = stack_of(layers({f"{SITE}/foo/__init__.py": "", f"{SITE}/foo/bar.py": ""}), layers({"python/foo.py": ""}))
    package = explained(stack, "foo")
    assert (package["kind"], package["path"]) == ("package", f"/opt/{SITE}/foo/__init__.py")
    assert package["why"] == f"/opt/{SITE} comes before /opt/python on sys.path, whatever the layers' order"
    assert carriers(package) == [("a.zip", f"/opt/{SITE}/foo/__init__.py"), ("b.zip", "/opt/python/foo.py")]
    module = explained(stack, "foo.bar")
    assert (module["kind"], module["path"], module["served_by"]) == ("module", f"/opt/{SITE}/foo/bar.py", "a.zip")
    assert explain(stack, "foo.absent") is None


def test_copies_that_were_replaced_are_named(layers: Layers) -> None:
    stack = stack_of(*(layers({"python/foo.py": text}) for text in ("1", "22", "333")))
    answer = explained(stack, "foo")
    assert answer["served_by"] == "c.zip"
    assert answer["why"] == "it is the last of the layers that carry the file"
    assert [row["layer"] for row in answer["carried_by"]] == ["c.zip", "a.zip", "b.zip"]


def test_a_package_comes_before_a_module_in_one_folder(layers: Layers) -> None:
    answer = explained(stack_of(layers({"python/foo/__init__.py": ""}), layers({"python/foo.py": ""})), "foo")
    assert answer["served_by"] == "a.zip"
    assert answer["why"].startswith("in one folder a package comes before extension modules")


def test_a_namespace_has_several_folders(layers: Layers) -> None:
    stack = stack_of(
        layers({f"{SITE}/ns/a.py": ""}),
        layers({f"{SITE}/ns/b.py": "", "python/ns/c.py": ""}),
        function=layers({"ns/d.py": ""}),
    )
    answer = explained(stack, "ns")
    assert (answer["kind"], answer["path"], answer["served_by"]) == ("namespace", None, None)
    assert carriers(answer) == [
        ("the function", "/var/task/ns"),
        ("a.zip, b.zip", f"/opt/{SITE}/ns/"),
        ("b.zip", "/opt/python/ns/"),
    ]
    assert explained(stack, "ns.c")["path"] == "/opt/python/ns/c.py"


def test_a_folder_gives_way_to_a_module(layers: Layers) -> None:
    answer = explained(stack_of(layers({f"{SITE}/foo/a.py": ""}), layers({"python/foo.py": ""})), "foo")
    assert answer["served_by"] == "b.zip"
    assert answer["why"] == "a module or a package with __init__ comes before folders without"


def test_a_module_of_the_function_comes_first(layers: Layers) -> None:
    stack = stack_of(layers({f"{SITE}/foo.py": ""}), function=layers({"foo.py": ""}))
    answer = explained(stack, "foo")
    assert (answer["served_by"], answer["path"]) == ("the function", "/var/task/foo.py")
    assert answer["why"] == f"/var/task comes before /opt/{SITE} on sys.path, whatever the layers' order"
    assert carriers(answer) == [("the function", "/var/task/foo.py"), ("a.zip", f"/opt/{SITE}/foo.py")]


@pytest.mark.parametrize("asked", ["absent", "foo.bar", "sys", "/opt/absent", "", ".", "foo.", "/", "a b"])
def test_what_nobody_has_is_not_explained(asked: str, layers: Layers) -> None:
    assert explain(stack_of(layers({"python/foo.py": ""})), asked) is None


def test_a_module_that_is_a_link_into_another_layer(layers: Layers) -> None:
    stack = stack_of(
        layers({"python/foo.py": Link("../common/foo.py"), "python/a.py": ""}), layers({"common/foo.py": ""})
    )
    answer = explained(stack, "foo")
    assert answer["path"] == "/opt/python/foo.py"
    assert answer["carried_by"]


# One layer out of several.


Merge = Callable[..., Path]


@pytest.fixture
def merged(project: Path) -> Merge:
    """Merges layers, given as paths, and returns the zip."""

    def call(*places: Path, name: str = "all", epoch: int = EPOCH, targets: str = str(TARGET)) -> Path:
        chosen = select_targets([targets])
        stack = Stack(layers=tuple(read_tree(place, place.name) for place in places), target=chosen[0])
        path = project / f"out/{name}.zip"
        manifest = merge(stack, places, chosen, path, epoch=epoch)
        assert manifest.describes(path)
        return path

    return call


def extracted(folder: Path, *archives: Path) -> dict[str, tuple[str, bytes, bool]]:
    """What a real extraction of zips and folders in order leaves: kind, content and whether it is a program."""
    folder.mkdir()
    for archive in archives:
        if archive.is_dir():
            subprocess.run(["cp", "-a", f"{archive}/.", folder], check=True)
        else:
            subprocess.run(["unzip", "-qq", "-o", archive, "-d", folder], check=True)
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        name = path.relative_to(folder).as_posix()
        if stat.S_ISLNK(status.st_mode):
            found[name] = ("symlink", os.fsencode(path.readlink()), False)
        elif stat.S_ISREG(status.st_mode):
            found[name] = ("file", path.read_bytes(), bool(status.st_mode & 0o100))
    return found


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Two layers that share some paths, with a link, a program, a folder and names that are not ASCII."""
    one = write_zip(
        tmp_path / "one.zip",
        dist("foo", "1.0", {"foo/__init__.py": "VERSION = 1\n", "foo/data.txt": "x" * 50_000}),
        {
            "bin/tool": "#!/bin/sh\necho one\n",
            "lib/libx.so": Link("libx.so.1"),
            "lib/libx.so.1": b"\0one",
            "empty": None,
        },
        modes={"bin/tool": 0o700, "lib/libx.so.1": 0o600},
    )
    other = write_zip(
        tmp_path / "other.zip",
        dist("bar", "1.0", {"bar.py": "", "größe_名.txt": "ü"}),
        {"lib/libx.so.1": b"\0other", "bin/tool": "#!/bin/sh\necho other\n", "python/zero.py": ""},
        modes={"bin/tool": 0o755, "python/zero.py": 0o444},
    )
    return one, other


def test_the_merged_zip_holds_what_extraction_in_order_leaves(
    pair: tuple[Path, Path], merged: Merge, tmp_path: Path
) -> None:
    path = merged(*pair)
    expected = extracted(tmp_path / "expected", *pair)
    assert extracted(tmp_path / "found", path) == expected
    assert expected["lib/libx.so.1"] == ("file", b"\0other", False)
    assert expected["lib/libx.so"] == ("symlink", b"libx.so.1", False)
    assert expected["bin/tool"][2] is True


def test_the_other_order_makes_another_zip(pair: tuple[Path, Path], merged: Merge, tmp_path: Path) -> None:
    path = merged(*reversed(pair))
    assert extracted(tmp_path / "found", path) == extracted(tmp_path / "expected", *reversed(pair))


def test_modes_are_those_that_lambda_can_read(pair: tuple[Path, Path], merged: Merge) -> None:
    with zipfile.ZipFile(merged(*pair)) as archive:
        modes = {info.filename: info.external_attr >> 16 for info in archive.infolist()}
        assert archive.namelist() == sorted(archive.namelist())
        assert all(info.create_system == 3 and not info.extra for info in archive.infolist())
    assert modes.pop("lib/libx.so") == 0o120777
    assert modes.pop("bin/tool") == 0o100755
    assert set(modes.values()) == {0o100644}


def test_unzip_and_python_read_the_merged_zip(pair: tuple[Path, Path], merged: Merge) -> None:
    path = merged(*pair)
    done = subprocess.run(["unzip", "-t", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "No errors detected" in done.stdout
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
    importer = zipimport.zipimporter(f"{path}/{SITE}")
    spec = importer.find_spec("foo")
    assert spec is not None
    module = module_from_spec(spec)
    importer.exec_module(module)
    assert module.VERSION == 1


def test_folders_merge_as_zips_do(pair: tuple[Path, Path], merged: Merge, tmp_path: Path) -> None:
    folder = tmp_path / "opt"
    extracted(folder, pair[0])
    mixed = merged(folder, pair[1], name="mixed")
    assert extracted(tmp_path / "found", mixed) == extracted(tmp_path / "expected", *pair)
    assert json.loads(mixed.with_suffix(".json").read_text())["merged_from"][0]["code_sha256"] is None


def manifest_of(path: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(path.with_suffix(".json").read_text())
    jsonschema.validate(data, SCHEMA)
    return data


def test_the_manifest_fits_its_schema_and_says_what_was_merged(pair: tuple[Path, Path], merged: Merge) -> None:
    path = merged(*pair)
    data = manifest_of(path)
    assert (data["recipe"], data["archive"], data["target"]) == ("all", "all.zip", str(TARGET))
    assert (data["runtimes"], data["architectures"]) == (["python3.12"], [ARCH])
    assert data["zipped"] == path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
    assert data["files"] == len(infos)
    assert data["unzipped"] == sum(info.file_size for info in infos)
    assert [row["layer"] for row in data["merged_from"]] == ["one.zip", "other.zip"]
    assert [(row["name"], row["version"]) for row in data["distributions"]] == [("bar", "1.0"), ("foo", "1.0")]
    foo = data["distributions"][1]
    mine = [info for info in infos if "/foo" in info.filename]
    assert (foo["unzipped"], foo["zipped"]) == (sum(i.file_size for i in mine), sum(i.compress_size for i in mine))


def test_a_manifest_for_several_targets(pair: tuple[Path, Path], merged: Merge) -> None:
    data = manifest_of(merged(*pair, targets="python3.1[23]-*"))
    assert (data["target"], data["runtimes"]) == ("any", ["python3.12", "python3.13"])
    assert data["architectures"] == ["x86_64", "arm64"]


def test_the_content_digest_is_the_same_for_zips_and_folders(
    pair: tuple[Path, Path], merged: Merge, tmp_path: Path
) -> None:
    folder = tmp_path / "opt"
    extracted(folder, pair[0])
    zips, mixed = (manifest_of(merged(*places)) for places in (pair, (folder, pair[1])))
    assert zips["content_digest"] == mixed["content_digest"]


def test_digests_tell_links_that_lead_elsewhere(merged: Merge, tmp_path: Path) -> None:
    data = []
    for target in ("x1", "x2"):
        folder = write_folder(tmp_path / target / "opt", {"lib/x.so": Link(target), "lib/x1": "", "lib/x2": ""})
        data.append(manifest_of(merged(folder)))
    assert data[0]["code_sha256"] != data[1]["code_sha256"]
    assert data[0]["content_digest"] != data[1]["content_digest"]


def test_the_inputs_digest_tells_folders_with_other_content(merged: Merge, tmp_path: Path) -> None:
    folders = [write_folder(tmp_path / text / "opt", {"python/a.py": text}) for text in ("1", "2")]
    data = [manifest_of(merged(folder)) for folder in folders]
    assert data[0]["code_sha256"] != data[1]["code_sha256"]
    assert data[0]["inputs_digest"] != data[1]["inputs_digest"]


def test_a_layer_that_is_overwritten_by_the_merge_is_named_as_it_was(pair: tuple[Path, Path], project: Path) -> None:
    from layerbuild.stack.merge import _code_sha256

    before = _code_sha256(pair[0])
    stack = stack_of(*(read_zip(place, place.name) for place in pair))
    merge(stack, pair, [TARGET], pair[0], epoch=EPOCH)
    assert manifest_of(pair[0])["merged_from"][0]["code_sha256"] == before


def test_members_have_the_date_that_is_asked_for(
    pair: tuple[Path, Path], merged: Merge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    later, first = merged(*pair, name="later", epoch=source_date()), merged(*pair)
    dates = []
    for path in (later, first):
        with zipfile.ZipFile(path) as archive:
            dates.append({info.date_time for info in archive.infolist()})
    assert dates == [{(2023, 11, 14, 22, 13, 20)}, {(1980, 1, 1, 0, 0, 0)}]
    one, other = manifest_of(later), manifest_of(first)
    assert one["content_digest"] == other["content_digest"]
    assert one["inputs_digest"] != other["inputs_digest"]


def test_the_same_bytes_from_another_folder_umask_and_time_zone(pair: tuple[Path, Path], tmp_path: Path) -> None:
    made = []
    for number, (mask, zone) in enumerate([(0o022, "UTC"), (0o077, "Asia/Kolkata")]):
        folder = tmp_path / f"run{number}"
        folder.mkdir()
        for place in pair:
            shutil.copy(place, folder)
        command = [sys.executable, "-m", "layerbuild", "stack", "one.zip", "other.zip", "--merge", "all.zip"]
        env = {**os.environ, "TZ": zone, "LAYERBUILD_CACHE_DIR": str(tmp_path / f"cache{number}")}
        done = subprocess.run(
            [*command, "--target", str(TARGET)], cwd=folder, env=env, umask=mask, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        made.append([(folder / name).read_bytes() for name in ("all.zip", "all.json")])
    assert made[0] == made[1]


def test_six_layers_become_one(tmp_path: Path, merged: Merge) -> None:
    places = [
        write_zip(tmp_path / f"layer{number}.zip", dist(f"foo{number}", "1.0", {f"foo{number}.py": f"{number}"}))
        for number in range(6)
    ]
    path = merged(*places)
    assert extracted(tmp_path / "found", path) == extracted(tmp_path / "expected", *places)
    assert len(manifest_of(path)["distributions"]) == 6


def test_the_merge_of_a_clean_stack_checks_clean(tmp_path: Path, project: Path, cli: Callable[..., Ran]) -> None:
    places = [
        write_zip(tmp_path / "one.zip", dist("foo", "1.0", {"foo.py": "1"}, requires=["bar"])),
        write_zip(tmp_path / "other.zip", dist("bar", "1.0", {"bar.py": "1"})),
    ]
    ran = cli("stack", *places, "--merge", "all.zip")
    assert ran.code == 0, ran.err
    checked = cli("check", "all.zip", "--json", "--strict")
    assert checked.code == 0
    (report,) = checked.json["layers"]
    assert report["findings"] == []
    assert report["targets"] == ["python3.12-x86_64", "python3.12-arm64"]


def test_a_merge_that_lambda_would_refuse_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "out/all.zip"
    for trees, code in (([sized("a", 150_000_000), sized("b", 150_000_000)], "size-unzipped"), ([], "size-empty")):
        empty = Tree(name="empty", entries={}, distributions=())
        stack = stack_of(*trees) if trees else stack_of(empty)
        with pytest.raises(CheckError) as caught:
            merge(stack, [tmp_path] * len(stack.layers), [TARGET], path, epoch=EPOCH)
        assert any(code in cause for cause in caught.value.causes)
        assert not path.parent.exists()


def test_a_merge_is_as_large_as_what_is_left(layers: Layers) -> None:
    trees = [sized("same", 140_000_000), sized("same", 140_000_000)]
    stack = stack_of(*trees)
    assert "280,000,000 bytes in all" in message(stack, "stack-size")
    assert stack.merged.unzipped == 140_000_000


def test_what_the_zip_says_of_no_mode_is_plain(tmp_path: Path, merged: Merge) -> None:
    place = tmp_path / "plain.zip"
    with zipfile.ZipFile(place, "w") as archive:
        info = zipfile.ZipInfo("python/a.py")
        info.create_system = 0
        info.external_attr = 0
        archive.writestr(info, "")
    with zipfile.ZipFile(merged(place)) as archive:
        assert archive.getinfo("python/a.py").external_attr >> 16 == 0o100644


@pytest.mark.parametrize("damage", ["content", "tail"])
def test_a_damaged_layer_is_not_merged(
    damage: str, pair: tuple[Path, Path], project: Path, cli: Callable[..., Ran]
) -> None:
    data = bytearray(pair[1].read_bytes())
    if damage == "content":
        with zipfile.ZipFile(pair[1]) as archive:
            info = archive.getinfo("lib/libx.so.1")
        start = info.header_offset + 30 + len(info.filename)
        data[start + 1] ^= 0xFF
        pair[1].write_bytes(data)
    else:
        pair[1].write_bytes(data[:-10])
    assert any(one.code.startswith("zip-") for one in check_layer(read_zip(pair[1], "x"), [TARGET]))
    ran = cli("stack", *pair, "--target", str(TARGET), "--merge", "all.zip")
    assert ran.code == 1, ran.out
    assert not Path("all.zip").exists()
    assert not Path("all.json").exists()


def test_random_layers_merge_to_what_extraction_leaves(tmp_path: Path, merged: Merge) -> None:
    choice = random.Random(20_240)
    for turn in range(15):
        places = []
        for number in range(choice.randint(2, 5)):
            files: dict[str, str | bytes | None] = {}
            for _ in range(choice.randint(1, 12)):
                path = choice.choice(["bin", "lib", "python", "python/p"]) + f"/f{choice.randint(0, 9)}"
                content: str | bytes = choice.randbytes(choice.choice([0, 1, 200]))
                if choice.random() < 0.2:
                    path, content = (
                        f"{path.rpartition('/')[0]}/link{choice.randint(0, 3)}",
                        Link(f"f{choice.randint(0, 9)}"),
                    )
                files[path] = content
            place = tmp_path / f"{turn}/{number}.zip"
            if choice.random() < 0.3:
                places.append(write_folder(tmp_path / f"{turn}/{number}", files))
            else:
                places.append(write_zip(place, files, modes={path: choice.choice([0o644, 0o755]) for path in files}))
        made = merged(*places, name=f"m{turn}")
        found = extracted(tmp_path / f"found{turn}", made)
        assert found == extracted(tmp_path / f"expected{turn}", *places)
