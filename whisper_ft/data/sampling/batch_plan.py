"""Batch plan of one rank: the micro-batch, the reader and the place in the data of each row that it trains on."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from whisper_ft.data.sampling.block_partition import BlockPartition
from whisper_ft.data.sampling.order import MixedOrder, Order, Place
from whisper_ft.data.sampling.partition import Partition


class Block(NamedTuple):
    """Positions of the stream whose rows one reader turns into windows together.

    Without packing a block is one position. With packing all positions of a block are of one source.
    """

    positions: tuple[int, ...]
    reader: int


@dataclass(frozen=True)
class BatchPlan:
    """Plan of one rank's blocks for each step. A step is divided into portions, the parts that readers hand over.

    The plan is a pure function of order, partition and number of readers. Without packing a portion is a micro-batch.
    """

    order: Order | MixedOrder
    partition: Partition | BlockPartition
    readers: int
    """Processes of this rank that read data, at least 1."""
    end: int | None = None
    """Position of the stream at which the run ends; later positions are left out."""

    @property
    def portions(self) -> int:
        """Number of portions in a step."""
        return self.partition.portions(self.readers)

    def blocks(self, step: int, portion: int) -> list[Block]:
        """Return this rank's blocks in one portion of a step; maybe none. Portions are counted from 0."""
        first, blocks = step * self.partition.batch_size, list[Block]()
        for slots, reader in self.partition.groups(portion, self.readers):
            by_source = defaultdict[int, list[int]](list)
            for position in (first + slot for slot in slots):
                if self.end is None or position < self.end:
                    by_source[self.order.source_of(position)].append(position)
            blocks += [Block(tuple(by_source[source]), reader) for source in sorted(by_source)]
        return blocks

    def places(self, block: Block) -> list[Place]:
        """Return the epoch, chunk and row of each position of a block."""
        return [self.order.locate(position) for position in block.positions]

    def in_first_pass(self, block: Block) -> Sequence[bool]:
        """Return for each position of a block if it lies in the first pass, in which every row comes once."""
        return [position < self.order.total for position in block.positions]
