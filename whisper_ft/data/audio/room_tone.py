"""Room tone: the quietest part of a clip, repeated to any length."""

from collections.abc import Sequence

import numpy as np

from whisper_ft.data.audio.containers import Waveform

TONE_SECONDS = 0.1
"""Length of the quietest part of a clip in seconds: a pause between two words is about as long."""
HOPS = 5
"""Begins of the part are tried at every fifth of its length."""
MAX_POWER = 0.1
"""Greatest power of the part, as a share of the whole clip's. A louder part is speech, so silence takes its place."""


def quietest(waveform: Waveform, rate: int) -> Waveform:  # [samples] -> [samples of 0.1 s, or fewer of a shorter clip]
    """Return the quietest 0.1 s of a clip, the first of several equal ones; zeros if they are as loud as speech."""
    length = min(round(TONE_SECONDS * rate), len(waveform))
    hop = max(length // HOPS, 1)
    energy = np.concatenate([[0.0], np.cumsum(np.square(waveform, dtype=np.float64))])
    begins = np.arange(0, len(waveform) - length + 1, hop)
    energies = energy[begins + length] - energy[begins]
    begin, least = int(begins[energies.argmin()]), float(energies.min())
    if least / length > MAX_POWER * energy[-1] / len(waveform):
        return np.zeros(length, np.float32)
    return waveform[begin : begin + length]


def softest(parts: Sequence[Waveform]) -> Waveform:
    """Return the part with the least power of at least one; the first of several equal ones."""
    return min(parts, key=lambda part: float(np.mean(np.square(part))))


def repeated(part: Waveform, length: int) -> Waveform:  # -> [length]
    """Return a part played forth and back until it has `length` samples, so that no joint is a click."""
    both = np.concatenate([part, part[::-1]])
    return np.resize(both, length)
