"""Rules about compiled files: would the runtime's loader and its Python load them?"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from layerbuild.checks import Finding
from layerbuild.checks.loader import Loader, is_library
from layerbuild.libraries import symbol_limits, version_of
from layerbuild.modules import extension_suffixes, site_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from layerbuild.checks.loader import Need
    from layerbuild.target import Target
    from layerbuild.tree import Tree

_EXTENSION = re.compile(
    r"(?P<stem>.+?)\.cpython-(?P<major>\d)(?P<minor>\d+)(?P<flags>[a-z]*)-(?P<platform>[\w-]+)\.so"
)
_VERSION = re.compile(r"(GLIBC|GLIBCXX|CXXABI|GCC)_(\d+(?:\.\d+)*)")
# glibc's name for the packed relative relocations that came with 2.36.
_PACKED_RELOCATIONS = ("GLIBC_ABI_DT_RELR", (2, 36))
_OLD_BITS = 32
_PYTHON_FOLDER = re.compile(r"python/lib/python3\.\d+/")
# A name that says its machine is of a file for several machines, one of which is chosen when it runs.
_MACHINE_WORD = re.compile(
    r"(?<![a-z0-9])(?:x86_64|amd64|x86|x64|i[3-6]86|aarch64|arm64|armv\d\w*|ppc64le|s390x|riscv64)(?![a-z0-9])"
)
_MUSL = ("libc.musl-", "ld-musl-")
_FAMILY_OWNERS = {"GLIBC": "glibc", "GLIBCXX": "libstdc++", "CXXABI": "libstdc++", "GCC": "libgcc"}


class Extension(NamedTuple):
    """What an extension module's name says: module, Python such as ``3.12`` with its ABI flags, platform."""

    stem: str
    version: str
    platform: str


def extension_of(path: str) -> Extension | None:
    """What a file's name says if it is an extension module's with a CPython tag (PEP 3149), or None."""
    match = _EXTENSION.fullmatch(path)
    if match is None:
        return None
    return Extension(match["stem"], f"{match['major']}.{match['minor']}{match['flags']}", match["platform"])


def check(tree: Tree, target: Target) -> Iterator[Finding]:
    """The ``binary`` rules; the same about several files of one distribution is one finding."""
    alike: dict[Finding, list[str]] = {}
    for finding in _each(tree, target):
        gist = replace(finding, path=None) if finding.package else finding
        alike.setdefault(gist, []).append(finding.path or "")
    for gist, paths in alike.items():
        yield replace(gist, path=min(paths) or None, files=len(paths))


def _each(tree: Tree, target: Target) -> Iterator[Finding]:
    entries = {path: entry for path, entry in tree.entries.items() if not _of_another_python(tree, path, target)}
    for path, entry in entries.items():
        if (system := entry.facts.get("foreign")) and path.endswith(".so"):
            yield _finding(tree, "binary-machine", path, f"it is a library for {system}")
    compiled = {f"/opt/{path}": entry.facts["elf"] for path, entry in entries.items() if "elf" in entry.facts}
    for absolute, elf in compiled.items():
        yield from _one_file(tree, absolute.removeprefix("/opt/"), elf, target)

    def real_path(path: str) -> str | None:
        real = tree.real_path(path.removeprefix("/opt/")) if path.startswith("/opt/") else None
        return None if real is None else f"/opt/{real}"

    yield from loader_findings(tree, compiled, real_path, target)


def _of_another_python(tree: Tree, path: str, target: Target) -> bool:
    """Whether a file is in another Python's folder, in a layer that has one for the target, too."""
    match = _PYTHON_FOLDER.match(path)
    own = site_folder(target.runtime)
    return bool(match and not path.startswith(f"{own}/") and own in tree.children)


def _finding(tree: Tree, code: str, path: str, message: str, **more: Any) -> Finding:
    owner = tree.owner(path)
    return Finding(code=code, path=path, package=str(owner) if owner else None, message=message, **more)


def _one_file(tree: Tree, path: str, elf: dict[str, Any], target: Target) -> Iterator[Finding]:
    """What a file says of itself."""
    if "broken" in elf:
        yield _finding(tree, "binary-unreadable", path, f"it cannot be read: {elf['broken'][:200]}")
    elif elf["type"] not in ("shared", "executable"):
        return  # an object file or a core dump: nothing loads it
    elif not is_library(elf, target.machine):
        what = " ".join([elf.get("system", ""), elf["machine"], "with 32 bits" if elf["bits"] == _OLD_BITS else ""])
        text = f"it is for {what.strip()}; {target} has {target.machine}"
        yield _finding(tree, "binary-machine", path, text, severity=_machine_severity(tree, path, elf, target))
    elif musl := _musl(path, elf):
        yield _finding(tree, "binary-musl", path, musl)
    else:
        yield from _abi(tree, path, target)
        if elf.get("executable_stack"):
            yield _finding(
                tree,
                "binary-executable-stack",
                path,
                "its PT_GNU_STACK segment is executable, or missing",
            )
        if elf.get("text_relocations"):
            yield _finding(tree, "binary-text-relocations", path, "its dynamic section has DT_TEXTREL")


def _machine_severity(tree: Tree, path: str, elf: dict[str, Any], target: Target) -> str:
    """A warning for what is not loaded for the target: it has a sibling that is, or is chosen by name at run time."""
    if tag := extension_of(path):
        return _extension_severity(tree, tag, target)
    helper = elf["type"] == "executable" or "interpreter" in elf
    own_place = path.startswith(("bin/", "extensions/", "bootstrap"))
    return "warning" if _MACHINE_WORD.search(path.lower()) or (helper and not own_place) else ""


def _musl(path: str, elf: dict[str, Any]) -> str | None:
    """How a file shows that it was built for musl; None if it does not."""
    names = (*elf.get("needed", ()), elf.get("interpreter", ""))
    if name := next((name for name in names if any(sign in name for sign in _MUSL)), None):
        return f"it needs {name}"
    tag = extension_of(path)
    return f"its name says {tag.platform}" if tag and tag.platform.endswith("musl") else None


def _abi(tree: Tree, path: str, target: Target) -> Iterator[Finding]:
    tag = extension_of(path)
    if tag is None or tag.version == "{}.{}".format(*target.runtime.version):
        return
    text = f"it is for CPython {tag.version}; {target.runtime.name} does not import it"
    yield _finding(tree, "binary-abi", path, text, severity=_extension_severity(tree, tag, target))


def _extension_severity(tree: Tree, tag: Extension, target: Target) -> str:
    """A warning where the module that the target imports is beside one that it does not."""
    right = any(f"{tag.stem}{ending}" in tree.entries for ending in extension_suffixes(target))
    return "warning" if right else ""


def loader_findings(
    tree: Tree,
    compiled: Mapping[str, dict[str, Any]],
    real_path: Callable[[str], str | None],
    target: Target,
    root: str = "/opt",
) -> Iterator[Finding]:
    """What the files of a tree need and do not find.

    Args:
        tree: the layer, or the function.
        compiled: absolute path to ELF facts, of all files that the loader can see.
        real_path: follows links among them.
        target: what they run on.
        root: where the tree lies.
    """
    loadable = {path: elf for path, elf in compiled.items() if not _musl(path, elf)}
    for need in Loader(loadable, real_path, target).needs():
        if not need.path.startswith(f"{root}/"):
            continue
        path = need.path.removeprefix(f"{root}/")
        if need.found is None:
            yield _missing(tree, path, need, target)
        else:
            versions = loadable[need.path].get("versions", {}).get(need.name, ())
            yield from _versions(tree, path, need, versions, loadable, target)


def _missing(tree: Tree, path: str, need: Need, target: Target) -> Finding:
    known = need.known
    if need.elsewhere:
        text = f"it needs {need.name}, which is at {need.elsewhere}, where the loader does not look"
        return _finding(tree, "binary-library-unreachable", path, text)
    if known and known.sure:
        text = f"it needs {need.name}, which {target.runtime.name} does not have"
        return _finding(tree, "binary-library-absent", path, text, fix=known.fix)
    if known:
        opinion = "probably has it" if known.present else "probably does not have it"
        text = f"it needs {need.name}; {target.runtime.name} {opinion}, which nobody has confirmed"
        return _finding(tree, "binary-library-unknown", path, text, fix=known.fix)
    text = f"it needs {need.name}; whether {target.runtime.name} has it is unknown"
    return _finding(tree, "binary-library-unknown", path, text)


def _versions(
    tree: Tree,
    path: str,
    need: Need,
    versions: list[str],
    compiled: Mapping[str, dict[str, Any]],
    target: Target,
) -> Iterator[Finding]:
    """Whether the library found defines the symbol versions that are needed of it."""
    if need.found != "runtime":
        defined = compiled[need.found or ""].get("defines")
        missing = [name for name in versions if defined and name not in defined]
        if missing:
            text = f"it needs {', '.join(missing)} of {need.name}, which {need.found} does not define"
            yield _finding(tree, "binary-symbol-version", path, text)
        return
    limits = symbol_limits(target)
    too_new: dict[str, tuple[int, ...]] = {}
    for name in versions:
        match = _VERSION.fullmatch(name)
        family, version = (match[1], version_of(match[2])) if match else ("", ())
        if name == _PACKED_RELOCATIONS[0]:
            family, version = "GLIBC", _PACKED_RELOCATIONS[1]
        if family and version > max(limits[family], too_new.get(family, ())):
            too_new[family] = version
    for family, version in too_new.items():
        has = ".".join(map(str, limits[family]))
        needs = ".".join(map(str, version))
        text = (
            f"it needs {family}_{needs} of {need.name}; {target.runtime.name} has {_FAMILY_OWNERS[family]} with {has}"
        )
        yield _finding(tree, "binary-glibc" if family == "GLIBC" else "binary-libstdcxx", path, text)
