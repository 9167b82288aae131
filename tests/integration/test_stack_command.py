"""`layerbuild stack` on the command line: what it prints, what it refuses, what it writes."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from layerbuild.target import select_targets
from tests.conftest import Ran
from tests.unit.test_stack_rules import SITE, Link, dist, write_folder, write_manifest, write_zip

SITE_13 = SITE.replace("3.12", "3.13")
BOTH_ARCHES = ["python3.12-x86_64", "python3.12-arm64"]

FINDING = {
    "type": "object",
    "additionalProperties": False,
    "required": ["code", "severity", "path", "package", "files", "message", "fix", "targets", "accepted"],
    "properties": {
        "code": {"type": "string"},
        "severity": {"enum": ["error", "warning", "note"]},
        "path": {"type": ["string", "null"]},
        "package": {"type": ["string", "null"]},
        "files": {"type": "integer", "minimum": 1},
        "message": {"type": "string"},
        "fix": {"type": "string"},
        "targets": {"type": "array", "items": {"type": "string"}},
        "accepted": {"type": ["string", "null"]},
    },
}
NAMES = {"type": "array", "items": {"type": "string"}}
# What docs/json.md says of a stack's report.
REPORT = {
    "type": "object",
    "additionalProperties": False,
    "required": ["stack", "targets", "zipped", "unzipped", "largest", "layers", "function", "paths", "findings"],
    "properties": {
        "stack": {"type": "string"},
        "targets": NAMES,
        "zipped": {"type": "null"},
        "unzipped": {"type": "integer"},
        "largest": {"type": "array"},
        "layers": NAMES,
        "function": {"type": ["string", "null"]},
        "paths": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["path", "layers", "winner", "identical"],
                "properties": {
                    "path": {"type": "string"},
                    "layers": NAMES,
                    "winner": {"type": "string"},
                    "identical": {"type": "boolean"},
                },
            },
        },
        "findings": {"type": "array", "items": FINDING},
        "explained": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["asked", "kind", "path", "served_by", "carried_by", "why"],
                "properties": {
                    "asked": {"type": "string"},
                    "kind": {"enum": ["path", "module", "package", "namespace"]},
                    "path": {"type": ["string", "null"]},
                    "served_by": {"type": ["string", "null"]},
                    "carried_by": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "additionalProperties": False,
                            "required": ["layer", "path", "size", "sha256"],
                            "properties": {
                                "layer": {"type": "string"},
                                "path": {"type": "string"},
                                "size": {"type": ["integer", "null"]},
                                "sha256": {"type": ["string", "null"]},
                            },
                        },
                    },
                    "why": {"type": "string"},
                },
            },
        },
        "orders": {
            "type": "object",
            "additionalProperties": False,
            "required": ["possible", "tried", "errors", "warnings", "best", "always"],
            "properties": {
                **{name: {"type": "integer"} for name in ("possible", "tried", "errors", "warnings")},
                "best": {"type": "array", "items": NAMES},
                "always": {"type": "array", "items": FINDING},
            },
        },
    },
}
DOCUMENT = {
    "type": "object",
    "additionalProperties": False,
    "required": ["layers", "stacks", "errors", "warnings", "notes"],
    "properties": {
        "layers": {"type": "array"},
        "stacks": {"type": "array", "items": REPORT},
        **{name: {"type": "integer"} for name in ("errors", "warnings", "notes")},
    },
}

Cli = Callable[..., Ran]


@pytest.fixture
def clash(project: Path) -> Path:
    """a.zip and b.zip, which hold foo in two versions; only one order leaves it whole."""
    foo = dist("foo", "2.0", {"foo.py": "2", "_foo.py": "2"}, info="foo.dist-info")
    write_zip(project / "a.zip", foo, {"python/only_a.py": ""})
    write_zip(project / "b.zip", dist("foo", "1.0", {"foo.py": "1"}, info="foo.dist-info"))
    return project


@pytest.fixture
def clean(project: Path) -> Path:
    """a.zip and b.zip, which have nothing to do with each other."""
    write_zip(project / "a.zip", dist("foo", "1.0", {"foo.py": ""}))
    write_zip(project / "b.zip", dist("bar", "1.0", {"bar.py": ""}))
    return project


def reports(ran: Ran) -> list[dict[str, Any]]:
    document = ran.json
    jsonschema.validate(document, DOCUMENT)
    found: list[dict[str, Any]] = document["stacks"]
    for severity in ("error", "warning", "note"):
        counted = sum(one["severity"] == severity for report in found for one in report["findings"])
        assert document[f"{severity}s"] == counted
    return found


def report(ran: Ran) -> dict[str, Any]:
    (found,) = reports(ran)
    return found


def codes(found: dict[str, Any]) -> set[str]:
    return {finding["code"] for finding in found["findings"]}


def error(ran: Ran) -> dict[str, Any]:
    found: dict[str, Any] = ran.json["error"]
    assert found["exit_code"] == ran.code
    assert f"[{found['code']}]" in ran.err
    assert "Traceback" not in ran.err
    return found


def test_a_clean_stack_in_text(clean: Path, cli: Cli) -> None:
    ran = cli("stack", "a.zip", "b.zip")
    assert (ran.code, ran.err) == (0, "")
    assert re.fullmatch(r"a\.zip \+ b\.zip  \d kB unzipped, for (\S+), (\S+)\n  no findings\n", ran.out)


def test_findings_in_text(clash: Path, cli: Cli) -> None:
    ran = cli("stack", "a.zip", "b.zip", "--target", "python3.12-arm64")
    assert ran.code == 1
    assert "for python3.12-arm64" in ran.out.splitlines()[0]
    assert "error: A distribution's files come from two versions after merging. [stack-torn]" in ran.out
    assert f"{SITE}/_foo.py is of 2.0 from a.zip" in ran.out
    assert "fix: build the layers against one version of it, or keep it in one layer only" in ran.out
    assert "1 error, 1 warning" in ran.out


def test_findings_in_json(clash: Path, cli: Cli) -> None:
    ran = cli("stack", "a.zip", "b.zip", "--json")
    found = report(ran)
    assert ran.code == 1
    assert (found["stack"], found["layers"], found["function"]) == ("a.zip + b.zip", ["a.zip", "b.zip"], None)
    assert found["targets"] == BOTH_ARCHES
    assert codes(found) == {"stack-torn", "stack-conflict"}
    paths = {row["path"]: row for row in found["paths"]}
    assert set(paths) == {f"{SITE}/foo.py", f"{SITE}/foo.dist-info/METADATA", f"{SITE}/foo.dist-info/RECORD"}
    row = paths[f"{SITE}/foo.py"]
    assert (row["layers"], row["winner"], row["identical"]) == (["a.zip", "b.zip"], "b.zip", False)
    sizes = [info.file_size for name in ("a.zip", "b.zip") for info in zipfile.ZipFile(name).infolist()]
    assert found["unzipped"] == sum(sizes)
    assert ran.out == cli("stack", "a.zip", "b.zip", "--format", "json").out


def test_an_error_in_json_however_json_is_asked_for(project: Path, cli: Cli) -> None:
    told = cli("stack", "absent.zip", "--json")
    assert error(told)["code"] == "layer-not-found"
    assert cli("stack", "absent.zip", "--format", "json").out == told.out


def test_folders_are_layers(project: Path, cli: Cli) -> None:
    write_folder(project / "opt", {f"{SITE}/foo.py": "1"})
    write_zip(project / "b.zip", {f"{SITE}/foo.py": "2"})
    found = report(cli("stack", "opt/", "b.zip", "--json"))
    assert found["layers"] == ["opt/", "b.zip"]
    assert codes(found) == {"stack-conflict"}


def test_one_layer_is_a_stack_of_its_own(clean: Path, cli: Cli) -> None:
    write_zip(clean / "app.zip", {"foo.py": ""})
    assert codes(report(cli("stack", "a.zip", "--function", "app.zip", "--json"))) == {"stack-shadow"}
    assert cli("stack").code == 2


def test_findings_that_hold_for_some_targets_name_them(project: Path, cli: Cli) -> None:
    write_zip(project / "a.zip", dist("app", "1.0", requires=['gone; python_version >= "3.13"'], site="python"))
    write_zip(project / "b.zip", {"python/b.py": ""})
    arguments = ["--target", "python3.12-arm64", "--target", "python3.13-arm64"]
    found = report(cli("stack", "a.zip", "b.zip", *arguments, "--json"))
    assert found["targets"] == ["python3.12-arm64", "python3.13-arm64"]
    assert [(one["code"], one["targets"]) for one in found["findings"]] == [
        ("stack-requirement", ["python3.13-arm64"])
    ]
    assert "[python3.13-arm64]" in cli("stack", "a.zip", "b.zip", *arguments).out


# Stacks that the settings name.


@pytest.mark.parametrize("file", ["layerbuild.toml", "pyproject.toml"])
def test_a_stack_of_the_settings(file: str, clash: Path, cli: Cli) -> None:
    write_zip(clash / "app.zip", {"app.py": ""})
    table = "stacks.thumb" if file == "layerbuild.toml" else "tool.layerbuild.stacks.thumb"
    text = '[{}]\nlayers = ["a.zip", "b.zip"]\nfunction = "app.zip"\ntarget = ["python3.12-arm64"]\n'
    (clash / file).write_text(text.format(table))
    found = report(cli("stack", "thumb", "--json"))
    assert (found["layers"], found["function"]) == (["a.zip", "b.zip"], "app.zip")
    assert found["targets"] == ["python3.12-arm64"]
    assert report(cli("stack", "thumb", "--target", "python3.12-x86_64", "--json"))["targets"] == [
        "python3.12-x86_64"
    ]
    other = report(cli("stack", "thumb", "--function", "b.zip", "--json"))
    assert other["function"] == "b.zip"


def test_check_looks_at_all_stacks_of_the_settings(clash: Path, cli: Cli) -> None:
    (clash / "layerbuild.toml").write_text(
        '[stacks.good]\nlayers = ["b.zip", "a.zip"]\n[stacks.bad]\nlayers = ["a.zip", "b.zip"]\n'
    )
    ran = cli("check", "--json")
    assert ran.code == 1
    found = {one["stack"]: one for one in reports(ran)}
    assert list(found) == ["bad", "good"]
    assert "stack-torn" in codes(found["bad"])
    assert "stack-torn" not in codes(found["good"])
    assert "no-such" not in cli("check", "a.zip").out
    text = cli("check")
    assert text.out.splitlines()[0].startswith("bad  ")


def test_a_function_of_the_settings_is_checked_too(clean: Path, cli: Cli) -> None:
    write_zip(clean / "app.zip", {"foo.py": ""})
    (clean / "layerbuild.toml").write_text('[stacks.one]\nlayers = ["a.zip"]\nfunction = "app.zip"\n')
    (found,) = reports(cli("check", "--json"))
    assert codes(found) == {"stack-shadow"}


def test_a_stack_that_the_settings_do_not_name(clean: Path, cli: Cli) -> None:
    (clean / "layerbuild.toml").write_text('[stacks.thumbnail]\nlayers = ["a.zip"]\n')
    told = error(cli("stack", "thumbnial", "--json"))
    assert told["exit_code"] == 2
    assert told["code"] == "unknown-stack"
    assert "thumbnail" in " ".join(told["causes"])


def test_a_file_of_a_stacks_name_is_that_file(clean: Path, cli: Cli) -> None:
    (clean / "layerbuild.toml").write_text('[stacks."b.zip"]\nlayers = ["a.zip"]\n')
    assert report(cli("stack", "b.zip", "--json"))["layers"] == ["b.zip"]


@pytest.mark.parametrize(
    "text",
    [
        "stacks = 1",
        "[stacks]\none = 1",
        "[stacks.one]",
        "[stacks.one]\nlayers = []",
        '[stacks.one]\nlayers = "a.zip"',
        "[stacks.one]\nlayers = [1]",
        '[stacks.one]\nlayers = ["a.zip"]\nfunction = ["a.zip"]',
        '[stacks.one]\nlayers = ["a.zip"]\ntarget = "python3.12-arm64"',
        '[stacks.one]\nlayers = ["a.zip"]\ntargets = ["python3.12-arm64"]',
    ],
)
def test_settings_that_describe_no_stack(text: str, clean: Path, cli: Cli) -> None:
    (clean / "layerbuild.toml").write_text(text)
    assert error(cli("stack", "a.zip", "--json"))["code"] == "settings-invalid"


# Recipes as layers.


@pytest.fixture
def recipes(project: Path) -> Path:
    """Recipes one and two, with archives for both architectures of 3.12 and of 3.13."""
    for name in ("one", "two"):
        folder = project / f"recipes/{name}"
        folder.mkdir(parents=True)
        (folder / "recipe.toml").write_text(
            f'name = "{name}"\nrequirements = ["{name}"]\ntargets = ["python3.1[23]-*"]\n'
        )
        for target in select_targets(["python3.1[23]-*"]):
            site = SITE if "3.12" in str(target) else SITE_13
            made = write_zip(project / f"dist/{name}-{target}.zip", dist(name, "1.0", {f"{name}.py": ""}, site=site))
            write_manifest(made, name, [target])
    return project


def test_recipes_make_one_stack_for_each_target(recipes: Path, cli: Cli) -> None:
    found = reports(cli("stack", "one", "two", "--json"))
    assert [one["targets"] for one in found] == [
        ["python3.12-x86_64"],
        ["python3.12-arm64"],
        ["python3.13-x86_64"],
        ["python3.13-arm64"],
    ]
    for one in found:
        (target,) = one["targets"]
        assert one["layers"] == [f"dist/one-{target}.zip", f"dist/two-{target}.zip"]
        assert one["stack"] == "one + two"
        assert one["findings"] == []


def test_a_target_chooses_the_archives_of_recipes(recipes: Path, cli: Cli) -> None:
    found = report(cli("stack", "one", "two", "--target", "python3.13-arm64", "--json"))
    assert found["layers"] == ["dist/one-python3.13-arm64.zip", "dist/two-python3.13-arm64.zip"]


def test_a_zip_among_recipes_narrows_the_targets(recipes: Path, cli: Cli) -> None:
    write_zip(recipes / "own.zip", {f"{SITE}/own.py": ""})
    found = reports(cli("stack", "one", "own.zip", "--json"))
    assert [one["targets"] for one in found] == [["python3.12-x86_64"], ["python3.12-arm64"]]


def test_a_recipe_for_any_target_goes_with_all(recipes: Path, cli: Cli) -> None:
    for path in (recipes / "dist").glob("two-*"):
        path.unlink()
    made = write_zip(recipes / "dist/two-any.zip", dist("two", "1.0", {"two.py": ""}, site="python"))
    write_manifest(made, "two", select_targets(["python3.1[23]-*"]))
    found = reports(cli("stack", "one", "two", "--json"))
    assert len(found) == 4
    assert all(one["layers"][1] == "dist/two-any.zip" for one in found)


def test_a_recipe_without_an_archive_for_the_target(recipes: Path, cli: Cli) -> None:
    (recipes / "dist/two-python3.13-arm64.zip").unlink()
    ran = cli("stack", "one", "two", "--target", "python3.13-arm64", "--json")
    assert ran.code == 1
    finding = next(one for one in report(ran)["findings"] if one["code"] == "stack-targets")
    assert "dist/two-python3.12-x86_64.zip is for python3.12-x86_64" in finding["message"]


def test_the_archives_of_recipes_may_lie_elsewhere(recipes: Path, cli: Cli) -> None:
    (recipes / "dist").rename(recipes / "built")
    assert error(cli("stack", "one", "--json"))["code"] == "layer-not-found"
    found = report(cli("stack", "one", "--out", "built", "--target", "python3.12-arm64", "--json"))
    assert found["layers"] == ["built/one-python3.12-arm64.zip"]


def test_two_archives_of_one_recipe_are_two_versions(recipes: Path, cli: Cli) -> None:
    write_zip(recipes / "older.zip", dist("one", "1.0", {"one.py": ""}))
    write_manifest(recipes / "older.zip", "one", select_targets(["python3.12-arm64"]))
    found = report(cli("stack", "one", "older.zip", "--target", "python3.12-arm64", "--json"))
    assert "stack-two-versions" in codes(found)
    (finding,) = [one for one in found["findings"] if one["code"] == "stack-two-versions"]
    assert finding["message"] == "layers 1 and 2 are both one"


def test_one_file_twice_is_two_versions(clean: Path, cli: Cli) -> None:
    assert "stack-two-versions" in codes(report(cli("stack", "a.zip", "./a.zip", "--json")))


# Targets.


def test_no_target_known(project: Path, cli: Cli) -> None:
    write_zip(project / "a.zip", {"python/a.py": ""})
    told = error(cli("stack", "a.zip", "--json"))
    assert (told["code"], told["exit_code"]) == ("usage", 2)
    assert "--target" in told["hint"]
    assert report(cli("stack", "a.zip", "--target", "python3.12-arm64", "--json"))["findings"] == []


def test_a_target_that_does_not_exist(clean: Path, cli: Cli) -> None:
    assert error(cli("stack", "a.zip", "--target", "python2.7-arm64", "--json"))["code"] == "unknown-target"


def test_layers_of_different_targets(clean: Path, cli: Cli) -> None:
    write_zip(clean / "c.zip", {f"{SITE_13}/c.py": ""})
    ran = cli("stack", "a.zip", "c.zip", "--json")
    assert ran.code == 1
    (finding,) = [one for one in report(ran)["findings"] if one["code"] == "stack-targets"]
    assert finding["message"] == "on python3.12-x86_64: c.zip is for python3.13-arm64, python3.13-x86_64"
    said = report(cli("stack", "a.zip", "c.zip", "--target", "python3.13-arm64", "--json"))
    assert [one["message"] for one in said["findings"] if one["code"] == "stack-targets"] == [
        "on python3.13-arm64: a.zip is for python3.12-arm64, python3.12-x86_64"
    ]


def test_a_layer_that_says_nothing_fits_every_target(clean: Path, cli: Cli) -> None:
    write_zip(clean / "c.zip", {"python/c.py": ""})
    found = report(cli("stack", "c.zip", "a.zip", "--json"))
    assert (found["targets"], found["findings"]) == (BOTH_ARCHES, [])


# The function.


def test_the_function_as_zip_and_as_folder(clean: Path, cli: Cli) -> None:
    write_zip(clean / "app.zip", {"foo.py": "", "json.py": ""})
    write_folder(clean / "app", {"foo.py": "", "json.py": ""})
    for function in ("app.zip", "app"):
        found = report(cli("stack", "a.zip", "--function", function, "--json"))
        assert found["function"] == function
        messages = [one["message"] for one in found["findings"]]
        assert len(messages) == 2
        assert any("it hides the standard library's json" in text for text in messages)
        assert any(f"not /opt/{SITE}/foo.py, from a.zip" in text for text in messages)


def test_a_function_that_is_not_there(clean: Path, cli: Cli) -> None:
    told = error(cli("stack", "a.zip", "--function", "absent.zip", "--json"))
    assert told["exit_code"] == 2
    assert "absent.zip does not exist" in told["what"]


# Explanations and orders.


def test_an_explanation_in_text_and_json(clash: Path, cli: Cli) -> None:
    arguments = ["stack", "a.zip", "b.zip", "--explain", "foo", "--explain", f"/opt/{SITE}/_foo.py"]
    ran = cli(*arguments)
    assert ran.code == 1
    assert (
        f"\nfoo  /opt/{SITE}/foo.py\n  served by b.zip: it is the last of the layers that carry the file\n" in ran.out
    )
    assert f"\n    /opt/{SITE}/foo.py in a.zip, 0 kB\n" in ran.out
    assert f"\n/opt/{SITE}/_foo.py  /opt/{SITE}/_foo.py\n  served by a.zip: no other layer carries it\n" in ran.out
    first, second = report(cli(*arguments, "--json"))["explained"]
    assert (first["asked"], first["kind"], first["served_by"]) == ("foo", "module", "b.zip")
    assert (second["kind"], second["served_by"]) == ("path", "a.zip")


def test_digests_of_an_explanation_are_as_documented(clean: Path, cli: Cli) -> None:
    found = report(cli("stack", "a.zip", "--explain", "foo", "--json"))
    (row,) = found["explained"][0]["carried_by"]
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", row["sha256"])


def test_an_explanation_of_a_namespace_has_no_one_file(project: Path, cli: Cli) -> None:
    write_zip(project / "a.zip", {f"{SITE}/ns/a.py": ""})
    write_zip(project / "b.zip", {"python/ns/b.py": ""})
    ran = cli("stack", "a.zip", "b.zip", "--explain", "ns")
    assert "\nns  namespace\n  served by no single layer: it has no __init__ anywhere" in ran.out
    assert f"    /opt/{SITE}/ns/ in a.zip\n    /opt/python/ns/ in b.zip\n" in ran.out


def test_what_cannot_be_explained(clean: Path, cli: Cli) -> None:
    told = error(cli("stack", "a.zip", "--explain", "foo", "--explain", "absent", "--json"))
    assert (told["code"], told["exit_code"]) == ("not-in-stack", 2)
    assert "'absent'" in told["what"]


def test_the_best_order_in_text_and_json(clash: Path, cli: Cli) -> None:
    ran = cli("stack", "a.zip", "b.zip", "--suggest-order")
    assert ran.code == 1
    assert "  2 of 2 orders differ; all of them were tried\n  0 errors, 1 warning: b.zip a.zip\n" in ran.out
    assert "no order is clean" not in ran.out
    orders = report(cli("stack", "a.zip", "b.zip", "--suggest-order", "--json"))["orders"]
    assert (orders["possible"], orders["tried"], orders["best"]) == (2, 2, [["b.zip", "a.zip"]])
    assert (orders["errors"], orders["warnings"], orders["always"]) == (0, 1, [])
    assert cli("stack", *orders["best"][0]).code == 0


def test_no_order_makes_a_difference(clean: Path, cli: Cli) -> None:
    ran = cli("stack", "a.zip", "b.zip", "--suggest-order")
    assert ran.code == 0
    assert "no two layers collide: every order is the same" in ran.out
    assert "every order is the same" in ran.out
    assert "0 errors" not in ran.out


def test_no_order_is_clean(project: Path, cli: Cli) -> None:
    write_zip(project / "a.zip", dist("foo", "1.0", {"foo.py": "1"}))
    write_zip(project / "b.zip", dist("foo", "2.0", {"foo.py": "2"}))
    ran = cli("stack", "a.zip", "b.zip", "--suggest-order")
    assert ran.code == 1
    assert "  no order is clean; these remain in every one:\n" in ran.out
    assert "[stack-two-dist-infos]" in ran.out.partition("no order is clean")[2]


def test_many_best_orders_are_shown_as_five(project: Path, cli: Cli) -> None:
    names = [f"{number}.zip" for number in range(3)]
    for name in names:
        write_zip(project / name, {f"{SITE}/foo.py": name})
    ran = cli("stack", *names, "--suggest-order")
    assert ran.out.count(" 1 warning: ") == 5
    assert len(report(cli("stack", *names, "--suggest-order", "--json"))["orders"]["best"]) == 6


def test_too_many_orders(project: Path, cli: Cli) -> None:
    names = [f"{number}.zip" for number in range(8)]
    for name in names:
        write_zip(project / name, {f"{SITE}/foo.py": name})
    told = error(cli("stack", *names, "--suggest-order", "--json"))
    assert (told["code"], told["exit_code"]) == ("too-many-orders", 2)


# Merging.


def test_a_merge_is_written(clean: Path, cli: Cli) -> None:
    ran = cli("stack", "a.zip", "b.zip", "--merge", "out/all.zip")
    assert ran.code == 0
    assert re.search(r"^made out/all\.zip: \d kB zipped, \d kB unzipped$", ran.err, re.MULTILINE)
    assert "no findings" in ran.out
    assert sorted(path.name for path in Path("out").iterdir()) == ["all.json", "all.zip"]
    with zipfile.ZipFile("out/all.zip") as archive:
        assert {f"{SITE}/foo.py", f"{SITE}/bar.py"} <= set(archive.namelist())
    manifest = json.loads(Path("out/all.json").read_text())
    assert [row["layer"] for row in manifest["merged_from"]] == ["a.zip", "b.zip"]
    assert (manifest["target"], manifest["runtimes"]) == ("any", ["python3.12"])
    assert report(cli("stack", "a.zip", "b.zip", "--merge", "out/all.zip", "--json"))["findings"] == []


def test_a_merge_with_warnings_is_written(project: Path, cli: Cli) -> None:
    write_zip(project / "a.zip", {f"{SITE}/foo.py": "1"})
    write_zip(project / "b.zip", {f"{SITE}/foo.py": "2"})
    assert cli("stack", "a.zip", "b.zip", "--merge", "all.zip").code == 0
    ran = cli("stack", "a.zip", "b.zip", "--merge", "all.zip", "--strict")
    assert ran.code == 1
    assert "[stack-conflict]" in ran.out
    assert Path("all.zip").exists()


def test_a_merge_with_errors_is_not_written(clash: Path, cli: Cli) -> None:
    before = sorted(path.name for path in clash.iterdir())
    ran = cli("stack", "a.zip", "b.zip", "--merge", "all.zip", "--json")
    told = error(ran)
    assert (ran.code, told["code"]) == (1, "checks-failed")
    assert any("[stack-torn]" in cause for cause in told["causes"])
    assert sorted(path.name for path in clash.iterdir()) == before
    assert cli("stack", "b.zip", "a.zip", "--merge", "all.zip").code == 0


def test_a_rule_that_is_ignored_does_not_stop_a_merge(clash: Path, cli: Cli) -> None:
    assert cli("stack", "a.zip", "b.zip", "--merge", "all.zip", "--select", "contents").code == 1
    assert not Path("all.zip").exists()
    assert cli("stack", "a.zip", "b.zip", "--merge", "all.zip", "--ignore", "stack-torn").code == 0


def test_six_layers_merge_into_one(project: Path, cli: Cli) -> None:
    names = [f"{number}.zip" for number in range(6)]
    for number, name in enumerate(names):
        write_zip(project / name, dist(f"foo{number}", "1.0", {f"foo{number}.py": ""}))
    assert cli("stack", *names).code == 1
    ran = cli("stack", *names, "--merge", "all.zip")
    assert ran.code == 0
    assert "[stack-too-many]" in ran.out
    assert codes(report(cli("stack", "all.zip", "--json"))) == set()


@pytest.mark.parametrize("name", ["all", "all.tar", "a b.zip", "-.zip", "ü.zip"])
def test_a_name_that_no_layer_can_have(name: str, clean: Path, cli: Cli) -> None:
    told = error(cli("stack", "a.zip", "b.zip", f"--merge=./{name}", "--json"))
    assert (told["code"], told["exit_code"]) == ("bad-layer-name", 2)
    assert not Path(name).exists()


def test_a_merge_is_of_one_set_of_archives(recipes: Path, cli: Cli) -> None:
    told = error(cli("stack", "one", "two", "--merge", "all.zip", "--json"))
    assert told["exit_code"] == 2
    assert "--target" in told["hint"]
    assert not Path("all.zip").exists()
    assert cli("stack", "one", "two", "--target", "python3.13-arm64", "--merge", "all.zip").code == 0
    assert json.loads(Path("all.json").read_text())["target"] == "python3.13-arm64"


def test_a_bad_date_stops_a_merge(clean: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    assert error(cli("stack", "a.zip", "b.zip", "--merge", "all.zip", "--json"))["code"] == "bad-source-date"
    assert not Path("all.zip").exists()
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert cli("stack", "a.zip", "b.zip", "--merge", "all.zip").code == 0
    with zipfile.ZipFile("all.zip") as archive:
        assert {info.date_time[:3] for info in archive.infolist()} == {(2023, 11, 14)}


def test_a_stack_with_a_broken_zip_is_not_clean(clean: Path, cli: Cli) -> None:
    data = (clean / "b.zip").read_bytes()
    (clean / "b.zip").write_bytes(data[:-5])
    assert cli("check", "b.zip").code == 1
    ran = cli("stack", "a.zip", "b.zip")
    assert ran.code == 1, ran.out
    assert cli("stack", "a.zip", "b.zip", "--merge", "all.zip").code == 1
    assert not Path("all.zip").exists()


def test_a_member_with_a_wrong_checksum_is_not_merged(clean: Path, cli: Cli) -> None:
    path = write_zip(clean / "c.zip", {f"{SITE}/c.bin": b"\x5a" * 50})
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        (info,) = archive.infolist()
    wrong = (info.CRC ^ 1).to_bytes(4, "little")
    path.write_bytes(bytes(data).replace(info.CRC.to_bytes(4, "little"), wrong))
    assert cli("check", "c.zip").code == 1
    assert cli("stack", "a.zip", "c.zip", "--merge", "all.zip").code == 1
    assert not Path("all.zip").exists()


# Which findings, and in which form.


def test_select_and_ignore(clash: Path, cli: Cli) -> None:
    def chosen(*arguments: str) -> tuple[int, set[str]]:
        ran = cli("stack", "a.zip", "b.zip", "--json", *arguments)
        return ran.code, codes(report(ran))

    assert chosen("--select", "stack-conflict") == (0, {"stack-conflict"})
    assert chosen("--select", "stack-conflict", "--strict") == (1, {"stack-conflict"})
    assert chosen("--ignore", "stack-torn") == (0, {"stack-conflict"})
    assert chosen("--ignore", "stack") == (0, set())
    assert chosen("--ignore", "stack", "--strict") == (0, set())
    assert chosen("--select", "stack", "--ignore", "stack-conflict") == (1, {"stack-torn"})
    told = error(cli("stack", "a.zip", "--ignore", "stack-tron", "--json"))
    assert (told["code"], told["exit_code"]) == ("unknown-rule", 2)
    assert "stack-torn" in told["causes"][0]


def test_sarif_of_a_stack(clash: Path, cli: Cli) -> None:
    ran = cli("stack", "a.zip", "b.zip", "--format", "sarif")
    assert ran.code == 1
    (run,) = ran.json["runs"]
    results = {result["ruleId"]: result for result in run["results"]}
    assert set(results) == {"stack-torn", "stack-conflict"}
    torn = results["stack-torn"]
    assert (torn["level"], results["stack-conflict"]["level"]) == ("error", "warning")
    assert run["tool"]["driver"]["rules"][torn["ruleIndex"]]["id"] == "stack-torn"
    (location,) = torn["locations"]
    assert location["physicalLocation"]["artifactLocation"]["uri"] == "b.zip"
    assert location["logicalLocations"] == [{"fullyQualifiedName": f"/opt/{SITE}/foo.dist-info"}]
    assert torn["message"]["text"].startswith("a.zip + b.zip: ")


def test_sarif_names_files_where_they_are_on_lambda(clean: Path, cli: Cli) -> None:
    write_zip(clean / "c.zip", {"python/foo.py": ""})
    write_zip(clean / "app.zip", {"json.py": ""}, dist("app", "1.0", requires=["gone"], site=""))
    ran = cli("stack", "a.zip", "c.zip", "--function", "app.zip", "--format", "sarif")
    found: dict[str, set[str]] = {}
    for result in ran.json["runs"][0]["results"]:
        (name,) = result["locations"][0]["logicalLocations"]
        found.setdefault(result["ruleId"], set()).add(name["fullyQualifiedName"])
    assert found == {
        "stack-shadow": {f"/opt/{SITE}/foo.py", "/var/task/json.py"},
        "stack-requirement": {"/var/task/app-1.0.dist-info"},
    }


def test_github_annotations_of_a_stack(clash: Path, cli: Cli) -> None:
    ran = cli("stack", "a.zip", "b.zip", "--format", "github", "--explain", "foo", "--suggest-order")
    assert ran.code == 1
    first, second = ran.out.splitlines()
    assert first.startswith("::error file=b.zip,title=layerbuild stack-torn::a.zip + b.zip: ")
    assert second.startswith("::warning file=b.zip,title=layerbuild stack-conflict::")


def test_a_link_of_one_layer_that_another_completes(project: Path, cli: Cli) -> None:
    write_zip(project / "a.zip", {f"{SITE}/a.py": "", "lib/x.so": Link("x.so.1")})
    write_zip(project / "b.zip", {"lib/x.so.1": ""})
    assert report(cli("stack", "a.zip", "b.zip", "--json"))["findings"] == []


def test_a_merge_does_not_replace_what_it_is_made_of(project: Path, cli: Cli) -> None:
    write_zip(project / "a.zip", {f"{SITE}/foo.py": "1"})
    write_zip(project / "b.zip", {f"{SITE}/bar.py": "2"})
    before = Path("b.zip").read_bytes()
    assert error(cli("stack", "a.zip", "b.zip", "--merge", "b.zip", "--json"))["code"] == "bad-layer-name"
    assert Path("b.zip").read_bytes() == before


def test_what_a_recipe_accepts_holds_in_a_stack(recipes: Path, cli: Cli) -> None:
    write_zip(recipes / "dist/one-python3.13-arm64.zip", dist("one", "1.0", {"enum.py": ""}, site=SITE_13))
    write_manifest(recipes / "dist/one-python3.13-arm64.zip", "one", select_targets(["python3.13-arm64"]))
    assert cli("stack", "one", "two", "--target", "python3.13-arm64").code == 1
    recipe = recipes / "recipes/one/recipe.toml"
    recipe.write_text(recipe.read_text() + '[[accept]]\ncode = "contents-stdlib"\nreason = "known"\n')
    assert cli("stack", "one", "two", "--target", "python3.13-arm64").code == 0
