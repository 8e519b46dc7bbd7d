"""Check of timestamps: if a model without guidance writes the times of its phrases as valid pairs.

Decoding with timestamps follows rules that allow only valid pairs (`decoding/timestamps.py`), so its output says little
about the model. Here the model decodes without them. It is still asked for timestamps: <|notimestamps|> is refused, and
a timestamp is written where all timestamps together are likelier than any text. OpenAI's tiny.en and base then write
valid pairs in every window. A model that was fine-tuned without timestamps writes text at once.
"""

from collections.abc import Sequence
from typing import Any, Self

import torch

from whisper_ft.data.labels.timestamp_tokens import timestamp_ids, window_times
from whisper_ft.decoding.greedy import GreedyDecoder
from whisper_ft.decoding.timestamps import REFUSED, likelier_kind


class TimestampCheck:
    """Decodes windows with timestamps but without rules, and checks what was written.

    Parameters
        model: the model, in evaluation mode.
        tokenizer: its tokenizer.
        times: ids of the timestamps of the model's window.
    """

    def __init__(self, model: Any, tokenizer: Any, times: range) -> None:
        generation = model.generation_config
        self._times, self._end, self._no_timestamps = times, tokenizer.eos_token_id, generation.no_timestamps_token_id
        self._greedy = GreedyDecoder(model, generation.suppress_tokens or (), ())  # it may also end at once
        self._no_text = {*tokenizer.all_special_ids, self._no_timestamps, *timestamp_ids(model, tokenizer)}

    @classmethod
    def of(cls, model: Any, tokenizer: Any) -> Self | None:
        """Make the check for a model; None if it has no timestamps."""
        times = window_times(model, tokenizer)
        return cls(model, tokenizer, times) if times else None

    def __call__(self, states: torch.Tensor, prompt: Sequence[int], max_tokens: int) -> list[bool | None]:
        """Return for each window with encoder output [B, S, D] if its timestamps are valid, as `are_valid` does.

        `prompt` may end with <|notimestamps|>, which is left out.
        """
        asked = [token for token in prompt if token != self._no_timestamps]
        rows = self._greedy(states, asked, max_tokens, self._end, self._unguided)
        return [self.are_valid(row.tokens, is_cut=len(row.tokens) >= max_tokens) for row in rows]

    def _unguided(self, _: Sequence[Sequence[int]], logits: torch.Tensor) -> torch.Tensor:
        logits = logits.clone()
        logits[:, self._no_timestamps] = REFUSED
        return likelier_kind(logits, slice(self._times.start, self._times.stop))

    def are_valid(self, tokens: Sequence[int], *, is_cut: bool = False) -> bool | None:
        """Return True if all text lies between a begin and an end that never go back; None without any token.

        Times lie within the model's window. After the last phrase, a begin alone is valid: its speech goes on after the
        window. If the tokens are cut by a limit, the last phrase needs no end.
        """
        latest, is_open, has_text = self._times.start, False, False
        for token in tokens:
            if token in self._times:
                if token < latest or (is_open and not has_text):
                    return False
                latest, is_open, has_text = token, not is_open, False
            elif token in self._no_text or not is_open:
                return False
            else:
                has_text = True
        return (is_cut or not has_text) if tokens else None
