"""Transcript of one window, and the parts of a prediction that are joined from the windows of an utterance."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from whisper_ft.data.types import Row
from whisper_ft.decoding.confidence import TranscriptConfidence, rounded
from whisper_ft.decoding.long_form import AudioWindow
from whisper_ft.decoding.teacher_forced import LabelLoss
from whisper_ft.decoding.word_times import Word
from whisper_ft.scoring.long_form_figures import VALID_TIMESTAMPS, ReferencePart


class TimedPhrase(NamedTuple):
    """Text between two timestamps, with times in seconds from the start of the window."""

    start: float
    end: float | None
    """None if the closing timestamp is missing."""
    text: str
    avg_logprob: float
    """Mean log-probability of the tokens of the text, without timestamps."""


class WindowTranscript(NamedTuple):
    """Transcript of one window."""

    text: str
    ids: list[int]
    """All tokens as they were written, with timestamps, also of a text that was dropped."""
    hit_limit: bool
    language: str | None
    """Code of the language, if it was detected."""
    phrases: list[TimedPhrase]
    """Only with timestamps."""
    confidence: TranscriptConfidence
    is_speech: bool = True
    """False if the window was taken for silence; its text is then empty."""
    loss: LabelLoss | None = None
    """Loss of the reference, if losses are computed."""
    words: list[Word] | None = None
    """Words with their times, if they were asked for."""
    timestamps: bool | None = None
    """Result of the check of timestamps, in a set of long recordings."""

    @property
    def tokens(self) -> int:
        """Number of tokens that were written."""
        return len(self.ids) if self.is_speech else 0

    def silenced(self) -> "WindowTranscript":
        """Return the transcript of a window without speech. The figures of the dropped text stay."""
        return self._replace(text="", hit_limit=False, phrases=[], is_speech=False)


def segments_of(
    windows: Sequence[AudioWindow], transcripts: Sequence[WindowTranscript]
) -> list[tuple[float, float, str]]:
    """Return the phrases of all windows as (start, end, text), in seconds of the recording.

    A phrase without an end lasts until its window ends.
    """
    window_ends = [*(window.begin_seconds for window in windows[1:]), windows[0].seconds]
    segments = []
    for window, transcript, window_end in zip(windows, transcripts, window_ends, strict=True):
        for phrase in transcript.phrases:
            until = window_end if phrase.end is None else min(window.begin_seconds + phrase.end, window_end)
            start = min(window.begin_seconds + phrase.start, until)
            segments.append((round(start, 2), round(until, 2), phrase.text))
    return segments


def segment_logprobs_of(transcripts: Sequence[WindowTranscript]) -> list[float | None]:
    """Return the mean log-probability of each of these phrases."""
    return [rounded(phrase.avg_logprob) for transcript in transcripts for phrase in transcript.phrases]


def window_confidence_of(
    windows: Sequence[AudioWindow], transcripts: Sequence[WindowTranscript], *, is_long: bool = False
) -> list[dict[str, Any]]:
    """Return a record for each window: its start in seconds, number of tokens, and confidence.

    In a set of long recordings (`is_long`), also the result of the check of timestamps; None for unreadable audio.
    """
    return [
        {
            "begin": round(window.begin_seconds, 2),
            "tokens": len(transcript.ids),
            **transcript.confidence.record(),
            "is_speech": transcript.is_speech,
            **({VALID_TIMESTAMPS: transcript.timestamps if window.seconds else None} if is_long else {}),
        }
        for window, transcript in zip(windows, transcripts, strict=True)
    ]


def reference_times(row: Row, seconds: float) -> list[ReferencePart] | None:
    """Return the texts of a reference with their times, in a recording of `seconds`; None if the row has no times."""
    if row.segments is None:
        return None
    ends = [min(seconds if segment.end is None else segment.end, seconds) for segment in row.segments]
    return [
        (round(min(segment.begin, end), 3), round(end, 3), segment.text)
        for segment, end in zip(row.segments, ends, strict=True)
    ]
