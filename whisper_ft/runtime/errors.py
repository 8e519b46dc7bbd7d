"""Early ends of a run: one exception class and one exit code for each.

| code | end |
|---|---|
| 0 | finished |
| 1 | a bug, or a lost process or machine |
| 2 | usage or configuration |
| 3 | resume refused |
| 4 | data |
| 5 | non-finite gradients or weights |
| 6 | disk |
| 7 | locked |
| 8 | a score worse than allowed |
| 75 | preempted and saved: run the same command again (EX_TEMPFAIL of sysexits.h) |
| 130 | Ctrl-C in a small program that has nothing to save |

launch.sh returns these codes. Plain `accelerate launch` and `torchrun` return 1 for each, so `status.json` holds the
code, too.
"""

from collections.abc import Iterator
from contextlib import contextmanager

FINISHED = 0
PREEMPTED = 75
INTERRUPTED = 130  # the code of a shell for SIGINT


class RunError(Exception):
    """An end that the user can act on. Its text is the whole message; no traceback is shown."""

    exit_code = 1


class UsageError(RunError):
    """A setting, a path or a combination of settings that cannot work."""

    exit_code = 2


class ResumeError(RunError):
    """Checkpoints exist, but none is usable. A run never starts from zero instead."""

    exit_code = 3


class DataError(RunError):
    """Unreadable data, or too many unusable rows."""

    exit_code = 4


class NonFiniteError(RunError):
    """Gradients that stayed non-finite, or a non-finite weight."""

    exit_code = 5


class DiskError(RunError):
    """A file that could not be written."""

    exit_code = 6


class PreemptedError(RunError):
    """A stop signal during work that can be repeated."""

    exit_code = PREEMPTED


class LostRankError(RunError):
    """Another process of the run ended without a message, most likely killed."""


class LostWorkerError(RunError):
    """A data worker that was killed, or that has no room in shared memory."""


class ScoreError(RunError):
    """An error rate above the allowed one (`--fail_above` of evaluate.py)."""

    exit_code = 8


class LockedError(RunError):
    """A folder that another process is using."""

    exit_code = 7


@contextmanager
def as_usage_error(setting: str) -> Iterator[None]:
    """Turn a ValueError raised in the block into a UsageError that names a setting."""
    try:
        yield
    except ValueError as error:
        raise UsageError(f"--{setting}: {error}") from error


def one_line(text: object) -> str:
    """A message without line ends and control characters: arrow quotes damaged bytes, which a terminal would obey."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in str(text)).split())
