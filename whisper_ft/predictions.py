"""predictions.jsonl read back: what was transcribed once can be scored again without a model."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whisper_ft.failure import DataError, UsageError
from whisper_ft.scoring import Prediction

TEXTS = ("id", "ref", "hyp")  # what a file of any system must have
OPTIONAL_TEXTS = ("language", "speaker", "detected_language", "problem")


@dataclass(frozen=True)
class Predictions:
    """The utterances of a file in its order, and all columns of each by its id, also those that scoring ignores."""

    rows: list[Prediction]
    columns: Mapping[str, Mapping[str, Any]]


def read_predictions(path: Path) -> Predictions:
    """The utterances of a file that evaluate.py wrote, or of any with id, ref and hyp.

    UsageError where there is no file, DataError with its line where it is damaged or says an utterance twice.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}; give a predictions.jsonl") from error
    rows, columns = [], {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            prediction = _prediction(row)
            if prediction.id in columns:
                raise ValueError(f"the utterance {prediction.id!r} is there twice")
        except ValueError as error:  # of json and of UTF-8, too
            raise DataError(f"{path}, line {number}: {error}") from error
        rows.append(prediction)
        columns[prediction.id] = row
    if not rows:
        raise DataError(f"{path} has no predictions")
    return Predictions(rows, columns)


def _prediction(row: Any) -> Prediction:
    if not isinstance(row, dict):
        raise ValueError("not an object")
    for name in TEXTS:
        if not isinstance(row.get(name), str):
            raise ValueError(f"{name!r} must be a text, and is {'missing' if name not in row else repr(row[name])}")
    for name in OPTIONAL_TEXTS:
        if not isinstance(row.get(name), str | None):
            raise ValueError(f"{name!r} must be a text or null, and is {row[name]!r}")
    seconds, tokens, windows = row.get("audio_seconds"), row.get("hyp_tokens", 0), row.get("windows", 1)
    if not isinstance(seconds, int | float | None) or not isinstance(tokens, int) or not isinstance(windows, int):
        told = f"{seconds!r}, {tokens!r} and {windows!r}"
        raise ValueError(f"'audio_seconds', 'hyp_tokens' and 'windows' must be numbers, and are {told}")
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
    )
