"""Clip: an utterance as it enters a window, decoded, augmented and with the texts that are said in it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from whisper_ft.data.audio.containers import Waveform
from whisper_ft.data.augment.waveform.waveform_transform import Drawn
from whisper_ft.data.labels.window_label import TIMES_PER_SECOND, PlacedText
from whisper_ft.data.sampling.order import Place


@dataclass(frozen=True)
class Clip:
    """An utterance of a block."""

    id: str
    place: Place
    waveform: Waveform
    texts: Sequence[PlacedText]
    """Its texts, with times in steps of 0.02 s from its first sample."""
    cost: int
    """Most label tokens that its texts take in a window; 0 without packing."""
    language: object
    task: object
    previous: Sequence[str] = ()
    """Texts said before it, for a window that begins with it."""
    drawn: Sequence[Drawn] = ()
    """Transforms of its waveform, with the values that they drew."""
    quiet: Waveform = field(default_factory=lambda: np.zeros(1, np.float32))
    """Its quietest 0.1 s before the transforms, for windows without speech; one zero where none is made of it."""

    def steps(self, step: int) -> int:
        """Return the length in steps of `step` samples, rounded up."""
        return -(-len(self.waveform) // step)


def step_of(rate: int) -> int:
    """Return the number of samples between two timestamps."""
    return rate // TIMES_PER_SECOND
