"""Files elsewhere: few requests, and no byte that is not needed."""

import io
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

GAP = 2**20  # bytes that are rather read along than left out with a request more
TOLD_SIZE = {"http", "https", "hf"}  # file systems that ask nobody for a file's size when `open` is told
OBJECTS = {"s3", "s3a", "gs", "gcs"}  # file systems that ask for what is known of a file whenever it is opened
FEW = 16  # files of a folder that are rather asked for one by one, at the same time


def is_local(file_system: Any) -> bool:
    """True for the folders of this machine."""
    return isinstance(file_system, LocalFileSystem)


def learn_versions(file_system: Any, paths: Sequence[str]) -> None:
    """Have an object store tell sizes and versions of files, 1,000 in a request, where they would be asked for singly.

    It remembers what it told. A folder of which few files are wanted is not listed: it may hold millions.
    """
    if not _protocols(file_system) & OBJECTS:
        return
    for folder, count in Counter(path.rpartition("/")[0] for path in paths).items():
        if count > FEW:
            with suppress(FileNotFoundError):  # the first file that is opened says so better
                file_system.ls(folder, detail=False)


def _protocols(file_system: Any) -> set[str]:
    return {file_system.protocol} if isinstance(file_system.protocol, str) else set(file_system.protocol)


def open_remote(file_system: Any, path: str, size: int | None) -> Any:
    """A file that fetches what is read of it and nothing more; `size` in bytes saves the question for it."""
    names = _protocols(file_system)
    if size and names & OBJECTS:
        return _Object(file_system, path, size)
    told = {"size": size} if size and names & TOLD_SIZE else {}
    return file_system.open(path, "rb", cache_type="none", **told)


class _Seekable(io.RawIOBase):
    """A file for reading of which a subclass tells the size and fetches bytes."""

    def __init__(self) -> None:
        self._at = 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to an offset."""
        self._at = offset + (self._at if whence == io.SEEK_CUR else self._end() if whence == io.SEEK_END else 0)
        return self._at

    def tell(self) -> int:
        """The offset."""
        return self._at

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    @abstractmethod
    def _end(self) -> int:
        """Size in bytes."""


class _Object(_Seekable):
    """A file of an object store: each read is one request, and opening it is none."""

    def __init__(self, file_system: Any, path: str, size: int) -> None:
        super().__init__()
        self._file_system, self._path, self._size = file_system, path, size

    def read(self, size: int = -1) -> bytes:
        """So many bytes from here on, fewer only at the end of the file."""
        start, end = self._at, self._size if size < 0 else min(self._at + size, self._size)
        if start >= end:
            return b""
        found = bytes(self._file_system.cat_file(self._path, start=start, end=end))
        self._at += len(found)
        return found

    def _end(self) -> int:
        return self._size


def stretches(group: pq.RowGroupMetaData, columns: Sequence[str]) -> list[tuple[int, int]]:
    """[start, end) in the file of the columns of a row group, joined where little is between them.

    Arrow's own `pre_buffer` does not join over 8 kB of other columns nor beyond 32 MB: four requests for the
    row group of 50 MB that `datasets` writes.
    """
    joined: list[tuple[int, int]] = []
    for start, end in sorted(_places(group, columns)):
        if joined and start - joined[-1][1] <= GAP:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def _places(group: pq.RowGroupMetaData, columns: Sequence[str]) -> Iterable[tuple[int, int]]:
    for number in range(group.num_columns):
        column = group.column(number)
        if any(column.path_in_schema == name or column.path_in_schema.startswith(f"{name}.") for name in columns):
            first = column.data_page_offset
            if column.has_dictionary_page and column.dictionary_page_offset:
                first = min(first, column.dictionary_page_offset)
            yield first, first + column.total_compressed_size


class FetchedRanges(_Seekable):
    """A file of which some stretches are here, each fetched in one request; what else is read of it is fetched then."""

    def __init__(self, file: Any, wanted: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self._file = file
        self._parts = [(start, end, self._fetch(start, end - start)) for start, end in wanted]

    def read(self, size: int = -1) -> bytes:
        """So many bytes from here on, fewer only at the end of the file."""
        for start, end, part in self._parts:
            if start <= self._at and 0 <= size <= end - self._at:
                found = part[self._at - start : self._at - start + size]
                break
        else:
            found = self._fetch(self._at, size)
        self._at += len(found)
        return found

    def _end(self) -> int:
        return int(self._file.seek(0, io.SEEK_END))

    def _fetch(self, start: int, size: int) -> bytes:
        self._file.seek(start)
        return bytes(self._file.read(size))
