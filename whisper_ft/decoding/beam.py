"""Beam search, by transformers' implementation."""

import copy
from collections.abc import Sequence

import torch
from transformers import GenerationMixin, LogitsProcessorList, WhisperForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from whisper_ft.decoding.timestamps import TimestampLogitsProcessor, TimestampRules


class BeamSearch:
    """Search for likely transcripts with several beams.

    Parameters
        model: the model, in evaluation mode.
        beams: number of beams.
        suppressed: token ids that are never chosen.
        end: id of the end token.
        rules: rules of timestamps; None without timestamps.
    """

    def __init__(
        self,
        model: WhisperForConditionalGeneration,
        beams: int,
        suppressed: Sequence[int],
        end: int,
        rules: TimestampRules | None,
    ) -> None:
        self._model, self._end, self._rules = model, end, rules
        self._generation_config = copy.deepcopy(model.generation_config)
        self._generation_config.num_beams = beams
        self._generation_config.suppress_tokens = [*suppressed]

    def __call__(self, states: torch.Tensor, prompt: list[int], limit: int) -> list[list[int]]:
        """Return the tokens of each row of encoder output [B, S, D], without the end token: at most `limit`.

        `GenerationMixin.generate` is called instead of Whisper's own `generate`, which is made for hours of audio.
        Whisper's own takes any token after <|notimestamps|>, even one that a user added, for the end of a segment. It
        then drops the rest and decodes the window again. `GenerationMixin` begins with exactly the prompt of training.
        """
        # max_length counts the prompt. With max_new_tokens, transformers warns about the max_length of the config.
        self._generation_config.max_length = len(prompt) + limit
        generated = GenerationMixin.generate(
            self._model,
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            # All positions count, including padding, as in training; transformers warns if there is no mask.
            attention_mask=torch.ones(states.shape[:2], device=states.device),
            decoder_input_ids=torch.tensor([prompt], device=states.device).expand(len(states), -1),
            generation_config=self._generation_config,
            logits_processor=LogitsProcessorList(
                [TimestampLogitsProcessor(self._rules, len(prompt))] if self._rules else []
            ),
        )
        rows = generated[:, len(prompt) :].tolist()  # padded with the end token
        return [tokens[: tokens.index(self._end)] if self._end in tokens else tokens for tokens in rows]
