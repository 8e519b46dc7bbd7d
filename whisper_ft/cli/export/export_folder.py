"""Folder of an export: written under another name, and renamed when it is complete and checked."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

from whisper_ft.cli.export.export_record import RECORD
from whisper_ft.runtime import atomic
from whisper_ft.runtime.errors import UsageError

FAILED = ".failed"  # ending of the name of an export that did not pass its check


def refuse_taken(out: Path, overwrite: bool) -> None:
    """Raise UsageError if a folder exists, unless it is an export that may be replaced, or empty."""
    if not os.path.lexists(out):
        return
    if not overwrite:
        raise UsageError(f"--out {out}: is there already; name another folder, or replace an export with --overwrite")
    _refuse_other_content(out)


def _refuse_other_content(out: Path) -> None:
    if not out.is_dir() or (any(out.iterdir()) and not (out / RECORD).is_file()):
        raise UsageError(f"--out {out}: is no export, because it has no {RECORD}, and is not replaced")


@contextmanager
def export_folder(out: Path, needed: int) -> Iterator[Path]:
    """Yield a folder to fill, which gets the name `out` at the end of the block. After an error it is removed.

    What killed exports to the same name left is removed first. Raises DiskError if the disk has no room for `needed`
    bytes, or if the folder cannot be written.
    """
    _remove_leftovers(out)
    with atomic.new_folder(out, needed) as aside:
        handle = os.open(aside, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield aside
        finally:
            os.close(handle)


def keep_failed(aside: Path, out: Path) -> Path:
    """Move the files of an export that failed its check into a folder of another name, and return this folder.

    An earlier failed export of that name is replaced. Raises UsageError if the name is taken by anything else, and
    DiskError if the folder cannot be written.
    """
    failed = out.with_name(out.name + FAILED)
    if os.path.lexists(failed):
        _refuse_other_content(failed)
    with atomic.new_folder(failed) as other:
        for path in [*aside.iterdir()]:
            path.rename(other / path.name)
    return failed


def _remove_leftovers(out: Path) -> None:
    """Remove half-written folders of exports to the same name. Those of running processes are locked, and stay."""
    for leftover in out.parent.glob(f"{atomic.ASIDE}{escape(out.name)}-*"):
        with suppress(OSError):
            handle = os.open(leftover, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(leftover, ignore_errors=True)
            finally:
                os.close(handle)
