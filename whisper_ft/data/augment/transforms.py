"""Lists of augmentation transforms, in the order in which they are applied."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from whisper_ft.config.training import TrainingConfig
from whisper_ft.data.audio.containers import Waveform
from whisper_ft.data.audio.log_mel import LogMel
from whisper_ft.data.augment.spec_augment import SpecAugment
from whisper_ft.data.sampling.order import Place


class WaveformTransform(Protocol):
    """Random transform of a waveform. Its draws depend on (seed, epoch, utterance) and on nothing else."""

    def __call__(self, waveform: Waveform, place: Place) -> Waveform:
        """Return the transformed waveform [samples]."""


class FeatureTransform(Protocol):
    """Random transform of a log-mel. Its draws depend on (seed, epoch, utterance) and on nothing else."""

    def __call__(self, features: torch.Tensor, seconds: float, place: Place) -> torch.Tensor:
        """Return the transformed log-mel [M, t]. The padding after `seconds` stays as it is."""


@dataclass(frozen=True)
class Transforms:
    """All transforms of a run, in the order in which they are applied."""

    waveform: Sequence[WaveformTransform] = ()
    features: Sequence[FeatureTransform] = ()


def transforms_of(config: TrainingConfig, log_mel: LogMel) -> Transforms:
    """Build the transforms that a configuration asks for. A configuration without augmentation gives empty lists."""
    features: list[FeatureTransform] = []
    if config.augment.time_masks or config.augment.frequency_masks:
        features.append(SpecAugment(config.augment, config.seed, log_mel.frames / log_mel.window_seconds))
    return Transforms(features=features)
