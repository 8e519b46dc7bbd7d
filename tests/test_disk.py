"""Disks that are full, read-only or without power: what was saved stays, and the message is one line."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, START_SECONDS, Trainer, digest, environment
from tests.saving import outcome, save, start
from tests.starts import rank_variables
from whisper_ft.checkpoint.format import verify

Results = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def mounting(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command that gives a program mounts of its own, which end with it; skips where that is not permitted."""
    prefix, folder = ["unshare", "--mount"], tmp_path_factory.mktemp("probe")
    try:
        probe = [*prefix, "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
        done = subprocess.run(probe, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        pytest.skip(f"mounting needs a program that is not here: {error.filename}")
    if done.returncode:
        pytest.skip(f"mounting is not permitted here: {' '.join(done.stderr.split())}")
    return prefix


@pytest.fixture(scope="module")
def limited(mounting: list[str], tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Results of saves on disks that are full, read-only, or keep a folder that is to be removed."""
    return dict(outcome("full+read_only+resisting+unmounted", tmp_path_factory.mktemp("limited"), prefix=mounting))


@pytest.fixture(scope="module")
def cut(mounting: list[str], tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Faults after power cuts, with and without synced files; skips where a file cannot play a disk."""
    folder = tmp_path_factory.mktemp("cut")
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("mkfs.ext4 is not here")
    with (folder / "probe").open("wb") as file:
        file.truncate(8 << 20)
    subprocess.run(["mkfs.ext4", "-q", str(folder / "probe")], check=True)
    (folder / "at").mkdir()
    probe = [*mounting, "mount", "-o", "loop", str(folder / "probe"), str(folder / "at")]
    done = subprocess.run(probe, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a file cannot be mounted here: {' '.join(done.stderr.split())}")
    return dict(outcome("power_cut+power_cut_unsynced", folder, prefix=mounting))


@pytest.mark.long
def test_a_full_disk_is_reported_before_a_save_or_when_it_fills_up(limited: Results):
    result = limited["full"]
    assert result["before"].startswith("6 "), "the exit code"
    assert all(fact in result["before"] for fact in ("step-00000003", "2.4 MB", "2.0 MB"))
    assert result["within"].startswith("6 ")
    assert all(fact in result["within"] for fact in ("step-00000003", "No space left on device"))
    assert result["left"] == ["step-00000001", "step-00000002"]
    assert result["problems"] == []


@pytest.mark.long
def test_a_read_only_disk_is_told_at_the_start_and_in_a_run(limited: Results):
    result = limited["read_only"]
    assert result["starting"].startswith("6 ")
    assert all(fact in result["starting"] for fact in ("--run_dir", "Read-only file system"))
    assert all(fact in result["saving"] for fact in ("step-00000002", "Read-only file system"))
    assert result["damage"] is None


def test_a_disk_that_is_unmounted_under_a_run_ends_it_and_nothing_is_written_below(limited: Results):
    result = limited["unmounted"]
    assert result["saving"].startswith("6 ")
    assert all(fact in result["saving"] for fact in ("--run_dir", ".lock"))
    assert result["left"] == []


def test_an_old_checkpoint_that_cannot_be_removed_is_a_warning(limited: Results):
    result = limited["resisting"]
    assert result["steps"] == [6, 5, 4]
    (warning,) = result["warnings"]
    assert warning.startswith("warning: ")
    assert "step-00000004" in warning


def test_a_power_cut_takes_nothing_that_was_acknowledged(cut: Results):
    assert cut["power_cut"]["problems"] == {str(step): [] for step in (1, 2, 3, 4)}


def test_a_power_cut_would_take_what_was_not_synced(cut: Results):
    """The proof that the test above can fail."""
    assert all(cut["power_cut_unsynced"]["problems"].values())


def test_a_checkpoint_that_may_not_be_read_is_told(tmp_path: Path):
    """A file of another user, with mode 0600. Root may read all files, unless it gives that right up."""
    if shutil.which("setpriv") is None or os.getuid() != 0:
        pytest.skip("giving up the rights of root needs root and setpriv")
    save(start(tmp_path), 1, elements=10)
    weights = tmp_path / "checkpoints/step-00000001/model.safetensors"
    weights.chmod(0)
    caps = "-dac_override,-dac_read_search"
    without = ["setpriv", f"--bounding-set={caps}", f"--inh-caps={caps}"]
    program = [sys.executable, "-m", "whisper_ft.checkpoint", "verify", str(tmp_path)]
    done = subprocess.run([*without, *program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "step-00000001: model.safetensors cannot be read (Permission denied)\n"
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    weights.chmod(0o600)
    assert verify(weights.parent) is None


@pytest.mark.long
def test_ranks_that_do_not_see_the_same_checkpoints_refuse_to_go_on(train: Trainer, mounting: list[str]):
    """The second rank has an empty disk where the first has the run, because --run_dir is on a disk of each."""
    checkpoints = train("run", steps=2, eval__every=0) / "checkpoints"
    hidden = f"mount -t tmpfs -o size=1m tmpfs {checkpoints} && exec "
    arguments = train.arguments("run", steps=4, eval__every=0, allow_change="[steps]")
    program = [sys.executable, "train.py", *arguments]
    second = [*mounting, "sh", "-c", hidden + '"$@"', "sh", *program]
    pipes: dict[str, Any] = {"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = [
        subprocess.Popen(argv, env=environment(2) | variables, **pipes)
        for argv, variables in zip((program, second), rank_variables(2), strict=True)
    ]
    errors = [process.communicate(timeout=START_SECONDS)[1] for process in started]
    assert [process.returncode for process in started] == [3, 3], errors
    assert all(fact in errors[0] for fact in ("step-00000002", "rank 1"))
    assert len(errors[0].strip().splitlines()) == 1


@pytest.mark.long
def test_full_shared_memory_ends_a_run_in_one_line(train: Trainer, mounting: list[str]):
    """As in a container with less than its workers hand over; the error came in a thread, where it was lost."""
    arguments = train.arguments("run", steps=4, data__workers=2, eval__every=0)
    small = [*mounting, "sh", "-c", 'mount -t tmpfs -o size=256k tmpfs /dev/shm && exec "$@"', "sh"]
    done = subprocess.run(
        [*small, sys.executable, "train.py", *arguments],
        cwd=ROOT,
        env=environment(1),
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
    )
    assert done.returncode == 1, done.stderr
    assert "/dev/shm" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    with_room = train("run", steps=4, data__workers=2, eval__every=0)
    assert digest(with_room) == digest(train.reference(steps=4))


@pytest.mark.long
def test_a_log_on_a_full_disk_changes_no_weight_and_is_said_once(train: Trainer):
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    whole = train.reference(steps=3)
    (train.folder / "run").mkdir()
    (train.folder / "run/metrics.jsonl").symlink_to("/dev/full")
    ended = train.end("run", steps=3)
    assert ended.code == 0, ended.err
    assert ended.err.count("No space left on device") == ended.err.count("training goes on") == 1
    assert digest(train.folder / "run") == digest(whole)
    assert json.loads((train.folder / "run/status.json").read_text())["state"] == "finished"
