"""Audio of the anchor: its source, the order of its rows, and the check that no set is scored on it."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from whisper_ft.config.anchor import DEFAULT_SHARE
from whisper_ft.config.data import SourceConfig
from whisper_ft.config.training import TrainingConfig
from whisper_ft.data.audio.containers import Waveform
from whisper_ft.data.audio.decode import decode
from whisper_ft.data.audio.log_mel import LogMel
from whisper_ft.data.formats.fingerprint import changed, with_content
from whisper_ft.data.labelled import LabelledSource
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.data.leakage import MEANING, LeakageComparison, keys_of
from whisper_ft.data.loader import TrainStream
from whisper_ft.data.sampling.batch_plan import BatchPlan
from whisper_ft.data.sampling.block_partition import BlockPartition
from whisper_ft.data.sampling.order import Order, default_lanes
from whisper_ft.data.sampling.partition import Partition
from whisper_ft.data.sources import open_source
from whisper_ft.data.types import Collator, RejectedError, Row, Source
from whisper_ft.data.used_settings import languages_found, used_lines
from whisper_ft.data.window_builder import WindowSettings
from whisper_ft.data.window_reader import WindowReader
from whisper_ft.decoding.evaluator import encoder_of_set
from whisper_ft.runtime.collectives import Collectives
from whisper_ft.runtime.errors import DataError, ResumeError, UsageError
from whisper_ft.training.evaluated_set import EvaluatedSet
from whisper_ft.training.learner import Learner

FINGERPRINT, START_WEIGHTS = "anchor", "start_weights"
"""Keys of the anchor's audio and of the hash of its weights in the fingerprint of a run's data."""
COMPARED_ROWS = 1000  # rows of the anchor whose sound is compared with the evaluated sets; some 5 s of decoding
ORDER_SOURCE = 1 << 20  # number of the source in the hash of the order; no mixture has as many sources


@dataclass(frozen=True)
class AnchorData:
    """Audio of the anchor. Each step has a batch of its utterances, which is a pure function of seed and step."""

    source: LabelledSource
    encode: LabelEncoder
    size: int
    """Utterances in a step, in all processes together."""
    fingerprint: dict[str, Any]
    """Facts that identify the audio, which a resumed run compares."""

    def stream(
        self,
        config: TrainingConfig,
        log_mel: LogMel,
        collate: Collator,
        first_step: int,
        data: Partition | BlockPartition,
    ) -> TrainStream:
        """Open the stream of one rank's share, from `first_step` on. One worker reads it, if the run has workers.

        `data` is the partition of the training data, which names the rank.
        """
        lanes, span = default_lanes(self.size), config.data.window_chunks
        order = Order(self.source.rows, seed=config.seed, lanes=lanes, window=span, source=ORDER_SOURCE)
        partition = Partition(self.size, min(config.batch.per_pass, self.size), data.rank, data.world, lanes)
        cached = config.data.cache_gb * 1e9 / DEFAULT_SHARE / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        chunks = partition.lanes_read(1) * (span + 2)
        reader = WindowReader(self.source, log_mel, self.encode, chunks, cached, None, WindowSettings(config.seed))
        return TrainStream(
            reader,
            BatchPlan(order, partition, 1),
            collate,
            first_step=first_step,
            workers=min(config.data.workers, 1),
            ahead=config.data.prefetch,
        )


def open_anchor_data(
    config: TrainingConfig,
    where: SourceConfig | None,
    index: Path,
    learner: Learner,
    evaluated: Sequence[EvaluatedSet],
    collectives: Collectives,
    say_all: Callable[[Iterable[str]], object],
) -> AnchorData | None:
    """Open the audio of the anchor; None if `anchor.kl` is off. Every rank must call it.

    Parameters
        where: settings of the audio, pinned to a commit if it is on the Hub.
        index: folder for cached file indexes.
        evaluated: sets on which the run is scored. Their recordings must not be in the anchor.
        say_all: called with the lines about what is read.

    Raises UsageError if the audio cannot be used, or if a set is scored on some of it.
    """
    if where is None:
        return None
    try:
        source = open_source(where, index)
        found = collectives.broadcast_from_main(lambda: languages_found([source]))
        encode, _ = encoder_of_set(
            where,
            found,
            learner.model,
            learner.processor.tokenizer,
            detect_language=False,
            leading_space=config.labels.leading_space,
        )
    except UsageError as error:
        raise UsageError(str(error).replace("--data.", "--anchor.")) from error
    say_all(used_lines("anchor", source, encode.language))
    if evaluated and (rows := sum(source.rows)) > COMPARED_ROWS:
        say_all([f"anchor: the first {COMPARED_ROWS:,} of its {rows:,} rows are compared with the evaluated sets"])
    collectives.broadcast_from_main(lambda: refuse_shared(source, evaluated, learner.log_mel))
    content = collectives.broadcast_from_main(source.content)
    size = config.anchor.utterances(config.batch.size)
    return AnchorData(source, encode, size, with_content(source.fingerprint(), content))


def refuse_shared(source: Source, evaluated: Sequence[EvaluatedSet], log_mel: LogMel) -> None:
    """Raise UsageError if a set is scored on a recording of the anchor, by bytes, sound, or name with words.

    The first COMPARED_ROWS rows of the anchor are compared. Raises DataError if none of them can be decoded.
    """

    def sound(row: Row) -> Waveform | None:
        try:
            return decode(row.audio, log_mel.sample_rate, log_mel.window_seconds, row.offset, row.duration)
        except RejectedError:
            return None

    compared = [(one.name, LeakageComparison(first_rows(one.source, one.rows), sound)) for one in evaluated]
    heard = False
    for row in first_rows(source, COMPARED_ROWS):
        waveform = sound(row)
        heard = heard or waveform is not None
        keys = keys_of(row, waveform)
        for _, comparison in compared:
            comparison.add(row, keys)
    if not heard:
        raise DataError(f"--anchor.path: none of its first {COMPARED_ROWS:,} rows has audio that can be decoded")
    for name, comparison in compared:
        for leak in comparison.result().leaks:
            (own, other), *_ = leak.examples
            raise UsageError(
                f"--anchor.path: {leak.train_rows:,} of its rows have {MEANING[leak.kind]} as rows of the set {name}, "
                f"such as {own} and {other}; take audio that no set is scored on"
            )


def first_rows(source: Source, most: int) -> Iterator[Row]:
    """Return an iterator over at most `most` rows in the order of storage. One chunk at a time is in memory."""
    chunks = (source.read(chunk) for chunk, rows in enumerate(source.rows) if rows)
    return islice(chain.from_iterable(chunks), most)


def refuse_another_anchor(then: Mapping[str, Any], now: Mapping[str, Any], checkpoint: Path) -> None:
    """Raise an error if the anchor differs between two fingerprints of a run's data that both have one.

    It is a ResumeError for other start weights, and a UsageError for other audio. `then` is that of the checkpoint.
    """
    if START_WEIGHTS in then and START_WEIGHTS in now and then[START_WEIGHTS] != now[START_WEIGHTS]:
        raise ResumeError(
            f"{checkpoint}: model.name has other weights than those from which this run started, and the anchor holds "
            "the model near them; restore the old ones, or begin a run in another --run_dir"
        )
    if FINGERPRINT in then and FINGERPRINT in now and (difference := changed(then[FINGERPRINT], now[FINGERPRINT])):
        raise UsageError(f"--anchor.path: differs from the audio of {checkpoint}: {difference}")
