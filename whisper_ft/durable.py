"""Files that are whole once they have their final name, also after a power cut.

Write aside, fsync, rename, fsync the folder. Without the fsyncs a rename survives a power cut while the
bytes do not (measured on ext4: zero-length files).
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from whisper_ft.failure import DiskError

# What a killed process may leave, and `clean` deals with: half-written, half-removed, and moved away to be replaced.
ASIDE, TRASH, REPLACED = ".tmp-", ".trash-", ".replaced-"


def sync_folder(folder: Path) -> None:
    """Make renames inside a folder durable."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_file(path: Path) -> None:
    """Make a file's bytes durable, and readable to whom the umask allows (safetensors leaves mode 0600)."""
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(0o666 & ~umask)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: Path, text: str) -> None:
    """Replace a file as a whole: readers see the old text or the new one."""
    aside = path.with_name(f"{ASIDE}{path.name}-{uuid.uuid4().hex[:8]}")
    with disk_errors(path):
        aside.write_text(text, encoding="utf-8")
        sync_file(aside)
        aside.replace(path)
        sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file as a whole; NaN is refused, because it is not JSON."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


@contextmanager
def new_folder(final: Path) -> Iterator[Path]:
    """A folder to fill; it takes its final name, whole and durable, when the block ends without an error.

    A folder that has the name already is moved away right before and removed right after.
    """
    aside = final.with_name(f"{ASIDE}{final.name}-{uuid.uuid4().hex[:8]}")
    try:
        with disk_errors(final):
            aside.mkdir(parents=True)
            yield aside
            for path in aside.rglob("*"):
                if path.is_file():
                    sync_file(path)
            sync_folder(aside)
            replaced = _move_away(final, REPLACED)
            aside.rename(final)
            sync_folder(final.parent)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    if replaced is not None:
        shutil.rmtree(replaced, ignore_errors=True)


def remove(folder: Path) -> bool:
    """Remove a folder, whole or not at all for those who look by its name; False if there is none."""
    with disk_errors(folder):
        trash = _move_away(folder, TRASH)
    if trash is not None:
        shutil.rmtree(trash, ignore_errors=True)
    return trash is not None


def _move_away(path: Path, prefix: str) -> Path | None:
    """Rename a folder to a name that `clean` knows; None if there is none."""
    if not path.exists():
        return None
    away = path.with_name(f"{prefix}{path.name}-{uuid.uuid4().hex[:8]}")
    path.rename(away)
    return away


def clean(folder: Path) -> None:
    """Remove what a killed process left half-written or half-removed. Only under the lock of the run.

    What was moved away to be replaced, and was not, gets its name back: it may be the only one of its kind.
    """
    for replaced in folder.glob(f"{REPLACED}*"):
        final = replaced.with_name(replaced.name.removeprefix(REPLACED).rpartition("-")[0])
        if final.exists():
            shutil.rmtree(replaced, ignore_errors=True)
        else:
            replaced.rename(final)
    for leftover in [*folder.glob(f"{ASIDE}*"), *folder.glob(f"{TRASH}*")]:
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


@contextmanager
def disk_errors(target: Path) -> Iterator[None]:
    """Say in one line what could not be written and why."""
    try:
        yield
    except OSError as error:
        raise DiskError(f"could not write {target}: {error.strerror or error}") from error
    except SafetensorError as error:  # its writer is not Python's: a full disk is no OSError there
        raise DiskError(f"could not write {target}: {error}") from error
