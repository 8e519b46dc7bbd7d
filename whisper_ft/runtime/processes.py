"""Start of the processes of a run: process group, device, and deterministic algorithms on a CPU."""

import os
from datetime import timedelta

import accelerate
import torch
from torch.utils import deterministic

from whisper_ft.runtime.collectives import RANK_TIMEOUT
from whisper_ft.runtime.errors import UsageError


def start_processes(device: str, timeout: float = RANK_TIMEOUT) -> accelerate.Accelerator:
    """Join the process group and choose the device. Precision, accumulation and data are left to the programs.

    Parameters
        device: `auto`, `cpu`, `cuda` or `mps`. A GPU must be there if it is named.
        timeout: longest wait in seconds for another process in a step.

    On a CPU this switches torch to deterministic algorithms. Otherwise some sums are added in the order in which
    threads finish, so two equal runs differ in their last bits. An example is the gradient of an embedding.

    Raises UsageError if accelerate did not connect the processes.
    """
    waiting = accelerate.InitProcessGroupKwargs(timeout=timedelta(seconds=timeout))
    accelerator = accelerate.Accelerator(cpu=device == "cpu", mixed_precision="no", kwargs_handlers=[waiting])
    if accelerator.device.type == "cpu":
        torch.use_deterministic_algorithms(True)
        deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a debugging aid that costs time
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != world:
        raise UsageError(
            f"WORLD_SIZE is {world}, but accelerate made {accelerator.num_processes} unconnected process in each; "
            "on a CPU box set ACCELERATE_USE_CPU=true, or start with NPROC=N ./launch.sh"
        )
    return accelerator
