"""Publishing, as far as nobody is asked: what is to be done, who may use it, what it is called, what may go."""

from __future__ import annotations

import itertools
import json
import re
import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore import exceptions
from hypothesis import given, settings
from hypothesis import strategies as st

from layerbuild.catalogue import Content, Version
from layerbuild.errors import LayerbuildError, MachineError, UsageError
from layerbuild.process import Interrupted, interrupted
from layerbuild.publish import aws_errors, iam, pace, prune, sharing, verify
from layerbuild.publish.plan import (
    ACTIONS,
    Known,
    Listed,
    Seen,
    Step,
    Wishes,
    changes_of,
    counts,
    made_public,
    matching,
    plan_layer,
)
from layerbuild.publish.release import Release, bucket_name, filled, mark, marked, release_of, same_names
from tests.trees import File, Link, Table, dist, tree

ROOT = Path(__file__).parents[2]
ACCOUNT, REGION = "123456789012", "eu-west-1"
SHA = "A" * 43 + "="
DIGESTS = [f"sha256:{letter * 64}" for letter in "abc"]
GRANTS = ("account:111111111111", "account:222222222222", "organization:o-a1b2c3d4e5", "public")
ODD = "statement:odd"
CONTENT = Content(
    recipe="demo", target="python3.13-arm64", packages=("demo 1.0",), licence="MIT", runtimes=("python3.13",),
    architectures=("arm64",), unzipped=99, layerbuild="1.0",
)  # fmt: skip


def release(digest: str = DIGESTS[0], size: int = 1000, problems: tuple[str, ...] = ()) -> Release:
    return Release(
        name="demo-python313-arm64", archive=Path("demo.zip"), digest=digest, code_sha256=SHA, size=size,
        description=f"demo 1.0 {mark(digest)}", content=CONTENT, problems=problems,
    )  # fmt: skip


# What is to be done. A layer in one region is played through: planned, carried out as `apply` does it, planned again.


@dataclass
class Place:
    """A layer as AWS has it, version to description and policy; and what the catalogue says of it."""

    there: dict[int, tuple[str, dict[str, str]]]
    rows: dict[int, Version]
    wishes: Wishes
    release: Release
    asked: bool = False

    def listed(self) -> tuple[Listed, ...]:
        return tuple(
            Listed(version=number, arn=f"arn:{number}", description=self.there[number][0], published="2026")
            for number in sorted(self.there, reverse=True)
        )

    def seen(self) -> Seen:
        """As `survey` asks: no further than it has to."""
        current = next((row for row in self.rows.values() if row.current), None)
        found = None if self.wishes.force else matching(self.release, self.listed(), current)
        if found is None:
            return Seen(versions=self.listed())
        policy = self.there[found.version][1]
        shown = tuple(one for one in self.listed() if one.version >= found.version)
        seen = Seen(versions=shown, complete=len(shown) == len(self.there))
        if current is None or current.version != found.version or current.digest != self.release.digest:
            return replace(seen, known=Known(code_sha256=SHA, size=1, grants=dict(policy)))
        asked = self.asked or set(self.wishes.grants) != set(current.shared)
        return replace(seen, grants=dict(policy) if asked else None)

    def plan(self) -> list[Step]:
        rows = [self.rows[number] for number in sorted(self.rows)]
        return plan_layer(self.release, ACCOUNT, REGION, self.seen(), rows, self.wishes)

    def apply(self, steps: Sequence[Step]) -> None:
        for step in steps:
            for number in step.gone:
                self.rows.pop(number)
        for step in [step for step in steps if step.action in ("create", "record", "share")]:
            number = step.version.version if step.version else max([0, *self.there, *self.rows]) + 1
            _, policy = self.there.setdefault(number, (self.release.description, {}))
            for grant in step.sharing.add:
                assert policy.setdefault(sharing.statement_id(grant), grant) == grant
            for name in [name for name, grant in policy.items() if grant in step.sharing.remove]:
                del policy[name]
            if step.action != "share":
                self.rows = {key: replace(row, current=False) for key, row in self.rows.items()}
                self.rows[number] = row(number, self.release.digest)
            self.rows[number] = replace(self.rows[number], shared=step.shared)


def row(number: int, digest: str, shared: Sequence[str] = (), *, current: bool = True) -> Version:
    return Version(
        account=ACCOUNT, region=REGION, name="demo-python313-arm64", version=number, recipe="demo",
        target="python3.13-arm64", arn=f"arn:{number}", digest=digest, code_sha256=SHA, size=1, published="2026",
        shared=tuple(shared), current=current,
    )  # fmt: skip


grants = st.sets(st.sampled_from(GRANTS)).map(lambda found: tuple(sorted(found)))
policies = st.builds(
    lambda ours, other, odd: {
        **{sharing.statement_id(grant): grant for grant in ours},
        **({"by-hand": other} if other else {}),
        **({"odd": ODD} if odd else {}),
    },
    grants,
    st.none() | st.sampled_from(GRANTS),
    st.booleans(),
)
descriptions = st.sampled_from([f"demo {mark(digest)}" for digest in DIGESTS] + ["by someone else", ""])


@st.composite
def places(draw: st.DrawFn) -> Place:
    """Anything; half of them as it mostly is, with a current version that has the content."""
    there = draw(st.dictionaries(st.integers(1, 5), st.tuples(descriptions, policies), max_size=4))
    wanted, current = draw(st.sampled_from(DIGESTS)), draw(st.none() | st.integers(1, 6))
    rows = {
        number: row(number, draw(st.sampled_from(DIGESTS)), draw(grants), current=number == current)
        for number in draw(st.sets(st.integers(1, 6), max_size=4))
    }
    usual: bool = draw(st.booleans())
    if there and usual:
        number = draw(st.sampled_from(sorted(there)))
        rows = {key: replace(one, current=False) for key, one in rows.items()}
        rows[number] = row(number, wanted, draw(grants))
        there[number] = (f"demo {mark(wanted)}", there[number][1])
    bucket = draw(st.sampled_from([None, "layers-{account}-{region}"]))
    wishes = Wishes(grants=draw(grants), bucket=bucket, force=draw(st.booleans()), fix=draw(st.booleans()))
    size = draw(st.sampled_from([1000, 52_428_799, 52_428_800]))
    return Place(there, rows, wishes, release(wanted, size), asked=draw(st.booleans()))


plays = settings(max_examples=400)


@plays
@given(places())
def test_every_plan_keeps_its_promises(place: Place) -> None:
    steps = place.plan()
    first, older = steps[0], steps[1:]
    there = {one.version for one in place.listed() if marked(one.description) == mark(place.release.digest)}
    if there and not place.wishes.force:
        assert first.action in ("record", "share", "skip")
        assert first.version is not None
        current = {number for number, one in place.rows.items() if one.current} & there
        assert first.version.version == max(current or there), "the catalogue's, or the newest"
    else:
        blocked = not place.release.inline and place.wishes.bucket is None
        assert first.action == ("blocked" if blocked else "create")
    expected = f"layers-{ACCOUNT}-{REGION}" if first.action == "create" and not place.release.inline else None
    assert first.bucket == expected
    numbers = [step.version.version for step in steps if step.version]
    assert len(numbers) == len(set(numbers)), "nothing is done twice to one version"
    for step in older:
        assert (step.action, step.sharing.add) == ("share", ())
        assert step.sharing.remove
    for step in steps:
        assert not set(step.sharing.add) & set(step.sharing.remove)
        assert set(step.sharing.add) <= set(place.wishes.grants)
        assert set(step.shared) <= set(place.wishes.grants)
        if step.action in ("skip", "blocked", "failed"):
            assert (step.sharing.add, step.sharing.remove) == ((), ())
        assert set(step.gone) <= set(place.rows) - set(place.there)
        assert json.loads(json.dumps(step.as_json()))["action"] == step.action
        assert len(changes_of(step)) == sum(map(len, (step.sharing.add, step.sharing.remove, step.sharing.drift)))
    assert sum(counts(steps).values()) == len(steps)
    assert list(counts(steps)) == list(ACTIONS)
    assert made_public(steps) == [step for step in steps if "public" in step.sharing.add]


@plays
@given(places())
def test_what_was_carried_out_is_not_planned_again(place: Place) -> None:
    steps = place.plan()
    dropped = {
        (number, grant) for number, one in place.rows.items() for grant in set(one.shared) - set(place.wishes.grants)
    }
    place.apply(steps)
    if steps[0].action == "blocked":
        return
    place.wishes = replace(place.wishes, force=False)
    again = place.plan()
    assert [step.action for step in again] == ["skip"]
    assert all(set(one.shared) <= set(place.wishes.grants) for one in place.rows.values())
    (current,) = [one for one in place.rows.values() if one.current]
    assert (current.digest, current.shared) == (place.release.digest, place.wishes.grants)
    for number, grant in dropped:
        if number in place.there:
            assert place.there[number][1].get(sharing.statement_id(grant)) is None, "no one keeps what was withdrawn"
    if place.wishes.fix and (place.asked or steps[0].action in ("create", "record")):
        assert set(place.there[current.version][1].values()) == set(place.wishes.grants)


@plays
@given(places())
def test_what_others_changed_is_only_put_right_when_asked(place: Place) -> None:
    step, seen = place.plan()[0], place.seen()
    actual = seen.known.grants if seen.known else seen.grants
    if actual is None or step.version is None:
        return
    there, wanted = set(actual.values()), set(place.wishes.grants)
    if place.wishes.fix:
        assert (there | set(step.sharing.add)) - set(step.sharing.remove) == wanted
    else:
        assert ODD not in step.sharing.remove
        if seen.known is None:
            recorded = set(place.rows[step.version.version].shared)
            assert not set(step.sharing.remove) & (there - recorded), "what someone else added stays"
            assert not set(step.sharing.add) & (wanted & recorded - there), "what they removed is not added"
            assert bool(step.sharing.drift) == bool(there - recorded - wanted or (wanted & recorded) - there)


def test_what_others_have_done_already_is_only_written_down() -> None:
    for recorded, wanted in (((), ("public",)), (("public",), ())):
        granted = {sharing.statement_id(grant): grant for grant in wanted}
        there = {1: (release().description, granted)}
        place = Place(there, {1: row(1, DIGESTS[0], recorded)}, Wishes(grants=wanted), release())
        (step,) = place.plan()
        assert (step.action, step.sharing.add, step.sharing.remove, step.shared) == ("share", (), (), wanted)


def test_a_catalogue_that_says_other_content_of_a_version_is_put_right() -> None:
    place = Place({1: (release().description, {})}, {1: row(1, DIGESTS[1])}, Wishes(), release())
    (step,) = place.plan()
    assert (step.action, step.reasons) == ("record", ("version 1 has this content already",))
    place.apply([step])
    assert place.rows[1].digest == DIGESTS[0]


def test_what_is_as_it_should_be_is_skipped_and_asks_for_nothing() -> None:
    grants = ("account:111111111111", "public")
    place = Place({3: (release().description, {})}, {3: row(3, DIGESTS[0], grants)}, Wishes(grants=grants), release())
    assert place.seen().grants is None
    (step,) = place.plan()
    assert (step.action, step.sharing, step.reasons) == ("skip", sharing.Sharing(), ())


@pytest.mark.parametrize(
    ("there", "rows", "force", "why"),
    [
        ({}, {}, False, "there is no such layer yet"),
        ({1: ("x", {})}, {}, False, "its content is new"),
        ({}, {1: row(1, DIGESTS[1])}, False, "there is no version of it any more"),
        ({1: ("x", {})}, {2: row(2, DIGESTS[0])}, False, "version 2 of the catalogue is gone"),
        ({1: (release().description, {})}, {}, True, "asked for by --force"),
    ],
)
def test_a_plan_says_why_there_is_to_be_a_new_version(there: Any, rows: Any, force: bool, why: str) -> None:
    (step,) = Place(there, rows, Wishes(force=force), release()).plan()
    assert (step.action, step.reasons) == ("create", (why,))


def test_what_is_wrong_is_blocked_and_what_cannot_be_asked_has_failed() -> None:
    rows = [row(1, DIGESTS[0], ("public",))]
    bad = release(problems=("it is empty",))
    (step,) = plan_layer(bad, ACCOUNT, REGION, Seen(), rows, Wishes())
    assert (step.action, step.reasons, step.gone) == ("blocked", ("it is empty",), ())
    error = MachineError("aws-unreachable", "AWS does not answer")
    (step,) = plan_layer(release(), ACCOUNT, REGION, Seen(error=error), rows, Wishes())
    assert (step.action, step.error, step.gone) == ("failed", error, ()), "nothing is struck out of the catalogue"
    assert step.as_json()["error"]["code"] == "aws-unreachable"


def test_other_bytes_with_the_same_content_are_told() -> None:
    place = Place({1: (release().description, {})}, {}, Wishes(), replace(release(), code_sha256="B" * 43 + "="))
    (step,) = place.plan()
    assert step.action == "record"
    assert "its bytes differ from the archive here; `layerbuild verify` says in what" in step.reasons


# Who may use it


@given(grants, grants, st.none() | policies, st.booleans())
def test_grants_are_compared(wanted: Any, recorded: Any, actual: Any, fix: bool) -> None:
    found = sharing.compare(wanted, recorded, actual, fix=fix)
    add, remove = set(found.add), set(found.remove)
    there = set(recorded if actual is None else actual.values())
    assert not add & remove
    assert not add & there, "what is there need not be added"
    assert remove <= there
    after = (there | add) - remove
    if fix or actual is None:
        assert after == set(wanted)
    assert set(wanted) - set(recorded) <= after, "what the settings have come to want is done"
    assert not (set(recorded) - set(wanted)) & after, "so is what they no longer want"
    if not fix:
        assert not add & set(wanted) & set(recorded) or actual is None, "what others took away is not given again"
        assert not remove - set(recorded), "what others gave is not taken away"
    if not found.drift:
        assert after == set(wanted)


def statement(grant: str, **changes: Any) -> dict[str, Any]:
    """A statement as Lambda makes it of AddLayerVersionPermission."""
    asked = sharing.permission(grant)
    who = asked["Principal"]
    condition = (
        {"StringEquals": {"aws:PrincipalOrgID": asked["OrganizationId"]}} if "OrganizationId" in asked else None
    )
    return {
        "Sid": asked["StatementId"],
        "Effect": "Allow",
        "Principal": who if who == "*" else {"AWS": f"arn:aws:iam::{who}:root"},
        "Action": asked["Action"],
        "Resource": "arn:aws:lambda:eu-west-1:123456789012:layer:demo:1",
        **({"Condition": condition} if condition else {}),
        **changes,
    }


def policy(*statements: Any) -> str:
    return json.dumps({"Version": "2012-10-17", "Id": "default", "Statement": list(statements)})


def test_what_is_granted_is_read_back_as_it_was() -> None:
    found = sharing.grants_of_policy(policy(*map(statement, GRANTS)))
    assert found == {sharing.statement_id(grant): grant for grant in GRANTS}
    for grant in GRANTS:
        asked = sharing.permission(grant)
        assert re.fullmatch("[a-zA-Z0-9-_]{1,100}", asked["StatementId"])
        assert re.fullmatch(r"\d{12}|\*", asked["Principal"])


ORGANIZATION = {"StringEquals": {"aws:PrincipalOrgID": "o-a1b2c3d4e5"}}


@pytest.mark.parametrize(
    ("changes", "grant"),
    [
        ({"Principal": "*"}, "public"),
        ({"Principal": {"AWS": "*"}}, "public"),
        ({"Principal": {"AWS": "*"}, "Condition": ORGANIZATION}, "organization:o-a1b2c3d4e5"),
        ({"Principal": "*", "Condition": {}}, "public"),
        ({"Principal": {"AWS": "arn:aws:iam::111111111111:root"}}, "account:111111111111"),
        ({"Principal": {"AWS": "arn:aws-cn:iam::111111111111:root"}}, "account:111111111111"),
        ({"Principal": {"AWS": "111111111111"}}, "account:111111111111"),
        ({"Action": ["lambda:GetLayerVersion"]}, "account:111111111111"),
        # Whatever else it is: neither more nor less than that.
        ({"Principal": {"AWS": ["111111111111", "222222222222"]}}, "statement:s"),
        ({"Principal": {"AWS": ["*"]}}, "statement:s"),
        ({"Principal": {"AWS": "arn:aws:iam::111111111111:user/me"}}, "statement:s"),
        ({"Principal": {"AWS": "AIDAFAKEFAKEFAKEFAKE"}}, "statement:s"),
        ({"Principal": {"Service": "lambda.amazonaws.com"}}, "statement:s"),
        ({"Principal": {"AWS": "*", "Service": "lambda.amazonaws.com"}}, "statement:s"),
        ({"Principal": None, "NotPrincipal": "*"}, "statement:s"),
        ({"Action": "lambda:*"}, "statement:s"),
        ({"Action": ["lambda:GetLayerVersion", "lambda:DeleteLayerVersion"]}, "statement:s"),
        ({"Condition": ORGANIZATION}, "statement:s"),
        ({"Principal": "*", "Condition": {"StringLike": ORGANIZATION["StringEquals"]}}, "statement:s"),
        ({"Principal": "*", "Condition": {**ORGANIZATION, "Bool": {"aws:SecureTransport": "true"}}}, "statement:s"),
        ({"Principal": "*", "Condition": {"StringEquals": {"aws:PrincipalOrgID": ["o-1", "o-2"]}}}, "statement:s"),
        ({"Effect": "Deny"}, None),
    ],
)
def test_every_shape_of_a_policy_is_taken_for_what_it_is(changes: Mapping[str, Any], grant: str | None) -> None:
    found = sharing.grants_of_policy(
        policy(statement("account:111111111111", Sid="s", **changes), statement("public"))
    )
    assert found == {**({"s": grant} if grant else {}), "layerbuild-public": "public"}
    if grant == "statement:s":
        assert sharing.spoken(grant) == "whom the statement s says"


PARTS = st.sampled_from(["Statement", "Sid", "Effect", "Principal", "AWS", "Condition", "StringEquals"])
anything = st.recursive(
    st.none() | st.integers() | st.text(), lambda child: st.lists(child) | st.dictionaries(PARTS, child)
)


@given(st.text() | anything.map(json.dumps))
def test_garbage_is_no_grant(text: str) -> None:
    assert not set(sharing.grants_of_policy(text).values()) & set(GRANTS)


def test_grants_are_checked_before_they_are_asked_for() -> None:
    found = sharing.wanted_grants(public=True, accounts=["111111111111"] * 2, organization="o-a1b2c3d4e5")
    assert found == ("account:111111111111", "organization:o-a1b2c3d4e5", "public")
    assert sharing.wanted_grants(public=False, accounts=[], organization=None) == ()
    for account in ("", "12345678901", "1234567890123", "١٢٣٤٥٦٧٨٩٠١٢", "123456789012\n", "*"):
        with pytest.raises(UsageError, match="is not an AWS account"):
            sharing.wanted_grants(public=False, accounts=[account], organization=None)
    for organization in ("o-123", "a1b2c3d4e5", "o-A1B2C3D4E5", "o-a1b2c3d4e5\n"):
        with pytest.raises(UsageError, match="is not an AWS organisation"):
            sharing.wanted_grants(public=False, accounts=[], organization=organization)


# What it is called


def described(
    packages: Sequence[tuple[str, str]] = (("demo", "1.0"),), description: str = "{packages}", name: str = "{recipe}",
    licence: str = "MIT", **changes: Any,
) -> Release:  # fmt: skip
    manifest = {
        "recipe": "demo", "target": "python3.13-arm64", "runtimes": ["python3.13"], "architectures": ["arm64"],
        "code_sha256": SHA, "content_digest": DIGESTS[0], "zipped": 100, "unzipped": 200, "layerbuild": "1.0",
        "distributions": [{"name": one, "version": two, "licence": licence} for one, two in packages], **changes,
    }  # fmt: skip
    return release_of(manifest, Path("demo.zip"), name=name, description=description)


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
templates = st.lists(
    st.sampled_from(
        ["{packages}", "{recipe}", "{python} ", "{arch}", "{{", "}}", " for ", "x" * 100, mark(DIGESTS[1])]
    )
).map("".join)


@settings(max_examples=200)
@given(st.lists(st.tuples(words, words), max_size=40), templates)
def test_a_description_ends_with_its_mark_whole_however_long(packages: Any, template: str) -> None:
    text = described(packages, template).description
    assert len(text) <= 256
    assert text.endswith(mark(DIGESTS[0]))
    assert marked(text) == marked(text + " \n") == mark(DIGESTS[0])
    assert text == text.lstrip()


def test_a_description_tells_as_many_packages_as_there_is_room_for() -> None:
    assert described([("a", "1"), ("b", "2")]).description == f"a 1, b 2 {mark(DIGESTS[0])}"
    text = described([(f"package{n}", "1.0") for n in range(100)], "with {packages}.").description
    found = re.fullmatch(r"with (package\d+ 1\.0, )+(\d+) more\. \[layerbuild:a{32}\]", text)
    assert found is not None
    assert int(found[2]) == 100 - text.count("package")
    assert len(text) > 256 - len("package99 1.0, ")


@given(st.sampled_from(DIGESTS), st.text())
def test_a_mark_is_read_at_the_end_and_nowhere_else(digest: str, text: str) -> None:
    assert marked(f"{text}{mark(digest)}") == mark(digest)
    assert marked(f"{mark(digest)} {text}x") is None
    assert marked(text) is None
    assert len(mark(digest)) == 45


def test_licences_are_told_once_each_and_cut_to_what_lambda_takes() -> None:
    assert described([("a", "1"), ("b", "1")]).content.licence == "MIT"
    assert described([("a", "1")], licence="").content.licence == ""
    assert len(described(licence="x" * 512).content.licence) == 512
    cut = described(licence="x" * 513).content.licence
    assert (len(cut), cut[-4:]) == (512, "x...")


def test_a_merged_layer_can_be_published() -> None:
    assert described(distributions=[{"name": "a", "version": "1", "unzipped": 1, "zipped": 1}]).content.licence == ""


@given(st.text(st.sampled_from("{}!:.[]0ab -_é"), max_size=12) | st.sampled_from(["{recipe}" * 40, "x" * 141]))
def test_a_name_is_one_that_lambda_takes_or_is_refused(template: str) -> None:
    refused, found = None, ""
    try:
        found = described(name=template).name
    except UsageError as error:
        refused = error.code
    good = re.fullmatch("[a-zA-Z0-9-_]{1,140}", found) is not None
    assert refused in ([None] if good else ["bad-template", "bad-layer-name"])


@pytest.mark.parametrize(
    "template",
    ["{nothing}", "{}", "{0}", "{recipe!r}", "{recipe:>9}", "{recipe.__class__}", "{recipe[0]}", "{recipe", "a}", "{",
     "{recipe:{python}}", "{recipe!}", "{ recipe }", "{packages}"],
)  # fmt: skip
def test_a_template_with_anything_but_known_fields_is_refused(template: str) -> None:
    with pytest.raises(UsageError) as caught:
        described(name=template)
    assert caught.value.code == "bad-template"
    assert template in caught.value.what
    if template != "{packages}":
        with pytest.raises(UsageError):
            described(description=template)


def test_braces_in_what_is_filled_in_stand_for_themselves() -> None:
    assert filled("{{{recipe}}}", {"recipe": "{arch}"}, "name") == "{{arch}}"


def test_a_layer_for_several_targets_is_called_any() -> None:
    found = described(name="{recipe}-{python}-{arch}", runtimes=["python3.12", "python3.13"])
    assert found.name == "demo-any-arm64"
    assert described(name="{python}_{arch}").name == "python313_arm64"
    assert same_names([found, found]) == [
        "demo-python3.13-arm64 and demo-python3.13-arm64 would both be demo-any-arm64"
    ]
    assert same_names([found, described()]) == []


def test_what_lambda_would_refuse_is_told_before() -> None:
    assert described().problems == ()
    assert described(unzipped=262_143_999).problems == ()
    assert "Lambda takes less than 262,144,000" in described(unzipped=262_144_000).problems[0]
    assert described(runtimes=[f"python3.{n}" for n in range(16)]).problems == (
        "it is for 16 runtimes; Lambda takes 15",
    )
    assert described(zipped=0).problems == ("it is empty",)
    assert (described(zipped=52_428_799).inline, described(zipped=52_428_800).inline) == (True, False)


@pytest.mark.parametrize("template", ["layers-{account}-{region}", "abc", "a.b-c9", "x" * 63])
def test_a_bucket_is_called_by_its_template(template: str) -> None:
    assert bucket_name(template, ACCOUNT, REGION) == template.format(account=ACCOUNT, region=REGION)


@pytest.mark.parametrize(
    "template",
    ["", "ab", "x" * 64, "Layers", "a_b", "-abc", "abc-", "{recipe}", "{account", "s3://abc", "abc/def", "äbc",
     "abc\n",     "my..bucket", "192.168.5.4"],
)  # fmt: skip
def test_what_cannot_name_a_bucket_is_refused(template: str) -> None:
    with pytest.raises(UsageError) as caught:
        bucket_name(template, ACCOUNT, REGION)
    assert caught.value.code == "bad-template"


# What may go

NOW = datetime(2026, 11, 22, tzinfo=UTC)
dates = st.integers(-5, 60).map(lambda days: (NOW - timedelta(days=days)).isoformat().replace("+00:00", "+0000"))


@settings(max_examples=300)
@given(
    st.dictionaries(st.integers(1, 7), st.tuples(descriptions, dates | st.sampled_from(["", "soon", "2020-01-01"]))),
    st.sets(st.integers(1, 7)),
    st.sets(st.integers(1, 7), max_size=2),
    st.integers(0, 7),
    st.integers(0, 3),
    st.integers(0, 20),
)
def test_nothing_goes_but_what_is_old_ours_and_of_no_use(
    there: Any, recorded: Any, used: Any, current: int, keep: int, age: int
) -> None:
    recorded |= {current}
    versions = [Listed(version=n, arn=f"arn:{n}", description=a, published=b) for n, (a, b) in there.items()]
    rows = [row(number, DIGESTS[0], current=number == current) for number in recorded]
    users = {f"arn:{number}": ["thumbnail", "resize"] for number in used}
    judged = prune.judge(versions, rows, users, keep=keep, min_age=timedelta(days=age), now=NOW)
    assert [one.version for one, _ in judged] == sorted(there, reverse=True)
    for place, (one, reason) in enumerate(judged):
        stays = (
            place < keep
            or (one.version == current and current in recorded)
            or one.version in used
            or (one.version not in recorded and marked(one.description) is None)
            or one.published in ("", "soon", "2020-01-01")
            or NOW - datetime.fromisoformat(one.published) < timedelta(days=age)
        )
        assert (reason is not None) is stays, reason
        verdict = prune.Verdict(region=REGION, name="demo", version=one, reason=reason).as_json()
        assert verdict["status"] == ("kept" if stays else "planned")


# What it takes to be allowed


@given(
    st.sets(st.sampled_from(["publish", "prune", "verify", "export"])), st.booleans(), st.booleans(), st.booleans(),
    st.sampled_from([["*"], ["eu-west-1"], ["eu-west-1", "us-east-1"]]),
)  # fmt: skip
def test_a_policy_names_what_is_wanted_and_nothing_else(
    purposes: set[str], buckets: bool, everywhere: bool, tagged: bool, regions: Sequence[str]
) -> None:
    found = iam.least_policy(
        sorted(purposes), partition="aws-cn", account=ACCOUNT, regions=regions, names=["demo-*", "other"],
        buckets=["mine"] if buckets else [], prefix="/layers", all_regions=everywhere, tagged=tagged,
    )  # fmt: skip
    assert json.loads(json.dumps(found)) == found
    assert (found["Version"], set(found)) == ("2012-10-17", {"Version", "Statement"})
    sids = [one["Sid"] for one in found["Statement"]]
    assert len(sids) == len(set(sids))
    allowed = dict[str, set[str]]()
    for one in found["Statement"]:
        assert re.fullmatch("[A-Za-z0-9]+", one["Sid"])
        assert one["Effect"] == "Allow"
        for action in one["Action"]:
            assert re.fullmatch("(lambda|s3|ssm|ec2):[A-Za-z]+", action)
            allowed.setdefault(action, set()).update(one["Resource"])
    for action, resources in allowed.items():
        if action in ("lambda:ListFunctions", "ec2:DescribeRegions"):
            assert resources == {"*"}
        elif action.startswith("s3:"):
            objects = action != "s3:ListBucket"
            assert resources == {f"arn:aws-cn:s3:::mine{'/layerbuild/*' if objects else ''}"}
        elif action.startswith("ssm:"):
            assert resources == {f"arn:aws-cn:ssm:{region}:{ACCOUNT}:parameter/layers/*" for region in regions}
        else:
            end = "" if action in ("lambda:ListLayerVersions", "lambda:PublishLayerVersion") else ":*"
            places = itertools.product(regions, ["demo-*", "other"])
            assert resources == {f"arn:aws-cn:lambda:{one}:{ACCOUNT}:layer:{two}{end}" for one, two in places}
    calls = {
        "publish": "ListLayerVersions GetLayerVersion GetLayerVersionPolicy PublishLayerVersion "
        "AddLayerVersionPermission RemoveLayerVersionPermission",
        "prune": "ListLayerVersions ListFunctions DeleteLayerVersion",
        "verify": "GetLayerVersionByArn",
        "export": "GetParameters PutParameter",
    }
    needed = {iam.action_of(call) for purpose in purposes for call in calls[purpose].split()}
    if "publish" in purposes and buckets:
        needed |= {iam.action_of(call) for call in ("HeadBucket", "PutObject", "HeadObject", "DeleteObject")}
    assert needed <= set(allowed)
    assert ("ec2:DescribeRegions" in allowed) is everywhere
    assert ("ssm:AddTagsToResource" in allowed) is (tagged and "export" in purposes)
    assert ("s3:PutObjectTagging" in allowed) is (tagged and buckets and "publish" in purposes)


def test_who_publishes_may_take_back_what_came_out_wrong() -> None:
    given: dict[str, Any] = {"partition": "aws", "account": "*", "regions": ["*"], "names": ["*"]}
    found = iam.least_policy(["publish"], **given, buckets=[], prefix="/x")
    assert iam.action_of("DeleteLayerVersion") in {action for one in found["Statement"] for action in one["Action"]}


# How fast it goes


class Clock:
    """Time that passes only where it is waited for, each thread on its own."""

    def __init__(self) -> None:
        self.now = 0.0
        self.left: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.left.append(self.now + seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(pace, "time", found)
    monkeypatch.setattr(pace, "pause", lambda _: None)
    return found


def most(times: Sequence[float]) -> int:
    """The most that fall into one second."""
    times = sorted(times)
    return max(bisect_left(times, start + 1) - place for place, start in enumerate(times))


def test_threads_together_keep_to_the_pace(clock: Clock) -> None:
    one = pace.Pace()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: one.wait(), range(200)))
    assert 12 <= most(clock.left) <= 15
    assert clock.left[0] == 0, "the first need not wait"


def test_in_real_time_too() -> None:
    one, left = pace.Pace(), list[float]()

    def go(_: int) -> None:
        one.wait()
        left.append(time.monotonic())

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(go, range(32)))
    assert most(left) <= 15 + 3, "a busy machine wakes threads late, and together"


def test_a_refusal_stops_all_and_slows_down_for_a_while(clock: Clock) -> None:
    one = pace.Pace()
    one.refused(5)
    for _ in range(200):
        one.wait()
    assert clock.left[0] == 5
    gaps = [round(after - before, 9) for before, after in itertools.pairwise(clock.left)]
    assert gaps[0] == pytest.approx(2 / 12)
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] == pytest.approx(1 / 12)
    for _ in range(50):
        one.refused(0)
    one.wait()
    one.wait()
    assert clock.left[-1] - clock.left[-2] <= 1 + 1e-9, "it never comes to a stop"


@pytest.mark.parametrize(("told", "seconds"), [("0", 0), ("3", 3), ("60", 60), ("86400", 60), ("9" * 5000, 60)])
def test_aws_says_how_long_to_wait(told: str, seconds: float) -> None:
    assert pace.wait_before(1, told) == seconds


@pytest.mark.parametrize("told", [None, "", "-5", "1.5", "²", "soon", "nan", "Wed, 21 Oct 2037 07:28:00 GMT", " 3"])
def test_else_it_is_longer_each_time_and_never_very_long(told: str | None) -> None:
    for attempt in range(1, 20):
        longest = min(0.5 * 2**attempt, 60)
        assert longest / 2 <= pace.wait_before(attempt, told) <= longest


def test_a_pause_ends_when_the_user_interrupts() -> None:
    pace.pause(0.001)
    interrupted.set()
    with pytest.raises(Interrupted):
        pace.pause(60)


# What AWS refuses

KEY, SECRET, TOKEN = (
    "AKIAIOSFODNN7EXAMPLE",
    "wJalrXUtnFEMI/K7MDENG/bPxRfiCY+EXAMPLEKEY",
    "FwoGZXIvYXdzE/EXAMPLE+TOKEN==",
)
SIGNATURE = "fe5f80f77d5fa3beca038a248ff027d0445342fe2855ddc963176630326f1024"
LEAKS = [
    f"The Canonical String for this request should have been\n'POST\n/\n\nx-amz-security-token:{TOKEN}\n{SIGNATURE}'",
    f"The String-to-Sign should have been\n'AWS4-HMAC-SHA256\n20261122T000000Z\n{SIGNATURE}'",
    f"https://host/snapshots/x?X-Amz-Security-Token={TOKEN.replace('/', '%2F')}&X-Amz-Signature={SIGNATURE}",
    f"https://user:{SIGNATURE}@proxy:8080/",
]  # fmt: skip
ERRORS = (ROOT / "docs/errors.md").read_text("utf-8")
CODES = sorted(
    aws_errors._THROTTLED
    | aws_errors._EXPIRED
    | aws_errors._BAD_CREDENTIALS
    | aws_errors._DENIED
    | {"CodeStorageExceededException", "NoSuchBucket", "NoSuchKey", "404", "301", "PermanentRedirect", "Whatever", ""}
    | {"RequestEntityTooLargeException", "InvalidParameterValueException", "PolicyLengthExceededException"}
)


def refusal(code: str, message: str = "no", status: int = 400, operation: str = "PublishLayerVersion") -> Any:
    response: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return exceptions.ClientError(response, operation)


def text_of(error: LayerbuildError) -> str:
    assert f"`{error.code}`" in ERRORS
    text = json.dumps(error.as_json())
    for secret in (KEY, SECRET, TOKEN, TOKEN.replace("/", "%2F"), SIGNATURE):
        assert secret not in text
    return text


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("operation", ["PublishLayerVersion", "PutObject", "GetCallerIdentity", "PutParameter"])
def test_no_refusal_tells_a_secret(code: str, operation: str) -> None:
    for leak, status in itertools.product([*LEAKS, f"{KEY} {SECRET} {TOKEN}", ""], [400, 403, 404, 429, 500, 503]):
        error = refusal(code, f"it went wrong: {leak}", status, operation)
        found = aws_errors.translated(error, operation, REGION, [KEY, SECRET, TOKEN])
        assert REGION in text_of(found) or code in aws_errors._EXPIRED
        assert all(len(cause) <= 300 for cause in found.causes)
        if leak in LEAKS:  # without knowing the credentials, too
            text_of(aws_errors.translated(error, operation, REGION, []))


@settings(max_examples=100)
@given(st.lists(st.sampled_from([*LEAKS, KEY, SECRET, TOKEN, " ", "x" * 290, "\n"]), max_size=6).map("".join))
def test_no_message_however_made_up_tells_a_secret(message: str) -> None:
    text_of(aws_errors.translated(refusal("Odd", message), "PutObject", REGION, [KEY, SECRET, TOKEN]))
    error = exceptions.UnknownEndpointError(service_name=message, region_name=REGION)
    text_of(aws_errors.translated(error, "PutObject", REGION, [KEY, SECRET, TOKEN]))


@pytest.mark.parametrize(
    ("code", "status", "operation", "expected", "word"),
    [
        ("TooManyRequestsException", 429, "PublishLayerVersion", "aws-throttled", "wait"),
        ("Whatever", 429, "PublishLayerVersion", "aws-throttled", "wait"),
        ("SlowDown", 503, "PutObject", "aws-throttled", "wait"),
        ("ServiceException", 500, "PublishLayerVersion", "aws-unreachable", "lambda:PublishLayerVersion"),
        ("ExpiredTokenException", 403, "ListLayerVersions", "credentials-expired", "log in again"),
        ("UnrecognizedClientException", 403, "ListLayerVersions", "credentials-unknown", "partition"),
        ("AccessDeniedException", 403, "GetLayerVersionByArn", "aws-denied", "lambda:GetLayerVersion "),
        ("AccessDenied", 403, "HeadBucket", "aws-denied", "s3:ListBucket"),
        ("CodeStorageExceededException", 400, "PublishLayerVersion", "layer-storage-full", "prune"),
        ("NoSuchBucket", 404, "PutObject", "bucket-unusable", "make it first"),
        ("404", 404, "HeadBucket", "bucket-unusable", "make it first"),
        ("301", 301, "HeadBucket", "bucket-unusable", "in another region"),
        ("RequestEntityTooLargeException", 413, "PublishLayerVersion", "aws-refused", "--bucket"),
        ("ParameterLimitExceeded", 400, "PutParameter", "aws-refused", "ssm:PutParameter"),
    ],
)
def test_each_refusal_says_what_to_do(code: str, status: int, operation: str, expected: str, word: str) -> None:
    error = refusal(code, "no", status, operation)
    found = aws_errors.translated(error, operation, REGION, [])
    assert found.code == expected
    assert word in text_of(found)
    assert aws_errors.is_throttled(error) is (expected == "aws-throttled")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (exceptions.NoCredentialsError(), "no-credentials"),
        (exceptions.PartialCredentialsError(provider="env", cred_var="aws_secret_access_key"), "no-credentials"),
        (exceptions.ProfileNotFound(profile="work"), "no-credentials"),
        (exceptions.TokenRetrievalError(provider="sso", error_msg="expired"), "no-credentials"),
        (exceptions.NoRegionError(), "unknown-region"),
        (exceptions.EndpointConnectionError(endpoint_url=LEAKS[2]), "aws-unreachable"),
        (exceptions.ConnectTimeoutError(endpoint_url=LEAKS[2]), "aws-unreachable"),
        (exceptions.ReadTimeoutError(endpoint_url=LEAKS[2]), "aws-unreachable"),
        (exceptions.ConnectionClosedError(endpoint_url=LEAKS[2]), "aws-unreachable"),
        (exceptions.HTTPClientError(error=SECRET), "aws-unreachable"),
        (exceptions.ProxyConnectionError(proxy_url=LEAKS[3]), "aws-unreachable"),
        (exceptions.SSLError(endpoint_url=LEAKS[3], error=f"certificate {SECRET}"), "aws-unreachable"),
    ],
)
def test_what_does_not_come_from_aws(error: Exception, expected: str) -> None:
    found = aws_errors.translated(error, "ListLayerVersions", REGION, [SECRET])
    assert found.code == expected
    assert found.exit_code == (2 if expected == "unknown-region" else 4)
    text_of(found)
    never_left = ("EndpointConnectionError", "ConnectTimeoutError", "ProxyConnectionError", "SSLError")
    assert aws_errors.was_not_sent(error) is (type(error).__name__ in never_left)


# What is published, against what is made again

DEMO = dist("demo", files={"demo/__init__.py": "", "demo/a.py": "a = 1\n"})


def differences(published: Table, rebuilt: Table) -> list[tuple[Any, ...]]:
    found = verify.compare(tree(published), tree(rebuilt))
    assert [one.path for one in found] == sorted({one.path for one in found})
    return [tuple(one.as_json().values()) for one in found]


OTHER = "the same version of demo, another file: it was changed, or left out"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"python/more.py": ""}, [("python/more.py", "published", None, "no package lists it")]),
        ({"python/demo/a.py": "a = 2\n"}, [("python/demo/a.py", "content", "demo", OTHER)]),
        ({"python/demo/a.py": None}, [("python/demo/a.py", "rebuilt", "demo", OTHER)]),
        ({"python/demo/a.py": Link("b.py")}, [("python/demo/a.py", "content", "demo", OTHER)]),
        ({"python/demo/a.py": File("a = 1\n", 0o755)}, [
            ("python/demo/a.py", "mode", "demo", "0755 published, 0644 rebuilt")]),
        ({"python/demo/a.py": File("a = 1\n", None)}, [
            ("python/demo/a.py", "mode", "demo", "no mode published, 0644 rebuilt")]),
        ({"python/demo/__pycache__/a.cpython-313.pyc": b"x"}, [
            ("python/demo/__pycache__/a.cpython-313.pyc", "published", None,
             "bytecode: another CPython compiled it, or other modules were compiled")]),
        ({"python/demo-1.0.dist-info/RECORD": ""}, [
            ("python/demo-1.0.dist-info/RECORD", "content", "demo", "it lists other files")]),
    ],
)  # fmt: skip
def test_a_difference_is_told_with_its_reason(changes: Mapping[str, Any], expected: Any) -> None:
    published = {path: spec for path, spec in {**DEMO, **changes}.items() if spec is not None}
    assert differences(published, DEMO) == expected


def test_another_version_explains_all_files_of_a_package() -> None:
    files = {"demo/__init__.py": "", "demo/b.py": ""}
    for _, kind, package, why in (found := differences(DEMO, dist("demo", "2.0", files=files))):
        assert (package, why) == ("demo", "demo 1.0 published, 2.0 rebuilt"), kind
    assert len(found) == 6
    assert {row[3] for row in differences({}, DEMO)} == {"demo none published, 1.0 rebuilt"}
    assert {row[3] for row in differences(DEMO, {})} == {"demo 1.0 published, none rebuilt"}


tables = st.dictionaries(st.sampled_from([f"python/{one}" for one in ("a.py", "b.py", "c/d.py", "c/e.pyc", "f.so")]),
    st.sampled_from(["", "1", File("1", 0o755), Link("a.py"), Link("b.py")]))  # fmt: skip


@given(tables, tables)
def test_exactly_what_is_not_the_same_is_told(one: Table, other: Table) -> None:
    unlike = {path for path in {*one, *other} if one.get(path) != other.get(path)}
    assert {row[0] for row in differences(one, other)} == unlike
    kinds = {"published": "rebuilt", "rebuilt": "published"}
    turned = [(path, kinds.get(kind, kind)) for path, kind, *_ in differences(other, one)]
    assert [row[:2] for row in differences(one, other)] == turned


def test_a_name_says_what_a_layer_was_made_of() -> None:
    recipes, architectures = ["pillow", "any", "a-b", "a"], ["x86_64", "arm64"]
    template = "{recipe}-{python}-{arch}"
    found = verify.origin("pillow-python313-arm64", template, recipes, ["python3.13"], ["arm64"])
    assert found == ("pillow", "python3.13-arm64")
    assert verify.origin("pillow-any-any", template, recipes, ["python3.13"], architectures) == ("pillow", "any")
    for name, other, what in (
        ("unknown", template, "no recipe here would be called unknown"),
        (
            "pillow-python313-arm64",
            "pillow-{python}-{arch}",
            "several recipes would be called pillow-python313-arm64",
        ),
        ("pillow", "{recipe}", "several recipes would be called pillow"),
    ):
        with pytest.raises(UsageError) as caught:
            verify.origin(name, other, recipes, ["python3.12", "python3.13"], architectures)
        assert (caught.value.code, caught.value.what) == ("recipe-unknown", what)
        assert bool(caught.value.causes) is what.startswith("several")
