"""Rates of several systems side by side on one set, each with its difference from the first."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from whisper_ft.scoring.bootstrap import Confidence, Difference, confidence, paired_test
from whisper_ft.scoring.scores import CHARACTERS, Scores


@dataclass(frozen=True)
class SystemRates:
    """Rates of a system, their intervals, and the paired difference of its main rate from that of the first system."""

    name: str
    scores: Scores
    confidence: Confidence
    difference: Difference | None
    """None for the first system, and if no reference has a word."""

    def summary(self) -> dict[str, Any]:
        """Return the rates as JSON values."""
        metric, value = self.scores.headline
        return {
            "name": self.name,
            "metric": metric,
            "value": value,
            "wer": self.scores.words.rate,
            "cer": self.scores.chars.rate,
            "confidence": self.confidence.summary(),
            "to_first": self.difference and self.difference.summary(),
        }


def side_by_side(systems: Mapping[str, Scores]) -> list[SystemRates]:
    """Compare systems on the same utterances, in their order. `systems` holds the scores of each by its name.

    Raises ValueError if their utterances or references differ.
    """
    first = next(iter(systems.values()))
    found = []
    for name, scores in systems.items():
        difference = None
        if scores is not first:
            test = paired_test(first, scores)
            difference = test.cer if scores.unit == CHARACTERS else test.wer
        found.append(SystemRates(name, scores, confidence(scores), difference))
    return found
