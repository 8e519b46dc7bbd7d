"""Files and folders that are complete once they have their final name, also after a power cut.

A file is written in four steps: write it under another name, fsync it, rename it, fsync the folder. Without the fsyncs
a rename may survive a power cut while the bytes do not (measured on ext4: files of zero length).
"""

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from whisper_ft.runtime.errors import DiskError
from whisper_ft.runtime.printable import json_text
from whisper_ft.runtime.regular_file import open_regular

# Prefixes of names that a killed process may leave behind, and that `clean` removes or renames: half-written,
# half-removed, and moved away to be replaced.
ASIDE, TRASH, REPLACED = ".tmp-", ".trash-", ".replaced-"


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable, so that they survive a power cut. Raises OSError if that fails."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_file(path: Path) -> None:
    """Make the bytes of a file durable, so that they survive a power cut. Raises OSError if that fails."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def write_parts(path: Path, parts: Iterable[bytes | memoryview]) -> dict[str, int | str]:
    """Write a new file, and return its size and sha256 as `bytes` and `sha256`.

    Raises OSError, also if the file exists. The caller has to make the file and its folder durable.
    """
    digest, size = hashlib.sha256(), 0
    with path.open("xb") as file:
        for part in parts:
            file.write(part)
            digest.update(part)
            size += len(part)
    return {"bytes": size, "sha256": digest.hexdigest()}


def sha256(path: Path) -> str:
    """Return the sha256 of a regular file as hexadecimal digits. Raises OSError if it cannot be read."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, or replace an existing one.

    A reader sees the old text or the new one, never a mixture. Raises DiskError if the file cannot be written, for
    example because its folder does not exist.
    """
    write_lines(path, [text])


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write a text file as `write_text` does, from lines that need not all be in memory at the same time.

    Each line has to end with a line feed, because none is added. If `lines` raises an error, the old file stays.
    """
    aside = path.with_name(f"{ASIDE}{path.name}-{uuid.uuid4().hex[:8]}")
    with disk_errors(path):
        try:
            with aside.open("w", encoding="utf-8") as file:
                file.writelines(lines)
            sync_file(aside)
            aside.replace(path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write a value as a JSON file, as `write_text` does. Raises ValueError for NaN and infinity, which JSON lacks."""
    write_text(path, json_text(value, indent=2) + "\n")


@contextmanager
def new_folder(final: Path, needed: int = 0) -> Iterator[Path]:
    """Yield a folder to fill. It gets its final name, complete and durable, when the block ends without an error.

    An existing folder of that name is moved away right before and removed right after. After an error the new folder is
    removed. Raises DiskError if a write fails, or at the start if the disk has no room for `needed` bytes.
    """
    aside, replaced = final.with_name(f"{ASIDE}{final.name}-{uuid.uuid4().hex[:8]}"), None
    try:
        with disk_errors(final):
            aside.mkdir(parents=True)
            _require_room(final, needed)
            yield aside
            for path in aside.rglob("*"):
                if path.is_file():
                    # The mode that the umask allows, as for the folder, because safetensors leaves 0600. The umask is
                    # not read, because reading it means setting it, for all threads.
                    path.chmod(0o666 & aside.stat().st_mode)
                    sync_file(path)
            sync_folder(aside)
            replaced = _move_away(final, REPLACED)
            aside.rename(final)
            sync_folder(final.parent)
    except BaseException:
        if replaced is not None and not final.exists():
            replaced.rename(final)
        shutil.rmtree(aside, ignore_errors=True)
        raise
    if replaced is not None:
        _discard(replaced)


def _require_room(target: Path, needed: int) -> None:
    """Raise DiskError unless the disk has room for the bytes and 5 % more, for blocks and writes of other programs."""
    free = shutil.disk_usage(target.parent).free
    if needed * 1.05 > free:
        raise DiskError(
            f"not enough room to write {target}: {needed / 1e6:.1f} MB are needed and {free / 1e6:.1f} MB are free; "
            "make room and run the same command again"
        )


def remove(folder: Path) -> bool:
    """Remove a folder; returns False if it does not exist. A reader sees either the whole folder or no folder.

    Raises DiskError if the folder cannot be renamed, which is the first step of its removal. Files that cannot be
    deleted after that are left for `clean`.
    """
    with disk_errors(folder):
        trash = _move_away(folder, TRASH)
    if trash is not None:
        _discard(trash)
    return trash is not None


def _discard(path: Path) -> None:
    """Remove a folder, a file, or a link without its target. Anything that cannot be removed is left for `clean`."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _move_away(path: Path, prefix: str) -> Path | None:
    """Rename a folder or a link to a name that `clean` knows; return the new path, or None if nothing exists there."""
    if not os.path.lexists(path):
        return None
    away = path.with_name(f"{prefix}{path.name}-{uuid.uuid4().hex[:8]}")
    path.rename(away)
    return away


def clean(folder: Path) -> None:
    """Remove the half-written and half-removed files that a killed process left directly in a folder.

    The caller must hold the run's lock. A folder that was moved away but not replaced gets its name back, because it
    may be the only copy. Raises OSError if that renaming fails; files that cannot be deleted stay.
    """
    for replaced in folder.glob(f"{REPLACED}*"):
        final = replaced.with_name(replaced.name.removeprefix(REPLACED).rpartition("-")[0])
        if final.exists():
            _discard(replaced)
        else:
            replaced.rename(final)
    for leftover in [*folder.glob(f"{ASIDE}*"), *folder.glob(f"{TRASH}*")]:
        _discard(leftover)


@contextmanager
def disk_errors(target: Path) -> Iterator[None]:
    """Turn an OSError or SafetensorError raised in the block into a DiskError that names `target`.

    A failed read counts, too.
    """
    try:
        yield
    except OSError as error:
        raise DiskError(f"could not write {target}: {error.strerror or error}") from error
    except SafetensorError as error:  # raised for a full disk, because safetensors does not write through Python
        raise DiskError(f"could not write {target}: {error}") from error
