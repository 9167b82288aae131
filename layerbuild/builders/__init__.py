"""Builders: each makes, out of a lock, the wheels that a layer is composed of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from layerbuild.lock import Lock
    from layerbuild.target import Target
    from layerbuild.wheel import Wheel


class Progress(Protocol):
    """What a builder tells the one who waits."""

    def download(self, filename: str) -> AbstractContextManager[Callable[[int, int | None], object]]:
        """Begins a download; the result is called with (bytes that arrived, total or None)."""
        ...


class Builder(Protocol):
    """Turns a lock into wheels for one target."""

    def wheels(self, lock: Lock, target: Target, *, pure: bool = False) -> Sequence[Wheel]:
        """The wheels of every pin, in the order of the pins; with `pure`, those that any Python 3 can use.

        Raises:
            BuildError: a pin cannot be had for the target.
            MachineError: the machine or the network lacks what is needed.
        """
        ...
