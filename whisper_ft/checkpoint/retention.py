"""Removal of old checkpoints."""

import os
from collections.abc import Collection
from pathlib import Path

from whisper_ft.checkpoint.format import list_checkpoints, verify
from whisper_ft.checkpoint.record import read_record
from whisper_ft.runtime import atomic
from whisper_ft.runtime.errors import DiskError

PINNED = "pinned"
"""Name of a file, made by `touch`, that protects the checkpoint in whose folder it lies from removal."""


def retain(folder: Path, keep: int, also: Collection[int], every: int = 0) -> list[str]:
    """Remove old checkpoints and return a warning for each folder that could not be removed.

    Kept are: the newest `keep`, the best of each of those, the steps in `also`, multiples of `every` (0: none), and
    pinned ones. The best of a kept checkpoint is needed if the later ones turn out to be damaged, because best/ is then
    rebuilt from it. Checkpoints with wrong file sizes, and folders that are not ours, are left alone.
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
    """Step of the best model when a checkpoint was saved; None if there was none or it cannot be read."""
    try:
        best = read_record(path).state.best
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return None if best is None else best.step
