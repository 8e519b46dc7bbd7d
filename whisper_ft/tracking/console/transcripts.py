"""Sample transcripts of an evaluation on the console, with errors marked. Each evaluation shows the same utterances."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.cells import cell_len, split_graphemes
from rich.table import Table
from rich.text import Text

from whisper_ft.reports.text import percent
from whisper_ft.scoring.edit_distance import align
from whisper_ft.scoring.scores import CHARACTERS, ScoredRow, Scores

SAMPLES = 3
SHOWN_LINES = 2.5  # lines of each text; 30 s of speech fill about 8 lines of 60 columns
LEFT, RIGHT = "bold cyan", "bold magenta"  # distinct also for people who see no red or no green
JOINERS = "\u200c\u200d"


def samples_of(scores: Scores, count: int = SAMPLES) -> list[ScoredRow]:
    """Choose `count` scored rows that are spread evenly over the set; all if there are fewer.

    They are the same ones at each evaluation.
    """
    rows = [row for row in scores.rows if row.is_scored]
    return [rows[(2 * i + 1) * len(rows) // (2 * count)] for i in range(count)] if len(rows) > count else rows


def transcript_table(scores: Scores, width: int) -> Table:
    """Lay out the samples: reference above hypothesis, with differing words coloured and in brackets.

    Long texts are cut to about 2.5 lines of `width` cells. Nothing is printed to the right of a text, because a
    terminal that reorders right-to-left text would move it.
    """
    grid = Table.grid(padding=(0, 0, 0, 1))
    grid.add_column(style="dim", no_wrap=True, min_width=5, justify="right")
    grid.add_column(overflow="fold")
    for row in samples_of(scores):
        for label, text in _lines(row, scores, SHOWN_LINES * (width - 8)):
            grid.add_row(label, text)
    return grid


def transcript_lines(scores: Scores, cells: float = 400) -> Iterator[str]:
    """Return the samples of `transcript_table` as lines, for output that goes to a file.

    Each text is cut to about `cells` cells.
    """
    for row in samples_of(scores):
        for label, text in _lines(row, scores, cells):
            yield f"  {label} {text.plain}"


def _lines(row: ScoredRow, scores: Scores, cells: float) -> Iterator[tuple[str, Text]]:
    """Yield label and text of each line for one utterance."""
    rate = scores.errors_of(row).rate
    name = "CER" if scores.unit == CHARACTERS else "WER"
    yield "", Text(f"{name} {percent(rate or 0, 0)}  {_visible(row.prediction.id)}", style="dim", no_wrap=True)
    between = "" if scores.unit == CHARACTERS else " "
    pairs = align(_units(row.ref_norm, scores.unit), _units(row.hyp_norm, scores.unit))
    yield "ref", _marked([(left, left != right) for left, right in pairs if left], between, LEFT, cells)
    yield "hyp", _marked([(right, left != right) for left, right in pairs if right], between, RIGHT, cells)


def _units(text: str, unit: str | None) -> list[str]:
    """Split a text into words, or into graphemes: letters together with their marks, which cannot be drawn alone."""
    return [text[a:b] for a, b, _ in split_graphemes(text)[0]] if unit == CHARACTERS else text.split()


def _marked(tokens: Sequence[tuple[str, bool]], between: str, style: str, cells: float) -> Text:
    """Join tokens to a text of about `cells` cells at most, with brackets around each run of wrong tokens."""
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
    """Return the beginning of a text, at most `cells` cells wide, cut between two words if possible."""
    beginning = text
    while beginning and cell_len(beginning) > cells:
        has_words, half = " " in beginning, max(cells // 2, 1) if len(beginning) > 1 else 0
        beginning = beginning.rpartition(" ")[0] if has_words else beginning[:half]
    return beginning


def _visible(text: str) -> str:
    """Replace control characters and direction overrides, because a terminal would obey them. Joiners stay."""
    return "".join(sign if sign.isprintable() or sign in JOINERS else "\ufffd" for sign in text)
