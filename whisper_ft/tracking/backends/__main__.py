"""The tracker's end of the pipe: `python -m whisper_ft.tracking.backends NAME`, started by a training run.

Reads one JSON object a line: what the run is, then its rows, then its exit code. Ends when the pipe does.
"""

import json
import os
import signal
import sys
import threading
from typing import Any, BinaryIO, Protocol

from whisper_ft.runtime.errors import one_line
from whisper_ft.runtime.signals import STOP_SIGNALS
from whisper_ft.tracking.backends import packages

END_SECONDS = 60  # to store what is left when the run is gone without a word; else the run sets a shorter deadline


class Backend(Protocol):
    """What each of them can do."""

    def log(self, step: int, figures: dict[str, float]) -> None:
        """Store the figures of a step."""

    def close(self, exit_code: int) -> None:
        """Store what is left and mark how the run ended."""


class Complaints:
    """Failures, counted; the first one is told to the run at once, their number at the end."""

    def __init__(self, out: BinaryIO) -> None:
        self.failures = 0
        self._out = out

    def add(self, error: Exception) -> None:
        """One more row that could not be logged."""
        self.failures += 1
        if self.failures == 1:
            self.tell(line_of(error))

    def tell(self, why: str = "") -> None:
        """Write to the run; nothing if it is gone."""
        try:
            self._out.write(json.dumps({"failures": self.failures, "why": why}).encode() + b"\n")
            self._out.flush()
        except OSError:
            pass


def line_of(error: Exception) -> str:
    """What it is and says, in one line."""
    return one_line(f"{type(error).__name__}: {error}")


def main(name: str) -> int:
    """Log until the pipe ends."""
    rows, out = _pipes()
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    complaints = Complaints(out)
    try:
        tracker: Backend | None = packages.OPEN[name](**json.loads(rows.readline()))
    except Exception as error:  # noqa: BLE001 - of another maker's package, and the run goes on without it
        tracker = None
        complaints.tell(line_of(error))
    exit_code = 1
    for line in rows:
        message: dict[str, Any] = json.loads(line)
        if "exit_code" in message:
            exit_code = message["exit_code"]
        elif tracker is None:
            complaints.failures += 1
        else:
            try:
                tracker.log(message["step"], message["figures"])
            except Exception as error:  # noqa: BLE001 - as above
                complaints.add(error)
    last = threading.Timer(END_SECONDS, os._exit, [1])
    last.daemon = True
    last.start()
    try:
        if tracker is not None:
            tracker.close(exit_code)
    except Exception as error:  # noqa: BLE001 - as above
        complaints.add(error)
    complaints.tell()
    return 0


def _pipes() -> tuple[BinaryIO, BinaryIO]:
    """Both ends of the talk with the run, where what these packages print or ask for cannot get into it."""
    rows, out = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    return rows, out


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
