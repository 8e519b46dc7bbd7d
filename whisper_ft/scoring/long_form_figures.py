"""Figures of long recordings: deletions, their share at the ends of windows, and windows with valid timestamps."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from whisper_ft.scoring.edit_distance import ErrorCount, deleted_places
from whisper_ft.scoring.normalizer import Normalizer
from whisper_ft.scoring.unicode_text import encodable, single_spaces

LATE_SHARE = 0.1
"""Share of a window, at its end, in which a deletion is late. By chance about as large a share of deletions is late."""
VALID_TIMESTAMPS = "timestamps"
"""Field of a window's record: True if its timestamps are valid, None if it was not heard or wrote nothing. Only windows
of a set of long recordings have it."""

ReferencePart = tuple[float, float, str]
"""Begin and end in seconds of a recording, and the text that is said between them."""


class TimedDeletions(NamedTuple):
    """Deletions in recordings whose references have times."""

    late: int
    """Number of deleted words (characters in scripts without spaces) in the last tenth of a window."""
    all: int


@dataclass(frozen=True)
class LongFormFigures:
    """Figures of a set of long recordings, as fractions; None where nothing can be counted."""

    deletion_rate: float | None
    """Deletions per word (or character) of the references."""
    late_deletions: float | None
    """Share of the deletions in the last tenth of a window; None without deletions, or without times."""
    timestamps: float | None
    """Share of windows with valid timestamps, of those in which the model wrote anything without being guided."""

    @classmethod
    def of(
        cls,
        windows: Iterable[Mapping[str, Any]],
        errors: ErrorCount,
        timed: Iterable[TimedDeletions | None],
    ) -> "LongFormFigures | None":
        """Compute the figures of a set; None if it is not a set of long recordings.

        Parameters
            windows: records of all windows.
            errors: of the set, in the unit of its headline.
            timed: deletions of each recording; None for a recording without times.
        """
        checked = [window[VALID_TIMESTAMPS] for window in windows if VALID_TIMESTAMPS in window]
        if not checked:
            return None
        known = [deletions for deletions in timed if deletions is not None]
        late, deleted = sum(one.late for one in known), sum(one.all for one in known)
        valid = [value for value in checked if value is not None]
        length = errors.reference_length
        return cls(
            deletion_rate=errors.deletions / length if length else None,
            late_deletions=late / deleted if deleted else None,
            timestamps=sum(valid) / len(valid) if valid else None,
        )

    def summary(self) -> dict[str, float | None]:
        """Return the figures as JSON values, by the names that they have in a summary."""
        return {
            "deletion_rate": self.deletion_rate,
            "late_deletions": self.late_deletions,
            VALID_TIMESTAMPS: self.timestamps,
        }


def count_timed_deletions(
    texts: Sequence[ReferencePart] | None,
    windows: Sequence[Mapping[str, Any]] | None,
    audio_seconds: float,
    hypothesis: str,
    normalize: Normalizer,
) -> TimedDeletions | None:
    """Count the deletions of a recording, and those in the last tenth of a window; None without times or windows.

    A word is said at the middle of its share of its text's time: word k of n at begin + (k + 1/2) / n of the length.
    It belongs to the window in which that time lies. A window lasts until the next one begins, and the last one until
    the end of the recording. The word is late if its time is at least 9/10 of the way through the window.

    Parameters
        texts: the reference as texts with times.
        windows: records of the windows, with `begin`, in order.
        audio_seconds: length of the recording.
        hypothesis: normalised transcript.
        normalize: normaliser of the texts. Each text is normalised for itself.
    """
    if texts is None or not windows or not all("begin" in window for window in windows):
        return None
    words, times = list[str](), list[float]()
    for begin, end, text in texts:
        own = _units(single_spaces(normalize(encodable(text))), normalize)
        words += own
        times += [begin + (number + 0.5) / len(own) * (end - begin) for number in range(len(own))]
    begins = [float(window["begin"]) for window in windows]
    ends = [*begins[1:], max(audio_seconds, begins[-1])]
    late, places = 0, deleted_places(words, _units(hypothesis, normalize))
    for place in places:
        window = max(bisect_right(begins, times[place]) - 1, 0)
        late += times[place] >= ends[window] - LATE_SHARE * (ends[window] - begins[window])
    return TimedDeletions(late, len(places))


def checked_texts(value: Any) -> list[ReferencePart] | None:
    """Return the stored texts of a reference with their times; None if there are none. Raises ValueError otherwise."""
    if value is None:
        return None
    try:
        return [(float(begin), float(end), _text(text)) for begin, end, text in value]
    except (TypeError, ValueError):
        message = f"'ref_segments' must be a list of [begin, end, text], and is {str(value)[:100]}"
        raise ValueError(message) from None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(type(value).__name__)
    return value


def _units(text: str, normalize: Normalizer) -> list[str]:
    """Words of a normalised text, or its characters if the headline rate counts characters."""
    return text.split() if normalize.unit == "words" else [*text.replace(" ", "")]
