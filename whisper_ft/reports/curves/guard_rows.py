"""Verdicts of the guards of a run at a step, as rows of a table for a report or a model card."""

from whisper_ft.reports.curves.history import History
from whisper_ft.reports.guard_text import GuardRow


def guard_rows(history: History, step: int) -> list[GuardRow]:
    """Return the newest verdict of each guard at or before a step, in the order of the sets."""
    found = []
    for name, curve in history.sets.items():
        rows = [row for row in curve.rows if row["step"] <= step]
        if rows and (guarded := GuardRow.of(name, rows[-1])):
            found.append(guarded)
    return found
