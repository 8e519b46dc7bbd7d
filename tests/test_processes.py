"""Processes that hang, and processes that torchrun starts: none waits for ever, and each reports the reason."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT, START_SECONDS, Trainer, digest, environment, logged, parent


@pytest.mark.long
def test_a_rank_that_hangs_ends_the_run_in_time_with_the_reason(train: Trainer, tmp_path: Path):
    """Stopped as on a machine that hangs: its connections stay open, so only the clock tells."""
    arguments = train.arguments("run", steps=1000, eval__every=0, save__every=0, rank_timeout=5)
    with (tmp_path / "output").open("w") as output:
        started = parent().start_ranks("train.py", arguments, ROOT, output, output, 2)
    other, hanging = started.processes
    deadline = time.monotonic() + START_SECONDS
    while not logged(2)(train.folder / "run"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(hanging.pid, signal.SIGSTOP)
    try:
        assert other.wait(START_SECONDS) != 0
    finally:
        os.kill(hanging.pid, signal.SIGKILL)
    assert "--rank_timeout" in (tmp_path / "output").read_text()
    status = json.loads((train.folder / "run/status.json").read_text())
    assert status["state"] == "failed"
    assert "--rank_timeout" in status["reason"]


@pytest.mark.long
def test_torchrun_starts_a_run_as_accelerate_launch_does(train: Trainer):
    settings = {"steps": 2, "eval__every": 0, "save__every": 0}
    program = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "train.py"]
    done = subprocess.run(
        [*program, *train.arguments("torchrun", **settings)],
        cwd=ROOT,
        env=environment(2) | {"ACCELERATE_USE_CPU": "true", "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    assert digest(train.folder / "torchrun") == digest(train("launched", 2, **settings))
