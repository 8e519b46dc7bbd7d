"""History of the sets of eval.sets in the state of a run: their figures by step, with those of the start model."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

Figures = Mapping[str, float | None]
"""Figures of one set by name, such as `wer`; None for a figure that the set does not have."""


@dataclass(frozen=True)
class SetHistory:
    """Figures of the sets of eval.sets, as long as they can be compared."""

    figures: Mapping[str, tuple[tuple[int, Figures], ...]] = field(default_factory=dict)
    """Steps and figures of each set by its name, in the order of steps. Step 0 is the start model."""
    start_weights: str | None = None
    """Sha256 of the start model; None if no guard needed its figures yet."""

    def of(self, name: str) -> tuple[tuple[int, Figures], ...]:
        """Return steps and figures of a set; none for a set that is not known."""
        return self.figures.get(name, ())

    def has_start(self, name: str) -> bool:
        """Return True if the figures of the start model on a set are known."""
        return any(step == 0 for step, _ in self.of(name))

    def with_figures(self, step: int, figures: Mapping[str, Figures]) -> Self:
        """Return the history with figures of sets at a step, in place of earlier ones of this step.

        A figure that is not finite becomes None.
        """
        added = {}
        for name, own in figures.items():
            others = {at: known for at, known in self.of(name) if at != step}
            finite = {key: value if value is None or math.isfinite(value) else None for key, value in own.items()}
            added[name] = tuple(sorted({**others, step: finite}.items(), key=lambda pair: pair[0]))
        return replace(self, figures={**self.figures, **added})

    def without(self, name: str) -> Self:
        """Return the history without the figures of a set."""
        return replace(self, figures={other: known for other, known in self.figures.items() if other != name})

    @classmethod
    def from_json(cls, fields: Any) -> Self:
        """Build a history from its fields as JSON values. Raises ValueError for a value that no version writes."""
        try:
            weights = fields["start_weights"]
            figures = {
                name: tuple((step, {key: _checked(value) for key, value in own.items()}) for step, own in known)
                for name, known in fields["figures"].items()
            }
            is_right = all(type(step) is int and step >= 0 for known in figures.values() for step, _ in known)
        except (TypeError, AttributeError, LookupError) as error:
            raise ValueError(f"set_history is {str(fields)[:40]}") from error
        if not is_right or not isinstance(weights, str | None):
            raise ValueError(f"set_history is {str(fields)[:40]}")
        return cls(figures, weights)


def _checked(value: Any) -> float | None:
    if value is not None and (type(value) not in (int, float) or not math.isfinite(value)):
        raise ValueError(f"a figure in set_history is {str(value)[:40]}")
    return value  # type: ignore[no-any-return]  # whole numbers stay whole, so that another save has equal bytes
