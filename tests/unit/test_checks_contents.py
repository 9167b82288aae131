"""The contents rules: for each a table of layers that break it, and of layers that only look as if they did."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pytest

from layerbuild.checks import check_layer, rules
from layerbuild.target import select_targets
from tests.trees import File, Folder, Link, Spec, Table, bytecode, dist, elf, told, tree

Layer = dict[str, Spec]

T39, T310, T311, T312, T313 = (f"python3.{minor}-x86_64" for minor in range(9, 14))
ARM312 = "python3.12-arm64"
SITE = "python/lib/python3.12/site-packages"
SITE39 = "python/lib/python3.9/site-packages"
SITE311 = "python/lib/python3.11/site-packages"
INFO = "python/demo-1.0.dist-info"
SCRIPT = "#!/bin/sh\necho\n"
CRLF = "#!/bin/sh\r\necho\r\n"
SOURCE = "VERSION = 1\n"


class Told(NamedTuple):
    """What a finding says that does not depend on its wording."""

    code: str
    severity: str
    path: str | None


@dataclass(frozen=True)
class Case:
    """A layer, which is made when it is needed, and what it is checked for."""

    layer: Table | Callable[[], Table]
    targets: Sequence[str] = (T312,)

    def findings(self) -> list[Told]:
        table = self.layer() if callable(self.layer) else self.layer
        return [Told(*row) for row in told(check_layer(tree(table), select_targets(self.targets)))]


def pyc(mode: str, source: str = SOURCE, version: str = "3.12") -> bytes:
    return bytecode(version, mode, source)


def compiled(
    mode: str, *, source: str = SOURCE, now: str = SOURCE, version: str = "3.12", tag: str | None = None
) -> Callable[[], Layer]:
    """A module whose bytecode was made of `source` by a real Python, and which now has another content."""
    name = tag or f"cpython-{version.replace('.', '')}"

    def layer() -> Layer:
        return dist(files={"demo.py": now, f"__pycache__/demo.{name}.pyc": pyc(mode, source, version)})

    return layer


def error(code: str, path: str) -> Told:
    return Told(f"contents-{code}", "error", path)


def warning(code: str, path: str) -> Told:
    return Told(f"contents-{code}", "warning", path)


def note(code: str, path: str) -> Told:
    return Told(f"contents-{code}", "note", path)


CACHED = "python/__pycache__/demo.cpython-312.pyc"

# What breaks a rule: the findings in full, as nothing else is wrong with the layer.
BROKEN: dict[str, tuple[list[Told], Case]] = {
    # contents-stdlib
    "a backport of a package": (
        [error("stdlib", "python/enum/__init__.py")],
        Case(dist("enum34", "1.1.10", files={"enum/__init__.py": ""})),
    ),
    "a backport of a module": (
        [error("stdlib", f"{SITE}/typing.py")],
        Case(dist("typing", "3.7.4", site=SITE)),
    ),
    "an extension module": (
        [error("stdlib", "python/_json.cpython-312-x86_64-linux-gnu.so")],
        Case(dist(files={"_json.cpython-312-x86_64-linux-gnu.so": "", "demo.py": ""})),
    ),
    "bytecode alone is imported, too": (
        [error("stdlib", "python/enum.pyc")],
        Case(lambda: dist(files={"enum.pyc": pyc("timestamp"), "demo.py": ""})),
    ),
    "a module that only newer Pythons have": (
        [error("stdlib", "python/tomllib.py")],
        Case(dist("tomllib"), [T311]),
    ),
    "a module that newer Pythons have no more": (
        [error("stdlib", "python/imp.py")],
        Case(dist("imp"), [T311]),
    ),
    "built in": (
        [warning("stdlib", "python/sys.py")],
        Case(dist("sys")),
    ),
    "frozen": (
        [warning("stdlib", "python/os.py")],
        Case(dist("os")),
    ),
    "not yet frozen": (
        [error("stdlib", "python/os.py")],
        Case(dist("os"), [T39]),
    ),
    "one of either": (
        [error("stdlib", "python/os.py"), warning("stdlib", "python/os.py")],
        Case(dist("os"), [T310, T311]),
    ),
    "in both folders": (
        [error("stdlib", f"{SITE}/queue.py"), error("stdlib", "python/queue.py")],
        Case(dist("one", files={"queue.py": ""}) | dist("two", files={"queue.py": ""}, site=SITE)),
    ),
    "a link to a module": (
        [error("stdlib", "python/enum.py")],
        Case(dist(files={"demo.py": "", "enum.py": Link("demo.py")})),
    ),
    "a link to a package": (
        [error("stdlib", "python/enum/__init__.py")],
        Case(dist(files={"demo/__init__.py": "", "enum": Link("demo")})),
    ),
    # contents-runtime
    "a package of the runtime": (
        [warning("runtime", "python/botocore/__init__.py")],
        Case(dist("botocore", "1.2", files={"botocore/__init__.py": ""})),
    ),
    "a module of the runtime": (
        [warning("runtime", f"{SITE}/six.py")],
        Case(dist("six", "1.16", site=SITE), [T312, ARM312]),
    ),
    "setuptools where the runtime has it": (
        [warning("runtime", "python/pkg_resources/__init__.py"), warning("runtime", "python/setuptools/__init__.py")],
        Case(dist("setuptools", files={"setuptools/__init__.py": "", "pkg_resources/__init__.py": ""}), [T311]),
    ),
    # contents-misplaced
    "a package at the top": ([error("misplaced", "demo")], Case({"demo/__init__.py": ""})),
    "a module at the top": ([error("misplaced", "demo.py")], Case({"demo.py": ""})),
    "an extension module at the top": ([error("misplaced", "demo.so")], Case({"demo.so": ""})),
    "bytecode at the top": ([error("misplaced", "demo.pyc")], Case(lambda: {"demo.pyc": pyc("timestamp")})),
    "a compiled package at the top": ([error("misplaced", "demo")], Case({"demo/__init__.so": ""})),
    "site-packages zipped": ([error("misplaced", "demo-1.0.dist-info")], Case(dist(site="."))),
    "an egg-info at the top": (
        [error("misplaced", "demo.egg-info")],
        Case({"demo.egg-info/PKG-INFO": "Name: demo\nVersion: 1\n"}),
    ),
    "a namespace package at the top": (
        [error("misplaced", "google")],
        Case({"google/cloud/__init__.py": "", "google/cloud/storage.py": ""}),
    ),
    "site-packages without a version": (
        [error("misplaced", "python/lib/site-packages")],
        Case(dist(site="python/lib/site-packages")),
    ),
    "lib at the top": (
        [error("misplaced", "lib/python3.12/site-packages")],
        Case(dist(site="lib/python3.12/site-packages")),
    ),
    "lib64": (
        [error("misplaced", "python/lib64/python3.12/site-packages")],
        Case(dist(site="python/lib64/python3.12/site-packages")),
    ),
    "Debian's folder": (
        [error("misplaced", "python/lib/python3/dist-packages")],
        Case(dist(site="python/lib/python3/dist-packages")),
    ),
    "several distributions are one finding": (
        [error("misplaced", "python/lib/site-packages")],
        Case(dist(site="python/lib/site-packages") | dist("other", site="python/lib/site-packages")),
    ),
    "a text at the top": ([note("misplaced", "README.md")], Case({**dist(), "README.md": ""})),
    "data at the top": ([note("misplaced", "etc")], Case({**dist(), "etc/demo.conf": ""})),
    "one folder too high": (
        [error("misplaced", "layer/python"), note("misplaced", "layer")],
        Case(dist(site="layer/python")),
    ),
    "another case": ([error("misplaced", "Python"), note("misplaced", "Python")], Case({"Python/demo.txt": ""})),
    "a module beside a right folder": ([warning("misplaced", "wrapper.py")], Case({**dist(), "wrapper.py": ""})),
    "modules and data at the top": (
        [error("misplaced", "demo"), note("misplaced", "etc")],
        Case({"demo/__init__.py": "", "share/x": "", "etc/x": "", "zoo.py": ""}),
    ),
    # contents-other-python
    "only another Python's": ([error("other-python", SITE39)], Case(dist(site=SITE39))),
    "another Python's as well": (
        [warning("other-python", SITE39)],
        Case(dist(site=SITE39) | dist(site=SITE)),
    ),
    "another Python's beside the shared": ([error("other-python", SITE39)], Case(dist(site=SITE39) | dist())),
    "another Python's without metadata": (
        [error("other-python", SITE39), note("no-dist-info", f"{SITE39}/demo.py")],
        Case({f"{SITE39}/demo.py": ""}),
    ),
    "two others": (
        [error("other-python", SITE311), error("other-python", SITE39)],
        Case(dist(site=SITE39) | dist(site=SITE311)),
    ),
    "right for one of two targets": (
        [error("other-python", SITE), error("other-python", SITE39), warning("other-python", SITE39)],
        Case(dist(site=SITE39) | dist(site=SITE), [T311, T312]),
    ),
    # contents-requirement
    "a dependency left out": ([error("requirement", INFO)], Case(dist(requires=["other"]))),
    "in another version": (
        [error("requirement", INFO)],
        Case(dist(requires=["other>=2"]) | dist("other", "1.9")),
    ),
    "a final version asked for": (
        [error("requirement", INFO)],
        Case(dist(requires=["other>=2"]) | dist("other", "2.0rc1")),
    ),
    "a marker that holds": (
        [error("requirement", INFO)],
        Case(dist(requires=['other; python_version < "3.13" and platform_machine == "x86_64"'])),
    ),
    "an extra that is asked for": (
        [error("requirement", "python/other-1.0.dist-info")],
        Case(
            dist(requires=["other[Fast_One]"])
            | dist("other", requires=['third; extra == "fast-one"', 'fourth; extra == "slow"'])
        ),
    ),
    "an extra of an extra": (
        [error("requirement", INFO)],
        Case(
            dist(requires=['demo[fast]; extra == "all"', 'third; extra == "fast"'])
            | dist("top", requires=["demo[all]"])
        ),
    ),
    "with and without an extra": (
        [error("requirement", "python/other-1.0.dist-info")],
        Case(dist(requires=["other[fast]"]) | dist("other", requires=['third; python_version > "3"'])),
    ),
    "only in the folder of another Python": (
        [error("requirement", INFO), warning("other-python", SITE39)],
        Case(dist(requires=["other"]) | dist("other", site=SITE39) | dist("third", site=SITE)),
    ),
    "the copy that is imported is the wrong one": (
        [error("two-versions", "python/other-2.0.dist-info"), error("requirement", INFO)],
        Case(dist(requires=["other>=2"]) | dist("other", "2.0") | dist("other", "1.0", site=SITE)),
    ),
    "vendored copies do not count": (
        [error("requirement", INFO)],
        Case(dist(requires=["other"], files={"demo/__init__.py": ""}) | dist("other", site="python/demo/_vendor")),
    ),
    "a version that is none": (
        [error("requirement", INFO)],
        Case(dist(requires=["other>=1"]) | dist("other", "unknown")),
    ),
    "a version beyond all numbers": (
        [error("requirement", INFO)],
        Case(
            {
                **dist(requires=["other>=1"]),
                "python/other.dist-info/METADATA": f"Name: other\nVersion: {'9' * 5000}\n",
            }
        ),
    ),
    "what the runtime brings no more": ([error("requirement", INFO)], Case(dist(requires=["setuptools"]))),
    # contents-requirement-runtime
    "the runtime's own": (
        [note("requirement-runtime", INFO)],
        Case(dist(requires=["boto3>=1.20"]), [T312, ARM312]),
    ),
    "a name that differs from its module": (
        [note("requirement-runtime", INFO)],
        Case(dist(requires=["Python.DateUtil"])),
    ),
    "setuptools of older runtimes": (
        [note("requirement-runtime", INFO)],
        Case(dist(requires=["setuptools"]), [T311]),
    ),
    # contents-two-versions
    "installed over another version": (
        [error("two-versions", "python/demo-2.0.dist-info")],
        Case(dist() | dist(version="2.0")),
    ),
    "in the shared folder and in the versioned one": (
        [error("two-versions", f"{SITE}/demo-2.0.dist-info")],
        Case(dist() | dist(version="2.0", site=SITE)),
    ),
    "under two spellings": (
        [error("two-versions", "python/my_demo-2.0.dist-info")],
        Case(dist("My-Demo", "1.0", files={"a.py": ""}) | dist("my_demo", "2.0", files={"b.py": ""})),
    ),
    "by setuptools of old": (
        [error("two-versions", "python/demo.egg-info")],
        Case({**dist(), "python/demo.egg-info/PKG-INFO": "Name: demo\nVersion: 0.9\n"}),
    ),
    # contents-orphan-dist-info
    "modules deleted": ([warning("orphan-dist-info", INFO)], Case(dist(installed=False))),
    "extension modules deleted": (
        [warning("orphan-dist-info", INFO)],
        Case({**dist(files={"demo/core.so": ""}, installed=False), "python/demo/data.json": ""}),
    ),
    # contents-no-dist-info
    "a module of one's own": ([note("no-dist-info", "python/own.py")], Case({"python/own.py": ""})),
    "a package of one's own beside distributions": (
        [note("no-dist-info", f"{SITE}/own")],
        Case({**dist(site=SITE), f"{SITE}/own/__init__.py": "", f"{SITE}/zoo.so": ""}),
    ),
    # contents-pth
    "a pth that runs code": (
        [warning("pth", "python/demo.pth")],
        Case(dist(files={"demo.py": "", "demo.pth": "import demo\n"})),
    ),
    "a pth that names a folder": (
        [warning("pth", f"{SITE}/demo.pth")],
        Case(dist(files={"demo.py": "", "demo.pth": "# where\n\ndemo/lib\n"}, site=SITE)),
    ),
    "a pth that begins as a script does": (
        [warning("pth", "python/demo.pth")],
        Case(dist(files={"demo.py": "", "demo.pth": "#!/usr/bin/python\nimport demo\n"})),
    ),
    "a pth after a long comment": (
        [warning("pth", "python/demo.pth")],
        Case(dist(files={"demo.py": "", "demo.pth": "#" * 5000 + "\nimport demo\n"})),
    ),
    # contents-bytecode
    "tied to a date": ([warning("bytecode", CACHED)], Case(compiled("timestamp"))),
    "checked, of another content": (
        [warning("bytecode", CACHED)],
        Case(compiled("checked-hash", source="OLD = 1\n")),
    ),
    "unchecked, of another content": (
        [error("bytecode", CACHED)],
        Case(compiled("unchecked-hash", source="OLD = 1\n")),
    ),
    "unchecked on 3.11, of another content": (
        [error("bytecode", "python/__pycache__/demo.cpython-311.pyc")],
        Case(compiled("unchecked-hash", source="OLD = 1\n", version="3.11"), [T311]),
    ),
    "of another Python": (
        [warning("bytecode", "python/__pycache__/demo.cpython-311.pyc")],
        Case(compiled("unchecked-hash", version="3.11")),
    ),
    "of another Python under this one's name": (
        [warning("bytecode", CACHED)],
        Case(compiled("unchecked-hash", version="3.11", tag="cpython-312")),
    ),
    "of another implementation": (
        [warning("bytecode", "python/__pycache__/demo.pypy310.pyc")],
        Case(compiled("unchecked-hash", version="3.11", tag="pypy310")),
    ),
    "rewritten by pytest": (
        [warning("bytecode", "python/__pycache__/demo.cpython-311-pytest-8.3.3.pyc")],
        Case(compiled("timestamp", version="3.11", tag="cpython-311-pytest-8.3.3")),
    ),
    "cut off": (
        [warning("bytecode", CACHED)],
        Case(dist(files={"demo.py": SOURCE, "__pycache__/demo.cpython-312.pyc": b"\xcb\r\r\n"})),
    ),
    "sent as text": (
        [warning("bytecode", CACHED)],
        Case(
            lambda: dist(
                files={
                    "demo.py": SOURCE,
                    "__pycache__/demo.cpython-312.pyc": pyc("unchecked-hash").replace(b"\r\n", b"\n", 1),
                }
            )
        ),
    ),
    "in __pycache__ without source": (
        [warning("bytecode", "python/demo/__pycache__/a.cpython-312.pyc")],
        Case(
            lambda: dist(
                files={"demo/__init__.py": "", "demo/__pycache__/a.cpython-312.pyc": pyc("unchecked-hash")},
            )
        ),
    ),
    "beside its source": (
        [warning("bytecode", "python/demo.pyc")],
        Case(lambda: dist(files={"demo.py": SOURCE, "demo.pyc": pyc("unchecked-hash")})),
    ),
    "without source, of another Python": (
        [error("bytecode", "python/demo/a.pyc")],
        Case(lambda: dist(files={"demo/__init__.py": "", "demo/a.pyc": pyc("timestamp", version="3.11")})),
    ),
    "each way once": (
        [warning("bytecode", CACHED), warning("bytecode", "python/demo.pyc")],
        Case(
            lambda: dist(
                files={
                    "demo.py": SOURCE,
                    "demo.pyc": pyc("unchecked-hash"),
                    "other.py": SOURCE,
                    "__pycache__/demo.cpython-312.pyc": pyc("timestamp"),
                    "__pycache__/other.cpython-312.opt-1.pyc": pyc("timestamp"),
                }
            )
        ),
    ),
    # contents-mode
    "a file for its owner": (
        [error("mode", "python/demo.py")],
        Case(dist(files={"demo.py": File("", mode=0o600)})),
    ),
    "a file for its group": (
        [error("mode", "python/data/x")],
        Case({**dist(), "python/data/x": File("", mode=0o640)}),
    ),
    "a file for nobody": ([error("mode", "lib/x")], Case({**dist(), "lib/x": File("", mode=0)})),
    "a folder for its owner": ([error("mode", "python")], Case({**dist(), "python": Folder(0o700)})),
    "a folder that nobody else enters": ([error("mode", "python")], Case({**dist(), "python": Folder(0o744)})),
    "a folder that nobody else lists": ([error("mode", "lib")], Case({**dist(), "lib": Folder(0o711)})),
    # contents-not-executable
    "an extension": (
        [error("not-executable", "extensions/agent")],
        Case({**dist(), "extensions/agent": SCRIPT}),
    ),
    "a compiled extension": (
        [error("not-executable", "extensions/agent")],
        Case({**dist(), "extensions/agent": elf()}),
    ),
    "an extension that its owner can run": (
        [error("not-executable", "extensions/agent")],
        Case({**dist(), "extensions/agent": File(SCRIPT, mode=0o744)}),
    ),
    "an extension without a mode": (
        [warning("not-executable", "extensions/agent")],
        Case({**dist(), "extensions/agent": File(SCRIPT, None)}),
    ),
    "a bootstrap": ([error("not-executable", "bootstrap")], Case({**dist(), "bootstrap": SCRIPT})),
    "a script": ([warning("not-executable", "bin/tool")], Case({**dist(), "bin/tool": SCRIPT})),
    "a compiled program": ([warning("not-executable", "bin/tool")], Case({**dist(), "bin/tool": elf()})),
    "a position-independent program": (
        [warning("not-executable", "bin/tool")],
        Case({**dist(), "bin/tool": elf("shared")}),
    ),
    # contents-stray-extension
    "a text among extensions": (
        [error("stray-extension", "extensions/README.md")],
        Case({**dist(), "extensions/README.md": "all about it\n"}),
    ),
    "an executable text among extensions": (
        [error("stray-extension", "extensions/agent.py")],
        Case({**dist(), "extensions/agent.py": File("print()\n", mode=0o755)}),
    ),
    "an empty extension": (
        [error("stray-extension", "extensions/agent")],
        Case({**dist(), "extensions/agent": File("", mode=0o755)}),
    ),
    "an object file among extensions": (
        [error("stray-extension", "extensions/agent.o")],
        Case({**dist(), "extensions/agent.o": File(elf("object"), mode=0o755)}),
    ),
    # contents-crlf
    "a script of Windows": ([error("crlf", "bin/tool")], Case({**dist(), "bin/tool": File(CRLF, mode=0o755)})),
    "a bootstrap of Windows": ([error("crlf", "bootstrap")], Case({**dist(), "bootstrap": File(CRLF, mode=0o755)})),
    "an extension of Windows": (
        [error("crlf", "extensions/agent")],
        Case({**dist(), "extensions/agent": File(CRLF, mode=0o755)}),
    ),
    "a script of Windows in a folder": (
        [error("crlf", "bin/tools/one")],
        Case({**dist(), "bin/tools/one": File(CRLF, mode=0o755)}),
    ),
}

# What looks like a breach of the rule and is none. Other rules may have something to say.
CLEAN: dict[str, tuple[str, Case]] = {
    "a folder without __init__ hides nothing": (
        "contents-stdlib",
        Case(dist(files={"email/templates/hello.txt": "", "demo.py": ""})),
    ),
    "neither does one with modules": (
        "contents-stdlib",
        Case(dist(files={"email/hello.py": "", "demo.py": ""})),
    ),
    "a module inside a package": ("contents-stdlib", Case(dist(files={"demo/__init__.py": "", "demo/enum.py": ""}))),
    "a name that only newer Pythons have": ("contents-stdlib", Case(dist("tomllib"), [T310])),
    "a name that the standard library has left": ("contents-stdlib", Case(dist("imp"), [T312])),
    "for another Python": ("contents-stdlib", Case(dist(files={"_json.cpython-311-x86_64-linux-gnu.so": ""}))),
    "for another architecture": (
        "contents-stdlib",
        Case(dist(files={"_json.cpython-312-x86_64-linux-gnu.so": ""}), [ARM312]),
    ),
    "in another Python's folder": ("contents-stdlib", Case(dist("enum", site=SITE39))),
    "at the top of the layer": ("contents-stdlib", Case({"enum.py": "", "lib/enum.py": ""})),
    "stubs and data": ("contents-stdlib", Case(dist(files={"enum.pyi": "", "json": "", "queue.txt": ""}))),
    "another case": ("contents-stdlib", Case(dist(files={"Queue.py": "", "demo.py": ""}))),
    "a longer name": ("contents-stdlib", Case(dist("typing-extensions"))),
    "Python's folder itself": ("contents-stdlib", Case(dist(site=SITE))),
    "a link that leads nowhere": ("contents-stdlib", Case({**dist(), "python/enum.py": Link("gone.py")})),
    "stubs of boto3": (
        "contents-runtime",
        Case(dist("boto3-stubs", files={"boto3-stubs/__init__.pyi": "", "types_boto3/__init__.py": ""})),
    ),
    "a vendored six": (
        "contents-runtime",
        Case(dist(files={"demo/__init__.py": "", "demo/vendor/six.py": "", "demo/vendor/urllib3/__init__.py": ""})),
    ),
    "setuptools where the runtime has none": (
        "contents-runtime",
        Case(dist("setuptools", files={"setuptools/__init__.py": ""})),
    ),
    "a folder of the same name": ("contents-runtime", Case({**dist(), "python/boto3/data/x.json": ""})),
    "every place that Lambda knows": (
        "contents-misplaced",
        Case(
            {
                **dist(),
                "lib/libdemo.so": elf("shared"),
                "bin/tool": File(SCRIPT, mode=0o755),
                "bootstrap": File(SCRIPT, mode=0o755),
                "extensions/agent": File(SCRIPT, mode=0o755),
            }
        ),
    ),
    "vendored with its dist-info": (
        "contents-misplaced",
        Case(dist(files={"demo/__init__.py": ""}) | dist("other", site="python/demo/_vendor")),
    ),
    "every runtime's folder": (
        "contents-misplaced",
        Case({path: "" for row in (dist(site=SITE39), dist(site=SITE), dist(site=SITE311)) for path in row}),
    ),
    "a namespace package in its place": ("contents-misplaced", Case(dist(files={"google/cloud/demo.py": ""}))),
    "the target's own folder": ("contents-other-python", Case(dist(site=SITE))),
    "both of one Python": ("contents-other-python", Case(dist(site=SITE), [T312, ARM312])),
    "python/lib itself": ("contents-other-python", Case({**dist(), "python/lib": Folder()})),
    "another Python's folder without packages": (
        "contents-other-python",
        Case({**dist(), "python/lib/python3.9/config.txt": ""}),
    ),
    "the shared folder": ("contents-other-python", Case(dist())),
    "without targets": ("contents-other-python", Case(dist(site=SITE39) | dist(site=SITE), [])),
    "met": ("contents-requirement", Case(dist(requires=["other>=1,<2"]) | dist("other", "1.5"))),
    "met by its normal name": ("contents-requirement", Case(dist(requires=["My.Other"]) | dist("my_other"))),
    "met by a prerelease": ("contents-requirement", Case(dist(requires=["other>=1"]) | dist("other", "2.0b1"))),
    "met by a local version": (
        "contents-requirement",
        Case(dist(requires=["other==1.0"]) | dist("other", "1.0+cpu")),
    ),
    "met in the other folder": (
        "contents-requirement",
        Case(dist(requires=["other"], site=SITE) | dist("other", requires=["demo"])),
    ),
    "met without RECORD": ("contents-requirement", Case(dist(requires=["other"]) | dist("other", record=False))),
    "met by an egg-info": (
        "contents-requirement",
        Case(
            {
                **dist(requires=["other>=1"]),
                "python/other-1.1-py3.12.egg-info/PKG-INFO": "Name: other\nVersion: 1.1\n",
            }
        ),
    ),
    "met by an unnamed METADATA": (
        "contents-requirement",
        Case({**dist(requires=["other>=1"]), "python/other-1.1.dist-info/METADATA": "\n"}),
    ),
    "met by an address": (
        "contents-requirement",
        Case(dist(requires=["other @ https://example.invalid/other.zip"]) | dist("other")),
    ),
    "as of old, with parentheses": ("contents-requirement", Case(dist(requires=["other (>=1.0)"]) | dist("other"))),
    "markers that do not hold": (
        "contents-requirement",
        Case(
            dist(
                requires=[
                    'a; sys_platform == "win32"',
                    'b; python_version < "3.8"',
                    'c; platform_machine == "aarch64"',
                    'd; implementation_name == "pypy"',
                    'e; python_full_version >= "3.13"',
                ]
            )
        ),
    ),
    "a marker that compares what does not compare": (
        "contents-requirement",
        Case(dist(requires=['other; python_full_version ~= "x"'])),
    ),
    "extras that nobody asked for": (
        "contents-requirement",
        Case(dist(requires=['other; extra == "fast"', 'third; python_version > "3" and extra == "slow"'])),
    ),
    "an extra that there is not": (
        "contents-requirement",
        Case(dist(requires=["other[nothing]", "other [fast]"]) | dist("other", requires=["demo"])),
    ),
    "a line that is no requirement": ("contents-requirement", Case(dist(requires=["other (>=1.0.*)", "?", ">=1"]))),
    "what vendored distributions need": (
        "contents-requirement",
        Case(dist(files={"demo/__init__.py": ""}) | dist("other", requires=["third"], site="python/demo/_vendor")),
    ),
    "what distributions of another Python need": (
        "contents-requirement",
        Case(dist(site=SITE) | dist("other", requires=["third"], site=SITE39)),
    ),
    "what the runtime brings is a note": ("contents-requirement", Case(dist(requires=["boto3", "six>=1"]))),
    "what the layer brings itself": (
        "contents-requirement-runtime",
        Case(dist(requires=["six"]) | dist("six", "1.16")),
    ),
    "a module's name is not its distribution's": ("contents-requirement-runtime", Case(dist(requires=["dateutil"]))),
    "two versions for two Pythons": (
        "contents-two-versions",
        Case(dist(site=SITE311) | dist(version="2.0", site=SITE)),
    ),
    "another version vendored": (
        "contents-two-versions",
        Case(dist(files={"demo/__init__.py": ""}) | dist("x", "1") | dist("x", "2", site="python/demo/_vendor")),
    ),
    "one version twice": ("contents-two-versions", Case(dist() | dist(site=SITE))),
    "one version in both formats": (
        "contents-two-versions",
        Case({**dist(), "python/demo.egg-info/PKG-INFO": "Name: demo\nVersion: 1.0\n"}),
    ),
    "one version in two spellings": (
        "contents-two-versions",
        Case({**dist(version="2021.5.30"), "python/demo.egg-info/PKG-INFO": "Name: demo\nVersion: 2021.05.30\n"}),
    ),
    "data alone": ("contents-orphan-dist-info", Case(dist(files={"demo/data.json": ""}, installed=False))),
    "metadata alone": ("contents-orphan-dist-info", Case(dist(files={}))),
    "without RECORD": ("contents-orphan-dist-info", Case(dist(installed=False, record=False))),
    "an egg-info": (
        "contents-orphan-dist-info",
        Case({"python/demo.egg-info/PKG-INFO": "Name: demo\nVersion: 1.0\n"}),
    ),
    "some modules pruned": (
        "contents-orphan-dist-info",
        Case({**dist(files={"demo/a.py": "", "demo/b.py": ""}, installed=False), "python/demo/b.py": ""}),
    ),
    "programs alone": (
        "contents-orphan-dist-info",
        Case({**dist(files={"../bin/tool.py": SCRIPT}, installed=False), "bin/tool.py": File(SCRIPT, mode=0o755)}),
    ),
    "bytecode instead of sources": (
        "contents-orphan-dist-info",
        Case(lambda: {**dist(installed=False), "python/demo.pyc": pyc("timestamp")}),
    ),
    "vendored with nothing of it": (
        "contents-orphan-dist-info",
        Case(dist(files={"demo/__init__.py": ""}) | dist("x", site="python/demo/_vendor", installed=False)),
    ),
    "listed in RECORD": ("contents-no-dist-info", Case(dist(files={"demo/__init__.py": "", "other.py": ""}))),
    "installed without RECORD": (
        "contents-no-dist-info",
        Case({**dist(record=False), "python/other/__init__.py": ""}),
    ),
    "data beside distributions": (
        "contents-no-dist-info",
        Case({**dist(), "python/share/x.json": "", "python/LICENSE": ""}),
    ),
    "the folder of all Pythons": ("contents-no-dist-info", Case({**dist(), "python/lib/demo.py": ""})),
    "libraries": ("contents-no-dist-info", Case({**dist(), "lib/libdemo.so": elf("shared")})),
    "comments alone": ("contents-pth", Case(dist(files={"demo.py": "", "demo.pth": "# nothing\n\n   \n"}))),
    "an empty pth": ("contents-pth", Case(dist(files={"demo.py": "", "demo.pth": ""}))),
    "a pth that nobody reads": (
        "contents-pth",
        Case({**dist(files={"demo/__init__.py": "", "demo/x.pth": "import x\n"}), "lib/y.pth": "import y\n"}),
    ),
    "checked, of this content": ("contents-bytecode", Case(compiled("checked-hash"))),
    "unchecked, of this content": ("contents-bytecode", Case(compiled("unchecked-hash"))),
    "unchecked on 3.11": ("contents-bytecode", Case(compiled("unchecked-hash", version="3.11"), [T311])),
    "checked on 3.11": ("contents-bytecode", Case(compiled("checked-hash", version="3.11"), [T311])),
    "unchecked on 3.13": ("contents-bytecode", Case(compiled("unchecked-hash", version="3.13"), [T313])),
    "unchecked on 3.10, whose hash is another": (
        "contents-bytecode",
        Case(compiled("unchecked-hash", version="3.10"), [T310]),
    ),
    "checked on 3.9, whose hash is another": (
        "contents-bytecode",
        Case(compiled("checked-hash", version="3.9"), [T39]),
    ),
    "optimised": ("contents-bytecode", Case(compiled("unchecked-hash", tag="cpython-312.opt-2"))),
    "instead of its source": (
        "contents-bytecode",
        Case(lambda: dist(files={"demo/__init__.pyc": pyc("timestamp")})),
    ),
    "named as bytecode of tests": (
        "contents-bytecode",
        Case(dist(files={"demo.py": "", "__pycache__/demo.py": "", "demo.pycx": ""})),
    ),
    "modes as they should be": (
        "contents-mode",
        Case(
            {
                **dist(files={"demo.py": File("", mode=0o444), "tool": File(SCRIPT, mode=0o755)}),
                "python": Folder(0o755),
                "lib": Folder(0o555),
                "lib/x": File("", mode=0o664),
                "bin/y": File("", mode=0o4755),
            }
        ),
    ),
    "modes that the zip does not say": (
        "contents-mode",
        Case({**dist(), "python": Folder(None), "x": File("", None)}),
    ),
    "a link's own mode": ("contents-mode", Case({**dist(), "python/other.py": Link("demo.py", mode=0o700)})),
    "data in bin/": ("contents-not-executable", Case({**dist(), "bin/words.txt": "a\n", "bin/x.json": "{}"})),
    "a program outside bin/": (
        "contents-not-executable",
        Case({**dist(), "python/demo/tool": SCRIPT, "lib/x": elf()}),
    ),
    "a program with an unknown mode": (
        "contents-not-executable",
        Case({**dist(), "bin/tool": File(SCRIPT, None)}),
    ),
    "in a folder of extensions/": (
        "contents-not-executable",
        Case({**dist(), "extensions/agent.d/run": SCRIPT, "extensions/agent.d/lib": elf("shared")}),
    ),
    "executable": (
        "contents-not-executable",
        Case(
            {
                **dist(),
                "bin/tool": File(SCRIPT, mode=0o755),
                "extensions/agent": File(elf(), mode=0o555),
                "bootstrap": File(elf(), mode=0o755),
            }
        ),
    ),
    "what belongs to an extension": (
        "contents-stray-extension",
        Case({**dist(), "extensions/agent": File(SCRIPT, mode=0o755), "extensions/agent.d/settings.json": ""}),
    ),
    "extensions/ itself": ("contents-stray-extension", Case({**dist(), "extensions": Folder()})),
    "extensions elsewhere": ("contents-stray-extension", Case({**dist(), "python/extensions/x.txt": ""})),
    "compiled": ("contents-stray-extension", Case({**dist(), "extensions/agent": File(elf("shared"), mode=0o755)})),
    "LF": ("contents-crlf", Case({**dist(), "bin/tool": File(SCRIPT, mode=0o755)})),
    "CRLF after the first line": (
        "contents-crlf",
        Case({**dist(), "bin/tool": File("#!/bin/sh\necho\r\n", mode=0o755)}),
    ),
    "CRLF in data": ("contents-crlf", Case({**dist(), "bin/words.txt": "a\r\nb\r\n"})),
    "CRLF in what Python reads": ("contents-crlf", Case(dist(files={"demo.py": CRLF}))),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_rule_that_is_broken_is_found_and_nothing_else(name: str) -> None:
    expected, case = BROKEN[name]
    assert sorted(map(str, case.findings())) == sorted(map(str, expected))


@pytest.mark.parametrize("name", CLEAN)
def test_what_only_looks_like_a_breach_is_not_found(name: str) -> None:
    code, case = CLEAN[name]
    assert [finding for finding in case.findings() if finding.code == code] == []


@pytest.mark.parametrize(
    "path", ["python/lib/python3.8/site-packages/demo.py", "python/lib/site-packages/demo/__init__.py"]
)
def test_modules_that_no_runtime_finds_are_told_without_metadata_too(path: str) -> None:
    found = Case({path: ""}).findings()
    assert {"contents-misplaced", "contents-other-python"} & {one.code for one in found if one.severity == "error"}


def messages(case: Case) -> str:
    table = case.layer() if callable(case.layer) else case.layer
    return "\n".join(finding.message for finding in check_layer(tree(table), select_targets(case.targets)))


def test_long_lists_are_cut_short_and_findings_name_their_package() -> None:
    assert "a.py, b.py, c.py and 1,001 more at the top" in messages(
        Case({"a.py": "", "b.py": "", "c.py": ""} | {f"x{number:04}.py": "" for number in range(1001)})
    )
    assert "none of the 2 modules" in messages(Case(dist(files={"a.py": "", "b.py": ""}, installed=False)))
    assert "none of the 1 module that" in messages(Case(dist(installed=False)))
    assert "it has 2 lines: 'import a'" in messages(Case({"python/x.pth": "import a\nb\n"}))
    layer = tree(dist(requires=["other>=2"], files={"enum.py": ""}) | dist("other", "1.0"))
    found = {one.code: one for one in check_layer(layer, select_targets([T312]))}
    assert found["contents-stdlib"].package == "demo 1.0"
    assert found["contents-requirement"].message == "demo 1.0 needs other>=2; 1.0 is there"
    assert found["contents-requirement"].package == "demo 1.0"


def test_bytecode_of_several_packages_belongs_to_none() -> None:
    one = dist("one", files={"one.py": "", "__pycache__/one.cpython-312.pyc": b"short"})
    two = dist("two", files={"two.py": "", "__pycache__/two.cpython-312.pyc": b"short"})
    found = [
        (finding.package, finding.files, finding.message)
        for table in (one, one | two)
        for finding in check_layer(tree(table), select_targets([T312]))
        if finding.code == "contents-bytecode"
    ]
    text = "it is of another Python than python3.12"
    assert found == [("one 1.0", 1, text), (None, 2, text)]


@pytest.mark.parametrize(
    "folder",
    [
        {"python/empty": Folder()},
        {f"{SITE}/empty": Folder()},
        {"empty": Folder()},
        {"python/linked": Link("../lib"), "lib/x.txt": ""},
        {"python/linked": Link("../lib"), "lib": Folder()},
        {"linked": Link("python")},
        {"python": Folder(), "lib": Folder(), "extensions": Folder(), "bin": Folder()},
    ],
    ids=["below", "in-site", "at-the-top", "link", "link-to-empty", "link-at-the-top", "known"],
)
def test_empty_folders_and_links_to_folders_do_no_harm(folder: Layer) -> None:
    assert {one.severity for one in Case({**dist(), **folder}).findings()} <= {"note"}


def test_findings_name_the_targets_that_they_hold_for() -> None:
    layer = tree(dist("imp", requires=['other; platform_machine == "aarch64"']))
    found = check_layer(layer, select_targets(["python3.11-*", "python3.12-*"]))
    assert {one.code: one.targets for one in found} == {
        "contents-stdlib": ("python3.11-x86_64", "python3.11-arm64"),
        "contents-requirement": ("python3.11-arm64", "python3.12-arm64"),
    }


def test_every_rule_is_in_both_tables_with_every_severity() -> None:
    family = {code for code in rules() if code.startswith("contents-")}
    assert {code for code, _ in CLEAN.values()} == family
    found = {(one.code, one.severity) for expected, _ in BROKEN.values() for one in expected}
    assert {code for code, _ in found} == family
    # Where a rule's cause names a weaker finding, that is in the table, too.
    for code in family:
        for severity in ("error", "warning", "note"):
            if rules()[code].severity == severity or f"{severity} " in rules()[code].cause.lower():
                assert (code, severity) in found, (code, severity)
