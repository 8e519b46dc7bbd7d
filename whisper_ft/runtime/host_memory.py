"""Memory of the machine that this process may still take, and the peak that it took in a block."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped]

GROUPS, MOUNT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
SAMPLE_SECONDS = 0.005


def free_bytes(groups: Path = GROUPS, mount: Path = MOUNT) -> int:
    """Return the bytes that this process may still take: free memory, and no more than its control groups allow.

    A container and a job of Slurm are control groups, whose limit may be far below the memory of the machine. Pages of
    files that the kernel can drop count as free.

    Parameters
        groups: list of the control groups of the process.
        mount: folder in which the kernel shows all control groups.
    """
    return min([int(psutil.virtual_memory().available), *_left_in_groups(groups, mount)])


def _left_in_groups(groups: Path, mount: Path) -> Iterator[int]:
    """Yield the bytes left in each control group with a limit: version 2 (`memory.max`) and version 1."""
    with suppress(OSError):
        for line in groups.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                top, files = mount, ("memory.max", "memory.current", "inactive_file")
            elif "memory" in controllers.split(","):
                top, files = mount / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            else:
                continue
            folder = top / path.lstrip("/")
            # A container often sees its own group as the root of the mount, and the path of the host.
            for place in {folder, *folder.parents, top}:
                if place == top or top in place.parents:
                    yield from _left(place, *files)


def _left(group: Path, limit: str, used: str, droppable: str) -> Iterator[int]:
    """Yield the bytes left in one control group; nothing if it has no limit or cannot be read."""
    with suppress(OSError, ValueError, KeyError):
        most = int((group / limit).read_text())  # the text `max` means no limit
        lines = (line.split() for line in (group / "memory.stat").read_text().splitlines())
        pages = {name: int(value) for name, value in lines}
        yield max(most - int((group / used).read_text()) + pages.get(droppable, 0), 0)


def resident_bytes() -> int:
    """Return the resident memory of this process."""
    return int(psutil.Process().memory_info().rss)


class Peak:
    """Highest resident memory of this process within a block, in bytes; 0 before the block ends."""

    bytes: int = 0


@contextmanager
def resident_peak() -> Iterator[Peak]:
    """Measure the highest resident memory of this process while the block runs.

    The kernel keeps the highest value, which is reset first. Where the kernel cannot do this, a thread samples.
    """
    peak = Peak()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        with _sampled(peak):
            yield peak
        return
    try:
        yield peak
    finally:
        peak.bytes = _status_bytes("VmHWM")


def _status_bytes(name: str) -> int:
    """Return a number of /proc/self/status, which is in kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


@contextmanager
def _sampled(peak: Peak) -> Iterator[None]:
    done = threading.Event()

    def sample() -> None:
        while True:
            is_over = done.wait(SAMPLE_SECONDS)
            peak.bytes = max(peak.bytes, resident_bytes())
            if is_over:
                return

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
