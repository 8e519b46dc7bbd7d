"""Processes that prepare data: what they begin with, what they hand over, and what is left of one that is killed."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from tests.conftest import ROOT, START_SECONDS
from whisper_ft.data.workers import Workers
from whisper_ft.runtime.errors import LostWorkerError

PROGRAM = """
import sys
sys.path[0] = {root!r}
print("begun")
from concurrent.futures import ProcessPoolExecutor
from whisper_ft.data.workers import FORKSERVER, program_hidden, start_worker_server

if __name__ == "__main__":
    start_worker_server("whisper_ft.data.sampling.partition")
    with program_hidden(), ProcessPoolExecutor(1, FORKSERVER) as pool:
        print(pool.submit(eval, "'whisper_ft.data.sampling.partition' in __import__('sys').modules").result())
    print(__import__("os").environ.get("PYTHONPATH"), sys.modules["__main__"].__file__)
"""


@pytest.mark.long
def test_a_worker_begins_with_what_its_server_imported_and_never_runs_the_program(tmp_path: Path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(root=str(ROOT)))
    done = subprocess.run([sys.executable, "program.py"], cwd=tmp_path, env={}, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["begun", "True", f"None {program}"], done.stderr


def large(number: int, of: int) -> Iterator[bytes]:
    """Parts that fill the line: the worker is in the midst of one until it is taken."""
    while True:
        yield bytes([number]) * 10_000_000


def test_a_worker_that_is_killed_while_it_hands_over_is_told_and_the_others_go_on():
    """DataLoader's workers share a queue: half a message of one was waited for without end."""
    with closing(Workers(large, 2, ahead=4)) as workers:
        assert (workers.take(0)[0], workers.take(1)[0]) == (0, 1)
        time.sleep(0.5)
        workers._processes[1].kill()
        assert workers.take(0)[0] == 0
        with pytest.raises(LostWorkerError, match="ended by SIGKILL"):
            workers.take(1)


def counted(number: int, of: int) -> Iterator[int]:
    """Three numbers and an error."""
    yield from range(3)
    raise ValueError("no more")


def test_parts_come_in_order_before_the_error_that_ended_them():
    with closing(Workers(counted, 2, ahead=2)) as workers:
        assert [workers.take(reader) for _ in range(3) for reader in (0, 1)] == [0, 0, 1, 1, 2, 2]
        with pytest.raises(ValueError, match="no more") as error:
            workers.take(1)
        assert "In data worker 1" in error.value.__notes__[0]


class Unsendable:
    """An object that cannot be pickled, because descriptors are used up."""

    def __reduce__(self) -> str:
        raise OSError(24, "Too many open files")


def unsendable(number: int, of: int) -> Iterator[Unsendable]:
    while True:
        yield Unsendable()


@pytest.mark.long
def test_what_cannot_be_handed_over_is_told_by_the_error_that_it_met():
    with (
        closing(Workers(unsendable, 1, ahead=2)) as workers,
        pytest.raises(OSError, match="Too many open files") as error,
    ):
        workers.take(0)
    assert "In data worker 0" in error.value.__notes__[0]


def small(number: int, of: int) -> Iterator[bytes]:
    while True:
        yield bytes(2_000)


@pytest.mark.long
def test_a_thousand_parts_may_wait():
    """The worker gets a message for each part taken, and its pipe would fill if it read them only without room."""
    with closing(Workers(small, 1, ahead=1_000)) as workers:
        assert all(len(workers.take(0)) == 2_000 for _ in range(3_000))


@dataclass
class Noted:
    """Numbers, each noted in a file before it is handed over."""

    notes: Path

    def parts(self, number: int, of: int) -> Iterator[int]:
        for i in count():
            with self.notes.open("a") as notes:
                notes.write(".")
            yield i


@pytest.mark.long
def test_no_more_is_made_ahead_than_was_asked_for(tmp_path: Path):
    notes = tmp_path / "notes"
    with closing(Workers(Noted(notes).parts, 1, ahead=2)) as workers:
        for taken in (1, 2, 3):
            assert workers.take(0) == taken - 1
            deadline = time.monotonic() + START_SECONDS
            while notes.stat().st_size < taken + 2:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            time.sleep(0.2)
            assert notes.stat().st_size == taken + 2
