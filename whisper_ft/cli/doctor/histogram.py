"""Distributions as bars."""

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass
from itertools import accumulate

BARS, BAR = 20, 40  # most bars of a histogram, and the characters of the longest
ROUND = (1, 2, 5)  # how many values a bar may hold: these, or 10 times as many, or 100 times, ...


@dataclass(frozen=True)
class Histogram:
    """Bars of equal width from 0 on, and what lies above the most that can be used."""

    of: str  # what is counted, with its unit
    summary: str
    edges: list[float]  # where each bar begins, and the end of the last one
    rows: list[int]  # of each bar; one more than there are ranges is of all from the last edge on

    @property
    def labels(self) -> list[str]:
        """The range of each bar."""
        ranges = [f"{low:g} - {high:g}" for low, high in zip(self.edges, self.edges[1:], strict=False)]
        return [*ranges, f"{self.edges[-1]:g} +"][: len(self.rows)]

    def lines(self) -> list[str]:
        """The bars as text."""
        most, width = max(1, *self.rows), max(map(len, self.labels))
        return [
            f"{self.of}: {self.summary}",
            *(
                f"  {label:>{width}}  {'█' * -(-BAR * rows // most):<{BAR}} {rows:,}"
                for label, rows in zip(self.labels, self.rows, strict=True)
            ),
        ]


def histogram(of: str, values: Counter[int], unit: float, most: float, summary: str = "") -> Histogram:
    """At most BARS equal bars, and one for `most` and above; `unit` is what a value of 1 stands for."""
    allowed = round(most / unit)
    top = min(max(values, default=0) + 1, allowed)
    whole = next(size * 10**power for power in range(9) for size in ROUND if size * 10**power * BARS >= top)
    count = -(-top // whole)
    rows = [0] * (count + 1)
    for value, number in values.items():
        rows[value // whole if value < allowed else count] += number
    edges = [min(bar * whole, allowed) * unit for bar in range(count + 1)]
    return Histogram(of, summary, edges, rows if rows[-1] else rows[:-1])


def quantiles(values: Counter[int], unit: float) -> str:
    """Least, median, 95 % and most."""
    total, ordered = sum(values.values()), sorted(values)
    if not total:
        return "no row"
    ends = list(accumulate(values[value] for value in ordered))
    at = [ordered[min(bisect_right(ends, int(share * total)), len(ordered) - 1)] * unit for share in (0, 0.5, 0.95, 1)]
    return "least {:g}, median {:g}, 95 % below {:g}, most {:g}".format(*at)
