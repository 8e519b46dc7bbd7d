"""Data worker processes, forked from a preloaded server. They ignore stop signals, and exit when the run does.

docs/decisions/0011-workers.md gives the reasons against DataLoader's workers.
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

# The method is not fork, because a forked child inherits the locks of the parent's threads (BLAS, CUDA, gloo).
FORKSERVER = multiprocessing.get_context("forkserver")
FAREWELL_SECONDS = 1.0  # longest wait until a worker ends after its pipe has closed
TAKEN = b"."
SHARED_IS_FULL = (
    "shared memory (/dev/shm) is full, which in a container is often 64 MB; give it more (docker run --shm-size=1g), "
    "lower data.prefetch, or set data.workers to 0"
)


class Workers(Generic[Part]):
    """Worker processes that prepare parts ahead. Worker i of n sends the items of the endless iterator `make(i, n)`.

    A part is one such item. At most `ahead` parts of each worker wait to be taken. Each worker has its own pipe. The
    pipe of a killed worker closes, so no lock or partial message can block the trainer.
    """

    def __init__(self, make: Callable[[int, int], Iterator[Part]], number: int, ahead: int) -> None:
        self._processes: list[BaseProcess] = []
        self._lines: list[Connection] = []
        # Runs at the exit of Python, just before multiprocessing would wait forever for workers that nobody closed.
        self._kill = Finalize(self, _kill, (self._processes,), exitpriority=0)
        start_worker_server(make.__module__)
        with program_hidden():
            for i in range(number):
                line, far_end = FORKSERVER.Pipe()
                worker = FORKSERVER.Process(target=_work, args=(make, i, number, far_end, ahead), daemon=True)
                worker.start()
                far_end.close()  # only the worker holds this end, so the pipe closes with it
                self._processes.append(worker)
                self._lines.append(line)

    def take(self, number: int) -> Part:
        """Return the next part of a worker. Raises the worker's exception, or LostWorkerError if the worker ended."""
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
        """Kill the workers, even if they are stuck in a read. They hold no resources, and ignore gentler signals."""
        self._kill()


def start_worker_server(module: str) -> None:
    """Start the server from which workers are forked, unless it is running.

    The start takes seconds, so call this early. The server imports `module` once for all workers. It must ignore stop
    signals as the workers do, because a worker ends with its parent. So stop signals are blocked during the start. They
    stay blocked in the server, and are delivered to this process afterwards.
    """
    FORKSERVER.set_forkserver_preload([module])
    resource_tracker.ensure_running()  # otherwise the server starts it, which unblocks the signals
    before, path = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS), os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, sys.path)
    )  # Python 3.11 passes sys.path on without using it
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
    """Keep multiprocessing from running the program's file again in each process that starts in the block.

    multiprocessing runs the file to find functions that are defined in it. Workers need no such function, and the
    imports of train.py take twice as long as those of a worker.
    """
    program = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = program


def shared(tensor: torch.Tensor) -> torch.Tensor:
    """Move a tensor to shared memory, for the transfer from a worker, and return the tensor.

    Raises LostWorkerError if shared memory is full.
    """
    try:
        tensor.share_memory_()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        if os.strerror(errno.ENOSPC) not in str(error):
            raise
        raise LostWorkerError(f"a data worker cannot hand over its data: {SHARED_IS_FULL}") from error
    return tensor


def _work(make: Callable[[int, int], Iterator[Part]], number: int, of: int, line: Connection, ahead: int) -> None:
    """Run a worker: send its parts, of which at most `ahead` wait to be taken.

    After an error the worker stays alive, because the trainer fetches the descriptors of sent tensors from it.
    """
    _begin()
    room = ahead
    with suppress(OSError, EOFError):  # raised by the pipe when the run has ended; this process then ends, too
        for message in _messages(make, number, of):
            line.send_bytes(message)
            room -= 1
            # Read acknowledgements even while room remains: a full pipe would block the trainer's next acknowledgement.
            while not room or line.poll():
                line.recv_bytes()
                room += 1
        while True:
            line.recv_bytes()


def _messages(make: Callable[[int, int], Iterator[Part]], number: int, of: int) -> Iterator[memoryview]:
    """Yield the pickled parts of a worker, until an error.

    The error is sent in place of the next part, and is raised when the trainer takes that part.
    """
    try:
        for part in make(number, of):
            yield ForkingPickler.dumps(part)
    except Exception as error:  # noqa: BLE001 - the trainer waits for the part, whatever the error is
        yield ForkingPickler.dumps(_portable(error, number))


def _begin() -> None:
    """Make a worker ignore stop signals, and end when its run ends.

    A terminal and Slurm signal every process of a run. Only the training loop reacts: it finishes the step and saves,
    and needs its workers for that.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
    keep_freed_memory()
    gc.freeze()  # otherwise a collection touches, and so copies, every page shared with the server
    threading.Thread(target=_end_with_run, daemon=True).start()


def _end_with_run() -> None:
    """Wait until the training process ends, and then end this worker.

    The worker's own parent is the server, which lives as long as any worker.
    """
    run = multiprocessing.parent_process()
    assert run is not None
    wait([run.sentinel])
    os._exit(1)


def _kill(workers: list[BaseProcess]) -> None:
    for worker in workers:
        if worker.is_alive():  # otherwise its pid may belong to another process by now
            worker.kill()


def _lost(worker: BaseProcess) -> LostWorkerError | None:
    """Error with the probable reason why a worker ended; None if the worker is alive."""
    worker.join(FAREWELL_SECONDS)  # the pipe may close a moment before the worker ends
    code = worker.exitcode
    if code is None:
        return None
    if code >= 0:
        return LostWorkerError(f"a data worker ended with code {code}; what it printed before may say why")
    if code == -signal.SIGBUS:  # raised at the first write to mapped memory that is not available
        return LostWorkerError(f"a data worker was ended by SIGBUS: {SHARED_IS_FULL}")
    why = ": did memory run out? data.cache_gb bounds what is kept" if code == -signal.SIGKILL else ""
    return LostWorkerError(f"a data worker was ended by {signal.Signals(-code).name}{why}")


def _portable(error: Exception, worker: int) -> Exception:
    """Copy of an error that another process can raise, with the traceback of this process as a note."""
    trace = "".join(traceback.format_exception(error))
    try:
        received: Exception = pickle.loads(pickle.dumps(error))
        unchanged = str(received) == str(error)
    except Exception:  # noqa: BLE001 - some errors cannot be pickled, or not read back
        unchanged = False
    if not unchanged:
        received = RuntimeError(f"{type(error).__name__}: {error}")
    received.add_note(f"In data worker {worker}:\n{trace}")
    return received
