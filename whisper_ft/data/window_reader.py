"""Reader of windows: rows of a source are read by chunk, and the builder makes windows from them."""

import math
from collections import OrderedDict
from collections.abc import Sequence

from whisper_ft.data.audio.log_mel import LogMel
from whisper_ft.data.augment.transforms import Transforms
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.data.packing.clip import Clip
from whisper_ft.data.sampling.order import Place
from whisper_ft.data.types import Rejected, RejectedError, Row, Source, Window
from whisper_ft.data.window_builder import WindowBuilder, WindowSettings


class WindowReader:
    """Turns blocks of rows into windows, and caches chunks so that each chunk is read about once.

    The cache should hold the chunks of all lanes that are read here. Lanes are the interleaved streams of
    `sampling.order`.

    Parameters
        cached_chunks: most chunks in the cache.
        cached_bytes: most bytes of audio in the cache. Beyond these bounds a chunk is dropped, and read again when
            needed.
        settings: of packing, labels and gaps; None for those of a run that sets none of them.
    """

    def __init__(
        self,
        source: Source,
        log_mel: LogMel,
        encode: LabelEncoder,
        cached_chunks: int,
        cached_bytes: float = math.inf,
        transforms: Transforms | None = None,
        settings: WindowSettings | None = None,
    ) -> None:
        self._source = source
        self.builder = WindowBuilder(log_mel, encode, transforms or Transforms(), settings or WindowSettings())
        self._cached_chunks, self._cached_bytes = cached_chunks, cached_bytes
        self._chunks: OrderedDict[int, Sequence[Row]] = OrderedDict()
        self._bytes: dict[int, int] = {}  # bytes of audio of each cached chunk

    def windows(self, places: Sequence[Place]) -> list[Window | Rejected]:
        """Return the windows of a block, and a `Rejected` for each row that cannot be used, with its number there.

        Without packing each row gives one of the two, in order, and some windows are followed by one without speech.
        """
        items = self.clips(places)
        found = list[Window | Rejected]()
        for block in [items] if self.builder.packs else [[item] for item in items]:
            found += self.builder.windows([item for item in block if isinstance(item, Clip)])
            found += [item for item in block if isinstance(item, Rejected)]
        return found

    def clips(self, places: Sequence[Place]) -> list[Clip | Rejected]:
        """Return the decoded utterance of each row of a block, or the `Rejected` of one that cannot be used."""
        return [self._clip(place, slot) for slot, place in enumerate(places)]

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

    def _clip(self, place: Place, slot: int) -> Clip | Rejected:
        """Return the decoded utterance of one row, or the reason why the row cannot be used."""
        row = self.row(place.chunk, place.row)
        try:
            return self.builder.clip(self._chunks[place.chunk], place)
        except RejectedError as error:
            return Rejected(row.id, error.reason, error.detail, slot)
