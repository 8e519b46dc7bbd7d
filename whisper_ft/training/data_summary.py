"""Lines about the data before the first step: shares of a mixture, rewritten transcripts, warnings."""

from collections.abc import Iterator
from itertools import islice

from whisper_ft.data.formats.mixture import MixedSource
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.data.leakage import shared_by_index
from whisper_ft.data.types import Source

MAX_EXAMPLES = 100  # transcripts that are shown to the label normaliser


def summary_lines(source: MixedSource, held_out: Source | None, lanes: int, encode: LabelEncoder) -> Iterator[str]:
    """Lines about the data of a new run, from the index and at most one chunk."""
    if shares := source.realised(lanes):
        yield shares
    if encode.normalizer is not None:
        chunk = next(number for number, rows in enumerate(source.rows) if rows)
        rows = islice(source.read(chunk), MAX_EXAMPLES)
        yield from encode.normalizer.examples((row.text, row.language or encode.language) for row in rows)
    if held_out is not None and (shared := shared_by_index(source, held_out)):
        yield (
            f"warning: held-out rows may be in the training data: {shared}; "
            "`python -m whisper_ft doctor` compares transcripts and audio"
        )


def cache_warning(source: MixedSource, chunks: int, cached_bytes: float) -> str:
    """Warning if a reader's share of `data.cache_gb` is smaller than the chunks that it needs at a time; else "".

    A chunk that was dropped from the cache is read again for each lane that is in it.
    """
    needed = (source.largest_chunk or 0) * chunks
    if needed <= cached_bytes:
        return ""
    return (
        f"warning: a reader needs {needed / 1e9:.2g} GB for its {chunks} chunks, and its share of data.cache_gb is "
        f"{cached_bytes / 1e9:.2g}, so chunks will be read again and again. Raise data.cache_gb, lower "
        "data.window_chunks, or write smaller row groups with `python -m whisper_ft.prepare`"
    )
