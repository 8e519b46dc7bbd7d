"""Sources: where rows come from. A source knows its chunks and their row counts from an index, and reads one chunk."""

from collections.abc import Callable
from pathlib import Path

from whisper_ft import config
from whisper_ft.sources.audiofolder import open_audiofolder
from whisper_ft.sources.common_voice import open_common_voice
from whisper_ft.sources.fingerprint import changed
from whisper_ft.sources.format import format_of
from whisper_ft.sources.hub import open_hub
from whisper_ft.sources.kaldi import open_kaldi
from whisper_ft.sources.manifest import open_manifest
from whisper_ft.sources.mix import Mix
from whisper_ft.sources.parquet import open_parquet
from whisper_ft.sources.row import Row
from whisper_ft.sources.saved_dataset import open_saved_dataset
from whisper_ft.sources.source import Source
from whisper_ft.sources.webdataset import open_webdataset

__all__ = ["Mix", "Row", "Source", "changed", "open_mix", "open_source"]

LISTED_OR_SHARDED: dict[str, Callable[[config.Source], Source]] = {
    "audiofolder": open_audiofolder,
    "common_voice": open_common_voice,
    "kaldi": open_kaldi,
    "manifest": open_manifest,
    "saved_dataset": open_saved_dataset,
    "webdataset": open_webdataset,
}


def open_source(where: config.Source, cache: Path | None = None) -> Source:
    """The source that a path names; DataError or UsageError in one line if it is none.

    `cache` is a folder in which the index of remote files is kept, so that another start need not fetch it again.
    """
    found = format_of(where.path) if where.format == "auto" else where.format
    if found == "parquet":
        return open_parquet(where, cache)
    if found == "hub":
        return open_hub(where, cache)
    return LISTED_OR_SHARDED[found](where)


def open_mix(data: config.Data, cache: Path | None = None) -> Mix:
    """What a run trains on: the source of data.path, or those of data.sources by their weights."""
    if not data.sources:
        return Mix([open_source(data, cache)], [1.0], [(data.language, data.task)])
    says = [(language, source.task) for language, source in zip(data.languages, data.sources, strict=True)]
    return Mix(
        [open_source(source, cache) for source in data.sources], [source.weight for source in data.sources], says
    )
