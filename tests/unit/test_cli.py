"""The command line as a user types it: help, mistakes, settings, and every command against a real index."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from layerbuild.cli import layerbuild
from layerbuild.target import all_targets
from tests.conftest import Ran
from tests.index_server import IndexServer
from tests.wheels import make_wheel, sha256_of

Cli = Callable[..., Ran]
ARM = ("--target", "python3.12-arm64")
COMPILED = "cp312-cp312-manylinux_2_28_aarch64"


def write_recipe(project: Path, extra: str = "", name: str = "demo", requirements: str = '"demo"') -> Path:
    folder = project / "recipes" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.toml").write_text(f'name = "{name}"\nrequirements = [{requirements}]\n{extra}')
    return folder


@pytest.fixture
def demo(project: Path, wheelhouse: Path, index_server: IndexServer) -> Path:
    """A project with the recipe `demo`, whose package the index has."""
    make_wheel(wheelhouse)
    return write_recipe(project)


def everything_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# Help.


def all_commands() -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = [()]
    context = click.Context(layerbuild)
    for name in layerbuild.list_commands(context):
        found.append((name,))
        command = layerbuild.get_command(context, name)
        if isinstance(command, click.Group):
            found += [(name, sub) for sub in command.commands]
    return found


@pytest.mark.parametrize("command", all_commands(), ids=" ".join)
@pytest.mark.parametrize("columns", ["80", "250"])
def test_help_fits_and_has_an_example(
    project: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    ran = cli(*command, "--help")
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert max(map(len, lines)) <= min(int(columns), 100)
    examples = [line.strip() for line in lines if "layerbuild " in line and not line.startswith("Usage:")]
    assert any(" ".join(["layerbuild", *command]) in line for line in examples), ran.out


def test_the_short_option_asks_for_help_too(project: Path, cli: Cli) -> None:
    assert cli("make", "-h").out == cli("make", "--help").out


def test_the_version_is_told(cli: Cli) -> None:
    import layerbuild as package

    assert package.__version__ in cli("--version").out


# Mistakes.


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("mak",), "did you mean make"),
        (("make", "--locket"), "--locked"),
        (("make", "demp"), "did you mean demo"),
        (("make", "demo", "--target", "python3.13-arm"), "python3.13-arm64"),
        (("lock", "demo", "--target", "python2.7-arm64"), "did you mean python3."),
        (("runtimes", "--tags", "python3.12-amd64"), "python3.12-arm64"),
        (("completion", "basch"), "'bash'"),
        (("make", "demo", "--builder", "hosts"), "'host'"),
        (("cache", "prone"), "prune"),
    ],
)
def test_an_unknown_name_names_the_nearest(
    project: Path, cli: Cli, arguments: tuple[str, ...], expected: str
) -> None:
    write_recipe(project)
    ran = cli(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert expected in ran.err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("make",), "name a recipe, or ask for --all"),
        (("make", "-r", "reqs.txt"), "give it a --name"),
        (("make", "demo", "-r", "reqs.txt", "--name", "web"), "no RECIPE"),
        (("make", "-r", "reqs.txt", "--name", "web", "--all"), "no RECIPE"),
        (("make", "demo", "--name", "web"), "--name goes with --requirements"),
        (("make", "-r", "reqs.txt", "--name", "a b"), "cannot name a layer"),
        (("make", "-r", "nowhere.txt", "--name", "web"), "there is no file nowhere.txt"),
        (("make", "demo", "--jobs", "0"), "--jobs"),
        (("cache", "prune", "--unused-for", "-1"), "--unused-for"),
        (("new",), "NAME"),
        (("new", "a.b"), "cannot name a layer"),
        (("lock",), "name a recipe"),
    ],
)
def test_a_wrong_command_line_says_what_is_wrong(
    project: Path, cli: Cli, arguments: tuple[str, ...], expected: str
) -> None:
    write_recipe(project)
    (project / "reqs.txt").write_text("demo\n")
    before = everything_in(project)
    ran = cli(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert expected in ran.err
    assert everything_in(project) == before


def test_a_version_that_is_none_is_an_error_of_the_recipe(project: Path, cli: Cli, demo: Path) -> None:
    write_recipe(project, requirements='"demo==one"')
    assert cli("make", "demo", *ARM).code == 2


@pytest.mark.parametrize("target", ["python3.12-arm64", "python3.11-x86_64"])
def test_a_marker_without_meaning_is_no_traceback(project: Path, cli: Cli, demo: Path, target: str) -> None:
    write_recipe(project, requirements="""\"demo", "other; os_name ~= 'posix'\"""")
    made = cli("make", "demo", "--target", target)
    assert made.code in (0, 2, 3)
    checked = cli("lock", "demo", "--check", "--target", target)
    assert checked.code == (0 if made.code == 0 else 1 if made.code == 3 else 2)


# Settings.


def test_settings_give_options_their_defaults(project: Path, cli: Cli, demo: Path) -> None:
    (project / "pyproject.toml").write_text('[tool.layerbuild.make]\nout = "ignored"\n')
    (project / "layerbuild.toml").write_text(
        '[make]\nout = "build/layers"\ntarget = ["python3.12-arm64"]\n[lock]\ntarget = ["python3.13-*"]\n'
    )
    ran = cli("make", "demo")
    assert ran.code == 0, ran.err
    assert everything_in(project / "build") == [
        "layers/demo-python3.12-arm64.json",
        "layers/demo-python3.12-arm64.zip",
    ]
    assert cli("make", "demo", "--out", "other", "--target", "python3.13-arm64").code == 0
    assert "other/demo-python3.13-arm64.zip" in everything_in(project)


def test_settings_may_stand_in_pyproject_toml(project: Path, cli: Cli, demo: Path) -> None:
    (project / "pyproject.toml").write_text(
        '[tool.other]\nx = 1\n[tool.layerbuild.make]\nout = "layers"\ntarget = ["python3.12-arm64"]\n'
    )
    assert cli("make", "demo").code == 0
    assert (project / "layers/demo-python3.12-arm64.zip").is_file()


@pytest.mark.parametrize("text", ["", "[project]\nname = 'x'\n", "[tool.other]\nx = 1\n"])
def test_a_pyproject_toml_of_something_else_is_no_obstacle(project: Path, cli: Cli, text: str) -> None:
    (project / "pyproject.toml").write_text(text)
    assert cli("runtimes").code == 0


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("layerbuild.toml", "[mkae]\nout = 'x'\n", "did you mean make"),
        ("layerbuild.toml", "[make]\nouts = 'x'\n", "did you mean out"),
        ("layerbuild.toml", "make = 3\n", "layerbuild.toml"),
        ("layerbuild.toml", "out = 'x'\n", "there is no command 'out'"),
        ("layerbuild.toml", "[make\n", "is not TOML"),
        ("layerbuild.toml", "[make]\njobs = 'many'\n", "many"),
        ("layerbuild.toml", "[make]\nout = 3\n", "out"),
        ("layerbuild.toml", "[make]\ntarget = 3\n", "target"),
        ("layerbuild.toml", "[make]\ntarget = 'python3.12-arm64'\n", "target"),
        ("layerbuild.toml", "[make]\nlocked = 'perhaps'\n", "perhaps"),
        ("pyproject.toml", "[tool.layerbuild.mkae]\nout = 'x'\n", "did you mean make"),
        ("pyproject.toml", "[tool.layerbuild.make]\nouts = 'x'\n", "did you mean out"),
        ("pyproject.toml", "[tool]\nlayerbuild = 3\n", "pyproject.toml"),
    ],
)
def test_wrong_settings_are_refused(project: Path, cli: Cli, demo: Path, file: str, text: str, expected: str) -> None:
    (project / file).write_text(text)
    ran = cli("make", "demo", "--jobs", "1") if "jobs" not in text else cli("make", "demo")
    assert ran.code == 2
    assert expected in ran.err
    assert not (project / "dist").exists()


def test_settings_that_are_not_text_are_refused(project: Path, cli: Cli) -> None:
    (project / "layerbuild.toml").write_bytes(b"# \xff\n")
    ran = cli("runtimes")
    assert ran.code == 2
    assert "is not TOML" in ran.err


def test_variables_give_options_their_defaults(
    project: Path, cli: Cli, demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "layerbuild.toml").write_text('[make]\nout = "from-file"\n')
    monkeypatch.setenv("LAYERBUILD_MAKE_OUT", "from-variable")
    assert cli("make", "demo", *ARM).code == 0
    assert (project / "from-variable/demo-python3.12-arm64.zip").is_file()
    assert not (project / "from-file").exists()


def test_debug_shows_a_traceback(project: Path, cli: Cli) -> None:
    ran = cli("--debug", "make", "nonsense")
    assert ran.code == 2
    assert "Traceback (most recent call last):\n" in ran.err
    assert "there is no recipe 'nonsense' [unknown-recipe]\n" in ran.err
    assert "Traceback" not in cli("make", "nonsense").err


# Runtimes, cache, completion, recipes.


def test_runtimes_are_listed(cli: Cli) -> None:
    lines = cli("runtimes").out.splitlines()
    assert lines[0].split()[0] == "runtime"
    rows = {line.split()[0]: line for line in lines if line.startswith("python3.")}
    assert list(rows) == [f"python3.{minor}" for minor in range(9, 15)]
    assert "deprecated 2025-12-15" in rows["python3.9"]
    assert "manylinux_2_34" in rows["python3.14"]


def test_runtimes_as_json_tell_all_of_every_target(cli: Cli) -> None:
    rows = {row["target"]: row for row in cli("runtimes", "--json").json["targets"]}
    assert list(rows) == [str(target) for target in all_targets()]
    for target in all_targets():
        row = rows[str(target)]
        assert row["tags"] == [str(tag) for tag in target.tags()]
        assert row["markers"] == target.marker_environment()
        assert row["runtime"] + "-" + row["architecture"] == row["target"]
    assert [rows[name]["default"] for name in ("python3.9-arm64", "python3.13-arm64")] == [False, True]
    assert rows["python3.12-arm64"]["glibc"] == "2.34"


def test_the_tags_of_a_target_are_listed_best_first(cli: Cli) -> None:
    tags = cli("runtimes", "--tags", "python3.12-arm64").out.splitlines()
    assert tags[0] == "cp312-cp312-manylinux_2_34_aarch64"
    assert tags[-1] == "py30-none-any"
    assert cli("runtimes", "--tags", "python3.12-arm64", "--json").json == {
        "target": "python3.12-arm64",
        "tags": tags,
    }


def test_the_cache_tells_what_it_holds_and_can_be_emptied(
    project: Path, cli: Cli, demo: Path, tmp_path: Path
) -> None:
    empty = cli("cache")
    assert empty.out.splitlines() == [str(tmp_path / "cache"), "empty"]
    assert cli("make", "demo", *ARM).code == 0
    lines = cli("cache").out.splitlines()
    kinds = {line.split()[0]: int(line.split()[1]) for line in lines[2:]}
    assert kinds["wheels"] == 1
    assert kinds["total"] == sum(kinds.values()) - kinds["total"]
    held = cli("cache", "--json").json
    assert held["folder"] == str(tmp_path / "cache")
    assert {row["kind"]: row["files"] for row in held["kinds"]} == {
        key: value for key, value in kinds.items() if key != "total"
    }
    assert cli("cache", "prune", "--json").json == {"removed": {"files": 0, "bytes": 0}}
    wanted = {"files": kinds["total"], "bytes": sum(row["bytes"] for row in held["kinds"])}
    assert cli("cache", "prune", "--unused-for", "0", "--json").json == {"removed": wanted}
    assert cli("cache", "prune").out == "removed 0 files, 0 kB\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_is_one_of_its_shell(cli: Cli, shell: str) -> None:
    ran = cli("completion", shell)
    assert ran.code == 0
    assert f"_LAYERBUILD_COMPLETE={shell}_complete" in ran.out
    if shell == "bash":
        assert subprocess.run(["bash", "-n"], input=ran.out, text=True).returncode == 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("make my-", ["my-one", "my-two"]),
        ("lock my-o", ["my-one"]),
        ("make x --target python3.9", ["python3.9-x86_64", "python3.9-arm64"]),
        ("com", ["completion"]),
        ("make --expl", ["--explain-size"]),
        ("make my-one --builder c", ["container"]),
    ],
)
def test_a_shell_completes_commands_recipes_and_targets(project: Path, words: str, expected: list[str]) -> None:
    write_recipe(project, name="my-one")
    write_recipe(project, name="my-two")
    done = subprocess.run(
        [sys.executable, "-m", "layerbuild"],
        env={
            **os.environ,
            "_LAYERBUILD_COMPLETE": "bash_complete",
            "COMP_WORDS": f"layerbuild {words}",
            "COMP_CWORD": str(len(words.split())),
        },
        capture_output=True,
        text=True,
    )
    assert [line.split(",")[1] for line in done.stdout.splitlines()] == expected


def test_completion_after_an_unknown_command_stays_silent(project: Path) -> None:
    variables = {"_LAYERBUILD_COMPLETE": "bash_complete", "COMP_WORDS": "layerbuild nonsense q", "COMP_CWORD": "2"}
    done = subprocess.run([sys.executable, "-m", "layerbuild"], env={**os.environ, **variables}, capture_output=True)
    assert (done.stdout.strip(), done.stderr) == (b"", b"")


def test_recipes_are_listed_with_where_they_come_from(project: Path, cli: Cli) -> None:
    folder = write_recipe(project, 'summary = "A demo"\nlicence = "MIT"\ntargets = ["python3.13-*"]\n')
    (line,) = (line for line in cli("recipes").out.splitlines() if line.startswith("demo "))
    assert line.split(maxsplit=2) == ["demo", "own", "A demo"]
    (row,) = (row for row in cli("recipes", "--json").json["recipes"] if row["name"] == "demo")
    assert row == {
        "name": "demo",
        "summary": "A demo",
        "homepage": "",
        "licence": "MIT",
        "requirements": ["demo"],
        "targets": ["python3.13-x86_64", "python3.13-arm64"],
        "shipped": False,
        "folder": str(folder),
    }


def test_every_shipped_recipe_is_listed_and_valid(project: Path, cli: Cli) -> None:
    rows = cli("recipes", "--json").json["recipes"]
    assert {row["shipped"] for row in rows} == {True}
    assert "pillow" in [row["name"] for row in rows]


# New.


def test_a_new_recipe_is_commented_and_makes(
    project: Path, cli: Cli, index_server: IndexServer, wheelhouse: Path
) -> None:
    summary = 'Summary: Says "hi" to you\nLicense-Expression: MIT\n'
    make_wheel(wheelhouse, "demo", "1.0", metadata="Summary: old\n")
    make_wheel(wheelhouse, "demo", "1.1", {"hi/__init__.py": ""}, metadata=summary)
    make_wheel(wheelhouse, "demo", "2.0rc1", metadata="Summary: too new\n")
    ran = cli("new", "demo")
    assert ran.code == 0, ran.err
    assert ran.out == "wrote recipes/demo/recipe.toml; next: layerbuild make demo\n"
    text = (project / "recipes/demo/recipe.toml").read_text()
    assert 'summary = "Says \\"hi\\" to you"\n' in text
    assert 'licence = "MIT"\n' in text
    assert 'imports = ["hi"]\n' in text
    assert text.count("\n# ") > 8
    assert cli("make", "demo", *ARM).code == 0


def test_a_recipe_that_is_there_is_replaced_only_by_force(project: Path, cli: Cli, demo: Path) -> None:
    before = (demo / "recipe.toml").read_text()
    ran = cli("new", "demo")
    assert ran.code == 2
    assert "recipe-exists" in ran.err
    assert (demo / "recipe.toml").read_text() == before
    forced = cli("new", "demo", "--force", "--json")
    assert forced.json == {"recipe": "demo", "path": "recipes/demo/recipe.toml"}
    assert (demo / "recipe.toml").read_text() != before


def test_no_recipe_is_written_for_an_unknown_package(project: Path, cli: Cli, index_server: IndexServer) -> None:
    ran = cli("new", "nonsense")
    assert ran.code == 2
    assert "no index has a package 'nonsense' [unknown-package]" in ran.err
    assert everything_in(project) == []


def test_a_package_with_source_only_gets_a_recipe_that_says_so(
    project: Path, cli: Cli, index_server: IndexServer, wheelhouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (wheelhouse / "demo-1.0.tar.gz").write_bytes(b"")
    assert cli("new", "demo").code == 0
    assert 'builder = "container"' in (project / "recipes/demo/recipe.toml").read_text()
    monkeypatch.setenv("DOCKER_HOST", f"unix://{project}/no.sock")
    ran = cli("make", "demo", *ARM)
    assert ran.code == 4
    assert "there is no Docker engine to build in [no-engine]" in ran.err
    assert everything_in(project) == ["recipes/demo/recipe.toml"]


# Lock.


def test_lock_check_tells_missing_and_unfit_locks(project: Path, cli: Cli, demo: Path) -> None:
    missing = cli("lock", "demo", "--check", *ARM)
    assert missing.code == 1
    assert missing.out.splitlines() == [
        "demo python3.12-arm64: there is no lock",
        "0 of 1 locks fit their recipes",
    ]
    assert everything_in(project) == ["recipes/demo/recipe.toml"]
    assert cli("lock", "demo", *ARM).code == 0
    assert cli("lock", "demo", "--check", *ARM).code == 0
    write_recipe(project, requirements='"demo>=2"')
    unfit = cli("lock", "demo", "--check", "--json", *ARM)
    assert unfit.code == 1
    (row,) = unfit.json["locks"]
    assert (row["fits"], row["recipe"], row["target"]) == (False, "demo", "python3.12-arm64")
    assert "demo is locked at 1.0, the recipe wants >=2" in row["problems"]
    (demo / "locks/python3.12-arm64.txt").write_text("demo\n")
    broken = cli("lock", "demo", "--check", *ARM)
    assert broken.code == 1
    assert "demo has no --hash" in broken.out


@pytest.mark.parametrize("target", ["python3.12-arm64", "python3.11-x86_64"])
def test_locks_are_kept_until_an_upgrade_is_asked_for(
    project: Path, cli: Cli, demo: Path, wheelhouse: Path, target: str
) -> None:
    make_wheel(wheelhouse, "other")
    write_recipe(project, requirements='"demo", "other"')
    path = demo / f"locks/{target}.txt"
    arguments = ("lock", "demo", "--target", target)

    def pins() -> list[str]:
        return [line.split()[0] for line in path.read_text().splitlines() if "==" in line.split("#")[0]]

    assert cli(*arguments).out == "1 locks written, 0 unchanged, 0 failed\n"
    assert pins() == ["demo==1.0", "other==1.0"]
    make_wheel(wheelhouse, "demo", "1.1")
    make_wheel(wheelhouse, "other", "1.1")
    kept = cli(*arguments, "--json")
    assert kept.json["locks"][0]["changed"] is False
    assert pins() == ["demo==1.0", "other==1.0"]
    assert cli(*arguments, "--upgrade", "other").code == 0
    assert pins() == ["demo==1.0", "other==1.1"]
    assert cli(*arguments, "--upgrade").code == 0
    assert pins() == ["demo==1.1", "other==1.1"]
    assert sha256_of(wheelhouse / "demo-1.1-py3-none-any.whl") in path.read_text()


def test_a_lock_that_cannot_be_made_fails_alone(project: Path, cli: Cli, demo: Path) -> None:
    write_recipe(project, name="bad", requirements='"nonsense"')
    ran = cli("lock", "demo", "bad", "--json", *ARM)
    assert ran.code == 3
    assert [row["recipe"] for row in ran.json["locks"]] == ["demo"]
    (failed,) = ran.json["failed"]
    assert (failed["recipe"], failed["code"]) == ("bad", "unknown-package")


# Make.


@pytest.mark.parametrize("extra", [(), ("--json",)])
def test_locked_makes_nothing_without_a_lock(project: Path, cli: Cli, demo: Path, extra: tuple[str, ...]) -> None:
    before = everything_in(project)
    ran = cli("make", "demo", "--locked", *ARM, *extra)
    assert ran.code == 3
    assert "[lock-missing]" in ran.err
    assert everything_in(project) == before
    if extra:
        assert ran.json["layers"] == []
        assert ran.json["failed"][0]["code"] == "lock-missing"


def test_locked_makes_nothing_with_a_lock_that_no_longer_fits(project: Path, cli: Cli, demo: Path) -> None:
    assert cli("lock", "demo", *ARM).code == 0
    assert cli("make", "demo", "--locked", *ARM).code == 0
    write_recipe(project, requirements='"demo<1"')
    before = {path: (project / path).read_bytes() for path in everything_in(project)}
    ran = cli("make", "demo", "--locked", *ARM)
    assert ran.code == 3
    assert "[lock-misfit]" in ran.err
    assert {path: (project / path).read_bytes() for path in everything_in(project)} == before


def test_a_requirements_file_makes_a_layer_and_a_lock(project: Path, cli: Cli, demo: Path) -> None:
    (project / "reqs.txt").write_text("demo>=1  # why not\n")
    ran = cli("make", "-r", "reqs.txt", "--name", "web", *ARM)
    assert ran.code == 0, ran.err
    assert (project / "dist/web-python3.12-arm64.zip").is_file()
    assert "demo==1.0" in (project / "locks/web/python3.12-arm64.txt").read_text()


def test_a_requirements_file_with_hashes_is_taken_as_it_is(
    project: Path, cli: Cli, demo: Path, wheelhouse: Path
) -> None:
    digest = sha256_of(wheelhouse / "demo-1.0-py3-none-any.whl")
    make_wheel(wheelhouse, "demo", "1.1")
    (project / "reqs.txt").write_text(f"demo==1.0 \\\n    --hash=sha256:{digest}\n")
    ran = cli("make", "-r", "reqs.txt", "--name", "web", "--locked", "--json", *ARM)
    assert ran.code == 0, ran.err
    (layer,) = ran.json["layers"]
    assert [row["version"] for row in layer["manifest"]["distributions"]] == ["1.0"]
    assert not (project / "locks").exists()
    (project / "reqs.txt").write_text(f"demo==1.0 --hash=sha256:{'0' * 64}\n")
    assert cli("make", "-r", "reqs.txt", "--name", "web", *ARM).code == 3


def test_explain_size_shows_where_the_bytes_are(project: Path, cli: Cli, demo: Path, wheelhouse: Path) -> None:
    make_wheel(wheelhouse, "big", files={"big/data.bin": b"x" * 3_000_000, "big/__init__.py": ""})
    write_recipe(project, requirements='"demo", "big"')
    ran = cli("make", "demo", "--explain-size", *ARM)
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("package "))
    rows = lines[start + 1 :]
    assert rows[0].startswith("big")
    assert "3.0 MB" in rows[0]
    assert any(row.startswith("  ") and "big" in row and "3.0 MB" in row for row in rows)
    assert any(row.startswith("demo") for row in rows)


def test_a_shared_layer_is_one_archive_for_all_its_runtimes(project: Path, cli: Cli, demo: Path) -> None:
    write_recipe(project, 'layout = "shared"\ntargets = ["python3.12-*", "python3.13-arm64"]\n')
    ran = cli("make", "demo", "--json")
    assert ran.code == 0, ran.err
    (layer,) = ran.json["layers"]
    assert layer["path"] == "dist/demo-any.zip"
    assert layer["manifest"]["target"] == "any"
    with zipfile.ZipFile(project / layer["path"]) as archive:
        assert "python/demo.py" in archive.namelist()
        assert archive.testzip() is None
    assert len(everything_in(demo / "locks")) == 3
    assert [path for path in everything_in(project) if path.endswith(".zip")] == ["dist/demo-any.zip"]


def test_a_shared_layer_cannot_hold_a_compiled_package(
    project: Path, cli: Cli, index_server: IndexServer, wheelhouse: Path
) -> None:
    make_wheel(wheelhouse, tag=COMPILED)
    write_recipe(project, 'layout = "shared"\ntargets = ["python3.12-arm64"]\n')
    ran = cli("make", "demo", "--json")
    assert ran.code == 3
    (failed,) = ran.json["failed"]
    assert (failed["code"], failed["target"]) == ("not-pure", "any")
    assert f"demo-1.0-{COMPILED}.whl" in failed["causes"]
    assert not (project / "dist/demo-any.zip").exists()


def test_a_shared_layer_needs_locks_that_say_the_same(project: Path, cli: Cli, demo: Path, wheelhouse: Path) -> None:
    make_wheel(wheelhouse, "other")
    write_recipe(
        project,
        'layout = "shared"\ntargets = ["python3.12-arm64", "python3.13-arm64"]\n',
        requirements="""\"demo", "other; python_version >= '3.13'\"""",
    )
    ran = cli("make", "demo", "--json")
    assert ran.code == 3
    (failed,) = ran.json["failed"]
    assert failed["code"] == "locks-differ"
    assert failed["causes"] == ["python3.12-arm64 and python3.13-arm64 differ in other==1.0"]


def test_a_layer_over_its_budget_is_not_made(project: Path, cli: Cli, demo: Path) -> None:
    write_recipe(project, "size-budget = 50\n")
    ran = cli("make", "demo", *ARM)
    assert ran.code == 1
    assert "[size-budget]" in ran.err
    assert "its recipe allows 50" in ran.err
    assert not (project / "dist/demo-python3.12-arm64.zip").exists()
    write_recipe(project, 'size-budget = "1 MB"\n')
    assert cli("make", "demo", *ARM).code == 0


def test_a_deprecated_runtime_is_made_with_a_warning(project: Path, cli: Cli, demo: Path) -> None:
    ran = cli("make", "demo", "--target", "python3.9-arm64")
    assert ran.code == 0, ran.err
    assert "warning: python3.9 was deprecated by AWS on 2025-12-15" in ran.err
    assert (project / "dist/demo-python3.9-arm64.zip").is_file()
    assert "deprecated" not in cli("make", "demo", *ARM).err


def test_a_prune_pattern_that_matches_nothing_is_told(project: Path, cli: Cli, demo: Path, wheelhouse: Path) -> None:
    make_wheel(wheelhouse, files={"demo/__init__.py": "", "demo/tests/test_x.py": "", "demo/data.txt": "x"})
    write_recipe(project, '[prune]\nsets = ["tests"]\npatterns = ["demo/*.txt", "nowhere/"]\n')
    ran = cli("make", "demo", *ARM)
    assert ran.code == 0, ran.err
    warnings = [line for line in ran.err.splitlines() if line.startswith("warning")]
    assert warnings == ["warning: demo-python3.12-arm64: the prune pattern 'nowhere/' matches nothing"]
    with zipfile.ZipFile(project / "dist/demo-python3.12-arm64.zip") as archive:
        names = [name for name in archive.namelist() if "/demo/" in name]
    assert names == ["python/lib/python3.12/site-packages/demo/__init__.py"]


def test_all_means_the_projects_own_recipes(project: Path, cli: Cli, demo: Path) -> None:
    write_recipe(project, name="second")
    ran = cli("make", "--all", "--json", *ARM)
    assert ran.code == 0, ran.err
    assert [layer["manifest"]["recipe"] for layer in ran.json["layers"]] == ["demo", "second"]


def test_one_layer_that_fails_stops_no_other(project: Path, cli: Cli, demo: Path) -> None:
    write_recipe(project, name="bad", requirements='"nonsense"')
    ran = cli("make", "bad", "demo", *ARM)
    assert ran.code == 3
    assert "1 of 2 layers could not be made" in ran.err
    assert (project / "dist/demo-python3.12-arm64.zip").is_file()


def test_a_folder_that_cannot_be_written_is_an_error_of_the_machine(project: Path, cli: Cli, demo: Path) -> None:
    (project / "blocked").write_text("a file")
    ran = cli("make", "demo", "--out", "blocked/here", "--json", *ARM)
    assert ran.code == 4
    assert [one["exit_code"] for one in ran.json["failed"]] == [4]
    assert "blocked" in ran.err


def test_output_into_a_closed_pipe_is_no_traceback(project: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "layerbuild", "runtimes", "--json"], stdout=writing, stderr=subprocess.PIPE, text=True
    )
    os.close(writing)
    assert done.stderr == ""
    assert done.returncode == 1


def test_a_bug_is_told_without_a_traceback(project: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("layerbuild.target.runtimes", broken)
    ran = cli("runtimes")
    assert ran.code == 70
    assert "ZeroDivisionError: by zero" in ran.err
    assert "Traceback" not in ran.err
    told = cli("--debug", "runtimes")
    assert (told.code, "in broken\n" in told.err) == (70, True)


@pytest.mark.parametrize(("closing", "code"), [("recipes >&-", 0), ("make nope 2>&-", 2)])
def test_a_closed_stream_ends_no_command(project: Path, closing: str, code: int) -> None:
    done = subprocess.run(f"{sys.executable} -m layerbuild {closing}", shell=True, capture_output=True, text=True)
    assert done.returncode == code
    assert "Traceback" not in done.stderr


def test_a_terminal_that_knows_only_ascii_gets_the_table(project: Path) -> None:
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "40"}
    done = subprocess.run([sys.executable, "-m", "layerbuild", "runtimes"], env=env, capture_output=True, text=True)
    assert done.returncode == 0
    assert "\\u2026" in done.stdout


def test_the_target_can_be_set_by_a_variable(cli: Cli, demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAYERBUILD_MAKE_TARGET", "python3.12-arm64 python3.13-arm64")
    layers = cli("make", "demo", "--json").json["layers"]
    assert [layer["manifest"]["target"] for layer in layers] == ["python3.12-arm64", "python3.13-arm64"]


def test_a_usage_error_is_a_document_too(project: Path, cli: Cli) -> None:
    ran = cli("make", "--json", "--taget")
    assert ran.code == 2
    assert ran.json["error"]["code"] == "usage"
