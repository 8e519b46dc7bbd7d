"""State of a run as the overview shows it: its figures, and its curves as a few hundred points."""

import itertools
import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from whisper_ft.checkpoint.state import read_best
from whisper_ft.reports.curves.history import Curve, History, Row, read_history
from whisper_ft.runtime.errors import UsageError
from whisper_ft.runtime.regular_file import read_regular, strict_json

MOST_POINTS = 240  # of a curve; a chart has about so many pixels
STATUS_BYTES = 1 << 20  # largest status.json that is read
RATES = ("wer", "cer", "eval_loss")


def run_state(run: Path) -> dict[str, Any]:
    """Return the state of a run as JSON values. Nothing is locked or written, so a run may train meanwhile."""
    status: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        value = strict_json(read_regular(run / "status.json", STATUS_BYTES))
        status = value if isinstance(value, dict) else {}
    best = read_best(run / "best.json")
    facts = {
        "name": run.name,
        "state": status.get("state") or "unknown",
        "reason": status.get("reason") or "",
        "best": None if best is None else {"step": best.step, "metric": best.metric, "value": best.value},
    }
    return facts | _figures(run)


def _figures(run: Path) -> dict[str, Any]:
    """Return the figures in metrics.jsonl, which is read again once it has changed."""
    with suppress(OSError, UsageError):
        metrics = run / "metrics.jsonl"
        stat = metrics.stat() if metrics.exists() else None
        return _figures_of(run, stat and (stat.st_mtime_ns, stat.st_size))
    return _values(None)


@lru_cache(maxsize=64)
def _figures_of(run: Path, version: tuple[int, int] | None) -> dict[str, Any]:
    return _values(read_history(run))


def _values(history: History | None) -> dict[str, Any]:
    logged, evaluated = (history.logged, history.evaluated) if history else (Curve([], []), Curve([], []))
    last = logged.rows[-1] if logged else {}
    return {
        "step": history.step if history else 0,
        "planned_steps": history.planned_steps if history else None,
        "metric": evaluated.headline,
        "last": {name: _number(last.get(name)) for name in ("loss", "lr", "utterances_per_second", "audio_hours")},
        "loss": thinned(_points(logged.rows, "loss")),
        "evaluations": [
            {"step": row["step"]} | {name: _number(row.get(name)) for name in RATES} for row in evaluated.rows
        ],
        "sets": {
            name: {"step": curve.rows[-1]["step"], **{rate: _number(curve.rows[-1].get(rate)) for rate in RATES}}
            for name, curve in (history.sets if history else {}).items()
            if curve
        },
    }


def thinned(points: Sequence[tuple[int, float]], most: int = MOST_POINTS) -> list[tuple[int, float]]:
    """Return at most `most` points of a curve: the mean of each stretch, at its last step."""
    if len(points) <= most:
        return [*points]
    edges = [len(points) * part // most for part in range(most + 1)]
    stretches = (points[begin:end] for begin, end in itertools.pairwise(edges))
    return [(part[-1][0], math.fsum(value for _, value in part) / len(part)) for part in stretches]


def _points(rows: Iterable[Row], name: str) -> list[tuple[int, float]]:
    return [(row["step"], value) for row in rows if (value := _number(row.get(name))) is not None]


def _number(value: Any) -> float | None:
    """Return a finite number; None for anything else."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
