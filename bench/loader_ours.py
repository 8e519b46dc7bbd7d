"""Contender: train.py's data alone, in line: order, read, decode, log-mel, labels, batch."""

import time
from pathlib import Path

from bench.prepare import run_of
from bench.tasks import TrainingTask, answer, from_argument
from bench.watch import Watch, keep_to_one_core


def main() -> None:
    """Draw the batches of the task, and report."""
    task = from_argument(TrainingTask)
    keep_to_one_core()
    with Watch() as watch:
        stream = run_of(task, Path(task.scratch)).stream(0)
        for _ in range(task.unmeasured_steps):
            stream.draw()
        begin = time.perf_counter()
        drawn = sum(stream.draw().utterances for _ in range(task.steps - task.unmeasured_steps))
        seconds = time.perf_counter() - begin
    answer({"utterances_per_second": round(drawn / seconds, 2), **watch.result()})


if __name__ == "__main__":
    main()
