"""Times that transcripts bring: a column of segments, or a text with timestamps such as `<|0.00|> text<|2.34|>`."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from whisper_ft.data.formats.segments import exact_seconds
from whisper_ft.data.labels.transcript import text_problem
from whisper_ft.data.types import RejectedError, Row, TextSegment
from whisper_ft.scoring.unicode_text import joined

TIME = re.compile(r"<\|(\d+(?:\.\d+)?)\|>")
"""Pattern of a time in a text, in seconds."""
MAX_OVERLAP = 0.2
"""Seconds by which a segment of a column may begin before the one before it ends. Its label begins at that end."""
ROUNDING = 1e-6
"""Seconds by which numbers may differ that were rounded to decimals."""
KEYS = ("start", "end", "text")
SHOWN_CHARACTERS = 60


def with_segments(row: Row, stored: str | None, *, text_times: bool) -> Row:
    """Return a row with the segments of a column, or else with those of its text if that holds times.

    Its text is then that of the segments. Times that cannot be used become the row's `label_problem`.

    Parameters
        stored: value of the column of segments; None if there is none.
        text_times: take the times out of the text.
    """
    try:
        segments = segments_of(stored or "")
        if segments is None and text_times and isinstance(row.text, str):
            text, segments = timed_text(row.text)
        elif segments is not None:
            text = joined([segment.text for segment in segments])
        return row if segments is None else replace(row, text=text, segments=segments)
    except RejectedError as rejected:
        text = TIME.sub(" ", row.text) if text_times else row.text
        return replace(row, text=text, label_problem=(rejected.reason, rejected.detail))


def context_of(value: str | None) -> str:
    """Return the text of a cell of `data.prompt_column`, "" for an empty one. A list of texts is joined by commas."""
    text = (value or "").strip()
    if text.startswith("["):
        try:
            listed = json.loads(text)
        except (ValueError, RecursionError):
            return text  # a text in brackets
        if isinstance(listed, list) and all(isinstance(item, str) for item in listed):
            return ", ".join(listed)
    return text


def segments_of(value: str) -> tuple[TextSegment, ...] | None:
    """Read the value of a column of segments, which is JSON: a list of {start, end, text}, or an object of three lists.

    Times are seconds from the start of the utterance, as numbers or texts. The end of the last segment may be null,
    which stands for the end of the audio. Segments without text are left out, but a last one without text and end is
    the start of speech whose text is not known. None for a blank value and for null.

    Raises RejectedError `bad_segments` for anything else, and `bad_times` for a segment that ends before it begins, or
    begins over MAX_OVERLAP seconds before the one before it ends.
    """
    if not value.strip():
        return None
    try:
        found = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise RejectedError("bad_segments", f"not JSON: {_shown(value)}") from error
    if found is None:
        return None
    records = _records(found)
    segments = [_segment(number, record, number == len(records)) for number, record in enumerate(records, 1)]
    _check(segments)
    return tuple(segment for segment in segments if segment.text or segment.end is None)


def timed_text(text: str) -> tuple[str, tuple[TextSegment, ...] | None]:
    """Take the times out of a text. Returns the text without them, and its segments; None without any time.

    A text lies between its start and its end, and a single time between two texts is both. A last text without an end
    goes on to the end of the audio. A last time of its own is the start of speech whose text is not known. Raises
    RejectedError (`bad_times`) for times that go back, and for text before the first.
    """
    before, *parts = TIME.split(text)
    if not parts:
        return text, None
    if before.strip():
        raise RejectedError("bad_times", f"there is text before the first time: {_shown(text)}")
    times, texts = [float(time) for time in parts[::2]], [part.strip() for part in parts[1::2]]
    ends: list[float | None] = [*times[1:], None]
    segments = [TextSegment(*segment) for segment in zip(texts, times, ends, strict=True) if segment[0]]
    is_open = len(times) > 1 and not texts[-1] and not texts[-2]
    if is_open:
        segments.append(TextSegment("", times[-1], None))
    if any(later < time for time, later in pairwise(times)):
        raise RejectedError("bad_times", f"its times go back: {_shown(text)}")
    return joined([part for part in texts if part]), tuple(segments)


def _records(found: object) -> list[Mapping[str, Any]]:
    """Return the segments of a value as objects. `datasets` may store a list of objects as an object of lists."""
    if isinstance(found, dict) and all(isinstance(found.get(key), list) for key in KEYS):
        columns = [found[key] for key in KEYS]
        if len({len(column) for column in columns}) > 1:
            raise RejectedError("bad_segments", f"the lists of {', '.join(KEYS)} differ in length")
        return [dict(zip(KEYS, values, strict=True)) for values in zip(*columns, strict=True)]
    if isinstance(found, list) and all(isinstance(record, dict) for record in found):
        return found
    raise RejectedError("bad_segments", f"should be a list of objects with {', '.join(KEYS)}: {_shown(str(found))}")


def _segment(number: int, record: Mapping[str, Any], is_last: bool) -> TextSegment:
    """Read one segment, counted from 1."""
    text = record.get("text")
    if text is None or (problem := text_problem(text)):
        raise RejectedError("bad_segments", f"segment {number}: {'it has no text' if text is None else problem}")
    begin, end = _seconds(number, "start", record), None
    if record.get("end") is not None or not is_last:
        end = _seconds(number, "end", record)
    return TextSegment(text.strip(), begin, end)


def _seconds(number: int, key: str, record: Mapping[str, Any]) -> float:
    value = record.get(key)
    seconds = exact_seconds(value)
    if seconds is None:
        raise RejectedError("bad_segments", f"segment {number}: {key} {_shown(str(value))}: not a number of seconds")
    return seconds


def _check(segments: Sequence[TextSegment]) -> None:
    """Raise RejectedError (`bad_times`) if the times of segments are not in order."""
    before = 0.0
    for number, (_, begin, end) in enumerate(segments, 1):
        if end is not None and end < begin - ROUNDING:
            raise RejectedError("bad_times", f"segment {number} ends at {end:g} s and begins at {begin:g} s")
        if begin < before - MAX_OVERLAP - ROUNDING:
            raise RejectedError(
                "bad_times", f"segment {number} begins at {begin:g} s, and the one before it ends at {before:g} s"
            )
        before = begin if end is None else end


def _shown(value: str) -> str:
    return repr(value if len(value) <= SHOWN_CHARACTERS else f"{value[:SHOWN_CHARACTERS]}...")
