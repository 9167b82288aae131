"""The command line of `layerbuild profile`: tables, document, page, bytecode and sizes; modules that fail or talk."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from layerbuild.sandbox import MIB, Limits, smoke
from tests.conftest import Ran
from tests.interpreters import find_python
from tests.running import ARCH, no_traceback
from tests.trees import File, Folder, Spec, bytecode, dist, elf, write_folder, write_zip

TARGET = f"python3.13-{ARCH}"
SITE = "python/lib/python3.13/site-packages"
SOURCE = "VERSION = 1\n"

Cli = Callable[..., Ran]
Measured = Callable[..., dict[str, Any]]


def _record(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "required": list(properties), "properties": properties}


def _list(**properties: Any) -> dict[str, Any]:
    return {"type": "array", "items": _record(**properties)}


TEXT, COUNT, SECONDS = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "number", "minimum": 0}
BYTES_OR_NULL = {"type": ["integer", "null"], "minimum": 0}
TIMES = {"seconds": SECONDS, "without_bytecode": {"type": ["number", "null"], "minimum": 0}}
WHERE = {"name": TEXT, "package": {"type": ["string", "null"]}, "depth": COUNT, "compiled": {"type": "boolean"}}
DOCUMENT = _record(
    target={"const": TARGET},
    interpreter={"type": "string", "pattern": r"^3\.13\."},
    backend={"enum": ["namespace", "container", "process"]},
    runs={"type": "integer", "minimum": 1},
    layerbuild=TEXT,
    layers=_list(name=TEXT, zipped=BYTES_OR_NULL, unzipped=COUNT, budget=BYTES_OR_NULL),
    limits=_record(zipped={"const": 50 * MIB}, unzipped={"const": 250 * MIB}),
    sizes=_list(package=TEXT, version=TEXT, types=_record(py=COUNT, pyc=COUNT, so=COUNT, data=COUNT)),
    imports=_list(name=TEXT, modules=_list(**WHERE, self=SECONDS, cumulative=SECONDS), **TIMES),
    packages=_list(package=TEXT, modules=COUNT, **TIMES),
)


@pytest.fixture
def profile(project: Path, cli: Cli) -> Cli:
    """Profiles layers of the current folder."""
    find_python("3.13")

    def call(*arguments: str | Path, runs: int = 1) -> Ran:
        ran = cli("profile", "--target", TARGET, "--runs", str(runs), *arguments)
        no_traceback(ran.err)
        return ran

    return call


@pytest.fixture
def measured(profile: Cli) -> Measured:
    """The document of a profile, which fits its schema and itself."""

    def call(*arguments: str | Path, runs: int = 1) -> dict[str, Any]:
        ran = profile("--json", *arguments, runs=runs)
        assert ran.code == 0, ran
        jsonschema.validate(found := ran.json, DOCUMENT)
        _consistent(found)
        return dict(found)

    return call


def _consistent(found: dict[str, Any]) -> None:
    for rows in (one["modules"] for one in found["imports"]):
        assert all(after["depth"] <= before["depth"] + 1 for before, after in pairwise([{"depth": -1}, *rows]))
        for place, row in enumerate(rows):
            end = next((n for n in range(place + 1, len(rows)) if rows[n]["depth"] <= row["depth"]), len(rows))
            children = [r["cumulative"] for r in rows[place + 1 : end] if r["depth"] == row["depth"] + 1]
            # Each is rounded to whole microseconds.
            assert row["self"] + sum(children) == pytest.approx(row["cumulative"], abs=2e-6 * (len(children) + 1))
    packages, loaded = found["packages"], [row for one in found["imports"] for row in one["modules"]]
    assert packages == sorted(packages, key=lambda row: (-row["seconds"], row["package"]))
    named = {row["package"] for row in packages} - {"standard library", "other files"}
    assert named == {row["package"] for row in loaded} - {None}
    if len(found["imports"]) == 1:
        assert sum(row["modules"] for row in packages) == len({row["name"] for row in loaded})
        assert sum(row["seconds"] for row in packages) == pytest.approx(sum(row["self"] for row in loaded))
    sizes = [(-sum(row["types"].values()), row["package"]) for row in found["sizes"]]
    assert sizes == sorted(sizes)
    assert -sum(size for size, _ in sizes) == sum(layer["unzipped"] for layer in found["layers"])
    assert len({row["without_bytecode"] is None for row in (*found["imports"], *packages)}) == 1


def layer(name: str, files: dict[str, Spec], **more: Any) -> Path:
    """A layer in the current folder, of one distribution."""
    return write_zip(Path(f"{name}.zip"), dist(name, files=files, site=SITE, **more))


def single(source: str) -> tuple[Path, str, str]:
    return layer("demo", {"demo.py": source}), "--import", "demo"


def compiled(source: str = SOURCE) -> bytes:
    return bytecode("3.13", "unchecked-hash", source)


def alpha() -> Path:
    """A layer with a package of two modules, which is slow enough to be seen."""
    slow = "import time\ntime.sleep(0.05)\nfrom . import part\n"
    return layer("alpha", {"alpha/__init__.py": slow, "alpha/part.py": SOURCE})


def beta() -> Path:
    """A layer that needs that one; a module of it fails, which is caught."""
    catching = "try:\n    import failing\nexcept ImportError:\n    pass\n"
    return layer("beta", {"beta.py": catching, "failing.py": "import alpha\nimport missing\n"})


def modules(found: dict[str, Any]) -> list[tuple[str, str | None, int, bool]]:
    loaded = (row for one in found["imports"] for row in one["modules"])
    return [(row["name"], row["package"], row["depth"], row["compiled"]) for row in loaded]


def tables(ran: Ran) -> list[list[list[str]]]:
    assert ran.code == 0, ran
    return [[re.split("  +", line) for line in table.splitlines()] for table in ran.out.split("\n\n")]


def test_tables_show_one_import(profile: Cli) -> None:
    ran = profile(alpha(), "--import", "alpha")
    imports, packages, heaviest = tables(ran)
    assert imports[0] == ["import", "time", "no bytecode", "gain", "modules"]
    assert packages[0] == ["package, of all imports", "time", "no bytecode", "gain", "modules", "size"]
    assert heaviest[0] == ["heaviest module", "package", "itself", "with its imports"]
    assert all(re.fullmatch(r"\d+\.\d ms", row[1]) for row in (imports[1], packages[1]))
    assert (imports[1][2:], packages[1][2:]) == (["2"], ["2", "0 kB"])
    assert [row[:2] for row in heaviest[1:]] == [["alpha", "alpha"], ["alpha.part", "alpha"]]
    assert re.fullmatch(rf"importing on {TARGET}, CPython 3\.13\.\d+, in the \w+ backend\n", ran.err)


def test_tables_show_several_imports_and_what_bytecode_gains(profile: Cli) -> None:
    names = [f"m{number}" for number in range(12)]
    files: dict[str, Spec] = {f"{name}.py": SOURCE for name in names}
    many = layer("many", files | {f"__pycache__/{name}.cpython-313.pyc": compiled() for name in names})
    words = [word for name in names for word in ("--import", name)]
    imports, packages, heaviest = tables(profile(alpha(), many, "--import", "alpha", *words))
    assert [row[0] for row in imports[1:]] == ["alpha", *names]
    assert re.fullmatch(r"alpha \d+\.\d ms \d+\.\d ms \d+\.\dx 2", " ".join(imports[1]))
    assert {row[0] for row in packages[1:]} == {"alpha", "many"}
    times = [float(row[2].removesuffix(" ms")) for row in heaviest[1:]]
    assert (len(times), times, heaviest[1][0]) == (10, sorted(times, reverse=True), "alpha")


@pytest.mark.parametrize("backend", ["auto", "process"])
def test_the_document_of_layers_that_need_each_other(measured: Measured, backend: str) -> None:
    found = measured(alpha(), beta(), "--import", "beta", "--backend", backend)
    assert backend in ("auto", found["backend"])
    sizes = [(name, Path(name).stat().st_size) for name in ("alpha.zip", "beta.zip")]
    assert [(one["name"], one["zipped"]) for one in found["layers"]] == sizes
    below = [("failing", "beta", 1, True), ("alpha", "alpha", 2, True), ("alpha.part", "alpha", 3, True)]
    assert [row for row in modules(found) if row[0] != "missing"] == [("beta", "beta", 0, True), *below]
    one = found["imports"][0]
    assert (found["runs"], one["without_bytecode"], found["packages"][0]["package"]) == (1, None, "alpha")
    assert min(one["seconds"], one["modules"][0]["cumulative"]) >= 0.05


def test_times_are_medians_of_as_many_processes_as_are_asked_for(measured: Measured, project: Path) -> None:
    starts = project / "starts"
    slow_first = "    file.write('x')\n    file.tell() > 1 or time.sleep(0.4)\n"
    words = single(f"import time\nwith open({str(starts)!r}, 'a') as file:\n{slow_first}")
    for runs in (1, 3):
        found = measured(*words, "--backend", "process", runs=runs)
        assert (found["runs"], starts.stat().st_size) == (runs, runs + 1)
        assert (found["imports"][0]["seconds"] >= 0.4) == (runs == 1)
        starts.unlink()


def test_bytecode_is_measured_with_and_without(measured: Measured) -> None:
    large = "".join(f"def f{n}(a, b={n}):\n    return [a + b for _ in range({n})]\n" for n in range(2000))
    files: dict[str, Spec] = {"demo/__init__.py": f"from . import bare\n{large}", "demo/bare.py": SOURCE}
    files["demo/__pycache__/__init__.cpython-313.pyc"] = compiled(f"from . import bare\n{large}")
    found = measured(layer("demo", files), "--import", "demo")
    assert modules(found) == [("demo", "demo", 0, False), ("demo.bare", "demo", 1, True)]
    assert all(row["without_bytecode"] > 2 * row["seconds"] for row in (found["imports"][0], found["packages"][0]))


@pytest.mark.parametrize("write", [write_zip, write_folder])
def test_sizes_are_by_package_and_type(measured: Measured, write: Callable[..., Path]) -> None:
    native = elf("shared", "x86_64" if ARCH == "x86_64" else "aarch64")
    table = dist("demo", files={"demo.py": SOURCE, "demo/_x.so": native, "demo.libs/libx.so.1.2": native}, site=SITE)
    own = {"py": len(SOURCE), "pyc": len(compiled()), "so": 2 * len(native)}
    own["data"] = sum(len(str(spec)) for path, spec in table.items() if "dist-info" in path)
    table |= {f"{SITE}/__pycache__/demo.cpython-313.pyc": compiled(), f"{SITE}/loose.py": SOURCE}
    table |= {"bin/tool": File("12345", 0o755), "lib/libz.so": native}
    found = measured(write(Path("demo.zip"), table), "--import", "demo")
    rest = {"py": len(SOURCE), "pyc": 0, "so": len(native), "data": 5}
    sizes = {row["package"]: (row["version"], row["types"]) for row in found["sizes"]}
    assert sizes == {"demo": ("1.0", own), "other files": ("", rest)}
    assert (found["layers"][0]["zipped"] is None) == (write is write_folder)


def test_recipes_name_imports_and_budgets(measured: Measured, project: Path) -> None:
    recipe = 'name = "alpha"\nrequirements = ["alpha"]\nimports = ["alpha", "beta", "sys"]\nsize-budget = 5000\n'
    write_folder(project / "recipes/alpha", {"recipe.toml": recipe})
    Path("dist").mkdir()
    alpha().rename(f"dist/alpha-{TARGET}.zip")
    found = measured("alpha", beta())
    assert [one["name"] for one in found["imports"]] == ["alpha", "beta", "sys"]
    assert min(one["seconds"] for one in found["imports"][:2]) >= 0.05
    packages = {row["package"]: row["modules"] for row in found["packages"]}
    assert (found["imports"][2]["modules"], packages["alpha"], packages["beta"]) == ([], 2, 2)
    assert [one["budget"] for one in found["layers"]] == [5000, None]


def test_the_page_names_packages_and_loads_nothing(profile: Cli) -> None:
    hostile = layer("gamma", {"gamma.py": SOURCE}, version="1<script>")
    ran = profile(alpha(), hostile, "--import", "alpha", "--import", "gamma", "--html", "new/folder/page.html")
    assert (ran.code, "made new/folder/page.html" in ran.err) == (0, True), ran
    page = Path("new/folder/page.html").read_text("utf-8")
    assert all(word in page for word in ("alpha.zip", "1&lt;script&gt;", "import alpha", "import gamma", TARGET))
    assert not re.search(r"<(script|link|img|iframe|object|embed)\b|\b(src|href)=|url\(|@import|https?:", page)


DEMO = "demo.zip --import demo"
NO_MODULES = ("no.such", "demo.x", "..", "-c", "", "\udcff", "<b>", "\x1b[31m", "demo;sys", "a\u00a0b")
REFUSED = {
    "error": (DEMO, "raise ValueError('no luck')", 1, "ValueError: no luck"),
    "strange error": (DEMO, "raise ValueError('\\udcff\\x1b[31m')", 1, r"ValueError: \udcff\x1b[31m"),
    "exit": (DEMO, "import sys\nsys.exit(0)", 1, "SystemExit: 0"),
    "death": (DEMO, "import os\nos._exit(3)", 1, "it ended without a word (exit code 3)"),
    "signal": (DEMO, "import os\nos.kill(os.getpid(), 11)", 1, "it ended without a word (exit code -11)"),
    "no import": ("demo.zip", "", 2, "hint: say them: --import"),
    "no layer": ("--import demo", "", 2, "Missing argument 'LAYER...'"),
    "no such layer": ("gone.zip --import demo", "", 2, "gone.zip does not exist"),
    "no run": (f"{DEMO} --runs 0", "", 2, "'--runs': 0"),
    "folder as page": (f"{DEMO} --html .", "", 2, "'--html': File '.' is a directory"),
    **{f"import {name}": (f"{DEMO} --import {name}", "", 1, "Error: ") for name in NO_MODULES},
}


@pytest.mark.parametrize("backend", ["auto", "process"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_measured_is_told(profile: Cli, name: str, backend: str) -> None:
    words, source, code, error = REFUSED[name]
    single(source)
    ran = profile("--json", "--backend", backend, *words.split(" "))
    assert (ran.code, ran.json["error"]["exit_code"], error in ran.err) == (code, code, True), ran
    if code == 1:
        assert re.search(r"^error: .* does not import \[smoke-failed\]$", ran.err, re.MULTILINE)
        assert "hint: --import names other modules" in ran.err


@pytest.mark.parametrize("source", ["import time; time.sleep(60)", "x = b'x' * 2**30; import time; time.sleep(5)"])
def test_an_import_that_takes_too_much_is_told(profile: Cli, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.setattr(smoke, "LIMITS", Limits(seconds=2, memory=512 * MIB))
    assert re.search("demo does not import.*\n.*(second|memory)", profile(*single(source)).err)


LINES = "import sys\nfor line in {}:\n    print('import time:', line, file=sys.stderr)"
TALK: dict[str, str] = {
    "lines": LINES.format("'900 | 900 |       z', '1 | 1 | x', '1 | 1 |     c', '1 | 2 |   b', '1 | 3 | a'"),
    "answer": "import json\nprint(json.dumps({'imported': '', 'names': ['x'], 'times': '', 'code': 0}))",
    "5000 digits": LINES.format("['9' * 5000 + ' | 1 | x']"),
    "400 digits": LINES.format("['9' * 400 + ' | 1 | x']"),
    "depth": LINES.format("['1 | 1 | ' + '  ' * n + 'x' for n in range(1500, -1, -1)]"),
    "half a line": "import sys\nsys.stderr.write('loading... ')",
    "half a line, flushed": "import sys\nsys.stderr.write('loading... ')\nsys.stderr.flush()",
    "another stderr": "import io, sys\nsys.stderr = io.StringIO()",
    "no stderr": "import sys\nsys.stderr = None",
    "closed stderr": "import sys\nsys.stderr.close()",
}


@pytest.mark.parametrize("source", TALK.values(), ids=TALK.keys())
def test_what_a_module_writes_changes_no_report(measured: Measured, source: str) -> None:
    assert ("demo", "demo", 0, True) in modules(measured(*single(source)))


FORGED = (
    *("", "\\xff[1, 2", '{"items": 3}', '{"items": [["x", "y", ""]]}', "[" * 100_000),
    *('{"items": [["x", NaN, ""]]}', '{"items": [["x", ' + "9" * 400 + ', ""]]}'),
)


@pytest.mark.parametrize("report", FORGED, ids=lambda text: text[:30])
def test_a_forged_report_breaks_nothing(profile: Cli, report: str) -> None:
    ran = profile(*single(f"import os, sys\nos.write(int(sys.argv[2]), b'{report}')\nos._exit(0)"), "--json")
    assert (ran.code, ran.json.get("error", {}).get("code")) == (1, "smoke-failed")


def test_a_module_counts_once(measured: Measured) -> None:
    assert measured(alpha(), "--import", "alpha.part")["packages"][0]["modules"] == 2


@pytest.mark.parametrize("tag", ["cpython-312", "cpython-313.opt-1"])
def test_bytecode_that_is_not_read_is_none(measured: Measured, tag: str) -> None:
    made = layer("demo", {"demo.py": SOURCE, f"__pycache__/demo.{tag}.pyc": compiled()})
    assert modules(measured(made, "--import", "demo")) == [("demo", "demo", 0, True)]


def test_a_module_of_no_distribution_is_none_of_the_standard_library(measured: Measured) -> None:
    found = measured(write_zip(Path("loose.zip"), {"python/loose.py": SOURCE}), "--import", "loose")
    assert (modules(found)[0][3], found["packages"][0]["package"] != "standard library") == (True, True)


def test_an_extension_module_is_not_compiled(measured: Measured) -> None:
    library = find_python("3.13").resolve().parents[1] / "lib/python3.13/lib-dynload"
    place = next(library.glob("_heapq.*.so"), None)
    if place is None:
        pytest.skip("this CPython has no extension module to copy")
    files: dict[str, Spec] = {"demo.py": "".join(f"import p{number}._heapq\n" for number in range(24))}
    for number in range(24):
        files |= {f"p{number}/{place.name}": place.read_bytes(), f"p{number}/_heapq.py": SOURCE}
    found = modules(measured(layer("demo", files), "--import", "demo"))
    assert [row[0] for row in found if row[3]] == ["demo"]


def test_modules_without_a_source_are_measured(measured: Measured) -> None:
    assert modules(measured(layer("demo", {"demo.pyc": compiled()}), "--import", "demo"))[0][:2] == ("demo", "demo")


def test_folders_are_no_package(measured: Measured) -> None:
    found = measured(write_zip(Path("demo.zip"), {**dist(site=SITE), "python": Folder()}), "--import", "demo")
    assert [row["package"] for row in found["sizes"]] == ["demo"]


def test_a_stack_of_the_settings_is_profiled(measured: Measured) -> None:
    Path("layerbuild.toml").write_text(f'[stacks.one]\nlayers = ["{alpha()}"]\n')
    assert measured("one", "--import", "alpha")["layers"][0]["name"] == "alpha.zip"
