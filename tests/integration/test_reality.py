"""What the binary rules say of real packages against what a real loader and a real import make of them.

The verdict of ``layerbuild check`` is *fails* with an error of the ``binary`` family, *unknown* with a warning about
a library and no error, else *loads*. The outcome is that of a real Python of the runtime's version, in a root with
the shared libraries that Lambda has and no others (`tests.lambda_root`). It *fails* if the dynamic loader refuses any
shared library or program of the layer, or if a module does not import; else it *loads*. A library that another file
needs is opened through that file and not by itself, as in a function.

The two agree if they are the same, and for the same reasons: each library that the verdict calls absent is missing
for the loader, each library that the loader misses has a finding, and the newest symbol version that either asks for
in vain is the same. *unknown* claims nothing about the outcome and contradicts none.

No ELF file says which library a package opens by name at run time, by ctypes or cffi. The rules cannot know; cases
with `by_name` show it.

``python -m tests.integration.test_reality`` prints all as a Markdown table.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile

from layerbuild.target import Target, select_targets
from tests import lambda_probe
from tests.debian import ARCHITECTURES, Debian, require_debian, run
from tests.integration.reality_cases import CASES, Case
from tests.interpreters import find_python
from tests.lambda_root import shared_debian, shared_root

PROBE = Path(lambda_probe.__file__).read_text(encoding="utf-8")
TRIPLETS = {"x86_64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What was found out about a case on a target: by the rules (`findings`), and for real (all else)."""

    case: Case
    target: Target
    findings: list[dict[str, Any]]
    refused: dict[str, str]
    not_imported: dict[str, str]
    lacking: set[str]

    def of(self, code: str) -> list[dict[str, Any]]:
        """The findings with a code, or with codes that begin so."""
        return [finding for finding in self.findings if finding["code"].startswith(code)]

    @property
    def verdict(self) -> str:
        if any(finding["severity"] == "error" for finding in self.findings):
            return "fails"
        return "unknown" if self.of("binary-library") else "loads"

    @property
    def outcome(self) -> str:
        return "fails" if self.refused or self.not_imported else "loads"

    @property
    def said(self) -> str:
        """All that the loader and the imports said."""
        return "\n".join([*self.refused.values(), *self.not_imported.values()])

    def disagreements(self) -> list[str]:
        """In which points verdict and outcome contradict each other."""
        if self.verdict == "unknown":
            return []
        found = []
        if self.verdict != self.outcome:
            found.append(f"verdict: {self.verdict}, outcome: {self.outcome}")
        missed, absent = _libraries(self.said), _libraries(_messages(self.of("binary-library-absent")))
        doubted = _libraries(_messages(self.of("binary-library")))
        # Of a file for another C library or machine, the rules look no further than that.
        if not self.of("binary-musl") and not self.of("binary-machine"):
            found += [f"absent by the rules, found by the loader: {name}" for name in sorted(absent - missed)]
            found += [f"missed by the loader, without a finding: {name}" for name in sorted(missed - doubted)]
            too_new = _versions(_messages([*self.of("binary-glibc"), *self.of("binary-libstdcxx")]))
            refused = _versions(self.said)
            if too_new != refused:
                found.append(f"symbol versions: {too_new} by the rules, {refused} by the loader")
        return found


def _messages(findings: list[dict[str, Any]]) -> str:
    # The name of what is needed comes first; a path behind it may have other libraries' names in it.
    return "\n".join(finding["message"].split(" which ")[0] for finding in findings)


def _libraries(text: str) -> set[str]:
    """The libraries that messages call missing, of the rules, of the loader and of its list."""
    patterns = (r"it needs (lib\S+?\.so[\w.]*)", r"(lib[^\s/]+): cannot open shared", r"^(lib\S+) => not found")
    return {name for pattern in patterns for name in re.findall(pattern, text, re.M)}


def _versions(text: str) -> dict[str, str]:
    """The newest symbol version of each kind that is asked for in vain."""
    newest: dict[str, list[int]] = defaultdict(list)
    for kind, version in re.findall(r"(?:it needs |version `)(GLIBC|GLIBCXX|CXXABI|GCC)_([\d.]+\d)", text):
        newest[kind] = max(newest[kind], [int(number) for number in version.split(".")])
    return {kind: ".".join(map(str, version)) for kind, version in sorted(newest.items())}


def see(case: Case, target: Target, folder: Path, roots: Path) -> Seen:
    """Makes the layer of a case in a root below `folder`, checks it, and tries it."""
    root = shared_root(roots, target).copy(folder / "root")
    layer = root.folder / "opt"
    install(case, target, layer, shared_debian(roots, target))
    command = (sys.executable, "-m", "layerbuild", "check", str(layer), "--target", str(target))
    chosen = ("--select", "binary", "--json")
    env = {**os.environ, "LAYERBUILD_CACHE_DIR": str(folder / "cache")}
    checked = subprocess.run([*command, *chosen], capture_output=True, text=True, cwd=folder, env=env)
    assert checked.returncode in (0, 1), checked.stdout + checked.stderr
    (report,) = json.loads(checked.stdout)["layers"]
    request = {"loader": root.loader, "files": entry_files(layer), "modules": case.imports.split()}
    tried = json.loads(root.python("-c", PROBE, sent=json.dumps(request)))
    return Seen(
        case=case,
        target=target,
        findings=report["findings"],
        refused={path: said for path, said in tried["files"].items() if said},
        not_imported={name: said for name, said in tried["modules"].items() if said},
        lacking=root.lacking,
    )


def install(case: Case, target: Target, layer: Path, packages: Debian) -> None:
    """Puts the wheels of a case where Lambda looks for them; pip takes those that fit the target."""
    site = layer / "python" / "lib" / target.runtime.name / "site-packages"
    platforms = [case.platform.format(target.machine)] if case.platform else target.platforms()
    version = "{}.{}".format(*target.runtime.version)
    more = ("--find-links", build_psycopg(case.build, target, layer.parents[1], packages)) if case.build else ()
    run(
        *(sys.executable, "-m", "pip", "install", "--quiet", "--target", site, "--no-deps", "--no-compile", *more),
        *("--only-binary", ":all:", "--implementation", "cp", "--python-version", version),
        *(word for platform in platforms for word in ("--platform", platform)),
        *case.pins.split(),
    )
    # distutils names extension modules for the Python that builds them.
    for path in site.glob(f"psycopg_c/*{TRIPLETS['x86_64']}.so"):
        path.rename(path.with_name(path.name.replace(TRIPLETS["x86_64"], TRIPLETS[target.arch])))


def build_psycopg(requirement: str, target: Target, work: Path, packages: Debian) -> Path:
    """Builds a wheel of psycopg-c against Debian's libpq; for arm64 with a cross compiler. Returns its folder."""
    triplet = TRIPLETS[target.arch]
    compiler, builder = shutil.which(f"{triplet}-gcc"), find_python("{}.{}".format(*target.runtime.version))
    if compiler is None:
        pytest.skip(f"there is no {triplet}-gcc here")
    packages.unpack([f"{name}:{ARCHITECTURES[target.arch]}" for name in ("libpq-dev", "libpq5")], work / "libpq")
    config = work / "bin" / "pg_config"
    config.parent.mkdir()
    usr = work / "libpq" / "usr"
    config.write_text(f"#!/bin/sh\ntest $1 = --libdir && echo {usr}/lib/{triplet} || echo {usr}/include/postgresql\n")
    config.chmod(0o755)
    # Not from pip's cache: it would take a wheel of an earlier run for another libpq.
    options = ("--quiet", "--no-deps", "--no-cache-dir", "--no-binary", ":all:")
    run(
        *(builder, "-m", "pip", "wheel", *options, "--wheel-dir", work / "wheels", requirement),
        PATH=f"{config.parent}{os.pathsep}{os.environ['PATH']}",
        CC=compiler,
        LDSHARED=f"{compiler} -shared",
        CFLAGS="-O0",
        _PYTHON_HOST_PLATFORM=f"linux-{target.machine}",
    )
    return work / "wheels"


def entry_files(layer: Path) -> list[str]:
    """The ELF files of a layer that no other one needs, by their paths under ``/opt``.

    Without a dynamic section (object files, static programs, separate debug information) the loader has no work.
    """
    needs: dict[Path, set[str]] = {}
    names: dict[Path, set[str]] = {}
    for path in sorted(layer.rglob("*")):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                if file.read(4) != b"\x7fELF":
                    continue
                dynamic = ELFFile(file).get_section_by_name(".dynamic")
                if not isinstance(dynamic, DynamicSection):
                    continue
                tags: list[Any] = list(dynamic.iter_tags())
            needs[path] = {tag.needed for tag in tags if tag.entry.d_tag == "DT_NEEDED"}
            names[path] = {path.name, *(tag.soname for tag in tags if tag.entry.d_tag == "DT_SONAME")}
    needed = set().union(*needs.values())
    return [f"/opt/{path.relative_to(layer).as_posix()}" for path in needs if not names[path] & needed]


ALL = [(case, name) for case in CASES for name in case.targets]
IDS = [" ".join([case.title, case.platform.split("_{")[0], name]).replace("  ", " ") for case, name in ALL]


@pytest.fixture(scope="session")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the roots: one for all workers of a session, or that in ``LAMBDA_ROOTS``, which is kept."""
    base = tmp_path_factory.getbasetemp()
    session = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "lambda-roots"
    return Path(os.environ.get("LAMBDA_ROOTS", session))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that is emptied afterwards: layers are large."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("case", "name"), ALL, ids=IDS)
def test_the_rules_say_what_happens(case: Case, name: str, folder: Path, roots: Path) -> None:
    require_debian()
    (target,) = select_targets([name])
    seen = see(case, target, folder, roots)

    # That the real side works at all: what is known to be missing was missing, and nothing else.
    assert seen.outcome == ("fails" if case.misses or case.by_name else "loads"), seen.said
    assert not _libraries(seen.said) & seen.lacking
    assert [word for word in [*case.misses.split(), case.by_name] if word not in seen.said] == []

    if case.by_name:
        assert (seen.verdict, seen.refused) == ("loads", {})
    else:
        assert (seen.verdict, seen.disagreements()) == (seen.outcome, [])


def row(seen: Seen) -> str:
    """A row of the table."""
    codes: dict[str, set[str]] = defaultdict(set)
    for finding in seen.findings:
        message = _messages([finding])
        names = _libraries(message) | {f"{kind}_{version}" for kind, version in _versions(message).items()}
        codes[finding["code"]] |= names
    findings = "; ".join(
        " ".join([f"`{code}`", ", ".join(sorted(names))]).strip() for code, names in sorted(codes.items())
    )
    missing = sorted(_libraries(seen.said) | {f"{kind}_{version}" for kind, version in _versions(seen.said).items()})
    words = [Path(word).name if "/" in word else word for word in seen.said.partition("\n")[0].split()]
    if seen.case.by_name:
        agree = "no: opened by name"
    elif seen.disagreements():
        agree = "NO: " + "; ".join(seen.disagreements())
    else:
        agree = "no claim" if seen.verdict == "unknown" else "yes"
    return " | ".join(
        [
            f"| {seen.case.title.replace('==', ' ')}",
            str(seen.target),
            f"{seen.verdict}{': ' if findings else ''}{findings}",
            ": ".join(filter(None, [seen.outcome, ", ".join(missing) or " ".join(words)])),
            agree,
            " ".join([seen.case.platform.format(seen.target.machine), seen.case.remark]).strip() + " |",
        ]
    )


def main() -> None:
    """Prints the table."""
    header = ["package", "target", "verdict and findings", "outcome", "agree", "remark"]
    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(os.cpu_count()) as pool:
        roots = Path(os.environ.get("LAMBDA_ROOTS", f"{temporary}/roots"))

        def look(number: int, case: Case, name: str) -> str:
            (target,) = select_targets([name])
            folder = Path(temporary) / str(number)
            folder.mkdir()
            try:
                return row(see(case, target, folder, roots))
            finally:
                shutil.rmtree(folder)

        rows = list(pool.map(look, range(len(ALL)), *zip(*ALL, strict=True)))
    print(f"| {' | '.join(header)} |", f"|{'---|' * len(header)}", *rows, sep="\n")  # noqa: T201


if __name__ == "__main__":
    main()
