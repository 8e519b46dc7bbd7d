"""What the log of a run of train.py says: its steps, its saves, and how fast the steps were by its own clock."""

import json
from pathlib import Path
from typing import Any

Rows = list[dict[str, Any]]


def logged(run_dir: Path) -> Rows:
    """The rows of metrics.jsonl."""
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def logged_steps(run_dir: Path) -> Rows:
    """The rows that were logged of a step."""
    return [row for row in logged(run_dir) if "loss" in row]


def seconds_of_step(row: dict[str, Any], batch: int) -> float:
    """How long a step of so many utterances took; what comes between the steps is not in it."""
    return float(batch / row["utterances_per_second"])


def pace(rows: Rows, batch: int) -> tuple[float, float]:
    """Utterances a second over these steps, and the share of their time that data was waited for."""
    seconds = [seconds_of_step(row, batch) for row in rows]
    waited = sum(row["data_wait"] * s for row, s in zip(rows, seconds, strict=True))
    return round(batch * len(seconds) / sum(seconds), 2), round(waited / sum(seconds), 4)
