"""Targets: one runtime of AWS Lambda on one architecture, as a single string such as ``python3.13-arm64``."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from datetime import UTC, date, datetime
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from layerbuild.errors import UsageError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from packaging.tags import Tag

ARCHITECTURES = ("x86_64", "arm64")

# Lambda says arm64; wheels, markers and ELF tools say aarch64.
MACHINES = {"x86_64": "x86_64", "arm64": "aarch64"}

# PEP 600: the older names of three manylinux tags.
_LEGACY_TAGS = {(2, 17): "manylinux2014", (2, 12): "manylinux2010", (2, 5): "manylinux1"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Runtime:
    """A Python runtime of Lambda. `glibc` is (major, minor); `python` is a full version such as ``3.12.3``.

    `bytecode_magic` is the first two bytes of its pyc files, as a number (PEP 552); `image` is AWS's own container
    image of it.
    """

    name: str
    python: str
    os: str
    glibc: tuple[int, int]
    deprecation: date
    deprecated: bool
    bytecode_magic: int
    image: str

    @property
    def version(self) -> tuple[int, int]:
        """The minor version, such as ``(3, 12)``."""
        major, minor, _ = self.python.split(".")
        return int(major), int(minor)

    @property
    def past_deprecation(self) -> bool:
        """Whether AWS's deprecation date has passed by today's clock; for warnings only."""
        return datetime.now(UTC).date() >= self.deprecation


@dataclass(frozen=True, slots=True)
class Target:
    """One runtime on one architecture. ``str(target)`` is its one name everywhere."""

    runtime: Runtime
    arch: str

    def __str__(self) -> str:
        return f"{self.runtime.name}-{self.arch}"

    @property
    def machine(self) -> str:
        """The architecture as wheels and markers call it."""
        return MACHINES[self.arch]

    def platforms(self) -> Iterator[str]:
        """Platform tags that the runtime accepts, best first, in the order of `packaging.tags` (PEP 600).

        But for plain ``linux``, which newer versions of it put first: a wheel that promises nothing about the
        glibc it needs is the last that a layer should take.
        """
        oldest = _read_data()[1][self.arch]
        for minor in range(self.runtime.glibc[1], oldest[1] - 1, -1):
            yield f"manylinux_2_{minor}_{self.machine}"
            if legacy := _LEGACY_TAGS.get((2, minor)):
                yield f"{legacy}_{self.machine}"
        yield f"linux_{self.machine}"

    def tags(self) -> list[Tag]:
        """All wheel tags that the runtime accepts, best first."""
        return list(_tags(self))

    def marker_environment(self) -> dict[str, str]:
        """What environment markers see on the target (PEP 508)."""
        return {
            "implementation_name": "cpython",
            "implementation_version": self.runtime.python,
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": self.runtime.python,
            "python_version": "{}.{}".format(*self.runtime.version),
            "sys_platform": "linux",
        }


@cache
def _tags(target: Target) -> tuple[Tag, ...]:
    from packaging.tags import compatible_tags, cpython_tags

    version = target.runtime.version
    interpreter = f"cp{version[0]}{version[1]}"
    platforms = list(target.platforms())
    return (
        *cpython_tags(version, abis=[interpreter], platforms=platforms),
        *compatible_tags(version, interpreter=interpreter, platforms=platforms),
    )


@cache
def _read_data() -> tuple[dict[str, Runtime], dict[str, tuple[int, int]]]:
    data = tomllib.loads(files("layerbuild").joinpath("runtimes.toml").read_text("utf-8"))
    as_of = data["as-of"]
    runtimes = {
        name: Runtime(
            name=name,
            python=row["python"],
            os=row["os"],
            glibc=_glibc(row["glibc"]),
            deprecation=row["deprecation"],
            deprecated=row["deprecation"] <= as_of,
            bytecode_magic=row["bytecode-magic"],
            image=row["image"],
        )
        for name, row in data["runtimes"].items()
    }
    return runtimes, {arch: _glibc(version) for arch, version in data["oldest-glibc"].items()}


def _glibc(version: str) -> tuple[int, int]:
    major, minor = version.split(".")
    return int(major), int(minor)


def runtimes() -> tuple[Runtime, ...]:
    """All runtimes that layerbuild knows, oldest first, from ``runtimes.toml``."""
    return tuple(_read_data()[0].values())


@cache
def all_targets() -> tuple[Target, ...]:
    """Every target, deprecated ones included."""
    return tuple(Target(runtime, arch) for runtime in runtimes() for arch in ARCHITECTURES)


def default_targets() -> tuple[Target, ...]:
    """Both architectures of every runtime that was not deprecated when the data was last checked."""
    return tuple(target for target in all_targets() if not target.runtime.deprecated)


def targets_named(runtime_names: Iterable[str], architectures: Iterable[str]) -> tuple[Target, ...]:
    """The targets of some runtimes on some architectures, as AWS names them; unknown names are passed over."""
    names, arches = set(runtime_names), set(architectures)
    return tuple(one for one in all_targets() if one.runtime.name in names and one.arch in arches)


def select_targets(patterns: Iterable[str], among: Iterable[Target] | None = None) -> tuple[Target, ...]:
    """The targets that match any of `patterns` (shell wildcards, such as ``python3.1*-arm64``).

    Raises:
        UsageError: a pattern matches no target at all.
    """
    known = all_targets() if among is None else tuple(among)
    chosen = []
    for pattern in patterns:
        matching = [target for target in known if fnmatchcase(str(target), pattern)]
        if not matching:
            names = [str(target) for target in known]
            raise UsageError(
                "unknown-target",
                f"no target matches {pattern!r}",
                causes=[nearest(pattern, names)],
                hint="`layerbuild runtimes` lists all targets; patterns such as 'python3.1*-arm64' select several",
            )
        chosen += matching
    return tuple(target for target in known if target in chosen)
