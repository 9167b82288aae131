"""Why building a source package failed, told from its output: what is missing, and which package brings it."""

from __future__ import annotations

import re
import tomllib
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from layerbuild.errors import BuildError, LayerbuildError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from layerbuild.lock import Pin
    from layerbuild.target import Target


@dataclass(frozen=True, kw_only=True, slots=True)
class Missing:
    """Something that builds ask for: what it is, and the packages that bring it, by package manager."""

    what: str
    packages: dict[str, str]

    @property
    def hint(self) -> str:
        """What to write into the recipe."""
        lists = ", ".join(f"{manager} = {_toml_list(names)}" for manager, names in self.packages.items())
        return f"add to the recipe: system-packages = {{ {lists} }}"


def _toml_list(names: str) -> str:
    return "[" + ", ".join(f'"{name}"' for name in names.split()) + "]"


@cache
def _known() -> tuple[tuple[re.Pattern[str], Missing], ...]:
    data = tomllib.loads(files("layerbuild").joinpath("builders", "failures.toml").read_text("utf-8"))
    rows = []
    for row in data["missing"]:
        packages = {manager: row[manager] for manager in ("apt", "dnf", "yum") if manager in row}
        rows += [(re.compile(pattern), Missing(what=row["what"], packages=packages)) for pattern in row["patterns"]]
    return tuple(rows)


# What compilers and linkers do not find ends a build; what else is not found may have been looked for in vain before.
_DECISIVE = tuple(
    re.compile(pattern)
    for pattern in (
        r"fatal error: (?P<header>[\w./+-]+): No such file or directory",
        r"cannot find -l(?P<library>[\w.+-]+)",
    )
)
# Where pkg-config, shells and make name what they do not find.
_UNKNOWN = tuple(
    re.compile(pattern)
    for pattern in (
        r"[Pp]ackage '(?P<module>[\w.+-]+)',? (?:required by .*)?not found|No package '(?P<module2>[\w.+-]+)' found",
        r"(?:^|: )(?P<program>[\w.+-]+): (?:command )?not found",
        r"make(?:\[\d+\])?: (?P<program2>[\w.+-]+): (?:No such file or directory|Command not found)",
        r"No such file or directory: '(?P<file>[\w.+-]+)'",
    )
)
_NO_REQUIREMENT = re.compile(r"No matching distribution found for (\S+)")
_TOLD_LINES = 15


def find_missing(lines: Iterable[str]) -> Missing | None:
    """What a build's output says is missing; None where it says nothing of the kind."""
    lines = tuple(lines)
    decisive = [line for line in lines if any(pattern.search(line) for pattern in _DECISIVE)]
    return _known_missing(decisive) or _named(decisive, _DECISIVE) or _known_missing(lines) or _named(lines, _UNKNOWN)


def _known_missing(lines: Iterable[str]) -> Missing | None:
    lines = tuple(lines)
    return next((missing for pattern, missing in _known() if any(pattern.search(line) for line in lines)), None)


def _named(lines: Iterable[str], patterns: Iterable[re.Pattern[str]]) -> Missing | None:
    """What the first line names that one of the patterns fits."""
    patterns = tuple(patterns)
    for line in lines:
        for pattern in patterns:
            if match := pattern.search(line):
                kind, name = next((kind, name) for kind, name in match.groupdict().items() if name)
                return Missing(what=f"the {kind.rstrip('2')} {name}", packages={})
    return None


# How pip says that it cannot learn what a package needs.
_UNPREPARED = re.compile(
    r"Failed to build '([\w.-]+)'|Failed to build ([\w.-]+) when|[Mm]etadata.?[Gg]eneration.?[Ff]ailed"
)
_LOOKED_AT = re.compile(r"^\s*(?:Collecting|Processing) (?:\S*/)?([A-Za-z0-9][\w.]*)", re.MULTILINE)


def metadata_failure(output: str, target: Target) -> BuildError | None:
    """The error for a package that pip could not build to learn what it needs; None if that is not what failed.

    Args:
        output: pip's or pip-compile's, whole.
        target: for which was resolved.
    """
    match = _UNPREPARED.search(output)
    if match is None:
        return None
    lines = output.splitlines()
    # pip's own traceback, which a verbose one adds, tells nothing of the package.
    last = next(
        (place for place, line in enumerate(lines) if line.lstrip().startswith("note: This error orig")), None
    )
    looked_at = _LOOKED_AT.findall(output[: match.start()])
    name = match[1] or match[2] or (looked_at[-1] if looked_at else "a package")
    return build_failure(f"{name}, asked what it needs,", target, lines[:last])


def build_failure(pin: Pin | str, target: Target, lines: Sequence[str]) -> BuildError:
    """The error for a package that could not be built.

    Args:
        pin: the package.
        target: for which it was built.
        lines: the end of the build's output.
    """
    what = f"{pin} cannot be built for {target}"
    told = lines[-_TOLD_LINES:]
    if asked := next((match[1] for line in lines if (match := _NO_REQUIREMENT.search(line))), None):
        return BuildError(
            "build-failed",
            f"{what}: it needs {asked} to build, which cannot be had",
            causes=told,
            hint="with --build-network none, only what its pyproject.toml names is fetched",
        )
    if any("no space left on device" in line.lower() for line in lines):
        hint = "the Docker engine's disk is full (`docker system df`), or what the container has of /dev/shm"
        return BuildError("build-failed", what, causes=told, hint=hint)
    missing = find_missing(lines)
    if missing is None:
        return BuildError("build-failed", what, causes=told, hint="the lines above are the end of its output")
    if not missing.packages:
        hint = "find the system package that brings it, and name it under system-packages in the recipe"
        return BuildError("build-failed", f"{what}: {missing.what} is missing", causes=told, hint=hint)
    return BuildError("build-failed", f"{what}: {missing.what} is missing", causes=told, hint=missing.hint)


@contextmanager
def instead_of(no_wheel: Callable[[], BuildError]) -> Iterator[None]:
    """Where it turns out that nothing can be built here, the error that there is no wheel is the one that helps."""
    try:
        yield
    except LayerbuildError as other:
        if other.code not in ("no-engine", "engine-not-permitted", "container-unsupported"):
            raise
        error = no_wheel()
        error.hint = f"ask for an older version that has a wheel; it could be built from source, but {other.what}"
        raise error from None
