"""Comparison of the durations in a list, which are only information, with the audio files."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from whisper_ft.data.audio.decode import header_seconds
from whisper_ft.data.labelled import LabelledSource

MAX_DIFFERENCE = 0.5
"""Seconds by which a stated duration may differ from its file, because lists round."""


@dataclass
class StatedDurations:
    """Counts of rows whose list states another duration than the file has."""

    compared: int = 0
    differing: int = 0
    example: str = ""  # the largest difference
    _largest: float = MAX_DIFFERENCE

    def add(self, row_id: str, stated: float | None, seconds: float | None) -> None:
        """Compare the stated length of a row and the length of its file, in seconds.

        A row that lacks one of them is not counted.
        """
        if stated is None or seconds is None:
            return
        self.compared += 1
        difference = abs(stated - seconds)
        self.differing += difference > MAX_DIFFERENCE
        if difference > self._largest:
            self._largest = difference
            self.example = f"{row_id}: the list says {stated:g} s, the file has {seconds:.2f} s"

    @property
    def line(self) -> str:
        """Line for the user; empty if no row differs."""
        if not self.differing:
            return ""
        return (
            f"`duration` differs from the file by more than {MAX_DIFFERENCE} s in {self.differing:,} of "
            f"{self.compared:,} rows, at most in {self.example}; files are heard whole, because there is no `offset`"
        )


def first_durations(sources: Iterable[LabelledSource]) -> Iterator[str]:
    """Return a line for each source whose first chunk with stated durations has other ones than the files.

    The audio of that chunk is read. A source without stated durations gives no line.
    """
    for source in sources:
        compared = StatedDurations()
        chunk = source.chunk_with_durations
        for row in () if chunk is None else source.read(chunk):
            if row.stated is not None and row.audio:
                compared.add(row.id, row.stated, header_seconds(row.audio))
        if compared.line:
            yield f"warning: {compared.line}"
