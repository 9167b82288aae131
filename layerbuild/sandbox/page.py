"""The page that ``layerbuild profile --html`` writes: what layers weigh and how long their modules take to import.

The page is one file that loads nothing and runs nothing. Names in it come from archives: all are escaped.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerbuild.sandbox.charts import bar, flame, treemap, types_of
from layerbuild.sandbox.markup import (
    NOTHING,
    amount,
    counted,
    escaped,
    milliseconds,
    number_of_milliseconds,
    share,
    shown,
    size,
    table,
)
from layerbuild.sandbox.palette import Palette

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_HEAVIEST = 30
_TYPE_NAMES = {"data": "Data", "so": "Libraries", "py": "Source", "pyc": "Bytecode"}
_MIB = 1024 * 1024


def profile_page(profile: Mapping[str, Any]) -> str:
    """A profile as an HTML page. The same profile gives the same page.

    Args:
        profile: the document that ``layerbuild profile --json`` prints.
    """
    palette = Palette(profile["sizes"], profile["packages"])
    style = Path(__file__).with_name("page.css").read_text("utf-8")
    title = f"Profile of {counted(len(profile['layers']), 'layer')} for {escaped(profile['target'])}"
    sections = (
        _head(title, profile),
        _section("Size against Lambda&rsquo;s limits", _limits(profile)),
        _section("Size by package", _sizes(profile["sizes"], palette)),
        _section("Import time", _imports(profile["imports"], palette)),
        _section("Import time by package", _packages(profile["packages"], palette)),
        _section("Heaviest modules", _modules(profile["imports"], palette)),
    )
    return f"""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<main>
{"".join(sections)}</main>
</body>
</html>
"""


def _head(title: str, profile: Mapping[str, Any]) -> str:
    names = ", ".join(f"<b>{escaped(layer['name'])}</b>" for layer in profile["layers"]) or "none"
    facts = {
        "Layers": names,
        "Target": escaped(profile["target"]),
        "Python": escaped(profile["interpreter"]),
        "Runs": f"{int(profile['runs'])} of each import",
        "Backend": escaped(profile["backend"]),
        "Made by": f"layerbuild {escaped(profile['layerbuild'])}",
    }
    listed = "\n".join(f"<div><dt>{name}</dt><dd>{text}</dd></div>" for name, text in facts.items())
    return f"<header>\n<h1>{title}</h1>\n<dl>\n{listed}\n</dl>\n</header>\n"


def _section(title: str, parts: Iterable[str]) -> str:
    content = "\n".join(parts)
    return f"<section>\n<h2>{title}</h2>\n{content}\n</section>\n"


def _limits(profile: Mapping[str, Any]) -> Iterator[str]:
    layers, limits = profile["layers"], profile["limits"]
    if not layers:
        yield "<p>There are no layers.</p>"
        return
    zipped, unzipped = amount(limits["zipped"]), amount(limits["unzipped"])
    mib = f"{zipped / _MIB:,.0f} MiB"
    yield f"<h3>Zipped</h3>\n<p>A request to publish a layer holds at most {mib} ({size(zipped)}).</p>"
    zips = [layer for layer in layers if layer["zipped"] is not None]
    yield _bars((layer["name"], [(shown(layer["name"]), amount(layer["zipped"]))], zipped) for layer in zips)
    yield (
        "<h3>Unzipped</h3>\n<p>A function and all of its layers have at most "
        f"{unzipped:,.0f} bytes ({size(unzipped)}).</p>"
    )
    parts = [(shown(layer["name"]), amount(layer["unzipped"])) for layer in layers]
    yield _bars([("All layers together", parts, unzipped)])
    if len(parts) > 1:
        each = ", ".join(f"{escaped(name)} {size(value)}" for name, value in parts)
        yield f'<p class="parts">In this order: {each}.</p>'
    budgets = [layer for layer in layers if layer.get("budget")]
    if budgets:
        yield "<h3>Unzipped, against the budgets of recipes</h3>"
        yield _bars(
            (one["name"], [(shown(one["name"]), amount(one["unzipped"]))], amount(one["budget"])) for one in budgets
        )


def _bars(rows: Iterable[tuple[object, Sequence[tuple[str, float]], float]]) -> str:
    """A list of bars, each with its name, its size and its share of a limit."""
    items = []
    for name, parts, limit in rows:
        total = sum(value for _, value in parts)
        numbers = f"<b>{size(total)}</b> of {size(limit)}, {share(total, limit)}"
        if total > limit:
            numbers += f' <strong class="warn">{size(total - limit)} over</strong>'
        drawing = bar(f"{shown(name)}: {size(total)} of {size(limit)}", parts, limit)
        line = f'<span>{escaped(name)}</span><span class="figures">{numbers}</span>'
        items.append(f'<li><div class="line">{line}</div>{drawing}</li>')
    return '<ul class="bars">\n' + "\n".join(items) + "\n</ul>"


def _sizes(sizes: Sequence[Mapping[str, Any]], palette: Palette) -> Iterator[str]:
    rows = []
    total = 0.0
    for package in sizes:
        types = types_of(package)
        whole = sum(types.values())
        total += whole
        rows.append((-whole, str(package["package"]), package, types))
    if not rows:
        yield "<p>There are no packages.</p>"
        return
    if total:
        yield (
            f'<figure><div class="chart">\n{treemap(sizes, palette)}\n</div>\n'
            "<figcaption>Areas are bytes, unzipped. Each package is divided into its data, compiled libraries (so), "
            "source (py) and bytecode (pyc), from strong to pale.</figcaption></figure>"
        )
    columns = ("Package", "Version", *_TYPE_NAMES.values(), "Total", "Share")
    yield table(
        "Unzipped sizes by package",
        columns,
        (
            (
                _marked(package["package"], palette),
                escaped(package["version"]) if package.get("version") else NOTHING,
                *(
                    size(types[kind]) if types[kind] else f'<span class="none">{NOTHING}</span>'
                    for kind in _TYPE_NAMES
                ),
                f"<b>{size(-negative)}</b>",
                share(-negative, total),
            )
            for negative, _, package, types in sorted(rows, key=lambda row: row[:2])
        ),
        words=("Version",),
    )


def _imports(imports: Sequence[Mapping[str, Any]], palette: Palette) -> Iterator[str]:
    if not imports:
        yield "<p>No import was measured.</p>"
        return
    yield table(
        "Time of each import, in milliseconds",
        ("Import", "Time", "Without bytecode", "Bytecode saves", "Modules", "Compiled from source"),
        (
            (
                f"<code>{escaped(one['name'])}</code>",
                f"<b>{number_of_milliseconds(one['seconds'])}</b>",
                number_of_milliseconds(one["without_bytecode"]),
                _saved(one),
                f"{len(one['modules']):,}",
                f"{sum(bool(module['compiled']) for module in one['modules']):,}",
            )
            for one in imports
        ),
    )
    for one in imports:
        yield f"<h3><code>import {escaped(one['name'])}</code></h3>"
        if not any(amount(module["cumulative"]) for module in one["modules"]):
            yield "<p>Its modules took no time that can be shown.</p>"
            continue
        modules = counted(len(one["modules"]), "module")
        title = (
            f"import {shown(one['name'])}: {milliseconds(one['seconds'])} in {modules}; "
            "the tables below have the numbers"
        )
        drawing, colours = flame(title, one["modules"], palette)
        keys = "".join(
            f'<li class="of"><span class="key {colour}"></span>{escaped(palette.meaning(colour))}</li>'
            for colour in colours
        )
        yield (
            f'<figure><div class="chart">\n{drawing}\n</div>\n<figcaption>Widths are time; what a module imports is '
            f'below it.\n<ul class="keys">{keys}</ul></figcaption></figure>'
        )


def _packages(packages: Sequence[Mapping[str, Any]], palette: Palette) -> Iterator[str]:
    if not packages:
        yield "<p>No import was measured.</p>"
        return
    total = sum(amount(one["seconds"]) for one in packages)
    yield table(
        "Time in the modules of each package, in milliseconds",
        ("Package", "Modules", "Time", "Share", "Without bytecode", "Bytecode saves"),
        (
            (
                _marked(one["package"], palette),
                f"{int(one['modules']):,}",
                f"<b>{number_of_milliseconds(one['seconds'])}</b>",
                share(amount(one["seconds"]), total),
                number_of_milliseconds(one["without_bytecode"]),
                _saved(one),
            )
            for one in sorted(packages, key=lambda one: (-amount(one["seconds"]), str(one["package"])))
        ),
    )


def _modules(imports: Sequence[Mapping[str, Any]], palette: Palette) -> Iterator[str]:
    found = [(one, module) for one in imports for module in one["modules"]]
    if not found:
        yield "<p>No import was measured.</p>"
        return
    found.sort(key=lambda pair: (-amount(pair[1]["self"]), str(pair[1]["name"]), str(pair[0]["name"])))
    heaviest = found[:_HEAVIEST]
    which = f"The {len(heaviest)} of {len(found):,} modules that take longest themselves"
    yield table(
        f"{which if len(found) > len(heaviest) else 'All modules'}, in milliseconds",
        ("Module", "Itself", "With its imports", "Package", "Import", "Compiled at import"),
        (
            (
                f"<code>{escaped(module['name']).replace('.', '.<wbr>')}</code>",
                f"<b>{number_of_milliseconds(module['self'])}</b>",
                number_of_milliseconds(module["cumulative"]),
                _marked(module["package"], palette),
                f"<code>{escaped(one['name'])}</code>",
                "yes" if module["compiled"] else "no",
            )
            for one, module in heaviest
        ),
        words=("Package", "Import", "Compiled at import"),
    )


def _marked(package: str | None, palette: Palette) -> str:
    """A package's name with its colour."""
    return f'<span class="of"><span class="key {palette.of(package)}"></span>{escaped(palette.name(package))}</span>'


def _saved(one: Mapping[str, Any]) -> str:
    """How many milliseconds valid bytecode saves; a dash where that was not measured."""
    if one["without_bytecode"] is None:
        return NOTHING
    saved = (amount(one["without_bytecode"]) - amount(one["seconds"])) * 1000
    return f"{saved:,.1f}".replace("-", "\u2212")
