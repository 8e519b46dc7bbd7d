"""Slices of a test set: error rates by duration, language, speaker, or any column of the utterances."""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from whisper_ft.scoring.bootstrap import Interval, interval_of
from whisper_ft.scoring.edit_distance import ErrorCount, total
from whisper_ft.scoring.scores import CHARACTERS, WORDS, ScoredRow, Scores

DURATION_EDGES = (0, 2, 5, 10, 15, 20, 30)  # seconds, lower edges; the last bucket holds cut and long-form audio
FEW = {WORDS: 100, CHARACTERS: 500}  # reference length below which one error moves the rate by about a point


@dataclass(frozen=True)
class Slice:
    """Part of a test set: the utterances that have the same value in a column."""

    name: str | None  # None for utterances without a value
    utterances: int
    scored_utterances: int
    words: ErrorCount
    chars: ErrorCount
    audio_seconds: float
    count: ErrorCount  # `words` or `chars`, by the headline unit
    few: bool  # the reference is shorter than FEW, so the rate means little
    interval: Interval | None  # of the rate; None if `few` or if there is only one unit to resample

    def summary(self) -> dict[str, Any]:
        """Return the slice as JSON values."""
        return {
            "name": self.name,
            "utterances": self.utterances,
            "scored_utterances": self.scored_utterances,
            "wer": self.words.rate,
            "cer": self.chars.rate,
            "words": self.words.reference_length,
            "errors": self.words.errors,
            "chars": self.chars.reference_length,
            "char_errors": self.chars.errors,
            "audio_seconds": round(self.audio_seconds, 3),
            "interval": [self.interval.low, self.interval.high] if self.interval else None,
            "few": self.few,
        }


@dataclass(frozen=True)
class Slicing:
    """A test set divided into slices; each utterance is in one of them."""

    by: str
    groups: tuple[Slice, ...]  # in their natural order if `ordered`, else worst first and small ones last
    ordered: bool = False

    def summary(self) -> list[dict[str, Any]]:
        """Return the slices as JSON values."""
        return [group.summary() for group in self.groups]


def slicings(scores: Scores, columns: Sequence[str] = ()) -> list[Slicing]:
    """Slice a set by duration, by language and speaker if the set has several, and then by each of the columns.

    A missing language or speaker counts as one more. Raises ValueError if no utterance has one of the columns.
    """
    results = [by_duration(scores)]
    if len({row.prediction.language for row in scores.rows}) > 1:
        results.append(by_column(scores, "language"))
    if len({row.prediction.speaker for row in scores.rows}) > 1:
        results.append(by_column(scores, "speaker"))
    done = {slicing.by for slicing in results}
    return results + [by_column(scores, name) for name in dict.fromkeys(columns) if name not in done]


def by_duration(scores: Scores) -> Slicing:
    """Slice a set by seconds of audio, in buckets with the lower edges DURATION_EDGES, the shortest first.

    Empty buckets are left out. Utterances of unknown length form a last slice, named None.
    """
    names = [f"{low} – {high} s" for low, high in pairwise(DURATION_EDGES)]
    names.append(f"{DURATION_EDGES[-1]} s and more")  # a bucket holds its lower edge, so 30.0 s is in this one

    def bucket(row: ScoredRow) -> str | None:
        seconds = row.prediction.audio_seconds
        return names[max(0, bisect_right(DURATION_EDGES, seconds) - 1)] if math.isfinite(seconds) else None

    groups = _slices(scores, bucket)
    order = {name: place for place, name in enumerate([*names, None])}
    return Slicing("duration", tuple(sorted(groups, key=lambda group: order[group.name])), ordered=True)


def by_column(scores: Scores, column: str) -> Slicing:
    """Slice a set by a column of predictions.jsonl, which may come from the data.

    The worst slice comes first, then small ones, then the slice named None of utterances without a value or with "".
    Raises ValueError if no utterance has the column, unless the set is empty.
    """
    known, values = dict[str, None](), dict[str, Any]()
    for row in scores.rows:  # one record at a time, because all records would double the memory of the set
        record = row.record()
        known |= dict.fromkeys(record)
        values[row.prediction.id] = record.get(column)
    if values and column not in known:
        raise ValueError(f"the predictions have no column {column!r} (they have: {', '.join(known)})")

    def name_of(row: ScoredRow) -> str | None:
        value = values[row.prediction.id]
        return None if value is None or value == "" else str(value)

    return Slicing(column, tuple(sorted(_slices(scores, name_of), key=_worst_first)))


def _slices(scores: Scores, name_of: Callable[[ScoredRow], str | None]) -> list[Slice]:
    members: dict[str | None, list[ScoredRow]] = {}
    for row in scores.rows:
        members.setdefault(name_of(row), []).append(row)
    return [_slice(name, rows, scores) for name, rows in members.items()]


def _slice(name: str | None, rows: Sequence[ScoredRow], scores: Scores) -> Slice:
    scored = [row for row in rows if row.is_scored]
    counts = [scores.errors_of(row) for row in scored]
    count = total(counts)
    few = count.reference_length < FEW[scores.unit]
    lengths = [row.prediction.audio_seconds for row in rows]
    return Slice(
        name=name,
        utterances=len(rows),
        scored_utterances=len(scored),
        words=total(row.words for row in scored),
        chars=total(row.chars for row in scored),
        audio_seconds=math.fsum(seconds for seconds in lengths if math.isfinite(seconds)),
        count=count,
        few=few,
        interval=None if few else interval_of(scored, counts),
    )


def _worst_first(group: Slice) -> tuple[bool, bool, float, str]:
    return group.name is None, group.few, -(group.count.rate or 0.0), group.name or ""
