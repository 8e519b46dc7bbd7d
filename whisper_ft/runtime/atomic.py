"""Files and folders that are complete once they have their final name, also after a power cut.

The order is: write aside, fsync, rename, fsync the folder. Without the fsyncs a rename survives a power cut and the
bytes do not (measured on ext4: files of zero length).
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from whisper_ft.runtime.errors import DiskError

# Prefixes of what a killed process may leave for `clean`: half-written, half-removed, and moved away for a replacement.
ASIDE, TRASH, REPLACED = ".tmp-", ".trash-", ".replaced-"


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_file(path: Path) -> None:
    """Make the bytes of a file durable."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def write_parts(path: Path, parts: Iterable[bytes | memoryview]) -> dict[str, int | str]:
    """Write a new file and return its size and sha256. The caller makes it durable, with its folder."""
    digest, size = hashlib.sha256(), 0
    with path.open("xb") as file:
        for part in parts:
            file.write(part)
            digest.update(part)
            size += len(part)
    return {"bytes": size, "sha256": digest.hexdigest()}


def sha256(path: Path) -> str:
    """Hex digest of the bytes of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: Path, text: str) -> None:
    """Replace a file at once: a reader sees the old text or the new text."""
    write_lines(path, [text])


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """As `write_text`, for lines that need not fit in memory together. Each line ends with its own line end."""
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
    """Replace a JSON file at once. NaN is refused, because JSON has none."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


@contextmanager
def new_folder(final: Path, needed: int = 0) -> Iterator[Path]:
    """A folder to fill, which takes its final name, complete and durable, when the block ends without an error.

    An existing folder of that name is moved away right before and removed right after. Raises DiskError before anything
    is written if the disk has no room for `needed` bytes, and for each failed write.
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
    """DiskError unless the disk has room for the bytes and 5 % more, for blocks and for writes of other programs."""
    free = shutil.disk_usage(target.parent).free
    if needed * 1.05 > free:
        raise DiskError(
            f"not enough room to write {target}: {needed / 1e6:.1f} MB are needed and {free / 1e6:.1f} MB are free; "
            "make room and run the same command again"
        )


def remove(folder: Path) -> bool:
    """Remove a folder; False if there is none. A reader sees the whole folder or none of it."""
    with disk_errors(folder):
        trash = _move_away(folder, TRASH)
    if trash is not None:
        _discard(trash)
    return trash is not None


def _discard(path: Path) -> None:
    """Remove a folder, a file, or a link itself. Whatever cannot be removed is left for the next `clean`."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _move_away(path: Path, prefix: str) -> Path | None:
    """Rename a folder or a link to a name that `clean` knows, and return it; None if there is nothing to rename."""
    if not os.path.lexists(path):
        return None
    away = path.with_name(f"{prefix}{path.name}-{uuid.uuid4().hex[:8]}")
    path.rename(away)
    return away


def clean(folder: Path) -> None:
    """Remove the half-written and half-removed files of a killed process. Only under the lock of the run.

    A folder that was moved away but not replaced gets its name back, because it may be the only copy.
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
    """Turn an error of the disk in the block into a DiskError that names the file."""
    try:
        yield
    except OSError as error:
        raise DiskError(f"could not write {target}: {error.strerror or error}") from error
    except SafetensorError as error:  # raised for a full disk, because safetensors does not write through Python
        raise DiskError(f"could not write {target}: {error}") from error
