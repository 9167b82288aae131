"""What a recipe says of how to build: every key, and every mistake with its line."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerbuild.build_settings import BUILD_KEYS, BuildSettings, FileRule
from layerbuild.errors import UsageError
from layerbuild.recipe import Recipe, parse_recipe

FOLDER = Path("recipes/demo")
MINIMAL = 'name = "demo"\nrequirements = ["demo"]\n'
FILES_ONLY = 'name = "demo"\n'


def settings_of(extra: str, text: str = MINIMAL) -> BuildSettings:
    return parse_recipe(text + extra, folder=FOLDER).build


def causes(extra: str, text: str = MINIMAL) -> tuple[str, ...]:
    with pytest.raises(UsageError) as caught:
        parse_recipe(text + extra, folder=FOLDER)
    assert (caught.value.code, caught.value.exit_code) == ("recipe-invalid", 2)
    return caught.value.causes


def test_a_recipe_that_says_nothing_of_it_has_plain_settings() -> None:
    assert settings_of("") == BuildSettings()
    assert BuildSettings() == BuildSettings(
        no_binary=(), constraints=(), system_packages=(), environment=(), strip=False, files=()
    )


def test_every_key_is_read() -> None:
    text = """\
no-binary = ["lxml", "Demo_Package.x"]
build-constraints = ["setuptools < 70", "cython"]
strip = true

[system-packages]
yum = ["postgresql-devel"]
apt = ["libpq-dev", "g++"]
dnf = []

[environment]
MAKEFLAGS = "-j1"
CFLAGS = "-O3 -DNAME='a b'"
_x1 = ""

[[files]]
from = "/usr/bin/qpdf"
to = "bin/"

[[files]]
from = "/usr/share/tessdata/*.traineddata"
to = "share/tessdata/"
"""
    assert set(tomllib.loads(text)) == set(BUILD_KEYS)
    assert settings_of(text) == BuildSettings(
        no_binary=("lxml", "demo-package-x"),
        constraints=("setuptools<70", "cython"),
        system_packages=(("apt", ("libpq-dev", "g++")), ("dnf", ()), ("yum", ("postgresql-devel",))),
        environment=(("CFLAGS", "-O3 -DNAME='a b'"), ("MAKEFLAGS", "-j1"), ("_x1", "")),
        strip=True,
        files=(
            FileRule(source="/usr/bin/qpdf", to="bin/"),
            FileRule(source="/usr/share/tessdata/*.traineddata", to="share/tessdata/"),
        ),
    )


def test_tables_may_stand_on_one_line_or_be_dotted() -> None:
    table = settings_of(
        "[system-packages]\napt = ['git']\n[environment]\nX = '1'\n[[files]]\nfrom = '/a'\nto = 'bin/'\n"
    )
    inline = settings_of(
        "system-packages = { apt = ['git'] }\nenvironment = { X = '1' }\nfiles = [{ from = '/a', to = 'bin/' }]\n"
    )
    dotted = settings_of(
        "system-packages.apt = ['git']\nenvironment.X = '1'\nfiles = [{ from = '/a', to = 'bin/' }]\n"
    )
    assert table == inline == dotted


@pytest.mark.parametrize(
    "name",
    ["git", "g++", "libstdc++6", "python3.11-dev", "libssl3", "gcc-c++", "libc6:arm64", "zlib.i686", "7zip", "a_b"],
)
def test_names_of_system_packages_as_they_are_in_use(name: str) -> None:
    assert settings_of(f"system-packages = {{ apt = ['{name}'] }}\n").system_packages == (("apt", (name,)),)


@pytest.mark.parametrize(
    "name",
    [
        *("-y", "--allow-unauthenticated", "a;b", "$(x)", "`x`", "a b", " a", "a ", "a\\nb", "a\\u0000", ""),
        *(
            "a|b",
            "a&b",
            "a>b",
            "a*",
            "a?",
            "~/a",
            "./a.rpm",
            "../a",
            "/tmp/a.deb",
            "+a",
            '\\"a\\"',
            "a'b",
            "a\\\\b",
            "é",
        ),
        *("${HOME}", "!a", "(a)", "{a,b}", "[a]", "#a", "a#b", "a=1", "%a"),
    ],
)
def test_what_an_option_parser_or_a_shell_would_read_otherwise_names_no_package(name: str) -> None:
    (cause,) = causes(f'[system-packages]\napt = ["fine"]\ndnf = ["fine", "{name}"]\n')
    assert cause.startswith("line 5: system-packages.dnf: ")
    assert cause.endswith(" is not the name of a package")


def test_a_name_with_which_apt_would_remove_a_package_names_none() -> None:
    causes("system-packages = { apt = ['libc6-'] }\n")


@pytest.mark.parametrize(
    ("extra", "line", "expected"),
    [
        # Keys that are nearly right.
        ("no-binay = ['a']\n", 3, "unknown key no-binay: did you mean no-binary?"),
        ("build-constraint = ['a']\n", 3, "unknown key build-constraint: did you mean build-constraints"),
        ("\nsystem-package = {}\n", 4, "unknown key system-package: did you mean system-packages?"),
        ("[enviroment]\nX = '1'\n", 3, "unknown key enviroment: did you mean environment"),
        ("stripped = true\n", 3, "unknown key stripped: did you mean strip"),
        ("[[file]]\nfrom = '/a'\nto = 'bin/'\n", 3, "unknown key file: did you mean files"),
        ("[system-packages]\natp = ['a']\n", 4, "unknown key system-packages.atp: did you mean apt?"),
        ("system-packages = { brew = ['a'] }\n", 3, "unknown key system-packages.brew: known: apt, dnf, yum"),
        ("system-packages.zypper = ['a']\n", 3, "unknown key system-packages.zypper: known: apt, dnf, yum"),
        ("[[files]]\nform = '/a'\nfrom = '/a'\nto = 'bin/'\n", 4, "unknown key files.form: did you mean from?"),
        ("[[files]]\nfrom = '/a'\nto = 'bin/'\nmode = 1\n", 6, "unknown key files.mode: "),
        # no-binary.
        ("no-binary = 'lxml'\n", 3, "no-binary must be a list, not 'lxml'"),
        ("no-binary = [1]\n", 3, "no-binary must be a list of strings"),
        ("no-binary = ['a b']\n", 3, "no-binary: 'a b' is not the name of a package"),
        ("no-binary = [':all:']\n", 3, "no-binary: ':all:' is not the name of a package"),
        ("no-binary = ['lxml>=5']\n", 3, "no-binary: 'lxml>=5' is not the name of a package"),
        ("no-binary = [\n  'lxml',\n  '-r x',\n]\n", 3, "no-binary: '-r x' is not the name of a package"),
        ("no-binary = ['']\n", 3, "no-binary: '' is not the name of a package"),
        # build-constraints.
        ("build-constraints = { a = '1' }\n", 3, "build-constraints must be a list, not {'a': '1'}"),
        ("build-constraints = [true]\n", 3, "build-constraints must be a list of strings"),
        ("build-constraints = ['a<']\n", 3, "build-constraints: 'a<' is not a requirement"),
        ("build-constraints = ['-r x.txt']\n", 3, "build-constraints: '-r x.txt' is not a requirement"),
        ("build-constraints = ['a @ https://example.org/a.zip']\n", 3, "build-constraints: 'a' names a URL"),
        # system-packages.
        ("system-packages = ['a']\n", 3, "system-packages must be a table, not ['a']"),
        ("system-packages = { apt = 'a' }\n", 3, "system-packages.apt must be a list, not 'a'"),
        ("[system-packages]\ndnf = []\n\napt = [1]\n", 6, "system-packages.apt must be a list of strings"),
        ("[system-packages]\n'apt' = ['-y']\n", 4, "system-packages.apt: '-y' is not the name of a package"),
        # environment.
        ("environment = 'X=1'\n", 3, "environment must be a table, not 'X=1'"),
        ("environment = ['X=1']\n", 3, "environment must be a table, not ['X=1']"),
        ("[environment]\nX = 1\n", 4, "environment.X must be a string, not 1"),
        ("[environment]\nA = '1'\nX = true\n", 5, "environment.X must be a string, not True"),
        ("[environment]\nX = ['1']\n", 4, "environment.X must be a string, not ['1']"),
        ("[environment]\nX.Y = '1'\n", 4, "environment.X must be a string, not {'Y': '1'}"),
        ('[environment]\nX = "a\\u0000b"\n', 4, "environment.X must be a string, not 'a\\x00b'"),
        ("environment.X = 1.5\n", 3, "environment.X must be a string, not 1.5"),
        ("[environment]\nAWS_PROFILE = 'x'\n", 4, "environment.AWS_PROFILE: builds get no credentials"),
        (
            "environment = { AWS_SESSION_TOKEN = 'x' }\n",
            3,
            "environment.AWS_SESSION_TOKEN: builds get no credentials",
        ),
        ("[environment]\nAWS_X = 1\n", 4, "environment.AWS_X: builds get no credentials"),
        ("[environment]\n1X = 'x'\n", 4, "environment: '1X' cannot name a variable"),
        ("[environment]\nA-B = 'x'\n", 4, "environment: 'A-B' cannot name a variable"),
        ("[environment]\n'A=B' = 'x'\n", 4, "environment: 'A=B' cannot name a variable"),
        ("[environment]\n'A B' = 'x'\n", 4, "environment: 'A B' cannot name a variable"),
        ("[environment]\n'' = 'x'\n", 4, "environment: '' cannot name a variable"),
        ("[environment]\n'É' = 'x'\n", 4, "environment: 'É' cannot name a variable"),
        ('[environment]\n"A\\nB" = "x"\n', 3, "environment: 'A\\nB' cannot name a variable"),
        # strip.
        ("strip = 'yes'\n", 3, "strip must be true or false, not 'yes'"),
        ("strip = 1\n", 3, "strip must be true or false, not 1"),
        # files.
        ("files = '/usr/bin/qpdf'\n", 3, "files must be a list, not '/usr/bin/qpdf'"),
        ("[files]\nfrom = '/a'\nto = 'bin/'\n", 3, "files must be a list, not {"),
        ("files = ['/usr/bin/qpdf']\n", 3, "files must be tables: [[files]]"),
        ("[[files]]\nfrom = '/a'\nto = 3\n", 5, "files.to must be a string, not 3"),
        ("[[files]]\nfrom = ['/a']\nto = 'bin/'\n", 4, "files.from must be a string, not ['/a']"),
        ("[[files]]\nto = 'bin/'\n", 3, "files.from must be an absolute path in the build image, not ''"),
        ("[[files]]\nfrom = '/a'\n", 3, "files.to must be a path below bin/, lib/ or share/, not ''"),
    ],
)
def test_each_mistake_is_told_with_its_line(extra: str, line: int, expected: str) -> None:
    found = [cause for cause in causes(extra) if expected in cause]
    assert len(found) == 1, causes(extra)
    assert found[0].startswith(f"line {line}: ")


@pytest.mark.parametrize(
    "path", ["", "usr/bin/qpdf", "./a", "../a", "bin/*", "~/a", "/usr/../etc/passwd", "/..", "/usr/bin/..", "C:/a"]
)
def test_files_are_taken_from_absolute_paths_that_do_not_climb(path: str) -> None:
    (cause,) = causes(f"[[files]]\nfrom = '{path}'\nto = 'bin/'\n")
    assert cause == f"line 4: files.from must be an absolute path in the build image, not {path!r}"


@pytest.mark.parametrize(
    "path", ["/usr/bin/qpdf", "/usr/share/tessdata/*", "/opt/a b/..c", "/usr/lib64/lib[ab].so.?"]
)
def test_paths_and_patterns_of_the_image_are_taken(path: str) -> None:
    (rule,) = settings_of(f"[[files]]\nfrom = '{path}'\nto = 'share/x'\n").files
    assert rule == FileRule(source=path, to="share/x")


@pytest.mark.parametrize(
    "path",
    [
        *("", "/", ".", "bin", "lib", "share", "etc/x", "python/x", "/bin/x", "/opt/bin/x", "binary/x", "Bin/x"),
        *(
            "bin/../python/x",
            "bin/..",
            "bin/../",
            "../bin/x",
            "./bin/x",
            "bin/./x",
            "bin//x",
            "bin//",
            "lib/.",
            "x/bin/",
        ),
    ],
)
def test_files_go_to_bin_lib_or_share_alone(path: str) -> None:
    (cause,) = causes(f"[[files]]\nfrom = '/a'\nto = '{path}'\n")
    assert cause == f"line 5: files.to must be a path below bin/, lib/ or share/, not {path!r}"


@pytest.mark.parametrize(
    "path", ["bin/", "lib/", "share/", "bin/qpdf", "lib/a/b/", "share/tessdata/eng", "lib/..a", "bin/a b"]
)
def test_places_for_files(path: str) -> None:
    (rule,) = settings_of(f"[[files]]\nfrom = '/a'\nto = '{path}'\n").files
    assert rule.to == path


def test_each_of_several_files_tables_has_its_own_line() -> None:
    found = causes(
        "[[files]]\nfrom = '/a'\nto = 'bin/'\n\n"
        "[[files]]\nfrom = 'b'\nto = 'bin/'\n\n"
        "[[files]]\nto = 'etc/'\n  from = '/c'\nmode = 1\n"
    )
    assert [cause.partition(": ")[0] for cause in found] == ["line 8", "line 12", "line 14"]
    assert ["files.from" in found[0], "files.to" in found[1], "files.mode" in found[2]] == [True] * 3


def test_the_mistakes_of_all_keys_are_told_together() -> None:
    found = causes(
        "no-binary = ['a b']\nbuild-constraints = ['a<']\nstrip = 1\n"
        "system-packages = { apt = ['-y'] }\nenvironment = { A-B = '' }\nfiles = ['x']\n"
    )
    assert [cause.partition(": ")[0] for cause in found] == [f"line {number}" for number in range(3, 9)]


@pytest.mark.parametrize("requirements", ["", "requirements = []\n"])
def test_a_recipe_may_have_files_and_no_requirements(requirements: str) -> None:
    recipe = parse_recipe(
        f"{FILES_ONLY}{requirements}[[files]]\nfrom = '/usr/bin/qpdf'\nto = 'bin/'\n", folder=FOLDER
    )
    assert recipe.requirements == ()
    assert recipe.build.files == (FileRule(source="/usr/bin/qpdf", to="bin/"),)


@pytest.mark.parametrize("extra", ["", "files = []\n", "strip = true\n", "system-packages = { apt = ['git'] }\n"])
def test_a_recipe_without_files_needs_requirements(extra: str) -> None:
    (cause,) = causes(extra, FILES_ONLY)
    assert cause == "line 1: requirements is missing or empty: a layer needs at least one package"


def test_files_that_are_none_are_told_once() -> None:
    (cause,) = causes("files = 'x'\n", FILES_ONLY)
    assert cause == "line 2: files must be a list, not 'x'"


def literal(value: Any) -> str:
    """A value as TOML, on one line."""
    if isinstance(value, str):
        return '"' + "".join(c if c.isascii() and c.isalnum() else f"\\U{ord(c):08x}" for c in value) + '"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ", ".join(map(literal, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{literal(key)} = {literal(item)}" for key, item in value.items()) + "}"
    return str(value)


NAMES = st.sampled_from([*BUILD_KEYS, "apt", "dnf", "from", "to", "X", "AWS_X"])
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ["demo", "/usr/bin/x", "bin/", "lib/x", "-y", "a b", "$(x)", "..", "/a/../b", "demo<1"]
)
VALUES = st.recursive(
    TEXTS | st.booleans() | st.integers() | st.floats() | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | TEXTS, inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(BUILD_KEYS), VALUES, min_size=1))
def test_any_value_is_a_setting_or_an_error_of_ours(data: dict[str, Any]) -> None:
    text = MINIMAL + "".join(f"{key} = {literal(value)}\n" for key, value in data.items())
    try:
        recipe = parse_recipe(text, folder=FOLDER)
    except UsageError as error:
        lines = [int(cause.removeprefix("line ").partition(":")[0]) for cause in error.causes]
        assert 3 <= min(lines) <= max(lines) <= len(text.splitlines())
        return
    assert isinstance(recipe, Recipe)
    assert all(name.isidentifier() and not name.startswith("AWS_") for name, _ in recipe.build.environment)
    assert all(rule.source.startswith("/") and rule.to[:3] in ("bin", "lib", "sha") for rule in recipe.build.files)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "no-binary": st.lists(st.from_regex(r"[a-z0-9]([a-z0-9-]?[a-z0-9]){0,5}", fullmatch=True), max_size=3),
            "build-constraints": st.lists(
                st.sampled_from(["a", "b<2", "c!=1,>0", 'd; python_version < "3"']), max_size=3
            ),
            "system-packages": st.dictionaries(
                st.sampled_from(["apt", "dnf", "yum"]), st.lists(st.sampled_from(["git", "g++", "a.b:c"]), max_size=3)
            ),
            "environment": st.dictionaries(
                st.from_regex(r"[a-zB-Z_][A-Za-z0-9_]{0,8}", fullmatch=True),
                st.text(st.characters(min_codepoint=1, exclude_categories=["Cs"])),
            ),
            "strip": st.booleans(),
            "files": st.lists(
                st.fixed_dictionaries(
                    {"from": st.sampled_from(["/a", "/b/*"]), "to": st.sampled_from(["bin/", "lib/x", "share/a/b"])}
                ),
                max_size=3,
            ),
        },
    )
)
def test_valid_settings_are_what_was_written(data: dict[str, Any]) -> None:
    found = settings_of("".join(f"{key} = {literal(value)}\n" for key, value in data.items()))
    assert list(found.no_binary) == data.get("no-binary", [])
    assert list(found.constraints) == data.get("build-constraints", [])
    assert {name: list(names) for name, names in found.system_packages} == data.get("system-packages", {})
    assert dict(found.environment) == data.get("environment", {})
    assert found.strip == data.get("strip", False)
    assert [{"from": rule.source, "to": rule.to} for rule in found.files] == data.get("files", [])
