"""Exports: the current layer versions of a catalogue, in the forms in which other tools take them.

Limits of templates: https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from layerbuild.errors import UsageError
from layerbuild.target import runtimes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from layerbuild.catalogue import Content, Version

    Row = tuple[Version, Content]
    _Resource = Callable[[Version, Content, str], str]

_COLUMNS = (
    "recipe target name account region version arn content_digest code_sha256 size published shared packages licence "
    "runtimes architectures"
).split()
# What packages say of themselves; a spreadsheet takes a cell that begins so for a formula (CWE-1236).
_FOREIGN = ("packages", "licence")
_FORMULA = ("=", "+", "-", "@", "\t")

# Outputs of a template, and keys at each level of a mapping; its 500 resources are never reached.
_MOST_LAYERS = _MOST_REGIONS = 200
_LARGEST_TEMPLATE = 1_000_000
# Stands in the mapping where a region lacks a layer: Fn::FindInMap of what is not there fails the whole stack, even
# where its value is not used.
_ABSENT = "none"
# Names that a template's key gives back. Others get a digest into theirs, so that no two keys meet.
_PLAIN_RECIPE = re.compile(r"[a-z][a-z0-9]*(-[a-z][a-z0-9]*)*")
_PLAIN_TARGET = re.compile(r"any|python3\.[0-9]+-(x86_64|arm64)")
# A level of a parameter's name (AWS Systems Manager, PutParameter).
_NOT_IN_LEVEL = re.compile(r"[^a-zA-Z0-9_.-]+")
_LONGEST = 140

# For deprecated runtimes, whose functions may be there already, and take layers as others do.
_DEPRECATED = "    Metadata: {cfn-lint: {config: {ignore_checks: [E2531, E2533, W2531]}}}\n"
_FUNCTION = """\
      Handler: index.handler
      InlineCode: |
        from importlib.metadata import distributions

        def handler(event, context):
            return sorted(one.metadata["Name"] + " " + one.version for one in distributions())
"""
_CDK = '''\
"""ARNs of Lambda layers, by recipe, target and region."""

from aws_cdk import Aws, CfnMapping, Stack, Token
from aws_cdk.aws_lambda import ILayerVersion, LayerVersion
from constructs import Construct

ARNS: dict[tuple[str, str], dict[str, str]] = {
%s}


def layer(scope: Construct, id: str, recipe: str, target: str) -> ILayerVersion:
    """The layer in the region of the scope's stack; where that is not known yet, CloudFormation looks it up.

    Raises KeyError where there is no such layer.
    """
    arns = ARNS.get((recipe, target))
    if arns is None:
        known = [other for one, other in ARNS if one == recipe] or sorted({one for one, _ in ARNS})
        raise KeyError(f"there is no layer {recipe} for {target}; known: {', '.join(known)}")
    region = Stack.of(scope).region
    if Token.is_unresolved(region):
        mapping = CfnMapping(scope, f"{id}Arns", mapping={name: {"Arn": arn} for name, arn in arns.items()})
        return LayerVersion.from_layer_version_arn(scope, id, mapping.find_in_map(Aws.REGION, "Arn"))
    if region not in arns:
        raise KeyError(f"the layer {recipe} for {target} is not in {region}; it is in: {', '.join(arns)}")
    return LayerVersion.from_layer_version_arn(scope, id, arns[region])
'''


def parameter_name(version: Version, prefix: str = "/layerbuild") -> str:
    """The SSM parameter for a layer's current version: ``/layerbuild/pillow/python3.12/x86_64/latest``.

    It is the same in all regions. A layer for all targets has ``any/any``.
    """
    runtime, _, architecture = version.target.partition("-")
    levels = [_level(text or "any") for text in (version.recipe, runtime, architecture)]
    return "/".join([prefix.rstrip("/"), *levels, "latest"])


def _level(text: str) -> str:
    plain = _NOT_IN_LEVEL.sub("-", text)[:_LONGEST]
    return text if text == plain else f"{plain}-{_digest(text)}"


def _key(recipe: str, target: str) -> str:
    """A layer's name in templates, whichever others are in them: ``PillowPython312X8664``."""
    words = re.findall(r"[a-zA-Z0-9]+", f"{recipe} {target.replace('.', '')}")
    key = "".join(word[0].upper() + word[1:] for word in words)
    if _PLAIN_RECIPE.fullmatch(recipe) and _PLAIN_TARGET.fullmatch(target) and len(key) <= _LONGEST:
        return key
    return f"Layer{key[:_LONGEST]}{_digest(recipe, target)}"


def _digest(*texts: str) -> str:
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:10]


def _sorted(rows: Sequence[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (row[0].recipe, row[0].target, *row[0].place, row[0].version))


def _fields(version: Version, content: Content) -> dict[str, Any]:
    known = {**asdict(content), **asdict(version), "content_digest": version.digest}
    return {name: known[name] for name in _COLUMNS}


def _json(rows: Sequence[Row]) -> str:
    return json.dumps({"layers": [_fields(*row) for row in _sorted(rows)]}, indent=2) + "\n"


def _csv(rows: Sequence[Row]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows([_cell(*field) for field in _fields(*row).items()] for row in _sorted(rows))
    return text.getvalue()


def _cell(name: str, value: str | int | tuple[str, ...]) -> str:
    text = _whole("; ".join(value) if isinstance(value, tuple) else str(value))
    # The csv module quotes no carriage return where lines end without one.
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return f"'{text}" if name in _FOREIGN and text.startswith(_FORMULA) else text


def _whole(text: str) -> str:
    """The text in characters only: JSON can hold half a surrogate pair, and then its escape stands for it."""
    return text.encode("utf-8", "backslashreplace").decode()


def _by_layer(rows: Sequence[Row]) -> dict[tuple[str, str], dict[str, Row]]:
    """The rows by recipe and target, then by region, all sorted.

    Raises:
        UsageError: a region has more than one for the same recipe and target.
    """
    found: dict[tuple[str, str], dict[str, Row]] = {}
    clashes = []
    for row in sorted(_sorted(rows), key=lambda row: row[0].region):
        regions = found.setdefault((row[0].recipe, row[0].target), {})
        if (other := regions.setdefault(row[0].region, row)) is not row:
            clashes.append((other[0], row[0]))
    if clashes:
        accounts = sorted({one.account for pair in clashes for one in pair})
        causes = [f"{one.recipe} for {one.target} in {one.region}: {one.arn}, {two.arn}" for one, two in clashes]
        what, hint = f"the accounts {', '.join(accounts)} have the same layers", "choose one with --account"
        if len(accounts) == 1:
            what, hint = f"the account {accounts[0]} has the same layer under two names", "choose other recipes"
        hint += ", or export json or csv, which hold both"
        raise UsageError("export-ambiguous", what, causes=causes[:10], hint=hint)
    return dict(sorted(found.items()))


def _cloudformation(rows: Sequence[Row]) -> str:
    head = "# Puts the ARNs of layers into SSM parameters. Above 51,200 bytes it is deployed from a bucket.\n"
    return _template(head, rows, _parameter, outputs=True)


def _parameter(version: Version, _: Content, arn: str) -> str:
    name = _yaml(parameter_name(version))
    properties = f"      Name: {name}\n      Type: String\n      Value: {arn}\n"
    return f"    Type: AWS::SSM::Parameter\n    Properties:\n{properties}"


def _sam(rows: Sequence[Row]) -> str:
    head = "# A function for each layer, to copy from.\nTransform: AWS::Serverless-2016-10-31\n"
    return _template(head, rows, _function, outputs=False)


def _function(version: Version, content: Content, arn: str) -> str:
    """An example, for the newest runtime that the layer is for."""
    runtime, _, architecture = version.target.partition("-")
    runtime = max(content.runtimes or (runtime,), key=lambda name: (len(name), name))
    architecture = (*content.architectures, architecture)[0]
    deprecated = any(one.name == runtime and one.deprecated for one in runtimes())
    return (
        f"    Type: AWS::Serverless::Function\n{_DEPRECATED if deprecated else ''}    Properties:\n"
        f"      Runtime: {_yaml(runtime)}\n      Architectures: [{_yaml(architecture)}]\n"
        f"{_FUNCTION}      Layers:\n        - {arn}\n"
    )


def _template(head: str, rows: Sequence[Row], resource: _Resource, *, outputs: bool) -> str:
    """A template with a mapping of all ARNs, and a resource for each layer in the regions that have it.

    `resource` makes its lines out of what is published and an expression for the ARN.
    """
    layers = _by_layer(rows)
    if not layers:
        raise UsageError("export-empty", "a template needs a layer, and there is none", hint="publish one first")
    regions = sorted({region for places in layers.values() for region in places})
    mapping, conditions, resources, values = [], [], [], []
    for region in regions:
        mapping.append(f"    {_yaml(region)}:\n")
        for layer, places in layers.items():
            arn = places[region][0].arn if region in places else _ABSENT
            mapping.append(f"      {_key(*layer)}: {_yaml(arn)}\n")
    for layer, places in layers.items():
        key, where = _key(*layer), ""
        found = f'{{"Fn::FindInMap": ["Layers", {{"Ref": "AWS::Region"}}, "{key}"]}}'
        if len(places) < len(regions):
            where = f"    Condition: Has{key}\n"
            conditions.append(f'  Has{key}: {{"Fn::Not": [{{"Fn::Equals": [{found}, "{_ABSENT}"]}}]}}\n')
        resources.append(f"  {key}:\n{where}{resource(*next(iter(places.values())), found)}")
        values.append(f"  {key}:\n{where}    Value: {found}\n")
    text = "".join([head, 'AWSTemplateFormatVersion: "2010-09-09"\nMappings:\n  Layers:\n', *mapping])
    for name, lines in ("Conditions", conditions), ("Resources", resources), ("Outputs", values if outputs else []):
        text += f"{name}:\n{''.join(lines)}" if lines else ""
    if len(layers) > _MOST_LAYERS or len(regions) > _MOST_REGIONS or len(text) > _LARGEST_TEMPLATE:
        what = f"{len(layers)} layers in {len(regions)} regions are too many for a template: {len(text):,} bytes"
        causes = [f"CloudFormation takes {_MOST_LAYERS} layers, {_MOST_REGIONS} regions, {_LARGEST_TEMPLATE:,} bytes"]
        raise UsageError("export-too-large", what, causes=causes, hint="choose recipes or targets")
    return text


def _yaml(text: str) -> str:
    """A scalar in quotes, as in JSON, but for characters that JSON writes as two."""
    parts = (json.dumps(one)[1:-1] if ord(one) <= 0xFFFF else f"\\U{ord(one):08X}" for one in _whole(text))
    return '"' + "".join(parts) + '"'


def _cdk(rows: Sequence[Row]) -> str:
    lines = []
    for (recipe, target), places in _by_layer(rows).items():
        lines.append(f"    ({_python(recipe)}, {_python(target)}): {{\n")
        lines += [f"        {_python(region)}: {_python(row[0].arn)},\n" for region, row in places.items()]
        lines.append("    },\n")
    return _CDK % "".join(lines)


def _python(text: str) -> str:
    return json.dumps(text) if text.isascii() else ascii(text)


def _terraform(rows: Sequence[Row]) -> str:
    arns: dict[str, dict[str, str]] = {}
    for (recipe, target), places in _by_layer(rows).items():
        key = _literal(f"{recipe.replace('/', '%2F')}/{target}")
        for region, row in places.items():
            arns.setdefault(_literal(region), {})[key] = _literal(row[0].arn)
    output = {"description": "ARNs of layers, by region and recipe/target.", "value": "${local.layer_arns}"}
    data = {"locals": {"layer_arns": arns}, "output": {"layer_arns": output}}
    return json.dumps(data, indent=2, sort_keys=True) + "\n"


def _literal(text: str) -> str:
    """A string that Terraform takes as it is: in its JSON, names and values are templates."""
    return _whole(text).replace("${", "$${").replace("%{", "%%{")


# The whole text of a file for the rows given, in whatever order they are.
FORMATS: dict[str, Callable[[Sequence[Row]], str]] = {
    "json": _json, "csv": _csv, "sam": _sam, "cloudformation": _cloudformation, "cdk": _cdk, "terraform": _terraform
}  # fmt: skip
