"""Which checkpoints stay."""

import os
from collections.abc import Collection
from pathlib import Path

from whisper_ft.checkpoint.format import list_checkpoints, read_record, verify
from whisper_ft.runtime import atomic
from whisper_ft.runtime.errors import DiskError

PINNED = "pinned"
"""A file of this name in a checkpoint's folder, as `touch` makes it, and the checkpoint is never removed."""


def retain(folder: Path, keep: int, also: Collection[int], every: int = 0) -> list[str]:
    """Remove all checkpoints but the newest `keep`, the best of each of those, and what is asked for besides.

    That is: the steps in `also`, multiples of `every` (0: none), and those that are pinned. The best of a kept one is
    needed when the ones after it turn out to be damaged: best/ is then made from it. What is visibly damaged (sizes;
    nothing is hashed here) or not ours is neither counted nor removed. Returns a line for each that resisted.
    """
    found = [one for one in list_checkpoints(folder) if one.problem is None and verify(one.path, deep=False) is None]
    needed = {*also} | {one.step for one in found[:keep]}
    needed |= {best for one in found if one.step in needed and (best := _best_step(one.path)) is not None}
    told = []
    for one in found:
        regular = every > 0 and one.step % every == 0
        if one.step in needed or regular or os.path.lexists(one.path / PINNED):
            continue
        try:
            atomic.remove(one.path)
        except DiskError as error:
            told.append(f"warning: an old checkpoint could not be removed: {error}")
    return told


def _best_step(path: Path) -> int | None:
    """Step of the best model when a checkpoint was saved; None where there was none or it cannot be read."""
    try:
        return int(read_record(path)["state"]["best"]["step"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
