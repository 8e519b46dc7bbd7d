"""How far a rate can be trusted: bootstrap intervals of one system, and a paired test between two.

Whole units are drawn with replacement (Bisani and Ney 2004), speakers where they are known: utterances of one speaker
go wrong together, and with 20 speakers an interval drawn by utterance was six times too narrow.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from whisper_ft.scoring.edit_distance import ErrorCount
from whisper_ft.scoring.scores import ScoredRow, Scores

RESAMPLES = 1000
LEVEL = 0.95
SEED = 20
FEW_UNITS = 20  # of 400 simulated sets 94 % of the intervals held the truth with 20 speakers, 89 % with 8, 79 % with 4
NAMED = 5  # ids in a message
AT_ONCE = 1 << 20  # units drawn at a time: what bounds the memory, and alters nothing

By = Literal["speaker", "utterance"]
Counts = npt.NDArray[np.float64]  # [U units, K counts] or [R resamples, K]


@dataclass(frozen=True)
class Interval:
    """Where a rate or a difference of rates may lie, as fractions."""

    low: float
    high: float


@dataclass(frozen=True)
class Resamples:
    """What was drawn: the units of a bootstrap."""

    by: By
    units: int
    alone: int = 0  # units that are an utterance without a speaker, where the others are speakers
    resamples: int = RESAMPLES

    def __str__(self) -> str:
        alone = f" and {self.alone:,} utterances without one" if self.alone else ""
        few = ", which are few: the true interval is wider" if self.units < FEW_UNITS else ""
        return f"{self.resamples:,} resamples of {self.units - self.alone:,} {self.by}s{alone}{few}"


@dataclass(frozen=True)
class Confidence:
    """The intervals of a test set at LEVEL; None where there are not two units to draw from."""

    wer: Interval | None
    cer: Interval | None
    drawn: Resamples

    def summary(self) -> dict[str, Any]:
        """Ready for JSON: the ends of the intervals, and how they came about."""
        return {
            "level": LEVEL,
            "by": self.drawn.by,
            "units": self.drawn.units,
            "utterances_without_speaker": self.drawn.alone,
            "resamples": self.drawn.resamples,
            "wer": _ends(self.wer),
            "cer": _ends(self.cer),
        }


@dataclass(frozen=True)
class Difference:
    """A rate of two systems on the same utterances; `change` below zero means that the second has fewer errors."""

    first: float
    second: float
    interval: Interval | None  # of the change
    p_value: float | None  # two-sided; below 1 - LEVEL exactly if the interval leaves zero out, but for rounding
    better: float | None  # share of the resamples in which the second has fewer errors, equal ones counted half

    @property
    def change(self) -> float:
        """The second rate less the first."""
        return self.second - self.first

    @property
    def is_significant(self) -> bool:
        """Whether chance alone would seldom show as much."""
        return self.p_value is not None and self.p_value < 1 - LEVEL

    def summary(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "first": self.first,
            "second": self.second,
            "change": self.change,
            "interval": _ends(self.interval),
            "p_value": self.p_value,
            "better": self.better,
        }


@dataclass(frozen=True)
class PairedTest:
    """The differences of two systems; None without a single word to compare with."""

    wer: Difference | None
    cer: Difference | None
    drawn: Resamples


def confidence(scores: Scores, resamples: int = RESAMPLES, seed: int = SEED) -> Confidence:
    """The intervals of WER and CER. The same scores and seed give the same ends, with any version of any library."""
    rows = [row for row in scores.rows if row.is_scored]
    units = _units(rows)
    counts = [
        (row.words.errors, row.words.reference_length, row.chars.errors, row.chars.reference_length) for row in rows
    ]
    summed = _summed(counts, units)
    drawn = _drawn(units, resamples)
    if len(summed) < 2:
        return Confidence(None, None, drawn)
    totals = _resampled(summed, resamples, seed)  # [R, 4]
    return Confidence(_interval(totals[:, 0] / totals[:, 1]), _interval(totals[:, 2] / totals[:, 3]), drawn)


def interval_of(rows: Sequence[ScoredRow], counts: Sequence[ErrorCount]) -> Interval | None:
    """The interval of one rate over some rows; `counts` are theirs, none without a reference."""
    units = _units(rows)
    summed = _summed([(count.errors, count.reference_length) for count in counts], units)
    if len(summed) < 2:
        return None
    totals = _resampled(summed, RESAMPLES, SEED)
    return _interval(totals[:, 0] / totals[:, 1])


def matched(first: Scores, second: Scores) -> list[tuple[ScoredRow, ScoredRow]]:
    """The rows of two systems in pairs, in the order of the first.

    ValueError names the utterances that only one of them has, and those whose references differ.
    """
    others = {row.prediction.id: row for row in second.rows}
    ours = {row.prediction.id for row in first.rows}
    for told, ids in (
        ("are missing from the second", [row.prediction.id for row in first.rows if row.prediction.id not in others]),
        ("are missing from the first", [name for name in others if name not in ours]),
    ):
        if ids:
            raise ValueError(f"two systems are compared on the same utterances, but {len(ids):,} {told}: {_named(ids)}")
    pairs = [(row, others[row.prediction.id]) for row in first.rows]
    differ = [row.prediction.id for row, other in pairs if row.ref_norm != other.ref_norm]
    if differ:
        raise ValueError(
            f"two systems are compared on the same references, but {len(differ):,} differ: {_named(differ)}; "
            "score both with one normaliser"
        )
    return pairs


def paired_test(first: Scores, second: Scores, resamples: int = RESAMPLES, seed: int = SEED) -> PairedTest:
    """The second system against the first, drawn together, so that what is hard for both does not blur it."""
    pairs = [(row, other) for row, other in matched(first, second) if row.is_scored]
    units = _units([row for row, _ in pairs])
    counts = [
        (
            a.words.errors,
            b.words.errors,
            a.words.reference_length,
            a.chars.errors,
            b.chars.errors,
            a.chars.reference_length,
        )
        for a, b in pairs
    ]
    summed = _summed(counts, units)
    drawn = _drawn(units, resamples)
    if not len(summed):
        return PairedTest(None, None, drawn)
    totals = _resampled(summed, resamples, seed) if len(summed) > 1 else None  # [R, 6]
    return PairedTest(_difference(summed, totals, 0), _difference(summed, totals, 3), drawn)


def _difference(summed: Counts, totals: Counts | None, at: int) -> Difference:
    """From the columns (errors of the first, of the second, reference length) that begin at `at`."""
    first, second, length = summed[:, at : at + 3].sum(axis=0)
    if totals is None:
        return Difference(float(first / length), float(second / length), None, None, None)
    more = totals[:, at + 1] - totals[:, at]
    below, above = int((more < 0).sum()), int((more > 0).sum())
    equal = len(more) - below - above
    # What lies beyond zero on the rarer side, twice; plus one, because the set itself is one more draw.
    p_value = min(1.0, 2 * (1 + equal + min(below, above)) / (len(more) + 1))
    interval = _interval(more / totals[:, at + 2])
    return Difference(float(first / length), float(second / length), interval, p_value, (below + equal / 2) / len(more))


def _units(rows: Sequence[ScoredRow]) -> list[tuple[By, str]]:
    """What each row is drawn with: its speaker, where there are several; a row without one stands alone."""
    speakers = {row.prediction.speaker for row in rows if row.prediction.speaker}
    several = len(speakers) > 1  # one speaker says nothing about others
    return [
        ("speaker", row.prediction.speaker) if several and row.prediction.speaker else ("utterance", row.prediction.id)
        for row in rows
    ]


def _drawn(units: Sequence[tuple[By, str]], resamples: int) -> Resamples:
    kinds = Counter(kind for kind, _ in set(units))
    if kinds["speaker"]:
        return Resamples("speaker", kinds.total(), kinds["utterance"], resamples)
    return Resamples("utterance", kinds.total(), 0, resamples)


def _summed(counts: Sequence[tuple[int, ...]], units: Sequence[tuple[By, str]]) -> Counts:  # -> [U, K]
    """The counts of the rows, added up to those of their units, in the order of appearance."""
    if not counts:
        return np.zeros((0, 0))
    places: dict[tuple[By, str], int] = {}
    at = [places.setdefault(unit, len(places)) for unit in units]
    summed = np.zeros((len(places), len(counts[0])))
    np.add.at(summed, at, np.array(counts, dtype=np.float64))
    return summed


def _resampled(summed: Counts, resamples: int, seed: int) -> Counts:  # [U, K] -> [R, K]
    """Sums over units drawn with replacement.

    Philox is counter-based and its raw output is the same in every version of numpy, unlike that of its `integers`.
    The sums are of whole numbers: exact, in whatever order BLAS adds them.
    """
    size = len(summed)
    stream = np.random.Philox(key=seed)
    rows_at_once = max(1, AT_ONCE // size)
    totals = []
    for start in range(0, resamples, rows_at_once):
        rows = min(rows_at_once, resamples - start)
        words = -(-size // 2)  # two draws of 32 bits in each
        halves = stream.random_raw(rows * words).view(np.uint32).reshape(rows, 2 * words)[:, :size]
        drawn = (halves.astype(np.uint64) * np.uint64(size) >> np.uint64(32)).astype(np.int64)  # each of range(size)
        drawn += np.arange(rows)[:, None] * size
        times = np.bincount(drawn.ravel(), minlength=rows * size).reshape(rows, size)
        totals.append(times.astype(np.float64) @ summed)
    return np.concatenate(totals)


def _interval(values: Counts) -> Interval:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))


def _ends(interval: Interval | None) -> list[float] | None:
    return [interval.low, interval.high] if interval else None


def _named(ids: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in ids[:NAMED]) + (", …" if len(ids) > NAMED else "")
