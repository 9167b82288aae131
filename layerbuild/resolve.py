"""Resolving: from a recipe's requirements to the pins of one target, by pip-tools or uv.

Right for the target, never for the host: pip-tools evaluates markers and tags of the interpreter it runs in,
so it serves only where that is the target's; uv resolves for another platform and Python
(pypa/pip#11664, jazzband/pip-tools#826 for what goes wrong otherwise). Neither may build a source package,
as that would run the package's code on the host.
"""

from __future__ import annotations

import os
import platform
import re
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from layerbuild.builders.container import ContainerBuilder
from layerbuild.builders.environment import GLIBC_LIMIT
from layerbuild.builders.failures import instead_of
from layerbuild.builders.host import NoWheelError
from layerbuild.builders.image import tool_version
from layerbuild.diagnose import explain
from layerbuild.errors import BuildError
from layerbuild.lock import normal_name, parse_lock, write_lock
from layerbuild.process import Completed, run
from layerbuild.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from layerbuild.builders import Builder
    from layerbuild.index import Index, IndexFile
    from layerbuild.lock import Lock
    from layerbuild.pip_settings import PipSettings
    from layerbuild.target import Target

_INPUT, _OUTPUT = "requirements.in", "requirements.txt"
_CONSTRAINTS, _EXCLUSIONS, _KEPT = "constraints.txt", "exclusions.txt", "kept.txt"
_MAX_ROUNDS = 20

# uv knows these glibc versions for --python-platform; a runtime takes the oldest that is not older than its own.
_UV_GLIBC = ((2, 17), (2, 28), *((2, minor) for minor in range(31, 41)))


def host_is(target: Target) -> bool:
    """Whether the running interpreter is one of the target's kind, but for its patch version and glibc."""
    return (
        sys.platform == "linux"
        and sys.version_info[:2] == target.runtime.version
        and platform.machine() == target.machine
        and platform.python_implementation() == "CPython"
        and platform.libc_ver()[0] == "glibc"
    )


def resolve(
    recipe: Recipe,
    target: Target,
    index: Index,
    *,
    keep: Mapping[str, str] | None = None,
    builder: Builder | None = None,
) -> str:
    """Resolves a recipe for a target.

    On the host, with wheels alone; in a container where `builder` fetches inside one, or where there is no wheel.

    Args:
        recipe: whose requirements and constraints hold.
        target: what the pins must be right for.
        index: whose settings the tools get, and which explains a failure.
        keep: name to version of the pins to keep where they still fit.
        builder: the recipe's.

    Returns:
        The text of the new lock.

    Raises:
        BuildError: there is no solution, or a package has no wheel for the target.
        MachineError: the index cannot be reached.
    """
    # The pages are needed for the hashes anyway; asked for now, they tell at once that there is no network, which
    # uv takes half a minute to say.
    _pages([re.split(r"[^\w.-]", text)[0] for text in recipe.requirements], index)
    container = builder if isinstance(builder, ContainerBuilder) else None
    if not recipe.requirements:
        return write_lock(recipe, target, "nothing to resolve", "")

    def on_host(folder: Path, arguments: list[str]) -> _Resolver:
        if host_is(target):
            return _pip_tools(folder, target, index.settings, arguments)
        return _uv(target, index.settings, arguments)

    def inside(_folder: Path, arguments: list[str]) -> _Resolver:
        assert container is not None  # noqa: S101
        return _inside(container, recipe, target, index, arguments)

    if container and container.fetches_inside:
        return _resolve_with(inside, recipe, target, index, keep)
    try:
        return _resolve_with(on_host, recipe, target, index, keep)
    except NoWheelError as error:
        if not container or not error.has_source:
            raise
        no_wheel = error
    with instead_of(lambda: no_wheel):
        return _resolve_with(inside, recipe, target, index, keep)


def _resolve_with(
    make: Callable[[Path, list[str]], _Resolver],
    recipe: Recipe,
    target: Target,
    index: Index,
    keep: Mapping[str, str] | None,
) -> str:
    """The text of the new lock, as the resolver says that `make` returns for a folder and arguments."""
    with tempfile.TemporaryDirectory(prefix="layerbuild-") as name:
        folder = Path(name)
        _write_lines(folder / _INPUT, recipe.requirements)
        _write_lines(folder / _CONSTRAINTS, recipe.constraints)
        arguments = ["--no-header", "--strip-extras", "--output-file", _OUTPUT]
        arguments += ["--constraint", _CONSTRAINTS, "--constraint", _EXCLUSIONS, "--constraint", _KEPT, _INPUT]
        resolver = make(folder, arguments)
        resolved = _keeping(dict(keep or {}), resolver, folder, recipe, target, index)
    resolved = _without_exclusions(resolved).replace(f"-r {_INPUT}", recipe.origin)
    resolved = resolved.replace(f"-c {_CONSTRAINTS}", f"constraints of {recipe.origin}")
    return write_lock(recipe, target, resolver.name, add_hashes(resolved, index))


def build_lock(requirements: Sequence[str], constraints: Sequence[str], target: Target, index: Index) -> Lock:
    """A lock, written nowhere, for what a build needs: wheels only, so that nothing is run to learn it."""
    recipe = Recipe(name="build", requirements=tuple(requirements), constraints=tuple(constraints))
    return parse_lock(resolve(recipe, target, index), target)


def _pages(names: Iterable[str], index: Index) -> list[tuple[IndexFile, ...]]:
    """What the index has of each project, several asked for at a time."""
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(index.files, names))


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")


def _keeping(
    pins: dict[str, str], resolver: _Resolver, folder: Path, recipe: Recipe, target: Target, index: Index
) -> str:
    """The resolver's output with these pins, or with as few of them given up as its explanations ask for.

    As constraints, not as the preferences that an output file would be: those uv gives up, and pip-tools does not,
    for reasons of their own.
    """
    while pins:
        _write_lines(folder / _KEPT, (f"{name}=={version}" for name, version in sorted(pins.items())))
        try:
            return _run_until_all_fit(resolver, folder, recipe, target, index)
        except BuildError as error:
            told = " ".join(error.causes).lower()
            blamed = [name for name in pins if re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", told)]
            pins = {name: version for name, version in pins.items() if name not in blamed} if blamed else {}
    _write_lines(folder / _KEPT, ())
    return _run_until_all_fit(resolver, folder, recipe, target, index)


def _run_until_all_fit(resolver: _Resolver, folder: Path, recipe: Recipe, target: Target, index: Index) -> str:
    """The resolver's output, once every pin in it has a wheel for the target.

    Where a tool knows the target's glibc only roughly, it may choose a version whose wheels all need a newer
    one. Versions without a fitting wheel are then excluded, and it runs again.
    """
    unfit: dict[str, list[str]] = {}
    for _ in range(_MAX_ROUNDS):
        (folder / _OUTPUT).unlink(missing_ok=True)
        _write_lines(
            folder / _EXCLUSIONS, (name + ",".join(f"!={version}" for version in unfit[name]) for name in unfit)
        )
        done = resolver.run(folder)
        if done.returncode:
            raise explain(recipe, target, index, _output(done, recipe), unfit, builds=resolver.builds)
        resolved = (folder / _OUTPUT).read_text("utf-8")
        more = {} if resolver.builds else _versions_without_wheel(resolved, target, index)
        if not more:
            return resolved
        unfit |= more
    raise explain(recipe, target, index, "", unfit)


def _output(done: Completed, recipe: Recipe) -> str:
    """What a resolver said. pip names a requirement by its line in a file that the user has never seen."""
    output = done.stdout + done.stderr
    for number, requirement in enumerate(recipe.requirements, 1):
        output = output.replace(f"-r {_INPUT} (line {number})", requirement)
    return output


def _versions_without_wheel(resolved: str, target: Target, index: Index) -> dict[str, list[str]]:
    """For each pin that no wheel can meet on the target: all versions of it that are so."""
    pins = [match.groups()[:2] for match in _PIN.finditer(resolved)]
    pages = _pages([name for name, _ in pins], index)
    accepted = set(target.tags())
    unfit = {}
    for (name, version), files in zip(pins, pages, strict=True):
        fitting: set[str] = set()
        others: set[str] = set()
        for file in files:
            if release := file.release:
                (fitting if accepted & release.tags else others).add(str(release.version))
        if version not in fitting:
            unfit[name] = sorted(others - fitting)
    return unfit


def _without_exclusions(resolved: str) -> str:
    """A resolver's output without its remarks on what was excluded or kept."""
    for name in (_EXCLUSIONS, _KEPT):
        resolved = resolved.replace(f"    #   -c {name}\n", "")
    return re.sub(r"# via\n    #   (.+)\n(?!    #   )", r"# via \1\n", resolved)


_PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)(.*)$", re.MULTILINE)


def add_hashes(resolved: str, index: Index) -> str:
    """Adds to each pin of a resolver's output the sha256 of every file that the index has of that version.

    Both tools could do it, but pip-tools fetches every file to hash it where an index lacks one vendor's JSON
    interface, which for numpy alone is half a gigabyte; an index says the hashes on the page that was read anyway.
    """

    def hashed(match: re.Match[str]) -> str:
        name, version, rest = match.groups()
        hashes = sorted(version_hashes(index, name, version))
        pin = f"{name}=={version}{rest}".rstrip(" \\")
        lines = [pin, *(f"--hash=sha256:{text}" for text in hashes)]
        return " \\\n    ".join(lines)

    return _PIN.sub(hashed, resolved)


def version_hashes(index: Index, name: str, version: str) -> set[str]:
    """The sha256 (hex) of every wheel and source archive of a version; read off the file where nobody says it."""
    from packaging.version import Version

    wanted = Version(version)
    releases = [(file, file.release) for file in index.files(name)]
    return {
        index.sha256(file)
        for file, release in releases
        if release and release.name == normal_name(name) and release.version == wanted
    }


@dataclass(frozen=True, kw_only=True)
class _Resolver:
    """A tool: its name and version, how to run it in a folder, and whether it may build source packages."""

    name: str
    run: Callable[[Path], Completed]
    builds: bool = False


def _process(name: str, command: list[str], env: dict[str, str | None]) -> _Resolver:
    """A tool that is a process of this machine."""
    return _Resolver(name=name, run=lambda folder: run(command, env=env, cwd=folder))


def _version(distribution: str) -> str:
    from importlib.metadata import version

    return f"{distribution} {version(distribution)}"


# Only a verbose one says what contradicts what.
_PIP_COMPILE = (
    *("-m", "piptools", "compile", "--verbose", "--allow-unsafe", "--no-config", "--no-emit-index-url"),
    *("--no-emit-find-links", "--no-emit-trusted-host", "--no-emit-options"),
)
# Markers see the target's patch version, not that of the interpreter at hand.
_PATCH_VERSION = "import platform\nplatform.python_version = lambda: {!r}\n"


_NOT_FOUND = re.compile(r"(?:No matching distribution found for|satisfies the requirement) ([A-Za-z0-9][\w.-]*)")


def _inside(
    container: ContainerBuilder, recipe: Recipe, target: Target, index: Index, arguments: list[str]
) -> _Resolver:
    """pip-tools, run by the target's own interpreter in a container."""

    def run_inside(folder: Path) -> Completed:
        inputs = {path.name: path.read_text("utf-8") for path in folder.iterdir()}
        inputs |= {
            "sitecustomize.py": _PATCH_VERSION.format(target.runtime.python),
            "_manylinux.py": GLIBC_LIMIT.format(glibc=target.runtime.glibc),
        }
        names = {normal_name(re.split(r"[^\w.-]", text)[0]) for text in recipe.requirements}
        command = [*_PIP_COMPILE, *arguments]
        while True:
            code, told, left = container.compile_lock(target, recipe.build, inputs, command, names=sorted(names))
            # What lies in a folder of this machine is put in once it is asked for.
            missing = {normal_name(name) for name in _NOT_FOUND.findall(told)} - names if code else set()
            names |= {name for name in missing if any(file.local_path for file in index.files(name))}
            if not missing & names:
                break
        if _OUTPUT in left:
            (folder / _OUTPUT).write_text(left[_OUTPUT], "utf-8")
        elif not code:
            code, told = 1, f"{told}\nERROR: pip-compile wrote nothing"
        return Completed(returncode=code, stdout=told, stderr="")

    return _Resolver(name=f"pip-tools {tool_version('pip-tools')} in a container", run=run_inside, builds=True)


def _pip_tools(folder: Path, target: Target, settings: PipSettings, arguments: list[str]) -> _Resolver:
    (folder / "_manylinux.py").write_text(GLIBC_LIMIT.format(glibc=target.runtime.glibc), "utf-8")
    command = [sys.executable, *_PIP_COMPILE, "--pip-args", "--only-binary :all:", *arguments]
    (folder / "sitecustomize.py").write_text(_PATCH_VERSION.format(target.runtime.python), "utf-8")
    # Pre-releases are for requirements to ask for: uv does not know of pip's setting.
    env: dict[str, str | None] = {"PYTHONPATH": str(folder), "PIP_NO_COLOR": "1", "PIP_PRE": "0"}
    if settings.find_links:
        # pip would look for relative ones in the folder that it runs in.
        env["PIP_FIND_LINKS"] = " ".join(settings.find_links)
    return _process(_version("pip-tools"), command, env)


def _uv(target: Target, settings: PipSettings, arguments: list[str]) -> _Resolver:
    glibc = min(version for version in _UV_GLIBC if version >= target.runtime.glibc)
    command = [
        *(_find_uv(), "pip", "compile", "--quiet", "--color", "never"),
        *("--no-config", "--only-binary", ":all:", "--no-python-downloads"),
        *("--python", sys.executable, "--python-version", target.runtime.python),
        *("--python-platform", f"{target.machine}-manylinux_{glibc[0]}_{glibc[1]}"),
        # pip knows no order among indexes: the best version wins wherever it is.
        *("--index-strategy", "unsafe-best-match", *arguments),
    ]
    return _process(_version("uv"), command, _uv_environment(settings))


_finding = threading.Lock()


def _find_uv() -> str:
    """Where uv's program is. One thread at a time: `sysconfig` is not safe when first asked by two."""
    from uv import find_uv_bin

    with _finding:
        return str(find_uv_bin())


# Those of uv's variables that are about this machine alone.
_UV_MACHINE = ("UV_CACHE_DIR", "UV_SYSTEM_CERTS", "UV_NATIVE_TLS", "UV_CONCURRENT_DOWNLOADS")


def _uv_environment(settings: PipSettings) -> dict[str, str | None]:
    """pip's settings as uv's variables: in no command line, where other users could read a credential."""
    # uv's own settings would change what is resolved, and where from: pip's hold.
    env: dict[str, str | None] = {
        name: None for name in os.environ if name.startswith("UV_") and name not in _UV_MACHINE
    }
    env |= {"UV_HTTP_TIMEOUT": str(int(settings.timeout) or 1), "UV_HTTP_RETRIES": str(settings.retries)}
    if settings.index_url:
        env["UV_DEFAULT_INDEX"] = settings.index_url
    if settings.extra_index_urls:
        env["UV_INDEX"] = " ".join(settings.extra_index_urls)
    links = [place for place in settings.find_links if "://" in place or Path(place).exists()]
    if links:
        env["UV_FIND_LINKS"] = ",".join(links)
    if settings.no_index:
        env["UV_NO_INDEX"] = "1"
    if settings.trusted_hosts:
        env["UV_INSECURE_HOST"] = " ".join(settings.trusted_hosts)
    if settings.cert:
        env["SSL_CERT_FILE"] = settings.cert
    if settings.client_cert:
        env["SSL_CLIENT_CERT"] = settings.client_cert
    if settings.proxy:
        env["ALL_PROXY"] = settings.proxy
    return env
