"""Indexes: pip's settings as pip reads them, pages in both forms, and what goes wrong on the way."""

from __future__ import annotations

import base64
import gc
import json
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from layerbuild.errors import MachineError
from layerbuild.index import Index, IndexFile
from layerbuild.pip_settings import PipSettings
from layerbuild.process import interrupted
from tests.conftest import Ran
from tests.index_server import IndexServer
from tests.wheels import make_wheel, sha256_of

WHEEL = "demo-1.0-py3-none-any.whl"
JSON_TYPE = "application/vnd.pypi.simple.v1+json"
A = "a" * 64


class Pages:
    """An HTTP server on loopback that answers what a test says: path to (status, content type, body)."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, str, str | bytes]] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        pages = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                pages.asked.append((self.path, dict(self.headers)))
                status, kind, body = pages.answers.get(self.path, (404, "text/plain", "nothing here"))
                data = body.encode() if isinstance(body, str) else body
                self.send_response(status)
                if status in (301, 302):
                    self.send_header("Location", kind)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server.server_address[1]}"

    @property
    def url(self) -> str:
        return f"http://{self.host}/simple"

    def html(self, body: str, path: str = "/simple/demo/") -> None:
        self.answers[path] = (200, "text/html; charset=utf-8", f"<!DOCTYPE html><html>{body}</html>")

    def refuse(self, status: int, path: str = "/simple/demo/") -> None:
        self.answers[path] = (status, "text/plain", "no")

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def pages() -> Iterator[Pages]:
    server = Pages()
    yield server
    server.stop()


@pytest.fixture
def more_pages() -> Iterator[Pages]:
    server = Pages()
    yield server
    server.stop()


@pytest.fixture
def index_of() -> Iterator[Callable[..., Index]]:
    """Makes an index with the given settings, closes it in the end, and leaves no connection that nobody closed."""
    made: list[Index] = []

    def make(*urls: str, **settings: Any) -> Index:
        if urls:
            settings.update(index_url=urls[0], extra_index_urls=urls[1:])
        made.append(Index(PipSettings(**{"retries": 0, "timeout": 5.0, "no_index": not urls, **settings})))
        return made[-1]

    yield make
    for index in made:
        index.session.close()
    made.clear()
    gc.collect()


def names(files: tuple[IndexFile, ...]) -> list[str]:
    return [file.filename for file in files]


def failing(call: Callable[[], object]) -> MachineError:
    with pytest.raises(MachineError) as caught:
        call()
    assert caught.value.exit_code == 4
    return caught.value


# What pip is configured to use.


@pytest.mark.parametrize(
    ("listing", "expected"),
    [
        ("", PipSettings()),
        ("global.index-url='https://x/simple'\n", PipSettings(index_url="https://x/simple")),
        ("global.index-url = 'https://x/simple'\n", PipSettings(index_url="https://x/simple")),
        ("global.index-url='https://x/?a=b'\n", PipSettings(index_url="https://x/?a=b")),
        ("global.index-url='g'\ndownload.index-url='d'\n", PipSettings(index_url="d")),
        ("download.index-url='d'\nglobal.index-url='g'\n", PipSettings(index_url="d")),
        (":env:.index-url='e'\ndownload.index-url='d'\nglobal.index-url='g'\n", PipSettings(index_url="e")),
        ("install.index-url='i'\nfreeze.timeout='1'\n", PipSettings()),
        ("global.index_url='u'\n", PipSettings(index_url="u")),
        ("global.extra-index-url='a b'\n", PipSettings(extra_index_urls=("a", "b"))),
        ("global.extra-index-url='\\na\\nb'\n", PipSettings(extra_index_urls=("a", "b"))),
        ("global.find-links='/one\\n/two'\n", PipSettings(find_links=("/one", "/two"))),
        ("global.trusted-host='a b:80'\n", PipSettings(trusted_hosts=("a", "b:80"))),
        ('global.proxy="http://it\'s"\n', PipSettings(proxy="http://it's")),
        ("global.cert='/ca.pem'\nglobal.client-cert='/me.pem'\n", PipSettings(cert="/ca.pem", client_cert="/me.pem")),
        ("global.timeout='60'\nglobal.retries='0'\n", PipSettings(timeout=60.0, retries=0)),
        (":env:.default-timeout='60'\n", PipSettings(timeout=60.0)),
        (":env:.config-file='/dev/null'\n", PipSettings()),
        ("a warning that is no setting\n", PipSettings()),
    ],
)  # fmt: skip
def test_what_pip_config_list_prints_is_understood(listing: str, expected: PipSettings) -> None:
    assert PipSettings.parse(listing) == expected


@pytest.mark.parametrize("value", ["1", "true", "True", "yes", "on", "y", "t"])
def test_no_index_is_a_switch_as_pip_reads_it(value: str) -> None:
    settings = PipSettings.parse(f"global.no-index='{value}'\nglobal.index-url='x'\n")
    assert settings.indexes == ()


@pytest.mark.parametrize("value", ["0", "false", "no", "off", "n", "f"])
def test_no_index_can_be_switched_off(value: str) -> None:
    settings = PipSettings.parse(f"global.no-index='true'\n:env:.no-index='{value}'\nglobal.index-url='x'\n")
    assert settings.indexes == ("x",)


def test_without_any_setting_pips_own_index_serves() -> None:
    (default,) = PipSettings().indexes
    assert default.startswith("https://")
    assert default.endswith("/simple")
    assert PipSettings(extra_index_urls=("x",)).indexes == (default, "x")


@pytest.fixture
def pip_conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pip.conf of the test's own, and nothing else that pip would listen to."""
    for name in list(os.environ):
        if name.startswith("PIP_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    return tmp_path / "pip.conf"


def test_pip_itself_is_asked_for_its_settings(pip_conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip_conf.write_text(
        "[global]\nindex-url = https://user:p%%40ss@one.example/simple\n"
        "extra-index-url =\n    https://two.example/simple\n    https://three.example/simple\n"
        "find-links = /srv/it's here\ntimeout = 60\n[download]\nindex-url = https://four.example/simple\n"
    )
    monkeypatch.setenv("PIP_RETRIES", "2")
    settings = PipSettings.read()
    assert settings.indexes == (
        "https://four.example/simple",
        "https://two.example/simple",
        "https://three.example/simple",
    )
    assert (settings.timeout, settings.retries) == (60.0, 2)
    assert settings.find_links == ("/srv/it's", str(Path.cwd() / "here"))
    monkeypatch.setenv("PIP_INDEX_URL", "https://five.example/simple")
    assert PipSettings.read().index_url == "https://five.example/simple"


def test_a_broken_pip_conf_is_an_error_of_the_machine(pip_conf: Path) -> None:
    pip_conf.write_text("index-url = without a section\n")
    error = failing(PipSettings.read)
    assert error.code == "pip-config"
    assert any("pip.conf" in cause for cause in error.causes)


@pytest.mark.parametrize("setting", ["timeout = soon", "retries = some"])
def test_a_number_that_is_none_in_pip_conf_is_an_error_of_the_machine(pip_conf: Path, setting: str) -> None:
    pip_conf.write_text(f"[download]\n{setting}\n")
    assert failing(PipSettings.read).code == "pip-config"


# Pages.


def test_an_html_page_gives_its_files(pages: Pages, index_of: Callable[..., Index]) -> None:
    pages.html(
        f'<a href="../../files/{WHEEL}#sha256={A}" data-core-metadata="sha256={A}">x</a>'
        f'<A HREF="https://cdn.example/a%2Bb/demo-2.0%2Bcpu-py3-none-any.whl" data-yanked="bad&amp;ugly">x</A>'
        f'<a href="/demo-3.tar.gz#md5=123" data-dist-info-metadata>x</a><a name="top">no link</a>'
        '<a href="/cdn/demo-4.zip?x=1&amp;token=2#sha256=b">x</a>'
    )
    base = f"http://{pages.host}"
    assert index_of(pages.url).files("Demo") == (
        IndexFile(filename=WHEEL, url=f"{base}/files/{WHEEL}", sha256=A),
        IndexFile(
            filename="demo-2.0+cpu-py3-none-any.whl",
            url="https://cdn.example/a%2Bb/demo-2.0%2Bcpu-py3-none-any.whl",
            yanked=True,
        ),
        IndexFile(filename="demo-3.tar.gz", url=f"{base}/demo-3.tar.gz"),
        IndexFile(filename="demo-4.zip", url=f"{base}/cdn/demo-4.zip?x=1&token=2", sha256="b"),
    )


@pytest.mark.parametrize("base", ["http://other.example/files/", "//other.example/files/"])
def test_links_are_relative_to_the_pages_base(pages: Pages, index_of: Callable[..., Index], base: str) -> None:
    pages.html(f'<head><base href="{base}"></head><a href="{WHEEL}">x</a>')
    (file,) = index_of(pages.url).files("demo")
    assert file.url == f"http://other.example/files/{WHEEL}"


def test_links_are_relative_to_where_the_page_was_moved(pages: Pages, index_of: Callable[..., Index]) -> None:
    pages.answers["/simple/demo/"] = (302, "/moved/here/", "")
    pages.html(f'<a href="{WHEEL}">x</a>', "/moved/here/")
    (file,) = index_of(pages.url).files("demo")
    assert file.url == f"http://{pages.host}/moved/here/{WHEEL}"


def test_a_json_page_gives_its_files(pages: Pages, index_of: Callable[..., Index]) -> None:
    rows = [
        {"filename": WHEEL, "url": f"../../files/{WHEEL}", "hashes": {"sha256": A}, "core-metadata": {"sha256": A}},
        {"filename": "demo-2.tar.gz", "url": "https://x.example/2", "hashes": {}, "yanked": "broken"},
        {"filename": "demo-3.tar.gz", "url": "/3", "hashes": {"md5": "1"}, "yanked": False, "core-metadata": False},
    ]
    document = {"meta": {"api-version": "1.0"}, "name": "demo", "files": rows}
    pages.answers["/simple/demo/"] = (200, JSON_TYPE, json.dumps(document))
    base = f"http://{pages.host}"
    assert index_of(f"{pages.url}/").files("demo") == (
        IndexFile(filename=WHEEL, url=f"{base}/files/{WHEEL}", sha256=A),
        IndexFile(filename="demo-2.tar.gz", url="https://x.example/2", yanked=True),
        IndexFile(filename="demo-3.tar.gz", url=f"{base}/3"),
    )
    assert JSON_TYPE in pages.asked[0][1]["Accept"]


@pytest.mark.parametrize("body", ["<html>", '{"files": [{"filename": "x.whl"}]}', "[1, 2]", '{"files": null}'])
def test_a_json_page_that_is_none_is_an_error_of_the_index(
    pages: Pages, index_of: Callable[..., Index], body: str
) -> None:
    pages.answers["/simple/demo/"] = (200, JSON_TYPE, body)
    failing(lambda: index_of(pages.url).files("demo"))


def test_a_page_is_asked_for_once(pages: Pages, index_of: Callable[..., Index]) -> None:
    pages.html(f'<a href="{WHEEL}">x</a>')
    index = index_of(pages.url)
    assert index.files("demo") == index.files("DEMO")
    assert [path for path, _ in pages.asked] == ["/simple/demo/"]


def test_all_indexes_count_as_one(pages: Pages, more_pages: Pages, index_of: Callable[..., Index]) -> None:
    pages.html(f'<a href="{WHEEL}">x</a>')
    more_pages.html('<a href="demo-2.0-py3-none-any.whl">x</a>')
    assert names(index_of(pages.url, more_pages.url).files("demo")) == [WHEEL, "demo-2.0-py3-none-any.whl"]


@pytest.mark.parametrize("status", [404, 410])
def test_a_project_that_no_index_has_has_no_files(pages: Pages, index_of: Callable[..., Index], status: int) -> None:
    pages.refuse(status)
    assert index_of(pages.url).files("demo") == ()


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
def test_an_index_that_refuses_is_an_error_when_nobody_else_has_the_project(
    pages: Pages, more_pages: Pages, index_of: Callable[..., Index], status: int
) -> None:
    pages.refuse(status)
    url = pages.url.replace("//", "//user:secret@")
    error = failing(lambda: index_of(url, more_pages.url).files("demo"))
    assert error.code == "index-refused"
    assert any(str(status) in cause for cause in error.causes)
    assert "secret" not in str(error.as_json())


@pytest.mark.parametrize("status", [401, 403, 500])
def test_an_index_that_refuses_does_not_matter_when_another_has_the_project(
    pages: Pages, more_pages: Pages, index_of: Callable[..., Index], status: int
) -> None:
    pages.refuse(status)
    more_pages.html(f'<a href="{WHEEL}">x</a>')
    assert names(index_of(pages.url, more_pages.url).files("demo")) == [WHEEL]


def test_a_refusal_counts_for_the_project_that_was_refused_alone(
    pages: Pages, more_pages: Pages, index_of: Callable[..., Index]
) -> None:
    pages.refuse(403)
    more_pages.html(f'<a href="{WHEEL}">x</a>')
    index = index_of(pages.url, more_pages.url)
    assert names(index.files("demo")) == [WHEEL]
    assert index.files("unknown") == ()


def closed_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.mark.parametrize("credentials", ["", "user:secret@", "user:se%40secret@"])
def test_an_index_that_cannot_be_reached_is_named_without_its_password(
    index_of: Callable[..., Index], credentials: str
) -> None:
    port = closed_port()
    error = failing(lambda: index_of(f"http://{credentials}127.0.0.1:{port}/simple").files("demo"))
    assert error.code == "index-unreachable"
    assert f"127.0.0.1:{port}" in error.what
    assert "secret" not in str(error.as_json())


def test_a_proxy_is_used_and_its_password_never_shown(index_of: Callable[..., Index]) -> None:
    proxy = f"http://user:secret@127.0.0.1:{closed_port()}"
    error = failing(lambda: index_of("http://index.invalid/simple", proxy=proxy).files("demo"))
    assert error.code == "index-unreachable"
    assert "secret" not in str(error.as_json())
    assert "proxy" in " ".join(error.causes).lower()


def test_a_proxy_is_what_answers(pages: Pages, index_of: Callable[..., Index]) -> None:
    pages.answers["http://index.invalid/simple/demo/"] = (200, "text/html", f'<a href="{WHEEL}">x</a>')
    index = index_of("http://index.invalid/simple", proxy=f"http://{pages.host}")
    assert names(index.files("demo")) == [WHEEL]


# Folders and local pages.


def test_an_index_may_be_a_folder(tmp_path: Path, index_of: Callable[..., Index]) -> None:
    folder = tmp_path / "my index" / "demo"
    folder.mkdir(parents=True)
    (folder / "index.html").write_text(f'<a href="{WHEEL}#sha256={A}">x</a>')
    index = index_of((tmp_path / "my index").as_uri())
    (file,) = index.files("demo")
    assert (file.filename, file.sha256, file.local_path) == (WHEEL, A, folder / WHEEL)
    assert index.files("unknown") == ()


@pytest.mark.parametrize("as_url", [False, True])
def test_a_find_links_folder_gives_the_files_of_the_project(
    tmp_path: Path, index_of: Callable[..., Index], as_url: bool
) -> None:
    links = tmp_path / "wheels"
    demo = make_wheel(links, "demo")
    make_wheel(links, "other")
    (links / "Demo-2.0.tar.gz").touch()
    (links / "notes.txt").touch()
    index = index_of(find_links=(links.as_uri() if as_url else str(links),))
    files = index.files("demo")
    assert sorted(names(files)) == ["Demo-2.0.tar.gz", WHEEL]
    (file,) = (file for file in files if file.filename == WHEEL)
    assert file.local_path == demo
    assert index.sha256(file) == sha256_of(demo)
    to = tmp_path / "copy"
    assert index.download(file, to, lambda _arrived, _total: None) == sha256_of(demo)
    assert to.read_bytes() == demo.read_bytes()


def test_a_find_links_folder_gives_no_files_of_another_project(
    tmp_path: Path, index_of: Callable[..., Index]
) -> None:
    make_wheel(tmp_path, "demo")
    make_wheel(tmp_path, "demo-tools")
    (tmp_path / "demo-tools-1.0.tar.gz").touch()
    index = index_of(find_links=(str(tmp_path),))
    assert names(index.files("demo")) == [WHEEL]
    assert sorted(names(index.files("demo_tools"))) == ["demo-tools-1.0.tar.gz", "demo_tools-1.0-py3-none-any.whl"]


def test_a_find_links_folder_that_is_not_there_gives_nothing(tmp_path: Path, index_of: Callable[..., Index]) -> None:
    assert index_of(find_links=(str(tmp_path / "nowhere"),)).files("demo") == ()


def test_find_links_may_be_a_page_here_or_elsewhere(
    tmp_path: Path, pages: Pages, index_of: Callable[..., Index]
) -> None:
    body = f'<a href="files/{WHEEL}">x</a><a href="other-1.0.tar.gz">x</a>'
    (tmp_path / "links.html").write_text(body)
    pages.html(body, "/links/")
    for place, url in (
        (str(tmp_path / "links.html"), (tmp_path / "files" / WHEEL).as_uri()),
        ((tmp_path / "links.html").as_uri(), (tmp_path / "files" / WHEEL).as_uri()),
        (f"http://{pages.host}/links/", f"http://{pages.host}/links/files/{WHEEL}"),
    ):
        assert index_of(find_links=(place,)).files("demo") == (IndexFile(filename=WHEEL, url=url),)


def test_find_links_and_indexes_are_merged(tmp_path: Path, pages: Pages, index_of: Callable[..., Index]) -> None:
    make_wheel(tmp_path, "demo", "3.0")
    pages.html(f'<a href="{WHEEL}">x</a>')
    index = index_of(pages.url, find_links=(str(tmp_path),))
    assert names(index.files("demo")) == [WHEEL, "demo-3.0-py3-none-any.whl"]


# Credentials.


@pytest.mark.parametrize("absolute", [False, True])
def test_credentials_of_the_index_url_reach_pages_and_files(
    tmp_path: Path, pages: Pages, index_of: Callable[..., Index], absolute: bool
) -> None:
    link = f"/files/{WHEEL}"
    pages.html(f'<a href="{f"http://{pages.host}" if absolute else ""}{link}">x</a>')
    pages.answers[link] = (200, "application/octet-stream", b"content")
    index = index_of(pages.url.replace("//", "//user:p%40ss@"))
    (file,) = index.files("demo")
    index.download(file, tmp_path / "file", lambda _arrived, _total: None)
    expected = "Basic " + base64.b64encode(b"user:p@ss").decode()
    assert [(path, headers.get("Authorization")) for path, headers in pages.asked] == [
        ("/simple/demo/", expected),
        (link, expected),
    ]


def test_credentials_are_not_sent_to_another_server(
    tmp_path: Path, pages: Pages, more_pages: Pages, index_of: Callable[..., Index]
) -> None:
    pages.html(f'<a href="http://{more_pages.host}/{WHEEL}">x</a>')
    more_pages.answers[f"/{WHEEL}"] = (200, "application/octet-stream", b"content")
    index = index_of(pages.url.replace("//", "//user:secret@"))
    index.download(index.files("demo")[0], tmp_path / "file", lambda _arrived, _total: None)
    assert "Authorization" not in more_pages.asked[0][1]


def test_a_wheel_is_made_into_a_layer_from_an_index_that_asks_for_a_password(
    project: Path,
    cli: Callable[..., Ran],
    index_server: IndexServer,
    wheelhouse: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_wheel(wheelhouse)
    index_server.password = "user:top-secret"
    (project / "reqs.txt").write_text("demo\n")
    arguments = ("make", "-r", "reqs.txt", "--name", "web", "--target", "python3.12-arm64")
    refused = cli(*arguments)
    assert refused.code in (3, 4)
    monkeypatch.setenv("PIP_INDEX_URL", index_server.url.replace("//", "//user:top-secret@"))
    made = cli(*arguments)
    assert made.code == 0, made.err
    assert "top-secret" not in made.out + made.err
    for path in [*project.rglob("*.txt"), *project.rglob("*.json")]:
        assert "top-secret" not in path.read_text()


# Downloads.


def test_a_download_tells_its_progress_and_its_hash(
    tmp_path: Path, wheelhouse: Path, index_server: IndexServer, index_of: Callable[..., Index]
) -> None:
    path = make_wheel(wheelhouse, files={"demo.bin": os.urandom(600_000)})
    index_server.hashes = False
    index = index_of(index_server.url)
    (file,) = index.files("demo")
    assert file.sha256 is None
    seen: list[tuple[int, int | None]] = []
    digest = index.download(file, tmp_path / "file", lambda arrived, total: seen.append((arrived, total)))
    assert digest == sha256_of(path) == index.sha256(file)
    assert sum(arrived for arrived, _ in seen) == path.stat().st_size
    assert {total for _, total in seen} == {path.stat().st_size}
    assert len(seen) > 1


def test_a_download_that_breaks_off_is_an_error(
    tmp_path: Path, wheelhouse: Path, index_server: IndexServer, index_of: Callable[..., Index]
) -> None:
    path = make_wheel(wheelhouse, files={"demo.bin": os.urandom(300_000)})
    index_server.faults[WHEEL] = "truncate"
    index = index_of(index_server.url)
    (file,) = index.files("demo")
    error = failing(lambda: index.download(file, tmp_path / "file", lambda _arrived, _total: None))
    assert error.code == "download-truncated"
    assert WHEEL in error.what
    assert f"{path.stat().st_size:,}" in error.what


def test_a_file_that_is_refused_is_an_error(
    tmp_path: Path, wheelhouse: Path, index_server: IndexServer, index_of: Callable[..., Index]
) -> None:
    make_wheel(wheelhouse)
    index_server.faults[WHEEL] = "403"
    index = index_of(index_server.url)
    (file,) = index.files("demo")
    error = failing(lambda: index.download(file, tmp_path / "file", lambda _arrived, _total: None))
    assert (error.code, WHEEL in error.what, "403" in error.what) == ("index-refused", True, True)


def test_a_server_that_stalls_is_an_error_after_pips_timeout(
    tmp_path: Path, wheelhouse: Path, index_server: IndexServer, index_of: Callable[..., Index]
) -> None:
    make_wheel(wheelhouse, files={"demo.bin": os.urandom(300_000)})
    index_server.chunk_delay = 2.0
    index = index_of(index_server.url, timeout=0.3)
    (file,) = index.files("demo")
    error = failing(lambda: index.download(file, tmp_path / "file", lambda _arrived, _total: None))
    assert error.code == "index-unreachable"


def test_an_index_that_fails_once_is_asked_again(
    wheelhouse: Path, index_server: IndexServer, index_of: Callable[..., Index]
) -> None:
    make_wheel(wheelhouse)
    index_server.faults["/simple/demo/"] = "503*1"
    assert names(index_of(index_server.url, retries=2).files("demo")) == [WHEEL]
    assert index_server.requests == ["/simple/demo/"] * 2


def test_a_download_ends_when_the_user_interrupts(
    tmp_path: Path, wheelhouse: Path, index_server: IndexServer, index_of: Callable[..., Index]
) -> None:
    from layerbuild.process import Interrupted

    make_wheel(wheelhouse, files={"demo.bin": os.urandom(600_000)})
    index = index_of(index_server.url)
    (file,) = index.files("demo")
    with pytest.raises(Interrupted):
        index.download(file, tmp_path / "file", lambda _arrived, _total: interrupted.set())
    assert (tmp_path / "file").stat().st_size < 600_000


@pytest.mark.skipif(sys.platform == "win32", reason="paths of POSIX")
def test_only_files_of_this_machine_have_a_local_path() -> None:
    assert IndexFile(filename="x", url="file:///a%20b/x").local_path == Path("/a b/x")
    assert IndexFile(filename="x", url="http://h/x").local_path is None
