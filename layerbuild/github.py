"""A job of GitHub Actions: what it is told (inputs), and what it is given (annotations, a summary, outputs).

The formats: https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands; how the runner
reads them: ``src/Runner.Common/ActionCommand.cs`` and ``src/Runner.Worker/FileCommandManager.cs`` of actions/runner.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from layerbuild.errors import SourceLine

if TYPE_CHECKING:
    from collections.abc import Mapping

    from layerbuild.errors import LayerbuildError
    from layerbuild.recipe import Recipe

# What GitHub takes: more of a step's summary is not shown at all, more of a job's outputs fails it.
LARGEST_SUMMARY = 1024 * 1024
LARGEST_OUTPUT = 1_000_000
_LONGEST_MESSAGE = 4000
_PACKAGE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_STRING = re.compile(r"""["']([^"']*)["']""")


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """The step of a job that this program runs in.

    Attributes:
        workspace: the folder of the checkout, which annotations name files from.
        summary, output: the files that the runner reads when the step has ended; None where it gives none.
    """

    workspace: Path
    summary: Path | None = None
    output: Path | None = None

    def annotation(self, severity: str, message: str, *, title: str, line: SourceLine | None = None) -> str:
        """The workflow command that shows a message beside the code.

        Args:
            severity: ``error``, ``warning`` or ``notice``.
            message: of several lines, perhaps.
            title: in bold above it.
            line: what it is about; a file outside the workspace is not named.
        """
        place = self._place(line) if line else None
        return annotation(severity, message, title=title, place=place)

    def _place(self, line: SourceLine) -> tuple[str, int] | None:
        path = Path(os.path.abspath(line.path))  # noqa: PTH100 - links are to be named as they are
        return (
            (path.relative_to(self.workspace).as_posix(), line.number)
            if path.is_relative_to(self.workspace)
            else None
        )

    def add_summary(self, markdown: str) -> bool:
        """Adds to the job's summary; returns whether there was room for it."""
        if self.summary is None:
            return True
        data = f"{markdown.rstrip()}\n\n".encode("utf-8", "backslashreplace")
        there = self.summary.stat().st_size if self.summary.exists() else 0
        if there + len(data) > LARGEST_SUMMARY:
            return False
        with self.summary.open("ab") as file:
            file.write(data)
        return True

    def set_output(self, name: str, value: str) -> None:
        """Sets an output of the step. A delimiter that nobody can know keeps the value from setting others."""
        if self.output is None:
            return
        import secrets

        delimiter = f"layerbuild_{secrets.token_hex(16)}"
        with self.output.open("ab") as file:
            file.write(f"{name}<<{delimiter}\n{value}\n{delimiter}\n".encode("utf-8", "backslashreplace"))


def current_step(environment: Mapping[str, str]) -> Step | None:
    """The step that this program runs in; None outside GitHub Actions."""
    if environment.get("GITHUB_ACTIONS") != "true":
        return None
    summary, output = environment.get("GITHUB_STEP_SUMMARY"), environment.get("GITHUB_OUTPUT")
    return Step(
        workspace=Path(environment.get("GITHUB_WORKSPACE") or Path.cwd()).absolute(),
        summary=Path(summary) if summary else None,
        output=Path(output) if output else None,
    )


def annotation(severity: str, message: str, *, title: str, place: tuple[str, int] | None = None) -> str:
    """The workflow command that shows a message beside the code; `place` is a file of the workspace and a line."""
    properties = {"title": title}
    if place:
        properties = {"file": place[0], **({"line": str(place[1])} if place[1] else {}), **properties}
    told = ",".join(f"{name}={_escaped(value, property_=True)}" for name, value in properties.items())
    return f"::{severity} {told}::{_escaped(message[:_LONGEST_MESSAGE])}"


def _escaped(text: str, *, property_: bool = False) -> str:
    text = "".join(
        one if one.isprintable() or one in "\r\n" else one.encode("unicode_escape").decode() for one in text
    )
    text = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return text.replace(":", "%3A").replace(",", "%2C") if property_ else text


def harmless(line: str) -> str:
    """A line of a log that the runner takes for text, whoever wrote it.

    The runner takes a line for a command that begins with ``::``, white space aside, or has ``##[`` anywhere.
    """
    line = line.replace("##[", "## [")
    return f"| {line}" if line.lstrip().startswith("::") else line


def markdown(text: str) -> str:
    """Text that is nothing but text in Markdown, whatever a package calls itself."""
    plain = "".join(character if character.isprintable() else " " for character in text)
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~@&:$])", r"\\\1", plain)


def lines_at_fault(recipe: Recipe, error: LayerbuildError) -> tuple[SourceLine, ...]:
    """Where a layer that cannot be made is to be mended: the line that names the package which the error is about."""
    if error.lines or recipe.source is None:
        return error.lines
    return (requirement_line(recipe.source, " ".join((error.what, *error.causes))),)


def requirement_line(path: Path, text: str) -> SourceLine:
    """The line of a recipe or a requirements file that asks for the first package that `text` names.

    Where it asks for none of those, that is where the requirements begin.
    """
    from layerbuild.recipe import RECIPE_FILE
    from layerbuild.requirements import logical_lines

    try:
        written = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return SourceLine(path=path)
    begin, asked = _requirements_of(written) if path.name == RECIPE_FILE else (1, list(logical_lines(written)))
    numbers = {_normal(match[0]): number for number, line in asked if (match := _PACKAGE.match(line))}
    named = (word for word in re.findall(r"[a-z0-9]+(?:-[a-z0-9]+)*", _normal(text)) if word in numbers)
    return SourceLine(path=path, number=numbers.get(next(named, ""), begin))


def _normal(text: str) -> str:
    """Names of packages as PEP 503 has them."""
    return re.sub(r"[-_.]+", "-", text.lower())


def _requirements_of(recipe: str) -> tuple[int, list[tuple[int, str]]]:
    """Where a recipe's requirements begin, and each of their strings with its line."""
    lines = recipe.splitlines()
    begin = next((number for number, line in enumerate(lines, 1) if re.match(r"\s*requirements\s*=", line)), None)
    found = []
    for number in range(begin or len(lines) + 1, len(lines) + 1):
        line = lines[number - 1]
        found += [(number, name) for name in _STRING.findall(line)]
        if "]" in _STRING.sub("", line):
            break
    return begin or 1, found
