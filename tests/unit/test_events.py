from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote_plus, urlsplit

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerbuild.cli.events import complete_event, parameter_values
from layerbuild.errors import UsageError
from layerbuild.sandbox.events import EventKind, Parameter, event_kinds, sample_event
from tests.conftest import Ran

KINDS = {kind.name: kind for kind in event_kinds()}
EVERY_PARAMETER = [(kind, parameter) for kind in event_kinds() for parameter in kind.parameters]
TEXTS = [(kind, parameter) for kind, parameter in EVERY_PARAMETER if parameter.kind == "text"]
HOSTILE = [
    'a "quoted" \\ text',
    "lines\nand\r\ntabs\t and \x00",
    "grüße ☃ 🙂",
    "{{key}} {{body|md5}} {{gzip}} {{ {{region}} }}",
    "}}{{",
    "%2B+%20&=#?/",
    "'''",
    "",
]


def named(value: Any) -> str:
    return value.name if isinstance(value, EventKind | Parameter) else str(value)


def texts(value: Any) -> Iterator[str]:
    """All strings of an event that are values, those that it packs included."""
    if isinstance(value, dict):
        for item in value.values():
            yield from texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)
    elif isinstance(value, str):
        yield value


def unpacked(name: str, **values: str) -> Any:
    """An event with what it encodes decoded."""
    event = sample_event(name, {key.replace("_", "-"): value for key, value in values.items()})
    if name == "cloudwatch-logs":
        return json.loads(gzip.decompress(base64.b64decode(event["awslogs"]["data"])))
    if name == "kinesis":
        record = event["Records"][0]["kinesis"]
        record["data"] = base64.b64decode(record["data"]).decode()
    return event


def at(value: Any, path: str) -> Any:
    for step in path.split("/"):
        value = value[int(step)] if step.isdigit() else value[step]
    return value


def test_the_kinds_are_these_in_order() -> None:
    assert list(KINDS) == (
        "alb api-gateway cloudwatch-logs cognito-pre-signup dynamodb-stream eventbridge function-url http-api "
        "kinesis s3-batch s3-delete s3-put schedule sns sqs".split()
    )


@pytest.mark.parametrize("kind", event_kinds(), ids=named)
def test_every_kind_says_what_it_is_and_has_an_event_without_placeholders(kind: EventKind) -> None:
    assert kind.summary
    assert "\n" not in kind.summary
    assert re.fullmatch(r"https://docs\.aws\.amazon\.com/\S+\.html", kind.source)
    assert all(parameter.description for parameter in kind.parameters)
    event = sample_event(kind.name)
    assert json.loads(json.dumps(event)) == event
    assert not [text for text in texts(unpacked(kind.name)) if "{{" in text or "}}" in text]


@pytest.mark.parametrize("kind", event_kinds(), ids=named)
def test_an_event_is_the_same_each_time_and_no_two_share_anything(kind: EventKind) -> None:
    first = sample_event(kind.name)
    assert sample_event(kind.name) == first
    first.clear()
    assert sample_event(kind.name)


# What a parameter of each kind is set to, where it shows as it is, and where it shows in another form.
ANOTHER = {
    "account": "210987654321",
    "detail": '{"other": [1, null]}',
    "integer": "70000000000",
    "method": "PATCH",
    "object": '{"other": [1, null]}',
    "path": "/other/1",
    "region": "eu-central-2",
    "text": "other 1",
    "time": "2031-12-31T23:59:59Z",
}
HTTP = {"path": "path", "method": "httpMethod", "body": "body"}
HTTP_2 = {"path": "rawPath", "method": "requestContext/http/method", "query": "rawQueryString", "body": "body"}
SHOWN = {
    "alb": HTTP,
    "api-gateway": HTTP | {"account": "requestContext/accountId"},
    "cloudwatch-logs": {
        "account": "owner",
        "group": "logGroup",
        "stream": "logStream",
        "filter": "subscriptionFilters/0",
        "message": "logEvents/0/message",
    },
    "cognito-pre-signup": {
        "region": "region",
        "client": "callerContext/clientId",
        "user": "userName",
        "email": "request/userAttributes/email",
    },
    "dynamodb-stream": {
        "region": "Records/2/awsRegion",
        "id": "Records/0/dynamodb/Keys/id/S",
        "message": "Records/1/dynamodb/NewImage/message/S",
        "old-message": "Records/1/dynamodb/OldImage/message/S",
    },
    "eventbridge": {name: name for name in ("region", "account", "source", "detail-type", "time")},
    "function-url": HTTP_2,
    "http-api": HTTP_2 | {"account": "requestContext/accountId"},
    "kinesis": {
        "region": "Records/0/awsRegion",
        "key": "Records/0/kinesis/partitionKey",
        "data": "Records/0/kinesis/data",
    },
    "s3-batch": {"version": "tasks/0/s3VersionId"},
    "s3-delete": {"region": "Records/0/awsRegion", "bucket": "Records/0/s3/bucket/name"},
    "s3-put": {"region": "Records/0/awsRegion", "bucket": "Records/0/s3/bucket/name"},
    "schedule": {"region": "region", "account": "account", "time": "time"},
    "sns": {"message": "Records/0/Sns/Message", "subject": "Records/0/Sns/Subject"},
    "sqs": {"region": "Records/0/awsRegion", "body": "Records/0/body"},
}
IN_PARTS = {
    ("alb", "region"): ("headers/host", "example-1234567890.eu-central-2.elb.amazonaws.com"),
    ("alb", "account"): ("requestContext/elb/targetGroupArn", ":210987654321:"),
    ("alb", "query"): ("queryStringParameters", {"other 1": ""}),
    ("api-gateway", "region"): ("requestContext/domainName", "abcdef1234.execute-api.eu-central-2.amazonaws.com"),
    ("api-gateway", "query"): ("queryStringParameters", {"other 1": ""}),
    ("cognito-pre-signup", "pool"): ("userPoolId", "us-east-1_other 1"),
    ("dynamodb-stream", "account"): ("Records/1/eventSourceARN", ":210987654321:"),
    ("dynamodb-stream", "table"): ("Records/1/eventSourceARN", ":table/other 1/stream/"),
    ("eventbridge", "detail"): ("detail", {"other": [1, None]}),
    ("function-url", "region"): ("headers/host", ".lambda-url.eu-central-2.on.aws"),
    ("http-api", "region"): ("headers/host", "abcdef1234.execute-api.eu-central-2.amazonaws.com"),
    ("kinesis", "account"): ("Records/0/invokeIdentityArn", "arn:aws:iam::210987654321:role/"),
    ("kinesis", "stream"): ("Records/0/eventSourceARN", ":stream/other 1"),
    ("s3-batch", "bucket"): ("tasks/0/s3BucketArn", "arn:aws:s3:::other 1"),
    ("s3-batch", "key"): ("tasks/0/s3Key", "other+1"),
    ("s3-delete", "key"): ("Records/0/s3/object/key", "other+1"),
    ("s3-put", "key"): ("Records/0/s3/object/key", "other+1"),
    ("s3-put", "size"): ("Records/0/s3/object/size", 70_000_000_000),
    ("schedule", "rule"): ("resources/0", ":rule/other 1"),
    ("sns", "region"): ("Records/0/Sns/SigningCertUrl", "https://sns.eu-central-2.amazonaws.com/"),
    ("sns", "account"): ("Records/0/EventSubscriptionArn", ":210987654321:"),
    ("sns", "topic"): ("Records/0/Sns/TopicArn", ":other 1"),
    ("sqs", "account"): ("Records/0/eventSourceARN", ":210987654321:"),
    ("sqs", "queue"): ("Records/0/eventSourceARN", ":other 1"),
}


@pytest.mark.parametrize(("kind", "parameter"), EVERY_PARAMETER, ids=named)
def test_every_parameter_changes_what_it_should(kind: EventKind, parameter: Parameter) -> None:
    value = ANOTHER[parameter.kind]
    event = unpacked(kind.name, **{parameter.name: value})
    if parameter.name in SHOWN[kind.name]:
        assert at(event, SHOWN[kind.name][parameter.name]) == value
    elif (kind.name, parameter.name) == ("s3-batch", "region"):
        assert sample_event("s3-batch", {"region": "cn-north-1"}) != sample_event("s3-batch")
    else:
        path, expected = IN_PARTS[kind.name, parameter.name]
        found = at(event, path)
        assert expected in found if isinstance(expected, str) else found == expected
    if (kind.name, parameter.name) != ("s3-batch", "region"):
        assert event != unpacked(kind.name)


@pytest.mark.parametrize(("kind", "parameter"), EVERY_PARAMETER, ids=named)
def test_a_default_that_is_given_changes_nothing(kind: EventKind, parameter: Parameter) -> None:
    assert sample_event(kind.name, {parameter.name: parameter.default}) == sample_event(kind.name)


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize(("kind", "parameter"), TEXTS, ids=named)
def test_any_text_comes_through_unharmed(kind: EventKind, parameter: Parameter, value: str) -> None:
    event = unpacked(kind.name, **{parameter.name: value})
    assert json.loads(json.dumps(event)) == event
    if value and parameter.name in SHOWN[kind.name]:
        assert at(event, SHOWN[kind.name][parameter.name]) == value
    elif value and parameter.name == "key":
        assert value in [unquote_plus(text) for text in texts(event)]
    elif value and parameter.name != "query":
        assert any(value in text for text in texts(event))


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_is_the_body_of_a_message(text: str) -> None:
    record = sample_event("sqs", {"body": text})["Records"][0]
    assert record["body"] == text
    assert record["md5OfBody"] == hashlib.md5(text.encode()).hexdigest()


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_key_is_encoded_so_that_a_handler_finds_it_again(key: str) -> None:
    for name, path in [("s3-put", "Records/0/s3/object/key"), ("s3-batch", "tasks/0/s3Key")]:
        encoded = at(sample_event(name, {"key": key}), path)
        assert encoded.isascii()
        assert unquote_plus(encoded) == key


def test_a_key_is_encoded_as_s3_does() -> None:
    event = sample_event("s3-put", {"key": "2024/red flower+1=ü.png"})
    assert at(event, "Records/0/s3/object/key") == "2024/red+flower%2B1%3D%C3%BC.png"


@pytest.mark.parametrize(("region", "partition"), [("eu-west-1", "aws"), ("cn-north-1", "aws-cn")])
@pytest.mark.parametrize("kind", [kind for kind in event_kinds() if kind.name != "cloudwatch-logs"], ids=named)
def test_the_region_is_in_all_arns_and_in_no_other_place_of_another(
    kind: EventKind, region: str, partition: str
) -> None:
    event = sample_event(kind.name, {"region": region})
    arns = [found for text in texts(event) for found in re.findall(r"arn:[^?&]*", text)]
    for arn in arns:
        _, found, service, where, account, *_ = arn.split(":")
        assert found == partition
        assert (where, account) in [("", "")] if service == "s3" else where == (region if service != "iam" else "")
        assert service == "s3" or account == "123456789012"
    assert "us-east-1" not in json.dumps(event)
    without = ("api-gateway", "cognito-pre-signup", "eventbridge", "function-url", "http-api")
    assert bool(arns) is (kind.name not in without)


def test_the_partition_of_the_us_government_has_its_name() -> None:
    event = sample_event("sqs", {"region": "us-gov-west-1"})
    assert at(event, "Records/0/eventSourceARN") == "arn:aws-us-gov:sqs:us-gov-west-1:123456789012:example-queue"


def test_hosts_and_addresses_are_those_for_examples() -> None:
    found = {text for kind in event_kinds() for text in texts(sample_event(kind.name))}
    addresses = {address for text in found for address in re.findall(r"\b\d+\.\d+\.\d+\.\d+\b", text)}
    assert addresses == {"192.0.2.1"}


def test_the_data_of_logs_is_gzip_in_base64_and_has_no_time_in_it() -> None:
    packed = base64.b64decode(sample_event("cloudwatch-logs")["awslogs"]["data"])
    assert packed[:10] == bytes([0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 255])
    assert json.loads(gzip.decompress(packed))["messageType"] == "DATA_MESSAGE"


def test_the_data_of_kinesis_is_base64() -> None:
    event = sample_event("kinesis", {"data": "grüße"})
    assert base64.b64decode(at(event, "Records/0/kinesis/data")).decode() == "grüße"
    record = event["Records"][0]
    assert record["eventID"] == f"shardId-000000000000:{record['kinesis']['sequenceNumber']}"


def test_sizes_of_stream_records_are_those_of_keys_and_images() -> None:
    event = sample_event("dynamodb-stream", {"id": "ü1", "message": "after", "old-message": "be"})
    key, after, before = 2 + 3, 2 + 3 + 7 + 5, 2 + 3 + 7 + 2
    sizes = [record["dynamodb"]["SizeBytes"] for record in event["Records"]]
    assert sizes == [key + before, key + after + before, key + after]


def test_a_query_is_told_by_each_service_in_its_way() -> None:
    query = {"query": "a=1&b=x%20y&a=2&c"}
    rest = sample_event("api-gateway", query)
    assert rest["queryStringParameters"] == {"a": "2", "b": "x y", "c": ""}
    assert rest["multiValueQueryStringParameters"] == {"a": ["1", "2"], "b": ["x y"], "c": [""]}
    for name in ("http-api", "function-url"):
        event = sample_event(name, query)
        assert event["rawQueryString"] == query["query"]
        assert event["queryStringParameters"] == {"a": "1,2", "b": "x y", "c": ""}
    assert sample_event("alb", query)["queryStringParameters"] == {"a": "2", "b": "x%20y", "c": ""}


def test_without_query_and_body_each_service_says_so_in_its_way() -> None:
    rest = sample_event("api-gateway")
    assert rest["queryStringParameters"] is rest["multiValueQueryStringParameters"] is rest["body"] is None
    assert "Content-Type" not in rest["headers"]
    assert "Content-Type" not in rest["multiValueHeaders"]
    for name in ("http-api", "function-url"):
        event = sample_event(name)
        assert event["rawQueryString"] == ""
        assert not {"queryStringParameters", "body"} & set(event)
        assert "content-type" not in event["headers"]
    balanced = sample_event("alb")
    assert balanced["queryStringParameters"] == {}
    assert balanced["body"] == ""


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{"a": "ü"}', "application/json"),
        ("ü", "text/plain; charset=utf-8"),
        ("[" * 10**5, "text/plain; charset=utf-8"),
    ],
    ids=["json", "text", "deep"],
)
def test_headers_fit_the_body(body: str, expected: str) -> None:
    for name in ("alb", "http-api", "function-url"):
        headers = sample_event(name, {"body": body})["headers"]
        assert (headers["content-type"], headers["content-length"]) == (expected, str(len(body.encode())))
    rest = sample_event("api-gateway", {"body": body})
    assert rest["headers"]["Content-Type"] == expected
    assert rest["multiValueHeaders"] == {key: [value] for key, value in rest["headers"].items()}


def test_the_path_of_a_rest_api_is_told_four_times() -> None:
    event = sample_event("api-gateway", {"path": "/a/b"})
    assert (event["resource"], event["path"]) == ("/{proxy+}", "/a/b")
    assert event["pathParameters"] == {"proxy": "a/b"}
    assert event["requestContext"]["path"] == "/prod/a/b"
    root = sample_event("api-gateway", {"path": "/"})
    assert (root["resource"], root["pathParameters"]) == ("/", None)
    assert root["requestContext"]["resourcePath"] == "/"


def test_what_is_empty_is_null_where_the_service_says_null() -> None:
    assert at(sample_event("sns"), "Records/0/Sns/Subject") is None
    assert at(sample_event("s3-batch"), "tasks/0/s3VersionId") is None


def test_the_address_to_unsubscribe_at_is_one_for_any_topic() -> None:
    notice = at(sample_event("sns", {"topic": "a&b=c d"}), "Records/0/Sns")
    (arn,) = parse_qs(urlsplit(notice["UnsubscribeUrl"]).query)["SubscriptionArn"]
    assert arn == at(sample_event("sns", {"topic": "a&b=c d"}), "Records/0/EventSubscriptionArn")


TEXT: dict[str, Any] = {"type": "string"}
TEXT_MAP: dict[str, Any] = {"type": "object", "additionalProperties": TEXT}
NUMBER: dict[str, Any] = {"type": "integer"}
EMPTY_MAP: dict[str, Any] = {"type": "object", "maxProperties": 0}


def exactly(**keys: Any) -> dict[str, Any]:
    """A schema of an object with these keys and no others; a name alone, or `...`, is a string."""
    properties = {key.replace("__", "-"): TEXT if value is ... else value for key, value in keys.items()}
    return {"type": "object", "required": list(properties), "properties": properties, "additionalProperties": False}


def records(schema: dict[str, Any]) -> dict[str, Any]:
    return exactly(Records={"type": "array", "minItems": 1, "items": schema})


def s3_record(s3_object: dict[str, Any]) -> dict[str, Any]:
    principal = exactly(principalId=...)
    return records(
        exactly(
            eventVersion=..., eventSource={"const": "aws:s3"}, awsRegion=..., eventTime=..., eventName=...,
            userIdentity=principal, requestParameters=exactly(sourceIPAddress=...),
            responseElements=exactly(x__amz__request__id=..., x__amz__id__2=...),
            s3=exactly(
                s3SchemaVersion={"const": "1.0"}, configurationId=...,
                bucket=exactly(name=..., ownerIdentity=principal, arn=...), object=s3_object,
            ),
        )
    )  # fmt: skip


BUS = {"version": {"const": "0"}, "id": ..., "detail__type": ..., "source": ..., "account": ..., "time": ...} | {
    "region": ..., "resources": {"type": "array", "items": TEXT}, "detail": {"type": "object"},
}  # fmt: skip
REQUEST = exactly(method=..., path=..., protocol={"const": "HTTP/1.1"}, sourceIp=..., userAgent=...)
PAYLOAD_2 = exactly(
    version={"const": "2.0"}, routeKey={"const": "$default"}, rawPath=..., rawQueryString=..., headers=TEXT_MAP,
    queryStringParameters=TEXT_MAP,
    requestContext=exactly(
        accountId=..., apiId=..., domainName=..., domainPrefix=..., http=REQUEST, requestId=...,
        routeKey={"const": "$default"}, stage={"const": "$default"}, time=..., timeEpoch=NUMBER,
    ),
    body=..., isBase64Encoded={"const": False},
)  # fmt: skip
IDENTITY = (
    "cognitoIdentityPoolId accountId cognitoIdentityId caller sourceIp principalOrgId accessKey "
    "cognitoAuthenticationType cognitoAuthenticationProvider userArn userAgent user"
).split()
SCHEMAS = {
    "alb": exactly(
        requestContext=exactly(elb=exactly(targetGroupArn=...)), httpMethod=..., path=...,
        queryStringParameters=TEXT_MAP, headers=TEXT_MAP, body=..., isBase64Encoded={"const": False},
    ),
    "api-gateway": exactly(
        resource=..., path=..., httpMethod=..., headers=TEXT_MAP,
        multiValueHeaders={"type": "object", "additionalProperties": {"type": "array", "items": TEXT}},
        queryStringParameters=TEXT_MAP,
        multiValueQueryStringParameters={"type": "object", "additionalProperties": {"type": "array", "items": TEXT}},
        pathParameters=TEXT_MAP, stageVariables={"type": "null"},
        requestContext=exactly(
            resourceId=..., resourcePath=..., httpMethod=..., extendedRequestId=..., requestTime=..., path=...,
            accountId=..., protocol=..., stage=..., domainPrefix=..., requestTimeEpoch=NUMBER, requestId=...,
            identity=exactly(**{key: {"type": ["string", "null"]} for key in IDENTITY}), domainName=..., apiId=...,
        ),
        body=..., isBase64Encoded={"const": False},
    ),
    "cloudwatch-logs": exactly(awslogs=exactly(data=...)),
    "cognito-pre-signup": exactly(
        version={"const": "1"}, region=..., userPoolId=..., userName=...,
        callerContext=exactly(awsSdkVersion=..., clientId=...), triggerSource={"const": "PreSignUp_SignUp"},
        request=exactly(userAttributes=TEXT_MAP, validationData=TEXT_MAP, clientMetadata=TEXT_MAP),
        response=exactly(
            autoConfirmUser={"const": False}, autoVerifyEmail={"const": False}, autoVerifyPhone={"const": False},
        ),
    ),
    "dynamodb-stream": records({
        "type": "object", "required": ["eventID", "eventName", "eventVersion", "eventSource", "awsRegion"],
        "properties": {
            "eventName": {"enum": ["INSERT", "MODIFY", "REMOVE"]},
            "dynamodb": {
                "type": "object",
                "required": ["ApproximateCreationDateTime", "Keys", "SequenceNumber", "SizeBytes", "StreamViewType"],
                "properties": {"SizeBytes": NUMBER, "SequenceNumber": TEXT, "Keys": {
                    "additionalProperties": exactly(S=...), "minProperties": 1,
                }},
            },
        },
    }),
    "eventbridge": exactly(**BUS),
    "function-url": PAYLOAD_2,
    "http-api": PAYLOAD_2,
    "kinesis": records(exactly(
        kinesis=exactly(
            kinesisSchemaVersion={"const": "1.0"}, partitionKey=..., sequenceNumber=..., data=...,
            approximateArrivalTimestamp={"type": "number"},
        ),
        eventSource={"const": "aws:kinesis"}, eventVersion={"const": "1.0"}, eventID=...,
        eventName={"const": "aws:kinesis:record"}, invokeIdentityArn=..., awsRegion=..., eventSourceARN=...,
    )),
    "s3-batch": exactly(
        invocationSchemaVersion={"const": "1.0"}, invocationId=..., job=exactly(id=...),
        tasks={"type": "array", "minItems": 1, "maxItems": 1, "items": exactly(
            taskId=..., s3Key=..., s3VersionId={"type": ["string", "null"]}, s3BucketArn=...,
        )},
    ),
    "s3-delete": s3_record(exactly(key=..., sequencer=...)),
    "s3-put": s3_record(exactly(key=..., size=NUMBER, eTag=..., sequencer=...)),
    "schedule": exactly(**BUS | {"detail__type": {"const": "Scheduled Event"}, "source": {"const": "aws.events"},
                                 "detail": EMPTY_MAP}),
    "sns": records(exactly(
        EventVersion={"const": "1.0"}, EventSubscriptionArn=..., EventSource={"const": "aws:sns"},
        Sns=exactly(
            SignatureVersion={"const": "1"}, Timestamp=..., Signature=..., SigningCertUrl=..., MessageId=...,
            Message=..., MessageAttributes=EMPTY_MAP, Type={"const": "Notification"}, UnsubscribeUrl=...,
            TopicArn=..., Subject={"type": ["string", "null"]},
        ),
    )),
    "sqs": records(exactly(
        messageId=..., receiptHandle=..., body=...,
        attributes=exactly(**dict.fromkeys(
            ("ApproximateReceiveCount", "SentTimestamp", "SenderId", "ApproximateFirstReceiveTimestamp"), ...
        )),
        messageAttributes=EMPTY_MAP, md5OfBody=..., eventSource={"const": "aws:sqs"}, eventSourceARN=...,
        awsRegion=...,
    )),
}  # fmt: skip


@pytest.mark.parametrize("kind", event_kinds(), ids=named)
def test_an_event_has_the_keys_that_the_service_sends(kind: EventKind) -> None:
    full = {"query": "a=1", "body": "text"}
    values = {name: value for name, value in full.items() if name in [row.name for row in kind.parameters]}
    jsonschema.validate(sample_event(kind.name, values), SCHEMAS[kind.name])


def test_the_records_of_a_stream_have_the_images_that_there_are() -> None:
    found = [
        (record["eventName"], {"NewImage", "OldImage"} & set(record["dynamodb"]))
        for record in sample_event("dynamodb-stream")["Records"]
    ]
    assert found == [("INSERT", {"NewImage"}), ("MODIFY", {"NewImage", "OldImage"}), ("REMOVE", {"OldImage"})]


def test_an_unknown_event_names_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        sample_event("s3-putt")
    assert caught.value.code == "unknown-event"
    assert "s3-put" in caught.value.causes[0]
    assert "layerbuild events" in (caught.value.hint or "")


def test_an_unknown_parameter_names_the_nearest_and_all() -> None:
    with pytest.raises(UsageError) as caught:
        sample_event("s3-put", {"bukket": "x"})
    assert caught.value.code == "unknown-parameter"
    assert caught.value.causes == ("did you mean bucket?", "known: region, bucket, key, size")
    with pytest.raises(UsageError) as caught:
        sample_event("s3-put", {"zzz": "x"})
    assert caught.value.causes == ("known: region, bucket, key, size",)


@pytest.mark.parametrize(
    ("name", "parameter", "value"),
    [
        ("s3-put", "size", "large"),
        ("s3-put", "size", ""),
        ("s3-put", "size", "-1"),
        ("s3-put", "size", "1.5"),
        ("s3-put", "size", "٣"),
        ("s3-put", "size", "1\n"),
        ("s3-put", "size", "9" * 5000),
        ("sqs", "account", "12345"),
        ("sqs", "region", "Frankfurt"),
        ("sqs", "body", "not UTF-8: \udcff"),
        ("alb", "method", "get"),
        ("http-api", "path", "hello"),
        ("http-api", "path", "/hello?a=1"),
        ("schedule", "time", "noon"),
        ("schedule", "time", "2024-02-30T00:00:00Z"),
        ("schedule", "time", "2024-01-01"),
        ("eventbridge", "detail", ""),
        ("eventbridge", "detail", "{'a': 1}"),
        ("eventbridge", "detail", "[1]"),
        ("eventbridge", "detail", '{"a": NaN}'),
        ("eventbridge", "detail", '{"a": ' * 100_000),
        ("eventbridge", "detail", '{"a": ' * 101 + "1" + "}" * 101),
        ("eventbridge", "detail", '{"a": [' * 101 + "]}" * 101),
    ],
)
def test_a_value_of_another_kind_is_refused(name: str, parameter: str, value: str) -> None:
    with pytest.raises(UsageError) as caught:
        sample_event(name, {parameter: value})
    assert caught.value.code == "bad-parameter"
    assert caught.value.what.startswith(f"{parameter} of the event {name} cannot be ")
    assert len(caught.value.what) < 120
    assert caught.value.causes[0].startswith("it ")


def test_an_object_of_many_levels_is_fine(cli: Callable[..., Ran], project: Path) -> None:
    detail = '{"a": ' * 100 + "1" + "}" * 100
    assert cli("events", "eventbridge", "--set", f"detail={detail}").json["detail"] == json.loads(detail)


def test_placeholders_in_what_an_event_tells_stay() -> None:
    detail = {"{{gzip}}": {"a": "{{region}}"}, "b": ["{{detail}}"]}
    assert sample_event("eventbridge", {"detail": json.dumps(detail)})["detail"] == detail


def test_settings_are_names_and_values_and_the_last_counts() -> None:
    assert parameter_values(["a=1", "b=x=y", "c=", "a=2"]) == {"a": "2", "b": "x=y", "c": ""}
    for wrong in ("a", "=1", ""):
        with pytest.raises(UsageError) as caught:
            parameter_values([wrong])
        assert caught.value.code == "bad-parameter"


def test_the_command_lists_all_within_eighty_columns(
    cli: Callable[..., Ran], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = cli("events")
    monkeypatch.setenv("COLUMNS", "80")
    assert cli("events").out == ran.out
    lines = ran.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines[1:-1]] == list(KINDS)
    assert re.search(r"^s3-put +bucket, key, size +an object put$", ran.out, re.MULTILINE)


def test_the_command_tells_all_in_json(cli: Callable[..., Ran], project: Path) -> None:
    rows = cli("events", "--json").json["events"]
    assert [row["name"] for row in rows] == list(KINDS)
    (row,) = [row for row in rows if row["name"] == "s3-put"]
    assert row["source"] == KINDS["s3-put"].source
    assert row["parameters"][-1] == {
        "name": "size",
        "kind": "integer",
        "default": "1024",
        "description": "size of the object in bytes",
    }


def test_the_command_prints_an_event(cli: Callable[..., Ran], project: Path) -> None:
    ran = cli("events", "sqs", "--set", 'body={"a": "ü"}\n', "--set", "queue=q")
    assert ran.code == 0
    assert ran.err == ""
    assert ran.out.startswith('{\n  "Records": [\n')
    assert ran.json == sample_event("sqs", {"body": '{"a": "ü"}\n', "queue": "q"})
    assert cli("events", "sqs", "--json").json == sample_event("sqs")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["nothing"], "unknown-event"),
        (["sqs", "--set", "bdy=1"], "unknown-parameter"),
        (["s3-put", "--set", "size=x"], "bad-parameter"),
        (["s3-put", "--set", "size"], "bad-parameter"),
        (["--set", "a=1"], "usage"),
    ],
)
def test_the_command_says_what_is_wrong(
    arguments: list[str], code: str, cli: Callable[..., Ran], project: Path
) -> None:
    ran = cli("events", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert f"[{code}]" in ran.err


def test_the_help_has_an_example_and_fits(cli: Callable[..., Ran]) -> None:
    ran = cli("events", "--help")
    assert ran.code == 0
    assert re.search(r"^  layerbuild events s3-put ", ran.out, re.MULTILINE)
    assert max(map(len, ran.out.splitlines())) <= 100


def test_names_complete() -> None:
    assert [item.value for item in complete_event(None, None, "s3")] == ["s3-batch", "s3-delete", "s3-put"]  # type: ignore[arg-type]
