"""What a run is besides weights and moments: a few numbers, replaced and never mutated, JSON both ways."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Self


@dataclass(frozen=True)
class Best:
    """The best evaluation so far; lower is better."""

    step: int
    metric: str
    value: float


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
    evaluated_step: int = -1
    """Step of the newest evaluation, so that a run resumed right after it does not repeat it."""
    best: Best | None = None

    def after_step(
        self, *, applied: bool, utterances: int, unusable: int, label_tokens: int, unusable_rows: int = 0
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
        )

    def after_evaluation(self, metric: str, value: float | None) -> Self:
        """The state once this step was evaluated: best only if better; ties keep the older, None and NaN never win."""
        state = replace(self, evaluated_step=self.step)
        if value is None or value != value or (self.best is not None and value >= self.best.value):  # NaN != NaN
            return state
        return replace(state, best=Best(self.step, metric, value))

    def judged_anew(self) -> Self:
        """The state before any evaluation, for when earlier figures cannot be compared with later ones."""
        return replace(self, evaluated_step=-1, best=None)

    @property
    def improved(self) -> bool:
        """True between an evaluation that became the best one and the next step."""
        return self.best is not None and self.best.step == self.step

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """The state that `to_json` described."""
        best = fields["best"]
        return cls(**{**fields, "best": None if best is None else Best(**best)})
