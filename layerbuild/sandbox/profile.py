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
from layerbuild.modules import site_folder
from layerbuild.sandbox import smoke
from layerbuild.sandbox.invoke import stack_files

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from layerbuild.sandbox import Sandbox, SandboxFile
    from layerbuild.stack import Stack
    from layerbuild.target import Runtime
    from layerbuild.tree import Distribution, Tree

_MARK = "layerbuild: imports"
# A module may have left half a line before it. Whoever prints such lines itself is bounded.
_LINE = re.compile(r"import time: +(\d{1,15}) \| +(\d{1,15}) \| ( {0,2000})(\S+)$")
_MODULE = re.compile(r"(?:/__init__)?(?:\.cpython-[^/]+\.so|\.abi3\.so|\.so|\.pyc?)$")
_CACHED = re.compile(r"(.+)/__pycache__/([^/]+)\.cpython-[^/]+\.pyc")
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
        content = (file for file in stack_files(stack) if not _is_copy(file.path.removeprefix("opt/"), stack.merged))
        bare = _measure(sandbox, stack, sets, runs, content)
    owners = _modules(stack.merged, stack.target.runtime)
    tag = "cpython-{}{}".format(*stack.target.runtime.version)
    rows = []
    for place, names in enumerate(sets[: len(imports)]):
        seconds, tree = timed[place]
        rows.append(
            {
                "name": names[0],
                "seconds": seconds,
                "without_bytecode": bare[place][0] if bare else None,
                "modules": list(_rows(tree, stack.merged, owners, tag)),
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
    spec = smoke.import_spec(stack.target, "profile", kind="profile", **more)
    seconds: dict[str, list[float]] = {json.dumps(names): [] for names in sets}
    trees: dict[str, tuple[_Timed, ...]] = {}
    for said in sandbox.run(content, spec, smoke.LIMITS, network="none") if sets else ():
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
    items, _, problem = smoke.read_report(said)
    problems = [(name, error) for name, _, error in items if error]
    if problem:
        problems = [(", ".join(said["names"]), problem)]
    for name, error in problems:
        what = f"{name} does not import"
        raise CheckError("smoke-failed", what, causes=error.splitlines()[-10:], hint="--import names other modules")
    return sum(seconds for _, seconds, _ in items)


def _parsed(report: str) -> Iterator[_Timed]:
    """The modules of ``-X importtime`` between our marks; what is imported stands there before what imports it."""
    waiting: dict[int, list[_Timed]] = {}
    lines = report.splitlines()
    marks = [number for number, line in enumerate(lines) if line == _MARK]
    for line in lines[marks[0] : marks[1]] if len(marks) > 1 else ():
        if match := _LINE.search(line):
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


_OTHER = "other files"


def _modules(tree: Tree, runtime: Runtime) -> dict[str, _Owned]:
    """The package and the file of each module of a layer; an extension module wins over source beside it."""
    found: dict[str, _Owned] = {}
    sites = (site_folder(runtime), "python")
    for path in sorted(tree.entries, key=lambda path: (not path.endswith(".so"), path)):
        site = next((site for site in sites if path.startswith(f"{site}/")), None)
        match = _MODULE.search(path)
        if site is not None and match and "/__pycache__/" not in path:
            name = path[len(site) + 1 : match.start()].replace("/", ".")
            owner = tree.owner(path)
            found.setdefault(name, _Owned(owner.normal_name if owner else _OTHER, path))
    return found


def _rows(timed: Iterable[_Timed], tree: Tree, owners: dict[str, _Owned], tag: str) -> Iterator[dict[str, Any]]:
    waiting = [(one, 0) for one in reversed(tuple(timed))]
    while waiting:
        one, depth = waiting.pop()
        owned = owners.get(one.name)
        yield {
            "name": one.name,
            "package": owned.package if owned and owned.package != _OTHER else None,
            "self": one.own,
            "cumulative": one.cumulative,
            "depth": depth,
            "compiled": bool(owned and owned.path.endswith(".py") and not _has_bytecode(owned.path, tree, tag)),
        }
        waiting += [(deeper, depth + 1) for deeper in reversed(one.imported)]


def _has_bytecode(path: str, tree: Tree, tag: str) -> bool:
    folder, _, name = path.rpartition("/")
    return f"{folder}/__pycache__/{name[:-3]}.{tag}.pyc" in tree.entries


def _is_copy(path: str, tree: Tree) -> bool:
    """Whether it is bytecode of a source that is there, too."""
    match = _CACHED.fullmatch(path)
    return bool(match and f"{match[1]}/{match[2]}.py" in tree.entries) or (
        path.endswith(".pyc") and path[:-1] in tree.entries
    )


def _packages(
    timed: tuple[float, tuple[_Timed, ...]], bare: tuple[float, tuple[_Timed, ...]] | None, owners: dict[str, _Owned]
) -> list[dict[str, Any]]:
    """What each package's own modules take when all imports are done in one process, the slowest first."""

    def sums(tree: tuple[_Timed, ...]) -> dict[str, dict[str, float]]:
        found: dict[str, dict[str, float]] = {}
        waiting = list(tree)
        while waiting:
            one = waiting.pop()
            waiting += one.imported
            package = owners[one.name].package if one.name in owners else "standard library"
            times = found.setdefault(package, {})
            # A package that imports a module of its own is reported on the way to that module, and once more.
            times[one.name] = times.get(one.name, 0) + one.own
        return found

    own, others = sums(timed[1]), sums(bare[1]) if bare else {}
    rows = [
        {
            "package": name,
            "modules": len(seconds),
            "seconds": sum(seconds.values()),
            "without_bytecode": sum(others.get(name, {}).values()) if bare else None,
        }
        for name, seconds in own.items()
    ]
    return sorted(rows, key=lambda row: (-float(str(row["seconds"])), str(row["package"])))


def _sizes(tree: Tree) -> list[dict[str, Any]]:
    """Bytes of each distribution by type of file, the largest first."""
    found: dict[str, tuple[Distribution | None, dict[str, int]]] = {}
    for path, entry in tree.entries.items():
        if entry.kind == "folder":
            continue
        owner = tree.owner(path) or _source_owner(path, tree)
        types = found.setdefault(
            owner.normal_name if owner else "", (owner, dict.fromkeys((*_TYPES.values(), "data"), 0))
        )[1]
        suffix = "." + path.rpartition(".")[2] if ".so." not in path else ".so"
        types[_TYPES.get(suffix, "data")] += entry.size
    rows = [
        {"package": name or _OTHER, "version": owner.version if owner else "", "types": types}
        for name, (owner, types) in found.items()
    ]
    return sorted(rows, key=lambda row: (-sum(row["types"].values()), row["package"]))


def _source_owner(path: str, tree: Tree) -> Distribution | None:
    """The owner of the module that a .pyc was compiled from: RECORD does not list what was made later."""
    match = _CACHED.fullmatch(path)
    return tree.owner(f"{match[1]}/{match[2]}.py") if match else None
