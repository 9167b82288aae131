"""Runs code as Lambda would, with layers at /opt.

A sandbox holds the files that a function sees, a CPython of its runtime, and `guest/driver.py`, which surrounds the
function. The driver gets all that it is to do in one file, and answers with a JSON object on each line: so it works
the same in namespaces, in a container of an engine far away, and in a plain process.
"""

from __future__ import annotations

import json
import tarfile
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from layerbuild.target import Target

GUEST = "layerbuild"
SPEC = f"{GUEST}/spec.json"
_PROGRAMS = ("driver.py", "processes.py", "runtime_api.py", "imports.py", "bootstrap.py")
_PAD = 512
_BLOCKS = 20 * 512
MIB = 1 << 20


class SandboxFile(NamedTuple):
    """A file or symbolic link in a sandbox.

    Attributes:
        path: from the root, without a leading slash: ``opt/…``, ``var/task/…``.
        mode: permission bits.
        size: in bytes.
        content: gives the bytes; None for a link.
        target: of a link.
    """

    path: str
    mode: int
    size: int
    content: Callable[[], bytes] | None
    target: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a function may use: seconds for an invocation, bytes of memory, bytes of /tmp."""

    seconds: float = 3
    memory: int = 128 * MIB
    tmp: int = 512 * MIB


class Sandbox(Protocol):
    """Where functions run.

    Attributes:
        name: ``namespace``, ``container`` or ``process``.
        differences: what is not as on Lambda, a sentence each.
        interpreter: the full version of its CPython.
    """

    @property
    def name(self) -> str: ...
    @property
    def differences(self) -> tuple[str, ...]: ...
    @property
    def interpreter(self) -> str: ...

    def run(
        self, content: Iterable[SandboxFile], spec: Mapping[str, Any], limits: Limits, *, network: str
    ) -> Iterator[dict[str, Any]]:
        """Runs the driver; yields what it says, as it says it.

        Args:
            content: what lies at /opt, /var/task and /var/runtime.
            spec: what the driver is to do; see `driver_spec`.
            limits: what the function may use.
            network: ``none``, ``host`` or ``bridge``; what is no container takes a bridge for the host's.

        Raises:
            MachineError: the sandbox cannot be made.
            Interrupted: the user interrupted; nothing is left running.
        """
        ...


def environment(target: Target, *, function: str, handler: str, memory: int, region: str) -> dict[str, str]:
    """The environment of a function (AWS documentation, "Using environment variables"; the paths: seen in images)."""
    python = target.runtime.name
    found = {
        "PATH": "/var/lang/bin:/usr/local/bin:/usr/bin/:/bin:/opt/bin",
        "LD_LIBRARY_PATH": "/var/lang/lib:/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:"
        "/var/task:/var/task/lib:/opt/lib",
        "LANG": "en_US.UTF-8",
        "TZ": ":UTC",
        "PYTHONPATH": "/var/runtime",
        "LAMBDA_TASK_ROOT": "/var/task",
        "LAMBDA_RUNTIME_DIR": "/var/runtime",
        "_HANDLER": handler,
        "AWS_EXECUTION_ENV": f"AWS_Lambda_{python}",
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_LAMBDA_FUNCTION_NAME": function,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(memory // MIB),
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{function}",
        "AWS_LAMBDA_LOG_STREAM_NAME": "1970/01/01/[$LATEST]00000000000000000000000000000000",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR",
        "AWS_XRAY_DAEMON_ADDRESS": "169.254.79.129:2000",
    }
    if target.runtime.version >= (3, 12):
        found["LC_CTYPE"] = "C.UTF-8"
    return found


def driver_command(python: str, root: str = "") -> list[str]:
    """What runs the driver, by a CPython of the sandbox whose root lies at `root`."""
    return [python, "-E", "-s", "-S", "-B", f"{root}/{GUEST}/driver.py", f"{root}/{SPEC}"]


def guest_files(spec: Mapping[str, Any]) -> Iterator[SandboxFile]:
    """The driver and its programs, and what it is to do."""
    folder = files("layerbuild").joinpath("sandbox", "guest")
    texts = {f"{GUEST}/{name}": folder.joinpath(name).read_bytes() for name in _PROGRAMS}
    texts["var/runtime/bootstrap.py"] = texts[f"{GUEST}/bootstrap.py"]
    texts[SPEC] = json.dumps(spec).encode()
    for path, data in texts.items():
        yield SandboxFile(path, 0o644, len(data), lambda data=data: data)  # type: ignore[misc]


def tar_chunks(content: Iterable[SandboxFile]) -> Iterator[bytes]:
    """The files as a tar archive, in pieces; at most one file is in memory at a time. Folders can be read by all."""
    folders: set[str] = set()
    for file in content:
        parents = file.path.split("/")[:-1]
        for depth in range(1, len(parents) + 1):
            folder = "/".join(parents[:depth])
            if folder not in folders:
                folders.add(folder)
                yield _header(folder, 0o755, 0, kind=tarfile.DIRTYPE)
        if file.content is None:
            yield _header(file.path, 0o777, 0, kind=tarfile.SYMTYPE, target=file.target)
            continue
        data = file.content()
        yield _header(file.path, file.mode, len(data))
        yield data
        yield bytes(-len(data) % _PAD)
    yield bytes(_BLOCKS)


def _header(path: str, mode: int, size: int, *, kind: bytes = tarfile.REGTYPE, target: str = "") -> bytes:
    entry = tarfile.TarInfo(path)
    entry.type, entry.mode, entry.size, entry.linkname = kind, mode, size, target
    return entry.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def reports(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """What a driver says, line by line. What is no JSON object came from elsewhere: it is taken for output."""
    for line in lines:
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            said = None
        yield said if isinstance(said, dict) else {"log": line.decode("utf-8", "replace")}
