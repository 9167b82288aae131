"""``layerbuild iam-policy``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from layerbuild.cli.aws import name_option, region_option
from layerbuild.cli.options import recipes_argument
from layerbuild.errors import UsageError

if TYPE_CHECKING:
    from layerbuild.console import Console

_PURPOSES = ("publish", "prune", "verify", "export")


@click.command("iam-policy")
@recipes_argument
@click.option(
    "--for", "purposes", type=click.Choice(_PURPOSES), multiple=True, help="Only for this command. Repeatable."
)
@region_option
@click.option("--own-account", "account", metavar="ID", default="*", show_default=True, help="Whose layers they are.")
@click.option(
    "--partition", type=click.Choice(["aws", "aws-cn", "aws-us-gov"]), default="aws", show_default=True,
    help="Of the regions.",
)  # fmt: skip
@name_option
@click.option("--bucket", metavar="TEMPLATE", help="Where zips go that are too large for a request.")
@click.option("--prefix", default="/layerbuild", show_default=True, help="What names of SSM parameters begin with.")
@click.option("--tag", "tags", metavar="KEY=VALUE", multiple=True, help="Tag of zips and parameters. Repeatable.")
@click.pass_obj
def iam_policy_command(
    console: Console,
    /,
    *,
    recipes: tuple[str, ...],
    purposes: tuple[str, ...],
    regions: tuple[str, ...],
    account: str,
    partition: str,
    name_template: str,
    bucket: str | None,
    prefix: str,
    tags: tuple[str, ...],
) -> int:
    """Print the least IAM policy for what is configured: regions, names of layers, buckets. Asks nobody.

    Without RECIPE: the ones in ./recipes, or any.

    \b
    layerbuild iam-policy --own-account 123456789012 > policy.json
    layerbuild iam-policy pillow --for publish --region eu-west-1
    """
    from layerbuild.publish.iam import least_policy
    from layerbuild.publish.release import NAME_FIELDS, filled
    from layerbuild.recipe import recipe_folders

    if account != "*" and not (len(account) == 12 and account.isascii() and account.isdigit()):
        raise UsageError("usage", f"{account!r} is not an AWS account", hint="an account has twelve digits")
    own = [name for name, (_, shipped) in recipe_folders(Path.cwd()).items() if not shipped]
    names = [
        filled(name_template, dict(zip(NAME_FIELDS, (recipe, "*", "*"), strict=True)), "name")
        for recipe in (recipes or own or ["*"])
    ]
    where = ["*"] if "all" in regions or not regions else list(dict.fromkeys(regions))
    buckets = [filled(bucket, {"account": account, "region": region}, "bucket") for region in where] if bucket else []
    policy = least_policy(
        purposes or _PURPOSES,
        partition=partition,
        account=account,
        regions=where,
        names=list(dict.fromkeys(names)),
        buckets=list(dict.fromkeys(buckets)),
        prefix=prefix,
        all_regions="all" in regions,
        tagged=bool(tags),
    )
    console.document(policy)
    return 0
