"""Blocks of a data report, such as counts and tables. Each can be written as text; the HTML page draws the same."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from whisper_ft.cli.doctor.histogram import Histogram
from whisper_ft.cli.doctor.spelling import character_name, shown, shown_character

Level = Literal["good", "fair", "poor"]
LETTERS_IN_LINE = 12  # letters with their counts in one line of text


@dataclass(frozen=True)
class Finding:
    """A number of rows of one kind, with the first of these rows as examples."""

    name: str
    count: str
    level: Level = "good"
    examples: Sequence[tuple[str, str]] = ()  # id of the row, and the reason or the other row
    separator: str = ": "

    def lines(self) -> list[str]:
        """Return a line with the count, and a line for each example."""
        return [f"{self.name}: {self.count}", *(f"  {row}{self.separator}{text}" for row, text in self.examples)]


@dataclass(frozen=True)
class Letters:
    """Characters of the transcripts, each with the number of times it occurs."""

    counts: Sequence[tuple[str, int]]
    different: int  # number of all different characters, including those left out of `counts`
    suspicious: frozenset[str]

    def lines(self) -> list[str]:
        """Return title, lines of several characters each, and a line that names the first characters written once."""
        words = [f"{shown_character(character)} {times:,}" for character, times in self.counts]
        rows = ["  " + "   ".join(words[i : i + LETTERS_IN_LINE]) for i in range(0, len(words), LETTERS_IN_LINE)]
        rare = [character_name(character) for character, times in self.counts if times == 1]
        return [self.title, *rows, *([f"written once: {', '.join(rare[:LETTERS_IN_LINE])}"] if rare else [])]

    @property
    def title(self) -> str:
        """Heading, with the number of different characters."""
        part = f", of which the first {len(self.counts):,} are shown" if len(self.counts) < self.different else ""
        return f"{self.different:,} different characters{part}, with the number of times each is written"


@dataclass(frozen=True)
class NumberTable:
    """Table with a heading for each column. All columns but the first contain numbers."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def lines(self) -> list[str]:
        """Return the table as lines with aligned columns."""
        widths = [max(map(len, column)) for column in zip(self.head, *self.rows, strict=True)]
        return [
            "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
            for row in (self.head, *self.rows)
        ]


Token = tuple[str, int]  # text, id


@dataclass(frozen=True)
class Position:
    """One position of the decoder: the token that it reads and the token that it has to predict."""

    read: Token
    predicted: Token | None  # None at a masked position, which the loss does not count
    label: int


@dataclass(frozen=True)
class BatchRow:
    """One window of a batch with its decoder positions. A window is the audio of one training example."""

    ids: str
    """Ids of its utterances, or `no speech`."""
    shape: tuple[int, ...]  # of the log-mel: [mel bins, frames]
    text: str
    prompt: Sequence[Token]
    """Tokens before the text."""
    positions: Sequence[Position]

    @property
    def counted(self) -> int:
        """Number of positions that are not masked, so the loss counts them."""
        return sum(position.predicted is not None for position in self.positions)

    @property
    def masked(self) -> int:
        """Number of masked positions, which the loss does not count."""
        return len(self.positions) - self.counted

    @property
    def has_split_letters(self) -> bool:
        """True if a token is only a part of a letter, because such a token decodes to U+FFFD."""
        return any("\ufffd" in position.read[0] for position in self.positions)

    def lines(self) -> list[str]:
        """Return lines with text, prompt, tokens read and predicted, and mask."""
        last = [position.predicted for position in self.positions if position.predicted][-1:]
        return [
            f"{self.ids}: log-mel {self.shape}",
            f"  text       {shown(self.text, 200)}",
            f"  prompt     {_with_ids(self.prompt)}",
            f"  reads      {' '.join(str(position.read[1]) for position in self.positions)}",
            f"  predicts   {' '.join(str(position.label) for position in self.positions)}",
            f"  mask       {self.counted} positions count, {self.masked} do not; "
            f"the last that counts is {_with_ids(last)}",
        ]


@dataclass(frozen=True)
class Sound:
    """Sound that the page can play."""

    title: str
    address: str
    """The encoded sound as a `data:` address."""
    text: str = ""
    """Transcript."""

    def lines(self) -> list[str]:
        """Return a line that names the sound, because text cannot play it, and one with the transcript."""
        return [f"{self.title}: in the page that --out writes", *([f"  {self.text}"] if self.text else [])]


def _with_ids(tokens: Sequence[Token]) -> str:
    return " ".join(f"{text}={number}" for text, number in tokens)


Block = str | Finding | Letters | NumberTable | Histogram | BatchRow | Sound


def block_lines(blocks: Sequence[Block]) -> list[str]:
    """Return blocks as lines of text, which are not safe for a terminal yet: they may hold control characters."""
    return [line for block in blocks for line in ([block] if isinstance(block, str) else block.lines())]
