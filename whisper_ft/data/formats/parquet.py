"""Parquet files of audio bytes and transcripts, as on the Hub. A chunk is a row group.

The footers are the index. A row group is read alone, in one request if the file is remote.
"""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem

from whisper_ft.config.data import SourceConfig
from whisper_ft.data.formats.columns import (
    AUDIO_COLUMNS,
    ExtraColumns,
    column_of,
    is_binary,
    is_text,
    speaker_columns,
    speaker_of,
    text_column_of,
)
from whisper_ft.data.formats.fingerprint import of_files
from whisper_ft.data.formats.label_columns import LabelColumns, used_parts
from whisper_ft.data.formats.parquet_metadata import ParquetMetadata, column_ranges, read_metadata
from whisper_ft.data.formats.parquet_splits import chosen_files, read_card
from whisper_ft.data.storage import content
from whisper_ft.data.storage.ranges import RangeFile, is_local
from whisper_ft.data.storage.read_errors import data_errors, read_failures
from whisper_ft.data.types import Labels, Row
from whisper_ft.runtime.errors import DataError, UsageError, one_line
from whisper_ft.runtime.redaction import redacted_query


def open_parquet(where: SourceConfig, cache: Path | None = None, columns: Sequence[str] = ()) -> "Parquet":
    """Open the parquet files below a folder, of a glob or at an address, sorted by name.

    `where.split` and `where.config_name` choose among the files of a folder, as `parquet_splits` says. Footers of
    remote files are cached in the folder `cache` until the files change. `columns` are extra columns to carry along.

    Raises UsageError if there is no .parquet file, split, configuration or column as wanted, and DataError if the files
    cannot be read or hold no row.
    """
    with data_errors(where.path):
        file_system, path = fsspec.core.url_to_fs(where.path)
        paths = _files(file_system, path)
        if not paths:
            raise UsageError(f"{where.path}: holds no .parquet file")
        is_folder = not path.endswith(".parquet") and file_system.isdir(path)
        root = path.rstrip("/") if is_folder else _folder_of(paths)
        card = read_card(file_system, root) if is_folder else None
        names = [file.removeprefix(f"{root}/") for file in paths]
        chosen = chosen_files(names, card, where, named=not is_folder)
        paths = [f"{root}/{name}" if root else name for name in chosen.files]
        footers = read_metadata(file_system, paths, cache)
        return Parquet(file_system, paths, footers, where, columns=columns, splits=chosen[1:])


def _files(file_system: AbstractFileSystem, path: str) -> list[str]:
    """Find the files that a path names. An existing name is taken literally, even if it could be a glob."""
    if path.endswith(".parquet") and file_system.isfile(path):
        return [path]  # checked first, because http downloads a file to find out that it is no folder
    if file_system.isdir(path):
        return sorted(name for name in file_system.find(path) if name.endswith(".parquet"))
    is_glob = any(sign in path for sign in "*?[") and not file_system.exists(path)
    return sorted(file_system.glob(path)) if is_glob else [path]


class Parquet:
    """Source over the row groups of several parquet files.

    Parameters
        footers: metadata of each file, in the order of `paths`
        names: names of the files in ids; None means their paths below the folder that they share
        origin: values added to the fingerprint, such as the commit
        columns: extra columns to carry along
        splits: splits that the files are, and those that are left out unasked, in words

    Raises UsageError for a missing or unusable column, and DataError if no file has a row.
    """

    def __init__(
        self,
        file_system: AbstractFileSystem,
        paths: Sequence[str],
        footers: Sequence[ParquetMetadata],
        where: SourceConfig,
        names: Sequence[str] | None = None,
        origin: dict[str, str] | None = None,
        columns: Sequence[str] = (),
        splits: tuple[str | None, str | None] = (None, None),
    ) -> None:
        self._file_system, self._paths, self._where, self._origin = file_system, list(paths), where, origin or {}
        self._sizes, self._footers = [footer.size for footer in footers], [footer.metadata for footer in footers]
        self._etags = [footer.etag for footer in footers]
        # A file without rows is never read, and programs that write such files often leave out the types.
        schemas = [footer.schema.to_arrow_schema() if footer.num_rows else None for footer in self._footers]
        self._columns = [
            None if schema is None else _columns(path, schema, where)
            for path, schema in zip(paths, schemas, strict=True)
        ]
        self.used = used_parts([(c.audio, c.text, c.labels) for c in self._columns if c], *splits)
        self._extra = [
            ExtraColumns(()) if schema is None else ExtraColumns.in_schema(schema, columns, path, where)
            for path, schema in zip(paths, schemas, strict=True)
        ]
        groups = [footer.num_row_groups for footer in self._footers]
        self._first_chunk = [0, *accumulate(groups)]  # [files + 1]
        self.rows: list[int] = [f.row_group(g).num_rows for f in self._footers for g in range(f.num_row_groups)]
        if not sum(self.rows):
            raise DataError(f"{where.path}: holds no row")
        root = _folder_of(paths)
        self._names = list(names) if names else [path.removeprefix(f"{root}/") for path in paths]
        if where.reading > 1:
            self._names = [redacted_query(name) for name in self._names]

    @property
    def largest_chunk(self) -> int:
        """Bytes of the largest row group, uncompressed."""
        return int(max(f.row_group(g).total_byte_size for f in self._footers for g in range(f.num_row_groups)))

    def read(self, chunk: int) -> list[Row]:
        """Read the rows of one row group. Raises DataError if it cannot be read."""
        file, group = self._place(chunk)
        path = self._paths[file]
        columns = self._columns[file]
        if columns is None:
            return []
        try:
            records = self._records(file, group, [*columns.names, *self._extra[file].names])
        except read_failures(self._where.path) as error:
            raise DataError(f"{path}: row group {group} cannot be read: {one_line(error)}") from error
        extra = self._extra[file]
        return [
            Row(
                id=self.row_id(chunk, index),
                audio=(record[columns.audio] or {}).get("bytes") or b"",
                text=record.get(columns.text or "") or "",
                **columns.labels.of(record),
                speaker=speaker_of(record),
                columns=extra.of(record),
            )
            for index, record in enumerate(records)
        ]

    def labels(self, chunk: int) -> list[Labels]:
        """Language and task of the rows of one row group, by their columns; None for each without a column."""
        file, group = self._place(chunk)
        columns = self._columns[file]
        if columns is None or not columns.labels.names:
            return [(None, None)] * self.rows[chunk]
        with data_errors(self._paths[file]):
            return [columns.labels.pair(record) for record in self._records(file, group, columns.labels.names)]

    def _records(self, file: int, group: int, columns: Sequence[str]) -> list[dict[str, Any]]:
        """Read the rows of a row group as mappings by column. A remote file takes one request."""
        path, footer, columns = self._paths[file], self._footers[file], list(dict.fromkeys(columns))
        if is_local(self._file_system):
            opened = self._file_system.open(path, "rb")
        else:
            ranges = column_ranges(footer.row_group(group), columns)
            opened = RangeFile(self._file_system, path, self._sizes[file], ranges)
        with opened:
            reader = pq.ParquetFile(opened, metadata=footer)
            return list(reader.read_row_group(group, columns=columns).to_pylist())

    def row_id(self, chunk: int, row: int) -> str:
        """Id `file.parquet#row`, where rows are counted from the start of the file."""
        file, _ = self._place(chunk)
        return f"{self._names[file]}#{sum(self.rows[self._first_chunk[file] : chunk]) + row}"

    def fingerprint(self) -> dict[str, Any]:
        """Fingerprint of the files' names, of the rows and bytes of their row groups, and of their origin."""
        groups = [
            [(f.row_group(g).num_rows, f.row_group(g).total_byte_size) for g in range(f.num_row_groups)]
            for f in self._footers
        ]
        return of_files(self._names, groups) | self._origin

    def content(self) -> content.Content:
        """Digests of the files' sizes, and of a sample of their bytes or of their versions."""
        return content.of_files(self._file_system, self._paths, list(zip(self._sizes, self._etags, strict=True)))

    def _place(self, chunk: int) -> tuple[int, int]:
        """Return the numbers of a chunk's file, and of its row group in that file."""
        file = bisect_right(self._first_chunk, chunk) - 1
        return file, chunk - self._first_chunk[file]


class ParquetColumns(NamedTuple):
    """Columns to read from a file."""

    audio: str
    text: str | None
    labels: LabelColumns
    speakers: list[str]

    @property
    def names(self) -> list[str]:
        """Names of all columns, each once."""
        texts = [] if self.text is None else [self.text]
        return list(dict.fromkeys([self.audio, *texts, *self.labels.names, *self.speakers]))


def _columns(path: str, schema: pa.Schema, where: SourceConfig) -> ParquetColumns:
    """Choose the columns to read from a file.

    Raises UsageError if a needed column is missing, or a column has an unusable type.
    """
    names = ", ".join(schema.names)
    audio_column = column_of(schema.names, where.audio_column, AUDIO_COLUMNS[:1], "audio_column", path)
    text_column = text_column_of(schema.names, where, path)
    if text_column and not where.NEEDS_TEXT and not is_text(schema.field(text_column).type):
        text_column = None
    audio, text = schema.field(audio_column).type, None if text_column is None else schema.field(text_column).type
    if not (pa.types.is_struct(audio) and any(field.name == "bytes" and is_binary(field.type) for field in audio)):
        raise UsageError(
            f"{path}: column {audio_column!r} should be a struct with `bytes`, it is {audio}; "
            f"set --data.audio_column to one of {names}"
        )
    if not (text is None or is_text(text)):
        raise UsageError(
            f"{path}: column {text_column!r} should be text, it is {text}; set --data.text_column to one of {names}"
        )
    labels = LabelColumns.in_schema(schema, where, path)
    return ParquetColumns(audio_column, text_column, labels, speaker_columns(schema))


def _folder_of(paths: Sequence[str]) -> str:
    """Return the folder that all files share, of which the names of files are relative."""
    return paths[0].rpartition("/")[0] if len(paths) == 1 else _common_folder(paths)


def _common_folder(paths: Sequence[str]) -> str:
    first, last = (
        paths[0].split("/"),
        paths[-1].split("/"),
    )  # the paths are sorted, so all share the folders that these two share
    shared = [a for a, b in zip(first[:-1], last[:-1], strict=False) if a == b]
    return "/".join(shared[: next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), 0)])
