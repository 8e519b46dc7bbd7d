"""Record of a labelling, `pseudolabel.json`: its settings, data, models and progress. torch is not imported."""

import json
from pathlib import Path
from typing import Any

from whisper_ft.runtime.errors import UsageError

RECORD = "pseudolabel.json"
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
