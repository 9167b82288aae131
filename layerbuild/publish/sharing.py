"""With whom a layer version is shared: what is wanted, what a policy of Lambda's says, and how the two differ.

A grant is ``public``, ``account:<id>`` or ``organization:<id>``. Anything else that a policy allows is kept as
``statement:<id>``: it is never wanted, and shown as what it is.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from layerbuild.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

PUBLIC = "public"
ACTION = "lambda:GetLayerVersion"
_ACCOUNT = re.compile(r"[0-9]{12}")
# As AddLayerVersionPermission takes them.
_ORGANIZATION = re.compile(r"o-[a-z0-9]{10,32}")
_PRINCIPAL = re.compile(r"(?:arn:[a-z-]+:iam::)?([0-9]{12})(?::root)?")
_ORG_KEY = "aws:PrincipalOrgID"


def wanted_grants(*, public: bool, accounts: Sequence[str], organization: str | None) -> tuple[str, ...]:
    """The grants that the settings ask for, sorted.

    Raises:
        UsageError: an account or organisation is none.
    """
    for account in accounts:
        if not _ACCOUNT.fullmatch(account):
            raise UsageError("usage", f"{account!r} is not an AWS account", hint="an account has twelve digits")
    if organization and not _ORGANIZATION.fullmatch(organization):
        raise UsageError("usage", f"{organization!r} is not an AWS organisation", hint="such as o-a1b2c3d4e5")
    found = {f"account:{account}" for account in accounts}
    if organization:
        found.add(f"organization:{organization}")
    return tuple(sorted({*found, PUBLIC} if public else found))


def statement_id(grant: str) -> str:
    """The name of the policy statement that gives this grant: the same whoever publishes."""
    return f"layerbuild-{grant.rpartition(':')[2]}"


def permission(grant: str) -> dict[str, str]:
    """The parameters of AddLayerVersionPermission for a grant."""
    kind, _, value = grant.partition(":")
    found = {"StatementId": statement_id(grant), "Action": ACTION}
    if kind == "account":
        return {**found, "Principal": value}
    return {**found, "Principal": "*", **({"OrganizationId": value} if kind == "organization" else {})}


def grants_of_policy(policy: str) -> dict[str, str]:
    """What a layer version's policy allows: the id of each statement, and its grant."""
    try:
        statements = json.loads(policy)["Statement"]
        return {str(one["Sid"]): _grant(one) for one in statements if one.get("Effect") == "Allow"}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {"?": "statement:?"}


def _grant(statement: Mapping[str, Any]) -> str:
    unknown = f"statement:{statement['Sid']}"
    principal = statement.get("Principal")
    if isinstance(principal, dict):
        principal = principal.get("AWS") if set(principal) == {"AWS"} else None
    actions = statement.get("Action")
    if not isinstance(principal, str) or actions not in (ACTION, [ACTION]):
        return unknown
    condition = statement.get("Condition") or {}
    organization = condition.get("StringEquals", {}).get(_ORG_KEY)
    if principal == "*":
        if not condition:
            return PUBLIC
        only = len(condition) == 1 and len(condition["StringEquals"]) == 1 if organization else False
        return f"organization:{organization}" if only and isinstance(organization, str) else unknown
    match = _PRINCIPAL.fullmatch(principal)
    return f"account:{match[1]}" if match and not condition else unknown


@dataclass(frozen=True, kw_only=True, slots=True)
class Sharing:
    """What is to change about a version's grants: `add` and `remove`; `drift` tells what others have changed.

    `remove` has grants; which statements give them is looked up when they are removed.
    """

    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    drift: tuple[str, ...] = ()


def compare(
    wanted: Iterable[str], recorded: Iterable[str], actual: Mapping[str, str] | None, *, fix: bool
) -> Sharing:
    """What to do about a version's grants; after that, the catalogue says that what is wanted is so.

    What the settings have changed since the catalogue was written is done. What someone else has changed since is
    told, and put right only when asked.

    Args:
        wanted: by the settings.
        recorded: in the catalogue.
        actual: in AWS, statement to grant; None where it was not read.
        fix: whether to put right what others have changed.
    """
    target, ours = set(wanted), set(recorded)
    if actual is None:
        return Sharing(add=tuple(sorted(target - ours)), remove=tuple(sorted(ours - target)))
    found = set(actual.values())
    lost, foreign = (target & ours) - found, found - ours - target
    add = target - found - (set() if fix else lost)
    remove = (found & ours) - target | (foreign if fix else set())
    drift = [f"not shared with {spoken(one)} any more" for one in sorted(lost)]
    drift += [f"shared with {spoken(one)} by someone else" for one in sorted(foreign)]
    return Sharing(add=tuple(sorted(add)), remove=tuple(sorted(remove)), drift=tuple(drift))


def without(grants: Iterable[str], others: Iterable[str]) -> tuple[str, ...]:
    """The grants that are not among the others, sorted."""
    return tuple(sorted(set(grants) - set(others)))


def spoken(grant: str) -> str:
    """A grant as a plan tells it."""
    kind, _, value = grant.partition(":")
    return {
        PUBLIC: "everyone (public)",
        "account": f"account {value}",
        "organization": f"organisation {value}",
    }.get(kind, f"whom the statement {value} says")
