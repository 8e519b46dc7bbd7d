"""What is drawn of runs: which figures, in which unit, beside which others."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from whisper_ft.reports.curves.history import Curve, History


@dataclass(frozen=True)
class Panel:
    """One pair of axes."""

    title: str
    unit: str
    fields: tuple[str, ...]
    """Of a row; the first is drawn as a solid line, another one dashed."""
    scale: float = 1.0
    """Factor from the field to the unit."""
    is_noisy: bool = False
    """Smoothed over, with what was logged behind it."""
    weight: str | None = None
    """Field that says how much a row weighs when it is smoothed."""
    is_wide: bool = False
    """May span many powers of ten: then on a logarithmic axis."""
    of_evaluations: bool = False

    def course(self, run: History) -> Curve:
        """The rows of a run that it is drawn from."""
        return run.evaluated if self.of_evaluations else run.logged

    def has_something(self, runs: Sequence[History]) -> bool:
        """Whether any run has a value for it; a loss scale that is 1 throughout is none: the run was not in fp16."""
        values = np.concatenate([self.course(run).values(name) for run in runs for name in self.fields])
        known = values[np.isfinite(values)]
        return bool(known.size) and not (self.fields == ("loss_scale",) and bool((known == 1).all()))


LOSS = Panel("Loss", "nats per label token", ("loss",), is_noisy=True, weight="label_tokens", is_wide=True)
ERRORS = Panel("Error rates", "% of the held-out set", ("wer", "cer"), scale=100, of_evaluations=True)
PANELS = (
    LOSS,
    ERRORS,
    Panel("Learning rate", "", ("lr",)),
    Panel("Gradient norm", "before clipping", ("grad_norm",), is_noisy=True, is_wide=True),
    Panel("Throughput", "utterances / s", ("utterances_per_second",), is_noisy=True),
    Panel("Waiting for data", "% of training time", ("data_wait",), scale=100, is_noisy=True),
    Panel("Loss scale", "fp16", ("loss_scale",), is_wide=True),
)


def panels_of(runs: Sequence[History]) -> list[Panel]:
    """Those for which there is something to draw, in their order."""
    return [panel for panel in PANELS if panel.has_something(runs)]
