"""What comes after `layerbuild publish`, from end to end against moto's server: lists, exports, prune, policies."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from typing import Any

import pytest

from layerbuild.errors import MachineError
from layerbuild.publish.apply import Publisher
from layerbuild.publish.storage import Parameters
from tests.aws_server import ACCOUNT
from tests.publishing import (  # noqa: F401 - some are fixtures
    HOME,
    Shop,
    fake_credentials,
    moto_fixture,
    refused,
    shop_fixture,
)

FRIEND = "210987654321"
TARGETS = [f"python3.13-{arch}" for arch in ("x86_64", "arm64")]
DEMO = "demo-python313-x86_64"


def test_layers_of_the_same_files_for_two_architectures_are_told_apart(shop: Shop) -> None:
    made = {target: shop.make("pure", target) for target in TARGETS}
    shop.publish()
    for row in shop.run("list", "--json").json["versions"]:
        about = row["content"]
        assert (about["target"], about["architectures"]) == (row["target"], made[row["target"]]["architectures"])
    for row in csv.DictReader(io.StringIO(shop.run("export", "--format", "csv").out)):
        assert row["target"].endswith(row["architectures"])


@pytest.mark.parametrize(
    ("file", "table"), [("layerbuild.toml", "publish"), ("pyproject.toml", "tool.layerbuild.publish")]
)
def test_settings_hold_for_all_commands_about_what_is_published(shop: Shop, file: str, table: str) -> None:
    (shop.folder / "layerbuild.toml").unlink()
    here, there, elsewhere = HOME, "us-east-1", "eu-central-1"
    lines = [
        f'region = ["{here}", "{there}"]',
        "public = true",
        'bucket = "layers-{account}-{region}"',
        'layer-name = "{recipe}"',
    ]
    shop.make("demo")
    (shop.folder / file).write_text("\n".join([f"[{table}]", *lines]))
    steps = shop.publish()
    assert {key: step["share_with"] for key, step in steps.items()} == {
        ("demo", here): ["public"],
        ("demo", there): ["public"],
    }
    steps = shop.publish("--region", elsewhere, "--no-public", "--layer-name", "own-{recipe}")
    assert {key: step["share_with"] for key, step in steps.items()} == {("own-demo", elsewhere): []}

    def listed(command: str, *arguments: str) -> set[str]:
        return {row["region"] for row in shop.run(command, "--json", *arguments).json["versions"]}

    for command in "list", "prune":
        assert listed(command) == {here, there}
        assert listed(command, "--region", elsewhere) == {elsewhere}
    policy = json.dumps(shop.run("iam-policy").json)
    for region in here, there:
        assert f"arn:aws:lambda:{region}:*:layer:*" in policy
        assert f"arn:aws:s3:::layers-*-{region}/layerbuild/*" in policy
    assert elsewhere not in policy
    assert elsewhere in json.dumps(shop.run("iam-policy", "--region", elsewhere).json)


def test_with_whom_to_share_is_no_filter_of_what_is_listed(shop: Shop) -> None:
    shop.settings(f'account = ["{FRIEND}"]')
    shop.make("demo")
    shop.publish()
    assert len(shop.run("list", "--json").json["versions"]) == 1
    assert len(shop.run("export").json["layers"]) == 1


def test_not_to_be_asked_by_publish_is_no_leave_to_delete(shop: Shop) -> None:
    shop.settings("yes = true")
    for version in "1.0", "2.0":
        shop.make("demo", packages={"demo": version})
        shop.publish()
    shop.run("prune", "--keep", "1", "--min-age", "0")
    assert len(shop.held()) == 2


def test_list_says_what_is_where(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.settings(regions=[HOME, "us-east-1"])
    for version in "1.0", "2.0":
        shop.make("demo", packages={"demo": version, "other": "3.0"})
        shop.publish("--account", FRIEND)
    monkeypatch.setenv("COLUMNS", "80")
    head, *rows = shop.run("list").out.splitlines()
    assert head.split("  ")[0] == "layer"
    (row,) = rows
    assert row.split()[:2] == [DEMO, "2"]
    assert "demo 2.0 +1" in row
    assert FRIEND in row
    rows = shop.run("list", "--all-versions").out.splitlines()
    assert len(rows) == 3
    assert "1 (old)" in rows[1]
    assert all(len(row) <= 80 for row in rows)

    versions = shop.run("list", "--json").json["versions"]
    assert [(row["region"], row["version"]) for row in versions] == [(HOME, 2), ("us-east-1", 2)]
    assert versions[0]["content"]["packages"] == ["demo 2.0", "other 3.0"]
    versions = shop.run("list", "--json", "--all-versions", "--region", HOME).json["versions"]
    assert [{key: row[key] for key in row if key != "content"} for row in versions] == [
        row for row in shop.catalogue["versions"] if row["region"] == HOME
    ]


def test_arn_is_one_line_or_an_error_that_says_what_to_choose(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.settings(regions=[HOME, "us-east-1"])
    for target in TARGETS:
        shop.make("demo", target)
    shop.publish()
    arn = f"arn:aws:lambda:us-east-1:{ACCOUNT}:layer:demo-python313-arm64:1\n"
    assert shop.run("arn", "demo", "--target", "python3.13-arm64", "--region", "us-east-1").out == arn
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    assert shop.run("arn", "demo", "--target", "python3.13-arm64").out == arn
    monkeypatch.delenv("AWS_DEFAULT_REGION")

    ran = shop.run("arn", "demo", code=2)
    assert ran.out == ""
    for target in TARGETS:
        for region in HOME, "us-east-1":
            assert f"{target} in {region} of {ACCOUNT}" in ran.err
    for words in ["other"], ["demo", "--region", "eu-north-1"], ["demo", "--target", "python3.12-arm64"]:
        ran = shop.run("arn", *words, code=2)
        assert (ran.out, "[not-published]" in ran.err) == ("", True)
    assert "did you mean python3.13-arm64" in shop.run("arn", "demo", "--target", "pythn3.13-arm64", code=2).err


def test_exported_files_say_what_moto_has(shop: Shop) -> None:
    shop.settings("public = true", [HOME, "us-east-1"])
    for recipe in "one", "two":
        shop.make(recipe)
    shop.publish()
    held = {row["LayerVersionArn"]: row for row in shop.held(HOME, "us-east-1").values()}
    rows = list(csv.DictReader(io.StringIO(shop.run("export", "--format", "csv").out)))
    layers = shop.run("export").json["layers"]
    assert {row["arn"] for row in rows} == {row["arn"] for row in layers} == held.keys()
    for row, layer in zip(rows, layers, strict=True):
        there = held[row["arn"]]
        assert row["code_sha256"] == layer["code_sha256"] == there["Content"]["CodeSha256"]
        assert (row["licence"], row["shared"], row["runtimes"]) == ("MIT", "public", "python3.13")
        assert layer["architectures"] == there["CompatibleArchitectures"]
    shop.run("export", "one", "--region", HOME, "--format", "csv", "-o", "layers.csv")
    assert (shop.folder / "layers.csv").read_text().count("\n") == 2


def test_parameters_are_written_where_they_are_not_right_yet(shop: Shop) -> None:
    shop.settings(regions=[HOME, "us-east-1"])
    names = ["/layerbuild/one/python3.13/x86_64/latest", "/layerbuild/two/any/any/latest"]
    shop.make("one")
    shop.make("two", "any")
    shop.publish()
    ssm = {region: shop.moto.client("ssm", region) for region in (HOME, "us-east-1")}

    def values() -> dict[tuple[str, str], str]:
        rows = [
            (region, row)
            for region, client in ssm.items()
            for row in client.get_parameters(Names=names)["Parameters"]
        ]
        return {(region, row["Name"]): row["Value"] for region, row in rows}

    shop.run("export", "--format", "ssm", "--tag", "team=images", "--yes")
    called = list(shop.moto.requests)
    assert len(shop.moto.calls("PutParameter")) == 4
    first = values()
    assert set(first.values()) == {row["LayerVersionArn"] for row in shop.held(HOME, "us-east-1").values()}
    tags = ssm[HOME].list_tags_for_resource(ResourceType="Parameter", ResourceId=names[0])["TagList"]
    assert tags == [{"Key": "team", "Value": "images"}]

    shop.run("export", "--format", "ssm", "--tag", "team=images", "--yes")
    assert shop.moto.calls("PutParameter", "AddTagsToResource") == []

    shop.make("two", "any", packages={"two": "2.0"})
    shop.publish("--region", HOME)
    ran = shop.run("export", "--format", "ssm", "--tag", "team=photos", "--yes")
    called += shop.moto.requests
    assert len(shop.moto.calls("PutParameter")) == 1
    assert values() == {**first, (HOME, names[1]): first[HOME, names[1]].removesuffix(":1") + ":2"}
    assert f"was {first[HOME, names[1]]}" in ran.out
    policy = shop.run("iam-policy", "--own-account", ACCOUNT, "--for", "export", "--tag", "team=photos").json
    assert refused(policy, called) == []
    for client in ssm.values():
        client.close()


def test_how_many_parameters_were_written_is_told_right(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.settings(regions=[HOME, "us-east-1"])
    shop.make("demo")
    shop.publish()
    values = Parameters.values

    def values_of_one_region(self: Parameters, names: Any) -> dict[str, str]:
        if self.region.name == "us-east-1":
            raise MachineError("aws-unreachable", "AWS does not answer in us-east-1")
        return values(self, names)

    monkeypatch.setattr(Parameters, "values", values_of_one_region)
    ran = shop.run("export", "--format", "ssm", "--yes", code=5)
    assert len(shop.moto.calls("PutParameter")) == 1
    assert "1 parameters written, 0 were right" in ran.err


def test_after_a_layer_got_another_name_its_old_one_is_not_handed_out(shop: Shop) -> None:
    shop.make("demo")
    for name in "old", "new":
        shop.publish("--layer-name", f"{name}-{{recipe}}")
    ran = shop.cli("arn", "demo")
    choices = [line for line in ran.err.splitlines() if line.startswith("  ")]
    assert ran.out.endswith(":new-demo:1\n") or len(set(choices)) == 2
    shop.cli("export", "--format", "ssm", "--yes")
    ssm = shop.moto.client("ssm", HOME)
    found = ssm.get_parameters(Names=["/layerbuild/demo/python3.13/x86_64/latest"])["Parameters"]
    ssm.close()
    assert not found or found[0]["Value"].endswith(":new-demo:1")


def test_prune_deletes_what_is_old_and_of_no_use(shop: Shop) -> None:
    client, iam = shop.moto.client("lambda", HOME), shop.moto.client("iam", HOME)
    client.publish_layer_version(LayerName=DEMO, Content={"ZipFile": empty_zip()}, Description="by hand")
    for version in range(2, 9):
        shop.make("demo", packages={"demo": f"{version}.0"})
        shop.publish()
    shop.make("demo", packages={"demo": "6.0"})
    shop.publish()
    arn = f"arn:aws:lambda:{HOME}:{ACCOUNT}:layer:{DEMO}"
    role = iam.create_role(RoleName="functions", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    for function, layer in ("straight", 2), ("with-history", 3):
        client.create_function(
            FunctionName=function,
            Runtime="python3.13",
            Role=role,
            Handler="app.handler",
            Code={"ZipFile": empty_zip()},
            Layers=[f"{arn}:{layer}"],
        )
    client.publish_version(FunctionName="with-history")
    client.update_function_configuration(FunctionName="with-history", Layers=[f"{arn}:8"])

    def verdicts(*arguments: str) -> dict[int, tuple[str, str | None]]:
        rows = shop.run("prune", "--json", "--keep", "2", *arguments).json["versions"]
        return {row["version"]: (row["status"], row["kept_because"]) for row in rows}

    young = verdicts("--yes")
    assert {young[number] for number in (4, 5)} == {("kept", "younger than 30 days")}
    expected = {
        8: ("kept", "one of the newest"),
        7: ("kept", "one of the newest"),
        6: ("kept", "the recipe stands for it now"),
        5: ("planned", None),
        4: ("planned", None),
        3: ("kept", "used by with-history"),
        2: ("kept", "used by straight"),
        1: ("kept", "not published by layerbuild"),
    }
    assert verdicts("--min-age", "0") == expected
    assert "2 would be deleted: --yes does it" in shop.run("prune", "--keep", "2", "--min-age", "0").err
    assert len(shop.held()) == 8
    assert verdicts("--min-age", "0", "--yes") == expected | dict.fromkeys((4, 5), ("deleted", None))
    called = list(shop.moto.requests)
    assert {number for _, _, number in shop.held()} == {1, 2, 3, 6, 7, 8}
    assert {row["version"] for row in shop.catalogue["versions"]} == {2, 3, 6, 7, 8}
    assert refused(shop.run("iam-policy", "--own-account", ACCOUNT, "--for", "prune").json, called) == []
    client.close()
    iam.close()


def empty_zip() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("app.py", "handler = print\n")
    return content.getvalue()


def test_the_policy_allows_all_that_publishing_does(shop: Shop) -> None:
    shop.make("demo")
    called = []
    for arguments in [], ["--public"], ["--no-public"], ["--public", "--fix-permissions"]:
        shop.publish(*arguments)
        called += shop.moto.requests
    (shop.folder / "catalogue.json").unlink()
    shop.publish()
    called += shop.moto.requests
    assert len({seen.operation for seen in called}) == 7
    for purpose in ["--for", "publish"], []:
        assert refused(shop.run("iam-policy", "--own-account", ACCOUNT, *purpose).json, called) == []
    other = shop.run("iam-policy", "--own-account", ACCOUNT, "--region", "us-east-1").json
    assert len(refused(other, called)) == 6, "the policy holds for other regions"


def test_the_policy_allows_to_delete_a_version_that_is_not_what_was_sent(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.make("demo")
    apply = Publisher.apply

    def after_the_archive_was_changed(self: Publisher, *given: Any) -> None:
        (shop.folder / "dist" / "demo-python3.13-x86_64.zip").write_bytes(empty_zip())
        apply(self, *given)

    monkeypatch.setattr(Publisher, "apply", after_the_archive_was_changed)
    assert shop.publish(code=5)[DEMO, HOME]["error"]["code"] == "hash-mismatch"
    assert shop.held() == {}
    called = list(shop.moto.requests)
    assert refused(shop.run("iam-policy", "--own-account", ACCOUNT, "--for", "publish").json, called) == []
