"""Stop signals: a list of them, a class that records a received one, and a block that delays Ctrl-C."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
"""Signals that ask a run to save and end, sent by a scheduler, a person, Slurm's warning, and a closed terminal."""


@contextmanager
def interrupt_held() -> Iterator[None]:
    """Delay a Ctrl-C: KeyboardInterrupt is raised at the end of the block, not inside it. Only for the main thread.

    soundfile reads bytes through callbacks into Python. An exception raised in a callback is printed and lost, and the
    file then seems to be damaged.
    """
    received: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: received.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if received:
            raise KeyboardInterrupt


class StopRequest:
    """Record of the last stop signal, which the training loop reads between steps.

    `signal` is its number, at first None. After a stop signal, the next Ctrl-C ends the process.
    """

    def __init__(self) -> None:
        self.signal: int | None = None

    def listen(self) -> None:
        """Take over the stop signals, except those that are ignored, such as SIGHUP under nohup.

        Only for the main thread.
        """
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._remember)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        signal.signal(signal.SIGINT, signal.SIG_DFL)
