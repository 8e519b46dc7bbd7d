"""Sampling of tokens, by random numbers that depend on the row alone and not on its batch."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch


class Sampler:
    """Choice of tokens for `GreedyDecoder`: each is drawn by its probability at a temperature.

    Parameters
        temperature: factor by which logits are divided; 1 is the model's own distribution, less is less random.
        numbers: for each row, random numbers from 0 to below 1, one for each position.
    """

    def __init__(self, temperature: float, numbers: Sequence[npt.NDArray[np.float64]]) -> None:
        self._temperature, self._numbers = temperature, np.stack(numbers)

    def __call__(self, logits: torch.Tensor, rows: Sequence[int], position: int) -> torch.Tensor:
        """Return a token of each row: the first at which the sum of probabilities passes the row's number."""
        device = "cpu" if logits.device.type == "mps" else logits.device  # MPS has no float64
        sums = (logits.to(device).double() / self._temperature).softmax(-1).cumsum(-1)  # [B, V]
        numbers = torch.from_numpy(self._numbers[[*rows], position]).to(device)
        return torch.searchsorted(sums, (numbers * sums[:, -1])[:, None], right=True)[:, 0].to(logits.device)
