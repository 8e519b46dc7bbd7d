"""Log row of a step, and the limits beyond which a run ends early."""

import math
from typing import NamedTuple

from whisper_ft.checkpoint.state import Counts, TrainState
from whisper_ft.config.training import TrainingConfig
from whisper_ft.runtime.errors import DataError, NonFiniteError
from whisper_ft.runtime.printable import counted
from whisper_ft.tracking.performance import Throughput, memory_gb
from whisper_ft.tracking.tracker import Tracker
from whisper_ft.training.agreement import Agreement, Losses
from whisper_ft.training.anchor import Divergence
from whisper_ft.training.data import TrainingData
from whisper_ft.training.learner import Learner

MAX_SKIPPED_IN_A_ROW = 25  # updates with a non-finite gradient; after so many in a row the run has diverged
MAX_UNTRAINED_IN_A_ROW = 20  # steps without an utterance; after so many in a row the run learns nothing
MIN_REJECTED_ROWS = 20  # rows; fewer never end a run, because a small set may have a few bad ones


class Update(NamedTuple):
    """Figures of one optimizer update."""

    lr: float
    counts: Counts  # of the global batch
    losses: Losses  # of this rank
    grad_norm: float  # before clipping
    loss_scale: float
    anchor_tokens: int  # label tokens of the anchor, of all ranks
    applied: bool  # False if the gradient was not finite, so the weights were left as they are


def log_step(
    tracker: Tracker,
    state: TrainState,
    update: Update,
    agreed: Agreement,
    learner: Learner,
    throughput: Throughput,
    *,
    is_packed: bool,
) -> None:
    """Log the step just done. Its loss is the sum over all ranks, divided by the number of label tokens.

    A row of labels with timestamps also has `text_loss`, the mean over the tokens of text. A run with an anchor adds
    the figures of `Anchor.figures`. A row of a packed run has the `windows` of the step, and `fill`, the share of their
    length with utterances, gaps or noise.
    """
    counts, of_step, losses = state.counts, update.counts, agreed.losses
    row: dict[str, float | None] = {
        "step": state.step,
        "loss": _finite_or_none(losses.loss / max(of_step.label_tokens, 1)),
        "lr": update.lr,
        "grad_norm": _finite_or_none(update.grad_norm),
        "loss_scale": update.loss_scale,
    }
    if losses.text_tokens:
        row["text_loss"] = _finite_or_none(losses.text_loss / losses.text_tokens)
    if learner.anchor is not None:
        figures = learner.anchor.figures(Divergence(losses.divergence, update.anchor_tokens))
        row |= {name: _finite_or_none(value) for name, value in figures.items()}
    row |= {"label_tokens": of_step.label_tokens, "skipped": state.skipped, "unusable": counts.unusable}
    hours = counts.audio_samples and round(counts.audio_samples / learner.log_mel.sample_rate / 3600, 6)
    row |= {**throughput.read(), "audio_hours": hours, "memory_gb": round(memory_gb(learner.device), 3)}
    if is_packed:
        room = (of_step.windows or 0) * learner.log_mel.window_samples
        row |= {"windows": of_step.windows, "fill": round((of_step.filled_samples or 0) / max(room, 1), 4)}
    tracker.log_step(row)


def _finite_or_none(value: float) -> float | None:
    """Return the value, or None if it is not finite, because JSON has no NaN."""
    return value if math.isfinite(value) else None


def refuse_to_continue(state: TrainState, config: TrainingConfig, data: TrainingData, learner: Learner) -> None:
    """Raise an error if the run wastes time.

    NonFiniteError: 25 gradients in a row were not finite, or the loss scale is below `scaler.floor`. DataError: 20 or
    more rows, and more than `data.max_unusable_share` of the rows so far, could not be used.

    Rejected rows are counted in the first epoch only. Each row comes once there, so a few bad rows do not add up.
    """
    scale, floor = learner.scaler.get_scale(), config.scaler.floor
    below_floor = learner.scaler.is_enabled() and scale < floor
    if state.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW or below_floor:
        message = f"{state.skipped_in_a_row} gradients in a row were not finite, up to step {state.step}"
        if below_floor:
            message += f", and the loss scale fell to {scale:g} (scaler.floor is {floor:g})"
        raise NonFiniteError(f"{message}; the last batch: {', '.join(data.ids(state.step - 1))}")
    limit, rejected = config.data.max_unusable_share, state.counts.unusable_rows
    seen = min(state.step * config.batch.size, data.rows)
    if rejected >= MIN_REJECTED_ROWS and rejected > limit * seen:
        raise DataError(
            f"{rejected} of {counted(seen, 'row')} could not be used ({100 * rejected / seen:.1f} %; the limit is "
            f"{100 * limit:g} %, --data.max_unusable_share); quarantine.jsonl lists them"
        )


def refuse_untrained(state: TrainState, config: TrainingConfig, data: TrainingData) -> None:
    """Raise DataError if no utterance was trained in the last 20 steps, the first epoch, or a shorter whole run.

    The decision depends on the state alone, so a resumed run and every rank take the same one.
    """
    read = state.step * config.batch.size
    if state.untrained_in_a_row >= MAX_UNTRAINED_IN_A_ROW:
        first = state.step - state.untrained_in_a_row + 1
    elif state.step and not state.counts.utterances and (read >= data.rows or state.step >= data.steps):
        first = 1
    else:
        return
    raise DataError(
        f"no utterance was trained in steps {first} to {state.step}, because no row of them could be used; "
        "quarantine.jsonl lists the rows with reasons, and `python -m whisper_ft doctor` checks the data"
    )
