"""The cache that many machines share: where it is, how it is spoken to, and what happens when that fails.

It is only ever a help: what cannot be had from it is made here, and what cannot be kept in it is kept here alone.
Its objects are whole or not there, may be gone at any time, and are verified by `Cache`, not here.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from layerbuild.cache import scratch_file, settle
from layerbuild.errors import LayerbuildError, UsageError, machine_error
from layerbuild.process import redact, stop_if_interrupted

if TYPE_CHECKING:
    from collections.abc import Callable

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_ADDRESS = re.compile(r"[0-9]+(\.[0-9]+){3}")
# What S3 calls safe in the name of an object.
_PREFIX = re.compile(r"[A-Za-z0-9/!_.*'()-]{0,800}")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|s3:", re.IGNORECASE)


def is_bucket_name(text: str) -> bool:
    """Whether S3 would let a bucket be called that."""
    return bool(_BUCKET.fullmatch(text)) and ".." not in text and not _ADDRESS.fullmatch(text)


@dataclass(frozen=True, kw_only=True, slots=True)
class Location:
    """Where a shared cache is: a folder, or a bucket and what its objects' names begin with."""

    folder: Path | None = None
    bucket: str = ""
    prefix: str = ""

    def __str__(self) -> str:
        if self.folder is not None:
            return str(self.folder)
        return "/".join(filter(None, ("s3:/", self.bucket, self.prefix)))


def parse_location(text: str) -> Location:
    """A shared cache by its folder or ``s3://bucket/prefix``.

    Raises:
        UsageError: it is neither. Of a URL, which may hold a password or a signature, only the rest is told.
    """
    if not _SCHEME.match(text):
        folder = Path(text).absolute()
        if folder.exists() and not folder.is_dir():
            raise UsageError("bad-cache", f"{folder} is a file: it cannot hold a shared cache")
        return Location(folder=folder)
    shown = redact(re.split("[?#]", text)[0])
    hint = "such as s3://build-cache/layerbuild, or a folder"
    if not text.startswith("s3://"):
        raise UsageError("bad-cache", f"{shown} is neither a folder nor s3://BUCKET/PREFIX", hint=hint)
    bucket, _, prefix = text.removeprefix("s3://").partition("/")
    if not is_bucket_name(bucket):
        raise UsageError("bad-cache", f"{shown} does not begin with the name of a bucket", hint=hint)
    prefix = prefix.strip("/")
    if not _PREFIX.fullmatch(prefix) or not all(part.strip(".") for part in prefix.split("/") if prefix):
        causes = ["a prefix has letters, digits, and any of / ! - _ . * ' ( )"]
        raise UsageError("bad-cache", f"{shown} has a prefix that is none", causes=causes, hint=hint)
    return Location(bucket=bucket, prefix=prefix)


class Store(Protocol):
    """Where a shared cache keeps its files. Any number of machines and threads use it at once."""

    def fetch(self, key: str, path: Path) -> bool:
        """Writes what is kept under `key` to `path`; False if there is nothing.

        Raises:
            LayerbuildError, OSError: it cannot be asked.
        """
        ...

    def keep(self, key: str, path: Path, *, replace: bool) -> bool:
        """Keeps a file under `key`, whole or not at all; False if that is taken, and not to be replaced.

        Raises:
            LayerbuildError, OSError: it cannot be kept.
        """
        ...


class FolderStore:
    """A shared cache in a folder that is laid out as a cache's own.

    Args:
        folder: made when first written to.
        read_only: whether nothing is to be written, not even when a file was last used.
    """

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        self._folder = folder
        self._read_only = read_only

    def fetch(self, key: str, path: Path) -> bool:
        """See `Store.fetch`."""
        try:
            shutil.copyfile(self._folder / key, path)
        except FileNotFoundError:
            return False
        if not self._read_only:
            # For `cache prune` of that folder.
            with contextlib.suppress(OSError):
                os.utime(self._folder / key)
        return True

    def keep(self, key: str, path: Path, *, replace: bool) -> bool:
        """See `Store.keep`."""
        place = self._folder / key
        if not replace and place.exists():
            return False
        with scratch_file(place.parent, place.name) as scratch:
            shutil.copyfile(path, scratch)
            settle(scratch)
            if not replace:
                # Unlike renaming, it fails where another machine came first.
                with contextlib.suppress(OSError):
                    place.hardlink_to(scratch)
                    return True
                if place.exists():
                    return False
            # To replace it, or on a file system without links.
            scratch.replace(place)
        return True


class Shared:
    """A shared cache as `Cache` uses it: asked until it fails, and never the reason why a command does.

    Args:
        store: where its files are.
        name: what the user calls it.
        warn: told what is wrong with it, once.
        read_only: whether nothing is to be kept in it.

    Attributes:
        used: whether it was asked for anything yet.
        taken: how many files it gave that were right.
        kept: how many files it was given that it did not have.
    """

    def __init__(self, store: Store, name: str, warn: Callable[[str], object], *, read_only: bool = False) -> None:
        self._store = store
        self._name = name
        self._warn = warn
        self._read = True
        self._write = not read_only
        self._told_of_damage = False
        self._lock = threading.Lock()
        self.used = False
        self.taken = 0
        self.kept = 0

    def fetch(self, key: str, path: Path) -> bool:
        """See `SharedCache.fetch`. Raises `Interrupted` when the user interrupts the program."""
        stop_if_interrupted()
        if not self._read:
            return False
        self.used = True
        try:
            found = self._store.fetch(key, path)
        except (LayerbuildError, OSError) as error:
            self._failed(error, only_writing=False)
            return False
        with self._lock:
            self.taken += found
        return found

    def keep(self, key: str, path: Path, *, replace: bool) -> bool:
        """See `SharedCache.keep`. Raises `Interrupted` when the user interrupts the program."""
        stop_if_interrupted()
        if not self._write:
            return True
        self.used = True
        try:
            kept = self._store.keep(key, path, replace=replace)
        except (LayerbuildError, OSError) as error:
            # Who may not write may read all the same.
            denied = isinstance(error, OSError) or error.code == "aws-denied"
            self._failed(error, only_writing=denied)
            return True
        with self._lock:
            self.kept += kept
        return kept

    def damaged(self, key: str) -> None:
        """See `SharedCache.damaged`."""
        with self._lock:
            self.taken -= 1
            told, self._told_of_damage = self._told_of_damage, True
        if not told:
            self._warn(f"the shared cache {self._name} has {key} damaged: it is not used")

    def _failed(self, error: LayerbuildError | OSError, *, only_writing: bool) -> None:
        """Turns off what failed, and tells of it the first time."""
        with self._lock:
            was_on = self._write if only_writing else self._read
            self._write = False
            self._read = self._read and only_writing
        if was_on:
            told = machine_error(error) if isinstance(error, OSError) else error
            text = "; ".join(filter(None, [told.what, *told.causes, told.hint]))
            outcome = "is only read from here on" if only_writing else "is left alone from here on"
            self._warn(f"the shared cache {self._name} {outcome}: {redact(text)}")
