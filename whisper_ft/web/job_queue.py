"""Queue of the server: one thread works on the jobs of all requests in turns, and their number is limited."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from whisper_ft.web.api_error import ApiError

RETRY_SECONDS = 10
"""Seconds after which a refused client should ask again."""
STOP_SECONDS = 5.0
"""Longest wait for the present step at the end of the server."""


class Job(Protocol):
    """Work that is done in steps."""

    is_cancelled: bool

    def steps(self) -> Iterator[None]:
        """Do a step with each item."""

    def fail(self, error: Exception) -> None:
        """Report an error that a step raised."""


class JobQueue:
    """Queue of jobs, each of which gets one step in turn, so that a short one does not wait for a long one.

    Parameters
        most: number of requests that are uploaded, wait or are worked on at the same time
    """

    def __init__(self, most: int) -> None:
        self._most, self._places, self._running = most, 0, 0
        self._jobs: deque[tuple[Job, Iterator[None] | None]] = deque()
        self._changed = threading.Condition()
        self._is_stopped = False
        self._thread = threading.Thread(target=self._work, name="decoding", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread after its present step; the other jobs are left."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify()
        self._thread.join(STOP_SECONDS)

    @contextmanager
    def place(self) -> Iterator[None]:
        """Occupy a place during a request. Raises ApiError if all are occupied."""
        with self._changed:
            if self._places >= self._most:
                message = f"{self._most} requests wait or are transcribed already; try again later"
                raise ApiError(429, "busy", message, retry_after=RETRY_SECONDS)
            self._places += 1
        try:
            yield
        finally:
            with self._changed:
                self._places -= 1

    def add(self, job: Job) -> int:
        """Add a job, and return the number of others."""
        with self._changed:
            others = len(self)
            self._jobs.append((job, None))
            self._changed.notify()
        return others

    def __len__(self) -> int:
        """Return the number of jobs that are not finished."""
        return len(self._jobs) + self._running

    @property
    def waiting(self) -> int:
        """Number of jobs without a step so far."""
        with self._changed:
            return sum(steps is None for _, steps in self._jobs)

    @property
    def running(self) -> int:
        """Number of jobs that began and are not finished."""
        with self._changed:
            return len(self) - sum(steps is None for _, steps in self._jobs)

    def _work(self) -> None:
        """Do one step of the first job, put it behind the others, and so on."""
        while taken := self._next():
            job, steps = taken
            steps = steps or job.steps()
            is_finished = job.is_cancelled or not _do_step(job, steps)
            if is_finished:
                _close(steps)
            with self._changed:
                self._running = 0
                if not is_finished:
                    self._jobs.append((job, steps))

    def _next(self) -> tuple[Job, Iterator[None] | None] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._is_stopped)
            if self._is_stopped:
                return None
            self._running = 1
            return self._jobs.popleft()


def _do_step(job: Job, steps: Iterator[None]) -> bool:
    """Do a step of a job; False if it was the last one."""
    try:
        next(steps)
    except StopIteration:
        return False
    except Exception as error:  # noqa: BLE001 - the request gets it, and other requests go on
        job.fail(error)
        return False
    return True


def _close(steps: Iterator[None]) -> None:
    """End a generator early, so that it releases its model and its file."""
    with suppress(Exception):  # its client is gone, and other requests go on
        if close := getattr(steps, "close", None):
            close()
