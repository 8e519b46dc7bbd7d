"""How fast a run trains, and when it will be done."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Throughput:
    """Seconds of training and of waiting for data since the last reading; evaluations and saves do not count."""

    def __init__(self) -> None:
        self._training = self._waiting = 0.0
        self._utterances = 0

    @contextmanager
    def training(self) -> Iterator[None]:
        """Around a whole step."""
        begin = time.monotonic()
        yield
        self._training += time.monotonic() - begin

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around the drawing of a step's data, inside `training`."""
        begin = time.monotonic()
        yield
        self._waiting += time.monotonic() - begin

    def count(self, utterances: int) -> None:
        """Utterances trained on, over all ranks."""
        self._utterances += utterances

    def read(self) -> dict[str, float]:
        """Throughput and share of waiting since the last call."""
        seconds = max(self._training, 1e-9)
        row = {
            "utterances_per_second": round(self._utterances / seconds, 2),
            "data_wait": round(self._waiting / seconds, 4),
        }
        self._training = self._waiting = 0.0
        self._utterances = 0
        return row


class Eta:
    """The time that is left, by the pace of all that this start of the run did: evaluations and saves count."""

    def __init__(self, step: int, steps: int) -> None:
        self._first, self._steps, self._begin = step, steps, time.monotonic()

    def seconds(self, step: int) -> float | None:
        """Seconds from now to the last step; None before there is a pace."""
        done = step - self._first
        return (time.monotonic() - self._begin) / done * max(self._steps - step, 0) if done > 0 else None


def clock(seconds: float | None) -> str:
    """A length of time for people: 0:59, 3:07:15, 2 d 3 h."""
    if seconds is None:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
