"""Page and table of an interpolation: each mixture on the held-out set and on the guarded sets, and the front."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rich.markup import escape
from rich.table import Table

from whisper_ft.reports.html.page import render_page
from whisper_ft.reports.html.svg import Chart
from whisper_ft.reports.text import percent, points, points_range
from whisper_ft.scoring.guard import BETTER, Verdict
from whisper_ft.scoring.mixtures import MixtureScores

WIDTH, HEIGHT = 520, 320  # of a front, in units of its view box
LEFT, RIGHT, TOP, BOTTOM = 64, 500, 16, 268  # of the area of the points
MARGIN = 0.08  # of an axis beyond its values, as a share of their range
TICKS = 6  # most numbers on an axis
RATES = ("wer", "cer", "wer_orthographic", "cer_orthographic", "ser", "deletion_rate", "late_deletions", "timestamps")
"""Figures that are shown as percentages."""


class Cell(NamedTuple):
    """Figure of a set in a row of the page."""

    text: str
    change: str
    """Change from the start model with its interval, of a guarded set."""
    is_outside: bool


class MixtureRow(NamedTuple):
    """Row of the page about one mixture."""

    alpha: str
    target: str
    cells: Sequence[Cell]
    is_outside: bool
    is_chosen: bool


class Point(NamedTuple):
    """Mixture in the plane of a front."""

    alpha: float
    x: float
    y: float
    is_outside: bool
    is_chosen: bool


def interpolation_page(title: str, mixtures: Sequence[MixtureScores], chosen: MixtureScores) -> str:
    """Return the page, which loads nothing and runs nothing. The first mixture is the start model."""
    fronts = [chart for number in range(len(chosen.verdicts)) if (chart := front(mixtures, chosen, number))]
    return render_page(
        "interpolation",
        title,
        metric=chosen.metric.upper(),
        sets=list(chosen.sets),
        rows=[_row(one, chosen) for one in mixtures],
        fronts=fronts,
        chosen=_row(chosen, chosen),
        has_guard=bool(chosen.verdicts),
    )


def interpolation_table(mixtures: Sequence[MixtureScores], chosen: MixtureScores) -> Table:
    """Return the table for a console."""
    table = Table("tuned share", f"held-out {chosen.metric.upper()}", *map(escape, chosen.sets), "")
    for one in mixtures:
        row = _row(one, chosen)
        cells = [escape(f"{cell.text} {cell.change}".strip()) for cell in row.cells]
        mark = "chosen" if row.is_chosen else "outside" if row.is_outside else ""
        table.add_row(row.alpha, row.target, *cells, mark)
    return table


def _row(one: MixtureScores, chosen: MixtureScores) -> MixtureRow:
    verdicts = {verdict.guard.name: verdict for verdict in one.verdicts}
    cells = [
        Cell(figure(metric, value), "", is_outside=False) if name not in verdicts else _guarded(verdicts[name])
        for name, (metric, value) in one.sets.items()
    ]
    return MixtureRow(f"{one.alpha:g}", figure(one.metric, one.value), cells, one.is_outside, one is chosen)


def _guarded(verdict: Verdict) -> Cell:
    metric, change = verdict.guard.metric, verdict.change
    shown = "" if change is None or change != change else points(change) if metric in RATES else f"{change:+.4g}"
    if shown and verdict.interval and metric in RATES:
        shown += f" ({points_range(verdict.interval)})"
    return Cell(figure(metric, verdict.now), shown, verdict.is_outside)


def figure(metric: str, value: float | None) -> str:
    """Return a figure as a percentage if it is a rate, else as a number; `n/a` for one that is not known."""
    if value is None or value != value:
        return "n/a"
    return percent(value) if metric in RATES else f"{value:.4g}"


def front(mixtures: Sequence[MixtureScores], chosen: MixtureScores, number: int) -> Chart | None:
    """Draw the mixtures by the figure of the held-out set (across) and that of one guard (up), with its limit.

    `number` is that of the guard. Returns None if fewer than two mixtures have both figures.
    """
    guard, found = chosen.verdicts[number].guard, list(_points(mixtures, chosen, number))
    if len(found) < 2:
        return None
    limit = chosen.verdicts[number].reference - BETTER[guard.metric] * guard.max_worse
    across, up = (_scale([point.x for point in found]), _scale([*(point.y for point in found), limit]))
    label = f"{guard.name}: {_words(guard.metric)} over the {_words(chosen.metric)} of the held-out set"
    chart = Chart("front", label, WIDTH, HEIGHT)

    def x(value: float) -> float:
        return LEFT + (RIGHT - LEFT) * (value - across[0]) / (across[1] - across[0])

    def y(value: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * (value - up[0]) / (up[1] - up[0])

    for value in ticks(*up):
        chart.add("path", kind="grid", d=f"M{LEFT} {y(value):.1f}H{RIGHT}")
        chart.add("text", _tick(guard.metric, value), kind="axis number", x=LEFT - 6, y=y(value) + 4)
    for value in ticks(*across):
        chart.add("text", _tick(chosen.metric, value), kind="axis", x=x(value), y=BOTTOM + 18)
    chart.add("path", kind="limit", d=f"M{LEFT} {y(limit):.1f}H{RIGHT}")
    chart.add("text", f"limit of {guard.name}", kind="axis number", x=RIGHT, y=y(limit) - 5)
    chart.add("path", kind="line", d="M" + "L".join(f"{x(point.x):.1f} {y(point.y):.1f}" for point in found))
    for point in found:
        kind = "chosen" if point.is_chosen else "outside" if point.is_outside else "within"
        tooltip = f"{point.alpha:g}: {figure(chosen.metric, point.x)}, {guard.name} {figure(guard.metric, point.y)}"
        chart.add("circle", tooltip=tooltip, kind=kind, cx=x(point.x), cy=y(point.y), r=7.0 if point.is_chosen else 4.5)
        if point.is_chosen or point.alpha in (0, 1):
            chart.add("text", f"{point.alpha:g}", kind="alpha", x=x(point.x) + 11, y=y(point.y) + 4)
    chart.add("text", f"{_words(chosen.metric)} of the held-out set", kind="axis", x=(LEFT + RIGHT) / 2, y=HEIGHT - 8)
    return chart


def _points(mixtures: Sequence[MixtureScores], chosen: MixtureScores, number: int) -> Iterator[Point]:
    for one in mixtures:
        now = one.verdicts[number].now
        if one.value is not None and one.value == one.value and now is not None and now == now:
            yield Point(one.alpha, one.value, now, one.verdicts[number].is_outside, one is chosen)


def _scale(values: Sequence[float]) -> tuple[float, float]:
    """Return the ends of an axis, a little beyond its values; NaN is left out."""
    known = [value for value in values if value == value]
    low, high = min(known), max(known)
    margin = MARGIN * (high - low) or 0.05 * abs(high) or 0.01
    return low - margin, high + margin


def ticks(low: float, high: float) -> list[float]:
    """Return the numbers on an axis: multiples of 1, 2 or 5 times a power of ten, at most TICKS of them."""
    power: float = 10.0 ** math.floor(math.log10((high - low) / TICKS))
    for step in (power * first for first in (1, 2, 5, 10, 20)):
        first, last = math.ceil(low / step), math.floor(high / step)
        if last - first < TICKS:
            return [step * number for number in range(first, last + 1)]
    return []


def _tick(metric: str, value: float) -> str:
    return f"{100 * value:.4g}%" if metric in RATES else f"{value:.4g}"


def _words(metric: str) -> str:
    return metric.upper() if metric in ("wer", "cer", "ser") else metric.replace("_", " ")
