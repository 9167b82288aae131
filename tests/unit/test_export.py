"""Exports: each form is read by the tool that it is for, or by what reads its syntax."""

from __future__ import annotations

import ast
import csv
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from layerbuild.catalogue import Content, Version
from layerbuild.catalogue.export import FORMATS, parameter_name
from layerbuild.errors import UsageError
from layerbuild.target import default_targets

Row = tuple[Version, Content]
ACCOUNT = "123456789012"
REGIONS = ("ap-south-1", "eu-central-1", "eu-west-1", "us-east-1", "us-west-2")
RECIPES = [f"recipe-{letter}" for letter in "abcdefghijklmnopqrst"]
TARGETS = [str(target) for target in default_targets()]
TEMPLATES = ("cloudformation", "sam")
BY_REGION = (*TEMPLATES, "cdk", "terraform")
HOSTILE = [
    "quotes \" and ' and \\ and \\n",
    "line\nbreaks\r\nof all\rkinds\n",
    "${path.module} $${x} $$${y} %{if true} %%{z} $ %",
    "\U0001f600 ü \u2028 \x85 \x7f \x00 \t \ufeff",
    "#: - {a}: &b *c !d | > ` @ %",
    "'''\"\"\" + __import__('os') %s {0}",
    "half a pair \ud83d, the other \ude00",
    "../a/b",
    "Null",
    "",
    "x" * 300,
]


def row(recipe: str = "pillow", target: str = "python3.13-x86_64", region: str = "eu-west-1", **changes: Any) -> Row:
    """A layer version of a recipe; `changes` are to fields of either."""
    runtime, _, arch = target.partition("-")
    account = changes.get("account", ACCOUNT)
    name = f"{recipe}-{target}".replace(".", "")
    version = Version(
        account=account,
        region=region,
        name=name,
        version=7,
        recipe=recipe,
        target=target,
        arn=f"arn:aws:lambda:{region}:{account}:layer:{name}:7",
        digest="sha256:" + "ab" * 32,
        code_sha256="A" * 43 + "=",
        size=1234,
        published="2026-11-01T10:00:00.000+0000",
        shared=("public", "account:111111111111"),
    )
    content = Content(
        recipe=recipe,
        target=target,
        packages=(f"{recipe} 1.0", "other 2.0"),
        licence="MIT",
        runtimes=("python3.9", "python3.13", "python3.12") if target == "any" else (runtime,),
        architectures=("x86_64", "arm64") if target == "any" else (arch,),
        unzipped=99999,
        layerbuild="1.0",
    )
    of_version = {name: value for name, value in changes.items() if name in Version.__slots__}
    of_content = {name: value for name, value in changes.items() if name not in of_version}
    return replace(version, **of_version), replace(content, **of_content)


def rows(recipes: Iterable[str], targets: Sequence[str], regions: Sequence[str] = REGIONS) -> list[Row]:
    return [row(recipe, target, region) for recipe in recipes for target in targets for region in regions]


def hostile_rows() -> list[Row]:
    """Rows in which everything that has no form of its own is odd."""
    return [
        row(text, region=f"{text}{number}", arn=f"{text}:{number}", licence=text, packages=(text, text))
        for text in HOSTILE
        for number in range(2)
    ]


def without(some: list[Row], recipe: str, *regions: str) -> list[Row]:
    return [one for one in some if not (one[0].recipe == recipe and one[0].region in regions)]


def whole(text: str) -> str:
    """What stands for text with half a surrogate pair, where only characters are allowed."""
    return text.replace("\ud83d", "\\ud83d").replace("\ude00", "\\ude00")


def yaml(text: str) -> Any:
    return import_module("yaml").safe_load(text)


def refused(form: str, some: list[Row]) -> UsageError:
    with pytest.raises(UsageError) as caught:
        FORMATS[form](some)
    return caught.value


# All forms.


@pytest.mark.parametrize("form", FORMATS)
def test_the_order_of_rows_does_not_matter(form: str) -> None:
    some = [*rows(["b", "a"], ["python3.9-arm64", "any"]), *hostile_rows()]
    text = FORMATS[form](some)
    assert text == FORMATS[form](some[::-1])
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    assert text.encode()


@pytest.mark.parametrize("form", BY_REGION)
def test_two_accounts_with_the_same_layer(form: str) -> None:
    mine, theirs = row(), row(account="999999999999")
    error = refused(form, [mine, theirs, row("other")])
    assert error.code == "export-ambiguous"
    assert ACCOUNT in error.what
    assert "999999999999" in error.what
    assert error.causes == (f"pillow for python3.13-x86_64 in eu-west-1: {mine[0].arn}, {theirs[0].arn}",)
    assert "--account" in (error.hint or "")


@pytest.mark.parametrize("form", BY_REGION)
def test_one_account_with_two_names_for_a_layer(form: str) -> None:
    error = refused(form, [row(), row(name="pillow", arn=f"arn:aws:lambda:eu-west-1:{ACCOUNT}:layer:pillow:1")])
    assert error.code == "export-ambiguous"
    assert "--account" not in (error.hint or "")


@pytest.mark.parametrize("form", BY_REGION)
def test_accounts_that_share_no_layer_of_a_region(form: str) -> None:
    text = FORMATS[form]([row(), row(region="us-east-1", account="999999999999"), row("b", account="999999999999")])
    assert text.count("arn:") == 3


def test_of_many_clashes_some_are_told() -> None:
    some = [row(recipe, account=account) for recipe in RECIPES for account in (ACCOUNT, "999999999999")]
    assert len(refused("cdk", some).causes) == 10


@pytest.mark.parametrize(
    ("recipe", "target", "expected"),
    [
        ("pillow", "python3.12-x86_64", "/layerbuild/pillow/python3.12/x86_64/latest"),
        ("requests", "any", "/layerbuild/requests/any/any/latest"),
        ("Aws_x-1", "python3.9-arm64", "/layerbuild/Aws_x-1/python3.9/arm64/latest"),
    ],
)
def test_a_parameter_s_name(recipe: str, target: str, expected: str) -> None:
    version = row(recipe, target)[0]
    assert parameter_name(version) == expected
    assert parameter_name(version, "/my/layers/") == expected.replace("layerbuild", "my/layers")


def test_parameters_of_odd_recipes_are_named_as_ssm_allows() -> None:
    names = [parameter_name(row(text)[0]) for text in [*HOSTILE, "a b", "a-b", "a/b"] if text]
    assert len(set(names)) == len(names)
    for name in names:
        assert name.count("/") == 5
        assert len(name) < 300
        assert set(name) <= set("/.-_abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")


# Lists.


def test_json_is_all_of_it() -> None:
    assert json.loads(FORMATS["json"]([row("b"), row("a", "any")]))["layers"][1] == {
        "recipe": "b",
        "target": "python3.13-x86_64",
        "name": "b-python313-x86_64",
        "account": ACCOUNT,
        "region": "eu-west-1",
        "version": 7,
        "arn": f"arn:aws:lambda:eu-west-1:{ACCOUNT}:layer:b-python313-x86_64:7",
        "content_digest": "sha256:" + "ab" * 32,
        "code_sha256": "A" * 43 + "=",
        "size": 1234,
        "published": "2026-11-01T10:00:00.000+0000",
        "shared": ["public", "account:111111111111"],
        "packages": ["b 1.0", "other 2.0"],
        "licence": "MIT",
        "runtimes": ["python3.13"],
        "architectures": ["x86_64"],
    }
    assert json.loads(FORMATS["json"]([])) == {"layers": []}


def test_json_holds_odd_text_and_several_accounts() -> None:
    some = [*hostile_rows(), row(), row(account="999999999999")]
    found = json.loads(FORMATS["json"](some))["layers"]
    assert sorted((one["recipe"], one["arn"], one["licence"], *one["packages"]) for one in found) == sorted(
        (version.recipe, version.arn, content.licence, *content.packages) for version, content in some
    )


def read_csv(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


def test_csv_is_all_of_it() -> None:
    text = FORMATS["csv"]([row("b"), row("a", "any"), row("a", "any", account="999999999999")])
    assert "\r" not in text
    assert len(text.splitlines()) == 4
    found = read_csv(text)
    listed = json.loads(FORMATS["json"]([row("b")]))["layers"][0]
    assert found[2] == {
        name: "; ".join(value) if isinstance(value, list) else str(value) for name, value in listed.items()
    }
    assert found[2]["packages"] == "b 1.0; other 2.0"
    assert [one["account"] for one in found] == [ACCOUNT, "999999999999", ACCOUNT]
    assert read_csv(FORMATS["csv"]([])) == []


def test_csv_holds_odd_text() -> None:
    found = read_csv(FORMATS["csv"](hostile_rows()))
    told = {whole(text).replace("\r\n", "\n").replace("\r", "\n") for text in HOSTILE}
    assert {one["licence"] for one in found} == told
    assert {one["packages"] for one in found} == {f"{text}; {text}" for text in told}


@pytest.mark.parametrize("licence", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", '=cmd|" /C calc"!A0'])
def test_a_spreadsheet_finds_no_formula(licence: str) -> None:
    assert read_csv(FORMATS["csv"]([row(licence=licence)]))[0]["licence"] == f"'{licence}"


# Templates.


def complaints(form: str, some: list[Row], folder: Path, *options: str) -> list[str]:
    """What cfn-lint has against a template, warnings too."""
    path = folder / "template.yaml"
    path.write_text(FORMATS[form](some), "utf-8")
    command = [str(Path(sys.executable).with_name("cfn-lint")), "--format", "json", "--regions", *REGIONS, *options]
    ran = subprocess.run([*command, "--template", str(path)], cwd=folder, capture_output=True, text=True)
    assert not ran.stderr
    return [f"{one['Rule']['Id']} {one['Message']}" for one in json.loads(ran.stdout or "[]")]


@pytest.mark.parametrize("form", TEMPLATES)
def test_cfn_lint_accepts_a_large_catalogue(form: str, tmp_path: Path) -> None:
    # By the calendar, one of these runtimes will have been deprecated some day.
    assert complaints(form, rows(RECIPES, TARGETS[-8:]), tmp_path, "--ignore-checks", "W2531") == []


@pytest.mark.parametrize("form", TEMPLATES)
def test_cfn_lint_accepts_layers_of_some_regions_and_odd_names(form: str, tmp_path: Path) -> None:
    some = without(rows(["a", "b", "Odd_name-1"], ["any", TARGETS[-1]]), "a", "eu-west-1", "us-east-1")
    odd = [
        row(text, arn=f"arn:aws:lambda:eu-west-1:{ACCOUNT}:layer:odd:{number}") for number, text in enumerate(HOSTILE)
    ]
    assert complaints(form, [*some, *odd], tmp_path) == []


@pytest.mark.parametrize("form", TEMPLATES)
def test_cfn_lint_accepts_deprecated_runtimes(form: str, tmp_path: Path) -> None:
    assert complaints(form, rows(["a"], ["python3.9-x86_64", "python3.9-arm64"]), tmp_path) == []


def test_a_linter_s_warnings_are_left_out_for_deprecated_runtimes_only() -> None:
    resources = yaml(FORMATS["sam"](rows(["a"], ["python3.9-arm64", "python3.13-arm64"])))["Resources"]
    assert [name for name, one in resources.items() if "Metadata" in one] == ["APython39Arm64"]


@pytest.mark.parametrize("form", TEMPLATES)
def test_a_template_keeps_odd_text(form: str) -> None:
    some = hostile_rows()
    mapping = yaml(FORMATS[form](some))["Mappings"]["Layers"]
    assert mapping.keys() == {whole(version.region) for version, _ in some}
    for version, _ in some:
        assert set(mapping[whole(version.region)].values()) == {whole(version.arn), "none"}


def test_keys_are_distinct_and_do_not_depend_on_other_layers() -> None:
    recipes = ["a-b", "ab", "a_b", "A-B", "AB", "a--b", "ab-", "a1", "a-1", "a-1b", "a", "b-python3", "1", *HOSTILE]
    targets = ["any", "python3.13-x86_64", "python3.1-x86_64", "python3.13x8664", "Any", "a n y", ""]
    keys: list[str] = []
    for recipe in recipes:
        for target in targets:
            alone = yaml(FORMATS["cloudformation"]([row(recipe, target)]))
            keys += alone["Resources"]
            assert [*alone["Outputs"]] == [*alone["Mappings"]["Layers"]["eu-west-1"]] == [*alone["Resources"]]
    assert len(set(keys)) == len(recipes) * len(targets)
    assert all(key.isascii() and key.isalnum() and key[0].isalpha() and len(key) <= 200 for key in keys)
    together = yaml(FORMATS["cloudformation"](rows(recipes, targets, REGIONS[:1])))
    assert set(together["Resources"]) == set(keys)
    assert "ABPython313X8664" in keys


@mock_aws
def test_a_stack_in_each_region(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    some = without(rows(["a", "b"], ["any", "python3.13-arm64"], REGIONS[:3]), "a", "eu-west-1")
    template = FORMATS["cloudformation"](some)
    for region in REGIONS[:3]:
        client = boto3.client("cloudformation", region_name=region)
        client.create_stack(StackName="layers", TemplateBody=template)
        stack = client.describe_stacks(StackName="layers")["Stacks"][0]
        assert stack["StackStatus"] == "CREATE_COMPLETE"
        wanted = {parameter_name(version): version.arn for version, _ in some if version.region == region}
        found = boto3.client("ssm", region_name=region).get_parameters_by_path(Path="/layerbuild", Recursive=True)
        assert {one["Name"]: one["Value"] for one in found["Parameters"]} == wanted
        assert sorted(one["OutputValue"] for one in stack["Outputs"]) == sorted(wanted.values())


@pytest.mark.parametrize("form", TEMPLATES)
def test_nothing_is_looked_up_that_is_not_there(form: str) -> None:
    some = without(rows(["a", "b"], ["any", "python3.13-arm64"]), "a", "eu-west-1", "us-east-1")
    template = yaml(FORMATS[form](some))
    assert template["Conditions"].keys() == {"HasAAny", "HasAPython313Arm64"}
    for region, arns in template["Mappings"]["Layers"].items():
        assert arns.keys() == template["Resources"].keys()
        absent = {key for key, arn in arns.items() if arn == "none"}
        assert absent == ({"AAny", "APython313Arm64"} if region in ("eu-west-1", "us-east-1") else set())
    for key, condition in template["Conditions"].items():
        looked_up = {"Fn::FindInMap": ["Layers", {"Ref": "AWS::Region"}, key.removeprefix("Has")]}
        assert condition == {"Fn::Not": [{"Fn::Equals": [looked_up, "none"]}]}
    conditions = {key: one.get("Condition") for key, one in template["Resources"].items()}
    assert conditions == {
        "AAny": "HasAAny",
        "APython313Arm64": "HasAPython313Arm64",
        "BAny": None,
        "BPython313Arm64": None,
    }


def test_an_example_function_fits_its_layer() -> None:
    template = yaml(FORMATS["sam"](rows(["a"], ["any", "python3.12-arm64"], REGIONS[:1])))
    functions = {key: one["Properties"] for key, one in template["Resources"].items()}
    assert {key: (one["Runtime"], one["Architectures"]) for key, one in functions.items()} == {
        "AAny": ("python3.13", ["x86_64"]),
        "APython312Arm64": ("python3.12", ["arm64"]),
    }
    assert functions["AAny"]["Layers"] == [{"Fn::FindInMap": ["Layers", {"Ref": "AWS::Region"}, "AAny"]}]
    names: dict[str, Any] = {}
    exec(functions["AAny"]["InlineCode"], names)
    assert any(one.startswith("pytest ") for one in names["handler"]({}, None))


def test_an_example_for_a_layer_that_names_no_runtime() -> None:
    template = yaml(FORMATS["sam"]([row("a", "python3.12-arm64", runtimes=(), architectures=())]))
    found = template["Resources"]["APython312Arm64"]["Properties"]
    assert (found["Runtime"], found["Architectures"]) == ("python3.12", ["arm64"])


@pytest.mark.parametrize("form", TEMPLATES)
def test_what_a_template_cannot_hold(form: str) -> None:
    most = rows([f"r{number}" for number in range(200)], ["any"], REGIONS[:1])
    assert len(yaml(FORMATS[form](most))["Resources"]) == 200
    many_layers = [*most, row("one-more", "any")]
    many_regions = rows(["a"], ["any"], [f"region-{number}" for number in range(201)])
    many_bytes = rows([f"a-long-name-{number}" for number in range(180)], ["any"], [f"r-{n}" for n in range(80)])
    for some in (many_layers, many_regions, many_bytes):
        error = refused(form, some)
        assert error.code == "export-too-large"
        assert error.hint == "choose recipes or targets"
    assert refused(form, []).code == "export-empty"


# Programs.


def read_cdk(text: str) -> dict[tuple[str, str], dict[str, str]]:
    """The module's ARNs, without running it."""
    (assignment,) = [one for one in ast.parse(text).body if isinstance(one, ast.AnnAssign)]
    assert assignment.value is not None
    found: dict[tuple[str, str], dict[str, str]] = ast.literal_eval(assignment.value)
    return found


@pytest.mark.parametrize("some", [rows(["a", "b"], ["any", "python3.9-arm64"]), hostile_rows(), []])
def test_cdk_has_the_arns(some: list[Row]) -> None:
    found = read_cdk(FORMATS["cdk"](some))
    assert {(*layer, region): arn for layer, arns in found.items() for region, arn in arns.items()} == {
        (version.recipe, version.target, version.region): version.arn for version, _ in some
    }


APP = """
import json, sys
from aws_cdk import App, Environment, Stack
from aws_cdk.aws_lambda import Code, Function, Runtime
from layers import layer

app = App(outdir=sys.argv[1])
there = Stack(app, "There", env=Environment(account="123456789012", region="us-east-1"))
anywhere = Stack(app, "Anywhere")
for stack in (there, anywhere):
    found = [layer(stack, "First", "a", "any"), layer(stack, "Second", "b", "python3.13-x86_64")]
    code = Code.from_inline("def handler(event, context): pass")
    Function(stack, "It", runtime=Runtime.PYTHON_3_13, handler="index.handler", code=code, layers=found)
errors = []
for recipe, target, region in ("c", "any", "us-east-1"), ("a", "all", "us-east-1"), ("a", "any", "eu-west-1"):
    stack = Stack(app, f"No-{recipe}-{target}", env=Environment(account="123456789012", region=region))
    try:
        layer(stack, "First", recipe, target)
    except KeyError as error:
        errors += error.args
assembly = app.synth()
templates = [assembly.get_stack_by_name(name).template for name in ("There", "Anywhere")]
print(json.dumps({"templates": templates, "errors": errors}))
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="AWS CDK needs node")
def test_cdk_runs(tmp_path: Path) -> None:
    some = without(rows(["a", "b"], ["any", "python3.13-x86_64"]), "a", "eu-west-1")
    (tmp_path / "layers.py").write_text(FORMATS["cdk"](some), "utf-8")
    (tmp_path / "app.py").write_text(APP, "utf-8")
    quiet = {"JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION": "1", "JSII_RUNTIME_PACKAGE_CACHE": "disabled"}
    command = [sys.executable, "app.py", str(tmp_path / "out")]
    ran = subprocess.run(command, cwd=tmp_path, env=os.environ | quiet, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout.splitlines()[-1])
    arns = {(version.recipe, version.target, version.region): version.arn for version, _ in some}
    there, anywhere = told["templates"]
    (function,) = [one for one in there["Resources"].values() if one["Type"] == "AWS::Lambda::Function"]
    wanted = [arns["a", "any", "us-east-1"], arns["b", "python3.13-x86_64", "us-east-1"]]
    assert function["Properties"]["Layers"] == wanted
    (function,) = [one for one in anywhere["Resources"].values() if one["Type"] == "AWS::Lambda::Function"]
    layers = ("a", "any"), ("b", "python3.13-x86_64")
    for layer, found in zip(layers, function["Properties"]["Layers"], strict=True):
        name, region, key = found["Fn::FindInMap"]
        assert region == {"Ref": "AWS::Region"}
        assert {(*layer, region): one[key] for region, one in anywhere["Mappings"][name].items()} == {
            place: arn for place, arn in arns.items() if place[:2] == layer
        }
    assert told["errors"] == [
        "there is no layer c for any; known: a, b",
        "there is no layer a for all; known: any, python3.13-x86_64",
        "the layer a for any is not in eu-west-1; it is in: ap-south-1, eu-central-1, us-east-1, us-west-2",
    ]


def test_terraform_has_the_arns() -> None:
    some = without(rows(["a", "b"], ["any", "python3.13-x86_64"]), "a", "eu-west-1")
    found = json.loads(FORMATS["terraform"](some))
    assert {
        (region, key): arn for region, arns in found["locals"]["layer_arns"].items() for key, arn in arns.items()
    } == {(version.region, f"{version.recipe}/{version.target}"): version.arn for version, _ in some}
    assert found["output"]["layer_arns"]["value"] == "${local.layer_arns}"
    assert json.loads(FORMATS["terraform"]([]))["locals"] == {"layer_arns": {}}


def test_terraform_finds_no_expression_in_names() -> None:
    text = "${path.module} $${x} %{if true} $ % {"
    found = json.loads(FORMATS["terraform"]([row(text, region=text, arn=text)]))
    escaped = "$${path.module} $$${x} %%{if true} $ % {"
    assert found["locals"]["layer_arns"] == {escaped: {f"{escaped}/python3.13-x86_64": escaped}}


@pytest.mark.skipif(shutil.which("terraform") is None, reason="there is no terraform here")
def test_terraform_reads_it(tmp_path: Path) -> None:
    some = hostile_rows()
    (tmp_path / "layers.tf.json").write_text(FORMATS["terraform"](some), "utf-8")
    env = os.environ | {"CHECKPOINT_DISABLE": "1", "TF_CLI_CONFIG_FILE": os.devnull}
    for command in (["init"], ["apply", "-auto-approve"], ["output", "-json"]):
        ran = subprocess.run(["terraform", *command], cwd=tmp_path, env=env, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["layer_arns"]["value"] == {
        whole(version.region): {f"{whole(version.recipe).replace('/', '%2F')}/{version.target}": whole(version.arn)}
        for version, _ in some
    }
