"""SpecAugment: masks in time and frequency, drawn anew for each utterance in each epoch and from nothing else.

Park et al. 2019, arXiv 1904.08779, without its time warping. transformers has its own, drawn from numpy's global
generator: there the masks of an utterance depend on what was drawn before, here only on (seed, epoch, utterance).
"""

import torch

from whisper_ft.config.training import AugmentConfig
from whisper_ft.runtime.rng import hash64

MASKED = 0.0  # of a log-mel that Whisper scales to about -1 to 1.5; transformers masks with it too
_TIME, _FREQUENCY = 0, 1


class SpecAugment:
    """Masks for log-mels of `frames_per_second`."""

    def __init__(self, settings: AugmentConfig, seed: int, frames_per_second: float) -> None:
        self._settings, self._seed, self._frames_per_second = settings, seed, frames_per_second

    def __call__(self, features: torch.Tensor, seconds: float, *key: int) -> torch.Tensor:
        """A copy of [M, t] with the masks of `key` (epoch and utterance); the padding after `seconds` stays."""
        masked, settings = features.clone(), self._settings
        bins, frames = len(features), min(round(seconds * self._frames_per_second), features.shape[1])
        widest = min(
            round(settings.time_mask_seconds * self._frames_per_second), int(settings.time_mask_share * frames)
        )
        for number in range(settings.time_masks):
            begin, end = self._stretch(frames, widest, *key, _TIME, number)
            masked[:, begin:end] = MASKED
        for number in range(settings.frequency_masks):
            begin, end = self._stretch(bins, min(settings.frequency_mask_bins, bins), *key, _FREQUENCY, number)
            masked[begin:end, :frames] = MASKED
        return masked

    def _stretch(self, length: int, widest: int, *key: int) -> tuple[int, int]:
        """A stretch of at most `widest` within `length`: its width first, then its place, each evenly drawn."""
        width = hash64(self._seed, *key, 0) % (widest + 1)
        begin = hash64(self._seed, *key, 1) % (length - width + 1)
        return begin, begin + width
