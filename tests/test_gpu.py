"""Claims that need a GPU; skipped, with the reason, where there is none."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bench.memory import LORA, Combination, measured_bytes
from collator import SpeechCollator
from tests.conftest import ROOT, Trainer, digest, environment, metrics, script_in
from whisper_ft.config.optimization import OptimConfig
from whisper_ft.data.types import Window
from whisper_ft.optim import optimizer as optim
from whisper_ft.training.memory.memory_estimate import estimate

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


@pytest.mark.parametrize("base", ["float", "int8", "nf4"])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_an_adapter_trains_and_resumes_on_a_gpu(train: Trainer, base: str, precision: str):
    pytest.importorskip("peft")
    settings = {"adapter__kind": "lora", "adapter__r": 4, "adapter__base": base, "precision": precision}
    settings |= {"model__gradient_checkpointing": "true", "optim__lr": 1e-2}
    on_gpu(train, "run", steps=4, **settings)
    on_gpu(train, "run", steps=8, allow_change="[steps]", **settings)
    rows = metrics(train.folder / "run")
    assert sorted(rows) == list(range(1, 9))
    assert rows[8]["loss"] < rows[1]["loss"]


def test_a_gpu_without_memory_ends_a_run_with_code_9(train: Trainer, tmp_path: Path):
    """Torch may use a hundred-thousandth of the card, less than the 2 MB that its allocator takes at a time."""
    limit = "import torch, train\ntorch.cuda.set_per_process_memory_fraction(1e-5)\ntrain.main()\n"
    variables = {key: value for key, value in environment(1).items() if key != "ACCELERATE_USE_CPU"}
    arguments = train.arguments("run", device="cuda", eval__every=0)
    argv = [sys.executable, script_in(tmp_path, limit), *arguments]
    done = subprocess.run(argv, cwd=ROOT, env=variables, capture_output=True, text=True)
    assert done.returncode == 9, done.stderr
    assert all(fact in done.stderr for fact in ("CUDA out of memory", "--batch.per_device 2 (is 4"))
    assert json.loads((train.folder / "run/status.json").read_text())["exit_code"] == 9


def test_a_batch_lies_where_the_gpu_fetches_it_by_itself():
    windows = [Window(torch.full((80, 500), float(i)), [5, 6, 7], (f"row-{i}",)) for i in range(3)]
    pinned, plain = (SpeechCollator(5, 0, (80, 500), pin_memory=pin)(windows) for pin in (True, False))
    assert pinned.input_features.is_pinned()
    assert torch.equal(pinned.to(torch.device("cuda")).input_features.cpu(), plain.input_features)


@pytest.mark.parametrize("name", ["adamw", "adamw_8bit", "paged_adamw_8bit", "adafactor", "sgd"])
def test_the_state_of_an_optimizer_on_a_gpu_comes_back_to_the_bit_in_its_kind_of_memory(tmp_path: Path, name: str):
    """Paged memory is used from 100,000 elements on, so the micro model has none: a large matrix stands for a layer."""
    settings = OptimConfig(name=name, lr=1e-3, weight_decay=0.1)

    def update(parameters: optim.NamedParameters, optimizer: torch.optim.Optimizer, *steps: int) -> None:
        for step in steps:
            for parameter in parameters.values():
                values = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(step))
                parameter.grad = values.to("cuda")
            optim.apply_update(optimizer, torch.tensor(1.0))

    def begin(weights: torch.Tensor) -> tuple[dict[str, torch.nn.Parameter], torch.optim.Optimizer]:
        parameters = {"decoder.layers.0.fc1.weight": torch.nn.Parameter(weights.detach().clone())}
        return parameters, optim.build_optimizer(parameters, settings)

    parameters, optimizer = begin(torch.linspace(-1, 1, 512 * 512, device="cuda").reshape(512, 512))
    update(parameters, optimizer, 0, 1, 2)
    saved = {key: value.contiguous() for key, value in optim.state_tensors(optimizer, parameters).items()}
    save_file(saved, tmp_path / "optimizer.safetensors")
    others, restored = begin(parameters["decoder.layers.0.fc1.weight"])
    optim.load_state_tensors(restored, others, load_file(tmp_path / "optimizer.safetensors"))
    update(parameters, optimizer, 3, 4)
    update(others, restored, 3, 4)
    assert torch.equal(*(one["decoder.layers.0.fc1.weight"] for one in (parameters, others)))
    before, after = optim.state_tensors(optimizer, parameters), optim.state_tensors(restored, others)
    assert all(torch.equal(value, after[key]) and value.device == after[key].device for key, value in before.items())
    paged = [[key for key, value in of.items() if hasattr(value, "is_paged")] for of in (before, after)]
    assert paged[0] == paged[1]
    assert bool(paged[0]) == (name == "paged_adamw_8bit")


@pytest.mark.parametrize("name", ["adamw_8bit", "paged_adamw_8bit"])
def test_a_run_on_a_gpu_with_moments_of_8_bits_ends_the_same_when_it_was_interrupted(train: Trainer, name: str):
    settings = {"optim__name": name, "eval__every": 0, "schedule__kind": "constant"}
    on_gpu(train, "whole", **settings)
    on_gpu(train, "run", **settings, steps=4)
    on_gpu(train, "run", **settings, allow_change="[steps]")
    assert digest(train.folder / "run") == digest(train.folder / "whole")


@pytest.mark.parametrize(
    "combination",
    [
        Combination("small", 4, 200, 2, {"precision": "bf16"}, "cuda"),
        Combination("small", 8, 448, 1, {"precision": "fp16", "model.gradient_checkpointing": True}, "cuda"),
        Combination("small", 4, 100, 2, {"optim.name": "adamw_8bit"}, "cuda"),
        Combination("small", 4, 448, 2, {"precision": "bf16"} | LORA, "cuda"),
        Combination("small", 8, 448, 2, {"precision": "fp16", "adapter.base": "nf4"} | LORA, "cuda"),
        Combination("small", 8, 200, 2, {"precision": "bf16", "model.freeze": ["encoder"]}, "cuda"),
    ],
    ids=str,
)
def test_the_estimate_is_what_a_gpu_allocates(combination: Combination):
    """The CUDA context is not allocated by torch."""
    step = estimate(combination.work)
    assert step.total - step.cuda == pytest.approx(measured_bytes(combination), rel=0.15)


def test_auto_finds_the_windows_of_a_pass_on_a_gpu_and_the_run_is_as_with_the_number_written_out(train: Trainer):
    on_gpu(train, "auto", batch__per_device="auto", eval__every=0)
    on_gpu(train, "written", batch__per_device=8, eval__every=0)
    assert "per_device: 8" in (train.folder / "auto/config.yaml").read_text()
    assert digest(train.folder / "auto") == digest(train.folder / "written")


def test_auto_takes_fewer_windows_where_a_gpu_has_less_memory(train: Trainer, tmp_path: Path):
    """The run may use a share of the card, in which a pass of 256 micro windows does not fit."""
    limit = (
        "import torch, train\n"
        "card = torch.cuda.get_device_properties(0).total_memory\n"
        "torch.cuda.set_per_process_memory_fraction(0.05 + 4e8 / card)\n"
        "train.main()\n"
    )
    variables = {key: value for key, value in environment(1).items() if key != "ACCELERATE_USE_CPU"}
    settings = {"batch__size": 256, "batch__per_device": "auto", "eval__every": 0, "steps": 2, "save__every": 0}
    arguments = train.arguments("run", device="cuda", **settings)
    argv = [sys.executable, script_in(tmp_path, limit), *arguments]
    done = subprocess.run(argv, cwd=ROOT, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = int((train.folder / "run/config.yaml").read_text().split("per_device: ")[1].split()[0])
    assert 1 <= found < 256
