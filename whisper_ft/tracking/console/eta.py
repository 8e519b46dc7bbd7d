"""Estimated time until the end of a run."""

import time


class Eta:
    """Estimate of the time left, at the average pace of this start of the run; evaluations and saves count."""

    def __init__(self, step: int, steps: int) -> None:
        self._first, self._steps, self._begin = step, steps, time.monotonic()

    def seconds(self, step: int) -> float | None:
        """Return the seconds from now to the last step if `step` is done; None before the first step is done."""
        done = step - self._first
        return (time.monotonic() - self._begin) / done * max(self._steps - step, 0) if done > 0 else None


def clock(seconds: float | None) -> str:
    """Format a duration: 0:59, 3:07:15, 2 d 3 h; a dash for None."""
    if seconds is None:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
