"""New recipes, out of what one of a package's wheels says; what else belongs to a repository of recipes."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from layerbuild.wheel import Wheel


def new_recipe_text(name: str, wheel: Wheel | None) -> str:
    """A commented ``recipe.toml`` for the package `name`.

    Args:
        name: of the package and the recipe.
        wheel: one of its wheels, to tell summary, licence and modules from; None when it has none that fits.
    """
    modules = [name for name in (top_modules(wheel) if wheel else [normal_module(name)]) if not name[0].isdigit()]
    text = f"""\
name = {_toml(name)}
summary = {_toml(wheel.summary if wheel else "")}
homepage = {_toml(wheel.homepage if wheel else "")}
licence = {_toml(wheel.licence if wheel else "")}

# What the layer is to hold, as pip understands it (PEP 508); `layerbuild lock` pins it for each target.
requirements = [{_toml(name)}]

# What must import for the layer to be good.
imports = [{", ".join(map(_toml, modules))}]
# What these load is compiled ahead, which Lambda would do again at each cold start.
bytecode = "imports"

# Only these targets; by default every runtime that AWS has not deprecated, on both architectures.
# targets = ["python3.13-*"]

# "shared" makes one layer for all runtimes, out of packages without compiled parts.
# layout = "shared"

# Put the packages' commands into bin/, which is on Lambda's PATH.
# scripts = true

# Fail when the layer outgrows this, unzipped; Lambda's own limit is 262,144,000 bytes.
# size-budget = "60 MB"

# What to leave out: named sets (tests, stubs, docs, headers) and patterns as in .gitignore,
# relative to site-packages.
# [prune]
# sets = ["tests"]
# patterns = ["botocore/data/ec2/"]
"""
    if wheel is None:
        text += "\n# No wheel of it runs on Lambda: it is to be built from source.\n"
        text = text.replace(
            "# Only these targets",
            '# It has no wheel for Lambda.\nbuilder = "container"\n\n# Only these targets',
        )
    return text


def normal_module(name: str) -> str:
    """The module that a package of this name most likely has."""
    return re.sub(r"\W", "_", name.lower())


def top_modules(wheel: Wheel) -> list[str]:
    """The modules that a wheel puts at the top of site-packages: public ones, or else all."""
    paths = [
        member.path for member in wheel.members if member.path.split("/")[0] not in (wheel.dist_info, wheel.data)
    ]
    packages = {path.rpartition("/")[0] for path in paths if path.endswith("/__init__.py")}
    # Namespace packages have no __init__.py: what lies in them is to be imported.
    outermost = [package for package in packages if not any(package.startswith(f"{other}/") for other in packages)]
    modules = [path.split(".")[0] for path in paths if "/" not in path and path.endswith((".py", ".so"))]
    names = sorted({name.replace("/", ".") for name in (*outermost, *modules)})
    names = [name for name in names if all(part.isidentifier() for part in name.split("."))]
    return [name for name in names if not name.startswith("_")] or names or [normal_module(wheel.name)]


def _toml(text: str) -> str:
    """A TOML basic string; JSON's escapes are a subset of TOML's."""
    return json.dumps(" ".join(text.split()), ensure_ascii=False).replace("\x7f", "\\u007F")


# The action, as a workflow names it while nobody has said who owns it.
DEFAULT_USES = "OWNER/layerbuild@v1"
_USES = re.compile(r"\./[\w./-]*|[\w.-]+/[\w.-]+(/[\w.-]+)*@(?P<revision>[\w./-]+)", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
# Where each template goes; the latter two only with GitHub Actions.
_PLACES = {"layerbuild.toml": "layerbuild.toml", "gitignore": ".gitignore"}
_WORKFLOWS = {name: f".github/workflows/{name}" for name in ("layers.yml", "update-locks.yml")}


def names_action(uses: str) -> bool:
    """Whether a workflow could name an action so: ``owner/name@revision``, or a path in its own repository."""
    return _USES.fullmatch(uses) is not None


def project_files(uses: str | None) -> dict[str, str]:
    """The files of a repository of recipes, but for the recipes: path to text.

    Args:
        uses: by what name workflows call the action; None where there are to be no workflows.
    """
    from importlib.resources import files

    templates = files("layerbuild") / "templates"
    places = _PLACES | (_WORKFLOWS if uses else {})
    found = {path: (templates / name).read_text("utf-8") for name, path in places.items()}
    if uses is None:
        return found
    match = _USES.fullmatch(uses)
    pinned = uses.startswith("./") or (match is not None and _COMMIT.fullmatch(match["revision"]) is not None)
    # zizmor, which looks for unsafe workflows, rightly minds a revision that can move.
    comment = "" if pinned else " # zizmor: ignore[unpinned-uses] it moves with releases; a commit would not"
    return {path: text.replace("@USES@", uses + comment) for path, text in found.items()}
