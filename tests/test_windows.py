"""`prepare --windows`: recordings with segments become windows that train, the same bytes whatever stopped it."""

import json
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from tests.conftest import ROOT, START_SECONDS, Trainer, environment, metrics
from tests.elsewhere import serve
from tests.preparing import Prepare, arguments, stopped_after_each_file
from tests.test_prepare import files_of, write_lines
from whisper_ft.cli.prepare.window_records import SAMPLE_RATE
from whisper_ft.config.data import SourceConfig
from whisper_ft.data.audio.decode import decode
from whisper_ft.data.audio.recording import Recording
from whisper_ft.data.sources import open_source


def talk(path: Path, seconds: float, rate: int = 22_050, channels: int = 2, seed: int = 0) -> np.ndarray:
    """Write a recording of quiet noise whose level tells its second, and return what a model hears of it."""
    noise = np.random.default_rng(seed).uniform(-0.3, 0.3, (round(seconds * rate), channels)).cumsum(0)
    noise = noise / np.abs(noise).max()
    soundfile.write(path, noise * 0.8, rate)
    with Recording(path, SAMPLE_RATE) as recording:
        return np.concatenate([*recording.blocks()])


def srt(*cues: tuple[float, float, str]) -> str:
    def clock(seconds: float) -> str:
        return time.strftime("%H:%M:%S", time.gmtime(seconds)) + f",{round(seconds % 1 * 1000):03d}"

    return "".join(f"{n}\n{clock(a)} --> {clock(b)}\n{text}\n\n" for n, (a, b, text) in enumerate(cues, 1))


def records(out: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(out.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def heard(row: dict[str, Any]) -> np.ndarray:
    return decode(row["audio"]["bytes"], SAMPLE_RATE, 30.0)


CUES = [(1.0, 9.0, "адзін"), (9.5, 20.0, "два"), (20.0, 28.0, "тры"), (31.0, 66.0, "доўга"), (67.25, 70.0, "пяць")]


@pytest.mark.parametrize(("name", "rate"), [("a.wav", 22_050), ("a.flac", 8_000), ("a.mp3", 24_000)])
def test_windows_have_the_sound_the_texts_and_the_times_of_the_recording(
    tmp_path: Path, prepare: Prepare, name: str, rate: int
):
    data = tmp_path / "talks"
    data.mkdir()
    whole = talk(data / name, 75, rate)
    (data / "a.srt").write_text(srt(*CUES), encoding="utf-8")
    code, said = prepare(data, tmp_path / "out", windows="true", data__language="be")
    assert code == 0
    assert "2 windows in 1 shard" in said
    assert "1 segment left out (too_long 1)" in said
    first, second = records(tmp_path / "out")
    assert (first["sentence"], first["prompt"], first["language"]) == ("адзін два тры", None, "be")
    assert (second["sentence"], second["prompt"]) == ("пяць", "адзін два тры доўга")
    assert {row["recording"] for row in (first, second)} == {name}
    for row, begin, end in ((first, 0.7, 28.3), (second, 66.95, 70.3)):
        expected = whole[round(begin * SAMPLE_RATE) :][: round((end - begin) * SAMPLE_RATE)]
        assert abs(len(heard(row)) - len(expected)) <= 1
        assert np.abs(heard(row) - expected[: len(heard(row))]).max() <= 2.0**-15
        for segment in row["segments"]:
            text, cue = segment["text"], next(cue for cue in CUES if cue[2] == segment["text"])
            assert segment["start"] + begin == pytest.approx(cue[0], abs=0.002), text
            assert segment["end"] + begin == pytest.approx(cue[1], abs=0.002)


def test_rows_of_a_list_are_gathered_by_recording_wherever_they_stand(tmp_path: Path, prepare: Prepare):
    for number, name in enumerate(("a.wav", "b.wav")):
        talk(tmp_path / name, 40, 8_000, 1, number)
    places = [("b.wav", 20, 6), ("a.wav", 1, 4), ("b.wav", 1, 5), ("a.wav", 6, 3), ("a.wav", 33, 7.3), ("b.wav", 38, 9)]
    lines = [
        {"audio": name, "text": f"{name[0]}{begin}", "offset": begin, "duration": length, "speaker": f"s{begin % 2}"}
        for name, begin, length in places
    ]
    lines.insert(3, {"audio": "a.wav", "text": "   ", "offset": 12, "duration": 3})
    listed = write_lines(tmp_path / "list.jsonl", *lines)
    code, _ = prepare(listed, tmp_path / "out", windows="true")
    assert code == 0
    kept = [(row["sentence"], row["client_id"], row["prompt"]) for row in records(tmp_path / "out")]
    assert kept == [("b1 b20", None, None), ("a1 a6", None, None), ("a33", "s1", "a1 a6")]
    assert {
        (row["id"], row["reason"])
        for row in map(json.loads, (tmp_path / "out/left-out.jsonl").read_text().splitlines())
    } == {("a.wav@12", "empty_label"), ("b.wav@38", "segment_outside")}
    assert records(tmp_path / "out")[-1]["segments"][0]["end"] == pytest.approx(7.3), "cut at the end"


def test_segments_of_kaldi_become_windows_with_their_speaker(tmp_path: Path, prepare: Prepare):
    talk(tmp_path / "a.wav", 40, 8_000, 1)
    files = {
        "wav.scp": "rec a.wav\n",
        "segments": "u1 rec 1 9\nu2 rec 10 20\nu3 rec 33 -1\n",
        "text": "u3 тры\nu1 адзін\nu2 два\n",
        "utt2spk": "u1 s\nu2 s\nu3 t\n",
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    assert prepare(tmp_path, tmp_path.with_name(f"{tmp_path.name}-out"), windows="true")[0] == 0
    rows = records(tmp_path.with_name(f"{tmp_path.name}-out"))
    assert [(row["sentence"], row["client_id"], row["prompt"]) for row in rows] == [
        ("адзін два", "s", None),
        ("тры", "t", "адзін два"),
    ]
    assert rows[1]["segments"] == [{"start": 0.3, "end": 7.3, "text": "тры"}], "to the end of the recording"


def test_texts_with_times_and_columns_of_segments_become_the_same_windows(tmp_path: Path, prepare: Prepare):
    talk(tmp_path / "a.wav", 50, 8_000, 1)
    talk(tmp_path / "short.wav", 4, 8_000, 1)
    times = "<|1.00|> адзін<|9.00|><|9.50|> два<|29.00|><|30.00|> тры<|45.00|>"
    segments = [{"start": a, "end": b, "text": t} for a, b, t in ((1, 9, "адзін"), (9.5, 29, "два"), (30, 45, "тры"))]
    text = write_lines(tmp_path / "t.jsonl", {"audio": "a.wav", "text": times}, {"audio": "short.wav", "text": "так"})
    column = write_lines(
        tmp_path / "c.jsonl", {"audio": "a.wav", "text": "", "parts": segments}, {"audio": "short.wav", "text": "так"}
    )
    assert prepare(text, tmp_path / "one", windows="true", data__text_times="true")[0] == 0
    assert prepare(column, tmp_path / "two", windows="true", data__segments_column="parts")[0] == 0
    one, two = records(tmp_path / "one"), records(tmp_path / "two")
    assert [row["sentence"] for row in one] == ["адзін два", "тры", "так"]
    assert one[2]["segments"] is None, "a short clip without times is a window of its own"
    for row, other in zip(one, two, strict=True):
        assert {name: row[name] for name in row if name != "audio"} == {n: other[n] for n in other if n != "audio"}
        assert row["audio"]["bytes"] == other["audio"]["bytes"]
    # Rows that hold their audio are recordings, too.
    assert (
        prepare(
            tmp_path / "one", tmp_path / "three", windows="true", window_seconds=20, data__segments_column="segments"
        )[0]
        == 0
    )
    assert [row["sentence"] for row in records(tmp_path / "three")] == ["адзін", "два", "тры", "так"]


def test_a_recording_that_ends_early_or_cannot_be_read_gives_the_windows_before(tmp_path: Path, prepare: Prepare):
    data = tmp_path / "talks"
    data.mkdir()
    talk(data / "cut.wav", 80, 8_000, 1)
    (data / "cut.wav").write_bytes((data / "cut.wav").read_bytes()[: 44 + 2 * 8_000 * 50])
    (data / "noise.wav").write_bytes(b"no audio at all")
    for name in ("cut", "noise"):
        (data / f"{name}.srt").write_text(srt((1, 25, "адзін"), (30, 45, "два"), (60, 70, "тры")), encoding="utf-8")
    assert prepare(data, tmp_path / "out", windows="true")[0] == 0
    assert [row["sentence"] for row in records(tmp_path / "out")] == ["адзін", "два"]
    left_out = [json.loads(line) for line in (tmp_path / "out/left-out.jsonl").read_text().splitlines()]
    assert [(row["id"], row["reason"]) for row in left_out] == [
        ("cut.wav@60", "truncated"),
        *[(f"noise.wav@{begin}", "decode_error") for begin in (1, 30, 60)],
    ]


@pytest.mark.long
def test_a_full_window_has_no_sample_more_than_30_seconds(tmp_path: Path, prepare: Prepare):
    """Rounding both ends apart would give one more here and there."""
    talk(tmp_path / "a.wav", 400, 8_000, 1)
    begins = [n * 31.7 + (2 * n + 1) / 32_000 for n in range(12)]  # halfway between two samples
    assert max(round((begin + 30.0) * SAMPLE_RATE) - round(begin * SAMPLE_RATE) for begin in begins) > 30 * SAMPLE_RATE
    lines = [{"audio": "a.wav", "text": "так", "offset": begin, "duration": 30.0} for begin in begins]
    assert prepare(write_lines(tmp_path / "list.jsonl", *lines), tmp_path / "out", windows="true")[0] == 0
    lengths = [len(heard(row)) for row in records(tmp_path / "out")]
    assert len(lengths) == 12
    assert set(lengths) <= {30 * SAMPLE_RATE - 1, 30 * SAMPLE_RATE}


def test_texts_that_overlap_clearly_are_one_segment_of_their_window(tmp_path: Path, prepare: Prepare):
    data = tmp_path / "talks"
    data.mkdir()
    talk(data / "a.wav", 20, 8_000, 1)
    (data / "a.srt").write_text(srt((1, 5, "адзін"), (3, 8, "два"), (7.9, 9, "тры")), encoding="utf-8")
    assert prepare(data, tmp_path / "out", windows="true")[0] == 0
    (row,) = records(tmp_path / "out")
    assert [segment["text"] for segment in row["segments"]] == ["адзін два", "тры"]
    assert row["sentence"] == "адзін два тры"


@pytest.fixture
def long_talks(tmp_path: Path) -> Path:
    """Three recordings of 200 s, with a cue every four seconds."""
    data = tmp_path / "talks"
    data.mkdir()
    for number in range(3):
        talk(data / f"{number}.wav", 200, 8_000, 1, number)
        cues = [(4 * n + 0.5, 4 * n + 3.5, f"слова {number} {n}") for n in range(49)]
        (data / f"{number}.srt").write_text(srt(*cues), encoding="utf-8")
    return data


def test_windows_are_full_and_their_figures_are_in_the_summary(long_talks: Path, tmp_path: Path, prepare: Prepare):
    code, said = prepare(long_talks, tmp_path / "out", windows="true")
    assert code == 0
    rows, state = records(tmp_path / "out"), json.loads((tmp_path / "out/prepared.json").read_text())["state"]
    assert (state["rows"], state["segments"], state["left_out"]) == (len(rows), 3 * 49, 0)
    assert state["seconds_in"] == pytest.approx(600)
    assert state["seconds_out"] == pytest.approx(sum(len(heard(row)) for row in rows) / SAMPLE_RATE)
    assert state["seconds_out"] / (30 * len(rows)) > 0.85
    assert f"{len(rows)} windows" in said
    assert "0.17 hours in" in said


def test_the_memory_does_not_grow_with_the_recording(tmp_path: Path, prepare: Prepare):
    peaks = []
    for minutes in (2, 8):
        data = tmp_path / f"talks-{minutes}"
        data.mkdir()
        silence = np.zeros(60 * 16_000, np.int16)
        with soundfile.SoundFile(data / "a.wav", "w", 16_000, 1, "PCM_16") as file:
            for _ in range(minutes):
                file.write(silence)
        (data / "a.srt").write_text(srt(*[(n * 10, n * 10 + 9, "так") for n in range(6 * minutes)]), encoding="utf-8")
        tracemalloc.start()
        assert prepare(data, tmp_path / f"out-{minutes}", windows="true", group_mb=0.1)[0] == 0
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 2_000_000, peaks


@pytest.mark.long
def test_stopped_within_recordings_it_goes_on_to_the_same_bytes(
    long_talks: Path, tmp_path: Path, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
):
    (long_talks / "1.srt").write_text(srt((1, 50, "доўга"), (60, 70, "раз"), (69, 72, "два"), (205, 206, "за канцом")))
    settings = {"windows": "true", "shard_mb": 1.2, "group_mb": 0.6}
    assert prepare(long_talks, tmp_path / "whole", **settings)[0] == 0
    assert stopped_after_each_file(prepare, long_talks, tmp_path / "out", monkeypatch, **settings) > 3
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


@pytest.mark.long
def test_killed_at_any_file_it_goes_on_to_the_same_bytes(long_talks: Path, tmp_path: Path, prepare: Prepare):
    settings = {"windows": "true", "shard_mb": 0.4, "group_mb": 0.2}
    assert prepare(long_talks, tmp_path / "whole", **settings)[0] == 0
    whole, out = files_of(tmp_path / "whole"), tmp_path / "out"
    assert len(whole) > 6
    command = [sys.executable, "-m", "whisper_ft", "prepare", *arguments(long_talks, out, **settings)]
    started = subprocess.Popen(command, cwd=ROOT, env=environment(1), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + START_SECONDS
    while not (out / "shard-00002.part").exists():
        assert started.poll() is None, "it ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.0005)
    started.send_signal(signal.SIGKILL)
    started.wait(START_SECONDS)
    assert not list(out.glob("*.parquet"))
    assert prepare(long_talks, out, **settings)[0] == 0
    assert files_of(out) == whole


@pytest.mark.long
def test_windows_of_a_list_elsewhere_are_the_same_bytes(tmp_path: Path, prepare: Prepare):
    (tmp_path / "data").mkdir()
    talk(tmp_path / "data/a.wav", 40, 8_000, 1)
    lines = [{"audio": "a.wav", "text": f"{n}", "offset": 4 * n, "duration": 3.5} for n in range(10)]
    write_lines(tmp_path / "data/list.jsonl", *lines)
    assert prepare(tmp_path / "data/list.jsonl", tmp_path / "near", windows="true")[0] == 0
    with serve(tmp_path / "data") as elsewhere:
        assert prepare(f"{elsewhere.address}/files/list.jsonl", tmp_path / "far", windows="true")[0] == 0
    (near,), (far,) = [[*(tmp_path / name).glob("*.parquet")] for name in ("near", "far")]
    assert near.read_bytes() == far.read_bytes()


@pytest.mark.long
@pytest.mark.parametrize(
    "packed",
    [
        pytest.param({}, id="alone", marks=pytest.mark.matrix),
        pytest.param({"pack__enabled": True, "pack__block": 4}, id="packed"),
    ],
)
def test_windows_train_with_times_and_previous_text(
    train: Trainer, tmp_path: Path, prepare: Prepare, packed: dict[str, Any]
):
    """The window of the tiny model has 5 s."""
    data = tmp_path / "talks"
    data.mkdir()
    for number in range(4):
        talk(data / f"{number}.wav", 40, 16_000, 1, number)
        cues = [(2 * n + 0.2, 2 * n + 1.8, "добры дзень") for n in range(19)]
        (data / f"{number}.srt").write_text(srt(*cues), encoding="utf-8")
    assert prepare(data, tmp_path / "out", windows="true", window_seconds=5)[0] == 0
    run = train(
        "run", steps=3, eval__every=0, data__path=tmp_path / "out", data__segments_column="segments",
        data__prompt_column="prompt", labels__timestamps_share=0.5, labels__prompt_share=0.5, **packed,
    )  # fmt: skip
    assert [row["unusable"] for row in metrics(run).values()] == [0] * 3


@pytest.mark.long
def test_the_library_datasets_reads_the_columns_of_windows(long_talks: Path, tmp_path: Path, prepare: Prepare):
    prepare(long_talks, tmp_path / "out", windows="true")
    files = sorted(str(path) for path in (tmp_path / "out").glob("*.parquet"))
    loaded = datasets.Dataset.from_parquet(files, cache_dir=str(tmp_path / "cache"))
    assert type(loaded.features["audio"]).__name__ == "Audio"
    assert loaded.select_columns(["segments"])[0]["segments"][0]["text"] == "слова 0 0"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"max_gap": 3}, "--max_gap 3.0"),
        ({"window_seconds": 20}, "--window_seconds 20.0"),
        ({"windows": "true", "window_seconds": 31}, "--window_seconds"),
        ({"windows": "true", "max_gap": -1}, "--max_gap"),
    ],
)
def test_settings_without_effect_or_sense_are_refused(
    corpus: Path, tmp_path: Path, prepare: Prepare, settings: dict[str, Any], told: str
):
    code, said = prepare(corpus / "test", tmp_path / "out", **settings)
    assert code == 2
    assert told in said
    assert not (tmp_path / "out").exists()


def test_a_setting_of_windows_that_changes_is_refused(long_talks: Path, tmp_path: Path, prepare: Prepare):
    prepare(long_talks, tmp_path / "out", windows="true", max_gap=2)
    code, said = prepare(long_talks, tmp_path / "out", windows="true")
    assert code == 2
    assert "--max_gap was 2.0, is None" in said


def test_no_window_of_a_source_without_times_longer_than_the_window(tmp_path: Path, prepare: Prepare):
    talk(tmp_path / "a.wav", 33, 8_000, 1)
    listed = write_lines(tmp_path / "list.jsonl", {"audio": "a.wav", "text": "усё"})
    code, said = prepare(listed, tmp_path / "out", windows="true")
    assert code == 4
    assert "left-out.jsonl" in said


def test_rows_of_a_source_are_those_of_the_recording_by_name(tmp_path: Path):
    talk(tmp_path / "a.wav", 9, 8_000, 1)
    (tmp_path / "a.srt").write_text(srt((1, 3, "раз"), (4, 6, "два")), encoding="utf-8")
    source = open_source(SourceConfig(path=str(tmp_path)))
    assert [(row.recording, row.offset, row.duration) for row in source.read(0)] == [("a.wav", 1, 2), ("a.wav", 4, 2)]
