"""Settings of glibc's malloc that keep freed memory in the process, because fetching it again costs time."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # numbers of <malloc.h>


def keep_freed_memory() -> None:
    """Make malloc return no free memory to the kernel, and map no large block on its own. No effect without glibc.

    A step frees the blocks that the next step allocates again. By default malloc maps and unmaps blocks of over 32 MB
    each time and trims the end of the heap. So the kernel has to find and clear the same pages in every step. A step
    with a 30 s window needs 70,000 to 120,000 pages: 0.2 to 0.5 s of its 4 s of processor time.

    The process then keeps as much memory as a step needs at its peak, and up to half as much again, because free memory
    is fragmented (bench/LOG.md).
    """
    if sys.platform != "linux":
        return
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if set_option is not None:
        set_option(M_MMAP_MAX, 0)
        set_option(M_TRIM_THRESHOLD, -1)  # never trim
