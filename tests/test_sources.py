"""Sources: chunks and rows from an index, the same ids in every run, and clear words for what is not one."""

from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests import loopback
from whisper_ft.config.data import SourceConfig
from whisper_ft.data.formats.columns import TEXT_COLUMNS
from whisper_ft.data.sources import open_source
from whisper_ft.runtime.errors import DataError, RunError, UsageError

AUDIO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write(path: Path, rows: int, group: int = 10, drop: tuple[str, ...] = (), **columns: Any) -> None:
    given = {
        "audio": pa.array([{"bytes": f"{path.name}-{i}".encode(), "path": f"{i}.wav"} for i in range(rows)], AUDIO),
        "sentence": [f"сказ {i}" for i in range(rows)],
        **columns,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({name: values for name, values in given.items() if name not in drop})
    pq.write_table(table, path, row_group_size=group)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "a.parquet", 25)
    write(tmp_path / "deep" / "b.parquet", 10)
    return tmp_path


def test_a_row_group_is_a_chunk_and_its_rows_come_in_order(folder: Path):
    source = open_source(SourceConfig(path=str(folder)))
    assert list(source.rows) == [10, 10, 5, 10]
    assert [row.audio for row in source.read(1)] == [f"a.parquet-{i}".encode() for i in range(10, 20)]
    assert source.read(3)[0].text == "сказ 0"


def test_an_id_names_file_and_row_and_needs_no_reading(folder: Path):
    source = open_source(SourceConfig(path=str(folder)))
    assert source.row_id(2, 4) == "a.parquet#24"
    assert source.row_id(3, 0) == "deep/b.parquet#0"
    for chunk, rows in enumerate(source.rows):
        assert [row.id for row in source.read(chunk)] == [source.row_id(chunk, row) for row in range(rows)]


@pytest.mark.parametrize("path", ["{}/a.parquet", "{}/*.parquet", "file://{}/a.parquet"])
def test_a_file_a_glob_and_an_address_name_the_same_rows(folder: Path, path: str):
    source = open_source(SourceConfig(path=path.format(folder)))
    assert sum(source.rows) == 25
    assert source.row_id(0, 0) == "a.parquet#0"


def test_a_name_that_is_there_is_meant_literally_also_when_it_could_be_a_glob(folder: Path, tmp_path: Path):
    odd = tmp_path / "br[1]"
    write(odd / "deep*" / "a?[2].parquet", 3)
    for path in (odd, odd / "deep*", odd / "deep*" / "a?[2].parquet"):
        source = open_source(SourceConfig(path=str(path)))
        assert [row.text for row in source.read(0)] == ["сказ 0", "сказ 1", "сказ 2"]
    assert source.row_id(0, 0) == "a?[2].parquet#0"


@pytest.mark.parametrize("pattern", ["?.parquet", "[ab].parquet", "[!b].parquet", "**/a.parquet", "a.parque?"])
def test_what_is_not_there_by_name_is_a_glob(folder: Path, pattern: str):
    assert sum(open_source(SourceConfig(path=f"{folder}/{pattern}")).rows) == 25


@pytest.mark.long
def test_of_a_file_behind_http_only_what_is_needed_is_downloaded(tmp_path: Path):
    megabytes = [{"bytes": bytes([i]) * 2**20, "path": None} for i in range(32)]
    write(tmp_path / "a.parquet", 32, group=1, audio=pa.array(megabytes, AUDIO))
    pq.write_table(pq.read_table(tmp_path / "a.parquet"), tmp_path / "a.parquet", row_group_size=1, compression="none")
    content, sent = (tmp_path / "a.parquet").read_bytes(), 0

    class Ranges(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            nonlocal sent
            first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
            part = content[int(first) : int(last) + 1 if last else None]
            self.send_response(206 if "Range" in self.headers else 200)
            self.send_header("Content-Length", str(len(part)))
            self.send_header("Accept-Ranges", "bytes")
            self.end_headers()
            with suppress(OSError):  # who only wanted the header hangs up
                for at in range(0, len(part) if self.command == "GET" else 0, 2**16):
                    sent += self.wfile.write(part[at : at + 2**16])

        def do_HEAD(self) -> None:
            self.do_GET()

    with loopback.served(Ranges) as port:
        source = open_source(SourceConfig(path=f"http://127.0.0.1:{port}/a.parquet"))
        assert source.read(5)[0].audio == megabytes[5]["bytes"]
    assert len(source.rows) == 32
    assert sent < 16 * 2**20, "bytes: a row group, the footer, and what the sockets held when the header was had"


def test_any_file_system_of_fsspec_will_do(folder: Path):
    memory = fsspec.filesystem("memory")
    memory.pipe("/set/a.parquet", (folder / "a.parquet").read_bytes())
    source = open_source(SourceConfig(path="memory://set"))
    assert [row.text for row in source.read(2)] == [f"сказ {i}" for i in range(20, 25)]


def test_columns_of_language_task_and_speaker_are_read_where_they_are(tmp_path: Path):
    write(tmp_path / "a.parquet", 2, language=["be", "sv"], task=["transcribe", None], client_id=["m1", "f2"])
    rows = open_source(SourceConfig(path=str(tmp_path))).read(0)
    assert [(row.language, row.task, row.speaker) for row in rows] == [("be", "transcribe", "m1"), ("sv", None, "f2")]


def test_an_optional_column_is_none_in_the_files_that_lack_it(tmp_path: Path):
    write(tmp_path / "a.parquet", 1)
    write(tmp_path / "b.parquet", 1, language=["sv"], client_id=[7])
    write(tmp_path / "c.parquet", 1, language=pa.nulls(1), task=["translate"], client_id=pa.nulls(1, pa.int64()))
    source = open_source(SourceConfig(path=str(tmp_path)))
    rows = [source.read(chunk)[0] for chunk in range(3)]
    assert [(row.language, row.task, row.speaker) for row in rows] == [
        (None, None, None),
        ("sv", None, "7"),
        (None, "translate", None),
    ]


@pytest.mark.parametrize("kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())])
def test_text_is_read_from_each_type_that_holds_text(tmp_path: Path, kind: pa.DataType):
    write(tmp_path / "a.parquet", 2, sentence=pa.array(["так", None], kind), language=pa.array(["be", None], kind))
    rows = open_source(SourceConfig(path=str(tmp_path))).read(0)
    assert [(row.text, row.language) for row in rows] == [("так", "be"), ("", None)]


@pytest.mark.parametrize("kind", [pa.large_binary(), pa.binary_view()])
def test_audio_is_read_from_each_type_that_holds_bytes(tmp_path: Path, kind: pa.DataType):
    write(tmp_path / "a.parquet", 1, audio=pa.array([{"bytes": b"RIFF"}], pa.struct([("bytes", kind)])))
    assert open_source(SourceConfig(path=str(tmp_path))).read(0)[0].audio == b"RIFF"


NO_BYTES = pa.array([{"path": "0.wav"}], pa.struct([("path", pa.string())]))
TEXT_BYTES = pa.array([{"bytes": "RIFF"}], pa.struct([("bytes", pa.string())]))


@pytest.mark.parametrize(
    ("changed", "facts"),
    [
        (
            {"drop": ("sentence",)},
            [", ".join(TEXT_COLUMNS), "--data.text_column"],
        ),
        ({"drop": ("audio",)}, ["--data.audio_column to one of sentence"]),
        ({"sentence": [5]}, ["'sentence'", "int64", "--data.text_column"]),
        ({"sentence": [["так"]]}, ["'sentence'", "list<", "--data.text_column"]),
        ({"audio": NO_BYTES}, ["'audio'", "struct<path: string>", "--data.audio_column"]),
        ({"audio": TEXT_BYTES}, ["'audio'", "struct<bytes: string>", "--data.audio_column"]),
        ({"language": [3]}, ["'language'", "int64", "--data.language"]),
    ],
)
@pytest.mark.parametrize("name", ["a.parquet", "z.parquet"])  # before the good file and after it
def test_a_file_that_cannot_be_used_is_named_before_the_run(
    tmp_path: Path, changed: dict[str, Any], facts: list[str], name: str
):
    write(tmp_path / "good.parquet", 3)
    write(tmp_path / name, 1, **changed)
    error = refused(tmp_path)
    assert isinstance(error, UsageError)
    assert str(error).startswith(f"{tmp_path / name}: ")
    assert not [fact for fact in facts if fact not in str(error)], error


def test_a_file_without_rows_may_lack_everything(tmp_path: Path):
    write(tmp_path / "a.parquet", 0, drop=("audio",), sentence=pa.nulls(0))
    write(tmp_path / "b.parquet", 1)
    source = open_source(SourceConfig(path=str(tmp_path)))
    assert [row.text for chunk in range(len(source.rows)) for row in source.read(chunk)] == ["сказ 0"]


def test_text_that_is_not_utf8_is_a_data_error(tmp_path: Path):
    write(tmp_path / "a.parquet", 12, sentence=["так"] * 11 + ["zzzz"])
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(whole.replace(b"zzzz", b"\xff\xfe\xfd\xfc"))
    source = open_source(SourceConfig(path=str(tmp_path)))
    assert len(source.read(0)) == 10
    with pytest.raises(DataError, match="row group 1 cannot be read"):
        source.read(1)


def test_the_fingerprint_changes_with_the_data_and_with_nothing_else(folder: Path):
    before = open_source(SourceConfig(path=str(folder))).fingerprint()
    assert open_source(SourceConfig(path=str(folder))).fingerprint() == before
    write(folder / "deep" / "b.parquet", 11)
    assert open_source(SourceConfig(path=str(folder))).fingerprint() != before


def refused(path: Path | str, **settings: str) -> RunError:
    with pytest.raises(RunError) as error:
        open_source(SourceConfig(path=str(path), **settings))
    assert "\n" not in str(error.value)
    return error.value


def test_what_is_no_source_is_refused_in_one_line(folder: Path, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.parquet").write_text("not parquet")
    write(tmp_path / "none" / "none.parquet", 0)
    assert isinstance(refused(tmp_path / "empty"), UsageError)
    assert "parquet files, a data set on the Hub" in str(refused(tmp_path / "empty")), "the known formats"
    assert isinstance(refused(tmp_path / "empty", format="parquet"), UsageError)
    damaged = refused(tmp_path / "text.parquet")
    assert isinstance(damaged, DataError)
    assert str(damaged).startswith(f"{tmp_path / 'text.parquet'}: ")
    assert isinstance(refused(tmp_path / "none"), DataError)
    wrong = refused(folder / "a.parquet", text_column="text")
    assert all(fact in str(wrong) for fact in ("'text'", "--data.text_column", "audio, sentence"))
    assert "`bytes`" in str(refused(folder / "a.parquet", audio_column="sentence"))


def test_a_file_cut_short_after_it_was_indexed_is_a_data_error(folder: Path):
    source = open_source(SourceConfig(path=str(folder / "a.parquet")))
    whole = (folder / "a.parquet").read_bytes()
    (folder / "a.parquet").write_bytes(whole[: len(whole) // 4])
    with pytest.raises(DataError, match="row group 1 cannot be read"):
        source.read(1)


def test_a_hub_that_cannot_be_reached_is_a_data_error_in_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing listens on the discard port
    error = refused("hf://datasets/somebody/something@main/data/*.parquet")
    assert isinstance(error, DataError)
