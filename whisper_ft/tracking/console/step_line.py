"""The figures of a logged step, and how many of them fit on a line."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.cells import cell_len
from rich.text import Text

from whisper_ft.tracking.console.throughput import clock

Figure = tuple[str, str]  # name before and unit after a value are in one of them: ("loss ", "0.1234"), ("", "12 utt/s")
GAP = 2  # blanks between two figures


def figures_of(row: Mapping[str, Any], seconds_left: float | None) -> list[Figure]:
    """What is shown of a logged step: label, value."""
    shown = [
        ("loss ", _number(row["loss"], ".4f")),
        ("lr ", f"{row['lr']:.2e}"),
        ("grad ", _number(row["grad_norm"], ".2f")),
        ("scale ", f"{row['loss_scale']:g}"),
        ("", f"{row['utterances_per_second']:.0f} utt/s"),
    ]
    if row.get("audio_hours") is not None:
        shown.append(("", f"{row['audio_hours']:.2f} h audio"))
    shown.append(("wait ", f"{100 * row['data_wait']:.0f} %"))
    if row.get("memory_gb") is not None:
        shown.append(("mem ", f"{row['memory_gb']:.1f} GB"))
    shown += [("skipped ", str(row["skipped"]))] if row.get("skipped") else []
    shown += [("unusable ", str(row["unusable"]))] if row.get("unusable") else []
    return [*shown, ("ETA ", clock(seconds_left))]


def fitted(figures: Sequence[Figure], width: float, indent: int = 0) -> Iterator[Text]:
    """Lines of figures, none broken within; those after the first are indented by so many blanks."""
    line = Text(no_wrap=True, overflow="ellipsis")
    for label, value in figures:
        needed = cell_len(label + value)
        if line.cell_len and line.cell_len + GAP + needed > width:
            yield line
            line = Text(" " * indent, no_wrap=True, overflow="ellipsis")
        elif line.cell_len:
            line.append(" " * GAP)
        line.append(label, style="dim").append(value)
    yield line


def one_line(figures: Sequence[Figure]) -> str:
    """All of them in one line, for a file."""
    return next(fitted(figures, math.inf)).plain


def _number(value: float | None, form: str) -> str:
    return "not finite" if value is None else format(value, form)
