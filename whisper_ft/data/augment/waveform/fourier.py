"""Fourier transforms of real signals at fast lengths, and convolution by them."""

import numpy as np

from whisper_ft.data.audio.containers import Waveform

CACHED = 8
"""Weights of spectra that are kept for each purpose: clips of 2 to 30 s have about so many fast lengths."""


def fast_length(length: int) -> int:
    """Return the least length of at least `length` that is 1, 3 or 5 times a power of two: such transforms are fast."""
    powers = (odd << max(-(-length // odd) - 1, 0).bit_length() for odd in (1, 3, 5))
    return min(powers)


def convolved(waveform: Waveform, response: Waveform) -> Waveform:  # [n], [m] -> [n]
    """Return the first n samples of the convolution with a response."""
    size = fast_length(len(waveform) + len(response) - 1)
    product = np.fft.rfft(waveform, size) * np.fft.rfft(response, size)
    return np.fft.irfft(product, size)[: len(waveform)].astype(np.float32)
