"""Dynamic time warping: the cheapest monotonic path through a matrix of costs."""

import numpy as np
import numpy.typing as npt

DIAGONAL, DOWN, RIGHT = range(3)


def first_columns(costs: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:  # [N, M] -> [N]
    """Return the column at which the cheapest path enters each row.

    The path leads from the first cell to the last one, by steps to the right, down, or both. Of equally cheap steps the
    diagonal one is taken. Raises ValueError for a matrix without cells.
    """
    rows, columns = costs.shape
    if not costs.size:
        raise ValueError(f"no path through a matrix of {rows} rows and {columns} columns")
    steps = _steps(costs)
    row, column = rows - 1, columns - 1
    entered = np.zeros(rows, dtype=np.int64)
    while row > 0:
        step = steps[row + column, row]
        if step != RIGHT:
            entered[row] = column
            row -= 1
        if step != DOWN:
            column -= 1
    return entered


def _steps(costs: npt.NDArray[np.float64]) -> npt.NDArray[np.int8]:  # [N, M] -> [N + M - 1, N]
    """Return the last step of the cheapest path to each cell; that of cell (n, m) is in row n + m, column n.

    The cells of one anti-diagonal are computed together, because none of them depends on another.
    """
    rows, columns = costs.shape
    row, column = np.indices(costs.shape)
    skewed = np.full((rows + columns - 1, rows), np.inf)  # cell (n, m) in row n + m, column n
    skewed[row + column, row] = costs
    steps = np.zeros(skewed.shape, dtype=np.int8)
    before = np.full((3, rows), np.inf)  # cost of the path to the cell before, by DIAGONAL, DOWN, RIGHT
    before[DIAGONAL, 0] = 0.0  # the path begins in the first cell
    previous = np.full(rows, np.inf)
    for number, own in enumerate(skewed):
        steps[number] = before.argmin(0)
        total = before.min(0) + own
        before[DIAGONAL, 1:], before[DIAGONAL, 0] = previous[:-1], np.inf
        before[DOWN, 1:], before[RIGHT] = total[:-1], total
        previous = total
    return steps
