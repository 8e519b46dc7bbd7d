"""Utterances to listen to: a few spread over the data, and those whose pace of speech is far from the usual one."""

import heapq
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from whisper_ft.cli.doctor.blocks import Block, Finding
from whisper_ft.cli.doctor.sounds import sound
from whisper_ft.cli.doctor.spelling import shown
from whisper_ft.data.audio.containers import Waveform
from whisper_ft.data.types import Row

SAMPLES = 5
"""Utterances spread over the data."""
EXTREMES = 3
"""Utterances that can be played of the slowest, and of the fastest."""
MOST_SECONDS = 12.0
"""Seconds of an utterance that can be played."""
FASTEST, SLOWEST = 3.0, 0.2
"""Pace as a multiple of the median pace, above and below which a transcript probably belongs to other audio."""
FEWEST_CHARACTERS, FEWEST_SECONDS = 10, 1.0
"""Characters below which a slow utterance, and seconds below which a fast one, is not counted: its pace says little."""
BINS = 20  # of the pace in a doubling; their width is 3.5 %


class Heard(NamedTuple):
    """A usable utterance with its sound. Utterances compare by `order` alone, and the first one wins."""

    order: float
    number: int
    id: str
    text: str
    seconds: float
    waveform: Waveform

    def block(self, rate: int) -> Block:
        """Return the utterance as a sound with its pace and its text."""
        pace = len("".join(self.text.split())) / self.seconds
        title = f"{shown(self.id)}, {self.seconds:.1f} s, {pace:.1f} characters per second"
        return sound(title, self.waveform, rate, shown(self.text, 120))


@dataclass
class Listening:
    """Utterances to listen to, found while the rows are checked.

    Parameters
        rows: number of rows that will be checked.
        rate: samples per second.
    """

    rows: int
    rate: int
    paces: Counter[int] = field(default_factory=Counter)  # utterances by the logarithm of their pace
    samples: list[Heard] = field(default_factory=list)
    extremes: dict[Literal["fast", "slow"], list[Heard]] = field(default_factory=lambda: {"fast": [], "slow": []})
    seen: int = 0  # rows so far

    def add(self, row: Row, waveform: Waveform | None) -> None:
        """Add the next row with its waveform [samples], which is None if it is unusable."""
        number, self.seen = self.seen, self.seen + 1
        characters = len("".join(row.text.split())) if isinstance(row.text, str) else 0
        if waveform is None or not characters:
            return
        seconds = len(waveform) / self.rate
        pace = characters / seconds
        self.paces[round(BINS * math.log2(pace))] += 1
        heard = Heard(pace, -number, row.id, str(row.text), seconds, waveform[: round(MOST_SECONDS * self.rate)])
        if len(self.samples) < SAMPLES and number * SAMPLES >= len(self.samples) * self.rows:
            self.samples.append(heard)
        if seconds >= FEWEST_SECONDS:
            _keep(self.extremes["fast"], heard)
        if characters >= FEWEST_CHARACTERS:
            _keep(self.extremes["slow"], heard._replace(order=-pace))

    def sample_section(self) -> list[Block]:
        """Return the utterances spread over the data."""
        return [one.block(self.rate) for one in self.samples] or ["no usable utterance"]

    def outlier_section(self) -> list[Block]:
        """Return the numbers of utterances with a conspicuous pace, and those that are most so, to listen to."""
        if not self.paces:
            return ["no usable utterance"]
        median = self._median()
        found: list[Block] = [f"the median pace is {2 ** (median / BINS):.1f} characters per second"]
        for kind, factor in (("fast", FASTEST), ("slow", SLOWEST)):
            most = sorted(self.extremes["fast" if kind == "fast" else "slow"], reverse=True)
            outliers = [one for one in most if self._is_outlier(one, median, factor)]
            rows = len(outliers) if len(outliers) < EXTREMES else self._beyond(median, factor)
            name = f"{kind}er than {factor:g} times the median, so the text may belong to other audio"
            examples = [(one.id, f"{abs(one.order):.1f} characters per second") for one in outliers]
            found.append(Finding(name, f"{rows:,}", "fair" if rows else "good", examples))
            found += [one.block(self.rate) for one in outliers or most[:1]]
        return found

    def _median(self) -> int:
        half, before = self.paces.total() / 2, 0
        for pace in sorted(self.paces):
            before += self.paces[pace]
            if before >= half:
                return pace
        return 0

    def _is_outlier(self, heard: Heard, median: int, factor: float) -> bool:
        ratio = abs(heard.order) / 2 ** (median / BINS)
        return ratio > factor if factor > 1 else ratio < factor

    def _beyond(self, median: int, factor: float) -> int:
        edge = median + BINS * math.log2(factor)
        return sum(rows for pace, rows in self.paces.items() if (pace > edge if factor > 1 else pace < edge))


def _keep(most: list[Heard], heard: Heard) -> None:
    """Keep the utterance if it is one of the most extreme, with a copy of its sound, which may be part of a buffer."""
    if len(most) == EXTREMES and heard[:2] <= most[0][:2]:
        return
    heard = heard._replace(waveform=heard.waveform.copy())
    (heapq.heappushpop if len(most) == EXTREMES else heapq.heappush)(most, heard)
