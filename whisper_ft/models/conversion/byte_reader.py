"""Reader of a binary file: each size that the file states is checked against its length before memory is used."""

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

import numpy as np

from whisper_ft.runtime.errors import UsageError, one_line
from whisper_ft.runtime.regular_file import open_regular

LONGEST_NAME = 1_000  # bytes of a name of a tensor or token; the longest of Whisper has 127


class ByteReader:
    """Sequential reader of a regular file of known size.

    Every problem is a UsageError of one line that names the file and the byte, because such a file comes from the user.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            self._file = BufferedReader(open_regular(path))
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror or error}; expected a model file that can be read") from error
        self.size = os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def position(self) -> int:
        """Byte at which the next read begins."""
        return self._file.tell()

    def error(self, message: str) -> UsageError:
        """Return a UsageError about the content at the current position."""
        return UsageError(f"{self.path}: {one_line(message)} (before byte {self.position:,} of {self.size:,})")

    def take(self, count: int, subject: str) -> bytes:
        """Read `count` bytes. `subject` is their name in the message if the file ends before."""
        self._require(count, subject)
        content = self._file.read(count)
        if len(content) != count:  # the file became shorter
            raise self.error(f"the file ends inside {subject}")
        return content

    def numbers(self, layout: str, subject: str) -> tuple[int, ...]:
        """Read little-endian integers, such as `3i` or `IBH`."""
        record = struct.Struct(f"<{layout}")
        return record.unpack(self.take(record.size, subject))

    def skip(self, count: int, subject: str) -> int:
        """Pass over `count` bytes, and return the position of the first."""
        self._require(count, subject)
        start = self.position
        self._file.seek(count, os.SEEK_CUR)
        return start

    def array(self, start: int, count: int, dtype: np.dtype) -> np.ndarray:
        """Read `count` values of a tensor that begins at the byte `start`, as `skip` returned it."""
        self._file.seek(start)
        return np.frombuffer(self.take(count * dtype.itemsize, "a tensor"), dtype)

    @property
    def at_end(self) -> bool:
        """True if every byte was read."""
        return self.position == self.size

    def _require(self, count: int, subject: str) -> None:
        if count > self.size - self.position:
            raise self.error(
                f"the file ends inside {subject}: {count:,} more bytes are stated, {self.size - self.position:,} are "
                "there; the download or copy is incomplete"
            )


@contextmanager
def reading(path: Path) -> Iterator[ByteReader]:
    """Open a file for reading; it is closed at the end of the block."""
    reader = ByteReader(path)
    try:
        yield reader
    finally:
        reader.close()
