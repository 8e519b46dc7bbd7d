"""A rate taken apart: by language, length, speaker, or whatever column the utterances have."""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from whisper_ft.scoring.bootstrap import Interval, interval_of
from whisper_ft.scoring.edit_distance import ErrorCount, total
from whisper_ft.scoring.scores import CHARACTERS, WORDS, ScoredRow, Scores

SECONDS = (0, 2, 5, 10, 15, 20, 30)  # where the buckets of length begin; the last one has what is cut or long-form
FEW = {WORDS: 100, CHARACTERS: 500}  # below, one error more or less moves a rate by a point or so


@dataclass(frozen=True)
class Slice:
    """The utterances that share a value."""

    name: str | None  # None: those without a value
    utterances: int
    scored_utterances: int
    words: ErrorCount
    chars: ErrorCount
    audio_seconds: float
    count: ErrorCount  # of the two above the one to judge by
    few: bool  # too little to judge by at all
    interval: Interval | None  # of its rate; None where there is too little

    def summary(self) -> dict[str, Any]:
        """Ready for JSON."""
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
    """All utterances of a set, each in one group."""

    by: str
    groups: tuple[Slice, ...]  # in their own order if they have one, else worst first and those with few last
    ordered: bool = False

    def summary(self) -> list[dict[str, Any]]:
        """Ready for JSON."""
        return [group.summary() for group in self.groups]


def slicings(scores: Scores, columns: Sequence[str] = ()) -> list[Slicing]:
    """By length; by language and by speaker where there are several; by each of the columns asked for."""
    found = [by_duration(scores)]
    if len({row.prediction.language for row in scores.rows}) > 1:
        found.append(by_column(scores, "language"))
    if len({row.prediction.speaker for row in scores.rows}) > 1:
        found.append(by_column(scores, "speaker"))
    done = {breakdown.by for breakdown in found}
    return found + [by_column(scores, name) for name in dict.fromkeys(columns) if name not in done]


def by_duration(scores: Scores) -> Slicing:
    """By seconds of audio, in buckets that begin at SECONDS."""
    names = [f"{low} – {high} s" for low, high in pairwise(SECONDS)]
    names.append(f"{SECONDS[-1]} s and more")  # 30 s sharp are here, as the buckets hold their lower ends

    def bucket(row: ScoredRow) -> str | None:
        seconds = row.prediction.audio_seconds
        return names[max(0, bisect_right(SECONDS, seconds) - 1)] if math.isfinite(seconds) else None

    groups = _groups(scores, bucket)
    order = {name: place for place, name in enumerate([*names, None])}
    return Slicing("duration", tuple(sorted(groups, key=lambda group: order[group.name])), ordered=True)


def by_column(scores: Scores, column: str) -> Slicing:
    """By a column of predictions.jsonl, the data's included. ValueError if no utterance has it."""
    known, found = dict[str, None](), dict[str, Any]()
    for row in scores.rows:  # one record at a time: those of all would be as large as all that is known of a set
        record = row.record()
        known |= dict.fromkeys(record)
        found[row.prediction.id] = record.get(column)
    if found and column not in known:
        raise ValueError(f"the predictions have no column {column!r} (they have: {', '.join(known)})")

    def value(row: ScoredRow) -> str | None:
        of_row = found[row.prediction.id]
        return None if of_row is None or of_row == "" else str(of_row)

    return Slicing(column, tuple(sorted(_groups(scores, value), key=_worst_first)))


def _groups(scores: Scores, value: Callable[[ScoredRow], str | None]) -> list[Slice]:
    members: dict[str | None, list[ScoredRow]] = {}
    for row in scores.rows:
        members.setdefault(value(row), []).append(row)
    return [_group(name, rows, scores) for name, rows in members.items()]


def _group(name: str | None, rows: Sequence[ScoredRow], scores: Scores) -> Slice:
    scored = [row for row in rows if row.is_scored]
    counts = [scores.errors_of(row) for row in scored]
    count = total(counts)
    few = count.reference_length < FEW[CHARACTERS if scores.unit == CHARACTERS else WORDS]
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
