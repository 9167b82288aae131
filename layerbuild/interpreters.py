"""CPythons on this machine, to compile for a target and to run what is for it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerbuild.process import run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from layerbuild.cache import Cache
    from layerbuild.target import Runtime

_PROBE = """
import importlib.util, json, os, platform, sys
print(json.dumps({
    "path": os.path.realpath(sys.executable),
    "prefix": sys.base_prefix,
    "version": platform.python_version(),
    "machine": platform.machine(),
    "kind": sys.implementation.name,
    "magic": int.from_bytes(importlib.util.MAGIC_NUMBER[:2], "little"),
    "free_threaded": "t" in getattr(sys, "abiflags", ""),
}))
"""
_UNUSABLE = {"path": "", "prefix": "", "version": "", "machine": "", "kind": "", "magic": 0, "free_threaded": False}
_NUMBERS = re.compile(r"\d+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Interpreter:
    """A CPython: its program, its full version, where it is installed, its machine as wheels call it."""

    path: Path
    version: str
    prefix: Path
    machine: str


def find_interpreter(runtime: Runtime, cache: Cache) -> Interpreter | None:
    """A CPython of a runtime's minor version whose bytecode is that of the runtime; None where there is none.

    Looked for, in this order: the running one, on PATH, among pyenv's and a GitHub runner's, among uv's.

    Args:
        runtime: for which.
        cache: remembers what interpreters said of themselves.
    """
    for path in _candidates(runtime):
        facts = _facts(path, cache)
        version = "{}.{}.".format(*runtime.version)
        # One without a lock has the same magic number, and loads no extension module that is for Lambda.
        if facts["kind"] == "cpython" and facts["magic"] == runtime.bytecode_magic and not facts["free_threaded"]:
            if not facts["version"].startswith(version):
                continue
            return Interpreter(
                path=Path(facts["path"]),
                version=facts["version"],
                prefix=Path(facts["prefix"]),
                machine=facts["machine"],
            )
    return None


def _candidates(runtime: Runtime) -> Iterator[Path]:
    """Programs that may be it, each asked for only when those before it were not."""
    name = "python{}.{}".format(*runtime.version) + (sysconfig.get_config_var("EXE") or "")
    if sys.version_info[:2] == runtime.version:
        yield Path(sys.executable)
    # pyenv's shims start whatever its settings of the moment say.
    yield from (path for folder in os.get_exec_path() if _is_there(path := Path(folder, name)) and not _shim(path))
    home = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    roots = [home / "versions"]
    if tools := os.environ.get("RUNNER_TOOL_CACHE"):
        roots.append(Path(tools) / "Python")
    for root in roots:
        versions = [path for path in root.glob("{}.{}.*".format(*runtime.version)) if path.is_dir()]
        for folder in sorted(
            versions, key=lambda path: [int(text) for text in _NUMBERS.findall(path.name)], reverse=True
        ):
            yield from sorted(folder.glob(f"bin/{name}"))
            yield from sorted(folder.glob(f"*/bin/{name}"))
    yield from _of_uv(runtime)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a folder that may not be read, or a name that no folder can have
        return False


def _shim(path: Path) -> bool:
    return path.parent.name == "shims"


def _of_uv(runtime: Runtime) -> Iterator[Path]:
    from uv import find_uv_bin

    command = [find_uv_bin(), "python", "find", "--no-config", "--no-project", "--no-python-downloads"]
    done = run([*command, "cpython=={}.{}.*".format(*runtime.version)], env={"UV_PYTHON_PREFERENCE": "only-managed"})
    if not done.returncode and done.stdout.strip():
        yield Path(done.stdout.strip())


def _facts(path: Path, cache: Cache) -> dict[str, Any]:
    """What an interpreter says of itself, asked once for each file."""
    try:
        stat = path.stat()
        # What an interpreter is asked for is part of the key.
        key = hashlib.sha256(f"{_PROBE}\0{path.absolute()}\0{stat.st_mtime_ns}\0{stat.st_size}".encode()).hexdigest()
        known = cache.record("interpreters", key)
        if known is None:
            known = json.loads(run([path, "-I", "-S", "-c", _PROBE]).stdout)
            if not isinstance(known, dict) or known.keys() != _UNUSABLE.keys():
                return _UNUSABLE
            cache.keep_record("interpreters", key, known)
    except (OSError, ValueError, RecursionError):
        return _UNUSABLE
    return dict(known)
