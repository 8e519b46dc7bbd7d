"""Decoding of audio bytes to a mono waveform at the model's sample rate.

libsndfile decodes wav, flac, ogg, opus and mp3 from bytes. PyAV, if installed, decodes mp4, m4a, aac, webm and mkv.
"""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import soxr

from whisper_ft.data.audio.containers import (
    MAX_STATED_SECONDS,
    MISSING_SECONDS,
    UNKNOWN_FRAMES,
    ContainerFile,
    SndFile,
    Waveform,
    open_audio,
)
from whisper_ft.data.audio.file_bytes import AudioBytes
from whisper_ft.data.audio.wav import frames_stated
from whisper_ft.data.types import RejectedError
from whisper_ft.runtime.c_stderr import silent_c_stderr

MAX_CHANNELS = 16
"""Most channels of a clip. A header may claim 65,535, but no speech corpus has more than 16."""
MIN_RATE, MAX_RATE = 1_000, 384_000
"""Lowest and highest sample rate that are accepted, in Hz; a header may claim 1 or 2,147,483,647."""
MAX_NORMALISED = 32.0
"""Largest peak of samples whose full scale is 1.0: 30 dB over it. Integers written as floats have hundreds or more."""
MAX_PEAK = 1e15
"""Limit for samples, whose full scale is 1.0. From about 1e17 on, the power spectrum overflows float32."""
SEGMENT_SLACK = 0.5
"""Seconds by which a segment may end after its recording, because manifests round."""
MIN_SECONDS = 0.1
"""Length of the shortest clip in seconds. No word is shorter, so a shorter clip is a click or an empty file."""
BEYOND_SECONDS = 0.1
"""Seconds that are read past the window if no header states the length, so that too long a clip is noticed."""


def decode(
    encoded: AudioBytes, sample_rate: int, max_seconds: float, offset: float = 0.0, duration: float | None = None
) -> Waveform:  # -> [samples] at sample_rate
    """Decode a clip to a mono waveform: channels averaged, resampled by soxr at its high quality.

    The header is checked first and the read is bounded, because a header may lie. A FLAC of 2 MB can hold 11 hours, and
    a forged header may ask for terabytes.

    `sample_rate` is the rate of the waveform, in Hz. `max_seconds` is the greatest length of a clip or segment.
    `offset` and `duration`, in seconds, select a segment of a longer recording; only the segment is read. A segment
    that ends up to SEGMENT_SLACK seconds after its recording is cut at the recording's end.

    Raises RejectedError with one of these reason codes: decode_error, truncated, too_short, too_long, non_finite_audio,
    not_normalised, segment_outside, needs_pyav.
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
    """Decode the first `max_seconds` of a clip or segment, and return the length of the whole in seconds as well.

    The rest is not read, so the length is that of the header. A header without a length, or a clip that ends early,
    gives the length of the part that was read. Raises RejectedError as `decode` does, but never with the code too_long.
    """
    with _opened(encoded, offset, duration) as clip:
        samples, rate = _samples(clip, max_seconds), clip.file.samplerate
        most = math.ceil(max_seconds * rate)
        ended = len(samples) < most or not clip.is_stated
        seconds = len(samples) / rate if ended else min(clip.seconds, MAX_STATED_SECONDS)
        return _mono(samples[:most], rate, sample_rate), seconds


def header_seconds(encoded: bytes) -> float | None:
    """Length of a clip in seconds by its header; None if the header states none, or the clip cannot be opened.

    None as well for a clip that `decode` would refuse by its header, such as one under MIN_SECONDS.
    """
    try:
        with _opened(encoded, 0.0, None) as clip:
            return clip.seconds if clip.is_stated else None
    except RejectedError:
        return None


@dataclass(frozen=True)
class OpenClip:
    """An open clip, or an open segment of a clip, with the length that the header gives."""

    file: SndFile | ContainerFile
    first: int  # frame
    frames: int
    is_exact: bool  # False if the length is an estimate, as of a compressed stream without an index
    is_stated: bool = True  # False for recordings written to a pipe, without a length, and bare AAC, with a guessed one
    missing: int = 0  # frames by which the clip may be shorter than stated

    @property
    def seconds(self) -> float:
        """Length of the clip or segment."""
        return self.frames / int(self.file.samplerate)


@contextmanager
def _opened(encoded: AudioBytes, offset: float, duration: float | None) -> Iterator[OpenClip]:
    """Open a clip, check its header, and turn every exception in the block into a RejectedError."""
    if not encoded:
        raise RejectedError("decode_error", "the row holds no bytes of audio")
    with as_rejected(), open_audio(encoded) as file:
        yield _segment(checked_clip(file, encoded), offset, duration)


@contextmanager
def as_rejected() -> Iterator[None]:
    """Turn every exception in the block into a RejectedError, and silence the C libraries that decode."""
    try:
        with silent_c_stderr():
            yield
    except (RejectedError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - no list of exceptions is complete for a stranger's bytes
        raise RejectedError("decode_error", _message(error)) from None


def checked_clip(file: SndFile | ContainerFile, encoded: AudioBytes) -> OpenClip:
    """Read the length of an open file from its header. Raises RejectedError for a header that no speech has."""
    if isinstance(file, ContainerFile):
        missing = round(MISSING_SECONDS * file.samplerate)
        clip = OpenClip(file, 0, file.frames, file.is_stated, file.is_stated, missing)
    else:
        frames, is_stated = max(file.frames, frames_stated(encoded, file.frames)), file.frames < UNKNOWN_FRAMES
        exact = is_stated and file.format in ("WAV", "WAVEX", "FLAC")
        clip = OpenClip(file, 0, frames, is_exact=exact, is_stated=is_stated)
    _check_header(clip)
    return clip


def _check_header(clip: OpenClip) -> None:
    rate, channels = clip.file.samplerate, clip.file.channels
    if channels > MAX_CHANNELS:
        raise RejectedError("decode_error", f"{channels} channels")
    if not MIN_RATE <= rate <= MAX_RATE:
        raise RejectedError("decode_error", f"{rate} samples per second")
    if clip.seconds < MIN_SECONDS:
        raise RejectedError("too_short", f"{clip.seconds:.3f} s, the least is {MIN_SECONDS} s")


def _segment(clip: OpenClip, offset: float, duration: float | None) -> OpenClip:
    """Return a segment of a clip. Raises RejectedError if the clip does not contain the segment."""
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


def _samples(clip: OpenClip, max_seconds: float) -> Waveform:  # -> [frames, channels]
    """Read the samples of a clip from its beginning. Raises RejectedError if the clip ends too early."""
    rate = clip.file.samplerate
    most = math.ceil((max_seconds + (0.0 if clip.is_stated else BEYOND_SECONDS)) * rate)
    readable = min(clip.file.frames - clip.first, clip.frames, most)
    samples: Waveform = clip.file.read(frames=readable, dtype="float32", always_2d=True)
    believed = clip.is_exact and clip.seconds <= MAX_STATED_SECONDS
    if believed and len(samples) < min(clip.frames, most) - clip.missing:
        raise RejectedError("truncated", f"{len(samples)} samples, the header states {clip.frames}")
    if not clip.is_stated:
        is_segment = clip.first > 0 or clip.frames < clip.file.frames
        wanted = min(clip.frames, most) - SEGMENT_SLACK * rate if clip.frames < clip.file.frames - clip.first else 0
        if len(samples) < max(MIN_SECONDS * rate, wanted):
            length = f"{len(samples) / rate:.2f} s from {clip.first / rate:g} s on"
            raise RejectedError("segment_outside" if is_segment else "too_short", f"the recording has {length}")
    return samples


def _mono(samples: Waveform, rate: int, sample_rate: int) -> Waveform:  # [frames, channels] -> [samples]
    mono = downmix(samples)
    if rate != sample_rate:
        mono = soxr.resample(mono, rate, sample_rate)
    return np.ascontiguousarray(mono, dtype=np.float32)


def downmix(samples: Waveform) -> Waveform:  # [frames, channels] -> [frames]
    """Return the mean of all channels. Raises RejectedError (non_finite_audio, not_normalised) for absurd samples."""
    mono: Waveform = samples.mean(axis=1) if samples.shape[1] > 1 else samples[:, 0]
    peak = np.abs(mono).max(initial=0.0)
    if not peak < MAX_PEAK:  # NaN is never less
        raise RejectedError("non_finite_audio", "the decoded samples contain NaN, infinity or absurd values")
    if peak > MAX_NORMALISED or (peak > 1.0 and not np.any(samples % 1)):  # quiet integers are whole numbers still
        raise RejectedError(
            "not_normalised",
            f"the peak is {peak:,.0f} where full scale is 1.0; divide integers that were written as floats by their "
            "full scale, such as 32,768 for 16 bits",
        )
    return mono


def _message(error: Exception) -> str:
    """Message of an error in one line, without soundfile's memory address, so that it is equal in every run."""
    text = re.sub(r"<\S+ object at 0x[0-9A-Fa-f]+>", "the clip", str(error))
    return " ".join(text.split()) or type(error).__name__
