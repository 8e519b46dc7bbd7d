"""Transform that adds noise at a drawn ratio to the speech: white, pink, babble of other utterances, or recordings."""

import math
from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from whisper_ft.config.waveform import NoiseConfig
from whisper_ft.data.audio.containers import Waveform
from whisper_ft.data.audio.decode import decode_beginning
from whisper_ft.data.audio.noise_files import NoiseFiles
from whisper_ft.data.augment.waveform.fourier import CACHED, fast_length
from whisper_ft.data.augment.waveform.level import power, speech_power
from whisper_ft.data.augment.waveform.transform_draws import TransformDraws
from whisper_ft.data.augment.waveform.waveform_transform import Parameters, Surroundings, Transformed
from whisper_ft.data.types import RejectedError, Row

VOICES = 4
"""Voices of a babble. Of two or three the words are understood; more cost more time and sound alike."""
VOICE_SECONDS = 30.0
"""Seconds of an utterance that are decoded for a voice, because a row may be a long recording."""
LOWEST_HZ = 20.0
"""Frequency in Hz below which pink noise gets no stronger, because nobody hears it."""


class Noise:
    """Noise that is drawn from a list, added to a clip. `recordings` are those of the paths in the list."""

    def __init__(self, settings: NoiseConfig, recordings: Mapping[str, NoiseFiles]) -> None:
        self._settings, self._recordings = settings, recordings

    def __call__(self, waveform: Waveform, draws: TransformDraws, around: Surroundings) -> Transformed:
        """Return speech and noise. The ratio is that of the mean powers of speech, without silent edges, and noise.

        Without any speech or noise the waveform is returned unchanged.
        """
        kind, snr_db = draws.one_of(self._settings.of), draws.between(self._settings.snr_db)
        drawn: Parameters = {"of": kind, "snr_db": snr_db}
        if kind in self._recordings:
            recordings = self._recordings[kind]
            drawn["file"] = recordings.pick(*draws.key).path.name
            seconds = math.ceil(len(waveform) / around.rate)  # whole seconds are whole samples at any rate
            noise = np.resize(recordings.part(around.rate, seconds, *draws.key), len(waveform))  # repeated if shorter
        else:
            noise = _made(kind, waveform, draws, around)
        speech, background = speech_power(waveform, around.rate), power(noise)
        if not speech or not background:
            return Transformed(waveform, drawn | {"left_out": "silent"})
        scale = np.float32(np.sqrt(speech / background * 10 ** (-snr_db / 10)))
        return Transformed(waveform + scale * noise, drawn)


def _made(kind: str, waveform: Waveform, draws: TransformDraws, around: Surroundings) -> Waveform:  # -> [n]
    """Return noise as long as a waveform that needs no recordings."""
    if kind == "babble":
        return babble(waveform, draws, around)
    white = draws.generator().standard_normal(len(waveform), dtype=np.float32)
    return pink(white, around.rate) if kind == "pink" else white


def pink(white: Waveform, rate: int) -> Waveform:  # [n] -> [n]
    """Return white noise with a power that falls by 3 dB an octave."""
    size = fast_length(len(white))
    spectrum = np.fft.rfft(white, size) * _pink_weights(size, rate)
    return np.fft.irfft(spectrum, size)[: len(white)].astype(np.float32)


@lru_cache(maxsize=CACHED)
def _pink_weights(size: int, rate: int) -> Waveform:  # -> [size / 2 + 1]
    weights: Waveform = (1 / np.sqrt(np.maximum(np.fft.rfftfreq(size, 1 / rate), LOWEST_HZ))).astype(np.float32)
    return weights


def babble(waveform: Waveform, draws: TransformDraws, around: Surroundings) -> Waveform:  # [n] -> [n]
    """Return VOICES utterances of the same chunk at once, equally loud, each from a drawn begin on and repeated.

    Without another utterance that can be decoded, it is the own one, played backwards.
    """
    others = [row for number, row in enumerate(around.rows) if number != around.place.row and not row.problem]
    numbers = draws.numbers(2 * VOICES)
    picked = {int(number * len(others)) for number in numbers[:VOICES]} if others else set[int]()
    voices = [voice for number in sorted(picked) if (voice := _voice(others[number], around.rate)) is not None]
    voices = voices or [waveform[::-1]]
    mixed = np.zeros(len(waveform), np.float32)
    for number, begin in enumerate(numbers[VOICES:]):
        voice = voices[number % len(voices)]
        rolled = np.roll(voice, -int(begin * len(voice)))
        mixed += np.resize(rolled, len(waveform)) / np.float32(np.sqrt(power(voice)) or 1.0)
    return mixed


def _voice(row: Row, rate: int) -> Waveform | None:
    """Return the beginning of an utterance; None if it cannot be decoded, or is silent."""
    try:
        voice, _ = decode_beginning(row.audio, rate, VOICE_SECONDS, row.offset, row.duration)
    except RejectedError:
        return None
    return voice if voice.any() else None
