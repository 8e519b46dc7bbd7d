"""Confidence of a transcript: how likely its tokens were, how much its text repeats itself, and if there was speech.

The figures are those of OpenAI's decoding (whisper/decoding.py and transcribe.py).
"""

import math
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Self

from whisper_ft.config.evaluation import DecodingConfig
from whisper_ft.decoding.greedy import Decoded

DECIMALS = 4  # of the figures in files; further ones depend on the batch


@dataclass(frozen=True)
class TranscriptConfidence:
    """Figures about the transcript of one window."""

    avg_logprob: float
    """Sum of the log-probabilities of all tokens and the end token, divided by the number of tokens plus 1."""
    no_speech_prob: float | None
    """Probability that the window holds no speech; None if the model has no token for it."""
    compression_ratio: float
    """Bytes of the text in UTF-8, divided by their number after zlib; 0 for the empty text."""
    temperature: float
    """Temperature of the attempt that wrote the text; 0 for the first."""

    @classmethod
    def of(cls, decoded: Decoded, text: str, temperature: float) -> Self:
        """Compute the figures of one row that was decoded at a temperature to a text."""
        mean = math.fsum(decoded.logprobs) / (len(decoded.tokens) + 1)
        return cls(mean, decoded.no_speech_prob, compression_ratio(text), temperature)

    def record(self) -> dict[str, float | None]:
        """Return the figures as JSON values; a figure that is not finite becomes None."""
        return {name: rounded(value) for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Thresholds:
    """Limits beyond which a transcript is decoded again, or taken for no speech. None switches a limit off."""

    no_speech: float | None
    logprob: float | None
    compression_ratio: float | None

    @classmethod
    def of(cls, settings: DecodingConfig) -> Self:
        """Read the limits from the settings."""
        return cls(settings.no_speech_threshold, settings.logprob_threshold, settings.compression_ratio_threshold)

    def is_silence(self, confidence: TranscriptConfidence) -> bool:
        """Return True if a window holds no speech: its probability is high, and its text is not a likely one."""
        if self.no_speech is None or confidence.no_speech_prob is None:
            return False
        is_likely = self.logprob is not None and confidence.avg_logprob > self.logprob
        return confidence.no_speech_prob > self.no_speech and not is_likely

    def is_doubtful(self, confidence: TranscriptConfidence) -> bool:
        """Return True if a window should be decoded again: its text repeats itself or is unlikely, and not silence."""
        is_unlikely = self.logprob is not None and confidence.avg_logprob < self.logprob
        return (self._repeats(confidence) or is_unlikely) and not self.is_silence(confidence)

    def preferred(self, attempts: Sequence[TranscriptConfidence]) -> int:
        """Return the index of the attempt to take: the last one, if it is not doubtful.

        Else it is the likeliest of those that do not repeat themselves, or of all, as in faster-whisper. openai-whisper
        takes the last one in any case, and its random words double the words on noise.
        """
        if not self.is_doubtful(attempts[-1]):
            return len(attempts) - 1
        plain = [index for index, confidence in enumerate(attempts) if not self._repeats(confidence)]
        return max(plain or range(len(attempts)), key=lambda index: attempts[index].avg_logprob)

    def _repeats(self, confidence: TranscriptConfidence) -> bool:
        return self.compression_ratio is not None and confidence.compression_ratio > self.compression_ratio


def compression_ratio(text: str) -> float:
    """Return the factor by which zlib makes a text smaller. Loops reach 10 and more."""
    content = text.encode()
    return len(content) / len(zlib.compress(content))


def rounded(value: float | None) -> float | None:
    """Round a figure to DECIMALS for a file; a figure that JSON lacks becomes None."""
    return None if value is None or not math.isfinite(value) else round(value, DECIMALS)
