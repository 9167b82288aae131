"""Runs inside a sandbox, by the target's own CPython (3.9 or later): what surrounds a function on Lambda.

Its argument is a JSON file. With ``"kind": "invoke"`` it starts the runtime's client with a handler, answers it as
Lambda's Runtime API does, and ends it when its time or memory is up. With ``"kind": "import"`` it runs
``imports.py`` in the same surroundings. It prints a JSON object on each line: ``log`` is output of the function,
``report`` what Lambda logs itself, ``result`` how an invocation ended, ``imported`` what `imports.py` found. With
``"kind": "profile"`` it does so many times over.

Runtime API: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

import errno
import json
import os
import queue
import selectors
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

API = "/2018-06-01/runtime"
INIT_SECONDS = 10
LARGEST_PAYLOAD = 6 * 1024 * 1024 + 100
LARGEST_LOG = 10_000_000
POLL_SECONDS = 0.01
FILES = PROCESSES = 1024
PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
OK, ACCEPTED, FORBIDDEN, TOO_LARGE = 200, 202, 403, 413

_printing = threading.Lock()


def tell(**event):
    line = json.dumps(event) + "\n"
    with _printing:
        sys.stdout.write(line)
        sys.stdout.flush()


class RuntimeApi(ThreadingHTTPServer):
    """Answers the runtime's client; what that says is in `said`, as (kind, id, content type, error type, body)."""

    daemon_threads = True

    def __init__(self, port):
        super().__init__(("127.0.0.1", port), Handler)
        self.said = queue.Queue()
        self.work = queue.Queue()
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
        size = int(self.headers.get("Content-Length") or 0)
        too_large = size > LARGEST_PAYLOAD
        body = b""
        while size:
            data = self.rfile.read(min(size, 1 << 20))
            if not data:
                return
            size -= len(data)
            body = body if too_large else body + data
        kind, _, identity = "", "", ""
        parts = self.path[len(API) :].strip("/").split("/")
        if parts == ["init", "error"]:
            kind = "init-error"
        elif len(parts) == 3 and parts[0] == "invocation" and parts[2] in ("response", "error"):
            kind, identity = parts[2], parts[1]
        if not kind:
            self.answer(404, {"errorMessage": "there is no such path", "errorType": "InvalidPath"})
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


class Process:
    """A process of the function, and all that it starts."""

    def __init__(self, spec, command, environment, **more):
        self.alone = spec["alone"]
        self.memory = spec["memory"]
        self.peak = 0
        self.shown = self.hidden = 0
        self.popen = subprocess.Popen(
            command,
            env=environment,
            cwd=spec["root"] + "/var/task",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=more.pop("stderr", subprocess.STDOUT),
            start_new_session=True,
            **more,
        )
        os.set_blocking(self.popen.stdout.fileno(), False)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.popen.stdout, selectors.EVENT_READ)

    def poll(self, seconds=POLL_SECONDS):
        """Passes on what it prints, for at most so long; returns whether it uses too much memory."""
        if self.selector.get_map():
            for _ in self.selector.select(seconds):
                self.read()
        else:
            time.sleep(seconds)
        pids = self.processes()
        used = sum(map(resident, pids))
        if used > self.memory and len(pids) > 1:  # pages that they share would count for each
            used = sum(map(proportional, pids))
        self.peak = max(self.peak, used)
        return used > self.memory

    def read(self):
        """Passes on what can be read now; returns whether there was something."""
        try:
            data = os.read(self.popen.stdout.fileno(), 1 << 16)
        except OSError as error:
            if error.errno != errno.EAGAIN:
                raise
            return False
        if not data:
            self.selector.unregister(self.popen.stdout)
            return False
        room = max(0, LARGEST_LOG - self.shown)
        self.shown += len(data)
        self.hidden += max(0, len(data) - room)
        if room:
            tell(log=data[:room].decode("utf-8", "replace"))
        return True

    def drain(self):
        """Passes on the rest of what was printed so far."""
        while self.selector.get_map() and self.selector.select(0) and self.read():
            pass
        if self.hidden:
            tell(report="[{:,} bytes more of output are not shown]".format(self.hidden))
        self.shown = self.hidden = 0

    def processes(self):
        """The ids of all processes that are not this program's own."""
        own = {os.getpid(), os.getppid(), 1}
        if self.alone:
            return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) not in own]
        return descendants(self.popen.pid)

    def end(self):
        """Ends it, and all that it started."""
        for _ in range(100):
            left = self.processes()
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except OSError:
                    pass
            self.popen.poll()
            reap(self.popen.pid)
            if not [pid for pid in self.processes() if resident(pid) >= 0 and not is_zombie(pid)]:
                break
            time.sleep(POLL_SECONDS)
        self.popen.wait()


def resident(pid):
    """Bytes of memory that a process has; 0 if it is gone."""
    try:
        with open("/proc/{}/statm".format(pid)) as file:
            return int(file.read().split()[1]) * PAGE
    except (OSError, IndexError):
        return 0


def proportional(pid):
    """Bytes of memory that a process has, its part of what it shares with others; 0 if it is gone."""
    try:
        with open("/proc/{}/smaps_rollup".format(pid)) as file:
            return sum(int(line.split()[1]) for line in file if line.startswith("Pss:")) * 1024
    except (OSError, ValueError):
        return 0


def is_zombie(pid):
    try:
        with open("/proc/{}/stat".format(pid)) as file:
            return file.read().rpartition(")")[2].split()[0] in "ZX"
    except (OSError, IndexError):
        return True


def descendants(pid):
    """A process and those that came of it, as far as /proc tells."""
    parents = {}
    try:
        names = [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return [pid]
    for name in names:
        try:
            with open("/proc/{}/stat".format(name)) as file:
                fields = file.read().rpartition(")")[2].split()
            parents.setdefault(int(fields[1]), []).append(int(name))
            # What left its parent is still of its session, unless it left that, too.
            if int(fields[3]) == pid and int(fields[1]) == 1:
                parents.setdefault(pid, []).append(int(name))
        except (OSError, IndexError, ValueError):
            pass
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        found.append(one)
        waiting += [child for child in parents.get(one, []) if child not in found]
    return found


def reap(kept):
    """Lets go of processes that were left to this one, as process 1 has to."""
    while os.getpid() == 1:
        try:
            info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if info is None or info.si_pid == kept:
                return
            os.waitpid(info.si_pid, os.WNOHANG)
        except OSError:
            return


class Function:
    """Invokes a handler again and again, starting its process when there is none."""

    def __init__(self, spec):
        self.spec = spec
        self.api = RuntimeApi(spec["port"])
        self.process = None
        self.environment = dict(spec["environment"], AWS_LAMBDA_RUNTIME_API=self.api.address)

    def start(self):
        command = [self.spec["python"], self.spec["root"] + "/var/runtime/bootstrap.py"]
        self.process = Process(self.spec, command, self.environment)
        self.api.said = queue.Queue()
        self.api.work = queue.Queue()

    def stop(self):
        if self.process:
            self.process.end()
            self.process.drain()
            self.api.work.put(None)
            self.process = None

    def wait(self, deadline, kinds):
        """What the client says next, of some kinds; or ``exit``, ``memory`` or ``late``."""
        while True:
            late = time.monotonic() >= deadline
            if self.process.poll():
                return ("memory", "", "", "", b"")
            try:
                while True:
                    said = self.api.said.get_nowait()
                    if said[0] in kinds:
                        return said
            except queue.Empty:
                pass
            if self.process.popen.poll() is not None:
                # What it said last may be under way.
                try:
                    said = self.api.said.get(timeout=0.05)
                    if said[0] in kinds:
                        return said
                except queue.Empty:
                    pass
                return ("exit", "", "", "", b"")
            if late:
                return ("late", "", "", "", b"")

    def init(self, deadline):
        """Starts the process; returns (milliseconds, what ended it)."""
        started = time.monotonic()
        self.start()
        said = self.wait(deadline, ("next", "init-error"))
        if said[0] == "init-error":  # it says so, and then exits
            self.wait(time.monotonic() + 1, ())
        return (time.monotonic() - started) * 1000, said

    def settle(self):
        """Waits until the client asks for more. It may have ended instead, as after an answer that was refused."""
        said = self.wait(time.monotonic() + 1, ("next",))
        if said[0] in ("exit", "memory"):
            self.stop()

    def first_init(self):
        """The init phase before the first invocation, which has a time limit of its own."""
        took, said = self.init(time.monotonic() + INIT_SECONDS)
        if said[0] == "next":
            return took
        status = "timeout" if said[0] == "late" else "error\tError Type: {}".format(self.failure(said, "")[0])
        self.stop()
        tell(report="INIT_REPORT Init Duration: {:.2f} ms\tPhase: init\tStatus: {}".format(took, status))
        return None

    def failure(self, said, identity, seconds=None):
        """(error type, payload, what the log says) of what ended a process."""
        kind, _, _, error_type, body = said
        prefix = "RequestId: {} Error: ".format(identity) if identity else ""
        if kind == "init-error":
            return error_type or "Runtime.Unknown", body, ""
        if kind == "late":
            message = "Task timed out after {:.2f} seconds".format(
                self.spec["timeout"] if seconds is None else seconds
            )
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + ".{:03d}Z".format(
                int(time.time() * 1000) % 1000
            )
            log = "{} {} {}".format(stamp, identity, message)
            return "Sandbox.Timedout", error("Sandbox.Timedout", prefix + message), log
        if kind == "too-large":
            message = "Response payload size ({} bytes) exceeded maximum allowed payload size ({} bytes)."
            message = message.format(body.decode(), LARGEST_PAYLOAD)
            return "Function.ResponseSizeTooLarge", error("Function.ResponseSizeTooLarge", message), ""
        code = None if kind == "memory" else self.process.popen.poll()
        if kind == "memory":
            message = "Runtime exited with error: signal: killed"
        elif code:
            how = "exit status {}".format(code) if code > 0 else "signal: " + (signal.strsignal(-code) or "").lower()
            message = "Runtime exited with error: " + how
        else:
            message = "Runtime exited without providing a reason"
        told = "Runtime.OutOfMemory" if kind == "memory" else "Runtime.ExitError"
        return told, error("Runtime.ExitError", prefix + message), prefix + message + "\nRuntime.ExitError"

    def invoke(self, number, event, init):
        """One invocation, from its START line to its REPORT line; `init` is how long the init phase took, in ms."""
        spec = self.spec
        identity = spec["ids"][number]
        started, deadline = time.monotonic(), time.monotonic() + spec["timeout"]
        said = None
        if self.process is None:
            # Where init failed or the last invocation ended the process, it is started again, at this one's expense.
            took, said = self.init(deadline)
            if said[0] == "next":
                said = None
            else:
                report = "INIT_REPORT Init Duration: {:.2f} ms\tPhase: invoke\tStatus: {}"
                failed = self.failure(said, identity)[0]
                status = "timeout" if said[0] == "late" else "error\tError Type: " + failed
                tell(report=report.format(took, status))
        tell(report="START RequestId: {} Version: {}".format(identity, spec["version"]))
        if said is None:
            headers = {
                "Lambda-Runtime-Aws-Request-Id": identity,
                "Lambda-Runtime-Deadline-Ms": str(int((time.time() + deadline - time.monotonic()) * 1000)),
                "Lambda-Runtime-Invoked-Function-Arn": spec["arn"],
                "Lambda-Runtime-Trace-Id": "Root=1-00000000-000000000000000000000000;Sampled=0",
            }
            self.api.work.put((headers, event.encode()))
            said = self.wait(deadline, ("response", "error", "too-large"))
        duration = (time.monotonic() - started) * 1000
        failed, status, payload = None, "", said[4]
        if said[0] == "error":
            failed = error_type_of(said)
        elif said[0] != "response":
            failed, payload, log = self.failure(said, identity)
            if said[0] != "too-large":
                peak = self.process.peak
                self.stop()
                self.process = None
            if log:
                tell(report=log)
        if self.process:
            peak = self.process.peak
            self.process.drain()
        if failed:
            name = "timeout" if said[0] == "late" else "error"
            status = "\tStatus: " + name + ("" if name == "timeout" else "\tError Type: " + failed)
        if self.process:
            self.settle()
        if said[0] == "late":
            duration = min(duration, spec["timeout"] * 1000)
        billed = int(-(-(duration + (init or 0)) // 1))
        used = min(int(-(-peak // 2**20)), spec["memory"] // 2**20)
        report = "REPORT RequestId: {}\tDuration: {:.2f} ms\tBilled Duration: {} ms\t".format(
            identity, duration, billed
        )
        report += "Memory Size: {} MB\tMax Memory Used: {} MB".format(spec["memory"] // 2**20, used)
        tell(report="END RequestId: {}".format(identity))
        tell(report=report + ("\tInit Duration: {:.2f} ms".format(init) if init else "") + status)
        tell(
            result=payload.decode("utf-8", "replace"),
            error="Unhandled" if failed else None,
            error_type=failed,
            id=identity,
            duration=round(duration, 3),
            init=round(init, 3) if init else None,
            memory=used,
        )


def error_type_of(said):
    """The type of an error that the handler raised."""
    try:
        return str(json.loads(said[4])["errorType"])
    except (ValueError, KeyError, TypeError):
        return said[3] or "Runtime.Unknown"


def error(kind, message):
    return json.dumps({"errorType": kind, "errorMessage": message}).encode()


def invoke(spec):
    function = Function(spec)
    init = function.first_init()
    for number, event in enumerate(spec["events"]):
        function.invoke(number, event, init)
        init = None
    function.stop()


def imports(spec, names=(), *, times=False):
    """Runs `imports.py`, which reports over a pipe of its own; `times` has the interpreter report, too."""
    read, write = os.pipe()
    program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "imports.py")
    flags = ["-X", "importtime"] if times else []
    command = [spec["python"], *flags, program, sys.argv[1], str(write), *names]
    errors = subprocess.PIPE if times else subprocess.STDOUT
    process = Process(spec, command, dict(spec["environment"]), pass_fds=(write,), stderr=errors)
    os.close(write)
    received = {"data": b"", "times": b""}
    threads = [threading.Thread(target=collect, args=(os.fdopen(read, "rb"), received, "data"))]
    if times:
        threads.append(threading.Thread(target=collect, args=(process.popen.stderr, received, "times")))
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + spec["timeout"]
    ended = ""
    while process.popen.poll() is None and not ended:
        if process.poll():
            ended = "memory"
        elif time.monotonic() > deadline:
            ended = "time"
    code = process.popen.poll()
    process.end()
    process.drain()
    for thread in threads:
        thread.join()
    tell(
        imported=received["data"].decode("utf-8", "replace"),
        times=received["times"].decode("utf-8", "replace"),
        names=names,
        ended=ended,
        code=code,
        memory=process.peak,
    )


def profile(spec):
    """Imports each set of modules in fresh processes: some that are only timed, and one that tells of each module."""
    for _ in range(spec["runs"]):
        for names in spec["sets"]:
            imports(spec, names)
    for names in spec["sets"]:
        imports(spec, names, times=True)


LARGEST_REPORT = 64 * 1024 * 1024


def collect(stream, received, name):
    """Reads a stream to its end, keeping what is not absurd."""
    with stream:
        while True:
            data = stream.read1(1 << 16) if hasattr(stream, "read1") else stream.read(1 << 16)
            if not data:
                return
            if len(received[name]) < LARGEST_REPORT:
                received[name] += data


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        spec = json.load(file)
    if os.name == "posix":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))
        if spec["alone"]:  # else the user's other processes would count
            resource.setrlimit(resource.RLIMIT_NPROC, (PROCESSES, PROCESSES))
    {"invoke": invoke, "import": imports, "profile": profile}[spec["kind"]](spec)


main()
