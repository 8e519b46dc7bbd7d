"""Files of a tar archive by their headers alone.

An archive is a stranger's: a member whose name leads elsewhere, a link, a device or a sparse file is never used, and no
size is believed that the archive does not have.
"""

import posixpath
from collections.abc import Iterator
from typing import Any, NamedTuple

import fsspec

from whisper_ft.data.formats.file_table import data_errors
from whisper_ft.data.storage.ranges import is_local
from whisper_ft.runtime.errors import DataError

BLOCK = 512  # bytes; headers and files begin at multiples
MAX_EXTENDED = 2**20  # bytes of a long name or a set of pax records; a path has 4,096 at most
REMOTE_AHEAD = 2**18  # bytes fetched with a remote header: the next ones are among them where files are small
REGULAR, WITHOUT_DATA = b"07\0", b"123456"  # types of members, as in POSIX ustar
GZIP = b"\x1f\x8b"


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
