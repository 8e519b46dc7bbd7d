"""One row of a source."""

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
