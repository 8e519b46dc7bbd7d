"""Opening of data sources by path and format.

A source knows its chunks and their row counts from an index, and reads one chunk at a time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, cast

from whisper_ft.config.data import DataConfig, Format, SourceConfig, WeightedSourceConfig
from whisper_ft.data.formats.audiofolder import open_audiofolder
from whisper_ft.data.formats.common_voice import open_common_voice
from whisper_ft.data.formats.detect import format_of
from whisper_ft.data.formats.hub import commit_of, open_hub
from whisper_ft.data.formats.kaldi import open_kaldi
from whisper_ft.data.formats.manifest import open_manifest
from whisper_ft.data.formats.mixture import MixedSource
from whisper_ft.data.formats.parquet import open_parquet
from whisper_ft.data.formats.saved_dataset import open_saved_dataset
from whisper_ft.data.formats.transcript_files import open_librispeech, open_pairs
from whisper_ft.data.formats.webdataset import open_webdataset
from whisper_ft.data.storage.retry import patiently, retry_busy_servers
from whisper_ft.data.types import Source

retry_busy_servers()


class _Open(Protocol):
    def __call__(self, where: SourceConfig, *, columns: Sequence[str]) -> Source: ...


class _OpenCached(Protocol):
    def __call__(self, where: SourceConfig, cache: Path | None, columns: Sequence[str]) -> Source: ...


UNCACHED: dict[str, _Open] = {
    "audiofolder": open_audiofolder,
    "common_voice": open_common_voice,
    "kaldi": open_kaldi,
    "librispeech": open_librispeech,
    "manifest": open_manifest,
    "pairs": open_pairs,
    "saved_dataset": open_saved_dataset,
}
"""Formats whose index is read again at each start."""
CACHED: dict[str, _OpenCached] = {"parquet": open_parquet, "hub": open_hub, "webdataset": open_webdataset}
"""Formats whose index is kept in a folder between starts."""


def open_source(where: SourceConfig, cache: Path | None = None, columns: Sequence[str] = ()) -> Source:
    """Open the data source at a path, in the format that is set or detected.

    `cache` is a folder in which the index of remote files and of tars is kept, so that a later start reuses it.
    `columns` are extra columns to read into `Row.columns`.

    Raises DataError or UsageError, with a message of one line, if the path has no readable source. A missing extra
    column raises UsageError.
    """
    name = patiently(lambda: _format(where))
    if name in CACHED:
        return patiently(lambda: CACHED[name](where, cache, columns))
    return patiently(lambda: UNCACHED[name](where, columns=columns))


def open_mixture(data: DataConfig, cache: Path | None = None) -> MixedSource:
    """Open the training data of a run: the source of data.path, or the mixture of data.sources by weight."""
    if not data.sources:
        return MixedSource([open_source(data, cache)], [1.0], [(data.language, data.task)])
    defaults = [(language, source.task) for language, source in zip(data.languages, data.sources, strict=True)]
    return MixedSource(
        [open_source(source, cache) for source in data.sources], [source.weight for source in data.sources], defaults
    )


def pin(
    where: SourceConfig, then: Mapping[str, Any] | None = None, recorded: Mapping[str, Any] | None = None
) -> SourceConfig:
    """Return the settings of a source with its revision on the Hub replaced by a commit.

    All ranks and a resumed run then read the same data. A source that is not on the Hub has no commit, so its settings
    are returned unchanged.

    `then` are the settings of the earlier start and `recorded` is its fingerprint; both are None for a new run. The
    commit is the recorded one if path, configuration and revision are unchanged. Otherwise it is the commit that the
    revision names now.
    """
    if _format(where) != "hub":
        return where
    is_same = then is not None and all(
        then.get(name) == getattr(where, name) for name in ("path", "config_name", "revision")
    )
    commit = (recorded or {}).get("commit") if is_same else None
    return replace(where, revision=commit or patiently(lambda: commit_of(where)))


def pin_mixture(
    data: DataConfig, then: Mapping[str, Any] | None = None, recorded: Mapping[str, Any] | None = None
) -> DataConfig:
    """Return the settings of the training data with each revision on the Hub replaced by a commit, as `pin` does."""
    if not data.sources:
        return cast(DataConfig, pin(data, then, recorded))
    before, fingerprints = (then or {}).get("sources") or [], (recorded or {}).get("sources") or [recorded]
    known = [*zip(before, fingerprints, strict=False), *[(None, None)] * len(data.sources)]
    sources = [pin(source, *known[number]) for number, source in enumerate(data.sources)]
    return replace(data, sources=cast(list[WeightedSourceConfig], sources))


def _format(where: SourceConfig) -> Format:
    return format_of(where.path) if where.format == "auto" else where.format
