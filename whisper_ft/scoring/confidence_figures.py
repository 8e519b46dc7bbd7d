"""Confidence figures of utterances: those of their windows, joined, and the check of a stored record."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

FIGURES = ("avg_logprob", "no_speech_prob", "compression_ratio", "temperature")
"""Figures of a window, which `decoding/confidence.py` explains. The first three are None if they are not known."""


def utterance_confidence(windows: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Join the figures of the windows of an utterance; each is None if no window has it.

    The log-probability is the mean over all tokens. The other figures are those of the window of least confidence, but
    the probability of no speech is the lowest, because one window with speech is enough.
    """
    tokens = [(window["avg_logprob"], window["tokens"] + 1) for window in windows if window["avg_logprob"] is not None]
    joined: dict[str, float | None] = {}
    for name in FIGURES:
        values = [window[name] for window in windows if window[name] is not None]
        joined[name] = (min if name == "no_speech_prob" else max)(values, default=None)
    if tokens:
        weight = sum(count for _, count in tokens)
        joined["avg_logprob"] = round(math.fsum(mean * count for mean, count in tokens) / weight, 4)
    return joined


def checked_windows(value: Any) -> list[dict[str, Any]] | None:
    """Return the stored records of the windows of an utterance; None if there are none.

    Raises ValueError for anything else.
    """
    if value is None:
        return None
    if not isinstance(value, list) or not all(map(_is_window, value)):
        raise ValueError(f"'window_confidence' must be a list of windows with their figures, and is {str(value)[:100]}")
    return value


def _is_window(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    figures = [value.get(name) for name in FIGURES]
    are_figures = all(isinstance(figure, int | float | None) for figure in figures) and figures[-1] is not None
    are_figures &= isinstance(value.get("begin", 0.0), int | float) and isinstance(value.get("timestamps"), bool | None)
    return are_figures and isinstance(value.get("tokens"), int) and isinstance(value.get("is_speech"), bool)
