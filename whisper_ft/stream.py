"""Rows to windows, by position: who reads what, in worker processes or inline, and the micro-batches of a step.

Ranks and workers only divide the slots of a batch; what is in a slot is decided by the order. Nothing here is saved:
a stream that starts at a step is a function of that step.
"""

import math
import multiprocessing
import weakref
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from typing import Any, Generic, NamedTuple, Self, TypeVar

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from whisper_ft.audio import LogMel, decode
from whisper_ft.augment import SpecAugment
from whisper_ft.background import in_background
from whisper_ft.labels import LabelEncoder
from whisper_ft.order import Mixture, Order
from whisper_ft.share import Share
from whisper_ft.sources import Row, Source
from whisper_ft.window import NO_FEATURES, Unusable, UnusableError, Window
from whisper_ft.workers import (
    FORKSERVER,
    begin_worker,
    kill,
    lost,
    portable,
    program_hidden,
    shared,
    start_worker_server,
)

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


class _Slots(IterableDataset[list[Window | Unusable] | _Packed | Exception]):
    """What one worker prepares: of each micro-batch, its part of the slots. Runs in the worker process."""

    def __init__(
        self, reader: WindowReader, order: Order | Mixture, share: Share, first_step: int, end: int | None
    ) -> None:
        self._reader, self._order, self._share = reader, order, share
        self._first_step, self._end = first_step, end

    def __iter__(self) -> Iterator[list[Window | Unusable] | _Packed | Exception]:
        worker = get_worker_info()
        if worker is None:
            yield from self._prepare(0, 1)
            return
        try:
            yield from map(_Packed.of, self._prepare(worker.id, worker.num_workers))
        except Exception as error:  # noqa: BLE001 - handed over and raised where the part was waited for
            yield portable(error, worker.id)

    def _prepare(self, number: int, workers: int) -> Iterator[list[Window | Unusable]]:
        step = self._first_step
        while True:
            for micro_batch in range(self._share.accumulate):
                slots = self._share.slots(micro_batch)
                mine = [slot for slot in slots if self._share.reader(slot, workers) == number]
                positions = [step * self._share.batch_size + slot for slot in mine]
                yield [self._window(p) for p in positions if self._end is None or p < self._end]
            step += 1

    def _window(self, position: int) -> Window | Unusable:
        place = self._order.locate(position)
        return self._reader.window(place.chunk, place.row, place.epoch)


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

    With n workers each prepares its part of a micro-batch, so n parts make one; DataLoader hands them over in turn.
    Their windows are then put back into the order of the slots, one step ahead in a thread: a GPU would wait for that.
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
        self._collate, self._share, self._workers = collate, share, max(workers, 1)
        self._step, self._rows, self._end = first_step, order.total, end
        options: dict[str, Any] = {"batch_size": None, "num_workers": workers}
        if workers:
            options |= {
                "multiprocessing_context": FORKSERVER,
                "prefetch_factor": prefetch,
                "worker_init_fn": begin_worker,
            }
        self._loader = DataLoader(_Slots(reader, order, share, first_step, end), **options)
        self._parts: Iterator[list[Window | Unusable] | _Packed | Exception] = iter(())
        self._processes: list[BaseProcess] = []
        self._kill = weakref.finalize(self, kill, self._processes)  # at the latest when Python exits
        self._steps: Generator[Step[Batch], None, None] | None = None

    def draw(self) -> Step[Batch]:
        """This rank's micro-batches of the next step; raises what a worker met while it prepared them."""
        if self._steps is None:
            self._steps = self._started()
        return next(self._steps)

    def _started(self) -> Generator[Step[Batch], None, None]:
        """The steps to come, with the workers started that prepare them."""
        if not self._loader.num_workers:
            self._parts = iter(self._loader)
            return self._drawn()
        start_worker_server(__name__)
        before = multiprocessing.active_children()
        with program_hidden():
            self._parts = iter(self._loader)
        self._processes += [worker for worker in multiprocessing.active_children() if worker not in before]
        return in_background(self._drawn(), 1)

    def _drawn(self) -> Generator[Step[Batch], None, None]:
        while True:
            yield self._draw()

    def _draw(self) -> Step[Batch]:
        micro_batches, unusable, utterances, unusable_rows, audio_samples = [], list[Unusable](), 0, 0, 0
        first = self._step * self._share.batch_size  # position of slot 0
        for i in range(self._share.accumulate):
            parts = [self._part() for _ in range(self._workers)]
            windows = []
            for slot in self._share.slots(i):
                if self._end is not None and first + slot >= self._end:
                    break
                found = next(parts[self._share.reader(slot, self._workers)])
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

    def _part(self) -> Iterator[Window | Unusable]:
        """What the worker whose turn it is prepared of a micro-batch."""
        try:
            part = next(self._parts)
        except (RuntimeError, OSError, EOFError) as error:  # what a worker meets comes as a value: it may be gone
            if gone := lost(self._processes):
                raise gone from error
            raise
        if isinstance(part, Exception):
            raise part
        return part.part() if isinstance(part, _Packed) else iter(part)

    def close(self) -> None:
        """End the workers."""
        self._kill()
        if self._steps is not None:
            self._steps.close()
        self._parts = iter(())
