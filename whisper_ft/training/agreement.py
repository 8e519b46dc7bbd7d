"""Agreement of the ranks between two steps, in one small all-reduce."""

from dataclasses import fields
from typing import NamedTuple

from whisper_ft.checkpoint.state import Counts
from whisper_ft.data.loader import StepBatches
from whisper_ft.runtime.collectives import Collectives

_COUNTED = [counted.name for counted in fields(Counts)]


class Agreement(NamedTuple):
    """Sums and flags over all ranks; every rank has the same values."""

    counts: Counts
    """Counts of the global batch that was drawn for the coming step."""
    micro_batches: int
    """Largest number of micro-batches of a rank in the coming step. A rank with fewer adds empty micro-batches."""
    loss: float
    """Sum of the cross-entropy of the last update, over all label tokens."""
    failed: bool
    """True if a rank could not read its data."""
    stopping: bool
    """True if a rank got a stop signal."""
    save_done: bool
    """True if the save in flight is complete."""
    text_loss: float = 0.0
    """Sum of the cross-entropy of the last update over the tokens of text, if labels have timestamps; else 0."""
    text_tokens: int = 0
    """Number of those tokens."""


def agree(
    collectives: Collectives,
    drawn: StepBatches,
    *,
    loss: float,
    failed: bool,
    stopping: bool,
    save_done: bool,
    text: tuple[float, int] = (0.0, 0),
) -> Agreement:
    """Exchange counts, loss and flags with all ranks, so that all of them take the same decisions.

    Every rank must call it. One all-reduce computes the sums. It also gives the largest number of micro-batches,
    because each rank writes its own number to its own element of the vector, and the others add zero to that element.
    `text` is the summed loss of the tokens of text, and their number.
    """
    own_micro_batches = [0.0] * collectives.world
    own_micro_batches[collectives.rank] = len(drawn.micro_batches)
    counted, own = len(_COUNTED), (loss, *text, failed, stopping, save_done)
    sums = collectives.all_reduce_sum(
        *(getattr(drawn.counts, name) or 0 for name in _COUNTED), *own, *own_micro_batches
    )
    loss_sum, text_loss, text_tokens, failures, stops, saves, *micro_batches = sums[counted:]
    return Agreement(
        Counts(**{name: int(value) for name, value in zip(_COUNTED, sums, strict=False)}),
        int(max(micro_batches)),
        loss_sum,
        failures > 0,
        stops > 0,
        saves > 0,
        text_loss,
        int(text_tokens),
    )
