"""Joined recordings: clips of a set with short pauses between them, as a set of long recordings.

The recordings are a pure function of the set and the settings, and do not depend on the number of processes.
"""

import io
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import soundfile

from whisper_ft.config.data import MAX_LONG_SECONDS
from whisper_ft.data.audio.containers import Waveform
from whisper_ft.data.audio.decode import decode, decode_beginning, header_seconds
from whisper_ft.data.labels.transcript import is_blank, text_problem
from whisper_ft.data.types import RejectedError, Row, Source, TextSegment
from whisper_ft.scoring.unicode_text import joined

SAMPLE_RATE = 16_000
"""Samples per second of a joined recording: the rate of every Whisper, so it is not resampled again."""
PAUSE_SECONDS = 0.3
"""Silence between two clips in seconds: as long as a pause between sentences, so windows are cut there."""
CACHED_BYTES = 1 << 28
"""Bytes of encoded audio that stay in memory, because the clips of one speaker may lie in several chunks."""

ClipPlace = tuple[int, int]
"""Chunk of a clip, and its row in the chunk."""


class TimedClip(NamedTuple):
    """Clip with its length in seconds, by the header of its audio; 0 if it cannot be joined."""

    place: ClipPlace
    seconds: float


Recording = list[TimedClip]
"""Clips of a recording, in the order in which they are joined."""


def plan_recordings(source: Source, max_seconds: float, most: int | None) -> list[Recording]:
    """Plan recordings of about `max_seconds` from the first `most` clips of a set (None: all).

    A recording holds clips of one speaker, language and task, in stored order. Speakers with less than half of
    `max_seconds` share recordings with each other, and with the clips that name no speaker. A clip without text or
    readable audio stays alone, so that it is scored as in any other set. Recordings follow the order of their first
    clips.

    The headers of all clips are read, one chunk at a time.
    """
    by_speaker: dict[tuple[str | None, ...], Recording] = {}
    shared: dict[tuple[str | None, ...], Recording] = {}
    recordings: list[Recording] = []
    for place, row in islice(clips_of(source), most):
        seconds = _seconds_to_join(row)
        if seconds is None:
            recordings.append([TimedClip(place, 0.0)])
        else:
            clips = by_speaker.setdefault((row.speaker, row.language, row.task), [])
            clips.append(TimedClip(place, seconds))
    for (speaker, *language_and_task), clips in by_speaker.items():
        if speaker is not None and length_of(clips) >= max_seconds / 2:
            recordings += _cut(clips, max_seconds)
        else:
            shared.setdefault((*language_and_task,), []).extend(clips)
    for clips in shared.values():
        recordings += _cut(sorted(clips), max_seconds)
    return sorted(recordings)


def length_of(recording: Recording) -> float:
    """Length of a recording in seconds, with the pauses between its clips."""
    return sum(clip.seconds for clip in recording) + PAUSE_SECONDS * (len(recording) - 1)


def _cut(clips: Recording, max_seconds: float) -> list[Recording]:
    """Cut clips into recordings of at most `max_seconds`. A last one below half of it is added to the one before."""
    parts: list[Recording] = [[]]
    for clip in clips:
        if parts[-1] and length_of([*parts[-1], clip]) > max_seconds:
            parts.append([])
        parts[-1].append(clip)
    if len(parts) > 1 and length_of(parts[-1]) < max_seconds / 2 and length_of(parts[-2]) <= max_seconds:
        last = parts.pop()
        parts[-1] += last
    return parts


class JoinedRecordings:
    """Source whose rows are joined recordings, one in each chunk.

    At most CACHED_BYTES of encoded clips, one chunk and one recording are in memory.

    Parameters
        source: the set of the clips.
        recordings: the clips of each recording, as `plan_recordings` returns them.
        rule: settings of the join as JSON values, on which the recordings depend besides the set.
    """

    def __init__(self, source: Source, recordings: Sequence[Recording], rule: Mapping[str, Any]) -> None:
        self._source, self._recordings, self.rule = source, recordings, dict(rule)
        self.rows: Sequence[int] = [1] * len(recordings)
        self.largest_chunk: int | None = None
        self._chunks: OrderedDict[int, Sequence[Row]] = OrderedDict()

    @property
    def note(self) -> str:
        """Line for the user: number and length of the recordings."""
        clips, recordings = sum(map(len, self._recordings)), len(self._recordings)
        mean = sum(map(length_of, self._recordings)) / max(recordings, 1)
        return f"{clips:,} clips joined to recordings: {recordings:,} of {mean:.0f} s on average"

    def read(self, chunk: int) -> Sequence[Row]:
        """Read the clips of a recording and join them. A recording of one clip is its row, with the time of its text.

        A clip that cannot be decoded is left out of the sound, and its text stays: its words count as deletions.
        """
        rows = [self._clip(*clip.place) for clip in self._recordings[chunk]]
        if len(rows) > 1:
            return [replace(join_clips(rows), id=self.row_id(chunk, 0))]
        (row,) = rows
        return [row if _is_without_text(row) or row.segments else replace(row, segments=_segments(row, 0.0, None))]

    def row_id(self, chunk: int, row: int) -> str:
        """Id of a recording: that of its first clip, with the number of further ones."""
        first, *more = self._recordings[chunk]
        return self._source.row_id(*first.place) + (f" +{len(more)}" if more else "")

    def fingerprint(self) -> dict[str, Any]:
        """Fingerprint of the clips."""
        return self._source.fingerprint()

    def content(self) -> dict[str, Any]:
        """Digests of the content of the clips."""
        return self._source.content()

    def _clip(self, chunk: int, row: int) -> Row:
        if chunk not in self._chunks:
            self._chunks[chunk] = self._source.read(chunk)
            while len(self._chunks) > 1 and sum(map(_bytes_of, self._chunks.values())) > CACHED_BYTES:
                self._chunks.popitem(last=False)
        self._chunks.move_to_end(chunk)
        return self._chunks[chunk][row]


def join_clips(clips: Sequence[Row]) -> Row:
    """Join clips with PAUSE_SECONDS of silence between them to one row, with the times of their texts.

    Speaker and extra columns are those that all clips share. The id is that of the first clip.
    """
    pause = np.zeros(round(PAUSE_SECONDS * SAMPLE_RATE), dtype=np.float32)
    parts, segments = list[Waveform](), list[TextSegment]()
    at, unread = 0, None  # in samples
    for clip in clips:
        try:
            waveform = decode(clip.audio, SAMPLE_RATE, MAX_LONG_SECONDS, clip.offset, clip.duration)
        except RejectedError as rejected:
            waveform, unread = pause[:0], unread or rejected.reason
        parts += [pause, waveform] if parts else [waveform]
        at = sum(map(len, parts))
        segments += _segments(clip, (at - len(waveform)) / SAMPLE_RATE, at / SAMPLE_RATE)
    first = clips[0]
    return replace(
        first,
        audio=_as_wav(np.concatenate(parts)),
        text=joined([clip.text.strip() for clip in clips]),
        speaker=first.speaker if all(clip.speaker == first.speaker for clip in clips) else None,
        offset=0.0,
        duration=None,
        stated=None,
        columns=_shared_columns(clips),
        segments=tuple(segments),
        prompt=None,
        recording=None,
        unread_part=unread,
    )


def seconds_of(row: Row) -> float | None:
    """Length of a row in seconds, by its list or the header of its audio; None if the audio cannot be read.

    Audio whose header states no length is decoded.
    """
    if row.duration is not None:
        return row.duration
    stated = header_seconds(row.audio)
    if stated is not None:
        return max(stated - row.offset, 0.0)
    try:
        return decode_beginning(row.audio, SAMPLE_RATE, MAX_LONG_SECONDS, row.offset)[1]
    except RejectedError:
        return None


def clips_of(source: Source) -> Iterator[tuple[ClipPlace, Row]]:
    """Yield place and row of each clip in stored order. One chunk at a time is in memory."""
    for chunk, rows in enumerate(source.rows):
        for number, row in enumerate(source.read(chunk) if rows else ()):
            yield (chunk, number), row


def _seconds_to_join(row: Row) -> float | None:
    """Length of a clip in seconds; None if it cannot be joined, because its text or its audio cannot be used."""
    return None if row.problem or _is_without_text(row) else seconds_of(row)


def _is_without_text(row: Row) -> bool:
    return text_problem(row.text) is not None or is_blank(row.text)


def _segments(clip: Row, begin: float, end: float | None) -> tuple[TextSegment, ...]:
    """Return the texts of a clip with times in its recording, where the clip lasts from `begin` to `end` seconds."""
    if clip.segments is None:
        return (TextSegment(clip.text, begin, end),)
    return tuple(
        TextSegment(text, begin + start, end if until is None else begin + until)
        for text, start, until in clip.segments
    )


def _shared_columns(clips: Sequence[Row]) -> dict[str, str | None] | None:
    """Return the extra columns, each with the value that all clips share, else None."""
    columns = [clip.columns or {} for clip in clips]
    shared = {
        name: value if all(other.get(name) == value for other in columns) else None
        for name, value in columns[0].items()
    }
    return shared if clips[0].columns is not None else None


def _bytes_of(rows: Sequence[Row]) -> int:
    """Bytes of audio; each object is counted once, because segments of one recording share it."""
    return sum({id(row.audio): len(row.audio) for row in rows}.values())


def _as_wav(waveform: Waveform) -> bytes:
    """Encode samples without loss, so that decoding gives the same samples."""
    file = io.BytesIO()
    soundfile.write(file, waveform, SAMPLE_RATE, format="WAV", subtype="FLOAT")
    return file.getvalue()
