"""Memory that a process has used stays with it: fetched anew in every step, it costs up to an eighth of one."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # as malloc.h numbers them


def keep_freed_memory() -> None:
    """Let glibc's malloc give no free memory back, and map no large block by itself. Does nothing on other systems.

    A step frees what the next one asks for again. By default blocks of over 32 MB are mapped and unmapped each time and
    the end of the heap is trimmed, so that the kernel has to find and clear the same pages in every step: 70,000 to
    120,000 of them in one of a 30 s window, 0.2 to 0.5 s of its 4 s of processor time. What is kept is what a step
    needs at its peak and, as it is in pieces, up to half as much again (docs/performance.md).
    """
    if sys.platform != "linux":
        return
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if set_option is not None:
        set_option(M_MMAP_MAX, 0)
        set_option(M_TRIM_THRESHOLD, -1)  # never
