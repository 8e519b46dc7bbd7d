"""Packer: a pure function that divides items of given lengths over windows, each of which it fills as far as it can."""

from collections.abc import Sequence
from typing import NamedTuple


class Pack(NamedTuple):
    """Items of one window, by number."""

    longest: int
    items: tuple[int, ...]
    """All items including the longest, rising."""


def pack(lengths: Sequence[int], costs: Sequence[int], rooms: Sequence[int], capacity: int) -> list[Pack]:
    """Divide items over windows. Each item is in one window; the same arguments give the same windows.

    A window begins with the longest item that is left. The subset of the others that fills it best joins: a subset sum,
    solved exactly. While the items cost more than `capacity`, the most expensive one but the longest is put back, and
    then every other item that fits is taken, the longest first. Among equals the earlier item is taken.

    Parameters
        lengths: length of each item, at least 1, in steps of time.
        costs: label tokens of each item. An item alone may cost more than `capacity`.
        rooms: length of a window whose longest item is this one, at least the item's own length.
        capacity: most label tokens of a window.
    """
    left, packs = list(range(len(lengths))), list[Pack]()
    while left:
        longest = max(left, key=lambda item: (lengths[item], -item))
        others = [item for item in left if item != longest]
        room = rooms[longest] - lengths[longest]
        chosen = [longest, *(others[at] for at in fullest([lengths[item] for item in others], room))]
        if sum(costs[item] for item in chosen) > capacity:
            chosen = _affordable(chosen, others, lengths, costs, rooms[longest], capacity)
        packs.append(Pack(longest, tuple(sorted(chosen))))
        taken = set(chosen)
        left = [item for item in left if item not in taken]
    return packs


def fullest(lengths: Sequence[int], room: int) -> list[int]:
    """Return the numbers of the items, rising, whose lengths have the greatest sum of at most `room`.

    Bit s of `reached` is set if some of the first items have the sum s. The way back takes an item only if the earlier
    ones cannot reach the sum without it.
    """
    mask = (1 << (room + 1)) - 1
    reached = [1]
    for length in lengths:
        reached.append((reached[-1] | reached[-1] << length) & mask)
    total, chosen = reached[-1].bit_length() - 1, list[int]()
    for number in reversed(range(len(lengths))):
        if not reached[number] >> total & 1:
            chosen.append(number)
            total -= lengths[number]
    return chosen[::-1]


def _affordable(
    chosen: list[int], others: Sequence[int], lengths: Sequence[int], costs: Sequence[int], room: int, capacity: int
) -> list[int]:
    """Return items whose costs fit: without the most expensive ones, and with others in their place."""
    longest, *joined = chosen
    while joined and costs[longest] + sum(costs[item] for item in joined) > capacity:
        joined.remove(max(joined, key=lambda item: (costs[item], item)))
    kept = [longest, *joined]
    for item in sorted(set(others) - set(joined), key=lambda item: (-lengths[item], item)):
        fits = sum(lengths[one] for one in kept) + lengths[item] <= room
        if fits and sum(costs[one] for one in kept) + costs[item] <= capacity:
            kept.append(item)
    return kept
