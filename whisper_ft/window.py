"""What the model is given: a window of log-mel frames and the tokens of what is said in it.

An utterance is a row of the data; a window is the model's input. Today a window holds one utterance.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

NO_FEATURES = torch.empty(0, 0)
"""In place of features that are kept elsewhere, or no longer needed."""


@dataclass(frozen=True)
class Window:
    """One input of the encoder with the target of the decoder."""

    features: torch.Tensor
    """[M, t] log-mel of M bins and t frames of 10 ms. Of fewer than the T that the model hears, the last one stands for
    all that follow: the frames of padding are alike, and of a short clip they are nearly all there are."""
    tokens: list[int]  # start token, language, task, ..., text, end token
    utterances: tuple[str, ...]  # ids of the rows it was made from
    audio_samples: int = 0  # of their audio at the model's rate, the padding not counted


def whole(features: Sequence[torch.Tensor], frames: int) -> torch.Tensor:  # each [M, t] -> [B, M, T]
    """The input of the encoder for some windows, with their padding."""
    filled = torch.empty(len(features), len(features[0]), frames)
    for row, heard in zip(filled, features, strict=True):
        row[:, : heard.shape[1]] = heard
        row[:, heard.shape[1] :] = heard[:, -1:]
    return filled


@dataclass(frozen=True)
class Unusable:
    """A row that leaves its slot empty, and why."""

    id: str
    reason: str  # a code: decode_error, too_long, ...
    detail: str  # for people


class UnusableError(Exception):
    """Raised below the stream when a row cannot become a window; becomes an Unusable there."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail
