"""Settings of `python -m whisper_ft prepare`. torch and pyarrow are not imported, so that --help is quick."""

import math
from dataclasses import dataclass, field
from pathlib import Path

from whisper_ft.config.data import SourceConfig


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

    def __post_init__(self) -> None:
        if not 0 < self.group_mb <= 1_000:  # arrow counts the bytes of a column in 31 bits
            raise ValueError(f"--group_mb must be above 0 and at most 1000, got {self.group_mb}")
        if not 0 < self.shard_mb < math.inf:
            raise ValueError(f"--shard_mb must be above 0, got {self.shard_mb}")
