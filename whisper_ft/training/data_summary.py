"""What a person is told of the data before the first step: how a mix comes out, what is learned, what looks wrong."""

from collections.abc import Iterator
from itertools import islice

from whisper_ft.data.formats.mixture import MixedSource
from whisper_ft.data.labels.rewrite import LabelNormalizer
from whisper_ft.data.leakage import shared_by_index
from whisper_ft.data.types import Source

SHOWN_TO_REWRITING = 100  # transcripts


def summary_lines(
    source: MixedSource, heldout: Source | None, lanes: int, rewriting: LabelNormalizer | None, language: str | None
) -> Iterator[str]:
    """For a run that begins: one chunk at most is read. `language` is that of rows that name none."""
    if mixed := source.realised(lanes):
        yield mixed
    if rewriting is not None:
        first = islice(source.read(next(chunk for chunk, rows in enumerate(source.rows) if rows)), SHOWN_TO_REWRITING)
        yield from rewriting.told((row.text, row.language or language) for row in first)
    if heldout is not None and (shared := shared_by_index(source, heldout)):
        yield (
            f"warning: the held-out set may be trained on: {shared}; "
            "`python -m whisper_ft doctor` compares words and sound"
        )


def cache_warning(source: MixedSource, chunks: int, cached_bytes: float) -> str:
    """A line where a reader's share of data.cache_gb does not hold the chunks that its lanes are in; "" where it does.

    `chunks` of the stream are needed at a time; a chunk that had to go is read again for each lane that is in it.
    """
    needed = (source.largest_chunk or 0) * chunks
    if needed <= cached_bytes:
        return ""
    return (
        f"warning: {needed / 1e9:.2g} GB are needed to hold the {chunks} chunks that a reader is in, and its share of "
        f"data.cache_gb is {cached_bytes / 1e9:.2g}: chunks will be read again and again. Raise data.cache_gb, lower "
        "data.window_chunks, or write smaller row groups with `python -m whisper_ft prepare`"
    )
