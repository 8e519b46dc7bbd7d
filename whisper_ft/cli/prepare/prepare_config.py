"""Settings of `python -m whisper_ft prepare`. torch and pyarrow are not imported, so that --help is quick."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from whisper_ft.config.data import SourceConfig
from whisper_ft.config.setting import require

MAX_WINDOW_SECONDS = 30.0  # the encoder hears no more
SPLITS = ("train", "validation", "dev", "test")
"""Splits that `datasets` recognises by the beginning of a file name."""


def shares_of(text: str) -> dict[str, float]:
    """Read the shares of splits, such as train=0.9,test=0.1. Raises ValueError unless they are shares of one whole."""
    shares: dict[str, float] = {}
    for item in text.split(","):
        name, _, value = item.strip().partition("=")
        try:
            share = float(value)
        except ValueError:
            share = math.nan
        if name not in SPLITS or name in shares or not 0 < share <= 1:
            raise ValueError(
                f"--split {text}: {item!r} should be one of {', '.join(SPLITS)}, once, with a share from 0 to 1, "
                "as in train=0.9,validation=0.05,test=0.05"
            )
        shares[name] = share
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise ValueError(f"--split {text}: the shares give {sum(shares.values()):g}, and should give 1")
    return shares


@dataclass(frozen=True)
class PrepareConfig:
    """Convert any source to parquet shards, the fastest format to read: --data.path FILE_OR_DIR --out DIR.

    After a stop, the same command continues after the last complete shard. A Python generator can be converted, too, if
    it yields audio as {"bytes": ..., "path": ...}: save it with datasets.Dataset.from_generator(it).save_to_disk(DIR).
    """

    data: SourceConfig = field(default_factory=SourceConfig)
    out: Path | None = None
    """Folder for the shards and for left-out.jsonl, the list of unusable rows and their reasons."""
    shard_mb: float = 500.0
    """Largest size of a shard in megabytes, unless one row group is larger."""
    group_mb: float = 16.0
    """Largest size of a row group in megabytes, unless one row is larger. A row group is read and shuffled together."""
    windows: bool = False
    """Cut recordings with segments into windows of up to 30 seconds, with columns of their segments and of the previous
    text. Segments are rows with an offset, subtitles, or times in the transcript."""
    window_seconds: float = 30.0
    """Greatest length of a window in seconds; Whisper's is 30."""
    max_gap: float | None = None
    """Greatest gap between two segments of a window in seconds; a longer one ends the window. None: no limit."""
    by: Literal["recording", "speaker"] | None = None
    """Rows of one recording, or of one speaker, stand beside each other, by time in a recording. None: the order of the
    source."""
    split: str | None = None
    """Splits and their shares: train=0.9,validation=0.05,test=0.05. A recording is never divided, nor is a speaker with
    --by speaker."""

    @property
    def shares(self) -> dict[str, float]:
        """Share of each split, in order; empty without --split."""
        return shares_of(self.split) if self.split is not None else {}

    def __post_init__(self) -> None:
        require(
            0 < self.window_seconds <= MAX_WINDOW_SECONDS, "window_seconds", self.window_seconds, "above 0, up to 30"
        )
        require(self.max_gap is None or self.max_gap >= 0, "max_gap", self.max_gap, "at least 0")
        for name, default in (("window_seconds", MAX_WINDOW_SECONDS), ("max_gap", None)):
            if getattr(self, name) != default and not self.windows:
                raise ValueError(f"--{name} {getattr(self, name)}: has an effect only with --windows true")
        if self.split is not None:
            shares_of(self.split)
        if not 0 < self.group_mb <= 1_000:  # arrow counts the bytes of a column in 31 bits
            raise ValueError(f"--group_mb must be above 0 and at most 1000, got {self.group_mb}")
        if not 0 < self.shard_mb < math.inf:
            raise ValueError(f"--shard_mb must be above 0, got {self.shard_mb}")
