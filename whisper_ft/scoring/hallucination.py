"""Checks that flag transcripts with possibly hallucinated text. People should listen to these; no flag is a proof.

Repetitions and pace of the reference are not flagged, because people do say "no, no, no, no". The checks do not depend
on language or script. Whisper's compression ratio does, because it counts the bytes of UTF-8: plain Tamil exceeds
Whisper's own threshold.
"""

import math
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from whisper_ft.scoring.normalizer import Unit
from whisper_ft.scoring.scores import CHARACTERS, ScoredRow, Scores
from whisper_ft.scoring.unicode_text import script_of

# OpenAI's compression_ratio_threshold, above which Whisper decodes again at a higher temperature.
MAX_COMPRESSION_RATIO = 2.4
# Repetitions in a row, our choice: people say "no, no, no", and a looping model seldom stops at four.
LOOP_TIMES = 4
MAX_LOOP_SPAN = {"words": 6, "characters": 12}  # longest n-gram that is searched for repetitions
# Factor over the fastest references of the set, our choice: no fixed pace fits both Chinese and Finnish.
MAX_PACE_FACTOR = 2.0
FASTEST_QUANTILE = 0.99  # of the references' pace, so that one or two wrongly cut clips do not set it
MIN_FOREIGN_LETTERS = 0.5  # share of letters, our choice: a foreign name in a sentence has fewer
MIN_SCRIPT_SHARE = 0.05  # share of a language's reference letters for a script to count as its own
SUMMARY_IDS = 1000  # largest number of ids per check in the summary; its count covers all

Evidence = Callable[[ScoredRow], str | None]
"""Function that returns the reason to flag a row, in words for people; None if the row passes the check."""


@dataclass(frozen=True)
class Flagged:
    """An utterance that a check flags, with the reason."""

    row: ScoredRow
    evidence: str


@dataclass(frozen=True)
class Check:
    """A check and the utterances that it flags, in the order of the predictions."""

    name: str
    title: str
    rule: str  # condition for a flag, in words for the report
    flagged: tuple[Flagged, ...]

    @classmethod
    def of(cls, name: str, title: str, rule: str, rows: Sequence[ScoredRow], evidence: Evidence) -> "Check":
        """Apply a check to all rows; `evidence` returns the reason to flag a row, or None."""
        reasons = ((row, evidence(row)) for row in rows)
        return cls(name, title, rule, tuple(Flagged(row, reason) for row, reason in reasons if reason is not None))

    def summary(self) -> dict[str, Any]:
        """Return the check as JSON values."""
        ids = [item.row.prediction.id for item in self.flagged[:SUMMARY_IDS]]
        return {"utterances": len(self.flagged), "rule": self.rule, "ids": ids}


def run_checks(scores: Scores) -> list[Check]:
    """Run all checks on a scored set. Checks that flag nothing are returned, too."""
    fastest = _fastest_pace(scores)
    pace = f" ({fastest:.1f} characters per second)" if fastest else ""
    return [
        Check.of(
            "loops",
            "Loops",
            f"the same words {LOOP_TIMES} times in a row, or text that compresses more than "
            f"{MAX_COMPRESSION_RATIO:g} times; both more than in the reference",
            scores.rows,
            lambda row: _loop(row, scores.unit),
        ),
        Check.of(
            "words_on_empty_references",
            "Words on empty references",
            "the reference has no word, the transcript has some",
            scores.rows,
            _invented_words,
        ),
        Check.of(
            "over_long",
            "Over-long for their audio",
            f"more than {MAX_PACE_FACTOR:g} times the pace of the fastest references of this set{pace}",
            scores.rows,
            lambda row: _over_long(row, fastest),
        ),
        Check.of(
            "wrong_script",
            "Wrong script",
            "at least half of the letters belong to a script that the references of the language do not use",
            scores.rows,
            _wrong_script(scores),
        ),
        Check.of(
            "token_limit",
            "Cut by the token limit",
            "decoding reached the token limit before the end token",
            scores.rows,
            _token_limit,
        ),
    ]


def longest_run(tokens: Sequence[str], span: int) -> tuple[int, Sequence[str]]:
    """Find the n-gram (n up to `span`) that is repeated most often in a row. Returns how often, and the n-gram.

    Without a repetition, that is once and the first token; without tokens, it is 0. If several n-grams are repeated
    equally often, the shortest one is returned.
    """
    best, repeated = (1, tokens[:1]) if tokens else (0, tokens)
    for n in range(1, min(span, len(tokens) // 2) + 1):
        equal = 0  # tokens in a row that equal the token n before them
        for end in range(n, len(tokens)):
            equal = equal + 1 if tokens[end] == tokens[end - n] else 0
            if equal // n + 1 > best:
                best, repeated = equal // n + 1, tokens[end + 1 - n : end + 1]
    return best, repeated


def compression_ratio(text: str) -> float:
    """Return the length of a text divided by its compressed length. Each character counts as one byte, in any script.

    An empty text has the ratio 0. For ASCII this is Whisper's ratio. In UTF-8 a Tamil letter has three bytes, of which
    two carry no information, so Whisper's ratio of a plain Tamil sentence is 2.6.
    """
    if not text:
        return 0.0
    codes = {character: code for code, character in enumerate(dict.fromkeys(text))}
    width = 1 if len(codes) <= 256 else 3
    coded = b"".join(codes[character].to_bytes(width, "little") for character in text)
    return len(text) / len(zlib.compress(coded))


def longest_loop(text: str, unit: Unit) -> tuple[int, str]:
    """Return how often the most repeated n-gram of a text comes in a row, and the n-gram, of words or characters."""
    if unit == CHARACTERS:
        times, repeated = longest_run(text, MAX_LOOP_SPAN["characters"])
        return times, "".join(repeated)
    times, repeated = longest_run(text.split(), MAX_LOOP_SPAN["words"])
    return times, " ".join(repeated)


def _loop(row: ScoredRow, unit: Unit) -> str | None:
    times, repeated = longest_loop(row.hyp_norm, unit)
    if times >= LOOP_TIMES and times > longest_loop(row.ref_norm, unit)[0]:
        return f"{repeated!r} {times:,} times in a row"
    ratio = compression_ratio(row.prediction.hyp)
    if ratio > MAX_COMPRESSION_RATIO and ratio > compression_ratio(row.prediction.ref):
        return f"compresses {ratio:.1f} times"
    return None


def _invented_words(row: ScoredRow) -> str | None:
    words = row.words.insertions
    return f"{words:,} {'word' if words == 1 else 'words'}" if not row.is_scored and row.hyp_norm else None


def _pace(text: str, row: ScoredRow) -> float | None:
    """Return the characters per second, without spaces; None if the length of the audio is unknown."""
    seconds = row.prediction.audio_seconds
    return len("".join(text.split())) / seconds if math.isfinite(seconds) and seconds > 0 else None


def _fastest_pace(scores: Scores) -> float | None:
    """Return the pace of the fastest references, the quantile FASTEST_QUANTILE; None if no reference has a pace."""
    paces = sorted(pace for row in scores.rows if row.is_scored and (pace := _pace(row.ref_norm, row)))
    return paces[min(int(FASTEST_QUANTILE * len(paces)), len(paces) - 1)] if paces else None


def _over_long(row: ScoredRow, fastest: float | None) -> str | None:
    pace, reference = _pace(row.hyp_norm, row), _pace(row.ref_norm, row)
    if fastest is None or pace is None or reference is None or pace <= max(MAX_PACE_FACTOR * fastest, reference):
        return None
    tokens = row.prediction.hyp_tokens / row.prediction.audio_seconds
    return f"{pace:.1f} characters and {tokens:.1f} tokens per second"


def _wrong_script(scores: Scores) -> Evidence:
    """Make the check for text in a wrong script. The scripts of a language are taken from its references.

    No table of scripts is used, because none knows every language.
    """
    letters: dict[str | None, Counter[str]] = {}
    for row in scores.rows:
        letters.setdefault(row.prediction.language, Counter()).update(_scripts(row.prediction.ref))
    usual = {
        language: {script for script, count in counts.items() if count >= MIN_SCRIPT_SHARE * counts.total()}
        for language, counts in letters.items()
    }

    def evidence(row: ScoredRow) -> str | None:
        scripts, expected = _scripts(row.prediction.hyp), usual[row.prediction.language]
        known = expected | _scripts(row.prediction.ref).keys()
        foreign = Counter({script: count for script, count in scripts.items() if script not in known})
        if not expected or not foreign or foreign.total() < MIN_FOREIGN_LETTERS * scripts.total():
            return None
        names = _script_names(foreign), _script_names(expected)
        return f"{foreign.total():,} of {scripts.total():,} letters are {names[0]}, not {names[1]}"

    return evidence


def _scripts(text: str) -> Counter[str]:
    return Counter(script for character in text if (script := script_of(character)))


def _script_names(scripts: Mapping[str, int] | set[str]) -> str:
    return " or ".join(script.title() if script != "CJK" else script for script in sorted(scripts))


def _token_limit(row: ScoredRow) -> str | None:
    return f"{row.prediction.hyp_tokens:,} tokens" if row.prediction.hit_token_limit else None
