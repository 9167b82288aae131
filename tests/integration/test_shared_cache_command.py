"""``--cache`` as several machines use it: one builds, the others take it from there; its failures are not theirs."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.aws_server import AwsServer
from tests.conftest import Ran
from tests.index_server import IndexServer
from tests.integration.test_faults import contents
from tests.integration.test_interrupts import PROGRAM
from tests.integration.test_make import write_recipe
from tests.publishing import Moto, moto_fixture, pretend_to_have_credentials, refused  # noqa: F401 - a fixture
from tests.running import wait_until
from tests.wheels import make_wheel, sha256_of

DOCS = Path(__file__).parents[2] / "docs"
BUCKET = "build-cache"
TARGETS = ("python3.12-arm64", "python3.13-x86_64")
NAMES = ("one", "two", "three")
SECRETS = ("AKIAIOSFODNN7EXAMPLE", "not-a-secret-but-an-example", "FwoGZXIvYXdzEExampleToken")
PROMPT = 5.0


@dataclass
class Team:
    """A project that is locked, an index, a shared cache, and machines that have nothing else in common."""

    project: Path
    server: IndexServer
    cli: Callable[..., Ran]
    monkeypatch: pytest.MonkeyPatch
    shared: str
    moto: Moto

    def make(self, machine: str, *arguments: str, shared: str | None = None, code: int = 0) -> Ran:
        """Makes the layers on one machine; what it wrote is `layers`."""
        self.monkeypatch.setenv("LAYERBUILD_CACHE_DIR", str(self.cache(machine)))
        words = ["make", "demo", *(word for target in TARGETS for word in ("--target", target)), "--locked"]
        ran = self.cli(*words, "--out", machine, "--cache", shared or self.shared, *arguments)
        assert ran.code == code, ran
        assert "Traceback" not in ran.err
        return ran

    def cache(self, machine: str) -> Path:
        """The folder of a machine's own cache."""
        return self.project.parent / f"cache-{machine}"

    def layers(self, machine: str) -> dict[str, bytes]:
        """What a machine made."""
        found = contents(self.project / machine)
        assert len(found) == 2 * len(TARGETS)
        return found

    def index_is_off(self) -> None:
        """From here on, no file can be had from the index."""
        for name in NAMES:
            self.server.faults[f"/simple/{name}/"] = "503"
            self.server.faults[f"{name}-1.0-py3-none-any.whl"] = "503"

    def files(self) -> dict[str, bytes]:
        """What is shared, by key."""
        if not self.shared.startswith("s3:"):
            return contents(Path(self.shared))
        client, prefix = self.moto.client("s3"), self.shared.removeprefix(f"s3://{BUCKET}/")
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        keys = [row["Key"] for page in pages for row in page.get("Contents", [])]
        found = {
            key.removeprefix(f"{prefix}/"): client.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys
        }
        client.close()
        return found

    def write(self, key: str, data: bytes) -> None:
        """Puts something else in the place of what is shared."""
        if self.shared.startswith("s3:"):
            client, prefix = self.moto.client("s3"), self.shared.removeprefix(f"s3://{BUCKET}/")
            client.put_object(Bucket=BUCKET, Key=f"{prefix}/{key}", Body=data)
            client.close()
        else:
            Path(self.shared, key).write_bytes(data)

    def check(self) -> None:
        """All that is shared is whole, and nothing else lies there."""
        found = self.files()
        kinds = {key.split("/")[0] for key in found}
        assert {"wheels", "facts", "choices", "findings", "durations"} <= kinds
        assert not kinds & {"interpreters", "layers", "locks"}
        for key, data in found.items():
            kind, start, name = key.split("/")
            assert name.startswith(start)
            digest = hashlib.sha256(data).hexdigest()
            if name.endswith(".json"):
                checksum, _, body = data.partition(b"\n")
                assert checksum.decode() == hashlib.sha256(body).hexdigest()
                json.loads(body)
            else:
                assert name.partition(".")[0] == digest, kind


@pytest.fixture
def demo(project: Path, wheelhouse: Path, index_server: IndexServer) -> IndexServer:
    """A locked recipe of three wheels that are in the index."""
    noise = random.Random(7)
    for name in NAMES:
        files: dict[str, str | bytes] = {f"{name}/__init__.py": f"NAME = '{name}'\n"}
        files[f"{name}/data.bin"] = noise.randbytes(200_000)
        make_wheel(wheelhouse, name, files=files)
    write_recipe(project, requirements=", ".join(f'"{name}"' for name in NAMES), extra='imports = ["one"]\n')
    locks = project / "recipes/demo/locks"
    locks.mkdir()
    lines = [f"{name}==1.0 --hash=sha256:{sha256_of(wheelhouse / f'{name}-1.0-py3-none-any.whl')}" for name in NAMES]
    for target in TARGETS:
        (locks / f"{target}.txt").write_text("\n".join(lines) + "\n")
    return index_server


@pytest.fixture(params=["folder", "bucket"])
def team(
    request: pytest.FixtureRequest,
    project: Path,
    demo: IndexServer,
    cli: Callable[..., Ran],
    monkeypatch: pytest.MonkeyPatch,
    moto: Moto,
    tmp_path: Path,
) -> Team:
    pretend_to_have_credentials(monkeypatch)
    moto.reset()
    client = moto.client("s3")
    client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    client.close()
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto.url)
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    shared = str(tmp_path / "shared") if request.param == "folder" else f"s3://{BUCKET}/team/main"
    return Team(project, demo, cli, monkeypatch, shared, moto)


in_a_bucket = pytest.mark.parametrize("team", ["bucket"], indirect=True)


def test_a_second_machine_needs_no_index_and_makes_the_same(team: Team) -> None:
    told = team.make("a").err
    assert re.search(rf"^shared cache {re.escape(team.shared)}: 0 files taken, \d+ kept$", told, re.MULTILINE), told
    team.check()
    team.index_is_off()
    asked = len(team.server.requests)

    told = team.make("b").err

    assert team.layers("b") == team.layers("a")
    assert len(team.server.requests) == asked
    assert re.search(r": \d\d files taken, [0-2] kept$", told, re.MULTILINE), told
    assert "warning" not in told

    # And all of it is its own now.
    team.moto.requests.clear()
    told = team.make("b", "--force").err
    assert "shared cache" not in told
    assert team.moto.requests == []


def test_without_the_cache_it_would_need_the_index(team: Team) -> None:
    team.make("a")
    team.index_is_off()
    team.make("c", "--cache", "", code=4)


def test_a_machine_that_may_only_read_writes_nothing(team: Team) -> None:
    team.make("a")
    key = next(key for key in team.files() if key.startswith("findings/"))
    team.write(key, b"damaged")
    before = team.files()
    team.moto.requests.clear()

    team.make("b", "--cache-read-only")
    team.monkeypatch.setenv("LAYERBUILD_SHARED_CACHE_READ_ONLY", "1")
    team.make("c")

    assert team.layers("b") == team.layers("c") == team.layers("a")
    assert team.files() == before
    assert {seen.operation for seen in team.moto.requests} <= {"GetObject"}


def test_all_that_is_damaged_heals(team: Team) -> None:
    team.make("a")
    noise = random.Random(3)
    for key, data in sorted(team.files().items()):
        at = noise.randrange(len(data))
        team.write(key, data[:at] if noise.random() < 0.5 else data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])

    assert team.make("b").err.count("warning: ") == 1
    assert team.layers("b") == team.layers("a")
    team.index_is_off()
    team.make("c")
    assert team.layers("c") == team.layers("a")
    # The one has met what the other did not need.
    team.check()
    assert "warning" not in team.make("d").err


def test_a_store_that_serves_one_wheel_for_another_is_not_believed(team: Team, tmp_path: Path) -> None:
    team.make("a")
    evil = make_wheel(tmp_path / "evil", "one", files={"one/__init__.py": "import os; os.abort()\n"}).read_bytes()
    wheels = [key for key in team.files() if key.startswith("wheels/")]
    assert len(wheels) == len(NAMES)
    for key in wheels:
        team.write(key, evil)
    team.make("b")
    assert team.layers("b") == team.layers("a")
    assert evil not in contents(team.cache("b")).values()
    assert evil not in team.files().values()


def process(team: Team, machine: str, *arguments: str) -> subprocess.Popen[str]:
    """`layerbuild make demo` in a process of its own, as soon as it has begun."""
    words = ["make", "demo", "--target", TARGETS[0], "--target", TARGETS[1], "--locked", "--out", machine]
    started = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words, "--cache", team.shared, *arguments],
        env={**os.environ, "LAYERBUILD_CACHE_DIR": str(team.cache(machine))},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert started.stdout
    assert started.stdout.readline() == "ready\n", started.communicate()
    return started


def test_processes_that_fill_it_at_once_leave_it_right(team: Team) -> None:
    started = [process(team, f"m{number}") for number in range(3)]
    for one in started:
        _, err = one.communicate(timeout=60)
        assert one.returncode == 0, err
        assert "warning" not in err
    team.check()
    assert team.layers("m0") == team.layers("m1") == team.layers("m2")
    team.index_is_off()
    team.make("b")
    assert team.layers("b") == team.layers("m0")


def test_a_machine_that_is_killed_leaves_nothing_half(team: Team) -> None:
    noise = random.Random(11)
    for number in range(4):
        victim = process(team, f"victim{number}")
        time.sleep(noise.uniform(0.05, 0.8))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(victim.pid, signal.SIGKILL)
        victim.communicate()
    for key, data in team.files().items():
        if not Path(key).name.startswith(".") and "wheels" in key:
            assert hashlib.sha256(data).hexdigest() in key
    assert "warning" not in team.make("b").err
    assert "warning" not in team.make("c").err
    assert team.layers("c") == team.layers("b")


@in_a_bucket
def test_the_policies_of_the_documentation_are_enough(team: Team) -> None:
    """The least rights: no more actions than are used, and each call is allowed."""
    blocks = re.findall(r"```json\n(.*?)```", (DOCS / "caching.md").read_text(), re.DOTALL)
    policies = [block.replace("layerbuild/*", "team/main/*") for block in blocks if "Statement" in block]
    reader, writer = map(json.loads, policies)
    team.make("a")
    assert {seen.operation for seen in team.moto.requests} == {"GetObject", "PutObject"}
    assert refused(writer, team.moto.requests) == []
    team.moto.requests.clear()
    team.make("b", "--cache-read-only")
    assert refused(reader, team.moto.requests) == []
    assert "s3:PutObject" not in json.dumps(reader)


@in_a_bucket
@pytest.mark.parametrize("shared", ["s3://no-such-bucket/x", f"s3://{BUCKET}/x"], ids=["missing", "denied"])
def test_a_bucket_that_cannot_be_used_costs_a_warning(team: Team, shared: str) -> None:
    if BUCKET in shared:
        team.monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    told = team.make("a", shared=shared).err
    assert told.count("warning: ") == 1
    assert f"warning: the shared cache {shared} is left alone from here on: " in told
    assert len(team.layers("a")) == 4


def test_wrong_settings_are_refused_before_anything_is_done(team: Team) -> None:
    for wrong in ("https://me:hunter2@host/x", "s3://Bucket", "s3:x", __file__):
        ran = team.make("a", shared=wrong, code=2)
        assert "[bad-cache]" in ran.err
        assert "hunter2" not in ran.err
    assert not (team.project / "a").exists()
    assert team.server.requests == []


def test_settings_and_environment_name_it_as_well(team: Team) -> None:
    (team.project / "layerbuild.toml").write_text(f'[make]\ncache = "{team.shared}"\ncache-read-only = true\n')
    words = ["make", "demo", "--target", TARGETS[0], "--locked", "--force"]
    assert f"shared cache {team.shared}: 0 files taken, 0 kept" in team.cli(*words).err
    (team.project / "layerbuild.toml").unlink()
    assert "shared cache" not in team.cli(*words).err
    team.monkeypatch.setenv("LAYERBUILD_SHARED_CACHE", team.shared)
    for command in (words[1:], ["demo"]):
        team.monkeypatch.setenv("LAYERBUILD_CACHE_DIR", str(team.cache(f"of{len(command)}")))
        assert f"shared cache {team.shared}: " in team.cli("make" if len(command) > 1 else "check", *command).err
    assert team.files()


def test_cache_says_what_is_shared(team: Team) -> None:
    assert team.cli("cache", "--json").json["shared"] is None
    team.monkeypatch.setenv("LAYERBUILD_SHARED_CACHE", team.shared)
    assert f"shared by LAYERBUILD_SHARED_CACHE: {team.shared}\n" in team.cli("cache").out
    team.monkeypatch.setenv("LAYERBUILD_SHARED_CACHE_READ_ONLY", "true")
    assert team.cli("cache", "--json").json["shared"] == {"location": team.shared, "read_only": True}


# --- a server that misbehaves


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsServer]:
    started = AwsServer()
    started.buckets[BUCKET] = "eu-west-1"
    yield started
    started.stop()


@pytest.fixture
def alone(team: Team, server: AwsServer, monkeypatch: pytest.MonkeyPatch) -> Team:
    """A machine whose bucket is at that server."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    return team


@in_a_bucket
@pytest.mark.parametrize("debug", [False, True])
def test_no_secret_is_printed(alone: Team, server: AwsServer, debug: bool) -> None:
    alone.monkeypatch.setenv("AWS_SESSION_TOKEN", SECRETS[2])
    if debug:
        alone.monkeypatch.setenv("LAYERBUILD_DEBUG", "1")
    told = f"{' '.join(SECRETS)} The Canonical String X-Amz-Security-Token={SECRETS[2]}"
    for operation in ("PutObject", "GetObject"):
        server.fault(operation, error="AccessDenied", message=f"said of {told}", times=1000)
        ran = alone.make(f"a-{operation}")
        assert "warning: the shared cache" in ran.err
        assert "said of" in ran.err
        assert not [secret for secret in SECRETS if secret in ran.out + ran.err]


@in_a_bucket
def test_an_interrupt_ends_a_run_that_waits_for_the_bucket(alone: Team, server: AwsServer) -> None:
    server.fault("PutObject", hang=60, times=1000)
    started = process(alone, "a")
    wait_until(lambda: server.calls("PutObject"))
    sent = time.monotonic()
    os.killpg(started.pid, signal.SIGINT)
    _, err = started.communicate(timeout=30)
    assert time.monotonic() - sent < PROMPT
    assert started.returncode == 130
    assert "Traceback" not in err
    assert server.objects == {}
    assert not list(alone.cache("a").rglob("*.part"))
