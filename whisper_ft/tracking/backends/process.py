"""Tracker backend as training sees it: the process that runs the package, and the pipe to that process."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from whisper_ft.runtime.signals import STOP_SIGNALS
from whisper_ft.tracking.backends.packages import RunInfo

MAX_WAITING_BYTES = 4_000_000
"""Largest number of bytes that wait for a backend, about 10,000 rows. Further rows are dropped."""
FIGURES = b', "figures": {'  # occurs once in each row, and in no other message


class TrackerProcess:
    """A backend in its own process. No method waits, except `close`, which waits until its deadline."""

    def __init__(self, name: str, run: RunInfo, step: int) -> None:
        """Start the process for a run that begins at `step`. Raises OSError if no process can be started."""
        self.name, self.dropped, self.failed = name, 0, 0  # rows dropped here, and rows the backend could not log
        self._waiting, self._received = bytearray(), b""
        self._process = _start(name)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            os.set_blocking(pipe.fileno(), False)
        self._put({"run": asdict(run), "step": step})

    def send(self, step: int, figures: Mapping[str, float], text: str = "") -> None:
        """Send the figures of a step and a text to the backend, or drop them if too many bytes wait already."""
        if len(self._waiting) > MAX_WAITING_BYTES:
            self.dropped += 1
        else:
            self._put({"step": step, "figures": dict(figures)} | ({"text": text} if text else {}))

    def problems(self) -> list[str]:
        """Return the problems that the backend reported since the last call.

        If rows could not be logged, only the first of them is reported as a problem.
        """
        assert self._process.stdout is not None
        with suppress(BlockingIOError, ValueError):  # nothing to read; closed
            while part := os.read(self._process.stdout.fileno(), 1 << 16):
                self._received += part
        *lines, self._received = self._received.split(b"\n")
        reports = [report for line in lines if (report := _report(line))]
        self.failed = max([self.failed, *(report["failed"] for report in reports)])
        return [report["problem"] for report in reports if report["problem"]]

    def finish(self, exit_code: int) -> None:
        """Tell the backend the exit code of the run. It stores what is left and ends once `close` closes the pipe."""
        self._put({"exit_code": exit_code})

    def close(self, deadline: float) -> list[str]:
        """Wait until the process ends, or kill it at `deadline`, a value of time.monotonic.

        Returns the problems that were not returned before.
        """
        assert self._process.stdin is not None
        while self._waiting and (left := deadline - time.monotonic()) > 0:
            select.select([], [self._process.stdin], [], left)
            self._push()
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(max(deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return [*self.problems(), "it did not end in time and was killed; rows that it had not stored are lost"]
        problems = self.problems()
        if code := self._process.returncode:
            problems.append(f"its process ended with code {code}; rows that it had not stored are lost")
        lost = self.dropped + self.failed
        return [*problems, f"rows that could not be logged: {lost}"] if lost else problems

    def _put(self, message: Mapping[str, Any]) -> None:
        self._waiting += json.dumps(message, allow_nan=False).encode() + b"\n"
        self._push()

    def _push(self) -> None:
        """Write as much to the pipe as it takes without waiting."""
        assert self._process.stdin is not None
        try:
            while self._waiting:
                del self._waiting[: os.write(self._process.stdin.fileno(), self._waiting[: 1 << 16])]
        except BlockingIOError:
            return
        except OSError:  # the process is gone
            self.dropped += self._waiting.count(FIGURES)
            self._waiting.clear()


def _report(line: bytes) -> dict[str, Any] | None:
    """Parse a line as a report of the backend; None if something else was printed while its interpreter started."""
    try:
        report = json.loads(line)
    except ValueError:
        return None
    return report if isinstance(report, dict) and "failed" in report else None


def _start(name: str) -> subprocess.Popen[bytes]:
    """Start the process of a backend. It ignores stop signals, because it must store the last rows when a run stops."""
    root = str(Path(__file__).resolve().parents[3])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # the child inherits it, until it ignores them
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "whisper_ft.tracking.backends", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": path},
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
