"""Random access to tar archives: an index of the plain files inside, made from the headers, and a file store over it.

Archives come from strangers. Links, devices, sparse files and names that lead out of the archive are left out. A member
that would end after the archive is refused.
"""

import posixpath
import tarfile
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, NamedTuple, Self

import fsspec
import pyarrow as pa
import pyarrow.compute as pc

from whisper_ft.data.storage import content
from whisper_ft.data.storage.files import MAX_FILE_BYTES
from whisper_ft.data.storage.gunzip import GZIP_MAGIC, PART_BYTES, gunzip
from whisper_ft.data.storage.ranges import is_local
from whisper_ft.data.storage.read_errors import data_errors, read_failures
from whisper_ft.data.types import RejectedError
from whisper_ft.runtime.errors import DataError, one_line

MAX_HEADER_BYTES = 2**17
"""Bytes of the longest extended header (a long name, pax records) that is read.

A path has 4,096 bytes at most and an extended attribute 65,536. The time that tarfile takes for
hostile pax records grows with the square of their length.
"""
REMOTE_BLOCK_BYTES = 2**18
"""Bytes fetched with a remote header, because the next headers are among them if the files are small."""
INDEX_BLOCK = 50_000
"""Most members that are Python objects at a time while an index is made."""
INDEX_SCHEMA = pa.schema([("name", pa.large_string()), ("offset", pa.int64()), ("size", pa.int64())])
PARSE_FAILURES = (tarfile.TarError, ValueError, LookupError, RecursionError)
"""Exceptions that tarfile raises for damaged headers."""


class TarMember(NamedTuple):
    """A plain file in an archive."""

    name: str
    """Normalised path relative to the archive."""
    offset: int
    """Offset of the content in the archive, in bytes."""
    size: int
    """Size of the content in bytes."""


def tar_members(address: str) -> Iterator[TarMember]:
    """Yield the plain files of an uncompressed tar in order, except files whose name leads out of the archive.

    Only the headers are read, and the content is skipped by seeking. Even so, a remote archive of small files (below
    256 KiB) is fetched once as a whole. An archive of large files is fetched in parts.

    Raises DataError if the file is not a tar, is damaged, or is cut short.
    """
    with data_errors(address):
        file_system, path = fsspec.core.url_to_fs(address)
        options = {} if is_local(file_system) else {"cache_type": "readahead", "block_size": REMOTE_BLOCK_BYTES}
        with file_system.open(path, "rb", **options) as file:
            size = file.seek(0, 2)
            if not size:
                raise DataError(f"{address}: is empty; get it again")
            file.seek(0)
            if file.read(len(GZIP_MAGIC)) == GZIP_MAGIC:
                raise DataError(f"{address}: compressed, so it cannot be read at random; unpack it with gunzip")
            file.seek(0)
            try:
                for header in _headers(file, size):
                    name = _safe_name(header.name) if _is_plain(header) else None
                    if name is not None:
                        yield TarMember(name, header.offset_data, header.size)
            except PARSE_FAILURES as error:
                problem = f"not a tar archive, or damaged or cut short ({one_line(error)})"
                raise DataError(f"{address}: {problem}; get it again") from error


class _HeaderReader:
    """File for tarfile that refuses long reads, because tarfile reads as many bytes as a header claims to have."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.seek, self.tell = file, file.seek, file.tell

    def read(self, size: int) -> bytes:
        """Return the next bytes. Raises tarfile.ReadError for more than MAX_HEADER_BYTES."""
        if not 0 <= size <= MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header states {size} bytes, at most {MAX_HEADER_BYTES} are read")
        return self._file.read(size)


def _headers(file: IO[bytes], size: int) -> Iterator[tarfile.TarInfo]:
    """Yield the headers of an open archive of `size` bytes.

    Raises one of PARSE_FAILURES if the archive is damaged or cut short.
    """
    archive = tarfile.TarFile(fileobj=_HeaderReader(file), encoding="utf-8", errors="replace")  # type: ignore[arg-type]
    end = 0
    while (header := archive.next()) is not None:
        if header.size < 0 or not end < archive.offset <= size:
            raise tarfile.ReadError(
                f"the member at byte {header.offset} states {header.size} bytes, the archive has {size}"
            )
        end = archive.offset
        archive.members.clear()  # type: ignore[attr-defined]  # else a million headers would stay in memory
        yield header
    file.seek(archive.offset)
    mark = file.read(tarfile.BLOCKSIZE)  # some writers leave out the mark at the end
    if any(mark) or 0 < len(mark) < tarfile.BLOCKSIZE:  # tarfile takes a damaged header for the end
        raise tarfile.ReadError(f"no header at byte {archive.offset}")


def _is_plain(header: tarfile.TarInfo) -> bool:
    is_sparse = header.issparse() or any(key.startswith("GNU.sparse") for key in header.pax_headers)
    return header.isreg() and not is_sparse


def _safe_name(name: str) -> str | None:
    """Normalised name of a member; None for a folder and for a name that leads out of the archive."""
    if not name or name.startswith("/") or name.endswith("/") or "\0" in name or ".." in name.split("/"):
        return None
    normal = posixpath.normpath(name)
    return None if normal == "." else normal


class TarArchive:
    """File store over a tar. Each file is read with one ranged request.

    If several files have one name, the last counts. The index is an arrow table, because a million files take about 60
    MB in it.
    """

    def __init__(self, address: str, index: pa.Table, folder: str = "") -> None:
        self._address, self._index, self._folder = address, index, folder
        self._file_system, self._path = fsspec.core.url_to_fs(address)
        self._failures = read_failures(address)

    @classmethod
    def open(cls, address: str, cache: Path | None = None) -> Self:
        """Open the archive at an address. A .tar.gz is unpacked first by `gunzip`.

        Raises DataError if the archive is damaged, and DiskError if there is no room to unpack it.
        """
        plain = gunzip(address, cache)
        members, blocks = tar_members(plain), []
        while block := list(islice(members, INDEX_BLOCK)):
            blocks.append(_index_table(block))
        index = pa.concat_tables(blocks) if blocks else INDEX_SCHEMA.empty_table()
        order = pc.sort_indices(index.column("name"))  # stable, and in the order of Python's strings
        return cls(plain, index.take(order).combine_chunks())

    @property
    def names(self) -> pa.ChunkedArray:
        """Names of all files, relative to the archive and sorted. A repeated name comes more than once."""
        return self._index.column("name")

    def below(self, folder: str) -> "TarArchive":
        """Return a file store of one folder. Names are relative to the folder, and no other file can be reached."""
        is_below = pc.starts_with(self.names, f"{folder}/" if folder else "")
        return TarArchive(self._address, self._index.filter(is_below).combine_chunks(), folder)

    def read(self, name: str) -> bytes:
        """Return the content of one file.

        Raises RejectedError with one of these reason codes: missing_file, outside_root, file_too_large,
        unreadable_file.
        """
        member = self._member(name)
        if member.size > MAX_FILE_BYTES:
            raise RejectedError("file_too_large", f"{name}: over {MAX_FILE_BYTES} bytes")
        if not member.size:
            return b""
        start, end = member.offset, member.offset + member.size
        try:
            content = bytes(self._file_system.cat_file(self._path, start=start, end=end))
        except MemoryError:
            raise
        except self._failures as error:
            raise RejectedError("unreadable_file", f"{name}: {one_line(error)}") from error
        if len(content) != member.size:
            raise RejectedError("unreadable_file", f"{name}: {len(content)} bytes came, not {member.size}")
        return content

    def content(self, names: Sequence[str]) -> content.Content:
        """Return digests of the sizes of files, and of a sample of their bytes, if the archive is local.

        They are those of the unpacked files, so a run may continue with the folder in place of the archive. A remote
        archive gives the size and version of the archive itself.
        """
        if not is_local(self._file_system):
            return content.of_files(self._file_system, [self._path])
        index = zip(
            self.names.to_pylist(),
            self._index.column("offset").to_pylist(),
            self._index.column("size").to_pylist(),
            strict=True,
        )
        members = {name: TarMember(name, offset, size) for name, offset, size in index}
        found = [members.get(posixpath.normpath(posixpath.join(self._folder, name))) for name in names]
        by_name = {name: member for name, member in zip(names, found, strict=True) if member is not None}

        def pieces(name: str, size: int) -> list[bytes]:
            first = by_name[name].offset
            ends = [(start, min(start + content.PIECE_BYTES, size)) for start in content.piece_starts(size)]
            return [
                bytes(self._file_system.cat_file(self._path, start=first + a, end=first + b)) if a < b else b""
                for a, b in ends
            ]

        sizes = [content.MISSING if member is None else member.size for member in found]
        return content.of_list(names, sizes, pieces)

    def parts(self, name: str) -> Iterator[bytes]:
        """Yield the content of one file, PART_BYTES at a time, because a table need not fit in memory.

        Raises RejectedError (missing_file, outside_root) for a wrong name, and DataError if the archive cannot be read.
        """
        member = self._member(name)
        with data_errors(f"{self._address}: {name}"), self._file_system.open(self._path, "rb") as file:
            file.seek(member.offset)
            for start in range(0, member.size, PART_BYTES):
                yield file.read(min(PART_BYTES, member.size - start))

    def _member(self, name: str) -> TarMember:
        path = posixpath.normpath(posixpath.join(self._folder, name))
        is_inside = path.startswith(f"{self._folder}/") if self._folder else path.split("/")[0] not in ("", ".", "..")
        if not is_inside:
            raise RejectedError("outside_root", f"{name}: not in {self._folder or 'the archive'}")
        names = self.names
        row = bisect_right(range(len(names)), path, key=lambda i: str(names[i].as_py())) - 1
        if row < 0 or names[row].as_py() != path:
            raise RejectedError("missing_file", f"{name}: there is no such file in the archive")
        return TarMember(path, self._index.column("offset")[row].as_py(), self._index.column("size")[row].as_py())


def _index_table(members: list[TarMember]) -> pa.Table:
    columns = zip(*members, strict=True)
    return pa.table(
        [pa.array(column, kind) for column, kind in zip(columns, INDEX_SCHEMA.types, strict=True)], INDEX_SCHEMA
    )
