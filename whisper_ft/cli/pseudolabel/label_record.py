"""Record of a labelling, `pseudolabel.json`: its settings, data, models and progress. torch is not imported."""

import json
from pathlib import Path
from typing import Any

from whisper_ft.runtime.errors import UsageError
from whisper_ft.runtime.jsonl import rows_with

RECORD, WINDOWS = "pseudolabel.json", "windows.jsonl"
FIELDS = {"described", "settings", "source", "stage", "state"}


def read_record(folder: Path) -> dict[str, Any]:
    """Read the record of a folder. Raises UsageError if there is none."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        if not isinstance(record, dict) or not record.keys() >= FIELDS:
            raise ValueError("no record of this command")
        return record
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder}: has no {RECORD} that can be read, so it is no folder of pseudolabel") from error


def found_languages(record: dict[str, Any]) -> bool:
    """Return True if the labels are in the languages that were detected, because none was named."""
    jobs: list[dict[str, Any]] = record.get("jobs") or []
    return bool(jobs and jobs[0]["decoding"]["detect_language"])


def window_rows(folder: Path) -> list[dict[str, Any]]:
    """Read the rows of all windows of a folder in the order of the pool. Raises UsageError if they cannot be read."""
    try:
        return rows_with(folder / WINDOWS, "id")
    except OSError as error:
        raise UsageError(f"{folder}: its {WINDOWS} cannot be read") from error
