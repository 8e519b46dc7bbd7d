"""What all ranks must know alike: totals, failures and stop requests, over a group on the CPU that waits for no GPU.

Every method of `Agreement` is a collective: each rank calls it, at the same place, or all wait.
"""

import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from types import FrameType
from typing import NoReturn, TypeVar, cast

import accelerate
import torch
import torch.distributed as dist
from torch.utils import deterministic

from whisper_ft.failure import FINISHED, PREEMPTED, STOP_SIGNALS, LostRankError, RunError, UsageError

T = TypeVar("T")

RANK_TIMEOUT = 600.0  # seconds
PATIENCE = timedelta(days=2)  # an evaluation of a large set on one slow rank
LEAST_PULSE = 30.0  # seconds, or a machine with too much to do would pass for one that hangs


class Agreement:
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
            self._pulse = Pulse(max(timeout, LEAST_PULSE))
        self._raised: Exception | None = None  # by `raise_together`, so that every rank has it

    def totals(self, *values: float) -> list[float]:
        """Each value summed over the ranks, in one all-reduce of float64 (integers stay exact up to 2^53)."""
        summed = torch.tensor(values, dtype=torch.float64)
        if self._group is not None:
            with lost_ranks_are_named():
                dist.all_reduce(summed, group=self._group)
        return [float(value) for value in summed]

    def gather(self, value: T) -> list[T]:
        """The value of every rank, in the order of ranks."""
        if self._patient is None:
            return [value]
        gathered: list[T] = [value] * self.world
        with lost_ranks_are_named():
            arrived = dist.barrier(group=self._patient, async_op=True)
            while not arrived.is_completed():
                self._pulse.check()
                time.sleep(0.002)
            arrived.wait()
            dist.all_gather_object(gathered, value, group=self._group)  # all are there: no need for patience
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

    def main_only(self, action: Callable[[], T]) -> T | None:
        """What an action returns on rank 0, None on the others; what it raises there is raised on every rank."""
        value: T | None = None

        def keep() -> None:
            nonlocal value
            value = action()

        self.from_main(keep)
        return value

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
                self._raised = OtherRankError(f"rank {rank}: {kind.__name__}: {message}")
            raise self._raised


class OtherRankError(RuntimeError):
    """What another rank met, and is a bug of ours: that one shows the whole of it."""


class Pulse:
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
def lost_ranks_are_named() -> Iterator[None]:
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


def start_processes(device: str, timeout: float = RANK_TIMEOUT) -> accelerate.Accelerator:
    """The processes and their device: `auto`, `cpu` or `cuda`. Precision, accumulation, data stay with the programs.

    `timeout` in seconds is that of the gradients: nobody waits longer for another process in a step.

    On a CPU, operations that add up in the order in which threads come are replaced by their deterministic kind, or two
    equal runs would differ in their last bits (the gradient of an embedding does so from two threads on).
    """
    waiting = accelerate.InitProcessGroupKwargs(timeout=timedelta(seconds=timeout))
    accelerator = accelerate.Accelerator(cpu=device == "cpu", mixed_precision="no", kwargs_handlers=[waiting])
    if accelerator.device.type == "cpu":
        torch.use_deterministic_algorithms(True)
        deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # an aid for debugging that costs time
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != world:
        raise UsageError(
            f"WORLD_SIZE is {world}, but accelerate made {accelerator.num_processes} unconnected process in each; "
            "on a CPU box set ACCELERATE_USE_CPU=true, or start with NPROC=N ./launch.sh"
        )
    return accelerator


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


def tell(error: Exception, agreement: Agreement | None) -> None:
    """Print why a program ends: a line once, or once on each machine where its processes have not met or lost another.

    A bug of ours is shown whole, on every rank.
    """
    if agreement is None or isinstance(error, LostRankError):
        speaks = os.environ.get("LOCAL_RANK", "0") == "0"
    else:
        speaks = agreement.rank == 0
    with suppress(OSError):  # its reader is gone: `| head`
        if not isinstance(error, RunError):
            traceback.print_exception(error)
        elif speaks:
            print(f"error: {error}", file=sys.stderr, flush=True)


def leave(code: int) -> NoReturn:
    """End this process, and of several without waiting for one that may be gone.

    Destroying a process group would wait for the others. The launcher ends all ranks once one has ended with a code:
    the others let rank 0 speak and write its status first.
    """
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None: it was closed before this program began
        try:
            stream.flush()
        except OSError:  # or the interpreter would try again, and make the code 120
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        sys.exit(code)
    if os.environ.get("RANK", "0") != "0" and code not in (FINISHED, PREEMPTED):
        time.sleep(2)
    os._exit(code)
