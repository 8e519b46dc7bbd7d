"""What was read of files to index them, kept in a folder: another start takes it while the files are what they were."""

import hashlib
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whisper_ft.runtime.atomic import ASIDE, disk_errors

# What file systems call that which is another once the content is: of the Hub, http and S3, Google, others.
VERSIONS = ("blob_id", "ETag", "etag", "md5Hash", "Content-MD5", "Last-Modified", "LastModified", "updated", "mtime")
CHECKSUM_BYTES = 32  # of sha256, in front of what is kept


@dataclass(frozen=True)
class Version:
    """What a file is now."""

    address: str
    size: int | None
    """Bytes, where known."""
    name: str | None
    """Of its content, where its file system has one."""


def version_of(file_system: Any, path: str) -> Version:
    """What a file is now: one request where it is remote and its folder was not listed."""
    info = file_system.info(path)
    name = next((str(info[key]) for key in VERSIONS if info.get(key)), None)
    if name and info.get("created"):  # of a local file when anything of it changed last; its mtime can be set back
        name = f"{name} {info['created']}"
    return Version(file_system.unstrip_protocol(path), info.get("size"), name)


def place(cache: Path, version: Version, kind: str) -> Path | None:
    """Where that which was read of a file is kept; None if nobody would tell that it is another file by now."""
    if version.name is None:
        return None
    name = hashlib.sha256(f"{version.address}\0{version.size}\0{version.name}".encode()).hexdigest()
    return cache / f"{name}.{kind}"


def load(place: Path | None) -> bytes | None:
    """What is kept in a place; None if that is nothing, or damaged."""
    try:
        entry = place.read_bytes() if place else b""
    except OSError:
        return None
    checksum, content = entry[:CHECKSUM_BYTES], entry[CHECKSUM_BYTES:]
    return content if hashlib.sha256(content).digest() == checksum else None


def save(content: bytes, place: Path) -> None:
    """Write aside and rename, for other ranks may be writing the same; not synced, for what is damaged is noticed."""
    aside = place.with_name(f"{ASIDE}{place.name}-{uuid.uuid4().hex[:8]}")
    with disk_errors(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        aside.write_bytes(hashlib.sha256(content).digest() + content)
        aside.replace(place)
