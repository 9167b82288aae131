"""The sandbox of any engine: a container of the target's image, in which nothing can be written but /tmp.

Files go in through the engine's archive calls, as everywhere: it may be on another machine.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

from layerbuild.builders import Limits as ContainerLimits
from layerbuild.builders.engine import Engine
from layerbuild.builders.image import ARCHITECTURES, base_image
from layerbuild.errors import MachineError
from layerbuild.sandbox import MIB, Limits, driver_command, guest_files, reports, tar_chunks

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from layerbuild.sandbox import SandboxFile
    from layerbuild.target import Target

# For the driver, beside what the function may use; and for its start, perhaps under emulation.
_DRIVER_MEMORY = 256 * MIB
_DRIVER_PROCESSES, _MOST_PROCESSES = 64, 1024
_START_SECONDS = 120
_INIT_SECONDS = 10


class ContainerSandbox:
    """Runs functions in containers.

    Args:
        engine: where.
        image: of the target; it has its CPython at /var/lang.
        architecture: of the image, as Docker calls it.
        target: what it is for.
    """

    name = "container"

    def __init__(self, engine: Engine, image: str, architecture: str, target: Target, interpreter: str) -> None:
        self._engine = engine
        self._image = image
        self._architecture = architecture
        self._python = f"/var/lang/bin/{target.runtime.name}"
        self.interpreter = interpreter
        self.differences: tuple[str, ...] = (
            "system libraries are the image's, which may be more than Lambda's",
            *(["programs are emulated, so times say nothing"] if architecture != engine.architecture else []),
        )

    @classmethod
    def of(cls, target: Target, image: str | None, *, pull: bool) -> ContainerSandbox:
        """The sandbox for a target.

        Args:
            target: what it is for.
            image: ``{python}`` and ``{arch}`` filled in; None for AWS's own.
            pull: whether it may be fetched.

        Raises:
            MachineError: there is no engine, no image, or no emulation.
        """
        engine = Engine()
        reference, architecture = base_image(target, image), ARCHITECTURES[target.arch]
        identity = engine.image_id(reference, architecture)
        if identity is None and not pull:
            raise MachineError("image-unavailable", f"the engine does not have {reference} for {architecture}")
        if identity is None:
            identity = engine.pull(reference, architecture, str)
        engine.check_runs(reference, architecture, _waiting(f"/var/lang/bin/{target.runtime.name}"))
        # Its patch version is not worth a container of its own: the image says all.
        return cls(
            engine,
            reference,
            architecture,
            target,
            f"{target.runtime.name.removeprefix('python')} of {identity[:19]}",
        )

    def run(
        self, content: Iterable[SandboxFile], spec: Mapping[str, Any], limits: Limits, *, network: str
    ) -> Iterator[dict[str, Any]]:
        """See `layerbuild.sandbox.Sandbox`."""
        spec = {**spec, "alone": True, "attached": True, "root": "", "python": self._python}
        spec["port"] = 0 if network == "host" else 9001
        calls = max(1, len(spec.get("events", ())))
        allowed = ContainerLimits(
            memory=limits.memory + limits.tmp + _DRIVER_MEMORY,  # /tmp is memory, too
            processes=_MOST_PROCESSES + _DRIVER_PROCESSES,
            seconds=_START_SECONDS + calls * (limits.seconds + _INIT_SECONDS),
        )
        everything = chain(content, guest_files(spec))
        with self._engine.sandbox(
            self._image,
            self._architecture,
            allowed,
            tar_chunks(everything),
            driver_command(self._python),
            _waiting(self._python),
            environment={"LD_LIBRARY_PATH": "/var/lang/lib:/lib64:/usr/lib64", "LC_ALL": "C.UTF-8"},
            network=network,
            tmp=limits.tmp,
        ) as box:
            yield from reports(box.output())


def _waiting(python: str) -> list[str]:
    """A program that reads its input to its end: Lambda's images have few others than their CPython."""
    return [python, "-I", "-S", "-c", "import sys; sys.stdin.read()"]
