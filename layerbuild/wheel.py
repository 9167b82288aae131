"""One wheel: what is in it, checked once against its own RECORD, and kept as facts under the wheel's sha256."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from layerbuild.content import Content
from layerbuild.errors import BuildError
from layerbuild.index import parse_filename
from layerbuild.lock import normal_name
from layerbuild.process import stop_if_interrupted
from layerbuild.zips import ZipError, ZipReader, inflate

if TYPE_CHECKING:
    from pathlib import Path

    from layerbuild.zips import ZipMember

# Part of the key under which facts are cached: to be raised whenever they change.
FACTS_FORMAT = 4

# No layer may reach 262,144,000 bytes; what a recipe prunes away may be larger, but not without end.
_MAX_UNPACKED = 4 * 1024**3
# RECORD is not in itself; signatures of it cannot be either (binary distribution format, "Signed wheel files").
_UNRECORDED = ("RECORD", "RECORD.jws", "RECORD.p7s")


class Member(NamedTuple):
    """One file of a wheel, as it lies in the zip.

    `mode` is 0o644 or 0o755; `offset` is where its compressed bytes begin; `sha256` is in RECORD's form
    (urlsafe base64 without padding) and is that of the content.
    """

    path: str
    mode: int
    method: int
    crc: int
    compressed: int
    size: int
    offset: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Wheel:
    """The facts of one wheel file.

    Attributes:
        filename: its name on the index; facts do not depend on it.
        name, version: as in METADATA, not normalised.
        licence: SPDX expression, or what METADATA says instead.
        pure: whether it says that it has no compiled parts.
        dist_info, data: the two folders that the format gives a meaning.
        scripts: console and GUI entry points, name to ``module:function``.
        requires: Requires-Dist lines.
        source: sha256 (hex) of the source archive that it was built from here; empty for wheels of an index.
        notes: path of a member to what `layerbuild.content` says of it, for those of which it says anything.
    """

    sha256: str
    filename: str
    path: Path
    name: str
    version: str
    licence: str
    summary: str
    homepage: str
    pure: bool
    dist_info: str
    data: str
    scripts: tuple[tuple[str, str], ...]
    requires: tuple[str, ...]
    notes: dict[str, dict[str, Any]]
    members: tuple[Member, ...]
    source: str = ""

    def __str__(self) -> str:
        return self.filename


def facts_key(sha256: str) -> str:
    """The key of a wheel's facts in the cache."""
    return f"{sha256}-{FACTS_FORMAT}"


def wheel_from_facts(facts: dict[str, Any], *, sha256: str, filename: str, path: Path) -> Wheel:
    """A `Wheel` out of what `read_facts` returned, perhaps long ago."""
    return Wheel(
        sha256=sha256,
        filename=filename,
        path=path,
        members=tuple(map(Member._make, facts["members"])),
        scripts=tuple((name, function) for name, function in facts["scripts"]),
        requires=tuple(facts["requires"]),
        notes=facts["notes"],
        **{
            key: facts[key]
            for key in ("name", "version", "licence", "summary", "homepage", "pure", "dist_info", "data")
        },
    )


def read_facts(path: Path, filename: str) -> dict[str, Any]:
    """Reads a wheel from anywhere, believing nothing: every byte is inflated, bounded, and hashed.

    Args:
        path: the file.
        filename: what to call it in errors, and where its name and version are expected from.

    Returns:
        The facts, as JSON can hold them.

    Raises:
        BuildError: it is not a whole and honest wheel, or one that layers cannot hold.
    """
    with path.open("rb") as file:
        return _Inspector(filename, file).facts()


def _bad(filename: str, reason: str) -> BuildError:
    return BuildError(
        "wheel-invalid",
        f"{filename} cannot be used",
        causes=[reason],
        hint="the file on the index is damaged or unsafe: tell its maintainers, or pin another version",
    )


class _Inspector:
    """Reads one wheel. Kept together as every step can fail with the wheel's name."""

    def __init__(self, filename: str, file: BinaryIO) -> None:
        self.filename = filename
        self.file = file
        self.zip = ZipReader(file, limit=_MAX_UNPACKED)
        for problem in self.zip.problems:
            if problem.kind != "prefix":
                raise _bad(filename, problem.text)
        self.files = [member for member in self.zip.members if member.kind != "folder"]
        self.texts: dict[str, bytes] = {}
        self.notes: dict[str, dict[str, Any]] = {}

    def facts(self) -> dict[str, Any]:
        dist_info = self._dist_info()
        data = dist_info.removesuffix(".dist-info") + ".data"
        for top in {member.path.split("/")[0] for member in self.files}:
            if top.endswith(".data") and top != data:
                raise _bad(self.filename, f"its data folder is {top!r}, not {data!r}")
        members = [self._member(member, keep=member.path.startswith(f"{dist_info}/")) for member in self.files]
        self._check_record(members, dist_info)
        return {
            **self._metadata(dist_info),
            "dist_info": dist_info,
            "data": data,
            "members": members,
            "notes": self.notes,
        }

    def _dist_info(self) -> str:
        found = {top for member in self.files if (top := member.path.split("/")[0]).endswith(".dist-info")}
        if len(found) != 1:
            raise _bad(self.filename, f"a wheel has one dist-info folder, this has {len(found)}")
        return found.pop()

    def _member(self, zipped: ZipMember, *, keep: bool) -> Member:
        if zipped.kind == "symlink":
            raise _bad(self.filename, f"{zipped.path!r} is a symbolic link, which wheels cannot carry")
        digest = hashlib.sha256()
        content = Content(zipped.path)
        kept = []
        try:
            for chunk in self.zip.content(zipped):
                stop_if_interrupted()
                digest.update(chunk)
                if keep:
                    kept.append(chunk)
                else:
                    content.feed(chunk)
        except ZipError as error:
            raise _bad(self.filename, str(error)) from None
        if keep:
            self.texts[zipped.path] = b"".join(kept)
        elif note := content.facts():
            self.notes[zipped.path] = note
        return Member(
            path=zipped.path,
            # As pip: any executable bit makes a program, everything else is a plain file.
            mode=0o755 if stat.S_ISREG(zipped.mode) and zipped.mode & 0o111 else 0o644,
            method=zipped.method,
            crc=zipped.crc,
            compressed=zipped.compressed,
            size=zipped.size,
            offset=zipped.offset,
            sha256=record_digest(digest.digest()),
        )

    def _check_record(self, members: list[Member], dist_info: str) -> None:
        text = self._text(f"{dist_info}/RECORD")
        try:
            rows = {row[0]: row[1] for row in csv.reader(io.StringIO(text)) if len(row) >= 2}
        except csv.Error as error:
            raise _bad(self.filename, f"its RECORD is not CSV: {error}") from None
        unrecorded = {f"{dist_info}/{name}" for name in _UNRECORDED}
        for member in members:
            if member.path in unrecorded:
                continue
            recorded = rows.pop(member.path, None)
            if not recorded:
                raise _bad(self.filename, f"its RECORD has no hash for {member.path!r}")
            algorithm, _, expected = recorded.partition("=")
            actual = member.sha256 if algorithm == "sha256" else self._other_digest(member, algorithm)
            if actual != expected.rstrip("="):
                raise _bad(self.filename, f"{member.path!r} is not the file that its RECORD describes")
        missing = [path for path in rows if path not in unrecorded and not path.endswith("/")]
        if missing:
            raise _bad(self.filename, f"its RECORD lists {missing[0]!r}, which is not in it")

    def _other_digest(self, member: Member, algorithm: str) -> str:
        if algorithm not in ("sha384", "sha512"):
            raise _bad(self.filename, f"its RECORD uses {algorithm}, which is not safe (PEP 427 asks for sha256)")
        digest = hashlib.new(algorithm)
        for chunk in inflate(self.file, member.offset, member.compressed, member.method, member.size):
            digest.update(chunk)
        return record_digest(digest.digest())

    def _text(self, path: str) -> str:
        if path not in self.texts:
            raise _bad(self.filename, f"it has no {path}")
        return self.texts[path].decode("utf-8", "replace")

    def _metadata(self, dist_info: str) -> dict[str, Any]:
        from packaging.metadata import parse_email

        raw, _ = parse_email(self.texts.get(f"{dist_info}/METADATA", b""))
        if "name" not in raw or "version" not in raw:
            raise _bad(self.filename, f"{dist_info}/METADATA has no name or version")
        named = parse_filename(self.filename)
        if named and (named.name, str(named.version)) != (normal_name(raw["name"]), normal_version(raw["version"])):
            raise _bad(self.filename, f"its METADATA says {raw['name']} {raw['version']}")
        wheel = self._text(f"{dist_info}/WHEEL")
        if not re.search(r"^Wheel-Version: 1\.", wheel, re.MULTILINE):
            raise _bad(self.filename, "its Wheel-Version is not 1.x, the only one there is")
        purity = [
            line.partition(":")[2].strip() for line in wheel.splitlines() if line.startswith("Root-Is-Purelib:")
        ]
        links = raw.get("project_urls", {})
        homepage = raw.get("home_page") or next(
            (
                url
                for label in ("homepage", "home", "source", "repository")
                for key, url in links.items()
                if key.lower() == label
            ),
            next(iter(links.values()), ""),
        )
        return {
            "name": raw["name"],
            "version": raw["version"],
            "licence": _licence(raw),
            "summary": raw.get("summary", ""),
            "homepage": homepage,
            "pure": purity == ["true"],
            "requires": raw.get("requires_dist", []),
            "scripts": self._scripts(dist_info),
        }

    def _scripts(self, dist_info: str) -> list[tuple[str, str]]:
        import configparser

        parser = configparser.ConfigParser(delimiters=("=",), interpolation=None, default_section="\0")
        parser.optionxform = str  # type: ignore[assignment, method-assign]
        try:
            parser.read_string(self.texts.get(f"{dist_info}/entry_points.txt", b"").decode("utf-8"))
        except (configparser.Error, UnicodeDecodeError) as error:
            raise _bad(self.filename, f"its entry_points.txt cannot be read: {error}") from None
        sections = [section for section in ("console_scripts", "gui_scripts") if parser.has_section(section)]
        return sorted(
            (name, value.split("[")[0].strip()) for section in sections for name, value in parser.items(section)
        )


def normal_version(text: str) -> str:
    """A version as it is compared (PEP 440); as it is where it is none."""
    from packaging.version import Version

    try:
        return str(Version(text))
    except ValueError:  # InvalidVersion, or more digits than Python reads
        return text


def record_digest(digest: bytes) -> str:
    """A digest as RECORD has it: urlsafe base64 without padding."""
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _licence(raw: Any) -> str:
    """A distribution's licence: PEP 639's expression, else the old free text if short, else classifiers."""
    text: str = raw.get("license_expression") or raw.get("license") or ""
    if text and "\n" not in text and len(text) <= 80:
        return text
    classifiers = [
        line.rsplit(" :: ", 1)[-1] for line in raw.get("classifiers", []) if line.startswith("License :: ")
    ]
    return ", ".join(classifiers)
