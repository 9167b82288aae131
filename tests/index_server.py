"""A real package index over HTTP on loopback, serving a folder of files, that can be told to misbehave."""

from __future__ import annotations

import hashlib
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from layerbuild.lock import normal_name


class IndexServer:
    """Serves ``/simple/<project>/`` (PEP 503) and ``/files/<name>`` out of `folder`.

    Attributes:
        requests: paths asked for, in order.
        headers: of the last request.
        faults: file name or path to what goes wrong with it: ``truncate`` (Content-Length says more than is
            sent), ``garbage`` (other bytes of the same length), ``hang`` (no answer until stopped), or an
            HTTP status such as ``"500"``. With a suffix ``*N`` only the first N times.
        hashes: whether pages say sha256.
        password: when set, ``user:password`` that HTTP basic authentication must give.
        chunk_delay: seconds between chunks of 64 KiB.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests: list[str] = []
        self.headers: dict[str, str] = {}
        self.faults: dict[str, str] = {}
        self.hashes = True
        self.password: str | None = None
        self.chunk_delay = 0.0
        self.stopping = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with suppress(ConnectionError):
                    outer.answer(self)

            def do_HEAD(self) -> None:
                with suppress(ConnectionError):
                    outer.answer(self)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})
        self.thread.start()

    @property
    def port(self) -> int:
        """The port on 127.0.0.1."""
        return int(self.server.server_address[1])

    @property
    def url(self) -> str:
        """The index URL for pip."""
        return f"http://127.0.0.1:{self.port}/simple/"

    def stop(self) -> None:
        """Ends the server."""
        self.stopping.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answers one request."""
        path = unquote(handler.path.split("?")[0])
        self.requests.append(path)
        self.headers = dict(handler.headers)
        fault = self._fault(path)
        if fault == "hang":
            self.stopping.wait()
            return
        if fault.isdigit():
            self._send(handler, int(fault), b"no")
        elif self.password and not self._authorised(handler):
            handler.send_response(401)
            handler.send_header("WWW-Authenticate", 'Basic realm="index"')
            handler.send_header("Content-Length", "0")
            handler.end_headers()
        elif path.startswith("/simple/"):
            self._page(handler, normal_name(path.split("/")[2]))
        else:
            self._file(handler, path.rsplit("/", 1)[-1], fault)

    def _fault(self, path: str) -> str:
        for key in (path, path.rsplit("/", 1)[-1]):
            fault, _, times = self.faults.get(key, "").partition("*")
            if fault and times:
                left = int(times)
                self.faults[key] = f"{fault}*{left - 1}" if left > 1 else ""
            if fault:
                return fault
        return ""

    def _authorised(self, handler: BaseHTTPRequestHandler) -> bool:
        import base64

        expected = base64.b64encode((self.password or "").encode()).decode()
        return handler.headers.get("Authorization") == f"Basic {expected}"

    def _page(self, handler: BaseHTTPRequestHandler, project: str) -> None:
        links = []
        for file in sorted(self.folder.iterdir()):
            stem = file.name.split("-")[0] if file.suffix == ".whl" else file.name.rsplit("-", 1)[0]
            if normal_name(stem) == project:
                fragment = f"#sha256={hashlib.sha256(file.read_bytes()).hexdigest()}" if self.hashes else ""
                links.append(f'<a href="/files/{quote(file.name)}{fragment}">{file.name}</a><br>')
        if not links:
            self._send(handler, 404, b"no such project")
            return
        self._send(handler, 200, f"<!DOCTYPE html><html><body>{''.join(links)}</body></html>".encode(), "text/html")

    def _file(self, handler: BaseHTTPRequestHandler, name: str, fault: str) -> None:
        path = self.folder / name
        if not path.is_file():
            self._send(handler, 404, b"no such file")
            return
        content = path.read_bytes()
        if fault == "garbage":
            content = b"x" * len(content)
        handler.send_response(200)
        handler.send_header("Content-Type", "application/octet-stream")
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        if handler.command == "HEAD":
            return
        if fault == "truncate":
            content = content[: len(content) // 2]
        for start in range(0, len(content), 1 << 16):
            handler.wfile.write(content[start : start + (1 << 16)])
            if self.chunk_delay:
                time.sleep(self.chunk_delay)
        if fault == "truncate":
            handler.close_connection = True

    def _send(self, handler: BaseHTTPRequestHandler, status: int, body: bytes, kind: str = "text/plain") -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body)
