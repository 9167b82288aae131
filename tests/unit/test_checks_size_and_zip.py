"""The rules about bytes, about the zip itself, about targets and accepts; and how findings are handled."""

from __future__ import annotations

import io
import os
import socket
import stat
import struct
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from layerbuild.cache import Cache
from layerbuild.checks import (
    Finding,
    accept,
    check_layer,
    check_selectors,
    in_order,
    inferred_targets,
    known_findings,
    refuse_errors,
    rules,
    select,
)
from layerbuild.checks.size import largest
from layerbuild.errors import CheckError, UsageError
from layerbuild.recipe import Accept
from layerbuild.target import select_targets
from layerbuild.tree import Tree, read_folder, read_tree, read_zip
from layerbuild.zips import Problem
from tests.trees import File, Folder, Link, Spec, Table, dist, elf, told, tree, write_folder, write_zip

T312 = "python3.12-x86_64"
SITE = "python/lib/python3.12/site-packages"
SITE311 = "python/lib/python3.11/site-packages"
UNZIPPED, INLINE, GIBIBYTE = 262_144_000, 52_428_800, 1024**3
Row = tuple[str, str, str | None]


@dataclass(frozen=True)
class Case:
    """A layer as a table, or as what makes a zip of it, and how it is checked."""

    layer: Table | Callable[[], bytes]
    targets: Sequence[str] = (T312,)
    zipped: int | None = None
    budget: int | None = None
    accepted: Sequence[str] = ()

    def findings(self, folder: Path) -> list[Row]:
        found = check_layer(self._tree(folder), select_targets(self.targets), budget=self.budget)
        return told(accept(found, [Accept(code=code, reason="known") for code in self.accepted]))

    def _tree(self, folder: Path) -> Tree:
        if not callable(self.layer):
            return tree(self.layer, zipped=self.zipped)
        path = folder / "layer.zip"
        path.write_bytes(self.layer())
        return read_zip(path, "layer")


def zipped(*members: tuple[str | zipfile.ZipInfo, str | bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip of members with readable modes."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for name, content in members:
            info = name if isinstance(name, zipfile.ZipInfo) else zipfile.ZipInfo(name)
            info.external_attr = info.external_attr or 0o100644 << 16
            info.compress_type = method
            archive.writestr(info, content)
    return target.getvalue()


DEMO = dist()
SOUND = tuple((path, str(spec)) for path, spec in DEMO.items())


def special(kind: int) -> Callable[[], bytes]:
    info = zipfile.ZipInfo("lib/odd")
    info.external_attr = (kind | 0o644) << 16
    return lambda: zipped(*SOUND, (info, b""))


def patched(name: str, local: int, central: int, layout: str, value: int) -> bytes:
    """A zip in which one field of a member has another value, in the local header and in the directory."""
    data = bytearray(zipped(*SOUND, (name, "content")))
    for signature, offset, length in ((b"PK\x03\x04", local, 30), (b"PK\x01\x02", central, 46)):
        place = data.find(signature)
        while bytes(data[place + length : place + length + len(name)]) != name.encode():
            place = data.index(signature, place + 1)
        struct.pack_into(layout, data, place + offset, value)
    return bytes(data)


def damaged() -> bytes:
    data = zipped(*SOUND, ("python/x.txt", "unmistakable"))
    return data.replace(b"unmistakable", b"Unmistakable", 1)


def with_zip64() -> bytes:
    target = io.BytesIO(zipped(*SOUND))
    with zipfile.ZipFile(target, "a") as archive:
        info = zipfile.ZipInfo("python/x.txt")
        info.external_attr = 0o100644 << 16
        info.file_size = 1 << 31  # what is not known to be small is written so
        with archive.open(info, "w") as member:
            member.write(b"small")
    data = bytearray(target.getvalue())
    # The directory says it as well, as some writers have it.
    place = data.rindex(b"PK\x01\x02")
    name, extra = struct.unpack_from("<2H", data, place + 28)
    assert extra == 0
    field = struct.pack("<2HQ", 1, 8, 5)
    struct.pack_into("<H", data, place + 30, len(field))
    data[place + 46 + name : place + 46 + name] = field
    end = data.rindex(b"PK\x05\x06")
    struct.pack_into("<L", data, end + 12, struct.unpack_from("<L", data, end + 12)[0] + len(field))
    return bytes(data)


def streamed() -> bytes:
    """A zip written to a pipe: sizes and checksums stand behind the bytes."""

    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.data = b""

        def writable(self) -> bool:
            return True

        def write(self, data: object) -> int:
            added = bytes(data)  # type: ignore[call-overload]
            self.data += added
            return len(added)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in SOUND:
            info = zipfile.ZipInfo(path)
            info.external_attr = 0o100644 << 16
            archive.writestr(info, content, zipfile.ZIP_DEFLATED)
    return pipe.data


def link(target: str, more: Table | None = None, *, path: str = "python/it") -> Case:
    return Case({**DEMO, "lib/libdemo.so.1": elf("shared"), path: Link(target), **(more or {})})


def symlink(severity: str, path: str = "python/it") -> list[Row]:
    return [("zip-symlink", severity, path)]


# What breaks a rule: all findings.
BROKEN: dict[str, tuple[list[Row], Case]] = {
    "nothing": ([("size-empty", "error", None)], Case({})),
    "folders alone": ([("size-empty", "error", None)], Case({"python": Folder(), "lib": Folder()})),
    "an empty zip": ([("size-empty", "error", None)], Case(zipped)),
    "at the limit": (
        [("size-unzipped", "error", None)],
        Case({"lib/a": File(size=UNZIPPED - 1), "lib/b": File(size=1)}),
    ),
    "too large for a request": ([("size-zipped", "note", None)], Case(DEMO, zipped=INLINE)),
    "beyond the budget": ([("size-budget", "error", None)], Case({"lib/a": "four"}, budget=3)),
    # The zip itself
    "cut off": ([("zip-broken", "error", None)], Case(lambda: zipped(*SOUND)[:-30])),
    "no zip": ([("zip-broken", "error", None)], Case(lambda: b"\x1f\x8b" + bytes(200))),
    "an empty file": ([("zip-broken", "error", None)], Case(lambda: b"")),
    "two names for a member": (
        [("zip-broken", "error", "python/x.txt")],
        Case(lambda: zipped(*SOUND, ("python/x.txt", "")).replace(b"python/x.txt", b"python/y.txt", 1)),
    ),
    "another content": ([("zip-checksum", "error", "python/x.txt")], Case(damaged)),
    "a size that is not so": (
        [("zip-checksum", "error", "python/x.txt")],
        Case(lambda: patched("python/x.txt", 22, 24, "<L", 9)),
    ),
    "more than a gibibyte": (
        [("zip-bomb", "error", None)],
        Case(lambda: patched("python/x.txt", 22, 24, "<L", GIBIBYTE)),
    ),
    "encrypted": (
        [("zip-encrypted", "error", "python/x.txt")],
        Case(lambda: patched("python/x.txt", 6, 8, "<H", 1)),
    ),
    "another method": (
        [("zip-method", "error", "python/x.txt")],
        Case(lambda: patched("python/x.txt", 8, 10, "<H", zipfile.ZIP_LZMA)),
    ),
    "zip64": ([("zip-zip64", "error", "python/x.txt")], Case(with_zip64)),
    "out of the layer": ([("zip-path", "error", "../x")], Case(lambda: zipped(*SOUND, ("../x", "")))),
    "an absolute path": ([("zip-path", "error", "/opt/x")], Case(lambda: zipped(*SOUND, ("/opt/x", "")))),
    "a path of Windows": ([("zip-path", "error", "python\\x")], Case(lambda: zipped(*SOUND, ("python\\x", "")))),
    "a drive": ([("zip-path", "error", "c:/x")], Case(lambda: zipped(*SOUND, ("c:/x", "")))),
    "a path that is not plain": (
        [("zip-path", "error", "python//x")],
        Case(lambda: zipped(*SOUND, ("python//x", ""))),
    ),
    "a control character": (
        [("zip-path", "error", "python/\x1b[2J")],
        Case(lambda: zipped(*SOUND, ("python/\x1b[2J", ""))),
    ),
    "below a file": (
        [("zip-path", "error", "python/demo.py/x")],
        Case(lambda: zipped(*SOUND, ("python/demo.py/x", ""))),
    ),
    "twice": (
        [("zip-duplicate", "error", "python/demo.py")],
        Case(lambda: zipped(*SOUND, ("python/demo.py", "OTHER = 1\n"))),
    ),
    "behind something else": ([("zip-prefix", "error", None)], Case(lambda: b"#!/bin/sh\n" + zipped(*SOUND))),
    "a pipe": ([("zip-special", "error", "lib/odd")], Case(special(stat.S_IFIFO))),
    "a device": ([("zip-special", "error", "lib/odd")], Case(special(stat.S_IFCHR))),
    "a socket": ([("zip-special", "error", "lib/odd")], Case(special(stat.S_IFSOCK))),
    # Paths and links
    "another case": (
        [("zip-case", "warning", "python/readme")],
        Case({**DEMO, "python/README": "", "python/readme": ""}),
    ),
    "another case in a folder": (
        [("zip-case", "warning", "python/demo/x.txt")],
        Case({**DEMO, "python/Demo/x.txt": "", "python/demo/x.txt": ""}),
    ),
    "three of one name": (
        [("zip-case", "warning", "lib/Ab"), ("zip-case", "warning", "lib/ab")],
        Case({**DEMO, "lib/AB": "", "lib/Ab": "", "lib/ab": ""}),
    ),
    "a link out of /opt": (symlink("error"), link("/etc/passwd")),
    "a link beside /opt": (symlink("error"), link("/opt-of-mine/x")),
    "a link to the root": (symlink("error"), link("/")),
    "a link that climbs": (symlink("error"), link("../../etc/passwd")),
    "a link that climbs from the top": (symlink("error", "lib/it"), link("x/../../../x", path="lib/it")),
    "a link that climbs by way of /opt": (symlink("error"), link("/opt/../etc/passwd")),
    "a link nowhere": (symlink("warning"), link("gone.py")),
    "a link nowhere in /opt": (symlink("warning"), link("/opt/lib/gone.so")),
    "a link to itself": (symlink("error"), link("it")),
    "links in a circle": (
        [("zip-symlink", "error", "python/a"), ("zip-symlink", "error", "python/b")],
        Case({**DEMO, "python/a": Link("b"), "python/b": Link("/opt/python/a")}),
    ),
    "a link below a file": (symlink("warning"), link("demo.py/x")),
    # Targets and accepts
    "tied to nothing": ([("target-unknown", "note", None)], Case(DEMO, targets=())),
    "for two Pythons": (
        [("target-unknown", "note", None)],
        Case({**dist(site=SITE), **dist(site=SITE311)}, targets=()),
    ),
    "for two machines": (
        [("target-unknown", "note", None)],
        Case({**DEMO, "lib/a.so": elf("shared"), "lib/b.so": elf("shared", "aarch64")}, targets=()),
    ),
    "accepted in vain": ([("accept-unused", "warning", None)], Case(DEMO, accepted=["contents-pth"])),
    "accepted by a wrong name": (
        [("zip-case", "warning", "lib/a"), ("accept-unused", "warning", None)],
        Case({**DEMO, "lib/A": "", "lib/a": ""}, accepted=["zip-cases"]),
    ),
}

# What looks like a breach of the rule and is none.
CLEAN: dict[str, tuple[str, Case]] = {
    "one empty file": ("size-empty", Case({"python/x": ""})),
    "one link": ("size-empty", Case({"lib/x": Link("/opt/lib/y")})),
    "a zip that cannot be read": ("size-empty", Case(lambda: zipped(*SOUND)[:-30])),
    "just below the limit": (
        "size-unzipped",
        Case({"lib/a": File(size=UNZIPPED - 2), "lib": Folder(), "lib/b": Link("a")}),
    ),
    "just below the limit of a request": ("size-zipped", Case(DEMO, zipped=INLINE - 1)),
    "a folder": ("size-zipped", Case({"lib/a": File(size=INLINE)})),
    "at the budget": ("size-budget", Case({"lib/a": "four"}, budget=4)),
    "no budget": ("size-budget", Case({"lib/a": File(size=UNZIPPED)})),
    "a comment behind it": (
        "zip-broken",
        Case(lambda: zipped(*SOUND)[:-2] + struct.pack("<H", 5) + b"hello"),
    ),
    "a descriptor behind the bytes": (
        "zip-broken",
        Case(streamed),
    ),
    "deflated": ("zip-checksum", Case(lambda: zipped(*SOUND, method=zipfile.ZIP_DEFLATED))),
    "packed well": (
        "zip-bomb",
        Case(lambda: zipped(*SOUND, ("lib/x", bytes(1_000_000)), method=zipfile.ZIP_DEFLATED)),
    ),
    "not encrypted": ("zip-encrypted", Case(lambda: zipped(*SOUND))),
    "stored": ("zip-method", Case(lambda: zipped(*SOUND))),
    "written without knowing sizes": ("zip-zip64", Case(streamed)),
    "dots in names": ("zip-path", Case(lambda: zipped(*SOUND, ("lib/..x", ""), ("lib/...", ""), ("lib/.x", "")))),
    "a colon further on": ("zip-path", Case(lambda: zipped(*SOUND, ("lib/a:b", ""), ("lib/ö 1", "")))),
    "folders with a slash": ("zip-path", Case(lambda: zipped(("python/", ""), *SOUND))),
    "one name in two folders": ("zip-duplicate", Case(lambda: zipped(*SOUND, ("lib/demo.py", "")))),
    "nothing before it": ("zip-prefix", Case(lambda: zipped(*SOUND))),
    "a file like any": ("zip-special", Case(special(stat.S_IFREG))),
    "other names": ("zip-case", Case({**DEMO, "lib/A": "", "lib/b": "", "python/a": ""})),
    "a link to a file beside": ("zip-symlink", link("demo.py")),
    "a link to another folder": ("zip-symlink", link("../lib/libdemo.so.1")),
    "an absolute link": ("zip-symlink", link("/opt/lib/libdemo.so.1")),
    "an absolute link that is not plain": ("zip-symlink", link("/opt//lib/./../lib/libdemo.so.1")),
    "a link to a folder": ("zip-symlink", link("../lib/")),
    "a link to the folder that it is in": ("zip-symlink", link(".")),
    "a link to /opt": ("zip-symlink", link("/opt")),
    "a link to the top": ("zip-symlink", link("..")),
    "a link by way of a link": (
        "zip-symlink",
        link("libs/libdemo.so.1", {"python/libs": Link("../lib")}),
    ),
    "a link to a link": ("zip-symlink", link("two", {"python/two": Link("demo.py")})),
    "a link to an empty folder": ("zip-symlink", link("empty", {"python/empty": Folder()})),
    "named": ("target-unknown", Case(DEMO)),
    "nothing to know": ("target-unknown", Case({}, targets=())),
    "accepted and found": (
        "accept-unused",
        Case({**DEMO, "lib/A": "", "lib/a": ""}, accepted=["zip-case"]),
    ),
    "nothing accepted": ("accept-unused", Case(DEMO)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_rule_that_is_broken_is_found_and_nothing_else(name: str, tmp_path: Path) -> None:
    expected, case = BROKEN[name]
    assert sorted(map(str, case.findings(tmp_path))) == sorted(map(str, expected))


@pytest.mark.parametrize("name", CLEAN)
def test_what_only_looks_like_a_breach_is_not_found(name: str, tmp_path: Path) -> None:
    code, case = CLEAN[name]
    assert [finding for finding in case.findings(tmp_path) if finding[0] == code] == []


def test_every_rule_is_in_both_tables_with_every_severity() -> None:
    ours = {code for code in rules() if code.startswith(("size-", "zip-"))} | {"target-unknown", "accept-unused"}
    assert {code for code, _ in CLEAN.values()} == ours
    found = {(code, severity) for expected, _ in BROKEN.values() for code, severity, _ in expected}
    assert {code for code, _ in found} == ours
    assert found == {(code, rules()[code].severity) for code in ours} | {("zip-symlink", "warning")}


@pytest.mark.parametrize("content", [b"", b"x" * 5000, b"a\0b"], ids=["empty", "too-long", "nul"])
def test_a_link_whose_target_is_no_path_is_told(content: bytes, tmp_path: Path) -> None:
    info = zipfile.ZipInfo("python/it")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    found = Case(lambda: zipped(*SOUND, (info, content))).findings(tmp_path)
    assert [(code, path) for code, _, path in found] == [("zip-symlink", "python/it")]


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("/etc/x", "leads to /etc/x, which is outside /opt"),
        ("../../x", "leads to ../../x, which climbs out of /opt"),
        ("x", "leads to x, which is not in the layer"),
    ],
)
def test_a_link_is_told_with_what_is_wrong_with_it(target: str, words: str) -> None:
    (found,) = check_layer(tree({**DEMO, "python/it": Link(target)}), select_targets([T312]))
    assert found.message.endswith(words)


def test_links_are_followed_no_further_than_the_system_would() -> None:
    chain = {f"lib/{number:03}": Link(f"{number + 1:03}") for number in range(60)}
    found = told(check_layer(tree({**DEMO, **chain, "lib/060": ""}), select_targets([T312])))
    assert [path for _, _, path in found] == [f"lib/{number:03}" for number in range(20)]


@pytest.mark.parametrize(
    ("path", "real"),
    [
        ("python/demo.py", "python/demo.py"),
        ("python/lib64/x", "lib/x"),
        ("top/lib/x", "lib/x"),
        ("top/python/lib64", "lib"),
        ("python/up", ""),
        ("up/..", None),
        ("..", None),
        ("lib/y", None),
        ("python/out/passwd", None),
        ("python/./../lib//x", "lib/x"),
    ],
)
def test_paths_lead_through_links_where_the_system_would_take_them(path: str, real: str | None) -> None:
    table = {
        **DEMO,
        "lib/x": "",
        "python/lib64": Link("../lib"),
        "top": Link("/opt"),
        "up": Link("python/.."),
        "python/up": Link("/opt/"),
        "python/out": Link("/etc"),
    }
    assert tree(table).real_path(path) == real


def test_what_is_largest_is_named_by_distribution_or_by_place() -> None:
    table: dict[str, Spec] = {
        **dist(files={"demo/a": File(size=600), "demo/b": File(size=100)}, record=True),
        f"{SITE}/own/x.py": File(size=500),
        "python/other.py": File(size=400),
        "lib/x.so": File(size=300),
        "README": File(size=2),
        "EMPTY": "",
    }
    found = largest(tree(table))
    assert [name for name, _ in found] == ["demo 1.0", "own", "other.py", "lib", "README"]
    assert dict(found)["demo 1.0"] > 700
    many = {f"python/x{number:02}.txt": "x" for number in range(20)}
    assert [name for name, _ in largest(tree(many))] == [f"x{number:02}.txt" for number in range(10)]
    (told_large,) = check_layer(tree({"lib/a": File(size=UNZIPPED)}), select_targets([T312]))
    assert told_large.message.endswith("bytes unzipped; Lambda refuses 262,144,000 and more; largest: lib 262.1 MB")


@pytest.mark.parametrize(
    ("table", "targets"),
    [
        (dist(site=SITE), ["python3.12-x86_64", "python3.12-arm64"]),
        ({**dist(site=SITE), f"{SITE}/a.so": elf("shared")}, ["python3.12-x86_64"]),
        ({**DEMO, "python/a.cpython-312-aarch64-linux-gnu.so": elf("shared", "aarch64")}, ["python3.12-arm64"]),
        ({**DEMO, "python/a.abi3.so": elf("shared")}, []),
        ({**DEMO, "python/a.cpython-312-x86_64-linux-gnu.so": "no ELF file"}, []),
        (dist(site="python/lib/python3.8/site-packages"), []),
        ({**dist(site=SITE), **dist(site=SITE311)}, []),
        ({f"{SITE}/a.so": elf("shared"), f"{SITE}/b.so": elf("shared", "aarch64")}, []),
        ({"python/lib/python3.12": "a file"}, []),
        ({f"{SITE}/a.so": b"\x7fELF"}, ["python3.12-x86_64", "python3.12-arm64"]),
        ({}, []),
    ],
)
def test_targets_are_taken_from_what_is_certain(table: Table, targets: list[str]) -> None:
    assert [str(target) for target in inferred_targets(tree(table))] == targets


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (DEMO, "it does not say which Python it is for"),
        ({**dist(site=SITE), **dist(site=SITE311)}, "packages for python3.11, python3.12"),
        ({**DEMO, "lib/a": elf(), "lib/b": elf("shared", "aarch64")}, "compiled files for aarch64, x86_64"),
    ],
)
def test_why_a_target_is_unknown_is_said(table: Table, words: str) -> None:
    (found,) = [one for one in check_layer(tree(table), ()) if one.code == "target-unknown"]
    assert words in found.message


# Findings


def finding(code: str, path: str | None = None, **more: str) -> Finding:
    return Finding(code=code, path=path, message=more.pop("message", "it is so"), **more)  # type: ignore[arg-type]


def test_findings_are_told_by_severity_then_rule_then_path() -> None:
    rows = [
        finding("size-empty"),
        finding("zip-path", "a"),
        finding("zip-path", "b", message="a"),
        finding("zip-path", "b", message="b"),
        finding("zip-case", "a"),
        finding("zip-symlink", "z", severity="warning"),
        finding("size-zipped"),
    ]
    assert in_order(reversed(rows)) == rows


SOME = [finding("size-empty"), finding("zip-path", "a"), finding("zip-case", "b"), finding("contents-pth", "c")]


@pytest.mark.parametrize(
    ("chosen", "ignored", "left"),
    [
        ([], [], "size-empty zip-path zip-case contents-pth"),
        (["zip"], [], "zip-path zip-case"),
        (["zip-"], [], "zip-path zip-case"),
        (["zip-case", "contents"], [], "zip-case contents-pth"),
        ([], ["zip", "size-empty"], "contents-pth"),
        (["zip"], ["zip-case"], "zip-path"),
        (["zi"], [], ""),
        (["contents-p"], [], ""),
    ],
)
def test_findings_are_selected_by_code_or_family(chosen: list[str], ignored: list[str], left: str) -> None:
    assert [one.code for one in select(SOME, chosen, ignored)] == left.split()


@pytest.mark.parametrize("selector", ["zi", "zip-cas", "", "-", "nonsense", "ZIP"])
def test_selectors_that_match_nothing_are_refused(selector: str) -> None:
    check_selectors(["zip", "zip-", "zip-case", "stack", "target", "binary-library"])
    with pytest.raises(UsageError) as caught:
        check_selectors(["zip", selector])
    assert caught.value.code == "unknown-rule"
    assert repr(selector) in caught.value.what


def test_errors_that_nobody_accepts_are_refused_and_named() -> None:
    refuse_errors([], "demo")
    refuse_errors([finding("zip-case", "a"), replace(finding("zip-path", "a"), accepted="known")], "demo")
    with pytest.raises(CheckError) as caught:
        refuse_errors([finding("size-empty"), finding("zip-case", "b")], "demo")
    assert caught.value.what == "demo is not made: 1 error found in it"
    assert caught.value.causes == ("it is so [size-empty]",)
    assert "put packages under python/" in str(caught.value.hint)
    with pytest.raises(CheckError) as caught:
        refuse_errors([finding("zip-path", f"{number}") for number in range(1012)], "demo")
    assert caught.value.what.startswith("demo is not made: 1012 errors")
    assert len(caught.value.causes) == 11
    assert caught.value.causes[-1] == "and 1002 more"


def test_an_accept_marks_every_finding_of_its_code() -> None:
    rows = [finding("zip-path", "a"), finding("zip-path", "b"), finding("zip-case", "a")]
    marked = accept(rows, [Accept(code="zip-path", reason="known")])
    assert [(one.path, one.accepted) for one in marked] == [("a", "known"), ("b", "known"), ("a", None)]
    (unused,) = accept([], [Accept(code="zip-path", reason="known")])
    assert (unused.code, unused.accepted) == ("accept-unused", None)
    assert "zip-path" in unused.message


def test_findings_are_kept_by_content(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    rows = [replace(finding("zip-symlink", "a", severity="warning", fix="do so"), targets=(T312,), files=3), *SOME]
    calls: list[int] = []

    def work() -> list[Finding]:
        calls.append(1)
        return rows

    for key, number in (("one", 1), ("one", 1), ("two", 2)):
        assert known_findings(key, cache, work) == rows
        assert len(calls) == number
    assert known_findings("one", None, work) == rows
    assert len(calls) == 3
    for kept in (tmp_path / "findings").rglob("*.json"):
        kept.write_bytes(kept.read_bytes()[:-2])
    assert known_findings("one", cache, work) == rows
    assert len(calls) == 4


# Folders and zips


def test_a_zip_and_a_folder_of_the_same_files_are_the_same_layer(tmp_path: Path) -> None:
    table: dict[str, Spec] = {
        **dist(requires=["other"], files={"demo/__init__.py": "", "demo/tool": File("#!/bin/sh\n", mode=0o755)}),
        "lib": Folder(0o755),
        "lib/libdemo.so.1": elf("shared"),
        "lib/libdemo.so": Link("libdemo.so.1"),
    }
    asked = tree(table)
    zipped_tree = read_tree(write_zip(tmp_path / "layer.zip", table), "layer")
    folder = read_tree(write_folder(tmp_path / "opt", table), "layer")
    for one in (zipped_tree, folder):
        assert one.distributions == asked.distributions
        files = {path: entry for path, entry in one.entries.items() if entry.kind == "file"}
        assert files == {path: entry for path, entry in asked.entries.items() if entry.kind == "file"}
        assert one.entries["lib"].kind == "folder"
        assert one.entries["lib/libdemo.so"].facts == {"target": "libdemo.so.1"}
        assert one.read("python/demo/tool") == b"#!/bin/sh\n"
        assert told(check_layer(one, select_targets([T312]))) == told(check_layer(asked, select_targets([T312])))
    assert zipped_tree.zipped == (tmp_path / "layer.zip").stat().st_size
    assert folder.zipped is None
    assert zipped_tree.unzipped == folder.unzipped == asked.unzipped


def test_what_a_folder_must_not_hold_is_told(tmp_path: Path) -> None:
    opt = write_folder(tmp_path / "opt", DEMO)
    os.mkfifo(opt / "lib-pipe")
    (opt / "python/a\x1bb").write_text("")
    (opt / os.fsdecode(b"\xff")).write_text("")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(opt / "s", Path.cwd()) if len(str(opt / "s")) > 100 else str(opt / "s"))
        problems = read_folder(opt, "opt").problems
    assert sorted((one.kind, one.path) for one in problems) == [
        ("path", "'\\udcff'"),
        ("path", "'python/a\\x1bb'"),
        ("special", "lib-pipe"),
        ("special", "s"),
    ]


@pytest.mark.parametrize("what", ["nothing", "dangling", "pipe"])
def test_what_is_neither_a_file_nor_a_folder_is_refused(what: str, tmp_path: Path) -> None:
    path = tmp_path / "it"
    if what == "dangling":
        path.symlink_to("gone")
    elif what == "pipe":
        os.mkfifo(path)
    with pytest.raises(UsageError) as caught:
        read_tree(path, "it")
    assert caught.value.code == "layer-not-found"
    assert ("does not exist" in caught.value.what) == (what == "nothing")


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"python/a_b-1.5.dist-info/METADATA": ""}, ("a_b", "1.5", "python")),
        ({"python/a.dist-info/METADATA": "Name: A-B\n"}, ("A-B", "0", "python")),
        ({"python/a.egg-info/PKG-INFO": "Name: A\nVersion: 2\n"}, ("A", "2", "python")),
        ({"a-1.dist-info/METADATA": "Name: a\nVersion: 1\n"}, ("a", "1", "")),
        ({"python/a-1.egg-info": "Name: a\nVersion: 1\n"}, None),
        ({"python/a-1.dist-info/sub/METADATA": "Name: a\nVersion: 1\n"}, None),
    ],
)
def test_distributions_are_recognised_by_their_metadata(table: Table, expected: tuple[str, str, str] | None) -> None:
    found = [(one.name, one.version, one.site) for one in tree(table).distributions]
    assert found == ([expected] if expected else [])


@pytest.mark.parametrize(
    ("row", "path"),
    [
        ("demo.py", "python/demo.py"),
        ("./demo.py", "python/demo.py"),
        ("demo//x.py", "python/demo/x.py"),
        ("demo/../x.py", "python/x.py"),
        ("../bin/tool", "bin/tool"),
        ("../../usr/bin/tool", None),
        ("/usr/bin/tool", None),
        ('"a,b.py"', "python/a,b.py"),
    ],
)
def test_rows_of_record_are_paths_of_the_layer(row: str, path: str | None) -> None:
    info = "python/demo-1.0.dist-info"
    layer = tree({f"{info}/METADATA": "Name: demo\nVersion: 1\n", f"{info}/RECORD": f"{row},,\n"})
    assert layer.distributions[0].recorded == (frozenset({path}) if path else frozenset())
    assert str(layer.owner(f"{info}/RECORD")) == "demo 1"
    assert layer.owner("elsewhere") is None


def test_every_problem_of_a_zip_has_its_rule() -> None:
    kinds = [code.removeprefix("zip-") for code in rules() if code.startswith("zip-")]
    layer = tree(DEMO, problems=[Problem(kind, "x", "it is so") for kind in kinds])
    assert {one.code for one in check_layer(layer, select_targets([T312]))} == {f"zip-{kind}" for kind in kinds}
