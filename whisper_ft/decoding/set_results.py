"""Results of an evaluated set: summary.json, predictions.jsonl and report.html in its folder."""

import shlex
from typing import NamedTuple

import accelerate
import torch
import transformers

from whisper_ft.config.data import NamedSourceConfig
from whisper_ft.config.scoring import EvaluationConfig
from whisper_ft.config.tree import to_plain
from whisper_ft.config.waveform import described, transforms_in, words_for
from whisper_ft.data.stored_clips import stored_clips
from whisper_ft.decoding.guards_of_model import guards_of_model
from whisper_ft.decoding.resume_log import ResumeLog
from whisper_ft.models.inference import InferenceModel
from whisper_ft.reports.curves.history import run_of
from whisper_ft.reports.evaluation.report import write_report
from whisper_ft.runtime import atomic
from whisper_ft.runtime.printable import json_text
from whisper_ft.runtime.redaction import redacted
from whisper_ft.scoring.analysis import Analysis
from whisper_ft.scoring.scores import Scores
from whisper_ft.scoring.summary import save_summary

SCHEMA = 2  # version of summary.json, raised when a key changes its meaning


class SetOutcome(NamedTuple):
    """Scores and analysis of one set, with the time that the evaluation took."""

    scores: Scores
    analysis: Analysis
    seconds: float
    times_real_time: float | None


def title_of(config: EvaluationConfig, name: str) -> str:
    """Return the title of an evaluation, such as "runs/demo on be": the model or its predictions, and the set.

    The set is left out if `name` is empty. Credentials in addresses are hidden.
    """
    return redacted(" on ".join(filter(None, [str(config.predictions or config.model), name])))


def write_results(
    outcome: SetOutcome, config: EvaluationConfig, name: str, source: NamedSourceConfig, scored: InferenceModel | None
) -> None:
    """Write summary.json, predictions.jsonl and report.html of a set, each complete or not at all.

    Then the predictions kept for an interrupted evaluation are removed. Raises DiskError if a file cannot be written.
    """
    scores, analysis, seconds, speed = outcome
    out = config.out / name
    with atomic.disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    lines = (json_text(row.record()) + "\n" for row in scores.rows)
    atomic.write_lines(out / "predictions.jsonl", lines)
    audio = stored_clips(source) if config.sound and scored and not source.is_joined and not source.augment else None
    title = title_of(config, name or source.path)
    guards = guards_of_model(config.model) if scored else []
    write_report(out / "report.html", scores, title, _facts(outcome, config, source, scored), analysis, audio, guards)
    summary = {
        "schema": SCHEMA,
        **scores.summary(),
        **analysis.summary(),
        "seconds": round(seconds, 3),
        "times_real_time": speed and round(speed, 3),
        "precision": scored.precision if scored else None,
        "model_sha256": scored.sha256 if scored else None,
        "predictions_sha256": atomic.sha256(out / "predictions.jsonl"),
        "versions": _versions(),
        **({"augment": described(transforms_in(source.augment, "augment"))} if source.augment else {}),
        "config": to_plain(config),
    }
    save_summary(out / "summary.json", summary)
    ResumeLog.close(out)


def _versions() -> dict[str, str]:
    return {module.__name__: module.__version__ for module in (torch, transformers, accelerate)}


def _facts(
    outcome: SetOutcome, config: EvaluationConfig, source: NamedSourceConfig, scored: InferenceModel | None
) -> dict[str, str]:
    """Return the facts on the page of the report. Nothing is known of how stored predictions were made."""
    if scored is None:
        return {"predictions": str(config.predictions), "normaliser": config.normalizer}
    speed = outcome.times_real_time
    facts = {
        "model": str(config.model),
        "data": redacted(source.path),
        "normaliser": config.normalizer,
        "decoding": config.decoding.search,
        "precision": scored.precision,
        "seconds": f"{outcome.seconds:.1f}" + (f", {speed:.1f} times faster than real time" if speed else ""),
        "versions": ", ".join(f"{package} {version}" for package, version in _versions().items()),
    }
    if run := run_of(str(config.model)):
        facts["reasons for a poor rate"] = f"python -m whisper_ft diagnose {shlex.quote(str(run))}"
    return facts | ({"sound": f"augmented by {words_for(source.augment)}"} if source.augment else {})
