"""Precision: training and evaluate.py choose alike, record the choice, and score a model with the same figures."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import Trainer, metrics, run
from whisper_ft.checkpoint.format import newest_record
from whisper_ft.config import yaml12
from whisper_ft.config.resume_policy import as_resumed, refuse_changes
from whisper_ft.config.training import TrainingConfig
from whisper_ft.config.tree import to_plain, with_values
from whisper_ft.models.precision import (
    EARLY_FOLDERS,
    RECORD,
    evaluation_precision,
    precision_record,
    recorded_precision,
    resolved_precision,
)

CPU = torch.device("cpu")


def evaluated(train: Trainer, model: Path, name: str, *more: str) -> dict[str, Any]:
    """The summary of evaluate.py on the held-out set of the tests' runs."""
    out = train.folder / name
    data = ["--data.path", str(train.corpus / "validation"), "--data.language", "be", "--max_utterances", "4"]
    decoding = ["--decoding.max_new_tokens", "12", "--decoding.with_loss", "true"]
    ended = run("evaluate.py", "--model", str(model), *data, *decoding, "--out", str(out), *more)
    assert ended.code == 0, ended.err
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
    assert f"precision {summary['precision']}" in ended.out
    return summary


@pytest.mark.long
@pytest.mark.parametrize("precision", ["bf16", pytest.param("fp16", marks=pytest.mark.matrix)])
def test_the_figures_of_a_model_are_those_of_its_log(train: Trainer, precision: str):
    run_dir = train("run", steps=2, save__every=0, precision=precision)
    row = metrics(run_dir, having="wer")[2]
    assert row["precision"] == precision
    copy = Path(shutil.copytree(run_dir / "best", train.folder / "copy"))
    for model in (run_dir, copy):
        summary = evaluated(train, model, f"{model.name}-scored")
        assert summary["precision"] == precision
        figures = ("wer", "cer", "substitutions", "eval_loss")
        assert {name: summary[name] for name in figures} == {name: row[name] for name in figures}
    assert recorded_precision(str(run_dir / "final")) == precision
    other = evaluated(train, run_dir, "other", "--precision", "fp32")
    assert other["precision"] == "fp32"
    assert other["eval_loss"] != row["eval_loss"]


@pytest.mark.long
def test_auto_on_a_cpu_is_fp32_in_training_and_evaluation(train: Trainer):
    run_dir = train("run", steps=2, eval__every=2, eval__at_start=True, precision="auto")
    record = newest_record(run_dir / "checkpoints")
    assert record is not None
    assert record.eval_protocol is not None
    recorded = [yaml12.load((run_dir / "config.yaml").read_text()), record.config, record.eval_protocol]
    assert [each["precision"] for each in recorded] == ["fp32"] * 3
    rows = metrics(run_dir, having="wer")
    assert [row["precision"] for row in rows.values()] == ["fp32"] * 2
    summary = evaluated(train, train.model, "before")
    assert (summary["precision"], summary["eval_loss"]) == ("fp32", rows[0]["eval_loss"])


def test_auto_is_the_best_format_of_a_device(monkeypatch: pytest.MonkeyPatch):
    cuda = torch.device("cuda")
    for has_bf16, chosen in ((True, "bf16"), (False, "fp16")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, has=has_bf16, **__: has)
        assert resolved_precision("auto", cuda) == chosen
        assert resolved_precision("fp32", cuda) == "fp32"
    assert resolved_precision("auto", CPU) == "fp32"
    assert resolved_precision("bf16", CPU) == "bf16"


@pytest.mark.parametrize("recorded", ["fp32", "bf16"])
def test_a_resumed_run_goes_on_in_its_own_precision(recorded: str):
    saved = to_plain(with_values(TrainingConfig(), {"precision": recorded}))
    resumed = as_resumed(TrainingConfig(), (), saved)
    assert resumed.precision == recorded
    assert refuse_changes(saved, resumed) == []


@pytest.mark.parametrize("folder", EARLY_FOLDERS)
def test_a_model_without_a_record_is_scored_as_its_run_was_configured(tmp_path: Path, folder: str):
    """Runs of early versions wrote no record."""
    model = tmp_path / "run" / folder
    model.mkdir(parents=True)
    assert recorded_precision(str(model)) is None
    (tmp_path / "run/config.yaml").write_text("precision: bf16\n")
    assert recorded_precision(str(model)) == "bf16"
    (model / RECORD).write_bytes(precision_record("fp16")[RECORD])
    assert recorded_precision(str(model)) == "fp16", "the record of the model itself counts"


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"precision": "fp8"}', '{"precision": "auto"}', '{"precision": [1]}']
)
def test_a_record_that_says_nothing_is_none(tmp_path: Path, content: str):
    (tmp_path / RECORD).write_text(content)
    said: list[str] = []
    assert recorded_precision(str(tmp_path)) is None
    assert evaluation_precision("auto", str(tmp_path), CPU, said.append) == "fp32"
    assert evaluation_precision("auto", "owner/name", CPU, said.append) == "fp32"
    assert evaluation_precision("bf16", str(tmp_path), CPU, said.append) == "bf16"
    assert [line.split(",")[0] for line in said] == ["precision fp32", "precision fp32", "precision bf16"]
