"""What the model is given: a window of log-mel frames and the tokens of what is said in it.

An utterance is a row of the data; a window is the model's input. Today a window holds one utterance.
"""

from dataclasses import dataclass

import torch

NO_FEATURES = torch.empty(0, 0)
"""In place of features that are kept elsewhere, or no longer needed."""


@dataclass(frozen=True)
class Window:
    """One input of the encoder with the target of the decoder."""

    features: torch.Tensor
    """[M, t] log-mel of M bins and t frames of 10 ms. Of fewer than the model hears the last stands for all after it:
    the padding, whose frames are alike."""
    tokens: list[int]  # start token, language, task, ..., text, end token
    utterances: tuple[str, ...]  # ids of the rows it was made from
    audio_samples: int = 0  # of their audio at the model's rate, the padding not counted


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
