"""Timestamp tokens of a model: the ids that stand for times within a window."""

import re
from typing import Any

TIMESTAMP = re.compile(r"<\|\d+\.\d\d\|>")
"""Pattern of a timestamp token, such as `<|1.20|>`."""


def timestamp_ids(model: Any, tokenizer: Any) -> list[int]:
    """Return the ids of all timestamp tokens, in rising order.

    They are the ids that the tokenizer names as timestamps, and the ids after <|notimestamps|> that it does not name at
    all. Other tokens that users add to the vocabulary also follow <|notimestamps|>, so their ids are left out.
    """
    other = {number for token, number in tokenizer.get_vocab().items() if not TIMESTAMP.fullmatch(token)}
    candidates = range(model.generation_config.no_timestamps_token_id + 1, model.config.vocab_size)
    return [number for number in candidates if number not in other]


def window_times(model: Any, tokenizer: Any) -> range:
    """Return the ids of the timestamps within a window, from <|0.00|> on; empty if the model has no timestamps."""
    first, known = model.generation_config.no_timestamps_token_id + 1, set(timestamp_ids(model, tokenizer))
    end = first
    while end in known and end - first <= model.config.max_source_positions:
        end += 1
    return range(first, end) if end > first + 1 else range(first, first)
