"""The summary of a job, made by real runs and rendered as GitHub does, in a real browser."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from tests.browser import browser, needs_chromium  # noqa: F401 - a fixture
from tests.elf_files import library
from tests.integration.test_faults import FOREIGN_ARCH
from tests.jobs import Job, job_fixture  # noqa: F401 - a fixture
from tests.publishing import Shop, fake_credentials, moto_fixture, shop_fixture  # noqa: F401 - some are fixtures
from tests.wheels import make_wheel

pytestmark = needs_chromium

TARGET = f"python3.13-{FOREIGN_ARCH}"
MACHINE = "aarch64" if FOREIGN_ARCH == "arm64" else "x86_64"
WIDTHS = (900, 400)
# Names that are more than text in Markdown, or in the HTML that GitHub lets through.
HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "</td></tr></table><h1>big</h1>",
    "a | b | c",
    "**bold** _it_ ~~no~~ `code` ``x",
    "[link](https://example.invalid/a)",
    "![](https://example.invalid/b.png)",
    "<https://example.invalid/c>",
    "https://example.invalid/d",
    "two\n\n# heading\n- item\n\n```\nfence",
    "&lt;entity&gt; &#x41;",
    "<!-- hidden",
    "<details><summary>x",
    "back\\slash\\|",
    "wide" * 50,
)

# As GitHub's own style sheet has it, where that decides what fits.
_PAGE = """<!DOCTYPE html><meta charset="utf-8"><title>Summary</title><style>
body {{ margin: 0; padding: 16px; font: 14px/1.5 -apple-system, "Segoe UI", "Noto Sans", Helvetica, sans-serif;
  overflow-wrap: break-word; color: #1f2328; background: #fff; }}
h3 {{ font-size: 1.25em; margin: 24px 0 16px; }}
table {{ display: block; width: max-content; max-width: 100%; overflow: auto; border-collapse: collapse;
  margin: 0 0 16px; }}
th, td {{ padding: 6px 13px; border: 1px solid #d1d9e0; }}
tr:nth-child(2n) {{ background: #f6f8fa; }}
code {{ padding: .2em .4em; font: 85% ui-monospace, "Liberation Mono", monospace; white-space: break-spaces;
  background: #818b981f; border-radius: 6px; }}
ul {{ padding-left: 2em; }}
</style><body>{body}</body>"""

_TABLES = """() => [...document.querySelectorAll('table')].map(
  table => [...table.rows].map(row => [...row.cells].map(cell => cell.innerText.trim())))"""
_WIDE = """() => [...document.querySelectorAll('body *')].filter(one => !one.closest('table') || one.matches('table'))
  .filter(one => one.getBoundingClientRect().right > innerWidth + 1).map(one => one.outerHTML.slice(0, 200))"""


def opened(browser: Any, markdown: str, path: Path) -> Any:
    """A page with the summary; it must not ask for anything, nor run anything."""
    rendered = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(markdown)
    path.write_text(_PAGE.format(body=rendered), "utf-8")
    page = browser.new_page()
    page.heard = []
    page.on("console", lambda message: page.heard.append(message.text))
    page.on("dialog", lambda dialog: (page.heard.append("a dialog"), dialog.dismiss()))
    page.on("request", lambda request: page.heard.append(request.url))
    page.goto(path.as_uri())
    assert page.heard == [path.as_uri()]
    return page


def fits(page: Any) -> None:
    """Nothing is wider than the window, but for what is in tables, which scroll."""
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(_WIDE) == []


def even_tables(page: Any) -> list[list[list[str]]]:
    """The cells of all tables, each of which has as many in every row as in its head."""
    tables: list[list[list[str]]] = page.evaluate(_TABLES)
    for table in tables:
        assert len({len(row) for row in table}) == 1, table
        assert all(table[0]), "a column without a name"
        assert len(table) > 1, "a table without rows"
    return tables


def summary_of_all(job: Job, shop: Shop) -> str:
    """The summary of a job that makes, checks and publishes, in which some of it fails."""
    native = library(needed=["libGL.so.1", "libX11.so.6"], machine=MACHINE)
    data = {"pretty.py": "x = 1\n" * 6_000_000}
    job.locked("pretty", targets=[TARGET, f"python3.12-{FOREIGN_ARCH}"], files=data)
    job.locked("graphical", targets=[TARGET], files={"graphical/__init__.py": "", "graphical/_gl.so": native})
    make_wheel(job.wheelhouse, "elsewhere", tag="cp313-cp313-win_amd64")
    job.recipe("elsewhere", targets=[TARGET])
    job.locked("tolerant", targets=[TARGET], files={"tolerant/_gl.so": native})
    made = job.action(args="--builder host --jobs 1")
    assert made.code == 3, made.text
    ignoring = job.action(recipes="tolerant", args="--ignore binary")
    assert ignoring.code == 0, ignoring.text
    checked = job.action(command="check")
    assert checked.code == 1
    for name in "pretty", "tolerant":
        shop.make(name, TARGET)
        (job.project / f"dist/{name}-python3.12-{FOREIGN_ARCH}.zip").unlink(missing_ok=True)
    published = job.action(command="publish", recipes="pretty tolerant", regions="eu-west-1 us-east-1")
    assert published.code == 0, published.text
    again = job.action(command="publish", recipes="pretty tolerant", regions="eu-west-1 us-east-1", args="--plan")
    return "\n".join(run.summary for run in (made, ignoring, checked, published, again))


def test_the_summary_of_a_job_is_readable(browser: Any, job: Job, shop: Shop, tmp_path: Path) -> None:
    page = opened(browser, summary_of_all(job, shop), tmp_path / "summary.html")

    tables = even_tables(page)
    assert len(tables) >= 4
    text = page.evaluate("document.body.innerText")
    for part in "make", "check", "publish":
        assert page.locator("h3", has_text=f"layerbuild {part}").count() >= 1
    assert "arn:aws:lambda:us-east-1:" in text
    assert "libGL.so.1" in text
    assert "win_amd64" in text
    for raw in ("**", "###", "|--", "--:", "\\", "](", "`", "&lt;", "&#"):
        assert raw not in text, text
    bars = page.locator("td code", has_text="░").all_inner_texts()
    assert {len(bar) for bar in bars} == {10}
    assert any(bar.startswith("█") for bar in bars), "36 MB of 262 are seen"
    fits(page)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        page.screenshot(path=tmp_path / f"summary-{width}.png", full_page=True)
    page.close()


@pytest.mark.parametrize(
    "command", ["check strange.zip --target python3.13-x86_64", "diff old.zip strange.zip --format markdown"]
)
def test_what_means_harm_stays_text(browser: Any, job: Job, tmp_path: Path, command: str) -> None:
    native = library(needed=["libGL.so.1"])
    with zipfile.ZipFile(job.project / "strange.zip", "w") as archive:
        for place, name in enumerate(HOSTILE):
            archive.writestr(f"python/{name}.so", native)
            metadata = f"Metadata-Version: 2.1\nName: {name.splitlines()[0]}\nVersion: {name.splitlines()[0]}\n"
            archive.writestr(f"python/x{place}-1.dist-info/METADATA", metadata)
    with zipfile.ZipFile(job.project / "old.zip", "w") as archive:
        archive.writestr("python/x.py", "")
    ran = job.script(f"layerbuild {command}")
    assert ran.code in (0, 1), ran.text
    page = opened(browser, ran.summary or "\n".join(ran.log.lines), tmp_path / "summary.html")

    even_tables(page)
    for element in ("img", "script", "h1", "h2", "a", "details", "pre", "del", "em"):
        assert page.locator(f"body {element}").count() == 0, element
    text = page.evaluate("document.body.innerText")
    for name in HOSTILE[:5]:
        assert name in text, name
    fits(page)
    page.close()
