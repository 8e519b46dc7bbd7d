"""Sets of eval.sets on the console: the rate of each, its change since the last evaluation, and its trend."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from rich.table import Table
from rich.text import Text

from whisper_ft.reports.guard_text import note
from whisper_ft.reports.long_form_note import long_form_note
from whisper_ft.reports.text import percent
from whisper_ft.scoring.guard import Verdict
from whisper_ft.scoring.scores import Scores
from whisper_ft.scoring.unheard import unheard_note
from whisper_ft.tracking.console.eval_table import RATES, change, figures, sparkline


class SetTrend(NamedTuple):
    """Scores of a set, and the rows of its earlier evaluations that can be compared, the oldest first."""

    name: str
    scores: Scores
    earlier: Sequence[Mapping[str, Any]]
    verdict: Verdict | None = None
    """Verdict of the guard of the set, if it has one."""


def table(step: int, steps: int, sets: Sequence[SetTrend]) -> Table:
    """Make a table with a line for each set: its main rate, change and trend of that rate, and the loss.

    If a set is guarded, the last column has the change of its guarded figure against the start model, and its limit.
    """
    notes = [
        f"{one.name}: {text}"
        for one in sets
        for text in filter(None, [unheard_note(one.scores), long_form_note(one.scores.summary())])
    ]
    rows = Table(
        title="; ".join([f"\nsets at step {step}/{steps}", *notes]),
        title_justify="left",
        title_style="bold",
        header_style="dim",
        box=None,
        padding=(0, 2),
    )
    rows.add_column("")
    rows.add_column("", no_wrap=True)
    for name in ("now", "change"):
        rows.add_column(name, justify="right", no_wrap=True)
    rows.add_column("trend", no_wrap=True)
    rows.add_column("loss", justify="right", no_wrap=True)
    rows.add_column("utterances", justify="right")
    is_guarded = any(one.verdict for one in sets)
    if is_guarded:
        rows.add_column("against the start model", justify="right")
    for name, scores, earlier, verdict in sets:
        key, now = scores.headline
        rates = [row.get(key) for row in earlier] + [now]
        changed = change(*rates[-2:]) if earlier else Text("first")
        loss = "" if scores.loss is None else f"{scores.loss:.4f}"
        cells = (Text(percent(now)), changed, Text(sparkline(rates)), Text(loss), Text(f"{scores.utterances:,}"))
        guarded = [Text(note(verdict) if verdict else "", style=_style(verdict))] if is_guarded else []
        rows.add_row(Text(name), Text(RATES[key]), *cells, *guarded)
    return rows


def lines(step: int, steps: int, sets: Sequence[SetTrend]) -> Iterator[str]:
    """Return a line for each set, for output that goes to a file."""
    for name, scores, earlier, verdict in sets:
        notes = [long_form_note(scores.summary()), f"guard {note(verdict)}" if verdict else ""]
        yield "; ".join(filter(None, [f"step {step}/{steps}  {name}: {figures(scores, earlier)}", *notes]))


def _style(verdict: Verdict | None) -> str:
    return "bold magenta" if verdict and verdict.is_outside else ""
