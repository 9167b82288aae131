"""What docs/architecture.md promises about the code."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "layerbuild"
MODULES = sorted(PACKAGE.rglob("*.py"))
# Programs of their own, inside containers and other sandboxes, or of another Python.
INSIDE = [
    PACKAGE / "builders" / "context" / "inside.py",
    PACKAGE / "bytecode_compiler.py",
    *(PACKAGE / "sandbox" / "guest").glob("*.py"),
]

# Each imports only from those before it.
ORDER = """
errors process requirements target libraries toml_reader build_settings recipe lock cache shared_cache interpreters
pip_settings index zips elf content wheel scaffold github builders diagnose resolve locking layer bytecode_compiler
bytecode archive tree modules checks stack sandbox proof report diff matrix catalogue publish pipeline console cli
__main__
""".split()


def rank(module: str) -> int:
    return ORDER.index(module.split(".")[1])


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("layerbuild."):
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("layerbuild.")}
    return found


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_run_one_way(path: Path) -> None:
    name = module_name(path)
    if name == "layerbuild":
        return
    wrong = {found for found in imports_of(path) if rank(found) > rank(name)}
    assert wrong == set()


def imported(path: Path) -> set[str]:
    """All that a module imports, wherever in it: modules, and what is taken from them."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


@pytest.mark.parametrize(
    ("library", "allowed"),
    [
        ("docker", {f"layerbuild.builders.{name}" for name in ("engine", "engine_errors", "running")}),
        ("boto3", {"layerbuild.publish.aws"}),
    ],
)
def test_what_lies_outside_is_spoken_to_in_one_place(library: str, allowed: set[str]) -> None:
    users = {
        module_name(path) for path in MODULES if any(f"{name}.".startswith(f"{library}.") for name in imported(path))
    }
    assert users == allowed


def test_programs_inside_sandboxes_and_layerbuild_do_not_import_each_other() -> None:
    assert not {name for path in INSIDE for name in imported(path) if name.startswith("layerbuild")}
    apart = ("builders.context", "sandbox.guest.", "bytecode_compiler")
    assert not {name for path in MODULES for name in imported(path) if any(one in name for one in apart)}


def calls(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            found.add(ast.unparse(node.func))
    return found


@pytest.mark.parametrize("path", [path for path in MODULES if path not in INSIDE], ids=module_name)
def test_only_console_prints_and_only_main_exits(path: Path) -> None:
    name = module_name(path)
    made = calls(path)
    assert not made & {"print", "click.echo", "click.secho"}
    if name != "layerbuild.console":
        assert not made & {"sys.stdout.write", "sys.stderr.write"}
    if name != "layerbuild.__main__":
        assert not made & {"sys.exit", "exit", "os._exit", "ctx.exit"}


def test_modules_stay_small() -> None:
    long = {module_name(path): count for path in MODULES if (count := len(path.read_text().splitlines())) > 400}
    assert long == {}


@pytest.mark.parametrize("arguments", [["--help"], ["make", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom layerbuild.cli import run\n"
        f"run({arguments!r})\n"
        "heavy = {'rich', 'elftools', 'requests', 'packaging', 'pathspec', 'platformdirs', 'uv', 'boto3', 'docker'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
