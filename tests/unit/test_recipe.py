"""Recipes: every key, every mistake, and never anything but a recipe or an error with its line."""

from __future__ import annotations

import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerbuild.errors import UsageError
from layerbuild.recipe import (
    Accept,
    Prune,
    Recipe,
    load_recipe,
    parse_recipe,
    prune_sets,
    recipe_folders,
    recipe_of_requirements,
)
from layerbuild.scaffold import new_recipe_text, normal_module, top_modules
from layerbuild.target import all_targets, default_targets, select_targets
from layerbuild.wheel import Wheel, read_facts, wheel_from_facts
from tests.wheels import make_wheel

FOLDER = Path("recipes/demo")
MINIMAL = 'name = "demo"\nrequirements = ["demo"]\n'


def parse(extra: str = "", text: str = MINIMAL) -> Recipe:
    return parse_recipe(text + extra, folder=FOLDER)


def refused(text: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        parse_recipe(text, folder=FOLDER)
    assert caught.value.exit_code == 2
    return caught.value


def causes(extra: str) -> tuple[str, ...]:
    error = refused(MINIMAL + extra)
    assert error.code == "recipe-invalid"
    return error.causes


def test_the_smallest_recipe_has_sensible_defaults() -> None:
    recipe = parse()
    assert recipe == Recipe(name="demo", requirements=("demo",), folder=FOLDER)
    assert recipe.targets == default_targets()
    assert (recipe.builder, recipe.layout, recipe.scripts, recipe.size_budget) == ("auto", "versioned", False, None)
    assert recipe.prune == Prune(sets=(), patterns=())


def test_every_key_is_read() -> None:
    recipe = parse(
        """\
summary = "A demo"
homepage = "https://example.org"
licence = "MIT"
constraints = ["other < 2"]
targets = ["python3.13-*", "python3.9-arm64"]
builder = "host"
layout = "shared"
scripts = true
imports = ["demo", "demo.sub"]
size-budget = "60 MB"

[prune]
sets = ["tests", "docs"]
patterns = ["demo/data/"]

[[accept]]
code = "one"
reason = "fine"

[[accept]]
code = "two"
reason = "also fine"
"""
    )
    assert recipe == Recipe(
        name="demo",
        requirements=("demo",),
        summary="A demo",
        homepage="https://example.org",
        licence="MIT",
        constraints=("other<2",),
        targets=select_targets(["python3.9-arm64", "python3.13-x86_64", "python3.13-arm64"]),
        builder="host",
        layout="shared",
        scripts=True,
        imports=("demo", "demo.sub"),
        size_budget=60_000_000,
        prune=Prune(sets=("tests", "docs"), patterns=("demo/data/",)),
        accept=(Accept(code="one", reason="fine"), Accept(code="two", reason="also fine")),
        folder=FOLDER,
    )


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("1", 1),
        ("262_144_000", 262_144_000),
        ('"500 B"', 500),
        ('"60 MB"', 60_000_000),
        ('"60MB"', 60_000_000),
        ('"1.5 kB"', 1500),
        ('"2 KiB"', 2048),
        ('"0.5 MiB"', 524_288),
        ('"1.001 kB"', 1001),
    ],
)
def test_a_size_budget_is_bytes_or_a_size_with_its_unit(written: str, size: int) -> None:
    assert parse(f"size-budget = {written}\n").size_budget == size


@pytest.mark.parametrize(
    "written",
    [
        *("0", "-1", "1.5", "true", "[]", '"60"', '"60 mb"', '"60 GB"', '"MB"', '"-1 MB"', '"1e3 MB"', '" 60 MB"'),
        *('"0 MB"', f'"{"9" * 400} MB"'),
    ],
)
def test_what_is_no_size_is_refused(written: str) -> None:
    (cause,) = causes(f"size-budget = {written}\n")
    assert cause.startswith("line 3: size-budget must be bytes or a size such as '60 MB'")


@pytest.mark.parametrize(
    ("extra", "line", "expected"),
    [
        ("sumary = 'x'\n", 3, "unknown key sumary: did you mean summary?"),
        (
            "zzz = 1\n",
            3,
            "unknown key zzz: known: accept, build-constraints, builder, bytecode, constraints, environment, files,",
        ),
        ("license = 'MIT'\n", 3, "the key is spelt licence"),
        ("\n[prune]\nset = ['tests']\n", 5, "unknown key prune.set: did you mean sets?"),
        ("\n[[accept]]\ncode = 'a'\nreason = 'b'\nwhy = 'c'\n", 7, "unknown key accept.why: "),
        ("summary = 'x'\n[prune]\nsummary = 'x'\n", 5, "unknown key prune.summary: "),
        ("summary = 3\n", 3, "summary must be a string, not 3"),
        ("homepage = false\n", 3, "homepage must be a string, not False"),
        ("licence = ['MIT']\n", 3, "licence must be a string, not ['MIT']"),
        ("scripts = 1\n", 3, "scripts must be true or false, not 1"),
        ("constraints = 'demo<2'\n", 3, "constraints must be a list, not 'demo<2'"),
        ("constraints = [1]\n", 3, "constraints must be a list of strings"),
        ("targets = 'python3.13-arm64'\n", 3, "targets must be a list"),
        ("imports = [true]\n", 3, "imports must be a list of strings"),
        ("builder = 3\n", 3, "builder must be a string, not 3"),
        ("layout = []\n", 3, "layout must be a string, not []"),
        ("prune = ['tests']\n", 3, "prune must be a table"),
        ("[prune]\nsets = 'tests'\n", 4, "prune.sets must be a list"),
        ("[prune]\npatterns = [2]\n", 4, "prune.patterns must be a list of strings"),
        ("accept = 'x'\n", 3, "accept must be a list"),
        ("accept = ['x']\n", 3, "accept must be tables: [[accept]]"),
        ("[[accept]]\ncode = 'x'\nreason = 3\n", 5, "accept.reason must be a string, not 3"),
        ("[[accept]]\ncode = 'x'\n", 3, "each [[accept]] needs a code and a reason"),
        ("[[accept]]\ncode = 'x'\nreason = '  '\n", 3, "each [[accept]] needs a code and a reason"),
        ("[[accept]]\ncode='x'\nreason='y'\n[[accept]]\ncode='x'\n", 6, "each [[accept]] needs a code and a reason"),
        ("builder = 'hots'\n", 3, "builder cannot be 'hots': did you mean host?"),
        ("layout = 'shard'\n", 3, "layout cannot be 'shard': did you mean shared?"),
        ("targets = ['python3.13-arm']\n", 3, "targets: no target matches 'python3.13-arm': did you mean"),
        ("[prune]\nsets = ['test']\n", 4, "prune.sets: no set 'test': did you mean tests?"),
        ("constraints = ['demo<']\n", 3, "constraints: 'demo<' is not a requirement"),
        ("imports = ['demo-x']\n", 3, "imports: 'demo-x' is not the name of a module"),
        ("imports = ['']\n", 3, "imports: '' is not the name of a module"),
        ("imports = ['demo.']\n", 3, "imports: 'demo.' is not the name of a module"),
        ("[builder]\nx = 1\n", 3, "builder must be a string"),
    ],
)
def test_each_mistake_is_told_with_its_line(extra: str, line: int, expected: str) -> None:
    found = [cause for cause in causes(extra) if expected in cause]
    assert len(found) == 1, causes(extra)
    assert found[0].startswith(f"line {line}: ")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ('["demo", "not a name"]', "requirements: 'not a name' is not a requirement"),
        ('["demo @ https://example.org/demo.whl"]', "requirements: 'demo' names a URL"),
        ('["-r other.txt"]', "requirements: '-r other.txt' is not a requirement"),
        ('["demo==one"]', "requirements: 'demo==one' is not a requirement"),
        ("[]", "requirements is missing or empty"),
        ('"demo"', "requirements must be a list"),
        ("[1]", "requirements must be a list of strings"),
    ],
)
def test_what_cannot_be_required_is_refused(written: str, expected: str) -> None:
    error = refused(f'name = "demo"\n\nrequirements = {written}\n')
    assert any(cause.startswith("line 3: ") and expected in cause for cause in error.causes), error.causes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('requirements = ["demo"]', "name is missing"),
        ('name = ""\nrequirements = ["demo"]', "name is missing"),
        ('name = "dem o"\nrequirements = ["demo"]', "'dem o' cannot name a layer"),
        ('name = "ruamel.yaml"\nrequirements = ["demo"]', "'ruamel.yaml' cannot name a layer"),
        ('name = "other"\nrequirements = ["demo"]', "name is 'other', but the recipe's folder is 'demo'"),
        ('name = 3\nrequirements = ["demo"]', "name must be a string, not 3"),
    ],
)
def test_the_name_must_be_that_of_the_folder_and_fit_lambda(text: str, expected: str) -> None:
    assert any(f"line 1: {expected}" in cause for cause in refused(text).causes)


def test_all_mistakes_are_told_together_in_the_order_of_their_lines() -> None:
    error = refused(
        'name = "other"\n\nsumary = "x"\nrequirements = [\n  "d",\n  "b d",\n]\nlayout = "x"\n[prune]\nsets = ["x"]\n'
    )
    assert [cause.split(":")[0] for cause in error.causes] == ["line 1", "line 3", "line 4", "line 8", "line 10"]
    assert str(FOLDER / "recipe.toml") in error.what


@pytest.mark.parametrize(
    "text",
    ['name = "demo\n', "= 1", "a = 1\na = 2\n", f"a = {'9' * 5000}\n", f"a = {'[' * 5000}{']' * 5000}\n"],
    ids=["open string", "no key", "key twice", "huge number", "deep nesting"],
)
def test_what_is_not_toml_is_refused(text: str) -> None:
    error = refused(text)
    assert error.code == "recipe-not-toml"
    assert error.causes


def test_line_numbers_survive_windows_line_ends() -> None:
    error = refused((MINIMAL + "\nsumary = 'x'\n").replace("\n", "\r\n"))
    assert error.causes == ("line 4: unknown key sumary: did you mean summary?",)


# Hypothesis: whatever is written, the result is a recipe or an error that a user can act on.


def toml(value: Any) -> str:
    """A value as TOML, on one line."""
    if isinstance(value, str):
        return '"' + "".join(c if c.isascii() and c.isalnum() else f"\\U{ord(c):08x}" for c in value) + '"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(key)} = {toml(item)}" for key, item in value.items()) + "}"
    return str(value)


def document(data: dict[str, Any]) -> str:
    return "".join(f"{toml(key)} = {toml(value)}\n" for key, value in data.items())


KEYS = ["name", "summary", "homepage", "licence", "requirements", "constraints", "targets", "builder", "layout"]
KEYS += ["scripts", "imports", "size-budget", "prune", "accept", "sets", "patterns", "code", "reason"]
TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.sampled_from(["demo", "demo>=1", "python3.13-*", "[", "host", "shared", "60 MB", "tests", "demo; x", "a.b"]),
)
LEAVES = st.one_of(TEXTS, st.booleans(), st.integers(), st.floats(), st.dates())
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(KEYS) | TEXTS, inner, max_size=4)
    ),
    max_leaves=8,
)


def check_recipe_or_error(text: str) -> None:
    try:
        assert isinstance(parse_recipe(text, folder=FOLDER), Recipe)
        return
    except UsageError as raised:
        error = raised
    assert error.causes
    if error.code == "recipe-invalid":
        lines = [int(cause.removeprefix("line ").split(":")[0]) for cause in error.causes]
        assert 1 <= min(lines) <= max(lines) <= max(len(text.splitlines()), 1)


@given(st.one_of(st.text(), st.lists(st.sampled_from([*KEYS, " = ", '"', "[", "]", "\n", "demo", "1"])).map("".join)))
@settings(deadline=None)
def test_any_text_is_a_recipe_or_an_error_of_ours(text: str) -> None:
    check_recipe_or_error(text)


@given(st.dictionaries(st.sampled_from(KEYS) | TEXTS, VALUES, max_size=8))
@settings(deadline=None)
def test_any_toml_is_a_recipe_or_an_error_of_ours(data: dict[str, Any]) -> None:
    check_recipe_or_error(document({"name": "demo", "requirements": ["demo"], **data}))


REQUIREMENTS = st.builds(
    "{}{}{}".format,
    st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,8}[A-Za-z0-9])?", fullmatch=True),
    st.sampled_from(["", "[extra]"]),
    st.sampled_from(["", "==1.0", "<2,>=1", "!=1.5", "~=1.2", '; python_version < "3.13"']),
)
RECIPES = st.fixed_dictionaries(
    {
        "name": st.just("demo"),
        "requirements": st.lists(REQUIREMENTS, min_size=1, max_size=4),
    },
    optional={
        "summary": TEXTS,
        "homepage": TEXTS,
        "licence": TEXTS,
        "constraints": st.lists(REQUIREMENTS, max_size=3),
        "targets": st.lists(st.sampled_from([str(target) for target in all_targets()]), min_size=1, unique=True),
        "builder": st.sampled_from(["auto", "host", "container"]),
        "layout": st.sampled_from(["versioned", "shared"]),
        "scripts": st.booleans(),
        "imports": st.lists(st.sampled_from(["demo", "demo.sub", "_x"]), max_size=3),
        "size-budget": st.integers(1, 10**12),
        "prune": st.fixed_dictionaries(
            {},
            optional={
                "sets": st.lists(st.sampled_from(sorted(prune_sets())), max_size=3),
                "patterns": st.lists(TEXTS, max_size=3),
            },
        ),
        "accept": st.lists(
            st.fixed_dictionaries({"code": st.just("a-code"), "reason": st.just("all right")}), max_size=3
        ),
    },
)


@given(RECIPES)
@settings(deadline=None)
def test_a_valid_recipe_says_what_was_written(data: dict[str, Any]) -> None:
    recipe = parse_recipe(document(data), folder=FOLDER)
    assert list(recipe.requirements) == data["requirements"]
    assert list(recipe.constraints) == data.get("constraints", [])
    wanted = data.get("targets", [str(target) for target in default_targets()])
    assert sorted(map(str, recipe.targets)) == sorted(wanted)
    for key, default in (("builder", "auto"), ("layout", "versioned"), ("scripts", False), ("summary", "")):
        assert getattr(recipe, key) == data.get(key, default)
    assert (recipe.homepage, recipe.licence) == (data.get("homepage", ""), data.get("licence", ""))
    assert list(recipe.imports) == data.get("imports", [])
    assert recipe.size_budget == data.get("size-budget")
    assert list(recipe.prune.sets) == data.get("prune", {}).get("sets", [])
    assert list(recipe.prune.patterns) == data.get("prune", {}).get("patterns", [])
    assert [{"code": row.code, "reason": row.reason} for row in recipe.accept] == data.get("accept", [])


@given(st.decimals(1, 300, places=3), st.sampled_from([("kB", 1000), ("MB", 1000**2), ("KiB", 1024)]))
@settings(deadline=None)
def test_a_size_with_a_fraction_loses_no_byte(number: Decimal, unit: tuple[str, int]) -> None:
    assert parse(f'size-budget = "{number} {unit[0]}"\n').size_budget == int(number * unit[1])


# Where recipes are found.


def write_recipe(root: Path, name: str, extra: str = "") -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "recipe.toml").write_text(f'name = "{name}"\nrequirements = ["demo"]\n{extra}')
    return folder


def test_a_projects_recipe_wins_over_the_shipped_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = tmp_path / "shipped"
    monkeypatch.setattr("layerbuild.recipe.shipped_folder", lambda: shipped)
    write_recipe(shipped, "web", 'summary = "theirs"\n')
    write_recipe(shipped, "other")
    project = tmp_path / "project"
    assert load_recipe("web", project).shipped
    write_recipe(project / "recipes", "web", 'summary = "mine"\n')

    found = load_recipe("web", project)
    assert (found.summary, found.shipped, found.folder) == ("mine", False, project / "recipes/web")
    assert load_recipe("other", project).shipped
    assert {name: shipped for name, (_, shipped) in recipe_folders(project).items()} == {"other": True, "web": False}


def test_an_unknown_recipe_names_the_nearest(tmp_path: Path) -> None:
    write_recipe(tmp_path / "recipes", "my-pillow-fork")
    with pytest.raises(UsageError) as caught:
        load_recipe("my-pilow-fork", tmp_path)
    assert caught.value.code == "unknown-recipe"
    assert caught.value.causes[0].startswith("did you mean my-pillow-fork")
    assert "layerbuild new my-pilow-fork" in str(caught.value.hint)


def test_a_recipe_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    folder = write_recipe(tmp_path / "recipes", "web")
    (folder / "recipe.toml").write_bytes(b'name = "w\xfcb"\n')
    with pytest.raises(UsageError) as caught:
        load_recipe("web", tmp_path)
    assert caught.value.code == "recipe-not-toml"


def test_a_requirements_file_makes_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "limits.txt").write_text("other<2\n")
    path = tmp_path / "reqs.txt"
    path.write_text("demo>=1\n-c limits.txt\n")
    recipe = recipe_of_requirements(path, "web")
    assert recipe == Recipe(name="web", requirements=("demo>=1",), constraints=("other<2",))
    assert recipe.origin == "requirements.txt"


def test_a_requirements_file_is_a_lock_only_when_every_line_has_hashes(tmp_path: Path) -> None:
    path = tmp_path / "reqs.txt"
    pinned = f"demo==1.0 --hash=sha256:{'a' * 64}"
    path.write_text(f"{pinned}\nother==1.0\n")
    assert recipe_of_requirements(path, "web").given_lock is None
    path.write_text(f"{pinned}\n")
    assert recipe_of_requirements(path, "web").given_lock == pinned


@pytest.mark.parametrize("name", ["", "-web", "we b", "wéb", "web.x", "a" * 121])
def test_a_layers_name_must_suit_lambda(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError) as caught:
        recipe_of_requirements(tmp_path / "never-read.txt", name)
    assert caught.value.code == "bad-layer-name"


# What `layerbuild new` writes.


def wheel_of(path: Path) -> Wheel:
    return wheel_from_facts(read_facts(path, path.name), sha256="0" * 64, filename=path.name, path=path)


@pytest.mark.parametrize(
    "summary",
    [
        "plain",
        'with "quotes" and \\backslashes\\',
        "'''single''' and \"\"\"triple\"\"\"",
        "Grüße 漢字 🐍 \u202eright to left",
        "tab\there, bell\x07, escape\x1b[31m",
        "delete\x7f and \x80",
        "two\u2028lines\x85and\x0cmore",
        "# not a comment ] } = ",
        "",
    ],
)
def test_a_new_recipe_is_valid_whatever_the_wheels_summary_says(tmp_path: Path, summary: str) -> None:
    path = make_wheel(
        tmp_path, "demo", metadata=f"Summary: {summary}\nHome-page: https://example.org/\nLicense-Expression: MIT\n"
    )
    wheel = wheel_of(path)
    text = new_recipe_text("demo", wheel)
    recipe = parse("", text)
    assert recipe.summary == " ".join(wheel.summary.split())
    assert (recipe.homepage, recipe.licence) == ("https://example.org/", "MIT")
    assert (recipe.requirements, recipe.imports) == (("demo",), ("demo",))


def test_every_line_that_a_new_recipe_comments_out_is_valid_too(tmp_path: Path) -> None:
    lines = new_recipe_text("demo", wheel_of(make_wheel(tmp_path))).splitlines()
    live = [line.removeprefix("# ") if " = " in line or line == "# [prune]" else line for line in lines]
    recipe = parse("", "\n".join(live))
    assert [str(target) for target in recipe.targets] == ["python3.13-x86_64", "python3.13-arm64"]
    assert (recipe.layout, recipe.scripts, recipe.size_budget) == ("shared", True, 60_000_000)
    assert recipe.prune == Prune(sets=("tests",), patterns=("botocore/data/ec2/",))


@pytest.mark.parametrize("name", ["demo", "My-Package", "2captcha"])
def test_a_new_recipe_without_a_wheel_is_valid_and_says_so(name: str) -> None:
    text = new_recipe_text(name, None)
    recipe = parse_recipe(text, folder=Path(name))
    assert recipe.builder == "container"
    assert "no wheel" in text
    assert "name" in tomllib.loads(text)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["demo.py"], ["demo"]),
        (["demo/__init__.py", "demo/sub/__init__.py", "demo/x.py", "_demo.py"], ["demo"]),
        (["b/__init__.py", "a.py"], ["a", "b"]),
        (["_private/__init__.py"], ["_private"]),
        (["fast.cpython-312-x86_64-linux-gnu.so"], ["fast"]),
        (["not-a-module.py", "data/file.txt"], ["my_demo"]),
        (["my_demo-1.0.data/scripts/run.py", "my_demo-1.0.data/__init__.py"], ["my_demo"]),
    ],
)
def test_the_modules_of_a_wheel_are_those_a_user_imports(
    tmp_path: Path, files: list[str], expected: list[str]
) -> None:
    path = make_wheel(tmp_path, "my-demo", files=dict.fromkeys(files, "x"), pure=True)
    assert top_modules(wheel_of(path)) == expected


def test_a_likely_module_name_is_an_identifier() -> None:
    assert normal_module("My-Package.x") == "my_package_x"
