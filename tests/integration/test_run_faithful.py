"""What a function sees when `layerbuild run` runs it: search path, variables, files and limits as on Lambda."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

from tests.interpreters import find_python
from tests.running import ARCH, ISOLATED, MIB, Runs, isolated, run_cache  # noqa: F401 - a fixture
from tests.trees import File, Link, Spec, write_folder, write_zip

pytestmark = pytest.mark.network

VERSIONS = ("3.9", "3.10", "3.11", "3.12", "3.13")

REPORTER = r"""
import errno, importlib.util, os, resource, stat, subprocess, sys, time
import pathed
FIRST = dict(os.environ)

PLACES = (
    "/", "/opt", "/opt/python", "/var", "/var/task", "/var/runtime", "/var/lang", "/var/lang/lib", "/tmp", "/etc",
    "/usr/bin", "/dev", "/dev/shm", "/home", "/var/tmp", "/root", "/proc", "/usr",
    "/proc/sys/kernel", "/var/log", "/sys",
)
FILES = (
    "/opt/python/layered.py", "/var/task/app.py", "/var/runtime/bootstrap.py", "/etc/passwd", "/etc/resolv.conf",
    "/proc/sys/kernel/hostname", "/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/1/mem",
    "/proc/self/oom_score_adj",
)

def write(path):
    try:
        with open(path, "ab"):
            return "written"
    except OSError as error:
        return errno.errorcode[error.errno]

def found(name):
    spec = importlib.util.find_spec(name)
    return spec and spec.origin

def umask():
    old = os.umask(0)
    os.umask(old)
    return old

def handler(event, context):
    space = os.statvfs("/tmp")
    return {
        "path": sys.path,
        "pathed": getattr(sys, "pathed", []),
        "environ": dict(os.environ),
        "folder": os.getcwd(),
        "ids": [os.getuid(), os.geteuid(), os.getgid(), os.getgroups()],
        "places": {place: write(place + "/written-by-test") for place in PLACES if os.path.isdir(place)},
        "readable": [place for place in PLACES if os.access(place, os.R_OK | os.X_OK)],
        "files": {path: write(path) for path in FILES},
        "open": resource.getrlimit(resource.RLIMIT_NOFILE),
        "processes": resource.getrlimit(resource.RLIMIT_NPROC),
        "core": resource.getrlimit(resource.RLIMIT_CORE),
        "tmp": space.f_blocks * space.f_frsize,
        "free": space.f_bavail * space.f_frsize,
        "umask": umask(),
        "version": list(sys.version_info[:2]),
        "flags": [sys.flags.isolated, sys.flags.no_site, sys.flags.ignore_environment, sys.dont_write_bytecode],
        "prefix": sys.prefix,
        "now": time.time() * 1000,
        "left": context.get_remaining_time_in_millis(),
        "context": {
            "id": context.aws_request_id, "arn": context.invoked_function_arn, "name": context.function_name,
            "version": context.function_version, "memory": context.memory_limit_in_mb,
            "group": context.log_group_name, "stream": context.log_stream_name,
            "identity": context.identity and [context.identity.cognito_identity_id], "client": context.client_context,
        },
        "modules": {name: found(name) for name in ("colorsys", "both", "nested", "layered", "pip", "yaml")},
        "program": subprocess.run(["hello-of-layer"], stdout=subprocess.PIPE).stdout.decode(),
        "stdin": sys.stdin.read(),
        "init": FIRST.get("AWS_LAMBDA_INITIALIZATION_TYPE"),
        "rights": [line.split()[1] for line in open("/proc/self/status") if line.startswith(("CapEff", "NoNew"))],
    }
"""
# What is at sys.path's places, and which of them Python shows it has seen.
PTH = "import sys; sys.pathed = getattr(sys, 'pathed', []) + ['{}']\n"


def surroundings(version: str) -> tuple[dict[str, str | bytes], dict[str, Spec], dict[str, Spec]]:
    """A function that reports, and two layers to report of."""
    site = f"python/lib/python{version}/site-packages"
    task: dict[str, str | bytes] = {"app.py": REPORTER, "pathed.py": "", "task.pth": PTH.format("task")}
    first: dict[str, Spec] = {
        "python/layered.py": "ORIGIN = 'first'\n",
        "python/colorsys.py": "ORIGIN = 'layer'\n",
        f"{site}/both.py": "ORIGIN = 'first'\n",
        "python/nested/__init__.py": "",
        "python/plain.pth": PTH.format("plain"),
        f"{site}/site.pth": PTH.format("site"),
        "bin/hello-of-layer": File("#!/bin/sh\necho hello\n", 0o755),
        "lib/libx.so": "",
    }
    second: dict[str, Spec] = {"python/layered.py": "ORIGIN = 'second'\n", "python/both.py": "ORIGIN = 'second'\n"}
    return task, first, second


def layered(runs: Runs, version: str) -> list[str]:
    task, first, second = surroundings(version)
    runs.write(task)
    one, two = write_zip(runs.folder / "one.zip", first), write_folder(runs.folder / "two", second)
    return ["--layer", str(one), "--layer", str(two), "--handler", "app.handler"]


def plant(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a shell may have set, and a function must not see."""
    for name, value in {
        "AWS_SECRET_ACCESS_KEY": "planted-secret",
        "AWS_ACCESS_KEY_ID": "planted-id",
        "AWS_SESSION_TOKEN": "planted-token",
        "AWS_PROFILE": "planted",
        "PYTHONPATH": "/planted",
        "PYTHONSTARTUP": "/planted",
        "LD_PRELOAD": "",
        "HTTPS_PROXY": "",
        "SECRET_OF_SHELL": "planted",
        "GIVEN": "from the shell",
    }.items():
        monkeypatch.setenv(name, value)


def expected_path(version: str) -> list[str]:
    """Seen in Lambda's images: where an interpreter's own site-packages are changed with 3.11."""
    lang = f"/var/lang/lib/python{version}"
    layers = [f"/opt/python/lib/python{version}/site-packages", "/opt/python"]
    standard = [f"/var/lang/lib/python{version.replace('.', '')}.zip", lang, f"{lang}/lib-dynload"]
    own = [f"{lang}/site-packages"]
    if version in ("3.9", "3.10"):
        return ["/var/task", *layers, "/var/runtime", *standard, *own]
    return ["/var/task", *layers, *own, "/var/runtime", *standard]


def expected_environment(version: str) -> dict[str, str]:
    return {
        "PATH": "/var/lang/bin:/usr/local/bin:/usr/bin/:/bin:/opt/bin",
        "LD_LIBRARY_PATH": "/var/lang/lib:/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:"
        "/var/task:/var/task/lib:/opt/lib",
        "PYTHONPATH": "/var/runtime",
        "TZ": ":UTC",
        "LANG": "en_US.UTF-8",
        **({"LC_CTYPE": "C.UTF-8"} if version in ("3.12", "3.13") else {}),
        "LAMBDA_TASK_ROOT": "/var/task",
        "LAMBDA_RUNTIME_DIR": "/var/runtime",
        "_HANDLER": "app.handler",
        "AWS_EXECUTION_ENV": f"AWS_Lambda_python{version}",
        "AWS_REGION": "eu-west-1",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_LAMBDA_FUNCTION_NAME": "fn",
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
        "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/fn",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "GIVEN": "from the shell",
        "SET": "a=b",
        "EMPTY": "",
    }


# Set by the client, the runtime or X-Ray, with values that differ from one invocation to the next.
VARYING = {
    *("AWS_LAMBDA_RUNTIME_API", "AWS_LAMBDA_LOG_STREAM_NAME", "_X_AMZN_TRACE_ID", "AWS_XRAY_CONTEXT_MISSING"),
    *("AWS_XRAY_DAEMON_ADDRESS", "LBTEST"),
}


REPORTS: dict[tuple[str, str], tuple[Any, Any]] = {}
CASES = [
    *[pytest.param("namespace", version, id=f"namespace-{version}") for version in VERSIONS],
    pytest.param("user", "3.13", id="user-3.13"),
    pytest.param("container", "3.13", id="container-3.13", marks=pytest.mark.docker),
]


@pytest.fixture
def report(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    run_cache: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[str, str, Any, Any]:
    """Backend, version, what a function told of itself there and the invocation: asked once for all tests."""
    backend, version = request.getfixturevalue("backend"), request.getfixturevalue("version")
    if (backend, version) not in REPORTS:
        plant(monkeypatch)
        runs = isolated(backend, tmp_path, run_cache, version)
        options = ["--timeout", "20", "--memory", "256", "--region", "eu-west-1"]
        options += ["--env", "GIVEN", "--env", "SET=a=b", "--env", "EMPTY="]
        document = runs.json(*layered(runs, version), *options, target=f"python{version}-{ARCH}")
        (invocation,) = document["invocations"]
        assert document["target"] == f"python{version}-{ARCH}"
        assert document["backend"] == ("namespace" if backend == "user" else backend)
        REPORTS[backend, version] = invocation["payload"], invocation
    return (backend, version, *REPORTS[backend, version])


Report = tuple[str, str, Any, Any]
everywhere = pytest.mark.parametrize(("backend", "version"), CASES)


@everywhere
def test_modules_are_looked_for_where_lambda_does(backend: str, version: str, report: Report) -> None:
    told = report[2]
    assert told["version"] == [int(part) for part in version.split(".")]
    # A .pth file adds no folder here, and no script's folder is left in front.
    assert told["path"] == expected_path(version)
    assert sorted(told["pathed"]) == ["plain", "site", "task"]
    # Certain: an image's bootstrap adds the function's folder first, and then the layers'.
    assert told["pathed"] == ["task", "site", "plain"]


@everywhere
def test_a_layer_wins_over_the_standard_library_and_site_packages_over_python(
    backend: str, version: str, report: Report
) -> None:
    modules = report[2]["modules"]
    assert modules["colorsys"] == "/opt/python/colorsys.py"
    # Whatever the order of the layers; that follows from the search path.
    assert modules["both"] == f"/opt/python/lib/python{version}/site-packages/both.py"
    assert modules["nested"] == "/opt/python/nested/__init__.py"


@everywhere
def test_no_variable_is_there_but_those_of_lambda_and_of_env(backend: str, version: str, report: Report) -> None:
    found = dict(report[2]["environ"])
    varying = {name: found.pop(name) for name in VARYING if name in found}
    expected = expected_environment(version)
    # Python itself sets LC_CTYPE where it takes the locale for C's (PEP 538), before 3.12, too.
    if version not in ("3.12", "3.13"):
        found.pop("LC_CTYPE", None)
    assert found == expected
    assert re.fullmatch(r"127\.0\.0\.1:\d+", varying["AWS_LAMBDA_RUNTIME_API"])
    assert re.fullmatch(r"\d{4}/\d\d/\d\d/\[\$LATEST\][0-9a-f]{32}", varying["AWS_LAMBDA_LOG_STREAM_NAME"])
    assert "planted" not in str(report[2]) + str(report[3])


@everywhere
def test_the_function_is_a_user_without_rights_in_its_own_folder(backend: str, version: str, report: Report) -> None:
    told = report[2]
    assert told["folder"] == "/var/task"
    user, effective, group, groups = told["ids"]
    # Observed, and the same in both: a user sbx_user1051 with this number.
    assert (user, effective, group) == (993, 993, 990)
    assert 0 not in groups
    assert told["umask"] == 0o022
    assert told["stdin"] == ""
    assert [int(text, 16) for text in told["rights"]] == [0, 1]


@everywhere
def test_nothing_but_tmp_can_be_written_to(backend: str, version: str, report: Report) -> None:
    told = report[2]
    written = {place for place, answer in told["places"].items() if answer == "written"}
    assert written == {"/tmp"}
    for place in ("/opt", "/var/task", "/var/runtime"):
        # Observed: "[Errno 30] Read-only file system". What /etc and others say is not certain: some are EACCES.
        assert told["places"][place] == "EROFS"
    assert set(told["places"].values()) <= {"written", "EROFS", "EACCES", "ENOENT", "EPERM"}
    assert {"/opt", "/var/task", "/var/runtime", "/var/lang", "/tmp", "/", "/etc"} <= set(told["readable"])
    assert "/root" not in told["readable"]
    refused = {path: answer for path, answer in told["files"].items() if path != "/proc/self/oom_score_adj"}
    if backend == "user":  # in truth root without capabilities, to whom settings of the kernel belong
        refused = {path: answer for path, answer in refused.items() if not path.startswith("/proc/sys/")}
    assert "written" not in refused.values(), refused
    assert "/dev/shm" not in told["places"]


@everywhere
def test_limits_are_those_of_lambda(backend: str, version: str, report: Report) -> None:
    told = report[2]
    assert told["open"] == [1024, 1024]
    assert told["processes"] == [1024, 1024]
    assert told["core"] == [0, 0]
    assert told["tmp"] == 512 * MIB
    assert told["free"] > 511 * MIB
    assert report[3]["memory_mb"] in range(10, 256)


@everywhere
def test_the_context_says_what_it_says_on_lambda(backend: str, version: str, report: Report) -> None:
    told, invocation = report[2], report[3]
    context = dict(told["context"])
    assert context.pop("stream") == told["environ"]["AWS_LAMBDA_LOG_STREAM_NAME"]
    assert context == {
        "id": invocation["request_id"],
        "arn": "arn:aws:lambda:eu-west-1:123456789012:function:fn",
        "name": "fn",
        "version": "$LATEST",
        "memory": "256",  # a text in Python's client
        "group": "/aws/lambda/fn",
        "identity": [None],
        "client": None,
    }
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", invocation["request_id"])
    # The deadline is that of the time-out, less what it took to get there.
    assert 10_000 < told["left"] <= 20_000
    assert abs(told["now"] - time.time() * 1000) < 600_000


@everywhere
def test_programs_and_libraries_of_a_layer_come_last(backend: str, version: str, report: Report) -> None:
    told = report[2]
    assert told["program"] == "hello\n"
    assert told["environ"]["PATH"].split(":")[-1] == "/opt/bin"
    assert told["environ"]["LD_LIBRARY_PATH"].split(":")[-1] == "/opt/lib"


@everywhere
def test_what_is_installed_for_the_interpreter_is_not_there(backend: str, version: str, report: Report) -> None:
    # The image has packages of its own where AWS put them; in namespaces there are none.
    modules = report[2]["modules"]
    if backend == "namespace":
        assert (modules["pip"], modules["yaml"]) == (None, None)
    assert report[2]["prefix"] == "/var/lang"


@everywhere
def test_the_log_has_the_lines_of_lambda(backend: str, version: str, report: Report) -> None:
    invocation = report[3]
    identity = invocation["request_id"]
    start, end, line = invocation["log"][-3:]
    assert start == f"START RequestId: {identity} Version: $LATEST"
    assert end == f"END RequestId: {identity}"
    pattern = (
        rf"REPORT RequestId: {identity}\tDuration: [\d.]+ ms\tBilled Duration: (\d+) ms\tMemory Size: 256 MB\t"
        rf"Max Memory Used: (\d+) MB\tInit Duration: ([\d.]+) ms"
    )
    found = re.fullmatch(pattern, line)
    assert found
    assert int(found[2]) == invocation["memory_mb"]
    # Since August 2025, the init phase is billed with the invocation.
    assert int(found[1]) >= float(found[3])


def asking(runs: Runs, code: str, *options: str | Path, files: dict[str, str | bytes] | None = None) -> Any:
    """What a handler returns whose body is an expression."""
    runs.write(
        {"m.py": f"import os, sys, stat, errno\ndef handler(event, context):\n    return {code}\n", **(files or {})}
    )
    (found,) = runs.json("--handler", "m.handler", "--timeout", "20", *options)["invocations"]
    assert found["function_error"] is None, found
    return found["payload"]


@pytest.fixture(params=ISOLATED)
def runs(request: pytest.FixtureRequest, tmp_path: Path, run_cache: Path) -> Runs:  # noqa: F811
    return isolated(request.param, tmp_path, run_cache)


def test_tmp_is_as_large_as_asked_for(runs: Runs) -> None:
    code = "os.statvfs('/tmp').f_blocks * os.statvfs('/tmp').f_frsize"
    assert asking(runs, code, "--tmp", "1024") == 1024 * MIB


def test_a_function_with_a_pythonpath_of_its_own_loses_the_layers(runs: Runs) -> None:
    layer = write_folder(runs.folder / "one", {"python/layered.py": "X = 1\n"})
    code = "[path for path in sys.path if path.startswith(('/opt', '/var/task'))] + [os.environ['PYTHONPATH']]"
    told = asking(runs, code, "--layer", layer, "--env", "PYTHONPATH=/var/task/lib", files={"lib/own.py": ""})
    assert told == ["/var/task", "/var/task/lib", "/var/task/lib"]


@pytest.mark.parametrize("order", [("one", "two"), ("two", "one")])
def test_for_one_path_the_last_layer_wins(tmp_path: Path, run_cache: Path, order: tuple[str, str]) -> None:  # noqa: F811
    runs = isolated("namespace", tmp_path, run_cache)
    options: list[str | Path] = []
    for name in order:
        table = {"python/a.py": f"X = {name!r}\n", f"python/only_{name}.py": "X = 1\n", "lib/x": name}
        options += ["--layer", write_zip(tmp_path / f"{name}.zip", table)]
    code = "[__import__('a').X, __import__('only_one').X, __import__('only_two').X, open('/opt/lib/x').read()]"
    assert asking(runs, code, *options) == [order[1], 1, 1, order[1]]


def test_links_and_modes_of_a_zip_are_kept(runs: Runs) -> None:
    table: dict[str, Spec] = {
        "python/real.py": "X = 1\n",
        "python/link.py": Link("real.py"),
        "python/absolute.py": Link("/opt/python/real.py"),
        "python/astray.py": Link("../../../../../../etc/shadow"),
        "python/dangling.py": Link("nowhere"),
        "python/secret.py": File("X = 2\n", 0o600),
        "python/unsaid.py": File("X = 3\n", None),
        "python/folder": Link("."),
        "bin/run": File("#!/bin/sh\necho ran\n", 0o755),
        "bin/plain": File("#!/bin/sh\necho ran\n", 0o644),
        "bin/suid": File("#!/bin/sh\necho ran\n", 0o4755),
    }
    layer = write_zip(runs.folder / "layer.zip", table)
    names = "('real.py', 'link.py', 'absolute.py', 'secret.py', 'folder/link.py', 'astray.py', 'dangling.py')"
    code = (
        "[{name: os.access('/opt/python/' + name, os.R_OK) for name in " + names + "}, "
        "{name: oct(os.stat('/opt/bin/' + name).st_mode & 0o777) for name in ('run', 'plain', 'suid')}, "
        "[os.readlink('/opt/python/' + name) for name in ('link.py', 'absolute.py', 'dangling.py')], "
        "[os.access('/opt/bin/' + name, os.X_OK) for name in ('run', 'plain')]]"
    )
    readable, modes, links, runnable = asking(runs, code, "--layer", layer)
    assert readable == {
        **dict.fromkeys(("real.py", "link.py", "absolute.py", "folder/link.py"), True),
        **dict.fromkeys(("secret.py", "astray.py", "dangling.py"), False),
    }
    assert modes["run"] == "0o755"
    assert modes["plain"] == "0o644"
    assert links == ["real.py", "/opt/python/real.py", "nowhere"]
    assert runnable == [True, False]


def test_a_module_that_others_cannot_read_is_not_imported(runs: Runs) -> None:
    # Observed: "Unable to import module 'app': [Errno 13] Permission denied: '/var/task/app.py'".
    layer = write_zip(runs.folder / "layer.zip", {"python/secret.py": File("X = 2\n", 0o600)})
    runs.write({"m.py": "import secret\n"})
    (found,) = runs.json("--layer", layer, "--handler", "m.handler", code=1)["invocations"]
    assert "Permission denied" in str(found["payload"]) or "Unable to import" in str(found["payload"])


def test_bytecode_of_a_layer_is_used_and_none_is_written(tmp_path: Path, run_cache: Path) -> None:  # noqa: F811
    from tests.trees import bytecode

    runs = isolated("namespace", tmp_path, run_cache)
    compiled = bytecode("3.13", "unchecked-hash", "X = 'of the bytecode'\n")
    table: dict[str, Spec] = {
        "python/demo.py": "X = 'of the source'\n",
        "python/__pycache__/demo.cpython-313.pyc": compiled,
        "python/plain.py": "X = 1\n",
    }
    code = "[__import__('demo').X, __import__('plain').X, os.listdir('/opt/python/__pycache__')]"
    told = asking(runs, code, "--layer", write_zip(tmp_path / "layer.zip", table))
    assert told == ["of the bytecode", 1, ["demo.cpython-313.pyc"]]


def test_packages_installed_for_the_interpreter_are_hidden(tmp_path: Path, run_cache: Path) -> None:  # noqa: F811
    """Whatever somebody has installed there."""
    runs = isolated("namespace", tmp_path, run_cache)
    installed = {path.name for path in find_python("3.13").parents[1].glob("lib/python3.13/site-packages/*")}
    assert installed
    code = "[name for name in os.listdir('/var/lang/lib/python3.13/site-packages')]"
    assert asking(runs, code) == []


def test_the_files_of_this_machine_are_not_there(runs: Runs) -> None:
    (runs.folder / "planted").write_text("secret")
    places = [str(runs.folder / "planted"), "/root/.bashrc", "/etc/shadow", "/work", "/home", "/mnt"]
    told = asking(
        runs, f"[[path for path in {places!r} if os.access(path, os.R_OK)], os.listdir('/tmp'), os.listdir('/opt')]"
    )
    assert [path for path in told[0] if path not in ("/home", "/mnt")] == []
    assert told[1] == []


def test_other_processes_of_this_machine_cannot_be_seen(runs: Runs) -> None:
    told = asking(runs, "[name for name in os.listdir('/proc') if name.isdigit()]")
    assert len(told) <= 4
    assert "1" in told


KEEPS = """
import os
def handler(event, context):
    with open("/tmp/kept", "a") as file:
        file.write("x")
    return os.path.getsize("/tmp/kept")
"""


def test_tmp_is_kept_from_one_event_to_the_next_but_not_to_the_next_run(runs: Runs) -> None:
    runs.write({"m.py": KEEPS})
    for _ in range(2):
        found = runs.json("--handler", "m.handler", "--repeat", "2")["invocations"]
        assert [one["payload"] for one in found] == [1, 2]


def test_without_a_network_nothing_but_loopback_is_there(runs: Runs) -> None:
    code = "[sorted(name for _, name in __import__('socket').if_nameindex()), os.environ['AWS_LAMBDA_RUNTIME_API']]"
    names, address = asking(runs, code, "--network", "none")
    assert [name for name in names if name == "lo" or name.startswith(("eth", "en", "wl"))] == ["lo"]
    assert address == "127.0.0.1:9001"


def test_the_limit_of_open_files_is_reached_and_told(runs: Runs) -> None:
    code = (
        "def handler(event, context):\n    kept = []\n    try:\n        while True: kept.append(open('/dev/null'))\n"
        "    except OSError as error:\n        return [error.errno, len(kept)]\n"
    )
    runs.write({"files.py": code})
    (found,) = runs.json("--handler", "files.handler")["invocations"]
    number, opened = found["payload"]
    assert number == 24
    assert 1000 <= opened < 1024
