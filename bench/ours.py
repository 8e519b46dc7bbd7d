"""Contender: train.py, a real process. Evaluation and saving are off; every step is logged, and that is timed too."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

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
    return [sys.executable, str(ROOT / "train.py"), *(text for key in given for text in (f"--{key}", str(given[key])))]


def main() -> None:
    """Train, noting when each step's line arrives, and report."""
    task = from_argument(TrainingTask)
    run_dir = Path(task.scratch) / "run"
    began, ready, step_ends = time.time(), 0.0, []
    with (
        subprocess.Popen(command(task, run_dir), cwd=ROOT, stdout=subprocess.PIPE, text=True) as process,
        Watch(process.pid) as watch,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            now = time.time()
            if line.startswith("starting at step 0"):
                ready = now  # model, data and optimizer are there
            elif re.match(r"step \d+/", line):
                step_ends.append(now)
    if process.returncode or not ready or len(step_ends) != task.steps:
        raise SystemExit(f"train.py ended with {process.returncode} and told of {len(step_ends)} steps")
    lines = (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if "loss" in row]  # not what was saved, and when
    measured = rows[task.unmeasured_steps :]
    seconds = [task.batch / row["utterances_per_second"] for row in measured]
    told = {
        # By its own clock, which stops between the steps; the headline figure is from outside and does not.
        "utterances_per_second_told": round(task.batch * len(seconds) / sum(seconds), 2),
        "data_wait": round(
            sum(row["data_wait"] * s for row, s in zip(measured, seconds, strict=True)) / sum(seconds), 4
        ),
    }
    answer(training_result(task, began, ready, step_ends, rows[-1]["loss"]) | told | watch.result())


if __name__ == "__main__":
    main()
