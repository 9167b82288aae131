"""What a composed layer goes through before it is written: its modules are imported, and compiled ahead."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from layerbuild.bytecode import BYTECODE_FORMAT, LocalCompiler, add_bytecode
from layerbuild.checks import Finding
from layerbuild.errors import CheckError, MachineError
from layerbuild.sandbox.compile import SandboxCompiler
from layerbuild.sandbox.smoke import layer_files, run_imports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from layerbuild.bytecode import Compilation, Compiler
    from layerbuild.cache import Cache
    from layerbuild.layer import Layer
    from layerbuild.recipe import Bytecode, Recipe
    from layerbuild.sandbox import SandboxFile
    from layerbuild.sandbox.choose import Sandboxes
    from layerbuild.target import Target

SMOKE_MODES = ("auto", "require", "off")

# Raised whenever the same layer could fare otherwise.
_FORMAT = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Smoke:
    """How the smoke imports of a layer went; what fails raises.

    Attributes:
        status: ``passed``, ``not run``, or ``none`` where the recipe names no imports.
        reason: why they were not run.
        backend: the sandbox that they ran in.
        interpreter: the full version of its CPython.
        loaded: modules that were loaded, as paths below /opt, in that order.
    """

    status: str
    reason: str = ""
    backend: str = ""
    interpreter: str = ""
    loaded: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """What a manifest says of it."""
        said = {name: getattr(self, name) for name in ("status", "reason", "backend", "interpreter")}
        return {name: value for name, value in said.items() if value}


class Prover:
    """Proves and compiles layers; one for all targets of a run, from any number of threads.

    Args:
        sandboxes: where modules are imported.
        cache: remembers what passed, and keeps what is compiled.
        smoke: one of `SMOKE_MODES`.
        warn: told what could not be done, once for each reason.
    """

    def __init__(self, sandboxes: Sandboxes, cache: Cache, smoke: str, warn: Callable[[str], object]) -> None:
        self._sandboxes = sandboxes
        self._cache = cache
        self._smoke = smoke
        self._warn = warn
        self._locks: dict[str, threading.Lock] = {}

    def inputs(self, recipe: Recipe, targets: Sequence[Target]) -> list[Any]:
        """What decides, beside the recipe and its lock, how a layer comes out of here; as JSON can hold it."""
        script = recipe.smoke_script()
        compilers = [one.version if (one := self._sandboxes.interpreter(target)) else None for target in targets]
        return [
            [_FORMAT, BYTECODE_FORMAT],
            self._smoke,
            recipe.imports,
            hashlib.sha256(script).hexdigest() if script else None,
            [recipe.bytecode.mode, recipe.bytecode.required, recipe.bytecode.growth],
            compilers,
        ]

    def smoke(self, recipe: Recipe, target: Target, layer: Layer, name: str) -> Smoke:
        """Imports what the recipe names, and runs its ``smoke.py``.

        Raises:
            CheckError: something does not import.
            MachineError: nothing here runs code for the target, and it is required.
        """
        if not recipe.imports and not recipe.smoke_script():
            return Smoke(status="none")
        if self._smoke == "off":
            return Smoke(status="not run", reason="--smoke off")
        try:
            return self._imported(recipe, target, layer, name)
        except MachineError as error:
            if self._smoke == "require":
                raise
            return Smoke(status="not run", reason=_reason(error))

    def _imported(self, recipe: Recipe, target: Target, layer: Layer, name: str) -> Smoke:
        sandbox = self._sandboxes.find(target)
        script = recipe.smoke_script()
        parts = [_FORMAT, layer.content_digest, str(target), recipe.imports, (script or b"").decode("latin-1")]
        key = hashlib.sha256(json.dumps([*parts, sandbox.name, sandbox.interpreter]).encode()).hexdigest()
        passed = Smoke(status="passed", backend=sandbox.name, interpreter=sandbox.interpreter)
        # The other architecture may ask for the same at the same time.
        with self._locks.setdefault(key, threading.Lock()):
            loaded = self._cache.record("smoke", key)
            if loaded is None:
                ended = run_imports(sandbox, target, layer_files(layer), recipe.imports, script)
                if ended.failed:
                    raise CheckError(
                        "smoke-failed",
                        f"{name} is not made: {ended.failed} does not import on {target}",
                        causes=ended.causes(),
                        hint="`layerbuild check` says what a layer lacks; --smoke off makes it all the same",
                    )
                loaded = list(ended.loaded)
                self._cache.keep_record("smoke", key, loaded)
        return replace(passed, loaded=tuple(loaded))

    def compiled(
        self,
        layer: Layer,
        wanted: Bytecode,
        target: Target,
        loaded: Callable[[], Smoke],
        name: str,
        budget: int | None,
    ) -> tuple[Layer, Compilation | None]:
        """The layer with bytecode as far as it is wanted and can be had.

        Args:
            layer: without.
            wanted: the recipe's settings.
            target: what it is for.
            loaded: says what the smoke imports loaded, perhaps those of the other architecture.
            name: of the layer.
            budget: greatest unzipped size.

        Raises:
            MachineError: it is required, and there is no interpreter.
        """
        if wanted.mode == "off":
            return layer, None
        version = "{}.{}".format(*target.runtime.version)
        compiler = self._compiler(target)
        problem, hint = "", f"`uv python install {version}` brings one"
        if compiler is None:
            problem = f"there is no CPython {version} here to compile with"
        else:
            smoke = loaded()
            if wanted.mode == "imports" and smoke.status != "passed":
                problem = "nobody has seen what its imports load"
                hint = smoke.reason or 'name imports in the recipe, or set bytecode = "all"'
        if not problem and compiler:
            return add_bytecode(
                layer, wanted.mode, smoke.loaded, compiler, self._cache, budget=budget, growth=wanted.growth
            )
        if wanted.required:
            raise MachineError("no-bytecode", f"{name} gets no bytecode: {problem}", hint=hint)
        self._warn(f"{name} gets no bytecode: {problem} ({hint})")
        return layer, None

    def _compiler(self, target: Target) -> Compiler | None:
        """A CPython of this machine; else that of a sandbox, if there is one."""
        if interpreter := self._sandboxes.interpreter(target):
            return LocalCompiler(interpreter)
        try:
            return SandboxCompiler(self._sandboxes.find(target))
        except MachineError:
            return None


def _reason(error: MachineError) -> str:
    """Why something cannot be run here, in one line."""
    return "; ".join(error.causes) or error.what


def import_findings(
    content: Callable[[], Iterable[SandboxFile]],
    recipe: Recipe | None,
    targets: Sequence[Target],
    sandboxes: Sandboxes,
) -> Iterator[Finding]:
    """What importing what a recipe names says of a layer that is there already.

    Args:
        content: gives what lies at /opt, anew each time.
        recipe: of the layer, if that is known.
        targets: on which to try it.
        sandboxes: where.
    """
    script = recipe.smoke_script() if recipe else None
    if recipe is None or not (recipe.imports or script):
        yield Finding(code="import-not-run", message="no recipe says what to import")
        return
    for target in targets:
        try:
            ended = run_imports(sandboxes.find(target), target, content(), recipe.imports, script)
        except MachineError as error:
            yield Finding(code="import-not-run", message=f"not tried: {_reason(error)}", targets=(str(target),))
            continue
        if ended.failed:
            said = next((line.strip() for line in reversed(ended.causes()) if line.strip()), "")
            yield Finding(
                code="import-fails", message=f"{ended.failed} does not import: {said}", targets=(str(target),)
            )
