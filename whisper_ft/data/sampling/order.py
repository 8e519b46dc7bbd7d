"""Order of the training data: the epoch, chunk and row of each position in the global stream, computed directly.

A lane is one of L interleaved streams: within an epoch of N rows, position j belongs to lane j % L. The chunks of an
epoch (row groups of parquet, for example) are permuted. Each lane owns a contiguous stretch of the resulting sequence
of rows, so it reads few chunks at a time. It shuffles rows inside a shuffle span of K chunks. Every permutation is a
hash of (seed, source, epoch, lane, span). The numbers of processes, workers and prefetched batches have no influence.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from whisper_ft.data.sampling.partition import unevenness
from whisper_ft.runtime.rng import permutation

ORDER_VERSION = 1  # recorded in checkpoints; increase it with every change that gives a position another row

USUAL_WORLDS = (2, 3, 4, 8)  # numbers of processes that the default number of lanes should suit

MAX_WEIGHT_ERROR = 0.1  # largest relative error of a source's share that rounding to whole lanes may cause

_CHUNKS, _ROWS = 0, 1  # part of a hash that tells permutations of chunks from those of rows


class Place(NamedTuple):
    """Place of an utterance in its source. Random choices about the utterance use it as their key."""

    epoch: int
    chunk: int
    row: int  # number within the chunk


@dataclass(frozen=True)
class _Epoch:
    chunks: npt.NDArray[np.int64]  # [C] chunk numbers in the order of this epoch
    ends: npt.NDArray[np.int64]  # [C] cumulative number of rows up to the end of each chunk


class Order:
    """Infinite stream over one source. Each epoch is a permutation of all rows.

    Parameters
        rows: number of rows of each chunk.
        window: shuffle span, in chunks; a lane shuffles the rows of that many chunks together.
        source: number of the source in a mixture, part of every hash.

    Raises ValueError without rows, and for less than one lane or a window of less than one chunk.
    """

    def __init__(self, rows: Sequence[int], *, seed: int, lanes: int, window: int, source: int = 0) -> None:
        if lanes < 1 or window < 1 or sum(rows) < 1:
            raise ValueError(f"an order needs rows, lanes and a window, got {sum(rows)}, {lanes} and {window}")
        self.total = sum(rows)
        self._rows = np.asarray(rows, dtype=np.int64)
        self._seed, self._lanes, self._window, self._source = seed, lanes, window, source
        self._epoch = lru_cache(maxsize=2)(self._permute_chunks)
        # Cached, because a lane stays in one shuffle span for many positions.
        self._shuffle = lru_cache(maxsize=2 * lanes)(self._permute_rows)

    def __getstate__(self) -> dict[str, object]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_epoch", "_shuffle")}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._epoch = lru_cache(maxsize=2)(self._permute_chunks)
        self._shuffle = lru_cache(maxsize=2 * self._lanes)(self._permute_rows)

    def locate(self, position: int) -> Place:
        """Return the place of a position in the stream, at a cost that does not depend on the position."""
        number, j = divmod(position, self.total)
        lane, offset = j % self._lanes, j // self._lanes
        epoch = self._epoch(number)
        begin, end = self._stretch(lane)
        first_chunk = self._chunk_at(epoch, begin)

        # Shuffle span of the row: `window` chunks counted from the first of the lane, cut to the stretch of the lane.
        index = (self._chunk_at(epoch, begin + offset) - first_chunk) // self._window
        low = first_chunk + index * self._window
        high = min(low + self._window, len(epoch.ends))
        window_begin = max(begin, int(epoch.ends[low - 1]) if low else 0)
        window_end = min(end, int(epoch.ends[high - 1]))

        shuffled = self._shuffle(window_end - window_begin, number, lane, index)
        row = window_begin + int(shuffled[begin + offset - window_begin])
        chunk = self._chunk_at(epoch, row)
        return Place(number, int(epoch.chunks[chunk]), row - (int(epoch.ends[chunk - 1]) if chunk else 0))

    def source_of(self, position: int) -> int:
        """Return the number of the source of a position, which is the same for all."""
        del position
        return self._source

    def _stretch(self, lane: int) -> tuple[int, int]:
        """Rows [begin, end) of an epoch's sequence that a lane owns. The lanes' lengths differ by at most one row."""
        length, longer = divmod(self.total, self._lanes)
        begin = lane * length + min(lane, longer)
        return begin, begin + length + (lane < longer)

    def _chunk_at(self, epoch: _Epoch, row: int) -> int:
        """Index of the chunk that contains a row, both counted in the epoch's sequence. Empty chunks are skipped."""
        return int(np.searchsorted(epoch.ends, row, side="right"))

    def _permute_chunks(self, number: int) -> _Epoch:
        chunks = permutation(len(self._rows), self._seed, self._source, number, _CHUNKS)
        return _Epoch(chunks, np.cumsum(self._rows[chunks]))

    def _permute_rows(self, n: int, number: int, lane: int, window: int) -> npt.NDArray[np.int64]:
        return permutation(n, self._seed, self._source, number, _ROWS, lane, window)


class MixedOrder:
    """One stream over several sources. Each source owns whole lanes, so the mixture is exact in every L positions.

    L is the number of lanes of all sources. Chunks are numbered through all sources. A source begins its next epoch
    when its rows are used up, independently of the others. With one source the stream is that of its `Order`.

    Parameters
        parts: for each source, the number of rows of each chunk.
        lanes_of: for each source, the number of lanes that it owns.
    """

    def __init__(self, parts: Sequence[Sequence[int]], lanes_of: Sequence[int], *, seed: int, window: int) -> None:
        self.total = sum(map(sum, parts))
        self._lanes_of = list(lanes_of)
        self._owners = _spread(lanes_of)  # [L] number of the source of each lane
        self._places = [self._owners[:lane].count(owner) for lane, owner in enumerate(self._owners)]
        self._first_chunk = [0, *accumulate(map(len, parts))]
        self._orders = [
            Order(rows, seed=seed, lanes=lanes, window=window, source=source)
            for source, (rows, lanes) in enumerate(zip(parts, lanes_of, strict=True))
        ]

    def locate(self, position: int) -> Place:
        """Return the place of a position. The epoch of a place counts the passes over its own source."""
        turn, lane = divmod(position, len(self._owners))
        source = self._owners[lane]
        place = self._orders[source].locate(turn * self._lanes_of[source] + self._places[lane])
        return Place(place.epoch, self._first_chunk[source] + place.chunk, place.row)

    @property
    def sources_of_lanes(self) -> tuple[int, ...]:
        """Number of the source of each lane."""
        return tuple(self._owners)

    def source_of(self, position: int) -> int:
        """Return the number of the source of a position."""
        return self._owners[position % len(self._owners)]


def lanes_by_weight(weights: Sequence[float], lanes: int) -> list[int]:
    """Return the number of lanes of each source: in proportion to its weight, at least one, by largest remainders.

    Raises ValueError if rounding changes the share of a source by over 10 %. The message says what would help, such as
    a sufficient number of lanes.
    """
    shares = [weight / sum(weights) for weight in weights]
    given = _round(shares, lanes)
    if (worst := _error(shares, given)) > MAX_WEIGHT_ERROR:
        enough = next((n for n in range(lanes, 4097, lanes) if _error(shares, _round(shares, n)) <= 0.1), None)
        way_out = f"use {enough} lanes" if enough else "choose weights nearer to each other"
        realised = ", ".join(f"{n / lanes:.3f} for {share:.3f}" for n, share in zip(given, shares, strict=True))
        raise ValueError(f"{lanes} lanes give shares of {realised}, which is off by {100 * worst:.0f} %; {way_out}")
    return given


def _round(shares: Sequence[float], lanes: int) -> list[int]:
    given = [max(1, int(share * lanes)) for share in shares]
    by_need = sorted(range(len(shares)), key=lambda i: (given[i] - shares[i] * lanes, i))
    for i in by_need[: max(lanes - sum(given), 0)]:
        given[i] += 1
    while sum(given) > lanes and max(given) > 1:  # tiny sources were raised to one lane, so the largest gives some up
        given[given.index(max(given))] -= 1
    return given


def _error(shares: Sequence[float], given: Sequence[int]) -> float:
    lanes = sum(given)
    return max(abs(n / lanes / share - 1) for n, share in zip(given, shares, strict=True))


def _spread(lanes_of: Sequence[int]) -> list[int]:
    """Source of each lane; the lanes of each source are spaced evenly."""
    wanted = [((i + 0.5) / lanes, source) for source, lanes in enumerate(lanes_of) for i in range(lanes)]
    return [source for _, source in sorted(wanted)]


def default_lanes(batch_size: int) -> int:
    """Default number of lanes for a global batch, between 16 and 64.

    The number is a divisor of the batch size, or a multiple of a batch size up to 16, so that two readers never share a
    chunk. Among several divisors the choice is the number that usual numbers of processes share most evenly, and then
    the largest. Without such a divisor the number is 64. It never depends on the machine.
    """
    if batch_size <= 16:
        return batch_size * -(-16 // batch_size)

    def worst(lanes: int) -> float:
        return max(unevenness(batch_size, lanes, world) for world in USUAL_WORLDS)

    return min((n for n in range(16, 65) if batch_size % n == 0), key=lambda n: (worst(n), -n), default=64)
