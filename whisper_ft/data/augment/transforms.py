"""Augmentation transforms of a run: of the waveform of an utterance first, then of its log-mel."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from whisper_ft.config.augment import WAVEFORM
from whisper_ft.config.training import TrainingConfig
from whisper_ft.data.audio.log_mel import LogMel
from whisper_ft.data.augment.spec_augment import SpecAugment
from whisper_ft.data.augment.waveform.chain import WaveformChain
from whisper_ft.data.sampling.order import Place


class FeatureTransform(Protocol):
    """Random transform of a log-mel. Its draws depend on (seed, epoch, utterance) and on nothing else."""

    def __call__(self, features: torch.Tensor, seconds: float, place: Place) -> torch.Tensor:
        """Return the transformed log-mel [M, t]. The padding after `seconds` stays as it is."""


@dataclass(frozen=True)
class Transforms:
    """All transforms of a run, in the order in which they are applied."""

    waveform: WaveformChain | None = None
    features: Sequence[FeatureTransform] = ()


def waveform_chain(config: TrainingConfig) -> WaveformChain | None:
    """Build the transforms of augment.waveform; None without any. Raises UsageError as `WaveformChain` does."""
    return WaveformChain.of(config.augment.waveform, config.seed, WAVEFORM)


def transforms_of(config: TrainingConfig, log_mel: LogMel, waveform: WaveformChain | None) -> Transforms:
    """Build the transforms that a configuration asks for. `waveform` is its `waveform_chain`."""
    features: list[FeatureTransform] = []
    if config.augment.time_masks or config.augment.frequency_masks:
        features.append(SpecAugment(config.augment, config.seed, log_mel.frames / log_mel.window_seconds))
    return Transforms(waveform, features)
