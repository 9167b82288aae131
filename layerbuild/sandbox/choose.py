"""Which sandbox there is for a target on this machine."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

from layerbuild.errors import MachineError
from layerbuild.interpreters import find_interpreter
from layerbuild.sandbox import namespace
from layerbuild.sandbox.namespace import Namespace

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from layerbuild.cache import Cache
    from layerbuild.interpreters import Interpreter
    from layerbuild.sandbox import Sandbox
    from layerbuild.target import Target

BACKENDS = ("namespace", "container", "process")


class Sandboxes:
    """Finds a sandbox for each target.

    Args:
        cache: remembers interpreters.
        backends: those that may be used, best first.
        base_image: of containers, ``{python}`` and ``{arch}`` filled in; None for AWS's own.
        pull: whether an image may be fetched that the engine does not have.
    """

    def __init__(
        self, cache: Cache, backends: Sequence[str] = BACKENDS, *, base_image: str | None = None, pull: bool = False
    ) -> None:
        self._cache = cache
        self._backends = backends
        self._base_image = base_image
        self._pull = pull
        self._found: dict[Target, Sandbox | MachineError] = {}
        self._interpreters: dict[str, Interpreter | None] = {}

    def interpreter(self, target: Target) -> Interpreter | None:
        """A CPython of the target's minor version on this machine, whatever its architecture."""
        name = target.runtime.name
        if name not in self._interpreters:
            self._interpreters[name] = find_interpreter(target.runtime, self._cache)
        return self._interpreters[name]

    def find(self, target: Target) -> Sandbox:
        """The best sandbox for a target.

        Raises:
            MachineError: there is none; its causes say why, by backend.
        """
        if target not in self._found:
            self._found[target] = self._look(target)
        found = self._found[target]
        if isinstance(found, MachineError):
            raise found
        return found

    def _look(self, target: Target) -> Sandbox | MachineError:
        made: dict[str, Callable[[Target], Sandbox]] = {
            "namespace": self._namespace,
            "container": self._container,
            "process": self._process,
        }
        causes = []
        for name in self._backends:
            try:
                return made[name](target)
            except MachineError as error:
                causes.append(f"{name}: {': '.join([error.what, *error.causes])}")
        version = "{}.{}".format(*target.runtime.version)
        return MachineError(
            "no-sandbox",
            f"nothing here runs code for {target}",
            causes=causes,
            hint=f"`uv python install {version}` brings an interpreter; a Docker engine runs what it can emulate",
        )

    def _local(self, target: Target) -> Interpreter:
        """An interpreter that runs what is for the target, on this machine."""
        interpreter = self.interpreter(target)
        if interpreter is None:
            raise MachineError("no-interpreter", "there is no CPython {}.{} here".format(*target.runtime.version))
        if platform.system() == "Linux" and interpreter.machine != target.machine:
            raise MachineError("no-interpreter", f"this machine is {interpreter.machine}, not {target.machine}")
        return interpreter

    def _namespace(self, target: Target) -> Sandbox:
        interpreter = self._local(target)
        if reason := namespace.obstacle():
            raise MachineError("no-namespaces", reason)
        return Namespace(interpreter)

    def _container(self, target: Target) -> Sandbox:
        from layerbuild.sandbox.container import ContainerSandbox

        return ContainerSandbox.of(target, self._base_image, pull=self._pull)

    def _process(self, target: Target) -> Sandbox:
        from layerbuild.sandbox.process import ProcessSandbox

        return ProcessSandbox(self._local(target))
