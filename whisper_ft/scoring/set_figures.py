"""Names of figures in a row of metrics.jsonl with several sets: `wer` of the held-out set, `NAME/wer` of another."""

from collections.abc import Iterable, Mapping
from typing import Any

ALWAYS = "cer"  # a figure that every evaluation has, even if its value is null
WORSE = "worse"  # True if a long set got worse since its evaluation before, while the held-out set got better


def named_figures(name: str, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures of a set with its name before each: `wer` becomes `NAME/wer`."""
    return {f"{name}/{figure}": value for figure, value in summary.items()}


def figures_of_set(row: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the step and the figures of one set, with plain names, from a row of metrics.jsonl.

    Only the step is left if the set was not scored at that step.
    """
    prefix = f"{name}/"
    figures = {key.removeprefix(prefix): value for key, value in row.items() if key.startswith(prefix)}
    return {"step": row["step"], **figures}


def names_of_sets(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the names of the sets in rows of metrics.jsonl, in the order of their first appearance."""
    end = f"/{ALWAYS}"
    return list(dict.fromkeys(key.removesuffix(end) for row in rows for key in row if key.endswith(end)))
