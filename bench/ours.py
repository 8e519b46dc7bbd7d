"""Contender: train.py as a process, without evaluation and saves. Every step is logged, which is timed, too."""

import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench.log import logged_steps, pace
from bench.tasks import TrainingTask, answer, from_argument, training_result
from bench.watch import Watch

ROOT = Path(__file__).parents[1]


def command(task: TrainingTask, run_dir: Path, **settings: Any) -> list[str]:
    """Return the command line of a run without evaluation; `schedule__kind="linear"` means --schedule.kind linear."""
    values = {
        "run_dir": run_dir,
        "steps": task.steps,
        "device": "cpu",
        "model.name": task.model,
        "data.path": task.data,
        "data.language": task.language,
        "data.workers": task.workers,
        "batch.size": task.batch,
        "batch.per_device": task.batch,
        "optim.lr": task.learning_rate,
        "schedule.kind": "constant",
        "schedule.warmup": 0,
        "log.every": 1,
        "eval.every": 0,
        "save.every": 0,
    }
    values |= {name.replace("__", "."): value for name, value in settings.items()}
    return [
        sys.executable,
        str(ROOT / "train.py"),
        *(text for key in values for text in (f"--{key}", str(values[key]))),
    ]


class Moments(NamedTuple):
    """Times of a run in seconds of `time.time`, taken when each line of its output arrives."""

    start: float
    ready: float
    """Model, data and optimizer exist: the line "starting at step 0" arrived."""
    step_ends: list[float]


def run_watched(argv: Sequence[str], steps: int) -> tuple[Moments, Watch]:
    """Run train.py for a number of steps, and record the time at which each step ends."""
    start, ready, step_ends = time.time(), 0.0, []
    with (
        subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process,
        Watch(process.pid) as watch,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            now = time.time()
            if line.startswith("starting at step 0"):
                ready = now
            elif re.match(r"step \d+/", line):
                step_ends.append(now)
    if process.returncode or len(step_ends) != steps or not ready:
        raise SystemExit(f"train.py ended with {process.returncode} after {len(step_ends)} of {steps} steps")
    return Moments(start, ready, step_ends), watch


def main() -> None:
    """Train, and print the result."""
    task = from_argument(TrainingTask)
    run_dir = Path(task.scratch) / "run"
    moments, watch = run_watched(command(task, run_dir), task.steps)
    rows = logged_steps(run_dir)
    _, data_wait = pace(rows[task.unmeasured_steps :], task.batch)
    answer(training_result(task, *moments, rows[-1]["loss"]) | {"data_wait": data_wait} | watch.result())


if __name__ == "__main__":
    main()
