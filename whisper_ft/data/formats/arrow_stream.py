"""Random access to Arrow streams, as `datasets` writes them: only the bytes of the wanted rows are read.

A stream has no footer, so the headers of its messages are the index. To read rows, Arrow places the arrays of a batch
over a body of zeros, which shows where in the body each value lies. The bytes of these values are then fetched into
their places. Nothing is memory-mapped, because a mapped file that is cut short ends the process, and a remote file
cannot be mapped.

Format: https://arrow.apache.org/docs/format/Columnar.html#encapsulated-message-format
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from fsspec import AbstractFileSystem

from whisper_ft.data.formats.columns import is_list
from whisper_ft.data.storage.ranges import FetchedRanges
from whisper_ft.runtime.errors import DataError, one_line

HEADER_BYTES = 4096
"""Bytes fetched first for the header of a message. A header usually has 300 bytes; that of a schema may have more."""
PREFIX = struct.Struct("<II")
"""Prefix of a message: continuation marker, and length of the metadata."""
CONTINUATION = 0xFFFFFFFF

Span = tuple[int, int]
"""Span of memory: address, and number of bytes."""


@dataclass(frozen=True)
class RecordBatchPlace:
    """Place of a record batch in its file: its header, and where its body lies."""

    header: bytes
    body_start: int
    body_bytes: int
    rows: int


@dataclass(frozen=True)
class ArrowStream:
    """One file of an Arrow stream, with the places of its record batches."""

    file_system: AbstractFileSystem
    path: str
    schema: pa.Schema
    batches: list[RecordBatchPlace] = field(default_factory=list)

    def read(self, number: int, start: int, stop: int, columns: Sequence[str]) -> pa.RecordBatch:
        """Read the wanted columns of rows [start, stop) of record batch `number`.

        Raises ValueError or ArrowInvalid if the batch is damaged. Errors of the file system are passed on.
        """
        batch = self.batches[number]
        message = _EmptyMessage(batch.header, batch.body_bytes)
        arrays = message.record_batch(self.schema).select(list(columns))
        for spans in _in_rounds(_value_spans(arrays.column(name), start, stop) for name in columns):
            self._fill(batch, message, spans)
        rows = arrays.slice(start, stop - start)
        rows.validate(full=True)  # Arrow would follow offsets that lead out of the body
        return rows

    def _fill(self, batch: RecordBatchPlace, message: "_EmptyMessage", spans: Iterable[Span]) -> None:
        """Fetch the bytes of some values into their places in the body of a message."""
        shift = batch.body_start - message.body.ctypes.data  # from addresses to offsets in the file
        ranges = ((address + shift, address + shift + size) for address, size in spans)
        for start, part in FetchedRanges(self.file_system, self.path, ranges).parts:
            first = start - batch.body_start
            message.body[first : first + len(part)] = np.frombuffer(part, np.uint8)


def index_stream(file_system: AbstractFileSystem, path: str) -> ArrowStream:
    """Index one file. Raises DataError if the file is not an Arrow stream, or is cut short."""
    size, at = file_system.size(path), 0
    schema, batches = None, list[RecordBatchPlace]()
    try:
        while header := _header(file_system, path, at, size):
            at += len(header)
            message = _EmptyMessage(header, size - at)
            if schema is None:
                with _value_errors():
                    schema = pa.ipc.read_schema(pa.py_buffer(header))
            else:
                rows = message.record_batch(schema).num_rows
                batches.append(RecordBatchPlace(header, at, len(message.body), rows))
            at += len(message.body)
    except (ValueError, struct.error, NotImplementedError, pa.ArrowException) as error:
        raise DataError(f"{path}: not an Arrow stream, or cut short ({one_line(error)})") from error
    if schema is None:
        raise DataError(f"{path}: an Arrow stream without a schema")
    return ArrowStream(file_system, path, schema, batches)


def _header(file_system: AbstractFileSystem, path: str, at: int, size: int) -> bytes:
    """Read prefix and metadata of the message at an offset; empty at the end of the stream."""
    header = bytes(file_system.cat_file(path, start=at, end=min(at + HEADER_BYTES, size))) if at < size else b""
    marker, length = PREFIX.unpack_from(header)
    if marker != CONTINUATION:
        raise ValueError(f"no message at byte {at}")
    if not length:
        return b""
    end = at + PREFIX.size + length
    if end > size:
        raise ValueError(f"a header of {length} bytes at byte {at} of {size}")
    if at + len(header) < end:
        header = bytes(file_system.cat_file(path, start=at, end=end))
    return header[: end - at]


@contextmanager
def _value_errors() -> Iterator[None]:
    """Turn Arrow's OSError into a ValueError, because damaged bytes in memory are no failure of a disk."""
    try:
        yield
    except OSError as error:
        raise ValueError(str(error)) from error


class _EmptyMessage:
    """A message whose body is zeros. They take no memory until something is written to them.

    Parameters
        header: prefix and metadata of the message
        max_bytes: number of bytes that the file has left for the body
    """

    closed = False  # read by pyarrow.PythonFile

    def __init__(self, header: bytes, max_bytes: int) -> None:
        self._header, self._max_bytes, self._at = header, max_bytes, 0
        self.body = np.zeros(0, np.uint8)

    def record_batch(self, schema: pa.Schema) -> pa.RecordBatch:
        """Return arrays over the body, with the numbers of rows and nulls from the header."""
        with _value_errors():
            message = pa.ipc.read_message(pa.PythonFile(self, "r"))
            if message.type != "record batch":
                raise ValueError(f"a message that is a {message.type}")
            arrays = pa.ipc.read_record_batch(message, schema)
        arrays.validate()  # Arrow would read past the end of buffers and children that are too short
        return arrays

    def read(self, size: int) -> bytes | memoryview:
        """Return the next bytes for pyarrow, which reads pieces of the header and then the whole body."""
        if self._at < len(self._header):
            self._at += size
            return self._header[self._at - size : self._at]
        if size > self._max_bytes:
            raise ValueError(f"a body of {size} bytes where {self._max_bytes} are left")
        self.body = np.zeros(size, np.uint8)
        return self.body.data


def _value_spans(array: pa.Array, start: int, stop: int) -> Iterator[list[Span]]:
    """Yield the spans of the values [start, stop) of an array, in lists. Fill each list before taking the next.

    Validity and offsets are included as a whole, because they are small and the array is valid with them.
    """
    kind = array.type
    validity, *others = array.buffers()
    bits = _whole(validity)
    if pa.types.is_struct(kind):
        children = [_value_spans(array.field(number), start, stop) for number in range(kind.num_fields)]
        yield from _in_rounds([iter([bits]), *children])
    elif is_list(kind) or _has_offsets(kind):
        yield bits + _whole(others[0])
        first, last = _offsets(kind, others[0], start, stop)
        available = len(array.values) if is_list(kind) else (others[1].size if others[1] else 0)
        if not 0 <= first <= last <= available:
            raise ValueError(f"values from {first} to {last} of {available}")
        if is_list(kind):
            yield from _value_spans(array.values, first, last)
        elif last > first:
            yield [(others[1].address + first, last - first)]
    elif pa.types.is_primitive(kind) and others[0]:
        first, last = start * kind.bit_width // 8, -(-stop * kind.bit_width // 8)
        yield [*bits, (others[0].address + first, last - first)]
    else:
        yield [span for buffer in array.buffers() for span in _whole(buffer)]


def _whole(buffer: pa.Buffer | None) -> list[Span]:
    return [(buffer.address, buffer.size)] if buffer else []


def _has_offsets(kind: pa.DataType) -> bool:
    """True for types of text and bytes whose values lie one after the other, with offsets between them."""
    return kind in (pa.string(), pa.binary(), pa.large_string(), pa.large_binary())


def _offsets(kind: pa.DataType, buffer: pa.Buffer | None, start: int, stop: int) -> tuple[int, int]:
    """Return the first and last offset of some values, among the elements of a list or the bytes of a text."""
    if start == stop or not buffer:
        return 0, 0
    is_large = pa.types.is_large_list(kind) or kind in (pa.large_string(), pa.large_binary())
    numbers = np.frombuffer(buffer, dtype="<i8" if is_large else "<i4")
    return int(numbers[start]), int(numbers[stop])


def _in_rounds(parts: Iterable[Iterator[list[Span]]]) -> Iterator[list[Span]]:
    """Join the first lists of all iterators, then the second lists, and so on.

    Each joined list is one round of requests.
    """
    running = list(parts)
    while running:
        firsts = [(part, next(part, None)) for part in running]
        running = [part for part, spans in firsts if spans is not None]
        if together := [span for _, spans in firsts for span in spans or []]:
            yield together
