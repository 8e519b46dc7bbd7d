"""Note about long recordings: deletions, their share at the ends of windows, and windows with valid timestamps."""

from collections.abc import Mapping
from typing import Any

from whisper_ft.reports.text import percent


def long_form_note(summary: Mapping[str, Any]) -> str:
    """Return the figures of a set of long recordings in words, from its summary; "" for any other set."""
    if "deletion_rate" not in summary:
        return ""
    parts = [f"deleted {percent(summary['deletion_rate'])}"]
    if (late := summary.get("late_deletions")) is not None:
        parts.append(f"{percent(late, 0)} of that in the last tenth of windows")
    if (valid := summary.get("timestamps")) is not None:
        parts.append(f"valid timestamps in {percent(valid, 0)} of windows")
    return ", ".join(parts)
