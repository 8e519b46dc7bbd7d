"""Columns of language and task: the columns that are read, and their values as text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import pyarrow as pa

from whisper_ft.config.data import SourceConfig
from whisper_ft.data.formats.columns import class_names, is_text
from whisper_ft.data.types import Labels, UnhonouredError, UsedParts
from whisper_ft.runtime.errors import UsageError

FOUND = "*"
"""Value of `language_column` and `task_column` under the first rules: a column that is found wins over the setting."""
LANGUAGE, TASK = "language", "task"
EXAMPLES = {LANGUAGE: "'be'", TASK: "'transcribe'"}
"""Example value of each kind of column."""


def named_column(where: SourceConfig, kind: str) -> str | None:
    """Return the column of language or task that the user named; None if the user named none."""
    name: str | None = getattr(where, f"{kind}_column")
    return None if name == FOUND else name


def may_win(where: SourceConfig, kind: str) -> bool:
    """True if a column of language or task is used: it is named, or the user said nothing, or the first rules apply."""
    return getattr(where, f"{kind}_column") is not None or getattr(where, kind) is None


def candidates(
    where: SourceConfig, kind: str, usual: Sequence[str] | None = None, early: Sequence[str] | None = None
) -> tuple[str, ...]:
    """Return the names of the columns of language or task, of which the first with a value counts.

    A column that the user named is the only one.

    Parameters
        usual: columns that are read unasked; None is `language` or `task`.
        early: the same under the first rules (FOUND); None is `usual`.
    """
    if name := named_column(where, kind):
        return (name,)
    usual = (kind,) if usual is None else usual
    is_early = getattr(where, f"{kind}_column") == FOUND
    return tuple(early if is_early and early is not None else usual)


def missing_column(where: str, kind: str, name: str, names: Sequence[str]) -> UnhonouredError:
    """Return the error for a named column of language or task that the data does not have."""
    setting = f"{kind}_column"
    return UnhonouredError(
        setting, f"{where}: has no column {name!r}; set --data.{setting} to one of {', '.join(names)}, or leave it out"
    )


@dataclass(frozen=True)
class LabelColumns:
    """Columns of language and task in a table with an arrow schema.

    A column of class numbers, as a ClassLabel of `datasets`, gives the names of its classes.
    """

    language: str | None = None
    task: str | None = None
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @classmethod
    def in_schema(
        cls, schema: pa.Schema, where: SourceConfig, path: str, early_languages: Sequence[str] = (LANGUAGE,)
    ) -> Self:
        """Choose the columns of a schema.

        `path` names the file in messages. `early_languages` are the columns of language under the first rules.

        Raises UsageError if a column that is used holds neither text nor class numbers with names, and UnhonouredError
        if a named column is missing. A column that merely lies there and cannot be used is left out.
        """
        classes = class_names(schema)
        chosen: dict[str, str | None] = {}
        for kind, early in ((LANGUAGE, early_languages), (TASK, (TASK,))):
            names = candidates(where, kind, early=early)
            name = next((name for name in names if name in schema.names), None)
            if name is None and named_column(where, kind):
                raise missing_column(path, kind, names[0], schema.names)
            if name is not None and not _is_readable(schema, name, classes):
                if named_column(where, kind) or (kind == LANGUAGE and may_win(where, kind)):
                    raise _unusable(path, kind, name, schema)
                name = None
            chosen[kind] = name
        return cls(**chosen, classes={name: classes[name] for name in chosen.values() if name and name in classes})

    @property
    def names(self) -> list[str]:
        """Names of the columns to read."""
        return [name for name in (self.language, self.task) if name is not None]

    def of(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return language and task of a row, as the fields `language` and `task` of `Row`."""
        return dict(zip((LANGUAGE, TASK), self.pair(record), strict=True))

    def pair(self, record: Mapping[str, Any]) -> Labels:
        """Return language and task of a row; None for each that has no column, no value, or an unknown class number."""
        return self._value(record, self.language), self._value(record, self.task)

    def _value(self, record: Mapping[str, Any], name: str | None) -> Any:
        value = None if name is None else record.get(name)
        names = self.classes.get(name or "")
        if names is None or not isinstance(value, int):
            return value
        return names[value] if 0 <= value < len(names) else None  # -1 is an unknown class


FileColumns = tuple[str, str | None, LabelColumns]
"""Columns of a file: audio, text (None if only segments have texts), and those of language and task."""


def used_parts(each: Sequence[FileColumns], split: str | None = None, others: str | None = None) -> UsedParts:
    """Return the parts that are read of several files, by the columns of each: audio, text, language and task.

    Different names are joined by commas. `split` and `others` are the splits that are read and not read, in words.
    """

    def names(values: Sequence[str | None]) -> str | None:
        return ", ".join(dict.fromkeys(value for value in values if value)) or None

    return UsedParts(
        split,
        names([audio for audio, _, _ in each]),
        names([text for _, text, _ in each]),
        names([labels.language for _, _, labels in each]),
        names([labels.task for _, _, labels in each]),
        others,
    )


def _is_readable(schema: pa.Schema, name: str, classes: Mapping[str, Sequence[str]]) -> bool:
    kind = schema.field(name).type
    return bool(is_text(kind) or pa.types.is_null(kind) or (pa.types.is_integer(kind) and name in classes))


def _unusable(path: str, kind: str, name: str, schema: pa.Schema) -> UsageError:
    way_out = f"set --data.{kind}, which then counts for all rows, or --data.{kind}_column to another column"
    message = (
        f"{path}: column {name!r} should be text, such as {EXAMPLES[kind]}, or a class label with names; it is "
        f"{schema.field(name).type}; {way_out}"
    )
    return UnhonouredError(f"{kind}_column", message)
