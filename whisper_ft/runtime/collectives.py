"""Collectives over a CPU (gloo) process group: sums, failures and stop requests, the same on every rank.

A rank is one process of a run. A CPU group does not wait for a GPU. Every rank has to call the methods of `Collectives`
in the same order; otherwise all ranks wait for each other.
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

from whisper_ft.runtime.device_memory import is_out_of_memory
from whisper_ft.runtime.errors import LostRankError, RunError

T = TypeVar("T")

RANK_TIMEOUT = 600.0  # seconds
PATIENCE = timedelta(days=2)  # longest evaluation or save of one rank, for which the others wait
LEAST_PULSE = 30.0  # shortest timeout of the heartbeat in seconds, because a busy machine answers late


class Collectives:
    """Communication between the ranks of a run. In a run of one process every method returns without waiting.

    Every rank has to make this object, after it joined the process group. Every method that waits raises LostRankError
    if a rank is gone.

    `all_reduce_sum` waits up to `timeout` seconds for a rank. After long work, such as an evaluation or a large save,
    ranks have to meet in one of the other methods, which wait as long as heartbeats arrive.
    """

    def __init__(self, timeout: float = RANK_TIMEOUT) -> None:
        self.world = dist.get_world_size() if dist.is_initialized() else 1
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self._group, self._patient = None, None
        if self.world > 1:
            self._group = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout))
            self._patient = dist.new_group(backend="gloo", timeout=PATIENCE)
            self._pulse = Heartbeat(max(timeout, LEAST_PULSE))
        self._raised: Exception | None = None  # the exception that `raise_on_all` raised, so on every rank

    @property
    def is_on_gpu(self) -> bool:
        """True if gradients are exchanged by NCCL, which does not tell a rank that another one has ended."""
        return dist.is_initialized() and "nccl" in str(dist.get_backend())

    def all_reduce_sum(self, *values: float) -> list[float]:
        """Return the sum of each value over the ranks, by one all-reduce in float64 (integers are exact up to 2^53)."""
        summed = torch.tensor(values, dtype=torch.float64)
        if self._group is not None:
            with name_lost_ranks():
                dist.all_reduce(summed, group=self._group)
        return [float(value) for value in summed]

    def gather(self, value: T) -> list[T]:
        """Return the values of all ranks, in rank order, on every rank.

        With several ranks, values are pickled and copied.
        """
        if self._patient is None:
            return [value]
        gathered: list[T] = [value] * self.world
        with name_lost_ranks():
            arrived = dist.barrier(group=self._patient, async_op=True)
            while not arrived.is_completed():
                self._pulse.check()
                time.sleep(0.002)
            arrived.wait()
            dist.all_gather_object(
                gathered, value, group=self._group
            )  # all ranks have arrived, so the short timeout is enough
        return gathered

    def broadcast_from_main(self, action: Callable[[], T]) -> T:
        """Run an action on rank 0 and return its value on every rank.

        With several ranks, the value is pickled and copied. An error of the action is raised on every rank, as by
        `raise_on_all`.
        """
        value: T | None = None
        failure: Exception | None = None
        if self.rank == 0:
            try:
                value = action()
            except Exception as error:  # noqa: BLE001 - raised on all ranks below
                failure = error
        self.raise_on_all(failure)
        return cast(T, self.gather(value)[0])

    def main_only(self, action: Callable[[], T]) -> T | None:
        """Run an action on rank 0; return its value there and None on other ranks. The value is not sent.

        An error of the action is raised on every rank, as by `raise_on_all`.
        """
        value: T | None = None

        def keep() -> None:
            nonlocal value
            value = action()

        self.broadcast_from_main(keep)
        return value

    def run_on_all(self, action: Callable[[], T]) -> T:
        """Run an action on every rank and return the value of this rank. An error on one rank is raised on all.

        The action itself may call `broadcast_from_main` and `raise_on_all`. If one rank fails before such a call, the
        others learn of the error in it, because the failed rank joins them there.
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
        """Raise an error of one rank on every rank, so that no rank waits forever. Does nothing if no rank has one.

        `failure` is the error of this rank, or None. If several ranks fail, the error of the lowest rank is raised.

        That rank re-raises its own exception. The others raise a copy of a RunError, which names the rank unless it is
        0. For any other exception they raise an OtherRankError.
        """
        report = None if failure is None else (type(failure), str(failure))
        for rank, (error,) in enumerate(self.gather((report,))):
            if error is None:
                continue
            kind, message = error
            if rank == self.rank and failure is not None:
                self._raised = failure
            elif issubclass(kind, RunError):
                self._raised = kind(message if rank == 0 else f"rank {rank}: {message}")
            else:
                self._raised = OtherRankError(f"rank {rank}: {kind.__name__}: {message}")
            raise self._raised


class OtherRankError(RuntimeError):
    """A bug on another rank; that rank prints the traceback."""


class Heartbeat:
    """Detects a lost rank while the others wait for it without a timeout. Every rank has to make a Heartbeat.

    A killed process closes its connections. A machine that hangs or is cut off does not, so the others would wait for
    `PATIENCE`. Therefore every rank has a thread, and these threads meet in an all-reduce every few seconds. A process
    that is alive but makes no progress is not detected.
    """

    def __init__(self, timeout: float) -> None:
        self._group = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout))
        self._every = min(timeout / 4, 10.0)
        self._lost: RuntimeError | None = None
        threading.Thread(target=self._beat, daemon=True).start()

    def check(self) -> None:
        """Raise RuntimeError if a rank is gone. This is known at most `timeout` and a few seconds after its end."""
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
    """Turn a broken or timed-out connection to another rank in the block into a LostRankError.

    torch raises a plain RuntimeError for both, so the text of gloo's or NCCL's message decides. Any other RuntimeError
    passes through.
    """
    try:
        yield
    except RuntimeError as error:
        if not dist.is_initialized() or not re.search("gloo|nccl|connection|process ?group", str(error), re.IGNORECASE):
            raise
        if is_out_of_memory(error):  # NCCL's own buffers
            raise
        if re.search("time[d ]*out", str(error), re.IGNORECASE):
            raise LostRankError(
                "another process of this run did not come to the end of its step in time: it hangs, its machine does, "
                "or a step takes longer than --rank_timeout"
            ) from error
        raise LostRankError("another process of this run ended and could not say why") from error
