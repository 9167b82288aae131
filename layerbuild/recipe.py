"""Recipes: what a person writes to say what a layer holds. TOML in, frozen `Recipe` out, strictly."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from layerbuild.build_settings import BUILD_KEYS, BuildSettings, read_build_settings
from layerbuild.errors import SourceLine, UsageError, nearest, shown_path
from layerbuild.requirements import normal_requirement, read_requirements_file
from layerbuild.target import Target, default_targets, select_targets
from layerbuild.toml_reader import TomlReader

RECIPE_FILE = "recipe.toml"
BUILDERS = ("auto", "host", "container")
LAYOUTS = ("versioned", "shared")
BYTECODE_MODES = ("off", "imports", "all")
SMOKE_SCRIPT = "smoke.py"

# The name becomes part of a layer's name, "{recipe}-{python}-{arch}", for which Lambda allows
# [a-zA-Z0-9-_]{1,140}; "-python3XX-x86_64" takes 18 of them.
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_-]{0,119}")
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(B|kB|MB|KiB|MiB)")
_LARGEST_SIZE = 2**63
_UNITS = {"B": 1, "kB": 1000, "MB": 1000**2, "KiB": 1024, "MiB": 1024**2}


@dataclass(frozen=True, kw_only=True, slots=True)
class Accept:
    """A finding that the recipe's author accepts: its code, and why it is all right; perhaps of one package only."""

    code: str
    reason: str
    package: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prune:
    """What to leave out: named sets and gitignore-style patterns over paths below site-packages."""

    sets: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Bytecode:
    """What is compiled ahead: ``off``, ``imports`` (what these load) or ``all``; and whether it has to be.

    `growth` is by how many percent ``imports`` may make the zip larger.
    """

    mode: str = "off"
    required: bool = False
    growth: int = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """One recipe.

    Attributes:
        requirements: PEP 508 requirements, each in normal form.
        constraints: PEP 508 requirements that restrict versions without asking for a package.
        targets: what is built when the command line names no target.
        imports: modules that have to import, which is tried before the layer is written.
        size_budget: greatest unzipped size in bytes, or None.
        folder: where the recipe lies, with its locks in ``locks/``; None for a requirements file.
        shipped: whether the recipe came with layerbuild itself, so that its folder is not the user's.
        source: the file that it was read from, if that is the user's.
        given_lock: text of a requirements file that is pinned and hashed throughout, hence a lock already.
    """

    name: str
    requirements: tuple[str, ...]
    summary: str = ""
    homepage: str = ""
    licence: str = ""
    constraints: tuple[str, ...] = ()
    targets: tuple[Target, ...] = field(default_factory=default_targets)
    builder: str = "auto"
    layout: str = "versioned"
    scripts: bool = False
    imports: tuple[str, ...] = ()
    bytecode: Bytecode = Bytecode()
    prune: Prune = Prune()
    size_budget: int | None = None
    accept: tuple[Accept, ...] = ()
    build: BuildSettings = field(default_factory=BuildSettings)
    folder: Path | None = None
    shipped: bool = False
    source: Path | None = field(default=None, compare=False)
    given_lock: str | None = None

    def smoke_script(self) -> bytes | None:
        """The content of ``smoke.py`` beside the recipe; None without one."""
        path = self.folder / SMOKE_SCRIPT if self.folder else None
        return path.read_bytes() if path and path.is_file() else None

    @property
    def origin(self) -> str:
        """The file that a lock says its packages come from."""
        return RECIPE_FILE if self.folder else "requirements.txt"


def check_name(name: str) -> str | None:
    """What is wrong with a recipe's name, or None."""
    if _NAME.fullmatch(name):
        return None
    return (
        f"{name!r} cannot name a layer: Lambda allows letters, digits, '-' and '_', "
        "and layerbuild 120 of them, beginning with a letter or digit"
    )


def _module_name(text: str) -> str:
    if not all(part.isidentifier() for part in text.split(".")):
        raise ValueError(f"{text!r} is not the name of a module")
    return text


_KEYS = (
    "name",
    "summary",
    "homepage",
    "licence",
    "requirements",
    "constraints",
    "targets",
    "builder",
    "layout",
    "scripts",
    "imports",
    "bytecode",
    "size-budget",
    "prune",
    "accept",
)


def parse_recipe(text: str, *, folder: Path, shipped: bool = False) -> Recipe:
    """Reads one ``recipe.toml``.

    Args:
        text: the file's content.
        folder: where it lies; the folder's name must be the recipe's.
        shipped: whether it came with layerbuild.

    Raises:
        UsageError: with every problem of the file, each with its line.
    """
    path = folder / RECIPE_FILE
    try:
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        line = re.search(r"\(at line (\d+)", str(error))
        lines = [SourceLine(path=path, number=int(line[1]) if line else 1)]
        raise UsageError(
            "recipe-not-toml", f"{shown_path(path)} is not TOML", causes=[str(error)], lines=lines
        ) from None
    reader = TomlReader(text)
    reader.known(data, (*_KEYS, *BUILD_KEYS))
    if "license" in data:
        reader.complain("license", "the key is spelt licence")
    recipe = Recipe(
        name=_read_name(reader, data, folder),
        summary=reader.get(data, "summary", str, ""),
        homepage=reader.get(data, "homepage", str, ""),
        licence=reader.get(data, "licence", str, ""),
        requirements=_read_requirements(reader, data),
        constraints=reader.checked("constraints", reader.strings(data, "constraints"), normal_requirement),
        targets=_read_targets(reader, data),
        builder=reader.choice(data, "builder", BUILDERS),
        layout=reader.choice(data, "layout", LAYOUTS),
        scripts=reader.get(data, "scripts", bool, False),
        imports=reader.checked("imports", reader.strings(data, "imports"), _module_name),
        bytecode=_read_bytecode(reader, data),
        prune=_read_prune(reader, data),
        size_budget=_read_size(reader, data),
        accept=_read_accept(reader, data),
        build=read_build_settings(reader, data),
        folder=folder,
        shipped=shipped,
        source=None if shipped else path,
    )
    if reader.problems:
        problems = sorted(set(reader.problems))
        raise UsageError(
            "recipe-invalid",
            f"{shown_path(path)} is not a valid recipe",
            causes=[f"line {line}: {message}" for line, message in problems],
            hint="docs/recipes.md describes every key",
            lines=[SourceLine(path=path, number=line, message=message) for line, message in problems],
        )
    return recipe


def _read_name(reader: TomlReader, data: dict[str, Any], folder: Path) -> str:
    name: str = reader.get(data, "name", str, "")
    if not name:
        reader.complain("name", "name is missing")
    elif problem := check_name(name):
        reader.complain("name", problem)
    elif name != folder.name:
        reader.complain("name", f"name is {name!r}, but the recipe's folder is {folder.name!r}")
    return name


def _read_requirements(reader: TomlReader, data: dict[str, Any]) -> tuple[str, ...]:
    strings = reader.strings(data, "requirements")
    if not strings and not data.get("files"):
        reader.complain("requirements", "requirements is missing or empty: a layer needs at least one package")
    return reader.checked("requirements", strings, normal_requirement)


def _read_targets(reader: TomlReader, data: dict[str, Any]) -> tuple[Target, ...]:
    patterns = reader.strings(data, "targets")
    if not patterns:
        return default_targets()
    try:
        return select_targets(patterns)
    except UsageError as error:
        reader.complain("targets", f"targets: {error.what}: {error.causes[0]}")
        return default_targets()


def _read_bytecode(reader: TomlReader, data: dict[str, Any]) -> Bytecode:
    value = data.get("bytecode", "off")
    if not isinstance(value, dict):
        value = {"mode": reader.choice(data, "bytecode", BYTECODE_MODES)}
    reader.known(value, ("mode", "require", "growth"), table="bytecode")
    if value.get("mode") not in BYTECODE_MODES:
        reader.complain("bytecode", f"bytecode: mode must be one of {', '.join(BYTECODE_MODES)}")
        return Bytecode()
    growth = reader.get(value, "growth", int, 12, table="bytecode")
    if growth < 0:
        reader.complain("bytecode", "bytecode.growth is a number of percent")
    required = reader.get(value, "require", bool, False, table="bytecode")
    return Bytecode(mode=value["mode"], required=required, growth=growth)


def _read_prune(reader: TomlReader, data: dict[str, Any]) -> Prune:
    values = reader.get(data, "prune", dict, {})
    reader.known(values, ("sets", "patterns"), table="prune")
    sets = reader.strings(values, "sets", table="prune")
    for name in sets:
        if name not in prune_sets():
            problem = f"prune.sets: no set {name!r}: {nearest(name, prune_sets())}"
            reader.complain("sets", problem, table="prune")
    return Prune(sets=sets, patterns=reader.strings(values, "patterns", table="prune"))


def _read_size(reader: TomlReader, data: dict[str, Any]) -> int | None:
    value = data.get("size-budget")
    if value is None:
        return None
    if isinstance(value, str) and (match := _SIZE.fullmatch(value)):
        value = int(Decimal(match[1]) * _UNITS[match[2]])
    if type(value) is int and 0 < value < _LARGEST_SIZE:
        return value
    reader.complain("size-budget", f"size-budget must be bytes or a size such as '60 MB', not {value!r}")
    return None


def _read_accept(reader: TomlReader, data: dict[str, Any]) -> tuple[Accept, ...]:
    accepted = []
    for nth, row in enumerate(reader.get(data, "accept", list, [])):
        if not isinstance(row, dict):
            reader.complain("accept", "accept must be tables: [[accept]]")
            continue
        reader.known(row, ("code", "reason", "package"), table="accept", nth=nth)
        code = reader.get(row, "code", str, "", table="accept", nth=nth)
        reason = reader.get(row, "reason", str, "", table="accept", nth=nth)
        if not code or not reason.strip():
            reader.complain("accept", "each [[accept]] needs a code and a reason", table="accept", nth=nth)
        package = reader.get(row, "package", str, "", table="accept", nth=nth)
        accepted.append(Accept(code=code, reason=reason, package=package))
    return tuple(accepted)


@cache
def prune_sets() -> dict[str, tuple[str, ...]]:
    """The named sets of ``prune.toml``: name to gitignore-style patterns."""
    data = tomllib.loads(files("layerbuild").joinpath("prune.toml").read_text("utf-8"))
    return {name: tuple(row["patterns"]) for name, row in data["sets"].items()}


def shipped_folder() -> Path:
    """The recipes that came with layerbuild: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parent
    installed = package / "recipes"
    return installed if installed.is_dir() else package.parent / "recipes"


def recipe_folders(project: Path) -> dict[str, tuple[Path, bool]]:
    """Every recipe in sight: name to (folder, shipped). Those of `project` win over shipped ones."""
    found: dict[str, tuple[Path, bool]] = {}
    shipped = shipped_folder()
    for root in (shipped, project / "recipes"):
        if root.is_dir():
            for path in sorted(root.glob(f"*/{RECIPE_FILE}")):
                found[path.parent.name] = (path.parent, root is shipped)
    return dict(sorted(found.items()))


def recipe_of_requirements(path: Path, name: str) -> Recipe:
    """A recipe out of a requirements file, for `layerbuild make -r`.

    A file that pins and hashes everything (by pip-compile or `uv export`) is taken as the lock itself.

    Raises:
        UsageError: the name cannot name a layer, or the file cannot be read as requirements.
    """
    if problem := check_name(name):
        raise UsageError("bad-layer-name", problem, hint="choose another --name")
    entries, constraints = read_requirements_file(path)
    requirements = tuple(entry.requirement for entry in entries)
    given = all(entry.hashes for entry in entries)
    return Recipe(
        name=name,
        requirements=requirements,
        constraints=constraints,
        source=path,
        given_lock="\n".join(entry.line for entry in entries) if given else None,
    )


def load_recipe(name: str, project: Path) -> Recipe:
    """Finds and reads the recipe `name`, in `project`/recipes or among the shipped ones.

    Raises:
        UsageError: there is none of that name, or it is invalid or unreadable.
    """
    found = recipe_folders(project)
    if name not in found:
        raise UsageError(
            "unknown-recipe",
            f"there is no recipe {name!r}",
            causes=[nearest(name, found)],
            hint=f"`layerbuild recipes` lists them; `layerbuild new {name}` writes one",
        )
    folder, shipped = found[name]
    path = folder / RECIPE_FILE
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError("recipe-not-toml", f"{shown_path(path)} is not UTF-8 text", causes=[str(error)]) from None
    return parse_recipe(text, folder=folder, shipped=shipped)
