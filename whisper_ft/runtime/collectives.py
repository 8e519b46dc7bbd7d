"""What all ranks must know alike: totals, failures and stop requests, over a group on the CPU that waits for no GPU.

Every method of `Agreement` is a collective: each rank calls it, at the same place, or all wait.
"""

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar, cast

import torch
import torch.distributed as dist

from whisper_ft.runtime.errors import LostRankError, RunError

T = TypeVar("T")

RANK_TIMEOUT = 600.0  # seconds
PATIENCE = timedelta(days=2)  # an evaluation of a large set on one slow rank
LEAST_PULSE = 30.0  # seconds, or a machine with too much to do would pass for one that hangs


class Collectives:
    """The ranks of a run; a single process agrees with itself.

    `totals`, of which there are several a step, waits no longer for a rank than `timeout` seconds. What a rank may do
    for hours while the others wait (an evaluation, a large save) ends in one of the other methods, which are patient
    with a rank that lives.
    """

    def __init__(self, timeout: float = RANK_TIMEOUT) -> None:
        self.world = dist.get_world_size() if dist.is_initialized() else 1
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self._group, self._patient = None, None
        if self.world > 1:
            self._group = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout))
            self._patient = dist.new_group(backend="gloo", timeout=PATIENCE)
            self._pulse = Heartbeat(max(timeout, LEAST_PULSE))
        self._raised: Exception | None = None  # by `raise_together`, so that every rank has it

    def all_reduce_sum(self, *values: float) -> list[float]:
        """Each value summed over the ranks, in one all-reduce of float64 (integers stay exact up to 2^53)."""
        summed = torch.tensor(values, dtype=torch.float64)
        if self._group is not None:
            with name_lost_ranks():
                dist.all_reduce(summed, group=self._group)
        return [float(value) for value in summed]

    def gather(self, value: T) -> list[T]:
        """The value of every rank, in the order of ranks."""
        if self._patient is None:
            return [value]
        gathered: list[T] = [value] * self.world
        with name_lost_ranks():
            arrived = dist.barrier(group=self._patient, async_op=True)
            while not arrived.is_completed():
                self._pulse.check()
                time.sleep(0.002)
            arrived.wait()
            dist.all_gather_object(gathered, value, group=self._group)  # all are there: no need for patience
        return gathered

    def broadcast_from_main(self, action: Callable[[], T]) -> T:
        """What an action returns on rank 0, on every rank; what it raises there is raised on every rank."""
        value: T | None = None
        failure: Exception | None = None
        if self.rank == 0:
            try:
                value = action()
            except Exception as error:  # noqa: BLE001 - told to all ranks and raised there
                failure = error
        self.raise_on_all(failure)
        return cast(T, self.gather(value)[0])

    def main_only(self, action: Callable[[], T]) -> T | None:
        """What an action returns on rank 0, None on the others; what it raises there is raised on every rank."""
        value: T | None = None

        def keep() -> None:
            nonlocal value
            value = action()

        self.broadcast_from_main(keep)
        return value

    def run_on_all(self, action: Callable[[], T]) -> T:
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
        self.raise_on_all(failure)
        return cast(T, value)

    def raise_on_all(self, failure: Exception | None) -> None:
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
                self._raised = OtherRankError(f"rank {rank}: {kind.__name__}: {message}")
            raise self._raised


class OtherRankError(RuntimeError):
    """What another rank met, and is a bug of ours: that one shows the whole of it."""


class Heartbeat:
    """Notices that a rank is gone while the others wait for it with patience.

    A process that is killed closes its connections. One whose machine hangs or is cut off does not, and would be waited
    for as long as patience lasts. So all ranks meet every few seconds, each in a thread of its own. A rank whose
    process lives and stands still is not noticed.
    """

    def __init__(self, timeout: float) -> None:
        self._group = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout))
        self._every = min(timeout / 4, 10.0)
        self._lost: RuntimeError | None = None
        threading.Thread(target=self._beat, daemon=True).start()

    def check(self) -> None:
        """RuntimeError if the ranks did not meet; at the latest `timeout` and a few seconds after one was gone."""
        if self._lost is not None:
            raise self._lost

    def _beat(self) -> None:
        try:
            while True:
                dist.all_reduce(torch.zeros(1), group=self._group)
                time.sleep(self._every)
        except RuntimeError as error:
            self._lost = error


@contextmanager
def name_lost_ranks() -> Iterator[None]:
    """Around what the ranks do together: one that was killed is seen by the others as a connection that broke."""
    try:
        yield
    except RuntimeError as error:
        if not dist.is_initialized() or not re.search("gloo|nccl|connection|process ?group", str(error), re.IGNORECASE):
            raise
        if re.search("time[d ]*out", str(error), re.IGNORECASE):
            raise LostRankError(
                "another process of this run did not come to the end of its step in time: it hangs, its machine does, "
                "or a step takes longer than --rank_timeout"
            ) from error
        raise LostRankError("another process of this run ended and could not say why") from error
