"""The plain tar that a .tar.gz is unpacked to, once.

gzip can only be read from its beginning. Seek points (indexed_gzip) were tried instead: at one per MiB they take 3 % of
the archive in the memory of every process, 2.4 GB for English, and 12 ms a clip; at one per 4 MiB a quarter of that and
44 ms. A plain tar takes 0.1 ms, and as much disk as the archive.
"""

import fcntl
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

from whisper_ft.data.formats.file_table import data_errors
from whisper_ft.data.storage.ranges import is_local
from whisper_ft.data.storage.tar_headers import GZIP
from whisper_ft.runtime import atomic
from whisper_ft.runtime.errors import DataError, DiskError

MOST_UNPACKED, MOST_BESIDES = 20, 2**30  # times the archive, and bytes: recordings do not compress, tables 5 times
PART = 2**20  # bytes unpacked at a time


def gunzip(address: str, cache: Path | None = None) -> str:
    """Address of the plain tar that an archive is, or that a .tar.gz was unpacked to. DataError, DiskError.

    Unpacking reads the archive once (about 300 MB/s), needs no memory, and as much disk as the archive has: in the
    folder `cache`; where that is None beside the archive, or for one that is remote or in a folder that cannot be
    written, below $XDG_CACHE_HOME (~/.cache). A process that finds another one at it waits. The tar's name holds
    a digest of what it is from: it is found again when the archive was moved, and is another when it was changed.
    """
    with data_errors(address):
        file_system, path = fsspec.core.url_to_fs(address)
        size = file_system.size(path)
        beginning = file_system.cat_file(path, start=0, end=min(4096, size)) if size else b""
        end = file_system.cat_file(path, start=max(size - 8, 0), end=size) if size else b""
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
    with atomic.disk_errors(target):
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
                atomic.sync_file(aside)
                aside.rename(target)
            finally:
                aside.unlink(missing_ok=True)
            atomic.sync_folder(target.parent)
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
