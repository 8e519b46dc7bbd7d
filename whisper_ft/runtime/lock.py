"""Locks on files and folders. The kernel frees a lock when its process ends, however it ends."""

import fcntl
import json
import os
import socket
import time
from pathlib import Path
from typing import TextIO

from whisper_ft.runtime.errors import LockedError

LOCK = ".lock"  # name of the file by which a folder is locked


def lock_file(path: Path, user: str = "process", wait: bool = False) -> TextIO:
    """Lock a file, which is created if it is missing. The lock lasts until the returned file is closed.

    If another process holds the lock, wait for it with `wait`, else raise LockedError. `user` is the name of such a
    process in the error message, such as `run`. Raises OSError if the file cannot be opened for writing.
    """
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            file.seek(0)
            holder = _holder(file.read())
            file.close()
            raise LockedError(f"{path.parent} is in use by another {user} ({holder})") from None
        if identity_of(path) == identity_of(file.fileno()):
            return file
        file.close()  # it was removed or replaced between the open and the lock, so it locks nothing


def identity_of(file: Path | int) -> tuple[int, int] | None:
    """Return device and inode of a path or a file descriptor; None if it does not exist or its disk is gone."""
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def lock_folder(folder: Path, user: str) -> TextIO:
    """Lock a folder by its file `LOCK`, and write the id of this process there, for the error message of others.

    The lock lasts until the returned file is closed. Raises LockedError if another process holds the lock; the message
    calls that process by the name `user`, such as `run`.
    """
    file = lock_file(folder / LOCK, user)
    file.truncate(0)
    file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%F %T")}))
    file.flush()
    return file


def _holder(text: str) -> str:
    """Describe the process that a lock file names."""
    try:
        holder = json.loads(text)
        return f"pid {holder['pid']} on {holder['host']} since {holder['since']}"
    except (ValueError, KeyError, TypeError):
        return "its lock file does not name it"
