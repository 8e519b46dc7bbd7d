"""Several sources as one, each with its weight; of one alone, that source."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, chain
from typing import Any

from whisper_ft.data.sampling.order import MixedOrder, lanes_by_weight
from whisper_ft.data.types import Row, Source


class MixedSource:
    """The chunks of all sources in a row. `says` are language and task of the rows that name none, by source."""

    def __init__(
        self, sources: Sequence[Source], weights: Sequence[float], says: Sequence[tuple[str | None, str]]
    ) -> None:
        self._sources, self._weights, self._says = list(sources), list(weights), list(says)
        self._first_chunk = [0, *accumulate(len(source.rows) for source in sources)]
        self.rows: list[int] = list(chain.from_iterable(source.rows for source in sources))

    def order(self, *, seed: int, lanes: int, window: int) -> MixedOrder:
        """The stream over the sources. ValueError where the lanes cannot give the weights."""
        parts = [source.rows for source in self._sources]
        return MixedOrder(parts, lanes_by_weight(self._weights, lanes), seed=seed, window=window)

    @property
    def largest_chunk(self) -> int | None:
        """The largest of those that are known."""
        return max((size for source in self._sources if (size := source.largest_chunk)), default=None)

    def read(self, chunk: int) -> Sequence[Row]:
        """The rows of one chunk, ids and languages completed."""
        number, inner = self._place(chunk)
        rows = self._sources[number].read(inner)
        if len(self._sources) == 1:
            return rows
        language, task = self._says[number]
        return [
            replace(row, id=f"{number}/{row.id}", language=row.language or language, task=row.task or task)
            for row in rows
        ]

    def row_id(self, chunk: int, row: int) -> str:
        """Id of a row; of several sources with the number of its source in front, as two may hold the same names."""
        number, inner = self._place(chunk)
        found = self._sources[number].row_id(inner, row)
        return found if len(self._sources) == 1 else f"{number}/{found}"

    def fingerprint(self) -> dict[str, Any]:
        """That of the only source, or of each."""
        if len(self._sources) == 1:
            return self._sources[0].fingerprint()
        return {"sources": [source.fingerprint() for source in self._sources]}

    def realised(self, lanes: int) -> str | None:
        """For people: the share that each source gets; None of one alone."""
        if len(self._sources) == 1:
            return None
        given = lanes_by_weight(self._weights, lanes)
        asked = [weight / sum(self._weights) for weight in self._weights]
        return ", ".join(
            f"source {number}: {100 * n / lanes:.1f} % (asked {100 * share:.1f} %, {sum(source.rows)} rows)"
            for number, (source, n, share) in enumerate(zip(self._sources, given, asked, strict=True))
        )

    def _place(self, chunk: int) -> tuple[int, int]:
        """Source and its own number of a chunk."""
        number = bisect_right(self._first_chunk, chunk) - 1
        return number, chunk - self._first_chunk[number]
