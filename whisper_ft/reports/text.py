"""Formats of numbers and texts for pages, consoles and model cards."""

import math
import re
import unicodedata

from whisper_ft.scoring.bootstrap import Interval

MAX_TEXT_CHARACTERS = 1500  # characters of one transcript on a page: 30 s of speech have about 600


def percent(rate: float | None, decimals: int = 2) -> str:
    """Format a fraction as a percentage, such as `2.26%`; `n/a` for None."""
    return "n/a" if rate is None else f"{100 * rate:.{decimals}f}%"


def percent_range(interval: Interval | None) -> str:
    """Format an interval as a range of percentages; "" if there is no interval."""
    return f"{100 * interval.low:.1f}\u00a0–\u00a0{100 * interval.high:.1f}%" if interval else ""


def points(change: float) -> str:
    """Format the difference of two rates, given as a fraction, in percentage points with its sign, such as `+1.20`."""
    return f"{100 * change:+.2f}".replace("-", "\u2212")


def points_range(interval: Interval | None) -> str:
    """Format an interval as a range of percentage points; "" if there is no interval."""
    return f"{points(interval.low)} to {points(interval.high)}" if interval else ""


def duration(seconds: float) -> str:
    """Format a length of time, such as `2.0 s`, `5 min 6 s` or `1,200 h 3 min`.

    NaN and infinity give `unknown length`.
    """
    if not math.isfinite(seconds):
        return "unknown length"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = int(seconds // 60)
    return f"{minutes} min {int(seconds % 60)} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60} min"


def short_count(count: int) -> str:
    """Format a count briefly, for pictures, such as `950` or `12.3k`."""
    return f"{count:,}" if count < 1000 else f"{count / 1000:.1f}k"


def clipped(text: str, characters: int = MAX_TEXT_CHARACTERS) -> str:
    """Cut a text after `characters` characters, and add the number of characters that were cut off."""
    return text if len(text) <= characters else f"{text[:characters]}… (+{len(text) - characters:,} characters)"


def visible(text: str) -> str:
    """Replace control characters by pictures of them (␀, ␛), because neither HTML nor a console may get them.

    Zero-width joiners and marks of direction stay, because they belong to the spelling of several languages.
    """
    return re.sub("[^\t\n -~\u00a0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", _picture, text)


def _picture(control: re.Match[str]) -> str:
    code = ord(control[0])
    return chr(0x2400 + code) if code < 0x20 else "\u2421" if code == 0x7F else "\ufffd"


def spelled_out(text: str) -> str:
    """Return a text on one line, with an escape (`\\u200b`) for every character that would not be visible."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)


def on_circle(text: str) -> str:
    """Put a text on a dotted circle if it begins with a combining mark, because a mark needs a letter to stand on."""
    return f"\u25cc{text}" if unicodedata.category(text[:1] or " ").startswith("M") else text
