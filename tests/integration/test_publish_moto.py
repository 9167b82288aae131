"""`layerbuild publish` from end to end against moto's server. `test_published_moto.py` has what comes after it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from layerbuild.publish.release import mark
from tests.aws_server import ACCOUNT, ZIP_LIMIT
from tests.publishing import (  # noqa: F401 - some are fixtures
    HOME,
    Shop,
    fake_credentials,
    moto_fixture,
    refused,
    shop_fixture,
)

FRIEND, ORGANIZATION = "210987654321", "o-a1b2c3d4e5"
REGIONS = [HOME, "eu-central-1", "us-east-1", "us-west-2", "ap-northeast-1"]
TARGETS = [f"python3.{minor}-{arch}" for minor in (12, 13) for arch in ("x86_64", "arm64")]
DEMO = "demo-python313-x86_64"
BUCKET = "layers-{account}-{region}"
READING = {"GetCallerIdentity", "ListLayerVersions", "GetLayerVersion", "GetLayerVersionPolicy"}


def actions(steps: dict[tuple[str, str], Any]) -> Counter[str]:
    return Counter(step["action"] for step in steps.values())


def test_four_hundred_versions_then_nothing_then_one(shop: Shop) -> None:
    shop.settings(regions=REGIONS)
    made = {}
    for recipe in (f"layer-{number:02}" for number in range(20)):
        for target in TARGETS:
            about = {f"{recipe.replace('-', '_')}_for.txt": target}
            python, _, arch = target.partition("-")
            name = f"{recipe}-{python.replace('.', '')}-{arch}"
            made[name] = shop.make(recipe, target, files=about, licence=f"MIT-{recipe}")

    assert actions(shop.publish()) == {"create": 400}
    catalogue, held = shop.catalogue, shop.held(*REGIONS)
    assert len(catalogue["versions"]) == len(held) == 400
    assert {(row["region"], row["name"], row["version"]) for row in catalogue["versions"]} == held.keys()
    for row in catalogue["versions"]:
        there, manifest = held[row["region"], row["name"], row["version"]], made[row["name"]]
        content = catalogue["contents"][f"{row['digest']} {row['recipe']}@{row['target']}"]
        assert row["account"] == ACCOUNT
        assert row["arn"] == there["LayerVersionArn"]
        assert row["code_sha256"] == there["Content"]["CodeSha256"] == manifest["code_sha256"]
        assert row["size"] == there["Content"]["CodeSize"] == manifest["zipped"]
        assert row["digest"] == manifest["content_digest"]
        assert row["published"] == there["CreatedDate"]
        assert (row["recipe"], row["target"]) == (content["recipe"], content["target"])
        assert (row["recipe"], row["target"]) == (manifest["recipe"], manifest["target"])
        assert there["Description"] == f"{row['recipe']} 1.0 {mark(row['digest'])}"
        assert there["LicenseInfo"] == content["licence"] == f"MIT-{row['recipe']}"
        assert there["CompatibleRuntimes"] == content["runtimes"] == manifest["runtimes"]
        assert there["CompatibleArchitectures"] == content["architectures"] == manifest["architectures"]

    before = shop.files()
    assert actions(shop.publish()) == {"skip": 400}
    of_lambda = [seen for seen in shop.moto.requests if seen.service == "lambda"]
    assert len(of_lambda) == 400
    assert {seen.operation for seen in of_lambda} == {"ListLayerVersions"}
    assert set(Counter((seen.region, seen.resource) for seen in of_lambda).values()) == {1}
    assert [seen.operation for seen in shop.moto.requests if seen.service != "lambda"] == ["GetCallerIdentity"]
    assert shop.files() == before

    shop.make("layer-07", TARGETS[0], packages={"layer-07": "2.0"})
    steps = shop.publish()
    name = "layer-07-python312-x86_64"
    assert actions(steps) == {"skip": 395, "create": 5}
    assert {key for key, step in steps.items() if step["action"] == "create"} == {(name, one) for one in REGIONS}
    assert {(seen.region, seen.resource) for seen in shop.moto.calls("PublishLayerVersion")} == {
        (region, name) for region in REGIONS
    }
    assert len(shop.moto.calls("PublishLayerVersion")) == 5
    assert {shop.current(name, region)["version"] for region in REGIONS} == {2}


def test_a_zip_that_is_too_large_for_a_request_goes_through_a_bucket(shop: Shop) -> None:
    more = shop.make("large", size=ZIP_LIMIT)["zipped"] - ZIP_LIMIT
    made = shop.make("large", size=ZIP_LIMIT - more)
    assert made["zipped"] == ZIP_LIMIT
    key, bucket = ("large-python313-x86_64", HOME), f"layers-{ACCOUNT}-{HOME}"
    for arguments in ["--plan"], []:
        step = shop.publish(*arguments, code=5)[key]
        assert (step["action"], step["bucket"]) == ("blocked", None)
        assert "no bucket is named" in step["reasons"][0]
    step = shop.publish("--bucket", BUCKET, code=5)[key]
    assert (step["action"], step["error"]["code"], step["bucket"]) == ("blocked", "bucket-unusable", bucket)
    assert bucket in step["reasons"][0]
    assert shop.held() == {}

    s3 = shop.moto.client("s3", HOME)
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": HOME})
    step = shop.publish("--bucket", BUCKET)[key]
    assert (step["action"], step["status"], step["bucket"]) == ("create", "done", bucket)
    assert Counter(seen.operation for seen in shop.moto.requests if seen.service == "s3") == {
        "HeadBucket": 1,
        "CreateMultipartUpload": 1,
        "UploadPart": 4,
        "CompleteMultipartUpload": 1,
        "HeadObject": 1,
        "DeleteObject": 1,
    }
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    assert shop.held()[HOME, key[0], 1]["Content"]["CodeSha256"] == made["code_sha256"]

    tags = {"team": "images", "cost centre": "a+b=c:d/é"}
    shop.settings(f'bucket = "{BUCKET}"\ntag = {json.dumps([f"{name}={tag}" for name, tag in tags.items()])}')
    shop.publish("--force", "--keep-objects")
    called = list(shop.moto.requests)
    (found,) = s3.list_objects_v2(Bucket=bucket)["Contents"]
    assert found["Size"] == ZIP_LIMIT
    there = s3.get_object_tagging(Bucket=bucket, Key=found["Key"])["TagSet"]
    assert {one["Key"]: one["Value"] for one in there} == tags
    assert refused(shop.run("iam-policy", "--own-account", ACCOUNT, "--for", "publish").json, called) == []

    shop.settings()
    shop.make("large", size=ZIP_LIMIT - more - 1)
    step = shop.publish()[key]
    assert (step["status"], step["version"], step["bucket"]) == ("done", 3, None)
    assert {seen.service for seen in shop.moto.requests} == {"sts", "lambda"}
    s3.close()


def test_a_tag_that_s3_refuses_is_refused_before_anything_is_sent(shop: Shop) -> None:
    shop.make("demo")
    ran = shop.run("publish", "--bucket", BUCKET, "--tag", "team=research & development", code=2)
    assert "[bad-parameter]" in ran.err


def test_versions_are_shared_with_whom_the_settings_name(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.make("demo")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    whom = ["--public", "--account", FRIEND, "--organization", ORGANIZATION]
    shop.publish("--endpoint-url", shop.moto.url, *whom)
    assert shop.policy(DEMO, 1) == {
        "layerbuild-public": ("*", None),
        f"layerbuild-{FRIEND}": (FRIEND, None),
        f"layerbuild-{ORGANIZATION}": ("*", {"StringEquals": {"aws:PrincipalOrgID": ORGANIZATION}}),
    }
    assert len(shop.moto.calls("GetLayerVersionPolicy")) == 1, "it was not read back"
    granted = [f"account:{FRIEND}", f"organization:{ORGANIZATION}", "public"]
    assert shop.current(DEMO)["shared"] == granted


def test_who_is_no_longer_named_loses_older_versions_too(shop: Shop) -> None:
    shop.settings(f'public = true\naccount = ["{FRIEND}"]')
    for version in 1, 2:
        shop.make("demo", packages={"demo": f"{version}.0"})
        shop.publish()
        assert set(shop.policy(DEMO, version)) == {"layerbuild-public", f"layerbuild-{FRIEND}"}

    shop.make("demo", packages={"demo": "3.0"})
    shop.publish("--no-public")
    assert [set(shop.policy(DEMO, version)) for version in (1, 2, 3)] == [{f"layerbuild-{FRIEND}"}] * 3
    assert [row["shared"] for row in shop.catalogue["versions"]] == [[f"account:{FRIEND}"]] * 3

    shop.settings()
    ran = shop.run("publish")
    assert f"stop sharing with account {FRIEND}" in ran.out
    assert [shop.policy(DEMO, version) for version in (1, 2, 3)] == [{}] * 3
    assert [row["shared"] for row in shop.catalogue["versions"]] == [[]] * 3
    assert actions(shop.publish()) == {"skip": 1}


def test_a_new_version_stays_the_current_one_when_older_ones_lose_grants(shop: Shop) -> None:
    for version, grants in ("1.0", ["--account", FRIEND]), ("2.0", []):
        shop.make("demo", packages={"demo": version})
        shop.publish(*grants)
    assert {row["version"]: row["current"] for row in shop.catalogue["versions"]} == {1: False, 2: True}


def test_what_others_change_about_permissions_is_shown_and_mended_only_when_asked(shop: Shop) -> None:
    shop.make("demo")
    shop.settings("public = true")
    shop.publish()
    key = DEMO, HOME
    client = shop.moto.client("lambda", HOME)
    about = {"LayerName": DEMO, "VersionNumber": 1}
    client.remove_layer_version_permission(**about, StatementId="layerbuild-public")
    client.add_layer_version_permission(
        **about, StatementId="by-hand", Principal=FRIEND, Action="lambda:GetLayerVersion"
    )
    client.close()

    drift = ["not shared with everyone (public) any more", f"shared with account {FRIEND} by someone else"]
    step = shop.publish("--plan")[key]
    assert (step["action"], step["drift"], step["share_with"], step["unshare"]) == ("skip", drift, [], [])
    text = shop.run("publish", "--plan").out
    assert all(line in text for line in drift)
    assert shop.publish()[key]["action"] == "skip"
    assert shop.policy(DEMO, 1) == {"by-hand": (FRIEND, None)}

    step = shop.publish("--plan", "--fix-permissions")[key]
    assert (step["action"], step["share_with"], step["unshare"]) == ("share", ["public"], [f"account:{FRIEND}"])
    assert shop.policy(DEMO, 1) == {"by-hand": (FRIEND, None)}
    assert shop.publish("--fix-permissions")[key]["status"] == "done"
    assert shop.policy(DEMO, 1) == {"layerbuild-public": ("*", None)}
    assert shop.publish("--plan")[key]["drift"] == []


def test_a_plan_says_that_versions_will_be_public(shop: Shop) -> None:
    words = "will be public: everyone with an AWS account can use and read them"
    for recipe in "one", "two":
        shop.make(recipe)
    assert words not in shop.run("publish", "--plan").out
    assert f"2 versions {words}" in shop.run("publish", "--plan", "--public").out
    shop.run("publish", "dist/one-python3.13-x86_64.zip")
    assert f"2 versions {words}" in shop.run("publish", "--plan", "--public").out
    assert f"1 version {words}" in shop.run("publish", "--public", "dist/one-python3.13-x86_64.zip").out
    assert f"1 version {words}" in shop.run("publish", "--plan", "--public").out
    shop.run("publish", "--public")
    assert words not in shop.run("publish", "--plan", "--public").out


@pytest.mark.parametrize("arguments", [[], ["--public", "--fix-permissions"], ["--force", "--json"]], ids=" ".join)
def test_a_plan_changes_nothing(shop: Shop, arguments: Sequence[str]) -> None:
    for version in "1.0", "2.0":
        shop.make("demo", packages={"demo": version})
        for _ in range(2):  # before and after it is published
            before = shop.files(), shop.held()
            shop.run("publish", "--plan", *arguments)
            assert {seen.operation for seen in shop.moto.requests} <= READING
            assert (shop.files(), shop.held()) == before
            shop.publish()
    assert shop.policy(DEMO, 1) == shop.policy(DEMO, 2) == {}


def test_documents_say_what_became_of_each_layer_in_each_region(shop: Shop) -> None:
    shop.settings("public = true", [HOME, "us-east-1"])
    shop.make("broken", files={"typing.py": ""})
    shop.make("demo")
    for plan in ["--plan"], []:
        assert actions(shop.publish(*plan, code=5)) == {"create": 2, "blocked": 2}
    steps = shop.publish(code=5)
    assert {(layer, step["action"], step["status"]) for (layer, _), step in steps.items()} == {
        ("broken-python313-x86_64", "blocked", "not done"),
        (DEMO, "skip", "done"),
    }
    arns = {row["LayerVersionArn"] for row in shop.held(HOME, "us-east-1").values()}
    assert {step["arn"] for step in steps.values()} == {None, *arns}


def on_a_terminal(typed: str, *arguments: str) -> tuple[int, str]:
    """The exit code of a command on a terminal, where something is typed once it asks, and what was to be seen."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "layerbuild", *arguments]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = b""
    try:
        while chunk := os.read(ours, 1 << 16):
            seen += chunk
            if typed and b"[y/N]" in seen:
                os.write(ours, typed.encode())
                typed = ""
    except OSError:  # which is how a terminal ends
        pass
    os.close(ours)
    return process.wait(60), seen.decode()


def test_publish_asks_on_a_terminal_only(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    question = f"Do this in account {ACCOUNT}? [y/N]"
    shop.make("demo")
    files = shop.files()
    code, seen = on_a_terminal("n\n", "publish")
    assert code == 0, seen
    assert question in seen
    assert "nothing was changed" in seen
    assert (shop.held(), shop.files()) == ({}, files)

    code, seen = on_a_terminal("y\n", "publish")
    assert (code, question in seen) == (0, True), seen
    assert len(shop.held()) == 1
    code, seen = on_a_terminal("", "publish", "--force", "--yes")
    assert (code, question in seen) == (0, False), seen
    code, seen = on_a_terminal("", "publish")  # there is nothing to do
    assert (code, question in seen) == (0, False), seen
    ran = shop.run("publish", "--force")
    assert "[y/N]" not in ran.out + ran.err
    assert len(shop.held()) == 3


def test_all_regions_are_those_that_the_account_may_use(shop: Shop) -> None:
    ec2 = shop.moto.client("ec2", "us-east-1")
    found = {row["RegionName"] for row in ec2.describe_regions()["Regions"]}
    ec2.close()
    enabled = {name for name in found if not name.startswith(("cn-", "us-gov-"))}  # of other partitions
    assert len(enabled) > 10
    shop.settings(regions=["all"])
    shop.make("demo")
    steps = shop.publish()
    assert {region for _, region in steps} == enabled
    assert actions(steps) == {"create": len(enabled)}
    assert len(shop.catalogue["versions"]) == len(enabled)
    called = list(shop.moto.requests)
    assert Counter(seen.operation for seen in called)["DescribeRegions"] == 1
    assert refused(shop.run("iam-policy", "--for", "publish").json, called) == []


def test_a_catalogue_that_was_lost_is_written_anew(shop: Shop) -> None:
    shop.settings("public = true", [HOME, "us-east-1"])
    for recipe in "one", "two":
        shop.make(recipe)
    shop.publish()
    before, held = shop.catalogue, shop.held(HOME, "us-east-1")
    (shop.folder / "catalogue.json").unlink()
    assert actions(shop.publish()) == {"record": 4}
    assert shop.catalogue == before
    assert shop.held(HOME, "us-east-1") == held
    assert shop.moto.calls("PublishLayerVersion", "AddLayerVersionPermission") == []

    (shop.folder / "catalogue.json").unlink()  # and the settings have changed
    assert actions(shop.publish("--no-public")) == {"record": 4}
    assert [shop.policy(name, number, region) for region, name, number in held] == [{}] * 4
    assert {tuple(row["shared"]) for row in shop.catalogue["versions"]} == {()}


def test_a_version_that_someone_has_deleted_is_published_again(shop: Shop) -> None:
    shop.settings(regions=[HOME, "us-east-1"])
    shop.make("demo")
    shop.publish()
    client = shop.moto.client("lambda", "us-east-1")
    client.delete_layer_version(LayerName=DEMO, VersionNumber=1)
    client.close()
    steps = shop.publish()
    assert {region: step["action"] for (_, region), step in steps.items()} == {HOME: "skip", "us-east-1": "create"}
    assert steps[DEMO, "us-east-1"]["reasons"] == ["version 1 of the catalogue is gone"]
    rows = {(row["region"], row["name"], row["version"]) for row in shop.catalogue["versions"]}
    assert rows == {(HOME, DEMO, 1), ("us-east-1", DEMO, 2)} == shop.held(HOME, "us-east-1").keys()


def test_content_that_comes_back_makes_its_old_version_the_current_one(shop: Shop) -> None:
    for version in "1.0", "2.0", "1.0":
        shop.make("demo", packages={"demo": version})
        steps = shop.publish()
    assert (actions(steps), steps[DEMO, HOME]["version"]) == ({"record": 1}, 1)
    assert shop.moto.calls("PublishLayerVersion") == []
    assert {row["version"]: row["current"] for row in shop.catalogue["versions"]} == {1: True, 2: False}
    assert len(shop.held()) == 2
    assert actions(shop.publish()) == {"skip": 1}
    assert shop.run("arn", "demo").out.endswith(f"{DEMO}:1\n")
