"""The loss is a sum over label tokens, so slices add up to the whole."""

import pytest
import torch

from whisper_ft.loss import IGNORE, count_labels, token_loss_sum


def example() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 10, 30, generator=generator, dtype=torch.float64).float()
    labels = torch.randint(0, 30, (6, 10), generator=generator)
    for row in range(6):
        labels[row, row + 2 :] = IGNORE
    return logits, labels


def test_slices_add_up_to_the_whole():
    logits, labels = example()
    whole = token_loss_sum(logits, labels)
    for cut in (1, 2, 5):
        parts = token_loss_sum(logits[:cut], labels[:cut]) + token_loss_sum(logits[cut:], labels[cut:])
        assert parts.item() == pytest.approx(whole.item(), rel=1e-6)


def test_the_sum_over_the_count_is_the_mean_that_torch_computes():
    logits, labels = example()
    mean = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE)
    assert (token_loss_sum(logits, labels) / count_labels(labels)).item() == pytest.approx(mean.item(), rel=1e-6)


def test_a_batch_without_labels_has_loss_and_gradient_zero():
    logits = torch.randn(1, 1, 30, requires_grad=True)
    loss = token_loss_sum(logits, torch.full((1, 1), IGNORE))
    loss.backward()
    assert loss.item() == 0.0
    assert not logits.grad.any()


def test_logits_in_bfloat16_are_summed_in_float32():
    logits, labels = example()
    assert token_loss_sum(logits.bfloat16(), labels).dtype == torch.float32
