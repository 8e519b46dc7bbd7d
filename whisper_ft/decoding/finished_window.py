"""Finished window of a recording: its part of the transcript, with all times in seconds of the recording."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from whisper_ft.decoding.long_form import AudioWindow
from whisper_ft.decoding.window_transcript import WindowTranscript
from whisper_ft.decoding.word_times import Word
from whisper_ft.reports.transcript_formats import Segment, SpokenWord


@dataclass(frozen=True)
class FinishedWindow:
    """Transcript of one window."""

    number: int
    seconds: float
    """Length of the window."""
    text: str
    language: str | None
    """Code, if it was detected."""
    segments: tuple[Segment, ...]

    @classmethod
    def of(cls, window: AudioWindow, transcript: WindowTranscript) -> Self:
        """Make it from the output of the decoder."""
        segments = tuple(_segments(window, transcript))
        return cls(window.number, window.window_seconds, transcript.text, transcript.language, segments)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Make it from the JSON value of `to_json`. Raises TypeError or LookupError for any other value."""
        segments = tuple(
            Segment(**{**segment, "words": segment["words"] and tuple(SpokenWord(**word) for word in segment["words"])})
            for segment in value["segments"]
        )
        return cls(**{**value, "segments": segments})

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)


def text_of(windows: Sequence[FinishedWindow]) -> str:
    """Join the texts of all windows, as an evaluation joins them (`Transcriber.to_prediction`)."""
    return " ".join(filter(None, (window.text for window in windows)))


def language_of(windows: Sequence[FinishedWindow]) -> str | None:
    """Return the language that was detected in most windows, weighted by their length; None if none was detected."""
    seconds: dict[str, float] = defaultdict(float)
    for window in windows:
        if window.language and window.text:
            seconds[window.language] += window.seconds
    detected = next((window.language for window in windows if window.language), None)
    return max(seconds, key=lambda language: seconds[language]) if seconds else detected


def _segments(window: AudioWindow, transcript: WindowTranscript) -> Iterator[Segment]:
    """Yield the phrases of a window, or its whole text if the model wrote no times. Empty texts are left out."""
    begin, length, confidence = window.begin_seconds, window.window_seconds, transcript.confidence
    phrases = [(phrase.start, phrase.end, phrase.text, phrase.avg_logprob) for phrase in transcript.phrases]
    for number, (start, end, text, logprob) in enumerate(
        phrases or [(0.0, None, transcript.text, confidence.avg_logprob)]
    ):
        if not text:
            continue
        last = length if end is None else min(end, length)
        words = None
        if transcript.words is not None:
            words = tuple(_in_recording(word, window) for word in transcript.words if word.phrase == number)
        yield Segment(
            start=begin + min(start, last),
            end=begin + last,
            text=text,
            avg_logprob=_finite(logprob),
            no_speech_prob=_finite(confidence.no_speech_prob),
            compression_ratio=confidence.compression_ratio,
            temperature=confidence.temperature,
            words=words,
        )


def _in_recording(word: Word, window: AudioWindow) -> SpokenWord:
    start, end = (window.begin_seconds + min(time, window.window_seconds) for time in (word.start, word.end))
    return SpokenWord(word.text, start, end, _finite(word.probability) or 0.0)


def _finite(value: float | None) -> float | None:
    """Return a number that JSON can hold; None for NaN and infinity, which a damaged model may give."""
    return value if value is not None and math.isfinite(value) else None
