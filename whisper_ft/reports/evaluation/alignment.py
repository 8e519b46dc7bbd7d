"""Alignment of reference and hypothesis for a page, pair by pair, and the most frequent mistakes."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from whisper_ft.reports.text import clipped, on_circle
from whisper_ft.scoring.edit_distance import align
from whisper_ft.scoring.scores import CHARACTERS, ScoredRow, Scores

MAX_CELLS = 200  # aligned words of one utterance: 30 s hold about 100, a hallucinated loop far more
MAX_TOKEN_CHARACTERS = 60  # characters of one word on a page
RUN_CHARACTERS = 10  # correct characters between two places where a line may break, when the unit is characters
JOINED = "\u200c\u200d\u0e33\u0eb3"  # joiners, and the vowels am of Thai and Lao: they belong to the letter before

Pair = tuple[str, str]  # reference, hypothesis; "" for a missing token
Kind = Literal["hit", "sub", "del", "ins"]


@dataclass(frozen=True)
class Alignment:
    """Aligned pairs of one utterance, up to the number that a page shows."""

    cells: Sequence[tuple[Kind, str, str]]  # kind, reference, hypothesis
    left_out: int  # number of pairs after the last cell
    separator: str  # between two cells


def worst_rows(scores: Scores, n: int) -> list[ScoredRow]:
    """Return the `n` scored rows with the highest error rate, the worst first.

    Ties are ordered by number of errors, then by place.
    """

    def badness(row: ScoredRow) -> tuple[float, int]:
        count = scores.errors_of(row)
        return count.rate or 0.0, count.errors

    return sorted((row for row in scores.rows if row.is_scored), key=badness, reverse=True)[:n]


def frequent_mistakes(scores: Scores, n: int) -> dict[Kind, list[tuple[Pair, int]]]:
    """Return the `n` most frequent pairs of each kind of error, with their counts.

    Pairs that occur once are left out, and so are utterances with an empty reference. A kind may have none.
    """
    kinds: dict[Kind, Counter[Pair]] = {"sub": Counter(), "del": Counter(), "ins": Counter()}
    for row in scores.rows:
        if row.is_scored and row.ref_norm != row.hyp_norm:
            for pair in token_pairs(row, scores.unit):
                if pair[0] != pair[1]:
                    kinds[error_kind(pair)][pair] += 1
    return {kind: [(pair, count) for pair, count in pairs.most_common(n) if count > 1] for kind, pairs in kinds.items()}


def token_pairs(row: ScoredRow, unit: str | None) -> list[Pair]:
    """Align the words of one utterance, or its characters if they are the unit."""
    if unit == CHARACTERS:
        return align(row.ref_norm, row.hyp_norm)
    return align(row.ref_norm.split(), row.hyp_norm.split())


def error_kind(pair: Pair) -> Kind:
    """Return the kind of error of a pair; `hit` if the pair is equal."""
    left, right = pair
    return "hit" if left == right else "del" if not right else "ins" if not left else "sub"


def aligned(row: ScoredRow, unit: str | None) -> Alignment:
    """Align one utterance for the page, up to MAX_CELLS cells.

    If `unit` is characters, consecutive ones of one kind share a cell, up to RUN_CHARACTERS correct ones.
    """
    pairs = token_pairs(row, unit)
    if unit == CHARACTERS:
        clusters = whole_letters(pairs)
        pairs = [pair for kind, run in groupby(clusters, key=error_kind) for pair in _joined(list(run), kind)]
    cells = [(error_kind(pair), shown_token(pair[0]), shown_token(pair[1])) for pair in pairs[:MAX_CELLS]]
    return Alignment(cells, max(0, len(pairs) - MAX_CELLS), "" if unit == CHARACTERS else " ")


def shown_token(token: str) -> str:
    """Format a word or some characters for the page: a space becomes an open box, a lone mark stands on a circle.

    Long tokens are cut.
    """
    return clipped(on_circle("\u2423" if token == " " else token), MAX_TOKEN_CHARACTERS)


def whole_letters(pairs: Sequence[Pair]) -> list[Pair]:
    """Join marks to their letters in pairs of characters, because a lone mark cannot be drawn."""
    letters: list[Pair] = []
    for left, right in pairs:
        if letters and (_is_mark(left) or _is_mark(right)):
            letters[-1] = (letters[-1][0] + left, letters[-1][1] + right)
        else:
            letters.append((left, right))
    return letters


def _is_mark(character: str) -> bool:
    return bool(character) and (character in JOINED or unicodedata.category(character).startswith("M"))


def _joined(run: list[Pair], kind: Kind) -> Iterable[Pair]:
    size = RUN_CHARACTERS if kind == "hit" else len(run)
    for start in range(0, len(run), size):
        part = run[start : start + size]
        yield "".join(left for left, _ in part), "".join(right for _, right in part)
