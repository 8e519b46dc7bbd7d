"""Transform that encodes and decodes a clip by a lossy codec, in memory, through libsndfile."""

import io
from typing import Any, NamedTuple

import numpy as np
import soundfile
import soxr

from whisper_ft.config.transform_values import TELEPHONE_CODECS, Codec, CodecName
from whisper_ft.config.waveform import CodecConfig
from whisper_ft.data.audio.containers import Waveform
from whisper_ft.data.augment.waveform.tempo import fitted
from whisper_ft.data.augment.waveform.transform_draws import TransformDraws
from whisper_ft.data.augment.waveform.waveform_transform import Parameters, Surroundings, Transformed

TELEPHONE_RATE = 8_000
"""Samples per second of a telephone line."""
MP3_DELAY = 1105
"""Samples by which LAME and its decoder delay a sound. A header tells the decoder to skip them, but at low bit rates
the header does not fit into a frame."""
BLOCK = 16_384
"""Samples that are written at once: some encoders put a whole block on the stack."""
VORBIS_KBPS, VORBIS_QUALITIES = (32.0, 43.0, 56.0, 86.0), (0.0, 0.4, 0.7, 1.0)
"""Bit rates in kbit/s of noise at 16 kHz at qualities of Vorbis, which has no fixed rate. Speech takes less."""


class Container(NamedTuple):
    """Format and subtype of libsndfile."""

    format: str
    subtype: str


CONTAINERS: dict[CodecName, Container] = {
    "gsm": Container("WAV", "GSM610"),
    "ulaw": Container("WAV", "ULAW"),
    "alaw": Container("WAV", "ALAW"),
    "mp3": Container("MP3", "MPEG_LAYER_III"),
    "opus": Container("OGG", "OPUS"),
    "vorbis": Container("OGG", "VORBIS"),
}


class LossyCodec:
    """Codec that is drawn from a list, with its bit rate."""

    def __init__(self, settings: CodecConfig) -> None:
        self._settings = settings

    def __call__(self, waveform: Waveform, draws: TransformDraws, around: Surroundings) -> Transformed:
        """Return the waveform as the codec leaves it, with the same length and no delay."""
        codec = draws.one_of(self._settings.of)
        kbps = None if codec.kbps is None else draws.between(codec.kbps)
        drawn: Parameters = {"of": codec.name}
        if kbps is not None:
            drawn["kbps"] = kbps
        return Transformed(coded(waveform, around.rate, codec, kbps), drawn)


def coded(waveform: Waveform, rate: int, codec: Codec, kbps: float | None) -> Waveform:  # [n] -> [n]
    """Return a waveform after a codec. Samples beyond full scale are cut off, because codecs have none."""
    own_rate = TELEPHONE_RATE if codec.name in TELEPHONE_CODECS else rate
    samples = (waveform if own_rate == rate else soxr.resample(waveform, rate, own_rate)).clip(-1.0, 1.0)
    decoded, decoded_rate = _through(samples, own_rate, codec.name, kbps)
    if codec.name == "mp3" and len(decoded) >= len(samples) + MP3_DELAY:
        decoded = decoded[MP3_DELAY:]
    back = decoded if decoded_rate == rate else soxr.resample(decoded, decoded_rate, rate)
    return fitted(back, len(waveform))


def _through(samples: Waveform, rate: int, name: CodecName, kbps: float | None) -> tuple[Waveform, int]:
    """Return the decoded samples of the encoded ones, and their rate."""
    encoded, container = io.BytesIO(), CONTAINERS[name]
    options: dict[str, Any] = {} if kbps is None else {"compression_level": _compression(name, kbps)}
    options |= {"bitrate_mode": "CONSTANT"} if name == "mp3" else {}
    with soundfile.SoundFile(
        encoded, "w", rate, 1, format=container.format, subtype=container.subtype, **options
    ) as file:
        for begin in range(0, len(samples), BLOCK):
            file.write(samples[begin : begin + BLOCK])
    encoded.seek(0)
    decoded, decoded_rate = soundfile.read(encoded, dtype="float32")
    return decoded, int(decoded_rate)


def _compression(name: CodecName, kbps: float) -> float:
    """Return libsndfile's compression level, from 0 to below 1, for a bit rate at 16 kHz.

    Of MP3 it goes from 160 to 8 kbit/s, of Opus from 256 to 6. Level 1 itself is refused by the MP3 encoder.
    """
    if name == "vorbis":
        level = 1.0 - float(np.interp(kbps, VORBIS_KBPS, VORBIS_QUALITIES))
    else:
        low, high = (8.0, 160.0) if name == "mp3" else (6.0, 256.0)
        level = (high - kbps) / (high - low)
    return min(max(level, 0.0), 0.999)
