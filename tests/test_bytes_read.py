"""How much is read: each byte about once in a pass, however many read, and at a late step no more than at the first.

The readers are those of the stream that train.py builds for each rank. The rows have no transcript, so none is decoded.
A pass reads a chunk again if a lane ends within it (once for each lane but one), or if it left the cache too early. So
data with few chunks per lane is read more than 1.1 times. Here a lane has 30 chunks.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import accelerate
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from collator import SpeechCollator
from normalizers import get_normalizer
from tests.elsewhere import AUDIO, Elsewhere, serve
from whisper_ft.config.parse import load_config
from whisper_ft.config.training import TrainingConfig
from whisper_ft.data.formats.mixture import MixedSource
from whisper_ft.data.sampling.order import default_lanes
from whisper_ft.data.sampling.partition import Partition
from whisper_ft.data.sources import open_mixture
from whisper_ft.data.types import Row
from whisper_ft.runtime.collectives import Collectives
from whisper_ft.runtime.signals import StopRequest
from whisper_ft.training.directory import RunDir
from whisper_ft.training.run import Run

CHUNKS_PER_LANE = 30
WORLDS = (1, 2, 3, 4, 8)
AGAIN = 1.1  # most bytes read in a pass, by those there are


def write(path: Path, chunks: int) -> Path:
    """Row groups of 4 to 10 rows, so that lanes end within chunks, each row of 200 bytes."""
    random_rows = random.Random(0)
    schema = pa.schema([("audio", AUDIO), ("sentence", pa.string())])
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        for _ in range(chunks):
            rows = random_rows.randint(4, 10)
            clips = [{"bytes": random_rows.randbytes(200), "path": None} for _ in range(rows)]
            writer.write_table(pa.table({"audio": clips, "sentence": [None] * rows}, schema))
    return path


def sizes(path: Path) -> list[int]:
    """Bytes of each row group."""
    footer = pq.read_metadata(path)
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    return [sum(group.column(number).total_compressed_size for number in range(group.num_columns)) for group in groups]


class Counted:
    """A source that counts how often each chunk is asked for; from the disk each is read once, to save time."""

    def __init__(self, source: MixedSource) -> None:
        self._source = source
        self._read = cache(source.read)
        self.reads = [0] * len(source.rows)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def read(self, chunk: int) -> Sequence[Row]:
        self.reads[chunk] += 1
        return self._read(chunk)


@dataclass
class Runs:
    """Runs of one epoch as train.py builds them, in this process and not started."""

    folder: Path
    model: Path

    def __call__(self, path: Path | str, batch_size: int) -> Run:
        settings = {"run_dir": self.folder, "model.name": self.model, "data.path": path, "batch.size": batch_size}
        arguments = [text for key, value in settings.items() for text in (f"--{key}", str(value))]
        config = load_config(TrainingConfig, [*arguments, "--data.language", "be", "--epochs", "1", "--device", "cpu"])
        accelerator = accelerate.Accelerator(cpu=True)
        folder = RunDir(self.folder)
        return Run(config, accelerator, Collectives(), folder, StopRequest(), SpeechCollator, get_normalizer)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, micro_whisper: Path) -> Runs:
    return Runs(tmp_path_factory.mktemp("runs"), micro_whisper)


def one_pass(run: Run, world: int, readers: int) -> list[str]:
    """Ids of what the readers of all ranks prepare in one epoch, each with a cache of its own."""
    run.config = replace(run.config, data=replace(run.config.data, workers=readers))
    ids = []
    for rank in range(world):
        run.share = Partition(run.config.batch.size, run.config.batch.size, rank, world, run.lanes)
        for reader in range(readers):
            prepared = run.stream(0)._slots.parts(reader, readers)  # what worker `reader` would run
            parts = islice(prepared, run.steps * run.share.accumulate)
            ids += [row.id for part in parts for row in part]
    return ids


@pytest.mark.parametrize("batch_size", [8, 16, *(pytest.param(size, marks=pytest.mark.long) for size in (24, 32))])
def test_one_pass_reads_each_byte_about_once_however_many_read(runs: Runs, tmp_path: Path, batch_size: int):
    path = write(tmp_path / "a.parquet", CHUNKS_PER_LANE * default_lanes(batch_size))
    run, group_bytes = runs(path, batch_size), sizes(path)
    found = {}
    for world in WORLDS:
        for readers in (1, 2):
            run.source = counted = Counted(open_mixture(run.config.data))
            ids = one_pass(run, world, readers)
            assert len(ids) == len(set(ids)) == sum(run.source.rows), "each row once, over all ranks and readers"
            read = sum(times * size for times, size in zip(counted.reads, group_bytes, strict=True))
            found[world, readers] = read / sum(group_bytes)
    assert min(found.values()) >= 1.0
    assert max(found.values()) <= AGAIN, found


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Elsewhere]:
    """A server that holds `a.parquet`, of 480 row groups."""
    with serve(tmp_path_factory.mktemp("elsewhere")) as where:
        write(where.folder / "a.parquet", CHUNKS_PER_LANE * default_lanes(16))
        yield where


def bytes_asked(elsewhere: Elsewhere) -> int:
    """Bytes of the ranges that were asked for."""
    bounds = [text.removeprefix("bytes=").split("-") for text in elsewhere.ranges]
    return sum(int(last) + 1 - int(first) for first, last in bounds)


@pytest.mark.parametrize("world", [1, 3, 8])
def test_of_a_server_too_one_pass_asks_for_each_byte_about_once(runs: Runs, elsewhere: Elsewhere, world: int):
    run = runs(f"{elsewhere.address}/files/a.parquet", 16)
    elsewhere.forget()
    one_pass(run, world, readers=1)
    assert len(elsewhere.ranges) == len(elsewhere.asked), "never the whole file"
    there = sum(sizes(elsewhere.folder / "a.parquet"))
    assert there <= bytes_asked(elsewhere) <= AGAIN * there


def test_a_resume_reads_as_little_at_any_step(runs: Runs, elsewhere: Elsewhere):
    """In the first epoch, in the tenth, and at step 1,000,000: counted from the opening of the source on."""
    run = runs(f"{elsewhere.address}/files/a.parquet", 16)
    run.config = replace(run.config, epochs=None, steps=2_000_000)
    steps_of_epoch = sum(run.source.rows) // 16
    first_batch, five_batches = [], []  # bytes
    for step in (0, steps_of_epoch // 2, 10 * steps_of_epoch + 7, 1_000_000):
        elsewhere.forget()
        run.source = open_mixture(
            run.config.data, run.folder.index
        )  # as a resumed run does, with the index of the first
        stream = run.stream(step)
        assert len(stream.draw().unusable) == 16
        assert len(elsewhere.ranges) <= 16, "one row group for each row at most, and no footer"
        first_batch.append(bytes_asked(elsewhere))
        for _ in range(4):
            stream.draw()
        assert len(elsewhere.ranges) <= run.lanes * (run.config.data.window_chunks + 1)
        five_batches.append(bytes_asked(elsewhere))
    # Row groups are not all of one size, and rows of a lane may be of one row group or of several.
    assert max(first_batch) <= 1.2 * min(first_batch)
    assert max(five_batches) <= 1.2 * min(five_batches)
