"""Rows that a list names and files hold: Common Voice, manifests, folders of audio, Kaldi; a chunk is a run of rows."""

import hashlib
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import accumulate, islice
from typing import Any

import pyarrow as pa

from whisper_ft.config.data import SourceConfig
from whisper_ft.data.storage.files import FileStore
from whisper_ft.data.types import RejectedError, Row
from whisper_ft.runtime.errors import DataError, RunError, one_line

CHUNK_ROWS = 32  # files are read one by one, so a chunk need not be large to be read well
SEGMENT_ROWS = 256  # most rows of a chunk that goes on because the segments of one recording do: it is read once
READERS = 8  # threads that wait for files

# What a list says of each row. Held as an arrow table: a million rows take 100 MB, and a worker gets them fast.
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("file", pa.string(), nullable=False),  # empty where there is a problem that leaves no name
        pa.field("text", pa.string()),
        pa.field("language", pa.string()),
        pa.field("task", pa.string()),
        pa.field("speaker", pa.string()),
        pa.field("offset", pa.float64()),  # seconds
        pa.field("duration", pa.float64()),  # seconds
        pa.field("problem", pa.string()),  # str(UnusableError(reason, detail)): the row is not used, its file not read
    ]
)
COLUMNS = "columns"  # beside those of SCHEMA where others are carried along: a struct of texts
BLOCK_ROWS = 10_000  # rows that are Python objects at a time while a table is made


class FileTable:
    """A table of `schema_with` (columns that are missing are null) with the shelf that its files are on."""

    def __init__(self, table: pa.Table, shelf: FileStore, where: SourceConfig) -> None:
        if not table.num_rows:
            raise DataError(f"{where.path}: holds no row")
        schema = SCHEMA.append(table.schema.field(COLUMNS)) if COLUMNS in table.column_names else SCHEMA
        columns = [
            table.column(field.name).cast(field.type)
            if field.name in table.column_names
            else pa.chunked_array([pa.nulls(table.num_rows, field.type)])
            for field in schema
        ]
        self.table = pa.table(columns, schema=schema).combine_chunks()
        self._shelf = shelf
        self.rows: list[int] = _chunks(self.table.column("file").to_pylist())
        self._first_row = [0, *accumulate(self.rows)]  # [chunks + 1]

    @property
    def largest_chunk(self) -> None:
        """Not known: a list does not say how large its files are."""
        return None

    def read(self, chunk: int) -> Sequence[Row]:
        """The rows of one chunk; each file is read once, however many segments of it are in the chunk."""
        records = self.table.slice(self._first_row[chunk], self.rows[chunk]).to_pylist()
        names = list(dict.fromkeys(record["file"] for record in records if record["problem"] is None))
        with ThreadPoolExecutor(READERS) as pool:
            fetched = dict(zip(names, pool.map(self._fetch, names), strict=True))
        return [_row(record, fetched.get(record["file"], b"")) for record in records]

    def row_id(self, chunk: int, row: int) -> str:
        """Id of a row, from the list."""
        return str(self.table.column("id")[self._first_row[chunk] + row].as_py())

    def fingerprint(self) -> dict[str, Any]:
        """Number of rows and a digest of all that the list says; the audio is not looked at."""
        digest = hashlib.sha256()
        for name in self.table.column_names:
            for value in self.table.column(name).to_pylist():
                if name == "problem" and value is not None:
                    value = value.partition(":")[0]  # the detail is for people, and may come from a library
                digest.update(f"{value!r}\0".encode())
        return {"rows": self.table.num_rows, "digest": digest.hexdigest()[:16]}

    def _fetch(self, name: str) -> bytes | RejectedError:
        try:
            return self._shelf.read(name)
        except RejectedError as unusable:
            return unusable


def _row(record: Mapping[str, Any], fetched: bytes | RejectedError) -> Row:
    audio, problem = b"", None
    if record["problem"] is not None:
        reason, _, detail = record["problem"].partition(": ")
        problem = (reason, detail)
    elif isinstance(fetched, RejectedError):
        problem = (fetched.reason, fetched.detail)
    else:
        audio = fetched
    return Row(
        id=record["id"],
        audio=audio,
        text=record["text"] or "",
        language=record["language"],
        task=record["task"],
        speaker=record["speaker"],
        offset=record["offset"] or 0.0,
        duration=record["duration"],
        problem=problem,
        columns=record.get(COLUMNS),
    )


def _chunks(files: Sequence[str]) -> list[int]:
    """Rows of each chunk: `CHUNK_ROWS`, and more where a recording would be cut that several rows share."""
    ends = []
    start = 0
    for end in range(1, len(files) + 1):
        size = end - start
        is_cut = end < len(files) and files[end] == files[end - 1]
        if end == len(files) or size >= SEGMENT_ROWS or (size >= CHUNK_ROWS and not is_cut):
            ends.append(end)
            start = end
    return [end - before for before, end in zip([0, *ends], ends, strict=False)]


def schema_with(columns: Sequence[str]) -> pa.Schema:
    """`SCHEMA`, and the columns to carry along in one more."""
    return SCHEMA.append(pa.field(COLUMNS, pa.struct([(name, pa.string()) for name in columns]))) if columns else SCHEMA


def table_of(entries: Iterable[Mapping[str, Any]], columns: Sequence[str] = ()) -> pa.Table:
    """A table for `Listed` from one mapping per row; ids that repeat get #2, #3, ... in the order of the list."""
    taken: set[str] = set()
    repeats: dict[str, int] = {}

    def unique(name: str) -> str:
        number, found = repeats.get(name, 1), name
        while found in taken:
            number += 1
            found = f"{name}#{number}"
        repeats[name] = number
        taken.add(found)
        return found

    remaining, blocks, schema = iter(entries), [], schema_with(columns)
    while block := [{**entry, "id": unique(entry["id"])} for entry in islice(remaining, BLOCK_ROWS)]:
        blocks.append(pa.RecordBatch.from_pylist(block, schema=schema))
    return pa.Table.from_batches(blocks, schema=schema)


@contextmanager
def data_errors(path: str) -> Iterator[None]:
    """Blame what opening or indexing raises on a path: DataError in one line."""
    try:
        yield
    except (RunError, MemoryError):
        raise
    except FileNotFoundError as error:
        missing = one_line(error.filename or error)
        within = "" if missing == path else f" ({missing})"
        raise DataError(f"{path}: there is no such file or folder{within}") from error
    except _failures(path) as error:
        raise DataError(f"{path}: {one_line(error) or type(error).__name__}") from error


def _failures(path: str) -> tuple[type[Exception], ...]:
    """Of a remote file system anything, for each brings its own client."""
    local = (OSError, ValueError, ImportError, EOFError, zlib.error, pa.ArrowException)
    return (Exception,) if "://" in path else local
