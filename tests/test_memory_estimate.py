"""Memory of a training step: the estimate is what is measured, and its advice leads to a step that fits."""

import re
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration

from bench.memory import CHECKED, TUNED, Combination, measured_bytes
from tests.allocations import peak_of_step
from tests.conftest import ROOT
from whisper_ft.cli.estimate import SIZES, WAYS, main
from whisper_ft.config.adapter import AdapterConfig
from whisper_ft.config.parse import load_config
from whisper_ft.config.training import TrainingConfig
from whisper_ft.config.tree import with_values
from whisper_ft.models.adapters.lora import inject, lora_config
from whisper_ft.models.whisper import freeze, load_whisper, parameters_by_name
from whisper_ft.optim.loss import TOKENS_AT_ONCE
from whisper_ft.runtime.errors import UsageError
from whisper_ft.training.memory import memory_estimate
from whisper_ft.training.memory.memory_estimate import estimate
from whisper_ft.training.memory.memory_fit import improvements, largest_pass, usable
from whisper_ft.training.memory.memory_lines import start_lines
from whisper_ft.training.memory.model_dimensions import OPENAI_MODELS, ModelDimensions, dimensions_of
from whisper_ft.training.memory.workload import Workload

WEIGHTS = {"tiny": 37_760_640, "base.en": 72_593_408, "large-v3": 1_543_490_560, "large-v3-turbo": 808_878_080}
"""Numbers of weights of the models on the Hub."""
LARGE = OPENAI_MODELS["large-v3"]
T4_BYTES, HUGE_BYTES = 15_600_000_000, 10**12


def config_of(**settings: Any) -> TrainingConfig:
    arguments = [text for key, value in settings.items() for text in (f"--{key.replace('__', '.')}", str(value))]
    return load_config(TrainingConfig, arguments)


def work_of(model: ModelDimensions = LARGE, windows: int = 2, *, on_gpu: bool = True, **settings: Any) -> Workload:
    return Workload.of(config_of(**settings), model, on_gpu=on_gpu, windows=windows, processes=1)


SMALL = ModelDimensions(4, 2, 192, 3, 80, 5000, 768, 768)
CHECKPOINTING = {"model__gradient_checkpointing": "true"}
ADAPTER = {"adapter__kind": "lora"}


@pytest.mark.long
@pytest.mark.parametrize(
    ("labels", "passes", "settings"),
    [
        pytest.param(448, 2, {}, marks=pytest.mark.matrix),
        pytest.param(448, 2, {"precision": "bf16"} | CHECKPOINTING, marks=pytest.mark.matrix),
        pytest.param(200, 2, {"precision": "bf16", "model__freeze": "[encoder]"}, marks=pytest.mark.matrix),
        (200, 2, {"precision": "bf16", "model__attention": "eager", "model__freeze": "[decoder]"}),
        pytest.param(200, 2, {"precision": "bf16", "adapter__dropout": 0.1} | ADAPTER, marks=pytest.mark.matrix),
        (200, 2, {"precision": "bf16", "adapter__targets": "[q_proj, v_proj]"} | ADAPTER | CHECKPOINTING),
    ],
    ids=str,
)
def test_the_estimate_is_the_sum_of_the_tensors_that_live_at_once(
    monkeypatch: pytest.MonkeyPatch, labels: int, passes: int, settings: dict[str, Any]
):
    """Torch says which tensors live, with the shapes and types of the real model and loss, but without values."""
    monkeypatch.setattr(torch.nn.Module, "to", lambda module, *_, **__: module)  # fake weights cannot be moved
    config = config_of(**{"precision": "fp32", "batch__size": 4 * passes, "batch__per_device": 4} | settings)
    work = Workload.of(config, SMALL, on_gpu=False, windows=4, processes=1).with_labels(labels)
    assert estimate(work).total == pytest.approx(peak_of_step(config, SMALL, 4, labels, passes), rel=0.08)


@pytest.mark.matrix
def test_the_estimate_is_within_15_percent_of_the_measured_peak_of_a_process():
    """docs/memory.md has the figures of all combinations; a small one shows that the comparison still holds."""
    combination = Combination("tiny", 1, 100, 1, {"precision": "bf16"})
    assert estimate(combination.work).total == pytest.approx(measured_bytes(combination), rel=0.15)


def test_no_checked_combination_was_used_to_tune():
    assert not [one for one in CHECKED if one in TUNED]
    assert len(CHECKED) >= 6


@pytest.mark.parametrize("size", WEIGHTS)
def test_the_weights_of_a_size_are_counted_as_on_the_hub(size: str):
    assert dimensions_of(f"openai/whisper-{size}").weights == WEIGHTS[size]


@pytest.mark.parametrize("frozen", [[], ["encoder"], ["decoder"], ["embeddings"]], ids=str)
def test_trained_weights_are_those_of_the_model(micro_whisper: Path, frozen: list[Any]):
    model = load_whisper(str(micro_whisper)).model
    freeze(model, frozen)
    work = work_of(dimensions_of(str(micro_whisper)), model__freeze=frozen)
    counted = work.trained_weights("encoder") + work.trained_weights("decoder") + work.trained_embeddings
    assert counted == sum(one.numel() for one in parameters_by_name(model).values())


@pytest.mark.parametrize("targets", ["linear", "attention", ["q_proj", "v_proj"], ["fc2"]], ids=str)
@pytest.mark.parametrize("frozen", [[], ["encoder"]], ids=str)
def test_adapter_weights_are_those_of_peft(micro_whisper: Path, targets: Any, frozen: list[Any]):
    model = load_whisper(str(micro_whisper)).model
    settings = AdapterConfig(kind="lora", r=4, targets=targets)
    inject(model, lora_config(settings, frozen), seed=1)
    config = with_values(config_of(model__freeze=frozen), {"adapter": settings})
    work = Workload.of(config, dimensions_of(str(micro_whisper)), on_gpu=True, windows=1, processes=1)
    assert sum(map(work.adapter_weights, ("encoder", "decoder"))) == sum(
        one.numel() for one in parameters_by_name(model).values()
    )


def test_dimensions_of_a_folder_are_those_of_its_config(micro_whisper: Path):
    dimensions = dimensions_of(str(micro_whisper))
    model = load_whisper(str(micro_whisper)).model
    assert dimensions.weights == sum(parameter.numel() for parameter in model.parameters())
    assert (dimensions.positions, dimensions.label_positions) == (250, 128)


def test_blocks_of_logits_are_those_of_the_loss():
    assert memory_estimate.TOKENS_AT_ONCE == TOKENS_AT_ONCE


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"windows": 4}, {"windows": 2}),
        ({}, {"model__gradient_checkpointing": "true"}),
        ({"precision": "fp32"}, {"precision": "bf16"}),
        ({"model__attention": "eager"}, {"model__attention": "sdpa"}),
        ({}, {"optim__name": "adamw_8bit"}),
        ({"optim__name": "adamw_8bit"}, {"optim__name": "adafactor"}),
        ({}, {"model__freeze": ["encoder"]}),
        ({"model__dropout": 0.1}, {}),
        ({}, {"adapter__kind": "lora"}),
        ({"adapter__kind": "lora"}, {"adapter__kind": "lora", "adapter__base": "int8"}),
        ({"adapter__kind": "lora", "adapter__base": "int8"}, {"adapter__kind": "lora", "adapter__base": "nf4"}),
        ({"adapter__kind": "lora", "adapter__dropout": 0.1}, {"adapter__kind": "lora"}),
        ({"adapter__kind": "lora"}, {"adapter__kind": "lora", "adapter__targets": "attention"}),
    ],
    ids=str,
)
def test_a_setting_that_saves_memory_lowers_the_estimate(before: dict[str, Any], after: dict[str, Any]):
    assert estimate(work_of(**after)).total < estimate(work_of(**before)).total


def test_parts_add_up_and_several_processes_have_buckets():
    one = estimate(work_of())
    two = estimate(Workload.of(config_of(), LARGE, on_gpu=True, windows=2, processes=2))
    assert sum(one.parts.values()) == one.total
    assert set(one.parts) == {part.name for part in fields(one)}
    assert (one.buckets, two.buckets) == (0, 4 * (LARGE.weights - LARGE.fixed_positions))


@pytest.mark.parametrize("size", ["tiny", "small", "large-v3"])
def test_the_largest_pass_fits_and_one_more_window_does_not(size: str):
    work, room = work_of(OPENAI_MODELS[size], adapter__kind="lora", adapter__base="nf4"), 10**10
    most = largest_pass(work, room)
    assert estimate(work.with_windows(most)).total <= room < estimate(work.with_windows(most + 1)).total
    assert largest_pass(work, 10**6) == 0


def test_the_shortest_settings_of_the_readme_fit_a_card_of_16_gb(tmp_path: Path):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = (block for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "16 GB" in block)
    (tmp_path / "mine.yaml").write_text(block)
    config = load_config(TrainingConfig, ["--config", str(tmp_path / "mine.yaml")])
    model = OPENAI_MODELS[config.model.name.removeprefix("openai/whisper-")]
    windows = config.batch.per_device
    assert isinstance(windows, int)
    for precision in ("fp16", "bf16"):  # a T4 has no bf16
        work = Workload.of(replace(config, precision=precision), model, on_gpu=True, windows=windows, processes=1)
        assert estimate(work).total < usable(T4_BYTES)


def test_remedies_come_in_order_until_the_step_fits():
    config = config_of(precision="fp16", batch__per_device=16)
    steps = list(improvements(config, LARGE, usable(T4_BYTES), on_gpu=True))
    assert [one.remedy.name for one in steps] == [
        "batch.per_device",
        "model.gradient_checkpointing",
        "optim.name",
        "adapter.kind",
    ]
    totals = [one.estimate.total for one in steps]
    assert totals == sorted(totals, reverse=True)
    assert totals[-1] <= usable(T4_BYTES) < totals[-2]
    assert (steps[0].remedy.present, steps[0].remedy.value) == (16, 1)


def test_the_start_of_a_run_says_the_estimate_and_remedies_only_where_it_may_not_fit():
    config = config_of(precision="bf16", batch__per_device=8)
    [line] = start_lines(config, LARGE, HUGE_BYTES)
    assert all(part in line for part in ("1000.0 GB", "weights", "moments", "activations", "logits"))
    lines = list(start_lines(config, LARGE, T4_BYTES))
    assert "--batch.per_device 1 (is 8" in lines[2]
    assert lines[-1].startswith("  --adapter.kind lora")
    assert "fits" in lines[-1]
    hopeless = list(start_lines(config, LARGE, 10**9))
    assert "a smaller model" in hopeless[-1]


@pytest.mark.parametrize("frozen", ["[embeddings]", "[decoder]", "[encoder]"])
def test_advice_keeps_to_settings_that_go_together(frozen: str):
    list(start_lines(config_of(model__freeze=frozen), LARGE, 10**9))


def test_the_command_has_a_row_for_each_size_and_names_the_windows_that_fit(capsys: pytest.CaptureFixture[str]):
    assert main(["--gpu_gb", "16"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows[1:]] == list(SIZES)
    assert all(row.count("|") == len(WAYS) + 2 for row in rows)
    assert "(no)" in rows[1 + SIZES.index("large-v3")].split(" | ")[1]


def test_the_command_prints_parts_and_remedies_of_one_model(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    (tmp_path / "own.yaml").write_text("model:\n  name: openai/whisper-large-v3\nbatch:\n  per_device: 4\n")
    assert main(["--config", str(tmp_path / "own.yaml"), "--gpu_gb", "16"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("weights", "moments", "activations", "logits", "batch", "cuda", "total"))
    assert "--batch.per_device 1 (is 4" in out


def test_auto_stands_for_the_windows_that_fit_into_the_card(capsys: pytest.CaptureFixture[str]):
    small = ["--model.name", "openai/whisper-small", "--batch.per_device", "auto"]
    assert main([*small, "--gpu_gb", "8"]) == 0
    first, *_, last = capsys.readouterr().out.splitlines()
    assert (first.split(", ")[-1], last.split()[-1]) == ("2 windows in a pass", "2")
    assert main(small) == 0
    assert "16 windows in a pass" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (["--gpu_gb", "0"], ("--gpu_gb", "0")),
        (["--gpu_gb", "many"], ("--gpu_gb", "many")),
        (["--processes", "0"], ("--processes", "0")),
        (["--model.nam", "x"], ("model.nam", "model.name")),
        (["--model.name", "{folder}"], ("--model.name", "{folder}", "config.json")),
    ],
)
def test_wrong_arguments_are_one_line_and_code_2(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], facts: tuple[str, ...]
):
    assert main([text.format(folder=tmp_path) for text in arguments]) == 2
    error = capsys.readouterr().err
    assert all(fact.format(folder=tmp_path) in error for fact in facts)
    assert len(error.splitlines()) == 1


def test_a_model_of_another_kind_is_refused(tmp_path: Path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UsageError, match="encoder_layers"):
        dimensions_of(str(tmp_path))


def test_the_command_needs_no_torch():
    program = (
        "import sys; from whisper_ft.cli.estimate import main; main(['--gpu_gb', '16']); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_dimensions_are_those_that_transformers_has_for_a_config():
    """Every count of weights by part, on a model without values."""
    dimensions = OPENAI_MODELS["large-v3-turbo"]
    config = WhisperConfig(
        encoder_layers=32, decoder_layers=4, d_model=1280, encoder_attention_heads=20, decoder_attention_heads=20,
        encoder_ffn_dim=5120, decoder_ffn_dim=5120, num_mel_bins=128, vocab_size=51_866,
    )  # fmt: skip
    with torch.device("meta"):
        model = WhisperForConditionalGeneration(config)
    assert ModelDimensions.from_config(config.to_dict()) == dimensions
    sides = {"encoder": model.model.encoder, "decoder": model.model.decoder}
    counts = {name: sum(one.numel() for one in side.parameters()) for name, side in sides.items()}
    assert counts["encoder"] == dimensions.encoder_weights + dimensions.fixed_positions
    assert counts["decoder"] == dimensions.decoder_body + dimensions.embeddings
