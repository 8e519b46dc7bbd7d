"""Start of the processes of a run, and their end when the launcher is gone."""

import os
import signal
import sys
from datetime import timedelta

import accelerate
import psutil  # type: ignore[import-untyped]
import torch
from torch.utils import deterministic

from whisper_ft.runtime.collectives import RANK_TIMEOUT
from whisper_ft.runtime.errors import UsageError


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
