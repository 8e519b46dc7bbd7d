"""Manifests: a line for each utterance that names its audio, its text, and where in a long recording it is.

JSON lines, CSV and TSV, with the column names of NeMo, Whisper-Finetune, Hugging Face and others. A line that cannot
be used becomes a row with a problem, so that it is counted and named; only a list that is none ends the run.
"""

import csv
import gzip
import io
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from typing import Any

import fsspec

from whisper_ft.config.data import SourceConfig
from whisper_ft.data.formats.columns import AUDIO_COLUMNS, TEXT_COLUMNS, ExtraColumns, column_of, require_columns
from whisper_ft.data.formats.file_table import COLUMNS, FileTable, data_errors, table_of
from whisper_ft.data.storage.files import FolderStore
from whisper_ft.data.types import RejectedError
from whisper_ft.runtime.errors import UsageError

LANGUAGE_COLUMNS = ("language", "lang", "locale")
SPEAKER_COLUMNS = ("speaker", "speaker_id", "client_id", "spk")
ID_COLUMNS = ("id", "utt_id", "key")
OFFSET_COLUMNS = ("offset", "start", "start_time")  # seconds
END_COLUMNS = ("end", "end_time")  # seconds; `duration` wins

SAMPLE = 1000  # lines from which the columns are chosen
NO_LINES = "; `python -m whisper_ft prepare` writes it as parquet"

ManifestLine = tuple[int, Mapping[str, Any] | RejectedError]  # number from 1 on; columns, or why there are none


def open_manifest(where: SourceConfig, columns: Sequence[str] = ()) -> FileTable:
    """The rows of a .jsonl, .json (of lines), .csv or .tsv file, also .gz; their audio lies in its folder.

    Bad lines are rows with a problem: bad_line, bad_label, bad_segment, unknown_language, unknown_task.
    """
    with data_errors(where.path):
        file_system, path = fsspec.core.url_to_fs(where.path)
        parent = file_system.unstrip_protocol(file_system._parent(path))
        folder = FolderStore(where.audio_root or parent)
        name = path.rpartition("/")[2]
        there: dict[str, None] = {}
        with read_lines(file_system, path) as lines:
            found = entries(noted(lines, there) if columns else lines, name, where, folder, columns=columns)
            listed = FileTable(table_of(found, columns), folder, where)
        require_columns(there, columns, where.path)
        return listed


@contextmanager
def read_lines(file_system: Any, path: str) -> Iterator[Iterator[ManifestLine]]:
    """The lines of a list by the rules of its suffix; UsageError for one that has none, or is not UTF-8."""
    name = path.removesuffix(".gz")
    reader = next((read for suffix, read in READERS.items() if name.endswith(suffix)), None)
    if reader is None:
        raise UsageError(f"{path}: is no manifest; its name has to end in {', '.join(READERS)}, or those with .gz")
    with file_system.open(path, "rb") as file:
        unpacked = gzip.GzipFile(fileobj=file) if path.endswith(".gz") else file
        # What is not UTF-8 is kept as lone surrogates, and found where the fields are looked at.
        text = io.TextIOWrapper(unpacked, "utf-8-sig", errors="surrogateescape", newline="\n")
        try:
            yield reader(text, path)
        finally:
            text.detach()


def _json_lines(text: io.TextIOWrapper, path: str) -> Iterator[ManifestLine]:
    for number, line in enumerate(text, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield number, RejectedError("bad_line", f"line {number}: not JSON: {error}")
            continue
        if isinstance(record, dict):
            yield number, record
        else:
            yield number, RejectedError("bad_line", f"line {number}: not a JSON object but {type(record).__name__}")


def _json(text: io.TextIOWrapper, path: str) -> Iterator[ManifestLine]:
    """NeMo calls JSON lines .json; what others call so is one value over many lines, or one long line."""
    lines = _json_lines(text, path)
    first = next(lines, None)
    if first is not None and isinstance(first[1], RejectedError):
        raise UsageError(f"{path}: holds one JSON value, not a JSON object on each line{NO_LINES}")
    return chain([] if first is None else [first], lines)


def _csv(text: io.TextIOWrapper, path: str) -> Iterator[ManifestLine]:
    # strict: a quote that is never closed swallows the lines after it in silence otherwise.
    reader = csv.reader(text, strict=True)
    header: list[str] | None = None
    while True:
        number = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            last = f" to {reader.line_num}" if reader.line_num > number else ""
            yield number, RejectedError("bad_line", f"line {number}{last}: {error}")
            continue
        if not fields:
            continue
        if header is None:
            header = fields
        else:
            yield _fields(number, header, fields)


def _tsv(text: io.TextIOWrapper, path: str) -> Iterator[ManifestLine]:
    """Tabs and line ends are all there is: a quotation mark is part of the text."""
    header: list[str] | None = None
    for number, line in enumerate(text, 1):
        fields = line.rstrip("\r\n").split("\t")
        if fields == [""]:
            continue
        if header is None:
            header = fields
        else:
            yield _fields(number, header, fields)


def _fields(number: int, header: list[str], fields: list[str]) -> ManifestLine:
    if len(fields) != len(header):
        wrong = f"line {number}: {len(fields)} fields, the header has {len(header)}"
        return number, RejectedError("bad_line", wrong)
    return number, dict(zip(header, fields, strict=True))


READERS: dict[str, Callable[[io.TextIOWrapper, str], Iterator[ManifestLine]]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _tsv,
}


def noted(lines: Iterable[ManifestLine], there: dict[str, None]) -> Iterator[ManifestLine]:
    """The lines, while the names of their columns are put into `there`, in the order in which they come."""
    for number, line in lines:
        if not isinstance(line, RejectedError):
            there.update(dict.fromkeys(line))
        yield number, line


def entries(
    lines: Iterable[ManifestLine],
    name: str,
    where: SourceConfig,
    folder: FolderStore,
    below: str = "",
    audio_columns: Sequence[str] = AUDIO_COLUMNS,
    columns: Sequence[str] = (),
) -> Iterator[dict[str, Any]]:
    """What the lines of a list say, as rows of `listed.schema_with`; ids may repeat.

    `name` is the list's own, for the ids of lines that name no file; the files that they name are relative to the
    folder `below`, a path in `folder`. UsageError when there is no column of audio or of text.
    """
    lines, carried = iter(lines), ExtraColumns(columns)
    sample = list(islice(lines, SAMPLE))
    if not sample:
        return
    audio = _column(sample, where.audio_column, audio_columns, "audio_column", where.path)
    text = _column(sample, where.text_column, TEXT_COLUMNS, "text_column", where.path)
    for number, line in chain(sample, lines):
        said = {COLUMNS: carried.of({} if isinstance(line, RejectedError) else line)} if columns else {}
        yield _entry(number, line, name, lambda said: _located(said, folder, below), audio, text) | said


def _column(sample: list[ManifestLine], wanted: str | None, usual: Sequence[str], setting: str, where: str) -> str:
    """The column that `column_of` chooses among those of most lines, so that an odd line changes nothing."""
    records = [record for _, record in sample if not isinstance(record, RejectedError)]
    if not records:
        first = next(problem for _, problem in sample if isinstance(problem, RejectedError))
        raise UsageError(f"{where}: none of its lines can be read; {first.detail}")
    counted = Counter(key for record in records for key in record)
    often = [key for key, count in counted.items() if wanted is not None or 2 * count >= len(records)]
    return column_of(often, wanted, usual, setting, where)


def _located(said: str, folder: FolderStore, below: str) -> str:
    """A file's name as seen from the shelf's folder; what leads out is kept, for the shelf to refuse."""
    is_relative = below and not said.startswith("/") and "://" not in said
    name = f"{below}/{said}" if is_relative else said
    try:
        return folder.relative(name)
    except RejectedError:
        return name


def _entry(
    number: int,
    line: Mapping[str, Any] | RejectedError,
    name: str,
    locate: Callable[[str], str],
    audio: str,
    text: str,
) -> dict[str, Any]:
    """One row; as much of it as can be used, and the first thing that is wrong with it."""
    entry: dict[str, Any] = {"id": f"{name}#line {number}", "file": ""}
    if isinstance(line, RejectedError):
        return entry | {"problem": str(line)}
    if isinstance(line.get(audio), dict):  # Whisper-Finetune: {"audio": {"path": ..., "start_time": ..., ...}}
        line = {**line[audio], **line, audio: line[audio].get("path")}

    def take(part: Callable[[], Mapping[str, Any]]) -> None:
        try:
            entry.update(part())
        except RejectedError as wrong:
            entry.setdefault("problem", f"{wrong.reason}: line {number}: {wrong.detail}")

    take(lambda: {"file": locate(_required(line, audio))})
    take(lambda: {"text": _transcript(line, text)})
    take(lambda: _segment(line))
    take(lambda: {"language": _optional(line, LANGUAGE_COLUMNS, "unknown_language")})
    take(lambda: {"task": _optional(line, ("task",), "unknown_task")})
    take(lambda: {"speaker": _optional(line, SPEAKER_COLUMNS, "bad_line", numbers=True)})
    take(lambda: _identity(line, entry))
    return entry


def _required(line: Mapping[str, Any], column: str) -> str:
    value = _optional(line, (column,), "bad_line")
    if not value:
        raise RejectedError("bad_line", f"has no {column!r}")
    return value


def _transcript(line: Mapping[str, Any], column: str) -> str | None:
    """The text; a line without one is at fault, an empty text is for who makes labels of it to refuse."""
    if column not in line:
        raise RejectedError("bad_label", f"has no {column!r}")
    return _optional(line, (column,), "bad_label")


def _optional(line: Mapping[str, Any], columns: Iterable[str], reason: str, numbers: bool = False) -> str | None:
    """Text of the first of the columns that says something."""
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


def _segment(line: Mapping[str, Any]) -> dict[str, float | None]:
    """Where in the recording the utterance is, in seconds."""
    offset, duration = _seconds(line, OFFSET_COLUMNS), _seconds(line, ("duration",))
    end = _seconds(line, END_COLUMNS) if duration is None else None
    if end is not None:
        duration = end - (offset or 0.0)
        if duration < 0:
            raise RejectedError("bad_segment", f"ends at {end:g} s and begins at {offset:g} s")
    return {"offset": offset, "duration": duration}


def _seconds(line: Mapping[str, Any], columns: Iterable[str]) -> float | None:
    column, value = next(((c, line[c]) for c in columns if line.get(c) not in (None, "")), ("", None))
    return None if value is None else seconds_of(value, column)


def seconds_of(value: Any, name: str) -> float:
    """A number of seconds from a field; UnusableError(bad_segment) for NaN, a negative one and what is no number."""
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds >= 0):
        raise RejectedError("bad_segment", f"{name} {str(value)[:40]!r}: not a number of seconds")
    return seconds


def _identity(line: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, str]:
    given = _optional(line, ID_COLUMNS, "bad_line", numbers=True)
    if given is not None:
        return {"id": given}
    if not entry["file"]:
        return {}
    return {"id": entry["file"] if entry.get("offset") is None else f"{entry['file']}@{entry['offset']:.12g}"}
