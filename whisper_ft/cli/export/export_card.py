"""Card of an export: its README.md, with the table of the check and a program that uses the model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from whisper_ft.cli.export.targets import ExportTarget
from whisper_ft.reports.text import percent

UNKNOWN = "–"
SUPPRESSED = 'json.load(open("{out}/generation_config.json"))["suppress_tokens"]'
HEADER = ("engine", "result", "equal", "nearly even", "CER to model", "rate", "no loops", "loops", "logits", "speed")
"""Columns of the table.

`equal` counts clips with the model's tokens, and `nearly even` further ones that part where two tokens have nearly the
same logit. Rates and loops are those of the engine, with those of the model in brackets. `logits` is the largest
difference of log-probabilities, and `speed` is in times real time, with the ratio to the model's in brackets.
"""


def table_rows(check: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the cells of the table, a row for each engine, from the check in export.json."""
    return [_cells(report, check["model"]) for report in check["engines"]]


def _cells(report: Mapping[str, Any], own: Mapping[str, Any]) -> tuple[str, ...]:
    if "clips" not in report:
        reason = report.get("reason") or "; ".join(report["problems"])
        return report["engine"], f"{report['status']}: {reason}", *[UNKNOWN] * (len(HEADER) - 2)
    logits = report["max_logit_difference"]
    return (
        f"{report['engine']} {report['version']}",
        report["status"],
        f"{report['equal']} of {report['clips']}",
        f"{report['nearly_even']}",
        _rate(report["cer_to_model"]),
        f"{report['metric'].upper()} {_rate(report['rate'])} ({_rate(own['rate'])})",
        f"{_rate(report['rate_without_loops'])} ({_rate(own['rate_without_loops'])})",
        f"{report['loops']} ({own['loops']})",
        UNKNOWN if logits is None else f"{logits:.2g}" if isinstance(logits, float) else logits,
        f"{report['times_real_time']:.1f} ({report['speed_ratio']:.2f})",
    )


def _rate(rate: float | None) -> str:
    return UNKNOWN if rate is None else percent(rate)


def usage(target: ExportTarget, out: Path, language: str | None, *, has_released: bool) -> str:
    """Return a program that transcribes a file with the export in the folder `out`.

    `language` is the code of its language; None for an English-only model, which takes none. With `has_released`, the
    engine is told to suppress the model's tokens only, because it has a list of its own.
    """
    alone = argument = f', language="{language}"' if language else ""
    before = ""
    if has_released and "{arguments}" in target.usage:
        before = f"import json\nsuppressed = {SUPPRESSED.replace('{out}', str(out))}\n"
        argument += ", suppress_tokens=suppressed"
    item = f'"language": "{language}", ' if language else ""
    return before + target.usage.format(out=out, arguments=argument, language=alone, item=item)


def card(facts: Mapping[str, Any], what: str, program: str, problems: Sequence[str]) -> str:
    """Return the card of an export as Markdown.

    Parameters
        facts: content of export.json.
        what: the format in words.
        program: the program of `usage`.
        problems: reasons why the check failed, if it did.
    """
    check = facts["check"]
    lines = [f"# {facts['model']} as {facts['target']} {facts['quantization']}", "", f"{what}.", ""]
    if problems:
        lines += ["This export did not pass its check:", "", *(f"- {problem}" for problem in problems), ""]
    if "model" in check:
        lines += [
            f"Checked on {check['clips']:,} clips with {check['words']:,} words. All decoding was greedy, and the "
            "model itself was computed in float32.",
            "",
            _markdown(HEADER),
            _markdown(["---"] * len(HEADER)),
            *(_markdown(row) for row in table_rows(check)),
            "",
        ]
    else:
        unchecked = (f"- {report['reason']}; {report['install']}" for report in check.get("engines", ()))
        lines += ["No engine has checked this export.", "", *unchecked, ""]
    return "\n".join([*lines, "```python", program, "```", ""])


def _markdown(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
