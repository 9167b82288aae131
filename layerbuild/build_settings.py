"""How a recipe's packages are built where they have no wheel: the part of ``recipe.toml`` that containers live by."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from layerbuild.requirements import normal_requirement

if TYPE_CHECKING:
    from layerbuild.toml_reader import TomlReader

BUILD_KEYS = ("no-binary", "build-constraints", "system-packages", "environment", "strip", "files")
PACKAGE_MANAGERS = ("apt", "dnf", "yum")


@dataclass(frozen=True, kw_only=True, slots=True)
class FileRule:
    """Files of the build image that a layer gets: a path or a shell pattern there, and the place below /opt."""

    source: str
    to: str


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildSettings:
    """How to build what has no wheel.

    Attributes:
        no_binary: distributions, by normalised name, that are built from source though they have wheels.
        constraints: PEP 508 requirements that restrict the versions of what builds need.
        system_packages: package manager (``apt``, ``dnf``, ``yum``) to the packages to install.
        environment: variables for the build.
        strip: whether debug sections are taken out of what is built.
        files: what to take from the image.
    """

    no_binary: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    system_packages: tuple[tuple[str, tuple[str, ...]], ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    strip: bool = False
    files: tuple[FileRule, ...] = ()


# Names as the package managers have them: nothing that a shell or an option parser would read otherwise.
_SYSTEM_PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._:@/-]*(?<!-)")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FILE_PLACES = ("bin/", "lib/", "share/")


def read_build_settings(reader: TomlReader, data: dict[str, Any]) -> BuildSettings:
    """What a recipe says of how to build; what is wrong with it is noted by `reader`."""
    return BuildSettings(
        no_binary=reader.checked("no-binary", reader.strings(data, "no-binary"), _project_name),
        constraints=reader.checked(
            "build-constraints", reader.strings(data, "build-constraints"), normal_requirement
        ),
        system_packages=_read_system_packages(reader, data),
        environment=_read_environment(reader, data),
        strip=reader.get(data, "strip", bool, False),
        files=_read_files(reader, data),
    )


def _project_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", text):
        raise ValueError(f"{text!r} is not the name of a package")
    return re.sub(r"[-_.]+", "-", text).lower()


def _read_system_packages(reader: TomlReader, data: dict[str, Any]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    table = "system-packages"
    values = reader.get(data, table, dict, {})
    reader.known(values, PACKAGE_MANAGERS, table=table)
    found = []
    for manager in sorted(values.keys() & set(PACKAGE_MANAGERS)):
        names = reader.strings(values, manager, table=table)
        for name in names:
            if not _SYSTEM_PACKAGE.fullmatch(name):
                reader.complain(manager, f"{table}.{manager}: {name!r} is not the name of a package", table=table)
        found.append((manager, names))
    return tuple(found)


def _read_environment(reader: TomlReader, data: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    table = "environment"
    values = reader.get(data, table, dict, {})
    for name, value in values.items():
        if not _VARIABLE.fullmatch(name):
            reader.complain(name, f"{table}: {name!r} cannot name a variable", table=table)
        elif name.startswith("AWS_"):
            reader.complain(name, f"{table}.{name}: builds get no credentials", table=table)
        elif not isinstance(value, str) or "\0" in value:
            reader.complain(name, f"{table}.{name} must be a string, not {value!r}", table=table)
    return tuple(sorted((name, str(value)) for name, value in values.items()))


def _read_files(reader: TomlReader, data: dict[str, Any]) -> tuple[FileRule, ...]:
    rules = []
    for nth, row in enumerate(reader.get(data, "files", list, [])):
        if not isinstance(row, dict):
            reader.complain("files", "files must be tables: [[files]]")
            continue
        reader.known(row, ("from", "to"), table="files", nth=nth)
        source = reader.get(row, "from", str, "", table="files", nth=nth)
        to = reader.get(row, "to", str, "", table="files", nth=nth)
        if not source.startswith("/") or ".." in source.split("/"):
            problem = f"files.from must be an absolute path in the build image, not {source!r}"
            reader.complain("from", problem, table="files", nth=nth)
        parts = to.removesuffix("/").split("/")
        if not to.startswith(_FILE_PLACES) or not set(parts).isdisjoint(("", ".", "..")):
            problem = f"files.to must be a path below bin/, lib/ or share/, not {to!r}"
            reader.complain("to", problem, table="files", nth=nth)
        rules.append(FileRule(source=source, to=to))
    return tuple(rules)
