"""Metadata (footers) of parquet files: row groups, and byte ranges of columns. It is cached for remote files."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem

from whisper_ft.data.storage import index_cache
from whisper_ft.data.storage.ranges import IO_THREADS, Range, RangeFile, is_local
from whisper_ft.runtime.errors import DataError, one_line


@dataclass(frozen=True)
class ParquetMetadata:
    """Metadata of one parquet file, with size and version of the file if it is remote."""

    metadata: pq.FileMetaData
    size: int | None = None
    """Size of a remote file in bytes. If the size is known, the file is opened without a request."""
    etag: str | None = None
    """ETag of a remote file, if its server reports one."""


def read_metadata(file_system: AbstractFileSystem, paths: Sequence[str], cache: Path | None) -> list[ParquetMetadata]:
    """Read the metadata of several files in parallel, in the order of `paths`.

    Metadata of remote files is cached in the folder `cache`, if it is given. Raises DataError for a file that is not a
    parquet file.
    """
    with ThreadPoolExecutor(IO_THREADS) as pool:
        return list(pool.map(lambda path: _read_one(file_system, path, cache), paths))


def _read_one(file_system: AbstractFileSystem, path: str, cache: Path | None) -> ParquetMetadata:
    try:
        if is_local(file_system):
            with file_system.open(path, "rb") as file:
                return ParquetMetadata(pq.read_metadata(file))
        version = index_cache.version_of(file_system, path)
        entry = index_cache.entry_path(cache, version, "footer")
        cached = index_cache.load(entry)
        if cached is not None:
            return ParquetMetadata(pq.read_metadata(pa.BufferReader(cached)), version.size, version.etag)
        # One request for the last 64 kB of the file, and another one if the footer is longer.
        with RangeFile(file_system, path, version.size) as file:
            metadata = pq.read_metadata(file)
        content = pa.BufferOutputStream()
        metadata.write_metadata_file(content)
        index_cache.save(content.getvalue().to_pybytes(), entry)
        return ParquetMetadata(metadata, version.size, version.etag)
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: not a parquet file, or cut short ({one_line(error)})") from error


def column_ranges(group: pq.RowGroupMetaData, columns: Sequence[str]) -> Iterator[Range]:
    """Yield the byte ranges that some columns of a row group have in the file.

    Arrow's own `pre_buffer` is not used. It joins ranges only across 8 kB and up to 32 MB, so it makes four requests
    for the row group of 50 MB that `datasets` writes.
    """
    for number in range(group.num_columns):
        column = group.column(number)
        if any(column.path_in_schema == name or column.path_in_schema.startswith(f"{name}.") for name in columns):
            start = column.data_page_offset
            if column.has_dictionary_page and column.dictionary_page_offset:
                start = min(start, column.dictionary_page_offset)
            yield start, start + column.total_compressed_size
