"""Reading of manifest lines: JSON lines, CSV and TSV, plain or gzipped.

An unreadable line becomes a RejectedError that names the number of the line.
"""

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain

from fsspec import AbstractFileSystem

from whisper_ft.data.types import RejectedError
from whisper_ft.runtime.errors import UsageError

ManifestLine = tuple[int, Mapping[str, object] | RejectedError]
"""Number of a line, counted from 1, and the columns of the line or the problem with it."""
LineReader = Callable[[io.TextIOWrapper, str], Iterator[ManifestLine]]


@contextmanager
def read_lines(file_system: AbstractFileSystem, path: str) -> Iterator[Iterator[ManifestLine]]:
    """Open a manifest, and give its lines as the suffix of the file says. Raises UsageError for an unknown suffix."""
    name = path.removesuffix(".gz")
    reader = next((read for suffix, read in LINE_READERS.items() if name.endswith(suffix)), None)
    if reader is None:
        raise UsageError(f"{path}: is no manifest; its name has to end in {', '.join(LINE_READERS)}, or those with .gz")
    with file_system.open(path, "rb") as file:
        unpacked = gzip.GzipFile(fileobj=file) if path.endswith(".gz") else file
        # Bytes that are not UTF-8 are kept as lone surrogates, and noticed when the fields are read.
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
    """Read JSON lines from a .json file, as NeMo names them.

    Raises UsageError if the first line is not a JSON object, because other programs write one JSON value into a .json.
    """
    lines = _json_lines(text, path)
    first = next(lines, None)
    if first is not None and isinstance(first[1], RejectedError):
        raise UsageError(
            f"{path}: holds one JSON value, not a JSON object on each line; "
            "`python -m whisper_ft prepare` writes it as parquet"
        )
    return chain([] if first is None else [first], lines)


def _csv(text: io.TextIOWrapper, path: str) -> Iterator[ManifestLine]:
    # Strict, because a quote that is never closed would silently swallow the lines after it.
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
    """Yield lines of fields between tabs. A quotation mark is part of the text."""
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
