"""Finds real CPythons of other versions on this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest


@cache
def _find(version: str) -> Path | None:
    roots = [
        Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions",
        Path("/opt/hostedtoolcache/Python"),
    ]
    found = [path for root in roots for path in sorted(root.glob(f"{version}.*/**/bin/python{version}"))]
    if on_path := shutil.which(f"python{version}"):
        found.append(Path(on_path))
    for path in found:
        done = subprocess.run(
            [path, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], capture_output=True, text=True
        )
        if done.stdout.strip() == version:
            return path
    return None


def find_python(version: str) -> Path:
    """The interpreter of a minor version such as ``3.12``; the test is skipped where there is none."""
    path = _find(version)
    if path is None:
        pytest.skip(f"there is no CPython {version} here")
    return path
