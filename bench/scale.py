"""How costs grow with the size of the data: shards, rows, positions."""

import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bench.prepare import run_of
from bench.tasks import TrainingTask, answer, from_argument
from whisper_ft.config.data import SourceConfig
from whisper_ft.data.sampling.order import Order
from whisper_ft.data.sources import open_source

SHARDS = (1, 10, 100)
FILES = (100, 1_000, 10_000)  # of an index
POSITIONS = (0, 10**6, 10**9)
LOOKUPS = 2_000


def seconds_of(what: Callable[[], object]) -> float:
    """How long it takes."""
    begin = time.perf_counter()
    what()
    return time.perf_counter() - begin


def loading(task: TrainingTask, shards: int) -> float:
    """Utterances a second of the data alone, in line, over the same rows in so many files."""
    folder = Path(task.scratch, f"shards-{shards}")
    rows = pa.concat_tables(pq.read_table(path) for path in sorted(Path(task.data).glob("*.parquet")))
    folder.mkdir()
    for shard in range(shards):
        first, last = shard * len(rows) // shards, (shard + 1) * len(rows) // shards
        # Row groups of the same size in all of them: how many files there are is what differs.
        pq.write_table(rows.slice(first, last - first), folder / f"{shard:05d}.parquet", row_group_size=10)
    own = TrainingTask(**{**vars(task), "data": str(folder)})
    stream = run_of(own, Path(task.scratch, f"run-{shards}")).stream(0)
    for _ in range(task.unmeasured_steps):
        stream.draw()
    drawn = 0

    def draw() -> None:
        nonlocal drawn
        drawn = sum(stream.draw().utterances for _ in range(task.steps - task.unmeasured_steps))

    seconds = seconds_of(draw)
    return drawn / seconds


def indexing(folder: Path, files: int) -> float:
    """Seconds to open a source of so many files of this machine: their footers are read each time."""
    (folder / "data").mkdir(parents=True)
    audio = pa.array([{"bytes": b"x" * 100, "path": None}] * 20)
    rows = pa.table({"audio": audio, "sentence": ["тэкст"] * 20})
    pq.write_table(rows, folder / "data/0.parquet", row_group_size=10)
    first = (folder / "data/0.parquet").read_bytes()
    for number in range(1, files):
        (folder / f"data/{number}.parquet").write_bytes(first)
    where = SourceConfig(path=str(folder / "data"))
    return seconds_of(lambda: open_source(where))


def main() -> None:
    """All of it, and report."""
    task = from_argument(TrainingTask)
    order = Order([1000] * 10_000, seed=1, lanes=16, window=4)

    def lookups(position: int) -> float:
        return seconds_of(lambda: [order.locate(position + i) for i in range(LOOKUPS)]) / LOOKUPS

    lookups(0)  # unmeasured
    opened = {files: indexing(Path(task.scratch, f"files-{files}"), files) for files in FILES}
    answer(
        {
            "utterances_per_second_by_shards": {str(n): round(loading(task, n), 1) for n in SHARDS},
            "index_seconds_by_files": {str(n): round(seconds, 3) for n, seconds in opened.items()},
            "lookup_microseconds_by_position": {str(n): round(1e6 * lookups(n), 2) for n in POSITIONS},
        }
    )


if __name__ == "__main__":
    main()
