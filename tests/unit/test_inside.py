"""The program inside build containers: as far as it runs on any Linux, and with its tools where there is an index."""

from __future__ import annotations

import ctypes
import importlib.util
import io
import json
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

import layerbuild
from layerbuild.target import runtimes
from layerbuild.wheel import read_facts
from tests.conftest import Ran
from tests.elf_files import gcc, library, with_machine
from tests.interpreters import find_python
from tests.wheels import make_wheel

PROGRAM = Path(layerbuild.__file__).parent / "builders" / "context" / "inside.py"
TOOLS = PROGRAM.with_name("tools.txt")
ANSWER = "int answer(void) { return 42; }\nstatic int numbers[500] = {1};\nint *where(void) { return numbers; }\n"
SHF_ALLOC = 2
SAYS = '#include <stdio.h>\nint main(void) { puts("fine"); return 0; }\n'

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="containers run Linux")


@pytest.fixture(scope="module")
def inside() -> ModuleType:
    spec = importlib.util.spec_from_file_location("inside", PROGRAM)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compiled(path: Path, source: str, *flags: str | Path) -> Path:
    """A real file of a C compiler, with debug sections, linked against the C library."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = ["-shared", "-fPIC"] if ".so" in path.name else []
    gcc("-g", "-O1", *kind, "-x", "c", "-", "-x", "none", "-o", path, *flags, source=source)
    return path


def debug_sections(path: Path) -> set[str]:
    with path.open("rb") as file:
        return {section.name for section in ELFFile(file).iter_sections() if section.name.startswith(".debug_")}


# Files that are stripped.


def require_strip() -> None:
    if shutil.which("strip") is None:
        pytest.skip("there is no strip here")


@pytest.mark.parametrize("mode", [0o755, 0o644, 0o600])
def test_a_library_loses_its_debug_sections_and_nothing_that_is_loaded(
    mode: int, inside: ModuleType, tmp_path: Path
) -> None:
    require_strip()
    path = compiled(tmp_path / "libanswer.so", ANSWER)
    path.chmod(mode)
    size, loaded = path.stat().st_size, inside.loaded_bytes(path)
    assert ".debug_info" in debug_sections(path)
    inside.strip(path)
    assert debug_sections(path) == set()
    assert path.stat().st_size < size
    assert inside.loaded_bytes(path) == loaded
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert [entry.name for entry in tmp_path.iterdir()] == ["libanswer.so"]
    assert ctypes.CDLL(str(path)).answer() == 42


def test_a_program_loses_its_debug_sections_and_still_runs(inside: ModuleType, tmp_path: Path) -> None:
    require_strip()
    path = compiled(tmp_path / "says", SAYS)
    inside.strip(path)
    assert debug_sections(path) == set()
    assert subprocess.run([path], capture_output=True, text=True, check=True).stdout == "fine\n"


def test_stripping_twice_changes_nothing_more(inside: ModuleType, tmp_path: Path) -> None:
    require_strip()
    path = compiled(tmp_path / "libanswer.so", ANSWER)
    inside.strip(path)
    once = path.read_bytes()
    inside.strip(path)
    assert path.read_bytes() == once


def test_a_library_that_lacks_another_one_here_is_stripped_too(inside: ModuleType, tmp_path: Path) -> None:
    require_strip()
    needed = compiled(tmp_path / "libanswer.so", ANSWER, "-Wl,-soname,libanswer.so.1")
    path = compiled(tmp_path / "libmore.so", "int answer(void); int more(void) { return answer() + 1; }", needed)
    assert not inside.loads(path)
    inside.strip(path)
    assert debug_sections(path) == set()


def test_debug_sections_that_are_loaded_stay(inside: ModuleType, tmp_path: Path) -> None:
    require_strip()
    kept = '__attribute__((section(".debug_kept"))) const int kept = 7;\nint answer(void) { return kept; }\n'
    path = compiled(tmp_path / "libkept.so", kept)
    with path.open("rb") as file:
        section: Any = ELFFile(file).get_section_by_name(".debug_kept")
        assert section["sh_flags"] & SHF_ALLOC
    loaded = inside.loaded_bytes(path)
    inside.strip(path)
    assert inside.loaded_bytes(path) == loaded
    assert ctypes.CDLL(str(path)).answer() == 7


@pytest.mark.parametrize(
    "content", [b"", b"\x7fEL", b"#!/bin/sh\n", b"text\n", b"!<arch>\n", bytes(5000), b"\x7fELF" + b"x" * 500]
)
def test_what_is_no_sound_elf_file_is_left_alone(content: bytes, inside: ModuleType, tmp_path: Path) -> None:
    require_strip()
    path = tmp_path / "file"
    path.write_bytes(content)
    inside.strip(path)
    assert path.read_bytes() == content
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_links_and_folders_are_left_alone(inside: ModuleType, tmp_path: Path) -> None:
    path = compiled(tmp_path / "real" / "libanswer.so", ANSWER)
    before = path.read_bytes()
    link = tmp_path / "libanswer.so"
    link.symlink_to(path)
    (tmp_path / "dangling").symlink_to("nowhere")
    for place in (link, tmp_path / "dangling", tmp_path / "real", tmp_path / "no such file"):
        assert not inside.is_elf(place)
        inside.strip(place)
    assert link.is_symlink()
    assert path.read_bytes() == before
    assert inside.is_elf(path)


def test_a_file_for_another_machine_is_left_alone_or_loads_the_same(inside: ModuleType, tmp_path: Path) -> None:
    require_strip()
    path = tmp_path / "libother.so"
    path.write_bytes(library("libother.so", machine="aarch64", source=ANSWER, compile_flags=("-fPIC", "-g")))
    loaded = inside.loaded_bytes(path)
    inside.strip(path)
    assert inside.loaded_bytes(path) == loaded


@pytest.fixture
def fake_strip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes ``strip`` a Python program of which `data` is the file and which writes it as it then is."""

    def make(code: str) -> None:
        folder = tmp_path / "programs"
        folder.mkdir()
        program = folder / "strip"
        program.write_text(
            f"#!{sys.executable}\nimport pathlib, sys\n_, option, o, out, path = sys.argv\n"
            'assert (option, o) == ("--strip-debug", "-o")\n'
            f"data = bytearray(pathlib.Path(path).read_bytes())\n{code}\npathlib.Path(out).write_bytes(data)\n"
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)

    return make


@pytest.mark.parametrize(
    "code",
    [
        "raise SystemExit('cannot')",
        "data += b'x'; pathlib.Path(out).write_bytes(data); raise SystemExit(1)",
        "at = data.index(b'answer'); data[at] ^= 1",
        "data[18] ^= 1",
        *(f"data = data[:{kept}]" for kept in ("0", "3", "40", "200", "len(data) // 2", "len(data) - 1")),
    ],
)
def test_what_strip_would_break_is_left_alone(
    code: str,
    inside: ModuleType,
    fake_strip: Callable[[str], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = compiled(tmp_path / "build" / "libanswer.so", ANSWER)
    before = path.read_bytes()
    fake_strip(code)
    inside.strip(path)
    assert capsys.readouterr().out.startswith("not stripped: libanswer.so: ")
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["libanswer.so"]


def test_what_strip_does_to_what_is_not_loaded_is_taken(
    inside: ModuleType, fake_strip: Callable[[str], None], tmp_path: Path
) -> None:
    path = compiled(tmp_path / "build" / "libanswer.so", ANSWER)
    before = path.read_bytes()
    fake_strip("data += b'behind all that is loaded'")
    inside.strip(path)
    assert path.read_bytes() == before + b"behind all that is loaded"


def test_a_digest_of_what_is_loaded_tells_any_change_of_it(inside: ModuleType, tmp_path: Path) -> None:
    path = compiled(tmp_path / "libanswer.so", ANSWER)
    loaded, data = inside.loaded_bytes(path), path.read_bytes()
    with path.open("rb") as file:
        segments = [dict(one.header) for one in ELFFile(file).iter_segments() if one["p_type"] == "PT_LOAD"]
    for segment in segments:
        if not segment["p_filesz"]:
            continue
        for at in (max(segment["p_offset"], 64), segment["p_offset"] + segment["p_filesz"] - 1):
            changed = bytearray(data)
            changed[at] ^= 1
            path.write_bytes(changed)
            assert inside.loaded_bytes(path) != loaded, hex(at)
    path.write_bytes(data + b"more")
    assert inside.loaded_bytes(path) == loaded


def test_what_loads_and_what_does_not(inside: ModuleType, tmp_path: Path) -> None:
    if shutil.which("ldd") is None:
        pytest.skip("there is no ldd here")
    good = compiled(tmp_path / "libanswer.so", ANSWER)
    lacking = compiled(tmp_path / "liblacking.so", "extern int nowhere; int *more(void) { return &nowhere; }")
    broken = tmp_path / "libbroken.so"
    broken.write_bytes(good.read_bytes()[:500])
    other = tmp_path / "libother.so"
    other.write_bytes(with_machine(good.read_bytes(), "riscv"))
    text = tmp_path / "text"
    text.write_text("text")
    program = compiled(tmp_path / "says", SAYS)
    assert [inside.loads(path) for path in (good, program)] == [True, True]
    assert [inside.loads(path) for path in (lacking, broken, other, text)] == [False] * 4


# Files that are taken out of an image.


def tree(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return folder


def test_a_folder_is_taken_with_all_that_is_in_it(inside: ModuleType, tmp_path: Path) -> None:
    source = tree(tmp_path / "source", "b", "a/2", "a/1/x", "c/.hidden", "a b/c d")
    to = Path("opt/share")
    assert inside.below(source, to) == [
        (source / "b", to / "b"),
        (source / "a/2", to / "a/2"),
        (source / "a/1/x", to / "a/1/x"),
        (source / "a b/c d", to / "a b/c d"),
        (source / "c/.hidden", to / "c/.hidden"),
    ]
    assert inside.below(source / "b", to) == [(source / "b", to)]
    (tmp_path / "link").symlink_to(source)
    assert len(inside.below(tmp_path / "link", to)) == 5


def test_folders_that_are_links_are_taken_too(inside: ModuleType, tmp_path: Path) -> None:
    source = tree(tmp_path / "source", "real/file")
    (source / "link").symlink_to("real")
    places = [str(place) for _, place in inside.below(source, Path("to"))]
    assert sorted(places) == ["to/link/file", "to/real/file"]


def place(inside: ModuleType, source: Path, to: Path, placed: dict[Path, Path], *, strip_it: bool = False) -> None:
    inside.place_file(source, to, placed, strip_it=strip_it)


@pytest.mark.parametrize(("mode", "expected"), [(0o755, 0o755), (0o600, 0o644), (0o711, 0o755), (0o4755, 0o755)])
def test_a_file_is_placed_with_one_of_two_modes(mode: int, expected: int, inside: ModuleType, tmp_path: Path) -> None:
    source, to = tree(tmp_path, "source") / "source", tmp_path / "opt/bin/to"
    source.chmod(mode)
    placed: dict[Path, Path] = {}
    place(inside, source, to, placed)
    assert to.read_text() == "source"
    assert stat.S_IMODE(to.stat().st_mode) == expected
    assert placed == {to: source}


def test_links_are_followed(inside: ModuleType, tmp_path: Path) -> None:
    tree(tmp_path, "source")
    (tmp_path / "link").symlink_to("source")
    place(inside, tmp_path / "link", tmp_path / "to", {})
    assert not (tmp_path / "to").is_symlink()
    assert (tmp_path / "to").read_text() == "source"


def test_two_files_with_one_place_are_told_unless_they_are_the_same(inside: ModuleType, tmp_path: Path) -> None:
    tree(tmp_path, "one", "two")
    (tmp_path / "same").write_text("one")
    placed: dict[Path, Path] = {}
    to = tmp_path / "opt/to"
    place(inside, tmp_path / "one", to, placed)
    place(inside, tmp_path / "one", to, placed)
    place(inside, tmp_path / "same", to, placed)
    with pytest.raises(SystemExit, match=r"^layerbuild: two files would be .*opt/to: .*two and .*one$"):
        place(inside, tmp_path / "two", to, placed)
    assert to.read_text() == "one"


def test_a_file_may_be_placed_again_after_it_was_placed_elsewhere(inside: ModuleType, tmp_path: Path) -> None:
    tree(tmp_path, "one")
    placed: dict[Path, Path] = {}
    for name in ("a", "b", "a"):
        place(inside, tmp_path / "one", tmp_path / "opt" / name, placed)


def test_what_is_no_file_is_told(inside: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    for source in (tmp_path / "dangling", tmp_path / "pipe", tmp_path / "none", tmp_path):
        with pytest.raises(SystemExit, match=r"^layerbuild: .* is no file$"):
            place(inside, source, tmp_path / "to", {})


@pytest.mark.parametrize("first", ["opt/x", "opt/x/deeper"])
def test_a_file_where_a_folder_is_and_the_other_way_round_are_told(
    first: str, inside: ModuleType, tmp_path: Path
) -> None:
    tree(tmp_path, "one", "two")
    second = {"opt/x": "opt/x/deeper", "opt/x/deeper": "opt/x"}[first]
    place(inside, tmp_path / "one", tmp_path / first, {})
    with pytest.raises(SystemExit, match=r"^layerbuild: "):
        place(inside, tmp_path / "two", tmp_path / second, {})


def test_a_file_is_stripped_where_it_is_placed_not_where_it_came_from(inside: ModuleType, tmp_path: Path) -> None:
    require_strip()
    source = compiled(tmp_path / "libanswer.so", ANSWER)
    place(inside, source, tmp_path / "opt/lib/libanswer.so", {}, strip_it=True)
    assert debug_sections(source)
    assert not debug_sections(tmp_path / "opt/lib/libanswer.so")


def test_a_file_that_is_placed_twice_may_be_stripped(inside: ModuleType, tmp_path: Path) -> None:
    require_strip()
    source = compiled(tmp_path / "libanswer.so", ANSWER)
    placed: dict[Path, Path] = {}
    for _ in range(2):
        place(inside, source, tmp_path / "opt/lib/libanswer.so", placed, strip_it=True)


# pip.


SHOWS_NAMES = """\
import os, sys, tempfile
print(sys.argv[1:], __name__)
for _ in range(3):
    print(os.path.basename(tempfile.mkdtemp()))
print(os.path.basename(tempfile.NamedTemporaryFile().name))
sys.exit()
"""


@pytest.mark.parametrize("version", [runtime.name.removeprefix("python") for runtime in runtimes()[1:]])
def test_temporary_names_of_pip_are_the_same_in_every_process(version: str, tmp_path: Path) -> None:
    (tmp_path / "modules" / "pip").mkdir(parents=True)
    (tmp_path / "modules" / "pip" / "__init__.py").touch()
    (tmp_path / "modules" / "pip" / "__main__.py").write_text(SHOWS_NAMES)

    def run(*before: str | Path, folder: str) -> list[str]:
        (tmp_path / folder).mkdir()
        env = {"PYTHONPATH": str(tmp_path / "modules"), "TMPDIR": str(tmp_path / folder), "PYTHONHASHSEED": "0"}
        command = [find_python(version), *before, "wheel", "--no-deps"]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.splitlines()

    first, second = (run(PROGRAM, "pip", folder=folder) for folder in ("one", "two"))
    assert first[0] == "['wheel', '--no-deps'] __main__"
    assert first == second
    assert len(set(first)) == 5
    assert run("-m", "pip", folder="three")[1:] != first[1:]


def test_pip_builds_at_the_same_place_in_every_process(tmp_path: Path) -> None:
    backend = """\
import os


def build_wheel(folder, config_settings=None, metadata_directory=None):
    with open(os.environ["NOTES"], "a") as notes:
        notes.write(os.getcwd() + "\\n")
    raise SystemExit(1)
"""
    texts = {
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        "backend.py": backend
        + """

def prepare_metadata_for_build_wheel(folder, config_settings=None):
    place = os.path.join(folder, "demo-1.0.dist-info")
    os.mkdir(place)
    with open(os.path.join(place, "METADATA"), "w") as file:
        file.write("Metadata-Version: 2.1\\nName: demo\\nVersion: 1.0\\n")
    return "demo-1.0.dist-info"
""",
        "PKG-INFO": "Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n",
    }
    with tarfile.open(tmp_path / "demo-1.0.tar.gz", "w:gz") as archive:
        for name, text in texts.items():
            entry = tarfile.TarInfo(f"demo-1.0/{name}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    notes = tmp_path / "notes"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    env = {**kept, "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "TMPDIR": str(tmp_path / "tmp")}
    for _ in range(2):
        (tmp_path / "tmp").mkdir()
        command = [sys.executable, PROGRAM, "pip", "wheel", "--no-deps", "--find-links", tmp_path, "demo"]
        done = subprocess.run(
            list(map(str, command)),
            cwd=tmp_path,
            env={**env, "NOTES": str(notes), "PIP_CACHE_DIR": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1, done.stdout + done.stderr
        shutil.rmtree(tmp_path / "tmp")
    first, second = notes.read_text().splitlines()
    assert first == second
    assert Path(first).is_relative_to((tmp_path / "tmp").resolve())


# With the tools of a build image.


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has the tools of build images, as they have them."""
    folder = tmp_path_factory.mktemp("tools")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    options = ("--quiet", "--require-hashes", "--only-binary", ":all:", "--disable-pip-version-check")
    done = subprocess.run(
        [python, "-m", "pip", "install", *options, "--requirement", TOOLS], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return python


@pytest.fixture
def call(tools: Path, tmp_path: Path) -> Callable[..., Ran]:
    """Runs a command in a new folder, as in a container; what it makes is in ``out`` there."""

    def run(command: str, spec: Mapping[str, Any], folder: Path = tmp_path, **variables: str) -> Ran:
        folder.mkdir(exist_ok=True)
        (folder / "out").mkdir(exist_ok=True)
        (folder / "spec.json").write_text(json.dumps(spec))
        path = os.pathsep.join([str(tools.parent), os.environ["PATH"]])
        env = {"PATH": path, "SOURCE_DATE_EPOCH": "315532800", "LC_ALL": "C.UTF-8", **variables}
        done = subprocess.run(
            [tools, PROGRAM, command, "spec.json"], cwd=folder, env=env, capture_output=True, text=True
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    return run


PRESENT = ["libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"]


def spec_of(*rules: tuple[Path | str, str], strip: bool = False, present: list[str] = PRESENT) -> dict[str, Any]:
    """What ``files`` is asked for."""
    rows = [{"from": str(source), "to": to} for source, to in rules]
    return {"name": "demo_files", "version": "0", "files": rows, "present": present, "strip": strip, "out": "out"}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A folder with programs that share a library, which needs another one; no path of another machine in them."""
    folder = tmp_path / "image"
    deep = compiled(folder / "libdeep.so.1", ANSWER, "-Wl,-soname,libdeep.so.1")
    source = "int answer(void); int more(void) { return answer() + 1; }\n"
    high = compiled(folder / "libhigh.so.2.0", source, "-Wl,-soname,libhigh.so.2", deep)
    (folder / "libhigh.so.2").symlink_to(high.name)
    for name in ("one", "two"):
        code = (
            f'#include <stdio.h>\nint more(void);\nint main(void) {{ printf("{name} %d\\n", more()); return 0; }}\n'
        )
        compiled(folder / name, code, high, deep, f"-Wl,-rpath-link,{folder}")
    return folder


def unpacked(folder: Path) -> Path:
    """The one wheel of a folder ``out``, seen to be honest, unpacked as a layer."""
    (wheel,) = (folder / "out").iterdir()
    read_facts(wheel, wheel.name)
    with zipfile.ZipFile(wheel) as archive:
        for info in archive.infolist():
            path = Path(archive.extract(info, folder / "unpacked"))
            if info.external_attr >> 16 & 0o111 and path.is_file():
                path.chmod(0o755)
    return folder / "unpacked" / f"{'-'.join(wheel.name.split('-')[:2])}.data" / "opt"


def everything_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def machine() -> str:
    return os.uname().machine


@pytest.mark.network
@pytest.mark.parametrize("strip", [False, True])
def test_a_program_comes_with_the_libraries_that_it_needs(
    strip: bool, call: Callable[..., Ran], image: Path, tmp_path: Path
) -> None:
    tree(image, "data/a", "data/b/c")
    spec = spec_of((image / "one", "bin/"), (image / "data", "share/"), (image / "d*/a", "share/other"), strip=strip)
    ran = call("files", spec, LD_LIBRARY_PATH=str(image))
    assert ran.code == 0, ran.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"demo_files-0-py3-none-linux_{machine()}.whl"]
    opt = unpacked(tmp_path)
    assert everything_in(opt) == [
        *("bin/one", "lib/libdeep.so.1", "lib/libhigh.so.2", "share/data/a", "share/data/b/c", "share/other"),
    ]
    assert {bool(debug_sections(opt / name)) for name in ("bin/one", "lib/libhigh.so.2")} == {not strip}
    env = {"LD_LIBRARY_PATH": str(opt / "lib")}
    assert subprocess.run([opt / "bin/one"], env=env, capture_output=True, text=True, check=True).stdout == "one 43\n"


@pytest.mark.network
def test_libraries_that_the_runtime_has_are_left_out(call: Callable[..., Ran], image: Path, tmp_path: Path) -> None:
    ran = call(
        "files", spec_of((image / "one", "bin/x"), present=[*PRESENT, "libhigh.so.2"]), LD_LIBRARY_PATH=str(image)
    )
    assert ran.code == 0, ran.err
    assert [name for name in everything_in(unpacked(tmp_path)) if "high" in name] == []


@pytest.mark.network
@pytest.mark.parametrize(
    "strip",
    [False, True],
)
def test_programs_may_share_a_library(strip: bool, call: Callable[..., Ran], image: Path, tmp_path: Path) -> None:
    ran = call("files", spec_of((image / "[ot][nw]*", "bin/"), strip=strip), LD_LIBRARY_PATH=str(image))
    assert ran.code == 0, ran.err
    found = everything_in(unpacked(tmp_path))
    assert found == ["bin/one", "bin/two", "lib/libdeep.so.1", "lib/libhigh.so.2"]


@pytest.mark.network
def test_a_library_that_a_rule_places_is_not_placed_again(
    call: Callable[..., Ran], image: Path, tmp_path: Path
) -> None:
    spec = spec_of((image / "libhigh.so.2", "lib/"), (image / "one", "bin/"))
    assert call("files", spec, LD_LIBRARY_PATH=str(image)).code == 0
    assert everything_in(unpacked(tmp_path)) == ["bin/one", "lib/libdeep.so.1", "lib/libhigh.so.2"]


@pytest.mark.network
def test_the_same_files_make_the_same_wheel(call: Callable[..., Ran], image: Path, tmp_path: Path) -> None:
    tree(image, "data/b", "data/a", "data/c/d")
    spec = spec_of((image / "one", "bin/"), (image / "data", "share/"))
    made = []
    for name in ("first", "second"):
        ran = call("files", spec, tmp_path / name, LD_LIBRARY_PATH=str(image))
        assert ran.code == 0, ran.err
        (wheel,) = (tmp_path / name / "out").iterdir()
        made.append(wheel.read_bytes())
        for path in image.rglob("*"):
            os.utime(path, (0, 0), follow_symlinks=False)
    assert made[0] == made[1]


@pytest.mark.network
@pytest.mark.parametrize(
    ("source", "to", "expected"),
    [
        ("nowhere", "bin/", "layerbuild: the image has no {image}/nowhere"),
        ("none/*", "share/", "layerbuild: the image has no {image}/none/*"),
        ("lib*", "lib/x", "layerbuild: {image}/lib* is several files: `to` must be a folder and end with /"),
        ("one", "bin/", "layerbuild: {image}/one needs libhigh.so.2, which the image has not"),
    ],
)
def test_what_cannot_be_taken_is_told(
    source: str, to: str, expected: str, call: Callable[..., Ran], image: Path, tmp_path: Path
) -> None:
    ran = call("files", spec_of((image / source, to)))
    assert ran.code == 1
    assert ran.err == expected.format(image=image) + "\n"
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.network
@pytest.mark.parametrize("source", ["/", "{image}/**x", "{image}/empty"])
def test_what_cannot_be_a_pattern_or_has_nothing_in_it_is_told(
    source: str, call: Callable[..., Ran], image: Path
) -> None:
    (image / "empty").mkdir()
    ran = call("files", spec_of((source.format(image=image), "share/")))
    assert ran.code == 1
    assert ran.err.startswith("layerbuild: ")
    assert "Traceback" not in ran.err


def python_tag() -> str:
    version = f"cp{sys.version_info.major}{sys.version_info.minor}"
    return f"{version}-{version}-linux_{machine()}"


@pytest.mark.network
@pytest.mark.parametrize("strip", [False, True])
def test_a_wheel_is_repaired_by_what_the_runtime_lacks(
    strip: bool, call: Callable[..., Ran], image: Path, tmp_path: Path
) -> None:
    code = "int more(void); int most(void) { return more() + 1; }\n"
    extension = compiled(tmp_path / "made/_demo.so", code, image / "libhigh.so.2.0", f"-Wl,-rpath-link,{image}")
    files: dict[str, str | bytes] = {"demo/__init__.py": "", "demo/_demo.so": extension.read_bytes()}
    built = make_wheel(tmp_path / "built", "demo", files=files, tag=python_tag())
    spec = {"built": "built", "out": "out", "strip": strip, "present": PRESENT}
    ran = call("repair", spec, LD_LIBRARY_PATH=str(image))
    assert ran.code == 0, ran.out + ran.err
    (wheel,) = (tmp_path / "out").iterdir()
    assert wheel.name == built.name
    read_facts(wheel, wheel.name)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    names = [name.split("-")[0] for name in everything_in(tmp_path / "installed/demo.libs")]
    assert names == ["libdeep", "libhigh"]
    installed = tmp_path / "installed/demo/_demo.so"
    assert bool(debug_sections(installed)) != strip
    load = "import ctypes, sys; print(ctypes.CDLL(sys.argv[1]).most())"
    done = subprocess.run([sys.executable, "-c", load, installed], capture_output=True, text=True, env={})
    assert done.stdout == "44\n", done.stderr


@pytest.mark.network
def test_what_needs_nothing_is_passed_through(call: Callable[..., Ran], tmp_path: Path) -> None:
    plain = make_wheel(tmp_path / "built", "plain")
    code = compiled(tmp_path / "made/_own.so", ANSWER).read_bytes()
    own = make_wheel(tmp_path / "built", "own", files={"_own.so": code}, tag=python_tag())
    ran = call("repair", {"built": "built", "out": "out", "strip": False, "present": PRESENT})
    assert ran.code == 0, ran.out + ran.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted([plain.name, own.name])
    with zipfile.ZipFile(tmp_path / "out" / own.name) as archive:
        assert archive.read("_own.so") == code
    for path in (tmp_path / "out").iterdir():
        read_facts(path, path.name)


@pytest.mark.network
def test_a_repaired_wheel_depends_on_nothing_but_its_content(
    call: Callable[..., Ran], image: Path, tmp_path: Path
) -> None:
    code = "int more(void); int most(void) { return more() + 1; }\n"
    extension = compiled(tmp_path / "made/_demo.so", code, image / "libhigh.so.2.0", f"-Wl,-rpath-link,{image}")
    files: dict[str, str | bytes] = {"demo/_demo.so": extension.read_bytes(), "demo/a.py": "", "demo/b.py": ""}
    made = []
    for name, order in (("first", list(files)), ("second", list(reversed(files)))):
        make_wheel(tmp_path / name / "built", "demo", files={key: files[key] for key in order}, tag=python_tag())
        spec = {"built": "built", "out": "out", "strip": True, "present": PRESENT}
        ran = call("repair", spec, tmp_path / name, LD_LIBRARY_PATH=str(image))
        assert ran.code == 0, ran.out + ran.err
        (wheel,) = (tmp_path / name / "out").iterdir()
        made.append(wheel.read_bytes())
    assert made[0] == made[1]


@pytest.mark.network
def test_a_library_that_is_nowhere_is_told(call: Callable[..., Ran], image: Path, tmp_path: Path) -> None:
    code = "int more(void); int most(void) { return more() + 1; }\n"
    extension = compiled(tmp_path / "made/_demo.so", code, image / "libhigh.so.2.0", f"-Wl,-rpath-link,{image}")
    make_wheel(tmp_path / "built", "demo", files={"_demo.so": extension.read_bytes()}, tag=python_tag())
    ran = call("repair", {"built": "built", "out": "out", "strip": False, "present": PRESENT})
    assert ran.code != 0
    assert "libhigh.so.2" in ran.out + ran.err
