"""Reader of windows: rows of a source are read by chunk, decoded, augmented and labelled."""

import math
from collections import OrderedDict
from collections.abc import Sequence

from whisper_ft.data.audio.decode import decode
from whisper_ft.data.audio.log_mel import LogMel
from whisper_ft.data.augment.transforms import Transforms
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.data.sampling.order import Place
from whisper_ft.data.types import Rejected, RejectedError, Row, Source, Window


class WindowReader:
    """Turns blocks of rows into windows, and caches chunks so that each chunk is read about once.

    The cache should hold the chunks of all lanes that are read here. Lanes are the interleaved streams of
    `sampling.order`.

    Parameters
        cached_chunks: most chunks in the cache.
        cached_bytes: most bytes of audio in the cache. Beyond these bounds a chunk is dropped, and read again when
            needed.
    """

    def __init__(
        self,
        source: Source,
        log_mel: LogMel,
        encode: LabelEncoder,
        cached_chunks: int,
        cached_bytes: float = math.inf,
        transforms: Transforms | None = None,
    ) -> None:
        self._source, self._log_mel, self._encode = source, log_mel, encode
        self._transforms = transforms or Transforms()
        self._cached_chunks, self._cached_bytes = cached_chunks, cached_bytes
        self._chunks: OrderedDict[int, Sequence[Row]] = OrderedDict()
        self._bytes: dict[int, int] = {}  # bytes of audio of each cached chunk

    def windows(self, places: Sequence[Place]) -> list[Window | Rejected]:
        """Return the window of each row of a block, or the `Rejected` of a row that cannot be used, in order.

        Today each row makes one window of its own.
        """
        return [self._window(place) for place in places]

    def row(self, chunk: int, row: int) -> Row:
        """Return a row of a chunk. The chunk is read if it is not in the cache."""
        if chunk not in self._chunks:
            self._make_room(chunk)
            self._chunks[chunk] = self._source.read(chunk)
            # Each bytes object is counted once, because segments of one recording share it.
            self._bytes[chunk] = sum({id(row.audio): len(row.audio) for row in self._chunks[chunk]}.values())
        self._chunks.move_to_end(chunk)
        return self._chunks[chunk][row]

    def _make_room(self, chunk: int) -> None:
        """Drop the least recently used chunks until one more fits.

        The size of the next chunk is assumed to be that of the largest chunk in the cache.
        """
        expected = max(self._bytes.values(), default=0)
        while self._chunks and (
            len(self._chunks) >= self._cached_chunks or sum(self._bytes.values()) + expected > self._cached_bytes
        ):
            dropped, _ = self._chunks.popitem(last=False)
            del self._bytes[dropped]

    def _window(self, place: Place) -> Window | Rejected:
        """Return the window of one row, or the reason why the row cannot be used."""
        row = self.row(place.chunk, place.row)
        rate, max_seconds = self._log_mel.sample_rate, self._log_mel.window_seconds
        try:
            if row.problem:
                raise RejectedError(*row.problem)
            tokens = self._encode(row.text, row.language, row.task)
            waveform = decode(row.audio, rate, max_seconds, row.offset, row.duration)
            if not waveform.any():
                raise RejectedError("silent", "every sample is zero, but there is a transcript")
        except RejectedError as error:
            return Rejected(row.id, error.reason, error.detail)
        for transform in self._transforms.waveform:
            waveform = transform(waveform, place)
        features = self._log_mel(waveform)
        for mask in self._transforms.features:
            features = mask(features, len(waveform) / rate, place)
        return Window(features, tokens, (row.id,), len(waveform))
