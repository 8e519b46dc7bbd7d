"""State of a run besides weights and optimizer: a few numbers in frozen classes, which convert to and from JSON."""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from whisper_ft.checkpoint.set_history import SetHistory
from whisper_ft.runtime.regular_file import read_regular, strict_json

EARLY_VALUES: dict[str, Any] = {
    "audio_samples": None,
    "windows": None,
    "filled_samples": None,
    "untrained_in_a_row": 0,
    "set_steps": {},
    "set_history": asdict(SetHistory()),
    "excluded": (),
}
"""Values of the fields of a state that early versions did not write."""
STRUCTURED = frozenset({"evaluated", "best", "set_steps", "set_history", "excluded"})  # fields that are no whole number
BEST_BYTES = 1 << 16  # largest best.json that is read; ours have less than 100 bytes

PUBLISHED_AS = "model"
"""Field of best.json: `adapter` if best-adapter/ was evaluated, `whole` if best/ was. Early files lack it."""


@dataclass(frozen=True)
class Counts:
    """Numbers counted while training. They are added up over micro-batches, ranks and steps."""

    label_tokens: int = 0
    utterances: int = 0
    """Utterances trained on: all positions of the batches except the empty ones."""
    unusable: int = 0
    """Empty positions of the batches. A position is empty if its row of the data cannot be used."""
    unusable_rows: int = 0
    """Unusable rows: the empty positions of the first pass over the data, in which each row comes once."""
    audio_samples: int | None = 0
    """Audio samples of the utterances, at the model's rate; None if the run began before they were counted."""
    windows: int | None = 0
    """Windows trained on; None if the run began before they were counted."""
    filled_samples: int | None = 0
    """Samples of the windows with utterances, gaps or noise; None if the run began before they were counted."""

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            label_tokens=self.label_tokens + other.label_tokens,
            utterances=self.utterances + other.utterances,
            unusable=self.unusable + other.unusable,
            unusable_rows=self.unusable_rows + other.unusable_rows,
            audio_samples=_sum_if_known(self.audio_samples, other.audio_samples),
            windows=_sum_if_known(self.windows, other.windows),
            filled_samples=_sum_if_known(self.filled_samples, other.filled_samples),
        )


def _sum_if_known(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


@dataclass(frozen=True)
class Best:
    """The best evaluation so far."""

    step: int
    metric: str
    value: float

    @classmethod
    def from_json(cls, fields: Any) -> Self:
        """Build a best evaluation from JSON values.

        Raises KeyError if a field is missing or not known, and ValueError for a value that no version writes.
        """
        require_fields(fields, cls.__dataclass_fields__)
        if not isinstance(fields["metric"], str):
            raise ValueError(f"metric is {_shown(fields['metric'])}")
        return cls(count(fields["step"], "step"), fields["metric"], real(fields["value"], "value"))


def read_best(path: Path) -> Best | None:
    """Read a best.json; None if it is missing, damaged or cannot be read."""
    try:
        fields = strict_json(read_regular(path, BEST_BYTES))
        if isinstance(fields, dict):
            fields.pop(PUBLISHED_AS, None)
        return Best.from_json(fields)
    except (OSError, ValueError, KeyError):
        return None


def require_fields(fields: Any, names: Mapping[str, object]) -> None:
    """Raise ValueError for anything but an object, and KeyError for a name that is missing or not known."""
    if not isinstance(fields, dict):
        raise ValueError(f"expected an object, got {_shown(fields)}")
    if different := set(fields) ^ set(names):
        raise KeyError(min(different))


def count(value: Any, name: str) -> int:
    """Return `value` if it is a whole number of at least 0.

    Raises ValueError for any other value; `name` stands in its message.
    """
    if type(value) is not int or value < 0:  # type: a bool is an int, too
        raise ValueError(f"{name} is {_shown(value)}")
    return value


def real(value: Any, name: str) -> float:
    """Return `value` as a float if it is a finite number.

    Raises ValueError for any other value; `name` stands in its message.
    """
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"{name} is {_shown(value)}")
    return float(value)


def _shown(value: object) -> str:
    return str(value)[:40]


Evaluated = tuple[int, float | None]
"""Step and figure of an evaluation. The figure is None if it is undefined, as an error rate without any words is."""


@dataclass(frozen=True)
class TrainState:
    """Progress of a run between two steps. The data position is not stored: it is `step * batch.size`."""

    step: int = 0
    """Number of attempted optimizer updates. Updates are counted from 0, so the next one has this number."""
    skipped: int = 0
    """Number of updates that were not applied, because their gradient was not finite."""
    skipped_in_a_row: int = 0
    """Number of skipped updates since the last applied one."""
    counts: Counts = Counts()
    evaluated: tuple[Evaluated, ...] = ()
    """Every evaluation that can be compared with `best`, in order."""
    best: Best | None = None
    untrained_in_a_row: int = 0
    """Number of steps since the last one with an utterance. Earlier versions did not count it, and it is then 0."""
    set_steps: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Steps at which each set of eval.sets was scored, by its name, as long as the figures can be compared. Step 0
    stands for the start model."""
    set_history: SetHistory = SetHistory()
    """Figures of each set of eval.sets. Earlier versions did not record them."""
    excluded: tuple[int, ...] = ()
    """Steps in `evaluated` that cannot be the best, because a guard of a set of eval.sets was outside."""

    def after_step(self, counts: Counts, *, applied: bool) -> Self:
        """Return the state after one more attempted update, on a batch with these counts.

        `applied` is False if the update was skipped, because its gradient was not finite.
        """
        return replace(
            self,
            step=self.step + 1,
            skipped=self.skipped + (not applied),
            skipped_in_a_row=0 if applied else self.skipped_in_a_row + 1,
            untrained_in_a_row=0 if counts.utterances else self.untrained_in_a_row + 1,
            counts=self.counts + counts,
        )

    def after_evaluation(
        self,
        metric: str,
        value: float | None,
        *,
        greater_is_better: bool = False,
        min_delta: float = 0.0,
        is_excluded: bool = False,
    ) -> Self:
        """Return the state after an evaluation of the present step, which is added to `evaluated`.

        The evaluation becomes the best if it is the first with a value, or better than the best so far by more than
        `min_delta`. An equal value keeps the earlier best; None and NaN never become the best. `metric` is the name
        under which the best is stored. An excluded evaluation, which a guard is against, does not become the best.
        """
        value = None if value is None or value != value else value  # NaN != NaN
        excluded = (*self.excluded, self.step) if is_excluded else self.excluded
        state = replace(self, evaluated=(*self.evaluated, (self.step, value)), excluded=excluded)
        if value is None or is_excluded:
            return state
        if self.best is not None:
            gain = value - self.best.value if greater_is_better else self.best.value - value
            if gain <= min_delta:
                return state
        return replace(state, best=Best(self.step, metric, value))

    def judged_anew(
        self,
        excluded: Collection[int],
        lost: Collection[int],
        metric: str,
        *,
        greater_is_better: bool = False,
        min_delta: float = 0.0,
    ) -> Self:
        """Return the state with its best evaluation chosen anew, by `after_evaluation` in the order of steps.

        Neither evaluations at the steps `excluded` become the best, nor those at the steps `lost`, whose weights are
        gone.
        """
        state = replace(self, evaluated=(), best=None, excluded=())
        for step, value in self.evaluated:
            state = replace(state, step=step).after_evaluation(
                metric,
                value,
                greater_is_better=greater_is_better,
                min_delta=min_delta,
                is_excluded=step in excluded or step in lost,
            )
        return replace(state, step=self.step, excluded=tuple(step for step in state.excluded if step in excluded))

    def after_sets(self, names: Iterable[str]) -> Self:
        """Return the state after an evaluation of these sets of eval.sets at the present step."""
        steps = {name: (*self.steps_of_set(name), self.step) for name in names}
        return replace(self, set_steps={**self.set_steps, **steps})

    def steps_of_set(self, name: str) -> tuple[int, ...]:
        """Return the steps at which a set was scored, in order. Only step 0 for a set that is not known."""
        return self.set_steps.get(name, (0,))

    def reset_set(self, name: str) -> Self:
        """Return the state without the evaluations of a set, because later figures cannot be compared with them."""
        return replace(self, set_steps={**self.set_steps, name: ()}, set_history=self.set_history.without(name))

    def reset_best(self) -> Self:
        """Return the state without evaluations, for a run whose earlier figures cannot be compared with later ones."""
        return replace(self, evaluated=(), best=None, excluded=())

    @property
    def evaluated_step(self) -> int:
        """Step of the newest evaluation; -1 before the first. A run resumed at that step does not evaluate again."""
        return self.evaluated[-1][0] if self.evaluated else -1

    def out_of_patience(self, patience: int | None) -> bool:
        """True if at least `patience` evaluations came after the best one; always False if `patience` is None.

        Without a best evaluation, all evaluations count.
        """
        best_step = self.best.step if self.best else -1
        return patience is not None and sum(step > best_step for step, _ in self.evaluated) >= patience

    def best_steps(self, count: int, *, greater_is_better: bool = False) -> list[int]:
        """Return the steps of the `count` best evaluations, the best first. Among equal ones the older comes first.

        Evaluations without a figure and excluded ones are left out, so the list may be shorter.
        """
        sign = -1 if greater_is_better else 1
        fit = [(step, value) for step, value in self.evaluated if step not in self.excluded]
        known = sorted((sign * value, step) for step, value in fit if value is not None)
        return [step for _, step in known[:count]]

    @property
    def improved(self) -> bool:
        """True if the present step was evaluated and that evaluation is the best so far."""
        return self.best is not None and self.best.step == self.step

    def to_json(self) -> dict[str, Any]:
        """Return the state as JSON values. The counts stand beside the other fields, as in every earlier version."""
        fields = asdict(self)
        counts = fields.pop("counts")
        return {**fields, **counts}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """Build a state from the JSON values that `to_json` of this or an earlier version returned.

        Raises KeyError if a field is missing or not known, as in another version, and ValueError for a value that no
        version writes.
        """
        fields = EARLY_VALUES | fields if isinstance(fields, dict) else fields
        counted, own = Counts.__dataclass_fields__, {*cls.__dataclass_fields__} - {"counts"}
        require_fields(fields, dict.fromkeys([*own, *counted]))
        uncounted = {name for name in counted if name in EARLY_VALUES and fields[name] is None}
        values: dict[str, Any] = {name: count(fields[name], name) for name in counted if name not in uncounted}
        counts = Counts(**values | dict.fromkeys(uncounted))
        numbers = {name: count(fields[name], name) for name in own - STRUCTURED}
        if not numbers["step"] >= numbers["skipped"] >= numbers["skipped_in_a_row"]:
            raise ValueError(f"step is {numbers['step']} and skipped {numbers['skipped']}")
        best, evaluated, excluded = fields["best"], fields["evaluated"], fields["excluded"]
        lists = (list, tuple)
        if not isinstance(evaluated, lists) or not all(isinstance(pair, lists) for pair in evaluated):
            raise ValueError(f"evaluated is {_shown(evaluated)}")
        if not isinstance(excluded, lists):
            raise ValueError(f"excluded is {_shown(excluded)}")
        pairs = tuple(
            (count(step, "step"), None if value is None else real(value, "value")) for step, value in evaluated
        )
        return cls(
            **numbers,
            counts=counts,
            evaluated=pairs,
            best=None if best is None else Best.from_json(best),
            set_steps=_set_steps(fields["set_steps"]),
            set_history=SetHistory.from_json(fields["set_history"]),
            excluded=tuple(count(step, "excluded") for step in excluded),
        )


def _set_steps(fields: Any) -> dict[str, tuple[int, ...]]:
    """Build the steps of each set from JSON values. Raises ValueError for a value that no version writes."""
    if not isinstance(fields, dict) or not all(isinstance(steps, list | tuple) for steps in fields.values()):
        raise ValueError(f"set_steps is {_shown(fields)}")
    return {name: tuple(count(step, "set_steps") for step in steps) for name, steps in fields.items()}
