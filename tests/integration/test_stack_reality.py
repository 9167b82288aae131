"""What `Stack` says of an import is what a real CPython does with the layers really merged."""

from __future__ import annotations

import base64
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from layerbuild.stack import Stack
from layerbuild.target import select_targets
from layerbuild.tree import read_folder, read_zip
from tests.interpreters import find_python
from tests.wheels import record_digest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="extension modules have other names elsewhere")

MACHINE = platform.machine()
(TARGET,) = select_targets([f"python3.12-{'arm64' if MACHINE in ('aarch64', 'arm64') else 'x86_64'}"])
OTHER_MACHINE = "x86_64" if MACHINE == "aarch64" else "aarch64"

SITE = "python/lib/python3.12/site-packages"
OTHER_SITE = "python/lib/python3.11/site-packages"
SEARCHED = ("/var/task", f"/opt/{SITE}", "/opt/python")
FUNCTION = "function"

# Imports what it is told, from the folders it is told, and says where each module came from.
CHILD = """\
import base64, importlib, importlib.metadata, importlib.util, json, marshal, os, sys

sys.dont_write_bytecode = True
own = list(sys.path)
answers, sys.stdout = sys.stdout, sys.stderr


def bytecode(source):
    code = compile(source, "layer.py", "exec")
    return base64.b64encode(importlib.util.MAGIC_NUMBER + bytes(12) + marshal.dumps(code)).decode()


def describe(name):
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError:
        return None
    locations = getattr(module, "__path__", None)
    return {
        "origin": module.__spec__.origin,
        "locations": None if locations is None else list(locations),
        "says": getattr(module, "ORIGIN", None),
    }


def version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def take(tops):
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in tops}


for line in sys.stdin:
    request = json.loads(line)
    names = request["names"]
    tops = {name.partition(".")[0] for name in names}
    held = take(tops)
    sys.path[:] = request["roots"] + own
    importlib.invalidate_caches()
    sys.path_importer_cache.clear()
    answer = {
        "bytecode": [bytecode(source) for source in request["compile"]],
        "modules": {name: describe(name) for name in names},
        "versions": {name: version(name) for name in request["distributions"]},
    }
    sys.path[:] = own
    take(tops)
    sys.modules.update(held)
    print(json.dumps(answer), file=answers, flush=True)
os._exit(0)
"""

# One library that is an extension module under each of these names, with the limited API or without.
EXTENSION = """\
#define Py_LIMITED_API 0x03080000
#include <Python.h>
#undef errno
static PyModuleDef_Slot slots[] = {{0, NULL}};
#define MODULE(name) \\
    static struct PyModuleDef of_##name = {PyModuleDef_HEAD_INIT, #name, NULL, 0, NULL, slots}; \\
    PyMODINIT_FUNC PyInit_##name(void) { return PyModuleDef_Init(&of_##name); }
MODULE(a) MODULE(b) MODULE(A) MODULE(__init__)
MODULE(colorsys) MODULE(wsgiref) MODULE(errno) MODULE(lib) MODULE(python)
"""


class Link(bytes):
    """What a symbolic link leads to."""


Files = Mapping[str, bytes]


def source(origin: str) -> bytes:
    """A module that says where it is from."""
    return f"ORIGIN = {origin!r}\n".encode()


class Interpreter:
    """A CPython 3.12 that stays, but is started anew now and then: what it loads, it never lets go of."""

    def __init__(self, folder: Path) -> None:
        self.python = find_python("3.12")
        self.folder = folder
        self.folders = count()
        self.asked = 0
        self.process: subprocess.Popen[str] | None = None

    def stop(self) -> None:
        if self.process:
            self.process.communicate()
            self.process = None

    def ask(self, **request: list[str]) -> Any:
        if self.asked % 200 == 0:
            self.stop()
        if self.process is None:
            self.process = subprocess.Popen(
                [self.python, "-I", "-S", "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        self.asked += 1
        assert self.process
        assert self.process.stdin
        assert self.process.stdout
        whole = {"roots": [], "names": [], "compile": [], "distributions": [], **request}
        self.process.stdin.write(json.dumps(whole) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            self.stop()
            pytest.fail("the interpreter ended; it says why on stderr")
        return json.loads(answer)

    @cached_property
    def extension(self) -> bytes:
        compiler = shutil.which("gcc") or shutil.which("cc")
        done = subprocess.run(
            [self.python, "-c", "import sysconfig; print(sysconfig.get_path('include'))"],
            capture_output=True,
            text=True,
            check=True,
        )
        headers = Path(done.stdout.strip())
        if compiler is None or not (headers / "Python.h").is_file():
            pytest.skip("there is no C compiler, or no headers of CPython 3.12")
        source, built = self.folder / "extension.c", self.folder / "extension.so"
        source.write_text(EXTENSION)
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-s", "-nostdlib", "-I", headers, "-o", built, source], check=True
        )
        return built.read_bytes()

    @cached_property
    def bytecode(self) -> dict[str, bytes]:
        """A module without its source, for each layer and the function."""
        owners = [FUNCTION, *(f"layer {index}" for index in range(5))]
        made = self.ask(compile=[source(owner).decode() for owner in owners])["bytecode"]
        return {owner: base64.b64decode(code) for owner, code in zip(owners, made, strict=True)}

    def content(self, path: str, owner: str) -> bytes:
        """What a file holds: unlike that of the same path in any other layer, and importable where its name is."""
        if path.endswith("/"):
            return b""
        if path.endswith(".pyc"):
            return self.bytecode[owner]
        if path.endswith(".so"):
            return self.extension + b"\n" + owner.encode()
        return source(owner)


@pytest.fixture(scope="module")
def interpreter() -> Iterator[Interpreter]:
    # Thousands of folders are made and removed, which takes some disks long; libraries are to be loaded from them.
    memory = Path("/dev/shm")
    fast = os.access(memory, os.W_OK) and not os.statvfs(memory).f_flag & os.ST_NOEXEC
    with tempfile.TemporaryDirectory(dir=memory if fast else None) as folder:
        interpreter = Interpreter(Path(folder).resolve())
        yield interpreter
        interpreter.stop()


@dataclass(frozen=True)
class Merged:
    """Layers and a function as Lambda lays them out, below a folder of ours, and what layerbuild makes of them."""

    interpreter: Interpreter
    folder: Path
    layers: list[Files]
    function: Files | None
    stack: Stack

    def ask(self, names: list[str], *distributions: str) -> Any:
        roots = [f"{self.folder}{root}" for root in SEARCHED]
        return self.interpreter.ask(roots=roots, names=names, distributions=list(distributions))

    def on_lambda(self, path: str | None) -> str | None:
        """A path as it is on Lambda; none for what comes with the runtime."""
        if path is None or not path.startswith(f"{self.folder}/"):
            return None
        return path.removeprefix(str(self.folder))

    def owner(self, file: Path) -> int | None:
        """The layer whose file lies somewhere, by its content; none for the function."""
        path, content = str(file.resolve().relative_to(self.folder)), file.read_bytes()
        if path.startswith("var/task/"):
            assert self.function is not None
            assert self.function[path.removeprefix("var/task/")] == content
            return None
        name = path.removeprefix("opt/")
        return max(index for index, layer in enumerate(self.layers) if layer.get(name) == content)

    def compare(self, names: list[str]) -> list[str]:
        """What layerbuild says otherwise than the interpreter does."""
        real = self.ask(names)["modules"]
        return [line for name in names for line in self._compare(name, real[name])]

    def _compare(self, name: str, real: Any) -> Iterator[str]:
        found = self.stack.find_module(name)
        said = found and (found.kind, found.path, tuple(found.locations))
        expected = self._expected(real)
        if said != expected:
            yield f"{name}: layerbuild says {said}, but it is {expected}"
        if found is None or found.path is None or said != expected:
            return
        file = self.folder / found.path[1:]
        if found.layer != (owner := self.owner(file)):
            yield f"{name}: layerbuild says of layer {found.layer}, but it is of layer {owner}"
        if says := real["says"]:
            assert file.read_bytes() in (source(says), self.interpreter.bytecode.get(says)), "another file ran"

    def _expected(self, real: Any) -> tuple[str, str | None, tuple[str, ...]] | None:
        if real is None:
            return None
        # The runtime's own folders are searched last, and can add to a namespace package.
        locations = tuple(filter(None, map(self.on_lambda, real["locations"] or ())))
        path = self.on_lambda(real["origin"])
        if path is None:
            return ("namespace", None, locations) if locations else None
        return "module" if real["locations"] is None else "package", path, locations


def zipped(path: Path, files: Files) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            member = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))
            kind = 0o120777 if isinstance(content, Link) else 0o40755 if name.endswith("/") else 0o100644
            member.external_attr = kind << 16
            archive.writestr(member, content, zipfile.ZIP_DEFLATED)


def extract(path: Path, folder: Path) -> None:
    """What ``unzip -o`` does; Python's own module makes no links."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.external_attr >> 28 == 0o12:
                link = folder / member.filename
                link.parent.mkdir(parents=True, exist_ok=True)
                link.unlink(missing_ok=True)
                link.symlink_to(archive.read(member).decode())
            else:
                archive.extract(member, folder)


def merge(interpreter: Interpreter, layers: list[Files], function: Files | None = None) -> Merged:
    """Zips each layer, extracts them in order into one folder, and reads the zips with layerbuild."""
    folder = interpreter.folder / str(next(interpreter.folders))
    (folder / "opt").mkdir(parents=True)
    trees = []
    for index, files in enumerate(layers):
        path = folder / f"layer {index}.zip"
        zipped(path, files)
        trees.append(read_zip(path, name=path.name))
        if not conflict(layers):
            extract(path, folder / "opt")
    code = None
    if function is not None:
        zipped(folder / "function.zip", function)
        extract(folder / "function.zip", folder / "var/task")
        code = read_folder(folder / "var/task", name=FUNCTION)
    stack = Stack(layers=tuple(trees), function=code, target=TARGET)
    return Merged(interpreter, folder, layers, function, stack)


def owned(interpreter: Interpreter, paths: list[str], owner: str) -> Files:
    """Files for such paths; ``a -> b`` is a link."""
    split = [path.partition(" -> ") for path in paths]
    return {
        path: Link(target.encode()) if arrow else interpreter.content(path, owner) for path, arrow, target in split
    }


def made_of(interpreter: Interpreter, layers: list[list[str]], function: list[str] | None = None) -> Merged:
    """The same from paths alone: each file's content says whose it is."""
    return merge(
        interpreter,
        [owned(interpreter, paths, f"layer {index}") for index, paths in enumerate(layers)],
        None if function is None else owned(interpreter, function, FUNCTION),
    )


def folders_of(path: str) -> list[str]:
    """The folders that a path needs; a path that ends in a slash is one itself."""
    return list(accumulate(path.split("/")[:-1], "{}/{}".format))


def conflict(layers: list[Files]) -> bool:
    """Whether one layer has a file where another has a folder, or a link where another has one of them."""
    kinds: dict[str, str] = {}
    for layer in layers:
        for path, content in layer.items():
            kind = "link" if isinstance(content, Link) else "folder" if path.endswith("/") else "file"
            rows = [(path.removesuffix("/"), kind), *((folder, "folder") for folder in folders_of(path))]
            if any(kinds.setdefault(*row) != row[1] for row in rows):
                return True
    return False


def importable_names(paths: list[str]) -> list[str]:
    """Every name that one could think to import from some files, whether or not it can be."""
    names = {"a", "b", "a.a", "a.b", "b.a", "b.b", "a.b.a", "b.a.b", "a.a.b", "b.b.a", "a.__init__"}
    names |= {"colorsys", "wsgiref.headers", "errno", "lib", "absent"}
    for path in paths:
        for root in (f"{SITE}/", f"{OTHER_SITE}/", "python/", ""):
            if path.startswith(root):
                *folders, last = path.partition(" -> ")[0].removeprefix(root).removesuffix("/").split("/")
                dotted = ".".join([*folders, last.partition(".")[0]])
                names |= set(accumulate(filter(None, dotted.split(".")), "{}.{}".format))
    return sorted(names)


# Random stacks

OUR_SUFFIX = f".cpython-312-{MACHINE}-linux-gnu.so"
ROOTS = [*[f"{SITE}/"] * 5, *["python/"] * 5, f"{OTHER_SITE}/", ""]
FUNCTION_ROOTS = [*[""] * 6, "python/", f"{SITE}/"]
FOLDERS = [
    *["", "a/"] * 9,
    *["b/", "a/b/"] * 3,
    *("a/a/", "A/", "colorsys/", "wsgiref/", "errno/", "lib/", "a.py/"),
]
LEAVES = [
    *["a.py", "__init__.py"] * 9,
    *["b.py"] * 6,
    *("a.pyc", "b.pyc", "__init__.pyc", f"a{OUR_SUFFIX}", f"__init__{OUR_SUFFIX}"),
    *("a.abi3.so", "a.so", "b.so", "__init__.so", "__init__.abi3.so"),
    # Shadowing the standard library works, but for what is built into the interpreter.
    *("A.py", "colorsys.py", "colorsys.pyc", "headers.py", "errno.py"),
    # Never modules.
    *(f"a.cpython-311-{MACHINE}-linux-gnu.so", f"a.cpython-312-{OTHER_MACHINE}-linux-gnu.so", "a.cpython-312.so"),
    *("data.txt", "a.pyi", "a.pyo", "a.PY", "__pycache__/a.cpython-312.pyc"),
    # A file and an empty folder.
    *("a", "a/"),
    *("a-b.py", "ä.py"),
    # Links: to a file, a folder, the very folder, nothing and themselves.
    *("a.py -> b.py", "b.py -> ../a.py", "__init__.py -> a.py"),
    *("a -> b", "b -> ../a", "a -> .", "b -> .", "b -> absent", "a -> a", "b.py -> b.py"),
]


def without_conflicts(paths: list[str]) -> list[str]:
    """Those of them that one layer can hold."""
    kept: dict[str, tuple[str, Files]] = {}
    for text in paths:
        path, arrow, _ = text.partition(" -> ")
        files: Files = {path: Link() if arrow else b""}
        if path not in kept and not conflict([*(each for _, each in kept.values()), files]):
            kept[path] = text, files
    return [text for text, _ in kept.values()]


def files_below(roots: list[str]) -> st.SearchStrategy[list[str]]:
    path = st.tuples(st.sampled_from(roots), st.sampled_from(FOLDERS), st.sampled_from(LEAVES)).map("".join)
    return st.lists(path, min_size=1, max_size=9).map(without_conflicts)


STACKS = st.sampled_from(range(1, 6)).flatmap(lambda size: st.lists(files_below(ROOTS), min_size=size, max_size=size))
RANDOM = settings(
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def check(merged: Merged, names: list[str]) -> None:
    conflicting = conflict(merged.layers)
    event("file against folder" if conflicting else "compared")
    kinds = [finding for finding in merged.stack.findings() if finding.code == "stack-kind"]
    assert bool(kinds) == conflicting, kinds
    if not conflicting:
        assert merged.compare(names) == []
    shutil.rmtree(merged.folder)


@settings(RANDOM, max_examples=550)
@given(layers=STACKS)
def test_layers_are_searched_as_they_are_when_merged(interpreter: Interpreter, layers: list[list[str]]) -> None:
    check(made_of(interpreter, layers), importable_names([path for layer in layers for path in layer]))


@settings(RANDOM, max_examples=550)
@given(layers=STACKS, function=files_below(FUNCTION_ROOTS))
def test_a_function_and_layers_are_searched_as_they_are_when_merged(
    interpreter: Interpreter, layers: list[list[str]], function: list[str]
) -> None:
    names = importable_names([*function, *(path for layer in layers for path in layer)])
    check(made_of(interpreter, layers, function), names)


# Known cases. Each names the file that wins, or the folders of a namespace package, or nothing.

CASES: dict[str, tuple[list[list[str]], list[str] | None, dict[str, str | list[str] | None]]] = {
    "the last layer wins for a path": ([["python/a.py"]] * 3, None, {"a": "2:/opt/python/a.py"}),
    "site-packages of the first beats python of the last": (
        [[f"{SITE}/a.py"], ["python/a.py"]],
        None,
        {"a": f"0:/opt/{SITE}/a.py"},
    ),
    "the function beats layers": (
        [[f"{SITE}/a.py"], ["python/a.py"]],
        ["a.py"],
        {"a": "function:/var/task/a.py"},
    ),
    "the function has no python folder": ([["python/b.py"]], ["python/a.py", f"{SITE}/a.py"], {"a": None}),
    "another Python's site-packages": ([[f"{OTHER_SITE}/a.py"]], None, {"a": None}),
    "what does not lie in python": ([["a.py", "lib/a.py", "site-packages/a.py"]], None, {"a": None, "lib": None}),
    "a namespace package over layers, both folders and the function": (
        [["python/a/b.py", f"{SITE}/a/c.py"], [f"{SITE}/a/b.py"]],
        ["a/d.py"],
        {
            "a": ["/var/task/a", f"/opt/{SITE}/a", "/opt/python/a"],
            "a.b": f"1:/opt/{SITE}/a/b.py",
            "a.c": f"0:/opt/{SITE}/a/c.py",
            "a.d": "function:/var/task/a/d.py",
        },
    ),
    "a nested namespace package": (
        [["python/a/b/a.py"], [f"{SITE}/a/b/b.py", f"{SITE}/a/c/a.py"]],
        None,
        {
            "a.b": [f"/opt/{SITE}/a/b", "/opt/python/a/b"],
            "a.b.a": "0:/opt/python/a/b/a.py",
            "a.c": [f"/opt/{SITE}/a/c"],
        },
    ),
    "a regular package hides portions of a namespace package before it and after it": (
        [[f"{SITE}/a/__init__.py", "python/a/c.py"]],
        ["a/b.py"],
        {"a": f"0:/opt/{SITE}/a/__init__.py", "a.b": None, "a.c": None},
    ),
    "a module hides portions, too": (
        [[f"{SITE}/a/b.py", "python/a.py"]],
        None,
        {"a": "0:/opt/python/a.py", "a.b": None},
    ),
    "a regular package inside of a namespace package hides": (
        [["python/a/b/__init__.py"], [f"{SITE}/a/b/a.py"]],
        None,
        {"a": [f"/opt/{SITE}/a", "/opt/python/a"], "a.b": "0:/opt/python/a/b/__init__.py", "a.b.a": None},
    ),
    "packages of two folders do not merge": (
        [["python/a/__init__.py", "python/a/b.py"], [f"{SITE}/a/__init__.py"]],
        None,
        {"a": f"1:/opt/{SITE}/a/__init__.py", "a.b": None},
    ),
    "packages of one folder do": (
        [["python/a/__init__.py", "python/a/b.py"], ["python/a/__init__.py"]],
        None,
        {"a": "1:/opt/python/a/__init__.py", "a.b": "0:/opt/python/a/b.py"},
    ),
    "another layer's __init__.py makes a namespace package regular": (
        [["python/a/b.py"], ["python/a/__init__.py"]],
        None,
        {"a": "1:/opt/python/a/__init__.py", "a.b": "0:/opt/python/a/b.py"},
    ),
    "a package beats a module in one folder": (
        [["python/a/__init__.py"], ["python/a.py"]],
        None,
        {"a": "0:/opt/python/a/__init__.py"},
    ),
    "a module beats a namespace package in one folder": (
        [["python/a/b.py"], ["python/a.py"]],
        None,
        {"a": "1:/opt/python/a.py", "a.b": None},
    ),
    "a sourceless package beats a module": (
        [["python/a/__init__.pyc"], ["python/a.py", f"python/a{OUR_SUFFIX}"]],
        None,
        {"a": "0:/opt/python/a/__init__.pyc"},
    ),
    "an extension module beats source": (
        [[f"python/a{OUR_SUFFIX}"], ["python/a.py"]],
        None,
        {"a": f"0:/opt/python/a{OUR_SUFFIX}"},
    ),
    "extension modules among themselves": (
        [["python/a.so", "python/b.so", "python/b.abi3.so"], ["python/a.abi3.so", f"python/b{OUR_SUFFIX}"]],
        None,
        {"a": "1:/opt/python/a.abi3.so", "b": f"1:/opt/python/b{OUR_SUFFIX}"},
    ),
    "a plain .so beats source": ([["python/a.so"], ["python/a.py"]], None, {"a": "0:/opt/python/a.so"}),
    "source beats bytecode beside it": ([["python/a.py"], ["python/a.pyc"]], None, {"a": "0:/opt/python/a.py"}),
    "bytecode alone": (
        [["python/a.pyc", "python/b/__pycache__/a.cpython-312.pyc"]],
        None,
        {"a": "0:/opt/python/a.pyc", "b": ["/opt/python/b"], "b.a": None},
    ),
    "extension modules of another Python or machine": (
        [[f"python/a.cpython-311-{MACHINE}-linux-gnu.so", f"python/b.cpython-312-{OTHER_MACHINE}-linux-gnu.so"]],
        None,
        {"a": None, "b": None},
    ),
    "a package that is an extension module": (
        [["python/a/__init__.py"], ["python/a/__init__.so", "python/a/b.py"]],
        None,
        {"a": "1:/opt/python/a/__init__.so", "a.b": "1:/opt/python/a/b.py"},
    ),
    "the standard library is shadowed": (
        [["python/colorsys.py"], [f"{SITE}/wsgiref/__init__.py"]],
        None,
        {"colorsys": "0:/opt/python/colorsys.py", "wsgiref": f"1:/opt/{SITE}/wsgiref/__init__.py"},
    ),
    "but not by a folder without __init__": (
        [["python/colorsys/a.py", "python/wsgiref/headers.py"]],
        ["wsgiref/a.py"],
        {"colorsys": None, "colorsys.a": None, "wsgiref": None, "wsgiref.headers": None, "wsgiref.a": None},
    ),
    "nor what is built in or frozen": (
        [["python/errno.py", f"{SITE}/stat.py", "python/a/errno.py"]],
        ["errno.py"],
        {"errno": None, "stat": None, "a.errno": "0:/opt/python/a/errno.py"},
    ),
    "upper and lower case are two names": (
        [["python/A.py"], ["python/a/__init__.py"]],
        None,
        {"A": "0:/opt/python/A.py", "a": "1:/opt/python/a/__init__.py"},
    ),
    "data and an empty folder make namespace packages": (
        [["python/a/data.txt", "python/b/"]],
        ["c/"],
        {"a": ["/opt/python/a"], "b": ["/opt/python/b"], "c": ["/var/task/c"], "a.data": None},
    ),
    "python/lib is a namespace package": (
        [[f"{SITE}/a.py"], ["python/lib/b.py"]],
        None,
        {"lib": ["/opt/python/lib"], "lib.b": "1:/opt/python/lib/b.py"},
    ),
    "a link to a module": (
        [["python/a.py -> b/c.py", "python/b/c.py"], ["python/b/c.py"]],
        None,
        {"a": "1:/opt/python/a.py", "b.c": "1:/opt/python/b/c.py"},
    ),
    "a link to a package": (
        [["python/a -> ../lib/impl", "lib/impl/__init__.py"], ["lib/impl/b.py"]],
        None,
        {"a": "0:/opt/python/a/__init__.py", "a.b": "1:/opt/python/a/b.py"},
    ),
    "a link to a folder of modules": (
        [["python/a -> b", "python/b/c.py", "python/b/d/e.py"]],
        ["f -> g", "g/__init__.py", "g/h.py"],
        {
            "a": ["/opt/python/a"],
            "a.c": "0:/opt/python/a/c.py",
            "a.d.e": "0:/opt/python/a/d/e.py",
            "f": "function:/var/task/f/__init__.py",
            "f.h": "function:/var/task/f/h.py",
        },
    ),
    "site-packages as a link": (
        [[f"{SITE} -> ../..", "python/a.py"]],
        None,
        {"a": f"0:/opt/{SITE}/a.py"},
    ),
    "links to nothing, to themselves and to their own folder": (
        [["python/a.py -> absent.py", "python/b -> b", "python/c -> .", "python/d.py"]],
        None,
        {"a": None, "b": None, "c": ["/opt/python/c"], "c.c.d": "0:/opt/python/c/c/d.py"},
    ),
    "__init__ by its name": (
        [["python/a/__init__.py", f"{SITE}/__init__.py"]],
        None,
        {"a.__init__": "0:/opt/python/a/__init__.py", "__init__": f"0:/opt/{SITE}/__init__.py"},
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_known_cases(
    interpreter: Interpreter,
    case: tuple[list[list[str]], list[str] | None, dict[str, str | list[str] | None]],
) -> None:
    layers, function, expected = case
    merged = made_of(interpreter, layers, function)
    assert merged.compare(sorted(expected)) == []
    assert {name: shown(merged.stack, name) for name in expected} == expected


def shown(stack: Stack, name: str) -> str | list[str] | None:
    """What layerbuild finds, as the known cases write it."""
    found = stack.find_module(name)
    if found is None:
        return None
    if found.path is None:
        return list(found.locations)
    return f"{FUNCTION if found.layer is None else found.layer}:{found.path}"


@pytest.mark.parametrize(
    "layers",
    [
        [["python/a"], ["python/a/b.py"]],
        [["python/a/b.py"], ["python/a"]],
        [["python/a.py/b.txt"], ["python/b.py"], ["python/a.py"]],
        [[f"{SITE}/a.py"], ["python/lib"]],
        [["python/a/"], ["python/a"]],
        [["python/a -> b", "python/b/c.py"], ["python/a/c.py"]],
        [["python/a.py"], ["python/a.py -> b.py", "python/b.py"]],
    ],
)
def test_a_file_where_another_layer_has_a_folder_is_an_error(
    interpreter: Interpreter, layers: list[list[str]]
) -> None:
    found = [finding for finding in made_of(interpreter, layers).stack.findings() if finding.code == "stack-kind"]
    assert [finding.severity for finding in found] == ["error"]


# Distributions

TORN = {"stack-torn", "stack-two-dist-infos"}


@dataclass(frozen=True)
class Distribution:
    """Some version of the distribution demo, installed somewhere; every module of it knows its version."""

    version: str
    shape: str = "package"
    place: str = SITE
    spelling: str = "demo"

    def modules(self) -> dict[str, str]:
        """Dotted name to path."""
        own = f"only_in_{self.version[0]}"
        below = {"demo.core": "demo/core.py", f"demo.{own}": f"demo/{own}.py"}
        return {
            "module": {"demo": "demo.py"},
            "modules": {"demo": "demo.py", "_demo": "_demo.py", f"_demo_{own}": f"_demo_{own}.py"},
            "package": {"demo": "demo/__init__.py", **below},
            "namespace": below,
        }[self.shape]

    def files(self) -> Files:
        files = {path: source(self.version) for path in self.modules().values()}
        info = f"{self.spelling}-{self.version}.dist-info"
        metadata = f"Metadata-Version: 2.1\nName: {self.spelling}\nVersion: {self.version}\n"
        files[f"{info}/METADATA"] = metadata.encode()
        files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        rows = [f"{path},{record_digest(content)},{len(content)}" for path, content in files.items()]
        files[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,", ""]).encode()
        return {f"{self.place}/{path}" if self.place else path: content for path, content in files.items()}


def errors_of(merged: Merged) -> set[str]:
    return {finding.code for finding in merged.stack.findings() if finding.severity == "error"}


def install(
    interpreter: Interpreter, layers: list[Distribution], function: Distribution | None = None
) -> tuple[set[str], bool, bool]:
    """The errors found in such a stack, whether it mixes versions, and whether it has but one of them in sight."""
    merged = merge(interpreter, [each.files() for each in layers], function.files() if function else None)
    everything = [*layers, *([function] if function else [])]
    names = sorted({"demo", *(name for each in everything for name in each.modules())})
    assert merged.compare(names) == []
    answer = merged.ask(names, "demo")
    # The folder that answers for the distribution, and what has been installed there, the last last.
    order = ["", SITE, "python"]
    place = min((each.place for each in everything), key=order.index)
    there = [each for each in everything if each.place == place]
    assert answer["versions"]["demo"] in {each.version for each in there}
    versions = {name: module and module["says"] for name, module in answer["modules"].items()}
    in_sight = {version for version in versions.values() if version} | {each.version for each in there}
    mixed = len({each.version for each in there}) > 1 or any(
        versions[name] != there[-1].version for name in there[-1].modules()
    )
    errors = errors_of(merged)
    if not errors & TORN:
        assert not mixed
        assert answer["versions"]["demo"] == versions["demo.core" if there[-1].shape == "namespace" else "demo"]
    return errors, mixed, len(in_sight) == 1


DISTRIBUTIONS = st.builds(
    Distribution,
    version=st.just(""),
    shape=st.sampled_from(["package", "module", "modules", "namespace"]),
    place=st.sampled_from([SITE, "python"]),
    spelling=st.sampled_from(["demo", "demo", "Demo"]),
)


@settings(RANDOM, max_examples=200)
@given(
    layers=st.lists(DISTRIBUTIONS, min_size=2, max_size=3),
    function=st.none() | DISTRIBUTIONS,
    versions=st.permutations(["1.0", "2.0", "3.0", "4.0"]),
)
def test_versions_of_a_distribution_agree_or_are_found_not_to(
    interpreter: Interpreter, layers: list[Distribution], function: Distribution | None, versions: list[str]
) -> None:
    numbered = [replace(each, version=version) for each, version in zip(layers, versions, strict=False)]
    code = function and replace(function, version=versions[-1], place="")
    errors, mixed, alone = install(interpreter, numbered, code)
    event("mixed" if mixed else "one version in sight" if alone else "other versions in sight")
    if alone and len({each.place for each in numbered}) == len(numbered):
        assert not errors & TORN


@pytest.mark.parametrize("shape", ["package", "module", "modules", "namespace"])
def test_two_versions_in_one_folder_have_two_dist_infos(interpreter: Interpreter, shape: str) -> None:
    errors, mixed, _ = install(interpreter, [Distribution("1.0", shape), Distribution("2.0", shape)])
    assert mixed
    assert "stack-two-dist-infos" in errors


def test_a_name_spelled_otherwise_is_the_same_distribution(interpreter: Interpreter) -> None:
    errors, _, _ = install(interpreter, [Distribution("1.0"), Distribution("2.0", spelling="Demo")])
    assert "stack-two-dist-infos" in errors


@pytest.mark.parametrize("places", [(SITE, "python"), ("python", SITE)])
@pytest.mark.parametrize("shape", ["package", "module"])
def test_versions_in_different_folders_are_whole(
    interpreter: Interpreter, places: tuple[str, str], shape: str
) -> None:
    first, last = places
    errors, mixed, alone = install(
        interpreter, [Distribution("1.0", shape, first), Distribution("2.0", shape, last)], None
    )
    assert not mixed
    assert alone
    assert not errors & TORN


def test_a_package_elsewhere_takes_the_place_of_a_namespace_package(interpreter: Interpreter) -> None:
    """What importlib.metadata says is 1.0, as site-packages come first; what is imported is 2.0."""
    errors, mixed, _ = install(
        interpreter, [Distribution("1.0", "namespace"), Distribution("2.0", "package", "python")]
    )
    assert mixed
    assert "stack-torn" in errors


def test_the_same_version_twice_is_whole(interpreter: Interpreter) -> None:
    errors, mixed, alone = install(interpreter, [Distribution("1.0"), Distribution("1.0")])
    assert not mixed
    assert alone
    assert not errors & TORN
