"""`layerbuild publish` against an AWS that misbehaves: never a second version, never a secret, and what it says."""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from layerbuild.publish.release import mark
from tests.aws_server import ACCOUNT, Answer, AwsError, AwsServer, Call, LayerVersion, Request
from tests.conftest import Ran
from tests.publishing import TARGET, made_layer, pretend_to_have_credentials

REGIONS = ("eu-west-1", "us-east-1", "us-west-2")
HOME = REGIONS[0]
NOW = {"Retry-After": "0"}
FOREVER = float("inf")
CHANGING = ("PublishLayerVersion", "AddLayerVersionPermission")
PAGE = b"<!DOCTYPE html><html><body>Welcome to this network</body></html>"
GARBLED = ("cut off", "a page of a proxy", "empty JSON")


def words(server: AwsServer, regions: Sequence[str] = REGIONS) -> list[str]:
    """What each command is told of the server and the regions."""
    return ["--endpoint-url", server.url, *(word for region in regions for word in ("--region", region))]


def no_bug(ran: Ran) -> None:
    assert "Traceback" not in ran.err, ran
    assert "internal-error" not in ran.err + ran.out, ran


def rows(folder: Path) -> list[dict[str, Any]]:
    """The versions in the catalogue."""
    path = folder / "catalogue.json"
    return list(json.loads(path.read_text())["versions"]) if path.exists() else []


def held(server: AwsServer) -> dict[tuple[str, str], list[int]]:
    """The numbers of the versions that the server has, by region and layer."""
    return {
        (region, name): sorted(versions)
        for region, layers in server.layers.items()
        for name, versions in layers.items()
        if versions
    }


def grants(version: LayerVersion) -> list[str]:
    found = []
    for statement in version.statements.values():
        principal = statement["Principal"]
        found.append("public" if principal == "*" else f"account:{principal['AWS'].split(':')[4]}")
    return sorted(found)


def agree(server: AwsServer, folder: Path, *, every: bool = True, shared: Sequence[str] = ("public",)) -> None:
    """The catalogue says what the server has: versions, hashes, grants; all of them, or those that it knows."""
    there = {}
    for (region, name), numbers in held(server).items():
        for number in numbers:
            version = server.layers[region][name][number]
            digest = base64.b64encode(hashlib.sha256(version.content).digest()).decode()
            there[region, name, number] = (digest, len(version.content), version.facts["LayerVersionArn"])
            assert grants(version) == list(shared), (region, name, number)
    here = {
        (row["region"], row["name"], row["version"]): (row["code_sha256"], row["size"], row["arn"])
        for row in rows(folder)
    }
    assert {key: there.get(key) for key in here} == here
    assert not every or here.keys() == there.keys()
    assert all(row["shared"] == list(shared) for row in rows(folder))
    assert max(Counter((row["region"], row["name"]) for row in rows(folder) if row["current"]).values()) == 1


def named(recipe: str = "demo") -> str:
    return f"{recipe}-python313-x86_64"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsServer]:
    pretend_to_have_credentials(monkeypatch)
    started = AwsServer()
    yield started
    started.stop()


Publish = Callable[..., Ran]


@pytest.fixture
def publish(cli: Callable[..., Ran], project: Path, server: AwsServer) -> Publish:
    """Publishes what is in dist/, in this process."""

    def call(*more: str, regions: Sequence[str] = (HOME,), code: int = 0, public: bool = True) -> Ran:
        ran = cli("publish", *words(server, regions), *(["--public"] if public else []), *more)
        no_bug(ran)
        assert ran.code == code, ran
        return ran

    return call


def once(publish: Publish, server: AwsServer, project: Path, regions: Sequence[str] = (HOME,)) -> None:
    """Each layer is there once, and another run has nothing to do."""
    assert {tuple(numbers) for numbers in held(server).values()} == {(1,)}
    agree(server, project)
    seen = len(server.requests)
    publish(regions=regions)
    assert {call.operation for call in server.requests[seen:]} == {"GetCallerIdentity", "ListLayerVersions"}


# --- answers that are lost


def after_the_work(server: AwsServer, status: int = 500) -> None:
    """The next PublishLayerVersion does its work and answers an error."""
    left = [AwsError(status, "ServiceException", "", NOW)]

    def fail(_: Request) -> None:
        if left:
            raise left.pop()

    server.after("PublishLayerVersion", fail)


LOST: dict[str, dict[str, Any]] = {
    "answer lost": {"lose_answer": True},
    "cut before the body": {"cut": 0},
    "cut in the middle of the body": {"cut": 100_000},
    "cut twice": {"cut": 100_000, "times": 2},
    "read time-out, done": {"hang": 4, "lose_answer": True},
    "read time-out, not done": {"hang": 4},
}


@pytest.mark.parametrize("how", LOST)
def test_a_request_whose_answer_is_lost_makes_one_version(
    publish: Publish, server: AwsServer, project: Path, how: str
) -> None:
    made_layer(project, "demo", size=200_000)
    server.fault("PublishLayerVersion", **LOST[how])
    publish("--timeout", "1")
    once(publish, server, project)


@pytest.mark.parametrize("status", [500, 503])
@pytest.mark.parametrize("done", [True, False], ids=["done", "not done"])
def test_a_server_error_makes_one_version_whether_the_work_was_done_or_not(
    publish: Publish, server: AwsServer, project: Path, status: int, done: bool
) -> None:
    made_layer(project, "demo")
    if done:
        after_the_work(server, status)
    else:
        server.fault("PublishLayerVersion", status=status, times=2, headers=NOW)
    publish()
    assert len(server.calls("PublishLayerVersion")) == (1 if done else 3)
    once(publish, server, project)


def garbled(monkeypatch: pytest.MonkeyPatch, server: AwsServer, operation: str, how: str) -> None:
    """The next answer to an operation, which is carried out, is not what it should be."""
    work, left = getattr(server, operation), [how]

    def answer(call: Call) -> Answer:
        whole: Answer = work(call)
        match left.pop() if left else "":
            case "cut off":
                headers = {"Content-Length": str(len(whole.body)), "Connection": "close"}
                return Answer(whole.status, whole.body[:-20], headers)
            case "a page of a proxy":
                return Answer(200, PAGE, {"Content-Type": "text/html"})
            case "empty JSON":
                return Answer(200, b"{}", {"Content-Type": "application/json"})
        return whole

    monkeypatch.setattr(server, operation, answer)


@pytest.mark.parametrize("how", GARBLED)
def test_an_answer_that_cannot_be_read_is_made_good_by_the_next_run(
    publish: Publish, server: AwsServer, project: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    garbled(monkeypatch, server, "PublishLayerVersion", how)
    made_layer(project, "demo")
    publish(code=5)
    publish()
    once(publish, server, project)


@pytest.mark.parametrize("how", GARBLED)
def test_a_listing_that_cannot_be_read_is_not_one_of_no_versions(
    publish: Publish, server: AwsServer, project: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    made_layer(project, "demo")
    publish()
    garbled(monkeypatch, server, "ListLayerVersions", how)
    before = rows(project)
    publish(code=5)
    assert rows(project) == before
    once(publish, server, project)


def test_an_answer_and_a_listing_may_be_lost_at_once(publish: Publish, server: AwsServer, project: Path) -> None:
    made_layer(project, "demo")
    after_the_work(server)
    listing = server.fault("ListLayerVersions", after=1, times=6, status=500, headers=NOW)
    ran = publish(code=5)
    assert "lambda:ListLayerVersions" in ran.err
    assert (held(server), listing.times, rows(project)) == ({(HOME, named()): [1]}, 0, [])
    assert "record" in publish().out
    once(publish, server, project)


def test_force_makes_one_more_version_if_it_is_not_told(publish: Publish, server: AwsServer, project: Path) -> None:
    made_layer(project, "demo")
    publish()
    after_the_work(server)
    publish("--force")
    assert held(server) == {(HOME, named()): [1, 2]}
    agree(server, project)


def foreign(server: AwsServer, description: str, content: bytes) -> int:
    """Someone else publishes the same layer."""

    class Theirs:
        region, names, length = HOME, [named()], 0

        def json(self) -> dict[str, Any]:
            zipped = base64.b64encode(content).decode()
            return {"Description": description, "Content": {"ZipFile": zipped}}

    with server.lock:
        return int(json.loads(server.PublishLayerVersion(Theirs()).body)["Version"])  # type: ignore[arg-type]


def test_what_someone_else_publishes_meanwhile_is_not_deleted(
    publish: Publish, server: AwsServer, project: Path, tmp_path: Path
) -> None:
    made_layer(project, "demo")
    other = tmp_path / "other"
    other.mkdir()
    made_layer(other, "demo", files={"another.py": ""})
    content = (other / f"dist/demo-{TARGET}.zip").read_bytes()
    # The same content by its digest, whose bytecode another CPython has compiled.
    description = f"demo 1.0 {mark_of(project)}"
    server.after("ListLayerVersions", lambda _: held(server) or foreign(server, description, content))
    server.fault("PublishLayerVersion", status=500, headers=NOW)
    assert "has this content already, in other bytes" in publish().err
    once(publish, server, project)


def mark_of(project: Path, recipe: str = "demo") -> str:
    return mark(json.loads((project / f"dist/{recipe}-{TARGET}.json").read_text())["content_digest"])


def test_a_request_that_is_done_late_makes_one_version(publish: Publish, server: AwsServer, project: Path) -> None:
    made_layer(project, "demo")
    slow = [3.5]
    server.before("PublishLayerVersion", lambda _: time.sleep(slow.pop() if slow else 0))
    publish("--timeout", "1")
    time.sleep(2)
    once(publish, server, project)


# --- refusals

# Operation to its IAM action, and a run that needs it.
ACTIONS = {
    "GetCallerIdentity": "sts:GetCallerIdentity",
    "DescribeRegions": "ec2:DescribeRegions",
    "ListLayerVersions": "lambda:ListLayerVersions",
    "PublishLayerVersion": "lambda:PublishLayerVersion",
    "AddLayerVersionPermission": "lambda:AddLayerVersionPermission",
    "GetLayerVersionPolicy": "lambda:GetLayerVersionPolicy",
    "GetLayerVersion": "lambda:GetLayerVersion",
    "RemoveLayerVersionPermission": "lambda:RemoveLayerVersionPermission",
    "DeleteLayerVersion": "lambda:DeleteLayerVersion",
    "ListFunctions": "lambda:ListFunctions",
    "GetLayerVersionByArn": "lambda:GetLayerVersion",
}
LATER = ("GetLayerVersion", "RemoveLayerVersionPermission", "DeleteLayerVersion", "ListFunctions")


@pytest.fixture
def asking(publish: Publish, cli: Callable[..., Ran], server: AwsServer, project: Path) -> Callable[[str], Ran]:
    """Prepares a run that asks for an operation, and returns what does it."""

    def call(operation: str) -> Ran:
        if operation in ("DeleteLayerVersion", "ListFunctions"):
            ran = cli("prune", *words(server, [HOME]), "--keep", "1", "--min-age", "0", "--yes")
        elif operation == "GetLayerVersionByArn":
            arn = f"arn:aws:lambda:{HOME}:{ACCOUNT}:layer:{named()}:1"
            ran = cli("verify", arn, "--endpoint-url", server.url)
        else:
            regions = ["all"] if operation == "DescribeRegions" else [HOME]
            public = [] if operation == "RemoveLayerVersionPermission" else ["--public"]
            ran = cli("publish", *words(server, regions), *public)
        no_bug(ran)
        return ran

    return call


def ready_for(operation: str, publish: Publish, server: AwsServer, project: Path) -> None:
    """Such a state that the operation is asked for."""
    made_layer(project, "demo")
    server.regions = [HOME]
    if operation in (*LATER, "GetLayerVersionByArn"):
        publish()
    if operation in ("DeleteLayerVersion", "ListFunctions"):
        made_layer(project, "demo", packages={"demo": "2.0"})
        publish()
    if operation == "GetLayerVersion":
        (project / "catalogue.json").unlink()
    server.requests.clear()


@pytest.mark.parametrize("operation", ACTIONS)
def test_an_action_that_is_not_allowed_is_named(
    publish: Publish, asking: Callable[[str], Ran], server: AwsServer, project: Path, operation: str
) -> None:
    ready_for(operation, publish, server, project)
    code = "UnauthorizedOperation" if operation == "DescribeRegions" else "AccessDenied"
    code += "" if operation in ("GetCallerIdentity", "DescribeRegions") else "Exception"
    server.fault(operation, status=403, error=code, times=FOREVER, message="User: tester is not authorized")
    ran = asking(operation)
    early = operation in ("GetCallerIdentity", "DescribeRegions", "GetLayerVersionByArn")
    assert ran.code == (4 if early else 5), ran
    assert ACTIONS[operation] in ran.err
    assert len(server.calls(operation)) == 1


@pytest.mark.parametrize("operation", ACTIONS)
def test_what_is_refused_for_its_rate_or_fails_is_asked_again(
    publish: Publish, asking: Callable[[str], Ran], server: AwsServer, project: Path, operation: str
) -> None:
    ready_for(operation, publish, server, project)
    error = {"DescribeRegions": "RequestLimitExceeded", "GetCallerIdentity": "Throttling"}.get(operation)
    status = {"DescribeRegions": 503, "GetCallerIdentity": 400}.get(operation, 429)
    server.fault(operation, status=status, error=error, headers={"Retry-After": "1"})
    server.fault(operation, status=500, headers=NOW)
    ran = asking(operation)
    assert ran.code == (2 if operation == "GetLayerVersionByArn" else 0), ran
    first, second, third = server.calls(operation)[:3]
    assert second.time - first.time > 0.95
    assert third.time - second.time < 0.9
    assert {tuple(numbers) for numbers in held(server).values()} <= {(1,), (2,)}


@pytest.mark.parametrize("operation", [name for name in ACTIONS if name != "PublishLayerVersion"])
def test_what_is_not_answered_is_asked_again(
    publish: Publish, asking: Callable[[str], Ran], server: AwsServer, project: Path, operation: str
) -> None:
    ready_for(operation, publish, server, project)
    server.fault(operation, lose_answer=True)
    ran = asking(operation)
    assert ran.code == (2 if operation == "GetLayerVersionByArn" else 0), ran
    assert len(server.calls(operation)) >= 2
    assert {tuple(numbers) for numbers in held(server).values()} <= {(1,), (2,)}


def test_each_refusal_is_followed_by_a_longer_wait(publish: Publish, server: AwsServer, project: Path) -> None:
    made_layer(project, "demo")
    server.fault("PublishLayerVersion", status=429)
    server.fault("PublishLayerVersion", status=429, headers={"Retry-After": "Wed, 21 Oct 2035 07:28:00 GMT"})
    publish()
    times = [call.time for call in server.calls("PublishLayerVersion")]
    assert 0.45 < times[1] - times[0] < 1.5
    assert 0.95 < times[2] - times[1] < 2.5
    once(publish, server, project)


def test_who_is_refused_for_ever_is_told_and_what_is_done_is_recorded(
    publish: Publish, server: AwsServer, project: Path
) -> None:
    made_layer(project, "demo")
    server.fault("AddLayerVersionPermission", status=429, times=FOREVER, headers=NOW)
    assert "AWS refuses more requests in eu-west-1" in publish(code=5).err
    assert len(rows(project)) == 1
    server._faults.clear()
    publish()
    once(publish, server, project)


@pytest.mark.parametrize("limit", [15, 6])
def test_the_rate_that_lambda_takes_is_kept_or_found(
    publish: Publish, server: AwsServer, project: Path, limit: int
) -> None:
    for number in range(limit // 2):
        made_layer(project, f"demo{number}")
    server.limit = limit
    publish(regions=REGIONS[:2])
    assert all(0 < server.rate(region) <= 15 for region in REGIONS[:2])
    once(publish, server, project, REGIONS[:2])


@pytest.mark.parametrize("operation", ["*", "AddLayerVersionPermission"])
def test_a_region_that_always_fails_leaves_the_others_alone(
    publish: Publish, server: AwsServer, project: Path, operation: str
) -> None:
    for name in ("one", "two"):
        made_layer(project, name)
    server.fault(operation, region=REGIONS[2], status=500, times=FOREVER, headers=NOW)
    ran = publish(code=5, regions=REGIONS)
    assert "us-west-2" in ran.err
    assert "run the same command again" in ran.err
    assert {region for region, _ in held(server)} >= set(REGIONS[:2])
    assert {row["region"] for row in rows(project) if row["shared"]} == set(REGIONS[:2])
    server._faults.clear()
    seen = len(server.requests)
    publish(regions=REGIONS)
    changed = [call for call in server.requests[seen:] if call.operation in CHANGING]
    assert {call.region for call in changed} == {REGIONS[2]}
    once(publish, server, project, REGIONS)


# --- silence


def test_a_region_that_does_not_answer_holds_up_no_other(publish: Publish, server: AwsServer, project: Path) -> None:
    for name in ("one", "two"):
        made_layer(project, name)
    server.fault("PublishLayerVersion", region=REGIONS[2], hang=60, times=FOREVER)
    ran = publish("--timeout", "0.5", code=5, regions=REGIONS)
    ended = time.monotonic()
    assert "AWS does not answer in us-west-2" in ran.err
    assert max(call.time for call in server.requests if call.region in REGIONS[:2]) < ended - 2
    assert {region for region, _ in held(server)} == set(REGIONS[:2])


@pytest.mark.parametrize("fault", [{"hang": 60}, {"cut": 0}], ids=["hangs", "cuts"])
def test_a_region_that_never_answers_anything_is_named(
    publish: Publish, server: AwsServer, project: Path, fault: dict[str, Any]
) -> None:
    for number in range(6):
        made_layer(project, f"demo{number}")
    server.fault("*", region=REGIONS[2], times=FOREVER, **fault)
    began = time.monotonic()
    ran = publish("--timeout", "0.5", code=5, regions=REGIONS)
    assert time.monotonic() - began < 10  # three attempts of the first four, and none of the others
    assert "AWS does not answer in us-west-2" in ran.err
    assert {region for region, _ in held(server)} == set(REGIONS[:2])
    assert len([call for call in server.requests if call.region == REGIONS[2]]) <= 12


# --- what is not AWS

STRANGE = {
    "a page": Answer(200, PAGE),
    "empty JSON": Answer(200, b"{}"),
    "nothing": Answer(),
    "a page that is not found": Answer(404, PAGE),
    "a page that is forbidden": Answer(403, PAGE),
    "a page of a gateway": Answer(502, PAGE, NOW),
    "a login": Answer(302, PAGE, {"Location": "http://127.0.0.1:9/login"}),
}


@pytest.mark.parametrize("how", STRANGE)
def test_an_endpoint_that_is_not_aws_is_told(
    publish: Publish, server: AwsServer, project: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    made_layer(project, "demo")
    monkeypatch.setattr(server, "_answer", lambda *_, **__: STRANGE[how])
    assert "sts:GetCallerIdentity" in publish(code=4).err


MISREADS = (b"null", b"[]", b"\xff", b'{"LayerVersions": "x"}')


@pytest.mark.parametrize("body", [*MISREADS, b'{"LayerVersions": [{}]}'])
def test_a_listing_that_is_not_lambdas_is_told(
    publish: Publish, server: AwsServer, project: Path, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    made_layer(project, "demo")
    monkeypatch.setattr(server, "ListLayerVersions", lambda _: Answer(200, body))
    publish(code=5)


# --- credentials


@pytest.mark.parametrize("after", [1, 5, 12, 24])
def test_credentials_that_expire_on_the_way_are_told_and_the_next_run_goes_on(
    publish: Publish, server: AwsServer, project: Path, after: int
) -> None:
    for name in ("one", "two"):
        made_layer(project, name)
    error = {"error": "ExpiredTokenException", "status": 403, "message": "The security token has expired"}
    server.fault("*", after=after, times=FOREVER, **error)
    ran = publish(code=5, regions=REGIONS)
    assert "the AWS credentials have expired" in ran.err
    assert len(server.requests) - after <= 4 * len(REGIONS)  # what was under way; no region is asked again
    server._faults.clear()
    publish(regions=REGIONS)
    once(publish, server, project, REGIONS)


@pytest.mark.parametrize("operation", ["ListLayerVersions", "PublishLayerVersion"])
def test_who_has_to_log_in_again_is_told_so(
    publish: Publish, server: AwsServer, project: Path, operation: str
) -> None:
    made_layer(project, "demo")
    server.fault(operation, times=FOREVER, error="ExpiredTokenException")
    assert "log in again" in publish(code=5).err


def test_credentials_that_have_expired_already_are_told(publish: Publish, server: AwsServer, project: Path) -> None:
    made_layer(project, "demo")
    server.fault("GetCallerIdentity", times=FOREVER, status=403, error="ExpiredToken")
    assert "log in again" in publish(code=4).err
    assert len(server.requests) == 1


def test_a_region_that_is_not_enabled_is_named(publish: Publish, server: AwsServer, project: Path) -> None:
    made_layer(project, "demo")
    refusal = "The security token included in the request is invalid."
    server.fault(
        "*", region=REGIONS[2], times=FOREVER, status=403, error="UnrecognizedClientException", message=refusal
    )
    ran = publish(code=5, regions=REGIONS)
    assert "AWS does not know these credentials in us-west-2" in ran.err
    assert {region for region, _ in held(server)} == set(REGIONS[:2])


@pytest.mark.parametrize(
    ("variables", "arguments"),
    [
        ({"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, []),
        ({"AWS_SECRET_ACCESS_KEY": None}, []),
        ({}, ["--profile", "nobody"]),
        ({"AWS_PROFILE": "nobody", "AWS_ACCESS_KEY_ID": None}, []),
        ({"AWS_CONFIG_FILE": "broken"}, []),
    ],
    ids=["none", "half", "no such profile", "no such AWS_PROFILE", "broken configuration"],
)
def test_without_credentials_nothing_is_asked(
    publish: Publish,
    server: AwsServer,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: Mapping[str, str | None],
    arguments: list[str],
) -> None:
    made_layer(project, "demo")
    (project / "broken").write_text("[profile\n")
    for name, value in variables.items():
        monkeypatch.delenv(name, raising=False)
        if value:
            monkeypatch.setenv(name, value)
    assert "there are no AWS credentials" in publish(*arguments, code=4).err
    assert server.requests == []


@pytest.mark.parametrize("end", ["sys.exit('log in first')", "expires = '2020-01-01T00:00:00Z'"])
@pytest.mark.parametrize("after", [1, 4])
def test_credentials_that_cannot_be_renewed_are_told(
    publish: Publish, server: AwsServer, project: Path, monkeypatch: pytest.MonkeyPatch, end: str, after: int
) -> None:
    made_layer(project, "demo")
    (project / "renew.py").write_text(f"""\
import datetime, json, pathlib, sys
count = pathlib.Path("count")
count.write_text(str(int(count.read_text()) + 1 if count.exists() else 1))
expires = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=60)).isoformat()
if int(count.read_text()) > {after}:
    {end}
keys = {{"AccessKeyId": "AKIA", "SecretAccessKey": "none", "SessionToken": "none"}}
print(json.dumps({{"Version": 1, **keys, "Expiration": expires}}))
""")
    (project / "config").write_text(f"[profile renewed]\ncredential_process = {sys.executable} renew.py\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", "config")
    ran = publish("--profile", "renewed", code=5 if after > 1 else 4)
    assert "credentials" in ran.err


# --- policies, and what is not what was sent


@pytest.mark.parametrize(
    "theirs", [{}, {"Principal": {"AWS": "arn:aws:iam::210987654321:root"}}], ids=["same", "other"]
)
def test_a_statement_that_is_there_already_is_fine_if_it_is_the_same(
    publish: Publish, server: AwsServer, project: Path, theirs: dict[str, Any]
) -> None:
    def share(_: Request) -> None:
        same = {"Sid": "layerbuild-public", "Effect": "Allow", "Principal": "*", "Action": "lambda:GetLayerVersion"}
        server.layers[HOME][named()][1].statements["layerbuild-public"] = {**same, **theirs}

    made_layer(project, "demo")
    server.before("AddLayerVersionPermission", share)
    for _ in range(2):
        ran = publish(code=5 if theirs else 0)
        assert not theirs or "The statement id (layerbuild-public) provided already exists" in ran.err
        assert [row["shared"] for row in rows(project)] == [[] if theirs else ["public"]]
    assert held(server) == {(HOME, named()): [1]}


def test_a_policy_that_does_not_hold_what_was_set_is_told(publish: Publish, server: AwsServer, project: Path) -> None:
    made_layer(project, "demo")
    server.after("AddLayerVersionPermission", lambda _: server.layers[HOME][named()][1].statements.clear())
    assert "is not what was asked for" in publish(code=5).err
    assert [row["shared"] for row in rows(project)] == [[]]


def test_what_aws_made_something_else_of_is_deleted_again(
    publish: Publish, server: AwsServer, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_layer(project, "demo")
    content, broken = server._content, [b"more"]
    monkeypatch.setattr(server, "_content", lambda *given: content(*given) + (broken.pop() if broken else b""))
    assert "is something else" in publish(code=5).err
    assert (held(server), rows(project)) == ({}, [])
    publish()
    assert held(server) == {(HOME, named()): [2]}
    agree(server, project)


def test_what_could_not_be_deleted_again_is_told(
    publish: Publish, server: AwsServer, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_layer(project, "demo")
    content = server._content
    monkeypatch.setattr(server, "_content", lambda *given: content(*given) + b"more")
    server.fault("DeleteLayerVersion", status=403)
    assert "delete version 1 by hand" in publish(code=5).err


def test_prune_does_what_it_can_and_the_rest_the_next_time(
    publish: Publish, cli: Callable[..., Ran], server: AwsServer, project: Path
) -> None:
    for version in ("1.0", "2.0"):
        made_layer(project, "demo", packages={"demo": version})
        publish(regions=REGIONS[:2])
    prune = ("prune", *words(server, REGIONS[:2]), "--keep", "1", "--min-age", "0", "--yes")
    for operation in ("ListLayerVersions", "DeleteLayerVersion"):
        fault = server.fault(operation, region=REGIONS[1], status=500, times=FOREVER, headers=NOW)
        ran = cli(*prune)
        no_bug(ran)
        assert (ran.code, "us-east-1" in ran.err, "prune-incomplete" in ran.err) == (5, True, True)
        fault.times = 0
        assert held(server) == {(HOME, named()): [2], (REGIONS[1], named()): [1, 2]}
        agree(server, project)
    assert cli(*prune).code == 0
    assert held(server) == {(HOME, named()): [2], (REGIONS[1], named()): [2]}
    agree(server, project)
