"""Times that rows bring: columns of segments and texts with times, from any format to labels and quarantine."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from tests.elsewhere import AUDIO
from whisper_ft.cli.doctor.row_check import RowCheck
from whisper_ft.config.data import SourceConfig
from whisper_ft.data.audio.log_mel import LogMel
from whisper_ft.data.labels.segment_times import context_of, segments_of, timed_text, with_segments
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.data.labels.usable_transcript import UsableTranscript
from whisper_ft.data.labels.window_label import PlacedText
from whisper_ft.data.sources import open_source
from whisper_ft.data.types import RejectedError, Row, TextSegment
from whisper_ft.models.suppression import SuppressedTokens
from whisper_ft.models.whisper import load_parts
from whisper_ft.runtime.errors import UsageError

RATE = 16_000
LISTED = [{"start": 0.0, "end": 1.2, "text": " ад "}, {"start": 1.5, "end": 2.58, "text": "два"}]
READ = (TextSegment("ад", 0.0, 1.2), TextSegment("два", 1.5, 2.58))


@pytest.mark.parametrize(
    ("value", "segments"),
    [
        (json.dumps(LISTED), READ),
        (json.dumps([{"id": 7, "speaker": "x", **segment} for segment in LISTED]), READ),
        (json.dumps({key: [segment[key] for segment in LISTED] for key in ("start", "end", "text")}), READ),
        ('[{"start": "0", "end": "1.2", "text": "ад"}]', READ[:1]),
        ('[{"start": 0, "end": 1.2, "text": "ад"}, {"start": 2, "end": 3, "text": " "}]', READ[:1]),
        (
            '[{"start": 0, "end": 1.2, "text": "ад"}, {"start": 2, "end": null, "text": ""}]',
            (READ[0], TextSegment("", 2.0, None)),
        ),
        ('[{"start": 0, "end": null, "text": "ад"}]', (TextSegment("ад", 0.0, None),)),
        ('[{"start": 0, "text": "ад"}]', (TextSegment("ад", 0.0, None),)),
        (
            '[{"start": 0, "end": 2.1, "text": "ад"}, {"start": 2, "end": 3, "text": "два"}]',  # they overlap by 0.1 s
            (TextSegment("ад", 0.0, 2.1), TextSegment("два", 2.0, 3.0)),
        ),
        ("[]", ()),
        ("null", None),
        (" ", None),
    ],
)
def test_segments_are_read_in_each_of_their_forms(value: str, segments: Any):
    assert segments_of(value) == segments


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("раз", "bad_segments"),
        ("[" * 100_000, "bad_segments"),
        ('{"start": 0, "end": 1, "text": "a"}', "bad_segments"),
        ('{"start": [0], "end": [1, 2], "text": ["a"]}', "bad_segments"),
        ("[[0, 1, 2]]", "bad_segments"),
        ('[{"start": 0, "end": 1}]', "bad_segments"),
        ('[{"start": 0, "end": 1, "text": 5}]', "bad_segments"),
        ('[{"start": 0, "end": 1, "text": "\\ud83d"}]', "bad_segments"),
        ('[{"end": 1, "text": "a"}]', "bad_segments"),
        ('[{"start": true, "end": 1, "text": "a"}]', "bad_segments"),
        ('[{"start": NaN, "end": 1, "text": "a"}]', "bad_segments"),
        ('[{"start": -1, "end": 1, "text": "a"}]', "bad_segments"),
        ('[{"start": 0, "text": "a"}, {"start": 1, "end": 2, "text": "b"}]', "bad_segments"),
        ('[{"start": 2, "end": 1, "text": "a"}]', "bad_times"),
        ('[{"start": 0, "end": 2, "text": "a"}, {"start": 1, "end": 3, "text": "b"}]', "bad_times"),
        ('[{"start": 5, "end": 6, "text": "a"}, {"start": 1, "end": 2, "text": "b"}]', "bad_times"),
    ],
)
def test_segments_that_cannot_be_used_have_a_reason(value: str, reason: str):
    with pytest.raises(RejectedError) as raised:
        segments_of(value)
    assert raised.value.reason == reason
    assert len(raised.value.detail) < 200


@pytest.mark.parametrize(
    ("text", "plain", "segments"),
    [
        ("раз", "раз", None),
        ("", "", None),
        ("<|0.00|> ад<|1.20|><|1.50|> два<|2.58|>", "ад два", READ),
        (" <|0.00|>ад <|1.20|> <|1.50|> два <|2.58|> ", "ад два", READ),
        ("<|0.00|> ад<|1.20|> два<|2.58|>", "ад два", (READ[0], TextSegment("два", 1.2, 2.58))),
        ("<|0.00|> ад<|1.20|><|1.50|> два", "ад два", (READ[0], TextSegment("два", 1.5, None))),
        ("<|0.00|> ад<|1.20|><|1.50|>", "ад", (READ[0], TextSegment("", 1.5, None))),
        ("<|0|> ад<|1.2|>", "ад", READ[:1]),
        (
            "<|0.00|>你好<|1.00|><|1.00|>世界<|2.00|>",
            "你好世界",
            (TextSegment("你好", 0.0, 1.0), TextSegment("世界", 1.0, 2.0)),
        ),
        ("<|0.00|>", "", ()),
    ],
)
def test_times_are_taken_out_of_a_text(text: str, plain: str, segments: Any):
    assert timed_text(text) == (plain, segments)


@pytest.mark.parametrize("text", ["<|1.00|> a<|0.50|>", "<|0.00|> a<|2.00|><|1.98|> b<|3.00|>", "a<|0.00|> b<|1.00|>"])
def test_a_text_whose_times_go_back_is_unusable(text: str):
    with pytest.raises(RejectedError, match="bad_times"):
        timed_text(text)


@given(st.lists(st.tuples(st.text("аб ", min_size=1), st.integers(0, 200), st.integers(0, 200)), max_size=6))
def test_a_text_that_is_written_with_times_is_read_back(spoken: list[tuple[str, int, int]]):
    written, expected, at = "", list[TextSegment](), 0
    for text, gap, length in spoken:
        begin, end = (at + gap) / 50, (at + gap + length) / 50
        if text.strip():
            written += f"<|{begin:.2f}|> {text}<|{end:.2f}|>"
            expected.append(TextSegment(text.strip(), begin, end))
            at += gap + length
    plain, segments = timed_text(written)
    assert list(segments or ()) == expected
    assert plain == " ".join(segment.text for segment in expected)


@pytest.mark.parametrize(
    ("value", "context"),
    [
        (None, ""),
        ("  ", ""),
        (" раней ", "раней"),
        ('["Мінск", "Брэст"]', "Мінск, Брэст"),
        ("[смех] раз", "[смех] раз"),
    ],
)
def test_a_cell_of_the_prompt_column_is_text_or_a_list_of_texts(value: str | None, context: str):
    assert context_of(value) == context


def test_a_row_whose_times_cannot_be_used_keeps_its_text_for_an_evaluation():
    row = with_segments(Row("a", b"", "<|1.00|> раз<|0.00|> два"), None, text_times=True)
    assert row.label_problem is not None
    assert (row.text.split(), row.label_problem[0], row.problem) == (["раз", "два"], "bad_times", None)
    row = with_segments(Row("a", b"", "раз"), "5", text_times=False)
    assert row.label_problem is not None
    assert (row.text, row.label_problem[0]) == ("раз", "bad_segments")


# --- formats ---

TABLE: list[dict[str, Any]] = [
    {"text": "раз", "parts": LISTED, "names": "Мінск"},
    {"text": "раз", "parts": None, "names": None},
]
NAMED = {"segments_column": "parts", "prompt_column": "names"}


def parquet(folder: Path, as_text: bool) -> Path:
    sound = pa.array([{"bytes": b"RIFF", "path": None}] * 2, AUDIO)
    parts = [row["parts"] and (json.dumps(row["parts"]) if as_text else row["parts"]) for row in TABLE]
    columns = {"sentence": ["раз"] * 2, "parts": parts, "names": ["Мінск", None]}
    pq.write_table(pa.table({"audio": sound, **columns}), folder / "a.parquet")
    return folder / "a.parquet"


def json_lines(folder: Path, as_text: bool) -> Path:
    rows = [
        {
            "audio": f"{number}.wav",
            **row,
            "parts": row["parts"] and json.dumps(row["parts"]) if as_text else row["parts"],
        }
        for number, row in enumerate(TABLE)
    ]
    (folder / "list.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return folder / "list.jsonl"


def saved(folder: Path, as_text: bool) -> Path:
    rows = [
        {
            "audio": f"{number}.wav",
            **row,
            "parts": row["parts"] and json.dumps(row["parts"]) if as_text else row["parts"],
        }
        for number, row in enumerate(TABLE)
    ]
    Dataset.from_list(rows).save_to_disk(folder / "set")
    return folder / "set"


@pytest.mark.parametrize("as_text", [False, True], ids=["list", "JSON"])
@pytest.mark.parametrize("make", [parquet, json_lines, saved])
def test_every_table_brings_segments_and_prompts(make: Any, as_text: bool, tmp_path: Path):
    path = make(tmp_path, as_text)
    first, second = open_source(SourceConfig(path=str(path), **NAMED)).read(0)
    assert (first.text, first.segments, first.prompt) == ("ад два", READ, "Мінск")
    assert (second.text, second.segments, second.prompt) == ("раз", None, "")
    assert first.columns is None, "they are no extra columns"
    asked = open_source(SourceConfig(path=str(path), **NAMED), columns=["names"]).read(0)
    assert [row.columns for row in asked] == [{"names": "Мінск"}, {"names": None}]
    plain = open_source(SourceConfig(path=str(path))).read(0)
    assert [(row.text, row.segments, row.prompt) for row in plain] == [("раз", None, None)] * 2, "not unasked"


@pytest.mark.parametrize("make", [parquet, json_lines, saved])
@pytest.mark.parametrize("setting", ["segments_column", "prompt_column"])
def test_a_named_column_that_is_missing_is_refused(make: Any, setting: str, tmp_path: Path):
    with pytest.raises(UsageError, match=rf"'none'.*--data\.{setting}.*parts") as refused:
        open_source(SourceConfig(path=str(make(tmp_path, False)), **{setting: "none"}))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("make", [parquet, json_lines, saved])
def test_data_with_segments_needs_no_column_of_text(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = make(tmp_path, True)
    if make is parquet:
        pq.write_table(pq.read_table(path).drop_columns(["sentence"]), path)
    elif make is json_lines:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        path.write_text("\n".join(json.dumps({k: v for k, v in row.items() if k != "text"}) for row in rows) + "\n")
    else:
        Dataset.load_from_disk(path).remove_columns(["text"]).save_to_disk(tmp_path / "less")
        path = tmp_path / "less"
    rows = open_source(SourceConfig(path=str(path), segments_column="parts")).read(0)
    assert [(row.text, row.segments) for row in rows] == [("ад два", READ), ("", None)]
    with pytest.raises(UsageError, match="text_column"):
        open_source(SourceConfig(path=str(path)))


def test_a_text_with_times_is_read_as_such_only_where_a_setting_says_so(tmp_path: Path):
    text = "<|0.00|> ад<|1.20|><|1.50|> два<|2.58|>"
    (tmp_path / "list.jsonl").write_text(json.dumps({"audio": "a.wav", "text": text}) + "\n")
    where = SourceConfig(path=str(tmp_path / "list.jsonl"))
    [plain], [timed] = open_source(where).read(0), open_source(SourceConfig(path=where.path, text_times=True)).read(0)
    assert (plain.text, plain.segments) == (text, None)
    assert (timed.text, timed.segments) == ("ад два", READ)


# --- labels ---


@pytest.fixture(scope="module")
def encode(micro_whisper: Path) -> LabelEncoder:
    parts = load_parts(str(micro_whisper))
    return LabelEncoder.of(parts, parts.processor.tokenizer, "be", "transcribe")


def silence(seconds: float) -> Any:
    return np.zeros(round(seconds * RATE), np.float32)


def test_segments_lie_at_their_times_after_the_begin_of_their_utterance(encode: LabelEncoder):
    usable = UsableTranscript.of(Row("a", b"", "ад два", segments=READ), encode)
    assert usable.cost(encode) == sum(encode.cost(segment.text) for segment in READ)
    assert usable.spoken(silence(3.0), RATE, 10, timestamps=True) == [
        PlacedText("ад", 10, 70),
        PlacedText("два", 85, 139),  # 1.5 s and 2.58 s: no rounding of 0.58 * 50 down
    ]
    assert usable.plain_label(Row("a", b"", ""), encode) == encode("ад два")


@pytest.mark.parametrize(("end", "is_usable"), [(3.0, True), (3.09, True), (3.2, False), (60.0, False)])
def test_a_segment_that_ends_after_the_audio_is_unusable(encode: LabelEncoder, end: float, is_usable: bool):
    usable = UsableTranscript.of(Row("a", b"", "ад", segments=(TextSegment("ад", 0.5, end),)), encode)
    for timestamps in (False, True):
        if is_usable:
            assert usable.spoken(silence(3.0), RATE, 0, timestamps=timestamps)[0].end == 150
        else:
            with pytest.raises(RejectedError, match="bad_times"):
                usable.spoken(silence(3.0), RATE, 0, timestamps=timestamps)


def test_an_open_end_is_that_of_the_audio_and_a_start_without_text_stays_one(encode: LabelEncoder):
    row = Row("a", b"", "ад", segments=(TextSegment("ад", 0.5, None), TextSegment("", 2.0, None)))
    texts = UsableTranscript.of(row, encode).spoken(silence(3.0), RATE, 0, timestamps=True)
    assert texts == [PlacedText("ад", 25, 150), PlacedText("", 100, None)]


def test_the_doctor_counts_rows_as_a_run_does(micro_whisper: Path):
    parts = load_parts(str(micro_whisper))
    tokenizer, file = parts.processor.tokenizer, io.BytesIO()
    soundfile.write(file, np.random.default_rng(0).normal(0, 0.1, RATE), RATE, format="WAV")
    rows = [
        Row("good", file.getvalue(), "ад два", segments=(TextSegment("ад", 0.0, 0.4), TextSegment("два", 0.5, 1.0))),
        Row("late", file.getvalue(), "ад", segments=(TextSegment("ад", 0.0, 9.0),)),
        Row("bad", file.getvalue(), "ад", label_problem=("bad_segments", "why")),
    ]
    encode = LabelEncoder.of(parts, tokenizer, "be", "transcribe")
    suppressed = SuppressedTokens.of(parts.generation_config, tokenizer)
    check = RowCheck(encode, LogMel(parts.processor.feature_extractor), str, suppressed)
    for row in rows:
        check.check(row)
    assert {reason: tally.rows for reason, tally in check.statistics.unusable.items()} == {
        "bad_times": 1,
        "bad_segments": 1,
    }
    assert check.statistics.tokens[len(encode("ад два")) - 1] == 1


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"segments": ()}, "empty_label"),
        ({"segments": (TextSegment("", 0.0, None),)}, "empty_label"),
        ({"segments": tuple(TextSegment("вельмі " * 20, n, n + 1.0) for n in range(9))}, "label_too_long"),
        ({"segments": READ, "language": "xx"}, "unknown_language"),
        ({"text": "раз", "label_problem": ("bad_times", "why")}, "bad_times"),
        ({"text": " "}, "empty_label"),
    ],
)
def test_a_transcript_that_cannot_be_learnt_has_a_reason(encode: LabelEncoder, fields: dict[str, Any], reason: str):
    with pytest.raises(RejectedError) as raised:
        UsableTranscript.of(Row(**{"id": "a", "audio": b"", "text": ""} | fields), encode)
    assert raised.value.reason == reason
