"""Score a checkpoint by generation: every utterance once, nothing dropped, corpus-level rates.

    python evaluate.py --model runs/demo/best --data.path demo-data/be/test --out runs/demo/test
    NPROC=2 ./launch.sh evaluate.py --model ... --data.path ... --out ...      # the same, in two processes

Writes summary.json, predictions.jsonl and report.html to --out and prints a table. The same `transcribe` and `score`
as the training loop, so the WER of a model here is the WER in its log.
"""

import json
import time
from functools import partial
from typing import NoReturn

import accelerate
import torch
import transformers

from normalizers import get_normalizer
from whisper_ft import durable
from whisper_ft.agreement import Agreement, leave, start_processes, tell
from whisper_ft.audio import LogMel
from whisper_ft.commandline import load, refuse_impossible_evaluation
from whisper_ft.config import EvaluateConfig, to_plain
from whisper_ft.failure import FINISHED, RunError, as_usage_error
from whisper_ft.heldout import HeldOut
from whisper_ft.labels import LabelEncoder
from whisper_ft.launcher import end_with_parent
from whisper_ft.model import load_whisper, quiet_libraries
from whisper_ft.report import table, write_report
from whisper_ft.scoring import Scores, save_summary, score
from whisper_ft.sources import open_source
from whisper_ft.tracking import Tracker


def evaluate(
    config: EvaluateConfig, accelerator: accelerate.Accelerator, agreement: Agreement, tracker: Tracker
) -> Scores:
    """Transcribe the whole set with all ranks and score it; the same result on every rank."""
    with as_usage_error("normalizer"):
        get_normalizer(config.normalizer)  # an unknown name should not be found after an hour of decoding
    model, processor = load_whisper(config.model)
    model = model.to(accelerator.device).eval()
    encode = LabelEncoder.of(model, processor.tokenizer, config.data.language, config.data.task)
    heldout = HeldOut(open_source(config.data), config.decoding, config.max_utterances, config.precision)
    log_mel = LogMel(processor.feature_extractor)
    with tracker.live(0), tracker.counting("transcribing", -(-heldout.total // agreement.world)) as progress:
        predictions = heldout.transcripts(model, processor.tokenizer, encode, log_mel, agreement, progress)
    return score(predictions, get_normalizer(config.normalizer, language=encode.language))


def write(config: EvaluateConfig, scores: Scores, seconds: float) -> None:
    """Put summary.json, predictions.jsonl and report.html into --out, each whole or not there."""
    with durable.disk_errors(config.out):
        config.out.mkdir(parents=True, exist_ok=True)
    rows = [json.dumps(row.record(), ensure_ascii=False, allow_nan=False) for row in scores.rows]
    durable.write_text(config.out / "predictions.jsonl", "".join(f"{row}\n" for row in rows))
    facts = {
        "model": config.model,
        "data": config.data.path,
        "normaliser": config.normalizer,
        "decoding": "greedy" if config.decoding.num_beams == 1 else f"{config.decoding.num_beams} beams",
        "precision": config.precision,
        "seconds": f"{seconds:.1f}",
        "versions": f"torch {torch.__version__}, transformers {transformers.__version__}",
    }
    write_report(config.out / "report.html", scores, title=f"{config.model} on {config.data.path}", facts=facts)
    summary = {**scores.summary(), "seconds": round(seconds, 3), "config": to_plain(config)}
    save_summary(config.out / "summary.json", summary)


def main() -> NoReturn:
    """Evaluate, and turn whatever goes wrong into one line and an exit code."""
    end_with_parent()
    quiet_libraries()
    begin = time.monotonic()
    agreement, code = None, FINISHED
    try:
        config = load(EvaluateConfig)
        refuse_impossible_evaluation(config)
        accelerator = start_processes(config.device)
        agreement = Agreement()
        tracker = Tracker(config.out, steps=0, enabled=accelerator.is_main_process)
        scores = agreement.together(partial(evaluate, config, accelerator, agreement, tracker))
        seconds = time.monotonic() - begin
        agreement.from_main(lambda: write(config, scores, seconds))
        tracker.show(table(scores, f"{config.model} on {config.data.path}", seconds))
        tracker.say(f"summary, predictions and report are in {config.out}")
    except Exception as error:  # noqa: BLE001 - what is no RunError is a bug of ours: all of it is shown
        code = error.exit_code if isinstance(error, RunError) else 1
        tell(error, agreement)
    leave(code)


if __name__ == "__main__":
    main()
