"""Locks on files and folders. The kernel frees a lock when its process ends, however it ends."""

import fcntl
import json
import os
import socket
import time
from pathlib import Path
from typing import TextIO

from whisper_ft.runtime.errors import LockedError


def lock_file(path: Path, user: str = "process", wait: bool = False) -> TextIO:
    """Lock a file, which is created if it is missing. The lock lasts until the returned file is closed.

    If another process holds the lock, wait for it with `wait`, else raise LockedError. `user` is the name of such a
    process in the error message, such as `run`.
    """
    file = path.open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        file.seek(0)
        holder = _holder(file.read())
        file.close()
        raise LockedError(f"{path.parent} is in use by another {user} ({holder})") from None
    return file


def lock_folder(folder: Path, user: str) -> TextIO:
    """Lock a folder by its file `.lock`, and write the id of this process there, for the error message of others."""
    file = lock_file(folder / ".lock", user)
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
