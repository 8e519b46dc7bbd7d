"""Window of the pool: its place, the text that the model wrote for it, and the figures by which it is kept."""

from dataclasses import asdict, dataclass
from typing import Any

from whisper_ft.scoring.transcript_agreement import letters_of

DECIMALS = 3
"""Digits of times in seconds; a timestamp of Whisper is a multiple of 0.02 s."""


@dataclass(frozen=True)
class PoolWindow:
    """A window, or an item that could not be read."""

    part: int
    """Part of the pool."""
    item: int
    """Place of the row or file in the part."""
    number: int
    """Number of the window in the row or file."""
    id: str
    source: str
    """Id of the row, or path of the file below the folder of all files."""
    begin: float
    """Seconds from the begin of the source."""
    seconds: float
    is_whole: bool = False
    """True if the source has no other window."""
    speaker: str | None = None
    reference: str | None = None
    """Text of the row if it has one and the window is all of it. It is never learned."""
    problem: str | None = None
    """Reason code of audio that could not be read; there is no text then."""
    detail: str = ""
    """Explanation of the problem."""
    text: str = ""
    language: str | None = None
    """Whisper's code of the language in which the text is written."""
    task: str | None = None
    detected_language: str | None = None
    avg_logprob: float | None = None
    no_speech_prob: float | None = None
    compression_ratio: float | None = None
    temperature: float | None = None
    hit_token_limit: bool = False
    segments: list[list[Any]] | None = None
    """Phrases as [start, end, text], in seconds of the window; None without timestamps."""
    disagreement: float | None = None
    """Largest share of letters in which another transcript differs; None without another one."""
    other_text: str | None = None
    """The other transcript that differs most."""

    @property
    def pace(self) -> float | None:
        """Letters and digits a second; None for a window that could not be read."""
        return len(letters_of(self.text)) / self.seconds if self.seconds else None

    @property
    def end(self) -> float:
        """Seconds from the begin of the source to the end of the window."""
        return round(self.begin + self.seconds, DECIMALS)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)


def window_id(source: str, begin: float, *, is_whole: bool) -> str:
    """Return the id of a window: that of its source, followed by its begin if the source has other windows."""
    return source if is_whole else f"{source}@{begin:.{DECIMALS}f}"
