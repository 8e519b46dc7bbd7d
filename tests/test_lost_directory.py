"""A run directory that is removed, moved or replaced under its run: code 6, and nothing is written elsewhere."""

import json
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

import pytest

from tests.conftest import START_SECONDS, Ended, Trainer, digest, logged, metrics, pids_of
from tests.starts import Ranks
from whisper_ft.checkpoint.state import Best, TrainState
from whisper_ft.data.types import Rejected
from whisper_ft.runtime.errors import DiskError, LockedError
from whisper_ft.runtime.lock import identity_of, lock_file
from whisper_ft.tracking.tracker import Tracker
from whisper_ft.training.directory import LAST_WORDS, RunDir
from whisper_ft.training.published_models import publish_best, publish_final, repair_best

LONG = {"steps": 2000, "save__every": 3, "eval__every": 0, "log__every": 1}


def remove(run_dir: Path) -> None:
    run_dir.rename(run_dir.with_name("trash"))
    shutil.rmtree(run_dir.with_name("trash"), ignore_errors=True)


def move(run_dir: Path) -> None:
    run_dir.rename(run_dir.with_name("elsewhere"))


def remove_lock(run_dir: Path) -> None:
    (run_dir / ".lock").unlink()


def replace_lock(run_dir: Path) -> None:
    shutil.copy(run_dir / ".lock", run_dir / "copy")
    (run_dir / "copy").replace(run_dir / ".lock")


def codes_after(train: Trainer, act: Callable[[Path], None], processes: int = 1, **settings: Any) -> list[int]:
    """Exit codes of all processes of a run under which something is done to its directory."""
    run_dir = train.folder / "run"
    started = train.start(train.arguments("run", **LONG | settings), processes)
    deadline = time.monotonic() + START_SECONDS
    while not logged(4)(run_dir):
        assert started.poll() is None, "the run ended too early"
        assert time.monotonic() < deadline, "the run did not get that far"
        time.sleep(0.005)
    act(run_dir)
    started.wait(START_SECONDS)
    assert len(pids_of(started)) in (1, processes)
    return [process.poll() or 0 for process in started.processes] if isinstance(started, Ranks) else [started.wait(1)]


@pytest.mark.parametrize(
    ("act", "settings"),
    [(remove, {}), (move, {"save__background": "true"}), (remove_lock, {"save__every": 0})],
    ids=["removed", "moved, saves in the background", "the lock removed, no save due"],
)
def test_a_run_whose_directory_is_gone_ends_with_code_6_and_writes_nothing(
    train: Trainer, act: Callable[[Path], None], settings: dict[str, Any]
):
    assert codes_after(train, act, **settings) == [6]
    run_dir = train.folder / "run"
    assert run_dir.exists() == (act is remove_lock), "it is not made again"
    if act is remove_lock:
        assert json.loads((run_dir / "status.json").read_text())["state"] == "running", "it was not touched"


@pytest.mark.long
def test_all_ranks_end_with_code_6_when_the_lock_is_replaced(train: Trainer):
    assert codes_after(train, replace_lock, processes=2) == [6, 6]
    assert max(metrics(train.folder / "run")) < LONG["steps"]


@pytest.mark.long
def test_of_two_runs_at_one_place_only_the_owner_ends_well(train: Trainer):
    ended: list[Ended] = []

    def move_and_start_another(run_dir: Path) -> None:
        move(run_dir)
        ended.append(train.end("run", steps=4))

    assert codes_after(train, move_and_start_another) == [6]
    assert ended[0].code == 0, ended[0].err
    assert digest(train.folder / "run") == digest(train.reference(steps=4))
    assert sorted(metrics(train.folder / "run")) == [1, 2, 3, 4], "the other run's rows are not in its log"
    assert json.loads((train.folder / "run/status.json").read_text())["exit_code"] == 0


@pytest.fixture
def lost(tmp_path: Path) -> RunDir:
    """The directory of a run that was moved, with another run's in its place."""
    run = RunDir(tmp_path / "run")
    run.open()
    move(run.path)
    RunDir(tmp_path / "run").open()
    return run


def everything_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_nothing_is_published_logged_or_reported_into_the_directory_of_another_run(lost: RunDir, tmp_path: Path):
    before = everything_in(lost.path)
    state, best = TrainState(step=3), Best(2, "wer", 0.5)
    writers: list[Callable[[], object]] = [
        lambda: publish_best(lost, best, tmp_path, {}),
        lambda: publish_final(lost, state, None, {}),
        lambda: repair_best(lost, replace(state, best=best), tmp_path / "step-00000003", dict),
        lambda: lost.describe({"seed": 1}),
    ]
    for write in writers:
        with pytest.raises(DiskError, match=r"--run_dir .*/run: \.lock in it is .* another file"):
            write()
    lost.status("finished", 3, "", 0)
    lost.leave_last_words(1, "a reason", 1)
    assert lost.last_words() is None
    tracker = Tracker(lost.path, 10, enabled=True, is_own=lambda: lost.is_own)
    tracker.record({"step": 1})
    tracker.quarantine([Rejected("row", "bad_audio", "")])
    assert everything_in(lost.path) == before


def test_a_lock_that_is_replaced_while_a_process_waits_for_it_is_taken_anew(tmp_path: Path):
    """Else two processes would each hold the lock of a file of its own."""
    first = lock_file(tmp_path / ".lock")
    taken: list[TextIO] = []
    waiting = threading.Thread(target=lambda: taken.append(lock_file(tmp_path / ".lock", wait=True)))
    waiting.start()
    (tmp_path / ".lock").unlink()
    first.close()
    waiting.join(START_SECONDS)
    assert identity_of(taken[0].fileno()) == identity_of(tmp_path / ".lock")
    with pytest.raises(LockedError):
        lock_file(tmp_path / ".lock")


def test_a_directory_that_was_never_opened_is_nobody_elses(tmp_path: Path):
    assert RunDir(tmp_path).is_own
    assert RunDir(tmp_path).loss is None


@pytest.mark.long
def test_last_words_that_cannot_be_written_hide_no_other_reason(tmp_path: Path):
    run = RunDir(tmp_path / "run")
    run.open()
    (run.path / f"{LAST_WORDS}1" / "in-the-way").mkdir(parents=True)
    run.leave_last_words(1, "a reason", 4)
    assert run.last_words() is None
