"""How fast requests go out to a region: Lambda's control plane takes 15 a second of an account, all calls together.

https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html: this quota cannot be raised.
"""

from __future__ import annotations

import random
import threading
import time

from layerbuild.process import Interrupted, interrupted

# Evenly sent requests may arrive less evenly.
_PER_SECOND = 12
_SLOWEST = 1.0
_LONGEST_WAIT = 60.0
_FIRST_WAIT = 0.5


class Pace:
    """Spaces requests evenly, in any number of threads; slower for a while after each refusal."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next = 0.0
        self._interval = 1 / _PER_SECOND

    def wait(self) -> None:
        """Returns when the next request may go out; raises `Interrupted` if that is long and the user interrupts."""
        with self._lock:
            now = time.monotonic()
            at = max(now, self._next)
            self._next = at + self._interval
            self._interval = max(1 / _PER_SECOND, self._interval * 0.95)
        if at - now > _SLOWEST:
            pause(at - now)
        time.sleep(max(0.0, at - time.monotonic()))

    def refused(self, seconds: float) -> None:
        """AWS refused a request for its rate: none goes out for these seconds, and fewer for a while."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)
            self._interval = min(_SLOWEST, self._interval * 2)


def wait_before(attempt: int, told: str | None = None) -> float:
    """Seconds to wait before trying again: what a ``Retry-After`` header says, or longer each time."""
    if told and told.isascii() and told.isdigit():
        return min(float(told), _LONGEST_WAIT)
    return min(_FIRST_WAIT * 2.0**attempt, _LONGEST_WAIT) * random.uniform(0.5, 1)  # noqa: S311 - not for secrets


def pause(seconds: float) -> None:
    """Waits; raises `Interrupted` as soon as the user interrupts the program."""
    if interrupted.wait(seconds):
        raise Interrupted
