"""Layer versions by their ARN: asked of a Lambda on loopback, downloaded once, and never told more than needed."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from layerbuild.cache import Cache
from layerbuild.errors import UsageError
from layerbuild.publish.download import download
from tests.conftest import Ran
from tests.unit.test_stack_rules import SITE, dist, write_zip

ACCOUNT = "arn:aws:lambda:eu-west-1:123456789012:layer"
ARN = f"{ACCOUNT}:demo:7"
# Not those of anybody.
KEY, SECRET, TOKEN = "AKIAFAKEFAKEFAKEFAKE", "fake-secret-of-no-account", "fake-session-token-of-nobody"
SIGNATURE = "fake0signature0fake0signature"

Cli = Callable[..., Ran]


class FakeLambda:
    """Answers GetLayerVersionByArn as AWS Lambda does, and serves the zips at their presigned addresses.

    Attributes:
        zips: ARN to the bytes of the layer.
        more: ARN to further members of the answer.
        refusals: ARN to (status, error code, message).
        digests: ARN to the CodeSha256 to tell instead of the right one.
        fault: what goes wrong with downloads: ``truncate``, ``reset``, or a status such as ``403``.
        asked: ARNs asked for, in order.
        served: paths downloaded, with their queries.
        headers: of the last question.
    """

    def __init__(self) -> None:
        self.zips: dict[str, bytes] = {}
        self.more: dict[str, dict[str, Any]] = {}
        self.refusals: dict[str, tuple[int, str, str]] = {}
        self.digests: dict[str, bytes] = {}
        self.answers: dict[str, Any] = {}
        self.fault = ""
        self.asked: list[str] = []
        self.served: list[str] = []
        self.headers: dict[str, str] = {}
        self.download_headers: dict[str, str] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with suppress(ConnectionError):
                    outer.answer(self)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        address = urlsplit(handler.path)
        query = parse_qs(address.query)
        if address.path == "/2018-10-31/layers" and query.get("find") == ["LayerVersion"]:
            self.headers = dict(handler.headers)
            self._version(handler, query["Arn"][0])
        elif address.path.startswith("/snapshots/"):
            self.served.append(handler.path)
            self.download_headers = dict(handler.headers)
            self._content(handler, self.zips[address.path.removeprefix("/snapshots/")])
        else:
            self._send(handler, 404, b"{}")

    def _version(self, handler: BaseHTTPRequestHandler, arn: str) -> None:
        self.asked.append(arn)
        if arn in self.answers:
            self._send(handler, 200, json.dumps(self.answers[arn]).encode())
            return
        if arn not in self.zips and arn not in self.refusals:
            self.refusals[arn] = (404, "ResourceNotFoundException", "The resource you requested does not exist.")
        if arn in self.refusals:
            status, code, text = self.refusals[arn]
            # Lambda's own errors have `Type` and `Message`, those of the gateway before it only `message`.
            body = {"Type": "User", "Message": text} if status == 404 else {"Message": text}
            self._send(handler, status, json.dumps(body).encode(), {"x-amzn-ErrorType": code})
            return
        data = self.zips[arn]
        digest = self.digests.get(arn, hashlib.sha256(data).digest())
        answer = {
            "Content": {
                "Location": f"{self.url}/snapshots/{arn}?X-Amz-Credential={KEY}&X-Amz-Signature={SIGNATURE}",
                "CodeSha256": base64.b64encode(digest).decode(),
                "CodeSize": len(data),
            },
            "LayerArn": arn.rpartition(":")[0],
            "LayerVersionArn": arn,
            "Description": "",
            "CreatedDate": "2026-01-01T00:00:00.000+0000",
            "Version": int(arn.rpartition(":")[2]),
            **self.more.get(arn, {}),
        }
        self._send(handler, 200, json.dumps(answer).encode())

    def _content(self, handler: BaseHTTPRequestHandler, data: bytes) -> None:
        if self.fault.isdigit():
            self._send(handler, int(self.fault), b"<Error><Code>AccessDenied</Code></Error>")
            return
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        if self.fault == "truncate":
            data = data[: len(data) // 2]
        elif self.fault == "change":
            data = b"x" * len(data)
        handler.wfile.write(data)
        handler.close_connection = True

    def _send(self, handler: BaseHTTPRequestHandler, status: int, body: bytes, headers: Any = None) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)


def configure(monkeypatch: pytest.MonkeyPatch, url: str, *, credentials: bool = True) -> None:
    """Lets boto3 ask `url` and nobody else, with credentials that are nobody's."""
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)  # it keeps the credentials that it has found
    for name in list(os.environ):
        if name.startswith("AWS_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL_LAMBDA", url)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    if credentials:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)


@pytest.fixture
def aws(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeLambda]:
    """A Lambda that has one layer version, ARN."""
    server = FakeLambda()
    configure(monkeypatch, server.url)
    server.zips[ARN] = layer(project)
    yield server
    server.stop()


def layer(folder: Path, name: str = "demo", site: str = SITE, text: str = "VERSION = 1\n") -> bytes:
    return write_zip(
        folder / "scratch" / f"{name}.zip", dist(name, "1.0", {f"{name}.py": text}, site=site)
    ).read_bytes()


def kept(project: Path) -> list[Path]:
    """Everything that a download could have left behind."""
    return [path for path in (project.parent / "cache/layers").rglob("*") if path.is_file()]


def tells_nothing(ran: Ran) -> Ran:
    """The output of a command has neither credentials nor the presigned address, nor a traceback."""
    for secret in (KEY, SECRET, TOKEN, SIGNATURE, "X-Amz", "/snapshots/", "Traceback"):
        assert secret not in ran.out, secret
        assert secret not in ran.err, secret
    return ran


def error(ran: Ran) -> dict[str, Any]:
    tells_nothing(ran)
    found: dict[str, Any] = ran.json["error"]
    assert found["exit_code"] == ran.code
    assert found["code"] != "internal-error", found
    return found


def test_a_layer_version_is_checked(aws: FakeLambda, project: Path, cli: Cli) -> None:
    ran = tells_nothing(cli("check", ARN, "--json"))
    assert ran.code == 0
    (report,) = ran.json["layers"]
    assert report["layer"] == ARN
    assert report["targets"] == ["python3.12-x86_64", "python3.12-arm64"]
    assert (report["findings"], report["zipped"]) == ([], len(aws.zips[ARN]))
    assert aws.asked == [ARN]
    (path,) = kept(project)
    assert path.read_bytes() == aws.zips[ARN]
    assert path.stem == hashlib.sha256(aws.zips[ARN]).hexdigest()


def test_the_question_is_signed_for_the_region_of_the_arn(aws: FakeLambda, cli: Cli) -> None:
    cli("check", ARN)
    assert f"Credential={KEY}/" in aws.headers["Authorization"]
    assert "/eu-west-1/lambda/aws4_request" in aws.headers["Authorization"]
    assert "Authorization" not in aws.download_headers
    assert TOKEN not in str(aws.download_headers)


def test_the_second_time_it_is_not_downloaded_again(aws: FakeLambda, cli: Cli) -> None:
    first, second = (tells_nothing(cli("check", ARN, "--json")) for _ in range(2))
    assert first.out == second.out
    assert (len(aws.asked), len(aws.served)) == (2, 1)


def test_a_download_that_was_damaged_since_is_made_again(aws: FakeLambda, project: Path, cli: Cli) -> None:
    cli("check", ARN)
    (path,) = kept(project)
    path.write_bytes(b"damaged")
    assert cli("check", ARN).code == 0
    assert path.read_bytes() == aws.zips[ARN]
    assert len(aws.served) == 2


def test_two_arns_with_the_same_bytes_are_downloaded_once(aws: FakeLambda, cli: Cli) -> None:
    aws.zips[f"{ACCOUNT}:other:1"] = aws.zips[ARN]
    ran = cli("stack", ARN, f"{ACCOUNT}:other:1", "--json")
    assert len(aws.served) == 1
    assert [one["code"] for one in ran.json["stacks"][0]["findings"]] == ["stack-identical"]


def test_an_arn_in_a_stack(aws: FakeLambda, project: Path, cli: Cli) -> None:
    write_zip(project / "own.zip", {f"{SITE}/demo.py": "VERSION = 2\n"})
    ran = tells_nothing(cli("stack", ARN, "own.zip", "--json"))
    assert ran.code == 0
    (report,) = ran.json["stacks"]
    assert report["layers"] == [ARN, "own.zip"]
    (finding,) = report["findings"]
    assert (finding["code"], finding["message"]) == ("stack-conflict", f"own.zip replaces {SITE}/demo.py of {ARN}")


def test_two_versions_of_one_layer_in_a_stack(aws: FakeLambda, project: Path, cli: Cli) -> None:
    aws.zips[f"{ACCOUNT}:demo:8"] = layer(project, "other")
    ran = tells_nothing(cli("stack", ARN, f"{ACCOUNT}:demo:8", "--json"))
    assert ran.code == 1
    (finding,) = ran.json["stacks"][0]["findings"]
    assert finding["code"] == "stack-two-versions"
    assert finding["message"] == f"layers 1 and 2 are both {ACCOUNT}:demo"
    aws.zips[f"{ACCOUNT}:demo2:8"] = aws.zips[f"{ACCOUNT}:demo:8"]
    assert cli("stack", ARN, f"{ACCOUNT}:demo2:8").code == 0


def test_a_merge_of_layer_versions(aws: FakeLambda, project: Path, cli: Cli) -> None:
    aws.zips[f"{ACCOUNT}:other:1"] = layer(project, "other")
    ran = tells_nothing(cli("stack", ARN, f"{ACCOUNT}:other:1", "--merge", "all.zip"))
    assert ran.code == 0
    manifest = json.loads((project / "all.json").read_text())
    assert [row["layer"] for row in manifest["merged_from"]] == [ARN, f"{ACCOUNT}:other:1"]
    digests = [base64.b64encode(hashlib.sha256(data).digest()).decode() for data in aws.zips.values()]
    assert [row["code_sha256"] for row in manifest["merged_from"]] == digests


@pytest.mark.parametrize("form", ["text", "sarif", "github"])
def test_no_form_of_output_tells_the_address(form: str, aws: FakeLambda, project: Path, cli: Cli) -> None:
    aws.zips[ARN] = write_zip(project / "bad.zip", {f"{SITE}/json.py": ""}).read_bytes()
    ran = tells_nothing(cli("check", ARN, "--format", form))
    assert ran.code == 1
    assert "contents-stdlib" in ran.out
    if form == "sarif":
        (result,) = [one for one in ran.json["runs"][0]["results"] if one["ruleId"] == "contents-stdlib"]
        assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == quote(ARN)


# What a layer version says that it is for.


def test_compatible_runtimes_count_where_the_content_does_not_say(aws: FakeLambda, project: Path, cli: Cli) -> None:
    aws.zips[ARN] = layer(project, site="python")
    (unknown,) = cli("check", ARN, "--json").json["layers"]
    assert unknown["targets"] == []
    aws.more[ARN] = {"CompatibleRuntimes": ["python3.11", "nodejs22.x"], "CompatibleArchitectures": ["arm64"]}
    (told,) = cli("check", ARN, "--json").json["layers"]
    assert told["targets"] == ["python3.11-arm64"]
    (stack,) = cli("stack", ARN, "--json").json["stacks"]
    assert stack["targets"] == ["python3.11-arm64"]
    (chosen,) = cli("check", ARN, "--target", "python3.13-x86_64", "--json").json["layers"]
    assert chosen["targets"] == ["python3.13-x86_64"]


def test_runtimes_count_without_architectures_too(aws: FakeLambda, project: Path, cli: Cli) -> None:
    # CompatibleArchitectures is optional; without compiled files a layer is for both.
    aws.zips[ARN] = layer(project, site="python")
    aws.more[ARN] = {"CompatibleRuntimes": ["python3.12"]}
    (told,) = cli("check", ARN, "--json").json["layers"]
    assert told["targets"] == ["python3.12-x86_64", "python3.12-arm64"]


def test_the_content_is_believed_more_than_what_is_said(aws: FakeLambda, cli: Cli) -> None:
    aws.more[ARN] = {"CompatibleRuntimes": ["python3.9"], "CompatibleArchitectures": ["arm64"]}
    (report,) = cli("check", ARN, "--json").json["layers"]
    assert report["targets"] == ["python3.12-x86_64", "python3.12-arm64"]


# What can go wrong.


def test_a_layer_version_that_does_not_exist(aws: FakeLambda, project: Path, cli: Cli) -> None:
    told = error(cli("check", f"{ACCOUNT}:demo:8", "--json"))
    assert (told["code"], told["exit_code"]) == ("layer-not-found", 2)
    assert told["what"] == f"AWS has no layer version {ACCOUNT}:demo:8"
    assert kept(project) == []


def test_a_layer_version_of_somebody_else(aws: FakeLambda, project: Path, cli: Cli) -> None:
    text = f"User: arn:aws:iam::123456789012:user/me is not authorized to perform: lambda:GetLayerVersion on {ARN}"
    aws.refusals[ARN] = (403, "AccessDeniedException", text)
    told = error(cli("stack", ARN, "--json"))
    assert (told["code"], told["exit_code"]) == ("aws-denied", 4)
    assert told["causes"] == [f"asked for {ARN}", f"AccessDeniedException: {text}"]
    assert "lambda:GetLayerVersion" in told["hint"]
    assert kept(project) == []


def test_credentials_that_are_out_of_date(aws: FakeLambda, cli: Cli) -> None:
    aws.refusals[ARN] = (403, "ExpiredTokenException", "The security token included in the request is expired")
    told = error(cli("check", ARN, "--json"))
    assert told["code"] == "credentials-expired"
    assert "expired" in told["causes"][-1]


def test_no_credentials(aws: FakeLambda, monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    configure(monkeypatch, aws.url, credentials=False)
    told = error(cli("check", ARN, "--json"))
    assert (told["code"], told["exit_code"]) == ("no-credentials", 4)
    assert "AWS_PROFILE" in told["hint"]
    assert aws.asked == []


def test_half_of_the_credentials(aws: FakeLambda, monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert error(cli("check", ARN, "--json"))["exit_code"] == 4
    assert aws.asked == []


def test_nobody_answers(aws: FakeLambda, monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        configure(monkeypatch, f"http://127.0.0.1:{free.getsockname()[1]}")
        told = error(cli("check", ARN, "--json"))
    assert (told["code"], told["exit_code"]) == ("aws-unreachable", 4)
    assert told["causes"]


@pytest.mark.parametrize(
    "arn",
    [
        "arn:aws:lambda:eu-west-1:123456789012:layer:demo",  # without its version
        "arn:aws:lambda:eu-west-1:123456789012:layer:demo:",
        "arn:aws:lambda:eu-west-1:123456789012:layer:demo:latest",
        "arn:aws:lambda:eu-west-1:123456789012:layer:demo:7:8",
        "arn:aws:lambda:eu-west-1:12345678901:layer:demo:7",
        "arn:aws:lambda:eu-west-1:123456789012:function:demo:7",
        "arn:aws:lambda:eu-west-1:123456789012:layer:de.mo:7",
        "arn:aws:lambda::123456789012:layer:demo:7",
        "arn:aws:lambda:eu-west-1@127.0.0.1:123456789012:layer:demo:7",
        f"arn:aws:lambda:eu-west-1:123456789012:layer:{'d' * 141}:7",
        "arn:aws:s3:::bucket",
        "arn:",
        "arn:aws:lambda:eu-west-1:123456789012:layer:demo:7\n",
        "arn:aws:lambda:eu-west-1:١٢٣٤٥٦٧٨٩٠١٢:layer:demo:7",
    ],
)
def test_what_is_no_arn_of_a_layer_version(arn: str, aws: FakeLambda, cli: Cli) -> None:
    told = error(cli("check", arn, "--json"))
    assert (told["code"], told["exit_code"]) == ("layer-not-found", 2)
    assert "arn:aws:lambda:eu-west-1:123456789012:layer:pillow:7" in told["hint"]
    assert aws.asked == []


@pytest.mark.parametrize("partition", ["aws-cn:lambda:cn-north-1", "aws-us-gov:lambda:us-gov-west-1"])
def test_arns_of_other_partitions(partition: str, aws: FakeLambda, cli: Cli) -> None:
    arn = f"arn:{partition}:123456789012:layer:demo-with_all-09:12"
    aws.zips[arn] = aws.zips[ARN]
    assert cli("check", arn).code == 0
    assert aws.asked == [arn]


@pytest.mark.parametrize("region", ["-", "no-such-region-9", "1", "eu-west-1-"])
def test_a_region_that_there_is_not(region: str, aws: FakeLambda, cli: Cli) -> None:
    ran = tells_nothing(cli("check", f"arn:aws:lambda:{region}:123456789012:layer:demo:7", "--json"))
    assert ran.code in (2, 4)
    error(ran)


def test_bytes_that_are_not_those_that_aws_tells_of(aws: FakeLambda, project: Path, cli: Cli) -> None:
    aws.fault = "change"
    told = error(cli("check", ARN, "--json"))
    assert (told["code"], told["exit_code"]) == ("hash-mismatch", 3)
    assert kept(project) == []
    aws.fault = ""
    assert cli("check", ARN).code == 0


def test_a_digest_that_is_of_something_else(aws: FakeLambda, project: Path, cli: Cli) -> None:
    aws.digests[ARN] = hashlib.sha256(b"something else").digest()
    assert error(cli("stack", ARN, "--json"))["code"] == "hash-mismatch"
    assert kept(project) == []


@pytest.mark.parametrize("fault", ["truncate", "403", "404", "500"])
def test_a_download_that_fails(fault: str, aws: FakeLambda, project: Path, cli: Cli) -> None:
    aws.fault = fault
    told = error(cli("check", ARN, "--json"))
    assert (told["code"], told["exit_code"]) == ("aws-unreachable", 4)
    assert told["what"] == f"{ARN} cannot be downloaded"
    assert kept(project) == []


def test_not_even_a_traceback_tells_the_address(aws: FakeLambda, project: Path) -> None:
    aws.fault = "403"
    done = subprocess.run(
        [sys.executable, "-m", "layerbuild", "--debug", "check", ARN], cwd=project, capture_output=True, text=True
    )
    assert done.returncode != 0
    for secret in (SECRET, TOKEN, SIGNATURE, "X-Amz"):
        assert secret not in done.stdout + done.stderr


def test_a_layer_version_that_is_no_zip(aws: FakeLambda, cli: Cli) -> None:
    aws.zips[ARN] = b"this is no zip"
    ran = tells_nothing(cli("check", ARN, "--json"))
    assert ran.code == 1
    assert "zip-broken" in {one["code"] for one in ran.json["layers"][0]["findings"]}


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"Content": {}},
        {"Content": {"Location": "http://127.0.0.1:9/", "CodeSha256": ""}},
        {"Content": {"Location": "http://127.0.0.1:9/", "CodeSha256": "not base64!"}},
        {"Content": {"Location": "s3://bucket/key", "CodeSha256": base64.b64encode(bytes(32)).decode()}},
        {"Content": {"CodeSha256": base64.b64encode(bytes(32)).decode()}},
    ],
)
def test_an_answer_that_lacks_what_is_needed(answer: Any, aws: FakeLambda, project: Path, cli: Cli) -> None:
    aws.answers[ARN] = answer
    told = error(cli("check", ARN, "--json"))
    assert told["exit_code"] in (3, 4)
    assert ARN in told["what"]
    assert kept(project) == []


def test_the_library_refuses_before_it_asks(aws: FakeLambda, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        download("arn:aws:lambda", Cache(tmp_path / "own"))
    published = download(ARN, Cache(tmp_path / "own"))
    assert published.path.read_bytes() == aws.zips[ARN]
    assert (published.runtimes, published.architectures) == ((), ())


# moto's own server.


@pytest.fixture
def moto(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """moto's server in a process of its own; its address."""
    if find_spec("moto") is None or find_spec("flask") is None:
        pytest.skip("moto[server] is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    configure(monkeypatch, url)
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    with (project.parent / "moto.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=env)
    try:
        for _ in range(300):
            assert process.poll() is None, (project.parent / "moto.log").read_text()
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def test_a_layer_that_was_published_to_moto(moto: str, project: Path, cli: Cli) -> None:
    import boto3

    client = boto3.client("lambda", region_name="eu-west-1")
    made = client.publish_layer_version(
        LayerName="demo", Content={"ZipFile": layer(project)}, CompatibleRuntimes=["python3.12"]
    )
    arn = made["LayerVersionArn"]
    digest = base64.b64encode(hashlib.sha256(layer(project)).digest()).decode()
    assert made["Content"]["CodeSha256"] == digest
    ran = tells_nothing(cli("check", arn, "--json"))
    # moto does not know GetLayerVersionByArn: its server breaks, or answers without content, by its version.
    if "error" in ran.json:
        told = error(ran)
        assert told["exit_code"] in (3, 4)
        assert told["causes"][0] == f"asked for {arn}"
    else:
        assert ran.json["layers"][0]["layer"] == arn
