"""Score a checkpoint by generation: every utterance once, nothing dropped, corpus-level rates.

    python evaluate.py --model runs/demo --data.path demo-data/be/test --out runs/demo/test
    NPROC=2 ./launch.sh evaluate.py --model ... --data.path ... --out ...      # the same, in two processes
    python evaluate.py --predictions runs/demo/test/predictions.jsonl --compare other/predictions.jsonl --out again

Writes summary.json, predictions.jsonl and report.html to --out and prints tables. The same `transcribe` and `score` as
the training loop, so the WER of a model here is the WER in its log. Interrupted, the same command goes on.
"""

from whisper_ft.config.evaluation import EvaluationConfig
from whisper_ft.config.parse import early_answer

if __name__ == "__main__":
    early_answer(EvaluationConfig)  # above the imports of torch and transformers, which take seconds

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import accelerate
import torch
import transformers

from normalizers import get_normalizer
from whisper_ft.config.data import SourceConfig
from whisper_ft.config.parse import load_config
from whisper_ft.config.tree import to_plain
from whisper_ft.data.audio.log_mel import LogMel
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.data.sources import open_source, pin
from whisper_ft.decoding.evaluator import Evaluator
from whisper_ft.decoding.resume_log import ResumeLog
from whisper_ft.models.whisper import load_whisper, quiet_libraries
from whisper_ft.reports.evaluation.report import write_report
from whisper_ft.reports.evaluation.tables import tables, wer_line
from whisper_ft.reports.text import percent
from whisper_ft.runtime import atomic
from whisper_ft.runtime.collectives import Collectives
from whisper_ft.runtime.errors import FINISHED, INTERRUPTED, DataError, RunError, ScoreError, as_usage_error
from whisper_ft.runtime.exit import exit_process, report_error
from whisper_ft.runtime.lock import lock_folder
from whisper_ft.runtime.malloc import keep_freed_memory
from whisper_ft.runtime.parent import end_with_parent
from whisper_ft.runtime.processes import start_processes
from whisper_ft.scoring.analysis import Analysis
from whisper_ft.scoring.edit_distance import ErrorCount
from whisper_ft.scoring.predictions import data_columns, read_predictions
from whisper_ft.scoring.scores import Prediction, Scores, score
from whisper_ft.scoring.summary import save_summary
from whisper_ft.tracking.tracker import Tracker
from whisper_ft.training.preflight import model_of, refuse_impossible_evaluation

SCHEMA = 2  # of summary.json; raised when a key changes its meaning


class Transcribed(NamedTuple):
    """What a model wrote of a set."""

    rows: list[Prediction]
    where: SourceConfig  # of the set, pinned
    times_real_time: float | None  # seconds of audio a second, of what was transcribed by this start


class Evaluation:
    """One model, or none where transcripts are only scored again, and the sets that it is scored on."""

    def __init__(
        self, config: EvaluationConfig, accelerator: accelerate.Accelerator, agreement: Collectives, tracker: Tracker
    ) -> None:
        self.config, self.agreement, self.tracker = config, agreement, tracker
        with as_usage_error("normalizer"):
            get_normalizer(config.normalizer)  # an unknown name should not be found after an hour of decoding
        self.other = read_predictions(config.compare) if config.compare else None
        self.columns = [] if config.predictions else data_columns(config.columns)
        self.language = config.data.language
        self.model_hash, self.spelling = None, None
        self.held: list[Any] = []  # locks
        if config.predictions is None:
            model, self.processor = load_whisper(model_of(config.model), on_repair=tracker.say)
            self.model = model.to(accelerator.device).eval()
            self.model_hash = hash_of(model)
            self.spelling = getattr(self.processor.tokenizer, "english_spelling_normalizer", None)

    def transcribed(self, name: str, where: SourceConfig) -> Transcribed:
        """What the model writes of a set, read at one commit by all ranks. A collective."""
        config, agreement = self.config, self.agreement
        # Where the language is to be heard, the encoder's stands for it in the prompt only.
        given = where.language or ("en" if config.decoding.detect_language else None)
        encode = LabelEncoder.of(self.model, self.processor.tokenizer, given, where.task)
        self.language = where.language if config.decoding.detect_language else encode.language
        where = agreement.broadcast_from_main(lambda: pin(where))
        heldout = Evaluator(
            open_source(where, columns=self.columns), config.decoding, config.max_utterances, config.precision
        )
        source = {name: value for name, value in asdict(where).items() if name not in ("path", "audio_root")}
        job = {"model": self.model_hash, "source": source, **heldout.eval_protocol()}
        job |= {"columns": self.columns} if self.columns else {}
        agreement.main_only(lambda: self.hold(config.out / name))
        known = agreement.broadcast_from_main(lambda: ResumeLog.open(config.out / name, job))
        if known:
            self.tracker.say(f"{len(known)} of {heldout.total} utterances were transcribed before; the rest follows")
        parts = ResumeLog(config.out / name, agreement.rank, known)
        normalize, errors = get_normalizer(config.normalizer, language=self.language), ErrorCount()
        mine = -(-(heldout.total - len(known)) // agreement.world)
        with self.tracker.live(0), self.tracker.progress_bar(f"transcribing {name}".strip(), mine) as advance:

            def progress(done: Prediction) -> None:
                nonlocal errors
                if self.tracker.is_live:
                    errors += score([done], normalize).words
                advance(1, "" if errors.rate is None else f"WER so far {percent(errors.rate, 1)}")

            log_mel, tokenizer = LogMel(self.processor.feature_extractor), self.processor.tokenizer
            begin = time.monotonic()
            rows = heldout.transcripts(self.model, tokenizer, encode, log_mel, agreement, progress, parts)
        seconds = time.monotonic() - begin
        heard = sum(row.audio_seconds for index, row in enumerate(rows) if index not in known)
        return Transcribed(rows, where, heard / seconds if len(known) < len(rows) else None)

    def hold(self, out: Path) -> None:
        """Keep others out of a folder until this process ends; LockedError where another evaluation writes into it."""
        with atomic.disk_errors(out):
            out.mkdir(parents=True, exist_ok=True)
            self.held.append(lock_folder(out, "evaluation"))

    def scored(self, predictions: list[Prediction]) -> tuple[Scores, Analysis]:
        """Rates and all that is found besides. DataError for another system that has other utterances."""
        normalize = get_normalizer(self.config.normalizer, language=self.language)
        is_english = normalize.language == "en"
        usual = partial(get_normalizer, "whisper-english" if is_english else "whisper-basic", language=self.language)
        beside = [get_normalizer("golden", language=self.language), get_normalizer("none", language=self.language)]
        beside.append(usual(spelling=self.spelling) if is_english else usual())
        scores = score(predictions, normalize)
        other = self.other and (str(self.config.compare), score(self.other, normalize))
        try:
            return scores, Analysis.of(scores, beside, self.config.columns, other=other or None, name=self.title(""))
        except ValueError as error:
            raise DataError(str(error)) from error

    def title(self, name: str) -> str:
        """What is scored, for people."""
        return " on ".join(filter(None, [str(self.config.predictions or self.config.model), name]))


class Outcome(NamedTuple):
    """The evaluation of one set."""

    scores: Scores
    findings: Analysis
    seconds: float
    times_real_time: float | None


def evaluate(evaluation: Evaluation, name: str, where: SourceConfig) -> Outcome | None:
    """Transcribe or read one set, score it and write it into its folder; what came out of it, on rank 0."""
    config, agreement, begin = evaluation.config, evaluation.agreement, time.monotonic()
    speed = None
    if config.predictions is None:
        predictions, where, speed = evaluation.transcribed(name, where)
    else:
        predictions = read_predictions(config.predictions, config.columns)
        languages = {row.language for row in predictions if row.language}
        evaluation.language = evaluation.language or (languages.pop() if len(languages) == 1 else None)

    def finish() -> Outcome:
        outcome = Outcome(*evaluation.scored(predictions), time.monotonic() - begin, speed)
        write(evaluation, name, where, outcome)
        for table in tables(outcome.scores, evaluation.title(name or where.path), outcome.seconds, outcome.findings):
            evaluation.tracker.show(table)
        evaluation.tracker.say(wer_line(outcome.scores))
        evaluation.tracker.say(f"summary, predictions and report are in {config.out / name}")
        return outcome

    return agreement.main_only(finish)


def write(evaluation: Evaluation, name: str, where: SourceConfig, outcome: Outcome) -> None:
    """Put summary.json, predictions.jsonl and report.html into a set's folder, each whole or not there."""
    config, (scores, findings, seconds, speed) = evaluation.config, outcome
    out = config.out / name
    with atomic.disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(row.record(), ensure_ascii=False, allow_nan=False) + "\n" for row in scores.rows)
    atomic.write_lines(out / "predictions.jsonl", lines)
    versions = {module.__name__: module.__version__ for module in (torch, transformers, accelerate)}
    facts = {
        "model": str(config.predictions or config.model),
        "data": where.path,
        "normaliser": config.normalizer,
        "decoding": "greedy" if config.decoding.num_beams == 1 else f"{config.decoding.num_beams} beams",
        "precision": config.precision,
        "seconds": f"{seconds:.1f}" + (f", {speed:.1f} times faster than real time" if speed else ""),
        "versions": ", ".join(f"{package} {version}" for package, version in versions.items()),
    }
    sound = clips_of(where) if config.sound and config.predictions is None else None
    title = evaluation.title(name or where.path)
    write_report(out / "report.html", scores, title=title, facts=facts, analysis=findings, audio=sound)
    summary = {
        "schema": SCHEMA,
        **scores.summary(),
        **findings.summary(),
        "seconds": round(seconds, 3),
        "times_real_time": speed and round(speed, 3),
        "model_sha256": evaluation.model_hash,
        "predictions_sha256": atomic.sha256(out / "predictions.jsonl"),
        "versions": versions,
        "config": to_plain(config),
    }
    save_summary(out / "summary.json", summary)
    ResumeLog.close(out)


def clips_of(where: SourceConfig) -> Callable[[str], bytes | None]:
    """The encoded audio of an utterance by its id; None for a part of a longer recording."""
    source = open_source(where)
    read = lru_cache(maxsize=2)(source.read)  # a long set has many clips of one chunk among its worst
    places = {source.row_id(chunk, row): (chunk, row) for chunk, rows in enumerate(source.rows) for row in range(rows)}

    def clip(name: str) -> bytes | None:
        chunk, number = places[name]
        row = read(chunk)[number]
        is_part = row.offset or row.duration is not None
        return None if is_part or row.problem else row.audio or None

    return clip


def hash_of(model: Any) -> str:
    """sha256 of all weights with their names: the same for the same model, wherever it lies."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def main() -> NoReturn:
    """Evaluate, and turn whatever goes wrong into one line and an exit code."""
    end_with_parent()
    quiet_libraries()
    keep_freed_memory()
    agreement, code = None, FINISHED
    try:
        config = load_config(EvaluationConfig)
        refuse_impossible_evaluation(config)
        accelerator = start_processes(config.device)
        agreement = Collectives()
        tracker = Tracker(config.out, steps=0, enabled=accelerator.is_main_process)
        evaluation = agreement.run_on_all(partial(Evaluation, config, accelerator, agreement, tracker))
        rates: dict[str, tuple[str, float | None]] = {}
        for name, where in config.named_sets:
            outcome = agreement.run_on_all(partial(evaluate, evaluation, name, where))
            if outcome is not None:
                rates[name or where.path or str(config.predictions)] = outcome.scores.headline
        agreement.main_only(lambda: conclude(config, rates))
    except KeyboardInterrupt:
        code = INTERRUPTED
        report_error(RunError("stopped; the same command goes on"), agreement)
    except Exception as error:  # noqa: BLE001 - what is no RunError is a bug of ours: all of it is shown
        code = error.exit_code if isinstance(error, RunError) else 1
        report_error(error, agreement)
    exit_process(code)


def conclude(config: EvaluationConfig, rates: dict[str, tuple[str, float | None]]) -> None:
    """Write the rates of several sets beside their folders; ScoreError for one above --fail_above."""
    if config.sets:
        summary = {name: {"metric": metric, "value": value} for name, (metric, value) in rates.items()}
        atomic.write_json(Path(config.out, "summary.json"), {"schema": SCHEMA, "sets": summary})
    if config.fail_above is None:
        return
    for name, (metric, value) in rates.items():
        if value is None or value > config.fail_above:
            shown = "not known" if value is None else f"{value:.4f}"
            raise ScoreError(f"{metric} of {name} is {shown}, --fail_above is {config.fail_above:g}")


if __name__ == "__main__":
    main()
