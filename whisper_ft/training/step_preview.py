"""Preview of a training step: its windows, as one process makes them, without the weights of the model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

from whisper_ft.config.training import TrainingConfig
from whisper_ft.data.audio.log_mel import LogMel
from whisper_ft.data.audio.noise_files import NoiseFiles
from whisper_ft.data.augment.transforms import transforms_of, waveform_chain
from whisper_ft.data.formats.mixture import MixedSource
from whisper_ft.data.labels.rewrite import LabelNormalizer
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.data.packing.clip import Clip
from whisper_ft.data.packing.layout import Layout
from whisper_ft.data.sampling.batch_plan import BatchPlan
from whisper_ft.data.sampling.order import default_lanes
from whisper_ft.data.types import Rejected
from whisper_ft.data.used_settings import languages_found
from whisper_ft.data.window_builder import WindowSettings
from whisper_ft.data.window_reader import WindowReader
from whisper_ft.models.whisper import ModelParts
from whisper_ft.runtime.errors import as_usage_error
from whisper_ft.training.data import partition_of, recordings_of


class PreviewedBlock(NamedTuple):
    """Windows of one block, and its rows that cannot be used."""

    clips: list[Clip]
    """Utterances in the order of the stream."""
    layouts: list[Layout]
    rejected: list[Rejected]


@dataclass(frozen=True)
class StepPreview:
    """Blocks and windows of any step."""

    reader: WindowReader
    plan: BatchPlan
    recordings: Sequence[Path] = ()
    """Recordings beside the rows: sounds without speech, noise and impulse responses."""

    @classmethod
    def of(cls, config: TrainingConfig, source: MixedSource, encode: LabelEncoder, log_mel: LogMel) -> Self:
        """Build the preview of a run. Raises UsageError as `open_training_data` does."""
        lanes, path = config.data.lanes or default_lanes(config.batch.size), config.labels.no_speech_path
        with as_usage_error("data.sources"):
            order = source.order(seed=config.seed, lanes=lanes, window=config.data.window_chunks)
        noise = NoiseFiles.found(path) if path is not None else None
        settings = WindowSettings(config.seed, config.pack, config.labels, noise)
        chain = waveform_chain(config)
        transforms = transforms_of(config, log_mel, chain)
        reader = WindowReader(source, log_mel, encode, 2 * lanes, config.data.cache_gb * 1e9, transforms, settings)
        partition = partition_of(config, order, lanes, 0, 1)
        plan = BatchPlan(order, partition, 1, config.end_of(sum(source.rows)))
        return cls(reader, plan, recordings_of(noise, chain))

    def blocks(self, step: int) -> Iterator[PreviewedBlock]:
        """Yield the blocks of a step, in the order of training. Their rows are read and decoded one block at a time."""
        for portion in range(self.plan.portions):
            for block in self.plan.blocks(step, portion):
                items = self.reader.clips(self.plan.places(block))
                clips = [item for item in items if isinstance(item, Clip)]
                rejected = [item for item in items if isinstance(item, Rejected)]
                yield PreviewedBlock(clips, self.reader.builder.layouts(clips), rejected)


def encoder_of(
    config: TrainingConfig, model: ModelParts, source: MixedSource, rewrite: LabelNormalizer | None
) -> LabelEncoder:
    """Build the label encoder of a run, from the files of its model. `rewrite` is the normaliser of data.normalizer."""
    language, task, found = config.data.languages[0], config.data.tasks[0], languages_found(source.parts)
    space = config.labels.leading_space
    encode = LabelEncoder.of(model, model.processor.tokenizer, language, task, rewrite, found, space)
    encode.refuse_unknown(config.labels)
    return encode
