"""Measures what a function's imports take from layers of layerbuild and of others, where no interpreter can write.

    python bench/coldstart.py --rounds 9 --markdown bench/README.md

README.md in this folder says what is measured and how. Exits 1 when a goal is missed, and 2 when nothing can be
measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import layers
from layers import (
    OURS,
    PYTHON_VERSION,
    SAM,
    SAM_TEMPLATE,
    BenchError,
    Step,
    cpu_model,
    exit_code,
    our_step,
    program,
    run,
    say,
    table,
    uv_environment,
)

from layerbuild import __version__
from layerbuild.cache import CACHE_VARIABLE, Cache, default_cache_folder
from layerbuild.console import readable_size
from layerbuild.interpreters import find_interpreter
from layerbuild.lock import parse_lock
from layerbuild.target import select_targets

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from layerbuild.interpreters import Interpreter
    from layerbuild.target import Target

BEGIN, END = "<!-- coldstart -->", "<!-- end of coldstart -->"
UV, PIP, KEPT = "uv", "pip", "pip, dates kept"
SPEED_GOAL, GROWTH_GOAL = 2.0, 0.12
# The date of files in an archive whose dates are normalised: 1980-01-01.
NORMALISED = 315_532_800

REQUIREMENTS = {layer.name: layer.requirements for layer in layers.SETS}

# Runs as a function's process would: imports what a handler imports, then says how long that took, how many modules
# of /opt have a .pyc there, and that nothing can be written there. The flag that would forbid it is not set.
PROGRAM = """\
import sys, time
code = compile(sys.argv[1], "handler.py", "exec")
cpu, started = time.process_time(), time.perf_counter()
exec(code, {})
seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
import errno, importlib.util, json, os
sources = [m for m in list(sys.modules.values()) if str(getattr(m, "__file__", "")).startswith("/opt/")]
sources = [m for m in sources if m.__file__.endswith(".py")]
try:
    open(os.path.join(os.path.dirname(sources[0].__file__), "written"), "w").close()
    refused = ""
except OSError as error:
    refused = errno.errorcode[error.errno]
print(json.dumps({
    "seconds": seconds, "cpu": cpu, "modules": len(sources),
    "compiled": sum(os.path.exists(importlib.util.cache_from_source(m.__file__)) for m in sources),
    "refused": refused, "may_write": not sys.dont_write_bytecode, "user": os.getuid(),
}))
"""

# Runs in a mount namespace of its own: shows each tree in turn at /opt, read-only, and starts a process on it.
RUNNER = """\
import json, os, subprocess, sys
given = json.loads(sys.argv[1])
def mount(*words):
    subprocess.run(["mount", *words], check=True)
prefix = given["place"]
mount("--bind", given["prefix"], prefix)
mount("-o", "remount,bind,ro", prefix)
rights = {"user": 65534, "group": 65534, "extra_groups": []} if given["root"] else {}
names = list(given["trees"])
for number in range(given["rounds"]):
    first = number % len(names)
    for name in names[first:] + names[:first]:
        mount("--bind", given["trees"][name], "/opt")
        mount("-o", "remount,bind,ro", "/opt")
        command = [prefix + "/bin/" + given["python"], "-s", "-S", "-c", given["program"], given["handler"]]
        done = subprocess.run(command, env=given["env"], cwd="/", stdout=subprocess.PIPE, **rights)
        subprocess.run(["umount", "/opt"], check=True)
        if done.returncode:
            sys.exit(f"{name}: the handler ends with {done.returncode}")
        print(json.dumps({"name": name, "round": number, **json.loads(done.stdout.splitlines()[-1])}), flush=True)
"""


@dataclass(frozen=True, kw_only=True)
class ColdSet:
    """A layer, and what a typical function does with it before its first event."""

    name: str
    requirements: tuple[str, ...]
    imports: tuple[str, ...]
    handler: str


SETS = (
    ColdSet(
        name="boto3",
        requirements=("boto3",),
        imports=("boto3",),
        handler='import boto3\n\nclient = boto3.client("s3", region_name="eu-west-1")\n',
    ),
    ColdSet(
        name="web",
        requirements=REQUIREMENTS["web"],
        imports=("fastapi", "sqlalchemy.orm", "boto3", "requests", "cryptography.fernet"),
        handler="import boto3\nimport pydantic\nimport requests\nimport sqlalchemy.orm\n"
        "from cryptography.fernet import Fernet\nfrom fastapi import FastAPI\n\napp = FastAPI()\n",
    ),
    ColdSet(
        name="science",
        requirements=REQUIREMENTS["science"],
        imports=("numpy", "pandas", "scipy.stats"),
        handler="import numpy\nimport pandas\nimport scipy.stats\n",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """An archive: its bytes, zipped and unzipped, and how many .pyc it has."""

    zipped: int
    unzipped: int
    compiled: int

    @classmethod
    def of(cls, path: Path) -> Sizes:
        """Of a zip file."""
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
        return cls(
            zipped=path.stat().st_size,
            unzipped=sum(entry.file_size for entry in entries),
            compiled=sum(entry.filename.endswith(".pyc") for entry in entries),
        )


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one set came to. `runs` has one process in each place, by name, without the round that warms up."""

    layer: ColdSet
    locked: str
    runs: Mapping[str, Sequence[Mapping[str, Any]]]
    sizes: Mapping[str, Sizes]

    def seconds(self, name: str, what: str = "seconds") -> float:
        """The median of seconds, or of those of the processor (``cpu``)."""
        return median(run[what] for run in self.runs[name])

    def ratio(self, name: str, what: str = "seconds") -> float:
        """How many times longer than from layerbuild's layer."""
        return self.seconds(name, what) / self.seconds(OURS, what)

    def growth(self, what: str = "zipped") -> float:
        """How much larger bytecode makes the archive."""
        return getattr(self.sizes["imports"], what) / getattr(self.sizes["off"], what) - 1

    def as_json(self) -> dict[str, Any]:
        """For ``--json``: medians, ratios and every run."""
        return {
            "name": self.layer.name,
            "locked": self.locked,
            "handler": self.layer.handler,
            "seconds": {name: round(self.seconds(name), 4) for name in self.runs},
            "cpu": {name: round(self.seconds(name, "cpu"), 4) for name in self.runs},
            "ratio": {name: round(self.ratio(name), 3) for name in self.runs},
            "ratio_cpu": {name: round(self.ratio(name, "cpu"), 3) for name in self.runs},
            "runs": {name: list(runs) for name, runs in self.runs.items()},
            "sizes": {mode: vars(sizes) for mode, sizes in self.sizes.items()},
            "growth": round(self.growth(), 4),
            "growth_unzipped": round(self.growth("unzipped"), 4),
        }


# Making the layers


class Cold:
    """The folder of one set for one target, and what makes its trees there."""

    def __init__(self, layer: ColdSet, work: Path, target: Target, interpreter: Interpreter) -> None:
        self.layer, self.work, self.target, self.interpreter = layer, work, target, interpreter
        self.folder = work / "coldstart" / str(target) / layer.name
        self.recipe = self.folder / "recipes" / layer.name
        self.lock = self.recipe / "locks" / f"{target}.txt"
        self.site = Path("python", "lib", target.runtime.name, "site-packages")
        self.log = work / "log.txt"
        self.recipe.mkdir(parents=True, exist_ok=True)
        (self.recipe / "smoke.py").write_text(layer.handler, "utf-8")
        settings = {"name": layer.name, "summary": "For a benchmark", "requirements": list(layer.requirements)}
        settings |= {"imports": list(layer.imports), "bytecode": "imports"}
        text = "".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items())
        (self.recipe / "recipe.toml").write_text(text, "utf-8")

    def archive(self, mode: str) -> Path:
        """The archive that ``layerbuild make`` writes."""
        out = self.folder / f"dist-{mode}"
        words = ["make", self.layer.name, "--target", str(self.target), "--bytecode", mode, "--out", str(out)]
        words += ["--smoke", "require"]
        env = {CACHE_VARIABLE: str(self.work / "caches" / "layerbuild")}
        run([our_step(self.work, words, self.folder, env)], self.log)
        return out / f"{self.layer.name}-{self.target}.zip"

    def empty(self, name: str) -> Path:
        """An empty folder for a tree."""
        place = self.folder / "trees" / name
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        return place

    def unzipped(self, archive: Path) -> Path:
        """Our layer as Lambda unzips it."""
        tree = self.empty("layerbuild")
        with zipfile.ZipFile(archive) as zipped:
            zipped.extractall(tree)
        return tree

    def by_uv(self) -> Path:
        """``uv pip install --target``, which compiles nothing unless it is told to."""
        tree = self.empty("uv")
        command: list[str | Path] = [program("uv"), "pip", "install", "--quiet", "--target", tree / self.site]
        command += ["--python", self.interpreter.path, "--link-mode", "copy", "--no-deps"]
        command += ["--python-platform", "{}-manylinux_{}_{}".format(self.target.machine, *self.target.runtime.glibc)]
        command += ["--only-binary", ":all:", "--require-hashes", "-r", self.lock]
        command += ["--cache-dir", self.work / "caches" / "uv"]
        run([Step(command=command, cwd=tree, env=uv_environment())], self.log)
        return tree

    def by_pip(self) -> Path:
        """``pip install --target`` by the target's own Python, whose bytecode is valid while dates are kept."""
        tree = self.empty("pip")
        command: list[str | Path] = [self.interpreter.path, "-m", "pip", "install", "--quiet", "--no-deps"]
        command += ["--target", tree / self.site, "--require-hashes", "-r", self.lock, "--only-binary", ":all:"]
        command += [word for tag in self.target.platforms() for word in ("--platform", tag)]
        run([Step(command=command, cwd=tree, env={"PIP_CACHE_DIR": str(self.work / "caches" / "pip")})], self.log)
        return tree

    def by_sam(self, sam: Path) -> Path:
        """``sam build`` of a layer with the same pins."""
        tree = self.empty("sam")
        (tree / "layer").mkdir()
        template = SAM_TEMPLATE.replace(f"python{PYTHON_VERSION}", self.target.runtime.name)
        (tree / "template.yaml").write_text(template, "utf-8")
        pins = parse_lock(self.lock.read_text("utf-8"), self.target).pins
        (tree / "layer" / "requirements.txt").write_text("".join(f"{pin}\n" for pin in pins), "utf-8")
        env = {
            "PATH": os.pathsep.join([str(self.interpreter.path.parent), os.environ.get("PATH", "")]),
            "SAM_CLI_TELEMETRY": "0",
            "PIP_CACHE_DIR": str(self.work / "caches" / "pip"),
        }
        run([Step(command=[sam, "build"], cwd=tree, env=env)], self.log)
        return tree / ".aws-sam" / "build" / "Layer"

    def kept(self, archive: Path, *, sam: bool) -> dict[str, Path]:
        """Our layer as it is now, and the other trees that an earlier run made.

        Raises:
            BenchError: it did not.
        """
        folder = self.folder / "trees"
        names = {UV: "uv", PIP: "pip", SAM: "sam/.aws-sam/build/Layer", KEPT: "pip-kept"}
        found = {name: folder / place for name, place in names.items() if sam or name != SAM}
        if missing := [name for name, path in found.items() if not path.is_dir()]:
            raise BenchError(f"no earlier run made {', '.join(missing)}")
        found = {OURS: self.unzipped(archive), **found}
        settle(found[OURS], NORMALISED)
        check_same(found)
        return found

    def trees(self, archive: Path, sam: Path | None) -> dict[str, Path]:
        """Every tree, each as it is unzipped from an archive with normalised dates, and one with pip's own dates."""
        found = {OURS: self.unzipped(archive), UV: self.by_uv(), PIP: self.by_pip()}
        if sam:
            found[SAM] = self.by_sam(sam)
        kept = self.empty("pip-kept")
        shutil.copytree(found[PIP], kept, symlinks=True, dirs_exist_ok=True)
        for tree in found.values():
            settle(tree, NORMALISED)
        found[KEPT] = kept
        settle(kept, None)
        check_same(found)
        return found

    def locked(self) -> str:
        """The versions of what the set asks for."""
        pins = {pin.name: str(pin) for pin in parse_lock(self.lock.read_text("utf-8"), self.target).pins}
        return ", ".join(pins[name].replace("==", " ") for name in self.layer.requirements)


def settle(tree: Path, date: int | None) -> None:
    """Lets everyone read a tree, and gives its files a date."""
    for path in (tree, *tree.rglob("*")):
        if path.is_symlink():
            continue
        path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
        if date is not None and path.is_file():
            os.utime(path, (date, date))


def check_same(trees: Mapping[str, Path]) -> None:
    """That all have the same versions of the same packages.

    Raises:
        BenchError: they do not.
    """
    held = {name: sorted(path.name.lower() for path in tree.rglob("*.dist-info")) for name, tree in trees.items()}
    for name, found in held.items():
        if found != held[OURS]:
            other = ", ".join(sorted(set(found) ^ set(held[OURS])))
            raise BenchError(f"{name} has other packages than {OURS}: {other}")


# Measuring


def measure(cold: Cold, trees: Mapping[str, Path], rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Every tree once per round, each round begun by another; the first round is dropped for all.

    Raises:
        BenchError: something fails, or a tree could have been written to.
    """
    root = os.geteuid() == 0
    with tempfile.TemporaryDirectory(prefix="layerbuild-bench-") as place:
        Path(place).chmod(0o755)
        given = {
            "place": place,
            "prefix": str(cold.interpreter.prefix),
            "python": cold.interpreter.path.name,
            "trees": {name: str(path) for name, path in trees.items()},
            "rounds": rounds + 1,
            "program": PROGRAM,
            "handler": cold.layer.handler,
            "root": root,
            "env": {
                "PATH": "/usr/bin:/bin",
                "LANG": "C.UTF-8",
                "LD_LIBRARY_PATH": f"{place}/lib",
                "PYTHONPATH": f"/opt/{cold.site}:/opt/python",
                # Of a function; without them, botocore asks a network for them.
                "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
                "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            },
        }
        command = ["unshare", "--mount", *([] if root else ["--map-root-user"])]
        command += [sys.executable, "-c", RUNNER, json.dumps(given)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise BenchError("\n  ".join(["the processes cannot be run", *done.stderr.strip().splitlines()[-12:]]))
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in trees}
    for line in done.stdout.splitlines():
        said = json.loads(line)
        if said["refused"] != "EROFS" or not said["may_write"]:
            raise BenchError(f"{said['name']}: it is not the tree that forbids to write ({said['refused']})")
        if said["round"]:
            runs[said.pop("name")].append(said)
    return runs


def bench_set(cold: Cold, rounds: int, sam: Path | None, *, again: bool) -> Result:
    """Makes the trees of one set, or with `again` takes those of an earlier run, and measures them."""
    label = f"{cold.layer.name}, {cold.target}"
    say(f"{label}: making the layers")
    archives = {mode: cold.archive(mode) for mode in ("imports", "off")}
    trees = cold.kept(archives["imports"], sam=bool(sam)) if again else cold.trees(archives["imports"], sam)
    os.sync()
    say(f"{label}: measuring")
    runs = measure(cold, trees, rounds)
    result = Result(
        layer=cold.layer,
        locked=cold.locked(),
        runs=runs,
        sizes={mode: Sizes.of(path) for mode, path in archives.items()},
    )
    ours = runs[OURS][0]
    say(f"{label}: {ours['compiled']} of {ours['modules']} modules that {OURS}'s layer gives have bytecode")
    return result


# What came of it


def goals(results: Iterable[Result]) -> list[tuple[str, str, bool]]:
    """Every goal, what was measured, and whether it is met."""
    found = []
    for result in results:
        for name in (UV, SAM):
            if name in result.runs:
                text = f"{result.layer.name}: imports at least {SPEED_GOAL:g} times faster than from {name}'s tree"
                ratio = result.ratio(name)
                found.append((text, f"{ratio:.2f} times", ratio >= SPEED_GOAL))
        growth = result.growth()
        text = f"{result.layer.name}: bytecode makes the archive less than {GROWTH_GOAL:.0%} larger"
        found.append((text, f"{growth:.1%}", growth < GROWTH_GOAL))
    return found


def report(found: Mapping[str, Any], rounds: int, results: Sequence[Result]) -> str:
    """All results as Markdown."""

    others = (UV, SAM, PIP, KEPT)

    def times(what: str) -> str:
        def cell(result: Result, name: str) -> str:
            if name not in result.runs:
                return "not measured"
            return f"{result.seconds(name, what):.2f} s ({result.ratio(name, what):.2f})"

        rows = [
            (result.layer.name, f"{result.seconds(OURS, what):.2f} s", *(cell(result, name) for name in others))
            for result in results
        ]
        return table(("set", OURS, *others), rows)

    sizes = [
        (
            result.layer.name,
            readable_size(result.sizes["off"].zipped),
            f"{readable_size(result.sizes['imports'].zipped)} (+{result.growth():.1%})",
            readable_size(result.sizes["off"].unzipped),
            f"{readable_size(result.sizes['imports'].unzipped)} (+{result.growth('unzipped'):.1%})",
            f"{result.sizes['imports'].compiled}",
        )
        for result in results
    ]
    size_columns = ("set", "zipped without", "zipped with", "unzipped without", "unzipped with", "modules compiled")
    tools = ", ".join(f"{name} {found[name] or 'not measured'}" for name in ("uv", "sam", "pip"))
    machine = f"{found['date']}, {found['cpu']}, {found['cores']} shared cores"
    against = f"in brackets, how many times longer than from {OURS}'s"
    parts = [
        f"{machine}; CPython {found['cpython']}, {found['target']}, layerbuild {__version__},\n{tools}.",
        f"Imports from a read-only `/opt`, median of {rounds} processes; {against}:",
        times("seconds"),
        "The same processes' time on a processor, which other work on the machine disturbs less:",
        times("cpu"),
        "The archive with the bytecode of what the imports load, and without:",
        table(size_columns, sizes),
        table(("goal", "measured", "met"), [(*row, "pass" if met else "FAIL") for *row, met in goals(results)]),
        "\n".join(f"- {result.layer.name}: {result.locked}" for result in results),
    ]
    return "\n\n".join(parts)


def environment(target: Target, interpreter: Interpreter, sam: Path | None) -> dict[str, Any]:
    """What it was measured on and with."""
    pip = layers.output_of([interpreter.path, "-m", "pip", "--version"])
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "target": str(target),
        "cpython": interpreter.version,
        "pip": pip.split()[1],
        "uv": layers.output_of([program("uv"), "--version"]).split()[1],
        "sam": layers.output_of([sam, "--version"]).rpartition(" ")[2] if sam else None,
    }


def write_markdown(path: Path, text: str) -> None:
    """Puts the results between the markers of a file.

    Raises:
        BenchError: it has none.
    """
    before, begin, rest = path.read_text("utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BenchError(f"{path.name} has no {BEGIN} … {END}")
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", "utf-8")


# The command line


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare imports from layers; see bench/README.md.")
    names = [layer.name for layer in SETS]
    parser.add_argument("--rounds", type=int, default=9, help="processes on each tree, and one more to warm up")
    parser.add_argument("--sets", nargs="+", choices=names, default=names, metavar="SET", help=", ".join(names))
    parser.add_argument("--python", choices=["3.12", "3.13"], default="3.13", help="the runtime")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run to FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="put the results between FILE's markers")
    parser.add_argument("--skip-sam", action="store_true", help="leave out sam build")
    parser.add_argument("--again", action="store_true", help="take the others' trees of an earlier run, to save time")
    work = default_cache_folder().with_name("layerbuild-bench")
    parser.add_argument("--work", type=Path, default=work, help="folder for caches and layers, kept for the next run")
    return parser.parse_args(words)


def sam_program(work: Path) -> Path | None:
    """sam, installed where there is none; None, with the reason told, if that fails."""
    try:
        return layers._sam_program(work)  # noqa: SLF001 - of the same benchmark
    except BenchError as error:
        say(f"{SAM}: not measured: {error}")
        return None


def bench_all(given: argparse.Namespace) -> bool:
    """Measures what is asked for, and reports it; whether all goals are met."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise BenchError("it needs Linux on x86_64")
    work = given.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    target = select_targets([f"python{given.python}-x86_64"])[0]
    interpreter = find_interpreter(target.runtime, Cache(work / "caches" / "layerbuild"))
    if interpreter is None:
        raise BenchError(f"there is no CPython {given.python}; `uv python install {given.python}` brings one")
    sam = None if given.skip_sam else sam_program(work)
    found = environment(target, interpreter, sam)
    chosen = [layer for layer in SETS if layer.name in given.sets]
    colds = [Cold(layer, work, target, interpreter) for layer in chosen]
    results = [bench_set(cold, given.rounds, sam, again=given.again) for cold in colds]
    text = report(found, given.rounds, results)
    print(text)
    if given.json:
        sets = [result.as_json() for result in results]
        reached = [dict(zip(("text", "measured", "met"), goal, strict=True)) for goal in goals(results)]
        document = {**found, "rounds": given.rounds, "sets": sets, "goals": reached}
        given.json.write_text(json.dumps(document, indent=2) + "\n", "utf-8")
    if given.markdown:
        write_markdown(given.markdown, text)
    return all(met for *_, met in goals(results))


def main(words: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    return exit_code(lambda: bench_all(_arguments(words)))


if __name__ == "__main__":
    sys.exit(main())
