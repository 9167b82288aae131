"""Runs inside the build container, by the target's own interpreter; layerbuild itself never imports it.

inside.py pip ARGUMENT...     pip, with temporary folders whose names are the same in every build
inside.py repair SPEC.json    what pip built, into wheels that bring along the libraries that they need
inside.py files SPEC.json     files of the image and the libraries that they need, as a wheel
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import random
import runpy
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

TOOLS = Path("/usr/local/layerbuild/venv/bin")
POLICY = "manylinux_2_99"


def main() -> None:
    """Runs the command that the arguments name."""
    command, *arguments = sys.argv[1:]
    if command == "pip":
        run_pip(arguments)
    spec = json.loads(Path(arguments[0]).read_text("utf-8"))
    {"repair": repair, "files": files}[command](spec)


def run_pip(arguments: list[str]) -> None:
    """Runs pip. Compilers write the paths of its temporary folders into what they make, so these must not vary."""
    # Numbered by kind: which others pip needs depends on where it has its files from.
    tempfile.mkdtemp = numbered_folder  # type: ignore[assignment]
    # Names of files come from a generator that has no public way to be seeded.
    names, seeded = tempfile._RandomNameSequence, random.Random(0)  # type: ignore[attr-defined]
    names.rng = property(lambda _self: seeded)
    # pip itself adds such a one to the name of the folder in which it builds.
    uuid.uuid4 = lambda: uuid.UUID(int=0)
    for name in ("CFLAGS", "CXXFLAGS"):
        # Flags in the environment take the place of Python's own in new setuptools: so they must be among them.
        # -ffile-prefix-map would say more, but Amazon Linux 2's GCC 7 does not know it.
        own, mapped = sysconfig.get_config_var("CFLAGS") or "", "-g0 -fdebug-prefix-map=/build/tmp=."
        os.environ[name] = " ".join(filter(None, (own, mapped, os.environ.get(name))))
    sys.argv = ["pip", *arguments]
    runpy.run_module("pip", run_name="__main__", alter_sys=True)


def numbered_folder(suffix: str | None = None, prefix: str | None = None, dir: str | None = None) -> str:  # noqa: A002
    """As tempfile.mkdtemp, but named by how many there were."""
    for number in itertools.count():
        path = Path(dir or tempfile.gettempdir(), f"{prefix or 'tmp'}{number}{suffix or ''}").absolute()
        with contextlib.suppress(FileExistsError):
            path.mkdir(0o700)
            return str(path)
    raise AssertionError


def repair(spec: dict[str, object]) -> None:
    """Writes each wheel of a folder to another, with the system libraries that the runtime lacks inside.

    auditwheel copies the libraries and rewrites names and RPATHs; which of them the runtime has is not its own
    policy's to say but `spec`'s.
    """
    built, out, policy = Path(str(spec["built"])), Path(str(spec["out"])), Path("policy.json")
    from auditwheel import policy as policies
    from auditwheel.libc import Libc
    from auditwheel.main import main as auditwheel
    from auditwheel.wheeltools import InWheelCtx

    machine = os.uname().machine
    rows = [
        {"name": "linux", "aliases": [], "priority": 0, "symbol_versions": {}, "lib_whitelist": [], "blacklist": {}},
        {
            "name": POLICY,
            "aliases": [],
            "priority": 10,
            # Whether the runtime's symbols are new enough is for checks to say.
            "symbol_versions": {machine: {}},
            "lib_whitelist": spec["present"],
            "blacklist": {},
        },
    ]
    policy.write_text(json.dumps(rows), "utf-8")
    policies._POLICY_JSON_MAP[Libc.GLIBC] = policy.absolute()
    work = Path("plain")
    for folder in (work, out):
        folder.mkdir(exist_ok=True)
    for wheel in sorted(built.glob("*.whl")):
        # Sorted and dated the same in every build, whatever the backend did.
        with InWheelCtx(wheel, work / wheel.name) as unpacked:
            if spec["strip"]:
                for path in sorted(unpacked.path.rglob("*")):
                    strip(path)
        sys.argv = [
            *("auditwheel", "repair", "--plat", f"{POLICY}_{machine}", "--no-update-tags", "--only-plat"),
            *(
                "--disable-isa-ext-check",
                "--allow-pure-python-wheel",
                "--wheel-dir",
                str(out),
                str(work / wheel.name),
            ),
        ]
        if code := auditwheel():
            sys.exit(code)
        if not (out / wheel.name).exists():  # compiled, and in need of nothing
            shutil.copy(work / wheel.name, out)


def is_elf(path: Path) -> bool:
    """Whether a path is an ELF file, not a link to one."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def strip(path: Path) -> None:
    """Takes the debug sections out of an ELF file, unless what is loaded of it would change or it no longer loads."""
    if not is_elf(path):
        return
    stripped = path.with_name(path.name + ".stripped")
    done = subprocess.run(
        ["strip", "--strip-debug", "-o", stripped, path], capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(f"not stripped: {path.name}: {done.stderr.strip()}")
    elif breaks(path, stripped):
        print(f"not stripped: {path.name}: strip would break it")
    else:
        shutil.copymode(path, stripped)
        stripped.replace(path)
    stripped.unlink(missing_ok=True)


def breaks(path: Path, stripped: Path) -> bool:
    """Whether what is loaded of a stripped file is not what it was, or it no longer loads."""
    from elftools.common.exceptions import ELFError

    try:
        return loaded_bytes(path) != loaded_bytes(stripped) or (loads(path) and not loads(stripped))
    except (ELFError, OSError):
        return True


def loaded_bytes(path: Path) -> str:
    """A digest of all that the loader maps of an ELF file, and where to.

    Of a segment that begins with the ELF header, that header is left out: it says where the section headers are.
    """
    from elftools.elf.elffile import ELFFile

    digest = hashlib.sha256()
    with path.open("rb") as file:
        elf = ELFFile(file)
        headers = elf.header["e_ehsize"]
        for segment in elf.iter_segments():
            if segment["p_type"] == "PT_LOAD":
                data = segment.data()
                digest.update(repr((segment["p_vaddr"], segment["p_memsz"], segment["p_flags"])).encode())
                digest.update(data[headers:] if segment["p_offset"] == 0 else data)
    return digest.hexdigest()


def loads(path: Path) -> bool:
    """Whether the dynamic loader takes a file: a library into a Python process, a program by its own loader."""
    code = "import ctypes, sys; ctypes.CDLL(sys.argv[1], ctypes.RTLD_GLOBAL | 1)"
    done = subprocess.run([sys.executable, "-c", code, path.absolute()], capture_output=True, check=False, timeout=60)
    if done.returncode == 0:
        return True
    listed = subprocess.run(
        ["ldd", "-r", path.absolute()],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return listed.returncode == 0 and "undefined symbol" not in listed.stdout + listed.stderr


def files(spec: dict[str, object]) -> None:
    """Makes a wheel whose data folder ``opt`` has files of this image, and the libraries that they need.

    Libraries go to ``lib/`` under the names by which they are asked for.
    """
    root = Path("files")
    name = f"{spec['name']}-{spec['version']}"
    opt, info = root / f"{name}.data" / "opt", root / f"{name}.dist-info"
    placed: dict[Path, Path] = {}
    for source, to in found_files(spec["files"]):  # type: ignore[arg-type]
        for path, place in below(source, opt / to):
            place_file(path, place, placed, strip_it=bool(spec["strip"]))
    if not placed:
        sys.exit("layerbuild: there is no file in what [[files]] names")
    present = set(spec["present"])  # type: ignore[call-overload]
    for path in sorted({source for source in placed.values() if is_elf(source)}):
        for soname, real in libraries(path, present).items():
            if real is None:
                sys.exit(f"layerbuild: {path} needs {soname}, which the image has not")
            if real.resolve() not in {source.resolve() for to, source in placed.items() if to.name == soname}:
                place_file(real, opt / "lib" / soname, placed, strip_it=bool(spec["strip"]))
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {spec['name']}\nVersion: {spec['version']}\n")
    (info / "WHEEL").write_text(
        "Wheel-Version: 1.0\nGenerator: layerbuild\nRoot-Is-Purelib: false\n"
        f"Tag: py3-none-linux_{os.uname().machine}\n"
    )
    pack(root, Path(str(spec["out"])) / f"{name}-py3-none-linux_{os.uname().machine}.whl")


def found_files(rows: list[dict[str, str]]) -> Iterator[tuple[Path, str]]:
    """What rules find in the image, each with its place below ``opt``."""
    for row in rows:
        try:
            sources = sorted(Path("/").glob(row["from"].strip("/")))
        except (ValueError, NotImplementedError, IndexError) as error:
            sys.exit(f"layerbuild: {row['from']} is no pattern: {error}")
        if not sources:
            sys.exit(f"layerbuild: the image has no {row['from']}")
        if len(sources) > 1 and not row["to"].endswith("/"):
            sys.exit(f"layerbuild: {row['from']} is several files: `to` must be a folder and end with /")
        for source in sources:
            yield source, row["to"] + source.name if row["to"].endswith("/") else row["to"]


def below(source: Path, to: Path) -> list[tuple[Path, Path]]:
    """The files of a folder, or the one file, each with the place that it goes to."""
    if not source.is_dir():
        return [(source, to)]
    return [
        (Path(folder) / name, to / os.path.relpath(folder, source) / name)
        for folder, folders, names in walk(source)
        if folders.sort() is None
        for name in sorted(names)
    ]


def walk(source: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """As os.walk, into folders that are links, too, but into none of those that lead back to a folder above."""
    for folder, folders, names in os.walk(source, followlinks=True):
        above = {os.path.realpath(parent) for parent in (folder, *map(str, Path(folder).parents))}
        folders[:] = [name for name in folders if os.path.realpath(Path(folder, name)) not in above]
        yield folder, folders, names


def place_file(source: Path, to: Path, placed: dict[Path, Path], *, strip_it: bool) -> None:
    """Copies a file, links followed; two files cannot have one place."""
    there = placed.get(to)
    if there is not None and there.read_bytes() == source.read_bytes():
        return
    if to.exists():
        sys.exit(f"layerbuild: two files would be {to}: {source} and {there or 'another'}")
    if not source.is_file():
        sys.exit(f"layerbuild: {source} is no file")
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        sys.exit(f"layerbuild: {to} would lie in a file")
    shutil.copyfile(source, to)
    to.chmod(0o755 if source.stat().st_mode & 0o111 else 0o644)
    placed[to] = source
    if strip_it:
        strip(to)


def libraries(path: Path, present: set[str]) -> dict[str, Path | None]:
    """The libraries that an ELF file needs, those needed by them included, but for those that the runtime has."""
    from auditwheel.lddtree import ldd

    tree = ldd(path)
    found: dict[str, Path | None] = {}
    waiting = list(tree.needed)
    while waiting:
        soname = waiting.pop()
        if soname in found or soname in present or "ld-linux" in soname:
            continue
        library = tree.libraries[soname]
        found[soname] = library.realpath
        waiting += library.needed
    return dict(sorted(found.items()))


def pack(root: Path, wheel: Path) -> None:
    """Makes a wheel of a folder, with its RECORD."""
    from auditwheel.wheeltools import InWheelCtx

    wheel.parent.mkdir(exist_ok=True)
    raw = shutil.make_archive("raw", "zip", root)
    with InWheelCtx(Path(raw), wheel):
        pass  # rewrites RECORD, sorts, and sets dates


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main()
