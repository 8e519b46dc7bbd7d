"""Source whose rows have the labels by which they are learned: settings weighed against columns, and times read."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from whisper_ft.config.data import DEFAULT_TASK, SourceConfig
from whisper_ft.data.formats.columns import carried_columns
from whisper_ft.data.formats.file_table import FileTable
from whisper_ft.data.formats.label_columns import FOUND, LANGUAGE, TASK, named_column
from whisper_ft.data.labels.languages import code_of_name, is_same_language
from whisper_ft.data.labels.segment_times import context_of, with_segments
from whisper_ft.data.labels.tasks import whisper_task
from whisper_ft.data.labels.transcript import is_blank
from whisper_ft.data.types import FormatSource, Overruled, Row, UsedParts


class LabelledSource:
    """Source of one format with the settings applied.

    A setting that the user gave wins over a column that was merely found. A column wins if it is named, or if the user
    said nothing. Under the first rules (FOUND) the rows keep the values of the columns.

    `columns` are the extra columns that the rows shall carry.
    """

    def __init__(self, source: FormatSource, where: SourceConfig, columns: Sequence[str] = ()) -> None:
        self.source, self.where, self._columns = source, where, tuple(columns)

    @property
    def rows(self) -> Sequence[int]:
        """Number of rows in each chunk."""
        return self.source.rows

    @property
    def largest_chunk(self) -> int | None:
        """Size of the largest chunk in bytes; None if it is not known."""
        return self.source.largest_chunk

    @property
    def used(self) -> UsedParts:
        """Parts of the data that are read."""
        return self.source.used

    @property
    def notes(self) -> Sequence[str]:
        """Lines for the user about the reading of a list of files; empty for a format without a list."""
        return self.source.notes if isinstance(self.source, FileTable) else ()

    @property
    def chunk_with_durations(self) -> int | None:
        """First chunk with rows whose stated length can be compared with the audio; None if there is none."""
        return self.source.chunk_with_durations if isinstance(self.source, FileTable) else None

    def read(self, chunk: int) -> Sequence[Row]:
        """Read the rows of one chunk, with the language and task that count for each.

        None stands for the default of the source or the model. Times of transcripts become segments, and `prompt` is
        set if its column is named.
        """
        return [self.labelled(row) for row in self.source.read(chunk)]

    def row_id(self, chunk: int, row: int) -> str:
        """Id of a row."""
        return self.source.row_id(chunk, row)

    def fingerprint(self) -> dict[str, Any]:
        """Fingerprint of the source."""
        return self.source.fingerprint()

    def content(self) -> dict[str, Any]:
        """Digests of the content of the files."""
        return self.source.content()

    def may_overrule(self) -> bool:
        """True if there are columns of language or task that may say otherwise than what counts."""
        where = self.where
        has_other_language = bool(self.used.language and where.language and not named_column(where, LANGUAGE))
        has_other_task = bool(self.used.task and not named_column(where, TASK))
        return where.language_column != FOUND and (has_other_language or has_other_task)

    def overruled(self, chunk: int) -> list[tuple[Overruled, ...]]:
        """Return for each row of a chunk the columns that say otherwise than what counts, or an empty tuple.

        No audio is read.
        """
        return [self._weighed(language, task)[2] for language, task in self.source.labels(chunk)]

    def labelled(self, row: Row) -> Row:
        """Return a row of the source with the language and task that count, and with its segments and prompt."""
        if self.where.language_column != FOUND:
            language, task, overruled = self._weighed(row.language, row.task)
            row = replace(row, language=language, task=task, overruled=overruled)
        return self._completed(row) if carried_columns(self.where) or self.where.text_times else row

    def _completed(self, row: Row) -> Row:
        """Return a row with its segments and previous text, and with only the extra columns that were asked for."""
        where, values = self.where, row.columns or {}
        stored = values.get(where.segments_column) if where.segments_column else None
        row = with_segments(row, stored, text_times=where.text_times)
        kept = {name: values.get(name) for name in self._columns} if self._columns else None
        if where.prompt_column is None:
            return replace(row, columns=kept)
        return replace(row, columns=kept, prompt=context_of(values.get(where.prompt_column)))

    def _weighed(self, language: object, task: object) -> tuple[Any, Any, tuple[Overruled, ...]]:
        """Return the language and task that count for the values of a row's columns, and the columns that do not."""
        language, other_language = self._language(language)
        task, other_task = self._task(task)
        return language, task, tuple(other for other in (other_language, other_task) if other is not None)

    def _language(self, found: object) -> tuple[Any, Overruled | None]:
        said = self.where.language
        if is_blank(found):
            return said, None  # None: the default of the source or the model
        if said is None or named_column(self.where, LANGUAGE):
            return code_of_name(str(found)), None
        if is_same_language(str(found), said):
            return said, None
        return said, Overruled(self.used.language or LANGUAGE, str(found), f"data.language {said}")

    def _task(self, found: object) -> tuple[Any, Overruled | None]:
        """Weigh the task of a row.

        A column that was not named may hold tasks of another vocabulary, such as `asr`; those do not count.
        """
        said, task = self.where.task, whisper_task(found)
        if is_blank(found):
            return said, None
        if named_column(self.where, TASK):
            return task or found, None
        if said is None and task is not None:
            return task, None
        if task == (said or DEFAULT_TASK):
            return said, None
        return said, Overruled(self.used.task or TASK, str(found), f"data.task {said}" if said else DEFAULT_TASK)
