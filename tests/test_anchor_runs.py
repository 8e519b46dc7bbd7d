"""Runs with an anchor: the same bits after a kill, on any number of processes, and with rows that cannot be used."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from collator import SpeechCollator
from tests.conftest import Trainer, digest, logged, metrics
from whisper_ft.cli.doctor.data_check import check_data
from whisper_ft.config.parse import load_config
from whisper_ft.config.training import TrainingConfig
from whisper_ft.models.adapters.base_identity import weights_identity

STEADY = {"schedule__kind": "constant", "schedule__warmup": 0}


@pytest.fixture
def anchored(corpus: Path) -> dict[str, Any]:
    """Both terms, with a number of utterances that two processes cannot share evenly."""
    return {"anchor__l2": 0.05, "anchor__kl": 2, "anchor__path": corpus / "test", "anchor__size": 3}


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def written(rows: list[dict[str, Any]], path: Path) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.long
@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.matrix)])
def test_a_killed_run_with_an_anchor_ends_with_the_bytes_of_one_that_was_not(
    train: Trainer, anchored: dict[str, Any], workers: int
):
    whole, settings = (
        train.reference(**anchored),
        anchored | {"data__workers": workers} | ({"data__prefetch": 1} if workers else {}),
    )
    train.interrupt("run", logged(4), signal.SIGKILL, **settings)
    run_dir = train("run", **settings)
    for part in ("final/model.safetensors", "checkpoints/step-00000008/optimizer.safetensors"):
        assert digest(run_dir, part) == digest(whole, part), part
    figures = ("loss", "anchor_kl", "anchor_l2", "anchor_tokens")
    assert [[row[name] for name in figures] for row in metrics(run_dir).values()] == [
        [row[name] for name in figures] for row in metrics(whole).values()
    ]


@pytest.mark.long
def test_the_terms_are_logged_and_hold_the_model(train: Trainer, anchored: dict[str, Any]):
    still = {"model__dropout": 0, "eval__every": 0, "save__every": 0, "steps": 5}
    first, *_, last = metrics(train("run", **anchored, **still)).values()
    assert first["anchor_kl"] == 0, "the first update begins at the start model"
    assert last["anchor_kl"] > 0
    assert 0 < first["anchor_l2"] < last["anchor_l2"]
    assert first["anchor_tokens"] > 0
    *_, loose = metrics(train("loose", **anchored | {"anchor__kl": 1e-6, "anchor__l2": 1e-6}, **still)).values()
    assert last["anchor_kl"] < loose["anchor_kl"]
    assert last["anchor_l2"] < loose["anchor_l2"]


@pytest.mark.long
def test_a_share_of_one_takes_every_update_back(train: Trainer):
    run_dir = train("run", anchor__l2=1, steps=2, eval__every=0, **STEADY)
    start, end = (load_file(path / "model.safetensors") for path in (train.model, run_dir / "final"))
    assert all(torch.equal(end[name], start[name]) for name in end)
    assert metrics(run_dir)[2]["anchor_l2"] == 0


@pytest.mark.long
def test_two_processes_make_the_updates_of_one_up_to_rounding(train: Trainer, anchored: dict[str, Any]):
    settings = anchored | {"model__dropout": 0, "steps": 3, "eval__every": 0, "save__every": 0}
    one, two = (train(f"run-{n}", n, **settings) for n in (1, 2))
    for (_, a), (_, b) in zip(metrics(one).items(), metrics(two).items(), strict=True):
        assert a["anchor_tokens"] == b["anchor_tokens"]
        assert b["anchor_kl"] == pytest.approx(a["anchor_kl"], rel=1e-3, abs=1e-7)
        assert b["grad_norm"] == pytest.approx(a["grad_norm"], rel=1e-4)
    first, second = (load_file(run_dir / "final/model.safetensors") for run_dir in (one, two))
    for name, tensor in first.items():
        assert (tensor - second[name]).abs().max() <= 1e-4 * tensor.abs().max() + 1e-5, name


@pytest.mark.matrix
def test_two_processes_killed_and_resumed_end_with_the_same_bytes(train: Trainer, anchored: dict[str, Any]):
    train.interrupt("run", logged(5), signal.SIGKILL, 2, **anchored)
    assert digest(train("run", 2, **anchored)) == digest(train.reference(2, **anchored))


@pytest.mark.matrix
@pytest.mark.parametrize(
    "settings",
    [
        {"precision": "fp16", "model__gradient_checkpointing": "true"},
        {"precision": "bf16", "pack__enabled": "true", "pack__block": 8, "model__freeze": "[encoder]"},
    ],
    ids=["fp16", "packed bf16 with a frozen encoder"],
)
def test_an_anchor_goes_with_other_kinds_of_training(
    train: Trainer, anchored: dict[str, Any], settings: dict[str, Any]
):
    train.interrupt("run", logged(5), signal.SIGKILL, **anchored, **settings)
    run_dir = train("run", **anchored, **settings)
    assert digest(run_dir) == digest(train.reference(**anchored, **settings))
    assert metrics(run_dir)[8]["anchor_kl"] >= 0


@pytest.mark.matrix
def test_an_adapter_is_held_near_its_base(train: Trainer, anchored: dict[str, Any]):
    pytest.importorskip("peft")
    settings = anchored | {"anchor__l2": 0, "adapter__kind": "lora", "adapter__r": 4, "optim__lr": 1e-2}
    train.interrupt("run", logged(5), signal.SIGKILL, **settings)
    run_dir, part = train("run", **settings), "final-adapter/adapter_model.safetensors"
    assert digest(run_dir, part) == digest(train.reference(**settings), part)
    row = metrics(run_dir)[8]
    assert row["anchor_kl"] > 0
    assert "anchor_l2" not in row


@pytest.mark.long
def test_a_row_that_cannot_be_used_leaves_its_place_empty_and_is_listed(train: Trainer, tmp_path: Path):
    rows = rows_of(train.corpus / "test")[:4]
    rows[1]["audio"]["bytes"] = b"no audio"
    path = written(rows, tmp_path / "anchor.parquet")
    settings = {"anchor__kl": 1, "anchor__path": path, "anchor__size": 4, "steps": 2, "eval__every": 0}
    run_dir = train("run", **settings)
    listed = [json.loads(line) for line in (run_dir / "quarantine.jsonl").read_text().splitlines()]
    assert [(row["id"].rpartition("#")[2], row["reason"]) for row in listed] == [("1", "decode_error")]
    log = metrics(run_dir)
    assert log[1]["anchor_tokens"] == log[2]["anchor_tokens"] > 0, "three rows in each step"
    assert log[2]["unusable"] == 0, "the rows of the data are counted alone"


@pytest.mark.long
def test_audio_on_which_the_run_is_scored_is_refused(train: Trainer, tmp_path: Path):
    path = written(rows_of(train.corpus / "validation")[:3] + rows_of(train.corpus / "test"), tmp_path / "mine.parquet")
    ended = train.end("run", anchor__kl=1, anchor__path=path)
    assert ended.code == 2
    assert "--anchor.path" in ended.err
    assert "held-out" in ended.err
    assert "3 of its rows" in ended.err


@pytest.mark.long
def test_audio_of_a_guard_is_refused_also_in_another_file(train: Trainer, tmp_path: Path):
    rows = rows_of(train.corpus / "test")
    guard = {"name": "old", "path": str(written(rows[2:4], tmp_path / "guard.parquet")), "max_worse": 0.1}
    settings = {"anchor__kl": 1, "anchor__path": written(rows, tmp_path / "mine.parquet")}
    ended = train.end("run", **settings, eval__sets=json.dumps([guard]))
    assert ended.code == 2
    assert all(fact in ended.err for fact in ("--anchor.path", "old", "2 of its rows")), ended.err


def test_the_doctor_compares_the_anchor_with_the_evaluated_sets(train: Trainer, tmp_path: Path):
    path = written(rows_of(train.corpus / "validation")[:2], tmp_path / "mine.parquet")
    config = load_config(TrainingConfig, train.arguments("x", anchor__kl=1, anchor__path=path))
    report = check_data(config, 5, "fast", lambda *_: None, SpeechCollator)
    assert any("LEAK" in line and "2" in line for line in report.text("leakage"))


@pytest.mark.long
def test_a_resumed_run_keeps_its_start_weights_and_its_anchor(train: Trainer, anchored: dict[str, Any], tmp_path: Path):
    model = Path(shutil.copytree(train.model, tmp_path / "model"))
    settings = anchored | {"model__name": model, "eval__every": 0, "steps": 2}
    train("run", **settings)
    assert "anchor.size" in str(train.refusal("run", **settings | {"anchor__size": 4}))
    assert "--allow_change '[anchor.kl]'" in str(train.refusal("run", **settings | {"anchor__kl": 1}))
    other = written(rows_of(train.corpus / "test")[:6], tmp_path / "other.parquet")
    longer = settings | {"steps": 3, "allow_change": "[steps]"}
    ended = train.end("run", **longer | {"anchor__path": other})
    assert (ended.code, "--anchor.path" in ended.err) == (2, True), ended.err
    weights = load_file(model / "model.safetensors")
    shutil.copytree(model, tmp_path / "as-it-was")
    from safetensors.torch import save_file

    changed = {name: tensor + 0.01 for name, tensor in weights.items()}
    save_file(changed, model / "model.safetensors", {"format": "pt"})
    assert weights_identity(str(model)) != weights_identity(str(tmp_path / "as-it-was"))
    ended = train.end("run", **longer)
    assert (ended.code, "model.name" in ended.err) == (3, True), ended.err


@pytest.mark.long
def test_a_run_without_an_anchor_gets_one_and_loses_it_where_that_is_allowed(train: Trainer, anchored: dict[str, Any]):
    short = {"steps": 2, "eval__every": 0}
    train("run", **short, anchor__l2=0.1)
    train("run", **short | {"steps": 3}, anchor__l2=0, allow_change="[steps, anchor.l2]")
    kl = {"anchor__kl": 1, "anchor__path": anchored["anchor__path"]}
    run_dir = train("run", **short | {"steps": 4}, **kl, allow_change="[steps, anchor.kl]")
    assert [sorted(key for key in row if key.startswith("anchor")) for row in metrics(run_dir).values()] == [
        ["anchor_l2"], ["anchor_l2"], [], ["anchor_kl", "anchor_tokens"],
    ]  # fmt: skip
    run_dir = train("run", **short | {"steps": 5}, **kl | {"anchor__kl": 0}, allow_change="[steps, anchor.kl]")
    assert "anchor_kl" not in metrics(run_dir)[5]
