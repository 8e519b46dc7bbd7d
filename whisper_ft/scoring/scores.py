"""Error rates of a whole set: the errors of all utterances are summed first, and the sum is divided once."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple, Self

from whisper_ft.scoring.confidence_figures import utterance_confidence
from whisper_ft.scoring.edit_distance import ErrorCount, count_errors, total
from whisper_ft.scoring.long_form_figures import LongFormFigures, ReferencePart, TimedDeletions, count_timed_deletions
from whisper_ft.scoring.normalizer import Normalizer, NormalizerIdentity, Unit
from whisper_ft.scoring.unicode_text import as_written, encodable, single_spaces

WORDS: Final = "words"
CHARACTERS: Final = "characters"  # of languages written without spaces: the headline rate is the CER
LOSS: Final = "eval_loss"  # `loss` in a row of metrics.jsonl is that of training
INVENTED: Final = "invented_words_per_minute"
BLOCK_UTTERANCES = 4000  # utterances compared at a time, so that few copies of texts exist; counts add up exactly
MAX_NAMED_IDS = 5  # ids named in an error message


@dataclass(frozen=True, slots=True)
class Prediction:
    """Transcript of one utterance, with its reference."""

    id: str
    ref: str
    hyp: str
    audio_seconds: float
    hyp_tokens: int
    hit_token_limit: bool = False
    language: str | None = None
    speaker: str | None = None
    detected_language: str | None = None  # by the model, if language detection was requested
    windows: int = 1  # model inputs that the recording was cut into
    segments: Sequence[tuple[float, float, str]] | None = (
        None  # (start, end, text) in seconds, if timestamps were requested
    )
    problem: str | None = None  # reason code of a row that was undecodable or cut; it is scored all the same
    columns: Mapping[str, Any] | None = None  # further columns of the data, by names that no field of a record has
    loss: float | None = None  # mean over the tokens of the reference, in nats, if losses are computed
    label_tokens: int | None = None  # tokens in that mean
    segment_logprobs: Sequence[float | None] | None = None  # mean log-probability of each of `segments`
    window_confidence: Sequence[Mapping[str, Any]] | None = None  # a record for each window; None if not known
    ref_segments: Sequence[ReferencePart] | None = None  # reference with times, of a set of long recordings

    @property
    def is_heard(self) -> bool:
        """False if the audio could not be read, so that the model transcribed silence."""
        return self.problem is None or self.audio_seconds != 0


@dataclass(frozen=True, slots=True)
class ScoredRow:
    """A prediction with its normalised texts and error counts."""

    prediction: Prediction
    ref_norm: str
    hyp_norm: str
    words: ErrorCount
    chars: ErrorCount
    timed_deletions: TimedDeletions | None = None  # None without the times of the reference

    @property
    def is_scored(self) -> bool:
        """True if the row counts in WER and CER, because its normalised reference is not empty."""
        return bool(self.ref_norm)

    @property
    def seconds(self) -> float:
        """Seconds of the audio; 0 if its length is not known."""
        return _finite_or_none(self.prediction.audio_seconds) or 0.0

    def record(self) -> dict[str, Any]:
        """Return the row as a record of predictions.jsonl, with further columns as texts. It can be encoded as UTF-8.

        An unknown length of the audio and the rates of an empty reference are None.
        """
        row = asdict(self.prediction) | {"ref_norm": self.ref_norm, "hyp_norm": self.hyp_norm}
        columns = row.pop("columns") or {}
        if row["ref_segments"] is None:
            del row["ref_segments"]
        row = {key: encodable(value) if isinstance(value, str) else value for key, value in row.items()}
        row |= utterance_confidence(self.prediction.window_confidence or ())
        row["audio_seconds"] = _finite_or_none(self.prediction.audio_seconds)
        row["words"] = self.words.reference_length
        row |= {key: getattr(self.words, key) for key in ("hits", "substitutions", "deletions", "insertions")}
        row |= {"chars": self.chars.reference_length, "char_errors": self.chars.errors}
        row |= {"wer": self.words.rate, "cer": self.chars.rate}
        return row | {name: None if value is None else encodable(str(value)) for name, value in columns.items()}


@dataclass(frozen=True)
class Scores:
    """Scores of a test set, of normalised texts and of texts as written (orthographic)."""

    rows: tuple[ScoredRow, ...]  # in the order of the predictions
    words: ErrorCount
    chars: ErrorCount
    words_orthographic: ErrorCount  # of texts in NFC with single spaces, so that case and punctuation count
    chars_orthographic: ErrorCount
    unit: Unit
    normalizer: NormalizerIdentity

    @classmethod
    def empty(cls) -> Self:
        """Return the scores of an empty set, in which every rate is None. They show the names of all figures."""
        none = ErrorCount()
        return cls((), none, none, none, none, WORDS, NormalizerIdentity("none", "und", "", ""))

    @property
    def wer(self) -> float | None:
        """Word error rate of the normalised texts, as a fraction; None if no reference has a word."""
        return self.words.rate

    @property
    def cer(self) -> float | None:
        """Character error rate of the normalised texts, as a fraction; None if no reference has a word.

        Each single space between words counts as a character. In languages written without spaces, only a space
        between two words of other scripts or two numbers does.
        """
        return self.chars.rate

    @property
    def headline(self) -> tuple[str, float | None]:
        """Name and value of the main rate: the CER for languages written without spaces, else the WER."""
        return ("cer", self.cer) if self.unit == CHARACTERS else ("wer", self.wer)

    def figure(self, metric: str) -> tuple[str, float | None]:
        """Return name and value of a number in `summary`; `auto` means the main rate, `loss` means `eval_loss`.

        The value is None if it is not known for this set. Raises ValueError if there is no number of this name.
        """
        if metric == "auto":
            return self.headline
        metric = LOSS if metric == "loss" else metric
        figures = {
            name: value for name, value in self.summary().items() if value is None or isinstance(value, int | float)
        }
        if metric not in figures:
            raise ValueError(f"{metric!r} is not a metric of an evaluation (allowed: auto, {', '.join(figures)})")
        return metric, figures[metric]

    @property
    def wer_orthographic(self) -> float | None:
        """Word error rate of the texts as written, over the same utterances as `wer`; None as for `wer`."""
        return self.words_orthographic.rate

    @property
    def cer_orthographic(self) -> float | None:
        """Character error rate of the texts as written, over the same utterances as `cer`; None as for `cer`."""
        return self.chars_orthographic.rate

    @property
    def utterances(self) -> int:
        """Number of utterances, including those with an empty reference."""
        return len(self.rows)

    @property
    def scored_utterances(self) -> int:
        """Number of utterances that count in WER and CER."""
        return sum(row.is_scored for row in self.rows)

    @property
    def ser(self) -> float | None:
        """Sentence error rate: the share of scored utterances with at least one error; None if none is scored."""
        wrong = sum(row.is_scored and row.ref_norm != row.hyp_norm for row in self.rows)
        return wrong / self.scored_utterances if self.scored_utterances else None

    @property
    def empty_references(self) -> int:
        """Number of utterances left out of WER and CER because their normalised reference is empty."""
        return self.utterances - self.scored_utterances

    @property
    def words_on_empty_references(self) -> int:
        """Number of words transcribed for empty references: speech invented on silence."""
        return sum(row.words.insertions for row in self.rows if not row.is_scored)

    @property
    def empty_hypotheses(self) -> int:
        """Number of scored utterances with an empty transcript; all their words are deletions."""
        return sum(row.is_scored and not row.hyp_norm for row in self.rows)

    @property
    def audio_seconds(self) -> float:
        """Seconds of all audio; a row of unknown length adds nothing."""
        return math.fsum(row.seconds for row in self.rows)

    @property
    def invented_words_per_minute(self) -> float | None:
        """Words transcribed for empty references, per minute of their audio; None without such audio."""
        minutes = math.fsum(row.seconds for row in self.rows if not row.is_scored) / 60
        return self.words_on_empty_references / minutes if minutes else None

    @property
    def token_limit_hits(self) -> int:
        """Number of transcripts that reached the token limit, so that their ends are missing."""
        return sum(row.prediction.hit_token_limit for row in self.rows)

    @property
    def no_speech_windows(self) -> int:
        """Number of windows that were taken for silence, so that their text is empty."""
        return sum(not window["is_speech"] for row in self.rows for window in row.prediction.window_confidence or ())

    @property
    def fallback_windows(self) -> int:
        """Number of windows whose text was written at a higher temperature, after a doubtful first attempt."""
        windows = (window for row in self.rows for window in row.prediction.window_confidence or ())
        return sum(window["temperature"] > 0 for window in windows)

    @property
    def unheard(self) -> int:
        """Number of rows whose audio could not be read. They are scored all the same."""
        return sum(not row.prediction.is_heard for row in self.rows)

    @property
    def problems(self) -> dict[str, int]:
        """Number of rows for each reason code, sorted by code. Rows without a problem are not counted."""
        return dict(sorted(Counter(row.prediction.problem for row in self.rows if row.prediction.problem).items()))

    @property
    def loss(self) -> float | None:
        """Mean loss over all label tokens of the set, in nats; None if no utterance has a loss."""
        tokens = sum(row.prediction.label_tokens or 0 for row in self.rows)
        sums = ((row.prediction.loss or 0.0) * (row.prediction.label_tokens or 0) for row in self.rows)
        return math.fsum(sums) / tokens if tokens else None

    @property
    def without_loss(self) -> int:
        """Number of utterances without a loss, such as long recordings and references that cannot be labels."""
        return sum(row.prediction.loss is None for row in self.rows)

    @cached_property
    def long_form(self) -> LongFormFigures | None:
        """Figures of a set of long recordings; None for any other set."""
        windows = (window for row in self.rows for window in row.prediction.window_confidence or ())
        errors = self.chars if self.unit == CHARACTERS else self.words
        return LongFormFigures.of(windows, errors, [row.timed_deletions for row in self.rows if row.is_scored])

    def errors_of(self, row: ScoredRow) -> ErrorCount:
        """Return the counts of a row in the unit of the main rate, words or characters."""
        return row.chars if self.unit == CHARACTERS else row.words

    def summary(self) -> dict[str, Any]:
        """Return the totals as JSON values. Rates are fractions, or None if no reference has a word.

        `eval_loss` is None if no utterance has a loss. Only a set of long recordings has the last figures.
        """
        return {
            "unit": self.unit,
            "normalizer": asdict(self.normalizer),
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
            INVENTED: self.invented_words_per_minute,
            "empty_hypotheses": self.empty_hypotheses,
            "token_limit_hits": self.token_limit_hits,
            "no_speech_windows": self.no_speech_windows,
            "fallback_windows": self.fallback_windows,
            "unheard": self.unheard,
            "problems": {encodable(reason): count for reason, count in self.problems.items()},
            "audio_seconds": round(self.audio_seconds, 3),
            LOSS: self.loss,
            "utterances_without_loss": self.without_loss,
            **(self.long_form.summary() if self.long_form else {}),
        }


def score(predictions: Sequence[Prediction], normalize: Normalizer) -> Scores:
    """Compare predictions with their references, normalised and as written.

    A row whose normalised reference is empty has no rate. It is left out of the rates, and such rows are counted. An
    empty transcript counts as deletions. Raises ValueError if an id occurs twice.
    """
    _refuse_duplicates(predictions)
    blocks = [
        _score_block(predictions[first : first + BLOCK_UTTERANCES], normalize)
        for first in range(0, len(predictions), BLOCK_UTTERANCES)
    ]
    return Scores(
        rows=tuple(row for block in blocks for row in block.rows),
        words=total(block.words for block in blocks),
        chars=total(block.chars for block in blocks),
        words_orthographic=total(block.words_orthographic for block in blocks),
        chars_orthographic=total(block.chars_orthographic for block in blocks),
        unit=normalize.unit,
        normalizer=NormalizerIdentity.of(normalize),
    )


def count_word_errors(prediction: Prediction, normalize: Normalizer) -> ErrorCount:
    """Count the word errors of one utterance as `score` does for the WER; none for an empty normalised reference.

    It serves for a running WER during transcription, because a whole `Scores` for each utterance would be too slow.
    """
    ref, hyp = (single_spaces(normalize(encodable(text))) for text in (prediction.ref, prediction.hyp))
    return count_errors(ref.split(), hyp.split()) if ref else ErrorCount()


class _Block(NamedTuple):
    """Rows and error counts of a part of the predictions."""

    rows: list[ScoredRow]
    words: ErrorCount
    chars: ErrorCount
    words_orthographic: ErrorCount
    chars_orthographic: ErrorCount


def _score_block(predictions: Sequence[Prediction], normalize: Normalizer) -> _Block:
    from whisper_ft.scoring.wer_metric import wer_metric  # here, because importing `evaluate` takes 0.7 s

    count_spaces = normalize.unit != CHARACTERS  # beside a script without spaces, a space in a transcript is no error
    refs = [encodable(prediction.ref) for prediction in predictions]
    hyps = [encodable(prediction.hyp) for prediction in predictions]
    ref_norms = [single_spaces(normalize(ref)) for ref in refs]
    hyp_norms = [single_spaces(normalize(hyp)) for hyp in hyps]
    normalised = wer_metric().compute(predictions=hyp_norms, references=ref_norms, count_spaces=count_spaces)

    # The orthographic rates cover the same utterances, so that the two rates differ by the spelling alone.
    scored = [index for index, ref in enumerate(ref_norms) if ref]
    orthographic = wer_metric().compute(
        predictions=[as_written(hyps[index]) for index in scored],
        references=[as_written(refs[index]) for index in scored],
        count_spaces=count_spaces,
    )
    rows = zip(predictions, ref_norms, hyp_norms, normalised["utterances"], strict=True)
    return _Block(
        rows=[
            ScoredRow(prediction, ref, hyp, words, chars, _timed_deletions(prediction, hyp, normalize))
            for prediction, ref, hyp, (words, chars) in rows
        ],
        words=normalised["words"],
        chars=normalised["characters"],
        words_orthographic=orthographic["words"],
        chars_orthographic=orthographic["characters"],
    )


def _timed_deletions(prediction: Prediction, hypothesis: str, normalize: Normalizer) -> TimedDeletions | None:
    return count_timed_deletions(
        prediction.ref_segments, prediction.window_confidence, prediction.audio_seconds, hypothesis, normalize
    )


def _refuse_duplicates(predictions: Sequence[Prediction]) -> None:
    repeated = [name for name, count in Counter(p.id for p in predictions).items() if count > 1]
    if repeated:
        raise ValueError(
            f"{len(repeated):,} ids occur more than once: {listed_ids(repeated)}; "
            "every utterance must be scored once, so give each its own id"
        )


def listed_ids(ids: Sequence[str]) -> str:
    """Format the first 5 ids, quoted, for a message. An ellipsis stands for the others."""
    return ", ".join(repr(name) for name in ids[:MAX_NAMED_IDS]) + (", …" if len(ids) > MAX_NAMED_IDS else "")


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
