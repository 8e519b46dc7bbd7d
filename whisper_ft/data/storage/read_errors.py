"""Read errors: exceptions of file systems, turned into errors of one line for the user."""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from whisper_ft.runtime.errors import DataError, RunError, one_line

LOCAL_FAILURES = (OSError, ValueError, ImportError, EOFError, zlib.error, pa.ArrowException)


def read_failures(path: str) -> tuple[type[Exception], ...]:
    """Exceptions that reading a path may raise.

    For a remote address this is every exception, because each remote file system has its own client with its own
    exceptions.
    """
    return (Exception,) if "://" in path else LOCAL_FAILURES


@contextmanager
def data_errors(path: str) -> Iterator[None]:
    """Turn a failure to open or index a path into a DataError that names the path.

    RunError, which a DataError is, and MemoryError are passed on unchanged.
    """
    try:
        yield
    except (RunError, MemoryError):
        raise
    except FileNotFoundError as error:
        missing = one_line(error.filename or error)
        detail = "" if missing == path else f" ({missing})"
        raise DataError(f"{path}: there is no such file or folder{detail}") from error
    except read_failures(path) as error:
        raise DataError(f"{path}: {one_line(error) or type(error).__name__}") from error
