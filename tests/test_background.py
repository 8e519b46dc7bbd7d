"""Work done ahead in a thread: in order, with its error, no further ahead than asked, and over when nobody listens."""

import threading
import time
from collections.abc import Iterator

import pytest

from whisper_ft.runtime.prefetch import prefetch


def test_what_is_made_in_the_background_comes_in_order_and_so_does_its_error():
    def items() -> Iterator[int]:
        yield from range(100)
        raise ValueError("the hundredth")

    found = []
    with pytest.raises(ValueError, match="the hundredth"):
        found.extend(prefetch(items(), 3))
    assert found == list(range(100))


@pytest.mark.parametrize("most", [1, 2, 5])
def test_only_so_many_are_made_ahead(most: int):
    made, enough = [], threading.Event()

    def items() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            if len(made) > 10 + most:
                enough.set()
            yield number

    for number in prefetch(items(), most):
        if number == 10:
            assert enough.wait(10), "made ahead while this one is used"
            time.sleep(0.05)  # were there room for another, it would be made now
            assert len(made) == 11 + most
            break


def test_who_stops_listening_ends_the_background():
    made = []

    def items() -> Iterator[int]:
        for number in range(10**9):
            made.append(number)
            yield number

    coming = prefetch(items(), 3)
    next(coming)
    before = threading.active_count()
    coming.close()
    assert threading.active_count() == before - 1
    assert len(made) <= 4
