"""Definition of a setting, with its default, resume rule and bounds, and the checks of these bounds."""

import math
from dataclasses import field, fields
from typing import Any, Literal, TypeVar

from whisper_ft.config.tree import flatten, leaves, to_plain

Auto = Literal["auto"]
Number = TypeVar("Number", int, float)
ResumeRule = Literal["exact", "change", "free"]
LeadingSpace = Literal["auto", "always", "never"]
Suppress = Literal["auto", "keep", "none"] | list[int]
ScheduleKind = Literal["linear", "cosine", "constant", "wsd"]


UNSET: Any = object()
"""Marks a setting that has no `before` or no `auto` value. None would not do, because it is a possible value."""


def setting(kind: ResumeRule, default: Any, least: int | None = None, *, before: Any = UNSET, auto: Any = UNSET) -> Any:
    """Return the dataclass field of a setting.

    Parameters
        kind: resume rule, explained in `whisper_ft.config.training`.
        least: smallest number allowed.
        before: value that runs had before the setting existed. A run of that time keeps this value when it is resumed,
            unless the user gives another one.
        auto: value that leaves the choice to the program. The choice is made once and recorded. On resume `auto` means
            the recorded value, even on another machine.
    """
    return field(default=default, metadata={"resume": kind, "least": least, "before": before, "auto": auto})


def require(allowed: bool, name: str, value: Any, what: str) -> None:
    """Raise ValueError unless `allowed` is true.

    The message names the setting, its value, and `what`, the allowed values.
    """
    if not allowed:
        raise ValueError(f"--{name} must be {what}, got {value}")


def refuse_unused(section: Any, name: str, state: str, remedy: str) -> None:
    """Raise ValueError for the first setting of a section that differs from its default, because it has no effect.

    Parameters
        section: dataclass of the settings.
        name: its name, such as `pack`.
        state: state in which the section has no effect, such as `pack.enabled is false`.
        remedy: argument that gives it an effect, such as `--pack.enabled true`.
    """
    for one in fields(section):
        if (value := getattr(section, one.name)) != one.default:
            raise ValueError(unused_message(f"{name}.{one.name}", value, state, f"set {remedy}"))


def unused_message(name: str, value: Any, state: str, remedy: str) -> str:
    """Return the message about a setting that has no effect in a `state`; `remedy` gives it one."""
    return f"--{name} {value}: has no effect while {state}; {remedy}, or leave it out"


def decided(value: Number | Auto, name: str) -> Number:
    """Return the number in a setting that may be `auto`. Raises ValueError while `auto` is not resolved."""
    if value == "auto":
        raise ValueError(f"--{name} auto: is not resolved yet")
    return value


def require_bounds(config: Any) -> None:
    """Raise ValueError for a number in a configuration that is infinite, NaN, or below the `least` of its field.

    Settings that are None, and sections inside lists, are not checked.
    """
    values = flatten(to_plain(config))
    for name, leaf in leaves(type(config)):
        value, least = values[name], leaf.metadata.get("least")
        is_number = isinstance(value, int | float)  # the others are None, `auto` and lists
        require(least is None or not is_number or value >= least, name, value, f"at least {least}")
        for number in value if isinstance(value, list) else [value]:
            require(not isinstance(number, float) or math.isfinite(number), name, value, "finite")
