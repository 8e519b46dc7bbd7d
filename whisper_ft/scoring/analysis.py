"""All that is found in the predictions of an evaluation besides its rates. No model is needed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from whisper_ft.scoring.bootstrap import Confidence, confidence
from whisper_ft.scoring.comparison import SystemComparison, compare
from whisper_ft.scoring.hallucination import Check, run_checks
from whisper_ft.scoring.normalizer_table import NormalizerRow, side_by_side
from whisper_ft.scoring.scores import Scores
from whisper_ft.scoring.slices import Slicing, slicings


@dataclass(frozen=True)
class Analysis:
    """What stands beside the scores in summary.json and on the page."""

    confidence: Confidence
    variants: Sequence[NormalizerRow]
    slicings: Sequence[Slicing]
    signs: Sequence[Check]
    comparison: SystemComparison | None = None  # another system is its first, this one its second

    @classmethod
    def of(
        cls,
        scores: Scores,
        normalizers: Sequence[Callable[[str], str]] = (),
        columns: Sequence[str] = (),
        other: tuple[str, Scores] | None = None,
        name: str = "this one",
    ) -> Self:
        """Those of a scored set.

        `normalizers` are those to stand beside the one it was scored with; `columns` are what to break it down by
        besides length, language and speaker. `other` is the name and the scores of a system to compare with, scored
        with the same normaliser. ValueError for a column that is not there, and for another system with other
        utterances or references.
        """
        return cls(
            confidence=confidence(scores),
            variants=side_by_side(scores, normalizers),
            slicings=slicings(scores, columns),
            signs=run_checks(scores),
            comparison=compare(other[1], scores, (other[0], name)) if other else None,
        )

    def summary(self) -> dict[str, Any]:
        """Ready for JSON, to stand in summary.json below the scores."""
        compared = {"comparison": self.comparison.summary()} if self.comparison else {}
        return {
            "confidence": self.confidence.summary(),
            "normalisations": {variant.name: variant.summary() for variant in self.variants},
            "breakdowns": {breakdown.by: breakdown.summary() for breakdown in self.slicings},
            "hallucination_signs": {sign.name: sign.summary() for sign in self.signs},
            **compared,
        }
