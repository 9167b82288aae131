"""Requirements files: pip's format, as far as it names packages. Also the format of locks."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from layerbuild.errors import SourceLine, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_HASH = re.compile(r"\s--hash[= ](\S+)")
_COMMENT = re.compile(r"(^|\s)#.*$")

PLAIN_NAME = re.compile("[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
# `name==1.2` as resolvers write it; everything else goes through packaging, which is slower to import.
PLAIN_PIN = re.compile(
    r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)"
    r"==(\d+(?:\.\d+)*(?:(?:a|b|rc)\d+)?(?:\.post\d+)?(?:\.dev\d+)?(?:\+[a-z0-9]+(?:\.[a-z0-9]+)*)?)"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One requirement of a file: its normal form, its hashes (``sha256:…``) and the logical line it stood on."""

    requirement: str
    hashes: tuple[str, ...]
    line: str


def normal_requirement(text: str) -> str:
    """A requirement in its normal form.

    Raises:
        ValueError: it is not PEP 508, or names a URL rather than a package of the index.
    """
    if PLAIN_PIN.fullmatch(text) or PLAIN_NAME.fullmatch(text):
        return text
    from packaging.markers import UndefinedComparison, UndefinedEnvironmentName
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        requirement = Requirement(text)
        if requirement.marker:
            requirement.marker.evaluate()  # one that compares what cannot be compared shows only now
    except (InvalidRequirement, UndefinedComparison, UndefinedEnvironmentName) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{text!r} is not a requirement: {reason}") from None
    if requirement.url:
        raise ValueError(
            f"{requirement.name!r} names a URL, which cannot be locked by version; put the wheel into "
            "a folder and name that in pip's find-links"
        )
    return str(requirement)


def logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines of a requirements file with their numbers: comments gone, continued lines joined."""
    start, parts = 0, []
    for number, line in enumerate(text.splitlines(), 1):
        start = start or number
        if line.endswith("\\") and not line.lstrip().startswith("#"):
            parts.append(line[:-1])
            continue
        parts.append(line)
        joined = _COMMENT.sub("", " ".join(parts)).strip()
        if joined:
            yield start, joined
        start, parts = 0, []
    if joined := _COMMENT.sub("", " ".join(parts)).strip():
        yield start, joined


def parse_entry(line: str) -> Entry:
    """One logical line that names a requirement.

    Raises:
        ValueError: it names none.
    """
    hashes = tuple(sorted(_HASH.findall(line)))
    return Entry(requirement=normal_requirement(_HASH.sub("", line).strip()), hashes=hashes, line=line)


def read_requirements_file(path: Path) -> tuple[list[Entry], tuple[str, ...]]:
    """The requirements of a file and those it includes (``-r``), and their constraints (``-c``).

    Raises:
        UsageError: a file cannot be read, or a line is not a requirement on the index; all such lines together.
    """
    problems: list[SourceLine] = []
    entries: list[Entry] = []
    constraints: list[Entry] = []
    _read_into(path, entries, constraints, problems, seen=set())
    if problems:
        raise UsageError(
            "requirements-invalid",
            f"{path} cannot be made into a layer",
            causes=[f"{one.path} line {one.number}: {one.message}" for one in problems],
            lines=problems,
            hint="requirements name packages of the index; where packages come from belongs into pip's configuration",
        )
    if not entries:
        hint = "add a line such as `pillow`"
        what = f"{path} names no package"
        raise UsageError("requirements-invalid", what, hint=hint, lines=[SourceLine(path=path)])
    return entries, tuple(entry.requirement for entry in constraints)


def _read_into(
    path: Path, entries: list[Entry], constraints: list[Entry], problems: list[SourceLine], seen: set[Path]
) -> None:
    if path.resolve() in seen:
        return
    seen.add(path.resolve())
    try:
        text = path.read_text("utf-8-sig")
    except FileNotFoundError:
        raise UsageError("file-not-found", f"there is no file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("file-not-readable", f"{path} cannot be read", causes=[str(error)]) from None
    for number, line in logical_lines(text):
        try:
            if line.startswith("-"):
                option, value = _option(line)
                into = constraints if option == "constraint" else entries
                _read_into(path.parent / value, into, constraints, problems, seen)
            else:
                entries.append(parse_entry(line))
        except ValueError as error:
            problems.append(SourceLine(path=path, number=number, message=str(error)))


_INCLUDES = {
    "-r": "requirement",
    "--requirement": "requirement",
    "-c": "constraint",
    "--constraint": "constraint",
}


def _option(line: str) -> tuple[str, str]:
    words = shlex.split(line.replace("=", " ", 1) if line.startswith("--") else line)
    if words[0][:2] in _INCLUDES and len(words[0]) > 2 and not words[0].startswith("--"):
        words[:1] = [words[0][:2], words[0][2:]]
    if words[0] in _INCLUDES and len(words) == 2:
        return _INCLUDES[words[0]], words[1]
    raise ValueError(f"{words[0]} has no place in a layer's requirements")
