"""Loss of the references: that of training, the same in any number of processes, logged and able to choose the best."""

import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from normalizers import get_normalizer
from tests.conftest import Trainer, metrics, run
from whisper_ft.cli.doctor.start_loss import start_loss
from whisper_ft.config.parse import load_config
from whisper_ft.config.training import TrainingConfig
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.data.types import Row
from whisper_ft.decoding.teacher_forced import label_losses
from whisper_ft.models.whisper import load_whisper
from whisper_ft.reports.evaluation.tables import wer_line
from whisper_ft.scoring.analysis import Analysis
from whisper_ft.scoring.scores import Prediction, score

SHORT: dict[str, Any] = {"steps": 2, "model__dropout": 0, "eval__every": 2, "eval__max_utterances": 4}


def test_a_loss_is_that_of_transformers_over_the_same_labels(micro_whisper: Path):
    model, processor = load_whisper(str(micro_whisper))
    model.eval()
    encode = LabelEncoder.of(model, processor.tokenizer, "be", "transcribe")
    frames = 2 * model.config.max_source_positions
    features = torch.rand(3, model.config.num_mel_bins, frames, generator=torch.Generator().manual_seed(1))
    texts = ["адно слова", None, "некалькі слоў, даўжэй за першае"]
    rows = [Row(str(number), b"", text) for number, text in enumerate(texts)]  # type: ignore[arg-type]
    with torch.inference_mode():
        states = model.model.encoder(features).last_hidden_state
        losses = label_losses(model, encode, states, rows)
        assert losses[1] is None
        for index in (0, 2):
            tokens, loss = encode(texts[index]), losses[index]
            expected = model(
                input_features=features[index : index + 1],
                decoder_input_ids=torch.tensor([tokens[:-1]]),
                labels=torch.tensor([tokens[1:]]),
            ).loss
            assert loss is not None
            assert loss.tokens == len(tokens) - 1
            assert loss.total / loss.tokens == pytest.approx(float(expected), rel=1e-5)
            assert loss.text_tokens == loss.tokens - 3
            assert 0 < loss.first < loss.text < loss.total


def test_the_loss_of_a_set_does_not_depend_on_the_number_of_processes(
    micro_whisper: Path, corpus: Path, tmp_path: Path
):
    """One row of the set is longer than a window, and one has no text; both have no loss, and are counted."""
    rows = [row for file in sorted((corpus / "test").glob("*.parquet")) for row in pq.read_table(file).to_pylist()]
    rows[3]["sentence"] = None
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "test.parquet")
    summaries = []
    for processes in (1, 2):
        out = tmp_path / str(processes)
        arguments = ["--model", micro_whisper, "--data.path", tmp_path / "test.parquet", "--data.language", "be"]
        limits = ["--decoding.max_new_tokens", "4", "--decoding.batch_size", "5", "--decoding.with_loss", "true"]
        ended = run("evaluate.py", *map(str, [*arguments, *limits, "--out", out]), processes=processes)
        assert ended.code == 0, ended.err
        summaries.append(json.loads((out / "summary.json").read_text()))
    assert summaries[0]["eval_loss"] == pytest.approx(summaries[1]["eval_loss"], rel=1e-6)
    assert [summary["utterances_without_loss"] for summary in summaries] == [1, 1]
    rows = [json.loads(line) for line in (tmp_path / "2/predictions.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows if row["loss"] is None] == ["test.parquet#3"]
    total = math.fsum(row["loss"] * row["label_tokens"] for row in rows if row["loss"] is not None)
    tokens = sum(row["label_tokens"] or 0 for row in rows)
    assert summaries[1]["eval_loss"] == pytest.approx(total / tokens, rel=1e-9)


@pytest.mark.long
def test_a_run_has_its_own_before(train: Trainer):
    """The start model is scored as step 0, and is not the best one."""
    run_dir = train("run", **SHORT, eval__at_start=True)
    rows = metrics(run_dir, having="wer")
    assert sorted(rows) == [0, 2]
    assert rows[0]["best"] is None
    assert rows[0]["eval_loss"] > rows[2]["eval_loss"] > 0
    assert json.loads((run_dir / "best.json").read_text())["step"] == 2
    assert (run_dir / "predictions/step-00000000.jsonl").exists()


@pytest.mark.long
def test_the_loss_may_choose_the_best(train: Trainer):
    run_dir = train("run", **SHORT | {"steps": 4}, eval__metric="loss")
    losses = {step: row["eval_loss"] for step, row in metrics(run_dir, having="wer").items()}
    best = json.loads((run_dir / "best.json").read_text())
    assert best == {"step": 4, "metric": "eval_loss", "value": min(losses.values()), "model": "whole"}


@pytest.mark.long
def test_a_loss_that_is_not_computed_cannot_choose(train: Trainer):
    ended = train.end("run", **SHORT, eval__metric="loss", eval__with_loss=False)
    assert ended.code == 2
    assert "--eval.with_loss true" in ended.err


def test_the_doctor_shows_the_loss_of_the_start_model_with_and_without_a_space(micro_whisper: Path, corpus: Path):
    arguments = ["--model.name", micro_whisper, "--data.path", corpus / "train", "--data.language", "be"]
    table = start_loss(load_config(TrainingConfig, [*map(str, arguments)]), 3, None, lambda *_: None)
    assert [row[0] for row in table.rows] == ["auto", "always", "never"]
    assert all(float(cell) > 1 for row in table.rows for cell in row[1:3])
    assert {row[3] for row in table.rows} == {"3"}


def test_the_headline_says_what_runaway_transcripts_make_of_it():
    words = "a b c d e f g h i j"
    made = [Prediction(f"u{number}", words, words, 2.0, 10) for number in range(9)]
    looped = Prediction("u9", words, "no " * 90, 2.0, 99)
    cut = Prediction("u10", words, "a b c", 2.0, 99, hit_token_limit=True)
    scores = score([*made, looped, cut], get_normalizer("none"))
    runaway = Analysis.of(scores).runaway
    assert runaway.utterances == 2
    assert runaway.count.errors == 90 + 7
    assert (runaway.error_share, runaway.others.rate) == (1.0, 0.0)
    assert "2 of 11" in wer_line(scores, runaway)
    assert "WER without them: 0.00%" in wer_line(scores, runaway)
    clean = score(made, get_normalizer("none"))
    assert wer_line(clean, Analysis.of(clean).runaway).endswith("]")
