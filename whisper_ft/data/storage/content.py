"""Content of data files: digests of their sizes, of a sample of their bytes, and of their versions on a server.

A run records them, so that a resumed run notices files that were replaced behind an unchanged list.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fsspec import AbstractFileSystem

from whisper_ft.data.storage.index_cache import version_of
from whisper_ft.data.storage.ranges import IO_THREADS, is_local
from whisper_ft.data.storage.read_errors import data_errors

SAMPLED = 256
"""Most files, samples or pieces of a data set whose bytes are read, evenly spread over the set."""
PIECE_BYTES = 4096
"""Bytes of a piece. A file that is sampled gives three pieces: its beginning, middle and end."""
MISSING = -1
"""Size of a file that is not there."""
BLOCK = 1000
"""Files whose sizes a thread reads in a row, because handing a single file to a thread costs more than its size."""

Content = dict[str, Any]
"""JSON values by key: `sizes`, `sample` and `versions`, each only where it is known."""


def sampled(count: int) -> list[int]:
    """Numbers of the sampled ones among `count`: at most SAMPLED, evenly spread, with the first one."""
    most = min(count, SAMPLED)
    return [number * count // most for number in range(most)]


def digest(values: Iterable[object]) -> str:
    """Digest of values in their order."""
    total = hashlib.sha256()
    for value in values:
        total.update(f"{value!r}\0".encode("utf-8", "surrogatepass"))
    return total.hexdigest()[:16]


def in_threads(function: Callable[[Any], Any], values: Sequence[Any]) -> list[Any]:
    """Return the results of a function that waits for a disk or a server, in order."""
    with ThreadPoolExecutor(IO_THREADS) as pool:
        return list(pool.map(function, values))


def local_size(path: str) -> int:
    """Size of a local file in bytes; MISSING if it cannot be found."""
    try:
        return os.stat(path).st_size
    except (OSError, ValueError):
        return MISSING


def local_pieces(path: str, size: int, count: int = 3) -> list[bytes]:
    """Read `count` pieces of a local file, from its beginning to its end. A file that cannot be read gives none."""
    try:
        with Path(path).open("rb", buffering=0) as file:
            return [_piece(file, start) for start in piece_starts(size, count)]
    except (OSError, ValueError):
        return []


def piece_starts(size: int, count: int = 3) -> list[int]:
    """Offsets of `count` pieces in a file, rising and evenly spread, of which the last one ends with the file.

    A small file has fewer.
    """
    last = max(size - PIECE_BYTES, 0)
    return sorted({last * number // max(count - 1, 1) for number in range(count)})


def _piece(file: Any, start: int) -> bytes:
    file.seek(start)
    return bytes(file.read(PIECE_BYTES))


def of_list(names: Sequence[str], sizes: Sequence[int], pieces: Callable[[str, int], Sequence[bytes]]) -> Content:
    """Content of listed files: the sizes of all, and pieces of the sampled ones.

    `pieces` reads the pieces of a file by its name and size. A missing file has none.
    """
    chosen = [(names[number], sizes[number]) for number in sampled(len(names)) if sizes[number] >= 0]
    read = in_threads(lambda one: digest(pieces(*one)), chosen)
    return {"sizes": digest(sizes), "sample": digest(read)}


def of_files(
    file_system: AbstractFileSystem,
    paths: Sequence[str],
    known: Sequence[tuple[int | None, str | None]] | None = None,
) -> Content:
    """Content of a few large files: all sizes, and pieces spread over them, or their versions if they are remote.

    `known` are size and ETag of each remote file, if they are known already.
    """
    if is_local(file_system):
        sizes = in_threads(local_size, paths)
        each = max(3, SAMPLED // len(paths))
        chosen = sampled(len(paths))
        read = in_threads(lambda number: digest(local_pieces(paths[number], sizes[number], each)), chosen)
        return {"sizes": digest(sizes), "sample": digest(read)}
    if known is None:
        with data_errors(paths[0]):
            versions = in_threads(lambda path: version_of(file_system, path), paths)
        known = [(version.size, version.etag) for version in versions]
    return {"sizes": digest(size for size, _ in known), **of_versions(file_system, paths, [name for _, name in known])}


def of_versions(file_system: AbstractFileSystem, paths: Sequence[str], versions: Sequence[object]) -> Content:
    """ETags of remote files, beside a digest of their addresses, because another server may have other ETags.

    The result is empty if no file has a version.
    """
    if not any(versions):
        return {}
    return {"versions": [digest(map(file_system.unstrip_protocol, paths)), digest(versions)]}
