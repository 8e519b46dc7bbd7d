"""Notes of a run about its data before the first step: leaks in indexes, rewritten labels, too small a cache."""

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import Trainer
from whisper_ft.config.data import DataConfig, SourceConfig, WeightedSourceConfig
from whisper_ft.data.leakage import shared_by_index
from whisper_ft.data.sources import open_mixture, open_source
from whisper_ft.training import data_summary


def manifest(folder: Path, name: str, clips: list[str]) -> SourceConfig:
    folder.mkdir(exist_ok=True)
    lines = [json.dumps({"audio": clip, "text": "так"}) for clip in clips]
    (folder / name).write_text("\n".join(lines) + "\n")
    return SourceConfig(path=str(folder / name))


def test_clips_of_one_name_in_both_sets_are_told_whatever_their_folder_and_type(tmp_path: Path):
    train = open_source(manifest(tmp_path, "train.jsonl", ["a/1.wav", "a/2.wav", "a/3.wav"]))
    heldout = open_source(manifest(tmp_path, "test.jsonl", ["b/2.mp3", "b/4.mp3"]))
    assert shared_by_index(train, heldout) == "1 file names or tables are in both, such as a/2.wav and b/2.mp3"
    assert shared_by_index(train, open_source(manifest(tmp_path, "other.jsonl", ["b/5.mp3"]))) == ""


def test_a_table_that_is_in_both_sets_is_told_also_under_another_name(tmp_path: Path, corpus: Path):
    shutil.copytree(corpus / "train", tmp_path / "train")
    shutil.copy(next((corpus / "validation").glob("*.parquet")), tmp_path / "train/train-9.parquet")
    train, heldout = (open_source(SourceConfig(path=str(path))) for path in (tmp_path / "train", corpus / "validation"))
    assert "1 file names or tables are in both, such as train-9.parquet and" in shared_by_index(train, heldout)
    assert shared_by_index(open_source(SourceConfig(path=str(corpus / "train"))), heldout) == ""


def test_a_mix_is_looked_through_as_well(tmp_path: Path, corpus: Path):
    clips = manifest(tmp_path, "train.jsonl", ["a/1.wav", "a/2.wav"])
    sources = [WeightedSourceConfig(path=clips.path), WeightedSourceConfig(path=str(corpus / "validation"))]
    mix = open_mixture(DataConfig(sources=sources))
    assert "such as 0/a/2.wav and b/2.mp3" in shared_by_index(
        mix, open_source(manifest(tmp_path, "t.jsonl", ["b/2.mp3"]))
    )
    assert shared_by_index(mix, open_source(SourceConfig(path=str(corpus / "validation"))))


@pytest.mark.parametrize(("gigabytes", "is_told"), [(1, False), (1e-4, True)])
def test_a_cache_that_cannot_hold_what_the_lanes_are_in_is_told(corpus: Path, gigabytes: float, is_told: bool):
    mix = open_mixture(DataConfig(path=str(corpus / "train")))
    assert mix.largest_chunk is not None
    assert ("chunks will be read again" in data_summary.cache_warning(mix, 5, gigabytes * 1e9)) == is_told


@pytest.mark.long
def test_a_start_tells_what_was_rewritten_and_what_may_be_trained_on(train: Trainer, corpus: Path):
    ended = train.end("run", steps=1, data__normalizer="golden", data__cache_gb=1e-6, eval__path=corpus / "train")
    assert ended.code == 0, ended.err
    assert "data.normalizer golden changes" in ended.out
    assert "is learned as" in ended.out
    assert "warning: held-out rows" in ended.out
    assert "data.cache_gb" in ended.out
    refused = train.end("run", steps=1, data__normalizer="lower")
    assert refused.code == 2
    assert "data.normalizer was 'golden' and is 'lower'" in refused.err
    unknown = train.end("other", steps=1, data__normalizer="gold")
    assert unknown.code == 2
    assert "did you mean 'golden'?" in unknown.err
    assert "keep" in unknown.err
