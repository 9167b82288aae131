"""What a sandbox is told and says, without one: archives, environments, reserved names, lines."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerbuild.errors import MachineError, UsageError
from layerbuild.sandbox import (
    GUEST,
    MIB,
    SPEC,
    Limits,
    SandboxFile,
    environment,
    guest_files,
    reports,
    tar_chunks,
)
from layerbuild.sandbox.invoke import (
    RESERVED,
    Function,
    Invocation,
    _Lines,
    invoke,
    stack_files,
    tree_files,
)
from layerbuild.sandbox.smoke import _imported
from layerbuild.stack import Stack
from layerbuild.target import Target, select_targets
from tests.trees import File, Folder, Link, Table, tree

TARGETS = {
    name: select_targets([f"{name}-x86_64"])[0] for name in ("python3.9", "python3.11", "python3.12", "python3.13")
}
TARGET = TARGETS["python3.13"]


def file(path: str, data: bytes = b"", mode: int = 0o644) -> SandboxFile:
    return SandboxFile(path, mode, len(data), lambda: data)


def link(path: str, target: str) -> SandboxFile:
    return SandboxFile(path, 0o777, 0, None, target)


def unpacked(content: Iterable[SandboxFile]) -> list[tuple[str, str, int, bytes]]:
    """Name, kind, mode and content or target of each member, as Python's own tarfile reads them from a stream."""
    data = b"".join(tar_chunks(content))
    assert len(data) % 512 == 0
    found = []
    with tarfile.open(fileobj=io.BytesIO(data), mode="r|", encoding="utf-8", errors="surrogateescape") as archive:
        for member in archive:
            if member.isreg():
                source = archive.extractfile(member)
                assert source
                found.append((member.name, "file", member.mode, source.read()))
            elif member.issym():
                found.append((member.name, "link", member.mode, member.linkname.encode("utf-8", "surrogateescape")))
            else:
                assert member.isdir()
                found.append((member.name, "folder", member.mode, b""))
            assert (member.uid, member.gid, member.mtime) == (0, 0, 0)
    return found


LONG = "opt/" + "/".join(["folder-with-a-long-name"] * 12) + "/file.py"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([], []),
        ([file("a")], [("a", "file", 0o644, b"")]),
        (
            [file("opt/python/a.py", b"x = 1\n"), file("opt/python/b", b"", 0o755)],
            [
                ("opt", "folder", 0o755, b""),
                ("opt/python", "folder", 0o755, b""),
                ("opt/python/a.py", "file", 0o644, b"x = 1\n"),
                ("opt/python/b", "file", 0o755, b""),
            ],
        ),
        ([link("l", "../a b")], [("l", "link", 0o777, b"../a b")]),
        ([link("l", "x" * 300)], [("l", "link", 0o777, b"x" * 300)]),
        ([file("größe-中-😀", b"1")], [("größe-中-😀", "file", 0o644, b"1")]),
        ([file("bad-\udcff", b"1")], [("bad-\udcff", "file", 0o644, b"1")]),
        ([file("secret", b"1", 0o600)], [("secret", "file", 0o600, b"1")]),
        *[([file("a", bytes(size))], [("a", "file", 0o644, bytes(size))]) for size in (1, 511, 512, 513, 70_000)],
    ],
    ids=[
        "nothing",
        "one",
        "folders",
        "link",
        "long link",
        "foreign",
        "no-utf8",
        "mode",
        "1",
        "511",
        "512",
        "513",
        "large",
    ],
)
def test_an_archive_is_what_tarfile_reads(
    content: list[SandboxFile], expected: list[tuple[str, str, int, bytes]]
) -> None:
    assert unpacked(content) == expected


def test_long_paths_are_in_an_archive() -> None:
    found = unpacked([file(LONG, b"x")])
    assert found[-1] == (LONG, "file", 0o644, b"x")
    assert len(found) == 14


def test_each_folder_is_in_an_archive_once_and_before_what_it_holds() -> None:
    paths = ["opt/b/x", "opt/a/x", "opt/b/y", "var/task/z", "opt/a/c/d"]
    names = [name for name, *_ in unpacked(file(path) for path in paths)]
    assert len(names) == len(set(names))
    for name in names:
        parent = name.rpartition("/")[0]
        assert not parent or names.index(parent) < names.index(name)


def test_of_an_archive_one_file_is_read_at_a_time() -> None:
    read: list[int] = []

    def contents(number: int) -> bytes:
        read.append(number)
        return b"x" * 1000

    files = [SandboxFile(f"f{number}", 0o644, 1000, lambda number=number: contents(number)) for number in range(3)]  # type: ignore[misc]
    chunks = tar_chunks(files)
    assert read == []
    assert [len(next(chunks)) for _ in range(2)] == [512, 1000]
    assert read == [0]
    list(chunks)
    assert read == [0, 1, 2]


names = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=80).filter(
    lambda name: name.strip(".") and not name.endswith(" ")
)


@given(st.dictionaries(st.lists(names, min_size=1, max_size=5).map("/".join), st.binary(max_size=1500), max_size=6))
def test_any_archive_is_what_tarfile_reads(table: dict[str, bytes]) -> None:
    plain = {path: data for path, data in table.items() if not any(other.startswith(f"{path}/") for other in table)}
    found = unpacked(file(path, data) for path, data in plain.items())
    assert {name: data for name, kind, _, data in found if kind == "file"} == plain


# Seen in Lambda's images, for each of these runtimes.
@pytest.mark.parametrize("name", TARGETS)
def test_the_environment_is_that_of_the_runtime(name: str) -> None:
    found = environment(TARGETS[name], function="fn", handler="app.handler", memory=256 * MIB, region="eu-west-1")
    assert found["AWS_EXECUTION_ENV"] == f"AWS_Lambda_{name}"
    assert found["PATH"] == "/var/lang/bin:/usr/local/bin:/usr/bin/:/bin:/opt/bin"
    assert found["LD_LIBRARY_PATH"].split(":")[0] == "/var/lang/lib"
    assert found["LD_LIBRARY_PATH"].endswith(":/var/task:/var/task/lib:/opt/lib")
    assert (found["PYTHONPATH"], found["TZ"], found["LANG"]) == ("/var/runtime", ":UTC", "en_US.UTF-8")
    assert found.get("LC_CTYPE") == ("C.UTF-8" if name in ("python3.12", "python3.13") else None)
    assert (found["AWS_REGION"], found["AWS_DEFAULT_REGION"]) == ("eu-west-1", "eu-west-1")
    assert found["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"] == "256"
    assert found["AWS_LAMBDA_LOG_GROUP_NAME"] == "/aws/lambda/fn"
    assert (found["_HANDLER"], found["LAMBDA_TASK_ROOT"]) == ("app.handler", "/var/task")
    # With it the client would be one for several invocations at once.
    assert "AWS_LAMBDA_MAX_CONCURRENCY" not in found


def test_what_the_environment_has_cannot_be_set_but_where_lambda_lets_one() -> None:
    """AWS documentation: PATH, LANG, TZ, library and search paths, and X-Ray's are not reserved."""
    found = set(environment(TARGET, function="fn", handler="a.b", memory=128 * MIB, region="us-east-1"))
    free = {"PATH", "LANG", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH", "PYTHONPATH"}
    free |= {"AWS_XRAY_CONTEXT_MISSING", "AWS_XRAY_DAEMON_ADDRESS"}
    assert found - set(RESERVED) == free


@pytest.mark.parametrize("name", RESERVED)
def test_reserved_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError) as raised:
        Function(name="fn", handler="a.b", variables={name: "x", "OTHER": "y"})
    assert raised.value.code == "reserved-variable"
    assert name in raised.value.what
    assert "OTHER" not in raised.value.what


@pytest.mark.parametrize(
    "name", ["PATH", "PYTHONPATH", "TZ", "AWS_ACCESS_KEY_ID", "AWS_LAMBDA_LOG_LEVEL", "aws_region"]
)
def test_other_names_are_not(name: str) -> None:
    assert Function(name="fn", handler="a.b", variables={name: "x"}).variables == {name: "x"}


def test_guests_come_with_what_they_are_to_do() -> None:
    spec = {"kind": "invoke", "events": ['{"größe": "\udcff"}']}
    found = {one.path: one.content() for one in guest_files(spec) if one.content}
    programs = {f"{GUEST}/{name}" for name in ("driver.py", "imports.py", "bootstrap.py")}
    assert programs | {"var/runtime/bootstrap.py", SPEC} <= set(found)
    assert json.loads(found[SPEC]) == spec
    for path, data in found.items():
        if path.endswith(".py"):
            compile(data, path, "exec")


# Lines.


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([], []),
        (["a\n"], ["a"]),
        (["a"], ["a"]),
        (["a", "b\n", "c"], ["ab", "c"]),
        (["a\nb\n"], ["a", "b"]),
        (["\n\n"], ["", ""]),
        (["a\rb\n"], ["a", "b"]),
        ([""], []),
        (["x" * 100_000, "y\n"], ["x" * 100_000 + "y"]),
        # As programs write that think of Windows; a terminal shows two lines and not three.
        (["a\r\nb\r\n"], ["a", "b"]),
        (["a\r", "\nb\n"], ["a", "b"]),
        # Only line ends end lines.
        (["a\x0bb\x0cc\x85d\u2028e\n"], ["a\x0bb\x0cc\x85d\u2028e"]),
    ],
)
def test_pieces_of_text_become_lines(pieces: list[str], expected: list[str]) -> None:
    lines = _Lines()
    given = [line for piece in pieces for line in lines.add(piece)] + list(lines.end())
    assert given == expected
    assert list(lines.taken()) == expected
    assert lines.taken() == ()
    assert list(lines.end()) == []


@given(st.lists(st.text(alphabet="ab\n", max_size=5), max_size=8))
def test_lines_do_not_depend_on_where_text_is_cut(pieces: list[str]) -> None:
    lines = _Lines()
    found = [line for piece in pieces for line in lines.add(piece)] + list(lines.end())
    assert found == "".join(pieces).splitlines()


# What drivers say.


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"log": "x"}\n', {"log": "x"}),
        (b"plain\n", {"log": "plain\n"}),
        (b"\xff\n", {"log": "\ufffd\n"}),
        (b"[]\n", {"log": "[]\n"}),
        (b"null\n", {"log": "null\n"}),
        (b"1\n", {"log": "1\n"}),
        (b"\n", {"log": "\n"}),
        (b"", {"log": ""}),
        (b'{"log": "x"', {"log": '{"log": "x"'}),
        (b'"result"\n', {"log": '"result"\n'}),
        (b"[" * 200_000 + b"\n", {"log": "[" * 200_000 + "\n"}),
        (b"9" * 10_000 + b"\n", {"log": "9" * 10_000 + "\n"}),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_what_is_no_object_is_taken_for_output(line: bytes, expected: dict[str, Any]) -> None:
    assert list(reports([line])) == [expected]


@given(st.lists(st.binary(max_size=60), max_size=5))
def test_any_lines_can_be_read(lines: list[bytes]) -> None:
    found = list(reports(lines))
    assert len(found) == len(lines)
    assert all(isinstance(one, dict) for one in found)


class Saying:
    """A sandbox that says what it is told to."""

    name = "saying"
    differences = ()
    interpreter = "3.13.0"

    def __init__(self, *said: dict[str, Any]) -> None:
        self._said = said

    def run(self, content: Any, spec: Any, limits: Any, *, network: str) -> Iterator[dict[str, Any]]:
        self.spec = spec
        yield from self._said


RESULT = {"result": "1", "error": None, "error_type": None, "id": "x", "duration": 1.0, "init": 2.0, "memory": 20}


def said_of(target: Target, *said: dict[str, Any], events: tuple[str, ...] = ("{}",)) -> list[str | Invocation]:
    return list(invoke(Saying(*said), target, [], Function(name="fn", handler="a.b"), events, network="none"))


def test_output_and_reports_become_the_log_of_their_invocation() -> None:
    first, second, third, ended = said_of(TARGET, {"log": "a"}, {"log": "b\nc"}, {"report": "END"}, RESULT)
    assert (first, second, third) == ("ab", "c", "END")
    assert isinstance(ended, Invocation)
    assert ended.log == ("ab", "c", "END")
    assert ended.as_json()["payload"] == 1


HOSTILE_REPORTS: list[dict[str, Any]] = [
    {"result": "forged"},
    {"result": 1, "error": None, "error_type": None, "id": "x", "duration": 1.0, "init": None, "memory": 20},
    {"report": []},
    {"report": None},
    {"log": None},
    {"log": ["x"]},
    {"result": "1", "error": 5, "error_type": [], "id": None, "duration": "long", "init": {}, "memory": None},
    {},
    {"unknown": 1},
]


@pytest.mark.parametrize("said", HOSTILE_REPORTS, ids=[json.dumps(one)[:30] for one in HOSTILE_REPORTS])
def test_what_somebody_else_says_in_place_of_the_driver_breaks_nothing(said: dict[str, Any]) -> None:
    """Where the function is this user, it can write to the driver's output."""
    try:
        found = said_of(TARGET, said, RESULT)
    except MachineError:
        return
    for one in found:
        if isinstance(one, Invocation):
            json.dumps(one.as_json())


@pytest.mark.parametrize("count", [0, 2])
def test_a_driver_that_does_not_answer_each_event_broke_off(count: int) -> None:
    with pytest.raises(MachineError) as raised:
        said_of(TARGET, {"log": "last words\n"}, *[RESULT] * count)
    assert raised.value.code == "sandbox-failed"


PAYLOADS: list[tuple[str, Any]] = [
    ('{"a": [1]}', {"a": [1]}),
    ("", ""),
    ("no JSON", "no JSON"),
    ("null", None),
    # Python alone reads these; the document would be no JSON with them.
    ("NaN", "NaN"),
    ('{"a": -Infinity}', '{"a": -Infinity}'),
    ("9" * 5000, "9" * 5000),
    ("[" * 200_000, "[" * 200_000),
    ("1e999", "1e999"),
]


@pytest.mark.parametrize(("payload", "expected"), PAYLOADS, ids=[payload[:12] or "empty" for payload, _ in PAYLOADS])
def test_a_payload_is_json_where_it_is(payload: str, expected: Any) -> None:
    (ended,) = said_of(TARGET, {**RESULT, "result": payload})
    assert isinstance(ended, Invocation)
    assert ended.as_json()["payload"] == expected
    json.loads(json.dumps(ended.as_json()), parse_constant=pytest.fail)


def test_a_driver_is_told_what_lambda_would_tell() -> None:
    sandbox = Saying(RESULT, RESULT)
    function = Function(
        name="fn",
        handler="a.b",
        variables={"PATH": "/mine", "TABLE": "x"},
        region="eu-west-1",
        limits=Limits(seconds=7, memory=512 * MIB, tmp=600 * MIB),
    )
    list(invoke(sandbox, TARGET, [], function, ["{}", "[]"], network="none"))
    spec = sandbox.spec
    assert (spec["kind"], spec["events"], spec["timeout"], spec["memory"]) == ("invoke", ["{}", "[]"], 7, 512 * MIB)
    assert len(set(spec["ids"])) == 2
    assert spec["arn"] == "arn:aws:lambda:eu-west-1:123456789012:function:fn"
    assert (spec["environment"]["PATH"], spec["environment"]["TABLE"]) == ("/mine", "x")
    json.dumps(spec)


@pytest.mark.parametrize(
    ("region", "partition"),
    [("us-east-1", "aws"), ("cn-north-1", "aws-cn"), ("us-gov-west-1", "aws-us-gov")],
)
def test_the_arn_is_of_the_partition_of_its_region(region: str, partition: str) -> None:
    sandbox = Saying(RESULT)
    list(invoke(sandbox, TARGET, [], Function(name="fn", handler="a.b", region=region), ["{}"], network="none"))
    assert sandbox.spec["arn"].startswith(f"arn:{partition}:lambda:{region}:")


# Smoke imports.


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "[]",
        "null",
        "1",
        "{}",
        '{"items": 1, "loaded": []}',
        '{"items": [[1, 2]], "loaded": []}',
        "[" * 100_000,
    ],
    ids=lambda text: text[:12] or "empty",
)
def test_a_report_of_imports_that_is_none_is_a_failure(text: str) -> None:
    found = _imported({"imported": text, "ended": "", "code": 3, "times": ""}, "last words\n")
    assert found.items == ()
    assert found.failed == "it"
    assert "exit code 3" in found.problem


# Trees and stacks.

TABLE: Table = {
    "python/a.py": "x = 1\n",
    "python/secret": File("s", 0o600),
    "python/unsaid": File("u", None),
    "python/link": Link("a.py"),
    "bin/run": File("#!/bin/sh\n", 0o755),
    "empty": Folder(0o700),
}


def listed(content: Iterable[SandboxFile]) -> dict[str, tuple[int, bytes | str]]:
    return {one.path: (one.mode, one.content() if one.content else f"-> {one.target}") for one in content}


def test_files_of_a_tree_keep_their_modes_and_links() -> None:
    assert listed(tree_files(tree(TABLE), "opt")) == {
        "opt/python/a.py": (0o644, b"x = 1\n"),
        "opt/python/secret": (0o600, b"s"),
        "opt/python/unsaid": (0o644, b"u"),  # nobody knows what Lambda makes of it
        "opt/python/link": (0o777, "-> a.py"),
        "opt/bin/run": (0o755, b"#!/bin/sh\n"),
    }


def test_files_of_a_tree_can_be_chosen() -> None:
    found = tree_files(tree(TABLE), "var/task", ["bin/run", "python/link"])
    assert [(one.path, one.size) for one in found] == [("var/task/bin/run", 10), ("var/task/python/link", 0)]


def stack(*tables: Table, function: Table | None = None) -> Stack:
    layers = tuple(tree(table, name=f"layer {number}") for number, table in enumerate(tables))
    return Stack(layers=layers, target=TARGET, function=tree(function) if function is not None else None)


@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        ([{"a": "1"}, {"a": "2"}], {"opt/a": b"2"}),
        ([{"a": "1", "b": "1"}, {"a": "2"}, {"c": "3"}], {"opt/a": b"2", "opt/b": b"1", "opt/c": b"3"}),
        ([{"d/a": "1"}, {"d/b": "2"}], {"opt/d/a": b"1", "opt/d/b": b"2"}),
        # A file where another layer has a folder: undocumented. One of them is there, and nothing is both.
        ([{"d/a": "1"}, {"d": "2"}], {"opt/d": b"2"}),
        ([{"d": "1"}, {"d/a": "2"}], {"opt/d/a": b"2"}),
        ([{"d": Link("/etc")}, {"d/a": "2"}], {"opt/d/a": b"2"}),
        ([{"d/a": "1"}, {"d": Link("/etc")}], {"opt/d": "-> /etc"}),
    ],
    ids=[
        "last wins",
        "three",
        "folders merge",
        "file over folder",
        "folder over file",
        "folder over link",
        "link over",
    ],
)
def test_of_several_layers_the_last_wins(tables: list[Table], expected: dict[str, bytes | str]) -> None:
    assert {path: content for path, (_, content) in listed(stack_files(stack(*tables))).items()} == expected


def test_a_function_lies_beside_the_layers() -> None:
    found = listed(stack_files(stack({"a": "1"}, function={"a": "2", "app.py": ""})))
    assert set(found) == {"opt/a", "var/task/a", "var/task/app.py"}
    assert found["var/task/a"] == (0o644, b"2")
    assert listed(stack_files(stack(function={"app.py": ""}))) == {"var/task/app.py": (0o644, b"")}


def test_what_lies_in_a_stack_is_a_whole_archive() -> None:
    content = list(stack_files(stack(TABLE, {"python/a.py": "2"}, function={"app.py": ""})))
    found = {name: data for name, kind, _, data in unpacked(content) if kind != "folder"}
    assert found["opt/python/a.py"] == b"2"
    assert found["opt/python/link"] == b"a.py"
    assert found["var/task/app.py"] == b""
