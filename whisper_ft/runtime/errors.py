"""Errors that end a program early, each with its exit code (`runtime.exit_codes`)."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from whisper_ft.runtime import exit_codes
from whisper_ft.runtime.printable import printable


class RunError(Exception):
    """Error that the user can act on. Its text is the whole message that is shown; no traceback is printed.

    Credentials in the addresses of the message are hidden.
    """

    exit_code = exit_codes.BUG

    def __str__(self) -> str:
        """Return the message as one line without characters that a terminal would obey, such as those of a name."""
        return printable(super().__str__())


class UsageError(RunError):
    """A setting, a path or a combination of settings that cannot work."""

    exit_code = exit_codes.USAGE


class ResumeError(RunError):
    """Checkpoints exist, but the run cannot continue from any of them. A run never starts from zero instead."""

    exit_code = exit_codes.RESUME_REFUSED


class DataError(RunError):
    """Data that cannot be read, or too many unusable rows."""

    exit_code = exit_codes.BAD_DATA


class NonFiniteError(RunError):
    """Gradients that stayed non-finite, a loss scale below `scaler.floor`, or a non-finite weight."""

    exit_code = exit_codes.NON_FINITE


class DiskError(RunError):
    """A file that could not be written."""

    exit_code = exit_codes.DISK


class PreemptedError(RunError):
    """A stop signal ended work that the same command can repeat."""

    exit_code = exit_codes.PREEMPTED


class LostRankError(RunError):
    """Another process of the run ended without a message, most likely killed."""


class LostWorkerError(RunError):
    """A data worker that was killed, or that has no room in shared memory."""


class ScoreError(RunError):
    """An error rate above the allowed one (`--fail_above` of evaluate.py)."""

    exit_code = exit_codes.OVER_LIMIT


class CheckError(RunError):
    """A check that failed: an engine that writes other text than the model it was made from, or a changed file."""

    exit_code = exit_codes.OVER_LIMIT


class OutOfMemoryError(RunError):
    """No memory for a tensor: on the GPU, or on a machine without one."""

    exit_code = exit_codes.OUT_OF_MEMORY


class DecodingMemoryError(OutOfMemoryError):
    """No memory for a tensor of a transcription. Other settings lower its memory than that of the training."""


class LockedError(RunError):
    """A folder that another process is using."""

    exit_code = exit_codes.LOCKED


@contextmanager
def as_usage_error(setting: str) -> Iterator[None]:
    """Turn a ValueError raised in the block into a UsageError that names a setting, given without its dashes."""
    try:
        yield
    except ValueError as error:
        raise UsageError(f"--{setting}: {error}") from error


def as_missing_package(error: ModuleNotFoundError) -> UsageError:
    """Return the error of a Python without a package, mostly that of the system. A missing module of ours is raised."""
    if (error.name or "").startswith("whisper_ft"):
        raise error
    return UsageError(
        f"{sys.executable} has no package {error.name}; start ./launch.sh or .venv/bin/python, which `make setup` makes"
    )


def one_line(text: object) -> str:
    """Return a message as one line without control characters, which a terminal would obey.

    Such characters occur because arrow quotes damaged bytes in its messages. Each run of spaces, line ends and control
    characters becomes one space.
    """
    return " ".join("".join(sign if sign.isprintable() else " " for sign in str(text)).split())
