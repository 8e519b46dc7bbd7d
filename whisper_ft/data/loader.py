"""Rows to windows, by position: who reads what, in worker processes or inline, and the micro-batches of a step.

Ranks and workers only divide the slots of a batch; what is in a slot is decided by the order. Nothing here is saved:
a stream that starts at a step is a function of that step.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Generic, NamedTuple, Self, TypeVar

import torch

from whisper_ft.data.sampling.order import MixedOrder, Order
from whisper_ft.data.sampling.partition import Partition
from whisper_ft.data.types import NO_FEATURES, Rejected, Window
from whisper_ft.data.windows import WindowReader
from whisper_ft.data.workers import Workers, shared
from whisper_ft.runtime.prefetch import prefetch

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class _Packed:
    """What a worker hands over of a micro-batch: the features of all windows as one tensor, because each costs 0.5 ms.

    It comes in shared memory, whose descriptor is asked of the worker and mapped; one for each of 16 windows made the
    wait of a step 15 ms in place of 10 (bench/LOG.md).
    """

    frames: torch.Tensor  # [M, frames of all windows]
    others: list[tuple[Window, int] | Rejected]  # each window without its features, and how many of the frames it has

    @classmethod
    def of(cls, part: Sequence[Window | Rejected]) -> Self:
        kept, others = list[torch.Tensor](), list[tuple[Window, int] | Rejected]()
        for item in part:
            if isinstance(item, Window):
                kept.append(item.features)
                others.append((replace(item, features=NO_FEATURES), item.features.shape[1]))
            else:
                others.append(item)
        return cls(shared(torch.cat(kept, 1)) if kept else NO_FEATURES, others)

    def part(self) -> Iterator[Window | Rejected]:
        at = 0
        for item in self.others:
            if isinstance(item, Rejected):
                yield item
            else:
                window, frames = item
                yield replace(window, features=self.frames[:, at : at + frames])
                at += frames


@dataclass(frozen=True)
class _Slots:
    """What one reader prepares: of each micro-batch, its part of the slots. Runs in a worker process, or inline."""

    reader: WindowReader
    order: Order | MixedOrder
    share: Partition
    first_step: int
    end: int | None

    def parts(self, number: int, readers: int) -> Iterator[list[Window | Rejected]]:
        step = self.first_step
        while True:
            for micro_batch in range(self.share.accumulate):
                slots = self.share.slots(micro_batch)
                mine = [slot for slot in slots if self.share.reader(slot, readers) == number]
                positions = [step * self.share.batch_size + slot for slot in mine]
                yield [self._window(p) for p in positions if self.end is None or p < self.end]
            step += 1

    def packed(self, number: int, readers: int) -> Iterator[_Packed]:
        return map(_Packed.of, self.parts(number, readers))

    def _window(self, position: int) -> Window | Rejected:
        place = self.order.locate(position)
        return self.reader.window(place.chunk, place.row, place.epoch)


@dataclass(frozen=True)
class StepBatches(Generic[Batch]):
    """What a rank trains on in one step."""

    micro_batches: list[Batch]
    unusable: list[Rejected]
    utterances: int
    unusable_rows: int
    """How many of the unusable are of the first pass over the data, in which each row comes once."""
    audio_samples: int = 0
    """Length of the utterances at the model's sampling rate."""


class StepTotals(NamedTuple):
    """What all ranks together train on in one step."""

    label_tokens: int
    utterances: int
    unusable: int
    unusable_rows: int
    audio_samples: int


class TrainStream(Generic[Batch]):
    """The steps of a run from `first_step` on, one at a time; slots from position `end` on are empty.

    With n workers each prepares its part of a micro-batch, so n parts make one, taken of one after the other. Their
    windows are then put back into the order of the slots, one step ahead in a thread: a GPU would wait for that.
    """

    def __init__(
        self,
        reader: WindowReader,
        order: Order | MixedOrder,
        share: Partition,
        collate: Callable[[Sequence[Window]], Batch],
        *,
        first_step: int,
        end: int | None = None,
        workers: int = 0,
        prefetch: int = 4,
    ) -> None:
        self._collate, self._share = collate, share
        self._step, self._rows, self._end = first_step, order.total, end
        self._slots = _Slots(reader, order, share, first_step, end)
        self._readers, self._prefetch = max(workers, 1), prefetch
        self._inline = None if workers else self._slots.parts(0, 1)
        self._workers: Workers[_Packed] | None = None
        self._steps: Generator[StepBatches[Batch], None, None] | None = None

    def draw(self) -> StepBatches[Batch]:
        """This rank's micro-batches of the next step; raises what a worker met while it prepared them."""
        if self._steps is None:
            self._steps = self._started()
        return next(self._steps)

    def _started(self) -> Generator[StepBatches[Batch], None, None]:
        """The steps to come, with the workers started that prepare them."""
        if self._inline is not None:
            return self._drawn()
        self._workers = Workers(self._slots.packed, self._readers, self._prefetch)
        return prefetch(self._drawn(), 1)

    def _drawn(self) -> Generator[StepBatches[Batch], None, None]:
        while True:
            yield self._draw()

    def _draw(self) -> StepBatches[Batch]:
        micro_batches, unusable, utterances, unusable_rows, audio_samples = [], list[Rejected](), 0, 0, 0
        first = self._step * self._share.batch_size  # position of slot 0
        for i in range(self._share.accumulate):
            parts = [self._part(reader) for reader in range(self._readers)]
            windows = []
            for slot in self._share.slots(i):
                if self._end is not None and first + slot >= self._end:
                    break
                found = next(parts[self._share.reader(slot, self._readers)])
                if isinstance(found, Window):
                    windows.append(found)
                else:
                    unusable.append(found)
                    unusable_rows += first + slot < self._rows
            utterances += sum(len(window.utterances) for window in windows)
            audio_samples += sum(window.audio_samples for window in windows)
            micro_batches.append(self._collate(windows))
        self._step += 1
        return StepBatches(micro_batches, unusable, utterances, unusable_rows, audio_samples)

    def _part(self, reader: int) -> Iterator[Window | Rejected]:
        """What a reader prepared of the next micro-batch."""
        if self._inline is not None:
            return iter(next(self._inline))
        assert self._workers is not None
        return self._workers.take(reader).part()

    def close(self) -> None:
        """End the workers."""
        if self._workers is not None:
            self._workers.close()
        if self._steps is not None:
            self._steps.close()
