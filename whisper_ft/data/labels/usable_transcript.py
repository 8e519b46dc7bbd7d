"""Usable transcript of a row: the texts that are learned, and the times at which they are said in a window."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from whisper_ft.data.audio.containers import Waveform
from whisper_ft.data.audio.speech_span import speech_span
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.data.labels.window_label import TIMES_PER_SECOND, TimedText
from whisper_ft.data.types import RejectedError, Row, TextSegment

SLACK_SECONDS = 0.1
"""Seconds by which a segment may end after its audio, because coded audio may lose as much at its end."""


@dataclass(frozen=True)
class UsableTranscript:
    """Texts of a row in the order in which they are said, stripped and normalised."""

    segments: Sequence[TextSegment]
    """Several if the row brings times, else one for the whole utterance."""
    is_timed: bool
    """True if the row brings times."""
    cost: int
    """Tokens in a window, as `LabelEncoder.cost` counts them."""

    @classmethod
    def of(cls, row: Row, encode: LabelEncoder) -> Self:
        """Check the transcript of a row. Raises RejectedError as `LabelEncoder.usable_text` does."""
        if row.segments is None:
            whole = TextSegment(encode.usable_text(row.text, row.language, row.task), 0.0, None)
            return cls([whole], False, encode.cost(whole.text))
        segments = [
            segment._replace(text=encode.usable_text(segment.text, row.language, row.task)) for segment in row.segments
        ]
        return cls(segments, True, sum(encode.cost(segment.text) for segment in segments))

    def spoken(self, waveform: Waveform, rate: int, at: int, *, timestamps: bool) -> list[TimedText]:
        """Return the texts with their times in a window, in which the waveform begins after `at` steps of 0.02 s.

        Without times of the row, they are the begin and the end of its speech. Without `timestamps`, they are only
        ordered. Raises RejectedError (`bad_times`) if a segment ends after the audio.
        """
        seconds = len(waveform) / rate
        if not self.is_timed:
            begin, end = speech_span(waveform, rate) if timestamps else (0, len(waveform))
            return [_spoken(self.segments[0].text, begin / rate, end / rate, at)]
        for segment in self.segments:
            if max(segment.begin, segment.end or 0) > seconds + SLACK_SECONDS:
                raise RejectedError("bad_times", f"{segment.text!r} ends after the audio of {seconds:.2f} s")
        return [
            _spoken(text, min(begin, seconds), seconds if end is None else min(end, seconds), at)
            for text, begin, end in self.segments
        ]


def _spoken(text: str, begin: float, end: float, at: int) -> TimedText:
    return TimedText(text, at + math.floor(begin * TIMES_PER_SECOND), at + math.ceil(end * TIMES_PER_SECOND))
