"""Opening of data sources by path and format.

A source knows its chunks and their row counts from an index, and reads one chunk at a time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from whisper_ft.config.data import DataConfig, Format, SourceConfig
from whisper_ft.config.evaluation import EvalSetConfig
from whisper_ft.config.training import TrainingConfig
from whisper_ft.config.tree import with_values
from whisper_ft.data.formats.audiofolder import open_audiofolder
from whisper_ft.data.formats.columns import carried_columns
from whisper_ft.data.formats.common_voice import open_common_voice
from whisper_ft.data.formats.detect import format_of
from whisper_ft.data.formats.honoured import given_of, ignored_early, refuse_unhonoured, with_early_rules
from whisper_ft.data.formats.hub import commit_of, open_hub
from whisper_ft.data.formats.kaldi import open_kaldi
from whisper_ft.data.formats.manifest import open_manifest
from whisper_ft.data.formats.mixture import MixedSource
from whisper_ft.data.formats.parquet import open_parquet
from whisper_ft.data.formats.saved_dataset import open_saved_dataset
from whisper_ft.data.formats.subtitle_files import open_subtitles
from whisper_ft.data.formats.transcript_files import open_librispeech, open_pairs
from whisper_ft.data.formats.webdataset import open_webdataset
from whisper_ft.data.labelled import LabelledSource
from whisper_ft.data.storage.retry import patiently, retry_busy_servers
from whisper_ft.data.types import FormatSource, UnhonouredError
from whisper_ft.runtime.errors import UsageError

S = TypeVar("S", bound=SourceConfig)

retry_busy_servers()


class _Open(Protocol):
    def __call__(self, where: SourceConfig, *, columns: Sequence[str]) -> FormatSource: ...


class _OpenCached(Protocol):
    def __call__(self, where: SourceConfig, cache: Path | None, columns: Sequence[str]) -> FormatSource: ...


UNCACHED: dict[str, _Open] = {
    "audiofolder": open_audiofolder,
    "common_voice": open_common_voice,
    "kaldi": open_kaldi,
    "librispeech": open_librispeech,
    "manifest": open_manifest,
    "pairs": open_pairs,
    "saved_dataset": open_saved_dataset,
    "subtitles": open_subtitles,
}
"""Formats whose index is read again at each start."""
CACHED: dict[str, _OpenCached] = {"parquet": open_parquet, "hub": open_hub, "webdataset": open_webdataset}
"""Formats whose index is kept in a folder between starts."""


def open_source(where: SourceConfig, cache: Path | None = None, columns: Sequence[str] = ()) -> LabelledSource:
    """Open the data source at a path, in the format that is set or detected.

    `cache` is a folder in which the index of remote files and of tars is kept, so that a later start reuses it.
    `columns` are extra columns to read into `Row.columns`.

    Raises DataError or UsageError, with a message of one line, if the path has no readable source. A missing extra
    column raises UsageError, and a setting that cannot be honoured raises UnhonouredError.
    """
    name = patiently(lambda: _format(where))
    read_as = with_early_rules(where, name) if where.reading == 1 else where
    refuse_unhonoured(read_as, name)
    carried = list(dict.fromkeys([*columns, *carried_columns(read_as)]))
    if name in CACHED:
        return LabelledSource(patiently(lambda: CACHED[name](read_as, cache, carried)), read_as, columns)
    return LabelledSource(patiently(lambda: UNCACHED[name](read_as, columns=carried)), read_as, columns)


def open_held_out(config: TrainingConfig, where: SourceConfig, cache: Path | None = None) -> LabelledSource:
    """Open the held-out set of a run. Settings that it inherits from data.* and cannot honour are left out.

    `where` is `config.held_out`, possibly pinned to a commit. Raises DataError or UsageError as `open_source` does. A
    setting of its own that cannot be honoured raises UsageError.
    """
    plain = SourceConfig()
    while True:
        try:
            return open_source(where, cache)
        except UnhonouredError as error:
            name = error.setting
            if name not in config.inherited or getattr(where, name) == getattr(plain, name):
                raise UsageError(str(error).replace("--data.split", "--eval.split")) from error
            where = with_values(where, {name: getattr(plain, name)})


def open_eval_set(where: EvalSetConfig, cache: Path | None = None) -> LabelledSource:
    """Open a set of eval.sets, of which a message names the set. Raises DataError or UsageError as `open_source` does.

    `where` are the settings that `EvalConfig.sets_beside` completed.
    """
    try:
        return open_source(where, cache)
    except UsageError as error:
        raise of_eval_set(error, where.name) from error


def of_eval_set(error: UsageError, name: str) -> UsageError:
    """Return the error of a set of eval.sets, with the set in place of `--data.`, or else before the message."""
    prefix, message = f"--eval.sets: {name}: ", str(error)
    return UsageError(message.replace("--data.", prefix) if "--data." in message else prefix + message)


def open_mixture(data: DataConfig, cache: Path | None = None) -> MixedSource:
    """Open the training data of a run: the source of data.path, or the mixture of data.sources by weight.

    Raises DataError or UsageError as `open_source` does.
    """
    labels = list(zip(data.languages, data.tasks, strict=True))
    if not data.sources:
        return MixedSource([open_source(sources_of(data)[0], cache)], [1.0], labels)
    opened = [open_source(where, cache) for where in sources_of(data)]
    return MixedSource(opened, [source.weight for source in data.sources], labels)


def sources_of(data: DataConfig) -> list[SourceConfig]:
    """Return the settings of each source of a mixture, or of the only source, with the labels that it inherits.

    Under the first rules (data.reading 1) no labels are inherited.
    """
    parts: Sequence[SourceConfig] = data.sources or [data]
    if data.reading == 1:
        return [*parts]
    return [replace(part, language=part.language or data.language, task=part.task or data.task) for part in parts]


def refuse_beside_sources(config: TrainingConfig) -> None:
    """Raise UsageError for a setting of data.* that neither a source of data.sources nor a held-out set takes.

    Nothing is refused without data.sources, or under the first rules (data.reading 1).
    """
    if config.data.reading == 1 or not config.data.sources:
        return
    used = {"path", "language", "task", "reading"} | (config.inherited if config.held_out else set())
    for name in given_of(config.data):
        if name not in used:
            value = getattr(config.data, name)
            raise UsageError(f"--data.{name} {value}: has no effect beside data.sources; give {name} to each source")


def ignored_settings(config: TrainingConfig) -> list[str]:
    """Return a line for each setting that a run with the first rules (data.reading 1) goes on to ignore."""
    data, held_out = config.data, config.held_out
    parts: list[tuple[str, SourceConfig]] = [(f"data.sources.{n}.", part) for n, part in enumerate(data.sources)]
    parts = parts or [("data.", data)]
    if held_out and held_out.reading == 1:
        own = SourceConfig(path=held_out.path, format=held_out.format, split=held_out.split, reading=1)
        parts.append(("eval.", own))  # without the settings that it inherits
    return [
        f"{prefix}{name} {getattr(where, name)} is ignored, as it was when this run began (data.reading 1)"
        for prefix, where in parts
        for name in (ignored_early(where, _format(where)) if where.reading == 1 else ())
    ]


def pin(where: S, then: Mapping[str, Any] | None = None, recorded: Mapping[str, Any] | None = None) -> S:
    """Return the settings of a source with its revision on the Hub replaced by a commit.

    All ranks and a resumed run then read the same data. A source that is not on the Hub has no commit, so its settings
    are returned unchanged.

    `then` are the settings of the earlier start and `recorded` is its fingerprint; both are None for a new run. The
    commit is the recorded one if path, configuration and revision are unchanged. Otherwise it is the commit that the
    revision names now. Raises UsageError or DataError if the Hub does not give it.
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
        return pin(data, then, recorded)
    before, fingerprints = (then or {}).get("sources") or [], (recorded or {}).get("sources") or [recorded]
    known = [*zip(before, fingerprints, strict=False), *[(None, None)] * len(data.sources)]
    sources = [pin(source, *known[number]) for number, source in enumerate(data.sources)]
    return replace(data, sources=sources)


def _format(where: SourceConfig) -> Format:
    return format_of(where.path) if where.format == "auto" else where.format
