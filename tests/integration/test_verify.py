"""`layerbuild verify` and `check` of versions in a Lambda on loopback: what is the same, and in what it differs."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import shutil
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.aws_server import ACCOUNT, Answer, AwsServer, Call, LayerVersion, arn
from tests.conftest import Ran
from tests.index_server import IndexServer
from tests.integration.test_hostile_archives import LINK, Member, build, demo, swollen
from tests.integration.test_make import write_recipe
from tests.publishing import pretend_to_have_credentials
from tests.wheels import make_wheel

REGION = "eu-west-1"
RUNTIME = f"python3.{sys.version_info.minor}"  # that which can be compiled for here
TARGET = f"{RUNTIME}-x86_64"
NAME = f"demo-{RUNTIME.replace('.', '')}-x86_64"
SITE = f"python/lib/{RUNTIME}/site-packages"
DIFFERENCE = {
    "type": "object",
    "additionalProperties": False,
    "required": ["path", "kind", "package", "why"],
    "properties": {
        "path": {"type": "string", "minLength": 1},
        "kind": {"enum": ["published", "rebuilt", "content", "mode"]},
        "package": {"type": ["string", "null"]},
        "why": {"type": "string", "minLength": 1},
    },
}
SHA256 = {"type": "string", "pattern": "^[A-Za-z0-9+/]{43}=$"}
# As docs/json.md has it.
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["arn", "verified", "recipe", "target", "code_sha256", "mark", "differences"],
    "properties": {
        "arn": {"type": "string"},
        "verified": {"type": "boolean"},
        "recipe": {"type": "string"},
        "target": {"type": "string"},
        "code_sha256": {
            "type": "object",
            "additionalProperties": False,
            "required": ["published", "rebuilt"],
            "properties": {"published": SHA256, "rebuilt": SHA256},
        },
        "mark": {"type": ["boolean", "null"]},
        "differences": {"type": "array", "items": DIFFERENCE},
    },
}


def sha256(content: bytes) -> str:
    return base64.b64encode(hashlib.sha256(content).digest()).decode()


@dataclass
class World:
    """A project with a recipe, an index, and AWS."""

    project: Path
    cli: Callable[..., Ran]
    wheelhouse: Path
    server: AwsServer

    def make(self, *words: str) -> bytes:
        """Makes the layer, and its lock where there is none; the bytes of its zip."""
        ran = self.cli("make", "demo", "--target", TARGET, "--smoke", "off", *words)
        assert ran.code == 0, ran.err
        return (self.project / f"dist/demo-{TARGET}.zip").read_bytes()

    def put(
        self, content: bytes, name: str = NAME, description: str = "", runtimes: Sequence[str] = (RUNTIME,)
    ) -> str:
        """Lets AWS have a layer version, whatever it is; its ARN."""
        versions = self.server.layers[REGION][name]
        number = max(versions, default=0) + 1
        facts = {
            "LayerArn": arn(REGION, f"layer:{name}"),
            "LayerVersionArn": arn(REGION, f"layer:{name}:{number}"),
            "Version": number,
            "Description": description,
            "CreatedDate": "2026-11-01T10:00:00.000+0000",
            "CompatibleRuntimes": list(runtimes),
            "CompatibleArchitectures": ["x86_64"],
        }
        versions[number] = LayerVersion(facts, content)
        return str(facts["LayerVersionArn"])

    def verify(self, *words: str) -> Ran:
        """What the command says; with ``--json``, in the form that is promised."""
        before = files_of(self.project.parent)
        ran = self.cli("verify", *words)
        assert files_of(self.project.parent) == before, "it leaves nothing but its cache"
        assert "Traceback" not in ran.err
        for secret in ("X-Amz", "not-a-secret-but-an-example", "/snapshots/"):
            assert secret not in ran.out + ran.err
        if "--json" in words and ran.code in (0, 1):
            jsonschema.validate(ran.json, SCHEMA)
            assert ran.json["verified"] is (ran.code == 0)
        return ran

    def differences(self, *words: str) -> list[dict[str, Any]]:
        ran = self.verify(*words, "--json")
        assert ran.code == 1, ran.err
        found: list[dict[str, Any]] = ran.json["differences"]
        return found


def files_of(folder: Path) -> dict[str, int]:
    paths = (path for path in folder.rglob("*") if path.is_file() or path.is_symlink())
    return {str(path): path.lstat().st_size for path in paths if "cache" not in str(path.relative_to(folder))}


def kept(world: World) -> list[Path]:
    """Everything that a download could have left behind."""
    return [path for path in (world.project.parent / "cache/layers").rglob("*") if path.is_file()]


def failure(ran: Ran) -> tuple[str, int]:
    assert ran.json["error"]["exit_code"] == ran.code
    return ran.json["error"]["code"], ran.code


@pytest.fixture(scope="module")
def resolved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first test leaves its recipe, lock and cache for the others: resolving takes longer than all else."""
    return tmp_path_factory.mktemp("resolved")


@pytest.fixture
def world(
    project: Path,
    cli: Callable[..., Ran],
    index_server: IndexServer,
    wheelhouse: Path,
    monkeypatch: pytest.MonkeyPatch,
    resolved: Path,
) -> Iterator[World]:
    pretend_to_have_credentials(monkeypatch)
    server = AwsServer()
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    made = World(project, cli, wheelhouse, server)
    make_wheel(
        wheelhouse, "demo", "1.0", {"demo/__init__.py": "x = 1\n", "demo/a.py": "a = 1\n"}, requires=["helper"]
    )
    make_wheel(wheelhouse, "helper", "2.0")
    if not (resolved / "cache").exists():
        write_recipe(project, extra='bytecode = "off"\n')
        made.make()
        shutil.copytree(project, resolved / "project")
        shutil.copytree(project.parent / "cache", resolved / "cache")
    shutil.copytree(resolved / "project", project, dirs_exist_ok=True)
    shutil.copytree(resolved / "cache", project.parent / "cache", dirs_exist_ok=True)
    yield made
    server.stop()


def changed(content: bytes, changes: Mapping[str, bytes | None], mode: int = 0o644) -> bytes:
    """A zip with other files: None takes one away."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            if info.filename not in changes:
                new.writestr(info, old.read(info))
        for path, data in changes.items():
            if data is not None:
                info = zipfile.ZipInfo(path)
                info.external_attr = (0o100000 | mode) << 16
                new.writestr(info, data)
    return out.getvalue()


def test_a_version_that_is_what_the_recipe_gives_is_verified(world: World) -> None:
    content = world.make()
    where = world.put(content)
    ran = world.verify(where)
    assert ran.code == 0, ran.err
    assert ran.out.startswith(f"verified: {where}\n")
    assert f"the recipe demo and its lock for {TARGET} give" in ran.out
    assert f"CodeSha256 {sha256(content)}" in ran.out
    document = world.verify(where, "--json").json
    assert (document["arn"], document["recipe"], document["target"]) == (where, "demo", TARGET)
    assert document["code_sha256"] == {"published": sha256(content), "rebuilt": sha256(content)}
    assert (document["mark"], document["differences"]) == (None, [])
    assert len(world.server.calls("Download")) == 1, "the second time, it is in the cache"


@pytest.mark.parametrize("named", [(), ("--layer-name", "x-{arch}-{recipe}")], ids=["by name", "by the catalogue"])
def test_what_publish_published_is_verified(world: World, named: Sequence[str]) -> None:
    world.make()
    published = world.cli("publish", "--region", REGION, *named, "--json")
    assert published.code == 0, published.err
    (step,) = published.json["steps"]
    ran = world.verify(step["arn"], "--json")
    assert ran.code == 0, ran.err
    assert ran.json["mark"] is True
    (world.project / "catalogue.json").unlink()
    assert world.verify(step["arn"], *named).code == 0
    assert world.verify(step["arn"]).code == (2 if named else 0)


def test_a_layer_for_all_targets_is_verified(world: World) -> None:
    write_recipe(world.project, "both", 'layout = "shared"\n', '"helper"')
    assert world.cli("make", "both", "--smoke", "off").code == 0
    ran = world.cli("publish", "both", "--region", REGION, "--json")
    (step,) = ran.json["steps"]
    assert step["layer"] == "both-any-any"
    (world.project / "catalogue.json").unlink()
    ran = world.verify(step["arn"], "--json")
    assert (ran.code, ran.json["recipe"], ran.json["target"]) == (0, "both", "any"), ran.err


def test_another_lock_is_told_by_the_versions_of_its_packages(world: World) -> None:
    where = world.put(world.make())
    make_wheel(world.wheelhouse, "helper", "2.1")
    make_wheel(world.wheelhouse, "added", "3.0")
    make_wheel(world.wheelhouse, "demo", "1.1", {"demo/__init__.py": "x = 1\n"}, requires=["helper", "added"])
    shutil.rmtree(world.project / "recipes/demo/locks")
    world.make()
    ran = world.verify(where)
    assert ran.code == 1
    assert ran.out.startswith(f"differs: {where}\n")
    for why in (
        "demo 1.0 published, 1.1 rebuilt",
        "helper 2.0 published, 2.1 rebuilt",
        "added none published, 3.0 re",
    ):
        assert why in ran.out
    found = {one["path"]: (one["kind"], one["package"]) for one in world.differences(where)}
    assert found[f"{SITE}/demo/a.py"] == ("published", "demo")
    assert found[f"{SITE}/added.py"] == ("rebuilt", "added")
    assert found[f"{SITE}/helper-2.0.dist-info/METADATA"] == ("published", "helper")
    assert f"{SITE}/demo/__init__.py" not in found, "it is the same in both"
    assert f"{SITE}/helper.py" not in found


SAME_VERSION = "the same version of demo, another file: it was changed, or left out"


@pytest.mark.parametrize(
    ("path", "content", "kind", "package", "why"),
    [
        (f"{SITE}/evil.py", b"import os\n", "published", None, "no package lists it"),
        ("bin/evil", b"#!/bin/sh\n", "published", None, "no package lists it"),
        (f"{SITE}/demo/a.py", b"a = 2\n", "content", "demo", SAME_VERSION),
        (f"{SITE}/demo/a.py", None, "rebuilt", "demo", SAME_VERSION),
        (f"{SITE}/demo-1.0.dist-info/RECORD", b"demo/a.py,,\n", "content", "demo", "it lists other files"),
        (f"{SITE}/demo-1.0.dist-info/evil", b"", "published", "demo", SAME_VERSION),
        (f"{SITE}/demo/__pycache__/a.cpython-39.pyc", b"\x61\x0d\x0d\x0a", "published", None, "bytecode: "),
    ],
    ids=["added", "added elsewhere", "changed", "taken away", "RECORD", "added to dist-info", "pyc"],
)
def test_a_file_that_someone_changed_is_named(
    world: World, path: str, content: bytes | None, kind: str, package: str | None, why: str
) -> None:
    where = world.put(changed(world.make(), {path: content}))
    (found,) = world.differences(where)
    assert (found["path"], found["kind"], found["package"]) == (path, kind, package)
    assert found["why"].startswith(why)
    ran = world.verify(where)
    assert ran.code == 1
    assert f"{path}\n" in ran.out or f"{path} ({kind} only)\n" in ran.out
    assert ("all but bytecode is the same" in ran.out) is path.endswith((".pyc", "RECORD"))


def test_a_mode_that_someone_changed_is_named(world: World) -> None:
    content = world.make()
    where = world.put(changed(content, {f"{SITE}/demo/a.py": b"a = 1\n"}, mode=0o755))
    (found,) = world.differences(where)
    assert (found["path"], found["kind"]) == (f"{SITE}/demo/a.py", "mode")
    assert found["why"] == "0755 published, 0644 rebuilt"


def test_a_link_in_place_of_a_file_is_named(world: World) -> None:
    content = changed(world.make(), {f"{SITE}/demo/a.py": None})
    out = io.BytesIO(content)
    with zipfile.ZipFile(out, "a") as archive:
        info = zipfile.ZipInfo(f"{SITE}/demo/a.py")
        info.create_system, info.external_attr = 3, LINK << 16
        archive.writestr(info, b"/proc/self/environ")
    (found,) = world.differences(world.put(out.getvalue()))
    assert (found["path"], found["kind"]) == (f"{SITE}/demo/a.py", "content")


def test_bytecode_that_only_one_of_them_has_is_told_as_such(world: World) -> None:
    where = world.put(world.make("--bytecode", "all"))
    found = world.differences(where)
    compiled = [one["path"] for one in found if one["path"].endswith(".pyc")]
    assert len(compiled) == 3
    assert all(one["why"].startswith("bytecode: ") for one in found if one["path"] in compiled)
    ran = world.verify(where)
    assert "all but bytecode is the same" in ran.out
    assert "bytecode: another CPython compiled it, or other modules were compiled (3 files)" in ran.out


def test_the_same_files_in_another_zip_are_told_as_such(world: World) -> None:
    content, packed = world.make(), io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as new:
        for info in old.infolist():
            data = old.read(info)
            info.compress_type = zipfile.ZIP_STORED
            new.writestr(info, data)
    where = world.put(packed.getvalue())
    assert world.differences(where) == []
    assert "all files are the same: they are packed otherwise" in world.verify(where).out


def test_many_differences_are_counted_and_the_first_are_shown(world: World) -> None:
    where = world.put(changed(world.make(), {f"{SITE}/evil{n:04}.py": b"" for n in range(1500)}))
    ran = world.verify(where)
    assert "no package lists it (1500 files)" in ran.out
    assert ran.out.count("evil") == 20
    assert "and 1,480 more, which --json lists" in ran.out
    assert len(world.differences(where)) == 1500


def test_a_mark_of_other_content_is_no_proof_of_anything(world: World) -> None:
    where = world.put(world.make(), description=f"[layerbuild:{'0' * 32}]")
    ran = world.verify(where, "--json")
    assert (ran.code, ran.json["mark"]) == (0, False)


# What it was made of


def test_a_name_that_no_recipe_gives_needs_to_be_told_of(world: World) -> None:
    where = world.put(world.make(), "imaging")
    ran = world.verify(where, "--json")
    assert failure(ran) == ("recipe-unknown", 2)
    assert ran.json["error"]["hint"] == "say which: --recipe NAME --target TARGET"
    assert world.verify(where, "--recipe", "demo", "--target", TARGET).code == 0
    assert failure(world.verify(where, "--recipe", "demo", "--json")) == ("recipe-unknown", 2)


@pytest.mark.parametrize(
    ("words", "code", "exit_code"),
    [
        (("--recipe", "nothing", "--target", TARGET), "unknown-recipe", 2),
        (("--recipe", "demo", "--target", "python9.9-x86_64"), "unknown-target", 2),
        (("--recipe", "demo", "--target", "python3.*"), "unknown-target", 2),
        (("--recipe", "demo", "--target", "any"), "unknown-target", 2),
        (("--recipe", "demo", "--target", f"{RUNTIME}-arm64"), "lock-missing", 3),
    ],
)
def test_a_recipe_or_target_that_cannot_be_made(
    world: World, words: Sequence[str], code: str, exit_code: int
) -> None:
    where = world.put(world.make())
    assert failure(world.verify(where, *words, "--json")) == (code, exit_code)


def test_no_lock_is_made_to_verify_by(world: World) -> None:
    where = world.put(world.make())
    shutil.rmtree(world.project / "recipes/demo/locks")
    assert failure(world.verify(where, "--json")) == ("lock-missing", 3)


def test_a_wheel_that_is_no_more_where_it_was(world: World) -> None:
    where = world.put(world.make())
    shutil.rmtree(world.project.parent / "cache")
    (world.wheelhouse / "helper-2.0-py3-none-any.whl").unlink()
    ran = world.verify(where, "--json")
    assert ran.code in (3, 4)
    assert "helper" in ran.err + ran.out


def test_a_damaged_catalogue_is_told(world: World) -> None:
    where = world.put(world.make())
    (world.project / "catalogue.json").write_text("<<<<<<< HEAD\n")
    assert failure(world.verify(where, "--json")) == ("catalogue-invalid", 2)


# What AWS does not give


def test_a_version_of_an_account_that_does_not_share_it(world: World) -> None:
    where = world.put(world.make()).replace(ACCOUNT, "999999999999")
    ran = world.verify(where, "--json")
    assert failure(ran) == ("aws-denied", 4)
    assert "lambda:GetLayerVersion" in ran.json["error"]["what"]
    assert kept(world) == []


def test_a_version_that_is_no_more(world: World) -> None:
    where = world.put(world.make())
    del world.server.layers[REGION][NAME][1]
    assert failure(world.verify(where, "--json")) == ("layer-not-found", 2)
    assert failure(world.verify(where.replace(REGION, "us-east-1"), "--json")) == ("layer-not-found", 2)


@pytest.mark.parametrize(
    "text", ["demo", "", "arn:aws:lambda:eu-west-1:123456789012:layer:demo", "arn:aws:s3:::demo", "arn:\x1b[2J:7"]
)
def test_what_is_no_arn_is_refused_before_anyone_is_asked(world: World, text: str) -> None:
    ran = world.verify(text)
    assert ran.code == 2
    assert "[layer-not-found]" in ran.err
    assert "\x1b" not in ran.err
    assert world.server.requests == []


def spoil(world: World, what: str) -> None:
    """Lets downloads arrive spoiled."""
    honest = world.server.Download

    def Download(call: Call) -> Answer:
        content = honest(call).body
        if what == "cut":
            told = {"Content-Length": str(len(content)), "Connection": "close"}
            return Answer(200, content[: len(content) // 2], told)
        if what == "cut and told so":
            return Answer(200, content[: len(content) // 2])
        if what == "one bit":
            return Answer(200, content[:50] + bytes([content[50] ^ 1]) + content[51:])
        return Answer(200, b"<html>Sign in to this hotel's network</html>")

    world.server.Download = Download  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ("cut", ("aws-unreachable", 4)),
        ("cut and told so", ("hash-mismatch", 3)),
        ("one bit", ("hash-mismatch", 3)),
        ("another page", ("hash-mismatch", 3)),
    ],
)
def test_a_download_that_arrives_spoiled_is_not_compared(world: World, what: str, code: tuple[str, int]) -> None:
    where = world.put(world.make())
    spoil(world, what)
    assert failure(world.verify(where, "--json")) == code
    assert kept(world) == []
    del world.server.Download
    assert world.verify(where).code == 0


def test_an_address_that_has_expired(world: World) -> None:
    where = world.put(world.make())
    world.server.fault("Download", status=403, error="AccessDenied", message="Request has expired")
    assert failure(world.verify(where, "--json")) == ("aws-unreachable", 4)
    assert world.verify(where).code == 0


def test_a_throttled_lambda_is_asked_again(world: World) -> None:
    where = world.put(world.make())
    world.server.fault("GetLayerVersionByArn", status=429, times=2, headers={"Retry-After": "0"})
    assert world.verify(where).code == 0
    assert len(world.server.calls("GetLayerVersionByArn")) == 3


@pytest.mark.parametrize(
    "fault", [{"hang": 2.0}, {"lose_answer": True}], ids=["no answer in time", "a closed connection"]
)
def test_an_aws_that_takes_the_question_and_says_nothing(world: World, fault: Mapping[str, Any]) -> None:
    where = world.put(world.make())
    world.server.fault("GetLayerVersionByArn", times=1, **fault)
    assert world.verify(where, "--timeout", "0.3").code == 0, "it is asked again"
    world.server.fault("GetLayerVersionByArn", times=9, **fault)
    assert failure(world.verify(where, "--timeout", "0.3", "--json")) == ("aws-unreachable", 4)


# What means harm


def with_member(name: str, content: bytes = b"evil", mode: int = 0o100644) -> Callable[[bytes], bytes]:
    def add(layer: bytes) -> bytes:
        out = io.BytesIO(layer)
        with zipfile.ZipFile(out, "a") as archive, contextlib.suppress(UserWarning):
            info = zipfile.ZipInfo(name)
            info.filename, info.create_system, info.external_attr = name, 3, mode << 16
            archive.writestr(info, content)
        return out.getvalue()

    return add


# Case to what is published and a word that has to be said of it.
HOSTILE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "traversal": (with_member("../../canary/evil.py"), "../../canary/evil.py"),
    "traversal inside": (with_member(f"{SITE}/../../../../../../canary/evil.py"), "canary/evil.py"),
    "absolute": (with_member("/tmp/layerbuild-evil.py"), "layerbuild-evil.py"),
    "backslashes": (with_member("..\\..\\canary\\evil.py"), "evil.py"),
    "device": (with_member(f"{SITE}/null", b"", 0o020666), f"{SITE}/null"),
    "bomb": (lambda _: build(*demo(), swollen("python/data.bin", 1000)), "unpacks to"),
    "no zip": (lambda _: b"this is no zip", "not a whole zip"),
    "encrypted": (lambda _: build(*demo(), Member(b"python/x.py", b"x", both={"flags": 1})), "python/x.py"),
}


@pytest.mark.parametrize("case", list(HOSTILE))
def test_what_means_harm_differs_and_is_never_extracted(world: World, case: str) -> None:
    harm, _ = HOSTILE[case]
    canary = world.project.parent / "canary"
    canary.mkdir()
    where = world.put(harm(world.make()))
    began = time.monotonic()
    ran = world.verify(where, "--json")
    assert time.monotonic() - began < 20
    assert ran.code == 1
    assert list(canary.iterdir()) == []
    assert not Path("/tmp/layerbuild-evil.py").exists()


@pytest.mark.parametrize("case", HOSTILE)
def test_what_means_harm_is_told(world: World, case: str) -> None:
    harm, word = HOSTILE[case]
    ran = world.verify(world.put(harm(world.make())))
    assert "all files are the same" not in ran.out
    assert word in ran.out + ran.err


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../../../../etc/passwd", "demo/__init__.py", "a" * 5000])
def test_a_link_is_told_and_not_followed(world: World, target: str) -> None:
    content = with_member(f"{SITE}/link.py", target.encode(), LINK)(world.make())
    found = world.differences(world.put(content))
    assert [one["path"] for one in found] == [f"{SITE}/link.py"]
    assert "root:" not in json.dumps(found)


def test_a_name_that_drives_a_terminal_is_shown_and_not_obeyed(world: World) -> None:
    ran = world.verify(world.put(with_member(f"{SITE}/\u202egpj.\x85evil.py")(world.make())))
    assert ran.code == 1
    assert "\u202e" not in ran.out
    assert "evil.py" in ran.out


# check


def test_a_version_is_checked_by_its_arn(world: World) -> None:
    where = world.put(world.make())
    ran = world.cli("check", where, "--json")
    assert ran.code == 0, ran.err
    (report,) = ran.json["layers"]
    assert (report["layer"], report["findings"]) == (where, [])
    assert report["zipped"] == len((world.project / f"dist/demo-{TARGET}.zip").read_bytes())
    assert set(report["targets"]) == {TARGET, f"{RUNTIME}-arm64"}


@pytest.mark.parametrize("case", list(HOSTILE))
def test_check_tells_what_means_harm(world: World, case: str) -> None:
    harm, word = HOSTILE[case]
    ran = world.cli("check", world.put(harm(world.make())))
    assert ran.code == 1
    assert word in ran.out
