"""Distributions as text."""

from bisect import bisect_right
from collections import Counter
from itertools import accumulate

BARS, BAR = 12, 40  # bars of a histogram, and the characters of the longest
Bars = list[tuple[str, int]]
"""Range and rows of each bar."""


def histogram(values: Counter[int], unit: float, least_top: float) -> Bars:
    """(range, rows) of at most BARS equal bars and one for what is above `least_top`; `unit` is what one counts."""
    whole = max(1, -(-round(least_top / unit) // BARS))
    bars = [0] * (BARS + 1)
    for value, rows in values.items():
        bars[min(value // whole, BARS)] += rows
    last = max((index for index, rows in enumerate(bars) if rows), default=0)
    labels = [f"{i * whole * unit:g} - {(i + 1) * whole * unit:g}" for i in range(BARS)] + [
        f"{BARS * whole * unit:g} +"
    ]
    return list(zip(labels, bars, strict=True))[: last + 1]


def bar_lines(bars: Bars) -> list[str]:
    """A histogram as text."""
    most, width = max(1, *(rows for _, rows in bars)), max(len(label) for label, _ in bars)
    return [f"  {label:>{width}}  {'█' * -(-BAR * rows // most):<{BAR}} {rows:,}" for label, rows in bars]


def quantiles(values: Counter[int], unit: float) -> str:
    """Least, median, 95 % and most."""
    total, ordered = sum(values.values()), sorted(values)
    if not total:
        return "no row"
    ends = list(accumulate(values[value] for value in ordered))
    at = [ordered[min(bisect_right(ends, int(share * total)), len(ordered) - 1)] * unit for share in (0, 0.5, 0.95, 1)]
    return "least {:g}, median {:g}, 95 % below {:g}, most {:g}".format(*at)
