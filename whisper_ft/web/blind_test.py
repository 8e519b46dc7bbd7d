"""Blind test of two models: people choose the better text without knowing whose it is, and answers are counted."""

import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any, Literal, get_args

from whisper_ft.runtime.atomic import disk_errors
from whisper_ft.runtime.errors import UsageError
from whisper_ft.runtime.jsonl import append_rows, rows_with
from whisper_ft.scoring.bootstrap import LEVEL, Interval
from whisper_ft.scoring.unicode_text import encodable

Better = Literal["first", "second", "equal"]
ANSWERS = "blind_test.jsonl"
Z = 1.959963984540054  # quantile of the normal distribution at (1 + LEVEL) / 2, for LEVEL 0.95


@dataclass(frozen=True)
class Votes:
    """Number of answers for each of two models."""

    first: int = 0
    second: int = 0
    equal: int = 0

    def summary(self) -> dict[str, Any]:
        """Return counts, the share that prefers the first model, and its interval as JSON values.

        Answers without a preference do not count for the share, which is None if there is no other answer.
        """
        decided = self.first + self.second
        interval = wilson_interval(self.first, decided)
        return {
            "first": self.first,
            "second": self.second,
            "equal": self.equal,
            "share": self.first / decided if decided else None,
            "interval": [interval.low, interval.high] if interval else None,
            "level": LEVEL,
            "is_decided": interval is not None and not interval.low <= 0.5 <= interval.high,
        }


def wilson_interval(successes: int, trials: int) -> Interval | None:
    """Return Wilson's score interval of a share at LEVEL (Wilson 1927); None without a trial.

    Unlike the interval of the normal approximation, it has a width above zero if all trials agree.
    """
    if not trials:
        return None
    share, spread = successes / trials, Z * Z / trials
    middle = share + spread / 2
    half = Z * sqrt(share * (1 - share) / trials + spread / trials / 4)
    return Interval(max(0.0, (middle - half) / (1 + spread)), min(1.0, (middle + half) / (1 + spread)))


class BlindTest:
    """Answers of blind tests, one JSON line each, in a folder that the first answer makes."""

    def __init__(self, folder: Path) -> None:
        self._path, self._lock = folder / ANSWERS, threading.Lock()

    def add(self, first: str, second: str, better: str, texts: tuple[str, str], pair: str = "") -> Votes:
        """Keep an answer, and return the tally of these two models. A name of a model has to tell its weights apart.

        `pair` is an id of the two texts that were shown. Of several answers about a pair only the first one is kept,
        because a button may be clicked twice. Answers without an id are all kept.

        Raises UsageError for an unknown answer or equal models, and DiskError.
        """
        if better not in get_args(Better):
            raise UsageError(f"better: is {better!r}; choose from {', '.join(get_args(Better))}")
        first, second = encodable(first), encodable(second)
        if not first or not second or first == second:
            raise UsageError("first and second: name two different models")
        row = {"first": first, "second": second, "better": better, "texts": list(map(encodable, texts))}
        row |= {"pair": encodable(pair)} if pair else {}
        with self._lock, disk_errors(self._path):
            if pair and any(kept["pair"] == row["pair"] for kept in rows_with(self._path, "pair")):
                return self.tally(first, second)
            self._path.parent.mkdir(parents=True, exist_ok=True)
            append_rows(self._path, [{**row, "time": time.strftime("%FT%TZ", time.gmtime())}])
        return self.tally(first, second)

    def tally(self, first: str, second: str) -> Votes:
        """Count the answers about two models, in whatever order they were named."""
        return counted_answers(rows_with(self._path, "better"), first, second)


def counted_answers(rows: Iterable[Mapping[str, Any]], first: str, second: str) -> Votes:
    """Count the rows about two models."""
    counts: Counter[str] = Counter()
    swapped = {"first": "second", "second": "first", "equal": "equal"}
    for row in rows:
        if (row.get("first"), row.get("second")) == (first, second):
            counts[row["better"]] += 1
        elif (row.get("first"), row.get("second")) == (second, first):
            counts[swapped.get(row["better"], "")] += 1
    return Votes(counts["first"], counts["second"], counts["equal"])
