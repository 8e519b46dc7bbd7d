"""Timestamp tokens of Whisper: rules for writing them, and the phrases of text between them.

The rules are OpenAI's (`ApplyTimestampRules` in whisper/decoding.py; Radford et al. 2022, arXiv 2212.04356, §4.5).
Timestamps come in pairs, never go back, and the first token is one. A timestamp is written wherever all timestamps
together are likelier than any single token of text.
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from transformers import PreTrainedTokenizerBase, WhisperForConditionalGeneration

from whisper_ft.data.labels.timestamp_tokens import window_times
from whisper_ft.data.labels.window_label import TIMES_PER_SECOND
from whisper_ft.runtime.errors import UsageError

REFUSED = float("-inf")


class Phrase(NamedTuple):
    """Tokens between two timestamps, with times in seconds from the start of the window."""

    start: float
    end: float | None  # None if the closing timestamp is missing
    tokens: list[int]


class TimestampRules:
    """Rules that decide which tokens a decoder may choose next when it writes timestamps.

    Parameters
        first: id of <|0.00|>.
        last: id of the timestamp at the end of the window.
        end: id of the end token.
        no_timestamps: id of <|notimestamps|>.
        max_at_begin: most timestamps before the first phrase; None for no limit.
    """

    def __init__(self, first: int, last: int, end: int, no_timestamps: int, max_at_begin: int | None) -> None:
        self.first, self.last = first, last
        self._end, self._no_timestamps = end, no_timestamps
        self._last_at_begin = last if max_at_begin is None else min(first + max_at_begin, last)

    @classmethod
    def of(cls, model: WhisperForConditionalGeneration, tokenizer: PreTrainedTokenizerBase) -> Self:
        """Make the rules for a model and its tokenizer. Raises UsageError if the model has no timestamps."""
        times = window_times(model, tokenizer)
        if not times:
            raise UsageError("--decoding.timestamps: this model has no timestamp tokens; set it to false")
        max_at_begin = getattr(model.generation_config, "max_initial_timestamp_index", None)
        no_timestamps = model.generation_config.no_timestamps_token_id
        return cls(times[0], times[-1], tokenizer.eos_token_id, no_timestamps, max_at_begin)

    def __call__(self, output: Sequence[Sequence[int]], logits: torch.Tensor) -> torch.Tensor:
        """Return a copy of logits [B, V] with -inf for refused tokens.

        `output` holds the tokens of each row after its prompt.
        """
        logits, times = logits.clone(), slice(self.first, self.last + 1)
        logits[:, self._no_timestamps] = REFUSED
        for row, tokens in zip(logits, output, strict=True):
            if not tokens:
                row[: self.first] = REFUSED
                row[self._last_at_begin + 1 :] = REFUSED
                continue
            *_, before, last = [self.first, *tokens]  # the beginning counts as a timestamp
            opens = self.is_timestamp(last) and self.is_timestamp(before)
            closes = self.is_timestamp(last) and not opens
            if opens:
                row[times] = REFUSED
            elif closes:  # another timestamp opens the next phrase, or the text ends
                row[: self._end] = REFUSED
                row[self.last + 1 :] = REFUSED
            latest = max(filter(self.is_timestamp, tokens), default=self.first - 1)
            row[self.first : latest + (0 if closes else 1)] = REFUSED  # so that a phrase is longer than zero
        return likelier_kind(logits, times)

    def is_timestamp(self, token: int) -> bool:
        """Return True if a token is a timestamp within the window."""
        return self.first <= token <= self.last

    def text(self, tokens: Sequence[int]) -> list[int]:
        """Return the tokens without timestamps."""
        return [token for token in tokens if not self.is_timestamp(token)]

    def phrases(self, tokens: Sequence[int]) -> list[Phrase]:
        """Return the phrases between the timestamps, in their order and without empty ones."""
        phrases: list[Phrase] = []
        start, phrase = 0.0, []
        for token in tokens:
            if not self.is_timestamp(token):
                phrase.append(token)
                continue
            time = round((token - self.first) / TIMES_PER_SECOND, 2)
            if phrase:
                phrases.append(Phrase(start, time, phrase))
            start, phrase = time, []
        return [*phrases, Phrase(start, None, phrase)] if phrase else phrases


def likelier_kind(logits: torch.Tensor, times: slice) -> torch.Tensor:
    """Return logits [B, V] with -inf for all but timestamps, in rows where these together are likelier than any text.

    Parameters
        times: ids of the timestamps. In other rows the logits stay as they are.
    """
    text = logits.clone()
    text[:, times] = REFUSED
    is_time = logits[:, times].logsumexp(-1) > text.amax(-1)
    text[:] = REFUSED
    text[:, times] = logits[:, times]
    return torch.where(is_time[:, None], text, logits)


class TimestampLogitsProcessor:
    """The timestamp rules in the form that transformers calls, for prompts of `prompt_tokens` tokens."""

    def __init__(self, rules: TimestampRules, prompt_tokens: int) -> None:
        self._rules, self._prompt_tokens = rules, prompt_tokens

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return scores [B, V] with -inf for refused tokens, given the tokens [B, n] so far."""
        return self._rules(input_ids[:, self._prompt_tokens :].tolist(), scores)
