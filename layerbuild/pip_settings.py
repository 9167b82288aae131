"""What pip is configured to use: its files, its variables, its default index."""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass
from pathlib import Path

from layerbuild.errors import MachineError
from layerbuild.process import redact, run

# pip's own defaults.
_TIMEOUT = 15.0
_RETRIES = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class PipSettings:
    """What pip is configured to use. None and empty mean: pip's default."""

    index_url: str | None = None
    extra_index_urls: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    no_index: bool = False
    trusted_hosts: tuple[str, ...] = ()
    cert: str | None = None
    client_cert: str | None = None
    proxy: str | None = None
    timeout: float = _TIMEOUT
    retries: int = _RETRIES

    @classmethod
    def read(cls) -> PipSettings:
        """Asks pip itself, so that its files, their order and its variables are read as pip reads them.

        Raises:
            MachineError: pip cannot say, because its configuration is broken.
        """
        done = run([sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"])
        if done.returncode:
            raise MachineError(
                "pip-config",
                "pip cannot read its own configuration",
                causes=redact(done.stderr).strip().splitlines(),
            )
        return cls.parse(done.stdout)

    @classmethod
    def parse(cls, listing: str) -> PipSettings:
        """Reads what ``pip config list`` prints.

        pip lets a section named after a command win over ``global``, and its variables over both.
        """
        values: dict[str, str] = {}
        sections = {"global": 0, "download": 1, ":env:": 2}
        rank: dict[str, int] = {}
        for line in listing.splitlines():
            name, separator, value = line.partition("=")
            section, _, key = name.strip().rpartition(".")
            level = sections.get(section)
            if not separator or level is None or level < rank.get(key, 0):
                continue
            rank[key] = level
            values[key.replace("_", "-")] = str(ast.literal_eval(value.strip()))
        return cls(
            index_url=values.get("index-url") or values.get("pypi-url"),
            extra_index_urls=tuple(values.get("extra-index-url", "").split()),
            find_links=tuple(_absolute(place) for place in values.get("find-links", "").split()),
            no_index=values.get("no-index", "").lower() in ("y", "yes", "t", "true", "on", "1"),
            trusted_hosts=tuple(values.get("trusted-host", "").split()),
            cert=values.get("cert"),
            client_cert=values.get("client-cert"),
            proxy=values.get("proxy"),
            timeout=_number(values.get("timeout") or values.get("default-timeout"), "timeout", _TIMEOUT),
            retries=int(_number(values.get("retries"), "retries", _RETRIES)),
        )

    @property
    def indexes(self) -> tuple[str, ...]:
        """The URLs of all indexes, pip's default where none is configured."""
        if self.no_index:
            return ()
        return (self.index_url or _default_index(), *self.extra_index_urls)


def _absolute(place: str) -> str:
    return place if "://" in place or place.startswith("file:") else str(Path(place).expanduser().absolute())


def _number(text: str | None, name: str, default: float) -> float:
    try:
        return float(text) if text else default
    except ValueError:
        raise MachineError("pip-config", f"pip's setting {name} is {text!r}, not a number") from None


def _default_index() -> str:
    # Only pip itself knows its default, and says it nowhere but here.
    try:
        from pip._internal.models.index import PyPI  # type: ignore[import-untyped, unused-ignore]
    except ImportError:
        raise MachineError(
            "pip-config", "this version of pip does not tell its default index", hint="set pip's index-url"
        ) from None
    return str(PyPI.simple_url)
