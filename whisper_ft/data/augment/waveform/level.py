"""Transforms of the level: gain, and cut-off peaks. `speech_power` measures the level of speech."""

import numpy as np

from whisper_ft.config.waveform import ClipConfig, GainConfig
from whisper_ft.data.audio.containers import Waveform
from whisper_ft.data.audio.speech_span import speech_span
from whisper_ft.data.augment.waveform.transform_draws import TransformDraws
from whisper_ft.data.augment.waveform.waveform_transform import Surroundings, Transformed


class Gain:
    """Gain by a drawn number of decibels."""

    def __init__(self, settings: GainConfig) -> None:
        self._settings = settings

    def __call__(self, waveform: Waveform, draws: TransformDraws, around: Surroundings) -> Transformed:
        """Return the louder or softer waveform."""
        db = draws.between(self._settings.db)
        return Transformed(waveform * np.float32(10 ** (db / 20)), {"db": db})


class Clipping:
    """Peaks cut off at a drawn number of decibels below the highest one."""

    def __init__(self, settings: ClipConfig) -> None:
        self._settings = settings

    def __call__(self, waveform: Waveform, draws: TransformDraws, around: Surroundings) -> Transformed:
        """Return the waveform with samples beyond the limit moved to it."""
        db = draws.between(self._settings.db)
        limit = np.float32(np.abs(waveform).max(initial=0.0) * 10 ** (-db / 20))
        return Transformed(waveform.clip(-limit, limit), {"db": db})


def power(waveform: Waveform) -> float:
    """Return the mean square of the samples; 0 without samples."""
    return float(np.mean(np.square(waveform, dtype=np.float64))) if len(waveform) else 0.0


def speech_power(waveform: Waveform, rate: int) -> float:
    """Return the mean square of a clip from its first to its last speech, so that silent edges do not count."""
    begin, end = speech_span(waveform, rate, pad_seconds=0)
    return power(waveform[begin:end])
