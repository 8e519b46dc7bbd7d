"""A save that is killed at any moment leaves the old checkpoint or the new one, whole."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.conftest import ROOT, START_SECONDS, EndedTooEarlyError, Trainer, digest, logged, pids_of
from tests.saving import outcome
from whisper_ft.checkpoint.format import list_checkpoints, verify
from whisper_ft.training.directory import RunDir


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: these claims do not need a disk, which takes its time."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as name:
        yield Path(name)


@pytest.mark.parametrize(
    "kills", [pytest.param(10, marks=pytest.mark.long), pytest.param(60, marks=pytest.mark.matrix)]
)
def test_a_kill_in_a_save_keeps_the_newest_acknowledged_checkpoint(folder: Path, kills: int):
    result = outcome("killed", folder, kills)
    assert result["problems"] == []
    assert result["kills"] == kills
    assert result["interrupted"] >= 1, "some kills should meet a save"
    assert result["steps"] > kills


@pytest.mark.long
def test_a_save_cut_before_any_disk_call_leaves_old_or_new_never_a_mix(folder: Path):
    result = outcome("exits+replacing", folder)
    assert result["exits"]["problems"] == result["replacing"]["problems"] == []
    assert result["exits"]["points"] > 40
    assert result["replacing"]["points"] > 60, "that checkpoint is the best as well"
    # Step and save counter of the newest: before the commit, and after it.
    assert result["exits"]["outcomes"] == [[3, 3], [4, 4]]
    assert result["replacing"]["outcomes"] == [[3, 3], [3, 4]]


@pytest.mark.long
@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("step", [4, *(pytest.param(step, marks=pytest.mark.matrix) for step in (2, 6, 8))])
def test_a_run_killed_in_a_save_ends_with_the_weights_of_one_that_was_not(train: Trainer, step: int, background: bool):
    whole = train.reference(eval__every=2)
    settings = {"save__background": str(background).lower(), "eval__every": 2}
    in_save = lambda run_dir: any((run_dir / "checkpoints").glob(f".tmp-step-{step:08d}-*"))  # noqa: E731
    for _ in range(ATTEMPTS):
        with contextlib.suppress(EndedTooEarlyError):
            assert train.interrupt("run", in_save, signal.SIGKILL, **settings) == -signal.SIGKILL
            break
        shutil.rmtree(train.folder / "run")
    saved = list_checkpoints(train.folder / "run/checkpoints")
    assert all(entry.problem is None and verify(entry.path) is None for entry in saved)
    assert len(saved) >= min(step // 2 - 1, 2)
    assert digest(train("run", **settings)) == digest(whole)
    assert digest(train.folder / "run", "best/model.safetensors") == digest(whole, "best/model.safetensors")


@pytest.mark.matrix
def test_data_workers_of_a_killed_run_hold_no_lock_and_end(train: Trainer):
    started = train.start(train.arguments("run", steps=10_000, eval__every=0, data__workers=2), 1)
    (pid,) = pids_of(started)
    deadline = time.monotonic() + START_SECONDS
    while not logged(2)(train.folder / "run"):
        assert started.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    workers = psutil.Process(pid).children(recursive=True)
    assert len(workers) >= 2
    os.kill(pid, signal.SIGKILL)
    started.wait(START_SECONDS)
    try:
        RunDir(train.folder / "run").open()
        _, alive = psutil.wait_procs(workers, timeout=START_SECONDS)
        assert not alive
    finally:
        for worker in workers:
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.kill()


ATTEMPTS = 5  # a save takes some milliseconds, and a busy machine may look too late

LISTENS = """
import time
from whisper_ft.runtime.signals import StopRequest

stop = StopRequest()
stop.listen()
print("listening", flush=True)
while stop.signal is None:
    time.sleep(0.01)
print("asked", flush=True)
time.sleep(600)
"""


def test_a_second_ctrl_c_ends_a_process_at_once():
    started = subprocess.Popen([sys.executable, "-c", LISTENS], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert started.stdout is not None
    for line in ("listening", "asked"):
        assert started.stdout.readline() == f"{line}\n"
        started.send_signal(signal.SIGINT)
    assert started.wait(START_SECONDS) == -signal.SIGINT
    started.stdout.close()
