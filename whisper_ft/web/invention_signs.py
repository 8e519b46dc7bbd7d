"""Signs that the text of a window is invented. People should listen there; no sign is a proof."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from whisper_ft.decoding.long_form import AudioWindow
from whisper_ft.decoding.window_transcript import WindowTranscript
from whisper_ft.scoring.hallucination import LOOP_TIMES, MAX_COMPRESSION_RATIO, compression_ratio, longest_loop
from whisper_ft.scoring.scores import CHARACTERS, WORDS

SILENT_PEAK = 10 ** (-70 / 20)
"""Peak below which a window has no sound: 70 dB below full scale, 10 steps of 16 bits. Speech is above -50 dB."""
NO_SPEECH, UNLIKELY = 0.6, -1.0
"""Limits of openai-whisper: for the probability of no speech, and for the mean log-probability of the tokens."""
LONGEST_WORD = 20
"""Mean length of the words of a text, in characters, from which on it is taken for one without spaces."""


@dataclass(frozen=True)
class Sign:
    """Sign of invented text in a part of a recording."""

    code: str
    message: str
    begin: float
    """In seconds of the recording."""
    end: float

    def record(self) -> dict[str, Any]:
        """Return the sign as JSON values."""
        return asdict(self) | {"begin": round(self.begin, 3), "end": round(self.end, 3)}


def silence_sign(window: AudioWindow) -> Sign:
    """Return the sign of a window without sound."""
    return Sign("silence", "there is no sound, so nothing was transcribed", *_span(window))


def signs_of(window: AudioWindow, transcript: WindowTranscript) -> list[Sign]:
    """Return the signs of a decoded window."""
    return [Sign(code, message, *_span(window)) for code, message in _found(transcript)]


def _found(transcript: WindowTranscript) -> Iterator[tuple[str, str]]:
    confidence, text = transcript.confidence, transcript.text
    unlikely = confidence.avg_logprob < UNLIKELY
    if (confidence.no_speech_prob or 0.0) > NO_SPEECH and (unlikely or not transcript.is_speech):
        yield "no_speech", f"probably nobody speaks: probability {confidence.no_speech_prob:.2f}"
    elif unlikely and text:
        yield "unlikely", f"the model is unsure: mean log-probability {confidence.avg_logprob:.2f}"
    has_spaces = len(text) < LONGEST_WORD * len(text.split())
    times, repeated = longest_loop(text, WORDS if has_spaces else CHARACTERS)
    if times >= LOOP_TIMES:
        yield "loop", f"{repeated!r} {times:,} times in a row"
    elif (ratio := compression_ratio(text)) > MAX_COMPRESSION_RATIO:
        yield "compresses", f"the text repeats itself: it compresses {ratio:.1f} times"
    if transcript.hit_limit:
        yield "token_limit", f"the text was cut after {transcript.tokens:,} tokens"


def _span(window: AudioWindow) -> tuple[float, float]:
    return window.begin_seconds, window.begin_seconds + window.window_seconds
