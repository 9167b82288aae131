"""The host builder: wheels only, for any target from any host. Runs no code of what it fetches."""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

from layerbuild.errors import BuildError, MachineError
from layerbuild.lock import Pin, normal_name
from layerbuild.process import stop_if_interrupted
from layerbuild.wheel import facts_key, read_facts, wheel_from_facts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from packaging.tags import Tag

    from layerbuild.build_settings import BuildSettings
    from layerbuild.builders import Progress
    from layerbuild.cache import Cache
    from layerbuild.index import Index, IndexFile
    from layerbuild.lock import Lock
    from layerbuild.target import Target
    from layerbuild.wheel import Wheel

# Raised whenever the choice among a pin's files could come out differently.
_CHOICE_FORMAT = 2
_ATTEMPTS = 3
_SHOWN_WHEELS = 6
_NO_WHEEL = {"filename": "", "sha256": ""}  # what is kept as the choice where nothing fits


class NoWheelError(BuildError):
    """No wheel fits a target. `has_source` says whether there is a source archive to build one from."""

    has_source = False


class Source(NamedTuple):
    """A source archive: its name on the index, and its sha256 (hex)."""

    filename: str
    sha256: str


class HostBuilder:
    """Fetches the wheels of a lock into the cache, several at a time.

    One instance serves all targets of a run, from any number of threads.
    """

    def __init__(self, cache: Cache, index: Index, progress: Progress, *, jobs: int = 8) -> None:
        self._cache = cache
        self._index = index
        self._progress = progress
        self._jobs = jobs
        self._locks: dict[str, threading.Lock] = {}
        self._wheels: dict[str, Wheel] = {}

    def wheels(
        self, lock: Lock, target: Target, *, pure: bool = False, name: str = "", build: BuildSettings | None = None
    ) -> Sequence[Wheel]:
        """See `Builder.wheels`."""
        if build and (build.files or build.no_binary):
            asked = "no-binary" if build.no_binary else "[[files]]"
            raise BuildError(
                "needs-container",
                f"{name} needs the container builder",
                causes=[f"its recipe has {asked}"],
                hint="leave --builder away, or say `--builder container`",
            )
        with ThreadPoolExecutor(self._jobs) as pool:
            futures = [pool.submit(self._wheel, pin, target, pure=pure) for pin in lock.pins]
            try:
                return [future.result() for future in futures]
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def without_wheel(
        self, lock: Lock, target: Target, *, pure: bool = False, no_binary: Sequence[str] = ()
    ) -> tuple[Pin, ...]:
        """The pins that no wheel can serve, or that are not to be served by one: what must be built from source."""

        def lacks(pin: Pin) -> bool:
            if pin.name in no_binary:
                return True
            key = _choice_key(pin, target, pure=pure)
            if choice := self._cache.record("choices", key):
                return not choice["sha256"]
            files = self._index.files(pin.name)
            try:
                choose(files, pin, target, pure=pure)
            except BuildError:
                if any(_is_source(file, pin) and _sha256(file) in (None, *pin.hashes) for file in files):
                    self._cache.keep_record("choices", key, _NO_WHEEL)
                    return True
            # Where there is neither, fetching tells why.
            return False

        with ThreadPoolExecutor(self._jobs) as pool:
            return tuple(pin for pin, lacking in zip(lock.pins, pool.map(lacks, lock.pins), strict=True) if lacking)

    def no_wheel(self, pin: Pin, target: Target) -> BuildError:
        """The error that says why no wheel serves a pin."""
        return no_wheel(str(pin), target, [file for file in self._index.files(pin.name) if _is_version(file, pin)])

    def source(self, pin: Pin, target: Target) -> Source:
        """The source archive of a pin.

        Raises:
            BuildError: there is none among the files that were locked.
        """
        key = _source_key(pin)
        if known := self._cache.record("choices", key):
            return Source(known["filename"], known["sha256"])
        files = self._index.files(pin.name)
        found = sorted(
            (not file.filename.endswith(".tar.gz"), file.filename, sha256)
            for file in files
            if _is_source(file, pin)
            if (sha256 := _sha256(file) or self._index.sha256(file)) in pin.hashes
        )
        if not found:
            raise self.no_wheel(pin, target)
        source = Source(*found[0][1:])
        self._cache.keep_record("choices", key, source._asdict())
        return source

    def fetch_source(self, source: Source, pin: Pin) -> Path:
        """The source archive in the cache, its hash verified. Nothing of it is run, nor unpacked."""
        path = self._cache.source_path(source.sha256)
        with self._locks.setdefault(source.sha256, threading.Lock()):
            if not self._cache.holds(path, source.sha256):
                same = [file for file in self._index.files(pin.name) if file.filename == source.filename]
                file = next((file for file in same if _sha256(file) in (source.sha256, None)), None)
                if file is None:
                    raise BuildError("unknown-package", f"no index has {source.filename} any more")
                with self._cache.new_wheel() as scratch:
                    sha256 = self._download(file, scratch)
                    if sha256 != source.sha256:
                        raise _not_locked(file.filename, sha256, pin)
                    self._cache.adopt(scratch, path)
        return path

    def adopt(self, path: Path, sha256: str, filename: str) -> Wheel:
        """Takes a wheel that was made here into the cache, once it is found to be whole and honest."""
        with self._locks.setdefault(sha256, threading.Lock()):
            self._work_out(path, sha256, filename)
            self._cache.adopt(path, self._cache.wheel_path(sha256))
            return self._known(sha256, filename)

    def _wheel(self, pin: Pin, target: Target, *, pure: bool) -> Wheel:
        stop_if_interrupted()
        key = _choice_key(pin, target, pure=pure)
        choice = self._cache.record("choices", key)
        if choice is None or choice == _NO_WHEEL:
            file = choose(self._index.files(pin.name), pin, target, pure=pure)
            fetched = self._fetch(file, pin)
            self._cache.keep_record("choices", key, {"filename": fetched.filename, "sha256": fetched.sha256})
            return fetched
        if wheel := self.cached(choice["sha256"], choice["filename"]):
            return wheel
        files = self._index.files(pin.name)
        same = [file for file in files if file.filename == choice["filename"]]
        again = next((file for file in same if _sha256(file) in (choice["sha256"], None)), None)
        return self._fetch(again or choose(files, pin, target, pure=pure), pin)

    def cached(self, sha256: str, filename: str) -> Wheel | None:
        """The wheel out of the cache, hashed once in a run however many targets share it."""
        with self._locks.setdefault(sha256, threading.Lock()):
            if wheel := self._wheels.get(sha256):
                return wheel
            if not self._cache.holds(self._cache.wheel_path(sha256), sha256):
                return None
            return self._known(sha256, filename)

    def all_cached(self, rows: Iterable[tuple[str, str]]) -> list[Wheel]:
        """The wheels out of the cache, by hash and name; none unless all of them are there."""
        found = [self.cached(sha256, name) for sha256, name in rows]
        return [wheel for wheel in found if wheel] if all(found) else []

    def _known(self, sha256: str, filename: str) -> Wheel:
        path = self._cache.wheel_path(sha256)
        facts = self._cache.record("facts", facts_key(sha256))
        if facts is None:
            facts = self._work_out(path, sha256, filename)
        wheel = wheel_from_facts(facts, sha256=sha256, filename=filename, path=path)
        self._wheels[sha256] = wheel
        return wheel

    def _work_out(self, path: Path, sha256: str, filename: str) -> dict[str, Any]:
        facts = read_facts(path, filename)
        self._cache.keep_record("facts", facts_key(sha256), facts)
        return facts

    def _fetch(self, file: IndexFile, pin: Pin) -> Wheel:
        """Downloads a file whose sha256 must be one of the pin's."""
        if file.sha256 and (wheel := self.cached(file.sha256, file.filename)):
            return wheel
        with self._locks.setdefault(file.url, threading.Lock()):
            if file.sha256 and (wheel := self._wheels.get(file.sha256)):
                return wheel
            with self._cache.new_wheel() as path:
                sha256 = self._download(file, path)
                if sha256 not in pin.hashes:
                    raise _not_locked(file.filename, sha256, pin)
                self._work_out(path, sha256, file.filename)
                self._cache.adopt(path, self._cache.wheel_path(sha256))
            return self._known(sha256, file.filename)

    def _download(self, file: IndexFile, path: Path) -> str:
        """The sha256 of a download; one that breaks off or arrives damaged is tried again."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with self._progress.download(file.filename) as advance:
                    sha256 = self._index.download(file, path, advance)
            except MachineError as error:
                if error.code != "download-truncated" or attempt == _ATTEMPTS:
                    raise
                continue
            if file.sha256 in (None, sha256):
                break
        return sha256

    def newest_wheel(self, name: str, target: Target) -> Wheel | None:
        """The wheel of a project's newest release that fits `target`, for `layerbuild new`; None if none does."""
        accepted = set(target.tags())
        versions = {
            release.version
            for file in self._index.files(name)
            if (release := file.release) and accepted & release.tags and not file.yanked
        }
        if not versions:
            return None
        newest = max(versions, key=lambda version: (not version.is_prerelease, version))
        files = [file for file in self._index.files(name) if file.release and file.release.version == newest]
        hashes = tuple(self._index.sha256(file) for file in files if file.release and file.release.tags & accepted)
        pin = Pin(name=normal_name(name), version=str(newest), hashes=hashes)
        return self._fetch(choose(files, pin, target), pin)


def _not_locked(filename: str, sha256: str, pin: Pin) -> BuildError:
    return BuildError(
        "hash-mismatch",
        f"{filename} is not the file that was locked",
        causes=[f"sha256 of what arrived: {sha256}", *(f"locked: {text}" for text in pin.hashes)],
        hint="the index or something in between changed it; if you trust it, lock again",
    )


def _is_version(file: IndexFile, pin: Pin) -> bool:
    from packaging.version import Version

    return file.release is not None and file.release.version == Version(pin.version)


def _is_source(file: IndexFile, pin: Pin) -> bool:
    return _is_version(file, pin) and file.release is not None and not file.release.tags


def _source_key(pin: Pin) -> str:
    text = f"{_CHOICE_FORMAT} source {pin} {' '.join(pin.hashes)}"
    return hashlib.sha256(text.encode()).hexdigest()


def _choice_key(pin: Pin, target: Target, *, pure: bool) -> str:
    """What the choice of a wheel depends on: the target's tags and the files that the lock allows."""
    accepts = "pure" if pure else f"{target} {target.runtime.glibc}"
    text = f"{_CHOICE_FORMAT} {accepts} {pin} {' '.join(pin.hashes)}"
    return hashlib.sha256(text.encode()).hexdigest()


def choose(files: Iterable[IndexFile], pin: Pin, target: Target, *, pure: bool = False) -> IndexFile:
    """The wheel that pip would take on the target: best tag first, then the highest build number.

    Args:
        files: everything the index has for the project.
        pin: the version wanted, and the hashes allowed.
        target: what it must run on.
        pure: take only a wheel for any Python 3 on any platform.

    Raises:
        BuildError: no file fits. It names those there are and why each does not fit.
    """
    from packaging.version import Version

    files = tuple(files)
    version = Version(pin.version)
    allowed = {*pin.hashes, None}
    rank = {tag: place for place, tag in enumerate(target.tags()) if not pure or str(tag) == "py3-none-any"}
    candidates = []
    for file in files:
        # The hash first: an index may list ten thousand files, and reading their names takes time.
        if _sha256(file) not in allowed or not (release := file.release) or release.version != version:
            continue
        if places := [rank[tag] for tag in release.tags if tag in rank]:
            # Of equals, an index that says the hash is believed before one that does not.
            build = (-release.build[0], release.build[1]) if release.build else (0, "")
            order = (min(places), build, file.sha256 is None, file.filename, file.sha256 or "")
            candidates.append((order, file))
    if candidates:
        return min(candidates, key=lambda pair: pair[0])[1]
    wheels = [file for file in files if file.release and file.release.version == version]
    if pure:
        raise BuildError(
            "not-pure",
            f"{pin} has no wheel that serves every runtime, which a shared layer needs",
            causes=[file.filename for file in wheels[:6]],
            hint='set layout = "versioned" in the recipe',
        )
    raise no_wheel(str(pin), target, wheels)


def _sha256(file: IndexFile) -> str | None:
    """A file's hash, computed where the file lies on this machine and the index does not say it."""
    path = file.local_path
    if file.sha256 or path is None:
        return file.sha256
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def no_wheel(wanted: str, target: Target, files: Sequence[IndexFile]) -> BuildError:
    """The error that says why no wheel fits: the wheels that do exist, each with its reason.

    Args:
        wanted: the requirement or pin.
        target: what it has no wheel for.
        files: everything the index has of the version in question; empty when it has nothing of that name.
    """
    if not files:
        return BuildError(
            "unknown-package",
            f"no index has a package for {wanted}",
            hint="check its name and version, and the index that `pip config list` shows",
        )
    wheels = {file.filename: file.release.tags for file in files if file.release and file.release.tags}
    # The nearest misses first: the user looks for what to change.
    misses = sorted((misfit(tags, target), filename) for filename, tags in wheels.items())
    shown = [f"{filename}: {reason}" for (_, reason), filename in misses[:_SHOWN_WHEELS]]
    if len(misses) > len(shown):
        shown.append(f"and {len(misses) - len(shown)} more, for other systems or Pythons")
    error = NoWheelError(
        "no-wheel",
        f"{wanted} has no wheel for {target}",
        causes=shown or ["there is only source: it must be compiled for the target"],
        hint="ask for an older version that has a wheel",
    )
    error.has_source = any(file.release and not file.release.tags for file in files)
    if error.has_source:
        error.hint = f"{error.hint}, or build it from source with `--builder container`"
    return error


def misfit(tags: Iterable[Tag], target: Target) -> tuple[int, str]:
    """Why a wheel with these tags does not fit a target: how far it is from fitting, and the reason in words."""
    return min(_tag_misfit(tag, target) for tag in tags)


def _tag_misfit(tag: Tag, target: Target) -> tuple[int, str]:
    accepted = target.tags()
    if tag in accepted:
        return 0, "fits, but its sha256 is not in the lock"
    distance, reason = _platform_misfit(tag.platform, target)
    if any((tag.interpreter, tag.abi) == (other.interpreter, other.abi) for other in accepted):
        return distance, reason
    python = f"for {tag.interpreter}-{tag.abi}"
    return distance + 10, f"{python}; {reason}" if reason else python


def _platform_misfit(platform: str, target: Target) -> tuple[int, str]:
    if platform == "any" or platform in set(target.platforms()):
        return 1, ""
    if not platform.startswith(("manylinux", "musllinux", "linux")):
        return 5, f"for {platform}"
    if not platform.endswith(f"_{target.machine}"):
        return 4, f"for {platform}"
    if platform.startswith("musllinux"):
        return 3, "for musl (Alpine), Lambda has glibc"
    needed = ".".join(platform.split("_")[1:3])
    return 2, f"needs glibc {needed}, {target.runtime.name} has {'.'.join(map(str, target.runtime.glibc))}"
