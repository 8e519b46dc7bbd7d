"""The batch plan: each position of a batch once, with one reader, whatever the number of ranks and readers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whisper_ft.data.sampling.batch_plan import BatchPlan
from whisper_ft.data.sampling.order import Order, Place
from whisper_ft.data.sampling.partition import Partition

ROWS = [5, 3, 8, 4]


def plans(batch_size: int, per_device: int, world: int, readers: int, end: int | None = None) -> list[BatchPlan]:
    order = Order(ROWS, seed=3, lanes=4, window=2)
    return [BatchPlan(order, Partition(batch_size, per_device, rank, world, 4), readers, end) for rank in range(world)]


@given(st.integers(1, 24), st.integers(1, 8), st.integers(1, 4), st.integers(1, 3), st.integers(0, 5))
def test_ranks_and_readers_share_out_every_position_once(
    size: int, per_device: int, world: int, readers: int, step: int
):
    blocks = [
        block
        for plan in plans(size, per_device, world, readers)
        for portion in range(plan.portions)
        for block in plan.blocks(step, portion)
    ]
    positions = sorted(position for block in blocks for position in block.positions)
    assert positions == list(range(step * size, (step + 1) * size))
    assert all(block.reader < readers for block in blocks)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_the_places_of_a_batch_do_not_depend_on_the_number_of_ranks(world: int):
    def places(count: int) -> set[Place]:
        return {
            place
            for plan in plans(6, 2, count, 1)
            for portion in range(plan.portions)
            for block in plan.blocks(4, portion)
            for place in plan.places(block)
        }

    assert places(world) == places(1)


def test_positions_after_the_end_of_a_run_are_left_out_and_later_passes_are_told_apart():
    (plan,) = plans(8, 8, 1, 1, end=21)
    assert [block.positions for block in plan.blocks(2, 0)] == [(16,), (17,), (18,), (19,), (20,)]
    assert [plan.in_first_pass(block) for block in plan.blocks(2, 0)] == [[True]] * 4 + [[False]]
