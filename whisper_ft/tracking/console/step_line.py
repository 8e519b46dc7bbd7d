"""Figures of a logged step, and their layout in lines of a given width."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.cells import cell_len
from rich.text import Text

from whisper_ft.reports.text import percent
from whisper_ft.tracking.console.eta import clock

Figure = tuple[str, str]
"""Label and value, such as ("loss ", "0.1234") and ("", "12 utt/s"). A unit belongs to the value."""
GAP = 2  # blanks between two figures


def step_figures(row: Mapping[str, Any], seconds_left: float | None) -> list[Figure]:
    """Return the figures that the console shows for a row of metrics.jsonl, in their order.

    The loss of the text is shown if the row has it, as with labels that have timestamps, and so is the divergence of an
    anchor.

    Audio, memory and fill are left out if unknown, counts of skipped and unusable if 0. The time left comes last.
    """
    more_losses = [("text ", _number(row["text_loss"], ".4f"))] if "text_loss" in row else []
    more_losses += [("kl ", _number(row["anchor_kl"], ".4f"))] if "anchor_kl" in row else []
    figures = [
        ("loss ", _number(row["loss"], ".4f")),
        *more_losses,
        ("lr ", f"{row['lr']:.2e}"),
        ("grad ", _number(row["grad_norm"], ".2f")),
        ("scale ", f"{row['loss_scale']:g}"),
        ("", f"{row['utterances_per_second']:.0f} utt/s"),
    ]
    if row.get("audio_hours") is not None:
        figures.append(("", f"{row['audio_hours']:.2f} h audio"))
    if row.get("fill") is not None:
        figures.append(("fill ", percent(row["fill"], 0)))
    figures.append(("wait ", percent(row["data_wait"], 0)))
    if row.get("memory_gb") is not None:
        figures.append(("mem ", f"{row['memory_gb']:.1f} GB"))
    figures += [("skipped ", str(row["skipped"]))] if row.get("skipped") else []
    figures += [("unusable ", str(row["unusable"]))] if row.get("unusable") else []
    return [*figures, ("ETA ", clock(seconds_left))]


def fitted(figures: Sequence[Figure], width: float, indent: int = 0) -> Iterator[Text]:
    """Lay out figures in lines of at most `width` cells. No figure is split; lines after the first are indented.

    A figure wider than `width` has a line of its own.
    """
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
    """Lay out all figures in one line, for output that goes to a file."""
    return next(fitted(figures, math.inf)).plain


def _number(value: float | None, form: str) -> str:
    return "not finite" if value is None else format(value, form)
