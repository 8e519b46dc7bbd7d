"""Segments of a list: only an offset cuts a file, and a line that does not fit its table is not learned."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.conftest import Trainer
from whisper_ft.cli.doctor.__main__ import main as doctor
from whisper_ft.config.data import DataConfig, SourceConfig, WeightedSourceConfig
from whisper_ft.config.resume_policy import as_resumed, refuse_changes
from whisper_ft.config.training import TrainingConfig
from whisper_ft.config.tree import to_plain
from whisper_ft.data.audio.decode import decode
from whisper_ft.data.formats.mixture import MixedSource
from whisper_ft.data.sources import open_mixture
from whisper_ft.data.stated_durations import first_durations
from whisper_ft.data.types import Row

RATE = 16_000
SECONDS = 2.9  # of each clip


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips 0.wav to 2.wav of 2.9 s, and a recording long.wav of 20 s."""
    folder = tmp_path_factory.mktemp("clips")
    for name, seconds in (("0", SECONDS), ("1", SECONDS), ("2", SECONDS), ("long", 20.0)):
        noise = np.random.default_rng(1).uniform(-0.5, 0.5, round(seconds * RATE))
        soundfile.write(folder / f"{name}.wav", noise, RATE)
    return folder


def opened(folder: Path, name: str, *lines: str, **settings: Any) -> MixedSource:
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return open_mixture(DataConfig(path=str(folder if name == "metadata.csv" else path), **settings))


def heard(rows: list[Row]) -> list[float]:
    """Seconds of each row's audio."""
    assert [row.problem for row in rows] == [None] * len(rows)
    return [len(decode(row.audio, RATE, 30.0, row.offset, row.duration)) / RATE for row in rows]


INFORMATION: list[tuple[str, list[str]]] = [
    ("duration", ["2", "2", "3"]),
    ("duration", ["0:02", "0:00:02.9", "00:03"]),
    ("duration", ["2,9", "2,90", "3,0"]),
    ("duration", ["2.9s", "unknown", ""]),
    ("start duration", ["61.5 2.9", "0.5 2.9", "903 2.9"]),
    ("start duration", ["0 2", "3 2", "6 2"]),
    ("start_time end_time", ["10 12.9", "12.9 15.8", "15.8 18.7"]),
    ("start end", ["00:10 00:13", "01:00 01:03", "02:10 02:13"]),
    ("start", ["10", "20", "30"]),
    ("end", ["2", "2", "2"]),
]


@pytest.mark.parametrize(("columns", "values"), INFORMATION)
@pytest.mark.parametrize("name", ["metadata.csv", "list.tsv"])
def test_a_duration_without_an_offset_cuts_no_file(clips: Path, name: str, columns: str, values: list[str]):
    table = [["file_name", "text", *columns.split()]]
    table += [[f"{number}.wav", "так", *value.split(" ")] for number, value in enumerate(values)]
    separator, quote = (",", '"') if name.endswith(".csv") else ("\t", "")
    lines = [separator.join(f"{quote}{cell}{quote}" for cell in cells) for cells in table]
    assert heard(list(opened(clips, name, *lines).read(0))) == pytest.approx([SECONDS] * 3)


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({"offset": 2.5, "duration": 1.25}, 1.25),
        ({"offset": 0, "duration": 2}, 2),
        ({"offset": 19}, 1),
        ({"start": 2, "end": 4.5}, 2.5),
        ({"start": "2", "duration": "4"}, 4),
        ({"audio": {"path": "long.wav", "start_time": 4.0, "end_time": 5.0}}, 1),
    ],
)
def test_an_offset_cuts_a_recording(clips: Path, fields: dict[str, Any], seconds: float):
    line = json.dumps({"audio": "long.wav", "text": "так"} | fields)
    assert heard(list(opened(clips, "list.jsonl", line).read(0))) == [pytest.approx(seconds)]


def test_two_starts_in_one_file_are_places_in_it(clips: Path):
    lines = ["path,text,start,duration", "long.wav,a,0,2.9", "long.wav,b,2.9,2.9", "0.wav,c,0.5,2"]
    assert heard(list(opened(clips, "list.csv", *lines).read(0))) == pytest.approx([2.9, 2.9, 2])


def test_durations_that_files_do_not_have_are_told_once_with_figures(clips: Path):
    lines = ["file_name,text,duration", "0.wav,a,2", "1.wav,b,0:02.9", "2.wav,c,9"]
    (line,) = first_durations(opened(clips, "metadata.csv", *lines).parts)
    for fact in ("2 of 3", "2.wav", "9 s", "2.90 s"):
        assert fact in line
    assert not list(first_durations(opened(clips, "metadata.csv", *lines[:1], *["1.wav,b,2.7"] * 3).parts))


def test_the_meaning_of_start_is_told(clips: Path):
    (note,) = opened(clips, "list.csv", "path,text,start,duration", "0.wav,a,61.5,2.9").notes
    assert "`start`" in note
    assert "`offset`" in note
    assert not opened(clips, "list.csv", "path,text,duration", "0.wav,a,2.9").notes


# The digest of this list in a checkpoint of before `data.reading`.
EARLIER = ["file_name,text,duration,start,Speaker", "0.wav,a,2,0.5,m", "1.wav,b,0:02,,f", "2.wav,c,1.5,,m"]
EARLIER_DIGEST = "4b0e8d65d9442a88"


def test_a_run_begun_by_the_earlier_rules_reads_as_it_began(clips: Path):
    saved = to_plain(TrainingConfig(data=DataConfig(path="list.csv")))
    del saved["data"]["reading"]
    config = as_resumed(TrainingConfig(data=DataConfig(path="list.csv")), (), saved)
    assert config.data.reading == 1
    assert refuse_changes(saved, config) == []
    source = opened(clips, "list.csv", *EARLIER, reading=1)
    assert source.fingerprint()["digest"] == EARLIER_DIGEST
    assert [(row.offset, row.duration, row.problem and row.problem[0]) for row in source.read(0)] == [
        (0.5, 2.0, None),
        (0.0, None, "bad_segment"),
        (0.0, 1.5, None),
    ]
    assert "data.reading 1" in source.notes[0]


def test_the_sources_of_an_earlier_mixture_read_as_they_began():
    data = DataConfig(sources=[WeightedSourceConfig(path="a"), WeightedSourceConfig(path="b", weight=2)])
    saved = to_plain(TrainingConfig(data=data))
    for section in (saved["data"], *saved["data"]["sources"]):
        del section["reading"]
    config = as_resumed(TrainingConfig(data=data), (), saved)
    assert [source.reading for source in config.data.sources] == [1, 1]
    assert refuse_changes(saved, config) == []
    assert SourceConfig().reading == 2


def test_the_doctor_tells_durations_once(clips: Path, micro_whisper: Path, capsys: pytest.CaptureFixture[str]):
    (clips / "metadata.csv").write_text("file_name,text,duration\n0.wav,добры,2\n1.wav,дзень,0:02\n")
    arguments = ["--model.name", str(micro_whisper), "--data.path", str(clips), "--data.language", "be"]
    assert doctor([*arguments, "--leakage", "none"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "`duration`" in line]
    assert "2 of 2 rows" in line


@pytest.mark.long
def test_the_start_of_a_run_and_its_resume_tell_how_lists_are_read(train: Trainer, clips: Path, tmp_path: Path):
    lines = ["path,text,start,duration", *(f"{clips}/{n}.wav,так,{60 * n + 1},2" for n in range(3))]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    settings = {"data__path": tmp_path / "list.csv", "data__audio_root": clips, "eval__every": 0, "batch__size": 2}
    started = train.end("run", steps=2, **settings, batch__per_device=2)
    assert started.code == 0, started.err
    assert "`start` is no place" in started.out
    assert "3 of 3 rows" in started.out
    resumed = train.end("run", steps=3, **settings, batch__per_device=2, allow_change="[steps]")
    assert resumed.code == 0, resumed.err
    assert "`start` is no place" in resumed.out
    earlier = train.end("run", steps=3, **settings, batch__per_device=2, data__reading=1)
    assert earlier.code == 2
