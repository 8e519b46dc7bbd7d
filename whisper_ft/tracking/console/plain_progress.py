"""Progress of a long task in plain lines, for logs and pipes: one line every 30 seconds."""

import time
from collections.abc import Callable

from whisper_ft.tracking.console.eta import clock

SECONDS = 30.0  # between two lines; a task that takes less time prints none


class PlainProgress:
    """Counter of the units of a task that are done, with a line about it from time to time.

    Parameters
        say: prints a line.
        label: name of the task.
        total: number of units.
        now: clock in seconds.
    """

    def __init__(
        self, say: Callable[[str], None], label: str, total: int, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._say, self._label, self._total, self._now = say, label, total, now
        self._done, self._begin = 0, now()
        self._next = self._begin + SECONDS

    def __call__(self, done: int, text: str = "") -> None:
        """Count `done` more units, and print a line if the last one is SECONDS ago. `text` ends the line."""
        self._done += done
        now = self._now()
        if now < self._next or self._done >= self._total:
            return
        self._next = now + SECONDS
        left = (now - self._begin) / self._done * (self._total - self._done) if self._done else None
        parts = [f"{self._label}: {self._done:,} of {self._total:,}", f"ETA {clock(left)}", text]
        self._say("  ".join(filter(None, parts)))
