"""Sampler of the peak resident memory and the processor time of a process and its workers."""

import os
import threading
import time
from contextlib import suppress
from types import TracebackType

import psutil  # type: ignore[import-untyped]

INTERVAL_SECONDS = 0.5
# Share of one core for sampling the workers. Separating a worker's own pages from shared ones takes 5 ms. Two samples a
# second of two workers and their fork server took 4 % of a core, and slowed a training with two threads as much.
WORKERS_SHARE = 0.005
ENDED = (psutil.NoSuchProcess, psutil.ZombieProcess)


def process_start() -> float:
    """Return the start of this process, in seconds of `time.time`."""
    return float(psutil.Process().create_time())


def keep_to_one_core() -> None:
    """Bind this process to one core, if the system can. Other libraries have threads besides torch's single one."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


class Watch:
    """Sampler of a process, by default this one. It samples while its `with` block runs."""

    def __init__(self, pid: int | None = None) -> None:
        self._main_bytes = self._workers_bytes = self._all_bytes = 0
        self._workers: list[psutil.Process] = []
        self._cpu_seconds: dict[int, float] = {}
        self._process = psutil.Process(pid or os.getpid())
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def result(self, minus_bytes: int = 0) -> dict[str, float]:
        """Return three figures: memory of the main process, memory with all its children, and processor time of all.

        The processor time counts from the start of each process.
        """
        return {
            "peak_rss_mb": round((self._main_bytes - minus_bytes) / 1e6, 1),
            "peak_rss_with_workers_mb": round((self._all_bytes - minus_bytes) / 1e6, 1),
            "cpu_seconds": round(sum(self._cpu_seconds.values()), 1),
        }

    def _watch(self) -> None:
        workers_due = 0.0
        while True:
            is_over = self._done.wait(INTERVAL_SECONDS)
            if is_over or time.monotonic() >= workers_due:
                before = time.thread_time()  # processor time: waiting costs nothing
                self._sample_workers()
                workers_due = time.monotonic() + (time.thread_time() - before) / WORKERS_SHARE
            self._sample()
            if is_over:
                return

    def _sample(self) -> None:
        """Sample the memory of the process, and the processor time of the process and its known workers."""
        with suppress(*ENDED):
            main = self._process.memory_info().rss
            self._main_bytes = max(self._main_bytes, main)
            self._all_bytes = max(self._all_bytes, main + self._workers_bytes)
        for process in (self._process, *self._workers):
            with suppress(*ENDED):
                times = process.cpu_times()
                self._cpu_seconds[process.pid] = times.user + times.system

    def _sample_workers(self) -> None:
        """Find the workers and sample the memory that is theirs alone. A forked one shares the rest with its parent."""
        own = 0
        with suppress(*ENDED):
            self._workers = self._process.children(recursive=True)
        for worker in self._workers:
            with suppress(*ENDED, psutil.AccessDenied):
                own += worker.memory_full_info().uss
        self._workers_bytes = own
