"""Arrow streams (as `datasets` writes them) read at random: a few rows of a record batch, and no other bytes of it.

A stream has no footer; its index is made of the headers of its messages. To read rows, Arrow lays the arrays of a batch
over a body of zeros, which says where in the body each value is; the bytes of the rows are then fetched into their
places. Nothing is memory-mapped: a mapped file that is cut short ends the process, and elsewhere nothing can be mapped.
Format: https://arrow.apache.org/docs/format/Columnar.html#encapsulated-message-format
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from whisper_ft.data.storage.ranges import GAP
from whisper_ft.runtime.errors import DataError

HEAD_BYTES = 4096  # fetched for the header of a message; 300 bytes are usual, but for the schema
PREFIX = struct.Struct("<II")  # continuation marker, length of the metadata
CONTINUATION = 0xFFFFFFFF

Range = tuple[int, int]  # address, number of bytes


@dataclass(frozen=True)
class RecordBatch:
    """Where a record batch lies in its file."""

    head: bytes
    body_at: int
    body_bytes: int
    rows: int


@dataclass(frozen=True)
class ArrowStream:
    """One file and its index."""

    file_system: Any
    path: str
    schema: pa.Schema
    batches: list[RecordBatch] = field(default_factory=list)

    def read(self, number: int, start: int, stop: int, columns: Sequence[str]) -> pa.RecordBatch:
        """Rows [start, stop) of a record batch; ValueError or ArrowInvalid when it is damaged."""
        batch = self.batches[number]
        message = _Unfilled(batch.head, batch.body_bytes)
        laid = message.record_batch(self.schema).select(list(columns))
        for wanted in _together(_needed(laid.column(name), start, stop) for name in columns):
            self._fill(batch, message, wanted)
        rows = laid.slice(start, stop - start)
        rows.validate(full=True)  # offsets that lead out of the body would be followed
        return rows

    def _fill(self, batch: RecordBatch, message: "_Unfilled", wanted: Iterable[Range]) -> None:
        first = message.body.ctypes.data
        places = _joined((address - first, address - first + size) for address, size in wanted if size)
        starts, ends = ([batch.body_at + place[side] for place in places] for side in (0, 1))
        parts = self.file_system.cat_ranges([self.path] * len(places), starts, ends, on_error="raise")
        for (start, end), part in zip(places, parts, strict=True):
            if len(part) != end - start:
                raise ValueError(f"{len(part)} bytes were read instead of {end - start}")
            message.body[start:end] = np.frombuffer(part, np.uint8)


def index_stream(file_system: Any, path: str) -> ArrowStream:
    """The index of one file; DataError when it is no Arrow stream, or has no end."""
    size, at = file_system.size(path), 0
    schema, batches = None, list[RecordBatch]()
    try:
        while head := _head(file_system, path, at, size):
            at += len(head)
            message = _Unfilled(head, size - at)
            if schema is None:
                with _damage_told():
                    schema = pa.ipc.read_schema(pa.py_buffer(head))
            else:
                rows = message.record_batch(schema).num_rows
                batches.append(RecordBatch(head, at, len(message.body), rows))
            at += len(message.body)
    except (ValueError, struct.error, NotImplementedError, pa.ArrowException) as error:
        raise DataError(f"{path}: not an Arrow stream, or cut short ({' '.join(str(error).split())})") from error
    if schema is None:
        raise DataError(f"{path}: an Arrow stream without a schema")
    return ArrowStream(file_system, path, schema, batches)


def _head(file_system: Any, path: str, at: int, size: int) -> bytes:
    """Prefix and metadata of the message at an offset; empty at the end of the stream."""
    found = bytes(file_system.cat_file(path, start=at, end=min(at + HEAD_BYTES, size))) if at < size else b""
    marker, length = PREFIX.unpack_from(found)
    if marker != CONTINUATION:
        raise ValueError(f"no message at byte {at}")
    if not length:
        return b""
    end = at + PREFIX.size + length
    if end > size:
        raise ValueError(f"a header of {length} bytes at byte {at} of {size}")
    if at + len(found) < end:
        found = bytes(file_system.cat_file(path, start=at, end=end))
    return found[: end - at]


@contextmanager
def _damage_told() -> Iterator[None]:
    """ValueError for what Arrow calls an OSError: bytes in memory that make no sense are no failure of a disk."""
    try:
        yield
    except OSError as error:
        raise ValueError(str(error)) from error


class _Unfilled:
    """A message whose body reads as zeros, which take no memory until something is written to them."""

    closed = False  # asked by pyarrow.PythonFile

    def __init__(self, head: bytes, most: int) -> None:
        self._head, self._most, self._at = head, most, 0
        self.body = np.zeros(0, np.uint8)

    def record_batch(self, schema: pa.Schema) -> pa.RecordBatch:
        """Arrays over the body, with the numbers of rows and nulls that the head says."""
        with _damage_told():
            message = pa.ipc.read_message(pa.PythonFile(self, "r"))
            if message.type != "record batch":
                raise ValueError(f"a message that is a {message.type}")
            laid = pa.ipc.read_record_batch(message, schema)
        laid.validate()  # buffers and children that are too short would be read past their ends
        return laid

    def read(self, size: int) -> Any:
        """The next bytes, as pyarrow asks for them: pieces of the head, then the body at once."""
        if self._at < len(self._head):
            self._at += size
            return self._head[self._at - size : self._at]
        if size > self._most:
            raise ValueError(f"a body of {size} bytes where {self._most} are left")
        self.body = np.zeros(size, np.uint8)
        return self.body.data


def _needed(array: pa.Array, start: int, stop: int) -> Iterator[list[Range]]:
    """Where the values [start, stop) of an array are: lists of ranges, each to be filled before the next is asked for.

    Validity and offsets are asked for as a whole: they are small, and so the array is a valid one.
    """
    kind = array.type
    validity, *others = array.buffers()
    bits = _whole(validity)
    if pa.types.is_struct(kind):
        children = [_needed(array.field(number), start, stop) for number in range(kind.num_fields)]
        yield from _together([iter([bits]), *children])
    elif _is_list(kind) or _is_bytes(kind):
        yield bits + _whole(others[0])
        first, last = _offsets(kind, others[0], start, stop)
        held = len(array.values) if _is_list(kind) else (others[1].size if others[1] else 0)
        if not 0 <= first <= last <= held:
            raise ValueError(f"values from {first} to {last} of {held}")
        if _is_list(kind):
            yield from _needed(array.values, first, last)
        elif last > first:
            yield [(others[1].address + first, last - first)]
    elif pa.types.is_primitive(kind) and others[0]:
        first, last = start * kind.bit_width // 8, -(-stop * kind.bit_width // 8)
        yield [*bits, (others[0].address + first, last - first)]
    else:
        yield [place for buffer in array.buffers() for place in _whole(buffer)]


def _whole(buffer: pa.Buffer | None) -> list[Range]:
    return [(buffer.address, buffer.size)] if buffer else []


def _offsets(kind: pa.DataType, buffer: pa.Buffer | None, start: int, stop: int) -> tuple[int, int]:
    """Where the values begin and end among what a list or a text is made of."""
    if start == stop or not buffer:
        return 0, 0
    is_large = pa.types.is_large_list(kind) or kind in (pa.large_string(), pa.large_binary())
    numbers = np.frombuffer(buffer, dtype="<i8" if is_large else "<i4")
    return int(numbers[start]), int(numbers[stop])


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return kind in (pa.string(), pa.binary(), pa.large_string(), pa.large_binary())


def _together(parts: Iterable[Iterator[list[Range]]]) -> Iterator[list[Range]]:
    """The first lists of all parts as one, then the second ones, ...: one round of requests for each."""
    running = list(parts)
    while running:
        firsts = [(part, next(part, None)) for part in running]
        running = [part for part, found in firsts if found is not None]
        if wanted := [place for _, found in firsts for place in found or []]:
            yield wanted


def _joined(places: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """[start, end) in order, as one where little is between them."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(places):
        if joined and start - joined[-1][1] <= GAP:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined
