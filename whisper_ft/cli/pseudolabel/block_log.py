"""Log of transcribed blocks, one file for each process, so that the next start can continue with any number of them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from whisper_ft.runtime.atomic import disk_errors
from whisper_ft.runtime.jsonl import append_rows, rows_with

FOLDER = ".blocks"


class BlockKey(NamedTuple):
    """Place of a block: consecutive windows of a part, which are decoded together."""

    turn: int
    """Number of the transcription, because a pool may be transcribed several times."""
    part: int
    block: int


@dataclass(frozen=True)
class LoggedBlock:
    """Windows of a finished block as JSON values."""

    is_last: bool
    """True for the last block of its part."""
    windows: Sequence[Mapping[str, Any]]


class BlockLog:
    """Log of one process. A line that a kill cut short counts for nothing, so its block is transcribed again."""

    def __init__(self, out: Path, rank: int) -> None:
        self._path = out / FOLDER / f"rank-{rank}.jsonl"

    def append(self, key: BlockKey, block: LoggedBlock) -> None:
        """Add a finished block. Raises DiskError if it cannot be written."""
        row = key._asdict() | {"is_last": block.is_last, "windows": [*block.windows]}
        with disk_errors(self._path):
            self._path.parent.mkdir(exist_ok=True)
            append_rows(self._path, [row])


def logged_blocks(out: Path) -> dict[BlockKey, LoggedBlock]:
    """Read the blocks of all processes. Raises DiskError if a log cannot be read."""
    with disk_errors(out):
        rows = [row for path in sorted((out / FOLDER).glob("rank-*.jsonl")) for row in rows_with(path, "turn")]
    return {
        BlockKey(row["turn"], row["part"], row["block"]): LoggedBlock(row["is_last"], row["windows"]) for row in rows
    }


def is_complete(turn: int, part: int, lasts: Mapping[tuple[int, int], int], known: Collection[BlockKey]) -> bool:
    """Return True if all blocks of a part are known. `lasts` has the number of the last block by turn and part."""
    last = lasts.get((turn, part))
    return last is not None and all(BlockKey(turn, part, block) in known for block in range(last + 1))


def last_blocks(blocks: Mapping[BlockKey, LoggedBlock]) -> dict[tuple[int, int], int]:
    """Return the number of the last block by turn and part, of those that are known to their end."""
    return {(key.turn, key.part): key.block for key, block in blocks.items() if block.is_last}
