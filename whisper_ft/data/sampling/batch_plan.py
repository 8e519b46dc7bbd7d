"""Batch plan of one rank: the micro-batch, the reader and the place in the data of each row that it trains on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from whisper_ft.data.sampling.order import MixedOrder, Order, Place
from whisper_ft.data.sampling.partition import Partition


class Block(NamedTuple):
    """Positions of the stream whose rows one reader turns into windows together. Today a block is one position."""

    positions: tuple[int, ...]
    reader: int


@dataclass(frozen=True)
class BatchPlan:
    """Plan of one rank's blocks for each step and micro-batch.

    The plan is a pure function of order, partition and number of readers.
    """

    order: Order | MixedOrder
    partition: Partition
    readers: int
    """Processes of this rank that read data, at least 1."""
    end: int | None = None
    """Position of the stream at which the run ends; later positions are left out."""

    @property
    def micro_batches(self) -> int:
        """Number of micro-batches in a step, equal on every rank."""
        return self.partition.accumulate

    def blocks(self, step: int, micro_batch: int) -> list[Block]:
        """Return this rank's blocks in one micro-batch, in the order of their positions; maybe none.

        Micro-batches of a step are counted from 0.
        """
        first = step * self.partition.batch_size
        return [
            Block((first + slot,), self.partition.reader(slot, self.readers))
            for slot in self.partition.slots(micro_batch)
            if self.end is None or first + slot < self.end
        ]

    def places(self, block: Block) -> list[Place]:
        """Return the epoch, chunk and row of each position of a block."""
        return [self.order.locate(position) for position in block.positions]

    def in_first_pass(self, block: Block) -> Sequence[bool]:
        """Return for each position of a block if it lies in the first pass, in which every row comes once."""
        return [position < self.order.total for position in block.positions]
