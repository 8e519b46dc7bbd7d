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
    """Transform of a waveform, drawn from (seed, epoch, utterance) and from nothing else."""

    def __call__(self, waveform: Waveform, place: Place) -> Waveform:
        """Waveform [samples] after the transform."""


class FeatureTransform(Protocol):
    """Transform of a log-mel, drawn from (seed, epoch, utterance) and from nothing else."""

    def __call__(self, features: torch.Tensor, seconds: float, place: Place) -> torch.Tensor:
        """Log-mel [M, t] after the transform; the padding after `seconds` stays as it is."""


@dataclass(frozen=True)
class Transforms:
    """All transforms of a run."""

    waveform: Sequence[WaveformTransform] = ()
    features: Sequence[FeatureTransform] = ()


def transforms_of(config: TrainingConfig, log_mel: LogMel) -> Transforms:
    """Transforms that a configuration asks for; empty lists if it asks for none."""
    features: list[FeatureTransform] = []
    if config.augment.time_masks or config.augment.frequency_masks:
        features.append(SpecAugment(config.augment, config.seed, log_mel.frames / log_mel.window_seconds))
    return Transforms(features=features)
