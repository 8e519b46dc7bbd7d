"""Reader of predictions.jsonl: stored transcripts can be scored again without a model."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from whisper_ft.runtime.errors import DataError, UsageError
from whisper_ft.scoring.confidence_figures import checked_windows
from whisper_ft.scoring.edit_distance import ErrorCount
from whisper_ft.scoring.long_form_figures import checked_texts
from whisper_ft.scoring.scores import Prediction, ScoredRow

REQUIRED_TEXTS = ("id", "ref", "hyp")
OPTIONAL_TEXTS = ("language", "speaker", "detected_language", "problem")
RECORD_COLUMNS = frozenset(ScoredRow(Prediction("", "", "", 0.0, 0), "", "", ErrorCount(), ErrorCount()).record())
# Columns to slice by that every transcription has; the data need not have them.
SLICE_COLUMNS = ("language", "speaker", "duration", "detected_language", "problem", "windows", "hit_token_limit")


def data_columns(columns: Sequence[str]) -> list[str]:
    """Return the names in --columns that must be columns of the data, sorted.

    Raises UsageError for a name that predictions.jsonl uses for a text or count of its own.
    """
    names = sorted({*columns} - {*SLICE_COLUMNS})
    if taken := [name for name in names if name in RECORD_COLUMNS]:
        raise UsageError(
            f"--columns {taken[0]}: predictions.jsonl has a text or count of its own with this name; "
            f"rename the column of the data (of the file's own columns, these are possible: {', '.join(SLICE_COLUMNS)})"
        )
    return names


def read_predictions(path: Path, columns: Sequence[str] = ()) -> list[Prediction]:
    """Read the predictions of a file, in its order. Any system may write the file; id, ref and hyp are needed.

    `columns` names further columns to keep. Raises UsageError if the file cannot be read or no row has such a column.
    Raises DataError, with the line number, if a line is damaged or repeats an id, and if there is no prediction. Empty
    lines are ignored, and a missing `audio_seconds` becomes NaN.
    """
    wanted = [name for name in dict.fromkeys(columns) if name not in {*SLICE_COLUMNS, *RECORD_COLUMNS}]
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}; give a predictions.jsonl") from error
    predictions: dict[str, Prediction] = {}
    known: dict[str, None] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            prediction = _parse_row(row, wanted)
            if prediction.id in predictions:
                raise ValueError(f"the id {prediction.id!r} occurs twice; each utterance needs its own")
        except ValueError as error:  # includes errors of JSON and UTF-8
            raise DataError(f"{path}, line {number}: {error}") from error
        predictions[prediction.id] = prediction
        known.update(dict.fromkeys(row) if wanted else ())
    if not predictions:
        raise DataError(f"{path} has no predictions; give a predictions.jsonl with a line for each utterance")
    if missing := [name for name in wanted if name not in known]:
        raise UsageError(f"{path} has no column {missing[0]!r}; set --columns to some of {', '.join(known)}")
    return list(predictions.values())


def _parse_row(row: Any, columns: Sequence[str]) -> Prediction:
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    for name in REQUIRED_TEXTS:
        if not isinstance(row.get(name), str):
            raise ValueError(f"{name!r} must be a text, and is {'missing' if name not in row else repr(row[name])}")
    for name in OPTIONAL_TEXTS:
        if not isinstance(row.get(name), str | None):
            raise ValueError(f"{name!r} must be a text or null, and is {row[name]!r}")
    seconds, tokens, windows = row.get("audio_seconds"), row.get("hyp_tokens", 0), row.get("windows", 1)
    if not isinstance(seconds, int | float | None) or not isinstance(tokens, int) or not isinstance(windows, int):
        values = f"{seconds!r}, {tokens!r} and {windows!r}"
        raise ValueError(f"'audio_seconds', 'hyp_tokens' and 'windows' must be numbers, and are {values}")
    return Prediction(
        id=row["id"],
        ref=row["ref"],
        hyp=row["hyp"],
        audio_seconds=math.nan if seconds is None else float(seconds),
        hyp_tokens=tokens,
        hit_token_limit=row.get("hit_token_limit") is True,
        language=row.get("language"),
        speaker=row.get("speaker"),
        detected_language=row.get("detected_language"),
        windows=windows,
        problem=row.get("problem"),
        segments=row.get("segments"),
        segment_logprobs=row.get("segment_logprobs"),
        window_confidence=checked_windows(row.get("window_confidence")),
        ref_segments=checked_texts(row.get("ref_segments")),
        columns={name: row.get(name) for name in columns} if columns else None,
    )
