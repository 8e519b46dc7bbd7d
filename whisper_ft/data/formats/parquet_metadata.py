"""Footers of parquet files: what is in them and where. Those of remote files can be kept in a folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from whisper_ft.data.storage import index_cache
from whisper_ft.data.storage.ranges import is_local, open_remote
from whisper_ft.runtime.errors import DataError, one_line


@dataclass(frozen=True)
class ParquetMetadata:
    """What the index says of one file."""

    metadata: pq.FileMetaData
    size: int | None = None
    """Bytes of a remote file, where known: it can then be opened without asking."""
    version: str | None = None
    """Name of a remote file's content, where its server has one."""


def read_metadata(file_system: Any, path: str, cache: Path | None = None) -> ParquetMetadata:
    """The footer of a file, from the folder `cache` if it is kept there; DataError if it is no parquet file."""
    try:
        if is_local(file_system):
            with file_system.open(path, "rb") as file:
                return ParquetMetadata(pq.read_metadata(file))
        version = index_cache.version_of(file_system, path)
        place = index_cache.place(cache, version, "footer") if cache else None
        found = index_cache.load(place)
        metadata = (
            _fetch(file_system, path, version.size) if found is None else pq.read_metadata(pa.BufferReader(found))
        )
        if place is not None and found is None:
            content = pa.BufferOutputStream()
            metadata.write_metadata_file(content)
            index_cache.save(content.getvalue().to_pybytes(), place)
        return ParquetMetadata(metadata, version.size, version.name)
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: not a parquet file, or cut short ({one_line(error)})") from error


def _fetch(file_system: Any, path: str, size: int | None) -> pq.FileMetaData:
    """The footer from the file itself: a request for its last 64 kB, and one more where it is longer."""
    with open_remote(file_system, path, size) as file:
        return pq.read_metadata(file)
