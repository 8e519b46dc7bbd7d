"""Arrangement of rows: those of one recording or speaker beside each other, and divided into splits as a whole.

A first pass writes the rows into row files in stored order, and a second one reads them in their new order, one at a
time. So memory holds the keys of all rows, and no more than a row group of audio.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from whisper_ft.cli.prepare.records import RowOutcome, Step
from whisper_ft.cli.prepare.shard_row import KEYS
from whisper_ft.runtime.errors import DataError
from whisper_ft.runtime.rng import number_of

OPEN_FILES = 64
"""Row files that are open at a time."""
SPEAKER = "client_id"

Codes = npt.NDArray[np.int64]
"""Number of the recording or speaker of each row."""


class RowFile:
    """File of rows that can be read one by one: an Arrow file with a batch for each row."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._file = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._file, schema)

    def write_table(self, table: pa.Table) -> None:
        """Append the rows of a table."""
        self._writer.write_table(table, max_chunksize=1)

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()
        self._file.close()


def row_schema(schema: pa.Schema) -> pa.Schema:
    """Return the schema of a row file: that of the shards, and the keys by which rows are arranged."""
    keys = [pa.field(name, kind) for name, kind in KEYS if name not in schema.names]
    return pa.schema([*schema, *keys], metadata=schema.metadata)


class ArrangedRecords:
    """Records of row files in their final order, split after split.

    Parameters
        schema: schema of the shards
        by: rows that stand beside each other: of one recording or speaker; None for the order of the files
        shares: share of each split; empty for a single one without a name

    Raises DataError if rows are arranged by speaker and no row has one.
    """

    def __init__(self, files: Sequence[Path], schema: pa.Schema, by: str | None, shares: Mapping[str, float]) -> None:
        self.schema, self.chunks = schema, 1
        keys = _keys_of(files)
        if by == "speaker" and not keys.column(SPEAKER).is_valid().to_numpy(zero_copy_only=False).any():
            raise DataError("--by speaker: no row names its speaker; use --by recording")
        recordings = _codes(keys.column("recording").to_pylist())
        self._splits: list[str | None] = [*shares] or [None]
        splits = _splits_of(keys, recordings, by, shares)
        self._order, self._split_of = order_of(keys, recordings, splits, by), splits
        self.total = len(self._order)
        self._row = _reader(files, schema.names)

    def outcomes(self, first: Step) -> Generator[RowOutcome]:
        """Yield the records from a step on. The row of a step is its number in the final order."""
        for number in range(first.row, self.total if first.chunk < self.chunks else 0):
            row = int(self._order[number])
            yield RowOutcome(Step(0, number), self._row(row), done=1, split=self._splits[self._split_of[row]])


def _reader(files: Sequence[Path], columns: Sequence[str]) -> Callable[[int], dict[str, Any]]:
    """Return a function that reads a row by its number in all files."""
    ends = [*accumulate(_open(file).num_record_batches for file in files)]

    @lru_cache(OPEN_FILES)
    def opened(number: int) -> Any:
        return _open(files[number])

    def read(row: int) -> dict[str, Any]:
        number = int(np.searchsorted(ends, row, side="right"))
        batch = opened(number).get_batch(row - (ends[number - 1] if number else 0))
        return dict(batch.select(columns).to_pylist()[0])

    return read


def _open(file: Path) -> Any:
    return pa.ipc.open_file(pa.OSFile(str(file), "rb"))


def _keys_of(files: Sequence[Path]) -> pa.Table:
    """Read the keys of all rows. Only their bytes are read, because the files are mapped into memory."""
    names, tables = [SPEAKER, *(name for name, _ in KEYS)], []
    for file in files:
        with pa.memory_map(str(file)) as mapped:
            tables.append(pa.ipc.open_file(mapped).read_all().select(names).combine_chunks())
    return pa.concat_tables(tables).combine_chunks()


def _codes(values: Sequence[object]) -> Codes:
    """Number the values by their first appearance."""
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], dtype=np.int64)


def order_of(keys: pa.Table, recordings: Codes, splits: Codes, by: str | None) -> Codes:
    """Return the numbers of all rows in their final order, split after split.

    Recordings and speakers stand in the order of their first rows. Rows without a speaker are arranged by recording.
    """
    if by is None:
        return np.argsort(splits, kind="stable")
    groups = recordings
    if by == "speaker":
        speakers = keys.column(SPEAKER).to_pylist()
        groups = _codes(
            [(name, None) if name else (None, code) for name, code in zip(speakers, recordings, strict=True)]
        )
    starts = pc.fill_null(keys.column("start"), 0.0).to_numpy()
    return np.lexsort((starts, recordings, groups, splits))


def _splits_of(keys: pa.Table, recordings: Codes, by: str | None, shares: Mapping[str, float]) -> Codes:
    """Return the number of the split of each row."""
    if not shares:
        return np.zeros(len(recordings), dtype=np.int64)
    names = keys.column("recording").to_pylist()
    if by == "speaker":
        names = _of_speakers(names, keys.column("speakers").to_pylist())
    chosen = split_by_hash(sorted(set(names)), list(shares.values()))
    return np.array([chosen[name] for name in names], dtype=np.int64)


def _of_speakers(recordings: Sequence[str], speakers: Sequence[Sequence[str]]) -> list[str]:
    """Return a name for each row, equal for rows that share a speaker or a recording, also by way of others.

    It is the first name of a speaker among them, or the name of the recording if no speaker is known.
    """
    above: dict[tuple[str, str], tuple[str, str]] = {}

    def top(key: tuple[str, str]) -> tuple[str, str]:
        while (upper := above.setdefault(key, key)) != key:
            above[key] = above.setdefault(upper, upper)
            key = upper
        return key

    for recording, names in zip(recordings, speakers, strict=True):
        for name in names:
            ends = sorted((top(("recording", recording)), top(("speaker", name))))
            above[ends[0]] = ends[1]  # speakers stand above recordings
    first: dict[tuple[str, str], str] = {}
    for kind, name in above:
        if kind == "speaker":
            at = top((kind, name))
            first[at] = min(first.get(at, name), name)
    return [first.get(top(("recording", recording)), recording) for recording in recordings]


def split_by_hash(names: Sequence[str], shares: Sequence[float]) -> dict[str, int]:
    """Return the number of the split of each name by its hash, so that more data does not move a name.

    A split that no name falls into gets the nearest name of the largest split, if there are enough names.
    """
    ends = [*accumulate(shares)]
    places = {name: number_of(name) / 2.0**64 * ends[-1] for name in names}
    chosen = {
        name: min(int(np.searchsorted(ends, place, side="right")), len(ends) - 1) for name, place in places.items()
    }
    for split, end in enumerate(ends):
        counts = [list(chosen.values()).count(number) for number in range(len(ends))]
        largest = counts.index(max(counts))
        if not counts[split] and counts[largest] > 1:
            middle = end - shares[split] / 2
            candidates = [name for name in names if chosen[name] == largest]
            chosen[min(candidates, key=lambda name: (abs(places[name] - middle), name))] = split
    return chosen
