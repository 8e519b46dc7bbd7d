"""Plan of the windows of a recording: the segments of each, and its begin and end. No sound is needed for it.

A window is cut only at gaps between segments. It begins a little before its first segment and ends a little after its
last one, at most in the middle of the gap, so windows never share sound.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

from whisper_ft.cli.prepare.records import LeftOut
from whisper_ft.scoring.unicode_text import joined

MARGIN_SECONDS = 0.3
"""Most sound before the first segment and after the last one. Times of subtitles are often late or early by so much."""
TOUCHING_SECONDS = 0.02
"""Overlap up to which segments only touch, because times are rounded: one step of Whisper's timestamps."""
ROUNDING = 1e-6
"""Seconds by which sums of times may be wrong, because they are floating-point numbers."""
PROMPT_CHARACTERS = 1000
"""Most characters of previous text. The 223 tokens of a prompt hold about as many; the label is cut exactly."""


class SpokenPart(NamedTuple):
    """Segment of a recording, with its times in seconds from the start of the recording."""

    start: float
    end: float
    text: str
    id: str
    language: str | None = None
    task: str | None = None
    speaker: str | None = None
    problem: tuple[str, str] | None = None
    """Reason code and explanation if the segment cannot be used. No window contains its time."""


class PlannedWindow(NamedTuple):
    """Window, with its times in seconds from the start of the recording."""

    begin: float
    end: float
    parts: tuple[SpokenPart, ...]
    prompt: str | None
    """Text said before in the recording, in the same language and task; None if there is none."""


@dataclass
class _Group:
    """Segments that overlap, so that no cut lies between them."""

    parts: list[SpokenPart]
    start: float
    end: float
    left_out: list[LeftOut] = field(default_factory=list)

    @property
    def label(self) -> tuple[str | None, str | None]:
        """Language and task, of which a window has one each."""
        return self.parts[0].language, self.parts[0].task


def plan(parts: Iterable[SpokenPart], limit: float, max_gap: float | None) -> tuple[list[PlannedWindow], list[LeftOut]]:
    """Return the windows of a recording by time, and the segments that are in none.

    Parameters
        limit: most seconds of a window
        max_gap: most seconds between two segments of a window; None for no limit
    """
    groups = _groups(sorted(parts, key=lambda part: (part.start, part.end)))
    for group in groups:
        group.left_out = list(_left_out(group, limit))
    said: dict[tuple[str | None, str | None], str] = {}
    windows: list[PlannedWindow] = []
    for first, last in _runs(groups, limit, inf if max_gap is None else max_gap):
        run = groups[first : last + 1]
        if not run[0].left_out:
            before = groups[first - 1].end if first else -inf
            after = groups[last + 1].start if last + 1 < len(groups) else inf
            begin, end = _span(run[0].start, run[-1].end, before, after, limit)
            inside = tuple(part for group in run for part in group.parts)
            windows.append(PlannedWindow(begin, end, inside, said.get(run[0].label) or None))
        for part in (part for group in run for part in group.parts if part.problem is None):
            label = (part.language, part.task)
            said[label] = _end_of(joined([*filter(None, [said.get(label)]), part.text]))
    return windows, [one for group in groups for one in group.left_out]


def _groups(parts: Sequence[SpokenPart]) -> list[_Group]:
    groups: list[_Group] = []
    for part in parts:
        if groups and part.start < groups[-1].end - TOUCHING_SECONDS:
            groups[-1].parts.append(part)
            groups[-1].end = max(groups[-1].end, part.end)
        else:
            groups.append(_Group([part], part.start, part.end))
    return groups


def _left_out(group: _Group, limit: float) -> Iterator[LeftOut]:
    """Yield the segments of a group if it cannot be in a window, each with its reason."""
    seconds, count = group.end - group.start, len(group.parts)
    labels = {(part.language, part.task) for part in group.parts}
    is_unusable = any(part.problem for part in group.parts)
    if not is_unusable and len(labels) == 1 and seconds <= limit + ROUNDING:
        return
    for part in group.parts:
        if part.problem is not None:
            yield LeftOut(part.id, *part.problem)
        elif part.end - part.start > limit + ROUNDING:
            yield LeftOut(part.id, "too_long", f"{part.end - part.start:.2f} s, the window has {limit:g} s")
        elif is_unusable:
            yield LeftOut(part.id, "overlap", "overlaps a segment that cannot be used")
        elif len(labels) > 1:
            yield LeftOut(part.id, "overlap", "overlaps a segment of another language or task")
        else:
            together = f"{count} segments that overlap have {seconds:.2f} s, the window has {limit:g} s"
            yield LeftOut(part.id, "overlap", together)


def _runs(groups: Sequence[_Group], limit: float, max_gap: float) -> Iterator[tuple[int, int]]:
    """Yield the first and last group of each window, and each group that is left out on its own."""
    first = 0
    for number in range(1, len(groups) + 1):
        if number < len(groups):
            one, before, group = groups[first], groups[number - 1], groups[number]
            is_usable = not (one.left_out or group.left_out) and group.label == one.label
            fits = group.end - one.start <= limit + ROUNDING and group.start - before.end <= max_gap + ROUNDING
            if is_usable and fits:
                continue
        yield first, number - 1
        first = number


def _span(start: float, end: float, before: float, after: float, limit: float) -> tuple[float, float]:
    """Return begin and end of a window around its segments, which lie between those that end and begin next to it."""
    room = max(limit - (end - start), 0.0)
    lead = min(MARGIN_SECONDS, (start - before) / 2, room, start)
    tail = min(MARGIN_SECONDS, (after - end) / 2, room - max(lead, 0.0))
    return start - lead, end + tail


def _end_of(text: str) -> str:
    """Return the last PROMPT_CHARACTERS of a text, from a word on if it has words."""
    if len(text) <= PROMPT_CHARACTERS:
        return text
    text = text[-PROMPT_CHARACTERS - 1 :]
    return text.partition(" ")[2] if " " in text else text[1:]
