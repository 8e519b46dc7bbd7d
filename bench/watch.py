"""What a process and the workers it starts take: peak resident memory and processor time, by sampling."""

import os
import threading
from types import TracebackType

import psutil  # type: ignore[import-untyped]

INTERVAL_SECONDS = 0.5  # a look takes 2 ms: 0.4 % of one core


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
        self._main_bytes = self._all_bytes = 0
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
        self._look()
        while not self._done.wait(INTERVAL_SECONDS):
            self._look()
        self._look()

    def _look(self) -> None:
        """One sample. Of a worker only its own pages: a forked one shares the others with the main process."""
        try:
            main = self._process.memory_info().rss
            self._count_cpu(self._process)
            children = self._process.children(recursive=True)
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            return  # it has ended
        own = 0
        for child in children:
            try:
                own += child.memory_full_info().uss
                self._count_cpu(child)
            except (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
                continue  # ended since it was listed
        self._main_bytes = max(self._main_bytes, main)
        self._all_bytes = max(self._all_bytes, main + own)

    def _count_cpu(self, process: psutil.Process) -> None:
        times = process.cpu_times()
        self._cpu_seconds[process.pid] = times.user + times.system
