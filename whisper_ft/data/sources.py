"""Sources: where rows come from. A source knows its chunks and their row counts from an index, and reads one chunk."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, cast

from whisper_ft.config.data import DataConfig, Format, SourceConfig, WeightedSourceConfig
from whisper_ft.data.formats.audiofolder import open_audiofolder
from whisper_ft.data.formats.common_voice import open_common_voice
from whisper_ft.data.formats.detect import format_of
from whisper_ft.data.formats.fingerprint import changed
from whisper_ft.data.formats.hub import commit_of, open_hub
from whisper_ft.data.formats.kaldi import open_kaldi
from whisper_ft.data.formats.manifest import open_manifest
from whisper_ft.data.formats.mixture import MixedSource
from whisper_ft.data.formats.parquet import open_parquet
from whisper_ft.data.formats.saved_dataset import open_saved_dataset
from whisper_ft.data.formats.webdataset import open_webdataset
from whisper_ft.data.types import Row, Source

__all__ = ["MixedSource", "Row", "Source", "changed", "open_mixture", "open_source", "pin", "pin_mixture"]


class _Open(Protocol):
    def __call__(self, where: SourceConfig, *, columns: Sequence[str]) -> Source: ...


LISTED_OR_SHARDED: dict[str, _Open] = {
    "audiofolder": open_audiofolder,
    "common_voice": open_common_voice,
    "kaldi": open_kaldi,
    "manifest": open_manifest,
    "saved_dataset": open_saved_dataset,
}


def open_source(where: SourceConfig, cache: Path | None = None, columns: Sequence[str] = ()) -> Source:
    """The source that a path names; DataError or UsageError in one line if it is none.

    `cache` is a folder in which the index of remote files and of tars is kept, so that another start need not make it.
    `columns` are others to be read into `Row.columns`; UsageError for one that is not there.
    """
    found = _format(where)
    if found == "parquet":
        return open_parquet(where, cache, columns)
    if found == "hub":
        return open_hub(where, cache, columns)
    if found == "webdataset":
        return open_webdataset(where, cache, columns)
    return LISTED_OR_SHARDED[found](where, columns=columns)


def open_mixture(data: DataConfig, cache: Path | None = None) -> MixedSource:
    """What a run trains on: the source of data.path, or those of data.sources by their weights."""
    if not data.sources:
        return MixedSource([open_source(data, cache)], [1.0], [(data.language, data.task)])
    says = [(language, source.task) for language, source in zip(data.languages, data.sources, strict=True)]
    return MixedSource(
        [open_source(source, cache) for source in data.sources], [source.weight for source in data.sources], says
    )


def pin(
    where: SourceConfig, then: Mapping[str, Any] | None = None, recorded: Mapping[str, Any] | None = None
) -> SourceConfig:
    """A data set on the Hub at one commit, so that all ranks and a resumed run read the same; all else as it is.

    `then` are the settings, and `recorded` is the fingerprint, of an earlier start: where the settings are as they
    were, the commit is too. Else it is what the revision names now.
    """
    if _format(where) != "hub":
        return where
    is_same = then is not None and all(
        then.get(name) == getattr(where, name) for name in ("path", "config_name", "revision")
    )
    commit = (recorded or {}).get("commit") if is_same else None
    return replace(where, revision=commit or commit_of(where))


def pin_mixture(
    data: DataConfig, then: Mapping[str, Any] | None = None, recorded: Mapping[str, Any] | None = None
) -> DataConfig:
    """As `pinned`, of what a run trains on."""
    if not data.sources:
        return cast(DataConfig, pin(data, then, recorded))
    before, fingerprints = (then or {}).get("sources") or [], (recorded or {}).get("sources") or [recorded]
    known = [*zip(before, fingerprints, strict=False), *[(None, None)] * len(data.sources)]
    sources = [pin(source, *known[number]) for number, source in enumerate(data.sources)]
    return replace(data, sources=cast(list[WeightedSourceConfig], sources))


def _format(where: SourceConfig) -> Format:
    return format_of(where.path) if where.format == "auto" else where.format
