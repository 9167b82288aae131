"""The rules, the documentation of them, and the findings in the code name the same."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import layerbuild
from layerbuild.checks import SEVERITIES, rules
from layerbuild.zips import ZipReader

PACKAGE = Path(layerbuild.__file__).parent
DOCUMENT = PACKAGE.parent / "docs/checks.md"
CODE = re.compile(r"(?:size|zip|binary|contents|target|accept|import|stack)(?:-[a-z0-9]+)+")


def tables() -> list[list[list[str]]]:
    """The Markdown tables of the document: their rows, without the heading."""
    found: list[list[list[str]]] = []
    inside = False
    for line in DOCUMENT.read_text("utf-8").partition("<!-- reality -->")[0].splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")] if line.startswith("|") else []
        if not cells:
            inside = False
        elif not inside:
            inside = True
            found.append([cells])
        elif not set(line) <= set("|-"):
            found[-1].append(cells)
    return found


def strings() -> dict[str, set[str]]:
    """Every string of the source that is, whole, a code of that form: to the files that have it."""
    found: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and CODE.fullmatch(node.value):
                found.setdefault(node.value, set()).add(path.name)
    return found


def given_codes() -> set[str]:
    """What the source gives as the code of a finding: by its name, or as the argument after the tree."""
    found = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.keyword | ast.Assign) and _is_code(node):
                found |= constants(node.value)
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_finding":
                found |= constants(node.args[1])
    return found


def _is_code(node: ast.keyword | ast.Assign) -> bool:
    if isinstance(node, ast.keyword):
        return node.arg == "code"
    return [target.id for target in node.targets if isinstance(target, ast.Name)] == ["code"]


def constants(node: ast.expr) -> set[str]:
    """The strings that an expression can be; those inside an f-string and in conditions are none."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return {node.value}
    if isinstance(node, ast.IfExp):
        return constants(node.body) | constants(node.orelse)
    return set()


def problem_kinds() -> set[str]:
    """What reading a zip or a folder can complain of."""
    found = set()
    for path in (PACKAGE / "zips.py", PACKAGE / "tree.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and node.args:
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                if name in ("Problem", "_whole"):
                    found |= constants(node.args[0])
    return found


def test_the_document_has_every_rule_word_for_word() -> None:
    documented = {}
    for heading, *rows in tables():
        assert heading == ["code", "severity", "finding", "cause", "what to do"]
        for code, *texts in rows:
            assert code not in documented
            documented[code] = texts
    assert documented == {
        f"`{rule.code}`": [rule.severity, rule.summary, rule.cause, rule.fix] for rule in rules().values()
    }
    assert list(documented) == [f"`{code}`" for code in rules()]


def test_the_document_names_no_rule_that_there_is_not() -> None:
    named_codes = set(CODE.findall(re.sub(r"```.*?```", "", DOCUMENT.read_text("utf-8"), flags=re.DOTALL)))
    families = {code.partition("-")[0] for code in rules()}
    assert {code for code in named_codes if code.partition("-")[0] in families} == set(rules())
    examples = re.findall(r'^code = "(.+)"', DOCUMENT.read_text("utf-8"), re.MULTILINE)
    assert set(examples) <= set(rules())


def test_every_finding_in_the_source_is_a_rule_and_every_rule_is_found() -> None:
    from_zips = {f"zip-{kind}" for kind in problem_kinds()}
    assert from_zips <= set(rules())
    used = {code for code in given_codes() if CODE.fullmatch(code)} | from_zips
    assert used == set(rules())
    # No code stands anywhere that is none: in an ignore list, say.
    assert {code for code in strings() if code.partition("-")[0] != "target"} <= set(rules()) | {"zip-safe"}


def test_the_kinds_of_problems_are_those_that_reading_documents() -> None:
    told = set(re.findall(r"``([a-z0-9]+)``", ZipReader.__doc__ or ""))
    assert {"broken", "bomb", "zip64", "prefix"} == told
    assert told <= problem_kinds()


def test_rules_are_written_as_rules_are() -> None:
    for rule in rules().values():
        assert CODE.fullmatch(rule.code)
        assert rule.severity in SEVERITIES
        assert rule.summary.endswith(".")
        assert rule.summary[0].isupper()
        assert rule.cause.endswith(".")
        assert rule.cause[0].isupper()
        assert rule.fix[0].islower()
        assert not rule.fix.endswith(".")
        assert "|" not in rule.summary + rule.cause + rule.fix
