"""Work that is done ahead while the model computes: a thread is enough for reading, decoding and copying."""

import threading
from collections.abc import Generator, Iterable
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")

FAREWELL_SECONDS = 1.0  # for a thread that is no longer needed; one that is stuck in a read holds nothing


def prefetch(items: Iterable[T], most: int) -> Generator[T, None, None]:
    """The items in their order, at most `most` of them made ahead in a thread. What the thread meets is raised here."""
    ready: SimpleQueue[tuple[T] | BaseException | None] = SimpleQueue()
    room, left = threading.Semaphore(most), threading.Event()

    def make() -> None:
        coming = iter(items)
        try:
            while not left.is_set():
                room.acquire()
                if left.is_set():
                    return
                ready.put((next(coming),))
        except StopIteration:
            ready.put(None)
        except BaseException as error:  # noqa: BLE001 - raised where the item was waited for, who would wait for ever
            ready.put(error)

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    try:
        while (made := ready.get()) is not None:
            if isinstance(made, BaseException):
                raise made
            room.release()
            yield made[0]
    finally:
        left.set()
        room.release()
        thread.join(FAREWELL_SECONDS)
