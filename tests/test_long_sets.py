"""Sets of long recordings: clips joined by speaker, timestamps, refusals, and runs and evaluations with such a set."""

import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from normalizers import get_normalizer
from tests.conftest import START_SECONDS, Trainer, logged, pids_of, run, start
from tests.test_eval_sets import as_sets, names_in, rows_of
from tests.test_stream import Rows, clip, spoken
from tests.test_transcriber import noise, write_always
from whisper_ft.checkpoint.format import newest_record
from whisper_ft.config.data import NamedSourceConfig
from whisper_ft.config.evaluation import DecodingConfig
from whisper_ft.config.parse import load_config
from whisper_ft.config.scoring import EvaluationConfig
from whisper_ft.config.training import TrainingConfig
from whisper_ft.data.audio.decode import decode
from whisper_ft.data.joined_recordings import PAUSE_SECONDS, SAMPLE_RATE, JoinedRecordings, plan_recordings
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.data.long_recordings import long_recordings
from whisper_ft.data.types import Row, TextSegment
from whisper_ft.decoding.eval_protocol import EvalProtocol
from whisper_ft.decoding.timestamp_check import TimestampCheck
from whisper_ft.decoding.transcribe import transcribe
from whisper_ft.decoding.transcriber import Transcriber
from whisper_ft.models.whisper import load_whisper
from whisper_ft.reports.curves.history import read_history
from whisper_ft.reports.curves.panel import panels_of
from whisper_ft.runtime.collectives import Collectives
from whisper_ft.runtime.errors import UsageError

GOLDEN, CHINESE = get_normalizer("golden", language="be"), get_normalizer("golden", language="zh")
FIGURES = ("deletion_rate", "late_deletions", "timestamps")


def said_by(speaker: str | None, count: int, seconds: float = 1.0, first: int = 0, **fields: Any) -> list[Row]:
    audio = clip(seconds)
    return [spoken(first + i, audio=audio, speaker=speaker, text=f"слова {first + i}", **fields) for i in range(count)]


def joined_rows(rows: list[Row], seconds: float) -> tuple[list[Row], Rows]:
    source = Rows(rows)
    plan = plan_recordings(source, seconds, None)
    source.reads.clear()
    recordings = JoinedRecordings(source, plan, {})
    found = [row for number in range(len(recordings.rows)) for row in recordings.read(number)]
    assert [recordings.row_id(number, 0) for number in range(len(found))] == [row.id for row in found]
    return found, source


def test_the_clips_of_each_speaker_are_joined_in_stored_order_and_none_twice():
    mixed = [row for pair in zip(said_by("a", 9), said_by("b", 9, first=20), strict=True) for row in pair]
    found, source = joined_rows(mixed, 5.2)
    assert [(row.speaker, row.text.count("слова")) for row in found] == [("a", 4), ("b", 4), ("a", 5), ("b", 5)], (
        "four seconds and three pauses fit; a rest below half is added to the recording before"
    )
    texts = [text for row in found for text in row.text.split("слова ")[1:]]
    assert sorted(int(text) for text in texts) == [*range(9), *range(20, 29)]
    assert len({row.id for row in found}) == len(found)
    assert len(source.reads) == len(set(source.reads)), "the chunks stay in memory"


def test_clips_without_speaker_and_speakers_with_little_speech_share_recordings():
    rows = said_by("a", 1) + said_by(None, 2, first=1) + said_by("b", 3, first=3) + said_by("c", 2, first=6)
    found, _ = joined_rows(rows, 6.0)
    shared = [row.text for row in rows if row.speaker != "b"]
    own = [row.text for row in rows if row.speaker == "b"]
    assert [(row.speaker, row.text) for row in found] == [(None, " ".join(shared)), ("b", " ".join(own))]


def test_languages_and_tasks_are_not_mixed():
    rows = said_by("a", 2, language="be") + said_by("a", 2, first=2, language="sv")
    rows += said_by("a", 2, first=4, language="sv", task="translate")
    assert [(row.language, row.task) for row in joined_rows(rows, 60.0)[0]] == [
        ("be", None),
        ("sv", None),
        ("sv", "translate"),
    ]


def test_every_sample_and_every_text_has_its_time():
    rows = [spoken(i, audio=clip(0.5 + 0.3 * i, loudness=0.1 + 0.05 * i), speaker="a") for i in range(4)]
    rows[2] = replace(rows[2], segments=(TextSegment("раз", 0.1, 0.4), TextSegment("два", 0.5, None)))
    [found], _ = joined_rows(rows, 60.0)
    samples = decode(found.audio, SAMPLE_RATE, 60.0)
    segments = list(found.segments or ())
    assert [text for text, _, _ in segments] == [rows[0].text, rows[1].text, "раз", "два", rows[3].text]
    begins, at = [], 0
    for row in rows:
        alone = decode(row.audio, SAMPLE_RATE, 30.0)
        assert np.array_equal(samples[at : at + len(alone)], alone)
        begins.append(at / SAMPLE_RATE)
        at += len(alone)
        pause = samples[at : at + round(PAUSE_SECONDS * SAMPLE_RATE)]
        assert not pause.any()
        at += round(PAUSE_SECONDS * SAMPLE_RATE) if row is not rows[-1] else 0
    assert at == len(samples)
    starts = [begins[0], begins[1], begins[2] + 0.1, begins[2] + 0.5, begins[3]]
    assert [begin for _, begin, _ in segments] == pytest.approx(starts)
    assert segments[3].end == pytest.approx(begins[3] - PAUSE_SECONDS)


def test_scripts_without_spaces_are_joined_without_one():
    rows = [spoken(i, audio=clip(0.5), text=text) for i, text in enumerate(["你好", "世界", "abc"])]
    assert joined_rows(rows, 60.0)[0][0].text == "你好世界 abc"


def test_a_clip_that_cannot_be_joined_stays_alone_and_a_damaged_one_costs_its_words():
    broken = clip(1.0)
    rows = said_by("a", 6)
    rows[1] = replace(rows[1], audio=b"no audio")
    rows[2] = replace(rows[2], text=" ")
    rows[3] = replace(rows[3], problem=("missing_file", "gone"))
    rows[4] = replace(rows[4], audio=broken[: len(broken) // 2])  # its header promises the whole second
    found, _ = joined_rows(rows, 60.0)
    assert [(row.id, row.problem, row.unread_part) for row in found[1:]] == [
        (rows[1].id, None, None),
        (rows[2].id, None, None),
        (rows[3].id, rows[3].problem, None),
    ]
    assert found[0].unread_part is not None
    assert found[0].text == " ".join(rows[place].text for place in (0, 4, 5))
    assert len(decode(found[0].audio, SAMPLE_RATE, 60.0)) == (2 + 2 * PAUSE_SECONDS) * SAMPLE_RATE


@pytest.mark.parametrize(
    ("rows", "where", "fact"),
    [
        (said_by("a", 2) + said_by("b", 1, first=2), {"long": True}, "3.6 s"),
        (said_by(None, 9), {"long": True, "long_seconds": 4.0}, "long_seconds 4"),
        (said_by(None, 9), {"long": "given"}, "true"),
    ],
)
def test_a_set_without_long_recordings_is_refused_in_one_line(rows: list[Row], where: dict[str, Any], fact: str):
    with pytest.raises(UsageError) as refused:
        long_recordings(Rows(rows), NamedSourceConfig(**where), None, 5.0, Collectives(), "--long")
    assert all(word in str(refused.value) for word in ("--long", fact, "5 s")), str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_given_recording_and_the_first_clips_of_a_set_are_taken():
    source = Rows([*said_by(None, 1, seconds=6.0), *said_by(None, 8, first=1)])
    assert long_recordings(source, NamedSourceConfig(long="given"), None, 5.0, Collectives(), "--long") is source
    recordings = long_recordings(source, NamedSourceConfig(long=True), 4, 5.0, Collectives(), "--long")
    assert [row.text.count("слова") for row in recordings.read(0)] == [4]


@pytest.mark.parametrize(
    ("settings", "facts"),
    [
        ("[{path: a, long: sometimes}]", ["--eval.sets"]),
        ("[{path: a, long_seconds: 60}]", ["eval.sets: long_seconds", "60", "long: true"]),
        ("[{path: a, long: given, long_seconds: 60}]", ["eval.sets: long_seconds", "60"]),
        ("[{path: a, long: true, long_seconds: 0}]", ["eval.sets: long_seconds", "0"]),
        ("[{path: a, long: true, long_seconds: 9000}]", ["eval.sets: long_seconds", "9000", "1800"]),
        ("[{path: a, long: true, long_secs: 60}]", ["'eval.sets.long_secs'", "'eval.sets.long_seconds'"]),
    ],
)
def test_settings_that_cannot_be_honoured_are_refused(settings: str, facts: list[str]):
    with pytest.raises(UsageError) as refused:
        load_config(TrainingConfig, ["--data.path", "x", "--eval.sets", settings])
    assert all(fact in str(refused.value) for fact in facts), str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (["--data.path", "x", "--long_seconds", "60"], ["--long_seconds 60"]),
        (["--data.path", "x", "--long", "sometimes"], ["--long sometimes"]),
        (["--sets", "[{path: a}]", "--long", "true"], ["--long true", "sets"]),
        (["--predictions", "x", "--long", "given"], ["--long given", "--predictions"]),
        (["--predictions", "x", "--max_utterances", "3"], ["--max_utterances 3", "--predictions"]),
        (["--predictions", "x", "--decoding.num_beams", "5"], ["--decoding.num_beams 5", "--predictions"]),
        (["--predictions", "x", "--precision", "bf16"], ["--precision bf16", "--predictions"]),
        (["--sets", "[{path: a, long_seconds: 60}]"], ["sets: long_seconds", "60"]),
    ],
)
def test_settings_of_evaluate_that_cannot_be_honoured_are_refused(arguments: list[str], facts: list[str]):
    with pytest.raises(UsageError) as refused:
        load_config(EvaluationConfig, ["--model", "m", *arguments] if "--predictions" not in arguments else arguments)
    assert all(fact in str(refused.value) for fact in facts), str(refused.value)


@pytest.fixture(scope="module")
def check(micro_whisper: Path) -> TimestampCheck:
    model, processor = load_whisper(str(micro_whisper))
    found = TimestampCheck.of(model.eval(), processor.tokenizer)
    assert found is not None
    return found


T = 10_000  # stands for <|0.00|> below


@pytest.mark.parametrize(
    ("written", "is_cut", "valid"),
    [
        ([T, 1, 2, T + 50], False, True),
        ([T, 1, T + 50, T + 50, 2, T + 90], False, True),
        ([T, 1, T + 50, T + 60, 2, T + 250], False, True),
        ([T, 1, T + 50, T + 60], False, True),  # the speech goes on after the window
        ([T], False, True),
        ([T, 1, 2], False, False),
        ([T, 1, 2], True, True),
        ([1, 2], False, False),
        ([T - 1, 1, 2], False, False),  # <|notimestamps|>
        ([T, 1, T + 50, 2], False, False),
        ([T + 50, 1, T + 40], False, False),
        ([T, 1, T + 50, T + 40, 1, T + 60], False, False),
        ([T, T + 10, 1, T + 50], False, False),
        ([T, 1, T + 251], False, False),  # the window ends at 5.00 s
        ([], False, None),
    ],
)
def test_pairs_of_timestamps_are_valid_or_not(
    check: TimestampCheck, micro_whisper: Path, written: list[int], is_cut: bool, valid: bool | None
):
    model, _ = load_whisper(str(micro_whisper))
    first = model.generation_config.no_timestamps_token_id + 1
    tokens = [token - T + first if token >= T - 1 else token for token in written]
    assert check.are_valid(tokens, is_cut=is_cut) is valid


def test_the_model_is_asked_without_guidance(micro_whisper: Path):
    """A model that writes the same text forever, one that ends at once, and one without timestamp tokens."""
    for token, valid in (("text", False), ("end", None)):
        model, processor = load_whisper(str(micro_whisper))
        write_always(model, 40 if token == "text" else processor.tokenizer.eos_token_id)
        assert windows_checked(model, processor) == [valid]
    model, processor = load_whisper(str(micro_whisper))
    model.generation_config.no_timestamps_token_id = model.config.vocab_size - 1
    assert windows_checked(model, processor) == [None]


def windows_checked(model: Any, processor: Any) -> list[bool | None]:
    encode = LabelEncoder.of(model, processor.tokenizer, "be", "transcribe")
    settings = DecodingConfig(max_new_tokens=4)
    decoder = Transcriber(model.eval(), processor.tokenizer, encode, settings, "fp32", is_long=True)
    [prediction] = transcribe(decoder, [noise(model, 0)], 1, 1, Collectives())
    return [window["timestamps"] for window in prediction.window_confidence or ()]


SHORT: dict[str, Any] = {"model__dropout": 0, "save__every": 0, "eval__max_utterances": 100}


def long_set(corpus: Path, **settings: Any) -> dict[str, Any]:
    return {"name": "long", "path": corpus / "validation", "long": True, "long_seconds": 9, **settings}


@pytest.mark.long
def test_a_long_set_is_scored_beside_the_held_out_one_and_guarded(train: Trainer, corpus: Path):
    sets = as_sets(long_set(corpus, metric="deletion_rate", max_worse=0.0))
    ended = train.end("run", **SHORT, steps=2, eval__every=2, eval__at_start=True, eval__sets=sets)
    assert ended.code == 0, ended.err
    assert any("set long" in line and "12 clips" in line for line in ended.out.splitlines())
    assert any("long: WER" in line and "timestamps" in line for line in ended.out.splitlines())
    run_dir = train.folder / "run"
    rows = rows_of(run_dir)
    assert [(row["step"], names_in(row)) for row in rows] == [(0, {"", "long"}), (2, {"", "long"})]
    for row in rows:
        assert {f"long/{name}" for name in FIGURES} <= row.keys()
        assert row["long/words"] == row["words"], "each clip once"
        assert row["long/utterances"] < row["utterances"]
        assert row["long/eval_loss"] is None
    assert "long/worse" not in rows[0]
    assert rows[1]["long/worse"] in (True, False)
    assert rows[1]["long/guard"] == "deletion_rate"
    assert rows[1]["long/worse_by"] == pytest.approx(rows[1]["long/deletion_rate"] - rows[0]["long/deletion_rate"])
    assert rows[1]["long/outside"] is (rows[1]["long/worse_by"] > 0)
    titles = {panel.title for panel in panels_of([read_history(run_dir)])}
    assert any("timestamps" in title for title in titles)
    lines = (run_dir / "predictions/long/step-00000002.jsonl").read_text(encoding="utf-8").splitlines()
    assert all(json.loads(line)["ref_segments"] for line in lines)


@pytest.mark.matrix
def test_two_processes_score_the_same_recordings(train: Trainer, corpus: Path):
    settings = {**SHORT, "steps": 1, "eval__every": 1, "eval__sets": as_sets(long_set(corpus))}
    one, two = (train(f"{count}", count, **settings, eval__at_start=True) for count in (1, 2))
    for key, value in rows_of(one)[0].items():
        assert rows_of(two)[0][key] == (pytest.approx(value, rel=1e-6) if isinstance(value, float) else value), key


@pytest.mark.matrix
def test_a_run_stopped_in_a_long_set_scores_it_whole(train: Trainer, corpus: Path):
    """The long set takes seconds: its windows are decoded one by one, each to the token limit."""
    sets = as_sets(long_set(corpus, path=corpus / "train", max_utterances=40))
    slow = {**SHORT, "steps": 2, "eval__every": 2, "eval__max_new_tokens": 60, "eval__sets": sets}
    assert train.interrupt("run", logged(2), signal.SIGTERM, **slow, eval__batch_size=1) == 75
    run_dir = train.folder / "run"
    assert rows_of(run_dir) == []
    train("run", **slow, eval__batch_size=50)
    [row], [whole] = rows_of(run_dir), rows_of(train("whole", **slow, eval__batch_size=50))
    assert row == whole
    record = newest_record(run_dir / "checkpoints")
    assert record is not None
    protocol = EvalProtocol.from_json(record.set_protocols["long"])
    assert protocol.joined == {"seconds": 9, "pause": 0.3, "clips": 40, "rules": 1}
    assert not protocol.matches(replace(protocol, joined={**protocol.joined, "seconds": 12})), "its trend begins anew"


@pytest.mark.long
def test_a_long_set_that_cannot_be_joined_ends_the_start_with_its_name(train: Trainer, corpus: Path):
    sets = as_sets(long_set(corpus, max_utterances=1))
    ended = train.end("run", **SHORT, eval__sets=sets)
    assert ended.code == 2, ended.err
    assert "eval.sets: long: long true" in ended.err
    assert len(ended.err.strip().splitlines()) == 1


def predicted(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.matrix
def test_evaluate_joins_the_same_recordings_is_killed_and_continues(micro_whisper: Path, corpus: Path, tmp_path: Path):
    arguments = ["--model", str(micro_whisper), "--data.path", str(corpus / "train"), "--data.language", "be"]
    arguments += ["--long", "true", "--long_seconds", "9", "--decoding.batch_size", "2"]
    arguments += ["--decoding.max_new_tokens", "30", "--out"]
    whole = run("evaluate.py", *arguments, str(tmp_path / "whole"))
    assert whole.code == 0, whole.err
    assert "joined" in whole.out
    started = start("evaluate.py", [*arguments, str(tmp_path / "killed")])
    kept, deadline = tmp_path / "killed/.parts/rank-0.jsonl", time.monotonic() + START_SECONDS
    while not kept.exists() or kept.read_text().count("index") < 3:
        assert started.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(*pids_of(started), signal.SIGKILL)
    started.wait(START_SECONDS)
    ended = run("evaluate.py", *arguments, str(tmp_path / "killed"), processes=2)
    assert ended.code == 0, ended.err
    assert "transcribed already" in ended.out
    both = [predicted(tmp_path / name) for name in ("whole", "killed")]
    for name in ("id", "ref", "ref_segments", "windows", "audio_seconds", "speaker"):
        assert [row[name] for row in both[0]] == [row[name] for row in both[1]], name
    summary = json.loads((tmp_path / "whole/summary.json").read_text())
    assert {*FIGURES} <= summary.keys()
    again = ["--predictions", str(tmp_path / "whole/predictions.jsonl"), "--out", str(tmp_path / "again")]
    assert run("evaluate.py", *again).code == 0
    scored_again = json.loads((tmp_path / "again/summary.json").read_text())
    assert {name: scored_again[name] for name in FIGURES} == {name: summary[name] for name in FIGURES}


@pytest.mark.long
def test_given_recordings_are_checked_too_and_the_sets_of_one_call_keep_apart(
    micro_whisper: Path, corpus: Path, tmp_path: Path
):
    rows = pq.read_table(corpus / "validation").slice(0, 4).to_pylist()
    parts = [Row(row["audio"]["path"], row["audio"]["bytes"], row["sentence"]) for row in rows]
    [whole], _ = joined_rows(parts, 60.0)
    times = json.dumps([{"start": begin, "end": end, "text": text} for text, begin, end in whole.segments or ()])
    given = {"audio": {"bytes": whole.audio, "path": "whole.wav"}, "sentence": whole.text, "times": times}
    pq.write_table(pa.Table.from_pylist([given]), tmp_path / "given.parquet")
    sets = as_sets(
        {"name": "given", "path": tmp_path / "given.parquet", "long": "given"},
        {"name": "timed", "path": tmp_path / "given.parquet", "long": "given", "segments_column": "times"},
        {"name": "joined", "path": corpus / "validation", "long": True, "long_seconds": 20},
        {"name": "clips", "path": corpus / "validation"},
    )
    arguments = ["--model", str(micro_whisper), "--data.language", "be", "--decoding.max_new_tokens", "20"]
    ended = run("evaluate.py", *arguments, "--sets", sets, "--out", str(tmp_path / "out"))
    assert ended.code == 0, ended.err
    summaries = {
        name: json.loads((tmp_path / "out" / name / "summary.json").read_text())
        for name in ("given", "timed", "joined", "clips")
    }
    assert summaries["given"]["late_deletions"] is None, "the reference has no times"
    assert summaries["given"]["deletion_rate"] == summaries["timed"]["deletion_rate"]
    [row] = predicted(tmp_path / "out/timed")
    assert [text for _, _, text in row["ref_segments"]] == [part.text for part in parts]
    assert summaries["joined"]["words"] == summaries["clips"]["words"]
    assert "deletion_rate" not in summaries["clips"]
    refused = run("evaluate.py", *arguments, "--data.path", str(corpus / "validation"), "--long", "given", "--out", "x")
    assert refused.code == 2
    assert "--long given" in refused.err
    assert len(refused.err.strip().splitlines()) == 1
