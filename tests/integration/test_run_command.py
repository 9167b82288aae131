"""The command line of `layerbuild run`: events, variables, targets, backends, what is printed where, exit codes."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from layerbuild.sandbox.events import event_kinds
from layerbuild.sandbox.invoke import LARGEST_EVENT
from layerbuild.sandbox.namespace import obstacle
from tests.conftest import Ran
from tests.interpreters import find_python
from tests.running import (
    ARCH,
    Runs,
    isolated,
    no_traceback,
    processes_with,
    run_cache,  # noqa: F401 - a fixture
    wait_until,
)
from tests.trees import elf, write_zip

network = pytest.mark.network
OTHER = "arm64" if ARCH == "x86_64" else "x86_64"
MACHINE = {"x86_64": "x86_64", "arm64": "aarch64"}
TARGET = f"python3.13-{ARCH}"
APP = """
import os, sys
print("in init")
COUNT = 0
def handler(event, context):
    global COUNT
    COUNT += 1
    print("in handler")
    if event == {"fail": True}:
        raise ValueError("no luck")
    return {"event": event, "count": COUNT, "pid": os.getpid(), "version": list(sys.version_info[:2])}
def variables(event, context):
    return dict(os.environ)
"""
DOCUMENT = {
    "type": "object",
    "additionalProperties": False,
    "required": ["target", "backend", "interpreter", "differences", "invocations"],
    "properties": {
        "target": {"const": TARGET},
        "backend": {"enum": ["namespace", "container", "process"]},
        "interpreter": {"type": "string", "pattern": r"^3\.13"},
        "differences": {"type": "array", "items": {"type": "string"}},
        "invocations": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": [
                    *("status_code", "function_error", "error_type", "payload", "request_id"),
                    *("duration_ms", "init_duration_ms", "memory_mb", "log"),
                ],
                "properties": {
                    "status_code": {"const": 200},
                    "function_error": {"enum": ["Unhandled", None]},
                    "error_type": {"type": ["string", "null"]},
                    "payload": {},
                    "request_id": {"type": "string"},
                    "duration_ms": {"type": "number", "minimum": 0},
                    "init_duration_ms": {"type": ["number", "null"]},
                    "memory_mb": {"type": "integer", "minimum": 1},
                    "log": {"type": "array", "items": {"type": "string", "pattern": "^[^\n]*$"}},
                },
            },
        },
    },
}

Cli = Callable[..., Ran]


@pytest.fixture
def here(project: Path, run_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: F811
    """A project with a function, and a cache that other tests have filled."""
    monkeypatch.setenv("LAYERBUILD_CACHE_DIR", str(run_cache))
    (project / "fn").mkdir()
    (project / "fn/app.py").write_text(APP)
    return project


@pytest.fixture
def run(here: Path, cli: Cli) -> Cli:
    """Runs the function of `here` in namespaces."""
    find_python("3.13")
    if reason := obstacle():
        pytest.skip(reason)

    def call(*arguments: str | Path, handler: str = "app.handler", target: str = TARGET, function: str = "fn") -> Ran:
        words = ["--function", function, "--handler", handler, "--target", target, "--timeout", "20"]
        ran = cli("run", *words, *arguments)
        no_traceback(ran.err)
        return ran

    return call


def refused(ran: Ran, code: str, *words: str, exits: int = 2) -> None:
    """A command is refused, in one error that tells why."""
    assert (ran.code, ran.out) == (exits, ""), ran
    assert f"[{code}]" in ran.err
    for word in words:
        assert word in ran.err
    no_traceback(ran.err)


@network
def test_json_has_one_document_and_the_log_in_it(run: Cli) -> None:
    ran = run("--json", "--event", '{"a": 1}', "--event", '{"fail": true}')
    assert ran.code == 1
    jsonschema.validate(ran.json, DOCUMENT)
    first, second = ran.json["invocations"]
    assert first["payload"]["event"] == {"a": 1}
    assert (second["error_type"], second["payload"]["errorMessage"]) == ("ValueError", "no luck")
    assert first["log"][:3] == ["in init", f"START RequestId: {first['request_id']} Version: $LATEST", "in handler"]
    assert second["log"][0].startswith("START")
    assert first["request_id"] != second["request_id"]


@network
def test_the_answer_is_on_standard_output_and_the_log_on_standard_error(run: Cli) -> None:
    ran = run("--event", '{"a": 1}')
    assert ran.code == 0
    assert json.loads(ran.out)["event"] == {"a": 1}
    assert ran.out.count("\n") == 1
    lines = ran.err.splitlines()
    assert lines[0].startswith(f"running on {TARGET}, CPython 3.13.")
    assert lines[0].endswith(", in the namespace backend")
    assert lines[1] == "in init"
    assert lines[2].startswith("START")
    assert lines[-1].startswith("REPORT")


@network
def test_quiet_leaves_the_answer_alone(here: Path, run: Cli, cli: Cli) -> None:
    words = ["run", "--function", "fn", "--handler", "app.handler", "--target", TARGET, "--event"]
    ran = cli("-q", *words, "{}")
    assert (ran.code, ran.err) == (0, "")
    assert json.loads(ran.out)["count"] == 1
    failed = cli("-q", *words, '{"fail": true}')
    assert failed.code == 1
    assert json.loads(failed.out)["errorType"] == "ValueError"


@network
def test_long_lines_are_not_broken_at_80_columns(run: Cli, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    (here / "fn/long.py").write_text("def handler(event, context):\n    print('x' * 200)\n    return 'y' * 200\n")
    ran = run(handler="long.handler")
    assert ran.out == '"' + "y" * 200 + '"\n'
    assert "x" * 200 in ran.err.splitlines()
    assert max(len(line) for line in ran.err.splitlines() if not line.startswith("REPORT")) == 200


@network
@pytest.mark.parametrize(
    ("event", "stdin", "expected"),
    [
        ("event.json", None, {"from": "file"}),
        ("no-suffix", None, {"from": "file"}),
        ("-", '{"from": "stdin"}', {"from": "stdin"}),
        ('{"from": "line"}', None, {"from": "line"}),
        (' [1, {"two": null}]', None, [1, {"two": None}]),
        ("scalar.json", None, "only a text"),
        ("foreign.json", None, {"Größe": "中 😀"}),
    ],
    ids=["file", "file without a suffix", "stdin", "object", "array", "scalar", "foreign"],
)
def test_events_come_from_everywhere(
    here: Path, run: Cli, monkeypatch: pytest.MonkeyPatch, event: str, stdin: str | None, expected: Any
) -> None:
    for name in ("event.json", "no-suffix"):
        (here / name).write_text('{"from": "file"}')
    (here / "scalar.json").write_text('"only a text"')
    (here / "foreign.json").write_text(json.dumps({"Größe": "中 😀"}, ensure_ascii=False), "utf-8")
    if stdin is not None:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
    ran = run("--json", "--event", event)
    assert ran.json["invocations"][0]["payload"]["event"] == expected


@network
def test_samples_are_events_and_can_be_set(run: Cli) -> None:
    ran = run("--json", "--event", "s3-put", "--set", "bucket=photos")
    event = ran.json["invocations"][0]["payload"]["event"]
    assert event["Records"][0]["s3"]["bucket"]["name"] == "photos"


@network
def test_without_an_event_there_is_an_empty_one(run: Cli) -> None:
    assert run("--json").json["invocations"][0]["payload"]["event"] == {}


def test_there_is_a_sample_of_the_name_that_help_mentions() -> None:
    assert "s3-put" in {kind.name for kind in event_kinds()}


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ("{", ["is not JSON"]),
        ('{"a": 1,}', ["is not JSON"]),
        ("missing.json", ["there is no file missing.json"]),
        ("folder.json", ["folder.json"]),
        ("empty.json", ["is not JSON"]),
        ("s3-pt", ["s3-put"]),
        ("nothing-like-it", ["nothing-like-it"]),
        ("large.json", ["6,291,456"]),
        ("latin.json", ["latin.json"]),
        ("mark.json", ["mark.json"]),
        # Lambda takes these for no JSON, as the standard does: Python alone reads NaN.
        ('{"a": NaN}', ["is not JSON"]),
        ("deep.json", ["deep.json"]),
        ('{"a": "\udcff"}', ["is not"]),
    ],
    ids=lambda value: value.encode("ascii", "backslashreplace").decode() if isinstance(value, str) else "",
)
def test_wrong_events_are_refused(here: Path, cli: Cli, event: str, words: list[str]) -> None:
    (here / "folder.json").mkdir()
    (here / "empty.json").write_text("")
    (here / "large.json").write_text('"' + "x" * (LARGEST_EVENT - 1) + '"')
    (here / "latin.json").write_bytes('{"Größe": 1}'.encode("latin-1"))
    (here / "mark.json").write_bytes(b"\xef\xbb\xbf{}")
    (here / "deep.json").write_text(nested(200_000))
    ran = cli("run", "--function", "fn", "--handler", "app.handler", "--target", TARGET, "--event", event)
    assert "internal-error" not in ran.err, ran.err
    assert ran.code == 2
    assert ran.out == ""
    for word in words:
        assert word in ran.err


def test_standard_input_that_is_no_text_is_refused(here: Path) -> None:
    words = ["run", "--function", "fn", "--handler", "app.handler", "--target", TARGET, "--event", "-"]
    done = subprocess.run([sys.executable, "-m", "layerbuild", *words], input=b'{"a": "\xff"}', capture_output=True)
    assert done.returncode == 2, done.stderr
    assert b"internal-error" not in done.stderr


@network
def test_the_largest_event_comes(here: Path, run: Cli) -> None:
    (here / "large.json").write_text('"' + "x" * (LARGEST_EVENT - 2) + '"')
    (here / "fn/size.py").write_text("def handler(event, context):\n    return len(event)\n")
    assert run("--event", "large.json", handler="size.handler").out == f"{LARGEST_EVENT - 2}\n"


@pytest.mark.parametrize(
    "setting", ["bucket", "=photos", "buckt=photos"], ids=["no value", "no name", "no such parameter"]
)
def test_wrong_parameters_of_samples_are_refused(here: Path, cli: Cli, setting: str) -> None:
    words = ["--function", "fn", "--handler", "app.handler", "--target", TARGET, "--event", "s3-put"]
    ran = cli("run", *words, "--set", setting)
    assert (ran.code, ran.out) == (2, "")
    assert "[bad-parameter]" in ran.err or "[unknown-parameter]" in ran.err


# AWS documentation, "Defined runtime environment variables": what a function cannot set. Credentials it cannot set
# there either; here they are given in place of a role's.
RESERVED = """
_HANDLER _X_AMZN_TRACE_ID AWS_DEFAULT_REGION AWS_REGION AWS_EXECUTION_ENV AWS_LAMBDA_FUNCTION_NAME
AWS_LAMBDA_FUNCTION_MEMORY_SIZE AWS_LAMBDA_FUNCTION_VERSION AWS_LAMBDA_INITIALIZATION_TYPE AWS_LAMBDA_LOG_GROUP_NAME
AWS_LAMBDA_LOG_STREAM_NAME AWS_LAMBDA_RUNTIME_API LAMBDA_TASK_ROOT LAMBDA_RUNTIME_DIR
""".split()


@pytest.mark.parametrize("name", RESERVED)
def test_reserved_variables_are_refused(here: Path, cli: Cli, name: str) -> None:
    words = ["run", "--function", "fn", "--handler", "app.handler", "--target", TARGET]
    refused(cli(*words, "--env", f"{name}=x", "--env", "OTHER=1"), "reserved-variable", name)


@pytest.mark.parametrize(
    ("setting", "word"),
    [("NOT_SET_HERE", "NOT_SET_HERE"), ("=x", "--env"), ("", "--env")],
    ids=["unset", "=x", "empty"],
)
def test_wrong_variables_are_refused(here: Path, cli: Cli, setting: str, word: str) -> None:
    words = ["run", "--function", "fn", "--handler", "app.handler", "--target", TARGET]
    refused(cli(*words, "--env", setting), "usage", word)


@network
def test_variables_are_given_or_taken_from_the_shell(run: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id-of-shell")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "never-given")
    given = ["AWS_ACCESS_KEY_ID", "TABLE=users", "EMPTY=", "TWICE=1", "TWICE=2", "LINES=a\nb", "FOREIGN=Größe 中"]
    ran = run("--json", *[word for one in given for word in ("--env", one)], handler="app.variables")
    found = ran.json["invocations"][0]["payload"]
    expected = {
        "AWS_ACCESS_KEY_ID": "id-of-shell",
        "TABLE": "users",
        "EMPTY": "",
        "TWICE": "2",
        "LINES": "a\nb",
        "FOREIGN": "Größe 中",
    }
    assert {name: found.get(name) for name in expected} == expected
    assert "never-given" not in ran.out + ran.err


@network
def test_repeated_events_come_to_one_process(run: Cli) -> None:
    ran = run("--json", "--event", '{"n": 1}', "--event", '{"n": 2}', "--repeat", "3")
    found = ran.json["invocations"]
    assert [one["payload"]["event"]["n"] for one in found] == [1, 2] * 3
    assert [one["payload"]["count"] for one in found] == [1, 2, 3, 4, 5, 6]
    assert len({one["payload"]["pid"] for one in found}) == 1
    assert [one["init_duration_ms"] is None for one in found] == [False, True, True, True, True, True]
    assert [one["log"].count("in init") for one in found] == [1, 0, 0, 0, 0, 0]
    assert len({one["request_id"] for one in found}) == 6


@network
def test_answers_are_printed_in_order(run: Cli) -> None:
    ran = run("--event", '{"n": 1}', "--event", '{"fail": true}', "--event", '{"n": 3}')
    assert ran.code == 1
    lines = [json.loads(line) for line in ran.out.splitlines()]
    assert [line.get("count") for line in lines] == [1, None, 3]


@network
def test_a_function_can_be_a_zip(here: Path, run: Cli) -> None:
    write_zip(here / "fn.zip", {"app.py": APP, "data/x.txt": "x"})
    ran = run("--json", function="fn.zip", handler="app.variables")
    (found,) = ran.json["invocations"]
    assert found["payload"]["AWS_LAMBDA_FUNCTION_NAME"] == "fn"
    assert found["payload"]["LAMBDA_TASK_ROOT"] == "/var/task"


def test_a_function_that_is_not_there_is_refused(here: Path, cli: Cli) -> None:
    words = ["run", "--handler", "app.handler", "--target", TARGET, "--function"]
    refused(cli(*words, "gone"), "layer-not-found", "gone does not exist")
    refused(cli(*words, "gone.zip", "--layer", "other.zip"), "layer-not-found")
    refused(cli(*words, "fn", "--layer", "other.zip"), "layer-not-found", "other.zip")


@network
def test_of_several_archives_the_newest_that_runs_here_is_chosen(here: Path, run: Cli, cli: Cli) -> None:
    folder = here / "recipes/demo"
    folder.mkdir(parents=True)
    (folder / "recipe.toml").write_text('name = "demo"\nrequirements = ["demo"]\n')
    for version in ("3.11", "3.12", "3.13"):
        find_python(version)
        for arch in (ARCH, OTHER):
            site = f"python/lib/python{version}/site-packages"
            name = f"{site}/_demo.cpython-{version.replace('.', '')}-{MACHINE[arch]}-linux-gnu.so"
            if (version, arch) != ("3.13", ARCH):
                files: dict[str, Any] = {f"{site}/demo.py": f"X = '{version}'\n", name: elf("shared", MACHINE[arch])}
                write_zip(here / "dist" / f"demo-python{version}-{arch}.zip", files)
    (here / "fn/m.py").write_text("import demo\ndef handler(event, context):\n    return demo.X\n")
    words = ["--layer", "demo", "--function", "fn", "--handler", "m.handler", "--json"]
    ran = cli("run", *words)
    assert ran.code == 0, ran
    assert ran.json["target"] == f"python3.12-{ARCH}"
    assert ran.json["invocations"][0]["payload"] == "3.12"
    older = cli("run", *words, "--target", f"python3.11-{ARCH}")
    assert older.json["invocations"][0]["payload"] == "3.11"


def hide_interpreters(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No CPython is to be found but the one that runs the tests."""
    empty = folder / "empty"
    empty.mkdir()
    for name in ("PATH", "HOME", "PYENV_ROOT", "UV_PYTHON_INSTALL_DIR", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(empty))
    monkeypatch.delenv("RUNNER_TOOL_CACHE", raising=False)


def test_without_an_interpreter_each_backend_says_what_it_lacks(
    here: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hide_interpreters(tmp_path, monkeypatch)
    version = "3.12" if sys.version_info[:2] == (3, 13) else "3.13"
    words = ["run", "--function", "fn", "--handler", "app.handler", "--target", f"python{version}-{ARCH}"]
    ran = cli(*words)
    refused(ran, "no-sandbox", f"namespace: there is no CPython {version} here", exits=4)
    assert "process: there is no CPython" in ran.err
    assert "container: " in ran.err
    assert f"uv python install {version}" in ran.err
    alone = cli(*words, "--backend", "namespace")
    refused(alone, "no-sandbox", "namespace: there is no CPython", exits=4)
    assert "container: " not in alone.err


@pytest.mark.parametrize("backend", ["auto", "namespace", "process"])
def test_what_this_machine_cannot_run_is_told(here: Path, cli: Cli, backend: str) -> None:
    find_python("3.13")
    words = ["--function", "fn", "--handler", "app.handler", "--target", f"python3.13-{OTHER}", "--backend", backend]
    reason = f"this machine is {MACHINE[ARCH]}, not {MACHINE[OTHER]}"
    refused(cli("run", *words), "no-sandbox", f"nothing here runs code for python3.13-{OTHER}", reason, exits=4)
    document = cli("run", *words, "--json").json["error"]
    assert document["code"] == "no-sandbox"
    assert document["exit_code"] == 4


@network
def test_a_layer_that_is_for_another_target_is_told(here: Path, cli: Cli) -> None:
    name = f"python/lib/python3.13/site-packages/_demo.cpython-313-{MACHINE[OTHER]}-linux-gnu.so"
    layer = write_zip(here / "layer.zip", {name: elf("shared", MACHINE[OTHER])})
    words = ["--function", "fn", "--handler", "app.handler", "--target", TARGET, "--layer", layer]
    ran = cli("run", *words)
    # On Lambda it would fail when it is imported, or never: layerbuild knows before.
    assert OTHER in ran.err or "warning: the stack has " in ran.err


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *[("--memory", "127"), ("--memory", "10241"), ("--timeout", "0"), ("--timeout", "901"), ("--tmp", "511")],
        *[("--tmp", "10241"), ("--repeat", "0"), ("--backend", "moon"), ("--network", "moon"), ("--target", "moon")],
        *[("--timeout", "nan"), ("--memory", "much")],
    ],
)
def test_values_that_lambda_does_not_have_are_refused(here: Path, cli: Cli, option: str, value: str) -> None:
    words = ["--function", "fn", "--handler", "app.handler", "--target", TARGET]
    ran = cli("run", *words, option, value, "--event", "{}")
    assert (ran.code, ran.out) == (2, ""), ran


HOSTILE = ["../outside.py", "/outside.py", "a/../../outside.py", "..\\outside.py", "a//outside.py", "./outside.py"]
LOOKS = """
import os
def handler(event, context):
    return [path for path in ("/outside.py", "/var/outside.py") if os.path.exists(path)]
"""


def hostile(runs: Runs, path: str, role: str) -> Ran:
    """A run with a zip that has a path which leads out of it, as a function or as a layer."""
    runs.write({"app.py": LOOKS})
    with zipfile.ZipFile(runs.folder / "hostile.zip", "w") as archive:
        for name, text in (("app.py", LOOKS), (path, "X = 1\n")):
            info = zipfile.ZipInfo(name)
            info.external_attr = 0o100644 << 16
            archive.writestr(info, text)
    return runs.run("--handler", "app.handler", f"--{role}", runs.folder / "hostile.zip")


@network
@pytest.mark.parametrize(
    ("backend", "path"),
    [*[("namespace", path) for path in HOSTILE], ("process", HOSTILE[0]), ("process", HOSTILE[1])],
)
@pytest.mark.parametrize("role", ["function", "layer"])
def test_a_hostile_zip_writes_nothing_outside(
    tmp_path: Path,
    run_cache: Path,  # noqa: F811
    backend: str,
    path: str,
    role: str,
) -> None:
    ran = hostile(isolated(backend, tmp_path, run_cache), path, role)
    no_traceback(ran.err)
    assert ran.out in ("", "[]\n")
    assert list(tmp_path.rglob("*outside.py")) == []
    assert not Path("/outside.py").exists()


@network
@pytest.mark.parametrize("role", ["function", "layer"])
def test_what_is_wrong_with_a_zip_is_told(tmp_path: Path, run_cache: Path, role: str) -> None:  # noqa: F811
    """Nobody knows what Lambda does with such a path: what is left out of a run is told, or the run refused."""
    ran = hostile(isolated("namespace", tmp_path, run_cache), HOSTILE[0], role)
    assert "outside.py" in ran.err or "warning: the stack has " in ran.err


LINKS = """
import os
def handler(event, context):
    found = {}
    for name in ("astray", "absolute"):
        try:
            with open("/opt/" + name + "/passwd") as file:
                found[name] = file.read()
        except OSError as error:
            found[name] = type(error).__name__
    return found
"""


@network
def test_links_of_a_layer_lead_nowhere_outside_the_sandbox(here: Path, run: Cli) -> None:
    from tests.trees import Link

    (here / "fn/links.py").write_text(LINKS)
    layer = write_zip(here / "layer.zip", {"astray": Link("../../../../root"), "absolute": Link("/root")})
    found = run("--json", "--layer", layer, handler="links.handler").json["invocations"][0]["payload"]
    assert found == {"astray": "FileNotFoundError", "absolute": "FileNotFoundError"}


# The backend without a sandbox.


@pytest.fixture
def plain(tmp_path: Path, run_cache: Path) -> Runs:  # noqa: F811
    runs = isolated("process", tmp_path, run_cache)
    runs.write({"app.py": APP})
    return runs


@network
def test_the_process_backend_says_what_it_cannot_be(plain: Runs) -> None:
    layer = plain.write({"python/layered.py": "X = 1\n"}, "layer")
    plain.write(
        {"m.py": "import layered, os\ndef handler(e, c):\n    return [layered.X, layered.__file__, os.getcwd()]\n"}
    )
    ran = plain.run("--handler", "m.handler", "--layer", layer)
    assert ran.code == 0, ran
    number, place, folder = json.loads(ran.out)
    assert number == 1
    assert place.endswith("/opt/python/layered.py")
    assert folder.endswith("/var/task")
    assert str(plain.temporary) in place
    warnings = [line for line in ran.err.splitlines() if line.startswith("warning: ")]
    assert len(warnings) >= 4
    assert any("/opt" in line for line in warnings)
    document = plain.json("--handler", "m.handler", "--layer", layer)
    assert [f"warning: {text}" for text in document["differences"]] == warnings


@network
def test_the_process_backend_runs_warm_starts_and_failures(plain: Runs) -> None:
    events = ["--event", "{}", "--event", '{"fail": true}', "--event", "{}"]
    found = plain.json("--handler", "app.handler", *events, code=1)["invocations"]
    assert [one["error_type"] for one in found] == [None, "ValueError", None]
    assert found[2]["payload"]["count"] == 3


@network
def test_the_process_backend_gives_no_variable_of_the_shell(plain: Runs) -> None:
    plain.environment |= {"AWS_SECRET_ACCESS_KEY": "planted", "PYTHONSTARTUP": "/planted", "SECRET": "planted"}
    found = plain.json("--handler", "app.variables")["invocations"][0]["payload"]
    assert "planted" not in str(found)


WRITES = """
import os, tempfile
def handler(event, context):
    for folder in ("/opt", os.environ["LAMBDA_TASK_ROOT"], "."):
        try:
            open(os.path.join(folder, "planted-by-test"), "w").close()
        except OSError:
            pass
    import unwritten
    return tempfile.gettempdir()
"""


@network
def test_the_process_backend_leaves_no_file(plain: Runs) -> None:
    layer = plain.write({"python/unwritten.py": "X = 1\n"}, "layer")
    plain.write({"w.py": WRITES})
    before = sorted(path for path in plain.folder.rglob("*") if "temporary" not in path.parts)
    plain.json("--handler", "w.handler", "--layer", layer)
    assert sorted(path for path in plain.folder.rglob("*") if "temporary" not in path.parts) == before


CHILDREN = {
    "child": "subprocess.Popen(['sleep', '600'], env=dict(os.environ, PATH='/usr/bin:/bin'))",
    "session": "subprocess.Popen(['/bin/sleep', '600'], start_new_session=True)",
    "daemon": "daemon()",
}
DAEMON = """
import os, subprocess, time
def daemon():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for number in (0, 1, 2):
                os.close(number)
            time.sleep(600)
        os._exit(0)
    os.wait()
"""


@network
@pytest.mark.parametrize("ends", ["answers", "hangs"])
@pytest.mark.parametrize("name", CHILDREN)
def test_the_process_backend_ends_what_a_function_started(plain: Runs, name: str, ends: str) -> None:
    last = "time.sleep(600)" if ends == "hangs" else "return 1"
    plain.write({"c.py": f"{DAEMON}\ndef handler(event, context):\n    {CHILDREN[name]}\n    {last}\n"})
    try:
        plain.json("--handler", "c.handler", "--timeout", "1", code=1 if ends == "hangs" else 0)
    finally:
        for pid in processes_with(plain.mark):
            os.kill(pid, signal.SIGKILL)


@network
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda one: one.name)
def test_the_process_backend_is_ended_with_layerbuild(plain: Runs, number: signal.Signals) -> None:
    plain.write({"h.py": "import time\ndef handler(e, c):\n    print('hangs', flush=True)\n    time.sleep(600)\n"})
    process = plain.started_until("hangs", "--handler", "h.handler", "--timeout", "600")
    try:
        os.kill(process.pid, number)
        process.communicate(timeout=30)
        wait_until(lambda: not processes_with(plain.mark), 10)
    finally:
        for pid in processes_with(plain.mark):
            os.kill(pid, signal.SIGKILL)
