"""The run directory: whose it is, and how one makes room for another."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, START_SECONDS
from whisper_ft.config.training import TrainingConfig
from whisper_ft.runtime.errors import LockedError
from whisper_ft.training.directory import RunDir


def used(path: Path, mark: str) -> RunDir:
    """A run directory that something was done in."""
    run = RunDir(path)
    run.open()
    (path / "metrics.jsonl").write_text(mark)
    return run


def test_a_run_that_is_overwritten_is_moved_to_the_first_free_name(tmp_path: Path):
    for mark in ("first", "second", "third"):
        run = RunDir(tmp_path / "run")
        run.open(overwrite=True)
        (run.path / "metrics.jsonl").write_text(mark)
    marks = {path.name: (path / "metrics.jsonl").read_text() for path in tmp_path.iterdir()}
    assert marks == {"run": "third", "run.replaced-1": "first", "run.replaced-2": "second"}
    assert run.moved_to == tmp_path / "run.replaced-2"


def test_nothing_is_moved_where_no_run_was(tmp_path: Path):
    for _ in range(2):
        run = RunDir(tmp_path / "run")
        run.open(overwrite=True)
        assert run.moved_to is None
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_run_that_goes_on_elsewhere_is_not_moved_away_under_it(tmp_path: Path):
    held = used(tmp_path / "run", "mine")
    with pytest.raises(LockedError, match=rf"in use by another run \(pid {os.getpid()} on .+ since 20"):
        RunDir(tmp_path / "run").open(overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert (held.path / "metrics.jsonl").read_text() == "mine"


def test_the_new_run_is_locked_as_the_old_one_was(tmp_path: Path):
    used(tmp_path / "run", "old")
    run = RunDir(tmp_path / "run")
    run.open(overwrite=True)
    with pytest.raises(LockedError):
        RunDir(tmp_path / "run").open()
    assert run.moved_to is not None


def test_a_run_behind_a_link_stays_on_its_disk(tmp_path: Path):
    (tmp_path / "large disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "large disk")
    used(tmp_path / "run", "old")
    run = RunDir(tmp_path / "run")
    run.open(overwrite=True)
    assert (tmp_path / "large disk.replaced-1/metrics.jsonl").read_text() == "old"
    assert (tmp_path / "run").is_symlink()
    assert (tmp_path / "large disk/status.json").exists()


@pytest.mark.parametrize("resume", ["auto", "best"])
def test_to_overwrite_means_to_begin_anew(resume: str):
    with pytest.raises(ValueError, match=f"--overwrite goes with --resume never, not {resume}"):
        TrainingConfig(resume=resume, overwrite=True)


HOLDS = """
import sys, time
from pathlib import Path
from whisper_ft.training.directory import RunDir

run = RunDir(Path(sys.argv[1]))
run.open()
print("held", flush=True)
time.sleep(600)
"""


def test_the_lock_of_a_killed_process_is_free_at_once(tmp_path: Path):
    started = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert started.stdout is not None
    assert started.stdout.readline() == "held\n"
    with pytest.raises(LockedError, match=f"pid {started.pid} on "):
        RunDir(tmp_path).open()
    started.send_signal(signal.SIGKILL)
    assert started.wait(START_SECONDS) == -signal.SIGKILL
    started.stdout.close()
    RunDir(tmp_path).open()
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "running"


def test_a_lock_that_says_nothing_is_told_as_such(tmp_path: Path):
    held = used(tmp_path, "")
    (tmp_path / ".lock").write_text("")
    with pytest.raises(LockedError, match="in use by another run"):
        RunDir(tmp_path).open()
    assert held.path == tmp_path
