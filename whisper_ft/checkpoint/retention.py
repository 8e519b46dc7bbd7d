"""Removal of old checkpoints."""

import os
from collections.abc import Collection
from pathlib import Path

from whisper_ft.checkpoint.format import list_checkpoints, verify
from whisper_ft.checkpoint.record import read_record
from whisper_ft.runtime import atomic
from whisper_ft.runtime.errors import DiskError, ResumeError

PINNED = "pinned"
"""Name of an empty file that a user puts into a checkpoint folder to protect that checkpoint from removal."""


def retain(folder: Path, keep: int, also: Collection[int], every: int = 0) -> list[str]:
    """Remove old checkpoints and return a warning for each folder that could not be removed.

    These checkpoints are kept:

    - the newest `keep`
    - those of the steps in `also`
    - for each of these, the checkpoint that was the best when it was saved
    - those whose step is a multiple of `every` (0: none)
    - those with a file `pinned` in their folder

    The former best is kept, because best/ is rebuilt from it if all later checkpoints turn out to be damaged.
    Checkpoints with wrong file sizes, and folders that are not checkpoints, are never removed.
    """
    listed = [item for item in list_checkpoints(folder) if item.problem is None]
    usable = [item for item in listed if verify(item.path, deep=False) is None]
    needed = {*also} | {item.step for item in usable[:keep]}
    needed |= {best for item in usable if item.step in needed and (best := _best_step(item.path)) is not None}
    warnings = []
    for item in usable:
        regular = every > 0 and item.step % every == 0
        if item.step in needed or regular or os.path.lexists(item.path / PINNED):
            continue
        try:
            atomic.remove(item.path)
        except DiskError as error:
            warnings.append(f"warning: an old checkpoint could not be removed: {error}")
    return warnings


def _best_step(path: Path) -> int | None:
    """Return the best step recorded in a checkpoint; None if it records no best step or its record cannot be read."""
    try:
        best = read_record(path).state.best
    except (OSError, ResumeError):
        return None
    return None if best is None else best.step
