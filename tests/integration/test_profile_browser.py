"""The page about sizes and import times of layers, in a real browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from layerbuild.sandbox.page import profile_page
from tests.browser import browser, needs_chromium  # noqa: F401 - a fixture
from tests.profiles import hostile, large, profile, realistic

pytestmark = needs_chromium

PAGES = {"realistic": realistic, "hostile": hostile, "large": large, "empty": profile}
WIDTHS = (360, 800, 1400)
SCHEMES = ("light", "dark")

# Labels that are seen, with the box that each was drawn after.
_LABELS = """() => [...document.querySelectorAll('svg text')].filter(one => one.getClientRects().length).map(one => {
  let box = one.previousElementSibling;
  while (box.tagName !== 'rect' || box.classList.contains('compiled')) box = box.previousElementSibling;
  const [inner, outer] = [one.getBoundingClientRect(), box.getBoundingClientRect()];
  return {text: one.textContent, inner: inner.toJSON(), outer: outer.toJSON()};
})"""

# The colours of texts, and of what lies behind them: the box before a label, or the page.
_COLOURS = """() => {
  const paper = getComputedStyle(document.documentElement).backgroundColor;
  const found = [];
  const texts = 'h1, h2, p, dt, dd, caption, th, td, figcaption, code, strong, .figures';
  for (const one of document.querySelectorAll(texts))
    found.push({text: getComputedStyle(one).color, behind: paper, opacity: 1, paper});
  for (const one of document.querySelectorAll('svg text')) {
    let box = one.previousElementSibling;
    while (box.tagName !== 'rect' || box.matches('.compiled, .edge')) box = box.previousElementSibling;
    const style = getComputedStyle(box);
    found.push({text: getComputedStyle(one).fill, behind: style.fill, opacity: +style.fillOpacity, paper});
  }
  return found;
}"""


@pytest.fixture(scope="module", params=PAGES.keys())
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(profile_page(PAGES[request.param]()), "utf-8")
    return path


@pytest.fixture
def opened(browser: Any, written: Path) -> Iterator[Any]:
    context = browser.new_context()
    page = context.new_page()
    page.heard = []
    page.on("console", lambda message: page.heard.append(message.text))
    page.on("pageerror", lambda error: page.heard.append(str(error)))
    page.on("request", lambda request: page.heard.append(request.url))
    page.goto(written.as_uri())
    yield page
    assert page.heard == [written.as_uri()]
    context.close()


def _contrast(colours: dict[str, Any]) -> float:
    """The relation of luminances, as WCAG 2 defines it."""
    text, behind, paper = (
        [float(number) for number in re.findall(r"[\d.]+", colours[name])[:3]] for name in ("text", "behind", "paper")
    )
    opacity = colours["opacity"]
    mixed = [over * opacity + under * (1 - opacity) for over, under in zip(behind, paper, strict=True)]
    lighter, darker = sorted((_luminance(text), _luminance(mixed)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: list[float]) -> float:
    parts = [value / 255 for value in colour]
    red, green, blue = (value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_fits_its_window_and_labels_fit_their_boxes(opened: Any, width: int, scheme: str) -> None:
    opened.emulate_media(color_scheme=scheme)
    opened.set_viewport_size({"width": width, "height": 800})

    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    assert _labels_that_overflow(opened) == []


@pytest.mark.parametrize("drawing", [300, 440, 600, 760, 920, 1080])
def test_labels_fit_in_the_narrowest_drawings_that_show_them(opened: Any, drawing: int) -> None:
    margins = 32 if drawing + 32 <= 600 else 48
    opened.set_viewport_size({"width": drawing + margins, "height": 800})

    widths = opened.evaluate("[...document.querySelectorAll('.chart')].map(one => one.clientWidth)")
    assert set(widths) <= {drawing}
    assert _labels_that_overflow(opened) == []


def _labels_that_overflow(page: Any) -> list[str]:
    return [
        label["text"]
        for label in page.evaluate(_LABELS)
        for inner, outer in [(label["inner"], label["outer"])]
        if inner["left"] < outer["left"]
        or inner["right"] > outer["right"]
        or inner["top"] < outer["top"] - 1
        or inner["bottom"] > outer["bottom"] + 1
    ]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_text_can_be_read_in_both_schemes(opened: Any, scheme: str) -> None:
    opened.emulate_media(color_scheme=scheme)

    found = opened.evaluate(_COLOURS)

    assert min(map(_contrast, found)) >= 4.5
    dark = _luminance([float(number) for number in re.findall(r"[\d.]+", found[0]["paper"])[:3]]) < 0.2
    assert dark == (scheme == "dark")


def test_what_scrolls_on_a_screen_is_shown_as_a_whole_in_print(opened: Any) -> None:
    # A4 without the margins.
    opened.set_viewport_size({"width": 688, "height": 1000})
    opened.emulate_media(media="print", color_scheme="dark")

    cut = opened.evaluate(
        "[...document.querySelectorAll('*')].filter(one => one.getBoundingClientRect().right > innerWidth + 1)"
        ".map(one => one.tagName + ' ' + one.textContent.slice(0, 80))"
    )
    assert cut == []
    assert opened.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
    assert min(map(_contrast, opened.evaluate(_COLOURS))) >= 4.5
    assert opened.pdf(format="A4", print_background=True, prefer_css_page_size=True).startswith(b"%PDF")


def test_wide_drawings_have_labels_and_narrow_ones_fewer(browser: Any, tmp_path: Path) -> None:
    page = browser.new_page()
    page.set_content(profile_page(realistic()))
    counts = []
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 800})
        counts.append(len(page.evaluate(_LABELS)))

    assert 0 < counts[0] < counts[1] < counts[2]
