"""Guards against forgetting: limits on how much worse than the start model a model may be on a set."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from whisper_ft.scoring.bootstrap import Interval, matched_rows, paired_ratio
from whisper_ft.scoring.edit_distance import ErrorCount, count_errors
from whisper_ft.scoring.long_form_figures import VALID_TIMESTAMPS
from whisper_ft.scoring.normalizer import Unit
from whisper_ft.scoring.scores import CHARACTERS, INVENTED, LOSS, ScoredRow, Scores
from whisper_ft.scoring.unicode_text import as_written, encodable, without_optional_spaces

GuardRule = Literal["warn", "no_best", "stop"]
Figures = Mapping[str, float | None]
"""Figures of one set by name; None for a figure that the set does not have."""
History = Sequence[tuple[int, Figures]]
"""Figures of a set by step, in any order. Step 0 is the start model."""

LOWER, HIGHER = -1, 1
BETTER: Mapping[str, int] = {
    "wer": LOWER,
    "cer": LOWER,
    "wer_orthographic": LOWER,
    "cer_orthographic": LOWER,
    "ser": LOWER,
    "hits": HIGHER,
    "substitutions": LOWER,
    "deletions": LOWER,
    "insertions": LOWER,
    "char_substitutions": LOWER,
    "char_deletions": LOWER,
    "char_insertions": LOWER,
    "words_on_empty_references": LOWER,
    INVENTED: LOWER,
    "empty_hypotheses": LOWER,
    "token_limit_hits": LOWER,
    "fallback_windows": LOWER,
    LOSS: LOWER,
    "deletion_rate": LOWER,
    "late_deletions": LOWER,
    VALID_TIMESTAMPS: HIGHER,
}
"""Direction in which each figure of a set's row in metrics.jsonl is better; its other numbers describe the set."""
FRACTIONS = frozenset(
    {"wer", "cer", "wer_orthographic", "cer_orthographic", "ser", "deletion_rate", "late_deletions", VALID_TIMESTAMPS}
)
"""Figures that are fractions, which people read in percent."""
LONG_FIGURES = frozenset({"deletion_rate", "late_deletions", VALID_TIMESTAMPS})
"""Figures that only sets of long recordings have."""
WITHOUT_CASES: Mapping[str, float] = {"late_deletions": 0.0, VALID_TIMESTAMPS: 0.0}
"""Values of figures that are None because nothing could be counted: no deletion, or no window with any output."""
GUARD_FIGURES = ("worse_by", "outside", "guard", "reference", "limit", "rule", "change_interval")
"""Names of a verdict's values in a set's row of metrics.jsonl, such as NAME/worse_by. `guard` is the metric."""
DECIMALS = 12  # of a difference; 0.12 - 0.11 is 0.009999999999999995


@dataclass(frozen=True)
class Guard:
    """Limit on how much worse than the start model a model may be on one set."""

    name: str
    """Name of the set."""
    metric: str
    """Name in BETTER of the figure that is compared."""
    max_worse: float
    """Largest change for the worse that is allowed, in the unit of the figure: 0.01 is one point of WER."""
    rule: GuardRule = "warn"
    """Effect of a larger change: a warning, no best model, or also the end of the run."""

    @property
    def decides(self) -> bool:
        """True if a model outside the limit cannot be the best one."""
        return self.rule != "warn"

    def verdict(self, reference: Figures, now: Figures) -> "Verdict":
        """Judge figures of the set by those of the start model, both from `figures_of`. There is no interval."""
        value = reference.get(self.metric)
        return Verdict(self, math.nan if value is None else value, now.get(self.metric))

    def verdict_at(self, history: History, step: int) -> "Verdict | None":
        """Judge the newest figures of the set at or before a step; None if the start model has no such figure."""
        known = {at: figures for at, figures in history if at <= step and self.metric in figures}
        is_known = known.get(0, {}).get(self.metric) is not None
        return self.verdict(known[0], known[max(known)]) if is_known else None

    def compare(self, reference: Scores, now: Scores) -> "Verdict":
        """Judge scores of the set by those of the start model, with the interval of the change.

        Raises ValueError, as `matched_rows` does, if their utterances or references differ.
        """
        verdict = self.verdict(figures_of(reference), figures_of(now))
        return replace(verdict, interval=paired_interval(reference, now, self.metric))


@dataclass(frozen=True)
class Verdict:
    """Verdict of a guard on one evaluation of its set."""

    guard: Guard
    reference: float
    """Figure of the start model; NaN if it is not known, and then nothing is outside."""
    now: float | None
    """Figure of the model that is judged; None or NaN if it has none, and then it is outside."""
    interval: Interval | None = None
    """Interval of the change by a paired bootstrap over the utterances; None if it is not known."""

    @property
    def change(self) -> float | None:
        """Figure of the model minus that of the start model."""
        return None if self.now is None else round(self.now - self.reference, DECIMALS)

    @property
    def worse_by(self) -> float:
        """Change for the worse, as `worse_by` computes it."""
        return worse_by(self.reference, self.now, self.guard.metric)

    @property
    def is_outside(self) -> bool:
        """True if the model is worse by more than the guard allows."""
        return self.worse_by > self.guard.max_worse

    @property
    def limit(self) -> float:
        """Worst figure that the guard allows."""
        return round(self.reference - BETTER[self.guard.metric] * self.guard.max_worse, DECIMALS)

    def summary(self) -> dict[str, Any]:
        """Return the verdict as JSON values, with the names of GUARD_FIGURES."""
        interval = self.interval and [self.interval.low, self.interval.high]
        worse = self.worse_by if math.isfinite(self.worse_by) else None
        values = (worse, self.is_outside, self.guard.metric, self.reference, self.limit, self.guard.rule, interval)
        return dict(zip(GUARD_FIGURES, values, strict=True))


def excluded_steps(guards: Sequence[Guard], histories: Mapping[str, History], steps: Iterable[int]) -> tuple[int, ...]:
    """Return the steps at which a guard that decides is outside, so that their models cannot be the best.

    `histories` holds the figures of the sets by name. A set that is scored less often than every step in `steps` counts
    with its newest figures at or before the step.
    """
    deciding = [guard for guard in guards if guard.decides]

    def is_outside(guard: Guard, step: int) -> bool:
        verdict = guard.verdict_at(histories.get(guard.name, ()), step)
        return verdict is not None and verdict.is_outside

    return tuple(step for step in steps if any(is_outside(guard, step) for guard in deciding))


def stopping_verdict(guards: Sequence[Guard], histories: Mapping[str, History], step: int) -> "Verdict | None":
    """Return the first verdict at a step that ends a run; None if there is none."""
    verdicts = (guard.verdict_at(histories.get(guard.name, ()), step) for guard in guards if guard.rule == "stop")
    return next((verdict for verdict in verdicts if verdict is not None and verdict.is_outside), None)


def metric_named(name: str, unit: Unit) -> str:
    """Return the name in BETTER of a metric of a guard: `auto` is wer or cer, `loss` is eval_loss.

    `unit` is that of the set's normaliser. Raises ValueError for any other name.
    """
    metric = {"auto": "cer" if unit == CHARACTERS else "wer", "loss": LOSS}.get(name, name)
    if metric not in BETTER:
        raise ValueError(f"{name!r} is not a figure that a guard can watch (allowed: auto, loss, {', '.join(BETTER)})")
    return metric


def worse_by(reference: float, now: float | None, metric: str) -> float:
    """Return by how much a figure is worse than its reference; negative if it is better.

    A figure that is None or NaN is worse by infinity, because nothing shows that the model is as good as before. The
    result is NaN if the reference is.
    """
    if math.isnan(reference):
        return math.nan
    if now is None or math.isnan(now):
        return math.inf
    return round((now - reference) * -BETTER[metric], DECIMALS)


def figures_of(scores: Scores) -> dict[str, float | None]:
    """Return the figures in BETTER that the scores of a set have, by name."""
    summary = scores.summary()
    return {name: _known(name, summary[name]) for name in BETTER if name in summary}


def _known(name: str, value: float | None) -> float | None:
    return WITHOUT_CASES.get(name) if value is None else value


def paired_interval(reference: Scores, now: Scores, metric: str) -> Interval | None:
    """Return the interval of the change of a figure between two models; None for a figure that is a count.

    It is also None if fewer than two speakers or utterances can be drawn. Raises ValueError, as `matched_rows` does.
    """
    parts_of = RATIOS.get(metric)
    if parts_of is None:
        return None
    pairs = matched_rows(reference, now, ("the start model", "this model"))
    counts = [(before, (*parts_of(before, reference), *parts_of(after, now))) for before, after in pairs]
    counted = [(row, parts) for row, parts in counts if parts[1] or parts[3]]
    difference = paired_ratio([row for row, _ in counted], [parts for _, parts in counted])
    return difference.interval if difference else None


Ratio = tuple[float, float]
"""Share of one row in the numerator and in the denominator of a figure of the whole set."""


def _rate(count: ErrorCount, row: ScoredRow) -> Ratio:
    return (count.errors, count.reference_length) if row.is_scored else (0, 0)


def _as_written_words(row: ScoredRow, _: Scores) -> Ratio:
    ref, hyp = _texts(row)
    return _rate(count_errors(ref.split(), hyp.split()), row)


def _as_written_characters(row: ScoredRow, scores: Scores) -> Ratio:
    texts: Sequence[str] = _texts(row)
    if scores.unit == CHARACTERS:
        texts = [without_optional_spaces(text) for text in texts]
    return _rate(count_errors(*texts), row)


def _texts(row: ScoredRow) -> tuple[str, str]:
    return as_written(encodable(row.prediction.ref)), as_written(encodable(row.prediction.hyp))


def _deletions(row: ScoredRow, scores: Scores) -> Ratio:
    count = scores.errors_of(row)
    return (count.deletions, count.reference_length) if row.is_scored else (0, 0)


def _late(row: ScoredRow, _: Scores) -> Ratio:
    return (row.timed_deletions.late, row.timed_deletions.all) if row.is_scored and row.timed_deletions else (0, 0)


def _loss(row: ScoredRow, _: Scores) -> Ratio:
    tokens = row.prediction.label_tokens or 0
    return (row.prediction.loss or 0.0) * tokens, tokens


def _invented(row: ScoredRow, _: Scores) -> Ratio:
    return (0, 0) if row.is_scored else (row.words.insertions, row.seconds / 60)


def _timestamps(row: ScoredRow, _: Scores) -> Ratio:
    known = [window.get(VALID_TIMESTAMPS) for window in row.prediction.window_confidence or ()]
    return sum(value is True for value in known), sum(value is not None for value in known)


RATIOS: Mapping[str, Callable[[ScoredRow, Scores], Ratio]] = {
    "wer": lambda row, _: _rate(row.words, row),
    "cer": lambda row, _: _rate(row.chars, row),
    "wer_orthographic": _as_written_words,
    "cer_orthographic": _as_written_characters,
    "ser": lambda row, _: (row.ref_norm != row.hyp_norm, 1) if row.is_scored else (0, 0),
    INVENTED: _invented,
    LOSS: _loss,
    "deletion_rate": _deletions,
    "late_deletions": _late,
    VALID_TIMESTAMPS: _timestamps,
}
"""Parts of each figure that is a ratio of sums over the rows; the other figures are counts."""
