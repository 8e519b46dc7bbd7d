"""Opening of audio files by libsndfile, or by PyAV for the formats that libsndfile cannot read."""

import importlib
import io
from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from whisper_ft.data.audio.magic import ffmpeg_format
from whisper_ft.data.audio.wav import completed
from whisper_ft.data.types import RejectedError

Waveform = npt.NDArray[np.float32]
MAX_STATED_SECONDS = 86_400.0
"""Longest duration that a header may state, in seconds; the header of a stream may state 2^63 - 1 samples."""
MISSING_SECONDS = 0.1
"""Seconds by which m4a and webm may be shorter than stated, because their lengths include the encoder's padding."""
UNKNOWN_FRAMES = 2**62
"""libsndfile gives at least so many frames for a FLAC whose header leaves its length out (0 samples)."""
STATED_FORMATS = ("mov", "matroska")
"""ffmpeg's formats whose headers state a length. For others ffmpeg estimates it from the bit rate."""


def open_audio(encoded: bytes) -> "SndFile | ContainerFile":
    """Open a clip by libsndfile, or by PyAV if it is in a format of `ffmpeg_format` that libsndfile cannot open.

    Raises RejectedError (needs_pyav, decode_error) if PyAV is not installed, or finds no sound. For any other
    unreadable clip the error of libsndfile or of PyAV is raised.
    """
    encoded = completed(encoded)
    try:
        return SndFile(encoded)
    except soundfile.LibsndfileError:
        names = ffmpeg_format(encoded)
        if names is None:
            raise
        return ContainerFile(encoded, *names)


class SndFile(soundfile.SoundFile):  # type: ignore[misc]
    """Audio file decoded by libsndfile. PyAV takes over for an MP3 that libsndfile opens and then cannot read."""

    def __init__(self, encoded: bytes) -> None:
        self._encoded, self._first = encoded, 0
        super().__init__(io.BytesIO(encoded))

    def seekable(self) -> bool:
        """Return False for FLAC of unknown length: soundfile would seek to its end, where libsndfile raises."""
        return self.frames < UNKNOWN_FRAMES and bool(super().seekable())

    def seek(self, frames: int, whence: int = io.SEEK_SET) -> int:
        """Set the frame to read from. Raises RejectedError(segment_outside) if FLAC of unknown length ends before."""
        if whence == io.SEEK_SET:  # soundfile's own `tell` seeks by 0 from where the file is
            self._first = frames
        try:
            return int(super().seek(frames, whence))
        except soundfile.LibsndfileError as error:
            if self.frames < UNKNOWN_FRAMES:
                raise
            second = f"{frames / self.samplerate:g} s"
            raise RejectedError("segment_outside", f"{second} is not in the recording, which ends before") from error

    def read(self, frames: int, dtype: str, always_2d: bool) -> Waveform:  # -> [frames, channels]
        """Read samples [frames, channels]. There are fewer only at the end of the file.

        If PyAV takes over, the channels are averaged to one. Raises RejectedError as `ContainerFile` does in that case.
        """
        try:
            samples: Waveform = super().read(frames=frames, dtype=dtype, always_2d=always_2d)
            return samples
        except soundfile.LibsndfileError:
            if self.format != "MP3":
                raise
        with ContainerFile(self._encoded, "mp3", "mp3") as file:
            file.seek(self._first)
            return file.read(frames, dtype, always_2d)


def _av() -> Any:
    """Return the module av; None if PyAV is not installed or cannot be loaded."""
    try:
        return importlib.import_module("av")
    except (ImportError, OSError):
        return None


class ContainerFile:
    """Audio file decoded by PyAV, with the methods of soundfile.SoundFile; its channels are averaged to one.

    Opening it reads the header and decodes the first frame. Frames are decoded in one thread, in order, so a segment
    has exactly the samples that the whole file has there.

    Parameters
        kind: name of the format for messages, such as `m4a`
        form: ffmpeg's name of the format, such as `mov`

    Raises RejectedError (needs_pyav, decode_error) if PyAV is not installed, or if no sound is found.
    """

    channels: int

    def __init__(self, encoded: bytes, kind: str, form: str) -> None:
        av = _av()
        if av is None:
            how = "pip install 'whisper-ft[av]', or pip install av"
            raise RejectedError(
                "needs_pyav", f"{kind}: needs PyAV ({how}), or convert it with ffmpeg -i FILE FILE.flac"
            )
        self._skips_damage = form == "mp3"  # as ffmpeg does; libsndfile does the same for MP3 that it can read
        self._invalid: type[Exception] = av.error.InvalidDataError
        self._container = av.open(io.BytesIO(encoded), format=form, metadata_errors="ignore")
        try:
            self._read_header(kind, form)
        except BaseException:
            self._container.close()
            raise

    def _read_header(self, kind: str, form: str) -> None:
        stream = self._container.streams.best("audio")
        if stream is None:
            raise RejectedError("decode_error", f"{kind}: holds no sound that can be found")
        stream.codec_context.thread_count = 1
        stream.codec_context.thread_type = "NONE"
        decoded = self._decoded(stream)
        first = next(decoded, None)
        if first is None:
            raise RejectedError("decode_error", f"{kind}: holds no sound that can be decoded")
        # The frame has the true rate. The header of HE-AAC may state half of it.
        self.samplerate, self.channels = first.sample_rate, first.layout.nb_channels
        seconds = None
        if form in STATED_FORMATS and stream.duration:
            seconds = float(stream.duration * stream.time_base)
        elif form in STATED_FORMATS and self._container.duration and len(self._container.streams) == 1:
            seconds = self._container.duration / 1e6  # in microseconds; of the longest stream if there are several
        self.is_stated = seconds is not None
        self.frames = round((MAX_STATED_SECONDS if seconds is None else seconds) * self.samplerate)
        self._first, self._samples = 0, map(self._mono, chain([first], decoded))

    def __enter__(self) -> "ContainerFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def seek(self, first: int) -> None:
        """Set the frame from which `read` reads.

        All frames before it are decoded all the same, which takes 1 to 5 s for an hour of audio.
        """
        self._first = first

    def read(self, frames: int, dtype: str, always_2d: bool) -> Waveform:  # -> [frames, 1]
        """Read float32 samples [frames, 1] from the frame of `seek` on, once.

        There are fewer only at the end of the file. `dtype` and `always_2d` have no effect.
        """
        position, parts, missing = 0, [np.zeros(0, np.float32)], frames
        for samples in self._samples:
            begin = max(self._first - position, 0)
            part = samples[begin : begin + missing]
            position += len(samples)
            parts.append(part)
            missing -= len(part)
            if missing <= 0:
                break
        return np.concatenate(parts)[:, None]

    def _decoded(self, stream: Any) -> Iterator[Any]:
        """Yield the decoded frames of the stream. A damaged packet raises an error, or is left out for MP3."""
        for packet in self._container.demux(stream):
            try:
                yield from packet.decode()
            except self._invalid:
                if not self._skips_damage:
                    raise

    def _mono(self, frame: Any) -> Waveform:  # -> [samples]
        if frame.sample_rate != self.samplerate:
            raise RejectedError("decode_error", f"{self.samplerate}, then {frame.sample_rate} samples per second")
        samples, form = frame.to_ndarray(), frame.format  # [channels, n], or [1, n * channels] if they alternate
        if form.is_packed:
            samples = samples.reshape(-1, frame.layout.nb_channels).T
        if samples.dtype.kind == "u":
            samples = samples.astype(np.int16) - 128
        scale = 1.0 if samples.dtype.kind == "f" else 2.0 ** (8 * form.bytes - 1)
        mono: Waveform = (samples.mean(axis=0, dtype=np.float64) / scale).astype(np.float32)
        return mono
