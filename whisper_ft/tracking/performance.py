"""Performance figures of a training process: throughput, memory, and the share of time spent waiting for data."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil  # type: ignore[import-untyped]
import torch


class Throughput:
    """Stopwatch for training and for waits for data, since the last reading. Evaluations and saves do not count."""

    def __init__(self) -> None:
        self._training = self._waiting = 0.0
        self._utterances = 0

    @contextmanager
    def training(self) -> Iterator[None]:
        """Measure the update of a step, which is the block; a block that raises an error does not count."""
        begin = time.monotonic()
        yield
        self._training += time.monotonic() - begin

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Measure the wait for a step's data, which is the block. The wait counts as training time, too."""
        begin = time.monotonic()
        yield
        seconds = time.monotonic() - begin
        self._waiting += seconds
        self._training += seconds

    def count(self, utterances: int) -> None:
        """Add the utterances of a step, over all ranks."""
        self._utterances += utterances

    def read(self) -> dict[str, float]:
        """Return `utterances_per_second` and `data_wait`, the share of waiting, and reset the stopwatch."""
        seconds = max(self._training, 1e-9)
        row = {
            "utterances_per_second": round(self._utterances / seconds, 2),
            "data_wait": round(self._waiting / seconds, 4),
        }
        self._training = self._waiting = 0.0
        self._utterances = 0
        return row


def memory_gb(device: torch.device) -> float:
    """Return the memory in use in gigabytes (10^9 bytes).

    On a GPU it is the peak of its tensors since the start, on a CPU the present memory of the process.
    """
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device)) / 1e9
    return float(psutil.Process().memory_info().rss) / 1e9
