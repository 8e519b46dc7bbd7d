"""Analysis of the predictions of an evaluation, in addition to its error rates. It needs no model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from whisper_ft.scoring.bootstrap import Confidence, confidence
from whisper_ft.scoring.comparison import SystemComparison, compare
from whisper_ft.scoring.hallucination import Check, run_checks
from whisper_ft.scoring.normalizer import Normalizer
from whisper_ft.scoring.normalizer_table import NormalizerRow, normalizer_table
from whisper_ft.scoring.runaway import Runaway
from whisper_ft.scoring.scores import Scores
from whisper_ft.scoring.slices import Slicing, slicings


@dataclass(frozen=True)
class Analysis:
    """Further results for a scored set: intervals, normaliser table, slices, hallucination checks and comparison."""

    confidence: Confidence
    normalizer_rows: Sequence[NormalizerRow]
    slicings: Sequence[Slicing]
    checks: Sequence[Check]
    runaway: Runaway = Runaway()
    comparison: SystemComparison | None = None  # its first system is the other one, its second is this one

    @classmethod
    def of(
        cls,
        scores: Scores,
        normalizers: Sequence[Normalizer] = (),
        columns: Sequence[str] = (),
        other: tuple[str, Scores] | None = None,
        name: str = "this one",
    ) -> Self:
        """Analyse a scored set.

        Parameters
            scores: The scored set.
            normalizers: Further normalisers for the normaliser table.
            columns: Columns to slice by, in addition to duration, language and speaker.
            other: Name and scores of a system to compare with, scored with the same normaliser.
            name: Name of this system in the comparison.

        Raises ValueError for an unknown column, and if the other system has other utterances or references.
        """
        checks = run_checks(scores)
        return cls(
            confidence=confidence(scores),
            normalizer_rows=normalizer_table(scores, normalizers),
            slicings=slicings(scores, columns),
            checks=checks,
            runaway=Runaway.of(scores, checks),
            comparison=compare(other[1], scores, (other[0], name)) if other else None,
        )

    def summary(self) -> dict[str, Any]:
        """Return the entries of summary.json that follow the scores, as JSON values."""
        compared = {"comparison": self.comparison.summary()} if self.comparison else {}
        return {
            "confidence": self.confidence.summary(),
            "normalisations": {row.name: row.summary() for row in self.normalizer_rows},
            "breakdowns": {slicing.by: slicing.summary() for slicing in self.slicings},
            "runaway": self.runaway.summary(),
            "hallucination_signs": {check.name: check.summary() for check in self.checks},
            **compared,
        }
