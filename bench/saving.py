"""What saving costs a run: its share of the wall time with a few checkpoints, written in line and beside."""

from pathlib import Path
from typing import Any

from bench.log import Rows, logged
from bench.ours import command, watched
from bench.tasks import TrainingTask, answer, from_argument

SAVES = 5  # in a run, about


def trained(task: TrainingTask, name: str, **settings: Any) -> tuple[float, Rows]:
    """Seconds from the end of the first update to that of the last one, and what metrics.jsonl says of saves."""
    folder = Path(task.scratch, name)
    ends = watched(command(task, folder, **settings), task.steps)[0].step_ends
    return ends[-1] - ends[0], [
        row for row in logged(folder) if row.get("event") == "saved" and row["step"] < task.steps
    ]


def main() -> None:
    """Train without saves, with them, and with them in the background, in turn, and report."""
    task = from_argument(TrainingTask)
    every = max(task.steps // SAVES, 2)
    without, _ = trained(task, "without")
    inline, saves = trained(task, "inline", save__every=every)
    beside, _ = trained(task, "beside", save__every=every, save__background="true")
    seconds = sum(row["seconds"] for row in saves)
    answer(
        {
            "every": every,
            "saves": len(saves),
            "megabytes": round(saves[0]["bytes"] / 1e6, 1),
            "seconds_of_a_save": round(seconds / len(saves), 4),
            "share_of_wall_time": round(seconds / inline, 4),
            "seconds_without": round(without, 2),
            "seconds_inline": round(inline, 2),
            "seconds_in_background": round(beside, 2),
        }
    )


if __name__ == "__main__":
    main()
