"""Records of the shards, in their order, and the rows that are left out. Work can begin at any place in this order."""

from collections.abc import Generator
from typing import Any, NamedTuple, Protocol

import pyarrow as pa

from whisper_ft.cli.prepare.ahead import ReadAhead
from whisper_ft.cli.prepare.shard_row import record_of, schema_of
from whisper_ft.data.labelled import LabelledSource
from whisper_ft.data.types import RejectedError, Row
from whisper_ft.runtime.signals import interrupt_held


class Step(NamedTuple):
    """Place in the order of the records: a chunk, a row in it, and the number of the outcome among those of the row."""

    chunk: int = 0
    row: int = 0
    part: int = 0


class ListedRow(Protocol):
    """Row that is not in the shards, as a named tuple: a line of the list of those left out."""

    def _asdict(self) -> dict[str, Any]:
        """Return the fields of the line as JSON values."""


class LeftOut(NamedTuple):
    """Row or segment that is not in the shards, and the reason."""

    id: str
    reason: str
    detail: str


class RowOutcome(NamedTuple):
    """Result for a row or a part of it: a record, or a line of the list of those left out, or only counts."""

    step: Step
    record: dict[str, Any] | None = None
    left_out: ListedRow | None = None
    done: int = 0
    """Rows, or recordings, of the source that are finished with this outcome."""
    split: str | None = None
    """Split of the record; None if the records are not divided into splits."""
    seconds_in: float = 0.0
    """Length of the recording that is finished with this outcome."""
    seconds_out: float = 0.0
    """Length of the window in the record."""
    segments: int = 0
    """Number of segments in the window."""


class Records(Protocol):
    """Records of one pass over the data."""

    schema: pa.Schema
    chunks: int
    """Number of chunks. The step of this chunk is that of the end."""
    total: int
    """Number of rows or recordings, for a progress bar."""

    def outcomes(self, first: Step) -> Generator[RowOutcome]:
        """Yield the outcomes from a step on, in order. From any step they are the same as from the beginning."""


class RowRecords:
    """Records of the rows of a source, one each, in stored order."""

    def __init__(self, source: LabelledSource, has_times: bool = False) -> None:
        self._source = source
        self.schema = schema_of(has_times)
        self.chunks, self.total = len(source.rows), sum(source.rows)

    def outcomes(self, first: Step) -> Generator[RowOutcome]:
        """Yield the outcomes from a step on: a record for each row that can be used."""
        with ReadAhead(self._source) as chunks:
            begin = first.row
            for chunk in range(first.chunk, self.chunks):
                for number, row in enumerate(chunks.read(chunk)[begin:], begin):
                    yield self._outcome(Step(chunk, number), row)
                begin = 0

    def _outcome(self, step: Step, row: Row) -> RowOutcome:
        try:
            with interrupt_held():
                return RowOutcome(step, record_of(row, self._source.where), done=1)
        except RejectedError as unusable:
            return RowOutcome(step, left_out=LeftOut(row.id, unusable.reason, unusable.detail), done=1)
