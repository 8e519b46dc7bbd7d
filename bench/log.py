"""Reader of metrics.jsonl, the log of a run of train.py."""

import json
from pathlib import Path
from typing import Any

Rows = list[dict[str, Any]]


def logged_steps(run_dir: Path) -> Rows:
    """Return the rows of logged steps, without evaluations and events."""
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if "loss" in row]


def pace(rows: Rows, batch: int) -> tuple[float, float]:
    """Return utterances per second over some steps by the run's clock, and the share of time spent on data waits."""
    seconds = [batch / row["utterances_per_second"] for row in rows]
    waited = sum(row["data_wait"] * s for row, s in zip(rows, seconds, strict=True))
    return round(batch * len(seconds) / sum(seconds), 2), round(waited / sum(seconds), 4)
