"""One pass over records that writes them into files one after the other, and reports its progress after each file."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from whisper_ft.cli.prepare.records import ListedRow, Records, RowOutcome, Step
from whisper_ft.runtime.atomic import ASIDE, disk_errors, sync_file, sync_folder
from whisper_ft.runtime.printable import json_text

MEGABYTE = 1_000_000
LEFT_OUT = "left-out.jsonl"


@dataclass(frozen=True)
class State:
    """Progress of a pass: the files that are complete and durable, and the next step."""

    chunk: int = 0
    row: int = 0
    shards: int = 0
    rows: int = 0  # written
    left_out: int = 0
    left_out_bytes: int = 0  # recorded size of the list; any further bytes were written by a process that was killed
    is_finished: bool = False
    part: int = 0
    done: int = 0  # rows or recordings of the source that are finished
    seconds_in: float = 0.0  # length of the recordings that became windows
    seconds_out: float = 0.0  # length of the windows
    segments: int = 0  # in the windows
    shards_of: dict[str, int] = field(default_factory=dict)  # by split, in order
    rows_of: dict[str, int] = field(default_factory=dict)

    def at(self, step: Step) -> "State":
        """Return the state with another next step."""
        return replace(self, chunk=step.chunk, row=step.row, part=step.part)

    def after(self, outcome: RowOutcome) -> "State":
        """Return the state with the counts of an outcome added."""
        is_row, split = outcome.record is not None, outcome.split
        rows_of = self.rows_of | {split: self.rows_of.get(split, 0) + 1} if is_row and split else self.rows_of
        return replace(
            self,
            rows=self.rows + is_row,
            left_out=self.left_out + (outcome.left_out is not None),
            done=self.done + outcome.done,
            seconds_in=self.seconds_in + outcome.seconds_in,
            seconds_out=self.seconds_out + outcome.seconds_out,
            segments=self.segments + outcome.segments,
            rows_of=rows_of,
        )


class ShardSizes(Protocol):
    """Settings of the sizes of files, in megabytes."""

    @property
    def shard_mb(self) -> float:
        """Largest size of a file, unless one row group is larger."""

    @property
    def group_mb(self) -> float:
        """Largest size of a row group, unless one row is larger."""


class TableFile(Protocol):
    """Open file to which rows are written."""

    def write_table(self, table: pa.Table) -> None:
        """Append the rows of a table, as one row group."""

    def close(self) -> None:
        """Finish the file."""


OpenFile = Callable[[Path, pa.Schema], TableFile]


def parquet_file(path: Path, schema: pa.Schema) -> TableFile:
    """Open a parquet file. Encoded audio cannot be compressed further, and its values do not repeat."""
    writer: TableFile = pq.ParquetWriter(path, schema, compression="none", use_dictionary=False)
    return writer


class ShardPass:
    """Pass over records, which may continue an earlier one.

    Parameters
        schema: schema of the files
        state: progress so far
        settings: sizes of files and row groups
        out: folder of the files
        name: function that returns the path of a file by its number
        save: function that records a state durably
        listed: name of the list of rows left out
    """

    def __init__(
        self,
        records: Records,
        schema: pa.Schema,
        state: State,
        settings: ShardSizes,
        out: Path,
        name: Callable[[int], Path],
        save: Callable[[State], None],
        open_file: OpenFile = parquet_file,
        listed: str = LEFT_OUT,
    ) -> None:
        self._records, self._schema, self.state, self._out = records, schema, state, out
        self._name, self._save, self._open, self._listed = name, save, open_file, listed
        self._group_bytes, self._shard_bytes = settings.group_mb * MEGABYTE, settings.shard_mb * MEGABYTE
        self._held: RowOutcome | None = None  # read already, and to be written to the next file

    def run(self, advance: Callable[[int], None]) -> State:
        """Write the missing files, and return the final progress. `advance` is called with each number of rows read.

        Raises DiskError if a file cannot be written.
        """
        first = Step(self.state.chunk, self.state.row, self.state.part)
        with closing(self._records.outcomes(first)) as outcomes:
            while self.state.chunk < self._records.chunks:
                self._write_file(outcomes, advance)
        return self.state

    def _write_file(self, outcomes: Iterator[RowOutcome], advance: Callable[[int], None]) -> None:
        """Write the next file, then the list of the rows left out of it, then the record of the progress.

        If no row left is usable, there is no file, only the list and the record.
        """
        aside, left_out = self._out / f"{ASIDE}shard", list[ListedRow]()
        with disk_errors(aside):
            file = self._open(aside, self._schema)
        try:
            after = self._fill(file, outcomes, left_out, advance)
        finally:
            with disk_errors(aside):
                file.close()
        with disk_errors(self._out):
            if after.rows > self.state.rows:
                sync_file(aside)
                aside.replace(self._name(self.state.shards))
                split = next(
                    (name for name, rows in after.rows_of.items() if rows > self.state.rows_of.get(name, 0)), ""
                )
                of_split = after.shards_of | {split: after.shards_of.get(split, 0) + 1} if split else after.shards_of
                after = replace(after, shards=self.state.shards + 1, shards_of=of_split)
            else:
                aside.unlink()
            length = append_left_out(self._out / self._listed, self.state.left_out_bytes, left_out)
            after = replace(after, left_out_bytes=length)
        self._save(after)
        self.state = after

    def _fill(
        self,
        file: TableFile,
        outcomes: Iterator[RowOutcome],
        left_out: list[ListedRow],
        advance: Callable[[int], None],
    ) -> State:
        """Write row groups until the file is full, the split ends or nothing is left. Add to `left_out`.

        Returns the progress with the next step. The caller counts files.
        """
        group: list[dict[str, Any]] = []
        group_bytes = written_bytes = 0
        state, split = self.state, None

        def flush() -> None:
            nonlocal group_bytes, written_bytes
            if group:
                with disk_errors(self._out):
                    file.write_table(pa.Table.from_pylist(group, self._schema))
            written_bytes, group_bytes = written_bytes + group_bytes, 0
            group.clear()

        while outcome := self._next(outcomes):
            if outcome.record is not None:
                size = _size_of(outcome.record)
                is_other = state.rows > self.state.rows and outcome.split != split
                if is_other or (group and group_bytes + size > self._group_bytes):
                    flush()
                    if is_other or written_bytes + self._group_bytes > self._shard_bytes:
                        self._held = outcome
                        return state.at(outcome.step)
                group.append(outcome.record)
                group_bytes, split = group_bytes + size, outcome.split
            if outcome.left_out is not None:
                left_out.append(outcome.left_out)
            state = state.after(outcome)
            advance(outcome.done)
        flush()
        return state.at(Step(self._records.chunks))

    def _next(self, outcomes: Iterator[RowOutcome]) -> RowOutcome | None:
        held, self._held = self._held, None
        return held or next(outcomes, None)


def _size_of(record: dict[str, Any]) -> int:
    return len(record["audio"]["bytes"]) + len(record["sentence"].encode())


def append_left_out(path: Path, length: int, rows: Sequence[ListedRow]) -> int:
    """Append rows to the list of rows left out, and return the size of its file in bytes.

    `length` is the recorded size. Anything that a killed process wrote after it is overwritten. Raises OSError.
    """
    lines = "".join(f"{json_text(row._asdict())}\n" for row in rows).encode()
    if not length + len(lines):
        path.unlink(missing_ok=True)
        return 0
    with path.open("ab") as file:
        file.truncate(length)
        file.write(lines)
    sync_file(path)
    sync_folder(path.parent)
    return length + len(lines)
