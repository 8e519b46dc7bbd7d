"""Audio: what is decoded, what is refused with which code, and a log-mel that is the extractor's to the last bit."""

import io
import struct
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import WhisperFeatureExtractor

from whisper_ft.data.audio.decode import decode, decode_beginning
from whisper_ft.data.audio.log_mel import LogMel, pad_windows
from whisper_ft.data.types import RejectedError


def tone(seconds: float, rate: int, channels: int = 1, hertz: float = 220.0) -> np.ndarray:
    samples = 0.3 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)
    return samples if channels == 1 else np.stack([samples, *([np.zeros_like(samples)] * (channels - 1))], axis=1)


def encoded(samples: np.ndarray, rate: int, kind: str = "WAV", subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


def reason(audio: bytes, max_seconds: float = 5.0) -> str:
    with pytest.raises(RejectedError) as unusable:
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


PCM = (tone(1.0, 16000) * 32767).astype("<i2").tobytes()


def wav(
    data: bytes = PCM,
    *,
    riff_size: int | None = None,
    data_size: int | None = None,
    rate: int = 16000,
    channels: int = 1,
    bits: int = 16,
    between: bytes = b"",
    after: bytes = b"",
) -> bytes:
    """A WAV by hand, with sizes that may be wrong."""
    frame = channels * bits // 8
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, channels, rate, rate * frame % 2**32, frame % 2**16, bits)
    head = struct.pack("<4sI", b"data", len(data) if data_size is None else data_size)
    body = b"WAVE" + form + between + head + data + after
    return struct.pack("<4sI", b"RIFF", len(body) if riff_size is None else riff_size) + body


@pytest.mark.parametrize(
    "whole",
    [
        pytest.param(wav(), id="right sizes"),
        pytest.param(wav(riff_size=len(PCM) + 36 + 8), id="RIFF size that counts its own header"),
        pytest.param(wav(riff_size=0), id="RIFF size of a stream, 0"),
        pytest.param(wav(riff_size=0xFFFFFFFF, data_size=0xFFFFFFFF), id="sizes of a stream, 2^32 - 1"),
        pytest.param(wav(riff_size=0, data_size=0), id="sizes that a recorder never wrote, 0"),
        pytest.param(wav(riff_size=36, data_size=0), id="sizes of an empty file, with samples behind"),
        pytest.param(wav(riff_size=0x7FFFF024, data_size=0x7FFFF000), id="sizes of a stream, from sox"),
        pytest.param(wav(PCM[1::2][:-1], bits=8, riff_size=len(PCM) // 2 + 36), id="odd data without its pad byte"),
        pytest.param(wav(between=b"LIST" + struct.pack("<I", 5) + b"INFOx\0"), id="odd chunk before the data"),
        pytest.param(wav(after=b"LIST" + struct.pack("<I", 500) + b"INFO"), id="cut behind its data"),
    ],
)
def test_a_wav_that_has_all_its_samples_is_whole_whatever_its_other_sizes_say(whole: bytes):
    assert abs(len(decode(whole, 16000, 5.0)) - 16000) <= 1


@pytest.mark.parametrize("unknown", [0, 2**64 - 1])
def test_an_rf64_whose_recorder_was_cut_off_is_read_to_its_end(unknown: int):
    begun = bytearray(encoded(tone(1.0, 16000), 16000, "RF64"))
    struct.pack_into("<QQQ", begun, begun.index(b"ds64") + 8, unknown, unknown, unknown)
    whole = decode(encoded(tone(1.0, 16000), 16000), 16000, 5.0)
    np.testing.assert_array_equal(decode(bytes(begun), 16000, 5.0), whole)


@pytest.mark.parametrize("after", [b"", b"LIST" + struct.pack("<I", 4) + b"INFO"])
def test_a_wav_that_is_really_empty_is_too_short(after: bytes):
    assert reason(wav(b"", after=after)) == "too_short"


@pytest.mark.parametrize("kept", [1.0, 0.999, 0.5, 0.01, 0.0])
@pytest.mark.parametrize(
    ("kind", "subtype"), [("WAV", "PCM_16"), ("WAVEX", "PCM_24"), ("WAV", "FLOAT"), ("WAV", "ULAW")]
)
def test_a_wav_cut_in_its_data_is_truncated_wherever_that_is(kind: str, subtype: str, kept: float):
    whole = encoded(tone(2.0, 16000), 16000, kind, subtype)
    data = whole.index(b"data") + 8
    cut = bytearray(whole[: data + int(kept * (len(whole) - data))])
    cut[4:8] = struct.pack("<I", len(cut) - 8)  # as by a tool that mends the outer size only
    if kept == 1.0:
        decode(bytes(cut), 16000, 5.0)
    else:
        assert reason(bytes(cut)) == "truncated"


def test_the_beginning_of_a_long_clip_is_read_and_no_more():
    rate, seconds = 16000, 600
    noise = np.random.default_rng(0).normal(0, 0.1, seconds * rate)
    long = encoded(noise, rate, "FLAC")
    decode_beginning(long, rate, 5.0)
    tracemalloc.start()
    waveform, whole = decode_beginning(long, rate, 5.0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_allclose(waveform, noise[: 5 * rate], atol=1e-4)
    assert whole == seconds
    assert peak < 4 * 5 * rate * 4, "bytes: a few times what the window has in float32"


@pytest.mark.parametrize("seconds", [0.2, 4.99, 5.0])
def test_a_clip_that_fits_is_the_same_read_whole_or_from_its_beginning(seconds: float):
    clip = encoded(tone(seconds, 44100, channels=2), 44100, "FLAC")
    waveform, whole = decode_beginning(clip, 16000, 5.0)
    np.testing.assert_array_equal(waveform, decode(clip, 16000, 5.0))
    assert whole == pytest.approx(seconds, abs=1e-4)


def test_the_beginning_of_a_long_clip_that_is_cut_far_behind_it_is_good():
    whole = encoded(tone(20.0, 16000), 16000)
    waveform, seconds = decode_beginning(whole[: len(whole) // 2], 16000, 5.0)
    assert (len(waveform), seconds) == (80000, 20.0)
    with pytest.raises(RejectedError, match="truncated"):
        decode_beginning(whole[: len(whole) // 8], 16000, 5.0)


@pytest.mark.parametrize("total", [0, 0xFFFFFFFFF])  # 0: a stream, whose length libsndfile gives as 2^63 - 1
def test_a_length_that_nobody_can_believe_is_bounded(total: int):
    flac = bytearray(encoded(tone(2.0, 16000), 16000, "FLAC"))
    at = flac.index(b"fLaC") + 8 + 13
    flac[at : at + 5] = bytes([flac[at] & 0xF0 | total >> 32]) + struct.pack(">I", total & 0xFFFFFFFF)
    waveform, seconds = decode_beginning(bytes(flac), 16000, 1.0)
    assert len(waveform) == 16000
    assert 1.0 < seconds <= 86400


def unknown_length(seconds: float) -> bytes:
    """A FLAC as it is written to a pipe: its header states 0 samples."""
    flac = bytearray(encoded(tone(seconds, 16000), 16000, "FLAC"))
    at = flac.index(b"fLaC") + 8 + 13
    flac[at : at + 5] = bytes([flac[at] & 0xF0, 0, 0, 0, 0])
    return bytes(flac)


def test_a_flac_of_unknown_length_is_read_to_its_end_and_its_segments_are_those_of_the_whole():
    whole = decode(encoded(tone(2.0, 16000), 16000, "FLAC"), 16000, 5.0)
    np.testing.assert_array_equal(decode(unknown_length(2.0), 16000, 5.0), whole)
    waveform, seconds = decode_beginning(unknown_length(2.0), 16000, 7200.0)
    np.testing.assert_array_equal(waveform, whole)
    assert seconds == 2.0
    np.testing.assert_array_equal(decode(unknown_length(2.0), 16000, 5.0, 0.5, 0.7), whole[8000:19200])
    np.testing.assert_array_equal(decode(unknown_length(2.0), 16000, 5.0, 1.5), whole[24000:])
    for offset, duration in ((3.0, None), (3.0, 1.0), (1.0, 3.0)):
        with pytest.raises(RejectedError, match="segment_outside"):
            decode(unknown_length(2.0), 16000, 5.0, offset, duration)
    assert reason(unknown_length(6.0)) == "too_long"
    assert reason(unknown_length(0.05)) == "too_short"


@pytest.mark.parametrize("scale", [2**7, 2**15, 2**23, 2**31])
@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_integers_written_as_floats_are_refused_with_their_peak(scale: int, subtype: str):
    clip = encoded(scale * tone(1.0, 16000), 16000, subtype=subtype)
    for read in (decode, decode_beginning):
        with pytest.raises(RejectedError) as unusable:
            read(clip, 16000, 5.0)
        assert unusable.value.reason == "not_normalised"
        peak = float(unusable.value.detail.split()[3].replace(",", ""))
        assert peak == pytest.approx(0.3 * scale, rel=0.02)


def test_a_quiet_recording_of_integers_is_refused_because_its_samples_are_whole_numbers():
    assert reason(encoded(np.round(20 * tone(1.0, 16000, channels=2)), 16000, subtype="FLOAT")) == "not_normalised"


def test_floats_that_were_recorded_too_loud_are_used():
    clip = encoded(40 * tone(1.0, 16000), 16000, subtype="FLOAT")
    assert np.abs(decode(clip, 16000, 5.0)).max() == pytest.approx(12, rel=1e-3)


def test_what_went_wrong_is_said_alike_in_every_run():
    with pytest.raises(RejectedError) as unusable:
        decode(b"<html>404</html>", 16000, 5.0)
    assert unusable.value.detail == "Error opening the clip: Format not recognised."


@pytest.mark.parametrize(
    ("clip", "code"),
    [
        (wav(rate=0), "decode_error"),
        (wav(rate=1), "decode_error"),
        (wav(rate=10**9), "decode_error"),
        (wav(rate=2**32 - 1), "decode_error"),
        (wav(channels=0), "decode_error"),
        (wav(channels=17), "decode_error"),
        (wav(channels=65535), "decode_error"),
        (wav(b""), "too_short"),
        (wav()[:30], "decode_error"),
        (encoded(1e30 * tone(1.0, 16000), 16000, subtype="FLOAT"), "non_finite_audio"),  # its power is not finite
    ],
)
def test_a_header_or_a_signal_that_cannot_be_is_refused(clip: bytes, code: str):
    assert reason(clip) == code


KINDS = {kind: encoded(tone(0.5, 16000), 16000, kind) for kind in ("WAV", "FLAC", "OGG", "MP3")}


def gives_a_finite_waveform_or_a_reason(read: Callable[..., Any], damaged: bytes) -> None:
    """Assert it; a reason is one line for people, without what a library says of its own code."""
    try:
        waveform, failed = read(damaged, 16000, 5.0), None
    except RejectedError as unusable:
        waveform, failed = np.zeros(0), unusable
    assert np.isfinite(waveform).all()
    if failed is not None:
        assert failed.reason in ("decode_error", "truncated", "too_short", "too_long", "non_finite_audio")
        assert not any(inner in failed.detail for inner in ("0x", ".cpp", "\n"))


@given(st.sampled_from(sorted(KINDS)), st.data())
def test_damaged_bytes_give_a_finite_waveform_or_a_reason_and_nothing_else(kind: str, data: st.DataObject):
    clip = bytearray(KINDS[kind])
    for at in data.draw(st.lists(st.one_of(st.integers(0, 60), st.integers(0, len(clip) - 1)), max_size=20)):
        clip[at] = data.draw(st.integers(0, 255))
    damaged = bytes(clip[: data.draw(st.integers(0, len(clip)))]) + data.draw(st.binary(max_size=20))
    for read in (decode, lambda *given: decode_beginning(*given)[0]):
        gives_a_finite_waveform_or_a_reason(read, damaged)


@pytest.mark.long
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
        features = log_mel(waveform)
        assert features.shape[1] < samples / 160 + 4, "one frame stands for the silence"
        assert torch.equal(pad_windows([features], log_mel.frames)[0], expected), f"{samples} samples of {kind}"


def test_window_length_and_shape_come_from_the_extractor():
    log_mel = LogMel(WhisperFeatureExtractor(feature_size=40, chunk_length=7))
    assert (log_mel.window_seconds, log_mel.bins, log_mel.frames) == (7.0, 40, 700)
    assert log_mel(np.zeros(99_999_999, dtype=np.float32)).shape == (40, 700)
