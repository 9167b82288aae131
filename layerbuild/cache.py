"""The content-addressed cache: wheels by sha256, what was worked out about them, and which wheel serves a pin.

Nothing in it is trusted: a wheel is hashed when it is used, a record carries its own checksum, and what does
not match is thrown away and made again. Files appear whole, by rename, so that any number of processes can
share one cache and be ended at any moment.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
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


class Cache:
    """One cache folder. Made when first written to."""

    def __init__(self, root: Path) -> None:
        self.root = root

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
        place.parent.mkdir(parents=True, exist_ok=True)
        with path.open("rb+") as file:
            os.fsync(file.fileno())
        path.chmod(0o666 & ~_umask())
        path.replace(place)

    def holds(self, path: Path, sha256: str) -> bool:
        """Whether a wheel or source is there and its bytes still have this hash; a damaged one is removed.

        Using it marks it as used, for `prune`.
        """
        try:
            with path.open("rb") as file:
                actual = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            return False
        if actual != sha256:
            path.unlink(missing_ok=True)
            return False
        with contextlib.suppress(OSError):
            os.utime(path)
        return True

    def record(self, kind: str, key: str) -> Any:
        """A JSON value kept earlier under (`kind`, `key`); None where there is none or it is damaged."""
        try:
            data = self._record_path(kind, key).read_bytes()
        except OSError:
            return None
        checksum, _, body = data.partition(b"\n")
        # Used now, hence not to be pruned.
        with contextlib.suppress(OSError):
            os.utime(self._record_path(kind, key))
        if hashlib.sha256(body).hexdigest().encode() != checksum:
            return None
        return json.loads(body)

    def keep_record(self, kind: str, key: str, value: Any) -> None:
        """Keeps a JSON value under (`kind`, `key`)."""
        body = json.dumps(value, separators=(",", ":")).encode()
        with whole_file(self._record_path(kind, key)) as file:
            file.write(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)

    def seconds(self, layer: str) -> float | None:
        """How long a layer took to make the last time; None if that is not known."""
        found = self.record("durations", hashlib.sha256(layer.encode()).hexdigest())
        return float(found) if isinstance(found, int | float) else None

    def keep_seconds(self, layer: str, seconds: float) -> None:
        """Keeps how long a layer took to make, where it can: a layer that is made does not fail for it."""
        with contextlib.suppress(OSError):
            self.keep_record("durations", hashlib.sha256(layer.encode()).hexdigest(), round(seconds, 3))

    def _record_path(self, kind: str, key: str) -> Path:
        return self.root / kind / key[:2] / f"{key}.json"

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
