"""Lines about the data before the first step: shares of a mixture, rewritten transcripts, warnings."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from whisper_ft.config.training import TrainingConfig
from whisper_ft.config.waveform import words_for
from whisper_ft.data.formats.mixture import MixedSource
from whisper_ft.data.labelled import LabelledSource
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.data.leakage import shared_by_index, shared_by_name
from whisper_ft.data.sampling.block_partition import BlockPartition
from whisper_ft.data.sources import ignored_settings
from whisper_ft.data.stated_durations import first_durations
from whisper_ft.data.types import Source
from whisper_ft.data.used_settings import used_lines
from whisper_ft.runtime.printable import counted

MAX_EXAMPLES = 100  # transcripts that are rewritten to count changes and to find examples


def settings_lines(
    config: TrainingConfig,
    source: MixedSource,
    held_out: LabelledSource | None,
    sets: Mapping[str, LabelledSource],
    encode: LabelEncoder,
) -> Iterator[str]:
    """Return lines about what is read of each set, and about settings and columns that are not used.

    `sets` are those of eval.sets, by name.
    """
    for number, part in enumerate(source.parts):
        name = "training data" if len(source.parts) == 1 else f"data.sources.{number}"
        yield from used_lines(name, part, encode.language)
    if held_out is not None:
        yield from used_lines("held-out set", held_out, encode.language)
    for name, of_set in sets.items():
        yield from used_lines(f"set {name}", of_set, encode.language)
    if sets and held_out is None:
        yield "no held-out set (eval.path, eval.split), so no best model is chosen"
    if config.augment.waveform:
        yield f"sound of training utterances: augmented by {words_for(config.augment.waveform)}"
    yield from ignored_settings(config)


def summary_lines(
    source: MixedSource,
    held_out: Source | None,
    sets: Mapping[str, Source],
    lanes: int,
    encode: LabelEncoder,
    recordings: Sequence[Path],
) -> Iterator[str]:
    """Return lines for the user about the data of a new run. At most one chunk of the data is read for them.

    One more chunk is read of each list that states durations. `sets` are those of eval.sets, by name. `recordings` are
    those that the run hears beside its rows.
    """
    yield from source.notes
    yield from first_durations(source.parts)
    if shares := source.realised(lanes):
        yield shares
    if encode.normalizer is not None:
        chunk = next(number for number, rows in enumerate(source.rows) if rows)
        rows = islice(source.read(chunk), MAX_EXAMPLES)
        yield from encode.normalizer.examples((row.text, row.language or encode.language) for row in rows)
    compared = {"held-out rows": held_out, **{f"rows of the set {name}": of_set for name, of_set in sets.items()}}
    for name, scored in compared.items():
        if scored is not None and (shared := shared_by_index(source, scored)):
            yield (
                f"warning: {name} may be in the training data: {shared}; "
                "`python -m whisper_ft doctor` compares transcripts and audio"
            )
        if scored is not None and (shared := shared_by_name(recordings, scored)):
            yield f"warning: {name} may be among the recordings of noise: {shared}; the doctor compares the audio"


def packing_lines(partition: BlockPartition, workers: int) -> Iterator[str]:
    """Yield a line about the blocks of a packed step, and a warning if some data workers get none."""
    sizes = [len(slots) for slots in partition.slots_of_blocks]
    sized = f"{min(sizes)}" if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)}"
    of_ranks = [len(partition.blocks_of(rank)) for rank in range(partition.world)]
    each = "" if partition.world == 1 else f", for the processes {', '.join(map(str, of_ranks))}"
    yield (
        f"packing: a step of {partition.batch_size} utterances is {counted(len(sizes), 'block')} of {sized}{each}; the "
        "utterances of a block share windows"
    )
    if workers > max(of_ranks):
        yield (
            f"warning: data.workers {workers}: only {max(of_ranks)} have work, because a process has as many blocks in "
            "a step. Lower pack.block or raise batch.size for more"
        )


def cache_warning(source: MixedSource, chunks: int, cached_bytes: float) -> str:
    """Return a warning if a reader's part of `data.cache_gb` cannot hold the chunks that it reads in turn; else "".

    `chunks` is the number of these chunks, and `cached_bytes` the reader's part. Chunks of unknown size give "".

    A reader takes rows from several chunks in turn. A chunk that does not stay in the cache is therefore read many
    times.
    """
    needed = (source.largest_chunk or 0) * chunks
    if needed <= cached_bytes:
        return ""
    return (
        f"warning: a reader needs {needed / 1e9:.2g} GB for its {chunks} chunks, and its share of data.cache_gb is "
        f"{cached_bytes / 1e9:.2g}, so chunks will be read again and again. Raise data.cache_gb, lower "
        "data.window_chunks, or write smaller row groups with `python -m whisper_ft.prepare`"
    )
