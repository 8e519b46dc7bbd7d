"""Cache of file indexes. A later start reuses an entry if the file's version is unchanged."""

import hashlib
import uuid
from dataclasses import dataclass
from pathlib import Path

from fsspec import AbstractFileSystem

from whisper_ft.runtime.atomic import ASIDE, disk_errors

ETAG_KEYS = ("blob_id", "ETag", "etag", "md5Hash", "Content-MD5")
"""Metadata keys, by file system, of a tag that servers derive from the content. The first key of a file is used."""
VERSION_KEYS = (*ETAG_KEYS, "Last-Modified", "LastModified", "updated", "mtime")
"""Metadata keys, by file system, whose value changes when the content does. The first key that a file has is used."""
CHECKSUM_BYTES = 32
"""Bytes of the SHA-256 at the start of each entry, which reveals a damaged entry."""


@dataclass(frozen=True)
class Version:
    """Address, size and version of a file as its file system reports them."""

    address: str
    size: int | None
    """Size in bytes; None if the file system does not report it."""
    name: str | None
    """Version of the content, by its ETag or the time of its last change; None if the file system reports none."""
    etag: str | None = None
    """ETag of the content; None if the file system reports none."""


def version_of(file_system: AbstractFileSystem, path: str) -> Version:
    """Return the version of a file. This takes one request if the file is remote and its folder was not listed.

    Raises FileNotFoundError, or another error of the file system.
    """
    info = file_system.info(path)
    name = next((str(info[key]) for key in VERSION_KEYS if info.get(key)), None)
    if name and info.get("created"):  # time of the last change of a local file, because its mtime can be set back
        name = f"{name} {info['created']}"
    etag = next((str(info[key]) for key in ETAG_KEYS if info.get(key)), None)
    return Version(file_system.unstrip_protocol(path), info.get("size"), name, etag)


def entry_path(cache: Path | None, version: Version, kind: str) -> Path | None:
    """Path of the cached index of a file; None if the index is not cached.

    An index is not cached if there is no folder `cache`. It is not cached either if the file system reports no version,
    because a change of the file would go unnoticed.
    """
    if cache is None or version.name is None:
        return None
    name = hashlib.sha256(f"{version.address}\0{version.size}\0{version.name}".encode()).hexdigest()
    return cache / f"{name}.{kind}"


def load(path: Path | None) -> bytes | None:
    """Read the content of a cache entry; None if the entry is missing or damaged, or `path` is None."""
    try:
        entry = path.read_bytes() if path else b""
    except OSError:
        return None
    checksum, content = entry[:CHECKSUM_BYTES], entry[CHECKSUM_BYTES:]
    return content if hashlib.sha256(content).digest() == checksum else None


def save(content: bytes, path: Path | None) -> None:
    """Write a cache entry. Nothing is written if `path` is None. Raises DiskError if the entry cannot be written.

    Other ranks may write the same entry, so the content goes to a temporary file, which is then renamed. The file is
    not synced, because the checksum shows a damaged entry.
    """
    if path is None:
        return
    aside = path.with_name(f"{ASIDE}{path.name}-{uuid.uuid4().hex[:8]}")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_bytes(hashlib.sha256(content).digest() + content)
        aside.replace(path)
