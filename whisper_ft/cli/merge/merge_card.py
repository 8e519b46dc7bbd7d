"""Card of a merged model: its README.md, with the table of the check."""

from collections.abc import Mapping
from typing import Any

from whisper_ft.reports.text import percent

HEAD = ("merged onto", "rate of the adapter", "rate when merged", "equal transcripts", "largest logit difference")
WORDS = {"float": "the base as it is stored", "dequantised": "the quantised base, dequantised"}


def table_rows(check: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the rows of the table, one for each target, from the check in export.json."""
    rows: list[tuple[str, ...]] = []
    for outcome in check["outcomes"]:
        before, after = (f"{outcome['metric'].upper()} {percent(outcome[name])}" for name in ("before", "after"))
        equal = f"{outcome['equal']} of {check['clips']}"
        rows.append((WORDS[outcome["onto"]], before, after, equal, f"{outcome['max_logit_difference']:.2g}"))
    return rows


def merge_card(facts: Mapping[str, Any], problem: str | None) -> str:
    """Return the card as Markdown. `facts` is the content of export.json, and `problem` why the check failed."""
    check = facts["check"]
    lines = [
        f"# {facts['model']}, merged",
        "",
        f"The adapter is merged into {WORDS[facts['onto']]}: {facts['base']}. The model loads without peft.",
        "",
    ]
    if problem:
        lines += [f"This model did not pass its check: {problem}.", ""]
    if reason := facts.get("reason"):
        lines += [f"The error rate was not checked: {reason}.", ""]
    if check:
        lines += [
            f"Checked on {check['clips']:,} clips with {check['words']:,} words of: {check['data']}. All decoding was "
            "greedy and in float32.",
            "",
            *("| " + " | ".join(row) + " |" for row in (HEAD, ["---"] * len(HEAD), *table_rows(check))),
            "",
        ]
    else:
        lines += ["The merge was not checked.", ""]
    return "\n".join(lines)
