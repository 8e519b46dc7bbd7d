"""Table of the error rates of the same transcripts under several normalisers.

A published rate can be compared only with a rate under the same normaliser.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from whisper_ft.scoring.edit_distance import ErrorCount
from whisper_ft.scoring.normalizer import Normalizer, Unit
from whisper_ft.scoring.scores import Scores, score


@dataclass(frozen=True)
class NormalizerRow:
    """Totals of a test set under one normaliser."""

    name: str
    unit: Unit
    fingerprint: str  # of the normaliser's rules
    scored_utterances: int  # fewer under a normaliser that deletes more, because more references become empty
    words: ErrorCount
    chars: ErrorCount

    @classmethod
    def of(cls, scores: Scores) -> Self:
        """Make the row of a scored set."""
        rules = scores.normalizer
        return cls(rules.name, scores.unit, rules.fingerprint, scores.scored_utterances, scores.words, scores.chars)

    def summary(self) -> dict[str, Any]:
        """Return the row as JSON values."""
        return {
            "wer": self.words.rate,
            "cer": self.chars.rate,
            "unit": self.unit,
            "words": self.words.reference_length,
            "errors": self.words.errors,
            "chars": self.chars.reference_length,
            "char_errors": self.chars.errors,
            "scored_utterances": self.scored_utterances,
            "fingerprint": self.fingerprint,
        }


def normalizer_table(scores: Scores, normalizers: Sequence[Normalizer]) -> list[NormalizerRow]:
    """Return a row for the scores as they are, and a row for each further normaliser.

    A normaliser is left out if an earlier row has its name.
    """
    rows = [NormalizerRow.of(scores)]
    predictions = [row.prediction for row in scores.rows]
    for normalize in normalizers:
        if normalize.name not in {row.name for row in rows}:
            rows.append(NormalizerRow.of(score(predictions, normalize)))
    return rows
