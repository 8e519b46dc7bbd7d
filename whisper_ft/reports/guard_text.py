"""Words about the verdicts of guards against forgetting, for the console, pages and model cards."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from whisper_ft.reports.text import percent, points
from whisper_ft.scoring.bootstrap import LEVEL, Interval
from whisper_ft.scoring.guard import BETTER, FRACTIONS, LOWER, Guard, Verdict
from whisper_ft.scoring.scores import LOSS

NAMES = {
    "wer": "WER",
    "cer": "CER",
    "ser": "SER",
    "wer_orthographic": "WER as written",
    "cer_orthographic": "CER as written",
    LOSS: "loss",
    "timestamps": "valid timestamps",
}
"""Names of figures for people; any other figure is called as in metrics.jsonl, with spaces."""
EFFECTS = {
    "warn": "the run goes on",
    "no_best": "this evaluation cannot be the best one",
    "stop": "the run ends, and this evaluation cannot be the best one",
}
PAGE = "docs/forgetting.md"


def figure_name(metric: str) -> str:
    """Return the name of a figure for people."""
    return NAMES.get(metric, metric.replace("_", " "))


def figure_text(metric: str, value: float | None) -> str:
    """Format a figure: a fraction as a percentage, any other number with four digits; `n/a` for None."""
    if value is None or metric in FRACTIONS:
        return percent(value)
    return f"{value:.4g}"


def change_text(metric: str, change: float | None) -> str:
    """Format the change of a figure with its sign, in percentage points for a fraction; `n/a` for None."""
    if change is None or not math.isfinite(change):
        return "n/a"
    return points(change) if metric in FRACTIONS else f"{change:+.4g}".replace("-", "\u2212")


def limit_line(verdict: Verdict) -> str:
    """Return a line with the figure of the start model, the worst figure that the guard allows, and its rule."""
    metric = verdict.guard.metric
    bound = "at most" if BETTER[metric] == LOWER else "at least"
    start, limit = figure_text(metric, verdict.reference), figure_text(metric, verdict.limit)
    return f"{figure_name(metric)} of the start model {start}; {bound} {limit} is allowed (rule {verdict.guard.rule})"


def change_line(verdict: Verdict) -> str:
    """Say how the figure changed, with its interval and the largest change that is allowed."""
    metric, interval = verdict.guard.metric, verdict.interval
    ends = interval and f"{LEVEL:.0%} interval {_range(metric, interval)}, "
    change, unit = change_text(metric, verdict.change), " points" if metric in FRACTIONS else ""
    return (
        f"{figure_name(metric)} {figure_text(metric, verdict.now)}, {change}{unit} against the start model "
        f"({ends or ''}limit {allowed_change(verdict.guard)})"
    )


def allowed_change(guard: Guard) -> str:
    """Return the largest allowed change as a number with its sign: a rise of a rate, or a fall of a share."""
    return change_text(guard.metric, -BETTER[guard.metric] * guard.max_worse)


def note(verdict: Verdict) -> str:
    """Return the change with its interval and its limit in few words, for a line or a table of figures."""
    metric, ends = verdict.guard.metric, verdict.interval
    change = change_text(metric, verdict.change) + (f" ({_range(metric, ends)})" if ends else "")
    return f"{change} of {allowed_change(verdict.guard)}" + (", outside" if verdict.is_outside else "")


def warning_line(verdict: Verdict) -> str:
    """Return the warning about a verdict that is outside: the change, its effect, and a remedy."""
    return (
        f"warning: guard {verdict.guard.name}: {change_line(verdict)}; {EFFECTS[verdict.guard.rule]}. To keep what the "
        f"start model knew, add such data to data.sources; a share of 0.2 kept the English of whisper-base ({PAGE})"
    )


def _range(metric: str, interval: Interval) -> str:
    return f"{change_text(metric, interval.low)} to {change_text(metric, interval.high)}"


@dataclass(frozen=True)
class GuardRow:
    """Verdict of a guard as a row of a table, made from a row of metrics.jsonl. All fields are texts for people."""

    name: str
    step: str
    figure: str
    start: str
    now: str
    change: str
    allowed: str
    is_outside: bool

    @property
    def verdict(self) -> str:
        """Verdict in words: `outside, WER +1.20 (limit +1.00)`."""
        place = "outside" if self.is_outside else "within"
        return f"{place}, {self.figure} {self.change} (limit {self.allowed})"

    @classmethod
    def of(cls, name: str, figures: Mapping[str, Any]) -> "GuardRow | None":
        """Make the row of a set from its figures with plain names; None if the set was no guard then."""
        metric = str(figures.get("guard"))
        if metric not in BETTER:
            return None
        start, limit = float(figures["reference"]), float(figures["limit"])
        now = figures.get(metric)
        change = None if now is None else now - start
        ends = figures.get("change_interval")
        interval = f" ({_range(metric, Interval(*map(float, ends)))})" if ends else ""
        return cls(
            name=name,
            step=f"{figures['step']:,}",
            figure=figure_name(metric),
            start=figure_text(metric, start),
            now=figure_text(metric, now),
            change=change_text(metric, change) + interval,
            allowed=change_text(metric, limit - start),
            is_outside=bool(figures.get("outside")),
        )
