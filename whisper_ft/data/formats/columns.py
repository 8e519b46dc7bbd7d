"""Columns of common datasets: their usual names, their Arrow types, and extra columns for scores by group."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Self

import pyarrow as pa

from whisper_ft.config.data import SourceConfig
from whisper_ft.data.types import UnhonouredError
from whisper_ft.runtime.errors import UsageError

AUDIO_COLUMNS = ("audio", "path", "audio_filepath", "audio_file", "file_name", "file", "wav")
FILE_COLUMNS = ("file_name", "audio_file_name", *AUDIO_COLUMNS)
TEXT_COLUMNS = ("sentence", "text", "transcription", "transcript", "raw_text", "normalized_text")
LANGUAGE_COLUMNS = ("language", "lang", "locale")
"""Columns that named the language unasked under the first rules (`data.rules` 1)."""
SPEAKER_COLUMNS = ("speaker", "speaker_id", "client_id", "spk")
"""Usual names of the speaker's column, in every format. The first column with a value in the row is used."""


def is_text(kind: pa.DataType) -> bool:
    """True for an arrow type of text, also for text that is stored as categories."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_binary(kind: pa.DataType) -> bool:
    """True for an arrow type of bytes."""
    checks = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
    return any(check(kind) for check in checks)


def is_list(kind: pa.DataType) -> bool:
    """True for an arrow type of lists of any length."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def column_of(names: Sequence[str], wanted: str | None, usual: Sequence[str], setting: str, where: str) -> str:
    """Return the name of the `wanted` column, or without it the first of the `usual` names that is among `names`.

    A name in other case counts if none is exactly so. Raises UsageError if there is no such column, and UnhonouredError
    for a `wanted` one. The message begins with `where`, and lists `names` and the `setting` that chooses the column.
    """
    if wanted is None:
        column = _first_named(names, usual)
        missing = f"none of the columns {', '.join(usual)}"
    else:
        column = _first_named(names, [wanted])
        missing = f"no column {wanted!r}"
    if column is None:
        message = f"{where}: has {missing}; set --data.{setting} to one of {', '.join(names)}"
        raise UsageError(message) if wanted is None else UnhonouredError(setting, message)
    return column


def text_column_of(names: Sequence[str], where: SourceConfig, place: str) -> str | None:
    """Return the name of the column of the transcript, as `column_of` does.

    None if there is none and a column of segments is named, because segments have texts, or if none is needed.
    """
    may_lack_it = where.text_column is None and (where.segments_column or not where.NEEDS_TEXT)
    if may_lack_it and _first_named(names, TEXT_COLUMNS) is None:
        return None
    return column_of(names, where.text_column, TEXT_COLUMNS, "text_column", place)


def _first_named(names: Sequence[str], wanted: Sequence[str]) -> str | None:
    exact = next((name for name in wanted if name in names), None)
    folded = {name.strip().lower(): name for name in reversed(names)}
    return exact or next((folded[name.lower()] for name in wanted if name.lower() in folded), None)


def carried_columns(where: SourceConfig) -> dict[str, str]:
    """Return the columns that settings name and that travel as extra columns do, each with its setting."""
    settings = ("segments_column", "prompt_column")
    return {name: setting for setting in settings if (name := getattr(where, setting)) is not None}


def require_columns(names: Iterable[str], wanted: Sequence[str], place: str, where: SourceConfig) -> None:
    """Raise UsageError if one of the `wanted` columns is not among `names`; UnhonouredError if a setting names it.

    The message names the first missing column and lists `names`; it begins with `place`, the place of the columns. A
    column that no setting in `where` names is one of --columns.
    """
    present = list(names)
    missing = next((name for name in wanted if name not in present), None)
    if missing is None:
        return
    setting = carried_columns(where).get(missing)
    option = f"--data.{setting}" if setting else "--columns"
    some = "one" if setting else "some"
    choice = f"set {option} to {some} of {', '.join(present)}" if present else f"there is none; leave {option} out"
    message = f"{place}: has no column {missing!r}; {choice}"
    raise UnhonouredError(setting, message) if setting else UsageError(message)


def speaker_columns(schema: pa.Schema) -> list[str]:
    """Names of the columns of an arrow schema that may hold the speaker: a usual name, and plain values."""
    kinds = {name: schema.field(name).type for name in SPEAKER_COLUMNS if name in schema.names}
    return [name for name, kind in kinds.items() if not (pa.types.is_nested(kind) or is_binary(kind))]


def speaker_of(record: Mapping[str, object]) -> str | None:
    """Speaker of a row as text; None if no column of SPEAKER_COLUMNS has a value."""
    values = (record.get(name) for name in SPEAKER_COLUMNS)
    return next((str(value) for value in values if value is not None and value != ""), None)


class ExtraColumns:
    """Extra columns, whose values are carried along with the rows as texts. In training there are no extra columns.

    Parameters
        names: names of the columns
        labels: class names of each column that holds class numbers, as a ClassLabel of `datasets` does
    """

    def __init__(self, names: Sequence[str], labels: Mapping[str, Sequence[str]] | None = None) -> None:
        self.names, self._labels = tuple(names), dict(labels or {})

    @classmethod
    def in_schema(cls, schema: pa.Schema, wanted: Sequence[str], place: str, where: SourceConfig) -> Self:
        """Return the extra columns of an arrow schema. `place` names the file in messages.

        Raises UsageError for a column that is missing or does not hold plain values. Only columns that a setting names
        (`carried_columns`) may hold lists.
        """
        require_columns(schema.names, wanted, place, where)
        for name in wanted:
            kind = schema.field(name).type
            if is_binary(kind) or (pa.types.is_nested(kind) and name not in carried_columns(where)):
                raise UsageError(f"{place}: column {name!r} should be text, numbers or booleans, it is {kind}")
        return cls(wanted, class_names(schema) if wanted else None)

    def of(self, record: Mapping[str, object]) -> dict[str, str | None] | None:
        """Return the texts of a row's extra columns, with None for an empty value.

        Without extra columns the result is None.
        """
        return {name: self._text(name, record.get(name)) for name in self.names} if self.names else None

    def _text(self, name: str, value: object) -> str | None:
        labels = self._labels.get(name)
        if labels is None or not isinstance(value, int):
            return text_of(value)
        return labels[value] if 0 <= value < len(labels) else None  # -1 is an unknown class


def text_of(value: object) -> str | None:
    """Text of a value; None for null, an empty text, and NaN, which pandas writes for null.

    A list or mapping gives JSON.
    """
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    text = json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, list | dict) else str(value)
    return text.encode(errors="backslashreplace").decode()  # lone surrogates stand for bytes that were not UTF-8


def class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Class names of each ClassLabel, which `datasets` writes into the schema's metadata.

    Empty without such metadata.
    """
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        labels = {name: feature["names"] for name, feature in features.items() if feature.get("_type") == "ClassLabel"}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}  # not written by `datasets`, so there are no names
    return {name: names for name, names in labels.items() if isinstance(names, list)}
