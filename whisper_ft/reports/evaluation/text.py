"""Texts and numbers as the page and the console show them: hostile ones stay text."""

import math
import re
import unicodedata
from html import escape

from whisper_ft.scoring.bootstrap import Interval

SHOWN_TOKEN_CHARACTERS = 60
SHOWN_TEXT_CHARACTERS = 1500


def isolated(text: str) -> str:
    """The text as HTML, isolated: right-to-left text in it does not reorder what stands around."""
    return f"<bdi>{escape(visible(text))}</bdi>"


def visible(text: str) -> str:
    """The text with pictures (␀, ␛) for the control characters, which neither HTML nor a console may get."""
    return re.sub("[^\t\n -~\u00a0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", _picture, text)


def _picture(control: re.Match[str]) -> str:
    code = ord(control[0])
    return chr(0x2400 + code) if code < 0x20 else "\u2421" if code == 0x7F else "\ufffd"


def token_of(token: str) -> str:
    """An aligned word or run of characters as HTML: a space as an open box, a mark without its letter on a circle."""
    shown = "\u2423" if token == " " else token
    if unicodedata.category(shown[:1] or " ").startswith("M"):
        shown = f"\u25cc{shown}"
    return escape(visible(clipped(shown, SHOWN_TOKEN_CHARACTERS)))


def written(name: str, text: str) -> str:
    """A text as it was written, below its name."""
    shown = escape(visible(clipped(text, SHOWN_TEXT_CHARACTERS)))
    return f'<p class="written"><small>{name}</small><span dir="auto">{shown}</span></p>'


def clipped(text: str, characters: int) -> str:
    """At most so many characters, and how many are missing."""
    return text if len(text) <= characters else f"{text[:characters]}… (+{len(text) - characters:,} characters)"


def percent(rate: float | None) -> str:
    """A fraction as a percentage with two digits."""
    return "n/a" if rate is None else f"{100 * rate:.2f}%"


def percent_range(interval: Interval | None) -> str:
    """The ends of an interval as percentages; nothing without one."""
    return f"{100 * interval.low:.1f}\u00a0–\u00a0{100 * interval.high:.1f}%" if interval else ""


def points(change: float) -> str:
    """A difference of two rates in percentage points, with its sign."""
    return f"{100 * change:+.2f}".replace("-", "\u2212")


def points_range(interval: Interval | None) -> str:
    """The ends of the interval of such a difference."""
    return f"{points(interval.low)} to {points(interval.high)}" if interval else ""


def duration(seconds: float) -> str:
    """A length of time for people."""
    if not math.isfinite(seconds):
        return "unknown length"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = int(seconds // 60)
    return f"{minutes} min {int(seconds % 60)} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60} min"


def shortened(count: int) -> str:
    """A count in few signs, for pictures."""
    return f"{count:,}" if count < 1000 else f"{count / 1000:.1f}k"
