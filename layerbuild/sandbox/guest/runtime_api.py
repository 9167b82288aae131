"""Answers Lambda's runtime client as its Runtime API does. Part of `driver.py`.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

import json
import queue
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

API = "/2018-06-01/runtime"
LARGEST_PAYLOAD = 6 * 1024 * 1024 + 100
OK, ACCEPTED, TOO_LARGE = 200, 202, 413


class RuntimeApi(ThreadingHTTPServer):
    """Answers the runtime's client; what that says is in `said`, as (kind, id, content type, error type, body)."""

    daemon_threads = True

    def __init__(self, port):
        super().__init__(("127.0.0.1", port), Handler)
        self.said = queue.Queue()
        self.work = queue.Queue()
        self.current = ""  # the id of the invocation that is under way
        threading.Thread(target=self.serve_forever, args=(0.1,), daemon=True).start()

    @property
    def address(self):
        return "127.0.0.1:{}".format(self.server_address[1])

    def handle_error(self, request, client_address):
        """Clients that are killed break off: nobody needs to know."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Else headers and body would each wait for the other side to say that they have come.
    disable_nagle_algorithm = True

    def do_GET(self):
        if self.path != API + "/invocation/next":
            return self.answer(404, {"errorMessage": "there is no such path", "errorType": "InvalidPath"})
        self.server.said.put(("next", "", "", "", b""))
        work = self.server.work.get()
        if work is None:  # its process is gone
            return None
        headers, body = work
        self.send_response(OK)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        return self.wfile.write(body)

    def do_POST(self):
        try:
            size = max(0, int(self.headers.get("Content-Length") or 0))
        except ValueError:
            size = 0
        too_large = size > LARGEST_PAYLOAD
        body = b""
        while size:
            data = self.rfile.read(min(size, 1 << 20))
            if not data:
                return
            size -= len(data)
            body = body if too_large else body + data
        kind = identity = ""
        parts = self.path[len(API) :].strip("/").split("/")
        if parts == ["init", "error"]:
            kind = "init-error"
        elif len(parts) == 3 and parts[0] == "invocation" and parts[2] in ("response", "error"):
            kind, identity = parts[2], parts[1]
        if not kind:
            self.answer(404, {"errorMessage": "there is no such path", "errorType": "InvalidPath"})
            return
        if identity and identity != self.server.current:
            self.answer(400, {"errorMessage": "Invalid request ID", "errorType": "InvalidRequestID"})
            return
        if too_large:
            size = int(self.headers["Content-Length"])
            self.server.said.put(("too-large", identity, "", "", str(size).encode()))
            message = "Exceeded maximum allowed payload size ({} bytes).".format(LARGEST_PAYLOAD)
            self.answer(TOO_LARGE, {"errorMessage": message, "errorType": "RequestEntityTooLarge"})
            return
        error = self.headers.get("Lambda-Runtime-Function-Error-Type", "")
        self.server.said.put((kind, identity, self.headers.get("Content-Type", ""), error, body))
        self.answer(ACCEPTED, {"status": "OK"})

    def answer(self, status, document):
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):  # noqa: A002
        pass
