"""One row of a source."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """An utterance as stored: encoded audio and what is said in it."""

    id: str
    audio: bytes
    text: str
    language: str | None = None
    task: str | None = None
    speaker: str | None = None
    offset: float = 0.0
    """Seconds of the audio before the utterance, in a recording of several."""
    duration: float | None = None
    """Seconds of the utterance; None is all that follows."""
    problem: tuple[str, str] | None = None
    """Reason code, and detail for people, where there is no audio: missing_file, outside_root, file_too_large, ..."""
    columns: Mapping[str, str | None] | None = None
    """Other columns by name, where some were asked for."""
