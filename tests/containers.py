"""For tests of the container builder: made-up source archives, a base image for any target, and what builds start."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import re
import socket
import socketserver
import tarfile
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import pytest

from layerbuild.target import select_targets
from tests.engine import base_image, docker

PYPROJECT = '[build-system]\nrequires = ["setuptools", "wheel"]\nbuild-backend = "setuptools.build_meta"\n'
_REPOSITORY = "lbtest-base"
_REQUEST = re.compile(rb"(GET|HEAD|POST|PUT|DELETE) (?:/v[\d.]+)?(/[^ ?]*)[^ ]* HTTP/1\.1\r\n")


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


_BACKEND = """\
import base64, hashlib, os, zipfile

FILES = {{}}
INFO = "{module}-{version}.dist-info"

def build_wheel(folder, config_settings=None, metadata_directory=None):
    exec(open("make.py").read(), {{"FILES": FILES}})
    lines = ["Metadata-Version: 2.1", "Name: {name}", "Version: {version}"]
    lines += [f"Requires-Dist: {{text}}" for text in {requires!r}]
    FILES[f"{{INFO}}/METADATA"] = "\\n".join(lines) + "\\n"
    FILES[f"{{INFO}}/WHEEL"] = "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
    digest = lambda text: base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
    rows = [f"{{path}},sha256={{digest(text)}},{{len(text.encode())}}" for path, text in FILES.items()]
    FILES[f"{{INFO}}/RECORD"] = "\\n".join([*rows, f"{{INFO}}/RECORD,,"]) + "\\n"
    with zipfile.ZipFile(os.path.join(folder, "{wheel}"), "w") as archive:
        for path, text in FILES.items():
            archive.writestr(path, text)
    return "{wheel}"
"""


def write_quick_sdist(
    folder: Path,
    name: str,
    version: str = "1.0",
    make_py: str = "",
    *,
    requires: Sequence[str] = (),
    needs: Sequence[str] = (),
) -> Path:
    """Writes a source archive that is its own build backend: it takes no second to build, and needs no index.

    Args:
        make_py: code that runs when it is built, and puts further files into ``FILES``, path to text.
        requires: what it needs when it is used.
        needs: what it needs to be built.
    """
    module = name.replace("-", "_")
    files = {
        "backend.py": _BACKEND.format(
            name=name,
            version=version,
            module=module,
            requires=list(requires),
            wheel=f"{module}-{version}-py3-none-any.whl",
        ),
        "make.py": f"FILES['{module}.py'] = \"VERSION = '{version}'\"\n{make_py}\n",
    }
    build = f'[build-system]\nrequires = {list(needs)}\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    return write_sdist(folder, name, version, "", files, requires=requires, pyproject=build)


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


class Recorder:
    """A socket in front of the engine's, which keeps what is asked of it, whoever else uses the engine.

    Attributes:
        host: what ``DOCKER_HOST`` has to be.
        requests: such as ``POST /containers/create``, in order, without the version of the engine's language.
    """

    def __init__(self) -> None:
        engine = os.environ.get("DOCKER_HOST", "")
        if not engine.startswith("unix://"):
            pytest.skip("DOCKER_HOST names no socket of this machine")
        self._engine = engine.removeprefix("unix://")
        self.requests: list[str] = []
        outer = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                outer._pass_on(self.request)

        self._folder = tempfile.TemporaryDirectory(prefix="lb-")
        path = f"{self._folder.name}/sock"
        self._server = socketserver.ThreadingUnixStreamServer(path, Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        self.host = f"unix://{path}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._folder.cleanup()

    def _pass_on(self, client: socket.socket) -> None:
        with socket.socket(socket.AF_UNIX) as engine:
            engine.connect(self._engine)
            back = threading.Thread(target=self._copy, args=(engine, client))
            back.start()
            self._copy(client, engine, heard=True)
            back.join()

    def _copy(self, source: socket.socket, to: socket.socket, *, heard: bool = False) -> None:
        """Passes bytes on to the end; an end of one side's sending is passed on, too, as containers live by it."""
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if heard and (match := _REQUEST.match(data)):
                    self.requests.append(b" ".join(match.groups()).decode())
                to.sendall(data)
        with contextlib.suppress(OSError):
            to.shutdown(socket.SHUT_WR)
