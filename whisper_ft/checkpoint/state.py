"""State of a run beside weights and optimizer: a few numbers, replaced and never mutated, JSON both ways."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Self


@dataclass(frozen=True)
class Counts:
    """Numbers that are counted in a step, added up over micro-batches, ranks and steps."""

    label_tokens: int = 0
    utterances: int = 0
    """Utterances trained on: all positions of the batch less the empty ones."""
    unusable: int = 0
    """Empty positions, because their row cannot be used."""
    unusable_rows: int = 0
    """Empty positions of the first pass over the data, in which each row comes once."""
    audio_samples: int | None = 0
    """Length of the utterances at the model's rate; None for a run that began before it was counted."""

    def __add__(self, other: "Counts") -> "Counts":
        samples = (self.audio_samples, other.audio_samples)
        return Counts(
            label_tokens=self.label_tokens + other.label_tokens,
            utterances=self.utterances + other.utterances,
            unusable=self.unusable + other.unusable,
            unusable_rows=self.unusable_rows + other.unusable_rows,
            audio_samples=None if None in samples else sum(filter(None, samples)),
        )


@dataclass(frozen=True)
class Best:
    """The best evaluation so far."""

    step: int
    metric: str
    value: float


Evaluated = tuple[int, float | None]
"""Step and figure of an evaluation; the figure is None if there was nothing to divide by."""


@dataclass(frozen=True)
class TrainState:
    """Progress of a run between two steps. The data position is not stored: it is `step * batch.size`."""

    step: int = 0
    """Optimizer updates attempted, and so the number of the next one."""
    skipped: int = 0
    """Updates not applied, because their gradient was not finite."""
    skipped_in_a_row: int = 0
    counts: Counts = Counts()
    evaluated: tuple[Evaluated, ...] = ()
    """Every evaluation that can be compared with `best`, in order."""
    best: Best | None = None

    def after_step(self, counts: Counts, *, applied: bool) -> Self:
        """State after one attempted update on a batch with these counts."""
        return replace(
            self,
            step=self.step + 1,
            skipped=self.skipped + (not applied),
            skipped_in_a_row=0 if applied else self.skipped_in_a_row + 1,
            counts=self.counts + counts,
        )

    def after_evaluation(
        self, metric: str, value: float | None, *, greater_is_better: bool = False, min_delta: float = 0.0
    ) -> Self:
        """State after an evaluation of this step. It becomes the best only if it is better by over `min_delta`.

        A tie keeps the older one; None and NaN never win.
        """
        value = None if value is None or value != value else value  # NaN != NaN
        state = replace(self, evaluated=(*self.evaluated, (self.step, value)))
        if value is None:
            return state
        if self.best is not None:
            gain = value - self.best.value if greater_is_better else self.best.value - value
            if gain <= min_delta:
                return state
        return replace(state, best=Best(self.step, metric, value))

    def reset_best(self) -> Self:
        """State without evaluations, for a run whose earlier figures cannot be compared with later ones."""
        return replace(self, evaluated=(), best=None)

    @property
    def evaluated_step(self) -> int:
        """Step of the newest evaluation, which a run resumed right after it does not repeat; -1 before the first."""
        return self.evaluated[-1][0] if self.evaluated else -1

    def out_of_patience(self, patience: int | None) -> bool:
        """True once `patience` evaluations since the best were not better; None has no limit."""
        best_step = self.best.step if self.best else -1
        return patience is not None and sum(step > best_step for step, _ in self.evaluated) >= patience

    def best_steps(self, count: int, *, greater_is_better: bool = False) -> list[int]:
        """Steps of the `count` best evaluations, the best first; among equal ones the older first."""
        sign = -1 if greater_is_better else 1
        known = sorted((sign * value, step) for step, value in self.evaluated if value is not None)
        return [step for _, step in known[:count]]

    @property
    def improved(self) -> bool:
        """True between an evaluation that became the best one and the next step."""
        return self.best is not None and self.best.step == self.step

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; the counts stand beside the other fields, as in every version so far."""
        fields = asdict(self)
        counts = fields.pop("counts")
        return {**fields, **counts}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """State from `to_json`, of this or an earlier version. KeyError or TypeError for another format."""
        fields = {"audio_samples": None, **fields}  # not counted by early versions
        counted = {name: fields.pop(name) for name in Counts.__dataclass_fields__}
        best, evaluated = fields.pop("best"), tuple((step, value) for step, value in fields.pop("evaluated"))
        return cls(**fields, counts=Counts(**counted), evaluated=evaluated, best=None if best is None else Best(**best))
