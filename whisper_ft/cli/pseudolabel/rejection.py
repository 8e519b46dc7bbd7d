"""Rejection of windows: the first reason for which the text of a window is not trusted."""

from collections.abc import Callable
from typing import NamedTuple

from whisper_ft.cli.pseudolabel.pool_window import PoolWindow
from whisper_ft.config.pseudolabel import KeepLimits

HELD_OUT_AUDIO, HELD_OUT_TEXT = "held_out_audio", "held_out_text"
MEANING = {
    "token_limit": "the text was cut at the limit of tokens",
    "empty": "the model wrote no text",
    "repetitive": "the text repeats itself",
    "no_speech": "the model heard no speech",
    "unlikely": "the tokens of the text are unlikely",
    "disagreement": "two transcripts of the window differ",
    "too_few_letters": "fewer letters a second than speech has",
    "too_many_letters": "more letters a second than speech has",
    "other_language": "another language was detected than the wanted one",
    HELD_OUT_AUDIO: "the audio is in a held-out set",
    HELD_OUT_TEXT: "the sentence is in a held-out set",
}
"""Meaning of each reason code. Audio that cannot be read has the codes of quarantine.jsonl."""


class Reason(NamedTuple):
    """Reason code, and the figure and limit in words."""

    code: str
    detail: str


class Limit(NamedTuple):
    """Limit of one figure of a window."""

    setting: str
    code: str
    figure: Callable[[PoolWindow], float | None]
    is_least: bool
    """True if the figure must be at least the limit, else it must be at most the limit."""


LIMITS = (
    Limit("max_compression", "repetitive", lambda window: window.compression_ratio, False),
    Limit("max_no_speech", "no_speech", lambda window: window.no_speech_prob, False),
    Limit("min_logprob", "unlikely", lambda window: window.avg_logprob, True),
    Limit("max_disagreement", "disagreement", lambda window: window.disagreement, False),
    Limit("min_pace", "too_few_letters", lambda window: window.pace, True),
    Limit("max_pace", "too_many_letters", lambda window: window.pace, False),
)
"""Limits in the order in which they are tried."""


def rejection(window: PoolWindow, limits: KeepLimits, without: str | None = None) -> Reason | None:
    """Return the first reason to reject a window by its figures; None if there is none.

    A figure that is not known passes, except a mean log-probability, which is unknown if it is not finite. `without` is
    the setting of a limit that is not tried.
    """
    if window.problem is not None:
        return Reason(window.problem, window.detail)
    if window.hit_token_limit:
        return Reason("token_limit", "the text has as many tokens as it may")
    if not window.text.strip():
        return Reason("empty", "the text is empty")
    for limit in LIMITS:
        threshold = getattr(limits, limit.setting)
        if threshold is None or limit.setting == without:
            continue
        figure = limit.figure(window)
        if figure is None and limit.setting != "min_logprob":
            continue
        if figure is None or (figure < threshold if limit.is_least else figure > threshold):
            shown = "not finite" if figure is None else f"{figure:.4g}"
            return Reason(limit.code, f"{shown}, --{limit.setting} is {threshold:g}")
    detected = window.detected_language
    if limits.require_language and detected is not None and detected != window.language:
        return Reason("other_language", f"{detected} was detected, {window.language} is wanted")
    return None
