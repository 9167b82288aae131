"""The images of `tests.engine` are what they stand in for, and an engine of its own leaves nothing behind."""

from __future__ import annotations

import json
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from layerbuild.target import select_targets
from tests.engine import (
    SHARED,
    Engine,
    base_image,
    docker,
    require_engine,
    run_in_runtime,
    run_program,
    runtime_image,
)
from tests.interpreters import find_python
from tests.lambda_root import _FACTS, _facts, shared_root

pytestmark = pytest.mark.docker

LOOK = """
import importlib, json, os, pathlib, shutil, sys, sysconfig
for path in sorted(pathlib.Path(sysconfig.get_path("stdlib"), "lib-dynload").glob("*.so")):
    importlib.import_module(path.name.split(".")[0])
texts = {path: path.read_bytes() for path in pathlib.Path(sys.prefix).rglob("*") if path.is_file()}
print(json.dumps({
    "version": sys.version,
    "executable": sys.executable,
    "paths": list(sysconfig.get_paths().values()),
    "variables": sysconfig.get_config_vars(),
    "header": os.path.exists(sysconfig.get_config_h_filename()),
    "old": [str(path) for path, text in texts.items() if sys.argv[1].encode() in text and b"ELF" not in text[:4]],
    "modules": sorted(sys.modules),
    "tools": [tool for tool in ("gcc", "cc", "g++", "make", "ld", "python", "pip", "apt-get") if shutil.which(tool)],
    "folder": os.getcwd(),
    "environment": dict(os.environ),
}))
"""
# Whether the loader finds libraries: one of glibc's is for debuggers only, and cannot be used when it is found.
OPEN = """
import ctypes, json
missing = []
for name in {}:
    try:
        ctypes.CDLL(name)
    except OSError as error:
        missing += [name] if "cannot open shared object" in str(error) else []
print(json.dumps(missing))
"""


@pytest.fixture(autouse=True)
def _engine() -> None:
    require_engine()


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    """A layer with a module, a .pth file, a program, and a link to it."""
    files = {
        "python/greeting.py": (0o100644, "TEXT = 'hello'\n"),
        "python/lib/python3.11/site-packages/marked.pth": (0o100644, "import sys; sys.marked = True\n"),
        "bin/shout": (
            0o100755,
            "#!/var/lang/bin/python3.11 -S\nimport sys; print(sys.stdin.read().upper(), sys.argv)\n",
        ),
        "bin/alias": (0o120777, "shout"),
    }
    path = tmp_path / "layer.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, (mode, content) in files.items():
            entry = zipfile.ZipInfo(name)
            entry.create_system, entry.external_attr = 3, mode << 16
            archive.writestr(entry, content)
    return path


def look(image: str, python: str, *, platform: str = "linux/amd64", old: Path = Path("/nowhere")) -> Any:
    """What a Python in a container sees of it, and which of its texts name an old place."""
    options = (f"--platform={platform}", f"--entrypoint={python}")
    return json.loads(docker("run", "--rm", *options, image, "-c", LOOK, old))


@pytest.mark.parametrize("name", ["python3.12-x86_64", "python3.13-x86_64"])
def test_the_base_image_has_its_python_where_aws_has_it(name: str) -> None:
    (target,) = select_targets([name])
    python, version = target.runtime.name, "{}.{}".format(*target.runtime.version)

    seen = look(base_image(target), python, old=find_python(version).parents[1])

    assert seen["version"].startswith(f"{version}.")
    assert seen["executable"] == f"/var/lang/bin/{python}"
    assert all(path.startswith("/var/lang") for path in seen["paths"])
    assert (seen["variables"]["prefix"], seen["variables"]["LIBDIR"]) == ("/var/lang", "/var/lang/lib")
    assert (seen["old"], seen["header"]) == ([], True)
    assert {"_ssl", "_sqlite3", "_ctypes", "_bz2", "_lzma", "readline", "zlib", "_curses"} <= set(seen["modules"])
    assert seen["tools"] == ["python", "pip", "apt-get"]
    assert (seen["folder"], seen["environment"]["LAMBDA_TASK_ROOT"]) == ("/var/task", "/var/task")


@pytest.mark.parametrize("name", ["python3.11-x86_64", "python3.11-arm64"])
def test_a_base_image_can_have_debians_python(name: str) -> None:
    (target,) = select_targets([name])
    platform = {"x86_64": "linux/amd64", "arm64": "linux/arm64"}[target.arch]
    image = base_image(target)

    seen = look(image, "python3.11", platform=platform)
    made = docker(
        "run", "--rm", f"--platform={platform}", image, "python3.11", "-m", "venv", "--without-pip", "/tmp/v"
    )

    assert seen["executable"] == "/usr/bin/python3.11"
    assert (seen["header"], seen["tools"], made) == (True, ["apt-get"], b"")
    assert seen["variables"]["HOST_GNU_TYPE"].partition("-")[0] == target.machine


def test_packages_of_the_system_can_be_installed() -> None:
    (target,) = select_targets(["python3.12-x86_64"])
    install = "apt-get -qq update && apt-get -qq install --no-install-recommends gcc libc6-dev >/dev/null"

    said = docker("run", "--rm", "--entrypoint=sh", base_image(target), "-ec", f"{install} && gcc -dumpmachine")

    assert said == b"x86_64-linux-gnu\n"


@pytest.mark.parametrize("name", ["python3.11-x86_64", "python3.13-x86_64"])
def test_the_runtime_image_has_what_lambda_has_and_no_more(name: str, layer: Path) -> None:
    (target,) = select_targets([name])
    names = {name for library in tomllib.loads(_FACTS.read_text("utf-8"))["library"] for name in library["names"]}
    present = _facts(target)[0] - shared_root(SHARED, target).lacking

    missing = json.loads(run_in_runtime(target, layer, OPEN.format(sorted(names))))

    assert names - set(missing) == present
    assert "libssl.so.3" in (present if target.runtime.name == "python3.13" else names - present)


def test_a_layer_is_used_as_lambda_does(layer: Path) -> None:
    (target,) = select_targets(["python3.11-x86_64"])
    code = "import greeting, os; open('/tmp/file', 'w').close(); print(greeting.TEXT, sys.marked, os.getuid() > 0)"

    assert run_in_runtime(target, layer, code) == "hello True True\n"
    assert run_program(target, layer, ["alias", "twice"], b"quiet") == b"QUIET ['/opt/bin/alias', 'twice']\n"
    with pytest.raises(AssertionError, match="No module named 'absent'"):
        run_in_runtime(target, layer, "import absent")


@pytest.fixture
def crashing(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    engine = Engine(tmp_path_factory.mktemp("engine"), size="1g")
    engine.start()
    monkeypatch.setenv("DOCKER_HOST", engine.socket)
    yield engine
    engine.stop()


def test_an_engine_of_its_own_can_crash_and_start_again(crashing: Engine) -> None:
    (target,) = select_targets(["python3.11-x86_64"])
    image = runtime_image(target)
    sleep = ("/var/lang/bin/python3.11", "-c", "import time; time.sleep(600)")
    docker("run", "--detach", image, *sleep)
    assert docker("ps", "--quiet")

    crashing.kill()
    with pytest.raises(AssertionError, match="daemon"):
        docker("ps")
    crashing.start()
    assert (docker("ps", "--quiet"), runtime_image(target)) == (b"", image)

    docker("run", "--detach", image, *sleep)
    crashing.kill()
    crashing.stop()
    assert list(crashing.data_root.iterdir()) == []
    assert str(crashing.data_root) not in Path("/proc/self/mounts").read_text()
