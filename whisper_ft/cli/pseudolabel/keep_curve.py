"""Curve of a limit: the speech that each threshold keeps, while all other limits stay as they are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf

from whisper_ft.cli.pseudolabel.pool_window import PoolWindow
from whisper_ft.cli.pseudolabel.rejection import Limit, rejection
from whisper_ft.config.pseudolabel import KeepLimits
from whisper_ft.runtime.rng import number_of
from whisper_ft.scoring.edit_distance import ErrorCount, total

EDGES: Mapping[str, Sequence[float]] = {
    "min_logprob": (-2.0, -1.5, -1.0, -0.8, -0.6, -0.5, -0.4, -0.3, -0.2, -0.1),
    "max_disagreement": (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0),
    "max_compression": (1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.2, 2.4, 3.0),
    "max_no_speech": (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0),
    "min_pace": (0.5, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0),
    "max_pace": (8.0, 10.0, 12.0, 14.0, 16.0, 20.0, 25.0, 30.0),
}
"""Thresholds of each limit. The one in use is added."""
SAMPLES = 2
"""Windows of a range that the page plays."""


@dataclass(frozen=True)
class CurvePoint:
    """Speech that one threshold keeps."""

    threshold: float
    windows: int
    seconds: float
    errors: ErrorCount
    """Errors against the references of the kept windows; none without references."""
    is_current: bool


@dataclass(frozen=True)
class FigureRange:
    """Windows whose figure lies between two thresholds."""

    low: float
    high: float
    windows: int
    samples: Sequence[PoolWindow]


@dataclass(frozen=True)
class KeepCurve:
    """Curve of one limit, and the windows by ranges of its figure."""

    limit: Limit
    points: Sequence[CurvePoint]
    ranges: Sequence[FigureRange]
    windows: int
    """Windows with the figure, which all other limits keep."""
    seconds: float


def keep_curve(
    limit: Limit, windows: Sequence[PoolWindow], limits: KeepLimits, errors: Mapping[str, ErrorCount]
) -> KeepCurve | None:
    """Compute the curve of a limit; None if no window has its figure.

    Parameters
        windows: windows of the pool that are in no held-out set
        errors: errors of windows with a reference, by id
    """
    figures = [
        (window, figure)
        for window in windows
        if rejection(window, limits, without=limit.setting) is None and (figure := limit.figure(window)) is not None
    ]
    if not figures:
        return None
    current = getattr(limits, limit.setting)
    thresholds = sorted({*EDGES[limit.setting], *([] if current is None else [current])})
    points = []
    for threshold in thresholds:
        kept = [
            window for window, figure in figures if (figure >= threshold if limit.is_least else figure <= threshold)
        ]
        counts = total(errors[window.id] for window in kept if window.id in errors)
        seconds = sum(window.seconds for window in kept)
        points.append(CurvePoint(threshold, len(kept), seconds, counts, threshold == current))
    seconds = sum(window.seconds for window, _ in figures)
    return KeepCurve(limit, points, _ranges(limit, figures, thresholds), len(figures), seconds)


def _ranges(
    limit: Limit, figures: Sequence[tuple[PoolWindow, float]], thresholds: Sequence[float]
) -> list[FigureRange]:
    """Return the ranges with windows, from the most trusted on. A threshold belongs to the range that it keeps."""
    ranges = []
    for low, high in pairwise((-inf, *thresholds, inf)):
        inside = [
            window for window, figure in figures if (low <= figure < high if limit.is_least else low < figure <= high)
        ]
        samples = sorted(inside, key=lambda window: number_of(window.id))[:SAMPLES]
        if inside:
            ranges.append(FigureRange(low, high, len(inside), samples))
    return ranges[::-1] if limit.is_least else ranges
