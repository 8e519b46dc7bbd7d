"""Parquet behind http: few requests, no byte too many, footers kept."""

import pickle
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pyarrow.parquet as pq
import pytest

from tests.elsewhere import Elsewhere, serve, write
from whisper_ft.config.data import SourceConfig
from whisper_ft.data.formats.parquet import Parquet, open_parquet
from whisper_ft.data.sources import open_source
from whisper_ft.data.storage.ranges import RangeFile
from whisper_ft.runtime.errors import DataError


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Elsewhere]:
    with serve(tmp_path_factory.mktemp("elsewhere")) as where:
        yield where


def behind_http(elsewhere: Elsewhere, name: str, cache: Path | None = None) -> Parquet:
    return open_parquet(SourceConfig(path=f"{elsewhere.address}/files/{name}"), cache)


def test_a_row_group_is_one_request_of_no_more_than_its_bytes(elsewhere: Elsewhere):
    """A row group has 800 kB, of which 200 kB nobody reads lie between the columns that are read, and 200 kB before."""
    write(elsewhere.folder / "large.parquet", 30, size=20_000)
    source = behind_http(elsewhere, "large.parquet")
    metadata = pq.read_metadata(elsewhere.folder / "large.parquet")
    for chunk in (2, 0):
        group = metadata.row_group(chunk)
        size = sum(group.column(number).total_compressed_size for number in range(group.num_columns))
        elsewhere.forget()
        rows = source.read(chunk)
        assert [row.text for row in rows] == [f"large.parquet {i}" for i in range(10 * chunk, 10 * chunk + 10)]
        assert [method for method, _ in elsewhere.asked] == ["GET"]
        assert elsewhere.sent <= 1.1 * size


def test_columns_far_from_each_other_are_not_joined(elsewhere: Elsewhere):
    """Around the audio lie 2 MB and 2 MB that are left out for two requests more."""
    write(elsewhere.folder / "far.parquet", 10, size=200_000)
    source = behind_http(elsewhere, "far.parquet")
    elsewhere.forget()
    row = source.read(0)[9]
    assert row.text == "far.parquet 9"
    assert len(elsewhere.ranges) == 3
    assert elsewhere.sent < 11 * len(row.audio), "bytes: with what the sockets held of an answer that was hung up on"


def test_a_file_of_fetched_ranges_asks_for_other_bytes_when_they_are_read(elsewhere: Elsewhere):
    content = bytes(range(256)) * 16
    (elsewhere.folder / "bytes").write_bytes(content)
    file_system, path = fsspec.core.url_to_fs(f"{elsewhere.address}/files/bytes")
    elsewhere.forget()
    with RangeFile(file_system, path, len(content), [(100, 200), (150, 300), (400, 400), (500, 600)]) as file:
        assert elsewhere.ranges == ["bytes=100-599"], "one request, because little lies between them"
        for start, end in ((100, 600), (150, 160), (500, 600)):
            file.seek(start)
            assert file.read(end - start) == content[start:end]
        assert len(elsewhere.ranges) == 1
        file.seek(599)
        assert file.read(2) == content[599:601]
        file.seek(-10, 2)
        assert file.read(100) == content[-10:]
        assert file.read(1) == b""
        assert elsewhere.ranges[1:] == ["bytes=599-600", "bytes=4086-4095"]


def test_footers_behind_http_are_fetched_once_until_the_file_changes(elsewhere: Elsewhere, tmp_path: Path):
    path, index = elsewhere.folder / "kept.parquet", tmp_path / "run" / "index"
    write(path, 25)
    first = behind_http(elsewhere, "kept.parquet", index)
    elsewhere.forget()
    again = behind_http(elsewhere, "kept.parquet", index)
    assert elsewhere.ranges == []
    assert again.fingerprint() == first.fingerprint()
    assert again.read(2) == first.read(2)
    assert len(list(index.iterdir())) == 1
    write(path, 35)
    assert sum(behind_http(elsewhere, "kept.parquet", index).rows) == 35
    assert len(list(index.iterdir())) == 2


@pytest.mark.parametrize("damage", [b"", b"PAR1", None])
def test_a_damaged_footer_is_fetched_and_written_again(elsewhere: Elsewhere, tmp_path: Path, damage: bytes | None):
    write(elsewhere.folder / "damaged.parquet", 25)
    behind_http(elsewhere, "damaged.parquet", tmp_path)
    (kept,) = tmp_path.iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:] if damage is None else damage)
    assert behind_http(elsewhere, "damaged.parquet", tmp_path).rows == [10, 10, 5]
    assert kept.read_bytes() == whole


def test_what_is_local_is_not_kept(tmp_path: Path):
    write(tmp_path / "a.parquet", 5)
    open_parquet(SourceConfig(path=str(tmp_path / "a.parquet")), tmp_path / "index")
    assert not (tmp_path / "index").exists()


def test_a_file_that_is_replaced_by_a_shorter_one_is_a_data_error(elsewhere: Elsewhere):
    write(elsewhere.folder / "short.parquet", 25)
    source = behind_http(elsewhere, "short.parquet")
    (elsewhere.folder / "short.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="row group 2 cannot be read"):
        source.read(2)


def test_a_source_behind_http_travels_to_workers(elsewhere: Elsewhere):
    write(elsewhere.folder / "travels.parquet", 25)
    source = behind_http(elsewhere, "travels.parquet")
    assert pickle.loads(pickle.dumps(source)).read(1) == source.read(1)


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again(elsewhere: Elsewhere, status: int):
    write(elsewhere.folder / "busy.parquet", 25)
    for count in (1, 3):
        elsewhere.refused = [status] * count
        where = SourceConfig(path=f"{elsewhere.address}/files/busy.parquet")
        assert sum(open_source(where).rows) == 25
        assert not elsewhere.refused


def test_a_server_that_stays_busy_is_an_error_of_one_line(elsewhere: Elsewhere):
    write(elsewhere.folder / "busy.parquet", 25)
    elsewhere.refused = [503] * 100
    with pytest.raises(DataError, match=r"busy\.parquet") as error:
        open_source(SourceConfig(path=f"{elsewhere.address}/files/busy.parquet"))
    assert "\n" not in str(error.value)
    elsewhere.refused = []
