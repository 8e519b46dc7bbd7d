"""Reference and hypothesis above each other, pair by pair."""

import unicodedata
from collections.abc import Iterable, Sequence
from itertools import groupby

from whisper_ft.reports.evaluation.text import token_of
from whisper_ft.scoring.edit_distance import align
from whisper_ft.scoring.scores import CHARACTERS, ScoredRow, Scores

SHOWN_PAIRS = 200  # aligned words of one utterance: 30 s hold about 100, a hallucinated loop far more
RUN_CHARACTERS = 10  # correct characters between two places where a line may break, when the unit is characters
JOINED = "\u200c\u200d\u0e33\u0eb3"  # joiners, and the vowels am of Thai and Lao: they belong to the letter before

Pair = tuple[str, str]  # from the reference, from the hypothesis; "" for none


def worst(scores: Scores, n: int) -> list[ScoredRow]:
    """The `n` scored rows with the highest error rate, among equals those with more errors, then in their order."""

    def badness(row: ScoredRow) -> tuple[float, int]:
        count = scores.errors_of(row)
        return count.rate or 0.0, count.errors

    return sorted((row for row in scores.rows if row.is_scored), key=badness, reverse=True)[:n]


def pairs_of(row: ScoredRow, unit: str | None) -> list[Pair]:
    """The pairs of one utterance, of words or of characters."""
    if unit == CHARACTERS:
        return align(row.ref_norm, row.hyp_norm)
    return align(row.ref_norm.split(), row.hyp_norm.split())


def kind_of(pair: Pair) -> str:
    """`hit`, `sub`, `del` or `ins`."""
    left, right = pair
    return "hit" if left == right else "del" if not right else "ins" if not left else "sub"


def aligned(row: ScoredRow, unit: str | None) -> str:
    """The pairs of one utterance as HTML, reference over hypothesis; characters are joined to runs of one kind."""
    pairs = pairs_of(row, unit)
    if unit == CHARACTERS:
        clusters = whole_letters(pairs)
        pairs = [pair for kind, run in groupby(clusters, key=kind_of) for pair in _joined(list(run), kind)]
    cells = [_cell(pair) for pair in pairs[:SHOWN_PAIRS]]
    if len(pairs) > SHOWN_PAIRS:
        cells.append(f"<small>… and {len(pairs) - SHOWN_PAIRS:,} more</small>")
    return (" " if unit != CHARACTERS else "").join(cells)


def _cell(pair: Pair) -> str:
    kind = kind_of(pair)
    left, right = (token_of(token) for token in pair)
    upper = f"<del>{left}</del>" if kind in ("sub", "del") else f"<span>{left}</span>"
    # With a direction of its own, what the model put in has no say in the direction of the line.
    lower = f'<ins dir="auto">{right}</ins>' if kind in ("sub", "ins") else f"<span>{right}</span>"
    return f'<span class="{kind}">{upper}{lower}</span>'


def whole_letters(pairs: Sequence[Pair]) -> list[Pair]:
    """Pairs of characters with the marks joined to their letters: one cut from it could not be drawn."""
    letters: list[Pair] = []
    for left, right in pairs:
        if letters and (_is_mark(left) or _is_mark(right)):
            letters[-1] = (letters[-1][0] + left, letters[-1][1] + right)
        else:
            letters.append((left, right))
    return letters


def _is_mark(character: str) -> bool:
    return bool(character) and (character in JOINED or unicodedata.category(character).startswith("M"))


def _joined(run: list[Pair], kind: str) -> Iterable[Pair]:
    size = RUN_CHARACTERS if kind == "hit" else len(run)
    for start in range(0, len(run), size):
        part = run[start : start + size]
        yield "".join(left for left, _ in part), "".join(right for _, right in part)
