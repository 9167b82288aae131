"""Locks: pins and hashes for one recipe and target, in pip-compile's own format."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from layerbuild.errors import BuildError
from layerbuild.requirements import PLAIN_NAME, PLAIN_PIN, logical_lines, parse_entry

if TYPE_CHECKING:
    from pathlib import Path

    from layerbuild.recipe import Recipe
    from layerbuild.target import Target

_REQUIRES = "# requires: "
_CONSTRAINED = "# constrained: "
_SEPARATORS = re.compile(r"[-_.]+")


def normal_name(name: str) -> str:
    """A distribution's normalised name (PEP 503)."""
    return _SEPARATORS.sub("-", name).lower()


@dataclass(frozen=True, kw_only=True, slots=True)
class Pin:
    """One distribution at one version, with the sha256 (hex) of every file that may serve it."""

    name: str
    version: str
    hashes: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name}=={self.version}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Lock:
    """The pins for one target, sorted by name.

    `inputs` is what the header says the lock was resolved from; None where there is no such header.
    """

    pins: tuple[Pin, ...]
    inputs: tuple[str, ...] | None

    @property
    def digest(self) -> str:
        """``sha256:…`` over the pins and hashes alone: comments and line ends do not count."""
        text = "".join(f"{pin} {' '.join(pin.hashes)}\n" for pin in self.pins)
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def recipe_inputs(recipe: Recipe) -> tuple[str, ...]:
    """The lines of a lock's header that say what it was resolved from."""
    return tuple(
        [_REQUIRES + text for text in sorted(recipe.requirements)]
        + [_CONSTRAINED + text for text in sorted(recipe.constraints)]
    )


def write_lock(recipe: Recipe, target: Target, resolver: str, resolved: str) -> str:
    """The text of a lock file.

    Args:
        recipe: what was resolved.
        target: for which target.
        resolver: the tool and its version.
        resolved: the tool's own output, without a header.
    """
    header = [
        f"# {recipe.name} for {target}, locked by layerbuild with {resolver}.",
        f"# To update: layerbuild lock {recipe.name} --upgrade" if recipe.folder else "#",
        *recipe_inputs(recipe),
    ]
    return "\n".join(header) + "\n" + resolved.strip("\n") + "\n"


def parse_lock(text: str, target: Target, name: str = "lock") -> Lock:
    """Reads a lock, or any requirements file that pins and hashes everything, as `target` sees it.

    Args:
        text: the file's content.
        target: whose marker environment decides which lines hold.
        name: what errors call the file.

    Raises:
        BuildError: a line is not ``name==version`` with sha256 hashes, or a distribution is pinned twice.
    """
    pins: dict[str, Pin] = {}
    problems = []
    for number, line in logical_lines(text):
        try:
            pin = _parse_pin(line, target)
        except ValueError as error:
            problems.append(f"line {number}: {error}")
            continue
        if pin and pins.setdefault(pin.name, pin) != pin:
            problems.append(f"line {number}: {pin.name} is pinned twice")
    if problems:
        raise BuildError(
            "lock-invalid",
            f"{name} is not a valid lock",
            causes=problems,
            hint="`layerbuild lock` writes a new one",
        )
    header = [line.rstrip() for line in text.splitlines() if line.startswith((_REQUIRES, _CONSTRAINED))]
    return Lock(pins=tuple(pins[key] for key in sorted(pins)), inputs=tuple(header) or None)


def _parse_pin(line: str, target: Target) -> Pin | None:
    entry = parse_entry(line)
    if not entry.hashes:
        raise ValueError(f"{entry.requirement} has no --hash")
    hashes = tuple(text.removeprefix("sha256:") for text in entry.hashes if text.startswith("sha256:"))
    if not hashes or not all(re.fullmatch("[0-9a-f]{64}", text) for text in hashes):
        raise ValueError(f"{entry.requirement}: hashes must be sha256:<64 hex digits>")
    if plain := PLAIN_PIN.fullmatch(entry.requirement):
        return Pin(name=normal_name(plain[1]), version=plain[2], hashes=hashes)

    from packaging.requirements import Requirement

    requirement = Requirement(entry.requirement)
    if requirement.marker and not requirement.marker.evaluate(dict(target.marker_environment())):
        return None
    pinned = [spec.version for spec in requirement.specifier if spec.operator in ("==", "===")]
    if len(pinned) != 1 or len(requirement.specifier) != 1 or not _is_version(pinned[0]):
        raise ValueError(f"{entry.requirement} is not pinned with ==")
    return Pin(name=normal_name(requirement.name), version=pinned[0], hashes=hashes)


def _is_version(text: str) -> bool:
    from packaging.version import InvalidVersion, Version

    try:
        Version(text)
    except InvalidVersion:
        return False
    return True


def lock_misfits(lock: Lock, recipe: Recipe, target: Target) -> list[str]:
    """Why a lock no longer fits its recipe, a line each; empty when it fits."""
    problems = []
    inputs = recipe_inputs(recipe)
    if lock.inputs is not None and lock.inputs != inputs:
        gone = [line.partition(": ")[2] for line in lock.inputs if line not in inputs]
        new = [line.partition(": ")[2] for line in inputs if line not in lock.inputs]
        problems += [f"the recipe no longer says {text}" for text in gone]
        problems += [f"the lock does not know of {text}" for text in new]
    pins = {pin.name: pin.version for pin in lock.pins}
    for text in recipe.requirements:
        problems += _requirement_misfit(text, pins, target, needed=True)
    for text in recipe.constraints:
        problems += _requirement_misfit(text, pins, target, needed=False)
    return problems


def _requirement_misfit(text: str, pins: dict[str, str], target: Target, *, needed: bool) -> list[str]:
    """Why the pins do not meet one requirement: one line, or none when they do."""
    if PLAIN_NAME.fullmatch(text):  # any version will do, and packaging need not be imported
        return [] if normal_name(text) in pins or not needed else [f"{text} is not in the lock"]

    from packaging.requirements import Requirement

    requirement = Requirement(text)
    if requirement.marker and not requirement.marker.evaluate(dict(target.marker_environment())):
        return []
    version = pins.get(normal_name(requirement.name))
    if version is None:
        return [f"{requirement.name} is not in the lock"] if needed else []
    if requirement.specifier.contains(version, prereleases=True):
        return []
    return [f"{requirement.name} is locked at {version}, the recipe wants {requirement.specifier}"]


def lock_paths(recipe: Recipe, target: Target, project: Path) -> list[Path]:
    """Where the lock may lie, the place to write first.

    A recipe's locks lie beside it. A shipped recipe and a requirements file have theirs in the project's
    ``locks/<name>/``; a shipped recipe's own locks serve where the project has none.
    """
    own = project / "locks" / recipe.name / f"{target}.txt"
    if recipe.folder is None:
        return [own]
    beside = recipe.folder / "locks" / f"{target}.txt"
    return [own, beside] if recipe.shipped else [beside]


def find_lock(recipe: Recipe, target: Target, project: Path) -> tuple[Lock, Path | None] | None:
    """The lock of a recipe for a target and the file it was read from, or None where there is none.

    Raises:
        BuildError: the lock is invalid, or no longer fits the recipe.
    """
    if recipe.given_lock is not None:
        return parse_lock(recipe.given_lock, target, recipe.origin), None
    for path in lock_paths(recipe, target, project):
        if path.is_file():
            return read_lock(path, target), path
    return None


def read_lock(path: Path, target: Target) -> Lock:
    """Reads a lock file.

    Raises:
        BuildError: it is not a valid lock, or not text.
    """
    try:
        return parse_lock(path.read_text("utf-8"), target, str(path))
    except UnicodeDecodeError as error:
        hint = "`layerbuild lock` writes a new one"
        raise BuildError("lock-invalid", f"{path} is not UTF-8 text", causes=[str(error)], hint=hint) from None
