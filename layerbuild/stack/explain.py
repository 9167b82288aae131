"""Why a path or a module of a stack is the one it is."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from layerbuild.stack import FUNCTION_ROOT, LAYER_ROOT, same

if TYPE_CHECKING:
    from layerbuild.modules import Module
    from layerbuild.stack import Stack


def explain(stack: Stack, asked: str) -> dict[str, Any] | None:
    """Who serves a path or a module, who else carries it, and why.

    Args:
        stack: the layers.
        asked: a path below /opt or /var/task, absolute or not, or a module's dotted name.

    Returns:
        ``{"asked", "kind", "path", "served_by", "carried_by": [{"layer", "path", "size", "sha256"}], "why"}``, as
        ``--json`` prints it; None where nothing has it.
    """
    path = asked.removeprefix(f"{LAYER_ROOT}/").strip("/")
    if asked.startswith(f"{FUNCTION_ROOT}/"):
        return _function_path(stack, asked, asked.removeprefix(f"{FUNCTION_ROOT}/"))
    if any(path in tree.entries for tree in stack.layers):
        return _path(stack, asked, path)
    return _module(stack, asked) or _function_path(stack, asked, path)


def _function_path(stack: Stack, asked: str, path: str) -> dict[str, Any] | None:
    if not stack.function or path not in stack.function.entries:
        return None
    why = "layers are never extracted to /var/task"
    return _answer(asked, "path", f"{FUNCTION_ROOT}/{path}", "the function", [], why)


def _path(stack: Stack, asked: str, path: str) -> dict[str, Any]:
    carriers = [number for number, tree in enumerate(stack.layers) if path in tree.entries]
    winner = stack.winners.get(path)
    rows = [_row(stack, number, path) for number in carriers]
    if winner is None:
        why = "another layer has a folder of that name; what Lambda makes of it is undocumented"
    elif len(carriers) == 1:
        why = "no other layer carries it"
    elif all(same(stack.layers[number].entries[path], stack.layers[winner].entries[path]) for number in carriers):
        why = f"the last of {len(carriers)} layers with the same bytes"
    else:
        why = "of the layers that carry it, it is the last in order"
    served = None if winner is None else stack.layer_name(winner)
    return _answer(asked, "path", f"{LAYER_ROOT}/{path}", served, rows, why)


def _module(stack: Stack, name: str) -> dict[str, Any] | None:
    found = stack.find_module(name)
    if found is None:
        return None
    parent, _, last = name.rpartition(".")
    within = stack.find_module(parent) if parent else None
    path = within.locations if within else stack.search_path
    candidates = stack.candidates(last, path)
    rows = [_module_row(stack, one) for one in candidates]
    if found.kind == "namespace":
        why = "it has no __init__ anywhere: a namespace package of all these folders"
        return _answer(name, "namespace", None, None, rows, why)
    carriers = [] if found.layer is None else _others(stack, found.path or "")
    if len(candidates) == 1:
        why = "it is the last of the layers that carry the file" if carriers else "nothing else has that name"
    elif candidates[1].kind == "namespace":
        why = "a module or a package with __init__ comes before folders without"
    elif _folder(candidates[0]) == _folder(candidates[1]):
        why = "in one folder a package comes before extension modules, these before source, source before bytecode"
    else:
        why = (
            f"{_folder(candidates[0])} comes before {_folder(candidates[1])} on sys.path, whatever the layers' order"
        )
    served = stack.layer_name(found.layer)
    if bytecode := _bytecode(stack, found.path or ""):
        served, why = stack.layer_name(stack.winners[bytecode]), "its bytecode is used without a look at the source"
        rows.append(_row(stack, stack.winners[bytecode], bytecode))
    return _answer(name, found.kind, found.path, served, [*rows, *carriers], why)


def _bytecode(stack: Stack, source: str) -> str | None:
    """The bytecode of another layer that is used instead of a source, whatever that says (PEP 552: unchecked)."""
    folder, _, name = source.removeprefix(f"{LAYER_ROOT}/").rpartition("/")
    tag = "cpython-{}{}".format(*stack.target.runtime.version)
    path = f"{folder}/__pycache__/{name.removesuffix('.py')}.{tag}.pyc"
    if not source.startswith(f"{LAYER_ROOT}/") or path not in stack.winners:
        return None
    facts = stack.merged.entries[path].facts.get("pyc", [0, 0])
    other = stack.winners[path] != stack.layer_of(source)
    return path if other and facts[:2] == [stack.target.runtime.bytecode_magic, 1] else None


def _others(stack: Stack, path: str) -> list[dict[str, Any]]:
    """Layers whose file at this very path was replaced."""
    inner, winner = path.removeprefix(f"{LAYER_ROOT}/"), stack.layer_of(path)
    numbers = [n for n, tree in enumerate(stack.layers) if inner in tree.entries and n != winner]
    return [_row(stack, number, inner) for number in numbers]


def _folder(module: Module) -> str:
    place = (module.path or f"{module.locations[0]}/").rpartition("/")[0]
    return place.rpartition("/")[0] if module.kind == "package" else place


def _row(stack: Stack, number: int, path: str) -> dict[str, Any]:
    entry = stack.layers[number].entries[path]
    name = stack.layer_name(number)
    return {"layer": name, "path": f"{LAYER_ROOT}/{path}", "size": entry.size, "sha256": _hex(entry.sha256)}


def _hex(digest: str) -> str | None:
    """A digest in RECORD's form as ``sha256:<hex>``."""
    return f"sha256:{base64.urlsafe_b64decode(digest + '=').hex()}" if digest else None


def _module_row(stack: Stack, module: Module) -> dict[str, Any]:
    path = module.path or module.locations[0]
    if path.startswith(f"{FUNCTION_ROOT}/"):
        return {"layer": "the function", "path": path, "size": None, "sha256": None}
    number = stack.winners.get(path.removeprefix(f"{LAYER_ROOT}/")) if module.path else None
    if number is None:
        carriers = [
            stack.layer_name(number)
            for number, tree in enumerate(stack.layers)
            if path.removeprefix(f"{LAYER_ROOT}/") in tree.children
        ]
        return {"layer": ", ".join(carriers), "path": f"{path}/", "size": None, "sha256": None}
    return _row(stack, number, path.removeprefix(f"{LAYER_ROOT}/"))


def _answer(
    asked: str, kind: str, path: str | None, served_by: str | None, carried_by: list[dict[str, Any]], why: str
) -> dict[str, Any]:
    return {"asked": asked, "kind": kind, "path": path, "served_by": served_by, "carried_by": carried_by, "why": why}
