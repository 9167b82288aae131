"""GitHub's expressions, as far as actions use them; what is not known here fails a test instead of being empty.

In: the text between ``${{`` and ``}}``, and contexts as mappings. Out: None, bool, float, str, or what JSON has.
After docs.github.com, "Evaluate expressions in workflows and actions".
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_TOKEN = re.compile(
    r"""\s*(?:(?P<string>'(?:[^']|'')*')|(?P<number>-?(?:0x[0-9a-fA-F]+|\d+(?:\.\d+)?(?:[eE][+-]?\d+)?))
    |(?P<name>[A-Za-z_][\w-]*)|(?P<mark>&&|\|\||[=!<>]=|[()\[\].,!<>]))""",
    re.VERBOSE,
)
_HOLE = re.compile(r"\$\{\{((?:[^'}]|'(?:[^']|'')*'|\}(?!\}))*)\}\}")
_WORDS = {"true": True, "false": False, "null": None, "NaN": math.nan, "Infinity": math.inf}
_ASKS_STATUS = re.compile(r"\b(?:success|failure|always|cancelled)\s*\(", re.IGNORECASE)


class ExpressionError(Exception):
    """An expression that GitHub would refuse, or that is not known here."""


class Strict(dict[str, Any]):
    """A context all of whose names are known: another one is a mistake, where GitHub would take it for empty."""


@dataclass(frozen=True, kw_only=True)
class Scope:
    """What an expression sees: contexts by name, whether the job has failed, and the folder of `hashFiles`."""

    contexts: Mapping[str, Any]
    failed: bool = False
    workspace: Path = field(default_factory=Path.cwd)

    def evaluate(self, text: str) -> Any:
        """The value of an expression."""
        parser = _Parser(self, _tokens(text), text)
        value = parser.either()
        if parser.rest:
            raise ExpressionError(f"{text!r}: {parser.rest[0][1]!r} is too much")
        return value

    def fill(self, template: object) -> str:
        """A scalar of YAML with all its ``${{ }}`` filled in."""
        text = as_text(template)
        filled = _HOLE.sub(lambda hole: as_text(self.evaluate(hole[1])), text)
        if "${{" in _HOLE.sub("", text):
            raise ExpressionError(f"{text!r}: an expression without an end")
        return filled

    def condition(self, template: object) -> bool:
        """Whether a step runs, by its ``if``: without a question for the status, only while nothing has failed."""
        text = as_text(template).strip()
        hole = _HOLE.fullmatch(text)
        expression = hole[1] if hole else text
        if not hole and "${{" in text:
            raise ExpressionError(f"{text!r}: text around an expression is always true")
        asked = bool(_ASKS_STATUS.search(re.sub(r"'(?:[^']|'')*'", "", expression)))
        return (asked or not self.failed) and truth(self.evaluate(expression or "true"))


def as_text(value: Any) -> str:
    """A value as it becomes part of a string."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"{value:.15g}"
    if isinstance(value, str):
        return value
    return "Array" if isinstance(value, list) else "Object"


def truth(value: Any) -> bool:
    """Whether a value counts as true."""
    return not (value is None or value is False or value == "" or value == 0 or value != value)


def _tokens(text: str) -> list[tuple[str, str]]:
    found, place = [], 0
    while text[place:].strip():
        match = _TOKEN.match(text, place)
        if not match or match.lastgroup is None:
            raise ExpressionError(f"{text!r}: nothing is known that begins with {text[place:].strip()[:10]!r}")
        found.append((match.lastgroup, match[match.lastgroup]))
        place = match.end()
    return found


class _Parser:
    """Reads and evaluates at once, from the weakest operator to the strongest."""

    def __init__(self, scope: Scope, tokens: list[tuple[str, str]], text: str) -> None:
        self.scope, self.rest, self.text = scope, tokens, text

    def _next(self, *marks: str) -> str | None:
        """Takes the next token if it is one of these marks."""
        if self.rest and self.rest[0][0] == "mark" and self.rest[0][1] in marks:
            return self.rest.pop(0)[1]
        return None

    def _expect(self, mark: str) -> None:
        if not self._next(mark):
            raise ExpressionError(f"{self.text!r}: {mark!r} is missing")

    def either(self) -> Any:
        value = self._both()
        while self._next("||"):
            other = self._both()
            value = value if truth(value) else other
        return value

    def _both(self) -> Any:
        value = self._compared()
        while self._next("&&"):
            other = self._compared()
            value = other if truth(value) else value
        return value

    def _compared(self) -> Any:
        value = self._denied()
        while mark := self._next("==", "!=", "<", "<=", ">", ">="):
            value = _compare(mark, value, self._denied())
        return value

    def _denied(self) -> Any:
        if self._next("!"):
            return not truth(self._denied())
        return self._looked_up()

    def _looked_up(self) -> Any:
        value = self._single()
        while mark := self._next(".", "["):
            if mark == ".":
                if not self.rest or self.rest[0][0] != "name":
                    raise ExpressionError(f"{self.text!r}: a name is missing after the dot")
                key: Any = self.rest.pop(0)[1]
            else:
                key = self.either()
                self._expect("]")
            value = self._member(value, key)
        return value

    def _member(self, value: Any, key: Any) -> Any:
        if isinstance(value, list):
            return value[int(key)] if isinstance(key, int | float) and 0 <= key < len(value) else None
        if not isinstance(value, Mapping):
            raise ExpressionError(f"{self.text!r}: {as_text(value)!r} has no {key!r}")
        # Names are compared without regard to case.
        found = {name.lower(): item for name, item in value.items()}
        if isinstance(value, Strict) and str(key).lower() not in found:
            raise ExpressionError(f"{self.text!r}: there is no {key!r}, only {', '.join(value) or 'nothing'}")
        return found.get(str(key).lower())

    def _single(self) -> Any:
        if self._next("("):
            value = self.either()
            self._expect(")")
            return value
        kind, text = self.rest.pop(0) if self.rest else ("", "")
        if kind == "string":
            return text[1:-1].replace("''", "'")
        if kind == "number":
            return float(int(text, 16)) if "x" in text else float(text)
        if kind != "name":
            raise ExpressionError(f"{self.text!r}: a value is missing")
        if text in _WORDS:
            return _WORDS[text]
        if self._next("("):
            return self._call(text)
        if text not in self.scope.contexts:
            raise ExpressionError(f"{self.text!r}: there is no context {text!r} in a composite action's step")
        return self.scope.contexts[text]

    def _call(self, name: str) -> Any:
        arguments: list[Any] = []
        while not self._next(")"):
            if arguments:
                self._expect(",")
            arguments.append(self.either())
        status = {"success": not self.scope.failed, "failure": self.scope.failed, "always": True, "cancelled": False}
        if name.lower() in status and not arguments:
            return status[name.lower()]
        if name.lower() == "hashfiles":
            return _hash_files(self.scope.workspace, [as_text(one) for one in arguments])
        if name.lower() not in _FUNCTIONS:
            raise ExpressionError(f"{self.text!r}: there is no function {name!r}")
        return _FUNCTIONS[name.lower()](*arguments)


def _compare(mark: str, left: Any, right: Any) -> bool:
    if isinstance(left, str) and isinstance(right, str):
        left, right = left.upper(), right.upper()
    elif type(left) is not type(right):
        left, right = _number(left), _number(right)
    operations: dict[str, Callable[[Any, Any], bool]] = {
        "==": lambda one, other: one == other,
        "!=": lambda one, other: one != other,
        "<": lambda one, other: one < other,
        "<=": lambda one, other: one <= other,
        ">": lambda one, other: one > other,
        ">=": lambda one, other: one >= other,
    }
    return operations[mark](left, right)


def _number(value: Any) -> float:
    if value is None or value == "":
        return 0.0
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _format(text: Any, *values: Any) -> str:
    def hole(match: re.Match[str]) -> str:
        if match[0] in ("{{", "}}"):
            return match[0][0]
        return as_text(values[int(match[1])])

    return re.sub(r"\{\{|\}\}|\{(\d+)\}", hole, as_text(text))


def _contains(where: Any, what: Any) -> bool:
    if isinstance(where, list):
        return any(_compare("==", one, what) for one in where)
    return as_text(what).lower() in as_text(where).lower()


def _join(values: Any, mark: Any = ",") -> str:
    found: Sequence[Any] = values if isinstance(values, list) else [values]
    return as_text(mark).join(as_text(one) for one in found)


def _hash_files(workspace: Path, patterns: Sequence[str]) -> str:
    """The sha256 of the sha256s of all files that match; empty when none does."""
    paths = sorted({path for one in patterns for path in workspace.glob(one) if path.is_file()})
    digests = b"".join(hashlib.sha256(path.read_bytes()).digest() for path in paths)
    return hashlib.sha256(digests).hexdigest() if paths else ""


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "format": _format,
    "contains": _contains,
    "join": _join,
    "startswith": lambda text, start: as_text(text).lower().startswith(as_text(start).lower()),
    "endswith": lambda text, end: as_text(text).lower().endswith(as_text(end).lower()),
    "tojson": lambda value: json.dumps(value, indent=2),
    "fromjson": lambda text: json.loads(as_text(text)),
}
