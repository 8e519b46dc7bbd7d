"""Histogram of a whole number over the rows, such as the number of label tokens, in bars of equal width."""

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass
from itertools import accumulate

MAX_BARS = 20
BAR_CHARACTERS = 40  # length of the longest bar in text
ROUND = (1, 2, 5)  # a bar's width is one of these times a power of ten


@dataclass(frozen=True)
class Histogram:
    """Histogram with bars of equal width, beginning at 0. One more bar may count all rows from the last edge on."""

    quantity: str  # with its unit
    summary: str
    edges: list[float]  # beginning of each bar, and the end of the last one
    rows: list[int]  # rows in each bar; there is one bar more than ranges if some rows lie beyond the last edge

    @property
    def labels(self) -> list[str]:
        """Range of each bar, as text."""
        ranges = [f"{low:g} - {high:g}" for low, high in zip(self.edges, self.edges[1:], strict=False)]
        return [*ranges, f"{self.edges[-1]:g} +"][: len(self.rows)]

    def lines(self) -> list[str]:
        """Return the bars as lines of text."""
        most, width = max(1, *self.rows), max(map(len, self.labels))
        return [
            f"{self.quantity}: {self.summary}",
            *(
                f"  {label:>{width}}  {'█' * -(-BAR_CHARACTERS * rows // most):<{BAR_CHARACTERS}} {rows:,}"
                for label, rows in zip(self.labels, self.rows, strict=True)
            ),
        ]


def histogram(quantity: str, values: Counter[int], unit: float, most: float, summary: str = "") -> Histogram:
    """Make a histogram of at most MAX_BARS equal bars.

    One more bar counts the values of `most` and above, if there are any. `values` counts the rows by whole numbers, as
    multiples of `unit`. `most` is in the unit of `quantity`.
    """
    allowed = round(most / unit)
    top = min(max(values, default=0) + 1, allowed)
    width = next(size * 10**power for power in range(9) for size in ROUND if size * 10**power * MAX_BARS >= top)
    count = -(-top // width)
    rows = [0] * (count + 1)
    for value, number in values.items():
        rows[value // width if value < allowed else count] += number
    edges = [min(bar * width, allowed) * unit for bar in range(count + 1)]
    return Histogram(quantity, summary, edges, rows if rows[-1] else rows[:-1])


def quantiles(values: Counter[int], unit: float) -> str:
    """Return minimum, median, 95th percentile and maximum in one line, or "no rows".

    `values` counts rows by multiples of `unit`.
    """
    total, ordered = sum(values.values()), sorted(values)
    if not total:
        return "no rows"
    ends = list(accumulate(values[value] for value in ordered))
    at = [ordered[min(bisect_right(ends, int(share * total)), len(ordered) - 1)] * unit for share in (0, 0.5, 0.95, 1)]
    return "minimum {:g}, median {:g}, 95th percentile {:g}, maximum {:g}".format(*at)
