"""Mixtures of a start model and a tuned one: each is scored on the sets of a run, and the chosen one is written."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from whisper_ft.config.data import NamedSourceConfig, SourceConfig
from whisper_ft.config.training import TrainingConfig
from whisper_ft.decoding.resume_log import ResumeLog, job_of
from whisper_ft.models.interpolation import Mixture, StoredWeights
from whisper_ft.models.whisper import weights_sha256
from whisper_ft.reports.interpolation_page import interpolation_page, interpolation_table
from whisper_ft.runtime.printable import json_text
from whisper_ft.scoring.guard import Guard, Verdict
from whisper_ft.scoring.mixtures import MixtureScores, best_within
from whisper_ft.scoring.scores import Scores
from whisper_ft.training.directory import RunDir
from whisper_ft.training.evaluated_set import EvaluatedSet
from whisper_ft.training.evaluation import Evaluation
from whisper_ft.training.run_folder import public_name

RECORD, PAGE = "interpolation.json", "interpolation.html"
Record = Mapping[str, bytes]
"""Files that say how a mixture was made and chosen, by name."""


def guards_of(evaluated: Sequence[EvaluatedSet]) -> list[Guard]:
    """Return the guards among the sets of eval.sets."""
    return [one.guard for one in evaluated if one.guard is not None]


def score_mixtures(
    mixture: Mixture, alphas: Sequence[float], evaluation: Evaluation, guards: Sequence[Guard], out: Path
) -> Iterator[MixtureScores]:
    """Yield the scores of each mixture, in the order of `alphas`, which begins with 0. Every rank must take them.

    The transcripts of a mixture are kept in `out`, so a later start transcribes only what is missing. The model of the
    evaluation has the weights of the last mixture afterwards. Raises PreemptedError after a stop signal.
    """
    held_out, reference = evaluation.held_out, dict[str, Scores]()
    assert held_out is not None
    model = evaluation.learner.model
    for alpha in alphas:
        mixture.at(alpha).load_into(model)
        sha256 = weights_sha256(model)
        scores = {
            one.name: _scored(one, evaluation, sha256, out / f"alpha-{alpha:g}" / one.name)
            for one in (held_out, *evaluation.sets)
        }
        reference = reference or scores
        metric, value = scores[held_out.name].figure(evaluation.settings.metric)
        yield MixtureScores(
            alpha,
            sha256,
            metric,
            value,
            {one.name: scores[one.name].headline for one in evaluation.sets},
            [guard.compare(reference[guard.name], scores[guard.name]) for guard in guards],
        )


def _scored(one: EvaluatedSet, evaluation: Evaluation, sha256: str, folder: Path) -> Scores:
    """Score the present model on a set, or take its transcripts from the folder of an earlier start."""
    space = "as in the labels" if one.evaluator.decoding.with_loss else None
    where = NamedSourceConfig(**{part.name: getattr(one.source.where, part.name) for part in fields(SourceConfig)})

    def opened() -> Any:
        folder.mkdir(parents=True, exist_ok=True)
        return ResumeLog.open(folder, job_of(sha256, where, one.evaluator.protocol, [], space))

    known = evaluation.collectives.broadcast_from_main(opened)
    return evaluation.score(one, ResumeLog(folder, evaluation.collectives.rank, known))


def publish_interpolated(config: TrainingConfig, directory: RunDir, evaluation: Evaluation, tuned: Path) -> None:
    """Mix the model in `tuned` with the start model of its run, and write the best mixture as interpolated/.

    Every rank must call it, at the end of a run. Raises PreemptedError after a stop signal.
    """
    mixture = Mixture(StoredWeights(config.model.name), StoredWeights(str(tuned)))
    guards = guards_of(evaluation.sets)
    work = directory.path / f"{directory.interpolated.name}-scores"
    interpolate(mixture, config.average.alphas, evaluation, guards, work, directory.interpolated)


def interpolate(
    mixture: Mixture, alphas: Sequence[float], evaluation: Evaluation, guards: Sequence[Guard], work: Path, out: Path
) -> Record:
    """Score the mixtures, choose the best one within the guards, and write it. Every rank must call it.

    Parameters
        work: folder that keeps the transcripts of each mixture.
        out: folder of the chosen model, with its record.

    Returns the files of the record by name: interpolation.json and interpolation.html. Raises PreemptedError after a
    stop signal; the next call continues.
    """
    tracker, collectives, mixtures = evaluation.tracker, evaluation.collectives, list[MixtureScores]()
    for one in score_mixtures(mixture, alphas, evaluation, guards, work):
        outside = ", outside a guard" if one.is_outside else ""
        tracker.say(f"mixture {one.alpha:g}: {one.metric} {shown(one.value)} on the held-out set{outside}")
        mixtures.append(one)
    chosen = best_within(mixtures, greater_is_better=evaluation.settings.greater_is_better)
    tracker.show(interpolation_table(mixtures, chosen))
    files = {**evaluation.learner.model_files(), "README.md": readme_of(chosen).encode()}
    record = collectives.broadcast_from_main(lambda: _record(mixture, mixtures, chosen))
    collectives.broadcast_from_main(lambda: mixture.at(chosen.alpha).write(out, {**files, **record}))
    tracker.say(f"{chosen.words} is in {out}; {chosen.metric} on the held-out set: {shown(chosen.value)}", always=True)
    return record


def _record(mixture: Mixture, mixtures: Sequence[MixtureScores], chosen: MixtureScores) -> Record:
    models = {
        name: {"name": public_name(one.name), "weights_sha256": one.sha256}
        for name, one in (("start", mixture.start), ("tuned", mixture.tuned))
    }
    facts = {**models, "metric": chosen.metric, "alpha": chosen.alpha, "mixtures": [one.summary() for one in mixtures]}
    title = f"Mixtures of {models['start']['name']} and {models['tuned']['name']}"
    page = interpolation_page(title, mixtures, chosen)
    return {RECORD: f"{json_text(facts, indent=2)}\n".encode(), PAGE: page.encode()}


def readme_of(chosen: MixtureScores) -> str:
    """Return the README of a chosen mixture."""
    guards = "".join(f"- {_sentence(verdict)}\n" for verdict in chosen.verdicts)
    return (
        f"# Mixture of a start model and a model tuned from it\n\nEach weight is start + {chosen.alpha:g} (tuned - "
        f"start). {chosen.metric} on the held-out set: {shown(chosen.value)}. {RECORD} has the figures of every "
        f"mixture.\n{guards and chr(10) + guards}"
    )


def _sentence(verdict: Verdict) -> str:
    guard, place = verdict.guard, "outside" if verdict.is_outside else "within"
    return (
        f"{guard.name}: {guard.metric} {shown(verdict.now)}, {shown(verdict.reference)} before; {place} the limit of "
        f"{guard.max_worse:g}"
    )


def shown(value: float | None) -> str:
    """Return a figure with four decimals, or `unknown`."""
    return "unknown" if value is None else f"{value:.4f}"
