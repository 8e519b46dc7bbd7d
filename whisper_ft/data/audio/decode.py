"""Audio bytes to a waveform, and a waveform to the log-mel that Whisper was trained on.

Decoding by libsndfile (wav, flac, ogg, opus, mp3) from bytes, without ffmpeg; what libsndfile cannot read of m4a, aac
and webm by torchcodec where that is installed.
"""

import math
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import soxr

from whisper_ft.data.audio.containers import MAX_STATED_SECONDS, MISSING_SECONDS, ContainerFile, Waveform, open_audio
from whisper_ft.data.types import RejectedError

MAX_CHANNELS = 16  # a header may claim 65,535; no speech corpus has more
MIN_RATE, MAX_RATE = 1_000, 384_000  # Hz; a header may claim 1 or 2,147,483,647
MAX_PEAK = 1e15  # full scale is 1.0; from about 1e17 on the power spectrum overflows float32
MIN_FRAMES = 64
SEGMENT_SLACK = 0.5  # seconds that a segment may reach over the end of its recording: manifests round
MIN_SECONDS = 0.1  # shorter than any word: a click or an empty file
STREAMED_BYTES = 0x7FFF0000  # sox, arecord and ffmpeg write about 2^31 or 2^32 - 1 where they cannot seek back
BEYOND_SECONDS = 0.1  # read past the window where no header says how long a clip is


def decode(
    encoded: bytes, sample_rate: int, max_seconds: float, offset: float = 0.0, duration: float | None = None
) -> Waveform:  # -> [samples] at sample_rate
    """Mono waveform of an encoded clip: channels averaged, resampled by soxr at its high quality.

    `offset` and `duration` in seconds are a segment of a longer recording, which alone is read.

    The header is checked first and the read is bounded, because a header may lie: 2 MB of FLAC can hold 11 hours, and
    a patched one asks for terabytes. UnusableError: decode_error, truncated, too_short, too_long, non_finite_audio,
    segment_outside, needs_torchcodec.
    """
    with _opened(encoded, offset, duration) as clip:
        if clip.is_stated and clip.seconds > max_seconds:
            raise RejectedError("too_long", f"{clip.seconds:.2f} s, the window has {max_seconds:g} s")
        samples, rate = _samples(clip, max_seconds), clip.file.samplerate
        if not clip.is_stated and len(samples) > max_seconds * rate:
            raise RejectedError("too_long", f"over the {max_seconds:g} s that the window has")
        return _mono(samples, rate, sample_rate)


def decode_beginning(
    encoded: bytes, sample_rate: int, max_seconds: float, offset: float = 0.0, duration: float | None = None
) -> tuple[Waveform, float]:  # -> [samples] at sample_rate, seconds
    """The first `max_seconds` of a clip or segment, and the seconds that all of it has as far as its header says.

    Reads no more than that, however long the clip is; where no header says, the seconds are those that were read.
    UnusableError as in `decode`, but never too_long.
    """
    with _opened(encoded, offset, duration) as clip:
        samples, rate = _samples(clip, max_seconds), clip.file.samplerate
        most = math.ceil(max_seconds * rate)
        ended = len(samples) < most or not clip.is_stated
        seconds = len(samples) / rate if ended else min(clip.seconds, MAX_STATED_SECONDS)
        return _mono(samples[:most], rate, sample_rate), seconds


@dataclass(frozen=True)
class SoundFile:
    """An open clip, or a segment of it, and the length that its header gives."""

    file: Any  # soundfile.SoundFile, or a _Container
    first: int  # frame
    frames: int
    is_exact: bool  # a compressed stream without an index has its length estimated
    is_stated: bool = True  # a recording of a browser has no length, and that of bare AAC is a guess
    missing: int = 0  # frames that may be fewer than stated

    @property
    def seconds(self) -> float:
        """Length of the clip or segment."""
        return self.frames / int(self.file.samplerate)


@contextmanager
def _opened(encoded: bytes, offset: float, duration: float | None) -> Iterator[SoundFile]:
    """A clip whose header is sane; whatever reading it raises becomes an UnusableError."""
    if not encoded:
        raise RejectedError("decode_error", "the row holds no bytes of audio")
    try:
        with open_audio(encoded) as file:
            if isinstance(file, ContainerFile):
                missing = round(MISSING_SECONDS * file.samplerate)
                clip = SoundFile(file, 0, file.frames, file.is_stated, file.is_stated, missing)
            else:
                frames = max(file.frames, _wav_frames(encoded, file.frames))
                clip = SoundFile(file, 0, frames, is_exact=file.format in ("WAV", "WAVEX", "FLAC"))
            _check_header(clip)
            yield _segment(clip, offset, duration)
    except (RejectedError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - a stranger's bytes: no list of what libraries make of them is whole
        raise RejectedError("decode_error", _told(error)) from None


def _check_header(clip: SoundFile) -> None:
    rate, channels = clip.file.samplerate, clip.file.channels
    if channels > MAX_CHANNELS:
        raise RejectedError("decode_error", f"{channels} channels")
    if not MIN_RATE <= rate <= MAX_RATE:
        raise RejectedError("decode_error", f"{rate} samples per second")
    if clip.seconds < MIN_SECONDS:
        raise RejectedError("too_short", f"{clip.seconds:.3f} s, the least is {MIN_SECONDS} s")


def _segment(clip: SoundFile, offset: float, duration: float | None) -> SoundFile:
    """The part of a clip that an utterance is in."""
    if offset == 0.0 and duration is None:
        return clip
    rate = clip.file.samplerate
    first = round(offset * rate) if 0 <= offset < MAX_STATED_SECONDS else clip.frames
    frames = clip.frames - first
    if duration is not None:
        stated = round(min(max(duration, 0.0), MAX_STATED_SECONDS) * rate)
        if stated - frames > SEGMENT_SLACK * rate:
            frames = 0
        frames = min(frames, stated)
    if frames < MIN_SECONDS * rate:
        segment = f"{offset:g} s" if duration is None else f"{offset:g} to {offset + duration:g} s"
        raise RejectedError("segment_outside", f"{segment} is not in a recording of {clip.seconds:.2f} s")
    clip.file.seek(first)
    return replace(clip, first=first, frames=frames)


def _samples(clip: SoundFile, max_seconds: float) -> Waveform:  # -> [frames, channels]
    """The clip from its beginning; UnusableError when it ends before it should."""
    rate = clip.file.samplerate
    most = math.ceil((max_seconds + (0.0 if clip.is_stated else BEYOND_SECONDS)) * rate)
    readable = min(clip.file.frames - clip.first, clip.frames, most)
    samples: Waveform = clip.file.read(frames=readable, dtype="float32", always_2d=True)
    believed = clip.is_exact and clip.seconds <= MAX_STATED_SECONDS
    if believed and len(samples) < min(clip.frames, most) - clip.missing:
        raise RejectedError("truncated", f"{len(samples)} samples of the {clip.frames} that the header says")
    if not clip.is_stated:
        is_segment = clip.first > 0 or clip.frames < clip.file.frames
        wanted = min(clip.frames, most) - SEGMENT_SLACK * rate if clip.frames < clip.file.frames - clip.first else 0
        if len(samples) < max(MIN_SECONDS * rate, wanted):
            found = f"{len(samples) / rate:.2f} s from {clip.first / rate:g} s on"
            raise RejectedError("segment_outside" if is_segment else "too_short", f"the recording has {found}")
    return samples


def _mono(samples: Waveform, rate: int, sample_rate: int) -> Waveform:  # [frames, channels] -> [samples]
    mono = samples.mean(axis=1) if samples.shape[1] > 1 else samples[:, 0]
    if not np.abs(mono).max(initial=0.0) < MAX_PEAK:  # NaN is not less either
        raise RejectedError("non_finite_audio", "the decoded samples contain NaN, infinity or absurd values")
    if rate != sample_rate:
        mono = soxr.resample(mono, rate, sample_rate)
    return np.ascontiguousarray(mono, dtype=np.float32)


def _wav_frames(encoded: bytes, frames_read: int) -> int:
    """Frames that the `data` chunk of a WAV says it has, or 0: libsndfile reads what is left of a cut one silently.

    Not the size of the RIFF chunk, which many recorders write a little too large.
    """
    if encoded[:4] != b"RIFF":
        return 0
    at, block = 12, 1  # a block is a frame, but many in ADPCM and the like
    while at + 8 <= len(encoded):
        name, size = struct.unpack_from("<4sI", encoded, at)
        at += 8
        if name == b"fmt ":
            block = max(int.from_bytes(encoded[at + 12 : at + 14], "little"), 1)
        if name == b"data":
            stated, here = size // block, (len(encoded) - at) // block
            is_cut = stated > here and size < STREAMED_BYTES
            return (frames_read * stated // here if here else stated) if is_cut else 0
        at += size + size % 2
    return 0


def _told(error: Exception) -> str:
    """What went wrong in one line, the same in every run: soundfile names the address of the object it read from."""
    text = re.sub(r"<\S+ object at 0x[0-9A-Fa-f]+>", "the clip", str(error))
    text = re.sub(r"^\w+, \S+\.cpp:\d+, ", "", text)  # where in torchcodec
    return " ".join(text.split()) or type(error).__name__
