"""Records of windows: recordings with segments, decoded in blocks and cut as planned."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from whisper_ft.cli.prepare.recordings import SpokenRecording, recordings_of
from whisper_ft.cli.prepare.records import LeftOut, RowOutcome, Step
from whisper_ft.cli.prepare.shard_row import flac_of, record_of, schema_of, timed_texts
from whisper_ft.cli.prepare.window_plan import PlannedWindow, SpokenPart, plan
from whisper_ft.data.audio.containers import Waveform
from whisper_ft.data.audio.decode import MIN_SECONDS, SEGMENT_SLACK
from whisper_ft.data.audio.recording import Recording
from whisper_ft.data.labelled import LabelledSource
from whisper_ft.data.labels.segment_times import MAX_OVERLAP
from whisper_ft.data.labels.transcript import is_blank, text_problem
from whisper_ft.data.types import RejectedError, Row, TextSegment
from whisper_ft.runtime.signals import interrupt_held
from whisper_ft.scoring.unicode_text import joined

SAMPLE_RATE = 16_000
"""Samples a second of a window: those of every Whisper. So a window has the samples that the model hears of the
recording."""
DECIMALS = 3
"""Digits of times in a window, in seconds. A timestamp of Whisper is a multiple of 0.02 s."""


class WindowRecords:
    """Records of the windows of all recordings. A row without times is a window of its own if it fits.

    Parameters
        seconds: greatest length of a window
        max_gap: greatest gap between two segments of a window, in seconds; None for no limit
    """

    def __init__(self, source: LabelledSource, seconds: float, max_gap: float | None) -> None:
        self._recordings = recordings_of(source)
        self._where, self._seconds, self._max_gap = source.where, seconds, max_gap
        self.schema = schema_of(has_times=True, has_recording=True)
        self.chunks, self.total = self._recordings.chunks, self._recordings.total

    def outcomes(self, first: Step) -> Generator[RowOutcome]:
        """Yield the outcomes from a step on: segments that are left out, windows, and the end of each recording."""
        skipped = first.part
        for step, recording in self._recordings.all_from(first):
            for part, outcome in enumerate(self._of(recording)):
                if part >= skipped:
                    yield outcome._replace(step=step._replace(part=part))
            skipped = 0

    def _of(self, recording: SpokenRecording) -> Iterator[RowOutcome]:
        """Yield the outcomes of a recording, of which only the last has a count under `done`."""
        timed = [row for row in recording.rows if _has_times(row)]
        yield from (self._whole(row, recording) for row in recording.rows if not _has_times(row))
        if timed:
            yield from self._windows(recording, timed)
        yield RowOutcome(Step(), done=1)

    def _whole(self, row: Row, recording: SpokenRecording) -> RowOutcome:
        """Return the outcome of a row without times: its whole audio."""
        try:
            if problem := row.problem or row.label_problem:
                raise RejectedError(*problem)
            with interrupt_held():
                audio = recording.audio()
                with Recording(audio, SAMPLE_RATE) as opened:
                    seconds = opened.seconds or 0.0
                if seconds > self._seconds:
                    long = f"{seconds:.2f} s without times of segments, the window has {self._seconds:g} s"
                    raise RejectedError("too_long", long)
                content = audio if isinstance(audio, bytes) else audio.read_bytes()
                record = record_of(replace(row, audio=content), self._where)
            return RowOutcome(Step(), record, seconds_in=seconds, seconds_out=seconds)
        except RejectedError as unusable:
            return RowOutcome(Step(), left_out=LeftOut(row.id, unusable.reason, unusable.detail))

    def _windows(self, recording: SpokenRecording, rows: Sequence[Row]) -> Iterator[RowOutcome]:
        """Yield the outcomes of the rows with times. All that is left is left out if the audio cannot be read on."""
        remaining: list[PlannedWindow] = []
        try:
            with interrupt_held():
                opened = Recording(recording.audio(), SAMPLE_RATE)
            with opened:
                parts = [part for row in rows for part in parts_of(row, opened.seconds)]
                remaining, left_out = plan(parts, self._seconds, self._max_gap)
                yield from (RowOutcome(Step(), left_out=one) for one in left_out)
                seconds = 0.0
                spans = [_samples(window, self._seconds) for window in remaining]
                for waveform, seconds in _cut(opened, spans):
                    yield from self._window(remaining.pop(0), waveform, seconds, recording)
                yield RowOutcome(Step(), seconds_in=opened.seconds or seconds)
        except RejectedError as unusable:
            problem = (unusable.reason, unusable.detail)
            unread = [part for window in remaining for part in window.parts]
            for part in unread or [part for row in rows for part in parts_of(row, None)]:
                yield RowOutcome(Step(), left_out=LeftOut(part.id, *problem))

    def _window(
        self, window: PlannedWindow, waveform: Waveform, seconds: float, recording: SpokenRecording
    ) -> Iterator[RowOutcome]:
        """Yield the outcome of a window, and of segments that begin or end after the recording of so many seconds."""
        inside = [part for part in window.parts if part.end <= seconds + SEGMENT_SLACK and part.start < seconds]
        for part in window.parts:
            if part not in inside:
                times = f"{part.start:g} to {part.end:g} s is not in a recording of {seconds:.2f} s"
                yield RowOutcome(Step(), left_out=LeftOut(part.id, "segment_outside", times))
        if not inside:
            return
        length = len(waveform) / SAMPLE_RATE
        if length < MIN_SECONDS:
            yield RowOutcome(Step(), left_out=LeftOut(inside[0].id, "too_short", f"{len(waveform)} samples"))
            return
        with interrupt_held():
            record = self._record(window, inside, waveform, recording)
        yield RowOutcome(Step(), record, seconds_out=length, segments=len(inside))

    def _record(
        self, window: PlannedWindow, parts: Sequence[SpokenPart], waveform: Waveform, recording: SpokenRecording
    ) -> dict[str, Any]:
        begin = _sample(window.begin) / SAMPLE_RATE
        speakers = list(dict.fromkeys(part.speaker for part in parts if part.speaker))
        is_of_one = len({part.speaker for part in parts}) == 1
        return {
            "audio": {"bytes": flac_of(waveform, SAMPLE_RATE), "path": f"{recording.name}@{begin:.{DECIMALS}f}"},
            "sentence": joined([part.text for part in parts]),
            "language": parts[0].language,
            "task": parts[0].task,
            "client_id": parts[0].speaker if is_of_one else None,
            "segments": timed_texts(_within(parts, begin, len(waveform) / SAMPLE_RATE)),
            "prompt": window.prompt,
            "recording": recording.name,
            "start": begin,
            "speakers": speakers,
        }


def _has_times(row: Row) -> bool:
    return row.segments is not None or row.duration is not None or row.offset > 0


def parts_of(row: Row, seconds: float | None) -> list[SpokenPart]:
    """Return the segments of a row with times, of which those that cannot be used have a problem.

    `seconds` is the length of the recording, which ends a segment without an end; None if it is not known.
    """
    last = seconds if row.duration is None else row.offset + row.duration
    segments = row.segments or [TextSegment(row.text, 0.0, None)]
    parts = []
    for segment in segments:
        begin = row.offset + segment.begin
        end = last if segment.end is None else row.offset + segment.end
        problem = row.problem or row.label_problem or _problem(segment.text, begin, end)
        name = row.id if row.segments is None else f"{row.id}@{begin:.12g}"
        text = "" if problem else " ".join(segment.text.split())
        ends = begin if end is None else max(begin, end)
        parts.append(SpokenPart(begin, ends, text, name, row.language, row.task, row.speaker, problem))
    return parts


def _problem(text: object, begin: float, end: float | None) -> tuple[str, str] | None:
    if problem := text_problem(text):
        return "bad_label", problem
    if is_blank(text):
        return "empty_label", "the transcript is empty"
    if end is None:
        return "bad_segment", "has no end, and the recording does not state its length"
    return None if begin < end else ("bad_segment", f"ends at {end:g} s and begins at {begin:g} s")


def _within(parts: Sequence[SpokenPart], begin: float, length: float) -> list[TextSegment]:
    """Return the segments of a window with times from its begin. Two that overlap clearly become one, as in labels."""
    segments: list[TextSegment] = []
    for part in parts:
        start, end = max(part.start - begin, 0.0), min(part.end - begin, length)
        segment = TextSegment(part.text, round(start, DECIMALS), round(end, DECIMALS))
        if segments and segment.begin < (segments[-1].end or 0.0) - MAX_OVERLAP:
            before = segments.pop()
            last = max(before.end or 0.0, segment.end or 0.0)
            segment = TextSegment(joined([before.text, segment.text]), before.begin, last)
        segments.append(segment)
    return segments


def _sample(seconds: float) -> int:
    return round(seconds * SAMPLE_RATE)


def _samples(window: PlannedWindow, limit: float) -> tuple[int, int]:
    """Return the first sample of a window and the one after its last, of which there are no more than the limit has."""
    begin = _sample(window.begin)
    return begin, min(_sample(window.end), begin + int(limit * SAMPLE_RATE))


def _cut(recording: Recording, spans: Sequence[tuple[int, int]]) -> Iterator[tuple[Waveform, float]]:
    """Yield the waveform of each span of samples, and the seconds up to which the recording has been read.

    A span that ends after the recording is shorter, or empty. Only one window and one block are in memory. Raises
    RejectedError where the recording cannot be read any further.
    """
    blocks, held, first = recording.blocks(), np.zeros(0, np.float32), 0  # samples from number `first` on
    for begin, end in spans:
        while first + len(held) < end:
            with interrupt_held():
                block = next(blocks, None)
            if block is None:
                break
            held = np.concatenate([held, block])
            passed = min(max(begin - first, 0), len(held))
            held, first = held[passed:], first + passed
        yield held[max(begin - first, 0) : max(end - first, 0)], (first + len(held)) / SAMPLE_RATE
