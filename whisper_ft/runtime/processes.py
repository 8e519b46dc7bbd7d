"""Start, failure report and exit of the processes of a run."""

import os
import signal
import sys
import time
import traceback
from contextlib import suppress
from datetime import timedelta
from typing import NoReturn

import accelerate
import psutil  # type: ignore[import-untyped]
import torch
from torch.utils import deterministic

from whisper_ft.runtime.collectives import RANK_TIMEOUT, Collectives
from whisper_ft.runtime.errors import FINISHED, PREEMPTED, LostRankError, RunError, UsageError


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


def report_error(error: Exception, agreement: Collectives | None) -> None:
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


def exit_process(code: int) -> NoReturn:
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


LAUNCHER = "WHISPER_FT_LAUNCHER"  # environment variable: process id of the launcher that started a program
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def end_with_parent() -> None:
    """Have this process told to stop (SIGTERM) when the launcher that started it is gone; for the start of a program.

    A launcher that is killed cannot pass anything on, and nobody would know of the program that trains on. Does nothing
    in a program that no launcher started.
    """
    launcher = int(os.environ.pop(LAUNCHER, "0"))  # not for programs that this one starts
    if not launcher:
        return
    if sys.platform.startswith("linux") and os.getppid() == launcher:
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != launcher and not _is_running(launcher):  # it went before we could ask to be told
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)


def _is_running(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
