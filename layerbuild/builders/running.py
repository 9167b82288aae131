"""A running container: files go in and come out through the engine's archive calls, commands run to their end."""

from __future__ import annotations

import contextlib
import tarfile
import tempfile
import threading
import time
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from layerbuild.builders import Limits, Ran
from layerbuild.builders.engine_errors import told
from layerbuild.builders.streams import ByteStream, Tail, tar_of
from layerbuild.errors import BuildError, MachineError
from layerbuild.process import interrupted, stop_if_interrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence

    from docker import APIClient
    from docker.types import CancellableStream

    Log = Callable[[str], object]

_POLL_SECONDS = 0.2
_CHUNK = 1 << 20
# What compilers say when the kernel ended one of their processes.
_KILLED = ("Killed signal terminated program", "signal 9", "exit code: -9", "exit code: 137", "MemoryError")


class Container:
    """A running container; see `Engine.container`."""

    def __init__(self, api: APIClient, identity: str, limits: Limits) -> None:
        self._api = api
        self._id = identity
        self._limits = limits
        self._deadline = time.monotonic() + limits.seconds
        self._late = False
        self._removed = False
        self._answer: CancellableStream[bytes] | None = None

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Meanwhile, another thread kills the container when its time is up or the user interrupts."""
        done = threading.Event()

        def watch() -> None:
            while not done.wait(_POLL_SECONDS):
                self._late = time.monotonic() > self._deadline
                if self._late or interrupted.is_set():
                    if self._answer:  # which an engine that hangs would never end
                        self._answer.close()
                    self.remove()
                    return

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        except (MachineError, BuildError):
            # What the engine says of a container that is gone says nothing.
            stop_if_interrupted()
            if self._late:
                raise self._out_of_time() from None
            raise
        finally:
            done.set()
            thread.join()

    def _out_of_time(self) -> BuildError:
        return BuildError(
            "build-timeout",
            f"the build was ended after {self._limits.seconds / 60:g} minutes",
            hint="--build-timeout gives it more",
        )

    def remove(self) -> None:
        """Ends everything in the container and removes it, or tries to: an engine that hangs is asked but once."""
        if self._removed:
            return
        self._removed = True
        with contextlib.suppress(Exception):
            self._api.remove_container(self._id, force=True, v=True)

    def put(self, files: Mapping[str, bytes]) -> None:
        """Writes files below /build, that belong to the build user."""
        with told():
            self._api.put_archive(self._id, "/build", tar_of(files))

    @property
    def identity(self) -> str:
        """The engine's id of it."""
        return self._id

    def has(self, path: str) -> bool:
        """Whether there is such a file in it."""
        from docker.errors import NotFound

        try:
            with told(), contextlib.suppress(NotFound), self._archive(path):
                return True
        except MachineError as error:
            if error.code != "engine-refused":
                raise
        return False

    def can_run(self, program: Sequence[str]) -> bool:
        """Whether it is there still, and a program can be started in it."""
        try:
            with told():
                made = self._api.exec_create(self._id, list(program))
                said = b"".join(self._api.exec_start(made["Id"], stream=True))
        except MachineError as error:
            if error.code == "engine-lost":
                raise
            return False
        return b"exec format error" not in said

    def fill(self, content: Iterable[bytes], *, kept: str) -> None:
        """Unpacks a tar archive at its root, but for what is below `kept`; what is there already is left."""
        with told(), tempfile.TemporaryFile() as file:
            # An engine that hangs up in the middle would not be noticed otherwise.
            file.writelines(content)
            file.seek(0)
            self._api.put_archive(self._id, "/", _without(file, kept) if kept else file)

    def listen(self) -> None:
        """Keeps what its first process prints from now on, for `output`."""
        self._answer = self._api.attach(self._id, stdout=True, stderr=True, stream=True)

    def output(self) -> Iterator[bytes]:
        """What its first process prints, line by line, to its end.

        Raises:
            BuildError: time was up.
            Interrupted: the user interrupted.
        """
        stop_if_interrupted()
        with told():
            rest = b""
            for chunk in self._answer or ():
                *whole, rest = (rest + chunk).split(b"\n")
                yield from whole
            if rest:
                yield rest
            self._stop_if_over()

    def run(self, command: Sequence[str], environment: Mapping[str, str], log: Log) -> Ran:
        """Runs a command to its end, its output given to `log` line by line.

        Raises:
            BuildError: time or memory was up.
            Interrupted: the user interrupted.
        """
        stop_if_interrupted()
        tail = Tail(log)
        with told():
            made = self._api.exec_create(self._id, list(command), environment=dict(environment), workdir="/build")
            self._answer = self._api.exec_start(made["Id"], stream=True)
            for chunk in self._answer:
                tail.add(chunk)
            tail.end()
            self._stop_if_over()
            code = self._api.exec_inspect(made["Id"])["ExitCode"]
            if code and (self._out_of_memory() or any(word in line for line in tail.lines() for word in _KILLED)):
                raise BuildError(
                    "build-out-of-memory",
                    f"the build needed more than {self._limits.memory / 1024**3:.1f} GiB of memory",
                    causes=tail.lines(),
                    hint='--build-memory gives it more; fewer compilers at a time need less (MAKEFLAGS = "-j1")',
                )
        return Ran(code=int(code if code is not None else 1), lines=tuple(tail.lines()))

    def _out_of_memory(self) -> bool:
        """Whether the kernel ended a process of the container for want of memory."""
        return bool(self._api.inspect_container(self._id)["State"].get("OOMKilled"))

    def get(self, folder: str) -> Generator[tuple[str, Iterator[bytes]]]:
        """The plain files of a folder below /build, by name, in pieces; none without it. To be closed after use."""
        from docker.errors import NotFound

        with told(), contextlib.ExitStack() as stack:
            try:
                answer = stack.enter_context(self._archive(f"/build/{folder}"))
            except NotFound as error:
                if "no such container" in str(error).lower():
                    raise
                return
            stream = ByteStream(answer, self._stop_if_over)
            # What the container made is not to be trusted: names and kinds are looked at, nothing is unpacked.
            with tarfile.open(fileobj=stream, mode="r|") as archive:
                for member in archive:
                    name = member.name.partition("/")[2]
                    file = archive.extractfile(member) if member.isreg() else None
                    if file is not None and "/" not in name:
                        yield name, _pieces(file)

    @contextmanager
    def _archive(self, path: str) -> Iterator[Iterator[bytes]]:
        """As the SDK's get_archive, whose answer cannot be ended before all of it has come.

        Until then, the engine removes no container.
        """
        api: Any = self._api
        url = api._url("/containers/{0}/archive", self._id)  # noqa: SLF001
        response = api._get(url, params={"path": path}, stream=True, headers={"Accept-Encoding": "identity"})  # noqa: SLF001
        with contextlib.closing(response):
            api._raise_for_status(response)  # noqa: SLF001
            yield response.iter_content(_CHUNK)

    def _stop_if_over(self) -> None:
        """Raises when the user has interrupted, or time is up."""
        stop_if_interrupted()
        if self._late:
            raise self._out_of_time()


def _without(file: IO[bytes], folder: str) -> IO[bytes]:
    """A tar archive without what is below a folder."""
    out = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the request
    with tarfile.open(fileobj=file) as given, tarfile.open(fileobj=out, mode="w") as left:
        for member in given:
            if not f"/{member.name}".startswith(folder):
                left.addfile(member, given.extractfile(member) if member.isreg() else None)
    out.seek(0)
    return out


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    with told():
        while piece := file.read(_CHUNK):
            yield piece
