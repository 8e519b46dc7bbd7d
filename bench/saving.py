"""What saving costs a run: its share of the wall time with a few checkpoints, written in line and beside."""

import json
import re
import subprocess
import time
from pathlib import Path
from typing import Any

from bench.ours import command
from bench.prepare import ROOT
from bench.tasks import TrainingTask, answer, from_argument

SAVES = 5  # in a run, about


def trained(task: TrainingTask, name: str, **settings: Any) -> tuple[float, list[dict[str, Any]]]:
    """Seconds from the end of the first update to that of the last one, and what metrics.jsonl says of saves."""
    folder = Path(task.scratch, name)
    with subprocess.Popen(command(task, folder, **settings), cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ends = [time.time() for line in process.stdout if re.match(r"step \d+/", line)]
    if process.returncode:
        raise SystemExit(f"train.py ended with {process.returncode}")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return ends[-1] - ends[0], [row for row in rows if row.get("event") == "saved" and row["step"] < task.steps]


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
