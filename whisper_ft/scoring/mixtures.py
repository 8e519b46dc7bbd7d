"""Mixtures of a start model and a tuned one, as their scores show them, and the choice of the best one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from whisper_ft.scoring.guard import Verdict


@dataclass(frozen=True)
class MixtureScores:
    """Scores of one mixture on the held-out set and on the sets of eval.sets."""

    alpha: float
    """Share of the tuned model, from 0 to 1."""
    sha256: str
    """Hash of the weights."""
    metric: str
    value: float | None
    """Figure of the held-out set that chooses, by the name `metric`; None if it is undefined."""
    sets: Mapping[str, tuple[str, float | None]]
    """Name and value of the main rate of each set of eval.sets, by the name of the set."""
    verdicts: Sequence[Verdict]
    """Verdict of each guard, by comparison with the start model."""

    @property
    def words(self) -> str:
        """Name of the mixture in a sentence."""
        ends = {0.0: "the start model itself, mixture 0,", 1.0: "the tuned model itself, mixture 1,"}
        return ends.get(self.alpha, f"mixture {self.alpha:g}")

    @property
    def is_outside(self) -> bool:
        """True if any guard finds the mixture worse than it allows."""
        return any(verdict.is_outside for verdict in self.verdicts)

    def summary(self) -> dict[str, Any]:
        """Return the scores as JSON values."""
        return {
            "alpha": self.alpha,
            "weights_sha256": self.sha256,
            self.metric: self.value,
            "sets": {name: {metric: value} for name, (metric, value) in self.sets.items()},
            "guards": {verdict.guard.name: _summary(verdict) for verdict in self.verdicts},
            "within": not self.is_outside,
        }


def _summary(verdict: Verdict) -> dict[str, Any]:
    ends = verdict.interval
    return {
        "metric": verdict.guard.metric,
        "max_worse": verdict.guard.max_worse,
        "reference": verdict.reference if verdict.reference == verdict.reference else None,  # NaN is no JSON
        "value": verdict.now,
        "change": verdict.change if verdict.change == verdict.change else None,
        "interval": [ends.low, ends.high] if ends else None,
        "outside": verdict.is_outside,
    }


def best_within(mixtures: Sequence[MixtureScores], *, greater_is_better: bool) -> MixtureScores:
    """Return the mixture with the best figure of the held-out set among those within the guards.

    Among equal ones it is the one nearer to the start model, which is within all guards by definition.
    """
    sign = -1 if greater_is_better else 1
    within = [one for one in mixtures if not one.is_outside and one.value is not None and one.value == one.value]
    return min(within, key=lambda one: (sign * (one.value or 0.0), one.alpha), default=mixtures[0])
