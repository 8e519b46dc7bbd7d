"""predictions.jsonl read back: what was transcribed once can be scored again without a model."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from whisper_ft.runtime.errors import DataError, UsageError
from whisper_ft.scoring.edit_distance import ErrorCount
from whisper_ft.scoring.scores import Prediction, ScoredRow

TEXTS = ("id", "ref", "hyp")  # what a file of any system must have
OPTIONAL_TEXTS = ("language", "speaker", "detected_language", "problem")
OWN_COLUMNS = frozenset(ScoredRow(Prediction("", "", "", 0.0, 0), "", "", ErrorCount(), ErrorCount()).record())
# What rates can be broken down by without any other column: these are of the transcription, whatever the data has.
GROUPS = ("language", "speaker", "duration", "detected_language", "problem", "windows", "hit_token_limit")


def columns_of_data(columns: Sequence[str]) -> list[str]:
    """Those of --columns that the data has to have, sorted. UsageError for one that would replace a text or a count."""
    others = sorted({*columns} - {*GROUPS})
    if taken := [name for name in others if name in OWN_COLUMNS]:
        raise UsageError(
            f"--columns {taken[0]}: is what predictions.jsonl calls a text or count of its own; "
            f"a column of the data needs another name (of its own, these can be given: {', '.join(GROUPS)})"
        )
    return others


def read_predictions(path: Path, columns: Sequence[str] = ()) -> list[Prediction]:
    """The utterances of a file that evaluate.py wrote, or of any with id, ref and hyp, in its order.

    `columns` are kept besides those that are known. UsageError where there is no file or none of its rows has one of
    them, DataError with its line where it is damaged or says an utterance twice.
    """
    wanted = [name for name in dict.fromkeys(columns) if name not in {*GROUPS, *OWN_COLUMNS}]
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}; give a predictions.jsonl") from error
    rows: dict[str, Prediction] = {}
    there: dict[str, None] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            prediction = _prediction(row, wanted)
            if prediction.id in rows:
                raise ValueError(f"the utterance {prediction.id!r} is there twice")
        except ValueError as error:  # of json and of UTF-8, too
            raise DataError(f"{path}, line {number}: {error}") from error
        rows[prediction.id] = prediction
        there.update(dict.fromkeys(row) if wanted else ())
    if not rows:
        raise DataError(f"{path} has no predictions")
    if missing := [name for name in wanted if name not in there]:
        raise UsageError(f"{path}: has no column {missing[0]!r}; set --columns to some of {', '.join(there)}")
    return list(rows.values())


def _prediction(row: Any, columns: Sequence[str]) -> Prediction:
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
        columns={name: row.get(name) for name in columns} if columns else None,
    )
