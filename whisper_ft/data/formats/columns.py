"""What the columns of other people's tables are called, and those that travel with the rows to be scores' groups."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import pyarrow as pa

from whisper_ft.runtime.errors import UsageError

AUDIO_COLUMNS = ("audio", "path", "audio_filepath", "audio_file", "file_name", "file", "wav")
TEXT_COLUMNS = ("sentence", "text", "transcription", "transcript", "raw_text", "normalized_text")


def column_of(names: Sequence[str], wanted: str | None, usual: Sequence[str], setting: str, where: str) -> str:
    """The column that is `wanted`, or the first of the `usual` names that is there; else UsageError with the choice."""
    if wanted is None:
        found = next((name for name in usual if name in names), None)
        missing = f"none of the columns {', '.join(usual)}"
    else:
        found = wanted if wanted in names else None
        missing = f"no column {wanted!r}"
    if found is None:
        raise UsageError(f"{where}: has {missing}; set --data.{setting} to one of {', '.join(names)}")
    return found


def require_columns(names: Iterable[str], wanted: Sequence[str], where: str) -> None:
    """UsageError, with the choice, where one of the columns to carry is not among the `names`."""
    there = list(names)
    missing = next((name for name in wanted if name not in there), None)
    if missing is not None:
        choice = f"set --columns to some of {', '.join(there)}" if there else "there is none; leave --columns out"
        raise UsageError(f"{where}: has no column {missing!r}; {choice}")


class ExtraColumns:
    """Columns that travel with the rows, as texts. None are asked for in training."""

    def __init__(self, names: Sequence[str], labels: Mapping[str, Sequence[str]] | None = None) -> None:
        """`labels` are the names that the numbers of a column stand for, as in a ClassLabel of `datasets`."""
        self.names, self._labels = tuple(names), dict(labels or {})

    @classmethod
    def in_schema(cls, schema: pa.Schema, wanted: Sequence[str], where: str) -> Self:
        """Those of an arrow schema; UsageError for one that is not there, or holds no plain values."""
        require_columns(schema.names, wanted, where)
        for name in wanted:
            kind = schema.field(name).type
            if pa.types.is_nested(kind) or _is_binary(kind):
                raise UsageError(f"{where}: column {name!r} should be text, numbers or booleans, it is {kind}")
        return cls(wanted, _labels(schema) if wanted else None)

    def of(self, record: Mapping[str, Any]) -> dict[str, str | None] | None:
        """What a row says in them, null where it says nothing; None where no column is asked for."""
        return {name: self._text(name, record.get(name)) for name in self.names} if self.names else None

    def _text(self, name: str, value: Any) -> str | None:
        labels = self._labels.get(name)
        if labels is None or not isinstance(value, int):
            return text_of(value)
        return labels[value] if 0 <= value < len(labels) else None  # -1 is a label that is not known


def text_of(value: Any) -> str | None:
    """A value as text; None for what says nothing: null, an empty text, and NaN, which pandas writes for null."""
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    text = json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, list | dict) else str(value)
    return text.encode(errors="backslashreplace").decode()  # lone surrogates: what was no UTF-8


def _labels(schema: pa.Schema) -> dict[str, list[str]]:
    """Names of the values of each ClassLabel, which `datasets` writes beside the numbers."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        found = {name: feature["names"] for name, feature in features.items() if feature.get("_type") == "ClassLabel"}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}  # not written by `datasets`: the numbers are what there is
    return {name: names for name, names in found.items() if isinstance(names, list)}


def _is_binary(kind: pa.DataType) -> bool:
    checks = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
    return any(check(kind) for check in checks)
