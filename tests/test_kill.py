"""A save that is killed at any moment leaves the old checkpoint or the new one, whole."""

import contextlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.conftest import ROOT, START_SECONDS, Trainer, command, digest, environment, logged
from tests.saving import outcome
from whisper_ft.checkpoint.format import list_checkpoints, verify
from whisper_ft.training.directory import RunDir


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """In memory where there is a place for it: what is shown here does not need the disk, and a disk takes its time."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as name:
        yield Path(name)


@pytest.mark.parametrize("kills", [10, pytest.param(60, marks=pytest.mark.long)])
def test_a_kill_in_a_save_keeps_the_newest_acknowledged_checkpoint(folder: Path, kills: int):
    told = outcome("killed", folder, kills)
    assert told["problems"] == []
    assert told["kills"] == kills
    assert told["interrupted"] >= kills / 4, "most kills should meet a save"
    assert told["steps"] > kills


def test_a_save_cut_before_any_disk_call_leaves_old_or_new_never_a_mix(folder: Path):
    told = outcome("exits+replacing", folder)
    assert told["exits"]["problems"] == told["replacing"]["problems"] == []
    assert told["exits"]["points"] > 40
    assert told["replacing"]["points"] > 60, "that one is the best as well"
    # Step and save counter of the newest: before the commit, and after it.
    assert told["exits"]["outcomes"] == [[3, 3], [4, 4]]
    assert told["replacing"]["outcomes"] == [[3, 3], [3, 4]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, corpus: Path, micro_whisper: Path) -> Path:
    """A run that nobody killed, evaluated before each save."""
    return Trainer(tmp_path_factory.mktemp("whole"), corpus, micro_whisper)("whole", eval__every=2)


@pytest.mark.long
@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("step", [2, 4, 6, 8])
def test_a_run_killed_in_a_save_ends_with_the_weights_of_one_that_was_not(
    train: Trainer, whole: Path, step: int, background: bool
):
    settings = {"save__background": str(background).lower(), "eval__every": 2}
    in_save = lambda run_dir: any((run_dir / "checkpoints").glob(f".tmp-step-{step:08d}-*"))  # noqa: E731
    assert train.interrupt("run", in_save, signal.SIGKILL, **settings) == -signal.SIGKILL
    found = list_checkpoints(train.folder / "run/checkpoints")
    assert all(one.problem is None and verify(one.path) is None for one in found)
    assert len(found) >= min(step // 2 - 1, 2)
    assert digest(train("run", **settings)) == digest(whole)
    assert digest(train.folder / "run", "best/model.safetensors") == digest(whole, "best/model.safetensors")


@pytest.mark.long
def test_data_workers_of_a_killed_run_hold_no_lock_and_end(train: Trainer):
    started = psutil.Popen(
        command("train.py", 1, *train.arguments("run", steps=10_000, eval__every=0, data__workers=2)),
        cwd=ROOT,
        env=environment(1),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + START_SECONDS
    while not logged(2)(train.folder / "run"):
        assert started.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    workers = started.children(recursive=True)
    assert len(workers) >= 2
    started.kill()
    started.wait(START_SECONDS)
    try:
        RunDir(train.folder / "run").open()
        _, alive = psutil.wait_procs(workers, timeout=START_SECONDS)
        assert not alive
    finally:
        for worker in workers:
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.kill()


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
    for said in ("listening", "asked"):
        assert started.stdout.readline() == f"{said}\n"
        started.send_signal(signal.SIGINT)
    assert started.wait(START_SECONDS) == -signal.SIGINT
    started.stdout.close()
