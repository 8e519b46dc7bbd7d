"""A few transcripts of an evaluation, the same ones each time, with what is wrong in them marked."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.cells import cell_len, split_graphemes
from rich.table import Table
from rich.text import Text

from whisper_ft.scoring.edit_distance import align
from whisper_ft.scoring.scores import CHARACTERS, ScoredRow, Scores

SAMPLES = 3
SHOWN_LINES = 2.5  # of each text; 30 s of speech fill about 8 of 60 columns
LEFT, RIGHT = "bold cyan", "bold magenta"  # told apart by those who see no red or no green
JOINERS = "\u200c\u200d"


def samples_of(scores: Scores, count: int = SAMPLES) -> list[ScoredRow]:
    """Rows spread evenly over the set, so that each evaluation shows the same ones."""
    rows = [row for row in scores.rows if row.is_scored]
    return [rows[(2 * i + 1) * len(rows) // (2 * count)] for i in range(count)] if len(rows) > count else rows


def transcripts(scores: Scores, width: int) -> Table:
    """The samples one below the other: reference and hypothesis, the words that differ coloured and in brackets.

    Nothing stands to the right of a text: a terminal that turns right-to-left text around has nothing to move.
    """
    grid = Table.grid(padding=(0, 0, 0, 1))
    grid.add_column(style="dim", no_wrap=True, min_width=5, justify="right")
    grid.add_column(overflow="fold")
    for row in samples_of(scores):
        for label, text in _lines(row, scores, SHOWN_LINES * (width - 8)):
            grid.add_row(label, text)
    return grid


def transcript_lines(scores: Scores, cells: float = 400) -> Iterator[str]:
    """The same as lines for a file."""
    for row in samples_of(scores):
        for label, text in _lines(row, scores, cells):
            yield f"  {label} {text.plain}"


def _lines(row: ScoredRow, scores: Scores, cells: float) -> Iterator[tuple[str, Text]]:
    """Label and text of each line about one utterance."""
    rate = scores.errors_of(row).rate
    name = "CER" if scores.unit == CHARACTERS else "WER"
    yield "", Text(f"{name} {100 * (rate or 0):.0f} %  {_visible(row.prediction.id)}", style="dim", no_wrap=True)
    between = "" if scores.unit == CHARACTERS else " "
    pairs = align(_units(row.ref_norm, scores.unit), _units(row.hyp_norm, scores.unit))
    yield "ref", _marked([(left, left != right) for left, right in pairs if left], between, LEFT, cells)
    yield "hyp", _marked([(right, left != right) for left, right in pairs if right], between, RIGHT, cells)


def _units(text: str, unit: str | None) -> list[str]:
    """Words, or letters with their marks: one cut from its letter could not be drawn."""
    return [text[a:b] for a, b, _ in split_graphemes(text)[0]] if unit == CHARACTERS else text.split()


def _marked(tokens: Sequence[tuple[str, bool]], between: str, style: str, cells: float) -> Text:
    """Tokens as a text of at most about so many cells, each run of wrong ones in brackets."""
    text = Text()
    if not tokens:
        return text.append("(nothing)", style="dim italic")
    for is_wrong, run in groupby(tokens, key=lambda token: token[1]):
        text.append(between if text else "")
        part = _visible(between.join(token for token, _ in run))
        left = int(cells) - text.cell_len
        if cell_len(part) > left:
            text.append(_cut(part, left), style=style if is_wrong else "")
            return text.append(" …", style="dim")
        text.append(f"[{part}]" if is_wrong else part, style=style if is_wrong else "")
    return text


def _cut(text: str, cells: int) -> str:
    """The beginning of a text, at most so many cells, up to the end of a word if it has several."""
    kept = text
    while kept and cell_len(kept) > cells:
        kept = kept.rpartition(" ")[0] if " " in kept else kept[: max(cells // 2, 1) if len(kept) > 1 else 0]
    return kept


def _visible(text: str) -> str:
    """The text without what a terminal obeys: control characters and overrides of direction; joiners stay."""
    return "".join(sign if sign.isprintable() or sign in JOINERS else "\ufffd" for sign in text)
