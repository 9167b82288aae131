"""Build images: a Lambda-compatible base with compilers and pinned tools, made once for what goes into it."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerbuild.errors import BuildError
from layerbuild.lock import parse_lock

if TYPE_CHECKING:
    from layerbuild.build_settings import BuildSettings
    from layerbuild.builders import Progress
    from layerbuild.builders.engine import Engine
    from layerbuild.builders.environment import PassedOn
    from layerbuild.builders.host import HostBuilder
    from layerbuild.target import Target

_DOCKERFILE = "Dockerfile.build"
ARCHITECTURES = {"x86_64": "amd64", "arm64": "arm64"}  # as Docker calls them
_OLDEST_PYTHON = (3, 10)  # of the tools in the image


@dataclass(frozen=True, kw_only=True, slots=True)
class Image:
    """The build image of a target and of the system packages that a recipe asks for.

    Attributes:
        target: for which it builds.
        base: the image that it is made from.
        arguments: of its Dockerfile.
        key: the digest of all that goes into it, by which it is tagged.
    """

    target: Target
    base: str
    arguments: tuple[tuple[str, str], ...]
    key: str

    @property
    def tag(self) -> str:
        """Its name in the engine."""
        return f"layerbuild/{self.target}:{self.key[:16]}"

    @property
    def architecture(self) -> str:
        """Its architecture, as Docker calls it."""
        return ARCHITECTURES[self.target.arch]


class Images:
    """Makes build images, each once.

    Args:
        engine: where they are made.
        host: fetches the tools that go in.
        passed_on: certificates and proxies, for the package managers.
        progress: told what is pulled and made.
        base_image: what they are made from, ``{python}`` and ``{arch}`` filled in; None for AWS's own.
    """

    def __init__(
        self, engine: Engine, host: HostBuilder, passed_on: PassedOn, progress: Progress, base_image: str | None
    ) -> None:
        self._engine = engine
        self._host = host
        self._passed_on = passed_on
        self._progress = progress
        self._base_image = base_image
        self._ready: set[str] = set()
        self._locks: dict[str, threading.Lock] = {}

    def image(self, target: Target, build: BuildSettings) -> Image:
        """The image for a target and a recipe's settings, not necessarily made yet.

        The engine is asked only where the base is not pinned by digest: then its id is part of the key.
        """
        if target.runtime.version < _OLDEST_PYTHON:
            raise BuildError(
                "container-unsupported",
                f"the container builder does not serve {target.runtime.name}",
                causes=["the tools that it needs have left that Python behind"],
                hint="take a newer runtime, or packages that have wheels and `--builder host`",
            )
        base = base_image(target, self._base_image)
        identity = base if "@sha256:" in base else self._base_id(base, ARCHITECTURES[target.arch])
        packages = {f"{name.upper()}_PACKAGES": " ".join(names) for name, names in build.system_packages}
        arguments = tuple(sorted({"BASE_IMAGE": base, "PYTHON": target.runtime.name, **packages}.items()))
        context = [[name, hashlib.sha256(content).hexdigest()] for name, content in sorted(_context().items())]
        key = digest([identity, target.arch, arguments, context])
        return Image(target=target, base=base, arguments=arguments, key=key)

    def _base_id(self, base: str, architecture: str) -> str:
        """The id of the base image, which is pulled where the engine does not have it."""
        with self._lock(f"{base} {architecture}"):
            if found := self._engine.image_id(base, architecture):
                return found
            with self._progress.output(f"pulling {base} for {architecture}") as log:
                return self._engine.pull(base, architecture, log)

    def make_ready(self, image: Image) -> None:
        """Makes the image, unless the engine has it.

        Raises:
            BuildError: a step of it failed.
            MachineError: there is no engine, or it cannot run the architecture.
        """
        # One at a time for each base: the next one finds the compilers in the engine's own cache.
        with self._lock(f"image {image.base} {image.architecture}"):
            if image.tag in self._ready:
                return
            if self._engine.image_id(image.tag, image.architecture) is None:
                self._base_id(image.base, image.architecture)
                self._engine.check_runs(image.base, image.architecture)
                context = {**_context(), "ca.pem": self._passed_on.certificates()}
                tools = parse_lock(context["tools.txt"].decode(), image.target, "tools.txt")
                for wheel in self._host.wheels(tools, image.target):
                    context[f"wheels/{wheel.filename}"] = wheel.path.read_bytes()
                arguments = {**dict(image.arguments), **self._passed_on.proxies()}
                with self._progress.output(f"making the build image for {image.target}") as log:
                    self._engine.build(context, image.tag, image.architecture, arguments, log)
            self._ready.add(image.tag)

    def _lock(self, name: str) -> threading.Lock:
        return self._locks.setdefault(name, threading.Lock())


def base_image(target: Target, given: str | None) -> str:
    """An image that has a target's CPython: `given`, ``{python}`` and ``{arch}`` filled in; None for AWS's own."""
    if given is None:
        return target.runtime.image
    python = "{}.{}".format(*target.runtime.version)
    return given.replace("{python}", python).replace("{arch}", target.arch)


def digest(parts: Any) -> str:
    """The sha256 (hex) of values that JSON can hold."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def tool_version(name: str) -> str:
    """The version of a tool that build images have."""
    lines = _context()["tools.txt"].decode().splitlines()
    return next(line.split()[0].partition("==")[2] for line in lines if line.startswith(f"{name}=="))


@cache
def _context() -> dict[str, bytes]:
    """The files of the image's context that are layerbuild's own. Not the certificates: no wheel depends on them."""
    folder = files("layerbuild").joinpath("builders", "context")
    found = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    if _DOCKERFILE not in found:  # in a checkout it lies at the top level, where a person looks for it
        found[_DOCKERFILE] = (Path(__file__).parents[2] / _DOCKERFILE).read_bytes()
    return found
