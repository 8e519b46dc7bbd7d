"""An evaluation on the screen: rates, how they moved since the last one, and their course."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from whisper_ft.checkpoint.state import Best, TrainState
from whisper_ft.scoring.scores import Scores

RATES = {"wer": "WER", "cer": "CER", "ser": "SER", "wer_orthographic": "WER as written"}
PERCENT = (*RATES, "cer_orthographic")
BARS = "▁▂▃▄▅▆▇█"
TREND = 16  # evaluations shown, the newest ones


def table(state: TrainState, steps: int, scores: Scores, earlier: Sequence[Mapping[str, Any]]) -> Table:
    """Rates now, their change since the evaluation before, and their course over `earlier` ones and this."""
    shown = Table(
        title=f"\nevaluation at step {state.step}/{steps}: {scores.utterances} utterances",
        caption=standing(state),
        title_justify="left",
        title_style="bold",
        caption_justify="left",
        header_style="dim",
        box=None,
        padding=(0, 2),
    )
    shown.add_column("")
    for name in ("now", "change"):
        shown.add_column(name, justify="right", no_wrap=True)
    shown.add_column("trend", no_wrap=True)
    now = scores.summary()
    for key, name in RATES.items():
        course = [row.get(key) for row in earlier] + [now[key]]
        cells = (Text(name), Text(percent(now[key])), change(*course[-2:]) if earlier else Text("first"))
        shown.add_row(*cells, Text(sparkline(course)), style="bold" if key == scores.headline[0] else None)
    return shown


def line(state: TrainState, steps: int, scores: Scores, earlier: Sequence[Mapping[str, Any]]) -> str:
    """The same in one line, for a file."""
    rates = "no words" if scores.wer is None else f"WER {percent(scores.wer)}  CER {percent(scores.cer)}"
    moved, (key, value) = "", scores.headline
    if earlier and value is not None and earlier[-1].get(key) is not None:
        course = [row.get(key) for row in earlier] + [value]
        moved = f"; {RATES[key]} {change(*course[-2:]).plain} since step {earlier[-1]['step']}  {sparkline(course)}"
    compared = standing(state)
    return f"step {state.step}/{steps}  {rates}  on {scores.utterances} utterances{compared and '; ' + compared}{moved}"


def standing(state: TrainState) -> str:
    """How the evaluation of this step compares with the best."""
    return "the best so far" if state.improved else "" if state.best is None else f"best {_shown(state.best)}"


def _shown(best: Best) -> str:
    value = percent(best.value) if best.metric in PERCENT else f"{best.value:g}"
    return f"{best.metric} {value} at step {best.step}"


def percent(rate: float | None) -> str:
    """A fraction as a percentage."""
    return "n/a" if rate is None else f"{100 * rate:.2f} %"


def change(before: float | None, now: float | None) -> Text:
    """By how many percentage points an error rate moved: an arrow, a sign, and a colour."""
    if before is None or now is None:
        return Text("n/a", style="dim")
    points = round(100 * (now - before), 2)
    if not points:
        return Text("= 0.00", style="dim")
    sign, arrow, style = ("+", "▲", "magenta") if points > 0 else ("\u2212", "▼", "cyan")
    return Text(f"{arrow} {sign}{abs(points):.2f}", style=style)


def sparkline(values: Iterable[float | None], count: int = TREND) -> str:
    """The newest values as bars, the highest of them full and the lowest low; a dot for one that is not known."""
    shown = list(values)[-count:]
    known = [value for value in shown if value is not None and math.isfinite(value)]
    low, spread = min(known, default=0.0), max(known, default=0.0) - min(known, default=0.0)

    def bar(value: float | None) -> str:
        if value is None or not math.isfinite(value):
            return "·"
        return BARS[round((value - low) / spread * (len(BARS) - 1))] if spread else BARS[len(BARS) // 2]

    return "".join(map(bar, shown))
