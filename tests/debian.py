"""Packages of Debian, of either architecture, unpacked into a folder."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Collection
from pathlib import Path

import pytest
from filelock import FileLock

ARCHITECTURES = {"x86_64": "amd64", "arm64": "arm64"}
_SUITES = {(3, 11): "bookworm", (3, 13): "trixie"}
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def require_debian() -> None:
    """Skips the test where Debian's packages cannot be made into a root and run."""
    if platform.machine() != "x86_64":
        pytest.skip("the roots are put together for an x86_64 machine")
    if os.geteuid() != 0:
        pytest.skip("chroot needs root")
    for tool in ("apt-get", "dpkg-deb", "chroot"):
        if shutil.which(tool) is None:
            pytest.skip(f"there is no {tool} here")
    if not _KEYRING.exists():
        pytest.skip("there are no keys of the Debian archive here")


class Debian:
    """Packages of the Debian release that has a Python; apt works in a folder of its own, beside the machine's.

    Several processes may use one folder.
    """

    def __init__(self, folder: Path, python: tuple[int, int]) -> None:
        self.suite = _SUITES[python]
        self._config = folder / "apt.conf"
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock"):
            if not self._config.exists():
                self._update(folder)

    def _update(self, folder: Path) -> None:
        for name in ("archives/partial", "lists/partial"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "status").touch()
        source = f"deb [signed-by={_KEYRING}] http://deb.debian.org/debian {self.suite} main\n"
        (folder / "sources.list").write_text(source)
        config = folder / "new.conf"
        config.write_text(
            'APT::Architecture "amd64"; APT::Architectures {"amd64"; "arm64";}; APT::Sandbox::User "root";\n'
            'Acquire::Languages "none"; Dir::Etc::sourceparts "-";\n'
            f'Dir::Etc::sourcelist "{folder}/sources.list"; Dir::Cache "{folder}";\n'
            f'Dir::State::lists "{folder}/lists"; Dir::State::status "{folder}/status";\n'
        )
        self._apt("update", config=config)
        config.rename(self._config)

    def _apt(self, *words: str, config: Path, cwd: Path | None = None) -> None:
        try:
            run("apt-get", "-qq", *words, cwd=cwd, APT_CONFIG=str(config))
        except AssertionError as error:
            pytest.skip(f"packages of Debian cannot be had here: {str(error)[-300:]}")

    def unpack(self, packages: Collection[str], folder: Path) -> None:
        """Downloads ``name:architecture`` packages and unpacks them into one tree."""
        with tempfile.TemporaryDirectory() as archives:
            self._apt("download", *packages, cwd=Path(archives), config=self._config)
            for archive in Path(archives).iterdir():
                run("dpkg-deb", "-x", archive, folder)


def run(*command: str | Path, cwd: Path | None = None, **env: str) -> str:
    """What a command prints; it must succeed."""
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
