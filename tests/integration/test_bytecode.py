"""Bytecode in layers: the same bytes wherever it is compiled, of use to a real CPython, and never in the way."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from layerbuild import bytecode
from layerbuild.cache import Cache
from layerbuild.interpreters import Interpreter, find_interpreter
from layerbuild.sandbox import SandboxFile, choose
from layerbuild.sandbox.namespace import Namespace
from layerbuild.sandbox.smoke import Imported, run_imports
from layerbuild.target import Target, select_targets
from tests.conftest import Ran
from tests.containers import tagged_base
from tests.engine import require_engine
from tests.integration.test_smoke_recipes import (  # noqa: F401 - two are fixtures
    TARGET,
    TWIN,
    VERSION,
    Demo,
    demo,
    hidden,
    need_namespaces,
)
from tests.interpreters import find_python
from tests.wheels import make_wheel, sha256_of

SITE = f"python/lib/python{VERSION}/site-packages"
TAG = f"cpython-{VERSION.replace('.', '')}"
ALL = ("--smoke", "off", "--bytecode", "all", "--force")
IMPORTS = ("--smoke", "require", "--bytecode", "imports", "--force")
HEADER = struct.Struct("<HHI8s")
UNCHECKED_HASH = 1


def target_of(name: str) -> Target:
    (found,) = select_targets([name])
    return found


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The modules that have been compiled, in the order in which that was asked for."""
    found: list[str] = []
    original = bytecode._run

    def counted(members: Sequence[Any], compiler: bytecode.Compiler) -> list[tuple[str, bytes]]:
        found.extend(file.path.removeprefix(f"{SITE}/") for file in members)
        return original(members, compiler)

    monkeypatch.setattr(bytecode, "_run", counted)
    return found


def archive(demo: Demo, out: str = "dist") -> Path:
    return demo.project / out / f"demo-{demo.target}.zip"


def make(demo: Demo, *words: str) -> bytes:
    """Makes the layer; the bytes of its archive."""
    ran = demo.make(*words)
    assert ran.code == 0, ran.err
    return archive(demo).read_bytes()


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as opened:
        names = opened.namelist()
        assert len(names) == len(set(names))
        assert opened.testzip() is None
        return {name: opened.read(name) for name in names}


def modules(path: Path) -> list[str]:
    """The modules of an archive that are compiled, as paths of their sources below site-packages."""
    names = [name.removeprefix(f"{SITE}/") for name in members(path) if name.endswith(".pyc")]
    return [re.sub(r"__pycache__/(.*?)\.cpython-\d+\.pyc$", r"\1.py", name) for name in names]


def pyc(module: str) -> str:
    folder, _, name = f"{SITE}/{module}".rpartition("/")
    return f"{folder}/__pycache__/{name.removesuffix('.py')}.{TAG}.pyc"


def many_modules() -> dict[str, str | bytes]:
    """A wheel's worth of modules with what compilers write: constants, sets, names that they share."""
    noise = random.Random(5)
    words = ["timeout", "name", "path", "source", "data", "offset", "größe", "x", "self", "files", "json", "read"]
    files: dict[str, str | bytes] = {"demo/__init__.py": "from demo import m000\n"}
    for number in range(150):
        some = noise.sample(words, 6)
        lines = [
            f'"""Module {number}."""',
            "import os, json",
            f"VALUES = ({number}, {number / 7}, 1e300, -1j, b'{number}')",
        ]
        for nth in range(noise.randrange(1, 30)):
            one, two, *rest = noise.sample(words, 5)
            lines += [
                f"def f{nth}({one}, *, {two}=None):",
                f"    'About {one}.'",
                f"    if {one} in {{{', '.join(map(repr, some))}, None, {nth}, 'only {number}'}}:",
                f"        return [{two} for {two} in ({', '.join(map(repr, rest))}, ..., True) if {two} != {one}]",
                f"    return f'{{{one}!r}} {{{two}:>{nth}}}', lambda {rest[0]}: {rest[0]} + {number * 10**nth}",
                f"class C{nth}(dict):",
                f"    {one}: 'int' = {nth}",
                "    def __init__(self): super().__init__()",
            ]
        files[f"demo/m{number:03}.py"] = "\n".join(lines) + "\n"
    return files


# The same bytes


OTHERWISE: dict[str, dict[str, str]] = {
    "hash seed": {"PYTHONHASHSEED": "12345"},
    "no hash seed": {"PYTHONHASHSEED": "random"},
    "optimized": {"PYTHONOPTIMIZE": "2"},
    "flags": {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONDEBUG": "1", "PYTHONINSPECT": "", "PYTHONVERBOSE": "1"},
    "warnings": {"PYTHONWARNINGS": "error"},
    "malloc": {"PYTHONMALLOC": "malloc", "MALLOC_ARENA_MAX": "1"},
    "tracing": {"PYTHONTRACEMALLOC": "5", "PYTHONPROFILEIMPORTTIME": "1", "PYTHONFAULTHANDLER": "1"},
    "locale": {"LC_ALL": "C", "LANG": "tr_TR.UTF-8", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "encoding": {"PYTHONIOENCODING": "utf-16"},
    "home": {"HOME": "/nonexistent", "TZ": "Asia/Tokyo"},
    "prefix": {"PYTHONPYCACHEPREFIX": "/tmp/lbtest", "PYTHONSAFEPATH": "1", "PYTHONNODEBUGRANGES": "1"},
}


_made: list[bytes] = []


@pytest.fixture
def right(demo: Demo) -> bytes:
    """The archive of a layer with many modules, all of them compiled; made once."""
    demo.write(many_modules())
    if not _made:
        _made.append(make(demo, *ALL))
        assert len(modules(archive(demo))) == 151
    return _made[0]


@pytest.mark.parametrize("name", OTHERWISE)
def test_the_environment_changes_nothing(
    name: str, demo: Demo, right: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in OTHERWISE[name].items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("LAYERBUILD_CACHE_DIR", str(tmp_path / "other"))

    assert make(demo, *ALL) == right


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_portions_change_nothing(
    size: int, demo: Demo, right: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bytecode, "_PART", size)
    monkeypatch.setenv("LAYERBUILD_CACHE_DIR", str(tmp_path / "other"))

    assert make(demo, *ALL) == right


def test_order_changes_nothing(demo: Demo, right: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = bytecode._parts

    def shuffled(files: Sequence[Any]) -> list[Sequence[Any]]:
        return original(random.Random(9).sample(files, len(files)))

    monkeypatch.setattr(bytecode, "_parts", shuffled)
    monkeypatch.setenv("LAYERBUILD_CACHE_DIR", str(tmp_path / "other"))

    assert make(demo, *ALL) == right


@pytest.mark.parametrize("count", [None, 1, 16])
def test_cores_change_nothing(
    count: int | None, demo: Demo, right: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: count)
    monkeypatch.setattr(bytecode, "_PART", 20)
    monkeypatch.setenv("LAYERBUILD_CACHE_DIR", str(tmp_path / "other"))

    assert make(demo, *ALL) == right


def test_another_place_mask_and_temporary_folder_change_nothing(
    demo: Demo, right: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "elsewhere ü" / ("deeper/" * 3)
    (place.parent / "tmp").mkdir(parents=True)
    shutil.copytree(demo.project, place, ignore=shutil.ignore_patterns("dist"))
    monkeypatch.chdir(place)
    monkeypatch.setenv("TMPDIR", str(place.parent / "tmp"))
    monkeypatch.setenv("LAYERBUILD_CACHE_DIR", str(tmp_path / "other"))
    mask = os.umask(0o077)
    try:
        assert make(replace(demo, project=place), *ALL) == right
    finally:
        os.umask(mask)


def test_sets_of_older_pythons_are_the_same_each_time(demo: Demo, tmp_path: Path) -> None:
    """Before 3.11, marshal writes them in their own order, and None's hash is its address, which is random."""
    python = find_python("3.10")
    demo.write({"demo.py": "def f(x):\n    return x in {None, 'a', 'b', 3, ..., b'q', 1.5, (None, 2)}\n" * 5})
    lock = demo.project / "recipes" / "demo" / "locks" / f"{TARGET}.txt"
    shutil.copy(lock, lock.with_name("python3.10-x86_64.txt"))
    old = replace(demo, target="python3.10-x86_64")
    made = set()
    for number in range(8):
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setenv("PATH", str(python.parent))
            monkeypatch.setenv("LAYERBUILD_CACHE_DIR", str(tmp_path / f"cache-{number}"))
            made.add(make(old, *ALL))

    # Left out, as no seed decides their order.
    assert old.manifest()["bytecode"]["files"] == 0
    assert len(made) == 1


def test_how_it_came_to_be_chosen_changes_nothing_of_a_module(demo: Demo) -> None:
    demo.write(many_modules())
    make(demo, *ALL)
    everything = members(archive(demo))
    make(demo, *IMPORTS)
    few = {name: data for name, data in members(archive(demo)).items() if not name.endswith("/RECORD")}

    assert 2 <= len(modules(archive(demo))) < 151
    assert few.items() <= everything.items()


@pytest.mark.network
def test_a_real_wheel_is_the_same_each_time(project: Path, cli: Callable[..., Ran], tmp_path: Path) -> None:
    find_python(VERSION)
    words = ("make", "boto3", "--locked", "--target", TARGET, *ALL)
    digests = []
    for variables in ({}, {"PYTHONHASHSEED": "77", "LC_ALL": "C", "PYTHONOPTIMIZE": "1", "PYTHONMALLOC": "debug"}):
        with pytest.MonkeyPatch.context() as monkeypatch:
            for name, value in variables.items():
                monkeypatch.setenv(name, value)
            monkeypatch.setattr(bytecode, "_PART", 64 - 40 * bool(variables))
            ran = cli(*words, "--json")
        assert ran.code == 0, ran.err
        manifest = ran.json["layers"][0]["manifest"]
        assert manifest["bytecode"]["files"] > 150
        digests.append(manifest["code_sha256"])
        shutil.rmtree(tmp_path / "cache" / "bytecode")
    assert digests[0] == digests[1]


# Of use


def ran_in_sandbox(path: Path, imports: Sequence[str], script: str, *, changed: bool = False) -> Imported:
    """Imports from an archive at /opt; where `changed`, all sources say something else than they did."""
    interpreter = find_interpreter(target_of(TARGET).runtime, Cache(Path(os.environ["LAYERBUILD_CACHE_DIR"])))
    assert interpreter is not None

    def files() -> Iterator[SandboxFile]:
        for name, data in members(path).items():
            content = b"raise OSError('read')\n" if changed and name.endswith(".py") else data
            yield SandboxFile(f"opt/{name}", 0o644, len(content), lambda content=content: content)  # type: ignore[misc]

    return run_imports(Namespace(interpreter), target_of(TARGET), files(), imports, script.encode())


def test_it_is_what_a_real_python_loads(demo: Demo) -> None:
    demo.write(
        {
            "demo/__init__.py": "from demo import deep\nVALUE = 7\n",
            "demo/deep.py": "def go():\n    raise ValueError('lbtest')\n",
            "größe.py": "WERT = 'ü'\n",
        },
        imports='"demo", "größe"',
    )
    make(demo, *IMPORTS)
    script = f"""
import demo, größe, sys, traceback, importlib.util
assert (demo.VALUE, größe.WERT) == (7, 'ü')
for module in (demo, demo.deep, größe):
    assert module.__cached__.endswith(".{TAG}.pyc"), module.__cached__
    assert module.__spec__.loader.get_code(module.__name__).co_filename == module.__file__
try:
    demo.deep.go()
except ValueError as error:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    assert (frame.filename, frame.lineno, frame.name) == ("/opt/{SITE}/demo/deep.py", 2, "go"), frame
try:
    open(demo.__cached__, "ab")
except OSError as error:
    assert error.errno in (13, 30)
else:
    raise AssertionError
"""

    whole = ran_in_sandbox(archive(demo), ["demo", "größe"], script)
    stale = ran_in_sandbox(archive(demo), ["demo", "größe"], script, changed=True)

    assert whole.failed == "", whole.causes()
    # Nobody has read the sources: they would have raised.
    assert stale.failed == "", stale.causes()
    names = ["demo/__init__.py", "demo/deep.py", "größe.py"]
    assert [path.removeprefix(f"{SITE}/") for path in dict.fromkeys(whole.loaded)] == names


def test_without_bytecode_the_sources_are_read(demo: Demo) -> None:
    """That the test before can fail at all."""
    demo.write({"demo.py": ""})
    make(demo, "--smoke", "off", "--bytecode", "off")

    assert ran_in_sandbox(archive(demo), ["demo"], "", changed=True).failed == "demo"


def test_headers_are_of_the_target_and_checks_are_content(demo: Demo) -> None:
    demo.write(many_modules())
    make(demo, *ALL)
    files = members(archive(demo))

    for module in modules(archive(demo)):
        magic, end, flags, _ = HEADER.unpack_from(files[pyc(module)])
        assert (magic, end, flags) == (target_of(TARGET).runtime.bytecode_magic, 0x0A0D, UNCHECKED_HASH)
    ran = demo.cli("check", archive(demo), "--target", TARGET, "--json")
    codes = [one["code"] for one in ran.json["layers"][0]["findings"]]
    assert "contents-bytecode" not in codes


def test_optimization_is_left_to_the_function(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONOPTIMIZE", "2")
    demo.write({"demo.py": "assert True\ndef f():\n    'lbtest-docstring'\n"})
    make(demo, *ALL)

    assert b"lbtest-docstring" in members(archive(demo))[pyc("demo.py")]


# Modes


def test_imports_compiles_what_is_loaded_and_all_compiles_everything(demo: Demo) -> None:
    files: dict[str, str | bytes] = {
        "demo/__init__.py": "import demo.a\n",
        "demo/a.py": "",
        "demo/b.py": "",
        "demo/c.py": "",
    }
    demo.write(files, script="import demo.c\n", extra='bytecode = "imports"\n')

    make(demo)
    assert modules(archive(demo)) == ["demo/__init__.py", "demo/a.py", "demo/c.py"]
    assert demo.manifest()["bytecode"]["mode"] == "imports"

    make(demo, "--bytecode", "all")
    assert modules(archive(demo)) == ["demo/__init__.py", "demo/a.py", "demo/b.py", "demo/c.py"]
    assert demo.manifest()["bytecode"] == {
        "mode": "all",
        "compiler": demo.manifest()["smoke"]["interpreter"],
        "files": 4,
        "unzipped": sum(len(data) for name, data in members(archive(demo)).items() if name.endswith(".pyc")),
        "left_out": 0,
    }

    make(demo, "--bytecode", "off")
    assert modules(archive(demo)) == []
    assert demo.manifest()["bytecode"] is None


def test_manifests_count_bytecode(demo: Demo) -> None:
    demo.write({"demo.py": "x = 1\n"})
    make(demo, *ALL)
    files = members(archive(demo))

    assert demo.manifest()["files"] == len(files)
    assert demo.manifest()["unzipped"] == sum(map(len, files.values()))
    assert demo.manifest()["zipped"] == archive(demo).stat().st_size


WRONG = {
    'bytecode = "some"\n': "bytecode cannot be 'some'",
    "bytecode = 1\n": "bytecode",
    "bytecode = true\n": "bytecode",
    "bytecode = {}\n": "mode must be one of off, imports, all",
    'bytecode = { mode = "some" }\n': "mode must be one of off, imports, all",
    "bytecode = { mode = 1 }\n": "mode must be one of off, imports, all",
    "bytecode = { mode = [] }\n": "mode must be one of off, imports, all",
    'bytecode = { mode = "all", requires = true }\n': "requires",
    'bytecode = { mode = "all", require = "yes" }\n': "require",
    '[bytecode]\nmode = "imports"\nrequired = true\n': "required",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_recipe_that_is_wrong(text: str, demo: Demo) -> None:
    demo.write({"demo.py": ""}, extra=text)

    ran = demo.make()

    assert ran.code == 2, ran.err
    assert "[recipe-invalid]" in ran.err
    assert WRONG[text] in ran.err
    assert re.search(r"line [4-7]: ", ran.err)


@pytest.mark.parametrize("extra", ['[bytecode]\nmode = "all"\nrequire = true\n', 'bytecode = { mode = "all" }\n'])
def test_the_table_form(extra: str, demo: Demo) -> None:
    demo.write({"demo.py": ""}, extra=extra)
    make(demo)

    assert modules(archive(demo)) == ["demo.py"]


@pytest.mark.parametrize("mode", ["off", "all"])
def test_a_shared_layer_has_none(demo: Demo, mode: str) -> None:
    demo.write({"demo.py": ""}, imports="", extra=f'bytecode = "{mode}"\nlayout = "shared"\ntargets = ["{TARGET}"]\n')

    ran = demo.cli("make", "demo", "--locked")

    assert ran.code == 0
    assert ("a shared layer serves several" in ran.err) == (mode == "all")


def test_without_an_interpreter_there_is_a_warning(demo: Demo, hidden: None) -> None:
    demo.write({"demo.py": ""}, extra='bytecode = "imports"\n')

    ran = demo.make()

    assert ran.code == 0, ran.err
    assert f"there is no CPython {VERSION} here to compile with" in ran.err
    assert f"uv python install {VERSION}" in ran.err
    assert modules(archive(demo)) == []
    assert demo.manifest()["bytecode"] is None


@pytest.mark.docker
def test_without_an_interpreter_a_container_compiles_the_same(
    demo: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image has this machine's CPython, so that the bytes can be compared."""
    require_engine()
    base = tagged_base(TARGET)
    demo.write(many_modules(), extra='bytecode = "all"\n')
    first = members(make_out(demo, "here"))
    monkeypatch.setattr("layerbuild.sandbox.choose.find_interpreter", lambda *_: None)
    monkeypatch.setenv("LAYERBUILD_CACHE_DIR", str(tmp_path / "another"))

    second = members(make_out(demo, "there", "--backend", "container", "--base-image", base))

    manifest = json.loads((demo.project / "there" / f"demo-{TARGET}.json").read_text())
    assert manifest["bytecode"]["compiler"].startswith(f"{VERSION} of sha256:")
    assert manifest["smoke"]["backend"] == "container"
    assert [name for name in first if name.endswith(".pyc")]
    assert second == first


def make_out(demo: Demo, out: str, *words: str) -> Path:
    """Makes the layer in a folder; the archive."""
    ran = demo.make("--out", out, *words)
    assert ran.code == 0, ran.err
    return archive(demo, out)


@pytest.mark.parametrize("mode", ["imports", "all"])
def test_without_an_interpreter_what_is_required_fails(mode: str, demo: Demo, hidden: None) -> None:
    demo.write({"demo.py": ""}, extra=f'[bytecode]\nmode = "{mode}"\nrequire = true\n')

    ran = demo.make()

    assert ran.code == 4
    assert "[no-bytecode]" in ran.err
    assert list(demo.project.glob("dist/*")) == []


def test_imports_that_nobody_ran_give_no_bytecode(demo: Demo) -> None:
    demo.write({"demo.py": ""})

    ran = demo.make("--smoke", "off", "--bytecode", "imports")

    assert ran.code == 0
    assert "nobody has seen what its imports load (--smoke off)" in ran.err
    assert demo.manifest()["bytecode"] is None


def test_a_recipe_without_imports_is_told_of_all(demo: Demo) -> None:
    demo.write({"demo.py": ""}, imports="", extra='bytecode = "imports"\n')

    assert 'set bytecode = "all"' in demo.make().err


@pytest.mark.parametrize("words", [("--smoke", "off"), ()])
def test_an_interpreter_that_appears_is_used(words: tuple[str, ...], demo: Demo, tmp_path: Path) -> None:
    demo.write({"demo.py": ""})
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in ("PATH", "HOME", "PYENV_ROOT", "UV_PYTHON_INSTALL_DIR", "XDG_DATA_HOME"):
            monkeypatch.setenv(name, str(tmp_path / "empty"))
        assert demo.make(*words, "--bytecode", "all").code == 0
    assert modules(archive(demo)) == []

    make(demo, *words, "--bytecode", "all")

    assert modules(archive(demo)) == ["demo.py"]


def large(name: str) -> str:
    return "\n".join(f"def {name}_{number}(x):\n    return x + {number}" for number in range(300)) + "\n"


@pytest.mark.parametrize("mode", ["imports", "all"])
def test_where_there_is_no_room_the_most_useful_comes_first(mode: str, demo: Demo) -> None:
    files: dict[str, str | bytes] = {f"demo_{name}.py": large(f"f{name}") for name in "abcdefgh"}
    imports = '"demo_g", "demo_b", "demo_f", "demo_a"'
    demo.write(files, imports=imports)
    make(demo, "--bytecode", "off")
    plain = demo.manifest()["unzipped"]
    make(demo, *ALL)
    sizes = [len(data) for name, data in members(archive(demo)).items() if name.endswith(".pyc")]
    assert max(sizes) - min(sizes) < 1000

    budget = plain + 2 * max(sizes) + 500
    demo.write(files, imports=imports, extra=f'bytecode = "{mode}"\nsize-budget = {budget}\n')
    ran = demo.make()

    assert ran.code == 0, ran.err
    assert modules(archive(demo)) == ["demo_b.py", "demo_g.py"]
    left = 2 if mode == "imports" else 6
    assert demo.manifest()["bytecode"]["left_out"] == left
    assert f"there is no room for the bytecode of {left} modules" in ran.err
    assert demo.manifest()["unzipped"] <= budget
    assert demo.cli("check", "demo", "--target", TARGET).code == 0


def test_lambdas_limit_holds(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    demo.write({"demo_a.py": large("a"), "demo_b.py": large("b")}, imports='"demo_b", "demo_a"')
    make(demo, "--bytecode", "off")
    plain = demo.manifest()["unzipped"]
    monkeypatch.setattr(bytecode, "UNZIPPED_LIMIT", plain + 40_000)
    make(demo, "--bytecode", "all", "--force")
    one = demo.manifest()["bytecode"]

    assert one["files"] + one["left_out"] == 2
    assert plain + one["unzipped"] < plain + 40_000


def test_no_room_at_all_is_no_failure(demo: Demo) -> None:
    demo.write({"demo.py": large("a")})
    make(demo, "--bytecode", "off")
    demo.write({"demo.py": large("a")}, extra=f"bytecode = 'all'\nsize-budget = {demo.manifest()['unzipped']}\n")

    make(demo)

    assert modules(archive(demo)) == []
    assert demo.manifest()["bytecode"]["left_out"] == 1


def test_where_a_zip_holds_no_more_files_bytecode_is_left_out(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    demo.write({f"demo_{number}.py": "" for number in range(8)}, imports='"demo_1"')
    monkeypatch.setattr("layerbuild.archive.MOST_FILES", 14)
    monkeypatch.setattr("layerbuild.bytecode.MOST_FILES", 14)

    make(demo, *ALL)

    assert len(members(archive(demo))) <= 14
    assert demo.manifest()["bytecode"]["left_out"] > 0


# What cannot be compiled


def finally_in_finally(depth: int) -> str:
    lines = []
    for level in range(depth):
        lines += [" " * level + "try: a()", " " * level + "finally:"]
    return "\n".join([*lines, " " * depth + "b()"]) + "\n"


BAD: dict[str, str | bytes] = {
    "python2.py": "print 'x'\nexec 'y'\n",
    "python2_except.py": "try: pass\nexcept A, b: pass\n",
    "null.py": b"x = 1\0\n",
    "latin.py": b"x = '\xfc'\n",
    "utf16.py": "x = 1\n".encode("utf-16"),
    "no_codec.py": b"# coding: lbtest\nx = 1\n",
    "no_text_codec.py": b"# coding: hex\nx = 1\n",
    "rot13.py": b"# coding: rot13\nk = 1\n",
    "two_codecs.py": b"\xef\xbb\xbf# coding: latin-1\nx = 1\n",
    "tabs.py": "if 1:\n\tx = 1\n        y = 2\n",
    "template.py": "{{ name }} = {% if x %}\n",
    "parentheses.py": "x = " + "(" * 5000 + ")" * 5000 + "\n",
    "lists.py": "x = " + "[" * 99_000 + "]" * 99_000 + "\n",
    "minus.py": "x = " + "-" * 200_000 + "1\n",
    "plus.py": "x = " + "+".join(["y"] * 200_000) + "\n",
    "dots.py": "x = y" + ".z" * 200_000 + "\n",
    "calls.py": "x = y" + "()" * 200_000 + "\n",
    "lambdas.py": "x = " + "lambda: " * 50_000 + "1\n",
    "digits.py": "x = " + "9" * 100_000 + "\n",
    "powers.py": "x = 9 ** 9 ** 9\ny = 1 << 10 ** 12\nz = 'x' * 10 ** 12\nt = (1,) * 10 ** 9\n",
    "nested.py": "".join(" " * level + "if x:\n" for level in range(200)) + " " * 200 + "pass\n",
    "return.py": "return 1\n",
    "surrogate.py": "x = '\\ud800'\n",
    "future.py": "from __future__ import lbtest\n",
}


def test_what_cannot_be_compiled_is_left_out(demo: Demo) -> None:
    demo.write({"demo.py": "", "z.py": "", **BAD})

    ran = demo.make(*ALL)

    assert ran.code == 0, ran.err
    made = set(modules(archive(demo)))
    assert {"demo.py", "z.py"} <= made
    assert not made & {"python2.py", "null.py", "latin.py", "no_codec.py", "template.py", "tabs.py", "digits.py"}
    assert demo.manifest()["bytecode"]["left_out"] == 0


def test_a_module_that_takes_too_long_is_left_out(
    demo: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = bytecode.COMPILER.read_text()
    assert "SECONDS, MEMORY = 60," in text
    (tmp_path / "compiler.py").write_text(text.replace("SECONDS, MEMORY = 60,", "SECONDS, MEMORY = 2,"))
    monkeypatch.setattr(bytecode, "COMPILER", tmp_path / "compiler.py")
    demo.write({"demo.py": "", "slow.py": finally_in_finally(19)})
    started = time.monotonic()

    make(demo, *ALL)

    assert "demo.py" in modules(archive(demo))
    assert time.monotonic() - started < 100


def test_hard_limits_of_the_user_do_not_leave_all_modules_out(demo: Demo) -> None:
    """What may not be raised, such as a limit on processor time of a batch job, need not be."""
    demo.write({"demo.py": ""})
    without = ["setpriv", "--bounding-set=-sys_resource", "--inh-caps=-sys_resource"] if os.geteuid() == 0 else []
    if not shutil.which("prlimit") or (without and not shutil.which("setpriv")):
        pytest.skip("there is no prlimit or setpriv here")
    program = [sys.executable, "-m", "layerbuild", "make", "demo", "--locked", "--target", TARGET, *ALL]

    done = subprocess.run([*without, "prlimit", "--cpu=50:50", *program], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert modules(archive(demo)) == ["demo.py"]


def test_bytecode_that_a_wheel_brings_is_replaced(demo: Demo) -> None:
    stale = b"\x00" * 16
    files: dict[str, str | bytes] = {
        "demo/__init__.py": "from demo import a\n",
        "demo/a.py": "x = 1\n",
        "demo/b.py": "",
    }
    brought: dict[str, str | bytes] = {
        f"demo/__pycache__/__init__.{TAG}.pyc": stale,
        f"demo/__pycache__/a.{TAG}.pyc": stale,
        f"demo/__pycache__/b.{TAG}.pyc": stale,
        "demo/__pycache__/a.cpython-27.pyc": stale,
    }
    demo.write({**files, **brought})

    make(demo, *IMPORTS, "--ignore", "contents-bytecode")

    layer = members(archive(demo))
    for module in ("demo/__init__.py", "demo/a.py"):
        assert HEADER.unpack_from(layer[pyc(module)])[2] == UNCHECKED_HASH
    assert layer[pyc("demo/b.py")] == stale
    assert demo.manifest()["bytecode"]["files"] == 2
    assert demo.manifest()["unzipped"] == sum(map(len, layer.values()))
    assert ran_in_sandbox(archive(demo), ["demo"], "").failed == ""


def test_a_file_where_the_folder_of_bytecode_would_be(demo: Demo) -> None:
    demo.write({"demo/__init__.py": "", "demo/__pycache__": "lbtest", "other.py": ""})

    make(demo, *ALL)

    names = members(archive(demo))
    assert [name for name in names if any(other.startswith(f"{name}/") for other in names)] == []
    assert "other.py" in modules(archive(demo))


# What is kept


def test_what_was_compiled_is_not_compiled_again(demo: Demo, compiled: list[str]) -> None:
    demo.write({"demo.py": "import more\n", "more.py": "", "rest.py": ""})
    first = make(demo, *IMPORTS)
    assert compiled == ["demo.py", "more.py"]
    assert make(demo, *IMPORTS) == first
    assert compiled == ["demo.py", "more.py"]

    make(demo, *ALL)
    assert "rest.py" in compiled
    count = len(compiled)
    make(demo, *ALL)
    assert len(compiled) == count


def damage_blob(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


DAMAGE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "changed blob": ("*.pycs", damage_blob),
    "cut blob": ("*.pycs", lambda path: path.write_bytes(path.read_bytes()[:-1])),
    "empty blob": ("*.pycs", lambda path: path.write_bytes(b"")),
    "no blob": ("*.pycs", lambda path: path.unlink()),
    "changed record": ("*.json", damage_blob),
    "cut record": ("*.json", lambda path: path.write_bytes(path.read_bytes()[:-1])),
    "empty record": ("*.json", lambda path: path.write_bytes(b"")),
    "no record": ("*.json", lambda path: path.unlink()),
}


def test_what_is_damaged_is_made_again(demo: Demo, compiled: list[str], tmp_path: Path) -> None:
    demo.write({"demo.py": large("a")})
    first = make(demo, *ALL)
    for number, (name, (pattern, damage)) in enumerate(DAMAGE.items(), 2):
        for path in (tmp_path / "cache" / "bytecode").rglob(pattern):
            damage(path)

        assert make(demo, *ALL) == first, name
        assert compiled == ["demo.py"] * number, name


def test_another_compiler_compiles_again(demo: Demo, compiled: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    demo.write({"demo.py": ""}, extra='bytecode = "all"\n')
    make(demo)

    def newer(*given: Any) -> Interpreter | None:
        found = find_interpreter(*given)
        return replace(found, version=f"{VERSION}.99") if found else None

    monkeypatch.setattr(choose, "find_interpreter", newer)
    make(demo)

    assert compiled == ["demo.py", "demo.py"]
    assert demo.manifest()["bytecode"]["compiler"] == f"{VERSION}.99"


def background(demo: Demo, out: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "layerbuild", "make", "demo", "--locked", "--target", TARGET, *ALL, "--out", out]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)


def test_two_runs_at_once(demo: Demo, tmp_path: Path) -> None:
    demo.write(many_modules())
    both = [background(demo, out) for out in ("one", "two")]
    with ThreadPoolExecutor(2) as pool:
        said = list(pool.map(lambda process: process.communicate()[1], both))

    assert [process.returncode for process in both] == [0, 0], said
    assert archive(demo, "one").read_bytes() == archive(demo, "two").read_bytes()
    assert make(demo, *ALL) == archive(demo, "one").read_bytes()


@pytest.mark.parametrize("seconds", [0.4, 0.8, 1.2])
def test_being_killed_leaves_nothing_half(seconds: float, demo: Demo, tmp_path: Path) -> None:
    demo.write(many_modules())
    process = background(demo, "dist")
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()

    for path in demo.project.glob("dist/*.zip"):
        assert members(path)
    killed = make(demo, *ALL)
    shutil.rmtree(tmp_path / "cache")
    assert make(demo, *ALL) == killed


# The other architecture


def test_what_the_twin_loads_is_compiled(demo: Demo) -> None:
    files: dict[str, str | bytes] = {"demo/__init__.py": "import demo.a\n", "demo/a.py": "", "demo/b.py": ""}
    demo.write(files, extra='bytecode = "imports"\n')
    make(demo)
    here = members(archive(demo))
    other = replace(demo, target=TWIN)

    make(other, "--smoke", "auto", "--backend", "namespace")

    assert modules(archive(other)) == ["demo/__init__.py", "demo/a.py"]
    assert members(archive(other)) == here
    assert other.manifest()["smoke"]["status"] == "not run"
    assert other.manifest()["bytecode"]["files"] == 2
    ran = demo.cli("check", archive(other), "--target", TWIN, "--json")
    assert ran.json["layers"][0]["findings"] == []


def test_what_the_script_of_the_twin_loads_is_compiled(demo: Demo) -> None:
    demo.write({"demo.py": "", "b.py": ""}, imports="", script="import demo\n", extra='bytecode = "imports"\n')
    other = replace(demo, target=TWIN)

    make(other, "--backend", "namespace")

    assert modules(archive(other)) == ["demo.py"]


def test_a_twin_that_cannot_be_locked_stops_nothing(demo: Demo) -> None:
    demo.write({"demo.py": ""}, extra='bytecode = "imports"\n')
    (demo.project / "recipes" / "demo" / "locks" / f"{TARGET}.txt").unlink()
    other = replace(demo, target=TWIN)

    ran = other.make("--backend", "namespace")

    assert ran.code == 0, ran.err
    assert "gets no bytecode" in ran.err
    assert not (demo.project / "recipes" / "demo" / "locks" / f"{TARGET}.txt").exists()


def test_a_twin_that_has_no_wheel_stops_nothing(demo: Demo) -> None:
    demo.write({"demo.py": ""}, extra='bytecode = "imports"\n')
    (demo.project / "links" / "demo-1.0-py3-none-any.whl").unlink()
    wheel = make_wheel(demo.project / "links", "demo", "1.0", {"demo.py": ""}, tag="py3-none-manylinux2014_aarch64")
    for name in (TARGET, TWIN):
        lock = demo.project / "recipes" / "demo" / "locks" / f"{name}.txt"
        lock.write_text(f"demo==1.0 --hash=sha256:{sha256_of(wheel)}\n")
    other = replace(demo, target=TWIN)

    ran = other.make("--backend", "namespace")

    assert ran.code == 0, ran.err
    assert "gets no bytecode" in ran.err


def test_a_twin_that_fails_stops_nothing(demo: Demo) -> None:
    demo.write(
        {"demo.py": "import platform\nassert platform.machine() == 'aarch64'\n"}, extra='bytecode = "imports"\n'
    )
    other = replace(demo, target=TWIN)

    ran = other.make("--backend", "namespace")

    assert ran.code == 0, ran.err
    assert "gets no bytecode" in ran.err


# Patch releases


def same_minor() -> tuple[str, list[Path]]:
    """A version of which there are two patch releases here, and those."""
    home = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for version in ("3.11", "3.12", "3.13"):
        name = f"python{version}"
        found = [
            *home.glob(f"{version}.*/bin/{name}"),
            *Path("/usr/bin").glob(name),
            *Path("/usr/local/bin").glob(name),
        ]
        releases = {path: subprocess.check_output([path, "-V"], text=True) for path in found}
        if len(set(releases.values())) > 1:
            return version, [path for path, said in releases.items() if list(releases.values()).count(said) == 1][:2]
    pytest.skip("no two patch releases of one Python are here")


def test_what_a_layer_is_does_not_depend_on_the_patch_release(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    version, pythons = same_minor()
    target = target_of(f"python{version}-x86_64")
    library = Path(importlib.util.__file__).parents[1]
    sources = sorted(
        path
        for name in ("asyncio", "email", "json", "http", "unittest", ".")
        for path in (library / name).glob("*.py")
    )
    demo.write({f"demo/{path.relative_to(library).as_posix()}": path.read_bytes() for path in sources})
    lock = demo.project / "recipes" / "demo" / "locks" / f"{TARGET}.txt"
    shutil.copy(lock, lock.with_name(f"{target}.txt"))
    one = replace(demo, target=str(target))
    made, manifests = [], []
    for python in pythons:
        facts = subprocess.check_output(
            [python, "-c", "import platform, sys; print(platform.python_version(), sys.prefix)"]
        )
        release, prefix = facts.decode().split()
        interpreter = Interpreter(path=python, version=release, prefix=Path(prefix), machine="x86_64")
        monkeypatch.setattr(choose, "find_interpreter", lambda *_, interpreter=interpreter: interpreter)
        make(one, *ALL)
        made.append(members(archive(one)))
        manifests.append(one.manifest())

    differing = [name for name in made[0] if made[0][name] != made[1].get(name)]
    assert set(made[0]) == set(made[1])
    assert [name for name in differing if not name.endswith(".pyc")] == []
    assert manifests[0]["bytecode"]["compiler"] != manifests[1]["bytecode"]["compiler"]
    assert manifests[0]["bytecode"]["files"] == manifests[1]["bytecode"]["files"] > 200
    assert manifests[0]["content_digest"] == manifests[1]["content_digest"]
    print(f"{len(differing)} of {manifests[0]['bytecode']['files']} differ")  # noqa: T201
