"""The same transcripts under several normalisers, side by side: a published figure is only comparable with its own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from whisper_ft.scoring.edit_distance import ErrorCount
from whisper_ft.scoring.scores import Scores, score


@dataclass(frozen=True)
class NormalizerRow:
    """The totals of a set under one normaliser."""

    name: str
    unit: str | None
    fingerprint: str | None  # of the rules
    scored_utterances: int  # a normaliser that deletes more leaves more references empty
    words: ErrorCount
    chars: ErrorCount

    @classmethod
    def of(cls, scores: Scores) -> "NormalizerRow":
        """That of a scored set."""
        rules = scores.normalizer
        name, fingerprint = rules.get("name", "unnamed"), rules.get("fingerprint")
        return cls(name, scores.unit, fingerprint, scores.scored_utterances, scores.words, scores.chars)

    def summary(self) -> dict[str, Any]:
        """Ready for JSON."""
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


def side_by_side(scores: Scores, normalizers: Sequence[Callable[[str], str]]) -> list[NormalizerRow]:
    """The scores as they are, and what the same predictions get under each of the normalisers; each name once."""
    found = [NormalizerRow.of(scores)]
    predictions = [row.prediction for row in scores.rows]
    for normalize in normalizers:
        if getattr(normalize, "name", None) not in {variant.name for variant in found}:
            found.append(NormalizerRow.of(score(predictions, normalize)))
    return found
