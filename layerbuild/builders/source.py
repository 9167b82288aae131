"""Source archives: what their builds ask for, read without running anything of them."""

from __future__ import annotations

import lzma
import tarfile
import tomllib
import zipfile
import zlib
from typing import TYPE_CHECKING

from layerbuild.errors import BuildError

if TYPE_CHECKING:
    from pathlib import Path

# What reading a hostile archive, or TOML, may raise.
_UNREADABLE = (
    *(OSError, EOFError, ValueError, TypeError, AttributeError, RuntimeError),
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError),
)
_LARGEST_PYPROJECT = 1 << 20
# What a source without a pyproject.toml is built with (PEP 518; setuptools before 70.1 needs wheel).
_LEGACY = ("setuptools", "wheel")


def build_requirements(path: Path, filename: str) -> tuple[str, ...]:
    """The build requirements that a source archive names in its pyproject.toml (PEP 518).

    Args:
        path: the archive.
        filename: its name on the index.

    Raises:
        BuildError: it cannot be read.
    """
    try:
        text = _pyproject(path, filename)
        table = tomllib.loads(text).get("build-system", {}) if text is not None else {}
        needed = table.get("requires", _LEGACY)
        if not isinstance(needed, list | tuple) or not all(isinstance(line, str) for line in needed):
            raise TypeError("build-system.requires is not a list of strings")
    except _UNREADABLE as error:
        raise BuildError("source-invalid", f"{filename} cannot be read", causes=[str(error)]) from None
    return tuple(needed)


def _pyproject(path: Path, filename: str) -> str | None:
    """The text of the pyproject.toml in the archive's one folder; None where there is none."""
    if filename.endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if _is_pyproject(info.filename):
                    with archive.open(info) as file:
                        return _bounded(file.read(_LARGEST_PYPROJECT + 1))
        return None
    with tarfile.open(path, "r:*") as source:
        for member in source:
            if _is_pyproject(member.name) and member.isreg() and (inner := source.extractfile(member)):
                return _bounded(inner.read(_LARGEST_PYPROJECT + 1))
    return None


def _is_pyproject(name: str) -> bool:
    return name.removeprefix("./").count("/") == 1 and name.endswith("/pyproject.toml")


def _bounded(content: bytes) -> str:
    if len(content) > _LARGEST_PYPROJECT:
        raise ValueError("its pyproject.toml is too large")
    return content.decode()
