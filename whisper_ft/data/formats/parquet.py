"""Parquet files of audio bytes and transcripts, as the Hub holds them; a chunk is a row group.

The footers are the index. A row group is read on its own, in one request where the file is remote.
"""

from bisect import bisect_right
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from whisper_ft.config.data import SourceConfig
from whisper_ft.data.formats.columns import AUDIO_COLUMNS, TEXT_COLUMNS, ExtraColumns, column_of
from whisper_ft.data.formats.file_table import data_errors
from whisper_ft.data.formats.fingerprint import of_files
from whisper_ft.data.formats.parquet_metadata import ParquetMetadata, read_metadata
from whisper_ft.data.storage.ranges import FetchedRanges, is_local, open_remote, stretches
from whisper_ft.data.types import Row
from whisper_ft.runtime.errors import DataError, UsageError, one_line

TEXT_OR_NOTHING = {"language": "'be'", "task": "'transcribe'"}  # optional column -> an example of what it may hold
OPTIONAL_COLUMNS = (*TEXT_OR_NOTHING, "client_id")


def open_parquet(where: SourceConfig, cache: Path | None = None, columns: Sequence[str] = ()) -> "Parquet":
    """The parquet files under a path, a glob or an address, in the order of their names.

    Footers of remote files are kept in the folder `cache`, and taken from there while the files are what they were.
    """
    with data_errors(where.path):
        file_system, path = fsspec.core.url_to_fs(where.path)
        paths = _files(file_system, path)
        if not paths:
            raise UsageError(f"{where.path}: holds no .parquet file")
        return Parquet(file_system, paths, footers_of(file_system, paths, cache), where, columns=columns)


def footers_of(file_system: Any, paths: Sequence[str], cache: Path | None) -> list[ParquetMetadata]:
    """The footers of files, read in parallel."""
    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(lambda path: read_metadata(file_system, path, cache), paths))


def _files(file_system: Any, path: str) -> list[str]:
    """The files that a path names. What is there is meant literally, also where its name could be a glob."""
    if path.endswith(".parquet") and file_system.isfile(path):
        return [path]  # asked first: to find out whether this is a folder, http would download it
    if file_system.isdir(path):
        return sorted(name for name in file_system.find(path) if name.endswith(".parquet"))
    is_glob = any(sign in path for sign in "*?[") and not file_system.exists(path)
    return sorted(file_system.glob(path)) if is_glob else [path]


def _failures(path: str) -> tuple[type[Exception], ...]:
    """What opening or reading may raise: of a remote file system anything, for each brings its own client."""
    return (Exception,) if "://" in path else (OSError, ValueError, ImportError, pa.ArrowException)


class Parquet:
    """Row groups of several files as one sequence of chunks."""

    def __init__(
        self,
        file_system: Any,
        paths: Sequence[str],
        footers: Sequence[ParquetMetadata],
        where: SourceConfig,
        names: Sequence[str] | None = None,
        origin: dict[str, str] | None = None,
        columns: Sequence[str] = (),
    ) -> None:
        """`names` are the files' names in ids, else their paths below the folder they share; `origin` is recorded.

        `columns` are to be carried along.
        """
        self._file_system, self._paths, self._where, self._origin = file_system, list(paths), where, origin or {}
        self._sizes, self._footers = [footer.size for footer in footers], [footer.metadata for footer in footers]
        # A file without rows is never read, and what writes such files often leaves out the types.
        schemas = [footer.schema.to_arrow_schema() if footer.num_rows else None for footer in self._footers]
        self._columns = [
            [] if schema is None else _columns(path, schema, where) for path, schema in zip(paths, schemas, strict=True)
        ]  # of each file: audio, text, and the optional ones
        self._carried = [
            ExtraColumns(()) if schema is None else ExtraColumns.in_schema(schema, columns, path)
            for path, schema in zip(paths, schemas, strict=True)
        ]
        groups = [footer.num_row_groups for footer in self._footers]
        self._first_chunk = [0, *accumulate(groups)]  # [files + 1]
        self.rows: list[int] = [f.row_group(g).num_rows for f in self._footers for g in range(f.num_row_groups)]
        if not sum(self.rows):
            raise DataError(f"{where.path}: holds no row")
        root = paths[0].rpartition("/")[0] if len(paths) == 1 else _common_folder(paths)
        self._names = list(names) if names else [path.removeprefix(f"{root}/") for path in paths]

    @property
    def largest_chunk(self) -> int:
        """Bytes of the largest row group, unpacked."""
        return int(max(f.row_group(g).total_byte_size for f in self._footers for g in range(f.num_row_groups)))

    def read(self, chunk: int) -> list[Row]:
        """The rows of one row group."""
        file, group = self._place(chunk)
        path = self._paths[file]
        if not self._columns[file]:
            return []
        try:
            records = self._records(file, group)
        except _failures(self._where.path) as error:
            raise DataError(f"{path}: row group {group} cannot be read: {one_line(error)}") from error
        (audio, text, *_), carried = self._columns[file], self._carried[file]
        return [
            self._row(self.row_id(chunk, index), record[audio], record[text], record, carried)
            for index, record in enumerate(records)
        ]

    def _records(self, file: int, group: int) -> list[dict[str, Any]]:
        """The rows of a row group as arrow gives them; of a remote file in one request."""
        path, footer = self._paths[file], self._footers[file]
        columns = list(dict.fromkeys([*self._columns[file], *self._carried[file].names]))
        if is_local(self._file_system):
            with self._file_system.open(path, "rb") as opened:
                reader = pq.ParquetFile(opened, metadata=footer, pre_buffer=True)
                return list(reader.read_row_group(group, columns=columns).to_pylist())
        with open_remote(self._file_system, path, self._sizes[file]) as opened:
            fetched = FetchedRanges(opened, stretches(footer.row_group(group), columns))
            return list(pq.ParquetFile(fetched, metadata=footer).read_row_group(group, columns=columns).to_pylist())

    def _row(
        self, name: str, audio: dict[str, Any] | None, text: str | None, record: dict[str, Any], carried: ExtraColumns
    ) -> Row:
        speaker = record.get("client_id")
        return Row(
            id=name,
            audio=(audio or {}).get("bytes") or b"",
            text=text or "",
            language=record.get("language"),
            task=record.get("task"),
            speaker=None if speaker is None else str(speaker),
            columns=carried.of(record),
        )

    def row_id(self, chunk: int, row: int) -> str:
        """`file.parquet#row`, counted from the start of the file."""
        file, _ = self._place(chunk)
        return f"{self._names[file]}#{sum(self.rows[self._first_chunk[file] : chunk]) + row}"

    def fingerprint(self) -> dict[str, Any]:
        """Names, row counts and sizes of files and row groups, and where they came from."""
        groups = [
            [(f.row_group(g).num_rows, f.row_group(g).total_byte_size) for g in range(f.num_row_groups)]
            for f in self._footers
        ]
        return of_files(self._names, groups) | self._origin

    def _place(self, chunk: int) -> tuple[int, int]:
        """File and row group of a chunk."""
        file = bisect_right(self._first_chunk, chunk) - 1
        return file, chunk - self._first_chunk[file]


def _columns(path: str, schema: pa.Schema, where: SourceConfig) -> list[str]:
    """Columns of a file to read; UsageError when a needed one is missing, or one is not of a type that can be used."""
    names = ", ".join(schema.names)
    audio_column = column_of(schema.names, where.audio_column, AUDIO_COLUMNS[:1], "audio_column", path)
    text_column = column_of(schema.names, where.text_column, TEXT_COLUMNS, "text_column", path)
    audio, text = schema.field(audio_column).type, schema.field(text_column).type
    if not (pa.types.is_struct(audio) and any(field.name == "bytes" and _is_binary(field.type) for field in audio)):
        raise UsageError(f"{path}: column {audio_column!r} should be a struct with `bytes`, it is {audio}")
    if not _is_text(text):
        raise UsageError(
            f"{path}: column {text_column!r} should be text, it is {text}; set --data.text_column to one of {names}"
        )
    present = [name for name in OPTIONAL_COLUMNS if name in schema.names]
    for name in present:
        kind = schema.field(name).type
        if name in TEXT_OR_NOTHING and not (_is_text(kind) or pa.types.is_null(kind)):
            raise UsageError(
                f"{path}: column {name!r} should be text, such as {TEXT_OR_NOTHING[name]}, it is {kind}; "
                f"rewrite it as text, or drop or rename it and set --data.{name}"
            )
    return [audio_column, text_column, *present]


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _common_folder(paths: Sequence[str]) -> str:
    first, last = paths[0].split("/"), paths[-1].split("/")  # sorted, so all share what these two share
    shared = [a for a, b in zip(first[:-1], last[:-1], strict=False) if a == b]
    return "/".join(shared[: next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), 0)])
