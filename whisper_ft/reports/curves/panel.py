"""Panels of a picture of curves: the fields of a run that each panel draws, with their units."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from whisper_ft.reports.curves.history import Curve, History
from whisper_ft.reports.guard_text import figure_name
from whisper_ft.scoring.guard import BETTER, FRACTIONS


@dataclass(frozen=True)
class Panel:
    """One diagram of a picture, with its own axes."""

    title: str
    unit: str
    fields: tuple[str, ...]
    """Fields of a row: the first is drawn as a solid line, the second one dashed, the third one dotted."""
    scale: float = 1.0
    """Factor from the field to the unit."""
    is_noisy: bool = False
    """True if the curve is drawn smoothed, with the logged values behind it."""
    weight: str | None = None
    """Field that holds the weight of a row for smoothing; None if all rows weigh the same."""
    is_wide: bool = False
    """True if the axis becomes logarithmic when the greatest value is many times the least."""
    of_evaluations: bool = False
    of_set: str | None = None
    """Name of the set of eval.sets whose evaluations are drawn; None for those of the held-out set."""
    guard: str | None = None
    """Figure that the guard of the set must watch in the evaluations that are drawn; None: all are drawn."""

    def curve(self, run: History) -> Curve:
        """Return the rows of a run that the panel draws."""
        if self.guard is not None:
            of_set = run.sets.get(self.of_set or "", Curve([], []))
            return Curve([row for row in of_set.rows if row.get("guard") == self.guard], [])
        if self.of_set is not None:
            return run.sets.get(self.of_set, Curve([], []))
        return run.evaluated if self.of_evaluations else run.logged

    def has_values(self, runs: Sequence[History]) -> bool:
        """Return True if any run has a value to draw.

        A loss scale that is always 1 does not count, because the run did not use fp16.
        """
        values = np.concatenate([self.curve(run).values(name) for run in runs for name in self.fields])
        known = values[np.isfinite(values)]
        return bool(known.size) and not (self.fields == ("loss_scale",) and bool((known == 1).all()))


def panels_of_set(name: str) -> list[Panel]:
    """Return the panels of a set of eval.sets: its error rates, and the loss of its references.

    A set of long recordings also has panels of its deletions, and of the windows with valid timestamps.
    """
    rates = Panel(f"{name}: error rates", "% of the set", ("wer", "cer"), scale=100, of_evaluations=True, of_set=name)
    loss = Panel(
        f"{name}: loss", "nats per label token", ("eval_loss",), is_wide=True, of_evaluations=True, of_set=name
    )
    deletions = Panel(
        f"{name}: deletions",
        "% of words; dashed: % of them late in a window",
        ("deletion_rate", "late_deletions"),
        scale=100,
        of_evaluations=True,
        of_set=name,
    )
    timestamps = Panel(
        f"{name}: valid timestamps", "% of windows", ("timestamps",), scale=100, of_evaluations=True, of_set=name
    )
    return [rates, loss, deletions, timestamps]


def guard_panels(name: str, runs: Sequence[History]) -> list[Panel]:
    """Return a panel for each figure that a guard of the set `name` watched in some run.

    It shows the figure, its limit, and the figure of the start model.
    """
    rows = [row for run in runs if name in run.sets for row in run.sets[name].rows]
    metrics = [metric for metric in dict.fromkeys(str(row.get("guard")) for row in rows) if metric in BETTER]
    return [
        Panel(
            f"{name}: guard, {figure_name(metric)}",
            "%" if metric in FRACTIONS else "",
            (metric, "limit", "reference"),
            scale=100 if metric in FRACTIONS else 1,
            of_evaluations=True,
            of_set=name,
            guard=metric,
        )
        for metric in metrics
    ]


LOSS = Panel("Loss", "nats per label token", ("loss",), is_noisy=True, weight="label_tokens", is_wide=True)
ERRORS = Panel("Error rates", "% of the held-out set", ("wer", "cer"), scale=100, of_evaluations=True)
PANELS = (
    LOSS,
    replace(LOSS, title="Loss of the text", unit="nats per token of text", fields=("text_loss",)),
    Panel(
        "Divergence from the start model",
        "nats per label token of the anchor",
        ("anchor_kl",),
        is_noisy=True,
        weight="anchor_tokens",
    ),
    Panel("Distance to the start weights", "norm of the difference", ("anchor_l2",)),
    Panel("Held-out loss", "nats per label token", ("eval_loss",), is_wide=True, of_evaluations=True),
    ERRORS,
    Panel("Learning rate", "", ("lr",)),
    Panel("Gradient norm", "before clipping", ("grad_norm",), is_noisy=True, is_wide=True),
    Panel("Throughput", "utterances / s", ("utterances_per_second",), is_noisy=True),
    Panel("Waiting for data", "% of training time", ("data_wait",), scale=100, is_noisy=True),
    Panel("Loss scale", "fp16", ("loss_scale",), is_wide=True),
)


def panels_of(runs: Sequence[History]) -> list[Panel]:
    """Return the panels that have values to draw in any of the runs: those of PANELS in their order, then of each set.

    At least one run must be given.
    """
    names = dict.fromkeys(name for run in runs for name in run.sets)
    panels = [*PANELS, *(panel for name in names for panel in (*panels_of_set(name), *guard_panels(name, runs)))]
    return [panel for panel in panels if panel.has_values(runs)]
