"""Contender: train.py with packed windows, or with a window for each utterance, on clips of about 4 s."""

from dataclasses import dataclass
from pathlib import Path

from bench.log import logged_steps
from bench.ours import command, run_watched
from bench.tasks import TrainingTask, answer, from_argument

SECONDS_PER_HOUR = 3600


@dataclass(frozen=True)
class PackingTask(TrainingTask):
    """Task: train on short clips in windows of 30 s. A step has `batch` utterances, which are one block if packed."""

    is_packed: bool
    windows: int
    """Windows of a forward pass."""


def main() -> None:
    """Train, and print the result: seconds of speech that are trained in a second, without gaps and padding."""
    task = from_argument(PackingTask)
    run_dir = Path(task.scratch) / "run"
    packing = {"pack__enabled": "true", "pack__block": task.batch} if task.is_packed else {}
    settings = {"batch__per_device": task.windows, **packing}
    moments, watch = run_watched(command(task, run_dir, **settings), task.steps)
    ends, rows = moments.step_ends[task.unmeasured_steps - 1 :], logged_steps(run_dir)[task.unmeasured_steps - 1 :]
    seconds, steps = ends[-1] - ends[0], len(ends) - 1
    speech = SECONDS_PER_HOUR * (rows[-1]["audio_hours"] - rows[0]["audio_hours"])
    windows = sum(row.get("windows", task.batch) for row in rows[1:])
    answer(
        {
            "utterances_per_second": round(steps * task.batch / seconds, 3),
            "speech_seconds_per_second": round(speech / seconds, 3),
            "windows_per_second": round(windows / seconds, 3),
            "seconds_per_utterance": round(speech / (steps * task.batch), 3),
            "fill": round(sum(row.get("fill", 0.0) for row in rows[1:]) / steps, 4),
            **watch.result(),
        }
    )


if __name__ == "__main__":
    main()
