"""How much is read: each byte about once in a pass, however many read, and at a late step no more than at the first.

The readers are those of the stream that train.py builds for each rank. The rows have no transcript, so none is decoded.
A pass reads a chunk again if a lane ends within it (once for each lane but one), or if it left the cache too early. So
data with few chunks per lane is read more than 1.1 times. Here a lane has 30 chunks.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from collator import SpeechCollator
from tests.elsewhere import AUDIO, Elsewhere, serve
from whisper_ft.config.parse import load_config
from whisper_ft.config.training import TrainingConfig
from whisper_ft.config.tree import with_values
from whisper_ft.data.formats.mixture import MixedSource
from whisper_ft.data.loader import TrainStream
from whisper_ft.data.sampling.order import default_lanes
from whisper_ft.data.sampling.partition import Partition
from whisper_ft.data.sources import open_mixture
from whisper_ft.data.types import Row
from whisper_ft.training.data import TrainingData, open_stream, open_training_data
from whisper_ft.training.learner import Learner, build_learner

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
class Reading:
    """Data of a run of one epoch as train.py opens it, in this process, and the learner that its windows are for."""

    config: TrainingConfig
    data: TrainingData
    learner: Learner

    def stream(self, first_step: int = 0) -> TrainStream:
        collate = self.learner.collator(SpeechCollator)
        return open_stream(
            self.data, self.config, self.learner.encode, self.learner.log_mel, collate, first_step, print
        )

    def reopened(self) -> "Reading":
        """The same as a resumed run opens it, with the index of the first."""
        return replace(self, data=open_training_data(self.config, self.config.data, self.config.run_dir / "index"))


Open = Callable[..., Reading]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory, micro_whisper: Path) -> Open:
    folder, learners = tmp_path_factory.mktemp("runs"), list[Learner]()

    def open_run(path: Path | str, batch_size: int, **more: Any) -> Reading:
        settings = {"model.name": micro_whisper, "data.path": path, "batch.size": batch_size, "epochs": 1}
        settings |= {"optim.lr": 1e-5} | more
        arguments = [text for key, value in settings.items() for text in (f"--{key}", str(value))]
        config = load_config(TrainingConfig, [*arguments, "--run_dir", str(folder), "--data.language", "be"])
        learners[:] = learners or [build_learner(config, torch.device("cpu"), None, print)]
        return Reading(config, open_training_data(config, config.data, folder / "index"), learners[0])

    return open_run


def one_pass(reading: Reading, world: int, readers: int) -> list[str]:
    """Ids of the rows that the readers of all ranks prepare in one epoch, each with a cache of its own."""
    reading = replace(reading, config=with_values(reading.config, {"data.workers": readers}))
    data, size, ids = reading.data, reading.config.batch.size, []
    for rank in range(world):
        partition = Partition(size, size, rank, world, data.partition.lanes)
        stream = replace(reading, data=replace(data, partition=partition)).stream()
        for reader in range(readers):
            shares = islice(stream._shares.of_reader(reader), data.steps * partition.accumulate)
            ids += [row.id for blocks in shares for block in blocks for row in block]
    return ids


@pytest.mark.long
@pytest.mark.parametrize("batch_size", [8, *(pytest.param(size, marks=pytest.mark.matrix) for size in (16, 24, 32))])
def test_one_pass_reads_each_byte_about_once_however_many_read(opened: Open, tmp_path: Path, batch_size: int):
    path = write(tmp_path / "a.parquet", CHUNKS_PER_LANE * default_lanes(batch_size))
    reading, group_bytes = opened(path, batch_size), sizes(path)
    times_read = {}
    for world in WORLDS:
        for readers in (1, 2):
            counted: Any = Counted(open_mixture(reading.config.data))
            ids = one_pass(replace(reading, data=replace(reading.data, source=counted)), world, readers)
            assert len(ids) == len(set(ids)) == reading.data.rows, "each row once, over all ranks and readers"
            read = sum(times * size for times, size in zip(counted.reads, group_bytes, strict=True))
            times_read[world, readers] = read / sum(group_bytes)
    assert min(times_read.values()) >= 1.0
    assert max(times_read.values()) <= AGAIN, times_read


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


@pytest.mark.long
@pytest.mark.parametrize(
    "world", [pytest.param(1, marks=pytest.mark.matrix), pytest.param(3, marks=pytest.mark.matrix), 8]
)
def test_of_a_server_too_one_pass_asks_for_each_byte_about_once(opened: Open, elsewhere: Elsewhere, world: int):
    reading = opened(f"{elsewhere.address}/files/a.parquet", 16)
    elsewhere.forget()
    one_pass(reading, world, readers=1)
    assert len(elsewhere.ranges) == len(elsewhere.asked), "never the whole file"
    there = sum(sizes(elsewhere.folder / "a.parquet"))
    assert there <= bytes_asked(elsewhere) <= AGAIN * there


@pytest.mark.long
def test_a_resume_reads_as_little_at_any_step(opened: Open, elsewhere: Elsewhere):
    """In the first epoch, in the tenth, and at step 1,000,000: counted from the opening of the source on."""
    reading = opened(f"{elsewhere.address}/files/a.parquet", 16, epochs="null", steps=2_000_000)
    steps_of_epoch = reading.data.rows // 16
    first_batch, five_batches = [], []  # bytes
    for step in (0, steps_of_epoch // 2, 10 * steps_of_epoch + 7, 1_000_000):
        elsewhere.forget()
        stream = reading.reopened().stream(step)
        assert len(stream.draw().rejected) == 16
        assert len(elsewhere.ranges) <= 16, "one row group for each row at most, and no footer"
        first_batch.append(bytes_asked(elsewhere))
        for _ in range(4):
            stream.draw()
        assert len(elsewhere.ranges) <= reading.data.partition.lanes * (reading.config.data.window_chunks + 1)
        five_batches.append(bytes_asked(elsewhere))
    # Row groups are not all of one size, and rows of a lane may be of one row group or of several.
    assert max(first_batch) <= 1.2 * min(first_batch)
    assert max(five_batches) <= 1.2 * min(five_batches)
