"""Recordings of a source: all rows that are parts of one file, by time, and access to its audio."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from whisper_ft.cli.prepare.ahead import ReadAhead
from whisper_ft.cli.prepare.records import Step
from whisper_ft.data.formats.file_table import FileTable
from whisper_ft.data.labelled import LabelledSource
from whisper_ft.data.types import Row


class SpokenRecording(NamedTuple):
    """Recording, and the rows that are parts of it."""

    name: str
    rows: Sequence[Row]
    """Rows by their offset. They hold no audio."""
    audio: Callable[[], Path | bytes]
    """Function that returns the path of the file, or its content. Raises RejectedError if there is no such file."""


class ListedRecordings:
    """Recordings of a list of files. The lines of one recording may stand anywhere in the list.

    A local file is not read here, so it may have any size.
    """

    def __init__(self, source: LabelledSource, table: FileTable) -> None:
        self._source, self._table = source, table
        self.chunks = self.total = table.files

    def all_from(self, first: Step) -> Iterator[tuple[Step, SpokenRecording]]:
        """Yield the recordings from a step on, each with its step. The number of a recording is that of its chunk."""
        for number in range(first.chunk, self.chunks):
            rows = [self._source.labelled(row) for row in self._table.rows_of_file(number)]
            name = rows[0].recording or ""
            yield Step(number), SpokenRecording(name or rows[0].id, rows, partial(self._table.audio_of, name))


class StoredRecordings:
    """Recordings of a format that holds the audio itself: each row is a recording of its own."""

    def __init__(self, source: LabelledSource) -> None:
        self._source = source
        self.chunks, self.total = len(source.rows), sum(source.rows)

    def all_from(self, first: Step) -> Iterator[tuple[Step, SpokenRecording]]:
        """Yield the recordings from a step on, each with its step."""
        with ReadAhead(self._source) as chunks:
            begin = first.row
            for chunk in range(first.chunk, self.chunks):
                for number, row in enumerate(chunks.read(chunk)[begin:], begin):
                    yield Step(chunk, number), SpokenRecording(row.id, [row], partial(_audio_of, row))
                begin = 0


def _audio_of(row: Row) -> bytes:
    return row.audio


def recordings_of(source: LabelledSource) -> ListedRecordings | StoredRecordings:
    """Return the recordings of a source."""
    table = source.source
    return ListedRecordings(source, table) if isinstance(table, FileTable) else StoredRecordings(source)
