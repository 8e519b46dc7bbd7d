"""Blocks of a packed step: whole classes of slots, the same for any number of ranks and readers."""

import math
from collections import OrderedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whisper_ft.data.sampling.batch_plan import BatchPlan
from whisper_ft.data.sampling.block_partition import BlockPartition
from whisper_ft.data.sampling.order import MixedOrder, Order, default_lanes
from whisper_ft.runtime.errors import UsageError


def partition(size: int, block: int, rank: int = 0, world: int = 1, lanes: int | None = None) -> BlockPartition:
    lanes = lanes or default_lanes(size)
    return BlockPartition(size, block, rank, world, lanes, (0,) * lanes)


@given(st.integers(1, 300), st.integers(1, 100), st.integers(1, 8), st.integers(1, 4))
def test_ranks_and_readers_divide_the_blocks_and_every_slot_is_in_one(size: int, block: int, world: int, readers: int):
    block = min(block, size)
    alone = partition(size, block)
    shares = [partition(size, block, rank, world) for rank in range(world)]
    assert all(share.slots_of_blocks == alone.slots_of_blocks for share in shares)
    groups = [
        (rank, reader, tuple(slots))
        for rank, share in enumerate(shares)
        for portion in range(share.portions(readers))
        for slots, reader in share.groups(portion, readers)
    ]
    assert sorted(slot for _, _, slots in groups for slot in slots) == list(range(size))
    numbers = {tuple(slots): number for number, slots in enumerate(alone.slots_of_blocks)}
    for rank, reader, slots in groups:
        assert (rank, reader) == (numbers[slots] % world, numbers[slots] // world % readers)
    sizes = [len(slots) for slots in alone.slots_of_blocks]
    assert max(sizes) <= 1.1 * math.ceil(size / len(sizes)) + 1
    assert len(sizes) == max(1, math.floor(size / block + 0.5))


@pytest.mark.parametrize(("size", "block"), [(64, 48), (128, 48), (256, 48), (96, 16), (480, 48)])
def test_a_chunk_is_read_by_one_reader(size: int, block: int):
    """Blocks of whole classes: no lane is in two of them, so no chunk is read by two readers."""
    share = partition(size, block)
    lanes = [{slot % share.lanes for slot in slots} for slots in share.slots_of_blocks]
    assert sum(map(len, lanes)) == len(set().union(*lanes)) == math.gcd(share.lanes, size)
    readers = min(2, share.blocks)
    order, caches = Order([23] * (8 * share.lanes), seed=1, lanes=share.lanes, window=2), OrderedDict[int, set[int]]()
    plan = BatchPlan(order, share, readers)
    for step in range(23 * 8 * share.lanes // size):
        for portion in range(plan.portions):
            for one in plan.blocks(step, portion):
                caches.setdefault(one.reader, set()).update(place.chunk for place in plan.places(one))
    assert sum(map(len, caches.values())) <= 1.1 * 8 * share.lanes, "but for the chunks in which a lane ends"
    assert share.lanes_read(readers) == max(len(set().union(*lanes[reader::readers])) for reader in range(readers)), (
        "the cache holds them"
    )


@pytest.mark.parametrize("weights", [(12, 4), (8, 8), (3, 13)])
@pytest.mark.parametrize("size", [16, 32, 48])
def test_a_block_has_one_source_and_most_blocks_are_whole(weights: tuple[int, int], size: int):
    order = MixedOrder([[40] * 30, [25] * 30], weights, seed=1, window=2)
    share = BlockPartition(size, 8, 0, 1, 16, order.sources_of_lanes)
    plan = BatchPlan(order, share, 2, end=10**6)
    for step in (0, 3):
        blocks = [block for portion in range(plan.portions) for block in plan.blocks(step, portion)]
        sources = [{order.source_of(position) for position in block.positions} for block in blocks]
        assert {len(one) for one in sources} == {1}
        assert len(blocks) <= share.blocks + 1, "at most one is cut where the second source begins"
        assert sorted(position for block in blocks for position in block.positions) == [
            *range(step * size, (step + 1) * size)
        ]


def test_fewer_blocks_than_processes_are_refused_with_the_numbers():
    partition(64, 32, world=2).refuse_idle_ranks()
    with pytest.raises(UsageError) as refused:
        partition(64, 48, world=2).refuse_idle_ranks()
    assert all(fact in str(refused.value) for fact in ("--pack.block 48", "64", "1 block", "2 processes", "32 or less"))


def test_positions_after_the_end_of_a_run_are_left_out():
    order = Order([5, 3, 8, 4], seed=3, lanes=16, window=2)
    plan = BatchPlan(order, BlockPartition(16, 8, 0, 1, 16, (0,) * 16), 1, end=21)
    blocks = [block for portion in range(plan.portions) for block in plan.blocks(1, portion)]
    assert sorted(position for block in blocks for position in block.positions) == [16, 17, 18, 19, 20]
    assert [flag for block in blocks for flag in plan.in_first_pass(block)].count(False) == 1
