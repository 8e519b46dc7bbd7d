"""Partition of a global batch into blocks of utterances that are packed together, and of the blocks over ranks.

The blocks depend on batch size, block size and lanes only, never on the machine. So the windows of a step are the same
for any number of processes and workers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from whisper_ft.data.sampling.partition import MAX_UNEVENNESS, lanes_of_slots
from whisper_ft.runtime.errors import UsageError
from whisper_ft.runtime.printable import counted


@dataclass(frozen=True)
class BlockPartition:
    """Batch positions (slots) of each block, and the blocks that belong to one rank.

    Slots that are congruent modulo gcd(lanes, batch_size) read the same lanes. They form a class, and a block consists
    of whole classes, so that each chunk is read by one reader. Classes are sorted by source, so that most blocks have
    one source. If blocks of whole classes would be over 10 % too large, each slot is a class by itself.

    Block g belongs to rank g % world, and there to reader g // world % readers.
    """

    batch_size: int
    """Utterances of the global batch."""
    block: int
    """Wanted number of utterances in a block."""
    rank: int
    world: int
    lanes: int
    sources: tuple[int, ...]
    """Number of the source of each lane."""

    @property
    def blocks(self) -> int:
        """Number of blocks in a step, at least 1: the batch size divided by the block size, rounded."""
        return max((2 * self.batch_size + self.block) // (2 * self.block), 1)

    @cached_property
    def slots_of_blocks(self) -> list[list[int]]:
        """Slots of each block of a step, rising."""
        classes = math.gcd(self.lanes, self.batch_size)
        largest = -(-classes // self.blocks) * (self.batch_size // classes)
        if classes < self.blocks or largest > MAX_UNEVENNESS * -(-self.batch_size // self.blocks):
            classes = self.batch_size
        ordered = sorted(range(classes), key=lambda number: (self.sources[number % self.lanes], number))
        ends = [number * classes // self.blocks for number in range(self.blocks + 1)]
        return [
            sorted(slot for number in ordered[begin:end] for slot in range(number, self.batch_size, classes))
            for begin, end in pairwise(ends)
        ]

    def blocks_of(self, rank: int) -> list[list[int]]:
        """Return the slots of each block that belongs to a rank."""
        return self.slots_of_blocks[rank :: self.world]

    def portions(self, readers: int) -> int:
        """Return the number of portions of a step: in each, every one of a rank's `readers` readers has one block."""
        return -(-len(self.blocks_of(self.rank)) // readers)

    def groups(self, portion: int, readers: int) -> list[tuple[Sequence[int], int]]:
        """Return the slots of each block in a portion, with the number of its reader. The last readers may have none.

        A rank has `readers` readers.
        """
        own = self.blocks_of(self.rank)[portion * readers : (portion + 1) * readers]
        return [(slots, reader) for reader, slots in enumerate(own)]

    def lanes_read(self, readers: int) -> int:
        """Return the largest number of lanes that a single reader reads, if this rank has `readers` readers."""
        own = self.blocks_of(self.rank)
        parts = [[slot for slots in own[reader::readers] for slot in slots] for reader in range(readers)]
        return max(len(lanes_of_slots(slots, self.lanes, self.batch_size)) for slots in parts)

    def refuse_idle_ranks(self) -> None:
        """Raise UsageError if there are fewer blocks than ranks, because some ranks would then have no data."""
        if self.blocks >= self.world:
            return
        way_out = f"set pack.block to {self.batch_size // self.world} or less" if self.batch_size >= self.world else ""
        raise UsageError(
            f"--pack.block {self.block}: a step of {self.batch_size} utterances (batch.size) has "
            f"{counted(self.blocks, 'block')}, and each of {self.world} processes needs one; "
            f"{', '.join(filter(None, [way_out, 'raise batch.size, or start fewer processes']))}"
        )
