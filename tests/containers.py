"""For tests of the container builder: made-up source archives, a base image for any target, and what builds start."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from layerbuild.target import select_targets
from tests.engine import base_image, docker

PYPROJECT = '[build-system]\nrequires = ["setuptools", "wheel"]\nbuild-backend = "setuptools.build_meta"\n'
_REPOSITORY = "lbtest-base"


def write_sdist(
    folder: Path,
    name: str,
    version: str = "1.0",
    setup_py: str = "from setuptools import setup\nsetup()\n",
    files: Mapping[str, str | bytes] | None = None,
    *,
    requires: Sequence[str] = (),
    pyproject: str | None = PYPROJECT,
) -> Path:
    """Writes a source archive, the same bytes for the same arguments, and returns its path.

    Args:
        setup_py: its text; name and version are in a setup.cfg.
        files: further ones, path to content.
        requires: Requires-Dist lines of PKG-INFO.
        pyproject: text of pyproject.toml, None for no such file.
    """
    base = f"{name}-{version}"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    contents: dict[str, str | bytes] = {
        "PKG-INFO": "\n".join([*lines, *(f"Requires-Dist: {text}" for text in requires), ""]),
        "setup.cfg": f"[metadata]\nname = {name}\nversion = {version}\n",
        "setup.py": setup_py,
        **({} if pyproject is None else {"pyproject.toml": pyproject}),
        **(files or {}),
    }
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for path, content in sorted(contents.items()):
            data = content.encode() if isinstance(content, str) else content
            entry = tarfile.TarInfo(f"{base}/{path}")
            entry.size, entry.mtime = len(data), 1577836800
            archive.addfile(entry, io.BytesIO(data))
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / f"{base}.tar.gz"
    made.write_bytes(gzip.compress(out.getvalue(), mtime=0))
    return made


def write_recipe(project: Path, text: str) -> Path:
    """Writes the recipe of a text into a project, and returns its folder; its first line is its name."""
    name = text.strip().splitlines()[0].split('"')[1]
    folder = project / "recipes" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.toml").write_text(text, "utf-8")
    return folder


def tagged_base(*targets: str) -> str:
    """A value for --base-image that serves each of the targets, by ``{python}`` and ``{arch}``."""
    for target in select_targets(targets or ["python3.13-x86_64"]):
        version = "{}.{}".format(*target.runtime.version)
        docker("tag", base_image(target), f"{_REPOSITORY}:{version}-{target.arch}")
    return f"{_REPOSITORY}:{{python}}-{{arch}}"


class Events:
    """What the engine did since this was made, without asking any registry or index."""

    def __init__(self) -> None:
        self._since = time.time()

    def seen(self, *filters: str) -> list[dict[str, Any]]:
        """Its events that pass the filters, such as ``event=create``, in order."""
        chosen = [word for text in filters for word in ("--filter", text)]
        times = ("--since", f"{self._since:.9f}", "--until", f"{time.time():.9f}")
        return [json.loads(line) for line in docker("events", *times, "--format", "{{json .}}", *chosen).splitlines()]

    def containers(self, image: str) -> int:
        """How many containers were made of images whose name begins so, as ``layerbuild/python3.13-x86_64``."""
        made = self.seen("type=container", "event=create")
        return sum(event["Actor"]["Attributes"]["image"].startswith(image) for event in made)
