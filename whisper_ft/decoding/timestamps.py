"""Timestamps that Whisper writes between phrases: the rules they are written by, and the segments they make.

The rules are OpenAI's (`ApplyTimestampRules` in whisper/decoding.py; Radford et al. 2022, arXiv 2212.04356, §4.5):
timestamps come in pairs, never go back, stand at the beginning, and are written wherever one is likelier than any text.
"""

from collections.abc import Sequence
from typing import Any

import torch

SECONDS_PER_TIMESTAMP = 0.02
NEVER = float("-inf")


class TimestampRules:
    """What a decoder may write next. `first` is the id of <|0.00|>, `last` that of the end of the window.

    `most_at_begin` is how many of SECONDS_PER_TIMESTAMP may be before the first phrase, None for any number.
    """

    def __init__(self, first: int, last: int, end: int, no_timestamps: int, most_at_begin: int | None) -> None:
        self.first, self.last = first, last
        self._end, self._no_timestamps = end, no_timestamps
        self._latest_begin = last if most_at_begin is None else min(first + most_at_begin, last)

    def __call__(self, written: Sequence[Sequence[int]], logits: torch.Tensor) -> torch.Tensor:  # [B, V] -> [B, V]
        """Logits without what may not come after the tokens that each row has `written` since its prompt."""
        logits, times = logits.clone(), slice(self.first, self.last + 1)
        logits[:, self._no_timestamps] = NEVER
        for row, tokens in zip(logits, written, strict=True):
            if not tokens:
                row[: self.first] = NEVER
                row[self._latest_begin + 1 :] = NEVER
                continue
            *_, before, last = [self.first, *tokens]  # the beginning counts as one
            opens = self.is_timestamp(last) and self.is_timestamp(before)
            closes = self.is_timestamp(last) and not opens
            if opens:
                row[times] = NEVER
            elif closes:  # another one opens the next phrase, or the text ends
                row[: self._end] = NEVER
                row[self.last + 1 :] = NEVER
            latest = max(filter(self.is_timestamp, tokens), default=self.first - 1)
            row[self.first : latest + (0 if closes else 1)] = NEVER  # no phrase is empty
        # Where a timestamp, whichever, is likelier than any one token of text, it is one.
        text = logits.clone()
        text[:, times] = NEVER
        is_time = logits[:, times].logsumexp(-1) > text.amax(-1)
        text[:] = NEVER
        text[:, times] = logits[:, times]
        return torch.where(is_time[:, None], text, logits)

    def is_timestamp(self, token: int) -> bool:
        """True for those of the window."""
        return self.first <= token <= self.last

    def text(self, tokens: Sequence[int]) -> list[int]:
        """Tokens without the timestamps."""
        return [token for token in tokens if not self.is_timestamp(token)]

    def phrases(self, tokens: Sequence[int]) -> list[tuple[float, float | None, list[int]]]:
        """(start, end, tokens) of each phrase, in seconds of the window; the end is None where it was not written."""
        found: list[tuple[float, float | None, list[int]]] = []
        start, phrase = 0.0, []
        for token in tokens:
            if not self.is_timestamp(token):
                phrase.append(token)
                continue
            time = round((token - self.first) * SECONDS_PER_TIMESTAMP, 2)
            if phrase:
                found.append((start, time, phrase))
            start, phrase = time, []
        return [*found, (start, None, phrase)] if phrase else found


class TimestampLogitsProcessor:
    """The rules as a logits processor of transformers, for prompts of `prompt_tokens`."""

    def __init__(self, rules: TimestampRules, prompt_tokens: int) -> None:
        self._rules, self._prompt_tokens = rules, prompt_tokens

    def __call__(self, input_ids: Any, scores: torch.Tensor) -> torch.Tensor:
        """[B, n] tokens and [B, V] scores."""
        return self._rules(input_ids[:, self._prompt_tokens :].tolist(), scores)
