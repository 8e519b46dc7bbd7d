"""Reading of byte ranges of remote files, with few requests and few unneeded bytes."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractBufferedFile
from fsspec.utils import merge_offset_ranges

GAP_BYTES = 2**20
"""Ranges closer than this are fetched in one request, because a request costs more than 1 MiB does."""
OBJECT_STORES = {"s3", "s3a", "gs", "gcs"}
"""File systems that ask the server for a file's size and version each time the file is opened."""
MIN_LISTED_FILES = 17
"""A folder is listed if at least so many of its files are wanted. The server is asked for fewer files one by one."""
IO_THREADS = 16
"""Number of threads that index or read files. They wait for a disk or a server, so they may outnumber the cores."""

Range = tuple[int, int]
"""Byte range: offset of the first byte, and offset after the last byte."""


def is_local(file_system: AbstractFileSystem) -> bool:
    """True for the file system of this machine."""
    return isinstance(file_system, LocalFileSystem)


def protocols_of(file_system: AbstractFileSystem) -> set[str]:
    """Names of the protocols that addresses on a file system may have."""
    return {file_system.protocol} if isinstance(file_system.protocol, str) else set(file_system.protocol)


def learn_versions(file_system: AbstractFileSystem, paths: Sequence[str]) -> None:
    """List folders of an object store, so that fsspec learns sizes and versions of many files from one request.

    A request lists 1,000 files, and fsspec remembers them. A folder is not listed if only few of its files are wanted,
    because it may hold millions. Other file systems than object stores are not asked.
    """
    if not protocols_of(file_system) & OBJECT_STORES:
        return
    for folder, count in Counter(path.rpartition("/")[0] for path in paths).items():
        if count >= MIN_LISTED_FILES:
            with suppress(FileNotFoundError):  # opening the first file gives a better message
                file_system.ls(folder, detail=False)


class FetchedRanges:
    """Byte ranges of one file, fetched into memory at once. Ranges closer than GAP_BYTES share a request.

    Parameters
        ranges: ranges to fetch; empty ranges are skipped
        size: size of the file in bytes; if it is given, the Hub is not asked for it

    Raises ValueError if fewer bytes come than were wanted, as from a changed file.
    """

    def __init__(
        self, file_system: AbstractFileSystem, path: str, ranges: Iterable[Range], size: int | None = None
    ) -> None:
        wanted = [(start, end) for start, end in ranges if start < end]
        paths, self._starts, ends = merge_offset_ranges(
            [path] * len(wanted), [start for start, _ in wanted], [end for _, end in wanted], max_gap=GAP_BYTES
        )
        # fsspec reads a file of the Hub through a buffer of megabytes unless the buffer is switched off.
        options: dict[str, Any] = {"cache_type": "none", "size": size} if "hf" in protocols_of(file_system) else {}
        self._parts: list[bytes] = file_system.cat_ranges(paths, self._starts, ends, on_error="raise", **options)
        for start, end, part in zip(self._starts, ends, self._parts, strict=True):
            if len(part) != end - start:
                raise ValueError(
                    f"{len(part)} bytes came from byte {start} on, not {end - start}: the file has changed"
                )

    @property
    def parts(self) -> Iterable[tuple[int, bytes]]:
        """Offset and content of each fetched part."""
        return zip(self._starts, self._parts, strict=True)

    def get(self, start: int, end: int) -> bytes | None:
        """Return the bytes of a range; None if they were not fetched."""
        number = bisect_right(self._starts, start) - 1
        if number < 0 or end > self._starts[number] + len(self._parts[number]):
            return None
        first = self._starts[number]
        return self._parts[number][start - first : end - first]


class RangeFile(AbstractBufferedFile):  # type: ignore[misc]  # fsspec has no types
    """A remote file opened for reading. Opening fetches `ranges`, and each read of other bytes makes one request.

    Parameters
        size: size of the file in bytes; None asks the server
        ranges: ranges to fetch when the file is opened; without ranges, opening makes no request

    Raises ValueError if the size cannot be found out.
    """

    def __init__(
        self, file_system: AbstractFileSystem, path: str, size: int | None, ranges: Iterable[Range] = ()
    ) -> None:
        super().__init__(file_system, path, cache_type="none", size=size)
        if self.size is None:
            raise ValueError("the server does not tell the size of the file")
        self._fetched = FetchedRanges(file_system, path, ranges, size)

    def _fetch_range(self, start: int, end: int) -> bytes:
        end = min(end, self.size)
        fetched = self._fetched.get(start, end)
        if fetched is None:
            fetched = FetchedRanges(self.fs, self.path, [(start, end)], self.size).get(start, end)
        return fetched or b""
