"""Stored clips of a set: the encoded audio of an utterance by its id."""

from collections.abc import Callable
from functools import lru_cache

from whisper_ft.config.data import SourceConfig
from whisper_ft.data.sources import open_source


def stored_clips(where: SourceConfig) -> Callable[[str], bytes | None]:
    """Return a function from the id of an utterance to its encoded audio.

    For a part of a longer recording, and for audio that is missing or cannot be used, the function returns None. It
    raises KeyError for an id that the set does not have.
    """
    source = open_source(where)
    read_chunk = lru_cache(maxsize=2)(source.read)  # many of the worst utterances of a long set share a chunk
    places = {source.row_id(chunk, row): (chunk, row) for chunk, rows in enumerate(source.rows) for row in range(rows)}

    def clip(utterance: str) -> bytes | None:
        chunk, number = places[utterance]
        row = read_chunk(chunk)[number]
        is_part = row.offset or row.duration is not None
        return None if is_part or row.problem else row.audio or None

    return clip
