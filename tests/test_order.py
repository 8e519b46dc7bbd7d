"""The data order: a pure function, every epoch a permutation, the same in every process."""

import pickle
from bisect import bisect_right
from collections import Counter
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whisper_ft.data.sampling.order import MixedOrder, Order, default_lanes, lanes_by_weight

chunk_sizes = st.lists(st.integers(0, 40), min_size=1, max_size=30).filter(lambda sizes: sum(sizes) > 0)


def places(order: Order, begin: int, end: int) -> list[tuple[int, int, int]]:
    return [tuple(order.locate(position)) for position in range(begin, end)]


@given(chunk_sizes, st.integers(0, 2**32), st.integers(1, 64), st.integers(1, 5), st.integers(0, 3))
def test_every_epoch_is_a_permutation_of_all_rows(sizes: list[int], seed: int, lanes: int, window: int, epoch: int):
    order = Order(sizes, seed=seed, lanes=lanes, window=window)
    total = sum(sizes)
    rows = places(order, epoch * total, (epoch + 1) * total)
    assert sorted(rows) == [(epoch, chunk, row) for chunk, size in enumerate(sizes) for row in range(size)]


@given(chunk_sizes, st.integers(0, 1000), st.lists(st.integers(0, 5000), max_size=20))
def test_a_position_does_not_depend_on_what_was_asked_before(sizes: list[int], seed: int, asked: list[int]):
    fresh = Order(sizes, seed=seed, lanes=16, window=4)
    used = Order(sizes, seed=seed, lanes=16, window=4)
    for position in asked:
        used.locate(position)
    assert [used.locate(p) for p in asked] == [fresh.locate(p) for p in reversed(asked)][::-1]


# Golden: the first 64 places of two orders. A change here changes the data order of every existing run: raise
# ORDER_VERSION and say so in the changelog, or find out why it changed.
GOLDEN = {
    ((50,) * 20, 1): [
        (8, 30),
        (12, 25),
        (0, 32),
        (9, 29),
        (3, 42),
        (10, 7),
        (18, 19),
        (14, 42),
        (13, 28),
        (4, 23),
        (19, 19),
        (17, 24),
        (5, 35),
        (15, 16),
        (1, 37),
        (1, 44),
        (8, 9),
        (16, 15),
        (16, 48),
        (9, 25),
        (3, 28),
        (11, 48),
        (10, 44),
        (14, 45),
        (13, 45),
        (4, 21),
        (19, 7),
        (19, 42),
        (15, 7),
        (7, 10),
        (1, 25),
        (2, 43),
        (8, 3),
        (16, 11),
        (0, 9),
        (9, 43),
        (11, 4),
        (11, 33),
        (18, 1),
        (14, 25),
        (4, 13),
        (4, 17),
        (19, 32),
        (17, 10),
        (5, 42),
        (15, 37),
        (1, 2),
        (2, 9),
        (8, 21),
        (12, 33),
        (0, 24),
        (0, 41),
        (3, 31),
        (11, 47),
        (10, 29),
        (14, 23),
        (13, 23),
        (4, 37),
        (19, 31),
        (19, 43),
        (5, 17),
        (7, 23),
        (7, 34),
        (2, 26),
    ],
    ((7, 0, 13, 1, 30), 12345): [
        (0, 1),
        (0, 5),
        (4, 2),
        (4, 5),
        (4, 9),
        (4, 11),
        (4, 13),
        (4, 18),
        (4, 21),
        (4, 23),
        (4, 25),
        (4, 28),
        (2, 1),
        (2, 4),
        (2, 9),
        (2, 11),
        (0, 0),
        (0, 4),
        (4, 0),
        (4, 4),
        (4, 8),
        (4, 10),
        (4, 14),
        (4, 16),
        (4, 20),
        (4, 22),
        (4, 26),
        (2, 0),
        (2, 3),
        (2, 5),
        (2, 8),
        (2, 10),
        (0, 2),
        (0, 3),
        (4, 1),
        (4, 6),
        (4, 7),
        (4, 12),
        (4, 15),
        (4, 17),
        (4, 19),
        (4, 24),
        (4, 27),
        (4, 29),
        (2, 2),
        (2, 6),
        (2, 7),
        (2, 12),
        (3, 0),
        (0, 6),
        (4, 3),
        (4, 0),
        (4, 4),
        (4, 8),
        (4, 12),
        (4, 16),
        (4, 19),
        (4, 22),
        (4, 26),
        (4, 27),
        (2, 0),
        (2, 3),
        (2, 8),
        (2, 10),
    ],
}


@pytest.mark.parametrize(("sizes", "seed"), [((50,) * 20, 1), ((7, 0, 13, 1, 30), 12345)])
def test_the_first_64_places_are_what_they_always_were(sizes: tuple[int, ...], seed: int):
    order = Order(sizes, seed=seed, lanes=16, window=4)
    assert [order.locate(position)[1:] for position in range(64)] == GOLDEN[sizes, seed]


def test_another_seed_and_another_epoch_give_another_order():
    sizes = [50] * 20
    one, other = (Order(sizes, seed=seed, lanes=16, window=4) for seed in (1, 2))
    first = [place[1:] for place in places(one, 0, 1000)]
    assert first != [place[1:] for place in places(other, 0, 1000)]
    assert first != [place[1:] for place in places(one, 1000, 2000)]


def test_a_batch_draws_from_as_many_chunks_as_lanes():
    order = Order([50] * 64, seed=3, lanes=16, window=1)
    assert len({order.locate(position).chunk for position in range(1600, 1616)}) >= 14


def test_reading_lane_by_lane_touches_each_chunk_about_once():
    """A lane stays in its window: the chunks it returns to later are those at the edges of its stretch."""
    sizes, lanes, window = [50] * 64, 16, 2
    order = Order(sizes, seed=3, lanes=lanes, window=window)
    loads = 0
    for lane in range(lanes):
        chunks = [order.locate(position).chunk for position in range(lane, 64 * 50, lanes)]
        loads += len(set(chunks))
    assert loads <= 64 + lanes


def test_an_order_survives_the_way_to_a_worker_process():
    order = Order([50] * 20, seed=3, lanes=16, window=4)
    order.locate(5)
    assert places(pickle.loads(pickle.dumps(order)), 0, 200) == places(order, 0, 200)


@given(
    st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=6), min_size=1, max_size=3),
    st.lists(st.integers(1, 5), min_size=3, max_size=3),
    st.integers(0, 3),
)
def test_a_mixture_gives_each_source_its_lanes_and_each_of_its_epochs_is_a_permutation(
    parts: list[list[int]], lanes_of: list[int], seed: int
):
    lanes_of = lanes_of[: len(parts)]
    mixture, lanes = MixedOrder(parts, lanes_of, seed=seed, window=2), sum(lanes_of)
    first_chunk = [0, *accumulate(map(len, parts))]
    places = [mixture.locate(position) for position in range(lanes * (2 * max(map(sum, parts)) + 1))]
    drawn = [bisect_right(first_chunk, place.chunk) - 1 for place in places]
    for turn in range(0, len(drawn), lanes):
        assert Counter(drawn[turn : turn + lanes]) == Counter(dict(enumerate(lanes_of))), "exact in every L positions"
    for source, rows in enumerate(parts):
        mine = [place for place, owner in zip(places, drawn, strict=True) if owner == source]
        for epoch in range(2):
            seen = [(place.chunk - first_chunk[source], place.row) for place in mine if place.epoch == epoch]
            assert sorted(seen) == [(chunk, row) for chunk, size in enumerate(rows) for row in range(size)]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 9), st.integers(0, 200))
def test_a_mixture_of_one_source_is_its_order(rows: list[int], lanes: int, position: int):
    alone = Order(rows, seed=3, lanes=lanes, window=2)
    assert MixedOrder([rows], [lanes], seed=3, window=2).locate(position) == alone.locate(position)


@pytest.mark.parametrize(
    ("weights", "lanes", "given"),
    [([1], 16, [16]), ([1, 1], 16, [8, 8]), ([7, 2, 1], 20, [14, 4, 2]), ([3, 1], 16, [12, 4]), ([2, 1], 16, [11, 5])],
)
def test_lanes_follow_the_weights(weights: list[float], lanes: int, given: list[int]):
    assert lanes_by_weight(weights, lanes) == given


@pytest.mark.parametrize(("weights", "told"), [([7, 2, 1], "32 lanes"), ([100, 1], "96 lanes")])
def test_weights_that_rounding_moves_too_far_are_refused_with_the_lanes_that_would_do(weights: list[float], told: str):
    with pytest.raises(ValueError, match=told):
        lanes_by_weight(weights, 16)


def test_an_order_without_rows_is_refused():
    with pytest.raises(ValueError, match="needs rows"):
        Order([0, 0], seed=1, lanes=4, window=1)


@pytest.mark.parametrize(
    ("batch_size", "lanes"),
    [
        (1, 16),
        (4, 16),
        (6, 18),
        (16, 16),
        (20, 20),
        (48, 48),
        (64, 64),
        (72, 24),
        (96, 48),
        (100, 50),
        (128, 64),
        (127, 64),
    ],
)
def test_default_lanes_fit_the_batch(batch_size: int, lanes: int):
    assert default_lanes(batch_size) == lanes
