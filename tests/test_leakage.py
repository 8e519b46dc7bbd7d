"""Leakage between a held-out set and the training data is found, and rows that only look alike are not reported."""

import io
import pickle
import unicodedata
from collections.abc import Callable, Iterable

import numpy as np
import pytest
import soundfile

from whisper_ft.data.audio.containers import Waveform
from whisper_ft.data.audio.decode import decode
from whisper_ft.data.leakage import Leakage, LeakageComparison, Overlap, keys_of, name_of
from whisper_ft.data.types import Row

RATE = 16_000


def clip(seed: int, kind: str = "FLAC", seconds: float = 0.5) -> bytes:
    """The same noise for the same seed, in any lossless format."""
    samples = np.random.default_rng(seed).integers(-9000, 9000, int(seconds * RATE)).astype(np.int16)
    written = io.BytesIO()
    soundfile.write(written, samples, RATE, format=kind, subtype="PCM_16")
    return written.getvalue()


def hear(row: Row) -> Waveform:
    return decode(row.audio, RATE, 30.0, row.offset, row.duration)


def compare(
    train: Iterable[Row], heldout: Iterable[Row], waveform_of: Callable[[Row], Waveform | None] | None = None
) -> Leakage:
    comparison = LeakageComparison(heldout, waveform_of)
    for row in train:
        comparison.add(row, keys_of(row, waveform_of(row) if waveform_of else None))
    return comparison.result()


def of(found: Leakage, kind: str) -> Overlap:
    return next(overlap for overlap in found.overlaps if overlap.kind == kind)


def kinds(found: Leakage) -> set[str]:
    return {overlap.kind for overlap in (*found.leaks, *found.warnings)}


def test_a_recording_with_another_name_and_text_is_found_by_its_bytes():
    found = compare(
        [Row("a.flac", clip(1), "раз")], [Row("held/z.flac", clip(1), "два"), Row("y.flac", clip(2), "тры")]
    )
    assert of(found, "audio") == Overlap("audio", 1, 1, (("a.flac", "held/z.flac"),))
    assert kinds(found) == {"audio"}


def test_a_recording_encoded_anew_is_found_by_its_sound_when_asked():
    train, heldout = [Row("a.wav", clip(1, "WAV"), "раз")], [Row("z.flac", clip(1), "два")]
    assert kinds(compare(train, heldout)) == set()
    assert kinds(compare(train, heldout, hear)) == {"pcm"}


@pytest.mark.parametrize(
    ("train", "heldout", "expected"),
    [
        (("train/clip_7.mp3", "Добры дзень!"), ("test/clip_7.wav", "добры дзень"), {"name"}),
        (("train/0007.wav", "Добры дзень"), ("test/0007.wav", "Да пабачэння"), {"name_only"}),
        (("a.wav", "Добры  дзень"), ("b.wav", "добры ДЗЕНЬ "), {"sentence"}),
        (("a.wav", unicodedata.normalize("NFD", "Ёй мой")), ("b.wav", "ёй мой"), {"sentence"}),
        (("t.parquet#7", "раз"), ("t.parquet#7", "два"), set()),
        (("a.wav", ""), ("b.wav", " "), set()),
    ],
)
def test_names_and_sentences_are_compared_as_people_read_them(train, heldout, expected):
    found = compare([Row(train[0], clip(1), train[1])], [Row(heldout[0], clip(2), heldout[1])])
    assert kinds(found) == expected


def test_a_shared_speaker_is_a_warning_and_never_a_leak():
    found = compare([Row("a", clip(1), "раз", speaker="s1")], [Row("b", clip(2), "два", speaker="s1")])
    assert not found.leaks
    assert kinds(found) == {"speaker"}


def test_two_segments_of_one_recording_are_two_recordings_and_one_segment_is_one():
    recording = clip(1, seconds=2)
    heldout = [Row("r/b", recording, "два", offset=1.0, duration=0.5)]
    other, same = (Row("r/a", recording, "раз", offset=offset, duration=0.5) for offset in (0.0, 1.0))
    assert not kinds(compare([other], heldout, hear))
    assert kinds(compare([same], heldout, hear)) == {"audio", "pcm"}


def test_silence_and_missing_audio_are_the_same_as_nothing():
    silence = io.BytesIO()
    soundfile.write(silence, np.zeros(RATE), RATE, format="WAV")
    other = io.BytesIO()
    soundfile.write(other, np.zeros(RATE), RATE, format="FLAC")
    assert not kinds(compare([Row("a", silence.getvalue(), "")], [Row("b", other.getvalue(), "")], hear))
    gone = ("missing_file", "not there")
    assert not kinds(compare([Row("a", b"", "", problem=gone)], [Row("b", b"", "", problem=gone)]))


def test_all_rows_are_counted_and_five_are_shown():
    train = [Row(f"t{i}", clip(i % 3), f"т{i}") for i in range(12)]
    found = compare(iter(train), iter([Row(f"h{i}", clip(i), f"г{i}") for i in range(4)]))
    audio = of(found, "audio")
    assert (found.train_rows, found.heldout_rows) == (12, 4)
    assert (audio.train_rows, audio.heldout_rows, len(audio.examples)) == (12, 3, 5)
    assert audio in found.leaks
    assert audio.examples[0] == ("t0", "h0")


def test_held_out_rows_with_one_sentence_all_count():
    heldout = [Row(f"h{i}", clip(10 + i), "адно") for i in range(3)]
    assert of(compare([Row("t", clip(1), "адно")], heldout), "sentence").heldout_rows == 3


def test_of_the_held_out_side_no_audio_is_kept():
    rows = [Row(f"h{i}", clip(i), f"г{i}") for i in range(8)]
    assert len(pickle.dumps(LeakageComparison(rows, hear))) < 400 * len(rows) < len(rows[0].audio)


@pytest.mark.parametrize(
    ("row_id", "expected"),
    [
        ("be/clips/common_voice_be_1.mp3", "common_voice_be_1"),
        ("clips/common_voice_be_1.mp3#2", "common_voice_be_1"),
        ("1/clips/a.b.FLAC", "a.b"),
        ("clips/long.mp3@39", "long@39"),
        ("shard-0.tar#dir/utt1", "utt1"),
        ("train-00000-of-00004.parquet#17", None),
        ("train/data-00000-of-00001.arrow#0", None),
        ("train.jsonl#line 12", None),
        ("speaker-utt", "speaker-utt"),
    ],
)
def test_a_name_is_that_of_the_recording_and_not_the_number_of_a_row(row_id, expected):
    assert name_of(row_id) == expected
