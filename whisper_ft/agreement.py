"""What all ranks must know alike: totals, failures and stop requests, over a group on the CPU that waits for no GPU.

Every method but `StopRequest`'s is a collective: each rank calls it, at the same place, or all wait.
"""

import signal
from collections.abc import Callable
from types import FrameType
from typing import TypeVar, cast

import torch
import torch.distributed as dist

from whisper_ft.failure import RunError

T = TypeVar("T")


class Agreement:
    """The ranks of a run; a single process agrees with itself."""

    def __init__(self) -> None:
        self.world = dist.get_world_size() if dist.is_initialized() else 1
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self._group = dist.new_group(backend="gloo") if self.world > 1 else None

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

    def raise_together(self, failure: Exception | None) -> None:
        """Raise on every rank what one of them met, so that none is left waiting; the own exception where it is own."""
        told = None if failure is None else (type(failure), str(failure))
        for rank, met in enumerate(self.gather((told,))):
            if met[0] is None:
                continue
            if rank == self.rank and failure is not None:
                raise failure
            kind, message = met[0]
            raise (
                kind(message)
                if issubclass(kind, RunError)
                else RuntimeError(f"rank {rank}: {kind.__name__}: {message}")
            )


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
