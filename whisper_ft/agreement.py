"""What all ranks must know alike: totals, failures and stop requests, over a group on the CPU that waits for no GPU.

Every method of `Agreement` is a collective: each rank calls it, at the same place, or all wait.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import NoReturn, TypeVar, cast

import torch
import torch.distributed as dist

from whisper_ft.failure import FINISHED, PREEMPTED, RunError

T = TypeVar("T")


class Agreement:
    """The ranks of a run; a single process agrees with itself."""

    def __init__(self) -> None:
        self.world = dist.get_world_size() if dist.is_initialized() else 1
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self._group = dist.new_group(backend="gloo") if self.world > 1 else None
        self._raised: Exception | None = None  # by `raise_together`, so that every rank has it

    def totals(self, *values: float) -> list[float]:
        """Each value summed over the ranks, in one all-reduce of float64 (integers stay exact up to 2^53)."""
        summed = torch.tensor(values, dtype=torch.float64)
        if self._group is not None:
            dist.all_reduce(summed, group=self._group)
        return [float(value) for value in summed]

    def gather(self, value: T) -> list[T]:
        """The value of every rank, in the order of ranks."""
        if self._group is None:
            return [value]
        gathered: list[T] = [value] * self.world
        dist.all_gather_object(gathered, value, group=self._group)
        return gathered

    def from_main(self, action: Callable[[], T]) -> T:
        """What an action returns on rank 0, on every rank; what it raises there is raised on every rank."""
        value: T | None = None
        failure: Exception | None = None
        if self.rank == 0:
            try:
                value = action()
            except Exception as error:  # noqa: BLE001 - told to all ranks and raised there
                failure = error
        self.raise_together(failure)
        return cast(T, self.gather(value)[0])

    def together(self, action: Callable[[], T]) -> T:
        """What an action returns on this rank, once it returned on all; what it raises on one is raised on all.

        The action may hold `from_main` and `raise_together`: a rank that fails between them meets the others there.
        """
        value: T | None = None
        failure: Exception | None = None
        try:
            value = action()
        except Exception as error:
            if error is self._raised:
                raise
            failure = error
        self.raise_together(failure)
        return cast(T, value)

    def raise_together(self, failure: Exception | None) -> None:
        """Raise on every rank what one of them met, so that none is left waiting; the own exception where it is own."""
        told = None if failure is None else (type(failure), str(failure))
        for rank, met in enumerate(self.gather((told,))):
            if met[0] is None:
                continue
            kind, message = met[0]
            if rank == self.rank and failure is not None:
                self._raised = failure
            elif issubclass(kind, RunError):
                self._raised = kind(message if rank == 0 else f"rank {rank}: {message}")
            else:
                self._raised = RuntimeError(f"rank {rank}: {kind.__name__}: {message}")
            raise self._raised


class StopRequest:
    """Remembers that this process was asked to stop; the loop acts on it between two steps.

    A second Ctrl-C ends the process at once, as a person expects.
    """

    def __init__(self) -> None:
        self.signal: int | None = None

    def listen(self) -> None:
        """Take over SIGTERM and SIGINT."""
        signal.signal(signal.SIGTERM, self._remember)
        signal.signal(signal.SIGINT, self._remember)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def tell(error: RunError, agreement: Agreement | None) -> None:
    """Print why a program ends: once, or once on each machine while its processes have not met."""
    speaks = agreement.rank == 0 if agreement else os.environ.get("LOCAL_RANK", "0") == "0"
    if speaks:
        print(f"error: {error}", file=sys.stderr)


def leave(code: int) -> NoReturn:
    """End this process, and of several without waiting for one that may be gone.

    Destroying a process group would wait for the others. The launcher ends all ranks once one has ended with a code:
    the others let rank 0 speak and write its status first.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        sys.exit(code)
    if os.environ.get("RANK", "0") != "0" and code not in (FINISHED, PREEMPTED):
        time.sleep(2)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
