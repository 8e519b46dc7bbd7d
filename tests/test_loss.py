"""The loss is a sum over label tokens, so slices add up to the whole."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from whisper_ft.data.types import IGNORE
from whisper_ft.optim import loss
from whisper_ft.optim.loss import TokenLoss, token_loss_sum


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
    assert (token_loss_sum(logits, labels) / (labels != IGNORE).sum()).item() == pytest.approx(mean.item(), rel=1e-6)


def test_a_batch_without_labels_has_loss_and_gradient_zero():
    logits = torch.randn(1, 1, 30, requires_grad=True)
    value = token_loss_sum(logits, torch.full((1, 1), IGNORE))
    value.backward()
    assert value.item() == 0.0
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


class Projected(torch.nn.Module):
    """The part of a Whisper that TokenLoss sees: states for tokens, and a projection of them."""

    def __init__(self, width: int, vocabulary: int) -> None:
        super().__init__()
        self.states, self.proj_out = torch.nn.Embedding(50, width), torch.nn.Linear(width, vocabulary, bias=False)

    def model(self, input_features: torch.Tensor, decoder_input_ids: torch.Tensor, use_cache: bool) -> Any:
        return SimpleNamespace(last_hidden_state=self.states(decoder_input_ids))


class Largest(TorchDispatchMode):
    """Remembers the most elements that any tensor had which an operation made."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return made


@pytest.mark.parametrize("at_once", [7, 64, 10_000])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_the_loss_of_a_model_in_parts_is_that_of_all_its_logits(
    monkeypatch: pytest.MonkeyPatch, at_once: int, label_smoothing: float
):
    monkeypatch.setattr(loss, "TOKENS_AT_ONCE", at_once)
    torch.manual_seed(1)
    model, tokens = Projected(8, 40), torch.randint(50, (6, 30))
    labels = torch.randint(40, (6, 30)).masked_fill(torch.rand(6, 30) < 0.4, IGNORE)
    plain = token_loss_sum(model.proj_out(model.states(tokens)), labels, label_smoothing)
    plain.backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    predicted = (labels.flatten() != IGNORE).nonzero()[:, 0]
    with Largest() as largest:
        ours = TokenLoss(model, label_smoothing)(torch.empty(0), tokens, labels, predicted)
        ours.backward()
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=0)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-5, atol=1e-6)
    weights = max(parameter.numel() for parameter in model.parameters())
    assert largest.elements <= max(min(at_once, len(predicted)) * 40, weights, 6 * 30 * 8)


@pytest.mark.parametrize("at_once", [7, 10_000])
def test_the_loss_of_text_stands_beside_that_of_all_and_changes_no_bit_of_it(
    monkeypatch: pytest.MonkeyPatch, at_once: int
):
    monkeypatch.setattr(loss, "TOKENS_AT_ONCE", at_once)
    torch.manual_seed(1)
    model, tokens, end = Projected(8, 40), torch.randint(50, (6, 30)), 25
    labels = torch.randint(40, (6, 30)).masked_fill(torch.rand(6, 30) < 0.4, IGNORE)
    predicted = (labels.flatten() != IGNORE).nonzero()[:, 0]
    losses, gradients = [], []
    for text_end in (None, end):
        losses.append(TokenLoss(model, 0.1, text_end)(torch.empty(0), tokens, labels, predicted).reshape(-1))
        losses[-1][0].backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
        model.zero_grad()
    [alone], [beside, of_text] = losses
    assert torch.equal(alone, beside)
    assert all(map(torch.equal, *gradients))
    text = labels.masked_fill(labels >= end, IGNORE)
    expected = token_loss_sum(model.proj_out(model.states(tokens)), text, 0.1)
    torch.testing.assert_close(of_text, expected, rtol=1e-5, atol=0)
    assert 0 < of_text < beside


def test_a_window_without_labels_adds_nothing_to_any_gradient_of_a_model():
    model = Projected(8, 40)
    nothing = torch.empty(0, dtype=torch.int64)
    value = TokenLoss(model)(torch.empty(0), torch.ones(1, 1, dtype=torch.int64), torch.full((1, 1), IGNORE), nothing)
    value.backward()
    assert value == 0
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in model.parameters())
