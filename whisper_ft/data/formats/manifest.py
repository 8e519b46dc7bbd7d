"""Manifests: one line for each utterance, with its audio file, its text, and its place in a long recording.

JSON lines, CSV and TSV are read, with the column names of NeMo, Whisper-Finetune, Hugging Face and others. An unusable
line becomes a row with a problem, so that it is counted and reported. Only a file that is not a manifest ends the run.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from typing import Any, NamedTuple

import fsspec

from whisper_ft.config.data import SourceConfig
from whisper_ft.data.formats.columns import (
    AUDIO_COLUMNS,
    LANGUAGE_COLUMNS,
    SPEAKER_COLUMNS,
    ExtraColumns,
    column_of,
    require_columns,
    text_column_of,
)
from whisper_ft.data.formats.file_naming import full_names
from whisper_ft.data.formats.file_table import COLUMNS, FileTable, table_of
from whisper_ft.data.formats.label_columns import (
    LANGUAGE,
    TASK,
    FileColumns,
    LabelColumns,
    candidates,
    may_win,
    missing_column,
    named_column,
    used_parts,
)
from whisper_ft.data.formats.manifest_lines import ManifestLine, noted, read_lines
from whisper_ft.data.formats.segments import segment_of, segment_of_earlier, start_is_offset
from whisper_ft.data.storage.files import FolderStore
from whisper_ft.data.storage.read_errors import data_errors
from whisper_ft.data.types import RejectedError
from whisper_ft.runtime.errors import UsageError
from whisper_ft.runtime.redaction import redacted_query

ID_COLUMNS = ("id", "utt_id", "key")

SAMPLE_LINES = 1000
"""Number of first lines by which the columns are chosen."""


def open_manifest(where: SourceConfig, columns: Sequence[str] = ()) -> FileTable:
    """Open the rows of a .jsonl, .json (JSON lines), .csv or .tsv file, plain or as .gz.

    Names of audio files are relative to the folder of the manifest, or to `where.audio_root`. A bad line becomes a row
    with one of these problems: bad_line, bad_label, bad_segment, unknown_language, unknown_task.

    Raises UsageError for another suffix or a missing column, one of the extra `columns` included, and DataError for a
    file without rows.
    """
    with data_errors(where.path):
        file_system, path = fsspec.core.url_to_fs(where.path)
        parent = file_system.unstrip_protocol(file_system._parent(path))
        store = FolderStore(where.audio_root or parent, where.allowed_folders)
        name = redacted_query(path.rpartition("/")[2])
        present: dict[str, None] = {}
        notes: list[str] = []
        with read_lines(file_system, path, (where.audio_column, where.text_column)) as lines:
            given, used = noted(lines, present) if columns else lines, list[FileColumns]()
            rows = entries(given, name, where, store, notes, columns=columns, used=used)
            table = table_of(rows, columns)
        source = FileTable(table, store, where, notes, used_parts(used))
        require_columns(present, columns, where.path, where)
        return source


def entries(
    lines: Iterable[ManifestLine],
    name: str,
    where: SourceConfig,
    store: FolderStore,
    notes: list[str],
    below: str = "",
    audio_columns: Sequence[str] = AUDIO_COLUMNS,
    columns: Sequence[str] = (),
    used: list[FileColumns] | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield the rows of `file_table.schema_with` for the lines of a manifest. Ids may repeat.

    An unusable line becomes a row with a problem. Raises UsageError if there is no column of audio or of text, if no
    line can be read, or if a column that the settings name is missing.

    - `name`: name of the manifest, for the ids of lines without a file
    - `notes`: list to which lines for the user are added
    - `below`: folder within `store` to which the names of files are relative
    - `audio_columns`: usual names of the column of audio
    - `columns`: extra columns to carry along
    - `used`: list to which the columns of this manifest are added
    """
    lines, extra = iter(lines), ExtraColumns(columns)
    sample = list(islice(lines, SAMPLE_LINES))
    if not sample:
        return
    path = where.path
    audio = column_of(_names(sample, where.audio_column, path), where.audio_column, audio_columns, "audio_column", path)
    text = text_column_of(_names(sample, where.text_column, path), where, path)
    layout = _Layout(audio, text, where.NEEDS_TEXT, lambda file: _located(file, store, below), segment_of_earlier)
    if where.reading > 1:
        layout = _layout_of(sample, layout, store, f"{where.path}: {name}" if below else where.path, notes)
    labels = {kind: _label_columns(sample, layout, where, kind) for kind in (LANGUAGE, TASK)}
    if used is not None:
        used.append((audio, text, LabelColumns(labels[LANGUAGE].found, labels[TASK].found)))
    for number, line in chain(sample, lines):
        extra_values = {COLUMNS: extra.of({} if isinstance(line, RejectedError) else line)} if columns else {}
        yield _entry(number, line, name, layout, labels) | extra_values


Line = Mapping[str, object]


@dataclass(frozen=True)
class _Layout:
    """Layout of the lines of a list."""

    audio: str  # column
    text: str | None  # column; None if only segments have texts, or if there are no texts
    needs_text: bool  # a line without a text is unusable
    locate: Callable[[str], str]  # name of a file in the store, from its name in the list
    segment: Callable[[Line], Mapping[str, object]]  # offset, duration and stated length of a line
    is_lower_case: bool = True  # no column has another name in lower case

    def fields(self, line: Line) -> Line:
        """Fields of a line, also those of a nested audio, and also by the lower-case names of their columns."""
        if not self.is_lower_case:
            line = {**{key.strip().lower(): value for key, value in line.items()}, **line}
        nested = line.get(self.audio)
        if isinstance(nested, dict):  # Whisper-Finetune: {"audio": {"path": ..., "start_time": ..., ...}}
            line = {**nested, **line, self.audio: nested.get("path")}
        return line


def _layout_of(
    sample: Sequence[ManifestLine], layout: _Layout, store: FolderStore, place: str, notes: list[str]
) -> _Layout:
    """Complete the layout of a list by its first lines. `place` names the list in the line for the user."""
    records = [record for _, record in sample if not isinstance(record, RejectedError)]
    is_lower_case = all(key == key.strip().lower() for record in records for key in record)
    layout = replace(layout, is_lower_case=is_lower_case)

    def name_of(line: Line) -> str | None:
        name = line.get(layout.audio)
        return layout.locate(name) if isinstance(name, str) and name else None

    lines = [layout.fields(record) for record in records]
    completed, locate = full_names(filter(None, map(name_of, lines)), store), layout.locate
    layout = replace(layout, locate=lambda file: completed(locate(file)))
    is_offset = start_is_offset(lines, name_of, store)
    if not is_offset:
        notes.append(
            f"{place}: `start` is no place in the named files, because they are as long as `duration` says or end "
            "before it; each file is heard whole. Name the column `offset` if it is a place in the file"
        )
    return replace(layout, segment=partial(segment_of, start_is_offset=is_offset))


def _names(sample: list[ManifestLine], wanted: str | None, where: str) -> list[str]:
    """Return the columns of most lines, among which one is chosen, so that a single odd line changes nothing.

    If a column is `wanted`, those of all lines.
    """
    records = [record for _, record in sample if not isinstance(record, RejectedError)]
    if not records:
        first = next(problem for _, problem in sample if isinstance(problem, RejectedError))
        raise UsageError(f"{where}: none of its lines can be read; {first.detail}")
    counts = Counter(key for record in records for key in record)
    return [key for key, count in counts.items() if wanted is not None or 2 * count >= len(records)]


class LabelCandidates(NamedTuple):
    """Columns of language or task, of which the first with a value in the line counts."""

    names: tuple[str, ...]
    found: str | None
    """First of the names among the columns of the first lines."""
    is_strict: bool
    """A value that is no text makes the line unusable."""


def _label_columns(sample: list[ManifestLine], layout: _Layout, where: SourceConfig, kind: str) -> LabelCandidates:
    """Choose the columns of language or task. Raises UnhonouredError if a named one is in none of the first lines."""
    names = candidates(where, kind, early=LANGUAGE_COLUMNS if kind == LANGUAGE else (TASK,))
    records = [layout.fields(line) for _, line in sample if not isinstance(line, RejectedError)]
    present = dict.fromkeys(key for record in records for key in record)
    if named_column(where, kind) and names[0] not in present:
        raise missing_column(where.path, kind, names[0], [*present])
    # Only a language that is used has to be text. A task is of another vocabulary, unless its column is named.
    is_strict = may_win(where, kind) if kind == LANGUAGE else getattr(where, f"{kind}_column") is not None
    return LabelCandidates(names, next((name for name in names if name in present), None), is_strict)


def _label(line: Line, columns: LabelCandidates, reason: str) -> str | None:
    """Return the language or task of a line. Raises RejectedError if it is no text, unless it is not used anyway."""
    try:
        return _optional(line, columns.names, reason)
    except RejectedError:
        if columns.is_strict:
            raise
        return None


def _located(file: str, store: FolderStore, below: str) -> str:
    """Name of a file relative to the store's folder.

    A name that leads out of the folder is returned as it is, and the store will refuse it.
    """
    is_relative = below and not file.startswith("/") and "://" not in file
    name = f"{below}/{file}" if is_relative else file
    try:
        return store.relative(name)
    except RejectedError:
        return name


def _entry(
    number: int, line: Line | RejectedError, name: str, layout: _Layout, labels: Mapping[str, LabelCandidates]
) -> dict[str, Any]:
    """Make the row of one line, from the usable fields of the line and its first problem."""
    entry: dict[str, Any] = {"id": f"{name}#line {number}", "file": ""}
    if isinstance(line, RejectedError):
        return entry | {"problem": str(line)}
    line = layout.fields(line)

    def take(part: Callable[[], Mapping[str, object]]) -> None:
        try:
            entry.update(part())
        except RejectedError as rejected:
            entry.setdefault("problem", f"{rejected.reason}: line {number}: {rejected.detail}")

    take(lambda: {"file": layout.locate(_required(line, layout.audio))})
    take(lambda: {"text": _transcript(line, layout)})
    take(lambda: layout.segment(line))
    take(lambda: {LANGUAGE: _label(line, labels[LANGUAGE], "unknown_language")})
    take(lambda: {TASK: _label(line, labels[TASK], "unknown_task")})
    take(lambda: {"speaker": _optional(line, SPEAKER_COLUMNS, "bad_line", numbers=True)})
    take(lambda: _identity(line, entry))
    return entry


def _required(line: Mapping[str, object], column: str) -> str:
    value = _optional(line, (column,), "bad_line")
    if not value:
        raise RejectedError("bad_line", f"has no {column!r}")
    return value


def _transcript(line: Mapping[str, object], layout: _Layout) -> str | None:
    """Return the text of a line, or None if the lines have no texts. Raises RejectedError if it lacks the column.

    An empty text is refused later, when labels are made. If no text is needed, one that cannot be used is None.
    """
    column = layout.text
    if column is None:
        return None
    try:
        if column not in line:
            raise RejectedError("bad_label", f"has no {column!r}")
        return _optional(line, (column,), "bad_label")
    except RejectedError:
        if layout.needs_text:
            raise
        return None


def _optional(line: Mapping[str, object], columns: Iterable[str], reason: str, numbers: bool = False) -> str | None:
    """Return the text of the first column that has a value; None if no column has one.

    Raises RejectedError with the code `reason` if the value is not text. `numbers` accepts a number as text.
    """
    column, value = next(((c, line[c]) for c in columns if line.get(c) not in (None, "")), ("", None))
    if numbers and isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if value is None:
        return None
    if not isinstance(value, str):
        raise RejectedError(reason, f"{column!r} is not a text but {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RejectedError(reason, f"{column!r} is not UTF-8") from None
    return value


def _identity(line: Mapping[str, object], entry: Mapping[str, Any]) -> dict[str, str]:
    row_id = _optional(line, ID_COLUMNS, "bad_line", numbers=True)
    if row_id is not None:
        return {"id": row_id}
    if not entry["file"]:
        return {}
    return {"id": entry["file"] if entry.get("offset") is None else f"{entry['file']}@{entry['offset']:.12g}"}
