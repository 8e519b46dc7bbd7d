"""Processes that hang, and processes that torchrun starts: none waits for ever, and each reports the reason."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from tests.conftest import ROOT, START_SECONDS, Trainer, digest, environment, logged, parent
from whisper_ft.runtime.accelerate_launch import codes_of, most_telling


@pytest.mark.long
@pytest.mark.parametrize("hangs", [0, pytest.param(1, marks=pytest.mark.matrix)], ids=["the first", "another"])
def test_a_rank_that_hangs_ends_the_run_in_time_with_the_reason(train: Trainer, tmp_path: Path, hangs: int):
    """Stopped as on a machine that hangs: its connections stay open, so only the clock tells."""
    arguments = train.arguments("run", steps=1000, eval__every=0, save__every=0, rank_timeout=5)
    with (tmp_path / "output").open("w") as output:
        started = parent().start_ranks("train.py", arguments, ROOT, output, output, 2)
    hanging, other = started.processes[hangs], started.processes[1 - hangs]
    deadline = time.monotonic() + START_SECONDS
    while not logged(2)(train.folder / "run"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(hanging.pid, signal.SIGSTOP)
    try:
        assert other.wait(START_SECONDS) == 1
    finally:
        os.kill(hanging.pid, signal.SIGKILL)
    (error,) = [line for line in (tmp_path / "output").read_text().splitlines() if line.startswith("error: ")]
    assert all(fact in error for fact in ("hangs", "--rank_timeout"))
    status = json.loads((train.folder / "run/status.json").read_text())
    assert (status["state"], status["exit_code"]) == ("failed", 1)
    assert error == f"error: {status['reason']}"
    assert ("rank 0" in error) == (hangs == 0)


@pytest.mark.parametrize(
    ("ends", "code"),
    [
        ([(1, 100), (-signal.SIGKILL, 130)], 1),  # killed by torchrun, because it hung
        ([(9, 100), (-signal.SIGKILL, 131), (1, 100)], 9),
        ([(-signal.SIGKILL, 100), (1, 101)], -signal.SIGKILL),  # killed by something else, such as missing memory
        ([(1, 100), (-signal.SIGKILL, 101)], -signal.SIGKILL),
        ([(-signal.SIGTERM, 100), (4, 100)], 4),
        ([(-signal.SIGTERM, 100), (1, 100)], 1),  # ended by torchrun, because the other had failed
    ],
)
def test_a_process_that_torchrun_had_to_kill_is_one_that_hung(ends: list[tuple[int, int]], code: int):
    failures = [ProcessFailure(rank, 0, exit_code, "") for rank, (exit_code, _) in enumerate(ends)]
    for failure, (_, timestamp) in zip(failures, ends, strict=True):
        failure.timestamp = timestamp
    assert most_telling(codes_of(failures)) == code


@pytest.mark.matrix
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
