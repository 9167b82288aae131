"""`layerbuild diff`: archives, manifests, locks and folders of them; text, Markdown, JSON."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from layerbuild.diff import Side, as_markdown, compare
from tests.conftest import Ran
from tests.publishing import TARGET, made_layer
from tests.trees import write_zip

Cli = Callable[..., Ran]

PACKAGE = {"type": "object", "required": ["package", "version"], "additionalProperties": False, "properties": {
    "package": {"type": "string"}, "version": {"type": "string"}}}  # fmt: skip
CHANGE = {"type": "object", "required": ["package", "old", "new"], "additionalProperties": False, "properties": {
    "package": {"type": "string"}, "old": {"type": "string"}, "new": {"type": "string"}}}  # fmt: skip
FINDING = {"type": "object", "required": ["severity", "code", "message"], "additionalProperties": False,
    "properties": {name: {"type": "string"} for name in ("severity", "code", "message")}}  # fmt: skip
SIZES = {"type": "array", "minItems": 2, "maxItems": 2, "items": {"type": ["integer", "null"]}}
LAYER = {
    "name": {"type": "string"},
    "status": {"enum": ["added", "removed", "changed", "rebuilt", "same"]},
    "added": {"type": "array", "items": PACKAGE},
    "removed": {"type": "array", "items": PACKAGE},
    "changed": {"type": "array", "items": CHANGE},
    "zipped": SIZES,
    "unzipped": SIZES,
    "new_findings": {"type": "array", "items": FINDING},
    "gone_findings": {"type": "array", "items": FINDING},
}
DOCUMENT = {"type": "object", "required": ["layers"], "additionalProperties": False, "properties": {"layers": {
    "type": "array", "items": {
        "type": "object", "required": list(LAYER), "additionalProperties": False, "properties": LAYER}}}}  # fmt: skip


@pytest.fixture
def two(project: Path) -> Path:
    """``old/dist`` and ``new/dist``: of four layers one is changed, one gone, one added, one the same."""
    sides: dict[str, dict[str, dict[str, str]]] = {
        "old": {"web": {"flask": "3.0", "jinja2": "3.1"}, "gone": {"gone": "1"}, "same": {"same": "2"}},
        "new": {"web": {"flask": "3.1", "werkzeug": "3.0"}, "added": {"added": "1"}, "same": {"same": "2"}},
    }
    for side, layers in sides.items():
        (project / side).mkdir()
        for name, packages in layers.items():
            made_layer(project / side, name, packages=packages, size=5000 if side == "new" and name == "web" else 0)
    return project


def only(found: dict[str, Any], name: str) -> dict[str, Any]:
    (layer,) = [one for one in found["layers"] if one["name"] == name]
    return dict(layer)


def test_folders_are_compared_by_the_names_in_them(two: Path, cli: Cli) -> None:
    found = cli("diff", "old/dist", "new/dist", "--json").json
    jsonschema.validate(found, DOCUMENT)
    assert {one["name"].removesuffix(f"-{TARGET}"): one["status"] for one in found["layers"]} == {
        "added": "added", "gone": "removed", "same": "same", "web": "changed",
    }  # fmt: skip
    web = only(found, f"web-{TARGET}")
    assert web["changed"] == [{"package": "flask", "old": "3.0", "new": "3.1"}]
    assert web["added"] == [{"package": "werkzeug", "version": "3.0"}]
    assert web["removed"] == [{"package": "jinja2", "version": "3.1"}]
    sizes = [Path(f"{side}/dist/web-{TARGET}.zip").stat().st_size for side in ("old", "new")]
    assert web["zipped"] == sizes


def test_the_text_says_what_changed_and_how_many_are_the_same(two: Path, cli: Cli) -> None:
    out = cli("diff", "old/dist", "new/dist").out
    for line in ("flask 3.0 → 3.1", "+ werkzeug 3.0", "- jinja2 3.1", "1 of 4 are the same"):
        assert line in out
    assert f"web-{TARGET}  changed" in out
    assert f"gone-{TARGET}  removed" in out


@pytest.mark.parametrize("suffix", ["zip", "json"])
def test_archives_and_manifests_say_the_same_of_packages_and_sizes(two: Path, cli: Cli, suffix: str) -> None:
    (layer,) = cli("diff", f"old/dist/web-{TARGET}.{suffix}", f"new/dist/web-{TARGET}.{suffix}", "--json").json[
        "layers"
    ]
    (archive,) = cli("diff", f"old/dist/web-{TARGET}.zip", f"new/dist/web-{TARGET}.zip", "--json").json["layers"]
    for key in ("name", "status", "added", "removed", "changed", "zipped", "unzipped"):
        assert layer[key] == archive[key]


def test_locks_are_compared_for_their_target(project: Path, cli: Cli) -> None:
    digest = "0" * 64
    for folder, version in (("a", "1.0"), ("b", "2.0")):
        Path(folder).mkdir()
        Path(folder, f"{TARGET}.txt").write_text(
            f'web=={version} --hash=sha256:{digest}\nold==1 ; python_version < "3.12" --hash=sha256:{digest}\n'
        )
    (layer,) = cli("diff", f"a/{TARGET}.txt", f"b/{TARGET}.txt", "--json").json["layers"]
    assert (layer["changed"], layer["added"]) == ([{"package": "web", "old": "1.0", "new": "2.0"}], [])
    shutil.move(f"a/{TARGET}.txt", "a/lock.txt")
    assert cli("diff", "a/lock.txt", f"b/{TARGET}.txt").code == 2
    assert cli("diff", "a/lock.txt", f"b/{TARGET}.txt", "--target", TARGET).code == 0


def test_findings_that_are_new_and_gone_are_told(project: Path, cli: Cli) -> None:
    site = "python/lib/python3.13/site-packages"
    write_zip(Path("old.zip"), {f"{site}/demo.py": "x = 1\n", f"{site}/typing.py": "x = 1\n"})
    write_zip(Path("new.zip"), {f"{site}/demo.py": "x = 1\n", f"{site}/asyncio.py": "x = 1\n"})
    (layer,) = cli("diff", "old.zip", "new.zip", "--json").json["layers"]
    told = {key: [one["message"] for one in layer[key]] for key in ("gone_findings", "new_findings")}
    assert any(text.startswith("typing.py:") for text in told["gone_findings"])
    assert any(text.startswith("asyncio.py:") for text in told["new_findings"])
    assert not set(told["gone_findings"]) & set(told["new_findings"])
    assert layer["status"] == "rebuilt"


def test_the_exit_code_says_whether_they_differ_when_asked(two: Path, cli: Cli) -> None:
    assert cli("diff", "old/dist", "new/dist", "--exit-code").code == 1
    assert cli("diff", "old/dist", "new/dist").code == 0
    assert cli("diff", "old/dist", "old/dist", "--exit-code").code == 0


def test_markdown_is_a_table_whatever_packages_are_called() -> None:
    hostile = {"a|b": "<img src=x onerror=alert(1)>", "[x](http://example.invalid)": "`1`\n# head", "@everyone": "1"}
    text = as_markdown([compare("web", Side(packages={}), Side(packages=hostile))], str)
    rows = [line for line in text.splitlines() if line.startswith("| web")]
    assert len(rows) == 1
    assert not re.search(r"(?<!\\)[<@`\[]", text)
    # Four cells, hence five bars that are not escaped.
    assert len(re.findall(r"(?<!\\)\|", rows[0])) == 5


def test_the_markdown_of_folders_has_a_row_for_each_layer_that_changed(two: Path, cli: Cli) -> None:
    lines = cli("diff", "old/dist", "new/dist", "--format", "markdown").out.splitlines()
    assert lines[0] == "4 layers: 1 added, 1 removed, 1 changed, 1 same"
    assert sum(line.startswith("| ") for line in lines) == 4
    assert any("flask 3.0 → 3.1" in line and "%)" in line for line in lines)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("none.zip", "old"), "there is no none.zip"),
        (("old", "old/dist/same.zip"), "there is no"),
        (("old", "file.zip"), "not of one kind"),
        (("empty", "empty"), "no archive, manifest or lock"),
        (("file.json", "file.json"), "not the manifest"),
    ],
)
def test_what_cannot_be_compared_is_told(two: Path, cli: Cli, arguments: tuple[str, ...], words: str) -> None:
    Path("empty").mkdir()
    Path("file.zip").write_bytes(b"")
    Path("file.json").write_text(json.dumps({"version": 1}))
    ran = cli("diff", *arguments)
    assert ran.code == 2
    assert words in ran.err
