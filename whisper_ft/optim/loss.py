"""Cross-entropy as a sum over label tokens, so that any slicing of a batch gives the same gradient.

The gradient of a step is that of the mean over all label tokens of the global batch. Means per micro-batch cannot give
this gradient. Utterances differ in length, so a mean of means depends on how the batch was sliced.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint
from transformers import WhisperForConditionalGeneration

_IGNORE = -100  # the default `ignore_index` of torch's cross_entropy
TOKENS_AT_ONCE = 2048
"""Most label tokens in a block of logits. A block takes 0.4 GB; all logits of a batch may take 10 GB."""


class StartOutput(NamedTuple):
    """Output of the start model for the label positions of a batch, from which its logits are computed in blocks."""

    states: torch.Tensor  # [N, D], last hidden states
    head: torch.Tensor  # [V, D], weights of its output layer


# B windows, M mel bins, T frames, L label positions, D width, V vocabulary
class TokenLoss(torch.nn.Module):
    """A Whisper model with its loss, in the form that training calls, wraps and compiles.

    The model itself is not changed. `label_smoothing` is as in `token_loss_sum`. With `text_end`, the loss of the text
    alone is computed, too: of the tokens whose ids are smaller, which are not special and no timestamps.

    Logits are computed for label positions only, in blocks of TOKENS_AT_ONCE. If there are several blocks, each block
    is recomputed in the backward pass, which is cheap next to the encoder.

    For audio of the anchor, `forward` gets the output of the start model, and the loss is the divergence from it.
    """

    def __init__(
        self, model: WhisperForConditionalGeneration, label_smoothing: float = 0.0, text_end: int | None = None
    ) -> None:
        super().__init__()
        self.model, self._label_smoothing, self._text_end = model, label_smoothing, text_end

    def forward(
        self,
        input_features: torch.Tensor,  # [B, M, T]
        decoder_input_ids: torch.Tensor,  # [B, L]
        labels: torch.Tensor,  # [B, L]
        predicted: torch.Tensor,  # [N], indices into labels.flatten() that have a target
        start: StartOutput | None = None,
    ) -> torch.Tensor:  # [], or [2] with `text_end`
        """Return the cross-entropy summed over the labels that `predicted` names, in float32.

        With `text_end`, a second value is the sum over the labels of text. It has no gradient. With `start`, the result
        is the sum of `divergence_sum` in place of the cross-entropy, without a second value.
        """
        hidden = self.model.model(
            input_features=input_features, decoder_input_ids=decoder_input_ids, use_cache=False
        ).last_hidden_state
        states = hidden.flatten(0, 1).index_select(0, predicted)
        if start is not None:
            return _in_blocks(partial(self._divergence, start.head), states, start.states)
        return _in_blocks(self._loss, states, labels.flatten().index_select(0, predicted))

    def _loss(self, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:  # [N, D], [N] -> [] or [2]
        logits = self.model.proj_out(hidden)
        loss = token_loss_sum(logits, labels, self._label_smoothing)
        if self._text_end is None:
            return loss
        text = labels.masked_fill(labels >= self._text_end, _IGNORE)
        return torch.stack([loss, token_loss_sum(logits.detach(), text, self._label_smoothing)])

    def _divergence(
        self, head: torch.Tensor, hidden: torch.Tensor, start: torch.Tensor
    ) -> torch.Tensor:  # [V, D], [N, D], [N, D] -> []
        return divergence_sum(self.model.proj_out(hidden), F.linear(start, head))


def _in_blocks(loss: Callable[..., torch.Tensor], first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return the loss of N label positions, computed in blocks of TOKENS_AT_ONCE and summed over the blocks.

    `first` and `second` have a row or a value for each position.
    """
    if len(first) <= TOKENS_AT_ONCE:
        return loss(first, second)
    begins = range(0, len(first), TOKENS_AT_ONCE)
    blocks = [(first[at : at + TOKENS_AT_ONCE], second[at : at + TOKENS_AT_ONCE]) for at in begins]
    # Reentrant checkpointing does not work with DDP. Nothing in the block is random, so no RNG state is kept.
    losses = [checkpoint(loss, *block, use_reentrant=False, preserve_rng_state=False) for block in blocks]
    sums = torch.stack(losses)
    return sums.sum() if sums.dim() == 1 else torch.stack([each.contiguous().sum() for each in sums.unbind(1)])


def token_loss_sum(
    logits: torch.Tensor, labels: torch.Tensor, label_smoothing: float = 0.0
) -> torch.Tensor:  # [..., V], [...] -> []
    """Return the cross-entropy summed over the labels that are not -100 (torch's default), in float32 for any logits.

    `label_smoothing` is the share of the target that is spread evenly over the vocabulary (Szegedy et al. 2015, arXiv
    1512.00567).
    """
    return F.cross_entropy(
        logits.float().flatten(0, -2),
        labels.flatten(),
        reduction="sum",
        label_smoothing=label_smoothing,
    )


def divergence_sum(logits: torch.Tensor, start_logits: torch.Tensor) -> torch.Tensor:  # [N, V], [N, V] -> []
    """Return KL(start || model) summed over N positions, in nats and float32. It is exactly 0 for equal logits."""
    own, start = (F.log_softmax(each.float(), dim=-1) for each in (logits, start_logits))
    return F.kl_div(own, start, reduction="sum", log_target=True)
