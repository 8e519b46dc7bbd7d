"""Cross-entropy as a sum over label tokens, so that a batch can be sliced in any way and divided once.

The gradient of a step is that of the mean over all label tokens of the global batch. A mean per micro-batch cannot
give it: utterances differ in length, so a mean of means depends on how the batch was sliced.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

IGNORE = -100  # label of a position that is not predicted; the value torch and transformers agree on
TOKENS_AT_ONCE = 2048  # whose logits are there at a time: with Whisper's vocabulary 0.4 GB, where a batch may need ten


# B windows, M mel bins, T frames, L label positions, D width, V vocabulary
class TokenLoss(torch.nn.Module):
    """A Whisper with its loss: what is called, wrapped and compiled in training. The model itself stays as it is.

    Vocabulary-wide logits are computed of the positions that are predicted, not of padding, and never of more than
    TOKENS_AT_ONCE: of more they are computed again in the backward pass, which is little beside the encoder.
    """

    def __init__(self, model: Any, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.model, self._label_smoothing = model, label_smoothing

    def forward(
        self,
        input_features: torch.Tensor,  # [B, M, T]
        decoder_input_ids: torch.Tensor,  # [B, L]
        labels: torch.Tensor,  # [B, L]
        predicted: torch.Tensor,  # [N], where labels.flatten() is not IGNORE
    ) -> torch.Tensor:  # []
        """Cross-entropy summed over the labels that are predicted."""
        hidden = self.model.model(
            input_features=input_features, decoder_input_ids=decoder_input_ids, use_cache=False
        ).last_hidden_state
        rows, wanted = hidden.flatten(0, 1).index_select(0, predicted), labels.flatten().index_select(0, predicted)
        if len(wanted) <= TOKENS_AT_ONCE:
            return self._of(rows, wanted)
        begins = range(0, len(wanted), TOKENS_AT_ONCE)
        parts = [(rows[at : at + TOKENS_AT_ONCE], wanted[at : at + TOKENS_AT_ONCE]) for at in begins]
        # Not the reentrant kind, which does not go with DDP. Nothing in it is random.
        losses = [checkpoint(self._of, *part, use_reentrant=False, preserve_rng_state=False) for part in parts]
        return torch.stack(losses).sum()

    def _of(self, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:  # [N, D], [N] -> []
        return token_loss_sum(self.model.proj_out(hidden), labels, self._label_smoothing)


def token_loss_sum(
    logits: torch.Tensor, labels: torch.Tensor, label_smoothing: float = 0.0
) -> torch.Tensor:  # [..., V], [...] -> []
    """Cross-entropy summed over the labels that are not IGNORE, in float32 whatever the logits are in.

    `label_smoothing` is the share of the target that is spread evenly over the vocabulary (Szegedy et al. 2015,
    arXiv 1512.00567).
    """
    return F.cross_entropy(
        logits.float().flatten(0, -2),
        labels.flatten(),
        ignore_index=IGNORE,
        reduction="sum",
        label_smoothing=label_smoothing,
    )


def count_labels(labels: torch.Tensor) -> int:  # [B, L]
    """Number of labels that are predicted."""
    return int((labels != IGNORE).sum())
