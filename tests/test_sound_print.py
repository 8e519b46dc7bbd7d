"""Sound prints: a clip is found in another recording, wherever it begins and however it was compressed."""

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from whisper_ft.data.audio.containers import Waveform
from whisper_ft.data.audio.decode import decode
from whisper_ft.data.audio.sound_print import STRETCH, SoundIndex, sound_print

RATE = 16_000


@pytest.fixture(scope="module")
def clips(corpus: Path) -> list[Waveform]:
    rows = [row for path in sorted((corpus / "test").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    return [decode(row["audio"]["bytes"], RATE, 30.0) for row in rows]


@pytest.fixture(scope="module")
def index(clips: list[Waveform]) -> SoundIndex:
    """The first half of the clips; the others were never indexed."""
    half = clips[: len(clips) // 2]
    return SoundIndex([sound_print(clip, RATE) for clip in half], [str(number) for number in range(len(half))])


def compressed(waveform: Waveform, kind: str, rate: int = RATE) -> Waveform:
    """A waveform after a lossy codec, at 16 kHz again."""
    written = io.BytesIO()
    subtype = {"MP3": "MPEG_LAYER_III", "OGG": "VORBIS", "WAV": "ULAW"}[kind]
    samples = waveform if rate == RATE else waveform[:: RATE // rate]
    soundfile.write(written, samples, rate, format=kind, subtype=subtype)
    return decode(written.getvalue(), RATE, 60.0)


@pytest.mark.parametrize("kind", ["MP3", "OGG", "WAV"])
@pytest.mark.parametrize("place", [0, 3])
def test_a_clip_is_found_within_a_longer_recording(clips: list[Waveform], index: SoundIndex, kind: str, place: int):
    random = np.random.default_rng(place)
    around = [clips[-1], clips[place] * np.float32(0.4), clips[-2]]
    recording = np.concatenate(around) + random.normal(0, 1e-4, sum(map(len, around))).astype(np.float32)
    for offset in (0, 17, 1_000, 12_345):
        assert index.find(sound_print(compressed(recording[offset:], kind), RATE)) == str(place)


def test_a_part_of_a_clip_is_found(clips: list[Waveform], index: SoundIndex):
    longest = max(range(len(clips) // 2), key=lambda number: len(clips[number]))
    part = clips[longest][len(clips[longest]) // 8 :]
    assert index.find(sound_print(part, RATE)) == str(longest)


def test_other_sentences_of_the_same_voices_are_not_found(clips: list[Waveform], index: SoundIndex):
    for clip in clips[len(clips) // 2 :]:
        assert index.find(sound_print(clip, RATE)) is None
        assert index.find(sound_print(compressed(clip, "MP3"), RATE)) is None


@pytest.mark.parametrize(
    "waveform",
    [
        np.zeros(5 * RATE, np.float32),
        np.zeros(10, np.float32),
        np.sin(np.arange(5 * RATE, dtype=np.float32) * 0.1),
        np.random.default_rng(0).normal(0, 0.1, 5 * RATE).astype(np.float32),
    ],
    ids=["silence", "short", "tone", "noise"],
)
def test_silence_tones_and_noise_are_not_found(waveform: Waveform, index: SoundIndex):
    assert index.find(sound_print(waveform, RATE)) is None
    own = SoundIndex([sound_print(waveform, RATE)], ["own"])
    assert own.find(sound_print(np.zeros(5 * RATE, np.float32), RATE)) is None


def test_an_index_of_nothing_finds_nothing(clips: list[Waveform]):
    assert SoundIndex([], []).find(sound_print(clips[0], RATE)) is None
    assert len(sound_print(clips[0], RATE).codes) > STRETCH
