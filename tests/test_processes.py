"""Processes that hang, and those that torchrun starts: nobody waits for ever, and everybody hears why."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests.conftest import ROOT, START_SECONDS, Trainer, command, digest, environment, logged


def test_a_rank_that_hangs_ends_the_run_in_time_with_the_reason(train: Trainer):
    """Stopped as a machine that hangs is: its connections stay open, so only the clock tells."""
    arguments = train.arguments("run", steps=1000, eval__every=0, save__every=0, rank_timeout=5)
    started = subprocess.Popen(
        command("train.py", 2, *arguments), cwd=ROOT, env=environment(2), stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + START_SECONDS
    while not logged(2)(train.folder / "run"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    ranks = [child for child in psutil.Process(started.pid).children(recursive=True) if "RANK" in child.environ()]
    hanging = next(
        child for child in ranks if child.environ()["RANK"] == "1" and "train.py" in " ".join(child.cmdline())
    )
    hanging.send_signal(signal.SIGSTOP)
    try:
        other = next(child for child in ranks if child.environ()["RANK"] == "0")
        other.wait(START_SECONDS)
    finally:
        hanging.send_signal(signal.SIGCONT)
    _, told = started.communicate(timeout=START_SECONDS)
    assert started.returncode != 0
    assert "--rank_timeout" in told
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
