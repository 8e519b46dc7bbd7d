"""A shelf of the files in a tar archive: each is read by its place, which the headers tell."""

import posixpath
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import fsspec
import pyarrow as pa
import pyarrow.compute as pc

from whisper_ft.data.formats.file_table import data_errors
from whisper_ft.data.storage.files import MAX_BYTES
from whisper_ft.data.storage.gunzip import gunzip
from whisper_ft.data.storage.ranges import is_local
from whisper_ft.data.storage.tar_headers import Member, members
from whisper_ft.data.types import RejectedError

MEMBERS = pa.schema([("name", pa.large_string()), ("offset", pa.int64()), ("size", pa.int64())])
BATCH = 50_000  # members held as Python objects while an index is made
PART = 2**20  # bytes read at a time


class Archive:
    """A shelf: the files of an archive by name, each read with one ranged request. Of two of one name, the last.

    The index is an arrow table: a million files take about 60 MB.
    """

    def __init__(self, address: str, index: pa.Table, folder: str = "") -> None:
        self._address, self._index, self._folder = address, index, folder
        self._file_system, self._path = fsspec.core.url_to_fs(address)
        # What reading may raise: of a remote file system anything, for each brings its own client.
        self._failures: tuple[type[Exception], ...] = (OSError,) if is_local(self._file_system) else (Exception,)

    @classmethod
    def open(cls, address: str, cache: Path | None = None) -> Self:
        """The archive at an address; a .tar.gz is unpacked first, see `unpacked`. DataError, DiskError."""
        plain = gunzip(address, cache)
        batches, batch = [], list[Member]()
        for member in members(plain):
            batch.append(member)
            if len(batch) == BATCH:
                batches.append(_table(batch))
                batch = []
        index = pa.concat_tables([*batches, _table(batch)])
        order = pc.sort_indices(index.column("name"))  # stable, and in the order of Python's strings
        return cls(plain, index.take(order).combine_chunks())

    @property
    def names(self) -> pa.ChunkedArray:
        """Names of all files, sorted."""
        return self._index.column("name")

    def below(self, folder: str) -> "Archive":
        """The shelf of one folder: names are relative to it, and no other file can be reached."""
        inside = pc.starts_with(self.names, f"{folder}/" if folder else "")
        return Archive(self._address, self._index.filter(inside).combine_chunks(), folder)

    def read(self, name: str) -> bytes:
        """The bytes of one file; UnusableError: missing_file, outside_root, file_too_large, unreadable_file."""
        member = self._find(name)
        if member.size > MAX_BYTES:
            raise RejectedError("file_too_large", f"{name}: over {MAX_BYTES} bytes")
        if not member.size:
            return b""
        try:
            content = bytes(
                self._file_system.cat_file(self._path, start=member.offset, end=member.offset + member.size)
            )
        except MemoryError:
            raise
        except self._failures as error:
            raise RejectedError("unreadable_file", f"{name}: {' '.join(str(error).split())}") from error
        if len(content) != member.size:
            raise RejectedError("unreadable_file", f"{name}: {len(content)} bytes came, not {member.size}")
        return content

    def parts(self, name: str) -> Iterator[bytes]:
        """The bytes of one file, `PART` at a time, for one that need not fit in memory. UnusableError, DataError."""
        member = self._find(name)
        with data_errors(f"{self._address}: {name}"), self._file_system.open(self._path, "rb") as file:
            file.seek(member.offset)
            for at in range(0, member.size, PART):
                yield file.read(min(PART, member.size - at))

    def _find(self, name: str) -> Member:
        path = posixpath.normpath(posixpath.join(self._folder, name))
        is_inside = path.startswith(f"{self._folder}/") if self._folder else path.split("/")[0] not in ("", ".", "..")
        if not is_inside:
            raise RejectedError("outside_root", f"{name}: not in {self._folder or 'the archive'}")
        names = self.names
        at = bisect_right(range(len(names)), path, key=lambda i: str(names[i].as_py())) - 1
        if at < 0 or names[at].as_py() != path:
            raise RejectedError("missing_file", f"{name}: there is no such file in the archive")
        return Member(path, self._index.column("offset")[at].as_py(), self._index.column("size")[at].as_py())


def _table(batch: list[Member]) -> pa.Table:
    columns = zip(*batch, strict=True) if batch else ([], [], [])
    return pa.table([pa.array(column, kind) for column, kind in zip(columns, MEMBERS.types, strict=True)], MEMBERS)
