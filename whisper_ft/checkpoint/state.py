"""What a run is besides weights and moments: a few numbers, replaced and never mutated, JSON both ways."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Self


@dataclass(frozen=True)
class Best:
    """The best evaluation so far."""

    step: int
    metric: str
    value: float


Evaluated = tuple[int, float | None]
"""Step and figure of an evaluation; None where there was nothing to divide by."""


@dataclass(frozen=True)
class TrainState:
    """Where a run stands between two steps. The data position is not here: it is `step * batch.size`."""

    step: int = 0
    """Optimizer updates attempted; the number of the next one."""
    skipped: int = 0
    """Updates not applied because their gradient was not finite."""
    skipped_in_a_row: int = 0
    utterances: int = 0
    """Utterances trained on: the slots of all steps less the empty ones."""
    unusable: int = 0
    """Slots left empty because their row could not be used."""
    unusable_rows: int = 0
    """The same over the first pass, in which each row of the data comes once."""
    label_tokens: int = 0
    audio_samples: int | None = 0
    """Length of the utterances trained on, at the model's rate; None after a checkpoint from before it was counted."""
    evaluated: tuple[Evaluated, ...] = ()
    """Every evaluation whose figure can be compared with `best`, in order."""
    best: Best | None = None

    def after_step(
        self,
        *,
        applied: bool,
        utterances: int,
        unusable: int,
        label_tokens: int,
        unusable_rows: int = 0,
        audio_samples: int = 0,
    ) -> Self:
        """The state once an update was attempted."""
        return replace(
            self,
            step=self.step + 1,
            skipped=self.skipped + (not applied),
            skipped_in_a_row=0 if applied else self.skipped_in_a_row + 1,
            utterances=self.utterances + utterances,
            unusable=self.unusable + unusable,
            unusable_rows=self.unusable_rows + unusable_rows,
            label_tokens=self.label_tokens + label_tokens,
            audio_samples=None if self.audio_samples is None else self.audio_samples + audio_samples,
        )

    def after_evaluation(
        self, metric: str, value: float | None, *, greater_is_better: bool = False, min_delta: float = 0.0
    ) -> Self:
        """The state once this step was evaluated: best only if better by over `min_delta`.

        Ties keep the older one; None and NaN never win.
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
        """The state before any evaluation, for when earlier figures cannot be compared with later ones."""
        return replace(self, evaluated=(), best=None)

    @property
    def evaluated_step(self) -> int:
        """Step of the newest evaluation, which a run resumed right after it does not repeat; -1 before the first."""
        return self.evaluated[-1][0] if self.evaluated else -1

    def out_of_patience(self, patience: int | None) -> bool:
        """True once `patience` evaluations in a row were no better than the best; None waits for ever."""
        best_step = self.best.step if self.best else -1
        return patience is not None and sum(step > best_step for step, _ in self.evaluated) >= patience

    def best_steps(self, count: int, *, greater_is_better: bool = False) -> list[int]:
        """Steps of the `count` best evaluations, the best first; of equal ones the older."""
        sign = -1 if greater_is_better else 1
        known = sorted((sign * value, step) for step, value in self.evaluated if value is not None)
        return [step for _, step in known[:count]]

    @property
    def improved(self) -> bool:
        """True between an evaluation that became the best one and the next step."""
        return self.best is not None and self.best.step == self.step

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """The state that `to_json` described, also before it counted the audio."""
        best, evaluated = fields["best"], tuple((step, value) for step, value in fields["evaluated"])
        fields = {"audio_samples": None, **fields}
        return cls(**{**fields, "evaluated": evaluated, "best": None if best is None else Best(**best)})
