"""Why resolving failed, told from what pip-tools or uv printed and from what the index has."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from layerbuild.builders.failures import metadata_failure
from layerbuild.builders.host import NoWheelError, no_wheel
from layerbuild.errors import BuildError, LayerbuildError, MachineError
from layerbuild.lock import normal_name
from layerbuild.process import redact

if TYPE_CHECKING:
    from collections.abc import Iterable

    from layerbuild.index import Index
    from layerbuild.recipe import Recipe
    from layerbuild.target import Target

_UNREACHABLE = re.compile(
    "error sending request|[Cc]onnection (refused|error)|NewConnectionError|Max retries|timed out|dns error"
    "|Failed to fetch|HTTP status|IncompleteDownload|IncompleteRead"
)
_CONFLICT = re.compile("conflicting dependencies|ResolutionImpossible|No solution found")
_UNREADABLE = re.compile("invalid package format|Hash mismatch|BadZipFile|InvalidWheel|has an invalid wheel")


def explain(
    recipe: Recipe, target: Target, index: Index, output: str, unfit: Iterable[str], *, builds: bool = False
) -> LayerbuildError:
    """Why resolving failed: a package without a wheel for the target, the network, or else the resolver's words.

    Args:
        recipe, target: what was to be locked.
        index: where to look up the packages that the resolver blames.
        output: all that it printed.
        unfit: names of packages whose versions had to be excluded.
        builds: whether it could build source packages.
    """
    output = redact(output)
    if builds and (failure := metadata_failure(output, target)):
        return failure
    unreachable = _UNREACHABLE.search(output)
    for requirement in _suspects(recipe, output, unfit):
        error = _wheel_problem(requirement, target, index)
        if builds and isinstance(error, NoWheelError) and error.has_source:
            continue
        if error and (isinstance(error, MachineError) or not unreachable):
            return error
    what = f"cannot lock {recipe.name} for {target}"
    if unreachable:
        return MachineError(
            "index-unreachable",
            f"{what}: the index does not answer",
            causes=_essence(output),
            hint="check the network, and the index, proxy and certificate that `pip config list` shows",
        )
    if _CONFLICT.search(output) and not _UNREADABLE.search(output):
        return BuildError(
            "no-solution",
            f"{what}: its requirements contradict each other",
            causes=_essence(output),
            hint="loosen one of the versions named above",
        )
    return BuildError("resolver-failed", f"{what}: the resolver failed", causes=_essence(output))


def _essence(output: str) -> list[str]:
    """The lines of a resolver's output that say what is wrong, at most 12."""
    told, _, trace = output.partition("Traceback (most recent call last)")
    # The last exception, by its own first line: those of a traceback's frames are indented.
    raised = re.split(r"^(?=[\w.]+: )", trace, flags=re.MULTILINE)[-1]
    # The advice that pip adds is for users of pip.
    lines = [line.strip() for line in told.partition("To fix this you could")[0].splitlines() if line.strip()]
    starts = ("ERROR", "The conflict", "Because", "╰─▶", "×", "cause", "Caused by", "error:")  # noqa: RUF001 - uv's sign
    first = next((number for number, line in enumerate(lines) if line.startswith(starts)), None)
    if first is None:
        return [line.strip() for line in raised.splitlines() if line.strip()][:12] or lines[-1:]
    return lines[first : first + 12]


# Where pip and uv name the package that they cannot have.
_BLAMED = re.compile(
    r"(?:satisfies the requirement|distribution found for) `?([a-zA-Z0-9][\w.-]*)"
    r"|([a-zA-Z0-9][\w.-]*) (?:was not found|has no wheels)"
    r"|\b([a-zA-Z][\w.-]*\w)(?:==|>=|<=|<|>|~=)\d"
)


def _suspects(recipe: Recipe, output: str, unfit: Iterable[str]) -> list[str]:
    """Requirements to look up: the recipe's own, those found unfit, then what the resolver's output names."""
    named = [normal_name(next(filter(None, groups))) for groups in _BLAMED.findall(output)]
    known = {normal_name(re.split(r"[^\w.-]", text)[0]) for text in recipe.requirements}
    others = dict.fromkeys([*map(normal_name, unfit), *named])
    return [*recipe.requirements, *[name for name in others if name not in known][:8]]


def _wheel_problem(text: str, target: Target, index: Index) -> LayerbuildError | None:
    """The error for a requirement that no wheel can meet on the target; None where one can."""
    from packaging.requirements import Requirement

    requirement = Requirement(text)
    if requirement.marker and not requirement.marker.evaluate(dict(target.marker_environment())):
        return None
    try:
        files = index.files(requirement.name)
    except LayerbuildError as error:
        return error
    releases = [(file, release) for file in files if (release := file.release)]
    wanted = [pair for pair in releases if requirement.specifier.contains(pair[1].version, prereleases=True)]
    accepted = set(target.tags())
    if releases and not wanted:
        newest = max(release.version for _, release in releases)
        return BuildError(
            "unknown-package",
            f"no index has a version of {requirement.name} that meets {requirement.specifier}",
            causes=[f"the newest is {newest}"],
        )
    if any(accepted & release.tags for _, release in wanted):
        return None
    last = max((release.version for _, release in wanted), default=None)
    return no_wheel(str(requirement), target, [file for file, release in wanted if release.version == last])
