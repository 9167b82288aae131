"""Functions that misbehave get the answer that Lambda gives them; the next event is answered, and nothing is left."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.running import (
    ARCH,
    ISOLATED,
    MARKS,
    Runs,
    belongings,
    isolated,
    no_traceback,
    processes_in,
    processes_with,
    run_cache,  # noqa: F401 - a fixture
    wait_until,
)

pytestmark = pytest.mark.network

# What a function does when its event asks for it by name. Each is the body of a function of its own.
FAULTS = {
    "hang": "time.sleep(600)",
    "hang_deaf": """
        for number in range(1, 65):
            try:
                signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError):
                pass
        while True:
            time.sleep(1)
    """,
    "hang_busy": "while True: pass",
    "stop_itself": "os.kill(os.getpid(), signal.SIGSTOP)",
    "exit_0": "sys.exit(0)",
    "exit_3": "sys.exit(3)",
    "exit_hard": "os._exit(0)",
    "exit_hard_3": "os._exit(3)",
    "exit_text": "sys.exit('good bye')",
    "segfault": "os.kill(os.getpid(), signal.SIGSEGV)",
    "read_null": "ctypes.string_at(0)",
    "abort": "os.abort()",
    "kill_itself": "os.kill(os.getpid(), signal.SIGKILL)",
    "term_itself": "os.kill(os.getpid(), signal.SIGTERM)",
    "interrupt_itself": "os.kill(os.getpid(), signal.SIGINT); time.sleep(600)",
    "fork": """
        while True:
            try:
                os.fork()
            except OSError:
                time.sleep(1)
    """,
    "daemons": """
        for _ in range(3):
            if os.fork() == 0:
                os.setsid()
                for number in range(1, 65):
                    try:
                        signal.signal(number, signal.SIG_IGN)
                    except (OSError, ValueError):
                        pass
                if os.fork() == 0:
                    while True:
                        time.sleep(1)
                os._exit(0)
        os._exit(1)
    """,
    "tmp": """
        with open("/tmp/x", "wb") as file:
            while True:
                file.write(bytes(1000000))
    """,
    "memory": """
        kept = []
        while True:
            kept.append(b"x" * 10000000)
            time.sleep(0.005)
    """,
    "memory_at_once": "kept = b'x' * 1000000000; time.sleep(600)",
    "memory_of_child": """
        if os.fork() == 0:
            kept = []
            while True:
                kept.append(b"x" * 10000000)
                time.sleep(0.005)
        time.sleep(600)
    """,
    "set": "return {1, 2}",
    "object": "return object()",
    "bytes_in_list": r"return [b'x', b'\xff']",
    "circular": "found = []; found.append(found); return found",
    "deep": """
        found = []
        for _ in range(100000):
            found = [found]
        return found
    """,
    "surrogate": r"return '\udcff'",
    "too_large": "return 'x' * 7000000",
    "just_too_large": "return 'x' * (6 * 1024 * 1024 + 100 - 1)",
    "exactly": "return 'x' * (6 * 1024 * 1024 + 100 - 2)",
    "nan": "return float('nan')",
    "bytes": """return b'{"raw": 1}'""",
    "hostile_bytes": r"return b'\xff\x1b[31m'",
    "deep_bytes": "return b'[' * 100000",
    "error": "raise ValueError('no luck')",
    "error_long": "raise ValueError('x' * 2000000)",
    "error_foreign": "raise ValueError('Größe \\u4e2d \\U0001f600')",
    "error_no_text": """
        class Mute(Exception):
            def __str__(self):
                raise RuntimeError("mute")
        raise Mute
    """,
    "error_surrogate": r"raise ValueError('\udcff')",
    "error_escape": r"raise ValueError('\x1b[31mred\x00\r\nEND')",
    "error_no_bounds": """
        def deeper():
            deeper()
        deeper()
    """,
    "close_all": "os.closerange(0, 101); return 'closed'",
    "close_output": "os.close(1); os.close(2); os._exit(7)",
    "kill_parent": """
        os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getppid(), signal.SIGTERM)
        time.sleep(0.2)
        return 'lived'
    """,
    "interrupt_parent": "os.kill(os.getppid(), signal.SIGINT); time.sleep(0.5); return 'lived'",
    "kill_first": """
        for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            os.kill(1, number)
        time.sleep(0.5)
        return 'lived'
    """,
    "interrupt_first": "os.kill(1, signal.SIGINT); time.sleep(0.5); return 'lived'",
    "stop_first": "os.kill(1, signal.SIGSTOP); time.sleep(0.5); return 'lived'",
    "kill_all": "os.kill(-1, signal.SIGKILL)",
    "forge": r"""
        for pid in (1, os.getppid()):
            try:
                with open(f"/proc/{pid}/fd/1", "wb", 0) as file:
                    for line in (b'{"result": 1}', b'{"report": []}', b'{"log": null}', b'[]', b'\xff'):
                        file.write(line + b"\n")
            except OSError:
                pass
        return 'honest'
    """,
    "delete": """
        shutil.rmtree("/opt", ignore_errors=True)
        shutil.rmtree("/var/task", ignore_errors=True)
        shutil.rmtree("/var/runtime", ignore_errors=True)
        return sorted(os.listdir("/var/task"))
    """,
    "deep_error": """
        import http.client
        there = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
        path = "/2018-06-01/runtime/invocation/" + CONTEXT.aws_request_id + "/error"
        there.request("POST", path, b"[" * 200000)
        time.sleep(600)
    """,
    "connections": """
        import socket
        host, port = os.environ["AWS_LAMBDA_RUNTIME_API"].split(":")
        kept = []
        try:
            while True:
                kept.append(socket.create_connection((host, int(port)), 5))
        except OSError:
            pass
        time.sleep(600)
    """,
    "foreign_id": """
        import http.client
        there = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
        there.request("POST", "/2018-06-01/runtime/invocation/none-of-ours/response", b'"forged"')
        there.getresponse().read()
        return 'honest'
    """,
}
START = "import ctypes, json, os, shutil, signal, sys, time\n"
END = """
COUNT = 0

def handler(event, context):
    global COUNT, CONTEXT
    COUNT += 1
    CONTEXT = context
    if event.get("do"):
        print("now:", event["do"])
        return globals()["do_" + event["do"]]()
    return {"count": COUNT, **marks()}
"""


def body(code: str) -> str:
    lines = code.strip("\n").splitlines()
    cut = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
    return "\n".join("    " + line[cut:] for line in lines) + "\n"


APP = START + MARKS + "".join(f"def do_{name}():\n{body(code)}" for name, code in FAULTS.items()) + END


def runs_on(backend: str, folder: Path, cache: Path, version: str = "3.13") -> Runs:
    made = isolated(backend, folder, cache, version)
    made.write({"app.py": APP, "__init__.py": ""})
    return made


@pytest.fixture(params=ISOLATED)
def runs(request: pytest.FixtureRequest, tmp_path: Path, run_cache: Path) -> Iterator[Runs]:  # noqa: F811
    """Runs of a function that has all the faults, in each kind of sandbox; no container is left."""
    made = runs_on(request.param, tmp_path, run_cache)
    before = belongings() if request.param == "container" else set()
    yield made
    if request.param == "container":
        # Those of tests beside this one end as well, though later.
        others = belongings() - before
        wait_until(lambda: not belongings() & others, 150)


def both(names: Mapping[str, Any], contained: str) -> list[Any]:
    """Each case in namespaces, and those in containers whose outcome is not the client's doing alone."""

    def case(backend: str, name: str, *marks: Any) -> Any:
        # Processes of one user are counted over the whole machine: runs beside it could start none.
        alone = [pytest.mark.docker, pytest.mark.engines] if name == "fork" else []
        return pytest.param(backend, names[name], id=f"{backend}-{name}", marks=[*marks, *alone])

    inside = [case("container", name, pytest.mark.docker) for name in contained.split()]
    return [*(case("namespace", name) for name in names), *inside]


ASK = '{"do": "%s"}'


def ended(runs: Runs, fault: str, *options: str, handler: str = "app.handler", target: str = "3.13") -> Any:
    """The invocation with a fault, and the next one; nothing is left in their sandbox."""
    found = runs.json(
        *("--handler", handler, "--event", ASK % fault, "--event", "{}", *options),
        code=1,
        target=f"python{target}-{ARCH}",
    )["invocations"]
    assert len(found) == 2
    return found


def answered(invocation: Any, count: int) -> None:
    """An invocation is answered, by a process that has answered so many."""
    assert invocation["function_error"] is None, invocation
    assert invocation["payload"]["count"] == count
    wait_until(lambda: not processes_in(invocation["payload"]["ns"]))


@dataclass(frozen=True)
class Fault:
    """What Lambda says of a fault.

    Attributes:
        name: of FAULTS.
        error: what the log calls it.
        message: how the message begins; ``{id}`` is the invocation's.
        told: the type in the answer, where that is another.
        lives: whether the process goes on.
        options: of the command.
    """

    name: str
    error: str
    message: str
    told: str = ""
    lives: bool = False
    options: tuple[str, ...] = ()


EXITED = "RequestId: {id} Error: Runtime exited with error: "
SILENT = "RequestId: {id} Error: Runtime exited without providing a reason"
LATE = ("Sandbox.Timedout", "RequestId: {id} Error: Task timed out after 1.00 seconds")
SHORT = ("--timeout", "1")
LONG = ("--timeout", "60")
MEMORY = ("Runtime.OutOfMemory", EXITED + "signal: killed", "Runtime.ExitError")
EXIT = "Runtime.ExitError"
UNFIT = "Unable to marshal response: "
LARGE = "Response payload size ({} bytes) exceeded maximum allowed payload size (6291556 bytes)."
ENDS = [
    Fault("hang", *LATE, options=SHORT),
    Fault("hang_deaf", *LATE, options=SHORT),
    Fault("hang_busy", *LATE, options=SHORT),
    Fault("stop_itself", *LATE, options=SHORT),
    Fault("exit_0", EXIT, SILENT),
    Fault("exit_3", EXIT, EXITED + "exit status 3"),
    Fault("exit_hard", EXIT, SILENT),
    Fault("exit_hard_3", EXIT, EXITED + "exit status 3"),
    Fault("exit_text", EXIT, EXITED + "exit status 1"),
    Fault("segfault", EXIT, EXITED + "signal: segmentation fault"),
    Fault("read_null", EXIT, EXITED + "signal: segmentation fault"),
    Fault("abort", EXIT, EXITED + "signal: aborted"),
    Fault("kill_itself", EXIT, EXITED + "signal: killed"),
    Fault("term_itself", EXIT, EXITED + "signal: terminated"),
    # The client does not catch KeyboardInterrupt; Python ends itself by the signal then.
    Fault("interrupt_itself", EXIT, EXITED + "signal: interrupt"),
    # A thousand Pythons fill a smaller memory before the time is up, as they would on Lambda.
    Fault("fork", *LATE, options=(*SHORT, "--memory", "10240")),
    Fault("daemons", EXIT, EXITED + "exit status 1"),
    # As on Lambda, /tmp is full and not the memory.
    Fault("tmp", "OSError", "[Errno 28] No space left on device", lives=True, options=LONG),
    Fault("memory", *MEMORY, options=LONG),
    Fault("memory_at_once", *MEMORY, options=LONG),
    Fault("memory_of_child", *MEMORY, options=LONG),
    Fault("set", "Runtime.MarshalError", UNFIT + "Object of type set is not JSON serializable", lives=True),
    Fault("object", "Runtime.MarshalError", UNFIT + "Object of type object is not JSON serializable", lives=True),
    Fault("bytes_in_list", "Runtime.MarshalError", UNFIT, lives=True),
    Fault("circular", "Runtime.MarshalError", UNFIT + "Circular reference detected", lives=True),
    Fault("deep", "Runtime.MarshalError", UNFIT, lives=True),
    # What happens to the process after an answer that was refused is not documented: either will do.
    Fault("too_large", "Function.ResponseSizeTooLarge", LARGE.format(7_000_002)),
    Fault("just_too_large", "Function.ResponseSizeTooLarge", LARGE.format(6 * 1024 * 1024 + 101)),
    Fault("error", "ValueError", "no luck", lives=True),
    Fault("error_foreign", "ValueError", "Größe 中 😀", lives=True),
    Fault("error_no_bounds", "RecursionError", "maximum recursion depth exceeded", lives=True),
    Fault("error_escape", "ValueError", "\x1b[31mred\0\r\nEND", lives=True),
]
EITHER = ("too_large", "just_too_large", "close_all")


CONTAINED = (
    "hang_deaf stop_itself exit_3 segfault fork daemons tmp memory memory_at_once memory_of_child set too_large"
)


@pytest.mark.parametrize(("runs", "fault"), both({fault.name: fault for fault in ENDS}, CONTAINED), indirect=["runs"])
def test_a_fault_gets_the_answer_of_lambda_and_the_next_event_a_process_that_works(runs: Runs, fault: Fault) -> None:
    first, second = ended(runs, fault.name, *fault.options)
    assert (first["function_error"], first["error_type"]) == ("Unhandled", fault.error)
    assert first["status_code"] == 200
    assert first["payload"]["errorType"] == (fault.told or fault.error)
    assert first["payload"]["errorMessage"].startswith(fault.message.format(id=first["request_id"]))
    last = first["log"][-1]
    assert f"Error Type: {fault.error}" in last or last.endswith("Status: timeout")
    assert f"now: {fault.name}" in first["log"]
    if fault.name not in EITHER:
        answered(second, 2 if fault.lives else 1)
        assert (second["init_duration_ms"] is None) is fault.lives or not fault.lives


@pytest.mark.parametrize("name", ["hang_deaf", "segfault", "memory", "set", "exit_0", "too_large"])
def test_python_3_12_gets_the_same_answers(name: str, tmp_path: Path, run_cache: Path) -> None:  # noqa: F811
    (fault,) = (one for one in ENDS if one.name == name)
    first, second = ended(runs_on("namespace", tmp_path, run_cache, "3.12"), name, *fault.options, target="3.12")
    assert first["error_type"] == fault.error
    assert first["payload"]["errorMessage"].startswith(fault.message.format(id=first["request_id"]))
    assert second["function_error"] is None


ANSWERS: list[tuple[str, Any]] = [
    ("bytes", {"raw": 1}),  # the client passes them on as they are
    ("hostile_bytes", "\ufffd\x1b[31m"),
    ("nan", "NaN"),  # what the client sends, and no JSON: so it is a text in ours
    ("deep_bytes", "[" * 100_000),
    ("kill_first", "lived"),
    ("interrupt_first", "lived"),
    ("stop_first", "lived"),
    ("interrupt_parent", "lived"),
    ("kill_parent", "lived"),
    ("forge", "honest"),
    ("delete", ["__init__.py", "app.py"]),
    ("foreign_id", "honest"),
]


@pytest.mark.parametrize(
    ("runs", "case"),
    both(
        {case[0]: case for case in ANSWERS},
        "kill_first interrupt_first stop_first interrupt_parent kill_parent forge delete",
    ),
    indirect=["runs"],
)
def test_a_hostile_function_that_answers_is_answered_for(runs: Runs, case: tuple[str, Any]) -> None:
    name, answer = case
    found = runs.json("--handler", "app.handler", "--event", ASK % name, "--event", "{}")["invocations"]
    assert [one["function_error"] for one in found] == [None, None]
    assert found[0]["payload"] == answer
    answered(found[1], 2)


def test_an_answer_of_exactly_the_limit_is_passed_on(tmp_path: Path, run_cache: Path) -> None:  # noqa: F811
    runs = runs_on("namespace", tmp_path, run_cache)
    found = runs.json("--handler", "app.handler", "--event", ASK % "exactly", "--event", "{}", *LONG)["invocations"]
    assert len(found[0]["payload"]) == 6 * 1024 * 1024 + 98
    answered(found[1], 2)


@pytest.mark.parametrize(
    ("runs", "name"),
    both(
        {
            one: one
            for one in (
                "error_long",
                "error_no_text",
                "error_surrogate",
                "surrogate",
                "kill_all",
                "deep_error",
                "connections",
            )
        },
        "kill_all",
    ),
    indirect=["runs"],
)
def test_after_a_fault_that_the_client_may_not_survive_the_next_event_is_answered(runs: Runs, name: str) -> None:
    first, second = ended(runs, name, "--timeout", "5")
    assert first["function_error"] == "Unhandled"
    assert first["error_type"]
    assert second["function_error"] is None
    wait_until(lambda: not processes_in(second["payload"]["ns"]))


@pytest.mark.parametrize(
    ("runs", "name"), both({one: one for one in ("close_all", "close_output")}, "close_all"), indirect=["runs"]
)
def test_a_function_that_closes_all_files_is_answered_or_ends(runs: Runs, name: str) -> None:
    ran = runs.run("--json", "--handler", "app.handler", "--event", ASK % name, "--event", "{}", "--timeout", "3")
    assert ran.code in (0, 1), ran
    no_traceback(ran.err)
    first, second = ran.json["invocations"]
    if first["function_error"] is None:
        assert first["payload"] == "closed"
    else:
        assert first["error_type"] in (EXIT, "Sandbox.Timedout")
    assert second["function_error"] is None


PRINTS = {
    "gigabyte": "line = 'y' * 99999\n    for _ in range(10000): print(line)",
    "no_line_end": "for _ in range(3000): sys.stdout.write('y' * 100000)",
    "short_lines": "sys.stdout.write(('y' * 19 + '\\n') * 2000000)",
}


def most_memory(process: subprocess.Popen[Any], found: list[int]) -> None:
    """Notes the most memory that a process has, until it is gone."""
    while process.poll() is None:
        try:
            text = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            return
        if match := re.search(r"VmHWM:\s+(\d+) kB", text):
            found[:] = [int(match[1]) // 1024]
        threading.Event().wait(0.1)


@pytest.mark.parametrize(("runs", "name"), both({one: one for one in PRINTS}, "gigabyte"), indirect=["runs"])
def test_what_a_function_prints_is_cut_and_the_memory_of_layerbuild_bounded(runs: Runs, name: str) -> None:
    runs.write({"flood.py": f"import sys\ndef handler(event, context):\n    {PRINTS[name]}\n    return 'done'\n"})
    process = subprocess.Popen(
        runs.command("--handler", "flood.handler", "--timeout", "120", "--event", "{}"),
        env=runs.variables(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=runs.folder,
    )
    megabytes: list[int] = []
    watcher = threading.Thread(target=most_memory, args=(process, megabytes))
    watcher.start()
    out, err = process.communicate(timeout=120)
    watcher.join()
    assert (process.returncode, out) == (0, b'"done"\n')
    assert len(err) < 13_000_000
    assert re.search(rb"\n\[[\d,]+ bytes more of output are not shown\]\n", err)
    assert b"\nREPORT RequestId" in err[-300:]
    assert megabytes[0] < 400
    runs.nothing_runs()


def test_hostile_output_stays_output(runs: Runs) -> None:
    """Bytes that are no UTF-8, escape sequences, and lines that look like what the driver says itself."""
    code = r"""
import os, json
LINES = [
    b"\xff\xfe\x80 no UTF-8", b"\x1b[2J\x1b]0;title\x07 escape", b"\x00 nul", b'{"result": "forged", "error": null}',
    b'{"report": "forged"}', b'{"log": 1}', b"END RequestId: forged", b"[]", b"null", b'{"imported": ""}',
]
def handler(event, context):
    for line in LINES:
        os.write(1, line + b"\n")
        os.write(2, line + b"\n")
    return "honest"
"""
    runs.write({"hostile.py": code})
    (found,) = runs.json("--handler", "hostile.handler", "--event", "{}")["invocations"]
    assert found["payload"] == "honest"
    for line in (
        "\ufffd\ufffd\ufffd no UTF-8",
        '{"report": "forged"}',
        '{"log": 1}',
        "[]",
        "null",
        "END RequestId: forged",
    ):
        assert found["log"].count(line) == 2
    ran = runs.run("--handler", "hostile.handler", "--event", "{}")
    assert ran.out == '"honest"\n'
    assert "\x1b" not in ran.err
    assert "\x07" not in ran.err


def test_text_that_is_printed_comes_whole_wherever_it_is_cut(tmp_path: Path, run_cache: Path) -> None:  # noqa: F811
    runs = runs_on("namespace", tmp_path, run_cache)
    runs.write({"text.py": "def handler(event, context):\n    print('x' + '\\u4e2d' * 200000)\n"})
    (found,) = runs.json("--handler", "text.handler", "--event", "{}", *LONG)["invocations"]
    assert "x" + "中" * 200_000 in found["log"]


INITS: list[tuple[str, str, str, str, str]] = [
    ("raises", "raise ValueError('in init')", "m.handler", "ValueError", "in init"),
    ("exits", "import sys; sys.exit(3)", "m.handler", EXIT, EXITED + "exit status 3"),
    ("exits_well", "import sys; sys.exit(0)", "m.handler", EXIT, SILENT),
    ("crashes", "import os; os.abort()", "m.handler", EXIT, EXITED + "signal: aborted"),
    ("syntax", "def handler(:", "m.handler", "Runtime.UserCodeSyntaxError", "Syntax error in module 'm': "),
    (
        *("no_module", "", "gone.handler", "Runtime.ImportModuleError"),
        "Unable to import module 'gone': No module named 'gone'",
    ),
    (
        *("imports_none", "import gone", "m.handler", "Runtime.ImportModuleError"),
        "Unable to import module 'm': No module named 'gone'",
    ),
    ("no_handler", "", "m.gone", "Runtime.HandlerNotFound", "Handler 'gone' missing on module 'm'"),
    ("bad_name", "", "handler", "Runtime.MalformedHandlerName", "Bad handler 'handler': "),
    ("memory", "import time\nx = b'x' * 400000000\ntime.sleep(600)", "m.handler", *MEMORY[:2]),
]


@pytest.mark.parametrize(("runs", "case"), both({case[0]: case for case in INITS}, "exits memory"), indirect=["runs"])
def test_an_init_that_fails_is_tried_again_and_answers_each_event(
    runs: Runs, case: tuple[str, str, str, str, str]
) -> None:
    _, code, handler, error, message = case
    runs.write({"m.py": code})
    found = runs.json("--handler", handler, "--event", "{}", "--event", "{}", code=1)["invocations"]
    assert len(found) == 2
    for one in found:
        assert (one["function_error"], one["error_type"]) == ("Unhandled", error)
        assert one["payload"]["errorType"] == ("Runtime.ExitError" if error == MEMORY[0] else error)
        assert one["payload"]["errorMessage"].startswith(message.format(id=one["request_id"]))
    phases = [re.findall(r"^INIT_REPORT .*\tPhase: (\w+)\tStatus: (.*)", line) for line in found[0]["log"]]
    assert [phase for line in phases for phase, _ in line] == ["init", "invoke"]


SLOW = """
import os, time
if not os.path.exists("/tmp/tried"):
    open("/tmp/tried", "w").close()
    time.sleep(600)
def handler(event, context):
    return context.get_remaining_time_in_millis()
"""


def test_an_init_that_takes_too_long_is_tried_again_within_the_invocation(
    tmp_path: Path,
    run_cache: Path,  # noqa: F811
) -> None:
    runs = runs_on("namespace", tmp_path, run_cache)
    runs.write({"slow.py": SLOW})
    first, second = runs.json("--handler", "slow.handler", "--timeout", "20", *("--event", "{}") * 2)["invocations"]
    assert [one["function_error"] for one in (first, second)] == [None, None]
    (line,) = (line for line in first["log"] if line.startswith("INIT_REPORT"))
    assert line.endswith("\tPhase: init\tStatus: timeout")
    # The second try is at the expense of the invocation.
    assert 5_000 < first["payload"] < 20_000
    assert first["init_duration_ms"] is None


def test_an_init_that_never_ends_is_out_of_time(tmp_path: Path, run_cache: Path) -> None:  # noqa: F811
    runs = runs_on("namespace", tmp_path, run_cache)
    runs.write({"slow.py": "import time\ntime.sleep(600)\n"})
    found = runs.json("--handler", "slow.handler", "--timeout", "1", *("--event", "{}") * 2, code=1)["invocations"]
    for one in found:
        assert one["error_type"] == "Sandbox.Timedout"
        assert one["payload"]["errorMessage"].endswith("Task timed out after 1.00 seconds")
        assert "Status: timeout" in one["log"][-1]
    assert sum(line.startswith("INIT_REPORT") for line in found[0]["log"]) == 2


HANGS = """
import os, time
def handler(event, context):
    if os.fork() == 0:
        os.setsid()
    else:
        print("hangs", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM), (signal.SIGKILL, -signal.SIGKILL)],
    ids=["Ctrl-C", "SIGTERM", "SIGKILL"],
)
def test_layerbuild_is_ended_and_nothing_runs_on(runs: Runs, number: int, code: int) -> None:
    runs.write({"hangs.py": HANGS})
    process = runs.started_until("hangs", "--handler", "hangs.handler", "--event", "{}", "--timeout", "600")
    spaces = set(processes_with(runs.mark).values())
    assert spaces
    os.kill(process.pid, number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (code, "")
    no_traceback(err)
    for space in spaces:
        wait_until(lambda space=space: not processes_in(space))  # type: ignore[misc]
    if number == signal.SIGINT:
        assert list(runs.temporary.iterdir()) == []


@pytest.mark.parametrize("text", ['"\\ud800"', "[" * 500 + "]" * 500, '"\\u0000"', json.dumps("x" * 100_000)])
def test_events_that_are_hard_to_pass_on_come_as_they_are(
    text: str,
    tmp_path: Path,
    run_cache: Path,  # noqa: F811
) -> None:
    runs = runs_on("namespace", tmp_path, run_cache)
    runs.write(
        {"m.py": "import json\ndef handler(event, context):\n    return json.dumps(event)\n", "../e.json": text}
    )
    (found,) = runs.json("--handler", "m.handler", "--event", tmp_path / "e.json")["invocations"]
    assert json.loads(found["payload"]) == json.loads(text)
