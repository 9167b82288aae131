"""``install.sh`` of the build image, with package managers that only say how they were called."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "layerbuild/builders/context/install.sh"
CALLS = {
    "apt-get": [["update"], ["install", "--yes", "--no-install-recommends", "one", "two"]],
    "dnf": [["install", "-y", "three"], ["clean", "all"]],
    "yum": [["install", "-y", "four", "five"], ["clean", "all"]],
}


def call(folder: Path, *lists: str, managers: tuple[str, ...]) -> tuple[int, list[list[str]], str]:
    """Runs the script where just these package managers are; what each was called with."""
    programs = folder / "bin"
    programs.mkdir()
    (programs / "sh").symlink_to(shutil.which("sh") or "sh")
    (programs / "rm").symlink_to(shutil.which("true") or "true")  # this machine's own lists of packages are to stay
    for name in managers:
        program = programs / name
        program.write_text(
            f'#!/bin/sh\necho "$LD_LIBRARY_PATH" >> {folder}/paths\nprintf "%s " "$@" >> {folder}/calls\n'
        )
        with program.open("a") as file:
            file.write(f"echo >> {folder}/calls\n")
        program.chmod(0o755)
    env = {"PATH": str(programs), "LD_LIBRARY_PATH": "/var/lang/lib"}
    done = subprocess.run(["/bin/sh", SCRIPT, *lists], env=env, capture_output=True, text=True)
    calls = folder / "calls"
    made = [line.split() for line in calls.read_text().splitlines()] if calls.exists() else []
    if made:
        assert set((folder / "paths").read_text().split()) == set(), "Lambda's libraries would break it"
    return done.returncode, made, done.stderr


@pytest.mark.parametrize("manager", CALLS)
def test_the_one_package_manager_gets_its_own_names(tmp_path: Path, manager: str) -> None:
    code, made, _ = call(tmp_path, "one two", "three", "four five", managers=(manager,))
    assert (code, made) == (0, CALLS[manager])


def test_amazon_linux_2023_has_dnf_and_yum_and_dnf_is_taken(tmp_path: Path) -> None:
    code, made, _ = call(tmp_path, "one", "three", "four", managers=("dnf", "yum"))
    assert (code, made[0]) == (0, ["install", "-y", "three"])


def test_names_for_other_managers_alone_are_an_error(tmp_path: Path) -> None:
    code, made, told = call(tmp_path, "one", "", "", managers=("dnf",))
    assert (code, made) == (1, [])
    assert "no names for dnf" in told


def test_nothing_to_install_is_fine_without_any_manager(tmp_path: Path) -> None:
    assert call(tmp_path, "", "", "", managers=())[:2] == (0, [])


def test_a_base_without_package_manager_is_an_error(tmp_path: Path) -> None:
    code, _, told = call(tmp_path, "one", "three", "four", managers=())
    assert code == 1
    assert "neither apt-get nor dnf nor yum" in told
