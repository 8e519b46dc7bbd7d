"""Transform that keeps the frequencies of a band, without a delay."""

from functools import lru_cache

import numpy as np

from whisper_ft.config.waveform import BandConfig
from whisper_ft.data.audio.containers import Waveform
from whisper_ft.data.augment.waveform.fourier import CACHED, fast_length
from whisper_ft.data.augment.waveform.transform_draws import TransformDraws
from whisper_ft.data.augment.waveform.waveform_transform import Surroundings, Transformed

EDGE_HZ = 100.0
"""Width in Hz over which the band ends on both sides. A sharper edge would ring for longer than 10 ms."""


class Band:
    """Band of frequencies; the others are removed."""

    def __init__(self, settings: BandConfig) -> None:
        self._settings = settings

    def __call__(self, waveform: Waveform, draws: TransformDraws, around: Surroundings) -> Transformed:
        """Return the waveform with the frequencies of the band."""
        low, high = self._settings.hz
        return Transformed(in_band(waveform, around.rate, low, high), {"low": low, "high": high})


def in_band(waveform: Waveform, rate: int, low: float, high: float) -> Waveform:  # [n] -> [n]
    """Return the frequencies from `low` to `high` of a waveform. Beyond EDGE_HZ outside the band nothing is left."""
    size = fast_length(len(waveform) + round(2 * rate / EDGE_HZ))  # room for the ringing, which would wrap around
    spectrum = np.fft.rfft(waveform, size) * _weights(size, rate, low, high)
    return np.fft.irfft(spectrum, size)[: len(waveform)].astype(np.float32)


@lru_cache(maxsize=CACHED)
def _weights(size: int, rate: int, low: float, high: float) -> Waveform:  # -> [size / 2 + 1]
    """Return the weight of each frequency of a spectrum, with edges like half a cosine."""
    frequencies = np.fft.rfftfreq(size, 1 / rate)
    inside = np.interp(frequencies, [low - EDGE_HZ, low, high, high + EDGE_HZ], [0.0, 1.0, 1.0, 0.0])
    weights: Waveform = (0.5 - 0.5 * np.cos(np.pi * inside)).astype(np.float32)
    return weights
