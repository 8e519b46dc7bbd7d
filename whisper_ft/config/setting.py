"""Fields of the configuration: default, resume rule and bounds of a setting, and the checks they need."""

import math
from dataclasses import field
from typing import Any, Literal

from whisper_ft.config.tree import flatten, leaves, to_plain

ResumeRule = Literal["exact", "change", "free"]
ScheduleKind = Literal["linear", "cosine", "constant", "wsd"]


def setting(kind: ResumeRule, default: Any, least: int | None = None) -> Any:
    """A dataclass field with a default, a resume rule, and the smallest number allowed."""
    return field(default=default, metadata={"resume": kind, "least": least})


def require(allowed: bool, name: str, value: Any, what: str) -> None:
    """Raise ValueError that names a setting, its bound and the value given, unless the value is allowed."""
    if not allowed:
        raise ValueError(f"--{name} must be {what}, got {value}")


def require_bounds(config: Any) -> None:
    """ValueError for a number that is infinite, none at all, or below the `least` of its field."""
    values = flatten(to_plain(config))
    for name, found in leaves(type(config)):
        value, least = values[name], found.metadata.get("least")
        require(least is None or value is None or value >= least, name, value, f"at least {least}")
        for number in value if isinstance(value, list) else [value]:
            require(not isinstance(number, float) or math.isfinite(number), name, value, "finite")
