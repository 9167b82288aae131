"""Builders: each makes, out of a lock, the wheels that a layer is composed of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from layerbuild.build_settings import BuildSettings
    from layerbuild.cache import Cache
    from layerbuild.index import Index
    from layerbuild.lock import Lock
    from layerbuild.recipe import Recipe
    from layerbuild.target import Target
    from layerbuild.wheel import Wheel


class Progress(Protocol):
    """What a builder tells the one who waits."""

    def download(self, filename: str) -> AbstractContextManager[Callable[[int, int | None], object]]:
        """Begins a download; the result is called with (bytes that arrived, total or None)."""
        ...

    def output(self, title: str) -> AbstractContextManager[Callable[[str], object]]:
        """Begins something that takes long; the result is called with each line that it prints."""
        ...

    def note(self, text: str) -> None:
        """Something worth knowing."""
        ...


class Builder(Protocol):
    """Turns a lock into wheels for one target."""

    def wheels(
        self, lock: Lock, target: Target, *, pure: bool = False, name: str = "", build: BuildSettings | None = None
    ) -> Sequence[Wheel]:
        """The wheels of every pin.

        Args:
            lock: the pins.
            target: what they must run on.
            pure: take only wheels that any Python 3 can use.
            name: the recipe's.
            build: how to build what has no wheel.

        Raises:
            BuildError: a pin cannot be had for the target.
            MachineError: the machine or the network lacks what is needed.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a container may use: bytes of memory, processes, seconds."""

    memory: int = 4 * 1024**3
    processes: int = 1024
    seconds: float = 3600


@dataclass(frozen=True, kw_only=True, slots=True)
class Ran:
    """How a command ended, and the last lines of its output."""

    code: int
    lines: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ContainerOptions:
    """How to build in containers.

    Attributes:
        base_image: what build images are made from, ``{python}`` and ``{arch}`` filled in; None for AWS's own.
        limits: what a build may use.
        network: ``bridge``, ``host`` for indexes on this machine, or ``none``: what a build needs is fetched before.
    """

    base_image: str | None = None
    limits: Limits = field(default_factory=Limits)
    network: str = "bridge"


class Builders:
    """The builders of a run.

    Args:
        cache, index, progress: for all of them.
        options: for containers.
        resolve: see `layerbuild.builders.container.ContainerBuilder`.
        choice: ``auto`` to follow each recipe, or else ``host`` or ``container`` for all.
    """

    def __init__(
        self,
        cache: Cache,
        index: Index,
        progress: Progress,
        options: ContainerOptions,
        resolve: Callable[[Sequence[str], Sequence[str], Target], Lock],
        choice: str = "auto",
    ) -> None:
        from layerbuild.builders.container import ContainerBuilder
        from layerbuild.builders.host import HostBuilder

        host = HostBuilder(cache, index, progress)
        auto = ContainerBuilder(host, cache, index, progress, options, resolve)
        self._choice = choice
        self._builders: dict[str, Builder] = {"host": host, "auto": auto, "container": auto.fetching_inside()}

    def of(self, recipe: Recipe) -> Builder:
        """The builder for a recipe; ``auto`` fetches wheels, and builds in containers what has none."""
        return self._builders[recipe.builder if self._choice == "auto" else self._choice]
