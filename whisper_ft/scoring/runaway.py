"""Runaway transcripts: those that repeat themselves or reach the token limit, and their part in the error rate.

A few of them may make most errors of a set, because a loop inserts hundreds of words.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from whisper_ft.scoring.edit_distance import ErrorCount, total
from whisper_ft.scoring.hallucination import Check
from whisper_ft.scoring.scores import Scores

SIGNS = "loops", "token_limit"  # names of the checks that flag a runaway transcript


@dataclass(frozen=True)
class Runaway:
    """Scored utterances with a runaway transcript. Counts are in the unit of the main rate, words or characters."""

    utterances: int = 0
    count: ErrorCount = ErrorCount()
    """Errors of these utterances."""
    others: ErrorCount = ErrorCount()
    """Errors of all other utterances; its rate is the rate without runaway transcripts."""

    @classmethod
    def of(cls, scores: Scores, checks: Sequence[Check]) -> Self:
        """Divide a scored set by the checks in SIGNS."""
        flagged = {item.row.prediction.id for check in checks if check.name in SIGNS for item in check.flagged}
        scored = [row for row in scores.rows if row.is_scored]
        runaway = [scores.errors_of(row) for row in scored if row.prediction.id in flagged]
        others = [scores.errors_of(row) for row in scored if row.prediction.id not in flagged]
        return cls(len(runaway), total(runaway), total(others))

    @property
    def error_share(self) -> float | None:
        """Share of all errors that these utterances make; None if the set has no error."""
        errors = self.count.errors + self.others.errors
        return self.count.errors / errors if errors else None

    def summary(self) -> dict[str, Any]:
        """Return the counts as JSON values."""
        return {
            "utterances": self.utterances,
            "errors": self.count.errors,
            "error_share": self.error_share,
            "rate_without": self.others.rate,
        }
