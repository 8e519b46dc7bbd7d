"""Processes that prepare data: from a server that has imported what they need, deaf to signals, gone with their run."""

import errno
import gc
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import connection, forkserver, resource_tracker
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from types import ModuleType

import torch

from whisper_ft.allocator import keep_memory
from whisper_ft.failure import STOP_SIGNALS, LostWorkerError

FAREWELL_SECONDS = 1.0
SHARED_IS_FULL = (
    "shared memory (/dev/shm) is full, which in a container is often 64 MB; give it more (docker run --shm-size=1g), "
    "lower data.prefetch, or set data.workers to 0"
)


class PipeEvent:
    """An event that stays usable when a process that shares it is killed: a byte in a pipe, which nobody takes out.

    That of multiprocessing has a lock, and who is killed while it looks at the event takes the lock along. DataLoader
    sets one when it ends its workers, and waited for ever, at any later time, for it does so in its destructor.
    """

    def __init__(self) -> None:
        self._reader, self._writer = connection.Pipe(duplex=False)

    def set(self) -> None:
        """Tell all who share it."""
        self._writer.send_bytes(b".")

    def is_set(self) -> bool:
        """Whether it was told."""
        return self._reader.poll()


class _Context(ForkServerContext):
    """Not fork: the parent runs threads (BLAS, CUDA, gloo) whose locks a forked child would inherit."""

    def Event(self) -> PipeEvent:  # type: ignore[override]  # noqa: N802 - the name that DataLoader calls
        return PipeEvent()


FORKSERVER = _Context()


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


def begin_worker(_: int = 0) -> None:
    """Make a worker ignore what asks a run to stop, and end when its run is gone.

    A terminal and Slurm signal every process of a run, but that is the loop's to hear: it finishes the step and saves,
    and needs its workers for that.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    keep_memory()
    gc.freeze()  # or a collection would touch, and so copy, every page that is shared with the server
    threading.Thread(target=_end_with_run, daemon=True).start()


def _end_with_run() -> None:
    """Wait for the end of the process that reads from this worker, however it comes, and end then.

    What DataLoader watches is the parent: here the server, which lives as long as any of its workers.
    """
    run = multiprocessing.parent_process()
    assert run is not None
    connection.wait([run.sentinel])
    os._exit(1)


def shared(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, moved to shared memory, for a worker to hand over. LostWorkerError where that is full.

    Left to the thread that sends it, the error would be printed there and the run would wait for the tensor for ever.
    """
    try:
        tensor.share_memory_()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        if os.strerror(errno.ENOSPC) not in str(error):
            raise
        raise LostWorkerError(f"a data worker cannot hand over what it has read: {SHARED_IS_FULL}") from error
    return tensor


def kill(workers: Sequence[BaseProcess]) -> None:
    """End workers, also one that is stuck in a read: they hold nothing, and are deaf to gentler signals.

    Before Python exits: it would send such a signal to those that still live, and wait for them without end.
    """
    for worker in workers:
        worker.kill()


def lost(workers: Sequence[BaseProcess]) -> LostWorkerError | None:
    """What to tell of workers of which one has ended by a signal; None where none has."""
    if workers:  # a connection to one may break a moment before it is gone
        connection.wait([worker.sentinel for worker in workers], FAREWELL_SECONDS)
    ended = [-worker.exitcode for worker in workers if worker.exitcode is not None and worker.exitcode < 0]
    if not ended:
        return None
    if signal.SIGBUS in ended:  # memory that was mapped, and cannot be had when it is first written to
        return LostWorkerError(f"a data worker was ended by SIGBUS: {SHARED_IS_FULL}")
    why = ": did memory run out? data.cache_gb bounds what is kept" if signal.SIGKILL in ended else ""
    return LostWorkerError(f"a data worker was ended by {signal.Signals(ended[0]).name}{why}")


def portable(error: Exception, worker: int) -> Exception:
    """An error that another process can raise, with the trace of this one as a note.

    As a value, because DataLoader would put its own trace into the message of what a worker raises.
    """
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
