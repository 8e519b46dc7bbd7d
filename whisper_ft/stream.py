"""Rows to windows, by position: who reads what, in worker processes or inline, and the micro-batches of a step.

Ranks and workers only divide the slots of a batch; what is in a slot is decided by the order. Nothing here is saved:
a stream that starts at a step is a function of that step.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Generic, NamedTuple, Self, TypeVar

import torch

from whisper_ft.audio import LogMel, decode
from whisper_ft.augment import SpecAugment
from whisper_ft.background import in_background
from whisper_ft.labels import LabelEncoder
from whisper_ft.order import Mixture, Order
from whisper_ft.share import Share
from whisper_ft.sources import Row, Source
from whisper_ft.window import NO_FEATURES, Unusable, UnusableError, Window
from whisper_ft.workers import Workers, shared

Batch = TypeVar("Batch")


class WindowReader:
    """Windows of a source by chunk and row. Keeps the chunks that the lanes are in, so that each is read about once.

    At most `cached_chunks` of them, with at most `cached_bytes` of audio: a chunk that had to go is read again.
    """

    def __init__(
        self,
        source: Source,
        log_mel: LogMel,
        encode: LabelEncoder,
        cached_chunks: int,
        cached_bytes: float = math.inf,
        augment: SpecAugment | None = None,
    ) -> None:
        self._source, self._log_mel, self._encode, self._augment = source, log_mel, encode, augment
        self._cached_chunks, self._cached_bytes = cached_chunks, cached_bytes
        self._chunks: OrderedDict[int, Sequence[Row]] = OrderedDict()
        self._bytes: dict[int, int] = {}  # of each chunk here

    def row(self, chunk: int, row: int) -> Row:
        """A row, through the cache."""
        if chunk not in self._chunks:
            self._make_room(chunk)
            self._chunks[chunk] = self._source.read(chunk)
            # Segments of one recording share its bytes.
            self._bytes[chunk] = sum({id(row.audio): len(row.audio) for row in self._chunks[chunk]}.values())
        self._chunks.move_to_end(chunk)
        return self._chunks[chunk][row]

    def _make_room(self, chunk: int) -> None:
        """Let the chunks go that were not asked for longest, before another is read: it is taken to be as large."""
        expected = max(self._bytes.values(), default=0)
        while self._chunks and (
            len(self._chunks) >= self._cached_chunks or sum(self._bytes.values()) + expected > self._cached_bytes
        ):
            gone, _ = self._chunks.popitem(last=False)
            del self._bytes[gone]

    def window(self, chunk: int, row: int, epoch: int = 0) -> Window | Unusable:
        """The model's input and target for one row, or why there is none; augmented as it is in this epoch."""
        utterance = self.row(chunk, row)
        try:
            if utterance.problem:
                raise UnusableError(*utterance.problem)
            tokens = self._encode(utterance.text, utterance.language, utterance.task)
            rate, seconds = self._log_mel.sample_rate, self._log_mel.window_seconds
            waveform = decode(utterance.audio, rate, seconds, utterance.offset, utterance.duration)
            if not waveform.any():
                raise UnusableError("silent", "every sample is zero, but there is a transcript")
        except UnusableError as unusable:
            return Unusable(utterance.id, unusable.reason, unusable.detail)
        features = self._log_mel(waveform)
        if self._augment is not None:
            features = self._augment(features, len(waveform) / rate, epoch, chunk, row)
        return Window(features, tokens, (utterance.id,), len(waveform))


@dataclass(frozen=True)
class _Packed:
    """What a worker hands over of a micro-batch: the features of all windows as one tensor, because each costs 0.5 ms.

    It comes in shared memory, whose descriptor is asked of the worker and mapped; one for each of 16 windows made the
    wait of a step 15 ms in place of 10 (docs/performance.md).
    """

    frames: torch.Tensor  # [M, frames of all windows]
    others: list[tuple[Window, int] | Unusable]  # each window without its features, and how many of the frames it has

    @classmethod
    def of(cls, part: Sequence[Window | Unusable]) -> Self:
        kept, others = list[torch.Tensor](), list[tuple[Window, int] | Unusable]()
        for item in part:
            if isinstance(item, Window):
                kept.append(item.features)
                others.append((replace(item, features=NO_FEATURES), item.features.shape[1]))
            else:
                others.append(item)
        return cls(shared(torch.cat(kept, 1)) if kept else NO_FEATURES, others)

    def part(self) -> Iterator[Window | Unusable]:
        at = 0
        for item in self.others:
            if isinstance(item, Unusable):
                yield item
            else:
                window, frames = item
                yield replace(window, features=self.frames[:, at : at + frames])
                at += frames


@dataclass(frozen=True)
class _Slots:
    """What one reader prepares: of each micro-batch, its part of the slots. Runs in a worker process, or inline."""

    reader: WindowReader
    order: Order | Mixture
    share: Share
    first_step: int
    end: int | None

    def parts(self, number: int, readers: int) -> Iterator[list[Window | Unusable]]:
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

    def _window(self, position: int) -> Window | Unusable:
        place = self.order.locate(position)
        return self.reader.window(place.chunk, place.row, place.epoch)


@dataclass(frozen=True)
class Step(Generic[Batch]):
    """What a rank trains on in one step."""

    micro_batches: list[Batch]
    unusable: list[Unusable]
    utterances: int
    unusable_rows: int
    """How many of the unusable are of the first pass over the data, in which each row comes once."""
    audio_samples: int = 0
    """Length of the utterances at the model's sampling rate."""


class Totals(NamedTuple):
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
        order: Order | Mixture,
        share: Share,
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
        self._steps: Generator[Step[Batch], None, None] | None = None

    def draw(self) -> Step[Batch]:
        """This rank's micro-batches of the next step; raises what a worker met while it prepared them."""
        if self._steps is None:
            self._steps = self._started()
        return next(self._steps)

    def _started(self) -> Generator[Step[Batch], None, None]:
        """The steps to come, with the workers started that prepare them."""
        if self._inline is not None:
            return self._drawn()
        self._workers = Workers(self._slots.packed, self._readers, self._prefetch)
        return in_background(self._drawn(), 1)

    def _drawn(self) -> Generator[Step[Batch], None, None]:
        while True:
            yield self._draw()

    def _draw(self) -> Step[Batch]:
        micro_batches, unusable, utterances, unusable_rows, audio_samples = [], list[Unusable](), 0, 0, 0
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
        return Step(micro_batches, unusable, utterances, unusable_rows, audio_samples)

    def _part(self, reader: int) -> Iterator[Window | Unusable]:
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
