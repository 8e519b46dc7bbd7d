"""Every format is detected from the names of real files, and its first row is decoded."""

import csv
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from datasets import Dataset, DatasetDict

from whisper_ft.config.data import SourceConfig
from whisper_ft.data.audio.decode import decode
from whisper_ft.data.formats.detect import format_of
from whisper_ft.data.sources import open_source
from whisper_ft.runtime.errors import UsageError

TEXT = "Раз’яднаць!"


def clip(kind: str = "WAV") -> bytes:
    """A second of sound."""
    file = io.BytesIO()
    soundfile.write(file, 0.3 * np.sin(np.arange(16000) / 20), 16000, format=kind)
    return file.getvalue()


def table(path: Path, delimiter: str, /, **row: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, row, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL, lineterminator="\n")
        writer.writeheader()
        writer.writerow(row)


def audio(path: Path, kind: str = "WAV") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(clip(kind))
    return path


def common_voice(folder: Path) -> Path:
    audio(folder / "cv-corpus-25.0-2026-03-01/be/clips/a.mp3", "MP3")
    table(
        folder / "cv-corpus-25.0-2026-03-01/be/train.tsv", "\t", client_id="1", path="a.mp3", sentence=TEXT, locale="be"
    )
    return folder


def common_voice_archive(folder: Path) -> Path:
    common_voice(folder / "x")
    with tarfile.open(folder / "be.tar.gz", "w:gz") as archive:
        archive.add(folder / "x/cv-corpus-25.0-2026-03-01", "cv-corpus-25.0-2026-03-01")
    shutil.rmtree(folder / "x")
    return folder / "be.tar.gz"


def webdataset(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    with tarfile.open(folder / "train-000.tar", "w") as shard:
        for name, content in (("a.flac", clip("FLAC")), ("a.txt", TEXT.encode())):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            shard.addfile(member, io.BytesIO(content))
    return folder


def json_lines(folder: Path) -> Path:
    audio(folder / "wavs/a.wav")
    line = {"audio_filepath": "wavs/a.wav", "text": TEXT, "duration": 1.0}
    (folder / "train.jsonl").write_text(json.dumps(line, ensure_ascii=False) + "\n", encoding="utf-8")
    return folder / "train.jsonl"


def separated(suffix: str, delimiter: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        audio(folder / "a.wav")
        table(folder / f"train.{suffix}", delimiter, path="a.wav", sentence=TEXT)
        return folder / f"train.{suffix}"

    return write


def audiofolder(folder: Path) -> Path:
    audio(folder / "a.wav")
    table(folder / "metadata.csv", ",", file_name="a.wav", transcription=TEXT)
    return folder


def kaldi(folder: Path) -> Path:
    audio(folder / "a.wav")
    (folder / "wav.scp").write_text("utt a.wav\n")
    (folder / "text").write_text(f"utt {TEXT}\n", encoding="utf-8")
    return folder


def saved(folder: Path) -> Path:
    Dataset.from_list([{"audio": {"bytes": clip(), "path": "a.wav"}, "sentence": TEXT}]).save_to_disk(folder / "set")
    return folder / "set"


def parquet(folder: Path) -> Path:
    Dataset.from_list([{"audio": {"bytes": clip(), "path": "a.wav"}, "sentence": TEXT}]).to_parquet(
        folder / "x.parquet"
    )
    return folder


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (parquet, "parquet"),
        (common_voice, "common_voice"),
        (common_voice_archive, "common_voice"),
        (webdataset, "webdataset"),
        (json_lines, "manifest"),
        (separated("csv", ","), "manifest"),
        (separated("tsv", "\t"), "manifest"),
        (audiofolder, "audiofolder"),
        (kaldi, "kaldi"),
        (saved, "saved_dataset"),
    ],
)
def test_each_format_is_seen_for_what_it_is_and_its_first_row_is_heard(
    tmp_path: Path, write: Callable[[Path], Path], name: str
):
    path = str(write(tmp_path))
    assert format_of(path) == name
    source = open_source(SourceConfig(path=path))
    (row,) = source.read(0)
    assert (row.text, row.problem) == (TEXT, None)
    assert row.id == source.row_id(0, 0)
    assert len(decode(row.audio, 16000, 5.0)) == pytest.approx(16000, abs=1500)  # mp3 pads


def test_audio_without_transcripts_is_refused_with_the_file_that_is_missing(tmp_path: Path):
    (tmp_path / "clip.mp3").touch()
    with pytest.raises(UsageError, match=r"audio without transcripts, such as clip\.mp3; put clip\.txt"):
        format_of(str(tmp_path))


def test_a_saved_dict_of_splits_is_one_too(tmp_path: Path):
    DatasetDict({"train": Dataset.from_dict({"x": [1]})}).save_to_disk(tmp_path / "set")
    assert format_of(str(tmp_path / "set")) == "saved_dataset"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("google/fleurs", "hub"),
        ("hf://datasets/a/b/*.parquet", "parquet"),
        ("https://example.org/a/train.tar", "webdataset"),
        ("memory://x/shard-{000..012}.tar", "webdataset"),
        ("cv-corpus-25.0-2026-03-01-be.tar", "common_voice"),
        ("a/b/manifest.jsonl.gz", "manifest"),
    ],
)
def test_an_address_is_judged_by_its_name(path: str, name: str):
    assert format_of(path) == name


def test_what_is_nothing_known_is_refused_with_all_that_is(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(UsageError, match=r"parquet files, a data set on the Hub.*Kaldi.*--data\.format"):
        format_of(str(tmp_path))
