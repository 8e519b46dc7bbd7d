"""Performance figures of a training process: throughput, share of time spent waiting for data, memory."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil  # type: ignore[import-untyped]
import torch


class Throughput:
    """Stopwatch of training and of waiting for data since the last reading. Evaluations and saves do not count."""

    def __init__(self) -> None:
        self._training = self._waiting = 0.0
        self._utterances = 0

    @contextmanager
    def training(self) -> Iterator[None]:
        """Measure the update of a step."""
        begin = time.monotonic()
        yield
        self._training += time.monotonic() - begin

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Measure the wait for a step's data, before `training`; the wait is part of the time of the step."""
        begin = time.monotonic()
        yield
        seconds = time.monotonic() - begin
        self._waiting += seconds
        self._training += seconds

    def count(self, utterances: int) -> None:
        """Add the utterances of a step, over all ranks."""
        self._utterances += utterances

    def read(self) -> dict[str, float]:
        """Return utterances per second and the share of waiting since the last call, and start again from zero."""
        seconds = max(self._training, 1e-9)
        row = {
            "utterances_per_second": round(self._utterances / seconds, 2),
            "data_wait": round(self._waiting / seconds, 4),
        }
        self._training = self._waiting = 0.0
        self._utterances = 0
        return row


def memory_gb(device: torch.device) -> float:
    """Gigabytes (10^9 bytes): on a GPU the peak of its tensors since the start, on a CPU the process's memory now."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device)) / 1e9
    return float(psutil.Process().memory_info().rss) / 1e9
