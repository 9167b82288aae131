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
}))
"""
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
        if facts["kind"] == "cpython" and facts["magic"] == runtime.bytecode_magic:
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
    yield from (path for folder in os.get_exec_path() if (path := Path(folder, name)).exists() and not _shim(path))
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
        key = hashlib.sha256(f"{path.absolute()}\0{stat.st_mtime_ns}\0{stat.st_size}".encode()).hexdigest()
        known = cache.record("interpreters", key)
        if known is None:
            # Not isolated from its own installation, but from all that a user may have set.
            env = {name: None for name in os.environ if name.startswith("PYTHON")}
            done = run([path, "-s", "-S", "-c", _PROBE], env=env)
            known = json.loads(done.stdout)
            cache.keep_record("interpreters", key, known)
    except (OSError, ValueError):
        return {"kind": "", "version": "", "magic": 0}
    return dict(known)
