"""`examples/thumbnail`: its layers made, its handler run as Lambda does, against an S3 on this machine."""

from __future__ import annotations

import base64
import json
import os
import platform
import re
import shlex
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from layerbuild.sandbox import namespace
from tests.conftest import Ran
from tests.containers import tagged_base
from tests.engine import require_engine
from tests.interpreters import find_python

pytestmark = pytest.mark.network

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "thumbnail"
ARCH = "arm64" if platform.machine() in ("aarch64", "arm64") else "x86_64"
PYTHONS = ("python3.12", "python3.13")
TARGETS = tuple(f"{python}-{ARCH}" for python in PYTHONS)
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
PUT = ("--event", "s3-put", "--set", "bucket=photos", "--set")
# What S3 encodes in the key of an event: a space, a letter of two bytes, and the sign that a space becomes.
KEY = "Ferien 2024/Kätzchen +1.png"

each_python = pytest.mark.parametrize("python", PYTHONS)
each_backend = pytest.mark.parametrize("backend", ["namespace", pytest.param("container", marks=pytest.mark.docker)])


def png(width: int, height: int) -> bytes:
    """A picture of one colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress((b"\0" + b"\x20\x80\xc0" * width) * height, 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def size_of(picture: bytes) -> tuple[int, int]:
    """Width and height, of a PNG's header."""
    assert picture.startswith(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
    width, height = struct.unpack(">II", picture[16:24])
    return width, height


def layerbuild(*words: str | Path, cwd: Path, cache: Path, **env: str) -> Ran:
    """Runs the program as a process of its own."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("LAYERBUILD_", "AWS_"))}
    done = subprocess.run(
        [sys.executable, "-m", "layerbuild", *map(str, words)],
        cwd=cwd,
        env={**inherited, "LAYERBUILD_CACHE_DIR": str(cache), "COLUMNS": "80", **env},
        capture_output=True,
        text=True,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True)
class Place:
    """A folder with the layers in ``dist/`` and the examples, the cache, and an S3 with the client to look at it."""

    folder: Path
    cache: Path
    url: str
    s3: Any

    def put(self, key: str, picture: bytes, kind: str = "image/png") -> None:
        self.s3.put_object(Bucket="photos", Key=key, Body=picture, ContentType=kind)

    def resized(self, key: str) -> tuple[bytes, str]:
        """The small picture and its content type."""
        found = self.s3.get_object(Bucket="photos-resized", Key=key)
        with closing(found["Body"]) as body:
            return body.read(), found["ContentType"]

    def call(self, *words: str | Path, **env: str) -> Ran:
        return layerbuild(*words, cwd=self.folder, cache=self.cache, **env)

    def run(self, *words: str | Path, target: str, backend: str, layers: tuple[str | Path, ...] | None = None) -> Ran:
        """Runs the handler with layers, those of the example unless others are named."""
        if backend == "namespace":
            find_python(target.split("-")[0].removeprefix("python"))
            if reason := namespace.obstacle():
                pytest.skip(reason)
            where: tuple[str, ...] = ()
        else:
            require_engine()
            where = ("--base-image", tagged_base(target), "--network", "host")
        named = [word for layer in layers or ("pillow", "boto3") for word in ("--layer", layer)]
        variables = {"AWS_ENDPOINT_URL": self.url, **CREDENTIALS}
        given = [word for name, value in variables.items() for word in ("--env", f"{name}={value}")]
        function = ("--function", "examples/thumbnail/function", "--handler", "app.handler", "--timeout", "30")
        return self.call(
            "run", *named, *function, *given, "--target", target, "--backend", backend, *where, *words
        )  # fmt: skip

    def event(self, *settings: str) -> Any:
        """The event of an object that was put, as S3 sends it."""
        ran = self.call("events", "s3-put", *(word for setting in settings for word in ("--set", setting)))
        assert ran.code == 0, ran.err
        return ran.json


@pytest.fixture(scope="module")
def s3_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An S3 on a port of this machine that was free."""
    log = tmp_path_factory.mktemp("s3") / "log"
    with log.open("wb") as file:
        server = subprocess.Popen([sys.executable, "-m", "moto.server", "-p", "0"], stdout=file, stderr=file)
    try:
        until = time.monotonic() + 60
        while not (found := re.search(r"Running on (http://127\.0\.0\.1:\d+)", log.read_text())):
            assert time.monotonic() < until, log.read_text()
            with pytest.raises(subprocess.TimeoutExpired):
                server.wait(0.05)
        yield found[1]
    finally:
        server.terminate()
        server.wait()


@pytest.fixture(scope="module")
def place(s3_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The place, with the layers of the example made for every target, and two empty buckets."""
    base = tmp_path_factory.mktemp("thumbnail")
    folder, cache = base / "project", base / "cache"
    folder.mkdir()
    (folder / "examples").symlink_to(ROOT / "examples")
    targets = [word for target in TARGETS for word in ("--target", target)]
    ran = layerbuild("make", "pillow", "boto3", *targets, cwd=folder, cache=cache)
    assert ran.code == 0, ran.err
    keys = {name.lower(): value for name, value in CREDENTIALS.items()}
    with closing(boto3.client("s3", endpoint_url=s3_url, region_name="us-east-1", **keys)) as s3:
        for bucket in ("photos", "photos-resized"):
            s3.create_bucket(Bucket=bucket)
        yield Place(folder, cache, s3_url, s3)


def report(err: str) -> dict[str, str]:
    """What the last REPORT line says, by name."""
    line = [line for line in err.splitlines() if line.startswith("REPORT ")][-1]
    return dict(part.split(": ", 1) for part in line.removeprefix("REPORT ").split("\t"))


def milliseconds(text: str) -> float:
    return float(text.removesuffix(" ms"))


@each_python
@each_backend
def test_a_picture_is_halved(place: Place, python: str, backend: str) -> None:
    picture = png(600, 402)
    place.put(KEY, picture, "image/png; from=camera")
    place.s3.delete_object(Bucket="photos-resized", Key=KEY)
    words = (*PUT, f"key={KEY}", "--set", f"size={len(picture)}")

    ran = place.run(*words, target=f"{python}-{ARCH}", backend=backend)

    assert ran.code == 0, ran.err
    assert ran.json == {"resized": [{"bucket": "photos-resized", "key": KEY, "width": 300, "height": 201}]}
    small, kind = place.resized(KEY)
    assert size_of(small) == (300, 201)
    assert kind == "image/png; from=camera"
    assert f"photos/{KEY} is 300 x 201 in photos-resized" in ran.err.splitlines()
    assert f"in the {backend} backend" in ran.err
    assert place.s3.head_object(Bucket="photos", Key=KEY)["ContentLength"] == len(picture)


def test_every_record_of_an_event_is_served(place: Place, tmp_path: Path) -> None:
    sizes = {"a.png": (64, 32), "b.png": (33, 1)}
    event: dict[str, Any] = {"Records": []}
    for key, (width, height) in sizes.items():
        place.put(key, png(width, height))
        event["Records"] += place.event("bucket=photos", f"key={key}")["Records"]
    (tmp_path / "event.json").write_text(json.dumps(event))

    ran = place.run("--event", tmp_path / "event.json", target=TARGETS[1], backend="namespace")

    assert ran.code == 0, ran.err
    assert [(row["key"], row["width"], row["height"]) for row in ran.json["resized"]] == [
        ("a.png", 32, 16),
        ("b.png", 16, 1),
    ]
    assert size_of(place.resized("a.png")[0]) == (32, 16)
    assert size_of(place.resized("b.png")[0]) == (16, 1)


def test_another_event_is_not_passed_over(place: Place, tmp_path: Path) -> None:
    place.put("kept.png", png(8, 8))
    event = place.event("bucket=photos", "key=kept.png")
    event["Records"][0]["eventName"] = "ObjectRemoved:Delete"

    ran = place.run("--event", json.dumps(event), target=TARGETS[1], backend="namespace")

    assert ran.code == 1
    assert ran.json["errorType"] == "ValueError"
    assert ran.json["errorMessage"] == "ObjectRemoved:Delete is no event of an object that was created"


@each_backend
def test_an_object_that_does_not_exist_fails_as_boto3_says(place: Place, backend: str) -> None:
    ran = place.run(*PUT, "key=not there.png", target=TARGETS[1], backend=backend)

    assert ran.code == 1
    assert ran.json["errorType"] == "NoSuchKey"
    assert ran.json["errorMessage"] == (
        "An error occurred (NoSuchKey) when calling the GetObject operation: The specified key does not exist."
    )
    assert any("/var/task/app.py" in line and "in resize" in line for line in ran.json["stackTrace"])
    assert ran.json["requestId"] == report(ran.err)["RequestId"]
    assert "[ERROR] NoSuchKey: An error occurred (NoSuchKey)" in ran.err
    # Frames of the layer: where Lambda puts it.
    site = f"/opt/python/lib/{PYTHONS[1]}/site-packages/botocore/client.py"
    assert any(site in line for line in ran.json["stackTrace"])
    assert report(ran.err)["Status"] == "error"
    assert report(ran.err)["Error Type"] == "NoSuchKey"


@each_python
@each_backend
def test_a_missing_layer_fails_as_on_lambda(place: Place, python: str, backend: str) -> None:
    ran = place.run(*PUT, "key=a.png", target=f"{python}-{ARCH}", backend=backend, layers=("boto3",))

    assert ran.code == 1
    assert ran.json["errorType"] == "Runtime.ImportModuleError"
    assert ran.json["errorMessage"] == "Unable to import module 'app': No module named 'PIL'"
    assert "[ERROR] Runtime.ImportModuleError: Unable to import module 'app': No module named 'PIL'" in ran.err
    assert report(ran.err)["Error Type"] == "Runtime.ImportModuleError"


def other_layer(folder: Path, file: str, content: str) -> Path:
    """A layer of one file of PIL, as a folder."""
    path = folder / "other" / "python" / "lib" / PYTHONS[1] / "site-packages" / "PIL" / file
    path.parent.mkdir(parents=True)
    path.write_text(content)
    return folder / "other"


def test_the_order_of_layers_decides_whose_library_is_loaded(place: Place, tmp_path: Path) -> None:
    other = other_layer(tmp_path, f"_imaging.cpython-313-{platform.machine()}-linux-gnu.so", "cut off")
    place.put("order.png", png(10, 10))

    def run(*layers: str | Path) -> Ran:
        return place.run(*PUT, "key=order.png", target=TARGETS[1], backend="namespace", layers=layers)

    right, wrong = run(other, "pillow", "boto3"), run("pillow", other, "boto3")

    assert right.code == 0, right.err
    assert right.json["resized"][0]["width"] == 5
    assert wrong.code == 1
    assert wrong.json["errorType"] == "Runtime.ImportModuleError"
    assert wrong.json["errorMessage"].startswith("Unable to import module 'app': /opt/python/lib/python3.13/")
    assert wrong.json["errorMessage"].endswith(".so: file too short")


def test_bytecode_of_one_layer_hides_the_source_of_another_as_stack_says(place: Place, tmp_path: Path) -> None:
    """Compiled ahead, it is not compared with its source: the layer that comes last does not serve its module."""
    other = other_layer(tmp_path, "__init__.py", "raise ImportError")
    place.put("order.png", png(10, 10))
    layers = ("pillow", other, "boto3")

    ran = place.run(*PUT, "key=order.png", target=TARGETS[1], backend="namespace", layers=layers)
    told = place.call("stack", *layers, "--target", TARGETS[1], "--json")

    assert ran.code == 0, ran.err
    assert ran.json["resized"][0]["width"] == 5
    assert told.code == 1
    assert "contents-bytecode" in told.out


MAKE_PHOTO = """
import base64, io
from PIL import Image

def handler(event, context):
    exif, out = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6  # Orientation: to be turned by a quarter
    Image.new("RGB", (640, 480), "teal").save(out, "JPEG", exif=exif)
    return base64.b64encode(out.getvalue()).decode()
"""


def test_a_photo_is_halved_upright(place: Place, tmp_path: Path) -> None:
    find_python("3.13")
    if reason := namespace.obstacle():
        pytest.skip(reason)
    (tmp_path / "app.py").write_text(MAKE_PHOTO)
    words = ("--layer", "pillow", "--function", tmp_path, "--handler", "app.handler", "--target", TARGETS[1])
    made = place.call("run", *words, "--backend", "namespace")
    assert made.code == 0, made.err
    place.put("photo.jpg", base64.b64decode(made.json), "image/jpeg")

    ran = place.run(*PUT, "key=photo.jpg", target=TARGETS[1], backend="namespace")

    assert ran.code == 0, ran.err
    assert ran.json["resized"] == [{"bucket": "photos-resized", "key": "photo.jpg", "width": 240, "height": 320}]
    small, kind = place.resized("photo.jpg")
    assert kind == "image/jpeg"
    # The frame's header: its length, 8 bits, height and width.
    assert struct.unpack(">HBHH", small.partition(b"\xff\xc0")[2][:7])[2:] == (320, 240)


@each_backend
def test_memory_and_time_are_as_the_report_says(place: Place, backend: str) -> None:
    place.put("warm.png", png(400, 400))
    words = (*PUT, "key=warm.png", "--repeat", "2", "--json")

    ran = place.run(*words, "--memory", "256", target=TARGETS[1], backend=backend)

    assert ran.code == 0, ran.err
    cold, warm = ran.json["invocations"]
    assert ran.json["backend"] == backend
    for one in (cold, warm):
        told = report("\n".join(one["log"]))
        assert told["RequestId"] == one["request_id"]
        assert milliseconds(told["Duration"]) == pytest.approx(one["duration_ms"], abs=0.011)
        assert told["Memory Size"] == "256 MB"
        assert told["Max Memory Used"] == f"{one['memory_mb']} MB"
        assert 30 <= one["memory_mb"] <= 256
        assert 0 < one["duration_ms"] < 30_000
        assert (
            -0.002
            <= milliseconds(told["Billed Duration"]) - one["duration_ms"] - (one["init_duration_ms"] or 0)
            <= 1.002
        )
    assert cold["init_duration_ms"] == pytest.approx(
        milliseconds(report("\n".join(cold["log"]))["Init Duration"]), abs=0.011
    )
    assert warm["init_duration_ms"] is None
    assert "Init Duration" not in report("\n".join(warm["log"]))
    assert warm["duration_ms"] < cold["duration_ms"] + cold["init_duration_ms"]


@each_backend
def test_a_picture_too_large_for_the_memory_ends_the_function(place: Place, backend: str) -> None:
    place.put("large.png", png(5000, 5000))
    words = (*PUT, "key=large.png")

    small = place.run(*words, target=TARGETS[1], backend=backend)
    large = place.run(*words, "--memory", "512", target=TARGETS[1], backend=backend)

    assert small.code == 1
    assert small.json["errorType"] == "Runtime.ExitError"
    assert small.json["errorMessage"].endswith(" Error: Runtime exited with error: signal: killed")
    assert report(small.err)["Error Type"] == "Runtime.OutOfMemory"
    assert report(small.err)["Max Memory Used"] == "128 MB"
    assert large.code == 0, large.err
    assert size_of(place.resized("large.png")[0]) == (2500, 2500)
    assert 128 < int(report(large.err)["Max Memory Used"].removesuffix(" MB")) <= 512


@pytest.mark.skipif(ARCH != "x86_64", reason="the text is for x86_64")
def test_what_the_readme_of_the_example_shows_is_real(place: Place) -> None:
    """Its commands of layerbuild's own run, and print what stands there, but for ids, times and memory."""
    place.put("cat.png", png(600, 400))
    find_python("3.13")
    if reason := namespace.obstacle():
        pytest.skip(reason)
    text = (EXAMPLE / "README.md").read_text()
    shown = {words[1]: (words, output) for words, output in console_commands(text)}
    assert list(shown) == ["make", "stack", "run"]

    def plain(output: str) -> list[str]:
        output = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID", output)
        output = re.sub(r"[\d.]+ ms|Used: \d+ MB|CPython 3\.13\.\d+", "N", output)
        return output.splitlines()

    for words, output in shown.values():
        ran = place.call(*words[1:], AWS_ENDPOINT_URL=place.url, **CREDENTIALS)
        assert ran.code == 0, ran.err
        if output:
            assert plain(ran.err + ran.out) == plain(output)
    assert size_of(place.resized("cat.png")[0]) == (300, 200)


def console_commands(text: str) -> Iterator[tuple[list[str], str]]:
    """The words and the output of each `$ layerbuild` of a text."""
    for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL):
        for command, output in re.findall(r"^\$ (layerbuild .*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE):
            yield shlex.split(command), output


@pytest.mark.skipif(ARCH != "x86_64", reason="the settings are for x86_64")
def test_the_stack_of_the_settings_has_no_findings(place: Place) -> None:
    ran = layerbuild("stack", "thumbnail", "--out", place.folder / "dist", cwd=EXAMPLE, cache=place.cache)
    assert ran.code == 0, ran.err
    assert ran.out.endswith("for python3.13-x86_64\n  no findings\n")
