"""Docker engines that are not there, not allowed, full, or mad: each is an error of ours, and the right one."""

from __future__ import annotations

import base64
import gc
import hashlib
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import docker.errors
import pytest
import requests
import urllib3

from layerbuild.builders import Limits
from layerbuild.builders.engine import Engine
from layerbuild.builders.engine_errors import raise_known, told, unreachable
from layerbuild.builders.running import Container
from layerbuild.builders.streams import tar_of
from layerbuild.errors import BuildError, MachineError
from layerbuild.process import Interrupted, interrupted

# The SDK leaves connections open that failed.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

FULL = "write /var/lib/docker/tmp/x: no space left on device"
FOREIGN = "exec /bin/cat: exec format error"
NOBODY = 65534


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(autouse=True, scope="module")
def _no_connections_left() -> Iterator[None]:
    yield
    gc.collect()


# What lies below says something.


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (docker.errors.APIError("500", explanation=FULL), "engine-disk-full"),
        (docker.errors.APIError("500", explanation="disk quota exceeded"), "engine-disk-full"),
        (docker.errors.APIError(FULL), "engine-disk-full"),
        (docker.errors.APIError("400", explanation=FOREIGN), "no-emulation"),
        (docker.errors.APIError("409", explanation="container is paused"), "engine-refused"),
        (docker.errors.NotFound("404", explanation="no such container"), "engine-refused"),
        (docker.errors.DockerException("something"), "engine-lost"),
        (requests.ConnectionError("refused"), "engine-lost"),
        (requests.ReadTimeout("timed out"), "engine-lost"),
        (requests.exceptions.ChunkedEncodingError("broken"), "engine-lost"),
        (requests.JSONDecodeError("Expecting value", "<html>", 0), "engine-lost"),
        (urllib3.exceptions.ProtocolError("broken"), "engine-lost"),
        (urllib3.exceptions.ReadTimeoutError(None, "", "timed out"), "engine-lost"),  # type: ignore[arg-type]
        (ConnectionResetError(104, "Connection reset by peer"), "engine-lost"),
        (BrokenPipeError(32, "Broken pipe"), "engine-lost"),
        (TimeoutError("timed out"), "engine-lost"),
        (json.JSONDecodeError("Expecting value", "<html>", 0), "engine-lost"),
        (tarfile.ReadError("unexpected end of data"), "engine-lost"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value,
)
def test_errors_of_the_sdk_become_errors_of_ours(raised: Exception, code: str) -> None:
    with pytest.raises(MachineError) as caught, told():
        raise raised
    assert (caught.value.code, caught.value.exit_code) == (code, 4)
    assert all(caught.value.causes)


@pytest.mark.parametrize(
    "raised",
    [
        BuildError("build-failed", "x"),
        MachineError("image-unavailable", "x"),
        Interrupted(),
        KeyboardInterrupt(),
        ValueError("a mistake of ours"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_not_of_the_engine_is_left_as_it_is(raised: BaseException) -> None:
    with pytest.raises(type(raised)) as caught, told():
        raise raised
    assert caught.value is raised


def test_an_engine_that_breaks_off_as_the_user_interrupts_is_no_error() -> None:
    interrupted.set()
    for raised in (ConnectionResetError(), tarfile.ReadError("unexpected end of data")):
        with pytest.raises(Interrupted), told():
            raise raised


def test_credentials_in_what_an_engine_says_are_not_shown() -> None:
    text = "Get https://user:secret@registry.example/v2/: unauthorized"
    for raised in (docker.errors.APIError("500", explanation=text), requests.ConnectionError(text)):
        with pytest.raises(MachineError) as caught, told():
            raise raised
        assert caught.value.causes == (text.replace("user:secret", "****"),)
    with pytest.raises(MachineError) as caught:
        raise_known(f"https://user:secret@h/: {FULL}")
    assert "secret" not in str(caught.value.causes)
    assert "secret" not in str(unreachable(OSError("no https://user:secret@h/"), "tcp://user:secret@h:1").causes)


def test_what_is_not_known_raises_nothing() -> None:
    raise_known("")
    raise_known("manifest unknown")


# Engines that cannot be spoken to.


def refused(call: Callable[[], object]) -> MachineError:
    with pytest.raises(MachineError) as caught:
        call()
    assert caught.value.exit_code == 4
    return caught.value


def asked(host: str, monkeypatch: pytest.MonkeyPatch) -> MachineError:
    monkeypatch.setenv("DOCKER_HOST", host)
    error = refused(lambda: Engine().image_id("demo"))
    assert error.causes[0] == f"asked for at {re.sub('//.*@', '//****@', host)}"
    assert all(error.causes)
    assert error.hint
    return error


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.mark.parametrize(
    "host",
    [
        *("foo://bar", "nonsense", "tcp://", "tcp://:x", "tcp://[::1", "tcp://127.0.0.1:99999", "127.0.0.1", "unix"),
        *("npipe:////./pipe/docker_engine", "fd://", "tcp://user:secret@127.0.0.1:1", "http://", "http:///x", "://"),
        f"unix:///{'x' * 200}",
    ],
)
def test_an_address_that_is_none_is_told(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    error = asked(host, monkeypatch)
    assert error.code == "no-engine"
    assert "secret" not in f"{error.what} {error.causes} {error.hint}"


def test_a_socket_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = asked(f"unix://{tmp_path}/no.sock", monkeypatch)
    assert (error.code, error.causes[1]) == ("no-engine", "No such file or directory")


def test_a_socket_that_is_a_file_or_a_folder_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file", tmp_path):
        error = asked(f"unix://{place}", monkeypatch)
        assert (error.code, error.causes[1]) == ("no-engine", "Connection refused")


def test_a_socket_that_nobody_listens_at_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    error = asked(f"tcp://127.0.0.1:{closed_port()}", monkeypatch)
    assert (error.code, error.causes[1]) == ("no-engine", "Connection refused")


def test_a_connection_by_ssh_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec("paramiko"):
        pytest.skip("paramiko is installed here")
    error = asked("ssh://user@127.0.0.1", monkeypatch)
    assert (error.code, error.causes[1]) == (
        "no-engine",
        "connections over ssh need paramiko: pip install 'docker[ssh]'",
    )


@pytest.mark.parametrize("given", [{"DOCKER_TLS_VERIFY": "1"}, {"DOCKER_CERT_PATH": "nowhere"}])
def test_certificates_for_the_engine_that_are_not_there_are_told(
    given: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{closed_port()}")
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert refused(lambda: Engine().image_id("demo")).code == "no-engine"


@pytest.mark.skipif(os.name != "posix", reason="sockets have no owners here")
def test_a_socket_that_belongs_to_others_is_told() -> None:
    code = f"""
import json, os, docker, docker.context, docker.errors, requests, urllib3
from layerbuild.builders.engine import Engine
from layerbuild.errors import MachineError
if os.getuid() == 0:
    os.setgroups([])
    os.setgid({NOBODY})
    os.setuid({NOBODY})
try:
    Engine().image_id("demo")
except MachineError as error:
    print(json.dumps(error.as_json()))
"""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as server:
        Path(folder).chmod(0o755)
        place = Path(folder, "sock")
        server.bind(str(place))
        server.listen()
        place.chmod(0)
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "DOCKER_HOST": f"unix://{place}"},
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    error = json.loads(done.stdout)
    assert (error["code"], error["exit_code"]) == ("engine-not-permitted", 4)
    assert error["causes"] == [f"asked for at unix://{place}", "Permission denied"]
    assert "usermod" in error["hint"]


# Engines that answer, on loopback.


class FakeEngine:
    """Answers each request as the first pattern says that its first line matches; hangs up where none does.

    Attributes:
        asked: first lines of the requests, in order.
    """

    def __init__(self, answers: Sequence[tuple[str, bytes | Sequence[bytes]]]) -> None:
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                outer.asked.append(self.requestline)
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self.close_connection = True
                for pattern, given in answers:
                    if re.search(pattern, self.requestline):
                        for number, part in enumerate([given] if isinstance(given, bytes) else given):
                            time.sleep(0.2 * bool(number))
                            self.wfile.write(part)
                            self.wfile.flush()
                        if "/attach" in self.requestline and given == UPGRADED:
                            self.rfile.read(1)  # as an engine does, until the one who asks is gone
                        return

            def log_message(self, *args: Any) -> None:
                pass

        for method in ("GET", "POST", "PUT", "DELETE"):
            setattr(Handler, f"do_{method}", Handler.answer)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        self.host = f"tcp://127.0.0.1:{self._server.server_address[1]}"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def answer(status: int, body: object = None, *, headers: str = "") -> bytes:
    """An HTTP answer; what is not bytes is sent as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n{headers}"
    return f"{head}Connection: close\r\n\r\n".encode() + data


def stream(*parts: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    """An HTTP answer in pieces, as those of pulling and building."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
    return head + b"Connection: close\r\n\r\n" + b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + end


def refusal(text: str, status: int = 500) -> bytes:
    return answer(status, {"message": text})


def frame(data: bytes) -> bytes:
    """A piece of a command's output."""
    return b"\x01\0\0\0" + len(data).to_bytes(4, "big") + data


def rows(*given: object) -> bytes:
    return stream(*(json.dumps(row).encode() + b"\r\n" for row in given))


DONE = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"
UPGRADED = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
STAT = "X-Docker-Container-Path-Stat: " + base64.b64encode(b'{"name": "out"}').decode() + "\r\n"
CUT = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
GARBAGE = b"\x00\x01\x02 this is not HTTP\r\n\r\n"
HTML = answer(200, b"<html>a portal of some hotel</html>")
GREETING: list[tuple[str, bytes | Sequence[bytes]]] = [
    ("^GET .*/version ", answer(200, {"ApiVersion": "1.44", "Arch": "amd64"})),
    ("^POST .*/containers/prune", answer(200, {"ContainersDeleted": None, "SpaceReclaimed": 0})),
]
RUNNING: list[tuple[str, bytes | Sequence[bytes]]] = [
    *GREETING,
    ("^POST .*/containers/create", answer(201, {"Id": "abc", "Warnings": []})),
    ("^POST .*/containers/abc/attach", UPGRADED),
    ("^POST .*/containers/abc/start", DONE),
    ("^DELETE .*/containers/abc", DONE),
    ("^POST .*/containers/abc/exec", answer(201, {"Id": "ex"})),
]
Answers = list[tuple[str, bytes | Sequence[bytes]]]
Fake = Callable[[Answers], FakeEngine]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    """Starts an engine that answers as told, at DOCKER_HOST."""
    started = []

    def start(answers: Answers) -> FakeEngine:
        started.append(FakeEngine(answers))
        monkeypatch.setenv("DOCKER_HOST", started[-1].host)
        return started[-1]

    yield start
    for engine in started:
        engine.stop()


def ignore(line: str) -> None:
    """Takes the output of something."""


def look(engine: Engine) -> object:
    return engine.image_id("demo", "amd64")


def pull(engine: Engine) -> object:
    return engine.pull("registry.example/demo", "amd64", ignore)


def build(engine: Engine) -> object:
    engine.build({"Dockerfile.build": b"FROM x"}, "demo", "amd64", {}, ignore)
    return None


def ask_architecture(engine: Engine) -> object:
    return engine.architecture


def start(engine: Engine, use: Callable[[Container], object] = lambda box: None) -> object:
    with engine.container("demo", "amd64", Limits(seconds=30), network="none") as box:
        return use(box)


def put(engine: Engine) -> object:
    return start(engine, lambda box: box.put({"a/b": b"c"}))


def run(engine: Engine) -> object:
    return start(engine, lambda box: box.run(["true"], {}, ignore))


def get(engine: Engine) -> object:
    return start(engine, lambda box: {name: b"".join(parts) for name, parts in box.get("out")})


USES = (look, pull, build, start, put, run, get)


@pytest.mark.parametrize(
    "given",
    [
        *(answer(500, {"message": FULL}), refusal("no", 403), answer(404, b"nothing here"), HTML, GARBAGE, CUT, b""),
        *(answer(200, {}), answer(200, []), answer(200), answer(200, 3), answer(200, {"ApiVersion": None})),
        *(answer(200, {"ApiVersion": "x"}), answer(200, {"ApiVersion": "1.1"}), answer(200, {"ApiVersion": 3})),
    ],
    ids=lambda given: ascii(given[-20:]),
)
@pytest.mark.parametrize("use", [look, start])
def test_what_does_not_greet_as_an_engine_is_none(given: bytes, use: Callable[[Engine], object], fake: Fake) -> None:
    fake([("", given)])
    error = refused(lambda: use(Engine()))
    assert error.code == "no-engine"
    assert all(error.causes)


# The answer to all but the greeting.
@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize(
    ("given", "code"),
    [
        (refusal(FULL), "engine-disk-full"),
        (refusal(f"https://user:secret@h/ {FULL}"), "engine-disk-full"),
        (refusal(FOREIGN, 400), "no-emulation"),
        (refusal("server https://user:secret@h/ is mad"), "engine-refused"),
        (answer(502, b"<html>Bad Gateway</html>"), "engine-refused"),
        (answer(500, b"{"), "engine-refused"),
        (b"", "engine-lost"),
        (GARBAGE, "engine-lost"),
        (CUT, "engine-lost"),
    ],
    ids=["full", "full and secret", "foreign", "mad", "gateway", "not JSON", "hung up", "garbage", "cut"],
)
def test_whatever_an_engine_answers_is_an_error_of_ours(
    use: Callable[[Engine], object], given: bytes, code: str, fake: Fake
) -> None:
    fake([*GREETING, ("", given)])
    error = refused(lambda: use(Engine()))
    if use is pull and code == "engine-refused":
        code = "image-unavailable"
    assert error.code == code
    assert "secret" not in f"{error.what} {error.causes}"


@pytest.mark.parametrize(
    ("use", "request_line"),
    [
        (look, "/images/"),
        (pull, "/images/"),
        (build, "/build"),
        (start, "/containers/create"),
        (run, "/abc/exec"),
        (run, "/exec/ex/json"),
    ],
)
def test_html_instead_of_json_is_an_error_of_ours(
    use: Callable[[Engine], object], request_line: str, fake: Fake
) -> None:
    fake([(request_line, HTML), *RUNNING, ("/exec/ex/start", [UPGRADED, frame(b"out\n")])])
    assert refused(lambda: use(Engine())).code == "engine-lost"


# What a container is asked for, once it runs: each with the request that goes wrong.
@pytest.mark.parametrize(
    ("use", "request_line"),
    [
        (start, "/containers/create"),
        (start, "/containers/abc/attach"),
        (start, "/containers/abc/start"),
        (put, "PUT .*/archive"),
        (run, "/containers/abc/exec"),
        (run, "/exec/ex/start"),
        (run, "/exec/ex/json"),
        (get, "GET .*/archive"),
    ],
)
@pytest.mark.parametrize(
    ("given", "code"),
    [
        (refusal(FULL), "engine-disk-full"),
        (refusal("no", 409), "engine-refused"),
        (b"", "engine-lost"),
        (GARBAGE, "engine-lost"),
    ],
    ids=["full", "refused", "hung up", "garbage"],
)
def test_a_container_that_fails_at_any_point_is_removed(
    use: Callable[[Engine], object], request_line: str, given: bytes, code: str, fake: Fake
) -> None:
    engine = fake([(request_line, given), *RUNNING, ("/exec/ex/start", [UPGRADED, frame(b"out\n")])])
    assert refused(lambda: use(Engine())).code == code
    if request_line != "/containers/create":
        assert re.search(r"^DELETE .*/containers/abc\?.*force=True", engine.asked[-1])


@pytest.mark.parametrize(
    ("use", "request_line", "given"),
    [
        (look, "/images/", answer(200, {})),
        (look, "/images/", answer(200, [])),
        (look, "/images/", answer(500, {})),
        (look, "/images/", answer(500, [])),
        (pull, "/images/create", stream(b"12")),
        (build, "/build", stream(b"12")),
        (start, "/containers/create", answer(201, {})),
        (run, "/containers/abc/exec", answer(201, {})),
        (run, "/exec/ex/json", answer(200, {})),
    ],
    ids=lambda value: ascii(value[-10:]) if isinstance(value, bytes) else None,
)
def test_json_that_no_engine_would_send_is_an_error_of_ours(
    use: Callable[[Engine], object], request_line: str, given: bytes, fake: Fake
) -> None:
    fake([(request_line, given), *RUNNING, ("/exec/ex/start", [UPGRADED, frame(b"out\n")])])
    refused(lambda: use(Engine()))


def test_a_version_without_an_architecture_is_an_error_of_ours(fake: Fake) -> None:
    fake([("/version", answer(200, {"ApiVersion": "1.44"})), *GREETING])
    refused(lambda: ask_architecture(Engine()))


def test_an_engine_that_is_well_is_understood(fake: Fake) -> None:
    archive = tar_of({"out/demo.whl": b"x" * 30_000, "out/empty": b""})
    fake(
        [
            *RUNNING,
            ("^GET .*/images/other", refusal("No such image: other", 404)),
            ("^GET .*/images/", answer(200, {"Id": "sha256:1", "Architecture": "amd64"})),
            ("^POST .*/images/create", rows({"status": "Pulling", "id": "1"}, {"status": "x", "progress": "[=> ]"})),
            (
                "^POST .*/build",
                rows({"stream": "Step 1/1\n"}, {"stream": " ---> 0123456789ab\n"}, {"stream": "done\n"}),
            ),
            ("^PUT .*/archive", answer(200)),
            ("^GET .*/archive", answer(200, archive, headers=STAT)),
            ("/exec/ex/start", [UPGRADED, frame(b"one\ntw") + frame(b"o\n"), frame(b"three")]),
            ("/exec/ex/json", answer(200, {"ExitCode": 3, "Running": False})),
            ("/containers/abc/json", answer(200, {"State": {"OOMKilled": False}})),
        ]
    )
    engine = Engine()
    assert (engine.architecture, look(engine), engine.image_id("demo", "arm64")) == ("amd64", "sha256:1", None)
    assert engine.image_id("other") is None
    assert pull(engine) == "sha256:1"
    lines: list[str] = []
    engine.build({"Dockerfile.build": b""}, "demo", "amd64", {}, lines.append)
    assert lines == ["Step 1/1", "done"]
    assert put(engine) is None
    assert get(engine) == {"demo.whl": b"x" * 30_000, "empty": b""}
    ran: Any = run(engine)
    assert (ran.code, ran.lines) == (3, ("one", "two", "three"))


def test_a_container_leaves_nothing_that_cannot_be_closed(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    gc.collect()
    left: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda found: left.append(f"{found.object!r}: {found.exc_value!r}"))
    fake([*RUNNING])
    start(Engine())
    gc.collect()
    assert [line for line in left if "ResourceWarning" not in line] == []


@pytest.mark.xfail(reason="the SDK drops what arrives together with the head of the answer")
def test_output_that_arrives_at_once_is_not_lost(fake: Fake) -> None:
    started = ("/exec/ex/start", UPGRADED + frame(b"one\n") + frame(b"two\n"))
    fake([*RUNNING, started, ("/exec/ex/json", answer(200, {"ExitCode": 0}))])
    ran: Any = run(Engine())
    assert ran.lines == ("one", "two")


def test_an_engine_that_refuses_to_clean_up_serves_all_the_same(fake: Fake) -> None:
    here = answer(200, {"Id": "sha256:1", "Architecture": "amd64"})
    fake([("/containers/prune", refusal("not allowed", 403)), *GREETING, ("/images/", here)])
    assert look(Engine()) == "sha256:1"


# Pulling and building.


@pytest.mark.parametrize("use", [pull, build])
@pytest.mark.parametrize(
    "end", [b"", b"ffff\r\nabc", b"zzzz\r\nabc"], ids=["after a piece", "in a piece", "at a size that is none"]
)
def test_a_stream_that_breaks_off_is_told(use: Callable[[Engine], object], end: bytes, fake: Fake) -> None:
    fake([*GREETING, ("", stream(b'{"status": "x"}\r\n', end=end))])
    assert refused(lambda: use(Engine())).code == "engine-lost"


@pytest.mark.parametrize("use", [pull, build])
@pytest.mark.parametrize("given", [stream(b'{"status": "x"}\r\n', b'{"sta'), stream(b"<html>")], ids=["cut", "HTML"])
def test_a_stream_that_is_no_json_is_told(given: bytes, use: Callable[[Engine], object], fake: Fake) -> None:
    fake([*GREETING, ("", given)])
    assert refused(lambda: use(Engine())).code == "engine-lost"


@pytest.mark.parametrize(
    ("text", "code"), [(FULL, "engine-disk-full"), (f"The command returned 1: {FOREIGN}", "no-emulation")]
)
def test_an_image_that_cannot_be_made_for_want_of_something_is_told(text: str, code: str, fake: Fake) -> None:
    fake([*GREETING, ("", rows({"stream": "Step 1/9\n"}, {"error": text, "errorDetail": {"message": text}}))])
    assert refused(lambda: build(Engine())).code == code


def test_a_step_of_an_image_that_fails_is_told_with_its_output(fake: Fake) -> None:
    text = "The command '/bin/sh -c false' returned a non-zero code: 1"
    failing = rows(
        {"stream": "Step 1/2\n"}, {"stream": " ---> 0123456789ab\n"}, {"stream": "E: no\n"}, {"error": text}
    )
    engine = fake([*GREETING, ("^POST .*/build", failing), ("^DELETE", answer(200, []))])
    with pytest.raises(BuildError) as caught:
        build(Engine())
    assert (caught.value.code, caught.value.exit_code) == ("image-failed", 3)
    assert caught.value.causes == ("Step 1/2", "E: no", text)
    assert [line for line in engine.asked if re.search("^DELETE .*/images/0123456789ab", line)]


def test_credentials_in_the_error_of_a_step_are_not_shown(fake: Fake) -> None:
    fake([*GREETING, ("", rows({"error": "https://user:secret@registry.example/: unauthorized"}))])
    with pytest.raises(BuildError) as caught:
        build(Engine())
    assert "secret" not in str(caught.value.causes)


@pytest.mark.parametrize(
    "given",
    [
        refusal("manifest for registry.example/demo not found", 404),
        refusal("pull access denied for demo, may require 'docker login'", 403),
        rows({"status": "Pulling"}, {"error": "toomanyrequests: https://user:secret@h/ rate"}),
    ],
)
def test_an_image_that_cannot_be_had_is_told(given: bytes, fake: Fake) -> None:
    fake([*GREETING, ("", given)])
    error = refused(lambda: pull(Engine()))
    assert error.code == "image-unavailable"
    assert "registry.example/demo" in error.what
    assert "secret" not in str(error.causes)


def test_an_image_for_another_architecture_is_not_there(fake: Fake) -> None:
    here = answer(200, {"Id": "sha256:1", "Architecture": "arm64"})
    fake([*GREETING, ("^POST .*/images/create", rows({"status": "x"})), ("^GET .*/images/", here)])
    assert refused(lambda: pull(Engine())).code == "image-unavailable"


def test_a_disk_that_is_full_while_pulling_is_told(fake: Fake) -> None:
    fake([*GREETING, ("", rows({"status": "Pulling"}, {"error": f"failed to register layer: {FULL}"}))])
    assert refused(lambda: pull(Engine())).code == "engine-disk-full"


def test_pulling_and_building_end_when_the_user_interrupts(fake: Fake) -> None:
    fake([*GREETING, ("", rows({"status": "x", "stream": "x"}))])
    engine = Engine()
    assert engine.architecture == "amd64"
    interrupted.set()
    for use in (pull, build):
        with pytest.raises(Interrupted):
            use(engine)


# Files that come out.


@pytest.mark.parametrize("cut", [3000, 511, 1], ids=str)
def test_an_archive_that_ends_too_soon_is_told(cut: int, fake: Fake) -> None:
    whole = tar_of({"out/demo.whl": bytes(5000)})
    fake([*RUNNING, ("^GET .*/archive", answer(200, whole[:cut], headers=STAT))])
    assert refused(lambda: get(Engine())).code == "engine-lost"


@pytest.mark.parametrize("left", [9000, 20_000, 60_000])
def test_a_connection_that_ends_within_an_archive_is_told(left: int, fake: Fake) -> None:
    whole = answer(200, tar_of({"out/demo.whl": bytes(60_000)}), headers=STAT)
    fake([*RUNNING, ("^GET .*/archive", whole[:-left])])
    assert refused(lambda: get(Engine())).code == "engine-lost"


@pytest.mark.parametrize(
    "headers", ["", "X-Docker-Container-Path-Stat: !\r\n", "X-Docker-Container-Path-Stat: bm8=\r\n"]
)
@pytest.mark.parametrize("body", [b"garbage" * 300, b""])
def test_what_is_no_archive_is_told(headers: str, body: bytes, fake: Fake) -> None:
    fake([*RUNNING, ("^GET .*/archive", answer(200, body, headers=headers))])
    assert refused(lambda: get(Engine())).code == "engine-lost"


def test_only_plain_files_of_the_folder_itself_come_out(fake: Fake) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, kind in (
            ("out", tarfile.DIRTYPE),
            ("out/link", tarfile.SYMTYPE),
            ("out/hard", tarfile.LNKTYPE),
            ("out/device", tarfile.CHRTYPE),
            ("out/pipe", tarfile.FIFOTYPE),
            ("out/deeper/file", tarfile.REGTYPE),
            ("out/../../etc/passwd", tarfile.REGTYPE),
            ("out/file", tarfile.REGTYPE),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            archive.addfile(member, io.BytesIO())
    fake([*RUNNING, ("^GET .*/archive", answer(200, packed.getvalue(), headers=STAT))])
    assert get(Engine()) == {"file": b""}


# Contexts of the docker command.


def write_context(folder: Path, name: str, meta: object) -> None:
    place = folder / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest()
    place.mkdir(parents=True)
    (place / "meta.json").write_text(meta if isinstance(meta, str) else json.dumps(meta))


def context_of(name: str, host: str) -> dict[str, object]:
    return {"Name": name, "Metadata": {}, "Endpoints": {"docker": {"Host": host, "SkipTLSVerify": False}}}


@pytest.fixture
def contexts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the docker command's own settings, without any yet; no other socket is the default one."""
    folder = tmp_path / "docker"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    monkeypatch.delenv("DOCKER_HOST")
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    monkeypatch.setattr("docker.utils.utils.DEFAULT_UNIX_SOCKET", f"http+unix://{tmp_path}/default.sock")
    return folder


def test_without_any_setting_the_default_socket_is_asked(contexts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = refused(lambda: Engine().image_id("demo"))
    assert error.code == "no-engine"


def test_the_current_context_is_asked_unless_another_is_named(
    contexts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = {name: f"tcp://127.0.0.1:{closed_port()}" for name in ("current", "named", "given")}
    for name in ("current", "named"):
        write_context(contexts, name, context_of(name, hosts[name]))
    (contexts / "config.json").write_text('{"currentContext": "current"}')
    assert refused(lambda: Engine().image_id("demo")).causes[0] == f"asked for at {hosts['current']}"
    monkeypatch.setenv("DOCKER_CONTEXT", "named")
    assert refused(lambda: Engine().image_id("demo")).causes[0] == f"asked for at {hosts['named']}"
    monkeypatch.setenv("DOCKER_HOST", hosts["given"])
    assert refused(lambda: Engine().image_id("demo")).causes[0] == f"asked for at {hosts['given']}"


def test_a_context_leads_to_its_engine(contexts: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = fake([*GREETING, ("/images/", answer(200, {"Id": "sha256:1", "Architecture": "amd64"}))])
    monkeypatch.setenv("DOCKER_HOST", "")
    write_context(contexts, "other", context_of("other", engine.host))
    monkeypatch.setenv("DOCKER_CONTEXT", "other")
    assert look(Engine()) == "sha256:1"


def test_a_context_that_the_docker_command_made_is_understood(contexts: Path) -> None:
    if shutil.which("docker") is None:
        pytest.skip("there is no docker client here")
    host = f"tcp://127.0.0.1:{closed_port()}"
    for command in (["create", "made", "--docker", f"host={host}"], ["use", "made"]):
        done = subprocess.run(["docker", "context", *command], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    error = refused(lambda: Engine().image_id("demo"))
    assert (error.code, error.causes[0]) == ("no-engine", f"asked for at {host}")


@pytest.mark.parametrize(
    "meta", ["{", "[]", "{}", '{"Name": "odd"}', '{"Name": "odd", "Metadata": {}, "Endpoints": 3}']
)
def test_a_context_that_cannot_be_read_is_told(meta: str, contexts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_context(contexts, "odd", meta)
    monkeypatch.setenv("DOCKER_CONTEXT", "odd")
    error = refused(lambda: Engine().image_id("demo"))
    assert error.code == "no-engine"


def test_a_context_that_does_not_exist_is_told(contexts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONTEXT", "nowhere")
    error = refused(lambda: Engine().image_id("demo"))
    assert "nowhere" in " ".join(error.causes)


def test_a_current_context_that_does_not_exist_is_told(contexts: Path) -> None:
    (contexts / "config.json").write_text('{"currentContext": "nowhere"}')
    error = refused(lambda: Engine().image_id("demo"))
    assert "nowhere" in " ".join(error.causes)
