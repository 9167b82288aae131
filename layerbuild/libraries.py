"""System libraries: what is known of those that Lambda's runtimes have, read from ``libraries.toml``."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layerbuild.target import Target

# Python itself reads no number of thousands of digits.
_MANY_DIGITS, _ENDLESS = 10, 10**10


@dataclass(frozen=True, kw_only=True, slots=True)
class Library:
    """What is known of a system library: whether Lambda has it, how sure that is, where from, and what to do."""

    present: bool
    certainty: str
    source: str
    fix: str = ""

    @property
    def sure(self) -> bool:
        """Whether someone saw it, rather than concluded it."""
        return self.certainty != "inferred"


@cache
def _data() -> dict[str, Any]:
    return tomllib.loads(files("layerbuild").joinpath("libraries.toml").read_text("utf-8"))


@cache
def system_libraries(target: Target) -> dict[str, Library]:
    """What is known of system libraries on a target, by the names that binaries ask for."""
    known: dict[str, Library] = {}
    for row in _data()["library"]:
        here = target.runtime.os in row.get("on", ()) or target.runtime.name in row.get("runtimes", ())
        if here and target.arch in row.get("arch", (target.arch,)):
            facts = {key: row[key] for key in ("present", "certainty", "source", "fix") if key in row}
            known |= dict.fromkeys(row["names"], Library(**facts))
    return known


def symbol_limits(target: Target) -> dict[str, tuple[int, ...]]:
    """The newest symbol version of each family (``GLIBC``, ``GLIBCXX`` …) that a target's own libraries define."""
    row = _data()["symbols"][target.runtime.os]
    texts = {"GLIBCXX": row["GLIBCXX"], "CXXABI": row["CXXABI"], "GCC": row["GCC"][target.arch]}
    return {"GLIBC": target.runtime.glibc, **{family: version_of(text) for family, text in texts.items()}}


def version_of(text: str) -> tuple[int, ...]:
    """``3.4.29`` as numbers, for comparing."""
    return tuple(int(part) if len(part) < _MANY_DIGITS else _ENDLESS for part in text.split("."))
