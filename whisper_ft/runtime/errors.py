"""The ways a run can end early: each has one line for the user and a documented exit code.

0 finished, 1 a bug of ours or a process or machine that was lost, 2 usage or configuration, 3 resume refused, 4 data,
5 non-finite, 6 disk, 7 locked, 8 a score worse than allowed, 75 preempted and saved (`EX_TEMPFAIL` of sysexits.h: run
the same command again), 130 a small program with nothing to save was stopped by Ctrl-C. launch.sh hands the code on;
plain `accelerate launch` and `torchrun` make 1 of each, so `status.json` carries it too.
"""

from collections.abc import Iterator
from contextlib import contextmanager

FINISHED = 0
PREEMPTED = 75
INTERRUPTED = 130  # what a shell makes of SIGINT


class RunError(Exception):
    """An end that the user can do something about; its text is the whole message, without a traceback."""

    exit_code = 1


class UsageError(RunError):
    """A setting, a path or a combination of them that cannot work."""

    exit_code = 2


class ResumeError(RunError):
    """Checkpoints are there, but none can be used; never answered by starting from zero."""

    exit_code = 3


class DataError(RunError):
    """The data cannot be read, or too much of it is unusable."""

    exit_code = 4


class NonFiniteError(RunError):
    """Gradients stayed non-finite, or a weight became so."""

    exit_code = 5


class DiskError(RunError):
    """Something could not be written."""

    exit_code = 6


class PreemptedError(RunError):
    """A stop signal that came while something was done that can be done again."""

    exit_code = PREEMPTED


class LostRankError(RunError):
    """Another process of the run ended without a message: killed, most likely."""


class LostWorkerError(RunError):
    """A process that prepares data was killed, or has no room in shared memory."""


class ScoreError(RunError):
    """An error rate above what was allowed (`--fail_above` of evaluate.py)."""

    exit_code = 8


class LockedError(RunError):
    """Another process is using the run directory."""

    exit_code = 7


@contextmanager
def as_usage_error(setting: str) -> Iterator[None]:
    """Blame a ValueError raised inside on the setting that caused it."""
    try:
        yield
    except ValueError as error:
        raise UsageError(f"--{setting}: {error}") from error


def one_line(said: object) -> str:
    """A message without line ends and whatever else a terminal obeys: arrow quotes damaged bytes."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in str(said)).split())
