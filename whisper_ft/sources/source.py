"""What a source is."""

from collections.abc import Sequence
from typing import Any, Protocol

from whisper_ft.sources.row import Row


class Source(Protocol):
    """Rows in chunks, read at random."""

    @property
    def rows(self) -> Sequence[int]:
        """Number of rows of each chunk."""

    @property
    def largest_chunk(self) -> int | None:
        """Bytes of the largest chunk in memory, where the index tells."""

    def read(self, chunk: int) -> Sequence[Row]:
        """The rows of one chunk, in their order."""

    def row_id(self, chunk: int, row: int) -> str:
        """Id of a row, without reading it: the same in every run."""

    def fingerprint(self) -> dict[str, Any]:
        """What the index says, in a few JSON values: recorded in checkpoints and compared on resume."""
