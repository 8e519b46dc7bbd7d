"""Fine-tune Whisper: one run, read from top to bottom.

    ./launch.sh --config configs/demo.yaml                            # accelerate launch ... train.py --config ...
    ./launch.sh --config configs/whisper-small.yaml --optim.lr 5e-6   # any setting: --section.field VALUE
    python train.py --help                                            # all settings with their meaning

Run the same command again after any interruption: it goes on from the newest whole checkpoint as if nothing had
happened, to the last bit (same machine, versions and number of processes).
"""

import math
import os
import sys
import traceback
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import accelerate
import torch
import transformers

from collator import Batch, SpeechCollator
from normalizers import get_normalizer
from whisper_ft import checkpoint
from whisper_ft.agreement import Agreement, StopRequest
from whisper_ft.audio import LogMel
from whisper_ft.commandline import load, refuse_changes, refuse_impossible
from whisper_ft.config import Config, to_plain
from whisper_ft.decoding import Transcriber, transcribe
from whisper_ft.failure import FINISHED, PREEMPTED, DataError, NonFiniteError, RunError, UsageError, as_usage_error
from whisper_ft.labels import LabelEncoder, whisper_language
from whisper_ft.loss import count_labels, token_loss_sum
from whisper_ft.model import load_whisper, parameters_by_name, quiet_libraries
from whisper_ft.optim import apply_update, build_optimizer, load_state_tensors, set_lr, state_tensors
from whisper_ft.order import ORDER_VERSION, Order, default_lanes
from whisper_ft.published import mend_best, publish_best, publish_final
from whisper_ft.rng import reseed
from whisper_ft.rundir import RunDir
from whisper_ft.schedule import due, lr_factor, steps_of
from whisper_ft.scoring import score
from whisper_ft.sources import open_source
from whisper_ft.state import TrainState
from whisper_ft.stream import Share, Step, Totals, TrainStream, WindowReader, heard
from whisper_ft.tracking import Pace, Tracker

MAX_SKIPPED_IN_A_ROW = 25  # non-finite gradients: by then this run is lost, and its last checkpoint is not


class Run:
    """Everything one process holds while it trains, built once."""

    def __init__(
        self, config: Config, accelerator: accelerate.Accelerator, agreement: Agreement, folder: RunDir
    ) -> None:
        self.config, self.agreement, self.folder = config, agreement, folder
        self.device: torch.device = accelerator.device
        self.is_main: bool = accelerator.is_main_process
        self.tracker = Tracker(config.run_dir, config.steps, enabled=self.is_main)
        self.stop = StopRequest()

        with as_usage_error("eval.normalizer"):
            get_normalizer(config.eval.normalizer)  # an unknown name should not be found at the first evaluation
        model, self.processor = load_whisper(config.model.name, config.model.dropout)
        self.model = model.to(self.device)
        language = config.data.language or getattr(model.generation_config, "language", None)
        self.encode = LabelEncoder(
            self.processor.tokenizer,
            model.generation_config,
            model.config.max_target_positions,
            language,
            config.data.task,
        )
        if self.encode.is_multilingual and language:
            # So that the exported model writes the language it was trained on without being told.
            model.generation_config.language = whisper_language(language)
            model.generation_config.task = config.data.task
        self.normalize = get_normalizer(config.eval.normalizer, language=language)
        self.parameters = parameters_by_name(model)
        self.optimizer = build_optimizer(self.parameters, config.optim)
        self.log_mel = LogMel(self.processor.feature_extractor)

        self.source = open_source(config.data)
        heldout = replace(config.data, path=config.eval.path)
        self.heldout = open_source(heldout) if config.eval.path and config.eval.every else None
        self.lanes = config.data.lanes or default_lanes(config.batch.size)
        self.data = {"order": ORDER_VERSION, "lanes": self.lanes, **self.source.fingerprint()}
        self.share = Share(config.batch.size, config.batch.per_device, agreement.rank, agreement.world)
        self.resumed_from: Path | None = None
        self.state = TrainState()

    def lr(self, step: int) -> float:
        """Learning rate of update `step`: a function of the step, so there is nothing to restore."""
        schedule, steps = self.config.schedule, self.config.steps
        warmup, decay = steps_of(schedule.warmup, steps), steps_of(schedule.decay, steps)
        return self.config.optim.lr * lr_factor(step, steps, schedule.kind, warmup, decay)

    def stream(self, first_step: int) -> TrainStream[Batch]:
        """This rank's micro-batches from a step on."""
        data = self.config.data
        order = Order(self.source.rows, seed=self.config.seed, lanes=self.lanes, window=data.window_chunks)
        reader = WindowReader(
            self.source, self.log_mel, self.encode, cached_chunks=self.lanes * (data.window_chunks + 1)
        )
        collate = SpeechCollator(
            start_token=self.model.generation_config.decoder_start_token_id,
            pad_token=self.processor.tokenizer.pad_token_id,
            feature_shape=(self.log_mel.bins, self.log_mel.frames),
        )
        return TrainStream(
            reader, order, self.share, collate, first_step=first_step, workers=data.workers, prefetch=data.prefetch
        )

    def ended(self, code: int, reason: str) -> None:
        """Write down how the run ended, and leave without waiting for a rank that may be gone."""
        name = {FINISHED: "finished", PREEMPTED: "preempted"}.get(code, "failed")
        if self.is_main:
            self.folder.status(name, self.state.step, reason, code)
        if self.agreement.world > 1:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)  # destroying the process group would wait for the others


def train(run: Run, accelerator: accelerate.Accelerator) -> int:
    """The run: restore, loop, done. Returns the exit code."""
    config, agreement, tracker = run.config, run.agreement, run.tracker
    state = saved = restore(run)
    model = accelerator.prepare(run.model)  # DDP; not the optimizer, stream or schedule, which the loop owns
    model.train()
    pace = Pace()
    run.stop.listen()
    stopping = False

    with closing(run.stream(state.step)) as stream, tracker.live(state.step):
        while state.step < config.steps and not stopping:
            with pace.training():
                # One step: this rank's micro-batches, weighed by the label tokens of every rank.
                with pace.waiting():
                    step, totals = draw_together(run, stream)
                lr = run.lr(state.step)
                set_lr(run.optimizer, lr)
                loss_here = torch.zeros((), device=run.device)
                for i, batch in enumerate(step.micro_batches):
                    reseed(config.seed, state.step, i, agreement.rank)
                    with nullcontext() if i == run.share.accumulate - 1 else accelerator.no_sync(model):
                        loss = loss_sum(model, batch.to(run.device), config)
                        # DDP averages gradients over ranks; times `world`, that average is the sum.
                        torch.autograd.backward(loss * (agreement.world / max(totals.label_tokens, 1)))
                    loss_here += loss.detach()
                max_norm = config.optim.clip_norm or float("inf")
                grad_norm = torch.nn.utils.clip_grad_norm_(run.parameters.values(), max_norm)
                applied = apply_update(run.optimizer, grad_norm)  # False: not finite, weights untouched
            state = state.after_step(
                applied=applied,
                utterances=totals.utterances,
                unusable=totals.unusable,
                label_tokens=totals.label_tokens,
            )
            run.state = state
            pace.count(totals.utterances)
            tracker.stepped(state.step)

            # Between steps. The branches hold collectives: every rank takes the same ones.
            last = state.step == config.steps
            stopping = agreement.totals(run.stop.signal is not None)[0] > 0
            if due(state.step, config.log.every, last or stopping):
                log(run, state, loss_here, totals.label_tokens, lr, grad_norm, pace)
            refuse_to_go_on(state, config)
            if run.heldout and due(state.step, config.eval.every, last) and not stopping:
                state = evaluate(run, state)
            if due(state.step, config.save.every, last or stopping) or state.improved:
                saved = save(run, state)

        # A run that was stopped after its last update, before it was evaluated, is resumed here.
        if run.heldout and state.evaluated_step < state.step and not stopping:
            state = evaluate(run, state)
        if state != saved:
            save(run, state)
    if stopping:
        tracker.say(f"stopped by a signal and saved at step {state.step}; run the same command to go on")
        return PREEMPTED
    agreement.from_main(lambda: publish_final(run.folder, state, run.model, run.processor))
    where = run.folder.best if state.best else run.folder.final
    tracker.say(f"finished at step {state.step}; the model to use is in {where}")
    return FINISHED


def restore(run: Run) -> TrainState:
    """Where the run goes on: at the checkpoint that rank 0 chose and verified, or at step 0. On every rank the same."""
    config, folder, say = run.config, run.folder, run.tracker.say

    def choose() -> Path | None:
        if config.resume == "never":
            if checkpoint.list_checkpoints(folder.checkpoints):
                raise UsageError(f"--resume never: {folder.path} holds a run already; choose another --run_dir")
            return None
        return checkpoint.choose(folder.checkpoints, config.resume, folder.best_step, say)

    chosen = run.agreement.from_main(choose)
    if chosen is None:
        say(f"starting at step 0 in {folder.path}")
        return TrainState()
    trainer = checkpoint.read_trainer(chosen)
    changed = refuse_changes(trainer["config"], config)
    if trainer["data"] != run.data:
        raise UsageError(f"the data is not what {chosen} was trained on: it was {trainer['data']}, it is {run.data}")
    state = TrainState.from_json(trainer["state"])
    for name, then, now in changed:
        say(f"{name}: was {then}, is {now}, as allowed")
    if state.best and any(name.startswith("eval.") for name, _, _ in changed):
        say("the evaluation changed, so its figures cannot be compared: the best model is judged anew")
        state = replace(state, best=None)
    if told := run.agreement.from_main(lambda: mend_best(folder, state.best, run.model, run.processor)):
        say(told)
    checkpoint.load_weights(chosen, run.model)
    load_state_tensors(run.optimizer, run.parameters, checkpoint.load_optimizer(chosen))
    run.resumed_from, run.state = chosen, state
    say(f"resumed from {chosen}")
    say(f"LR at step {state.step}: saved {trainer['lr']:.6g}, now {run.lr(state.step):.6g}")
    run.tracker.record({"event": "resumed", "step": state.step})
    return state


def loss_sum(model: Any, batch: Batch, config: Config) -> torch.Tensor:
    """Cross-entropy of a micro-batch, summed over its label tokens."""
    with torch.autocast(batch.labels.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
        logits = model(
            input_features=batch.input_features, decoder_input_ids=batch.decoder_input_ids, use_cache=False
        ).logits
    return token_loss_sum(logits, batch.labels)


def draw_together(run: Run, stream: TrainStream[Batch]) -> tuple[Step[Batch], Totals]:
    """This rank's part of the next step and the totals of all; a rank that fails to read stops all with its message."""
    step, failure = Step[Batch]([], [], 0), None
    try:
        step = stream.draw()
    except Exception as error:  # noqa: BLE001 - told to all ranks below and raised there
        failure = error
    label_tokens = sum(count_labels(batch.labels) for batch in step.micro_batches)
    *counts, failures = run.agreement.totals(label_tokens, step.utterances, len(step.unusable), failure is not None)
    if failures:
        run.agreement.raise_together(failure)
    totals = Totals(*(int(count) for count in counts))
    if totals.unusable:
        run.tracker.quarantine([row for part in run.agreement.gather(step.unusable) for row in part])
    return step, totals


def log(
    run: Run, state: TrainState, loss: torch.Tensor, label_tokens: int, lr: float, norm: torch.Tensor, pace: Pace
) -> None:
    """A line about the step just done: sums over ranks, divided once."""
    loss_of_all = run.agreement.totals(float(loss))[0] / max(label_tokens, 1)
    row: dict[str, float | None] = {
        "step": state.step,
        "loss": finite_or_none(loss_of_all),
        "lr": lr,
        "grad_norm": finite_or_none(float(norm)),
        "loss_scale": 1.0,
    }
    row |= {"label_tokens": label_tokens, "skipped": state.skipped, "unusable": state.unusable, **pace.read()}
    run.tracker.step(row)


def finite_or_none(value: float) -> float | None:
    """JSON has no NaN: a figure that is not finite is written as null and shown as such."""
    return value if math.isfinite(value) else None


def refuse_to_go_on(state: TrainState, config: Config) -> None:
    """End a run that is only burning time: gradients that stay non-finite, or too much data that cannot be used."""
    if state.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
        raise NonFiniteError(f"{state.skipped_in_a_row} gradients in a row were not finite, up to step {state.step}")
    seen = state.utterances + state.unusable
    if state.unusable >= 20 and state.unusable > config.data.max_unusable_share * seen:
        raise DataError(
            f"{state.unusable} of {seen} rows could not be used ({100 * state.unusable / seen:.1f} %; allowed are "
            f"{100 * config.data.max_unusable_share:g} %, --data.max_unusable_share); quarantine.jsonl names them"
        )


def evaluate(run: Run, state: TrainState) -> TrainState:
    """Transcribe and score the held-out set on all ranks; the state knows whether this is the best so far."""
    config, agreement = run.config, run.agreement
    assert run.heldout is not None
    total = min(sum(run.heldout.rows), config.eval.max_utterances or sum(run.heldout.rows))
    transcriber = Transcriber(run.model, run.processor.tokenizer, run.encode, config.eval, config.precision)
    utterances = heard(run.heldout, run.log_mel, agreement.rank, agreement.world, total)
    run.model.eval()
    with run.tracker.counting("evaluating", -(-total // agreement.world)) as progress:
        predictions = transcribe(transcriber, utterances, config.eval.batch_size, total, agreement, progress)
    run.model.train()
    scores = score(predictions, run.normalize)
    state = state.after_evaluation(*scores.headline)
    run.tracker.evaluated(state, scores)
    return state


def save(run: Run, state: TrainState) -> TrainState:
    """Commit a checkpoint, publish the best model, remove what is old; rank 0 writes and all learn how it went."""

    def write() -> Path:
        trainer = {
            "state": state.to_json(),
            "config": to_plain(run.config),
            "data": run.data,
            "lr": run.lr(state.step),
            "world": run.agreement.world,
            "versions": {module.__name__: module.__version__ for module in (torch, transformers, accelerate)},
        }
        tensors = state_tensors(run.optimizer, run.parameters)
        path = checkpoint.save(run.folder.checkpoints, state.step, run.resumed_from, run.model, tensors, trainer)
        if state.improved and state.best:
            publish_best(run.folder, state.best, run.model, run.processor)
        also = {state.best.step} if state.best else set()
        also |= {checkpoint.step_of(run.resumed_from)} if run.resumed_from else set()
        checkpoint.retain(run.folder.checkpoints, run.config.save.keep, also)
        run.folder.status("running", state.step)
        return path

    run.tracker.say(f"saved {run.agreement.from_main(write)}")
    return state


def start_accelerate(config: Config) -> accelerate.Accelerator:
    """The processes and their device. Precision, accumulation, schedule and data stay with the loop."""
    accelerator = accelerate.Accelerator(cpu=config.device == "cpu", mixed_precision="no")
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != world:
        raise UsageError(
            f"WORLD_SIZE is {world}, but accelerate made {accelerator.num_processes} unconnected process in each; "
            "on a CPU box set ACCELERATE_USE_CPU=true, or start with NPROC=N ./launch.sh"
        )
    return accelerator


def main() -> int:
    """Train, and turn whatever ends the run into one line, a status.json and an exit code."""
    quiet_libraries()
    run, reason = None, ""
    try:
        config = load(Config)
        refuse_impossible(config)
        accelerator = start_accelerate(config)
        agreement, folder = Agreement(), RunDir(config.run_dir)
        agreement.from_main(lambda: folder.open(to_plain(config)))
        run = Run(config, accelerator, agreement, folder)
        code = train(run, accelerator)
    except RunError as error:
        code, reason = error.exit_code, str(error)
        if os.environ.get("RANK", "0") == "0":
            print(f"error: {reason}", file=sys.stderr)
    except Exception as error:  # noqa: BLE001 - a bug of ours: show it all, record it, and let no rank wait
        code, reason = 1, f"{type(error).__name__}: {error}"
        traceback.print_exc()
    if run is not None:
        run.ended(code, reason)
    return code


if __name__ == "__main__":
    sys.exit(main())
