"""Random choices of one transform for one utterance, as a pure function of seed, epoch, utterance and transform.

A transform is known by its name and by its number among the transforms of the same name. So the draws of the others
stay the same if it is removed, moved, or gets another probability.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from whisper_ft.config.transform_values import Range
from whisper_ft.data.sampling.order import Place
from whisper_ft.runtime.rng import hash64, number_of, uniforms

T = TypeVar("T")

_WAVEFORM = 200  # part of a hash that tells these draws from other draws about an utterance
_RECORDING, _GENERATOR, _NUMBERS = 1, 2, 3  # parts of a hash that tell the kinds of draws from each other
MOST_DRAWS = 16
"""Most values that a transform draws one by one: its probability, and a value for each parameter."""


class TransformDraws:
    """Draws of one transform. Each call of a method takes the next value, so their order is part of a transform."""

    def __init__(self, seed: int, place: Place, name: str, number: int) -> None:
        self._key = (seed, *place, _WAVEFORM, number_of(name), number)
        self._values = iter(uniforms(MOST_DRAWS, *self._key).tolist())

    def happens(self, p: float) -> bool:
        """Return True with a probability of p."""
        return bool(next(self._values) < p)

    def between(self, limits: Range) -> float:
        """Return a number from the first limit to the second."""
        low, high = limits
        return float(low + (high - low) * next(self._values))

    def one_of(self, items: Sequence[T]) -> T:
        """Return one of some items."""
        return items[int(next(self._values) * len(items))]

    @property
    def key(self) -> tuple[int, ...]:
        """Key for the choice of a recording."""
        return (*self._key, _RECORDING)

    def numbers(self, n: int) -> npt.NDArray[np.float64]:  # -> [n]
        """Return n numbers from 0 to below 1."""
        return uniforms(n, *self._key, _NUMBERS)

    def generator(self) -> np.random.Generator:
        """Return a generator of noise, which is independent of every global generator."""
        return np.random.Generator(np.random.Philox(key=hash64(*self._key, _GENERATOR)))
