"""The same recipe and lock give the same bytes, wherever, whenever and by whichever Python."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

import pytest

from tests.index_server import IndexServer
from tests.integration.test_faults import contents
from tests.wheels import make_wheel, sha256_of

CHECKOUT = Path(__file__).parents[2]
DEPENDENCIES = (
    *("click", "packaging", "pathspec", "requests", "urllib3", "idna", "certifi", "charset-normalizer"),
    *("platformdirs", "rich", "pip"),
)
TARGETS = ("python3.12-x86_64", "python3.13-arm64")
RECIPES = {
    "plain": '"naive-free"',
    "pruned": '"big", "naive-free"',
    "scripts": '"tool", "big"',
    "everywhere": '"tool", "big", "naive-free"',
}
EXTRAS = {
    "pruned": '[prune]\nsets = ["tests", "stubs"]\npatterns = ["big/docs/", "*.txt", "!keep.txt"]\n',
    "scripts": "scripts = true\n",
    "everywhere": 'scripts = true\nlayout = "shared"\n',
}


@dataclass(frozen=True)
class Sample:
    """A project with locks, the index that has its wheels, and what is built from it."""

    project: Path
    wheelhouse: Path
    server: IndexServer
    warm_cache: Path
    right: dict[str, bytes]


def build(
    project: Path,
    *arguments: str,
    python: str = sys.executable,
    prefix: tuple[str, ...] = (),
    env: dict[str, str] | None = None,
) -> dict[str, bytes]:
    """Makes all layers of a project in a process of its own and returns every file of its dist."""
    command = [*prefix, python, "-m", "layerbuild", "make", "--all", "--locked", "--force", *arguments]
    shutil.rmtree(project / "dist", ignore_errors=True)
    done = subprocess.run(command, cwd=project, env={**os.environ, **(env or {})}, capture_output=True)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return contents(project / "dist")


def write_wheels(folder: Path) -> None:
    """Three wheels with everything that a recipe can do something to."""
    noise = random.Random(3)
    make_wheel(
        folder,
        "big",
        "2.0",
        {
            "big/__init__.py": "x = 1\n" * 500,
            "big/lib.so": noise.randbytes(300_000),
            "big/tests/test_big.py": "assert True\n",
            "big/docs/index.rst": "Big\n",
            "big/notes.txt": "drop\n",
            "big/keep.txt": "keep\n",
            "big-2.0.data/data/share/big.conf": "a = 1\n",
        },
        executable=["big/lib.so"],
    )
    make_wheel(
        folder,
        "tool",
        "1.5",
        {"tool.py": "def main(): pass\n", "tool-1.5.data/scripts/run-tool": "#!python\nprint(1)\n"},
        requires=["big"],
        entry_points="[console_scripts]\ntool = tool:main\na-tool = tool:main\n",
    )
    members = {f"words/{name}.py": "x = 'ß'\n" for name in ("naïve", "Ωmega", "日本語", "z", "A", "a")}
    make_wheel(folder, "naive-free", "0.1", members, compression=zipfile.ZIP_STORED)


def write_project(project: Path, wheelhouse: Path) -> None:
    """The recipes and their locks."""
    for name, requirements in RECIPES.items():
        folder = project / "recipes" / name
        (folder / "locks").mkdir(parents=True)
        targets = "[" + ", ".join(f'"{target}"' for target in TARGETS) + "]"
        text = f'name = "{name}"\nrequirements = [{requirements}]\ntargets = {targets}\n{EXTRAS.get(name, "")}'
        (folder / "recipe.toml").write_text(text, "utf-8")
        lines = []
        for wheel in sorted(wheelhouse.glob("*.whl")):
            distribution_name, version = wheel.name.split("-")[:2]
            if distribution_name.replace("_", "-") in requirements:
                lines.append(f"{distribution_name}=={version} --hash=sha256:{sha256_of(wheel)}\n")
        for target in TARGETS:
            (folder / "locks" / f"{target}.txt").write_text("".join(lines))


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sample]:
    root = tmp_path_factory.mktemp("reproducible")
    wheelhouse, project, cache = root / "wheelhouse", root / "project", root / "cache"
    write_wheels(wheelhouse)
    write_project(project, wheelhouse)
    server = IndexServer(wheelhouse)
    with pytest.MonkeyPatch.context() as monkeypatch:
        only_these(monkeypatch, server, cache)
        right = build(project)
    yield Sample(project, wheelhouse, server, cache, right)
    server.stop()


def only_these(monkeypatch: pytest.MonkeyPatch, server: IndexServer, cache: Path) -> None:
    """Lets nothing but an index and a cache decide."""
    for name in list(os.environ):
        if name.startswith(("PIP_", "LAYERBUILD_", "SOURCE_DATE_EPOCH")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", server.url)
    monkeypatch.setenv("LAYERBUILD_CACHE_DIR", str(cache))


@pytest.fixture(params=["warm", "cold"])
def project(request: pytest.FixtureRequest, sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the sample project elsewhere, with a cache that has everything or nothing."""
    project = tmp_path / "elsewhere"
    shutil.copytree(sample.project, project, ignore=shutil.ignore_patterns("dist"))
    if request.param == "warm":
        shutil.copytree(sample.warm_cache, tmp_path / "cache")
    only_these(monkeypatch, sample.server, tmp_path / "cache")
    return project


def test_the_sample_has_what_it_should(sample: Sample) -> None:
    names = {}
    for name in sample.right:
        if name.endswith(".zip"):
            with zipfile.ZipFile(sample.project / "dist" / name) as archive:
                assert archive.testzip() is None
                names[name.removesuffix(".zip")] = set(archive.namelist())
    site = "python/lib/python3.12/site-packages"
    assert len(names) == 7
    assert f"{site}/words/日本語.py" in names["plain-python3.12-x86_64"]
    assert {"bin/tool", "bin/a-tool", "bin/run-tool"} <= names["scripts-python3.12-x86_64"]
    assert "python/words/naïve.py" in names["everywhere-any"]
    pruned = names["pruned-python3.12-x86_64"]
    assert f"{site}/big/keep.txt" in pruned
    assert not {f"{site}/big/{gone}" for gone in ("notes.txt", "tests/test_big.py", "docs/index.rst")} & pruned


@pytest.mark.parametrize(
    "env",
    [
        {"TZ": "Asia/Tokyo"},
        {"TZ": "America/St_Johns"},
        {"LANG": "C", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        {"LANG": "de_DE.UTF-8", "LC_ALL": "de_DE.UTF-8"},
        {"LC_ALL": "tr_TR.ISO-8859-9", "PYTHONUTF8": "0"},
        {"PYTHONHASHSEED": "0"},
        {"PYTHONHASHSEED": "4294967295"},
        {"PYTHONOPTIMIZE": "2", "COLUMNS": "40", "NO_COLOR": "1"},
        {"LAYERBUILD_MAKE_JOBS": "1"},
    ],
    ids=str,
)
def test_the_environment_does_not_matter(sample: Sample, project: Path, env: dict[str, str]) -> None:
    assert build(project, env=env) == sample.right


@pytest.mark.parametrize("jobs", ["1", "8"])
def test_the_number_of_jobs_does_not_matter(sample: Sample, project: Path, jobs: str) -> None:
    assert build(project, "--jobs", jobs) == sample.right


@pytest.mark.parametrize("mask", [0o077, 0o002])
def test_the_umask_does_not_matter(sample: Sample, project: Path, mask: int) -> None:
    old = os.umask(mask)
    try:
        assert build(project) == sample.right
    finally:
        os.umask(old)
    for path in (project / "dist").iterdir():
        assert path.stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.skipif(not shutil.which("taskset"), reason="there is no taskset")
def test_the_number_of_cores_does_not_matter(sample: Sample, project: Path) -> None:
    assert build(project, prefix=("taskset", "-c", str(min(os.sched_getaffinity(0))))) == sample.right


@pytest.mark.parametrize("name", ["with blank", "Ünïcödé 日本", "d/e/e/p"])
@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_the_folder_does_not_matter(sample: Sample, project: Path, tmp_path: Path, name: str, locale: str) -> None:
    there = tmp_path / name
    there.parent.mkdir(parents=True, exist_ok=True)
    project.rename(there)

    assert build(there, env={"LC_ALL": locale}) == sample.right


@pytest.mark.parametrize("date", [0, 1_000_000_000, 4_000_000_000])
def test_dates_of_files_do_not_matter(sample: Sample, project: Path, tmp_path: Path, date: int) -> None:
    cache = tmp_path / "cache"
    for path in [*project.rglob("*"), *cache.rglob("*"), *sample.wheelhouse.iterdir()]:
        os.utime(path, (date, date))

    assert build(project) == sample.right


def test_the_order_in_which_downloads_arrive_does_not_matter(
    sample: Sample, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The one large wheel now comes last of all.
    monkeypatch.setattr(sample.server, "chunk_delay", 0.1)

    assert build(project) == sample.right


@pytest.fixture(scope="module")
def dependencies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The running environment's pure dependencies alone, for any interpreter to import."""
    folder = tmp_path_factory.mktemp("dependencies")
    for name in DEPENDENCIES:
        found = distribution(name)
        for top in {file.parts[0] for file in found.files or () if ".." not in file.parts and len(file.parts)}:
            link = folder / top
            if top != "__pycache__" and not link.exists():
                link.symlink_to(Path(str(found.locate_file(top))).absolute())
    return folder


def interpreter(version: str) -> str:
    """A Python of that version, wherever one usually is."""
    home = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = [*map(str, sorted(home.glob(f"versions/{version}.*/bin/python"))), f"python{version}"]
    for candidate in filter(shutil.which, candidates):
        code = "import sys, zlib, ssl; print('%d.%d' % sys.version_info[:2])"
        done = subprocess.run([candidate, "-c", code], capture_output=True, text=True)
        if done.stdout.strip() == version:
            return candidate
    pytest.skip(f"there is no Python {version}")


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
def test_the_python_does_not_matter(
    sample: Sample, project: Path, tmp_path: Path, dependencies: Path, version: str
) -> None:
    python = interpreter(version)
    paths = os.pathsep.join([str(CHECKOUT), str(dependencies)])
    # Compiled modules of one Python are not to lie in another's environment.
    env = {"PYTHONPATH": paths, "PYTHONPYCACHEPREFIX": str(tmp_path / "pycache"), "PYTHONNOUSERSITE": "1"}

    assert build(project, python=python, env=env) == sample.right


def test_every_file_is_dated_1980_unless_asked_otherwise(sample: Sample) -> None:
    assert read_dates(sample.project) == [{(1980, 1, 1, 0, 0, 0)}] * 7


def read_dates(project: Path) -> list[set[tuple[int, ...]]]:
    """The dates in each archive."""
    dates: list[set[tuple[int, ...]]] = []
    for path in sorted((project / "dist").glob("*.zip")):
        with zipfile.ZipFile(path) as archive:
            dates.append({info.date_time for info in archive.infolist()})
    return dates


@pytest.mark.parametrize(
    ("epoch", "date"),
    [
        ("1700000000", (2023, 11, 14, 22, 13, 20)),
        ("0", (1980, 1, 1, 0, 0, 0)),
        ("99999999999", (2107, 12, 31, 23, 59, 58)),
    ],
)
def test_source_date_epoch_changes_dates_and_nothing_else(
    sample: Sample, project: Path, epoch: str, date: tuple[int, ...]
) -> None:
    dated = build(project, env={"SOURCE_DATE_EPOCH": epoch, "TZ": "Asia/Tokyo"})

    assert read_dates(project) == [{date}] * 7
    assert dated == build(project, env={"SOURCE_DATE_EPOCH": epoch, "TZ": "America/St_Johns"})
    for name, right in sample.right.items():
        if name.endswith(".json"):
            told, expected = json.loads(dated[name]), json.loads(right)
            for key in ("code_sha256", "inputs_digest", "digest"):
                told.pop(key), expected.pop(key)
            assert told == expected
        elif epoch == "0":
            assert dated[name] == right
        else:
            assert dated[name] != right
            assert without_dates(project / "dist" / name) == without_dates(sample.project / "dist" / name)


def without_dates(path: Path) -> list[tuple[str, int, int, int, bytes]]:
    """All that an archive says but for its dates."""
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        return [
            (info.filename, info.external_attr, info.compress_type, info.header_offset, archive.read(info))
            for info in infos
        ]


@pytest.mark.parametrize("epoch", ["soon", "-1", "1.5"])
def test_a_source_date_epoch_that_is_no_number_is_refused(project: Path, epoch: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "layerbuild", "make", "plain"],
        cwd=project, env={**os.environ, "SOURCE_DATE_EPOCH": epoch}, capture_output=True, text=True,
    )  # fmt: skip

    assert done.returncode == 2
    assert "SOURCE_DATE_EPOCH" in done.stderr
    assert not (project / "dist").exists()
