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


def test_smoothed_labels_spread_a_share_of_the_target_over_the_vocabulary():
    logits, labels = torch.randn(2, 3, 7), torch.tensor([[1, 2, IGNORE], [6, IGNORE, 0]])
    log_p = logits.log_softmax(-1)
    counted = labels != IGNORE
    plain = -log_p.gather(-1, labels.clamp(min=0)[..., None])[..., 0][counted].sum()
    even = -log_p.mean(-1)[counted].sum()
    torch.testing.assert_close(token_loss_sum(logits, labels, 0.1), 0.9 * plain + 0.1 * even)
