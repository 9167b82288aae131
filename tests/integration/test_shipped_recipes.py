"""The shipped recipes, with real wheels from the index that pip is configured to use."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from layerbuild.index import Index
from layerbuild.lock import parse_lock
from layerbuild.recipe import load_recipe, recipe_folders, shipped_folder
from layerbuild.resolve import add_hashes
from layerbuild.target import Target, select_targets
from tests.interpreters import find_python

ROOT = Path(__file__).parents[2]
RECIPES = sorted(recipe_folders(Path(os.devnull).parent))
OF_THE_INSTALLER = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")


def target(name: str) -> Target:
    (found,) = select_targets([name])
    return found


def run(*command: str | Path, cwd: Path | None = None, **env: str) -> str:
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache of wheels for all tests of a session; with xdist, for all of its workers."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "shared-cache"


@pytest.fixture
def made(tmp_path: Path, shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to make layers in, from the shipped recipes and the locks that come with them."""
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("LAYERBUILD_CACHE_DIR", str(shared_cache))
    return tmp_path / "empty"


def make(folder: Path, recipe: str, *targets: str) -> list[Path]:
    """Makes layers of a shipped recipe and returns their archives, in the order of the targets."""
    chosen = [word for name in targets for word in ("--target", name)]
    out = run(sys.executable, "-m", "layerbuild", "make", recipe, "--locked", "--json", *chosen, cwd=folder)
    return [folder / layer["path"] for layer in json.loads(out)["layers"]]


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def comparable(files: dict[str, bytes]) -> dict[str, bytes]:
    return {
        path: content
        for path, content in files.items()
        if not (path.split("/")[0].endswith(".dist-info") and path.split("/")[-1] in OF_THE_INSTALLER)
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["python3.12-x86_64", "python3.13-arm64"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_layout_is_what_pip_makes(recipe: str, name: str, made: Path) -> None:
    (archive,) = make(made, recipe, name)
    chosen = target(name)
    lock = shipped_folder() / recipe / "locks" / f"{name}.txt"
    platforms = [word for platform in chosen.platforms() for word in ("--platform", platform)]
    run(
        *(sys.executable, "-m", "pip", "install", "--quiet", "--target", made / "pip", "--no-deps", "--no-compile"),
        *("--require-hashes", "--only-binary", ":all:", "--implementation", "cp", *platforms),
        *("--python-version", chosen.runtime.name.removeprefix("python"), "-r", lock),
    )
    with zipfile.ZipFile(archive) as layer:
        layer.extractall(made / "layer")
    site = f"python/lib/{chosen.runtime.name}/site-packages"
    ours = tree(made / "layer")
    theirs = comparable(tree(made / "pip"))

    # pip puts scripts and data beside the packages, where layers have places of their own for them; and headers
    # under the version of the Python that it runs in, where layers have none.
    beside = {
        path.removeprefix("python/"): content for path, content in ours.items() if not path.startswith(f"{site}/")
    }
    expected = {
        path: content
        for path, content in theirs.items()
        if path not in beside and not path.startswith(("bin/", "include/"))
    }
    assert beside.items() <= theirs.items()
    actual = comparable(
        {path.removeprefix(f"{site}/"): content for path, content in ours.items() if path.startswith(site)}
    )
    assert sorted(actual) == sorted(expected)
    assert [path for path in expected if actual[path] != expected[path]] == []


IMPORTS = """\
import importlib, os, sys
sys.path[:] = [path for path in sys.path if "site-packages" not in path]
sys.path.insert(0, sys.argv[1])
for name in sys.argv[2:]:
    module = importlib.import_module(name)
    origin = os.path.realpath(module.__spec__.origin)
    assert origin.startswith(os.path.realpath(sys.argv[1])), (name, origin)
"""


@pytest.mark.slow
@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_layer_loads(recipe: str, version: str, made: Path) -> None:
    python = find_python(version)
    (archive,) = make(made, recipe, f"python{version}-x86_64")
    with zipfile.ZipFile(archive) as layer:
        layer.extractall(made / "opt")
    site = made / "opt" / "python" / "lib" / f"python{version}" / "site-packages"
    imports = load_recipe(recipe, made).imports
    assert imports
    run(python, "-I", "-S", "-B", "-c", IMPORTS, site, *imports, cwd=made)


# Their packages have markers on python_version (redis, anyio, psycopg), sys_platform (psycopg, pandas), and both.
@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["aws-lambda-powertools", "fastapi", "pandas", "psycopg", "redis", "sqlalchemy"])
def test_uv_pins_what_pip_compile_pins_on_the_target_itself(recipe: str, tmp_path: Path) -> None:
    # The interpreter that runs the tests would lock for its own version by pip-tools.
    version = "3.12" if sys.version_info[:2] != (3, 12) else "3.13"
    python = find_python(version)
    name = f"python{version}-x86_64"
    own = tmp_path / "recipes" / recipe
    own.mkdir(parents=True)
    shutil.copy(shipped_folder() / recipe / "recipe.toml", own)
    run(sys.executable, "-m", "layerbuild", "lock", recipe, "--target", name, cwd=tmp_path)
    lock = own / "locks" / f"{name}.txt"
    assert "with uv" in lock.read_text()
    ours = parse_lock(lock.read_text(), target(name))

    venv = tmp_path / "venv"
    run(python, "-m", "venv", venv)
    run(venv / "bin" / "python", "-m", "pip", "install", "--quiet", "pip-tools")
    (tmp_path / "requirements.in").write_text("\n".join(load_recipe(recipe, tmp_path).requirements) + "\n")
    run(
        *(venv / "bin" / "python", "-m", "piptools", "compile", "--quiet", "--strip-extras", "--allow-unsafe"),
        *("--no-emit-index-url", "--no-emit-find-links", "--no-emit-options", "--pip-args", "--only-binary :all:"),
        *("-o", "requirements.txt", "requirements.in"),
        cwd=tmp_path,
    )
    theirs = parse_lock(add_hashes((tmp_path / "requirements.txt").read_text(), Index()), target(name))
    assert ours.pins == theirs.pins


@pytest.mark.network
def test_a_marker_for_an_older_python_holds_in_its_lock(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text('importlib-metadata; python_version<"3.10"\nsix\n')
    for name in ("python3.9-x86_64", "python3.12-x86_64"):
        run(
            *(sys.executable, "-m", "layerbuild", "lock", "-r", "requirements.txt", "--name", "old"),
            *("--target", name),
            cwd=tmp_path,
        )
    old = (tmp_path / "locks" / "old" / "python3.9-x86_64.txt").read_text()
    new = (tmp_path / "locks" / "old" / "python3.12-x86_64.txt").read_text()
    assert "importlib-metadata==" in old
    assert "zipp==" in old
    assert "importlib-metadata==" not in new


@pytest.mark.slow
def test_two_fresh_clones_make_the_same_bytes_of_every_recipe(tmp_path: Path) -> None:
    digests = []
    for number in (1, 2):
        clone = tmp_path / f"clone-{number}" / ("deeper/" * number)
        clone.parent.mkdir(parents=True)
        run("git", "clone", "--quiet", ROOT, clone)
        out = run(
            *(sys.executable, "-m", "layerbuild", "-q", "make", "--all", "--locked", "--json"),
            cwd=clone,
            PYTHONPATH=str(clone),
            LAYERBUILD_CACHE_DIR=str(tmp_path / f"cache-{number}"),
        )
        layers = json.loads(out)["layers"]
        digests.append({layer["path"]: layer["manifest"]["code_sha256"] for layer in layers})
        shutil.rmtree(tmp_path / f"cache-{number}")
    assert len(digests[0]) == 8 * len(RECIPES)
    assert digests[0] == digests[1]


@pytest.mark.slow
def test_every_lock_fits_its_recipe() -> None:
    out = run(sys.executable, "-m", "layerbuild", "lock", "--all", "--check", "--json", cwd=ROOT)
    rows = json.loads(out)["locks"]
    assert len(rows) == 8 * len(RECIPES)
    assert all(row["fits"] for row in rows)


def test_there_are_at_least_the_promised_recipes() -> None:
    promised = (
        "pillow boto3 requests numpy pandas scipy cryptography pydantic pyyaml lxml orjson psycopg pymysql redis "
        "sqlalchemy fastapi beautifulsoup4 jinja2 pyjwt aws-lambda-powertools"
    )
    assert set(promised.split()) <= set(RECIPES)
