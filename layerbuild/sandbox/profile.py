"""Import times and sizes of a stack: what a cold start spends where, with the layers' bytecode and without."""

from __future__ import annotations

import json
import re
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from layerbuild import __version__
from layerbuild.checks.size import INLINE_LIMIT
from layerbuild.errors import CheckError
from layerbuild.layer import UNZIPPED_LIMIT
from layerbuild.sandbox.invoke import stack_files
from layerbuild.sandbox.smoke import LIMITS, import_spec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from layerbuild.sandbox import Sandbox, SandboxFile
    from layerbuild.stack import Stack
    from layerbuild.tree import Distribution, Tree

_MARK = "layerbuild: imports"
_LINE = re.compile(r"import time: +(\d+) \| +(\d+) \| ( *)(\S+)")
_MODULE = re.compile(r"(?:/__init__)?(?:\.cpython-[^/]+\.so|\.abi3\.so|\.so|\.py)$")
_TYPES = {".py": "py", ".pyc": "pyc", ".so": "so"}


class _Timed(NamedTuple):
    """A module in an interpreter's report: seconds by itself and with what it imported, and that."""

    name: str
    own: float
    cumulative: float
    imported: tuple[_Timed, ...]


def profile(
    sandbox: Sandbox, stack: Stack, imports: Sequence[str], runs: int, budgets: Sequence[int | None]
) -> dict[str, Any]:
    """Measures imports in fresh processes with warm file caches, without a network.

    Args:
        sandbox: where.
        stack: what is at /opt; with a function, what is at /var/task.
        imports: names of modules; each is imported alone, and all of them in their order.
        runs: how often each is timed.
        budgets: unzipped size that each layer's recipe allows.

    Returns:
        What ``profile --json`` prints; see docs/json.md.

    Raises:
        CheckError: a module does not import.
        MachineError: the sandbox cannot be made.
    """
    sets = [[name] for name in imports] + ([list(imports)] if len(imports) > 1 else [])
    compiled = [path for path in stack.merged.entries if path.endswith(".pyc")]
    timed = _measure(sandbox, stack, sets, runs, stack_files(stack))
    bare = None
    if compiled:
        content = (file for file in stack_files(stack) if not file.path.endswith(".pyc"))
        bare = _measure(sandbox, stack, sets, runs, content)
    owners = _modules(stack.merged)
    rows = []
    for place, names in enumerate(sets[: len(imports)]):
        seconds, tree = timed[place]
        rows.append(
            {
                "name": names[0],
                "seconds": seconds,
                "without_bytecode": bare[place][0] if bare else None,
                "modules": list(_rows(tree, stack.merged, owners)),
            }
        )
    return {
        "target": str(stack.target),
        "interpreter": sandbox.interpreter,
        "backend": sandbox.name,
        "runs": runs,
        "layerbuild": __version__,
        "layers": [
            {"name": tree.name, "zipped": tree.zipped, "unzipped": tree.unzipped, "budget": budget}
            for tree, budget in zip(stack.layers, budgets, strict=True)
        ],
        "limits": {"zipped": INLINE_LIMIT, "unzipped": UNZIPPED_LIMIT},
        "sizes": _sizes(stack.merged),
        "imports": rows,
        "packages": _packages(timed[-1], bare[-1] if bare else None, owners) if timed else [],
    }


def _measure(
    sandbox: Sandbox, stack: Stack, sets: list[list[str]], runs: int, content: Iterable[SandboxFile]
) -> list[tuple[float, tuple[_Timed, ...]]]:
    """For each set of modules, the median of seconds, and the modules that one import loads."""
    more = {"sets": sets, "runs": runs, "imports": [], "script": "", "watch": False}
    spec = import_spec(stack.target, "profile", kind="profile", **more)
    seconds: dict[str, list[float]] = {json.dumps(names): [] for names in sets}
    trees: dict[str, tuple[_Timed, ...]] = {}
    for said in sandbox.run(content, spec, LIMITS, network="none") if sets else ():
        if "imported" not in said:
            continue
        key = json.dumps(said["names"])
        if said["times"]:
            trees[key] = tuple(_parsed(said["times"]))
            continue
        seconds[key].append(_seconds(said))
    return [(median(seconds[key]), trees.get(key, ())) for key in map(json.dumps, sets)]


def _seconds(said: dict[str, Any]) -> float:
    """How long the imports of one process took; raises CheckError where one failed."""
    try:
        items = json.loads(said["imported"])["items"]
        problems = [(str(name), str(error)) for name, _, error in items if error]
        total = sum(float(seconds) for _, seconds, _ in items)
    except (ValueError, TypeError, KeyError, RecursionError):
        problems, total = [(", ".join(said["names"]), f"it ended (exit code {said['code']})")], 0.0
    for name, error in problems:
        what = f"{name} does not import"
        raise CheckError("smoke-failed", what, causes=error.splitlines()[-10:], hint="--import names other modules")
    return total


def _parsed(report: str) -> Iterator[_Timed]:
    """The modules of ``-X importtime`` between our marks; what is imported stands there before what imports it."""
    waiting: dict[int, list[_Timed]] = {}
    lines = report.splitlines()
    marks = [number for number, line in enumerate(lines) if line == _MARK]
    for line in lines[marks[0] : marks[1]] if len(marks) > 1 else ():
        if match := _LINE.fullmatch(line):
            depth = len(match[3]) // 2
            imported = tuple(waiting.pop(depth + 1, ()))
            for deeper in [one for one in waiting if one > depth + 1]:  # of an import that failed and was caught
                del waiting[deeper]
            timed = _Timed(match[4], int(match[1]) / 1e6, int(match[2]) / 1e6, imported)
            waiting.setdefault(depth, []).append(timed)
    yield from waiting.get(0, ())


class _Owned(NamedTuple):
    package: str
    path: str


def _modules(tree: Tree) -> dict[str, _Owned]:
    """The package and the file of each module that a layer's distributions list."""
    found: dict[str, _Owned] = {}
    for path, distribution in tree.owners.items():
        prefix = f"{distribution.site}/"
        if path in tree.entries and path.startswith(prefix) and (match := _MODULE.search(path)):
            name = path[len(prefix) : match.start()].replace("/", ".")
            found.setdefault(name, _Owned(distribution.normal_name, path))
    return found


def _rows(timed: Iterable[_Timed], tree: Tree, owners: dict[str, _Owned], depth: int = 0) -> Iterator[dict[str, Any]]:
    for one in timed:
        owned = owners.get(one.name)
        yield {
            "name": one.name,
            "package": owned.package if owned else None,
            "self": one.own,
            "cumulative": one.cumulative,
            "depth": depth,
            "compiled": bool(owned and owned.path.endswith(".py") and not _has_bytecode(owned.path, tree)),
        }
        yield from _rows(one.imported, tree, owners, depth + 1)


def _has_bytecode(path: str, tree: Tree) -> bool:
    folder, _, name = path.rpartition("/")
    return any(entry.startswith(f"{name[:-3]}.cpython-") for entry in tree.children.get(f"{folder}/__pycache__", ()))


def _packages(
    timed: tuple[float, tuple[_Timed, ...]], bare: tuple[float, tuple[_Timed, ...]] | None, owners: dict[str, _Owned]
) -> list[dict[str, Any]]:
    """What each package's own modules take when all imports are done in one process, the slowest first."""

    def sums(tree: tuple[_Timed, ...]) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {}
        waiting = list(tree)
        while waiting:
            one = waiting.pop()
            waiting += one.imported
            package = owners[one.name].package if one.name in owners else "standard library"
            found.setdefault(package, []).append(one.own)
        return found

    own, others = sums(timed[1]), sums(bare[1]) if bare else {}
    rows = [
        {
            "package": name,
            "modules": len(seconds),
            "seconds": sum(seconds),
            "without_bytecode": sum(others.get(name, ())) if bare else None,
        }
        for name, seconds in own.items()
    ]
    return sorted(rows, key=lambda row: (-float(str(row["seconds"])), str(row["package"])))


def _sizes(tree: Tree) -> list[dict[str, Any]]:
    """Bytes of each distribution by type of file, the largest first."""
    found: dict[str, tuple[Distribution | None, dict[str, int]]] = {}
    for path, entry in tree.entries.items():
        owner = tree.owner(path) or _source_owner(path, tree)
        types = found.setdefault(
            owner.normal_name if owner else "", (owner, dict.fromkeys((*_TYPES.values(), "data"), 0))
        )[1]
        suffix = "." + path.rpartition(".")[2] if ".so." not in path else ".so"
        types[_TYPES.get(suffix, "data")] += entry.size
    rows = [
        {"package": name or "other files", "version": owner.version if owner else "", "types": types}
        for name, (owner, types) in found.items()
    ]
    return sorted(rows, key=lambda row: (-sum(row["types"].values()), row["package"]))


def _source_owner(path: str, tree: Tree) -> Distribution | None:
    """The owner of the module that a .pyc was compiled from: RECORD does not list what was made later."""
    match = re.fullmatch(r"(.+)/__pycache__/([^/]+)\.cpython-[^/]+\.pyc", path)
    return tree.owner(f"{match[1]}/{match[2]}.py") if match else None
