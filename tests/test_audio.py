"""Audio: what is decoded, what is refused with which code, and a log-mel that is the extractor's to the last bit."""

import io
import struct

import numpy as np
import pytest
import soundfile
import soxr
import torch
from transformers import WhisperFeatureExtractor

from whisper_ft.audio import LogMel, decode
from whisper_ft.window import UnusableError


def tone(seconds: float, rate: int, channels: int = 1, hertz: float = 220.0) -> np.ndarray:
    samples = 0.3 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)
    return samples if channels == 1 else np.stack([samples, *([np.zeros_like(samples)] * (channels - 1))], axis=1)


def encoded(samples: np.ndarray, rate: int, kind: str = "WAV", subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


def reason(audio: bytes, max_seconds: float = 5.0) -> str:
    with pytest.raises(UnusableError) as unusable:
        decode(audio, 16000, max_seconds)
    return unusable.value.reason


@pytest.mark.parametrize(
    ("kind", "subtype"), [("WAV", "PCM_16"), ("FLAC", None), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", None)]
)
def test_every_format_gives_mono_at_the_wanted_rate(kind: str, subtype: str | None):
    waveform = decode(encoded(tone(1.0, 48000), 48000, kind, subtype), 16000, 5.0)
    assert waveform.dtype == np.float32
    assert waveform.ndim == 1
    assert abs(len(waveform) - 16000) < 1600
    spectrum = np.abs(np.fft.rfft(waveform))
    assert spectrum.argmax() * 16000 / len(waveform) == pytest.approx(220, abs=3)


def test_channels_are_averaged():
    stereo = decode(encoded(tone(1.0, 16000, channels=2), 16000), 16000, 5.0)
    mono = decode(encoded(tone(1.0, 16000), 16000), 16000, 5.0)
    np.testing.assert_allclose(stereo, mono / 2, atol=1e-4)


def test_eight_kilohertz_is_resampled_by_soxr():
    clip = tone(1.0, 8000).astype(np.float32)
    np.testing.assert_array_equal(
        decode(encoded(clip, 8000, subtype="FLOAT"), 16000, 5.0), soxr.resample(clip, 8000, 16000)
    )


def test_each_way_to_be_unusable_has_its_code():
    good = encoded(tone(1.0, 16000), 16000)
    flac = encoded(tone(1.0, 16000), 16000, "FLAC")
    nan = tone(1.0, 16000).astype(np.float32)
    nan[100] = np.nan
    assert reason(b"") == "decode_error"
    assert reason(b"<html>404</html>") == "decode_error"
    assert reason(good[: len(good) // 2]) == "truncated"
    assert reason(flac[: len(flac) // 2]) in ("truncated", "decode_error")
    assert reason(encoded(tone(0.05, 16000), 16000)) == "too_short"
    assert reason(encoded(np.zeros(0), 16000)) == "too_short"
    assert reason(encoded(tone(6.0, 16000), 16000)) == "too_long"
    assert reason(encoded(nan, 16000, subtype="FLOAT")) == "non_finite_audio"


def test_a_header_that_lies_about_its_length_asks_for_no_memory():
    flac = bytearray(encoded(tone(1.0, 16000), 16000, "FLAC"))
    at = flac.index(b"fLaC") + 8 + 10  # STREAMINFO: rate, channels, bits, then 36 bits of total samples
    flac[at + 3 : at + 8] = bytes([flac[at + 3] | 0x0F]) + struct.pack(">I", 0xFFFFFFFF)
    assert reason(bytes(flac)) == "too_long"


@pytest.mark.parametrize(("window_seconds", "bins"), [(5, 80), (30, 80), (30, 128)])
@pytest.mark.parametrize("kind", ["noise", "silence", "tone"])
def test_the_log_mel_is_that_of_transformers_to_the_last_bit(window_seconds: int, bins: int, kind: str):
    extractor = WhisperFeatureExtractor(feature_size=bins, chunk_length=window_seconds)
    log_mel = LogMel(extractor)
    full = extractor.n_samples
    rng = np.random.default_rng(0)
    for samples in (1, 2, 159, 160, 161, 200, 399, 16000, 39_999, full - 401, full - 200, full - 1, full, full + 5000):
        waveform = {
            "noise": rng.normal(0, 0.1, samples),
            "silence": np.zeros(samples),
            "tone": tone(samples / 16000, 16000)[:samples],
        }[kind].astype(np.float32)
        expected = extractor(waveform, sampling_rate=16000, return_tensors="pt").input_features[0]
        assert torch.equal(log_mel(waveform), expected), f"{samples} samples of {kind}"


def test_window_length_and_shape_come_from_the_extractor():
    log_mel = LogMel(WhisperFeatureExtractor(feature_size=40, chunk_length=7))
    assert (log_mel.window_seconds, log_mel.bins, log_mel.frames) == (7.0, 40, 700)
    assert log_mel(np.zeros(100, dtype=np.float32)).shape == (40, 700)
