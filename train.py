"""Fine-tune Whisper: one run, read from top to bottom.

    ./launch.sh --config configs/demo.yaml                            # accelerate launch ... train.py --config ...
    ./launch.sh --config configs/whisper-small.yaml --optim.lr 5e-6   # any setting: --section.field VALUE
    python train.py --help                                            # all settings with their meaning

Run the same command again after any interruption: it goes on from the newest whole checkpoint as if nothing had
happened, to the last bit (same machine, versions and number of processes).
"""

from whisper_ft.config.parse import early_answer
from whisper_ft.config.training import TrainingConfig

if __name__ == "__main__":
    early_answer(TrainingConfig)  # above the imports of torch and transformers, which take seconds

import gc
import math
from contextlib import closing, nullcontext
from functools import partial
from typing import Any, NoReturn

import torch
from accelerate import DistributedDataParallelKwargs

from collator import Batch, SpeechCollator
from normalizers import get_normalizer
from whisper_ft import checkpoint
from whisper_ft.checkpoint.state import TrainState
from whisper_ft.config.parse import load_config
from whisper_ft.data.loader import StepBatches, StepTotals, TrainStream
from whisper_ft.models.whisper import AUTOCAST, quiet_libraries
from whisper_ft.optim.loss import TokenLoss, count_labels
from whisper_ft.optim.optimizer import apply_update, complete_gradients, set_lr
from whisper_ft.optim.schedule import due
from whisper_ft.runtime.collectives import Collectives, name_lost_ranks
from whisper_ft.runtime.errors import (
    FINISHED,
    PREEMPTED,
    DataError,
    LostRankError,
    NonFiniteError,
    PreemptedError,
    RunError,
)
from whisper_ft.runtime.exit import exit_process, report_error
from whisper_ft.runtime.malloc import keep_freed_memory
from whisper_ft.runtime.parent import end_with_parent
from whisper_ft.runtime.processes import start_processes
from whisper_ft.runtime.rng import reseed
from whisper_ft.runtime.signals import StopRequest
from whisper_ft.scoring.scores import Prediction, Scores, score
from whisper_ft.tracking.performance import Throughput, memory_gb
from whisper_ft.training.artifacts import publish_average, publish_final
from whisper_ft.training.averaging import load_average, steps_to_average
from whisper_ft.training.directory import RunDir
from whisper_ft.training.preflight import refuse_impossible
from whisper_ft.training.resume import restore
from whisper_ft.training.run import Run
from whisper_ft.training.saver import finish_save, save

MAX_SKIPPED_IN_A_ROW = 25  # non-finite gradients: by then this run is lost, and its last checkpoint is not


def train(run: Run) -> int:
    """The run: restore, loop, done. Returns the exit code."""
    config, agreement, tracker = run.config, run.agreement, run.tracker
    state = saved = agreement.run_on_all(lambda: restore(run))
    with name_lost_ranks():
        model = distributed(run)
    gc.freeze()  # what is here stays: looking through it in every full collection takes 0.2 s, while other ranks wait
    pace, stopping = Throughput(), agreement.all_reduce_sum(run.stop.signal is not None)[0] > 0

    with closing(run.stream(state.step)) as stream, tracker.live(state.step):
        while True:
            # Between two steps, where a resumed run begins. The branches hold collectives: all ranks take the same.
            if evaluation_is_due(run, state) and not stopping:
                state = evaluate(run, state)
                stopping = state.evaluated_step < state.step  # cut short by a stop signal, to be done on resume
            over = run.is_over(state)
            # Nothing was learned since the streak of skipped updates began, and it may be what ends the run.
            regular = due(state.step, config.save.every) and not state.skipped_in_a_row
            if state != saved and (over or stopping or regular or run.wants(state)):
                saved = save(run, state)
            finish_save(run, wait=over or stopping)
            if over or stopping:
                break

            with pace.training():
                # One step: this rank's micro-batches, weighed by the label tokens of every rank.
                with pace.waiting():
                    step, totals = draw_together(run, stream)
                lr, loss_scale = run.lr(state.step), run.scaler.get_scale()
                set_lr(run.optimizer, lr)
                loss_here = torch.zeros((), device=run.device)
                for i, batch in enumerate(step.micro_batches):
                    reseed(config.seed, state.step, i, agreement.rank)
                    syncing = nullcontext() if i == run.share.accumulate - 1 else run.accelerator.no_sync(model)
                    with syncing, name_lost_ranks():  # they meet at the end, and in the forward of the second step
                        loss = loss_sum(model, batch.to(run.device), config)
                        # DDP averages gradients over ranks; times `world`, that average is the sum.
                        mean = loss * (agreement.world / max(totals.label_tokens, 1))
                        torch.autograd.backward(run.scaler.scale(mean))
                    loss_here += loss.detach()
                    del loss, mean  # and their graph: its pieces would lie in the way of what the next forward needs
                complete_gradients(run.parameters)
                run.scaler.unscale_(run.optimizer)
                max_norm = config.optim.clip_norm or float("inf")
                grad_norm = torch.nn.utils.clip_grad_norm_(run.parameters.values(), max_norm)
                applied = apply_update(run.optimizer, grad_norm)  # False: not finite, weights untouched
                run.scaler.update()
                del step, batch  # before the next are drawn
            state = run.state = state.after_step(applied=applied, **totals._asdict())
            pace.count(totals.utterances)
            tracker.move_bar(state.step)
            stopping = agreement.all_reduce_sum(run.stop.signal is not None)[0] > 0
            if due(state.step, config.log.every, stopping or state.step >= run.steps):
                log(run, state, loss_here, totals.label_tokens, lr, grad_norm, loss_scale, pace)
            refuse_to_go_on(run, state)

    if unusable := tracker.unusable_by_reason():
        tracker.say(unusable, always=True)
    if stopping:
        where = f"and saved at step {state.step}" if state.step else "before the first step"
        tracker.say(f"stopped by a signal {where}; run the same command to go on", always=True)
        return PREEMPTED
    finish(run, state)
    return FINISHED


def distributed(run: Run) -> Any:
    """The model with its loss, as called in training: DDP around it where there are several processes, or compiled.

    Not the optimizer, stream or schedule, which the loop owns.
    """
    own, asked = run.model.config, run.config.model.layerdrop
    layerdrop = max(own.encoder_layerdrop, own.decoder_layerdrop) if asked is None else asked
    run.accelerator.ddp_handler = DistributedDataParallelKwargs(find_unused_parameters=layerdrop > 0)
    model = run.accelerator.prepare(TokenLoss(run.model, run.config.loss.label_smoothing))
    model.train()
    return torch.compile(model) if run.config.model.compile else model


def loss_sum(model: Any, batch: Batch, config: TrainingConfig) -> torch.Tensor:
    """Cross-entropy of a micro-batch, summed over its label tokens."""
    with torch.autocast(batch.labels.device.type, AUTOCAST[config.precision], enabled=config.precision != "fp32"):
        loss: torch.Tensor = model(batch.input_features, batch.decoder_input_ids, batch.labels, batch.predicted)
    return loss


def draw_together(run: Run, stream: TrainStream[Batch]) -> tuple[StepBatches[Batch], StepTotals]:
    """This rank's part of the next step and the totals of all; a rank that fails to read stops all with its message."""
    step, failure = StepBatches[Batch]([], [], 0, 0), None
    try:
        step = stream.draw()
    except Exception as error:  # noqa: BLE001 - told to all ranks below and raised there
        failure = error
    label_tokens = sum(count_labels(batch.labels) for batch in step.micro_batches)
    mine = StepTotals(label_tokens, step.utterances, len(step.unusable), step.unusable_rows, step.audio_samples)
    *counts, failures = run.agreement.all_reduce_sum(*mine, failure is not None)
    if failures:
        run.agreement.raise_on_all(failure)
    totals = StepTotals(*(int(count) for count in counts))
    if totals.unusable:
        run.tracker.quarantine([row for part in run.agreement.gather(step.unusable) for row in part])
    return step, totals


def log(
    run: Run,
    state: TrainState,
    loss: torch.Tensor,
    label_tokens: int,
    lr: float,
    norm: torch.Tensor,
    loss_scale: float,
    pace: Throughput,
) -> None:
    """A line about the step just done: sums over ranks, divided once."""
    loss_of_all = run.agreement.all_reduce_sum(float(loss))[0] / max(label_tokens, 1)
    row: dict[str, float | None] = {
        "step": state.step,
        "loss": finite_or_none(loss_of_all),
        "lr": lr,
        "grad_norm": finite_or_none(float(norm)),
        "loss_scale": loss_scale,
    }
    row |= {"label_tokens": label_tokens, "skipped": state.skipped, "unusable": state.unusable, **pace.read()}
    hours = state.audio_samples and round(state.audio_samples / run.log_mel.sample_rate / 3600, 6)
    row |= {"audio_hours": hours, "memory_gb": round(memory_gb(run.device), 3)}
    run.tracker.log_step(row)


def finite_or_none(value: float) -> float | None:
    """JSON has no NaN: a figure that is not finite is written as null and shown as such."""
    return value if math.isfinite(value) else None


def refuse_to_go_on(run: Run, state: TrainState) -> None:
    """End a run that is only burning time: gradients that stay non-finite, or too much data that cannot be used.

    Rows are judged over the first epoch, in which each comes once: a few bad ones do not add up over the epochs.
    """
    scale, floor = run.scaler.get_scale(), run.config.scaler.floor
    if state.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW or (run.scaler.is_enabled() and scale < floor):
        told = f"{state.skipped_in_a_row} gradients in a row were not finite, up to step {state.step}"
        if run.scaler.is_enabled() and scale < floor:
            told += f", and the loss scale fell to {scale:g} (scaler.floor is {floor:g})"
        raise NonFiniteError(f"{told}; the last batch: {', '.join(run.ids(state.step - 1))}")
    allowed = run.config.data.max_unusable_share
    seen = min(state.step * run.config.batch.size, run.rows)
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
    try:
        scores = scores_of_all(run)
    except PreemptedError:
        run.tracker.say(f"the evaluation of step {state.step} was stopped; the resumed run begins with it")
        return state
    settings = run.config.eval
    state = state.after_evaluation(
        *scores.figure(settings.metric), greater_is_better=settings.greater_is_better, min_delta=settings.min_delta
    )
    run.tracker.log_evaluation(state, scores)
    return state


def scores_of_all(run: Run) -> Scores:
    """What the model as it is scores on the held-out set; the same on every rank. PreemptedError at a stop signal."""
    assert run.heldout is not None
    with run.tracker.progress_bar("evaluating", -(-run.heldout.total // run.agreement.world)) as advance:

        def progress(_: Prediction) -> None:
            advance(1)
            if run.stop.signal is not None:
                raise PreemptedError("stopped by a signal while the model was scored; run the same command to go on")

        predictions = run.heldout.transcripts(
            run.model, run.processor.tokenizer, run.encode, run.log_mel, run.agreement, progress
        )
    return score(predictions, run.normalize)


def finish(run: Run, state: TrainState) -> None:
    """Publish the model after the last update, and the average of several where that is asked for."""
    agreement, folder, say = run.agreement, run.folder, run.tracker.say
    agreement.broadcast_from_main(lambda: publish_final(folder, state, run.model, run.processor))
    if state.step < run.steps:
        say(f"ended after {run.config.eval.patience} evaluations without a better one (eval.patience)")
    if steps := steps_to_average(state, run.config, run.steps):
        average(run, steps)
    chosen = folder.best if state.best else folder.final
    say(f"finished at step {state.step}; the model to use is in {chosen}", always=True)


def average(run: Run, steps: list[int]) -> None:
    """Publish the mean of the weights of several checkpoints, with what it scores. The model is it from here on."""
    paths = [checkpoint.path_of(run.folder.checkpoints, step) for step in steps]
    damaged = run.agreement.broadcast_from_main(
        lambda: [f"{path.name} ({why})" for path in paths if (why := checkpoint.verify(path))]
    )
    if damaged:
        told = f"no average was made, for these checkpoints are needed: {', '.join(damaged)}"
        run.tracker.say(told, always=True)
        return
    run.agreement.run_on_all(lambda: load_average(paths, run.model))
    told = "It was not evaluated."
    if run.heldout is not None:
        name, value = scores_of_all(run).figure(run.config.eval.metric)
        told = f"{name} on the held-out set: {value}"
    run.agreement.broadcast_from_main(lambda: publish_average(run.folder, steps, run.model, run.processor, told))
    run.tracker.say(f"the mean of steps {', '.join(map(str, steps))} is in {run.folder.average}; {told}")


def main() -> NoReturn:
    """Train, and turn whatever ends the run into one line, a status.json and an exit code."""
    end_with_parent()
    quiet_libraries()
    keep_freed_memory()
    agreement, folder, run = None, None, None
    try:
        config = load_config(TrainingConfig)
        refuse_impossible(config)
        accelerator = start_processes(config.device, config.rank_timeout)
        agreement, folder, stop = Collectives(config.rank_timeout), RunDir(config.run_dir), StopRequest()
        stop.listen()
        agreement.broadcast_from_main(partial(folder.open, config.overwrite))
        build = partial(Run, config, accelerator, agreement, folder, stop, SpeechCollator, get_normalizer)
        run = agreement.run_on_all(build)
        code, reason = train(run), ""
        failure = None
    except Exception as error:  # noqa: BLE001 - what is no RunError is a bug of ours: all of it is shown
        failure = error
        code = error.exit_code if isinstance(error, RunError) else 1
        reason = str(error) if isinstance(error, RunError) else f"{type(error).__name__}: {error}"
        if folder is not None and agreement is not None:
            reason = folder.last_words(agreement.rank, reason, lost=isinstance(error, LostRankError))
            failure = LostRankError(reason) if isinstance(error, LostRankError) else error
    if folder is not None:
        ended = {FINISHED: "finished", PREEMPTED: "preempted"}.get(code, "failed")
        folder.status(ended, run.state.step if run and run.state.step else None, reason, code)
    if failure is not None:
        report_error(failure, agreement)
    if run is not None:
        run.tracker.close(code)
    exit_process(code)


if __name__ == "__main__":
    main()
