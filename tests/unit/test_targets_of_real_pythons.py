"""What layerbuild says of a target is what a real interpreter says that is limited to the runtime's glibc."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import packaging
import pytest

from layerbuild.builders.environment import GLIBC_LIMIT
from layerbuild.target import select_targets

MINORS = range(9, 14)

# What differs from machine to machine, or with the patch version.
UNCERTAIN = {"platform_release", "platform_version", "python_full_version", "implementation_version"}

ASK = """\
import json
try:
    from packaging import markers
    from packaging.tags import sys_tags
except Exception:  # too new for this interpreter: what its own pip says
    from pip._internal.utils.compatibility_tags import get_supported as sys_tags
    from pip._vendor.packaging import markers
found = {"tags": [str(tag) for tag in sys_tags()], "markers": markers.default_environment()}
print(json.dumps(found))
"""

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64" or platform.libc_ver()[0] != "glibc",
    reason="needs Linux with glibc on x86_64",
)


def interpreter(minor: int) -> Path:
    found = sorted(Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python"))
    if not found:
        pytest.skip(f"no Python 3.{minor} under ~/.pyenv/versions")
    return found[-1]


def ask(minor: int, folder: Path) -> dict[str, Any]:
    """What the real interpreter says, with its glibc limited to the runtime's."""
    (target,) = select_targets([f"python3.{minor}-x86_64"])
    python = interpreter(minor)
    (folder / "_manylinux.py").write_text(GLIBC_LIMIT.format(glibc=target.runtime.glibc))
    # `packaging` alone, not the other packages beside it, which are for another Python.
    (folder / "packaging").symlink_to(Path(packaging.__file__).parent)
    done = subprocess.run(
        [python, "-I", "-c", f"import sys; sys.path.insert(0, {str(folder)!r})\n{ASK}"],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"]},
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("minor", MINORS)
def test_tags_are_those_of_the_real_interpreter(minor: int, tmp_path: Path) -> None:
    (target,) = select_targets([f"python3.{minor}-x86_64"])
    real = [tag for tag in ask(minor, tmp_path)["tags"] if "-musllinux_" not in tag]
    ours = [str(tag) for tag in target.tags()]
    assert sorted(ours) == sorted(real)


@pytest.mark.parametrize("minor", MINORS)
def test_tags_that_wheels_on_an_index_can_have_are_in_the_order_of_the_real_interpreter(
    minor: int, tmp_path: Path
) -> None:
    (target,) = select_targets([f"python3.{minor}-x86_64"])
    real = ask(minor, tmp_path)["tags"]
    assert [str(tag) for tag in target.tags() if not tag.platform.startswith("linux_")] == [
        tag for tag in real if "-musllinux_" not in tag and "-linux_" not in tag
    ]
    assert f"cp3{minor}-cp3{minor}-manylinux_{'_'.join(map(str, target.runtime.glibc))}_x86_64" in real[:2]


@pytest.mark.parametrize("minor", MINORS)
def test_markers_are_those_of_the_real_interpreter(minor: int, tmp_path: Path) -> None:
    (target,) = select_targets([f"python3.{minor}-x86_64"])
    real = ask(minor, tmp_path)["markers"]
    ours = target.marker_environment()
    assert ours.keys() == real.keys()
    assert {key: ours[key] for key in ours.keys() - UNCERTAIN} == {key: real[key] for key in real.keys() - UNCERTAIN}
    for key in ("python_full_version", "implementation_version"):
        assert ours[key].rpartition(".")[0] == real[key].rpartition(".")[0]


def test_the_other_architecture_differs_in_nothing_but_its_name_and_its_oldest_wheels() -> None:
    (intel,) = select_targets(["python3.12-x86_64"])
    (arm,) = select_targets(["python3.12-arm64"])
    there = {str(tag) for tag in arm.tags()}
    renamed = {str(tag).replace("x86_64", "aarch64") for tag in intel.tags()}
    assert there < renamed
    for gone in renamed - there:
        assert any(gone.endswith(f"_2_{minor}_aarch64") for minor in range(5, 17)) or "manylinux1_" in gone or (
            "manylinux2010_" in gone
        )  # fmt: skip
    assert "cp312-cp312-manylinux2014_aarch64" in there
