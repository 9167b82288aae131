"""Runs inside a `tests.lambda_root`: opens ELF files and imports modules, each in a child process of its own.

It reads a JSON object: ``loader`` (the command line of the dynamic loader), ``files`` and ``modules``. It prints one:
``files``, what the loader refuses to open and all that it said of it, and ``modules``, what does not import and why.

A child for each, because the loader takes a library that another file brought into the process, wherever it came
from: what would fail alone could succeed after a neighbour.
"""

import importlib
import json
import os
import site
import subprocess
import sys
from _ctypes import dlopen
from collections.abc import Callable
from functools import partial
from pathlib import Path


def outcome(action: Callable[[], object]) -> str:
    """What an action raises, in a child process; empty when it succeeds."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            action()
        except BaseException as error:
            os.write(write, f"{type(error).__name__}: {error}".encode()[:4000])
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as file:
        said = file.read().decode()
    _, status = os.waitpid(child, 0)
    return f"killed by signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else said


def refusal(path: str, loader: list[str]) -> str:
    """What the dynamic loader has against a library, opened as an import does, or against a program.

    Empty if nothing. A refusal names only the first library that is missing; so the loader is then asked to list all
    that is needed, as ldd does. Functions are looked up when they are called (``RTLD_LAZY``): the question is whether
    the libraries are there.
    """
    said = outcome(partial(dlopen, path, os.RTLD_LAZY))
    if not said:
        return ""
    env = {**os.environ, "LD_TRACE_LOADED_OBJECTS": "1", "LD_WARN": "yes"}
    done = subprocess.run([*loader, path], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    listed = [line.strip() for line in done.stdout.splitlines() if "not found" in line]
    if "cannot dynamically load" in said:  # a program
        return "\n".join(listed)
    return "\n".join([said, *listed])


def main() -> None:
    request = json.loads(sys.stdin.read())
    library = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    layers = [f"/opt/python/{library}", "/opt/python"]
    sys.path[:0] = ["/var/task", *layers]
    for folder in layers:
        for path in sorted(Path(folder).glob("*.pth")):
            site.addpackage(folder, path.name, None)
    files = {path: refusal(path, request["loader"]) for path in request["files"]}
    modules = {name: outcome(partial(importlib.import_module, name)) for name in request["modules"]}
    json.dump({"files": files, "modules": modules}, sys.stdout)


if __name__ == "__main__":
    main()
