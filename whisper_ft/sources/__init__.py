"""Sources: where rows come from. A source knows its chunks and their row counts from an index, and reads one chunk."""

from collections.abc import Sequence
from typing import Any, Protocol

from whisper_ft import config
from whisper_ft.sources.parquet import open_parquet
from whisper_ft.sources.row import Row

__all__ = ["Row", "Source", "open_source"]


class Source(Protocol):
    """Rows in chunks, read at random."""

    @property
    def rows(self) -> Sequence[int]:
        """Number of rows of each chunk."""

    def read(self, chunk: int) -> Sequence[Row]:
        """The rows of one chunk, in their order."""

    def row_id(self, chunk: int, row: int) -> str:
        """Id of a row, without reading it: the same in every run."""

    def fingerprint(self) -> dict[str, Any]:
        """What the index says, in a few JSON values: recorded in checkpoints and compared on resume."""


def open_source(where: config.Source) -> Source:
    """The source that a path names; DataError or UsageError in one line if it is none."""
    return open_parquet(where)
