"""Sets of eval.sets on the console: the rate of each, its change since the last evaluation, and its trend."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from rich.table import Table
from rich.text import Text

from whisper_ft.reports.long_form_note import long_form_note
from whisper_ft.reports.text import percent
from whisper_ft.scoring.scores import Scores
from whisper_ft.scoring.unheard import unheard_note
from whisper_ft.tracking.console.eval_table import RATES, change, figures, sparkline


class SetTrend(NamedTuple):
    """Scores of a set, and the rows of its earlier evaluations that can be compared, the oldest first."""

    name: str
    scores: Scores
    earlier: Sequence[Mapping[str, Any]]


def table(step: int, steps: int, sets: Sequence[SetTrend]) -> Table:
    """Make a table with a line for each set: its main rate, change and trend of that rate, and the loss."""
    notes = [
        f"{one.name}: {note}"
        for one in sets
        for note in filter(None, [unheard_note(one.scores), long_form_note(one.scores.summary())])
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
    for name, scores, earlier in sets:
        key, now = scores.headline
        rates = [row.get(key) for row in earlier] + [now]
        changed = change(*rates[-2:]) if earlier else Text("first")
        loss = "" if scores.loss is None else f"{scores.loss:.4f}"
        cells = (Text(percent(now)), changed, Text(sparkline(rates)), Text(loss), Text(f"{scores.utterances:,}"))
        rows.add_row(Text(name), Text(RATES[key]), *cells)
    return rows


def lines(step: int, steps: int, sets: Sequence[SetTrend]) -> Iterator[str]:
    """Return a line for each set, for output that goes to a file."""
    for name, scores, earlier in sets:
        note = long_form_note(scores.summary())
        yield f"step {step}/{steps}  {name}: {figures(scores, earlier)}" + (note and f"; {note}")
