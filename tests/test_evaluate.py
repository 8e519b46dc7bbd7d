"""evaluate.py: the score in the log, on a folder that stands alone, in one process or two."""

import io
import json
import math
import os
import re
import shutil
import signal
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch

from tests.conftest import START_SECONDS, Trainer, made_once, metrics, pids_of, run, start
from whisper_ft.config.parse import load_config
from whisper_ft.config.scoring import EvaluationConfig
from whisper_ft.data.audio.decode import decode
from whisper_ft.models.whisper import load_whisper, weights_sha256
from whisper_ft.runtime.errors import UsageError
from whisper_ft.training.checkpoint_model import load_any_for_inference
from whisper_ft.training.preflight import refuse_impossible_evaluation, refuse_missing_model


@pytest.fixture(scope="session")
def trained(shared: Path, corpus: Path, micro_whisper: Path) -> Path:
    """A run that evaluated its whole validation set at its last step, without a limit on tokens or rows."""
    settings: dict[str, Any] = {"eval__max_utterances": 100, "eval__max_new_tokens": 100, "eval__every": 40}
    trainer = Trainer(shared, corpus, micro_whisper, shared)
    return trainer.reference(steps=40, optim__lr=3e-3, save__every=0, log__every=10, **settings)


def evaluate(model: Path, data: Path, out: Path, *more: str, processes: int = 1) -> dict[str, Any]:
    ended = run(
        "evaluate.py", "--model", str(model), "--data.path", str(data), "--out", str(out), *more, processes=processes
    )
    assert ended.code == 0, ended.out + ended.err
    return json.loads((out / "summary.json").read_text())


def predictions(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="session")
def evaluated(trained: Path, corpus: Path) -> tuple[dict[str, Any], Path]:
    """evaluate.py on the best model and the validation set of the run."""

    def make(out: Path) -> None:
        evaluate(trained / "best", corpus / "validation", out, "--decoding.max_new_tokens", "100")

    out = made_once(trained.with_name("evaluated"), make)
    return json.loads((out / "summary.json").read_text()), out


@pytest.mark.long
def test_the_wer_in_the_log_is_the_wer_of_evaluate(trained: Path, evaluated: tuple[dict[str, Any], Path]):
    summary, out = evaluated
    logged = metrics(trained, having="wer")[40]
    for name in ("wer", "cer", "utterances", "substitutions", "deletions", "insertions", "words", "wer_orthographic"):
        assert summary[name] == logged[name], name
    in_loop = [json.loads(line) for line in (trained / "predictions/step-00000040.jsonl").read_text().splitlines()]
    assert [(row["id"], row["hyp"]) for row in predictions(out)] == [(row["id"], row["hyp"]) for row in in_loop]
    assert any(row["hyp"] for row in in_loop), "a model that writes nothing would show nothing"


def test_the_files_hold_every_utterance_once_with_its_texts(
    evaluated: tuple[dict[str, Any], Path], trained: Path, corpus: Path
):
    summary, out = evaluated
    rows = predictions(out)
    sentences = pq.read_table(corpus / "validation").column("sentence").to_pylist()
    assert [row["ref"] for row in rows] == sentences
    assert len({row["id"] for row in rows}) == summary["utterances"] == len(sentences)
    assert {"id", "ref", "hyp", "ref_norm", "hyp_norm"} <= rows[0].keys()
    assert math.isfinite(summary["wer"])
    report = (out / "report.html").read_text(encoding="utf-8")
    assert all(text in report for text in ("WER", str(summary["utterances"]), f"whisper_ft diagnose {trained}"))


def test_two_processes_write_what_one_writes(
    trained: Path, corpus: Path, evaluated: tuple[dict[str, Any], Path], tmp_path: Path
):
    summary, out = evaluated
    twice = evaluate(trained / "best", corpus / "validation", tmp_path, "--decoding.max_new_tokens", "100", processes=2)
    assert twice["utterances"] == summary["utterances"]
    assert [row["id"] for row in predictions(tmp_path)] == [row["id"] for row in predictions(out)]
    assert twice["wer"] == pytest.approx(summary["wer"], abs=0.05)  # batches are cut differently: float32 near-ties


@pytest.mark.long
def test_rows_that_cannot_be_heard_are_scored_and_named(trained: Path, corpus: Path, tmp_path: Path):
    table = pq.read_table(corpus / "validation").slice(0, 3).to_pylist()
    table[1]["audio"]["bytes"] = b"not audio"
    data = tmp_path / "data.parquet"
    pq.write_table(pa.Table.from_pylist(table), data)
    summary = evaluate(trained / "best", data, tmp_path / "out")
    assert summary["utterances"] == 3
    assert summary["problems"] == {"decode_error": 1}
    assert summary["unheard"] == 1
    assert "Without audio" in (tmp_path / "out/report.html").read_text(encoding="utf-8")


@pytest.mark.long
@pytest.mark.parametrize("processes", [pytest.param(1, marks=pytest.mark.matrix), 2])
def test_a_set_of_which_nothing_is_heard_has_no_score(trained: Path, corpus: Path, tmp_path: Path, processes: int):
    """The same command scores it once the audio is there."""
    manifest, out = tmp_path / "m.jsonl", tmp_path / "out"
    manifest.write_text('{"audio": "no1.wav", "text": "так"}\n{"audio": "no2.wav", "text": "не"}\n')
    arguments = ["--model", str(trained / "best"), "--data.path", str(manifest), "--out", str(out)]
    ended = run("evaluate.py", *arguments, processes=processes)
    assert ended.code == 4, ended.out + ended.err
    assert "missing_file 2" in ended.err
    assert len(ended.err.strip().splitlines()) == 1
    assert not (out / "summary.json").exists()
    clip = pq.read_table(corpus / "validation").column("audio")[0].as_py()["bytes"]
    for name in ("no1.wav", "no2.wav"):
        (tmp_path / name).write_bytes(clip)
    again = run("evaluate.py", *arguments, processes=processes)
    assert again.code == 0, again.out + again.err
    assert "could be read" not in again.out
    assert json.loads((out / "summary.json").read_text())["unheard"] == 0


@pytest.mark.long
def test_several_sets_are_scored_in_one_call_each_into_its_folder(trained: Path, corpus: Path, tmp_path: Path):
    """And a run directory stands for its best model."""
    sets = f"[{{path: {corpus / 'test'}}}, {{path: {corpus / 'validation'}, name: dev}}]"
    ended = run("evaluate.py", "--model", str(trained), "--sets", sets, "--data.language", "be", "--out", str(tmp_path))
    assert ended.code == 0, ended.err
    whole = json.loads((tmp_path / "summary.json").read_text())
    for name in ("test", "dev"):
        own = json.loads((tmp_path / name / "summary.json").read_text())
        assert whole["sets"][name] == {"metric": "wer", "value": own["wer"], "unheard": 0}
        assert own["utterances"] == len(predictions(tmp_path / name)) == 12
        assert (tmp_path / name / "report.html").exists()
        shown = f"{100 * own['wer']:.2f}%"
        assert any(
            name in line and shown in line for line in ended.out[ended.out.rindex("with an error") :].splitlines()
        )
    assert "%WER" in ended.out
    page = ET.parse(tmp_path / "index.html").getroot()
    links = [str(link.get("href")) for link in page.iter("a")]
    assert links == ["test/report.html", "dev/report.html"]
    assert all((tmp_path / link).exists() for link in links)


def test_a_checkpoint_is_scored_as_its_run_scored_it(trained: Path, corpus: Path, tmp_path: Path):
    checkpoint = trained / "checkpoints/step-00000040"
    summary = evaluate(checkpoint, corpus / "validation", tmp_path, "--decoding.max_new_tokens", "100")
    logged = metrics(trained, having="wer")[40]
    assert [summary[name] for name in ("wer", "cer", "utterances")] == [logged[n] for n in ("wer", "cer", "utterances")]


@pytest.mark.long
@pytest.mark.long
def test_a_checkpoint_is_loaded_from_where_its_start_model_is_now(train: Trainer, micro_whisper: Path, tmp_path: Path):
    start = Path(shutil.copytree(micro_whisper, tmp_path / "start"))
    run_dir = train("run", model__name=start, steps=1, eval__every=0)
    (checkpoint,) = (run_dir / "checkpoints").glob("step-*")
    moved, cpu = start.rename(tmp_path / "moved"), torch.device("cpu")
    with pytest.raises(UsageError, match="--base"):
        load_any_for_inference(str(checkpoint), "auto", cpu, lambda line: None)
    loaded = load_any_for_inference(str(checkpoint), "auto", cpu, lambda line: None, str(moved))
    assert loaded.sha256 == weights_sha256(load_whisper(str(run_dir / "final")).model)


def test_a_checkpoint_is_no_start_and_a_folder_of_checkpoints_no_model(trained: Path, corpus: Path, tmp_path: Path):
    checkpoint = str(trained / "checkpoints/step-00000040")
    with pytest.raises(UsageError, match=re.escape(f"--resume {checkpoint}")):
        refuse_missing_model("model.name", checkpoint)
    with pytest.raises(UsageError, match=r"holds several checkpoints; name one, such as .*step-00000040"):
        refuse_missing_model("model", str(trained / "checkpoints"))
    damaged = tmp_path / "step-00000040"
    shutil.copytree(checkpoint, damaged)
    with (damaged / "model.safetensors").open("r+b") as file:
        file.seek(-8, 2)
        file.write(b"\1" * 8)
    ended = run("evaluate.py", "--model", str(damaged), "--data.path", str(corpus / "test"), "--out", str(tmp_path))
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "its sha256 differs" in ended.err


@pytest.mark.long
def test_transcripts_are_scored_again_without_a_model_and_compared(
    trained: Path, evaluated: tuple[dict[str, Any], Path], tmp_path: Path
):
    summary, out = evaluated
    file = out / "predictions.jsonl"
    other = tmp_path / "other.jsonl"
    rows = predictions(out)
    for row in rows:
        row["hyp"] = row["ref"]
    other.write_text("\n".join(json.dumps(row) for row in rows))
    arguments = ["--predictions", str(file), "--compare", str(other), "--columns", "[speaker]"]
    ended = run("evaluate.py", *arguments, "--data.language", "be", "--out", str(tmp_path / "again"))
    assert ended.code == 0, ended.err
    again = json.loads((tmp_path / "again/summary.json").read_text())
    for name in ("wer", "cer", "ser", "substitutions", "confidence", "hallucination_signs"):
        assert again[name] == summary[name], name
    assert again["comparison"]["worse"] == sum(row["wer"] != 0 for row in predictions(out) if row["ref_norm"])
    assert again["comparison"]["better"] == 0
    assert "speaker" in again["breakdowns"]

    missing = run(
        "evaluate.py", "--predictions", str(file), "--compare", str(cut(other)), "--out", str(tmp_path / "no")
    )
    assert missing.code == 4
    facts = (rows[-1]["id"], str(file), str(other), f"{len(rows) - 1} utterances", f"has {len(rows)}: 1 missing")
    assert [fact for fact in facts if fact not in missing.err] == []
    page = (tmp_path / "again/report.html").read_text()
    assert "bf16" not in page
    assert not [claim for claim in ("decoding", "precision", "versions", "seconds") if f"<bdi>{claim}</bdi>" in page]
    assert "<bdi>predictions</bdi>" in page


def cut(file: Path) -> Path:
    """The same file without its last utterance."""
    file.write_text("\n".join(file.read_text().splitlines()[:-1]))
    return file


@pytest.mark.long
def test_a_rate_above_what_is_allowed_is_an_exit_code_for_ci(evaluated: tuple[dict[str, Any], Path], tmp_path: Path):
    summary, out = evaluated
    for allowed, code in ((summary["wer"] + 0.01, 0), (summary["wer"] - 0.01, 8)):
        arguments = ["--predictions", str(out / "predictions.jsonl"), "--fail_above", str(allowed)]
        ended = run("evaluate.py", *arguments, "--out", str(tmp_path))
        assert ended.code == code, ended.err
        assert (tmp_path / "report.html").exists(), "written all the same"
    facts = ("--fail_above", f"{summary['wer'] - 0.01:g}", "wer", str(out / "predictions.jsonl"))
    assert all(fact in ended.err for fact in facts)


@pytest.mark.long
def test_a_killed_evaluation_continues_and_writes_the_same_predictions(trained: Path, corpus: Path, tmp_path: Path):
    arguments = ["--model", str(trained), "--data.path", str(corpus / "train"), "--decoding.batch_size", "4"]
    whole = run("evaluate.py", *arguments, "--out", str(tmp_path / "whole"))
    assert whole.code == 0, whole.err
    out = tmp_path / "killed"
    started = start("evaluate.py", [*arguments, "--out", str(out)])
    kept, deadline = out / ".parts/rank-0.jsonl", time.monotonic() + START_SECONDS
    while not kept.exists() or kept.read_text().count("index") < 12:
        assert started.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(*pids_of(started), signal.SIGKILL)
    started.wait(START_SECONDS)
    with kept.open("a") as file:
        file.write('{"index": 99, "prediction": {"id"')  # what a kill may leave of a line
    ended = run("evaluate.py", *arguments, "--out", str(out), processes=2)
    assert ended.code == 0, ended.err
    assert any("of 100 utterances" in line for line in ended.out.splitlines())
    assert [row["id"] for row in predictions(out)] == [row["id"] for row in predictions(tmp_path / "whole")]
    same = sum(a["hyp"] == b["hyp"] for a, b in zip(predictions(out), predictions(tmp_path / "whole"), strict=True))
    assert same >= 98, "batches are cut differently: float32 near-ties"
    assert not (out / ".parts").exists()


@pytest.mark.long
def test_a_long_recording_is_transcribed_whole_prompt_and_detection_work(trained: Path, corpus: Path, tmp_path: Path):
    rows = pq.read_table(corpus / "validation").slice(0, 7).to_pylist()
    clips = [decode(row["audio"]["bytes"], 16_000, 30.0) for row in rows]
    pause = np.zeros(8_000, dtype=np.float32)
    long = np.concatenate([part for clip in clips for part in (clip, pause)])
    assert len(long) > 2 * 5 * 16_000, "longer than two windows of this model"
    file = io.BytesIO()
    soundfile.write(file, long, 16_000, format="FLAC")
    row = {**rows[0], "audio": {"bytes": file.getvalue(), "path": None}}
    row["sentence"] = " ".join(row["sentence"] for row in rows)
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "long.parquet")
    summary = evaluate(trained, tmp_path / "long.parquet", tmp_path / "out", "--data.language", "be")
    [row_of_whole] = predictions(tmp_path / "out")
    assert row_of_whole["windows"] >= 3
    assert row_of_whole["problem"] is None
    assert summary["audio_seconds"] == pytest.approx(len(long) / 16_000, abs=0.01)
    more = ["--decoding.detect_language", "true", "--decoding.prompt", "Янка Купала"]
    evaluate(trained, tmp_path / "long.parquet", tmp_path / "other", "--data.language", "sv", *more)
    [other] = predictions(tmp_path / "other")
    assert other["detected_language"] is not None
    assert other["hyp"] != row_of_whole["hyp"]


MODEL, DATA = ["--model", "{model}"], ["--data.path", "{data}"]


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        ([], ["--model"]),
        (["--model", "nowhere/at/all", "--data.path", "."], ["--model", "nowhere/at/all"]),
        (MODEL, ["--data.path"]),
        ([*MODEL, "--data.path", "nowhere"], ["--data.path", "nowhere"]),
        ([*MODEL, *DATA, "--num_beams", "2"], ["num_beams", "decoding.num_beams"]),
        (["--predictions", "nowhere.jsonl"], ["--predictions", "nowhere.jsonl"]),
        ([*MODEL, *DATA, "--compare", "nowhere"], ["--compare", "nowhere"]),
        ([*MODEL, "--sets", "[{{path: {data}}}, {{path: {data}}}]"], ["sets", "test"]),
    ],
)
def test_bad_input_is_refused_before_anything_is_loaded(
    arguments: list[str], facts: list[str], micro_whisper: Path, corpus: Path
):
    values = {"model": micro_whisper, "data": corpus / "test"}
    with pytest.raises(UsageError) as refused:
        refuse_impossible_evaluation(load_config(EvaluationConfig, [text.format(**values) for text in arguments]))
    assert all(fact in str(refused.value) for fact in facts)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (["--num_beams", "2"], ["decoding.num_beams"]),
        (["--normalizer", "goldn"], ["golden"]),
        (["--data.language", "xx"], ["'xx'"]),
        (["--data.language", "be", "--columns", "[agee]"], ["'agee'", "--columns"]),
        (["--columns", "[hyp]"], ["--columns", "hyp"]),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], facts: list[str], micro_whisper: Path, corpus: Path, tmp_path: Path
):
    data = ["--model", str(micro_whisper), "--data.path", str(corpus / "test")]
    ended = run("evaluate.py", *data, *arguments, "--out", str(tmp_path / "out"))
    assert ended.code == 2, ended.err
    assert all(fact in ended.err for fact in facts)
    assert len(ended.err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
