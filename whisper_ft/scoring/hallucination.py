"""Signs that a model wrote what no one said. Each is a reason to listen, not a proof.

What the reference has too is no sign: people do say "no, no, no, no". The rules are blind to language and script, as
those of Whisper are not: its compression ratio, taken from UTF-8, is above its own threshold for plain Tamil.
"""

import math
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from whisper_ft.scoring.scores import CHARACTERS, ScoredRow, Scores
from whisper_ft.scoring.unicode_script import script_of

COMPRESSION_RATIO = 2.4  # OpenAI's compression_ratio_threshold, where Whisper decodes again at a higher temperature
LOOP_TIMES = 4  # ours: "no, no, no" is said, and a model that is caught in a loop seldom stops at four
LOOP_SPAN = {"words": 6, "characters": 12}  # of what is repeated, at most
TIMES_FASTEST = 2.0  # ours, of the fastest speech of this set: no fixed pace fits Chinese and Finnish
FASTEST_SHARE = 0.99  # of the references are slower than "the fastest": a wrongly cut clip or two are no measure
FOREIGN_LETTERS = 0.5  # ours: a foreign name in a sentence is less
COMMON_SCRIPT = 0.05  # of the letters in the references of a language, for a script to be one of its own
SHOWN_IDS = 1000  # of a sign, in the summary; its count is of all

Evidence = Callable[[ScoredRow], str | None]


@dataclass(frozen=True)
class Flagged:
    """An utterance that shows a sign."""

    row: ScoredRow
    evidence: str


@dataclass(frozen=True)
class Check:
    """One kind of sign, with the utterances that show it."""

    name: str
    title: str
    rule: str  # for the reader: when it counts
    suspects: tuple[Flagged, ...]

    def summary(self) -> dict[str, Any]:
        """Ready for JSON."""
        ids = [suspect.row.prediction.id for suspect in self.suspects[:SHOWN_IDS]]
        return {"utterances": len(self.suspects), "rule": self.rule, "ids": ids}


def run_checks(scores: Scores) -> list[Check]:
    """Every kind of sign, also those that no utterance shows; the utterances are in the order of the predictions."""
    times, ratio = f"{LOOP_TIMES} times in a row", f"{COMPRESSION_RATIO:g}"
    fastest = _fastest(scores)
    pace = f" ({fastest:.1f} characters per second)" if fastest else ""
    kinds: list[tuple[str, str, str, Evidence]] = [
        (
            "loops",
            "Loops",
            f"the same words {times}, or text that compresses more than {ratio} times; and the reference less so",
            lambda row: _loop(row, scores.unit),
        ),
        (
            "words_on_empty_references",
            "Words on empty references",
            "the reference has no word, the model wrote some",
            _invented,
        ),
        (
            "over_long",
            "Over-long for their audio",
            f"more than {TIMES_FASTEST:g} times the pace of the fastest speech of this set{pace}",
            lambda row: _over_long(row, fastest),
        ),
        (
            "wrong_script",
            "Wrong script",
            "at least half of the letters are of a script in which the references of the language are not written",
            _wrong_script(scores),
        ),
        ("token_limit", "Cut by the token limit", "the model did not come to an end by itself", _token_limit),
    ]
    return [Check(name, title, rule, tuple(_suspects(scores.rows, said))) for name, title, rule, said in kinds]


def _suspects(rows: Sequence[ScoredRow], evidence: Evidence) -> Iterator[Flagged]:
    for row in rows:
        if (said := evidence(row)) is not None:
            yield Flagged(row, said)


def longest_run(tokens: Sequence[str], span: int) -> tuple[int, Sequence[str]]:
    """How many times the same n-gram (n up to `span`) stands in a row at most, and which; among equals the shortest."""
    best, repeated = (1, tokens[:1]) if tokens else (0, tokens)
    for n in range(1, min(span, len(tokens) // 2) + 1):
        equal = 0  # tokens in a row that are the same as those n before them
        for end in range(n, len(tokens)):
            equal = equal + 1 if tokens[end] == tokens[end - n] else 0
            if equal // n + 1 > best:
                best, repeated = equal // n + 1, tokens[end + 1 - n : end + 1]
    return best, repeated


def compression_ratio(text: str) -> float:
    """Length over compressed length, each different character counted as one byte, whatever its script.

    As Whisper has it for plain ASCII. Of UTF-8, a letter of Tamil is three bytes of which two say nothing: 2.6 for a
    plain sentence.
    """
    if not text:
        return 0.0
    codes = {character: code for code, character in enumerate(dict.fromkeys(text))}
    width = 1 if len(codes) <= 256 else 3
    coded = b"".join(codes[character].to_bytes(width, "little") for character in text)
    return len(text) / len(zlib.compress(coded))


def _loop(row: ScoredRow, unit: str | None) -> str | None:
    def run(text: str) -> tuple[int, str]:
        if unit == CHARACTERS:
            times, repeated = longest_run(text, LOOP_SPAN["characters"])
            return times, "".join(repeated)
        times, repeated = longest_run(text.split(), LOOP_SPAN["words"])
        return times, " ".join(repeated)

    times, repeated = run(row.hyp_norm)
    if times >= LOOP_TIMES and times > run(row.ref_norm)[0]:
        return f"{repeated!r} {times:,} times in a row"
    ratio = compression_ratio(row.prediction.hyp)
    if ratio > COMPRESSION_RATIO and ratio > compression_ratio(row.prediction.ref):
        return f"compresses {ratio:.1f} times"
    return None


def _invented(row: ScoredRow) -> str | None:
    words = row.words.insertions
    return f"{words:,} {'word' if words == 1 else 'words'}" if not row.is_scored and row.hyp_norm else None


def _pace(text: str, row: ScoredRow) -> float | None:
    """Characters per second, spaces left out; None where nobody knows how long the audio is."""
    seconds = row.prediction.audio_seconds
    return len("".join(text.split())) / seconds if math.isfinite(seconds) and seconds > 0 else None


def _fastest(scores: Scores) -> float | None:
    """The pace which FASTEST_SHARE of the references do not exceed."""
    paces = sorted(pace for row in scores.rows if row.is_scored and (pace := _pace(row.ref_norm, row)))
    return paces[min(int(FASTEST_SHARE * len(paces)), len(paces) - 1)] if paces else None


def _over_long(row: ScoredRow, fastest: float | None) -> str | None:
    pace, reference = _pace(row.hyp_norm, row), _pace(row.ref_norm, row)
    if fastest is None or pace is None or reference is None or pace <= max(TIMES_FASTEST * fastest, reference):
        return None
    tokens = row.prediction.hyp_tokens / row.prediction.audio_seconds
    return f"{pace:.1f} characters and {tokens:.1f} tokens per second"


def _wrong_script(scores: Scores) -> Evidence:
    """The scripts of each language are those that its references are written in: no table knows all."""
    written: dict[str | None, Counter[str]] = {}
    for row in scores.rows:
        written.setdefault(row.prediction.language, Counter()).update(_scripts(row.prediction.ref))
    own = {
        language: {script for script, letters in counts.items() if letters >= COMMON_SCRIPT * counts.total()}
        for language, counts in written.items()
    }

    def evidence(row: ScoredRow) -> str | None:
        scripts, expected = _scripts(row.prediction.hyp), own[row.prediction.language]
        known = expected | _scripts(row.prediction.ref).keys()
        foreign = Counter({script: letters for script, letters in scripts.items() if script not in known})
        if not expected or not foreign or foreign.total() < FOREIGN_LETTERS * scripts.total():
            return None
        return f"{foreign.total():,} of {scripts.total():,} letters are {_spelt(foreign)}, not {_spelt(expected)}"

    return evidence


def _scripts(text: str) -> Counter[str]:
    return Counter(script for character in text if (script := script_of(character)))


def _spelt(scripts: Mapping[str, int] | set[str]) -> str:
    return " or ".join(script.title() if script != "CJK" else script for script in sorted(scripts))


def _token_limit(row: ScoredRow) -> str | None:
    return f"{row.prediction.hyp_tokens:,} tokens" if row.prediction.hit_token_limit else None
