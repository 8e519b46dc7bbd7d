"""Program of one tracker backend: `python -m whisper_ft.tracking.backends NAME`, started by a training run.

It reads one JSON object a line: the run, then its rows, then its exit code. It ends when the pipe is closed.
"""

import json
import os
import signal
import sys
import threading
from typing import Any, BinaryIO

from whisper_ft.runtime.errors import one_line
from whisper_ft.runtime.signals import STOP_SIGNALS
from whisper_ft.tracking.backends.packages import BACKENDS, Backend, RunInfo

END_SECONDS = 60  # seconds to store the rest if the run was killed; a run that ends by itself sets a shorter deadline


class FailureReport:
    """Counter of rows that could not be logged.

    The run is told of the first failure at once, and of their number at the end.
    """

    def __init__(self, out: BinaryIO) -> None:
        self.failed = 0
        self._out = out

    def add(self, error: Exception) -> None:
        """Count a row that could not be logged, and report the first one to the run at once."""
        self.failed += 1
        if self.failed == 1:
            self.send(message_of(error))

    def send(self, problem: str = "") -> None:
        """Send the number of failures, and a problem if there is one, to the run. Errors of the pipe are ignored."""
        try:
            self._out.write(json.dumps({"failed": self.failed, "problem": problem}).encode() + b"\n")
            self._out.flush()
        except OSError:
            pass


def message_of(error: Exception) -> str:
    """Return the type and text of an error in one line."""
    return one_line(f"{type(error).__name__}: {error}")


def main(name: str) -> int:
    """Log rows to the backend `name` until the pipe is closed, then close the backend. Returns 0.

    An error of the package is reported to the run, and does not end the loop.
    """
    messages, out = _pipes()
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    failures = FailureReport(out)
    try:
        begin = json.loads(messages.readline())
        backend: Backend | None = BACKENDS[name](RunInfo(**begin["run"]), begin["step"])
    except Exception as error:  # noqa: BLE001 - a package of others may raise anything, and the run goes on without it
        backend = None
        failures.send(message_of(error))
    exit_code = 1
    for line in messages:
        message: dict[str, Any] = json.loads(line)
        if "exit_code" in message:
            exit_code = message["exit_code"]
        elif backend is None:
            failures.failed += 1
        else:
            try:
                backend.log(message["step"], message["figures"])
                if text := message.get("text"):
                    backend.show(message["step"], text)
            except Exception as error:  # noqa: BLE001 - as above
                failures.add(error)
    timer = threading.Timer(END_SECONDS, os._exit, [1])
    timer.daemon = True
    timer.start()
    try:
        if backend is not None:
            backend.close(exit_code)
    except Exception as error:  # noqa: BLE001 - as above
        failures.add(error)
    failures.send()
    return 0


def _pipes() -> tuple[BinaryIO, BinaryIO]:
    """Return both pipes to the run as files.

    Standard input and output become /dev/null, because the package may read or print there.
    """
    messages, out = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    return messages, out


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
