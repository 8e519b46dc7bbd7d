"""Windows to padded tensors: the batch that Whisper is trained on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch

IGNORE = -100  # label of a position that is not predicted, as torch's cross_entropy has it


class Window(Protocol):
    """Features and tokens of one input of the model."""

    @property
    def features(self) -> torch.Tensor:
        """Log-mel, [M, t]; of t < T frames the last one stands for all that follow, which are silence."""

    @property
    def tokens(self) -> Sequence[int]:
        """Start token, language, task, ..., text, end token."""

    @property
    def utterances(self) -> tuple[str, ...]:
        """Ids of what is said in it."""


# B windows, M mel bins, T frames of 10 ms, L label tokens of the longest window
@dataclass(frozen=True)
class Batch:
    """What one forward pass takes."""

    input_features: torch.Tensor  # [B, M, T] float32
    decoder_input_ids: torch.Tensor  # [B, L] int64
    labels: torch.Tensor  # [B, L] int64, IGNORE where nothing is predicted
    predicted: torch.Tensor  # [N] int64, where labels.flatten() is not: known here, a GPU would have to be asked
    utterances: tuple[str, ...]

    def to(self, device: torch.device) -> "Batch":
        """The same batch on a device."""
        return replace(
            self,
            input_features=self.input_features.to(device, non_blocking=True),
            decoder_input_ids=self.decoder_input_ids.to(device, non_blocking=True),
            labels=self.labels.to(device, non_blocking=True),
            predicted=self.predicted.to(device, non_blocking=True),
        )


class SpeechCollator:
    """Stacks features and pads tokens; the decoder reads `tokens[:-1]` and predicts `tokens[1:]`.

    `start_token` is the model's `decoder_start_token_id` (`<|startoftranscript|>`). It is not the tokenizer's
    `bos_token_id`: in Whisper that is `<|endoftext|>`. With `pin_memory` the features lie where a GPU can fetch them
    by itself, while it computes.
    """

    def __init__(
        self, start_token: int, pad_token: int, feature_shape: tuple[int, int], pin_memory: bool = False
    ) -> None:
        self._start, self._pad, self._feature_shape = start_token, pad_token, feature_shape
        self._pin_memory = pin_memory

    def __call__(self, windows: Sequence[Window]) -> Batch:
        """The batch of some windows; of none, a batch of one silent window without labels.

        A rank whose slots are all empty still has to take part in the backward pass, where the ranks meet; a window
        without labels adds exactly zero to loss and gradient. ValueError for tokens that repeat the start token.
        """
        if not windows:
            return self._empty()
        sequences = [self._with_one_start_token(window) for window in windows]
        length = max(len(tokens) for tokens in sequences) - 1
        decoder_input_ids = torch.full((len(windows), length), self._pad)
        labels = torch.full((len(windows), length), IGNORE)
        for i, tokens in enumerate(sequences):
            # Why is the first label cut? At each position the decoder has read the tokens up to it and predicts the
            # next one. It starts from <|startoftranscript|>, so that token is read and never predicted: it is first
            # among the inputs and absent from the labels. (transformers, given labels only, puts a start token in
            # front of them by itself; a label sequence that still has its own then starts with two, which the
            # pretrained model has never seen.)
            decoder_input_ids[i, : len(tokens) - 1] = torch.tensor(tokens[:-1])
            # Masked by length and not by comparing with the pad token: Whisper pads with <|endoftext|>, and the one
            # real <|endoftext|> has to be learned, or the model never stops.
            labels[i, : len(tokens) - 1] = torch.tensor(tokens[1:])
        features = torch.empty(len(windows), *self._feature_shape, pin_memory=self._pin_memory)
        for row, window in zip(features, windows, strict=True):
            frames = window.features.shape[1]
            row[:, :frames] = window.features
            row[:, frames:] = window.features[:, -1:]
        predicted = (labels.flatten() != IGNORE).nonzero()[:, 0]
        utterances = tuple(u for window in windows for u in window.utterances)
        return Batch(features, decoder_input_ids, labels, predicted, utterances)

    def _with_one_start_token(self, window: Window) -> list[int]:
        tokens = list(window.tokens)
        if not tokens or tokens[0] != self._start:
            tokens = [self._start, *tokens]
        if self._start in tokens[1:] or len(tokens) < 2:
            raise ValueError(
                f"{', '.join(window.utterances)}: tokens need one start token and a label, got {tokens[:8]}"
            )
        return tokens

    def _empty(self) -> Batch:
        silence, labels = torch.zeros(1, *self._feature_shape), torch.full((1, 1), IGNORE)
        return Batch(silence, torch.full((1, 1), self._start), labels, torch.empty(0, dtype=torch.int64), ())
