"""Types that pass between the parts of the data pipeline: rows, sources, windows, batches."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, Self

import torch

from whisper_ft.runtime.errors import UsageError
from whisper_ft.runtime.redaction import redacted

IGNORE = -100  # label of a position without a target; the default `ignore_index` of torch's cross_entropy
NO_FEATURES = torch.empty(0, 0)
"""Placeholder for features that are stored elsewhere or no longer needed."""


@dataclass(frozen=True)
class Row:
    """One utterance as stored: encoded audio and its transcript."""

    id: str
    audio: bytes
    text: str
    language: str | None = None
    task: str | None = None
    speaker: str | None = None
    offset: float = 0.0
    """Start of the utterance in its audio file, in seconds."""
    duration: float | None = None
    """Length of the utterance in seconds; None means up to the end of the audio."""
    stated: float | None = None
    """Length of the audio in seconds as a list without offsets states it. It is only compared with the audio."""
    problem: tuple[str, str] | None = None
    """Reason code (such as missing_file) and explanation if the source found the row to be unusable."""
    columns: Mapping[str, str | None] | None = None
    """Values of the extra columns by column name; None if no extra columns were requested."""
    segments: "tuple[TextSegment, ...] | None" = None
    """Parts of the transcript with their times; None if the row brings none. `text` then joins their texts."""
    prompt: str | None = None
    """Previous text or other context of the row, "" if it has none; None if `data.prompt_column` is not given."""
    label_problem: tuple[str, str] | None = None
    """Reason code and explanation if the times of the transcript cannot be used. The row can still be evaluated."""
    recording: str | None = None
    """Name of the file of which the row is a part or the whole; None in formats that hold the audio themselves."""
    unread_part: str | None = None
    """Reason code of a part of the audio that could not be read; the other parts are used."""
    overruled: "tuple[Overruled, ...]" = ()
    """Columns of language and task that say otherwise than the settings that are used for this row."""


class TextSegment(NamedTuple):
    """Part of a transcript, with its times in seconds from the start of the utterance."""

    text: str
    """Empty if only the start of the speech is known: it goes on after the end of the audio."""
    begin: float
    end: float | None
    """None for the end of the audio."""


@dataclass(frozen=True)
class UsedParts:
    """Parts of a data set that its source reads: the splits, and the columns."""

    split: str | None = None
    """Splits that are read, such as `train+validation`; None if the data has no splits."""
    audio: str | None = None
    """Column of the audio; None if the format has none."""
    text: str | None = None
    """Column of the transcript; None if the format has none."""
    language: str | None = None
    """Column of the language, or the file that holds it; None if there is none, or it is not read."""
    task: str | None = None
    """Column of the task, as `language`."""
    other_splits: str | None = None
    """Splits that are not read although the user named none."""


class Overruled(NamedTuple):
    """Value of a column that is not used, because a setting counts or because Whisper does not have it."""

    column: str
    value: str
    used: str
    """Words for the value used instead, such as `data.language be`."""


class Source(Protocol):
    """Rows of a data set, stored in chunks that are read one at a time.

    A chunk is a group of rows that is read at once, such as a row group of a parquet file.
    """

    @property
    def rows(self) -> Sequence[int]:
        """Number of rows in each chunk."""

    @property
    def largest_chunk(self) -> int | None:
        """Size of the largest chunk in memory, in bytes; None if the index does not say."""

    def read(self, chunk: int) -> Sequence[Row]:
        """Read the rows of one chunk, in stored order."""

    def row_id(self, chunk: int, row: int) -> str:
        """Id of a row, known without reading the row and equal in every run."""

    def fingerprint(self) -> dict[str, Any]:
        """JSON summary of the index. Checkpoints record it, and a resumed run compares it."""

    def content(self) -> dict[str, Any]:
        """JSON digests of the content of the files, beside the fingerprint. Computing them reads sizes and samples."""


class FormatSource(Source, Protocol):
    """Source of one format, before settings and columns are weighed against each other (`data.labelled`)."""

    @property
    def used(self) -> UsedParts:
        """Parts of the data that are read."""

    def labels(self, chunk: int) -> "Sequence[Labels]":
        """Language and task of the rows of a chunk, by their columns. No audio is read."""


Labels = tuple[object, object]
"""Values of the columns of language and task in a row, None without a value."""


@dataclass(frozen=True)
class Window:
    """One input of the encoder, and the token sequence that the decoder learns to write for it."""

    features: torch.Tensor
    """Log-mel [M, t]: M bins, t frames of 10 ms. If t is below the model's T, the last frame is the silence frame and
    is repeated up to T when the batch is built. Short clips are mostly padding, so this saves memory and transport."""
    tokens: list[int]
    """Start token, language, task, ..., text, end token; a prompt may stand before the start token."""
    utterances: tuple[str, ...]
    """Ids of the rows in the window; empty for a window without speech."""
    audio_samples: int = 0
    """Length of the utterances at the model's sampling rate, without gaps and padding."""
    filled_samples: int = 0
    """Length of utterances and gaps, or of noise; the rest of the window is padding."""
    first_target: int = 1
    """Index of the first token that the decoder learns to predict. Earlier tokens, such as a prompt, are only read."""


@dataclass(frozen=True)
class Rejected:
    """A row that cannot be used, with the reason. Its batch position stays empty."""

    id: str
    reason: str  # code: decode_error, too_long, ...
    detail: str  # explanation for a person
    slot: int = 0  # number of the row in its block


class UnhonouredError(UsageError):
    """A setting that cannot be honoured for a data set. `setting` is its name in `SourceConfig`."""

    def __init__(self, setting: str, message: str) -> None:
        super().__init__(message)
        self.setting = setting


class RejectedError(Exception):
    """Raised if a row cannot become a window. The window reader turns this error into a `Rejected`."""

    def __init__(self, reason: str, detail: str) -> None:
        detail = redacted(detail)
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


# B windows, M mel bins, T frames of 10 ms, L label tokens of the longest window, N targets
@dataclass(frozen=True)
class Batch:
    """Tensors of one forward pass."""

    input_features: torch.Tensor  # [B, M, T] float32
    decoder_input_ids: torch.Tensor  # [B, L] int64
    labels: torch.Tensor  # [B, L] int64, IGNORE at positions without a target
    predicted: torch.Tensor  # [N] int64, indices into labels.flatten() that have a target; computed on the CPU once
    utterances: tuple[str, ...]

    def text_tokens(self, end: int) -> int:
        """Return the number of targets that are text: their ids are below that of the end token."""
        targets = self.labels.flatten()[self.predicted]
        return int((targets < end).sum())

    def to(self, device: torch.device) -> Self:
        """Return a copy of the batch on a device. Tensors that are on that device already are shared, not copied.

        Copies from page-locked memory may still be under way when this returns.
        """
        return replace(
            self,
            input_features=self.input_features.to(device, non_blocking=True),
            decoder_input_ids=self.decoder_input_ids.to(device, non_blocking=True),
            labels=self.labels.to(device, non_blocking=True),
            predicted=self.predicted.to(device, non_blocking=True),
        )


class Collator(Protocol):
    """Function that assembles windows into a batch. `SpeechCollator` of the root's collator.py implements it."""

    def __call__(self, windows: Sequence[Window]) -> Batch:
        """Return the batch of the windows. Without windows, the batch has one silent window and no targets."""


class CollatorFactory(Protocol):
    """Function that builds the collator for a model."""

    def __call__(
        self, *, start_token: int, pad_token: int, feature_shape: tuple[int, int], pin_memory: bool
    ) -> Collator:
        """Return a collator for features [M, T]. `pin_memory` puts features into page-locked memory for a GPU."""
