"""Footers of parquet files: what is in them and where. Those of remote files can be kept in a folder."""

import hashlib
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from whisper_ft.durable import ASIDE, disk_errors, sync_file
from whisper_ft.failure import DataError, one_line
from whisper_ft.sources.remote import is_local, open_remote

# What file systems call that which is another once the content is: of the Hub, http and S3, Google, others.
VERSIONS = ("blob_id", "ETag", "etag", "md5Hash", "Content-MD5", "Last-Modified", "LastModified", "updated", "mtime")
CHECKSUM_BYTES = 32  # of sha256, in front of what is kept


@dataclass(frozen=True)
class Footer:
    """What the index says of one file."""

    metadata: pq.FileMetaData
    size: int | None = None
    """Bytes of a remote file, where known: it can then be opened without asking."""
    version: str | None = None
    """Name of a remote file's content, where its server has one."""


def read_footer(file_system: Any, path: str, cache: Path | None = None) -> Footer:
    """The footer of a file, from the folder `cache` if it is kept there; DataError if it is no parquet file."""
    try:
        if is_local(file_system):
            with file_system.open(path, "rb") as file:
                return Footer(pq.read_metadata(file))
        info = file_system.info(path)
        size, version = info.get("size"), next((str(info[key]) for key in VERSIONS if info.get(key)), None)
        if cache is None or version is None:  # it could be another file by now, and nobody would tell
            return Footer(_fetch(file_system, path, size), size, version)
        name = hashlib.sha256(f"{file_system.unstrip_protocol(path)}\0{size}\0{version}".encode()).hexdigest()
        kept = cache / f"{name}.footer"
        metadata = _kept(kept)
        if metadata is None:
            metadata = _fetch(file_system, path, size)
            _keep(metadata, kept)
        return Footer(metadata, size, version)
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: not a parquet file, or cut short ({one_line(error)})") from error


def _fetch(file_system: Any, path: str, size: int | None) -> pq.FileMetaData:
    """The footer from the file itself: a request for its last 64 kB, and one more where it is longer."""
    with open_remote(file_system, path, size) as file:
        return pq.read_metadata(file)


def _kept(path: Path) -> pq.FileMetaData | None:
    """A footer that was kept; None if there is none, or it is damaged."""
    try:
        entry = path.read_bytes()
        checksum, content = entry[:CHECKSUM_BYTES], entry[CHECKSUM_BYTES:]
        if hashlib.sha256(content).digest() != checksum:
            return None
        return pq.read_metadata(pa.BufferReader(content))
    except (OSError, pa.ArrowException):
        return None


def _keep(metadata: pq.FileMetaData, path: Path) -> None:
    """Write a footer aside and rename it: other ranks may be writing the same one."""
    content = pa.BufferOutputStream()
    metadata.write_metadata_file(content)
    entry = content.getvalue().to_pybytes()
    aside = path.with_name(f"{ASIDE}{path.name}-{uuid.uuid4().hex[:8]}")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_bytes(hashlib.sha256(entry).digest() + entry)
        sync_file(aside)
        aside.replace(path)
