"""The container builder: what has no wheel is built by pip in a Lambda-compatible image, and comes out as a wheel.

Each source package is built in a container of its own, so that one cannot tamper with another's wheel. Sources are
fetched and verified on the host. What comes out is read as if a stranger had sent it, and kept under the hash of what
it was made from.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import deque
from contextlib import ExitStack, closing, nullcontext
from copy import copy
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from layerbuild.build_settings import BuildSettings
from layerbuild.builders.engine import Engine
from layerbuild.builders.environment import GLIBC_LIMIT, SOURCES, PassedOn, fixed_environment
from layerbuild.builders.failures import build_failure, instead_of
from layerbuild.builders.image import Images, digest
from layerbuild.builders.source import build_requirements
from layerbuild.errors import BuildError
from layerbuild.index import parse_filename
from layerbuild.libraries import system_libraries
from layerbuild.lock import normal_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from layerbuild.builders import ContainerOptions, Progress, Ran
    from layerbuild.builders.host import HostBuilder, Source
    from layerbuild.builders.image import Image
    from layerbuild.builders.running import Container, Log
    from layerbuild.cache import Cache
    from layerbuild.index import Index
    from layerbuild.lock import Lock, Pin
    from layerbuild.target import Target
    from layerbuild.wheel import Wheel

# Raised whenever the same inputs would give another wheel.
_FORMAT = 2
_MOST_LINES = 20_000
_LARGEST_WHEEL = 2 * 1024**3
_PYTHON = "/usr/local/layerbuild/venv/bin/python"
_INSIDE = (_PYTHON, "/usr/local/layerbuild/inside.py")


class ContainerBuilder:
    """Builds what the host builder has no wheel for; asks the Docker engine only when something must be built.

    One instance serves all targets of a run, from any number of threads.

    Args:
        host: fetches wheels and sources.
        cache: keeps what is built.
        index: whose settings builds get.
        progress: told what is done.
        options: see `layerbuild.builders.ContainerOptions`.
        resolve: a lock for the requirements of a build under constraints, for builds without network.
    """

    def __init__(
        self,
        host: HostBuilder,
        cache: Cache,
        index: Index,
        progress: Progress,
        options: ContainerOptions,
        resolve: Callable[[Sequence[str], Sequence[str], Target], Lock],
    ) -> None:
        self._host = host
        self._cache = cache
        self._index = index
        self._progress = progress
        self._options = options
        self._resolve = resolve
        self._passed_on = PassedOn(lambda: index.settings, progress.note)
        self._engine = Engine()
        self._images = Images(self._engine, host, self._passed_on, progress, options.base_image)
        self._locks: dict[str, threading.Lock] = {}
        self.fetches_inside = False

    def fetching_inside(self) -> ContainerBuilder:
        """The same builder, but that pip in a container fetches the wheels, too, rather than layerbuild."""
        other = copy(self)
        other.fetches_inside = True
        return other

    def wheels(
        self, lock: Lock, target: Target, *, pure: bool = False, name: str = "", build: BuildSettings | None = None
    ) -> Sequence[Wheel]:
        """See `Builder.wheels`."""
        build = build or BuildSettings()
        if pure and build.files:
            raise BuildError(
                "not-pure",
                f"{name} takes files from a build image, and a shared layer needs what serves every runtime",
                hint='set layout = "versioned" in the recipe',
            )
        sources = self._host.without_wheel(lock, target, pure=pure, no_binary=build.no_binary)
        others = replace(lock, pins=tuple(pin for pin in lock.pins if pin not in sources))
        if self.fetches_inside:
            found = self._fetched(others, target, build, pure=pure)
        else:
            found = list(self._host.wheels(others, target, pure=pure))
        for pin in sources:
            asked_for = self.fetches_inside or pin.name in build.no_binary
            with nullcontext() if asked_for else instead_of(partial(self._host.no_wheel, pin, target)):
                found.append(self._built(pin, target, build, pure=pure))
        found.sort(key=lambda wheel: normal_name(wheel.name))
        return [*found, *([self._files(name, target, build)] if build.files else [])]

    def _built(self, pin: Pin, target: Target, build: BuildSettings, *, pure: bool) -> Wheel:
        """The wheel of a pin, built from its source, now or earlier."""
        source = self._host.source(pin, target)
        image = self._images.image(target, build)
        key = digest([_FORMAT, source.sha256, image.key, build.environment, build.constraints, build.strip])
        (wheel,) = self._once(key, lambda: [self._build(pin, source, image, build)])
        wheel = replace(wheel, source=source.sha256)
        release = parse_filename(wheel.filename)
        if pure and not any(str(tag) == "py3-none-any" for tag in (release.tags if release else ())):
            raise BuildError(
                "not-pure",
                f"{pin} becomes a wheel for one runtime, and a shared layer needs one for all: {wheel.filename}",
                hint='set layout = "versioned" in the recipe',
            )
        return wheel

    def _once(self, key: str, make: Callable[[], list[Wheel]]) -> list[Wheel]:
        """The wheels that were made under `key` earlier, or else are made now."""
        with self._locks.setdefault(key, threading.Lock()):
            if kept := self._host.all_cached(self._cache.record("builds", key) or ()):
                return kept
            made = make()
            mine = [[wheel.sha256, wheel.filename] for wheel in made]
            # Another machine may have built the same meanwhile, to other bytes: all take those of the first.
            first = self._cache.keep_first("builds", key, mine)
            if first != mine:
                if kept := self._host.all_cached(first):
                    return kept
                self._cache.keep_record("builds", key, mine)
            return made

    def _build(self, pin: Pin, source: Source, image: Image, build: BuildSettings) -> Wheel:
        self._images.make_ready(image)
        path = self._host.fetch_source(source, pin)
        put = {
            f"sources/{source.filename}": path.read_bytes(),
            "requirements.txt": _requirement(pin, [source.sha256]),
        }
        if self._options.network == "none":
            needed = build_requirements(path, source.filename)
            with self._progress.output(f"fetching what building {pin} needs"):
                tools = self._resolve(needed, build.constraints, image.target)
                for wheel in self._host.wheels(tools, image.target):
                    put[f"sources/{wheel.filename}"] = wheel.path.read_bytes()
        network = self._options.network
        with (
            self._progress.output(f"building {pin} for {image.target}") as log,
            self._engine.container(
                image.tag, image.architecture, self._options.limits, network=network, volume=_volume(image, pin.name)
            ) as box,
        ):
            command = ("wheel", "--no-deps", "--no-binary", pin.name, "--wheel-dir", "built")
            ran = self._pip(box, image, build, command, put, log, network=network)
            if ran.code:
                raise build_failure(pin, image.target, ran.lines)
            spec = {"built": "built", "out": "out", "strip": build.strip, "present": _present(image.target)}
            ran = self._inside(box, "repair", spec, build, log)
            if ran.code:
                raise BuildError(
                    "repair-failed",
                    f"the libraries that {pin} needs cannot be put into its wheel",
                    causes=ran.lines,
                )
            return self._adopted(box, {pin.name: pin.version})[0]

    def _fetched(self, lock: Lock, target: Target, build: BuildSettings, *, pure: bool) -> list[Wheel]:
        """The wheels that pip, run by the target's own interpreter, takes from the index."""
        if not lock.pins:
            return []
        image = self._images.image(target, build)
        key = digest([_FORMAT, image.key, lock.digest, pure])
        return self._once(key, lambda: self._fetch(lock, image, pure=pure))

    def _fetch(self, lock: Lock, image: Image, *, pure: bool) -> list[Wheel]:
        self._images.make_ready(image)
        put = {"requirements.txt": b"".join(_requirement(pin, pin.hashes) for pin in lock.pins)}
        for pin in lock.pins:
            put |= self._local_files(pin.name, pin.version)
        command = ["download", "--no-deps", "--only-binary", ":all:", "--dest", "out"]
        if pure:
            command += ["--platform", "any", "--implementation", "py", "--abi", "none"]
        network = "host" if self._options.network == "host" else "bridge"
        with (
            self._progress.output(f"fetching wheels in a container for {image.target}") as log,
            self._engine.container(
                image.tag, image.architecture, self._options.limits, network=network, volume=_volume(image, "wheels")
            ) as box,
        ):
            ran = self._pip(box, image, BuildSettings(), command, put, log, network=network)
            if ran.code:
                what = f"pip in the container cannot fetch the wheels for {image.target}"
                raise BuildError("fetch-failed", what, causes=ran.lines)
            wheels = self._adopted(box, {pin.name: pin.version for pin in lock.pins})
        hashes = {pin.name: pin.hashes for pin in lock.pins}
        for wheel in wheels:
            if wheel.sha256 not in hashes.get(normal_name(wheel.name), ()):
                raise BuildError("hash-mismatch", f"{wheel.filename} is not the file that was locked")
        return wheels

    def _files(self, name: str, target: Target, build: BuildSettings) -> Wheel:
        """A wheel of what a recipe takes from the image, with the libraries that it needs."""
        image = self._images.image(target, build)
        spec = {
            "name": f"{name.replace('-', '_').lower()}_files",
            "version": "0",
            "files": [{"from": rule.source, "to": rule.to} for rule in build.files],
            "present": _present(target),
            "strip": build.strip,
            "out": "out",
        }

        def make() -> list[Wheel]:
            self._images.make_ready(image)
            with (
                self._progress.output(f"taking files from the image for {target}") as log,
                self._engine.container(image.tag, image.architecture, self._options.limits, network="none") as box,
            ):
                ran = self._inside(box, "files", spec, build, log)
                if ran.code:
                    raise BuildError(
                        "files-missing",
                        f"{name}: what [[files]] asks for cannot be taken from the image",
                        causes=[line.removeprefix("layerbuild: ") for line in ran.lines],
                        hint="system-packages installs what brings them",
                    )
                return self._adopted(box, {normal_name(str(spec["name"])): str(spec["version"])})

        (wheel,) = self._once(digest([_FORMAT, image.key, spec]), make)
        return wheel

    def compile_lock(
        self,
        target: Target,
        build: BuildSettings,
        inputs: Mapping[str, str],
        command: Sequence[str],
        *,
        names: Iterable[str] = (),
    ) -> tuple[int, str, dict[str, str]]:
        """Runs a command by the target's own interpreter, in a folder with `inputs` and with pip's settings.

        For pip-compile, which may have to build a package to learn what it needs.

        Args:
            target: whose interpreter.
            build: the recipe's settings: packages may need its system packages to be built.
            inputs: file name to text.
            command: arguments of the interpreter.
            names: of projects; files of theirs that only this machine has are put in.

        Returns:
            Its exit code, what it printed, and the files in that folder afterwards.
        """
        network = self._options.network
        if network == "none":
            raise BuildError(
                "needs-network",
                f"locking in a container for {target} needs a network",
                causes=["packages without a wheel have to be built to learn what they need, with the index at hand"],
                hint="`layerbuild lock` without --build-network none; then `make` with it, and --locked",
            )
        image = self._images.image(target, build)
        self._images.make_ready(image)
        put = {f"out/{name}": text.encode() for name, text in inputs.items()}
        for name in names:
            put |= self._local_files(name)
        lines: deque[str] = deque(maxlen=_MOST_LINES)
        with (
            self._progress.output(f"locking in a container for {target}") as log,
            # Without a volume of downloads: those of one recipe could be another's.
            self._engine.container(image.tag, image.architecture, self._options.limits, network=network) as box,
        ):

            def keep(line: str) -> None:
                lines.append(line)
                log(line)

            self._put(box, image, build, put)
            environment = {**self._pip_environment(build, network), "PYTHONPATH": "/build/out"}
            ran = box.run(["sh", "-c", 'cd out && exec "$@"', "sh", _PYTHON, *command], environment, keep)
            left = {name: b"".join(chunks).decode("utf-8", "replace") for name, chunks in box.get("out")}
        return ran.code, "\n".join(lines), left

    # ---- Inside a container ----

    def _put(self, box: Container, image: Image, build: BuildSettings, put: Mapping[str, bytes]) -> None:
        """Writes what every run of pip needs, and `put`."""
        always = {
            "ca.pem": self._passed_on.certificates(),
            "limits/_manylinux.py": GLIBC_LIMIT.format(glibc=image.target.runtime.glibc).encode(),
            "build-constraints.txt": "".join(f"{line}\n" for line in build.constraints).encode(),
            "tmp/.keep": b"",
            "sources/.keep": b"",
        }
        box.put({**always, **put})

    def _pip(
        self,
        box: Container,
        image: Image,
        build: BuildSettings,
        command: Sequence[str],
        put: Mapping[str, bytes],
        log: Log,
        *,
        network: str,
    ) -> Ran:
        """Runs a command of pip over the requirements that are put in."""
        self._put(box, image, build, put)
        words = (*_INSIDE, "pip", *command, "--require-hashes", "--requirement", "requirements.txt")
        return box.run(words, self._pip_environment(build, network), log)

    def _pip_environment(self, build: BuildSettings, network: str) -> dict[str, str]:
        given = {"PIP_NO_INDEX": "1"} if network == "none" else self._passed_on.index()
        links = f"{given.get('PIP_FIND_LINKS', '')} {SOURCES}".strip()
        return {**fixed_environment(build), **given, "PIP_FIND_LINKS": links}

    def _local_files(self, name: str, version: str | None = None) -> dict[str, bytes]:
        """What of a project lies on this machine alone, where a container cannot reach it."""
        return {
            f"sources/{file.filename}": path.read_bytes()
            for file in self._index.files(name)
            if (path := file.local_path) and (release := file.release) and version in (None, str(release.version))
        }

    def _inside(self, box: Container, command: str, spec: object, build: BuildSettings, log: Log) -> Ran:
        """Runs a command of ``inside.py``."""
        box.put({"spec.json": json.dumps(spec).encode(), "out/.keep": b"", "tmp/.keep": b""})
        return box.run((*_INSIDE, command, "spec.json"), fixed_environment(build), log)

    def _adopted(self, box: Container, wanted: Mapping[str, str]) -> list[Wheel]:
        """The wheels in a container's folder ``out``, in the cache now, each found to be whole and honest.

        Args:
            box: the container.
            wanted: name to version of what there must be, and nothing else.
        """
        with ExitStack() as received, closing(box.get("out")) as found:
            files = [(name, *self._received(name, chunks, received)) for name, chunks in found if name != ".keep"]
            _refuse_others([name for name, _, _ in files], wanted)
            return [self._host.adopt(path, sha256, name) for name, path, sha256 in files]

    def _received(self, filename: str, chunks: Iterator[bytes], stack: ExitStack) -> tuple[Path, str]:
        """Where a file lies until `stack` ends, and its sha256 (hex)."""
        if not filename.endswith(".whl") or parse_filename(filename) is None:
            raise BuildError("build-result", f"the build made {filename!r}, which is not a wheel")
        hashed, size = hashlib.sha256(), 0
        path = stack.enter_context(self._cache.new_wheel())
        with path.open("wb") as file:
            for chunk in chunks:
                size += len(chunk)
                if size > _LARGEST_WHEEL:
                    raise BuildError("build-result", f"{filename} has more than {_LARGEST_WHEEL:,} bytes")
                hashed.update(chunk)
                file.write(chunk)
        return path, hashed.hexdigest()


def _refuse_others(filenames: Sequence[str], wanted: Mapping[str, str]) -> None:
    """Refuses what came out of a container unless it is one wheel for each name and version."""
    from packaging.version import Version

    releases = [release for name in filenames if (release := parse_filename(name))]
    if sorted((one.name, one.version) for one in releases) != sorted((n, Version(v)) for n, v in wanted.items()):
        asked = ", ".join(f"{name}=={version}" for name, version in wanted.items())
        raise BuildError("build-result", f"what should have given {asked} gave {', '.join(filenames) or 'nothing'}")


def _requirement(pin: Pin, hashes: Sequence[str]) -> bytes:
    return f"{pin} {' '.join(f'--hash=sha256:{text}' for text in hashes)}\n".encode()


def _volume(image: Image, name: str) -> str:
    """The volume of pip's downloads. One for each package: none can leave something there for another's build."""
    return f"layerbuild-{image.target}-{name}"


def _present(target: Target) -> list[str]:
    """The libraries that the runtime surely has."""
    return sorted(name for name, known in system_libraries(target).items() if known.present and known.sure)
