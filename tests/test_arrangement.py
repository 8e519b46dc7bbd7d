"""`prepare --by` and `--split`: rows of one speaker or recording beside each other, and never in two splits."""

from collections import Counter, defaultdict
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from tests.elsewhere import AUDIO
from tests.preparing import Prepare, stopped_after_each_file
from tests.test_prepare import files_of, write_lines
from tests.test_windows import records, srt, talk
from whisper_ft.cli.prepare.arrangement import split_by_hash
from whisper_ft.config.data import SourceConfig
from whisper_ft.data.labels.previous_text import previous_texts
from whisper_ft.data.sources import open_source

SPLIT = "train=0.6,validation=0.2,test=0.2"


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """60 rows of 5 speakers in any order: parts of 6 recordings, some without a speaker, one without a file."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    for number in range(6):
        noise = np.random.default_rng(number).uniform(-0.5, 0.5, 8_000 * 12)
        soundfile.write(folder / f"{number}.wav", noise, 8_000)
    order = np.random.default_rng(0).permutation(60)
    lines = [
        {"audio": f"{n % 6}.wav", "text": f"r{n % 6} {n // 6}", "offset": n // 6, "duration": 0.9}
        | ({"speaker": f"s{n % 6}"} if n % 6 != 5 else {})
        for n in order.tolist()
    ]
    lines.insert(7, {"audio": "gone.wav", "text": "x"})
    return write_lines(folder / "list.jsonl", *lines)


def speaker_of(text: str) -> str:
    return text.split()[0]


def test_rows_of_a_speaker_stand_beside_each_other_by_time(mixed: Path, tmp_path: Path, prepare: Prepare):
    code, said = prepare(mixed, tmp_path / "out", by="speaker", group_mb=0.1, shard_mb=0.3)
    assert code == 0
    assert "60 rows" in said
    assert "1 row left out (missing_file 1)" in said
    rows = records(tmp_path / "out")
    runs = [(name, [row["sentence"] for row in run]) for name, run in groupby(rows, lambda row: row["client_id"])]
    assert [len(run) for _, run in runs] == [10] * 6
    assert all(run == sorted(run) for _, run in runs)
    assert "start" not in rows[0]
    assert len(list((tmp_path / "out").glob("train-*.parquet"))) > 1
    assert not list((tmp_path / "out").glob("*.part"))
    prepare(mixed, tmp_path / "plain")
    assert Counter(str(row) for row in rows) == Counter(str(row) for row in records(tmp_path / "plain"))


def test_previous_text_is_that_of_the_same_speaker(mixed: Path, tmp_path: Path, prepare: Prepare):
    prepare(mixed, tmp_path / "out", by="speaker")
    rows = open_source(SourceConfig(path=str(tmp_path / "out"))).read(0)
    for index, row in enumerate(rows):
        before = previous_texts(rows, index)
        earlier = [other.text for other in rows[:index] if other.speaker == row.speaker and row.speaker]
        assert before == earlier


@pytest.mark.parametrize("by", [None, "recording", "speaker"])
def test_no_recording_and_no_speaker_is_in_two_splits(mixed: Path, tmp_path: Path, prepare: Prepare, by: str | None):
    settings = {"split": SPLIT} | ({"by": by} if by else {})
    code, said = prepare(mixed, tmp_path / "out", **settings)
    assert code == 0
    splits = defaultdict(set)
    for path in (tmp_path / "out").glob("*.parquet"):
        for row in pq.read_table(path).to_pylist():
            splits[path.name.partition("-")[0]].add(speaker_of(row["sentence"]))
    assert set(splits) == {"train", "validation", "test"}
    assert sum(map(len, splits.values())) == 6
    counts = {name: 10 * len(speakers) for name, speakers in splits.items()}
    assert f"(train {counts['train']}, validation {counts['validation']}, test {counts['test']})" in said
    for split, count in counts.items():
        assert sum(open_source(SourceConfig(path=str(tmp_path / "out"), split=split)).rows) == count


def test_all_windows_of_recordings_that_share_a_speaker_are_in_one_split(tmp_path: Path, prepare: Prepare):
    data = tmp_path / "talks"
    data.mkdir()
    for number in range(8):
        talk(data / f"{number}.wav", 70, 8_000, 1, number)
        cues = [(20 * n + 1, 20 * n + 19, f"r{number}") for n in range(3)]
        text = srt(*cues).replace(f"r{number}", f"<v s{number // 2}>r{number}", 1)
        (data / f"{number}.srt").write_text(text, encoding="utf-8")
    assert prepare(data, tmp_path / "out", windows="true", by="speaker", split="train=0.5,test=0.5")[0] == 0
    by_split = {
        split: {int(row["recording"][0]) // 2 for row in records_of(tmp_path / "out", split)}
        for split in ("train", "test")
    }
    assert by_split["train"]
    assert by_split["test"]
    assert not by_split["train"] & by_split["test"]


def records_of(out: Path, split: str) -> list[dict[str, Any]]:
    return [row for path in sorted(out.glob(f"{split}-*.parquet")) for row in pq.read_table(path).to_pylist()]


def test_a_name_keeps_its_split_when_others_are_added():
    names = [f"talk-{n}.mp3" for n in range(400)]
    few, many = split_by_hash(names[:200], [0.8, 0.1, 0.1]), split_by_hash(names, [0.8, 0.1, 0.1])
    assert all(many[name] == split for name, split in few.items())
    counts = Counter(many.values())
    assert counts[0] == pytest.approx(320, abs=30)
    assert counts[1] == pytest.approx(40, abs=20)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_few_names_fill_all_splits_as_far_as_they_reach(count: int):
    chosen = split_by_hash([f"n{n}" for n in range(count)], [0.9, 0.05, 0.05])
    assert len(set(chosen.values())) == min(count, 3)


@pytest.mark.long
def test_interrupted_after_any_file_it_goes_on_to_the_same_bytes(
    mixed: Path, tmp_path: Path, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
):
    settings = {"by": "speaker", "split": SPLIT, "group_mb": 0.05, "shard_mb": 0.12}
    assert prepare(mixed, tmp_path / "whole", **settings)[0] == 0
    whole, out = files_of(tmp_path / "whole"), tmp_path / "out"
    assert stopped_after_each_file(prepare, mixed, out, monkeypatch, **settings) > 6
    assert files_of(out) == whole
    before = files_of(out)
    assert prepare(mixed, out, **settings)[1].startswith("nothing to do: ")
    assert files_of(out) == before


def test_rows_of_parquet_are_arranged_too(tmp_path: Path, prepare: Prepare, corpus: Path):
    table = pa.concat_tables(map(pq.read_table, sorted((corpus / "test").glob("*.parquet"))))
    speakers = [f"s{n % 3}" for n in range(table.num_rows)]
    audio = pa.array(table.column("audio").to_pylist(), AUDIO)
    pq.write_table(
        pa.table({"audio": audio, "sentence": table.column("sentence"), "speaker_id": speakers}),
        tmp_path / "in.parquet",
        row_group_size=4,
    )
    assert prepare(tmp_path / "in.parquet", tmp_path / "out", by="speaker")[0] == 0
    assert [row["client_id"] for row in records(tmp_path / "out")] == sorted(speakers)


def test_rows_without_any_speaker_cannot_be_arranged_by_speaker(tmp_path: Path, prepare: Prepare):
    talk(tmp_path / "a.wav", 2, 8_000, 1)
    listed = write_lines(tmp_path / "list.jsonl", {"audio": "a.wav", "text": "так"})
    code, said = prepare(listed, tmp_path / "out", by="speaker")
    assert code == 4
    assert "--by speaker" in said


@pytest.mark.parametrize(
    "split", ["train", "train=0.9", "train=0.9,train=0.1", "train=0.9,other=0.1", "train=1.5,test=-0.5", "train=x", ""]
)
def test_a_split_that_makes_no_sense_is_refused(corpus: Path, tmp_path: Path, prepare: Prepare, split: str):
    code, said = prepare(corpus / "test", tmp_path / "out", split=split)
    assert code == 2
    assert "--split" in said
    assert not (tmp_path / "out").exists()
