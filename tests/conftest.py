"""Fixtures that every kind of test shares, and the flags that choose the slow ones."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from layerbuild.process import interrupted
from tests.index_server import IndexServer

# The same examples in every run: what one machine finds, every machine finds, and a slow one finds nothing else.
hypothesis.settings.register_profile("layerbuild", derandomize=True, deadline=None)
hypothesis.settings.load_profile("layerbuild")

# What this machine or a CI sets must not reach the tests.
_FOREIGN = ("LAYERBUILD_", "SOURCE_DATE_EPOCH", "NO_COLOR", "CI", "GITHUB_", "COLUMNS")
_PIP = ("PIP_", "UV_")
_NO_ENGINE = "unix:///nonexistent/docker.sock"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--network", action="store_true", help="run tests that need a package index")
    parser.addoption("--slow", action="store_true", help="run tests that build every shipped recipe, too")
    parser.addoption("--docker", action="store_true", help="run tests that need a Docker engine")
    parser.addoption("--engines", action="store_true", help="with --docker: also those that stop and kill engines")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    slow = config.getoption("--slow")
    network = slow or config.getoption("--network")
    for item in items:
        if item.get_closest_marker("docker") and not config.getoption("--docker"):
            item.add_marker(pytest.mark.skip(reason="needs --docker"))
        elif item.get_closest_marker("engines") and not config.getoption("--engines"):
            item.add_marker(pytest.mark.skip(reason="needs --engines"))
        elif item.get_closest_marker("slow") and not slow:
            item.add_marker(pytest.mark.skip(reason="needs --slow"))
        elif item.get_closest_marker("network") and not network:
            item.add_marker(pytest.mark.skip(reason="needs --network"))


@dataclass(frozen=True)
class Ran:
    """How a command line ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture(autouse=True)
def _clean_environment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    engine = request.node.get_closest_marker("docker") is not None
    for name in list(os.environ):
        if name.startswith(_FOREIGN) or (name.startswith("DOCKER_") and not engine):
            monkeypatch.delenv(name)
    if not engine:
        monkeypatch.setenv("DOCKER_HOST", _NO_ENGINE)
    yield
    interrupted.clear()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project folder, which is also the current one, with a cache of its own beside it."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("LAYERBUILD_CACHE_DIR", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Runs a command line in this process."""
    from layerbuild.cli import run

    def call(*arguments: str | Path) -> Ran:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return call


@pytest.fixture
def wheelhouse(tmp_path: Path) -> Path:
    """The folder that the index of `index_server` serves."""
    folder = tmp_path / "wheelhouse"
    folder.mkdir()
    return folder


@pytest.fixture
def index_server(wheelhouse: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[IndexServer]:
    """A package index on loopback that pip, uv and layerbuild are configured to use, and no other."""
    for name in list(os.environ):
        if name.startswith(_PIP):
            monkeypatch.delenv(name)
    server = IndexServer(wheelhouse)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", server.url)
    monkeypatch.setenv("PIP_TIMEOUT", "5")
    monkeypatch.setenv("PIP_RETRIES", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    yield server
    server.stop()
