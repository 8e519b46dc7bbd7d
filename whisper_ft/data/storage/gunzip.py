"""Unpacking of .tar.gz archives to plain tars, once for each archive.

A gzip file can only be read from its beginning. Seek points (indexed_gzip) were tried instead. One point per MiB takes
3 % of the archive in the memory of every process (2.4 GB for English) and 12 ms a clip. One per 4 MiB takes a quarter
of that memory and 44 ms a clip. A plain tar takes 0.1 ms a clip, and as much disk as the archive.
"""

import gzip
import hashlib
import os
import posixpath
import shutil
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import fsspec

from whisper_ft.data.storage.ranges import is_local
from whisper_ft.data.storage.read_errors import data_errors
from whisper_ft.runtime import atomic
from whisper_ft.runtime.errors import DataError, DiskError
from whisper_ft.runtime.lock import lock_file
from whisper_ft.runtime.printable import say

GZIP_MAGIC = b"\x1f\x8b"
MAX_RATIO, MAX_EXTRA_BYTES = 20, 2**30
"""Most bytes unpacked: 20 times the archive and 1 GiB more. Audio hardly compresses, and tables shrink to a fifth."""
PART_BYTES = 2**20
"""Bytes read at a time from a file that may be larger than memory."""


def gunzip(address: str, cache: Path | None = None) -> str:
    """Unpack a .tar.gz to a plain tar, unless this was done before, and return the tar's address.

    The address of a plain tar is returned unchanged. Unpacking reads the archive once (about 300 MB/s), and needs no
    memory and as much disk as the archive. Concurrent processes wait on a lock. The name of the tar contains a digest
    of the archive, so a moved archive is recognised and a changed archive is unpacked again.

    The tar is written to the folder `cache`, or beside the archive if `cache` is None. Without `cache`, an archive that
    is remote, or in a folder that cannot be written, is unpacked below $XDG_CACHE_HOME (~/.cache).

    Raises DataError if the archive is damaged, and DiskError if there is no room.
    """
    with data_errors(address):
        file_system, path = fsspec.core.url_to_fs(address)
        size = file_system.size(path)
        beginning = file_system.cat_file(path, start=0, end=min(4096, size)) if size else b""
        end = file_system.cat_file(path, start=max(size - 8, 0), end=size) if size else b""
    if not beginning.startswith(GZIP_MAGIC):
        return address
    digest = hashlib.sha256(beginning + end + str(size).encode()).hexdigest()[
        :8
    ]  # the end holds a checksum of the content
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
    """Unpack an archive to a temporary file under a lock, and rename the file once it is complete."""
    lock, aside = target.with_name(f".{target.name}.lock"), target.with_name(f".{target.name}.part")
    with atomic.disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with lock_file(lock, wait=True):
            if (
                target.exists()
            ):  # another process unpacked it; this lock is a new file after that process removed its own
                lock.unlink(missing_ok=True)
                return
            free = shutil.disk_usage(target.parent).free
            if free < size:
                raise DiskError(
                    f"{target.parent}: {free} bytes are free, and unpacking {address} takes at least {size}; make room"
                )
            say(f"unpacking {address} ({size / 1e9:.1f} GB), once, to {target}", file=sys.stderr)
            try:
                with aside.open("wb") as file:
                    file.writelines(_unpacked_parts(address, MAX_RATIO * size + MAX_EXTRA_BYTES))
                atomic.sync_file(aside)
                aside.rename(target)
            finally:
                aside.unlink(missing_ok=True)
            atomic.sync_folder(target.parent)
            lock.unlink()  # a process that still waits for the lock will find the tar


def _unpacked_parts(address: str, max_bytes: int) -> Iterator[bytes]:
    """Yield the content of a gzip file in parts.

    Raises DataError if the file is damaged, cut short, or longer than `max_bytes` when unpacked.
    """
    count = 0
    with data_errors(address), fsspec.open(address, "rb") as packed, gzip.open(packed) as file:
        while part := _read_part(file, address):
            count += len(part)
            if count > max_bytes:
                raise DataError(f"{address}: unpacks to over {max_bytes} bytes: not an archive of recordings")
            yield part


def _read_part(file: gzip.GzipFile, address: str) -> bytes:
    try:
        return file.read(PART_BYTES)
    except EOFError as error:
        raise DataError(f"{address}: cut short; get it again") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{address}: damaged ({error}); get it again") from error
