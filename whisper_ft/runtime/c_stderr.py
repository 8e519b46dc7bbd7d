"""Standard error of C libraries: silenced during a block, while Python and other programs keep theirs."""

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

_LOCK = threading.Lock()
_blocks = 0  # blocks that are open now, in any thread
_original: int | None = None  # the library's own stream while a block is open


@contextmanager
def silent_c_stderr() -> Iterator[None]:
    """Drop everything that C code writes to its stream `stderr` during the block, in any thread.

    libmpg123 inside libsndfile writes dozens of lines about a damaged MP3, and no call turns them off. Only the
    stream of the C library is replaced, so descriptor 2 stays as it is. Elsewhere than on Linux nothing happens.
    """
    _enter()
    try:
        yield
    finally:
        _leave()


def _enter() -> None:
    global _blocks, _original
    with _LOCK:
        _blocks += 1
        stream, nowhere = _streams()
        if _blocks == 1 and stream is not None:
            _original, stream.value = stream.value, nowhere


def _leave() -> None:
    global _blocks
    with _LOCK:
        _blocks -= 1
        stream, _ = _streams()
        if _blocks == 0 and stream is not None:
            stream.value = _original


@cache
def _streams() -> tuple[ctypes.c_void_p | None, int | None]:
    """Return the variable `stderr` of the C library, and a stream to os.devnull; None if there is no such variable."""
    try:
        library = ctypes.CDLL(None)
        variable = ctypes.c_void_p.in_dll(library, "stderr")
        library.fopen.restype = ctypes.c_void_p
        nowhere = library.fopen(os.devnull.encode(), b"w")
    except (OSError, TypeError, ValueError, AttributeError):
        return None, None
    return (variable, nowhere) if nowhere else (None, None)
