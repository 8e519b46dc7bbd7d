"""Contender: train.py, a real process. Evaluation and saving are off; every step is logged, and that is timed too."""

import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench.log import logged_steps, pace
from bench.tasks import TrainingTask, answer, from_argument, training_result
from bench.watch import Watch

ROOT = Path(__file__).parents[1]


def command(task: TrainingTask, run_dir: Path, **settings: Any) -> list[str]:
    """The command line of a run without evaluation; `schedule__kind="linear"` means --schedule.kind linear."""
    given = {
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
    given |= {name.replace("__", "."): value for name, value in settings.items()}
    return started("train.py", given)


def started(program: str, given: Mapping[str, Any]) -> list[str]:
    """The command line of a program of this project with some settings."""
    return [sys.executable, str(ROOT / program), *(text for key in given for text in (f"--{key}", str(given[key])))]


class Moments(NamedTuple):
    """Of a run, in seconds of `time.time`, as they are seen from outside: by when each line arrives."""

    began: float
    ready: float
    """Model, data and optimizer are there, and it starts at step 0; 0.0 if it starts at another."""
    step_ends: list[float]


def watched(argv: Sequence[str], steps: int) -> tuple[Moments, Watch]:
    """A run of train.py to its end, with as many steps; what comes between two steps is timed too."""
    began, ready, step_ends = time.time(), 0.0, []
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
    if process.returncode or len(step_ends) != steps:
        raise SystemExit(f"train.py ended with {process.returncode} and told of {len(step_ends)} steps")
    return Moments(began, ready, step_ends), watch


def main() -> None:
    """Train, and report."""
    task = from_argument(TrainingTask)
    run_dir = Path(task.scratch) / "run"
    moments, watch = watched(command(task, run_dir), task.steps)
    if not moments.ready:
        raise SystemExit("train.py did not say that it starts at step 0")
    rows = logged_steps(run_dir)
    utterances_per_second, data_wait = pace(rows[task.unmeasured_steps :], task.batch)
    # By its own clock, which stops between the steps; the headline figure is from outside and does not.
    told = {"utterances_per_second_told": utterances_per_second, "data_wait": data_wait}
    answer(training_result(task, *moments, rows[-1]["loss"]) | told | watch.result())


if __name__ == "__main__":
    main()
