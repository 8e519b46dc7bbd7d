"""Usable transcript of a row: the texts that are learned, and the times at which they are said in a window."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from whisper_ft.data.audio.containers import Waveform
from whisper_ft.data.audio.speech_span import speech_span
from whisper_ft.data.augment.waveform.time_map import SAME_TIMES, TimeMap
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.data.labels.window_label import TIMES_PER_SECOND, PlacedText
from whisper_ft.data.types import RejectedError, Row, TextSegment

SLACK_SECONDS = 0.1
"""Seconds by which a segment may end after its audio, because coding may cut off as much."""
ROUNDING = 1e-6
"""Share of a time step by which a product of decimals may miss the step: 0.58 * 50 is 28.999999999999996."""


@dataclass(frozen=True)
class UsableTranscript:
    """Texts of a row in the order in which they are said, stripped and normalised."""

    segments: Sequence[TextSegment]
    """Several if the row brings times, else one for the whole utterance."""
    is_timed: bool
    """True if the row brings times."""

    @classmethod
    def of(cls, row: Row, encode: LabelEncoder) -> Self:
        """Check the transcript of a row. A segment of which the normaliser leaves nothing is left out.

        Raises RejectedError as `LabelEncoder.usable_text` does, and with the row's `label_problem`.
        """
        if row.label_problem is not None:
            raise RejectedError(*row.label_problem)
        if row.segments is None:
            whole = TextSegment(encode.usable_text(row.text, row.language, row.task), 0.0, None)
            return cls([whole], is_timed=False)
        if not any(segment.text for segment in row.segments):
            raise RejectedError("empty_label", "no segment has a text")
        segments = [usable for segment in row.segments if (usable := _usable(segment, row, encode)) is not None]
        if not any(segment.text for segment in segments):
            raise RejectedError("empty_label", f"data.normalizer leaves nothing of {row.text!r}")
        transcript = cls(segments, is_timed=True)
        tokens = transcript.cost(encode) - 2 * len(segments)
        if (over := tokens + 1 - encode.capacity) > 0:
            limit = encode.max_tokens
            raise RejectedError("label_too_long", f"{limit + over} label tokens, the decoder has {limit}")
        return transcript

    def cost(self, encode: LabelEncoder) -> int:
        """Return the most tokens that the texts take in a window, as `LabelEncoder.cost` counts them."""
        return sum(encode.cost(segment.text) for segment in self.segments)

    def spoken(
        self, waveform: Waveform, rate: int, at: int, *, timestamps: bool, times: TimeMap = SAME_TIMES
    ) -> list[PlacedText]:
        """Return the texts with their times in a window, in which the waveform begins after `at` steps of 0.02 s.

        Without times of the row, they are the begin and the end of its speech. Without `timestamps`, they are only in
        order. `waveform` is the one before augmentation, in which the speech is found, and `times` leads to the times
        after it. Raises RejectedError (`bad_times`) if a segment ends after the audio.
        """
        seconds = len(waveform) / rate
        if not self.is_timed:
            first, stop = speech_span(waveform, rate) if timestamps else (0, len(waveform))
            return [_timed(self.segments[0].text, times(first / rate), times(stop / rate), at)]
        for text, begin, end in self.segments:
            if (last := max(begin, end or 0.0)) > seconds + SLACK_SECONDS:
                raise RejectedError("bad_times", f"{text!r} goes on to {last:g} s, and the audio has {seconds:.2f} s")
        return [
            _timed(text, times(min(begin, seconds)), times(min(seconds if end is None else end, seconds)), at)
            if text
            else PlacedText("", at + _floor(times(begin)), None)
            for text, begin, end in self.segments
        ]

    def plain_label(self, row: Row, encode: LabelEncoder) -> list[int]:
        """Return the tokens of the label without timestamps, if the row makes a window of its own."""
        texts = [PlacedText(segment.text, 0, 0) for segment in self.segments if segment.text]
        return encode.window(texts, row.language, row.task, timestamps=False).tokens


def _usable(segment: TextSegment, row: Row, encode: LabelEncoder) -> TextSegment | None:
    """Return a segment with its usable text; None if the normaliser leaves nothing of it.

    A segment without text only says when speech begins, and stays.
    """
    if not segment.text:
        return segment
    try:
        return segment._replace(text=encode.usable_text(segment.text, row.language, row.task))
    except RejectedError as rejected:
        if rejected.reason == "empty_label":
            return None
        raise


def _timed(text: str, begin: float, end: float, at: int) -> PlacedText:
    return PlacedText(text, at + _floor(begin), at + math.ceil(end * TIMES_PER_SECOND - ROUNDING))


def _floor(seconds: float) -> int:
    return math.floor(seconds * TIMES_PER_SECOND + ROUNDING)
