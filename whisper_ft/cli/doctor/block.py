"""What the sections of an examination are made of. Each tells itself as lines of text; page.py draws the same."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from whisper_ft.cli.doctor.histogram import Histogram
from whisper_ft.cli.doctor.spelling import letter_of, named, shown

Level = Literal["good", "fair", "poor"]
IN_A_LINE = 12  # letters with their counts


@dataclass(frozen=True)
class Finding:
    """How often something is so, and some of the rows where it is."""

    what: str
    count: str
    level: Level = "good"
    examples: Sequence[tuple[str, str]] = ()  # ids, and what is said of them
    joint: str = ": "

    def lines(self) -> list[str]:
        """The count, and the examples below it."""
        return [f"{self.what}: {self.count}", *(f"  {row}{self.joint}{said}" for row, said in self.examples)]


@dataclass(frozen=True)
class Letters:
    """Characters with how often each is written."""

    counts: Sequence[tuple[str, int]]
    different: int  # also those that are not among them
    suspicious: frozenset[str]

    def lines(self) -> list[str]:
        """Several in a line, and those written once by their names."""
        told = [f"{letter_of(character)} {rows:,}" for character, rows in self.counts]
        lines = [self.title, *("  " + "   ".join(told[i : i + IN_A_LINE]) for i in range(0, len(told), IN_A_LINE))]
        rare = [named(character) for character, rows in self.counts if rows == 1]
        return [*lines, f"written once: {', '.join(rare[:IN_A_LINE])}"] if rare else lines

    @property
    def title(self) -> str:
        """How many there are."""
        less = f", of which the first {len(self.counts):,} are shown" if len(self.counts) < self.different else ""
        return f"{self.different:,} different characters{less}, with how often each is written"


@dataclass(frozen=True)
class Table:
    """Columns with a head; all but the first are numbers."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def lines(self) -> list[str]:
        """Columns that are aligned."""
        widths = [max(map(len, column)) for column in zip(self.head, *self.rows, strict=True)]
        return [
            "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
            for row in (self.head, *self.rows)
        ]


@dataclass(frozen=True)
class Position:
    """One position of the decoder: the token it reads, and the one it predicts. (Text, id) each."""

    read: tuple[str, int]
    predicted: tuple[str, int] | None  # None: masked, the loss does not count it


@dataclass(frozen=True)
class Collated:
    """One window of a batch."""

    ids: str
    shape: tuple[int, ...]  # of the log-mel: [mel bins, frames]
    text: str
    prompt: Sequence[tuple[str, int]]
    positions: Sequence[Position]
    ignore: int  # the label of a masked position

    @property
    def counted(self) -> int:
        """Positions that are not masked."""
        return sum(position.predicted is not None for position in self.positions)

    def lines(self) -> list[str]:
        """Text, prompt, what is read and predicted at each position, and the mask."""
        predicted = [position.predicted for position in self.positions]
        last = [token for token in predicted if token][-1:]
        return [
            f"{self.ids}: log-mel {self.shape}",
            f"  text       {shown(self.text, 200)}",
            f"  prompt     {_named(self.prompt)}",
            f"  reads      {' '.join(str(position.read[1]) for position in self.positions)}",
            f"  predicts   {' '.join(str(token[1] if token else self.ignore) for token in predicted)}",
            f"  mask       {self.counted} positions count, {len(self.positions) - self.counted} do not; "
            f"the last that counts is {_named(last)}",
        ]


def _named(tokens: Sequence[tuple[str, int]]) -> str:
    return " ".join(f"{text}={number}" for text, number in tokens)


Block = str | Finding | Letters | Table | Histogram | Collated


def lines_of(blocks: Sequence[Block]) -> list[str]:
    """Blocks as text, each line as it is: not yet safe for a terminal."""
    return [line for block in blocks for line in ([block] if isinstance(block, str) else block.lines())]
