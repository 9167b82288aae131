"""Runs inside a sandbox, by the target's own CPython (3.9 or later): what surrounds a function on Lambda.

Its argument is a JSON file. With ``"kind": "invoke"`` it starts the runtime's client with a handler, answers it as
Lambda's Runtime API does, and ends it when its time or memory is up. With ``"kind": "import"`` it runs
``imports.py`` in the same surroundings. It prints a JSON object on each line: ``log`` is output of the function,
``report`` what Lambda logs itself, ``result`` how an invocation ended, ``imported`` what `imports.py` found. With
``"kind": "profile"`` it does so many times over. With ``"kind": "compile"`` it compiles modules.

Runtime API: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

import base64
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time

from processes import FILES, Process, descendants, tell
from runtime_api import LARGEST_PAYLOAD, RuntimeApi

INIT_SECONDS = 10


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

    def settle(self, deadline):
        """Waits until the client asks for more: until then, the invocation is not over. It may end instead."""
        said = self.wait(max(deadline, time.monotonic() + 0.5), ("next",))
        if said[0] != "next":
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

    def failure(self, said, identity):
        """(error type, payload, what the log says) of what ended a process."""
        kind, _, _, error_type, body = said
        prefix = "RequestId: {} Error: ".format(identity) if identity else ""
        if kind == "init-error":
            return error_type or "Runtime.Unknown", body, ""
        if kind == "late":
            message = "Task timed out after {:.2f} seconds".format(self.spec["timeout"])
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
            self.api.current = identity
            self.api.work.put((headers, event.encode("utf-8", "surrogatepass")))
            said = self.wait(deadline, ("response", "error", "too-large"))
        self.api.current = ""
        duration = (time.monotonic() - started) * 1000
        failed, status, payload = None, "", said[4]
        log, peak = "", self.process.peak
        if said[0] == "error":
            failed = error_type_of(said)
        elif said[0] != "response":
            failed, payload, log = self.failure(said, identity)
        if said[0] in ("response", "error", "too-large"):
            self.process.drain()
            self.settle(deadline)
        else:
            self.stop()
        if log:
            tell(report=log)
        if said[0] == "late":
            status, duration = "\tStatus: timeout", min(duration, spec["timeout"] * 1000)
        elif failed:
            status = "\tStatus: error\tError Type: " + failed
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
            duration=round(duration, 2),
            init=round(init, 2) if init else None,
            memory=used,
        )


def error_type_of(said):
    """The type of an error that the handler raised."""
    try:
        return str(json.loads(said[4])["errorType"])
    except (ValueError, KeyError, TypeError, RecursionError):
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


def compile_modules(spec):
    """Runs the compiler that lies beside, and passes on what it made."""
    here = os.path.dirname(os.path.abspath(__file__))
    command = [spec["python"], *spec["flags"], os.path.join(here, "compiler.py"), os.path.join(here, "request")]
    environment = {"PYTHONHASHSEED": "0", "LD_LIBRARY_PATH": os.environ.get("LD_LIBRARY_PATH", "")}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    if done.returncode == 0:
        with open("/tmp/out", "rb") as file:
            tell(compiled=base64.b64encode(file.read()).decode(), sizes=json.loads(done.stdout))


LARGEST_REPORT = 64 * 1024 * 1024


def collect(stream, received, name):
    """Reads a stream to its end, keeping what is not absurd."""
    with stream:
        while True:
            data = stream.read1(1 << 16)
            if not data:
                return
            if len(received[name]) < LARGEST_REPORT:
                received[name] += data


PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 4, 36


def stand_apart(spec):
    """Keeps the function, which has the same user, from this process; and this one from outliving who wants it."""
    # Not ignored, which children would inherit.
    signal.signal(signal.SIGINT, lambda *_: None)
    if sys.platform == "linux":
        try:
            import ctypes

            libc = ctypes.CDLL(None)
            libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)  # its memory and its open files are nobody's
            libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # what leaves its parent comes to this one
        except (ImportError, OSError, AttributeError):
            pass
    if spec["attached"]:
        threading.Thread(target=end_with_input, daemon=True).start()
    elif not spec["alone"]:
        threading.Thread(target=end_with_parent, args=(os.getppid(),), daemon=True).start()
        signal.signal(signal.SIGTERM, lambda *_: end_all())


def end_with_input():
    """Ends when whoever wants the answers is gone: as process 1, and all else with it."""
    try:
        while os.read(0, 4096):
            pass
    except OSError:
        pass
    os._exit(1)


def end_with_parent(parent):
    while os.getppid() == parent:
        time.sleep(0.5)
    end_all()


def end_all():
    """Ends all that came of this process, and itself."""
    for pid in reversed(descendants(os.getpid())):
        if pid != os.getpid():
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
    os._exit(1)


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        spec = json.load(file)
    if os.name == "posix":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))
    stand_apart(spec)
    {"invoke": invoke, "import": imports, "profile": profile, "compile": compile_modules}[spec["kind"]](spec)


main()
