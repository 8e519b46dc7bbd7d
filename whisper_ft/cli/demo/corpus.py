"""Spoken corpus of the demo: parquet shards, laid out as on the Hub, of encoded clips with sentence and speaker.

`python -m whisper_ft.cli.demo.corpus --out DIR` writes the same bytes for the same arguments. The splits share voices
but no sentence. Two clips of three are 16 kHz FLAC, the third is 48 kHz MP3.
"""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from rich.progress import Progress

from whisper_ft.cli.demo.clips import DemoClip, encode, plan
from whisper_ft.cli.demo.demo_arguments import add_count, add_out, add_splits, announce, exit_code_of_demo
from whisper_ft.cli.demo.folder import write_once
from whisper_ft.cli.demo.sentences import LANGUAGES, sentences
from whisper_ft.reports.safe_console import SafeConsole
from whisper_ft.runtime.command import Parser

VERSION = 1  # raise it with each change that makes the same arguments give other bytes
DESCRIPTION = "corpus.json"
ROWS_PER_GROUP = 50
MAX_ROWS_PER_SHARD = 1_000
MIN_SHARDS = {"train": 4, "validation": 2, "test": 2}  # several, to test that they are read in turn
CLIPS_PER_TASK = 25  # about 0.4 s of work, much more than the cost of sending it to another process

# By the `huggingface` entry `datasets` recognises an audio column.
FEATURES = {
    "audio": {"_type": "Audio"},
    "sentence": {"dtype": "string", "_type": "Value"},
    "client_id": {"dtype": "string", "_type": "Value"},
}
SCHEMA = pa.schema(
    [
        ("audio", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("sentence", pa.string()),
        ("client_id", pa.string()),
    ],
    metadata={"huggingface": json.dumps({"info": {"features": FEATURES}})},
)


def write_corpus(
    out: Path,
    language: str = "be",
    train: int = 1_000,
    validation: int = 100,
    test: int = 200,
    seed: int = 0,
    processes: int | None = None,
) -> bool:
    """Write a spoken corpus to `out`; returns False if it is there already, made from the same arguments.

    `train`, `validation` and `test` are numbers of utterances. The number of processes (None: one for each CPU) does
    not change the bytes. Raises ValueError if `out` holds anything else, a corpus from other arguments included, or if
    the language has no grammar or not enough sentences.
    """
    # The test split takes the first sentences, so it does not change when the training split grows.
    counts = {"test": test, "validation": validation, "train": train}
    arguments = {"version": VERSION, "language": language, "seed": seed, **counts}

    def write(aside: Path) -> None:
        texts = iter(sentences(language, sum(counts.values()), seed))
        clips = {split: plan(language, split, [next(texts) for _ in range(n)], seed) for split, n in counts.items()}
        _write_splits(aside, clips, processes or os.cpu_count() or 1)

    return write_once(out, DESCRIPTION, arguments, write)


def _write_splits(folder: Path, clips: dict[str, list[DemoClip]], processes: int) -> None:
    """Write the shards of all splits, with a progress bar that counts clips."""
    console = SafeConsole(stderr=True)
    everything = [clip for split in clips.values() for clip in split]
    with (
        Progress(console=console, disable=not console.is_terminal) as progress,
        _encoded(everything, processes) as audio,
    ):
        bar = progress.add_task("speaking", total=len(everything))
        for split, of_split in clips.items():
            (folder / split).mkdir()
            for name, of_shard in _shards(split, of_split):
                _write_shard(folder / split / name, of_shard, audio)
                progress.advance(bar, len(of_shard))


@contextmanager
def _encoded(clips: list[DemoClip], processes: int) -> Iterator[Iterator[bytes]]:
    """Yield an iterator over the bytes of the clips, in order. Many clips are encoded by several processes."""
    if processes == 1 or len(clips) <= CLIPS_PER_TASK:
        yield map(encode, clips)
        return
    # Spawned, because a fork copies the locks of the caller's threads, and some systems have no fork.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield pool.map(encode, clips, chunksize=CLIPS_PER_TASK)


def _shards(split: str, clips: list[DemoClip]) -> Iterator[tuple[str, list[DemoClip]]]:
    """Yield file name and clips of each shard of a split. The shards differ by at most one clip in size."""
    count = min(len(clips), max(MIN_SHARDS[split], -(-len(clips) // MAX_ROWS_PER_SHARD)))
    for shard in range(count):
        first, end = len(clips) * shard // count, len(clips) * (shard + 1) // count
        yield f"{split}-{shard:05d}-of-{count:05d}.parquet", clips[first:end]


def _write_shard(path: Path, clips: list[DemoClip], audio: Iterator[bytes]) -> None:
    """Write clips to one parquet file. `audio` yields the encoded bytes of these clips next."""
    rows = [
        {"audio": {"bytes": next(audio), "path": clip.name}, "sentence": clip.sentence, "client_id": clip.client_id}
        for clip in clips
    ]
    # Encoded audio neither compresses nor repeats.
    pq.write_table(
        pa.Table.from_pylist(rows, SCHEMA),
        path,
        row_group_size=ROWS_PER_GROUP,
        compression="none",
        use_dictionary=False,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Write the corpus that the command line describes, and return the exit code."""

    def program() -> None:
        parser = Parser(
            prog="python -m whisper_ft.cli.demo.corpus",
            description="Write a spoken corpus made with espeak-ng, as parquet shards.",
        )
        add_out(parser, "folder to write: DIR/train, DIR/validation, DIR/test")
        parser.add_argument("--language", choices=LANGUAGES, default="be", help="language of the speech (default be)")
        add_splits(parser)
        add_count(parser, "--seed", 0, "seed of sentences and voices", least=0)
        args = parser.parse_args(argv)
        written = write_corpus(args.out, args.language, args.train, args.validation, args.test, args.seed)
        announce("corpus", args.out, written)

    return exit_code_of_demo(program)


if __name__ == "__main__":
    sys.exit(main())
