"""Recording, however long: it is decoded in blocks, so the memory for its samples does not depend on its length.

The samples are those of `decode`, bit for bit, because libsndfile and ffmpeg decode in order, and soxr's stream gives
the samples of its single call.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import soxr

from whisper_ft.data.audio.containers import MAX_STATED_SECONDS, ContainerFile, SndFile, Waveform, open_audio
from whisper_ft.data.audio.decode import MIN_SECONDS, OpenClip, as_rejected, checked_clip, downmix
from whisper_ft.data.audio.file_bytes import FileBytes
from whisper_ft.data.types import RejectedError
from whisper_ft.runtime.errors import one_line

BLOCK_FRAMES = 2**18
"""Frames of a block: 5.5 s at 48 kHz, 33 s at 8 kHz. With 16 channels a block takes 17 MB."""


class Recording:
    """Open recording. Its blocks can be read once; use it in a `with` statement, which closes the file.

    Parameters
        audio: file in any format that `decode` reads, or its content
        sample_rate: of the blocks, in Hz

    Raises RejectedError if the file cannot be read, or if its header is none of speech.
    """

    def __init__(self, audio: Path | bytes, sample_rate: int) -> None:
        self._sample_rate = sample_rate
        try:
            self._bytes = audio if isinstance(audio, bytes) else FileBytes(audio)
        except OSError as error:
            raise RejectedError("unreadable_file", one_line(error.strerror or error)) from error
        try:
            if not len(self._bytes):
                raise RejectedError("decode_error", "the file is empty")
            with as_rejected():
                self._file: SndFile | ContainerFile = open_audio(self._bytes)
                self._file.is_read_on = True
                self._clip: OpenClip = checked_clip(self._file, self._bytes)
        except BaseException:
            self.close()
            raise

    @property
    def seconds(self) -> float | None:
        """Length that the header states; None if it states none, or no possible one."""
        is_known = self._clip.is_stated and self._clip.seconds <= MAX_STATED_SECONDS
        return self._clip.seconds if is_known else None

    def __enter__(self) -> "Recording":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        with suppress(AttributeError):  # it could not be opened
            self._file.close()
        if isinstance(self._bytes, FileBytes):
            self._bytes.close()

    def blocks(self) -> Iterator[Waveform]:  # -> [samples] at sample_rate
        """Yield the recording as successive blocks of mono samples.

        Raises RejectedError where it cannot be read any further, or at its end if the header states more.
        """
        rate, frames = int(self._file.samplerate), 0
        resampler = None
        if rate != self._sample_rate:
            resampler = soxr.ResampleStream(rate, self._sample_rate, 1, dtype="float32", quality="HQ")
        is_last = False
        while not is_last:
            with as_rejected():
                wanted = min(BLOCK_FRAMES, self._readable - frames)
                samples: Waveform = self._file.read(frames=wanted, dtype="float32", always_2d=True)
                block = np.ascontiguousarray(downmix(samples))
            frames += len(samples)
            is_last = len(samples) < BLOCK_FRAMES
            yield block if resampler is None else resampler.resample_chunk(block, last=is_last)
        self._check_end(frames)

    @property
    def _readable(self) -> int:
        """Most frames to read; a container may hold a few more than its header states."""
        return min(self._file.frames, self._clip.frames) if self._clip.is_stated else 2**62

    def _check_end(self, frames: int) -> None:
        """Raise RejectedError if the recording ended before the length in its header, or at once."""
        if self.seconds is not None and self._clip.is_exact and frames < self._clip.frames - self._clip.missing:
            rate = int(self._file.samplerate)
            raise RejectedError(
                "truncated", f"it ends after {frames / rate:.2f} s, the header states {self.seconds:.2f} s"
            )
        if frames < MIN_SECONDS * int(self._file.samplerate):
            raise RejectedError("too_short", f"{frames} samples")


def stated_seconds(audio: Path | bytes) -> float | None:
    """Return the length that the header of a recording states; None if it states none, or no possible one.

    Raises RejectedError if the file cannot be read, or if its header is none of speech.
    """
    with Recording(audio, 16_000) as recording:  # the rate does not matter, because no sample is read
        return recording.seconds
