"""Two systems on the same utterances: which is better, by how much, whether by chance, and where."""

from dataclasses import dataclass
from typing import Any

from whisper_ft.scoring.bootstrap import Difference, PairedTest, matched, paired_test
from whisper_ft.scoring.scores import CHARACTERS, ScoredRow, Scores

SUMMARY_IDS = 100  # of those that changed most, each way


@dataclass(frozen=True)
class Change:
    """An utterance on which the two do not make equally many errors."""

    first: ScoredRow
    second: ScoredRow
    more_errors: int  # of the second; below zero where it is better


@dataclass(frozen=True)
class SystemComparison:
    """The second system against the first."""

    names: tuple[str, str]
    first: Scores
    second: Scores
    test: PairedTest
    better: tuple[Change, ...]  # the greatest change first, each
    worse: tuple[Change, ...]
    same_errors: int  # scored utterances that are neither

    @property
    def headline(self) -> tuple[str, Difference | None]:
        """Name and difference of the rate to judge by."""
        return ("CER", self.test.cer) if self.first.unit == CHARACTERS else ("WER", self.test.wer)

    @property
    def verdict(self) -> str:
        """The outcome in one sentence, the names as they were given."""
        name, difference = self.headline
        if difference is None:
            return "No reference has a word after normalisation: there is nothing to compare."
        if difference.p_value is None:
            return "One speaker or utterance alone tells nothing about others: no test is possible."
        if not difference.is_significant:
            return f"No difference can be told from chance (p = {p_value(difference.p_value)})."
        direction = "fewer" if difference.change < 0 else "more"
        points = f"{100 * abs(difference.change):.2f} points of {name}"
        return f"{self.names[1]} makes {direction} errors: {points} (p = {p_value(difference.p_value)})."

    def summary(self) -> dict[str, Any]:
        """Ready for JSON."""
        tests = {"wer": self.test.wer, "cer": self.test.cer}
        return {
            "first": self.names[0],
            "second": self.names[1],
            "by": self.test.drawn.by,
            "units": self.test.drawn.units,
            "resamples": self.test.drawn.resamples,
            **{name: difference.summary() if difference else None for name, difference in tests.items()},
            "better": len(self.better),
            "worse": len(self.worse),
            "same_errors": self.same_errors,
            "most_improved": [change.first.prediction.id for change in self.better[:SUMMARY_IDS]],
            "most_worsened": [change.first.prediction.id for change in self.worse[:SUMMARY_IDS]],
        }


def compare(first: Scores, second: Scores, names: tuple[str, str] = ("first", "second")) -> SystemComparison:
    """The second system against the first; both scored with one normaliser.

    ValueError names the utterances that only one of them has, and those whose references differ.
    """
    pairs = [(row, other) for row, other in matched(first, second) if row.is_scored]
    changes = [Change(row, other, first.errors_of(other).errors - first.errors_of(row).errors) for row, other in pairs]
    changes.sort(key=lambda change: change.more_errors)
    better = tuple(change for change in changes if change.more_errors < 0)
    worse = tuple(change for change in reversed(changes) if change.more_errors > 0)
    same = len(changes) - len(better) - len(worse)
    return SystemComparison(names, first, second, paired_test(first, second), better, worse, same)


def p_value(value: float) -> str:
    """As it is written: no more digits than a thousand resamples have."""
    return f"{value:.3f}" if value >= 0.0095 else f"{value:.1g}"
