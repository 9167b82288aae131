"""Measures how long layerbuild and others take to make the same layers, side by side in one run.

    python bench/layers.py --rounds 5 --markdown bench/README.md

README.md in this folder says what is measured and how. Exits 1 when a goal is missed or a layer is wrong, and 2
when nothing can be measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import time
import venv
import zipfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from layerbuild import __version__
from layerbuild.cache import CACHE_VARIABLE, Cache, default_cache_folder
from layerbuild.console import readable_size
from layerbuild.lock import parse_lock
from layerbuild.pip_settings import PipSettings
from layerbuild.process import redact
from layerbuild.target import select_targets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

TARGET = select_targets(["python3.12-x86_64"])[0]
PYTHON_VERSION = "{}.{}".format(*TARGET.runtime.version)
UV_PLATFORM = "{}-manylinux_{}_{}".format(TARGET.machine, *TARGET.runtime.glibc)
SITE = Path("python", "lib", f"python{PYTHON_VERSION}", "site-packages")

COLD_ROUNDS = 3
HELP_ROUNDS = 11
HELP_LIMIT = 0.150
PEAK_LIMIT = 150_000_000
SIZE_TOLERANCE = 0.02

OURS, PIP, UV, SAM, LIMIT, AGAIN = "layerbuild", "pip + zip", "uv + zip", "sam build", "limit", "up to date"
BEGIN, END = "<!-- results -->", "<!-- end of results -->"

# An installed program has its bytecode; one in a checkout gets it in the work folder, whatever the variable says.
BYTECODE = {"PYTHONDONTWRITEBYTECODE": ""}

# The least that any program could do: each wheel read once, hashed, and written.
LIMIT_PROGRAM = """\
import hashlib, sys
digest = hashlib.sha256()
with open(sys.argv[1], "wb") as output:
    for path in sys.argv[2:]:
        with open(path, "rb") as wheel:
            while data := wheel.read(1 << 20):
                digest.update(data)
                output.write(data)
"""

SAM_TEMPLATE = f"""\
AWSTemplateFormatVersion: "2010-09-09"
Transform: AWS::Serverless-2016-10-31
Resources:
  Layer:
    Type: AWS::Serverless::LayerVersion
    Metadata:
      BuildMethod: python{PYTHON_VERSION}
      BuildArchitecture: {TARGET.arch}
    Properties:
      ContentUri: layer
      CompatibleRuntimes: [python{PYTHON_VERSION}]
      CompatibleArchitectures: [{TARGET.arch}]
"""


class BenchError(Exception):
    """Something without which nothing can be measured."""


@dataclass(frozen=True, kw_only=True)
class LayerSet:
    """What one layer holds, and how many times faster than uv and zip it is to be made."""

    name: str
    requirements: tuple[str, ...]
    goal: float


SETS = (
    LayerSet(name="images", requirements=("pillow", "boto3"), goal=5),
    LayerSet(
        name="web",
        requirements=("fastapi", "pydantic", "sqlalchemy", "cryptography", "boto3", "requests"),
        goal=6,
    ),
    LayerSet(name="science", requirements=("numpy", "pandas", "scipy"), goal=15),
)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One command: where it runs, and the variables that it gets beside this process's own."""

    command: Sequence[str | Path]
    cwd: Path
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One way to make a layer. `remove` goes before each run, outside the measured time."""

    name: str
    steps: tuple[Step, ...]
    remove: tuple[Path, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One run: wall time of all its processes, and the greatest resident memory of one of them in bytes."""

    seconds: float
    peak: int


@dataclass(frozen=True, kw_only=True)
class Timing:
    """All runs of one contender."""

    samples: tuple[Sample, ...]

    @property
    def seconds(self) -> float:
        """The median wall time."""
        return median(sample.seconds for sample in self.samples)

    @property
    def peak(self) -> int:
        """The greatest memory that any run needed."""
        return max(sample.peak for sample in self.samples)

    def as_json(self) -> dict[str, Any]:
        """For ``--json``: the median and every run."""
        return {
            "median": round(self.seconds, 4),
            "peak": self.peak,
            "seconds": [round(sample.seconds, 4) for sample in self.samples],
        }


@dataclass(frozen=True, kw_only=True)
class Goal:
    """Something that is to hold, and what was measured."""

    text: str
    measured: str
    met: bool


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one set came to. `problems` are layers that are not what they should be."""

    layer: LayerSet
    locked: str
    wheels: int
    wheel_bytes: int
    unzipped: Mapping[str, int]
    warm: Mapping[str, Timing]
    cold: Mapping[str, Timing]
    problems: tuple[str, ...]

    def ratio(self, name: str) -> float | None:
        """How many times longer than layerbuild a contender takes; None where it was not measured."""
        return self.warm[name].seconds / self.warm[OURS].seconds if name in self.warm else None

    @property
    def peak(self) -> int:
        """The most memory that layerbuild needed, with a cache and without."""
        return max(self.warm[OURS].peak, self.cold[OURS].peak)

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "name": self.layer.name,
            "locked": self.locked,
            "wheels": self.wheels,
            "wheel_bytes": self.wheel_bytes,
            "unzipped": dict(self.unzipped),
            "warm": {name: timing.as_json() for name, timing in self.warm.items()},
            "cold": {name: timing.as_json() for name, timing in self.cold.items()},
            "problems": list(self.problems),
        }


def say(text: str) -> None:
    """Tells the one who waits."""
    print(text, file=sys.stderr, flush=True)


# Running and measuring


def run(steps: Iterable[Step], log: Path) -> Sample:
    """Runs commands one after the other and measures them as one.

    Raises:
        BenchError: one of them fails.
    """
    peak = 0
    started = time.perf_counter()
    for step in steps:
        peak = max(peak, _run_one(step, log))
    return Sample(seconds=time.perf_counter() - started, peak=peak)


def _run_one(step: Step, log: Path) -> int:
    """The peak memory of one command and of those it ran in turn."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(word) for word in step.command],
            cwd=step.cwd,
            env={**os.environ, **BYTECODE, **step.env},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        tail = redact(log.read_text("utf-8", "replace")).strip().splitlines()[-12:]
        raise BenchError("\n  ".join([f"{Path(step.command[0]).name} ended with {process.returncode}", *tail]))
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measure(contender: Contender, log: Path) -> Sample:
    """One run of a contender from a clean start."""
    for path in contender.remove:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for step in contender.steps:
        step.cwd.mkdir(parents=True, exist_ok=True)
    # What the one before left to the disk's queue is not to be waited for by this one.
    os.sync()
    return run(contender.steps, log)


def interleaved(contenders: Sequence[Contender], rounds: int, log: Path, label: str) -> dict[str, Timing]:
    """Runs every contender once per round, each round begun by another, so that noise hits all alike."""
    samples: dict[str, list[Sample]] = {contender.name: [] for contender in contenders}
    for number in range(rounds):
        first = number % len(contenders)
        for contender in (*contenders[first:], *contenders[:first]):
            samples[contender.name].append(measure(contender, log))
        times = ", ".join(f"{name} {runs[-1].seconds:.2f} s" for name, runs in samples.items())
        say(f"{label} {number + 1} of {rounds}: {times}")
    return {name: Timing(samples=tuple(runs)) for name, runs in samples.items()}


def output_of(command: Sequence[str | Path]) -> str:
    """What a command prints.

    Raises:
        BenchError: it cannot be run or fails.
    """
    try:
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise BenchError(f"{Path(command[0]).name} cannot be run: {redact(str(error))}") from None
    return done.stdout.strip()


def program(name: str) -> Path:
    """A program, of this Python's environment first.

    Raises:
        BenchError: there is none.
    """
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
    found = shutil.which(name, path=path)
    if not found:
        raise BenchError(f"{name} is needed and is not on PATH")
    return Path(found)


# The contenders


class Bench:
    """The folder of one set, and the commands that make its layer there.

    All caches lie in the same work folder, hence on the same file system as what is made.
    """

    def __init__(self, layer: LayerSet, work: Path) -> None:
        self.layer = layer
        self.work = work
        self.folder = work / "sets" / layer.name
        self.lock = self.folder / "locks" / layer.name / f"{TARGET}.txt"
        self.dist = self.folder / "dist"
        self.archive = self.dist / f"{layer.name}-{TARGET}.zip"
        self.log = work / "log.txt"
        self.cache = work / "caches" / "layerbuild"
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "requirements.txt").write_text("\n".join(layer.requirements) + "\n", "utf-8")

    def tree(self, name: str) -> Path:
        """Where another tool builds."""
        return self.folder / name.split()[0]

    def ours(self, *, name: str = OURS, cache: Path | None = None, remove: tuple[Path, ...] = ()) -> Contender:
        """``layerbuild make``."""
        words = ["make", "-r", "requirements.txt", "--name", self.layer.name, "--target", str(TARGET)]
        env = {CACHE_VARIABLE: str(cache or self.cache)}
        step = our_step(self.work, words, self.folder, env)
        return Contender(name=name, steps=(step,), remove=remove)

    def pip(self) -> Contender:
        """(a) pip into a folder, then zip."""
        command: list[str | Path] = [sys.executable, "-m", "pip", "install", "--quiet", "--target", SITE, "--no-deps"]
        command += ["--require-hashes", "-r", self.lock, "--only-binary", ":all:", "--implementation", "cp"]
        command += ["--python-version", PYTHON_VERSION]
        command += [word for tag in TARGET.platforms() for word in ("--platform", tag)]
        return self._zipped(PIP, command, {"PIP_CACHE_DIR": str(self.work / "caches" / "pip")})

    def uv(self, *, cache: Path | None = None, remove: tuple[Path, ...] = ()) -> Contender:
        """(b) uv into a folder, then zip."""
        command: list[str | Path] = [
            program("uv"),
            "pip",
            "install",
            "--quiet",
            "--target",
            SITE,
            "--python",
            sys.executable,
        ]
        command += ["--python-version", PYTHON_VERSION, "--python-platform", UV_PLATFORM]
        command += ["--only-binary", ":all:", "--require-hashes", "-r", self.lock]
        command += ["--cache-dir", cache or self.work / "caches" / "uv"]
        return self._zipped(UV, command, uv_environment(), remove)

    def _zipped(
        self, name: str, command: Sequence[str | Path], env: Mapping[str, str], remove: tuple[Path, ...] = ()
    ) -> Contender:
        tree = self.tree(name)
        install = Step(command=command, cwd=tree, env=env)
        pack = Step(command=[program("zip"), "-r", "-q", "layer.zip", "python"], cwd=tree)
        return Contender(name=name, steps=(install, pack), remove=(tree, *remove))

    def sam(self, sam: Path, python: Path, *, hashes: bool) -> Contender:
        """(c) ``sam build``; it makes the folder of a layer, and no zip."""
        tree = self.tree(SAM)
        shutil.rmtree(tree, ignore_errors=True)
        (tree / "layer").mkdir(parents=True)
        (tree / "template.yaml").write_text(SAM_TEMPLATE, "utf-8")
        lock = self.lock.read_text("utf-8")
        if not hashes:
            lock = "".join(f"{pin}\n" for pin in parse_lock(lock, TARGET).pins)
        (tree / "layer" / "requirements.txt").write_text(lock, "utf-8")
        env = {
            "PATH": os.pathsep.join([str(python.parent), os.environ.get("PATH", "")]),
            "SAM_CLI_TELEMETRY": "0",
            "PIP_CACHE_DIR": str(self.work / "caches" / "pip"),
        }
        step = Step(command=[sam, "build"], cwd=tree, env=env)
        return Contender(name=SAM, steps=(step,), remove=(tree / ".aws-sam",))

    def limit(self, wheels: Sequence[Path]) -> Contender:
        """Each wheel read once, hashed, and written."""
        output = self.folder / "limit.bin"
        step = Step(command=[sys.executable, "-c", LIMIT_PROGRAM, output, *wheels], cwd=self.folder)
        return Contender(name=LIMIT, steps=(step,), remove=(output,))

    def wheels(self) -> list[Path]:
        """The wheels that the layer was made from, in layerbuild's cache."""
        manifest = json.loads(self.archive.with_suffix(".json").read_bytes())
        return [Cache(self.cache).wheel_path(row["sha256"]) for row in manifest["distributions"]]

    def locked(self) -> str:
        """The versions of what the set asks for."""
        pins = {pin.name: str(pin) for pin in parse_lock(self.lock.read_text("utf-8"), TARGET).pins}
        return ", ".join(pins[name].replace("==", " ") for name in self.layer.requirements)


def our_step(work: Path, words: Sequence[str], cwd: Path, env: Mapping[str, str]) -> Step:
    """A layerbuild command, with its bytecode in the work folder."""
    prefix = {"PYTHONPYCACHEPREFIX": str(work / "bytecode")}
    return Step(command=[program("layerbuild"), *words], cwd=cwd, env={**prefix, **env})


def uv_environment() -> dict[str, str]:
    """pip's index settings for uv, so that all look in the same places."""
    settings = PipSettings.read()
    values = {
        "UV_DEFAULT_INDEX": settings.index_url,
        "UV_INDEX": " ".join(settings.extra_index_urls),
        "UV_FIND_LINKS": ",".join(place for place in settings.find_links if "://" in place or Path(place).exists()),
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "SSL_CERT_FILE": settings.cert,
        "ALL_PROXY": settings.proxy,
    }
    return {name: value for name, value in values.items() if value}


@dataclass(frozen=True, kw_only=True)
class Sam:
    """The AWS SAM command line, and the Python of the target's version that it needs."""

    program: Path
    python: Path

    @classmethod
    def find(cls, work: Path) -> Sam | None:
        """sam from PATH, or installed into an environment of its own; None, with the reason told, if neither."""
        try:
            return cls(program=_sam_program(work), python=_target_python())
        except BenchError as error:
            say(f"{SAM}: not measured: {error}")
            return None

    def contender(self, bench: Bench) -> Contender | None:
        """The contender that builds, with hashes if sam takes them; None, with the reason told, if it cannot."""
        for hashes in (True, False):
            contender = bench.sam(self.program, self.python, hashes=hashes)
            try:
                measure(contender, bench.log)
            except BenchError as error:
                say(f"{bench.layer.name}: {SAM} fails with{'' if hashes else 'out'} hashes: {error}")
                continue
            return contender
        return None


def _sam_program(work: Path) -> Path:
    if found := shutil.which("sam"):
        return Path(found)
    folder = work / "sam-environment"
    sam = folder / "bin" / "sam"
    if not sam.is_file():
        say("installing aws-sam-cli, which may take minutes")
        venv.create(folder, with_pip=True, clear=True)
        step = Step(command=[folder / "bin" / "python", "-m", "pip", "install", "aws-sam-cli"], cwd=work)
        run([step], work / "log.txt")
    return sam


def _target_python() -> Path:
    """An interpreter of the target's version that runs and has pip."""
    name = f"python{PYTHON_VERSION}"
    versions = sorted(Path.home().glob(f".pyenv/versions/{PYTHON_VERSION}.*/bin/{name}"), reverse=True)
    on_path = shutil.which(name)
    for candidate in [*([Path(on_path)] if on_path else []), *versions]:
        try:
            output_of([candidate, "-m", "pip", "--version"])
        except BenchError:
            continue
        return candidate
    raise BenchError(f"{name} with pip is neither on PATH nor among pyenv's versions")


# One set


def bench_set(layer: LayerSet, work: Path, rounds: int, sam: Sam | None) -> Result:
    """Measures one set: first a run that fills the caches and is not counted, then the rounds."""
    bench = Bench(layer, work)
    say(f"{layer.name}: filling the caches")
    ours = bench.ours(remove=(bench.dist,))
    measure(ours, bench.log)
    wheels = bench.wheels()
    contenders = [ours, bench.ours(name=AGAIN), bench.pip(), bench.uv(), bench.limit(wheels)]
    for contender in contenders[1:]:
        measure(contender, bench.log)
    if sam and (with_sam := sam.contender(bench)):
        contenders.append(with_sam)
    warm = interleaved(contenders, rounds, bench.log, f"{layer.name}, round")
    unzipped = unzipped_bytes(bench, warm)
    cold = _bench_cold(bench)
    return Result(
        layer=layer,
        locked=bench.locked(),
        wheels=len(wheels),
        wheel_bytes=sum(path.stat().st_size for path in wheels),
        unzipped=unzipped,
        warm=warm,
        cold=cold,
        problems=tuple(_problems(layer, unzipped)),
    )


def _bench_cold(bench: Bench) -> dict[str, Timing]:
    """layerbuild and uv with the lock there and nothing cached."""
    caches = {name: bench.work / "cold" / name.split()[0] for name in (OURS, UV)}
    contenders = [
        bench.ours(cache=caches[OURS], remove=(bench.dist, caches[OURS])),
        bench.uv(cache=caches[UV], remove=(caches[UV],)),
    ]
    timings = interleaved(contenders, COLD_ROUNDS, bench.log, f"{bench.layer.name}, cold round")
    shutil.rmtree(bench.work / "cold")
    return timings


def unzipped_bytes(bench: Bench, measured: Iterable[str]) -> dict[str, int]:
    """What each made, in bytes without bytecode."""
    archives = {OURS: bench.archive, **{name: bench.tree(name) / "layer.zip" for name in (PIP, UV)}}
    sizes = {name: zip_bytes(path) for name, path in archives.items()}
    if SAM in measured:
        sizes[SAM] = folder_bytes(bench.tree(SAM) / ".aws-sam" / "build" / "Layer")
    return sizes


def zip_bytes(path: Path) -> int:
    """The unzipped bytes of an archive, without bytecode.

    Raises:
        BenchError: it is not there, or not a zip file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return sum(info.file_size for info in archive.infolist() if not info.filename.endswith(".pyc"))
    except (OSError, zipfile.BadZipFile) as error:
        raise BenchError(f"{path.name} is not a layer: {error}") from None


def folder_bytes(path: Path) -> int:
    """The bytes of a folder's files, without bytecode."""
    return sum(item.stat().st_size for item in path.rglob("*") if item.is_file() and item.suffix != ".pyc")


def _problems(layer: LayerSet, unzipped: Mapping[str, int]) -> list[str]:
    expected = unzipped[UV]
    return [
        f"{layer.name}: {name} made {size:,} bytes, {UV} {expected:,}"
        for name, size in unzipped.items()
        if abs(size - expected) > SIZE_TOLERANCE * expected
    ]


def bench_help(work: Path) -> Timing:
    """``layerbuild --help``."""
    contender = Contender(name="help", steps=(our_step(work, ["--help"], work, {}),))
    measure(contender, work / "log.txt")
    return Timing(samples=tuple(measure(contender, work / "log.txt") for _ in range(HELP_ROUNDS)))


# What came of it


def goals(results: Sequence[Result], helping: Timing) -> list[Goal]:
    """Every goal with what was measured."""
    found = []
    for result in results:
        name, ratio = result.layer.name, result.ratio(UV) or 0
        text = f"{name}: at least {result.layer.goal:g} times faster than {UV}"
        found.append(Goal(text=text, measured=f"{ratio:.1f} times", met=ratio >= result.layer.goal))
    for result in results:
        ours, other = result.cold[OURS].seconds, result.cold[UV].seconds
        text = f"{result.layer.name}: with empty caches no slower than {UV}"
        found.append(Goal(text=text, measured=f"{ours:.2f} s to {other:.2f} s", met=ours <= other))
    peak = max(result.peak for result in results)
    found.append(Goal(text="peak memory under 150 MB", measured=readable_size(peak), met=peak < PEAK_LIMIT))
    measured = f"{helping.seconds * 1000:.0f} ms"
    found.append(Goal(text="`layerbuild --help` under 150 ms", measured=measured, met=helping.seconds < HELP_LIMIT))
    found.append(_right_goal(results))
    return found


def _right_goal(results: Sequence[Result]) -> Goal:
    """That everyone made the same layer: whatever is fast at something else is not faster."""
    off = max(abs(size / result.unzipped[UV] - 1) for result in results for size in result.unzipped.values())
    met = not any(result.problems for result in results)
    text = f"every tool's layer within {SIZE_TOLERANCE:.0%} of uv's, in bytes without bytecode"
    return Goal(text=text, measured=f"{off:.2%} off at most", met=met)


def environment(sam: Sam | None) -> dict[str, Any]:
    """What it was measured on and with."""
    sam_version = output_of([sam.program, "--version"]).rpartition(" ")[2] if sam else None
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "layerbuild": __version__,
        "python": platform.python_version(),
        "pip": output_of([sys.executable, "-m", "pip", "--version"]).split()[1],
        "uv": output_of([program("uv"), "--version"]).split()[1],
        "sam": sam_version,
    }


def cpu_model() -> str:
    """What the processor calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A markdown table, aligned to be read as it is; all columns but the first to the right."""
    lines = [tuple(columns), *(tuple(row) for row in rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns))]

    def shown(line: Sequence[str]) -> str:
        cells = [text.rjust(width) for text, width in zip(line, widths, strict=True)]
        return f"| {' | '.join([line[0].ljust(widths[0]), *cells[1:]])} |"

    rule = "|".join([":" + "-" * (widths[0] + 1), *("-" * (width + 1) + ":" for width in widths[1:])])
    return "\n".join([shown(lines[0]), f"|{rule}|", *map(shown, lines[1:])])


def report(found: Mapping[str, Any], rounds: int, results: Sequence[Result], helping: Timing) -> str:
    """All results as markdown."""
    tools = ", ".join(f"{name} {found[name] or 'not measured'}" for name in ("layerbuild", "pip", "uv", "sam"))
    rows = [(goal.text, goal.measured, "pass" if goal.met else "FAIL") for goal in goals(results, helping)]
    parts = [
        f"{found['date']}, {found['cpu']}, {found['cores']} cores; Python {found['python']}, {tools}.",
        f"Everything cached, median of {rounds}; in brackets, how many times longer than layerbuild:",
        _warm_table(results),
        f"Nothing cached but the lock there, median of {COLD_ROUNDS}; and other figures of layerbuild:",
        _cold_table(results),
        f"`layerbuild --help`: {helping.seconds * 1000:.0f} ms, median of {HELP_ROUNDS}.",
        table(("goal", "measured", "met"), rows),
        f"Sets, for {TARGET}:",
        "\n".join(f"- {result.layer.name}: {result.locked}" for result in results),
    ]
    return "\n\n".join(parts) + "\n"


def _warm_table(results: Sequence[Result]) -> str:
    def cell(result: Result, name: str) -> str:
        ratio = result.ratio(name)
        return "not measured" if ratio is None else f"{result.warm[name].seconds:.2f} s ({ratio:.1f})"

    rows = [
        [
            result.layer.name,
            f"{result.wheels}, {readable_size(result.wheel_bytes)}",
            readable_size(result.unzipped[OURS]),
            f"{result.warm[OURS].seconds:.2f} s",
            *(cell(result, name) for name in (PIP, UV, SAM, LIMIT)),
        ]
        for result in results
    ]
    return table(("set", "wheels", "unzipped", OURS, PIP, UV, f"{SAM}, no zip", LIMIT), rows)


def _cold_table(results: Sequence[Result]) -> str:
    rows = [
        [
            result.layer.name,
            f"{result.cold[OURS].seconds:.2f} s",
            f"{result.cold[UV].seconds:.2f} s ({result.cold[UV].seconds / result.cold[OURS].seconds:.1f})",
            f"{result.warm[AGAIN].seconds:.2f} s",
            f"{1 / (result.ratio(LIMIT) or 1):.1f}",
            readable_size(result.warm[OURS].peak),
            readable_size(result.cold[OURS].peak),
        ]
        for result in results
    ]
    columns = ("set", "cold", f"cold {UV}", "up to date", "warm / limit", "warm peak memory", "cold peak memory")
    return table(columns, rows)


def write_markdown(path: Path, text: str) -> None:
    """Puts the results between the markers of a file, or into a new one."""
    block = f"{BEGIN}\n\n{text}\n{END}"
    if not path.is_file():
        path.write_text(block + "\n", "utf-8")
        return
    before, begin, rest = path.read_text("utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BenchError(f"{path.name} has no {BEGIN} … {END}")
    path.write_text(before + block + after, "utf-8")


# The command line


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare layerbuild with pip, uv and sam; see bench/README.md.")
    names = [layer.name for layer in SETS]
    parser.add_argument("--rounds", type=int, default=5, help="runs of each tool with everything cached")
    parser.add_argument("--sets", nargs="+", choices=names, default=names, metavar="SET", help=", ".join(names))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run to FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="put the results between FILE's markers")
    parser.add_argument("--skip-sam", action="store_true", help="leave out sam build, the slowest")
    parser.add_argument(
        "--work",
        type=Path,
        default=default_cache_folder().with_name("layerbuild-bench"),
        help="folder for caches and layers, kept for the next run (about 2 GB; default: beside layerbuild's cache)",
    )
    return parser.parse_args(words)


def bench_all(given: argparse.Namespace) -> bool:
    """Measures what is asked for, and reports it; whether all goals are met."""
    work = given.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    sam = None if given.skip_sam else Sam.find(work)
    found = environment(sam)
    helping = bench_help(work)
    results = [bench_set(layer, work, given.rounds, sam) for layer in SETS if layer.name in given.sets]
    text = report(found, given.rounds, results, helping)
    print(text)
    for result in results:
        for problem in result.problems:
            say(problem)
    if given.json:
        document = {
            **found,
            "sets": [result.as_json() for result in results],
            "help": helping.as_json(),
            "goals": [vars(goal) for goal in goals(results, helping)],
        }
        given.json.write_text(json.dumps(document, indent=2) + "\n", "utf-8")
    if given.markdown:
        write_markdown(given.markdown, text)
    return all(goal.met for goal in goals(results, helping))


def exit_code(bench: Callable[[], bool]) -> int:
    """Runs a bench: 0 when it reached its goals, 1 when it missed one, 2 when nothing could be measured."""
    try:
        return 0 if bench() else 1
    except BenchError as error:
        say(f"error: {error}")
        return 2


def main(words: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    return exit_code(lambda: bench_all(_arguments(words)))


if __name__ == "__main__":
    sys.exit(main())
