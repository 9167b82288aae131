"""AWS over HTTP on loopback, as far as layers need it (Lambda, S3, STS, EC2, SSM), that can be told to misbehave.

Nothing checks signatures. Service and region are read from the ``Authorization`` header, so one address serves
every region. ``python -m tests.aws_server BUCKET=REGION ...`` prints its address and serves until it is ended.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
import socket
import struct
import sys
import threading
import time
import uuid
import zipfile
import zlib
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase, BytesIO
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote
from xml.etree import ElementTree
from xml.sax.saxutils import escape

ACCOUNT = "123456789012"
CALLER = f"arn:aws:iam::{ACCOUNT}:user/tester"
ZIP_LIMIT, UNZIPPED_LIMIT, REQUEST_LIMIT, PART_MINIMUM = 52_428_800, 262_144_000, 70_167_211, 5_242_880
RUNTIMES = [f"python3.{minor}" for minor in range(8, 15)]
ARCHITECTURES = ["x86_64", "arm64"]
LAYER_NAME = "[a-zA-Z0-9-_]{1,140}"
LAYERS = "/2018-10-31/layers"
LAMBDA_OPERATIONS = (
    ("POST", rf"{LAYERS}/([^/]*)/versions", "PublishLayerVersion"),
    ("GET", rf"{LAYERS}/([^/]*)/versions", "ListLayerVersions"),
    ("GET", rf"{LAYERS}/([^/]*)/versions/([^/]+)", "GetLayerVersion"),
    ("DELETE", rf"{LAYERS}/([^/]*)/versions/([^/]+)", "DeleteLayerVersion"),
    ("GET", rf"{LAYERS}/([^/]*)/versions/([^/]+)/policy", "GetLayerVersionPolicy"),
    ("POST", rf"{LAYERS}/([^/]*)/versions/([^/]+)/policy", "AddLayerVersionPermission"),
    ("DELETE", rf"{LAYERS}/([^/]*)/versions/([^/]+)/policy/([^/]+)", "RemoveLayerVersionPermission"),
    ("GET", LAYERS, "ListLayers"),
    ("GET", "/2015-03-31/functions/?", "ListFunctions"),
)
S3_OPERATIONS = dict(
    pair.split("=")
    for pair in (
        "HEAD?bucket=HeadBucket PUT?=PutObject HEAD?=HeadObject GET?=GetObject DELETE?=DeleteObject "
        "POST?uploads=CreateMultipartUpload PUT?uploadId=UploadPart POST?uploadId=CompleteMultipartUpload "
        "DELETE?uploadId=AbortMultipartUpload"
    ).split()
)
STATUSES = {
    "AccessDeniedException": 403,
    "AccessDenied": 403,
    "ExpiredTokenException": 403,
    "ResourceNotFoundException": 404,
    "TooManyRequestsException": 429,
    "ServiceException": 500,
    "ServiceUnavailable": 503,
}


class AwsError(Exception):
    """An error that AWS answers."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        self.status, self.code, self.message, self.headers = status, code, message, headers or {}


class Answer(NamedTuple):
    """What is sent back."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = {}


class Request(NamedTuple):
    """One request that arrived; `resource` is ``layer:version``, ``bucket/key``, a parameter's name, or empty."""

    time: float
    region: str
    service: str
    operation: str
    resource: str


@dataclass
class Fault:
    """What goes wrong with the next `times` requests of an `operation` (or ``*``), after `after` good ones.

    Either an error (`status` or `error`, of which one follows from the other; `message`; `headers`); or the
    connection is reset after `cut` bytes of the body were read; or nothing is done, and nothing answered for `hang`
    seconds, before the connection closes; or the request is carried out and the answer comes `delay` seconds late,
    or never (`lose_answer`: the connection closes, after `hang`), or breaks off after `short` bytes of its body.
    """

    operation: str
    region: str | None = None
    times: float = 1
    after: int = 0
    status: int | None = None
    error: str | None = None
    message: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    hang: float | None = None
    delay: float | None = None
    lose_answer: bool = False
    short: int | None = None


@dataclass
class LayerVersion:
    """A published version: what GetLayerVersion says of it, its zip, and its policy's statements by their id."""

    facts: dict[str, Any]
    content: bytes
    statements: dict[str, dict[str, Any]] = field(default_factory=dict)
    revision: str = ""


@dataclass
class Upload:
    """An open multipart upload."""

    bucket: str
    key: str
    headers: dict[str, str]
    parts: dict[int, bytes] = field(default_factory=dict)


def unchunk(stream: BufferedIOBase) -> tuple[bytes, dict[str, str]]:
    """The content of a chunked body, and its trailers."""
    content = bytearray()
    while line := stream.readline():
        size = int(line.split(b";")[0], 16)
        if not size:
            trailers = (line.decode().partition(":") for line in iter(lambda: stream.readline().strip(), b""))
            return bytes(content), {name.strip().lower(): value.strip() for name, _, value in trailers}
        content += stream.read(size)
        stream.read(2)
    raise ConnectionError("the body is not whole")


class Call:
    """A request, as far as it can be told without its body, which `read` adds."""

    def __init__(self, handler: BaseHTTPRequestHandler) -> None:
        self.stream = handler.rfile
        self.method, self.headers = handler.command, handler.headers
        self.path, _, query = handler.path.partition("?")
        self.query = dict(parse_qsl(query, keep_blank_values=True))
        self.length = int(self.headers.get("Content-Length") or 0)
        self.body: bytes | None = None
        told = {name.lower(): value for name, value in self.headers.items()}
        self.checksums = {name: value for name, value in told.items() if name.startswith("x-amz-checksum-")}
        self.kept = {name: value for name, value in told.items() if name.startswith(("x-amz-meta-", "x-amz-tagging"))}
        authorization = self.headers.get("Authorization", "")
        scope = re.search(r"Credential=[^/]+/\d{8}/([^/]+)/([^/]+)/aws4_request", authorization)
        self.region, self.service = scope.groups() if scope else ("", "download")
        self.names: list[str] = []
        self.operation = getattr(self, f"_{self.service}", str)()
        resource = ("/" if self.service == "s3" else ":").join(self.names)
        self.request = Request(time.monotonic(), self.region, self.service, self.operation, resource)

    def read(self) -> bytes:
        """Reads the body, once."""
        if self.body is None:
            if "chunked" in self.headers.get("Transfer-Encoding", ""):
                self.body = unchunk(self.stream)[0]
            else:
                self.body = self.stream.read(self.length)
                if len(self.body) < self.length:
                    raise ConnectionError("the body is not whole")
            if "aws-chunked" in self.headers.get("Content-Encoding", ""):
                self.body, trailers = unchunk(BytesIO(self.body))
                self.checksums |= trailers
        return self.body

    def json(self) -> dict[str, Any]:
        """The body of a JSON request."""
        return dict(json.loads(self.read() or b"{}"))

    def _lambda(self) -> str:
        for method, pattern, operation in LAMBDA_OPERATIONS:
            if method == self.method and (found := re.fullmatch(pattern, self.path)):
                names = [unquote(name) for name in found.groups()]
                self.names = [re.sub(r"^arn:[a-z-]+:lambda:[a-z0-9-]+:\d{12}:layer:", "", name) for name in names]
                if operation == "ListLayers" and self.query.get("find") == "LayerVersion":
                    self.names = [self.query.get("Arn", "")]
                    return "GetLayerVersionByArn"
                return operation
        return ""

    def _s3(self) -> str:
        bucket, _, key = self.path.lstrip("/").partition("/")
        self.names = [unquote(name) for name in (bucket, key) if name]
        kind = next((name for name in ("uploads", "uploadId") if name in self.query), "")
        return S3_OPERATIONS.get(f"{self.method}?{kind if key else 'bucket'}", "")

    def _ssm(self) -> str:
        request = self.json()
        self.names = [name for name in (request.get("Name") or request.get("ResourceId"),) if name]
        return self.headers.get("X-Amz-Target", "").rpartition(".")[2]

    def _sts(self) -> str:
        return dict(parse_qsl(self.read().decode())).get("Action", "")

    _ec2 = _sts

    def _download(self) -> str:
        found = re.fullmatch(r"/snapshots/\d+/([^/]+)/([^/]+)/(\d+)", self.path)
        if not found or "X-Amz-Signature" not in self.query:
            return ""
        self.region, *self.names = found.groups()
        return "Download"


def json_answer(value: object, status: int = 200) -> Answer:
    """An answer in JSON."""
    return Answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"})


def xml_answer(text: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """An answer in XML."""
    return Answer(status, f'<?xml version="1.0"?>\n{text}'.encode(), {"Content-Type": "text/xml", **(headers or {})})


def bytes_answer(call: Call, content: bytes, headers: Mapping[str, str]) -> Answer:
    """An answer with a file's bytes, or with those that a ``Range`` asks for."""
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", call.headers.get("Range", ""))
    if not found:
        return Answer(200, content, headers)
    first, last = int(found[1]), min(int(found[2] or len(content)), len(content) - 1)
    place = {"Content-Range": f"bytes {first}-{last}/{len(content)}"}
    return Answer(206, content[first : last + 1], {**headers, **place})


def error_answer(service: str, error: AwsError) -> Answer:
    """An error in the service's own form."""
    code, message = error.code, error.message
    if service not in {"lambda", "ssm"}:
        text = f"<Error><Code>{escape(code)}</Code><Message>{escape(message)}</Message></Error>"
        text = f"<Response><Errors>{text}</Errors></Response>" if service == "ec2" else text
        text = f"<ErrorResponse>{text}</ErrorResponse>" if service == "sts" else text
        return xml_answer(text, error.status, error.headers)
    upper = code in {"ResourceNotFoundException", "ServiceException", "AccessDeniedException"}
    body = {"Message" if upper else "message": message}
    if service == "ssm":
        body["__type"] = code
    elif code not in {"ValidationException", "RequestEntityTooLargeException"} and error.status != 403:
        body["Type"] = "User" if error.status < 500 else "Service"
    if code == "TooManyRequestsException":
        body["Reason"] = "CallerRateLimitExceeded"
    answer = json_answer(body, error.status)
    return answer._replace(headers={**answer.headers, "x-amzn-ErrorType": code, **error.headers})


def validate(*checks: tuple[str, Any, str | int | list[str]]) -> None:
    """Refuses a request as AWS does; each check is a field, its value, and its pattern, length or known values."""
    failed = []
    for name, value, rule in checks:
        if isinstance(rule, str):
            good, must = re.fullmatch(rule, value) is not None, f"satisfy regular expression pattern: {rule}"
        elif isinstance(rule, int):
            good, must = len(value) <= rule, f"have length less than or equal to {rule}"
        else:
            good, must = set(value) <= set(rule), f"satisfy enum value set: [{', '.join(rule)}]"
        if not good:
            shown = f"[{', '.join(value)}]" if isinstance(value, list) else value
            failed.append(f"Value '{shown}' at '{name}' failed to satisfy constraint: Member must {must}")
    if failed:
        count = f"{len(failed)} validation error{'s' if len(failed) > 1 else ''} detected"
        raise AwsError(400, "ValidationException", f"{count}: {'; '.join(failed)}")


def invalid(message: str) -> AwsError:
    """What Lambda answers to a parameter that has no sense."""
    return AwsError(400, "InvalidParameterValueException", message)


def page(call: Call, name: str, items: Mapping[Any, Any], most: int = 50) -> Answer:
    """One page of a list; `items` are by what they are sorted by, which a marker holds."""
    size = int(call.query.get("MaxItems", 50))
    if not 1 <= size <= most:
        rule = f"Member must have value less than or equal to {most}"
        text = f"1 validation error detected: Value '{size}' at 'maxItems' failed to satisfy constraint: {rule}"
        raise AwsError(400, "ValidationException", text)
    last = json.loads(base64.b64decode(call.query["Marker"])) if call.query.get("Marker") else None
    keys = [key for key in sorted(items) if last is None or key > last]
    shown = keys[: min(size, 50)]
    more = base64.b64encode(json.dumps(shown[-1]).encode()).decode() if len(keys) > len(shown) else None
    return json_answer({"NextMarker": more, name: [items[key] for key in shown]})


def etag(*parts: bytes) -> str:
    """What S3 answers as the hash of an object, or of one of several parts."""
    digests = [hashlib.md5(part).digest() for part in parts]
    if len(parts) == 1:
        return f'"{digests[0].hex()}"'
    return f'"{hashlib.md5(b"".join(digests)).hexdigest()}-{len(parts)}"'


def arn(region: str, rest: str, service: str = "lambda") -> str:
    """An ARN of the account's."""
    partition = "aws-cn" if region.startswith("cn-") else "aws-us-gov" if region.startswith("us-gov-") else "aws"
    return f"arn:{partition}:{service}:{region}:{ACCOUNT}:{rest}"


class AwsServer:
    """AWS in a thread.

    Attributes:
        requests: all that arrived, in order.
        layers: published versions by region, layer and number.
        functions: what ListFunctions gives, by region: ``{"FunctionName", "Version", "Layers": [arn, ...]}``.
        buckets: region by name; set by the test.
        versioned: buckets whose objects keep their versions.
        objects: content by bucket and key.
        object_headers: ``x-amz-meta-`` and ``x-amz-tagging`` headers by bucket and key.
        uploads: open multipart uploads by id.
        parameters: of SSM, by region and name, each with ``Value``, ``Type``, ``Version`` and ``Tags``.
        regions: what DescribeRegions gives.
        delay: seconds before each answer.
        limit: Lambda requests per region and second, above which it answers 429.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.layers: defaultdict[str, defaultdict[str, dict[int, LayerVersion]]]
        self.layers = defaultdict(lambda: defaultdict(dict))
        self.functions: dict[str, list[dict[str, Any]]] = {}
        self.buckets: dict[str, str] = {}
        self.versioned: set[str] = set()
        self.objects: dict[tuple[str, str], bytes] = {}
        self.object_headers: dict[tuple[str, str], dict[str, str]] = {}
        self.uploads: dict[str, Upload] = {}
        self.parameters: defaultdict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
        self.regions = ["eu-central-1", "eu-west-1", "us-east-1", "us-east-2", "us-west-2"]
        self.delay, self.limit = 0.0, 0
        self.lock, self.stopping = threading.RLock(), threading.Event()
        self._numbers: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._versions: defaultdict[tuple[str, str], dict[str, bytes]] = defaultdict(dict)
        self._faults: list[Fault] = []
        self._hooks: list[tuple[str, str, Callable[[Request], object]]] = []
        self._admitted: defaultdict[str, list[float]] = defaultdict(list)
        self._server = LoopbackServer(self)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def stop(self) -> None:
        """Ends the server and its connections."""
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        for connection in list(self._server.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def fault(self, operation: str, **how: Any) -> Fault:
        """Adds a `Fault`; its ``times`` say how often it is still to come."""
        with self.lock:
            self._faults.append(Fault(operation, **how))
            return self._faults[-1]

    def before(self, operation: str, hook: Callable[[Request], object]) -> None:
        """Calls `hook` before each request of an operation (or ``*``) is carried out."""
        self._hooks.append(("before", operation, hook))

    def after(self, operation: str, hook: Callable[[Request], object]) -> None:
        """Calls `hook` after each request of an operation (or ``*``) was carried out, before the answer."""
        self._hooks.append(("after", operation, hook))

    def calls(self, operation: str, region: str | None = None) -> list[Request]:
        """The requests of one operation."""
        with self.lock:
            return [seen for seen in self.requests if seen.operation == operation and region in {None, seen.region}]

    def rate(self, region: str) -> int:
        """The most Lambda requests in any second."""
        with self.lock:
            times = sorted(seen.time for seen in self.requests if (seen.service, seen.region) == ("lambda", region))
        return max((bisect_left(times, start + 1) - index for index, start in enumerate(times)), default=0)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answers one request, or does not."""
        call = Call(handler)
        with self.lock:
            self.requests.append(call.request)
            throttled = call.service == "lambda" and self._throttled(call)
            fault = (None if throttled else self._fault(call)) or Fault("")
        if fault.cut is not None:
            call.stream.read(min(fault.cut, call.length) if call.body is None else 0)
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            socket.close(handler.connection.detach())
            raise ConnectionError("cut")
        call.read()
        if fault.hang is None or fault.lose_answer:
            answer = self._answer(call, fault, throttled=throttled)
        if fault.hang is not None or fault.lose_answer:
            self.stopping.wait(fault.hang or 0)
            raise ConnectionError("no answer")
        self.stopping.wait(self.delay + (fault.delay or 0))
        handler.send_response(answer.status)
        for name, value in {"x-amzn-RequestId": str(uuid.uuid4()), **answer.headers}.items():
            handler.send_header(name, value)
        if answer.status != 204 and "Content-Length" not in answer.headers:
            handler.send_header("Content-Length", str(len(answer.body)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(answer.body[: fault.short])
        if fault.short is not None:
            raise ConnectionError("cut")

    def _throttled(self, call: Call) -> bool:
        admitted = [moment for moment in self._admitted[call.region] if moment > call.request.time - 1]
        self._admitted[call.region] = admitted
        if self.limit and len(admitted) >= self.limit:
            return True
        admitted.append(call.request.time)
        return False

    def _fault(self, call: Call) -> Fault | None:
        for fault in self._faults:
            if fault.operation in {"*", call.operation} and fault.region in {None, call.region} and fault.times > 0:
                if not fault.after:
                    fault.times -= 1
                    return fault
                fault.after -= 1
        return None

    def _answer(self, call: Call, fault: Fault, *, throttled: bool) -> Answer:
        try:
            if throttled:
                raise AwsError(429, "TooManyRequestsException", "Rate exceeded")
            if fault.status or fault.error:
                status = fault.status or STATUSES.get(fault.error or "", 400)
                usual = next((code for code, known in STATUSES.items() if known == status), "InternalFailure")
                raise AwsError(status, fault.error or usual, fault.message, fault.headers)
            if call.service == "download" and not call.operation:
                raise AwsError(403, "MissingAuthenticationToken", "Missing Authentication Token")
            operation = getattr(self, call.operation, None)
            if not operation:
                raise AwsError(501, "NotImplemented", f"{call.service}: {call.method} {call.path}")
            self._run_hooks("before", call)
            with self.lock:
                answer: Answer = operation(call)
            self._run_hooks("after", call)
        except AwsError as error:
            return error_answer(call.service, error)
        return answer

    def _run_hooks(self, moment: str, call: Call) -> None:
        for when, operation, hook in self._hooks:
            if when == moment and operation in {"*", call.operation}:
                hook(call.request)

    def PublishLayerVersion(self, call: Call) -> Answer:
        if call.length >= REQUEST_LIMIT:
            text = f"Request must be smaller than {REQUEST_LIMIT} bytes for the PublishLayerVersion operation"
            raise AwsError(413, "RequestEntityTooLargeException", text)
        request = call.json()
        validate(
            ("layerName", call.names[0], LAYER_NAME),
            ("description", request.get("Description") or "", 256),
            ("licenseInfo", request.get("LicenseInfo") or "", 512),
            ("compatibleRuntimes", request.get("CompatibleRuntimes") or [], 15),
            ("compatibleRuntimes", request.get("CompatibleRuntimes") or [], RUNTIMES),
            ("compatibleArchitectures", request.get("CompatibleArchitectures") or [], 2),
            ("compatibleArchitectures", request.get("CompatibleArchitectures") or [], ARCHITECTURES),
        )
        content = self._content(call.region, request.get("Content") or {})
        name = call.names[0]
        self._numbers[call.region, name] += 1
        number = self._numbers[call.region, name]
        told = ("LicenseInfo", "CompatibleRuntimes", "CompatibleArchitectures")
        facts = {
            "LayerArn": arn(call.region, f"layer:{name}"),
            "LayerVersionArn": arn(call.region, f"layer:{name}:{number}"),
            "Version": number,
            "Description": request.get("Description") or "",
            "CreatedDate": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "+0000"),
            **{key: request[key] for key in told if request.get(key) is not None},
        }
        self.layers[call.region][name][number] = LayerVersion(facts, content)
        return json_answer(self._facts(call.region, name, number), 201)

    def _content(self, region: str, content: dict[str, Any]) -> bytes:
        if "S3Bucket" in content:
            zipped = self._from_s3(region, content)
        else:
            zipped = base64.b64decode(content.get("ZipFile") or "")
            if len(zipped) >= ZIP_LIMIT:
                text = f"Zipped size must be smaller than {ZIP_LIMIT} bytes"
                raise AwsError(413, "RequestEntityTooLargeException", text)
        try:
            with zipfile.ZipFile(BytesIO(zipped)) as archive:
                sizes = [entry.file_size for entry in archive.infolist()]
        except zipfile.BadZipFile:
            text = "Could not unzip uploaded file. Please check your file, then try to upload again."
            raise invalid(text if zipped else "Uploaded file must be a non-empty zip") from None
        if not sizes:
            raise invalid("Uploaded file must be a non-empty zip")
        if sum(sizes) >= UNZIPPED_LIMIT:
            raise invalid(f"Unzipped size must be smaller than {UNZIPPED_LIMIT} bytes")
        return zipped

    def _from_s3(self, region: str, content: dict[str, Any]) -> bytes:
        bucket, key, version = content["S3Bucket"], content.get("S3Key", ""), content.get("S3ObjectVersion")
        text = "Error occurred while GetObject. S3 Error Code: "
        place = self.buckets.get(bucket, region)
        if place != region:
            told = f"The bucket is in this region: {place}. Please use this region to retry the request"
            raise invalid(f"{text}PermanentRedirect. S3 Error Message: {told}")
        try:
            return self._object(bucket, key, version)
        except AwsError as error:
            raise invalid(f"{text}{error.code}. S3 Error Message: {error.message}") from None

    def _facts(self, region: str, name: str, number: int) -> dict[str, Any]:
        version = self._version(region, name, number, "The resource you requested does not exist.")
        token, signature = secrets.token_urlsafe(96), secrets.token_hex(32)
        place = f"{self.url}/snapshots/{ACCOUNT}/{region}/{name}/{number}?X-Amz-Algorithm=AWS4-HMAC-SHA256"
        content = {
            "Location": f"{place}&X-Amz-Expires=600&X-Amz-Security-Token={token}&X-Amz-Signature={signature}",
            "CodeSha256": base64.b64encode(hashlib.sha256(version.content).digest()).decode(),
            "CodeSize": len(version.content),
        }
        return {"Content": content, **version.facts}

    def _version(self, region: str, name: str, number: int, missing: str = "") -> LayerVersion:
        if number < 1:
            raise invalid("Layer Version Cannot be less than 1")
        version = self.layers[region].get(name, {}).get(number)
        if not version:
            missing = missing or f"Layer version {arn(region, f'layer:{name}:{number}')} does not exist."
            raise AwsError(404, "ResourceNotFoundException", missing)
        return version

    def _matching(self, call: Call, name: str) -> dict[int, dict[str, Any]]:
        runtime, architecture = call.query.get("CompatibleRuntime"), call.query.get("CompatibleArchitecture")
        validate(
            ("compatibleRuntime", runtime or RUNTIMES[0], "|".join(RUNTIMES)),
            ("compatibleArchitecture", architecture or ARCHITECTURES[0], "|".join(ARCHITECTURES)),
        )
        return {
            -number: {key: value for key, value in version.facts.items() if key != "LayerArn"}
            for number, version in self.layers[call.region].get(name, {}).items()
            if (not runtime or runtime in version.facts.get("CompatibleRuntimes", []))
            and (not architecture or architecture in version.facts.get("CompatibleArchitectures", []))
        }

    def ListLayerVersions(self, call: Call) -> Answer:
        validate(("layerName", call.names[0], LAYER_NAME))
        return page(call, "LayerVersions", self._matching(call, call.names[0]))

    def ListLayers(self, call: Call) -> Answer:
        found = {}
        for name in list(self.layers[call.region]):
            if versions := self._matching(call, name):
                place = arn(call.region, f"layer:{name}")
                latest = versions[min(versions)]
                found[name] = {"LayerName": name, "LayerArn": place, "LatestMatchingVersion": latest}
        return page(call, "Layers", found)

    def GetLayerVersion(self, call: Call) -> Answer:
        return json_answer(self._facts(call.region, call.names[0], int(call.names[1])))

    def GetLayerVersionByArn(self, call: Call) -> Answer:
        validate(("arn", call.names[0], r"arn:[a-z-]+:lambda:[a-z0-9-]+:\d{12}:layer:[a-zA-Z0-9-_]+:[0-9]+"))
        region, account, _, name, number = call.names[0].split(":")[3:]
        if account != ACCOUNT:
            text = f"User: {CALLER} is not authorized to perform: lambda:GetLayerVersion on resource: {call.names[0]}"
            raise AwsError(403, "AccessDeniedException", f"{text} because no resource-based policy allows it")
        if region != call.region:
            raise AwsError(404, "ResourceNotFoundException", "The resource you requested does not exist.")
        return json_answer(self._facts(region, name, int(number)))

    def Download(self, call: Call) -> Answer:
        name, number = call.names
        return bytes_answer(call, self._version(call.region, name, int(number)).content, {})

    def DeleteLayerVersion(self, call: Call) -> Answer:
        name, number = call.names
        if int(number) < 1:
            raise invalid("Layer Version Cannot be less than 1")
        self.layers[call.region].get(name, {}).pop(int(number), None)
        return Answer(204)

    def GetLayerVersionPolicy(self, call: Call) -> Answer:
        version = self._version(call.region, call.names[0], int(call.names[1]))
        if not version.statements:
            raise AwsError(404, "ResourceNotFoundException", "No policy is associated with the given resource.")
        policy = {"Version": "2012-10-17", "Id": "default", "Statement": list(version.statements.values())}
        return json_answer({"Policy": json.dumps(policy, separators=(",", ":")), "RevisionId": version.revision})

    def AddLayerVersionPermission(self, call: Call) -> Answer:
        request = call.json()
        name, principal, organization = request["StatementId"], request["Principal"], request.get("OrganizationId")
        validate(
            ("action", request["Action"], "lambda:GetLayerVersion"),
            ("principal", principal, r"\d{12}|\*|arn:(aws[a-zA-Z-]*):iam::\d{12}:root"),
            ("organizationId", organization or "o-0123456789", "o-[a-z0-9]{10,32}"),
            ("statementId", name, "[a-zA-Z0-9-_]{1,100}"),
        )
        version = self._version(call.region, call.names[0], int(call.names[1]))
        self._check_revision(call, version)
        if name in version.statements:
            text = f"The statement id ({name}) provided already exists. Please provide a new statement id, or remove"
            raise AwsError(409, "ResourceConflictException", f"{text} the existing statement.")
        partition = arn(call.region, "").split(":")[1]
        root = f"arn:{partition}:iam::{principal}:root" if principal.isdigit() else principal
        statement = {
            "Sid": name,
            "Effect": "Allow",
            "Principal": "*" if principal == "*" else {"AWS": root},
            "Action": "lambda:GetLayerVersion",
            "Resource": version.facts["LayerVersionArn"],
        }
        if organization:
            statement["Condition"] = {"StringEquals": {"aws:PrincipalOrgID": organization}}
        version.statements[name], version.revision = statement, str(uuid.uuid4())
        told = json.dumps(statement, separators=(",", ":"))
        return json_answer({"Statement": told, "RevisionId": version.revision}, 201)

    def RemoveLayerVersionPermission(self, call: Call) -> Answer:
        version = self._version(call.region, call.names[0], int(call.names[1]))
        self._check_revision(call, version)
        if not version.statements.pop(call.names[2], None):
            text = f"Statement {call.names[2]} is not found in resource policy."
            raise AwsError(404, "ResourceNotFoundException", text)
        version.revision = str(uuid.uuid4())
        return Answer(204)

    def _check_revision(self, call: Call, version: LayerVersion) -> None:
        if call.query.get("RevisionId", version.revision) != version.revision:
            text = "The Revision Id provided does not match the latest Revision Id. Call the GetLayerPolicy API to"
            raise AwsError(412, "PreconditionFailedException", f"{text} retrieve the latest Revision Id")

    def ListFunctions(self, call: Call) -> Answer:
        every = call.query.get("FunctionVersion") == "ALL"
        functions = [
            {**function, "Layers": [{"Arn": layer, "CodeSize": 1} for layer in function.get("Layers", [])]}
            for function in self.functions.get(call.region, [])
            if every or function.get("Version", "$LATEST") == "$LATEST"
        ]
        return page(call, "Functions", dict(enumerate(functions)), 10_000)

    def GetCallerIdentity(self, call: Call) -> Answer:
        caller = f"<Arn>{CALLER}</Arn><UserId>AIDAFAKE</UserId><Account>{ACCOUNT}</Account>"
        result = f"<GetCallerIdentityResult>{caller}</GetCallerIdentityResult>"
        return xml_answer(f"<GetCallerIdentityResponse>{result}</GetCallerIdentityResponse>")

    def DescribeRegions(self, call: Call) -> Answer:
        told = "".join(
            f"<item><regionName>{name}</regionName><regionEndpoint>ec2.{name}.amazonaws.com</regionEndpoint>"
            "<optInStatus>opt-in-not-required</optInStatus></item>"
            for name in self.regions
        )
        return xml_answer(f"<DescribeRegionsResponse><regionInfo>{told}</regionInfo></DescribeRegionsResponse>")

    def PutParameter(self, call: Call) -> Answer:
        request, parameters = call.json(), self.parameters[call.region]
        name, old = request["Name"], parameters.get(request["Name"])
        if old and not request.get("Overwrite"):
            raise AwsError(400, "ParameterAlreadyExists", "The parameter already exists.")
        if request.get("Tags") and request.get("Overwrite"):
            raise AwsError(400, "ValidationException", "Invalid request: tags and overwrite can't be used together.")
        if not old and not request.get("Type"):
            raise AwsError(400, "ValidationException", "A parameter type is required when you create a parameter.")
        tags = {tag["Key"]: tag["Value"] for tag in request.get("Tags", [])}
        told = {key: value for key, value in request.items() if key in {"Value", "Type", "Description", "Tier"}}
        version = old["Version"] + 1 if old else 1
        parameters[name] = {"Tags": tags, **(old or {}), **told, "Version": version, "LastModifiedDate": time.time()}
        return json_answer({"Version": version, "Tier": parameters[name].get("Tier", "Standard")})

    def GetParameters(self, call: Call) -> Answer:
        names = call.json()["Names"]
        validate(("names", names, 10))
        place = arn(call.region, "parameter/", "ssm")
        usual = {"Type": "String", "Version": 1, "DataType": "text"}
        found = [
            {"Name": name, "ARN": place + name.lstrip("/"), **usual, **self.parameters[call.region][name]}
            for name in names
            if name in self.parameters[call.region]
        ]
        missing = [name for name in names if name not in self.parameters[call.region]]
        return json_answer({"Parameters": found, "InvalidParameters": missing})

    def AddTagsToResource(self, call: Call) -> Answer:
        request = call.json()
        parameter = self.parameters[call.region].get(request["ResourceId"])
        if request["ResourceType"] != "Parameter" or not parameter:
            raise AwsError(400, "InvalidResourceId", "The resource ID is not valid. Verify that you entered it.")
        parameter.setdefault("Tags", {}).update((tag["Key"], tag["Value"]) for tag in request["Tags"])
        return json_answer({})

    def HeadBucket(self, call: Call) -> Answer:
        return Answer(200, b"", {"x-amz-bucket-region": self.buckets[self._key(call)[0]]})

    def PutObject(self, call: Call) -> Answer:
        content = self._checked(call)
        if call.headers.get("If-None-Match") == "*" and self._key(call) in self.objects:
            text = "At least one of the pre-conditions you specified did not hold"
            raise AwsError(412, "PreconditionFailed", text)
        version = self._keep(self._key(call), content, call.kept)
        return Answer(200, b"", {"ETag": etag(content), **call.checksums, **version})

    def CreateMultipartUpload(self, call: Call) -> Answer:
        (bucket, key), name = self._key(call), secrets.token_hex(16)
        self.uploads[name] = Upload(bucket, key, call.kept)
        told = f"<Bucket>{bucket}</Bucket><Key>{escape(key)}</Key><UploadId>{name}</UploadId>"
        return xml_answer(f"<InitiateMultipartUploadResult>{told}</InitiateMultipartUploadResult>")

    def UploadPart(self, call: Call) -> Answer:
        content = self._checked(call)
        self._upload(call).parts[int(call.query["partNumber"])] = content
        return Answer(200, b"", {"ETag": etag(content), **call.checksums})

    def CompleteMultipartUpload(self, call: Call) -> Answer:
        upload, contents = self._upload(call), []
        for part in ElementTree.fromstring(call.read()).iterfind("{*}Part"):
            content = upload.parts.get(int(part.findtext("{*}PartNumber", "0")))
            if content is None or etag(content) != part.findtext("{*}ETag"):
                raise AwsError(400, "InvalidPart", "One or more of the specified parts could not be found.")
            contents.append(content)
        if any(len(content) < PART_MINIMUM for content in contents[:-1]):
            raise AwsError(400, "EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size")
        version = self._keep((upload.bucket, upload.key), b"".join(contents), upload.headers)
        del self.uploads[call.query["uploadId"]]
        told = f"<Bucket>{upload.bucket}</Bucket><Key>{escape(upload.key)}</Key><ETag>{etag(*contents)}</ETag>"
        text = f"<CompleteMultipartUploadResult>{told}</CompleteMultipartUploadResult>"
        return xml_answer(text, 200, version)

    def AbortMultipartUpload(self, call: Call) -> Answer:
        self._upload(call)
        del self.uploads[call.query["uploadId"]]
        return Answer(204)

    def GetObject(self, call: Call) -> Answer:
        key = self._key(call)
        content = self._object(*key, call.query.get("versionId"))
        version = call.query.get("versionId") or next(reversed(self._versions[key]), None)
        headers = {
            "ETag": etag(content),
            "Last-Modified": formatdate(usegmt=True),
            **self.object_headers.get(key, {}),
        }
        return bytes_answer(call, content, {**headers, **({"x-amz-version-id": version} if version else {})})

    HeadObject = GetObject

    def DeleteObject(self, call: Call) -> Answer:
        key, version = self._key(call), call.query.get("versionId")
        kept = self._versions[key]
        latest = next(reversed(kept), None)
        if not version or version == latest:
            self.objects.pop(key, None)
        if version and kept.pop(version, None) and version == latest and kept:
            self.objects[key] = kept[next(reversed(kept))]
        return Answer(204)

    def _key(self, call: Call) -> tuple[str, str]:
        bucket, key = call.names[0], "/".join(call.names[1:])
        region = self.buckets.get(bucket)
        if not region:
            raise AwsError(404, "NoSuchBucket", "The specified bucket does not exist")
        place = {"x-amz-bucket-region": region}
        if region != call.region:
            text = "The bucket you are attempting to access must be addressed using the specified endpoint."
            raise AwsError(301, "PermanentRedirect", text, place)
        if call.headers.get("x-amz-expected-bucket-owner", ACCOUNT) != ACCOUNT:
            raise AwsError(403, "AccessDenied", "Access Denied", place)
        return bucket, key

    def _checked(self, call: Call) -> bytes:
        content = call.read()
        for kind, digest in (
            ("crc32", zlib.crc32(content).to_bytes(4)),
            ("sha256", hashlib.sha256(content).digest()),
        ):
            actual = base64.b64encode(digest).decode()
            if call.checksums.setdefault(f"x-amz-checksum-{kind}", actual) != actual:
                text = f"The {kind.upper()} you specified did not match the calculated checksum."
                raise AwsError(400, "BadDigest", text)
        return content

    def _keep(self, key: tuple[str, str], content: bytes, headers: dict[str, str]) -> dict[str, str]:
        self.objects[key], self.object_headers[key] = content, headers
        if key[0] not in self.versioned:
            return {}
        version = secrets.token_urlsafe(24)
        self._versions[key][version] = content
        return {"x-amz-version-id": version}

    def _upload(self, call: Call) -> Upload:
        upload = self.uploads.get(call.query["uploadId"])
        if not upload or self._key(call) != (upload.bucket, upload.key):
            text = "The specified upload does not exist. The upload ID may be invalid, or the upload may have been"
            raise AwsError(404, "NoSuchUpload", f"{text} aborted or completed.")
        return upload

    def _object(self, bucket: str, key: str, version: str | None) -> bytes:
        if bucket not in self.buckets:
            raise AwsError(404, "NoSuchBucket", "The specified bucket does not exist")
        found = self._versions[bucket, key].get(version) if version else self.objects.get((bucket, key))
        if found is None:
            kind = "version" if version else "key"
            raise AwsError(404, f"NoSuch{kind.title()}", f"The specified {kind} does not exist.")
        return found


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: LoopbackServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.server.connections.add(self.connection)

    def finish(self) -> None:
        self.server.connections.discard(self.connection)
        super().finish()

    def __getattr__(self, name: str) -> Callable[[], None]:
        if name.startswith("do_"):
            return self.serve
        raise AttributeError(name)

    def serve(self) -> None:
        """Answers one request."""
        try:
            self.server.aws.answer(self)
        except ConnectionError:
            self.close_connection = True

    def log_message(self, *args: Any) -> None:
        pass


class LoopbackServer(ThreadingHTTPServer):
    """A server that is silent about connections that clients or faults close."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, aws: AwsServer) -> None:
        self.aws = aws
        self.connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


if __name__ == "__main__":
    started = AwsServer()
    started.buckets = dict(argument.split("=", 1) for argument in sys.argv[1:])
    sys.stdout.write(f"{started.url}\n")
    sys.stdout.flush()
    with suppress(KeyboardInterrupt):
        threading.Event().wait()
    started.stop()
