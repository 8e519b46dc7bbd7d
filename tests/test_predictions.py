import json
import math
from pathlib import Path
from typing import Any

import pytest

from normalizers import get_normalizer
from whisper_ft.runtime.errors import DataError, UsageError
from whisper_ft.scoring.predictions import SLICE_COLUMNS, data_columns, read_predictions
from whisper_ft.scoring.scores import Prediction, score

LOWER = get_normalizer("lower")
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


def test_a_written_file_is_read_back_and_scores_the_same(tmp_path: Path):
    scores = score(ROWS, LOWER)
    lines = [json.dumps(row.record(), ensure_ascii=False, allow_nan=False) for row in scores.rows]
    read = read_predictions(file_of(tmp_path, *lines, ""))
    assert read[0] == ROWS[0]
    assert math.isnan(read[1].audio_seconds)
    assert read[1].problem == "decode_error"
    assert score(read, LOWER).summary() == scores.summary()


def test_a_file_of_another_system_needs_three_texts(tmp_path: Path):
    path = file_of(tmp_path, row(gender="female", age=3, mood="good"), "", row(id="b", audio_seconds=None))
    read = read_predictions(path, ["gender", "age", "speaker"])
    assert [prediction.id for prediction in read] == ["a", "b"]
    assert [prediction.columns for prediction in read] == [
        {"gender": "female", "age": 3},
        {"gender": None, "age": None},
    ]
    assert (read[0].hyp_tokens, read[0].speaker, read[0].hit_token_limit) == (0, None, False)
    assert score(read, LOWER).rows[0].record().items() >= {"gender": "female", "age": "3"}.items()
    assert read_predictions(path)[0].columns is None
    with pytest.raises(UsageError, match=r"'gendr'.*--columns .*id, ref, hyp, gender"):
        read_predictions(path, ["gendr"])


def test_a_column_of_the_data_cannot_replace_a_column_of_the_record(tmp_path: Path):
    assert data_columns(["gender", "age", "speaker", "duration", "gender"]) == ["age", "gender"]
    own = score(ROWS, LOWER).rows[0].record().keys()
    for name in own - {*SLICE_COLUMNS}:
        with pytest.raises(UsageError, match=f"--columns {name}: "):
            data_columns(["gender", name])


@pytest.mark.parametrize(
    ("line", "facts"),
    [
        ("{", ()),
        (b"\xff", ()),
        ("[1]", ("object",)),
        (json.dumps({"id": "b", "ref": "x"}), ("'hyp'", "missing")),
        (row(id=7), ("'id'", "7")),
        (row(id="b", speaker=3), ("'speaker'", "null", "3")),
        (row(id="b", audio_seconds="long"), ("'audio_seconds'", "'long'")),
        (row(), ("'a'", "twice")),
    ],
)
def test_a_damaged_file_is_refused_with_its_line(tmp_path: Path, line: str | bytes, facts: tuple[str, ...]):
    path = file_of(tmp_path, row(), line)
    with pytest.raises(DataError) as error:
        read_predictions(path)
    for fact in (f"{path}, line 2: ", *facts):
        assert fact in str(error.value)


def test_a_missing_file_is_a_usage_error_and_an_empty_one_a_data_error(tmp_path: Path):
    with pytest.raises(UsageError, match="No such file"):
        read_predictions(tmp_path / "nowhere.jsonl")
    with pytest.raises(UsageError, match="directory"):
        read_predictions(tmp_path)
    with pytest.raises(DataError, match="no predictions"):
        read_predictions(file_of(tmp_path, "", " "))
