"""End of a run: its reason and exit code in status.json and in one line, by a rank that can still report them."""

import sys
from typing import NamedTuple

from whisper_ft.config.memory_advice import with_advice
from whisper_ft.config.training import TrainingConfig
from whisper_ft.runtime.collectives import Collectives
from whisper_ft.runtime.errors import LostRankError, OutOfMemoryError, RunError
from whisper_ft.runtime.exit import report_error
from whisper_ft.runtime.exit_codes import BUG, FINISHED, PREEMPTED
from whisper_ft.runtime.printable import say
from whisper_ft.training.directory import RunDir

STATES = {FINISHED: "finished", PREEMPTED: "preempted"}
"""State in status.json by exit code; for every other code it is `failed`."""


class RunEnd(NamedTuple):
    """How a run ends on this rank."""

    code: int
    """Exit code."""
    reason: str = ""
    failure: Exception | None = None

    @classmethod
    def of_error(
        cls,
        error: Exception,
        config: TrainingConfig | None,
        directory: RunDir | None,
        collectives: Collectives | None,
    ) -> "RunEnd":
        """Determine reason and code of an error. Each argument is None if the error came before it was known.

        If this rank only lost another one, reason and code are those that the other rank left, if it left any.
        Otherwise this rank leaves its own in the run directory, for the other ranks.
        """
        if isinstance(error, OutOfMemoryError) and config is not None:
            error = with_advice(error, config)
        code = error.exit_code if isinstance(error, RunError) else BUG
        reason = str(error) if isinstance(error, RunError) else f"{type(error).__name__}: {error}"
        if directory is None or collectives is None:
            return cls(code, reason, error)
        if not isinstance(error, LostRankError):
            directory.leave_last_words(collectives.rank, reason, code)
        elif words := directory.last_words():
            reason, code = words
            error = LostRankError(reason)
        return cls(code, reason, error)

    def report(self, directory: RunDir | None, collectives: Collectives | None) -> None:
        """Write status.json on the main rank, and print the error if there is one.

        `report_error` decides which ranks print: rank 0 for a RunError, every rank for a bug.

        Parameters
            directory: None if the run has no directory yet; nothing is written then.
            collectives: None if the ranks are not connected yet.
        """
        if directory is not None:
            directory.status(STATES.get(self.code, "failed"), directory.step or None, self.reason, self.code)
        if self.failure is not None:
            report_error(self.failure, collectives)

    def report_for_main(self, directory: RunDir | None, collectives: Collectives | None) -> None:
        """Write status.json and print the error on another rank, if the main rank hangs and has not.

        On CPUs the main rank waits for the end of this rank and reports it then. On GPUs it may wait without end.
        """
        if directory is None or collectives is None or self.failure is None:
            return
        if not isinstance(self.failure, LostRankError) and not collectives.is_on_gpu:
            return
        if isinstance(self.failure, LostRankError):
            reason = f"rank 0 does not answer, so it hangs or was killed: {self.reason}"
        else:
            reason = f"rank {collectives.rank}: {self.reason}"
        if directory.report_for_main(reason, self.code):
            say(f"error: {reason}", file=sys.stderr)
