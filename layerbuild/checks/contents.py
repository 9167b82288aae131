"""Rules about what a layer holds and where: modules, distributions, programs, bytecode, modes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from layerbuild import modules
from layerbuild.checks import Finding, some
from layerbuild.checks.requirements import check as check_requirements
from layerbuild.target import runtimes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from layerbuild.target import Target
    from layerbuild.tree import Distribution, Entry, Tree

_READ, _READ_AND_ENTER = 0o004, 0o005
_EXECUTE = 0o001
_PROGRAMS = ("bin/", "extensions/")
_KNOWN_TOPS = ("python", "lib", "bin", "extensions", "bootstrap")
_MODULES = (".py", ".pyc", ".so")
# Where packages end up by a wrong --prefix, by zipping one folder too high, or on Debian.
_WRONG_SITE = re.compile(
    r"python/python|python/(?:lib/|lib64/)?(?:site|dist)-packages"
    r"|(?:python/lib64|python|lib|lib64)/python\d(?:\.\d+)?/(?:site|dist)-packages|python/lib/python3/.+-packages"
)
_VERSION_FOLDER = re.compile(r"python/lib/python3\.\d+")
_ANY_SITE = re.compile(r"python/lib/python3\.\d+/site-packages")


def check(tree: Tree) -> Iterator[Finding]:
    """The ``contents`` rules that hold for every runtime."""
    yield from _modes_and_programs(tree)
    yield from _misplaced(tree)
    yield from _two_versions(tree)
    yield from _metadata_and_modules(tree)
    for path, entry in tree.entries.items():
        if entry.facts.get("pth") and path.rpartition("/")[0] in _sites():
            lines = entry.facts["pth"]
            text = f"it has {_count(lines, 'line')}: {lines[0][:100]!r}"
            yield Finding(code="contents-pth", path=path, package=_package(tree, path), message=text)


def check_for_target(tree: Tree, target: Target) -> Iterator[Finding]:
    """The ``contents`` rules that depend on the runtime or the architecture."""
    own = modules.site_folder(target.runtime)
    foreign = sorted(folder for folder in tree.children if folder != own and _ANY_SITE.fullmatch(folder))
    for site in foreign:
        severity = "warning" if own in tree.children else ""
        text = f"{target.runtime.name} does not look in {site}"
        yield Finding(code="contents-other-python", severity=severity, path=site, message=text)
    yield from _shadows(tree, target)
    yield from check_requirements(tree, target)
    yield from bytecode(tree, target, tree.entries)


def _sites() -> set[str]:
    """Every folder in which some runtime looks for packages."""
    return {"python", *(modules.site_folder(runtime) for runtime in runtimes())}


def _package(tree: Tree, path: str) -> str | None:
    owner = tree.owner(path)
    return str(owner) if owner else None


def _count(things: Iterable[Any], name: str) -> str:
    number = len(list(things))
    return f"{number} {name}" if number == 1 else f"{number:,} {name}s"


def _modes_and_programs(tree: Tree) -> Iterator[Finding]:
    for path, entry in tree.entries.items():
        mode = entry.mode
        if mode is not None and entry.kind != "symlink":
            wanted = _READ_AND_ENTER if entry.kind == "folder" else _READ
            if mode & wanted != wanted:
                text = f"its mode is {mode:04o}: functions cannot read it"
                yield Finding(code="contents-mode", path=path, package=_package(tree, path), message=text)
        if entry.kind == "file" and (path == "bootstrap" or path.startswith(_PROGRAMS)):
            yield from _program(path, entry)


def _program(path: str, entry: Entry) -> Iterator[Finding]:
    runs = "shebang" in entry.facts or entry.facts.get("elf", {}).get("type") in ("executable", "shared")
    started = path == "bootstrap" or (path.startswith("extensions/") and path.count("/") == 1)
    if started and path != "bootstrap" and not runs:
        text = "Lambda starts it as an extension, and it is neither an ELF file nor a script"
        yield Finding(code="contents-stray-extension", path=path, message=text)
    elif started and entry.mode is None:
        text = "the zip does not say its mode: whether Lambda can start it is unknown"
        yield Finding(code="contents-not-executable", severity="warning", path=path, message=text)
    elif (started or (runs and path.startswith("bin/"))) and entry.mode is not None and not entry.mode & _EXECUTE:
        severity = "" if started else "warning"
        text = f"its mode is {entry.mode:04o}, without an executable bit"
        yield Finding(code="contents-not-executable", severity=severity, path=path, message=text)
    if entry.facts.get("shebang", "").endswith("\r"):
        line = entry.facts["shebang"].rstrip("\r")[:100]
        yield Finding(code="contents-crlf", path=path, message=f"{line!r} is followed by a carriage return")


def _misplaced(tree: Tree) -> Iterator[Finding]:
    top = tree.children.get("", {})
    importable = [name for name in top if name not in _KNOWN_TOPS and _imports(tree, name)]
    # Beside what Lambda does look for, it may be data of a program or of an extension.
    lost = not any(name in top for name in _KNOWN_TOPS)
    if importable:
        text = f"{some(sorted(importable))} at the top of the layer: Lambda looks in python/"
        yield Finding(
            code="contents-misplaced", severity="" if lost else "warning", path=min(importable), message=text
        )
    for name, is_folder in top.items() if lost else ():
        inner = [name] if name.lower() == "python" else [f"{name}/python"] if is_folder else []
        for folder in inner:
            if folder in tree.children:
                text = f"{folder}/ is not where Lambda looks: it must be python/, at the top of the layer"
                yield Finding(code="contents-misplaced", path=folder, message=text)
    others = [name for name in top if name not in _KNOWN_TOPS and name not in importable]
    if others:
        text = f"{some(sorted(others))} at the top of the layer: nothing on Lambda looks there by itself"
        yield Finding(code="contents-misplaced", severity="note", path=min(others), message=text)
    for folder, names in tree.children.items():
        right = {"site-packages"} if _VERSION_FOLDER.fullmatch(folder) else set()
        if right or _WRONG_SITE.fullmatch(folder):
            found = [name for name in names if name not in right and _imports(tree, f"{folder}/{name}")]
            if found:
                told = some(sorted(found))
                text = f"{told} in {folder}: Lambda looks in python/ and python/lib/pythonX.Y/site-packages"
                yield Finding(code="contents-misplaced", path=folder, message=text)


def _imports(tree: Tree, path: str) -> bool:
    """Whether something looks as if it were to be imported: a module, a package, what was installed with them."""
    folder, _, name = path.rpartition("/")
    if not tree.children[folder][name]:
        return path.endswith(_MODULES)
    below = tree.children.get(path, {})
    folders = [tree.children.get(f"{path}/{name}", {}) for name, is_folder in below.items() if is_folder]
    return path.endswith((".dist-info", ".egg-info")) or any(map(_is_package, (below, *folders)))


def _is_package(names: Mapping[str, bool]) -> bool:
    return any(names.get(f"__init__{ending}") is False for ending in _MODULES)


def installed(tree: Tree, sites: Iterable[str]) -> list[Distribution]:
    """The distributions in the given folders; those that packages have vendored lie elsewhere."""
    wanted = set(sites)
    return [distribution for distribution in tree.distributions if distribution.site in wanted]


def _two_versions(tree: Tree) -> Iterator[Finding]:
    found: dict[str, list[Distribution]] = {}
    for distribution in installed(tree, _sites()):
        others = found.setdefault(distribution.normal_name, [])
        same_python = [
            one for one in others if one.site == distribution.site or "python" in (one.site, distribution.site)
        ]
        for other in same_python:
            if other.normal_version != distribution.normal_version:
                text = f"{distribution.name} is there as {other.version} and as {distribution.version}"
                yield Finding(
                    code="contents-two-versions", path=distribution.info, package=distribution.name, message=text
                )
        others.append(distribution)


def _metadata_and_modules(tree: Tree) -> Iterator[Finding]:
    for distribution in installed(tree, _sites()):
        modules_of_it = [
            path
            for path in distribution.recorded or ()
            if path.endswith((".py", ".so")) and not path.startswith("bin/")
        ]
        if modules_of_it and not any(path in tree.entries or f"{path}c" in tree.entries for path in modules_of_it):
            text = f"none of the {_count(modules_of_it, 'module')} that its RECORD lists is there"
            yield Finding(
                code="contents-orphan-dist-info", path=distribution.info, package=str(distribution), message=text
            )
    for site in sorted(_sites()):
        there = [distribution for distribution in tree.distributions if distribution.site == site]
        if any(distribution.recorded is None for distribution in there):
            continue  # nobody knows which modules are theirs
        owned = {path.removeprefix(f"{site}/").split("/")[0] for one in there for path in one.recorded or ()}
        names = [
            name
            for name, is_folder in tree.children.get(site, {}).items()
            if name not in owned
            and (_holds_modules(tree, f"{site}/{name}") if is_folder else name.endswith((".py", ".so")))
        ]
        if site == "python":
            names = [name for name in names if name != "lib"]
        if names:
            text = f"no distribution in {site} lists {some(sorted(names))}"
            yield Finding(code="contents-no-dist-info", path=f"{site}/{sorted(names)[0]}", message=text)


def _holds_modules(tree: Tree, folder: str) -> bool:
    return any(
        not is_folder and name.endswith((".py", ".so")) for name, is_folder in tree.children.get(folder, {}).items()
    )


def _shadows(tree: Tree, target: Target) -> Iterator[Finding]:
    runtime = target.runtime
    standard, fixed, bundled = (
        modules.standard_library(runtime),
        modules.unshadowable(runtime),
        modules.bundled(runtime),
    )
    folders, endings = TreeFolders(tree), modules.suffixes(target)
    for site in (modules.site_folder(runtime), "python"):
        for name in sorted(set(modules.module_names(folders.names(site), endings)) & (standard | bundled.keys())):
            found = modules.find(name, [site], folders, endings)
            if found is None or found.path is None:
                continue  # a folder without __init__ hides nothing
            package = _package(tree, found.path)
            if name in bundled:
                text = f"every function that has the layer imports this {name} instead of the runtime's"
                yield Finding(code="contents-runtime", path=found.path, package=package, message=text)
                continue
            severity, text = "", f"it is imported instead of the standard library's {name}"
            if name in fixed:
                severity, text = "warning", f"it is never imported: {runtime.name} has loaded its own {name} by then"
            yield Finding(code="contents-stdlib", severity=severity, path=found.path, package=package, message=text)


class TreeFolders:
    """A layer's folders, as `layerbuild.modules` asks for them."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    def names(self, folder: str) -> dict[str, bool]:
        """See `layerbuild.modules.Folders`."""
        real = self._tree.real_path(folder)
        return {} if real is None else self._tree.children.get(real, {})


_PYC = re.compile(r"(?P<folder>.*/)?__pycache__/(?P<stem>[^/.]+)\.(?P<tag>[^/]+?)(?:\.opt-\d)?\.pyc")


def bytecode(tree: Tree, target: Target, paths: Iterable[str]) -> Iterator[Finding]:
    """One finding for each way in which bytecode is of no use, however many of the files at `paths` are."""
    bad: dict[tuple[str, str], list[str]] = {}
    for path in paths:
        entry = tree.entries[path]
        if "pyc" in entry.facts and (problem := _bytecode_problem(tree, target, path, entry)):
            bad.setdefault(problem, []).append(path)
    for (severity, text), found in bad.items():
        message = f"it is {text}"
        owners = {_package(tree, path) for path in found}
        package = owners.pop() if len(owners) == 1 else None
        yield Finding(
            code="contents-bytecode",
            severity=severity,
            path=min(found),
            package=package,
            files=len(found),
            message=message,
        )


def _bytecode_problem(tree: Tree, target: Target, path: str, entry: Entry) -> tuple[str, str] | None:
    """(severity, what is wrong) with one bytecode file, or None."""
    magic, flags, *rest = entry.facts["pyc"]
    right = target.runtime.bytecode_magic
    cached = _PYC.fullmatch(path)
    if cached is None:
        if path.endswith(".pyc") and f"{path[:-1]}" in tree.entries:
            return "warning", "beside its source, where Python does not look for it"
        return ("error", "of another Python, without source") if magic != right else None
    source = f"{cached['folder'] or ''}{cached['stem']}.py"
    if cached["tag"] != "cpython-{}{}".format(*target.runtime.version) or magic != right:
        return "warning", f"of another Python than {target.runtime.name}"
    if source not in tree.entries:
        return "warning", "in __pycache__ without source: never imported"
    if not flags & 1:
        return "warning", "tied to the date of the source, which a zip does not keep"
    if _source_hash(tree.read(source), target) in (None, b"".join(word.to_bytes(4, "little") for word in rest)):
        return None
    return ("warning" if flags & 2 else "error"), "compiled from another content than its source has now"


def _source_hash(source: bytes, target: Target) -> bytes | None:
    """The hash of PEP 552 for a target's Python; None where this Python computes another (before 3.11: siphash24)."""
    import _imp

    if target.runtime.version < (3, 11):
        return None
    key = target.runtime.bytecode_magic | 0x0A0D << 16
    digest: bytes = _imp.source_hash(key, source)
    return digest
