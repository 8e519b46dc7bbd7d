"""SpecAugment: masks in time and frequency, drawn for each utterance in each epoch.

The method is that of Park et al. 2019, arXiv 1904.08779, without time warping. The SpecAugment of transformers draws
from numpy's global generator, so its masks depend on earlier draws. The masks here depend on (seed, epoch, utterance)
only.
"""

import torch

from whisper_ft.config.augment import AugmentConfig
from whisper_ft.data.sampling.order import Place
from whisper_ft.runtime.rng import hash64

MASKED = 0.0  # value of a masked log-mel bin, as in transformers; Whisper's features lie between about -1 and 1.5
_TIME, _FREQUENCY = 0, 1


class SpecAugment:
    """SpecAugment for log-mels with `frames_per_second` frames a second."""

    def __init__(self, settings: AugmentConfig, seed: int, frames_per_second: float) -> None:
        self._settings, self._seed, self._frames_per_second = settings, seed, frames_per_second

    def __call__(self, features: torch.Tensor, seconds: float, place: Place) -> torch.Tensor:
        """Return a masked copy of a log-mel [M, t]. Frames after `seconds` of audio stay unmasked.

        The masks are drawn from the seed and `place`, so they are equal in every run.
        """
        masked, settings = features.clone(), self._settings
        bins, frames = len(features), min(round(seconds * self._frames_per_second), features.shape[1])
        max_frames = min(
            round(settings.time_mask_seconds * self._frames_per_second), int(settings.time_mask_share * frames)
        )
        for number in range(settings.time_masks):
            begin, end = self._mask(frames, max_frames, *place, _TIME, number)
            masked[:, begin:end] = MASKED
        for number in range(settings.frequency_masks):
            begin, end = self._mask(bins, min(settings.frequency_mask_bins, bins), *place, _FREQUENCY, number)
            masked[begin:end, :frames] = MASKED
        return masked

    def _mask(self, length: int, max_width: int, *key: int) -> tuple[int, int]:
        """Draw the begin and end of a mask in [0, length): first the width, then the begin, each uniformly."""
        width = hash64(self._seed, *key, 0) % (max_width + 1)
        begin = hash64(self._seed, *key, 1) % (length - width + 1)
        return begin, begin + width
