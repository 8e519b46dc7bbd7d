"""What the model is given: a window of log-mel frames and the tokens of what is said in it.

An utterance is a row of the data; a window is the model's input. Today a window holds one utterance.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

NO_FEATURES = torch.empty(0, 0)
"""In place of features that are kept elsewhere, or no longer needed."""


@dataclass(frozen=True)
class Window:
    """One input of the encoder with the target of the decoder."""

    features: torch.Tensor
    """[M, t] log-mel of M bins and t frames of 10 ms. Of fewer than the T that the model hears, the last one stands for
    all that follow: the frames of padding are alike, and of a short clip they are nearly all there are."""
    tokens: list[int]  # start token, language, task, ..., text, end token
    utterances: tuple[str, ...]  # ids of the rows it was made from
    audio_samples: int = 0  # of their audio at the model's rate, the padding not counted


@dataclass(frozen=True)
class Rejected:
    """A row that leaves its slot empty, and why."""

    id: str
    reason: str  # a code: decode_error, too_long, ...
    detail: str  # for people


class RejectedError(Exception):
    """Raised below the stream when a row cannot become a window; becomes an Unusable there."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


"""One row of a source."""


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


"""What a source is."""


class Source(Protocol):
    """Rows in chunks, read at random."""

    @property
    def rows(self) -> Sequence[int]:
        """Number of rows of each chunk."""

    @property
    def largest_chunk(self) -> int | None:
        """Bytes of the largest chunk in memory, where the index tells."""

    def read(self, chunk: int) -> Sequence[Row]:
        """The rows of one chunk, in their order."""

    def row_id(self, chunk: int, row: int) -> str:
        """Id of a row, without reading it: the same in every run."""

    def fingerprint(self) -> dict[str, Any]:
        """What the index says, in a few JSON values: recorded in checkpoints and compared on resume."""
