"""Opening of audio files by libsndfile, or by PyAV for the formats that libsndfile cannot read."""

import importlib
import io
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from whisper_ft.data.audio.file_bytes import AudioBytes, stream_of
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


def open_audio(encoded: AudioBytes) -> "SndFile | ContainerFile":
    """Open a clip by libsndfile, or by PyAV if it is in a format of `ffmpeg_format` that libsndfile cannot open.

    Raises RejectedError (needs_pyav, decode_error) if PyAV is not installed, or finds no sound. For any other
    unreadable clip the error of libsndfile or of PyAV is raised.
    """
    stream = partial(stream_of, encoded, *(completed(encoded) or ()))
    try:
        return SndFile(stream)
    except soundfile.LibsndfileError:
        names = ffmpeg_format(encoded)
        if names is None:
            raise
        return ContainerFile(stream(), *names)


class SndFile(soundfile.SoundFile):  # type: ignore[misc]
    """Audio file decoded by libsndfile. PyAV takes over for an MP3 that libsndfile opens and then cannot read.

    `stream` opens the encoded file as a binary stream.
    """

    is_read_on = False
    """True if `read` is called several times. soundfile would seek after each call, which changes samples of an MP3."""

    def __init__(self, stream: Callable[[], Any]) -> None:
        self._stream, self._first = stream, 0
        self._successor: ContainerFile | None = None
        super().__init__(stream())

    def seekable(self) -> bool:
        """Return False for FLAC of unknown length: soundfile would seek to its end, where libsndfile raises."""
        return not self.is_read_on and self.frames < UNKNOWN_FRAMES and bool(super().seekable())

    def close(self) -> None:
        """Close the file."""
        if self._successor is not None:
            self._successor.close()
        super().close()

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
        if self._successor is None:
            first = self._first
            try:
                samples: Waveform = super().read(frames=frames, dtype=dtype, always_2d=always_2d)
                self._first = first + len(samples)
                return samples
            except soundfile.LibsndfileError:
                if self.format != "MP3":
                    raise
            self._successor = ContainerFile(self._stream(), "mp3", "mp3")
            self._successor.seek(first)
        return self._successor.read(frames, dtype, always_2d)


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
        stream: binary stream of the encoded file
        kind: name of the format for messages, such as `m4a`
        form: ffmpeg's name of the format, such as `mov`

    Raises RejectedError (needs_pyav, decode_error) if PyAV is not installed, or if no sound is found.
    """

    channels: int
    is_read_on = False
    """Without effect, because several calls of `read` follow each other in any case."""

    def __init__(self, stream: Any, kind: str, form: str) -> None:
        av = _av()
        if av is None:
            raise RejectedError(
                "needs_pyav", f"{kind}: needs PyAV (pip install av), or convert it with ffmpeg -i FILE FILE.flac"
            )
        self._skips_damage = form == "mp3"  # as ffmpeg does; libsndfile does the same for MP3 that it can read
        self._invalid: type[Exception] = av.error.InvalidDataError
        self._container = av.open(stream, format=form, metadata_errors="ignore")
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
        self._samples = map(self._mono, chain([first], decoded))
        self._skipped, self._rest = 0, np.zeros(0, np.float32)  # frames to leave out; samples decoded and not read

    def __enter__(self) -> "ContainerFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def seek(self, first: int) -> None:
        """Set the frame from which the first `read` reads.

        All frames before it are decoded all the same, which takes 1 to 5 s for an hour of audio.
        """
        self._skipped = first

    def read(self, frames: int, dtype: str, always_2d: bool) -> Waveform:  # -> [frames, 1]
        """Read the next float32 samples [frames, 1]. There are fewer only at the end of the file.

        `dtype` and `always_2d` have no effect.
        """
        parts, missing = [np.zeros(0, np.float32)], frames
        while missing > 0:
            if not len(self._rest):
                decoded = next(self._samples, None)
                if decoded is None:
                    break
                self._rest = decoded[self._skipped :]
                self._skipped -= len(decoded) - len(self._rest)
            parts.append(self._rest[:missing])
            self._rest = self._rest[missing:]
            missing -= len(parts[-1])
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
