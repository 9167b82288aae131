"""What layerbuild needs to be allowed: the IAM action of each call, and the least policy for what is configured.

Actions and what they can be restricted to: AWS's Service Authorization Reference, of Lambda, S3, SSM and EC2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

# boto's name of a call to the action that allows it; others are named alike, of Lambda.
_ACTIONS = {
    "GetLayerVersionByArn": "lambda:GetLayerVersion",
    "HeadBucket": "s3:ListBucket",
    "HeadObject": "s3:GetObject",
    "GetObject": "s3:GetObject",
    "PutObject": "s3:PutObject",
    "DeleteObject": "s3:DeleteObject",
    "DescribeRegions": "ec2:DescribeRegions",
    "GetCallerIdentity": "sts:GetCallerIdentity",
    "PutParameter": "ssm:PutParameter",
    "GetParameters": "ssm:GetParameters",
    "AddTagsToResource": "ssm:AddTagsToResource",
}


def action_of(operation: str) -> str:
    """The IAM action that allows a call."""
    return _ACTIONS.get(operation, f"lambda:{operation}")


def least_policy(
    purposes: Sequence[str],
    *,
    partition: str,
    account: str,
    regions: Sequence[str],
    names: Sequence[str],
    buckets: Sequence[str],
    prefix: str,
    all_regions: bool = False,
    tagged: bool = False,
) -> dict[str, Any]:
    """The least policy that allows what is asked for.

    Args:
        purposes: the commands: ``publish``, ``prune``, ``verify``, ``export``.
        partition: such as ``aws``.
        account: twelve digits, or ``*``.
        regions: their names, or ``*`` alone.
        names: of layers; a ``*`` stands for anything.
        buckets: for archives that do not go inline.
        prefix: of SSM parameters.
        all_regions: whether the regions are asked for.
        tagged: whether objects and parameters get tags.
    """
    layers = [f"arn:{partition}:lambda:{region}:{account}:layer:{name}" for region in regions for name in names]
    versions = [f"{layer}:*" for layer in layers]
    statements: list[dict[str, Any]] = []

    def allow(sid: str, actions: Sequence[str], resources: Sequence[str], condition: Any = None) -> None:
        statement = {"Sid": sid, "Effect": "Allow", "Action": sorted(actions), "Resource": list(resources)}
        statements.append({**statement, **({"Condition": condition} if condition else {})})

    if "publish" in purposes:
        allow("PublishLayers", ["lambda:ListLayerVersions", "lambda:PublishLayerVersion"], layers)
        # One that Lambda has made something else of is deleted again.
        names_of = ("AddLayerVersionPermission", "GetLayerVersionPolicy", "RemoveLayerVersionPermission")
        actions = ["lambda:DeleteLayerVersion", "lambda:GetLayerVersion", *(f"lambda:{name}" for name in names_of)]
        allow("ShareVersions", actions, versions)
        if buckets:
            arns = [f"arn:{partition}:s3:::{bucket}" for bucket in buckets]
            objects = ["s3:AbortMultipartUpload", "s3:DeleteObject", "s3:GetObject", "s3:PutObject"]
            allow("FindBuckets", ["s3:ListBucket"], arns)
            # A version of an object is deleted by another action, where the bucket keeps versions.
            objects += ["s3:DeleteObjectVersion", "s3:GetObjectVersion", *(["s3:PutObjectTagging"] if tagged else [])]
            allow("SendArchives", objects, [f"{arn}/layerbuild/*" for arn in arns])
    if "verify" in purposes and "publish" not in purposes:
        allow("ReadVersions", ["lambda:GetLayerVersion"], versions)
    if "prune" in purposes:
        if "publish" not in purposes:
            allow("ListVersions", ["lambda:ListLayerVersions"], layers)
        if "publish" not in purposes:
            allow("DeleteVersions", ["lambda:DeleteLayerVersion"], versions)
        where = None if list(regions) == ["*"] else {"StringEquals": {"aws:RequestedRegion": list(regions)}}
        allow("FindUsers", ["lambda:ListFunctions"], ["*"], where)
    if "export" in purposes:
        actions = ["ssm:GetParameters", "ssm:PutParameter", *(["ssm:AddTagsToResource"] if tagged else [])]
        arns = [f"arn:{partition}:ssm:{region}:{account}:parameter{prefix}/*" for region in regions]
        allow("WriteParameters", actions, arns)
    if all_regions:
        allow("FindRegions", ["ec2:DescribeRegions"], ["*"])
    return {"Version": "2012-10-17", "Statement": statements}
