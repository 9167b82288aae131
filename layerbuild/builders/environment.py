"""What a build in a container is told: variables that are the same in every build, and pip's settings. Nothing else
of this machine's environment goes in.
"""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from layerbuild.pip_settings import PipSettings
from layerbuild.process import redact

if TYPE_CHECKING:
    from collections.abc import Callable

    from layerbuild.build_settings import BuildSettings

CERTIFICATES = "/build/ca.pem"
SOURCES = "/build/sources"
# PEP 600 asks this module whether an interpreter's glibc is new enough; with it pip, on a newer Linux,
# sees only the wheels that the runtime's glibc can load.
GLIBC_LIMIT = """\
def manylinux_compatible(major, minor, arch):
    return False if (major, minor) > {glibc} else None
"""

_PROXIES = ("http_proxy", "https_proxy", "no_proxy")
# For pip, and for what else a build may fetch with.
_CERTIFICATE_VARIABLES = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "CARGO_HTTP_CAINFO")

# Whatever could differ between two builds of the same source: dates, the order of sets, paths in debug sections.
_FIXED = {
    "HOME": "/build",
    "TMPDIR": "/build/tmp",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "PYTHONHASHSEED": "0",
    "SOURCE_DATE_EPOCH": "315532800",  # 1980-01-01, the first day that a zip can name
    "PIP_BUILD_CONSTRAINT": "/build/build-constraints.txt",
    "PIP_CACHE_DIR": "/build/.cache/pip",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_NO_INPUT": "1",
    "PIP_PROGRESS_BAR": "off",
    "PYTHONPATH": "/build/limits",
}


def fixed_environment(build: BuildSettings) -> dict[str, str]:
    """The variables of every build of a recipe, its own among them."""
    return {**_FIXED, **dict(build.environment)}


class PassedOn:
    """pip's settings and the proxies of this machine, as variables for a container; each is told to the user once.

    Args:
        settings: asks for pip's settings.
        note: told what is passed on, values without user names and passwords.
    """

    def __init__(self, settings: Callable[[], PipSettings], note: Callable[[str], object]) -> None:
        self._settings = settings
        self._note = note
        self._told: set[str] = set()
        self._telling = threading.Lock()

    def index(self) -> dict[str, str]:
        """What pip needs to reach its indexes from inside."""
        settings = self._settings()
        values = {
            "PIP_INDEX_URL": [settings.index_url] if settings.index_url else [],
            "PIP_EXTRA_INDEX_URL": settings.extra_index_urls,
            "PIP_FIND_LINKS": settings.find_links,
        }
        passed = {}
        for name, places in values.items():
            remote = [place for place in places if urlsplit(place).scheme in ("http", "https")]
            for place in set(places) - set(remote):
                self._tell(f"not passed into containers, as it is a folder of this machine: {name}={_shown(place)}")
            if remote:
                passed[name] = " ".join(remote)
        if settings.no_index or (settings.index_url and not _has_index(passed)):
            passed["PIP_NO_INDEX"] = "1"
        if settings.trusted_hosts:
            passed["PIP_TRUSTED_HOST"] = " ".join(settings.trusted_hosts)
        usual = PipSettings()
        if settings.timeout != usual.timeout:
            passed["PIP_DEFAULT_TIMEOUT"] = f"{settings.timeout:g}"
        if settings.retries != usual.retries:
            passed["PIP_RETRIES"] = str(settings.retries)
        passed |= self.proxies()
        if settings.client_cert:
            self._tell("not passed into containers, as it is a credential: pip's client-cert")
        if self.certificates():
            self._tell(f"passed into containers: the certificates in {settings.cert}")
            passed |= dict.fromkeys(_CERTIFICATE_VARIABLES, CERTIFICATES)
        return passed | self._tell_all(passed)

    def proxies(self) -> dict[str, str]:
        """The proxies that this machine's environment and pip name, under the names of either case."""
        found = {name: value for name in _PROXIES if (value := os.environ.get(name) or os.environ.get(name.upper()))}
        if proxy := self._settings().proxy:
            found |= {"http_proxy": proxy, "https_proxy": proxy}
        return {**found, **{name.upper(): value for name, value in found.items()}}

    def certificates(self) -> bytes:
        """The certificates that pip is configured to trust; empty where that is its own choice."""
        path = Path(self._settings().cert or "").expanduser()
        return path.read_bytes() if path.is_file() else b""

    def _tell_all(self, passed: dict[str, str]) -> dict[str, str]:
        for name, value in sorted(passed.items()):
            if value != CERTIFICATES:
                self._tell(f"passed into containers: {name}={_shown(value)}")
        return {}

    def _tell(self, text: str) -> None:
        with self._telling:
            if text not in self._told:
                self._told.add(text)
                self._note(text)


def _has_index(passed: dict[str, str]) -> bool:
    """Whether there is an index to ask. pip must not ask its default one where the user has named another."""
    if "PIP_INDEX_URL" not in passed and "PIP_EXTRA_INDEX_URL" in passed:
        passed["PIP_INDEX_URL"] = passed["PIP_EXTRA_INDEX_URL"].split()[0]
    return "PIP_INDEX_URL" in passed


def _shown(value: str) -> str:
    """A setting without user names and passwords; a proxy may be written without a scheme, a folder has none."""
    return re.sub(r"(?<!\S)(?!\w+://|[/.~])\S+@", "****@", redact(value))
