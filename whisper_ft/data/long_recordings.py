"""Recordings of a set of long ones: those of the set, or clips of the set joined to recordings."""

from itertools import islice

from whisper_ft.config.data import LONG_SECONDS, NamedSourceConfig
from whisper_ft.data.joined_recordings import (
    PAUSE_SECONDS,
    JoinedRecordings,
    clips_of,
    length_of,
    plan_recordings,
    seconds_of,
)
from whisper_ft.data.types import Source
from whisper_ft.runtime.collectives import Collectives
from whisper_ft.runtime.errors import UsageError

RULES = 1
"""Version of the rules of the join, raised if the same clips would give other recordings."""


def long_recordings(
    source: Source,
    where: NamedSourceConfig,
    most: int | None,
    window_seconds: float,
    collectives: Collectives,
    setting: str,
) -> Source:
    """Return the recordings of a set by its setting `long`; the set itself if its rows are the recordings.

    Every rank must call it. The main process reads the headers of the clips, and the others get its plan.

    Parameters
        source: the set.
        where: its settings.
        most: number of rows that count, from the start of the set; None for all.
        window_seconds: length of the model's input.
        setting: name of the setting `long` in an error, such as `--long`.

    Raises UsageError if no recording is longer than a window, and if `long_seconds` is not either.
    """
    if where.long is False:
        return source
    if where.long == "given":
        collectives.broadcast_from_main(lambda: _refuse_short(source, most, window_seconds, setting))
        return source
    seconds = where.long_seconds or LONG_SECONDS
    if seconds <= window_seconds:
        raise UsageError(
            f"{setting}_seconds {seconds:g}: must be more than the {window_seconds:g} s that the model hears at once"
        )
    recordings = collectives.broadcast_from_main(lambda: plan_recordings(source, seconds, most))
    longest = max(map(length_of, recordings), default=0.0)
    if longest <= window_seconds:
        raise UsageError(
            f"{setting} true: the clips give no recording of more than {longest:.1f} s, and the model hears "
            f"{window_seconds:g} s at once; give more clips"
        )
    clips = sum(map(len, recordings))
    rule = {"seconds": seconds, "pause": PAUSE_SECONDS, "clips": clips, "rules": RULES}
    return JoinedRecordings(source, recordings, rule)


def _refuse_short(source: Source, most: int | None, window_seconds: float, setting: str) -> None:
    """Raise UsageError if no row is longer than a window. The first rows are read until one is."""
    if not any((seconds_of(row) or 0.0) > window_seconds for _, row in islice(clips_of(source), most)):
        raise UsageError(
            f"{setting} given: no recording of the set is longer than the {window_seconds:g} s that the model hears at "
            "once; true joins clips to longer recordings"
        )
