"""Package indexes, as pip's own configuration names them: what files a project has, and fetching them."""

from __future__ import annotations

import hashlib
import re
import tempfile
import threading
from dataclasses import dataclass
from functools import cache, cached_property
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote, urljoin, urlsplit

from layerbuild.errors import MachineError
from layerbuild.lock import normal_name
from layerbuild.pip_settings import PipSettings
from layerbuild.process import redact, stop_if_interrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import requests
    from packaging.tags import Tag
    from packaging.version import Version

_CHUNK = 1 << 18

# The simple repository API in both its forms (PEP 503, PEP 691).
_ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"


class Release(NamedTuple):
    """What a file's name says: project (normalised), version, build tag, and the wheel tags; none for source."""

    name: str
    version: Version
    build: tuple[Any, ...]
    tags: frozenset[Tag]


@cache
def parse_filename(filename: str) -> Release | None:
    """Reads the name of a wheel or source archive; None for any other file."""
    from packaging.utils import (
        InvalidSdistFilename,
        InvalidWheelFilename,
        parse_sdist_filename,
        parse_wheel_filename,
    )

    try:
        if filename.endswith(".whl"):
            return Release(*parse_wheel_filename(filename))
        return Release(*parse_sdist_filename(filename), (), frozenset())
    except (InvalidWheelFilename, InvalidSdistFilename):
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexFile:
    """A file that an index or a folder offers. `sha256` is None where the index does not say it."""

    filename: str
    url: str
    sha256: str | None = None
    yanked: bool = False

    @property
    def release(self) -> Release | None:
        """See `parse_filename`."""
        return parse_filename(self.filename)

    @property
    def local_path(self) -> Path | None:
        """Where the file lies, when it is on this machine."""
        return _local_path(self.url)


def _local_path(location: str) -> Path | None:
    parts = urlsplit(location)
    if parts.scheme == "file":
        from urllib.request import url2pathname  # slow to import, and seldom needed

        return Path(url2pathname(parts.path))
    if len(parts.scheme) > 1:  # a single letter is a Windows drive
        return None
    return Path(location)


# A page of a large project has fifteen thousand links: html.parser takes a second for what these take a tenth.
_TAG = re.compile(r"""<(a|base)\s((?:[^>"']|"[^"]*"|'[^']*')*)>""", re.IGNORECASE)
_ATTRIBUTE = re.compile(r"""([a-zA-Z-]+)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+)))?""")


def _html_files(text: str, url: str) -> Iterator[IndexFile]:
    base = url
    for tag, inner in _TAG.findall(text):
        link = {name.lower(): double or single or bare for name, double, single, bare in _ATTRIBUTE.findall(inner)}
        href = unescape(link.get("href", ""))
        if tag.lower() == "base":
            base = urljoin(url, href)
            continue
        if not href:
            continue
        target, _, fragment = (href if href.startswith(("https://", "http://")) else urljoin(base, href)).partition(
            "#"
        )
        name, _, value = fragment.partition("=")
        yield IndexFile(
            filename=unquote(target.partition("?")[0].rstrip("/").rsplit("/", 1)[-1]),
            url=target,
            sha256=value if name == "sha256" else None,
            yanked="data-yanked" in link,
        )


def _json_files(data: dict[str, Any], url: str) -> Iterator[IndexFile]:
    for row in data.get("files", []):
        target = urljoin(url, row["url"])
        yield IndexFile(
            filename=row["filename"],
            url=target,
            sha256=row.get("hashes", {}).get("sha256"),
            yanked=bool(row.get("yanked")),
        )


class Index:
    """All the places that pip is configured to look for packages in, as one."""

    def __init__(self, settings: PipSettings | None = None) -> None:
        self._settings = settings
        self._asking = threading.Lock()
        self._pages: dict[str, tuple[IndexFile, ...]] = {}
        self._locks: dict[str, threading.Lock] = {}

    @property
    def settings(self) -> PipSettings:
        """pip's settings, read when first needed, by one thread."""
        with self._asking:
            if self._settings is None:
                self._settings = PipSettings.read()
            return self._settings

    @cached_property
    def session(self) -> requests.Session:
        """One HTTP session with pip's proxy, certificates and retries; credentials from URLs and netrc."""
        import requests
        from requests.adapters import HTTPAdapter
        from urllib3.util.retry import Retry

        session = requests.Session()
        retry = Retry(
            total=self.settings.retries,
            # One who has no network is to hear so soon.
            connect=min(2, self.settings.retries),
            backoff_factor=0.25,
            status_forcelist=(500, 502, 503, 520, 527),
            redirect=10,
            raise_on_status=False,
        )
        session.mount("https://", HTTPAdapter(max_retries=retry, pool_maxsize=16))
        session.mount("http://", HTTPAdapter(max_retries=retry, pool_maxsize=16))
        session.headers["User-Agent"] = "layerbuild"
        if self.settings.proxy:
            session.proxies = {"http": self.settings.proxy, "https": self.settings.proxy}
        if self.settings.client_cert:
            session.cert = self.settings.client_cert
        return session

    def _get(self, url: str, **options: Any) -> requests.Response:
        """A GET request; a connection that fails is an error that says what to look at."""
        import requests

        host = urlsplit(url).hostname or ""
        netloc = urlsplit(url).netloc.rpartition("@")[2]
        trusted = host in self.settings.trusted_hosts or netloc in self.settings.trusted_hosts
        verify: bool | str = False if trusted else (self.settings.cert or True)
        try:
            return self.session.get(
                self._with_credentials(url), timeout=self.settings.timeout, verify=verify, **options
            )
        except requests.RequestException as error:
            raise unreachable(url, error) from None

    def _with_credentials(self, url: str) -> str:
        """The URL with the credentials of the index on the same host: pages may link to it without them."""
        parts = urlsplit(url)
        if "@" not in parts.netloc:
            for index in (*self.settings.indexes, *self.settings.find_links):
                credentials, _, netloc = urlsplit(index).netloc.rpartition("@")
                if credentials and (urlsplit(index).scheme, netloc) == (parts.scheme, parts.netloc):
                    return parts._replace(netloc=f"{credentials}@{netloc}").geturl()
        return url

    def files(self, name: str) -> tuple[IndexFile, ...]:
        """Every file of a project, wherever it is offered; empty when no place knows the project.

        Raises:
            MachineError: an index cannot be reached or refuses to answer.
        """
        name = normal_name(name)
        with self._locks.setdefault(name, threading.Lock()):
            if name not in self._pages:
                refusals: list[str] = []
                found = [file for url in self.settings.indexes for file in self._index_files(url, name, refusals)]
                for place in self.settings.find_links:
                    found += self._linked_files(place, name, refusals)
                if not found and refusals:
                    raise MachineError(
                        "index-refused",
                        f"no index gives {name}, and one refuses to answer",
                        causes=refusals,
                        hint="look at the index settings and credentials that `pip config list` shows",
                    )
                self._pages[name] = tuple(found)
            return self._pages[name]

    def _index_files(self, index: str, name: str, refusals: list[str]) -> Iterable[IndexFile]:
        url = f"{index.rstrip('/')}/{name}/"
        if path := _local_path(url):
            page = path / "index.html"
            return _html_files(page.read_text("utf-8"), page.as_uri()) if page.is_file() else ()
        return self._page_files(url, refusals)

    def _page_files(self, url: str, refusals: list[str]) -> Iterable[IndexFile]:
        with self._get(url, headers={"Accept": _ACCEPT}) as response:
            if response.status_code in (404, 410):
                return ()
            if not response.ok:
                # Some indexes refuse what they do not have: it matters only when nobody has it.
                refusals.append(f"{response.status_code} {response.reason} for {redact(url)}")
                return ()
            if "json" in response.headers.get("Content-Type", ""):
                try:
                    return tuple(_json_files(response.json(), response.url))
                except (ValueError, LookupError, TypeError, AttributeError) as error:
                    raise MachineError(
                        "index-unreadable",
                        f"the index's answer for {redact(url)} is not what PEP 691 describes",
                        causes=[f"{type(error).__name__}: {error}"],
                        hint="look at the index URL that `pip config list` shows",
                    ) from None
            response.encoding = response.encoding or "utf-8"
            return tuple(_html_files(response.text, response.url))

    def _linked_files(self, place: str, name: str, refusals: list[str]) -> Iterable[IndexFile]:
        path = _local_path(place)
        if path is None or path.suffix in (".html", ".htm"):
            files = (
                _html_files(path.read_text("utf-8"), path.absolute().as_uri())
                if path
                else self._page_files(place, refusals)
            )
        elif path.is_dir():
            files = (IndexFile(filename=item.name, url=item.absolute().as_uri()) for item in sorted(path.iterdir()))
        else:
            files = ()
        return [file for file in files if file.release and file.release.name == name]

    def sha256(self, file: IndexFile) -> str:
        """A file's sha256 (hex): as the index says it, else off the file itself."""
        if file.sha256:
            return file.sha256
        if path := file.local_path:
            with path.open("rb") as source:
                return hashlib.file_digest(source, "sha256").hexdigest()
        with tempfile.TemporaryDirectory(prefix="layerbuild-") as folder:
            return self.download(file, Path(folder) / "file", lambda _arrived, _total: None)

    def download(self, file: IndexFile, to: Path, progress: Callable[[int, int | None], object]) -> str:
        """Fetches a file and returns the sha256 (hex) of what arrived.

        Args:
            file: what to fetch.
            to: where to write it.
            progress: called with (bytes that just arrived, total or None).

        Raises:
            MachineError: it cannot be had, or arrived only in part.
        """
        digest = hashlib.sha256()
        received = 0
        with to.open("wb") as output:
            total, chunks = self._open(file)
            for chunk in chunks:
                stop_if_interrupted()
                output.write(chunk)
                digest.update(chunk)
                received += len(chunk)
                progress(len(chunk), total)
        if total is not None and received < total:
            raise MachineError(
                "download-truncated",
                f"{file.filename} broke off after {received:,} of {total:,} bytes",
                hint="try again",
            )
        return digest.hexdigest()

    def _open(self, file: IndexFile) -> tuple[int | None, Iterator[bytes]]:
        if path := file.local_path:
            return path.stat().st_size, _read_chunks(path)
        response = self._get(file.url, stream=True, headers={"Accept-Encoding": "identity"})
        if not response.ok:
            response.close()
            raise MachineError(
                "index-refused",
                f"the index answers {response.status_code} {response.reason} for {redact(file.url)}",
            )
        length = response.headers.get("Content-Length", "")
        return (int(length) if length.isdigit() else None), _response_chunks(response, file)


def _read_chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as source:
        while chunk := source.read(_CHUNK):
            yield chunk


def _response_chunks(response: requests.Response, file: IndexFile) -> Iterator[bytes]:
    import requests

    try:
        with response:
            yield from response.iter_content(_CHUNK)
    except requests.exceptions.ChunkedEncodingError:
        return  # the server hung up: the caller sees that bytes are missing
    except requests.RequestException as error:
        raise unreachable(file.url, error) from None


def unreachable(url: str, error: Exception) -> MachineError:
    """The error for an index that does not answer."""
    inner = error.args[0] if error.args else error
    reason = str(getattr(inner, "reason", None) or inner)
    return MachineError(
        "index-unreachable",
        f"cannot reach {urlsplit(redact(url)).netloc}",
        # Without the object that urllib3 puts before what happened.
        causes=[redact(re.sub(r"^\w+\(.*?\): ", "", reason))],
        hint="check the network, and the index, proxy and certificate that `pip config list` shows",
    )
