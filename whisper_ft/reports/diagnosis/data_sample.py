"""Sample of a run's training data, read again for a diagnosis."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class SampledText:
    """Transcript of a training row."""

    id: str
    text: str
    language: str | None
    """Whisper's code of the language under which the row is learned; None if it is not known."""


@dataclass(frozen=True)
class DataSample:
    """First rows of the training data, and their comparison with the held-out set."""

    texts: Sequence[SampledText]
    rows: int
    """Rows of the whole training data."""
    leaks: Sequence[str] = ()
    """A line for each kind of recording that both sets share, with examples."""
    leaked_rows: int = 0
    """Held-out rows whose recording is in the sample."""
    held_out_rows: int = 0
    """Held-out rows that were compared; 0 if none could be read, or if all of them have one sentence."""
    compared_with: str = ""
    """Rows with which the sample was compared, in words; "" if it was compared with none."""
    not_compared: str = ""
    """Reason why the held-out set itself was not compared; "" if it was."""
    shared_sentences: int = 0
    """Held-out rows whose sentence is in the sample, read by anybody."""
