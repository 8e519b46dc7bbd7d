"""Prefetching: a thread computes the next items ahead. A thread suffices for reading, decoding and copying."""

import threading
from collections.abc import Generator, Iterable
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")

JOIN_SECONDS = 1.0  # wait for the thread at the end; a thread stuck in a read is left alone, because it holds no lock


def prefetch(items: Iterable[T], most: int) -> Generator[T, None, None]:
    """Yield the items in order while a thread computes up to `most` of them ahead.

    The thread starts when the first item is requested, and stops when the generator is closed. An error in the thread
    is raised to the consumer in place of the item that failed.
    """
    ready: SimpleQueue[tuple[T] | BaseException | None] = SimpleQueue()
    room, closed = threading.Semaphore(most), threading.Event()

    def make() -> None:
        source = iter(items)
        try:
            while not closed.is_set():
                room.acquire()
                if closed.is_set():
                    return
                ready.put((next(source),))
        except StopIteration:
            ready.put(None)
        except BaseException as error:  # noqa: BLE001 - raised by the consumer, which would otherwise wait forever
            ready.put(error)

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            room.release()
            yield item[0]
    finally:
        closed.set()
        room.release()
        thread.join(JOIN_SECONDS)
