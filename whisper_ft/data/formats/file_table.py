"""Source over a list of audio files, used by Common Voice, manifests, audiofolders and Kaldi directories.

A chunk is a run of consecutive rows of the list.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from whisper_ft.config.data import SourceConfig
from whisper_ft.data.storage.content import Content
from whisper_ft.data.storage.files import SURVEYED_NAMES, FileStore, FolderStore
from whisper_ft.data.storage.ranges import IO_THREADS
from whisper_ft.data.types import Labels, RejectedError, Row, UsedParts
from whisper_ft.runtime.errors import DataError

CHUNK_ROWS = 32
"""Rows of a chunk in every format but parquet. Files are read one by one, so a larger chunk is not read faster."""
SEGMENT_ROWS = 256
"""Most rows of a chunk that is extended to keep the segments of one recording together, so the file is read once."""
BLOCK_ROWS = 10_000
"""Most rows that are Python objects at a time while a table is made."""

# Columns of a list. An arrow table of a million rows takes 100 MB, and is sent to workers fast.
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("file", pa.string(), nullable=False),  # empty if a problem leaves no name
        pa.field("text", pa.string()),
        pa.field("language", pa.string()),
        pa.field("task", pa.string()),
        pa.field("speaker", pa.string()),
        pa.field("offset", pa.float64()),  # seconds
        pa.field("duration", pa.float64()),  # seconds
        pa.field("stated", pa.float64()),  # seconds; length of the file as the list states it, only compared with it
        pa.field("problem", pa.string()),  # str(RejectedError(reason, detail)): the file of such a row is not read
    ]
)
COLUMNS = "columns"
"""Name of the column for extra columns, a struct of texts. A table without extra columns does not have it."""


class FileTable:
    """Source over a table of rows, and over a store of the files that the table names.

    The table has the schema of `schema_with`; a column that it lacks counts as null. `notes` are lines for the user
    about the reading of the list. Raises DataError for a table without rows.
    """

    def __init__(
        self,
        table: pa.Table,
        store: FileStore,
        where: SourceConfig,
        notes: Sequence[str] = (),
        used: UsedParts | None = None,
    ) -> None:
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
        self._store = store
        self.used = used or UsedParts()
        self.rows: list[int] = _chunk_sizes(self.table.column("file").to_pylist())
        self.notes = list(notes)
        if where.reading == 1:
            self.notes.append(f"{where.path}: is read by the earlier rules for lists (data.reading 1)")
        if isinstance(store, FolderStore) and (line := store.survey(self._files_to_read())):
            self.notes.append(f"warning: {where.path}: {line}")
        self._first_row = [0, *accumulate(self.rows)]  # [chunks + 1]

    @property
    def largest_chunk(self) -> None:
        """Unknown, because a list does not give the sizes of its files."""
        return None

    @property
    def chunk_with_durations(self) -> int | None:
        """First chunk with rows whose length the list states without an offset; None if there is none."""
        stated = self.table.column("stated").is_valid().to_numpy(zero_copy_only=False)
        return bisect_right(self._first_row, int(stated.argmax())) - 1 if stated.any() else None

    def read(self, chunk: int) -> Sequence[Row]:
        """Read the rows of one chunk. A file of which several rows are segments is read only once.

        A row whose file cannot be read has a problem, and no audio.
        """
        records = self.table.slice(self._first_row[chunk], self.rows[chunk]).to_pylist()
        names = list(dict.fromkeys(record["file"] for record in records if record["problem"] is None))
        with ThreadPoolExecutor(IO_THREADS) as pool:
            contents = dict(zip(names, pool.map(self._fetch, names), strict=True))
        return [_row(record, contents.get(record["file"], b"")) for record in records]

    def labels(self, chunk: int) -> list[Labels]:
        """Language and task of the rows of one chunk, as in the list."""
        part = self.table.slice(self._first_row[chunk], self.rows[chunk])
        return list(zip(part["language"].to_pylist(), part["task"].to_pylist(), strict=True))

    def row_id(self, chunk: int, row: int) -> str:
        """Id of a row, as in the list."""
        return str(self.table.column("id")[self._first_row[chunk] + row].as_py())

    def fingerprint(self) -> dict[str, Any]:
        """Fingerprint of the number of rows and a digest of the list. The audio is not read.

        Stated lengths and the details of problems do not count.
        """
        digest = hashlib.sha256()
        for name in self.table.column_names:
            if name == "stated":
                continue  # information only
            for value in self.table.column(name).to_pylist():
                if name == "problem" and value is not None:
                    value = value.partition(":")[0]  # the detail may be a library's message
                digest.update(f"{value!r}\0".encode())
        return {"rows": self.table.num_rows, "digest": digest.hexdigest()[:16]}

    def _files_to_read(self) -> Iterable[str]:
        usable = self.table.filter(pc.is_null(self.table.column("problem"))).slice(0, SURVEYED_NAMES)
        return dict.fromkeys(usable.column("file").to_pylist())

    def content(self) -> Content:
        """Digests of the sizes, bytes or versions of the listed files, in the order of the list."""
        named = zip(self.table.column("file").to_pylist(), self.table.column("problem").to_pylist(), strict=True)
        return self._store.content(list(dict.fromkeys(name for name, problem in named if problem is None)))

    @cached_property
    def _by_file(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Numbers of the rows of each file by their offset, file after file, and where each file begins among them."""
        files = self.table.column("file").combine_chunks().dictionary_encode().indices.to_numpy()
        order = np.lexsort((pc.fill_null(self.table.column("offset"), 0.0).to_numpy(), files))
        return order, np.append(np.flatnonzero(np.diff(files[order], prepend=-1)), len(order))

    @property
    def files(self) -> int:
        """Number of audio files, in the order of their first rows. Rows without a file count as one more."""
        return len(self._by_file[1]) - 1

    def rows_of_file(self, number: int) -> list[Row]:
        """Return the rows of one audio file by their offset, without audio."""
        order, begins = self._by_file
        records = self.table.take(order[begins[number] : begins[number + 1]]).to_pylist()
        return [_row(record, b"") for record in records]

    def audio_of(self, name: str) -> Path | bytes:
        """Return the path of a local audio file, or the content of another one.

        Raises RejectedError as `FileStore.read` does.
        """
        path = self._store.local_path(name) if isinstance(self._store, FolderStore) else None
        return self._store.read(name) if path is None else path

    def _fetch(self, name: str) -> bytes | RejectedError:
        try:
            return self._store.read(name)
        except RejectedError as rejected:
            return rejected


def _row(record: Mapping[str, Any], content: bytes | RejectedError) -> Row:
    audio, problem = b"", None
    if record["problem"] is not None:
        reason, _, detail = record["problem"].partition(": ")
        problem = (reason, detail)
    elif isinstance(content, RejectedError):
        problem = (content.reason, content.detail)
    else:
        audio = content
    return Row(
        id=record["id"],
        audio=audio,
        text=record["text"] or "",
        language=record["language"],
        task=record["task"],
        speaker=record["speaker"],
        offset=record["offset"] or 0.0,
        duration=record["duration"],
        stated=record["stated"],
        problem=problem,
        columns=record.get(COLUMNS),
        recording=record["file"] or None,
    )


def _chunk_sizes(files: Sequence[str]) -> list[int]:
    """Rows of each chunk: CHUNK_ROWS, or more if a chunk would otherwise end between segments of one recording."""
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
    """Return `SCHEMA`, with the column COLUMNS added if there are extra columns."""
    return SCHEMA.append(pa.field(COLUMNS, pa.struct([(name, pa.string()) for name in columns]))) if columns else SCHEMA


def table_of(entries: Iterable[Mapping[str, Any]], columns: Sequence[str] = ()) -> pa.Table:
    """Build the table for `FileTable` from one mapping per row.

    An id that repeats gets #2, #3, ... in the order of the list.
    """
    taken: set[str] = set()
    repeats: dict[str, int] = {}

    def unique(name: str) -> str:
        number, candidate = repeats.get(name, 1), name
        while candidate in taken:
            number += 1
            candidate = f"{name}#{number}"
        repeats[name] = number
        taken.add(candidate)
        return candidate

    remaining, blocks, schema = iter(entries), [], schema_with(columns)
    while block := [{**entry, "id": unique(entry["id"])} for entry in islice(remaining, BLOCK_ROWS)]:
        blocks.append(pa.RecordBatch.from_pylist(block, schema=schema))
    return pa.Table.from_batches(blocks, schema=schema)
