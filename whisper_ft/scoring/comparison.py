"""Comparison of two systems on the same utterances: difference, significance, and the utterances that changed."""

from dataclasses import dataclass
from typing import Any

from whisper_ft.scoring.bootstrap import Difference, PairedTest, matched_rows, paired_test
from whisper_ft.scoring.scores import CHARACTERS, ScoredRow, Scores

SUMMARY_IDS = 100  # largest number of ids in the summary, for better and for worse utterances


@dataclass(frozen=True)
class Change:
    """An utterance for which the two systems make different numbers of errors."""

    first: ScoredRow
    second: ScoredRow
    more_errors: int  # errors of the second system minus errors of the first: negative if the second is better


@dataclass(frozen=True)
class SystemComparison:
    """Comparison of a second system with a first: the scores of both, and the paired test of their difference.

    `better` and `worse` hold the utterances on which the second system makes fewer or more errors.
    """

    names: tuple[str, str]
    first: Scores
    second: Scores
    test: PairedTest
    better: tuple[Change, ...]  # largest change first, as in `worse`
    worse: tuple[Change, ...]
    same_errors: int  # scored utterances that did not change

    @property
    def headline(self) -> tuple[str, Difference | None]:
        """Name and difference of the headline rate; the difference is None if no reference has a word."""
        return ("CER", self.test.cer) if self.first.unit == CHARACTERS else ("WER", self.test.wer)

    @property
    def verdict(self) -> str:
        """The outcome in one sentence, with the names of the systems."""
        name, difference = self.headline
        if difference is None:
            return "No comparison: no reference has a word after normalisation."
        if difference.p_value is None:
            return "No test is possible with a single speaker or utterance."
        if not difference.is_significant:
            return f"The difference is not significant (p = {p_value(difference.p_value)})."
        direction = "fewer" if difference.change < 0 else "more"
        points = f"{100 * abs(difference.change):.2f} points of {name}"
        return f"{self.names[1]} makes {direction} errors: {points} (p = {p_value(difference.p_value)})."

    def summary(self) -> dict[str, Any]:
        """Return the comparison as JSON values."""
        tests = {"wer": self.test.wer, "cer": self.test.cer}
        return {
            "first": self.names[0],
            "second": self.names[1],
            "by": self.test.resampling.by,
            "units": self.test.resampling.units,
            "resamples": self.test.resampling.resamples,
            **{name: difference.summary() if difference else None for name, difference in tests.items()},
            "better": len(self.better),
            "worse": len(self.worse),
            "same_errors": self.same_errors,
            "most_improved": [change.first.prediction.id for change in self.better[:SUMMARY_IDS]],
            "most_worsened": [change.first.prediction.id for change in self.worse[:SUMMARY_IDS]],
        }


def compare(first: Scores, second: Scores, names: tuple[str, str] = ("first", "second")) -> SystemComparison:
    """Compare the second system with the first, both scored with one normaliser.

    Raises ValueError if only one system has an utterance, or if references differ. The message names the utterances.
    """
    pairs = [(row, other) for row, other in matched_rows(first, second, names) if row.is_scored]
    changes = [Change(row, other, first.errors_of(other).errors - first.errors_of(row).errors) for row, other in pairs]
    changes.sort(key=lambda change: change.more_errors)
    better = tuple(change for change in changes if change.more_errors < 0)
    worse = tuple(change for change in reversed(changes) if change.more_errors > 0)
    same = len(changes) - len(better) - len(worse)
    return SystemComparison(names, first, second, paired_test(first, second), better, worse, same)


def p_value(value: float) -> str:
    """Format a p-value with no more digits than a thousand resamples support."""
    return f"{value:.3f}" if value >= 0.0095 else f"{value:.1g}"
