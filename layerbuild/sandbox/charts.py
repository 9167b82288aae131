"""The drawings of a profile's page: bars, a treemap of sizes and a flame chart of imports, as SVG.

Widths are shares of the drawing's width and heights are pixels, so that text keeps its size on every screen. A label
names the narrowest drawing in which it fits; the style sheet hides it in narrower ones. Where it
has a shorter form, too, that one names the narrowest drawing in which it gives way to the longer one.
"""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from layerbuild.sandbox.markup import amount, counted, escaped, milliseconds, share, shown, size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from layerbuild.sandbox.palette import Palette

# Pixels. The style sheet's font for labels is 11 pixels high, and its letters are 0.6 of that wide.
_LETTER = 6.7
_LINE = 15
_MARGIN = 5
# The widths of a drawing that the style sheet tells apart, as classes: l0 is seen from the first on, u0 until it.
_WIDTHS = (300, 440, 600, 760, 920, 1080)

_TREEMAP_WIDTH, _TREEMAP_HEIGHT = 1000.0, 440.0
_SMALLEST_PACKAGE = 1 / 2000
_SMALLEST_NESTED = 1 / 300
TYPES = ("data", "so", "py", "pyc")

_ROW = 20
_MOST_ROWS = 40
_SMALLEST_MODULE = 0.0025


@dataclass(frozen=True)
class Box:
    """A rectangle."""

    left: float
    top: float
    width: float
    height: float


def squarified(values: Sequence[float], area: Box) -> list[Box]:
    """A box in `area` for each of the values, as large as its share of them all, and as near to a square as may be.

    Squarified treemaps: Bruls, Huizing, van Wijk 2000. A row of boxes along the shorter side of what is free grows as
    long as that makes its worst box no worse.

    Args:
        values: all above zero, the largest first.
        area: what the boxes fill.
    """
    boxes: list[Box] = []
    scale = area.width * area.height / (sum(values) or 1)
    areas = [value * scale for value in values]
    start = 0
    while start < len(areas):
        side = min(area.width, area.height)
        end = start + 1
        while end < len(areas) and _worst(areas[start : end + 1], side) <= _worst(areas[start:end], side):
            end += 1
        row, area = _row(areas[start:end], area)
        boxes += row
        start = end
    return boxes


def _worst(row: Sequence[float], side: float) -> float:
    """The worst relation of width to height among the boxes of a row; the largest of them is the first."""
    total = sum(row)
    if not side or not row[-1]:
        return float("inf")
    return max(side**2 * row[0] / total**2, total**2 / (side**2 * row[-1]))


def _row(row: Sequence[float], area: Box) -> tuple[list[Box], Box]:
    """The boxes of a row along the shorter side of an area, and what of the area remains free."""
    total = sum(row)
    boxes = []
    done = 0.0
    if area.width >= area.height:
        depth = total / area.height if area.height else 0.0
        for value in row:
            boxes.append(Box(area.left, area.top + area.height * done / total, depth, area.height * value / total))
            done += value
        return boxes, Box(area.left + depth, area.top, max(area.width - depth, 0.0), area.height)
    depth = total / area.width if area.width else 0.0
    for value in row:
        boxes.append(Box(area.left + area.width * done / total, area.top, area.width * value / total, depth))
        done += value
    return boxes, Box(area.left, area.top + depth, area.width, max(area.height - depth, 0.0))


def bar(title: str, parts: Sequence[tuple[str, float]], limit: float) -> str:
    """Parts after one another on a track that is as long as the limit, or as they are if that is more."""
    total = sum(value for _, value in parts)
    whole = max(total, limit) or 1
    drawn = []
    done = 0.0
    for name, value in parts:
        place = f'x="{_number(done / whole * 100)}%" width="{_number(value / whole * 100)}%"'
        drawn.append(f'<rect class="fill" {place} height="12"><title>{escaped(name)}: {size(value)}</title></rect>')
        done += value
    if total > limit:
        start = limit / whole * 100
        drawn.append(f'<rect class="over" x="{_number(start)}%" width="{_number(100 - start)}%" height="12"/>')
    return _drawing("bar", title, 12, '<rect class="track" width="100%" height="12"/>' + "".join(drawn))


def treemap(sizes: Sequence[Mapping[str, Any]], palette: Palette) -> str:
    """The sizes of packages as areas, and in each of them those of its types of files."""
    packages = sorted(
        ((sum(types_of(one).values()), str(one["package"]), one) for one in sizes), key=lambda one: (-one[0], one[1])
    )
    total = sum(whole for whole, _, _ in packages)
    large = [one for one in packages if one[0] > 0 and one[0] >= total * _SMALLEST_PACKAGE]
    merged = [one for one in packages if 0 < one[0] < total * _SMALLEST_PACKAGE]
    rest = sum(whole for whole, _, _ in merged)
    values = [whole for whole, _, _ in large]
    # The rest goes where its size belongs: the layout wants the largest first.
    place = sum(value >= rest for value in values)
    if rest:
        values.insert(place, rest)
    boxes = squarified(values, Box(0, 0, _TREEMAP_WIDTH, _TREEMAP_HEIGHT))
    drawn = []
    if rest:
        title = f"{counted(len(merged), 'small package')}: {size(rest)}"
        drawn.append(_cell(boxes.pop(place), palette.merged, title))
    for (whole, _, package), box in zip(large, boxes, strict=True):
        drawn += _package(package, box, palette.of(package["package"]), whole, total)
    title = f"{size(total)} in {counted(len(packages), 'package')}; the table below has the numbers"
    return _drawing("map", title, _TREEMAP_HEIGHT, "\n".join(drawn))


def types_of(package: Mapping[str, Any]) -> dict[str, float]:
    """How many bytes of each type of file a package has; what is no other type is data."""
    found = {kind: amount(package["types"].get(kind)) for kind in TYPES}
    found["data"] = sum(amount(value) for kind, value in package["types"].items() if kind not in TYPES[1:])
    return found


def _package(package: Mapping[str, Any], box: Box, colour: str, whole: float, total: float) -> Iterator[str]:
    name = shown(package["package"])
    version = f" {shown(package['version'])}" if package.get("version") else ""
    title = f"{name}{version}: {size(whole)}, {share(whole, total)} of all"
    kinds = sorted(((value, kind) for kind, value in types_of(package).items() if value), reverse=True)
    if whole < total * _SMALLEST_NESTED:
        kinds = [(whole, kinds[0][1])]
    cells = squarified([value for value, _ in kinds], box)
    first = cells[0]
    # The name may reach from the first cell into the next. There, types are named where that one has no need to.
    named = _level(name, box.width / _TREEMAP_WIDTH) if first.height >= _LINE + _MARGIN else None
    alone = _level(name, first.width / _TREEMAP_WIDTH)
    for (value, kind), cell in zip(kinds, cells, strict=True):
        what = f"{kind} {size(value)}" if len(kinds) > 1 else size(value)
        yield _cell(cell, f"{colour} {kind}", f"{title}\n{what}" if len(kinds) > 1 else title)
        level = alone if cell is not first and cell.top < first.top + _LINE + _MARGIN else named
        if named is not None and level is not None:
            yield _cell_label((what, kind), cell, line=1 if cell is first else 0, least=level)
    yield f'<rect class="edge" {_place(box)}/>'
    if named is not None:
        yield _cell_label((name,), box, weight="name")


def _cell(box: Box, kind: str, title: str) -> str:
    return f'<rect class="{kind}" {_place(box)}><title>{html.escape(title)}</title></rect>'


def _cell_label(forms: Sequence[str], box: Box, *, line: int = 0, least: int = 0, weight: str = "") -> str:
    if (line + 1) * _LINE + _MARGIN > box.height:
        return ""
    left, width = box.left / _TREEMAP_WIDTH, box.width / _TREEMAP_WIDTH
    return _label(forms, left, width, box.top + line * _LINE, weight=weight, least=least)


def _place(box: Box) -> str:
    left, width = box.left / _TREEMAP_WIDTH * 100, box.width / _TREEMAP_WIDTH * 100
    return f'x="{_number(left)}%" y="{_number(box.top)}" width="{_number(width)}%" height="{_number(box.height)}"'


@dataclass
class _Node:
    """A module and what it imports."""

    module: Mapping[str, Any]
    seconds: float
    depth: int
    within: list[_Node] = field(default_factory=list)
    count: int = 1


def flame(title: str, modules: Iterable[Mapping[str, Any]], palette: Palette) -> tuple[str, list[str]]:
    """An import as an icicle: what a module imports is below it, and as wide as it takes time.

    Returns:
        The drawing, and the classes of colours in it, for its key.
    """
    nodes = _nested(modules)
    total = sum(node.seconds for node in nodes)
    drawn: list[str] = []
    used: set[str] = set()
    lowest = 0
    for nodes_there, left, width, row in _visible(nodes, 0.0, 1 / total if total else 0.0, 0):
        lowest = max(lowest, row + 1)
        colour, text, forms, compiled = _described(nodes_there, palette, cut=row + 1 == _MOST_ROWS)
        used.add(colour)
        place = f'x="{_number(left * 100)}%" y="{{}}" width="{_number(width * 100)}%" height="{{}}"'
        box = place.format(row * _ROW, _ROW)
        drawn.append(f'<rect class="{colour}" {box}><title>{html.escape(text)}</title></rect>')
        if compiled:
            used.add(palette.compiled)
            drawn.append(f'<rect class="compiled" {place.format(row * _ROW + _ROW - 3, 2)}/>')
        drawn.append(_label(forms, left, width, row * _ROW))
    return _drawing("flame", title, lowest * _ROW, "\n".join(filter(None, drawn))), palette.ordered(used)


def _nested(modules: Iterable[Mapping[str, Any]]) -> list[_Node]:
    """The outermost modules of a list in which each stands before those that it imports."""
    outermost: list[_Node] = []
    around: list[_Node] = []
    closed: list[tuple[_Node, _Node]] = []
    for module in modules:
        node = _Node(module, amount(module["cumulative"]), int(module["depth"]))
        while around and around[-1].depth >= node.depth:
            around.pop()
        if around:
            around[-1].within.append(node)
            closed.append((around[-1], node))
        else:
            outermost.append(node)
        around.append(node)
    for outer, inner in reversed(closed):
        outer.count += inner.count
    return outermost


def _visible(
    nodes: Sequence[_Node], left: float, per_second: float, row: int
) -> Iterator[tuple[list[_Node], float, float, int]]:
    """What is wide enough to be seen: (a module, or several small ones; left edge, width, row)."""
    small = []
    for node in nodes:
        width = node.seconds * per_second
        if width < _SMALLEST_MODULE:
            small.append(node)
            continue
        yield [node], left, width, row
        if row + 1 < _MOST_ROWS and node.within:
            inside = sum(one.seconds for one in node.within)
            # Clocks are not exact: what is inside never reaches out.
            yield from _visible(node.within, left, min(per_second, width / inside) if inside else 0.0, row + 1)
        left += width
    width = sum(node.seconds for node in small) * per_second
    if width >= _SMALLEST_MODULE:
        yield small, left, width, row


def _described(nodes: Sequence[_Node], palette: Palette, *, cut: bool) -> tuple[str, str, Sequence[str], bool]:
    """The colour, the hover text, the label's forms and whether to mark a box as compiled."""
    if len(nodes) > 1:
        count = sum(node.count for node in nodes)
        seconds = sum(node.seconds for node in nodes)
        return (
            palette.merged,
            f"{counted(count, 'small module')}: {milliseconds(seconds)}",
            (f"{count:,} small",),
            False,
        )
    node = nodes[0]
    name = shown(node.module["name"])
    compiled = bool(node.module.get("compiled"))
    text = (
        f"{name}\nitself {milliseconds(node.module['self'])}, with what it imports {milliseconds(node.seconds)}"
        f"\n{palette.name(node.module.get('package'))}"
    )
    if compiled:
        text += "\ncompiled from source"
    if cut and node.count > 1:
        text += f"\n{counted(node.count - 1, 'module')} further down"
    last = name.rpartition(".")[2]
    return palette.of(node.module.get("package")), text, (name, f"…{last}") if last != name else (name,), compiled


def _level(text: str, width: float) -> int | None:
    """The narrowest of the widths of a drawing at which a text fits into a share of it; None where it never does."""
    # How wide other letters are, only the reader's machine knows.
    if not text.replace("\u2026", "").isascii():
        return None
    needed = len(text) * _LETTER + 2 * _MARGIN
    return next((level for level, known in enumerate(_WIDTHS) if known * width >= needed), None)


def _label(forms: Sequence[str], left: float, width: float, top: float, *, weight: str = "", least: int = 0) -> str:
    """A label in the longest of its forms that fits: in narrow drawings perhaps another than in wide ones."""
    drawn = ""
    shortest: int | None = None
    for text in reversed(forms):
        level = _level(text, width)
        if level is None:
            continue
        level = max(level, least)
        # What is drawn for narrower drawings gives way to this.
        drawn = "" if level == shortest else drawn.replace('class="', f'class="u{level} ')
        kind = f"l{level} {weight}".strip()
        place = f'x="{_number(left * 100)}%" dx="{_MARGIN}" y="{_number(top + _LINE - 1)}"'
        drawn += f'<text class="{kind}" {place}>{html.escape(text)}</text>'
        shortest = level
    return drawn


def _drawing(kind: str, title: str, height: float, content: str) -> str:
    return (
        f'<svg class="{kind}" role="img" width="100%" height="{_number(height)}">'
        f"<title>{html.escape(title)}</title>\n{content}</svg>"
    )


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
