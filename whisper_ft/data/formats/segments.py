"""Segments: the part of an audio file that a line of a list is, by its offset and duration.

Only an offset makes a segment. A duration without one is information about the file, and is compared with the file. A
`start` may be a place in the named file, or in the video from which the file was cut; the files decide.
"""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from whisper_ft.data.audio.decode import header_seconds
from whisper_ft.data.storage.files import FolderStore
from whisper_ft.data.types import RejectedError

START_COLUMNS = ("start", "start_time")  # seconds
END_COLUMNS = ("end", "end_time")  # seconds; ignored if `duration` is given
OFFSET_COLUMNS = ("offset", *START_COLUMNS)  # seconds

PROBED_FILES = 8
"""Files whose length is compared with their lines, to find out what `start` means."""
MAX_CLIP_BYTES = 2**24
"""Size of the largest file that may be a single utterance. 16 MiB are 87 s of 48 kHz stereo, uncompressed."""
ROUNDING_SECONDS = 1.0
"""Difference by which a duration in whole seconds may miss the length of its file."""
EXACT_SECONDS = 0.02
"""Seconds by which an exact end may lie after the end of its file, because of rounding to frames."""

Line = Mapping[str, object]


def segment_of(line: Line, start_is_offset: bool) -> dict[str, float | None]:
    """Return `offset` and `duration` of an utterance in its recording, or else the `stated` length of its file.

    All are in seconds; `duration` and `stated` are None if the line does not give them. With `start_is_offset`, a
    column `start` counts as an offset. Raises RejectedError(bad_segment) if there is an offset, and one of the numbers
    is wrong.
    """
    offset = _seconds(line, OFFSET_COLUMNS if start_is_offset else OFFSET_COLUMNS[:1])
    if offset is None:
        return {"stated": loose_seconds(line.get("duration"))}
    return {"offset": offset, "duration": _duration(line, offset)}


def segment_of_earlier(line: Line) -> dict[str, float | None]:
    """Return offset and duration as data.reading 1 takes them: a duration or an end alone cuts the file, too.

    Each is in seconds, and None if the line does not give it. Raises RejectedError(bad_segment) for a wrong number.
    """
    offset = _seconds(line, OFFSET_COLUMNS)
    return {"offset": offset, "duration": _duration(line, offset)}


def _duration(line: Line, offset: float | None) -> float | None:
    duration = _seconds(line, ("duration",))
    end = _seconds(line, END_COLUMNS) if duration is None else None
    if end is None:
        return duration
    if end < (offset or 0.0):
        raise RejectedError("bad_segment", f"ends at {end:g} s and begins at {offset:g} s")
    return end - (offset or 0.0)


def _seconds(line: Line, columns: Iterable[str]) -> float | None:
    column, value = next(((c, line[c]) for c in columns if line.get(c) not in (None, "")), ("", None))
    return None if value is None else seconds_of(value, column)


def seconds_of(value: object, name: str) -> float:
    """Return the number of seconds in a field, which holds a number or its text.

    Raises RejectedError(bad_segment) for a negative number, NaN, and anything but a number. `name` names the field in
    its message.
    """
    seconds = exact_seconds(value)
    if seconds is None:
        raise RejectedError("bad_segment", f"{name} {str(value)[:40]!r}: not a number of seconds")
    return seconds


def exact_seconds(value: object) -> float | None:
    """Return the number of seconds in a field, which holds a number or its text.

    None for a negative number, NaN, and anything but a number.
    """
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]  # TypeError is caught
    except (TypeError, ValueError, OverflowError):
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def loose_seconds(value: object) -> float | None:
    """Number of seconds in a field that is only information: `2.9`, `2,9`, `0:02.9`; None for anything else."""
    text = str(value).strip().replace(",", ".")
    if isinstance(value, bool) or not re.fullmatch(r"(\d+:){0,2}\d+(\.\d+)?", text, re.ASCII) or len(text) > 20:
        return None
    seconds = 0.0
    for part in text.split(":"):
        seconds = 60.0 * seconds + float(part)
    return seconds


def start_is_offset(sample: Sequence[Line], name_of: Callable[[Line], str | None], store: FolderStore) -> bool:
    """Tell whether the column `start` of a list is a place in the named files; False if it is one in other recordings.

    A file with two starts is a recording with segments. Otherwise some files are read. A file that is as long as its
    segment, and too short to contain it, is the segment itself. The majority decides; a tie gives True, and so does a
    list in which no file tells.

    Parameters
        sample: lines of the list
        name_of: name of a line's file in the store; None if the line has none
    """
    starts = defaultdict[str, set[float]](set)
    lines: list[tuple[str, float, float | None]] = []
    for line in sample:
        start = next((loose_seconds(line[c]) for c in START_COLUMNS if line.get(c) not in (None, "")), None)
        name = name_of(line)
        if start is None or name is None or line.get("offset") not in (None, ""):
            continue
        starts[name].add(start)
        length = _stated_length(line, start)
        if length is None or length > 0:
            lines.append((name, start, length))
    if any(len(places) > 1 for places in starts.values()):
        return True
    later = [line for line in lines if line[1] > 0]
    probed = later[:: max(len(later) // PROBED_FILES, 1)][:PROBED_FILES]
    votes = [_vote(store, *line) for line in probed]
    return votes.count(False) <= votes.count(True)


def _stated_length(line: Line, start: float) -> float | None:
    if line.get("duration") not in (None, ""):
        return loose_seconds(line["duration"])
    end = next((loose_seconds(line[c]) for c in END_COLUMNS if line.get(c) not in (None, "")), None)
    return None if end is None else end - start


def _vote(store: FolderStore, name: str, start: float, length: float | None) -> bool | None:
    """True if a file contains its segment, False if the file is the segment itself, None if neither is clear."""
    try:
        if (store.size(name) or 0) > MAX_CLIP_BYTES:
            return True
        seconds = header_seconds(store.read(name))
    except RejectedError:
        return None
    if seconds is None:
        return None
    if start + (length or 0.0) <= seconds + EXACT_SECONDS:
        return True
    return False if length is None or abs(seconds - length) <= ROUNDING_SECONDS else None
