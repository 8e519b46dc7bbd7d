"""SpecAugment: masks that depend on seed, epoch and utterance alone, and that stay in the utterance."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from whisper_ft.config.augment import AugmentConfig
from whisper_ft.data.augment.spec_augment import MASKED, SpecAugment
from whisper_ft.data.sampling.order import Place

BINS, FRAMES = 80, 500
SETTINGS = AugmentConfig(
    time_masks=2, time_mask_seconds=0.5, time_mask_share=0.3, frequency_masks=2, frequency_mask_bins=9
)


def masked(
    epoch: int,
    chunk: int = 0,
    row: int = 0,
    *,
    seconds: float = 3.0,
    settings: AugmentConfig = SETTINGS,
    seed: int = 1,
) -> torch.Tensor:
    """The masked places of a log-mel of ones."""
    features = torch.ones(BINS, FRAMES)
    augmented = SpecAugment(settings, seed, 100)(features, seconds, Place(epoch, chunk, row))
    assert (features == 1).all(), "never in place"
    return augmented == MASKED


def test_masks_depend_on_the_key_and_the_seed_and_on_nothing_else():
    first = masked(0, 5, 7)
    np.random.seed(0)
    torch.manual_seed(0)
    assert torch.equal(masked(0, 5, 7), first)
    for other in (masked(1, 5, 7), masked(0, 6, 7), masked(0, 5, 8), masked(0, 5, 7, seed=2)):
        assert not torch.equal(other, first)


@given(key=st.integers(0, 10**6), seconds=st.floats(0, 5))
def test_masks_are_no_wider_than_asked_and_never_in_the_padding(key: int, seconds: float):
    mask, frames = masked(key, seconds=seconds), min(round(seconds * 100), FRAMES)
    assert not mask[:, frames:].any()
    assert not frames or mask[:, :frames].all(1).sum() <= 2 * 9, "rows: frequency masks"
    assert mask.all(0).sum() <= 2 * min(50, int(0.3 * frames)), "columns: time masks"


def test_over_many_utterances_every_width_and_place_comes():
    widths, begins = set(), set()
    for key in range(600):
        columns = masked(key, settings=AugmentConfig(time_masks=1, time_mask_seconds=0.1)).all(0).nonzero().flatten()
        widths.add(len(columns))
        begins.update(columns[:1].tolist())
    assert widths == set(range(11))
    assert min(begins) < 10
    assert max(begins) >= 285


@pytest.mark.parametrize("settings", [AugmentConfig(), AugmentConfig(time_masks=3, time_mask_seconds=0)])
def test_nothing_asked_is_nothing_masked(settings: AugmentConfig):
    assert not masked(3, settings=settings).any()
