"""Sources: chunks and rows from an index, the same ids in every run, and clear words for what is not one."""

from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from whisper_ft.config import Source
from whisper_ft.failure import DataError, RunError, UsageError
from whisper_ft.sources import open_source

AUDIO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write(path: Path, rows: int, group: int = 10, **columns: list[object]) -> None:
    table = pa.table(
        {
            "audio": pa.array([{"bytes": f"{path.name}-{i}".encode(), "path": f"{i}.wav"} for i in range(rows)], AUDIO),
            "sentence": [f"сказ {i}" for i in range(rows)],
            **columns,
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=group)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "a.parquet", 25)
    write(tmp_path / "deep" / "b.parquet", 10)
    return tmp_path


def test_a_row_group_is_a_chunk_and_its_rows_come_in_order(folder: Path):
    source = open_source(Source(path=str(folder)))
    assert list(source.rows) == [10, 10, 5, 10]
    assert [row.audio for row in source.read(1)] == [f"a.parquet-{i}".encode() for i in range(10, 20)]
    assert source.read(3)[0].text == "сказ 0"


def test_an_id_names_file_and_row_and_needs_no_reading(folder: Path):
    source = open_source(Source(path=str(folder)))
    assert source.row_id(2, 4) == "a.parquet#24"
    assert source.row_id(3, 0) == "deep/b.parquet#0"
    for chunk, rows in enumerate(source.rows):
        assert [row.id for row in source.read(chunk)] == [source.row_id(chunk, row) for row in range(rows)]


@pytest.mark.parametrize("path", ["{}/a.parquet", "{}/*.parquet", "file://{}/a.parquet"])
def test_a_file_a_glob_and_an_address_name_the_same_rows(folder: Path, path: str):
    source = open_source(Source(path=path.format(folder)))
    assert sum(source.rows) == 25
    assert source.row_id(0, 0) == "a.parquet#0"


def test_any_file_system_of_fsspec_will_do(folder: Path):
    memory = fsspec.filesystem("memory")
    memory.pipe("/set/a.parquet", (folder / "a.parquet").read_bytes())
    source = open_source(Source(path="memory://set"))
    assert [row.text for row in source.read(2)] == [f"сказ {i}" for i in range(20, 25)]


def test_columns_of_language_task_and_speaker_are_read_where_they_are(tmp_path: Path):
    write(tmp_path / "a.parquet", 2, language=["be", "sv"], task=["transcribe", None], client_id=["m1", "f2"])
    rows = open_source(Source(path=str(tmp_path))).read(0)
    assert [(row.language, row.task, row.speaker) for row in rows] == [("be", "transcribe", "m1"), ("sv", None, "f2")]


def test_the_fingerprint_changes_with_the_data_and_with_nothing_else(folder: Path):
    before = open_source(Source(path=str(folder))).fingerprint()
    assert open_source(Source(path=str(folder))).fingerprint() == before
    write(folder / "deep" / "b.parquet", 11)
    assert open_source(Source(path=str(folder))).fingerprint() != before


def refused(path: Path | str, **settings: str) -> RunError:
    with pytest.raises(RunError) as error:
        open_source(Source(path=str(path), **settings))
    assert "\n" not in str(error.value)
    return error.value


def test_what_is_no_source_is_refused_in_one_line(folder: Path, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.parquet").write_text("not parquet")
    write(tmp_path / "none" / "none.parquet", 0)
    assert isinstance(refused(tmp_path / "empty"), UsageError)
    assert "holds no .parquet file" in str(refused(tmp_path / "empty"))
    assert "not a parquet file" in str(refused(tmp_path / "text.parquet"))
    assert isinstance(refused(tmp_path / "none"), DataError)
    wrong = refused(folder / "a.parquet", text_column="text")
    assert "has no column 'text'; set --data.text_column to one of audio, sentence" in str(wrong)
    assert "should be a struct with `bytes`" in str(refused(folder / "a.parquet", audio_column="sentence"))


def test_a_file_cut_short_after_it_was_indexed_is_a_data_error(folder: Path):
    source = open_source(Source(path=str(folder / "a.parquet")))
    whole = (folder / "a.parquet").read_bytes()
    (folder / "a.parquet").write_bytes(whole[: len(whole) // 4])
    with pytest.raises(DataError, match="row group 1 cannot be read"):
        source.read(1)


def test_a_hub_that_cannot_be_reached_is_a_data_error_in_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing listens on the discard port
    error = refused("hf://datasets/somebody/something@main/data/*.parquet")
    assert isinstance(error, DataError)
