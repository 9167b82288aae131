"""The server that stands in for AWS: each behaviour through boto3's own clients."""

from __future__ import annotations

import base64
import hashlib
import http.client
import io
import json
import socket
import struct
import threading
import time
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
import requests
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tests.aws_server import UNZIPPED_LIMIT, ZIP_LIMIT, AwsServer

HOME, AWAY = "eu-west-1", "us-east-1"


def zip_of(**files: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


ZIP = zip_of(code="pass")


@pytest.fixture
def server() -> Iterator[AwsServer]:
    started = AwsServer()
    started.buckets = {"home": HOME, "away": AWAY}
    yield started
    started.stop()


def client(server: AwsServer, service: str, region: str = HOME, attempts: int = 1) -> Any:
    return boto3.client(
        service,
        region_name=region,
        endpoint_url=server.url,
        aws_access_key_id="FAKE",
        aws_secret_access_key="FAKE",
        config=Config(retries={"total_max_attempts": attempts, "mode": "standard"}, read_timeout=5),
    )


@pytest.fixture
def lambdas(server: AwsServer) -> Iterator[Any]:
    made = client(server, "lambda")
    yield made
    made.close()


@pytest.fixture
def s3(server: AwsServer) -> Iterator[Any]:
    made = client(server, "s3")
    yield made
    made.close()


def refusal(call: Any, **arguments: Any) -> tuple[int, str, str]:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    answer = caught.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"], answer["Error"]["Message"]


def publish(lambdas: Any, name: str = "web", **more: Any) -> Any:
    return lambdas.publish_layer_version(LayerName=name, Content={"ZipFile": ZIP}, **more)


def test_a_version_can_be_published_read_and_deleted_and_its_number_does_not_come_back(
    server: AwsServer, lambdas: Any
) -> None:
    made = publish(
        lambdas,
        Description="d",
        LicenseInfo="MIT",
        CompatibleRuntimes=["python3.12"],
        CompatibleArchitectures=["arm64"],
    )
    assert made["ResponseMetadata"]["HTTPStatusCode"] == 201
    assert made["LayerVersionArn"] == f"arn:aws:lambda:{HOME}:123456789012:layer:web:1"
    assert made["LayerArn"] == f"arn:aws:lambda:{HOME}:123456789012:layer:web"
    assert (made["Version"], made["Description"], made["LicenseInfo"]) == (1, "d", "MIT")
    assert made["Content"]["CodeSha256"] == base64.b64encode(hashlib.sha256(ZIP).digest()).decode()
    assert made["Content"]["CodeSize"] == len(ZIP)
    time.strptime(made["CreatedDate"].replace(made["CreatedDate"][19:23], ""), "%Y-%m-%dT%H:%M:%S%z")
    by_arn = lambdas.get_layer_version_by_arn(Arn=made["LayerVersionArn"])
    by_number = lambdas.get_layer_version(LayerName=made["LayerArn"], VersionNumber=1)
    same = ("CreatedDate", "LayerVersionArn", "CompatibleRuntimes", "CompatibleArchitectures")
    assert [by_arn[key] for key in same] == [by_number[key] for key in same] == [made[key] for key in same]
    for _ in range(2):
        answer = lambdas.delete_layer_version(LayerName="web", VersionNumber=1)
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 204
    missing = (404, "ResourceNotFoundException", "The resource you requested does not exist.")
    assert refusal(lambdas.get_layer_version, LayerName="web", VersionNumber=1) == missing
    assert refusal(lambdas.get_layer_version_by_arn, Arn=made["LayerVersionArn"]) == missing
    elsewhere = made["LayerVersionArn"].replace("123456789012", "210987654321")
    assert refusal(lambdas.get_layer_version_by_arn, Arn=elsewhere)[:2] == (403, "AccessDeniedException")
    assert refusal(lambdas.get_layer_version_by_arn, Arn=made["LayerArn"])[1] == "ValidationException"
    assert refusal(lambdas.get_layer_version, LayerName="web", VersionNumber=0)[1] == "InvalidParameterValueException"
    assert publish(lambdas)["Version"] == 2
    assert list(server.layers[HOME]["web"]) == [2]


def test_the_location_needs_its_query_only(server: AwsServer, lambdas: Any) -> None:
    place = publish(lambdas)["Content"]["Location"]
    assert "X-Amz-Security-Token=" in place
    assert "X-Amz-Signature=" in place
    assert requests.get(place, timeout=5).content == ZIP
    assert requests.get(place, timeout=5, headers={"Range": "bytes=2-5"}).content == ZIP[2:6]
    assert requests.get(place.split("?")[0], timeout=5).status_code == 403
    assert [call.resource for call in server.calls("Download", HOME)] == ["web:1", "web:1"]


@pytest.mark.parametrize(
    ("changed", "code", "message"),
    [
        ({"LayerName": "a b"}, "ValidationException", "'layerName' failed to satisfy constraint"),
        ({"LayerName": "a" * 141}, "ValidationException", "'layerName' failed to satisfy constraint"),
        ({"Description": "d" * 257}, "ValidationException", "length less than or equal to 256"),
        ({"LicenseInfo": "l" * 513}, "ValidationException", "length less than or equal to 512"),
        ({"CompatibleRuntimes": ["python3.7"]}, "ValidationException", "Value '[python3.7]' at 'compatibleRuntimes'"),
        ({"CompatibleRuntimes": ["python3.8"] * 16}, "ValidationException", "length less than or equal to 15"),
        ({"CompatibleArchitectures": ["arm64"] * 3}, "ValidationException", "length less than or equal to 2"),
        (
            {"LayerName": "!", "CompatibleArchitectures": ["y"]},
            "ValidationException",
            "2 validation errors detected: ",
        ),
        ({"Content": {"ZipFile": b"no"}}, "InvalidParameterValueException", "Could not unzip uploaded file."),
        ({"Content": {"ZipFile": zip_of()}}, "InvalidParameterValueException", "must be a non-empty zip"),
        (
            {"Content": {"S3Bucket": "away", "S3Key": "k"}},
            "InvalidParameterValueException",
            "S3 Error Code: PermanentRedirect. S3 Error Message: The bucket is in this region: us-east-1. Please use",
        ),
        (
            {"Content": {"S3Bucket": "home", "S3Key": "k"}},
            "InvalidParameterValueException",
            "GetObject. S3 Error Code: NoSuchKey. S3 Error Message: The specified key does not exist.",
        ),
        ({"Content": {"S3Bucket": "none", "S3Key": "k"}}, "InvalidParameterValueException", "NoSuchBucket"),
    ],
)
def test_what_publishing_refuses(lambdas: Any, changed: dict[str, Any], code: str, message: str) -> None:
    arguments = {"LayerName": "web", "Content": {"ZipFile": ZIP}, **changed}
    found = refusal(lambdas.publish_layer_version, **arguments)
    assert found[:2] == (400, code)
    assert message in found[2]


def test_sizes_are_limited(server: AwsServer, lambdas: Any) -> None:
    def grown(size: int) -> bytes:
        """A zip whose directory says that its file is of a size."""
        at = ZIP.index(b"PK\x01\x02") + 24
        return ZIP[:at] + struct.pack("<I", size) + ZIP[at + 4 :]

    def published(content: bytes) -> tuple[int, str, str]:
        return refusal(lambdas.publish_layer_version, LayerName="web", Content={"ZipFile": content})

    large = (400, "InvalidParameterValueException", "Unzipped size must be smaller than 262144000 bytes")
    assert published(grown(UNZIPPED_LIMIT)) == large
    inline = (413, "RequestEntityTooLargeException", "Zipped size must be smaller than 52428800 bytes")
    assert published(bytes(ZIP_LIMIT)) == inline
    assert published(bytes(ZIP_LIMIT - 1))[0] == 400
    request = "Request must be smaller than 70167211 bytes for the PublishLayerVersion operation"
    assert published(bytes(ZIP_LIMIT + 300_000)) == (413, "RequestEntityTooLargeException", request)
    content = {"ZipFile": grown(UNZIPPED_LIMIT - 1)}
    assert lambdas.publish_layer_version(LayerName="web", Content=content)["Version"] == 1


def test_lists_come_in_pages_newest_first_and_filtered(server: AwsServer, lambdas: Any) -> None:
    assert lambdas.list_layer_versions(LayerName="none")["LayerVersions"] == []
    for number in range(53):
        publish(lambdas, CompatibleRuntimes=["python3.12"] if number % 2 else [])
    publish(lambdas, "other", CompatibleArchitectures=["arm64"])
    first = lambdas.list_layer_versions(LayerName="web")
    assert [version["Version"] for version in first["LayerVersions"]] == list(range(53, 3, -1))
    assert "Content" not in first["LayerVersions"][0]
    publish(lambdas)
    rest = lambdas.list_layer_versions(LayerName="web", Marker=first["NextMarker"])
    assert [version["Version"] for version in rest["LayerVersions"]] == [3, 2, 1]
    assert "NextMarker" not in rest
    filtered = lambdas.list_layer_versions(LayerName="web", CompatibleRuntime="python3.12", MaxItems=2)
    assert [version["Version"] for version in filtered["LayerVersions"]] == [52, 50]
    assert refusal(lambdas.list_layer_versions, LayerName="web", MaxItems=51)[1] == "ValidationException"
    assert refusal(lambdas.list_layer_versions, LayerName="web", CompatibleRuntime="x")[1] == "ValidationException"
    layers = lambdas.list_layers()["Layers"]
    assert [(layer["LayerName"], layer["LatestMatchingVersion"]["Version"]) for layer in layers] == [
        ("other", 1),
        ("web", 54),
    ]
    assert len(lambdas.list_layers(CompatibleArchitecture="arm64")["Layers"]) == 1
    away = client(server, "lambda", AWAY)
    assert away.list_layers()["Layers"] == []
    away.close()


def test_a_policy_has_statements_and_a_revision(lambdas: Any) -> None:
    arn = publish(lambdas)["LayerVersionArn"]
    version = {"LayerName": "web", "VersionNumber": 1}
    grant = {**version, "Action": "lambda:GetLayerVersion"}
    nothing = (404, "ResourceNotFoundException", "No policy is associated with the given resource.")
    assert refusal(lambdas.get_layer_version_policy, **version) == nothing
    added = lambdas.add_layer_version_permission(**grant, StatementId="all", Principal="*")
    common = {"Effect": "Allow", "Action": "lambda:GetLayerVersion", "Resource": arn}
    assert json.loads(added["Statement"]) == {"Sid": "all", "Principal": "*", **common}
    second = {**grant, "StatementId": "one", "Principal": "210987654321"}
    stale = refusal(lambdas.add_layer_version_permission, **second, RevisionId="stale")
    assert stale[:2] == (412, "PreconditionFailedException")
    lambdas.add_layer_version_permission(**second, RevisionId=added["RevisionId"])
    assert refusal(lambdas.add_layer_version_permission, **second)[:2] == (409, "ResourceConflictException")
    organization = "o-abcdefghij"
    lambdas.add_layer_version_permission(**grant, StatementId="org", Principal="*", OrganizationId=organization)
    policy = lambdas.get_layer_version_policy(**version)
    assert json.loads(policy["Policy"]) == {
        "Version": "2012-10-17",
        "Id": "default",
        "Statement": [
            {"Sid": "all", "Principal": "*", **common},
            {"Sid": "one", "Principal": {"AWS": "arn:aws:iam::210987654321:root"}, **common},
            {
                "Sid": "org",
                "Principal": "*",
                **common,
                "Condition": {"StringEquals": {"aws:PrincipalOrgID": organization}},
            },
        ],
    }
    missing = {**grant, "VersionNumber": 2, "StatementId": "all", "Principal": "*"}
    assert refusal(lambdas.add_layer_version_permission, **missing)[2] == f"Layer version {arn[:-1]}2 does not exist."
    lambdas.remove_layer_version_permission(**version, StatementId="one", RevisionId=policy["RevisionId"])
    assert refusal(lambdas.remove_layer_version_permission, **version, StatementId="one")[0] == 404
    bad = {**grant, "Action": "lambda:*", "Principal": "me", "StatementId": "a b"}
    assert refusal(lambdas.add_layer_version_permission, **bad)[2].startswith("3 validation errors detected")


def test_functions_are_those_that_the_test_set(server: AwsServer, lambdas: Any) -> None:
    server.functions[HOME] = [
        {"FunctionName": f"f{number}", "Version": version, "Layers": ["a:1"]}
        for number in range(30)
        for version in ("$LATEST", "1")
    ]
    first = lambdas.list_functions(FunctionVersion="ALL", MaxItems=1000)
    assert len(first["Functions"]) == 50
    assert first["Functions"][0]["Layers"][0]["Arn"] == "a:1"
    assert len(lambdas.list_functions(FunctionVersion="ALL", Marker=first["NextMarker"])["Functions"]) == 10
    assert len(lambdas.list_functions()["Functions"]) == 30


def test_who_and_where(server: AwsServer) -> None:
    sts, ec2 = client(server, "sts", AWAY), client(server, "ec2")
    assert sts.get_caller_identity()["Arn"] == "arn:aws:iam::123456789012:user/tester"
    assert [region["RegionName"] for region in ec2.describe_regions()["Regions"]] == server.regions
    for operation, call in (
        ("GetCallerIdentity", sts.get_caller_identity),
        ("DescribeRegions", ec2.describe_regions),
    ):
        server.fault(operation, status=403, error="AccessDenied", message="no & never")
        assert refusal(call) == (403, "AccessDenied", "no & never")
    assert [(call.region, call.service) for call in server.calls("GetCallerIdentity")] == [(AWAY, "sts")] * 2
    sts.close()
    ec2.close()


def test_parameters(server: AwsServer) -> None:
    ssm = client(server, "ssm")
    tags = [{"Key": "k", "Value": "v"}]
    made = ssm.put_parameter(Name="/layers/web", Value="1", Type="String", Tags=tags)
    assert (made["Version"], made["Tier"]) == (1, "Standard")
    assert refusal(ssm.put_parameter, Name="/layers/web", Value="2")[:2] == (400, "ParameterAlreadyExists")
    both = {"Name": "/layers/web", "Value": "2", "Overwrite": True, "Tags": tags}
    assert refusal(ssm.put_parameter, **both)[1] == "ValidationException"
    assert refusal(ssm.put_parameter, Name="/new", Value="2")[1] == "ValidationException"
    assert ssm.put_parameter(Name="/layers/web", Value="2", Overwrite=True)["Version"] == 2
    ssm.add_tags_to_resource(ResourceType="Parameter", ResourceId="/layers/web", Tags=[{"Key": "l", "Value": "w"}])
    assert server.parameters[HOME]["/layers/web"]["Tags"] == {"k": "v", "l": "w"}
    server.parameters[HOME]["seeded"] = {"Value": "3"}
    assert ssm.get_parameters(Names=["seeded"])["Parameters"][0]["Value"] == "3"
    found = ssm.get_parameters(Names=["/layers/web", "/none"])
    assert found["InvalidParameters"] == ["/none"]
    parameter = found["Parameters"][0]
    assert (parameter["Value"], parameter["Type"], parameter["Version"]) == ("2", "String", 2)
    assert parameter["ARN"] == f"arn:aws:ssm:{HOME}:123456789012:parameter/layers/web"
    assert refusal(ssm.add_tags_to_resource, ResourceType="Parameter", ResourceId="/none", Tags=tags)[0] == 400
    assert refusal(ssm.get_parameters, Names=list("abcdefghijk"))[1] == "ValidationException"
    ssm.close()


def test_objects(server: AwsServer, lambdas: Any, s3: Any) -> None:
    server.versioned.add("home")
    key = "a b/ü+&.zip"
    place = {"Bucket": "home", "Key": key}
    put = s3.put_object(**place, Body=ZIP, Metadata={"a": "b"}, Tagging="c=d", ExpectedBucketOwner="123456789012")
    assert server.objects == {("home", key): ZIP}
    assert server.object_headers["home", key] == {"x-amz-meta-a": "b", "x-amz-tagging": "c=d"}
    head = s3.head_object(**place)
    assert (head["ContentLength"], head["Metadata"], head["ETag"]) == (len(ZIP), {"a": "b"}, put["ETag"])
    assert head["VersionId"] == put["VersionId"]
    assert refusal(s3.put_object, **place, Body=b"other", IfNoneMatch="*")[:2] == (412, "PreconditionFailed")
    second = s3.put_object(**place, Body=b"no zip", ChecksumAlgorithm="SHA256")
    content = {"S3Bucket": "home", "S3Key": key, "S3ObjectVersion": put["VersionId"]}
    made = lambdas.publish_layer_version(LayerName="web", Content=content)
    assert made["Content"]["CodeSize"] == len(ZIP)
    content["S3ObjectVersion"] = "none"
    assert "NoSuchVersion" in refusal(lambdas.publish_layer_version, LayerName="web", Content=content)[2]
    assert s3.get_object(**place)["Body"].read() == b"no zip"
    s3.delete_object(**place, VersionId=second["VersionId"])
    assert s3.get_object(**place)["Body"].read() == ZIP
    s3.delete_object(**place)
    assert refusal(s3.get_object, **place)[:2] == (404, "NoSuchKey")
    assert refusal(s3.head_object, **place)[:2] == (404, "404")
    assert refusal(s3.put_object, Bucket="none", Key=key)[:2] == (404, "NoSuchBucket")
    assert refusal(s3.put_object, **place, ChecksumSHA256="AA==")[:2] == (400, "BadDigest")
    denied = refusal(s3.put_object, **place, Body=b"", ExpectedBucketOwner="000000000000")
    assert denied == (403, "AccessDenied", "Access Denied")


def test_a_bucket_elsewhere_redirects(server: AwsServer, s3: Any) -> None:
    assert s3.head_bucket(Bucket="home")["BucketRegion"] == HOME
    assert s3.head_bucket(Bucket="away")["BucketRegion"] == AWAY
    assert [call.region for call in server.calls("HeadBucket")] == [HOME, HOME, AWAY]
    signed = {"Authorization": f"AWS4-HMAC-SHA256 Credential=FAKE/20260102/{HOME}/s3/aws4_request, Signature=00"}
    answer = requests.put(f"{server.url}/away/key", data=b"", headers=signed, timeout=5, allow_redirects=False)
    assert (answer.status_code, answer.headers["x-amz-bucket-region"]) == (301, AWAY)
    assert "<Code>PermanentRedirect</Code>" in answer.text


def test_uploads_in_parts(server: AwsServer, s3: Any) -> None:
    content = bytes(range(256)) * 60_000
    config = TransferConfig(multipart_threshold=1 << 20, multipart_chunksize=6 << 20)
    s3.upload_fileobj(io.BytesIO(content), "home", "key", ExtraArgs={"ChecksumAlgorithm": "SHA256"}, Config=config)
    assert server.objects["home", "key"] == content
    assert (len(server.calls("UploadPart")), server.uploads) == (3, {})
    target = io.BytesIO()
    s3.download_fileobj("home", "key", target, Config=config)
    assert target.getvalue() == content
    begun = {"Bucket": "home", "Key": "k", "UploadId": s3.create_multipart_upload(Bucket="home", Key="k")["UploadId"]}
    tags = [s3.upload_part(**begun, PartNumber=part, Body=b"small")["ETag"] for part in (1, 2)]
    parts = [{"PartNumber": number, "ETag": tag} for number, tag in enumerate(tags, 1)]
    small = refusal(s3.complete_multipart_upload, **begun, MultipartUpload={"Parts": parts})
    assert small[:2] == (400, "EntityTooSmall")
    parts[1]["ETag"] = '"other"'
    assert refusal(s3.complete_multipart_upload, **begun, MultipartUpload={"Parts": parts})[1] == "InvalidPart"
    assert list(server.uploads) == [begun["UploadId"]]
    s3.abort_multipart_upload(**begun)
    assert server.uploads == {}
    assert refusal(s3.upload_part, **begun, PartNumber=1, Body=b"")[:2] == (404, "NoSuchUpload")


@pytest.mark.parametrize("good", [True, False])
def test_bodies_in_chunks_with_a_trailer(server: AwsServer, good: bool) -> None:
    checksum = base64.b64encode(struct.pack(">I", zlib.crc32(b"hello world"))).decode() if good else "AAAAAA=="
    body = f"5\r\nhello\r\n6;chunk-signature=00\r\n world\r\n0\r\nx-amz-checksum-crc32:{checksum}\r\n\r\n".encode()
    headers = {
        "Authorization": f"AWS4-HMAC-SHA256 Credential=FAKE/20260102/{HOME}/s3/aws4_request, Signature=00",
        "Content-Encoding": "aws-chunked",
        "X-Amz-Trailer": "x-amz-checksum-crc32",
    }
    for data in (body, iter([body[:9], body[9:]])):
        answer = requests.put(f"{server.url}/home/key", data=data, headers=headers, timeout=5)
        assert answer.status_code == (200 if good else 400)
        assert server.objects.get(("home", "key")) == (b"hello world" if good else None)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"status": 429, "headers": {"Retry-After": "7"}}, (429, "TooManyRequestsException", "")),
        ({"status": 500}, (500, "ServiceException", "")),
        ({"status": 503, "error": "ServiceUnavailable"}, (503, "ServiceUnavailable", "")),
        (
            {"error": "ExpiredTokenException", "message": "expired"},
            (403, "ExpiredTokenException", "expired"),
        ),
        ({"status": 403, "message": "User: x"}, (403, "AccessDeniedException", "User: x")),
    ],
)
def test_faults_that_answer(server: AwsServer, lambdas: Any, fault: Any, expected: tuple[int, str, str]) -> None:
    added = server.fault("PublishLayerVersion", region=HOME, after=1, times=2, **fault)
    assert publish(lambdas)["Version"] == 1
    with pytest.raises(ClientError) as caught:
        publish(lambdas)
    headers = caught.value.response["ResponseMetadata"]["HTTPHeaders"]
    assert {name.lower(): value for name, value in fault.get("headers", {}).items()}.items() <= headers.items()
    assert refusal(publish, lambdas=lambdas) == expected
    assert publish(lambdas)["Version"] == 2
    assert (added.times, len(server.calls("PublishLayerVersion", HOME))) == (0, 4)


def test_faults_that_do_not_answer(server: AwsServer, lambdas: Any) -> None:
    server.fault("PublishLayerVersion", cut=10)
    server.fault("PublishLayerVersion", lose_answer=True)
    server.fault("PublishLayerVersion", hang=0.05)
    for expected in (0, 1, 1):
        with pytest.raises(BotoCoreError):
            publish(lambdas)
        assert len(server.layers[HOME]["web"]) == expected
    server.fault("PublishLayerVersion", delay=0.2)
    server.delay = 0.1
    start = time.monotonic()
    assert publish(lambdas)["Version"] == 2
    assert time.monotonic() - start >= 0.3


def test_a_cut_resets_the_connection(server: AwsServer) -> None:
    server.fault("*", cut=9)
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"))
    connection.request("GET", "/")
    with pytest.raises(ConnectionResetError):
        connection.getresponse()
    connection.close()


def test_a_request_that_is_not_whole_changes_nothing(server: AwsServer) -> None:
    port = int(server.url.rpartition(":")[2])
    scope = f"Authorization: Credential=FAKE/20260102/{HOME}/s3/aws4_request"
    with socket.create_connection(("127.0.0.1", port)) as raw:
        raw.sendall(f"PUT /home/key HTTP/1.1\r\n{scope}\r\nContent-Length: 10\r\n\r\nhalf".encode())
        raw.shutdown(socket.SHUT_WR)
        assert raw.recv(100) == b""
    assert server.objects == {}


def test_stopping_ends_what_hangs(server: AwsServer) -> None:
    server.fault("GetCallerIdentity", hang=60)
    sts = client(server, "sts")
    thread = threading.Timer(0.2, server.stopping.set)
    thread.start()
    start = time.monotonic()
    with pytest.raises(BotoCoreError):
        sts.get_caller_identity()
    assert time.monotonic() - start < 5
    sts.close()
    thread.join()


def test_hooks_see_the_moment(server: AwsServer, lambdas: Any) -> None:
    seen: list[tuple[str, int]] = []
    server.before(
        "PublishLayerVersion", lambda request: seen.append((request.resource, len(server.layers[HOME]["web"])))
    )
    server.after("*", lambda request: seen.append((request.operation, len(server.layers[HOME]["web"]))))
    publish(lambdas)
    assert seen == [("web", 0), ("PublishLayerVersion", 1)]


def test_rates_are_measured_and_limited(server: AwsServer, lambdas: Any) -> None:
    server.limit = 5
    for _ in range(5):
        lambdas.list_layers()
    assert refusal(lambdas.list_layers) == (429, "TooManyRequestsException", "Rate exceeded")
    assert (server.rate(HOME), server.rate(AWAY)) == (6, 0)
    away = client(server, "lambda", AWAY)
    away.list_layers()
    away.close()
    time.sleep(1.05)
    lambdas.list_layers()
    assert server.rate(HOME) == 6
    patient = client(server, "lambda", attempts=8)
    for _ in range(8):
        patient.list_layers()
    patient.close()


def test_many_clients_at_once_get_numbers_of_their_own(server: AwsServer) -> None:
    found: list[int] = []

    def work() -> None:
        mine = client(server, "lambda")
        found.extend(publish(mine)["Version"] for _ in range(5))
        mine.close()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(1, 41))
