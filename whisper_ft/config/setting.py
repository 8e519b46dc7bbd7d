"""Fields of the configuration: default, resume rule and bounds of a setting, and the checks they need."""

import math
from dataclasses import field
from typing import Any, Literal

from whisper_ft.config.tree import flatten, leaves, to_plain

ResumeRule = Literal["exact", "change", "free"]
ScheduleKind = Literal["linear", "cosine", "constant", "wsd"]


UNSET: Any = object()
"""Marks a setting without a `before` or an `auto` value, for None is a value."""


def setting(kind: ResumeRule, default: Any, least: int | None = None, *, before: Any = UNSET, auto: Any = UNSET) -> Any:
    """Dataclass field of a setting.

    Parameters
        kind: resume rule.
        least: smallest number allowed.
        before: value that runs had before the setting existed. A resumed run of that time keeps it, unless the user
            gives another one.
        auto: value that leaves the choice to the program. The choice is made once and recorded; on resume `auto` means
            the recorded value, on any machine.
    """
    return field(default=default, metadata={"resume": kind, "least": least, "before": before, "auto": auto})


def require(allowed: bool, name: str, value: Any, what: str) -> None:
    """Raise ValueError that names a setting, its bound and the value given, unless the value is allowed."""
    if not allowed:
        raise ValueError(f"--{name} must be {what}, got {value}")


def require_bounds(config: Any) -> None:
    """ValueError for a number that is infinite, none at all, or below the `least` of its field."""
    values = flatten(to_plain(config))
    for name, leaf in leaves(type(config)):
        value, least = values[name], leaf.metadata.get("least")
        require(least is None or value is None or value >= least, name, value, f"at least {least}")
        for number in value if isinstance(value, list) else [value]:
            require(not isinstance(number, float) or math.isfinite(number), name, value, "finite")
