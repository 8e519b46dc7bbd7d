"""Files that are whole once they have their final name, also after a power cut.

Write aside, fsync, rename, fsync the folder. Without the fsyncs a rename survives a power cut while the
bytes do not (measured on ext4: zero-length files).
"""

import fcntl
import hashlib
import json
import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from whisper_ft.runtime.errors import DiskError, LockedError

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
    """Make a file's bytes durable."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def write_parts(path: Path, parts: Iterable[bytes | memoryview]) -> dict[str, int | str]:
    """Write a new file, to be made durable with its folder: how many bytes, and their sha256, counted on the way."""
    digest, size = hashlib.sha256(), 0
    with path.open("xb") as file:
        for part in parts:
            file.write(part)
            digest.update(part)
            size += len(part)
    return {"bytes": size, "sha256": digest.hexdigest()}


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hold(folder: Path, user: str) -> Any:
    """Lock a folder for the life of this process, or until what is returned is dropped; LockedError if another has it.

    The kernel frees it however the process ends. `user` is what uses it, for the message: a run.
    """
    file = (folder / ".lock").open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        raise LockedError(f"{folder} is in use by another {user} ({_holder(file.read())})") from None
    file.truncate(0)
    file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%F %T")}))
    file.flush()
    return file


def _holder(written: str) -> str:
    """Who wrote a .lock, for people."""
    try:
        holder = json.loads(written)
        return f"pid {holder['pid']} on {holder['host']} since {holder['since']}"
    except (ValueError, KeyError, TypeError):
        return "which has not said who it is"


def write_text(path: Path, text: str) -> None:
    """Replace a file as a whole: readers see the old text or the new one."""
    write_lines(path, [text])


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """`write_text` of what need not be in memory at once; the lines bring their ends."""
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
    """Replace a JSON file as a whole; NaN is refused, because it is not JSON."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


@contextmanager
def new_folder(final: Path, needed: int = 0) -> Iterator[Path]:
    """A folder to fill; it takes its final name, whole and durable, when the block ends without an error.

    A folder that has the name already is moved away right before and removed right after. DiskError before anything is
    written where the `needed` bytes have no room, and for whatever cannot be written.
    """
    aside, replaced = final.with_name(f"{ASIDE}{final.name}-{uuid.uuid4().hex[:8]}"), None
    try:
        with disk_errors(final):
            aside.mkdir(parents=True)
            _require_room(final, needed)
            yield aside
            for path in aside.rglob("*"):
                if path.is_file():
                    # Readable to whom the umask allows, as the folder is: safetensors leaves mode 0600. Not by asking
                    # for the umask, which means to set it, for all threads.
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
    """DiskError unless the disk has room for so many bytes, and for a twentieth more: blocks, and what others write."""
    free = shutil.disk_usage(target.parent).free
    if needed * 1.05 > free:
        raise DiskError(
            f"not enough room to write {target}: {needed / 1e6:.1f} MB are needed and {free / 1e6:.1f} MB are free; "
            "make room, and the same command goes on"
        )


def remove(folder: Path) -> bool:
    """Remove a folder, whole or not at all for those who look by its name; False if there is none."""
    with disk_errors(folder):
        trash = _move_away(folder, TRASH)
    if trash is not None:
        _discard(trash)
    return trash is not None


def _discard(path: Path) -> None:
    """Remove what nobody looks for any more; of a link only the link. What resists waits for the next `clean`."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _move_away(path: Path, prefix: str) -> Path | None:
    """Rename a folder, or a link, to a name that `clean` knows; None if there is none."""
    if not os.path.lexists(path):
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
            _discard(replaced)
        else:
            replaced.rename(final)
    for leftover in [*folder.glob(f"{ASIDE}*"), *folder.glob(f"{TRASH}*")]:
        _discard(leftover)


@contextmanager
def disk_errors(target: Path) -> Iterator[None]:
    """Say in one line what could not be written and why."""
    try:
        yield
    except OSError as error:
        raise DiskError(f"could not write {target}: {error.strerror or error}") from error
    except SafetensorError as error:  # its writer is not Python's: a full disk is no OSError there
        raise DiskError(f"could not write {target}: {error}") from error
