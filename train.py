"""Fine-tune Whisper: one run, read from top to bottom.

    ./launch.sh --config configs/demo.yaml                            # accelerate launch ... train.py --config ...
    ./launch.sh --config configs/whisper-small.yaml --optim.lr 5e-6   # any setting: --section.field VALUE
    python train.py --help                                            # all settings with their meaning

Run the same command again after any interruption: it goes on from the newest whole checkpoint as if nothing had
happened, to the last bit (same machine, versions and number of processes).
"""

import math
import os
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import accelerate
import torch
import transformers

from collator import Batch, SpeechCollator
from normalizers import get_normalizer
from whisper_ft import checkpoint
from whisper_ft.agreement import Agreement, StopRequest, leave, lost_ranks_are_named, start_processes, tell
from whisper_ft.audio import LogMel
from whisper_ft.commandline import load, refuse_changes, refuse_impossible
from whisper_ft.config import Config, to_plain
from whisper_ft.failure import (
    FINISHED,
    PREEMPTED,
    DataError,
    NonFiniteError,
    PreemptedError,
    RunError,
    UsageError,
    as_usage_error,
)
from whisper_ft.heldout import HeldOut, comparable
from whisper_ft.labels import LabelEncoder, whisper_language
from whisper_ft.launcher import end_with_parent
from whisper_ft.loss import count_labels, token_loss_sum
from whisper_ft.model import load_whisper, parameters_by_name, quiet_libraries
from whisper_ft.optim import apply_update, build_optimizer, load_state_tensors, set_lr, state_tensors
from whisper_ft.order import ORDER_VERSION, default_lanes
from whisper_ft.published import mend_best, publish_best, publish_final
from whisper_ft.rng import reseed
from whisper_ft.rundir import RunDir
from whisper_ft.schedule import due, lr_factor, steps_of
from whisper_ft.scoring import score
from whisper_ft.sources import changed, open_mix
from whisper_ft.state import TrainState
from whisper_ft.stream import Share, Step, Totals, TrainStream, WindowReader
from whisper_ft.tracking import Pace, Tracker

MAX_SKIPPED_IN_A_ROW = 25  # non-finite gradients: by then this run is lost, and its last checkpoint is not


class Run:
    """Everything one process holds while it trains, built once."""

    def __init__(
        self,
        config: Config,
        accelerator: accelerate.Accelerator,
        agreement: Agreement,
        folder: RunDir,
        stop: StopRequest,
    ) -> None:
        self.config, self.agreement, self.folder, self.stop = config, agreement, folder, stop
        self.device: torch.device = accelerator.device
        self.is_main: bool = accelerator.is_main_process
        self.source = open_mix(config.data, folder.index)
        self.total_rows = sum(self.source.rows)
        self.steps = config.steps_over(self.total_rows)
        self.tracker = Tracker(config.run_dir, self.steps, enabled=self.is_main)

        with as_usage_error("eval.normalizer"):
            get_normalizer(config.eval.normalizer)  # an unknown name should not be found at the first evaluation
        model, self.processor = load_whisper(config.model.name, config.model.dropout)
        self.model = model.to(self.device)
        first_language, *others = config.data.languages
        self.encode = LabelEncoder.of(model, self.processor.tokenizer, first_language, config.data.task)
        if self.encode.is_multilingual and self.encode.language and set(others) <= {first_language}:
            # So that the exported model writes the language it was trained on without being told.
            model.generation_config.language = whisper_language(self.encode.language)
            model.generation_config.task = config.data.task
        self.normalize = get_normalizer(config.eval.normalizer, language=self.encode.language)
        self.parameters = parameters_by_name(model)
        self.optimizer = build_optimizer(self.parameters, config.optim)
        self.log_mel = LogMel(self.processor.feature_extractor)

        self.heldout = HeldOut.of_run(config, folder.index)
        self.lanes = config.data.lanes or default_lanes(config.batch.size)
        with as_usage_error("data.sources"):
            self.order = self.source.order(seed=config.seed, lanes=self.lanes, window=config.data.window_chunks)
        self.data = {"order": ORDER_VERSION, "lanes": self.lanes, **self.source.fingerprint()}
        self.share = Share(config.batch.size, config.batch.per_device, agreement.rank, agreement.world)
        self.judged_on = self.heldout.judged_on(config.eval.normalizer) if self.heldout else None
        self.resumed_steps: set[int] = set()  # of the checkpoint this process began at: never removed
        self.parent: str | None = None  # checkpoint that the next one comes after
        self.branch: dict[str, Any] | None = None  # the --resume other than auto that this run began with, its step
        self.state = TrainState()

    def lr(self, step: int) -> float:
        """Learning rate of update `step`: a function of the step, so there is nothing to restore."""
        schedule, steps = self.config.schedule, self.steps
        warmup, decay = steps_of(schedule.warmup, steps), steps_of(schedule.decay, steps)
        return self.config.optim.lr * lr_factor(step, steps, schedule.kind, warmup, decay)

    def stream(self, first_step: int) -> TrainStream[Batch]:
        """This rank's micro-batches from a step on."""
        data = self.config.data
        readers = max(data.workers, 1)
        reader = WindowReader(
            self.source,
            self.log_mel,
            self.encode,
            cached_chunks=self.share.lanes_read(self.lanes, readers) * (data.window_chunks + 1),
            cached_bytes=data.cache_gb * 1e9 / readers / int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        )
        collate = SpeechCollator(
            start_token=self.model.generation_config.decoder_start_token_id,
            pad_token=self.processor.tokenizer.pad_token_id,
            feature_shape=(self.log_mel.bins, self.log_mel.frames),
        )
        return TrainStream(
            reader,
            self.order,
            self.share,
            collate,
            first_step=first_step,
            end=self.config.end_of(self.total_rows),
            workers=data.workers,
            prefetch=data.prefetch,
        )


def train(run: Run, accelerator: accelerate.Accelerator) -> int:
    """The run: restore, loop, done. Returns the exit code."""
    config, agreement, tracker = run.config, run.agreement, run.tracker
    state = saved = agreement.together(lambda: restore(run))
    model = accelerator.prepare(run.model)  # DDP; not the optimizer, stream or schedule, which the loop owns
    model.train()
    pace, stopping = Pace(), agreement.totals(run.stop.signal is not None)[0] > 0

    with closing(run.stream(state.step)) as stream, tracker.live(state.step):
        while True:
            # Between two steps, where a resumed run begins. The branches hold collectives: all ranks take the same.
            last = state.step >= run.steps
            if evaluation_is_due(run, state) and not stopping:
                state = evaluate(run, state)
                stopping = state.evaluated_step < state.step  # cut short by a stop signal, to be done on resume
            # Nothing was learned since the streak of skipped updates began, and it may be what ends the run.
            regular = due(state.step, config.save.every) and not state.skipped_in_a_row
            if state != saved and (last or stopping or state.improved or regular):
                saved = save(run, state)
            if last or stopping:
                break

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
            state = run.state = state.after_step(applied=applied, **totals._asdict())
            pace.count(totals.utterances)
            tracker.stepped(state.step)
            stopping = agreement.totals(run.stop.signal is not None)[0] > 0
            if due(state.step, config.log.every, stopping or state.step >= run.steps):
                log(run, state, loss_here, totals.label_tokens, lr, grad_norm, pace)
            refuse_to_go_on(run, state)

    if stopping:
        tracker.say(f"stopped by a signal and saved at step {state.step}; run the same command to go on")
        return PREEMPTED
    agreement.from_main(lambda: publish_final(run.folder, state, run.model, run.processor))
    where = run.folder.best if state.best else run.folder.final
    tracker.say(f"finished at step {state.step}; the model to use is in {where}")
    return FINISHED


def restore(run: Run) -> TrainState:
    """Where the run goes on: at the checkpoint that rank 0 chose and verified, or at step 0. On every rank the same."""
    config, folder, agreement = run.config, run.folder, run.agreement

    def choose() -> Path | None:
        if config.resume == "never":
            if checkpoint.list_checkpoints(folder.checkpoints):
                raise UsageError(f"--resume never: {folder.path} holds a run already; choose another --run_dir")
            return None
        best_step = folder.published.step if folder.published else None
        return checkpoint.choose(folder.checkpoints, config.resume, best_step, run.tracker.say)

    chosen = agreement.from_main(choose)
    if chosen is None:
        run.tracker.say(f"starting at step 0 of {run.steps} in {folder.path}")
        if mixed := run.source.realised(run.lanes):
            run.tracker.say(mixed)
    else:
        run.state = resume_from(run, chosen)
    # Only now: a start that was refused must not change what the run's own files say.
    agreement.from_main(lambda: folder.describe(to_plain(config)))
    return run.state


def resume_from(run: Run, chosen: Path) -> TrainState:
    """Take back weights, moments and state of a checkpoint, if its run and this one are the same by the rules."""
    config, say = run.config, run.tracker.say
    trainer = checkpoint.read_trainer(chosen)
    allowed = refuse_changes(trainer["config"], config, chosen)
    if difference := changed(trainer["data"], run.data):
        raise UsageError(f"the data is not what {chosen} was trained on: {difference}")
    for name, then, now in allowed:
        say(f"{name}: was {then}, is {now}, as allowed")

    state = TrainState.from_json(trainer["state"])
    if state.step > run.steps:
        raise UsageError(f"{chosen} is at step {state.step} already: the run cannot be shortened to {run.steps} steps")
    state, told = run.agreement.from_main(lambda: mend_best(run.folder, state, chosen, run.model, run.processor))
    if told:
        say(told)
    if run.judged_on is None:
        run.judged_on = trainer["judged_on"]
    elif not comparable(trainer["judged_on"], run.judged_on):
        if state.best:
            say("the evaluation changed, so figures cannot be compared: best is judged anew; best/ stays until then")
        state = state.judged_anew()

    checkpoint.load_weights(chosen, run.model)
    load_state_tensors(run.optimizer, run.parameters, checkpoint.load_optimizer(chosen))
    run.parent, run.resumed_steps, run.branch = chosen.name, {state.step}, trainer["branch"]
    began = checkpoint.branch_name(config.resume)
    if config.resume != "auto" and not (run.branch and run.branch["resume"] == began):
        run.branch = {"resume": began, "step": state.step}
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
    step, failure = Step[Batch]([], [], 0, 0), None
    try:
        step = stream.draw()
    except Exception as error:  # noqa: BLE001 - told to all ranks below and raised there
        failure = error
    label_tokens = sum(count_labels(batch.labels) for batch in step.micro_batches)
    *counts, failures = run.agreement.totals(
        label_tokens, step.utterances, len(step.unusable), step.unusable_rows, failure is not None
    )
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


def refuse_to_go_on(run: Run, state: TrainState) -> None:
    """End a run that is only burning time: gradients that stay non-finite, or too much data that cannot be used.

    Rows are judged over the first epoch, in which each comes once: a few bad ones do not add up over the epochs.
    """
    if state.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
        raise NonFiniteError(f"{state.skipped_in_a_row} gradients in a row were not finite, up to step {state.step}")
    allowed = run.config.data.max_unusable_share
    seen = min(state.step * run.config.batch.size, run.total_rows)
    if state.unusable_rows >= 20 and state.unusable_rows > allowed * seen:
        raise DataError(
            f"{state.unusable_rows} of {seen} rows could not be used ({100 * state.unusable_rows / seen:.1f} %; "
            f"allowed are {100 * allowed:g} %, --data.max_unusable_share); quarantine.jsonl names them"
        )


def evaluation_is_due(run: Run, state: TrainState) -> bool:
    """True after every `eval.every` steps and at the end, unless this step was evaluated before the run was resumed."""
    due_now = due(state.step, run.config.eval.every, state.step >= run.steps)
    return run.heldout is not None and state.step > 0 and state.evaluated_step < state.step and due_now


def evaluate(run: Run, state: TrainState) -> TrainState:
    """Transcribe and score the held-out set on all ranks; the state knows whether this is the best so far.

    The state as it was when a stop signal came: an evaluation can be done again, and a machine that is taken away
    gives little time to save.
    """
    assert run.heldout is not None
    with run.tracker.counting("evaluating", -(-run.heldout.total // run.agreement.world)) as advance:

        def progress(done: int) -> None:
            advance(done)
            if run.stop.signal is not None:
                raise PreemptedError

        try:
            predictions = run.heldout.transcripts(
                run.model, run.processor.tokenizer, run.encode, run.log_mel, run.agreement, progress
            )
        except PreemptedError:
            run.tracker.say(f"the evaluation of step {state.step} was stopped; the resumed run begins with it")
            return state
    scores = score(predictions, run.normalize)
    state = state.after_evaluation(*scores.headline)
    run.tracker.evaluated(state, scores)
    return state


def save(run: Run, state: TrainState) -> TrainState:
    """Commit a checkpoint, publish the best model, remove what is old; rank 0 writes and all learn how it went."""
    config, folder = run.config, run.folder

    def write() -> Path:
        trainer = {
            "state": state.to_json(),
            "config": to_plain(config),
            "data": run.data,
            "judged_on": run.judged_on,
            "branch": run.branch,
            "lr": run.lr(state.step),
            "world": run.agreement.world,
            "versions": {module.__name__: module.__version__ for module in (torch, transformers, accelerate)},
        }
        tensors = state_tensors(run.optimizer, run.parameters)
        path = checkpoint.save(folder.checkpoints, state.step, run.parent, run.model, tensors, trainer)
        if state.improved and state.best:
            publish_best(folder, state.best, run.model, run.processor)
        began_at = {run.branch["step"]} if run.branch else set()
        checkpoint.retain(folder.checkpoints, config.save.keep, {*began_at, *run.resumed_steps})
        folder.status("running", state.step)
        return path

    path = run.agreement.from_main(write)
    run.parent = path.name
    run.tracker.say(f"saved {path}")
    return state


def main() -> NoReturn:
    """Train, and turn whatever ends the run into one line, a status.json and an exit code."""
    end_with_parent()
    quiet_libraries()
    agreement, folder, run = None, None, None
    try:
        config = load(Config)
        refuse_impossible(config)
        accelerator = start_processes(config.device)
        agreement, folder, stop = Agreement(), RunDir(config.run_dir), StopRequest()
        stop.listen()
        agreement.from_main(folder.open)
        run = agreement.together(partial(Run, config, accelerator, agreement, folder, stop))
        with lost_ranks_are_named():
            code, reason = train(run, accelerator), ""
        failure = None
    except Exception as error:  # noqa: BLE001 - what is no RunError is a bug of ours: all of it is shown
        failure = error
        code = error.exit_code if isinstance(error, RunError) else 1
        reason = str(error) if isinstance(error, RunError) else f"{type(error).__name__}: {error}"
    if folder is not None:
        ended = {FINISHED: "finished", PREEMPTED: "preempted"}.get(code, "failed")
        folder.status(ended, run.state.step if run and run.state.step else None, reason, code)
    if failure is not None:
        tell(failure, agreement)
    leave(code)


if __name__ == "__main__":
    main()
