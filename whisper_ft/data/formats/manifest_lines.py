"""Reading of manifest lines: JSON lines, CSV and TSV, plain or gzipped, UTF-8 or UTF-16.

The fields of a CSV are separated by `,`, `;`, `|` or tabs, as its header shows. LJSpeech's list has no header. An
unreadable line becomes a RejectedError that names the number of the line.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain

from fsspec import AbstractFileSystem

from whisper_ft.data.formats.columns import FILE_COLUMNS, TEXT_COLUMNS
from whisper_ft.data.formats.text_lines import open_lines
from whisper_ft.data.types import RejectedError
from whisper_ft.runtime.errors import UsageError

ManifestLine = tuple[int, Mapping[str, object] | RejectedError]
"""Number of a line, counted from 1, and the columns of the line or the problem with it."""
LineReader = Callable[[Iterator[str], str, frozenset[str]], Iterator[ManifestLine]]
SEPARATORS = ",;|\t"
HEADER_OF_LJSPEECH = ("file_name", "text", "normalized_text")
"""Columns of a list without header, which has a name, the transcript and perhaps a normalised transcript in each line
(https://keithito.com/LJ-Speech-Dataset)."""
KNOWN_COLUMNS = frozenset((*FILE_COLUMNS, *TEXT_COLUMNS))


@contextmanager
def read_lines(
    file_system: AbstractFileSystem, path: str, named: Iterable[str | None] = ()
) -> Iterator[Iterator[ManifestLine]]:
    """Open a manifest, and give its lines as the suffix of the file says. Raises UsageError for an unknown suffix.

    Empty lines and the header are left out. `named` are columns that the user names. A list with `|` whose first line
    has neither these nor the usual names is one without header.
    """
    name = path.removesuffix(".gz")
    reader = next((read for suffix, read in LINE_READERS.items() if name.endswith(suffix)), None)
    if reader is None:
        raise UsageError(f"{path}: is no manifest; its name has to end in {', '.join(LINE_READERS)}, or those with .gz")
    with open_lines(file_system, path) as lines:
        yield reader(lines, path, KNOWN_COLUMNS | set(filter(None, named)))


def _json_lines(lines: Iterator[str], path: str, known: frozenset[str]) -> Iterator[ManifestLine]:
    for number, line in enumerate(lines, 1):
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


def _json(text: Iterator[str], path: str, known: frozenset[str]) -> Iterator[ManifestLine]:
    """Read JSON lines from a .json file, as NeMo names them.

    Raises UsageError if the first line is not a JSON object, because other programs write one JSON value into a .json.
    """
    lines = _json_lines(text, path, known)
    first = next(lines, None)
    if first is not None and isinstance(first[1], RejectedError):
        raise UsageError(
            f"{path}: holds one JSON value, not a JSON object on each line; "
            "`python -m whisper_ft prepare` writes it as parquet"
        )
    return chain([] if first is None else [first], lines)


def _csv(lines: Iterator[str], path: str, known: frozenset[str]) -> Iterator[ManifestLine]:
    beginning = list(_first_lines(lines))
    first = beginning[-1] if beginning else ""
    separator = max(SEPARATORS, key=lambda sign: len(_split(first, sign)))  # the first of equals
    if separator == "|" and not known & {name.strip().lower() for name in _split(first, separator)} | (
        known & set(_split(first, separator))
    ):
        yield from _without_header(chain(beginning, lines))
        return
    # Strict, because a quote that is never closed would silently swallow the lines after it.
    reader = csv.reader(chain(beginning, lines), strict=True, delimiter=separator)
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


def _first_lines(lines: Iterator[str]) -> Iterator[str]:
    """Yield lines up to the first that is not empty."""
    for line in lines:
        yield line
        if line.strip():
            return


def _split(line: str, separator: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=separator), [])
    except csv.Error:
        return []


def _without_header(lines: Iterable[str]) -> Iterator[ManifestLine]:
    """Yield lines of LJSpeech's fields between `|`. A quotation mark is part of the text."""
    header: list[str] | None = None
    for number, line in enumerate(lines, 1):
        fields = line.rstrip("\r\n").split("|")
        if fields == [""]:
            continue
        header = header or [*HEADER_OF_LJSPEECH[: len(fields)], *map(str, range(4, len(fields) + 1))]
        yield _fields(number, header, fields)


def _tsv(lines: Iterator[str], path: str, known: frozenset[str]) -> Iterator[ManifestLine]:
    """Yield lines of fields between tabs. A quotation mark is part of the text."""
    header: list[str] | None = None
    for number, line in enumerate(lines, 1):
        fields = line.rstrip("\r\n").split("\t")
        if fields == [""]:
            continue
        if header is None:
            header = fields
        else:
            yield _fields(number, header, fields)


def _fields(number: int, header: list[str], fields: list[str]) -> ManifestLine:
    if len(fields) != len(header):
        detail = f"line {number}: {len(fields)} fields, the header has {len(header)}"
        return number, RejectedError("bad_line", detail)
    return number, dict(zip(header, fields, strict=True))


LINE_READERS: dict[str, LineReader] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _tsv,
}


def noted(lines: Iterable[ManifestLine], present: dict[str, None]) -> Iterator[ManifestLine]:
    """Yield the lines unchanged, and add each new column name to `present`, in order of first appearance.

    Unreadable lines add no names.
    """
    for number, line in lines:
        if not isinstance(line, RejectedError):
            present.update(dict.fromkeys(line))
        yield number, line
