"""Requirements between installed distributions, evaluated for a target."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from layerbuild import modules
from layerbuild.checks import Finding
from layerbuild.lock import normal_name
from layerbuild.requirements import PLAIN_NAME

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from packaging.markers import Marker
    from packaging.requirements import Requirement

    from layerbuild.target import Target
    from layerbuild.tree import Distribution, Tree


@dataclass(frozen=True, kw_only=True, slots=True)
class Unmet:
    """A requirement that is not met: whose it is, its text, what it names, and what is there instead, if anything."""

    owner: Distribution
    text: str
    name: str
    there: Distribution | None


def unmet(distributions: Iterable[Distribution], target: Target) -> Iterator[Unmet]:
    """The requirements among `distributions` that none of them meets; of two of one name the first counts.

    Extras count where another distribution asks for them.
    """
    by_name: dict[str, Distribution] = {}
    for distribution in distributions:
        by_name.setdefault(distribution.normal_name, distribution)
    asked = [(name, "") for name in by_name]
    seen = set(asked)
    while asked:
        name, extra = asked.pop()
        owner = by_name[name]
        for text in owner.requires:
            wanted, extras = _wanted(text, target, extra)
            if not wanted:
                continue
            there = by_name.get(wanted)
            if there is None or not _fits(text, there.version):
                yield Unmet(owner=owner, text=text, name=wanted, there=there)
            elif new := {(wanted, one) for one in extras} - seen:
                seen |= new
                asked += sorted(new)


def _wanted(text: str, target: Target, extra: str) -> tuple[str, set[str]]:
    """The distribution, and the extras of it, that a Requires-Dist line asks for on a target; or nothing."""
    if PLAIN_NAME.fullmatch(text):  # as most are: nothing need be parsed
        return ("" if extra else normal_name(text)), set()
    requirement = _parsed(text)
    if requirement is None:
        return "", set()
    if requirement.marker is None:
        return ("" if extra else normal_name(requirement.name)), requirement.extras
    applies = _holds(requirement.marker, target, extra)
    if not applies or (extra and _holds(requirement.marker, target, "")):
        return "", set()  # not at all, or asked for without the extra as well: told there
    return normal_name(requirement.name), requirement.extras


def _holds(marker: Marker, target: Target, extra: str) -> bool:
    try:
        return marker.evaluate({**target.marker_environment(), "extra": extra})
    except ValueError:  # a number beyond what Python reads, or what compares with nothing
        return False


def _fits(text: str, version: str) -> bool:
    if PLAIN_NAME.fullmatch(text):
        return True
    from packaging.version import InvalidVersion

    requirement = _parsed(text)
    try:
        return requirement is None or requirement.specifier.contains(version, prereleases=True)
    except (InvalidVersion, ValueError):
        return False


@cache
def _parsed(text: str) -> Requirement | None:
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        return Requirement(text)
    except (InvalidRequirement, RecursionError, ValueError):
        return None  # older than the standard, or made to harm; pip does not know what it means either


def check(tree: Tree, target: Target) -> Iterator[Finding]:
    """``contents-requirement`` and ``contents-requirement-runtime``: what a layer's distributions need."""
    runtime_brings = set(modules.bundled(target.runtime).values())
    # As importlib.metadata does: the first on sys.path counts.
    sites = (modules.site_folder(target.runtime), "python")
    installed = [one for site in sites for one in tree.distributions if one.site == site]
    for one in unmet(installed, target):
        if one.there is not None:
            text = f"{one.owner} needs {one.text}; {one.there.version} is there"
        elif one.name in runtime_brings:
            text = f"{one.owner} needs {one.text}, which the runtime brings in a version that changes"
        else:
            text = f"{one.owner} needs {one.text}, which is not there"
        code = "contents-requirement"
        if one.there is None and one.name in runtime_brings:
            code = "contents-requirement-runtime"
        yield Finding(code=code, path=one.owner.info, package=str(one.owner), message=text)
