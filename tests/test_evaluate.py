"""evaluate.py: the score in the log, on a folder that stands alone, in one process or two."""

import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import Trainer, metrics, run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, corpus: Path, micro_whisper: Path) -> Path:
    """A run that evaluated its whole validation set at its last step, without a limit on tokens or rows."""
    trainer = Trainer(tmp_path_factory.mktemp("trained"), corpus, micro_whisper)
    settings: dict[str, Any] = {"eval__max_utterances": 100, "eval__max_new_tokens": 100, "eval__every": 40}
    return trainer("run", steps=40, optim__lr=3e-3, save__every=0, log__every=10, **settings)


def evaluate(model: Path, data: Path, out: Path, *more: str, processes: int = 1) -> dict[str, Any]:
    ended = run(
        "evaluate.py", "--model", str(model), "--data.path", str(data), "--out", str(out), *more, processes=processes
    )
    assert ended.code == 0, ended.out + ended.err
    return json.loads((out / "summary.json").read_text())


def predictions(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def evaluated(trained: Path, corpus: Path) -> tuple[dict[str, Any], Path]:
    """evaluate.py on the best model and the validation set of the run."""
    out = trained.parent / "evaluated"
    return evaluate(trained / "best", corpus / "validation", out, "--decoding.max_new_tokens", "100"), out


def test_the_wer_in_the_log_is_the_wer_of_evaluate(trained: Path, evaluated: tuple[dict[str, Any], Path]):
    summary, out = evaluated
    logged = metrics(trained, having="wer")[40]
    for name in ("wer", "cer", "utterances", "substitutions", "deletions", "insertions", "words", "wer_orthographic"):
        assert summary[name] == logged[name], name
    in_loop = [json.loads(line) for line in (trained / "predictions/step-00000040.jsonl").read_text().splitlines()]
    assert [(row["id"], row["hyp"]) for row in predictions(out)] == [(row["id"], row["hyp"]) for row in in_loop]
    assert any(row["hyp"] for row in in_loop), "a model that writes nothing would show nothing"


def test_the_files_hold_every_utterance_once_with_its_texts(evaluated: tuple[dict[str, Any], Path], corpus: Path):
    summary, out = evaluated
    rows = predictions(out)
    sentences = pq.read_table(corpus / "validation").column("sentence").to_pylist()
    assert [row["ref"] for row in rows] == sentences
    assert len({row["id"] for row in rows}) == summary["utterances"] == len(sentences)
    assert {"id", "ref", "hyp", "ref_norm", "hyp_norm"} <= rows[0].keys()
    assert math.isfinite(summary["wer"])
    report = (out / "report.html").read_text(encoding="utf-8")
    assert all(text in report for text in ("WER", str(summary["utterances"])))


def test_two_processes_write_what_one_writes(
    trained: Path, corpus: Path, evaluated: tuple[dict[str, Any], Path], tmp_path: Path
):
    summary, out = evaluated
    twice = evaluate(trained / "best", corpus / "validation", tmp_path, "--decoding.max_new_tokens", "100", processes=2)
    assert twice["utterances"] == summary["utterances"]
    assert [row["id"] for row in predictions(tmp_path)] == [row["id"] for row in predictions(out)]
    assert twice["wer"] == pytest.approx(summary["wer"], abs=0.05)  # batches are cut differently: float32 near-ties


def test_rows_that_cannot_be_heard_are_scored_and_named(trained: Path, corpus: Path, tmp_path: Path):
    table = pq.read_table(corpus / "validation").slice(0, 3).to_pylist()
    table[1]["audio"]["bytes"] = b"not audio"
    data = tmp_path / "data.parquet"
    pq.write_table(pa.Table.from_pylist(table), data)
    summary = evaluate(trained / "best", data, tmp_path / "out")
    assert summary["utterances"] == 3
    assert summary["problems"] == {"decode_error": 1}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "--model is missing"),
        (["--model", "nowhere/at/all", "--data.path", "."], "there is no such folder"),
        (["--model", "{model}"], "--data.path is missing"),
        (["--model", "{model}", "--data.path", "nowhere"], "there is no such file"),
        (["--model", "{model}", "--data.path", "{data}", "--normalizer", "goldn"], "golden"),
        (["--model", "{model}", "--data.path", "{data}", "--data.language", "xx"], "language 'xx'"),
        (["--model", "{model}", "--data.path", "{data}", "--num_beams", "2"], "did you mean 'decoding.num_beams'?"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], told: str, micro_whisper: Path, corpus: Path, tmp_path: Path
):
    values = {"model": micro_whisper, "data": corpus / "test"}
    ended = run("evaluate.py", *(text.format(**values) for text in arguments), "--out", str(tmp_path / "out"))
    assert ended.code == 2, ended.err
    assert told in ended.err
    assert len(ended.err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
