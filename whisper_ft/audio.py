"""Audio bytes to a waveform, and a waveform to the log-mel that Whisper was trained on.

Decoding by libsndfile (wav, flac, ogg, opus, mp3) from bytes, without ffmpeg; what libsndfile cannot read of m4a, aac
and webm by torchcodec where that is installed.
"""

import importlib
import importlib.util
import io
import math
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile
import soxr
import torch

from whisper_ft.window import UnusableError

Waveform = npt.NDArray[np.float32]

MAX_CHANNELS = 16  # a header may claim 65,535; no speech corpus has more
MIN_RATE, MAX_RATE = 1_000, 384_000  # Hz; a header may claim 1 or 2,147,483,647
MAX_PEAK = 1e15  # full scale is 1.0; from about 1e17 on the power spectrum overflows float32
MIN_FRAMES = 64
SEGMENT_SLACK = 0.5  # seconds that a segment may reach over the end of its recording: manifests round
MIN_SECONDS = 0.1  # shorter than any word: a click or an empty file
MAX_STATED_SECONDS = 86_400.0  # of what a header says no more is believed; a stream may say 2^63 - 1 samples
STREAMED_BYTES = 0x7FFF0000  # sox, arecord and ffmpeg write about 2^31 or 2^32 - 1 where they cannot seek back
MISSING_SECONDS = 0.1  # of m4a and webm: their lengths count what encoders put before and after
ADTS = (
    b"\xff\xf0",
    b"\xff\xf1",
    b"\xff\xf8",
    b"\xff\xf9",
)  # bare AAC: 12 bits set, and two of 0 where MP3 has its layer
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
            raise UnusableError("too_long", f"{clip.seconds:.2f} s, the window has {max_seconds:g} s")
        samples, rate = _samples(clip, max_seconds), clip.file.samplerate
        if not clip.is_stated and len(samples) > max_seconds * rate:
            raise UnusableError("too_long", f"over the {max_seconds:g} s that the window has")
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
class _Clip:
    """An open clip, or a segment of it, and the length that its header gives."""

    file: Any  # soundfile.SoundFile, or a _Container
    first: int  # frame
    frames: int
    is_exact: bool  # a compressed stream without an index has its length estimated
    is_stated: bool = True  # a recording of a browser has no length, and that of bare AAC is a guess
    missing: int = 0  # frames that may be fewer than stated

    @property
    def seconds(self) -> float:
        return self.frames / int(self.file.samplerate)


@contextmanager
def _opened(encoded: bytes, offset: float, duration: float | None) -> Iterator[_Clip]:
    """A clip whose header is sane; whatever reading it raises becomes an UnusableError."""
    if not encoded:
        raise UnusableError("decode_error", "the row holds no bytes of audio")
    try:
        with _file(encoded) as file:
            if isinstance(file, _Container):
                missing = round(MISSING_SECONDS * file.samplerate)
                clip = _Clip(file, 0, file.frames, file.is_stated, file.is_stated, missing)
            else:
                frames = max(file.frames, _wav_frames(encoded, file.frames))
                clip = _Clip(file, 0, frames, is_exact=file.format in ("WAV", "WAVEX", "FLAC"))
            _check_header(clip)
            yield _segment(clip, offset, duration)
    except (UnusableError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - a stranger's bytes: no list of what libraries make of them is whole
        raise UnusableError("decode_error", _told(error)) from None


def _file(encoded: bytes) -> Any:
    """The clip as libsndfile opens it, or as torchcodec does where it cannot."""
    try:
        return soundfile.SoundFile(io.BytesIO(encoded))
    except soundfile.LibsndfileError:
        kind = _container(encoded)
        if kind is None:
            raise
        return _Container(encoded, kind)


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


class _Container:
    """A file that torchcodec decodes, in the manner of soundfile.SoundFile. Opening it reads the header only."""

    def __init__(self, encoded: bytes, kind: str) -> None:
        opened = _audio_decoder()
        if isinstance(opened, str):
            raise UnusableError("needs_torchcodec", f"{kind}: {opened}, or convert it with ffmpeg -i FILE FILE.flac")
        try:
            self._decoder = opened(encoded)
        except ValueError as error:  # "should never happen", says torchcodec of a video without sound
            raise UnusableError("decode_error", f"{kind}: holds no sound that can be found") from error
        header = self._decoder.metadata
        self.samplerate, self.channels = int(header.sample_rate or 0), int(header.num_channels or 0)
        seconds = header.duration_seconds
        self.is_stated = kind != "aac" and seconds is not None
        self.frames = round((seconds if self.is_stated else MAX_STATED_SECONDS) * self.samplerate)
        self._first = 0

    def __enter__(self) -> "_Container":
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


def _check_header(clip: _Clip) -> None:
    rate, channels = clip.file.samplerate, clip.file.channels
    if channels > MAX_CHANNELS:
        raise UnusableError("decode_error", f"{channels} channels")
    if not MIN_RATE <= rate <= MAX_RATE:
        raise UnusableError("decode_error", f"{rate} samples per second")
    if clip.seconds < MIN_SECONDS:
        raise UnusableError("too_short", f"{clip.seconds:.3f} s, the least is {MIN_SECONDS} s")


def _segment(clip: _Clip, offset: float, duration: float | None) -> _Clip:
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
        raise UnusableError("segment_outside", f"{segment} is not in a recording of {clip.seconds:.2f} s")
    clip.file.seek(first)
    return replace(clip, first=first, frames=frames)


def _samples(clip: _Clip, max_seconds: float) -> Waveform:  # -> [frames, channels]
    """The clip from its beginning; UnusableError when it ends before it should."""
    rate = clip.file.samplerate
    most = math.ceil((max_seconds + (0.0 if clip.is_stated else BEYOND_SECONDS)) * rate)
    readable = min(clip.file.frames - clip.first, clip.frames, most)
    samples: Waveform = clip.file.read(frames=readable, dtype="float32", always_2d=True)
    believed = clip.is_exact and clip.seconds <= MAX_STATED_SECONDS
    if believed and len(samples) < min(clip.frames, most) - clip.missing:
        raise UnusableError("truncated", f"{len(samples)} samples of the {clip.frames} that the header says")
    if not clip.is_stated:
        is_segment = clip.first > 0 or clip.frames < clip.file.frames
        wanted = min(clip.frames, most) - SEGMENT_SLACK * rate if clip.frames < clip.file.frames - clip.first else 0
        if len(samples) < max(MIN_SECONDS * rate, wanted):
            found = f"{len(samples) / rate:.2f} s from {clip.first / rate:g} s on"
            raise UnusableError("segment_outside" if is_segment else "too_short", f"the recording has {found}")
    return samples


def _mono(samples: Waveform, rate: int, sample_rate: int) -> Waveform:  # [frames, channels] -> [samples]
    mono = samples.mean(axis=1) if samples.shape[1] > 1 else samples[:, 0]
    if not np.abs(mono).max(initial=0.0) < MAX_PEAK:  # NaN is not less either
        raise UnusableError("non_finite_audio", "the decoded samples contain NaN, infinity or absurd values")
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


class LogMel:
    """Whisper's log-mel, computed over the real audio only and equal to the extractor's to the last bit.

    Most of a 30 s window around a 3 s clip is padding, and every frame that sees only zeros has the same value. The
    order of operations is that of transformers' extractor (`_torch_extract_fbank_features`), so the bits are too; a
    test compares them. 7 times faster than the extractor for clips of 2.5 s.
    """

    def __init__(self, extractor: Any) -> None:
        self.sample_rate: int = extractor.sampling_rate
        self.window_samples: int = extractor.n_samples
        self.frames: int = extractor.nb_max_frames
        self.bins: int = extractor.feature_size
        self._n_fft: int = extractor.n_fft
        self._hop: int = extractor.hop_length
        self._hann = torch.hann_window(self._n_fft)
        self._filters = torch.from_numpy(extractor.mel_filters).to(torch.float32)  # [frequencies, M]

    @property
    def window_seconds(self) -> float:
        """Length of the model's input."""
        return self.window_samples / self.sample_rate

    def __call__(self, waveform: Waveform) -> torch.Tensor:  # [samples] -> [M, t]
        """Log-mel of one window: the clip, and one frame of the silence after it, which stands for all (`whole`).

        A clip longer than the window is cut at its end.
        """
        samples = min(len(waveform), self.window_samples)
        # Frame t sees samples around t * hop; past this many frames it sees zeros only.
        heard = min(self.frames, -(-(samples + self._n_fft // 2) // self._hop))
        # And never few frames: BLAS multiplies a narrow matrix in another order, which changes the last bit.
        computed = min(max(heard, MIN_FRAMES), self.frames)
        edge = self._n_fft // 2  # what stft adds with center=True, here at once with the silence
        length = self.window_samples if computed == self.frames else computed * self._hop
        padded = np.zeros(edge + length + edge, dtype=np.float32)
        padded[edge : edge + samples] = waveform[:samples]
        padded[:edge] = padded[2 * edge : edge : -1]  # reflected
        if computed == self.frames:  # else the reflection at the end is of silence
            padded[-edge:] = padded[-edge - 2 : -2 * edge - 2 : -1]
        stft = torch.stft(
            torch.from_numpy(padded), self._n_fft, self._hop, window=self._hann, center=False, return_complex=True
        )
        power = (stft[..., :-1].abs() ** 2).contiguous()
        mel = self._filters.T @ power
        log_mel = torch.clamp(mel, min=1e-10).log10()
        loudest = log_mel.max()
        features = torch.empty(self.bins, min(heard + 1, self.frames))
        features[:, :heard] = (torch.maximum(log_mel[:, :heard], loudest - 8.0) + 4.0) / 4.0
        features[:, heard:] = (torch.maximum(torch.tensor(-10.0), loudest - 8.0) + 4.0) / 4.0
        return features
