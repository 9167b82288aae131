"""What a runner of GitHub Actions takes from the output of a step, and from the files that it gives to it.

As strict as the runner or stricter: what it would refuse, or what only an intruder writes, fails the test.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

# What the runner knows; a line that names something else is just text.
_KNOWN = frozenset(
    "add-mask add-matcher add-path debug echo endgroup error group internal-set-repo-path notice remove-matcher "
    "save-state set-env set-output stop-commands warning".split()
)
_LEVELS = ("notice", "warning", "error")
_PROPERTIES = {"file", "line", "endLine", "col", "endColumn", "title"}
_DATA = (("%0D", "\r"), ("%0A", "\n"), ("%25", "%"))
_IN_PROPERTIES = (*_DATA[:2], ("%3A", ":"), ("%2C", ","), _DATA[2])
_OLD = (("%0D", "\r"), ("%0A", "\n"), ("%5D", "]"), ("%3B", ";"), _DATA[2])
SUMMARY_LIMIT = 1 << 20


class CommandError(AssertionError):
    """The runner would refuse it, or obey someone who has nothing to say."""


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """A message beside a line of a file. `line` is 0 where none is named."""

    level: str
    message: str
    file: str = ""
    line: int = 0
    title: str = ""


@dataclass(frozen=True, kw_only=True)
class Command:
    """A workflow command in a line."""

    name: str
    properties: dict[str, str]
    data: str
    old: bool = False


@dataclass
class Log:
    """What the output of a step says to the runner, and to a person: `lines` are those that are no commands."""

    annotations: list[Annotation] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    @property
    def errors(self) -> list[Annotation]:
        """The annotations that are errors."""
        return [one for one in self.annotations if one.level == "error"]


def command_in(line: str) -> Command | None:
    """The workflow command that a line is to the runner, in today's form or the old one; None for text."""
    text = line.lstrip()
    if text.startswith("::") and (end := text.find("::", 2)) >= 0:
        name, _, properties = text[2:end].partition(" ")
        if name.lower() in _KNOWN:
            found = dict(_properties(properties, ",", _IN_PROPERTIES))
            return Command(name=name.lower(), properties=found, data=_unescaped(text[end + 2 :], _DATA))
    # The old form may stand anywhere in a line.
    if (start := line.find("##[")) >= 0 and (end := line.find("]", start)) >= 0:
        name, _, properties = line[start + 3 : end].partition(" ")
        if name.lower() in _KNOWN:
            found = dict(_properties(properties, ";", _OLD))
            return Command(name=name.lower(), properties=found, data=_unescaped(line[end + 1 :], _OLD), old=True)
    return None


def _properties(text: str, mark: str, escapes: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for one in text.strip().split(mark):
        key, equals, value = one.partition("=")
        if equals:
            yield key, _unescaped(value, escapes)


def _unescaped(text: str, escapes: Sequence[tuple[str, str]]) -> str:
    for escape, meant in escapes:
        text = text.replace(escape, meant)
    return text


def output_lines(output: str) -> list[str]:
    """Output in lines as the runner reads them: a carriage return alone ends one as well."""
    return re.split(r"\r\n|\r|\n", output)


def read_log(lines: Sequence[str]) -> Log:
    """What lines of output say.

    Raises:
        CommandError: groups are nested, not begun or not ended; or a command is none of groups and annotations.
    """
    log, group = Log(), ""
    for line in lines:
        command = command_in(line)
        if command is None:
            log.lines.append(line)
        elif command.old:
            raise CommandError(f"a command in the old form: {line!r}")
        elif command.name in _LEVELS:
            log.annotations.append(_annotation(command))
        elif command.name == "group" and not group and command.data.strip():
            group = command.data
            log.groups.append(group)
        elif command.name == "endgroup" and group:
            group = ""
        else:
            raise CommandError(f"not expected{f' in the group {group!r}' if group else ''}: {line!r}")
    if group:
        raise CommandError(f"the group {group!r} is not ended")
    return log


def _annotation(command: Command) -> Annotation:
    properties = command.properties
    if strange := properties.keys() - _PROPERTIES:
        raise CommandError(f"no properties of an annotation: {', '.join(strange)}")
    for name in ("line", "endLine", "col", "endColumn"):
        if not re.fullmatch(r"[1-9]\d*", properties.get(name, "1")) or (
            name in properties and "file" not in properties
        ):
            raise CommandError(f"{name} is no number of a file: {command}")
    if not command.data.strip():
        raise CommandError(f"an annotation without a message: {command}")
    return Annotation(
        level=command.name,
        message=command.data,
        file=properties.get("file", ""),
        line=int(properties.get("line", 0)),
        title=properties.get("title", ""),
    )


def read_values(text: str) -> list[tuple[str, str]]:
    """The values in a file such as ``$GITHUB_OUTPUT``: ``name=value``, or ``name<<DELIMITER`` and lines up to it.

    Of a name that occurs twice the last value counts; where only one command wrote, someone has forged it.

    Raises:
        CommandError: the runner would refuse the file.
    """
    found: list[tuple[str, str]] = []
    # On Linux, a carriage return belongs to its line.
    left = text.split("\n")
    while left:
        line = left.pop(0)
        if not line:
            continue
        equals, heredoc = line.find("="), line.find("<<")
        if heredoc >= 0 and (equals < 0 or heredoc < equals):
            name, _, delimiter = line.partition("<<")
            if not name or not delimiter:
                raise CommandError(f"a name and a delimiter must not be empty: {line!r}")
            if delimiter not in left:
                raise CommandError(f"there is no line {delimiter!r} that ends the value")
            end = left.index(delimiter)
            value = "\n".join(left[:end])
            del left[: end + 1]
        elif equals >= 0:
            name, _, value = line.partition("=")
        else:
            raise CommandError(f"neither NAME=VALUE nor NAME<<DELIMITER: {line!r}")
        if not re.fullmatch(r"[A-Za-z_][\w-]*", name):
            raise CommandError(f"a name that nobody gives: {name!r}")
        found.append((name, value))
    return found


def read_summary(content: bytes) -> str:
    """The Markdown in ``$GITHUB_STEP_SUMMARY``.

    Raises:
        CommandError: it is larger than what the runner uploads.
    """
    if len(content) > SUMMARY_LIMIT:
        raise CommandError(f"a summary of {len(content)} bytes is not uploaded")
    return content.decode("utf-8")
