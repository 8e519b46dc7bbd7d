"""Recordings read in blocks: the samples and cuts of a whole decode, in memory that does not grow with the length."""

import io
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from tests.test_audio import tone
from tests.test_containers import MADE_BY, contained
from whisper_ft.data.audio import recording as recording_module
from whisper_ft.data.audio.decode import decode
from whisper_ft.data.audio.recording import Recording
from whisper_ft.data.types import RejectedError
from whisper_ft.decoding.long_form import pieces_at_silence, split_at_silence

RATE = 16_000


def noise(seconds: float, rate: int, channels: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (
        (0.2 * rng.standard_normal((round(seconds * rate), channels)).cumsum(0) / 20).clip(-0.9, 0.9).astype("float32")
    )


def read(path: Path) -> np.ndarray:
    with Recording(path, RATE) as recording:
        return np.concatenate([*recording.blocks()])


@pytest.mark.long
@pytest.mark.parametrize("block", [4_000, 2**18])
@pytest.mark.parametrize(
    ("form", "subtype", "rate", "channels"),
    [
        ("WAV", "PCM_16", 8_000, 1),
        ("WAV", "ULAW", 8_000, 1),
        ("WAV", "FLOAT", 48_000, 6),
        ("FLAC", "PCM_16", 44_100, 2),
        ("MP3", "MPEG_LAYER_III", 44_100, 2),
        ("OGG", "VORBIS", 22_050, 2),
        ("OGG", "OPUS", 48_000, 1),
        ("RF64", "PCM_24", 96_000, 2),
        ("AIFF", "PCM_16", 16_000, 1),
    ],
)
def test_blocks_have_the_samples_of_a_whole_decode(
    form: str, subtype: str, rate: int, channels: int, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(recording_module, "BLOCK_FRAMES", block)
    path = tmp_path / "a"
    soundfile.write(path, noise(7.3, rate, channels), rate, format=form, subtype=subtype)
    np.testing.assert_array_equal(read(path), decode(path.read_bytes(), RATE, 10.0))


@pytest.mark.parametrize("kind", MADE_BY)
def test_blocks_of_a_container_have_the_samples_of_a_whole_decode(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(recording_module, "BLOCK_FRAMES", 10_001)
    path = tmp_path / "a"
    path.write_bytes(contained(kind, 3.0))
    np.testing.assert_array_equal(read(path), decode(contained(kind, 3.0), RATE, 5.0))


@given(st.integers(1, 400), st.lists(st.integers(1, 300), max_size=12), st.integers(0, 5))
def test_the_pieces_do_not_depend_on_the_blocks(length: int, cuts: list[int], seed: int):
    rng = np.random.default_rng(seed)
    waveform = (rng.normal(0, 1, length * 40) * np.repeat(rng.random(length), 40)).astype(np.float32)
    ends = np.cumsum([cut * 40 for cut in cuts])
    blocks = np.split(waveform, [end for end in ends if end < len(waveform)])
    whole, streamed = split_at_silence(waveform, 4_000, 800), [*pieces_at_silence(blocks, 4_000, 800)]
    assert [len(piece) for piece in streamed] == [len(piece) for piece in whole]
    assert np.array_equal(np.concatenate(streamed), waveform)


def sparse_wav(path: Path, seconds: float, rate: int, channels: int, stated: int | None = None) -> None:
    """A WAV of silence that takes no room on the disk, with a click in each minute."""
    size = round(seconds * rate) * channels * 2
    stated = min(size, 2**32 - 1) if stated is None else stated
    head = b"RIFF" + struct.pack("<I", min(size + 36, 2**32 - 1)) + b"WAVEfmt "
    head += struct.pack("<IHHIIHH", 16, 1, channels, rate, 2 * channels * rate, 2 * channels, 16)
    with path.open("wb") as file:
        file.write(head + b"data" + struct.pack("<I", stated))
        file.truncate(44 + size)
        for minute in range(round(seconds) // 60):
            file.seek(44 + minute * 60 * rate * channels * 2)
            file.write(b"\x00\x40" * channels)


@pytest.mark.long
@pytest.mark.parametrize("hours", [1, pytest.param(10, marks=pytest.mark.matrix)])
def test_ten_hours_need_no_more_memory_than_one(hours: int, tmp_path: Path):
    sparse_wav(tmp_path / "a.wav", 3600.0 * hours, 16_000, 1)
    tracemalloc.start()
    samples = pieces = 0
    with Recording(tmp_path / "a.wav", RATE) as recording:
        assert recording.seconds == 3600.0 * hours
        for piece in pieces_at_silence(recording.blocks(), 30 * RATE, RATE):
            samples, pieces = samples + len(piece), pieces + 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert samples == 3600 * hours * RATE
    assert pieces >= 120 * hours
    assert peak < 32e6, "bytes; the recording has 115 MB an hour"


@pytest.mark.parametrize("stated", [0, 2**32 - 1, 1_000_000])
def test_a_wav_over_4_gib_is_read_whole_whatever_its_header_states(stated: int, tmp_path: Path):
    sparse_wav(tmp_path / "a.wav", 6.5 * 3600, 48_000, 2, stated)
    with Recording(tmp_path / "a.wav", RATE) as recording:
        assert recording.seconds == 6.5 * 3600


def reason(content: bytes, path: Path) -> tuple[str, float]:
    """Reason code with which reading ends, and the seconds read before."""
    path.write_bytes(content)
    samples = 0
    with pytest.raises(RejectedError) as caught, Recording(path, RATE) as recording:
        for block in recording.blocks():
            samples += len(block)
    return caught.value.reason, samples / RATE


def encoded(samples: np.ndarray, rate: int, **more: Any) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, **({"format": "WAV"} | more))
    return file.getvalue()


def test_a_recording_that_cannot_be_read_to_its_end_gives_what_is_there(tmp_path: Path):
    whole = encoded(noise(8.0, 16_000, 1), 16_000)
    assert reason(whole[: len(whole) // 2], tmp_path / "a") == ("truncated", pytest.approx(4.0, abs=0.01))
    webm = contained("webm", 3.0)
    code, seconds = reason(webm[: len(webm) // 2], tmp_path / "a")
    assert (code, 0.5 < seconds < 2.5) == ("truncated", True)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "decode_error"),
        (b"no audio at all", "decode_error"),
        (encoded(tone(0.05, 16_000), 16_000), "too_short"),
        (encoded(30_000 * tone(1.0, 16_000), 16_000, subtype="FLOAT"), "not_normalised"),
    ],
)
def test_a_file_that_is_no_speech_has_a_reason(content: bytes, code: str, tmp_path: Path):
    assert reason(content, tmp_path / "a") == (code, 0.0)


@pytest.mark.parametrize("name", ["gone.wav", "."])
def test_a_missing_file_and_a_folder_have_a_reason(name: str, tmp_path: Path):
    with pytest.raises(RejectedError, match="unreadable_file"):
        Recording(tmp_path / name, RATE)
