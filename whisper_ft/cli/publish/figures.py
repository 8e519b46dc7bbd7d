"""How well the model does: figures of one evaluation, with how sure they are."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from whisper_ft.cli.publish.chosen import ModelToPublish
from whisper_ft.reports.curves.history import History
from whisper_ft.runtime.errors import UsageError
from whisper_ft.scoring.bootstrap import interval_of
from whisper_ft.scoring.edit_distance import ErrorCount
from whisper_ft.scoring.scores import Prediction, ScoredRow

HELD_OUT = "held-out set of the run"


@dataclass(frozen=True)
class Figures:
    """An evaluation of the model."""

    name: str
    """Of the set, for people."""
    summary: dict[str, Any]
    """As scoring.Scores.summary gives it: rates are fractions or None."""
    interval: tuple[float, float] | None
    """Where 95 % of the headline rates lie when speakers, or utterances, are drawn again."""
    languages: tuple[str, ...]

    @property
    def headline(self) -> str:
        """`wer`, or `cer` where the language is written without spaces."""
        return "cer" if self.summary.get("unit") == "characters" else "wer"

    def rate(self, name: str) -> float | None:
        """A figure as a fraction."""
        value = self.summary.get(name)
        return float(value) if isinstance(value, (int, float)) else None


def of_the_run(run: Path, history: History, chosen: ModelToPublish) -> Figures | None:
    """What the run measured of this very model on its held-out set; None where it did not."""
    if chosen.what == "average":
        if chosen.said is None:
            return None
        metric, value = chosen.said
        return Figures(HELD_OUT, {metric: value}, None, ())
    (step,) = chosen.steps
    row = next((row for row in history.evaluated.rows if row["step"] == step), None)
    if row is None:
        return Figures(HELD_OUT, dict([chosen.said]), None, ()) if chosen.said else None
    return _figures(HELD_OUT, row, run / "predictions" / f"step-{step:08d}.jsonl")


def of_an_evaluation(folder: Path, chosen: ModelToPublish) -> Figures:
    """What evaluate.py wrote to its --out. UsageError if that is not an evaluation of this model."""
    try:
        summary = json.loads((folder / "summary.json").read_bytes())
        model, first = Path(summary["config"]["model"]), summary["config"]["max_utterances"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UsageError(f"--evaluation {folder}: holds no summary.json of evaluate.py ({error})") from error
    is_another = model.exists() and model.resolve() != chosen.folder.resolve()  # it may have been moved since
    if is_another or model.name != chosen.folder.name:
        raise UsageError(f"--evaluation {folder}: is of {model}, and {chosen.folder} is to be published; evaluate that")
    name = folder.resolve().name + (f", first {first} utterances" if first else "")
    return _figures(name, summary, folder / "predictions.jsonl")


def is_older(folder: Path, chosen: ModelToPublish) -> bool:
    """Whether an evaluation was written before the weights that it should be of."""
    return (folder / "summary.json").stat().st_mtime < (chosen.folder / "model.safetensors").stat().st_mtime


def _figures(name: str, summary: dict[str, Any], predictions: Path) -> Figures:
    rows = _rows(predictions)
    figures = Figures(name, summary, None, tuple(sorted({row["language"] for row in rows if row.get("language")})))
    known = summary.get("confidence")
    ends = known.get(figures.headline) if isinstance(known, dict) else _interval(figures, rows)
    return replace(figures, interval=(float(ends[0]), float(ends[1])) if ends else None)


def _interval(figures: Figures, rows: Sequence[dict[str, Any]]) -> tuple[float, float] | None:
    """The interval of the headline, from the counts of each utterance; None where they are not those of the figure."""
    try:
        scored = [
            (ScoredRow(Prediction(row["id"], "", "", 0.0, 0, speaker=row.get("speaker")), "", "", count, count), count)
            for row in rows
            if (count := _count(row, figures.headline)).reference_length
        ]
    except (LookupError, TypeError):
        return None
    rate, total = figures.rate(figures.headline), sum((count for _, count in scored), ErrorCount())
    if rate is None or total.rate is None or abs(total.rate - rate) > 1e-9:
        return None
    found = interval_of([row for row, _ in scored], [count for _, count in scored])
    return (found.low, found.high) if found else None


def _count(row: dict[str, Any], rate: str) -> ErrorCount:
    if rate == "cer":
        return ErrorCount(hits=row["chars"] - row["char_errors"], substitutions=row["char_errors"])
    return ErrorCount(*(row[kind] for kind in ("hits", "substitutions", "deletions", "insertions")))


def _rows(predictions: Path) -> Sequence[dict[str, Any]]:
    """The rows of a predictions file; none where any is missing or cut."""
    try:
        rows = [json.loads(line) for line in predictions.read_bytes().splitlines()]
    except (OSError, ValueError):
        return []
    return rows if all(isinstance(row, dict) for row in rows) else []
