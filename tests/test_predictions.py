import json
import math
from pathlib import Path
from typing import Any

import pytest

from whisper_ft.runtime.errors import DataError, UsageError
from whisper_ft.scoring.predictions import GROUPS, columns_of_data, read_predictions
from whisper_ft.scoring.scores import Prediction, score

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
    assert read[0] == ROWS[0]
    assert math.isnan(read[1].audio_seconds)
    assert read[1].problem == "decode_error"
    assert score(read, str.lower).summary() == scores.summary()


def test_the_file_of_another_system_needs_three_texts_and_keeps_the_columns_asked_for(tmp_path: Path):
    path = file_of(tmp_path, row(gender="female", age=3, mood="good"), "", row(id="b", audio_seconds=None))
    read = read_predictions(path, ["gender", "age", "speaker"])
    assert [prediction.id for prediction in read] == ["a", "b"]
    assert [prediction.columns for prediction in read] == [
        {"gender": "female", "age": 3},
        {"gender": None, "age": None},
    ]
    assert (read[0].hyp_tokens, read[0].speaker, read[0].hit_token_limit) == (0, None, False)
    assert score(read, str.lower).rows[0].record().items() >= {"gender": "female", "age": "3"}.items()
    assert read_predictions(path)[0].columns is None
    with pytest.raises(UsageError, match="has no column 'gendr'; set --columns to some of id, ref, hyp, gender"):
        read_predictions(path, ["gendr"])


def test_a_column_of_the_data_replaces_none_of_the_transcription(tmp_path: Path):
    assert columns_of_data(["gender", "age", "speaker", "duration", "gender"]) == ["age", "gender"]
    own = score(ROWS, str.lower).rows[0].record().keys()
    for name in own - {*GROUPS}:
        with pytest.raises(UsageError, match=f"--columns {name}: is what predictions.jsonl calls"):
            columns_of_data(["gender", name])


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
