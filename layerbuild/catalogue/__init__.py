"""The catalogue: which layer version is published where, and what is in it. One JSON file, a line per version.

Its form is described by ``layerbuild/schemas/catalogue.schema.json``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

from layerbuild.cache import write_text
from layerbuild.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

FORMAT = 1
FILE = "catalogue.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Content:
    """What is in the archives of a recipe and target with one content digest, whichever regions they are in.

    The same digest may be another target's, too, if nothing in it depends on the target.

    `packages` are ``name version`` strings; `target` is a target's name, or ``any``; `unzipped` is in bytes.
    """

    recipe: str
    target: str
    packages: tuple[str, ...]
    licence: str
    runtimes: tuple[str, ...]
    architectures: tuple[str, ...]
    unzipped: int
    layerbuild: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Version:
    """A layer version in one account and region.

    Attributes:
        name: of the layer, as Lambda knows it.
        version: its number, which Lambda gave.
        digest: of its content (``sha256:<hex>``); bytecode and layerbuild's version do not change it.
        code_sha256: of its zip, in base64, as Lambda says it.
        size: of its zip, in bytes.
        published: when, as Lambda says it.
        shared: with whom it was shared: ``public``, ``account:<id>``, ``organization:<id>``.
        current: whether it is the one that the recipe stands for now.
    """

    account: str
    region: str
    name: str
    version: int
    recipe: str
    target: str
    arn: str
    digest: str
    code_sha256: str
    size: int
    published: str
    shared: tuple[str, ...] = ()
    current: bool = True

    @property
    def content_key(self) -> str:
        """The name under which the catalogue has its `Content`."""
        return f"{self.digest} {self.recipe}@{self.target}"

    @property
    def subject(self) -> tuple[str, str, str, str]:
        """What it is a version of, whatever the layer is called: account, region, recipe and target."""
        return self.account, self.region, self.recipe, self.target

    @property
    def place(self) -> tuple[str, str, str]:
        """The layer whose version it is: account, region and name."""
        return self.account, self.region, self.name


_Key = tuple[str, str, str, int]
Row = TypeVar("Row", Content, Version)


class Catalogue:
    """What is in one catalogue file. What is recorded is in the file before the call returns.

    Args:
        path: the file, which need not exist.

    Raises:
        UsageError: it is no catalogue, or one of a newer layerbuild.
    """

    def __init__(self, path: Path) -> None:
        # Where it is a link, what that leads to is written.
        self.path = path.resolve()
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._changes = self._written = 0
        self._versions: dict[_Key, Version] = {}
        self._contents: dict[str, Content] = {}
        self._lines: dict[_Key, str] = {}
        self._read()

    def versions(self, *, current: bool = False) -> list[Version]:
        """All versions, or the current ones, sorted by recipe, target, account, region, name and number."""
        with self._lock:
            rows = [one for one in self._versions.values() if one.current or not current]
        return sorted(rows, key=lambda one: (one.recipe, one.target, *one.place, one.version))

    def of_layer(self, account: str, region: str, name: str) -> list[Version]:
        """The versions of one layer, the newest first."""
        rows = [one for one in self.versions() if one.place == (account, region, name)]
        return sorted(rows, key=lambda one: -one.version)

    def by_layer(self) -> dict[tuple[str, str, str], list[Version]]:
        """The versions of each layer, by account, region and name."""
        found: dict[tuple[str, str, str], list[Version]] = {}
        for one in self.versions():
            found.setdefault(one.place, []).append(one)
        return found

    def content(self, version: Version) -> Content | None:
        """What is in a version's archive."""
        return self._contents.get(version.content_key)

    def save(self) -> None:
        """Writes the file as it is, to see that it can be written."""
        with self._lock:
            self._changes += 1
        self._write()

    def record(self, version: Version, content: Content) -> None:
        """Writes down a version; a current one takes the place of the former, which may have had another name."""
        key = (*version.place, version.version)
        with self._lock:
            if version.current:
                for one, other in list(self._versions.items()):
                    same = other.place == version.place or other.subject == version.subject
                    if other.current and same and one != key:
                        self._set(one, replace(other, current=False))
            self._set(key, version)
            self._contents[version.content_key] = content
        self._write()

    def shared(self, version: Version, grants: Iterable[str]) -> Version:
        """Writes down with whom a version is shared now; returns it as it stands then."""
        key = (*version.place, version.version)
        with self._lock:
            changed = replace(self._versions.get(key, version), shared=tuple(sorted(grants)))
            if key in self._versions:
                self._set(key, changed)
        self._write()
        return changed

    def forget(self, account: str, region: str, name: str, numbers: Iterable[int]) -> None:
        """Strikes out versions that are no more."""
        with self._lock:
            gone = [self._versions.pop((account, region, name, number), None) for number in numbers]
            self._changes += any(gone)
        self._write()

    def _set(self, key: _Key, version: Version) -> None:
        self._versions[key] = version
        self._lines.pop(key, None)
        self._changes += 1

    def _read(self) -> None:
        try:
            data = json.loads(self.path.read_bytes())
        except FileNotFoundError:
            return
        except (ValueError, RecursionError) as error:
            raise self._invalid(f"it is not JSON: {error}") from None
        if not isinstance(data, dict) or type(data.get("format")) is not int or data["format"] < 1:
            raise self._invalid("it says no format")
        if data["format"] > FORMAT:
            what = f"{self.path} was written by a newer layerbuild"
            raise UsageError("catalogue-invalid", what, hint="use that, or a newer one")
        try:
            for key, row in data["contents"].items():
                self._contents[key] = _typed(Content, row)
            for row in data["versions"]:
                version = _typed(Version, row)
                self._versions[(*version.place, version.version)] = version
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise self._invalid(f"a part is missing or of the wrong kind: {error}") from None
        if missing := {one.content_key for one in self._versions.values()} - self._contents.keys():
            raise self._invalid(f"there is nothing about the content {min(missing)}")

    def _invalid(self, cause: str) -> UsageError:
        hint = "take the file from version control, or remove it: `layerbuild publish` finds what is published"
        return UsageError("catalogue-invalid", f"{self.path} is not a catalogue", causes=[cause], hint=hint)

    def _write(self) -> None:
        """Returns when all changes so far are in the file; threads that come at once share one writing."""
        with self._lock:
            wanted = self._changes
        with self._writing:
            if self._written >= wanted:
                return
            with self._lock:
                changes, text = self._changes, self._text()
            write_text(self.path, text)
            self._written = changes

    def _text(self) -> str:
        used = {one.content_key for one in self._versions.values()}
        self._contents = {key: content for key, content in self._contents.items() if key in used}
        contents = [
            f"    {json.dumps(key)}: {json.dumps(asdict(self._contents[key]))}" for key in sorted(self._contents)
        ]
        for key, version in self._versions.items():
            if key not in self._lines:
                self._lines[key] = f"    {json.dumps(asdict(version))}"
        versions = [self._lines[key] for key in sorted(self._versions)]
        return (
            f'{{\n  "format": {FORMAT},\n  "contents": {{\n' + ",\n".join(contents) + "\n  },\n"
            '  "versions": [\n' + ",\n".join(versions) + "\n  ]\n}\n"
        )  # fmt: skip


def _typed(kind: type[Row], data: dict[str, Any]) -> Row:
    """A row of the file as a dataclass; raises ValueError where it is not one."""
    values: dict[str, Any] = {}
    for field in fields(kind):
        value = data[field.name]
        wanted = {"int": int, "bool": bool, "str": str}.get(str(field.type))
        if wanted is None:
            if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
                raise ValueError(f"{field.name} is {value!r}")
            value = tuple(value)
        elif type(value) is not wanted:
            raise ValueError(f"{field.name} is {value!r}")
        values[field.name] = value
    return kind(**values)


@contextlib.contextmanager
def one_at_a_time(path: Path, locks: Path, waiting: Callable[[], object]) -> Iterator[None]:
    """Lets one process at a time change what `path` describes.

    Args:
        path: a catalogue.
        locks: folder for lock files.
        waiting: called when another process is at it.
    """
    from filelock import FileLock, Timeout

    from layerbuild.process import stop_if_interrupted

    name = hashlib.sha256(str(path.resolve()).encode("utf-8", "surrogateescape")).hexdigest()
    locks.mkdir(parents=True, exist_ok=True)
    lock = FileLock(locks / f"{name}.lock")
    told = False
    while True:
        stop_if_interrupted()
        with contextlib.suppress(Timeout):
            lock.acquire(timeout=0.2)
            break
        if not told:
            waiting()
            told = True
    try:
        yield
    finally:
        lock.release()
