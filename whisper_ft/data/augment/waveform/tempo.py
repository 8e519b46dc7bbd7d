"""Transforms of speed, tempo and pitch. Times of texts follow, and a clip never gets longer than its window."""

import numpy as np
import soxr

from whisper_ft.config.waveform import PitchConfig, SpeedConfig, TempoConfig
from whisper_ft.data.audio.containers import Waveform
from whisper_ft.data.augment.waveform.time_map import TimeMap
from whisper_ft.data.augment.waveform.transform_draws import TransformDraws
from whisper_ft.data.augment.waveform.waveform_transform import Surroundings, Transformed

HOP_SECONDS = 0.015
"""Half a frame of the stretched sound in seconds. A frame of 30 ms holds three periods of a low voice."""
SEARCH_SECONDS = 0.01
"""Farthest shift of a frame in seconds, to where it continues the one before: a period of a low voice."""

SILENT = 1e-9
"""Energy of a frame, far below that of any sound, which keeps digital silence from a division by zero."""


class Speed:
    """Speed by a drawn factor: a factor of 1.1 makes a clip shorter by 1.1 and higher by as much."""

    def __init__(self, settings: SpeedConfig) -> None:
        self._settings = settings

    def __call__(self, waveform: Waveform, draws: TransformDraws, around: Surroundings) -> Transformed:
        """Return the resampled waveform of round(n / factor) samples."""
        factor = bounded(draws.between(self._settings.factor), len(waveform), around.most)
        return Transformed(resampled(waveform, factor), {"factor": factor}, TimeMap(1 / factor))


class Tempo:
    """Tempo by a drawn factor, at the same pitch."""

    def __init__(self, settings: TempoConfig) -> None:
        self._settings = settings

    def __call__(self, waveform: Waveform, draws: TransformDraws, around: Surroundings) -> Transformed:
        """Return the stretched waveform of round(n / factor) samples.

        Its times are right to `(SEARCH_SECONDS + 2 * HOP_SECONDS * abs(factor - 1)) / factor`: to 0.0145 s at a
        factor of 0.9. A frame is moved by the search, and within a frame the time runs as before.
        """
        factor = bounded(draws.between(self._settings.factor), len(waveform), around.most)
        return Transformed(stretched(waveform, factor, around.rate), {"factor": factor}, TimeMap(1 / factor))


class Pitch:
    """Pitch by a drawn number of semitones, at the same tempo."""

    def __init__(self, settings: PitchConfig) -> None:
        self._settings = settings

    def __call__(self, waveform: Waveform, draws: TransformDraws, around: Surroundings) -> Transformed:
        """Return a waveform of the same length: stretched first, then resampled by as much."""
        semitones = draws.between(self._settings.semitones)
        ratio = 2 ** (semitones / 12)
        higher = resampled(stretched(waveform, 1 / ratio, around.rate), ratio)
        return Transformed(fitted(higher, len(waveform)), {"semitones": semitones})


def bounded(factor: float, length: int, most: int | None) -> float:
    """Return a factor of speed, raised if it would make a clip longer than `most` samples (None: no limit)."""
    return factor if most is None else max(factor, length / most)


def resampled(waveform: Waveform, factor: float) -> Waveform:  # [n] -> [round(n / factor)]
    """Return a waveform that is played `factor` times as fast."""
    length = round(len(waveform) / factor)
    return fitted(soxr.resample(waveform, factor, 1.0), length)


def fitted(waveform: Waveform, length: int) -> Waveform:  # -> [length]
    """Return a waveform cut at its end, or continued by zeros."""
    if len(waveform) >= length:
        return np.ascontiguousarray(waveform[:length], dtype=np.float32)
    return np.pad(waveform, (0, length - len(waveform))).astype(np.float32)


def stretched(waveform: Waveform, factor: float, rate: int) -> Waveform:  # [n] -> [round(n / factor)]
    """Return a waveform `factor` times as fast at the same pitch, by WSOLA (Verhelst and Roelands 1993).

    Frames are taken at the places that the factor gives. Each is shifted by up to SEARCH_SECONDS, to where it continues
    the frame before it best, and the frames are overlapped by half.
    """
    length, hop, reach = round(len(waveform) / factor), round(HOP_SECONDS * rate), round(SEARCH_SECONDS * rate)
    frame, frames = 2 * hop, -(-length // hop) + 1
    edge = frame + reach
    padded = np.pad(waveform, (edge, edge + round(hop * factor) + frame))
    fade = np.hanning(frame + 1)[:-1].astype(np.float32)  # two of them, half a frame apart, add up to 1
    output = np.zeros((frames + 1) * hop, np.float32)
    begin = edge - round(hop * factor)
    for number in range(frames):
        wanted = edge + round((number - 1) * hop * factor)
        if number:
            begin = _continued(padded, begin + hop, wanted, frame, reach)
        output[number * hop : number * hop + frame] += fade * padded[begin : begin + frame]
    return output[hop : hop + length]


def _continued(padded: Waveform, follows: int, wanted: int, frame: int, reach: int) -> int:
    """Return the begin of the frame near `wanted` that is most like the one at `follows`, the natural continuation.

    The correlation is divided by the level of each frame, because otherwise the louder ones would be preferred.
    """
    target, around = padded[follows : follows + frame], padded[wanted - reach : wanted + reach + frame]
    energies = np.cumsum(np.square(around, dtype=np.float64))
    levels = np.sqrt(energies[frame - 1 :] - np.concatenate([[0.0], energies[:-frame]]) + SILENT)
    likeness = np.correlate(around, target, "valid") / levels
    best = int(likeness.argmax())
    return wanted - reach + best if likeness[best] > 0 else wanted
