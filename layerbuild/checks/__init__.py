"""Checks: does a layer load on Lambda? Rules with stable codes over the virtual tree; what they find is data."""

from __future__ import annotations

import contextlib
import hashlib
import tomllib
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from layerbuild import __version__
from layerbuild.errors import CheckError, UsageError, nearest
from layerbuild.lock import normal_name
from layerbuild.target import ARCHITECTURES, MACHINES, Target, runtimes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from layerbuild.cache import Cache
    from layerbuild.recipe import Accept
    from layerbuild.tree import Tree

# To be raised whenever a rule finds something else in the same content.
CHECKS_FORMAT = 2
_SHOWN, _NAMED = 10, 3
SEVERITIES = ("error", "warning", "note")


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """One rule: a stable code, how bad it is, what it says in one sentence, why it happens, and what to do."""

    code: str
    severity: str
    summary: str
    cause: str
    fix: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What a rule found.

    Attributes:
        code: the rule's.
        message: what it found, with names.
        path: the file or folder that it is about, below /opt; None for the layer as a whole.
        package: the distribution that it belongs to, with its version.
        files: how many files it holds for, `path` being the first.
        severity: the rule's, unless the finding is weaker or stronger.
        fix: the rule's, unless there is a better one for this finding.
        targets: those that it holds for; empty for all.
        accepted: why the recipe's author accepts it.
        about: the rule that an accept without use names.
    """

    code: str
    message: str
    path: str | None = None
    package: str | None = None
    files: int = 1
    severity: str = ""
    fix: str = ""
    targets: tuple[str, ...] = ()
    accepted: str | None = None
    about: str | None = None

    def __post_init__(self) -> None:
        rule = rules()[self.code]
        object.__setattr__(self, "severity", self.severity or rule.severity)
        object.__setattr__(self, "fix", self.fix or rule.fix)

    @property
    def place(self) -> str:
        """The path as people are shown it, below site-packages where it lies there; empty without one."""
        return (self.path or "").rpartition("/site-packages/")[2]

    @property
    def whose(self) -> str:
        """The distribution and the number of files, in brackets after a space; empty without both."""
        told = [self.package or "", f"{self.files:,} files" if self.files > 1 else ""]
        return f" ({', '.join(filter(None, told))})" if any(told) else ""

    def as_json(self) -> dict[str, Any]:
        """The finding as it appears in ``--json`` output."""
        keys = ("code", "severity", "path", "package", "files", "message", "fix")
        return {key: getattr(self, key) for key in keys} | {"targets": list(self.targets), "accepted": self.accepted}


@cache
def rules() -> dict[str, Rule]:
    """All rules by code, in the order of the documentation, from ``rules.toml``."""
    data = tomllib.loads(files(__name__).joinpath("rules.toml").read_text("utf-8"))
    return {code: Rule(code=code, **row) for code, row in data.items()}


def check_layer(tree: Tree, targets: Sequence[Target], *, budget: int | None = None) -> list[Finding]:
    """Everything that is wrong with a layer, the worst first.

    Args:
        tree: its files.
        targets: what it is to run on; without any, only rules that hold everywhere are applied.
        budget: the greatest unzipped size that its recipe allows, in bytes.
    """
    from layerbuild.checks import binary, contents, size

    found = [*size.check(tree, budget), *size.check_zip(tree), *contents.check(tree)]
    if not targets and tree.entries:
        found.append(Finding(code="target-unknown", message=_why_unknown(tree)))
    found += over_targets(
        targets, lambda target: (*binary.check(tree, target), *contents.check_for_target(tree, target))
    )
    return in_order(found)


def over_targets(targets: Sequence[Target], work: Callable[[Target], Iterable[Finding]]) -> list[Finding]:
    """What `work` finds for each of several targets, once; what holds for all of them needs none of their names."""
    names: dict[Finding, list[str]] = {}
    for target in targets:
        for finding in work(target):
            names.setdefault(finding, []).append(str(target))
    return [
        finding if len(told) == len(targets) else replace(finding, targets=tuple(told))
        for finding, told in names.items()
    ]


def known_findings(key: str, cache: Cache | None, work: Callable[[], list[Finding]]) -> list[Finding]:
    """The findings about one content, worked out once.

    Args:
        key: a digest of all that `work` looks at; the rules' own data need not be in it.
        cache: where findings are kept.
        work: finds them.
    """
    if cache is None:
        return work()
    key = hashlib.sha256(f"{CHECKS_FORMAT} {__version__} {_data_digest()} {key}".encode()).hexdigest()
    kept = cache.record("findings", key)
    if kept is not None:
        return [Finding(**{**row, "targets": tuple(row["targets"])}) for row in kept]
    found = work()
    with contextlib.suppress(OSError):  # a full disk must not keep anyone from checking
        cache.keep_record("findings", key, [finding.as_json() for finding in found])
    return found


def _data_digest() -> str:
    """Over the data files that findings depend on."""
    digest = hashlib.sha256()
    for name in ("libraries.toml", "runtimes.toml", "stdlib.toml", "checks/rules.toml"):
        digest.update(files("layerbuild").joinpath(name).read_bytes())
    return digest.hexdigest()


def refuse_errors(findings: Iterable[Finding], name: str) -> None:
    """Raises for errors that nobody has accepted.

    Args:
        findings: what was found.
        name: of the layer that is not to be made.

    Raises:
        CheckError: there are some; it names them.
    """
    errors = [one for one in findings if one.severity == "error" and one.accepted is None]
    if errors:
        causes = [f"{one.place}{': ' if one.path else ''}{one.message}{one.whose} [{one.code}]" for one in errors]
        if len(causes) > _SHOWN:
            causes[_SHOWN:] = [f"and {len(causes) - _SHOWN} more"]
        raise CheckError(
            "checks-failed",
            f"{name} is not made: {len(errors)} {'error' if len(errors) == 1 else 'errors'} found in it",
            causes=causes,
            hint=f"{errors[0].fix}; or accept it: [[accept]] in the recipe, or --ignore {errors[0].code}",
        )


def some(names: Iterable[str]) -> str:
    """The first few of some names, each once, and how many more there are."""
    names = list(dict.fromkeys(names))
    rest = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {rest:,} more" if rest > 0 else "")


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Findings as they are told: by severity, then by rule, then by path."""
    order = {code: place for place, code in enumerate(rules())}
    return sorted(
        findings, key=lambda one: (SEVERITIES.index(one.severity), order[one.code], one.path or "", one.message)
    )


def select(findings: Iterable[Finding], chosen: Sequence[str], ignored: Sequence[str]) -> list[Finding]:
    """The findings whose code, or its beginning, is among `chosen` (none: all) and not among `ignored`."""
    return [
        finding
        for finding in findings
        if (not chosen or _matches(finding.code, chosen)) and not _matches(finding.code, ignored)
    ]


def check_selectors(selectors: Iterable[str]) -> None:
    """Refuses what is neither a rule's code nor the beginning of one.

    Raises:
        UsageError: one matches no rule.
    """
    for selector in selectors:
        if not any(_matches(code, [selector]) for code in rules()):
            known = [*rules(), *dict.fromkeys(code.partition("-")[0] for code in rules())]
            hint = "`layerbuild check --list-rules` shows all of them"
            raise UsageError(
                "unknown-rule", f"there is no rule {selector!r}", causes=[nearest(selector, known)], hint=hint
            )


def _matches(code: str, selectors: Iterable[str]) -> bool:
    return any(code == selector or code.startswith(f"{selector.removesuffix('-')}-") for selector in selectors)


def accept(findings: Iterable[Finding], accepted: Sequence[Accept]) -> list[Finding]:
    """Marks the findings that a recipe accepts, and adds one for each accept that matches none."""
    findings = list(findings)
    marked = [replace(finding, accepted=_reason(finding, accepted)) for finding in findings]
    idle = [one.code for one in accepted if not any(_reason(finding, [one]) for finding in findings)]
    marked += [
        Finding(code="accept-unused", message=f"the recipe accepts {code}, which was not found", about=code)
        for code in idle
    ]
    return in_order(marked)


def _reason(finding: Finding, accepted: Sequence[Accept]) -> str | None:
    """Why a finding is accepted, if it is."""
    package = normal_name((finding.package or "").partition(" ")[0])
    for one in accepted:
        if one.code == finding.code and (not one.package or normal_name(one.package) == package):
            return one.reason
    return None


def inferred_targets(tree: Tree) -> tuple[Target, ...]:
    """The targets that a layer's content is certainly for; none where it does not say, or says several things.

    A layer without compiled files is for both architectures.
    """
    versions, machines = _signs(tree)
    if len(versions) != 1 or len(machines) > 1:
        return ()
    arches = [arch for arch in ARCHITECTURES if not machines or MACHINES[arch] in machines]
    return tuple(Target(runtime, arch) for runtime in runtimes() if runtime.name in versions for arch in arches)


def _signs(tree: Tree) -> tuple[set[str], set[str]]:
    """The Pythons and the machines that a layer's folders and compiled files name."""
    from layerbuild.checks.binary import extension_of

    folders = tree.children.get("python/lib", {})
    versions = {name for name, is_folder in folders.items() if is_folder and name.startswith("python3.")}
    machines = {entry.facts["elf"].get("machine", "") for entry in tree.entries.values() if "elf" in entry.facts}
    if not versions:
        tags = {extension_of(path) for path, entry in tree.entries.items() if "elf" in entry.facts}
        versions = {f"python{tag.version}" for tag in tags if tag and tag.version}
    return versions, machines - {""}


def _why_unknown(tree: Tree) -> str:
    versions, machines = _signs(tree)
    if len(versions) > 1:
        return f"it holds packages for {', '.join(sorted(versions))}: say with --target which one is meant"
    if len(machines) > 1:
        return f"it holds compiled files for {', '.join(sorted(machines))}: say with --target which one is meant"
    if versions and not any(runtime.name in versions for runtime in runtimes()):
        return f"it is for {versions.pop()}, which layerbuild does not know as a runtime of Lambda"
    return "it does not say which Python it is for: say it with --target"
