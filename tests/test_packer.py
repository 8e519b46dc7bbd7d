"""The packer: every item in one window, never over its length or its tokens, and windows that are nearly full."""

from itertools import combinations
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from whisper_ft.data.packing.packer import fullest, pack

STEPS, CAPACITY = 1500, 445  # 30 s in steps of 0.02 s, and the label tokens of a window of OpenAI's models


@given(st.lists(st.tuples(st.integers(5, STEPS), st.integers(1, CAPACITY + 3)), max_size=60), st.booleans())
def test_each_item_is_in_one_window_which_is_never_too_long(items: list[tuple[int, int]], is_short: bool):
    lengths, costs = [length for length, _ in items], [cost for _, cost in items]
    rooms = [STEPS - 50 if is_short and length <= STEPS - 50 else STEPS for length in lengths]
    packs = pack(lengths, costs, rooms, CAPACITY)
    assert sorted(item for one in packs for item in one.items) == list(range(len(items)))
    for longest, members in packs:
        assert list(members) == sorted(members), "in the order of the stream"
        assert lengths[longest] == max(lengths[item] for item in members)
        assert sum(lengths[item] for item in members) <= rooms[longest]
        assert len(members) == 1 or sum(costs[item] for item in members) <= CAPACITY
    assert pack(lengths, costs, rooms, CAPACITY) == packs


@given(st.lists(st.integers(1, 30), max_size=9), st.integers(0, 80))
def test_the_fullest_subset_has_the_greatest_sum_that_fits(lengths: list[int], room: int):
    chosen = fullest(lengths, room)
    sums = [sum(some) for size in range(len(lengths) + 1) for some in combinations(lengths, size)]
    assert chosen == sorted(set(chosen))
    assert sum(lengths[number] for number in chosen) == max(total for total in sums if total <= room)


def test_among_equal_subsets_the_earlier_items_are_taken():
    assert fullest([4, 4, 4, 4], 8) == [0, 1]
    assert [one.items for one in pack([5, 5, 5, 5], [1] * 4, [10] * 4, 9)] == [(0, 1), (2, 3)]


def test_items_that_cost_too_much_make_room_for_others():
    packs = pack([600, 450, 450, 300], [100, 400, 300, 40], [STEPS] * 4, CAPACITY)
    assert [one.items for one in packs] == [(0, 2, 3), (1,)], "1 costs most, and 3 fits in its place"


def lengths_of(clips: int, mean: float, deviation: float, seed: int) -> list[int]:
    """Lengths in steps of clips of normally distributed seconds, each with a gap of 0.1 to 0.4 s."""
    random = Random(seed)
    seconds = [min(max(random.gauss(mean, deviation), 0.5), 29.0) for _ in range(clips)]
    return [round(50 * one + 0.5) + round(50 * random.uniform(0.1, 0.4)) for one in seconds]


def test_blocks_of_48_clips_of_common_voice_fill_their_windows_to_over_nine_tenths():
    fills = []
    for seed in range(40):
        lengths = lengths_of(48, 5.2, 1.6, seed)
        packs = pack(lengths, [30] * 48, [STEPS] * 48, CAPACITY)
        fills.append(sum(lengths) / STEPS / len(packs))
        assert len(packs) <= -(-sum(lengths) // STEPS) + 1, "at most a window more than the seconds need"
    assert sum(fills) / len(fills) >= 0.92
    assert sum(fill >= 0.9 for fill in fills) >= 36
