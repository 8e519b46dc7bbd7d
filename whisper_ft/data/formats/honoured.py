"""Settings of a data set that each format honours, and the reason why it cannot honour the others."""

from dataclasses import fields
from typing import Any, TypeVar

from whisper_ft.config.data import SourceConfig
from whisper_ft.config.tree import with_values
from whisper_ft.data.formats.label_columns import FOUND
from whisper_ft.data.formats.parquet_splits import ALL
from whisper_ft.data.types import UnhonouredError

S = TypeVar("S", bound=SourceConfig)

_REVISION = "only a data set on the Hub, owner/name, has revisions; an address holds its own: hf://datasets/a/b@main"
_CONFIG = "this format has no configurations; give the folder or file of the one that is meant as the path"
_INSIDE = "the audio is inside the data, and no file is named"
_BESIDE = "the audio lies beside the transcripts"
_NO_COLUMNS = "this format has no columns"
_OF_TEXT_FILES = {
    "config_name": _CONFIG,
    "revision": _REVISION,
    "audio_root": _BESIDE,
    "audio_column": _NO_COLUMNS,
    "text_column": _NO_COLUMNS,
    "language_column": _NO_COLUMNS,
    "task_column": _NO_COLUMNS,
    "segments_column": _NO_COLUMNS,
    "prompt_column": _NO_COLUMNS,
}
REFUSED: dict[str, dict[str, str]] = {
    "parquet": {"revision": _REVISION, "audio_root": _INSIDE, "allowed_folders": _INSIDE},
    "hub": {"audio_root": _INSIDE, "allowed_folders": _INSIDE},
    "common_voice": {"revision": _REVISION, "audio_root": _BESIDE},
    "webdataset": {
        "split": "tar shards have no splits; choose them by name, as in --data.path train-*.tar",
        "config_name": _CONFIG,
        "revision": _REVISION,
        "audio_root": _INSIDE,
        "allowed_folders": _INSIDE,
        "audio_column": "the audio of a sample is known by the suffix of its file",
    },
    "manifest": {
        "split": "a manifest is one list of utterances; give the manifest of that split as the path",
        "config_name": _CONFIG,
        "revision": _REVISION,
    },
    "audiofolder": {"config_name": _CONFIG, "revision": _REVISION},
    "saved_dataset": {"config_name": _CONFIG, "revision": _REVISION},
    "kaldi": {
        "split": "a Kaldi folder is one set; give the folder of that split as the path",
        "config_name": _CONFIG,
        "revision": _REVISION,
        "audio_column": "wav.scp names the audio",
        "text_column": "the file `text` holds the transcripts",
    },
    "librispeech": _OF_TEXT_FILES,
    "pairs": _OF_TEXT_FILES,
    "subtitles": {name: reason for name, reason in _OF_TEXT_FILES.items() if name != "text_column"},
}
"""By format and setting, the reason why the setting cannot be honoured. Other settings have an effect.

tests/test_honoured_settings.py tries every setting in every format."""


def given_of(where: SourceConfig) -> list[str]:
    """Return the names of the settings that differ from their default."""
    plain = SourceConfig()
    return [f.name for f in fields(SourceConfig) if getattr(where, f.name) != getattr(plain, f.name)]


def refuse_unhonoured(where: SourceConfig, format_name: str) -> None:
    """Raise UnhonouredError for the first setting that was given and has no effect in the format."""
    for name in given_of(where):
        if reason := REFUSED[format_name].get(name):
            value = getattr(where, name)
            raise UnhonouredError(
                name, f"--data.{name} {value}: has no effect on {where.path}, read as {format_name}: {reason}"
            )


def with_early_rules(where: S, format_name: str) -> S:
    """Return the settings that read a data set as the first rules (`data.reading` 1) did.

    Settings that the format ignored are left out, and columns of language and task win where they are found.
    """
    plain = SourceConfig()
    values: dict[str, Any] = {name: getattr(plain, name) for name in ignored_early(where, format_name)}
    if format_name == "parquet":
        values["split"] = ALL
    columns = ("language_column", "task_column")
    return with_values(where, values | {name: FOUND for name in columns if name not in REFUSED[format_name]})


def ignored_early(where: SourceConfig, format_name: str) -> list[str]:
    """Return the names of the settings that were given and that the first rules ignored in the format."""
    ignored = [*REFUSED[format_name], *(("split", "config_name") if format_name == "parquet" else ())]
    return [name for name in given_of(where) if name in ignored]
