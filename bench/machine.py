"""Description of the machine, without names or paths, and its load from other processes."""

import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

PACKAGES = ("torch", "transformers", "datasets", "accelerate", "tokenizers", "soundfile", "soxr", "numpy", "pyarrow")
QUIET_SHARE = 0.1  # share of all cores that other processes may use during a measurement


def describe(threads: int) -> dict[str, Any]:
    """Describe processor, cores, memory, system and versions."""
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
    """Return the name of the processor from the kernel, or from Python on other systems."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def wait_for_quiet(patience_seconds: float) -> None:
    """Wait until other processes use little of the machine, but not longer than the given time."""
    deadline = time.monotonic() + patience_seconds
    while time.monotonic() < deadline and psutil.cpu_percent(interval=1.0) > 100 * QUIET_SHARE:
        pass


class OtherLoad:
    """Meter for the share of all cores that other processes and the hypervisor use, from its creation on."""

    def __init__(self) -> None:
        self._begin, self._busy = time.monotonic(), _busy_seconds()

    def share(self, our_cpu_seconds: float) -> float:
        """Return the share of the machine's processor time that others used. Our own time is subtracted."""
        available = (time.monotonic() - self._begin) * (os.cpu_count() or 1)
        return round(max(_busy_seconds() - self._busy - our_cpu_seconds, 0.0) / available, 3)


def _busy_seconds() -> float:
    """Return the processor time of the whole machine that was not idle."""
    times = psutil.cpu_times()._asdict()
    idle = ("idle", "iowait", "guest", "guest_nice")  # guest time is part of user time already
    return float(sum(seconds for name, seconds in times.items() if name not in idle))
