"""Smoothing and thinning of long, noisy series, so that they can be drawn."""

from typing import Any

import numpy as np

Series = np.ndarray[Any, np.dtype[np.float64]]

MAX_POINTS = 3000  # points of a curve: more cannot be seen at the width of a page, and would make its file large


def smoothed(steps: Series, values: Series, weights: Series, width: float) -> tuple[Series, Series]:
    """Smooth a series with weighted Gaussian means. Returns the steps and the means, at most MAX_POINTS of them.

    A longer series is averaged over stretches, each with its first step.

    The mean looks forwards and backwards, so it does not lag. `width` is the standard deviation as a share of the
    points; 0 does not smooth. Weighted sums are divided once, so a loss per token stays a loss per token. NaN has no
    weight; the mean is NaN if all values around it are NaN.
    """
    known = np.isfinite(values) & (weights > 0)
    weights = np.where(known, weights, 0.0)
    starts = _starts(len(steps))
    sums = np.add.reduceat(np.where(known, values, 0.0) * weights, starts)
    totals = np.add.reduceat(weights, starts)
    deviation = width * len(starts)
    if deviation > 0.3:  # below it, a point is its own mean
        reach = int(np.ceil(3 * deviation))
        kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
        is_gap = totals == 0
        sums = np.convolve(sums, kernel)[reach : reach + len(starts)]
        totals = np.where(is_gap, 0.0, np.convolve(totals, kernel)[reach : reach + len(starts)])
    means = np.divide(sums, totals, out=np.full_like(sums, np.nan), where=totals > 0)
    return steps[starts], means


def thinned(steps: Series, values: Series) -> tuple[Series, Series]:
    """Reduce a series to at most MAX_POINTS: the minimum and the maximum of each stretch, so that no peak is lost."""
    if len(steps) <= MAX_POINTS:
        return steps, values
    starts = _starts(len(steps), MAX_POINTS // 2)
    ends = np.stack([np.fmin.reduceat(values, starts), np.fmax.reduceat(values, starts)], axis=1)
    return np.repeat(steps[starts], 2), ends.ravel()


def _starts(points: int, most: int = MAX_POINTS) -> np.ndarray[Any, np.dtype[np.intp]]:
    """Divide a series into at most `most` stretches of equal length. Returns the first index of each."""
    return np.arange(0, points, -(-points // most) or 1, dtype=np.intp)
