"""Fine-tune Whisper. This file is one training run, to be read from top to bottom.

    ./launch.sh --config configs/demo.yaml                            # accelerate launch ... train.py --config ...
    ./launch.sh --config configs/whisper-small.yaml --optim.lr 5e-6   # any setting: --section.field VALUE
    python train.py --help                                            # all settings with their meaning

Run the same command again after any interruption: it continues from the newest complete checkpoint. The result is equal
to that of an uninterrupted run, to the last bit, on the same machine with the same versions and number of processes.
"""

from whisper_ft.config.parse import early_answer
from whisper_ft.config.training import TrainingConfig

if __name__ == "__main__":
    early_answer(TrainingConfig)  # above the imports of torch and transformers, which take seconds

import gc
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from functools import partial
from typing import NamedTuple, NoReturn

import accelerate
import torch

from collator import SpeechCollator
from normalizers import get_normalizer
from whisper_ft.checkpoint.state import TrainState
from whisper_ft.config.parse import given_settings, load_config
from whisper_ft.config.unevaluated import lines_about_no_evaluation
from whisper_ft.data.labels.previous_text import refuse_without_previous
from whisper_ft.data.labels.rewrite import LabelNormalizer
from whisper_ft.data.loader import StepBatches, TrainStream
from whisper_ft.data.types import Batch
from whisper_ft.data.used_settings import languages_found
from whisper_ft.data.workers import start_worker_server
from whisper_ft.models.whisper import AUTOCAST, quiet_libraries
from whisper_ft.optim.loss import TokenLoss
from whisper_ft.optim.optimizer import set_lr
from whisper_ft.optim.schedule import due, learning_rate
from whisper_ft.runtime.collectives import Collectives, name_lost_ranks
from whisper_ft.runtime.device_memory import memory_errors
from whisper_ft.runtime.errors import as_usage_error
from whisper_ft.runtime.exit import exit_process
from whisper_ft.runtime.exit_codes import FINISHED, PREEMPTED
from whisper_ft.runtime.malloc import keep_freed_memory
from whisper_ft.runtime.parent import end_with_parent
from whisper_ft.runtime.processes import start_processes
from whisper_ft.runtime.rng import reseed
from whisper_ft.runtime.signals import StopRequest
from whisper_ft.tracking.performance import Throughput
from whisper_ft.tracking.tracker import Tracker
from whisper_ft.training.agreement import Agreement, Losses, agree
from whisper_ft.training.anchor import Anchor
from whisper_ft.training.anchor_data import open_anchor_data
from whisper_ft.training.averaging import publish_mean, steps_to_average
from whisper_ft.training.best_within_guards import with_best_within_guards
from whisper_ft.training.data import TrainingData, open_stream, open_training_data
from whisper_ft.training.directory import RunDir
from whisper_ft.training.evaluated_set import open_eval_sets, open_held_out_set
from whisper_ft.training.evaluation import Evaluation, refuse_unknown_names
from whisper_ft.training.learner import Learner, build_learner
from whisper_ft.training.memory.batch_trial import settle_per_device
from whisper_ft.training.memory.memory_lines import card_lines
from whisper_ft.training.merged_publication import publish_merged
from whisper_ft.training.mixture_scores import publish_interpolated
from whisper_ft.training.next_commands import next_commands
from whisper_ft.training.preflight import refuse_impossible
from whisper_ft.training.published_models import publish_final
from whisper_ft.training.resume import begin_or_resume
from whisper_ft.training.run_end import RunEnd
from whisper_ft.training.saver import Saver
from whisper_ft.training.start import rate_lines, start_of
from whisper_ft.training.step_log import Update, log_step, refuse_to_continue, refuse_untrained
from whisper_ft.training.suppress_choice import settle_suppression


class Parts(NamedTuple):
    """Objects that make up a training run.

    Only this file passes all of them together; every other function takes only the ones that it needs.
    """

    config: TrainingConfig
    accelerator: accelerate.Accelerator
    collectives: Collectives
    directory: RunDir
    stop: StopRequest
    tracker: Tracker
    data: TrainingData
    learner: Learner
    evaluation: Evaluation


@memory_errors("in training")
def train(parts: Parts) -> RunEnd:
    """Run the training on every rank: resume, train step by step, publish the model. It ends finished or preempted."""
    config, accelerator, collectives, directory, stop, tracker, data, learner, evaluation = parts
    state, lineage = collectives.run_on_all(
        lambda: begin_or_resume(config, collectives, directory, tracker, data, learner, evaluation)
    )
    saver = Saver(config, data, learner, collectives, directory, tracker, lineage)
    collate, throughput = learner.collator(SpeechCollator), Throughput()
    model = with_loss(config, accelerator, learner)
    gc.freeze()  # a full collection would scan all objects made so far, for 0.2 s in which other ranks wait
    update: Update | None = None
    stream = open_stream(data, config, learner.encode, learner.log_mel, collate, state.step, tracker.say)
    with closing(stream), tracker.live(state.step):
        saved = state = evaluation.run_at_start(state)
        while True:
            # A resumed run begins here. All ranks must take the same branches below, because these contain collectives.
            over = evaluation.is_over(state, data.steps)
            with throughput.waiting():
                drawn, failure = draw(stream, over, directory)
            # The one all-reduce between steps. A stop signal is therefore noticed after the draw of the next step.
            agreed = agree(
                collectives,
                drawn,
                update.losses if update else Losses(),
                failed=failure is not None,
                stopping=stop.signal is not None,
                save_done=saver.is_done,
            )
            stopping = agreed.stopping
            saver.finish(done=agreed.save_done)
            if update is not None:
                if due(state.step, config.log.every, stopping or state.step >= data.steps):
                    log_step(tracker, state, update, agreed, learner, throughput, is_packed=config.pack.enabled)
                refuse_to_continue(state, config, data, learner)
            refuse_untrained(state, config, data)
            if evaluation.is_due(state, data.steps) and not stopping:
                state = with_best_within_guards(evaluation.run(state, data.steps), evaluation, directory, tracker)
                stopping = evaluation.is_due(state, data.steps)  # a stop signal ended the evaluation; it is repeated
                over = evaluation.is_over(state, data.steps)
            # While updates are skipped, no regular checkpoint is due: nothing is learned, and the run may soon end.
            regular = due(state.step, config.save.every) and not state.skipped_in_a_row
            if state != saved and (over or stopping or regular or saver.is_wanted(state)):
                saved = saver.save(state)
            if over or stopping:
                saver.finish(wait=True)
                return finish(parts, state, stopping=stopping)
            if agreed.failed:
                collectives.raise_on_all(failure)
            if agreed.rejected:
                tracker.quarantine([row for rows in collectives.gather(drawn.rejected) for row in rows])
            with throughput.training():
                empty = agreed.micro_batches - len(drawn.micro_batches)  # more only if another rank has more
                micro_batches = drawn.micro_batches + [collate([]) for _ in range(empty)]
                update = update_weights(model, parts, state.step, micro_batches, drawn.anchor, agreed)
            del drawn, micro_batches  # free their memory before the next step is drawn
            state = state.after_step(agreed.counts, applied=update.applied)
            directory.step = state.step
            throughput.count(agreed.counts.utterances)
            tracker.move_bar(state.step)


@name_lost_ranks()
def with_loss(
    config: TrainingConfig, accelerator: accelerate.Accelerator, learner: Learner
) -> Callable[..., torch.Tensor]:
    """Join model and loss in one module in training mode, which returns the summed loss of a micro-batch.

    The module is under DDP for several processes, and compiled if `model.compile` is set. accelerate prepares nothing
    else, because the training loop itself handles optimizer, data stream and learning rate.
    """
    own, layerdrop = learner.model.config, config.model.layerdrop
    if layerdrop is None:
        layerdrop = max(own.encoder_layerdrop, own.decoder_layerdrop)
    accelerator.ddp_handler = accelerate.DistributedDataParallelKwargs(find_unused_parameters=layerdrop > 0)
    text_end = learner.encode.end if config.labels.timestamps_share else None
    model = accelerator.prepare(TokenLoss(learner.model, config.loss.label_smoothing, text_end))
    model.train()
    return torch.compile(model) if config.model.compile else model


def draw(stream: TrainStream, over: bool, directory: RunDir) -> tuple[StepBatches, Exception | None]:
    """Draw this rank's data of the next step. Returns the data, and the error if drawing failed, else None.

    The error is returned and not raised, because all ranks must agree on it before one of them raises it. After an
    error the data is empty. Once the run is over, nothing is drawn. The loss of the run directory is an error, too.
    """
    try:
        drawn = StepBatches() if over else stream.draw()
    except Exception as error:  # noqa: BLE001 - raised on every rank after they agreed
        return StepBatches(), error
    return drawn, directory.loss


def update_weights(
    model: Callable[..., torch.Tensor],
    parts: Parts,
    step: int,
    micro_batches: Sequence[Batch],
    of_anchor: Sequence[Batch],
    agreed: Agreement,
) -> Update:
    """Make one optimizer update. The loss is the mean cross-entropy over all label tokens in the global batch.

    An anchor adds the mean divergence over its label tokens, and a pull after the update. If the gradient is not
    finite, the weights stay as they are, and `applied` of the result is False.

    Parameters
        step: number of updates done before; it determines learning rate and random numbers.
        micro_batches: data of this rank; every rank must have equally many, some of them perhaps empty.
        of_anchor: audio of the anchor, equally many, too.
    """
    config, accelerator, learner, counts = parts.config, parts.accelerator, parts.learner, agreed.counts
    lr = learning_rate(step, parts.data.steps, config.optim, config.schedule)
    set_lr(learner.optimizer, lr)
    loss_scale = learner.scaler.get_scale()
    sums, text_tokens = torch.zeros(3, device=learner.device), 0
    # DDP averages gradients over ranks, so the number of ranks turns its average into the sum.
    factor = accelerator.num_processes / max(counts.label_tokens, 1)
    anchor_factor = config.anchor.kl * accelerator.num_processes / max(agreed.anchor_tokens, 1)
    for number, batch in enumerate([*micro_batches, *of_anchor]):
        reseed(config.seed, step, number, accelerator.process_index)
        is_last = number == len(micro_batches) + len(of_anchor) - 1
        is_anchor = number >= len(micro_batches)
        # The ranks synchronise in the last backward pass, and from the second step on in the forward pass too.
        with nullcontext() if is_last else accelerator.no_sync(model), name_lost_ranks():
            batch_on_device = batch.to(learner.device)
            if is_anchor:
                losses = divergence_sum(model, batch_on_device, config, learner.anchor).reshape(-1)
            else:
                losses = cross_entropy_sum(model, batch_on_device, config).reshape(-1)
            torch.autograd.backward(learner.scaler.scale(losses[0] * (anchor_factor if is_anchor else factor)))
        sums[2 * is_anchor : 2 * is_anchor + len(losses)] += losses.detach()
        text_tokens += batch.text_tokens(learner.encode.end) if len(losses) > 1 else 0
        del losses, batch_on_device  # frees their graph; the next forward pass needs its memory
    grad_norm, applied = learner.apply_gradients(config.optim.clip_norm)
    loss, text_loss, divergence = sums.tolist()
    own = Losses(loss, text_loss, text_tokens, divergence)
    return Update(lr, counts, own, grad_norm, loss_scale, agreed.anchor_tokens, applied)


def cross_entropy_sum(model: Callable[..., torch.Tensor], batch: Batch, config: TrainingConfig) -> torch.Tensor:
    """Return the cross-entropy of a micro-batch, summed over its label tokens, and perhaps over those of text.

    `TokenLoss` describes the values. The batch must be on the model's device.
    """
    with torch.autocast(batch.labels.device.type, AUTOCAST[config.precision], enabled=config.precision != "fp32"):
        return model(batch.input_features, batch.decoder_input_ids, batch.labels, batch.predicted)


def divergence_sum(
    model: Callable[..., torch.Tensor], batch: Batch, config: TrainingConfig, anchor: Anchor | None
) -> torch.Tensor:  # []
    """Return KL(start model || model) on a micro-batch of the anchor, summed over its label tokens."""
    assert anchor is not None
    with torch.autocast(batch.labels.device.type, AUTOCAST[config.precision], enabled=config.precision != "fp32"):
        start = anchor.output(batch)
        return model(batch.input_features, batch.decoder_input_ids, batch.labels, batch.predicted, start)


def finish(parts: Parts, state: TrainState, *, stopping: bool) -> RunEnd:
    """Report the end of the run and publish its model. It is finished, or preempted if `stopping`.

    The mean of several checkpoints is published too, if the settings ask for it. After a stop signal nothing is
    published. Every rank must call it.
    """
    config, tracker, directory, learner = parts.config, parts.tracker, parts.directory, parts.learner
    if message := tracker.unusable_by_reason():
        tracker.say(message, always=True)
    parts.collectives.broadcast_from_main(directory.require_own)
    if stopping:
        saved_at = f"and saved at step {state.step}" if state.step else "before the first step"
        tracker.say(f"stopped by a signal {saved_at}; run the same command to continue", always=True)
        return RunEnd(PREEMPTED)
    parts.collectives.broadcast_from_main(
        lambda: publish_final(directory, state, learner.model, learner.model_files(), learner.adapter)
    )
    if learner.adapter:
        merge = partial(publish_merged, directory, state, config.precision, tracker.say)
        parts.collectives.broadcast_from_main(merge)
    if reason := parts.evaluation.end_reason(state, parts.data.steps):
        tracker.say(f"ended: {reason}", always=True)
    if config.average.of != "none":
        steps = steps_to_average(state, config, parts.data.steps)
        publish_mean(steps, parts.collectives, directory, tracker, learner, parts.evaluation)
    chosen = directory.best if state.best else directory.final
    if config.average.alphas:
        publish_interpolated(config, directory, parts.evaluation, chosen)
    parts.collectives.broadcast_from_main(directory.require_own)
    if state.best:
        tracker.say(f"best {state.best.metric}: {state.best.value:.4f}, at step {state.best.step}")
    elif state.excluded:
        tracker.say(
            "warning: no evaluation was within the guards of eval.sets, so there is no best model: evaluate.py and "
            f"other commands take {chosen}; docs/forgetting.md has remedies"
        )
    tracker.say(f"finished at step {state.step}; the model to use is in {chosen}", always=True)
    tracker.say_all(next_commands(str(config.run_dir)))
    return RunEnd(FINISHED, reason)


@memory_errors("while the model was loaded")
def build(
    config: TrainingConfig,
    given: Mapping[str, str],
    accelerator: accelerate.Accelerator,
    collectives: Collectives,
    directory: RunDir,
    stop: StopRequest,
) -> Parts:
    """Build everything that a run needs. It is equal on every rank, except for the rank's own share of the data.

    `given` is what `given_settings` returns. The configuration in the result may differ from
    `config`, because a resumed run keeps recorded values. Every rank must call it.
    """
    if config.data.workers:
        start_worker_server(TrainStream.__module__)  # imports its libraries while the model is loaded
    start = collectives.broadcast_from_main(lambda: start_of(config, given, directory, accelerator.device))
    config, rank = start.config, collectives.rank
    data = open_training_data(config, start.data, directory.index, rank, collectives.world)
    data = replace(data, content=collectives.broadcast_from_main(data.source.content))
    tracker = Tracker.of_run(config, data.steps, enabled=rank == 0, is_own=lambda: directory.is_own)
    tracker.say_all(rate_lines(start, data.steps))
    tracker.say_all(lines_about_no_evaluation(config, given))
    refuse_unknown_names(config, get_normalizer)
    with as_usage_error("data.normalizer"):
        normalizer = LabelNormalizer.named(config.data.normalizer, get_normalizer)
    found = collectives.broadcast_from_main(lambda: languages_found(data.source.parts))
    collectives.broadcast_from_main(lambda: refuse_without_previous(config.labels, data.source.parts))
    learner = build_learner(config, accelerator.device, normalizer, tracker.say, found, is_new=start.is_new)
    config = settle_suppression(config, data.source, learner, collectives, tracker.say, is_new=start.is_new)
    config = settle_per_device(config, learner, collectives, tracker.say)
    data = data.divided(config, rank, collectives.world)
    tracker.say_all(card_lines(config, learner.model.config.to_dict(), accelerator.device, collectives.world))
    held_out = open_held_out_set(config, start.held_out, directory.index, learner, get_normalizer)
    sets = open_eval_sets(config, start.sets, directory.index, learner, collectives, get_normalizer)
    start_weights = learner.anchor.sha256 if learner.anchor else None
    scored = [*([held_out] if held_out else []), *sets]
    anchor = open_anchor_data(config, start.anchor, directory.index, learner, scored, collectives, tracker.say_all)
    data = replace(data, anchor=anchor, start_weights=start_weights)
    evaluation = Evaluation(held_out, sets, config.eval, learner, collectives, tracker, stop)
    return Parts(config, accelerator, collectives, directory, stop, tracker, data, learner, evaluation)


def main() -> NoReturn:
    """Train, and report every end of the run: as one line, in status.json and by the exit code."""
    end_with_parent()
    quiet_libraries()
    keep_freed_memory()
    config, collectives, directory, parts = None, None, None, None
    try:
        config, given = load_config(TrainingConfig), given_settings(TrainingConfig)
        refuse_impossible(config, given)
        accelerator = start_processes(config.device, config.rank_timeout)
        collectives, directory, stop = Collectives(config.rank_timeout), RunDir(config.run_dir), StopRequest()
        stop.listen()
        collectives.broadcast_from_main(partial(directory.open, config.overwrite))
        directory.remember()
        parts = collectives.run_on_all(partial(build, config, given, accelerator, collectives, directory, stop))
        end = train(parts)
    except Exception as error:  # noqa: BLE001 - anything but a RunError is a bug of this program, and shown in full
        end = RunEnd.of_error(error, parts.config if parts else config, directory, collectives)
    end.report(directory, collectives)
    if parts is not None:
        parts.tracker.close(end.code)
    exit_process(end.code, partial(end.report_for_main, directory, collectives))


if __name__ == "__main__":
    main()
