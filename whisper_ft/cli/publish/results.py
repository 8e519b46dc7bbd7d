"""Error rates of the published model on evaluation sets, with their confidence intervals."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from whisper_ft.cli.publish.model_to_publish import ModelToPublish
from whisper_ft.reports.curves.history import Curve, History
from whisper_ft.runtime.errors import UsageError
from whisper_ft.runtime.printable import counted
from whisper_ft.scoring.bootstrap import Interval, interval_of
from whisper_ft.scoring.edit_distance import ErrorCount
from whisper_ft.scoring.scores import Prediction, ScoredRow
from whisper_ft.training.run_folder import model_of

HELD_OUT = "held-out set of the run"


@dataclass(frozen=True)
class EvaluationResult:
    """Error rates of the published model on one evaluation set."""

    name: str
    """Name of the set on the card."""
    summary: Mapping[str, Any]
    """Figures as `Scores.summary` returns them; rates are fractions or None."""
    interval: Interval | None = None
    """95 % bootstrap interval of the rate that `headline` names, resampled by speakers or utterances."""
    languages: tuple[str, ...] = ()

    @property
    def headline(self) -> str:
        """Name of the main rate: `wer`, or `cer` if the language is written without spaces."""
        return "cer" if self.summary.get("unit") == "characters" else "wer"

    def rate(self, name: str) -> float | None:
        """Return a rate as a fraction; None if it is unknown."""
        value = self.summary.get(name)
        return float(value) if isinstance(value, (int, float)) else None

    @property
    def headline_rate(self) -> float | None:
        """Value of the main rate as a fraction; None if it is unknown."""
        return self.rate(self.headline)


def results_of_run(
    run: Path, history: History, model: ModelToPublish, augmented: Collection[str] = ()
) -> list[EvaluationResult]:
    """Return the results that the run measured for this model: on its held-out set, and on sets of eval.sets.

    `augmented` are the names of the sets whose sound is augmented, which the card says.
    """
    recorded = [EvaluationResult(HELD_OUT, dict([model.recorded]))] if model.recorded else []
    if not model.is_of_one_step:
        return recorded
    (step,) = model.steps

    def measured(title: str, curve: Curve, folder: Path) -> list[EvaluationResult]:
        rows = [row for row in curve.rows if row["step"] == step]
        return [_result(title, row, folder / f"step-{step:08d}.jsonl") for row in rows]

    folder = run / "predictions"
    results = measured(HELD_OUT, history.evaluated, folder) or recorded
    for name, curve in history.sets.items():
        sound = ", augmented sound" if name in augmented else ""
        results += measured(f"{name} (set of the run{sound})", curve, folder / name)
    return results


def result_of_evaluation(folder: Path, model: ModelToPublish) -> EvaluationResult:
    """Read the result in an output folder of evaluate.py.

    Raises UsageError if its summary.json cannot be read or is of another model.
    """
    try:
        summary = json.loads((folder / "summary.json").read_bytes())
        evaluated, first = Path(summary["config"]["model"]), summary["config"]["max_utterances"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UsageError(f"--evaluation {folder}: holds no summary.json of evaluate.py ({error})") from error
    if not _is_of(evaluated, model.folder):
        raise UsageError(f"--evaluation {folder}: is of {evaluated}, not of {model.folder}; evaluate that model")
    name = folder.resolve().name + (f", first {counted(first, 'utterance')}" if first else "")
    name += ", augmented sound" if summary.get("augment") else ""
    return _result(name, summary, folder / "predictions.jsonl")


def _is_of(evaluated: Path, model: Path) -> bool:
    """Return True if an evaluation of `evaluated`, a model or its run, was one of a model.

    One that was moved since is known by the name of its folder.
    """
    run = model.resolve().parent
    if evaluated.exists():
        return Path(model_of(str(evaluated))).resolve() == model.resolve()
    return evaluated.name == model.name or (evaluated.name == run.name and Path(model_of(str(run))) == run / model.name)


def is_older(folder: Path, model: ModelToPublish) -> bool:
    """Return True if the summary.json of an evaluation is older than the weights of the model, by the files' times."""
    return (folder / "summary.json").stat().st_mtime < model.weights.stat().st_mtime


def _result(name: str, summary: Mapping[str, Any], predictions: Path) -> EvaluationResult:
    rows = _rows(predictions)
    languages = tuple(sorted({row["language"] for row in rows if row.get("language")}))
    result = EvaluationResult(name, summary, languages=languages)
    known = summary.get("confidence")
    if not isinstance(known, dict):
        return replace(result, interval=_interval(result, rows))
    ends = known.get(result.headline)
    return replace(result, interval=Interval(float(ends[0]), float(ends[1])) if ends else None)


def _interval(result: EvaluationResult, rows: Sequence[dict[str, Any]]) -> Interval | None:
    """Compute the interval of the main rate from the error counts of each utterance.

    Returns None if the counts are missing or do not add up to the rate.
    """
    try:
        scored = [
            (ScoredRow(Prediction(row["id"], "", "", 0.0, 0, speaker=row.get("speaker")), "", "", count, count), count)
            for row in rows
            if (count := _count(row, result.headline)).reference_length
        ]
    except (LookupError, TypeError):
        return None
    rate, total = result.headline_rate, sum((count for _, count in scored), ErrorCount())
    if rate is None or total.rate is None or abs(total.rate - rate) > 1e-9:
        return None
    return interval_of([row for row, _ in scored], [count for _, count in scored])


def _count(row: Mapping[str, Any], rate: str) -> ErrorCount:
    if rate == "cer":
        return ErrorCount(hits=row["chars"] - row["char_errors"], substitutions=row["char_errors"])
    return ErrorCount(*(row[kind] for kind in ("hits", "substitutions", "deletions", "insertions")))


def _rows(predictions: Path) -> Sequence[dict[str, Any]]:
    """Read the rows of a predictions file; an empty list if the file is missing or a row is cut short."""
    try:
        rows = [json.loads(line) for line in predictions.read_bytes().splitlines()]
    except (OSError, ValueError):
        return []
    return rows if all(isinstance(row, dict) for row in rows) else []
