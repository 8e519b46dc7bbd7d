"""Mixture of several sources by weight. With one source, the mixture reads as that source does."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, chain, islice, pairwise
from typing import Any

from whisper_ft.data.labelled import LabelledSource
from whisper_ft.data.sampling.order import MixedOrder, lanes_by_weight
from whisper_ft.data.storage.content import Content
from whisper_ft.data.types import Row
from whisper_ft.runtime.printable import counted


class MixedSource:
    """Source over the chunks of several sources, one source after the other.

    Parameters
        weights: share of each source in the stream, relative to the others
        defaults: language and task of each source, for rows without them
    """

    def __init__(
        self,
        sources: Sequence[LabelledSource],
        weights: Sequence[float],
        defaults: Sequence[tuple[str | None, str]],
    ) -> None:
        self.parts: Sequence[LabelledSource] = list(sources)
        self._weights, self._defaults = list(weights), list(defaults)
        self._first_chunk = [0, *accumulate(len(source.rows) for source in sources)]
        self.rows: list[int] = list(chain.from_iterable(source.rows for source in sources))

    def order(self, *, seed: int, lanes: int, window: int) -> MixedOrder:
        """Return the order of the stream over the sources.

        Raises ValueError if that number of lanes cannot give each source its weight.
        """
        parts = [source.rows for source in self.parts]
        return MixedOrder(parts, lanes_by_weight(self._weights, lanes), seed=seed, window=window)

    @property
    def largest_chunk(self) -> int | None:
        """Bytes of the largest chunk, among the sources that know theirs; None if no source does."""
        return max((size for source in self.parts if (size := source.largest_chunk)), default=None)

    @property
    def notes(self) -> list[str]:
        """Lines for the user about the reading of lists."""
        return [note for part in self.parts for note in part.notes]

    def read(self, chunk: int) -> Sequence[Row]:
        """Read the rows of one chunk.

        If there are several sources, ids start with the number of the source. Rows without language or task get those
        of the source.
        """
        number, inner = self._place(chunk)
        rows = self.parts[number].read(inner)
        if len(self.parts) == 1:
            return rows
        language, task = self._defaults[number]
        return [
            replace(row, id=f"{number}/{row.id}", language=row.language or language, task=row.task or task)
            for row in rows
        ]

    def beginning(self, rows: int) -> Iterator[Row]:
        """Return an iterator over about `rows` rows: the first of each source, equally many of each.

        A source with fewer rows gives all of them.
        """
        each = -(-rows // len(self.parts))
        for first, end in pairwise(self._first_chunk):
            chunks = (self.read(chunk) for chunk in range(first, end) if self.rows[chunk])
            yield from islice(chain.from_iterable(chunks), each)

    def row_id(self, chunk: int, row: int) -> str:
        """Id of a row.

        If there are several sources, it starts with the number of the source, because two sources may have equal ids.
        """
        number, inner = self._place(chunk)
        row_id = self.parts[number].row_id(inner, row)
        return row_id if len(self.parts) == 1 else f"{number}/{row_id}"

    def fingerprint(self) -> dict[str, Any]:
        """Fingerprint of the only source, or the fingerprints of all sources."""
        if len(self.parts) == 1:
            return self.parts[0].fingerprint()
        return {"sources": [source.fingerprint() for source in self.parts]}

    def content(self) -> Content:
        """Digests of the content of the only source, or of each source, to stand beside the fingerprint's values."""
        if len(self.parts) == 1:
            return self.parts[0].content()
        return {"sources": [source.content() for source in self.parts]}

    def realised(self, lanes: int) -> str | None:
        """Text for the user about the share that each source gets; None for a single source.

        Raises ValueError as `order` does.
        """
        if len(self.parts) == 1:
            return None
        realised = lanes_by_weight(self._weights, lanes)
        wanted = [weight / sum(self._weights) for weight in self._weights]
        return ", ".join(
            f"source {number}: {100 * n / lanes:.1f} % (asked {100 * share:.1f} %, {counted(sum(source.rows), 'row')})"
            for number, (source, n, share) in enumerate(zip(self.parts, realised, wanted, strict=True))
        )

    def _place(self, chunk: int) -> tuple[int, int]:
        """Return the number of a chunk's source, and the number of the chunk within that source."""
        number = bisect_right(self._first_chunk, chunk) - 1
        return number, chunk - self._first_chunk[number]
