"""Reading values out of parsed TOML strictly, with all that is wrong told at once, each with its line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from layerbuild.errors import nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class TomlReader:
    """Reads values out of parsed TOML and gathers what is wrong with them instead of stopping at the first."""

    def __init__(self, text: str) -> None:
        """Args: text: the file's content, for the lines that problems are told with."""
        self.lines = text.splitlines()
        self.problems: list[tuple[int, str]] = []

    def complain(self, key: str, message: str, *, table: str = "", nth: int = 0) -> None:
        """Notes a problem with `key`, at the line that sets it in the `nth` such table, or else at the table."""
        starts = [0, *(number for number, text in enumerate(self.lines) if text.lstrip().startswith("["))]
        if table:
            headed = re.compile(rf"""\s*(\[+\s*["']?{re.escape(table)}["']?\s*\]|{re.escape(table)}\s*[=.])""")
            found = [number for number, text in enumerate(self.lines) if headed.match(text)]
            first = found[nth] if nth < len(found) else found[0] if found else 0
        else:
            first = 0
        end = next((number for number in starts if number > first), len(self.lines))
        sets = re.compile(rf"""\s*[\["']*{re.escape(key)}["']?\s*[=\].]""")
        for number in (*range(first, end), *range(len(self.lines))):
            if sets.match(self.lines[number]):
                self.problems.append((number + 1, message))
                return
        self.problems.append((first + 1, message))

    def known(self, values: dict[str, Any], keys: Iterable[str], *, table: str = "", nth: int = 0) -> None:
        """Notes a problem for each key that is not among `keys`."""
        where = f"{table}." if table else ""
        for key in values:
            if key not in keys:
                self.complain(key, f"unknown key {where}{key}: {nearest(key, keys)}", table=table, nth=nth)

    def get(
        self, values: dict[str, Any], key: str, kind: type, default: Any, *, table: str = "", nth: int = 0
    ) -> Any:
        """The value of a key, or `default` where there is none or one of another kind, which is noted."""
        value = values.get(key, default)
        if type(value) is not kind and value is not default:
            names = {str: "a string", int: "a whole number", bool: "true or false", list: "a list", dict: "a table"}
            where = f"{table}." if table else ""
            self.complain(key, f"{where}{key} must be {names[kind]}, not {value!r}", table=table, nth=nth)
            return default
        return value

    def strings(self, values: dict[str, Any], key: str, *, table: str = "") -> tuple[str, ...]:
        """A list of strings; empty where there is none."""
        found = self.get(values, key, list, [], table=table)
        if not all(isinstance(value, str) for value in found):
            where = f"{table}." if table else ""
            self.complain(key, f"{where}{key} must be a list of strings", table=table)
            return ()
        return tuple(found)

    def choice(self, table: dict[str, Any], key: str, known: tuple[str, ...]) -> str:
        """One of `known`; the first of them where the key is not there."""
        value: str = self.get(table, key, str, known[0])
        if value not in known:
            self.complain(key, f"{key} cannot be {value!r}: {nearest(value, known)}")
            return known[0]
        return value

    def checked(self, key: str, values: Iterable[str], read: Callable[[str], str]) -> tuple[str, ...]:
        """Each value as `read` returns it; what it raises ValueError for is noted and left out."""
        result = []
        for value in values:
            try:
                result.append(read(value))
            except ValueError as error:
                self.complain(key, f"{key}: {error}")
        return tuple(result)
