"""Processes that prepare data: from a server that has imported what they need, deaf to signals, gone with their run.

Why not those of DataLoader: docs/decisions/0011-workers.md.
"""

import errno
import gc
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from multiprocessing.util import Finalize
from types import ModuleType
from typing import Generic, TypeVar

import torch

from whisper_ft.runtime.errors import LostWorkerError
from whisper_ft.runtime.malloc import keep_freed_memory
from whisper_ft.runtime.signals import STOP_SIGNALS

Part = TypeVar("Part")

# Not fork: the parent runs threads (BLAS, CUDA, gloo) whose locks a forked child would inherit.
FORKSERVER = multiprocessing.get_context("forkserver")
FAREWELL_SECONDS = 1.0
TAKEN = b"."
SHARED_IS_FULL = (
    "shared memory (/dev/shm) is full, which in a container is often 64 MB; give it more (docker run --shm-size=1g), "
    "lower data.prefetch, or set data.workers to 0"
)


class Workers(Generic[Part]):
    """Processes that make parts ahead: worker i of n makes what `make(i, n)` yields, in that order and without end.

    At most `ahead` parts of each wait to be taken. Each worker has a line of its own, which ends with it: one that is
    killed, whatever it was doing, leaves no lock and no half of a message for which somebody would wait.
    """

    def __init__(self, make: Callable[[int, int], Iterator[Part]], number: int, ahead: int) -> None:
        self._processes: list[BaseProcess] = []
        self._lines: list[Connection] = []
        # Where nobody closes them, just before multiprocessing would wait for them without end, when Python exits.
        self._kill = Finalize(self, _kill, (self._processes,), exitpriority=0)
        start_worker_server(make.__module__)
        with program_hidden():
            for i in range(number):
                line, far_end = FORKSERVER.Pipe()
                worker = FORKSERVER.Process(target=_work, args=(make, i, number, far_end, ahead), daemon=True)
                worker.start()
                far_end.close()  # the worker has the only one, or the line would not end with it
                self._processes.append(worker)
                self._lines.append(line)

    def take(self, number: int) -> Part:
        """The next part of a worker, waited for. Raises what it met, and LostWorkerError if it is gone."""
        line = self._lines[number]
        try:
            part: Part | Exception = line.recv()
            if not isinstance(part, Exception):
                line.send_bytes(TAKEN)
        except (OSError, EOFError, RuntimeError) as error:
            if gone := _lost(self._processes[number]):
                raise gone from error
            raise
        if isinstance(part, Exception):
            raise part
        return part

    def close(self) -> None:
        """End the workers, also one that is stuck in a read: they hold nothing, and are deaf to gentler signals."""
        self._kill()


def start_worker_server(module: str) -> None:
    """Start the server that workers are forked from, where it does not run yet; best early, it takes seconds.

    It imports a module once that each worker would otherwise import again. It is as deaf as they are, for a worker ends
    when its parent is gone: blocked signals stay blocked in what is started meanwhile, and wait here.
    """
    FORKSERVER.set_forkserver_preload([module])
    resource_tracker.ensure_running()  # or the server would start it, and it ends the blocking
    before, path = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS), os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))  # Python 3.11 hands it over and does not use it
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if path is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = path


@contextmanager
def program_hidden() -> Iterator[None]:
    """Keep multiprocessing from running the program's file again in each process that starts meanwhile.

    It does so for functions that are defined there. Workers need none, and what train.py imports takes twice as long as
    what they need.
    """
    program = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = program


def shared(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, moved to shared memory, for a worker to hand over. LostWorkerError where that is full."""
    try:
        tensor.share_memory_()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        if os.strerror(errno.ENOSPC) not in str(error):
            raise
        raise LostWorkerError(f"a data worker cannot hand over what it has read: {SHARED_IS_FULL}") from error
    return tensor


def _work(make: Callable[[int, int], Iterator[Part]], number: int, of: int, line: Connection, ahead: int) -> None:
    """What a worker does: send its parts, wait for room, and after an error only be there.

    The descriptors of tensors that were sent are fetched from it when they are taken.
    """
    _begin()
    room = ahead
    with suppress(OSError, EOFError):  # of the line: the run is gone, and this process is about to be
        for message in _messages(make, number, of):
            line.send_bytes(message)
            room -= 1
            # Also with room left: unread words that a part was taken would fill the line, and the run wait to send one.
            while not room or line.poll():
                line.recv_bytes()
                room += 1
        while True:
            line.recv_bytes()


def _messages(make: Callable[[int, int], Iterator[Part]], number: int, of: int) -> Iterator[memoryview]:
    """The parts, pickled, to the first error, which comes in the place of a part and is raised where that is taken."""
    try:
        for part in make(number, of):
            yield ForkingPickler.dumps(part)
    except Exception as error:  # noqa: BLE001 - whatever it is, somebody waits for the part
        yield ForkingPickler.dumps(_portable(error, number))


def _begin() -> None:
    """Make a worker ignore what asks a run to stop, and end when its run is gone.

    A terminal and Slurm signal every process of a run, but that is the loop's to hear: it finishes the step and saves,
    and needs its workers for that.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
    keep_freed_memory()
    gc.freeze()  # or a collection would touch, and so copy, every page that is shared with the server
    threading.Thread(target=_end_with_run, daemon=True).start()


def _end_with_run() -> None:
    """Wait for the end of the process that takes from this worker, however it comes, and end then.

    Its parent is the server, which lives as long as any of the workers.
    """
    run = multiprocessing.parent_process()
    assert run is not None
    wait([run.sentinel])
    os._exit(1)


def _kill(workers: list[BaseProcess]) -> None:
    for worker in workers:
        if worker.is_alive():  # or its number may be another's by now
            worker.kill()


def _lost(worker: BaseProcess) -> LostWorkerError | None:
    """What to tell of a worker that has ended; None if it has not."""
    worker.join(FAREWELL_SECONDS)  # its line may end a moment before it does
    code = worker.exitcode
    if code is None:
        return None
    if code >= 0:
        return LostWorkerError(f"a data worker ended with code {code}; what it printed before may say why")
    if code == -signal.SIGBUS:  # memory that was mapped, and cannot be had when it is first written to
        return LostWorkerError(f"a data worker was ended by SIGBUS: {SHARED_IS_FULL}")
    why = ": did memory run out? data.cache_gb bounds what is kept" if code == -signal.SIGKILL else ""
    return LostWorkerError(f"a data worker was ended by {signal.Signals(-code).name}{why}")


def _portable(error: Exception, worker: int) -> Exception:
    """An error that another process can raise, with the trace of this one as a note."""
    trace = "".join(traceback.format_exception(error))
    try:
        received: Exception = pickle.loads(pickle.dumps(error))
        unchanged = str(received) == str(error)
    except Exception:  # noqa: BLE001 - some can be written and not read, or neither
        unchanged = False
    if not unchanged:
        received = RuntimeError(f"{type(error).__name__}: {error}")
    received.add_note(f"In data worker {worker}:\n{trace}")
    return received
