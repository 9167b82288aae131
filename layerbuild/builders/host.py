"""The host builder: wheels only, for any target from any host. Runs no code of what it fetches."""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from layerbuild.errors import BuildError, MachineError
from layerbuild.lock import Pin, normal_name
from layerbuild.process import stop_if_interrupted
from layerbuild.wheel import facts_key, read_facts, wheel_from_facts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from packaging.tags import Tag

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

    def wheels(self, lock: Lock, target: Target, *, pure: bool = False) -> Sequence[Wheel]:
        """See `Builder.wheels`."""
        with ThreadPoolExecutor(self._jobs) as pool:
            futures = [pool.submit(self._wheel, pin, target, pure=pure) for pin in lock.pins]
            try:
                return [future.result() for future in futures]
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _wheel(self, pin: Pin, target: Target, *, pure: bool) -> Wheel:
        stop_if_interrupted()
        key = _choice_key(pin, target, pure=pure)
        choice = self._cache.record("choices", key)
        if choice is None:
            file = choose(self._index.files(pin.name), pin, target, pure=pure)
            fetched = self._fetch(file, pin)
            self._cache.keep_record("choices", key, {"filename": fetched.filename, "sha256": fetched.sha256})
            return fetched
        if wheel := self._cached(choice["sha256"], choice["filename"]):
            return wheel
        files = self._index.files(pin.name)
        same = [file for file in files if file.filename == choice["filename"]]
        again = next((file for file in same if _sha256(file) in (choice["sha256"], None)), None)
        return self._fetch(again or choose(files, pin, target, pure=pure), pin)

    def _cached(self, sha256: str, filename: str) -> Wheel | None:
        """The wheel out of the cache, hashed once in a run however many targets share it."""
        with self._locks.setdefault(sha256, threading.Lock()):
            if wheel := self._wheels.get(sha256):
                return wheel
            if not self._cache.holds_wheel(sha256):
                return None
            return self._known(sha256, filename)

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
        if file.sha256 and (wheel := self._cached(file.sha256, file.filename)):
            return wheel
        with self._locks.setdefault(file.url, threading.Lock()):
            if file.sha256 and (wheel := self._wheels.get(file.sha256)):
                return wheel
            with self._cache.new_wheel() as path:
                sha256 = self._download(file, path)
                if sha256 not in pin.hashes:
                    raise BuildError(
                        "hash-mismatch",
                        f"{file.filename} is not the file that was locked",
                        causes=[
                            f"sha256 of what arrived: {sha256}",
                            *(f"locked: {text}" for text in pin.hashes),
                        ],
                        hint="the index or something in between changed it; if you trust it, lock again",
                    )
                self._work_out(path, sha256, file.filename)
                self._cache.adopt_wheel(path, sha256)
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
    return BuildError(
        "no-wheel",
        f"{wanted} has no wheel for {target}",
        causes=shown or ["there is only source: it must be compiled for the target"],
        hint="ask for an older version that has a wheel, or build it from source with `--builder container`",
    )


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
