"""Opening of audio files by libsndfile, or by torchcodec for m4a, aac and webm."""

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
MAX_STATED_SECONDS = 86_400.0
"""Longest duration that a header may state, in seconds; the header of a stream may state 2^63 - 1 samples."""
MISSING_SECONDS = 0.1
"""Seconds by which m4a and webm may be shorter than stated, because their lengths include the encoder's padding."""
ADTS = (b"\xff\xf0", b"\xff\xf1", b"\xff\xf8", b"\xff\xf9")
"""First bytes of AAC without a container: 12 bits of 1, and two bits of 0 where MP3 has its layer."""


def open_audio(encoded: bytes) -> "soundfile.SoundFile | ContainerFile":
    """Open a clip by libsndfile, or by torchcodec if it is m4a, aac or webm.

    For any other unreadable clip the error of libsndfile is raised.
    """
    try:
        return soundfile.SoundFile(io.BytesIO(encoded))
    except soundfile.LibsndfileError:
        kind = _container(encoded)
        if kind is None:
            raise
        return ContainerFile(encoded, kind)


def _container(encoded: bytes) -> str | None:
    """Format of a file that ffmpeg can read and libsndfile cannot; None for every other file.

    Other files are never given to ffmpeg, because ffmpeg takes a text for a playlist and opens the addresses in it.
    """
    if encoded[4:8] == b"ftyp":
        return "m4a"
    if encoded[:4] == b"\x1aE\xdf\xa3":  # EBML
        return "webm"
    at = 0
    if encoded[:3] == b"ID3" and len(encoded) >= 10:  # a tag, whose size is stored in four bytes of 7 bits
        at = 10 + sum(byte << 7 * (3 - place) for place, byte in enumerate(encoded[6:10]))
    return "aac" if encoded[at : at + 2] in ADTS else None


@cache
def _audio_decoder() -> Any:
    """Return the class torchcodec.decoders.AudioDecoder, or a text that says why it is not available."""
    if importlib.util.find_spec("torchcodec") is None:
        return "needs torchcodec (pip install torchcodec)"
    try:
        return importlib.import_module("torchcodec.decoders").AudioDecoder
    except (ImportError, OSError, RuntimeError):
        return "torchcodec finds no ffmpeg, or was built for another torch (python -c 'import torchcodec' says which)"


class ContainerFile:
    """Audio file decoded by torchcodec, with the methods of soundfile.SoundFile. Opening it reads only the header."""

    def __init__(self, encoded: bytes, kind: str) -> None:
        decoder = _audio_decoder()
        if isinstance(decoder, str):
            raise RejectedError("needs_torchcodec", f"{kind}: {decoder}, or convert it with ffmpeg -i FILE FILE.flac")
        try:
            self._decoder = decoder(encoded)
        except ValueError as error:  # raised by torchcodec for a video without sound
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
        """Set the frame from which `read` reads.

        ffmpeg still decodes all frames before it, which takes 3 s per hour of webm and 0.6 s per hour of m4a.
        """
        self._first = first

    def read(self, frames: int, dtype: str, always_2d: bool) -> Waveform:  # -> [frames, channels]
        """Read samples [frames, channels] from the frame of `seek` on. There are fewer only at the end of the file."""
        start = self._first / self.samplerate
        try:  # longer, because streams often begin some milliseconds after zero
            played = self._decoder.get_samples_played_in_range(
                start, start + frames / self.samplerate + MISSING_SECONDS
            )
        except RuntimeError as error:
            if "No audio frames were decoded" not in str(error):  # raised if the range has no samples
                raise
            return np.zeros((0, self.channels), np.float32)
        samples: Waveform = played.data.numpy().T[:frames]
        return samples
