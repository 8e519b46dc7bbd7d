"""Audio files opened by libsndfile, or by torchcodec for m4a, aac and webm."""

import importlib
import importlib.util
import io
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from whisper_ft.data.types import RejectedError

Waveform = npt.NDArray[np.float32]
MAX_STATED_SECONDS = 86_400.0  # of what a header says no more is believed; a stream may say 2^63 - 1 samples
MISSING_SECONDS = 0.1  # of m4a and webm: their lengths count what encoders put before and after
ADTS = (
    b"\xff\xf0",
    b"\xff\xf1",
    b"\xff\xf8",
    b"\xff\xf9",
)  # bare AAC: 12 bits set, and two of 0 where MP3 has its layer


def open_audio(encoded: bytes) -> Any:
    """The clip as libsndfile opens it, or as torchcodec does where it cannot."""
    try:
        return soundfile.SoundFile(io.BytesIO(encoded))
    except soundfile.LibsndfileError:
        kind = _container(encoded)
        if kind is None:
            raise
        return ContainerFile(encoded, kind)


def _container(encoded: bytes) -> str | None:
    """What a file is that ffmpeg can read and libsndfile cannot; None for all else.

    Nothing else is given to ffmpeg, which takes a text for a playlist and opens the addresses in it.
    """
    if encoded[4:8] == b"ftyp":
        return "m4a"
    if encoded[:4] == b"\x1aE\xdf\xa3":  # of EBML
        return "webm"
    at = 0
    if encoded[:3] == b"ID3" and len(encoded) >= 10:  # a tag, its size 4 times 7 bits
        at = 10 + sum(byte << 7 * (3 - place) for place, byte in enumerate(encoded[6:10]))
    return "aac" if encoded[at : at + 2] in ADTS else None


@cache
def _audio_decoder() -> Any:
    """The class torchcodec.decoders.AudioDecoder, or in a few words why there is none."""
    if importlib.util.find_spec("torchcodec") is None:
        return "needs torchcodec (pip install torchcodec)"
    try:
        return importlib.import_module("torchcodec.decoders").AudioDecoder
    except (ImportError, OSError, RuntimeError):
        return "torchcodec finds no ffmpeg, or was built for another torch (python -c 'import torchcodec' says which)"


class ContainerFile:
    """A file that torchcodec decodes, in the manner of soundfile.SoundFile. Opening it reads the header only."""

    def __init__(self, encoded: bytes, kind: str) -> None:
        opened = _audio_decoder()
        if isinstance(opened, str):
            raise RejectedError("needs_torchcodec", f"{kind}: {opened}, or convert it with ffmpeg -i FILE FILE.flac")
        try:
            self._decoder = opened(encoded)
        except ValueError as error:  # "should never happen", says torchcodec of a video without sound
            raise RejectedError("decode_error", f"{kind}: holds no sound that can be found") from error
        header = self._decoder.metadata
        self.samplerate, self.channels = int(header.sample_rate or 0), int(header.num_channels or 0)
        seconds = header.duration_seconds
        self.is_stated = kind != "aac" and seconds is not None
        self.frames = round((seconds if self.is_stated else MAX_STATED_SECONDS) * self.samplerate)
        self._first = 0

    def __enter__(self) -> "ContainerFile":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def seek(self, first: int) -> None:
        """Go to a frame. All before it is decoded all the same, by ffmpeg: 3 s per hour of webm, 0.6 s of m4a."""
        self._first = first

    def read(self, frames: int, dtype: str, always_2d: bool) -> Waveform:  # -> [frames, channels]
        """Samples from there on, fewer only at the end."""
        start = self._first / self.samplerate
        try:  # streams often begin some milliseconds after zero: read that much more
            played = self._decoder.get_samples_played_in_range(
                start, start + frames / self.samplerate + MISSING_SECONDS
            )
        except RuntimeError as error:
            if "No audio frames were decoded" not in str(error):  # there is nothing at that place
                raise
            return np.zeros((0, self.channels), np.float32)
        samples: Waveform = played.data.numpy().T[:frames]
        return samples
