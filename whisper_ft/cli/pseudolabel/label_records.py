"""Records of the shards: the kept windows with their audio and origin. The others are listed with their reasons."""

import json
from collections import defaultdict
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import pyarrow as pa

from whisper_ft.cli.prepare.records import RowOutcome, Step
from whisper_ft.cli.prepare.shard_row import flac_of, schema_of, timed_texts
from whisper_ft.cli.pseudolabel.audio_pool import AudioPool, Piece, PieceReader, PoolItem
from whisper_ft.cli.pseudolabel.held_out_guard import HeldOutGuard
from whisper_ft.cli.pseudolabel.pool_window import DECIMALS, PoolWindow
from whisper_ft.cli.pseudolabel.rejection import Reason, rejection
from whisper_ft.config.pseudolabel import KeepLimits
from whisper_ft.data.audio.containers import SndFile, open_audio
from whisper_ft.data.audio.decode import as_rejected
from whisper_ft.data.types import RejectedError, TextSegment
from whisper_ft.runtime.errors import DataError
from whisper_ft.runtime.signals import interrupt_held

_NUMBERS = ("avg_logprob", "no_speech_prob", "compression_ratio", "disagreement")
ORIGIN = {
    "start": pa.float64(),
    "end": pa.float64(),
    **dict.fromkeys(_NUMBERS, pa.float64()),
    **dict.fromkeys(("detected_language", "model", "model_sha256", "model_revision", "settings"), pa.string()),
}
"""Columns of the origin of a label, beside the column `recording`, the source of its audio."""


class RejectedWindow(NamedTuple):
    """Line of the list of rejected windows."""

    id: str
    reason: str
    detail: str
    recording: str
    start: float
    end: float
    text: str
    avg_logprob: float | None
    no_speech_prob: float | None
    compression_ratio: float | None
    disagreement: float | None
    pace: float | None
    detected_language: str | None

    @classmethod
    def of(cls, window: PoolWindow, reason: Reason) -> "RejectedWindow":
        """Make the line of a window."""
        return cls(
            id=window.id,
            reason=reason.code,
            detail=reason.detail,
            recording=window.source,
            start=window.begin,
            end=window.end,
            text=window.text,
            avg_logprob=window.avg_logprob,
            no_speech_prob=window.no_speech_prob,
            compression_ratio=window.compression_ratio,
            disagreement=window.disagreement,
            pace=None if window.pace is None else round(window.pace, 2),
            detected_language=window.detected_language,
        )


@dataclass(frozen=True)
class ModelOrigin:
    """Model that wrote the labels."""

    name: str
    sha256: str
    revision: str | None
    settings: Mapping[str, Any]
    """Everything else on which a text depends, as JSON values."""
    window: tuple[int, int]
    """Samples of a window, and their rate in Hz."""


class LabelRecords:
    """Records of the kept windows, in the order of the pool."""

    def __init__(
        self,
        pool: AudioPool,
        windows: Sequence[PoolWindow],
        limits: KeepLimits,
        guard: HeldOutGuard | None,
        origin: ModelOrigin,
    ) -> None:
        self._pool, self._limits, self._guard, self._origin = pool, limits, guard, origin
        self._settings = json.dumps(origin.settings, ensure_ascii=False, sort_keys=True)
        by_part: dict[int, list[PoolWindow]] = defaultdict(list)
        for window in windows:
            by_part[window.part].append(window)
        self._by_part = by_part
        self.schema = schema_of(
            has_times=any(window.segments for window in windows), has_recording=True, further=ORIGIN
        )
        self.chunks, self.total = len(pool.weights), len(windows)

    def outcomes(self, first: Step) -> Generator[RowOutcome]:
        """Yield the outcome of each window from a step on. The chunk of a step is the number of a part."""
        for part in range(first.chunk, self.chunks):
            begin = first.row if part == first.chunk else 0
            for number, outcome in enumerate(self._of_part(part, begin), begin):
                yield outcome._replace(step=Step(part, number))

    def _of_part(self, part: int, begin: int) -> Iterator[RowOutcome]:
        """Yield the outcomes of a part from its window number `begin` on. An item without a candidate is not read."""
        windows = self._by_part[part][begin:]
        by_figures = [rejection(window, self._limits) for window in windows]
        items: Sequence[PoolItem] = self._pool.items(part) if None in by_figures else ()
        pairs = zip(windows, by_figures, strict=True)
        for place, group in groupby(pairs, key=lambda pair: pair[0].item):
            of_item = [*group]
            if all(reason for _, reason in of_item):
                yield from (_rejected(window, reason) for window, reason in of_item if reason)
            else:
                yield from self._of_item(items[place], of_item)

    def _of_item(self, item: PoolItem, pairs: Sequence[tuple[PoolWindow, Reason | None]]) -> Iterator[RowOutcome]:
        pieces = PieceReader(item).pieces(*self._origin.window)
        for window, reason in pairs:
            if reason is not None:
                yield _rejected(window, reason)
                continue
            with interrupt_held():
                piece = next((piece for piece in pieces if piece.number == window.number), None)
                length = None if piece is None else round(len(piece.waveform) / self._origin.window[1], DECIMALS)
                if piece is None or length != window.seconds:
                    raise DataError(f"{window.id}: its audio has changed since it was transcribed; name another --out")
                outcome = self._outcome(window, item, piece)
            yield outcome

    def _outcome(self, window: PoolWindow, item: PoolItem, piece: Piece) -> RowOutcome:
        """Return the outcome of a window whose figures are within the limits."""
        try:
            whole = _content(item) if window.is_whole and not item.is_segment else b""
            reason = self._guard and (
                self._guard.sound_of(whole, piece.waveform)
                or self._guard.sentence_of(window.text)
                or self._guard.sentence_of(window.reference or "")
            )
            if reason:
                return _rejected(window, reason)
            audio = whole if whole and _is_plain(whole) else flac_of(piece.waveform, self._origin.window[1])
        except RejectedError as unusable:
            return _rejected(window, Reason(unusable.reason, unusable.detail))
        return RowOutcome(Step(), self._record(window, audio), done=1, seconds_out=window.seconds)

    def _record(self, window: PoolWindow, audio: bytes) -> dict[str, Any]:
        segments = [TextSegment(text, start, end) for start, end, text in window.segments or ()]
        return {
            "audio": {"bytes": audio, "path": window.id},
            "sentence": window.text,
            "language": window.language,
            "task": window.task,
            "client_id": window.speaker,
            "segments": timed_texts(segments or None),
            "prompt": None,
            "recording": window.source,
            "start": window.begin,
            "end": window.end,
            "detected_language": window.detected_language,
            "model": self._origin.name,
            "model_sha256": self._origin.sha256,
            "model_revision": self._origin.revision,
            "settings": self._settings,
            **{name: getattr(window, name) for name in _NUMBERS},
        }


def _rejected(window: PoolWindow, reason: Reason) -> RowOutcome:
    return RowOutcome(Step(), left_out=RejectedWindow.of(window, reason), done=1)


def _content(item: PoolItem) -> bytes:
    """Return the encoded audio of an item. Raises RejectedError if its file is gone."""
    if isinstance(item.audio, bytes):
        return item.audio
    try:
        return item.audio.read_bytes()
    except OSError as error:
        raise RejectedError("unreadable_file", str(error.strerror or error)) from error


def _is_plain(audio: bytes) -> bool:
    """True for audio that libsndfile reads. Other files, such as videos, are stored as FLAC."""
    with as_rejected(), open_audio(audio) as file:
        return isinstance(file, SndFile)
