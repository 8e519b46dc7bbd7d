"""How much memory this process takes."""

import psutil  # type: ignore[import-untyped]
import torch


def memory_gb(device: torch.device) -> float:
    """Gigabytes (10^9 bytes): on a GPU the most that its tensors ever took, on a CPU what the process holds now."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device)) / 1e9
    return float(psutil.Process().memory_info().rss) / 1e9
