"""Page of training curves in one HTML file, for light and dark mode, desktop, phone and print."""

import base64
from collections.abc import Mapping
from functools import partial

import numpy as np

from whisper_ft.reports.curves.figure import DARK, LIGHT, Theme, legend, panel_svg
from whisper_ft.reports.curves.history import Curve, History
from whisper_ft.reports.curves.panel import Panel, panels_of
from whisper_ft.reports.guard_text import GuardRow
from whisper_ft.reports.html.page import render_page
from whisper_ft.reports.text import percent

COLUMNS = ("state", "step", "loss", "WER", "CER", "at step", "skipped", "utterances / s", "resumed")
SET_COLUMNS = ("set", "rate", "first", "at step", "lowest", "at step", "last", "at step", "last loss", "guard")
UNKNOWN = "–"


def curves_page(runs: Mapping[str, History], title: str, width: float) -> str:
    """Return the HTML page of some runs, given by their names.

    `width` is the standard deviation of the smoothing, as a share of the run. The page loads nothing, runs nothing and
    is well-formed XML. The content policy needs `img-src data:` for the pictures, whose own styles apply only to
    themselves.
    """
    panels = panels_of(list(runs.values()))

    def picture(panel: Panel, theme: Theme) -> str:
        return f"data:image/svg+xml;base64,{base64.b64encode(panel_svg(panel, runs, theme, width)).decode()}"

    return render_page(
        "curves",
        title,
        policy="img-src data:",
        columns=COLUMNS,
        colours=len(LIGHT.runs),
        rows=[(name, list(run_facts(run).values())) for name, run in runs.items()],
        set_columns=SET_COLUMNS,
        set_rows=[
            (number, name, set_facts(of_set, curve))
            for number, (name, run) in enumerate(runs.items())
            for of_set, curve in run.sets.items()
        ],
        legend=legend(runs, panels, width),
        pictures=[(panel.title, picture(panel, LIGHT), picture(panel, DARK)) for panel in panels],
    )


def run_facts(run: History) -> dict[str, str]:
    """Return the row of a run in the table of runs: a text for each column. A dash stands for an unknown figure."""
    lowest, losses = run.lowest, run.logged.values("loss")
    speeds = run.logged.values("utterances_per_second")
    skipped = run.logged.values("skipped")
    rates = [percent(lowest[name]) if lowest and lowest.get(name) is not None else UNKNOWN for name in ("wer", "cer")]
    values = (
        run.state,
        f"{run.step:,}" + (f" of {run.planned_steps:,}" if run.planned_steps else ""),
        f"{losses[np.isfinite(losses)][-1]:.4g}" if np.isfinite(losses).any() else UNKNOWN,
        *rates,
        f"{lowest['step']:,}" if lowest else UNKNOWN,
        f"{skipped[-1]:g}" if len(skipped) and np.isfinite(skipped[-1]) else UNKNOWN,
        f"{np.nanmedian(speeds):.3g}" if np.isfinite(speeds).any() else UNKNOWN,
        f"{len(run.resumed)} ×" if run.resumed else UNKNOWN,
    )
    return dict(zip(COLUMNS, values, strict=True))


def set_facts(name: str, evaluated: Curve) -> list[str]:
    """Return the row of a set of eval.sets in the table of sets: a text for each of SET_COLUMNS."""
    rate = evaluated.headline
    known = [row for row in evaluated.rows if isinstance(row.get(rate), int | float)]
    chosen = [known[0], min(known, key=lambda row: float(row[rate])), known[-1]] if known else []
    rates = [text for row in chosen for text in (percent(row[rate]), f"{row['step']:,}")] or [UNKNOWN] * 6
    losses = evaluated.values("eval_loss")
    loss = f"{losses[np.isfinite(losses)][-1]:.4g}" if np.isfinite(losses).any() else UNKNOWN
    guarded = [row for row in map(partial(GuardRow.of, name), evaluated.rows) if row]
    return [name, rate.upper(), *rates, loss, guarded[-1].verdict if guarded else UNKNOWN]
