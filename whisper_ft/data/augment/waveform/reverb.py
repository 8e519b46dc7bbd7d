"""Transform that makes a clip sound as in a room: a simulated one, or that of a recorded impulse response."""

from collections.abc import Mapping

import numpy as np
import soundfile
import soxr

from whisper_ft.config.waveform import ROOM, ReverbConfig
from whisper_ft.data.audio.containers import Waveform
from whisper_ft.data.audio.noise_files import NoiseFiles
from whisper_ft.data.augment.waveform.fourier import convolved
from whisper_ft.data.augment.waveform.level import power
from whisper_ft.data.augment.waveform.room import drawn_room, impulse_response
from whisper_ft.data.augment.waveform.transform_draws import TransformDraws
from whisper_ft.data.augment.waveform.waveform_transform import Parameters, Surroundings, Transformed
from whisper_ft.runtime.errors import DataError

MOST_SECONDS = 4.0
"""Longest part of a recorded response in seconds. Later sound of a hall is below any background."""


class Reverb:
    """Reverberation of a room that is drawn from a list. `recordings` are those of the paths in the list."""

    def __init__(self, settings: ReverbConfig, recordings: Mapping[str, NoiseFiles]) -> None:
        self._settings, self._recordings = settings, recordings

    def __call__(self, waveform: Waveform, draws: TransformDraws, around: Surroundings) -> Transformed:
        """Return the clip in a room, with the same length, power and times: the direct sound is not delayed.

        The reverberation after the end of the clip is cut off.
        """
        kind = draws.one_of(self._settings.of)
        drawn: Parameters = {"of": kind}
        if kind == ROOM:
            rt60 = draws.between(self._settings.rt60)
            drawn["rt60"] = rt60
            response = impulse_response(drawn_room(draws.numbers(9), rt60), around.rate, draws.generator())
        else:
            recording = self._recordings[kind].pick(*draws.key).path
            drawn["file"] = recording.name
            response = recorded_response(str(recording), around.rate)
        wet = convolved(waveform, response)
        level = power(wet)
        scale = np.float32(np.sqrt(power(waveform) / level)) if level else np.float32(1.0)
        return Transformed(wet * scale, drawn)


def recorded_response(path: str, rate: int) -> Waveform:  # -> [samples]
    """Read the first channel of a recorded impulse response, from its direct sound on, which is its loudest sample.

    The mean of several channels would be another room, because microphones of an array hear the sound at other times.
    Raises DataError if it can no longer be read, or is silent.
    """
    try:
        samples, own_rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, soundfile.LibsndfileError) as error:
        raise DataError(f"impulse response {path}: cannot be read: {error}; use a WAV or FLAC file") from error
    response = samples[:, 0] if own_rate == rate else soxr.resample(samples[:, 0], own_rate, rate)
    if not response.any():
        raise DataError(f"impulse response {path}: its first channel is silent; remove the file")
    direct = int(np.abs(response).argmax())
    return np.ascontiguousarray(response[direct : direct + round(MOST_SECONDS * rate)])
