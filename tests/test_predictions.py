import json
import math
from pathlib import Path
from typing import Any

import pytest

from whisper_ft.failure import DataError, UsageError
from whisper_ft.predictions import read_predictions
from whisper_ft.scoring import Prediction, score

ROWS = [
    Prediction("a", "X y\u2028z", "x y z", 1.5, 4, hit_token_limit=True, language="be", speaker="s1"),
    Prediction("b", "", "", math.nan, 0, problem="decode_error"),
]


def file_of(folder: Path, *lines: str | bytes) -> Path:
    path = folder / "predictions.jsonl"
    path.write_bytes(b"\n".join(line.encode() if isinstance(line, str) else line for line in lines))
    return path


def row(**fields: Any) -> str:
    return json.dumps({"id": "a", "ref": "x", "hyp": "y"} | fields, ensure_ascii=False)


def test_what_was_written_is_read_back_and_scores_the_same(tmp_path: Path):
    scores = score(ROWS, str.lower)
    lines = [json.dumps(row.record(), ensure_ascii=False, allow_nan=False) for row in scores.rows]
    read = read_predictions(file_of(tmp_path, *lines, ""))
    assert read.rows[0] == ROWS[0]
    assert math.isnan(read.rows[1].audio_seconds)
    assert read.rows[1].problem == "decode_error"
    assert score(read.rows, str.lower).summary() == scores.summary()
    assert read.columns["a"]["words"] == 3


def test_the_file_of_another_system_needs_three_texts_and_keeps_its_other_columns(tmp_path: Path):
    read = read_predictions(file_of(tmp_path, row(gender="female"), "", row(id="b", audio_seconds=None)))
    assert [prediction.id for prediction in read.rows] == ["a", "b"]
    assert read.columns["a"]["gender"] == "female"
    assert (read.rows[0].hyp_tokens, read.rows[0].speaker, read.rows[0].hit_token_limit) == (0, None, False)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "line 2: "),
        (b"\xff", "line 2: "),
        ("[1]", "line 2: not an object"),
        (json.dumps({"id": "b", "ref": "x"}), "line 2: 'hyp' must be a text, and is missing"),
        (row(id=7), "line 2: 'id' must be a text, and is 7"),
        (row(id="b", speaker=3), "line 2: 'speaker' must be a text or null, and is 3"),
        (row(id="b", audio_seconds="long"), "line 2: 'audio_seconds', 'hyp_tokens' and 'windows' must be numbers"),
        (row(), "line 2: the utterance 'a' is there twice"),
    ],
)
def test_a_damaged_file_is_refused_with_its_line(tmp_path: Path, line: str | bytes, told: str):
    path = file_of(tmp_path, row(), line)
    with pytest.raises(DataError) as error:
        read_predictions(path)
    assert f"{path}, {told}" in str(error.value)


def test_no_file_and_an_empty_one_are_told_apart(tmp_path: Path):
    with pytest.raises(UsageError, match="No such file"):
        read_predictions(tmp_path / "nowhere.jsonl")
    with pytest.raises(UsageError, match="directory"):
        read_predictions(tmp_path)
    with pytest.raises(DataError, match="has no predictions"):
        read_predictions(file_of(tmp_path, "", " "))
