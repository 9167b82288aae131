"""What a page is written of: names and numbers as text that is safe in HTML, and tables."""

from __future__ import annotations

import html
import math
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

NOTHING = "\u2013"
_LONGEST_NAME = 120
_NAMELESS = "(no name)"

# Control characters, what turns the direction of text around, and halves of surrogate pairs, which no file can hold.
_UNSEEN = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\uffff\ud800-\udfff]"
)


def shown(name: object) -> str:
    """A name as it is shown: control characters as escapes, the middle of a very long one left out."""
    text = str(name).strip() or _NAMELESS
    if len(text) > _LONGEST_NAME:
        half = _LONGEST_NAME // 2
        text = f"{text[:half]}…{text[-half:]}"
    return _UNSEEN.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def escaped(name: object) -> str:
    """A name as text or attribute of HTML, as `shown` shows it."""
    return html.escape(shown(name))


def amount(value: Any) -> float:
    """A measured number; what cannot be a size or a time counts as nothing."""
    number = float(value or 0)
    return number if math.isfinite(number) and number > 0 else 0.0


def size(value: Any) -> str:
    """Bytes for people, in decimal units as the tables on the terminal have them: ``51 kB``, ``7.2 MB``."""
    number = amount(value)
    return f"{number / 1_000_000:,.1f} MB" if number >= 1_000_000 else f"{number / 1000:.0f} kB"


def number_of_milliseconds(seconds: Any) -> str:
    """Seconds as a number of milliseconds, for columns that name the unit; a dash for what was not measured."""
    return NOTHING if seconds is None else f"{amount(seconds) * 1000:,.1f}"


def milliseconds(seconds: Any) -> str:
    """Seconds as milliseconds: ``12.3 ms``."""
    return f"{number_of_milliseconds(seconds)} ms"


def share(part: float, whole: float) -> str:
    """How much of the whole a part is, in percent."""
    return f"{part / whole:.1%}" if whole else NOTHING


def counted(count: int, noun: str) -> str:
    """``1 module``, ``1,200 modules``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, words: Sequence[str] = ()) -> str:
    """A table, inside a box that scrolls where a screen is too narrow for it.

    Args:
        caption: what it shows, as HTML.
        columns: their headings. The first column names the rows.
        rows: cells, as HTML.
        words: the columns besides the first that hold words; all others hold numbers.
    """
    kinds = ["w" if column in words or place == 0 else "" for place, column in enumerate(columns)]
    marks = [f' class="{kind}"' if kind else "" for kind in kinds]
    head = "".join(
        f'<th scope="col"{mark}>{html.escape(column)}</th>' for column, mark in zip(columns, marks, strict=True)
    )
    body = "\n".join(
        f'<tr><th scope="row">{row[0]}</th>'
        + "".join(f"<td{mark}>{cell}</td>" for cell, mark in zip(row[1:], marks[1:], strict=True))
        + "</tr>"
        for row in rows
    )
    name = html.escape(re.sub(r"<[^>]*>", "", html.unescape(caption)))
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{name}">\n'
        f"<table>\n<caption>{caption}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</div>"
    )
