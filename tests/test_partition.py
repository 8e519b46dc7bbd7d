"""Slots over ranks and readers: each once, evenly, and so that a chunk is read by one of them."""

import math
from collections import OrderedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whisper_ft.data.sampling.order import Order, default_lanes
from whisper_ft.data.sampling.partition import Partition

WINDOW = 2


@given(st.integers(1, 140), st.integers(1, 20), st.integers(1, 9), st.integers(0, 70))
def test_every_slot_of_a_batch_belongs_to_one_micro_batch_of_one_rank(
    size: int, per_device: int, world: int, lanes: int
):
    shares = [Partition(size, per_device, rank, world, lanes or default_lanes(size)) for rank in range(world)]
    assert len({share.accumulate for share in shares}) == 1, "every rank makes as many passes"
    parts = [share.slots(i) for share in shares for i in range(share.accumulate)]
    assert sorted(slot for part in parts for slot in part) == list(range(size))
    assert max(len(part) for part in parts) <= per_device
    busiest = max(sum(len(share.slots(i)) for i in range(share.accumulate)) for share in shares)
    assert busiest <= 1.1 * math.ceil(size / world)


@given(st.integers(1, 140), st.integers(1, 9), st.integers(1, 4))
def test_the_readers_of_a_rank_divide_its_slots_evenly(size: int, world: int, readers: int):
    share = Partition(size, size, 0, world, default_lanes(size))
    of = [sum(share.reader(slot, readers) == reader for slot in share.slots(0)) for reader in range(readers)]
    classes = math.gcd(default_lanes(size), size)
    assert max(of) - min(of) <= math.ceil(size / classes)


def reads(share: Partition, readers: int, rows: int, chunks: int, steps: int) -> int:
    """Chunks that the readers of a rank read in so many steps, each through a cache as large as train.py makes it."""
    order = Order([rows] * chunks, seed=1, lanes=share.lanes, window=WINDOW)
    count = 0
    for reader in range(readers):
        cache: OrderedDict[int, None] = OrderedDict()
        slots = [s for i in range(share.accumulate) for s in share.slots(i) if share.reader(s, readers) == reader]
        for step in range(steps):
            for slot in slots:
                chunk = order.locate(step * share.batch_size + slot).chunk
                if chunk not in cache:
                    count += 1
                    if len(cache) >= share.lanes_read(readers) * (WINDOW + 2):
                        cache.popitem(last=False)
                cache[chunk] = None
                cache.move_to_end(chunk)
    return count


QUICK = (16, 24, 72)  # in `make test`; all of them in `make test-long`


@pytest.mark.long
@pytest.mark.parametrize(
    "size",
    [
        size if size in QUICK else pytest.param(size, marks=pytest.mark.matrix)
        for size in (16, 24, 32, 72, 80, 100, 128)
    ],
)
@pytest.mark.parametrize(("world", "readers"), [(1, 1), (1, 2), (2, 2), (3, 1), (4, 1), (8, 1), (8, 2)])
def test_a_chunk_is_read_by_one_reader_and_about_once(size: int, world: int, readers: int):
    """Rows of a chunk not a multiple of anything, so that lanes change their windows at different steps."""
    lanes, rows = default_lanes(size), 23
    chunks = 24 * lanes
    steps = rows * chunks // size
    read = sum(reads(Partition(size, size, rank, world, lanes), readers, rows, chunks, steps) for rank in range(world))
    assert chunks * 0.99 <= read <= 1.1 * chunks


def test_more_processes_and_workers_need_less_memory_each():
    assert [
        Partition(16, 16, 0, world, 16).lanes_read(readers) for world, readers in ((1, 1), (1, 4), (2, 2), (8, 2))
    ] == [
        16,
        4,
        4,
        1,
    ]
