"""Evaluation on the console: error rates, their change since the last evaluation, and their trend."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from whisper_ft.checkpoint.state import Best, TrainState
from whisper_ft.reports.text import percent
from whisper_ft.runtime.printable import counted
from whisper_ft.scoring.scores import LOSS, Scores
from whisper_ft.scoring.unheard import unheard_note

RATES = {"wer": "WER", "cer": "CER", "ser": "SER", "wer_orthographic": "WER as written"}
PERCENT = (*RATES, "cer_orthographic")
BARS = "▁▂▃▄▅▆▇█"
TREND = 16  # newest evaluations in a trend


def table(state: TrainState, steps: int, scores: Scores, earlier: Sequence[Mapping[str, Any]]) -> Table:
    """Make a table of the error rates, their change since the last evaluation, and their trend.

    `earlier` are the rows of metrics.jsonl for the evaluations before this one, the oldest first.
    """
    size = counted(scores.utterances, "utterance")
    title = [f"\nevaluation at step {state.step}/{steps}: {size}", unheard_note(scores)]
    rows = Table(
        title="; ".join(filter(None, title)),
        caption=compared_with_best(state),
        title_justify="left",
        title_style="bold",
        caption_justify="left",
        header_style="dim",
        box=None,
        padding=(0, 2),
    )
    rows.add_column("")
    for name in ("now", "change"):
        rows.add_column(name, justify="right", no_wrap=True)
    rows.add_column("trend", no_wrap=True)
    now = scores.summary()
    for key, name in RATES.items():
        rates = [row.get(key) for row in earlier] + [now[key]]
        cells = (Text(name), Text(percent(now[key])), change(*rates[-2:]) if earlier else Text("first"))
        rows.add_row(*cells, Text(sparkline(rates)), style="bold" if key == scores.headline[0] else None)
    if scores.loss is not None:
        losses = [row.get(LOSS) for row in earlier] + [scores.loss]
        rows.add_row(Text("loss"), Text(f"{scores.loss:.4f}"), _difference(losses), Text(sparkline(losses)))
    return rows


def line(state: TrainState, steps: int, scores: Scores, earlier: Sequence[Mapping[str, Any]]) -> str:
    """Return the main content of `table` as one line, for output that goes to a file.

    It has WER, CER and loss; change and trend are of the main rate only.
    """
    return f"step {state.step}/{steps}  {figures(scores, earlier, compared_with_best(state))}"


def figures(scores: Scores, earlier: Sequence[Mapping[str, Any]], compared: str = "") -> str:
    """Return the figures of one set and their trend, without the step. `compared` are words between both."""
    now = "no words" if scores.wer is None else f"WER {percent(scores.wer)}  CER {percent(scores.cer)}"
    now += "" if scores.loss is None else f"  loss {scores.loss:.4f}"
    trend, (key, value) = "", scores.headline
    if earlier and value is not None and earlier[-1].get(key) is not None:
        rates = [row.get(key) for row in earlier] + [value]
        trend = f"; {RATES[key]} {change(*rates[-2:]).plain} since step {earlier[-1]['step']}  {sparkline(rates)}"
    more = "".join(f"; {text}" for text in (unheard_note(scores), compared) if text)
    return f"{now}  on {counted(scores.utterances, 'utterance')}{more}{trend}"


def compared_with_best(state: TrainState) -> str:
    """Say how this evaluation compares with the best one so far; "" if there is none and no guard is against it."""
    excluded = "not the best, because of a guard" if state.excluded[-1:] == (state.step,) else ""
    best = "the best so far" if state.improved else "" if state.best is None else f"best {_best(state.best)}"
    return "; ".join(filter(None, [excluded, best]))


def _best(best: Best) -> str:
    value = percent(best.value) if best.metric in PERCENT else f"{best.value:g}"
    return f"{best.metric} {value} at step {best.step}"


def change(before: float | None, now: float | None) -> Text:
    """Format the change of an error rate in percentage points, with an arrow, a sign and a colour.

    It is `n/a` if one of both is None. The rates are fractions.
    """
    if before is None or now is None:
        return Text("n/a", style="dim")
    points = round(100 * (now - before), 2)
    if not points:
        return Text("= 0.00", style="dim")
    sign, arrow, style = ("+", "▲", "magenta") if points > 0 else ("\u2212", "▼", "cyan")
    return Text(f"{arrow} {sign}{abs(points):.2f}", style=style)


def _difference(losses: Sequence[float | None]) -> Text:
    """Format the change of the last loss since the one before."""
    if len(losses) < 2 or losses[-1] is None or losses[-2] is None:
        return Text("first" if len(losses) < 2 else "n/a")
    return Text(f"{losses[-1] - losses[-2]:+.4f}".replace("-", "\u2212"))


def sparkline(values: Iterable[float | None], count: int = TREND) -> str:
    """Draw the newest values as bars between their minimum and maximum; a dot stands for an unknown value."""
    newest = list(values)[-count:]
    known = [value for value in newest if value is not None and math.isfinite(value)]
    low, spread = min(known, default=0.0), max(known, default=0.0) - min(known, default=0.0)

    def bar(value: float | None) -> str:
        if value is None or not math.isfinite(value):
            return "·"
        return BARS[round((value - low) / spread * (len(BARS) - 1))] if spread else BARS[len(BARS) // 2]

    return "".join(map(bar, newest))
