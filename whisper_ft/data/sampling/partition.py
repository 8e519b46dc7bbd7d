"""Who reads what: the slots of a global batch over ranks, and those of a rank over its readers.

It changes neither what is in a slot nor the gradient, only which process reads it.
"""

import math
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

MOST_UNEVEN = 1.1  # slots of the busiest rank, over those of an even share


@dataclass(frozen=True)
class Partition:
    """The slots of one rank.

    Position p of the stream is of lane p % lanes, so slot s of any batch is only ever of lanes that equal s modulo
    gcd(lanes, batch size). All slots of such a class go to one rank, and there to one reader: a chunk is then read by
    one of them, not by several. Where that would give one rank clearly more to train on, every `world`-th slot is its.
    """

    batch_size: int  # global
    per_device: int
    rank: int
    world: int
    lanes: int

    @cached_property
    def _classes(self) -> int:
        """Number of classes of slots that are kept together; each slot alone where they cannot be."""
        classes = math.gcd(self.lanes, self.batch_size)
        return classes if unevenness(self.batch_size, classes, self.world) <= MOST_UNEVEN else self.batch_size

    @cached_property
    def _slots_of_ranks(self) -> list[list[int]]:
        owner = [slot % self._classes % self.world for slot in range(self.batch_size)]
        return [[slot for slot in range(self.batch_size) if owner[slot] == rank] for rank in range(self.world)]

    @property
    def accumulate(self) -> int:
        """Micro-batches per step: the same on every rank, also where the slots do not divide evenly."""
        return -(-max(map(len, self._slots_of_ranks)) // self.per_device)

    def slots(self, micro_batch: int) -> list[int]:
        """This rank's slots in one micro-batch; at the end of an uneven batch there may be none."""
        mine = self._slots_of_ranks[self.rank]
        return mine[micro_batch * self.per_device : (micro_batch + 1) * self.per_device]

    def reader(self, slot: int, readers: int) -> int:
        """Which of this rank's `readers` prepares a slot."""
        return slot % self._classes // self.world % readers

    def lanes_read(self, readers: int) -> int:
        """Most lanes that one of this rank's `readers` is ever in: its cache has to hold a window of each."""
        steps = range(self.lanes // math.gcd(self.lanes, self.batch_size))  # then slots and lanes meet as at the start
        lanes_of: list[set[int]] = [set() for _ in range(readers)]
        for slot in self._slots_of_ranks[self.rank]:
            lanes_of[self.reader(slot, readers)].update((step * self.batch_size + slot) % self.lanes for step in steps)
        return max(map(len, lanes_of))


def unevenness(batch_size: int, classes: int, world: int) -> float:
    """Slots of the busiest rank over an even share, where slots that are equal modulo `classes` stay together."""
    busiest = max(Counter(slot % classes % world for slot in range(batch_size)).values())
    return busiest / -(-batch_size // world)
