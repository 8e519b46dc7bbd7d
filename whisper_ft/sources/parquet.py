"""Parquet files of audio bytes and transcripts, as the Hub holds them; a chunk is a row group.

The footers are the index. A row group is read on its own, in one request where the file is remote.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from whisper_ft import config
from whisper_ft.failure import DataError, RunError, UsageError
from whisper_ft.sources.row import Row

TEXT_OR_NOTHING = {"language": "'be'", "task": "'transcribe'"}  # optional column -> an example of what it may hold
OPTIONAL_COLUMNS = (*TEXT_OR_NOTHING, "client_id")


def open_parquet(where: config.Source) -> "Parquet":
    """The parquet files under a path, a glob or an address, in the order of their names."""
    try:
        file_system, path = fsspec.core.url_to_fs(where.path)
        paths = _files(file_system, path)
        if not paths:
            raise UsageError(f"{where.path}: holds no .parquet file")
        with ThreadPoolExecutor(16) as pool:
            footers = list(pool.map(lambda name: _footer(file_system, name), paths))
        return Parquet(file_system, paths, footers, where)
    except RunError:
        raise
    except _failures(where.path) as error:
        raise DataError(f"{where.path}: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    """An error's message without line ends and whatever else a terminal obeys: arrow quotes damaged bytes."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in str(error)).split())


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


def _footer(file_system: Any, path: str) -> pq.FileMetaData:
    try:
        with file_system.open(path, "rb") as file:
            return pq.read_metadata(file)
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: not a parquet file, or cut short ({_one_line(error)})") from error


class Parquet:
    """Row groups of several files as one sequence of chunks."""

    def __init__(
        self, file_system: Any, paths: Sequence[str], footers: Sequence[pq.FileMetaData], where: config.Source
    ) -> None:
        self._file_system, self._paths, self._footers, self._where = file_system, list(paths), list(footers), where
        # A file without rows is never read, and what writes such files often leaves out the types.
        self._columns = [
            _columns(path, footer.schema.to_arrow_schema(), where) if footer.num_rows else []
            for path, footer in zip(paths, footers, strict=True)
        ]
        groups = [footer.num_row_groups for footer in footers]
        self._first_chunk = [0, *accumulate(groups)]  # [files + 1]
        self.rows: list[int] = [f.row_group(g).num_rows for f in footers for g in range(f.num_row_groups)]
        if not sum(self.rows):
            raise DataError(f"{where.path}: holds no row")
        root = paths[0].rpartition("/")[0] if len(paths) == 1 else _common_folder(paths)
        self._names = [path.removeprefix(f"{root}/") for path in paths]

    def read(self, chunk: int) -> list[Row]:
        """The rows of one row group."""
        file, group = self._place(chunk)
        path = self._paths[file]
        try:
            # Without read-ahead and with pre-buffering, a remote row group is one request.
            options = {} if "file" in self._file_system.protocol else {"cache_type": "none"}
            with self._file_system.open(path, "rb", **options) as opened:
                reader = pq.ParquetFile(opened, metadata=self._footers[file], pre_buffer=True)
                records = reader.read_row_group(group, columns=self._columns[file]).to_pylist()
        except _failures(self._where.path) as error:
            raise DataError(f"{path}: row group {group} cannot be read: {_one_line(error)}") from error
        return [self._row(self.row_id(chunk, index), record) for index, record in enumerate(records)]

    def _row(self, name: str, record: dict[str, Any]) -> Row:
        speaker = record.get("client_id")
        return Row(
            id=name,
            audio=(record[self._where.audio_column] or {}).get("bytes") or b"",
            text=record[self._where.text_column] or "",
            language=record.get("language"),
            task=record.get("task"),
            speaker=None if speaker is None else str(speaker),
        )

    def row_id(self, chunk: int, row: int) -> str:
        """`file.parquet#row`, counted from the start of the file."""
        file, _ = self._place(chunk)
        return f"{self._names[file]}#{sum(self.rows[self._first_chunk[file] : chunk]) + row}"

    def fingerprint(self) -> dict[str, Any]:
        """Names and row counts, and a digest of names, row counts and sizes of all row groups."""
        described = [
            (name, [(f.row_group(g).num_rows, f.row_group(g).total_byte_size) for g in range(f.num_row_groups)])
            for name, f in zip(self._names, self._footers, strict=True)
        ]
        digest = hashlib.sha256(repr(described).encode()).hexdigest()[:16]
        return {"files": len(self._paths), "rows": sum(self.rows), "digest": digest}

    def _place(self, chunk: int) -> tuple[int, int]:
        """File and row group of a chunk."""
        file = bisect_right(self._first_chunk, chunk) - 1
        return file, chunk - self._first_chunk[file]


def _columns(path: str, schema: pa.Schema, where: config.Source) -> list[str]:
    """Columns of a file to read; UsageError when a needed one is missing, or one is not of a type that can be used."""
    names = ", ".join(schema.names)
    for setting, name in (("audio_column", where.audio_column), ("text_column", where.text_column)):
        if name not in schema.names:
            raise UsageError(f"{path}: has no column {name!r}; set --data.{setting} to one of {names}")
    audio, text = schema.field(where.audio_column).type, schema.field(where.text_column).type
    if not (pa.types.is_struct(audio) and any(field.name == "bytes" and _is_binary(field.type) for field in audio)):
        raise UsageError(f"{path}: column {where.audio_column!r} should be a struct with `bytes`, it is {audio}")
    if not _is_text(text):
        raise UsageError(
            f"{path}: column {where.text_column!r} should be text, it is {text}; "
            f"set --data.text_column to one of {names}"
        )
    present = [name for name in OPTIONAL_COLUMNS if name in schema.names]
    for name in present:
        kind = schema.field(name).type
        if name in TEXT_OR_NOTHING and not (_is_text(kind) or pa.types.is_null(kind)):
            raise UsageError(
                f"{path}: column {name!r} should be text, such as {TEXT_OR_NOTHING[name]}, it is {kind}; "
                f"rewrite it as text, or drop or rename it and set --data.{name}"
            )
    return [where.audio_column, where.text_column, *present]


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
