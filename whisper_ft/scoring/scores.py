"""What a transcription got wrong: error counts of utterances, summed first and divided once."""

import math
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from whisper_ft.scoring.edit_distance import ErrorCount, total

WORDS = "words"
IDENTITY = ("name", "language", "version", "fingerprint")  # of a normaliser: other rules, other figures
CHARACTERS = "characters"  # for scripts without spaces: the headline is the CER
AT_ONCE = 4000  # utterances compared at a time: counts add up exactly, and the copies of texts stay few


@dataclass(frozen=True, slots=True)
class Prediction:
    """One utterance as the model transcribed it."""

    id: str
    ref: str
    hyp: str
    audio_seconds: float
    hyp_tokens: int
    hit_token_limit: bool = False
    language: str | None = None
    speaker: str | None = None
    detected_language: str | None = None  # by the model, where it was asked
    windows: int = 1  # that the recording was heard in
    segments: Sequence[tuple[float, float, str]] | None = None  # (start, end, text), where the model was to tell times
    problem: str | None = None  # reason code of a row that could not be decoded or was cut; it is scored all the same
    columns: Mapping[str, Any] | None = None  # others of the data by name, named as none of the record's own


@dataclass(frozen=True, slots=True)
class ScoredRow:
    """One prediction with its normalised texts and its errors."""

    prediction: Prediction
    ref_norm: str
    hyp_norm: str
    words: ErrorCount
    chars: ErrorCount

    @property
    def is_scored(self) -> bool:
        """Whether the row counts in WER and CER: its normalised reference is not empty."""
        return bool(self.ref_norm)

    def record(self) -> dict[str, Any]:
        """The row of predictions.jsonl: safe for JSON and for UTF-8."""
        row = asdict(self.prediction) | {"ref_norm": self.ref_norm, "hyp_norm": self.hyp_norm}
        others = row.pop("columns") or {}
        row = {key: _encodable(value) if isinstance(value, str) else value for key, value in row.items()}
        row["audio_seconds"] = _finite(self.prediction.audio_seconds)
        row["words"] = self.words.reference_length
        row |= {key: getattr(self.words, key) for key in ("hits", "substitutions", "deletions", "insertions")}
        row |= {"chars": self.chars.reference_length, "char_errors": self.chars.errors}
        row |= {"wer": self.words.rate, "cer": self.chars.rate}
        return row | {name: None if value is None else _encodable(str(value)) for name, value in others.items()}


@dataclass(frozen=True)
class Scores:
    """A scored test set: the totals of the normalised texts, and of the texts as written (orthographic)."""

    rows: tuple[ScoredRow, ...]  # in the order of the predictions
    words: ErrorCount
    chars: ErrorCount
    words_orthographic: ErrorCount  # after NFC and single spaces, nothing else: case and punctuation count
    chars_orthographic: ErrorCount
    unit: str | None = None  # WORDS or CHARACTERS, where the normaliser says which one to judge by
    normalizer: Mapping[str, str] = field(default_factory=dict)  # name, language, version, fingerprint of the rules

    @classmethod
    def of_nothing(cls) -> "Scores":
        """Those of no utterance: no rates, but all the names."""
        return cls((), ErrorCount(), ErrorCount(), ErrorCount(), ErrorCount())

    @property
    def wer(self) -> float | None:
        """Word error rate of the normalised texts, as a fraction; None without a single word to compare with."""
        return self.words.rate

    @property
    def cer(self) -> float | None:
        """Character error rate of the normalised texts, single spaces counted, as a fraction or None."""
        return self.chars.rate

    @property
    def headline(self) -> tuple[str, float | None]:
        """Name and value of the rate to judge by: CER where a language is written without spaces, else WER."""
        return ("cer", self.cer) if self.unit == CHARACTERS else ("wer", self.wer)

    def figure(self, metric: str) -> tuple[str, float | None]:
        """Name and value of a number of `summary`; `auto` is the headline. ValueError for what is no number there."""
        if metric == "auto":
            return self.headline
        figures = {
            name: value for name, value in self.summary().items() if value is None or isinstance(value, int | float)
        }
        if metric not in figures:
            raise ValueError(f"an evaluation has no figure {metric!r} (allowed: auto, {', '.join(figures)})")
        return metric, figures[metric]

    @property
    def wer_orthographic(self) -> float | None:
        """Word error rate of the texts as written, over the same utterances."""
        return self.words_orthographic.rate

    @property
    def cer_orthographic(self) -> float | None:
        """Character error rate of the texts as written, over the same utterances."""
        return self.chars_orthographic.rate

    @property
    def utterances(self) -> int:
        """All utterances, those with an empty reference too."""
        return len(self.rows)

    @property
    def scored_utterances(self) -> int:
        """Utterances that count in WER and CER."""
        return sum(row.is_scored for row in self.rows)

    @property
    def ser(self) -> float | None:
        """Share of the scored utterances that have an error (sentence error rate)."""
        wrong = sum(row.is_scored and row.ref_norm != row.hyp_norm for row in self.rows)
        return wrong / self.scored_utterances if self.scored_utterances else None

    @property
    def empty_references(self) -> int:
        """Utterances left out of WER and CER, because nothing remains of the reference."""
        return self.utterances - self.scored_utterances

    @property
    def words_on_empty_references(self) -> int:
        """Words that the model wrote where the reference has none: speech invented on silence."""
        return sum(row.words.insertions for row in self.rows if not row.is_scored)

    @property
    def empty_hypotheses(self) -> int:
        """Scored utterances for which the model wrote nothing: all deletions."""
        return sum(row.is_scored and not row.hyp_norm for row in self.rows)

    @property
    def audio_seconds(self) -> float:
        """Length of all audio; a row whose length nobody knows adds nothing."""
        return math.fsum(_finite(row.prediction.audio_seconds) or 0.0 for row in self.rows)

    @property
    def token_limit_hits(self) -> int:
        """Hypotheses that ran into the token limit: their ends are missing."""
        return sum(row.prediction.hit_token_limit for row in self.rows)

    @property
    def problems(self) -> dict[str, int]:
        """How many rows have each reason code."""
        return dict(sorted(Counter(row.prediction.problem for row in self.rows if row.prediction.problem).items()))

    def errors_of(self, row: ScoredRow) -> ErrorCount:
        """The counts to judge a row by: of words, or of characters if that is the unit."""
        return row.chars if self.unit == CHARACTERS else row.words

    def summary(self) -> dict[str, Any]:
        """The totals, ready for JSON: rates are fractions, or null where there is nothing to divide by."""
        unit = {} if self.unit is None else {"unit": self.unit}
        rules = {"normalizer": dict(self.normalizer)} if self.normalizer else {}
        return (
            unit
            | rules
            | {
                "wer": self.wer,
                "cer": self.cer,
                "wer_orthographic": self.wer_orthographic,
                "cer_orthographic": self.cer_orthographic,
                "ser": self.ser,
                "utterances": self.utterances,
                "scored_utterances": self.scored_utterances,
                "words": self.words.reference_length,
                "hits": self.words.hits,
                "substitutions": self.words.substitutions,
                "deletions": self.words.deletions,
                "insertions": self.words.insertions,
                "chars": self.chars.reference_length,
                "char_substitutions": self.chars.substitutions,
                "char_deletions": self.chars.deletions,
                "char_insertions": self.chars.insertions,
                "empty_references": self.empty_references,
                "words_on_empty_references": self.words_on_empty_references,
                "empty_hypotheses": self.empty_hypotheses,
                "token_limit_hits": self.token_limit_hits,
                "problems": {_encodable(reason): count for reason, count in self.problems.items()},
                "audio_seconds": round(self.audio_seconds, 3),
            }
        )


def score(predictions: Sequence[Prediction], normalize: Callable[[str], str]) -> Scores:
    """The predictions compared with their references, after `normalize` and as written.

    A row with an empty normalised reference has no rate: it is left out of both and reported. An empty
    hypothesis is deletions. `normalize` may carry an attribute `unit`, WORDS or CHARACTERS.
    """
    _refuse_duplicates(predictions)
    unit = getattr(normalize, "unit", None)
    count_spaces = unit != CHARACTERS  # where a script has none, one that a model writes is no error
    parts = [
        _scored(predictions[first : first + AT_ONCE], normalize, count_spaces)
        for first in range(0, len(predictions), AT_ONCE)
    ]
    return Scores(
        rows=tuple(row for part in parts for row in part.rows),
        words=total(part.words for part in parts),
        chars=total(part.chars for part in parts),
        words_orthographic=total(part.words_orthographic for part in parts),
        chars_orthographic=total(part.chars_orthographic for part in parts),
        unit=unit,
        normalizer={name: str(getattr(normalize, name)) for name in IDENTITY if hasattr(normalize, name)},
    )


def _scored(predictions: Sequence[Prediction], normalize: Callable[[str], str], count_spaces: bool) -> Scores:
    """The rows and counts of some of the predictions."""
    from whisper_ft.scoring.wer_metric import word_errors

    refs = [_encodable(p.ref) for p in predictions]
    hyps = [_encodable(p.hyp) for p in predictions]
    ref_norms = [_single_spaces(normalize(ref)) for ref in refs]
    hyp_norms = [_single_spaces(normalize(hyp)) for hyp in hyps]
    normalised = word_errors().compute(predictions=hyp_norms, references=ref_norms, count_spaces=count_spaces)

    # The same utterances as above, so that the two rates differ by the spelling alone.
    kept = [index for index, ref in enumerate(ref_norms) if ref]
    orthographic = word_errors().compute(
        predictions=[as_written(hyps[index]) for index in kept],
        references=[as_written(refs[index]) for index in kept],
        count_spaces=count_spaces,
    )
    rows = zip(predictions, ref_norms, hyp_norms, normalised["utterances"], strict=True)
    return Scores(
        rows=tuple(ScoredRow(prediction, ref, hyp, *counts) for prediction, ref, hyp, counts in rows),
        words=normalised["words"],
        chars=normalised["characters"],
        words_orthographic=orthographic["words"],
        chars_orthographic=orthographic["characters"],
    )


def as_written(text: str) -> str:
    """The text in NFC with single spaces: what orthographic scores compare."""
    return _single_spaces(unicodedata.normalize("NFC", text))


def _refuse_duplicates(predictions: Sequence[Prediction]) -> None:
    repeated = [name for name, count in Counter(p.id for p in predictions).items() if count > 1]
    if repeated:
        named = ", ".join(repr(name) for name in repeated[:5]) + (", …" if len(repeated) > 5 else "")
        raise ValueError(f"every utterance must be scored once, but {len(repeated)} ids occur more than once: {named}")


def _single_spaces(text: str) -> str:
    return " ".join(text.split())


def _encodable(text: str) -> str:
    """The text with U+FFFD for lone surrogates: "\\ud83d" alone is legal in JSON, but nothing can write it as UTF-8."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
