"""For tests of publishing: layers made in milliseconds without an index, credentials of nobody, and moto as AWS.

Fixtures have functions of other names, so that tests can import them.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import jsonschema
import pytest

from layerbuild.archive import Manifest, source_date, write_archive
from layerbuild.layer import Place, compose
from layerbuild.recipe import Prune
from layerbuild.target import default_targets, select_targets
from layerbuild.wheel import Wheel, read_facts, wheel_from_facts
from tests.aws_server import ACCOUNT, Call, Request
from tests.conftest import Ran
from tests.running import wait_until
from tests.wheels import make_wheel, sha256_of

TARGET = "python3.13-x86_64"
HOME = "eu-west-1"


def made_layer(
    folder: Path,
    recipe: str,
    target: str = TARGET,
    *,
    packages: Mapping[str, str] | None = None,
    files: Mapping[str, str | bytes] | None = None,
    size: int = 0,
    licence: str = "MIT",
) -> Manifest:
    """Writes ``dist/<recipe>-<target>.zip`` and its manifest, as `layerbuild make` does.

    Args:
        folder: of the project.
        recipe: whose layer it is; it need not exist.
        target: a target's name, or ``any`` for a layer that serves all of them.
        packages: name to version; by default one that is called as the recipe is.
        files: of the first package, besides its module; path to content.
        size: bytes of a further file of the first package, which cannot be compressed.
        licence: of each package.
    """
    packages = packages or {recipe: "1.0"}
    digest = "sha256:" + hashlib.sha256(repr((recipe, target, packages, files, size)).encode()).hexdigest()
    shared = target == "any"
    targets = default_targets() if shared else select_targets([target])
    place = Place.shared() if shared else Place.versioned(targets[0].runtime.version)
    path = folder / "dist" / f"{recipe}-{target}.zip"
    path.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as wheels:
        more: dict[str, str | bytes] = dict(files or {})
        if size:
            more[f"{recipe.replace('-', '_')}_data/random.bin"] = random.Random(size).randbytes(size)
        found = []
        for name, version in packages.items():
            found.append(_wheel(Path(wheels), name, version, more, licence))
            more = {}
        layer = compose(found, place, prune=Prune())
        written = write_archive(layer.files, path, epoch=source_date())
    manifest = Manifest.of(
        layer,
        written,
        recipe=recipe,
        target=target,
        runtimes=list(dict.fromkeys(one.runtime.name for one in targets)),
        architectures=list(dict.fromkeys(one.arch for one in targets)),
        archive=path.name,
        lock_digest=digest,
        inputs_digest=digest,
        smoke={"status": "none"},
        bytecode=None,
    )
    manifest.write(path.with_suffix(".json"))
    return manifest


def _wheel(folder: Path, name: str, version: str, files: Mapping[str, str | bytes], licence: str) -> Wheel:
    module = name.replace("-", "_")
    contents = {f"{module}.py": f'VERSION = "{version}"\n', **files}
    metadata = f"License-Expression: {licence}\n" if licence else ""
    path = make_wheel(folder, name, version, contents, metadata=metadata, compression=zipfile.ZIP_STORED)
    return wheel_from_facts(read_facts(path, path.name), sha256=sha256_of(path), filename=path.name, path=path)


def pretend_to_have_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes out of the environment all that AWS's tools read from it, and gives them credentials of nobody."""
    for name in list(os.environ):
        if name.startswith("AWS_") or name == "BOTO_CONFIG":
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-a-secret-but-an-example")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def fake_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """See `pretend_to_have_credentials`."""
    pretend_to_have_credentials(monkeypatch)


class Moto:
    """moto's server in a process of its own, behind a proxy that notes each request.

    Attributes:
        url: of the proxy, for layerbuild; `direct` is moto's own, for a test's questions, which are not noted.
        requests: what came to the proxy, in order.
    """

    def __init__(self, folder: Path) -> None:
        log = folder / "moto.log"
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("COV_", "COVERAGE"))}
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment
            )
        self.requests: list[Request] = []
        self._proxy: _Proxy | None = None
        try:
            wait_until(lambda: b"Running on http://127.0.0.1:" in log.read_bytes(), 60)
            self.port = int(re.findall(r"http://127\.0\.0\.1:(\d+)", log.read_text())[0])
            self.direct = f"http://127.0.0.1:{self.port}"
            self.reset()
            self._proxy = _Proxy(("127.0.0.1", 0), type("Handler", (_Noting,), {"moto": self}))
            self._thread = threading.Thread(target=self._proxy.serve_forever, kwargs={"poll_interval": 0.05})
            self._thread.start()
            self.url = f"http://127.0.0.1:{self._proxy.server_address[1]}"
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends both."""
        if self._proxy:
            self._proxy.shutdown()
            self._proxy.server_close()
            self._thread.join()
        self._process.terminate()
        self._process.wait(30)

    def reset(self) -> None:
        """Nothing is there any more, and nothing was asked."""
        assert self.ask("POST", "/moto-api/reset")[0] == 200
        self.requests.clear()

    def ask(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        """Status, headers and body of moto's answer to a request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def client(self, service: str, region: str = "eu-west-1") -> Any:
        """boto's client that speaks to moto itself."""
        return boto3.client(service, region_name=region, endpoint_url=self.direct)

    def calls(self, *operations: str) -> list[Request]:
        """The requests of some operations, as far as layerbuild sent them."""
        return [seen for seen in self.requests if seen.operation in operations]


class _Proxy(ThreadingHTTPServer):
    request_queue_size = 128


class _Noting(BaseHTTPRequestHandler):
    """Passes requests on to moto."""

    moto: Moto
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _pass_on(self) -> None:
        call = Call(self)
        self.moto.requests.append(call.request)
        body = self.rfile.read(call.length) if call.body is None else call.body
        if call.operation == "AddLayerVersionPermission":
            # moto knows it by the name that it has where functions are shared.
            body = body.replace(b'"OrganizationId"', b'"PrincipalOrgID"')
        given = {name: value for name, value in self.headers.items() if name.lower() not in _OF_ONE_CONNECTION}
        status, headers, content = self.moto.ask(self.command, self.path, body, given)
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in _OF_ONE_CONNECTION or (name == "Content-Length" and self.command == "HEAD"):
                self.send_header(name, value)
        if self.command != "HEAD" and status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on  # noqa: N815 - names of http.server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        pass


_OF_ONE_CONNECTION = {"connection", "content-length", "transfer-encoding", "expect"}


@pytest.fixture(name="moto", scope="module")
def moto_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moto]:
    """One server for the tests of a module."""
    found = Moto(tmp_path_factory.mktemp("moto"))
    yield found
    found.stop()


@pytest.fixture(name="shop")
def shop_fixture(
    project: Path, cli: Callable[..., Ran], moto: Moto, monkeypatch: pytest.MonkeyPatch, fake_credentials: None
) -> Shop:
    """A project that publishes to an empty moto."""
    moto.reset()
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto.url)
    found = Shop(project, cli, moto)
    found.settings()
    return found


@dataclass(frozen=True)
class Shop:
    """A project that publishes to moto, in one region unless it says otherwise."""

    folder: Path
    cli: Callable[..., Ran]
    moto: Moto

    def settings(self, text: str = "", regions: Sequence[str] = (HOME,)) -> None:
        """Writes layerbuild.toml."""
        (self.folder / "layerbuild.toml").write_text(f"[publish]\nregion = {json.dumps(list(regions))}\n{text}")

    def make(self, recipe: str, target: str = TARGET, **given: Any) -> dict[str, Any]:
        """The manifest of a layer that is made; see `made_layer`."""
        return made_layer(self.folder, recipe, target, **given).data

    def run(self, *arguments: str | Path, code: int = 0) -> Ran:
        """Runs a command; what was asked before is forgotten."""
        self.moto.requests.clear()
        ran = self.cli(*arguments)
        assert ran.code == code, ran
        return ran

    def publish(self, *arguments: str, code: int = 0) -> dict[tuple[str, str], dict[str, Any]]:
        """The steps of a run by layer and region; of several the first, which is that of the release."""
        found = self.run("publish", "--json", *arguments, code=code).json
        jsonschema.validate(found, publish_schema(plan="--plan" in arguments))
        assert sum(found["summary"].values()) == len(found["steps"])
        return {(step["layer"], step["region"]): step for step in reversed(found["steps"])}

    @property
    def catalogue(self) -> dict[str, Any]:
        """What catalogue.json holds."""
        return dict(json.loads((self.folder / "catalogue.json").read_bytes()))

    def current(self, name: str, region: str = HOME) -> dict[str, Any]:
        """The catalogue's row of a layer's current version."""
        rows = [row for row in self.catalogue["versions"] if (row["name"], row["region"]) == (name, region)]
        (row,) = [row for row in rows if row["current"]]
        return dict(row)

    def held(self, *regions: str) -> dict[tuple[str, str, int], dict[str, Any]]:
        """Every version of every layer that moto has, by region, name and number."""
        found: dict[tuple[str, str, int], dict[str, Any]] = {}

        def look(region: str) -> None:
            client = self.moto.client("lambda", region)
            for name in [layer["LayerName"] for layer in client.list_layers()["Layers"]]:
                for row in client.list_layer_versions(LayerName=name)["LayerVersions"]:
                    more = client.get_layer_version(LayerName=name, VersionNumber=row["Version"])
                    found[region, name, row["Version"]] = {**row, "Content": more["Content"]}
            client.close()

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(look, regions or [HOME]))
        return found

    def policy(self, name: str, version: int, region: str = HOME) -> dict[str, tuple[Any, Any]]:
        """The statements of a version's policy: who is allowed, and on what condition."""
        client = self.moto.client("lambda", region)
        try:
            answer = client.get_layer_version_policy(LayerName=name, VersionNumber=version)
        except client.exceptions.ResourceNotFoundException:
            return {}
        finally:
            client.close()
        found = json.loads(answer["Policy"])["Statement"]
        assert {one["Action"] for one in found} <= {"lambda:GetLayerVersion"}
        return {one["Sid"]: (one["Principal"], one.get("Condition")) for one in found}

    def files(self) -> dict[str, bytes]:
        """All files of the project."""
        return {str(path): path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}


def _object(properties: Mapping[str, Any], optional: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The schema of an object that has these properties, and no others."""
    known = {**properties, **(optional or {})}
    return {"type": "object", "properties": known, "required": list(properties), "additionalProperties": False}


def _list(items: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "array", "items": items, **more}


def publish_schema(*, plan: bool) -> dict[str, Any]:
    """The schema of what `publish --json` prints, by docs/json.md."""
    text, maybe, number = {"type": "string"}, {"type": ["string", "null"]}, {"type": "integer"}
    grants = _list({"pattern": r"^(public|account:[0-9]{12}|organization:o-[a-z0-9]{10,32}|statement:.+)$"})
    action = {"enum": ["create", "record", "share", "skip", "blocked", "failed"]}
    error = _object({"code": text, "what": text, "causes": _list(text), "hint": maybe, "exit_code": number})
    step = {
        **dict.fromkeys(("layer", "recipe", "target", "account", "region"), text),
        "action": action,
        "version": {"type": ["integer", "null"]},
        "bucket": maybe,
        **dict.fromkeys(("share_with", "unshare"), grants),
        **dict.fromkeys(("drift", "reasons"), _list(text)),
        "error": {"anyOf": [error, {"type": "null"}]},
    }
    done = {"status": {"enum": ["done", "failed", "not done"]}, "arn": maybe, "published_twice": _list(number)}
    summary = {"type": "object", "propertyNames": action, "additionalProperties": number}
    return _object({"account": text, "summary": summary, "steps": _list(_object(step if plan else step | done))})


# Calls whose IAM action has another name, by the Service Authorization Reference.
_ACTIONS = {
    "HeadBucket": ["ListBucket"],
    "HeadObject": ["GetObject"],
    "CreateMultipartUpload": ["PutObject", "PutObjectTagging"],
    "UploadPart": ["PutObject"],
    "CompleteMultipartUpload": ["PutObject"],
}
_STATEMENT = _object(
    {
        "Sid": {"pattern": "^[A-Za-z0-9]+$"},
        "Effect": {"const": "Allow"},
        "Action": _list({"pattern": "^[a-z0-9]+:[A-Za-z]+$"}, minItems=1, uniqueItems=True),
        "Resource": _list({"pattern": r"^(\*|arn:aws:[a-z0-9]+:[^:]*:[^:]*:.+)$"}, minItems=1, uniqueItems=True),
    },
    {"Condition": {"type": "object"}},
)
_POLICY = _object({"Version": {"const": "2012-10-17"}, "Statement": _list(_STATEMENT, minItems=1)})


def refused(policy: Mapping[str, Any], called: Sequence[Request]) -> list[str]:
    """What an IAM policy, which has to be a valid one, does not allow of the calls that were made."""
    jsonschema.validate(policy, _POLICY)
    statements = policy["Statement"]
    assert len({one["Sid"] for one in statements}) == len(statements)
    found = set()
    for seen in called:
        place = {
            "lambda": f"arn:aws:lambda:{seen.region}:{ACCOUNT}:layer:{seen.resource}",
            "s3": f"arn:aws:s3:::{seen.resource}",
            "ssm": f"arn:aws:ssm:{seen.region}:{ACCOUNT}:parameter{seen.resource or '/layerbuild/several'}",
        }.get(seen.service, "*")
        if seen.operation == "ListFunctions":
            place = "*"
        for name in _ACTIONS.get(seen.operation, [seen.operation]):
            action = f"{seen.service}:{name}"
            allowed = [arn for one in statements if action in one["Action"] for arn in one["Resource"]]
            if not any(fnmatchcase(place, arn) for arn in allowed) and action != "sts:GetCallerIdentity":
                found.add(f"{action} on {place}")
    return sorted(found)
