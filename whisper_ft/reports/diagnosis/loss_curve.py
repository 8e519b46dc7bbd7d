"""Curve of the training loss, averaged over blocks of logged steps so that the noise of single steps does not count."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from whisper_ft.reports.curves.history import Curve

Values = npt.NDArray[np.float64]

MOST_BLOCKS = 20
LEAST_ROWS = 4  # logged steps in a block; a mean of fewer says little about a step of 8 utterances
TO_DEVIATION = 0.954  # median of |a - b| over the standard deviation of a and b, if both are normal


class LossBlock(NamedTuple):
    """Mean loss of neighbouring logged steps, in nats per label token."""

    begin: int
    end: int
    mean: float
    rows: int


class LossRise(NamedTuple):
    """Largest rise of the loss: from its lowest block so far to a later one."""

    low: LossBlock
    high: LossBlock

    @property
    def ratio(self) -> float:
        """Loss of the later block, divided by that of the lower one."""
        return self.high.mean / max(self.low.mean, 1e-6)


@dataclass(frozen=True)
class LossCurve:
    """Logged steps with a finite loss."""

    steps: Values
    values: Values
    """Mean loss of the tokens of text, if the run logs it; else of all label tokens."""

    @classmethod
    def of(cls, logged: Curve) -> Self:
        """Take the curve from the logged steps of a run."""
        name = "text_loss" if any("text_loss" in row for row in logged.rows) else "loss"
        values = logged.values(name)
        known = np.isfinite(values) & (values > 0)  # a step without an utterance has the loss 0
        return cls(logged.values("step")[known], values[known])

    def __len__(self) -> int:
        return len(self.steps)

    def blocks(self) -> list[LossBlock]:
        """Divide the curve into blocks of equally many rows; [] if it has fewer than two blocks."""
        count = min(MOST_BLOCKS, len(self) // LEAST_ROWS)
        if count < 2:
            return []
        parts = zip(np.array_split(self.steps, count), np.array_split(self.values, count), strict=True)
        return [LossBlock(int(steps[0]), int(steps[-1]), float(values.mean()), len(values)) for steps, values in parts]

    @property
    def noise(self) -> float:
        """Standard deviation of the logarithm of a logged loss around its course; 0 for fewer than three rows."""
        if len(self) < 3:
            return 0.0
        return float(np.median(np.abs(np.diff(np.log(self.values))))) / TO_DEVIATION

    def between(self, first: float, last: float) -> float | None:
        """Return the mean loss of the steps from `first` to `last`; None if fewer than two are logged."""
        inside = (self.steps >= first) & (self.steps <= last)
        return float(self.values[inside].mean()) if inside.sum() >= 2 else None

    def near(self, step: float) -> float | None:
        """Return the mean loss of the twentieth of the run up to a step, or of the last few logged steps up to it."""
        before = int((self.steps <= step).sum())
        width = max(LEAST_ROWS, len(self) // 20)
        part = self.values[max(before - width, 0) : before]
        return float(part.mean()) if len(part) else None

    def largest_rise(self) -> LossRise | None:
        """Return the largest rise between blocks that is four times its own noise; None without one."""
        found: LossRise | None = None
        low: LossBlock | None = None
        for block in self.blocks():
            if low is None or block.mean < low.mean:
                low = block
                continue
            rise = LossRise(low, block)
            error = self.noise * math.sqrt(1 / low.rows + 1 / block.rows)
            if math.log(rise.ratio) > 4 * error and (found is None or rise.ratio > found.ratio):
                found = rise
        return found

    def noise_of_mean(self, rows: int) -> float:
        """Return the standard error of the mean of so many rows, relative to the loss."""
        return self.noise / math.sqrt(max(rows, 1))


def number(value: Any) -> float | None:
    """Return a finite number of a row as a float; None for anything else."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None
