"""Cross-entropy as a sum over label tokens, so that a batch can be sliced in any way and divided once.

The gradient of a step is that of the mean over all label tokens of the global batch. A mean per micro-batch cannot
give it: utterances differ in length, so a mean of means depends on how the batch was sliced.
"""

import torch
import torch.nn.functional as F

IGNORE = -100  # label of a position that is not predicted; the value torch and transformers agree on


# B windows, L label positions, V vocabulary
def token_loss_sum(
    logits: torch.Tensor, labels: torch.Tensor, label_smoothing: float = 0.0
) -> torch.Tensor:  # [B, L, V], [B, L] -> []
    """Cross-entropy summed over the labels that are not IGNORE, in float32 whatever the logits are in.

    `label_smoothing` is the share of the target that is spread evenly over the vocabulary (Szegedy et al. 2015,
    arXiv 1512.00567).
    """
    return F.cross_entropy(
        logits.float().flatten(0, 1),
        labels.flatten(),
        ignore_index=IGNORE,
        reduction="sum",
        label_smoothing=label_smoothing,
    )


def count_labels(labels: torch.Tensor) -> int:  # [B, L]
    """Number of labels that are predicted."""
    return int((labels != IGNORE).sum())
