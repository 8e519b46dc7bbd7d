"""Files in tar archives: an index made from the headers alone, and each file read by its place.

An archive is a stranger's: a member whose name leads elsewhere, a link, a device or a sparse file is never used, and no
size is believed that the archive does not have.

gzip can only be read from its beginning, so a .tar.gz is unpacked to a .tar once. Seek points (indexed_gzip) were tried
instead: at one per MiB they take 3 % of the archive in the memory of every process, 2.4 GB for English, and 12 ms a
clip; at one per 4 MiB a quarter of that and 44 ms. A plain tar takes 0.1 ms, and as much disk as the archive.
"""

import fcntl
import gzip
import hashlib
import os
import posixpath
import shutil
import sys
import zlib
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

import fsspec
import pyarrow as pa
import pyarrow.compute as pc

from whisper_ft import durable
from whisper_ft.failure import DataError, DiskError
from whisper_ft.sources.listed import data_errors
from whisper_ft.sources.remote import is_local
from whisper_ft.sources.shelf import MAX_BYTES
from whisper_ft.window import UnusableError

BLOCK = 512  # bytes; headers and files begin at multiples
MAX_EXTENDED = 2**20  # bytes of a long name or a set of pax records; a path has 4,096 at most
REMOTE_AHEAD = 2**18  # bytes fetched with a remote header: the next ones are among them where files are small
REGULAR, WITHOUT_DATA = b"07\0", b"123456"  # types of members, as in POSIX ustar
MEMBERS = pa.schema([("name", pa.large_string()), ("offset", pa.int64()), ("size", pa.int64())])
BATCH = 50_000  # members held as Python objects while an index is made
MOST_UNPACKED, MOST_BESIDES = 20, 2**30  # times the archive, and bytes: recordings do not compress, tables 5 times
GZIP = b"\x1f\x8b"
PART = 2**20  # bytes unpacked or read at a time


class Member(NamedTuple):
    """A file in an archive."""

    name: str  # normalised, relative
    offset: int  # of its first byte in the archive
    size: int  # bytes


def members(address: str) -> Iterator[Member]:
    """The regular files of a plain tar, in their order; those with a name that leads out of the archive are left out.

    Reads headers and seeks over what is between them. A remote archive of small files (below 256 KiB) is fetched once
    as a whole, one of large files in parts. DataError: not a tar, damaged, cut short.
    """
    with data_errors(address):
        file_system, path = fsspec.core.url_to_fs(address)
        options = {} if is_local(file_system) else {"cache_type": "readahead", "block_size": REMOTE_AHEAD}
        with file_system.open(path, "rb", **options) as file:
            yield from _Headers(file, file.seek(0, 2), address).members()


class _Headers:
    """The headers of an open tar, one after the other."""

    def __init__(self, file: Any, size: int, address: str) -> None:
        self._file, self._size, self._address = file, size, address

    def members(self) -> Iterator[Member]:
        """The files that can be used, in their order."""
        at, long_name, pax = 0, b"", dict[bytes, bytes]()
        while header := self._header(at):
            kind, stated, name, at = header[156:157], _number(header[124:136]), _name(header), at + BLOCK
            if kind in b"Lx":
                size = self._checked(stated, MAX_EXTENDED, at)
                extended = self._read(at, size, "a long name")
                if kind == b"L":
                    long_name = extended.split(b"\0", 1)[0]
                else:
                    pax = self._pax(extended, at)
            elif kind not in b"Kg":
                if kind == b"S":
                    at = self._after_sparse(header, at)
                stated = _number(pax[b"size"], base=10) if b"size" in pax else stated
                size = 0 if kind in WITHOUT_DATA else self._checked(stated, self._size, at)
                safe = _safe(pax.get(b"path", long_name or name))
                is_sparse = kind == b"S" or any(key.startswith(b"GNU.sparse") for key in pax)
                if kind in REGULAR and safe and not is_sparse:
                    yield Member(safe, at, size)
                long_name, pax = b"", {}
            else:
                size = self._checked(stated, self._size, at)
            at += -(-size // BLOCK) * BLOCK

    def _header(self, at: int) -> bytes | None:
        """The header at a place; None at the end, which some writers leave unmarked."""
        if not self._size:
            raise DataError(f"{self._address}: is empty")
        if at == self._size:
            return None
        header = self._read(at, BLOCK, "a header")
        if not any(header):
            return None
        # The sum of all bytes, those of the sum itself counted as spaces.
        if _number(header[148:156]) != sum(header[:148]) + sum(header[156:]) + 8 * ord(" "):
            problem = f"damaged at byte {at}; get it again" if at else "not a tar archive, or a damaged one"
            if header.startswith(GZIP):
                problem = "compressed, and so cannot be read at random; unpack it with gunzip"
            raise DataError(f"{self._address}: {problem}")
        return header

    def _read(self, at: int, size: int, what: str) -> bytes:
        self._file.seek(at)
        content = bytes(self._file.read(size))
        if len(content) < size:
            raise DataError(f"{self._address}: cut short inside {what} at byte {at}; get it again")
        return content

    def _checked(self, size: int | None, most: int, at: int) -> int:
        """A size that is possible; DataError for any other."""
        if size is None or size < 0 or size > most or at + size > self._size:
            told = "an impossible size" if size is None else f"{size} bytes"
            raise DataError(
                f"{self._address}: cut short or damaged: the member at byte {at} says it has {told}, "
                f"the archive has {self._size}; get it again"
            )
        return size

    def _pax(self, records: bytes, at: int) -> dict[bytes, bytes]:
        """Records of the form `length key=value newline`, the length being that of the whole record."""
        found = {}
        while records.strip(b"\0"):
            digits, _, _ = records[:20].partition(b" ")
            length = int(digits) if digits.isdigit() else 0
            key, equals, value = records[len(digits) + 1 : length].partition(b"=")
            if not equals or not value.endswith(b"\n") or length > len(records):
                raise DataError(f"{self._address}: damaged at byte {at}: pax records that are none")
            found[key], records = value[:-1], records[length:]
        return found

    def _after_sparse(self, header: bytes, at: int) -> int:
        """Where the data of an old GNU sparse file begins: its map may go on in blocks after the header."""
        more = header[482]
        while more:
            more, at = self._read(at, BLOCK, "a sparse map")[504], at + BLOCK
        return at


def _number(field: bytes, base: int = 8) -> int | None:
    """A number of a header: octal text, or base 256 where its first bit is set; None if it is neither."""
    if base == 8 and field[:1] in (b"\x80", b"\xff"):
        return int.from_bytes(field[1:], "big") if field[0] == 0x80 else -1
    text = field.split(b"\0", 1)[0].strip()
    try:
        return int(text or b"0", base)
    except ValueError:
        return None


def _name(header: bytes) -> bytes:
    name, prefix = header[:100].split(b"\0", 1)[0], header[345:500].split(b"\0", 1)[0]
    return prefix + b"/" + name if prefix and header[257:263] == b"ustar\0" else name


def _safe(name: bytes) -> str | None:
    """A member's name, normalised; None for a folder and for what would lead out of the archive."""
    text = name.decode("utf-8", errors="replace")
    if not text or text.startswith("/") or text.endswith("/") or "\0" in text or ".." in text.split("/"):
        return None
    normal = posixpath.normpath(text)
    return None if normal == "." else normal


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
        plain = unpacked(address, cache)
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
            raise UnusableError("file_too_large", f"{name}: over {MAX_BYTES} bytes")
        if not member.size:
            return b""
        try:
            content = bytes(self._file_system.cat_file(self._path, member.offset, member.offset + member.size))
        except MemoryError:
            raise
        except self._failures as error:
            raise UnusableError("unreadable_file", f"{name}: {' '.join(str(error).split())}") from error
        if len(content) != member.size:
            raise UnusableError("unreadable_file", f"{name}: {len(content)} bytes came, not {member.size}")
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
            raise UnusableError("outside_root", f"{name}: not in {self._folder or 'the archive'}")
        names = self.names
        at = bisect_right(range(len(names)), path, key=lambda i: str(names[i].as_py())) - 1
        if at < 0 or names[at].as_py() != path:
            raise UnusableError("missing_file", f"{name}: there is no such file in the archive")
        return Member(path, self._index.column("offset")[at].as_py(), self._index.column("size")[at].as_py())


def _table(batch: list[Member]) -> pa.Table:
    columns = zip(*batch, strict=True) if batch else ([], [], [])
    return pa.table([pa.array(column, kind) for column, kind in zip(columns, MEMBERS.types, strict=True)], MEMBERS)


def unpacked(address: str, cache: Path | None = None) -> str:
    """Address of the plain tar that an archive is, or that a .tar.gz was unpacked to. DataError, DiskError.

    Unpacking reads the archive once (about 300 MB/s), needs no memory, and as much disk as the archive has: in the
    folder `cache`; where that is None beside the archive, or for one that is remote or in a folder that cannot be
    written, below $XDG_CACHE_HOME (~/.cache). A process that finds another one at it waits. The tar's name holds
    a digest of what it is from: it is found again when the archive was moved, and is another when it was changed.
    """
    with data_errors(address):
        file_system, path = fsspec.core.url_to_fs(address)
        size = file_system.size(path)
        beginning, end = file_system.cat_file(path, 0, 4096), file_system.cat_file(path, max(size - 8, 0), size)
    if not beginning.startswith(GZIP):
        return address
    digest = hashlib.sha256(beginning + end + str(size).encode()).hexdigest()[:8]  # the end has the sum of all bytes
    stem = posixpath.basename(path).removesuffix(".gz").removesuffix(".tgz").removesuffix(".tar")
    name = f"{stem}.unpacked-{digest}.tar"
    beside = Path(path).parent if is_local(file_system) else None
    if beside and cache is None and ((beside / name).exists() or os.access(beside, os.W_OK)):
        target = beside / name
    else:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "whisper_ft"
        target = (cache or home) / name
    if not target.exists():
        _unpack_once(address, size, target)
    return str(target)


def _unpack_once(address: str, size: int, target: Path) -> None:
    """Unpack under a lock, aside, and give the file its name when it is whole."""
    lock, aside = target.with_name(f".{target.name}.lock"), target.with_name(f".{target.name}.part")
    with durable.disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with lock.open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            if target.exists():
                return
            free = shutil.disk_usage(target.parent).free
            if free < size:
                raise DiskError(f"{target.parent}: {free} bytes are free, unpacking {address} takes at least {size}")
            print(f"unpacking {address} ({size / 1e9:.1f} GB), once, to {target}", file=sys.stderr, flush=True)
            try:
                with aside.open("wb") as to:
                    to.writelines(_gunzipped(address, MOST_UNPACKED * size + MOST_BESIDES))
                durable.sync_file(aside)
                aside.rename(target)
            finally:
                aside.unlink(missing_ok=True)
            durable.sync_folder(target.parent)
            lock.unlink()  # who still waits for it will find the file


def _gunzipped(address: str, most: int) -> Iterator[bytes]:
    """What a gzip file holds, in parts; DataError where it is damaged, cut short, or holds more than `most` bytes."""
    count = 0
    with data_errors(address), fsspec.open(address, "rb") as packed, gzip.open(packed) as file:
        while part := _part(file, address):
            count += len(part)
            if count > most:
                raise DataError(f"{address}: unpacks to over {most} bytes: not an archive of recordings")
            yield part


def _part(file: gzip.GzipFile, address: str) -> bytes:
    try:
        return file.read(PART)
    except EOFError as error:
        raise DataError(f"{address}: cut short; get it again") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{address}: damaged ({error}); get it again") from error
