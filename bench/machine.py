"""The machine in words, without names or paths, and what else it is busy with."""

import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

PACKAGES = ("torch", "transformers", "datasets", "accelerate", "tokenizers", "soundfile", "soxr", "numpy", "pyarrow")
QUIET_SHARE = 0.1  # of all cores


def describe(threads: int) -> dict[str, Any]:
    """Processor, cores, memory, system and versions."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def _cpu_model() -> str:
    """As the kernel calls it; elsewhere what Python knows."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def gpus() -> int:
    """CUDA GPUs that torch sees."""
    import torch

    return torch.cuda.device_count()


def wait_for_quiet(patience_seconds: float) -> None:
    """Return when nothing else runs, or when patience is at its end."""
    deadline = time.monotonic() + patience_seconds
    while time.monotonic() < deadline and psutil.cpu_percent(interval=1.0) > 100 * QUIET_SHARE:
        pass


class Others:
    """How much of all cores others take, the hypervisor included, from now on."""

    def __init__(self) -> None:
        self._begin, self._busy = time.monotonic(), _busy_seconds()

    def share(self, our_cpu_seconds: float) -> float:
        """Of the time since then, less what was ours."""
        available = (time.monotonic() - self._begin) * (os.cpu_count() or 1)
        return round(max(_busy_seconds() - self._busy - our_cpu_seconds, 0.0) / available, 3)


def _busy_seconds() -> float:
    """Processor time of the whole machine that was not idle."""
    times = psutil.cpu_times()._asdict()
    idle = ("idle", "iowait", "guest", "guest_nice")  # guest time is in user time already
    return float(sum(seconds for name, seconds in times.items() if name not in idle))
