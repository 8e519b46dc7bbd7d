"""Reading ahead: the next chunks are read while earlier ones are converted, because reading is mostly waiting."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

from whisper_ft.data.types import Row, Source

CHUNKS = 4  # chunks read at a time, each over its own connection
BYTES = 256_000_000  # audio that may wait in memory, so fewer of larger chunks are read ahead


class ReadAhead:
    """Reads the chunks of a source in order, and the next ones ahead. The end of a `with` block stops the reading."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._pool = ThreadPoolExecutor(CHUNKS)
        self._reading: dict[int, Future[Sequence[Row]]] = {}
        self._largest = 0  # size in bytes of the largest chunk so far

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def read(self, chunk: int) -> Sequence[Row]:
        """Return the rows of a chunk, or raise the exception that reading it raised.

        A chunk may be asked for again until a later one was asked for.
        """
        self._reading = {number: reading for number, reading in self._reading.items() if number >= chunk}
        rows = self._begin(chunk).result()
        # Segments of one recording share its bytes.
        size = sum({id(row.audio): len(row.audio) for row in rows}.values())
        self._largest = max(self._largest, size, 1)
        ahead = min(CHUNKS, BYTES // self._largest)
        for number in range(chunk + 1, min(chunk + 1 + ahead, len(self._source.rows))):
            self._begin(number)
        return rows

    def _begin(self, chunk: int) -> Future[Sequence[Row]]:
        if chunk not in self._reading:
            self._reading[chunk] = self._pool.submit(self._source.read, chunk)
        return self._reading[chunk]
