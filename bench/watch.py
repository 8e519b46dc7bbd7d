"""What a process and the workers it starts take: peak resident memory and processor time, by sampling."""

import os
import threading
import time
from contextlib import suppress
from types import TracebackType

import psutil  # type: ignore[import-untyped]

INTERVAL_SECONDS = 0.5
# Of one core. To tell a worker's own pages from shared ones takes 5 ms: twice a second, two workers and the server they
# are forked from took 4 % of a core, and a training with two threads was that much slower.
WORKERS_SHARE = 0.005
ENDED = (psutil.NoSuchProcess, psutil.ZombieProcess)


def process_began() -> float:
    """When this process was started, in seconds of `time.time`."""
    return float(psutil.Process().create_time())


def keep_to_one_core() -> None:
    """Leave this process one core, where the system can: one thread for torch does not keep others from more."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


class Watch:
    """Watches a process, this one by default, inside a `with`."""

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
        """Memory of the main process, and of it with all below it; processor time of all, from their start."""
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
                before = time.thread_time()  # not of the clock: a look that had to wait is no dearer
                self._look_at_workers()
                workers_due = time.monotonic() + (time.thread_time() - before) / WORKERS_SHARE
            self._look()
            if is_over:
                return

    def _look(self) -> None:
        """One sample: memory of the process, and the processor time of all that are known."""
        with suppress(*ENDED):
            main = self._process.memory_info().rss
            self._main_bytes = max(self._main_bytes, main)
            self._all_bytes = max(self._all_bytes, main + self._workers_bytes)
        for process in (self._process, *self._workers):
            with suppress(*ENDED):
                times = process.cpu_times()
                self._cpu_seconds[process.pid] = times.user + times.system

    def _look_at_workers(self) -> None:
        """Which there are, and what they take: only their own pages, for a forked one shares others with its parent."""
        own = 0
        with suppress(*ENDED):
            self._workers = self._process.children(recursive=True)
        for worker in self._workers:
            with suppress(*ENDED, psutil.AccessDenied):
                own += worker.memory_full_info().uss
        self._workers_bytes = own
