"""Stop signals: the set that asks a run to save and end, a request to stop, and a held Ctrl-C."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
"""What asks a run to save and end: a scheduler, a person, Slurm's warning, a terminal that was closed."""


@contextmanager
def interrupt_held() -> Iterator[None]:
    """Ctrl-C is raised when the block ends, not inside of it. In the main thread only.

    soundfile reads bytes by calls back into Python: what is raised there is printed, lost, and taken for a bad file.
    """
    asked: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: asked.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if asked:
            raise KeyboardInterrupt


class StopRequest:
    """Remembers that this process was asked to stop; the loop acts on it between two steps.

    A second Ctrl-C ends the process at once, as a person expects.
    """

    def __init__(self) -> None:
        self.signal: int | None = None

    def listen(self) -> None:
        """Take over the signals that mean stop, unless they are ignored, as SIGHUP is under nohup."""
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._remember)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        signal.signal(signal.SIGINT, signal.SIG_DFL)
