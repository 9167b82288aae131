"""Smoke imports: of the shipped recipes with real wheels, and of made-up wheels that go wrong in every way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from layerbuild.recipe import recipe_folders
from layerbuild.sandbox import smoke
from layerbuild.sandbox.namespace import obstacle
from layerbuild.target import select_targets
from tests.conftest import Ran
from tests.engine import require_engine, runtime_image
from tests.interpreters import find_python
from tests.wheels import make_wheel, sha256_of

RECIPES = sorted(recipe_folders(Path(os.devnull).parent))
# Not the one that runs the tests: that cannot be hidden.
VERSION = "3.12" if sys.version_info[:2] != (3, 12) else "3.13"
TARGET, TWIN = f"python{VERSION}-x86_64", f"python{VERSION}-arm64"

# How much larger bytecode may make a zip: by a part of it, or so many bytes, as a layer that is hardly more than text
# has more bytecode than source.
GROWTH, SMALL = 0.12, 3_000_000


def need_namespaces() -> None:
    if reason := obstacle():
        pytest.skip(f"there are no namespaces here: {reason}")


def run_program(*words: str | Path, cwd: Path, **env: str) -> Any:
    command = [sys.executable, "-m", "layerbuild", *map(str, words), "--json"]
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache of wheels for all tests of a session; with xdist, for all of its workers."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "smoke-cache"


# Shipped recipes


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_shipped_recipe_passes_and_its_bytecode_is_small(
    recipe: str, version: str, tmp_path: Path, shared_cache: Path
) -> None:
    need_namespaces()
    find_python(version)
    words = ("make", recipe, "--locked", "--target", f"python{version}-x86_64")
    cache = {"LAYERBUILD_CACHE_DIR": str(shared_cache)}

    plain = run_program(*words, "--smoke", "off", "--bytecode", "off", "--out", "off", cwd=tmp_path, **cache)
    whole = run_program(*words, "--smoke", "require", "--out", "on", cwd=tmp_path, **cache)

    manifest = whole["layers"][0]["manifest"]
    assert manifest["smoke"]["status"] == "passed"
    assert manifest["smoke"]["backend"] == "namespace"
    assert manifest["bytecode"]["files"] > 0
    zipped = plain["layers"][0]["manifest"]["zipped"]
    assert 0 < manifest["zipped"] - zipped < max(GROWTH * zipped, SMALL)


@pytest.mark.docker
@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("recipe", ["pillow", "orjson", "cryptography"])
def test_a_shipped_recipe_passes_under_emulation(recipe: str, tmp_path: Path, shared_cache: Path) -> None:
    require_engine()
    find_python("3.11")
    (target,) = select_targets(["python3.11-arm64"])
    base = runtime_image(target)
    words = ("--locked", "--target", str(target), "--smoke", "require", "--backend", "container")

    made = run_program(
        *("make", recipe, *words, "--base-image", base), cwd=tmp_path, LAYERBUILD_CACHE_DIR=str(shared_cache)
    )

    manifest = made["layers"][0]["manifest"]
    assert manifest["smoke"]["status"] == "passed"
    assert manifest["smoke"]["backend"] == "container"
    assert manifest["smoke"]["interpreter"].startswith("3.11 of sha256:")
    assert manifest["bytecode"]["files"] > 0


# Made-up wheels


@dataclass(frozen=True)
class Demo:
    """A project with a recipe ``demo`` of one wheel, and its lock for one target."""

    project: Path
    cli: Callable[..., Ran]
    target: str = TARGET

    def write(
        self, files: Mapping[str, str | bytes], *, imports: str = '"demo"', script: str | None = None, extra: str = ""
    ) -> None:
        folder = self.project / "recipes" / "demo"
        (folder / "locks").mkdir(parents=True, exist_ok=True)
        wheel = make_wheel(self.project / "links", "demo", "1.0", files)
        text = f'name = "demo"\nrequirements = ["demo"]\nimports = [{imports}]\n{extra}'
        (folder / "recipe.toml").write_text(text)
        for name in (TARGET, TWIN):
            (folder / "locks" / f"{name}.txt").write_text(f"demo==1.0 --hash=sha256:{sha256_of(wheel)}\n")
        if script is not None:
            (folder / "smoke.py").write_text(script)

    def make(self, *words: str) -> Ran:
        return self.cli("make", "demo", "--locked", "--target", self.target, *words)

    def passes(self, *words: str) -> Any:
        """Makes the layer; its manifest."""
        ran = self.make("--smoke", "require", *words)
        assert ran.code == 0, ran.err
        manifest = self.manifest()
        assert manifest["smoke"]["status"] == "passed"
        return manifest

    def fails(self, *words: str) -> str:
        """Makes the layer, which is refused: the message."""
        ran = self.make("--smoke", "require", *words)
        assert ran.code == 1, (ran.out, ran.err)
        assert "[smoke-failed]" in ran.err
        assert list(self.project.glob("dist/*")) == []
        return ran.err

    def manifest(self) -> Any:
        return json.loads((self.project / "dist" / f"demo-{self.target}.json").read_text())


@pytest.fixture
def demo(project: Path, cli: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch) -> Demo:
    find_python(VERSION)
    need_namespaces()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(project / "links"))
    monkeypatch.setenv("COLUMNS", "300")
    return Demo(project, cli)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What has been imported, a target for each run."""
    found: list[str] = []

    def counted(sandbox: Any, target: Any, *more: Any, **named: Any) -> Any:
        found.append(str(target))
        return smoke.run_imports(sandbox, target, *more, **named)

    monkeypatch.setattr("layerbuild.proof.run_imports", counted)
    return found


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little time."""
    monkeypatch.setattr(smoke, "LIMITS", replace(smoke.LIMITS, seconds=3))


@pytest.fixture
def hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No interpreter can be found, but the one that runs."""
    empty = tmp_path / "empty"
    empty.mkdir()
    for name in ("PATH", "HOME", "PYENV_ROOT", "UV_PYTHON_INSTALL_DIR", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(empty))
    monkeypatch.delenv("RUNNER_TOOL_CACHE", raising=False)


def test_what_imports_and_runs_passes(demo: Demo, runs: list[str]) -> None:
    script = "import demo, sys\nassert demo.here == '/opt/' + demo.__file__[5:]\nassert sys.argv == [__file__]\n"
    demo.write({"demo.py": "here = __file__\n"}, script=script)

    manifest = demo.passes()

    assert manifest["smoke"]["interpreter"].startswith(f"{VERSION}.")
    assert runs == [TARGET]


def test_an_import_that_fails(demo: Demo) -> None:
    demo.write({"demo.py": "def go():\n    raise OSError('lbtest is not there')\ngo()\n"})

    said = demo.fails()

    assert f'File "/opt/python/lib/python{VERSION}/site-packages/demo.py", line 2, in go' in said
    assert "OSError: lbtest is not there" in said
    assert "demo does not import" in said
    assert "layerbuild: " not in said


def test_the_first_import_that_fails_is_the_one_that_is_named(demo: Demo) -> None:
    demo.write({"demo.py": "", "second.py": "import lbtest_nowhere\n"}, imports='"demo", "second", "third"')

    said = demo.fails()

    assert "demo-" + TARGET + " is not made: second does not import" in said
    assert "No module named 'lbtest_nowhere'" in said


def test_a_failing_import_as_json(demo: Demo) -> None:
    demo.write({"demo.py": "1 / 0\n"})

    ran = demo.make("--json")

    (failed,) = ran.json["failed"]
    assert ran.code == 1
    assert failed["code"] == "smoke-failed"
    assert failed["causes"][-1] == "ZeroDivisionError: division by zero"


WRONG = {
    "raises": ("assert 1 == 2, 'lbtest'\n", "AssertionError: lbtest"),
    "syntax": ("def\n", "SyntaxError: invalid syntax"),
    "null byte": ("x = '\0'\n", "null bytes"),
    "exits": ("import sys\nsys.exit(3)\n", "SystemExit: 3"),
    "exits with a word": ("raise SystemExit('lbtest')\n", "SystemExit: lbtest"),
    "leaves": ("import os\nos._exit(0)\n", "it ended without a word (exit code 0)"),
    "kills itself": ("import os\nos.kill(os.getpid(), 9)\n", "it ended without a word (exit code -9)"),
    "kills all": ("import os\nos.kill(-1, 9)\n", "ProcessLookupError"),
    "crashes": ("import ctypes\nctypes.string_at(0)\n", "it ended without a word (exit code -11)"),
    "network": ("import socket\nsocket.create_connection(('1.1.1.1', 53), 5)\n", "OSError: "),
    "name of a host": ("import socket\nsocket.getaddrinfo('example.org', 80)\n", "gaierror"),
    "layer": ("import demo\nopen(demo.__file__, 'a')\n", "PermissionError: "),
    "new file": ("open('/opt/python/new', 'w')\n", "OSError: [Errno 30] Read-only file system"),
    "own folder": ("open('new', 'w')\n", "OSError: [Errno 30] Read-only file system"),
    "recursion": ("def f(): f()\nf()\n", "RecursionError"),
    "closes": ("import os\nos.closerange(0, 64)\n1 / 0\n", "it ended without a word"),
    "no text": ("import os\nos.write(1, b'\\xff\\x00\\xfe\\n')\n1 / 0\n", "ZeroDivisionError"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_script_that_fails(name: str, demo: Demo) -> None:
    script, expected = WRONG[name]
    demo.write({"demo.py": ""}, script=script)

    assert expected in demo.fails()


def test_a_script_that_hangs(demo: Demo, short: None) -> None:
    demo.write({"demo.py": ""}, script="import time\nprint('lbtest waits', flush=True)\ntime.sleep(100)\n")
    started = time.monotonic()

    said = demo.fails()

    assert "lbtest waits" in said
    assert "it was ended after 3 seconds" in said
    assert time.monotonic() - started < 30


def test_an_import_that_hangs_with_children_and_deaf_ears(demo: Demo, short: None) -> None:
    code = "import os, signal, time\nsignal.signal(15, signal.SIG_IGN)\nos.fork() or os.setsid()\ntime.sleep(100)\n"
    demo.write({"demo.py": code})
    started = time.monotonic()

    assert "it was ended after 3 seconds" in demo.fails()
    assert time.monotonic() - started < 30


def test_an_import_that_takes_too_much_memory(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smoke, "LIMITS", replace(smoke.LIMITS, memory=128 << 20))
    demo.write({"demo.py": "import time\nx = b'x' * (512 << 20)\ntime.sleep(60)\n"})

    assert "too much memory" in demo.fails()


def test_of_a_lot_of_output_the_end_is_told(demo: Demo) -> None:
    demo.write({"demo.py": ""}, script="for n in range(400_000):\n    print('lbtest', n, 'x' * 50)\n1 / 0\n")

    said = demo.fails()

    assert "ZeroDivisionError" in said
    assert "lbtest 1 " not in said
    assert len(said.splitlines()) < 50


def test_a_lot_of_output_is_no_failure(demo: Demo) -> None:
    demo.write({"demo.py": ""}, script="for n in range(400_000):\n    print('lbtest', n, 'x' * 50)\n")

    demo.passes()


GOOD = {
    "exits well": "import sys\nsys.exit()\n",
    "exits with 0": "raise SystemExit(0)\n",
    "threads": "import threading, time\nthreading.Thread(target=time.sleep, args=(100,)).start()\n",
    "forks": "import os, time\nif not os.fork():\n    time.sleep(100)\n    os._exit(0)\n",
    "waits": "import os\nchild = os.fork()\nif not child:\n    os._exit(0)\nos.waitpid(child, 0)\n",
    "daemon": "import os, time\nif not os.fork():\n    os.setsid()\n    if os.fork():\n        os._exit(0)\n"
    "    time.sleep(100)\n    os._exit(0)\n",
    "child that falls through": "import os\nchild = os.fork()\nif child:\n    os.waitpid(child, 0)\n",
    "child that exits": "import os, sys\nchild = os.fork()\nif not child:\n    sys.exit(0)\nos.waitpid(child, 0)\n",
    "at exit": "import atexit\natexit.register(lambda: 1 / 0)\n",
    "scratch": "open('/tmp/x', 'w').write('x')\nimport tempfile\ntempfile.TemporaryFile()\n",
    "loopback": "import socket as s\nx = s.create_server(('127.0.0.1', 0))\ns.create_connection(x.getsockname())\n",
    "processes": "import subprocess, sys\nsubprocess.run([sys.executable, '-c', ''], check=True)\n",
    "pool": "from concurrent.futures import ThreadPoolExecutor\nlist(ThreadPoolExecutor(4).map(abs, [1, 2]))\n",
    "another folder": "import os\nos.chdir('/tmp')\n",
    "no search path": "import sys\nsys.path.clear()\nsys.modules.clear()\n",
}


@pytest.mark.parametrize("name", GOOD)
def test_a_script_that_does_what_functions_do(name: str, demo: Demo) -> None:
    demo.write({"demo.py": ""}, script=GOOD[name])
    started = time.monotonic()

    demo.passes()

    assert time.monotonic() - started < 30


def test_an_import_that_exits_has_not_imported(demo: Demo) -> None:
    demo.write({"demo.py": "import sys\nsys.exit(0)\nrest = 1\n"})

    assert "SystemExit" in demo.fails()


def test_off_runs_nothing_and_says_so(demo: Demo, runs: list[str]) -> None:
    demo.write({"demo.py": "1 / 0\n"}, script="1 / 0\n")

    ran = demo.make("--smoke", "off")

    assert ran.code == 0, ran.err
    assert demo.manifest()["smoke"] == {"status": "not run", "reason": "--smoke off"}
    assert "not run" in ran.out
    assert runs == []


def test_a_recipe_that_names_nothing_has_nothing_to_fail(demo: Demo, runs: list[str]) -> None:
    demo.write({"demo.py": "1 / 0\n"}, imports="")

    assert demo.make("--smoke", "require").code == 0
    assert demo.manifest()["smoke"] == {"status": "none"}
    assert runs == []


def test_without_an_interpreter_auto_says_why_not(demo: Demo, hidden: None) -> None:
    demo.write({"demo.py": "1 / 0\n"})

    ran = demo.make("--json")

    assert ran.code == 0, ran.err
    manifest = ran.json["layers"][0]["manifest"]
    assert manifest == demo.manifest()
    assert manifest["smoke"]["status"] == "not run"
    assert f"namespace: there is no CPython {VERSION} here" in manifest["smoke"]["reason"]
    assert "container: " in manifest["smoke"]["reason"]
    again = demo.make()
    assert "not run" in again.out


def test_without_an_interpreter_what_is_required_fails(demo: Demo, hidden: None) -> None:
    demo.write({"demo.py": ""})

    ran = demo.make("--smoke", "require", "--backend", "namespace")

    assert ran.code == 4
    assert "[no-sandbox]" in ran.err
    assert f"uv python install {VERSION}" in ran.err
    assert list(demo.project.glob("dist/*")) == []


def test_an_interpreter_that_appears_is_used(demo: Demo, runs: list[str], tmp_path: Path) -> None:
    demo.write({"demo.py": ""})
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in ("PATH", "HOME", "PYENV_ROOT", "UV_PYTHON_INSTALL_DIR", "XDG_DATA_HOME"):
            monkeypatch.setenv(name, str(tmp_path / "empty"))
        assert demo.make().code == 0
    assert runs == []

    assert demo.make().code == 0

    assert runs == [TARGET]
    assert demo.manifest()["smoke"]["status"] == "passed"


def test_what_passed_is_not_run_again(demo: Demo, runs: list[str]) -> None:
    demo.write({"demo.py": ""}, script="import demo\n")
    demo.passes()
    demo.passes()
    demo.passes("--force")
    demo.passes("--out", "dist", "--force", "--bytecode", "imports")
    assert runs == [TARGET]

    demo.write({"demo.py": ""}, script="import demo  # changed\n")
    demo.passes()
    assert runs == [TARGET] * 2

    demo.write({"demo.py": "x = 1\n"}, script="import demo  # changed\n")
    demo.passes()
    assert runs == [TARGET] * 3


def test_what_failed_is_run_again(demo: Demo, runs: list[str]) -> None:
    demo.write({"demo.py": ""}, script="1 / 0\n")
    demo.fails()
    demo.fails()

    assert runs == [TARGET] * 2


def test_a_script_that_changes_and_fails_leaves_what_was_made(demo: Demo) -> None:
    demo.write({"demo.py": ""}, script="import demo\n")
    demo.passes()
    before = (demo.project / "dist" / f"demo-{TARGET}.zip").read_bytes()

    demo.write({"demo.py": ""}, script="1 / 0\n")

    assert demo.make().code == 1
    assert (demo.project / "dist" / f"demo-{TARGET}.zip").read_bytes() == before


def test_a_cache_that_is_pruned_has_nothing_left_of_what_passed(demo: Demo) -> None:
    demo.write({"demo.py": ""})
    demo.passes()
    cache = Path(os.environ["LAYERBUILD_CACHE_DIR"])
    assert list(cache.glob("smoke/**/*.json"))

    assert demo.cli("cache", "prune", "--unused-for", "0").code == 0

    assert [path for path in cache.rglob("*") if path.is_file()] == []


def test_nothing_is_left_on_the_machine(demo: Demo) -> None:
    demo.write({"demo.py": ""}, script="import subprocess\nsubprocess.Popen(['sleep', '98765'])\n")

    demo.passes()

    words = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert [text for text in words if b"98765" in text] == []
    assert list(Path("/tmp").glob("layerbuild-*/var/task/smoke.py")) == []


def test_it_is_a_user_without_rights_and_without_the_machines_files(demo: Demo) -> None:
    script = (
        "import os, pathlib\nassert os.getuid() == 993\nassert os.environ['AWS_REGION'] == 'us-east-1'\n"
        "assert 'LBTEST' not in os.environ\n"
        "assert not pathlib.Path('/root').exists() and not pathlib.Path('/home').exists()\n"
        "assert os.getcwd() == '/var/task'\n"
    )
    demo.write({"demo.py": ""}, script=script)
    os.environ["LBTEST"] = "1"
    try:
        demo.passes()
    finally:
        del os.environ["LBTEST"]
