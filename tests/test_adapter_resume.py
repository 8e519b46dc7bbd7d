"""Runs with an adapter: killed and resumed to the same bytes, small checkpoints, and no other base in the middle."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.conftest import Trainer, digest, logged, metrics
from whisper_ft.checkpoint.format import newest_record
from whisper_ft.checkpoint.state import read_best
from whisper_ft.cli.checkpoint import main
from whisper_ft.models.adapters.base_identity import weights_identity

pytest.importorskip("peft")

FINAL, BEST = "final-adapter/adapter_model.safetensors", "best-adapter/adapter_model.safetensors"
LORA: dict[str, Any] = {"adapter__kind": "lora", "adapter__r": 4, "adapter__dropout": 0.1, "optim__lr": 1e-2}
SETTINGS: dict[str, dict[str, Any]] = {
    "float": {"adapter__dora": "true", "augment__time_masks": 1, "loss__label_smoothing": 0.1},
    "int8": {"precision": "bf16", "save__background": "true", "adapter__targets": "attention"},
    "nf4": {
        "pack__enabled": "true", "pack__block": 8, "model__gradient_checkpointing": "true",
        "model__freeze": "[encoder]", "adapter__rslora": "true", "optim__layer_decay": 0.5, "precision": "fp16",
    },
}  # fmt: skip
NF4 = LORA | SETTINGS["nf4"] | {"adapter__base": "nf4"}


@pytest.mark.long
@pytest.mark.parametrize(
    "base", [pytest.param("float", marks=pytest.mark.matrix), pytest.param("int8", marks=pytest.mark.matrix), "nf4"]
)
def test_a_killed_run_ends_with_the_bytes_of_one_that_was_not(train: Trainer, base: str):
    settings = LORA | SETTINGS[base] | {"adapter__base": base}
    whole = train.reference(**settings)
    train.interrupt("run", logged(3), signal.SIGKILL, **settings)
    train.interrupt("run", logged(7), signal.SIGKILL, **settings)
    run_dir = train("run", **settings)
    last = "checkpoints/step-00000008"
    for part in (FINAL, BEST, f"{last}/model.safetensors", f"{last}/optimizer.safetensors"):
        assert digest(run_dir, part) == digest(whole, part), part
    losses = {step: row["loss"] for step, row in metrics(run_dir).items()}
    assert losses == {step: row["loss"] for step, row in metrics(whole).items()}
    assert losses[8] < losses[1]


@pytest.mark.matrix
def test_two_processes_killed_and_resumed_end_with_the_same_bytes(train: Trainer):
    settings = LORA | {"adapter__base": "nf4"}
    train.interrupt("run", logged(5), signal.SIGKILL, 2, **settings)
    assert digest(train("run", 2, **settings), FINAL) == digest(train.reference(2, **settings), FINAL)


@pytest.mark.matrix
def test_two_processes_train_the_adapter_of_one_up_to_rounding(train: Trainer):
    settings = LORA | {"adapter__dropout": 0, "model__dropout": 0, "steps": 3, "eval__every": 0, "batch__size": 16}
    one, two = (load_file(train(f"run-{n}", n, **settings) / FINAL) for n in (1, 2))
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        assert (tensor - two[name]).abs().max() <= 1e-5 * tensor.abs().max() + 1e-6, name


@pytest.mark.long
def test_a_checkpoint_holds_the_adapter_and_the_identity_of_its_base(train: Trainer):
    run_dir = train.reference(**NF4)
    checkpoint = run_dir / "checkpoints/step-00000008"
    with safe_open(checkpoint / "model.safetensors", "pt") as file:
        assert all(".lora_" in name for name in file.keys())  # noqa: SIM118 - not a dict
    record = newest_record(run_dir / "checkpoints")
    assert record is not None
    identity = {"name": str(train.model), "sha256": weights_identity(str(train.model)), "quantisation": "nf4"}
    assert record.base == identity
    assert json.loads((run_dir / "best-adapter/base.json").read_text()) == identity
    size = sum(path.stat().st_size for path in checkpoint.iterdir())
    assert size < (train.model / "model.safetensors").stat().st_size
    best = read_best(run_dir / "best.json")
    assert best == record.state.best
    assert json.loads((run_dir / "best.json").read_text())["model"] == "adapter"
    assert not (run_dir / "best-adapter/config.json").exists(), "it would pass for a model"


def test_a_checkpoint_is_exported_as_an_adapter(train: Trainer, tmp_path: Path):
    run_dir = train.reference(**NF4)
    assert main(["export", str(run_dir), "--out", str(tmp_path / "out")]) == 0
    for name in ("adapter_model.safetensors", "adapter_config.json", "base.json"):
        assert (tmp_path / "out" / name).read_bytes() == (run_dir / "final-adapter" / name).read_bytes(), name


@pytest.mark.long
def test_another_base_under_the_same_name_is_refused(train: Trainer, tmp_path: Path):
    model = Path(shutil.copytree(train.model, tmp_path / "model"))
    settings = LORA | {"model__name": model, "steps": 2, "eval__every": 0, "save__every": 2}
    run_dir = train("run", **settings)
    before = digest(run_dir, FINAL)
    tensors = load_file(model / "model.safetensors")
    tensors["model.encoder.conv1.bias"] += 1
    save_file(tensors, model / "model.safetensors", {"format": "pt"})
    ended = train.end("run", **settings | {"steps": 3, "allow_change": "[steps]"})
    assert ended.code == 3
    assert weights_identity(str(model))[:12] in ended.err
    assert digest(run_dir, FINAL) == before


@pytest.mark.parametrize(
    ("changed", "facts"),
    [
        ({"adapter__base": "int8"}, ("adapter.base", "int8", "nf4")),
        ({"adapter__targets": "attention"}, ("adapter.targets", "linear", "attention")),
        ({"adapter__r": 8}, ("adapter.r", "4", "8")),
        ({"adapter__dropout": 0.2}, ("--allow_change '[adapter.dropout]'",)),
    ],
)
def test_another_adapter_is_refused_in_the_middle_of_a_run(
    train: Trainer, changed: dict[str, Any], facts: tuple[str, ...]
):
    train.copy_reference(**NF4)
    refusal = train.refusal("run", **NF4 | changed)
    assert all(fact in str(refusal) for fact in facts)


@pytest.mark.long
def test_a_run_goes_on_from_its_best_adapter_and_makes_a_lost_one_anew(train: Trainer):
    run_dir = train.copy_reference(**NF4)
    best = read_best(run_dir / "best.json")
    assert best is not None
    before = digest(run_dir, BEST)
    shutil.rmtree(run_dir / "best-adapter")
    ended = train.end("run", **NF4, resume="best")
    assert ended.code == 0, ended.err
    assert f"best-adapter/ was rebuilt from {run_dir / 'checkpoints'}" in ended.out
    assert f"resumed from {run_dir / f'checkpoints/step-{best.step:08d}'}" in ended.out
    assert digest(run_dir, BEST) == before
