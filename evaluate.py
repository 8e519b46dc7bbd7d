"""Evaluate a model: transcribe every utterance of a test set once, and compute the error rates of the whole set.

    python evaluate.py --model runs/demo --data.path demo-data/be/test --out runs/demo/test
    NPROC=2 ./launch.sh evaluate.py --model ... --data.path ... --out ...      # the same, in two processes
    python evaluate.py --adapters '[runs/a, runs/b]' --data.path ... --out ...   # several adapters, on one base
    python evaluate.py --predictions runs/demo/test/predictions.jsonl --compare other/predictions.jsonl --out again

Writes summary.json, predictions.jsonl and report.html to --out and prints tables. Training uses the same transcription
and scoring, so the WER of a model here is the WER in its log. After an interruption, the same command continues.
"""

from whisper_ft.config.parse import early_answer
from whisper_ft.config.scoring import EvaluationConfig

if __name__ == "__main__":
    early_answer(EvaluationConfig)  # above the imports of torch and transformers, which take seconds

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TextIO

import torch

from normalizers import get_normalizer
from whisper_ft.config.data import NamedSourceConfig
from whisper_ft.config.memory_advice import with_advice
from whisper_ft.config.parse import load_config
from whisper_ft.data.audio.log_mel import LogMel
from whisper_ft.data.labelled import LabelledSource
from whisper_ft.data.long_recordings import long_recordings
from whisper_ft.data.sources import open_source, pin
from whisper_ft.data.stated_durations import first_durations
from whisper_ft.data.used_settings import languages_found, used_lines
from whisper_ft.decoding.evaluator import Evaluator, augmentation_of_set, encoder_of_set
from whisper_ft.decoding.resume_log import ResumeLog, job_of
from whisper_ft.decoding.set_results import SCHEMA, SetOutcome, title_of, write_results
from whisper_ft.decoding.transcriber import Transcriber
from whisper_ft.models.adapters.adapter_turns import adapters_in_turn
from whisper_ft.models.inference import InferenceModel
from whisper_ft.models.whisper import quiet_libraries
from whisper_ft.reports.evaluation.set_index import write_set_index
from whisper_ft.reports.evaluation.tables import sets_table, side_by_side_table, tables, wer_line
from whisper_ft.reports.text import percent
from whisper_ft.runtime import atomic
from whisper_ft.runtime.collectives import Collectives
from whisper_ft.runtime.errors import DataError, OutOfMemoryError, RunError, ScoreError, as_usage_error
from whisper_ft.runtime.exit import exit_process, report_error
from whisper_ft.runtime.exit_codes import FINISHED, INTERRUPTED
from whisper_ft.runtime.lock import lock_folder
from whisper_ft.runtime.malloc import keep_freed_memory
from whisper_ft.runtime.parent import end_with_parent
from whisper_ft.runtime.printable import counted
from whisper_ft.runtime.processes import start_processes
from whisper_ft.runtime.redaction import redacted
from whisper_ft.scoring.analysis import Analysis
from whisper_ft.scoring.edit_distance import ErrorCount
from whisper_ft.scoring.predictions import data_columns, read_predictions
from whisper_ft.scoring.scores import Prediction, Scores, count_word_errors, score
from whisper_ft.scoring.side_by_side import side_by_side
from whisper_ft.scoring.unheard import refuse_unheard
from whisper_ft.tracking.tracker import Tracker
from whisper_ft.training.checkpoint_model import load_any_for_inference
from whisper_ft.training.next_commands import next_commands
from whisper_ft.training.preflight import refuse_impossible_evaluation
from whisper_ft.training.run_folder import model_of


class Transcribed(NamedTuple):
    """Transcripts of a set, as predictions with their references."""

    predictions: list[Prediction]
    source: NamedSourceConfig  # pinned to a commit if it is on the Hub
    language: str | None  # language of the normaliser
    times_real_time: float | None = None  # seconds of audio per second, for utterances transcribed by this start


class System(NamedTuple):
    """A system to score: a model, one of several adapters, or stored predictions, with the settings of its scoring."""

    name: str  # name of the adapter; empty for the only system
    config: EvaluationConfig
    inputs: "Inputs"


class Inputs(NamedTuple):
    """Everything that is loaded before the first set, so that no error appears after hours of decoding."""

    scored: InferenceModel | None  # None if the predictions of an earlier evaluation are scored again
    other: list[Prediction] | None  # predictions of the system to compare with
    columns: list[str]  # extra columns to read from the data


def load_inputs(config: EvaluationConfig, device: torch.device, say: Callable[[str], object]) -> Inputs:
    """Load the model and the predictions of another system. Raises UsageError or DataError if one cannot be used.

    No model is loaded if `predictions` is set. `say` is called with a line about each missing part that was completed.
    """
    with as_usage_error("normalizer"):
        get_normalizer(config.normalizer)
    other = read_predictions(config.compare) if config.compare else None
    if config.predictions is not None:
        return Inputs(None, other, [])
    columns = data_columns(config.columns)
    scored = load_any_for_inference(model_of(config.model), config.precision, device, say, config.base)
    return Inputs(scored, other, columns)


def systems(config: EvaluationConfig, device: torch.device, say: Callable[[str], object]) -> Iterator[System]:
    """Load each system to score when its turn comes. Raises UsageError or DataError if one cannot be used.

    Several adapters share one base in memory, and each has its own folder. `say` is called as by `load_inputs`.
    """
    if not config.adapters:
        yield System("", config, load_inputs(config, device, say))
        return
    names = [name for name, _ in config.named_adapters]
    paths = [model_of(path) for _, path in config.named_adapters]
    columns = data_columns(config.columns)
    with as_usage_error("normalizer"):
        get_normalizer(config.normalizer)
    turns = adapters_in_turn(paths, config.model or None, config.precision, device, say)
    for name, path, scored in zip(names, paths, turns, strict=True):
        own = replace(config, model=path, base=config.model or None, adapters=[], out=config.out / name)
        yield System(name, own, Inputs(scored, None, columns))


def evaluate(
    inputs: Inputs,
    config: EvaluationConfig,
    name: str,
    source: NamedSourceConfig,
    collectives: Collectives,
    tracker: Tracker,
) -> SetOutcome | None:
    """Transcribe one set, or read its transcripts; score them and write the results to the set's folder.

    `name` is that folder below `out`; empty for `out` itself. Every rank must call it. Returns the outcome on rank 0,
    and None on other ranks. Raises DataError if no audio of the set could be read.
    """
    begin, scored = time.monotonic(), inputs.scored
    if scored is None:
        transcribed = read(config)
    else:
        transcribed = transcribe(scored, config, name, source, inputs.columns, collectives, tracker)

    def finish() -> SetOutcome:
        scores, analysis = score_set(transcribed, config, inputs)
        refuse_unheard(scores, name or transcribed.source.path or str(config.predictions))
        outcome = SetOutcome(scores, analysis, time.monotonic() - begin, transcribed.times_real_time)
        write_results(outcome, config, name, transcribed.source, scored)
        for table in tables(scores, title_of(config, name or transcribed.source.path), outcome.seconds, analysis):
            tracker.show(table)
        tracker.say(wer_line(scores, analysis.runaway))
        tracker.say(f"summary, predictions and report are in {config.out / name}")
        return outcome

    return collectives.main_only(finish)


def transcribe(
    scored: InferenceModel,
    config: EvaluationConfig,
    name: str,
    source: NamedSourceConfig,
    columns: list[str],
    collectives: Collectives,
    tracker: Tracker,
) -> Transcribed:
    """Transcribe a set with the model, or continue an interrupted transcription. Every rank must call it.

    Raises LockedError if another evaluation writes into the set's folder. `columns` are columns of the data to keep.
    """
    detect, tokenizer = config.decoding.detect_language, scored.processor.tokenizer
    source, out = collectives.broadcast_from_main(lambda: pin(source)), config.out / name
    rows = open_source(source, columns=columns)
    found = [] if detect else collectives.broadcast_from_main(lambda: languages_found([rows]))
    encode, language = encoder_of_set(
        source, found, scored.model, tokenizer, detect_language=detect, leading_space=config.leading_space
    )
    tracker.say_all(collectives.broadcast_from_main(lambda: _lines_about(rows, name or "data", language)))
    log_mel = LogMel(scored.processor.feature_extractor)
    evaluator = open_evaluator(scored, config, name, source, rows, log_mel.window_seconds, collectives, tracker.say_all)
    job = job_of(scored.sha256, source, evaluator.protocol, columns, config.label_space)
    known = collectives.broadcast_from_main(lambda: open_folder(out, job))
    if known:
        tracker.say(f"{len(known)} of {counted(evaluator.total, 'utterance')} transcribed already; the rest follows")
    normalize, errors = get_normalizer(config.normalizer, language=language), ErrorCount()
    share = -(-(evaluator.total - len(known)) // collectives.world)
    with tracker.live(0), tracker.progress_bar(f"transcribing {name}".strip(), share) as advance:

        def progress(prediction: Prediction) -> None:
            nonlocal errors
            if tracker.is_live:
                errors += count_word_errors(prediction, normalize)
            advance(1, "" if errors.rate is None else f"WER so far {percent(errors.rate, 1)}")

        decoding, precision, log = evaluator.decoding, scored.precision, ResumeLog(out, collectives.rank, known)
        transcriber = Transcriber(scored.model, tokenizer, encode, decoding, precision, is_long=source.is_long)
        begin = time.monotonic()
        predictions = evaluator.transcribe(transcriber, log_mel, collectives, progress, log)
    seconds = time.monotonic() - begin
    audio = sum(row.audio_seconds for index, row in enumerate(predictions) if index not in known)
    return Transcribed(predictions, source, language, audio / seconds if len(known) < len(predictions) else None)


def open_evaluator(
    scored: InferenceModel,
    config: EvaluationConfig,
    name: str,
    source: NamedSourceConfig,
    rows: LabelledSource,
    window_seconds: float,
    collectives: Collectives,
    say_all: Callable[[Sequence[str]], None],
) -> Evaluator:
    """Make the evaluator of a set: of its rows, or of the long recordings that `long` asks for, and report these.

    Every rank must call it. Raises UsageError if there are no long recordings.
    """
    most, setting = config.max_utterances, f"--sets: {name}: long" if name else "--long"
    recordings = long_recordings(rows, source, most, window_seconds, collectives, setting)
    generation, is_long = scored.model.generation_config, source.is_long
    augment = augmentation_of_set(source, f"sets: {name}: augment" if name else "augment")
    evaluator = Evaluator(name, recordings, config.decoding, most, scored.precision, generation, is_long, augment)
    say_all(evaluator.notes)
    return evaluator


def _lines_about(rows: LabelledSource, name: str, language: str | None) -> list[str]:
    return [*rows.notes, *used_lines(name, rows, language), *first_durations([rows])]


def open_folder(out: Path, job: dict[str, Any]) -> dict[int, Prediction]:
    """Lock the folder of a set until this process ends, and read the predictions of an interrupted evaluation.

    The predictions are by index of the utterance, and those of another job are removed. Main process only. Raises
    LockedError if another evaluation writes into the folder, and DiskError if it cannot be written.
    """
    with atomic.disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        LOCKS.append(lock_folder(out, "evaluation"))
    return ResumeLog.open(out, job)


LOCKS: list[TextIO] = []
"""Locks of the folders of all sets, held until this process ends."""


def read(config: EvaluationConfig) -> Transcribed:
    """Read the transcripts of `config.predictions`, a predictions.jsonl.

    Raises UsageError or DataError if the file cannot be used. The language of the transcripts is that of the settings,
    or else the only language that the rows name. It is None if the rows name none or several.
    """
    assert config.predictions is not None
    predictions = read_predictions(config.predictions, config.columns)
    languages = {row.language for row in predictions if row.language}
    only = languages.pop() if len(languages) == 1 else None
    [(_, data)] = config.named_sets
    return Transcribed(predictions, data, data.language or only)


def score_set(transcribed: Transcribed, config: EvaluationConfig, inputs: Inputs) -> tuple[Scores, Analysis]:
    """Compute the rates of a set and their analysis. Raises DataError if the other system has other utterances."""
    language = transcribed.language
    normalize = get_normalizer(config.normalizer, language=language)
    if normalize.language == "en":
        spelling = inputs.scored.spelling if inputs.scored else None
        whisper = get_normalizer("whisper-english", language=language, spelling=spelling)
    else:
        whisper = get_normalizer("whisper-basic", language=language)
    others = [get_normalizer("golden", language=language), get_normalizer("none", language=language), whisper]
    scores = score(transcribed.predictions, normalize)
    other = None if inputs.other is None else (str(config.compare), score(inputs.other, normalize))
    try:
        return scores, Analysis.of(scores, others, config.columns, other=other, name=title_of(config, ""))
    except ValueError as error:
        raise DataError(str(error)) from error


def evaluate_system(system: System, collectives: Collectives, tracker: Tracker) -> dict[str, Scores]:
    """Evaluate a system on every set. Every rank must call it.

    Returns the scores of each set by its name on rank 0, and nothing on other ranks.
    """
    _, config, inputs = system
    sets: dict[str, Scores] = {}
    for name, source in config.named_sets:
        outcome = collectives.run_on_all(partial(evaluate, inputs, config, name, source, collectives, tracker))
        if outcome is not None:
            sets[name or redacted(source.path) or str(config.predictions)] = outcome.scores
    return sets


def conclude(config: EvaluationConfig, results: dict[str, dict[str, Scores]], tracker: Tracker) -> None:
    """Write the rates of several sets into one summary.json and a page, and compare several adapters in a table.

    `results` are the scores of each system on each set. Main process only. If --fail_above is given, raises ScoreError
    for the first rate that is above it or unknown.
    """
    for system, rates in results.items() if config.sets else ():
        summary = {
            name: {"metric": scores.headline[0], "value": scores.headline[1], "unheard": scores.unheard}
            for name, scores in rates.items()
        }
        atomic.write_json(config.out / system / "summary.json", {"schema": SCHEMA, "sets": summary})
        write_set_index(config.out / system, title_of(config, system), rates)
        tracker.show(sets_table(rates, title_of(config, system)))
    if config.adapters:
        sets = list(next(iter(results.values())))
        compared = {name: side_by_side({own: rates[name] for own, rates in results.items()}) for name in sets}
        for name, adapters in compared.items():
            tracker.show(side_by_side_table(adapters, name))
        facts = {name: [one.summary() for one in adapters] for name, adapters in compared.items()}
        atomic.write_json(config.out / "summary.json", {"schema": SCHEMA, "adapters": facts})
    if config.fail_above is None:
        return
    for system, rates in results.items():
        for name, scores in rates.items():
            metric, value = scores.headline
            if value is None or value > config.fail_above:
                shown = "unknown" if value is None else f"{value:.4f}"
                of = f"{system} on {name}" if system else name
                raise ScoreError(f"{metric} of {of} is {shown}, above --fail_above {config.fail_above:g}")


def main() -> NoReturn:
    """Evaluate, and report every error as one line and by the exit code."""
    end_with_parent()
    quiet_libraries()
    keep_freed_memory()
    collectives, config, code = None, None, FINISHED
    try:
        config = load_config(EvaluationConfig)
        refuse_impossible_evaluation(config)
        accelerator = start_processes(config.device)
        collectives = Collectives()
        tracker = Tracker(config.out, steps=0, enabled=accelerator.is_main_process)
        results: dict[str, dict[str, Scores]] = {}
        turns = systems(config, accelerator.device, tracker.say)
        while system := collectives.run_on_all(partial(next, turns, None)):
            results[system.name] = evaluate_system(system, collectives, tracker)
        if config.model and not config.adapters:
            tracker.say_all(next_commands(config.model))
        collectives.main_only(partial(conclude, config, results, tracker))
    except KeyboardInterrupt:
        code = INTERRUPTED
        report_error(RunError("stopped; the same command continues"), collectives)
    except Exception as error:  # noqa: BLE001 - anything but a RunError is a bug of this program, and shown in full
        if isinstance(error, OutOfMemoryError) and config is not None:
            error = with_advice(error, config)
        code = error.exit_code if isinstance(error, RunError) else 1
        report_error(error, collectives)
    exit_process(code)


if __name__ == "__main__":
    main()
