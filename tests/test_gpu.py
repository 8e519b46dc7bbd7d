"""What only a GPU can show; skipped, with the reason, where there is none."""

import json
import subprocess
import sys

import pytest
import torch

from tests.conftest import ROOT, Trainer, environment, metrics

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU, and torch sees none here"),
]


def on_gpu(train: Trainer, name: str, **settings: object) -> None:
    variables = {key: value for key, value in environment(1).items() if key != "ACCELERATE_USE_CPU"}
    arguments = train.arguments(name, device="cuda", **settings)
    done = subprocess.run(
        [sys.executable, "train.py", *arguments], cwd=ROOT, env=variables, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_gpu_trains_what_a_cpu_trains(train: Trainer, precision: str):
    settings = {"precision": precision, "model__dropout": 0, "eval__every": 0}
    on_gpu(train, "gpu", **settings)
    train("cpu", **settings)
    on_cpu = metrics(train.folder / "cpu")
    for step, row in metrics(train.folder / "gpu").items():
        # other kernels, other rounding: fp32 to a thousandth, bfloat16 (8 bits of mantissa) to a hundredth
        assert row["loss"] == pytest.approx(on_cpu[step]["loss"], rel=1e-3 if precision == "fp32" else 2e-2)


def test_a_run_on_a_gpu_resumes_where_it_was(train: Trainer):
    on_gpu(train, "run", steps=4)
    on_gpu(train, "run", steps=8, allow_change="[steps]")
    assert sorted(metrics(train.folder / "run")) == list(range(1, 9))
    assert json.loads((train.folder / "run/status.json").read_text())["state"] == "finished"
