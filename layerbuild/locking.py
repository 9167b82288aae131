"""Locks as files: made where there is none, made again where one no longer fits, left alone where nothing changed."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from layerbuild.cache import write_text
from layerbuild.errors import BuildError, shown_path
from layerbuild.lock import find_lock, lock_misfits, lock_paths, normal_name, parse_lock, read_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from layerbuild.builders import Builder
    from layerbuild.index import Index
    from layerbuild.lock import Lock
    from layerbuild.recipe import Recipe
    from layerbuild.target import Target


def ensure_lock(
    recipe: Recipe,
    target: Target,
    project: Path,
    index: Index,
    note: Callable[[str], object],
    *,
    builder: Builder | None = None,
    locked: bool = False,
) -> Lock:
    """The lock of a recipe for a target; made, or made to fit again, unless `locked` forbids it.

    Args:
        project: where locks are looked for and written, see `layerbuild.lock.lock_paths`.
        note: told when a lock was made.
        builder: the recipe's.

    Raises:
        BuildError: there is none that fits and none may or can be made.
    """
    found = find_lock(recipe, target, project)
    reason = _why_lock_again(found[0] if found else None, recipe, target)
    if found and not reason:
        return found[0]
    if locked or recipe.given_lock is not None:
        raise BuildError(
            "lock-misfit" if found else "lock-missing",
            f"{recipe.name} has no lock for {target} that fits",
            causes=reason,
            hint=f"`layerbuild lock {_as_argument(recipe)} --target {target}` makes one; commit it",
        )
    path = update_lock(recipe, target, project, index, builder=builder)[0]
    note(f"locked {recipe.name} for {target} ({reason[0]})")
    note(f"  {shown_path(path)}")
    return read_lock(path, target)


def _as_argument(recipe: Recipe) -> str:
    return recipe.name if recipe.folder else f"-r {recipe.origin} --name {recipe.name}"


def _why_lock_again(lock: Lock | None, recipe: Recipe, target: Target) -> list[str]:
    if lock is None:
        return ["there was no lock"]
    return lock_misfits(lock, recipe, target)


def update_lock(
    recipe: Recipe,
    target: Target,
    project: Path,
    index: Index,
    *,
    builder: Builder | None = None,
    upgrade: Sequence[str] | None = None,
) -> tuple[Path, bool]:
    """Resolves a recipe for a target and writes its lock.

    Args:
        builder: the recipe's.
        upgrade: distributions whose pins are given up; empty for all, None for none.

    Returns:
        The lock's path, and whether the file changed.
    """
    from layerbuild.resolve import resolve

    paths = lock_paths(recipe, target, project)
    present = next((path for path in paths if path.is_file()), None)
    earlier = None
    if present:
        with suppress(BuildError):  # one that is damaged has no pins to keep
            earlier = read_lock(present, target)
    given_up = {normal_name(name) for name in upgrade or ()}
    keep = {pin.name: pin.version for pin in earlier.pins if pin.name not in given_up} if earlier else {}
    text = resolve(recipe, target, index, keep={} if upgrade == () else keep, builder=builder)
    # Read before it is written: in a container, packages have run beside what made it.
    lock = parse_lock(text, target, "what was resolved")
    if misfits := lock_misfits(lock, recipe, target):
        raise BuildError("lock-invalid", f"what was resolved does not meet {recipe.origin}", causes=misfits)
    if present and earlier == lock:
        return present, False
    write_text(paths[0], text)
    return paths[0], True
