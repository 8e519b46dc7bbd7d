"""Windows of a source, made from one row each."""

import math
from collections import OrderedDict
from collections.abc import Sequence

from whisper_ft.data.audio.decode import decode
from whisper_ft.data.audio.log_mel import LogMel
from whisper_ft.data.augment.spec_augment import SpecAugment
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.data.types import Rejected, RejectedError, Row, Source, Window


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

    def window(self, chunk: int, row: int, epoch: int = 0) -> Window | Rejected:
        """The model's input and target for one row, or why there is none; augmented as it is in this epoch."""
        utterance = self.row(chunk, row)
        try:
            if utterance.problem:
                raise RejectedError(*utterance.problem)
            tokens = self._encode(utterance.text, utterance.language, utterance.task)
            rate, seconds = self._log_mel.sample_rate, self._log_mel.window_seconds
            waveform = decode(utterance.audio, rate, seconds, utterance.offset, utterance.duration)
            if not waveform.any():
                raise RejectedError("silent", "every sample is zero, but there is a transcript")
        except RejectedError as unusable:
            return Rejected(utterance.id, unusable.reason, unusable.detail)
        features = self._log_mel(waveform)
        if self._augment is not None:
            features = self._augment(features, len(waveform) / rate, epoch, chunk, row)
        return Window(features, tokens, (utterance.id,), len(waveform))
