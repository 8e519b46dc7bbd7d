"""Partition of a global batch over ranks, and of a rank's share over its readers.

A partition changes neither the content of a batch nor its gradient, only the process that reads each position.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

MAX_UNEVENNESS = 1.1  # most positions of a rank, as a multiple of an even share


@dataclass(frozen=True)
class Partition:
    """Batch positions (slots) that belong to one rank.

    Slots that are congruent modulo gcd(lanes, batch_size) read the same lanes, because position p of the stream belongs
    to lane p % lanes. They form a class, and a class goes to one rank and one reader, so that a chunk is read once. If
    this would load a rank over 10 % above its share, slots are dealt round-robin instead.
    """

    batch_size: int
    """Utterances of the global batch."""
    per_device: int
    """Utterances of a micro-batch."""
    rank: int
    world: int
    lanes: int

    @cached_property
    def _classes(self) -> int:
        """Number of classes of slots. It is `batch_size` if every slot is a class by itself."""
        classes = math.gcd(self.lanes, self.batch_size)
        return classes if unevenness(self.batch_size, classes, self.world) <= MAX_UNEVENNESS else self.batch_size

    @cached_property
    def _slots_of_ranks(self) -> list[list[int]]:
        owner = [slot % self._classes % self.world for slot in range(self.batch_size)]
        return [[slot for slot in range(self.batch_size) if owner[slot] == rank] for rank in range(self.world)]

    @property
    def accumulate(self) -> int:
        """Number of micro-batches in a step. It is equal on every rank, even if the slots do not divide evenly."""
        return -(-max(map(len, self._slots_of_ranks)) // self.per_device)

    def slots(self, micro_batch: int) -> list[int]:
        """Return this rank's slots in one micro-batch, rising. The last micro-batches may have fewer, or none."""
        own = self._slots_of_ranks[self.rank]
        return own[micro_batch * self.per_device : (micro_batch + 1) * self.per_device]

    def portions(self, readers: int) -> int:
        """Return the number of portions of a step. A portion is a micro-batch, for any number of readers."""
        del readers
        return self.accumulate

    def groups(self, portion: int, readers: int) -> list[tuple[Sequence[int], int]]:
        """Return each slot of a micro-batch as a group of its own, with the number of its reader."""
        return [((slot,), self.reader(slot, readers)) for slot in self.slots(portion)]

    def reader(self, slot: int, readers: int) -> int:
        """Return the number of the reader that prepares a slot, if this rank has `readers` readers."""
        return slot % self._classes // self.world % readers

    def lanes_read(self, readers: int) -> int:
        """Return the largest number of lanes that a single reader reads, if this rank has `readers` readers.

        The cache of a reader holds a shuffle span of each of its lanes.
        """
        own = self._slots_of_ranks[self.rank]
        parts = [[slot for slot in own if self.reader(slot, readers) == reader] for reader in range(readers)]
        return max(len(lanes_of_slots(slots, self.lanes, self.batch_size)) for slots in parts)


def lanes_of_slots(slots: Iterable[int], lanes: int, batch_size: int) -> set[int]:
    """Return the lanes that some slots of the batch read over all steps."""
    steps = range(lanes // math.gcd(lanes, batch_size))  # slots and lanes repeat after these steps
    return {(step * batch_size + slot) % lanes for slot in slots for step in steps}


def unevenness(batch_size: int, classes: int, world: int) -> float:
    """Return the slots of the busiest rank divided by an even share, rounded up to whole slots; 1 means even.

    Slots that are congruent modulo `classes` stay together on one rank.
    """
    busiest = max(Counter(slot % classes % world for slot in range(batch_size)).values())
    return busiest / -(-batch_size // world)
