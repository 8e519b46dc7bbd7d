"""Splits and configurations of a local copy of a data set: read as on the Hub, never a test split in silence."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.elsewhere import AUDIO
from whisper_ft.config.data import SourceConfig
from whisper_ft.data.formats.parquet_splits import splits_by_name
from whisper_ft.data.sources import open_source
from whisper_ft.runtime.errors import UsageError

SHARD = "-00000-of-00001.parquet"
CARD = """---
language: [be]
configs:
- config_name: one
  data_files:
  - split: train
    path: files/a-*.parquet
  - split: no
    path: [files/b-*.parquet]
- config_name: two
  default: true
  data_files: files/c-*
---
# A card
"""


def copied(folder: Path, *names: str, card: str = "") -> Path:
    """A folder with parquet files of one row each, whose text is the name of the file."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        audio = pa.array([{"bytes": b"RIFF", "path": None}], AUDIO)
        pq.write_table(pa.table({"audio": audio, "text": [name]}), folder / name)
    if card:
        (folder / "README.md").write_text(card, encoding="utf-8")
    return folder


def texts_of(path: Path | str, **settings: Any) -> list[str]:
    source = open_source(SourceConfig(path=str(path), **settings))
    return [row.text for chunk in range(len(source.rows)) for row in source.read(chunk)]


BY_NAME = [f"be/test{SHARD}", f"be/train{SHARD}", f"sv/test{SHARD}", f"sv/train{SHARD}"]


@pytest.mark.parametrize(
    ("settings", "files"),
    [
        ({}, [1, 3]),
        ({"split": "test"}, [0, 2]),
        ({"split": "train+test"}, [0, 1, 2, 3]),
        ({"split": "all"}, [0, 1, 2, 3]),
        ({"config_name": "sv"}, [3]),
        ({"config_name": "be", "split": "test"}, [0]),
        ({"config_name": "be", "split": "all"}, [0, 1]),
    ],
)
def test_files_are_chosen_by_their_names(tmp_path: Path, settings: dict[str, str], files: list[int]):
    assert texts_of(copied(tmp_path, *BY_NAME), **settings) == [BY_NAME[number] for number in files]


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"split": "dev"}, "train, test|test, train"), ({"config_name": "pl"}, "be, sv"), ({"config_name": "test"}, "be")],
)
def test_what_is_not_there_is_refused_with_what_is(tmp_path: Path, settings: dict[str, str], named: str):
    with pytest.raises(UsageError, match=named):
        texts_of(copied(tmp_path, *BY_NAME), **settings)


def test_a_folder_without_splits_refuses_a_split(tmp_path: Path):
    folder = copied(tmp_path, "a.parquet", "b.parquet")
    assert texts_of(folder) == ["a.parquet", "b.parquet"]
    for settings in ({"split": "test"}, {"split": "train"}, {"config_name": "be"}):
        with pytest.raises(UsageError, match=f"--data.{next(iter(settings))} "):
            texts_of(folder, **settings)


def test_files_of_no_split_beside_a_test_split_are_not_read_in_silence(tmp_path: Path):
    folder = copied(tmp_path, "more.parquet", "my-test.parquet")
    with pytest.raises(UsageError, match=r"--data.split to one of test"):
        texts_of(folder)
    assert texts_of(folder, split="test") == ["my-test.parquet"]
    assert texts_of(f"{folder}/*.parquet") == ["more.parquet", "my-test.parquet"], "a glob names the files"


def test_a_file_of_another_split_than_asked_is_refused(tmp_path: Path):
    folder = copied(tmp_path, "train.parquet")
    assert texts_of(folder / "train.parquet", split="train") == ["train.parquet"]
    with pytest.raises(UsageError, match="'test'"):
        texts_of(folder / "train.parquet", split="test")


def test_the_only_split_is_read_unasked_and_told(tmp_path: Path):
    source = open_source(SourceConfig(path=str(copied(tmp_path, f"test{SHARD}"))))
    assert (source.used.split, source.used.other_splits) == ("test", None)


def test_splits_that_are_left_out_unasked_are_told(tmp_path: Path):
    source = open_source(SourceConfig(path=str(copied(tmp_path, "train.parquet", "dev.parquet"))))
    assert (source.used.split, source.used.other_splits) == ("train", "validation")


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({}, "c-0"),
        ({"config_name": "one"}, "a-0"),
        ({"config_name": "one", "split": "no"}, "b-0"),
        ({"config_name": "two", "split": "train"}, "c-0"),
    ],
)
def test_the_card_of_a_data_set_names_its_configurations(tmp_path: Path, settings: dict[str, str], text: str):
    names = [f"files/{name}-0.parquet" for name in "abc"]
    assert texts_of(copied(tmp_path, *names, card=CARD), **settings) == [f"files/{text}.parquet"]


@pytest.mark.parametrize("card", ["# no metadata", "---\n: [\n---\n", "---\nconfigs: 7\n---\n", "---\nlanguage: be\n"])
def test_a_card_that_names_no_configurations_changes_nothing(tmp_path: Path, card: str):
    assert texts_of(copied(tmp_path, *BY_NAME, card=card), config_name="be", split="test") == [BY_NAME[0]]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        (f"data/other{SHARD}", "other"),
        (f"part{SHARD}", None),
        ("be/train/0000.parquet", "train"),
        ("be/partial-train/0000.parquet", "train"),
        ("dev_2.parquet", "validation"),
        ("evaluation/x.parquet", "test"),
        ("contest.parquet", None),
        ("testing-set/train.parquet", "test"),
    ],
)
def test_a_name_means_the_split_that_it_means_on_the_hub(name: str, split: str | None):
    assert splits_by_name([name]) == {split: [name]}
