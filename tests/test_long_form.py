"""Audio windows of a set: every row once, unusable rows as silence, long recordings completely."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.test_stream import Rows, clip, spoken
from whisper_ft.data.audio.log_mel import LogMel
from whisper_ft.decoding import long_form
from whisper_ft.decoding.long_form import audio_windows, split_at_silence
from whisper_ft.models.whisper import load_whisper

RATE, WINDOW = 16_000, 5 * 16_000


@pytest.fixture(scope="module")
def log_mel(micro_whisper: Path) -> LogMel:
    return LogMel(load_whisper(str(micro_whisper))[1].feature_extractor)


@pytest.mark.parametrize("world", [1, 2, 3, 5])
@pytest.mark.parametrize("known", [(), (0, 5, 6, 7, 12), range(4, 8)])
def test_the_ranks_together_read_each_row_once(log_mel: LogMel, world: int, known: Any):
    source = Rows([spoken(i) for i in range(13)])
    parts = [list(audio_windows(source, log_mel, rank, world, None, set(known))) for rank in range(world)]
    assert [window.index for part in parts for window in part] == [i for i in range(13) if i not in known]
    assert all(window.row.id == f"row-{window.index}" for part in parts for window in part)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert len(source.reads) <= 4 + world - 1, (
        "a chunk is read only if it has unknown rows, and again only by another rank"
    )


def test_max_utterances_takes_the_first_of_a_set(log_mel: LogMel):
    source = Rows([spoken(i) for i in range(13)])
    assert [window.index for rank in range(2) for window in audio_windows(source, log_mel, rank, 2, 5)] == list(
        range(5)
    )


def test_rows_that_training_rejects_are_kept(log_mel: LogMel):
    rows = [spoken(0), spoken(1, audio=b"not audio"), spoken(2, audio=clip(6.0)), spoken(3, text="")]
    windows = list(audio_windows(Rows(rows), log_mel, 0, 1))
    assert [(window.index, window.number, window.windows, window.problem) for window in windows] == [
        (0, 0, 1, None),
        (1, 0, 1, "decode_error"),
        (2, 0, 2, None),
        (2, 1, 2, None),
        (3, 0, 1, None),
    ]
    assert [round(window.seconds) for window in windows] == [1, 0, 6, 6, 1]
    assert torch.equal(windows[1].features, log_mel(np.zeros(0, dtype=np.float32))), "silence in place of the audio"


def test_an_endless_recording_is_cut_at_a_limit_with_a_reason_code(log_mel: LogMel, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(long_form, "MAX_RECORDING_SECONDS", 12.0)
    samples = np.zeros(600 * 8000, dtype=np.int16)
    samples[::50] = 3000
    file = io.BytesIO()
    soundfile.write(file, samples, 8000, format="FLAC")
    windows = list(audio_windows(Rows([spoken(0, audio=file.getvalue())]), log_mel, 0, 1))
    assert {(window.problem, window.seconds) for window in windows} == {("too_long", 600.0)}
    assert 3 <= len(windows) <= 5


@given(st.lists(st.floats(0, 1), min_size=0, max_size=40))
def test_pieces_joined_are_the_recording_and_each_fits_the_window(loudness: list[float]):
    parts = [level * np.sin(np.arange(RATE // 2, dtype=np.float32)) for level in loudness]
    waveform = np.concatenate([np.zeros(0, dtype=np.float32), *parts]).astype(np.float32)
    pieces = split_at_silence(waveform, WINDOW, RATE)
    assert np.array_equal(np.concatenate(pieces), waveform)
    assert all(len(piece) <= WINDOW for piece in pieces)
    assert all(len(piece) >= 0.39 * WINDOW for piece in pieces) or len(pieces) == 1, "including the last one"


def test_a_recording_is_cut_in_its_pauses():
    rng = np.random.default_rng(0)
    waveform = rng.normal(0, 0.1, 23 * RATE).astype(np.float32)
    pauses = [3.4, 7.9, 11.8, 15.3, 19.2]  # seconds; each half a second long
    for second in pauses:
        waveform[round(second * RATE) : round((second + 0.5) * RATE)] *= 0.01
    ends = np.cumsum([len(piece) for piece in split_at_silence(waveform, WINDOW, RATE)])[:-1] / RATE
    assert len(ends) == len(pauses)
    assert all(second < end < second + 0.5 for second, end in zip(pauses, ends, strict=True))
