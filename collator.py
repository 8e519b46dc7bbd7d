"""Collator: joins audio windows into the padded tensors of a batch, on which Whisper is trained."""

from collections.abc import Sequence

import torch

from whisper_ft.data.audio.log_mel import pad_windows
from whisper_ft.data.types import IGNORE, Batch, Window


class SpeechCollator:
    """Function that makes a batch from windows: it stacks their features and pads their tokens to one length.

    The decoder reads `tokens[:-1]` of a window and learns to predict `tokens[first_target:]`.

    Parameters
        start_token: the model's `decoder_start_token_id` (`<|startoftranscript|>`). The tokenizer's `bos_token_id` is
            another token: in Whisper it is `<|endoftext|>`.
        pad_token: token that fills decoder inputs up to the longest sequence.
        feature_shape: (M, T), mel bins and frames of the encoder's input.
        pin_memory: put features into page-locked memory, from which a GPU copies while it computes.
    """

    def __init__(
        self, start_token: int, pad_token: int, feature_shape: tuple[int, int], pin_memory: bool = False
    ) -> None:
        self._start, self._pad, self._feature_shape = start_token, pad_token, feature_shape
        self._pin_memory = pin_memory

    def __call__(self, windows: Sequence[Window]) -> Batch:
        """Return the batch of the windows. Without windows, it is a batch of one silent window without targets.

        A rank without windows still takes part in the backward pass, because the ranks synchronise there. A window
        without targets adds exactly zero to loss and gradient.

        A window with `first_target` 1 gets the start token if its tokens do not begin with that token. Otherwise the
        start token must stand exactly once in a window, right before the first target. ValueError is raised if it does
        not, or if a window has no target.
        """
        if not windows:
            return self._empty()
        sequences = [self._with_one_start_token(window) for window in windows]
        length = max(len(tokens) for tokens in sequences) - 1
        decoder_input_ids = torch.full((len(windows), length), self._pad)
        labels = torch.full((len(windows), length), IGNORE)
        for i, (window, tokens) in enumerate(zip(windows, sequences, strict=True)):
            # Why is the first label cut? At each position the decoder has read the tokens up to it and predicts the
            # next one. Decoding starts from <|startoftranscript|>, so that token is read and never predicted: it is
            # the first input and no label. If transformers gets labels only, it puts a start token in front of them.
            # Labels that still have their own start token then begin with two, which pretraining has never shown.
            decoder_input_ids[i, : len(tokens) - 1] = torch.tensor(tokens[:-1])
            # Label position j predicts token j + 1. The mask follows lengths and positions, never the pad token:
            # Whisper pads with <|endoftext|>, and the model must learn the one real <|endoftext|>, or it never stops.
            first = window.first_target - 1
            labels[i, first : len(tokens) - 1] = torch.tensor(tokens[first + 1 :])
        features = pad_windows([window.features for window in windows], self._feature_shape[1], self._pin_memory)
        predicted = (labels.flatten() != IGNORE).nonzero()[:, 0]
        utterances = tuple(u for window in windows for u in window.utterances)
        return Batch(features, decoder_input_ids, labels, predicted, utterances)

    def _with_one_start_token(self, window: Window) -> list[int]:
        """Return the tokens of a window. If `first_target` is 1, a missing start token is put in front of them.

        Raises ValueError as described in `__call__`.
        """
        tokens = list(window.tokens)
        if window.first_target == 1 and tokens[:1] != [self._start]:
            tokens = [self._start, *tokens]
        starts = [index for index, token in enumerate(tokens) if token == self._start]
        if starts != [window.first_target - 1] or len(tokens) <= window.first_target:
            raise ValueError(
                f"{', '.join(window.utterances)}: tokens need one start token, right before the first target, and at "
                f"least one target; got {tokens[:8]} with first_target {window.first_target}"
            )
        return tokens

    def _empty(self) -> Batch:
        silence, labels = torch.zeros(1, *self._feature_shape), torch.full((1, 1), IGNORE)
        return Batch(silence, torch.full((1, 1), self._start), labels, torch.empty(0, dtype=torch.int64), ())
