"""The content-addressed cache: wheels by sha256, what was worked out about them, and which wheel serves a pin.

Nothing in it is trusted: a wheel is hashed when it is used, a record carries its own checksum, and what does
not match is thrown away and made again. Files appear whole, by rename, so that any number of processes can
share one cache and be ended at any moment.

Behind the folder there can be a cache that many machines share. What comes from there is verified in the same way
before it enters the folder. That proves a wheel, whose hash is in a lock; a record's checksum proves only that it is
whole: it is as trustworthy as those who may write to the shared cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

CACHE_VARIABLE = "LAYERBUILD_CACHE_DIR"
_KINDS = (
    "wheels",
    "facts",
    "choices",
    "trees",
    "findings",
    "layers",
    "sources",
    "builds",
    "bytecode",
    "interpreters",
    "smoke",
    "durations",
)
# What of these stays here: interpreters are this machine's, and not everyone may read each published layer.
_OWN = ("interpreters", "layers")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SCRATCH = ".part"
_LEFTOVER_SECONDS = 3600


def default_cache_folder() -> Path:
    """``LAYERBUILD_CACHE_DIR``, or the platform's folder for caches."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen).absolute()
    import platformdirs

    return platformdirs.user_cache_path("layerbuild", appauthor=False)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A binary file that appears at `path` whole, when the block ends without an error, or not at all."""
    with scratch_file(path.parent, path.name) as temporary:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # Scratch files are private; these are to be as any other that the user writes.
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)


@contextlib.contextmanager
def scratch_file(folder: Path, name: str) -> Iterator[Path]:
    """A new file to write to, of no one else; it is gone when the block ends, unless it was moved away."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, text = tempfile.mkstemp(dir=folder, prefix=f".{name}.", suffix=_SCRATCH)
    except OSError as error:
        error.filename = str(folder / name)
        raise
    os.close(handle)
    path = Path(text)
    _scratch_files.add(path)
    try:
        yield path
    except OSError as error:
        # A write that fails does not say where; a scratch file's name says nothing to the user.
        if error.errno is not None and error.filename in (None, text):
            error.filename = str(folder / name)
        raise
    finally:
        remove_scratch_file(path)


# Those that exist now: what is to go when the program ends before its threads do.
_scratch_files: set[Path] = set()


def remove_scratch_file(path: Path) -> None:
    """Removes a scratch file, if it was not moved away."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
    _scratch_files.discard(path)


def remove_scratch_files() -> None:
    """Removes all scratch files of this process."""
    for path in list(_scratch_files):
        remove_scratch_file(path)


def remove_leftovers(folder: Path, *, now: float | None = None) -> None:
    """Removes the scratch files in `folder` that a killed process left: those older than an hour."""
    for path in folder.glob(f".*{_SCRATCH}"):
        with contextlib.suppress(OSError):
            if (time.time() if now is None else now) - path.stat().st_mtime > _LEFTOVER_SECONDS:
                path.unlink()


def _umask() -> int:
    if os.name == "nt":
        return 0
    # Setting it is the one portable way to read it, and would not be safe with threads; Linux says it.
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    return 0o022


def write_text(path: Path, text: str) -> None:
    """Writes a whole text file as UTF-8 with LF line ends."""
    with whole_file(path) as file:
        file.write(text.encode())


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """How many files of one kind a cache holds, and their bytes."""

    kind: str
    files: int
    size: int


class SharedCache(Protocol):
    """What machines share, asked for what is not here. Any thread may call it; what it cannot do is no error.

    Keys are paths below a cache's folder, with slashes.
    """

    @property
    def used(self) -> bool:
        """Whether it was asked for anything yet."""
        ...

    def fetch(self, key: str, path: Path) -> bool:
        """Writes what is kept under `key` to `path`; False if there is nothing."""
        ...

    def keep(self, key: str, path: Path, *, replace: bool) -> bool:
        """Keeps a file under `key`; False if that is taken, and not to be replaced."""
        ...

    def damaged(self, key: str) -> None:
        """Is told that what it has under `key` is not what it should be."""
        ...


class Cache:
    """One cache folder, made when first written to, and what other machines share with it."""

    def __init__(self, root: Path, shared: SharedCache | None = None) -> None:
        self.root = root
        self._shared = shared
        # Keys under which what is kept next is to replace what is shared: that was damaged, or was found wanting.
        self._outdated: set[str] = set()

    def wheel_path(self, sha256: str) -> Path:
        """Where the wheel with this sha256 (hex) lies, or would."""
        return self.root / "wheels" / sha256[:2] / f"{sha256}.whl"

    def source_path(self, sha256: str) -> Path:
        """Where the source archive with this sha256 (hex) lies, or would."""
        return self.root / "sources" / sha256[:2] / sha256

    def bytecode_path(self, sha256: str) -> Path:
        """Where the compiled modules with this sha256 (hex) lie, or would."""
        return self.root / "bytecode" / sha256[:2] / f"{sha256}.pycs"

    def layer_path(self, sha256: str) -> Path:
        """Where the published layer's zip with this sha256 (hex) lies, or would."""
        return self.root / "layers" / sha256[:2] / f"{sha256}.zip"

    def new_wheel(self) -> contextlib.AbstractContextManager[Path]:
        """A file to download to; see `scratch_file`."""
        return scratch_file(self.root / "wheels", "")

    def adopt(self, path: Path, place: Path) -> None:
        """Moves a file, whose hash the caller has checked, into its place."""
        _move(path, place)
        self._share(place)

    def holds(self, path: Path, sha256: str) -> bool:
        """Whether a file is there, or shared, and its bytes still have this hash; a damaged one is removed.

        Using it marks it as used, for `prune`.
        """
        # It may stand in a record of another machine's: it must lead nowhere else.
        if not _SHA256.fullmatch(sha256):
            return False
        actual = _sha256(path)
        if actual != sha256:
            if actual is not None:
                path.unlink(missing_ok=True)
            if not self._fetched(path, lambda arrived: _sha256(arrived) == sha256):
                return False
        with contextlib.suppress(OSError):
            os.utime(path)
        return True

    def record(self, kind: str, key: str) -> Any:
        """A JSON value kept earlier under (`kind`, `key`); None where there is none or it is damaged."""
        place = self._record_path(kind, key)
        value = _read_record(place)
        if value is None and self._fetched(place, lambda arrived: _read_record(arrived) is not None):
            value = _read_record(place)
        if value is not None:
            # Used now, hence not to be pruned.
            with contextlib.suppress(OSError):
                os.utime(place)
            if self._shared:
                # Who knows it and keeps another has found that this one serves no more.
                self._outdated.add(self._key(place))
        return value

    def keep_record(self, kind: str, key: str, value: Any) -> None:
        """Keeps a JSON value under (`kind`, `key`)."""
        self._share(self._write_record(kind, key, value))

    def keep_first(self, kind: str, key: str, value: Any) -> Any:
        """Keeps a JSON value unless another machine was first; returns the one that all have now."""
        place = self._write_record(kind, key, value)
        if self._share(place) or not self._fetched(place, lambda arrived: _read_record(arrived) is not None):
            return value
        return self.record(kind, key)

    def seconds(self, layer: str) -> float | None:
        """How long a layer took to make the last time; None if that is not known."""
        found = self.record("durations", hashlib.sha256(layer.encode()).hexdigest())
        return float(found) if isinstance(found, int | float) else None

    def keep_seconds(self, layer: str, seconds: float) -> None:
        """Keeps how long a layer took to make, where it can: a layer that is made does not fail for it."""
        key = hashlib.sha256(layer.encode()).hexdigest()
        with contextlib.suppress(OSError):
            place = self._write_record("durations", key, round(seconds, 3))
            # A layer that this machine had all of says nothing to others, and nobody is to wait for that.
            if self._shared and self._shared.used:
                self._share(place, replace=True)

    def _record_path(self, kind: str, key: str) -> Path:
        return self.root / kind / key[:2] / f"{key}.json"

    def _write_record(self, kind: str, key: str, value: Any) -> Path:
        place = self._record_path(kind, key)
        body = json.dumps(value, separators=(",", ":")).encode()
        with whole_file(place) as file:
            file.write(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
        return place

    def _key(self, place: Path) -> str:
        return place.relative_to(self.root).as_posix()

    def _fetched(self, place: Path, is_right: Callable[[Path], bool]) -> bool:
        """Whether what belongs to `place` was shared and right, and is there now."""
        if self._shared is None or (key := self._key(place)).startswith(_OWN):
            return False
        # A disk that is full must not keep anyone from reading what is there.
        with contextlib.suppress(OSError), scratch_file(place.parent, place.name) as arrived:
            if not self._shared.fetch(key, arrived):
                return False
            if is_right(arrived):
                _move(arrived, place)
                return True
            self._outdated.add(key)
            self._shared.damaged(key)
        return False

    def _share(self, place: Path, *, replace: bool = False) -> bool:
        """Shares a file of this cache; False if another machine was first."""
        if self._shared is None or (key := self._key(place)).startswith(_OWN):
            return True
        return self._shared.keep(key, place, replace=replace or key in self._outdated)

    def usage(self) -> list[Usage]:
        """What the cache holds, a row per kind."""
        rows = []
        for folder in sorted(folder for kind in _KINDS if (folder := self.root / kind).is_dir()):
            sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
            rows.append(Usage(kind=folder.name, files=len(sizes), size=sum(sizes)))
        return rows

    def prune(self, *, unused_days: float, now: float | None = None) -> Usage:
        """Removes what has not been used for `unused_days` (0: everything), and remains of broken-off downloads.

        Returns:
            How many files went and how many bytes they had.
        """
        now = time.time() if now is None else now
        files = size = 0
        # The folder may be one that holds other things, too.
        for path in [path for kind in _KINDS for path in (self.root / kind).rglob("*")]:
            with contextlib.suppress(FileNotFoundError):
                if not path.is_file():
                    continue
                limit = _LEFTOVER_SECONDS if path.suffix == _SCRATCH else unused_days * 86400
                stat = path.stat()
                if now - stat.st_mtime >= limit:
                    path.unlink()
                    files += 1
                    size += stat.st_size
        return Usage(kind="removed", files=files, size=size)


def settle(path: Path) -> None:
    """Makes a scratch file ready for its place: on the disk for good, with the permissions that the user wants."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
    path.chmod(0o666 & ~_umask())


def _move(path: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    settle(path)
    path.replace(place)


def _sha256(path: Path) -> str | None:
    """A file's hash in hex; None if there is no file."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def _read_record(path: Path) -> Any:
    """The value of a record's file; None if it is not whole, or there is no file."""
    try:
        checksum, _, body = path.read_bytes().partition(b"\n")
        return json.loads(body) if hashlib.sha256(body).hexdigest().encode() == checksum else None
    except (OSError, ValueError, RecursionError):
        return None
