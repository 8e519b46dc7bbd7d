"""Training data of one rank, step by step: micro-batches prepared ahead by worker processes, or inline.

Ranks and workers only divide the positions of a batch among them; the order decides which row each position has. A
checkpoint stores nothing of the stream, because the data of a step depends only on the number of the step.
"""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Self

import torch

from whisper_ft.checkpoint.state import Counts
from whisper_ft.data.sampling.batch_plan import BatchPlan
from whisper_ft.data.types import NO_FEATURES, Batch, Collator, Rejected, Window
from whisper_ft.data.window_reader import WindowReader
from whisper_ft.data.workers import Workers, shared
from whisper_ft.runtime.prefetch import prefetch

Prepared = list[Window | Rejected]
"""Result of a reader for one block of rows: windows, and a `Rejected` for each row that cannot be used."""


@dataclass(frozen=True)
class StepBatches:
    """Data of one rank for one step: micro-batches, rejected rows and counts. `counts` leaves out the anchor."""

    micro_batches: list[Batch] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    counts: Counts = Counts()
    anchor: list[Batch] = field(default_factory=list)
    """Micro-batches of the anchor, equally many on each rank."""
    anchor_tokens: int = 0
    """Label tokens in them."""

    def beside(self, anchor: Self) -> Self:
        """Return the same data with the batch of the anchor beside it, and with its rejected rows."""
        return replace(
            self,
            rejected=[*self.rejected, *anchor.rejected],
            anchor=anchor.micro_batches,
            anchor_tokens=anchor.counts.label_tokens,
        )


class TrainStream:
    """Stream of one rank's training data, from step `first_step` on.

    Each of n workers prepares its share of every portion of a step. A thread puts the shares back into the order of the
    batch one step ahead, so that the model does not wait for them.

    Parameters
        windows_at_once: windows of a micro-batch, if those of the whole step are sorted by length and regrouped; None
            if each portion of the plan is a micro-batch.
        workers: number of processes that prepare data; with 0 this process prepares it.
        ahead: number of portions that each worker may prepare ahead.
        anchor: stream of the anchor's audio, drawn together with this one.
    """

    def __init__(
        self,
        reader: WindowReader,
        plan: BatchPlan,
        collate: Collator,
        *,
        first_step: int,
        windows_at_once: int | None = None,
        workers: int = 0,
        ahead: int = 4,
        anchor: "TrainStream | None" = None,
    ) -> None:
        self._plan, self._collate, self._first_step, self._anchor = plan, collate, first_step, anchor
        self._windows_at_once = windows_at_once
        self._shares = _Shares(reader, plan, first_step)
        self._number_of_workers, self._ahead = workers, ahead
        self._workers: Workers[_PackedShare] | None = None
        self._steps: Generator[StepBatches, None, None] | None = None

    def draw(self) -> StepBatches:
        """Return the data of the next step, endlessly; the first call starts the workers.

        Raises the error of a worker that could not prepare its share.
        """
        if self._steps is None:
            self._steps = self._start()
        drawn = next(self._steps)
        return drawn if self._anchor is None else drawn.beside(self._anchor.draw())

    def close(self) -> None:
        """End the workers and the stream, and that of the anchor."""
        if self._anchor is not None:
            self._anchor.close()
        if self._workers is not None:
            self._workers.close()
        if self._steps is not None:
            self._steps.close()

    def _start(self) -> Generator[StepBatches, None, None]:
        """Start the workers, and return an iterator over the coming steps."""
        if not self._number_of_workers:
            # Without a thread, which takes cores from the model: a CPU would train 6 to 15 % slower (bench/LOG.md).
            inline = self._shares.of_reader(0)
            return self._assemble(lambda _: next(inline))
        workers = Workers(self._shares.packed, self._number_of_workers, self._ahead)
        self._workers = workers
        return prefetch(self._assemble(lambda reader: workers.take(reader).unpack()), 1)

    def _assemble(self, take: "TakeShare") -> Generator[StepBatches, None, None]:
        """Yield the data of each step from `first_step` on, endlessly; `take` returns the next share of a reader."""
        for step in count(self._first_step):
            yield self._assemble_step(step, take)  # a function, whose end frees all but the step

    def _assemble_step(self, step: int, take: "TakeShare") -> StepBatches:
        """Put one step together from the shares of the readers."""
        batches, rejected, counts = list[Batch](), list[Rejected](), Counts()
        portions = (self._portion(step, portion, take) for portion in range(self._plan.portions))
        for windows, unusable in self._regrouped(portions):
            rejected += [row for row, _ in unusable]
            batches.append(self._collate(windows))
            counts += Counts(
                label_tokens=len(batches[-1].predicted),
                utterances=sum(len(window.utterances) for window in windows),
                unusable=len(unusable),
                unusable_rows=sum(is_first for _, is_first in unusable),
                audio_samples=sum(window.audio_samples for window in windows),
                windows=len(windows),
                filled_samples=sum(window.filled_samples for window in windows),
            )
        return StepBatches(batches, rejected, counts)

    def _portion(self, step: int, portion: int, take: "TakeShare") -> "_Portion":
        """Return the windows of a portion, and its rejected rows, each with True if it lies in the first pass."""
        shares = [take(reader) for reader in range(self._plan.readers)]
        windows, unusable = list[Window](), list[tuple[Rejected, bool]]()
        for block in self._plan.blocks(step, portion):
            first_pass = self._plan.in_first_pass(block)
            for item in next(shares[block.reader]):
                if isinstance(item, Window):
                    windows.append(item)
                else:
                    unusable.append((item, first_pass[item.slot]))
        return windows, unusable

    def _regrouped(self, portions: "Iterator[_Portion]") -> "Iterator[_Portion]":
        """Yield the windows of each micro-batch; the rejected rows of the whole step may come with the first one.

        Without `windows_at_once` each portion is a micro-batch. Otherwise there is at least one, and windows with about
        as many tokens share one, because each is padded to the longest in its micro-batch.
        """
        if self._windows_at_once is None:
            yield from portions
            return
        of_step = list(portions)
        unusable = [row for _, rows in of_step for row in rows]
        windows = sorted((w for ws, _ in of_step for w in ws), key=lambda window: -len(window.tokens))
        for begin in range(0, max(len(windows), 1), self._windows_at_once):
            yield windows[begin : begin + self._windows_at_once], [] if begin else unusable


_Portion = tuple[list[Window], list[tuple[Rejected, bool]]]
"""Windows, and rejected rows, each with True if it lies in the first pass over the data."""


@dataclass(frozen=True)
class _Shares:
    """Maker of shares: a share is the part of a step's portion that one reader prepares.

    A reader is a worker process, or the training process itself if there are no workers.
    """

    reader: WindowReader
    plan: BatchPlan
    first_step: int

    def of_reader(self, number: int) -> Iterator[Iterator[Prepared]]:
        """Yield the share of one reader for each portion, without end: an iterator over its prepared blocks."""
        step = self.first_step
        while True:
            for portion in range(self.plan.portions):
                blocks = [block for block in self.plan.blocks(step, portion) if block.reader == number]
                yield iter([self.reader.windows(self.plan.places(block)) for block in blocks])
            step += 1

    def packed(self, number: int, readers: int) -> "Iterator[_PackedShare]":
        """Yield the shares of worker `number` as `of_reader` does, packed for transport to the training process.

        `readers` is the number of workers, which is that of the plan.
        """
        assert readers == self.plan.readers
        return map(_PackedShare.pack, self.of_reader(number))


@dataclass(frozen=True)
class _PackedShare:
    """A worker's share of a portion, packed for transport: all features are one shared-memory tensor.

    Each tensor costs about 0.5 ms to map. With one tensor for each of 16 windows a step waited 15 ms instead of 10
    (docs/performance.md).
    """

    frames: torch.Tensor  # [M, frames of all windows]
    blocks: list[list[tuple[Window, int] | Rejected]]  # windows without features, each with its number of frames

    @classmethod
    def pack(cls, blocks: Iterator[Prepared]) -> Self:
        """Pack prepared blocks into a share."""
        features, packed = list[torch.Tensor](), list[list[tuple[Window, int] | Rejected]]()
        for block in blocks:
            items = list[tuple[Window, int] | Rejected]()
            for item in block:
                if isinstance(item, Window):
                    features.append(item.features)
                    items.append((replace(item, features=NO_FEATURES), item.features.shape[1]))
                else:
                    items.append(item)
            packed.append(items)
        return cls(shared(torch.cat(features, 1)) if features else NO_FEATURES, packed)

    def unpack(self) -> Iterator[Prepared]:
        """Yield the prepared blocks. The features of their windows are views of the shared tensor."""
        begin = 0
        for block in self.blocks:
            items: Prepared = []
            for item in block:
                if isinstance(item, Rejected):
                    items.append(item)
                else:
                    window, frames = item
                    items.append(replace(window, features=self.frames[:, begin : begin + frames]))
                    begin += frames
            yield items


TakeShare = Callable[[int], Iterator[Prepared]]
"""Function that returns the next share of a reader, given the reader's number."""
