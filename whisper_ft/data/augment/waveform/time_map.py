"""Map of times: the time of a sound after its waveform was stretched or padded, by its time before."""

import math
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class TimeMap:
    """Linear map of times in seconds: `scale * before + shift`, at most `last`."""

    scale: float = 1.0
    shift: float = 0.0
    last: float = math.inf
    """End of the changed waveform, because its length is a whole number of samples."""

    def __call__(self, seconds: float) -> float:
        """Return the time after the change."""
        return min(seconds * self.scale + self.shift, self.last)

    def then(self, later: Self) -> Self:
        """Return the map of this change followed by a later one. Its end is that of the later one."""
        return type(self)(self.scale * later.scale, self.shift * later.scale + later.shift, later.last)


SAME_TIMES = TimeMap()
