"""Training data of a run: its source, order and partition, and the stream of its steps."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from whisper_ft.config.data import DataConfig
from whisper_ft.config.training import TrainingConfig
from whisper_ft.data.audio.log_mel import LogMel
from whisper_ft.data.audio.noise_files import NoiseFiles
from whisper_ft.data.augment.transforms import transforms_of, waveform_chain
from whisper_ft.data.augment.waveform.chain import WaveformChain
from whisper_ft.data.formats.fingerprint import with_content
from whisper_ft.data.formats.mixture import MixedSource
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.data.loader import TrainStream
from whisper_ft.data.sampling.batch_plan import BatchPlan
from whisper_ft.data.sampling.block_partition import BlockPartition
from whisper_ft.data.sampling.order import ORDER_VERSION, MixedOrder, default_lanes
from whisper_ft.data.sampling.partition import Partition
from whisper_ft.data.sources import open_mixture
from whisper_ft.data.types import Collator
from whisper_ft.data.window_builder import WindowSettings
from whisper_ft.data.window_reader import WindowReader
from whisper_ft.runtime.errors import as_usage_error
from whisper_ft.training import data_summary
from whisper_ft.training.anchor_data import FINGERPRINT, START_WEIGHTS, AnchorData

NO_SPEECH, AUGMENTATION = "no_speech", "augmentation"
"""Keys of the recordings without speech and of those of augmentation in a fingerprint."""
BYTES = "_bytes"
"""End of the keys of a digest of their bytes, which early versions did not record."""


@dataclass(frozen=True)
class TrainingData:
    """Training data of a run: the source, the order of its rows, and the share that this rank reads."""

    source: MixedSource
    order: MixedOrder
    partition: Partition | BlockPartition
    steps: int
    """Updates of the run."""
    end: int | None
    """Position in the stream at which the run ends; None if the length of the run is given in steps."""
    noise: NoiseFiles | None = None
    """Recordings for windows without speech, if the settings name some."""
    augmentation: WaveformChain | None = None
    """Transforms of waveforms, if the settings name some."""
    anchor: AnchorData | None = None
    """Audio of the anchor, if `anchor.kl` is on."""
    start_weights: str | None = None
    """Hash of the weights near which the anchor holds the model; None without an anchor."""
    content: dict[str, Any] = field(default_factory=dict)
    """Digests of the content of the files (`Source.content`), as it was when this start of the program began."""

    @property
    def rows(self) -> int:
        """Number of rows in the data."""
        return sum(self.source.rows)

    @property
    def recordings(self) -> list[Path]:
        """Recordings beside the rows, by `recordings_of`."""
        return recordings_of(self.noise, self.augmentation)

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Facts that identify the data and its order: recorded in a checkpoint, and compared when a run resumes.

        They are the version of the order, the number of lanes, the content of the source, and the recordings without
        speech and of augmentation. An anchor adds its start weights and its audio.
        """
        source = with_content(self.source.fingerprint(), self.content)
        noise = dict[str, Any]()
        if self.noise is not None:
            noise |= {NO_SPEECH: self.noise.fingerprint, NO_SPEECH + BYTES: self.noise.content}
        if self.augmentation is not None and self.augmentation.recordings:
            noise |= {AUGMENTATION: self.augmentation.fingerprint, AUGMENTATION + BYTES: self.augmentation.content}
        if self.start_weights is not None:
            noise[START_WEIGHTS] = self.start_weights
        if self.anchor is not None:
            noise[FINGERPRINT] = self.anchor.fingerprint
        return {"order": ORDER_VERSION, "lanes": self.partition.lanes, **noise, **source}

    def recordings_that_differ(self, recorded: Mapping[str, Any]) -> list[str]:
        """Return the settings and paths whose recordings are others than in the fingerprint of a checkpoint."""
        places = {NO_SPEECH: [self.noise.place] if self.noise is not None else []}
        places[AUGMENTATION] = [one.place for one in self.augmentation.recordings.values()] if self.augmentation else []
        now, both = self.fingerprint, [(key, key + BYTES) for key in places]
        differ = [keys[0] for keys in both if any(recorded.get(key, now.get(key)) != now.get(key) for key in keys)]
        return [place for key in differ for place in places[key]]

    def divided(self, config: TrainingConfig, rank: int, world: int) -> Self:
        """Return the same data, with the rank's share in passes of `batch.per_device` windows."""
        return replace(self, partition=partition_of(config, self.order, self.partition.lanes, rank, world))

    def ids(self, step: int) -> list[str]:
        """Return the ids of the rows in the global batch of a step, counted from 0, in the order of the stream.

        Rows that cannot be used are included. `python -m whisper_ft replay` prints these ids.
        """
        size = self.partition.batch_size
        positions = range(step * size, min((step + 1) * size, self.end or (step + 1) * size))
        return [self.source.row_id(place.chunk, place.row) for place in map(self.order.locate, positions)]


def open_training_data(
    config: TrainingConfig, data: DataConfig, index: Path, rank: int = 0, world: int = 1
) -> TrainingData:
    """Open the data of a run, with the share of one rank. `content` stays empty.

    Parameters
        data: settings of the data, pinned to a commit if it is on the Hub.
        index: folder for cached file indexes.
        rank: rank whose share is read, of `world` ranks.

    Raises UsageError if the sources cannot be mixed as configured, or if a step has fewer blocks than there are ranks.
    So it does if recordings without speech or of augmentation cannot be used.
    """
    source = open_mixture(data, index)
    lanes = config.data.lanes or default_lanes(config.batch.size)
    with as_usage_error("data.sources"):
        order = source.order(seed=config.seed, lanes=lanes, window=config.data.window_chunks)
    partition = partition_of(config, order, lanes, rank, world)
    rows, path = sum(source.rows), config.labels.no_speech_path
    noise = NoiseFiles.found(path) if path else None
    chain = waveform_chain(config)
    return TrainingData(source, order, partition, config.steps_over(rows), config.end_of(rows), noise, chain)


def recordings_of(noise: NoiseFiles | None, augmentation: WaveformChain | None) -> list[Path]:
    """Return the recordings that a run hears beside its rows: sounds without speech, noise and impulse responses."""
    found = [noise] if noise is not None else []
    found += augmentation.recordings.values() if augmentation is not None else ()
    return [file.path for files in found for file in files.files]


def partition_of(
    config: TrainingConfig, order: MixedOrder, lanes: int, rank: int, world: int
) -> Partition | BlockPartition:
    """Return the share of one rank. Raises UsageError if a packed step has fewer blocks than there are ranks.

    While `batch.per_device` is `auto`, the share is one pass.
    """
    if not config.pack.enabled:
        per_pass = config.batch.size if config.batch.per_device == "auto" else config.batch.per_device
        return Partition(config.batch.size, per_pass, rank, world, lanes)
    partition = BlockPartition(config.batch.size, config.pack.block, rank, world, lanes, order.sources_of_lanes)
    partition.refuse_idle_ranks()
    return partition


def open_stream(
    data: TrainingData,
    config: TrainingConfig,
    encode: LabelEncoder,
    log_mel: LogMel,
    collate: Collator,
    first_step: int,
    say: Callable[[str], object],
) -> TrainStream:
    """Open the stream of this rank's micro-batches, beginning at `first_step`.

    If the cache is too small for the data, `say` gets a warning.
    """
    settings = config.data
    readers = max(settings.workers, 1)
    # A lane needs the chunks of its shuffle span, the first chunk of the next span, and one more. Lanes change spans at
    # different steps.
    chunks = data.partition.lanes_read(readers) * (settings.window_chunks + 2)
    cached_bytes = settings.cache_gb * 1e9 / readers / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if warning := data_summary.cache_warning(data.source, chunks, cached_bytes):
        say(warning)
    transforms = transforms_of(config, log_mel, data.augmentation)
    windows = WindowSettings(config.seed, config.pack, config.labels, data.noise)
    is_regrouped = config.pack.enabled or config.labels.no_speech_share > 0
    return TrainStream(
        WindowReader(data.source, log_mel, encode, chunks, cached_bytes, transforms, windows),
        BatchPlan(data.order, data.partition, readers, data.end),
        collate,
        first_step=first_step,
        windows_at_once=config.batch.per_pass if is_regrouped else None,
        workers=settings.workers,
        ahead=settings.prefetch,
        anchor=data.anchor.stream(config, log_mel, collate, first_step, data.partition) if data.anchor else None,
    )
