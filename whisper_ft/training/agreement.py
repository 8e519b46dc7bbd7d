"""Agreement of the ranks between two steps, in one small all-reduce."""

from dataclasses import fields
from typing import NamedTuple

from whisper_ft.checkpoint.state import Counts
from whisper_ft.data.loader import StepBatches
from whisper_ft.runtime.collectives import Collectives

_COUNTED = [counted.name for counted in fields(Counts)]


class Losses(NamedTuple):
    """Sums of the loss of an update, of one rank or of all."""

    loss: float = 0.0
    """Cross-entropy over all label tokens."""
    text_loss: float = 0.0
    """Cross-entropy over the tokens of text, if labels have timestamps; else 0."""
    text_tokens: float = 0
    """Number of those tokens."""
    divergence: float = 0.0
    """Divergence from the start model over the label tokens of the anchor."""


class Agreement(NamedTuple):
    """Sums and flags over all ranks; every rank has the same values."""

    counts: Counts
    """Counts of the global batch that was drawn for the coming step."""
    micro_batches: int
    """Largest number of micro-batches of a rank in the coming step. A rank with fewer adds empty micro-batches."""
    losses: "Losses"
    """Sums of the last update."""
    failed: bool
    """True if a rank could not read its data."""
    stopping: bool
    """True if a rank got a stop signal."""
    save_done: bool
    """True if the save in flight is complete."""
    rejected: bool = False
    """True if a rank drew a row that cannot be used, of the data or of the anchor."""
    anchor_tokens: int = 0
    """Label tokens of the anchor in the coming step."""


def agree(
    collectives: Collectives,
    drawn: StepBatches,
    losses: Losses,
    *,
    failed: bool,
    stopping: bool,
    save_done: bool,
) -> Agreement:
    """Exchange counts, losses and flags with all ranks, so that all of them take the same decisions.

    Every rank must call it. One all-reduce computes the sums. It also gives the largest number of micro-batches,
    because each rank writes its own number to its own element of the vector, and the others add zero to that element.
    """
    own_micro_batches = [0.0] * collectives.world
    own_micro_batches[collectives.rank] = len(drawn.micro_batches)
    own = (failed, stopping, save_done, bool(drawn.rejected), drawn.anchor_tokens)
    counts = (getattr(drawn.counts, name) or 0 for name in _COUNTED)
    sums = iter(collectives.all_reduce_sum(*counts, *losses, *own, *own_micro_batches))
    counted = {name: int(next(sums)) for name in _COUNTED}
    of_losses = Losses(*(next(sums) for _ in losses))
    failures, stops, saves, rejected, anchor_tokens, *micro_batches = sums
    return Agreement(
        Counts(**counted),
        int(max(micro_batches)),
        of_losses,
        failures > 0,
        stops > 0,
        saves > 0,
        rejected > 0,
        int(anchor_tokens),
    )
