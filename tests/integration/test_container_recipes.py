"""Recipes that need containers, in a real engine: built for real, used where nothing is but what Lambda has."""

from __future__ import annotations

import fnmatch
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile
from filelock import FileLock

from layerbuild.index import Index
from layerbuild.libraries import system_libraries
from layerbuild.recipe import shipped_folder
from layerbuild.target import Target, select_targets
from tests.conftest import Ran
from tests.containers import Recorder, tagged_base, write_quick_sdist, write_recipe, write_sdist
from tests.engine import docker, require_engine, run_in_runtime, run_program
from tests.index_server import IndexServer
from tests.integration.container_cases import CASES
from tests.interpreters import find_python
from tests.wheels import make_wheel, sha256_of

pytestmark = [pytest.mark.docker, pytest.mark.network]

ROOT = Path(__file__).parents[2]
TARGET = "python3.13-x86_64"
SITE = "python/lib/python3.13/site-packages"
WHEELS_ONLY = (
    ("requests", "numpy", "pillow", "pyyaml", "orjson"),
    ("cryptography", "jinja2", "redis", "lxml", "beautifulsoup4"),
)
BUILT_SO = "lbtest_c.cpython-313-x86_64-linux-gnu.so"


@pytest.fixture(autouse=True)
def _engine() -> None:
    require_engine()


@dataclass(frozen=True)
class Project:
    """A project folder and the cache that it uses, in which the program runs as a process of its own."""

    folder: Path
    cache: Path
    base: str

    def run(self, *words: str | Path, **env: str) -> Ran:
        command = [sys.executable, "-m", "layerbuild", *map(str, words)]
        variables = {**os.environ, "LAYERBUILD_CACHE_DIR": str(self.cache), "COLUMNS": "300", **env}
        done = subprocess.run(command, cwd=self.folder, env=variables, capture_output=True, text=True)
        return Ran(done.returncode, done.stdout, done.stderr)

    def make(self, *words: str | Path, target: str = TARGET, **env: str) -> Ran:
        """Makes layers; it must succeed."""
        ran = self.run("make", *words, "--target", target, "--base-image", self.base, **env)
        assert ran.code == 0, ran.err
        return ran

    def fails(self, *words: str | Path, target: str = TARGET, **env: str) -> Ran:
        """Makes a layer, which must be refused with exit code 3, and nothing written."""
        ran = self.run("make", *words, "--target", target, "--base-image", self.base, **env)
        assert ran.code == 3, (ran.out, ran.err)
        assert list(self.folder.glob("dist/*")) == []
        return ran

    def recorded(self, *words: str | Path, target: str = TARGET, **env: str) -> tuple[Ran, list[str]]:
        """Makes layers, and returns also what the engine was asked for."""
        with Recorder() as recorder:
            ran = self.make(*words, target=target, DOCKER_HOST=recorder.host, **env)
        return ran, recorder.requests

    def lock(self, recipe: str, *files: Path, target: str = TARGET) -> Path:
        """Writes a lock by hand, which pins what files are of."""
        hashes: dict[str, list[str]] = {}
        for file in files:
            name, version = file.name.removesuffix(".tar.gz").removesuffix(".zip").split("-")[:2]
            hashes.setdefault(f"{name}=={version}", []).append(f"--hash=sha256:{sha256_of(file)}")
        path = self.folder / "recipes" / recipe / "locks" / f"{target}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(f"{pin} {' '.join(found)}\n" for pin, found in hashes.items()))
        return path

    def archive(self, recipe: str, out: str = "dist", target: str = TARGET) -> Path:
        return self.folder / out / f"{recipe}-{target}.zip"

    def manifest(self, recipe: str, out: str = "dist", target: str = TARGET) -> Any:
        return json.loads(self.archive(recipe, out, target).with_suffix(".json").read_text())

    def clone(self, folder: Path) -> Project:
        """The same recipes and locks elsewhere, with a cache that is empty."""
        shutil.copytree(self.folder / "recipes", folder / "project" / "recipes")
        return replace(self, folder=folder / "project", cache=folder / "cache")


@pytest.fixture
def links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose files pip, uv and layerbuild find."""
    folder = tmp_path / "links"
    folder.mkdir()
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """An empty project."""
    return new_project(tmp_path)


def new_project(place: Path, *targets: str) -> Project:
    (place / "project").mkdir(parents=True)
    return Project(place / "project", place / "cache", tagged_base(*targets))


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for all tests of a session; with xdist, for all of its workers."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "container-recipes"


@dataclass(frozen=True)
class Sample:
    """One of `CASES`, made in this session: its project, what was printed, and what the engine was asked for."""

    project: Project
    err: str
    requests: list[str]


@pytest.fixture
def sample(shared: Path) -> Callable[[str], Sample]:
    """Makes one of `CASES`, once for all tests, with a cache that is empty before."""

    def make(name: str) -> Sample:
        place = shared / name
        project = Project(place / "project", place / "cache", tagged_base())
        shared.mkdir(exist_ok=True)
        with FileLock(shared / f"{name}.lock"):
            if not (place / "ran.json").exists():
                shutil.rmtree(place, ignore_errors=True)
                project.folder.mkdir(parents=True)
                write_recipe(project.folder, CASES[name].recipe)
                ran, requests = project.recorded(name, "--builder", CASES[name].builder)
                (place / "ran.json").write_text(json.dumps({"err": ran.err, "requests": requests}))
        return Sample(project, **json.loads((place / "ran.json").read_text()))

    return make


@pytest.fixture
def warm(sample: Callable[[str], Sample]) -> None:
    """The image without system packages is there: making it takes an index that has the tools."""
    sample("netifaces")


def one(target: str) -> Target:
    (found,) = select_targets([target])
    return found


def members(path: Path) -> dict[str, bytes]:
    """Every file of an archive."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def differing(first: Path, second: Path) -> list[str]:
    """What differs between two archives: their files, or else something of the archives themselves."""
    ours, theirs = members(first), members(second)
    found = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
    return found or ([] if first.read_bytes() == second.read_bytes() else ["the archive"])


def elf(content: bytes) -> ELFFile:
    return ELFFile(io.BytesIO(content))


# Real packages


@pytest.mark.parametrize("name", CASES)
def test_the_layer_has_what_it_needs_and_not_what_lambda_has(name: str, sample: Callable[[str], Sample]) -> None:
    case, project = CASES[name], sample(name).project
    checked = project.run("check", name, "--strict", "--json")
    files = members(project.archive(name))
    libraries = [path.removeprefix(f"{SITE}/") for path in files if ".libs/" in path or path.startswith("lib/")]
    # auditwheel puts a part of the file's hash into names, so that no two libraries of a process have one name.
    sonames = {re.sub(r"-[0-9a-f]{8}(?=\.)", "", path.rpartition("/")[2]) for path in libraries}
    sure = {soname for soname, known in system_libraries(one(TARGET)).items() if known.present and known.sure}

    assert (checked.code, checked.json["layers"][0]["findings"]) == (0, [])
    for pattern in case.brings:
        assert fnmatch.filter(libraries, pattern), (pattern, libraries)
    assert bool(libraries) == bool(case.brings)
    assert {"libc.so.6", "libm.so.6", "libz.so.1", "libgcc_s.so.1", "libstdc++.so.6"} <= sure
    doubled = [(known, file) for known in sure for file in sonames if f"{file}.".startswith(f"{known}.")]
    assert doubled == []


# In the other order, so that two workers do not wait for one layer.
@pytest.mark.parametrize("name", list(reversed(CASES)))
def test_the_layer_works_in_the_runtime(name: str, sample: Callable[[str], Sample]) -> None:
    archive = sample(name).project.archive(name)

    assert run_in_runtime(one(TARGET), archive, CASES[name].code) == CASES[name].says


def test_a_program_runs_by_its_name(sample: Callable[[str], Sample]) -> None:
    archive = sample("qpdf").project.archive("qpdf")

    assert run_program(one(TARGET), archive, ["qpdf", "--version"]).startswith(b"qpdf version 11.")
    assert run_program(one(TARGET), archive, ["qpdf", "--empty", "-"]).startswith(b"%PDF-1.")


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.built])
def test_the_manifest_says_what_it_was_built_of(name: str, sample: Callable[[str], Sample]) -> None:
    case, project = CASES[name], sample(name).project
    rows = {row["name"].lower(): row for row in project.manifest(name)["distributions"]}
    lock = (project.folder / "recipes" / name / "locks" / f"{TARGET}.txt").read_text()

    assert set(rows) == {*case.built, *case.fetched}
    for built in case.built:
        source = f"{built}-{rows[built]['version']}.tar.gz"
        (known,) = [file.sha256 for file in Index().files(built) if file.filename == source]
        assert rows[built]["source_sha256"] == known
        assert f"--hash=sha256:{known}" in lock
        assert rows[built]["sha256"] not in lock
    for fetched in case.fetched:
        assert "source_sha256" not in rows[fetched]
        assert f"--hash=sha256:{rows[fetched]['sha256']}" in lock


@pytest.mark.parametrize("name", CASES)
def test_all_files_are_the_users_and_modes_are_plain(name: str, sample: Callable[[str], Sample]) -> None:
    project = sample(name).project
    with zipfile.ZipFile(project.archive(name)) as archive:
        modes = {entry.filename: entry.external_attr >> 16 for entry in archive.infolist()}
        extras = [entry.filename for entry in archive.infolist() if entry.extra]
        dates = {entry.date_time for entry in archive.infolist()}
    places = [project.folder, project.cache, *project.folder.rglob("*"), *project.cache.rglob("*")]

    assert set(modes.values()) <= {0o100644, 0o100755}
    assert extras == []  # where zips keep owners
    assert dates == {(1980, 1, 1, 0, 0, 0)}
    assert [path for path, mode in modes.items() if path.startswith("bin/") and mode != 0o100755] == []
    assert {path.lstat().st_uid for path in places} == {os.getuid()}
    assert [path for path in places if path.lstat().st_mode & 0o002 or not os.access(path, os.W_OK)] == []


# What is built once


@pytest.mark.parametrize("name", ["psycopg2", "shapely", "qpdf"])
def test_what_was_built_is_kept(name: str, sample: Callable[[str], Sample]) -> None:
    project = sample(name).project

    _, requests = project.recorded(name, "--force", "--out", "again")

    assert differing(project.archive(name), project.archive(name, "again")) == []
    # Only for the id of the base image, which is not pinned by digest here.
    base = project.base.format(python="3.13", arch="x86_64")
    assert f"GET /images/{base}/json" in requests
    assert [text for text in requests if "/create" in text or "/start" in text or "/build" in text] == []


RECIPE = 'name = "kept"\nrequirements = ["lbtest-kept"]\n'


def test_what_decides_a_build_is_what_it_is_kept_by(project: Project, links: Path) -> None:
    code = "FILES['lbtest_env.py'] = f'LEVEL = {os.environ.get(\"LBTEST_LEVEL\")!r}'"
    write_recipe(project.folder, RECIPE)
    project.lock("kept", write_quick_sdist(links, "lbtest_kept", make_py=f"import os\n{code}"))

    def builds(extra: str = "", *words: str) -> int:
        """Makes the layer again, with some more in its recipe."""
        write_recipe(project.folder, RECIPE + extra)
        requests = project.recorded("kept", "--force", *words)[1]
        return requests.count("POST /containers/create")

    def level() -> bytes:
        return members(project.archive("kept"))[f"{SITE}/lbtest_env.py"]

    assert (builds(), level()) == (1, b"LEVEL = None")
    assert builds() == 0
    assert builds('environment = { LBTEST_LEVEL = "3" }\n') == 1
    assert level() == b"LEVEL = '3'"
    assert builds('environment = { LBTEST_LEVEL = "4" }\n') == 1
    assert builds("strip = true\n") == 1
    assert builds('build-constraints = ["setuptools<80"]\n') == 1
    # Nothing of these is seen by a build.
    assert builds('size-budget = "1 MB"\nscripts = true\nimports = ["lbtest_kept"]\n', "--build-memory", "2") == 0
    project.lock("kept", write_quick_sdist(links, "lbtest_kept", make_py="FILES['lbtest_env.py'] = 'LEVEL = 5'"))
    assert (builds(), level()) == (1, b"LEVEL = 5")
    assert builds() == 0


def test_build_constraints_hold_for_what_a_build_needs(project: Project, links: Path) -> None:
    sdist = write_sdist(links, "lbtest_bound", setup_py="from setuptools import setup\nsetup(py_modules=[])\n")
    write_recipe(
        project.folder,
        'name = "bound"\nrequirements = ["lbtest-bound"]\nbuild-constraints = ["setuptools<80"]\n',
    )
    project.lock("bound", sdist)
    generator = f"{SITE}/lbtest_bound-1.0.dist-info/WHEEL"

    project.make("bound", "--locked")
    with_network = members(project.archive("bound"))[generator]
    other = project.clone(project.folder.parent / "other")
    other.make("bound", "--locked", "--build-network", "none")

    assert re.search(rb"^Generator: setuptools \(7\d\.", with_network, re.MULTILINE), with_network
    assert differing(project.archive("bound"), other.archive("bound")) == []


def test_two_recipes_with_one_source_build_it_once(project: Project, links: Path) -> None:
    sdist = write_quick_sdist(links, "lbtest_twice")
    for name in ("one", "two"):
        write_recipe(project.folder, f'name = "{name}"\nrequirements = ["lbtest-twice"]\n')
        project.lock(name, sdist)

    _, requests = project.recorded("one", "two", "--locked")

    assert requests.count("POST /containers/create") == 1
    assert differing(project.archive("one"), project.archive("two")) == []


def test_programs_that_run_at_once_do_not_hinder_each_other(project: Project, links: Path, tmp_path: Path) -> None:
    write_recipe(project.folder, 'name = "busy"\nrequirements = ["lbtest-busy"]\n')
    project.lock("busy", write_quick_sdist(links, "lbtest_busy", make_py="import time; time.sleep(1)"))
    projects = [project.clone(tmp_path / str(number)) for number in range(4)]

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda one: one.make("busy", "--locked"), projects))

    assert [differing(projects[0].archive("busy"), other.archive("busy")) for other in projects] == [[]] * 4


# The same bytes


@pytest.mark.parametrize("name", CASES)
def test_two_builds_give_the_same_bytes_one_without_network(
    name: str, sample: Callable[[str], Sample], tmp_path: Path
) -> None:
    first = sample(name).project
    second = first.clone(tmp_path)

    _, requests = second.recorded(name, "--locked", "--build-network", "none")

    assert requests.count("POST /containers/create") == 1
    assert differing(first.archive(name), second.archive(name)) == []


def test_a_package_that_writes_the_time_of_day_is_found_to_differ(project: Project, links: Path) -> None:
    code = "import time\nFILES['lbtest_clock.py'] = f'BUILT = {time.time_ns()}'"
    write_recipe(project.folder, 'name = "clock"\nrequirements = ["lbtest-clock"]\n')
    project.lock("clock", write_quick_sdist(links, "lbtest_clock", make_py=code))
    other = project.clone(project.folder.parent / "other")

    project.make("clock", "--locked")
    other.make("clock", "--locked")

    record = f"{SITE}/lbtest_clock-1.0.dist-info/RECORD"
    assert differing(project.archive("clock"), other.archive("clock")) == [record, f"{SITE}/lbtest_clock.py"]


# Wheels by pip in a container


@pytest.mark.parametrize("names", WHEELS_ONLY, ids=lambda names: names[0])
def test_wheels_fetched_in_a_container_make_the_same_layer(names: Sequence[str], project: Project) -> None:
    other = replace(project, cache=project.cache.with_name("other"))
    for name in names:
        shutil.copytree(shipped_folder() / name, project.folder / "recipes" / name)

    project.make(*names, "--locked", "--builder", "host", "--out", "host")
    _, requests = other.recorded(*names, "--locked", "--builder", "container", "--out", "container")

    assert requests.count("POST /containers/create") == len(names)
    for name in names:
        assert differing(project.archive(name, "host"), project.archive(name, "container")) == [], name


def test_a_shared_layer_is_the_same_by_either_builder(tmp_path: Path) -> None:
    project = new_project(tmp_path, "python3.12-x86_64", TARGET)
    recipe = 'name = "web"\nrequirements = ["requests"]\nlayout = "shared"\n'
    write_recipe(project.folder, f'{recipe}targets = ["python3.12-x86_64", "{TARGET}"]\n')
    other = replace(project, cache=tmp_path / "other")

    project.make("web", "--builder", "host", "--out", "host", target="any")
    other.make("web", "--builder", "container", "--out", "container", target="any")

    host, container = (project.archive("web", out, "any") for out in ("host", "container"))
    assert differing(host, container) == []
    assert "python/requests/__init__.py" in members(container)
    code = "import requests; print(requests.__file__)"
    assert run_in_runtime(one(TARGET), container, code) == "/opt/python/requests/__init__.py\n"


@pytest.mark.parametrize("builder", ["host", "container"])
def test_a_wheel_that_the_base_could_load_and_the_runtime_not_is_left(
    builder: str, project: Project, links: Path
) -> None:
    wheels = [
        make_wheel(links, "lbtest-glibc", "1.0", {"lbtest_glibc.py": f"TAG = '{tag}'"}, tag=f"py3-none-{tag}_x86_64")
        for tag in ("manylinux_2_17", "manylinux_2_36")
    ]
    write_recipe(project.folder, 'name = "glibc"\nrequirements = ["lbtest-glibc"]\n')
    project.lock("glibc", *wheels)
    code = "import platform; print(platform.libc_ver()[1])"

    project.make("glibc", "--locked", "--builder", builder)

    base = project.base.format(python="3.13", arch="x86_64")
    assert docker("run", "--rm", "--entrypoint=python3.13", base, "-c", code) == b"2.36\n"
    assert members(project.archive("glibc"))[f"{SITE}/lbtest_glibc.py"] == b"TAG = 'manylinux_2_17'"


# Locks


def test_a_lock_made_in_a_container_is_the_hosts(project: Project) -> None:
    names = ("fastapi", "cryptography", "pandas", "sqlalchemy")
    made: dict[str, dict[str, list[str]]] = {}
    for name in names:
        write_recipe(project.folder, (shipped_folder() / name / "recipe.toml").read_text("utf-8"))
    for builder in ("host", "container"):
        ran = project.run(*("lock", *names, "--target", TARGET, "--builder", builder, "--base-image", project.base))
        assert ran.code == 0, ran.err
        places = {name: project.folder / "recipes" / name / "locks" / f"{TARGET}.txt" for name in names}
        made[builder] = {name: place.read_text("utf-8").splitlines() for name, place in places.items()}
        for place in places.values():
            place.unlink()

    for name in names:
        host, container = made["host"][name], made["container"][name]
        assert ("with uv" in host[0], "in a container" in container[0]) == (True, True)
        assert container[1:] == host[1:]
        assert len(host) > 5


def test_a_lock_says_that_it_was_made_in_a_container(sample: Callable[[str], Sample]) -> None:
    for name, built in (("psycopg2", True), ("qpdf", False)):
        project = sample(name).project
        path = project.folder / "recipes" / name / "locks" / f"{TARGET}.txt"
        assert ("in a container" in path.read_text("utf-8").splitlines()[0]) is built


def test_what_a_package_requires_in_turn_is_found_in_a_folder_of_this_machine(project: Project, links: Path) -> None:
    write_quick_sdist(links, "lbtest_outer", requires=["lbtest-inner"])
    write_quick_sdist(links, "lbtest_inner")
    write_recipe(project.folder, 'name = "deep"\nrequirements = ["lbtest-outer"]\n')

    ran = project.run("lock", "deep", "--target", TARGET, "--base-image", project.base)

    assert ran.code == 0, ran.err


def test_dependencies_that_a_build_works_out_are_those_of_the_targets_python(project: Project, links: Path) -> None:
    setup = """import sys
from setuptools import setup
setup(install_requires=["six" if sys.version_info[:2] == (3, 13) else "idna"], py_modules=[])
"""
    write_sdist(links, "lbtest_dynamic", setup_py=setup)
    write_recipe(project.folder, 'name = "dynamic"\nrequirements = ["lbtest-dynamic"]\n')

    ran = project.run("lock", "dynamic", "--target", TARGET, "--base-image", project.base)

    assert ran.code == 0, ran.err
    lock = (project.folder / f"recipes/dynamic/locks/{TARGET}.txt").read_text()
    assert re.findall(r"^([\w.-]+)==", lock, re.MULTILINE) == ["lbtest-dynamic", "six"]


# What is built, and what is not


def test_only_what_has_no_wheel_is_built(sample: Callable[[str], Sample]) -> None:
    made = sample("shapely")
    lines = made.err.splitlines()

    assert made.requests.count("POST /containers/create") == 1
    assert [line for line in lines if line.startswith("downloading numpy-") and line.endswith(".whl")]
    assert [line for line in lines if line.startswith("building ")] == [
        f"building shapely=={made.project.manifest('shapely')['distributions'][-1]['version']} for {TARGET}"
    ]


def test_of_a_wheel_and_a_source_only_the_source_goes_into_a_container(project: Project, links: Path) -> None:
    files = (write_quick_sdist(links, "lbtest_source"), make_wheel(links, "lbtest-wheel"))
    write_recipe(project.folder, 'name = "mixed"\nrequirements = ["lbtest-source", "lbtest-wheel"]\n')
    project.lock("mixed", *files)

    ran, requests = project.recorded("mixed", "--locked")

    assert requests.count("POST /containers/create") == 1
    assert re.findall(r"^building (\S+) for", ran.err, re.MULTILINE) == ["lbtest-source==1.0"]
    source, wheel = project.manifest("mixed")["distributions"]
    assert source["source_sha256"] == sha256_of(files[0])
    assert (wheel["sha256"], "source_sha256" in wheel) == (sha256_of(files[1]), False)
    code = "import lbtest_source, lbtest_wheel; print(lbtest_source.VERSION, lbtest_wheel.VERSION)"
    assert run_in_runtime(one(TARGET), project.archive("mixed"), code) == "1.0 1\n"


def test_of_two_source_archives_the_one_that_the_manifest_names_is_built(
    warm: None, project: Project, index_server: IndexServer, wheelhouse: Path
) -> None:
    made = {kind: f"FILES['lbtest_pair.py'] = '{kind}'" for kind in ("zip", "tar.gz")}
    for kind, code in made.items():
        sdist = write_quick_sdist(wheelhouse, "lbtest_pair", make_py=code)
        if kind == "zip":
            with tarfile.open(sdist) as source, zipfile.ZipFile(wheelhouse / "lbtest_pair-1.0.zip", "w") as archive:
                for member in source.getmembers():
                    archive.writestr(member.name, source.extractfile(member).read())  # type: ignore[union-attr]
    write_recipe(project.folder, 'name = "pair"\nrequirements = ["lbtest-pair"]\n')
    project.lock("pair", *wheelhouse.iterdir())

    project.make("pair", "--locked", "--build-network", "host")

    built = members(project.archive("pair"))[f"{SITE}/lbtest_pair.py"].decode()
    (row,) = project.manifest("pair")["distributions"]
    assert row["source_sha256"] == sha256_of(wheelhouse / f"lbtest_pair-1.0.{built}")


C_CODE = """
#include <Python.h>
#if defined(__OPTIMIZE__) && defined(NDEBUG)
#define FAST 1
#else
#define FAST 0
#endif
static PyObject *answer(PyObject *self, PyObject *none) { return PyLong_FromLong(42); }
static PyObject *fast(PyObject *self, PyObject *none) { return PyBool_FromLong(FAST); }
static PyMethodDef methods[] = {{"answer", answer, METH_NOARGS, ""}, {"fast", fast, METH_NOARGS, ""}, {0}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "lbtest_c", "", -1, methods};
PyMODINIT_FUNC PyInit_lbtest_c(void) { return PyModule_Create(&module); }
"""
C_SETUP = """from setuptools import Extension, setup
setup(ext_modules=[Extension("lbtest_c", ["lbtest_c.c"], extra_compile_args=["-g"])])
"""


def test_debug_sections_have_no_changing_paths_and_can_be_left_out(project: Project, links: Path) -> None:
    sdist = write_sdist(links, "lbtest_c", setup_py=C_SETUP, files={"lbtest_c.c": C_CODE})
    for name, strip in (("plain", "false"), ("stripped", "true")):
        write_recipe(project.folder, f'name = "{name}"\nrequirements = ["lbtest-c"]\nstrip = {strip}\n')
        project.lock(name, sdist)

    project.make("plain", "stripped", "--locked", "--jobs", "1")

    plain, stripped = (members(project.archive(name))[f"{SITE}/{BUILT_SO}"] for name in ("plain", "stripped"))
    sections = {section.name for section in elf(plain).iter_sections()}
    assert {".debug_info", ".debug_line"} <= sections
    dies = [unit.get_top_DIE() for unit in elf(plain).get_dwarf_info().iter_CUs()]
    folders = {die.attributes["DW_AT_comp_dir"].value.decode() for die in dies}
    assert all(folder.startswith("./") for folder in folders), folders
    assert b"/build/tmp" not in plain
    assert {section.name for section in elf(stripped).iter_sections()} == {
        name for name in sections if not name.startswith(".debug")
    }
    assert len(stripped) < len(plain)
    for name in ("plain", "stripped"):
        code = "import lbtest_c; print(lbtest_c.answer())"
        assert run_in_runtime(one(TARGET), project.archive(name), code) == "42\n"


def test_extensions_are_compiled_as_python_itself_was(project: Project, links: Path) -> None:
    sdist = write_sdist(links, "lbtest_c", setup_py=C_SETUP, files={"lbtest_c.c": C_CODE})
    write_recipe(project.folder, 'name = "fast"\nrequirements = ["lbtest-c"]\n')
    project.lock("fast", sdist)

    project.make("fast", "--locked")

    code = "import lbtest_c; print(lbtest_c.fast())"
    assert run_in_runtime(one(TARGET), project.archive("fast"), code) == "True\n"


# Other targets


def so_files(path: Path) -> dict[str, bytes]:
    return {name: content for name, content in members(path).items() if content.startswith(b"\x7fELF")}


@pytest.mark.parametrize(
    "target",
    [
        "python3.12-x86_64",
        "python3.11-x86_64",  # its base has Debian's own Python, and nothing in /var/lang
        pytest.param("python3.11-arm64", marks=pytest.mark.slow),  # by emulation
    ],
)
def test_other_targets_are_built_for(target: str, tmp_path: Path) -> None:
    project = new_project(tmp_path, target)
    write_recipe(project.folder, CASES["netifaces"].recipe)

    project.make("netifaces", target=target)

    archive = project.archive("netifaces", target=target)
    assert project.run("check", str(archive), "--strict").code == 0
    ((name, content),) = so_files(archive).items()
    version = target.removeprefix("python").partition("-")[0]
    machine = one(target).machine
    assert name.endswith(f"site-packages/netifaces.cpython-{version.replace('.', '')}-{machine}-linux-gnu.so")
    assert elf(content).header["e_machine"] == {"x86_64": "EM_X86_64", "aarch64": "EM_AARCH64"}[machine]
    if version == "3.12":  # Debian has no release with it to make a runtime of
        with zipfile.ZipFile(archive) as layer:
            layer.extractall(tmp_path / "opt")
        site = tmp_path / "opt/python/lib/python3.12/site-packages"
        command = [str(find_python(version)), "-S", "-c", "import netifaces; print(netifaces.interfaces())"]
        done = subprocess.run(command, env={"PYTHONPATH": str(site)}, capture_output=True, text=True)
        assert "'lo'" in done.stdout, done.stderr
    else:
        assert run_in_runtime(one(target), archive, CASES["netifaces"].code) == CASES["netifaces"].says


# What cannot be made


def test_packages_are_named_for_another_package_manager_only(project: Project) -> None:
    recipe = CASES["qpdf"].recipe.replace('apt = ["qpdf"], ', "")
    write_recipe(project.folder, recipe)

    ran = project.fails("qpdf")

    assert f"error: the build image layerbuild/{TARGET}:" in ran.err
    assert "[image-failed]" in ran.err
    assert "layerbuild: system-packages has no names for apt, the package manager of this base image" in ran.err


@pytest.mark.parametrize(
    ("source", "to", "cause"),
    [
        ("/usr/bin/lbtest-nothing", "bin/", "the image has no /usr/bin/lbtest-nothing"),
        ("/usr/share/lbtest-*/x", "share/", "the image has no /usr/share/lbtest-*/x"),
        ("/usr/bin/perl*", "bin/perl", "/usr/bin/perl* is several files: `to` must be a folder and end with /"),
    ],
)
def test_files_that_the_image_has_not(source: str, to: str, cause: str, project: Project) -> None:
    write_recipe(project.folder, f'name = "nothing"\n[[files]]\nfrom = "{source}"\nto = "{to}"\n')

    ran = project.fails("nothing")

    assert "error: nothing: what [[files]] asks for cannot be taken from the image [files-missing]" in ran.err
    assert cause in ran.err


def test_a_build_that_lacks_a_library_says_which_package_brings_it(project: Project, links: Path) -> None:
    setup = C_SETUP.replace("lbtest_c", "lbtest_needy")
    code = f"#include <libpq-fe.h>\n{C_CODE}"
    sdist = write_sdist(links, "lbtest_needy", setup_py=setup, files={"lbtest_needy.c": code})
    write_recipe(project.folder, 'name = "needy"\nrequirements = ["lbtest-needy"]\n')
    project.lock("needy", sdist)

    ran = project.fails("needy", "--locked")

    doc = (ROOT / "docs" / "containers.md").read_text("utf-8")
    blocks = dict(re.findall(r"<!-- ([^>]+) -->\n```\n(.*?)\n```", doc, re.DOTALL))
    lines = ran.err.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("error: "))
    assert lines[start] == blocks["failing build"]
    assert blocks["its hint"] in [line.strip() for line in lines[start:]]
    assert "libpq-fe.h: No such file or directory" in "\n".join(lines[start:])


# Files of the image


def test_files_and_folders_are_placed_as_the_recipe_says(project: Project) -> None:
    write_recipe(
        project.folder,
        """name = "several"
[[files]]
from = "/usr/bin/diff"
to = "bin/lbtest-diff"
[[files]]
from = "/usr/share/base-files"
to = "share/base"
[[files]]
from = "/usr/share/base-files"
to = "share/kept/"
[[files]]
from = "/usr/share/base-files/*.md5sums"
to = "share/"
[[files]]
from = "/usr/bin/awk"
to = "bin/"
""",
    )
    image = project.base.format(python="3.13", arch="x86_64")
    shell = ("run", "--rm", "--entrypoint=sh", image, "-ec")

    project.make("several")

    files = {
        name: text for name, text in members(project.archive("several")).items() if "/site-packages/" not in name
    }
    listed = docker(*shell, "cd /usr/share/base-files && find . -type f").decode().split()
    base = {text.removeprefix("./") for text in listed}
    sums = {f"share/{name}" for name in base if name.endswith(".md5sums")}
    # awk is a link to a link to mawk; neither program needs what Lambda has not.
    assert set(files) == sums | {"bin/lbtest-diff", "bin/awk"} | {
        f"share/{folder}/{name}" for folder in ("base", "kept/base-files") for name in base
    }
    assert docker(*shell, "cat /usr/bin/diff") == files["bin/lbtest-diff"]
    assert docker(*shell, "cat /usr/share/base-files/profile") == files["share/base/profile"]
    assert run_program(one(TARGET), project.archive("several"), ["awk", "BEGIN { print 6 * 7 }"]) == b"42\n"


# pip's settings


def test_a_build_uses_an_index_on_this_machine_and_gives_no_credential_away(
    warm: None, project: Project, index_server: IndexServer, wheelhouse: Path, tmp_path: Path
) -> None:
    user, password = "lbtest-user", "lbtest-s3cret"
    index_server.password = f"{user}:{password}"
    url = index_server.url.replace("://", f"://{user}:{password}@")
    make_wheel(wheelhouse, "lbtest-tool", "1.0", {"lbtest_tool.py": "WORD = 'tooled'"})
    code = "import lbtest_tool\nFILES['lbtest_private.py'] = f'WORD = {lbtest_tool.WORD!r}'"
    sdist = write_quick_sdist(wheelhouse, "lbtest_private", make_py=code, needs=["lbtest-tool"])
    write_recipe(project.folder, 'name = "private"\nrequirements = ["lbtest-private"]\n')

    ran, requests = project.recorded("private", "--build-network", "host", PIP_INDEX_URL=url)

    assert members(project.archive("private"))[f"{SITE}/lbtest_private.py"] == b"WORD = 'tooled'"
    assert "in a container" in (project.folder / f"recipes/private/locks/{TARGET}.txt").read_text()
    assert f"passed into containers: PIP_INDEX_URL={url.replace(f'{user}:{password}', '****')}" in ran.err
    assert index_server.requests.count(f"/files/{sdist.name}") > 0
    (image,) = {match[1] for text in requests if (match := re.match(r"GET /images/(layerbuild/.*)/json", text))}
    said = docker("inspect", image) + docker("history", "--no-trunc", "--format", "{{json .}}", image)
    volume = f"layerbuild-{TARGET}-lbtest-private"
    shell = ("--rm", "--user=root", "--volume", f"{volume}:/kept", "--network=none", image, "sh", "-c")
    kept = docker("run", *shell, "find /kept -type f -exec cat {} +")
    assert volume.encode() in docker("volume", "ls", "--quiet")
    assert image.encode() in said
    for place in (project.folder, project.cache):
        kept += b"".join(path.read_bytes() for path in place.rglob("*") if path.is_file())
    kept += b"".join(b"".join(members(path).values()) for path in project.folder.rglob("*.zip"))
    texts = {"output": (ran.out + ran.err).encode(), "image": said, "files": kept}
    for secret in (user, password):
        assert [what for what, text in texts.items() if secret.encode() in text] == []


def test_a_failing_build_gives_no_credential_away(
    warm: None, project: Project, index_server: IndexServer, wheelhouse: Path
) -> None:
    index_server.password = "lbtest-user:lbtest-s3cret"
    url = index_server.url.replace("://", f"://{index_server.password}@")
    shout = "import os\nprint(os.environ['PIP_INDEX_URL'], flush=True)\nraise SystemExit(os.environ['PIP_INDEX_URL'])"
    sdist = write_quick_sdist(wheelhouse, "lbtest_loud", make_py=shout)
    write_recipe(project.folder, 'name = "loud"\nrequirements = ["lbtest-loud"]\n')
    project.lock("loud", sdist)

    ran = project.fails("loud", "--locked", "--build-network", "host", PIP_INDEX_URL=url)

    assert "[build-failed]" in ran.err
    assert f"http://****@127.0.0.1:{index_server.port}/simple/" in ran.err
    assert "s3cret" not in ran.out + ran.err
