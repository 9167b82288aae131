"""What the data files say of Python is what real interpreters do, and what they say of libraries is consistent."""

from __future__ import annotations

import json
import subprocess
import tomllib
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import pytest

import layerbuild
from tests.interpreters import find_python

DATA = Path(layerbuild.__file__).parent
VERSIONS = ["3.9", "3.10", "3.11", "3.12", "3.13", "3.14"]
REAL = VERSIONS[:-1]


def load(name: str) -> dict[str, Any]:
    return tomllib.loads((DATA / name).read_text())


def expand(table: Mapping[str, Any], version: str) -> set[str]:
    """The names that a table of common, added and removed ones has for a version."""
    at = VERSIONS.index(version)
    added = [name for since, names in table["added"].items() if VERSIONS.index(since) <= at for name in names]
    kept = [name for until, names in table["removed"].items() if VERSIONS.index(until) > at for name in names]
    return {*table["common"], *added, *kept}


def ask(version: str, code: str, *arguments: str) -> Any:
    """What the code prints in a fresh interpreter, without the site-packages folder's hooks."""
    command = [str(find_python(version)), "-I", "-S", "-B", "-c", f"import json, sys\n{code}", *arguments]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.parametrize("version", REAL[1:])
def test_the_standard_library_is_what_the_interpreter_says(version: str) -> None:
    listed = expand(load("stdlib.toml"), version)
    found = set(ask(version, "print(json.dumps([*sys.stdlib_module_names]))"))
    assert listed - found == set()
    # A later patch version may have got a private module from the next minor version, as 3.13 got _apple_support.
    following = VERSIONS[VERSIONS.index(version) + 1]
    assert found - listed <= {name for name in expand(load("stdlib.toml"), following) if name.startswith("_")}


def test_the_standard_library_of_3_9_has_what_its_folders_have() -> None:
    code = """\
import pkgutil
folders = [entry for entry in sys.path if not entry.endswith(".zip")]
print(json.dumps([module.name for module in pkgutil.iter_modules(folders)] + [*sys.builtin_module_names]))"""
    found = set(ask("3.9", code))
    listed = expand(load("stdlib.toml"), "3.9")
    of_no_interest = ("_test", "_ctypes_test", "_xx", "xx", "test", "_sysconfigdata")
    assert {name for name in found - listed if not name.startswith(of_no_interest)} == set()
    # What is not there belongs to Windows, or was not compiled on this machine.
    elsewhere = {"msilib", "msvcrt", "nt", "winreg", "winsound"}
    optional = {"nis", "ossaudiodev", "readline"}
    assert {name for name in listed - found if not name.startswith("_")} <= elsewhere | optional


@pytest.mark.parametrize("version", REAL)
def test_a_file_takes_over_every_name_but_the_unshadowable(version: str, tmp_path: Path) -> None:
    if "math" in ask(version, "print(json.dumps(sys.builtin_module_names))"):
        pytest.skip("this build has more modules built in than CPython's own")
    for name in (names := expand(load("stdlib.toml"), version)):
        (tmp_path / f"{name}.py").touch()
    # Asks the import system itself, name by name, as too little is left to run with after an import of each.
    code = """\
folder, names = sys.argv[1], json.loads(sys.argv[2])
sys.path.insert(0, folder)
def origin(name):
    specs = (finder.find_spec(name, None) for finder in sys.meta_path)
    return next(spec.origin for spec in specs if spec)
print(json.dumps([name for name in names if not origin(name).startswith(folder)]))"""
    kept = ask(version, code, str(tmp_path), json.dumps(sorted(names)))
    assert set(kept) == expand(load("stdlib.toml")["unshadowable"], version)


@pytest.mark.parametrize("version", REAL)
@pytest.mark.parametrize("name", ["time", "_thread", "zipimport", "runpy", "ntpath", "json", "typing", "uuid"])
def test_an_import_gets_the_file_unless_the_name_is_unshadowable(version: str, name: str, tmp_path: Path) -> None:
    (tmp_path / f"{name}.py").write_text("IS_THE_FILE = True\n")
    done = subprocess.run(
        [find_python(version), "-S", "-B", "-c", f"import {name} as m; print(hasattr(m, 'IS_THE_FILE'))"],
        env={"PYTHONPATH": str(tmp_path)},  # first on sys.path from the very start
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(name not in expand(load("stdlib.toml")["unshadowable"], version))


@pytest.mark.parametrize("table", [(), ("unshadowable",)])
def test_a_module_comes_and_goes_at_most_once(table: tuple[str, ...]) -> None:
    data = load("stdlib.toml")
    for key in table:
        data = data[key]
    lists = [data["common"], *data["added"].values(), *data["removed"].values()]
    flat = [name for names in lists for name in names]
    assert len(flat) == len(set(flat))
    assert all(names == sorted(names) for names in lists)
    assert {*data["added"], *data["removed"]} <= {*VERSIONS[1:]}


def test_only_modules_of_the_standard_library_are_unshadowable() -> None:
    data = load("stdlib.toml")
    for version in VERSIONS:
        assert expand(data["unshadowable"], version) < expand(data, version)
        assert not {*data["runtime"]["modules"]} & expand(data, version)


def test_no_library_is_said_to_be_there_and_not_there() -> None:
    runtimes = {name: facts["os"] for name, facts in load("runtimes.toml")["runtimes"].items()}
    said: set[tuple[str, str, str]] = set()
    for entry in load("libraries.toml")["library"]:
        where = entry.get("runtimes") or [name for name, os in runtimes.items() if os in entry["on"]]
        assert where
        assert {*where} <= {*runtimes}
        for fact in product(entry["names"], where, entry.get("arch", ["x86_64", "arm64"])):
            assert fact not in said
            said.add(fact)


def test_each_library_has_a_source_and_each_missing_one_a_way_out() -> None:
    keys = {"names", "on", "runtimes", "arch", "present", "certainty", "source", "fix"}
    data = load("libraries.toml")
    for entry in data["library"]:
        assert {*entry} <= keys
        assert entry["source"]
        assert entry["certainty"] in {"verified", "documented", "observed", "inferred"}
        assert ("on" in entry) != ("runtimes" in entry)
        assert ("fix" in entry) != entry["present"]
    assert {*data["symbols"]} == {facts["os"] for facts in load("runtimes.toml")["runtimes"].values()}
