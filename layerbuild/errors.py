"""The errors that layerbuild reports: one root, one exit code per class, one page that lists the codes."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceLine:
    """A line of a file that a person wrote, counted from 1, and what is wrong there if the error does not say it."""

    path: Path
    number: int = 1
    message: str = ""


class LayerbuildError(Exception):
    """What a user is told when something cannot be done.

    Args:
        code: stable name of the error, an entry in ``docs/errors.md``.
        what: one sentence: what happened, and to which recipe, target or file.
        causes: why it happened or most likely did, a line each.
        hint: what to type or change next.
        lines: where it is to be mended.
    """

    exit_code = 1

    def __init__(
        self,
        code: str,
        what: str,
        *,
        causes: Iterable[str] = (),
        hint: str | None = None,
        lines: Iterable[SourceLine] = (),
    ) -> None:
        super().__init__(what)
        self.code = code
        self.what = what
        self.causes = tuple(causes)
        self.hint = hint
        self.lines = tuple(lines)

    def as_json(self) -> dict[str, object]:
        """The error as it appears in ``--json`` output."""
        return {
            "code": self.code,
            "what": self.what,
            "causes": list(self.causes),
            "hint": self.hint,
            "exit_code": self.exit_code,
        }


class CheckError(LayerbuildError):
    """Checks found errors in what would otherwise have been made."""

    exit_code = 1


class UsageError(LayerbuildError):
    """The command line, the settings or a recipe is wrong."""

    exit_code = 2


class BuildError(LayerbuildError):
    """A lock or a layer cannot be made from what was asked for."""

    exit_code = 3


class MachineError(LayerbuildError):
    """The machine or the network lacks what the work needs."""

    exit_code = 4


class PublishError(LayerbuildError):
    """Not all that was to be done in AWS has been done."""

    exit_code = 5


class InternalError(LayerbuildError):
    """A mistake in layerbuild itself."""

    exit_code = 70


def shown_path(path: Path) -> str:
    """A path as a person wants to read it: relative to the current folder where it lies below that."""
    here = os.getcwd()  # noqa: PTH109 - without importing pathlib
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def nearest(name: str, known: Iterable[str]) -> str:
    """A half-sentence that names the known names nearest to `name`, or all of them when none is near."""
    import difflib

    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(close) + "?"
    return "known: " + ", ".join(names)


def machine_error(error: OSError) -> MachineError:
    """What the operating system refused, as an error of ours."""
    where = error.filename or "a file"
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "free some space, or set LAYERBUILD_CACHE_DIR or --out to another disk"
        return MachineError("disk-full", f"the disk is full: {where} cannot be written", causes=[reason], hint=hint)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        hint = "choose another folder with --out or LAYERBUILD_CACHE_DIR, or change its permissions"
        return MachineError("not-permitted", f"{where} cannot be read or written", causes=[reason], hint=hint)
    return MachineError("system-error", f"the operating system refused: {where}", causes=[reason])
