"""The page about sizes and import times of layers."""

from __future__ import annotations

import math
import re
import time
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerbuild.sandbox.charts import Box, flame, squarified
from layerbuild.sandbox.markup import milliseconds, size
from layerbuild.sandbox.page import profile_page
from layerbuild.sandbox.palette import Palette
from tests.profiles import (
    HOSTILE_NAMES,
    hostile,
    large,
    module,
    of_modules,
    package,
    profile,
    realistic,
    times,
    tree,
)

_VOID = {"meta", "wbr"}
_ELEMENTS = set(
    "html head meta title style body main header h1 h2 h3 dl dt dd div section p ul li span b strong code svg rect "
    "text figure figcaption table caption thead tbody tr th td wbr".split()
)


class Page(HTMLParser):
    """A page's elements; it fails where they are not nested as they should be."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.open.append(tag)
        self.texts.setdefault(tag, []).append("")
        if tag in _VOID:
            self.open.pop()

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag in ("td", "th") and "tr" in self.open:
            self.texts["tr"][-1] += " "

    def handle_data(self, data: str) -> None:
        for tag in set(self.open):
            self.texts[tag][-1] += data

    def rows(self) -> list[str]:
        return [row.strip().replace("\u2013", "-") for row in self.texts["tr"]]

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def rectangles(text: str, kind: str) -> list[dict[str, float]]:
    """Left edges, tops, widths and heights of what a drawing's boxes with hover text are."""
    drawing = text.partition(f'<svg class="{kind}"')[2].partition("</svg>")[0]
    found = re.findall(
        r'<rect class="[^"]*" x="([^"]*)%" y="([^"]*)" width="([^"]*)%" height="([^"]*)"><title>', drawing
    )
    return [dict(zip(("x", "y", "width", "height"), map(float, one), strict=True)) for one in found]


ALL = {
    "realistic": realistic,
    "hostile": hostile,
    "large": large,
    "empty": profile,
    "no layers": lambda: profile(layers=[]),
}


@pytest.mark.parametrize("make", ALL.values(), ids=ALL.keys())
def test_the_page_is_well_formed_and_has_a_heading_sections_and_tables_that_tell_what_they_are(make: Any) -> None:
    page = Page(profile_page(make()))

    assert {name for name, _ in page.elements} <= _ELEMENTS
    assert len(page.named("h1")) == 1
    assert len(page.named("h2")) == 5
    assert len(page.named("caption")) == len(page.named("table"))
    assert {one.get("scope") for one in page.named("th")} <= {"row", "col"}
    assert all(one["role"] == "img" for one in page.named("svg"))


@pytest.mark.parametrize("make", ALL.values(), ids=ALL.keys())
def test_the_page_loads_nothing_and_runs_nothing(make: Any) -> None:
    text = profile_page(make())
    page = Page(text)

    policies = [one["content"] for one in page.named("meta") if one.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"]
    known = set(
        "lang charset http-equiv content name class role tabindex aria-label scope x y dx width height".split()
    )
    assert {name for _, attributes in page.elements for name in attributes} <= known
    assert "url(" not in text
    assert "@import" not in text


def test_names_from_archives_are_text_and_nothing_else() -> None:
    text = profile_page(hostile())

    text.encode("utf-8")
    assert text.count("<style>") == text.count("</style>") == 1
    assert "<script" not in text
    assert "<img" not in text
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202e]", text)
    cells = Page(text).texts["th"]
    assert HOSTILE_NAMES[0] in cells
    assert HOSTILE_NAMES[2] in cells
    assert any("\\x00\\x1b[31m\\r\\n\\u202egnp.exe\\udc80" in cell for cell in cells)
    assert max(map(len, cells)) < 200


def test_the_same_profile_gives_the_same_page_whatever_the_order_of_its_packages() -> None:
    one, other = realistic(), realistic()
    for key in ("sizes", "packages"):
        other[key].reverse()

    assert profile_page(one) == profile_page(realistic()) == profile_page(other)


def test_a_page_of_thousands_of_modules_is_small_and_made_at_once() -> None:
    document = large()
    assert len(document["imports"][0]["modules"]) > 3000

    before = time.process_time()
    text = profile_page(document)

    assert time.process_time() - before < 1
    assert len(text.encode()) < 1_000_000


@given(st.lists(st.floats(1, 1e6), min_size=1, max_size=60), st.floats(1, 2000), st.floats(1, 2000))
def test_a_treemap_fills_its_area_in_the_proportions_of_its_values(
    values: list[float], width: float, height: float
) -> None:
    values.sort(reverse=True)

    boxes = squarified(values, Box(0, 0, width, height))

    assert math.isclose(sum(box.width * box.height for box in boxes), width * height, rel_tol=1e-6)
    for value, box in zip(values, boxes, strict=True):
        wanted = value / sum(values) * width * height
        assert math.isclose(box.width * box.height, wanted, rel_tol=1e-3, abs_tol=1e-6 * width * height)
        assert box.left >= -1e-6
        assert box.top >= -1e-6
        assert box.left + box.width <= width * (1 + 1e-6)
        assert box.top + box.height <= height * (1 + 1e-6)


def test_a_treemap_is_the_one_of_the_paper() -> None:
    boxes = squarified([6, 6, 4, 3, 2, 2, 1], Box(0, 0, 6, 4))

    found = [tuple(round(value, 2) for value in (box.left, box.top, box.width, box.height)) for box in boxes]
    assert found == [
        (0, 0, 3, 2),
        (0, 2, 3, 2),
        (3, 0, 1.71, 2.33),
        (4.71, 0, 1.29, 2.33),
        (3, 2.33, 1.2, 1.67),
        (4.2, 2.33, 1.2, 1.67),
        (5.4, 2.33, 0.6, 1.67),
    ]


@pytest.mark.parametrize("make", [realistic, hostile, large])
def test_the_boxes_of_sizes_fill_the_drawing(make: Any) -> None:
    boxes = rectangles(profile_page(make()), "map")

    area = sum(box["width"] * box["height"] for box in boxes)
    assert math.isclose(area, 100 * 440, rel_tol=0.005)


def test_small_packages_are_merged_into_one_box() -> None:
    sizes = [package("big", so=10**8), *(package(f"small{number}", py=1000) for number in range(300))]

    text = profile_page(profile(sizes=sizes))

    assert "<title>300 small packages: 300 kB</title>" in text
    assert text.count("small299") == 1


def test_the_boxes_of_a_flame_stay_inside_those_above_them() -> None:
    document = realistic()
    drawing, _ = flame("x", document["imports"][0]["modules"], Palette([], []))

    boxes = rectangles(drawing, "flame")
    assert len(boxes) > 50
    for box in boxes:
        if box["y"]:
            assert any(
                above["y"] == box["y"] - 20
                and above["x"] - 0.02 <= box["x"]
                and box["x"] + box["width"] <= above["x"] + above["width"] + 0.03
                for above in boxes
            )


def test_the_width_of_a_box_is_the_share_of_time_and_small_modules_are_merged() -> None:
    modules = [module("top", "a", 0.4, 1.0, 0), module("top.half", None, 0.5, 0.5, 1)]
    modules += [module(f"top.x{number}", "a", 0.001, 0.001, 1) for number in range(100)]

    drawing, colours = flame("x", modules, Palette([package("a", py=1)], []))

    assert [box["width"] for box in rectangles(drawing, "flame")] == [100, 50, 10]
    assert "<title>100 small modules: 100.0 ms</title>" in drawing
    assert "top.half\nitself 500.0 ms, with what it imports 500.0 ms\nstandard library" in drawing
    assert colours == ["k0", "ks", "km"]


def test_what_is_inside_a_module_never_reaches_out_of_it() -> None:
    modules = [module("a", None, 0, 1.0, 0), module("b", None, 3, 3.0, 1), module("c", None, 1, 1.0, 1)]

    drawing, _ = flame("x", modules, Palette([], []))

    assert [(box["x"], box["width"]) for box in rectangles(drawing, "flame")] == [(0, 100), (0, 75), (75, 25)]


def test_very_deep_imports_are_cut_and_say_so() -> None:
    modules = [module(f"m{depth}", None, 0.001, 3 - depth * 0.001, depth) for depth in range(2000)]

    drawing, _ = flame("x", modules, Palette([], []))

    assert 'height="800"' in drawing
    assert "1,960 modules further down" in drawing


def test_modules_compiled_from_source_are_marked() -> None:
    modules = [{**module("a", None, 1, 1, 0), "compiled": True}]
    imports = [of_modules(modules)]

    page = Page(profile_page(profile(imports=imports, packages=times(imports))))

    assert any("compiled" in str(one["class"]).split() for one in page.named("rect"))
    assert "compiled from source at import" in "".join(page.texts["li"])
    assert page.texts["td"][-1] == "yes"


def test_what_is_over_a_limit_is_said_in_words() -> None:
    text = profile_page(realistic())

    # 54.1 MB in a request of 52.4, and 171.9 MB with a budget of 160.
    assert re.findall(r'<strong class="warn">(.*?)</strong>', text) == ["1.7 MB over", "11.9 MB over"]
    assert "50 MiB (52.4 MB)" in text
    assert "262,144,000 bytes (262.1 MB)" in text


def test_packages_and_modules_are_listed_with_the_heaviest_first() -> None:
    imports = [of_modules(tree("top", ["a", None], fan=4, depth=3, seconds=1.0))]
    sizes = [package("small", py=2000), package("large", data=9_000_000, py=1_000_000)]

    page = Page(profile_page(profile(sizes=sizes, imports=imports, packages=times(imports))))

    rows = page.rows()
    assert rows[1:3] == ["large 1.2.3 9.0 MB - 1.0 MB - 10.0 MB 100.0%", "small 1.2.3 - - 2 kB - 2 kB 0.0%"]
    assert any(row.startswith("standard library") for row in rows)
    heaviest = [row for row in rows if row.startswith("top")]
    assert len(heaviest) == 21
    assert heaviest[0].startswith("top 200.0")


def test_what_was_not_measured_is_a_dash() -> None:
    one = {**of_modules([module("a", "p", 0.01, 0.01, 0)]), "without_bytecode": None}
    times_of = [{"package": "p", "modules": 1, "seconds": 0.01, "without_bytecode": None}]

    rows = Page(profile_page(profile(imports=[one], packages=times_of))).rows()

    assert "one 10.0 - - 1 0" in rows
    assert "p 1 10.0 100.0% - -" in rows


def test_sizes_and_times_of_nothing_are_shown_without_drawings() -> None:
    imports = [of_modules([module("a", "p", 0.0, 0.0, 0)])]
    layers = [{"name": "none", "zipped": 0, "unzipped": 0, "budget": None}]

    text = profile_page(profile(sizes=[package("p")], imports=imports, packages=times(imports), layers=layers))

    assert 'class="map"' not in text
    assert 'class="flame"' not in text
    assert "nan" not in text


def test_one_package_of_one_type_is_one_box() -> None:
    text = profile_page(profile(sizes=[package("only", so=5_000_000)]))

    assert rectangles(text, "map") == [{"x": 0, "y": 0, "width": 100, "height": 440}]


def test_numbers_that_are_none_count_as_nothing() -> None:
    modules = [
        module("a", "p", float("nan"), float("inf"), 0),
        module("b", "p", -1, -1, 7),
        module("c", "p", 1, 1, 0),
    ]

    drawing, _ = flame("x", modules, Palette([], []))

    assert [box["width"] for box in rectangles(drawing, "flame")] == [100]


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0 kB"), (51_200, "51 kB"), (7_240_000, "7.2 MB"), (262_144_000, "262.1 MB")]
)
def test_sizes_read_as_on_the_terminal(value: int, text: str) -> None:
    from layerbuild.console import readable_size

    assert size(value) == readable_size(value) == text


def test_times_are_milliseconds() -> None:
    assert milliseconds(0.0123) == "12.3 ms"
    assert milliseconds(12.3456) == "12,345.6 ms"


def test_a_label_has_a_shorter_form_for_narrow_drawings() -> None:
    modules = [module("top", None, 0.9, 1.0, 0), module("top.of.long.name", None, 0.15, 0.15, 1)]

    drawing, _ = flame("x", modules, Palette([], []))

    # A seventh of the narrowest drawing has room for 5 letters, one of a wide drawing for all 16.
    assert re.findall(r'<text class="([^"]*)"[^>]*>([^<]*)<', drawing)[1:] == [
        ("u4 l0", "\u2026name"),
        ("l4", "top.of.long.name"),
    ]
